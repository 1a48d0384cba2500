//! Verifying a snapshot: everything that it shows is added up anew, and compared with what was
//! sealed; its digest is computed anew from that, and so are those of all snapshots before it.

use blake3::Hash;

use super::walk::{Changes, Shown};
use super::{ContentSource, Namespace, items};
use crate::error::FsResult;
use crate::namespace::key::{Dataset, Node};
use crate::namespace::record::{Inode, Seal};
use crate::namespace::tree::chain::root_of;
use crate::namespace::tree::{TreeResult, View};
use crate::types::{FileKind, Ino};

/// Flaws that are told one by one.
const MOST_FLAWS: usize = 1000;

/// Records looked at between two questions whether to go on.
const PAGE: usize = 1024;

/// Waiting files that are counted, and of these, that are named.
const MOST_WAITING: usize = 10_000;
const NAMED: usize = 3;

/// In what a snapshot is not what was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlawKind {
    /// Names, attributes or digests of files are others.
    Tree,
    /// A file's bytes are not those of its digest.
    Content,
    /// It is another one than where it was sent from.
    Sent,
    /// The digest of this or of an earlier snapshot does not follow from what is before it.
    Chain,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// In what.
    pub kind: FlawKind,
    /// The file that it is about, as the snapshot shows it.
    pub ino: Option<Ino>,
    /// What is wrong with it, for people.
    pub detail: String,
}

/// Why a snapshot has no digest yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pending {
    /// It is being computed.
    Computing,
    /// Files wait for the digest of their content, at least so many; some of them.
    Files(u64, Vec<Ino>),
    /// An earlier snapshot has none.
    Behind(Dataset, String),
}

/// A file whose bytes could not be had, which says nothing of what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// As the snapshot shows it.
    pub ino: Ino,
    /// Why not, for people.
    pub reason: String,
}

/// What a verification found.
#[derive(Clone, Debug, Default)]
pub struct Proof {
    /// What stands for all that the snapshot shows, as found; `None` where not everything could be
    /// added up.
    pub root: Option<Hash>,
    /// What was sealed; `None` while nothing was.
    pub seal: Option<Seal>,
    /// Why not.
    pub pending: Option<Pending>,
    /// What stood for all that it showed where it was sent from, if the stream said so.
    pub sent_root: Option<Hash>,
    /// Inodes that were added up.
    pub inodes: u64,
    /// Files whose bytes were compared with their digest.
    pub files: u64,
    /// Files whose bytes could not be had.
    pub unread: u64,
    /// Which these are; of very many not all are told.
    pub unreadable: Vec<Unread>,
    /// Snapshots whose digests were computed anew: this one and those before it.
    pub chain: u64,
    /// Destroyed snapshots in between that the chain leads through.
    pub destroyed: u64,
    /// Before those are others, of which nothing is known but the digest of the last.
    pub is_cut: bool,
    /// What is wrong.
    pub flaws: Vec<Flaw>,
    /// How many flaws there are; of very many not all are told.
    pub found: u64,
    /// The asker ended it before everything was looked at.
    pub is_stopped: bool,
}

impl Proof {
    fn flaw(&mut self, kind: FlawKind, ino: Option<Ino>, detail: String) {
        self.found += 1;
        if self.flaws.len() < MOST_FLAWS {
            self.flaws.push(Flaw { kind, ino, detail });
        }
    }

    fn unread(&mut self, ino: Ino, reason: String) {
        self.unread += 1;
        if self.unreadable.len() < MOST_FLAWS {
            self.unreadable.push(Unread { ino, reason });
        }
    }
}

/// Reads the content of files, if that is asked for.
pub type Content<'a> = Option<&'a mut dyn ContentSource>;

impl Namespace {
    /// Verifies a snapshot, which cannot be destroyed meanwhile, and with `content` the bytes of
    /// all its files. `goes_on` is asked now and then with the number of inodes looked at.
    pub fn prove(
        &self,
        (dataset, name): (Dataset, &str),
        mut content: Content<'_>,
        goes_on: &mut dyn FnMut(u64) -> bool,
    ) -> TreeResult<Proof> {
        let held = self.begin_send((dataset, name), None)?;
        let node = held.snapshot.node;
        let view = self.view(held.snapshot.root)?;
        let sent_root = held.snapshot.sent_root;
        let mut proof = Proof { seal: self.seal_of(node), sent_root, ..Proof::default() };
        if proof.seal.is_none() && !self.tree.read().unreadable_seals.contains(&node) {
            proof.pending = Some(self.pending(node, &view)?);
        }
        match self.add_up(&view, &mut content, goes_on, &mut proof) {
            Ok(root) => proof.root = root,
            // A record that does not decode is one that was changed; one that cannot be read is not.
            Err(error) if error.is_damage() => {
                proof.flaw(FlawKind::Tree, None, crate::file::chain(&error));
            }
            Err(error) => return Err(error.into()),
        }
        if let (Some(root), Some(seal)) = (proof.root, proof.seal)
            && root != seal.root
        {
            let detail = format!("its root was {}, and that of what it shows is {root}", seal.root);
            proof.flaw(FlawKind::Tree, None, detail);
        }
        if let (Some(root), Some(sent)) = (proof.root, sent_root)
            && root != sent
        {
            let detail = format!("its root was {sent} when it was sent, and here it is {root}");
            proof.flaw(FlawKind::Sent, None, detail);
        }
        self.prove_chain(node, &mut proof);
        Ok(proof)
    }

