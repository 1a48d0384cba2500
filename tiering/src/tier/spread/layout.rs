//! How an object is cut over the stores: chunk `i` of the object is in stripe `i / k`, on data
//! store `i % k`; each stripe has a chunk of parity on each parity store. Where everything lies in
//! a shard follows from the object's length. Bytes: `FORMAT.md`, "Spread objects".

use std::ops::Range;

use bytes::Bytes;

use crate::error::{Error, Result};

/// Longest chunk: what a small read fetches and verifies at least.
pub(super) const CHUNK_LEN: u32 = 64 << 10;
/// Chunks of short objects are a multiple of this long, for the vector units.
const CHUNK_ALIGN: u32 = 64;
/// Longest chunk that is believed.
const MAX_CHUNK_LEN: u32 = 1 << 20;
/// Longest object that is believed.
const MAX_LEN: u64 = 1 << 40;
/// Most stores together.
pub const MAX_STORES: usize = 32;

const MAGIC: [u8; 8] = *b"\xF1Shard\r\n";
const VERSION: u16 = 1;
/// Flags that a reader must know; none is defined.
const MUST_KNOW: u16 = 0xff;
/// Bytes of a checksum.
pub(super) const SUM_LEN: usize = 16;

const SUM_AT: usize = 8;
const SUMMED_AT: usize = SUM_AT + SUM_LEN;
const VERSION_AT: usize = SUMMED_AT;
const FLAGS_AT: usize = VERSION_AT + 2;
const DATA_AT: usize = FLAGS_AT + 2;
const PARITY_AT: usize = DATA_AT + 1;
const INDEX_AT: usize = PARITY_AT + 1;
const SUM_LEN_AT: usize = INDEX_AT + 1;
const CHUNK_AT: usize = SUM_LEN_AT + 1;
const LEN_AT: usize = CHUNK_AT + 4 + 4;
const DIGEST_AT: usize = LEN_AT + 8;
const KEY_AT: usize = DIGEST_AT + 32;
/// Bytes of a shard's header.
pub(super) const HEADER_LEN: usize = 128;

/// The first bytes of a BLAKE3.
pub(super) type Sum = [u8; SUM_LEN];

/// `B16` of these parts, one behind the other.
pub(super) fn sum(parts: &[&[u8]]) -> Sum {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let mut short = [0; SUM_LEN];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..SUM_LEN]);
    short
}

/// Where the bytes of an object of some length lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) data: u8,
    pub(super) parity: u8,
    pub(super) chunk_len: u32,
    pub(super) len: u64,
}

impl Shape {
    /// As writers choose it: short objects have short chunks, so that they take `(k + m) / k` of
    /// their length too.
    pub(super) fn of(len: u64, data: u8, parity: u8) -> Self {
        let even = len.div_ceil(u64::from(data)).min(u64::from(CHUNK_LEN)) as u32;
        let chunk_len = even.next_multiple_of(CHUNK_ALIGN).clamp(CHUNK_ALIGN, CHUNK_LEN);
        Self { data, parity, chunk_len, len }
    }

    /// Shards, data before parity.
    pub(super) fn shards(&self) -> usize {
        usize::from(self.data) + usize::from(self.parity)
    }

    /// Bytes of data in a full stripe.
    pub(super) fn stripe_len(&self) -> u64 {
        u64::from(self.data) * u64::from(self.chunk_len)
    }

    /// Stripes, at least one.
    pub(super) fn stripes(&self) -> u64 {
        self.len.div_ceil(self.stripe_len()).max(1)
    }

    /// The bytes of the object that are in these stripes.
    pub(super) fn bytes_of(&self, stripes: &Range<u64>) -> Range<u64> {
        let end = (stripes.end * self.stripe_len()).min(self.len);
        (stripes.start * self.stripe_len()).min(end)..end
    }

