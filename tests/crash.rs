//! `kill -9` under load, twenty times: what `fsync` acknowledged is there, what rename replaced is
//! whole, and the volume mounts again without a hand.

use std::fs;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use crate::harness::Volume;
use crate::load::{Acknowledged, Load, verify};

const ROUNDS: u32 = 20;

#[test]
fn acknowledged_writes_survive_twenty_kills() {
    let mut volume = Volume::mounted();
    let mut acknowledged = Acknowledged::default();
    let mut rounds_with_unflushed_work = 0;
    for round in 0..ROUNDS {
        let load = Load::start(&volume.mountpoint, &acknowledged);
        std::thread::sleep(Duration::from_millis(300 + 97 * u64::from(round % 7)));
        // As the daemon itself counts it, a moment before it dies.
        rounds_with_unflushed_work += u32::from(volume.dirty_files() > 0);
        volume.kill();
        acknowledged = load.stop();
        volume.mount();
        verify(&volume.mountpoint, &acknowledged, round);
    }
    assert!(!acknowledged.is_empty(), "nothing was ever acknowledged");
    assert!(
        rounds_with_unflushed_work >= ROUNDS / 2,
        "only {rounds_with_unflushed_work} kills met unflushed work"
    );
}

/// The library panics on this time. Neither its sender nor anybody else may hang.
#[test]
fn a_request_that_panics_ends_the_mount_in_order() {
    let mut volume = Volume::mounted();
    fs::write(volume.path("file"), "content").unwrap();
    let path = volume.path("file");
    let sender = std::thread::spawn(move || {
        let time = Timespec { tv_sec: i64::MIN, tv_nsec: 1 };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, &path, &times, AtFlags::empty())
    });
    sender.join().unwrap().expect_err("the library can do it now: the guard may go");
    volume.wait_ended();
    assert!(volume.log().contains("panicked"), "{}", volume.log());
    volume.mount();
    assert_eq!(fs::read_to_string(volume.path("file")).unwrap(), "content");
}
