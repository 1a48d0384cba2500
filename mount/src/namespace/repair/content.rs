//! Content that is gone: an error to read wherever it showed, and a hole nowhere.
//!
//! What blocks refer back from tells of it to the slot and to the node that wrote it, so that it is
//! lost in the very version that is gone, for all who showed that and for nobody else. Bytes without
//! a block are told only by the sum in their inode, and only where one slot can have held them.
//! A back-reference of what is lost goes, but its block is held as long as what the repair kept
//! aside is, by a back-reference of nobody: see [`Backref::hold`].

use std::collections::HashSet;

use bytes::Bytes;
use firn_tiering::{BlockDigest, BlockId, BlockRef};

use super::{Fate, Mender};
use crate::error::FsResult;
use crate::namespace::Namespace;
use crate::namespace::check::{FindingKind, MAX_SUSPECTS, past_damage};
use crate::namespace::key::{self, Backref, HeadKey, Kind, Line, Node};
use crate::namespace::record::{Content, Inode, Piece, SLOT_LEN, SlotRecord, Version, allocated};
use crate::namespace::store::{Batch, Durability, Space};
use crate::namespace::tree::View;
use crate::namespace::txn::block_ids;
use crate::types::{FileKind, Ino};

/// The block of content that is lost: of an epoch that no volume has, so that none holds it.
const LOST: BlockId = BlockId::from_raw((1 << 48) - 1);

/// Holds that one batch takes back.
const HOLDS_PER_BATCH: usize = 4096;

/// The extents that a view shows of a file.
#[derive(Default)]
struct Extents {
    allocated: u64,
    last: Option<u64>,
}

impl Extents {
    /// The slot that must have held what the inode counts beyond them: the last one by the length of
    /// what is missing, or the only one.
    fn lost_slot(&self, inode: &Inode) -> Option<u64> {
        let missing = self.missing(inode)?;
        let last = inode.size.checked_sub(1)? / u64::from(SLOT_LEN);
        let is_absent = self.last.is_none_or(|present| present < last);
        let is_only = last == 0 && self.last.is_none();
        let fits = missing == inode.size - last * u64::from(SLOT_LEN);
        (is_only || is_absent && fits).then_some(last)
    }

    fn missing(&self, inode: &Inode) -> Option<u64> {
        inode.allocated.checked_sub(self.allocated).filter(|&missing| missing > 0)
    }
}

/// The bytes of a file of that size that lie in a slot.
fn len_in(slot: u64, size: u64) -> u32 {
    let left = size.saturating_sub(slot.saturating_mul(u64::from(SLOT_LEN)));
    left.min(u64::from(SLOT_LEN)) as u32
}

/// The record of a slot whose content is lost.
fn lost_record(version: Version, len: u32) -> FsResult<Vec<u8>> {
    let block = BlockRef { id: LOST, digest: BlockDigest([0; 16]), len: SLOT_LEN };
    let piece = Piece { start: 0, len, content: Content::Block { block, offset: 0 } };
    Ok(SlotRecord::encode(version, std::slice::from_ref(&piece))?)
}

