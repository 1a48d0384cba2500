//! Names and metadata.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{RenameFlags, StatxFlags, XattrFlags};
use rustix::io::Errno;

use crate::harness::{Volume, shell, succeed};

/// Somebody who is not root.
const NOBODY: u32 = 65534;

/// "File types"
#[test]
fn file_types() {
    let mut volume = Volume::mounted();
    let script = r#"cd "$1"; echo x > file; mkdir dir; ln -s file soft; ln file hard; mkfifo pipe
        mknod null c 1 3; mknod block b 7 99; python3 -c "import socket
socket.socket(socket.AF_UNIX).bind('socket')"
        echo lost > null; test ! -s null; cat file > pipe & cat pipe > through; wait; cmp file through"#;
    shell(script, &[&volume.mountpoint]);
    volume.umount();
    volume.mount();
    let kind = |name| fs::symlink_metadata(volume.path(name)).unwrap().file_type();
    assert!(kind("file").is_file() && kind("dir").is_dir() && kind("soft").is_symlink());
    assert!(kind("pipe").is_fifo() && kind("socket").is_socket());
    assert!(kind("null").is_char_device() && kind("block").is_block_device());
    assert_eq!(fs::metadata(volume.path("block")).unwrap().rdev(), (7 << 8) | 99);
    assert_eq!(fs::read_link(volume.path("soft")).unwrap().as_os_str(), "file");
    assert_eq!(fs::metadata(volume.path("hard")).unwrap().nlink(), 2);
}

/// "Names"
#[test]
fn names() {
    let volume = Volume::mounted();
    let odd = (1..=255_u8).filter(|byte| *byte != b'/').collect::<Vec<_>>();
    for name in [&odd[..], b"case", b"CASE", b"\xff\xfe", "e\u{301}".as_bytes(), "é".as_bytes()] {
        let path = volume.mountpoint.join(std::ffi::OsStr::from_bytes(name));
        File::create_new(&path).unwrap().write_all(name).unwrap();
        assert_eq!(fs::read(&path).unwrap(), name);
    }
    assert_eq!(fs::read_dir(&volume.mountpoint).unwrap().count(), 6);
    File::create_new(volume.path(&"n".repeat(255))).unwrap();
    let error = File::create_new(volume.path(&"n".repeat(256))).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENAMETOOLONG));
}

/// "Permissions"
#[test]
fn permissions() {
    let volume = Volume::mounted();
    let private = volume.path("private");
    fs::write(&private, "mine").unwrap();
    fs::set_permissions(&private, Permissions::from_mode(0o640)).unwrap();
    let cat = |groups: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", groups, "cat"]).arg(&private);
        command.output().unwrap().status.success()
    };
    assert!(!cat("--clear-groups"));
    assert!(cat("--groups=0"), "supplementary groups count");
    let shared = volume.path("shared");
    fs::create_dir(&shared).unwrap();
    std::os::unix::fs::chown(&shared, None, Some(1234)).unwrap();
    fs::set_permissions(&shared, Permissions::from_mode(0o2777)).unwrap();
    let script = "umask 022; touch \"$0/file\"; mkdir \"$0/dir\"";
    succeed(Command::new("sh").args(["-ec", script]).arg(&shared).uid(NOBODY).gid(NOBODY));
    let (file, dir) = (fs::metadata(shared.join("file")), fs::metadata(shared.join("dir")));
    let (file, dir) = (file.unwrap(), dir.unwrap());
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (NOBODY, 1234, 0o644));
    assert_eq!((dir.gid(), dir.mode() & 0o7777), (1234, 0o2755));
}

