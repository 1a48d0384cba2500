//! Parity apart from its segment, or nowhere: where it lies in both tiers, and what becomes of damage
//! to either.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::block::{BlockId, BlockRef};
use crate::blocks::Blocks;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::segment::{FileKind, ParityPlace, SegmentId};
use crate::store::testing::{
    CountingIds, Log, ShiftedClock, Volume, damage, eventually, noise, soon, wave,
};
use crate::store::{BackupProof, CheckOptions, CheckReport, DamageLog, Mended, Scrubbed, Step};
use crate::tier::{FailureKind, Fault, Faulty, Memory, Op, Tier};

/// Four of them fill a segment.
const BLOCK: usize = 60_000;

/// A volume with one full segment whose parity lies apart.
struct World {
    volume: Volume,
    memory: Arc<Memory>,
    log: Arc<Log>,
    blocks: Vec<(BlockRef, Vec<u8>)>,
    id: SegmentId,
    segment: (PathBuf, Vec<u8>),
    sidecar: (PathBuf, Vec<u8>),
}

impl World {
    fn new() -> Self {
        Self::on(|memory| memory)
    }

    /// With what `wrapped` makes of the cold tier.
    /// A tier that fails when it is told to.
    fn faulty() -> (Self, Arc<Faulty>) {
        let mut found = None;
        let world = Self::on(|memory| {
            let faulty = Arc::new(Faulty::new(memory));
            found = Some(Arc::clone(&faulty));
            faulty
        });
        (world, found.unwrap())
    }

    fn on(wrapped: impl FnOnce(Arc<dyn Tier>) -> Arc<dyn Tier>) -> Self {
        let (memory, log) = (Arc::new(Memory::new()), Arc::new(Log::default()));
        let mut volume = Volume::with(|config| {
            config.cold = Some(wrapped(Arc::clone(&memory) as Arc<dyn Tier>));
            config.copy_ahead = false;
            config.cache_bytes = 0;
            config.damage = Some(Arc::clone(&log) as Arc<dyn DamageLog>);
        });
        volume.place = ParityPlace::Object;
        let plain = (0..4).map(|n| noise(n, BLOCK));
        let blocks = plain.map(|plain| (volume.append(&plain), plain)).collect();
        volume.store().sync().unwrap();
        volume.seal();
        let (id, path) = volume.files(FileKind::Sealed).remove(0);
        let apart = volume.files(FileKind::Sidecar).remove(0).1;
        let read = |path: &PathBuf| std::fs::read(path).unwrap();
        let (segment, sidecar) = ((path.clone(), read(&path)), (apart.clone(), read(&apart)));
        Self { volume, memory, log, blocks, id, segment, sidecar }
    }

    /// In both tiers.
    fn dual() -> Self {
        let world = Self::new();
        world.archive();
        world
    }

    /// In cold only.
    fn cold() -> Self {
        let world = Self::dual();
        let proof = BackupProof::of_blocks(world.ids());
        assert_eq!(world.volume.store().release(&world.ids(), &proof, soon()).unwrap().blocks, 4);
        assert!(!world.segment.0.exists() && !world.sidecar.0.exists());
        world
    }

    fn ids(&self) -> Vec<BlockId> {
        self.blocks.iter().map(|(block, _)| block.id).collect()
    }

    fn archive(&self) {
        self.volume.store().archive(&self.ids(), soon(), &mut |_, _| ()).unwrap();
    }

    fn object(&self) -> Option<Bytes> {
        self.memory.peek(&self.id.object_key())
    }

    fn cold_sidecar(&self) -> Option<Bytes> {
        self.memory.peek(&self.id.sidecar_key())
    }

    fn read(&self, at: usize) -> Result<()> {
        let (block, plain) = &self.blocks[at];
        let read = self.volume.read(block)?;
        assert!(read == plain, "wrong bytes of block {at}");
        Ok(())
    }

    fn read_all(&self) {
        (0..self.blocks.len()).for_each(|at| self.read(at).unwrap());
    }

