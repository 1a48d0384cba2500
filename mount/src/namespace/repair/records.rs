//! The records of one object: what does not decode goes, what has no inode gets one, and content
//! that is gone is an error to read.

use firn_tiering::{BlockDigest, BlockId, BlockRef};

use super::{Fate, Mender};
use crate::error::FsResult;
use crate::namespace::check::{FindingKind, decodes, past_damage};
use crate::namespace::key::{self, HeadKey, Kind};
use crate::namespace::record::{
    Content, Inode, InodeFlags, Piece, SLOT_LEN, SlotRecord, Version, allocated,
};
use crate::namespace::store::Space;
use crate::namespace::tree::View;
use crate::types::{FileKind, Ino};

/// Most slots that are marked as lost in one file, each of which may have been a hole.
const MAX_LOST_SLOTS: u64 = 4096;

/// Numbers up to here behind the last known one are taken for lent ones; what is further away is
/// damage.
const NEAR_NUMBERS: u64 = 1 << 40;

/// The block of content that is lost: of an epoch that no volume has, so that none holds it.
const LOST: BlockId = BlockId::from_raw((1 << 48) - 1);

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
            Some(inode) => self.mend_content(view, &inode, &found),
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

    fn lose_slot(&mut self, view: &View, object: Ino, slot: u64, size: u64) -> FsResult<()> {
        let key = key::head_numbered(view.line, object, Kind::Extent, slot);
        let left = size.saturating_sub(slot.saturating_mul(u64::from(SLOT_LEN)));
        let len = left.min(u64::from(SLOT_LEN)) as u32;
        if len == 0 {
            return self.edits.write(view, &key, None);
        }
        let block = BlockRef { id: LOST, digest: BlockDigest([0; 16]), len: SLOT_LEN };
        let piece = Piece { start: 0, len, content: Content::Block { block, offset: 0 } };
        self.edits.write(
            view,
            &key,
            Some(&|version| Ok(SlotRecord::encode(version, std::slice::from_ref(&piece))?)),
        )
    }

    /// Content that is not there: what blocks refer back from, and what the inode counts beyond
    /// what there is, which is in one of the slots without a record.
    fn mend_content(&mut self, view: &View, inode: &Inode, found: &Found) -> FsResult<()> {
        if inode.kind != FileKind::File {
            return Ok(());
        }
        let ino = inode.ino;
        let mut lost = self.told_slots(view, ino)?;
        let missing = inode.allocated.saturating_sub(found.allocated);
        if missing > 0 {
            let is_explained = missing <= found.lost_slots * u64::from(SLOT_LEN);
            if !lost.is_empty() || !is_explained {
                match self.absent_slots(view, inode)? {
                    Some(absent) => lost = absent,
                    None => return self.lose_slots(view, inode, &lost),
                }
            }
            self.accounted.insert(ino);
        }
        self.lose_slots(view, inode, &lost)
    }

    fn lose_slots(&mut self, view: &View, inode: &Inode, slots: &[u64]) -> FsResult<()> {
        for &slot in slots {
            self.lose_slot(view, inode.ino, slot, inode.size)?;
            let detail = format!("the content of MiB {slot} is gone, or may be");
            self.note(FindingKind::Content, inode.ino, Fate::Dropped, detail);
            self.commit_some()?;
        }
        Ok(())
    }

    /// Slots from which blocks were referred to and that have no record, not even of a removal.
    fn told_slots(&self, view: &View, ino: Ino) -> FsResult<Vec<u64>> {
        let mut told = Vec::new();
        for &(_, slot) in self.lost_slots.range((ino, 0)..=(ino, u64::MAX)) {
            let key = key::head_numbered(view.line, ino, Kind::Extent, slot);
            if matches!(past_damage(self.ns.read(view, &key))?, Some(None)) {
                told.push(slot);
            }
        }
        Ok(told)
    }

    /// The slots of a file without a record; `None` if there are too many.
    fn absent_slots(&self, view: &View, inode: &Inode) -> FsResult<Option<Vec<u64>>> {
        let end = inode.size.div_ceil(u64::from(SLOT_LEN));
        let (mut next, mut absent) = (0, Vec::new());
        let mut is_too_many = false;
        let mut skip_to = |slot: u64, next: &mut u64| {
            let gap = *next..slot.min(end);
            is_too_many |= gap.end.saturating_sub(gap.start) + absent.len() as u64 > MAX_LOST_SLOTS;
            if !is_too_many {
                absent.extend(gap);
            }
            *next = slot.saturating_add(1);
        };
        self.ns.for_each_of(view, inode.ino, Some(Kind::Extent), &mut |key, value| {
            let is_gone = Version::split(value).is_ok_and(|(version, _)| version.whiteout);
            if let (false, Ok(slot)) = (is_gone, HeadKey::decode(key)?.number()) {
                skip_to(slot, &mut next);
            }
            Ok(())
        })?;
        skip_to(end, &mut next);
        Ok((!is_too_many).then_some(absent))
    }

    /// An inode for records that have none.
    fn make_inode(&mut self, view: &View, ino: Ino, found: &Found) -> FsResult<()> {
        let ns = self.ns;
        let is_junction = ns.tree.read().junction(view, ino.object()).is_some();
        let is_root = ino == view.root();
        let kind = if is_root || is_junction || found.has(Kind::Dentry) {
            FileKind::Directory
        } else if found.has(Kind::Symlink) {
            FileKind::Symlink
        } else if found.has(Kind::Extent) || found.lost_slots > 0 {
            FileKind::File
        } else {
            return self.drop_rest(view, ino);
        };
        let told = self.told_slots(view, ino)?;
        let told_end = told.last().map_or(0, |slot| (slot + 1).saturating_mul(u64::from(SLOT_LEN)));
        let owner = ns.stored_inode(view.root())?;
        let is_dir = kind == FileKind::Directory;
        let inode = Inode {
            kind,
            perm: if is_dir { 0o700 } else { 0o600 },
            nlink: if is_dir { 2 } else { 1 },
            uid: owner.as_ref().map_or(0, |owner| owner.uid),
            gid: owner.as_ref().map_or(0, |owner| owner.gid),
            size: found.end.max(told_end),
            allocated: found.allocated,
            parent: if is_root { ino } else { view.root() },
            ..Inode::new(ino, Version::first(view.node), ns.now())
        };
        self.edits.write_inode(view, &inode)?;
        if kind == FileKind::File {
            self.lose_slots(view, &inode, &told)?;
        }
        self.commit()?;
        self.touched.insert(ino);
        self.accounted.insert(ino);
        if !is_dir {
            self.made.insert(ino);
        }
        let detail = format!("{kind:?} without an inode: made anew, with another owner and mode");
        self.note(FindingKind::NoInode, ino, Fate::Mended, detail);
        Ok(())
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