/// "Access control lists"
#[test]
fn access_control_lists() {
    let volume = Volume::mounted();
    let script = r#"cd "$1"; umask 077; mkdir dir; setfacl -d -m u:65534:rwx,g::rx,o::r dir
        touch dir/file; mkdir dir/sub; chmod 755 .
        test "$(stat -c %A dir/file)" = "-rw-rw-r--"
        getfacl -cp dir/file | grep -qx 'user:nobody:rwx.*'; getfacl -cp dir/sub | grep -q '^default:user:nobody:rwx'
        touch plain; test "$(stat -c %A plain)" = "-rw-------"; setfacl -m u:65534:rw plain
        test "$(stat -c %A plain)" = "-rw-rw----"; chmod 600 plain
        getfacl -cp plain 2> /dev/null | grep -q 'mask::---'"#;
    shell(script, &[&volume.mountpoint]);
    let path = volume.path("setgid");
    fs::write(&path, "").unwrap();
    std::os::unix::fs::chown(&path, Some(NOBODY), Some(4321)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o2755)).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "setfacl", "-m"]);
    succeed(command.arg("u:1:r").arg(&path));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7000, 0);
}

/// "Setuid and setgid"
#[test]
fn setuid_and_setgid() {
    let volume = Volume::mounted();
    fs::set_permissions(&volume.mountpoint, Permissions::from_mode(0o777)).unwrap();
    let changes = [
        "printf x >> \"$0\"",
        "truncate -s 3 \"$0\"",
        "printf '' > \"$0\"",
        "dd of=\"$0\" bs=1 count=1 if=/dev/zero conv=notrunc status=none oflag=direct 2> /dev/null || printf x >> \"$0\"",
    ];
    for (index, change) in changes.iter().enumerate() {
        let path = volume.path(&format!("program{index}"));
        fs::write(&path, "content").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o6777)).unwrap();
        succeed(Command::new("sh").args(["-ec", change]).arg(&path));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7000, 0o6000, "root: {change}");
        succeed(Command::new("sh").args(["-ec", change]).arg(&path).uid(NOBODY).gid(NOBODY));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7000, 0, "{change}");
    }
    let path = volume.path("owned");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o6755)).unwrap();
    std::os::unix::fs::chown(&path, Some(NOBODY), None).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7000, 0);
}

/// "Times"
#[test]
fn times() {
    let mut volume = Volume::mounted();
    let path = volume.path("file");
    let file = File::create_new(&path).unwrap();
    let (before, after) = (UNIX_EPOCH - Duration::new(5, 123), UNIX_EPOCH + Duration::new(9, 987));
    file.set_times(FileTimes::new().set_accessed(before).set_modified(after)).unwrap();
    drop(file);
    volume.umount();
    volume.mount();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.accessed().unwrap(), metadata.modified().unwrap()), (before, after));
    let changed = (metadata.ctime(), metadata.ctime_nsec());
    std::thread::sleep(Duration::from_millis(20));
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"x").unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert!(metadata.modified().unwrap() > after);
    assert!((metadata.ctime(), metadata.ctime_nsec()) > changed);
}

/// "Access times"
#[test]
fn access_times() {
    let mut volume = Volume::mounted();
    let path = volume.path("file");
    fs::write(&path, "content").unwrap();
    let long_ago = UNIX_EPOCH + Duration::from_secs(1000);
    let file = File::options().write(true).open(&path).unwrap();
    file.set_times(FileTimes::new().set_accessed(long_ago)).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"content");
    assert_eq!(fs::metadata(&path).unwrap().accessed().unwrap(), long_ago);
    drop(file);
    let mount = volume.path("");
    volume.run(&["dataset", "set", "atime=on", mount.to_str().unwrap()]);
    // A file that the kernel does not hold, so that it asks for content and for times again.
    let other = volume.path("other");
    fs::write(&other, "content").unwrap();
    let file = File::options().write(true).open(&other).unwrap();
    file.set_times(FileTimes::new().set_accessed(long_ago)).unwrap();
    drop(file);
    // Read within one tick of the clock, it would be accessed no later than it was changed.
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(fs::read(&other).unwrap(), b"content");
    volume.umount();
    volume.mount();
    let accessed = || fs::metadata(volume.path("other")).unwrap().accessed().unwrap();
    let first = accessed();
    assert!(first > long_ago);
    assert_eq!(fs::read(volume.path("other")).unwrap(), b"content");
    assert_eq!(accessed(), first);
}

