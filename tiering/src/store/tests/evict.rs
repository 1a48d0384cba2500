//! Hot copies that should go and once stayed.

use std::sync::Arc;
use std::time::Duration;

use crate::block::{BlockId, BlockRef};
use crate::blocks::Blocks;
use crate::clock::Clock;
use crate::segment::FileKind;
use crate::store::BackupProof;
use crate::store::testing::{ShiftedClock, Volume, eventually, noise, soon};
use crate::tier::{FailureKind, Fault, Faulty, Memory, Op, Tier};

/// A volume with one segment of four blocks, in both tiers, the last two of them dead, as a later
/// session sees it.
fn half_dead() -> (Volume, Vec<BlockRef>) {
    let tier = Arc::new(Memory::new()) as Arc<dyn Tier>;
    let mut volume = Volume::with(|config| {
        config.cold = Some(tier);
        config.hot_capacity = Some(6 << 20);
    });
    let blocks: Vec<_> = (0..4).map(|seed| volume.append(&noise(seed, 50_000))).collect();
    let ids: Vec<BlockId> = blocks.iter().map(|block| block.id).collect();
    volume.store().archive(&ids, soon(), &mut |_, _| ()).unwrap();
    volume.close();
    volume.open();
    volume.namespace.dead.lock().extend(ids[2..].iter().copied());
    assert_eq!(volume.files(FileKind::Sealed).len(), 1);
    (volume, blocks)
}

/// Records a block as released, as a process does that dies before it punches the hole.
fn note_hole(volume: &Volume, block: &BlockRef) {
    let inner = &volume.store().inner;
    let id = volume.files(FileKind::Sealed)[0].0;
    let index = inner.load_index(id, Duration::from_secs(5)).unwrap();
    let frame = index.find(block.id)[0].frame_range();
    inner.table.update(id, |s| s.record.holes.insert(frame.start, frame.end)).unwrap();
}

#[test]
fn a_segment_whose_living_blocks_are_all_released_is_dropped() {
    let (volume, blocks) = half_dead();
    blocks[..2].iter().for_each(|block| note_hole(&volume, block));
    // More than everything is too much: whatever can go must.
    volume.store().inner.capacity.set_other(1 << 30);
    eventually("the hot file goes", || volume.files(FileKind::Sealed).is_empty());
    volume.store().inner.capacity.set_other(0);
    for (seed, block) in blocks[..2].iter().enumerate() {
        assert_eq!(volume.read(block).unwrap(), noise(seed as u64, 50_000));
    }
}

#[test]
fn a_hole_that_was_recorded_and_not_punched_is_punched_by_the_next_release() {
    let (volume, blocks) = half_dead();
    note_hole(&volume, &blocks[0]);
    let before = volume.store().usage().hot_bytes;
    let proof = BackupProof::of_blocks([blocks[0].id]);
    let moved = volume.store().release(&[blocks[0].id], &proof, soon()).unwrap();
    assert_eq!(moved.blocks, 0, "nobody could read it there any more");
    let after = volume.store().usage().hot_bytes;
    assert!(after + 40_000 < before, "{before} bytes became {after}");
}

#[test]
fn a_stage_that_fails_leaves_nothing_behind() {
    let memory = Arc::new(Memory::new());
    let faulty = Arc::new(Faulty::new(memory as Arc<dyn Tier>));
    let volume = Volume::with_cold(Arc::clone(&faulty) as Arc<dyn Tier>);
    let block = volume.append(&noise(1, 50_000));
    volume.store().archive(&[block.id], soon(), &mut |_, _| ()).unwrap();
    let proof = BackupProof::of_blocks([block.id]);
    volume.store().release(&[block.id], &proof, soon()).unwrap();
    let before = volume.store().usage().hot_bytes;
    let stage = || volume.store().stage(&[block.id], soon(), &mut |_, _| ());
    // The head, the footer, the frame: each may be what does not come.
    for passing in 0..3 {
        for _ in 0..passing {
            faulty.fail_next(Some(Op::GetRange), "", Fault::Delay(Duration::ZERO));
        }
        // A frame that does not come, or comes damaged, is asked for once more.
        for _ in 0..1 + passing / 2 {
            faulty.fail_next(Some(Op::GetRange), "", Fault::Error(FailureKind::Unavailable));
        }
        assert!(stage().is_err());
        // Who asked twice and who did not is left open.
        faulty.reconnect();
        let left: Vec<_> = std::fs::read_dir(volume.config.hot_dir.join("tmp")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(volume.store().usage().hot_bytes, before);
    }
    assert_eq!(stage().unwrap().blocks, 1);
}

#[test]
fn room_is_made_for_a_request_larger_than_what_is_kept_free() {
    let tier = Arc::new(Memory::new()) as Arc<dyn Tier>;
    let volume = Volume::with(|config| {
        config.cold = Some(tier);
        config.hot_capacity = Some(6 << 20);
        config.segment_bytes = 1 << 20;
    });
    let cold: Vec<_> = (0..2).map(|seed| volume.append(&noise(seed, 480_000))).collect();
    let ids: Vec<BlockId> = cold.iter().map(|block| block.id).collect();
    volume.store().archive(&ids, soon(), &mut |_, _| ()).unwrap();
    let proof = BackupProof::of_blocks(ids.iter().copied());
    volume.store().release(&ids, &proof, soon()).unwrap();
    let inner = &volume.store().inner;
    let mut seed = 10;
    // As full as it gets without anybody dropping anything.
    while inner.capacity.used_bytes() + (600 << 10) < (6 << 20) - (768 << 10) {
        volume.append(&noise(seed, 480_000));
        seed += 1;
    }
    volume.seal();
    eventually("all is copied", || {
        let usage = volume.store().usage();
        usage.cold_segments == usage.segments
    });
    assert_eq!(inner.capacity.excess(), 0);
    let soon = crate::blocks::Wait::Until(
        crate::clock::Clock::instant(&crate::clock::SystemClock) + Duration::from_secs(10),
    );
    let moved = volume.store().stage(&ids, soon, &mut |_, _| ()).unwrap();
    assert_eq!(moved.blocks, 2);
}

/// The mover does both, and what nobody needs any more is room without cold.
#[test]
fn garbage_is_collected_while_cold_hangs_over_a_hot_copy_that_is_to_go() {
    let faulty = Arc::new(Faulty::new(Arc::new(Memory::new())));
    let clock = Arc::new(ShiftedClock::default());
    let volume = Volume::with(|config| {
        config.cold = Some(Arc::clone(&faulty) as Arc<dyn Tier>);
        config.clock = Arc::clone(&clock) as Arc<dyn Clock>;
        config.hot_capacity = Some(6 << 20);
        config.copy_ahead = false;
    });
    let copied = volume.append(&noise(1, 50_000)).id;
    volume.store().archive(&[copied], soon(), &mut |_, _| ()).unwrap();
    let object = volume.files(FileKind::Sealed)[0].0.object_key();
    let dead = volume.append(&noise(2, 50_000)).id;
    volume.seal();
    assert_eq!(volume.files(FileKind::Sealed).len(), 2);

    let asked = faulty.calls(Op::Head);
    faulty.fail_next(Some(Op::Head), &object, Fault::Hang);
    volume.store().inner.capacity.set_other(1 << 30);
    eventually("a copy is to go", || faulty.calls(Op::Head) > asked);
    volume.namespace.dead.lock().insert(dead);
    volume.store().free(&[dead]);
    clock.advance(Duration::from_secs(21));
    eventually("the dead segment is gone", || volume.store().describe(dead).is_err());
}
