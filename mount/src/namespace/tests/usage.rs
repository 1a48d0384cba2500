//! What datasets and snapshots take.

use super::*;
use crate::namespace::record::{Usage, fresh};

const WHOLE: u64 = SLOT_LEN as u64;

/// Bytes used and written, and files, of a dataset.
fn space(world: &World, dataset: Dataset) -> (u64, u64, u64) {
    let space = world.ns.dataset_space(dataset).unwrap();
    (space.used / WHOLE, space.written / WHOLE, space.referenced.bytes / WHOLE)
}

fn take(world: &World, dataset: Dataset, name: &str) {
    world.ns.snapshot(&[dataset], name, "").unwrap();
}

fn sweep(world: &World) {
    while world.ns.sweep_some(100).unwrap().more {}
    world.assert_counted();
}

#[test]
fn bytes_in_common_are_the_same_ones_at_the_same_place() {
    let inline = |start, bytes: &'static [u8]| Piece {
        start,
        len: bytes.len() as u32,
        content: Content::Inline(Bytes::from_static(bytes)),
    };
    let unwritten = |start, len| Piece { start, len, content: Content::Unwritten };
    let cut = |start, len, number, offset| Piece {
        start,
        len,
        content: Content::Block { block: block(number), offset },
    };
    let old = [cut(0, 100, 1, 0), inline(100, b"abcd"), unwritten(200, 50)];
    assert_eq!(fresh(&old, &[]), 154);
    assert_eq!(fresh(&old, &old), 0);
    assert_eq!(fresh(&[], &old), 0);
    // The same block, cut in two around something new.
    assert_eq!(fresh(&[cut(0, 40, 1, 0), cut(40, 20, 2, 0), cut(60, 40, 1, 60)], &old), 20);
    assert_eq!(fresh(&[cut(0, 100, 1, 1)], &old), 100, "moved within the block");
    assert_eq!(fresh(&[cut(10, 100, 1, 10)], &old), 10, "beyond its old end");
    assert_eq!(fresh(&[inline(101, b"bc")], &old), 0);
    assert_eq!(fresh(&[inline(101, b"bx")], &old), 2);
    assert_eq!(fresh(&[unwritten(190, 100)], &old), 50);
    assert_eq!(fresh(&[cut(200, 50, 1, 0)], &old), 50);
}

#[test]
fn what_a_snapshot_keeps_counts_until_it_is_swept() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    world.write(file, 0, &[piece(0, SLOT_LEN, 0)]);
    world.write(file, 1, &[piece(0, SLOT_LEN, 1)]);
    take(&world, Dataset::ROOT, "a");
    assert_eq!(space(&world, Dataset::ROOT), (2, 0, 2));
    world.write(file, 0, &[piece(0, SLOT_LEN, 2)]);
    assert_eq!(space(&world, Dataset::ROOT), (3, 1, 2));
    world.write(file, 0, &[piece(0, SLOT_LEN, 3)]);
    assert_eq!(space(&world, Dataset::ROOT), (3, 1, 2), "nobody saw what was replaced");
    world.ns.unlink(Ino::ROOT, b"f").unwrap();
    assert_eq!(space(&world, Dataset::ROOT), (3, 1, 0));
    world.ns.purged(&[file]).unwrap();
    assert_eq!(space(&world, Dataset::ROOT), (2, 0, 0));
    let snapshot = world.ns.find_snapshot(Dataset::ROOT, "a").unwrap();
    assert_eq!(snapshot.referenced, Some(Referenced { bytes: 2 * WHOLE, files: 2 }));
    assert_eq!(world.ns.written(snapshot.root).unwrap(), 2 * WHOLE);
    world.ns.destroy_snapshots(&[(Dataset::ROOT, "a")], false).unwrap();
    sweep(&world);
    assert_eq!(space(&world, Dataset::ROOT), (0, 0, 0));
}

#[test]
fn a_destroyed_snapshot_leaves_what_was_written_to_the_next() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    for (number, name) in ["a", "b", "c"].iter().enumerate() {
        world.write(file, number as u64, &[piece(0, SLOT_LEN, number as u64)]);
        world.write(file, 9, &[piece(0, SLOT_LEN, 10 + number as u64)]);
        take(&world, Dataset::ROOT, name);
    }
    let written = |name| {
        let root = world.ns.snapshot_root(Dataset::ROOT, name).unwrap();
        world.ns.written(root).unwrap() / WHOLE
    };
    assert_eq!((written("a"), written("b"), written("c")), (2, 2, 2));
    world.ns.destroy_snapshots(&[(Dataset::ROOT, "b")], false).unwrap();
    sweep(&world);
    // Slot 9 as it was in "b" is gone.
    assert_eq!((written("a"), written("c")), (2, 3));
    world.ns.destroy_snapshots(&[(Dataset::ROOT, "c")], false).unwrap();
    sweep(&world);
    assert_eq!(space(&world, Dataset::ROOT), (5, 3, 4));
}