impl Mender<'_> {
    /// Follows what stale back-references tell, before anything is judged by what is there.
    pub(super) fn mend_told(&mut self) -> FsResult<()> {
        let ns = self.ns;
        let mut pending = HashSet::new();
        ns.for_each(Space::Backrefs, &mut |key, _| {
            let Ok(told) = Backref::decode(key) else { return Ok(()) };
            if told.is_hold() || ns.uses(&told)? {
                return Ok(());
            }
            // What one back-reference changed, the next one of the slot must see.
            if !pending.insert((told.ino, told.slot))
                || pending.len() >= super::edits::CHANGES_PER_BATCH
            {
                self.commit()?;
                pending = HashSet::from([(told.ino, told.slot)]);
            }
            past_damage(self.mend_as_told(&told))?;
            Ok(())
        })?;
        self.commit()
    }

    /// Follows what a stale back-reference tells of the slot that it names.
    fn mend_as_told(&mut self, told: &Backref) -> FsResult<bool> {
        let ns = self.ns;
        let Some(line) = ns.tree.read().line_of(told.node) else { return Ok(false) };
        let key = key::head_numbered(line, told.ino, Kind::Extent, told.slot);
        let older = self.edits.older_nodes(line, &key)?;
        let Some(value) = ns.gate.store().get(Space::Head, &key)? else {
            return match older.iter().find(|&&older| older > told.node) {
                Some(&successor) => self.lose_older(told, line, &older, successor),
                None => self.lose_newest(told, line, &older),
            };
        };
        let Ok(newest) = SlotRecord::decode_value(&value) else { return Ok(false) };
        if self.is_misdated(told, &newest, &older)? {
            return self.redate(told, &key, &newest, !older.is_empty());
        }
        let is_older = newest.version.node > told.node && !older.contains(&told.node);
        let successor = older.iter().copied().find(|&older| older > told.node);
        match is_older {
            true => self.lose_older(told, line, &older, successor.unwrap_or(newest.version.node)),
            false => Ok(false),
        }
    }

    /// The newest version of a slot is gone. What is below it must not show instead.
    fn lose_newest(&mut self, told: &Backref, line: Line, older: &[Node]) -> FsResult<bool> {
        let ns = self.ns;
        let view = ns.tree.read().writable_view(line);
        let len = match view.map(|view| view.lift(told.ino)) {
            Some(ino) => match ns.stored_inode(ino)? {
                Some(file) if file.kind == FileKind::File => len_in(told.slot, file.size),
                Some(_) => 0,
                None => {
                    self.told_end_of(ino, told.slot);
                    0
                }
            },
            None => SLOT_LEN,
        };
        if len == 0 {
            return Ok(false);
        }
        let key = key::head_numbered(line, told.ino, Kind::Extent, told.slot);
        let shadows = !older.is_empty() || self.is_below(line, &key)?;
        let version = Version { node: told.node, shadows, whiteout: false };
        self.edits.put(Space::Head, &key, lost_record(version, len)?);
        self.tell_lost(told);
        Ok(true)
    }

    /// A version is gone that readers saw before the next one was written.
    fn lose_older(
        &mut self,
        told: &Backref,
        line: Line,
        older: &[Node],
        successor: Node,
    ) -> FsResult<bool> {
        let readers = self.ns.tree.read().readers(line);
        if !readers.iter().any(|&reader| told.node <= reader && reader < successor) {
            return Ok(false);
        }
        let key = key::head_numbered(line, told.ino, Kind::Extent, told.slot);
        let shadows = older.iter().any(|&older| older < told.node) || self.is_below(line, &key)?;
        self.put_older(
            &key,
            told.ino,
            Version { node: told.node, shadows, whiteout: false },
            SLOT_LEN,
        )?;
        self.tell_lost(told);
        Ok(true)
    }

    /// Puts lost content between the versions of a slot.
    fn put_older(&mut self, key: &[u8], object: Ino, version: Version, len: u32) -> FsResult<()> {
        let value = lost_record(version, len)?;
        self.edits.put(Space::History, &key::history(key, version.node), value);
        self.edits.put(Space::Born, &key::born(version.node, object, Kind::Extent), Bytes::new());
        Ok(())
    }

    /// Whether the newest version of a slot was written by the node that a back-reference of its
    /// block names: all of its blocks say so, and none what it says itself.
    fn is_misdated(&self, told: &Backref, newest: &SlotRecord, older: &[Node]) -> FsResult<bool> {
        let store = self.ns.gate.store();
        let blocks = block_ids(&newest.pieces);
        if !blocks.contains(&told.block) || older.last().is_some_and(|&older| older >= told.node) {
            return Ok(false);
        }
        for block in blocks {
            let by = |node| Backref { block, node, ..*told }.encode();
            if store.get(Space::Backrefs, &by(newest.version.node))?.is_some()
                || store.get(Space::Backrefs, &by(told.node))?.is_none()
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn redate(
        &mut self,
        told: &Backref,
        key: &[u8],
        newest: &SlotRecord,
        has_older: bool,
    ) -> FsResult<bool> {
        let said = newest.version.node;
        let shadows = newest.version.shadows || has_older;
        let version = Version { node: told.node, shadows, whiteout: false };
        self.edits.put(Space::Head, key, SlotRecord::encode(version, &newest.pieces)?);
        let ino = self.ns.shown(told.node, told.ino);
        let detail = format!("MiB {} is of node {}, not {}", told.slot, told.node.0, said.0);
        self.note(FindingKind::Versions, ino, Fate::Mended, detail);
        Ok(true)
    }

    /// Whether the lines where a line began have something for a key, or may have.
    fn is_below(&self, line: Line, key: &[u8]) -> FsResult<bool> {
        let origin = self.ns.tree.read().origin(line);
        match origin {
            Some(origin) => Ok(!matches!(past_damage(self.ns.visible(origin, key))?, Some(None))),
            None => Ok(false),
        }
    }

    fn told_end_of(&mut self, ino: Ino, slot: u64) {
        let end = slot.saturating_add(1).saturating_mul(u64::from(SLOT_LEN));
        if self.told_ends.len() < MAX_SUSPECTS || self.told_ends.contains_key(&ino) {
            let known = self.told_ends.entry(ino).or_default();
            *known = end.max(*known);
        } else {
            self.is_partial = true;
        }
    }

    fn tell_lost(&mut self, told: &Backref) {
        let ino = self.ns.shown(told.node, told.ino);
        self.touched.insert(ino);
        let detail = format!("the content of MiB {} is gone", told.slot);
        self.note(FindingKind::Content, ino, Fate::Dropped, detail);
    }

    /// Content that no block tells of: what the inode counts beyond what there is.
    pub(super) fn mend_content(&mut self, view: &View, inode: &Inode) -> FsResult<()> {
        if inode.kind != FileKind::File {
            return Ok(());
        }
        self.accounted.insert(inode.ino);
        let extents = self.extents(view, inode.ino)?;
        let Some(missing) = extents.missing(inode) else { return Ok(()) };
        let Some(slot) = extents.lost_slot(inode) else {
            let detail = format!(
                "the inode counts {missing} bytes that no record has: if they were content, they \
                 are zeros now"
            );
            self.note(FindingKind::Content, inode.ino, Fate::Dropped, detail);
            return Ok(());
        };
        self.lose_slot(view, inode.ino, slot, inode.size)?;
        let detail = format!("the content of MiB {slot} is gone");
        self.note(FindingKind::Content, inode.ino, Fate::Dropped, detail);
        let snapshots = self.ns.tree.read().snapshot_views();
        for of in snapshots.iter().filter(|of| of.line == view.line) {
            self.lose_in_snapshot(of, inode.ino)?;
        }
        Ok(())
    }

    /// The same for a snapshot, whose line has a newer version by now.
    fn lose_in_snapshot(&mut self, of: &View, object: Ino) -> FsResult<()> {
        let ino = of.lift(Ino(object.object()));
        let Some(inode) = self.ns.stored_inode(ino)? else { return Ok(()) };
        let Some(slot) = self.extents(of, ino)?.lost_slot(&inode) else { return Ok(()) };
        let key = key::head_numbered(of.line, ino, Kind::Extent, slot);
        let shadows = self.is_below(of.line, &key)?;
        let version = Version { node: of.limit, shadows, whiteout: false };
        self.put_older(&key, ino, version, len_in(slot, inode.size))
    }

    fn extents(&self, view: &View, ino: Ino) -> FsResult<Extents> {
        let mut found = Extents::default();
        self.ns.for_each_of(view, ino, Some(Kind::Extent), &mut |key, value| {
            // What cannot be read is an error already.
            let pieces = SlotRecord::decode_value(value).map(|record| record.pieces);
            let sum = pieces.as_ref().map_or(u64::from(SLOT_LEN), |pieces| allocated(pieces));
            if sum > 0 {
                found.allocated += sum;
                found.last = Some(HeadKey::decode(key)?.number()?);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Makes the content of a slot an error in the live state; behind the end of the file, nothing.
    pub(super) fn lose_slot(
        &mut self,
        view: &View,
        object: Ino,
        slot: u64,
        size: u64,
    ) -> FsResult<()> {
        let key = key::head_numbered(view.line, object, Kind::Extent, slot);
        match len_in(slot, size) {
            0 => self.edits.write(view, &key, None),
            len => self.edits.write(view, &key, Some(&|version| lost_record(version, len))),
        }
    }

    /// Takes away the back-references that tell nothing more, and holds their blocks.
    pub(super) fn mend_stale_backrefs(&mut self) -> FsResult<()> {
        let ns = self.ns;
        ns.for_each(Space::Backrefs, &mut |key, _| {
            let Ok(backref) = Backref::decode(key) else { return Ok(()) };
            if backref.is_hold() || ns.uses(&backref)? {
                return Ok(());
            }
            let ino = ns.shown(backref.node, backref.ino);
            if past_damage(self.mend_as_told(&backref))? == Some(true) {
                self.commit()?;
            } else if self.is_partial && ns.stored_inode(ino)?.is_none() {
                // Its inode may yet be made anew, in the next round.
                self.changed = true;
                return Ok(());
            }
            self.edits.delete(Space::Backrefs, key);
            self.hold(backref.block);
            let detail = format!("block {} in slot {}", backref.block, backref.slot);
            self.note(FindingKind::StaleBackref, ino, Fate::Mended, detail);
            self.commit_some()
        })?;
        self.commit()
    }

    /// Holds a block for what was kept aside.
    pub(super) fn hold(&mut self, block: BlockId) {
        self.edits.put(Space::Backrefs, &Backref::hold(block).encode(), Bytes::new());
    }
}

impl Namespace {
    /// Gives up the blocks that earlier repairs held.
    pub(super) fn release_holds(&self) -> FsResult<()> {
        let mut batch = Batch::new();
        self.for_each(Space::Backrefs, &mut |key, _| {
            if Backref::decode(key).is_ok_and(|backref| backref.is_hold()) {
                batch.delete(Space::Backrefs, key);
            }
            if batch.len() >= HOLDS_PER_BATCH {
                self.gate.commit(std::mem::take(&mut batch), Durability::Buffered)?;
            }
            Ok(())
        })?;
        match batch.is_empty() {
            true => Ok(()),
            false => self.gate.commit(batch, Durability::Buffered),
        }
    }
}
