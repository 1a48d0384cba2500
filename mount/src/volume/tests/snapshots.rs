//! Snapshots, destroying and rolling back on a volume in use.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use firn_tiering::Wait;

use super::super::FileSettings;
use super::fake::{READ_WRITE, ROOT, World};
use crate::core::Core;
use crate::error::FsError;
use crate::file::SLOT_LEN;
use crate::namespace::{Dataset, TreeError};
use crate::types::{Fallocate, Forget, Handle, Ino, OpenMode, SetAttr};

const READ: OpenMode = OpenMode {
    read: true,
    write: false,
    truncate: false,
    sync: false,
    append: false,
    stamps_cached: false,
};

impl World {
    pub(super) fn snapshot(&self, name: &str) -> Ino {
        let mut taken = self.volume().snapshot(&[Dataset::ROOT], name, "").unwrap().snapshots;
        taken.remove(0).root
    }

    pub(super) fn destroy(&self, name: &str) -> Forget {
        self.volume().destroy_snapshots(&[(Dataset::ROOT, name)], false).unwrap()
    }

    pub(super) fn open_in(&self, dir: Ino, name: &str) -> (Ino, Handle) {
        let ino = self.volume().lookup(dir, name.as_bytes()).unwrap().ino;
        (ino, self.volume().open(&ROOT, ino, READ, self.wait()).unwrap())
    }

    pub(super) fn content_in(&self, dir: Ino, name: &str) -> Vec<u8> {
        let file = self.open_in(dir, name);
        let bytes = self.read(file, 0, u32::MAX).to_vec();
        self.volume().release(file.0, file.1);
        bytes
    }

    /// Blocks that are left when all that can be freed is.
    fn blocks_left(&self) -> usize {
        let volume = self.volume();
        volume.sync().unwrap();
        volume.sweeper.rest();
        volume.files.free_unreferenced().unwrap();
        self.blocks.len()
    }

