//! The index of a sealed segment: one entry per block, in columns, compressed.
//!
//! The same bytes stand in the segment twice and, after its data was evicted, in an `.idx` file
//! behind a copy of the trailer. Where frames are so small that two full copies would cost too
//! much, first the cell lengths and then the second copy are left out.

use std::ops::Range;

use crate::block::{BlockDigest, BlockId};
use crate::encode::{Codec, Filter};
use crate::error::{Error, Result};

use super::bytes_at::{ReadAt, ZeroFilled};
use super::entry::{CellLens, IndexEntry, MAX_CELLS};
use super::frame::FRAME_ALIGN;
use super::header::{DATA_START, TRAILER_LEN, Trailer};
use super::le::{
    array_at, put, put_varint, take, take_varint, u16_at, u32_at, u64_at, unzigzag, zigzag,
};
use super::locate::IndexFetch;
use super::{SegmentId, SegmentName, VolumeId, damaged};

const MAGIC: [u8; 8] = *b"\xf1Index\r\n";
/// Version of indexes and of index files, whatever that of their segment.
const INDEX_VERSION: u16 = 1;
const IDX_MAGIC: [u8; 8] = *b"\xf1IdxFl\r\n";

// Field offsets of the index header; FORMAT.md, "Index".
const AT_MAGIC: usize = 0;
const AT_CHECKSUM: usize = AT_MAGIC + 8;
const AT_VERSION: usize = AT_CHECKSUM + 16;
const AT_FIELDS: usize = AT_VERSION + 2;
const AT_BLOCKS: usize = AT_FIELDS + 2;
const AT_VOLUME: usize = AT_BLOCKS + 4;
const AT_SEGMENT: usize = AT_VOLUME + 16;
const AT_RAW_LEN: usize = AT_SEGMENT + 8;
const AT_BODY_LEN: usize = AT_RAW_LEN + 4;
const INDEX_HEADER_LEN: usize = AT_BODY_LEN + 4;

/// Field: the cell lengths are recorded.
const FIELD_CELLS: u16 = 1 << 0;
/// Fields this program knows. An unknown one is an error: columns cannot be skipped.
const KNOWN_FIELDS: u16 = FIELD_CELLS;

/// Longest decompressed body that is read: a bound for decoded lengths.
const MAX_RAW_LEN: usize = 64 << 20;
/// Fewest decompressed bytes of an entry: id, gap, header, flags, codec, filter, level, length,
/// digest, and a cell length or a stored length.
const LEAST_ENTRY_LEN: usize = 25;
/// The shortest frame of which a checked entry may speak.
const LEAST_FRAME_LEN: u64 = 3 * FRAME_ALIGN as u64;
/// Entries for which memory is taken before the first was looked at.
const ENTRIES_AHEAD: usize = 1 << 14;
/// zstd level of the body: digests dominate it and do not shrink at any.
const BODY_LEVEL: i32 = 3;

/// The index of one sealed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentIndex {
    trailer: Trailer,
    entries: Vec<IndexEntry>,
}

impl SegmentIndex {
    /// `entries` in any order.
    pub(super) fn new(trailer: Trailer, mut entries: Vec<IndexEntry>) -> Self {
        entries.sort_by_key(|entry| (entry.id, entry.offset));
        Self { trailer, entries }
    }

    /// Which segment this is.
    pub fn name(&self) -> SegmentName {
        self.trailer.name
    }

    /// Where everything in the segment lies.
    pub fn trailer(&self) -> &Trailer {
        &self.trailer
    }

    /// All blocks, by id and then by offset.
    pub fn entries(&self) -> &[IndexEntry] {
        &self.entries
    }

    /// All frames of a block in this segment: usually one or none.
    pub fn find(&self, id: BlockId) -> &[IndexEntry] {
        let start = self.entries.partition_point(|entry| entry.id < id);
        let len = self.entries[start..].partition_point(|entry| entry.id == id);
        &self.entries[start..start + len]
    }

