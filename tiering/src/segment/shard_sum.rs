//! The checksum that locates a damaged shard, for the erasure code to repair it.
//!
//! It meets chance, not malice: what a block holds is proven by its BLAKE3 in any case, so a shard
//! forged to match its sum is found out when its frame is read. XXH3 finds a damaged shard as
//! surely at a quarter of the time; segments sealed before it came have BLAKE3.

use twox_hash::XxHash3_128;

/// Bytes of a shard's checksum.
pub(super) const SHARD_SUM_LEN: usize = 16;

/// What the shard tables of a segment are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardSum {
    /// The first 16 bytes of BLAKE3.
    Blake3,
    /// XXH3 of 128 bits without a seed, its lower half first.
    Xxh3,
}

impl ShardSum {
    /// Checksum of a shard, filled up with zeros.
    pub(super) fn of(self, shard: &[u8]) -> [u8; SHARD_SUM_LEN] {
        match self {
            Self::Blake3 => super::short(&blake3::hash(shard)),
            Self::Xxh3 => XxHash3_128::oneshot(shard).to_le_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_format() {
        // What `xxh128sum`, read from its end, and `b3sum` print for the same bytes.
        let hex = |sum: [u8; SHARD_SUM_LEN]| sum.map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(hex(ShardSum::Xxh3.of(b"abc")), "50392f89945faf7885613a73b65ab006");
        assert_eq!(hex(ShardSum::Blake3.of(b"abc")), "6437b3ac38465133ffb63b75273a8db5");
    }
}
