//! A database on a disk that rots: whatever happens to one of its files, it opens with the right
//! content or does not open, or says so where it is read. It never has other content, and no panic
//! ends the process.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::*;

type Content = Vec<(Space, Bytes, Bytes)>;

fn content(store: &LocalStore) -> StoreResult<Content> {
    let mut all = Vec::new();
    for space in Space::ALL {
        let mut from = Vec::new();
        loop {
            let page = store.page(space, &from, None, 1000)?;
            all.extend(page.items.iter().map(|(k, v)| (space, k.clone(), v.clone())));
            match page.items.last().filter(|_| page.more) {
                Some((last, _)) => from = [&last[..], &[0]].concat(),
                None => break,
            }
        }
    }
    Ok(all)
}

/// A database at rest, with records in each space.
fn at_rest(path: &Path) -> Content {
    let store = LocalStore::open(path, StoreOptions::default()).unwrap();
    for round in 0..3_u32 {
        let mut batch = Batch::new();
        for (at, space) in Space::ALL.into_iter().enumerate() {
            for number in 0..200_u32 {
                let key = [&[at as u8][..], &number.to_be_bytes(), &round.to_be_bytes()].concat();
                batch.put(space, &key, vec![number as u8; 100]);
            }
        }
        store.commit(batch, Durability::Durable).unwrap();
    }
    store.rest().unwrap();
    content(&store).unwrap()
}

fn files(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

#[test]
fn damage_to_a_file_is_an_error_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let sound = dir.path().join("sound");
    let expected = at_rest(&sound);
    let mut wrong = Vec::new();
    let mut opened = 0;
    for file in files(&sound) {
        let name = file.strip_prefix(&sound).unwrap().to_owned();
        let bytes = fs::read(&file).unwrap();
        let mut harms: Vec<(String, Option<Vec<u8>>)> =
            vec![("deleted".into(), None), ("emptied".into(), Some(vec![]))];
        harms.push(("halved".into(), Some(bytes[..bytes.len() / 2].to_vec())));
        for at in (0..bytes.len()).step_by((bytes.len() / 8).max(1)) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x41;
            harms.push((format!("flipped at {at}"), Some(flipped)));
        }
        for (harm, bytes) in harms {
            let damaged = dir.path().join("damaged");
            copy(&sound, &damaged);
            match bytes {
                Some(bytes) => fs::write(damaged.join(&name), bytes).unwrap(),
                None => fs::remove_file(damaged.join(&name)).unwrap(),
            }
            let seen = catch_unwind(AssertUnwindSafe(|| {
                let store = LocalStore::open_existing(&damaged, StoreOptions::default())?;
                content(&store)
            }));
            match seen {
                Ok(Ok(seen)) if seen == expected => opened += 1,
                Ok(Ok(seen)) => wrong.push(format!("{name:?} {harm}: {} records", seen.len())),
                Ok(Err(_)) => {}
                Err(_) => wrong.push(format!("{name:?} {harm}: panic")),
            }
            fs::remove_dir_all(&damaged).unwrap();
        }
    }
    assert!(opened > 0, "nothing opened at all");
    assert_eq!(wrong, Vec::<String>::new());
}
