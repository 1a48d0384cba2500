//! Dead blocks that nobody freed.

use std::sync::Arc;
use std::time::Duration;

use crate::block::BlockRef;
use crate::blocks::Blocks;
use crate::budget::Budget;
use crate::clock::{Clock, ManualClock};
use crate::segment::FileKind;
use crate::store::testing::{Volume, damage, eventually, noise};

/// A volume whose clock stands still, with two segments of which nothing is referred to.
fn leaky() -> (Volume, Arc<ManualClock>, Vec<BlockRef>) {
    let clock = Arc::new(ManualClock::new());
    let volume = Volume::with(|config| {
        config.clock = Arc::clone(&clock) as Arc<dyn Clock>;
        config.budget = Budget::new(256 << 20, Arc::clone(&config.clock));
    });
    let mut blocks = Vec::new();
    for seed in 0..2 {
        blocks.push(volume.append(&noise(seed, 50_000)));
        seal(&volume);
    }
    volume.namespace.dead.lock().extend(blocks.iter().map(|block| block.id));
    (volume, clock, blocks)
}

fn seal(volume: &Volume) {
    volume.store().inner.rotate_now();
    eventually("sealed", || !volume.store().inner.is_sealing());
}

#[test]
fn what_a_crash_leaked_is_found_some_minutes_after_the_next_open() {
    let (mut volume, clock, _) = leaky();
    volume.reopen_after_crash();
    assert_eq!(volume.files(FileKind::Sealed).len(), 2);
    clock.advance(Duration::from_secs(360));
    eventually("collected", || volume.files(FileKind::Sealed).is_empty());
}

#[test]
fn without_a_crash_leaks_are_looked_for_once_a_day() {
    let (mut volume, clock, _) = leaky();
    volume.close();
    volume.open();
    clock.advance(Duration::from_secs(12 * 3600));
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(volume.files(FileKind::Sealed).len(), 2, "not yet");
    clock.advance(Duration::from_secs(12 * 3600 + 1));
    eventually("collected", || volume.files(FileKind::Sealed).is_empty());
}

#[test]
fn a_segment_that_cannot_be_judged_holds_up_no_other() {
    let (mut volume, clock, _) = leaky();
    volume.close();
    let (_, first) = volume.files(FileKind::Sealed).remove(0);
    damage(&first, 0, first.metadata().unwrap().len() as usize);
    volume.open();
    assert_eq!(volume.store().sweep().unwrap(), 1);
    assert_eq!(volume.files(FileKind::Sealed).len(), 1);
    // Nor does it when it cannot even be recorded.
    let other = volume.append(&noise(9, 50_000));
    volume.namespace.dead.lock().insert(other.id);
    volume.close();
    volume.delete_catalog();
    volume.open();
    assert_eq!(volume.files(FileKind::Sealed).len(), 2);
    clock.advance(Duration::from_secs(360));
    eventually("collected", || volume.files(FileKind::Sealed).len() == 1);
}

#[test]
fn a_segment_that_could_not_be_judged_rests_for_a_minute() {
    let (mut volume, clock, blocks) = leaky();
    volume.close();
    let (id, file) = volume.files(FileKind::Sealed).remove(0);
    damage(&file, 0, file.metadata().unwrap().len() as usize);
    volume.open();
    volume.store().free(&[blocks[0].id]);
    let judge_at = || volume.store().inner.table.with(id, |segment| segment.judge_at).unwrap();
    eventually("it was tried", || judge_at().is_some());
    let first = judge_at();
    clock.advance(Duration::from_secs(30));
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(judge_at(), first, "tried again in its pause");
    clock.advance(Duration::from_secs(31));
    eventually("it is tried again", || judge_at() > first);
}
