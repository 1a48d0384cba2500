//! A block as stored: a checked header with the table of cell lengths, then the cells, each with
//! its tag.
//!
//! A header read from anywhere is an [`UnverifiedFrameHeader`]; only [`UnverifiedFrameHeader::verify`]
//! turns it into a [`FrameHeader`]. Frames are built without knowing their segment: the writer
//! stamps name and checksum into the header when it appends them.

use crate::block::{BlockDigest, BlockId, MAX_BLOCK_LEN};
use crate::buffers::Buffer;
use crate::encode::{Codec, EncodedBlock, Filter};
use crate::error::{Error, Result};

use super::entry::{CellLens, IndexEntry, MAX_CELLS};
use super::hash::{BlockHash, cell_tag};
use super::le::{array_at, put, u16_at, u32_at, u64_at};
use super::verified::{TAG_LEN, Verified, check_cells, good_cells};
use super::{SegmentId, SegmentName, align_up, damaged};

/// Frames begin at multiples of this.
pub const FRAME_ALIGN: usize = 16;

/// Begins every frame. Not text, and damaged by newline conversion.
pub(super) const MAGIC: [u8; 8] = *b"\xf1Frame\r\n";
/// The frame version written, and the newest one read.
const VERSION: u8 = 1;

// Field offsets; FORMAT.md, "Frame header".
const AT_MAGIC: usize = 0;
const AT_CHECKSUM: usize = AT_MAGIC + 8;
const AT_VERSION: usize = AT_CHECKSUM + 16;
const AT_HEADER_UNITS: usize = AT_VERSION + 1;
const AT_FLAGS: usize = AT_HEADER_UNITS + 1;
const AT_RESERVED: usize = AT_FLAGS + 2;
const AT_SEGMENT: usize = AT_RESERVED + 4;
const AT_BLOCK: usize = AT_SEGMENT + 8;
const AT_DIGEST: usize = AT_BLOCK + 8;
const AT_PLAIN_LEN: usize = AT_DIGEST + 32;
const AT_STORED_LEN: usize = AT_PLAIN_LEN + 4;
const AT_CODEC: usize = AT_STORED_LEN + 4;
const AT_FILTER: usize = AT_CODEC + 1;
const AT_LEVEL: usize = AT_FILTER + 1;
const AT_CELL_COUNT: usize = AT_LEVEL + 1;
const AT_CELL_LOG2: usize = AT_CELL_COUNT + 1;
const AT_TAG_LEN: usize = AT_CELL_LOG2 + 1;
const AT_EXTENSION_LEN: usize = AT_TAG_LEN + 1;
/// Length of the fixed part; the extension and the cell table follow.
const FIXED_LEN: usize = AT_EXTENSION_LEN + 2;

/// Bytes of the longest frame header: 255 units of 16.
pub const FRAME_MAX_HEADER_LEN: usize = u8::MAX as usize * FRAME_ALIGN;
/// Length of a frame header without extension for the largest block.
pub(super) const FRAME_HEADER_TYPICAL: usize = FIXED_LEN + 2 * MAX_CELLS;

const CELL_LOG2: u8 = crate::block::CELL_LEN.trailing_zeros() as u8;

/// Flag: the block packs pieces of many files. Informs, changes nothing for a reader.
pub(super) const FLAG_PACKED: u16 = 1 << 8;
/// Flags a reader must know to read the frame: the low byte. None is defined yet;
/// bit 0 is reserved for encryption.
const MUST_KNOW: u16 = 0x00ff;

/// Refuses frames that need what this program does not know.
pub(super) fn check_flags(flags: u16) -> Result<()> {
    if flags & MUST_KNOW == 0 {
        return Ok(());
    }
    Err(Error::TooNew { what: "frame", found: u32::from(VERSION) + 1, known: u32::from(VERSION) })
}

/// A frame on its way into a segment.
#[derive(Clone, Debug)]
pub struct Frame {
    entry: IndexEntry,
    bytes: Buffer,
}

