//! One block as a segment's index records it: where its frame lies, how it is encoded, and which
//! stored bytes a range of its plaintext needs.
//!
//! An entry is a hint, whether it comes from an index, a frame header or the catalog: the digest
//! in the caller's [`BlockRef`] decides what leaves [`CellRead::open`].

use std::ops::Range;

use crate::block::{BlockDigest, BlockId, BlockRef, CELL_LEN, MAX_BLOCK_LEN};
use crate::encode::{Codec, Filter};
use crate::error::Result;

use super::frame::{FRAME_ALIGN, FRAME_MAX_HEADER_LEN, UnverifiedFrameHeader};
use super::verified::{TAG_LEN, Verified, open_cells};
use super::{align_up, damaged};

/// Cells in the largest block.
pub const MAX_CELLS: usize = MAX_BLOCK_LEN / CELL_LEN;

/// Stored lengths of a block's cells without their tags, each 1 to 65,536; inline, no allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CellLens {
    /// Length less one, so that 65,536 fits.
    minus_one: [u16; MAX_CELLS],
    count: u8,
}

impl CellLens {
    /// No lengths: they stand in the frame header only.
    pub const NONE: Self = Self { minus_one: [0; MAX_CELLS], count: 0 };

    /// From lengths; `None` when there are too many or one is 0 or above 65,536.
    pub fn new(lens: impl IntoIterator<Item = u32>) -> Option<Self> {
        let mut cells = Self::NONE;
        for len in lens {
            let slot = cells.minus_one.get_mut(usize::from(cells.count))?;
            *slot = u16::try_from(len.checked_sub(1)?).ok()?;
            cells.count += 1;
        }
        Some(cells)
    }

    /// From the stored form, lengths less one; `None` when there are too many.
    pub fn from_stored(stored: impl IntoIterator<Item = u16>) -> Option<Self> {
        Self::new(stored.into_iter().map(|len| u32::from(len) + 1))
    }

    /// The stored form: lengths less one.
    pub fn stored(&self) -> &[u16] {
        &self.minus_one[..self.len()]
    }

    /// Number of cells.
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether no lengths are recorded.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Each cell's stored length.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.stored().iter().map(|&len| u32::from(len) + 1)
    }

    /// Stored bytes of the first `count` cells with their tags.
    fn end_of(&self, count: usize) -> u32 {
        self.iter().take(count).map(|len| len + TAG_LEN as u32).sum()
    }
}

impl std::fmt::Debug for CellLens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// One block in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The block.
    pub id: BlockId,
    /// What its plaintext hashes to.
    pub digest: BlockDigest,
    /// Where its frame begins in the segment, a multiple of [`FRAME_ALIGN`].
    pub offset: u64,
    /// Length of the frame's header with extension, cell table and padding.
    pub header_len: u16,
    /// Plaintext bytes, 1 to [`MAX_BLOCK_LEN`].
    pub plain_len: u32,
    /// Bytes of all cells with their tags.
    pub stored_len: u32,
    /// Codec of the cells that are shorter than their plaintext.
    pub codec: Codec,
    /// Filter of those cells.
    pub filter: Filter,
    /// Level passed to the codec.
    pub level: u8,
    /// The frame's flags.
    pub flags: u16,
    /// Length of each cell; empty when only the frame header knows.
    pub cell_lens: CellLens,
}

impl IndexEntry {
    /// Cells of the block.
    pub const fn cell_count(&self) -> usize {
        (self.plain_len as usize).div_ceil(CELL_LEN)
    }

    /// Bytes the frame takes in the segment, padding included.
    pub const fn frame_len(&self) -> u64 {
        align_up(self.header_len as u64 + self.stored_len as u64, FRAME_ALIGN as u64)
    }

