//! The module as a whole: what goes in comes out, and nothing else does.
#![allow(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;

use super::*;
use crate::block::{BlockId, CELL_LEN};
use crate::encode::{Codec, EncodedBlock, Filter};

pub(super) const NAME: SegmentName =
    SegmentName { volume: VolumeId([0x5a; 16]), id: SegmentId::from_raw(0x0001_0000_0000_0007) };

/// Bytes that do not shrink, the same for the same seed.
pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// A block stored raw: what encoding does to a block is another module's business.
pub(super) fn raw_block(plain: &[u8]) -> EncodedBlock {
    EncodedBlock {
        codec: Codec::None,
        filter: Filter::None,
        level: 0,
        plain_len: plain.len() as u32,
        cell_lens: plain.chunks(CELL_LEN).map(|cell| cell.len() as u32).collect(),
        payload: Bytes::copy_from_slice(plain),
    }
}

pub(super) fn raw_frame(id: u64, plain: &[u8]) -> Frame {
    Frame::build(BlockId::from_raw(id), &hash_block(plain), &raw_block(plain))
}

#[test]
fn a_sealed_segment_gives_every_range_of_every_block() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = SegmentWriter::create(dir.path(), NAME, ParityPlace::Inside).unwrap();
    let lens = [1, 15, CELL_LEN, CELL_LEN + 1, 5 * CELL_LEN - 7, 1 << 20];
    let blocks: Vec<_> = lens.iter().map(|&len| noise(len as u64, len)).collect();
    for (id, plain) in blocks.iter().enumerate() {
        writer.append(&mut raw_frame(100 + id as u64, plain)).unwrap();
    }
    let sealed = writer.seal().unwrap();
    let file = std::fs::read(&sealed.path).unwrap();
    assert_eq!(file.len() as u64, sealed.file_len);
    let index = SegmentIndex::from_file(file.as_slice(), &NAME).unwrap();
    assert_eq!(index, sealed.index);
    assert_eq!(SegmentIndex::from_idx_bytes(&index.to_idx_bytes(), &NAME).unwrap(), index);
    for (id, plain) in blocks.iter().enumerate() {
        let [entry] = index.find(BlockId::from_raw(100 + id as u64)) else { panic!() };
        let len = plain.len() as u32;
        for range in [0..len, 0..1, len - 1..len, len / 3..len / 2 + 1, len / 2..len] {
            let read = entry.cell_range(range.clone()).unwrap();
            let stored = read.stored();
            let stored = &file[stored.start as usize..stored.end as usize];
            let got = read.open(&entry.block_ref(), stored).unwrap().slice(range.clone()).unwrap();
            assert_eq!(got, plain[range.start as usize..range.end as usize]);
        }
    }
}

#[test]
fn a_segment_without_parity_is_read_and_tells_what_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = SegmentWriter::create(dir.path(), NAME, ParityPlace::Inside).unwrap();
    let plain = noise(1, 3 * CELL_LEN);
    writer.append(&mut raw_frame(100, &plain)).unwrap();
    let sealed = writer.seal_as(false).unwrap();
    let mut file = std::fs::read(&sealed.path).unwrap();
    let index = SegmentIndex::from_file(file.as_slice(), &NAME).unwrap();
    assert_eq!((index.trailer().geometry, &index), (None, &sealed.index));
    assert!(repair(file.as_slice(), &NAME).unwrap().is_intact());
    assert!(check_frames(file.as_slice(), &index).is_empty());
    file[index.entries()[0].payload_range().start as usize + 7] ^= 1;
    assert_eq!(check_frames(file.as_slice(), &index).len(), 1);
}

mod apart;
mod damage;
mod format;
mod overhead;
mod recovery;
mod travel;

/// A sealed segment in memory, with what its blocks must read as.
pub(super) struct Sample {
    pub(super) bytes: Vec<u8>,
    pub(super) index: SegmentIndex,
    pub(super) blocks: Vec<(BlockId, Vec<u8>)>,
}