impl Frame {
    /// Builds the frame of a block. `hash` must be of the plaintext that `encoded` encodes.
    pub fn build(block: BlockId, hash: &BlockHash, encoded: &EncodedBlock) -> Self {
        let cell_lens =
            CellLens::new(encoded.cell_lens.iter().copied()).expect("encoders keep to cell bounds");
        let entry = IndexEntry {
            id: block,
            digest: hash.digest(),
            offset: 0,
            header_len: 0,
            plain_len: encoded.plain_len,
            stored_len: (encoded.payload.len() + cell_lens.len() * TAG_LEN) as u32,
            codec: encoded.codec,
            filter: encoded.filter,
            level: encoded.level,
            flags: 0,
            cell_lens,
        };
        let mut payload = encoded.payload.as_ref();
        let cells = cell_lens.iter().map(|len| {
            let (cell, rest) = payload.split_at(len as usize);
            payload = rest;
            cell
        });
        Self::assemble(entry, hash, cells)
    }

    /// Writes header, cells and tags. Header length and offset of `entry` are set here.
    pub(super) fn assemble<'a>(
        mut entry: IndexEntry,
        hash: &BlockHash,
        cells: impl Iterator<Item = &'a [u8]>,
    ) -> Self {
        let header_len = FIXED_LEN + 2 * entry.cell_lens.len();
        entry.header_len = align_up(header_len as u64, FRAME_ALIGN as u64) as u16;
        entry.offset = 0;
        debug_assert_eq!(entry.check(), Ok(()));
        debug_assert_eq!(entry.cell_lens.len(), hash.cells.len());
        let mut bytes = Buffer::with_capacity(entry.frame_len() as usize);
        bytes.resize(entry.header_len as usize, 0);
        write_header(&mut bytes, &entry, &hash.root);
        for (index, (cell, cv)) in cells.zip(&hash.cells).enumerate() {
            bytes.extend_from_slice(cell);
            bytes.extend_from_slice(&cell_tag(&entry.digest, index, cv));
        }
        bytes.resize(entry.frame_len() as usize, 0);
        Self { entry, bytes }
    }

    /// Gives the frame's block another id.
    pub(super) fn set_id(&mut self, id: BlockId) {
        self.entry.id = id;
        put(&mut self.bytes, AT_BLOCK, &id.raw().to_le_bytes());
    }

    /// The frame's bytes as [`Frame::stamp`] left them.
    pub(super) fn into_bytes(self) -> Buffer {
        self.bytes
    }

    /// Takes a frame out of the segment `name` to append it to another, verifying all of it.
    pub fn from_stored(name: &SegmentName, stored: &[u8]) -> Result<Self> {
        let header = verify_frame(name, 0, stored)?;
        let mut bytes = Buffer::with_capacity(header.entry.frame_len() as usize);
        bytes.extend_from_slice(&stored[..header.entry.frame_len() as usize]);
        Ok(Self { entry: header.entry, bytes })
    }

    /// The block, verified.
    pub fn plain(&self) -> Result<Verified> {
        let (payload, _) = split_frame(&self.entry, &self.bytes)?;
        self.entry.whole().open(&self.entry.block_ref(), payload)
    }

    /// The frame of the same block in another encoding; id, digest and flags stay. `hash` must be
    /// of the plaintext that `encoded` encodes.
    pub fn recoded(&self, hash: &BlockHash, encoded: &EncodedBlock) -> Result<Self> {
        let mut frame = Self::build(self.entry.id, hash, encoded);
        if frame.entry.block_ref() != self.entry.block_ref() {
            return Err(damaged("block", "it is another one after decoding"));
        }
        frame.entry.flags = self.entry.flags;
        put(&mut frame.bytes, AT_FLAGS, &frame.entry.flags.to_le_bytes());
        Ok(frame)
    }

    /// Marks the block as packed from pieces of many files. Informs, changes nothing for readers.
    pub fn mark_packed(&mut self) {
        self.entry.flags |= FLAG_PACKED;
        put(&mut self.bytes, AT_FLAGS, &self.entry.flags.to_le_bytes());
    }

    /// The block's entry; its offset is 0 until it was appended.
    pub fn entry(&self) -> &IndexEntry {
        &self.entry
    }

    /// Bytes the frame takes in a segment.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Never: a frame has a header.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Makes it a frame of the segment `name`, and returns its bytes.
    pub fn stamp(&mut self, name: &SegmentName) -> &[u8] {
        put(&mut self.bytes, AT_SEGMENT, &name.id.raw().to_le_bytes());
        let checksum = header_checksum(name, &self.bytes[..usize::from(self.entry.header_len)]);
        put(&mut self.bytes, AT_CHECKSUM, &checksum);
        &self.bytes
    }
}

