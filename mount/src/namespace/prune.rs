//! Dropping versions that nobody sees any more.
//!
//! A version is needed as long as a reader of its line is not older than it and older than its
//! successor. What is left of a key is as if the rest had never been: without a version below, a
//! whiteout is nothing and the oldest one shadows nothing.
//!
//! *Crash*: pruning a key again does what is left to do, as long as the key is found again. It is
//! found by its history, so its last version there goes in one batch with what that means for the
//! head.

use std::sync::Arc;

use bytes::Bytes;
use firn_tiering::BlockId;

use super::Namespace;
use super::key::{self, Backref, HeadKey, Kind, Line, Node};
use super::ledger::Entries;
use super::record::{Origin, RecordError, SlotRecord, Version, pieces_of};
use super::store::{Batch, Durability, Space, prefix_end};
use super::txn::block_ids;
use super::view::behind;
use crate::error::FsResult;
use crate::types::Ino;

/// Versions looked at together.
const PAGE: usize = 256;

/// Changes after which a batch is committed.
const CHANGES_PER_BATCH: usize = 1024;

/// Removes versions from a line. The caller holds the locks of all objects concerned.
#[derive(Debug)]
pub(super) struct Pruner<'a> {
    namespace: &'a Namespace,
    line: Line,
    readers: Arc<[Node]>,
    origin: Option<Origin>,
    batch: Batch,
    entries: Entries,
    inodes: Vec<Ino>,
    dropped: Vec<BlockId>,
    unreferenced: Vec<BlockId>,
}

/// A stored version.
struct Stored {
    key: Bytes,
    version: Version,
    value: Bytes,
}

/// How far the versions of a record, by its head key, are settled, from the oldest on.
struct Settled<'k> {
    head_key: &'k [u8],
    is_extent: bool,
    /// The newest that stays, so far.
    kept: Option<Bytes>,
}

impl<'a> Pruner<'a> {
    pub(super) fn new(namespace: &'a Namespace, line: Line) -> Self {
        let tree = namespace.tree.read();
        Self {
            namespace,
            line,
            readers: tree.readers(line),
            origin: tree.origin(line),
            batch: Batch::new(),
            entries: Entries::default(),
            inodes: Vec::new(),
            dropped: Vec::new(),
            unreferenced: Vec::new(),
        }
    }

    /// Commits what is left to do; returns the blocks to which nothing refers any more.
    pub(super) fn finish(mut self) -> FsResult<Vec<BlockId>> {
        self.flush()?;
        Ok(self.unreferenced)
    }

    /// Leaves what is not committed to another time, for which all that it is about is kept; returns
    /// the blocks to which nothing refers any more.
    pub(super) fn give_up(self) -> Vec<BlockId> {
        self.unreferenced
    }

    /// Whether anybody is older than a node, so that what it wrote counts as changed for them.
    pub(super) fn has_older_reader(&self, node: Node) -> bool {
        self.origin.is_some() || self.readers.first().is_some_and(|&reader| reader < node)
    }

    /// Stages the removal of a key of the born index.
    pub(super) fn drop_born(&mut self, key: &[u8]) {
        self.batch.delete(Space::Born, key);
    }

    /// Prunes all records of one kind of an object that have a history.
    pub(super) fn prune_kind(&mut self, object: Ino, kind: Kind) -> FsResult<()> {
        let mut from = key::history_of(object, kind).to_vec();
        let end = prefix_end(&from);
        let mut last: Option<Vec<u8>> = None;
        loop {
            let store = self.namespace.gate.store();
            let page = store.page(Space::History, &from, end.as_deref(), PAGE)?;
            for (found, _) in &page.items {
                let (head, node) = key::history_decode(self.line, found)?;
                if self.is_ours(node) && last.as_ref() != Some(&head) {
                    self.prune(&head)?;
                    last = Some(head);
                }
            }
            match page.items.last().filter(|_| page.more) {
                Some((key, _)) => from = behind(key),
                None => return Ok(()),
            }
        }
    }

