//! Who goes and who stays when space is short.

use std::sync::Arc;
use std::time::Duration;

use crate::block::{BlockId, BlockRef};
use crate::blocks::Blocks;
use crate::encode::EncodeMemory;
use crate::error::Error;
use crate::store::testing::{Volume, eventually, noise, soon};
use crate::store::{BackupProof, Residence, Temper, Watermarks};
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

#[test]
fn a_tier_full_of_pinned_blocks_is_full_and_says_why() {
    let volume = volume();
    let all_pinned = |volume: &Volume, id: BlockId| {
        volume.namespace.tempers.lock().insert(id, Temper::Pinned);
        volume.store().tempers_changed();
    };
    let mut blocks = Vec::new();
    let error = loop {
        let seed = blocks.len() as u64;
        let plain = noise(seed, 4 * BLOCK);
        match volume.store().append(&plain, &mut EncodeMemory::default(), soon()) {
            Ok(block) => {
                all_pinned(&volume, block.id);
                blocks.push(block);
            }
            Err(error) => break error,
        }
        assert!(blocks.len() < 100, "pinned blocks were dropped");
    };
    assert!(matches!(error, Error::NoSpace), "{error:?}");
    assert_eq!(volume.store().health().full_why.unwrap(), "pinned data fills the hot tier");
    assert_eq!(volume.store().health().dropped_bytes, 0);
    // Unpinning one helps at once.
    temper(&volume, &blocks[..4], Temper::Warm(0.0));
    volume.append(&noise(1000, 4 * BLOCK));
    assert_eq!(volume.store().health().full_why, None);
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
