//! Atomic changes: a batch that keeps history, born index and back-references right, and the
//! inode cache in step.
//!
//! The caller holds the locks of all inodes that it changes, from before it read them until
//! `commit` returned.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use firn_tiering::BlockId;

use super::key::{self, Backref, Kind, LinkAt};
use super::ledger::Entries;
use super::record::{
    Bucket, Inode, Piece, Referenced, SlotRecord, Version, allocated, fresh, put_link_name,
};
use super::store::{Batch, Durability, Space};
use super::tree::View;
use super::{Namespace, Timestamp};
use crate::error::{FsError, FsResult};
use crate::types::{FileKind, Ino};

/// What a commit left behind.
#[derive(Debug, Default)]
pub struct Committed {
    /// Blocks to which nothing refers any more. They may be freed once the commit is durable,
    /// unless the caller holds references of its own that it has not committed yet.
    pub unreferenced: Vec<BlockId>,
}

/// An atomic change in the making. Dropping it changes nothing.
#[derive(Debug)]
pub struct Txn<'a> {
    namespace: &'a Namespace,
    batch: Batch,
    inodes: Vec<(Ino, Option<Arc<Inode>>)>,
    slots: HashSet<(Ino, u64)>,
    dropped: Vec<BlockId>,
    entries: Entries,
}

impl<'a> Txn<'a> {
    pub(super) fn new(namespace: &'a Namespace) -> Self {
        Self {
            namespace,
            batch: Batch::new(),
            inodes: Vec::new(),
            slots: HashSet::new(),
            dropped: Vec::new(),
            entries: Entries::default(),
        }
    }

    /// Number of changed keys so far, to keep batches bounded.
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Adds changes of other records.
    pub(super) fn append(&mut self, batch: Batch, entries: Entries) {
        self.batch.append(batch);
        self.entries.append(entries);
    }

    /// The changes alone, for a repair, which counts space anew and forgets all cached inodes.
    pub(super) fn into_batch(self) -> Batch {
        self.batch
    }

    /// Makes it happen; see [`Durability`].
    pub fn commit(self, durability: Durability) -> FsResult<Committed> {
        let Self { namespace, batch, inodes, dropped, entries, .. } = self;
        if batch.is_empty() {
            namespace.gate.check()?;
        } else {
            namespace.gate.commit_counted(batch, &entries, durability)?;
        }
        for (ino, inode) in inodes {
            match inode {
                Some(inode) => namespace.cache.publish(inode),
                None => namespace.cache.remove(ino),
            }
        }
        // Looked up afterwards: of two commits at once that drop the last two references, the
        // later one sees neither.
        let unreferenced = namespace.without_references(dropped)?;
        Ok(Committed { unreferenced })
    }

    /// Stores an inode that was read before, changed.
    pub fn put_inode(&mut self, mut inode: Inode) -> FsResult<Arc<Inode>> {
        let view = self.view(inode.ino)?;
        let key = key::head(view.line, inode.ino, Kind::Inode);
        // A directory holds no bytes, and one without a name gets none again.
        if !inode.is_dir() || inode.nlink == 0 {
            let before = self.before(inode.ino)?;
            if before.as_ref().is_none_or(|before| before.size != inode.size) {
                inode.digest = None;
            }
            self.entries.refer(view.line, counted(before.as_deref()), Referenced::of(&inode));
        }
        self.await_digest(&inode)?;
        inode.version = self.supersede(&view, &key, inode.ino, Kind::Inode, inode.version)?;
        self.batch.put(Space::Head, &key, inode.encode());
        Ok(self.stage(inode))
    }

    /// Stores a new inode.
    pub(super) fn add_inode(&mut self, inode: Inode) -> FsResult<Arc<Inode>> {
        let view = self.view(inode.ino)?;
        let key = key::head(view.line, inode.ino, Kind::Inode);
        self.batch.put(Space::Head, &key, inode.encode());
        self.put_born(&view, inode.ino, Kind::Inode);
        self.await_digest(&inode)?;
        self.entries.refer(view.line, Referenced::default(), Referenced::of(&inode));
        Ok(self.stage(inode))
    }

