//! Adaptive encoding: chooses filter and codec for a block by looking at the data, and decodes
//! cells again. Pure functions; nothing here touches a disk.
//!
//! A block is cut into cells of 64 KiB that are filtered and compressed alone, all with the
//! block's one choice; a cell that would not shrink is stored raw and unfiltered. The choice is
//! made on a sample ([`probe`]), remembered along a stream ([`EncodeMemory`]), and never part of
//! what decoding needs to trust: a frame names its codec and filter, and [`decode_cell`] is
//! bounded by the plaintext length that the frame records.

mod choose;
mod codec;
mod compression;
mod filter;

use std::cell::RefCell;
use std::fmt;

use bytes::Bytes;

pub use choose::{Candidate, Choice, EncodeMemory, Probe, probe};
pub use compression::{Compression, UnknownCompression};

use crate::block::{CELL_LEN, MAX_BLOCK_LEN};
use crate::buffers::Buffer;
use crate::error::{Error, Result};

/// How hard to try. Chosen by load: when writers outpace the encoders, cheaper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effort {
    /// lz4 only, behind a filter where one clearly helps.
    Fast,
    /// zstd-1 behind a filter chosen by sampling, or lz4 where it is as good.
    Normal,
    /// zstd at a middle level with every filter tried on the sample: encoders are idle.
    High,
    /// zstd-19 with every filter tried: data bound for the cold tier.
    Archive,
}

/// What compresses a cell. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// Stored as it is.
    None = 0,
    /// LZ4 block format.
    Lz4 = 1,
    /// Zstandard frame, levels 1 to 19.
    Zstd = 2,
    /// gzip (RFC 1952).
    Gzip = 3,
    /// bzip2.
    Bzip2 = 4,
}

/// What is done to a cell before it is compressed, and undone after. The stored form is
/// `kind (low nibble) | log2(width) << 4 | big-endian << 7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Filter {
    /// Nothing.
    None,
    /// Bytes of equal significance side by side, for elements of `width` 2, 4 or 8 bytes.
    Shuffle {
        /// Element width in bytes.
        width: u8,
    },
    /// Zigzag difference of neighbouring elements, then shuffle.
    DeltaShuffle {
        /// Element width in bytes.
        width: u8,
        /// Elements are big-endian (FITS, classic netCDF).
        big_endian: bool,
    },
}

impl Codec {
    /// The stored form.
    pub const fn to_byte(self) -> u8 {
        self as u8
    }

    /// The codec with this stored form.
    pub fn from_byte(byte: u8) -> Result<Self> {
        match byte {
            0 => Ok(Self::None),
            1 => Ok(Self::Lz4),
            2 => Ok(Self::Zstd),
            3 => Ok(Self::Gzip),
            4 => Ok(Self::Bzip2),
            _ => Err(Error::Damaged { what: "codec", reason: format!("unknown number {byte}") }),
        }
    }

    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Filter {
    const SHUFFLE: u8 = 1;
    const DELTA_SHUFFLE: u8 = 2;
    const BIG_ENDIAN: u8 = 1 << 7;

    /// The stored form.
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Shuffle { width } => Self::SHUFFLE | Self::width_bits(width),
            Self::DeltaShuffle { width, big_endian: false } => {
                Self::DELTA_SHUFFLE | Self::width_bits(width)
            }
            Self::DeltaShuffle { width, big_endian: true } => {
                Self::DELTA_SHUFFLE | Self::width_bits(width) | Self::BIG_ENDIAN
            }
        }
    }

    /// The filter with this stored form.
    pub fn from_byte(byte: u8) -> Result<Self> {
        let filter = if byte == 0 {
            Self::None
        } else {
            let width = 1 << (byte >> 4 & 7);
            match byte & 0xf {
                Self::SHUFFLE => Self::Shuffle { width },
                Self::DELTA_SHUFFLE => {
                    Self::DeltaShuffle { width, big_endian: byte & Self::BIG_ENDIAN != 0 }
                }
                _ => return Err(Self::unknown(byte)),
            }
        };
        // Whatever has another spelling or another width was never written.
        if filter.is_supported() && filter.to_byte() == byte {
            Ok(filter)
        } else {
            Err(Self::unknown(byte))
        }
    }

    const fn width_bits(width: u8) -> u8 {
        (width.trailing_zeros() as u8 & 7) << 4
    }

    /// Runs of bytes with a distribution of their own in a filtered cell.
    const fn planes(self) -> usize {
        match self {
            Self::None => 1,
            Self::Shuffle { width } | Self::DeltaShuffle { width, .. } => width as usize,
        }
    }

    const fn is_supported(self) -> bool {
        match self {
            Self::None => true,
            Self::Shuffle { width } | Self::DeltaShuffle { width, .. } => {
                matches!(width, 2 | 4 | 8)
            }
        }
    }

    fn unknown(byte: u8) -> Error {
        Error::Damaged { what: "filter", reason: format!("unknown number {byte:#04x}") }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Shuffle { width } => write!(f, "shuffle{width}"),
            Self::DeltaShuffle { width, big_endian: false } => write!(f, "delta{width}le"),
            Self::DeltaShuffle { width, big_endian: true } => write!(f, "delta{width}be"),
        }
    }
}

/// A block after encoding.
#[derive(Clone, Debug)]
pub struct EncodedBlock {
    /// Codec of every cell that is shorter than its plaintext.
    pub codec: Codec,
    /// Filter of those cells.
    pub filter: Filter,
    /// Level passed to the codec, for `explain`.
    pub level: u8,
    /// Plaintext length of the block.
    pub plain_len: u32,
    /// Stored length of each cell, in order. A cell as long as its plaintext is stored raw and
    /// unfiltered.
    pub cell_lens: Vec<u32>,
    /// The cells, one after the other.
    pub payload: Bytes,
}