    /// Sooner or later so many blocks are left: threads may hold one for a moment.
    pub(super) fn assert_blocks(&self, expected: usize) {
        for _ in 0..500 {
            if self.blocks_left() == expected {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(self.blocks_left(), expected);
    }
}

fn bytes(seed: u8, len: u64) -> Vec<u8> {
    (0..len).map(|n| seed.wrapping_add((n % 251) as u8)).collect()
}

/// The errors of all calls through an old handle.
fn assert_stale(world: &World, (ino, handle): (Ino, Handle)) {
    let (volume, wait) = (world.volume(), world.wait());
    let late = volume.write(&ROOT, ino, handle, 0, b"late", false, false, wait);
    assert!(matches!(late, Err(FsError::Stale)), "{late:?}");
    let from_cache = volume.write(&ROOT, ino, handle, 0, b"late", true, false, Wait::No);
    assert!(matches!(from_cache, Err(FsError::Stale)), "{from_cache:?}");
    assert!(matches!(volume.read(ino, handle, 0, 10, wait), Err(FsError::Stale)));
    assert!(matches!(volume.fsync(ino, handle, false, wait), Err(FsError::Stale)));
    assert!(matches!(volume.flush(ino, handle, wait), Err(FsError::Stale)));
    let hole = volume.lseek(ino, handle, 0, crate::types::Seek::Hole);
    assert!(matches!(hole, Err(FsError::Stale)));
    let punch = volume.fallocate(&ROOT, ino, handle, 0, 1, Fallocate::PunchHole, wait);
    assert!(matches!(punch, Err(FsError::Stale)));
    assert!(matches!(volume.getattr(ino), Err(FsError::Stale)));
    let size = SetAttr { size: Some(1), ..SetAttr::default() };
    assert!(matches!(volume.setattr(&ROOT, ino, &size, wait), Err(FsError::Stale)));
    volume.release(ino, handle);
}

#[test]
fn a_snapshot_has_what_was_never_synced_and_does_not_change() {
    let world = World::new();
    let small = world.create("small");
    let large = world.create("large");
    world.write(small, 0, b"before");
    world.write(large, 0, &bytes(1, 3 * SLOT_LEN + 17));
    let root = world.snapshot("s");
    world.write(small, 0, b"behind the snapshot");
    world.write(large, SLOT_LEN / 2, &bytes(2, SLOT_LEN));
    world.create("new");
    world.volume().unlink(Ino::ROOT, b"small").unwrap();
    let check = |world: &World| {
        assert_eq!(world.content_in(root, "small"), b"before");
        assert_eq!(world.content_in(root, "large"), bytes(1, 3 * SLOT_LEN + 17));
        assert!(matches!(world.volume().lookup(root, b"new"), Err(FsError::NotFound)));
    };
    check(&world);
    // Blocks that only the snapshot names are read and kept.
    world.blocks_left();
    check(&world);
    let mut world = world;
    world.crash();
    check(&world);
    world.lose_power();
    check(&world);
}

#[test]
fn files_in_a_snapshot_have_numbers_of_their_own() {
    let world = World::new();
    let (live, _) = world.create("a");
    let one = world.snapshot("one");
    let two = world.snapshot("two");
    let volume = world.volume();
    let mut seen = vec![live, Ino::ROOT, one, two];
    seen.extend([one, two].map(|root| volume.lookup(root, b"a").unwrap().ino));
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 6);
}

#[test]
fn destroying_all_snapshots_gives_back_every_block() {
    let world = World::new();
    let file = world.create("a");
    world.write(file, 0, &bytes(0, 2 * SLOT_LEN));
    let before = world.blocks_left();
    for round in 1..5 {
        world.snapshot(&format!("s{round}"));
        world.write(file, 0, &bytes(round, 2 * SLOT_LEN));
        let (ino, handle) = world.create(&format!("b{round}"));
        world.write((ino, handle), 0, &bytes(round, SLOT_LEN));
        world.volume().sync().unwrap();
        world.volume().unlink(Ino::ROOT, format!("b{round}").as_bytes()).unwrap();
        world.volume().release(ino, handle);
        world.volume().forget(ino, 1);
    }
    assert!(world.blocks_left() >= before + 8);
    for round in [2, 1, 4, 3] {
        drop(world.destroy(&format!("s{round}")));
    }
    world.assert_blocks(before);
    assert_eq!(world.content("a"), bytes(4, 2 * SLOT_LEN));
}

#[test]
fn a_sweep_that_was_cut_short_goes_on_at_the_next_open() {
    let mut world = World::new();
    let file = world.create("a");
    world.write(file, 0, &bytes(0, SLOT_LEN));
    let before = world.blocks_left();
    world.snapshot("s");
    world.write(file, 0, &bytes(1, SLOT_LEN));
    world.assert_blocks(before + 1);
    world.volume().sweeper.stop();
    drop(world.destroy("s"));
    world.crash();
    world.assert_blocks(before);
}

#[test]
fn handles_in_a_destroyed_snapshot_are_stale() {
    let world = World::new();
    let file = world.create("a");
    world.write(file, 0, &bytes(0, SLOT_LEN));
    let root = world.snapshot("s");
    let old = world.open_in(root, "a");
    assert_eq!(world.read(old, 0, 10), bytes(0, 10));
    world.write(file, 0, &bytes(1, SLOT_LEN));
    world.volume().sync().unwrap();
    let forget = world.destroy("s");
    assert!(forget.inodes.contains(&old.0), "{forget:?}");
    let outcome = world.volume().read(old.0, old.1, 0, 10, world.wait());
    assert!(matches!(outcome, Err(FsError::Stale)), "{outcome:?}");
    assert!(matches!(world.volume().lookup(root, b"a"), Err(FsError::Stale)));
    world.volume().release(old.0, old.1);
    world.volume().forget(old.0, 1);
    assert_eq!(world.content("a"), bytes(1, SLOT_LEN));
}

#[test]
fn a_rollback_brings_back_the_snapshot_and_makes_the_rest_stale() {
    let world = World::new();
    let file = world.create("a");
    world.write(file, 0, b"then");
    world.snapshot("s");
    let before = world.blocks_left();
    let new = world.create("new");
    world.write(new, 0, &bytes(1, SLOT_LEN));
    world.write(file, 0, &bytes(2, 2 * SLOT_LEN));
    world.volume().sync().unwrap();
    world.write(file, 10, b"never committed");
    let forget = world.volume().rollback(Dataset::ROOT, "s", false).unwrap();
    assert!(forget.inodes.contains(&file.0) && forget.inodes.contains(&Ino::ROOT), "{forget:?}");
    let entry = |name: &[u8]| (Ino::ROOT, name.to_vec());
    assert!(forget.entries.contains(&entry(b"a")) && forget.entries.contains(&entry(b"new")));
    assert_eq!(forget.listings, [Ino::ROOT]);
    assert_eq!(world.content("a"), b"then");
    assert!(matches!(world.volume().lookup(Ino::ROOT, b"new"), Err(FsError::NotFound)));
    assert_stale(&world, file);
    assert_stale(&world, new);
    // Late data is nowhere, and the volume goes on.
    world.volume().sync().unwrap();
    assert_eq!(world.content("a"), b"then");
    let again = world.open_file("a");
    world.write(again, 4, b" and now");
    world.volume().sync().unwrap();
    assert_eq!(world.content("a"), b"then and now");
    world.write(again, 0, b"then");
    world
        .volume()
        .setattr(&ROOT, again.0, &SetAttr { size: Some(4), ..SetAttr::default() }, world.wait())
        .unwrap();
    assert!(world.blocks_left() <= before + 1);
    assert!(world.volume().read_only_reason().is_none());
}

#[test]
fn a_rollback_in_the_way_of_newer_snapshots_changes_nothing() {
    let world = World::new();
    let file = world.create("a");
    world.write(file, 0, b"one");
    world.snapshot("one");
    world.snapshot("two");
    world.write(file, 0, b"six");
    let refused = world.volume().rollback(Dataset::ROOT, "one", false);
    assert!(matches!(refused, Err(TreeError::InTheWay(names)) if names == ["two"]));
    // What was written and not committed is still there.
    assert_eq!(world.read(file, 0, 10), &b"six"[..]);
    drop(world.volume().rollback(Dataset::ROOT, "one", true).unwrap());
    assert_eq!(world.content("a"), b"one");
    assert_stale(&world, file);
}

#[test]
fn what_is_not_there_is_refused_by_its_name() {
    let world = World::new();
    let (volume, nobody) = (world.volume(), Dataset(99));
    let snapshot = volume.snapshot(&[nobody], "s", "");
    assert!(matches!(snapshot, Err(TreeError::NoDataset)), "{snapshot:?}");
    let rollback = volume.rollback(nobody, "s", false);
    assert!(matches!(rollback, Err(TreeError::NoDataset)), "{rollback:?}");
    let destroy = volume.destroy_datasets(&[nobody], true);
    assert!(matches!(destroy, Err(TreeError::NoDataset)), "{destroy:?}");
    let rollback = volume.rollback(Dataset::ROOT, "s", false);
    assert!(matches!(rollback, Err(TreeError::NoSnapshot(_))), "{rollback:?}");
    let destroy = volume.destroy_snapshots(&[(Dataset::ROOT, "s")], false);
    assert!(matches!(destroy, Err(TreeError::NoSnapshot(_))), "{destroy:?}");
    // The root dataset cannot go; its files stay in use.
    let file = world.create("a");
    assert!(volume.destroy_datasets(&[Dataset::ROOT], true).is_err());
    world.write(file, 0, b"x");
    assert_eq!(world.content("a"), b"x");
}

#[test]
fn a_snapshot_that_cannot_be_written_back_is_not_taken() {
    let world = World::new();
    let file = world.create("a");
    world.blocks.fail_appends(Some(|| firn_tiering::Error::NoSpace));
    world.write(file, 0, &bytes(1, SLOT_LEN));
    let refused = world.volume().snapshot(&[Dataset::ROOT], "s", "");
    assert!(matches!(refused, Err(TreeError::Fs(FsError::NoSpace))), "{refused:?}");
    assert!(world.volume().names().snapshots(Dataset::ROOT).unwrap().is_empty());
    world.blocks.fail_appends(None);
    world.write(file, 0, b"x");
    world.snapshot("s");
}

/// A writer that waits for memory does not keep a snapshot from being taken.
#[test]
fn a_writer_that_waits_for_memory_holds_nothing() {
    let world = World::with_budget(4 << 20);
    let file = world.create("a");
    let all = world.budget.try_acquire(4 << 20).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            world.write(file, 0, b"at last");
            done.store(true, Ordering::SeqCst);
        });
        std::thread::sleep(Duration::from_millis(50));
        let root = world.snapshot("s");
        assert!(!done.load(Ordering::SeqCst), "the writer did not have to wait");
        assert!(world.content_in(root, "a").is_empty());
        drop(all);
        writer.join().unwrap();
    });
    assert_eq!(world.content("a"), b"at last");
}

