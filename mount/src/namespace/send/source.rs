//! A snapshot that is being sent, kept from being destroyed meanwhile.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Pair, Sink};
use crate::namespace::Namespace;
use crate::namespace::key::{Dataset, Node};
use crate::namespace::position::Position;
use crate::namespace::snapshots::Snapshot;
use crate::namespace::tree::{TreeError, TreeResult};
use crate::types::Guid;

/// A snapshot that is being sent, and its base. Until it is dropped neither can be destroyed.
#[derive(Debug)]
pub(crate) struct SendSource<'a> {
    names: &'a Namespace,
    pair: Pair,
    /// What is sent.
    pub(crate) snapshot: Snapshot,
    /// The state that the receiver has.
    pub(crate) base: Option<Snapshot>,
    _held: Held,
}

/// Counts of [`super::super::tree::Tree::sending`] that go when this is dropped.
#[derive(Debug)]
struct Held {
    sending: Arc<Mutex<HashMap<Node, usize>>>,
    nodes: Vec<Node>,
}

impl Held {
    fn new(sending: Arc<Mutex<HashMap<Node, usize>>>, nodes: Vec<Node>) -> Self {
        for node in &nodes {
            *sending.lock().entry(*node).or_default() += 1;
        }
        Self { sending, nodes }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut sending = self.sending.lock();
        for node in &self.nodes {
            if let Some(count) = sending.get_mut(node) {
                *count -= 1;
                if *count == 0 {
                    sending.remove(node);
                }
            }
        }
    }
}

impl Namespace {
    /// Begins to send a snapshot, or what is different from an older one.
    pub(crate) fn begin_send(
        &self,
        (dataset, name): (Dataset, &str),
        from: Option<(Dataset, &str)>,
    ) -> TreeResult<SendSource<'_>> {
        // Nothing is destroyed between here and the hold.
        let _guard = self.lock(&[]);
        let snapshot = self.find_snapshot(dataset, name)?;
        let base = from.map(|(dataset, name)| self.find_snapshot(dataset, name)).transpose()?;
        self.hold_source(snapshot, base)
    }

    /// Begins to send what the rest of a cut stream is made from; `None` when it is not here. Where
    /// several datasets have copies, one of them that has both is taken, or one whose copy came
    /// from the other's.
    pub(crate) fn begin_send_again(
        &self,
        to: Guid,
        from: Option<Guid>,
    ) -> TreeResult<Option<SendSource<'_>>> {
        let _guard = self.lock(&[]);
        let ends = self.snapshots_with_guid(to)?;
        let Some(from) = from else {
            let found = ends.into_iter().next();
            return found.map(|snapshot| self.hold_source(snapshot, None)).transpose();
        };
        let bases = self.snapshots_with_guid(from)?;
        let mut pairs: Vec<_> =
            ends.iter().flat_map(|end| bases.iter().map(move |base| (end, base))).collect();
        pairs.sort_by_key(|(end, base)| end.dataset != base.dataset);
        let is_here = !pairs.is_empty();
        for (end, base) in pairs {
            match self.hold_source(end.clone(), Some(base.clone())) {
                Err(TreeError::Unrelated) => {}
                held => return held.map(Some),
            }
        }
        if is_here { Err(TreeError::Unrelated) } else { Ok(None) }
    }

    fn hold_source(
        &self,
        snapshot: Snapshot,
        base: Option<Snapshot>,
    ) -> TreeResult<SendSource<'_>> {
        let tree = self.tree.read();
        let view = |snapshot: &Snapshot| {
            let found = tree.snapshot_view(snapshot.node);
            found.ok_or_else(|| TreeError::NoSnapshot(snapshot.name.clone()))
        };
        let pair = Pair { older: base.as_ref().map(view).transpose()?, newer: view(&snapshot)? };
        let nodes = base.iter().map(|base| base.node).chain([snapshot.node]).collect();
        let held = Held::new(Arc::clone(&tree.sending), nodes);
        drop(tree);
        if let Some(older) = &pair.older {
            if older.root != pair.newer.root || older.layer() == pair.newer.layer() {
                return Err(TreeError::Unrelated);
            }
            self.check_earlier(older, &pair.newer)?;
        }
        Ok(SendSource { names: self, pair, snapshot, base, _held: held })
    }

    /// A snapshot of any dataset by its name in all volumes.
    pub fn snapshot_with_guid(&self, guid: Guid) -> TreeResult<Option<Snapshot>> {
        Ok(self.snapshots_with_guid(guid)?.into_iter().next())
    }

    /// All copies of a snapshot, oldest first.
    fn snapshots_with_guid(&self, guid: Guid) -> TreeResult<Vec<Snapshot>> {
        let found: Vec<Node> = {
            let tree = self.tree.read();
            let all = tree.snapshots.iter();
            let found = all.filter(|(node, record)| tree.guid(**node, record) == guid);
            found.map(|(node, _)| *node).collect()
        };
        found.into_iter().map(|node| self.snapshot_of(node)).collect()
    }

    /// Destroys a snapshot whose end was deferred and which nothing needs any more; whether it
    /// was.
    pub(crate) fn end_if_deferred(&self, snapshot: &Snapshot) -> TreeResult<bool> {
        let is_deferred = |names: &Self| {
            let tree = names.tree.read();
            tree.snapshots.get(&snapshot.node).is_some_and(|record| record.deferred)
        };
        if !is_deferred(self) {
            return Ok(false);
        }
        let (alone, mut change) = self.change_tree()?;
        change.end_deferred(snapshot.node);
        self.commit_tree(&alone, change)?;
        drop(alone);
        self.gate.sync()?;
        Ok(!self.tree.read().snapshots.contains_key(&snapshot.node))
    }
}

impl SendSource<'_> {
    /// The object of the root directory.
    pub(crate) fn root(&self) -> u64 {
        self.pair.newer.root
    }

    /// No object of the snapshot is that large.
    pub(crate) fn objects_end(&self) -> u64 {
        self.names.ids.inodes_end()
    }

    /// Passes everything from `from` on to `sink`, in order, until it returns `false`.
    pub(crate) fn walk(&self, from: Position, sink: &mut Sink<'_>) -> TreeResult<()> {
        self.names.walk(&self.pair, from, sink)
    }
}
