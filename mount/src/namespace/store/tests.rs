#![allow(clippy::unwrap_used, reason = "tests")]

mod damaged;

use std::path::Path;

use super::*;

fn put(space: Space, key: &[u8], value: &[u8]) -> Batch {
    let mut batch = Batch::new();
    batch.put(space, key, value.to_vec());
    batch
}

fn keys(page: &Page) -> Vec<&[u8]> {
    page.items.iter().map(|(key, _)| &key[..]).collect()
}

/// The contract, for every implementation.
fn conforms(store: &dyn NamespaceStore) {
    assert_eq!(store.get(Space::Head, b"k").unwrap(), None);
    let mut batch = put(Space::Head, b"k", b"1");
    batch.put(Space::Meta, b"k", &b"2"[..]);
    batch.put(Space::Head, b"gone", &b"x"[..]);
    batch.delete(Space::Head, b"gone");
    batch.put(Space::Head, b"empty", Bytes::new());
    store.commit(batch, Durability::Buffered).unwrap();
    assert_eq!(store.get(Space::Head, b"k").unwrap().unwrap(), b"1"[..]);
    assert_eq!(store.get(Space::Meta, b"k").unwrap().unwrap(), b"2"[..]);
    assert_eq!(store.get(Space::Head, b"gone").unwrap(), None);
    assert_eq!(store.get(Space::Head, b"empty").unwrap().unwrap(), b""[..]);
    assert_eq!(store.get(Space::History, b"k").unwrap(), None);

    for number in 0..10_u8 {
        let durability = if number == 5 { Durability::Durable } else { Durability::Buffered };
        store.commit(put(Space::Born, &[number], &[number; 3]), durability).unwrap();
    }
    let page = store.page(Space::Born, &[2], Some(&[7]), 3).unwrap();
    assert_eq!((keys(&page), page.more), (vec![&[2][..], &[3], &[4]], true));
    let page = store.page(Space::Born, &[5], Some(&[7]), 3).unwrap();
    assert_eq!((keys(&page), page.more), (vec![&[5][..], &[6]], false));
    let page = store.page(Space::Born, &[8, 0], None, 9).unwrap();
    assert_eq!((keys(&page), page.more), (vec![&[9][..]], false));
    assert!(store.page(Space::Born, &[7], Some(&[2]), 9).unwrap().items.is_empty());
    assert!(store.page(Space::Born, &[7], Some(&[7]), 9).unwrap().items.is_empty());
    let last = |from: &[u8], to: &[u8]| {
        store.last(Space::Born, from, to).unwrap().map(|(key, value)| (key[0], value[0]))
    };
    assert_eq!(last(&[2], &[7]), Some((6, 6)));
    assert_eq!(last(&[6, 0], &[7]), None);
    assert_eq!(last(&[8], &[200]), Some((9, 9)));
    assert_eq!(last(&[7], &[2]), None);

    for number in 0..40_u8 {
        store.commit(put(Space::History, &[number], &[0; 64 << 10]), Durability::Buffered).unwrap();
    }
    let page = store.page(Space::History, &[], None, 1000).unwrap();
    assert!(page.more && page.items.len() < 20, "a page is bounded in bytes");
    store.commit(put(Space::History, b"\xffbig", &[1; 3 << 20]), Durability::Buffered).unwrap();
    let page = store.page(Space::History, b"\xff", None, 10).unwrap();
    assert_eq!((page.items.len(), page.more), (1, false), "but never empty");

    let snapshot = store.snapshot().unwrap();
    let mut batch = put(Space::Head, b"k", b"new");
    batch.delete(Space::Born, &[3]);
    store.commit(batch, Durability::Durable).unwrap();
    assert_eq!(snapshot.get(Space::Head, b"k").unwrap().unwrap(), b"1"[..]);
    assert_eq!(snapshot.page(Space::Born, &[3], Some(&[4]), 9).unwrap().items.len(), 1);
    assert_eq!(snapshot.last(Space::Born, &[0], &[4]).unwrap().unwrap().0, [3][..]);
    assert_eq!(store.last(Space::Born, &[0], &[4]).unwrap().unwrap().0, [2][..]);
    assert_eq!(store.get(Space::Head, b"k").unwrap().unwrap(), b"new"[..]);
    assert_eq!(store.page(Space::Born, &[3], Some(&[4]), 9).unwrap().items.len(), 0);
    drop(snapshot);
    store.sync().unwrap();
    assert!(store.stored_bytes().unwrap() > 0);
    store.rest().unwrap();
    assert_eq!(store.get(Space::Head, b"k").unwrap().unwrap(), b"new"[..]);
    store.commit(put(Space::Head, b"after", b"rest"), Durability::Buffered).unwrap();
    assert_eq!(store.get(Space::Head, b"after").unwrap().unwrap(), b"rest"[..]);
}