/// "Birth time"
#[test]
fn birth_time() {
    let volume = Volume::mounted();
    let flags = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let none = rustix::fs::AtFlags::empty();
    let statx = rustix::fs::statx(rustix::fs::CWD, &volume.mountpoint, none, flags).unwrap();
    assert_eq!(statx.stx_mask & StatxFlags::BTIME.bits(), 0);
}

/// "Extended attributes"
#[test]
fn extended_attributes() {
    let mut volume = Volume::mounted();
    let path = volume.path("file");
    fs::write(&path, "content").unwrap();
    let long = format!("user.{}", "n".repeat(250));
    let set =
        |name: &str, len| rustix::fs::setxattr(&path, name, &vec![b'v'; len], XattrFlags::empty());
    for (name, len) in [("user.a", 3), ("trusted.b", 65536), ("security.c", 0), (&*long, 7)] {
        set(name, len).unwrap();
    }
    assert_eq!(set(&format!("{long}n"), 1), Err(Errno::RANGE));
    assert_eq!(set("user.big", 65537), Err(Errno::TOOBIG));
    volume.umount();
    volume.mount();
    let mut buffer = vec![0_u8; 65536];
    let get = |name: &str, buffer: &mut [u8]| rustix::fs::getxattr(&path, name, buffer);
    assert_eq!(get("trusted.b", &mut buffer), Ok(65536));
    assert_eq!((get("security.c", &mut buffer), get(&long, &mut buffer)), (Ok(0), Ok(7)));
    assert_eq!(get("user.absent", &mut buffer), Err(Errno::NODATA));
    assert!(get("user.firn.state", &mut buffer).unwrap() > 0);
    let len = rustix::fs::listxattr(&path, &mut buffer).unwrap();
    let names = buffer[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    assert_eq!(names.count(), 4, "{:?}", String::from_utf8_lossy(&buffer[..len]));
    for (mode, may) in [(0o644, false), (0o646, true)] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let mut command = Command::new("setfattr");
        command.args(["-n", "user.firn.pin", "-v", "hot"]).arg(&path).uid(NOBODY).gid(NOBODY);
        assert_eq!(command.output().unwrap().status.success(), may, "{mode:o}");
    }
}