    fn frame(&self, at: usize) -> std::ops::Range<u64> {
        let inner = &self.volume.store().inner;
        let found = inner.with_catalog(|catalog| catalog.lookup(self.blocks[at].0.id));
        found.unwrap().unwrap().entry.frame_range()
    }

    fn scrub(&self, cold_content: bool) -> Scrubbed {
        let listing = self.volume.store().cold_listing().unwrap();
        // Whoever met the damage before may be at it.
        loop {
            let store = self.volume.store();
            let found = store.scrub_segment(self.id, listing.as_ref(), cold_content);
            if let Some(found) = found.unwrap() {
                return found;
            }
        }
    }

    fn check(&self, cold_data: bool) -> CheckReport {
        let options = CheckOptions { data: true, cold_data };
        self.volume.store().check(options, &mut |_, _| ()).unwrap()
    }

    #[track_caller]
    fn expect_files(&self) {
        assert!(std::fs::read(&self.segment.0).unwrap() == self.segment.1, "the segment");
        assert!(std::fs::read(&self.sidecar.0).unwrap() == self.sidecar.1, "the sidecar");
        let report = self.check(true);
        assert!(report.is_clean(), "{report:?}");
    }

    #[track_caller]
    fn expect_objects(&self) {
        assert!(self.object().is_some_and(|object| object == self.segment.1), "the object");
        assert!(self.cold_sidecar().is_some_and(|object| object == self.sidecar.1), "its sidecar");
        let report = self.check(true);
        assert!(report.is_clean(), "{report:?}");
    }
}

fn flip_run(bytes: &mut [u8], start: usize) {
    let run = bytes.len() / 100;
    let start = start.min(bytes.len() - run);
    bytes[start..start + run].iter_mut().for_each(|byte| *byte ^= 0xa5);
}

#[test]
fn both_files_are_copied_compared_dropped_and_brought_back() {
    let world = World::new();
    let usage = world.volume.store().usage();
    let whole = (world.segment.1.len() + world.sidecar.1.len()) as u64;
    assert_eq!((usage.stored_bytes, usage.hot_only_bytes), (whole, whole));
    world.archive();
    world.expect_objects();
    assert_eq!(world.volume.store().usage().cold_bytes, whole);
    drop(world);
    let world = World::cold();
    world.read_all();
    world.volume.store().stage(&world.ids(), soon(), &mut |_, _| ()).unwrap();
    world.expect_files();
    let files = [FileKind::Sealed, FileKind::Sidecar, FileKind::Index];
    let files = files.map(|kind| world.volume.files(kind));
    let sizes = files.iter().flatten().map(|(_, p)| super::super::hotdir::disk_bytes(p));
    let on_disk: u64 = sizes.sum();
    assert_eq!(world.volume.store().usage().hot_bytes, on_disk);
}

#[test]
fn a_run_of_one_percent_of_either_file_in_hot_is_repaired() {
    let world = World::new();
    for at in [0, 300, 5000, 100_000, 200_000, usize::MAX] {
        for (path, bytes) in [&world.segment, &world.sidecar] {
            let mut harmed = bytes.clone();
            flip_run(&mut harmed, at);
            std::fs::write(path, harmed).unwrap();
            assert!(!world.check(false).is_clean());
            let found = world.scrub(false);
            assert_eq!(found.damage.len(), 1, "{found:?}");
            assert_eq!(found.damage[0].mended, Mended::Whole);
            world.expect_files();
        }
    }
}

#[test]
fn a_run_of_one_percent_of_either_object_in_cold_is_repaired() {
    for at in [0, 300, 5000, 100_000, 200_000, usize::MAX] {
        for apart in [false, true] {
            let world = World::cold();
            let key = if apart { world.id.sidecar_key() } else { world.id.object_key() };
            let mut bytes = world.memory.peek(&key).unwrap().to_vec();
            flip_run(&mut bytes, at);
            world.memory.overwrite(&key, bytes);
            assert!(!world.check(true).is_clean());
            let found = world.scrub(true);
            let mended: Vec<_> = found.damage.iter().map(|damage| &damage.mended).collect();
            assert_eq!(mended, [&Mended::Whole], "{at} {apart}: {found:?}");
            eventually("it is replaced", || {
                world.object().is_some_and(|object| object == world.segment.1)
                    && world.cold_sidecar().is_some_and(|object| object == world.sidecar.1)
            });
            eventually("nobody is at it", || world.volume.store().health().uploads_waiting == 0);
            world.expect_objects();
            world.read_all();
        }
    }
}

