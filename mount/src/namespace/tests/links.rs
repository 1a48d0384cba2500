//! Every name of a file with several has its record, whatever happens to names.

use std::collections::BTreeSet;

use super::*;
use crate::namespace::key::{HeadKey, LinkAt};
use crate::namespace::names::NameHash;
use crate::namespace::record::{InodeFlags, link_name};
use crate::types::RenameMode;

/// The names that link records say a file has in the state of `root`, by directory.
fn recorded(world: &World, root: Ino, file: Ino) -> BTreeSet<(u64, String)> {
    let ns = &world.ns;
    let view = ns.view(root).unwrap();
    let from = key::head(view.line, file, Kind::Link);
    let end = key::head_end(view.line, file, Kind::Link);
    let scan = ns.scan(&view, &from, &end, 2000).unwrap();
    assert_eq!(scan.next, None);
    let names = scan.items.iter().map(|item| {
        let at = LinkAt::decode(HeadKey::decode(&item.key).unwrap().sub).unwrap();
        let name = link_name(item.record().unwrap()).unwrap();
        (at.dir, String::from_utf8(name.to_vec()).unwrap())
    });
    names.collect()
}

/// Fails unless a file has records of exactly these names, and remembers one of them.
#[track_caller]
fn assert_links(world: &World, root: Ino, file: Ino, names: &[(Ino, &str)]) {
    let ino = world.ns.view(root).unwrap().lift(Ino(file.object()));
    let inode = world.ns.inode(ino).unwrap();
    let expected: BTreeSet<_> =
        names.iter().map(|(dir, name)| (dir.object(), (*name).to_owned())).collect();
    let home = world.ns.name_in_parent(&inode).unwrap().expect("it remembers a name that it has");
    let home = (inode.parent.object(), String::from_utf8(home).unwrap());
    assert!(expected.contains(&home), "{home:?}");
    let has_links = names.len() > 1;
    assert_eq!(inode.flags.has(InodeFlags::LINKS), has_links);
    let found = recorded(world, root, file);
    assert_eq!(found, if has_links { expected } else { BTreeSet::new() });
    world.assert_sound();
}

/// Worlds in which names lie apart, and in which all of a directory's lie together.
fn worlds() -> impl Iterator<Item = World> {
    [u64::MAX, 0].into_iter().map(|mask| {
        let mut world = World::new();
        world.ns.names = NameHash::weak(SEED, mask);
        world
    })
}

const HERE: Ino = Ino::ROOT;

#[test]
fn names_that_come_and_go_keep_their_records() {
    for world in worlds() {
        let ns = &world.ns;
        let d = world.dir(HERE, "d");
        let file = world.file(HERE, "a");
        assert_links(&world, HERE, file, &[(HERE, "a")]);
        ns.link(file, d, b"b").unwrap();
        assert_links(&world, HERE, file, &[(HERE, "a"), (d, "b")]);
        ns.link(file, HERE, b"c").unwrap();
        ns.link(file, HERE, b"e").unwrap();
        // The remembered one, another, and down to the last.
        ns.unlink(HERE, b"e").unwrap();
        assert_links(&world, HERE, file, &[(HERE, "a"), (d, "b"), (HERE, "c")]);
        ns.unlink(HERE, b"a").unwrap();
        assert_links(&world, HERE, file, &[(d, "b"), (HERE, "c")]);
        ns.link(file, d, b"x").unwrap();
        ns.unlink(d, b"x").unwrap();
        ns.unlink(HERE, b"c").unwrap();
        assert_links(&world, HERE, file, &[(d, "b")]);
        ns.link(file, HERE, b"a").unwrap();
        assert_links(&world, HERE, file, &[(HERE, "a"), (d, "b")]);
        for (dir, name) in [(HERE, b"a"), (d, b"b")] {
            ns.unlink(dir, name).unwrap();
        }
        ns.purged(&[file]).unwrap();
        assert!(recorded(&world, HERE, file).is_empty());
        world.assert_sound();
    }
}

