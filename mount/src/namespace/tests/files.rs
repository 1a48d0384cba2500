//! Extents, truncation, orphans, ids, and what failures and crashes leave.

use firn_tiering::IdSource;

use super::*;
use crate::namespace::key::HeadKey;

fn truncate(world: &World, ino: Ino, size: u64) -> Vec<BlockId> {
    let _guard = world.ns.lock(&[ino]);
    let mut inode = Inode::clone(&world.ns.inode(ino).unwrap());
    inode.size = size;
    world.ns.truncate(inode, Durability::Buffered).unwrap().1
}

#[test]
fn slots_come_back_as_they_were_put() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    let pieces = [
        piece(0, 4096, 1),
        Piece { start: 4096, len: 3, content: Content::Inline(Bytes::from_static(b"abc")) },
        Piece { start: 8192, len: 100, content: Content::Unwritten },
    ];
    world.write(file, 5, &pieces);
    assert_eq!(world.ns.slot(file, 5).unwrap(), pieces);
    assert_eq!(world.ns.slot(file, 4).unwrap(), []);
    assert_eq!(world.attr(file).blocks, (4096_u64 + 3 + 100).div_ceil(512));
    let owners = world.ns.owners(block(1).id, 10).unwrap();
    assert_eq!(owners, [Owner { ino: file, slot: 5 }]);
    assert_eq!(world.ns.path(owners[0].ino), b"/f");
    world.assert_sound();
}

#[test]
fn every_file_that_has_a_block_is_found_however_many_there_are() {
    let world = World::new();
    let files: Vec<Ino> = (0..150)
        .map(|at| {
            let file = world.file(Ino::ROOT, &format!("f{at}"));
            world.write(file, 0, &[piece(0, 4096, 1)]);
            file
        })
        .collect();
    let owners = |limit| {
        let mut seen = Vec::new();
        let saw_all = world.ns.for_each_live_owner(block(1).id, limit, &mut |ino| {
            seen.push(ino);
            true
        });
        seen.sort();
        (seen, saw_all.unwrap())
    };
    assert_eq!(owners(4096), (files, true));
    let (some, saw_all) = owners(100);
    assert!(!saw_all && some.len() >= 100 && some.len() < 150, "{}", some.len());
}

#[test]
fn slots_are_listed_in_pages() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    for slot in [0, 3, 4, 900] {
        world.write(file, slot, &[piece(0, 1, slot)]);
    }
    let first = world.ns.slots(file, 1, u64::MAX, 2).unwrap();
    let numbers = |page: &SlotPage| page.slots.iter().map(|(slot, _)| *slot).collect::<Vec<_>>();
    assert_eq!((numbers(&first), first.next), (vec![3, 4], Some(5)));
    let rest = world.ns.slots(file, 5, u64::MAX, 2).unwrap();
    assert_eq!((numbers(&rest), rest.next), (vec![900], None));
    assert_eq!(numbers(&world.ns.slots(file, 0, 900, 100).unwrap()), [0, 3, 4]);
}

#[test]
fn a_slot_cannot_be_put_twice_at_once() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    let mut inode = Inode::clone(&world.ns.inode(file).unwrap());
    let mut txn = world.ns.begin();
    txn.put_slot(&mut inode, 0, &[piece(0, 1, 1)]).unwrap();
    assert_eq!(fails(txn.put_slot(&mut inode, 0, &[piece(0, 1, 2)])), "EINVAL");
}

#[test]
fn senseless_pieces_are_refused() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    for pieces in [
        vec![piece(0, 10, 1), piece(5, 10, 2)],
        vec![piece(SLOT_LEN - 1, 2, 1)],
        vec![piece(0, 0, 1)],
        vec![Piece { start: 0, len: 2, content: Content::Inline(Bytes::from_static(b"a")) }],
    ] {
        let mut inode = Inode::clone(&world.ns.inode(file).unwrap());
        let mut txn = world.ns.begin();
        assert_eq!(fails(txn.put_slot(&mut inode, 0, &pieces)), "EIO");
    }
}

#[test]
fn a_shared_block_is_free_only_after_its_last_reference() {
    let world = World::new();
    let (one, two) = (world.file(Ino::ROOT, "1"), world.file(Ino::ROOT, "2"));
    world.write(one, 0, &[piece(0, 10, 7)]);
    world.write(two, 0, &[piece(0, 10, 7), piece(10, 10, 7)]);
    assert_eq!(world.write(one, 0, &[piece(0, 10, 8)]), []);
    assert_eq!(world.write(two, 0, &[piece(0, 10, 7)]), []);
    assert_eq!(world.write(two, 0, &[]), [block(7).id]);
    assert!(!world.ns.is_referenced(block(7).id).unwrap());
    world.assert_sound();
}

