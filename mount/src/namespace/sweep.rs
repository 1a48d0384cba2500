//! Destroying snapshots, and clearing away what only they saw.
//!
//! Destroying one commits, in one batch, that it is gone and that its line is to be swept. The
//! sweep walks the born index of the nodes from the snapshot to the next reader: whatever that
//! reader sees differently was written there. *Crash*: the sweep begins again; what it has done
//! already costs a look. It is bounded in memory, holds few locks, and only briefly. *Damage* holds
//! up the sweeps of its own line, whose versions and their blocks are all kept, and nobody else's;
//! they are tried again when the namespace is opened again.

use std::collections::BTreeSet;
use std::sync::Arc;

use firn_tiering::BlockId;

use super::Namespace;
use super::key::{self, Dataset, HeadKey, Kind, Line, Node};
use super::prune::Pruner;
use super::record::SweepRecord;
use super::store::Space;
use super::tree::{Change, TreeError, TreeResult};
use super::view::behind;
use crate::error::FsResult;
use crate::types::Ino;

/// Entries of the born index worked off under one set of locks.
const GROUP: usize = 64;

/// What a part of a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Blocks to which nothing refers any more, as [`super::Committed`] says.
    pub unreferenced: Vec<BlockId>,
    /// There is more to sweep.
    pub more: bool,
}

/// What is known of the sweeps.
#[derive(Debug, Default)]
pub(super) struct Sweeping {
    at: Option<Cursor>,
    /// Lines with damage in the way.
    held_up: BTreeSet<Line>,
}

/// Where a sweep is.
#[derive(Debug)]
struct Cursor {
    job: (Line, Node),
    from: Vec<u8>,
}

impl Namespace {
    /// Destroys snapshots, each named by its dataset and its name, all or none; what only they saw
    /// is left to [`Namespace::sweep_some`]. One that is held or has clones is refused or, if
    /// `deferred`, destroyed with the last of them.
    pub fn destroy_snapshots(
        &self,
        snapshots: &[(Dataset, &str)],
        deferred: bool,
    ) -> TreeResult<()> {
        let (alone, mut change) = self.change_tree()?;
        let mut found = Vec::with_capacity(snapshots.len());
        for &(dataset, name) in snapshots {
            found.push((change.snapshot(dataset, name)?.0, dataset, name));
        }
        // The youngest first, so that none leaves a link to one that goes as well.
        found.sort_unstable_by_key(|(node, ..)| std::cmp::Reverse(*node));
        for (_, dataset, name) in found {
            let (node, mut record) = change.snapshot(dataset, name)?;
            match change.check_unused(node, &[]) {
                Ok(()) => change.remove_snapshot(node),
                Err(TreeError::Held(_) | TreeError::Cloned(_)) if deferred => {
                    record.deferred = true;
                    change.put_snapshot(node, record);
                }
                Err(error) => return Err(error),
            }
        }
        self.commit_tree(&alone, change)?;
        drop(alone);
        Ok(self.gate.sync()?)
    }

    /// Takes a hold back. The last one of a snapshot whose end was deferred ends it.
    pub fn release(&self, dataset: Dataset, name: &str, tag: &str) -> TreeResult<()> {
        let (alone, mut change) = self.change_tree()?;
        let (node, mut record) = change.shown_snapshot(dataset, name)?;
        let held = record.holds.len();
        record.holds.retain(|hold| hold.tag != tag);
        if record.holds.len() == held {
            return Err(TreeError::NoHold(tag.to_owned()));
        }
        change.put_snapshot(node, record);
        change.end_deferred(node);
        self.commit_tree(&alone, change)?;
        drop(alone);
        Ok(self.gate.sync()?)
    }

