//! The structure check finds what is wrong and says where.

use super::*;
use crate::namespace::record::SlotRecord;

fn kinds(world: &World) -> Vec<(FindingKind, String)> {
    let report =
        world.ns.check(CheckOptions { window: 4, max_findings: 50, snapshots: false }).unwrap();
    let mut found: Vec<_> = report
        .findings
        .into_iter()
        .map(|finding| (finding.kind, String::from_utf8(finding.path).unwrap()))
        .collect();
    found.sort();
    found
}

/// A namespace with a directory, a file with an extent, and a file with two names.
fn sample() -> (World, Ino, Ino) {
    let world = World::new();
    let dir = world.dir(Ino::ROOT, "d");
    let file = world.file(dir, "f");
    world.write(file, 2, &[piece(0, 1000, 1)]);
    world.ns.setxattr(&ROOT_CALLER, file, b"user.x", b"1", Default::default()).unwrap();
    world.ns.symlink(&ROOT_CALLER, dir, b"l", b"target").unwrap();
    let twice = world.file(dir, "one");
    world.ns.link(twice, dir, b"two").unwrap();
    world.assert_sound();
    (world, dir, file)
}

fn edit(world: &World, edit: impl FnOnce(&mut Batch)) {
    let mut batch = Batch::new();
    edit(&mut batch);
    world.store.commit(batch, Durability::Buffered).unwrap();
    world.ns.cache.clear();
}

#[test]
fn a_missing_inode_is_found_from_both_sides() {
    let (world, _, file) = sample();
    let key = key::head(Dataset::ROOT, file, Kind::Inode);
    edit(&world, |batch| batch.delete(Space::Head, &key));
    let gone = format!("<inode {}>", file.0);
    assert_eq!(
        kinds(&world),
        [(FindingKind::NoInode, gone), (FindingKind::DanglingEntry, "/d/f".into())]
    );
}

#[test]
fn wrong_counts_are_found() {
    let (world, dir, file) = sample();
    for (ino, change) in
        [(file, (|inode| inode.nlink = 2) as fn(&mut Inode)), (dir, |inode| inode.size = 7)]
    {
        let mut inode = Inode::clone(&world.ns.inode(ino).unwrap());
        change(&mut inode);
        let key = key::head(Dataset::ROOT, ino, Kind::Inode);
        edit(&world, |batch| batch.put(Space::Head, &key, inode.encode()));
    }
    assert_eq!(
        kinds(&world),
        [(FindingKind::LinkCount, "/d/f".into()), (FindingKind::EntryCount, "/d".into())]
    );
}

#[test]
fn an_inode_without_a_name_is_found() {
    let (world, dir, _) = sample();
    let place = world.ns.place(dir, b"f").unwrap();
    let key = key::head_numbered(Dataset::ROOT, dir, Kind::Dentry, place.number);
    edit(&world, |batch| batch.delete(Space::Head, &key));
    let found: Vec<_> = kinds(&world).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(found, [FindingKind::LinkCount, FindingKind::EntryCount]);
}

#[test]
fn orphans_without_a_record_and_records_without_an_orphan_are_found() {
    let (world, dir, file) = sample();
    world.ns.unlink(dir, b"l").unwrap();
    let orphan = world.ns.orphans(None, 1).unwrap()[0];
    edit(&world, |batch| {
        batch.delete(Space::Meta, &key::meta_inode(key::ORPHANS, Dataset::ROOT, orphan));
        batch.put(Space::Meta, &key::meta_inode(key::ORPHANS, Dataset::ROOT, file), Bytes::new());
    });
    let found: Vec<_> = kinds(&world).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(found, [FindingKind::Orphan, FindingKind::Orphan]);
}

/// The two link records of the file that has two names.
fn link_records(world: &World, dir: Ino) -> Vec<(Bytes, Bytes)> {
    let twice = world.ns.lookup(dir, b"one").unwrap().ino;
    let from = key::head(Dataset::ROOT, twice, Kind::Link);
    let to = key::head_end(Dataset::ROOT, twice, Kind::Link);
    let found = world.store.page(Space::Head, &from, Some(&to), 9).unwrap().items;
    assert_eq!(found.len(), 2);
    found
}