fn open(path: &Path) -> LocalStore {
    LocalStore::open(path, StoreOptions::default()).unwrap()
}

#[test]
fn memory_conforms() {
    conforms(&MemoryStore::new());
}

#[test]
fn local_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conforms(&open(&dir.path().join("ns")));
}

#[test]
fn local_keeps_everything_after_closing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ns");
    conforms(&open(&path));
    let store = open(&path);
    assert_eq!(store.get(Space::Head, b"after").unwrap().unwrap(), b"rest"[..]);
    assert_eq!(store.get(Space::Head, b"k").unwrap().unwrap(), b"new"[..]);
    assert_eq!(store.page(Space::Born, &[], None, 100).unwrap().items.len(), 9);
}

/// What a killed process leaves: the files as the operating system has them at this moment.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

#[test]
fn a_killed_process_loses_nothing_that_was_committed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ns");
    let store = open(&path);
    for round in 0..3_u32 {
        for number in 0..100_u32 {
            let key = (round * 100 + number).to_be_bytes();
            let mut batch = put(Space::Head, &key, &key);
            batch.put(Space::Backrefs, &key, Bytes::new());
            store.commit(batch, Durability::Buffered).unwrap();
        }
        let left = dir.path().join(format!("left {round}"));
        copy(&path, &left);
        let left = open(&left);
        for number in 0..(round + 1) * 100 {
            let key = number.to_be_bytes();
            assert_eq!(left.get(Space::Head, &key).unwrap().unwrap(), key[..]);
            assert!(left.get(Space::Backrefs, &key).unwrap().is_some());
        }
        left.commit(put(Space::Head, b"on", b"goes on"), Durability::Durable).unwrap();
    }
}

#[test]
fn a_torn_batch_is_lost_whole_and_the_rest_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ns");
    let store = open(&path);
    store.commit(put(Space::Head, b"first", b"1"), Durability::Buffered).unwrap();
    let used = journal_bytes(&path);
    let mut batch = put(Space::Head, b"second", b"2");
    batch.put(Space::Meta, b"second", &b"2"[..]);
    store.commit(batch, Durability::Buffered).unwrap();
    let grown = journal_bytes(&path);
    assert!(grown > used);
    for (number, cut) in (used..grown).enumerate() {
        let left = dir.path().join(format!("left {number}"));
        copy(&path, &left);
        let journal = std::fs::OpenOptions::new().write(true).open(left.join("0.jnl")).unwrap();
        journal.set_len(cut as u64).unwrap();
        drop(journal);
        let left = open(&left);
        assert_eq!(left.get(Space::Head, b"first").unwrap().unwrap(), b"1"[..]);
        assert_eq!(left.get(Space::Head, b"second").unwrap(), None);
        assert_eq!(left.get(Space::Meta, b"second").unwrap(), None);
    }
}

/// Pages of an unsynced batch may be missing in its middle while later ones are there.
#[test]
fn a_hole_in_the_last_batch_after_power_loss_does_not_keep_the_store_shut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ns");
    let store = open(&path);
    store.commit(put(Space::Head, b"first", b"1"), Durability::Durable).unwrap();
    let kept = journal_bytes(&path);
    let mut noise = vec![0; 64 << 10];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    store.commit(put(Space::Head, b"large", &noise), Durability::Buffered).unwrap();
    let torn = journal_bytes(&path);
    store.commit(put(Space::Head, b"later", b"2"), Durability::Buffered).unwrap();
    for at in (kept..torn).step_by(4096) {
        let left = dir.path().join(format!("left {at}"));
        copy(&path, &left);
        let journal = left.join("0.jnl");
        let mut bytes = std::fs::read(&journal).unwrap();
        let end = (at + 4096).min(torn);
        bytes[at..end].fill(0);
        std::fs::write(&journal, bytes).unwrap();
        for _ in 0..2 {
            let left = open(&left);
            assert_eq!(left.get(Space::Head, b"first").unwrap().unwrap(), b"1"[..]);
            assert_eq!(left.get(Space::Head, b"large").unwrap(), None);
            assert_eq!(left.get(Space::Head, b"later").unwrap(), None);
            left.commit(put(Space::Head, b"new", b"3"), Durability::Durable).unwrap();
        }
        assert!(open(&left).get(Space::Head, b"new").unwrap().is_some());
    }
}

/// Length of the first journal without the zeros that it was created with.
fn journal_bytes(path: &Path) -> usize {
    let bytes = std::fs::read(path.join("0.jnl")).unwrap();
    bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1)
}

