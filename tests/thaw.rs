//! Thawed files on a real mount: what the kernel reads by itself is what the daemon would give, and
//! everything around it goes on as on any mount.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::harness::{MOUNT_OPTIONS, Volume, noise, shell, succeed};
use crate::snapshots::{at, shown, take};

const LEN: usize = 4 << 20;

fn mounted(options: &str) -> Volume {
    Volume::with(&[], &[(MOUNT_OPTIONS, options)])
}

/// A file of noise, and the same in a snapshot.
fn with_snapshot(volume: &Volume) -> (Vec<u8>, PathBuf) {
    let content = noise(7, LEN);
    fs::write(volume.path("f"), &content).unwrap();
    take(volume, "", "s");
    (content, shown(volume, "", "s", "f"))
}

fn status(volume: &Volume) -> serde_json::Value {
    let status = volume.run(&["status", "--json", volume.mountpoint.to_str().unwrap()]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    status
}

fn thawed(volume: &Volume, what: &str) -> Option<u64> {
    status(volume)["thawed"][what].as_u64()
}

fn reads(volume: &Volume) -> u64 {
    status(volume)["counters"]["kernel_requests"]["read"].as_u64().unwrap_or(0)
}

fn wait_for(what: &str, done: impl Fn() -> bool) {
    for _ in 0..300 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{what}");
}

/// The daemon's descriptor of the one copy there is.
fn copy_of(volume: &Volume) -> PathBuf {
    let hot = volume.dir.join("hot");
    let fds = fs::read_dir(format!("/proc/{}/fd", volume.pid())).unwrap();
    let mut copies = fds.flatten().map(|entry| entry.path()).filter(|path| {
        let target = fs::read_link(path).unwrap_or_default();
        target.starts_with(&hot) && target.to_str().unwrap().ends_with("(deleted)")
    });
    copies.next().expect("a copy is open")
}

#[test]
fn the_kernel_reads_a_thawed_file_by_itself_and_reads_what_it_holds() {
    let volume = mounted("cache=passthrough,thaw=always");
    let (content, path) = with_snapshot(&volume);
    let file = File::open(&path).unwrap();
    assert_eq!((thawed(&volume, "files"), thawed(&volume, "opens")), (Some(1), Some(1)));
    assert_eq!(thawed(&volume, "bytes"), Some(LEN as u64));
    let before = reads(&volume);
    let mut page = [0; 4096];
    for at in (0..LEN - 4096).rev().step_by(30_011) {
        file.read_exact_at(&mut page, at as u64).unwrap();
        assert!(page == content[at..at + 4096], "at {at}");
    }
    assert_eq!(file.read_at(&mut page, LEN as u64).unwrap(), 0);
    let maps = r#"
import mmap, sys
file = open(sys.argv[1], 'rb')
for flags in mmap.MAP_SHARED, mmap.MAP_PRIVATE:
    pages = mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ)
    sys.stdout.buffer.write(pages[:])
writable = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
writable[0:4] = b'mine'
"#;
    let out = Command::new("python3").args(["-c", maps]).arg(&path).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(out.stdout[..LEN] == content && out.stdout[LEN..] == content);
    assert!(fs::read(&path).unwrap() == content);
    assert_eq!(reads(&volume), before, "nothing was asked of the daemon");
    assert_eq!(file.metadata().unwrap().size(), LEN as u64);
    let refused = OpenOptions::new().read(true).write(true).open(&path).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc_erofs()));
}

fn libc_erofs() -> i32 {
    rustix::io::Errno::ROFS.raw_os_error()
}

#[test]
fn readers_of_a_thawed_file_and_writers_of_the_live_one_do_not_meet() {
    let mut volume = mounted("cache=passthrough,thaw=always");
    let (content, path) = with_snapshot(&volume);
    let (old, live) = (File::open(&path).unwrap(), File::open(volume.path("f")).unwrap());
    let writer = OpenOptions::new().read(true).write(true).open(volume.path("f")).unwrap();
    writer.write_all_at(b"changed", 4096).unwrap();
    let mut seen = [0; 7];
    live.read_exact_at(&mut seen, 4096).unwrap();
    assert_eq!(&seen, b"changed");
    writer.set_len(4099).unwrap();
    assert_eq!(fs::read(volume.path("f")).unwrap().len(), 4099);
    fs::remove_file(volume.path("f")).unwrap();
    assert_eq!(live.read_at(&mut seen, 4096).unwrap(), 3);
    let all = |file: &File| {
        let mut all = vec![0; LEN];
        file.read_exact_at(&mut all, 0).unwrap();
        all
    };
    assert!(all(&old) == content);
    // What is open outlives its snapshot.
    volume.run(&["snapshot", "destroy", &at(&volume, "", "s")]);
    assert!(File::open(&path).is_err());
    assert!(all(&old) == content);
    drop((old, live, writer));
    wait_for("the copy goes with its snapshot", || thawed(&volume, "files") == Some(0));
    volume.umount();
    volume.mount();
    assert!(!volume.path("f").exists());
    assert_eq!(fs::read_dir(volume.dir.join("hot/tmp")).unwrap().count(), 0);
}

