//! Damage to copies of segments: what readers get, and what lies there afterwards.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::block::{BlockId, BlockRef};
use crate::blocks::Blocks;
use crate::catalog::ColdCopy;
use crate::error::{Error, Result};
use crate::segment::{FileKind, SegmentId};
use crate::store::repair::Suspect;
use crate::store::testing::{Log, Volume, damage, eventually, noise, soon};
use crate::store::{
    BackupProof, CheckOptions, DamageLog, DamageReport, DiskSpace, Mended, Residence, Step,
    StoreConfig,
};
use crate::tier::{Faulty, Memory, Tier};

/// Four of them fill a segment.
const BLOCK: usize = 60_000;

/// A volume of two segments, and what they looked like when they were sealed.
struct World {
    volume: Volume,
    memory: Arc<Memory>,
    log: Arc<Log>,
    blocks: Vec<(BlockRef, Vec<u8>)>,
    sealed: Vec<(SegmentId, PathBuf, Vec<u8>)>,
}

impl World {
    fn with(has_cold: bool, change: impl FnOnce(&mut StoreConfig)) -> Self {
        let (memory, log) = (Arc::new(Memory::new()), Arc::new(Log::default()));
        let volume = Volume::with(|config| {
            config.cold = has_cold.then(|| Arc::clone(&memory) as Arc<dyn Tier>);
            config.copy_ahead = false;
            config.cache_bytes = 0;
            config.damage = Some(Arc::clone(&log) as Arc<dyn DamageLog>);
            change(config);
        });
        let plain = (0..8).map(|n| noise(n, BLOCK));
        let blocks = plain.map(|plain| (volume.append(&plain), plain)).collect();
        volume.store().sync().unwrap();
        volume.seal();
        let sealed = volume.files(FileKind::Sealed).into_iter();
        let sealed = sealed.map(|(id, path)| {
            let bytes = std::fs::read(&path).unwrap();
            (id, path, bytes)
        });
        Self { sealed: sealed.collect(), volume, memory, log, blocks }
    }

    fn local() -> Self {
        Self::with(false, |_| ())
    }

    /// Both segments in both tiers.
    fn dual() -> Self {
        let world = Self::with(true, |_| ());
        world.volume.store().archive(&world.ids(), soon(), &mut |_, _| ()).unwrap();
        world
    }

    fn ids(&self) -> Vec<BlockId> {
        self.blocks.iter().map(|(block, _)| block.id).collect()
    }

    /// Drops the hot copies of these blocks.
    fn release(&self, blocks: &[BlockId]) {
        let proof = BackupProof::of_blocks(blocks.iter().copied());
        let moved = self.volume.store().release(blocks, &proof, soon()).unwrap();
        assert_eq!(moved.blocks, blocks.len(), "{moved:?}");
    }

    fn read(&self, at: usize) -> Result<()> {
        let (block, plain) = &self.blocks[at];
        let read = self.volume.read(block)?;
        assert!(read == plain, "wrong bytes of block {at}");
        Ok(())
    }

    /// Where a block's frame lies in its segment.
    fn frame(&self, at: usize) -> std::ops::Range<u64> {
        let inner = &self.volume.store().inner;
        let found = inner.with_catalog(|catalog| catalog.lookup(self.blocks[at].0.id));
        found.unwrap().unwrap().entry.frame_range()
    }

    fn key(&self) -> String {
        self.sealed[0].0.object_key()
    }

    /// Changes the object of the first segment.
    fn damage_object(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.object().unwrap().to_vec();
        change(&mut bytes);
        self.memory.overwrite(&self.key(), bytes);
    }

    fn object(&self) -> Option<bytes::Bytes> {
        self.memory.peek(&self.key())
    }

    /// The first segment's file is what it was when it was sealed, sooner or later.
    fn expect_whole_file(&self) {
        let (_, path, bytes) = &self.sealed[0];
        eventually("the file is whole again", || std::fs::read(path).is_ok_and(|b| b == *bytes));
        self.expect_idle();
        let staging = self.volume.config.hot_dir.join("tmp");
        eventually("nothing is left in staging", || {
            std::fs::read_dir(&staging).unwrap().count() == 0
        });
    }

    fn expect_idle(&self) {
        eventually("no segment is suspect", || self.volume.store().health().suspect_segments == 0);
    }

