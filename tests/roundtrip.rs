//! What `rsync -aHAX` carried in comes back without a difference, wherever the blocks lie.

use std::path::{Path, PathBuf};

use crate::harness::{Volume, scidata, shell, succeed};

/// The trees that go in: headers (many small files, links) and instrument data.
fn sources() -> Vec<PathBuf> {
    std::iter::once(PathBuf::from("/usr/include")).chain(scidata()).collect()
}

fn name(source: &Path) -> &str {
    source.file_name().unwrap().to_str().unwrap()
}

fn copy_in(volume: &Volume, sources: &[PathBuf]) {
    for source in sources {
        shell("rsync -aHAX \"$1/\" \"$2/\"", &[source, &volume.path(name(source))]);
    }
}

/// Reads everything back and compares content, owners, times, links, ACLs and attributes.
fn assert_same(volume: &Volume, sources: &[PathBuf], when: &str) {
    for source in sources {
        let copy = volume.path(name(source));
        let difference = shell("rsync -aHAXnci --delete \"$1/\" \"$2/\"", &[source, &copy]);
        assert!(difference.is_empty(), "{when}, {}:\n{difference}", source.display());
    }
}

fn archive_and_release(volume: &Volume) {
    let root = volume.mountpoint.to_str().unwrap();
    volume.run(&["tier", "archive", "-r", root]);
    volume.run(&["tier", "release", "-r", root]);
    let listing = volume.run(&["tier", "ls", "-r", "--json", root]);
    let listing: serde_json::Value = serde_json::from_str(&listing).unwrap();
    let files = listing["files"].as_array().unwrap();
    let mut cold = 0;
    for file in files.iter().filter(|f| f["kind"] == "file" && f["size_bytes"] != 0) {
        assert_eq!(file["state"], "cold", "{file}");
        cold += 1;
    }
    assert!(cold > 100, "only {cold} files went cold");
}

#[test]
fn trees_survive_remount_crash_release_and_a_lost_catalog() {
    let sources = sources();
    let mut volume = Volume::mounted();
    copy_in(&volume, &sources);
    assert_same(&volume, &sources, "live");

    volume.umount();
    volume.mount();
    assert_same(&volume, &sources, "after remount");

    volume.kill();
    volume.mount();
    assert_same(&volume, &sources, "after kill -9");

    archive_and_release(&volume);
    assert_same(&volume, &sources, "read from the cold tier");

    volume.umount();
    std::fs::remove_dir_all(volume.dir.join("catalog")).unwrap();
    volume.mount();
    assert_same(&volume, &sources, "after the catalog was deleted");
}

#[test]
fn a_volume_is_recovered_from_its_cold_tier_alone() {
    let sources = sources();
    let mut volume = Volume::mounted();
    copy_in(&volume, &sources);
    volume.umount();
    let cold = format!("file://{}", volume.scratch.path().join("cold").display());
    std::fs::remove_dir_all(&volume.dir).unwrap();
    let mut recover = volume.firn();
    recover.args(["recover", &cold]).arg(&volume.dir);
    succeed(&mut recover);
    volume.mount();
    assert_same(&volume, &sources, "after recovery");
}

#[test]
fn trees_are_read_back_from_s3_over_http() {
    let sources = sources();
    let objects = tempfile::tempdir().unwrap();
    let server = firn_tests::Server::start(objects.path()).unwrap();
    let endpoint = format!("http://{}", server.address());
    let mut volume = Volume::with(
        &["--cold", &format!("s3://{}/volume", firn_tests::BUCKET)],
        &[
            ("AWS_ENDPOINT", &endpoint),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", firn_tests::ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", firn_tests::SECRET_KEY),
        ],
    );
    copy_in(&volume, &sources);
    archive_and_release(&volume);
    volume.umount();
    volume.mount();
    assert_same(&volume, &sources, "read from S3");
    assert!(!volume.log().contains(firn_tests::SECRET_KEY), "the log holds a secret");
}