    /// The root of all that a state shows, read anew; `None` while files have no digest.
    fn add_up(
        &self,
        view: &View,
        content: &mut Content<'_>,
        goes_on: &mut dyn FnMut(u64) -> bool,
        proof: &mut Proof,
    ) -> FsResult<Option<Hash>> {
        let mut changes = Changes::default();
        let (mut from, mut is_whole) = (Some(0), true);
        while let Some(first) = from {
            let inodes = proof.inodes;
            let mut asked = || goes_on(inodes);
            let walked = self.walk_shown(view, first, PAGE, &mut asked, &mut |shown| {
                match shown {
                    Shown::Item(item) => changes.lanes.add(&item),
                    Shown::Inode(inode, target) => {
                        proof.inodes += 1;
                        match items::inode(inode, target) {
                            Some(item) => changes.lanes.add(&item),
                            None => is_whole = false,
                        }
                        if let Some(content) = content {
                            self.compare_content(view, inode, *content, proof)?;
                        }
                    }
                }
                Ok(())
            })?;
            if walked.is_stopped || !goes_on(proof.inodes) {
                proof.is_stopped = true;
                return Ok(None);
            }
            from = walked.next;
        }
        if !is_whole && proof.seal.is_some() {
            proof.flaw(
                FlawKind::Tree,
                None,
                "a file has lost the digest of its content".to_owned(),
            );
        }
        Ok(is_whole.then(|| root_of(view.root, &changes.lanes)))
    }

    fn compare_content(
        &self,
        view: &View,
        inode: &Inode,
        content: &mut dyn ContentSource,
        proof: &mut Proof,
    ) -> FsResult<()> {
        let (FileKind::File, Some(stored)) = (inode.kind, inode.content_digest()) else {
            return Ok(());
        };
        let ino = view.lift(inode.ino);
        match self.digest_content(&Inode { ino, ..inode.clone() }, content) {
            Ok(Some(found)) => {
                proof.files += 1;
                if found != stored {
                    let detail =
                        format!("its BLAKE3 was {stored}, and that of its bytes is {found}");
                    proof.flaw(FlawKind::Content, Some(ino), detail);
                }
            }
            Ok(None) => proof.unread(ino, "its bytes are lost or damaged".to_owned()),
            Err(error) if error.is_damage() => {
                proof.flaw(FlawKind::Content, Some(ino), crate::file::chain(&error));
            }
            Err(error) if error.is_of_store() => return Err(error),
            Err(error) => proof.unread(ino, crate::file::chain(&error)),
        }
        Ok(())
    }

    /// Computes the digests of a snapshot and all before it anew, from their roots.
    fn prove_chain(&self, node: Node, proof: &mut Proof) {
        let tree = self.tree.read().clone();
        for (node, record) in tree.chain_of(node) {
            let name = tree.snapshots.get(&node).map_or("", |record| &record.name);
            if tree.unreadable_seals.contains(&node) {
                let detail = format!("the digest of @{name} cannot be read: it is not proven");
                proof.flaw(FlawKind::Chain, None, detail);
            }
            let Some(record) = record.filter(|_| !tree.is_behind_unreadable(node)) else {
                continue;
            };
            proof.destroyed += record.link.bodies.len() as u64;
            proof.is_cut |= record.link.start.is_some();
            let Some(seal) = record.seal else { continue };
            proof.chain += 1;
            if tree.sealed_as(node, seal.root) != Some(seal) {
                let detail = format!("the digest of @{name} does not follow from those before it");
                proof.flaw(FlawKind::Chain, None, detail);
            }
        }
    }

    fn pending(&self, node: Node, view: &View) -> TreeResult<Pending> {
        let older = {
            let tree = self.tree.read();
            let missing = tree.chain_of(node).into_iter().skip(1);
            let missing = missing.filter(|(node, _)| tree.seal(*node).is_none()).last();
            missing.and_then(|(node, _)| tree.snapshots.get(&node).cloned())
        };
        if let Some(older) = older {
            return Ok(Pending::Behind(older.dataset, older.name.clone()));
        }
        let is_summed = self.sum_of(node)?.is_some_and(|sum| sum.next.is_none());
        let waiting = self.awaited_some(node, MOST_WAITING)?;
        match is_summed && !waiting.is_empty() {
            true => {
                let inodes = waiting.iter().take(NAMED).map(|object| view.lift(*object)).collect();
                Ok(Pending::Files(waiting.len() as u64, inodes))
            }
            false => Ok(Pending::Computing),
        }
    }
}
