//! Changes of a repair: versioned like all others, with what they replace kept first.

use std::collections::HashSet;

use bytes::Bytes;

use super::Keeper;
use crate::error::FsResult;
use crate::namespace::Namespace;
use crate::namespace::check::past_damage;
use crate::namespace::key::{self, HeadKey, Kind, Line, Node};
use crate::namespace::record::{Bucket, Inode, Version};
use crate::namespace::store::{Batch, Durability, Space};
use crate::namespace::tree::View;
use crate::namespace::txn::is_kept;
use crate::namespace::view::behind;
use crate::types::Ino;

/// Changes after which a batch is committed.
pub(super) const CHANGES_PER_BATCH: usize = 512;

/// A version of which nothing is known: no value is that short, so that it is an error to read.
const UNKNOWN: Bytes = Bytes::new();

/// Makes the value of a record from its version.
type Make<'m> = &'m dyn Fn(Version) -> FsResult<Vec<u8>>;

/// An atomic change in the making.
pub(super) struct Edits<'a> {
    ns: &'a Namespace,
    keeper: &'a mut dyn Keeper,
    batch: Batch,
    is_counted: bool,
}

/// The newest version of a record on its line.
enum Newest {
    /// There is none, and never was.
    None,
    /// Only where the line began.
    Below,
    Sound(Version, Bytes),
    /// There was one, but nobody knows which.
    Lost,
}

impl<'a> Edits<'a> {
    pub(super) fn new(ns: &'a Namespace, keeper: &'a mut dyn Keeper) -> Self {
        Self { ns, keeper, batch: Batch::new(), is_counted: true }
    }

    pub(super) fn len(&self) -> usize {
        self.batch.len()
    }

    /// Whether the counters of space are as they were.
    pub(super) fn is_counted(&self) -> bool {
        self.is_counted
    }

    pub(super) fn put(&mut self, space: Space, key: &[u8], value: impl Into<Bytes>) {
        self.batch.put(space, key, value);
    }

    pub(super) fn delete(&mut self, space: Space, key: &[u8]) {
        self.batch.delete(space, key);
    }

    pub(super) fn append(&mut self, batch: Batch) {
        self.batch.append(batch);
    }

    pub(super) fn forget(&mut self) {
        self.batch = Batch::new();
    }

    /// Makes it happen; whether anything is different now.
    pub(super) fn commit(&mut self) -> FsResult<bool> {
        let mut batch = std::mem::take(&mut self.batch);
        let mut is_change = false;
        let mut seen = HashSet::new();
        // The last change of a key is the one that counts.
        for change in batch.changes().iter().rev() {
            if !seen.insert((change.space, change.key.clone())) {
                continue;
            }
            let old = self.ns.gate.store().get(change.space, &change.key)?;
            if old == change.value {
                continue;
            }
            is_change = true;
            if let Some(old) = old {
                self.keeper.keep(change.space, &change.key, &old)?;
            }
        }
        if !is_change {
            return Ok(false);
        }
        self.keeper.sync()?;
        if std::mem::take(&mut self.is_counted) {
            let range = (&[key::USAGE][..], Some(&[key::USAGE + 1][..]));
            self.ns.for_each_in(Space::Meta, range, &mut |key, _| {
                batch.delete(Space::Meta, key);
                Ok(())
            })?;
        }
        self.ns.gate.commit(batch, Durability::Buffered)?;
        self.ns.cache.clear();
        Ok(true)
    }

    /// Stores an inode, its version aside.
    pub(super) fn write_inode(&mut self, view: &View, inode: &Inode) -> FsResult<()> {
        let key = key::head(view.line, inode.ino, Kind::Inode);
        self.write(view, &key, Some(&|version| Ok(Inode { version, ..inode.clone() }.encode())))
    }

