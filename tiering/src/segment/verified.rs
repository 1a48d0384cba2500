//! The one way from stored bytes to plaintext: decode, hash, compare, and only then hand out.
//!
//! [`Verified`] has no other constructor, so bytes that nobody checked cannot leave this module.
//! Whole blocks are checked against the digest itself, parts against the tags behind their cells.
//! The one exception is a benchmark that is to show what this costs ([`super::unprotected`]).

use std::ops::Range;

use bytes::Bytes;

use crate::block::{BlockDigest, BlockRef};
use crate::buffers::Buffer;
use crate::encode::decode_cell_into;
use crate::error::Result;

use super::entry::IndexEntry;
use super::hash::{BlockHash, cell_cv, cell_tag, root_of};
use super::unprotected::is_unprotected;
use super::{damaged, frame};

/// Bytes of the tag behind each cell.
pub const TAG_LEN: usize = 16;

/// Plaintext of a block that matched the digest it was asked for by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    start: u32,
    bytes: Bytes,
}

impl Verified {
    /// Which bytes of the block these are.
    pub fn range(&self) -> Range<u32> {
        self.start..self.start + self.bytes.len() as u32
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The bytes.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The part `range`, in bytes of the block, without copying; `None` when it is not all here.
    pub fn slice(&self, range: Range<u32>) -> Option<Bytes> {
        let start = range.start.checked_sub(self.start)? as usize;
        let end = range.end.checked_sub(self.start)? as usize;
        (start <= end && end <= self.bytes.len()).then(|| self.bytes.slice(start..end))
    }
}

/// Decodes and verifies `cells` of the block, `stored` being those cells with their tags.
///
/// [`crate::Error::Damaged`] when anything does not fit: the entry is another block's, a cell does
/// not decode, or a digest differs.
pub fn open_cells(
    entry: &IndexEntry,
    block: &BlockRef,
    cells: Range<usize>,
    stored: &[u8],
) -> Result<Verified> {
    entry.check().map_err(|reason| damaged("block entry", reason))?;
    if entry.id != block.id || entry.plain_len != block.len {
        return Err(damaged("block entry", format!("it is not the entry of block {}", block.id)));
    }
    frame::check_flags(entry.flags)?;
    let count = entry.cell_count();
    if cells.start >= cells.end || cells.end > count || entry.cell_lens.len() != count {
        return Err(damaged("block entry", format!("no cells {cells:?} of {count}")));
    }
    let whole = cells.len() == count;
    let mut rest = stored;
    let mut plain = Buffer::with_capacity(cells.len() * crate::block::CELL_LEN);
    let mut cvs = Vec::with_capacity(cells.len());
    let start = (cells.start * crate::block::CELL_LEN) as u32;
    for (index, len) in entry.cell_lens.iter().enumerate().skip(cells.start).take(cells.len()) {
        let (cell, tag) = split_cell(&mut rest, len as usize)?;
        let decoded = decode(entry, index, cell, &mut plain)?;
        if is_unprotected() {
            continue;
        }
        let cv = cell_cv(index, count, decoded);
        if !whole && cell_tag(&block.digest, index, &cv) != tag {
            return Err(wrong_cell(index));
        }
        cvs.push((cv, tag));
    }
    if !rest.is_empty() {
        return Err(damaged("frame", "bytes after the last cell"));
    }
    if whole && !is_unprotected() {
        check_root(&block.digest, &cvs)?;
    }
    Ok(Verified { start, bytes: plain.share() })
}

/// Verifies a whole frame's cells: each tag, and the root. What a scrub reads; `Ok` means that
/// every way of reading the block works.
pub(super) fn check_cells(
    entry: &IndexEntry,
    digest: &blake3::Hash,
    payload: &[u8],
) -> Result<BlockHash> {
    let short = BlockDigest::from_hash(digest);
    let hash = hash_cells(entry, payload, |index, cv, tag| cell_tag(&short, index, cv) == *tag)?;
    if hash.root == *digest { Ok(hash) } else { Err(damaged("block", "digest differs")) }
}

/// Decodes all cells and hashes what comes out. `is_right` is asked of each cell's chaining value
/// and the tag that stands behind it.
pub(super) fn hash_cells(
    entry: &IndexEntry,
    payload: &[u8],
    is_right: impl Fn(usize, &[u8; 32], &[u8; TAG_LEN]) -> bool,
) -> Result<BlockHash> {
    let mut rest = payload;
    let mut cells = Vec::with_capacity(entry.cell_count());
    let mut plain = Buffer::default();
    for (index, len) in entry.cell_lens.iter().enumerate() {
        let (cell, tag) = split_cell(&mut rest, len as usize)?;
        plain.clear();
        let cv = cell_cv(index, entry.cell_count(), decode(entry, index, cell, &mut plain)?);
        if !is_right(index, &cv, &tag) {
            return Err(wrong_cell(index));
        }
        cells.push(cv);
    }
    Ok(BlockHash { root: root_of(&cells), cells })
}

/// Cells of the frame that can be read alone, as a bit per cell.
pub(super) fn good_cells(entry: &IndexEntry, payload: &[u8]) -> u32 {
    let mut rest = payload;
    let mut good = 0;
    for (index, len) in entry.cell_lens.iter().enumerate() {
        let Ok((cell, tag)) = split_cell(&mut rest, len as usize) else { break };
        let mut plain = Buffer::default();
        let Ok(decoded) = decode(entry, index, cell, &mut plain) else { continue };
        if cell_tag(&entry.digest, index, &cell_cv(index, entry.cell_count(), decoded)) == tag {
            good |= 1 << index;
        }
    }
    good
}

pub(super) fn split_cell<'a>(rest: &mut &'a [u8], len: usize) -> Result<(&'a [u8], [u8; TAG_LEN])> {
    let cut = || damaged("frame", "it ends within a cell");
    let cell = super::le::take(rest, len).ok_or_else(cut)?;
    let tag = super::le::take(rest, TAG_LEN).ok_or_else(cut)?;
    Ok((cell, super::le::array_at(tag, 0)))
}

/// Decodes one cell onto the end of `plain` and returns it there.
fn decode<'a>(
    entry: &IndexEntry,
    index: usize,
    cell: &[u8],
    plain: &'a mut Buffer,
) -> Result<&'a [u8]> {
    let plain_len = entry.plain_cell_len(index) as usize;
    let start = plain.len();
    if cell.len() == plain_len {
        plain.extend_from_slice(cell);
    } else {
        plain.resize(start + plain_len, 0);
        decode_cell_into(cell, entry.codec, entry.filter, &mut plain[start..])?;
    }
    Ok(&plain[start..])
}

fn check_root(digest: &BlockDigest, cells: &[([u8; 32], [u8; TAG_LEN])]) -> Result<()> {
    let cvs: Vec<_> = cells.iter().map(|(cv, _)| *cv).collect();
    if BlockDigest::from_hash(&root_of(&cvs)) == *digest {
        return Ok(());
    }
    let wrong = cells.iter().enumerate().find(|(i, (cv, tag))| cell_tag(digest, *i, cv) != *tag);
    Err(wrong.map_or_else(|| damaged("block", "digest differs"), |(index, _)| wrong_cell(index)))
}

fn wrong_cell(index: usize) -> crate::Error {
    damaged("cell", format!("cell {index} does not match the block's digest"))
}
