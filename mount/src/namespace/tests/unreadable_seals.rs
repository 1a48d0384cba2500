//! A digest of a snapshot that cannot be read: it stays as it is until a repair, which restores it or
//! says what is not proven any more.

use super::repair::{Kept, OPTIONS};
use super::*;
use crate::namespace::record::Seal;
use crate::namespace::seals::FlawKind;

const GARBAGE: &[u8] = &[1, 2, 3];

fn seal_key(world: &World, name: &str) -> [u8; 5] {
    key::meta_number(key::SEALS, world.ns.find_snapshot(Dataset::ROOT, name).unwrap().node.0)
}

/// Snapshots with these names, sealed, and a change before each.
fn taken(names: &[&str]) -> World {
    let world = World::new();
    for name in names {
        world.dir(Ino::ROOT, &format!("before {name}"));
        world.take(name);
    }
    world.seal_all(9);
    world
}

fn spoilt(world: World, name: &str) -> World {
    let key = seal_key(&world, name);
    world.alter(|batch, _| batch.put(Space::Meta, &key, GARBAGE.to_vec()))
}

fn destroy(world: &World, names: &[&str]) -> TreeResult<()> {
    let named: Vec<_> = names.iter().map(|name| (Dataset::ROOT, *name)).collect();
    world.ns.destroy_snapshots(&named, false)
}

fn repaired(world: &World) -> (Repaired, Kept) {
    let mut kept = Kept::default();
    let repaired = world.ns.repair(OPTIONS, &mut kept).unwrap();
    (repaired, kept)
}

#[test]
fn nothing_is_written_over_it_and_nothing_beside_it_goes() {
    let world = spoilt(taken(&["a", "b", "c", "d"]), "c");
    let key = seal_key(&world, "c");
    for gone in [&["b"][..], &["c"], &["b", "c"]] {
        let refused = destroy(&world, gone);
        assert!(matches!(refused, Err(TreeError::UnreadableDigest(name)) if name == "@c"));
    }
    assert_eq!(world.store.get(Space::Meta, &key).unwrap().unwrap(), GARBAGE);
    // Further away nothing is lost, and what is behind it gets no digest that follows from nothing.
    destroy(&world, &["a"]).unwrap();
    world.take("e");
    world.seal_all(9);
    assert_eq!(world.store.get(Space::Meta, &key).unwrap().unwrap(), GARBAGE);
    assert_eq!([world.flaws("b"), world.flaws("c")], [vec![], vec![FlawKind::Chain]]);
    assert_eq!(world.flaws("e"), [FlawKind::Chain], "that of c alone");
    // With all that is behind it, it may go.
    destroy(&world, &["b", "d", "c", "e"]).unwrap();
    assert_eq!(world.store.get(Space::Meta, &key).unwrap(), None);
    world.crash().assert_sound();
}

#[test]
fn what_is_behind_an_unreadable_one_waits_for_it() {
    let world = spoilt(taken(&["a", "b"]), "b");
    world.take("c");
    assert_eq!(
        world
            .ns
            .sum_some(world.ns.find_snapshot(Dataset::ROOT, "c").unwrap().node, &mut || true)
            .unwrap(),
        Sealing::Behind
    );
    assert_eq!(world.seal("c"), None);
}

#[test]
fn a_repair_restores_it_as_the_next_one_says() {
    for (name, with_sum) in [("a", true), ("b", true), ("b", false)] {
        let world = taken(&["a", "b", "c"]);
        let before: Vec<Option<Seal>> = ["a", "b", "c"].map(|name| world.seal(name)).into();
        let node = world.ns.find_snapshot(Dataset::ROOT, name).unwrap().node;
        let mut world = spoilt(world, name);
        if !with_sum {
            let key = key::meta_number(key::SUMS, node.0);
            world = world.alter(|batch, _| batch.put(Space::Meta, &key, GARBAGE.to_vec()));
        }
        let (done, kept) = repaired(&world);
        assert_eq!(done.remaining.findings, [], "{name}");
        let mended = (FindingKind::SnapshotDigest, Fate::Mended);
        assert_eq!(done.counts[&mended], 2 - u64::from(with_sum));
        assert!(kept.records.iter().any(|(_, _, value)| value == GARBAGE));
        let world = world.power_loss();
        let after: Vec<_> = ["a", "b", "c"].map(|name| world.seal(name)).into();
        assert_eq!(after, before);
        assert_eq!(world.flaws("c"), []);
        assert_eq!(world.ns.sum_of(node).unwrap().unwrap().next, None);
        world.assert_sound();
    }
}

