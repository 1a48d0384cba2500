//! One conformance suite over every tier and every decorator, then what is particular to each.
#![allow(clippy::unwrap_used, reason = "tests")]

mod cloud;
mod contained;
mod decorators;
mod encrypted;
mod rooted;
mod s3;
mod single;
mod throttled;
mod wire;

use std::io::Write;
use std::sync::Arc;

use super::*;

pub(crate) fn bytes(len: usize, seed: u64) -> Bytes {
    let mut chance = Jitter::seeded(seed);
    let mut data: Vec<u8> =
        (0..len.div_ceil(8)).flat_map(|_| chance.next_u64().to_le_bytes()).collect();
    data.truncate(len);
    Bytes::from(data)
}

pub(crate) fn file_of(content: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    file
}

/// What every tier does, whatever it is made of. The tier is empty before and after.
pub(crate) async fn conforms(tier: &dyn Tier) {
    stores_and_reads(tier).await;
    reads_ranges(tier).await;
    keeps_what_is_there(tier).await;
    streams_files(tier).await;
    lists_in_pages(tier).await;
    refuses_bad_keys(tier).await;
    settles_races(tier).await;
    replaces(tier).await;
    assert_eq!(tier.list("", None, 100).await.unwrap(), [], "the suite cleans up");
    tier.clean().await.unwrap();
}

async fn stores_and_reads(tier: &dyn Tier) {
    assert!(matches!(tier.get("a/b").await, Err(Error::NotFound(_))));
    assert!(matches!(tier.head("a/b").await, Err(Error::NotFound(_))));
    assert!(matches!(tier.get_range("a/b", 0..1).await, Err(Error::NotFound(_))));
    for (key, len) in [("a/b", 1000), ("a/c.seg", 0), ("top", 3 << 20)] {
        tier.put(key, bytes(len, 1)).await.unwrap();
        assert_eq!(tier.get(key).await.unwrap(), bytes(len, 1));
        let meta = ObjectMeta { key: key.to_owned(), len: len as u64 };
        assert_eq!(tier.head(key).await.unwrap(), meta);
        tier.delete(key).await.unwrap();
        assert!(matches!(tier.get(key).await, Err(Error::NotFound(_))));
        tier.delete(key).await.unwrap();
    }
}

async fn reads_ranges(tier: &dyn Tier) {
    let content = bytes(100_000, 2);
    tier.put("r", content.clone()).await.unwrap();
    for range in [0..1, 0..100_000, 99_999..100_000, 12_345..67_890, 7..7] {
        let part = tier.get_range("r", range.clone()).await.unwrap();
        assert_eq!(part, content.slice(range.start as usize..range.end as usize), "{range:?}");
    }
    #[allow(clippy::reversed_empty_ranges, reason = "that is the point")]
    for range in [99_999..100_001, 100_000..100_001, 200_000..200_010, 9..8, 0..u64::MAX] {
        assert!(tier.get_range("r", range.clone()).await.is_err(), "{range:?}");
    }
    tier.delete("r").await.unwrap();
}

async fn keeps_what_is_there(tier: &dyn Tier) {
    tier.put("x/same", bytes(70_000, 3)).await.unwrap();
    tier.put("x/same", bytes(70_000, 3)).await.unwrap();
    for other in [bytes(70_000, 4), bytes(69_999, 3), Bytes::new()] {
        assert!(matches!(tier.put("x/same", other).await, Err(Error::Exists(_))));
    }
    let other = file_of(&bytes(70_000, 4));
    assert!(matches!(tier.put_file("x/same", other.path()).await, Err(Error::Exists(_))));
    assert_eq!(tier.get("x/same").await.unwrap(), bytes(70_000, 3));
    tier.delete("x/same").await.unwrap();
    tier.put("x/same", bytes(10, 4)).await.unwrap();
    assert_eq!(tier.get("x/same").await.unwrap(), bytes(10, 4));
    tier.delete("x/same").await.unwrap();
}

