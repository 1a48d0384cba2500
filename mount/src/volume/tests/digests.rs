//! Digests of whole files: when they are there, and that they are never those of other content.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use firn_tiering::{BlockRef, Clock};

use super::fake::{READ_WRITE, ROOT, World};
use crate::core::Core;
use crate::error::{FsError, FsResult};
use crate::file::SLOT_LEN;
use crate::namespace::{ContentSource, Dataset, Durability, Inode};
use crate::types::{Caller, Fallocate, Handle, Ino, OpenMode, SetAttr, SetTime, XattrMode};

const NAME: &[u8] = b"user.firn.blake3";

fn content(len: u64) -> Vec<u8> {
    (0..len).map(|n| (n * n % 251) as u8).collect()
}

impl World {
    /// A closed file of which everything is committed.
    fn put(&self, name: &str, data: &[u8]) -> Ino {
        let (ino, handle) = self.create(name);
        self.write((ino, handle), 0, data);
        self.volume().release(ino, handle);
        self.volume().files.flush_all().unwrap();
        ino
    }

    fn digest_all(&self) -> usize {
        self.volume().digester.pass(Duration::ZERO).unwrap()
    }

    /// What programs are shown.
    fn shown_digest(&self, ino: Ino) -> Option<String> {
        match self.volume().getxattr(ino, NAME) {
            Ok(value) => Some(String::from_utf8(value).unwrap()),
            Err(FsError::NoAttribute) => None,
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Verifies a snapshot with all bytes of its files, read as they are here.
    #[track_caller]
    pub(super) fn assert_verified(&self, dataset: Dataset, name: &str) {
        let mut content = AtHand(self);
        let names = self.volume().names();
        let proof = names.prove((dataset, name), Some(&mut content), &mut |_| true).unwrap();
        assert_eq!((&proof.flaws[..], proof.unread), (&[][..], 0), "{name}");
        assert!(proof.seal.is_some() && proof.root == proof.seal.map(|seal| seal.root), "{name}");
    }

    fn waiting(&self) -> usize {
        self.volume().names().undigested(None, usize::MAX).unwrap().inodes.len()
    }

    #[track_caller]
    fn assert_right(&self, name: &str) {
        let ino = self.volume().lookup(Ino::ROOT, name.as_bytes()).unwrap().ino;
        assert_eq!(self.shown_digest(ino), Some(hex(&self.content(name))), "{name}");
        self.volume().forget(ino, 1);
    }
}

/// Reads what lies hot.
struct AtHand<'a>(&'a World);

impl ContentSource for AtHand<'_> {
    fn bytes(&mut self, block: &BlockRef, range: Range<u32>) -> FsResult<Option<Bytes>> {
        Ok(self.0.volume().files.bytes_at_hand(block, range))
    }

    fn goes_on(&mut self) -> bool {
        true
    }
}

fn hex(data: &[u8]) -> String {
    blake3::hash(data).to_hex().to_string()
}

#[test]
fn a_file_that_came_to_rest_has_the_digest_of_its_content() {
    let world = World::new();
    for (name, len) in [("a", 1), ("b", 70_000), ("c", SLOT_LEN), ("d", 3 * SLOT_LEN + 5)] {
        let ino = world.put(name, &content(len));
        assert_eq!(world.shown_digest(ino), None);
    }
    assert_eq!((world.waiting(), world.digest_all(), world.waiting()), (4, 4, 0));
    for name in ["a", "b", "c", "d"] {
        world.assert_right(name);
    }
    world.put("empty", b"");
    world.assert_right("empty");
    let dir = world.volume().mkdir(&ROOT, Ino::ROOT, b"dir", 0o755, 0).unwrap();
    assert_eq!(world.shown_digest(dir.ino), None);
}

#[test]
fn holes_and_what_was_allocated_count_as_zeros() {
    let world = World::new();
    let (ino, handle) = world.create("a");
    let (volume, wait) = (world.volume(), world.wait());
    world.write((ino, handle), 2 * SLOT_LEN + 100, b"middle");
    let keep = Fallocate::Allocate { keep_size: true };
    volume.fallocate(&ROOT, ino, handle, SLOT_LEN, 9 * SLOT_LEN, keep, wait).unwrap();
    let changes = SetAttr { size: Some(5 * SLOT_LEN + 9), ..SetAttr::default() };
    volume.setattr(&ROOT, ino, &changes, wait).unwrap();
    volume.release(ino, handle);
    volume.files.flush_all().unwrap();
    assert_eq!(world.digest_all(), 1);
    world.assert_right("a");
}

