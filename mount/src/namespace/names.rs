//! Names: which are allowed, and where a name's entry lies in its directory.

use super::record::{BUCKET_BITS, NAME_MAX};
use crate::error::{FsError, FsResult};

/// Cookie behind `.` in a listing.
pub(super) const DOT_COOKIE: u64 = 1;
/// Cookie behind `..` in a listing.
pub(super) const DOT_DOT_COOKIE: u64 = 2;

const POSITION_MASK: u64 = (1 << BUCKET_BITS) - 1;

/// The keyed hash of names. Its seed is secret, so that nobody can fill one bucket on purpose.
#[derive(Clone, Debug)]
pub(super) struct NameHash {
    seed: [u8; 32],
    mask: u64,
}

impl NameHash {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        Self { seed, mask: u64::MAX }
    }

    /// A weak hash, to see what collisions do.
    #[cfg(test)]
    pub(super) fn weak(seed: [u8; 32], mask: u64) -> Self {
        Self { seed, mask }
    }

    /// The number of the bucket that holds `name`: the first 8 bytes (little-endian) of its keyed
    /// BLAKE3 without the top bit, which programs take for a sign, and without the low bits,
    /// which are the position in the bucket. Never below 256: small cookies are `.` and `..`.
    pub(super) fn bucket(&self, name: &[u8]) -> u64 {
        let hash = blake3::keyed_hash(&self.seed, name);
        let mut first = [0; 8];
        first.copy_from_slice(&hash.as_bytes()[..8]);
        let bucket = u64::from_le_bytes(first) & self.mask & (u64::MAX >> 1) & !POSITION_MASK;
        bucket.max(1 << BUCKET_BITS)
    }
}

/// The bucket that a cookie points into.
pub(super) fn bucket_of_cookie(cookie: u64) -> u64 {
    cookie & !POSITION_MASK
}

/// The position in that bucket.
pub(super) fn position_of_cookie(cookie: u64) -> u8 {
    (cookie & POSITION_MASK) as u8
}

/// The cookie of an entry.
pub(super) fn cookie_of(bucket: u64, position: u8) -> u64 {
    bucket | u64::from(position)
}

/// Fails unless `name` can name a new or existing entry.
pub(super) fn check_name(name: &[u8]) -> FsResult<()> {
    if name.len() > NAME_MAX {
        return Err(FsError::NameTooLong);
    }
    if name.is_empty() {
        return Err(FsError::NotFound);
    }
    if name == b"." || name == b".." {
        return Err(FsError::Invalid("name is . or .."));
    }
    if name.contains(&0) || name.contains(&b'/') {
        return Err(FsError::Invalid("name holds a slash or a zero"));
    }
    Ok(())
}
