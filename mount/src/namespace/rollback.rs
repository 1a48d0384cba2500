//! Bringing a dataset back to one of its snapshots.
//!
//! *Begin*: newer snapshots go, and a record says where the dataset goes; from then on its live
//! view is gone, so that nothing of it is read or written. *Restore*: for everything that was
//! written since (the born index says what), the version of the snapshot becomes the newest one
//! again and younger ones go, in bounded batches; an entry of the born index goes last. *End*: the
//! dataset goes on under a new node and a new view, whose numbers nobody has seen: handles, late
//! writes and caches of the old state are stale. Other datasets are in use all the while.
//!
//! *Crash*: [`Namespace::open`] restores what is left and ends the rollback before anything is
//! served. A restored key is left alone when it is met again.

use std::sync::Arc;

use bytes::Bytes;
use firn_tiering::BlockId;

use super::Namespace;
use super::check::past_damage;
use super::key::{self, Dataset, HeadKey, Kind, Node};
use super::ledger::Entries;
use super::prune::drop_references;
use super::record::{Inode, LineRecord, Origin, Piece, RollbackRecord, Version};
use super::store::{Batch, Durability, Space};
use super::tree::{Change, TreeError, TreeResult, View};
use super::view::behind;
use crate::error::{FsError, FsResult};
use crate::types::Ino;

/// Entries of the born index worked off under one set of locks.
const GROUP: usize = 64;

/// Records looked at together.
const PAGE: usize = 256;

/// Changes after which a batch is committed.
const CHANGES_PER_BATCH: usize = 1024;

/// What a rollback did.
#[derive(Clone, Debug)]
pub struct RolledBack {
    /// The root directory of the dataset from now on.
    pub root: Ino,
    /// Blocks to which nothing refers any more, as [`super::Committed`] says.
    pub unreferenced: Vec<BlockId>,
}

impl Namespace {
    /// Brings a dataset back to a snapshot. Newer snapshots are destroyed if `destroy_newer`, and
    /// otherwise, or when one is held or has clones, in the way.
    ///
    /// All inode numbers of the live dataset but [`Ino::ROOT`] are stale afterwards. Inodes that
    /// had no name when the snapshot was taken are [`Namespace::orphans`] again.
    pub fn rollback(
        &self,
        dataset: Dataset,
        name: &str,
        destroy_newer: bool,
    ) -> TreeResult<RolledBack> {
        self.begin_rollback(dataset, name, destroy_newer)?;
        self.finish_rollback(dataset)
    }

    /// The part of a rollback that other changes must not come between: afterwards the live view
    /// of the dataset is gone.
    pub(crate) fn begin_rollback(
        &self,
        dataset: Dataset,
        name: &str,
        destroy_newer: bool,
    ) -> TreeResult<()> {
        let (alone, mut change) = self.change_tree()?;
        let (node, record) = change.snapshot(dataset, name)?;
        let to = Origin { line: record.line, node };
        change.check_awaits_none(dataset)?;
        change.remove_newer(dataset, node, destroy_newer)?;
        self.check_junctions(&change, dataset, to)?;
        change.put_rollback(dataset, RollbackRecord { to });
        self.commit_tree(&alone, change)?;
        drop(alone);
        Ok(self.gate.sync()?)
    }

    /// Finishes what a crash interrupted.
    pub(super) fn finish_rollbacks(&self) -> FsResult<()> {
        let interrupted: Vec<Dataset> = self.tree.read().rollbacks.keys().copied().collect();
        for dataset in interrupted {
            // Blocks that lose their last reference now are reported to nobody.
            self.finish_rollback(dataset).map_err(|error| match error {
                TreeError::Fs(error) => error,
                other => FsError::io("finish a rollback", other),
            })?;
        }
        Ok(())
    }

    /// The part of a rollback that may take long; other datasets are in use all the while.
    pub(crate) fn finish_rollback(&self, dataset: Dataset) -> TreeResult<RolledBack> {
        let (record, view) = {
            let tree = self.tree.read();
            let record = *tree.rollbacks.get(&dataset).ok_or(TreeError::NoDataset)?;
            (record, tree.view_at(dataset, record.to).ok_or(TreeError::NoDataset)?)
        };
        let mut restorer = Restorer {
            namespace: self,
            line: dataset,
            view,
            batch: Batch::new(),
            entries: Entries::default(),
            dropped: Vec::new(),
            unreferenced: Vec::new(),
        };
        let after = record.after(dataset);
        let nodes = self.tree.read().nodes_of(dataset, after, Node::MAX);
        for node in nodes {
            restorer.restore_node(node)?;
        }
        let unreferenced = restorer.unreferenced;
        let referenced = self.referenced_at(&view, record.to.node)?;
        let (alone, mut change) = self.change_tree()?;
        change.end_rollback(dataset, record)?;
        change.entries.set_referenced(dataset, referenced);
        self.commit_tree(&alone, change)?;
        drop(alone);
        self.gate.sync()?;
        let root = self.live_view(dataset)?.root();
        Ok(RolledBack { root, unreferenced })
    }
}

