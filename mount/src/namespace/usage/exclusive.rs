//! Bytes that only one snapshot holds, which destroying it would free.
//!
//! They are looked for along what the next reader of the line sees differently. Between two
//! snapshots that does not change, so it is remembered as long as both are there and nothing is
//! being swept; a block that the snapshot shares with another file, and that the other file loses,
//! counts when it is looked for again.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::PAGE;
use crate::error::FsResult;
use crate::namespace::Namespace;
use crate::namespace::key::{self, Backref, Dataset, HeadKey, Kind, Line, Node};
use crate::namespace::record::{Content, SlotRecord, Version};
use crate::namespace::store::{Space, prefix_end};
use crate::namespace::tree::{TreeError, TreeResult};
use crate::namespace::view::behind;
use crate::types::Ino;

/// What was found for a snapshot, and between which readers of its line.
#[derive(Clone, Copy, Debug)]
pub(in crate::namespace) struct KnownUsed {
    before: Node,
    next: Node,
    bytes: u64,
}

/// A snapshot among the readers of its line.
struct Place {
    line: Line,
    nodes: BTreeSet<Node>,
    /// The reader before, or 0.
    before: Node,
    snapshot: Node,
    /// The reader behind, or [`Node::MAX`].
    next: Node,
    /// The next reader is a snapshot as well, and nothing is being swept.
    is_settled: bool,
}

impl Place {
    /// Whether the snapshot is the only reader of what `node` wrote and `successor` replaced.
    fn is_alone(&self, node: Node, successor: Node) -> bool {
        self.before < node
            && node <= self.snapshot
            && self.snapshot < successor
            && successor <= self.next
    }
}

impl Namespace {
    /// Bytes that destroying only this snapshot would free: of blocks to which nothing else
    /// refers, and of inline pieces.
    pub fn used(&self, dataset: Dataset, name: &str) -> TreeResult<u64> {
        let snapshot = self.find_snapshot(dataset, name)?.node;
        let place = self.among_readers(snapshot);
        let place = place.ok_or_else(|| TreeError::NoSnapshot(name.to_owned()))?;
        if let Some(known) = self.known_used.lock().get(&snapshot).copied()
            && (known.before, known.next) == (place.before, place.next)
            && place.is_settled
        {
            return Ok(known.bytes);
        }
        let bytes = self.count_used(&place)?;
        if place.is_settled {
            let known = KnownUsed { before: place.before, next: place.next, bytes };
            let mut all = self.known_used.lock();
            all.retain(|&node, _| self.tree.read().snapshots.contains_key(&node));
            all.insert(snapshot, known);
        }
        Ok(bytes)
    }

    fn among_readers(&self, snapshot: Node) -> Option<Place> {
        let tree = self.tree.read();
        let line = tree.line_of(snapshot)?;
        let readers = tree.readers(line);
        let before = readers.iter().rev().find(|&&reader| reader < snapshot);
        let next = readers.iter().find(|&&reader| reader > snapshot).copied();
        let next = next.unwrap_or(Node::MAX);
        Some(Place {
            line,
            nodes: tree.nodes_of(line, Node(0), Node::MAX).into_iter().collect(),
            before: before.copied().unwrap_or(Node(0)),
            snapshot,
            next,
            is_settled: tree.snapshots.contains_key(&next) && tree.sweeps.is_empty(),
        })
    }

    fn count_used(&self, place: &Place) -> FsResult<u64> {
        let mut sum = 0;
        let later =
            (std::ops::Bound::Excluded(place.snapshot), std::ops::Bound::Included(place.next));
        for &later in place.nodes.range(later) {
            let mut from = key::born(later, Ino(0), Kind::Inode).to_vec();
            let end = key::meta_number(0, later.0 + 1)[1..].to_vec();
            loop {
                let page = self.gate.store().page(Space::Born, &from, Some(&end), PAGE)?;
                for (key, _) in &page.items {
                    let (_, object, kind) = key::born_decode(key)?;
                    if kind == Kind::Extent {
                        sum += self.used_in(place, later, object)?;
                    }
                }
                match page.items.last().filter(|_| page.more) {
                    Some((last, _)) => from = behind(last),
                    None => break,
                }
            }
        }
        Ok(sum)
    }

