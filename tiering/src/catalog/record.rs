//! The catalog's records as bytes: blocks in buckets of up to 64 neighbouring ids, segments one
//! by one. Decoding is bounded and checks every field; what does not fit is an error, and the
//! catalog is rebuilt.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::block::{BlockDigest, BlockId, MAX_BLOCK_LEN};
use crate::encode::{Codec, Filter};
use crate::error::{Error, Result};
use crate::segment::{
    CellLens, FRAME_ALIGN, Geometry, IndexEntry, ParityPlace, SegmentId, TAG_LEN,
};

use super::heat::SegmentHeat;

/// No segment has more bytes, and none more of parity.
const MOST_BYTES: u64 = 1 << 30;

/// Version of a bucket's bytes.
const BUCKET_VERSION: u8 = 1;
/// Version of a segment record's bytes. Version 1 ends before warmth and offer, version 2 before
/// where parity lies.
const SEGMENT_VERSION: u8 = 3;
/// Low bits of an id that number it within its bucket.
const BUCKET_BITS: u32 = 6;
/// Holes one record may list: more frames than a segment can have never come from us.
const MAX_HOLES: usize = 1 << 20;

/// Where a block lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRecord {
    /// The segment that holds it.
    pub segment: SegmentId,
    /// Its entry there.
    pub entry: IndexEntry,
}

/// What is known of a segment's copy in the cold tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ColdCopy {
    /// None that is known.
    Absent,
    /// Listed, but never compared with its checksums since.
    Listed,
    /// Read back and verified against the segment's checksums.
    Verified,
}

/// Byte ranges of a hot segment file that were given back to the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holes {
    ranges: BTreeMap<u64, u64>,
}

impl Holes {
    /// Adds `start..end`, joining what touches.
    pub fn insert(&mut self, mut start: u64, mut end: u64) {
        if start >= end {
            return;
        }
        while let Some((&left, &right)) = self.ranges.range(..=end).next_back() {
            if right < start {
                break;
            }
            self.ranges.remove(&left);
            start = start.min(left);
            end = end.max(right);
        }
        self.ranges.insert(start, end);
    }

    /// Removes `start..end`, splitting what reaches beyond.
    pub fn remove(&mut self, start: u64, end: u64) {
        while let Some((&left, &right)) = self.ranges.range(..end).next_back() {
            if right <= start {
                break;
            }
            self.ranges.remove(&left);
            if right > end {
                self.ranges.insert(end, right);
            }
            if left < start {
                self.ranges.insert(left, start);
                break;
            }
        }
    }

    /// Whether any byte of `start..end` is in a hole.
    pub fn touches(&self, start: u64, end: u64) -> bool {
        self.ranges.range(..end).next_back().is_some_and(|(_, &right)| right > start)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Every hole, in order.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges.iter().map(|(start, end)| *start..*end)
    }

    /// Bytes in holes.
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().map(|(start, end)| end - start).sum()
    }
}

/// What the catalog keeps of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentRecord {
    /// The segment.
    pub id: SegmentId,
    /// Length of the sealed segment.
    pub len: u64,
    /// Blocks in its index.
    pub blocks: u32,
    /// Bytes of all frames.
    pub data_bytes: u64,
    /// Lowest id of its blocks.
    pub first_block: BlockId,
    /// Whether a hot file stands; with `holes`, in part.
    pub hot: bool,
    /// The copy in cold.
    pub cold: ColdCopy,
    /// Frame bytes whose blocks were freed: a hint that starts a closer look.
    pub dead_bytes: u64,
    /// What was released from the hot file.
    pub holes: Holes,
    /// Encoding the hot file harder was done, or is of no use.
    pub settled: bool,
    /// How warm it was when this was stored.
    pub heat: SegmentHeat,
    /// A copy to cold was begun: an object may lie there although `cold` knows of none.
    pub offered: bool,
    /// Where its parity lies.
    pub place: ParityPlace,
    /// Bytes of parity and its checksums, there; estimated where an older record does not tell.
    pub parity_bytes: u64,
}

impl SegmentRecord {
    /// Bytes of the segment with its sidecar, if it has one.
    pub fn stored_bytes(&self) -> u64 {
        self.len + self.sidecar_bytes()
    }

    /// Bytes of its sidecar; 0 without one.
    pub fn sidecar_bytes(&self) -> u64 {
        if self.place == ParityPlace::Object { self.parity_bytes } else { 0 }
    }
}

/// Key of the bucket of a block.
pub(super) fn bucket_of(id: BlockId) -> u64 {
    id.raw() >> BUCKET_BITS
}

/// A bucket's records by the number within the bucket.
pub(super) type Bucket = BTreeMap<u8, BlockRecord>;

