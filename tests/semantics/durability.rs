//! What survives.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use crate::harness::Volume;

/// "fsync and fdatasync"
#[test]
fn fsync_and_fdatasync() {
    let mut volume = Volume::mounted();
    fs::create_dir_all(volume.path("a/b")).unwrap();
    for (index, size) in [10, 65_536, 65_537, 3_000_000].into_iter().enumerate() {
        let mut file = File::create_new(volume.path(&format!("a/b/{index}"))).unwrap();
        file.write_all(&vec![index as u8; size]).unwrap();
        file.sync_all().unwrap();
        file.write_at(&[0xff; 10], 0).unwrap();
        file.sync_data().unwrap();
    }
    volume.kill();
    volume.mount();
    for (index, size) in [10, 65_536, 65_537, 3_000_000].into_iter().enumerate() {
        let mut expected = vec![index as u8; size];
        expected[..10].fill(0xff);
        assert!(fs::read(volume.path(&format!("a/b/{index}"))).unwrap() == expected, "{size}");
    }
}

/// "Synchronous writes"
#[test]
fn synchronous_writes() {
    let mut volume = Volume::mounted();
    for (name, flag) in [("sync", libc::O_SYNC), ("dsync", libc::O_DSYNC)] {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).custom_flags(flag);
        let mut file = options.open(volume.path(name)).unwrap();
        for i in 0..20 {
            writeln!(file, "line {i}").unwrap();
        }
    }
    volume.kill();
    volume.mount();
    for name in ["sync", "dsync"] {
        let text = fs::read_to_string(volume.path(name)).unwrap();
        assert_eq!(text.lines().count(), 20, "{name}");
    }
}

/// "Sync of everything"
#[test]
fn sync_of_everything() {
    let mut volume = Volume::mounted();
    // Kept open: the kernel holds what was written until it is asked for it.
    let files: Vec<File> = (0..50)
        .map(|i| {
            let mut file = File::create_new(volume.path(&format!("f{i}"))).unwrap();
            file.write_all(&vec![i as u8; 200_000]).unwrap();
            file
        })
        .collect();
    rustix::fs::syncfs(&files[0]).unwrap();
    let mountpoint = volume.mountpoint.clone();
    volume.run(&["sync", mountpoint.to_str().unwrap()]);
    volume.kill();
    drop(files);
    volume.mount();
    for i in 0..50_u8 {
        let content = fs::read(volume.path(&format!("f{i}"))).unwrap();
        assert!(content == vec![i; 200_000], "f{i}: {} bytes", content.len());
    }
}

/// "Replacing by rename"
#[test]
fn replacing_by_rename() {
    let mut volume = Volume::mounted();
    let (new, old) = (volume.path("config.new"), volume.path("config"));
    fs::write(&old, "old".repeat(50_000)).unwrap();
    File::open(&old).unwrap().sync_all().unwrap();
    fs::write(&new, "new!".repeat(50_000)).unwrap();
    fs::rename(&new, &old).unwrap();
    volume.kill();
    volume.mount();
    let content = fs::read_to_string(&old).unwrap();
    assert!(content == "old".repeat(50_000) || content == "new!".repeat(50_000));
}

/// "Crashes"
#[test]
fn crashes() {
    let mut volume = Volume::mounted();
    let mut file = File::create_new(volume.path("log")).unwrap();
    for i in 0..20_000 {
        writeln!(file, "record {i:08}").unwrap();
        if i == 10_000 {
            file.sync_all().unwrap();
        }
    }
    volume.kill();
    drop(file);
    volume.mount();
    let text = fs::read_to_string(volume.path("log")).unwrap();
    let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    for (i, line) in lines.clone().enumerate() {
        assert_eq!(line, format!("record {i:08}\n"));
    }
    assert!(lines.count() > 10_000);
}

/// "Late errors"
#[test]
fn late_errors() {
    // Room for two segments and their neighbours, and nothing behind it.
    let volume = Volume::with(&["--hot-capacity", "256MiB"], &[]);
    let mut random = File::open("/dev/urandom").unwrap().take(512 << 20);
    let mut file = File::create_new(volume.path("too-large")).unwrap();
    let written = std::io::copy(&mut random, &mut file);
    let synced = file.sync_all();
    let error = written.err().or(synced.err()).expect("half a GiB does not fit into 256 MiB");
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
}
