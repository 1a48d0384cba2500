//! Where the parity of a segment lies, and a segment with its parity as one run of bytes.
//!
//! A segment either carries its parity and shard tables, or they lie apart in a *sidecar*, or the
//! segment has none and relies on the stores that its object is spread over. A sidecar is thought
//! of as standing behind its segment: the trailer names places in it by offsets beyond the
//! segment's end, so that one repair serves all. Nothing but parity lies in a sidecar, so whatever
//! happens to it costs protection and never a block.

use std::io;
use std::ops::Range;

use super::align_up;
use super::bytes_at::ReadAt;
use super::header::Trailer;
use super::le::put;

const MAGIC: [u8; 8] = *b"\xf1Parit\r\n";
/// Version of a sidecar's bytes.
const SIDECAR_VERSION: u16 = 1;

// Field offsets of the sidecar's header; FORMAT.md, "Sidecar".
const AT_MAGIC: usize = 0;
const AT_CHECKSUM: usize = AT_MAGIC + 8;
const AT_VERSION: usize = AT_CHECKSUM + 16;
const AT_FLAGS: usize = AT_VERSION + 2;
const AT_TABLE_LEN: usize = AT_FLAGS + 2;
const AT_VOLUME: usize = AT_TABLE_LEN + 4;
const AT_SEGMENT: usize = AT_VOLUME + 16;
const AT_FILE_LEN: usize = AT_SEGMENT + 8;
const AT_SIDECAR_LEN: usize = AT_FILE_LEN + 8;
const AT_PARITY_LEN: usize = AT_SIDECAR_LEN + 8;
const AT_TABLE_SUM: usize = AT_PARITY_LEN + 8;
const AT_RESERVED: usize = AT_TABLE_SUM + 16;
/// Length of a sidecar's header.
pub(super) const SIDECAR_HEADER_LEN: usize = AT_RESERVED + 32;
const _: () = assert!(SIDECAR_HEADER_LEN == 128);

/// Parity begins at a multiple of this within a sidecar.
const PARITY_ALIGN: u64 = 64;

/// Where the parity of a segment lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ParityPlace {
    /// In the segment itself.
    #[default]
    Inside,
    /// In a sidecar: a file beside the segment's, and an object of its own in cold.
    Object,
    /// Nowhere: the cold tier spreads each object over several stores, some of which may be lost.
    Stores,
}

impl ParityPlace {
    /// Every place.
    pub const ALL: [Self; 3] = [Self::Inside, Self::Object, Self::Stores];

    /// The stored form.
    pub const fn to_byte(self) -> u8 {
        self as u8
    }

    /// From the stored form.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|place| place.to_byte() == byte)
    }

    /// What people call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inside => "inside",
            Self::Object => "object",
            Self::Stores => "stores",
        }
    }

    /// The place that people call so.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|place| place.as_str() == name)
    }
}

/// Where the parts of a sidecar lie, behind a segment of `file_len` bytes: shard table A, parity,
/// shard table B.
pub(super) fn sidecar_parts(file_len: u64, table_len: u64, parity_len: u64) -> [Range<u64>; 3] {
    let span = |start: u64, len: u64| start..start + len;
    let table_a = span(SIDECAR_HEADER_LEN as u64, table_len);
    let parity = span(align_up(table_a.end, PARITY_ALIGN), parity_len);
    let table_b = span(align_up(parity.end, PARITY_ALIGN), table_len);
    [table_a, parity, table_b].map(|part| file_len + part.start..file_len + part.end)
}

/// The header of a segment's sidecar. All of it follows from the trailer, so that damage to it
/// loses nothing; it tells a person, and who has no segment, what the file is.
pub(super) fn sidecar_header(trailer: &Trailer) -> [u8; SIDECAR_HEADER_LEN] {
    let mut bytes = [0; SIDECAR_HEADER_LEN];
    put(&mut bytes, AT_MAGIC, &MAGIC);
    put(&mut bytes, AT_VERSION, &SIDECAR_VERSION.to_le_bytes());
    let table_len = (trailer.table_a.end - trailer.table_a.start) as u32;
    put(&mut bytes, AT_TABLE_LEN, &table_len.to_le_bytes());
    put(&mut bytes, AT_VOLUME, &trailer.name.volume.0);
    put(&mut bytes, AT_SEGMENT, &trailer.name.id.raw().to_le_bytes());
    put(&mut bytes, AT_FILE_LEN, &trailer.file_len.to_le_bytes());
    put(&mut bytes, AT_SIDECAR_LEN, &trailer.sidecar_len().to_le_bytes());
    let parity_len = trailer.parity.end - trailer.parity.start;
    put(&mut bytes, AT_PARITY_LEN, &parity_len.to_le_bytes());
    put(&mut bytes, AT_TABLE_SUM, &trailer.table_sum);
    let checksum = super::short(&blake3::hash(&bytes[AT_VERSION..]));
    put(&mut bytes, AT_CHECKSUM, &checksum);
    bytes
}

/// A segment with its sidecar behind it, as the offsets of its trailer have it. What either is too
/// short for are zeros, which fail verification; a sidecar that is not there cannot be read.
pub struct Joined<'a, R: ?Sized> {
    bytes: &'a R,
    file_len: u64,
    len: u64,
}

impl<'a, R: ReadAt + ?Sized> Joined<'a, R> {
    /// Of a segment that has `file_len` bytes and its sidecar `sidecar_len`.
    pub fn new(bytes: &'a R, file_len: u64, sidecar_len: u64) -> Self {
        Self { bytes, file_len, len: file_len + sidecar_len }
    }
}

impl<R: ReadAt + ?Sized> ReadAt for Joined<'_, R> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.len);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let inside = self.file_len.clamp(offset, end) - offset;
        let (segment, sidecar) = buf.split_at_mut(inside as usize);
        if !segment.is_empty() {
            let there = there(segment, self.bytes.len()?, offset);
            if !there.is_empty() {
                self.bytes.read_exact_at(there, offset)?;
            }
        }
        if !sidecar.is_empty() {
            let start = offset.max(self.file_len) - self.file_len;
            let there = there(sidecar, self.bytes.sidecar_len()?, start);
            if !there.is_empty() {
                self.bytes.read_sidecar_at(there, start)?;
            }
        }
        Ok(())
    }
}

/// The part of `buf`, from `offset` on, that a file of `len` bytes has; the rest becomes zeros.
fn there(buf: &mut [u8], len: u64, offset: u64) -> &mut [u8] {
    let there = len.saturating_sub(offset).min(buf.len() as u64) as usize;
    let (there, missing) = buf.split_at_mut(there);
    missing.fill(0);
    there
}
