//! Datasets and snapshots.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use crate::harness::{Volume, shell};
use crate::snapshots::streams::{failed, half_received, receiver, stream};
use crate::snapshots::{at, make_dataset, sealed, shown, take};

fn failed_with<T: std::fmt::Debug>(result: io::Result<T>, errno: Errno) {
    let error = result.unwrap_err();
    assert_eq!(error.raw_os_error(), Some(errno.raw_os_error()), "{error}");
}

/// "Datasets"
#[test]
fn datasets() {
    let volume = Volume::mounted();
    make_dataset(&volume, "a");
    make_dataset(&volume, "a/b");
    fs::write(volume.path("a/file"), "content").unwrap();
    fs::write(volume.path("a/b/file"), "content").unwrap();
    failed_with(fs::rename(volume.path("a/file"), volume.path("file")), Errno::XDEV);
    failed_with(fs::hard_link(volume.path("a/file"), volume.path("a/b/link")), Errno::XDEV);
    failed_with(fs::rename(volume.path("a"), volume.path("c")), Errno::BUSY);
    fs::remove_file(volume.path("a/b/file")).unwrap();
    failed_with(fs::remove_dir(volume.path("a/b")), Errno::BUSY);
    shell("mv \"$1\" \"$2\"", &[&volume.path("a/file"), &volume.path("a/b/")]);
    assert_eq!(fs::read(volume.path("a/b/file")).unwrap(), b"content");
    let device = |path: &str| fs::metadata(volume.path(path)).unwrap().dev();
    assert_eq!((device(""), device("")), (device("a"), device("a/b/file")));
    take(&volume, "a", "s");
    let junction = shown(&volume, "a", "s", "b");
    assert_eq!(fs::read_dir(junction).unwrap().count(), 0);
}

/// "Taking a snapshot"
#[test]
fn taking_a_snapshot() {
    let volume = Volume::mounted();
    make_dataset(&volume, "below");
    let file = File::create(volume.path("below/file")).unwrap();
    file.write_all_at(b"unsynced", 0).unwrap();
    let names = [volume.path("here"), volume.path("there")];
    fs::write(&names[0], "moving").unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                fs::rename(&names[0], &names[1]).unwrap();
                fs::rename(&names[1], &names[0]).unwrap();
            }
        });
        for number in 0..5 {
            let snapshot = at(&volume, "", &number.to_string());
            volume.run(&["snapshot", "create", "-r", &snapshot]);
        }
        stop.store(true, Ordering::Relaxed);
    });
    for number in 0..5 {
        let name = number.to_string();
        let is_there = |path: &str| shown(&volume, "", &name, path).exists();
        assert!(is_there("here") != is_there("there"), "snapshot {number}");
        assert_eq!(fs::read(shown(&volume, "below", &name, "file")).unwrap(), b"unsynced");
    }
}

/// "Looking into snapshots"
#[test]
fn looking_into_snapshots() {
    let volume = Volume::mounted();
    fs::write(volume.path("file"), "then").unwrap();
    shell("setfattr -n user.note -v then \"$1\" && chmod 640 \"$1\"", &[&volume.path("file")]);
    take(&volume, "", "s");
    fs::write(volume.path("file"), "now").unwrap();
    let kept = shown(&volume, "", "s", "file");
    assert_eq!(fs::read(&kept).unwrap(), b"then");
    let (then, now) = (fs::metadata(&kept).unwrap(), fs::metadata(volume.path("file")).unwrap());
    assert_eq!(then.mode() & 0o7777, 0o640);
    assert_eq!(then.dev(), now.dev());
    assert_ne!(then.ino(), now.ino());
    let note = shell("getfattr --only-values -n user.note \"$1\"", &[&kept]);
    assert_eq!(note, "then");
    assert_eq!(shell("ls -A \"$1\"", &[&volume.mountpoint]), "file\n");
    assert_eq!(shell("ls \"$1/.firn/snapshot\"", &[&volume.mountpoint]), "s\n");
    failed_with(fs::write(&kept, "changed"), Errno::ROFS);
    failed_with(fs::remove_file(&kept), Errno::ROFS);
    failed_with(fs::write(kept.with_file_name("new"), ""), Errno::ROFS);
}

