//! Listings stay stable while names come and go.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::namespace::names::NameHash;

/// Reads a directory `page` entries at a time, as the kernel does.
fn list_in_pages(ns: &Namespace, dir: Ino, page: usize) -> Vec<(Vec<u8>, u64)> {
    let mut found = Vec::new();
    let mut cookie = 0;
    loop {
        let before = found.len();
        ns.readdir(dir, cookie, false, &mut |entry| {
            if found.len() - before == page {
                return false;
            }
            assert!(entry.cookie > cookie && entry.cookie < u64::MAX >> 1);
            cookie = entry.cookie;
            found.push((entry.name.clone(), entry.cookie));
            true
        })
        .unwrap();
        if found.len() == before {
            return found;
        }
    }
}

#[test]
fn pages_of_any_size_show_every_name_once() {
    for mask in [u64::MAX, 0xf00] {
        let mut world = World::new();
        world.ns.names = NameHash::weak(SEED, mask);
        for number in 0..700 {
            world.file(Ino::ROOT, &format!("name {number}"));
        }
        for page in [1, 2, 7, 1000] {
            let found = list_in_pages(&world.ns, Ino::ROOT, page);
            assert_eq!(found.len(), 702);
            assert_eq!((&*found[0].0, &*found[1].0), (&b"."[..], &b".."[..]));
            let names: BTreeSet<_> = found.iter().map(|(name, _)| name.clone()).collect();
            assert_eq!(names.len(), 702);
        }
        world.assert_sound();
    }
}

#[test]
fn a_refused_entry_comes_first_next_time() {
    let world = World::new();
    world.file(Ino::ROOT, "x");
    let mut seen = Vec::new();
    world
        .ns
        .readdir(Ino::ROOT, 0, false, &mut |entry| {
            seen.push(entry.name.clone());
            seen.len() < 2
        })
        .unwrap();
    assert_eq!(seen, [b".".to_vec(), b"..".to_vec()]);
    world
        .ns
        .readdir(Ino::ROOT, 1, false, &mut |entry| {
            seen.push(entry.name.clone());
            true
        })
        .unwrap();
    assert_eq!(seen[2..], [b"..".to_vec(), b"x".to_vec()]);
}

#[test]
fn colliding_names_keep_their_cookies() {
    let mut world = World::new();
    world.ns.names = NameHash::weak(SEED, 0);
    for name in ["a", "b", "c"] {
        world.file(Ino::ROOT, name);
    }
    let before = list_in_pages(&world.ns, Ino::ROOT, 10);
    world.ns.unlink(Ino::ROOT, b"a").unwrap();
    world.file(Ino::ROOT, "d");
    let after = list_in_pages(&world.ns, Ino::ROOT, 10);
    assert_eq!(before[3..], after[3..]);
    assert_eq!(after[2].0, b"d");
}

#[test]
fn a_full_bucket_is_no_space_and_changes_nothing() {
    let mut world = World::new();
    world.ns.names = NameHash::weak(SEED, 0);
    for number in 0..256 {
        world.file(Ino::ROOT, &number.to_string());
    }
    let refused = world.ns.mknod(&ROOT_CALLER, Ino::ROOT, b"one more", 0o100_644, 0, 0);
    assert_eq!(fails(refused), "ENOSPC");
    let renamed =
        world.ns.rename(Ino::ROOT, b"7", Ino::ROOT, b"one more", crate::types::RenameMode::Replace);
    assert!(renamed.is_ok(), "its own place is free by then");
    world.assert_sound();
}

#[test]
fn a_large_directory_lists_what_stays_while_others_come_and_go() {
    const STAY: usize = 100_000;
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(&dir.path().join("ns"), StoreOptions::default()).unwrap();
    let clock = TestClock::new();
    let root = NewRoot { uid: 0, gid: 0, perm: 0o755 };
    Namespace::create(&store, &*clock, root, SEED).unwrap();
    let options = NamespaceOptions { cached_inodes: 1000, read_only: false };
    let ns = Namespace::open(Arc::new(store), clock, options).unwrap();
    let create = |name: String| {
        ns.mknod(&ROOT_CALLER, Ino::ROOT, name.as_bytes(), 0o100_644, 0, 0).unwrap();
    };
    (0..STAY).for_each(|number| create(format!("stay {number}")));
    let stop = AtomicBool::new(false);
    let (passes, churned) = std::thread::scope(|scope| {
        let churn = scope.spawn(|| {
            let mut number = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                create(format!("go {number}"));
                if number >= 50 {
                    let old = format!("go {}", number - 50);
                    ns.unlink(Ino::ROOT, old.as_bytes()).unwrap();
                }
                number += 1;
            }
            number
        });
        let mut passes = Vec::new();
        for page in [100, 5000] {
            passes.push(list_in_pages(&ns, Ino::ROOT, page));
        }
        stop.store(true, Ordering::Relaxed);
        (passes, churn.join().unwrap())
    });
    assert!(churned > 0);
    for pass in passes {
        let stayed: Vec<_> = pass.iter().filter(|(name, _)| name.starts_with(b"stay")).collect();
        let names: BTreeSet<_> = stayed.iter().map(|(name, _)| name).collect();
        assert_eq!((stayed.len(), names.len()), (STAY, STAY));
    }
    assert_eq!(ns.getattr(Ino::ROOT).unwrap().size, STAY as u64 + churned.min(50));
}