    /// Reads the index of a sealed segment's file, from whichever copy is undamaged.
    /// [`Error::Io`] when none is and a part could not be read.
    pub fn from_file<R: ReadAt + ?Sized>(file: &R, name: &SegmentName) -> Result<Self> {
        let len = file.len().map_err(Error::io(format!("length of segment {}", name.id)))?;
        let failed = || Error::io(format!("read the index of segment {}", name.id));
        let file = ZeroFilled::new(file);
        let mut fetch = IndexFetch::new(*name, len);
        loop {
            let want = fetch.wanted();
            let mut bytes = vec![0; (want.end - want.start) as usize];
            file.read_exact_at(&mut bytes, want.start).map_err(failed())?;
            match fetch.feed(&bytes) {
                Ok(Some(index)) => return Ok(index),
                Ok(None) => {}
                Err(error) => return Err(file.failure().map_or(error, failed())),
            }
        }
    }

    /// The bytes of an `.idx` file: the trailer and the index, each checked.
    pub fn to_idx_bytes(&self) -> Vec<u8> {
        let mut bytes = IDX_MAGIC.to_vec();
        bytes.extend_from_slice(&INDEX_VERSION.to_le_bytes());
        bytes.resize(FRAME_ALIGN, 0);
        bytes.extend_from_slice(&self.trailer.to_bytes());
        bytes.extend_from_slice(&encode_index(&self.trailer.name, &self.entries, true));
        bytes
    }

    /// Reads the bytes of an `.idx` file of the segment `name`.
    pub fn from_idx_bytes(bytes: &[u8], name: &SegmentName) -> Result<Self> {
        let what = "index file";
        let mut rest = bytes;
        let cut = || damaged(what, "cut short");
        let start = take(&mut rest, FRAME_ALIGN).ok_or_else(cut)?;
        if start[..8] != IDX_MAGIC {
            return Err(damaged(what, "not there"));
        }
        let version = u16_at(start, 8);
        if version != INDEX_VERSION {
            let (found, known) = (u32::from(version), u32::from(INDEX_VERSION));
            return Err(Error::TooNew { what, found, known });
        }
        let trailer = Trailer::from_bytes(take(&mut rest, TRAILER_LEN).ok_or_else(cut)?, name)?;
        let entries = decode_index(rest, &trailer)?;
        Ok(Self::new(trailer, entries))
    }

    /// Bytes of the segment that no frame of the index covers and that are not frames: damage
    /// that a crash left behind, sealed as it was.
    pub fn gaps(&self) -> Vec<Range<u64>> {
        let mut frames: Vec<_> = self.entries.iter().map(IndexEntry::frame_range).collect();
        frames.sort_by_key(|range| range.start);
        let mut gaps = Vec::new();
        let mut at = DATA_START;
        for frame in frames {
            if frame.start > at {
                gaps.push(at..frame.start);
            }
            at = at.max(frame.end);
        }
        if at < self.trailer.frames_end {
            gaps.push(at..self.trailer.frames_end);
        }
        gaps
    }
}

