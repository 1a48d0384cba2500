//! Which files of a volume are thawed, and what becomes of their copies.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use firn_tiering::Wait;

use super::fake::{ROOT, World};
use crate::core::Core;
use crate::error::FsError;
use crate::thaw::{HotRoom, Plain, ThawCounts, ThawMode, ThawSettings};
use crate::types::{Ino, OpenMode};

const CAPACITY: u64 = 64 << 20;
const LEN: usize = 1 << 20;

struct Thawing {
    world: World,
    counts: Arc<ThawCounts>,
    used: Arc<AtomicU64>,
    _dir: tempfile::TempDir,
}

impl Thawing {
    fn new(mode: ThawMode, is_read_only: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (counts, used) = (Arc::<ThawCounts>::default(), Arc::<AtomicU64>::default());
        let (thawed, others) = (Arc::clone(&counts), Arc::clone(&used));
        let room = move || HotRoom {
            capacity: CAPACITY,
            used: others.load(Ordering::Relaxed) + thawed.bytes(),
            low: CAPACITY / 10 * 8,
            high: CAPACITY / 10 * 9,
            is_awaited: false,
        };
        let mut world = World::new();
        world.thaw(ThawSettings {
            dir: dir.path().to_owned(),
            mode,
            is_read_only,
            room: Arc::new(room),
            counts: Arc::clone(&counts),
        });
        Self { world, counts, used, _dir: dir }
    }

    /// A file and a snapshot that holds it: its number there.
    fn file_in_snapshot(&self, byte: u8, len: usize) -> (Ino, Ino) {
        let world = &self.world;
        let file = world.create("f");
        world.write(file, 0, &vec![byte; len]);
        world.fsync(file).unwrap();
        world.volume().release(file.0, file.1);
        let root = world.snapshot("s");
        (file.0, world.volume().lookup(root, b"f").unwrap().ino)
    }

    fn plain(&self, ino: Ino) -> Option<Arc<Plain>> {
        self.world.volume().plain(ino, self.world.wait()).unwrap()
    }

    fn wait_until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..2000 {
            if done(self) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{what}: {:?}", self.counts.now());
    }
}