#[test]
fn a_store_at_rest_is_small_and_opens_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ns");
    for round in 0..3_u32 {
        let store = open(&path);
        for number in 0..round * 1000 {
            assert!(store.get(Space::Head, &number.to_be_bytes()).unwrap().is_some());
        }
        for number in round * 1000..(round + 1) * 1000 {
            let mut batch = put(Space::Head, &number.to_be_bytes(), b"a value of some length");
            batch.put(Space::Meta, b"counter", number.to_be_bytes().to_vec());
            store.commit(batch, Durability::Buffered).unwrap();
        }
        store.rest().unwrap();
        drop(store);
        let bytes = crate::namespace::tests::bytes_below(&path);
        assert!(bytes < 200_000, "{bytes} bytes at rest in round {round}");
    }
    let store = open(&path);
    assert_eq!(store.get(Space::Meta, b"counter").unwrap().unwrap(), 2999_u32.to_be_bytes()[..]);
    store.commit(put(Space::Head, b"x", b"y"), Durability::Durable).unwrap();
    drop(store);
    assert_eq!(open(&path).get(Space::Head, b"x").unwrap().unwrap(), b"y"[..]);
}

#[test]
fn commits_after_rest_are_not_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ns");
    let store = open(&path);
    store.commit(put(Space::Head, b"a", b"1"), Durability::Buffered).unwrap();
    store.rest().unwrap();
    store.commit(put(Space::Head, b"b", b"2"), Durability::Buffered).unwrap();
    drop(store);
    let store = open(&path);
    assert!(store.get(Space::Head, b"a").unwrap().is_some());
    assert!(store.get(Space::Head, b"b").unwrap().is_some());
}

#[test]
fn durable_commits_at_once_share_and_finish() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("ns"));
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let store = &store;
            scope.spawn(move || {
                for number in 0..20_u8 {
                    let batch = put(Space::Head, &[thread, number], b"v");
                    store.commit(batch, Durability::Durable).unwrap();
                }
            });
        }
    });
    assert_eq!(store.page(Space::Head, &[], None, 1000).unwrap().items.len(), 80);
}

/// With fjall's own rotation this never ends: its worker waits for itself.
#[test]
fn many_small_batches_over_full_buffers_do_not_stop_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ns");
    let options = StoreOptions { write_buffer_bytes: 64 << 10, ..StoreOptions::default() };
    let store = LocalStore::open(&path, options).unwrap();
    for number in 0..20_000_u32 {
        let mut batch = put(Space::Head, &number.to_be_bytes(), &[7; 100]);
        batch.put(Space::Backrefs, &number.to_be_bytes(), Bytes::new());
        store.commit(batch, Durability::Buffered).unwrap();
    }
    store.rest().unwrap();
    for space in [Space::Head, Space::Backrefs] {
        let mut from = Vec::new();
        let mut seen = 0;
        loop {
            let page = store.page(space, &from, None, 1000).unwrap();
            seen += page.items.len();
            if !page.more {
                break;
            }
            from = [&page.items.last().unwrap().0[..], &[0]].concat();
        }
        assert_eq!(seen, 20_000);
    }
}

#[test]
fn a_store_emptied_is_small() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ns");
    let store = open(&path);
    for number in 0..20_000_u32 {
        let key = number.to_be_bytes();
        store
            .commit(put(Space::Head, &key, blake3::hash(&key).as_bytes()), Durability::Buffered)
            .unwrap();
    }
    for number in 0..20_000_u32 {
        let mut batch = Batch::new();
        batch.delete(Space::Head, &number.to_be_bytes());
        store.commit(batch, Durability::Buffered).unwrap();
    }
    store.rest().unwrap();
    drop(store);
    let bytes = crate::namespace::tests::bytes_below(&path);
    assert!(bytes < 50_000, "{bytes} bytes hold nothing");
}

#[test]
fn the_memory_store_fails_on_demand_and_for_good() {
    let store = MemoryStore::new();
    store.fail_after(1);
    store.commit(put(Space::Head, b"a", b"1"), Durability::Buffered).unwrap();
    for _ in 0..2 {
        assert!(store.commit(put(Space::Head, b"b", b"1"), Durability::Buffered).is_err());
        assert!(store.sync().is_err());
    }
    let again = store.reopened();
    assert!(again.get(Space::Head, b"a").unwrap().is_some());
    assert!(again.get(Space::Head, b"b").unwrap().is_none());
    assert!(store.reopened_after_power_loss().get(Space::Head, b"a").unwrap().is_none());
}

#[test]
fn prefixes_end() {
    assert_eq!(prefix_end(&[1, 2]), Some(vec![1, 3]));
    assert_eq!(prefix_end(&[1, 255]), Some(vec![2]));
    assert_eq!(prefix_end(&[255, 255]), None);
    assert_eq!(prefix_end(&[]), None);
}
