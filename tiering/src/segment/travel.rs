//! A block on its way from one volume to another, as stored: a frame of no segment, under no id.
//! FORMAT.md, "Block in a stream".
//!
//! On the way out the cells are verified against the digest in the caller's hand, and header and
//! tags are written anew from what they decode to. On the way in nothing is believed before all of
//! it was verified, and the frame is put together anew, so that nothing but what a writer of this
//! program writes reaches a segment.

use bytes::Bytes;

use crate::block::{BlockId, BlockRef};
use crate::error::Result;

use super::entry::{CellRead, IndexEntry};
use super::frame::{Frame, UnverifiedFrameHeader, check_flags, verify_content};
use super::hash::BlockHash;
use super::verified::{hash_cells, split_cell};
use super::{SegmentId, SegmentName, VolumeId, damaged};

/// Whose frames travel: nobody's. No volume has this UUID.
const NOWHERE: SegmentName = SegmentName { volume: VolumeId([0; 16]), id: SegmentId::from_raw(0) };
/// The id of a block that has none.
const NAMELESS: BlockId = BlockId::from_raw(0);

impl CellRead {
    /// The block as it travels, out of the bytes of [`CellRead::stored`] of the whole block.
    /// [`crate::Error::Damaged`] when they, or the entry, are not those of `block`. Tags that are
    /// wrong while the block is right do no harm: they are computed again.
    pub fn export(&self, block: &BlockRef, stored: &[u8]) -> Result<Bytes> {
        let (entry, payload) = self.resolve(stored)?;
        entry.check().map_err(|reason| damaged("block entry", reason))?;
        check_flags(entry.flags)?;
        let whole = self.cells() == (0..entry.cell_count());
        if entry.id != block.id || entry.plain_len != block.len || !whole {
            let reason = format!("it is not the entry of block {}", block.id);
            return Err(damaged("block entry", reason));
        }
        if payload.len() != entry.stored_len as usize {
            return Err(damaged("frame", "cut short"));
        }
        let hash = hash_cells(&entry, payload, |_, _, _| true)?;
        if hash.digest() != block.digest {
            return Err(damaged("block", "digest differs"));
        }
        Ok(reassemble(entry, &hash, payload).export())
    }
}

impl Frame {
    /// The block as it travels.
    pub fn export(mut self) -> Bytes {
        self.set_id(NAMELESS);
        self.stamp(&NOWHERE);
        self.into_bytes().share()
    }

    /// A block that travelled, to be appended as `id`. Every byte is verified; anything before or
    /// behind the block is an error.
    pub fn import(stored: &[u8], id: impl FnOnce() -> Result<BlockId>) -> Result<Self> {
        let header = UnverifiedFrameHeader::read(stored)?.verify(&NOWHERE, 0)?;
        if header.entry.id != NAMELESS {
            return Err(damaged("frame header", "a block in a stream has no id"));
        }
        if stored.len() as u64 != header.entry.frame_len() {
            return Err(damaged("frame", "length contradicts its header"));
        }
        let (payload, hash) = verify_content(&header, stored)?;
        let mut frame = reassemble(header.entry, &hash, payload);
        frame.set_id(id()?);
        Ok(frame)
    }
}

/// A frame of cells that were verified: `payload` holds each with its tag.
fn reassemble(entry: IndexEntry, hash: &BlockHash, payload: &[u8]) -> Frame {
    let (lens, mut rest) = (entry.cell_lens, payload);
    let cells = lens.iter().map(|len| {
        let (cell, _) = split_cell(&mut rest, len as usize).expect("they were split before");
        cell
    });
    Frame::assemble(entry, hash, cells)
}