/// "Digests of snapshots"
#[test]
fn digests_of_snapshots() {
    let (mut one, mut two) = (Volume::mounted(), Volume::mounted());
    fs::create_dir(one.path("dir")).unwrap();
    fs::write(one.path("dir/file"), vec![7; 3_000_000]).unwrap();
    for name in ["a", "b", "c"] {
        take(&one, "", name);
    }
    fs::write(one.path("dir/file"), "changed").unwrap();
    take(&one, "", "d");
    // Wherever the daemon ends, the next one goes on.
    one.kill();
    one.mount();
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| sealed(&one, "", name));
    assert!(a.0 == b.0 && b.0 == c.0 && c.0 != d.0);
    assert!(a.1 != b.1 && b.1 != c.1 && c.1 != d.1);
    one.run(&["snapshot", "destroy", &at(&one, "", "b")]);
    one.run(&["snapshot", "rename", &at(&one, "", "c"), &at(&one, "", "see")]);
    let clone = one.path("clone");
    one.run(&["snapshot", "clone", &at(&one, "", "d"), clone.to_str().unwrap()]);
    take(&one, "clone", "e");
    let e = sealed(&one, "clone", "e");
    assert!(e.0 == d.0 && e.1 != d.1);
    one.run(&["dataset", "promote", clone.to_str().unwrap()]);
    for (args, name) in [(&[][..], "a"), (&["-i", "@a"], "see"), (&["-i", "@see"], "d")] {
        // What was promoted belongs to the clone.
        let mut send = one.firn();
        let sent = send.args(["snapshot", "send"]).args(args).arg(at(&one, "clone", name)).output();
        let mut child = receiver(&two, &[]);
        child.stdin.take().unwrap().write_all(&sent.unwrap().stdout).unwrap();
        let received = child.wait_with_output().unwrap();
        assert!(received.status.success(), "{}", String::from_utf8_lossy(&received.stderr));
    }
    assert_eq!(["a", "see", "d"].map(|name| sealed(&two, "copy", name).0), [a.0, c.0.clone(), d.0]);
    let verified = two.run(&["verify", "--data", &at(&two, "copy", "d")]);
    assert!(verified.contains(": verified: "), "{verified}");
    let verified = one.run(&["verify", "--data", &at(&one, "clone", "see")]);
    let expected = format!("chain of 2 snapshots, 1 destroyed\nroot   {}\ndigest {}\n", c.0, c.1);
    assert!(verified.ends_with(&expected), "{verified}");
    one.umount();
    two.umount();
}

/// "Clones"
#[test]
fn clones() {
    let volume = Volume::mounted();
    fs::write(volume.path("file"), "same").unwrap();
    take(&volume, "", "s");
    let clone = volume.path("clone");
    volume.run(&["snapshot", "clone", &at(&volume, "", "s"), clone.to_str().unwrap()]);
    assert_eq!(fs::read(clone.join("file")).unwrap(), b"same");
    fs::write(clone.join("file"), "clone").unwrap();
    assert_eq!(fs::read(volume.path("file")).unwrap(), b"same");
    fs::write(volume.path("file"), "origin").unwrap();
    assert_eq!(fs::read(clone.join("file")).unwrap(), b"clone");
    assert_eq!(fs::read(shown(&volume, "", "s", "file")).unwrap(), b"same");
}

/// "Quotas"
#[test]
fn quotas() {
    let volume = Volume::mounted();
    make_dataset(&volume, "a");
    volume.run(&["dataset", "set", "quota=2MiB", volume.path("a").to_str().unwrap()]);
    let room = || rustix::fs::statvfs(volume.path("a")).unwrap();
    assert_eq!(room().f_blocks * room().f_frsize, 2 << 20);
    let file = File::create(volume.path("a/file")).unwrap();
    let full = file.write_all_at(&vec![1; 4 << 20], 0).and_then(|()| file.sync_all());
    failed_with(full, Errno::DQUOT);
    file.set_len(0).unwrap();
    file.write_all_at(&vec![1; 2 << 20], 0).and_then(|()| file.sync_all()).unwrap();
    failed_with(File::create(volume.path("a/other")), Errno::DQUOT);
    take(&volume, "a", "s");
    let clone = volume.path("a/clone");
    failed_with(fs::create_dir(&clone), Errno::DQUOT);
    let elsewhere = volume.path("clone");
    volume.run(&["snapshot", "clone", &at(&volume, "a", "s"), elsewhere.to_str().unwrap()]);
    let listed = |dataset: &str| {
        let path = volume.path(dataset);
        let list = volume.run(&["dataset", "list", "--json", path.to_str().unwrap()]);
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        list["datasets"][0]["used_bytes"].as_u64().unwrap()
    };
    assert_eq!((listed("a"), listed("clone")), (2 << 20, 0));
    volume.run(&["dataset", "promote", elsewhere.to_str().unwrap()]);
    assert_eq!((listed("a"), listed("clone")), (0, 2 << 20));
}

/// "Rollback"
#[test]
fn rollback() {
    let volume = Volume::mounted();
    fs::write(volume.path("file"), "then").unwrap();
    take(&volume, "", "s");
    let number = |path: &str| fs::metadata(volume.path(path)).unwrap().ino();
    let before = (number(""), number("file"));
    let open = File::options().read(true).write(true).open(volume.path("file")).unwrap();
    open.write_all_at(b"what came later", 0).unwrap();
    volume.run(&["snapshot", "rollback", &at(&volume, "", "s")]);
    assert_eq!(fs::read(volume.path("file")).unwrap(), b"then");
    let mut bytes = [0; 4];
    failed_with(open.read_exact_at(&mut bytes, 0), Errno::STALE);
    let late = open.write_all_at(b"late", 0).and_then(|()| open.sync_all());
    assert!(late.is_err());
    assert_eq!(fs::read(volume.path("file")).unwrap(), b"then");
    assert_eq!(number(""), before.0);
    assert_ne!(number("file"), before.1);
}

