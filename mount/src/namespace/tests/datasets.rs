//! Datasets below others, and clones.

use super::*;
use crate::namespace::record::DatasetRecord;
use crate::namespace::tree::Change;
use crate::types::RenameMode;

fn make(world: &World, parent: Ino, name: &str) -> (Dataset, Ino) {
    let dataset =
        world.ns.create_dataset(&ROOT_CALLER, parent, name.as_bytes(), 0o755, &[]).unwrap();
    (dataset, world.ns.lookup(parent, name.as_bytes()).unwrap().ino)
}

fn clone_of(world: &World, from: Dataset, snapshot: &str, name: &str) -> (Dataset, Ino) {
    let ns = &world.ns;
    let made = ns.clone_snapshot(&ROOT_CALLER, (from, snapshot), Ino::ROOT, name.as_bytes());
    (made.unwrap(), ns.lookup(Ino::ROOT, name.as_bytes()).unwrap().ino)
}

fn sweep(world: &World) -> Vec<BlockId> {
    let mut freed = Vec::new();
    loop {
        let Swept { unreferenced, more } = world.ns.sweep_some(5).unwrap();
        freed.extend(unreferenced);
        if !more {
            freed.sort_unstable();
            return freed;
        }
    }
}

#[test]
fn a_dataset_is_a_directory_that_cannot_be_moved_or_linked_across() {
    let world = World::new();
    let ns = &world.ns;
    let dir = world.dir(Ino::ROOT, "d");
    let (child, root) = make(&world, dir, "data");
    let file = world.file(root, "f");
    assert_eq!(ns.dataset_of(file).unwrap(), child);
    assert_eq!(ns.path(file), b"/d/data/f");
    assert_eq!(ns.lookup(root, b"..").unwrap().ino, dir);
    let mut listed = Vec::new();
    ns.readdir(root, 0, false, &mut |entry| {
        listed.push((entry.name.clone(), entry.ino));
        true
    })
    .unwrap();
    assert_eq!(listed[..2], [(b".".to_vec(), root), (b"..".to_vec(), dir)]);
    let mut listed = Vec::new();
    ns.readdir(dir, 2, true, &mut |entry| {
        listed.push((entry.ino, entry.attr.unwrap()));
        true
    })
    .unwrap();
    assert_eq!(listed, [(root, ns.getattr(root).unwrap())]);
    let other = world.file(dir, "other");
    let replace = RenameMode::Replace;
    assert_eq!(fails(ns.link(file, dir, b"x")), "EXDEV");
    assert_eq!(fails(ns.rename(root, b"f", dir, b"f", replace)), "EXDEV");
    assert_eq!(fails(ns.rmdir(dir, b"data")), "EBUSY");
    assert_eq!(fails(ns.rename(dir, b"data", Ino::ROOT, b"x", replace)), "EBUSY");
    assert_eq!(fails(ns.rename(dir, b"other", dir, b"data", RenameMode::Exchange)), "EBUSY");
    assert_eq!(fails(ns.rmdir(Ino::ROOT, b"d")), "ENOTEMPTY");
    let junction = ns.entry(dir, b"data").unwrap().ino;
    assert_eq!(fails(ns.mkdir(&USER, junction, b"hidden", 0o755, 0)), "ESTALE");
    ns.rename(Ino::ROOT, b"d", Ino::ROOT, b"e", replace).unwrap();
    assert_eq!(ns.path(file), b"/e/data/f");
    ns.rename_dataset(child, Ino::ROOT, b"moved").unwrap();
    assert_eq!(ns.path(file), b"/moved/f");
    assert_eq!(ns.lookup(root, b"..").unwrap().ino, Ino::ROOT);
    assert!(matches!(ns.rename_dataset(child, root, b"x"), Err(TreeError::Fs(_))));
    let paths: Vec<_> = ns.datasets().into_iter().map(|d| (d.dataset, d.path)).collect();
    assert_eq!(paths, [(Dataset::ROOT, b"/".to_vec()), (child, b"/moved".to_vec())]);
    world.assert_sound();
    let world = world.power_loss();
    assert_eq!(world.ns.path(file), b"/moved/f");
    assert_ne!(other, file);
    world.assert_sound();
}