impl Sample {
    /// Blocks of those lengths, with contents that do not shrink.
    pub(super) fn raw(lens: &[usize]) -> Self {
        let blocks = lens.iter().enumerate().map(|(i, &len)| noise(i as u64, len)).collect();
        Self::of(blocks, raw_block)
    }

    pub(super) fn of(plains: Vec<Vec<u8>>, encode: impl Fn(&[u8]) -> EncodedBlock) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = SegmentWriter::create(dir.path(), NAME, ParityPlace::Inside).unwrap();
        let mut blocks = Vec::new();
        for (i, plain) in plains.into_iter().enumerate() {
            let id = BlockId::from_raw(1000 + i as u64);
            let mut frame = Frame::build(id, &hash_block(&plain), &encode(&plain));
            writer.append(&mut frame).unwrap();
            blocks.push((id, plain));
        }
        let sealed = writer.seal().unwrap();
        let bytes = std::fs::read(&sealed.path).unwrap();
        Self { bytes, index: sealed.index, blocks }
    }

    pub(super) fn entry(&self, id: BlockId) -> &IndexEntry {
        let [entry] = self.index.find(id) else { panic!("block {id} is not there once") };
        entry
    }

    /// Reads a block out of `bytes`, a damaged form of this segment.
    pub(super) fn read(&self, bytes: &[u8], id: BlockId) -> crate::Result<Verified> {
        let entry = self.entry(id);
        let read = entry.whole();
        let stored = bytes.get(read.stored().start as usize..read.stored().end as usize);
        read.open(&entry.block_ref(), stored.ok_or_else(|| damaged("segment", "cut short"))?)
    }

    /// Every block of `bytes` reads as it should or says that it is damaged; how many do not read.
    pub(super) fn count_damaged(&self, bytes: &[u8]) -> usize {
        let mut count = 0;
        for (id, plain) in &self.blocks {
            match self.read(bytes, *id) {
                Ok(read) => assert_eq!(read.bytes(), plain, "wrong bytes of block {id}"),
                Err(crate::Error::Damaged { .. }) => count += 1,
                Err(other) => panic!("{other}"),
            }
        }
        count
    }

    /// Repairs `bytes` and expects the segment as it was sealed.
    #[track_caller]
    pub(super) fn expect_repaired(&self, bytes: &[u8]) {
        let report = repair(bytes, &NAME).unwrap();
        assert_eq!(report.lost, [], "lost after {:?}", report.damage);
        let mut fixed = bytes.to_vec();
        fixed.resize(report.file_len as usize, 0);
        for patch in &report.patches {
            fixed[patch.offset as usize..][..patch.bytes.len()].copy_from_slice(&patch.bytes);
        }
        assert!(fixed == self.bytes, "repaired to other bytes: {:?}", report.damage);
        assert_eq!(report.is_intact(), bytes == self.bytes);
    }
}

/// A segment and its sidecar, if there is one. As bytes it is the segment.
#[derive(Clone, Copy)]
pub(super) struct WithSidecar<'a> {
    segment: &'a dyn ReadAt,
    sidecar: Option<&'a dyn ReadAt>,
}

impl<'a> WithSidecar<'a> {
    /// `segment` as bytes, `sidecar` beside it.
    pub(super) fn new(segment: &'a dyn ReadAt, sidecar: Option<&'a dyn ReadAt>) -> Self {
        Self { segment, sidecar }
    }
}

impl ReadAt for WithSidecar<'_> {
    fn len(&self) -> std::io::Result<u64> {
        self.segment.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.segment.read_exact_at(buf, offset)
    }

    fn sidecar_len(&self) -> std::io::Result<u64> {
        self.sidecar.ok_or(std::io::ErrorKind::NotFound)?.len()
    }

    fn read_sidecar_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.sidecar.ok_or(std::io::ErrorKind::NotFound)?.read_exact_at(buf, offset)
    }
}

/// Random numbers for tests, from a seed.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Below `bound`.
    pub(super) fn roll(&mut self, bound: usize) -> usize {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % bound as u64) as usize
    }
}