/// Number of a block within its bucket.
pub(super) fn slot_of(id: BlockId) -> u8 {
    (id.raw() & ((1 << BUCKET_BITS) - 1)) as u8
}

/// The bytes of a bucket.
pub(super) fn encode_bucket(bucket: &Bucket) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(2 + bucket.len() * 80);
    out.push(BUCKET_VERSION);
    out.push(bucket.len() as u8);
    for (slot, record) in bucket {
        let entry = &record.entry;
        let units = u32::try_from(entry.offset / FRAME_ALIGN as u64)
            .map_err(|_| damaged(format!("frame offset {} too large", entry.offset)))?;
        out.push(*slot);
        out.extend_from_slice(&record.segment.raw().to_le_bytes());
        out.extend_from_slice(&entry.digest.0);
        out.extend_from_slice(&units.to_le_bytes());
        out.push((usize::from(entry.header_len) / FRAME_ALIGN) as u8);
        out.extend_from_slice(&entry.plain_len.to_le_bytes());
        out.extend_from_slice(&entry.stored_len.to_le_bytes());
        out.extend_from_slice(&[entry.codec.to_byte(), entry.filter.to_byte(), entry.level]);
        out.extend_from_slice(&entry.flags.to_le_bytes());
        out.push(entry.cell_lens.len() as u8);
        for len in entry.cell_lens.stored() {
            out.extend_from_slice(&len.to_le_bytes());
        }
    }
    Ok(out)
}

/// The records of the bucket `number`.
pub(super) fn decode_bucket(number: u64, bytes: &[u8]) -> Result<Bucket> {
    let mut bucket = Bucket::new();
    visit_bucket(number, bytes, |slot, record| {
        bucket.insert(slot, record);
        true
    })?;
    Ok(bucket)
}

/// The record of one block, without building the others.
pub(super) fn find_in_bucket(id: BlockId, bytes: &[u8]) -> Result<Option<BlockRecord>> {
    let wanted = slot_of(id);
    let mut found = None;
    visit_bucket(bucket_of(id), bytes, |slot, record| {
        if slot == wanted {
            found = Some(record);
        }
        slot < wanted
    })?;
    Ok(found)
}

fn visit_bucket(
    number: u64,
    bytes: &[u8],
    mut visit: impl FnMut(u8, BlockRecord) -> bool,
) -> Result<()> {
    let mut input = Input(bytes);
    let version = input.u8()?;
    if version != BUCKET_VERSION {
        return Err(damaged(format!("bucket version {version}")));
    }
    let mut least = 0;
    for _ in 0..input.u8()? {
        let slot = input.u8()?;
        if u32::from(slot) >> BUCKET_BITS != 0 {
            return Err(damaged(format!("slot {slot} out of range")));
        }
        // A search ends at the first slot that is not below the one it looks for.
        if slot < least {
            return Err(damaged(format!("slot {slot} out of order")));
        }
        least = slot + 1;
        let id = BlockId::from_raw(number << BUCKET_BITS | u64::from(slot));
        let record = decode_block(id, &mut input)?;
        if !visit(slot, record) {
            break;
        }
    }
    Ok(())
}

fn decode_block(id: BlockId, input: &mut Input<'_>) -> Result<BlockRecord> {
    let segment = SegmentId::from_raw(input.u64()?);
    let digest = BlockDigest(input.array()?);
    let offset = u64::from(input.u32()?) * FRAME_ALIGN as u64;
    let header_len = u16::from(input.u8()?) * FRAME_ALIGN as u16;
    let plain_len = input.u32()?;
    let stored_len = input.u32()?;
    let codec = Codec::from_byte(input.u8()?)?;
    let filter = Filter::from_byte(input.u8()?)?;
    let level = input.u8()?;
    let flags = u16::from_le_bytes(input.array()?);
    let count = usize::from(input.u8()?);
    let lens = input.take(2 * count)?;
    let lens = lens.chunks_exact(2).map(|len| u16::from_le_bytes([len[0], len[1]]));
    let cell_lens = CellLens::from_stored(lens).ok_or_else(|| damaged("too many cells".into()))?;
    let entry = IndexEntry {
        id,
        digest,
        offset,
        header_len,
        plain_len,
        stored_len,
        codec,
        filter,
        level,
        flags,
        cell_lens,
    };
    check_entry(&entry)?;
    Ok(BlockRecord { segment, entry })
}

