//! Watermarks: where the mover begins and ends, what comes back from cold may take, and changing
//! them while the store runs.

use std::sync::Arc;

use crate::block::{BlockId, BlockRef};
use crate::clock::Clock;
use crate::error::Error;
use crate::store::capacity::NO_ROOM;
use crate::store::testing::{ShiftedClock, Volume, eventually, later, noise, soon};
use crate::store::{BackupProof, Cancel, Job, Residence, StoreConfig, Watermarks};
use crate::tier::{Memory, Tier};

const MIB: u64 = 1 << 20;
const CAPACITY: u64 = 8 * MIB;
const BLOCK: usize = 240_000;

fn marks(high: u64, low: u64) -> Watermarks {
    Watermarks { high, low, copy_ahead: 0, write_reserve: 0 }
}

fn volume(change: impl FnOnce(&mut StoreConfig)) -> Volume {
    Volume::with(|config| {
        config.cold = Some(Arc::new(Memory::new()) as Arc<dyn Tier>);
        config.hot_capacity = Some(CAPACITY);
        change(config);
    })
}

fn fill(volume: &Volume, seeds: std::ops::Range<u64>) -> Vec<BlockRef> {
    let blocks: Vec<_> = seeds.map(|seed| volume.append(&noise(seed, BLOCK))).collect();
    volume.seal();
    eventually("all is copied", || {
        let usage = volume.store().usage();
        usage.cold_segments == usage.segments
    });
    blocks
}

fn used(volume: &Volume) -> u64 {
    volume.store().usage().hot_bytes
}

#[test]
fn dropping_begins_above_the_high_mark_and_goes_on_to_the_low_one() {
    let volume = volume(|config| config.watermarks = Some(marks(6 * MIB, 3 * MIB)));
    fill(&volume, 0..18);
    let before = used(&volume);
    assert!(before > 4 * MIB && before < 6 * MIB, "{before}");
    std::thread::sleep(std::time::Duration::from_millis(700));
    assert_eq!(volume.store().health().dropped_bytes, 0, "between the marks nothing begins");
    fill(&volume, 18..26);
    let inner = &volume.store().inner;
    // The mover has seen it as well, or it would go on with what is appended next.
    eventually("it goes on to the low mark", || {
        let nobody_drops = inner.table.fold(true, |all, segment| all && !segment.busy);
        used(&volume) <= 3 * MIB && inner.capacity.excess() == 0 && nobody_drops
    });
    assert!(used(&volume) > 2 * MIB, "and not further: {}", used(&volume));
    let dropped = volume.store().health().dropped_bytes;
    fill(&volume, 26..30);
    assert_eq!(volume.store().health().dropped_bytes, dropped, "until the high mark again");
}

#[test]
fn marks_may_be_changed_at_any_time_and_nonsense_is_refused() {
    let volume = volume(|config| config.watermarks = Some(marks(7 * MIB, 6 * MIB)));
    fill(&volume, 0..20);
    assert!(used(&volume) > 4 * MIB);
    assert_eq!(volume.store().watermarks(), Some(marks(7 * MIB, 6 * MIB)));
    volume.store().set_watermarks(marks(4 * MIB, 2 * MIB)).unwrap();
    eventually("the new low mark is reached", || used(&volume) <= 2 * MIB);
    for bad in [marks(2 * MIB, 3 * MIB), marks(9 * MIB, MIB)] {
        assert!(matches!(volume.store().set_watermarks(bad), Err(Error::Config(_))));
    }
    assert_eq!(volume.store().watermarks(), Some(marks(4 * MIB, 2 * MIB)));
}

#[test]
fn copies_ahead_begin_at_their_mark() {
    let marks = Watermarks { copy_ahead: 3 * MIB, ..marks(7 * MIB, 6 * MIB) };
    let volume = volume(|config| config.watermarks = Some(marks));
    for seed in 0..8 {
        volume.append(&noise(seed, BLOCK));
    }
    volume.seal();
    std::thread::sleep(std::time::Duration::from_millis(700));
    assert_eq!(volume.store().usage().cold_segments, 0, "nothing is needed yet");
    fill(&volume, 8..14);
}

