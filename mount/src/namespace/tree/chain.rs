//! The chain of digests: each snapshot's stands for what it shows and for all snapshots before it.
//!
//! The snapshot before is the one that a state came from last, on its own line or where that began:
//! neither a promotion nor another name changes which one that is. A snapshot that is destroyed
//! leaves 32 bytes, its *body*, to those behind it, so that the chain still leads back to the first.

use std::ops::Bound;
use std::sync::Arc;

use blake3::{Hash, Hasher};

use super::{Change, Tree, TreeError, TreeResult};
use crate::namespace::key::{self, Line, Node};
use crate::namespace::record::{BODIES_MAX, Lanes, Link, Seal, SealRecord, SnapshotRecord};
use crate::namespace::store::Space;

/// The digest before the first one.
const NOTHING: Hash = Hash::from_bytes([0; 32]);

/// What stands for all that a state shows.
pub(in crate::namespace) fn root_of(root: u64, lanes: &Lanes) -> Hash {
    let mut hasher = Hasher::new();
    hasher.update(b"firn snapshot root 1");
    hasher.update(&root.to_le_bytes());
    hasher.update(&lanes.to_bytes());
    hasher.finalize()
}

/// The digest of a snapshot with this body behind one with that digest.
fn chained(before: Hash, body: Hash) -> Hash {
    let mut hasher = Hasher::new();
    hasher.update(b"firn snapshot chain 1");
    hasher.update(before.as_bytes());
    hasher.update(body.as_bytes());
    hasher.finalize()
}

impl Link {
    /// The digest behind all its bodies, where `before` is that of the snapshot before.
    fn end(&self, before: Hash) -> Hash {
        self.bodies.iter().fold(self.start.unwrap_or(before), |at, &body| chained(at, body))
    }

    /// Goes on to where a destroyed snapshot's link led, by its body; `before` is the digest of the
    /// snapshot before that.
    fn extend(&mut self, older: &Self, body: Option<Hash>, before: Option<Hash>) {
        if self.start.is_some() {
            return;
        }
        let bodies = older.bodies.iter().copied().chain(body);
        self.bodies = bodies.chain(self.bodies.iter().copied()).collect();
        self.start = older.start;
        let surplus = self.bodies.len().saturating_sub(BODIES_MAX);
        if let Some(start) = self.start.or(before).filter(|_| surplus > 0) {
            let folded = self.bodies.drain(..surplus);
            self.start = Some(folded.fold(start, chained));
        }
    }
}

impl Tree {
    /// The snapshot that another came from last.
    pub(in crate::namespace) fn snapshot_before(&self, node: Node) -> Option<Node> {
        let mut line = self.snapshots.get(&node)?.line;
        let mut end = Bound::Excluded(node);
        loop {
            let mut older = self.snapshots.range((Bound::Unbounded, end)).rev();
            if let Some((&found, _)) = older.find(|(_, record)| record.line == line) {
                return Some(found);
            }
            let origin = self.origin(line)?;
            (line, end) = (origin.line, Bound::Included(origin.node));
        }
    }

    /// The snapshots that came from a state of a line last: those of which it is the one before.
    fn snapshots_behind(&self, line: Line, node: Node, found: &mut Vec<Node>) {
        let mut younger = self.snapshots.range((Bound::Excluded(node), Bound::Unbounded));
        let next = younger.find(|(_, record)| record.line == line).map(|(&next, _)| next);
        found.extend(next);
        let range = node..next.unwrap_or(Node::MAX);
        for (&began, record) in &self.lines {
            // A line is younger than where it began, so this ends.
            if record.origin.is_some_and(|o| o.line == line && range.contains(&o.node)) {
                self.snapshots_behind(began, Node(0), found);
            }
        }
    }

    /// [`Tree::snapshots_behind`] a snapshot.
    pub(in crate::namespace) fn behind(&self, node: Node) -> Vec<Node> {
        let mut behind = Vec::new();
        if let Some(record) = self.snapshots.get(&node) {
            self.snapshots_behind(record.line, node, &mut behind);
        }
        behind
    }

    /// Whether a snapshot's digest follows from one that cannot be read, so that nobody can tell.
    pub(in crate::namespace) fn is_behind_unreadable(&self, node: Node) -> bool {
        let has_start = self.seals.get(&node).is_some_and(|seal| seal.link.start.is_some());
        let before = self.snapshot_before(node);
        !has_start && before.is_some_and(|before| self.unreadable_seals.contains(&before))
    }

    /// A snapshot's digest.
    pub(in crate::namespace) fn seal(&self, node: Node) -> Option<Seal> {
        self.seals.get(&node)?.seal
    }

    /// Whether a snapshot shows what was sent; `None` where nobody said what that is, or it has no
    /// digest.
    pub(in crate::namespace) fn is_as_sent(&self, node: Node) -> Option<bool> {
        Some(self.snapshots.get(&node)?.sent_root? == self.seal(node)?.root)
    }

    /// What stands for a snapshot alone, if it shows what `root` stands for.
    fn body(&self, node: Node, record: &SnapshotRecord, root: Hash) -> Hash {
        let mut hasher = Hasher::new();
        hasher.update(b"firn snapshot body 1");
        hasher.update(root.as_bytes());
        hasher.update(&self.guid(node, record).0);
        hasher.update(&record.created.secs.to_le_bytes());
        hasher.update(&record.created.nanos.to_le_bytes());
        hasher.update(record.message.as_bytes());
        hasher.finalize()
    }