#[test]
fn a_sidecar_that_is_gone_in_hot_is_noticed_and_made_anew() {
    let mut world = World::new();
    std::fs::remove_file(&world.sidecar.0).unwrap();
    let report = world.check(false);
    assert_eq!(report.findings.len(), 1);
    assert!(report.findings[0].what.contains("sidecar"), "{report:?}");
    assert!(report.findings[0].repairable && report.lost.is_empty());
    assert_eq!(report.findings[0].blocks, []);
    world.read_all();
    let found = world.scrub(false);
    assert!(found.damage[0].what.contains("sidecar"), "{found:?}");
    world.expect_files();
    // By an upload, and by the next open.
    std::fs::remove_file(&world.sidecar.0).unwrap();
    world.archive();
    world.expect_objects();
    world.volume.close();
    std::fs::remove_file(&world.sidecar.0).unwrap();
    world.volume.open();
    eventually("it is made anew", || world.sidecar.0.exists());
    eventually("no segment is suspect", || world.volume.store().health().suspect_segments == 0);
    world.expect_files();
    assert!(world.log.0.lock().iter().all(|report| report.mended == Mended::Whole));
}

#[test]
fn a_sidecar_that_is_gone_in_hot_is_noticed_without_a_catalog_too() {
    let mut world = World::new();
    world.volume.crash();
    world.volume.delete_catalog();
    std::fs::remove_file(&world.sidecar.0).unwrap();
    world.volume.open();
    eventually("it is made anew", || world.sidecar.0.exists());
    eventually("no segment is suspect", || world.volume.store().health().suspect_segments == 0);
    world.expect_files();
}

#[test]
fn a_segment_goes_to_cold_with_a_sidecar_that_cannot_be_written_here() {
    let world = World::new();
    std::fs::remove_file(&world.sidecar.0).unwrap();
    // In the place of a full disk.
    let staged = world.volume.store().inner.hot.staged_path(world.id, FileKind::Sidecar);
    std::fs::create_dir(&staged).unwrap();
    world.archive();
    assert!(!world.sidecar.0.exists());
    assert!(*world.object().unwrap() == *world.segment.1);
    assert!(*world.cold_sidecar().unwrap() == *world.sidecar.1);
    std::fs::remove_dir(&staged).unwrap();
}

#[test]
fn a_sidecar_in_cold_that_cannot_be_read_holds_up_no_sound_segment() {
    for op in [Op::GetRange, Op::Head] {
        let (world, faulty) = World::faulty();
        world.archive();
        let refuse = || {
            faulty.reconnect();
            let denied = Fault::Error(FailureKind::Refused);
            (0..10_000).for_each(|_| faulty.fail_next(Some(op), "parity/", denied));
        };
        refuse();
        let inner = &world.volume.store().inner;
        let asked = faulty.calls(op);
        assert!(!inner.verify_cold(world.id).unwrap());
        // Once, and not once for each part of it.
        assert!(faulty.calls(op) - asked < 10, "{op:?}: {} calls", faulty.calls(op) - asked);
        // That of a damaged one may be mended by what could not be read.
        let mut object = world.segment.1.clone();
        flip_run(&mut object, world.frame(1).start as usize + 2_000);
        world.memory.overwrite(&world.id.object_key(), object);
        let error = inner.verify_cold(world.id).unwrap_err();
        assert!(!matches!(error, Error::Damaged { .. }), "{error}");
        faulty.reconnect();
        assert!(matches!(inner.verify_cold(world.id), Err(Error::Damaged { .. })));
    }
}