#[test]
fn truncation_cuts_pieces_and_removes_slots() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    let inline =
        Piece { start: 100, len: 4, content: Content::Inline(Bytes::from_static(b"wxyz")) };
    world.write(file, 0, &[piece(0, 100, 1), inline, piece(200, 10, 2)]);
    world.write(file, 1, &[piece(0, 100, 3)]);
    assert_eq!(truncate(&world, file, 102), [block(2).id, block(3).id]);
    let pieces = world.ns.slot(file, 0).unwrap();
    assert_eq!(pieces.len(), 2);
    assert_eq!(pieces[1].content, Content::Inline(Bytes::from_static(b"wx")));
    let inode = world.ns.inode(file).unwrap();
    assert_eq!((inode.size, inode.allocated), (102, 102));
    assert_eq!(truncate(&world, file, 5 << 20), []);
    assert_eq!(world.ns.inode(file).unwrap().allocated, 102);
    world.assert_sound();
}

fn large_file(world: &World, slots: u64) -> Ino {
    let file = world.file(Ino::ROOT, "large");
    for slot in 0..slots {
        world.write(file, slot, &[piece(0, SLOT_LEN, slot)]);
    }
    file
}

#[test]
fn a_long_truncation_that_a_crash_interrupts_is_finished_at_open() {
    let world = World::new();
    let file = large_file(&world, 1500);
    // The first of three batches is committed, the second fails.
    world.store.fail_after(1);
    let mut inode = Inode::clone(&world.ns.inode(file).unwrap());
    inode.size = 10;
    assert_eq!(fails(world.ns.truncate(inode, Durability::Buffered)), "EIO");
    assert_eq!(world.attr(file).size, 10, "the new size comes first");
    let left = world.ns.slots(file, 0, u64::MAX, 10_000).unwrap().slots.len();
    assert!(left > 1 && left < 1500, "{left}");
    let world = world.crash();
    assert_eq!(world.ns.slots(file, 0, u64::MAX, 10_000).unwrap().slots.len(), 1);
    assert_eq!(world.ns.inode(file).unwrap().allocated, 10);
    let page = world.store.page(Space::Meta, b"t", Some(b"u"), 10).unwrap();
    assert!(page.items.is_empty());
    world.assert_sound();
}

#[test]
fn a_large_orphan_is_purged_in_batches_also_after_a_crash() {
    let world = World::new();
    let file = large_file(&world, 1200);
    world.ns.setxattr(&ROOT_CALLER, file, b"user.x", b"1", Default::default()).unwrap();
    let removed = world.ns.unlink(Ino::ROOT, b"large").unwrap();
    assert!(removed.is_orphan());
    assert_eq!(world.ns.slot(file, 7).unwrap().len(), 1, "an open file can still be read");
    world.store.fail_after(1);
    let mut freed = Vec::new();
    assert_eq!(fails(world.ns.purge(&[file], &mut freed)), "EIO");
    assert_eq!(freed, [block(0).id], "what was committed is told");
    let world = world.crash();
    world.assert_sound();
    assert_eq!(world.ns.orphans(None, 10).unwrap(), [file]);
    let freed = world.ns.purged(&[file]).unwrap();
    assert!(freed.len() >= 600);
    assert_eq!(world.ns.orphans(None, 10).unwrap(), []);
    let left = world.store.page(Space::Head, &[], None, 1000).unwrap();
    let objects: Vec<_> =
        left.items.iter().map(|(key, _)| HeadKey::decode(key).unwrap().object).collect();
    assert_eq!(objects, [Ino::ROOT]);
    let born = world.store.page(Space::Born, &[], None, 1000).unwrap();
    assert!(born.items.is_empty());
    world.assert_sound();
}

#[test]
fn what_has_a_name_is_not_purged() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    world.ns.purged(&[file, Ino::ROOT, Ino(999)]).unwrap();
    assert_eq!(world.names(Ino::ROOT), ["f"]);
}

#[test]
fn orphans_are_listed_in_pages() {
    let world = World::new();
    let mut expected = Vec::new();
    for name in ["a", "b", "c"] {
        expected.push(world.file(Ino::ROOT, name));
        world.ns.unlink(Ino::ROOT, name.as_bytes()).unwrap();
    }
    assert_eq!(world.ns.orphans(None, 2).unwrap(), expected[..2]);
    assert_eq!(world.ns.orphans(Some(expected[1]), 2).unwrap(), expected[2..]);
}

