//! A local tier in which somebody has planted links that lead out of it.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use super::*;

/// A tier, and a directory beside it with something precious.
fn beside(as_url: bool) -> (tempfile::TempDir, Arc<dyn Tier>) {
    let dir = tempfile::tempdir().unwrap();
    let (cold, precious) = (dir.path().join("cold"), dir.path().join("precious"));
    std::fs::create_dir_all(cold.join("segments")).unwrap();
    std::fs::create_dir(&precious).unwrap();
    std::fs::write(precious.join("secret"), "secret").unwrap();
    let place = match as_url {
        true => format!("file://{}", cold.display()),
        false => cold.display().to_string(),
    };
    let patience = Patience { attempts: 1, deadline: Duration::from_secs(10) };
    let tier = open_tier(&place, patience).unwrap();
    (dir, tier)
}

fn leads_out(error: &Error) -> bool {
    TierFailure::of(error).is_some_and(|failure| failure.message.contains("leads out of"))
}

async fn refuses(tier: &dyn Tier, key: &str) {
    let file = file_of(b"a file");
    let failed = [
        tier.get(key).await.map(drop),
        tier.get_range(key, 0..1).await.map(drop),
        tier.head(key).await.map(drop),
        tier.put(key, bytes(10, 1)).await,
        tier.put_file(key, file.path()).await,
        tier.delete(key).await,
    ];
    for (number, result) in failed.into_iter().enumerate() {
        let error = result.unwrap_err();
        assert!(!is_retriable(&error), "{number}: {error}");
        assert!(leads_out(&error), "{number}: {error:?}");
    }
}

#[tokio::test]
async fn a_link_that_leads_out_is_no_way_to_read_write_or_delete() {
    for as_url in [false, true] {
        let (dir, tier) = beside(as_url);
        let (cold, precious) = (dir.path().join("cold"), dir.path().join("precious"));
        symlink(precious.join("secret"), cold.join("segments/file")).unwrap();
        symlink(&precious, cold.join("dir")).unwrap();
        symlink("../../precious", cold.join("segments/relative")).unwrap();
        symlink(precious.join("absent"), cold.join("segments/dangling")).unwrap();
        for key in ["segments/file", "dir/secret", "segments/relative/secret", "segments/dangling"]
        {
            refuses(&*tier, key).await;
        }
        refuses(&*tier, "dir/new").await;
        let error = tier.list("dir/", None, 10).await.unwrap_err();
        assert!(leads_out(&error), "{error:?}");
        assert_eq!(std::fs::read(precious.join("secret")).unwrap(), b"secret");
        assert_eq!(std::fs::read_dir(&precious).unwrap().count(), 1);
    }
}

#[tokio::test]
async fn a_link_within_the_directory_does_no_harm() {
    for as_url in [false, true] {
        let (dir, tier) = beside(as_url);
        symlink("segments", dir.path().join("cold/elsewhere")).unwrap();
        tier.put("elsewhere/one", bytes(10, 1)).await.unwrap();
        assert_eq!(tier.get("segments/one").await.unwrap(), bytes(10, 1));
    }
}

/// Names that a store lists and no writer of ours makes, and what a caller may ask for.
#[tokio::test]
async fn no_name_leads_out() {
    let (dir, tier) = beside(true);
    for name in ["..x", ".hidden", "UPPER", "a b", "1.seg#2"] {
        std::fs::write(dir.path().join("cold/segments").join(name), "x").unwrap();
    }
    std::fs::write(dir.path().join("cold/segments/plain"), "x").unwrap();
    let listed = tier.list("segments/", None, 100).await.unwrap();
    let keys: Vec<_> = listed.iter().map(|meta| meta.key.as_str()).collect();
    assert_eq!(keys, ["segments/plain"]);
    // What the store below cannot list is told of, and not left out with what is behind it.
    std::fs::write(dir.path().join("cold/segments/new\nline"), "x").unwrap();
    assert!(tier.list("segments/", None, 100).await.is_err());
    for key in ["../precious/secret", "/etc/passwd", "segments/../../precious/secret", "", "a//b"] {
        assert!(tier.get(key).await.is_err(), "{key}");
        assert!(tier.put(key, bytes(1, 1)).await.is_err(), "{key}");
        assert!(tier.delete(key).await.is_err(), "{key}");
        assert!(!Path::new(key).is_absolute() || tier.head(key).await.is_err());
    }
    assert_eq!(std::fs::read(dir.path().join("precious/secret")).unwrap(), b"secret");
}