    fn expect_clean(&self) {
        let options = CheckOptions { data: true, cold_data: true };
        let report = self.volume.store().check(options, &mut |_, _| ()).unwrap();
        assert!(report.is_clean(), "{report:?}");
    }
}

#[test]
fn a_reader_gets_what_parity_makes_and_the_file_is_made_whole() {
    let world = World::local();
    damage(&world.sealed[0].1, world.frame(1).start + 200, 1);
    world.read(1).unwrap();
    world.expect_whole_file();
    let health = world.volume.store().health();
    assert_eq!((health.rescued_reads, health.repaired_segments), (1, 1));
    let reports = world.log.0.lock();
    let [report] = &reports[..] else { panic!("{reports:?}") };
    assert_eq!((report.segment, &report.mended), (world.sealed[0].0, &Mended::Whole));
    assert!(report.blocks.contains(&world.blocks[1].0.id), "{report:?}");
    drop(reports);
    world.expect_clean();
    let files = world.volume.files(FileKind::Sealed);
    let on_disk: u64 = files.iter().map(|(_, p)| super::super::hotdir::disk_bytes(p)).sum();
    let indexes = world.volume.files(FileKind::Index);
    let indexes: u64 = indexes.iter().map(|(_, p)| super::super::hotdir::disk_bytes(p)).sum();
    assert_eq!(world.volume.store().usage().hot_bytes, on_disk + indexes);
}

#[test]
fn a_run_of_one_percent_is_repaired_wherever_it_lies() {
    let world = World::local();
    let (_, path, bytes) = &world.sealed[0];
    let run = bytes.len() / 100;
    for part in 0..20 {
        let at = (bytes.len() - run) * part / 19;
        damage(path, at as u64, run);
        for block in 0..4 {
            world.read(block).unwrap();
        }
        // Damage that no reader met is met by whoever looks.
        world.volume.store().inner.suspect(world.sealed[0].0, Suspect::HOT);
        world.expect_whole_file();
    }
    world.expect_clean();
}

#[test]
fn what_parity_cannot_bear_is_an_error_and_the_blocks_are_named() {
    let world = World::local();
    let (frame, other) = (world.frame(1), world.frame(3));
    damage(&world.sealed[0].1, frame.start, (frame.end - frame.start) as usize);
    damage(&world.sealed[0].1, other.start + 100, 1);
    for _ in 0..2 {
        let lost = world.read(1);
        assert!(matches!(lost, Err(Error::Lost { .. })), "{lost:?}");
    }
    // Its neighbours, and what lies in shards that are sound, are read as ever.
    world.read(4).unwrap();
    eventually("it is reported", || !world.log.0.lock().is_empty());
    let reports = world.log.0.lock().clone();
    let Mended::Lost(lost) = &reports[0].mended else { panic!("{reports:?}") };
    assert!(lost.contains(&world.blocks[1].0.id), "{lost:?}");
    assert!(!lost.contains(&world.blocks[4].0.id), "{lost:?}");
    eventually("it is no suspect any more", || {
        let health = world.volume.store().health();
        (health.suspect_segments, health.lost_segments) == (0, 1)
    });
}

#[test]
fn a_file_beyond_its_parity_is_made_anew_from_cold() {
    let world = World::dual();
    let frame = world.frame(1);
    damage(&world.sealed[0].1, frame.start, (frame.end - frame.start) as usize);
    world.read(1).unwrap();
    world.expect_whole_file();
    assert_eq!(world.volume.store().health().rescued_reads, 0, "cold had it");
    world.expect_clean();
}

#[test]
fn a_file_that_is_gone_or_cut_short_or_another_is_made_anew_from_cold() {
    for how in ["gone", "empty", "short", "swapped"] {
        let world = World::dual();
        let path = &world.sealed[0].1;
        match how {
            "gone" => std::fs::remove_file(path).unwrap(),
            "empty" => std::fs::write(path, []).unwrap(),
            "short" => std::fs::write(path, &world.sealed[0].2[..9000]).unwrap(),
            _ => std::fs::write(path, &world.sealed[1].2).unwrap(),
        }
        world.volume.store().inner.hot.forget(world.sealed[0].0);
        for block in 0..4 {
            world.read(block).unwrap();
        }
        world.expect_whole_file();
        world.expect_clean();
    }
}

