//! The records of one object: what does not decode goes, what has no inode gets one, and content
//! that is gone is an error to read.

use super::{Fate, Mender};
use crate::error::FsResult;
use crate::namespace::check::{FindingKind, decodes};
use crate::namespace::key::{self, HeadKey, Kind, LinkAt};
use crate::namespace::record::{
    Entry, Inode, InodeFlags, Piece, SLOT_LEN, SlotRecord, Version, allocated,
};
use crate::namespace::store::Space;
use crate::namespace::tree::View;
use crate::types::{FileKind, Ino};

/// Numbers up to here behind the last known one are taken for lent ones; what is further away is
/// damage.
const NEAR_NUMBERS: u64 = 1 << 40;

/// What an object has.
#[derive(Default)]
struct Found {
    kinds: Vec<Kind>,
    allocated: u64,
    /// Behind its last byte.
    end: u64,
    lost_slots: u64,
}

impl Found {
    fn has(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }

    fn lose(&mut self, head: &HeadKey<'_>) {
        if let (Kind::Extent, Ok(slot)) = (head.kind, head.number()) {
            self.lost_slots += 1;
            self.end = slot.saturating_add(1).saturating_mul(u64::from(SLOT_LEN));
        }
    }

    fn add(&mut self, head: &HeadKey<'_>, version: Version, record: &[u8]) {
        if self.kinds.last() != Some(&head.kind) {
            self.kinds.push(head.kind);
        }
        if head.kind == Kind::Extent
            && let (Ok(slot), Ok(slot_record)) =
                (head.number(), SlotRecord::decode(version, record))
        {
            self.allocated += allocated(&slot_record.pieces);
            let end = slot_record.pieces.last().map_or(0, Piece::end);
            self.end = slot.saturating_mul(u64::from(SLOT_LEN)).saturating_add(u64::from(end));
        }
    }
}