#[test]
fn a_lane_that_is_seldom_written_is_sealed_once_it_is_old() {
    let clock = Arc::new(ShiftedClock::default());
    let volume = Volume::with(|config| config.clock = Arc::clone(&clock) as Arc<dyn Clock>);
    volume.append_to(ParityPlace::Object, &noise(1, BLOCK));
    for _ in 0..2 {
        clock.advance(Duration::from_secs(440));
        volume.append_to(ParityPlace::Object, &noise(2, 1_000));
        volume.store().inner.end_idle_lanes();
        assert_eq!(volume.files(FileKind::Sidecar).len(), 0);
    }
    clock.advance(Duration::from_secs(21));
    volume.store().inner.end_idle_lanes();
    eventually("it is sealed", || volume.files(FileKind::Sidecar).len() == 1);
}

#[test]
fn a_sidecar_that_is_gone_or_damaged_in_cold_is_noticed_and_made_anew_there() {
    for world in [World::dual(), World::cold()] {
        let key = world.id.sidecar_key();
        let was_hot = world.segment.0.exists();
        world.memory.lose(&key);
        let report = world.check(false);
        assert!(report.findings.len() == 1 && report.findings[0].in_cold, "{report:?}");
        assert!(report.lost.is_empty());
        // The listing tells.
        let found = world.scrub(false);
        assert!(found.damage.len() == 1 && found.damage[0].in_cold, "{found:?}");
        world.expect_objects();
        world.memory.overwrite(&key, vec![7; world.sidecar.1.len()]);
        assert!(world.scrub(false).damage.is_empty(), "content is read when asked");
        assert_eq!(world.scrub(true).damage.len(), 1);
        world.expect_objects();
        assert_eq!(world.segment.0.exists(), was_hot, "nothing had to come here");
    }
}

#[test]
fn a_sidecar_made_anew_in_cold_is_stored_though_that_fails_once() {
    let (world, faulty) = World::faulty();
    world.archive();
    world.memory.overwrite(&world.id.sidecar_key(), b"nothing of it".to_vec());
    faulty.fail_next(Some(Op::Put), "parity/", Fault::Error(FailureKind::Unavailable));
    assert!(world.volume.store().inner.verify_cold(world.id).unwrap());
    world.expect_objects();
}

#[test]
fn with_both_damaged_the_damaged_block_is_an_error_and_no_other() {
    let world = World::new();
    let frame = world.frame(1);
    damage(&world.segment.0, frame.start + 5000, 3);
    std::fs::write(&world.sidecar.0, b"nothing of it").unwrap();
    assert!(matches!(world.read(1), Err(Error::Lost { .. })));
    [0, 2, 3].into_iter().for_each(|at| world.read(at).unwrap());
    let report = world.check(false);
    assert_eq!(report.lost.into_iter().collect::<Vec<_>>(), [world.blocks[1].0.id]);
    let found = world.scrub(false);
    assert_eq!(found.damage[0].mended, Mended::Lost(vec![world.blocks[1].0.id]), "{found:?}");
    [0, 2, 3].into_iter().for_each(|at| world.read(at).unwrap());
    assert!(matches!(world.read(1), Err(Error::Lost { .. })));
}

#[test]
fn damage_in_hot_without_a_sidecar_is_mended_from_cold_and_the_other_way_round() {
    let world = World::dual();
    damage(&world.segment.0, world.frame(1).start + 5000, 3);
    std::fs::remove_file(&world.sidecar.0).unwrap();
    world.read_all();
    world.scrub(false);
    world.expect_files();
    // More of the object than its parity bears, and its sidecar gone.
    let mut bytes = world.segment.1.clone();
    bytes[2000..100_000].fill(0);
    world.memory.overwrite(&world.id.object_key(), bytes);
    world.memory.lose(&world.id.sidecar_key());
    world.scrub(true);
    eventually("it is copied again", || world.volume.store().health().uploads_waiting == 0);
    world.expect_objects();
}

