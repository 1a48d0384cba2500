//! What changed between two states, and how many bytes each holds.

use super::*;
use crate::namespace::diff::Limits;
use crate::types::RenameMode;

fn take(world: &World, name: &str) -> Ino {
    world.ns.snapshot(&[Dataset::ROOT], name, "").unwrap()[0].root
}

/// Each difference as `zfs diff` writes it, in the order in which they come.
fn told(world: &World, older: Ino, newer: Ino, limits: Limits) -> Vec<String> {
    let mut found = Vec::new();
    let text = |path: &Option<Vec<u8>>| {
        path.as_ref().map_or("?".to_owned(), |path| String::from_utf8(path.clone()).unwrap())
    };
    world
        .ns
        .diff_within(older, newer, limits, &mut |difference| {
            found.push(match difference.change {
                ChangeKind::Added => format!("+ {}", text(&difference.after)),
                ChangeKind::Removed => format!("- {}", text(&difference.before)),
                ChangeKind::Modified => format!("M {}", text(&difference.after)),
                ChangeKind::Renamed => {
                    format!("R {} {}", text(&difference.before), text(&difference.after))
                }
            });
            true
        })
        .unwrap();
    found
}

fn diff(world: &World, older: Ino, newer: Ino) -> Vec<String> {
    let mut found = told(world, older, newer, Limits::default());
    found.sort();
    found
}

#[test]
fn a_diff_tells_what_changed_and_nothing_else() {
    let world = World::new();
    let ns = &world.ns;
    let dir = world.dir(Ino::ROOT, "d");
    for name in ["kept", "changed", "moved", "gone", "linked", "mode"] {
        let file = world.file(dir, name);
        world.write(file, 0, &[piece(0, 10, 1)]);
    }
    let first = take(&world, "1");
    assert_eq!(diff(&world, first, Ino::ROOT), Vec::<String>::new());
    world.clock.tick();
    let find = |name: &[u8]| ns.lookup(dir, name).unwrap().ino;
    world.write(find(b"changed"), 0, &[piece(0, 10, 2)]);
    ns.rename(dir, b"moved", Ino::ROOT, b"there", RenameMode::Replace).unwrap();
    let gone = ns.unlink(dir, b"gone").unwrap().inode.ino;
    ns.purged(&[gone]).unwrap();
    ns.link(find(b"linked"), Ino::ROOT, b"second").unwrap();
    let perm = crate::types::SetAttr { perm: Some(0o600), ..Default::default() };
    ns.setattr(&ROOT_CALLER, find(b"mode"), &perm).unwrap();
    let passing = world.file(Ino::ROOT, "passing");
    let second = take(&world, "2");
    ns.unlink(Ino::ROOT, b"passing").unwrap();
    ns.purged(&[passing]).unwrap();
    world.file(dir, "new");
    let expected = [
        "+ /passing",
        "+ /second",
        "- /d/gone",
        "M /",
        "M /d",
        "M /d/changed",
        "M /d/mode",
        "R /d/moved /there",
    ];
    assert_eq!(diff(&world, first, second), expected);
    assert_eq!(diff(&world, second, Ino::ROOT), ["+ /d/new", "- /passing", "M /", "M /d"]);
    let all = diff(&world, first, Ino::ROOT);
    assert!(all.contains(&"+ /d/new".to_owned()) && !all.contains(&"+ /passing".to_owned()));
    assert!(matches!(ns.diff(second, first, &mut |_| true), Err(TreeError::Unrelated)));
}

#[test]
fn a_diff_is_complete_over_many_nodes_and_objects() {
    let world = World::new();
    let dir = world.dir(Ino::ROOT, "d");
    let files: Vec<Ino> = (0..300).map(|n| world.file(dir, &format!("f{n}"))).collect();
    let first = take(&world, "first");
    // More entries than are read at once, over more nodes than one page has room for.
    for round in 0..300 {
        for file in files.iter().skip(round % 7).step_by(20) {
            world.write(*file, 0, &[piece(0, 10, round as u64)]);
        }
        take(&world, &format!("s{round}"));
    }
    let mut expected: Vec<_> = (0..300)
        .filter(|n| (0..7).any(|skip| n % 20 == skip))
        .map(|n| format!("M /d/f{n}"))
        .collect();
    expected.sort();
    assert_eq!(diff(&world, first, Ino::ROOT), expected);
}

