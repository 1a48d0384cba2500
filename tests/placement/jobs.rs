//! Jobs that outlive the daemon, and what becomes of them while the cold tier is away.

use std::fs;

use serde_json::Value;

use super::{content, eventually, jobs_of, xattr};
use crate::cold_down::{READ_DEADLINE, Store, UMOUNT_DEADLINE};
use crate::harness::Volume;

const LEN: usize = 300_000;

fn state(volume: &Volume, name: &str) -> String {
    xattr(&volume.path(name), "user.firn.state").unwrap()
}

fn stage(volume: &Volume, name: &str) {
    volume.run(&["tier", "stage", volume.path(name).to_str().unwrap()]);
}

/// The job about a file that has not ended.
fn job(volume: &Volume, name: &str) -> Option<Value> {
    let is_over = |job: &Value| ["done", "cancelled", "failed"].iter().any(|s| job["state"] == *s);
    let mut jobs = jobs_of(volume).into_iter();
    jobs.find(|job| !is_over(job) && job["what"].as_str().unwrap().ends_with(name))
}

#[test]
fn a_job_outlives_the_daemon_and_is_done_once_cold_answers() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::start(dir.path());
    let mut volume = store.volume(&[READ_DEADLINE, UMOUNT_DEADLINE]);
    for name in ["wanted", "unwanted"] {
        fs::write(volume.path(name), content(name, LEN)).unwrap();
    }
    let root = volume.mountpoint.to_str().unwrap().to_owned();
    volume.run(&["tier", "archive", "-r", &root]);
    volume.run(&["tier", "release", "-r", &root]);
    volume.umount();
    volume.mount();
    store.kill();
    stage(&volume, "wanted");
    assert!(job(&volume, "wanted").is_some());
    volume.kill();
    volume.mount();
    assert_eq!(job(&volume, "wanted").expect("it is remembered")["kind"], "stage");
    stage(&volume, "unwanted");
    eventually("the one is parked", || {
        job(&volume, "wanted").is_some_and(|job| job["state"] == "parked")
    });
    assert_eq!(state(&volume, "wanted"), "fetching");
    let parked = job(&volume, "wanted").unwrap();
    assert!(!parked["reason"].as_str().unwrap().is_empty(), "{parked}");
    let status: Value = serde_json::from_str(&volume.run(&["status", "--json", &root])).unwrap();
    assert!(status["placement"]["parked_reason"].is_string(), "{status}");
    assert!(status["warnings"].to_string().contains("parked"), "{status}");
    eventually("the other, too, so that it can be dropped", || {
        job(&volume, "unwanted").is_some_and(|job| job["state"] == "parked")
    });
    let number = job(&volume, "unwanted").unwrap()["job"].to_string();
    volume.run(&["tier", "cancel", "--volume", &root, &number]);
    assert!(job(&volume, "unwanted").is_none());
    store.restart();
    eventually("it is done", || state(&volume, "wanted") == "dual");
    eventually("and over", || job(&volume, "wanted").is_none());
    assert_eq!(state(&volume, "unwanted"), "cold");
    assert!(fs::read(volume.path("wanted")).unwrap() == content("wanted", LEN));
    volume.umount();
}

#[test]
fn a_job_that_waits_for_cold_holds_up_no_unmount() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::start(dir.path());
    let mut volume = store.volume(&[READ_DEADLINE, UMOUNT_DEADLINE]);
    fs::write(volume.path("wanted"), content("wanted", LEN)).unwrap();
    let root = volume.mountpoint.to_str().unwrap().to_owned();
    volume.run(&["tier", "archive", "-r", &root]);
    volume.run(&["tier", "release", "-r", &root]);
    store.kill();
    stage(&volume, "wanted");
    eventually("it runs", || job(&volume, "wanted").is_some_and(|job| job["state"] != "waiting"));
    // The harness waits for a minute.
    volume.umount();
    volume.mount();
    assert!(job(&volume, "wanted").is_some(), "it is still to be done");
}