#[test]
fn names_and_link_records_that_do_not_agree_are_found() {
    let (world, dir, _) = sample();
    let twice = world.ns.lookup(dir, b"one").unwrap().ino;
    let path = String::from_utf8(world.ns.path(twice)).unwrap();
    let about = |name: &str| (FindingKind::LinkRecord, name.to_owned());
    for (key, value) in link_records(&world, dir) {
        let name = format!("/d/{}", String::from_utf8_lossy(&value[2..]));
        edit(&world, |batch| batch.delete(Space::Head, &key));
        let mut expected = [about(&name), about(&path)];
        expected.sort();
        assert_eq!(kinds(&world), expected, "a name without its record");
        let mut other = value.to_vec();
        other[2] ^= 1;
        edit(&world, |batch| batch.put(Space::Head, &key, other));
        assert_eq!(kinds(&world), expected, "another name");
        edit(&world, |batch| batch.put(Space::Head, &key, value.clone()));
    }
    let (_, value) = link_records(&world, dir).remove(0);
    let nowhere = key::head_link(Dataset::ROOT, twice, key::LinkAt { dir: 1, cookie: 7 });
    edit(&world, |batch| batch.put(Space::Head, &nowhere, value));
    assert_eq!(kinds(&world), [about(&path), about(&path)], "one too many");
    edit(&world, |batch| batch.delete(Space::Head, &nowhere));
    world.assert_sound();
}

#[test]
fn link_records_of_a_file_with_one_name_are_found() {
    let (world, dir, file) = sample();
    let twice = world.ns.lookup(dir, b"one").unwrap().ino;
    let mut inode = Inode::clone(&world.ns.inode(twice).unwrap());
    inode.flags.set(record::InodeFlags::LINKS, false);
    let key = key::head(Dataset::ROOT, twice, Kind::Inode);
    edit(&world, |batch| batch.put(Space::Head, &key, inode.encode()));
    let found: Vec<_> = kinds(&world).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(found, [FindingKind::LinkRecord], "records, but no flag");
    inode.flags.set(record::InodeFlags::LINKS, true);
    inode.cookie += 1;
    edit(&world, |batch| batch.put(Space::Head, &key, inode.encode()));
    let found: Vec<_> = kinds(&world).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(found, [FindingKind::LinkRecord], "it remembers no name of its own");
    inode.cookie -= 1;
    edit(&world, |batch| batch.put(Space::Head, &key, inode.encode()));
    let mut single = Inode::clone(&world.ns.inode(file).unwrap());
    single.flags.set(record::InodeFlags::LINKS, true);
    let key = key::head(Dataset::ROOT, file, Kind::Inode);
    edit(&world, |batch| batch.put(Space::Head, &key, single.encode()));
    let found: Vec<_> = kinds(&world).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(found, [FindingKind::LinkRecord; 3], "a flag, but one name and no records");
}

#[test]
fn a_file_whose_link_records_are_lost_can_be_removed() {
    let (world, dir, _) = sample();
    let twice = world.ns.lookup(dir, b"one").unwrap().ino;
    for (key, _) in link_records(&world, dir) {
        edit(&world, |batch| batch.delete(Space::Head, &key));
    }
    for name in [&b"one"[..], b"two"] {
        world.ns.unlink(dir, name).unwrap();
    }
    world.ns.purged(&[twice]).unwrap();
    world.assert_sound();
}

#[test]
fn back_references_are_followed_both_ways() {
    let (world, _, file) = sample();
    let right = Backref { block: block(1).id, ino: file, slot: 2, node: Node::FIRST };
    edit(&world, |batch| {
        batch.delete(Space::Backrefs, &right.encode());
        batch.put(Space::Backrefs, &Backref { slot: 3, ..right }.encode(), Bytes::new());
    });
    assert_eq!(
        kinds(&world),
        [(FindingKind::MissingBackref, "/d/f".into()), (FindingKind::StaleBackref, "/d/f".into())]
    );
}