/// Working memory of one thread: a filtered cell and the cells encoded so far.
#[derive(Default)]
struct Scratch {
    filtered: Vec<u8>,
    payload: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Encodes one block of 1 to [`crate::MAX_BLOCK_LEN`] bytes.
///
/// # Panics
///
/// When `plain` is empty or longer.
pub fn encode_block(plain: &[u8], memory: &mut EncodeMemory, effort: Effort) -> EncodedBlock {
    assert!(
        (1..=MAX_BLOCK_LEN).contains(&plain.len()),
        "a block has 1 to {MAX_BLOCK_LEN} bytes, this one {}",
        plain.len()
    );
    memory.encode(plain, effort)
}

/// Encodes one block with a codec, a filter and a level that the caller chose.
///
/// # Panics
///
/// When `plain` is empty or longer than [`crate::MAX_BLOCK_LEN`], or the filter's width is none
/// of 2, 4 and 8.
pub fn encode_block_as(plain: &[u8], codec: Codec, filter: Filter, level: u8) -> EncodedBlock {
    assert!((1..=MAX_BLOCK_LEN).contains(&plain.len()), "a block has 1 to {MAX_BLOCK_LEN} bytes");
    assert!(filter.is_supported(), "filters exist for the widths 2, 4 and 8");
    if codec == Codec::None {
        return raw_block(plain);
    }
    SCRATCH.with_borrow_mut(|scratch| {
        let room = plain.len() + codec::bound(CELL_LEN);
        if scratch.payload.len() < room {
            scratch.payload.resize(room, 0);
        }
        let mut end = 0;
        let mut shrunk = false;
        let mut cell_lens = Vec::with_capacity(plain.len().div_ceil(CELL_LEN));
        for cell in plain.chunks(CELL_LEN) {
            let out = &mut scratch.payload[end..];
            let len = match encode_cell(cell, codec, filter, level, &mut scratch.filtered, out) {
                Some(len) => {
                    shrunk = true;
                    len
                }
                None => {
                    out[..cell.len()].copy_from_slice(cell);
                    cell.len()
                }
            };
            cell_lens.push(len as u32);
            end += len;
        }
        if !shrunk {
            return raw_block(plain);
        }
        EncodedBlock {
            codec,
            filter,
            level,
            plain_len: plain.len() as u32,
            cell_lens,
            payload: copied(&scratch.payload[..end]),
        }
    })
}

/// A cell must shrink by this part of itself, or reading it without decoding is worth more.
const LEAST_GAIN_DIVISOR: usize = 64;

/// Encodes one cell to the front of `out`; `None` when it is better stored raw.
fn encode_cell(
    plain: &[u8],
    codec: Codec,
    filter: Filter,
    level: u8,
    filtered: &mut Vec<u8>,
    out: &mut [u8],
) -> Option<usize> {
    let input = if filter == Filter::None {
        plain
    } else {
        filtered.resize(plain.len(), 0);
        filter::apply(filter, plain, filtered);
        filtered
    };
    let most = plain.len() - (plain.len() / LEAST_GAIN_DIVISOR).max(1);
    codec::compress(codec, level, filter.planes(), input, out).filter(|len| *len <= most)
}

fn raw_block(plain: &[u8]) -> EncodedBlock {
    EncodedBlock {
        codec: Codec::None,
        filter: Filter::None,
        level: 0,
        plain_len: plain.len() as u32,
        cell_lens: plain.chunks(CELL_LEN).map(|cell| cell.len() as u32).collect(),
        payload: copied(plain),
    }
}

/// `cells` in memory that is used again.
fn copied(cells: &[u8]) -> Bytes {
    let mut copy = Buffer::with_capacity(cells.len());
    copy.extend_from_slice(cells);
    copy.share()
}

/// Decodes one cell of exactly `plain_len` bytes. Damaged input is an error, and never makes the
/// output larger than `plain_len`.
pub fn decode_cell(
    stored: &[u8],
    codec: Codec,
    filter: Filter,
    plain_len: usize,
) -> Result<Vec<u8>> {
    if plain_len > CELL_LEN {
        return Err(Error::Damaged {
            what: "cell",
            reason: format!("records {plain_len} bytes of plaintext, more than {CELL_LEN}"),
        });
    }
    let mut plain = vec![0; plain_len];
    decode_cell_into(stored, codec, filter, &mut plain)?;
    Ok(plain)
}

/// Decodes one cell to exactly fill `plain`, whose contents are unspecified after an error.
pub fn decode_cell_into(
    stored: &[u8],
    codec: Codec,
    filter: Filter,
    plain: &mut [u8],
) -> Result<()> {
    if stored.len() == plain.len() {
        plain.copy_from_slice(stored);
        return Ok(());
    }
    if stored.len() > plain.len() {
        return Err(Error::Damaged {
            what: "cell",
            reason: format!("{} stored bytes for {} of plaintext", stored.len(), plain.len()),
        });
    }
    if !filter.is_supported() {
        return Err(Filter::unknown(filter.to_byte()));
    }
    if filter == Filter::None {
        return codec::decompress(codec, stored, plain);
    }
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.filtered.resize(plain.len(), 0);
        codec::decompress(codec, stored, &mut scratch.filtered)?;
        filter::undo(filter, &scratch.filtered, plain);
        Ok(())
    })
}

#[cfg(test)]
mod tests;
