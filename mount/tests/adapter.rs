//! Ring 4: a real mount over a recording core. What the kernel asks arrives with its arguments,
//! and every error leaves as its errno.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(unreachable_pub, reason = "the recording core is a module of this one binary")]
#![allow(clippy::print_stderr, reason = "tests that cannot run say so")]

#[path = "adapter/dirty.rs"]
mod dirty;
#[path = "adapter/recording.rs"]
mod recording;

use std::fs::{File, FileTimes, OpenOptions, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use firn_mount::fuse::{self, MountError, MountOptions, MountedSession};
use recording::{Recording, STUCK, before_1970};
use rustix::fs::{
    FallocateFlags, FlockOperation, Mode, OFlags, RenameFlags, StatxFlags, XattrFlags,
};
use rustix::io::Errno;
use tempfile::TempDir;

/// A recording core that is mounted until dropped.
struct Mounted {
    core: Arc<Recording>,
    session: Option<MountedSession>,
    dir: TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Mounted {
    /// Nothing, and a loud word about it, where the kernel has no FUSE.
    fn new() -> Option<Self> {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut MountOptions)) -> Option<Self> {
        if !Path::new("/dev/fuse").exists() {
            eprintln!("SKIPPED: /dev/fuse is absent, so NOTHING of the FUSE adapter was tested");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let core = Arc::new(Recording::new());
        let mut options = MountOptions::new("test volume, with a comma");
        change(&mut options);
        let handle = runtime.handle().clone();
        let session = fuse::mount(Arc::clone(&core), dir.path(), &options, handle).unwrap();
        Some(Self { core, session: Some(session), dir, runtime })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn session(&self) -> &MountedSession {
        self.session.as_ref().unwrap()
    }

    /// A file whose reads and writes wait, with this content.
    fn stuck_file(&self, name: &str, data: &[u8]) -> PathBuf {
        let path = self.path(&format!("{STUCK}{name}"));
        // The kernel goes by the length that it knows.
        File::create_new(&path).unwrap().set_len(data.len() as u64).unwrap();
        self.core.replace_data(ino(&path).0, data);
        self.session().kernel_cache().invalidate_inode(ino(&path)).unwrap();
        self.core.clear();
        path
    }

    /// A file with this content that the kernel has written out and forgotten.
    fn file(&self, name: &str, data: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, data).unwrap();
        self.session().kernel_cache().invalidate_inode(ino(&path)).unwrap();
        self.core.clear();
        path
    }

    fn saw(&self, call: &str) {
        let calls = self.core.calls();
        assert!(calls.iter().any(|seen| seen == call), "no {call:?} among {calls:#?}");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.core.release_stuck();
        if let Some(session) = self.session.take() {
            if std::thread::panicking() {
                return;
            }
            // A child of another test may hold our descriptors until it runs its program.
            let unmounter = session.unmounter();
            wait_until(|| !matches!(unmounter.unmount(), Err(MountError::Busy(_))));
            session.join().unwrap();
        }
    }
}

/// Waits for what must happen soon; only a defect makes it last.
fn wait_until(happened: impl Fn() -> bool) {
    for _ in 0..6000 {
        if happened() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("waited in vain");
}

fn ino(path: &Path) -> firn_mount::types::Ino {
    firn_mount::types::Ino(std::fs::metadata(path).unwrap().ino())
}

fn errno(result: std::io::Result<impl Sized>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn the_mount_table_names_the_type_and_the_volume() {
    let Some(mut mounted) = Mounted::new() else { return };
    let entry = fuse::mount_entry(mounted.session().mountpoint()).unwrap().unwrap();
    assert_eq!(entry.fs_type, "fuse.firn");
    assert_eq!(entry.source.as_os_str(), "test volume, with a comma");
    let mountpoint = mounted.session().mountpoint().to_owned();
    mounted.session.take().unwrap().unmount().unwrap();
    assert_eq!(fuse::mount_entry(&mountpoint).unwrap(), None);
}

#[test]
fn every_error_leaves_as_its_errno() {
    let Some(mounted) = Mounted::new() else { return };
    for (index, (error, expected)) in recording::errors().into_iter().enumerate() {
        let name = format!("user.error.{index}");
        let got = rustix::fs::getxattr(mounted.dir.path(), &*name, &mut [0_u8; 16]);
        assert_eq!(got, Err(Errno::from_raw_os_error(expected)), "{error:?}");
    }
}

#[test]
fn modes_masks_and_owners_arrive() {
    let Some(mounted) = Mounted::new() else { return };
    let script = "umask 027; touch new; mkdir dir; ln -s some/where soft; ln new hard; mkfifo pipe";
    let done = Command::new("sh").args(["-ec", script]).current_dir(mounted.dir.path()).status();
    assert!(done.unwrap().success());
    mounted.saw("create new 100666 umask=27 w=true a=false");
    mounted.saw("mkdir dir 777 umask=27 by=0");
    mounted.saw("symlink soft -> some/where");
    mounted.saw("mknod pipe 10666 umask=27 rdev=0");
    let file = ino(&mounted.path("new")).0;
    mounted.saw(&format!("link {file} hard"));
    assert_eq!(std::fs::read_link(mounted.path("soft")).unwrap(), Path::new("some/where"));
    std::fs::set_permissions(mounted.path("new"), Permissions::from_mode(0o4751)).unwrap();
    mounted.saw(&format!("setattr {file} by=0 perm=4751 ctime=set No"));
}

#[test]
fn names_move_with_their_flags() {
    let Some(mounted) = Mounted::new() else { return };
    for name in ["a", "b"] {
        mounted.file(name, b"");
    }
    let dir = File::open(mounted.dir.path()).unwrap();
    let rename = |from, to, flags| rustix::fs::renameat_with(&dir, from, &dir, to, flags);
    rename("a", "c", RenameFlags::NOREPLACE).unwrap();
    rename("b", "c", RenameFlags::EXCHANGE).unwrap();
    mounted.saw("rename a c NoReplace No");
    mounted.saw("rename b c Exchange No");
    assert_eq!(rename("c", "d", RenameFlags::WHITEOUT), Err(Errno::INVAL));
}

#[test]
fn times_keep_their_nanoseconds_on_both_sides_of_1970() {
    let Some(mounted) = Mounted::new() else { return };
    let path = mounted.file("f", b"");
    let times = FileTimes::new().set_modified(before_1970()).set_accessed(before_1970());
    File::options().write(true).open(&path).unwrap().set_times(times).unwrap();
    let number = ino(&path).0;
    let set = format!("setattr {number} by=0 atime=-1500000000 mtime=-1500000000 ctime=set No");
    mounted.saw(&set);
    assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), before_1970());
}

#[test]
fn small_writes_arrive_together_and_large_ones_in_requests_of_a_mebibyte() {
    let Some(mounted) = Mounted::new() else { return };
    let mut file = File::create(mounted.path("f")).unwrap();
    for _ in 0..100 {
        file.write_all(b"0123456789").unwrap();
    }
    assert_eq!(mounted.core.calls_of("write"), Vec::<String>::new());
    drop(file);
    let number = ino(&mounted.path("f")).0;
    let handle = number + 1000;
    let expected = format!("write {number} h={handle} 0+1000 cache=true kill=false by=0 No");
    assert_eq!(mounted.core.calls_of("write"), [expected]);
    mounted.core.clear();
    std::fs::write(mounted.path("large"), vec![7; 8 << 20]).unwrap();
    let writes = mounted.core.calls_of("write");
    assert!(writes.iter().any(|call| call.contains("+1048576 ")), "{writes:#?}");
}

#[test]
fn truncation_at_open_is_one_request_and_appending_is_placed_by_the_kernel() {
    let Some(mounted) = Mounted::new() else { return };
    let path = mounted.file("f", b"some content");
    let number = ino(&path).0;
    File::create(&path).unwrap();
    mounted.saw(&format!("open {number} rwt by=0 No"));
    // Times of earlier writes may still arrive; a length must not.
    let mut changes = mounted.core.calls_of("setattr");
    changes.retain(|call| call.contains("size="));
    assert_eq!(changes, Vec::<String>::new());
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);

    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"one").unwrap();
    file.write_all(b"two").unwrap();
    drop(file);
    mounted.saw(&format!("open {number} rw by=0 No"));
    assert_eq!(std::fs::read(&path).unwrap(), b"onetwo");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 6);
}

