//! Who goes and who stays when space is short.

use std::sync::Arc;
use std::time::Duration;

use crate::block::{BlockId, BlockRef};
use crate::blocks::{Blocks, Wait};
use crate::clock::{Clock, SystemClock};
use crate::error::Error;
use crate::store::testing::{Volume, eventually, noise, soon};
use crate::store::{BackupProof, PINNED, Residence, Temper, Watermarks};
use crate::tier::{Memory, Tier};

const CAPACITY: u64 = 6 << 20;
/// Four fill a segment.
const BLOCK: usize = 60_000;

fn volume() -> Volume {
    Volume::stewarded(|config| {
        config.cold = Some(Arc::new(Memory::new()) as Arc<dyn Tier>);
        config.hot_capacity = Some(CAPACITY);
    })
}

fn fill(volume: &Volume, count: u64) -> Vec<BlockRef> {
    let blocks: Vec<_> = (0..count).map(|seed| volume.append(&noise(seed, BLOCK))).collect();
    volume.seal();
    eventually("all is copied", || {
        let usage = volume.store().usage();
        usage.cold_segments == usage.segments
    });
    blocks
}

fn temper(volume: &Volume, blocks: &[BlockRef], temper: Temper) {
    volume.namespace.tempers.lock().extend(blocks.iter().map(|block| (block.id, temper)));
    volume.store().tempers_changed();
}

fn cold(volume: &Volume, blocks: &[BlockRef]) -> Vec<bool> {
    let ids: Vec<_> = blocks.iter().map(|block| block.id).collect();
    volume.store().residence(&ids).iter().map(|place| *place == Residence::Cold).collect()
}

/// Lets the mover bring usage down to `low` bytes.
fn squeeze(volume: &Volume, low: u64) {
    let marks = Watermarks { high: low, low, copy_ahead: 0, write_reserve: 0 };
    volume.store().set_watermarks(marks).unwrap();
    eventually("it is small enough", || volume.store().usage().hot_bytes <= low);
}

#[test]
fn what_only_snapshots_hold_goes_first_also_out_of_the_middle_of_warm_segments() {
    let volume = volume();
    let blocks = fill(&volume, 16);
    // The second and third segment: one all snapshots, one with a single such block.
    let (all, single) = (&blocks[4..8], &blocks[9..10]);
    let others: Vec<_> =
        blocks.iter().filter(|b| !all.contains(b) && !single.contains(b)).copied().collect();
    temper(&volume, &others, Temper::Warm(5.0));
    temper(&volume, all, Temper::SnapshotOnly);
    temper(&volume, single, Temper::SnapshotOnly);
    let before = volume.store().usage().hot_bytes;
    squeeze(&volume, before - 5 * BLOCK as u64);
    assert_eq!((cold(&volume, all), cold(&volume, single)), (vec![true; 4], vec![true]));
    assert_eq!(cold(&volume, &others), vec![false; 11]);
    for (seed, block) in blocks.iter().enumerate() {
        assert_eq!(volume.read(block).unwrap(), noise(seed as u64, BLOCK));
    }
}

#[test]
fn the_coldest_segment_goes_first() {
    let volume = volume();
    let blocks = fill(&volume, 16);
    for (at, heat) in [(0, 3.0), (4, 1.0), (8, 0.5), (12, f32::NAN)] {
        temper(&volume, &blocks[at..at + 4], Temper::Warm(heat));
    }
    let segment = volume.store().usage().hot_bytes / 4;
    squeeze(&volume, 3 * segment + 20_000);
    let firsts = |volume: &Volume| cold(volume, &[blocks[0], blocks[4], blocks[8], blocks[12]]);
    assert_eq!(firsts(&volume), [false, false, false, true], "no number is no heat");
    squeeze(&volume, segment + 40_000);
    assert_eq!(firsts(&volume), [false, true, true, true]);
}

#[test]
fn pinned_blocks_stay_and_the_others_of_their_segment_go() {
    let volume = volume();
    let blocks = fill(&volume, 16);
    let pinned: Vec<_> = blocks.iter().copied().step_by(4).collect();
    temper(&volume, &pinned, Temper::Pinned);
    let before = volume.store().usage().hot_bytes;
    squeeze(&volume, before - 10 * BLOCK as u64);
    for (at, is_cold) in cold(&volume, &blocks).into_iter().enumerate() {
        assert!(!is_cold || at % 4 != 0, "pinned block {at} went");
    }
    assert!(cold(&volume, &blocks).iter().filter(|cold| **cold).count() >= 10);
    // By hand neither.
    let ids: Vec<BlockId> = blocks.iter().map(|block| block.id).collect();
    let proof = BackupProof::of_blocks(ids.iter().copied());
    let moved = volume.store().release(&ids, &proof, soon()).unwrap();
    let refused: Vec<_> = moved.refused.iter().map(|(id, _)| *id).collect();
    assert_eq!(refused, pinned.iter().map(|block| block.id).collect::<Vec<_>>());
    assert!(moved.refused.iter().all(|(_, why)| why == "it is pinned"));
    // Once it is no longer pinned it may go.
    temper(&volume, &pinned, Temper::Warm(0.0));
    squeeze(&volume, BLOCK as u64);
    assert!(cold(&volume, &pinned).iter().all(|cold| *cold));
}

