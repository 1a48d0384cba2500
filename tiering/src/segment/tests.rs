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
    let mut writer = SegmentWriter::create(dir.path(), NAME).unwrap();
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