/// "Hard links"
#[test]
fn hard_links() {
    let volume = Volume::mounted();
    let (first, second) = (volume.path("first"), volume.path("second"));
    fs::write(&first, "one").unwrap();
    fs::hard_link(&first, &second).unwrap();
    OpenOptions::new().append(true).open(&second).unwrap().write_all(b" two").unwrap();
    fs::set_permissions(&second, Permissions::from_mode(0o604)).unwrap();
    let (a, b) = (fs::metadata(&first).unwrap(), fs::metadata(&second).unwrap());
    assert_eq!((a.ino(), a.nlink(), a.mode()), (b.ino(), 2, b.mode()));
    fs::remove_file(&second).unwrap();
    assert_eq!(fs::metadata(&first).unwrap().nlink(), 1);
    assert_eq!(fs::read(&first).unwrap(), b"one two");
    fs::create_dir(volume.path("dir")).unwrap();
    let error = fs::hard_link(volume.path("dir"), volume.path("other")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
}

/// "Directories"
#[test]
fn directories() {
    let volume = Volume::mounted();
    let dir = volume.path("dir");
    fs::create_dir(&dir).unwrap();
    for i in 0..4000 {
        File::create_new(dir.join(format!("stays{i}"))).unwrap();
        File::create_new(dir.join(format!("goes{i}"))).unwrap();
    }
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for (index, entry) in fs::read_dir(&dir).unwrap().enumerate() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        *seen.entry(name).or_default() += 1;
        if index < 4000 {
            let _ = fs::remove_file(dir.join(format!("goes{index}")));
            File::create_new(dir.join(format!("comes{index}"))).unwrap();
        }
    }
    let stayed = seen.iter().filter(|(name, _)| name.starts_with("stays"));
    assert_eq!(stayed.clone().count(), 4000);
    assert!(seen.values().all(|times| *times == 1), "listed twice");
    for name in ["a", "b", "c"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
    assert_eq!(fs::metadata(&dir).unwrap().nlink(), 5);
    fs::remove_dir(dir.join("a")).unwrap();
    assert_eq!(fs::metadata(&dir).unwrap().nlink(), 4);
    let positions = r#"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
libc.telldir.restype = ctypes.c_long
d = ctypes.c_void_p(libc.opendir(sys.argv[1].encode()))
name = lambda e: ctypes.string_at(e + 19)
for _ in range(1000): libc.readdir(d)
at = libc.telldir(d)
first = [name(libc.readdir(d)) for _ in range(5)]
while libc.readdir(d): pass
libc.seekdir(d, ctypes.c_long(at))
assert [name(libc.readdir(d)) for _ in range(5)] == first
"#;
    succeed(Command::new("python3").args(["-c", positions]).arg(&dir));
}

/// "Rename"
#[test]
fn rename() {
    let volume = Volume::mounted();
    let (a, b) = (volume.path("a"), volume.path("b"));
    fs::write(&a, "a").unwrap();
    fs::write(&b, "b").unwrap();
    let cwd = rustix::fs::CWD;
    let renameat = |flags| rustix::fs::renameat_with(cwd, &a, cwd, &b, flags);
    assert_eq!(renameat(RenameFlags::NOREPLACE), Err(Errno::EXIST));
    renameat(RenameFlags::EXCHANGE).unwrap();
    assert_eq!((fs::read(&a).unwrap(), fs::read(&b).unwrap()), (b"b".to_vec(), b"a".to_vec()));
    assert_eq!(renameat(RenameFlags::WHITEOUT), Err(Errno::INVAL));
    // Whoever looks while it is replaced, again and again, always finds it.
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0..300 {
                fs::write(&a, format!("{i:04}")).unwrap();
                fs::rename(&a, &b).unwrap();
            }
            done.store(true, std::sync::atomic::Ordering::Release);
        });
        while !done.load(std::sync::atomic::Ordering::Acquire) {
            let content = fs::read(&b).unwrap();
            assert!(content.len() == 4 || content == b"a", "{content:?}");
        }
    });
    assert!(!a.exists());
}

/// "Unlinked files"
#[test]
fn unlinked_files() {
    let mut volume = Volume::mounted();
    let path = volume.path("file");
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create_new(true).open(&path).unwrap();
    file.write_all(&[7; 100_000]).unwrap();
    fs::remove_file(&path).unwrap();
    file.write_all(&[8; 100_000]).unwrap();
    let mut content = Vec::new();
    std::io::Seek::rewind(&mut file).unwrap();
    file.read_to_end(&mut content).unwrap();
    assert_eq!(content, [[7; 100_000], [8; 100_000]].concat());
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    assert!(!path.exists());
    volume.kill();
    drop(file);
    volume.mount();
    assert_eq!(fs::read_dir(&volume.mountpoint).unwrap().count(), 0);
}

/// "Inode numbers"
#[test]
fn inode_numbers() {
    let mut volume = Volume::mounted();
    let numbers = |volume: &Volume| -> BTreeMap<u64, String> {
        let entries = fs::read_dir(&volume.mountpoint).unwrap().map(Result::unwrap);
        entries
            .map(|e| (e.metadata().unwrap().ino(), e.file_name().into_string().unwrap()))
            .collect()
    };
    for i in 0..100 {
        File::create_new(volume.path(&format!("f{i}"))).unwrap();
    }
    let before = numbers(&volume);
    assert_eq!(before.len(), 100);
    volume.umount();
    volume.mount();
    assert_eq!(numbers(&volume), before);
    for i in 0..100 {
        fs::remove_file(volume.path(&format!("f{i}"))).unwrap();
        File::create_new(volume.path(&format!("g{i}"))).unwrap();
    }
    assert!(numbers(&volume).keys().all(|number| !before.contains_key(number)));
}