fn bytes_of(plain: &Plain) -> Vec<u8> {
    let mut bytes = vec![0; plain.file().metadata().unwrap().len() as usize];
    plain.file().read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn only_what_nothing_can_change_is_thawed() {
    let thawing = Thawing::new(ThawMode::Always, false);
    let (live, frozen) = thawing.file_in_snapshot(b'a', LEN);
    assert!(thawing.plain(live).is_none());
    let without_waiting = thawing.world.volume().plain(frozen, Wait::No);
    assert!(matches!(without_waiting, Err(FsError::WouldWait)));
    let plain = thawing.plain(frozen).unwrap();
    let file = thawing.world.open_file("f");
    thawing.world.write(file, 0, b"changed");
    assert_eq!(bytes_of(&plain), vec![b'a'; LEN]);
    assert!(Arc::ptr_eq(&plain, &thawing.plain(frozen).unwrap()), "made once");
    assert_eq!((thawing.counts.now().files, thawing.counts.bytes()), (1, LEN as u64));
    thawing.world.volume().release(file.0, file.1);

    let unchangeable = Thawing::new(ThawMode::Always, true);
    let (live, _) = unchangeable.file_in_snapshot(b'b', LEN);
    assert_eq!(bytes_of(&unchangeable.plain(live).unwrap()), vec![b'b'; LEN]);
}

#[test]
fn copies_stay_within_their_share_and_leave_when_space_is_short() {
    let thawing = Thawing::new(ThawMode::Always, false);
    let (_, frozen) = thawing.file_in_snapshot(b'a', LEN);
    thawing.used.store(CAPACITY / 10 * 8, Ordering::Relaxed);
    assert!(thawing.plain(frozen).is_none(), "no room below the low mark");
    assert_eq!(thawing.counts.bytes(), 0);
    thawing.used.store(0, Ordering::Relaxed);
    let plain = thawing.plain(frozen).unwrap();
    thawing.used.store(CAPACITY, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(thawing.counts.now().files, 1, "it is open");
    drop(plain);
    thawing.wait_until("it goes", |thawing| thawing.counts.now().files == 0);
    assert_eq!(thawing.counts.now().damaged, 0);
}

#[test]
fn where_copies_cannot_be_used_those_there_are_go_and_none_is_made() {
    let thawing = Thawing::new(ThawMode::Always, false);
    let (_, frozen) = thawing.file_in_snapshot(b'a', LEN);
    drop(thawing.plain(frozen).unwrap());
    thawing.world.volume().end_plain();
    thawing.wait_until("it goes", |thawing| thawing.counts.now().files == 0);
    assert!(thawing.plain(frozen).is_none());
}

#[test]
fn a_copy_that_was_written_to_is_told_of_and_never_given_out() {
    let thawing = Thawing::new(ThawMode::Always, false);
    let (_, frozen) = thawing.file_in_snapshot(b'a', LEN);
    let plain = thawing.plain(frozen).unwrap();
    plain.file().write_all_at(b"b", 4096).unwrap();
    assert!(thawing.plain(frozen).is_none());
    drop(plain);
    thawing.wait_until("it is put back", |thawing| thawing.counts.now().damaged == 1);
    let again = thawing.plain(frozen).unwrap();
    assert_eq!(bytes_of(&again), vec![b'a'; LEN]);
}

#[test]
fn a_copy_that_rots_while_it_is_read_is_found_out_within_the_hour_and_told_once() {
    let thawing = Thawing::new(ThawMode::Always, false);
    let (_, frozen) = thawing.file_in_snapshot(b'a', LEN);
    let plain = thawing.plain(frozen).unwrap();
    plain.file().write_all_at(b"b", 4096).unwrap();
    thawing.world.clock.advance(Duration::from_secs(3600));
    thawing.wait_until("it is compared", |thawing| thawing.counts.now().damaged == 1);
    assert!(plain.is_damaged() && thawing.plain(frozen).is_none());
    drop(plain);
    thawing.wait_until("it is put back", |thawing| thawing.counts.now().files == 0);
    assert_eq!(thawing.counts.now().damaged, 1);
}

#[test]
fn a_destroyed_snapshot_takes_its_copies_along_and_so_does_the_end() {
    let thawing = Thawing::new(ThawMode::Always, false);
    let (_, frozen) = thawing.file_in_snapshot(b'a', LEN);
    drop(thawing.plain(frozen).unwrap());
    let _forget = thawing.world.destroy("s");
    thawing.wait_until("it goes", |thawing| thawing.counts.now().files == 0);

    let root = thawing.world.snapshot("t");
    let other = thawing.world.volume().lookup(root, b"f").unwrap().ino;
    drop(thawing.plain(other).unwrap());
    assert_eq!(thawing.counts.now().files, 1);
    thawing.world.volume().close().unwrap();
    assert_eq!(thawing.counts.now().files, 0);
}

#[test]
fn random_reads_have_a_file_thawed_and_reads_in_order_do_not() {
    let thawing = Thawing::new(ThawMode::Auto, false);
    let (_, frozen) = thawing.file_in_snapshot(b'a', LEN);
    let (world, volume) = (&thawing.world, thawing.world.volume());
    let mode = OpenMode { read: true, ..OpenMode::default() };
    let handle = volume.open(&ROOT, frozen, mode, world.wait()).unwrap();
    for at in 0..400 {
        world.read((frozen, handle), at * 4096 % LEN as u64, 4096);
    }
    std::thread::sleep(Duration::from_millis(100));
    assert!(thawing.plain(frozen).is_none());
    for at in 0..400 {
        world.read((frozen, handle), at * 7 * 4096 % LEN as u64, 4096);
    }
    thawing.wait_until("it is thawed", |thawing| thawing.plain(frozen).is_some());
    volume.release(frozen, handle);
}