impl Mender<'_> {
    pub(super) fn mend_records(&mut self, view: &View, ino: Ino) -> FsResult<()> {
        let ns = self.ns;
        let is_wild = self.mend_number(ino)?;
        let inode = ns.stored_inode(ino)?.filter(|_| !is_wild);
        let size = match &inode {
            Some(inode) => inode.size,
            None if is_wild => 0,
            None => u64::MAX,
        };
        let mut found = Found::default();
        ns.for_each_of(view, ino, None, &mut |key, value| {
            let Ok(head) = HeadKey::decode(key) else { return Ok(()) };
            match Version::split(value).ok().filter(|split| ns.could_write(view.line, &split.0)) {
                Some((version, _)) if version.whiteout => return Ok(()),
                Some((version, record)) if !is_wild && decodes(&head, version, record).is_ok() => {
                    found.add(&head, version, record);
                    return Ok(());
                }
                _ => {}
            }
            found.lose(&head);
            let path = ns.path(ino);
            match is_wild && !view.has_origin {
                // No snapshot can show it.
                true => self.edits.delete(Space::Head, key),
                false => self.lose(view, key, &head, size)?,
            }
            let detail = format!("{:?} record that cannot be read", head.kind);
            self.note_at(FindingKind::Damaged, ino, path, Fate::Dropped, detail);
            self.commit_some()
        })?;
        self.commit()?;
        match inode {
            _ if is_wild => Ok(()),
            Some(inode) => self.mend_content(view, &inode),
            None => self.make_inode(view, ino, &found),
        }
    }

    /// Lends a number that is in use; whether it is none that can be.
    fn mend_number(&mut self, ino: Ino) -> FsResult<bool> {
        let (object, end) = (ino.object(), self.ns.ids.inodes_end());
        let last = end.saturating_add(NEAR_NUMBERS).min(Ino::RESERVED);
        if object < end || object >= last || self.ns.stored_inode(ino)?.is_none() {
            return Ok(object >= end);
        }
        self.ns.ids.reserve_inodes(object + 1)?;
        self.changed = true;
        self.note(FindingKind::Damaged, ino, Fate::Mended, "a number that was never lent");
        Ok(false)
    }

    /// Removes a record. Content becomes an error instead: it is no hole.
    fn lose(&mut self, view: &View, key: &[u8], head: &HeadKey<'_>, size: u64) -> FsResult<()> {
        match head.kind {
            Kind::Extent => self.lose_slot(view, head.object, head.number()?, size),
            _ => self.edits.write(view, key, None),
        }
    }

    /// An inode for records that have none.
    fn make_inode(&mut self, view: &View, ino: Ino, found: &Found) -> FsResult<()> {
        let is_junction = self.ns.tree.read().junction(view, ino.object()).is_some();
        let is_root = ino == view.root();
        let kind = if is_root || is_junction || found.has(Kind::Dentry) {
            FileKind::Directory
        } else if found.has(Kind::Symlink) {
            FileKind::Symlink
        } else if found.has(Kind::Extent) || found.lost_slots > 0 {
            FileKind::File
        } else {
            // A name may tell what it was.
            return Ok(());
        };
        let inode = Inode {
            size: found.end.max(self.told_ends.get(&ino).copied().unwrap_or(0)),
            allocated: found.allocated,
            parent: if is_root { ino } else { view.root() },
            ..self.blank(view, ino, kind)?
        };
        self.edits.write_inode(view, &inode)?;
        self.tell_made(&inode)
    }

    /// An inode for a name, which is all that is left of it beside what back-references tell.
    pub(super) fn remake(
        &mut self,
        view: &View,
        at: LinkAt,
        entry: &Entry,
    ) -> FsResult<Option<Inode>> {
        let ino = entry.ino;
        let was_lent = (1..self.ns.ids.inodes_end()).contains(&ino.object());
        if !was_lent || entry.kind == FileKind::Symlink || ino == view.root() {
            return Ok(None);
        }
        self.mend_records(view, ino)?;
        if let Some(inode) = self.ns.stored_inode(ino)? {
            return Ok(Some(inode));
        }
        let told = self.told_ends.get(&ino).copied();
        let is_file = entry.kind == FileKind::File;
        let inode = Inode {
            // Nobody knows that it was empty.
            size: if is_file { told.unwrap_or(1) } else { 0 },
            parent: view.lift(Ino(at.dir)),
            cookie: at.cookie,
            ..self.blank(view, ino, entry.kind)?
        };
        self.edits.write_inode(view, &inode)?;
        if is_file && told.is_none() {
            self.lose_slot(view, ino, 0, inode.size)?;
        }
        self.tell_made(&inode)?;
        Ok(Some(inode))
    }

    fn blank(&self, view: &View, ino: Ino, kind: FileKind) -> FsResult<Inode> {
        let owner = self.ns.stored_inode(view.root())?;
        let is_dir = kind == FileKind::Directory;
        Ok(Inode {
            kind,
            perm: if is_dir { 0o700 } else { 0o600 },
            nlink: if is_dir { 2 } else { 1 },
            uid: owner.as_ref().map_or(0, |owner| owner.uid),
            gid: owner.as_ref().map_or(0, |owner| owner.gid),
            ..Inode::new(ino, Version::first(view.node), self.ns.now())
        })
    }

    fn tell_made(&mut self, inode: &Inode) -> FsResult<()> {
        self.commit()?;
        self.touched.insert(inode.ino);
        self.accounted.insert(inode.ino);
        let kind = inode.kind;
        let detail = format!("{kind:?} without an inode: made anew, with another owner and mode");
        self.note(FindingKind::NoInode, inode.ino, Fate::Mended, detail);
        Ok(())
    }

    /// Removes what is left of an object that has neither an inode nor a name.
    pub(super) fn drop_without_inode(&mut self, view: &View, ino: Ino) -> FsResult<()> {
        match self.ns.stored_inode(ino)? {
            Some(_) => Ok(()),
            None => self.drop_rest(view, ino),
        }
    }

    /// Removes what is of no use without an inode.
    fn drop_rest(&mut self, view: &View, ino: Ino) -> FsResult<()> {
        let ns = self.ns;
        ns.for_each_of(view, ino, None, &mut |key, value| {
            if !Version::split(value).is_ok_and(|(version, _)| version.whiteout) {
                self.edits.write(view, key, None)?;
                let detail = "attributes or names of an inode that is gone";
                self.note(FindingKind::NoInode, ino, Fate::Dropped, detail);
            }
            self.commit_some()
        })
    }

    /// Removes an inode with all its records; its names are gone already.
    pub(super) fn drop_inode(&mut self, view: &View, inode: &Inode) -> FsResult<()> {
        let note = key::meta_inode(key::ORPHANS, view.line, inode.ino);
        self.edits.delete(Space::Meta, &note);
        self.edits.write(view, &key::head(view.line, inode.ino, Kind::Inode), None)?;
        self.drop_rest(view, inode.ino)
    }

    /// Whether an ACL that the inode has is gone: what it allowed at most, its group keeps.
    pub(super) fn mend_acls(inode: &mut Inode, present: InodeFlags) {
        if inode.flags.has(InodeFlags::ACCESS_ACL) && !present.has(InodeFlags::ACCESS_ACL) {
            inode.perm &= !0o070;
        }
        for flag in [InodeFlags::ACCESS_ACL, InodeFlags::DEFAULT_ACL] {
            inode.flags.set(flag, present.has(flag));
        }
    }
}
