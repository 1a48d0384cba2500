//! Snapshots: what they show, and what they refuse.

use super::*;

fn take(world: &World, name: &str) -> Ino {
    world.ns.snapshot(&[Dataset::ROOT], name, "why").unwrap()[0].root
}

#[test]
fn an_overwritten_extent_keeps_its_block_for_the_snapshot() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    world.write(file, 0, &[piece(0, 10, 1)]);
    let root = take(&world, "s");
    assert_eq!(world.write(file, 0, &[piece(0, 10, 2)]), []);
    assert!(world.ns.is_referenced(block(1).id).unwrap());
    assert_eq!(world.write(file, 0, &[piece(0, 10, 3)]), [block(2).id]);
    world.ns.unlink(Ino::ROOT, b"f").unwrap();
    assert_eq!(world.ns.purged(&[file]).unwrap(), [block(3).id]);
    assert!(world.ns.is_referenced(block(1).id).unwrap());
    assert_eq!(fails(world.ns.lookup(Ino::ROOT, b"f")), "ENOENT");
    assert_eq!(fails(world.ns.getattr(file)), "ESTALE");
    let then = world.ns.lookup(root, b"f").unwrap();
    assert_eq!((then.ino.object(), then.parent), (file.0, root));
    assert_eq!(world.ns.slot(then.ino, 0).unwrap(), [piece(0, 10, 1)]);
    assert_eq!(world.ns.path(then.ino), b"/f");
    world.assert_sound();
}

#[test]
fn nothing_in_a_snapshot_can_be_changed() {
    let world = World::new();
    let dir = world.dir(Ino::ROOT, "d");
    world.file(dir, "f");
    let root = take(&world, "s");
    let ns = &world.ns;
    let dir = ns.lookup(root, b"d").unwrap().ino;
    let file = ns.lookup(dir, b"f").unwrap().ino;
    let mode = crate::types::RenameMode::Replace;
    assert_eq!(fails(ns.mkdir(&USER, dir, b"new", 0o755, 0)), "EROFS");
    assert_eq!(fails(ns.unlink(dir, b"f")), "EROFS");
    assert_eq!(fails(ns.rmdir(root, b"d")), "EROFS");
    assert_eq!(fails(ns.link(file, dir, b"new")), "EROFS");
    assert_eq!(fails(ns.rename(dir, b"f", dir, b"new", mode)), "EROFS");
    assert_eq!(fails(ns.setattr(&USER, file, &Default::default())), "EROFS");
    assert_eq!(fails(ns.setxattr(&USER, file, b"user.x", b"", Default::default())), "EROFS");
    assert_eq!(fails(ns.removexattr(&USER, file, b"user.x")), "EROFS");
    let inode = Inode::clone(&ns.inode(file).unwrap());
    assert_eq!(fails(ns.truncate(inode, Durability::Buffered)), "EROFS");
    assert!(ns.is_in_snapshot(file) && !ns.is_in_snapshot(Ino::ROOT));
    assert_eq!(ns.dataset_of(file).unwrap(), Dataset::ROOT);
    // Between live state and snapshot nothing can be linked or moved either.
    let live = ns.lookup(Ino::ROOT, b"d").unwrap().ino;
    assert_eq!(fails(ns.link(file, live, b"new")), "EROFS");
    assert_eq!(fails(ns.rename(live, b"f", dir, b"new", mode)), "EROFS");
}

#[test]
fn snapshots_are_listed_named_and_held() {
    let world = World::new();
    let ns = &world.ns;
    take(&world, "a");
    world.clock.tick();
    take(&world, "b");
    let names = |ns: &Namespace| -> Vec<_> {
        ns.snapshots(Dataset::ROOT).unwrap().into_iter().map(|s| s.name).collect()
    };
    assert_eq!(names(ns), ["a", "b"]);
    let taken = ns.snapshot(&[Dataset::ROOT], "a", "");
    assert!(matches!(taken, Err(TreeError::Exists(name)) if name == "a"));
    for bad in ["", "a/b", "a@b", "..", "\u{e4}"] {
        let taken = ns.snapshot(&[Dataset::ROOT], bad, "");
        assert!(matches!(taken, Err(TreeError::InvalidName(_))), "{bad}");
    }
    assert!(matches!(ns.snapshot(&[Dataset(9)], "c", ""), Err(TreeError::NoDataset)));
    ns.rename_snapshots(&[Dataset::ROOT], "a", "c").unwrap();
    assert!(matches!(ns.rename_snapshots(&[Dataset::ROOT], "b", "c"), Err(TreeError::Exists(_))));
    assert!(matches!(
        ns.rename_snapshots(&[Dataset::ROOT], "a", "d"),
        Err(TreeError::NoSnapshot(_))
    ));
    ns.hold(Dataset::ROOT, "c", "keep").unwrap();
    assert!(matches!(ns.hold(Dataset::ROOT, "c", "keep"), Err(TreeError::Exists(_))));
    let world = world.power_loss();
    assert_eq!(names(&world.ns), ["c", "b"]);
    let found = world.ns.find_snapshot(Dataset::ROOT, "c").unwrap();
    assert_eq!((found.message.as_str(), found.holds[0].tag.as_str()), ("why", "keep"));
    assert!(found.created < world.ns.find_snapshot(Dataset::ROOT, "b").unwrap().created);
}