#[test]
fn a_clone_begins_with_nothing_and_takes_the_snapshots_when_promoted() {
    let world = World::new();
    let ns = &world.ns;
    let top = ns.create_dataset(&ROOT_CALLER, Ino::ROOT, b"top", 0o755, &[]).unwrap();
    let root = ns.lookup(Ino::ROOT, b"top").unwrap().ino;
    let file = world.file(root, "f");
    world.write(file, 0, &[piece(0, SLOT_LEN, 0)]);
    take(&world, top, "a");
    world.write(file, 1, &[piece(0, SLOT_LEN, 1)]);
    let clone = ns.clone_snapshot(&ROOT_CALLER, (top, "a"), Ino::ROOT, b"clone").unwrap();
    assert_eq!(space(&world, clone), (0, 0, 1));
    assert_eq!(space(&world, top), (2, 1, 2));
    assert_eq!(space(&world, Dataset::ROOT).0, 2, "with all below");
    let cloned = ns.lookup(ns.lookup(Ino::ROOT, b"clone").unwrap().ino, b"f").unwrap().ino;
    world.write(cloned, 0, &[piece(0, SLOT_LEN, 2)]);
    assert_eq!(space(&world, clone), (1, 1, 1));
    ns.promote(clone).unwrap();
    world.assert_counted();
    assert_eq!((space(&world, clone).0, space(&world, top).0), (2, 1));
    let gone = ns.destroy_dataset(top, true).unwrap();
    ns.purged(&[gone.inode.ino]).unwrap();
    sweep(&world);
    assert_eq!((space(&world, clone).0, space(&world, Dataset::ROOT).0), (2, 2));
    // What lies behind the clone's origin is the clone's, too, without the snapshot.
    ns.destroy_snapshots(&[(clone, "a")], false).unwrap();
    sweep(&world);
    world.assert_sound();
    assert_eq!(space(&world, clone), (2, 1, 1));
}

#[test]
fn a_rollback_brings_the_counters_back() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    world.write(file, 0, &[piece(0, SLOT_LEN, 0)]);
    take(&world, Dataset::ROOT, "a");
    let before = world.ns.dataset_space(Dataset::ROOT).unwrap();
    world.write(file, 0, &[piece(0, SLOT_LEN / 2, 0), piece(SLOT_LEN / 2, 10, 1)]);
    take(&world, Dataset::ROOT, "b");
    world.write(file, 0, &[piece(0, 7, 3)]);
    world.file(Ino::ROOT, "g");
    world.ns.rollback(Dataset::ROOT, "a", true).unwrap();
    sweep(&world);
    assert_eq!(world.ns.dataset_space(Dataset::ROOT).unwrap(), before);
    world.assert_sound();
}

#[test]
fn counters_are_as_durable_as_what_they_count() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    world.write(file, 0, &[piece(0, SLOT_LEN, 0)]);
    world.ns.sync().unwrap();
    world.write(file, 1, &[piece(0, SLOT_LEN, 1)]);
    world.store.fail_after(0);
    let inode = Inode::clone(&world.ns.inode(file).unwrap());
    assert_eq!(fails(world.ns.truncate(Inode { size: 0, ..inode }, Durability::Buffered)), "EIO");
    assert_eq!(space(&world, Dataset::ROOT), (2, 2, 2));
    let world = world.crash();
    world.assert_counted();
    assert_eq!(space(&world, Dataset::ROOT), (2, 2, 2));
    let world = world.power_loss();
    world.assert_counted();
    assert_eq!(space(&world, Dataset::ROOT), (2, 2, 2), "the crash made it all there is");
}

#[test]
fn older_volumes_are_counted_once() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    world.write(file, 0, &[piece(0, SLOT_LEN, 0)]);
    take(&world, Dataset::ROOT, "a");
    world.write(file, 0, &[piece(0, SLOT_LEN, 1)]);
    let world = world.without_counters();
    world.assert_counted();
    assert_eq!(space(&world, Dataset::ROOT), (2, 1, 1));
    let volume = world.store.get(Space::Meta, key::VOLUME).unwrap().unwrap();
    let features =
        VolumeRecord::USAGE | VolumeRecord::LINKS | VolumeRecord::DIGESTS | VolumeRecord::SEALS;
    assert_eq!(VolumeRecord::decode(&volume).unwrap().features, features);
    // Read, not counted: a wrong one stays wrong until a check finds it.
    let wrong = Usage { charged: 7, ..Usage::default() };
    let mut batch = Batch::new();
    batch.put(Space::Meta, &key::usage(Dataset::ROOT, Node::MAX), wrong.encode());
    world.store.commit(batch, Durability::Durable).unwrap();
    let world = world.crash();
    let report = world.ns.check(CheckOptions::default()).unwrap();
    assert_eq!(report.findings.len(), 1);
    assert_eq!(report.findings[0].kind, FindingKind::Usage);
    // One that is no counter at all is counted again.
    let mut batch = Batch::new();
    batch.put(Space::Meta, &key::usage(Dataset::ROOT, Node::MAX), &b"?"[..]);
    world.store.commit(batch, Durability::Durable).unwrap();
    let world = world.crash();
    world.assert_sound();
}

#[test]
fn a_read_only_open_of_an_older_volume_counts_in_memory() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    world.write(file, 0, &[piece(0, SLOT_LEN, 0)]);
    let world = world.without_counters();
    let mut batch = Batch::new();
    batch.delete(Space::Meta, &key::usage(Dataset::ROOT, Node::MAX));
    let store = Arc::new(world.store.reopened());
    store.commit(batch, Durability::Durable).unwrap();
    let options = NamespaceOptions { read_only: true, ..NamespaceOptions::default() };
    let ns = Namespace::open(Arc::clone(&store) as Arc<dyn NamespaceStore>, world.clock, options);
    assert_eq!(ns.unwrap().space_used(Dataset::ROOT), WHOLE);
    let key = key::usage(Dataset::ROOT, Node::MAX);
    assert_eq!(store.get(Space::Meta, &key).unwrap(), None);
}
