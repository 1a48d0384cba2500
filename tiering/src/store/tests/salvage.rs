//! Segments of which something is lost before they were copied: what is sound gets to cold all the
//! same, what is lost stays where it is and is told once.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use crate::block::{BlockId, BlockRef};
use crate::blocks::Blocks;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::segment::{FileKind, ParityPlace, SegmentId};
use crate::store::repair::Suspect;
use crate::store::testing::{
    FakeNamespace, Log, ShiftedClock, Volume, damage, eventually, later, noise, soon,
};
use crate::store::{
    BackupProof, CheckOptions, DamageLog, Inner, Mended, Residence, Scrubbed, Step, Steward,
    StoreConfig, Temper,
};
use crate::tier::{Memory, Tier};

/// Four of them fill a segment.
const BLOCK: usize = 60_000;

/// The block that is lost.
const LOST: usize = 1;

/// A sealed segment in hot only, the frame of one of its blocks damaged throughout.
struct World {
    volume: Volume,
    log: Arc<Log>,
    blocks: Vec<(BlockRef, Vec<u8>)>,
    id: SegmentId,
    path: PathBuf,
    sealed: Vec<u8>,
}

impl World {
    fn new(place: ParityPlace) -> Self {
        Self::with(place, |_| ())
    }

    fn with(place: ParityPlace, change: impl FnOnce(&mut StoreConfig)) -> Self {
        let (memory, log) = (Arc::new(Memory::new()), Arc::new(Log::default()));
        let mut volume = Volume::with(|config| {
            config.cold = Some(memory as Arc<dyn Tier>);
            config.copy_ahead = false;
            config.cache_bytes = 0;
            config.damage = Some(Arc::clone(&log) as Arc<dyn DamageLog>);
            config.cold_spread = (place == ParityPlace::Stores).then_some((4, 2));
            change(config);
        });
        volume.place = place;
        let plain = (0..4).map(|n| noise(n, BLOCK));
        let blocks: Vec<_> = plain.map(|plain| (volume.append(&plain), plain)).collect();
        volume.store().sync().unwrap();
        volume.seal();
        let (id, path) = volume.files(FileKind::Sealed).remove(0);
        let sealed = std::fs::read(&path).unwrap();
        let inner = &volume.store().inner;
        let found = inner.with_catalog(|catalog| catalog.lookup(blocks[LOST].0.id));
        let frame = found.unwrap().unwrap().entry.frame_range();
        damage(&path, frame.start, (frame.end - frame.start) as usize);
        Self { volume, log, blocks, id, path, sealed }
    }

    fn sound(&self) -> Vec<BlockId> {
        let sound = self.blocks.iter().enumerate().filter(|(at, _)| *at != LOST);
        sound.map(|(_, (block, _))| block.id).collect()
    }

    /// Where a block's frame lies in the damaged file.
    fn frame(&self, block: BlockId) -> Range<u64> {
        let inner = &self.volume.store().inner;
        let index = inner.hot.read_index(&inner.name(self.id)).unwrap();
        index.find(block)[0].frame_range()
    }

    /// Nobody needs these blocks any more.
    fn free(&self, blocks: &[BlockId]) {
        self.volume.namespace.dead.lock().extend(blocks);
        self.volume.store().free(blocks);
    }

    fn lost(&self) -> BlockId {
        self.blocks[LOST].0.id
    }

    fn archive(&self, blocks: &[BlockId]) -> Result<()> {
        self.volume.store().archive(blocks, later(), &mut |_, _| ()).map(drop)
    }

    fn scrub(&self) -> Scrubbed {
        let mut found = None;
        eventually("it was looked at", || {
            found = self.volume.store().scrub_segment(self.id, None, false).unwrap();
            found.is_some()
        });
        found.unwrap()
    }

    fn is_ruined(&self) -> bool {
        self.volume.store().inner.table.with(self.id, |s| s.ruined).unwrap()
    }

    fn assert_reads(&self, when: &str) {
        for (at, (block, plain)) in self.blocks.iter().enumerate() {
            let read = self.volume.read(block);
            if at == LOST {
                assert!(matches!(read, Err(Error::Lost { .. })), "{when}: {read:?}");
            } else {
                assert!(read.as_ref().is_ok_and(|read| read == plain), "{when}: block {at}");
            }
        }
    }

