//! Segments of one temperature: what compaction finds cold goes apart from what is fresh.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::block::{BlockId, BlockRef};
use crate::blocks::Blocks;
use crate::clock::Clock;
use crate::segment::{FileKind, SegmentId};
use crate::store::Temper;
use crate::store::testing::{ShiftedClock, Volume, eventually, noise, soon};

/// Four fill a segment.
const BLOCK: usize = 60_000;

fn volume() -> (Volume, Arc<ShiftedClock>) {
    let clock = Arc::new(ShiftedClock::default());
    let time = Arc::clone(&clock) as Arc<dyn Clock>;
    (Volume::stewarded(|config| config.clock = time), clock)
}

fn fill(volume: &Volume, seeds: std::ops::Range<u64>) -> Vec<BlockRef> {
    let blocks = seeds.map(|seed| volume.append(&noise(seed, BLOCK))).collect();
    end_open(volume);
    blocks
}

fn end_open(volume: &Volume) {
    let inner = &volume.store().inner;
    inner.rotate_now();
    inner.wait_sealed(&inner.unsealed_ids(), soon()).unwrap();
}

fn segment(volume: &Volume, block: &BlockRef) -> SegmentId {
    volume.store().describe(block.id).unwrap().segment
}

fn assert_read(volume: &Volume, blocks: &[(u64, BlockRef)]) {
    for (seed, block) in blocks {
        assert_eq!(volume.read(block).unwrap(), noise(*seed, BLOCK));
    }
}

/// Frees all of each segment of four but its first block, and lets the rest be compacted.
fn compact(volume: &Volume, blocks: &[BlockRef]) -> Vec<(u64, BlockRef)> {
    let before = volume.store().health().compacted_segments;
    let (lives, dead): (Vec<_>, Vec<_>) =
        blocks.iter().copied().enumerate().partition(|(at, _)| at.is_multiple_of(4));
    let dead: Vec<BlockId> = dead.into_iter().map(|(_, block)| block.id).collect();
    volume.namespace.dead.lock().extend(dead.iter().copied());
    volume.store().free(&dead);
    let all = (blocks.len() / 4) as u64;
    eventually("compacted", || volume.store().health().compacted_segments == before + all);
    lives.into_iter().map(|(at, block)| (at as u64, block)).collect()
}

#[test]
fn cold_survivors_go_apart_from_warm_and_fresh_ones() {
    let (mut volume, _) = volume();
    let blocks = fill(&volume, 0..16);
    let tempers = [Temper::Warm(2.0), Temper::SnapshotOnly, Temper::Warm(0.1), Temper::Pinned];
    for (at, temper) in tempers.into_iter().enumerate() {
        volume.namespace.tempers.lock().insert(blocks[at * 4].id, temper);
    }
    let lives = compact(&volume, &blocks);
    let fresh = volume.append(&noise(100, BLOCK));
    let places: Vec<_> = lives.iter().map(|(_, block)| segment(&volume, block)).collect();
    let cold: BTreeSet<_> = [places[1], places[2]].into();
    let warm: BTreeSet<_> = [places[0], places[3], segment(&volume, &fresh)].into();
    assert_eq!((cold.len(), warm.len()), (1, 1), "{places:?}");
    assert!(cold.is_disjoint(&warm));
    assert_read(&volume, &lives);
    // Synced both, and a crash leaves two open segments.
    volume.store().sync().unwrap();
    assert!(volume.files(FileKind::Open).len() >= 2);
    volume.reopen_after_crash();
    assert_read(&volume, &lives);
    assert_read(&volume, &[(100, fresh)]);
    volume.crash();
    volume.delete_catalog();
    volume.open();
    volume.store().wait_caught_up(soon()).unwrap();
    assert_read(&volume, &lives);
    let places: BTreeSet<_> = lives.iter().map(|(_, block)| segment(&volume, block)).collect();
    assert_eq!(places.len(), 2, "still apart");
}

#[test]
fn survivors_never_go_into_a_segment_older_than_theirs() {
    let (mut volume, _) = volume();
    let first = fill(&volume, 0..4);
    let mut lives = compact(&volume, &first);
    let lane = segment(&volume, &first[0]);
    // Sealed after the lane was opened; fresh ones even take a segment that is older than it.
    volume.store().inner.discard_empty();
    let second = fill_beside(&volume, 4..8);
    assert!(segment(&volume, &second[0]) > lane);
    lives.extend(compact(&volume, &second).into_iter().map(|(at, block)| (at + 4, block)));
    assert!(segment(&volume, &second[0]) > lane, "the lane had to be ended");
    assert_read(&volume, &lives);
    end_open(&volume);
    let in_catalog = |volume: &Volume, block: &BlockRef| {
        let inner = &volume.store().inner;
        inner.with_catalog(|catalog| catalog.lookup(block.id)).unwrap().unwrap().segment
    };
    let places: Vec<_> = lives.iter().map(|(_, block)| in_catalog(&volume, block)).collect();
    volume.crash();
    volume.delete_catalog();
    volume.open();
    volume.store().wait_caught_up(soon()).unwrap();
    assert_read(&volume, &lives);
    let rebuilt: Vec<_> = lives.iter().map(|(_, block)| in_catalog(&volume, block)).collect();
    assert_eq!(rebuilt, places, "the catalog says what the segments say");
}

/// Fills a segment and lets it be sealed without ending the cold lane.
fn fill_beside(volume: &Volume, seeds: std::ops::Range<u64>) -> Vec<BlockRef> {
    let blocks: Vec<_> = seeds.map(|seed| volume.append(&noise(seed, BLOCK))).collect();
    let inner = &volume.store().inner;
    let open = inner.find_unsealed(blocks[0].id).unwrap().1;
    inner.rotate_those(&[open]);
    inner.wait_sealed(&[open], soon()).unwrap();
    blocks
}

#[test]
fn a_lane_without_additions_is_sealed_after_a_while() {
    let (volume, clock) = volume();
    let blocks = fill(&volume, 0..4);
    compact(&volume, &blocks);
    let lane = segment(&volume, &blocks[0]);
    std::thread::sleep(Duration::from_millis(700));
    assert!(volume.store().inner.is_unsealed(lane), "more may come");
    clock.advance(Duration::from_secs(11));
    eventually("it is sealed", || !volume.store().inner.is_unsealed(lane));
    assert_eq!(volume.read(&blocks[0]).unwrap(), noise(0, BLOCK));
}

#[test]
fn at_a_small_capacity_the_cold_lane_is_small() {
    let volume = Volume::stewarded(|config| {
        config.hot_capacity = Some(8 << 20);
        config.segment_bytes = 1 << 20;
    });
    // Seventeen blocks fill a segment here.
    let blocks = fill(&volume, 0..68);
    let dead: Vec<_> = (0..68).filter(|at| at % 17 > 3).map(|at| blocks[at as usize].id).collect();
    volume.namespace.dead.lock().extend(dead.iter().copied());
    volume.store().free(&dead);
    eventually("compacted", || volume.store().health().compacted_segments >= 4);
    let living = blocks.iter().enumerate().filter(|(at, _)| at % 17 <= 3);
    let living: Vec<_> = living.map(|(at, block)| (at as u64, *block)).collect();
    let places: BTreeSet<_> = living.iter().map(|(_, block)| segment(&volume, block)).collect();
    assert!(places.len() >= 2, "sixteen blocks are more than the lane takes: {places:?}");
    assert_read(&volume, &living);
}