    /// The digest of the snapshot before, or what stands for none; [`None`] while it has none.
    fn digest_before(&self, node: Node) -> Option<Hash> {
        match self.snapshot_before(node) {
            Some(before) => Some(self.seal(before)?.digest),
            None => Some(NOTHING),
        }
    }

    /// The seal of a snapshot that shows what `root` stands for; [`None`] while the one before has
    /// none.
    pub(in crate::namespace) fn sealed_as(&self, node: Node, root: Hash) -> Option<Seal> {
        let record = self.snapshots.get(&node)?;
        let end = match self.seals.get(&node).map(|seal| &seal.link) {
            Some(link) if link.start.is_some() => link.end(NOTHING),
            Some(link) => link.end(self.digest_before(node)?),
            None => self.digest_before(node)?,
        };
        Some(Seal { root, digest: chained(end, self.body(node, record, root)) })
    }

    /// Snapshots without a digest, each behind those that it came from.
    pub(in crate::namespace) fn unsealed(&self) -> Vec<Node> {
        let is_unsealed =
            |node: &Node| self.seal(*node).is_none() && !self.unreadable_seals.contains(node);
        self.snapshots.keys().copied().filter(is_unsealed).collect()
    }

    /// A snapshot with all before it, the youngest first, and what is stored of their digests.
    pub(in crate::namespace) fn chain_of(
        &self,
        node: Node,
    ) -> Vec<(Node, Option<Arc<SealRecord>>)> {
        let mut chain = Vec::new();
        let mut at = Some(node);
        while let Some(node) = at {
            chain.push((node, self.seals.get(&node).cloned()));
            at = self.snapshot_before(node);
        }
        chain
    }
}

impl Change {
    /// Gives a snapshot its digest.
    pub(in crate::namespace) fn put_seal(&mut self, node: Node, seal: Seal) {
        let record = self.tree.seals.entry(node).or_default();
        Arc::make_mut(record).seal = Some(seal);
        self.relinked.insert(node);
    }

    /// Fails while the end of a snapshot would have to be written into a digest that cannot be read,
    /// or with one: what is lost then, no repair brings back. Those of `going` need no link.
    pub(in crate::namespace) fn check_digests(&self, node: Node, going: &[Node]) -> TreeResult<()> {
        if self.tree.unreadable_seals.is_empty() {
            return Ok(());
        }
        let mut behind = self.tree.behind(node);
        behind.retain(|next| !going.contains(next));
        if !behind.is_empty() {
            behind.push(node);
        }
        let unreadable = behind.iter().find(|node| self.tree.unreadable_seals.contains(node));
        match unreadable.and_then(|node| self.tree.snapshots.get(node)) {
            Some(record) => Err(TreeError::UnreadableDigest(format!("@{}", record.name))),
            None => Ok(()),
        }
    }

    /// Lets those behind a snapshot that goes remember it.
    pub(in crate::namespace) fn pass_digest_on(&mut self, node: Node) {
        let Some(record) = self.tree.snapshots.get(&node).cloned() else { return };
        let behind = self.tree.behind(node);
        self.tree.unreadable_seals.remove(&node);
        let before = self.tree.digest_before(node);
        let own = self.tree.seals.remove(&node).unwrap_or_default();
        let body = own.seal.map(|seal| self.tree.body(node, &record, seal.root));
        self.relinked.insert(node);
        for next in behind {
            let seal = self.tree.seals.entry(next).or_default();
            Arc::make_mut(seal).link.extend(&own.link, body, before);
            self.relinked.insert(next);
        }
    }

    /// Stores what changed of the chain, each record once.
    pub(super) fn store_seals(&mut self) {
        for node in std::mem::take(&mut self.relinked) {
            let key = key::meta_number(key::SEALS, node.0);
            match self.tree.seals.get(&node).filter(|seal| ***seal != SealRecord::default()) {
                Some(seal) => self.batch.put(Space::Meta, &key, seal.encode()),
                None => self.batch.delete(Space::Meta, &key),
            }
            if !self.tree.snapshots.contains_key(&node) {
                self.batch.delete(Space::Meta, &key::meta_number(key::SUMS, node.0));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn very_many_destroyed_snapshots_are_folded_into_one_digest() {
        let body = |number: usize| blake3::hash(&number.to_le_bytes());
        let bodies = |range: std::ops::Range<usize>| range.map(body).collect::<Vec<_>>();
        let before = body(0);
        let expected = bodies(1..BODIES_MAX + 8).into_iter().fold(before, chained);
        let mut link = Link { start: None, bodies: bodies(8..BODIES_MAX + 8) };
        let older = Link { start: None, bodies: bodies(1..7) };
        link.extend(&older, Some(body(7)), Some(before));
        assert_eq!((link.bodies.len(), link.end(NOTHING)), (BODIES_MAX, expected));
        assert_eq!(link.start, Some(bodies(1..8).into_iter().fold(before, chained)));
        // What comes before that is in it already.
        let folded = link.clone();
        link.extend(&older, Some(body(7)), Some(before));
        assert_eq!(link, folded);
        // A destroyed one that was folded hands its start on.
        let mut next = Link { start: None, bodies: bodies(2000..2001) };
        next.extend(&folded, None, None);
        assert_eq!(next.end(NOTHING), chained(expected, body(2000)));
    }
}