#[test]
fn from_cold_alone_a_damaged_segment_is_read_by_its_sidecar() {
    let mut world = World::cold();
    let frame = world.frame(2);
    world.volume.close();
    let mut bytes = world.segment.1.clone();
    bytes[frame.start as usize + 5000..][..2000].fill(0x77);
    world.memory.overwrite(&world.id.object_key(), bytes);
    // The machine is lost with all that was on it.
    std::fs::remove_dir_all(&world.volume.config.hot_dir).unwrap();
    world.volume.delete_catalog();
    world.volume.config.ids = Arc::new(CountingIds::new(2));
    world.volume.open();
    world.volume.store().wait_caught_up(soon()).unwrap();
    world.read_all();
    assert_eq!(
        world.volume.store().inner.table.record(world.id).unwrap().place,
        ParityPlace::Object
    );
    world.scrub(true);
    eventually("it is copied again", || {
        world.object().is_some_and(|object| object == world.segment.1)
    });
}

#[test]
fn strays_go_from_both_tiers_and_nothing_that_belongs_to_a_segment() {
    let mut world = World::dual();
    let stray = SegmentId::from_raw(1 << 48 | 0xfff);
    world.memory.overwrite(&stray.sidecar_key(), world.sidecar.1.clone());
    world.memory.overwrite("parity/README", "not ours");
    let open = world.volume.append(b"open");
    world.volume.store().sync().unwrap();
    let (open_id, _) = world.volume.files(FileKind::Open).remove(0);
    world.volume.crash();
    let hot = |id: SegmentId| world.volume.segments_dir().join(id.file_name(FileKind::Sidecar));
    let (stray_file, torn) = (hot(stray), hot(open_id));
    std::fs::write(&stray_file, b"stray").unwrap();
    std::fs::write(&torn, b"torn").unwrap();
    world.volume.open();
    assert!(!stray_file.exists());
    // Not while a segment is being recorded.
    eventually("the stray in cold goes", || {
        world.volume.store().sweep().unwrap();
        world.memory.peek(&stray.sidecar_key()).is_none()
    });
    let mut keys = world.memory.keys();
    keys.sort();
    let mut expected =
        vec![world.id.object_key(), world.id.sidecar_key(), "parity/README".to_owned()];
    expected.sort();
    assert_eq!(keys, expected);
    eventually("it is sealed", || world.volume.files(FileKind::Open).is_empty());
    assert!(std::fs::read(&torn).unwrap() != b"torn");
    assert_eq!(world.volume.read(&open).unwrap(), &b"open"[..]);
    world.expect_files();
    // A segment that this store does not know, though it is there.
    let unknown = SegmentId::from_raw(1 << 48 | 0xffe);
    world.memory.overwrite(&unknown.sidecar_key(), world.sidecar.1.clone());
    world.memory.overwrite(&unknown.object_key(), world.segment.1.clone());
    world.volume.store().sweep().unwrap();
    assert!(world.memory.peek(&unknown.sidecar_key()).is_some());
    // Nothing goes while not everything is known.
    world.memory.lose(&unknown.object_key());
    let unlisted = &world.volume.store().inner.cold_unlisted;
    unlisted.store(true, std::sync::atomic::Ordering::Relaxed);
    world.volume.store().sweep().unwrap();
    assert!(world.memory.peek(&unknown.sidecar_key()).is_some());
    unlisted.store(false, std::sync::atomic::Ordering::Relaxed);
    world.volume.store().sweep().unwrap();
    assert!(world.memory.peek(&unknown.sidecar_key()).is_none());
}

