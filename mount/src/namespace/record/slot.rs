//! The pieces of one MiB of a file.

use bytes::Bytes;
use firn_tiering::{BlockDigest, BlockId, BlockRef, Epoch, MAX_BLOCK_LEN};

use super::{Reader, RecordError, Version, put_varint};

const WHAT: &str = "extent";
const VERSION: u8 = 1;

/// Bytes of a file that one record describes: 1 MiB.
pub const SLOT_LEN: u32 = 1 << 20;

const BLOCK: u64 = 0;
const INLINE: u64 = 1;
const UNWRITTEN: u64 = 2;
const TAG_BITS: u32 = 2;

/// Fewest bytes that a stored piece takes: gap, tag with length, and one byte of content or none.
const MIN_PIECE_LEN: usize = 2;

/// Where the bytes of a piece are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// In a block, from `offset` on.
    Block {
        /// The block.
        block: BlockRef,
        /// Where in the block's plaintext the piece starts.
        offset: u32,
    },
    /// Here.
    Inline(Bytes),
    /// Nowhere: allocated, reads as zeros.
    Unwritten,
}

/// A run of bytes within a slot. Holes are what no piece covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Offset within the slot, below [`SLOT_LEN`].
    pub start: u32,
    /// Bytes, at least 1.
    pub len: u32,
    /// The bytes.
    pub content: Content,
}

impl Piece {
    /// The offset behind the piece.
    pub fn end(&self) -> u32 {
        self.start + self.len
    }

    /// The block it lies in.
    pub fn block(&self) -> Option<&BlockRef> {
        match &self.content {
            Content::Block { block, .. } => Some(block),
            Content::Inline(_) | Content::Unwritten => None,
        }
    }

    /// Length of what it has in common with a piece of another version: the same bytes of a block,
    /// the same inline ones, or none at all in both, where the two overlap.
    fn shared_with(&self, other: &Self) -> u32 {
        let (start, end) = (self.start.max(other.start), self.end().min(other.end()));
        if start >= end {
            return 0;
        }
        let part = |piece: &Self| (start - piece.start) as usize..(end - piece.start) as usize;
        let is_same = match (&self.content, &other.content) {
            (
                Content::Block { block, offset },
                Content::Block { block: other_block, offset: other_offset },
            ) => {
                let at = |offset: &u32, piece: &Self| {
                    u64::from(*offset) + u64::from(start - piece.start)
                };
                block.id == other_block.id && at(offset, self) == at(other_offset, other)
            }
            (Content::Inline(bytes), Content::Inline(others)) => {
                bytes[part(self)] == others[part(other)]
            }
            (Content::Unwritten, Content::Unwritten) => true,
            _ => false,
        };
        if is_same { end - start } else { 0 }
    }

    /// The part of the piece before `end` (an offset within the slot); `None` when there is none.
    pub fn cut(&self, end: u32) -> Option<Self> {
        if end <= self.start {
            return None;
        }
        let len = self.len.min(end - self.start);
        let content = match &self.content {
            Content::Inline(bytes) => Content::Inline(bytes.slice(..len as usize)),
            other => other.clone(),
        };
        Some(Self { start: self.start, len, content })
    }
}

/// The pieces of one slot with the version of its stored record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotRecord {
    /// Under which node it was written.
    pub version: Version,
    /// In order, without overlap.
    pub pieces: Vec<Piece>,
}

/// Bytes that the pieces cover.
pub fn allocated(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|piece| u64::from(piece.len)).sum()
}

/// Bytes of `pieces` that are not in `older` at the same place already.
pub fn fresh(pieces: &[Piece], older: &[Piece]) -> u64 {
    let mut sum = allocated(pieces);
    let mut left = older;
    for piece in pieces {
        while left.first().is_some_and(|other| other.end() <= piece.start) {
            left = &left[1..];
        }
        for other in left.iter().take_while(|other| other.start < piece.end()) {
            sum -= u64::from(piece.shared_with(other));
        }
    }
    sum
}

/// The pieces of a stored value; a damaged one counts for none.
pub fn pieces_of(value: &[u8]) -> Vec<Piece> {
    SlotRecord::decode_value(value).map_or_else(|_| Vec::new(), |record| record.pieces)
}

