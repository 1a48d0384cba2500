//! Segments: append-only runs of frames, sealed with an index, checksums and parity.
//!
//! Pure format code over bytes, and a writer over one local file; no catalog and no tiers. The
//! stored bytes, and the state after a crash at each step, are specified in `tiering/FORMAT.md`.
//!
//! Life of a segment: [`SegmentWriter::create`] makes `<id>.open`, [`SegmentWriter::append`] adds
//! frames, `sync` makes them durable, [`SegmentWriter::seal`] adds the footer and renames to
//! `<id>.seg`. After a crash [`SegmentWriter::recover`] finds the frames of an open file again.
//! Bytes come out only through [`CellRead::open`], which verifies them.

mod bytes_at;
mod code;
mod entry;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod hash;
mod header;
mod identity;
mod index;
mod le;
mod locate;
mod parity;
mod patched;
mod place;
mod repair;
mod scan;
mod shard_sum;
mod travel;
mod unprotected;
mod verified;
mod writer;

use std::fmt;

use crate::block::Epoch;

pub use bytes_at::ReadAt;
pub(crate) use code::StripeCode;
pub use entry::{CellLens, CellRead, IndexEntry, MAX_CELLS};
pub use frame::{
    FRAME_ALIGN, FRAME_MAX_HEADER_LEN, Frame, FrameHeader, UnverifiedFrameHeader, verify_frame,
};
pub use hash::{BlockHash, hash_block};
pub use header::{DATA_START, SegmentHeader, TRAILER_LEN, Trailer};
pub use identity::{Identity, identify};
pub use index::SegmentIndex;
pub use locate::IndexFetch;
pub use parity::Geometry;
pub use patched::Patched;
pub use place::{Joined, ParityPlace};
pub use repair::{Damage, Part, Patch, Repair, check_frame, check_frames, repair};
pub use scan::{Scan, ScannedFrame, scan_frames};
pub use shard_sum::ShardSum;
pub use unprotected::leave_unprotected;
pub use verified::{TAG_LEN, Verified, open_cells};
pub use writer::{Recovered, SealedInfo, SegmentWriter};

/// The newest version of the segment format that this program writes and reads: of segments whose
/// parity lies elsewhere. One with its parity inside is written in version 1.
pub const SEGMENT_VERSION: u16 = 2;

/// Bytes of a segment, up to the end of its index, at which it is sealed: 1004 shards of 64 KiB.
pub const SEGMENT_TARGET: u64 = 1004 * (64 << 10);

/// Bits of a [`SegmentId`] that count within an epoch.
const COUNTER_BITS: u32 = 48;

/// Names one segment for ever: `epoch (16 bits) | counter (48 bits)`. Grows with time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(u64);

impl SegmentId {
    /// The id with this epoch and counter; `None` when the counter exceeds 48 bits.
    pub fn new(epoch: Epoch, counter: u64) -> Option<Self> {
        (counter >> COUNTER_BITS == 0).then_some(Self(u64::from(epoch.0) << COUNTER_BITS | counter))
    }

    /// The id as stored.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The stored form.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The period in which the id was handed out.
    pub const fn epoch(self) -> Epoch {
        Epoch((self.0 >> COUNTER_BITS) as u16)
    }

    /// Name of the file that holds this segment in that state.
    pub fn file_name(self, kind: FileKind) -> String {
        format!("{self}.{}", kind.extension())
    }

    /// Key of the sealed segment in the cold tier.
    pub fn object_key(self) -> String {
        format!("segments/{}", self.file_name(FileKind::Sealed))
    }

    /// Key of the sealed segment's sidecar in the cold tier, if it has one.
    pub fn sidecar_key(self) -> String {
        format!("{SIDECARS}{}", self.file_name(FileKind::Sidecar))
    }

    /// The segment whose sidecar an object of the cold tier is, by its key.
    pub fn of_sidecar_key(key: &str) -> Option<Self> {
        match Self::parse_file_name(key.strip_prefix(SIDECARS)?) {
            Some((id, FileKind::Sidecar)) => Some(id),
            _ => None,
        }
    }

    /// Takes a file name apart; `None` for names that are not a segment's.
    pub fn parse_file_name(name: &str) -> Option<(Self, FileKind)> {
        let (hex, extension) = name.split_once('.')?;
        let kind = FileKind::ALL.into_iter().find(|kind| kind.extension() == extension)?;
        let lower = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if hex.len() != 16 || !lower {
            return None;
        }
        u64::from_str_radix(hex, 16).ok().map(|raw| (Self(raw), kind))
    }
}

impl fmt::Debug for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a local file of a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Being written: header and frames, no footer that may be relied on.
    Open,
    /// Complete and immutable.
    Sealed,
    /// The index alone, kept after the data was evicted.
    Index,
    /// The parity of a sealed segment that does not carry it.
    Sidecar,
}

/// Where sidecars lie in the cold tier.
pub const SIDECARS: &str = "parity/";

impl FileKind {
    const ALL: [Self; 4] = [Self::Open, Self::Sealed, Self::Index, Self::Sidecar];

    const fn extension(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Sealed => "seg",
            Self::Index => "idx",
            Self::Sidecar => "par",
        }
    }
}

/// The volume a segment belongs to: its UUID.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct VolumeId(pub [u8; 16]);

impl fmt::Debug for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A segment's full name. Frame headers are checked with a key made of it, so that frames of
/// another segment or volume, say of a volume stored inside a volume, are never taken for its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SegmentName {
    /// The volume.
    pub volume: VolumeId,
    /// The segment in it.
    pub id: SegmentId,
}

impl SegmentName {
    /// Key of the BLAKE3 that checks frame headers: `volume | id, little-endian | 8 zeros`.
    fn frame_key(&self) -> [u8; 32] {
        let mut key = [0; 32];
        key[..16].copy_from_slice(&self.volume.0);
        key[16..24].copy_from_slice(&self.id.raw().to_le_bytes());
        key
    }
}

/// The first 16 bytes of a BLAKE3, as checksums are stored.
fn short(hash: &blake3::Hash) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&hash.as_bytes()[..16]);
    short
}

/// `len` rounded up to a multiple of the power of two `align`.
const fn align_up(len: u64, align: u64) -> u64 {
    len.div_ceil(align) * align
}

fn damaged(what: &'static str, reason: impl Into<String>) -> crate::Error {
    crate::Error::Damaged { what, reason: reason.into() }
}

#[cfg(test)]
mod tests;