/// Ends loops of threads, also when an assertion fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Two files are always written one after the other: no snapshot has the second without the first,
/// and none has part of a write.
#[test]
fn concurrent_writes_are_wholly_in_or_out() {
    const LEN: u64 = 64 << 10;
    let settings =
        FileSettings { flush_interval: Duration::from_millis(1), ..super::fake::quiet() };
    let world = World::with(64 << 20, settings);
    let files = [world.create("first"), world.create("second")];
    for file in files {
        world.write(file, 0, &vec![0; LEN as usize]);
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0u8;
            while !stop.load(Ordering::SeqCst) {
                round = round.wrapping_add(1) % 200;
                for file in files {
                    world.write(file, 0, &vec![round; LEN as usize]);
                }
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let made = world.volume().create(&ROOT, Ino::ROOT, b"made", 0o644, 0, READ_WRITE);
                let (attr, handle) = made.unwrap();
                world.volume().unlink(Ino::ROOT, b"made").unwrap();
                world.volume().release(attr.ino, handle);
                world.volume().forget(attr.ino, 1);
            }
        });
        let _stop = Stop(&stop);
        for n in 0..40 {
            let root = world.snapshot(&format!("s{n}"));
            let first = world.content_in(root, "first");
            let second = world.content_in(root, "second");
            assert!(first.iter().all(|byte| *byte == first[0]), "torn");
            assert!(second.iter().all(|byte| *byte == second[0]), "torn");
            let ahead = (i16::from(first[0]) - i16::from(second[0])).rem_euclid(200);
            assert!(ahead <= 1, "{} before {}", second[0], first[0]);
            std::thread::sleep(Duration::from_millis(2));
        }
    });
}