#[test]
fn a_snapshot_shows_a_dataset_below_as_an_empty_directory() {
    let world = World::new();
    let ns = &world.ns;
    let (child, root) = make(&world, Ino::ROOT, "data");
    world.file(root, "f");
    let taken = ns.snapshot(&[Dataset::ROOT, child], "s", "").unwrap();
    let dir = ns.lookup(taken[0].root, b"data").unwrap();
    assert_eq!((dir.size, world.names(dir.ino)), (0, vec![]));
    assert_eq!(world.names(taken[1].root), ["f"]);
    // Going back to before it was there would lose its place.
    let (late, _) = make(&world, Ino::ROOT, "late");
    let refused = ns.rollback(Dataset::ROOT, "s", false);
    assert!(matches!(refused, Err(TreeError::Children(lost)) if lost == [late]));
    assert!(matches!(ns.destroy_dataset(Dataset::ROOT, true), Err(TreeError::Children(_))));
    ns.rollback(child, "s", false).unwrap();
    assert_eq!(fails(ns.getattr(root)), "ESTALE");
    let root = ns.lookup(Ino::ROOT, b"data").unwrap().ino;
    assert_eq!(world.names(root), ["f"]);
    world.assert_sound();
}

#[test]
fn a_destroyed_dataset_leaves_nothing() {
    let world = World::new();
    let (child, root) = make(&world, Ino::ROOT, "data");
    for number in 0..20 {
        let file = world.file(root, &format!("f{number}"));
        world.write(file, 0, &[piece(0, 10, number)]);
    }
    world.ns.snapshot(&[child], "s", "").unwrap();
    let file = world.ns.lookup(root, b"f0").unwrap().ino;
    world.write(file, 0, &[piece(0, 10, 99)]);
    world.ns.unlink(root, b"f1").unwrap();
    let refused = world.ns.destroy_dataset(child, false);
    assert!(matches!(refused, Err(TreeError::InTheWay(names)) if names == ["s"]));
    let removed = world.ns.destroy_dataset(child, true).unwrap();
    world.ns.purged(&[removed.inode.ino]).unwrap();
    assert_eq!(fails(world.ns.getattr(file)), "ESTALE");
    assert_eq!(fails(world.ns.lookup(Ino::ROOT, b"data")), "ENOENT");
    assert!(world.ns.sweep_some(3).unwrap().more);
    let world = world.crash();
    sweep(&world);
    for space in [Space::History, Space::Born, Space::Backrefs] {
        assert!(world.store.page(space, &[], None, 9).unwrap().items.is_empty(), "{space:?}");
    }
    assert_eq!(world.store.page(Space::Head, &[], None, 9).unwrap().items.len(), 1);
    let meta = world.store.page(Space::Meta, &[], None, 99).unwrap().items;
    let left: Vec<_> =
        meta.iter().map(|(key, _)| key[0]).filter(|k| b"lnosw".contains(k)).collect();
    assert_eq!(left, Vec::<u8>::new());
    assert!(matches!(world.ns.snapshots(child), Err(TreeError::NoDataset)));
    world.assert_sound();
}

#[test]
fn a_clone_shares_until_it_differs() {
    let world = World::new();
    let ns = &world.ns;
    for (name, number) in [("kept", 1), ("changed", 2), ("gone", 3)] {
        let file = world.file(Ino::ROOT, name);
        world.write(file, 0, &[piece(0, 10, number)]);
        ns.setxattr(&ROOT_CALLER, file, b"user.x", b"1", Default::default()).unwrap();
    }
    let snapshot = ns.snapshot(&[Dataset::ROOT], "s", "").unwrap()[0].root;
    world.file(Ino::ROOT, "later");
    let (clone, root) = clone_of(&world, Dataset::ROOT, "s", "clone");
    assert_eq!(world.names(root), ["changed", "gone", "kept"]);
    let changed = ns.lookup(root, b"changed").unwrap().ino;
    assert_eq!(ns.slot(changed, 0).unwrap(), [piece(0, 10, 2)]);
    assert_eq!(world.write(changed, 0, &[piece(0, 10, 4)]), []);
    ns.removexattr(&ROOT_CALLER, changed, b"user.x").unwrap();
    let gone = ns.unlink(root, b"gone").unwrap().inode.ino;
    assert_eq!(ns.purged(&[gone]).unwrap(), []);
    world.file(root, "new");
    assert_eq!(world.names(root), ["changed", "kept", "new"]);
    assert_eq!(world.names(snapshot), ["changed", "gone", "kept"]);
    assert_eq!(world.names(Ino::ROOT), ["changed", "clone", "gone", "kept", "later"]);
    let original = ns.lookup(Ino::ROOT, b"changed").unwrap().ino;
    assert_eq!(ns.slot(original, 0).unwrap(), [piece(0, 10, 2)]);
    assert_eq!(ns.getxattr(original, b"user.x").unwrap(), b"1");
    assert!(ns.listxattr(changed).unwrap().is_empty());
    world.assert_sound();
    let refused = ns.destroy_snapshots(&[(Dataset::ROOT, "s")], false);
    assert!(matches!(refused, Err(TreeError::Cloned(clones)) if clones == [clone]));
    ns.destroy_snapshots(&[(Dataset::ROOT, "s")], true).unwrap();
    assert_eq!(ns.getattr(snapshot).unwrap().ino, snapshot);
    let junction = ns.destroy_dataset(clone, false).unwrap().inode.ino;
    ns.purged(&[junction]).unwrap();
    assert_eq!(fails(ns.getattr(snapshot)), "ESTALE");
    assert_eq!(sweep(&world), [block(4).id]);
    for space in [Space::History, Space::Born] {
        assert!(world.store.page(space, &[], None, 9).unwrap().items.is_empty(), "{space:?}");
    }
    world.assert_sound();
}