/// A way of changing a file of 100,000 bytes.
type Change = fn(&World, (Ino, Handle));

const CHANGES: [(&str, Change); 9] = [
    ("a write", |world, file| world.write(file, 17, b"x")),
    ("the same bytes", |world, file| world.write(file, 0, &content(4))),
    ("an append", |world, file| world.write(file, 100_000, b"x")),
    ("a synced write", |world, file| {
        world.write(file, 17, b"x");
        world.fsync(file).unwrap();
    }),
    ("a shorter size", |world, file| resize(world, file, 50)),
    ("a longer size", |world, file| resize(world, file, 200_000)),
    ("a hole", |world, (ino, handle)| {
        let what = Fallocate::PunchHole;
        world.volume().fallocate(&ROOT, ino, handle, 9, 9, what, world.wait()).unwrap();
    }),
    ("zeros", |world, (ino, handle)| {
        let what = Fallocate::ZeroRange { keep_size: true };
        world.volume().fallocate(&ROOT, ino, handle, 9, 9, what, world.wait()).unwrap();
    }),
    ("a copied range", |world, (ino, handle)| {
        let from = (ino, handle, 40_000);
        let to = (ino, handle, 0);
        world.volume().copy_file_range(&ROOT, from, to, 1000, world.wait()).unwrap();
    }),
];

fn resize(world: &World, (ino, _): (Ino, Handle), size: u64) {
    let changes = SetAttr { size: Some(size), ..SetAttr::default() };
    world.volume().setattr(&ROOT, ino, &changes, world.wait()).unwrap();
}

#[test]
fn every_change_of_content_takes_the_digest_away() {
    for (what, change) in CHANGES {
        let world = World::new();
        let ino = world.put("a", &content(100_000));
        world.digest_all();
        let old = world.shown_digest(ino).expect(what);
        let file = world.open_file("a");
        assert_eq!(world.shown_digest(ino), None, "who may write has it open, {what}");
        change(&world, file);
        world.volume().release(ino, file.1);
        assert_eq!(
            world.shown_digest(ino).filter(|shown| *shown == old),
            None,
            "uncommitted: {what}"
        );
        world.volume().files.flush_all().unwrap();
        assert_eq!((world.shown_digest(ino), world.waiting()), (None, 1), "{what}");
        assert_eq!(world.digest_all(), 1, "{what}");
        world.assert_right("a");
    }
}

#[test]
fn opening_to_truncate_takes_it_away() {
    let world = World::new();
    let ino = world.put("a", &content(5000));
    world.digest_all();
    let mode = OpenMode { truncate: true, ..READ_WRITE };
    let handle = world.volume().open(&ROOT, ino, mode, world.wait()).unwrap();
    world.volume().release(ino, handle);
    assert_eq!(
        world.shown_digest(ino),
        None,
        "the old one may not show, nor that of what may be lost"
    );
    world.volume().files.flush_all().unwrap();
    world.assert_right("a");
    assert_eq!((world.digest_all(), world.waiting()), (0, 0), "nothing is left to wait for");
}