#[test]
fn content_that_does_not_fit_the_inode_is_found() {
    let (world, dir, file) = sample();
    let slot = key::head_numbered(Dataset::ROOT, file, Kind::Extent, 9);
    let unwritten = Piece { start: 0, len: 5, content: Content::Unwritten };
    let value = SlotRecord::encode(Version::first(Node::FIRST), &[unwritten]).unwrap();
    let link = world.ns.lookup(dir, b"l").unwrap().ino;
    edit(&world, |batch| {
        batch.put(Space::Head, &slot, value);
        batch.delete(Space::Head, &key::head(Dataset::ROOT, link, Kind::Symlink));
    });
    assert_eq!(
        kinds(&world),
        [(FindingKind::Content, "/d/f".into()), (FindingKind::Content, "/d/l".into())]
    );
}

#[test]
fn directories_that_hold_each_other_are_found() {
    let (world, dir, _) = sample();
    let below = world.dir(dir, "below");
    let mut inode = Inode::clone(&world.ns.inode(dir).unwrap());
    inode.parent = below;
    let key = key::head(Dataset::ROOT, dir, Kind::Inode);
    edit(&world, |batch| batch.put(Space::Head, &key, inode.encode()));
    let found: Vec<_> = kinds(&world).into_iter().map(|(kind, _)| kind).collect();
    assert!(found.contains(&FindingKind::Unreachable), "{found:?}");
}

#[test]
fn a_misplaced_entry_is_found() {
    let (world, dir, _) = sample();
    let place = world.ns.place(dir, b"l").unwrap();
    let from = key::head_numbered(Dataset::ROOT, dir, Kind::Dentry, place.number);
    let to = key::head_numbered(Dataset::ROOT, dir, Kind::Dentry, place.number ^ 0x100);
    let value = world.store.get(Space::Head, &from).unwrap().unwrap();
    edit(&world, |batch| {
        batch.delete(Space::Head, &from);
        batch.put(Space::Head, &to, value);
    });
    assert_eq!(kinds(&world), [(FindingKind::MisplacedEntry, "/d/l".into())]);
}

#[test]
fn every_damaged_record_is_named_and_the_rest_still_checked() {
    let (world, _, _) = sample();
    let records = world.store.page(Space::Head, &[], None, 1000).unwrap().items;
    assert!(records.len() >= 8);
    for (key, value) in &records {
        // A version that no program writes yet.
        let (_, record) = Version::split(value).unwrap();
        let mut bad = value.to_vec();
        let at = value.len() - record.len();
        if matches!(key::HeadKey::decode(key).unwrap().kind, Kind::Symlink | Kind::Xattr) {
            continue;
        }
        bad[at] = 0xee;
        edit(&world, |batch| batch.put(Space::Head, key, bad));
        let found = kinds(&world);
        assert!(found.iter().any(|(kind, _)| *kind == FindingKind::Damaged), "{key:?}: {found:?}");
        edit(&world, |batch| batch.put(Space::Head, key, value.clone()));
    }
    world.assert_sound();
}

#[test]
fn a_damaged_extent_is_an_error_for_its_bytes_only() {
    let (world, dir, file) = sample();
    world.write(file, 3, &[piece(0, 10, 2)]);
    let slot = key::head_numbered(Dataset::ROOT, file, Kind::Extent, 2);
    edit(&world, |batch| batch.put(Space::Head, &slot, &b"\x04\x01\xff"[..]));
    assert_eq!(fails(world.ns.slot(file, 2)), "EIO");
    assert_eq!(world.ns.slot(file, 3).unwrap().len(), 1);
    assert_eq!(world.names(dir), ["f", "l", "one", "two"]);
}

