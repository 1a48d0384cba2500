//! Rolling back while programs have files open: the old state is stale, and nothing of it shows.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{at, make_dataset, take};
use crate::harness::{Volume, succeed};

/// Changes a file through a mapping and a descriptor, so that its pages are in the kernel.
const CHANGE: &str = r#"
import mmap, sys
file = open(sys.argv[1], 'r+b', buffering=0)
pages = mmap.mmap(file.fileno(), 0)
pages[4096:4096 + 6] = b'future'
file.seek(3 * 4096)
file.write(b'future')
file.seek(0, 2)
file.write(b'longer')
"#;

fn content() -> Vec<u8> {
    (0..8_u8).flat_map(|page| vec![b'a' + page; 4096]).collect()
}

fn open_dir(path: &Path) -> rustix::fd::OwnedFd {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .unwrap()
}

fn is_stale(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(Errno::STALE.raw_os_error())
}

/// Changes everything in `dataset`, rolls it back, and looks at what programs see.
fn roll_back_under_open_files(dataset: &str) {
    let volume = Volume::mounted();
    if !dataset.is_empty() {
        make_dataset(&volume, dataset);
    }
    let top = volume.path(dataset);
    fs::create_dir(top.join("dir")).unwrap();
    for name in ["file", "dir/file", "removed"] {
        fs::write(top.join(name), content()).unwrap();
    }
    take(&volume, dataset, "s");

    for name in ["file", "dir/file"] {
        succeed(Command::new("python3").args(["-c", CHANGE]).arg(top.join(name)));
    }
    fs::remove_file(top.join("removed")).unwrap();
    assert!(!top.join("removed").exists(), "the kernel remembers that it is gone");
    fs::write(top.join("added"), "future").unwrap();
    let mut kept = File::options().read(true).write(true).open(top.join("file")).unwrap();
    let kept_dir = open_dir(&top.join("dir"));
    let kept_root = open_dir(&volume.mountpoint);
    kept.write_all(b"dirty when the dataset is rolled back").unwrap();

    volume.run(&["snapshot", "rollback", &at(&volume, dataset, "s")]);

    for name in ["file", "dir/file", "removed"] {
        assert!(fs::read(top.join(name)).unwrap() == content(), "{name} shows the future");
    }
    assert!(!top.join("added").exists());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let below = Path::new(dataset).join("dir/file");
    let again = rustix::fs::openat(&kept_root, below, flags, Mode::empty()).unwrap();
    let mut page = vec![0; 4096];
    File::from(again).read_exact_at(&mut page, 4096).unwrap();
    assert!(page == vec![b'b'; 4096], "through a directory that was open");

    let error = kept.read_exact_at(&mut page, 0).unwrap_err();
    assert!(is_stale(&error), "reading the old state: {error}");
    let late = kept.write_all_at(&page, 0).and_then(|()| kept.sync_all());
    assert!(late.is_err(), "a late write to the old state");
    let error = rustix::fs::openat(&kept_dir, "file", flags, Mode::empty()).unwrap_err();
    assert_eq!(error, Errno::STALE, "an old directory");
    drop(kept);
    for name in ["file", "dir/file", "removed"] {
        assert!(fs::read(top.join(name)).unwrap() == content(), "{name} after late writes");
    }
    fs::write(top.join("file"), "on it goes").unwrap();
    assert_eq!(fs::read(top.join("file")).unwrap(), b"on it goes");
}

#[test]
fn a_dataset_goes_back_under_open_files() {
    roll_back_under_open_files("proj");
}

#[test]
fn the_root_of_the_mount_goes_back_under_open_files() {
    roll_back_under_open_files("");
}

#[test]
fn newer_snapshots_go_and_others_stay() {
    let mut volume = Volume::mounted();
    make_dataset(&volume, "a");
    make_dataset(&volume, "b");
    for round in ["one", "two", "three"] {
        for dataset in ["a", "b"] {
            fs::write(volume.path(dataset).join("file"), round).unwrap();
            take(&volume, dataset, round);
        }
    }
    volume.run(&["snapshot", "rollback", "-r", &at(&volume, "a", "one")]);
    let look = |volume: &Volume| {
        assert_eq!(fs::read(volume.path("a/file")).unwrap(), b"one");
        assert_eq!(fs::read(volume.path("b/file")).unwrap(), b"three");
        let list = volume.run(&["snapshot", "list", "-r", volume.mountpoint.to_str().unwrap()]);
        let names: Vec<&str> =
            list.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
        let left = [("a", "one"), ("b", "one"), ("b", "two"), ("b", "three")];
        assert_eq!(names, left.map(|(dataset, name)| at(volume, dataset, name)), "{list}");
    };
    look(&volume);
    volume.kill();
    volume.mount();
    look(&volume);
}
