//! Reed-Solomon parity over a segment: how shards and stripes are cut, and parity and checksums
//! computed in one streaming pass.
//!
//! An erasure code repairs what a checksum has located, so every shard, parity included, has a
//! checksum of 16 bytes in the shard table. Shards are dealt round-robin over the stripes, parity going
//! on where the data stopped, so that any run of `n` shards meets at most `ceil(n / stripes)` of one.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::buffers::Buffer;
use crate::error::{Error, Result};

use super::align_up;
use super::bytes_at::{ReadAt, ZeroFilled};
use super::code::StripeCode;
use super::header::Trailer;
use super::shard_sum::{SHARD_SUM_LEN, ShardSum};

/// Parity shards in each stripe: three for a run of damage, two for strays.
const PARITY_PER_STRIPE: u16 = 5;
/// Fewest stripes of a segment that has that many shards.
const STRIPES: u16 = 4;
/// Data shards that a segment is cut into: 251 in each of four stripes.
const MOST_DATA_SHARDS: u64 = 251 * STRIPES as u64;
/// Shards are a multiple of this long, for the vector units.
const SHARD_ALIGN: u64 = 64;
/// Shorter shards would cost more in checksums than they save in parity.
const LEAST_SHARD_LEN: u64 = 256;
/// Shards of one stripe, data and parity: the field has no more elements.
const MOST_STRIPE_SHARDS: u32 = 256;
/// Bytes of one shard of each stripe: a segment that is large has few stripes.
const WIDEST: u64 = 16 << 20;
/// Data shards of a stripe that are read and added to its parity at once.
const AT_ONCE: u32 = 4;
/// Longest run of damage that parity is laid out for, as a fraction of the segment.
const RUN_FRACTION: u64 = 100;

/// The codes that writers use, by their data shards: making one takes as long as a tenth of its work.
static CODES: [OnceLock<Arc<StripeCode>>; MOST_STRIPE_SHARDS as usize] =
    [const { OnceLock::new() }; MOST_STRIPE_SHARDS as usize];

/// How the bytes under parity are cut into shards and stripes, and shards summed. Recorded in the trailer; readers
/// assume nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of each shard; the last data shard is thought of as filled up with zeros.
    pub shard_len: u32,
    /// Data shards in all stripes together.
    pub data_shards: u32,
    /// Stripes; shard `i`, data before parity, belongs to stripe `i % stripes`.
    pub stripes: u16,
    /// Parity shards of each stripe.
    pub parity_per_stripe: u16,
    /// The checksums in the shard tables.
    pub sum: ShardSum,
}

impl Geometry {
    /// For `protected` bytes under parity in a segment that has `rest` more bytes, parity and
    /// shard tables not counted.
    pub(super) fn plan(protected: u64, rest: u64) -> Self {
        let shard_len = align_up(protected.div_ceil(MOST_DATA_SHARDS), SHARD_ALIGN);
        let shard_len = shard_len.max(LEAST_SHARD_LEN);
        let data_shards = protected.div_ceil(shard_len).max(1);
        let mut geometry = Self {
            shard_len: shard_len as u32,
            data_shards: data_shards as u32,
            stripes: STRIPES.min(data_shards as u16),
            parity_per_stripe: PARITY_PER_STRIPE,
            sum: ShardSum::Xxh3,
        };
        // Small segments have relatively long tables: more stripes until a run meets three shards
        // of a stripe at most.
        while u64::from(geometry.stripes) < data_shards {
            let total = protected + rest + geometry.parity_len() + 2 * geometry.table_len();
            let run = total / RUN_FRACTION;
            let touched = run.div_ceil(shard_len) + 1;
            if touched <= 3 * u64::from(geometry.stripes) {
                break;
            }
            geometry.stripes += 1;
        }
        geometry
    }

    /// About how many bytes parity and both tables take of a segment with frames of that length.
    pub fn estimate(data_bytes: u64) -> u64 {
        let geometry = Self::plan(data_bytes.max(1), 0);
        geometry.parity_len() + 2 * geometry.table_len()
    }