#[test]
fn a_clone_differs_from_its_origin_by_what_was_written_to_it() {
    let world = World::new();
    let ns = &world.ns;
    world.file(Ino::ROOT, "old");
    let first = take(&world, "1");
    world.file(Ino::ROOT, "between");
    take(&world, "2");
    world.file(Ino::ROOT, "late");
    ns.clone_snapshot(&ROOT_CALLER, (Dataset::ROOT, "2"), Ino::ROOT, b"clone").unwrap();
    let root = ns.lookup(Ino::ROOT, b"clone").unwrap().ino;
    world.file(root, "new");
    assert_eq!(diff(&world, first, root), ["+ /between", "+ /new", "M /"]);
    assert!(matches!(ns.diff(root, Ino::ROOT, &mut |_| true), Err(TreeError::Unrelated)));
}

/// A namespace as it is, and as an older version would have left it.
const AGES: [fn(World) -> World; 2] = [|world| world, World::without_links];

/// A file `a` with further names in a directory.
fn linked(world: &World, dir: Ino, names: &[&str]) -> Ino {
    let file = world.file(dir, "a");
    for name in names {
        world.ns.link(file, dir, name.as_bytes()).unwrap();
    }
    file
}

#[test]
fn every_name_of_a_file_with_several_is_told() {
    AGES.into_iter().for_each(every_name);
}

fn every_name(age: fn(World) -> World) {
    let world = World::new();
    let (d, e) = (world.dir(Ino::ROOT, "d"), world.dir(Ino::ROOT, "e"));
    let file = linked(&world, d, &["b", "c"]);
    let world = age(world);
    let ns = &world.ns;
    let first = take(&world, "1");
    ns.unlink(d, b"a").unwrap();
    ns.unlink(d, b"c").unwrap();
    let second = take(&world, "2");
    // In an older volume the inode remembers the last of these only.
    ns.link(file, d, b"v").unwrap();
    ns.link(file, e, b"w").unwrap();
    ns.link(file, Ino::ROOT, b"x").unwrap();
    let third = take(&world, "3");
    // One goes and one comes, of several.
    ns.rename(e, b"w", d, b"z", RenameMode::Replace).unwrap();
    let fourth = take(&world, "4");
    for name in [b"b", b"v", b"z"] {
        ns.unlink(d, name).unwrap();
    }
    ns.unlink(Ino::ROOT, b"x").unwrap();
    ns.purged(&[file]).unwrap();
    let new = linked(&world, e, &["n"]);
    ns.link(new, d, b"o").unwrap();
    assert_eq!(diff(&world, first, second), ["- /d/a", "- /d/c", "M /d"]);
    let expected = ["+ /d/v", "+ /e/w", "+ /x", "M /", "M /d", "M /e"];
    assert_eq!(diff(&world, second, third), expected);
    assert_eq!(diff(&world, third, fourth), ["M /d", "M /e", "R /e/w /d/z"]);
    let expected = ["+ /d/o", "+ /e/a", "+ /e/n", "- /d/b", "- /d/v", "- /d/z", "- /x"];
    let expected: Vec<_> = expected.into_iter().chain(["M /", "M /d", "M /e"]).collect();
    assert_eq!(diff(&world, fourth, Ino::ROOT), expected);
    // Over several states only the ends count.
    let all = diff(&world, first, fourth);
    let expected = ["+ /d/v", "+ /d/z", "+ /x", "- /d/a", "- /d/c", "M /", "M /d", "M /e"];
    assert_eq!(all, expected);
}

#[test]
fn a_changed_file_is_told_once_with_a_name_that_it_has() {
    AGES.into_iter().for_each(changed_file);
}