/// The stored form of an index, `entries` in any order, with or without cell lengths.
pub(super) fn encode_index(name: &SegmentName, entries: &[IndexEntry], cells: bool) -> Vec<u8> {
    let mut ordered: Vec<&IndexEntry> = entries.iter().collect();
    ordered.sort_by_key(|entry| entry.offset);
    let cells = cells && ordered.iter().all(|entry| !entry.cell_lens.is_empty());
    let raw = encode_columns(&ordered, cells);
    let body = zstd::bulk::compress(&raw, BODY_LEVEL).expect("zstd compresses into a vector");
    let mut bytes = vec![0; INDEX_HEADER_LEN];
    put(&mut bytes, AT_MAGIC, &MAGIC);
    put(&mut bytes, AT_VERSION, &INDEX_VERSION.to_le_bytes());
    let fields = if cells { FIELD_CELLS } else { 0 };
    put(&mut bytes, AT_FIELDS, &fields.to_le_bytes());
    put(&mut bytes, AT_BLOCKS, &(entries.len() as u32).to_le_bytes());
    put(&mut bytes, AT_VOLUME, &name.volume.0);
    put(&mut bytes, AT_SEGMENT, &name.id.raw().to_le_bytes());
    put(&mut bytes, AT_RAW_LEN, &(raw.len() as u32).to_le_bytes());
    put(&mut bytes, AT_BODY_LEN, &(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&body);
    let checksum = index_sum(&bytes);
    put(&mut bytes, AT_CHECKSUM, &checksum);
    bytes
}

/// Checksum of an index: everything after the checksum.
pub(super) fn index_sum(bytes: &[u8]) -> [u8; 16] {
    super::short(&blake3::hash(&bytes[AT_VERSION..]))
}

/// Entries one after the other would repeat what neighbours share; columns let zstd see it.
pub(super) fn encode_columns(entries: &[&IndexEntry], cells: bool) -> Vec<u8> {
    let mut raw = Vec::with_capacity(entries.len() * 64);
    let mut last_id = 0;
    for entry in entries {
        let id = entry.id.raw();
        put_varint(&mut raw, zigzag(id.wrapping_sub(last_id) as i64));
        last_id = id;
    }
    let mut end = DATA_START;
    for entry in entries {
        let gap = entry.offset as i64 - end as i64;
        put_varint(&mut raw, zigzag(gap / FRAME_ALIGN as i64));
        end = entry.frame_range().end;
    }
    raw.extend(entries.iter().map(|entry| (usize::from(entry.header_len) / FRAME_ALIGN) as u8));
    entries.iter().for_each(|entry| raw.extend_from_slice(&entry.flags.to_le_bytes()));
    raw.extend(entries.iter().map(|entry| entry.codec.to_byte()));
    raw.extend(entries.iter().map(|entry| entry.filter.to_byte()));
    raw.extend(entries.iter().map(|entry| entry.level));
    entries.iter().for_each(|entry| put_varint(&mut raw, u64::from(entry.plain_len)));
    entries.iter().for_each(|entry| raw.extend_from_slice(&entry.digest.0));
    if cells {
        let lens = || entries.iter().flat_map(|entry| entry.cell_lens.stored());
        raw.extend(lens().map(|len| *len as u8));
        raw.extend(lens().map(|len| (len >> 8) as u8));
    } else {
        entries.iter().for_each(|entry| put_varint(&mut raw, u64::from(entry.stored_len)));
    }
    raw
}

/// Reads an index that `trailer` describes.
pub(super) fn decode_index(bytes: &[u8], trailer: &Trailer) -> Result<Vec<IndexEntry>> {
    let what = "segment index";
    let header = bytes.get(..INDEX_HEADER_LEN).ok_or_else(|| damaged(what, "cut short"))?;
    if header[..8] != MAGIC {
        return Err(damaged(what, "not there"));
    }
    if index_sum(bytes) != array_at::<16>(header, AT_CHECKSUM) {
        return Err(damaged(what, "checksum differs"));
    }
    let (version, fields) = (u16_at(header, AT_VERSION), u16_at(header, AT_FIELDS));
    let known = u32::from(INDEX_VERSION);
    if version != INDEX_VERSION || fields & !KNOWN_FIELDS != 0 {
        let found = u32::from(version).max(if version == INDEX_VERSION { known + 1 } else { 0 });
        return Err(Error::TooNew { what, found, known });
    }
    let name = SegmentName {
        volume: VolumeId(array_at(header, AT_VOLUME)),
        id: SegmentId::from_raw(u64_at(header, AT_SEGMENT)),
    };
    if name != trailer.name {
        return Err(damaged(what, "it belongs to another segment"));
    }
    let count = u32_at(header, AT_BLOCKS) as usize;
    let raw_len = u32_at(header, AT_RAW_LEN) as usize;
    let body = &bytes[INDEX_HEADER_LEN..];
    if raw_len > MAX_RAW_LEN || count.saturating_mul(LEAST_ENTRY_LEN) > raw_len {
        return Err(damaged(what, "length out of range"));
    }
    if count as u64 * LEAST_FRAME_LEN > trailer.frames_end - DATA_START {
        return Err(damaged(what, "more blocks than there is room for"));
    }
    if u32_at(header, AT_BODY_LEN) as usize != body.len() || count != trailer.blocks as usize {
        return Err(damaged(what, "it contradicts the trailer"));
    }
    let raw = zstd::bulk::decompress(body, raw_len)
        .map_err(|error| damaged(what, format!("does not decompress: {error}")))?;
    if raw.len() != raw_len {
        return Err(damaged(what, "decompresses to a wrong length"));
    }
    decode_columns(&raw, count, fields & FIELD_CELLS != 0, trailer.frames_end)
        .map_err(|reason| damaged(what, reason))
}

/// The entries in those columns, each within bounds.
pub(super) fn decode_columns(
    mut raw: &[u8],
    count: usize,
    cells: bool,
    frames_end: u64,
) -> Result<Vec<IndexEntry>, &'static str> {
    const CUT: &str = "a column is cut short";
    let raw = &mut raw;
    let varints = |raw: &mut &[u8]| -> Result<Vec<u64>, &'static str> {
        (0..count).map(|_| take_varint(raw).ok_or(CUT)).collect()
    };
    let ids = varints(raw)?;
    let gaps = varints(raw)?;
    let headers = take(raw, count).ok_or(CUT)?;
    let flags = take(raw, 2 * count).ok_or(CUT)?;
    let codecs = take(raw, count).ok_or(CUT)?;
    let filters = take(raw, count).ok_or(CUT)?;
    let levels = take(raw, count).ok_or(CUT)?;
    let plain_lens = varints(raw)?;
    let digests = take(raw, 16 * count).ok_or(CUT)?;
    let mut lens = Lens::take(raw, &plain_lens, cells)?;
    let mut entries = Vec::with_capacity(count.min(ENTRIES_AHEAD));
    let (mut id, mut end) = (0_u64, DATA_START as i64);
    for i in 0..count {
        id = id.wrapping_add(unzigzag(ids[i]) as u64);
        let gap = unzigzag(gaps[i]).checked_mul(FRAME_ALIGN as i64).ok_or("a gap overflows")?;
        let offset = end.checked_add(gap).ok_or("a gap overflows")?;
        let (cell_lens, stored_len) = lens.next(i)?;
        let entry = IndexEntry {
            id: BlockId::from_raw(id),
            digest: BlockDigest(array_at(digests, 16 * i)),
            offset: u64::try_from(offset).map_err(|_| "a frame lies before the segment")?,
            header_len: u16::from(headers[i]) * FRAME_ALIGN as u16,
            plain_len: u32::try_from(plain_lens[i]).map_err(|_| "a block is too long")?,
            stored_len,
            codec: Codec::from_byte(codecs[i]).map_err(|_| "unknown codec")?,
            filter: Filter::from_byte(filters[i]).map_err(|_| "unknown filter")?,
            level: levels[i],
            flags: u16_at(flags, 2 * i),
            cell_lens,
        };
        entry.check()?;
        if entry.offset < DATA_START || entry.frame_range().end > frames_end {
            return Err("a frame lies outside the segment");
        }
        end = entry.frame_range().end as i64;
        entries.push(entry);
    }
    Ok(entries)
}