#[test]
fn names_that_change_keep_their_records() {
    for world in worlds() {
        let ns = &world.ns;
        let d = world.dir(HERE, "d");
        let (one, two) = (world.file(HERE, "a"), world.file(d, "p"));
        ns.link(one, HERE, b"b").unwrap();
        ns.link(two, d, b"q").unwrap();
        let rename = |from: (Ino, &str), to: (Ino, &str), mode| {
            ns.rename(from.0, from.1.as_bytes(), to.0, to.1.as_bytes(), mode).unwrap();
        };
        // To a free name, in the same directory and in another; both the remembered one and another.
        rename((HERE, "b"), (HERE, "c"), RenameMode::Replace);
        assert_links(&world, HERE, one, &[(HERE, "a"), (HERE, "c")]);
        rename((HERE, "a"), (d, "a"), RenameMode::NoReplace);
        assert_links(&world, HERE, one, &[(d, "a"), (HERE, "c")]);
        rename((HERE, "c"), (HERE, "a"), RenameMode::Replace);
        assert_links(&world, HERE, one, &[(d, "a"), (HERE, "a")]);
        // Over a name of another file with several, which then has one.
        rename((HERE, "a"), (d, "q"), RenameMode::Replace);
        assert_links(&world, HERE, one, &[(d, "a"), (d, "q")]);
        assert_links(&world, HERE, two, &[(d, "p")]);
        // Over another name of the same file: nothing happens.
        rename((d, "a"), (d, "q"), RenameMode::Replace);
        rename((d, "a"), (d, "q"), RenameMode::Exchange);
        assert_links(&world, HERE, one, &[(d, "a"), (d, "q")]);
        // Exchanged with a file of one name, of several, and with a directory.
        rename((d, "p"), (d, "q"), RenameMode::Exchange);
        assert_links(&world, HERE, one, &[(d, "a"), (d, "p")]);
        assert_links(&world, HERE, two, &[(d, "q")]);
        ns.link(two, HERE, b"z").unwrap();
        rename((HERE, "z"), (d, "a"), RenameMode::Exchange);
        assert_links(&world, HERE, one, &[(HERE, "z"), (d, "p")]);
        assert_links(&world, HERE, two, &[(d, "a"), (d, "q")]);
        world.dir(HERE, "e");
        rename((HERE, "e"), (d, "q"), RenameMode::Exchange);
        assert_links(&world, HERE, two, &[(d, "a"), (HERE, "e")]);
        // Over the last name of a file.
        world.file(HERE, "single");
        rename((HERE, "z"), (HERE, "single"), RenameMode::Replace);
        assert_links(&world, HERE, one, &[(HERE, "single"), (d, "p")]);
        let orphans = ns.orphans(None, 10).unwrap();
        ns.purged(&orphans).unwrap();
        world.assert_sound();
    }
}

#[test]
fn records_outlive_a_crash_or_go_with_their_names() {
    let world = World::new();
    let file = world.file(HERE, "a");
    world.ns.link(file, HERE, b"b").unwrap();
    let world = world.crash();
    assert_links(&world, HERE, file, &[(HERE, "a"), (HERE, "b")]);
    world.ns.sync().unwrap();
    world.ns.unlink(HERE, b"b").unwrap();
    let world = world.power_loss();
    assert_links(&world, HERE, file, &[(HERE, "a"), (HERE, "b")]);
}

#[test]
fn snapshots_keep_their_records_and_a_rollback_brings_them_back() {
    let world = World::new();
    let ns = &world.ns;
    let file = world.file(HERE, "a");
    for name in ["b", "c"] {
        ns.link(file, HERE, name.as_bytes()).unwrap();
    }
    let three = [(HERE, "a"), (HERE, "b"), (HERE, "c")];
    let root = ns.snapshot(&[Dataset::ROOT], "s", "").unwrap()[0].root;
    for name in ["c", "a"] {
        ns.unlink(HERE, name.as_bytes()).unwrap();
    }
    let new = world.file(HERE, "n");
    ns.link(new, HERE, b"m").unwrap();
    assert_links(&world, HERE, file, &[(HERE, "b")]);
    assert_links(&world, root, file, &three);
    ns.rollback(Dataset::ROOT, "s", false).unwrap();
    assert_links(&world, HERE, file, &three);
    assert!(recorded(&world, HERE, new).is_empty());
    ns.unlink(HERE, b"c").unwrap();
    ns.destroy_snapshots(&[(Dataset::ROOT, "s")], false).unwrap();
    while ns.sweep_some(100).unwrap().more {}
    assert_links(&world, HERE, Ino(file.object()), &three[..2]);
    let history = world.store.page(Space::History, &[], None, 100).unwrap();
    assert!(history.items.is_empty());
}

#[test]
fn a_clone_has_the_records_of_its_origin_and_its_own() {
    let world = World::new();
    let ns = &world.ns;
    let file = world.file(HERE, "a");
    for name in ["b", "c"] {
        ns.link(file, HERE, name.as_bytes()).unwrap();
    }
    ns.snapshot(&[Dataset::ROOT], "s", "").unwrap();
    ns.clone_snapshot(&ROOT_CALLER, (Dataset::ROOT, "s"), HERE, b"clone").unwrap();
    let root = ns.lookup(HERE, b"clone").unwrap().ino;
    let three = [(HERE, "a"), (HERE, "b"), (HERE, "c")];
    assert_links(&world, root, file, &three);
    ns.unlink(root, b"c").unwrap();
    assert_links(&world, root, file, &three[..2]);
    assert_links(&world, HERE, file, &three);
    ns.unlink(root, b"b").unwrap();
    assert_links(&world, root, file, &three[..1]);
    let clone = ns.view(root).unwrap().dataset;
    ns.promote(clone).unwrap();
    ns.link(ns.view(root).unwrap().lift(file), root, b"d").unwrap();
    assert_links(&world, root, file, &[(HERE, "a"), (HERE, "d")]);
    assert_links(&world, HERE, file, &three);
}