impl RollbackRecord {
    /// The last node on the dataset's own line that stays.
    fn after(&self, dataset: Dataset) -> Node {
        if self.to.line == dataset { self.to.node } else { Node(0) }
    }
}

impl Change {
    fn remove_newer(&mut self, dataset: Dataset, node: Node, destroy: bool) -> TreeResult<()> {
        let newer: Vec<_> = self
            .tree
            .snapshots_of(dataset)
            .filter(|(other, _)| *other > node)
            .map(|(other, record)| (other, record.name.clone()))
            .collect();
        if !newer.is_empty() && !destroy {
            return Err(TreeError::InTheWay(newer.into_iter().map(|newer| newer.1).collect()));
        }
        let going: Vec<_> = newer.into_iter().map(|(other, _)| other).collect();
        going.iter().try_for_each(|&other| self.check_unused(other, &going))?;
        going.into_iter().for_each(|other| self.remove_snapshot(other));
        Ok(())
    }

    pub(super) fn put_rollback(&mut self, dataset: Dataset, record: RollbackRecord) {
        let key = key::meta_number(key::ROLLBACKS, dataset.0);
        self.batch.put(Space::Meta, &key, record.encode());
        self.tree.rollbacks.insert(dataset, record);
    }

    fn end_rollback(&mut self, dataset: Dataset, rollback: RollbackRecord) -> TreeResult<()> {
        self.batch.delete(Space::Meta, &key::meta_number(key::ROLLBACKS, dataset.0));
        self.tree.rollbacks.remove(&dataset);
        let mut record = self.dataset(dataset)?;
        for node in self.tree.nodes_of(dataset, rollback.after(dataset), Node::MAX) {
            self.remove_node(node);
        }
        if let Some(line) = self.tree.lines.get(&dataset).copied()
            && rollback.to.line != dataset
        {
            // Nothing is left on the line itself: it begins at the snapshot now.
            self.put_line(dataset, LineRecord { origin: Some(rollback.to), ..line });
            if let Some(origin) = line.origin.filter(|origin| *origin != rollback.to) {
                self.reader_gone(origin.line, origin.node);
            }
        }
        record.node = self.add_node(dataset)?;
        record.view = self.add_view()?;
        self.put_dataset(dataset, record);
        self.end_deferred(rollback.to.node);
        Ok(())
    }
}

/// Makes the versions of a snapshot the newest ones again.
struct Restorer<'a> {
    namespace: &'a Namespace,
    line: Dataset,
    /// What the snapshot shows.
    view: View,
    batch: Batch,
    entries: Entries,
    dropped: Vec<BlockId>,
    unreferenced: Vec<BlockId>,
}