#[test]
fn size_and_mtime_reach_the_core_after_writes_in_the_page_cache() {
    let Some(mounted) = Mounted::new() else { return };
    let path = mounted.file("f", b"");
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"x", 9999).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 10_000);
    file.sync_all().unwrap();
    let number = ino(&path).0;
    let times = mounted.core.calls_of(&format!("setattr {number} by=0 mtime="));
    assert!(!times.is_empty(), "{:#?}", mounted.core.calls());
    mounted.saw(&format!("fsync {number} data_only=false No"));
    mounted.saw(&format!("fsync {number} data_only=false 300s"));
    file.write_all_at(b"y", 0).unwrap();
    file.sync_data().unwrap();
    mounted.saw(&format!("fsync {number} data_only=true 300s"));
}

#[test]
fn what_would_wait_is_asked_again_under_its_deadline() {
    let Some(mounted) = Mounted::new() else { return };
    let path = mounted.file("slow", &[3; 5000]);
    let number = ino(&path).0;
    assert_eq!(std::fs::read(&path).unwrap(), [3; 5000]);
    let reads = mounted.core.calls_of(&format!("read {number} h={} 0+", number + 1000));
    assert_eq!(reads.len(), 2, "{reads:#?}");
    assert!(reads[0].ends_with(" No") && reads[1].ends_with(" 60s"), "{reads:#?}");

    mounted.core.clear();
    std::fs::write(&path, [4; 5000]).unwrap();
    let writes = mounted.core.calls_of("write");
    assert!(writes[0].ends_with(" No") && writes[1].ends_with(" 300s"), "{writes:#?}");
    mounted.session().kernel_cache().invalidate_inode(ino(&path)).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), [4; 5000]);
}