/// Whether pieces are in order, do not overlap and stay in the slot and in their blocks.
pub fn check_pieces(pieces: &[Piece]) -> Result<(), &'static str> {
    let mut at = 0;
    for piece in pieces {
        if piece.len == 0 {
            return Err("empty piece");
        }
        if piece.start < at {
            return Err("pieces overlap");
        }
        at = piece.start.checked_add(piece.len).ok_or("piece too long")?;
        if at > SLOT_LEN {
            return Err("piece exceeds its slot");
        }
        match &piece.content {
            Content::Block { block, offset } => {
                let end = offset.checked_add(piece.len).ok_or("piece too long")?;
                if end > block.len || block.len as usize > MAX_BLOCK_LEN {
                    return Err("piece exceeds its block");
                }
            }
            Content::Inline(bytes) => {
                if bytes.len() != piece.len as usize {
                    return Err("inline length differs");
                }
            }
            Content::Unwritten => {}
        }
    }
    Ok(())
}

impl SlotRecord {
    /// The stored value, version included; an error when the pieces make no sense.
    pub fn encode(version: Version, pieces: &[Piece]) -> Result<Vec<u8>, RecordError> {
        check_pieces(pieces).map_err(|reason| RecordError::new(WHAT, reason))?;
        let mut out = Vec::with_capacity(8 + pieces.len() * 32);
        version.put(&mut out);
        out.push(VERSION);
        let mut at = 0;
        for piece in pieces {
            put_varint(&mut out, u64::from(piece.start - at));
            at = piece.end();
            let tag = match piece.content {
                Content::Block { .. } => BLOCK,
                Content::Inline(_) => INLINE,
                Content::Unwritten => UNWRITTEN,
            };
            put_varint(&mut out, u64::from(piece.len) << TAG_BITS | tag);
            match &piece.content {
                Content::Block { block, offset } => put_block(&mut out, block, *offset),
                Content::Inline(bytes) => out.extend_from_slice(bytes),
                Content::Unwritten => {}
            }
        }
        Ok(out)
    }

    /// Decodes a stored value, version included.
    pub fn decode_value(value: &[u8]) -> Result<Self, RecordError> {
        let (version, record) = Version::split(value)?;
        Self::decode(version, record)
    }

    /// Decodes the record behind the version; see [`Version::split`].
    pub fn decode(version: Version, record: &[u8]) -> Result<Self, RecordError> {
        if version.whiteout {
            return Ok(Self { version, pieces: Vec::new() });
        }
        let mut reader = Reader::new(WHAT, record);
        reader.version(VERSION)?;
        let mut pieces = Vec::with_capacity((reader.len() / MIN_PIECE_LEN).min(64));
        let mut at = 0_u32;
        while !reader.is_empty() {
            let start = at
                .checked_add(reader.varint32()?)
                .filter(|&start| start < SLOT_LEN)
                .ok_or_else(|| reader.error("piece exceeds its slot"))?;
            let head = reader.varint32()?;
            let len = head >> TAG_BITS;
            let content = match u64::from(head) & ((1 << TAG_BITS) - 1) {
                BLOCK => read_block(&mut reader)?,
                INLINE => Content::Inline(Bytes::copy_from_slice(reader.bytes(len as usize)?)),
                UNWRITTEN => Content::Unwritten,
                _ => return Err(reader.error("unknown piece")),
            };
            at = start.checked_add(len).ok_or_else(|| reader.error("piece too long"))?;
            pieces.push(Piece { start, len, content });
        }
        check_pieces(&pieces).map_err(|reason| RecordError::new(WHAT, reason))?;
        Ok(Self { version, pieces })
    }
}

fn put_block(out: &mut Vec<u8>, block: &BlockRef, offset: u32) {
    const COUNTER: u64 = (1 << 48) - 1;
    put_varint(out, u64::from(block.id.epoch().0));
    put_varint(out, block.id.raw() & COUNTER);
    out.extend_from_slice(&block.digest.0);
    put_varint(out, u64::from(block.len));
    put_varint(out, u64::from(offset));
}

fn read_block(reader: &mut Reader<'_>) -> Result<Content, RecordError> {
    let epoch = u16::try_from(reader.varint()?).map_err(|_| reader.error("epoch too large"))?;
    let counter = reader.varint()?;
    let id = BlockId::new(Epoch(epoch), counter)
        .ok_or_else(|| reader.error("block counter too large"))?;
    let mut digest = [0; 16];
    digest.copy_from_slice(reader.bytes(16)?);
    let len = reader.varint32()?;
    let offset = reader.varint32()?;
    Ok(Content::Block { block: BlockRef { id, digest: BlockDigest(digest), len }, offset })
}