#[test]
fn a_copy_that_was_damaged_is_not_served_to_whoever_opens_it_then() {
    let volume = mounted("cache=passthrough,thaw=always");
    let (content, path) = with_snapshot(&volume);
    let first = File::open(&path).unwrap();
    let copy = OpenOptions::new().write(true).open(copy_of(&volume)).unwrap();
    copy.write_all_at(b"rotten", 8192).unwrap();
    drop(copy);
    let refused = fs::read(&path).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()), "might map it");
    drop(first);
    wait_for("put back", || thawed(&volume, "damaged") == Some(1));
    assert!(volume.log().contains("a thawed file was not any more"), "{}", volume.log());
    assert!(fs::read(&path).unwrap() == content, "thawed anew");
}

#[test]
fn unaligned_direct_reads_of_a_thawed_file_are_answered_as_without_a_copy() {
    let volume = mounted("cache=passthrough,thaw=always");
    let (content, path) = with_snapshot(&volume);
    let unaligned = |others: &str| {
        let direct = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECT;
        let file = rustix::fs::open(&path, direct, rustix::fs::Mode::empty()).unwrap();
        let mut some = vec![0; 7001];
        File::from(file).read_exact_at(&mut some, 12_345).unwrap();
        assert!(some == content[12_345..12_345 + 7001], "{others}");
    };
    unaligned("alone");
    let passing = File::open(&path).unwrap();
    assert_eq!(thawed(&volume, "opens"), Some(1));
    unaligned("beside a reader of the copy");
    drop(passing);
}

#[test]
fn random_reads_thaw_a_file_and_a_crash_leaves_nothing_of_it() {
    let mut volume = mounted("cache=passthrough");
    let (content, path) = with_snapshot(&volume);
    let file = File::open(&path).unwrap();
    let mut page = [0; 4096];
    for at in (0..LEN / 4096).map(|n| n * 389 % (LEN / 4096) * 4096) {
        file.read_exact_at(&mut page, at as u64).unwrap();
        assert!(page == content[at..at + 4096]);
    }
    wait_for("thawed", || thawed(&volume, "files") == Some(1));
    assert_eq!(thawed(&volume, "opens"), Some(0), "this one was open before");
    drop(file);
    wait_for("the next open passes through", || {
        assert!(fs::read(&path).unwrap() == content);
        thawed(&volume, "opens") > Some(0)
    });
    volume.kill();
    volume.mount();
    assert_eq!(thawed(&volume, "files"), Some(0));
    assert!(fs::read(&path).unwrap() == content);
}

#[test]
fn on_a_read_only_mount_every_file_can_pass_through() {
    let mut volume = Volume::with(&[], &[]);
    let content = noise(3, LEN);
    fs::write(volume.path("f"), &content).unwrap();
    volume.umount();
    volume.try_mount(&[(MOUNT_OPTIONS, "cache=passthrough,thaw=always,ro")]).unwrap();
    assert!(fs::read(volume.path("f")).unwrap() == content);
    assert_eq!(thawed(&volume, "opens"), Some(1));
}

#[test]
fn where_the_kernel_refuses_everything_works_without() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root, to put the hot tier on a stacked file system");
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let stack = r#"cd "$1"; mkdir lower upper work hot
mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work hot"#;
    shell(stack, &[scratch.path()]);
    let hot = scratch.path().join("hot");
    let _stacked = Stacked(hot.clone());
    {
        let envs = [(MOUNT_OPTIONS, "cache=passthrough,thaw=always")];
        let mut volume = Volume::with(&["--hot", hot.join("tier").to_str().unwrap()], &envs);
        let (content, path) = with_snapshot(&volume);
        assert!(fs::read(&path).unwrap() == content);
        assert_eq!(thawed(&volume, "opens"), None);
        assert!(volume.log().contains("no file passes through"), "{}", volume.log());
        assert!(fs::read(&path).unwrap() == content);
        wait_for("no copy is kept in vain", || thawed(&volume, "files") == Some(0));
        volume.umount();
    }
}

/// A mounted file system, gone again whatever happens.
struct Stacked(PathBuf);

impl Drop for Stacked {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn without_thawing_the_mount_works_and_keeps_its_times() {
    let volume = mounted("cache=passthrough,thaw=never");
    let (content, path) = with_snapshot(&volume);
    assert!(fs::read(path).unwrap() == content);
    assert_eq!(status(&volume)["thawed"], serde_json::Value::Null);
    let file = volume.path("mapped");
    File::create(&file).unwrap().write_all(&[b'.'; 8192]).unwrap();
    let before = fs::metadata(&file).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let store = r#"
import mmap, os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_APPEND)
pages = mmap.mmap(file, 0)
pages[4096:4100] = b'mine'
pages.flush()
os.write(file, b'more')
"#;
    succeed(Command::new("python3").args(["-c", store]).arg(&file));
    let after = fs::metadata(&file).unwrap();
    assert!(after.modified().unwrap() > before.modified().unwrap(), "a map changes times as well");
    let bytes = fs::read(&file).unwrap();
    assert_eq!(bytes.len(), 8196);
    assert_eq!((&bytes[4096..4100], &bytes[8192..]), (&b"mine"[..], &b"more"[..]));
}