/// Refuses lengths that would make a reader allocate or subtract nonsense.
fn check_entry(entry: &IndexEntry) -> Result<()> {
    let cells = entry.cell_count();
    let longest = entry.plain_len as usize + cells * TAG_LEN;
    let lens: u64 = entry.cell_lens.iter().map(|len| u64::from(len) + TAG_LEN as u64).sum();
    let cells_fit = entry.cell_lens.is_empty()
        || (entry.cell_lens.len() == cells && lens == u64::from(entry.stored_len));
    if entry.plain_len == 0
        || entry.plain_len as usize > MAX_BLOCK_LEN
        || entry.stored_len as usize > longest
        || entry.header_len == 0
        || !cells_fit
    {
        return Err(damaged(format!("block {} has contradicting lengths", entry.id)));
    }
    Ok(())
}

/// The bytes of a segment record, without its id, which is the key.
pub(super) fn encode_segment(record: &SegmentRecord) -> Vec<u8> {
    let mut out = Vec::with_capacity(52 + record.holes.ranges.len() * 16);
    out.push(SEGMENT_VERSION);
    out.extend_from_slice(&record.len.to_le_bytes());
    out.extend_from_slice(&record.blocks.to_le_bytes());
    out.extend_from_slice(&record.data_bytes.to_le_bytes());
    out.extend_from_slice(&record.first_block.raw().to_le_bytes());
    out.push(match (record.hot, record.settled) {
        (false, _) => 0,
        (true, false) => 1,
        (true, true) => 2,
    });
    out.push(match record.cold {
        ColdCopy::Absent => 0,
        ColdCopy::Listed => 1,
        ColdCopy::Verified => 2,
    });
    out.extend_from_slice(&record.dead_bytes.to_le_bytes());
    out.extend_from_slice(&(record.holes.ranges.len() as u32).to_le_bytes());
    for (start, end) in &record.holes.ranges {
        out.extend_from_slice(&start.to_le_bytes());
        out.extend_from_slice(&end.to_le_bytes());
    }
    out.extend_from_slice(&record.heat.bits().to_le_bytes());
    out.push(u8::from(record.offered));
    out.push(record.place.to_byte());
    out.extend_from_slice(&record.parity_bytes.to_le_bytes());
    out
}

/// The record of segment `id`.
pub(super) fn decode_segment(id: SegmentId, bytes: &[u8]) -> Result<SegmentRecord> {
    let mut input = Input(bytes);
    let version = input.u8()?;
    if !(1..=SEGMENT_VERSION).contains(&version) {
        return Err(damaged(format!("segment record version {version}")));
    }
    let (len, blocks, data_bytes) = (input.u64()?, input.u32()?, input.u64()?);
    if len > MOST_BYTES || data_bytes > MOST_BYTES {
        return Err(damaged(format!("{len} bytes, of frames {data_bytes}")));
    }
    let first_block = BlockId::from_raw(input.u64()?);
    let (hot, settled) = match input.u8()? {
        0 => (false, false),
        1 => (true, false),
        2 => (true, true),
        other => return Err(damaged(format!("hot state {other}"))),
    };
    let cold = match input.u8()? {
        0 => ColdCopy::Absent,
        1 => ColdCopy::Listed,
        2 => ColdCopy::Verified,
        other => return Err(damaged(format!("cold state {other}"))),
    };
    let dead_bytes = input.u64()?;
    let count = input.u32()? as usize;
    if count > MAX_HOLES {
        return Err(damaged(format!("{count} holes")));
    }
    let mut holes = Holes::default();
    for _ in 0..count {
        let (start, end) = (input.u64()?, input.u64()?);
        holes.insert(start, end);
    }
    let (heat, offered) = if version == 1 {
        (SegmentHeat::default(), false)
    } else {
        let bits = input.u64()?;
        let heat = SegmentHeat::from_bits(bits);
        (heat.ok_or_else(|| damaged(format!("warmth {bits:x}")))?, input.u8()? != 0)
    };
    let (place, parity_bytes) = if version < 3 {
        (ParityPlace::Inside, Geometry::estimate(data_bytes).min(len))
    } else {
        let byte = input.u8()?;
        let place = ParityPlace::from_byte(byte);
        (place.ok_or_else(|| damaged(format!("place of parity {byte}")))?, input.u64()?)
    };
    if parity_bytes > MOST_BYTES {
        return Err(damaged(format!("{parity_bytes} bytes of parity")));
    }
    Ok(SegmentRecord {
        id,
        len,
        blocks,
        data_bytes,
        first_block,
        hot,
        cold,
        dead_bytes,
        holes,
        settled,
        heat,
        offered,
        place,
        parity_bytes,
    })
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, rest) =
            self.0.split_at_checked(count).ok_or_else(|| damaged("cut short".into()))?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }
}

fn damaged(reason: String) -> Error {
    Error::Damaged { what: "catalog record", reason }
}
