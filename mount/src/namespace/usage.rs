//! What datasets and snapshots take: how many bytes they refer to, how many were written and how
//! many are theirs. Bytes are those of files, before compression.
//!
//! What a dataset takes is read off the counters of [`super::ledger`]; what only one snapshot holds
//! is looked for in `exclusive`. Snapshots of older volumes are counted when they are first asked
//! about.

mod exclusive;
mod recount;

use super::Namespace;
use super::key::{self, Dataset, HeadKey, Kind, Node};
use super::record::Referenced;
use super::snapshots::Snapshot;
use super::tree::{TreeError, TreeResult, View};
use crate::error::FsResult;
use crate::types::Ino;

pub(super) use exclusive::KnownUsed;

/// Records looked at together.
const PAGE: usize = 512;

/// What a dataset takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatasetSpace {
    /// Bytes that it, its snapshots and all datasets below hold; a clone begins with none.
    pub used: u64,
    /// What its live state refers to.
    pub referenced: Referenced,
    /// Bytes written since its newest snapshot, or since it was cloned, that are still there.
    pub written: u64,
}

impl Namespace {
    /// What a snapshot refers to. The first time it is counted: from an older snapshot that was,
    /// by what changed in between, otherwise by all inodes.
    pub fn referenced(&self, dataset: Dataset, name: &str) -> TreeResult<Referenced> {
        let snapshot = self.find_snapshot(dataset, name)?;
        if let Some(known) = snapshot.referenced {
            return Ok(known);
        }
        let counted = self.count_referenced(&snapshot)?;
        self.edit_snapshot(dataset, name, |_, record| {
            record.referenced = Some(counted);
            Ok(())
        })?;
        Ok(counted)
    }

    /// What the snapshot at `node`, which `view` shows, refers to.
    pub(super) fn referenced_at(&self, view: &View, node: Node) -> FsResult<Referenced> {
        let known = self.tree.read().snapshots.get(&node).and_then(|record| record.referenced);
        known.map_or_else(|| self.count_all(view), Ok)
    }

    fn count_referenced(&self, snapshot: &Snapshot) -> TreeResult<Referenced> {
        let view = self.view(snapshot.root)?;
        let older = self.snapshots(snapshot.dataset)?.into_iter().rev();
        let mut older = older.filter(|older| older.node < snapshot.node);
        let Some((base, mut sum)) = older.find_map(|older| Some((older.root, older.referenced?)))
        else {
            return Ok(self.count_all(&view)?);
        };
        let base = self.view(base)?;
        let count = |view: &View, object| -> FsResult<(u64, u64)> {
            let inode = self.find_inode(view.lift(object))?.filter(|inode| inode.nlink > 0);
            Ok(inode.map_or((0, 0), |inode| (inode.allocated, 1)))
        };
        self.changed_objects(&base, &view, &mut |object, _| {
            let (before, after) = (count(&base, object)?, count(&view, object)?);
            sum.bytes = (sum.bytes + after.0).saturating_sub(before.0);
            sum.files = (sum.files + after.1).saturating_sub(before.1);
            Ok(true)
        })?;
        Ok(sum)
    }

    pub(super) fn count_all(&self, view: &View) -> FsResult<Referenced> {
        let mut sum = Referenced::default();
        let mut from = key::line(view.line).to_vec();
        let end = key::line_end(view.line);
        loop {
            let page = self.scan(view, &from, &end, PAGE)?;
            for item in &page.items {
                let head = HeadKey::decode(&item.key)?;
                if head.kind == Kind::Inode {
                    let inode = view.inode(head.object, item.version, item.record()?)?;
                    if inode.nlink > 0 {
                        sum.bytes += inode.allocated;
                        sum.files += 1;
                    }
                }
            }
            match page.next {
                Some(next) => from = next,
                None => return Ok(sum),
            }
        }
    }

    /// Bytes of files that were written between the snapshot before and the state of `ino`, and
    /// that are still there.
    pub fn written(&self, ino: Ino) -> TreeResult<u64> {
        let view = self.view(ino)?;
        let part = self.gate.ledger().part(view.line, view.limit);
        Ok(part.ok_or(TreeError::NoDataset)?.charged)
    }

    /// Bytes that a dataset, its snapshots and all datasets below hold.
    pub fn space_used(&self, dataset: Dataset) -> u64 {
        self.gate.ledger().used(dataset)
    }

    /// What a dataset takes.
    pub fn dataset_space(&self, dataset: Dataset) -> TreeResult<DatasetSpace> {
        let last = self.gate.ledger().part(dataset, Node::MAX).ok_or(TreeError::NoDataset)?;
        let used = self.space_used(dataset);
        Ok(DatasetSpace { used, referenced: last.referenced, written: last.charged })
    }
}