#[test]
fn nothing_else_takes_it_away_and_computing_it_changes_nothing_else() {
    let world = World::new();
    let ino = world.put("a", &content(5000));
    let volume = world.volume();
    let before = volume.getattr(ino).unwrap();
    world.clock.advance(Duration::from_secs(9));
    world.digest_all();
    assert_eq!(volume.getattr(ino).unwrap(), before);
    let shown = world.shown_digest(ino);
    assert_eq!(shown, Some(hex(&content(5000))));
    let someone = Caller { uid: 7, gid: 7, pid: 0 };
    let time = SetTime::At(world.clock.now());
    let changes = SetAttr { perm: Some(0o600), mtime: Some(time), ..SetAttr::default() };
    volume.setattr(&someone, ino, &changes, world.wait()).unwrap();
    volume.setxattr(&ROOT, ino, b"user.x", b"1", XattrMode::Set).unwrap();
    volume.link(ino, Ino::ROOT, b"b").unwrap();
    let mode = crate::types::RenameMode::Replace;
    let (from, to) = ((Ino::ROOT, b"a"), (Ino::ROOT, b"c"));
    volume.rename(from.0, from.1, to.0, to.1, mode, world.wait()).unwrap();
    volume.unlink(Ino::ROOT, b"b").unwrap();
    volume.files.flush_all().unwrap();
    assert_eq!((world.shown_digest(ino), world.waiting()), (shown, 0));
}

#[test]
fn it_is_shown_in_no_listing_and_cannot_be_set() {
    let world = World::new();
    let ino = world.put("a", b"content");
    world.digest_all();
    assert_eq!(world.volume().listxattr(ino).unwrap(), Vec::<Vec<u8>>::new());
    let set = world.volume().setxattr(&ROOT, ino, NAME, b"0", XattrMode::Set);
    assert!(matches!(set, Err(FsError::NotSupported(_))), "{set:?}");
    world.assert_right("a");
}

#[test]
fn a_file_waits_until_it_is_closed_quiet_and_hot() {
    let world = World::new();
    let file = world.create("a");
    world.write(file, 0, &content(5000));
    world.volume().files.flush_all().unwrap();
    assert_eq!(world.digest_all(), 0, "somebody may write to it");
    world.volume().release(file.0, file.1);
    let quiet = Duration::from_secs(10);
    let pass = || world.volume().digester.pass(quiet).unwrap();
    world.clock.advance(Duration::from_secs(9));
    assert_eq!(pass(), 0, "it changed a moment ago");
    world.clock.advance(Duration::from_secs(2));
    assert_eq!(pass(), 1);
    world.put("b", &content(5000));
    world.blocks.set_cold(true);
    assert_eq!(world.digest_all(), 0, "nothing is fetched");
    world.blocks.set_cold(false);
    let ino = world.volume().lookup(Ino::ROOT, b"b").unwrap().ino;
    assert_eq!((world.shown_digest(ino), world.waiting()), (None, 1));
}

#[test]
fn damage_is_left_to_who_reads_and_the_file_stays_without() {
    let mut world = World::new();
    let ino = world.put("a", &content(5000));
    world.put("b", &content(6000));
    world.blocks.damage_all();
    assert_eq!(world.digest_all(), 0);
    let c = world.put("c", &content(7000));
    assert_eq!(world.digest_all(), 1, "others are not held up");
    assert_eq!(world.shown_digest(ino), None);
    assert_eq!(world.shown_digest(c), Some(hex(&content(7000))));
    world.crash();
    assert_eq!((world.digest_all(), world.waiting()), (0, 2));
}

/// Time stands still in these, so that no time tells a change.
#[test]
fn what_changes_while_it_is_read_is_not_stored() {
    for (what, change) in CHANGES {
        let world = World::new();
        let ino = world.put("a", &content(100_000));
        let names = world.volume().names();
        names.begin_digest(ino).unwrap().unwrap();
        assert!(names.is_digest_wanted());
        let file = world.open_file("a");
        change(&world, file);
        world.volume().release(ino, file.1);
        world.volume().files.flush_all().unwrap();
        assert!(!names.is_digest_wanted(), "{what}");
        assert!(!names.end_digest(ino, blake3::hash(b"stale")).unwrap(), "{what}");
        assert_eq!((world.shown_digest(ino), world.digest_all()), (None, 1), "{what}");
        world.assert_right("a");
    }
}

