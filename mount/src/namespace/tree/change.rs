//! A change of the tree in the making: a copy, and the batch that stores what is different.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Tree, TreeError, TreeResult};
use crate::namespace::key::{self, Dataset, Line, Node};
use crate::namespace::ledger::Entries;
use crate::namespace::record::{DatasetRecord, SnapshotRecord, VolumeRecord};
use crate::namespace::store::{Batch, Space};

/// Indexes of views end here; the last one is nobody's.
const VIEWS_END: u32 = u16::MAX as u32;

/// Format version of the record of a node.
pub(super) const NODE_VERSION: u8 = 1;

/// The record of a node.
pub(in crate::namespace) fn node_record(line: Line) -> Vec<u8> {
    key::meta_number(NODE_VERSION, line.0).to_vec()
}

/// A changed copy of the tree.
#[derive(Debug)]
pub(in crate::namespace) struct Change {
    pub(in crate::namespace) tree: Tree,
    pub(in crate::namespace) batch: Batch,
    pub(in crate::namespace) entries: Entries,
    /// Snapshots whose digest or link is another one, or gone.
    pub(super) relinked: BTreeSet<Node>,
}

impl Change {
    pub(in crate::namespace) fn new(tree: Tree) -> Self {
        let relinked = BTreeSet::new();
        Self { tree, batch: Batch::new(), entries: Entries::default(), relinked }
    }

    /// The tree, its batch and what that changes in the counters, to be committed together.
    pub(in crate::namespace) fn finish(mut self) -> (Tree, Batch, Entries) {
        self.batch.put(Space::Meta, key::COUNTERS, self.tree.counters.encode());
        let mut volume = self.tree.volume.clone();
        volume.has_tree = true;
        if !self.tree.settings.is_empty() {
            volume.features |= VolumeRecord::PROPERTIES;
        }
        if !self.tree.receives.is_empty() {
            volume.features |= VolumeRecord::RECEIVES;
        }
        if self.tree.snapshots.values().any(|snapshot| snapshot.sent_root.is_some()) {
            volume.features |= VolumeRecord::SENT_ROOTS;
        }
        if volume != self.tree.volume {
            self.batch.put(Space::Meta, key::VOLUME, volume.encode());
            self.tree.volume = volume;
        }
        self.store_seals();
        self.tree.derive();
        (self.tree, self.batch, self.entries)
    }

    /// A live dataset that may be changed.
    pub(in crate::namespace) fn dataset(&self, dataset: Dataset) -> TreeResult<DatasetRecord> {
        if self.tree.rollbacks.contains_key(&dataset) {
            return Err(TreeError::Busy);
        }
        if self.tree.receives.contains_key(&dataset) {
            return Err(TreeError::Receiving(dataset));
        }
        self.tree
            .datasets
            .get(&dataset)
            .map(|record| DatasetRecord::clone(record))
            .ok_or(TreeError::NoDataset)
    }

    /// Fails unless a dataset shows, whether or not a stream is being received into it.
    pub(in crate::namespace) fn check_shown(&self, dataset: Dataset) -> TreeResult<()> {
        match self.dataset(dataset) {
            Err(TreeError::Receiving(_)) if !self.tree.is_hidden(dataset) => Ok(()),
            found => found.map(drop),
        }
    }

    /// Fails while a dataset is being received that will lie in this one: its place must stay.
    pub(in crate::namespace) fn check_awaits_none(&self, dataset: Dataset) -> TreeResult<()> {
        let mut receives = self.tree.receives.iter();
        let awaited = receives.find(|(_, receive)| receive.is_into(dataset));
        awaited.map_or(Ok(()), |(&awaited, _)| Err(TreeError::Receiving(awaited)))
    }

    /// A snapshot by its name, of a dataset that may be changed.
    pub(in crate::namespace) fn snapshot(
        &self,
        dataset: Dataset,
        name: &str,
    ) -> TreeResult<(Node, SnapshotRecord)> {
        self.dataset(dataset)?;
        self.shown_snapshot(dataset, name)
    }

    /// A snapshot by its name, of a dataset that shows.
    pub(in crate::namespace) fn shown_snapshot(
        &self,
        dataset: Dataset,
        name: &str,
    ) -> TreeResult<(Node, SnapshotRecord)> {
        self.check_shown(dataset)?;
        self.tree
            .snapshots_of(dataset)
            .find(|(_, record)| record.name == name)
            .map(|(node, record)| (node, SnapshotRecord::clone(record)))
            .ok_or_else(|| TreeError::NoSnapshot(name.to_owned()))
    }

    /// A new node on a line.
    pub(in crate::namespace) fn add_node(&mut self, line: Line) -> TreeResult<Node> {
        let node = Node(self.tree.counters.node);
        // The largest stands for "no limit".
        if node.0 >= Node::MAX.0 - 1 {
            return Err(TreeError::TooMany);
        }
        self.tree.counters.node += 1;
        self.tree.nodes.insert(node, line);
        let value = node_record(line);
        self.batch.put(Space::Meta, &key::meta_number(key::NODES, node.0), value);
        Ok(node)
    }

    pub(in crate::namespace) fn remove_node(&mut self, node: Node) {
        self.tree.nodes.remove(&node);
        self.batch.delete(Space::Meta, &key::meta_number(key::NODES, node.0));
    }

    /// An index for a new view: the next one round that is free, so that one that was given up rests
    /// as long as possible and handles of what is gone stay stale.
    pub(in crate::namespace) fn add_view(&mut self) -> TreeResult<u16> {
        let datasets = self.tree.datasets.values().map(|record| record.view);
        let snapshots = self.tree.snapshots.values().map(|record| record.view);
        let receives = self.tree.receives.values().map(|record| record.view);
        let used: std::collections::HashSet<u16> =
            datasets.chain(snapshots).chain(receives).collect();
        // Index 0 would give another root the number of the mount's.
        let first = self.tree.counters.view.clamp(1, VIEWS_END);
        let mut round = (first..VIEWS_END).chain(1..first);
        let free = round.find(|index| !used.contains(&(*index as u16)));
        let index = free.ok_or(TreeError::TooMany)?;
        self.tree.counters.view = index + 1;
        Ok(index as u16)
    }

    pub(in crate::namespace) fn put_dataset(&mut self, dataset: Dataset, record: DatasetRecord) {
        self.batch.put(Space::Meta, &key::meta_number(key::DATASETS, dataset.0), record.encode());
        self.tree.datasets.insert(dataset, Arc::new(record));
    }

    pub(in crate::namespace) fn put_snapshot(&mut self, node: Node, record: SnapshotRecord) {
        self.batch.put(Space::Meta, &key::meta_number(key::SNAPSHOTS, node.0), record.encode());
        self.tree.snapshots.insert(node, Arc::new(record));
    }
}
