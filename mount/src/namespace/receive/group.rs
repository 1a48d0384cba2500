//! Steps that become one batch: what they say is checked against what is there, and inodes and
//! buckets are kept until all steps were taken, since several may concern the same.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{ApplyError, Receiving, invalid};
use crate::error::FsError;
use crate::namespace::directory::Place;
use crate::namespace::key::{self, Kind, LinkAt};
use crate::namespace::links::LinkChanges;
use crate::namespace::names::{bucket_of_cookie, check_name, position_of_cookie};
use crate::namespace::record::{
    Inode, InodeFlags, Piece, SLOT_LEN, SlotRecord, Version, check_pieces,
};
use crate::namespace::send::{SlotRange, Step};
use crate::namespace::{Namespace, Txn, acl, create, xattr};
use crate::types::{FileKind, Ino};

/// Slots of a file end here: offsets are signed.
const SLOTS_END: u64 = (i64::MAX as u64).div_ceil(SLOT_LEN as u64);

/// Longest list of an inode's attribute names on the way: those that come mix with those that go,
/// in the order of their names. What it may be in the end is verified there.
const NAMES_MAX: u32 = 2 * xattr::XATTR_LIST_MAX;

/// An inode in the making.
struct Pending {
    inode: Inode,
    is_new: bool,
    links: LinkChanges,
}

impl Pending {
    fn new(inode: Inode, is_new: bool) -> Self {
        Self { inode, is_new, links: LinkChanges::default() }
    }
}

/// Steps on their way into one batch.
pub(super) struct Group<'a> {
    names: &'a Namespace,
    receiving: &'a Receiving,
    txn: Txn<'a>,
    inodes: BTreeMap<u64, Pending>,
    places: BTreeMap<(u64, u64), Place>,
    removed: Vec<Ino>,
}

impl<'a> Group<'a> {
    pub(super) fn new(names: &'a Namespace, receiving: &'a Receiving) -> Self {
        let txn = names.begin();
        let (inodes, places, removed) = Default::default();
        Self { names, receiving, txn, inodes, places, removed }
    }

    pub(super) fn step(&mut self, step: &Step) -> Result<(), ApplyError> {
        match step {
            Step::Object(inode) => self.object(inode),
            Step::Target { object, target } => self.target(*object, target),
            Step::Xattr { object, name, value } => self.xattr(*object, name, value.as_ref()),
            Step::Slot { object, slot, ranges } => self.slot(*object, *slot, ranges),
            Step::Unlink { dir, name, child } => self.unlink(*dir, name, *child),
            Step::Link { dir, name, child, kind, is_home } => {
                self.link((*dir, name), (*child, *kind), *is_home)
            }
            Step::Remove { object } => self.remove(*object),
        }
    }

    /// Everything in one change, and the inodes that are to be cleared away after it.
    pub(super) fn finish(mut self) -> Result<(Txn<'a>, Vec<Ino>), ApplyError> {
        for ((dir, _), place) in &self.places {
            let dir = self.inodes.get(dir).map(|pending| &pending.inode);
            let dir = dir.ok_or_else(|| ApplyError::Invalid("entries of nothing".into()))?;
            place.stage(&mut self.txn, dir)?;
        }
        for pending in self.inodes.into_values() {
            pending.links.stage(&mut self.txn, &pending.inode)?;
            match pending.is_new {
                true => self.txn.add_inode(pending.inode)?,
                false => self.txn.put_inode(pending.inode)?,
            };
        }
        Ok((self.txn, self.removed))
    }

    /// An inode that there is, to be changed.
    fn inode(&mut self, object: u64) -> Result<&mut Inode, ApplyError> {
        Ok(&mut self.pending(object)?.inode)
    }

    fn pending(&mut self, object: u64) -> Result<&mut Pending, ApplyError> {
        if !self.inodes.contains_key(&object) {
            let Some(inode) = self.names.find_inode(self.receiving.ino(object))? else {
                return invalid(format!("inode {object} does not exist"));
            };
            let inode = Inode::clone(&inode);
            self.inodes.insert(object, Pending::new(inode, false));
        }
        match self.inodes.get_mut(&object) {
            Some(pending) => Ok(pending),
            None => invalid("an inode vanished"),
        }
    }