    /// Bytes of a file that only the snapshot sees and that `later` replaced, in one pass over
    /// the file's history: a slot's versions follow each other there.
    fn used_in(&self, place: &Place, later: Node, object: Ino) -> FsResult<u64> {
        let mut sum = 0;
        let mut from = key::history_of(object, Kind::Extent).to_vec();
        let end = prefix_end(&from);
        let mut last: Option<(Vec<u8>, Node, Bytes)> = None;
        loop {
            let page = self.gate.store().page(Space::History, &from, end.as_deref(), PAGE)?;
            let next = page.items.last().filter(|_| page.more).map(|(key, _)| behind(key));
            for (found, value) in page.items {
                let (head_key, node) = key::history_decode(place.line, &found)?;
                if !place.nodes.contains(&node) {
                    continue;
                }
                if let Some(older) = last.take() {
                    let successor = (older.0 == head_key).then_some(node);
                    sum += self.used_by(place, later, older, successor)?;
                }
                if place.before < node && node <= place.snapshot {
                    last = Some((head_key, node, value));
                }
            }
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
        match last {
            Some(older) => Ok(sum + self.used_by(place, later, older, None)?),
            None => Ok(sum),
        }
    }

    /// Bytes of a version if only the snapshot sees it and `later` replaced it. Without a
    /// successor in the history that is in the head.
    fn used_by(
        &self,
        place: &Place,
        later: Node,
        (head_key, node, value): (Vec<u8>, Node, Bytes),
        successor: Option<Node>,
    ) -> FsResult<u64> {
        let successor = match successor {
            Some(successor) => successor,
            None => match self.gate.store().get(Space::Head, &head_key)? {
                Some(head) => Version::split(&head)?.0.node,
                None => return Ok(0),
            },
        };
        if successor != later || !place.is_alone(node, successor) {
            return Ok(0);
        }
        let head = HeadKey::decode(&head_key)?;
        self.freed_with(place.line, place.snapshot, (head.object, head.number()?), &value)
    }

    /// What replaced a version of a line, if the snapshot is the only reader that sees it.
    fn sees_alone(
        &self,
        line: Line,
        snapshot: Node,
        head_key: &[u8],
        node: Node,
    ) -> FsResult<Option<Option<Node>>> {
        if self.tree.read().line_of(node) != Some(line) {
            return Ok(None);
        }
        let successor = self.successor(line, head_key, node)?;
        let tree = self.tree.read();
        let readers = tree.readers(line);
        let mut seeing = readers
            .iter()
            .filter(|&&reader| reader >= node && successor.is_none_or(|next| reader < next));
        let is_alone = seeing.next() == Some(&snapshot) && seeing.next().is_none();
        Ok(is_alone.then_some(successor))
    }

    /// The node of the next version of a record on its line.
    fn successor(&self, line: Line, head_key: &[u8], node: Node) -> FsResult<Option<Node>> {
        let mut from = behind(&key::history(head_key, node));
        let end = behind(&key::history(head_key, Node::MAX));
        loop {
            let page = self.gate.store().page(Space::History, &from, Some(&end), 1)?;
            let Some((found, _)) = page.items.first() else { break };
            let (key, next) = key::history_decode(line, found)?;
            if key == head_key && self.tree.read().line_of(next) == Some(line) {
                return Ok(Some(next));
            }
            from = behind(found);
        }
        let Some(head) = self.gate.store().get(Space::Head, head_key)? else { return Ok(None) };
        let head = Version::split(&head)?.0.node;
        Ok((head > node).then_some(head))
    }

    /// Bytes that go with a version: inline ones, and those of blocks whose references all go
    /// with the snapshot. A block is counted at the first of its references.
    fn freed_with(
        &self,
        line: Line,
        snapshot: Node,
        (object, slot): (Ino, u64),
        value: &[u8],
    ) -> FsResult<u64> {
        let record = SlotRecord::decode_value(value)?;
        let mut sum = 0;
        let mut seen = Vec::new();
        for piece in &record.pieces {
            match &piece.content {
                Content::Inline(bytes) => sum += bytes.len() as u64,
                Content::Unwritten => {}
                Content::Block { block, .. } => {
                    let this =
                        Backref { block: block.id, ino: object, slot, node: record.version.node };
                    if !seen.contains(&block.id) && self.goes_with(line, snapshot, &this)? {
                        sum += u64::from(block.len);
                    }
                    seen.push(block.id);
                }
            }
        }
        Ok(sum)
    }

    /// Whether all references to a block go with the snapshot, and `this` is the first of them.
    fn goes_with(&self, line: Line, snapshot: Node, this: &Backref) -> FsResult<bool> {
        if self.backrefs(this.block, None, 1)?.first() != Some(this) {
            return Ok(false);
        }
        let mut after = None;
        loop {
            let found = self.backrefs(this.block, after, PAGE)?;
            for backref in &found {
                let key = key::head_numbered(line, backref.ino, Kind::Extent, backref.slot);
                if self.sees_alone(line, snapshot, &key, backref.node)?.is_none() {
                    return Ok(false);
                }
            }
            match found.last() {
                Some(&last) if found.len() == PAGE => after = Some(last),
                _ => return Ok(true),
            }
        }
    }
}
