//! A crash at every step of a move: nothing is lost, the move is made again and completes, and
//! afterwards neither tier holds anything that nobody needs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::block::{BlockId, BlockRef};
use crate::blocks::Blocks;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::segment::{FileKind, ParityPlace, SegmentId};
use crate::store::repair::Suspect;
use crate::store::testing::{ShiftedClock, Volume, damage, noise, soon, wave};
use crate::store::{BackupProof, Step};
use crate::tier::{Memory, Tier};

/// Four of them fill a segment.
const BLOCK: usize = 60_000;

/// Blocks that die while they are in hot, and while they are in cold only: most of their segments.
const DIE_HOT: [usize; 6] = [0, 1, 2, 4, 5, 6];
const DIE_COLD: [usize; 3] = [8, 9, 10];

struct World {
    volume: Volume,
    memory: Arc<Memory>,
    clock: Arc<ShiftedClock>,
    blocks: Vec<(BlockRef, Vec<u8>)>,
}

impl World {
    /// Segments of four blocks, acknowledged and in hot only; those of the last can shrink.
    fn new(place: ParityPlace) -> Self {
        let memory = Arc::new(Memory::new());
        let clock = Arc::new(ShiftedClock::default());
        let (tier, time) = (Arc::clone(&memory) as Arc<dyn Tier>, Arc::clone(&clock));
        let mut volume = Volume::with(|config| {
            config.cold = Some(tier);
            config.copy_ahead = false;
            config.clock = time as Arc<dyn Clock>;
        });
        volume.place = place;
        let plain = (0..12).map(|n| noise(n, BLOCK)).chain((12..16).map(|n| wave(n, BLOCK)));
        let blocks: Vec<_> = plain.map(|plain| (volume.append(&plain), plain)).collect();
        volume.store().sync().unwrap();
        let inner = &volume.store().inner;
        inner.wait_sealed(&inner.unsealed_full(), soon()).unwrap();
        Self { volume, memory, clock, blocks }
    }

    fn living(&self) -> Vec<BlockId> {
        let dead = self.volume.namespace.dead.lock();
        self.blocks.iter().map(|(block, _)| block.id).filter(|id| !dead.contains(id)).collect()
    }

    fn is_stopped(&self) -> bool {
        self.volume.store().inner.steps.is_stopped()
    }

    /// What an operation made of it; an error as soon as everything was stopped.
    fn so<T>(&self, result: Result<T>) -> Result<()> {
        if self.is_stopped() {
            return Err(Error::ReadOnly("stopped".into()));
        }
        result.map(drop)
    }

    fn archive(&self) -> Result<()> {
        self.so(self.volume.store().archive(&self.living(), soon(), &mut |_, _| ()))
    }

    fn release(&self, blocks: &[BlockId]) -> Result<()> {
        let proof = BackupProof::of_blocks(blocks.iter().copied());
        self.so(self.volume.store().release(blocks, &proof, soon()))
    }

    fn stage(&self, blocks: &[BlockId]) -> Result<()> {
        self.so(self.volume.store().stage(blocks, soon(), &mut |_, _| ()))
    }

    fn sweep(&self) -> Result<()> {
        self.so(self.volume.store().sweep())
    }

    fn free(&self, which: &[usize]) -> Result<()> {
        let dead: Vec<_> = which.iter().map(|at| self.blocks[*at].0.id).collect();
        self.volume.namespace.dead.lock().extend(dead.iter().copied());
        self.volume.store().free(&dead);
        self.sweep()
    }

    /// Damages a whole file, if there is one, and repairs it.
    fn mend(&self) -> Result<()> {
        let inner = &self.volume.store().inner;
        let whole = inner.table.ids(|s| s.record.hot && s.record.holes.is_empty() && !s.busy);
        let Some(&id) = whole.first() else { return Ok(()) };
        if !inner.table.claim(id) {
            return Ok(());
        }
        damage(&inner.hot.path(id, FileKind::Sealed), 5000, 3);
        let mended = inner.mend(id, Suspect::HOT);
        inner.table.unclaim(id);
        self.so(mended)
    }

    /// Every kind of move, each of which may have been made before.
    fn moves(&self) -> Result<()> {
        self.archive()?;
        self.mend()?;
        let living = self.living();
        let some: Vec<_> = living.iter().copied().step_by(2).collect();
        self.release(&some)?;
        self.stage(&some)?;
        self.release(&living)?;
        self.stage(&living)?;
        self.free(&DIE_HOT)?;
        self.archive()?;
        self.sweep()?;
        self.release(&self.living())?;
        self.free(&DIE_COLD)?;
        // Objects are only compacted when nobody has written for a while.
        self.clock.advance(Duration::from_secs(6));
        self.sweep()?;
        self.archive()?;
        self.sweep()?;
        let living = self.living();
        self.stage(&living)?;
        self.so(self.volume.store().recompress(&living, soon(), &mut |_, _| ()))?;
        self.archive()?;
        self.sweep()
    }

    fn assert_all_read(&self, when: &str) {
        let living: BTreeSet<_> = self.living().into_iter().collect();
        for (block, plain) in self.blocks.iter().filter(|(block, _)| living.contains(&block.id)) {
            let read = self.volume.read(block);
            assert!(read.as_ref().is_ok_and(|read| read == plain), "{when}: {block:?}: {read:?}");
        }
    }