fn changed_file(age: fn(World) -> World) {
    let world = World::new();
    let (d, e) = (world.dir(Ino::ROOT, "d"), world.dir(Ino::ROOT, "e"));
    let (near, far) = (linked(&world, d, &["b"]), world.file(e, "far"));
    world.ns.link(far, d, b"gone").unwrap();
    let several = linked(&world, e, &["b"]);
    let world = age(world);
    let ns = &world.ns;
    // In an older volume these remember a name that they have lost; the second has its other one in
    // another directory.
    for (file, name) in [(near, "b"), (far, "gone")] {
        ns.link(file, d, b"last").unwrap();
        ns.unlink(d, b"last").unwrap();
        ns.unlink(d, name.as_bytes()).unwrap();
    }
    ns.link(several, e, b"c").unwrap();
    let first = take(&world, "1");
    for file in [near, far, several] {
        world.write(file, 0, &[piece(0, 10, 1)]);
    }
    ns.unlink(e, b"a").unwrap();
    let name = ns.path(several);
    assert!([&b"/e/b"[..], b"/e/c"].contains(&&name[..]));
    let changed = format!("M {}", String::from_utf8(name).unwrap());
    let expected = ["- /e/a", "M /d/a", "M /e", &changed, "M /e/far"];
    assert_eq!(diff(&world, first, Ino::ROOT), expected);
    for unnamed in 1..3 {
        let limits = Limits { unnamed, ..Limits::default() };
        let mut found = told(&world, first, Ino::ROOT, limits);
        found.sort();
        assert_eq!(found, expected);
    }
}

#[test]
fn names_that_have_no_room_are_told_all_the_same_and_in_the_same_order() {
    AGES.into_iter().for_each(names_without_room);
}

fn names_without_room(age: fn(World) -> World) {
    let world = World::new();
    let ns = &world.ns;
    let dirs: Vec<_> = (0..4).map(|n| world.dir(Ino::ROOT, &format!("d{n}"))).collect();
    let files: Vec<_> = (0..10).map(|n| world.file(dirs[n % 4], &format!("f{n}"))).collect();
    for (n, &file) in files.iter().enumerate() {
        ns.link(file, dirs[n % 4], format!("l{n}").as_bytes()).unwrap();
    }
    let crowd = world.file(Ino::ROOT, "crowd");
    for n in 0..100 {
        ns.link(crowd, dirs[n % 4], format!("old{n}").as_bytes()).unwrap();
    }
    let world = age(world);
    let ns = &world.ns;
    let first = take(&world, "1");
    for (n, &file) in files.iter().enumerate() {
        ns.unlink(dirs[n % 4], format!("l{n}").as_bytes()).unwrap();
        ns.link(file, dirs[3 - n % 4], format!("m{n}").as_bytes()).unwrap();
    }
    for n in 0..100 {
        ns.unlink(dirs[n % 4], format!("old{n}").as_bytes()).unwrap();
        ns.link(crowd, dirs[n % 3], format!("new{n}").as_bytes()).unwrap();
    }
    let all = told(&world, first, Ino::ROOT, Limits::default());
    assert_eq!(all, told(&world, first, Ino::ROOT, Limits::default()));
    assert_eq!(all.iter().filter(|line| line.starts_with("R ")).count(), 10);
    for sign in ["+ ", "- "] {
        assert_eq!(all.iter().filter(|line| line.starts_with(sign)).count(), 100);
    }
    let little = told(&world, first, Ino::ROOT, Limits { link_bytes: 1000, unnamed: 1 });
    let sorted = |lines: &[String]| {
        let mut lines = lines.to_vec();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&little), sorted(&all));
    let without_crowd = |lines: &[String]| -> Vec<String> {
        lines.iter().filter(|l| !l.contains("old") && !l.contains("new")).cloned().collect()
    };
    assert_eq!(without_crowd(&little), without_crowd(&all));
}

#[test]
fn the_cost_of_a_diff_grows_with_what_changed() {
    let (world, counting) = World::counted();
    let dir = world.dir(Ino::ROOT, "d");
    let files: Vec<Ino> = (0..20_000).map(|n| world.file(dir, &format!("f{n}"))).collect();
    for (n, &file) in files.iter().enumerate().take(100) {
        world.ns.link(file, dir, format!("l{n}").as_bytes()).unwrap();
    }
    let first = take(&world, "1");
    for (n, &file) in files.iter().enumerate().take(100) {
        match n % 4 {
            0 => drop(world.ns.unlink(dir, format!("f{n}").as_bytes()).unwrap()),
            1 => drop(world.ns.link(file, dir, format!("m{n}").as_bytes()).unwrap()),
            2 => drop(world.file(dir, &format!("new{n}"))),
            _ => drop(world.write(file, 0, &[piece(0, 10, n as u64)])),
        }
    }
    counting.reset();
    let found = diff(&world, first, Ino::ROOT);
    assert_eq!(found.len(), 101);
    let read = counting.read();
    assert!(read < 10_000, "{read} reads for 100 changes");
}