    /// Where the frame lies in the segment.
    pub const fn frame_range(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.frame_len())
    }

    /// Where the cells lie in the segment.
    pub const fn payload_range(&self) -> Range<u64> {
        let start = self.offset.saturating_add(self.header_len as u64);
        start..start.saturating_add(self.stored_len as u64)
    }

    /// What an extent names the block by.
    pub const fn block_ref(&self) -> BlockRef {
        BlockRef { id: self.id, digest: self.digest, len: self.plain_len }
    }

    /// Plan for reading `plain`, a range of the block's plaintext, widened to whole cells.
    /// A range that is empty or ends past the block is an error.
    pub fn cell_range(&self, plain: Range<u32>) -> Result<CellRead> {
        if plain.start >= plain.end || plain.end > self.plain_len {
            return Err(damaged("block range", format!("{plain:?} of {} bytes", self.plain_len)));
        }
        let first = plain.start as usize / CELL_LEN;
        let last = (plain.end as usize).div_ceil(CELL_LEN);
        Ok(CellRead { entry: self.clone(), cells: first..last })
    }

    /// Plan for reading the whole block.
    pub fn whole(&self) -> CellRead {
        CellRead { entry: self.clone(), cells: 0..self.cell_count() }
    }

    /// Refuses what no writer produces, so that arithmetic on the fields cannot go wrong.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.plain_len == 0 || self.plain_len as usize > MAX_BLOCK_LEN {
            return Err("plaintext length out of range");
        }
        if !self.offset.is_multiple_of(FRAME_ALIGN as u64) || self.offset > 1 << 48 {
            return Err("frame offset out of range");
        }
        if usize::from(self.header_len) > FRAME_MAX_HEADER_LEN
            || !usize::from(self.header_len).is_multiple_of(FRAME_ALIGN)
            || self.header_len == 0
        {
            return Err("frame header length out of range");
        }
        let cells = self.cell_count();
        let least = cells * (1 + TAG_LEN);
        let most = self.plain_len as usize + cells * TAG_LEN;
        if (self.stored_len as usize) < least || self.stored_len as usize > most {
            return Err("stored length out of range");
        }
        if self.cell_lens.is_empty() {
            return Ok(());
        }
        if self.cell_lens.len() != cells {
            return Err("cell count contradicts plaintext length");
        }
        if self.cell_lens.end_of(cells) != self.stored_len {
            return Err("cell lengths contradict stored length");
        }
        let fits = self.cell_lens.iter().enumerate().all(|(i, len)| len <= self.plain_cell_len(i));
        if fits { Ok(()) } else { Err("a cell is longer than its plaintext") }
    }

    /// Plaintext length of cell `index`.
    pub(super) const fn plain_cell_len(&self, index: usize) -> u32 {
        let start = (index * CELL_LEN) as u32;
        let rest = self.plain_len.saturating_sub(start);
        if rest < CELL_LEN as u32 { rest } else { CELL_LEN as u32 }
    }
}

/// Which stored bytes a read needs, and the only way from them to plaintext.
#[derive(Clone, Debug)]
pub struct CellRead {
    entry: IndexEntry,
    cells: Range<usize>,
}

impl CellRead {
    /// The bytes of the segment to fetch: the cells with their tags, or the whole frame when the
    /// cell lengths stand only in its header (frames are small then).
    pub fn stored(&self) -> Range<u64> {
        if self.entry.cell_lens.is_empty() {
            return self.entry.frame_range();
        }
        let payload = self.entry.payload_range().start;
        let lens = &self.entry.cell_lens;
        payload + u64::from(lens.end_of(self.cells.start))
            ..payload + u64::from(lens.end_of(self.cells.end))
    }

    /// The plaintext that [`CellRead::open`] yields, in bytes of the block.
    pub fn plain(&self) -> Range<u32> {
        let start = (self.cells.start * CELL_LEN) as u32;
        start..self.entry.plain_len.min((self.cells.end * CELL_LEN) as u32)
    }

    /// The cells that are read.
    pub fn cells(&self) -> Range<usize> {
        self.cells.clone()
    }

    /// Decodes the bytes of [`CellRead::stored`] and verifies them against `block`.
    /// [`crate::Error::Damaged`] when they, or the entry, are not that block's.
    pub fn open(&self, block: &BlockRef, stored: &[u8]) -> Result<Verified> {
        let (entry, cells) = self.resolve(stored)?;
        open_cells(&entry, block, self.cells.clone(), cells)
    }

    /// The entry with its cell lengths, and the cells that are read, out of the bytes of
    /// [`CellRead::stored`].
    pub(super) fn resolve<'a>(&self, stored: &'a [u8]) -> Result<(IndexEntry, &'a [u8])> {
        if !self.entry.cell_lens.is_empty() {
            return Ok((self.entry.clone(), stored));
        }
        let header = UnverifiedFrameHeader::read(stored)?;
        let entry = header.hint(self.entry.offset)?;
        if entry.plain_len != self.entry.plain_len {
            return Err(damaged("frame", "plaintext length contradicts the index"));
        }
        let within = Self { entry: entry.clone(), cells: self.cells.clone() }.stored();
        let part = stored.get(
            (within.start - self.entry.offset) as usize..(within.end - self.entry.offset) as usize,
        );
        let part = part.ok_or_else(|| damaged("frame", "cells end past the frame"))?;
        Ok((entry, part))
    }
}