#[test]
fn what_goes_while_it_is_read_is_not_stored() {
    let world = World::new();
    let ino = world.put("a", &content(5000));
    let snapshot = world.snapshot("s");
    let names = world.volume().names();
    names.begin_digest(ino).unwrap().unwrap();
    drop(world.volume().rollback(Dataset::ROOT, "s", false).unwrap());
    assert!(!names.end_digest(ino, blake3::hash(b"stale")).unwrap());
    let ino = world.volume().lookup(Ino::ROOT, b"a").unwrap().ino;
    assert!(names.begin_digest(snapshot).unwrap().is_none(), "a snapshot never changes");
    names.begin_digest(ino).unwrap().unwrap();
    world.volume().forget(ino, 1);
    world.volume().unlink(Ino::ROOT, b"a").unwrap();
    world.volume().purger.settle(Duration::from_secs(60));
    assert!(!names.end_digest(ino, blake3::hash(b"stale")).unwrap());
    assert_eq!(world.waiting(), 0);
}

#[test]
fn a_snapshot_keeps_the_digest_that_it_was_taken_with() {
    let world = World::new();
    let ino = world.put("a", &content(5000));
    world.digest_all();
    world.put("late", &content(100));
    let before = world.snapshot("before");
    let file = world.open_file("a");
    world.write(file, 0, b"new");
    world.volume().release(file.0, file.1);
    world.volume().files.flush_all().unwrap();
    assert_eq!(world.digest_all(), 2);
    let in_snapshot = world.volume().lookup(before, b"a").unwrap().ino;
    assert_eq!(world.shown_digest(in_snapshot), Some(hex(&content(5000))));
    let late = world.volume().lookup(before, b"late").unwrap().ino;
    assert_eq!(world.shown_digest(late), Some(hex(&content(100))), "it is the same version");
    assert_ne!(world.shown_digest(ino), world.shown_digest(in_snapshot));
    let mut digests = Vec::new();
    let names = world.volume().names();
    names
        .for_each_digest(&mut |inode: &Inode| {
            digests.push((inode.ino, inode.digest.unwrap().to_hex().to_string()));
            Ok(())
        })
        .unwrap();
    assert_eq!(digests.len(), 3);
    assert!(digests.contains(&(in_snapshot, hex(&content(5000)))));
    assert!(digests.contains(&(ino, world.shown_digest(ino).unwrap())));
}

#[test]
fn a_digest_is_no_change_between_snapshots() {
    let world = World::new();
    world.put("a", &content(5000));
    let before = world.snapshot("before");
    let space = |world: &World| world.volume().names().dataset_space(Dataset::ROOT).unwrap();
    let written = space(&world);
    assert_eq!(world.digest_all(), 1);
    assert_eq!(space(&world), written);
    let after = world.snapshot("after");
    for newer in [after, Ino::ROOT] {
        let mut found = Vec::new();
        let names = world.volume().names();
        names
            .diff(before, newer, &mut |difference| {
                found.push(difference.clone());
                true
            })
            .unwrap();
        assert_eq!(found, []);
    }
    super::fake::assert_sound(world.volume());
}

#[test]
fn a_rollback_brings_digests_back_and_computes_what_was_missing() {
    let world = World::new();
    world.put("a", &content(5000));
    world.digest_all();
    world.put("b", &content(6000));
    world.snapshot("s");
    for name in ["a", "b"] {
        let file = world.open_file(name);
        world.write(file, 0, b"newer");
        world.volume().release(file.0, file.1);
    }
    world.put("c", &content(7000));
    world.volume().files.flush_all().unwrap();
    assert_eq!(world.digest_all(), 3);
    drop(world.volume().rollback(Dataset::ROOT, "s", false).unwrap());
    world.assert_right("a");
    assert_eq!((world.waiting(), world.digest_all(), world.waiting()), (1, 1, 0));
    world.assert_right("b");
}

#[test]
fn however_its_bytes_are_cut_the_digest_is_the_same() {
    let world = World::new();
    let file = world.create("a");
    for n in 0..100 {
        world.write(file, n * 5000, &content(5000));
        world.fsync(file).unwrap();
    }
    world.volume().release(file.0, file.1);
    world.digest_all();
    let cut = world.shown_digest(file.0);
    world.assert_right("a");
    world.volume().files.settle_some().unwrap();
    world.digest_all();
    assert_eq!(world.shown_digest(file.0), cut);
}

