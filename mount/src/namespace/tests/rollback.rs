//! Going back to a snapshot, also through a crash at every step.

use super::*;

/// A dataset with a snapshot `s` and much that happened since.
fn sample() -> (World, Ino) {
    let world = World::new();
    let ns = &world.ns;
    let dir = world.dir(Ino::ROOT, "d");
    let kept = world.file(dir, "kept");
    world.write(kept, 0, &[piece(0, 10, 1)]);
    ns.setxattr(&ROOT_CALLER, kept, b"user.x", b"then", Default::default()).unwrap();
    ns.link(kept, dir, b"twin").unwrap();
    let gone = world.file(dir, "gone");
    world.write(gone, 3, &[piece(0, 10, 2)]);
    let open = world.file(dir, "open");
    ns.unlink(dir, b"open").unwrap();
    ns.snapshot(&[Dataset::ROOT], "s", "").unwrap();
    world.write(kept, 0, &[piece(0, 10, 3)]);
    ns.setxattr(&ROOT_CALLER, kept, b"user.x", b"now", Default::default()).unwrap();
    ns.setxattr(&ROOT_CALLER, kept, b"user.y", b"now", Default::default()).unwrap();
    ns.unlink(dir, b"gone").unwrap();
    ns.unlink(dir, b"twin").unwrap();
    ns.purged(&[gone, open]).unwrap();
    ns.snapshot(&[Dataset::ROOT], "later", "").unwrap();
    for number in 0..70 {
        let new = world.file(Ino::ROOT, &format!("new{number}"));
        world.write(new, 0, &[piece(0, 10, 4)]);
    }
    world.write(kept, 0, &[piece(0, 10, 5)]);
    ns.link(kept, Ino::ROOT, b"other").unwrap();
    ns.rename(Ino::ROOT, b"d", Ino::ROOT, b"e", Default::default()).unwrap();
    ns.unlink(Ino::ROOT, b"new0").unwrap();
    (world, open)
}

fn assert_restored(world: &World, open: Ino) {
    let ns = &world.ns;
    assert_eq!(world.names(Ino::ROOT), ["d"]);
    let dir = ns.lookup(Ino::ROOT, b"d").unwrap();
    assert_eq!(dir.parent, Ino::ROOT);
    assert_eq!(world.names(dir.ino), ["gone", "kept", "twin"]);
    let kept = ns.lookup(dir.ino, b"kept").unwrap().ino;
    assert_eq!(ns.getxattr(kept, b"user.x").unwrap(), b"then");
    assert_eq!(ns.listxattr(kept).unwrap().len(), 1);
    assert_eq!(ns.slot(kept, 0).unwrap(), [piece(0, 10, 1)]);
    let orphans = ns.orphans(None, 10).unwrap();
    assert_eq!(orphans.iter().map(|ino| ino.object()).collect::<Vec<_>>(), [open.object()]);
    for number in 1..6 {
        assert_eq!(ns.is_referenced(block(number).id).unwrap(), number < 3, "{number}");
    }
    while ns.sweep_some(100).unwrap().more {}
    assert_eq!(world.ns.snapshots(Dataset::ROOT).unwrap().len(), 1);
    world.assert_sound();
}

#[test]
fn a_rollback_restores_everything_and_makes_old_numbers_stale() {
    let (world, open) = sample();
    let ns = &world.ns;
    let old = ns.lookup(Ino::ROOT, b"e").unwrap().ino;
    let refused = ns.rollback(Dataset::ROOT, "s", false);
    assert!(matches!(refused, Err(TreeError::InTheWay(names)) if names == ["later"]));
    ns.hold(Dataset::ROOT, "later", "tag").unwrap();
    let refused = ns.rollback(Dataset::ROOT, "s", true);
    assert!(matches!(refused, Err(TreeError::Held(tags)) if tags == ["tag"]));
    ns.release(Dataset::ROOT, "later", "tag").unwrap();
    let mut freed = ns.rollback(Dataset::ROOT, "s", true).unwrap().unreferenced;
    freed.sort_unstable();
    assert_eq!(freed, [block(3).id, block(4).id, block(5).id]);
    assert_eq!(fails(ns.getattr(old)), "ESTALE");
    assert_eq!(fails(ns.mkdir(&USER, old, b"late", 0o755, 0)), "ESTALE");
    assert_restored(&world, open);
    // Again, and on from there.
    world.file(Ino::ROOT, "after");
    world.ns.rollback(Dataset::ROOT, "s", false).unwrap();
    assert_restored(&world.crash(), open);
}

#[test]
fn a_rollback_that_a_crash_interrupts_is_finished_by_the_next_open() {
    for commits in 0..1000 {
        let (world, open) = sample();
        world.ns.sync().unwrap();
        world.store.fail_after(commits);
        let done = world.ns.rollback(Dataset::ROOT, "s", true).is_ok();
        let world = if commits % 2 == 0 { world.crash() } else { world.power_loss() };
        if world.ns.find_snapshot(Dataset::ROOT, "later").is_ok() {
            assert!(world.ns.lookup(Ino::ROOT, b"e").is_ok(), "nothing half done");
        } else {
            assert_restored(&world, open);
        }
        if done {
            assert!(commits > 3, "the rollback takes several batches");
            return;
        }
    }
    panic!("the rollback never ended");
}

#[test]
fn the_snapshot_that_a_rollback_goes_to_stays_until_its_end() {
    let world = World::new();
    let ns = &world.ns;
    let dataset = ns.create_dataset(&ROOT_CALLER, Ino::ROOT, b"d", 0o755, &[]).unwrap();
    let root = ns.live_root(dataset).unwrap();
    let file = world.file(root, "f");
    world.write(file, 0, &[piece(0, 10, 1)]);
    ns.snapshot(&[dataset], "s", "").unwrap();
    world.write(file, 0, &[piece(0, 10, 2)]);
    let clone = ns.clone_snapshot(&ROOT_CALLER, (dataset, "s"), Ino::ROOT, b"c").unwrap();
    ns.destroy_snapshots(&[(dataset, "s")], true).unwrap();
    ns.begin_rollback(dataset, "s", false).unwrap();
    ns.destroy_dataset(clone, true).unwrap();
    while ns.sweep_some(100).unwrap().more {}
    assert_eq!(ns.snapshots(dataset).unwrap().len(), 1, "the rollback reads it");
    // It is finished by the next open.
    let world = world.crash();
    let ns = &world.ns;
    assert_eq!(ns.snapshots(dataset).unwrap(), [], "nothing needs it any more");
    while ns.sweep_some(100).unwrap().more {}
    let file = ns.lookup(ns.live_root(dataset).unwrap(), b"f").unwrap().ino;
    assert_eq!(ns.slot(file, 0).unwrap(), [piece(0, 10, 1)]);
    world.assert_sound();
}