/// The last columns: cell lengths in two byte planes, or one stored length per block.
enum Lens<'a> {
    Cells { low: &'a [u8], high: &'a [u8], at: usize, counts: Vec<usize> },
    Stored(Vec<u64>),
}

impl<'a> Lens<'a> {
    fn take(raw: &mut &'a [u8], plain_lens: &[u64], cells: bool) -> Result<Self, &'static str> {
        const CUT: &str = "a column is cut short";
        let lens = if cells {
            let counts: Vec<_> = plain_lens
                .iter()
                .map(|&len| (len.div_ceil(crate::block::CELL_LEN as u64)).min(1 + MAX_CELLS as u64))
                .map(|count| count as usize)
                .collect();
            let total = counts.iter().sum();
            let low = take(raw, total).ok_or(CUT)?;
            let high = take(raw, total).ok_or(CUT)?;
            Self::Cells { low, high, at: 0, counts }
        } else {
            let count = plain_lens.len();
            Self::Stored((0..count).map(|_| take_varint(raw).ok_or(CUT)).collect::<Result<_, _>>()?)
        };
        if raw.is_empty() { Ok(lens) } else { Err("bytes after the last column") }
    }

    fn next(&mut self, index: usize) -> Result<(CellLens, u32), &'static str> {
        match self {
            Self::Cells { low, high, at, counts } => {
                let range = *at..*at + counts[index];
                *at = range.end;
                let lens = low[range.clone()].iter().zip(&high[range]);
                let lens = lens.map(|(&low, &high)| u16::from_le_bytes([low, high]));
                let lens = CellLens::from_stored(lens).ok_or("too many cells")?;
                let stored = lens.iter().map(|len| len + super::TAG_LEN as u32).sum();
                Ok((lens, stored))
            }
            Self::Stored(lens) => {
                let len = u32::try_from(lens[index]).map_err(|_| "a frame is too long")?;
                Ok((CellLens::NONE, len))
            }
        }
    }
}