    /// Removes an inode. Its other records must be gone or go in the same change.
    pub(super) fn remove_inode(&mut self, inode: &Inode) -> FsResult<()> {
        let view = self.view(inode.ino)?;
        let key = key::head(view.line, inode.ino, Kind::Inode);
        self.erase(&view, &key, inode.ino, Kind::Inode, inode.version)?;
        // One left from when there were older readers goes with its node.
        if view.keeps_born() && born_here(&view, inode) {
            self.batch.delete(Space::Born, &key::born(view.node, inode.ino, Kind::Inode));
        }
        let before = self.before(inode.ino)?;
        self.entries.refer(view.line, counted(before.as_deref()), Referenced::default());
        self.inodes.push((inode.ino, None));
        Ok(())
    }

    /// An inode as it is so far.
    fn before(&self, ino: Ino) -> FsResult<Option<Arc<Inode>>> {
        match self.inodes.iter().rev().find(|(of, _)| *of == ino) {
            Some((_, inode)) => Ok(inode.clone()),
            None => self.namespace.find_inode(ino),
        }
    }

    fn stage(&mut self, inode: Inode) -> Arc<Inode> {
        let inode = Arc::new(inode);
        self.inodes.push((inode.ino, Some(Arc::clone(&inode))));
        inode
    }

    /// Replaces all pieces of the slot `slot` (the file's bytes from `slot * SLOT_LEN`) and
    /// accounts for them in `inode.allocated`; the caller stores the inode in the same change, without
    /// the digest, which is no longer that of the content. At most once for each slot in one change.
    pub fn put_slot(&mut self, inode: &mut Inode, slot: u64, pieces: &[Piece]) -> FsResult<()> {
        // An inode without allocated bytes has no extents at all.
        let old = match inode.allocated {
            0 if born_here(&self.view(inode.ino)?, inode) => None,
            _ => self.namespace.stored_slot(inode.ino, slot)?,
        };
        self.replace_slot(inode, slot, old, pieces)
    }

    pub(super) fn replace_slot(
        &mut self,
        inode: &mut Inode,
        slot: u64,
        old: Option<SlotRecord>,
        pieces: &[Piece],
    ) -> FsResult<()> {
        if !self.slots.insert((inode.ino, slot)) {
            return Err(FsError::Invalid("one slot changed twice at once"));
        }
        inode.digest = None;
        let view = self.view(inode.ino)?;
        let key = key::head_numbered(view.line, inode.ino, Kind::Extent, slot);
        let node = view.node;
        let old_version = old.as_ref().map(|old| old.version);
        let old_pieces = old.map_or_else(Vec::new, |old| old.pieces);
        let before = block_ids(&old_pieces);
        let after = block_ids(pieces);
        let backref = |block, node| Backref { block, ino: inode.ino, slot, node }.encode();
        // References of a version that somebody still sees stay with it.
        let replaced = old_version.filter(|&old| !is_kept(&view, old)).map(|old| old.node);
        let stays = |block| replaced == Some(node) && before.binary_search(block).is_ok();
        if let Some(old) = replaced {
            for &block in &before {
                if old != node || after.binary_search(&block).is_err() {
                    self.batch.delete(Space::Backrefs, &backref(block, old));
                    self.dropped.push(block);
                }
            }
        }
        for block in after.iter().filter(|&block| !stays(block)) {
            self.batch.put(Space::Backrefs, &backref(*block, node), Bytes::new());
        }
        let charged = self.charged(&view, &key, old_version, &old_pieces, pieces)?;
        self.entries.charge(view.line, node, charged);
        inode.allocated =
            inode.allocated.checked_sub(allocated(&old_pieces)).ok_or_else(|| {
                FsError::io("namespace", "damaged inode: allocated bytes too few")
            })? + allocated(pieces);
        match (old_version, pieces.is_empty()) {
            (None, true) => Ok(()),
            (Some(version), true) if version.whiteout => Ok(()),
            (Some(version), true) => self.erase(&view, &key, inode.ino, Kind::Extent, version),
            (old_version, false) => {
                let version = self.next_version(&view, &key, inode, Kind::Extent, old_version)?;
                self.batch.put(Space::Head, &key, SlotRecord::encode(version, pieces)?);
                Ok(())
            }
        }
    }

    /// How much more the line holds once a slot is replaced.
    fn charged(
        &self,
        view: &View,
        key: &[u8],
        old: Option<Version>,
        old_pieces: &[Piece],
        pieces: &[Piece],
    ) -> FsResult<i64> {
        let Some(old) = old else { return Ok(allocated(pieces) as i64) };
        if is_kept(view, old) {
            return Ok(fresh(pieces, old_pieces) as i64);
        }
        // What is older than the version that goes is older than the one that comes.
        let below = match old.shadows {
            true => self.namespace.pieces_below(view.line, old.node, key)?,
            false => Vec::new(),
        };
        Ok(fresh(pieces, &below) as i64 - fresh(old_pieces, &below) as i64)
    }