    /// Stores the names of a directory with one hash, or that there are none any more.
    pub(super) fn write_bucket(
        &mut self,
        view: &View,
        (dir, number): (Ino, u64),
        bucket: &Bucket,
    ) -> FsResult<()> {
        let key = key::head_numbered(view.line, dir, Kind::Dentry, number);
        let make = |version: Version| {
            let mut value = Vec::new();
            version.put(&mut value);
            bucket.put(&mut value);
            Ok(value)
        };
        self.write(view, &key, (!bucket.is_empty()).then_some(&make as Make<'_>))
    }

    /// Replaces or removes the record that a live view shows; older versions stay as they are.
    pub(super) fn write(
        &mut self,
        view: &View,
        key: &[u8],
        make: Option<Make<'_>>,
    ) -> FsResult<()> {
        let head = HeadKey::decode(key)?;
        let older = self.older_nodes(view.line, key)?;
        let mut shadows = !older.is_empty();
        match self.newest(view, key, &older)? {
            Newest::None if make.is_none() => return Ok(()),
            Newest::None => {}
            Newest::Below => shadows = true,
            Newest::Sound(version, value) => {
                if version.node != view.node && is_kept(view, version) {
                    self.put(Space::History, &key::history(key, version.node), value);
                    shadows = true;
                }
                shadows |= version.shadows && view.has_origin;
            }
            Newest::Lost => shadows |= self.bury(view, key, &head, &older)? || view.has_origin,
        }
        if view.keeps_born() {
            self.put(Space::Born, &key::born(view.node, head.object, head.kind), Bytes::new());
        }
        let version = Version { node: view.node, shadows, whiteout: make.is_none() };
        match make {
            Some(make) => self.put(Space::Head, key, make(version)?),
            None if shadows => {
                let mut value = Vec::new();
                version.put(&mut value);
                self.put(Space::Head, key, value);
            }
            None => self.delete(Space::Head, key),
        }
        Ok(())
    }

    fn newest(&self, view: &View, key: &[u8], older: &[Node]) -> FsResult<Newest> {
        if let Some(value) = self.ns.gate.store().get(Space::Head, key)? {
            let version = Version::split(&value).ok().map(|(version, _)| version);
            let is_ours = |version: &Version| {
                let line = self.ns.tree.read().line_of(version.node);
                line == Some(view.line) && older.last().is_none_or(|older| *older < version.node)
            };
            return Ok(match version.filter(is_ours) {
                Some(version) => Newest::Sound(version, value),
                None => Newest::Lost,
            });
        }
        if !older.is_empty() {
            return Ok(Newest::Lost);
        }
        if view.has_origin
            && !matches!(past_damage(self.ns.visible(view.layer(), key))?, Some(None))
        {
            return Ok(Newest::Below);
        }
        Ok(Newest::None)
    }

    /// The nodes of the versions of a record in the history of a line, in growing order.
    pub(super) fn older_nodes(&self, line: Line, head_key: &[u8]) -> FsResult<Vec<Node>> {
        let from = key::history(head_key, Node(0));
        let to = behind(&key::history(head_key, Node::MAX));
        let mut nodes = Vec::new();
        self.ns.for_each_in(Space::History, (&from, Some(&to)), &mut |key, _| {
            if let Ok((head, node)) = key::history_decode(line, key)
                && head == head_key
                && self.ns.tree.read().line_of(node) == Some(line)
            {
                nodes.push(node);
            }
            Ok(())
        })?;
        Ok(nodes)
    }

    /// Lets each reader that may have seen a lost version find one that cannot be read; whether
    /// there is such a reader.
    fn bury(
        &mut self,
        view: &View,
        key: &[u8],
        head: &HeadKey<'_>,
        older: &[Node],
    ) -> FsResult<bool> {
        let readers = self.ns.tree.read().readers(view.line);
        let mut is_seen = false;
        for &reader in readers.iter().filter(|&&reader| reader < view.node) {
            if older.last().is_some_and(|&older| reader <= older)
                || !self.may_have_seen(view, head, older.last().copied(), reader)?
            {
                continue;
            }
            is_seen = true;
            self.put(Space::History, &key::history(key, reader), UNKNOWN);
            self.put(Space::Born, &key::born(reader, head.object, head.kind), Bytes::new());
        }
        Ok(is_seen)
    }

    /// Whether a version behind the one that `older` wrote can have been there for a reader: as the
    /// born index says or, where nothing older remains, since the object was made.
    fn may_have_seen(
        &self,
        view: &View,
        head: &HeadKey<'_>,
        older: Option<Node>,
        reader: Node,
    ) -> FsResult<bool> {
        match older {
            Some(older) => {
                let nodes = self.ns.tree.read().nodes_of(view.line, older, reader);
                self.first_born(head, &nodes).map(|first| first.is_some())
            }
            None => Ok(self.birth(view, head)? <= reader),
        }
    }

    /// The earliest node under which the object can have been made.
    fn birth(&self, view: &View, head: &HeadKey<'_>) -> FsResult<Node> {
        let key = key::head(view.line, head.object, Kind::Inode);
        if let Some(first) = self.older_nodes(view.line, &key)?.first() {
            return Ok(*first);
        }
        let inode = self.ns.gate.store().get(Space::Head, &key)?;
        let version = inode.and_then(|value| Version::split(&value).ok().map(|split| split.0));
        if let Some(version) = version.filter(|v| self.ns.could_write(view.line, v)) {
            return Ok(if version.shadows { Node(0) } else { version.node });
        }
        let nodes = self.ns.tree.read().nodes_of(view.line, Node(0), Node::MAX);
        let inode = HeadKey { kind: Kind::Inode, ..*head };
        Ok(self.first_born(&inode, &nodes)?.unwrap_or(Node(0)))
    }

    fn first_born(&self, head: &HeadKey<'_>, nodes: &[Node]) -> FsResult<Option<Node>> {
        let store = self.ns.gate.store();
        for &node in nodes {
            for kind in [head.kind, Kind::Inode] {
                if store.get(Space::Born, &key::born(node, head.object, kind))?.is_some() {
                    return Ok(Some(node));
                }
            }
        }
        Ok(None)
    }
}