#[test]
fn hard_links_cost_no_look_at_what_lies_beside_them() {
    let (world, counting) = World::counted();
    let ns = &world.ns;
    let dir = world.dir(Ino::ROOT, "d");
    for n in 0..20_000 {
        world.file(dir, &format!("f{n}"));
    }
    let (lost, grown) = (linked(&world, dir, &["b", "c"]), world.file(dir, "g"));
    let first = take(&world, "1");
    // It loses the name that it remembers, and what changes has a name that did not; another one
    // gets more names than it remembers, in buckets that were empty.
    world.write(lost, 0, &[piece(0, 10, 1)]);
    let home = ns.name_in_parent(&ns.inode(lost).unwrap()).unwrap().unwrap();
    ns.unlink(dir, &home).unwrap();
    for name in [b"h", b"i", b"j"] {
        ns.link(grown, dir, name).unwrap();
    }
    counting.reset();
    let found = diff(&world, first, Ino::ROOT);
    let read = counting.read();
    let home = String::from_utf8(home).unwrap();
    let kept = found.iter().find(|line| line.starts_with("M /d/")).unwrap();
    assert!(["M /d/a", "M /d/b", "M /d/c"].contains(&&kept[..]) && !kept.ends_with(&home));
    let gone = format!("- /d/{home}");
    assert_eq!(found, ["+ /d/h", "+ /d/i", "+ /d/j", &gone, "M /d", kept]);
    assert!(read < 200, "{read} reads for two files and a directory");
}

#[test]
fn a_snapshot_knows_what_it_refers_to_holds_alone_and_brought() {
    let world = World::new();
    let ns = &world.ns;
    let whole = u64::from(SLOT_LEN);
    let files: Vec<Ino> = (0..3).map(|n| world.file(Ino::ROOT, &format!("f{n}"))).collect();
    for (n, &file) in files.iter().enumerate() {
        world.write(file, 0, &[piece(0, SLOT_LEN, n as u64)]);
    }
    let one = take(&world, "1");
    world.write(files[0], 0, &[piece(0, SLOT_LEN, 10)]);
    let two = take(&world, "2");
    world.write(files[0], 0, &[piece(0, SLOT_LEN, 11)]);
    // Block 1 goes on in another file, so that nothing holds it alone.
    world.write(files[2], 1, &[piece(0, SLOT_LEN, 1)]);
    world.write(files[1], 0, &[piece(0, SLOT_LEN, 12)]);
    for _ in 0..2 {
        let referenced = ns.referenced(Dataset::ROOT, "1").unwrap();
        assert_eq!(referenced, Referenced { bytes: 3 * whole, files: 4 });
        let referenced = ns.referenced(Dataset::ROOT, "2").unwrap();
        assert_eq!(referenced, Referenced { bytes: 3 * whole, files: 4 });
    }
    assert_eq!(ns.find_snapshot(Dataset::ROOT, "2").unwrap().referenced.unwrap().files, 4);
    assert_eq!((ns.written(one).unwrap(), ns.written(two).unwrap()), (3 * whole, whole));
    assert_eq!(ns.written(Ino::ROOT).unwrap(), 3 * whole);
    assert_eq!(ns.used(Dataset::ROOT, "1").unwrap(), whole);
    assert_eq!(ns.used(Dataset::ROOT, "2").unwrap(), whole);
    ns.destroy_snapshots(&[(Dataset::ROOT, "2")], false).unwrap();
    assert_eq!(ns.sweep_some(1000).unwrap().unreferenced, [block(10).id]);
    assert_eq!(ns.used(Dataset::ROOT, "1").unwrap(), whole);
}