#[test]
fn several_in_a_row_are_restored_through_each_other() {
    let names = ["a", "b", "c", "d", "e"];
    for (spoils, with_sum) in
        [(&["b", "c"][..], true), (&["a", "b", "c"], true), (&["b", "c"], false)]
    {
        let mut world = taken(&names);
        let before = names.map(|name| world.seal(name));
        for name in spoils {
            let node = world.ns.find_snapshot(Dataset::ROOT, name).unwrap().node;
            world = spoilt(world, name);
            if !with_sum {
                let key = key::meta_number(key::SUMS, node.0);
                world = world.alter(|batch, _| batch.put(Space::Meta, &key, GARBAGE.to_vec()));
            }
        }
        let (done, _) = repaired(&world);
        assert_eq!(done.remaining.findings, [], "{spoils:?}");
        assert!(!done.counts.contains_key(&(FindingKind::SnapshotDigest, Fate::Dropped)));
        let world = world.power_loss();
        assert_eq!(names.map(|name| world.seal(name)), before, "{spoils:?}");
        assert_eq!(world.flaws("e"), []);
        world.assert_sound();
    }
    // Of the last ones none is behind that proves them, and of more in a row than are looked at.
    let world = spoilt(spoilt(taken(&names), "d"), "e");
    let (done, _) = repaired(&world);
    assert_eq!(done.counts[&(FindingKind::SnapshotDigest, Fate::Dropped)], 2, "{:?}", done.repairs);
    assert_eq!(done.remaining.findings, []);
    world.seal_all(9);
    assert_eq!(world.flaws("e"), []);
}

#[test]
fn where_nobody_knows_it_the_proof_begins_behind() {
    let world = taken(&["a", "b", "c", "d", "e", "f"]);
    destroy(&world, &["b"]).unwrap();
    let known = [world.seal("a"), world.seal("e"), world.seal("f")];
    let lost = [world.seal("c"), world.seal("d")];
    // With it goes what stands for the one that was destroyed.
    let world = spoilt(world, "c");
    let (done, kept) = repaired(&world);
    assert_eq!(done.counts[&(FindingKind::SnapshotDigest, Fate::Dropped)], 2, "{:?}", done.repairs);
    assert_eq!(done.remaining.findings, []);
    assert!(kept.records.iter().any(|(_, _, value)| value == GARBAGE));
    let world = world.power_loss();
    assert_eq!([world.seal("c"), world.seal("d")], [None, None]);
    world.seal_all(9);
    assert_eq!([world.seal("a"), world.seal("e"), world.seal("f")], known);
    for (name, old) in ["c", "d"].into_iter().zip(lost) {
        let (new, old) = (world.seal(name).unwrap(), old.unwrap());
        assert_eq!((new.root == old.root, new.digest == old.digest), (true, false), "{name}");
    }
    for name in ["a", "c", "d", "e", "f"] {
        let proof = world.prove(name);
        assert_eq!(
            (&proof.flaws[..], proof.is_cut),
            (&[][..], ["e", "f"].contains(&name)),
            "{name}"
        );
    }
    world.assert_sound();
    destroy(&world, &["c", "d"]).unwrap();
    assert_eq!(world.flaws("f"), []);
    world.power_loss().assert_sound();
}

#[test]
fn the_last_one_and_one_of_nobody_go() {
    let world = spoilt(taken(&["a", "b"]), "b");
    let before = world.ns.sum_of(world.ns.find_snapshot(Dataset::ROOT, "b").unwrap().node).unwrap();
    let nobody = key::meta_number(key::SEALS, 9999);
    let world = world.alter(|batch, _| batch.put(Space::Meta, &nobody, GARBAGE.to_vec()));
    let (done, _) = repaired(&world);
    assert_eq!(done.counts[&(FindingKind::SnapshotDigest, Fate::Dropped)], 2);
    assert_eq!(done.remaining.findings, []);
    world.seal_all(9);
    let root = crate::namespace::tree::chain::root_of(Ino::ROOT.0, &before.unwrap().lanes);
    assert_eq!(world.seal("b").unwrap().root, root);
    assert_eq!(world.flaws("b"), []);
}

#[test]
fn what_was_altered_is_not_restored_and_still_told() {
    let world = taken(&["a", "b", "c"]);
    let dir = world.ns.lookup(Ino::ROOT, b"before a").unwrap().ino;
    let key = key::head(Dataset::ROOT, dir, Kind::Inode);
    let world = spoilt(world, "b").alter(|batch, store| {
        let value = store.get(Space::Head, &key).unwrap().unwrap();
        let (version, record) = Version::split(&value).unwrap();
        let inode = Inode::decode(dir, version, record).unwrap();
        batch.put(Space::Head, &key, Inode { uid: inode.uid + 1, ..inode }.encode());
    });
    let (done, _) = repaired(&world);
    assert_eq!(done.counts[&(FindingKind::SnapshotDigest, Fate::Mended)], 1);
    // The sum that was sealed tells what the digest was, and so that something else shows now.
    for name in ["a", "b", "c"] {
        assert_eq!(world.flaws(name), [FlawKind::Tree], "{name}");
    }
}

#[test]
fn a_note_with_a_key_that_means_nothing_holds_up_no_digest() {
    let world = World::new();
    world.dir(Ino::ROOT, "dir");
    let world = world.alter(|batch, _| batch.put(Space::Meta, &[key::AWAITED, 0, 0], Bytes::new()));
    world.take("a");
    world.seal_all(9);
    assert_eq!(world.flaws("a"), []);
    let (done, _) = repaired(&world);
    assert_eq!((done.remaining.found, done.found[&FindingKind::Damaged]), (0, 1));
}