impl Restorer<'_> {
    /// Restores everything that was written under a node.
    fn restore_node(&mut self, node: Node) -> FsResult<()> {
        let from = key::born(node, Ino(0), Kind::Inode).to_vec();
        let end = key::meta_number(0, node.0 + 1)[1..].to_vec();
        loop {
            let store = self.namespace.gate.store();
            // Entries go with what they stand for, so the next ones are always first.
            let page = store.page(Space::Born, &from, Some(&end), GROUP)?;
            let mut entries = Vec::with_capacity(page.items.len());
            for (key, _) in &page.items {
                entries.push(key::born_decode(key)?);
            }
            let objects: Vec<Ino> = entries.iter().map(|(_, object, _)| *object).collect();
            let _guard = self.namespace.lock(&objects);
            for ((key, _), (_, object, kind)) in page.items.iter().zip(entries) {
                self.restore_object(object, kind)?;
                self.batch.delete(Space::Born, key);
            }
            self.flush()?;
            if !page.more {
                return Ok(());
            }
        }
    }

    fn restore_object(&mut self, object: Ino, kind: Kind) -> FsResult<()> {
        let inode_key = key::head(self.line, object, Kind::Inode);
        // Damage is restored as it is: one that cannot be read stands for all its kinds as well.
        let shown = self.namespace.visible(self.view.layer(), &inode_key);
        let inode = past_damage(shown)?.flatten();
        // An inode that was not there stands for all that it has.
        let last = match (kind, &inode) {
            (Kind::Inode, None) => Kind::LAST,
            (kind, _) => kind,
        };
        if kind == Kind::Inode {
            self.restore_notes(object, inode)?;
        }
        let mut from = key::head(self.line, object, kind).to_vec();
        let end = key::head_end(self.line, object, last);
        loop {
            let page = self.namespace.gate.store().page(Space::Head, &from, Some(&end), PAGE)?;
            for (key, value) in &page.items {
                self.restore(key, value)?;
            }
            if self.batch.len() >= CHANGES_PER_BATCH {
                self.flush()?;
            }
            match page.items.last().filter(|_| page.more) {
                Some((key, _)) => from = behind(key),
                None => return Ok(()),
            }
        }
    }

    /// An inode is an orphan of the line, or waits for a digest, if it was and did so then; what was
    /// being cut short is gone.
    fn restore_notes(&mut self, object: Ino, inode: Option<(Version, Bytes)>) -> FsResult<()> {
        self.batch.delete(Space::Meta, &key::meta_inode(key::TRUNCATIONS, self.line, object));
        let inode = match inode {
            Some((version, value)) if self.view.line == self.line => {
                let (_, record) = Version::split(&value)?;
                past_damage(self.view.inode(self.view.lift(object), version, record))?
            }
            _ => None,
        };
        let is_orphan = inode.as_ref().is_some_and(|inode| inode.nlink == 0);
        let awaits_digest = inode.as_ref().is_some_and(Inode::awaits_digest);
        for (start, noted) in [(key::ORPHANS, is_orphan), (key::DIGESTS, awaits_digest)] {
            let key = key::meta_inode(start, self.line, object);
            match noted {
                true => self.batch.put(Space::Meta, &key, Bytes::new()),
                false => self.batch.delete(Space::Meta, &key),
            }
        }
        Ok(())
    }

    /// Restores one record, by its head key and value.
    fn restore(&mut self, head_key: &[u8], value: &Bytes) -> FsResult<()> {
        let limit = match self.view.line == self.line {
            true => self.view.limit,
            false => Node(0),
        };
        // What cannot be read is as well what was there then.
        if Version::split(value).map_or(true, |(version, _)| version.node <= limit) {
            return Ok(());
        }
        let below = match HeadKey::decode(head_key)?.kind {
            // Of the newest version that stays.
            Kind::Extent => {
                Some(self.namespace.pieces_below(self.line, Node(limit.0 + 1), head_key)?)
            }
            _ => None,
        };
        self.drop_younger(head_key, limit, (below.as_deref(), value))?;
        self.discharge(below.as_deref(), value, None);
        self.dropped.extend(drop_references(&mut self.batch, head_key, value)?);
        let layer = Origin { line: self.line, node: limit };
        match self.namespace.older_stored(layer, head_key)? {
            Some((node, older)) => {
                self.batch.put(Space::Head, head_key, older);
                self.batch.delete(Space::History, &key::history(head_key, node));
            }
            None => self.batch.delete(Space::Head, head_key),
        }
        Ok(())
    }

    /// Drops the versions in the history that are younger than `limit`, between the pieces that
    /// stay below and the head. While the head is, they are found again.
    fn drop_younger(
        &mut self,
        head_key: &[u8],
        limit: Node,
        (below, head): (Option<&[Piece]>, &Bytes),
    ) -> FsResult<()> {
        let mut from = behind(&key::history(head_key, limit));
        let end = behind(&key::history(head_key, Node::MAX));
        let mut last: Option<(Bytes, Bytes)> = None;
        loop {
            let store = Arc::clone(self.namespace.gate.store());
            let page = store.page(Space::History, &from, Some(&end), PAGE)?;
            let next = page.items.last().filter(|_| page.more).map(|(key, _)| behind(key));
            for (key, value) in page.items {
                let (found, node) = key::history_decode(self.line, &key)?;
                if found != head_key || self.namespace.tree.read().line_of(node) != Some(self.line)
                {
                    continue;
                }
                if let Some(going) = last.take() {
                    self.drop_version(head_key, going, (below, &value))?;
                }
                last = Some((key, value));
            }
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
        match last {
            Some(going) => self.drop_version(head_key, going, (below, head)),
            None => Ok(()),
        }
    }

    fn drop_version(
        &mut self,
        head_key: &[u8],
        (key, value): (Bytes, Bytes),
        (below, successor): (Option<&[Piece]>, &Bytes),
    ) -> FsResult<()> {
        self.discharge(below, &value, Some(successor));
        self.dropped.extend(drop_references(&mut self.batch, head_key, &value)?);
        self.batch.delete(Space::History, &key);
        if self.batch.len() >= CHANGES_PER_BATCH {
            self.flush()?;
        }
        Ok(())
    }

    /// Takes a version of a slot that goes out of the counters.
    fn discharge(&mut self, below: Option<&[Piece]>, value: &Bytes, successor: Option<&Bytes>) {
        let Some(below) = below else { return };
        self.entries.discharge(self.line, below, value, successor.map(|value| &value[..]));
    }

    /// Commits what is staged.
    fn flush(&mut self) -> FsResult<()> {
        let batch = std::mem::take(&mut self.batch);
        let entries = std::mem::take(&mut self.entries);
        if !batch.is_empty() {
            self.namespace.gate.commit_counted(batch, &entries, Durability::Buffered)?;
        }
        let dropped = std::mem::take(&mut self.dropped);
        self.unreferenced.extend(self.namespace.without_references(dropped)?);
        Ok(())
    }
}
