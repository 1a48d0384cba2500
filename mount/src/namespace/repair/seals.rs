//! Digests of snapshots: one that cannot be read is what it must have been if a digest behind it
//! says so. Otherwise nobody knows it any more; then it goes, and those behind it begin their proof
//! anew.
//!
//! *Truth*: a digest that can be read stays as it is, right or not, unless it follows from one that
//! is lost: then nothing proves what it stands for. Those behind it follow from it, and keep theirs.

use std::sync::Arc;

use blake3::Hash;

use super::{Fate, Mender};
use crate::error::FsResult;
use crate::namespace::check::{FindingKind, past_damage};
use crate::namespace::key::{self, Node};
use crate::namespace::record::{Link, SealRecord, SumRecord};
use crate::namespace::store::Space;
use crate::namespace::tree::chain::root_of;
use crate::namespace::tree::{Tree, View};
use crate::types::Ino;

/// Digests in a row that cannot be read through which one is proven, at most.
const MOST_IN_A_ROW: usize = 16;

impl Mender<'_> {
    /// Mends what is known of snapshots' digests; whether anything changed.
    pub(super) fn mend_seals(&mut self) -> FsResult<bool> {
        self.changed = false;
        self.drop_seals_of_nobody()?;
        // An older one first: what is behind it follows from it.
        let unreadable = self.ns.tree.read().unreadable_seals.clone();
        for node in unreadable {
            self.step(|mender| mender.mend_seal(node))?;
            self.ns.tree.write().load_seals(&**self.ns.gate.store())?;
        }
        let sealed: Vec<_> = self.ns.tree.read().seals.keys().copied().collect();
        for node in sealed {
            self.step(|mender| mender.mend_sum(node))?;
        }
        Ok(self.changed)
    }

    fn drop_seals_of_nobody(&mut self) -> FsResult<()> {
        let tree = self.ns.tree.read().clone();
        for &node in tree.seals.keys().chain(&tree.unreadable_seals) {
            if !tree.snapshots.contains_key(&node) {
                self.edits.delete(Space::Meta, &key::meta_number(key::SEALS, node.0));
                self.edits.delete(Space::Meta, &key::meta_number(key::SUMS, node.0));
                let detail =
                    format!("the digest of the snapshot of node {}, which is gone", node.0);
                let kind = FindingKind::SnapshotDigest;
                self.note_at(kind, Ino(0), Vec::new(), Fate::Dropped, detail);
            }
        }
        self.commit()?;
        self.ns.tree.write().load_seals(&**self.ns.gate.store())
    }

    /// One that cannot be read, with those directly behind it that cannot either.
    fn mend_seal(&mut self, node: Node) -> FsResult<()> {
        let tree = self.ns.tree.read().clone();
        let Some(view) = tree.snapshot_view(node) else { return Ok(()) };
        if !tree.unreadable_seals.contains(&node) {
            // Proven with the one before.
            return Ok(());
        }
        let name = |node| tree.snapshots.get(&node).map_or("", |record| &record.name);
        for is_anew in [false, true] {
            let Some(run) = self.confirmed(&tree, node, is_anew, MOST_IN_A_ROW)? else { continue };
            for (node, record) in run {
                self.put_seal(node, &record);
                let root = tree.snapshot_view(node).map_or(view.root(), |view| view.root());
                let detail = format!("the digest of @{}, as those behind it say", name(node));
                self.note(FindingKind::SnapshotDigest, root, Fate::Mended, detail);
            }
            return Ok(());
        }
        self.put_seal(node, &SealRecord::default());
        let name = name(node);
        let detail =
            format!("the digest of @{name}: nothing proves it and what is before it any more");
        self.note(FindingKind::SnapshotDigest, view.root(), Fate::Dropped, detail);
        for next in witnesses(&tree, node) {
            self.begin_behind(&tree, next);
        }
        Ok(())
    }

    /// The digest of a snapshot that cannot be read, if one behind it follows from it, which no other
    /// one's does; or, with theirs, through some more that cannot be read. It is made of the root that
    /// the sum tells without reading all, or of that of what the snapshot shows.
    fn confirmed(
        &self,
        tree: &Tree,
        node: Node,
        is_anew: bool,
        most: usize,
    ) -> FsResult<Option<Vec<(Node, SealRecord)>>> {
        let witnesses = witnesses(tree, node);
        let behind = tree.behind(node);
        let through: Vec<Node> =
            behind.into_iter().filter(|next| tree.unreadable_seals.contains(next)).collect();
        if witnesses.is_empty() && through.is_empty() {
            return Ok(None);
        }
        let Some(view) = tree.snapshot_view(node) else { return Ok(None) };
        let sum = self.ns.sum_of(node)?.filter(|sum| sum.next.is_none() && !is_anew);
        let root = match sum {
            Some(sum) => Some(root_of(view.root, &sum.lanes)),
            None => self.root_anew(&view)?,
        };
        let Some(seal) = root.and_then(|root| tree.sealed_as(node, root)) else { return Ok(None) };
        let record = SealRecord { link: Link::default(), seal: Some(seal) };
        let mut tree = tree.clone();
        tree.unreadable_seals.remove(&node);
        tree.seals.insert(node, Arc::new(record.clone()));
        let is_right = |&next: &Node| {
            let seal = tree.seal(next);
            seal.is_some_and(|seal| tree.sealed_as(next, seal.root) == Some(seal))
        };
        if witnesses.iter().any(is_right) {
            return Ok(Some(vec![(node, record)]));
        }
        let Some(most) = most.checked_sub(1) else { return Ok(None) };
        for next in through {
            if let Some(run) = self.confirmed(&tree, next, is_anew, most)? {
                return Ok(Some([vec![(node, record)], run].concat()));
            }
        }
        Ok(None)
    }

    fn root_anew(&self, view: &View) -> FsResult<Option<Hash>> {
        let lanes = past_damage(self.ns.sum_anew(view))?.flatten();
        Ok(lanes.map(|lanes| root_of(view.root, &lanes)))
    }

    /// Takes the digest of a snapshot that followed from one that is lost; those behind it begin with
    /// it, as if all before had been destroyed long ago.
    fn begin_behind(&mut self, tree: &Tree, node: Node) {
        let (Some(seal), Some(view)) = (tree.seal(node), tree.snapshot_view(node)) else { return };
        for next in witnesses(tree, node) {
            let Some(record) = tree.seals.get(&next) else { continue };
            let link = Link { start: Some(seal.digest), ..record.link.clone() };
            self.put_seal(next, &SealRecord { link, ..SealRecord::clone(record) });
        }
        let link = tree.seals.get(&node).map(|record| record.link.clone()).unwrap_or_default();
        self.put_seal(node, &SealRecord { link, seal: None });
        let name = tree.snapshots.get(&node).map_or("", |record| &record.name);
        let detail = format!("the digest of @{name}, which followed from one that is lost");
        self.note(FindingKind::SnapshotDigest, view.root(), Fate::Dropped, detail);
    }

    /// The sum that a digest was made from, if what the snapshot shows still adds up to it.
    fn mend_sum(&mut self, node: Node) -> FsResult<()> {
        let tree = self.ns.tree.read().clone();
        let (Some(seal), Some(view)) = (tree.seal(node), tree.snapshot_view(node)) else {
            return Ok(());
        };
        let is_sealed =
            |sum: &SumRecord| sum.next.is_none() && root_of(view.root, &sum.lanes) == seal.root;
        if self.ns.sum_of(node)?.is_some_and(|sum| is_sealed(&sum)) {
            return Ok(());
        }
        let Some(lanes) = past_damage(self.ns.sum_anew(&view))?.flatten() else { return Ok(()) };
        let sum = SumRecord { base: None, next: None, lanes };
        if is_sealed(&sum) {
            let key = key::meta_number(key::SUMS, node.0);
            self.edits.put(Space::Meta, &key, sum.encode());
            let detail = "the sum that its digest was made from";
            self.note(FindingKind::SnapshotDigest, view.root(), Fate::Mended, detail);
        }
        Ok(())
    }

    fn put_seal(&mut self, node: Node, record: &SealRecord) {
        let key = key::meta_number(key::SEALS, node.0);
        match *record == SealRecord::default() {
            true => self.edits.delete(Space::Meta, &key),
            false => self.edits.put(Space::Meta, &key, record.encode()),
        }
    }
}

/// Snapshots whose digest follows from that of another.
fn witnesses(tree: &Tree, node: Node) -> Vec<Node> {
    let mut behind = tree.behind(node);
    behind.retain(|next| {
        let record = tree.seals.get(next);
        record.is_some_and(|record| record.seal.is_some() && record.link.start.is_none())
    });
    behind
}
