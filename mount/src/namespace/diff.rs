//! What is different between two states of a dataset, by what was written in between.
//!
//! The born index of the nodes between the two states names every object that changed, so the
//! cost grows with the changes. An inode says where it lies; of a file with several names it
//! knows one, so that a name which came or went besides may be reported without its path.

use std::collections::BTreeMap;

use super::Namespace;
use super::key::{self, Kind, Node};
use super::names::bucket_of_cookie;
use super::record::Inode;
use super::store::Space;
use super::tree::{TreeError, TreeResult, View};
use crate::error::FsResult;
use crate::types::{FileKind, Ino};

/// Entries of the born index in memory, over all nodes.
const ENTRIES: usize = 4096;

/// Fewest entries of one node; more than an object has kinds.
const ENTRIES_PER_NODE: usize = 16;

/// What happened to a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeKind {
    /// It has this name now, and had not.
    Added,
    /// It had this name, and has it no more.
    Removed,
    /// Its content or its attributes changed.
    Modified,
    /// It lies elsewhere.
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
    /// Its path below the dataset's root in the older state, if it was there and is known.
    pub before: Option<Vec<u8>>,
    /// Its path below the dataset's root in the newer state, if it is there and is known.
    pub after: Option<Vec<u8>>,
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
    /// Passes what is different between two states to `sink`, in the order of inode numbers,
    /// until it returns `false`. The states are named by any inode of theirs; `older` is a
    /// snapshot from which `newer` came: a later snapshot, the live state, or a clone.
    pub fn diff(
        &self,
        older: Ino,
        newer: Ino,
        sink: &mut dyn FnMut(&Difference) -> bool,
    ) -> TreeResult<()> {
        let (older, newer) = (self.view(older)?, self.view(newer)?);
        self.changed_objects(&older, &newer, &mut |object, kinds| {
            for difference in self.differences(&older, &newer, object, kinds)? {
                if !sink(&difference) {
                    return Ok(false);
                }
            }
            Ok(true)
        })
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
        let per_node = (ENTRIES / nodes.len().max(1)).max(ENTRIES_PER_NODE);
        let mut from = Some(first);
        while let Some(first) = from {
            let mut found: BTreeMap<u64, Kinds> = BTreeMap::new();
            let mut horizon = None;
            for &node in &nodes {
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

    fn differences(
        &self,
        older: &View,
        newer: &View,
        object: Ino,
        kinds: Kinds,
    ) -> FsResult<Vec<Difference>> {
        let named = |view: &View| -> FsResult<Option<_>> {
            Ok(self.find_inode(view.lift(object))?.filter(|inode| inode.nlink > 0))
        };
        let difference = |change, inode: &Inode, before, after| Difference {
            change,
            kind: inode.kind,
            ino: inode.ino,
            before,
            after,
        };
        let (old, new) = match (named(older)?, named(newer)?) {
            (None, None) => return Ok(Vec::new()),
            (None, Some(new)) => {
                let after = self.path_within(new.ino)?;
                return Ok(vec![difference(ChangeKind::Added, &new, None, after)]);
            }
            (Some(old), None) => {
                let before = self.path_within(old.ino)?;
                return Ok(vec![difference(ChangeKind::Removed, &old, before, None)]);
            }
            (Some(old), Some(new)) => (old, new),
        };
        let mut found = Vec::new();
        let before = self.path_within(old.ino)?;
        let after = self.path_within(new.ino)?;
        if self.has_moved(&old, &new)? {
            if self.has_name_of(newer, &new, &old)? {
                found.push(difference(ChangeKind::Added, &new, None, after.clone()));
            } else if self.has_name_of(older, &old, &new)? {
                found.push(difference(ChangeKind::Removed, &old, before.clone(), None));
            } else {
                let (before, after) = (before.clone(), after.clone());
                found.push(difference(ChangeKind::Renamed, &new, before, after));
            }
        }
        if is_modified(&old, &new, kinds) {
            found.push(difference(ChangeKind::Modified, &new, before, after));
        }
        Ok(found)
    }

    fn has_moved(&self, old: &Inode, new: &Inode) -> FsResult<bool> {
        let is_there = old.parent.object() == new.parent.object()
            && bucket_of_cookie(old.cookie) == bucket_of_cookie(new.cookie);
        Ok(!is_there || self.name_in_parent(old)? != self.name_in_parent(new)?)
    }

    /// Whether in `view`, where the inode is `inode`, it also has the name that it has as `other`.
    fn has_name_of(&self, view: &View, inode: &Inode, other: &Inode) -> FsResult<bool> {
        if inode.is_dir() {
            return Ok(false);
        }
        let Some(name) = self.name_in_parent(other)? else { return Ok(false) };
        let parent = view.lift(Ino(other.parent.object()));
        let moved = Inode { parent, cookie: other.cookie, ..inode.clone() };
        Ok(self.name_in_parent(&moved)? == Some(name))
    }
}

/// Whether more changed than the name.
fn is_modified(old: &Inode, new: &Inode, kinds: Kinds) -> bool {
    let content = [Kind::Extent, Kind::Xattr, Kind::Dentry].into_iter().any(|kind| kinds.has(kind));
    content
        || (old.size, old.mtime, old.perm) != (new.size, new.mtime, new.perm)
        || (old.uid, old.gid) != (new.uid, new.gid)
}
