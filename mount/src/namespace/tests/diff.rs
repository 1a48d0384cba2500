//! What changed between two states, and how many bytes each holds.

use super::*;
use crate::types::RenameMode;

fn take(world: &World, name: &str) -> Ino {
    world.ns.snapshot(&[Dataset::ROOT], name, "").unwrap()[0].root
}

/// Each difference as `zfs diff` writes it.
fn diff(world: &World, older: Ino, newer: Ino) -> Vec<String> {
    let mut found = Vec::new();
    let text = |path: &Option<Vec<u8>>| {
        path.as_ref().map_or("?".to_owned(), |path| String::from_utf8(path.clone()).unwrap())
    };
    world
        .ns
        .diff(older, newer, &mut |difference| {
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
    ns.purge(&[gone]).unwrap();
    ns.link(find(b"linked"), Ino::ROOT, b"second").unwrap();
    let perm = crate::types::SetAttr { perm: Some(0o600), ..Default::default() };
    ns.setattr(&ROOT_CALLER, find(b"mode"), &perm).unwrap();
    let passing = world.file(Ino::ROOT, "passing");
    let second = take(&world, "2");
    ns.unlink(Ino::ROOT, b"passing").unwrap();
    ns.purge(&[passing]).unwrap();
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
