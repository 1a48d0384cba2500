//! What an fsync costs the device, counted by the kernel: Firn beside the filesystem it lies on.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::disk::Disk;
use crate::harness::{FIRN, Volume, noise, now, succeed};

const PAGE: usize = 4096;

/// Flushes a second that go on behind the work: the catalog's, and what the kernel writes back.
const BEHIND: u64 = 8;

/// A disk of its own with a volume on it, mounted, and a directory beside it.
fn disk_with_volume(scratch: &Path) -> (Disk, Volume, PathBuf) {
    let disk = Disk::make(&scratch.join("image"), "1G", "mkfs.ext4 -q", scratch.join("disk"));
    let plain = disk.path("plain");
    std::fs::create_dir(&plain).unwrap();
    succeed(Command::new(FIRN).arg("init").arg(disk.path("volume")));
    let volume = Volume::existing(disk.path("volume"));
    (disk, volume, plain)
}

/// Appends pages to a file, each followed by an fsync.
fn append(path: &Path, pages: usize) {
    let file = File::create(path).unwrap();
    for page in 0..pages {
        file.write_all_at(&noise(page as u64, PAGE), (page * PAGE) as u64).unwrap();
        file.sync_all().unwrap();
    }
}

/// Flushes of the device that some work on the directory below makes.
fn flushes_below(disk: &Disk, work: impl FnOnce()) -> u64 {
    let before = disk.flushes();
    work();
    disk.flushes() - before
}

/// The same for work on the mount, without those that go on behind it.
fn flushes(disk: &Disk, work: impl FnOnce()) -> u64 {
    let start = now();
    let all = flushes_below(disk, work);
    all.saturating_sub((start.elapsed().as_secs() + 1) * BEHIND)
}

#[test]
fn a_small_fsync_flushes_the_device_no_more_often_than_below() {
    let scratch = tempfile::tempdir().unwrap();
    let (disk, mut volume, plain) = disk_with_volume(scratch.path());
    // What a file's first fsync makes durable beside it.
    append(&volume.path("first"), 1);
    let below = flushes_below(&disk, || append(&plain.join("file"), 300));
    let here = flushes(&disk, || append(&volume.path("file"), 300));
    eprintln!("NOTE: 300 fsyncs flush {here} times here and {below} times below");
    assert!(below >= 300, "the device does not see flushes: {below}");
    assert!(here * 10 <= below * 11, "{here} here, {below} below");
    volume.umount();
}

#[test]
fn fsyncs_at_the_same_time_share_flushes() {
    let scratch = tempfile::tempdir().unwrap();
    let (disk, mut volume, _plain) = disk_with_volume(scratch.path());
    append(&volume.path("first"), 1);
    let alone = flushes(&disk, || append(&volume.path("file"), 400));
    let together = flushes(&disk, || {
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let path = volume.path(&format!("file{thread}"));
                scope.spawn(move || append(&path, 50));
            }
        });
    });
    eprintln!(
        "NOTE: 400 fsyncs flush {alone} times one after the other, {together} times by eight"
    );
    assert!(together * 4 <= alone * 3, "{together} together, {alone} alone");
    volume.umount();
}
