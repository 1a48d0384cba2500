//! Digests of snapshots: proof that what a snapshot shows is what it showed when it was sealed, and
//! that no snapshot before it was another one.
//!
//! What a snapshot shows is a set of items: entries, attributes, and each inode with the BLAKE3 of
//! its content. Its sum ([`Lanes`]) is that of the snapshot before, less the items that went and
//! more those that came, which the born index names: the cost is that of the change. The first
//! snapshot of a line of descent is added up as a whole. All of it happens behind the scenes, page by
//! page, each snapshot after the one that it came from.
//!
//! *Truth*: a snapshot never changes, and every page is committed only while it and the snapshot
//! that its sum began with are there. A file whose content has no digest yet is noted in the batch
//! that passes it, and joins the sum in the batch that ends its note. *Crash*: a page is in with
//! its place, or neither; a sum that begins anew first says so, and then clears its notes. *Leaks*:
//! notes of destroyed snapshots, until the next look.

pub(super) mod items;
mod prove;
mod walk;

use blake3::Hash;
use bytes::Bytes;

use super::Namespace;
use super::digests::ContentSource;
use super::key::{self, Dataset, Kind, Node};
use super::pair::{Both, Pair};
use super::record::{Lanes, Piece, Seal, SlotRecord, SumRecord};
use super::store::{Batch, Durability, Space};
use super::tree::chain::root_of;
use super::tree::{TreeResult, View};
use super::view::{Item, behind};
use crate::error::FsResult;
use crate::types::Ino;

pub use prove::{Content, Flaw, FlawKind, Pending, Proof, Unread};

pub(super) use walk::Changes;

/// Records of a snapshot that become one batch, about.
const RECORDS_PER_PAGE: usize = 4096;

/// Files of a snapshot whose notes become one batch.
const NOTES_PER_PAGE: usize = 256;

/// What a step towards a snapshot's digest came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealing {
    /// There is more to look at.
    More,
    /// All was looked at; some files may still wait for the digest of their content.
    Summed,
    /// It has its digest, or is gone.
    Done,
    /// The one before has none yet.
    Behind,
    /// The asker ended it.
    Stopped,
}

/// Files of a snapshot that wait for the digest of their content.
#[derive(Clone, Debug, Default)]
pub struct Awaited {
    /// As the snapshot shows them.
    pub inodes: Vec<Ino>,
    /// How many of a page joined the sum.
    pub settled: usize,
    /// Where to continue; `None` at the end.
    pub next: Option<Ino>,
}

/// A snapshot that is being added up.
#[derive(Clone, Copy)]
struct Subject {
    node: Node,
    view: View,
    /// The snapshot before, with its digest.
    before: Option<(View, Node, Seal)>,
}

impl Namespace {
    /// Snapshots that have no digest yet, each behind those that it came from.
    pub fn unsealed(&self) -> FsResult<Vec<Node>> {
        self.clear_stale_notes()?;
        Ok(self.tree.read().unsealed())
    }

    /// The digest of a snapshot.
    pub fn seal_of(&self, node: Node) -> Option<Seal> {
        self.tree.read().seal(node)
    }

    /// Adds up the next page of a snapshot.
    pub fn sum_some(&self, node: Node, goes_on: &mut dyn FnMut() -> bool) -> TreeResult<Sealing> {
        self.sum_page(node, RECORDS_PER_PAGE, goes_on)
    }

