//! Garbage whose copy in cold may exist or not while cold does not answer.

use std::sync::Arc;
use std::time::Duration;

use crate::block::BlockId;
use crate::blocks::{Blocks, Wait};
use crate::clock::{Clock, SystemClock};
use crate::segment::FileKind;
use crate::store::testing::{ShiftedClock, Volume, eventually, noise, soon};
use crate::tier::{Fault, Faulty, Memory, Op, Tier};

struct Scene {
    volume: Volume,
    faulty: Arc<Faulty>,
    memory: Arc<Memory>,
}

/// A volume of which one segment was offered to cold, which went away over it.
fn scene(arrived: bool) -> (Scene, Vec<BlockId>) {
    let memory = Arc::new(Memory::new());
    let faulty = Arc::new(Faulty::new(Arc::clone(&memory) as Arc<dyn Tier>));
    let volume = Volume::with(|config| {
        config.cold = Some(Arc::clone(&faulty) as Arc<dyn Tier>);
        config.copy_ahead = false;
    });
    let blocks: Vec<_> = (0..3).map(|seed| volume.append(&noise(seed, 30_000)).id).collect();
    volume.seal();
    if arrived {
        faulty.fail_next(Some(Op::PutFile), "segments/", Fault::TimeOutAfter);
    }
    faulty.cut_off_after(u64::from(arrived));
    volume.store().archive(&blocks, briefly(), &mut |_, _| ()).unwrap_err();
    faulty.cut_off();
    assert_eq!(memory.keys().len(), usize::from(arrived));
    (Scene { volume, faulty, memory }, blocks)
}

/// A moment, for what does not succeed anyway.
fn briefly() -> Wait {
    Wait::Until(SystemClock.instant() + Duration::from_secs(2))
}

fn is_gone_from_hot(volume: &Volume) -> bool {
    volume.files(FileKind::Sealed).is_empty()
}

#[test]
fn a_dead_segment_leaves_hot_and_later_cold_whether_its_copy_had_arrived_or_not() {
    for arrived in [false, true] {
        let (scene, blocks) = scene(arrived);
        let Scene { volume, faulty, memory } = &scene;
        volume.namespace.dead.lock().extend(&blocks);
        volume.store().free(&blocks);
        eventually("the hot file is gone", || is_gone_from_hot(volume));
        let asked = faulty.calls(Op::Head);
        faulty.reconnect();
        eventually("nothing is left", || {
            // Otherwise a matter of minutes.
            *volume.store().inner.cold_asleep_until.lock() = None;
            *volume.store().inner.leftovers_at.lock() = SystemClock.instant();
            memory.keys().is_empty() && volume.files(FileKind::Index).is_empty()
        });
        assert!(asked <= 2, "{asked} questions to a store that does not answer");
    }
}

#[test]
fn what_lives_stays_in_hot_while_cold_does_not_answer() {
    let (scene, blocks) = scene(true);
    let volume = &scene.volume;
    volume.namespace.dead.lock().insert(blocks[0]);
    volume.store().free(&blocks[..1]);
    std::thread::sleep(Duration::from_millis(300));
    volume.store().sweep().unwrap();
    assert!(!is_gone_from_hot(volume));
    scene.faulty.reconnect();
    volume.store().archive(&blocks[1..], soon(), &mut |_, _| ()).unwrap();
    assert_eq!(scene.memory.keys().len(), 1);
}

#[test]
fn many_dead_segments_do_not_each_wait_for_a_store_that_is_away() {
    let (scene, first) = scene(false);
    let volume = &scene.volume;
    let mut blocks = first;
    for seed in 10..40 {
        blocks.push(volume.append(&noise(seed, 30_000)).id);
        volume.seal();
    }
    volume.store().archive(&blocks, briefly(), &mut |_, _| ()).unwrap_err();
    let asked = scene.faulty.calls(Op::Head);
    volume.namespace.dead.lock().extend(&blocks);
    volume.store().free(&blocks);
    eventually("all hot files are gone", || is_gone_from_hot(volume));
    assert!(scene.faulty.calls(Op::Head) - asked <= 2);
}

/// What it asks can be asked again, and the mover has other things to do.
#[test]
fn a_sweep_waits_for_a_store_that_hangs_for_seconds_and_not_for_minutes() {
    let faulty = Arc::new(Faulty::new(Arc::new(Memory::new())));
    let clock = Arc::new(ShiftedClock::default());
    let volume = Volume::with(|config| {
        config.cold = Some(Arc::clone(&faulty) as Arc<dyn Tier>);
        config.clock = Arc::clone(&clock) as Arc<dyn Clock>;
    });
    let inner = &volume.store().inner;
    eventually("all is known", || inner.is_view_complete());
    let asked = faulty.calls(Op::List);
    faulty.fail_next(Some(Op::List), "parity/", Fault::Hang);
    std::thread::scope(|scope| {
        let sweep = scope.spawn(|| volume.store().sweep());
        eventually("it was asked", || faulty.calls(Op::List) > asked);
        clock.advance(Duration::from_secs(21));
        eventually("it gave up", || sweep.is_finished());
    });
    assert!(inner.cold_asleep_until.lock().is_some());
}