#[test]
fn what_is_held_stays_until_it_is_released() {
    let world = World::new();
    let ns = &world.ns;
    let file = world.file(Ino::ROOT, "f");
    world.write(file, 0, &[piece(0, 10, 1)]);
    let root = take(&world, "s");
    world.write(file, 0, &[piece(0, 10, 2)]);
    for tag in ["one", "two"] {
        ns.hold(Dataset::ROOT, "s", tag).unwrap();
    }
    let refused = ns.destroy_snapshots(&[(Dataset::ROOT, "s")], false);
    assert!(matches!(refused, Err(TreeError::Held(tags)) if tags == ["one", "two"]));
    assert!(matches!(ns.release(Dataset::ROOT, "s", "none"), Err(TreeError::NoHold(_))));
    ns.release(Dataset::ROOT, "s", "one").unwrap();
    ns.destroy_snapshots(&[(Dataset::ROOT, "s")], true).unwrap();
    assert!(ns.find_snapshot(Dataset::ROOT, "s").unwrap().deferred);
    assert_eq!(ns.sweep_some(100).unwrap(), Swept::default());
    ns.release(Dataset::ROOT, "s", "two").unwrap();
    assert_eq!(fails(ns.getattr(root)), "ESTALE");
    assert_eq!(ns.sweep_some(100).unwrap().unreferenced, [block(1).id]);
    world.assert_sound();
}

#[test]
fn snapshots_are_destroyed_all_or_none() {
    let world = World::new();
    for name in ["a", "b", "c"] {
        take(&world, name);
    }
    let refused = world.ns.destroy_snapshots(&[(Dataset::ROOT, "a"), (Dataset::ROOT, "x")], false);
    assert!(matches!(refused, Err(TreeError::NoSnapshot(name)) if name == "x"));
    assert_eq!(world.ns.snapshots(Dataset::ROOT).unwrap().len(), 3);
    world.ns.destroy_snapshots(&[(Dataset::ROOT, "a"), (Dataset::ROOT, "c")], false).unwrap();
    assert_eq!(world.ns.snapshots(Dataset::ROOT).unwrap()[0].name, "b");
}

#[test]
fn a_sweep_goes_on_after_a_crash() {
    let mut world = World::new();
    let dir = world.dir(Ino::ROOT, "d");
    let files: Vec<Ino> = (0..200).map(|n| world.file(dir, &format!("f{n}"))).collect();
    for (n, &file) in files.iter().enumerate() {
        world.write(file, 0, &[piece(0, 10, n as u64)]);
    }
    take(&world, "s");
    for &file in &files {
        world.write(file, 0, &[piece(0, 10, 1000)]);
    }
    world.ns.destroy_snapshots(&[(Dataset::ROOT, "s")], false).unwrap();
    let mut freed = Vec::new();
    for _ in 0..3 {
        let swept = world.ns.sweep_some(1).unwrap();
        assert!(swept.more);
        freed.extend(swept.unreferenced);
        world = world.crash();
    }
    loop {
        let Swept { unreferenced, more } = world.ns.sweep_some(50).unwrap();
        freed.extend(unreferenced);
        if !more {
            break;
        }
    }
    freed.sort_unstable();
    assert_eq!(freed, (0..200).map(|n| block(n).id).collect::<Vec<_>>());
    for space in [Space::History, Space::Born] {
        assert!(world.store.page(space, &[], None, 9).unwrap().items.is_empty());
    }
    world.assert_sound();
}

#[test]
fn a_snapshot_of_nothing_known_is_stale() {
    let world = World::new();
    let root = take(&world, "s");
    let other = Ino::in_view(root.view_index() + 1, 1);
    assert_eq!(fails(world.ns.getattr(other)), "ESTALE");
    assert_eq!(fails(world.ns.lookup(other, b"f")), "ESTALE");
    assert_eq!(world.ns.getattr(root).unwrap().ino, root);
}

#[test]
fn a_failed_commit_leaves_the_tree_as_it_was() {
    let world = World::new();
    world.store.fail_after(0);
    assert!(world.ns.snapshot(&[Dataset::ROOT], "s", "").is_err());
    assert_eq!(world.ns.snapshots(Dataset::ROOT).unwrap(), []);
}
