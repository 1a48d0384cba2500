//! The bound of the hot tier: dropping, waiting, and the end of space, by an injected clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::block::{BlockId, BlockRef};
use crate::blocks::{Blocks, Wait};
use crate::budget::Budget;
use crate::clock::{Clock, ManualClock};
use crate::encode::EncodeMemory;
use crate::error::Error;
use crate::store::testing::{Volume, eventually, noise, soon};
use crate::store::{DiskSpace, StoreConfig};
use crate::tier::{Faulty, Memory, Tier};

const CAPACITY: u64 = 6 << 20;

fn small(config: &mut StoreConfig) {
    config.hot_capacity = Some(CAPACITY);
}

fn used_on_disk(dir: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        // Files come and go while they are counted.
        let Ok(entry) = entry else { continue };
        let Ok(metadata) = entry.metadata() else { continue };
        sum +=
            if metadata.is_dir() { used_on_disk(&entry.path()) } else { metadata.blocks() * 512 };
    }
    sum
}

#[test]
fn more_than_the_hot_capacity_flows_through_to_cold() {
    let memory = Arc::new(Memory::new());
    let tier = Arc::clone(&memory) as Arc<dyn Tier>;
    let volume = Volume::with(|config| {
        small(config);
        config.cold = Some(tier);
    });
    let mut blocks = Vec::new();
    for seed in 0..60 {
        blocks.push((volume.append(&noise(seed, 500_000)), seed));
        let usage = volume.store().usage();
        assert!(usage.hot_bytes <= CAPACITY, "{usage:?}");
        assert!(used_on_disk(&volume.config.hot_dir) <= CAPACITY + (64 << 10));
    }
    assert!(volume.namespace.backups.load(Ordering::SeqCst) > 0, "nothing was dropped");
    for (block, seed) in &blocks {
        assert_eq!(volume.read(block).unwrap(), noise(*seed, 500_000));
    }
}

#[test]
fn without_a_cold_tier_the_end_of_space_is_said_at_once_and_freeing_helps() {
    let volume = Volume::with(small);
    let mut blocks = Vec::new();
    let error = loop {
        let seed = blocks.len() as u64;
        match volume.store().append(&noise(seed, 300_000), &mut EncodeMemory::default(), soon()) {
            Ok(block) => blocks.push(block),
            Err(error) => break error,
        }
        assert!(blocks.len() < 100);
    };
    assert!(matches!(error, Error::NoSpace), "{error:?}");
    volume.store().sync().unwrap();
    for (seed, block) in blocks.iter().enumerate() {
        assert_eq!(volume.read(block).unwrap(), noise(seed as u64, 300_000));
    }
    let dead: Vec<_> = blocks[..12].iter().map(|block| block.id).collect();
    volume.namespace.dead.lock().extend(dead.iter().copied());
    volume.store().free(&dead);
    eventually("freed space can be used", || {
        match volume.store().append(&noise(99, 300_000), &mut EncodeMemory::default(), soon()) {
            Ok(_) => true,
            Err(Error::NoSpace) => false,
            Err(error) => panic!("{error:?}, {:?}", volume.store().usage()),
        }
    });
    for (seed, block) in blocks.iter().enumerate().skip(12) {
        assert_eq!(volume.read(block).unwrap(), noise(seed as u64, 300_000));
    }
}

#[test]
fn what_sealing_adds_to_small_segments_was_counted_before() {
    let volume = Volume::with(small);
    for seed in 0.. {
        let plain = noise(seed, 300_000);
        match volume.store().append(&plain, &mut EncodeMemory::default(), soon()) {
            Ok(_) => {}
            Err(Error::NoSpace) => break,
            Err(error) => panic!("{error:?}"),
        }
        // However far behind the sealer is: it counts as much before as after.
        let counted = volume.store().inner.capacity.used_bytes();
        let is_ahead = seed % 4 == 3;
        if is_ahead {
            volume.seal();
            assert!(volume.store().inner.capacity.used_bytes() <= counted);
        }
    }
    volume.seal();
    let usage = volume.store().usage();
    assert!(usage.hot_bytes <= CAPACITY, "{usage:?}");
    assert!(used_on_disk(&volume.config.hot_dir) <= CAPACITY + (64 << 10));
}