#[test]
fn a_file_whose_name_is_gone_while_it_is_open_gets_its_name_back() {
    let world = World::local();
    // Nothing else holds it.
    world.read(0).unwrap();
    std::fs::remove_file(&world.sealed[0].1).unwrap();
    world.volume.store().inner.suspect(world.sealed[0].0, Suspect::HOT);
    world.expect_whole_file();
    world.expect_clean();
}

/// A power cut takes the catalog, which alone recorded what was released.
#[test]
fn what_was_released_is_no_damage_after_the_catalog_was_lost() {
    let mut world = World::dual();
    world.release(&world.ids()[..2]);
    world.volume.close();
    world.volume.delete_catalog();
    world.volume.open();
    world.volume.store().wait_caught_up(soon()).unwrap();
    eventually("the holes are known", || {
        let residence = world.volume.store().residence(&world.ids()[..3]);
        // The copy in cold is verified again before it counts.
        residence == [Residence::Cold, Residence::Cold, Residence::Hot]
    });
    let listing = world.volume.store().cold_listing().unwrap();
    for id in world.volume.store().segments_after(None) {
        let found = world.volume.store().scrub_segment(id, listing.as_ref(), true).unwrap();
        assert!(found.unwrap().damage.is_empty());
    }
    world.expect_clean();
    assert_eq!(world.volume.store().health().repaired_segments, 0);
}

#[test]
fn a_file_that_is_gone_holds_up_no_release() {
    let world = World::dual();
    std::fs::remove_file(&world.sealed[0].1).unwrap();
    world.release(&world.ids()[..1]);
    world.expect_whole_file();
    world.expect_clean();
}

#[test]
fn a_damaged_object_is_replaced_by_the_whole_file() {
    let world = World::dual();
    let changes: [fn(&mut Vec<u8>); 3] =
        [|b| b[6000] ^= 1, |b| b.truncate(9000), |b| b[4096..].fill(0)];
    for change in changes {
        world.damage_object(change);
        world.volume.store().inner.suspect(world.sealed[0].0, Suspect::COLD);
        eventually("the object is whole again", || {
            world.object().is_some_and(|object| object == world.sealed[0].2)
        });
        world.expect_idle();
    }
    world.memory.lose(&world.key());
    world.volume.store().inner.suspect(world.sealed[0].0, Suspect::COLD);
    eventually("the object is there again", || world.object().is_some());
    eventually("it is verified", || {
        world.volume.store().residence(&[world.blocks[0].0.id]) == [Residence::Dual]
    });
    world.expect_clean();
}

#[test]
fn an_object_that_is_the_only_copy_is_repaired_by_its_parity() {
    let world = World::dual();
    world.release(&world.ids());
    world.damage_object(|bytes| bytes[world.frame(1).start as usize + 300] ^= 4);
    world.read(1).unwrap();
    assert_eq!(world.volume.store().health().rescued_reads, 1);
    eventually("the object is whole again", || {
        world.object().is_some_and(|object| object == world.sealed[0].2)
    });
    world.expect_idle();
    world.expect_clean();
}

#[test]
fn two_damaged_copies_make_a_whole_one() {
    let world = World::dual();
    // Each beyond its own parity.
    let (one, other) = (world.frame(0), world.frame(3));
    let len = |frame: &std::ops::Range<u64>| (frame.end - frame.start) as usize;
    damage(&world.sealed[0].1, one.start, len(&one));
    world.damage_object(|bytes| {
        bytes[other.start as usize..other.end as usize].iter_mut().for_each(|byte| *byte ^= 9);
    });
    for block in 0..4 {
        world.read(block).unwrap();
    }
    world.volume.store().inner.suspect(world.sealed[0].0, Suspect { hot: true, cold: true });
    world.expect_whole_file();
    eventually("the object is whole again", || {
        world.object().is_some_and(|object| object == world.sealed[0].2)
    });
    world.expect_clean();
}

/// Damages the same frame of both copies of the first segment throughout.
fn damage_both(world: &World, at: usize) {
    let frame = world.frame(at);
    let (start, end) = (frame.start as usize, frame.end as usize);
    damage(&world.sealed[0].1, frame.start, end - start);
    world.damage_object(|bytes| bytes[start..end].iter_mut().for_each(|byte| *byte ^= 9));
}