async fn streams_files(tier: &dyn Tier) {
    for len in [0, 5, (20 << 20) + 17] {
        let content = bytes(len, 5);
        let file = file_of(&content);
        tier.put_file("files/f", file.path()).await.unwrap();
        tier.put_file("files/f", file.path()).await.unwrap();
        assert_eq!(tier.head("files/f").await.unwrap().len, len as u64);
        assert!(tier.get("files/f").await.unwrap() == content, "{len} bytes came back different");
        if len > 0 {
            let mut wrong = content.to_vec();
            wrong[len - 1] ^= 1;
            let wrong = file_of(&wrong);
            assert!(matches!(tier.put_file("files/f", wrong.path()).await, Err(Error::Exists(_))));
        }
        tier.delete("files/f").await.unwrap();
    }
    let missing = std::path::Path::new("/nonexistent/firn");
    assert!(matches!(tier.put_file("files/f", missing).await, Err(Error::Io { .. })));
    assert!(matches!(tier.head("files/f").await, Err(Error::NotFound(_))));
}

async fn lists_in_pages(tier: &dyn Tier) {
    let keys = ["a.b", "a/1", "a/10", "a/2", "a/2/deep", "a/3", "b/1", "c"];
    for (index, key) in keys.iter().enumerate().rev() {
        // A file and a directory of one name cannot stand side by side everywhere.
        if *key != "a/2" {
            tier.put(key, bytes(index, 6)).await.unwrap();
        }
    }
    let list = async |prefix: &str, after: Option<&str>, limit| -> Vec<String> {
        let found = tier.list(prefix, after, limit).await.unwrap();
        found.into_iter().map(|meta| meta.key).collect()
    };
    let all = ["a.b", "a/1", "a/10", "a/2/deep", "a/3", "b/1", "c"];
    assert_eq!(list("", None, 100).await, all);
    assert_eq!(list("a/", None, 100).await, all[1..5]);
    assert_eq!(list("a/1", None, 100).await, all[1..3]);
    assert_eq!(list("a", None, 100).await, all[..5]);
    assert_eq!(list("nothing/", None, 100).await, all[..0]);
    assert_eq!(list("a/", None, 2).await, all[1..3]);
    assert_eq!(list("a/", Some("a/10"), 2).await, all[3..5]);
    assert_eq!(list("a/", Some("a/2"), 100).await, all[3..5]);
    assert_eq!(list("a/", Some("a/3"), 100).await, all[..0]);
    assert_eq!(list("", Some("a/3"), 1).await, ["b/1"]);
    let metas = tier.list("b/", None, 9).await.unwrap();
    assert_eq!(metas, [ObjectMeta { key: "b/1".to_owned(), len: 6 }]);
    for key in all {
        tier.delete(key).await.unwrap();
    }
}

async fn refuses_bad_keys(tier: &dyn Tier) {
    let long = "x".repeat(MAX_KEY_LEN + 1);
    for key in [
        "", "/", "/a", "a/", "a//b", "..", "../a", "a/../b", ".a", "a/.b", "A", "a b", "a#1", "ä",
        &long,
    ] {
        assert!(matches!(tier.put(key, Bytes::new()).await, Err(Error::Config(_))), "{key:?}");
        assert!(matches!(tier.get(key).await, Err(Error::Config(_))), "{key:?}");
        assert!(matches!(tier.get_range(key, 0..0).await, Err(Error::Config(_))), "{key:?}");
        assert!(matches!(tier.head(key).await, Err(Error::Config(_))), "{key:?}");
        assert!(matches!(tier.delete(key).await, Err(Error::Config(_))), "{key:?}");
        let file = file_of(b"x");
        assert!(matches!(tier.put_file(key, file.path()).await, Err(Error::Config(_))), "{key:?}");
    }
    assert!(matches!(tier.list("../", None, 1).await, Err(Error::Config(_))));
}

/// Many writers of the same bytes all succeed.
async fn settles_races(tier: &dyn Tier) {
    let content = bytes(200_000, 7);
    let puts = (0..8).map(|_| tier.put("race/same", content.clone()));
    for put in futures::future::join_all(puts).await {
        put.unwrap();
    }
    assert_eq!(tier.get("race/same").await.unwrap(), content);
    tier.delete("race/same").await.unwrap();
}