#[test]
fn what_is_wholly_dead_goes_also_from_a_tier_that_is_above_its_bound() {
    let free = Arc::new(AtomicU64::new(1 << 40));
    let space = Arc::clone(&free);
    let volume = Volume::with(|config| {
        config.disk_space = Arc::new(move |_| {
            let free_bytes = space.load(Ordering::SeqCst);
            Ok(DiskSpace { total_bytes: 1 << 50, free_bytes })
        });
    });
    let blocks: Vec<_> = (0..8).map(|seed| volume.append(&noise(seed, 300_000))).collect();
    volume.seal();
    let before = volume.store().usage().segments;
    // Others fill the disk: not even the room that is kept for moving is left.
    free.store(0, Ordering::SeqCst);
    volume.store().inner.look_at_disk();
    assert!(!volume.store().inner.capacity.has_reserve(0));
    let dead: Vec<_> = blocks[..4].iter().map(|block| block.id).collect();
    volume.namespace.dead.lock().extend(dead.iter().copied());
    volume.store().free(&dead);
    eventually("they are gone", || volume.store().usage().segments <= before - 4);
}

#[test]
fn a_writer_waits_for_what_others_give_back_and_hears_of_no_space_when_they_have_nothing() {
    let (others, yields) = (Arc::new(AtomicU64::new(CAPACITY)), Arc::new(AtomicBool::new(true)));
    let (kept, yielding) = (Arc::clone(&others), Arc::clone(&yields));
    let volume = Volume::with(|config| {
        small(config);
        config.other_bytes = Some(Arc::new(move || kept.load(Ordering::SeqCst)));
        config.others_yield = Some(Arc::new(move || yielding.load(Ordering::SeqCst)));
    });
    let known = |bytes| {
        eventually("it was asked", || volume.store().usage().other_bytes == bytes);
    };
    let append = || {
        volume.store().append(&noise(1, 300_000), &mut EncodeMemory::default(), soon()).map(drop)
    };
    known(CAPACITY);
    std::thread::scope(|scope| {
        let writer = scope.spawn(append);
        std::thread::sleep(Duration::from_millis(700));
        assert!(!writer.is_finished(), "there is something to wait for");
        // The last of it went, and nobody has asked since.
        others.store(0, Ordering::SeqCst);
        yields.store(false, Ordering::SeqCst);
        writer.join().unwrap().unwrap();
    });
    others.store(CAPACITY, Ordering::SeqCst);
    known(CAPACITY);
    assert!(matches!(append(), Err(Error::NoSpace)));
}

/// A full volume without a cold tier, with 16 blocks or so in a segment, and its blocks.
fn full_of_segments() -> (Volume, Vec<BlockRef>) {
    let volume = Volume::with(|config| {
        small(config);
        config.segment_bytes = 1 << 20;
    });
    let mut blocks = Vec::new();
    let error = loop {
        let plain = noise(blocks.len() as u64, SMALL);
        match volume.store().append(&plain, &mut EncodeMemory::default(), soon()) {
            Ok(block) => blocks.push(block),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::NoSpace), "{error:?}");
    (volume, blocks)
}

const SMALL: usize = 60_000;

/// Blocks of the segment that takes frames, by their place in `blocks`.
fn open_ones(volume: &Volume, blocks: &[BlockRef]) -> Vec<usize> {
    let unsealed = volume.store().inner.unsealed.read();
    let open = (0..blocks.len()).filter(|at| unsealed.blocks.contains_key(&blocks[*at].id));
    open.collect()
}

fn free(volume: &Volume, dead: &[BlockId]) {
    volume.namespace.dead.lock().extend(dead);
    volume.store().free(dead);
}

#[test]
fn what_died_in_the_segment_that_takes_frames_is_room_for_who_waits() {
    let (volume, blocks) = full_of_segments();
    eventually("the rest is sealed", || !volume.store().inner.is_sealing());
    let open = open_ones(&volume, &blocks);
    assert!(open.len() > 2, "{}", open.len());
    let dead: Vec<_> = open[1..].iter().map(|at| blocks[*at].id).collect();
    free(&volume, &dead);
    // Nobody hears that there is no space as long as there is garbage.
    let again: Vec<_> = (1000..).take(dead.len() - 1).collect();
    let again: Vec<_> =
        again.into_iter().map(|seed| (volume.append(&noise(seed, SMALL)), seed)).collect();
    for (block, seed) in again {
        assert_eq!(volume.read(&block).unwrap(), noise(seed, SMALL));
    }
    for (seed, block) in blocks.iter().enumerate().filter(|(_, block)| !dead.contains(&block.id)) {
        assert_eq!(volume.read(block).unwrap(), noise(seed as u64, SMALL));
    }
}

