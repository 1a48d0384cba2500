//! What a block is called: ids that grow with time, digests that tell old from new, and the
//! reference that a namespace stores.

use std::fmt;

/// Plaintext bytes in the largest block: 1 MiB.
pub const MAX_BLOCK_LEN: usize = 1 << 20;

/// Most bytes of a block as stored, with its header: the longest frame and room to spare.
pub const MAX_EXPORT_LEN: usize = 2 * MAX_BLOCK_LEN;

/// Plaintext bytes in one cell, the unit that is decoded and verified alone: 64 KiB.
pub const CELL_LEN: usize = 64 << 10;

/// Bits of a [`BlockId`] that count within an epoch.
const COUNTER_BITS: u32 = 48;

/// A period of a volume's life. Every recovery, rebuild and unclean mount begins a new one, so
/// that an id handed out before a crash is never handed out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u16);

/// Names one block for ever: `epoch (16 bits) | counter (48 bits)`. Grows with time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(u64);

impl BlockId {
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
}

impl fmt::Debug for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The first 16 bytes of a block's BLAKE3 over its plaintext.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockDigest(pub [u8; 16]);

impl BlockDigest {
    /// The digest of `plain`.
    pub fn of(plain: &[u8]) -> Self {
        Self::from_hash(&blake3::hash(plain))
    }

    /// The digest that belongs to a whole BLAKE3 hash.
    pub fn from_hash(hash: &blake3::Hash) -> Self {
        let mut short = [0; 16];
        short.copy_from_slice(&hash.as_bytes()[..16]);
        Self(short)
    }
}

impl fmt::Debug for BlockDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for BlockDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a namespace stores to find a block and to know it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockRef {
    /// The block's name.
    pub id: BlockId,
    /// What its plaintext must hash to.
    pub digest: BlockDigest,
    /// Plaintext length in bytes, 1 to [`MAX_BLOCK_LEN`].
    pub len: u32,
}