#[test]
fn a_file_of_an_older_volume_gets_records_once_it_has_one_name_that_it_knows() {
    let world = World::new();
    let (sure, lost) = (world.file(HERE, "a"), world.file(HERE, "p"));
    world.ns.link(sure, HERE, b"b").unwrap();
    world.ns.link(lost, HERE, b"q").unwrap();
    let world = world.without_links();
    let ns = &world.ns;
    let has_links =
        |ino| ns.inode(ino).unwrap().flags.has(InodeFlags::LINKS).then(|| world.assert_sound());
    for file in [sure, lost] {
        ns.link(file, HERE, format!("new{}", file.0).as_bytes()).unwrap();
        assert!(recorded(&world, HERE, file).is_empty());
        ns.unlink(HERE, format!("new{}", file.0).as_bytes()).unwrap();
    }
    // Neither remembers a name that it has; a new name is known for sure.
    assert_eq!(ns.path(sure), format!("<inode {}>", sure.0).into_bytes());
    ns.rename(HERE, b"a", HERE, b"c", RenameMode::Replace).unwrap();
    ns.unlink(HERE, b"b").unwrap();
    ns.unlink(HERE, b"q").unwrap();
    ns.link(lost, HERE, b"r").unwrap();
    assert_eq!(has_links(lost), None, "its first name is not known");
    ns.link(sure, HERE, b"d").unwrap();
    assert_links(&world, HERE, sure, &[(HERE, "c"), (HERE, "d")]);
    assert!(recorded(&world, HERE, lost).is_empty());
    for name in ["p", "r"] {
        ns.unlink(HERE, name.as_bytes()).unwrap();
    }
    ns.purged(&[lost]).unwrap();
    world.assert_sound();
}

#[test]
fn who_does_not_know_link_records_refuses_a_volume_that_may_have_some() {
    let features = |world: &World| {
        let stored = world.store.get(Space::Meta, key::VOLUME).unwrap().unwrap();
        VolumeRecord::decode(&stored).unwrap().features
    };
    let world = World::new();
    assert_ne!(features(&world) & VolumeRecord::LINKS, 0);
    // Set by the first writable open, and kept by changes of the version tree.
    let world = world.without_counters();
    world.ns.snapshot(&[Dataset::ROOT], "s", "").unwrap();
    assert_ne!(features(&world) & VolumeRecord::LINKS, 0);
    let store = world.store.reopened();
    let volume = VolumeRecord::decode(&store.get(Space::Meta, key::VOLUME).unwrap().unwrap());
    let older = VolumeRecord { features: VolumeRecord::USAGE, ..volume.unwrap() };
    let mut batch = Batch::new();
    batch.put(Space::Meta, key::VOLUME, older.encode());
    store.commit(batch, Durability::Durable).unwrap();
    let store = Arc::new(store);
    let options = NamespaceOptions { read_only: true, ..NamespaceOptions::default() };
    let below = Arc::clone(&store) as Arc<dyn NamespaceStore>;
    drop(Namespace::open(below, world.clock.clone(), options).unwrap());
    let stored = store.get(Space::Meta, key::VOLUME).unwrap().unwrap();
    assert_eq!(VolumeRecord::decode(&stored).unwrap(), older);
}

/// Takes all names of a file but the last away in an order; returns how many records that read.
fn removal_cost(names: &[String]) -> usize {
    let (world, counting) = World::counted();
    let file = world.file(HERE, "first");
    for number in 0..names.len() {
        world.ns.link(file, HERE, format!("n{number:04}").as_bytes()).unwrap();
    }
    // So that what goes leaves whiteouts.
    world.ns.snapshot(&[Dataset::ROOT], "s", "").unwrap();
    counting.reset();
    world.ns.unlink(HERE, b"first").unwrap();
    let (last, others) = names.split_last().unwrap();
    for name in others {
        world.ns.unlink(HERE, name.as_bytes()).unwrap();
    }
    let read = counting.read();
    assert_links(&world, HERE, file, &[(HERE, last)]);
    read
}

#[test]
fn a_name_that_goes_costs_the_same_however_many_there_are() {
    let names: Vec<_> = (0..1000).map(|number| format!("n{number:04}")).collect();
    let mut listed = Vec::new();
    let world = World::new();
    for name in &names {
        world.file(HERE, name);
    }
    let mut list = |entry: &crate::types::DirEntry| {
        listed.push(String::from_utf8(entry.name.clone()).unwrap());
        true
    };
    world.ns.readdir(HERE, 2, false, &mut list).unwrap();
    assert_eq!(listed.len(), names.len());
    let backwards: Vec<_> = listed.iter().rev().cloned().collect();
    for order in [&names, &listed, &backwards] {
        let each = removal_cost(order) / order.len();
        assert!(each < 30, "{each} records read for one name");
    }
}