#[test]
fn waiting_reads_hold_up_nobody_else() {
    let Some(mounted) = Mounted::with(|options| options.threads = 2) else { return };
    let paths: Vec<_> = (0..60).map(|i| mounted.stuck_file(&i.to_string(), b"here")).collect();
    let readers: Vec<_> = paths
        .into_iter()
        .map(|path| std::thread::spawn(move || std::fs::read(path).unwrap()))
        .collect();
    wait_until(|| mounted.core.calls_of("read ").len() >= 60);
    mounted.file("other", b"content");
    assert_eq!(std::fs::read(mounted.path("other")).unwrap(), b"content");
    mounted.core.release_stuck();
    for reader in readers {
        assert_eq!(reader.join().unwrap(), b"here");
    }
}

/// The length in a recorded write.
fn written(call: &str) -> u64 {
    let range = call.split(' ').nth(3).unwrap();
    range.split_once('+').unwrap().1.parse().unwrap()
}

#[test]
fn allocation_arrives_with_its_mode() {
    let Some(mounted) = Mounted::new() else { return };
    let path = mounted.file("f", &[1; 10_000]);
    let number = ino(&path).0;
    let file = File::options().write(true).open(&path).unwrap();
    let (keep, punch) = (FallocateFlags::KEEP_SIZE, FallocateFlags::PUNCH_HOLE);
    let fallocate = |flags| rustix::fs::fallocate(&file, flags, 4096, 100);
    fallocate(FallocateFlags::empty()).unwrap();
    fallocate(keep).unwrap();
    fallocate(punch | keep).unwrap();
    fallocate(FallocateFlags::ZERO_RANGE).unwrap();
    for mode in [
        "Allocate { keep_size: false }",
        "Allocate { keep_size: true }",
        "PunchHole",
        "ZeroRange { keep_size: false }",
    ] {
        mounted.saw(&format!("fallocate {number} 4096+100 {mode} No"));
    }
    assert_eq!(fallocate(FallocateFlags::COLLAPSE_RANGE), Err(Errno::OPNOTSUPP));
}

#[test]
fn extended_attributes_arrive_with_name_value_and_mode() {
    let Some(mounted) = Mounted::new() else { return };
    let path = mounted.file("f", b"");
    let number = ino(&path).0;
    let set = |name, flags| rustix::fs::setxattr(&path, name, b"value", flags);
    set("user.a-longer-name", XattrFlags::empty()).unwrap();
    set("user.b", XattrFlags::CREATE).unwrap();
    set("user.b", XattrFlags::REPLACE).unwrap();
    mounted.saw(&format!("setxattr {number} user.a-longer-name 5 Set by=0"));
    mounted.saw(&format!("setxattr {number} user.b 5 Create by=0"));
    mounted.saw(&format!("setxattr {number} user.b 5 Replace by=0"));
    let get = |buffer: &mut [u8]| rustix::fs::getxattr(&path, "user.b", buffer);
    let mut value = [0; 5];
    assert_eq!(get(&mut value), Ok(5));
    assert_eq!(&value, b"value");
    assert_eq!(get(&mut [0; 2]), Err(Errno::RANGE));
    let mut names = [0_u8; 64];
    let len = rustix::fs::listxattr(&path, &mut names).unwrap();
    assert_eq!(&names[..len], b"user.a-longer-name\0user.b\0");
    rustix::fs::removexattr(&path, "user.b").unwrap();
    mounted.saw(&format!("removexattr {number} user.b"));
}