    /// [`Namespace::sum_some`] with pages of about so many records.
    pub(super) fn sum_page(
        &self,
        node: Node,
        records: usize,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> TreeResult<Sealing> {
        let _turn = self.sealing.lock();
        let subject = match self.subject(node) {
            Ok(subject) => subject,
            Err(early) => return Ok(early),
        };
        let mut sum = match self.sum_of(node)? {
            Some(sum) if self.fits(&subject, &sum) => sum,
            _ => self.begin_sum(&subject, subject.before)?,
        };
        let Some(from) = sum.next else { return Ok(Sealing::Summed) };
        if from == 0 {
            self.clear_notes(node)?;
        }
        let mut changes = Changes::new(std::mem::take(&mut sum.lanes));
        let base = subject.before.filter(|(_, before, _)| sum.base == Some(*before));
        let walked = match &base {
            Some((older, ..)) => {
                let pair = Pair { older: Some(*older), newer: subject.view };
                self.walk_changes(&pair, from, records, goes_on, &mut changes)?
            }
            None => self.walk_all(&subject.view, from, records, goes_on, &mut changes)?,
        };
        if walked.is_stopped {
            return Ok(Sealing::Stopped);
        }
        if changes.is_without_base {
            // Something of what was added up then is not as it was: this one has to do without.
            self.begin_sum(&subject, None)?;
            return Ok(Sealing::More);
        }
        sum.next = walked.next;
        sum.lanes = changes.lanes;
        let mut batch = Batch::new();
        for object in changes.awaited {
            batch.put(Space::Meta, &key::awaited(node, Ino(object)), Bytes::new());
        }
        Ok(match (self.commit_sum(&subject, &sum, batch)?, sum.next) {
            (false, _) => Sealing::Done,
            (true, Some(_)) => Sealing::More,
            (true, None) => Sealing::Summed,
        })
    }

    /// What is to be added up, or why nothing is.
    fn subject(&self, node: Node) -> Result<Subject, Sealing> {
        let tree = self.tree.read();
        let is_unsealed = tree.seal(node).is_none() && !tree.unreadable_seals.contains(&node);
        let view = tree.snapshot_view(node).filter(|_| is_unsealed);
        let view = view.ok_or(Sealing::Done)?;
        let before = match tree.snapshot_before(node) {
            Some(before) => {
                let seal = tree.seal(before).ok_or(Sealing::Behind)?;
                let older = tree.snapshot_view(before).ok_or(Sealing::Behind)?;
                Some((older, before, seal))
            }
            None => None,
        };
        Ok(Subject { node, view, before })
    }

    /// Whether a sum can go on: what it began with is there.
    fn fits(&self, subject: &Subject, sum: &SumRecord) -> bool {
        sum.base.is_none_or(|base| subject.before.is_some_and(|(_, before, _)| before == base))
    }

    /// Begins a sum, from that of another snapshot if that is what was sealed. Says so before any
    /// note is cleared.
    fn begin_sum(
        &self,
        subject: &Subject,
        base: Option<(View, Node, Seal)>,
    ) -> FsResult<SumRecord> {
        let mut sum = SumRecord { base: None, next: Some(0), lanes: Lanes::default() };
        if let Some((view, node, seal)) = base
            && let Some(lanes) = self.sealed_lanes(&view, node, seal)?
        {
            sum = SumRecord { base: Some(node), lanes, ..sum };
        }
        self.commit_sum(subject, &sum, Batch::new())?;
        Ok(sum)
    }

    /// The sum that a snapshot's digest was made from; `None` where it is not what was sealed.
    pub(super) fn sealed_lanes(
        &self,
        view: &View,
        node: Node,
        seal: Seal,
    ) -> FsResult<Option<Lanes>> {
        let whole = self.sum_of(node)?.filter(|sum| sum.next.is_none());
        Ok(whole.map(|sum| sum.lanes).filter(|lanes| root_of(view.root, lanes) == seal.root))
    }

    /// Received snapshots whose digest says that they do not show what was sent.
    pub fn not_as_sent(&self) -> Vec<(Dataset, String)> {
        let tree = self.tree.read();
        let all = tree.snapshots.iter().filter(|(node, _)| tree.is_as_sent(**node) == Some(false));
        all.map(|(_, record)| (record.dataset, record.name.clone())).collect()
    }

    /// Whether a snapshot shows what was sent; `None` where nobody said what that is, or it has no
    /// digest.
    pub fn is_as_sent(&self, node: Node) -> Option<bool> {
        self.tree.read().is_as_sent(node)
    }

    /// The sum of all that a state shows, read anew; `None` while files of it have no digest.
    pub(super) fn sum_anew(&self, view: &View) -> FsResult<Option<Lanes>> {
        let mut changes = Changes::default();
        let mut from = Some(0);
        while let Some(first) = from {
            let goes_on = &mut || true;
            from = self.walk_all(view, first, RECORDS_PER_PAGE, goes_on, &mut changes)?.next;
            if !changes.awaited.is_empty() {
                return Ok(None);
            }
        }
        Ok(Some(changes.lanes))
    }

    /// The sum of a snapshot; `None` where there is none, or one that does not decode.
    pub(super) fn sum_of(&self, node: Node) -> FsResult<Option<SumRecord>> {
        let stored = self.gate.store().get(Space::Meta, &key::meta_number(key::SUMS, node.0))?;
        Ok(stored.and_then(|value| SumRecord::decode(&value).ok()))
    }

    /// Stores a sum with what belongs to it; `false` when the snapshot went, or what its sum
    /// began with.
    fn commit_sum(&self, subject: &Subject, sum: &SumRecord, mut batch: Batch) -> FsResult<bool> {
        // Nothing is destroyed meanwhile.
        let _guard = self.lock(&[]);
        let is_there = {
            let tree = self.tree.read();
            let is_there = |node: &Node| tree.snapshots.contains_key(node);
            is_there(&subject.node) && sum.base.as_ref().is_none_or(is_there)
        };
        if is_there {
            let key = key::meta_number(key::SUMS, subject.node.0);
            batch.put(Space::Meta, &key, sum.encode());
            self.gate.commit(batch, Durability::Buffered)?;
        }
        Ok(is_there)
    }

    /// Lets files join the sum of a snapshot that have a digest by now, and tells which have none,
    /// from `from` on, page by page.
    pub fn settle_awaited(&self, node: Node, from: Ino) -> TreeResult<Awaited> {
        let _turn = self.sealing.lock();
        let mut awaited = Awaited::default();
        let Ok(subject) = self.subject(node) else { return Ok(awaited) };
        let Some(mut sum) = self.sum_of(node)?.filter(|sum| self.fits(&subject, sum)) else {
            return Ok(awaited);
        };
        let end = key::awaited(Node(node.0 + 1), Ino(0));
        let store = self.gate.store();
        let page =
            store.page(Space::Meta, &key::awaited(node, from), Some(&end), NOTES_PER_PAGE)?;
        let mut batch = Batch::new();
        for (note, _) in &page.items {
            let (_, object) = key::awaited_decode(note)?;
            awaited.next = Some(Ino(object.0 + 1)).filter(|_| page.more);
            let Some(inode) = self.stored_in(&subject.view, object)? else { continue };
            match items::inode(&inode, None) {
                Some(item) => {
                    sum.lanes.add(&item);
                    batch.delete(Space::Meta, note);
                    awaited.settled += 1;
                }
                None => awaited.inodes.push(subject.view.lift(object)),
            }
        }
        if awaited.settled > 0 {
            self.commit_sum(&subject, &sum, batch)?;
        }
        Ok(awaited)
    }

    /// Gives a snapshot its digest, if everything of it is in its sum.
    pub fn seal(&self, node: Node) -> TreeResult<Sealing> {
        let _turn = self.sealing.lock();
        let (alone, mut change) = self.change_tree()?;
        let subject = match self.subject(node) {
            Ok(subject) => subject,
            Err(early) => return Ok(early),
        };
        let Some(sum) = self.sum_of(node)?.filter(|sum| self.fits(&subject, sum)) else {
            return Ok(Sealing::More);
        };
        if sum.next.is_some() {
            return Ok(Sealing::More);
        }
        if !self.awaited_some(node, 1)?.is_empty() {
            return Ok(Sealing::Summed);
        }
        let root = root_of(subject.view.root, &sum.lanes);
        let Some(seal) = change.tree.sealed_as(node, root) else { return Ok(Sealing::Behind) };
        change.put_seal(node, seal);
        self.commit_tree(&alone, change)?;
        Ok(Sealing::Done)
    }

    /// Files of a snapshot that wait for the digest of their content, the first `most` of those that
    /// were met.
    fn awaited_some(&self, node: Node, most: usize) -> FsResult<Vec<Ino>> {
        let (from, end) = (key::awaited(node, Ino(0)), key::awaited(Node(node.0 + 1), Ino(0)));
        let page = self.gate.store().page(Space::Meta, &from, Some(&end), most)?;
        let objects = page.items.iter().map(|(key, _)| Ok(key::awaited_decode(key)?.1));
        objects.collect()
    }

    /// Takes back which files of a snapshot wait.
    fn clear_notes(&self, node: Node) -> FsResult<()> {
        let (from, end) = (key::awaited(node, Ino(0)), key::awaited(Node(node.0 + 1), Ino(0)));
        loop {
            let page = self.gate.store().page(Space::Meta, &from, Some(&end), RECORDS_PER_PAGE)?;
            if page.items.is_empty() {
                return Ok(());
            }
            let mut batch = Batch::new();
            page.items.iter().for_each(|(key, _)| batch.delete(Space::Meta, key));
            self.gate.commit(batch, Durability::Buffered)?;
        }
    }

    /// Clears away what destroyed snapshots left.
    fn clear_stale_notes(&self) -> FsResult<()> {
        let _turn = self.sealing.lock();
        let (mut from, end) = (vec![key::AWAITED], [key::AWAITED + 1]);
        loop {
            let page = self.gate.store().page(Space::Meta, &from, Some(&end), 1)?;
            let Some((note, _)) = page.items.first() else { return Ok(()) };
            // A key that means nothing is for a repair, and holds up nobody.
            let Ok((node, _)) = key::awaited_decode(note) else {
                from = behind(note);
                continue;
            };
            if !self.tree.read().snapshots.contains_key(&node) {
                self.clear_notes(node)?;
            }
            from = key::awaited(Node(node.0 + 1), Ino(0)).to_vec();
        }
    }

    /// Stores the digest of a file's content in the snapshot that shows it; nothing happens when
    /// the snapshot is gone.
    pub fn give_digest(&self, node: Node, ino: Ino, digest: Hash) -> FsResult<bool> {
        let _guard = self.lock(&[ino]);
        // The inode number may be that of another state by now; a node never is another snapshot's,
        // so what was read is what this one shows.
        let view = self.tree.read().snapshot_view(node);
        let Some(view) = view.filter(|view| view.index == ino.view_index()) else {
            return Ok(false);
        };
        let object = Ino(ino.object());
        let Some(inode) = self.stored_in(&view, object)? else { return Ok(false) };
        self.store_digest(&view, &inode, digest)
    }

    /// The digest of a snapshot's file, if the live state has it and the same content still.
    pub fn digest_of_later(&self, ino: Ino) -> FsResult<Option<Hash>> {
        let view = self.view(ino)?;
        let object = Ino(ino.object());
        let Some(live) = self.tree.read().live_view(view.dataset) else { return Ok(None) };
        let old = self.stored_in(&view, object)?;
        let new = self.stored_in(&live, object)?;
        let (Some(was), Some(is)) = (&old, &new) else { return Ok(None) };
        if was.size != is.size || is.digest.is_none() {
            return Ok(None);
        }
        let (now, digest) = (is.clone(), is.digest);
        let pair = Pair { older: Some(view), newer: live };
        let both = Both { object, old, new, kinds: super::diff::Kinds::ALL };
        let is_same = self.differing(&pair, &both, (Kind::Extent, &[]), &mut |_, old, new| {
            Ok(pieces(old)? == pieces(new)?)
        })?;
        // Whatever had changed the content meanwhile would have changed the inode.
        let is_still = self.stored_in(&live, object)?.as_ref() == Some(&now);
        Ok(digest.filter(|_| is_same && is_still))
    }
}

fn pieces(item: Option<&Item>) -> FsResult<Vec<Piece>> {
    match item {
        Some(item) => Ok(SlotRecord::decode_value(&item.value)?.pieces),
        None => Ok(Vec::new()),
    }
}
