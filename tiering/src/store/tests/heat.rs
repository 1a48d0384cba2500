//! Who counts as reading a segment, and that it is remembered.

use std::sync::Arc;
use std::time::Duration;

use crate::block::BlockRef;
use crate::blocks::{Blocks, Intent, Source};
use crate::catalog::SegmentHeat;
use crate::clock::{Clock, SystemClock};
use crate::segment::SegmentId;
use crate::store::testing::{ShiftedClock, Volume, eventually, later, noise};
use crate::store::{BackupProof, CheckOptions, Residence, Watermarks};
use crate::tier::{Memory, Tier};

const BLOCK: usize = 60_000;

fn volume() -> (Volume, Arc<ShiftedClock>) {
    let clock = Arc::new(ShiftedClock::default());
    let time = Arc::clone(&clock) as Arc<dyn Clock>;
    let volume = Volume::with(|config| {
        config.cold = Some(Arc::new(Memory::new()) as Arc<dyn Tier>);
        config.hot_capacity = Some(16 << 20);
        config.copy_ahead = false;
        config.clock = time;
        // What is in the cache is not read from a segment.
        config.cache_bytes = 0;
    });
    (volume, clock)
}

/// Segments of one block each.
fn fill(volume: &Volume, count: u64) -> Vec<BlockRef> {
    (0..count)
        .map(|seed| {
            let block = volume.append(&noise(seed, BLOCK));
            volume.seal();
            let inner = &volume.store().inner;
            inner.rotate_now();
            inner.wait_sealed(&inner.unsealed_ids(), later()).unwrap();
            block
        })
        .collect()
}

fn segment(volume: &Volume, block: &BlockRef) -> SegmentId {
    volume.store().describe(block.id).unwrap().segment
}

fn heat(volume: &Volume, block: &BlockRef) -> SegmentHeat {
    volume.store().inner.table.with(segment(volume, block), |s| s.heat.load()).unwrap()
}

#[test]
fn warmth_of_a_clock_that_was_ahead_counts_as_of_now_after_an_open() {
    let (mut volume, clock) = volume();
    let blocks = fill(&volume, 1);
    clock.advance(Duration::from_secs(20 * 86_400));
    volume.store().read(&blocks[0], 0..100, later()).unwrap();
    let ahead = heat(&volume, &blocks[0]);
    volume.close();
    volume.config.clock = Arc::new(SystemClock);
    volume.open();
    let real = ahead.last_s() - 19 * 86_400;
    eventually("it is noticed", || heat(&volume, &blocks[0]).last_s() < real);
    assert_eq!(heat(&volume, &blocks[0]).count(), ahead.count());
}

#[test]
fn only_reads_count() {
    let (volume, clock) = volume();
    let blocks = fill(&volume, 2);
    let ids: Vec<_> = blocks.iter().map(|block| block.id).collect();
    let before: Vec<_> = blocks.iter().map(|block| heat(&volume, block)).collect();
    assert!(before.iter().all(|heat| heat.count() == 1.0), "writing is one: {before:?}");
    clock.advance(Duration::from_secs(100));
    volume.store().archive(&ids, later(), &mut |_, _| ()).unwrap();
    let options = CheckOptions { data: true, cold_data: true };
    assert!(volume.store().check(options, &mut |_, _| ()).unwrap().is_clean());
    blocks.iter().for_each(|block| drop(volume.store().export(block, later()).unwrap()));
    volume.store().sweep().unwrap();
    volume.store().recompress(&ids, later(), &mut |_, _| ()).unwrap();
    for block in &blocks {
        let read = volume.store().read_for(block, 5..block.len - 5, Intent::Upkeep, later());
        assert_eq!(read.unwrap().source, Source::Hot);
    }
    let after: Vec<_> = blocks.iter().map(|block| heat(&volume, block)).collect();
    assert_eq!(after, before);
    volume.read(&blocks[0]).unwrap();
    assert!(heat(&volume, &blocks[0]).count() > 1.9);
    assert_eq!(heat(&volume, &blocks[1]), before[1]);
}

#[test]
fn warmth_is_there_after_closing_and_after_a_crash_as_far_as_it_was_saved() {
    let (mut volume, clock) = volume();
    let blocks = fill(&volume, 2);
    clock.advance(Duration::from_secs(100));
    volume.read(&blocks[0]).unwrap();
    let known = heat(&volume, &blocks[0]);
    volume.close();
    volume.open();
    assert_eq!(heat(&volume, &blocks[0]), known);
    clock.advance(Duration::from_secs(100));
    volume.read(&blocks[1]).unwrap();
    let known = heat(&volume, &blocks[1]);
    volume.store().inner.save_heat(usize::MAX);
    clock.advance(Duration::from_secs(100));
    volume.read(&blocks[0]).unwrap();
    volume.reopen_after_crash();
    assert_eq!(heat(&volume, &blocks[1]), known);
    volume.crash();
    volume.delete_catalog();
    volume.open();
    volume.store().wait_caught_up(later()).unwrap();
    assert_eq!(heat(&volume, &blocks[1]), SegmentHeat::default(), "forgotten, not invented");
    assert_eq!(volume.read(&blocks[1]).unwrap(), noise(1, BLOCK));
}

#[test]
fn what_is_read_often_outlives_what_was_read_last() {
    let (volume, clock) = volume();
    let blocks = fill(&volume, 3);
    for _ in 0..5 {
        clock.advance(Duration::from_secs(3600));
        volume.read(&blocks[0]).unwrap();
    }
    clock.advance(Duration::from_secs(3600));
    volume.read(&blocks[1]).unwrap();
    let ids: Vec<_> = blocks.iter().map(|block| block.id).collect();
    volume.store().archive(&ids, later(), &mut |_, _| ()).unwrap();
    let cold = |volume: &Volume| {
        let places = volume.store().residence(&ids);
        places.iter().map(|place| *place == Residence::Cold).collect::<Vec<_>>()
    };
    let all = volume.store().usage().hot_bytes;
    for (low, expected) in [(all - 1000, [false, false, true]), (all / 2, [false, true, true])] {
        let marks = Watermarks { high: low, low, copy_ahead: 0, write_reserve: 0 };
        volume.store().set_watermarks(marks).unwrap();
        super::super::testing::eventually("dropped", || cold(&volume) == expected);
    }
    // What is brought back is not the first to go again.
    volume.store().set_watermarks(Watermarks::of_capacity(16 << 20, 256 << 10)).unwrap();
    clock.advance(Duration::from_secs(3600));
    volume.store().stage(&ids[2..], later(), &mut |_, _| ()).unwrap();
    assert!(heat(&volume, &blocks[2]).count() > 1.5);
    let proof = BackupProof::of_blocks(ids.iter().copied());
    volume.store().release(&ids, &proof, later()).unwrap();
    assert_eq!(cold(&volume), [true; 3]);
}
