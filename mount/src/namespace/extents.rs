//! Extents: reading slots, and cutting files short in bounded batches.

use std::sync::Arc;

use firn_tiering::BlockId;

use super::check::past_damage;
use super::key::{self, HeadKey, Kind, Line, Node};
use super::record::{Inode, Origin, Piece, SLOT_LEN, SlotRecord, pieces_of};
use super::store::{Durability, Space};
use super::view::behind;
use super::{Namespace, Txn};
use crate::error::FsResult;
use crate::types::Ino;

/// Most slots that one batch removes.
const SLOTS_PER_BATCH: usize = 512;

/// Some slots of a file, in order.
#[derive(Clone, Debug, Default)]
pub struct SlotPage {
    /// Slots that hold pieces.
    pub slots: Vec<(u64, SlotRecord)>,
    /// Where to continue; `None` when the file has no later slot in the range.
    pub next: Option<u64>,
}

impl Namespace {
    /// The pieces of the slot `slot` (the file's bytes from `slot * SLOT_LEN`); none for a hole.
    pub fn slot(&self, ino: Ino, slot: u64) -> FsResult<Vec<Piece>> {
        Ok(self.stored_slot(ino, slot)?.map_or_else(Vec::new, |record| record.pieces))
    }

    pub(super) fn stored_slot(&self, ino: Ino, slot: u64) -> FsResult<Option<SlotRecord>> {
        let view = self.view(ino)?;
        let key = key::head_numbered(view.line, ino, Kind::Extent, slot);
        let found = self.read(&view, &key)?;
        let decode = |(version, record): (_, bytes::Bytes)| SlotRecord::decode(version, &record);
        Ok(found.map(decode).transpose()?)
    }

    /// The pieces of the version of a slot next older than the one that `node` wrote, by a head
    /// key: on the same line, or where that began.
    pub(super) fn pieces_below(&self, line: Line, node: Node, key: &[u8]) -> FsResult<Vec<Piece>> {
        let older = match node.0.checked_sub(1) {
            Some(before) => past_damage(self.older(Origin { line, node: Node(before) }, key))?,
            None => Some(None),
        };
        match older {
            None => Ok(Vec::new()),
            Some(Some((_, value))) => Ok(pieces_of(&value)),
            Some(None) => self.pieces_inherited(line, key),
        }
    }

    /// The pieces of a slot, by a head key, that a line shows while it has no version of its own.
    pub(super) fn pieces_inherited(&self, line: Line, key: &[u8]) -> FsResult<Vec<Piece>> {
        let Some(origin) = self.origin(line) else { return Ok(Vec::new()) };
        let below = past_damage(self.visible(origin, key))?.flatten();
        Ok(below.map_or_else(Vec::new, |(_, value)| pieces_of(&value)))
    }

    fn origin(&self, line: Line) -> Option<Origin> {
        self.tree.read().origin(line)
    }

    /// Slots from `from` up to `to` (exclusive) that are not holes, at most `limit` at a time.
    pub fn slots(&self, ino: Ino, from: u64, to: u64, limit: usize) -> FsResult<SlotPage> {
        let view = self.view(ino)?;
        let start = key::head_numbered(view.line, ino, Kind::Extent, from);
        let end = match to {
            u64::MAX => key::head_end(view.line, ino, Kind::Extent).to_vec(),
            to => key::head_numbered(view.line, ino, Kind::Extent, to).to_vec(),
        };
        let page = self.scan(&view, &start, &end, limit)?;
        let mut slots = Vec::with_capacity(page.items.len());
        for item in &page.items {
            let record = SlotRecord::decode(item.version, item.record()?)?;
            slots.push((HeadKey::decode(&item.key)?.number()?, record));
        }
        // What is next is the key of the last slot that was looked at and one byte more.
        let next = match page.next {
            Some(next) => HeadKey::decode(&next[..next.len() - 1])?.number()?.checked_add(1),
            None => None,
        };
        Ok(SlotPage { slots, next })
    }

    /// Stores `inode`, whose `size` is the new end of the file, and removes all extents behind
    /// that end. The caller holds the inode's lock. Returns the inode as stored, and the blocks
    /// to which nothing refers any more, as [`super::Committed`] does.
    ///
    /// The new size is committed first (in the same batch as the extents, if they are few); a
    /// crash in between is finished by the next open.
    pub fn truncate(
        &self,
        inode: Inode,
        durability: Durability,
    ) -> FsResult<(Arc<Inode>, Vec<BlockId>)> {
        self.cut(inode, durability, false)
    }