    /// Sweeps about `limit` changed objects. Takes locks itself, briefly.
    pub fn sweep_some(&self, limit: usize) -> TreeResult<Swept> {
        let mut sweeping = self.sweeping.lock();
        let Sweeping { at, held_up } = &mut *sweeping;
        let mut swept = Swept::default();
        let mut left = limit.max(1);
        while left > 0 {
            let Some((job, record)) = self.next_sweep(held_up) else {
                *at = None;
                return Ok(swept);
            };
            let cursor = match at.take() {
                Some(cursor) if cursor.job == job => at.insert(cursor),
                _ => at.insert(Cursor { job, from: Vec::new() }),
            };
            match self.sweep_job(cursor, record, &mut left, &mut swept.unreferenced) {
                Ok(false) => {}
                Ok(true) => {
                    let (alone, mut change) = self.change_tree()?;
                    if record.whole {
                        change.remove_line(job.0);
                    }
                    change.remove_sweep(job);
                    self.commit_tree(&alone, change)?;
                }
                Err(error) if error.is_damage() => {
                    let reason = crate::file::chain(&error);
                    tracing::warn!(line = job.0.0, reason, "space of destroyed snapshots is kept");
                    held_up.insert(job.0);
                }
                Err(error) => return Err(error.into()),
            }
        }
        swept.more = self.next_sweep(held_up).is_some();
        Ok(swept)
    }

    /// Lines that are not swept any more before the namespace is opened again, since damage is in
    /// the way; all that they hold is kept.
    pub fn held_up(&self) -> Vec<Line> {
        self.sweeping.lock().held_up.iter().copied().collect()
    }

    fn next_sweep(&self, held_up: &BTreeSet<Line>) -> Option<((Line, Node), SweepRecord)> {
        let tree = self.tree.read();
        let is_held_up = |line: &Line| held_up.contains(line) || tree.rollbacks.contains_key(line);
        let mut jobs = tree.sweeps.iter().filter(|((line, _), _)| !is_held_up(line));
        jobs.next().map(|(job, record)| (*job, *record))
    }

    /// Goes on with a job; `true` at its end.
    fn sweep_job(
        &self,
        cursor: &mut Cursor,
        record: SweepRecord,
        left: &mut usize,
        unreferenced: &mut Vec<BlockId>,
    ) -> FsResult<bool> {
        match record.whole {
            true => self.sweep_line(cursor, left, unreferenced),
            false => self.sweep_born(cursor, record, left, unreferenced),
        }
    }

    /// Goes through the born index of a job's nodes; `true` at the end.
    fn sweep_born(
        &self,
        cursor: &mut Cursor,
        record: SweepRecord,
        left: &mut usize,
        unreferenced: &mut Vec<BlockId>,
    ) -> FsResult<bool> {
        let (line, snapshot) = cursor.job;
        for node in self.nodes_to_sweep(line, snapshot, record.next) {
            let from = key::born(node, Ino(0), Kind::Inode).to_vec().max(cursor.from.clone());
            let end = key::meta_number(0, node.0 + 1)[1..].to_vec();
            cursor.from = from;
            while cursor.from < end {
                if *left == 0 {
                    return Ok(false);
                }
                let store = Arc::clone(self.gate.store());
                let page = store.page(Space::Born, &cursor.from, Some(&end), GROUP)?;
                let keys: Vec<_> = page.items.iter().map(|(key, _)| &key[..]).collect();
                self.sweep_group(line, snapshot, &keys, unreferenced)?;
                *left = left.saturating_sub(keys.len().max(1));
                cursor.from = match keys.last().filter(|_| page.more) {
                    Some(last) => behind(last),
                    None => end.clone(),
                };
            }
        }
        Ok(true)
    }

    /// Goes through all records of a line without a dataset; `true` at the end.
    fn sweep_line(
        &self,
        cursor: &mut Cursor,
        left: &mut usize,
        unreferenced: &mut Vec<BlockId>,
    ) -> FsResult<bool> {
        let line = cursor.job.0;
        let start = key::line(line);
        let end = key::line_end(line).to_vec();
        cursor.from = start.to_vec().max(std::mem::take(&mut cursor.from));
        while cursor.from < end {
            if *left == 0 {
                return Ok(false);
            }
            let page = self.gate.store().page(Space::Head, &cursor.from, Some(&end), GROUP)?;
            let keys: Vec<_> = page.items.iter().map(|(key, _)| &key[..]).collect();
            let mut objects = Vec::with_capacity(keys.len());
            for key in &keys {
                objects.push(HeadKey::decode(key)?.object);
            }
            let guard = self.lock(&objects);
            let mut pruner = Pruner::new(self, line);
            let pruned = keys.iter().try_for_each(|key| pruner.prune(key));
            conclude(pruner, pruned, unreferenced)?;
            drop(guard);
            *left = left.saturating_sub(keys.len());
            cursor.from = match keys.last().filter(|_| page.more) {
                Some(last) => behind(last),
                None => end.clone(),
            };
        }
        self.clear_line(line, left)
    }

