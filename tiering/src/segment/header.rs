//! The fixed pages of a segment: the header at its start, and the trailer that says where
//! everything in a sealed segment lies.
//!
//! The trailer stands twice, at the very end and behind the header, so that damage at either end
//! leaves one. Both pages carry their own checksum and are validated against the file's bounds
//! before any field is used.

use std::ops::Range;

use crate::error::{Error, Result};

use super::le::{array_at, put, u16_at, u32_at, u64_at};
use super::parity::Geometry;
use super::place::{ParityPlace, SIDECAR_HEADER_LEN};
use super::shard_sum::{SHARD_SUM_LEN, ShardSum};
use super::{SEGMENT_VERSION, SegmentId, SegmentName, VolumeId, damaged};

const HEADER_MAGIC: [u8; 8] = *b"\xf1Segmt\r\n";
const TRAILER_MAGIC: [u8; 8] = *b"\xf1Trail\r\n";

// Field offsets of the header; FORMAT.md, "Segment header".
const AT_MAGIC: usize = 0;
const AT_CHECKSUM: usize = AT_MAGIC + 8;
const AT_VERSION: usize = AT_CHECKSUM + 16;
const AT_FLAGS: usize = AT_VERSION + 2;
const AT_DATA_START: usize = AT_FLAGS + 2;
const AT_VOLUME: usize = AT_DATA_START + 4;
const AT_SEGMENT: usize = AT_VOLUME + 16;
const AT_HEADER_PLACE: usize = AT_SEGMENT + 8;
const AT_HEADER_RESERVED: usize = AT_HEADER_PLACE + 1;
/// Length of the segment header.
pub(super) const HEADER_LEN: usize = AT_HEADER_RESERVED + 71;

/// Where a sealed segment's first trailer begins.
pub(super) const HEAD_TRAILER: usize = HEADER_LEN;
/// Where frames begin.
pub const DATA_START: u64 = 512;
const _: () = assert!(HEAD_TRAILER + TRAILER_LEN <= DATA_START as usize);

// Field offsets of the trailer; FORMAT.md, "Trailer". It begins like the header.
const AT_FILE_LEN: usize = AT_SEGMENT + 8;
const AT_FRAMES_END: usize = AT_FILE_LEN + 8;
const AT_PROTECTED_END: usize = AT_FRAMES_END + 8;
const AT_INDEX_A: usize = AT_PROTECTED_END + 8;
const AT_INDEX_B: usize = AT_INDEX_A + 8;
const AT_TABLE_A: usize = AT_INDEX_B + 8;
const AT_TABLE_B: usize = AT_TABLE_A + 8;
const AT_PARITY: usize = AT_TABLE_B + 8;
const AT_INDEX_LEN: usize = AT_PARITY + 8;
const AT_BLOCKS: usize = AT_INDEX_LEN + 4;
const AT_SHARD_LEN: usize = AT_BLOCKS + 4;
const AT_DATA_SHARDS: usize = AT_SHARD_LEN + 4;
const AT_STRIPES: usize = AT_DATA_SHARDS + 4;
const AT_PER_STRIPE: usize = AT_STRIPES + 2;
const AT_SCHEME: usize = AT_PER_STRIPE + 2;
const AT_SHARD_SUM_LEN: usize = AT_SCHEME + 1;
const AT_TRAILER_PLACE: usize = AT_SHARD_SUM_LEN + 1;
const AT_INDEX_SUM: usize = AT_TRAILER_PLACE + 2;
const AT_TABLE_SUM: usize = AT_INDEX_SUM + 16;
const AT_TRAILER_RESERVED: usize = AT_TABLE_SUM + 16;
/// Length of a trailer.
pub const TRAILER_LEN: usize = AT_TRAILER_RESERVED + 80;
const _: () = assert!(TRAILER_LEN == 256);

/// Version of the pages of a segment whose parity is inside.
const INSIDE_VERSION: u16 = 1;
/// Parity scheme: none.
const SCHEME_NONE: u8 = 0;
/// Parity scheme: Reed-Solomon over GF(2^8) as FORMAT.md, "Shards and parity" has it, shards summed
/// with BLAKE3.
const SCHEME_BLAKE3: u8 = 1;
/// Parity scheme: the same, shards summed with XXH3.
const SCHEME_XXH3: u8 = 2;
/// Flags a reader must know; FORMAT.md, "Versions".
const MUST_KNOW: u16 = 0x00ff;
/// No segment is longer: a bound for decoded lengths.
const MAX_FILE_LEN: u64 = 1 << 30;
/// Parts of the footer follow each other with less than this between them.
const MAX_PADDING: u64 = 4 << 10;