    fn cut(
        &self,
        mut inode: Inode,
        durability: Durability,
        mut noted: bool,
    ) -> FsResult<(Arc<Inode>, Vec<BlockId>)> {
        let mut unreferenced = Vec::new();
        let mut from = inode.size / u64::from(SLOT_LEN);
        loop {
            let mut txn = self.begin();
            let next = self.cut_some(&mut txn, &mut inode, from)?;
            let stored = txn.put_inode(inode)?;
            if next.is_some() && !noted {
                txn.add_truncation(stored.ino)?;
                noted = true;
            } else if next.is_none() && noted {
                txn.remove_truncation(stored.ino)?;
            }
            let last = next.is_none();
            let how = if last { durability } else { Durability::Buffered };
            unreferenced.extend(txn.commit(how)?.unreferenced);
            let Some(next) = next else { return Ok((stored, unreferenced)) };
            from = next;
            inode = Inode::clone(&stored);
        }
    }

    /// Removes what lies behind the end of `inode` from slot `from` on, up to a batch full;
    /// returns where to continue.
    fn cut_some(&self, txn: &mut Txn<'_>, inode: &mut Inode, from: u64) -> FsResult<Option<u64>> {
        if inode.allocated == 0 {
            return Ok(None);
        }
        let boundary = inode.size / u64::from(SLOT_LEN);
        let keep = (inode.size % u64::from(SLOT_LEN)) as u32;
        let page = self.slots(inode.ino, from, u64::MAX, SLOTS_PER_BATCH)?;
        for (slot, record) in page.slots {
            let pieces: Vec<_> = if slot == boundary {
                record.pieces.iter().filter_map(|piece| piece.cut(keep)).collect()
            } else {
                Vec::new()
            };
            if record.pieces != pieces {
                txn.replace_slot(inode, slot, Some(record), &pieces)?;
            }
        }
        Ok(page.next)
    }

    /// Removes the first slot of an inode that nobody uses; returns where to continue. Most files
    /// have no other, and finding that out by its size is cheaper than by a scan.
    pub(super) fn remove_first_slot(
        &self,
        txn: &mut Txn<'_>,
        inode: &mut Inode,
    ) -> FsResult<Option<u64>> {
        if inode.allocated == 0 {
            return Ok(None);
        }
        if let Some(record) = self.stored_slot(inode.ino, 0)? {
            txn.replace_slot(inode, 0, Some(record), &[])?;
        }
        Ok((inode.allocated > 0).then_some(1))
    }

    /// Removes up to a batch full of extents of an inode that nobody uses, from slot `from` on;
    /// returns where to continue.
    pub(super) fn remove_slots(
        &self,
        txn: &mut Txn<'_>,
        inode: &mut Inode,
        from: u64,
    ) -> FsResult<Option<u64>> {
        let page = self.slots(inode.ino, from, u64::MAX, SLOTS_PER_BATCH)?;
        for (slot, record) in page.slots {
            txn.replace_slot(inode, slot, Some(record), &[])?;
        }
        Ok(page.next)
    }

    /// Finishes what a crash interrupted.
    pub(super) fn finish_truncations(&self) -> FsResult<()> {
        let mut from = vec![key::TRUNCATIONS];
        let end = [key::TRUNCATIONS + 1];
        loop {
            let page = self.gate.store().page(Space::Meta, &from, Some(&end), 64)?;
            for (key, _) in &page.items {
                let (line, object) = key::meta_inode_decode(key)?;
                // What a destroyed dataset left goes with the rest of its line.
                let Ok(view) = self.live_view(line) else { continue };
                let ino = view.lift(object);
                let _guard = self.lock(&[ino]);
                match self.find_inode(ino)? {
                    Some(inode) => {
                        self.cut(Inode::clone(&inode), Durability::Buffered, true)?;
                    }
                    None => {
                        let mut txn = self.begin();
                        txn.remove_truncation(ino)?;
                        txn.commit(Durability::Buffered)?;
                    }
                }
            }
            match page.items.last().filter(|_| page.more) {
                Some((last, _)) => from = behind(last),
                None => return Ok(()),
            }
        }
    }
}