#[test]
fn a_sidecar_of_another_in_cold_is_replaced_and_that_of_a_strangers_segment_is_not() {
    let world = World::new();
    world.memory.overwrite(&world.id.sidecar_key(), vec![1; 500]);
    world.archive();
    world.expect_objects();
    // Another instance of the volume wrote a sound segment, and its sidecar, under the same names.
    let (twin, world) = (World::new(), World::new());
    let theirs = twin.volume.append(&noise(77, BLOCK));
    drop(twin);
    assert!(theirs.len > 0);
    let mut other = Volume::with(|_| ());
    other.place = ParityPlace::Object;
    for seed in 50..54 {
        other.append(&noise(seed, BLOCK));
    }
    other.seal();
    let (id, path) = other.files(FileKind::Sealed).remove(0);
    assert_eq!(id, world.id);
    let sidecar = std::fs::read(&other.files(FileKind::Sidecar)[0].1).unwrap();
    world.memory.overwrite(&id.object_key(), std::fs::read(path).unwrap());
    world.memory.overwrite(&id.sidecar_key(), sidecar.clone());
    let failed = world.volume.store().archive(&world.ids(), soon(), &mut |_, _| ());
    assert!(failed.is_err());
    assert!(world.cold_sidecar().is_some_and(|left| left == sidecar));
    assert!(world.object().is_some_and(|left| left != world.segment.1));
}

#[test]
fn lanes_keep_places_apart_through_crash_compaction_and_encoding_again() {
    let memory = Arc::new(Memory::new());
    let mut volume = Volume::with(|config| {
        config.cold = Some(memory as Arc<dyn Tier>);
        config.copy_ahead = false;
        config.cold_spread = Some((4, 2));
    });
    let mut blocks = Vec::new();
    for n in 0..12 {
        let place = ParityPlace::ALL[n % 3];
        let plain = wave(n as u64, BLOCK);
        blocks.push((volume.append_to(place, &plain), plain, place));
    }
    let spare = 1;
    assert!((3..=3 + spare).contains(&volume.files(FileKind::Open).len()));
    volume.store().sync().unwrap();
    volume.reopen_after_crash();
    let is_sealing = || volume.store().inner.is_sealing();
    eventually("all are sealed", || volume.files(FileKind::Open).is_empty() && !is_sealing());
    let expect_places = |volume: &Volume, blocks: &[(BlockRef, Vec<u8>, ParityPlace)]| {
        let inner = &volume.store().inner;
        for (block, plain, place) in blocks {
            let id = volume.store().describe(block.id).unwrap().segment;
            let trailer = inner.load_index(id, super::super::upload::CALL_DEADLINE).unwrap();
            assert_eq!(trailer.trailer().place, *place);
            assert_eq!(inner.table.record(id).unwrap().place, *place);
            assert_eq!(
                inner.hot.path(id, FileKind::Sidecar).exists(),
                *place == ParityPlace::Object
            );
            assert!(volume.read(block).unwrap() == plain);
        }
    };
    expect_places(&volume, &blocks);
    let before = volume.store().health().compacted_segments;
    let dead: Vec<_> = blocks.drain(..9).map(|(block, ..)| block.id).collect();
    volume.namespace.dead.lock().extend(dead.iter().copied());
    volume.store().free(&dead);
    eventually("compacted", || volume.store().health().compacted_segments == before + 3);
    volume.seal();
    expect_places(&volume, &blocks);
    let living: Vec<_> = blocks.iter().map(|(block, ..)| block.id).collect();
    volume.store().recompress(&living, soon(), &mut |_, _| ()).unwrap();
    expect_places(&volume, &blocks);
    assert_eq!(volume.files(FileKind::Sidecar).len(), 1);
    let usage = volume.store().usage();
    assert!(usage.parity.inside_bytes > 0 && usage.parity.object_bytes > 0, "{usage:?}");
    // The volume is no longer spread: what is written again is protected here.
    volume.close();
    volume.config.cold_spread = None;
    volume.open();
    let fresh = volume.append_to(ParityPlace::Stores, &noise(9, BLOCK));
    volume.seal();
    let id = volume.store().describe(fresh.id).unwrap().segment;
    assert_eq!(volume.store().inner.table.record(id).unwrap().place, ParityPlace::Inside);
}