    /// Stores a bucket of directory entries, or removes it when it is empty.
    pub(super) fn put_bucket(
        &mut self,
        dir: &Inode,
        number: u64,
        old: Option<Version>,
        bucket: &Bucket,
    ) -> FsResult<()> {
        let view = self.view(dir.ino)?;
        let key = key::head_numbered(view.line, dir.ino, Kind::Dentry, number);
        if bucket.is_empty() {
            return match old {
                Some(version) => self.erase(&view, &key, dir.ino, Kind::Dentry, version),
                None => Ok(()),
            };
        }
        let version = self.next_version(&view, &key, dir, Kind::Dentry, old)?;
        let mut value = Vec::with_capacity(48);
        version.put(&mut value);
        bucket.put(&mut value);
        self.batch.put(Space::Head, &key, value);
        Ok(())
    }

    /// Stores the target of a symbolic link, once.
    pub(super) fn put_symlink(&mut self, inode: &Inode, target: &[u8]) -> FsResult<()> {
        debug_assert_eq!(inode.kind, FileKind::Symlink);
        let view = self.view(inode.ino)?;
        let key = key::head(view.line, inode.ino, Kind::Symlink);
        let mut value = Vec::with_capacity(target.len() + 2);
        inode.version.put(&mut value);
        value.extend_from_slice(target);
        self.batch.put(Space::Head, &key, value);
        Ok(())
    }

    /// Stores an extended attribute.
    pub(super) fn put_xattr(
        &mut self,
        inode: &Inode,
        name: &[u8],
        old: Option<Version>,
        bytes: &[u8],
    ) -> FsResult<()> {
        let view = self.view(inode.ino)?;
        let key = key::head_named(view.line, inode.ino, Kind::Xattr, name);
        let version = self.next_version(&view, &key, inode, Kind::Xattr, old)?;
        let mut value = Vec::with_capacity(bytes.len() + 2);
        version.put(&mut value);
        value.extend_from_slice(bytes);
        self.batch.put(Space::Head, &key, value);
        Ok(())
    }

    /// Stores the record of a name of a file, or removes it. At most once for each name in one
    /// change.
    pub(super) fn put_link(
        &mut self,
        inode: &Inode,
        at: LinkAt,
        name: Option<&[u8]>,
    ) -> FsResult<()> {
        let view = self.view(inode.ino)?;
        let key = key::head_link(view.line, inode.ino, at);
        let old = self.namespace.read(&view, &key)?.map(|(version, _)| version);
        let Some(name) = name else {
            return match old.filter(|old| !old.whiteout) {
                Some(old) => self.erase(&view, &key, inode.ino, Kind::Link, old),
                None => Ok(()),
            };
        };
        let version = self.next_version(&view, &key, inode, Kind::Link, old)?;
        let mut value = Vec::with_capacity(name.len() + 3);
        version.put(&mut value);
        put_link_name(&mut value, name);
        self.batch.put(Space::Head, &key, value);
        Ok(())
    }

    /// Removes a record of an object by its head key.
    pub(super) fn remove_record(
        &mut self,
        ino: Ino,
        kind: Kind,
        key: &[u8],
        version: Version,
    ) -> FsResult<()> {
        let view = self.view(ino)?;
        self.erase(&view, key, ino, kind, version)
    }

    /// Notes that an inode lost its last name.
    pub(super) fn add_orphan(&mut self, ino: Ino) -> FsResult<()> {
        self.note(key::ORPHANS, ino)
    }

    pub(super) fn remove_orphan(&mut self, ino: Ino) -> FsResult<()> {
        self.remove_note(key::ORPHANS, ino)
    }

    /// Notes that extents from the inode's size on are still to be removed; an open removes them
    /// where a crash comes first.
    pub fn add_truncation(&mut self, ino: Ino) -> FsResult<()> {
        self.note(key::TRUNCATIONS, ino)
    }

    /// Nothing is left behind the inode's size.
    pub fn remove_truncation(&mut self, ino: Ino) -> FsResult<()> {
        self.remove_note(key::TRUNCATIONS, ino)
    }