/// The start of a segment file, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Whose segment it is.
    pub name: SegmentName,
    /// Where its parity lies or, while it is open, is to lie.
    pub place: ParityPlace,
}

impl SegmentHeader {
    /// The stored form, up to [`DATA_START`]; the room of the first trailer is zeros.
    pub(super) fn to_bytes(self) -> [u8; DATA_START as usize] {
        let mut bytes = [0; DATA_START as usize];
        put(&mut bytes, AT_MAGIC, &HEADER_MAGIC);
        put_name(&mut bytes, &self.name, self.place);
        bytes[AT_HEADER_PLACE] = self.place.to_byte();
        put(&mut bytes, AT_DATA_START, &(DATA_START as u32).to_le_bytes());
        let checksum = super::short(&blake3::hash(&bytes[AT_VERSION..HEADER_LEN]));
        put(&mut bytes, AT_CHECKSUM, &checksum);
        bytes
    }

    /// Checks the first bytes of a segment.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let what = "segment header";
        let page = bytes.get(..HEADER_LEN).ok_or_else(|| damaged(what, "cut short"))?;
        let version = check_page(what, page, &HEADER_MAGIC, SEGMENT_VERSION)?;
        if u64::from(u32_at(page, AT_DATA_START)) != DATA_START {
            return Err(damaged(what, "frames begin at an unknown place"));
        }
        Ok(Self { name: name_at(page), place: place_at(what, version, page[AT_HEADER_PLACE])? })
    }
}

/// Where everything in a sealed segment lies, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Whose segment it is.
    pub name: SegmentName,
    /// Where its parity lies. In a sidecar, the ranges of parity and tables lie behind the file.
    pub place: ParityPlace,
    /// Length of the whole file.
    pub file_len: u64,
    /// Where the last frame ends.
    pub frames_end: u64,
    /// Where the bytes under parity end; they begin at [`DATA_START`].
    pub protected_end: u64,
    /// The index, under parity.
    pub index_a: Range<u64>,
    /// The same bytes again near the end of the file; empty when they were left out.
    pub index_b: Range<u64>,
    /// Checksums of all shards.
    pub table_a: Range<u64>,
    /// The same bytes again near the end of the file.
    pub table_b: Range<u64>,
    /// The parity shards, all stripes dealt round-robin.
    pub parity: Range<u64>,
    /// How shards and stripes are cut; `None` without parity.
    pub geometry: Option<Geometry>,
    /// Blocks in the index.
    pub blocks: u32,
    /// Checksum of the index.
    pub(super) index_sum: [u8; 16],
    /// Checksum of the shard table.
    pub(super) table_sum: [u8; 16],
}

impl Trailer {
    /// Length of the sidecar; 0 of a segment that has none.
    pub fn sidecar_len(&self) -> u64 {
        match self.place {
            ParityPlace::Object => self.table_b.end.saturating_sub(self.file_len),
            ParityPlace::Inside | ParityPlace::Stores => 0,
        }
    }

    /// Bytes of parity and its checksums, wherever they lie.
    pub fn parity_bytes(&self) -> u64 {
        let len = |range: &Range<u64>| range.end - range.start;
        match self.sidecar_len() {
            0 => len(&self.table_a) + len(&self.parity) + len(&self.table_b),
            sidecar => sidecar,
        }
    }

    /// The stored form.
    pub(super) fn to_bytes(&self) -> [u8; TRAILER_LEN] {
        let mut bytes = [0; TRAILER_LEN];
        put(&mut bytes, AT_MAGIC, &TRAILER_MAGIC);
        put_name(&mut bytes, &self.name, self.place);
        bytes[AT_TRAILER_PLACE] = self.place.to_byte();
        put(&mut bytes, AT_DATA_START, &(DATA_START as u32).to_le_bytes());
        let numbers = [
            (AT_FILE_LEN, self.file_len),
            (AT_FRAMES_END, self.frames_end),
            (AT_PROTECTED_END, self.protected_end),
            (AT_INDEX_A, self.index_a.start),
            (AT_INDEX_B, self.index_b.start),
            (AT_TABLE_A, self.table_a.start),
            (AT_TABLE_B, self.table_b.start),
            (AT_PARITY, self.parity.start),
        ];
        for (at, number) in numbers {
            put(&mut bytes, at, &number.to_le_bytes());
        }
        let index_len = (self.index_a.end - self.index_a.start) as u32;
        put(&mut bytes, AT_INDEX_LEN, &index_len.to_le_bytes());
        put(&mut bytes, AT_BLOCKS, &self.blocks.to_le_bytes());
        if let Some(geometry) = &self.geometry {
            put(&mut bytes, AT_SHARD_LEN, &geometry.shard_len.to_le_bytes());
            put(&mut bytes, AT_DATA_SHARDS, &geometry.data_shards.to_le_bytes());
            put(&mut bytes, AT_STRIPES, &geometry.stripes.to_le_bytes());
            put(&mut bytes, AT_PER_STRIPE, &geometry.parity_per_stripe.to_le_bytes());
            bytes[AT_SCHEME] = match geometry.sum {
                ShardSum::Blake3 => SCHEME_BLAKE3,
                ShardSum::Xxh3 => SCHEME_XXH3,
            };
            bytes[AT_SHARD_SUM_LEN] = SHARD_SUM_LEN as u8;
        }
        put(&mut bytes, AT_INDEX_SUM, &self.index_sum);
        put(&mut bytes, AT_TABLE_SUM, &self.table_sum);
        let checksum = super::short(&blake3::hash(&bytes[AT_VERSION..]));
        put(&mut bytes, AT_CHECKSUM, &checksum);
        bytes
    }