    /// Bytes that shard `shard` has in a stripe.
    pub(super) fn chunk(&self, shard: usize, stripe: u64) -> usize {
        // Parity is as long as the longest chunk, which is the first.
        let place = if shard < usize::from(self.data) { shard as u64 } else { 0 };
        let start = stripe * self.stripe_len() + place * u64::from(self.chunk_len);
        self.len.saturating_sub(start).min(u64::from(self.chunk_len)) as usize
    }

    /// Bytes of checksums behind each chunk.
    pub(super) fn trailer_len(&self) -> usize {
        (self.shards() + 1) * SUM_LEN
    }

    fn record_at(&self, stripe: u64) -> u64 {
        HEADER_LEN as u64 + stripe * (u64::from(self.chunk_len) + self.trailer_len() as u64)
    }

    /// Bytes of shard `shard`.
    pub(super) fn shard_len(&self, shard: usize) -> u64 {
        let last = self.stripes() - 1;
        self.record_at(last) + (self.chunk(shard, last) + self.trailer_len()) as u64
    }

    /// Where the records of these stripes lie in shard `shard`.
    pub(super) fn records(&self, shard: usize, stripes: &Range<u64>) -> Range<u64> {
        let end = match stripes.end >= self.stripes() {
            true => self.shard_len(shard),
            false => self.record_at(stripes.end),
        };
        self.record_at(stripes.start)..end
    }

    /// The length of an object from those of all its data shards.
    pub(super) fn len_from(shard_lens: &[u64], data: u8, parity: u8) -> Option<u64> {
        let shape = Self::of(u64::MAX >> 8, data, parity);
        let trailer = shape.trailer_len() as u64;
        let full = u64::from(CHUNK_LEN) + trailer;
        let payload = |len: &u64| {
            let records = len.checked_sub(HEADER_LEN as u64)?;
            records.checked_sub(records.div_ceil(full) * trailer)
        };
        shard_lens.iter().map(payload).sum()
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.data == 0 || self.parity == 0 || self.shards() > MAX_STORES {
            return Err("number of shards out of range");
        }
        if self.chunk_len == 0 || self.chunk_len > MAX_CHUNK_LEN {
            return Err("chunk length out of range");
        }
        if self.len > MAX_LEN {
            return Err("object length out of range");
        }
        // Shorter chunks would be more than a reader has room for.
        if self.chunk_len != Self::of(self.len, self.data, self.parity).chunk_len {
            return Err("chunk length is not that of the object's length");
        }
        Ok(())
    }
}

/// One object as it was cut: shards belong together when theirs is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) shape: Shape,
    /// BLAKE3 of the object.
    pub(super) digest: [u8; 32],
    /// `B16` of its key.
    pub(super) key: Sum,
}