#[test]
fn with_both_copies_beyond_repair_hot_keeps_what_it_has() {
    // All of the file, and one with holes in it.
    for released in [&[][..], &[0]] {
        let world = World::dual();
        let when = format!("{} blocks released", released.len());
        world.release(&released.iter().map(|at| world.blocks[*at].0.id).collect::<Vec<_>>());
        damage_both(&world, 1);
        let store = world.volume.store();
        let (id, path, _) = &world.sealed[0];
        let damaged = std::fs::read(path).unwrap();
        store.inner.suspect(*id, Suspect { hot: true, cold: true });
        eventually("it is lost", || {
            let health = store.health();
            (health.suspect_segments, health.lost_segments) == (0, 1)
        });
        assert_eq!(store.inner.table.record(*id).unwrap().cold, ColdCopy::Listed, "{when}");
        // Nobody copies it to and fro.
        assert_eq!(store.inner.drain_uploads(soon()).unwrap(), 0, "{when}");
        let all = world.ids();
        let here: Vec<_> = (1..4).map(|at| all[at]).collect();
        let moved = store.release(&here, &BackupProof::of_blocks(here.iter().copied()), soon());
        let moved = moved.unwrap();
        assert!(moved.refused.iter().any(|(block, _)| *block == all[1]), "{when}: {moved:?}");
        store.inner.relieve();
        store.sweep().unwrap();
        assert!(std::fs::read(path).unwrap() == damaged, "{when}: the file was changed");
        assert!(matches!(world.read(1), Err(Error::Lost { .. })), "{when}");
        for at in [0, 2, 3] {
            world.read(at).unwrap_or_else(|error| panic!("{when}: block {at}: {error}"));
        }
        // The object comes back as it was.
        world.memory.overwrite(&world.key(), world.sealed[0].2.clone());
        let found = eventually_scrubbed(&world);
        assert!(found.iter().all(|damage| damage.mended == Mended::Whole), "{when}: {found:?}");
        world.read(1).unwrap();
        eventually("it is verified", || {
            store.inner.table.record(*id).unwrap().cold == ColdCopy::Verified
        });
        eventually("nothing is lost", || store.health().lost_segments == 0);
    }
}

/// That it is beyond repair is not stored.
#[test]
fn a_file_with_holes_beside_an_object_beyond_repair_is_left_alone_after_an_open_too() {
    let mut world = World::dual();
    world.release(&[world.blocks[0].0.id]);
    damage_both(&world, 1);
    let id = world.sealed[0].0;
    for _ in 0..2 {
        let store = world.volume.store();
        store.inner.suspect(id, Suspect { hot: true, cold: true });
        eventually("it is lost", || {
            let health = store.health();
            (health.suspect_segments, health.lost_segments) == (0, 1)
        });
        assert_eq!(store.inner.drain_uploads(soon()).unwrap(), 0);
        world.volume.close();
        world.volume.open();
    }
}

/// Holes are what is not read here any more, and lose what lies there for good.
#[test]
fn a_damaged_frame_becomes_no_hole_while_the_other_copy_does_not_answer() {
    let faulty = Arc::new(Faulty::new(Arc::new(Memory::new())));
    let volume = Volume::with(|config| {
        config.cold = Some(Arc::clone(&faulty) as Arc<dyn Tier>);
        config.copy_ahead = false;
        config.cache_bytes = 0;
    });
    let blocks: Vec<_> = (0..3).map(|n| volume.append(&noise(n, 60_000))).collect();
    volume.store().sync().unwrap();
    volume.seal();
    let (id, path) = volume.files(FileKind::Sealed).remove(0);
    let ids: Vec<_> = blocks.iter().map(|block| block.id).collect();
    volume.store().archive(&ids, soon(), &mut |_, _| ()).unwrap();
    let gone = &ids[..1];
    let proof = BackupProof::of_blocks(gone.iter().copied());
    volume.store().release(gone, &proof, soon()).unwrap();
    let inner = &volume.store().inner;
    let holes = || inner.table.record(id).unwrap().holes;
    let before = holes();
    assert!(!before.is_empty());
    let index = inner.hot.read_index(&inner.name(id)).unwrap();
    damage(&path, index.find(ids[1])[0].frame_range().start + 500, 3);
    faulty.cut_off();
    inner.claim_waiting(id, soon()).unwrap();
    inner.mend(id, Suspect::HOT).unwrap_err();
    inner.table.unclaim(id);
    assert_eq!(holes(), before);
    faulty.reconnect();
    inner.suspect(id, Suspect::HOT);
    eventually("it is mended", || inner.health().suspect_segments == 0);
    assert_eq!(volume.read(&blocks[1]).unwrap(), noise(1, 60_000));
}