    /// Both tiers hold what living blocks need, and nothing else.
    fn assert_nothing_leaks(&mut self, when: &str) {
        self.volume.store().wait_caught_up(soon()).unwrap();
        for _ in 0..2 {
            self.archive().unwrap();
            self.sweep().unwrap();
        }
        self.archive().unwrap();
        let inner = &self.volume.store().inner;
        let place = |id| inner.with_catalog(|catalog| catalog.lookup(id)).unwrap().unwrap().segment;
        let needed: BTreeSet<SegmentId> = self.living().into_iter().map(place).collect();
        assert_eq!(inner.table.ids(|_| true), Vec::from_iter(needed.iter().copied()), "{when}");
        let on_disk =
            |(_, path): &(SegmentId, std::path::PathBuf)| super::super::hotdir::disk_bytes(path);
        let files = [FileKind::Sealed, FileKind::Sidecar, FileKind::Index]
            .map(|kind| self.volume.files(kind));
        let sum: u64 = files.iter().flatten().map(on_disk).sum();
        assert_eq!(self.volume.store().usage().hot_bytes, sum, "{when}: bytes are counted wrong");
        let mut expected: Vec<_> = needed.iter().map(|id| id.object_key()).collect();
        if self.volume.place == ParityPlace::Object {
            expected.extend(needed.iter().map(|id| id.sidecar_key()));
            let with_sidecar: Vec<_> = files[1].iter().map(|(id, _)| *id).collect();
            let sealed: Vec<_> = files[0].iter().map(|(id, _)| *id).collect();
            assert_eq!(with_sidecar, sealed, "{when}: sidecars in hot");
        }
        let mut found = self.memory.keys();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{when}: objects");
        self.volume.close();
        for (id, path) in files.iter().flatten() {
            assert!(needed.contains(id), "{when}: {} is left", path.display());
        }
        assert!(self.volume.files(FileKind::Open).is_empty(), "{when}");
        let staging = std::fs::read_dir(self.volume.config.hot_dir.join("tmp")).unwrap();
        assert_eq!(staging.count(), 0, "{when}: staging");
        self.volume.open();
    }
}

#[test]
fn moves_without_a_crash_leave_nothing_behind() {
    for place in ParityPlace::ALL {
        let mut world = World::new(place);
        world.moves().unwrap();
        world.assert_all_read("no crash");
        world.assert_nothing_leaks("no crash");
        world.moves().unwrap();
        world.assert_all_read("again");
        world.assert_nothing_leaks("again");
    }
}

/// Steps that a volume meets whose parity lies there, and of which nothing is lost.
fn steps(place: ParityPlace) -> impl Iterator<Item = Step> {
    use Step::{ColdDeleteAfterSidecar, UploadAfterSidecar};
    use Step::{SalvageAfterAppendBeforeSync, SalvageAfterSync, SalvageBeforeAppend};
    let is_met = move |step: &Step| {
        let apart = [UploadAfterSidecar, ColdDeleteAfterSidecar].contains(step);
        let loss = [SalvageBeforeAppend, SalvageAfterAppendBeforeSync, SalvageAfterSync];
        (place == ParityPlace::Object || !apart) && !loss.contains(step)
    };
    Step::ALL.iter().copied().filter(is_met)
}

/// `part` of two, so that they run side by side.
fn crash_at_every_step(place: ParityPlace, part: usize) {
    for step in steps(place).skip(part).step_by(2) {
        let when = step.name();
        let mut world = World::new(place);
        world.volume.store().inner.steps.stop_at(step, 1);
        let outcome = world.moves();
        assert!(world.is_stopped(), "{when} is never reached: {outcome:?}");
        world.volume.reopen_after_crash();
        world.assert_all_read(when);
        world.moves().unwrap_or_else(|error| panic!("after {when}: {error:?}"));
        world.assert_all_read(when);
        world.assert_nothing_leaks(when);
    }
}

#[test]
fn a_crash_at_every_even_step_loses_and_leaks_nothing() {
    crash_at_every_step(ParityPlace::Inside, 0);
}

#[test]
fn a_crash_at_every_odd_step_loses_and_leaks_nothing() {
    crash_at_every_step(ParityPlace::Inside, 1);
}

#[test]
fn a_crash_at_every_even_step_loses_and_leaks_nothing_with_parity_apart() {
    crash_at_every_step(ParityPlace::Object, 0);
}

#[test]
fn a_crash_at_every_odd_step_loses_and_leaks_nothing_with_parity_apart() {
    crash_at_every_step(ParityPlace::Object, 1);
}

/// The second crash meets what the first has left.
#[test]
fn a_second_crash_at_the_same_step_loses_and_leaks_nothing() {
    for step in steps(ParityPlace::Object) {
        let when = step.name();
        // Apart means more steps; what goes apart goes inside as well.
        let mut world = World::new(ParityPlace::Object);
        for _ in 0..2 {
            world.volume.store().inner.steps.stop_at(step, 1);
            let _ = world.moves();
            world.volume.reopen_after_crash();
            world.assert_all_read(when);
        }
        world.moves().unwrap_or_else(|error| panic!("after {when}: {error:?}"));
        world.assert_nothing_leaks(when);
    }
}

#[test]
fn an_object_whose_copying_was_never_recorded_goes_with_its_segment() {
    let mut world = World::new(ParityPlace::Object);
    world.volume.store().inner.steps.stop_at(Step::UploadAfterPut, 1);
    assert!(world.archive().is_err());
    assert!(!world.memory.keys().is_empty());
    world.volume.reopen_after_crash();
    // Everything dies before anybody copies again.
    world.free(&(0..16).collect::<Vec<_>>()).unwrap();
    world.volume.close();
    world.volume.open();
    world.sweep().unwrap();
    assert_eq!(world.memory.keys(), Vec::<String>::new());
}