#[test]
fn a_key_with_a_wild_number_does_not_make_the_check_endless() {
    let (world, _, _) = sample();
    let key = key::head(Dataset::ROOT, Ino(u64::MAX), Kind::Symlink);
    edit(&world, |batch| batch.put(Space::Head, &key, &b"\x04x"[..]));
    let found: Vec<_> = kinds(&world).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(found, [FindingKind::Damaged, FindingKind::NoInode]);
}

#[test]
fn findings_are_counted_beyond_the_limit() {
    let world = World::new();
    for number in 0..20 {
        let file = world.file(Ino::ROOT, &number.to_string());
        let key = key::head(Dataset::ROOT, file, Kind::Inode);
        edit(&world, |batch| batch.delete(Space::Head, &key));
    }
    let report =
        world.ns.check(CheckOptions { window: 4, max_findings: 3, snapshots: false }).unwrap();
    assert_eq!((report.findings.len(), report.found), (3, 20));
}

#[test]
fn damage_of_older_versions_is_found() {
    let (world, dir, file) = sample();
    world.ns.snapshot(&[Dataset::ROOT], "s", "").unwrap();
    world.write(file, 2, &[piece(0, 10, 2)]);
    world.ns.unlink(dir, b"l").unwrap();
    world.assert_sound();
    let slot = key::head_numbered(Dataset::ROOT, file, Kind::Extent, 2);
    let inode = key::head(Dataset::ROOT, file, Kind::Inode);
    edit(&world, |batch| {
        let backref = Backref { block: block(1).id, ino: file, slot: 2, node: Node::FIRST };
        batch.delete(Space::Backrefs, &backref.encode());
        batch.delete(Space::History, &key::history(&inode, Node::FIRST));
        batch.put(Space::History, &key::history(&slot, Node(77)), Bytes::from_static(&[4]));
    });
    let options = CheckOptions { window: 4, max_findings: 50, snapshots: true };
    let report = world.ns.check(options).unwrap();
    let mut found: Vec<_> = report.findings.into_iter().map(|finding| finding.kind).collect();
    found.sort_unstable();
    found.dedup();
    // Its inode is not in the snapshot, but its name and its content are.
    let expected = [
        FindingKind::Damaged,
        FindingKind::NoInode,
        FindingKind::DanglingEntry,
        FindingKind::MissingBackref,
    ];
    assert_eq!(found, expected);
}

#[test]
fn blocks_of_snapshots_are_passed_as_well() {
    let (world, _, file) = sample();
    world.ns.snapshot(&[Dataset::ROOT], "s", "").unwrap();
    world.write(file, 2, &[piece(0, 10, 2)]);
    let mut found = Vec::new();
    let mut visit = |ino, slot, block: &firn_tiering::BlockRef| {
        found.push((ino, slot, block.id));
        Ok(())
    };
    world.ns.for_each_block(&mut visit).unwrap();
    assert_eq!(found, [(file, 2, block(2).id), (file, 2, block(1).id)]);
}

/// The key of the names in the root that have the hash of one.
fn bucket_key(world: &World, name: &[u8]) -> Vec<u8> {
    let number = world.ns.names.bucket(name);
    key::head_numbered(Dataset::ROOT, Ino::ROOT, Kind::Dentry, number).to_vec()
}

#[test]
fn a_disk_that_does_not_read_ends_the_check_and_is_no_finding() {
    let world = World::new();
    world.dir(Ino::ROOT, "dir");
    let file = world.file(Ino::ROOT, "one");
    world.ns.link(file, Ino::ROOT, b"two").unwrap();
    world.assert_sound();
    // The first read of the names is for a link record, the second for the name that its inode has.
    for (name, skipped) in [(b"dir", 0), (b"one", 0), (b"one", 1)] {
        let key = bucket_key(&world, name);
        let left = std::sync::atomic::AtomicUsize::new(skipped);
        let ns = failing::Failing::open(&world, move |space, of| {
            use std::sync::atomic::Ordering::Relaxed;
            let is_it = space == Space::Head && of == key;
            is_it && left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_err()
        });
        let error = ns.check(CheckOptions::default()).expect_err("it cannot be read");
        assert!(!error.is_damage(), "{error:?}");
    }
}