    /// Prunes the versions of one record, by its head key.
    pub(super) fn prune(&mut self, head_key: &[u8]) -> FsResult<()> {
        let store = Arc::clone(self.namespace.gate.store());
        let head = store.get(Space::Head, head_key)?;
        let head = head.ok_or(RecordError::new("history", "older versions without a head"))?;
        let head = Stored {
            key: Bytes::copy_from_slice(head_key),
            version: Version::split(&head)?.0,
            value: head,
        };
        let is_extent = HeadKey::decode(head_key)?.kind == Kind::Extent;
        let mut settled = Settled { head_key, is_extent, kept: None };
        let mut last: Option<Stored> = None;
        let mut from = key::history(head_key, Node(0));
        let end = behind(&key::history(head_key, Node::MAX));
        loop {
            let page = store.page(Space::History, &from, Some(&end), PAGE)?;
            let next = page.items.last().filter(|_| page.more).map(|(key, _)| behind(key));
            for (key, value) in page.items {
                let (found, node) = key::history_decode(self.line, &key)?;
                if found != head_key || !self.is_ours(node) {
                    continue;
                }
                let stored = Stored { key, version: version_of(node, &value), value };
                if let Some(older) = last.take() {
                    self.settle(&mut settled, older, &stored)?;
                }
                last = Some(stored);
            }
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
        if let Some(older) = last {
            self.settle(&mut settled, older, &head)?;
        }
        self.settle_head(&settled, head)
    }

    /// Keeps or drops a version in the history.
    fn settle(
        &mut self,
        settled: &mut Settled<'_>,
        older: Stored,
        successor: &Stored,
    ) -> FsResult<()> {
        // While this one is in the history, the key is found again.
        if self.batch.len() >= CHANGES_PER_BATCH {
            self.flush()?;
        }
        let Stored { key, version, value } = older;
        let is_last = settled.kept.is_none() && !self.is_below(settled.head_key)?;
        let is_needed = self.is_needed(version.node, Some(successor.version.node));
        if !is_needed || is_last && version.whiteout {
            self.discharge(settled, &value, Some(&successor.value))?;
            self.drop_references(settled.head_key, &value)?;
            self.batch.delete(Space::History, &key);
            return Ok(());
        }
        if is_last && version.shadows {
            self.batch.put(Space::History, &key, without_shadows(&value)?);
        }
        settled.kept = Some(value);
        Ok(())
    }

    fn settle_head(&mut self, settled: &Settled<'_>, head: Stored) -> FsResult<()> {
        let Stored { key, version, value } = head;
        let is_bottom = settled.kept.is_none();
        let is_needed = self.is_needed(version.node, None);
        let is_last = is_bottom && !self.is_below(&key)?;
        if is_needed && is_last && version.whiteout || !is_needed && is_bottom {
            self.discharge(settled, &value, None)?;
            self.drop_references(&key, &value)?;
            self.batch.delete(Space::Head, &key);
        } else if is_needed && is_last && version.shadows {
            self.batch.put(Space::Head, &key, without_shadows(&value)?);
        } else if !is_needed && !version.whiteout {
            // What is kept in the history has a head.
            self.discharge(settled, &value, None)?;
            self.drop_references(&key, &value)?;
            let mut whiteout = Vec::with_capacity(2);
            Version { shadows: true, whiteout: true, ..version }.put(&mut whiteout);
            self.batch.put(Space::Head, &key, whiteout);
        } else {
            return Ok(());
        }
        self.note_inode(&key)
    }

    /// Takes a version that goes out of the counters; its successor then follows what is kept.
    fn discharge(
        &mut self,
        settled: &Settled<'_>,
        value: &[u8],
        successor: Option<&Bytes>,
    ) -> FsResult<()> {
        if !settled.is_extent || self.readers.is_empty() {
            return Ok(());
        }
        let below = match &settled.kept {
            Some(kept) => pieces_of(kept),
            None => self.namespace.pieces_inherited(self.line, settled.head_key)?,
        };
        self.entries.discharge(self.line, &below, value, successor.map(|value| &value[..]));
        Ok(())
    }

    /// The cached inode no longer is what is stored.
    fn note_inode(&mut self, head_key: &[u8]) -> FsResult<()> {
        let head = HeadKey::decode(head_key)?;
        if head.kind == Kind::Inode {
            let tree = self.namespace.tree.read();
            self.inodes.extend(tree.writable_view(self.line).map(|view| view.lift(head.object)));
        }
        Ok(())
    }

    fn is_ours(&self, node: Node) -> bool {
        self.namespace.tree.read().line_of(node) == Some(self.line)
    }

    /// Whether a reader sees a version that `successor` replaced.
    fn is_needed(&self, node: Node, successor: Option<Node>) -> bool {
        let at = self.readers.partition_point(|&reader| reader < node);
        let reader = self.readers.get(at);
        reader.is_some_and(|&reader| successor.is_none_or(|successor| reader < successor))
    }

    /// Whether the lines where this one began show anything for the key.
    fn is_below(&self, head_key: &[u8]) -> FsResult<bool> {
        match self.origin {
            Some(origin) => Ok(self.namespace.visible(origin, head_key)?.is_some()),
            None => Ok(false),
        }
    }

    /// Stages the removal of the back-references of a version.
    fn drop_references(&mut self, head_key: &[u8], value: &[u8]) -> FsResult<()> {
        let dropped = drop_references(&mut self.batch, head_key, value)?;
        self.dropped.extend(dropped);
        Ok(())
    }

    /// Commits what is staged.
    fn flush(&mut self) -> FsResult<()> {
        let batch = std::mem::take(&mut self.batch);
        let entries = std::mem::take(&mut self.entries);
        if !batch.is_empty() {
            self.namespace.gate.commit_counted(batch, &entries, Durability::Buffered)?;
        }
        for ino in self.inodes.drain(..) {
            self.namespace.cache.remove(ino);
        }
        let dropped = std::mem::take(&mut self.dropped);
        self.unreferenced.extend(self.namespace.without_references(dropped)?);
        Ok(())
    }
}

/// Stages the removal of the back-references of a stored version; returns their blocks.
pub(super) fn drop_references(
    batch: &mut Batch,
    head_key: &[u8],
    value: &[u8],
) -> FsResult<Vec<BlockId>> {
    let head = HeadKey::decode(head_key)?;
    if head.kind != Kind::Extent {
        return Ok(Vec::new());
    }
    // What cannot be read names no blocks; a check finds what refers back from them.
    let Ok(record) = SlotRecord::decode_value(value) else { return Ok(Vec::new()) };
    let (ino, slot, node) = (head.object, head.number()?, record.version.node);
    let blocks = block_ids(&record.pieces);
    for &block in &blocks {
        batch.delete(Space::Backrefs, &Backref { block, ino, slot, node }.encode());
    }
    Ok(blocks)
}

/// The version of what lies in the history under a node. Damage there is a version as well, which
/// hides what is older.
fn version_of(node: Node, value: &[u8]) -> Version {
    match Version::split(value) {
        Ok((version, _)) if version.node == node => version,
        _ => Version::first(node),
    }
}

/// The same value as the oldest version.
fn without_shadows(value: &[u8]) -> FsResult<Vec<u8>> {
    let (version, record) = Version::split(value)?;
    let mut out = Vec::with_capacity(value.len());
    Version { shadows: false, ..version }.put(&mut out);
    out.extend_from_slice(record);
    Ok(out)
}