    /// Refuses what no writer produces.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let stripes = u32::from(self.stripes);
        if stripes == 0 || stripes > self.data_shards || self.parity_per_stripe == 0 {
            return Err("stripe count out of range");
        }
        if self.data_shards.div_ceil(stripes) + u32::from(self.parity_per_stripe)
            > MOST_STRIPE_SHARDS
        {
            return Err("too many shards in a stripe");
        }
        if self.shard_len == 0
            || self.shard_len > 2 << 20
            || !u64::from(self.shard_len).is_multiple_of(SHARD_ALIGN)
        {
            return Err("shard length out of range");
        }
        if u64::from(stripes) * u64::from(self.shard_len) > WIDEST {
            return Err("its stripes are too many for their shards");
        }
        Ok(())
    }

    /// Whether the data shards cover exactly `protected` bytes.
    pub(super) fn covers(&self, protected: u64) -> bool {
        protected.div_ceil(u64::from(self.shard_len)) == u64::from(self.data_shards)
    }

    /// Parity shards in all stripes together.
    pub const fn parity_shards(&self) -> u32 {
        self.stripes as u32 * self.parity_per_stripe as u32
    }

    /// Data and parity shards in all stripes together.
    pub const fn shards(&self) -> u32 {
        self.data_shards + self.parity_shards()
    }

    /// Bytes of all parity shards.
    pub const fn parity_len(&self) -> u64 {
        self.parity_shards() as u64 * self.shard_len as u64
    }

    /// Bytes of one shard table.
    pub const fn table_len(&self) -> u64 {
        self.shards() as u64 * SHARD_SUM_LEN as u64
    }

    /// Data shards of stripe `stripe`.
    pub(super) const fn data_in(&self, stripe: u32) -> u32 {
        (self.data_shards - stripe).div_ceil(self.stripes as u32)
    }

    /// The shards of stripe `stripe` in order, data before parity, as numbers over all stripes.
    pub(super) fn members(&self, stripe: u32) -> impl Iterator<Item = u32> + use<> {
        (stripe..self.shards()).step_by(usize::from(self.stripes))
    }

    /// The code of stripe `stripe`.
    pub(super) fn code(&self, stripe: u32) -> Arc<StripeCode> {
        let (data, parity) = (self.data_in(stripe) as usize, usize::from(self.parity_per_stripe));
        let make = || Arc::new(StripeCode::new(data, parity));
        match CODES.get(data).filter(|_| self.parity_per_stripe == PARITY_PER_STRIPE) {
            Some(code) => Arc::clone(code.get_or_init(make)),
            None => make(),
        }
    }
}

/// Parity and checksums of a segment.
#[derive(Default)]
pub(super) struct Protection {
    /// Parity shards in file order.
    pub(super) parity: Buffer,
    /// Checksums of all shards, data before parity.
    pub(super) table: Vec<u8>,
    /// What could not be read and was protected as zeros.
    pub(super) unread: Vec<Range<u64>>,
}

impl Protection {
    /// Where parity and both tables belong, and what belongs there.
    pub(super) fn parts(&self, trailer: &Trailer) -> [(u64, &[u8]); 3] {
        [
            (trailer.table_a.start, &self.table),
            (trailer.parity.start, &self.parity),
            (trailer.table_b.start, &self.table),
        ]
    }
}

/// Reads `protected` bytes from `start` once, in order, and computes their parity. Holds the parity
/// and [`AT_ONCE`] data shards of each stripe in memory: 2.3 MiB for a full segment. What cannot be read is protected
/// as zeros, as it was scanned.
pub(super) fn protect<R: ReadAt + ?Sized>(
    bytes: &R,
    start: u64,
    protected: u64,
    geometry: &Geometry,
) -> Result<Protection> {
    let bytes = ZeroFilled::new(bytes);
    let shard_len = geometry.shard_len as usize;
    let stripes = u32::from(geometry.stripes);
    // Stripes differ by one data shard at most.
    let (long, short) = (geometry.code(0), geometry.code(stripes - 1));
    let code = |stripe| {
        if geometry.data_in(stripe) == geometry.data_in(0) { &long } else { &short }
    };
    let mut parity = Buffer::with_capacity(geometry.parity_len() as usize);
    parity.resize(geometry.parity_len() as usize, 0);
    let mut rows: Vec<Vec<&mut [u8]>> = (0..stripes).map(|_| Vec::new()).collect();
    for (number, shard) in (geometry.data_shards..).zip(parity.chunks_exact_mut(shard_len)) {
        rows[(number % stripes) as usize].push(shard);
    }
    let mut table = Vec::with_capacity(geometry.table_len() as usize);
    let most = (AT_ONCE * stripes).min(geometry.data_shards);
    let mut batch = Buffer::with_capacity(most as usize * shard_len);
    for first in (0..geometry.data_shards).step_by(most as usize) {
        let count = most.min(geometry.data_shards - first) as usize;
        let from = u64::from(first) * shard_len as u64;
        let len = (protected - from).min((count * shard_len) as u64) as usize;
        batch.resize(count * shard_len, 0);
        bytes
            .read_exact_at(&mut batch[..len], start + from)
            .map_err(Error::io("read the segment back for its parity"))?;
        batch[len..].fill(0);
        let shards: Vec<&[u8]> = batch.chunks_exact(shard_len).collect();
        shards.iter().for_each(|shard| table.extend_from_slice(&geometry.sum.of(shard)));
        for stripe in 0..stripes.min(count as u32) {
            let of_stripe: Vec<&[u8]> =
                shards.iter().skip(stripe as usize).step_by(stripes as usize).copied().collect();
            let sums = &mut rows[stripe as usize];
            code(stripe).add_run((first / stripes) as usize, &of_stripe, sums);
        }
    }
    for shard in parity.chunks_exact(shard_len) {
        table.extend_from_slice(&geometry.sum.of(shard));
    }
    Ok(Protection { parity, table, unread: bytes.unreadable() })
}