    /// A file with content and without a digest gets one later; see [`super::digests`].
    fn await_digest(&mut self, inode: &Inode) -> FsResult<()> {
        self.namespace.digests.put(inode);
        match inode.awaits_digest() {
            true => self.note(key::DIGESTS, inode.ino),
            false => Ok(()),
        }
    }

    /// Nothing of the file waits for a digest.
    pub(super) fn remove_digest_note(&mut self, ino: Ino) -> FsResult<()> {
        self.remove_note(key::DIGESTS, ino)
    }

    fn note(&mut self, start: u8, ino: Ino) -> FsResult<()> {
        let key = key::meta_inode(start, self.view(ino)?.line, ino);
        self.batch.put(Space::Meta, &key, Bytes::new());
        Ok(())
    }

    fn remove_note(&mut self, start: u8, ino: Ino) -> FsResult<()> {
        let key = key::meta_inode(start, self.view(ino)?.line, ino);
        self.batch.delete(Space::Meta, &key);
        Ok(())
    }

    /// The time of the change.
    pub fn now(&self) -> Timestamp {
        self.namespace.now()
    }

    /// The view in which `ino` is changed.
    fn view(&self, ino: Ino) -> FsResult<View> {
        self.namespace.writable(ino)
    }

    fn put_born(&mut self, view: &View, object: Ino, kind: Kind) {
        if view.keeps_born() {
            self.batch.put(Space::Born, &key::born(view.node, object, kind), Bytes::new());
        }
    }

    /// The version of a record that `object` gets or that replaces an older one.
    fn next_version(
        &mut self,
        view: &View,
        key: &[u8],
        object: &Inode,
        kind: Kind,
        old: Option<Version>,
    ) -> FsResult<Version> {
        match old {
            Some(old) => self.supersede(view, key, object.ino, kind, old),
            None => {
                if !born_here(view, object) {
                    self.put_born(view, object.ino, kind);
                }
                Ok(Version::first(view.node))
            }
        }
    }

    /// The version of a record that replaces `old`, which moves to the history if somebody still
    /// sees it.
    fn supersede(
        &mut self,
        view: &View,
        key: &[u8],
        object: Ino,
        kind: Kind,
        old: Version,
    ) -> FsResult<Version> {
        let node = view.node;
        if old.node == node {
            return Ok(Version { node, shadows: old.shadows, whiteout: false });
        }
        self.put_born(view, object, kind);
        if old.node < view.first {
            // It lies on another line, where it stays.
            return Ok(Version { node, shadows: true, whiteout: false });
        }
        if !is_kept(view, old) {
            return Ok(Version { node, shadows: old.shadows, whiteout: false });
        }
        let value =
            self.namespace.gate.store().get(Space::Head, key)?.ok_or_else(|| {
                FsError::io("namespace", "a record vanished while it was changed")
            })?;
        self.batch.put(Space::History, &key::history(key, old.node), value);
        Ok(Version { node, shadows: true, whiteout: false })
    }

    /// Removes a record, leaving a whiteout where an older version remains.
    fn erase(
        &mut self,
        view: &View,
        key: &[u8],
        object: Ino,
        kind: Kind,
        old: Version,
    ) -> FsResult<()> {
        let version = self.supersede(view, key, object, kind, old)?;
        if version.shadows {
            let mut value = Vec::with_capacity(2);
            Version { whiteout: true, ..version }.put(&mut value);
            self.batch.put(Space::Head, key, value);
        } else {
            self.batch.delete(Space::Head, key);
        }
        Ok(())
    }
}

/// What an inode counts for.
fn counted(inode: Option<&Inode>) -> Referenced {
    inode.map_or_else(Referenced::default, Referenced::of)
}

/// Whether the inode itself was created under the current node, which then stands for all of its
/// records in the born index.
fn born_here(view: &View, inode: &Inode) -> bool {
    inode.version.node == view.node && !inode.version.shadows
}

/// Whether somebody sees the version even after it is superseded: a reader of its line that is
/// not older, or whoever reads the line that it lies on.
pub(super) fn is_kept(view: &View, old: Version) -> bool {
    old.node < view.first || old.node <= view.last_reader
}

/// The blocks of some pieces, each once, sorted.
pub(super) fn block_ids(pieces: &[Piece]) -> Vec<BlockId> {
    let mut ids: Vec<_> = pieces.iter().filter_map(Piece::block).map(|block| block.id).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