    fn object(&mut self, sent: &Inode) -> Result<(), ApplyError> {
        let object = sent.ino.0;
        let ino = self.receiving.ino(object);
        let is_root = object == self.receiving.root;
        if is_root && !sent.is_dir() {
            return invalid("the root is no directory");
        }
        if sent.size > i64::MAX as u64 {
            return invalid(format!("inode {object} is too large"));
        }
        let key = key::head(self.receiving.view.line, ino, Kind::Inode);
        let stored = self.names.read(&self.receiving.view, &key)?;
        if stored.as_ref().is_some_and(|(version, _)| version.whiteout) {
            return invalid(format!("inode {object} was removed before"));
        }
        if self.inodes.contains_key(&object) {
            return invalid(format!("inode {object} twice"));
        }
        if stored.is_none() {
            let parent = if is_root { ino } else { self.receiving.ino(0) };
            let inode = Inode {
                ino,
                version: Version::first(self.receiving.view.node),
                nlink: if sent.is_dir() { 2 } else { 0 },
                parent,
                ..sent.clone()
            };
            self.inodes.insert(object, Pending::new(inode, true));
            return Ok(());
        }
        let inode = self.inode(object)?;
        if inode.kind != sent.kind || inode.generation != sent.generation {
            return invalid(format!("inode {object} is another one"));
        }
        *inode = Inode {
            ino: inode.ino,
            version: inode.version,
            flags: inode.flags,
            nlink: inode.nlink,
            size: if inode.is_dir() { inode.size } else { sent.size },
            allocated: inode.allocated,
            xattr_names: inode.xattr_names,
            parent: inode.parent,
            cookie: inode.cookie,
            digest: inode.digest,
            ..sent.clone()
        };
        Ok(())
    }

    fn target(&mut self, object: u64, target: &[u8]) -> Result<(), ApplyError> {
        if let Some(base) = &self.receiving.base
            && self.names.stored_in(base, Ino(object))?.is_some()
        {
            return invalid("the target of a symbolic link cannot change");
        }
        let inode = self.inode(object)?.clone();
        let fits = (1..=create::SYMLINK_MAX).contains(&target.len());
        if inode.kind != FileKind::Symlink || !fits || inode.size != target.len() as u64 {
            return invalid("impossible target of a symbolic link");
        }
        Ok(self.txn.put_symlink(&inode, target)?)
    }

    fn xattr(&mut self, object: u64, name: &[u8], value: Option<&Bytes>) -> Result<(), ApplyError> {
        let bad = |error| ApplyError::Invalid(format!("attribute: {error}"));
        xattr::check_name(name).map_err(bad)?;
        let mut inode = self.inode(object)?.clone();
        xattr::check_owner(name, inode.kind).map_err(bad)?;
        let is_acl = xattr::is_acl(name);
        if let Some(value) = value {
            let is_misplaced =
                inode.kind == FileKind::Symlink || name == acl::DEFAULT && !inode.is_dir();
            let is_sound =
                !is_acl || !is_misplaced && acl::Acl::parse(value).map_err(bad)?.is_some();
            if value.len() > xattr::XATTR_SIZE_MAX || !is_sound {
                return invalid("impossible value of an attribute");
            }
            let set = (name, &value[..]);
            self.names.set_attribute_within(&mut self.txn, &mut inode, set, NAMES_MAX).map_err(
                |error| match error {
                    FsError::NoSpace => ApplyError::Invalid("too many attributes".into()),
                    other => other.into(),
                },
            )?;
        } else {
            self.names.remove_attribute(&mut self.txn, &mut inode, name)?;
        }
        if is_acl {
            let flag = match name == acl::ACCESS {
                true => InodeFlags::ACCESS_ACL,
                false => InodeFlags::DEFAULT_ACL,
            };
            inode.flags.set(flag, value.is_some());
        }
        *self.inode(object)? = inode;
        Ok(())
    }

    fn slot(&mut self, object: u64, slot: u64, ranges: &[SlotRange]) -> Result<(), ApplyError> {
        if self.inode(object)?.kind != FileKind::File || slot >= SLOTS_END {
            return invalid("bytes where none can be");
        }
        let mut kept: Option<Vec<Piece>> = None;
        // Both are in order, so that one pass is enough.
        let mut next = 0;
        let mut pieces = Vec::with_capacity(ranges.len());
        for range in ranges {
            let end = range.start.checked_add(range.len).filter(|end| *end <= SLOT_LEN);
            let Some(end) = end.filter(|end| *end > range.start) else {
                return invalid("impossible range of a slot");
            };
            if let Some(content) = &range.content {
                let content = content.clone();
                pieces.push(Piece { start: range.start, len: range.len, content });
                continue;
            }
            let kept = match &kept {
                Some(kept) => kept,
                None => kept.insert(self.base_slot(object, slot)?),
            };
            let from = pieces.len();
            next += kept[next..].iter().take_while(|piece| piece.end() <= range.start).count();
            let there = kept[next..].iter().take_while(|piece| piece.start < end);
            pieces.extend(there.filter_map(|piece| piece.clip(&(range.start..end))));
            let covered: u32 = pieces[from..].iter().map(|piece| piece.len).sum();
            if covered != range.len {
                return invalid("the base has no bytes where the stream counts on them");
            }
        }
        if let Err(reason) = check_pieces(&pieces) {
            return invalid(reason);
        }
        let mut inode = self.inode(object)?.clone();
        self.txn.put_slot(&mut inode, slot, &pieces)?;
        *self.inode(object)? = inode;
        Ok(())
    }

    /// What the base has in a slot.
    fn base_slot(&self, object: u64, slot: u64) -> Result<Vec<Piece>, ApplyError> {
        let Some(base) = &self.receiving.base else { return Ok(Vec::new()) };
        let key = key::head_numbered(base.line, Ino(object), Kind::Extent, slot);
        match self.names.read(base, &key)? {
            Some((version, record)) => Ok(SlotRecord::decode(version, &record)?.pieces),
            None => Ok(Vec::new()),
        }
    }