#[test]
fn directories_are_listed_in_pages_with_attributes() {
    let Some(mounted) = Mounted::new() else { return };
    let names: std::collections::BTreeSet<String> =
        (0..3000).map(|i| format!("{i}-{}", "n".repeat(40))).collect();
    for name in &names {
        File::create(mounted.path(name)).unwrap();
    }
    mounted.core.clear();
    let listed: std::collections::BTreeSet<String> = std::fs::read_dir(mounted.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(listed, names);
    let calls = mounted.core.calls_of("readdir 1 ");
    assert!(calls[0].ends_with(" 0 plus=true") && calls.len() > 2, "{calls:#?}");
}

#[test]
fn a_missing_name_is_asked_for_once() {
    let Some(mounted) = Mounted::new() else { return };
    for _ in 0..3 {
        assert_eq!(errno(File::open(mounted.path("absent"))), Some(libc::ENOENT));
    }
    assert_eq!(mounted.core.calls_of("lookup"), ["lookup 1 absent"]);
    mounted.file("absent", b"now there");
    assert_eq!(std::fs::read(mounted.path("absent")).unwrap(), b"now there");
}

#[test]
fn cached_content_and_names_are_kept_until_invalidated() {
    let Some(mounted) = Mounted::new() else { return };
    let path = mounted.file("f", b"old content");
    assert_eq!(std::fs::read(&path).unwrap(), b"old content");
    let number = ino(&path);
    mounted.core.replace_data(number.0, b"new content");
    assert_eq!(std::fs::read(&path).unwrap(), b"old content");
    let cache = mounted.session().kernel_cache();
    cache.invalidate_inode(number).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"new content");

    mounted.core.remove_entry("f");
    assert!(path.exists());
    cache.invalidate_entry(firn_mount::types::Ino::ROOT, b"f").unwrap();
    assert!(!path.exists());
}

#[test]
fn locks_are_kept_by_the_kernel() {
    let Some(mounted) = Mounted::new() else { return };
    let path = mounted.file("f", b"x");
    let open = || File::options().read(true).write(true).open(&path).unwrap();
    let (first, second) = (open(), open());
    rustix::fs::flock(&first, FlockOperation::LockExclusive).unwrap();
    let taken = rustix::fs::flock(&second, FlockOperation::NonBlockingLockExclusive);
    assert_eq!(taken, Err(Errno::WOULDBLOCK));
    rustix::fs::fcntl_lock(&first, FlockOperation::LockExclusive).unwrap();
    let script = "import fcntl,sys\nf=open(sys.argv[1],'r+')\n\
                  try: fcntl.lockf(f,fcntl.LOCK_EX|fcntl.LOCK_NB)\n\
                  except BlockingIOError: sys.exit(7)";
    let other = Command::new("python3").args(["-c", script]).arg(&path).status().unwrap();
    assert_eq!(other.code(), Some(7));
}

#[test]
fn setuid_is_cleared_by_request_when_another_user_writes() {
    let Some(mounted) = Mounted::new() else { return };
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can write as another user");
        return;
    }
    let path = mounted.file("f", b"program");
    std::fs::set_permissions(&path, Permissions::from_mode(0o4777)).unwrap();
    let script = "printf x | dd of=\"$0\" conv=notrunc status=none";
    let status = Command::new("sh").args(["-c", script]).arg(&path).uid(65534).status().unwrap();
    assert!(status.success());
    let writes = mounted.core.calls_of("write");
    assert!(writes.iter().any(|call| call.contains("kill=true by=65534")), "{writes:#?}");
}

#[test]
fn what_the_protocol_cannot_carry_is_refused_cleanly() {
    let Some(mounted) = Mounted::new() else { return };
    let path = mounted.file("f", b"x");
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let unnamed = rustix::fs::open(
        mounted.dir.path(),
        OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC,
        Mode::RUSR,
    );
    assert_eq!(unnamed.unwrap_err(), Errno::OPNOTSUPP);
    assert_eq!(rustix::fs::ioctl_ficlone(&file, &file), Err(Errno::OPNOTSUPP));
    assert_eq!(rustix::fs::ioctl_getflags(&file), Err(Errno::NOTTY));
    let flags = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let statx = rustix::fs::statx(&file, "", rustix::fs::AtFlags::EMPTY_PATH, flags).unwrap();
    assert_eq!(statx.stx_mask & StatxFlags::BTIME.bits(), 0);
    rustix::fs::syncfs(&file).unwrap();
    assert_eq!(mounted.core.calls_of("sync_all"), Vec::<String>::new());
    let stats = rustix::fs::statvfs(&path).unwrap();
    assert_eq!(stats.f_blocks * stats.f_frsize, 1 << 50);
    assert_eq!((stats.f_files, stats.f_ffree, stats.f_namemax), (1000, 900, 255));
}

