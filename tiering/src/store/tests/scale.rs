//! Very many segments: what opening costs, and what a rebuild of the catalog from their indexes
//! costs while the store already answers.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use crate::blocks::{Blocks, Wait};
use crate::clock::{Clock, SystemClock};
use crate::encode::{Codec, EncodedBlock, Filter};
use crate::segment::{
    FileKind, Frame, ParityPlace, SegmentId, SegmentIndex, SegmentName, SegmentWriter, hash_block,
};
use crate::store::testing::Volume;
use crate::{BlockId, BlockRef, Epoch};

const BLOCKS: u64 = 100;

/// Few by default; `FIRN_STORE_SEGMENTS=20000` takes minutes, most of them to make the segments.
fn segments() -> u64 {
    std::env::var("FIRN_STORE_SEGMENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(300)
}

/// The local index that a segment of tiny blocks leaves when its data was dropped.
fn leave_index(volume: &Volume, scratch: &Path, number: u64) -> BlockRef {
    let id = SegmentId::new(Epoch(1), number).unwrap();
    let name = SegmentName { volume: volume.config.volume, id };
    let mut writer = SegmentWriter::create(scratch, name, ParityPlace::Inside).unwrap();
    let mut last = None;
    for block in 0..BLOCKS {
        let plain = (number * BLOCKS + block).to_le_bytes();
        let encoded = EncodedBlock {
            codec: Codec::None,
            filter: Filter::None,
            level: 0,
            plain_len: plain.len() as u32,
            cell_lens: vec![plain.len() as u32],
            payload: plain.to_vec().into(),
        };
        let id = BlockId::new(Epoch(1), number * BLOCKS + block).unwrap();
        let mut frame = Frame::build(id, &hash_block(&plain), &encoded);
        last = Some(writer.append(&mut frame).unwrap().block_ref());
    }
    writer.seal().unwrap();
    let sealed = scratch.join(id.file_name(FileKind::Sealed));
    let index = SegmentIndex::from_file(&File::open(&sealed).unwrap(), &name).unwrap();
    let place = volume.config.hot_dir.join("index").join(id.file_name(FileKind::Index));
    fs::write(place, index.to_idx_bytes()).unwrap();
    fs::remove_file(sealed).unwrap();
    last.unwrap()
}

#[test]
fn a_catalog_is_rebuilt_from_very_many_indexes_while_the_store_answers() {
    let segments = segments();
    let mut volume = Volume::new();
    let here = volume.append(b"written before");
    volume.close();
    // Sealing syncs, which a directory in memory makes cheap.
    let scratch = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let mut blocks: Vec<BlockRef> = Vec::new();
    for number in 1_000..1_000 + segments {
        let last = leave_index(&volume, scratch.path(), number);
        if number % 97 == 0 {
            blocks.push(last);
        }
    }
    volume.delete_catalog();
    let start = SystemClock.instant();
    volume.open();
    let opened = start.elapsed();
    assert_eq!(&volume.read(&here).unwrap()[..], b"written before");
    volume.append(b"written meanwhile");
    let answered = start.elapsed();
    let patience = Duration::from_secs(600);
    volume.store().wait_caught_up(Wait::Until(start + patience)).unwrap();
    tell(&format!(
        "{segments} indexes: opened in {opened:?}, answered at {answered:?}, rebuilt at {:?}",
        start.elapsed()
    ));
    for block in &blocks {
        let found = volume.store().residence(&[block.id]);
        assert_ne!(found[0], crate::store::Residence::Unknown, "{}", block.id);
    }
    volume.store().sync().unwrap();
    // As after a kill: everything is recorded, so that nothing is read again.
    let start = SystemClock.instant();
    volume.reopen_after_crash();
    volume.store().wait_caught_up(Wait::Until(start + patience)).unwrap();
    tell(&format!("{segments} segments: opened and caught up in {:?}", start.elapsed()));
    assert_eq!(&volume.read(&here).unwrap()[..], b"written before");
}

/// What a measurement found, for whoever runs it with `--no-capture`.
#[allow(clippy::print_stderr, reason = "for people")]
fn tell(text: &str) {
    eprintln!("{text}");
}