async fn replaces(tier: &dyn Tier) {
    for (before, after) in [(70_000, 70_000), (5, (20 << 20) + 17), (3 << 20, 5)] {
        tier.put("files/r", bytes(before, 8)).await.unwrap();
        let content = bytes(after, 9);
        let file = file_of(&content);
        tier.replace("files/r", &Content::open(file.path()).await.unwrap()).await.unwrap();
        assert!(tier.get("files/r").await.unwrap() == content, "{before} became other bytes");
        tier.replace("files/r", &Content::Bytes(bytes(before, 8))).await.unwrap();
        assert!(
            tier.get("files/r").await.unwrap() == bytes(before, 8),
            "{after} became other bytes"
        );
        tier.delete("files/r").await.unwrap();
    }
}

#[tokio::test]
async fn memory_conforms() {
    conforms(&Memory::new()).await;
}

#[tokio::test]
async fn directory_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conforms(&Directory::open(dir.path()).unwrap()).await;
    let left: Vec<_> = walk(dir.path());
    assert_eq!(left, Vec::<String>::new(), "no temporary files stay");
}

#[tokio::test]
async fn file_urls_conform() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}", dir.path().display());
    conforms(&*open_tier(&url, Patience::READ).unwrap()).await;
    assert_eq!(walk(dir.path()), Vec::<String>::new(), "no staging files stay");
}

#[tokio::test]
async fn plain_paths_conform() {
    let dir = tempfile::tempdir().unwrap();
    let tier = open_tier(dir.path().to_str().unwrap(), Patience::READ).unwrap();
    conforms(&*tier).await;
    assert_eq!(tier.describe(), dir.path().to_str().unwrap());
}

/// Every file below a directory.
fn walk(dir: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { dirs.push(path) } else { files.push(path.display().to_string()) }
        }
    }
    files
}

#[tokio::test]
async fn racing_writers_of_different_bytes_leave_one_winner() {
    let dir = tempfile::tempdir().unwrap();
    let tier = Directory::open(dir.path()).unwrap();
    let puts = (0..8).map(|n| tier.put("race", bytes(300_000, n)));
    let won = futures::future::join_all(puts).await;
    let winners: Vec<_> = (0..8).filter(|n| won[*n as usize].is_ok()).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(tier.get("race").await.unwrap(), bytes(300_000, winners[0]));
}

#[tokio::test]
async fn a_directory_forgets_the_temporary_files_of_the_dead_only() {
    let dir = tempfile::tempdir().unwrap();
    let tier = Directory::open(dir.path()).unwrap();
    tier.put("x", Bytes::from_static(b"x")).await.unwrap();
    let (dead, living) = (dir.path().join(".tmp/dead"), dir.path().join(".tmp/living"));
    std::fs::write(&dead, b"half").unwrap();
    std::fs::write(&living, b"half").unwrap();
    let lock = std::fs::File::open(&living).unwrap();
    lock.lock().unwrap();
    assert_eq!(tier.clean().await.unwrap(), 1);
    assert!(!dead.exists() && living.exists());
    drop(lock);
    assert_eq!(tier.clean().await.unwrap(), 1);
    assert_eq!(tier.get("x").await.unwrap(), Bytes::from_static(b"x"));
}

#[tokio::test]
async fn foreign_files_are_not_listed() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("README"), b"not ours").unwrap();
    std::fs::write(dir.path().join("ours"), b"1").unwrap();
    let url = format!("file://{}", dir.path().display());
    let object = open_tier(&url, Patience::READ).unwrap();
    let plain: Arc<dyn Tier> = Arc::new(Directory::open(dir.path()).unwrap());
    for tier in [object, plain] {
        let keys: Vec<_> = tier.list("", None, 9).await.unwrap();
        assert_eq!(keys, [ObjectMeta { key: "ours".to_owned(), len: 1 }], "{tier:?}");
    }
    std::os::unix::fs::symlink("/etc", dir.path().join("etc")).unwrap();
    let plain = Directory::open(dir.path()).unwrap();
    assert_eq!(plain.list("", None, 9).await.unwrap().len(), 1, "links are not followed");
}