#[test]
fn synchronous_writes_are_followed_by_fsync() {
    let Some(mounted) = Mounted::new() else { return };
    let path = mounted.path("f");
    let mut options = OpenOptions::new();
    options.write(true).create(true).custom_flags(libc::O_SYNC);
    let mut file = options.open(&path).unwrap();
    file.write_all(b"now").unwrap();
    let number = ino(&path).0;
    mounted.saw(&format!("write {number} h={} 0+3 cache=true kill=false by=0 No", number + 1000));
    mounted.saw(&format!("fsync {number} data_only=false 300s"));
}

#[test]
fn a_busy_mount_is_not_taken_away_unless_lazily() {
    let Some(mut mounted) = Mounted::new() else { return };
    let mut file = File::create_new(mounted.path("f")).unwrap();
    let unmounter = mounted.session().unmounter();
    assert!(matches!(unmounter.unmount(), Err(MountError::Busy(_))));
    unmounter.unmount_lazily().unwrap();
    assert!(!mounted.path("f").exists());
    file.write_all(b"still there").unwrap();
    drop(file);
    mounted.session.take().unwrap().join().unwrap();
    assert_eq!(mounted.core.calls_of("write").len(), 1);
}

#[test]
fn a_connection_is_aborted_with_requests_in_flight_and_the_rest_is_replaced() {
    let Some(mut mounted) = Mounted::new() else { return };
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can always abort a connection");
        return;
    }
    let path = mounted.stuck_file("", b"never");
    let open = File::open(&path).unwrap();
    let reader = std::thread::spawn(move || errno(std::fs::read(path)));
    wait_until(|| mounted.core.calls_of("read ").len() >= 2);
    mounted.session().unmounter().abort().unwrap();
    let got = reader.join().unwrap();
    assert!(matches!(got, Some(libc::ECONNABORTED | libc::ENOTCONN)), "{got:?}");
    let stats = rustix::fs::statvfs(mounted.dir.path());
    assert_eq!(stats.map(drop), Err(Errno::NOTCONN));
    mounted.core.release_stuck();
    drop(open);
    // As after the death of a daemon, the mountpoint stays behind; the next mount replaces it.
    let dead = mounted.session.take().unwrap();
    let options = MountOptions::new("again");
    let (core, runtime) = (Arc::clone(&mounted.core), mounted.runtime.handle().clone());
    mounted.session = Some(fuse::mount(core, mounted.dir.path(), &options, runtime).unwrap());
    assert_eq!(std::fs::metadata(mounted.path(STUCK)).unwrap().len(), 5);
    dead.join().unwrap();
}

#[test]
fn a_detached_mount_with_a_drain_in_flight_is_still_aborted() {
    let Some(mut mounted) = Mounted::new() else { return };
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can always abort a connection");
        return;
    }
    let mut file = File::create_new(mounted.path(&format!("{STUCK}-writes"))).unwrap();
    file.write_all(b"never written").unwrap();
    let cache = mounted.session().kernel_cache();
    let drain = std::thread::spawn(move || cache.drain_all());
    wait_until(|| mounted.core.calls_of("write ").len() >= 2);
    let unmounter = mounted.session().unmounter();
    unmounter.unmount_lazily().unwrap();
    unmounter.abort().unwrap();
    let _ = drain.join().unwrap();
    mounted.core.release_stuck();
    mounted.session.take().unwrap().join().unwrap();
    assert!(file.sync_all().is_err());
}

#[test]
fn unusable_mountpoints_and_options_are_named() {
    let Some(mounted) = Mounted::new() else { return };
    let mount = |path: &Path, options: &MountOptions| {
        let runtime = mounted.runtime.handle().clone();
        fuse::mount(Arc::clone(&mounted.core), path, options, runtime).unwrap_err()
    };
    let options = MountOptions::new("second");
    let occupied = mount(mounted.dir.path(), &options);
    assert!(matches!(occupied, MountError::Occupied { .. }), "{occupied:?}");
    let missing = mount(Path::new("/nowhere/at/all"), &options);
    assert!(matches!(missing, MountError::Mountpoint { .. }), "{missing:?}");
    let file = mount(Path::new("/etc/passwd"), &options);
    assert!(matches!(file, MountError::Mountpoint { .. }), "{file:?}");
}