    /// The block that is lost is the only one that needs hot.
    fn assert_saved(&self, when: &str) {
        let sound = self.sound();
        // Wherever it has come to stand.
        self.archive(&sound).unwrap_or_else(|error| panic!("{when}: {error}"));
        let proof = BackupProof::of_blocks(sound.iter().copied());
        let moved = self.volume.store().release(&sound, &proof, soon()).unwrap();
        assert_eq!(moved.blocks, sound.len(), "{when}: {moved:?}");
        assert_eq!(self.volume.store().residence(&sound), vec![Residence::Cold; 3], "{when}");
        assert_eq!(std::fs::read(&self.path).unwrap().len(), self.sealed.len(), "{when}");
        self.assert_reads(when);
    }

    fn reports(&self) -> Vec<Mended> {
        self.log.0.lock().iter().map(|report| report.mended.clone()).collect()
    }
}

#[test]
fn what_is_sound_beside_a_lost_block_gets_to_cold_and_what_is_lost_is_told_once() {
    for place in ParityPlace::ALL {
        let mut world = World::new(place);
        let when = format!("{place:?}");
        let damaged = std::fs::read(&world.path).unwrap();
        let refused = world.archive(&[world.lost()]);
        assert!(matches!(refused, Err(Error::Lost { .. })), "{when}: {refused:?}");
        world.assert_saved(&when);
        assert!(std::fs::read(&world.path).unwrap() == damaged, "{when}: the file was changed");
        let store = world.volume.store();
        eventually("it rests", || store.health().suspect_segments == 0);
        let health = store.health();
        assert_eq!((health.lost_segments, health.uploads_waiting), (1, 0), "{when}");
        assert_eq!((health.last_error, health.parked_uploads), (None, 0), "{when}");
        // Asked for once more it is lost at once, and nothing waits for it.
        let again = world.archive(&[world.lost()]);
        assert!(matches!(again, Err(Error::Lost { .. })), "{when}: {again:?}");
        assert_eq!(store.health().uploads_waiting, 0, "{when}");
        assert!(world.is_ruined(), "{when}");
        eventually("it rests", || store.health().suspect_segments == 0);
        // Nobody tries or tells it again.
        let segments = store.segments_after(None);
        for _ in 0..2 {
            assert_eq!(world.scrub().damage[0].mended, Mended::Lost(vec![world.lost()]), "{when}");
            assert_eq!(store.sweep().unwrap(), 0, "{when}");
            store.recompress(&[world.lost()], soon(), &mut |_, _| ()).unwrap();
        }
        store.inner.rotate_now();
        assert_eq!(store.segments_after(None), segments, "{when}");
        assert_eq!(store.inner.drain_uploads(soon()).unwrap(), 0, "{when}");
        assert_eq!(world.reports(), [Mended::Lost(vec![world.lost()])], "{when}");
        let report = store.check(CheckOptions { data: true, cold_data: true }, &mut |_, _| ());
        assert_eq!(Vec::from_iter(report.unwrap().lost), [world.lost()], "{when}");

        world.volume.close();
        world.volume.open();
        world.assert_reads("after a remount");
        assert_eq!(world.volume.store().inner.drain_uploads(soon()).unwrap(), 0, "{when}");
        eventually("it rests", || world.volume.store().health().suspect_segments == 0);
        assert_eq!(world.volume.store().segments_after(None), segments, "{when}");
        assert_eq!(world.reports(), vec![Mended::Lost(vec![world.lost()]); 2], "{when}");
        assert!(std::fs::read(&world.path).unwrap() == damaged, "{when}: the file was changed");
    }
}