#[test]
fn what_dies_beside_pinned_blocks_gives_its_room_back() {
    let volume = volume();
    let blocks = fill(&volume, 16);
    let kept = blocks.iter().enumerate().filter(|(at, _)| at % 4 < 3);
    let kept: Vec<_> = kept.map(|(_, block)| *block).collect();
    temper(&volume, &kept, Temper::Pinned);
    let before = volume.store().usage().hot_bytes;
    squeeze(&volume, before - 3 * BLOCK as u64);
    let before = volume.store().usage().hot_bytes;
    let dead: Vec<BlockId> =
        blocks.iter().enumerate().filter(|(at, _)| at % 4 < 2).map(|(_, b)| b.id).collect();
    volume.namespace.dead.lock().extend(dead.iter().copied());
    volume.store().free(&dead);
    let room = dead.len() as u64 * (BLOCK as u64 - 8192);
    eventually("the room is back", || volume.store().usage().hot_bytes + room <= before);
    for (seed, block) in blocks.iter().enumerate().filter(|(at, _)| at % 4 >= 2) {
        assert_eq!(volume.read(block).unwrap(), noise(seed as u64, BLOCK));
    }
}

/// Appends blocks that are pinned at once.
fn fill_with_pinned(volume: &Volume, count: u64) -> Vec<BlockRef> {
    let mut blocks = Vec::new();
    for seed in 0..count {
        let block = volume.append(&noise(seed, 4 * BLOCK));
        volume.namespace.tempers.lock().insert(block.id, Temper::Pinned);
        volume.store().tempers_changed();
        blocks.push(block);
    }
    blocks
}

#[test]
fn what_is_written_weighs_more_than_pins_when_nothing_else_can_go() {
    let volume = volume();
    // Several times what hot holds; each of them had to be taken in.
    let blocks = fill_with_pinned(&volume, 100);
    assert!(volume.store().health().unpinned_bytes > 0);
    let away = cold(&volume, &blocks).iter().filter(|cold| **cold).count();
    assert!(away > 50, "{away} of 100");
    for (seed, block) in blocks.iter().enumerate() {
        assert_eq!(volume.read(block).unwrap(), noise(seed as u64, 4 * BLOCK));
    }
}

#[test]
fn pins_stay_while_anything_else_can_go() {
    let volume = volume();
    let pinned = fill_with_pinned(&volume, 8);
    for _ in 0..4 {
        fill(&volume, 40);
    }
    assert_eq!(volume.store().health().unpinned_bytes, 0);
    assert!(cold(&volume, &pinned).iter().all(|cold| !cold));
}

#[test]
fn what_comes_back_from_cold_drives_no_pinned_block_out() {
    let volume = volume();
    let blocks = fill_with_pinned(&volume, 100);
    let away: Vec<_> = blocks
        .iter()
        .zip(cold(&volume, &blocks))
        .filter(|(_, is_cold)| *is_cold)
        .map(|(block, _)| block.id)
        .collect();
    // Nobody writes any more.
    std::thread::sleep(Duration::from_millis(300));
    let before = volume.store().health().unpinned_bytes;
    let briefly = Wait::Until(SystemClock.instant() + Duration::from_secs(3));
    volume.store().stage(&away, briefly, &mut |_, _| ()).unwrap_err();
    assert_eq!(volume.store().health().unpinned_bytes, before);
}

#[test]
fn a_steward_that_fails_drops_nothing() {
    struct Silent;
    impl crate::store::Steward for Silent {
        fn tempers(&self, _: &[BlockId]) -> crate::Result<Vec<Temper>> {
            Err(Error::TimedOut("asking who is pinned"))
        }
    }
    let mut volume = volume();
    let blocks = fill(&volume, 8);
    volume.close();
    volume.config.steward = Some(Arc::new(Silent));
    volume.open();
    let marks = Watermarks { high: 0, low: 0, copy_ahead: 0, write_reserve: 0 };
    volume.store().set_watermarks(marks).unwrap();
    eventually("it was asked", || volume.store().health().last_error.is_some());
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(cold(&volume, &blocks), vec![false; 8]);
}

#[test]
fn what_is_pinned_while_a_release_waits_stays() {
    let volume = volume();
    let blocks = fill(&volume, 4);
    let ids: Vec<_> = blocks.iter().map(|block| block.id).collect();
    let inner = &volume.store().inner;
    let id = volume.store().describe(ids[0]).unwrap().segment;
    eventually("it is nobody's", || inner.table.claim(id));
    std::thread::scope(|scope| {
        let proof = BackupProof::of_blocks(ids.iter().copied());
        let (store, ids) = (volume.store(), &ids);
        let releasing = scope.spawn(move || store.release(ids, &proof, soon()));
        eventually("the release waits", || inner.table.is_wanted(id));
        temper(&volume, &blocks[1..2], Temper::Pinned);
        inner.table.unclaim(id);
        let moved = releasing.join().unwrap().unwrap();
        assert_eq!(moved.refused, [(ids[1], PINNED.to_owned())]);
    });
    assert_eq!(cold(&volume, &blocks), [true, false, true, true]);
}