#[test]
fn without_write_back_every_write_arrives_at_once_with_its_handle() {
    let Some(mounted) = Mounted::with(|options| options.apply("cache=passthrough").unwrap()) else {
        return;
    };
    let path = mounted.path("log");
    let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
    file.write_all(b"one").unwrap();
    file.write_all(b"two").unwrap();
    let writes = mounted.core.calls_of("write");
    assert_eq!(writes.len(), 2, "none is held back: {writes:?}");
    assert_eq!(std::fs::read(&path).unwrap(), b"onetwo");
    assert_eq!(mounted.session().kernel_cache().passed_opens(), Some(0));
}

#[test]
fn a_read_only_mount_is_refused_by_the_kernel() {
    let Some(mounted) = Mounted::with(|options| options.apply("ro,noexec").unwrap()) else {
        return;
    };
    assert_eq!(errno(File::create(mounted.path("f"))), Some(libc::EROFS));
    assert_eq!(mounted.core.calls_of("create"), Vec::<String>::new());
}

#[test]
fn users_other_than_root_mount_through_the_helper() {
    if !rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
        eprintln!("SKIPPED: needs root, to become another user, and /dev/fuse");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    // The test program may lie where other users cannot reach it.
    std::fs::copy(std::env::current_exe().unwrap(), home.path().join("program")).unwrap();
    // In a namespace of its own, the device is open to everybody, as udev has it elsewhere.
    let script = r#"
        cd "$0"
        mknod -m 666 fuse c 10 229
        mount --bind fuse /dev/fuse
        mkdir mine
        chown 65534:65534 mine .
        chmod 755 .
        TMPDIR=$0/mine exec setpriv --reuid 65534 --regid 65534 --clear-groups \
            ./program --exact as_another_user --ignored --nocapture
    "#;
    let output = Command::new("unshare")
        .args(["-m", "sh", "-ec", script])
        .arg(home.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
}

#[test]
#[ignore = "run as another user by users_other_than_root_mount_through_the_helper"]
fn as_another_user() {
    let mounted = Mounted::new().unwrap();
    let entry = fuse::mount_entry(mounted.session().mountpoint()).unwrap().unwrap();
    assert_eq!(entry.fs_type, "fuse.firn");
    assert_eq!(entry.source.as_os_str(), "test volume, with a comma");
    std::fs::write(mounted.path("f"), b"mine").unwrap();
    assert_eq!(std::fs::read(mounted.path("f")).unwrap(), b"mine");
    assert_eq!(std::fs::metadata(mounted.path("f")).unwrap().uid(), 65534);
    let open = File::open(mounted.path("f")).unwrap();
    let unmounter = mounted.session().unmounter();
    let busy = unmounter.unmount();
    assert!(matches!(busy, Err(MountError::Busy(_))), "{busy:?}");
    drop(open);
}

#[test]
fn mount_options_are_read_as_mount_fuse_writes_them() {
    let mut options = MountOptions::new("v");
    options
        .apply("rw,noatime,allow_other,nodev,nosuid,noexec,_netdev,x-systemd.automount")
        .unwrap();
    assert!(options.allow_other && !options.dev && !options.suid && !options.exec);
    options.apply("dev,suid,exec,ro,fsname=name,threads=2,cache=writeback").unwrap();
    assert!(options.dev && options.suid && options.exec && options.read_only);
    assert_eq!((&*options.fs_name, options.threads), ("name", 2));
    assert!(matches!(options.apply("alow_other"), Err(MountError::UnknownOption(_))));
    assert!(matches!(options.apply("cache=none"), Err(MountError::BadOption { .. })));
    assert!(matches!(options.apply("threads=0"), Err(MountError::BadOption { .. })));
}

#[test]
fn readahead_is_raised_to_a_whole_request() {
    let Some(mounted) = Mounted::new() else { return };
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can raise the read-ahead");
        return;
    }
    let path = mounted.file("f", &vec![5; 8 << 20]);
    let mut file = File::open(&path).unwrap();
    let mut buffer = vec![0; 128 << 10];
    while file.read(&mut buffer).unwrap() > 0 {}
    let reads = mounted.core.calls_of("read ");
    assert!(reads.iter().any(|call| call.contains("+1048576 ")), "{reads:#?}");
}
