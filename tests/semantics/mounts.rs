//! The mount itself.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::harness::{Volume, now, shell, succeed};

/// "Capacity"
#[test]
fn capacity() {
    let volume = Volume::mounted();
    let free = || {
        let stats = rustix::fs::statvfs(&volume.mountpoint).unwrap();
        (stats.f_bavail * stats.f_frsize, stats.f_blocks * stats.f_frsize)
    };
    let (before, total) = free();
    assert!(before >= 1 << 50, "an unlimited cold tier counts as 1 PiB: {before}");
    assert!(total >= before);
    fs::write(volume.path("zeros"), vec![0; 64 << 20]).unwrap();
    File::open(volume.path("zeros")).unwrap().sync_all().unwrap();
    assert!(before.saturating_sub(free().0) < 32 << 20, "zeros take no 64 MiB");
    succeed(Command::new("df").arg(&volume.mountpoint));
}

/// "Unnamed temporary files"
#[test]
fn unnamed_temporary_files() {
    let volume = Volume::mounted();
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let opened = rustix::fs::open(&volume.mountpoint, flags, Mode::RUSR);
    assert_eq!(opened.unwrap_err(), Errno::OPNOTSUPP);
}

/// "Device control"
#[test]
fn device_control() {
    let volume = Volume::mounted();
    fs::write(volume.path("file"), "content").unwrap();
    let file = File::open(volume.path("file")).unwrap();
    assert_eq!(rustix::fs::ioctl_getflags(&file), Err(Errno::NOTTY));
    let fiemap = r#"
import fcntl, sys, errno
try: fcntl.ioctl(open(sys.argv[1]), 0xC020660B, bytes(32))
except OSError as e: sys.exit(e.errno != errno.EOPNOTSUPP)
sys.exit(1)
"#;
    succeed(Command::new("python3").args(["-c", fiemap]).arg(volume.path("file")));
}

/// Gets a handle of the file, and opens by it, telling the errno.
const HANDLES: &str = r#"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
class Handle(ctypes.Structure):
    _fields_ = [('bytes', ctypes.c_uint), ('type', ctypes.c_int), ('data', ctypes.c_ubyte * 128)]
mode, path, saved = sys.argv[1:]
if mode == 'get':
    handle, mount = Handle(128), ctypes.c_int()
    assert libc.name_to_handle_at(-100, path.encode(), ctypes.byref(handle), ctypes.byref(mount), 0) == 0
    open(saved, 'wb').write(bytes(handle))
else:
    handle = Handle.from_buffer_copy(open(saved, 'rb').read())
    fd = libc.open_by_handle_at(os.open(path, os.O_RDONLY), ctypes.byref(handle), os.O_RDONLY)
    print(os.strerror(ctypes.get_errno()) if fd < 0 else os.read(fd, 100).decode())
"#;

/// "File handles"
#[test]
fn file_handles() {
    let mut volume = Volume::mounted();
    fs::write(volume.path("file"), "found").unwrap();
    let saved = volume.scratch.path().join("handle");
    let run = |mode: &str, path: &std::path::Path| {
        succeed(Command::new("python3").args(["-c", HANDLES, mode]).arg(path).arg(&saved))
    };
    run("get", &volume.path("file"));
    assert_eq!(run("open", &volume.mountpoint).trim(), "found");
    volume.umount();
    volume.mount();
    assert_eq!(run("open", &volume.mountpoint).trim(), "Stale file handle");
}

/// "Interrupted calls"
#[test]
fn interrupted_calls() {
    let volume = Volume::mounted();
    fs::write(volume.path("file"), vec![1; 32 << 20]).unwrap();
    // Killed in the middle of what it does, again and again; every time it is gone soon.
    for _ in 0..20 {
        let script = "while :; do cat \"$0\" > /dev/null; cp \"$0\" \"$0.copy\"; done";
        let mut command = Command::new("sh");
        let mut child = command.args(["-c", script]).arg(volume.path("file")).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(30));
        child.kill().unwrap();
        let start = now();
        child.wait().unwrap();
        assert!(start.elapsed() < Duration::from_secs(60));
    }
    assert_eq!(fs::read(volume.path("file")).unwrap(), vec![1; 32 << 20]);
}

/// "Who may use it"
#[test]
fn who_may_use_it() {
    let volume = Volume::mounted();
    fs::write(volume.path("public"), "for all").unwrap();
    fs::set_permissions(volume.path("public"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(volume.scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let text = succeed(Command::new("cat").arg(volume.path("public")).uid(65534).gid(65534));
    assert_eq!(text, "for all");
}

/// "Read-only mounts"
#[test]
fn read_only_mounts() {
    let mut volume = Volume::mounted();
    fs::write(volume.path("file"), "content").unwrap();
    volume.umount();
    let (dir, mountpoint) = (volume.dir.clone(), volume.mountpoint.clone());
    let (dir, mountpoint) = (dir.to_str().unwrap(), mountpoint.to_str().unwrap());
    for options in [&["--read-only"][..], &["-o", "ro"]] {
        volume.run(&[&["mount", dir, mountpoint], options].concat());
        assert!(volume.is_mounted());
        assert_eq!(fs::read(volume.path("file")).unwrap(), b"content");
        let error = fs::write(volume.path("file"), "other").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
        volume.run(&["umount", mountpoint]);
    }
}

/// "Dead mounts"
#[test]
fn dead_mounts() {
    let mut volume = Volume::mounted();
    fs::write(volume.path("file"), "content").unwrap();
    File::open(volume.path("file")).unwrap().sync_all().unwrap();
    volume.kill();
    let error = fs::read_dir(volume.path(".")).map(drop).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN));
    volume.mount();
    assert_eq!(fs::read(volume.path("file")).unwrap(), b"content");
    let mounts = shell("grep -c \" $1 \" /proc/self/mountinfo", &[&volume.mountpoint]);
    assert_eq!(mounts.trim(), "1", "the dead one is gone");
}

/// "One mount at a time"
#[test]
fn one_mount_at_a_time() {
    let volume = Volume::mounted();
    let elsewhere = volume.scratch.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let mut command = volume.firn();
    let output = command.arg("mount").arg(&volume.dir).arg(&elsewhere).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&volume.pid().to_string()), "names the owner: {said}");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}