    /// Checks a trailer of the segment `name`.
    pub fn from_bytes(bytes: &[u8], name: &SegmentName) -> Result<Self> {
        let what = "segment trailer";
        let page = bytes.get(..TRAILER_LEN).ok_or_else(|| damaged(what, "cut short"))?;
        let version = check_page(what, page, &TRAILER_MAGIC, SEGMENT_VERSION)?;
        if name_at(page) != *name {
            return Err(damaged(what, "it belongs to another segment"));
        }
        let place = place_at(what, version, page[AT_TRAILER_PLACE])?;
        let trailer = Self::read_fields(page, place)?;
        trailer.check(page).map_err(|reason| damaged(what, reason))?;
        Ok(trailer)
    }

    fn read_fields(page: &[u8], place: ParityPlace) -> Result<Self> {
        let sum = match page[AT_SCHEME] {
            SCHEME_NONE => None,
            SCHEME_BLAKE3 => Some(ShardSum::Blake3),
            SCHEME_XXH3 => Some(ShardSum::Xxh3),
            other => {
                let (found, known) = (u32::from(other), u32::from(SCHEME_XXH3));
                return Err(Error::TooNew { what: "parity scheme", found, known });
            }
        };
        let geometry = sum.map(|sum| Geometry {
            shard_len: u32_at(page, AT_SHARD_LEN),
            data_shards: u32_at(page, AT_DATA_SHARDS),
            stripes: u16_at(page, AT_STRIPES),
            parity_per_stripe: u16_at(page, AT_PER_STRIPE),
            sum,
        });
        if let Some(geometry) = &geometry {
            geometry.check().map_err(|reason| damaged("segment trailer", reason))?;
        }
        let index_len = u64::from(u32_at(page, AT_INDEX_LEN));
        let table_len = geometry.as_ref().map_or(0, Geometry::table_len);
        let parity_len = geometry.as_ref().map_or(0, Geometry::parity_len);
        let range = |at, len: u64| {
            let start = u64_at(page, at);
            start..start.saturating_add(len)
        };
        let index_b_len = if u64_at(page, AT_INDEX_B) == 0 { 0 } else { index_len };
        Ok(Self {
            name: name_at(page),
            place,
            file_len: u64_at(page, AT_FILE_LEN),
            frames_end: u64_at(page, AT_FRAMES_END),
            protected_end: u64_at(page, AT_PROTECTED_END),
            index_a: range(AT_INDEX_A, index_len),
            index_b: if index_b_len == 0 { 0..0 } else { range(AT_INDEX_B, index_b_len) },
            table_a: range(AT_TABLE_A, table_len),
            table_b: range(AT_TABLE_B, table_len),
            parity: range(AT_PARITY, parity_len),
            geometry,
            blocks: u32_at(page, AT_BLOCKS),
            index_sum: array_at(page, AT_INDEX_SUM),
            table_sum: array_at(page, AT_TABLE_SUM),
        })
    }

    /// The parts behind the bytes under parity, in order, the end trailer among them; those of a
    /// sidecar come last, its header first.
    pub(super) fn parts_behind(&self) -> Vec<Range<u64>> {
        let parity = [self.table_a.clone(), self.parity.clone(), self.table_b.clone()];
        let trailer = self.file_len.saturating_sub(TRAILER_LEN as u64)..self.file_len;
        let index_b = Some(self.index_b.clone()).filter(|range| !range.is_empty());
        let end = index_b.into_iter().chain([trailer]);
        if self.place != ParityPlace::Object {
            return parity.into_iter().chain(end).collect();
        }
        let header = self.file_len..self.file_len.saturating_add(SIDECAR_HEADER_LEN as u64);
        end.chain([header]).chain(parity).collect()
    }