#[test]
fn after_a_crash_content_is_as_its_digest_says() {
    for synced in [false, true] {
        let mut world = World::new();
        let ino = world.put("a", &content(5000));
        world.digest_all();
        world.volume().sync().unwrap();
        let file = world.open_file("a");
        world.write(file, 0, b"new");
        if synced {
            world.fsync(file).unwrap();
        } else {
            world.volume().files.flush_all().unwrap();
        }
        world.lose_power();
        match synced {
            // Note and change are one batch, so that both are there or neither is.
            true => {
                assert_eq!(
                    (world.shown_digest(ino), world.waiting(), world.digest_all()),
                    (None, 1, 1)
                )
            }
            false => assert_eq!((world.waiting(), world.digest_all()), (0, 0)),
        }
        world.assert_right("a");
    }
}

#[test]
fn a_crash_before_the_digest_is_durable_leaves_the_note() {
    let mut world = World::new();
    let ino = world.put("a", &content(5000));
    world.volume().sync().unwrap();
    world.digest_all();
    world.lose_power();
    assert_eq!((world.shown_digest(ino), world.waiting(), world.digest_all()), (None, 1, 1));
    world.volume().sync().unwrap();
    world.lose_power();
    assert_eq!(world.waiting(), 0);
    world.assert_right("a");
}

#[test]
fn a_truncation_in_batches_takes_it_away_in_the_first() {
    let world = World::new();
    let ino = world.put("a", &content(2 * SLOT_LEN));
    world.digest_all();
    let names = world.volume().names();
    let guard = names.lock(&[ino]);
    let inode = Inode { size: 10, ..Inode::clone(&names.inode(ino).unwrap()) };
    let (stored, _) = names.truncate(inode, Durability::Buffered).unwrap();
    drop(guard);
    assert_eq!((stored.digest, world.waiting()), (None, 1));
}

#[test]
fn what_is_removed_leaves_no_note() {
    let world = World::new();
    let ino = world.put("a", &content(5000));
    world.volume().unlink(Ino::ROOT, b"a").unwrap();
    world.volume().forget(ino, 9);
    world.volume().purger.settle(Duration::from_secs(60));
    assert_eq!(world.waiting(), 0);
}

#[test]
fn a_snapshot_gets_its_digest_behind_the_scenes() {
    let world = World::new();
    world.put("a", &content(70_000));
    world.put("b", b"never read while it was live");
    let volume = world.volume();
    drop(volume.snapshot(&[Dataset::ROOT], "s", "").unwrap());
    // What changed since has another content in the snapshot.
    world.put("c", b"later");
    let file = world.open_file("a");
    world.write(file, 0, b"x");
    volume.release(file.0, file.1);
    volume.files.flush_all().unwrap();
    assert!(volume.digester.seal_snapshots().unwrap() > 0);
    world.assert_verified(Dataset::ROOT, "s");
    assert_eq!(volume.digester.seal_snapshots().unwrap(), 0);
    // The file that did not change has it as well now, and the other waits for its own.
    world.assert_right("b");
    assert_eq!(world.waiting(), 2);
}

#[test]
fn a_damaged_file_of_a_snapshot_is_not_read_again_and_again() {
    let world = World::new();
    world.put("a", &content(70_000));
    let volume = world.volume();
    drop(volume.snapshot(&[Dataset::ROOT], "s", "").unwrap());
    let file = world.open_file("a");
    world.write(file, 0, b"x");
    volume.release(file.0, file.1);
    volume.files.flush_all().unwrap();
    world.blocks.damage_all();
    for _ in 0..5 {
        volume.digester.seal_snapshots().unwrap();
    }
    assert_eq!(world.blocks.damaged_reads(), 1);
    let proof = volume.names().prove((Dataset::ROOT, "s"), None, &mut |_| true).unwrap();
    assert!(matches!(proof.pending, Some(crate::namespace::Pending::Files(1, _))), "{proof:?}");
    // It may have been mended since.
    world.clock.advance(Duration::from_secs(7 * 3600));
    for _ in 0..5 {
        volume.digester.seal_snapshots().unwrap();
    }
    assert_eq!(world.blocks.damaged_reads(), 2);
    world.blocks.mend_all();
    world.clock.advance(Duration::from_secs(7 * 3600));
    volume.digester.seal_snapshots().unwrap();
    world.assert_verified(Dataset::ROOT, "s");
}