#[test]
fn what_died_in_the_segment_that_takes_frames_comes_back_though_nobody_waits() {
    let (volume, blocks) = full_of_segments();
    eventually("the rest is sealed", || !volume.store().inner.is_sealing());
    let dead: Vec<_> = open_ones(&volume, &blocks).iter().map(|at| blocks[*at].id).collect();
    let before = volume.store().usage().hot_bytes;
    free(&volume, &dead);
    let died = dead.len() as u64 * SMALL as u64;
    eventually("it comes back", || volume.store().usage().hot_bytes + died <= before);
}

#[test]
fn a_segment_that_cannot_be_compacted_as_a_whole_does_not_take_the_rest_of_the_room() {
    let (volume, blocks) = full_of_segments();
    eventually("the rest is sealed", || !volume.store().inner.is_sealing());
    // The last one may be small enough for the reserve.
    let last = open_ones(&volume, &blocks).into_iter().min().unwrap_or(blocks.len());
    volume.seal();
    let full = |volume: &Volume| {
        let plain = noise(1000, SMALL);
        volume.store().append(&plain, &mut EncodeMemory::default(), soon())
    };
    // What sealing gave back.
    while full(&volume).is_ok() {}
    let before = volume.store().usage();
    // An eighth and more of each: worth it, but the rest is more than the reserve.
    let dies = |at: usize| at < last && at.is_multiple_of(7);
    let dead: Vec<_> = (0..blocks.len()).filter(|at| dies(*at)).map(|at| blocks[at].id).collect();
    free(&volume, &dead);
    assert!(matches!(full(&volume), Err(Error::NoSpace)));
    assert_eq!(volume.store().health().compacted_segments, 0);
    assert!(volume.store().usage().hot_bytes <= before.hot_bytes);
    // As soon as one segment is gone there is room for the rest of any other.
    let first: Vec<_> = blocks[..17].iter().map(|block| block.id).collect();
    free(&volume, &first);
    eventually("all is compacted", || {
        let usage = volume.store().usage();
        usage.dead_bytes * 20 < before.stored_bytes
    });
    full(&volume).unwrap();
    let lives = |at: usize| !dies(at) && at >= 17;
    for (seed, block) in blocks.iter().enumerate().filter(|(at, _)| lives(*at)) {
        assert_eq!(volume.read(block).unwrap(), noise(seed as u64, SMALL));
    }
}