/// Rolling back while programs write: each write succeeds or is stale, and what is there
/// afterwards is what the snapshot had.
#[test]
fn writers_during_a_rollback_are_stale() {
    let settings =
        FileSettings { flush_interval: Duration::from_millis(1), ..super::fake::quiet() };
    let world = World::with(64 << 20, settings);
    let file = world.create("a");
    world.write(file, 0, &bytes(7, SLOT_LEN));
    world.snapshot("s");
    world.volume().release(file.0, file.1);
    for _ in 0..20 {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let file = world.open_file("a");
            let stop = &stop;
            let world = &world;
            let writer = scope.spawn(move || {
                for n in 0..u64::MAX {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let (ino, handle, wait) = (file.0, file.1, world.wait());
                    let offset = (n * 4096) % (2 * SLOT_LEN);
                    let data = bytes(n as u8, 5000);
                    match world
                        .volume()
                        .write(&ROOT, ino, handle, offset, &data, false, false, wait)
                    {
                        Ok(_) => {}
                        Err(FsError::Stale) => break,
                        Err(error) => panic!("{error:?}"),
                    }
                }
                world.volume().release(file.0, file.1);
            });
            let on_panic = Stop(stop);
            std::thread::sleep(Duration::from_millis(5));
            drop(world.volume().rollback(Dataset::ROOT, "s", false).unwrap());
            writer.join().unwrap();
            drop(on_panic);
        });
        assert_eq!(world.content("a"), bytes(7, SLOT_LEN));
        assert!(world.volume().read_only_reason().is_none());
    }
    world.assert_blocks(1);
}

#[test]
fn files_without_a_name_go_again_after_a_rollback() {
    let world = World::new();
    let before = world.blocks_left();
    let file = world.create("a");
    world.write(file, 0, &bytes(1, SLOT_LEN));
    world.volume().unlink(Ino::ROOT, b"a").unwrap();
    // In use, so that the snapshot has it.
    world.snapshot("s");
    drop(world.volume().rollback(Dataset::ROOT, "s", false).unwrap());
    assert_stale(&world, file);
    world.volume().forget(file.0, 1);
    drop(world.destroy("s"));
    world.volume().purger.finish();
    world.assert_blocks(before);
}