    /// Refuses places that overlap or lie outside the file.
    fn check(&self, page: &[u8]) -> Result<(), &'static str> {
        if self.file_len > MAX_FILE_LEN {
            return Err("file length out of range");
        }
        if u64::from(u32_at(page, AT_DATA_START)) != DATA_START {
            return Err("frames begin at an unknown place");
        }
        if (self.place == ParityPlace::Stores) != self.geometry.is_none()
            && self.place != ParityPlace::Inside
        {
            return Err("its parity is not where it should be");
        }
        if self.index_b.is_empty() && self.index_b.start != 0 {
            return Err("its second index lies out of range");
        }
        let mut ends = vec![
            DATA_START..self.frames_end,
            self.index_a.clone(),
            self.protected_end..self.protected_end,
        ];
        ends.extend(self.parts_behind());
        let ordered = ends.windows(2).all(|pair| pair[0].end <= pair[1].start);
        if !ordered || ends.iter().any(|range| range.start > range.end) {
            return Err("its parts overlap or are out of order");
        }
        if ends[2..].windows(2).any(|pair| pair[1].start - pair[0].end > MAX_PADDING) {
            return Err("its parts lie too far apart");
        }
        if ends.last().is_some_and(|last| last.end > MAX_FILE_LEN) {
            return Err("its parity lies out of range");
        }
        let protected = self.protected_end - DATA_START;
        match &self.geometry {
            Some(geometry) if !geometry.covers(protected) => {
                Err("its shards do not cover the bytes under parity")
            }
            _ => Ok(()),
        }
    }
}

fn put_name(bytes: &mut [u8], name: &SegmentName, place: ParityPlace) {
    // Who knows no other place than inside must not take such a segment for whole.
    let version = if place == ParityPlace::Inside { INSIDE_VERSION } else { SEGMENT_VERSION };
    put(bytes, AT_VERSION, &version.to_le_bytes());
    put(bytes, AT_VOLUME, &name.volume.0);
    put(bytes, AT_SEGMENT, &name.id.raw().to_le_bytes());
}

fn name_at(page: &[u8]) -> SegmentName {
    SegmentName {
        volume: VolumeId(array_at(page, AT_VOLUME)),
        id: SegmentId::from_raw(u64_at(page, AT_SEGMENT)),
    }
}

/// Where a page of that version says that the parity lies.
fn place_at(what: &'static str, version: u16, byte: u8) -> Result<ParityPlace> {
    if version == INSIDE_VERSION {
        return Ok(ParityPlace::Inside);
    }
    match ParityPlace::from_byte(byte) {
        Some(ParityPlace::Inside) => Err(damaged(what, "its version is not that of its parity")),
        Some(place) => Ok(place),
        None => {
            let (found, known) = (u32::from(byte), u32::from(ParityPlace::Stores.to_byte()));
            Err(Error::TooNew { what: "place of parity", found, known })
        }
    }
}

/// Whom a trailer names, if its checksum is right; whatever its version, the name stands there.
pub(super) fn page_name(bytes: &[u8]) -> Option<SegmentName> {
    let page = bytes.get(..TRAILER_LEN)?;
    match check_page("segment trailer", page, &TRAILER_MAGIC, SEGMENT_VERSION) {
        Ok(_) | Err(Error::TooNew { .. }) => Some(name_at(page)),
        Err(_) => None,
    }
}

/// Checks magic, checksum, version and flags, which all pages have at the same places; returns the
/// version, which is `newest` at most.
fn check_page(what: &'static str, page: &[u8], magic: &[u8; 8], newest: u16) -> Result<u16> {
    if page[..8] != *magic {
        return Err(damaged(what, "not there"));
    }
    if super::short(&blake3::hash(&page[AT_VERSION..])) != array_at::<16>(page, AT_CHECKSUM) {
        return Err(damaged(what, "checksum differs"));
    }
    let (version, flags) = (u16_at(page, AT_VERSION), u16_at(page, AT_FLAGS));
    let known = u32::from(newest);
    if !(1..=newest).contains(&version) {
        return Err(Error::TooNew { what, found: u32::from(version), known });
    }
    if flags & MUST_KNOW != 0 {
        return Err(Error::TooNew { what, found: known + 1, known });
    }
    Ok(version)
}
