//! Destroying what nobody needs gives its space back, in the background.

use std::fs;
use std::time::Duration;

use super::{at, make_dataset, take};
use crate::harness::{Volume, now, shell};

/// How long the background may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Stored bytes that something refers to.
fn live_bytes(volume: &Volume) -> u64 {
    volume.run(&["sync", volume.mountpoint.to_str().unwrap()]);
    let status = volume.run(&["status", "--json", volume.dir.to_str().unwrap()]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let bytes = |name: &str| status["data"][name].as_u64().unwrap();
    bytes("stored_bytes") - bytes("dead_bytes")
}

/// Fills a file, and has its segment sealed: dead bytes are counted in sealed ones.
fn fill(volume: &mut Volume, name: &str) {
    shell("head -c 16M /dev/urandom >\"$1\"", &[&volume.path(name)]);
    volume.umount();
    volume.mount();
}

fn wait_for(volume: &Volume, expected: u64) {
    let start = now();
    loop {
        let found = live_bytes(volume);
        if found.abs_diff(expected) <= expected / 50 {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{found} bytes are live, not {expected}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn what_only_a_snapshot_held_is_freed_with_it() {
    let mut volume = Volume::with(&[], &[]);
    fill(&mut volume, "stays");
    let before = live_bytes(&volume);
    fill(&mut volume, "goes");
    take(&volume, "", "s");
    fs::remove_file(volume.path("goes")).unwrap();
    let held = live_bytes(&volume);
    assert!(held > before + (15 << 20), "the snapshot holds the file: {before} {held}");
    let list = volume.run(&["snapshot", "list", "--json", volume.mountpoint.to_str().unwrap()]);
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["snapshots"][0]["used_bytes"], 16 << 20, "{list}");
    volume.run(&["snapshot", "destroy", &at(&volume, "", "s")]);
    wait_for(&volume, before);
}

#[test]
fn everything_comes_back_after_clones_rollbacks_and_destroys() {
    let mut volume = Volume::with(&[], &[]);
    fill(&mut volume, "stays");
    let before = live_bytes(&volume);
    make_dataset(&volume, "a");
    fill(&mut volume, "a/one");
    take(&volume, "a", "one");
    fill(&mut volume, "a/two");
    take(&volume, "a", "two");
    let clone = volume.path("c");
    volume.run(&["snapshot", "clone", &at(&volume, "a", "one"), clone.to_str().unwrap()]);
    fill(&mut volume, "c/one");
    volume.run(&["snapshot", "rollback", "-r", &at(&volume, "a", "one")]);
    fill(&mut volume, "a/three");
    volume.run(&["dataset", "promote", clone.to_str().unwrap()]);
    take(&volume, "c", "late");
    assert!(live_bytes(&volume) > before + (40 << 20));
    volume.run(&["dataset", "destroy", volume.path("a").to_str().unwrap()]);
    volume.run(&["dataset", "destroy", "-r", clone.to_str().unwrap()]);
    wait_for(&volume, before);
}