fn write_header(bytes: &mut [u8], entry: &IndexEntry, digest: &blake3::Hash) {
    put(bytes, AT_MAGIC, &MAGIC);
    bytes[AT_VERSION] = VERSION;
    bytes[AT_HEADER_UNITS] = (usize::from(entry.header_len) / FRAME_ALIGN) as u8;
    put(bytes, AT_FLAGS, &entry.flags.to_le_bytes());
    put(bytes, AT_BLOCK, &entry.id.raw().to_le_bytes());
    put(bytes, AT_DIGEST, digest.as_bytes());
    put(bytes, AT_PLAIN_LEN, &entry.plain_len.to_le_bytes());
    put(bytes, AT_STORED_LEN, &entry.stored_len.to_le_bytes());
    bytes[AT_CODEC] = entry.codec.to_byte();
    bytes[AT_FILTER] = entry.filter.to_byte();
    bytes[AT_LEVEL] = entry.level;
    bytes[AT_CELL_COUNT] = entry.cell_lens.len() as u8;
    bytes[AT_CELL_LOG2] = CELL_LOG2;
    bytes[AT_TAG_LEN] = TAG_LEN as u8;
    for (index, len) in entry.cell_lens.stored().iter().enumerate() {
        put(bytes, FIXED_LEN + 2 * index, &len.to_le_bytes());
    }
}

/// Checksum of a header: everything after the checksum, keyed with the segment's name.
pub(super) fn header_checksum(name: &SegmentName, header: &[u8]) -> [u8; 16] {
    super::short(&blake3::keyed_hash(&name.frame_key(), &header[AT_VERSION..]))
}

/// Bytes that begin like a frame. Nothing in them may be relied on.
#[derive(Clone, Copy, Debug)]
pub struct UnverifiedFrameHeader<'a> {
    bytes: &'a [u8],
}

impl<'a> UnverifiedFrameHeader<'a> {
    /// Takes the header off the front of `bytes`, which may go on after it.
    pub fn read(bytes: &'a [u8]) -> Result<Self> {
        let cut = || damaged("frame header", "cut short");
        if bytes.len() < FIXED_LEN {
            return Err(cut());
        }
        if bytes[..8] != MAGIC {
            return Err(damaged("frame header", "no frame begins here"));
        }
        let len = usize::from(bytes[AT_HEADER_UNITS]) * FRAME_ALIGN;
        if len < FIXED_LEN {
            return Err(damaged("frame header", "length out of range"));
        }
        bytes.get(..len).map(|bytes| Self { bytes }).ok_or_else(cut)
    }

    /// Checks it as a header of a frame at `offset` of the segment `name`.
    pub fn verify(self, name: &SegmentName, offset: u64) -> Result<FrameHeader> {
        if header_checksum(name, self.bytes) != array_at::<16>(self.bytes, AT_CHECKSUM) {
            return Err(damaged("frame header", "checksum differs"));
        }
        if u64_at(self.bytes, AT_SEGMENT) != name.id.raw() {
            return Err(damaged("frame header", "it belongs to another segment"));
        }
        let entry = self.hint(offset)?;
        let digest = blake3::Hash::from_bytes(array_at(self.bytes, AT_DIGEST));
        Ok(FrameHeader { entry, digest, segment: name.id })
    }