#[test]
fn what_comes_back_takes_the_place_of_what_is_colder_up_to_the_low_mark() {
    let clock = Arc::new(ShiftedClock::default());
    let time = Arc::clone(&clock) as Arc<dyn Clock>;
    let volume = volume(|config| {
        config.watermarks = Some(marks(7 * MIB, 5 * MIB));
        config.clock = time;
    });
    let cold = fill(&volume, 0..8);
    let ids: Vec<BlockId> = cold.iter().map(|block| block.id).collect();
    let proof = BackupProof::of_blocks(ids.iter().copied());
    volume.store().release(&ids, &proof, soon()).unwrap();
    fill(&volume, 8..30);
    // What comes back later than the others were written is warmer than they are.
    clock.advance(std::time::Duration::from_secs(10));
    let moved = volume.store().stage(&ids, soon(), &mut |_, _| ()).unwrap();
    assert_eq!((moved.blocks, moved.refused.len()), (8, 0));
    assert!(used(&volume) <= 5 * MIB, "{}", used(&volume));
    assert!(volume.store().residence(&ids).iter().all(|r| *r == Residence::Dual));
}

#[test]
fn what_comes_back_never_takes_what_is_kept_for_writers() {
    let volume = volume(|config| config.watermarks = Some(marks(7 * MIB, 5 * MIB)));
    let cold = fill(&volume, 0..4);
    let ids: Vec<BlockId> = cold.iter().map(|block| block.id).collect();
    let proof = BackupProof::of_blocks(ids.iter().copied());
    volume.store().release(&ids, &proof, soon()).unwrap();
    assert!(volume.store().recall_room().unwrap() > 4 * MIB);
    // Nothing of this may be dropped, and it reaches beyond the low mark.
    volume.namespace.refuses_backup.store(true, std::sync::atomic::Ordering::SeqCst);
    fill(&volume, 4..26);
    assert_eq!(volume.store().recall_room(), Some(0));
    let before = used(&volume);
    let cancel = Cancel::default();
    let staged = std::thread::scope(|scope| {
        let staging = scope.spawn(|| {
            let job = Job { wait: soon(), cancel: cancel.clone(), progress: &mut |_| () };
            volume.store().stage_job(&ids, job)
        });
        eventually("it waits", || volume.store().health().waiting_for_space > 0);
        // A writer does not wait behind it.
        volume.append(&noise(99, BLOCK));
        cancel.cancel();
        staging.join().unwrap()
    });
    assert!(matches!(staged, Err(Error::Cancelled)), "{staged:?}");
    assert!(used(&volume) >= before);
    // More than the low mark ever leaves is refused at once.
    volume.store().set_watermarks(marks(7 * MIB, 100 << 10)).unwrap();
    let refused = volume.store().stage(&ids, soon(), &mut |_, _| ());
    assert!(matches!(refused, Err(Error::NoSpace)), "{refused:?}");
}

#[test]
fn what_comes_back_is_refused_after_a_minute_without_room() {
    let clock = Arc::new(ShiftedClock::default());
    let time = Arc::clone(&clock) as Arc<dyn Clock>;
    let volume = volume(|config| {
        config.watermarks = Some(marks(7 * MIB, 5 * MIB));
        config.clock = time;
    });
    let cold = fill(&volume, 0..4);
    let ids: Vec<BlockId> = cold.iter().map(|block| block.id).collect();
    let proof = BackupProof::of_blocks(ids.iter().copied());
    volume.store().release(&ids, &proof, soon()).unwrap();
    volume.namespace.refuses_backup.store(true, std::sync::atomic::Ordering::SeqCst);
    fill(&volume, 4..26);
    std::thread::scope(|scope| {
        let staging = scope.spawn(|| volume.store().stage(&ids, later(), &mut |_, _| ()));
        eventually("it waits", || volume.store().health().waiting_for_space > 0);
        clock.advance(std::time::Duration::from_secs(50));
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(!staging.is_finished(), "it gave up early");
        // A writer would wait five times as long.
        clock.advance(std::time::Duration::from_secs(15));
        eventually("it gives up", || staging.is_finished());
        let refused = staging.join().unwrap();
        assert!(matches!(refused, Err(Error::TimedOut(NO_ROOM))), "{refused:?}");
    });
}