#[test]
fn an_object_beyond_repair_keeps_nothing_else_from_being_copied() {
    let memory = Arc::new(Memory::new());
    let volume = Volume::with(|config| {
        config.cold = Some(Arc::clone(&memory) as Arc<dyn Tier>);
        config.copy_ahead = false;
    });
    let gone = volume.append(&noise(1, 60_000));
    volume.store().sync().unwrap();
    volume.seal();
    let (lost, _) = volume.files(FileKind::Sealed).remove(0);
    volume.store().archive(&[gone.id], soon(), &mut |_, _| ()).unwrap();
    let proof = BackupProof::of_blocks([gone.id]);
    volume.store().release(&[gone.id], &proof, soon()).unwrap();
    let mut object = memory.peek(&lost.object_key()).unwrap().to_vec();
    object[600..50_000].fill(0);
    memory.overwrite(&lost.object_key(), object);
    let scrubbed = || volume.store().scrub_segment(lost, None, true).unwrap().is_some();
    eventually("it is distrusted", || {
        scrubbed() && volume.store().inner.table.record(lost).unwrap().cold == ColdCopy::Listed
    });
    let sound = volume.append(&noise(2, 60_000));
    let both = [gone.id, sound.id];
    let copied = volume.store().archive(&both, soon(), &mut |_, _| ());
    assert!(matches!(copied, Err(Error::Lost { .. })), "{copied:?}");
    assert_eq!(volume.store().residence(&[sound.id]), [Residence::Dual]);
}

/// What a scrub of both copies of the first segment reports.
fn eventually_scrubbed(world: &World) -> Vec<DamageReport> {
    loop {
        let store = world.volume.store();
        if let Some(found) = store.scrub_segment(world.sealed[0].0, None, true).unwrap() {
            return found.damage;
        }
    }
}

#[test]
fn damage_of_a_copy_that_was_whole_again_meanwhile_is_told_anew() {
    let world = World::dual();
    world.release(&world.ids());
    let frame = world.frame(1);
    let told = || -> Vec<_> {
        let log = world.log.0.lock();
        log.iter().filter(|report| report.in_cold).map(|r| r.mended.clone()).collect()
    };
    for round in 1..=2 {
        world.damage_object(|bytes| {
            let frame = frame.start as usize..frame.end as usize;
            bytes[frame].iter_mut().for_each(|byte| *byte ^= 9);
        });
        for _ in 0..2 {
            eventually_scrubbed(&world);
        }
        let told = told();
        assert_eq!(told.len(), round, "{told:?}");
        let Mended::Lost(blocks) = &told[round - 1] else { panic!("{told:?}") };
        assert!(blocks.contains(&world.blocks[1].0.id), "{blocks:?}");
        world.memory.overwrite(&world.key(), world.sealed[0].2.clone());
        assert!(eventually_scrubbed(&world).is_empty());
    }
}

#[test]
fn while_cold_does_not_answer_nothing_is_called_lost() {
    let faulty = Arc::new(Faulty::new(Arc::new(Memory::new())));
    let tier = Arc::clone(&faulty) as Arc<dyn Tier>;
    let world = World::with(true, |config| config.cold = Some(tier));
    world.volume.store().archive(&world.ids(), soon(), &mut |_, _| ()).unwrap();
    let frame = world.frame(1);
    damage(&world.sealed[0].1, frame.start, (frame.end - frame.start) as usize);
    faulty.cut_off();
    let failed = world.read(1);
    assert!(matches!(failed, Err(Error::Cold { .. } | Error::TimedOut(_))), "{failed:?}");
    eventually("it was tried", || {
        let health = world.volume.store().health();
        health.suspect_segments == 1 && health.lost_segments == 0
    });
    assert!(world.log.0.lock().is_empty(), "{:?}", world.log.0.lock());
    faulty.reconnect();
    world.read(1).unwrap();
    world.expect_whole_file();
}