/// "Read-only datasets"
#[test]
fn read_only_datasets() {
    let volume = Volume::mounted();
    make_dataset(&volume, "a");
    make_dataset(&volume, "a/b");
    let name = |path: &str| volume.path(path).to_str().unwrap().to_owned();
    let file = File::options().create_new(true).write(true).open(volume.path("a/b/file")).unwrap();
    file.write_all_at(b"unsynced", 0).unwrap();
    volume.run(&["dataset", "set", "readonly=on", &name("a")]);
    let late = file.write_all_at(b"too late", 0).and_then(|()| file.sync_all());
    failed_with(late, Errno::ROFS);
    failed_with(fs::write(volume.path("a/b/other"), "x"), Errno::ROFS);
    failed_with(fs::remove_file(volume.path("a/b/file")), Errno::ROFS);
    failed_with(fs::rename(volume.path("a/b/file"), volume.path("a/b/other")), Errno::ROFS);
    failed_with(File::options().write(true).open(volume.path("a/b/file")).map(drop), Errno::ROFS);
    for args in [["create", &name("a/c")], ["destroy", &name("a/b")]] {
        let refused = volume.firn().arg("dataset").args(args).output().unwrap();
        let error = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && error.contains("read-only"), "{error}");
    }
    take(&volume, "a/b", "s");
    assert_eq!(fs::read(shown(&volume, "a/b", "s", "file")).unwrap(), b"unsynced");
    volume.run(&["snapshot", "rollback", &at(&volume, "a/b", "s")]);
    volume.run(&["snapshot", "destroy", &at(&volume, "a/b", "s")]);
    fs::write(volume.path("elsewhere"), "x").unwrap();
    volume.run(&["dataset", "set", "readonly=off", &name("a")]);
    assert_eq!(fs::read(volume.path("a/b/file")).unwrap(), b"unsynced");
    fs::write(volume.path("a/b/file"), "x").unwrap();
}

/// "Compression of datasets"
#[test]
fn compression_of_datasets() {
    let volume = Volume::mounted();
    make_dataset(&volume, "a");
    let dataset = volume.path("a").to_str().unwrap().to_owned();
    let text = "the same again and again ".repeat(50_000);
    let stored = |name: &str| {
        let path = volume.path(name);
        fs::write(&path, &text).unwrap();
        File::options().write(true).open(&path).unwrap().sync_all().unwrap();
        let found = volume.run(&["explain", "--json", path.to_str().unwrap()]);
        let found: serde_json::Value = serde_json::from_str(&found).unwrap();
        let runs = found["runs"].as_array().unwrap().clone();
        runs.iter().map(|run| run["block"]["stored"]["stored_bytes"].as_u64().unwrap()).sum::<u64>()
    };
    assert!(stored("a/auto") < text.len() as u64 / 10);
    volume.run(&["dataset", "set", "compression=off", &dataset]);
    assert!(stored("a/off") >= text.len() as u64);
    volume.run(&["dataset", "set", "compression=zstd-3", &dataset]);
    assert!(stored("a/zstd") < text.len() as u64 / 10);
    for name in ["a/auto", "a/off", "a/zstd"] {
        assert_eq!(fs::read(volume.path(name)).unwrap(), text.as_bytes());
    }
}

/// "Receiving"
#[test]
fn receiving() {
    let (one, two) = (Volume::mounted(), Volume::mounted());
    fs::write(one.path("file"), "base").unwrap();
    take(&one, "", "a");
    shell("head -c 24M /dev/urandom >\"$1\"", &[&one.path("big")]);
    fs::write(one.path("file"), "newer").unwrap();
    take(&one, "", "b");
    let (full, later) = (stream(&one, &[], "a"), stream(&one, &["-i", "@a"], "b"));
    let receive = |bytes: &[u8]| {
        let mut child = receiver(&two, &[]);
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        assert!(child.wait().unwrap().success());
    };
    receive(&full);
    let file = two.path("copy/file");
    for resumable in [false, true] {
        let open = File::open(&file).unwrap();
        let child = half_received(&two, if resumable { &["-s"] } else { &[] }, &later);
        assert_eq!(fs::read(&file).unwrap(), b"base");
        failed_with(fs::write(&file, "changed"), Errno::ROFS);
        failed_with(open.read_exact_at(&mut [0; 4], 0), Errno::STALE);
        failed(child);
        assert_eq!(fs::read(&file).unwrap(), b"base");
        assert!(!two.path("copy/big").exists());
        let changed = fs::write(two.path("copy/new"), "");
        if resumable {
            failed_with(changed, Errno::ROFS);
            two.run(&["snapshot", "receive", "-A", two.path("copy").to_str().unwrap()]);
        } else {
            changed.unwrap();
            two.run(&["snapshot", "rollback", &at(&two, "copy", "a")]);
        }
    }
    receive(&later);
    assert_eq!(fs::read(&file).unwrap(), b"newer");
}
