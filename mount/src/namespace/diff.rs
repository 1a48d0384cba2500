//! What is different between two states of a dataset, by what was written in between.
//!
//! The born index of the nodes between the two states names every object that changed, so the
//! cost grows with the changes. An inode with one name says which; of one with several, its link
//! records do. Where a file of an older volume has none, names that came or went are found in the
//! directories that changed, and one that neither did is looked for. *Memory* is bounded by
//! [`Limits`].
//! *Order*: by inode number, of each inode first names that went, then names that came, then that
//! it changed; what changed under a name that had to be looked for comes last. It is the same
//! every time. *Consistency*: snapshots never change; of a live state that is being written to,
//! what changes meanwhile may be told or not.

mod compare;
mod links;
mod records;
mod search;

use std::collections::BTreeMap;

use super::Namespace;
use super::key::{self, Kind, Node};
use super::pair::Pair;
use super::store::Space;
use super::tree::{TreeError, TreeResult, View};
use crate::error::FsResult;
use crate::types::{FileKind, Ino};

use compare::Comparison;

/// Entries of the born index in memory, over all nodes.
const ENTRIES: usize = 4096;

/// Fewest entries of one node; more than an object has kinds.
const ENTRIES_PER_NODE: usize = 16;

/// What happened to a file or directory, or to one of its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeKind {
    /// It has this name now, and had not; of several, each is told.
    Added,
    /// It had this name, and has it no more; of several, each is told.
    Removed,
    /// Its content or its attributes changed; told once, with one of its names.
    Modified,
    /// Exactly one name went, and exactly one came.
    Renamed,
}

/// One difference between two states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What happened.
    pub change: ChangeKind,
    /// File type.
    pub kind: FileKind,
    /// The inode: in the older state if it was removed, otherwise in the newer one.
    pub ino: Ino,
    /// Its path below the dataset's root in the older state; [`None`] for a name that came, and
    /// for one that is too deep to tell.
    pub before: Option<Vec<u8>>,
    /// Its path below the dataset's root in the newer state; [`None`] for a name that went, and
    /// for one that is too deep to tell.
    pub after: Option<Vec<u8>>,
}

/// How much a comparison keeps in memory. What has no room is looked for again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of names that came or went, of files with several.
    pub(super) link_bytes: usize,
    /// Changed files of which no name is known yet; only files without link records can be.
    pub(super) unnamed: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { link_bytes: 8 << 20, unnamed: 4096 }
    }
}

/// Kinds of records, one bit each.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kinds(u8);

impl Kinds {
    /// Every kind.
    pub(super) const ALL: Self = Self(u8::MAX);

    fn add(&mut self, kind: Kind) {
        self.0 |= 1 << kind as u8;
    }

    pub(super) fn has(self, kind: Kind) -> bool {
        self.0 & 1 << kind as u8 != 0
    }
}

impl Namespace {
    /// Passes what is different between two states to `sink`, until it returns `false`. The states
    /// are named by any inode of theirs; `older` is a snapshot from which `newer` came: a later
    /// snapshot, the live state, or a clone.
    pub fn diff(
        &self,
        older: Ino,
        newer: Ino,
        sink: &mut dyn FnMut(&Difference) -> bool,
    ) -> TreeResult<()> {
        self.diff_within(older, newer, Limits::default(), sink)
    }

    /// [`Namespace::diff`] in so much memory.
    pub(super) fn diff_within(
        &self,
        older: Ino,
        newer: Ino,
        limits: Limits,
        sink: &mut dyn FnMut(&Difference) -> bool,
    ) -> TreeResult<()> {
        let (older, newer) = (self.view(older)?, self.view(newer)?);
        let nodes = self.nodes_between(&older, &newer)?;
        let pair = Pair { older: Some(older), newer };
        let mut comparison = Comparison::new(self, (older, pair), &nodes, limits, sink);
        self.written_under(&nodes, 0, &mut |object, kinds| comparison.look_at(object, kinds))?;
        comparison.finish()?;
        // A state that went meanwhile showed nothing, which is not to pass for no difference.
        self.view(older.root())?;
        self.view(newer.root())?;
        Ok(())
    }

    /// Passes every object that was written between two states, once, in growing order, with the
    /// kinds of its records, until `visit` returns `false`. More than changed may be passed.
    pub(super) fn changed_objects(
        &self,
        older: &View,
        newer: &View,
        visit: &mut dyn FnMut(Ino, Kinds) -> FsResult<bool>,
    ) -> TreeResult<()> {
        self.changed_objects_from(older, newer, 0, visit)
    }

    /// [`Namespace::changed_objects`] from the object `first` on.
    pub(super) fn changed_objects_from(
        &self,
        older: &View,
        newer: &View,
        first: u64,
        visit: &mut dyn FnMut(Ino, Kinds) -> FsResult<bool>,
    ) -> TreeResult<()> {
        let nodes = self.nodes_between(older, newer)?;
        Ok(self.written_under(&nodes, first, visit)?)
    }

    /// Passes every object from `first` on that was written under some nodes.
    fn written_under(
        &self,
        nodes: &[Node],
        first: u64,
        visit: &mut dyn FnMut(Ino, Kinds) -> FsResult<bool>,
    ) -> FsResult<()> {
        let per_node = (ENTRIES / nodes.len().max(1)).max(ENTRIES_PER_NODE);
        let mut from = Some(first);
        while let Some(first) = from {
            let mut found: BTreeMap<u64, Kinds> = BTreeMap::new();
            let mut horizon = None;
            for &node in nodes {
                let start = key::born(node, Ino(first), Kind::Inode);
                let end = key::meta_number(0, node.0 + 1)[1..].to_vec();
                let page = self.gate.store().page(Space::Born, &start, Some(&end), per_node)?;
                let mut last = None;
                for (key, _) in &page.items {
                    let (_, object, kind) = key::born_decode(key)?;
                    found.entry(object.0).or_default().add(kind);
                    last = Some(object.0);
                }
                if let Some(last) = last.filter(|_| page.more) {
                    // Of the last object, not all kinds may be known.
                    horizon = Some(horizon.map_or(last, |horizon: u64| horizon.min(last)));
                }
            }
            for (object, kinds) in found {
                let is_known = horizon.is_none_or(|horizon| object < horizon);
                if is_known && !visit(Ino(object), kinds)? {
                    return Ok(());
                }
            }
            from = horizon;
        }
        Ok(())
    }

    /// Fails unless `newer` came from `older`.
    pub(super) fn check_earlier(&self, older: &View, newer: &View) -> TreeResult<()> {
        self.nodes_between(older, newer).map(drop)
    }

    /// The nodes behind one state up to another that came from it.
    fn nodes_between(&self, older: &View, newer: &View) -> TreeResult<Vec<Node>> {
        let tree = self.tree.read();
        let mut nodes = Vec::new();
        let mut layer = newer.layer();
        while layer.line != older.line {
            nodes.extend(tree.nodes_of(layer.line, Node(0), layer.node));
            layer = tree.origin(layer.line).ok_or(TreeError::Unrelated)?;
        }
        if older.limit > layer.node {
            return Err(TreeError::Unrelated);
        }
        nodes.extend(tree.nodes_of(layer.line, older.limit, layer.node));
        Ok(nodes)
    }
}
