//! What holds up a sweep, and what does not.

use super::*;

/// Two datasets, each with a file that changed since a snapshot; the blocks that only the snapshots
/// have.
fn twice_changed(world: &World) -> [(Dataset, Ino, Vec<BlockId>); 2] {
    let ns = &world.ns;
    let data = ns.create_dataset(&ROOT_CALLER, Ino::ROOT, b"data", 0o755, &[]).unwrap();
    let dir = ns.lookup(Ino::ROOT, b"data").unwrap().ino;
    let all = [(Dataset::ROOT, Ino::ROOT), (data, dir)];
    let files = [(all[0].1, 1), (all[1].1, 3)].map(|(dir, number)| {
        let file = world.file(dir, "file");
        world.write(file, 0, &[piece(0, 100, number)]);
        (file, number)
    });
    ns.snapshot(&[all[0].0, all[1].0], "s", "").unwrap();
    let mut sets = Vec::new();
    for ((dataset, _), (file, number)) in all.into_iter().zip(files) {
        world.write(file, 0, &[piece(0, 100, number + 1)]);
        sets.push((dataset, file, vec![block(number).id]));
    }
    sets.try_into().unwrap()
}

/// Sweeps until nothing is left that can be swept.
fn sweep_all(ns: &Namespace) -> Vec<BlockId> {
    let mut freed = Vec::new();
    loop {
        let swept = ns.sweep_some(1).unwrap();
        freed.extend(swept.unreferenced);
        if !swept.more {
            return freed;
        }
    }
}

#[test]
fn a_damaged_line_holds_up_nobody_but_itself() {
    let world = World::new();
    let [damaged, sound] = twice_changed(&world);
    let key = key::head_numbered(Dataset::ROOT, damaged.1, Kind::Extent, 0);
    let head = world.store.get(Space::Head, &key).unwrap().unwrap();
    let mut batch = Batch::new();
    batch.delete(Space::Head, &key);
    world.store.commit(batch, Durability::Durable).unwrap();
    let world = world.crash();
    for (dataset, ..) in [&damaged, &sound] {
        world.ns.destroy_snapshots(&[(*dataset, "s")], false).unwrap();
    }
    assert_eq!(sweep_all(&world.ns), sound.2);
    // What the damaged one may name is kept, and asked for no more.
    assert_eq!(sweep_all(&world.ns), []);
    assert_eq!(world.ns.held_up(), [Dataset::ROOT]);
    let mut batch = Batch::new();
    batch.put(Space::Head, &key, head);
    world.store.commit(batch, Durability::Durable).unwrap();
    let world = world.crash();
    assert_eq!(sweep_all(&world.ns), damaged.2);
    assert_eq!(world.ns.held_up(), []);
    world.assert_sound();
    world.assert_counted();
}

#[test]
fn a_disk_that_does_not_read_is_no_damaged_line() {
    let world = World::new();
    let [first, _] = twice_changed(&world);
    world.ns.destroy_snapshots(&[(Dataset::ROOT, "s")], false).unwrap();
    let key = key::head_numbered(Dataset::ROOT, first.1, Kind::Extent, 0);
    let ns = failing::Failing::open(&world, move |space, of| space == Space::Head && of == key);
    assert!(ns.sweep_some(9).is_err());
    assert_eq!(ns.held_up(), []);
}