#[test]
fn a_promoted_clone_outlives_its_origin() {
    let world = World::new();
    let ns = &world.ns;
    let (first, root) = make(&world, Ino::ROOT, "first");
    let file = world.file(root, "f");
    world.write(file, 0, &[piece(0, 10, 1)]);
    ns.snapshot(&[first], "s", "").unwrap();
    world.write(file, 0, &[piece(0, 10, 2)]);
    let (second, root) = clone_of(&world, first, "s", "second");
    assert!(matches!(ns.promote(first), Err(TreeError::NotAClone)));
    ns.snapshot(&[second], "s", "").unwrap();
    assert!(matches!(ns.promote(second), Err(TreeError::Exists(name)) if name == "s"));
    ns.destroy_snapshots(&[(second, "s")], false).unwrap();
    ns.promote(second).unwrap();
    assert_eq!(ns.snapshots(first).unwrap(), []);
    assert_eq!(ns.find_snapshot(second, "s").unwrap().clones, [first]);
    let refused = ns.destroy_dataset(second, true);
    assert!(matches!(refused, Err(TreeError::Cloned(clones)) if clones == [first]));
    let junction = ns.destroy_dataset(first, true).unwrap().inode.ino;
    ns.purged(&[junction]).unwrap();
    assert_eq!(sweep(&world), [block(2).id]);
    world.assert_sound();
    let world = world.crash();
    let ns = &world.ns;
    let file = ns.lookup(root, b"f").unwrap().ino;
    assert_eq!(ns.slot(file, 0).unwrap(), [piece(0, 10, 1)]);
    world.write(file, 0, &[piece(0, 10, 3)]);
    ns.rollback(second, "s", false).unwrap();
    let root = ns.lookup(Ino::ROOT, b"second").unwrap().ino;
    let file = ns.lookup(root, b"f").unwrap().ino;
    assert_eq!(ns.slot(file, 0).unwrap(), [piece(0, 10, 1)]);
    let junction = ns.destroy_dataset(second, true).unwrap().inode.ino;
    ns.purged(&[junction]).unwrap();
    assert_eq!(sweep(&world), [block(1).id]);
    for space in [Space::History, Space::Born, Space::Backrefs] {
        assert!(world.store.page(space, &[], None, 9).unwrap().items.is_empty(), "{space:?}");
    }
    assert_eq!(world.store.page(Space::Head, &[], None, 9).unwrap().items.len(), 1);
}

#[test]
fn a_clone_that_goes_leaves_its_snapshot_to_a_sweep_of_its_own() {
    let world = World::new();
    let ns = &world.ns;
    let files: Vec<Ino> = (0..200).map(|n| world.file(Ino::ROOT, &format!("f{n}"))).collect();
    for (number, file) in (1..).zip(&files) {
        world.write(*file, 0, &[piece(0, 10, number)]);
    }
    ns.snapshot(&[Dataset::ROOT], "s", "").unwrap();
    let (clone, _) = clone_of(&world, Dataset::ROOT, "s", "clone");
    for (number, file) in (1001..).zip(&files) {
        world.write(*file, 0, &[piece(0, 10, number)]);
    }
    let removed = ns.destroy_dataset(clone, false).unwrap();
    ns.purged(&[removed.inode.ino]).unwrap();
    for _ in 0..3 {
        ns.sweep_some(5).unwrap();
    }
    ns.destroy_snapshots(&[(Dataset::ROOT, "s")], false).unwrap();
    let freed: Vec<BlockId> = (1..=200).map(|number| block(number).id).collect();
    assert_eq!(sweep(&world), freed);
    world.assert_sound();
}