#[test]
fn who_copies_the_segment_that_turns_out_to_be_damaged_is_told_only_of_what_is_lost() {
    for place in ParityPlace::ALL {
        let world = World::new(place);
        world.archive(&world.sound()).unwrap_or_else(|error| panic!("{place:?}: {error}"));
        let placed = world.volume.store().residence(&world.sound());
        assert_eq!(placed, [Residence::Dual; 3], "{place:?}");
        let world = World::new(place);
        let all: Vec<_> = world.blocks.iter().map(|(block, _)| block.id).collect();
        match world.archive(&all) {
            Err(Error::Lost { id, .. }) => assert_eq!(id, world.lost(), "{place:?}"),
            other => panic!("{place:?}: {other:?}"),
        }
        let placed = world.volume.store().residence(&world.sound());
        assert_eq!(placed, [Residence::Dual; 3], "{place:?}");
    }
}

#[test]
fn a_crash_at_every_step_of_saving_what_is_sound_loses_and_repeats_nothing() {
    let steps =
        [Step::SalvageBeforeAppend, Step::SalvageAfterAppendBeforeSync, Step::SalvageAfterSync];
    for place in [ParityPlace::Inside, ParityPlace::Stores] {
        for step in steps {
            let when = format!("{} {place:?}", step.name());
            let mut world = World::new(place);
            let damaged = std::fs::read(&world.path).unwrap();
            world.volume.store().inner.steps.stop_at(step, 1);
            assert!(world.archive(&world.sound()).is_err(), "{when}");
            assert!(world.volume.store().inner.steps.is_stopped(), "{when} is never reached");
            world.volume.reopen_after_crash();
            world.assert_reads(&when);
            world.assert_saved(&when);
            eventually("it is known to be lost", || world.is_ruined());
            assert!(std::fs::read(&world.path).unwrap() == damaged, "{when}: it was changed");
            // One segment that is damaged, one with what was saved of it.
            world.volume.seal();
            assert_eq!(world.volume.store().segments_after(None).len(), 2, "{when}");
        }
    }
}

#[test]
fn a_damaged_segment_goes_once_nobody_needs_what_is_lost() {
    let world = World::new(ParityPlace::Inside);
    assert!(world.archive(&[world.lost()]).is_err());
    world.assert_saved("before");
    world.free(&[world.lost()]);
    eventually("it is gone", || !world.path.exists());
    for (at, (block, plain)) in world.blocks.iter().enumerate().filter(|(at, _)| *at != LOST) {
        assert!(world.volume.read(block).unwrap() == plain, "block {at}");
    }
}

#[test]
fn a_block_that_was_saved_and_freed_at_once_does_not_hold_the_damaged_segment() {
    let world = World::new(ParityPlace::Inside);
    assert!(world.archive(&[world.lost()]).is_err());
    eventually("it rests", || world.volume.store().health().suspect_segments == 0);
    world.free(&world.sound());
    world.volume.seal();
    eventually("only the damaged segment is left", || {
        world.volume.store().segments_after(None) == [world.id]
    });
    assert!(world.path.exists());
    world.free(&[world.lost()]);
    eventually("it is gone", || !world.path.exists());
}

/// Frees a block when it is asked how warm that is, which is after it was found to live.
#[derive(Default)]
struct Hasty {
    store: OnceLock<(Weak<Inner>, Arc<FakeNamespace>)>,
    block: Mutex<Option<BlockId>>,
}

impl Steward for Hasty {
    fn tempers(&self, blocks: &[BlockId]) -> Result<Vec<Temper>> {
        let block = self.block.lock().take_if(|block| blocks.contains(block));
        if let Some((store, namespace)) = self.store.get().filter(|_| block.is_some()) {
            let store = store.upgrade().unwrap();
            namespace.dead.lock().extend(block);
            store.freed.lock().extend(block);
            store.count_freed();
        }
        Ok(vec![Temper::Warm(1.0); blocks.len()])
    }
}

#[test]
fn a_block_that_is_freed_while_it_is_saved_is_dead_where_it_was_saved_to() {
    let hasty = Arc::new(Hasty::default());
    let steward = Arc::clone(&hasty) as Arc<dyn Steward>;
    let world = World::with(ParityPlace::Inside, |config| config.steward = Some(steward));
    let volume = &world.volume;
    let store = (Arc::downgrade(&volume.store().inner), Arc::clone(&volume.namespace));
    assert!(hasty.store.set(store).is_ok());
    *hasty.block.lock() = Some(world.sound()[0]);
    assert!(world.archive(&[world.lost()]).is_err());
    assert_eq!(*hasty.block.lock(), None, "it was freed meanwhile");
    assert!(volume.store().inner.find_unsealed(world.sound()[0]).is_some(), "it was saved");
    let dead_bytes = || volume.store().inner.unsealed_usage().dead_bytes;
    eventually("it is known to be dead", || dead_bytes() > 0);
}