#[test]
fn what_became_of_the_file_is_told_though_cold_does_not_answer() {
    let faulty = Arc::new(Faulty::new(Arc::new(Memory::new())));
    let tier = Arc::clone(&faulty) as Arc<dyn Tier>;
    let world = World::with(true, |config| config.cold = Some(tier));
    world.volume.store().archive(&world.ids(), soon(), &mut |_, _| ()).unwrap();
    let (id, path, _) = &world.sealed[0];
    damage(path, world.frame(1).start, 100);
    faulty.cut_off();
    let inner = &world.volume.store().inner;
    assert!(inner.table.claim(*id));
    let both = Suspect { hot: true, cold: true };
    let failed = inner.look_and_mend(*id, both);
    inner.table.unclaim(*id);
    assert!(matches!(failed, Err(Error::Cold { .. } | Error::TimedOut(_))), "{failed:?}");
    let told: Vec<_> =
        world.log.0.lock().iter().map(|r| (r.segment, r.in_cold, r.mended.clone())).collect();
    assert_eq!(told, [(*id, false, Mended::Whole)]);
    assert_eq!(world.volume.store().health().repaired_segments, 1);
    world.expect_whole_file();
}

#[test]
fn a_damaged_frame_of_a_file_with_holes_is_brought_back() {
    let world = World::dual();
    world.release(&[world.blocks[0].0.id]);
    let frame = world.frame(2);
    damage(&world.sealed[0].1, frame.start, (frame.end - frame.start) as usize);
    for block in 0..4 {
        world.read(block).unwrap();
    }
    world.expect_idle();
    let placed = world.volume.store().residence(&[world.blocks[0].0.id, world.blocks[2].0.id]);
    assert_eq!(placed, [Residence::Cold, Residence::Dual]);
    world.memory.lose(&world.key());
    world.read(2).unwrap();
}

#[test]
fn the_sound_object_of_another_instance_is_no_copy() {
    let world = World::dual();
    // The same volume, recovered elsewhere, wrote another segment of this id.
    let twin = Volume::new();
    for n in 100..104 {
        twin.append(&noise(n, BLOCK));
    }
    twin.seal();
    let (id, path) = twin.files(FileKind::Sealed).remove(0);
    assert_eq!(id, world.sealed[0].0);
    world.memory.overwrite(&world.key(), std::fs::read(path).unwrap());
    let frame = world.frame(1);
    damage(&world.sealed[0].1, frame.start, (frame.end - frame.start) as usize);
    assert!(world.read(1).is_err());
    eventually("it is reported", || !world.log.0.lock().is_empty());
    assert!(world.log.0.lock().iter().all(|report| matches!(report.mended, Mended::Lost(_))));
    // A shard that the damage did not touch.
    world.read(4).unwrap();
}

#[test]
fn a_volume_opened_read_only_rescues_and_writes_nothing() {
    let mut world = World::local();
    let frame = world.frame(1);
    world.volume.close();
    damage(&world.sealed[0].1, frame.start + 200, 1);
    let damaged = std::fs::read(&world.sealed[0].1).unwrap();
    world.volume.config.read_only = true;
    world.volume.open();
    world.read(1).unwrap();
    assert_eq!(world.volume.store().health().suspect_segments, 0);
    assert!(std::fs::read(&world.sealed[0].1).unwrap() == damaged);
}

#[test]
fn a_full_disk_keeps_no_reader_from_what_parity_makes() {
    let free = Arc::new(AtomicU64::new(1 << 30));
    let disk = Arc::clone(&free);
    let world = World::with(false, |config| {
        config.disk_space = Arc::new(move |_| {
            Ok(DiskSpace { total_bytes: 1 << 30, free_bytes: disk.load(Ordering::Relaxed) })
        });
    });
    free.store(0, Ordering::Relaxed);
    world.volume.store().inner.look_at_disk();
    damage(&world.sealed[0].1, world.frame(1).start + 200, 1);
    world.read(1).unwrap();
    world.read(1).unwrap();
    assert_eq!(world.volume.store().health().repaired_segments, 0);
    free.store(1 << 30, Ordering::Relaxed);
    world.expect_whole_file();
}

#[test]
fn a_crash_while_a_file_is_made_anew_leaves_one_of_both() {
    for step in [Step::MendBeforeRename, Step::MendAfterRenameBeforeTable] {
        let mut world = World::local();
        world.volume.store().inner.steps.stop_at(step, 1);
        damage(&world.sealed[0].1, world.frame(1).start + 200, 1);
        world.read(1).unwrap();
        eventually("it is stopped", || world.volume.store().inner.steps.is_stopped());
        world.volume.reopen_after_crash();
        for block in 0..8 {
            world.read(block).unwrap();
        }
        world.volume.store().inner.suspect(world.sealed[0].0, Suspect::HOT);
        world.expect_whole_file();
        world.expect_clean();
    }
}