#[test]
fn a_dataset_goes_with_everything_below_in_one_batch_or_not_at_all() {
    let world = World::new();
    let ns = &world.ns;
    let (a, at) = make(&world, Ino::ROOT, "a");
    let (b, bt) = make(&world, at, "b");
    let (c, ct) = make(&world, bt, "c");
    world.file(ct, "f");
    ns.snapshot(&[a, b, c], "s", "").unwrap();
    // A clone inside of it goes before what it was made from.
    let clone = ns.clone_snapshot(&ROOT_CALLER, (c, "s"), at, b"clone").unwrap();
    ns.hold(b, "s", "tag").unwrap();
    let order = [clone, c, b, a];
    assert!(matches!(ns.destroy_datasets(&order, true), Err(TreeError::Held(_))));
    assert!(matches!(ns.destroy_datasets(&[c, b, a], true), Err(TreeError::Cloned(_))));
    assert!(matches!(ns.destroy_datasets(&[b, a], true), Err(TreeError::Children(_))));
    assert_eq!(ns.datasets().len(), 5);
    let world = world.power_loss();
    assert_eq!(world.ns.datasets().len(), 5, "nothing of a refusal was kept");
    world.ns.release(b, "s", "tag").unwrap();
    let removed = world.ns.destroy_datasets(&order, true).unwrap();
    assert_eq!(fails(world.ns.lookup(Ino::ROOT, b"a")), "ENOENT");
    world.ns.purged(&[removed.inode.ino]).unwrap();
    sweep(&world);
    world.assert_sound();
    let world = world.power_loss();
    assert_eq!(world.ns.datasets().len(), 1);
    world.assert_sound();
}

#[test]
fn snapshots_of_several_datasets_are_renamed_and_destroyed_together() {
    let world = World::new();
    let (a, at) = make(&world, Ino::ROOT, "a");
    let (b, _) = make(&world, at, "b");
    let ns = &world.ns;
    ns.snapshot(&[a, b], "s", "").unwrap();
    ns.snapshot(&[b], "taken", "").unwrap();
    let names = |of| -> Vec<String> {
        ns.snapshots(of).unwrap().into_iter().map(|snapshot| snapshot.name).collect()
    };
    assert!(matches!(ns.rename_snapshots(&[a, b], "s", "taken"), Err(TreeError::Exists(_))));
    assert_eq!((names(a), names(b)), (vec!["s".into()], vec!["s".into(), "taken".into()]));
    ns.rename_snapshots(&[a, b], "s", "t").unwrap();
    ns.hold(b, "t", "tag").unwrap();
    assert!(matches!(ns.destroy_snapshots(&[(a, "t"), (b, "t")], false), Err(TreeError::Held(_))));
    assert_eq!(names(a), ["t"]);
    ns.release(b, "t", "tag").unwrap();
    ns.destroy_snapshots(&[(a, "t"), (b, "t")], false).unwrap();
    assert_eq!((names(a), names(b)), (vec![], vec!["taken".to_owned()]));
    sweep(&world);
    world.assert_sound();
}

#[test]
fn an_index_of_a_view_rests_until_all_others_had_their_turn() {
    let world = World::new();
    let mut change = Change::new(world.ns.tree.read().clone());
    let last = u32::from(u16::MAX) - 1;
    change.tree.counters.view = last - 1;
    let record = DatasetRecord::clone(&change.tree.datasets[&Dataset::ROOT]);
    let mut give = |number: u32| {
        let view = change.add_view().unwrap();
        change.put_dataset(Dataset(number), DatasetRecord { view, ..record.clone() });
        (u32::from(view), change.tree.counters.view)
    };
    assert_eq!(give(2).0, last - 1);
    assert_eq!(give(3), (last, last + 1));
    assert_eq!(give(4).0, 1, "0 is the mount's");
    // The one that was given up just now is not the next one.
    assert_eq!(give(4).0, 2);
    assert_eq!(give(5).0, 3);
    change.tree.counters.view = last - 1;
    let view = change.add_view().unwrap();
    assert_eq!(view, 1, "those in use are passed over");
}