#[test]
fn when_both_tiers_are_full_it_is_no_space() {
    let memory = Arc::new(Memory::new());
    let tier = Arc::clone(&memory) as Arc<dyn Tier>;
    let volume = Volume::with(|config| {
        small(config);
        config.cold = Some(tier);
        config.cold_capacity = Some(3 << 20);
    });
    let mut count = 0;
    let error = loop {
        let plain = noise(count, 300_000);
        match volume.store().append(&plain, &mut EncodeMemory::default(), soon()) {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
        assert!(count < 200);
    };
    assert!(matches!(error, Error::NoSpace), "{error:?}");
    let usage = volume.store().usage();
    assert!(usage.cold_bytes <= 3 << 20 && usage.cold_bytes > 1 << 20, "{usage:?}");
}

#[test]
fn a_writer_waits_for_a_cold_tier_that_is_away_and_goes_on_when_it_is_back() {
    let memory = Arc::new(Memory::new());
    let faulty = Arc::new(Faulty::new(Arc::clone(&memory) as Arc<dyn Tier>));
    let tier = Arc::clone(&faulty) as Arc<dyn Tier>;
    let volume = Volume::with(|config| {
        small(config);
        config.cold = Some(tier);
    });
    faulty.cut_off();
    std::thread::scope(|scope| {
        let volume = &volume;
        let writer = scope.spawn(move || {
            (0..40).map(|seed| (volume.append(&noise(seed, 300_000)), seed)).collect::<Vec<_>>()
        });
        eventually("the writer waits", || volume.store().health().waiting_for_space > 0);
        let plain = noise(1000, 300_000);
        let refused = volume.store().append(&plain, &mut EncodeMemory::default(), Wait::No);
        assert!(matches!(refused, Err(Error::WouldWait)));
        faulty.reconnect();
        for (block, seed) in writer.join().unwrap() {
            assert_eq!(volume.read(&block).unwrap(), noise(seed, 300_000));
        }
    });
}

#[test]
fn a_writer_without_any_progress_gets_an_error_at_its_deadline() {
    let memory = Arc::new(Memory::new());
    let faulty = Arc::new(Faulty::new(Arc::clone(&memory) as Arc<dyn Tier>));
    faulty.cut_off();
    let tier = Arc::clone(&faulty) as Arc<dyn Tier>;
    let clock = Arc::new(ManualClock::new());
    let volume = Volume::with(|config| {
        small(config);
        config.cold = Some(tier);
        config.clock = Arc::clone(&clock) as Arc<dyn Clock>;
        config.budget = Budget::new(256 << 20, Arc::clone(&config.clock));
    });
    let far = Wait::Until(clock.instant() + Duration::from_secs(100_000));
    std::thread::scope(|scope| {
        let volume = &volume;
        let writer = scope.spawn(move || {
            for seed in 0..1000 {
                let plain = noise(seed, 300_000);
                if let Err(error) = volume.store().append(&plain, &mut EncodeMemory::default(), far)
                {
                    return error;
                }
            }
            panic!("never full");
        });
        eventually("the writer waits", || volume.store().health().waiting_for_space > 0);
        // Not a minute early: it still waits.
        clock.advance(Duration::from_secs(299));
        eventually("it looked at the clock", || !writer.is_finished());
        eventually("it gives up", || {
            clock.advance(Duration::from_secs(10));
            writer.is_finished()
        });
        assert!(matches!(writer.join().unwrap(), Error::TimedOut(_)));
    });
    // What was written stays.
    assert!(volume.store().sync().is_ok());
}

/// Claims a disk of [`CAPACITY`] bytes for the hot directory, and nothing about a capacity.
fn small_disk(config: &mut StoreConfig) {
    config.disk_space = Arc::new(|dir| {
        let free_bytes = CAPACITY.saturating_sub(used_on_disk(dir));
        Ok(DiskSpace { total_bytes: CAPACITY, free_bytes })
    });
}

#[test]
fn a_disk_bounds_the_hot_tier_whatever_capacity_is_configured() {
    for configured in [None, Some(1 << 50)] {
        let memory = Arc::new(Memory::new());
        let tier = Arc::clone(&memory) as Arc<dyn Tier>;
        let volume = Volume::with(|config| {
            small_disk(config);
            config.hot_capacity = configured;
            config.cold = Some(tier);
            config.copy_ahead = false;
        });
        let mut blocks = Vec::new();
        for seed in 0..40 {
            blocks.push((volume.append(&noise(seed, 500_000)), seed));
            // A file that gets its name while they are counted counts twice.
            let counted = (0..3).map(|_| used_on_disk(&volume.config.hot_dir));
            let used = counted.min().unwrap();
            assert!(used <= CAPACITY, "{used} bytes on a disk of {CAPACITY}");
        }
        // A file that has just gone counts twice until the disk is asked again: as used and as room.
        eventually("no more than the disk holds is taken for its capacity", || {
            volume.store().usage().hot_capacity.unwrap() <= CAPACITY
        });
        for (block, seed) in &blocks {
            assert_eq!(volume.read(block).unwrap(), noise(*seed, 500_000));
        }
    }
}

#[test]
fn on_a_full_disk_it_is_no_space_only_when_no_tier_can_help() {
    let without_cold = Volume::with(small_disk);
    let with_small_cold = Volume::with(|config| {
        small_disk(config);
        config.cold = Some(Arc::new(Memory::new()));
        config.cold_capacity = Some(3 << 20);
    });
    let fill = |volume: &Volume| {
        (0..100).find_map(|seed| {
            let plain = noise(seed, 300_000);
            let result = volume.store().append(&plain, &mut EncodeMemory::default(), soon());
            result.err().map(|error| (seed, error))
        })
    };
    let (short, error) = fill(&without_cold).unwrap();
    assert!(matches!(error, Error::NoSpace), "{error:?}");
    let (long, error) = fill(&with_small_cold).unwrap();
    assert!(matches!(error, Error::NoSpace), "{error:?}");
    assert!(long > short + 5, "{short} without, {long} with a cold tier");
}

/// A small filesystem of its own; `None` where mounting is not allowed.
struct TinyDisk(tempfile::TempDir);

impl TinyDisk {
    fn new(bytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("firn-test", dir.path(), "tmpfs", flags, Some(&*options)).ok()?;
        Some(Self(dir))
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_disk_that_refuses_bytes_it_seemed_to_have_is_the_bound() {
    for has_cold in [true, false] {
        let Some(disk) = TinyDisk::new(CAPACITY) else {
            // No mounts here: only the tests with a claimed disk apply.
            return;
        };
        let volume = Volume::with(|config| {
            config.hot_dir = disk.0.path().to_owned();
            config.disk_space =
                Arc::new(|_| Ok(DiskSpace { total_bytes: CAPACITY, free_bytes: 1 << 40 }));
            config.cold = has_cold.then(|| Arc::new(Memory::new()) as Arc<dyn Tier>);
        });
        let mut blocks = Vec::new();
        for seed in 0..40 {
            let plain = noise(seed, 300_000);
            match volume.store().append(&plain, &mut EncodeMemory::default(), soon()) {
                Ok(block) => blocks.push((block, seed)),
                Err(Error::NoSpace) if !has_cold => break,
                Err(error) => panic!("{error:?} after {seed}"),
            }
        }
        assert!(blocks.len() > 10 && (blocks.len() == 40) == has_cold, "{}", blocks.len());
        for (block, seed) in &blocks {
            assert_eq!(volume.read(block).unwrap(), noise(*seed, 300_000));
        }
        assert!(volume.store().read_only_reason().is_none());
        drop(volume);
    }
}

#[test]
fn nothing_is_dropped_while_the_backup_does_not_name_it() {
    let memory = Arc::new(Memory::new());
    let tier = Arc::clone(&memory) as Arc<dyn Tier>;
    let volume = Volume::with(|config| {
        small(config);
        config.cold = Some(tier);
        config.write_deadline = Duration::from_millis(300);
    });
    volume.namespace.refuses_backup.store(true, Ordering::SeqCst);
    let mut blocks = Vec::new();
    let error = loop {
        let seed = blocks.len() as u64;
        match volume.store().append(&noise(seed, 300_000), &mut EncodeMemory::default(), soon()) {
            Ok(block) => blocks.push(block),
            Err(error) => break error,
        }
        assert!(blocks.len() < 100);
    };
    assert!(matches!(error, Error::TimedOut(_) | Error::NoSpace), "{error:?}");
    assert_eq!(volume.store().health().dropped_bytes, 0);
    // All of it is still in hot.
    for key in memory.keys() {
        memory.lose(&key);
    }
    for (seed, block) in blocks.iter().enumerate() {
        assert_eq!(volume.read(block).unwrap(), noise(seed as u64, 300_000));
    }
}

#[test]
fn a_writer_waits_as_long_as_there_is_progress_and_not_longer() {
    let memory = Arc::new(Memory::new());
    let faulty = Arc::new(Faulty::new(Arc::clone(&memory) as Arc<dyn Tier>));
    faulty.cut_off();
    let tier = Arc::clone(&faulty) as Arc<dyn Tier>;
    let clock = Arc::new(ManualClock::new());
    let volume = Volume::with(|config| {
        small(config);
        config.cold = Some(tier);
        config.clock = Arc::clone(&clock) as Arc<dyn Clock>;
        config.budget = Budget::new(256 << 20, Arc::clone(&config.clock));
    });
    let patience = Wait::Progress(Duration::from_secs(300));
    std::thread::scope(|scope| {
        let volume = &volume;
        let writer = scope.spawn(move || {
            let append = |seed| {
                let plain = noise(seed, 300_000);
                volume.store().append(&plain, &mut EncodeMemory::default(), patience)
            };
            (0..1000).find_map(|seed| append(seed).err())
        });
        eventually("the writer waits", || volume.store().health().waiting_for_space > 0);
        // A slow line: something every 200 seconds.
        for _ in 0..6 {
            volume.store().inner.capacity.progressed();
            std::thread::sleep(Duration::from_millis(200));
            clock.advance(Duration::from_secs(200));
            std::thread::sleep(Duration::from_millis(100));
            assert!(!writer.is_finished(), "it gave up although there is progress");
        }
        eventually("it gives up", || {
            clock.advance(Duration::from_secs(10));
            writer.is_finished()
        });
        assert!(matches!(writer.join().unwrap(), Some(Error::TimedOut(_))));
    });
}