#[test]
fn what_cannot_be_read_while_the_rest_is_saved_is_saved_later_and_is_not_lost() {
    let world = World::new(ParityPlace::Inside);
    let [unread, saved, _] = world.sound()[..] else { panic!() };
    let frame = world.frame(unread);
    let inner = &world.volume.store().inner;
    // Only who reads the frame as one piece, which is who saves it, meets this.
    let is_bad = move |at, len| frame == (at..at + len as u64);
    inner.hot.bad_sectors.set(is_bad);
    assert!(world.archive(&[world.lost()]).is_err());
    assert!(inner.find_unsealed(saved).is_some(), "the rest is saved at once");
    assert!(inner.find_unsealed(unread).is_none());
    inner.hot.bad_sectors.clear();
    eventually("it is saved as well", || inner.find_unsealed(unread).is_some());
    eventually("it rests", || world.volume.store().health().suspect_segments == 0);
    assert_eq!(world.reports(), [Mended::Lost(vec![world.lost()])]);
    world.assert_saved("afterwards");
}

#[test]
fn a_disk_that_gives_nothing_for_a_moment_has_lost_nothing() {
    let clock = Arc::new(ShiftedClock::default());
    let shifted = Arc::clone(&clock) as Arc<dyn Clock>;
    let world = World::with(ParityPlace::Inside, |config| config.clock = shifted);
    let store = world.volume.store();
    let health = || {
        let health = store.health();
        (health.suspect_segments, health.lost_segments)
    };
    std::fs::write(&world.path, &world.sealed).unwrap();
    let looked = || store.inner.table.with(world.id, |s| s.unread_since.is_some()).unwrap();
    store.inner.hot.bad_sectors.set(|_, _| true);
    store.inner.suspect(world.id, Suspect::HOT);
    eventually("it was looked at", looked);
    assert_eq!((health(), world.reports()), ((1, 0), vec![]));
    let refused = store.scrub_segment(world.id, None, false);
    assert!(matches!(refused, Err(Error::Io { .. }) | Ok(None)), "{refused:?}");
    store.inner.hot.bad_sectors.clear();
    eventually("it rests", || health() == (0, 0));
    assert!(!looked() && !world.is_ruined());
    assert_eq!(world.reports(), []);
    // One that gives nothing for good has lost what it held.
    store.inner.hot.bad_sectors.set(|_, _| true);
    store.inner.suspect(world.id, Suspect::HOT);
    eventually("it was looked at", looked);
    clock.advance(Duration::from_secs(61));
    eventually("it is lost", || health() == (0, 1));
    let all = world.blocks.iter().map(|(block, _)| block.id).collect();
    assert_eq!(world.reports(), [Mended::Lost(all)]);
    // And has it again when it answers.
    store.inner.hot.bad_sectors.clear();
    assert!(world.scrub().damage.is_empty());
    assert!(!looked() && !world.is_ruined());
    world.archive(&[world.lost()]).unwrap();
}