#[test]
fn ids_are_never_lent_twice() {
    let world = World::new();
    let ids = Arc::clone(world.ns.ids());
    assert_eq!(ids.epoch(), Epoch(1));
    assert_eq!(ids.lease_blocks(10).unwrap(), 0..10);
    assert_eq!(ids.lease_blocks(5).unwrap(), 10..15);
    assert_eq!(ids.lease_segments(3).unwrap(), 0..3);
    let first = world.file(Ino::ROOT, "f");
    world.ns.close().unwrap();

    let world = World::open(Arc::new(world.store.reopened()), world.clock);
    assert_eq!(world.ns.ids().epoch(), Epoch(1), "closed in order");
    assert_eq!(world.ns.ids().lease_blocks(1).unwrap(), 15..16);
    let second = world.file(Ino::ROOT, "g");
    assert_eq!(second.0, first.0 + 1, "an unused lease is given back");

    let world = world.power_loss();
    assert_eq!(world.ns.ids().epoch(), Epoch(2), "not closed");
    assert_eq!(world.ns.ids().lease_blocks(1).unwrap(), 0..1);
    let world = world.crash();
    assert_eq!(world.ns.ids().epoch(), Epoch(3));
    assert!(world.file(Ino::ROOT, "h") > second);
}

#[test]
fn leases_are_durable_before_they_are_used() {
    let world = World::new();
    let before = world.ns.ids().lease_segments(100).unwrap();
    let epoch = world.ns.ids().epoch();
    let world = world.power_loss();
    let after = world.ns.ids().lease_segments(1).unwrap();
    assert!(world.ns.ids().epoch() > epoch || after.start >= before.end);
}

#[test]
fn a_failed_commit_ends_all_changes_until_reopened() {
    let world = World::new();
    world.file(Ino::ROOT, "before");
    world.store.fail_after(0);
    let failed = world.ns.mkdir(&ROOT_CALLER, Ino::ROOT, b"x", 0o755, 0);
    assert_eq!(fails(failed), "EIO");
    assert!(world.ns.read_only().is_some());
    assert_eq!(fails(world.ns.unlink(Ino::ROOT, b"before")), "EROFS");
    assert_eq!(fails(world.ns.sync()), "EROFS");
    assert_eq!(fails(world.ns.setattr(&ROOT_CALLER, Ino::ROOT, &Default::default())), "EROFS");
    assert_eq!(world.names(Ino::ROOT), ["before"], "reading goes on");
    let world = world.crash();
    world.file(Ino::ROOT, "after");
    assert_eq!(world.names(Ino::ROOT), ["after", "before"]);
}

#[test]
fn a_read_only_namespace_changes_nothing() {
    let world = World::new();
    world.file(Ino::ROOT, "f");
    let before = world.store.reopened();
    let ns = Namespace::open(
        Arc::new(world.store.reopened()),
        world.clock,
        NamespaceOptions { read_only: true, ..NamespaceOptions::default() },
    )
    .unwrap();
    assert_eq!(fails(ns.unlink(Ino::ROOT, b"f")), "EROFS");
    ns.sync().unwrap();
    ns.close().unwrap();
    for space in Space::ALL {
        let all = |store: &dyn NamespaceReader| store.page(space, &[], None, 1000).unwrap().items;
        assert_eq!(all(&**ns.store()), all(&before));
    }
}

#[test]
fn buffered_changes_may_go_with_the_power_durable_ones_stay() {
    let world = World::new();
    world.file(Ino::ROOT, "kept");
    world.ns.sync().unwrap();
    world.file(Ino::ROOT, "lost");
    let world = world.power_loss();
    assert_eq!(world.names(Ino::ROOT), ["kept"]);
    world.assert_sound();
}

#[test]
fn threads_that_change_the_same_tree_leave_it_sound() {
    let world = World::new();
    let dirs = [Ino::ROOT, world.dir(Ino::ROOT, "p"), world.dir(Ino::ROOT, "q")];
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let world = &world;
            scope.spawn(move || {
                let ns = &world.ns;
                for round in 0..300_usize {
                    let (from, to) = (dirs[round % 3], dirs[(round / 3 + thread) % 3]);
                    let name = format!("{}", round % 5);
                    let other = format!("{}", (round + thread) % 5);
                    let (name, other) = (name.as_bytes(), other.as_bytes());
                    // What fails depends on the others; that all fits together does not.
                    let _ = match (round + thread) % 6 {
                        0 => ns.mknod(&ROOT_CALLER, from, name, 0o100_644, 0, 0).map(drop),
                        1 => ns.mkdir(&ROOT_CALLER, from, name, 0o755, 0).map(drop),
                        2 => ns.rename(from, name, to, other, Default::default()).map(drop),
                        3 => ns.unlink(from, name).map(drop),
                        4 => ns.rmdir(from, name).map(drop),
                        _ => ns
                            .lookup(from, name)
                            .and_then(|inode| ns.link(inode.ino, to, other))
                            .map(drop),
                    };
                }
            });
        }
    });
    world.assert_sound();
}