    /// The directory, and in it the bucket for a name.
    fn place(&mut self, dir: u64, name: &[u8]) -> Result<&mut Place, ApplyError> {
        check_name(name).map_err(|error| ApplyError::Invalid(format!("name: {error}")))?;
        if !self.inode(dir)?.is_dir() {
            return invalid(format!("inode {dir} is no directory"));
        }
        let number = self.names.names.bucket(name);
        match self.places.entry((dir, number)) {
            std::collections::btree_map::Entry::Occupied(found) => Ok(found.into_mut()),
            std::collections::btree_map::Entry::Vacant(vacant) => {
                Ok(vacant.insert(self.names.place(self.receiving.ino(dir), name)?))
            }
        }
    }

    fn unlink(&mut self, dir: u64, name: &[u8], child: u64) -> Result<(), ApplyError> {
        let place = self.place(dir, name)?;
        let at = match place.bucket.find(name) {
            // It went before an interruption.
            None => return Ok(()),
            Some(entry) if entry.ino.object() != child => {
                return invalid("a name that goes is another file's");
            }
            Some(entry) => LinkAt { dir, cookie: place.cookie(entry.position) },
        };
        place.bucket.remove(name);
        let (names, nowhere) = (self.names, self.receiving.ino(0));
        let Pending { inode, links, .. } = self.pending(child)?;
        let is_dir = inode.is_dir();
        if is_dir {
            (inode.parent, inode.cookie) = (nowhere, 0);
        } else if inode.nlink == 0 {
            return Err(too_few());
        } else {
            links.lose(names, inode, at)?;
        }
        let dir = self.inode(dir)?;
        dir.size = dir.size.checked_sub(1).ok_or_else(too_few)?;
        if is_dir {
            dir.nlink = less(dir.nlink)?;
        }
        Ok(())
    }

    fn link(
        &mut self,
        (dir, name): (u64, &[u8]),
        (child, kind): (u64, FileKind),
        is_home: bool,
    ) -> Result<(), ApplyError> {
        let is_root = child == self.receiving.root;
        let inode = self.inode(child)?;
        if inode.kind != kind || is_root {
            return invalid("an entry that is not what it names");
        }
        let (ino, is_named) = (inode.ino, inode.cookie != 0);
        let place = self.place(dir, name)?;
        if let Some(entry) = place.bucket.find(name) {
            let is_same = entry.ino == ino;
            // It came before an interruption.
            return if is_same { Ok(()) } else { invalid("a name twice in one directory") };
        }
        let cookie = place.insert(name, ino, kind)?;
        let home = self.only_name(child)?;
        let above = self.inode(dir)?;
        above.size += 1;
        let above_ino = above.ino;
        if kind == FileKind::Directory {
            create::add_link(above)?;
            if is_named {
                return invalid("a directory with two names");
            }
        }
        let Pending { inode, links, .. } = self.pending(child)?;
        let is_first = inode.nlink == 0;
        if kind != FileKind::Directory {
            links.gain(inode, (LinkAt { dir, cookie }, name), home.as_deref())?;
        }
        if is_home || is_first || inode.cookie == 0 {
            (inode.parent, inode.cookie) = (above_ino, cookie);
        }
        Ok(())
    }

    /// The name of a file that has one, if that is what it remembers.
    fn only_name(&mut self, child: u64) -> Result<Option<Vec<u8>>, ApplyError> {
        let inode = self.inode(child)?;
        if inode.is_dir() || inode.nlink != 1 {
            return Ok(None);
        }
        let (inode, LinkAt { dir, cookie }) = (inode.clone(), inode.home());
        match self.places.get(&(dir, bucket_of_cookie(cookie))) {
            Some(place) => {
                let entry = place.bucket.at(position_of_cookie(cookie), child);
                Ok(entry.map(|entry| entry.name.clone()))
            }
            None => Ok(self.names.name_in_parent(&inode)?),
        }
    }

    fn remove(&mut self, object: u64) -> Result<(), ApplyError> {
        let ino = self.receiving.ino(object);
        if !self.inodes.contains_key(&object) && self.names.find_inode(ino)?.is_none() {
            // It went before an interruption.
            return Ok(());
        }
        let is_root = object == self.receiving.root;
        let inode = self.inode(object)?;
        let is_used = match inode.is_dir() {
            true => is_root || inode.cookie != 0 || inode.size != 0,
            false => inode.nlink != 0,
        };
        if is_used {
            return invalid("an inode that goes is still in use");
        }
        inode.nlink = 0;
        self.removed.push(ino);
        Ok(())
    }
}

fn less(nlink: u32) -> Result<u32, ApplyError> {
    nlink.checked_sub(1).ok_or_else(too_few)
}

fn too_few() -> ApplyError {
    ApplyError::Invalid("fewer names than were counted".into())
}
