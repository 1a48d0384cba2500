//! Adaptive encoding: chooses filter and codec for a block by looking at the data, and decodes
//! cells again. Pure functions; nothing here touches a disk.

use bytes::Bytes;

use crate::error::Result;

/// How hard to try. Chosen by load: when writers outpace the encoders, cheaper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effort {
    /// lz4 only, and only where it clearly helps.
    Fast,
    /// zstd at a low level, filters chosen by sampling.
    Normal,
    /// zstd at a middle level: encoders are idle.
    High,
    /// zstd-19 with every filter candidate: data bound for the cold tier.
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

/// What encoding remembers along one stream (usually a file), so that not every block is probed.
#[derive(Clone, Debug, Default)]
pub struct EncodeMemory {}

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

/// Encodes one block of 1 to [`crate::MAX_BLOCK_LEN`] bytes.
pub fn encode_block(_plain: &[u8], _memory: &mut EncodeMemory, _effort: Effort) -> EncodedBlock {
    todo!()
}

/// Decodes one cell of exactly `plain_len` bytes. Damaged input is an error, and never makes the
/// output larger than `plain_len`.
pub fn decode_cell(
    _stored: &[u8],
    _codec: Codec,
    _filter: Filter,
    _plain_len: usize,
) -> Result<Vec<u8>> {
    todo!()
}