#[test]
fn a_segment_that_relies_on_stores_is_checked_by_its_frames_and_mended_from_cold() {
    let memory = Arc::new(Memory::new());
    let mut volume = Volume::with(|config| {
        config.cold = Some(Arc::clone(&memory) as Arc<dyn Tier>);
        config.copy_ahead = false;
        config.cache_bytes = 0;
        config.cold_spread = Some((4, 2));
    });
    volume.place = ParityPlace::Stores;
    let blocks: Vec<_> = (0..4).map(|n| volume.append(&noise(n, BLOCK))).collect();
    volume.store().sync().unwrap();
    volume.seal();
    let (id, path) = volume.files(FileKind::Sealed).remove(0);
    let sealed = std::fs::read(&path).unwrap();
    let ids: Vec<_> = blocks.iter().map(|block| block.id).collect();
    // Damaged before it is copied: nothing of it may reach cold.
    damage(&path, 70_000, 3);
    volume.store().archive(&ids, soon(), &mut |_, _| ()).unwrap_err();
    assert!(memory.peek(&id.object_key()).is_none());
    std::fs::write(&path, &sealed).unwrap();
    volume.store().archive(&ids, soon(), &mut |_, _| ()).unwrap();
    assert!(memory.peek(&id.sidecar_key()).is_none());
    damage(&path, 70_000, 3);
    let listing = volume.store().cold_listing().unwrap();
    let found = volume.store().scrub_segment(id, listing.as_ref(), false).unwrap().unwrap();
    assert_eq!(found.damage[0].mended, Mended::Whole, "{found:?}");
    assert!(std::fs::read(&path).unwrap() == sealed);
    let mut object = sealed.clone();
    object[70_000] ^= 1;
    memory.overwrite(&id.object_key(), object);
    volume.store().scrub_segment(id, listing.as_ref(), true).unwrap().unwrap();
    eventually("it is copied again", || {
        memory.peek(&id.object_key()).is_some_and(|object| object == sealed)
    });
}

#[test]
fn a_default_volume_has_one_open_segment_and_no_sidecar() {
    let volume = Volume::new();
    for n in 0..12 {
        volume.append(&noise(n, 30_000));
    }
    volume.store().sync().unwrap();
    let spare = 1;
    // Those that are full are sealed beside.
    eventually("one is open", || volume.files(FileKind::Open).len() <= 1 + spare);
    volume.seal();
    assert!(volume.files(FileKind::Sidecar).is_empty());
    let sealed = volume.files(FileKind::Sealed).remove(0).1;
    assert_eq!(std::fs::read(sealed).unwrap()[24], 1, "version 1, as ever");
}

#[test]
fn a_crash_between_both_deletions_in_cold_leaves_what_the_record_leads_to() {
    for step in [Step::ColdDeleteAfter, Step::ColdDeleteAfterSidecar, Step::UploadAfterSidecar] {
        let mut world = World::new();
        if step == Step::UploadAfterSidecar {
            world.volume.store().inner.steps.stop_at(step, 1);
            world.volume.store().archive(&world.ids(), soon(), &mut |_, _| ()).unwrap_err();
            assert_eq!(world.memory.keys(), [world.id.sidecar_key()]);
            world.volume.reopen_after_crash();
            world.archive();
            world.expect_objects();
            continue;
        }
        world.archive();
        world.volume.namespace.dead.lock().extend(world.ids());
        world.volume.store().inner.steps.stop_at(step, 1);
        world.volume.store().free(&world.ids());
        eventually("it was stopped", || {
            let _ = world.volume.store().sweep();
            world.volume.store().inner.steps.is_stopped()
        });
        assert!(world.object().is_none());
        assert_eq!(world.cold_sidecar().is_some(), step == Step::ColdDeleteAfter);
        world.volume.reopen_after_crash();
        eventually("nothing is left", || {
            let _ = world.volume.store().sweep();
            world.memory.keys().is_empty() && world.volume.files(FileKind::Index).is_empty()
        });
    }
    // Without the record, with all that was local gone.
    let mut world = World::dual();
    world.volume.close();
    world.memory.lose(&world.id.object_key());
    std::fs::remove_dir_all(&world.volume.config.hot_dir).unwrap();
    world.volume.delete_catalog();
    world.volume.open();
    world.volume.store().wait_caught_up(soon()).unwrap();
    world.volume.store().sweep().unwrap();
    assert_eq!(world.memory.keys(), Vec::<String>::new());
}