    /// From the snapshot to the next reader; if it was the oldest, also what came before, whose
    /// born index nobody needs.
    fn nodes_to_sweep(&self, line: Line, snapshot: Node, next: Node) -> Vec<Node> {
        let tree = self.tree.read();
        let is_oldest = tree.readers(line).first().is_none_or(|&reader| reader > snapshot);
        let after = if is_oldest { Node(0) } else { snapshot };
        tree.nodes_of(line, after, next)
    }

    fn sweep_group(
        &self,
        line: Line,
        snapshot: Node,
        keys: &[&[u8]],
        unreferenced: &mut Vec<BlockId>,
    ) -> FsResult<()> {
        let mut entries = Vec::with_capacity(keys.len());
        for key in keys {
            entries.push(key::born_decode(key)?);
        }
        let objects: Vec<Ino> = entries.iter().map(|(_, object, _)| *object).collect();
        let _guard = self.lock(&objects);
        let mut pruner = Pruner::new(self, line);
        let pruned = keys.iter().zip(entries).try_for_each(|(key, (node, object, kind))| {
            if node > snapshot {
                pruner.prune_kind(object, kind)?;
            }
            if !pruner.has_older_reader(node) {
                pruner.drop_born(key);
            }
            Ok(())
        });
        conclude(pruner, pruned, unreferenced)
    }
}

/// Commits what was pruned, or leaves the rest of it where something was in the way.
fn conclude(
    pruner: Pruner<'_>,
    pruned: FsResult<()>,
    unreferenced: &mut Vec<BlockId>,
) -> FsResult<()> {
    match &pruned {
        Ok(()) => unreferenced.extend(pruner.finish()?),
        Err(_) => unreferenced.extend(pruner.give_up()),
    }
    pruned
}

impl Change {
    /// Fails while holds, clones, sends, receives, rollbacks or digests need a snapshot; those of
    /// snapshots that go with it do not.
    pub(super) fn check_unused(&self, node: Node, going: &[Node]) -> TreeResult<()> {
        let holds = self.tree.snapshots.get(&node).map(|record| &record.holds[..]);
        let holds = holds.unwrap_or_default();
        if !holds.is_empty() {
            return Err(TreeError::Held(holds.iter().map(|hold| hold.tag.clone()).collect()));
        }
        let clones = self.tree.clones_of(node);
        if !clones.is_empty() {
            return Err(TreeError::Cloned(clones));
        }
        // What goes on from it must find all that it shows until the end.
        if let Some((&into, _)) = self.tree.receives.iter().find(|(_, own)| own.is_from(node)) {
            return Err(TreeError::Receiving(into));
        }
        if self.tree.rollbacks.values().any(|rollback| rollback.to.node == node) {
            return Err(TreeError::Busy);
        }
        if self.tree.sending.lock().contains_key(&node) {
            let name = self.tree.snapshots.get(&node).map(|record| record.name.clone());
            return Err(TreeError::Sending(name.unwrap_or_default()));
        }
        self.check_digests(node, going)
    }

    /// Ends a snapshot, and begins to sweep its line.
    pub(super) fn remove_snapshot(&mut self, node: Node) {
        self.pass_digest_on(node);
        let Some(record) = self.tree.snapshots.remove(&node) else { return };
        self.batch.delete(Space::Meta, &key::meta_number(key::SNAPSHOTS, node.0));
        self.entries.merge(record.line, node);
        self.reader_gone(record.line, node);
    }

    /// Ends a snapshot whose end was deferred, if nothing needs it any more.
    pub(super) fn end_deferred(&mut self, node: Node) {
        let is_deferred = self.tree.snapshots.get(&node).is_some_and(|record| record.deferred);
        if is_deferred && self.check_unused(node, &[]).is_ok() {
            self.remove_snapshot(node);
        }
    }

    pub(super) fn put_sweep(&mut self, job: (Line, Node), record: SweepRecord) {
        self.batch.put(Space::Meta, &key::sweep(job.0, job.1), record.encode());
        self.tree.sweeps.insert(job, record);
    }

    fn remove_sweep(&mut self, job: (Line, Node)) {
        self.batch.delete(Space::Meta, &key::sweep(job.0, job.1));
        self.tree.sweeps.remove(&job);
    }
}