    /// The entry these bytes claim, bounded and consistent but possibly wrong: good for finding
    /// cells, whose tags decide.
    pub fn hint(self, offset: u64) -> Result<IndexEntry> {
        let version = self.bytes[AT_VERSION];
        if version != VERSION {
            let (found, known) = (u32::from(version), u32::from(VERSION));
            return Err(Error::TooNew { what: "frame", found, known });
        }
        let flags = u16_at(self.bytes, AT_FLAGS);
        check_flags(flags)?;
        if self.bytes[AT_CELL_LOG2] != CELL_LOG2 || self.bytes[AT_TAG_LEN] != TAG_LEN as u8 {
            return Err(damaged("frame header", "unknown cell or tag length"));
        }
        let count = usize::from(self.bytes[AT_CELL_COUNT]);
        let table = FIXED_LEN + usize::from(u16_at(self.bytes, AT_EXTENSION_LEN));
        let lens = self.bytes.get(table..table + 2 * count);
        let lens =
            lens.and_then(|t| CellLens::from_stored(t.chunks_exact(2).map(|l| u16_at(l, 0))));
        let entry = IndexEntry {
            id: BlockId::from_raw(u64_at(self.bytes, AT_BLOCK)),
            digest: BlockDigest(array_at(self.bytes, AT_DIGEST)),
            offset,
            header_len: self.bytes.len() as u16,
            plain_len: u32_at(self.bytes, AT_PLAIN_LEN),
            stored_len: u32_at(self.bytes, AT_STORED_LEN),
            codec: Codec::from_byte(self.bytes[AT_CODEC])?,
            filter: Filter::from_byte(self.bytes[AT_FILTER])?,
            level: self.bytes[AT_LEVEL],
            flags,
            cell_lens: lens.filter(|lens| !lens.is_empty()).ok_or_else(|| {
                damaged("frame header", format!("no room for {count} cell lengths"))
            })?,
        };
        entry.check().map_err(|reason| damaged("frame header", reason))?;
        Ok(entry)
    }
}

/// A header whose checksum was right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The block's entry.
    pub entry: IndexEntry,
    /// All 32 bytes of the block's BLAKE3.
    pub digest: blake3::Hash,
    /// The segment it belongs to.
    pub segment: SegmentId,
}

/// Verifies every byte of a frame that begins at `offset` of the segment `name`; `bytes` may go on
/// after it. `Ok` means that the block and each of its cells can be read.
pub fn verify_frame(name: &SegmentName, offset: u64, bytes: &[u8]) -> Result<FrameHeader> {
    let header = UnverifiedFrameHeader::read(bytes)?.verify(name, offset)?;
    verify_content(&header, bytes)?;
    Ok(header)
}

/// As [`verify_frame`], behind the header; returns the cells with their tags, and their hashes.
pub(super) fn verify_content<'a>(
    header: &FrameHeader,
    bytes: &'a [u8],
) -> Result<(&'a [u8], BlockHash)> {
    let (payload, padding) = split_frame(&header.entry, bytes)?;
    let hash = check_cells(&header.entry, &header.digest, payload)?;
    if padding.iter().any(|&byte| byte != 0) {
        return Err(damaged("frame", "padding is not zero"));
    }
    Ok((payload, hash))
}

/// Which cells of the block can still be read, as a bit per cell.
pub(super) fn readable_cells(entry: &IndexEntry, bytes: &[u8]) -> u32 {
    split_frame(entry, bytes).map_or(0, |(payload, _)| good_cells(entry, payload))
}

fn split_frame<'a>(entry: &IndexEntry, bytes: &'a [u8]) -> Result<(&'a [u8], &'a [u8])> {
    debug_assert!(entry.plain_len as usize <= MAX_BLOCK_LEN);
    let frame = bytes.get(usize::from(entry.header_len)..entry.frame_len() as usize);
    let frame = frame.ok_or_else(|| damaged("frame", "cut short"))?;
    Ok(frame.split_at(entry.stored_len as usize))
}