/// What is made of the rest has zeros there, and would be all that is left.
#[test]
fn what_the_disk_does_not_give_is_not_replaced_by_what_was_made_of_the_rest() {
    let clock = Arc::new(ShiftedClock::default());
    let shifted = Arc::clone(&clock) as Arc<dyn Clock>;
    let world = World::with(ParityPlace::Inside, |config| config.clock = shifted);
    let store = world.volume.store();
    let unread = world.sound()[2];
    let frame = world.frame(unread);
    // Something that can be mended, beside the block that cannot.
    damage(&world.path, world.sealed.len() as u64 - 100, 4);
    let before = std::fs::read(&world.path).unwrap();
    // Disks fail by the page.
    let (start, end) = (frame.start.next_multiple_of(4096), frame.end / 4096 * 4096);
    let overlaps = move |at: u64, len: usize| at < end && start < at + len as u64;
    store.inner.hot.bad_sectors.set(overlaps);
    store.inner.suspect(world.id, Suspect::HOT);
    let looked = || store.inner.table.with(world.id, |s| s.unread_since.is_some()).unwrap();
    eventually("it was looked at", looked);
    clock.advance(Duration::from_secs(61));
    eventually("it is lost", || store.health().lost_segments == 1);
    assert!(std::fs::read(&world.path).unwrap() == before, "the file was changed");
    // It answers again: the rest is put right then.
    store.inner.hot.bad_sectors.clear();
    store.inner.suspect(world.id, Suspect::HOT);
    store.inner.look_again(world.id);
    eventually("the rest is put right", || std::fs::read(&world.path).unwrap() != before);
    eventually("it is saved", || store.inner.find_unsealed(unread).is_some());
}

#[test]
fn a_copy_that_comes_back_makes_the_damaged_segment_whole() {
    let world = World::new(ParityPlace::Inside);
    assert!(world.archive(&[world.lost()]).is_err());
    world.assert_saved("before");
    std::fs::write(&world.path, &world.sealed).unwrap();
    assert!(world.scrub().damage.is_empty());
    assert!(!world.is_ruined());
    let (block, plain) = &world.blocks[LOST];
    assert!(world.volume.read(block).unwrap() == plain);
    world.archive(&[block.id]).unwrap();
    assert_eq!(world.volume.store().residence(&[block.id]), [Residence::Dual]);
}

/// The parity of a segment lies apart and is gone, and it cannot be made anew, since a byte is not
/// as it was sealed: in a gap, where a crash took a block, and nobody needs it.
#[test]
fn a_segment_whose_parity_is_gone_for_good_is_told_once_and_written_elsewhere() {
    let log = Arc::new(Log::default());
    let mut volume = Volume::with(|config| {
        config.cache_bytes = 0;
        config.damage = Some(Arc::clone(&log) as Arc<dyn DamageLog>);
    });
    volume.place = ParityPlace::Object;
    let plain: Vec<_> = (0..3).map(|n| noise(n, BLOCK)).collect();
    let blocks: Vec<_> = plain.iter().map(|plain| volume.append(plain)).collect();
    volume.store().sync().unwrap();
    let entry = volume.store().inner.find_unsealed(blocks[1].id).unwrap().2;
    let open = volume.files(FileKind::Open);
    volume.crash();
    for (_, path) in &open {
        if std::fs::metadata(path).unwrap().len() > entry.frame_range().end {
            damage(path, entry.offset, entry.frame_len() as usize);
        }
    }
    volume.open();
    volume.seal();
    volume.namespace.dead.lock().insert(blocks[1].id);
    volume.store().wait_caught_up(soon()).unwrap();
    let (id, path) = volume.files(FileKind::Sealed).remove(0);
    std::fs::remove_file(&volume.files(FileKind::Sidecar)[0].1).unwrap();
    damage(&path, entry.offset + 1000, 1);
    let found = volume.store().scrub_segment(id, None, false).unwrap().unwrap();
    let mended: Vec<_> = found.damage.iter().map(|damage| &damage.mended).collect();
    assert_eq!(mended, [&Mended::Unneeded], "{found:?}");
    volume.store().inner.suspect(id, crate::store::repair::Suspect::HOT);
    eventually("it rests", || volume.store().health().suspect_segments == 0);
    assert!(log.0.lock().iter().all(|report| report.mended == Mended::Unneeded));
    assert!(log.0.lock().len() <= 1, "{:?}", log.0.lock());
    volume.seal();
    volume.store().sweep().unwrap();
    eventually("it is gone", || !path.exists());
    for at in [0, 2] {
        assert!(volume.read(&blocks[at]).unwrap() == plain[at], "block {at}");
    }
    let report =
        volume.store().check(CheckOptions { data: true, cold_data: false }, &mut |_, _| ());
    assert!(report.as_ref().unwrap().is_clean(), "{report:?}");
}