impl Layout {
    /// The header of shard `shard`.
    pub(super) fn header(&self, shard: usize) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..SUM_AT].copy_from_slice(&MAGIC);
        bytes[VERSION_AT..FLAGS_AT].copy_from_slice(&VERSION.to_le_bytes());
        bytes[DATA_AT] = self.shape.data;
        bytes[PARITY_AT] = self.shape.parity;
        bytes[INDEX_AT] = shard as u8;
        bytes[SUM_LEN_AT] = SUM_LEN as u8;
        bytes[CHUNK_AT..CHUNK_AT + 4].copy_from_slice(&self.shape.chunk_len.to_le_bytes());
        bytes[LEN_AT..DIGEST_AT].copy_from_slice(&self.shape.len.to_le_bytes());
        bytes[DIGEST_AT..KEY_AT].copy_from_slice(&self.digest);
        bytes[KEY_AT..KEY_AT + SUM_LEN].copy_from_slice(&self.key);
        let checksum = sum(&[&bytes[SUMMED_AT..]]);
        bytes[SUM_AT..SUMMED_AT].copy_from_slice(&checksum);
        bytes
    }

    /// What a header says, and of which shard it is.
    pub(super) fn parse(bytes: &[u8]) -> Result<(Self, usize)> {
        let damaged =
            |reason: &str| Error::Damaged { what: "header of a shard", reason: reason.to_owned() };
        let Some(bytes) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(damaged("is too short"));
        };
        if bytes[..SUM_AT] != MAGIC || bytes[SUM_AT..SUMMED_AT] != sum(&[&bytes[SUMMED_AT..]]) {
            return Err(damaged("its checksum is wrong"));
        }
        let version = u16::from_le_bytes([bytes[VERSION_AT], bytes[VERSION_AT + 1]]);
        let flags = u16::from_le_bytes([bytes[FLAGS_AT], bytes[FLAGS_AT + 1]]);
        if version != VERSION || flags & MUST_KNOW != 0 {
            let found = u32::from(version.max(VERSION + u16::from(flags & MUST_KNOW != 0)));
            return Err(Error::TooNew { what: "a shard", found, known: u32::from(VERSION) });
        }
        let mut layout = Self {
            shape: Shape { data: bytes[DATA_AT], parity: bytes[PARITY_AT], chunk_len: 0, len: 0 },
            digest: [0; 32],
            key: [0; SUM_LEN],
        };
        let word = |at: usize| bytes[at..].first_chunk().copied().map_or(0, u32::from_le_bytes);
        layout.shape.chunk_len = word(CHUNK_AT);
        layout.shape.len = u64::from(word(LEN_AT)) | u64::from(word(LEN_AT + 4)) << 32;
        layout.digest.copy_from_slice(&bytes[DIGEST_AT..KEY_AT]);
        layout.key.copy_from_slice(&bytes[KEY_AT..KEY_AT + SUM_LEN]);
        layout.shape.check().map_err(damaged)?;
        let shard = usize::from(bytes[INDEX_AT]);
        if shard >= layout.shape.shards() || usize::from(bytes[SUM_LEN_AT]) != SUM_LEN {
            return Err(damaged("its numbers contradict each other"));
        }
        Ok((layout, shard))
    }

    /// What binds every chunk to this very object: nothing of another write verifies under it.
    pub(super) fn generation(&self) -> Sum {
        sum(&[&self.header(0)])
    }
}

/// What stands behind the chunk of shard `shard`: the checksums of all chunks of the stripe, and
/// one over them that says to which object, shard and stripe they belong.
pub(super) fn trailer(generation: &Sum, shard: usize, stripe: u64, sums: &[u8]) -> Vec<u8> {
    let mut trailer = sums.to_vec();
    trailer.extend_from_slice(&seal(generation, shard, stripe, sums));
    trailer
}

fn seal(generation: &Sum, shard: usize, stripe: u64, sums: &[u8]) -> Sum {
    sum(&[generation, &[shard as u8], &stripe.to_le_bytes(), sums])
}

/// A chunk that was verified.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) chunk: Bytes,
    /// The checksums of all chunks of its stripe.
    pub(super) sums: Bytes,
}

impl Record {
    /// `None` when it is not this chunk of this object.
    pub(super) fn verify(
        shape: &Shape,
        generation: &Sum,
        shard: usize,
        stripe: u64,
        bytes: &Bytes,
    ) -> Option<Self> {
        let chunk_len = shape.chunk(shard, stripe);
        if bytes.len() != chunk_len + shape.trailer_len() {
            return None;
        }
        let sums = bytes.slice(chunk_len..bytes.len() - SUM_LEN);
        let is_sealed = bytes[bytes.len() - SUM_LEN..] == seal(generation, shard, stripe, &sums);
        let record = Self { chunk: bytes.slice(..chunk_len), sums };
        (is_sealed && record.attests(shard, &record.chunk)).then_some(record)
    }

    /// Whether the chunk of shard `shard` of this stripe is `chunk`.
    pub(super) fn attests(&self, shard: usize, chunk: &[u8]) -> bool {
        self.sums.get(shard * SUM_LEN..(shard + 1) * SUM_LEN) == Some(&sum(&[chunk])[..])
    }
}
