//! The tree from its records.

use std::sync::Arc;

use super::Tree;
use super::change::NODE_VERSION;
use crate::error::{FsError, FsResult};
use crate::namespace::key::{self, Dataset, Node};
use crate::namespace::record::{
    Counters, DatasetRecord, LineRecord, Reader, ReceiveRecord, RecordError, RollbackRecord,
    SealRecord, Settings, SnapshotRecord, SweepRecord, VolumeRecord,
};
use crate::namespace::store::{NamespaceReader, Space};
use crate::namespace::view::behind;

/// Records read at once.
const PAGE: usize = 1024;

impl Tree {
    /// Reads all records; a volume without any has the root dataset alone.
    pub(in crate::namespace) fn load(
        store: &dyn NamespaceReader,
        volume: &VolumeRecord,
    ) -> FsResult<Self> {
        let mut tree = Self::new(volume);
        if let Some(value) = store.get(Space::Meta, key::COUNTERS)? {
            tree.counters = Counters::decode(&value)?;
        }
        each(store, key::DATASETS, &mut |key, value| {
            let dataset = Dataset(key::meta_number_decode(key)?);
            tree.datasets.insert(dataset, Arc::new(DatasetRecord::decode(value)?));
            Ok(())
        })?;
        each(store, key::LINES, &mut |key, value| {
            tree.lines.insert(Dataset(key::meta_number_decode(key)?), LineRecord::decode(value)?);
            Ok(())
        })?;
        each(store, key::NODES, &mut |key, value| {
            let mut reader = Reader::new("node", value);
            reader.version(NODE_VERSION)?;
            let line = Dataset(reader.u32_be()?);
            reader.end()?;
            tree.nodes.insert(Node(key::meta_number_decode(key)?), line);
            Ok(())
        })?;
        each(store, key::SNAPSHOTS, &mut |key, value| {
            let node = Node(key::meta_number_decode(key)?);
            tree.snapshots.insert(node, Arc::new(SnapshotRecord::decode(value)?));
            Ok(())
        })?;
        each(store, key::SWEEPS, &mut |key, value| {
            tree.sweeps.insert(key::meta_layer_decode(key)?, SweepRecord::decode(value)?);
            Ok(())
        })?;
        each(store, key::ROLLBACKS, &mut |key, value| {
            let dataset = Dataset(key::meta_number_decode(key)?);
            tree.rollbacks.insert(dataset, RollbackRecord::decode(value)?);
            Ok(())
        })?;
        each(store, key::PROPERTIES, &mut |key, value| {
            let dataset = Dataset(key::meta_number_decode(key)?);
            tree.settings.insert(dataset, Arc::new(Settings::decode(value)?));
            Ok(())
        })?;
        each(store, key::RECEIVES, &mut |key, value| {
            let dataset = Dataset(key::meta_number_decode(key)?);
            tree.receives.insert(dataset, Arc::new(ReceiveRecord::decode(value)?));
            Ok(())
        })?;
        tree.load_seals(store)?;
        tree.check().map_err(|reason| FsError::from(RecordError::new("version tree", reason)))?;
        tree.derive();
        Ok(tree)
    }

    /// Reads the digests of snapshots.
    pub(in crate::namespace) fn load_seals(&mut self, store: &dyn NamespaceReader) -> FsResult<()> {
        self.seals.clear();
        self.unreadable_seals.clear();
        each(store, key::SEALS, &mut |key, value| {
            // Nothing but the verification of a snapshot needs it; a check tells of the key.
            let Ok(node) = key::meta_number_decode(key).map(Node) else { return Ok(()) };
            match SealRecord::decode(value) {
                Ok(seal) => drop(self.seals.insert(node, Arc::new(seal))),
                Err(_) => drop(self.unreadable_seals.insert(node)),
            }
            Ok(())
        })
    }

    /// Whether the records fit together, so that nobody has to ask again.
    fn check(&self) -> Result<(), &'static str> {
        let on_line = |node: &Node, line: &Dataset| self.nodes.get(node) == Some(line);
        for (dataset, record) in &self.datasets {
            if !on_line(&record.node, dataset) {
                return Err("a dataset's node is not on its line");
            }
            let is_placeless = *dataset == self.mount || self.is_hidden(*dataset);
            if record.place.is_none() != is_placeless {
                return Err("a dataset without a place");
            }
            if record.place.is_some_and(|place| !self.datasets.contains_key(&place.parent)) {
                return Err("a dataset in one that does not exist");
            }
            // So that the way to the root ends.
            if record.place.is_some_and(|place| place.parent >= *dataset) {
                return Err("a dataset in a younger one");
            }
        }
        if self.settings.keys().any(|dataset| !self.datasets.contains_key(dataset)) {
            return Err("properties of a dataset that does not exist");
        }
        for (node, record) in &self.snapshots {
            if !on_line(node, &record.line) || !self.datasets.contains_key(&record.dataset) {
                return Err("a snapshot without its line or dataset");
            }
        }
        for (line, record) in &self.lines {
            // A younger line never is the origin of an older one, so chains end.
            if record.origin.is_some_and(|o| o.line >= *line || !on_line(&o.node, &o.line)) {
                return Err("a line without its origin");
            }
        }
        for (dataset, record) in &self.receives {
            if !self.datasets.contains_key(dataset) || self.rollbacks.contains_key(dataset) {
                return Err("a receive without its dataset");
            }
            if record.base.is_some_and(|base| !self.snapshots.contains_key(&base.at.node)) {
                return Err("a receive without its base");
            }
        }
        if self.nodes.keys().next_back().is_some_and(|node| node.0 >= self.counters.node) {
            return Err("a node that was never given away");
        }
        match self.datasets.keys().next_back() {
            Some(dataset) if dataset.0 < self.counters.dataset => Ok(()),
            _ => Err("a dataset that was never made"),
        }
    }
}

/// Takes a record in.
type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), RecordError> + 'a;

pub(in crate::namespace) fn each(
    store: &dyn NamespaceReader,
    start: u8,
    visit: &mut Visit<'_>,
) -> FsResult<()> {
    let mut from = vec![start];
    loop {
        let page = store.page(Space::Meta, &from, Some(&[start + 1]), PAGE)?;
        for (key, value) in &page.items {
            visit(key, value)?;
        }
        match page.items.last().filter(|_| page.more) {
            Some((last, _)) => from = behind(last),
            None => return Ok(()),
        }
    }
}
