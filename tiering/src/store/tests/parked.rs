//! A cold tier that is full or fails: copies are parked, visibly, and are not tried in a loop; and
//! nothing is deleted there from an incomplete view.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::block::{BlockId, BlockRef};
use crate::blocks::Blocks;
use crate::clock::Clock;
use crate::store::StoreConfig;
use crate::store::testing::{ShiftedClock, Volume, eventually, later, noise};
use crate::tier::{FailureKind, Fault, Faulty, Memory, Op, Tier};

/// Four fill a segment.
const BLOCK: usize = 60_000;

struct World {
    volume: Volume,
    faulty: Arc<Faulty>,
    memory: Arc<Memory>,
    clock: Arc<ShiftedClock>,
}

fn world(change: impl FnOnce(&mut StoreConfig)) -> World {
    let memory = Arc::new(Memory::new());
    let faulty = Arc::new(Faulty::new(Arc::clone(&memory) as Arc<dyn Tier>));
    let clock = Arc::new(ShiftedClock::default());
    let (tier, time) = (Arc::clone(&faulty) as Arc<dyn Tier>, Arc::clone(&clock));
    let volume = Volume::with(|config| {
        config.cold = Some(tier);
        config.clock = time as Arc<dyn Clock>;
        change(config);
    });
    World { volume, faulty, memory, clock }
}

fn fill(volume: &Volume, count: u64) -> Vec<BlockRef> {
    let blocks = (0..count).map(|seed| volume.append(&noise(seed, BLOCK))).collect();
    let inner = &volume.store().inner;
    inner.rotate_now();
    inner.wait_sealed(&inner.unsealed_ids(), later()).unwrap();
    blocks
}

fn a_while() {
    std::thread::sleep(Duration::from_millis(1500));
}

#[test]
fn a_tier_that_fails_is_tried_ever_more_seldom_by_one_segment_at_a_time() {
    let World { volume, faulty, clock, .. } = world(|_| ());
    faulty.cut_off();
    fill(&volume, 32);
    eventually("it was tried", || volume.store().health().upload_failures > 0);
    // Long pauses: no time passes but what the test lets pass, and a little more.
    for _ in 0..12 {
        let failures = volume.store().health().upload_failures;
        clock.advance(Duration::from_secs(120));
        eventually("it is tried again", || volume.store().health().upload_failures > failures);
    }
    let before = volume.store().health();
    assert_eq!(before.parked_uploads, 8, "{before:?}");
    let why = before.parked_why.unwrap();
    assert!(why.contains("injected fault"), "{why}");
    a_while();
    let after = volume.store().health();
    assert_eq!(after.upload_failures, before.upload_failures, "nothing is tried in the pause");
    clock.advance(Duration::from_secs(61));
    eventually("one is tried", || volume.store().health().upload_failures > before.upload_failures);
    a_while();
    let tried = volume.store().health().upload_failures - before.upload_failures;
    assert!(tried <= 2, "{tried} were tried at once");
    faulty.reconnect();
    clock.advance(Duration::from_secs(61));
    eventually("all is copied once it works", || {
        clock.advance(Duration::from_secs(61));
        volume.store().health().uploads_waiting == 0
    });
    let health = volume.store().health();
    assert_eq!((health.parked_uploads, health.parked_why), (0, None));
}

#[test]
fn a_full_cold_tier_parks_copies_and_says_so() {
    const ROOM: u64 = 1 << 20;
    let World { volume, memory, faulty, .. } = world(|config| config.cold_capacity = Some(ROOM));
    let blocks = fill(&volume, 32);
    let settled = || {
        let health = volume.store().health();
        health.uploads_waiting > 0 && health.uploads_waiting == health.parked_uploads
    };
    eventually("what fits is copied", settled);
    a_while();
    let calls = faulty.calls(Op::PutFile);
    let (health, usage) = (volume.store().health(), volume.store().usage());
    assert!(usage.cold_segments >= 2 && usage.cold_bytes <= ROOM, "{usage:?}");
    assert_eq!(health.parked_uploads + usage.cold_segments, 8, "{health:?}");
    assert!(health.parked_why.unwrap().contains("full"));
    assert_eq!(health.upload_failures, 0);
    assert_eq!(memory.keys().len() as u64, usage.cold_segments);
    a_while();
    assert_eq!(faulty.calls(Op::PutFile), calls, "it is not tried");
    // Room that is made is used.
    let dead: Vec<BlockId> = blocks[..4].iter().map(|block| block.id).collect();
    volume.namespace.dead.lock().extend(dead.iter().copied());
    volume.store().free(&dead);
    eventually("another is copied", || faulty.calls(Op::PutFile) > calls);
}

#[test]
fn a_tier_without_room_of_its_own_parks_copies_too() {
    let World { volume, faulty, .. } = world(|config| config.copy_ahead = false);
    let blocks = fill(&volume, 8);
    for _ in 0..20 {
        faulty.fail_next(Some(Op::PutFile), "", Fault::Error(FailureKind::Full));
    }
    let ids: Vec<_> = blocks.iter().map(|block| block.id).collect();
    let told = volume.store().archive(&ids, later(), &mut |_, _| ());
    assert!(told.is_err(), "whoever waits is told");
    assert!(volume.store().health().parked_uploads > 0);
    assert!(faulty.calls(Op::PutFile) < 12, "{} calls", faulty.calls(Op::PutFile));
    for (seed, block) in blocks.iter().enumerate() {
        assert_eq!(volume.read(block).unwrap(), noise(seed as u64, BLOCK));
    }
}

#[test]
fn nothing_is_deleted_in_cold_before_everything_there_is_known() {
    let World { mut volume, memory, faulty, clock } = world(|config| config.copy_ahead = false);
    let blocks = fill(&volume, 8);
    let ids: Vec<BlockId> = blocks.iter().map(|block| block.id).collect();
    volume.store().archive(&ids, later(), &mut |_, _| ()).unwrap();
    assert_eq!(memory.keys().len(), 2);
    volume.namespace.dead.lock().extend(ids.iter().copied());
    volume.close();
    // Neither a listing that fails nor records that are missing are a reason to delete.
    volume.delete_catalog();
    for _ in 0..100 {
        faulty.fail_next(Some(Op::List), "segments/", Fault::Error(FailureKind::Unavailable));
    }
    volume.open();
    eventually("the local segments are recorded", || volume.store().inner.unrecorded().is_empty());
    assert!(!volume.store().is_caught_up());
    let known = volume.store().inner.table.ids(|_| true);
    for id in &known {
        // As if somebody had read them there meanwhile.
        volume.store().inner.found_in_cold(*id);
    }
    volume.store().sweep().unwrap();
    assert_eq!(memory.keys().len(), 2, "deleted from an incomplete view");
    assert_eq!(volume.namespace.deleted.lock().len(), 0);
    faulty.reconnect();
    volume.store().wait_caught_up(later()).unwrap();
    volume.store().sweep().unwrap();
    assert_eq!(memory.keys(), Vec::<String>::new());
    assert!(volume.namespace.backups.load(Ordering::SeqCst) == 0);
    drop(clock);
}
