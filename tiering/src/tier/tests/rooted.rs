//! A local tier whose directory goes away and comes back.

use std::path::PathBuf;
use std::time::Duration;

use super::*;

/// A tier in a directory that can be taken away like a disk that is unmounted.
struct Disk {
    dir: tempfile::TempDir,
    tier: Arc<dyn Tier>,
}

impl Disk {
    /// Through a URL, whose store makes directories as it likes, or as a plain directory.
    fn new(as_url: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("cold");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join(IDENTITY_KEY), b"{\"whose\": 1}").unwrap();
        let place =
            if as_url { format!("file://{}", root.display()) } else { root.display().to_string() };
        let patience = Patience { attempts: 1, deadline: Duration::from_secs(10) };
        let tier = open_tier(&place, patience).unwrap();
        Self { dir, tier }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("cold")
    }

    fn away(&self) -> PathBuf {
        self.dir.path().join("away")
    }

    /// Only the mountpoint stays, or not even that.
    fn take_away(&self, leaves_mountpoint: bool) {
        std::fs::rename(self.root(), self.away()).unwrap();
        if leaves_mountpoint {
            std::fs::create_dir(self.root()).unwrap();
        }
    }

    fn bring_back(&self) {
        if self.root().exists() {
            std::fs::remove_dir(self.root()).unwrap();
        }
        std::fs::rename(self.away(), self.root()).unwrap();
    }

    async fn refuses_everything(&self) {
        let tier = &*self.tier;
        let file = file_of(b"a file");
        let failed = [
            tier.put("segments/new", bytes(10, 1)).await.unwrap_err(),
            tier.put_file("segments/new", file.path()).await.unwrap_err(),
            tier.get("segments/a").await.unwrap_err(),
            tier.get_range("segments/a", 0..1).await.unwrap_err(),
            tier.head("segments/a").await.unwrap_err(),
            tier.list("", None, 10).await.unwrap_err(),
            tier.delete("segments/a").await.unwrap_err(),
            tier.clean().await.unwrap_err(),
        ];
        for error in failed {
            assert!(is_retriable(&error), "{error:?}");
            let said = TierFailure::of(&error).unwrap().message.clone();
            assert!(said.contains(&*self.root().to_string_lossy()), "{said}");
            assert!(said.contains("mount its filesystem again"), "{said}");
        }
    }
}

#[tokio::test]
async fn nothing_lands_below_a_mountpoint_and_all_goes_on_when_the_disk_is_back() {
    for as_url in [true, false] {
        for leaves_mountpoint in [true, false] {
            let disk = Disk::new(as_url);
            disk.tier.put("segments/a", bytes(1000, 1)).await.unwrap();
            disk.take_away(leaves_mountpoint);
            disk.refuses_everything().await;
            assert_eq!(disk.root().exists(), leaves_mountpoint);
            if leaves_mountpoint {
                assert_eq!(walk(&disk.root()), Vec::<String>::new());
            }
            disk.bring_back();
            assert_eq!(disk.tier.get("segments/a").await.unwrap(), bytes(1000, 1));
            disk.tier.put("segments/new", bytes(10, 1)).await.unwrap();
            let keys = disk.tier.list("segments/", None, 10).await.unwrap();
            assert_eq!(keys.len(), 2, "{keys:?}");
        }
    }
}

/// A disk may come back under another device number: its identity decides, not the number.
#[tokio::test]
async fn another_directory_is_taken_only_with_the_same_identity() {
    for (identity, same) in [(&b"{\"whose\": 1}"[..], true), (b"{\"whose\": 2}", false)] {
        let disk = Disk::new(true);
        disk.tier.put("k", bytes(1000, 1)).await.unwrap();
        disk.take_away(true);
        std::fs::write(disk.root().join("k"), bytes(1000, 1)).unwrap();
        std::fs::write(disk.root().join(IDENTITY_KEY), identity).unwrap();
        if same {
            assert_eq!(disk.tier.get("k").await.unwrap(), bytes(1000, 1));
        } else {
            disk.refuses_everything().await;
        }
    }
}

#[tokio::test]
async fn a_directory_that_is_claimed_after_it_was_opened_is_known_again() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("cold");
    std::fs::create_dir(&root).unwrap();
    let tier = open_tier(&format!("file://{}", root.display()), Patience::PROBE).unwrap();
    tier.put(IDENTITY_KEY, Bytes::from_static(b"mine")).await.unwrap();
    let copy = dir.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    std::fs::copy(root.join(IDENTITY_KEY), copy.join(IDENTITY_KEY)).unwrap();
    std::fs::rename(&root, dir.path().join("away")).unwrap();
    std::fs::rename(&copy, &root).unwrap();
    tier.put("k", bytes(10, 1)).await.unwrap();
    assert!(root.join("k").exists());
}

/// The store lies on a filesystem that was not mounted yet when its path was opened.
#[tokio::test]
async fn what_is_mounted_over_an_empty_directory_later_is_taken_with_an_identity_only() {
    for has_identity in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("cold");
        std::fs::create_dir(&root).unwrap();
        let url = format!("file://{}", root.display());
        let patience = Patience { attempts: 1, deadline: Duration::from_secs(10) };
        let tier = open_tier(&url, patience).unwrap();
        assert_eq!(tier.list("", None, 1).await.unwrap(), []);
        std::fs::rename(&root, dir.path().join("mountpoint")).unwrap();
        std::fs::create_dir(&root).unwrap();
        if has_identity {
            std::fs::write(root.join(IDENTITY_KEY), b"whose").unwrap();
        }
        assert_eq!(tier.put("k", bytes(10, 1)).await.is_ok(), has_identity);
        // From now on it is that one and no other.
        std::fs::rename(&root, dir.path().join("away")).unwrap();
        std::fs::create_dir(&root).unwrap();
        assert!(tier.list("", None, 1).await.is_err());
    }
}
