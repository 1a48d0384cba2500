//! Attaches a FUSE connection to a directory and takes it away again.
//!
//! Root mounts directly, so that the mount table shows the type `fuse.firn` and so that unmounting
//! reports a busy file system instead of hiding it; everybody else goes through `fusermount3`.
//! A mount whose daemon died stays behind answering `ENOTCONN`: only such a mount, and only one of
//! Firn's own, is ever detached by force.

use std::ffi::CString;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::mount_table::{MountEntry, mount_table, mounted_at};
use super::options::MountOptions;
use super::{FS_TYPE, MountError};

/// The program that mounts for users other than root.
const HELPER: &str = "fusermount3";

/// Stacked dead mounts that are cleared before giving up.
const MAX_STACKED: usize = 16;

/// What is mounted at exactly this path; the topmost when mounts are stacked.
pub fn mount_entry(mountpoint: &Path) -> io::Result<Option<MountEntry>> {
    Ok(mounted_at(&mount_table()?, mountpoint).cloned())
}

/// The absolute path of a mountpoint; works also when its file system is dead.
pub(super) fn absolute(mountpoint: &Path) -> io::Result<PathBuf> {
    match (mountpoint.canonicalize(), mountpoint.parent(), mountpoint.file_name()) {
        (Ok(path), _, _) => Ok(path),
        (Err(error), Some(parent), Some(name)) if is_dead(&error) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Ok(parent.canonicalize()?.join(name))
        }
        (Err(error), _, _) => Err(error),
    }
}

fn is_dead(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NOTCONN.raw_os_error())
}

/// Detaches what a dead Firn daemon left at `mountpoint`; says whether there was anything.
///
/// Only a mount of type `fuse.firn` that answers `ENOTCONN` is touched; a living one, or one of
/// another file system, is left alone.
pub fn clear_dead_mount(mountpoint: &Path) -> Result<bool, MountError> {
    let unusable = |source| MountError::Mountpoint { path: mountpoint.to_owned(), source };
    let mut cleared = false;
    for _ in 0..MAX_STACKED {
        // Not stat(2), which a dead mount may still answer from the attributes it has cached.
        match rustix::fs::statvfs(mountpoint) {
            Err(Errno::NOTCONN) => {
                let path = absolute(mountpoint).map_err(unusable)?;
                let entry = mount_entry(&path).map_err(unusable)?;
                if entry.is_none_or(|entry| !entry.is_firn()) {
                    return Err(unusable(Errno::NOTCONN.into()));
                }
                tracing::warn!(mountpoint = %path.display(), "replacing what a dead daemon left");
                detach(&path, true)?;
                cleared = true;
            }
            Ok(_) | Err(_) => break,
        }
    }
    Ok(cleared)
}

/// Checks the mountpoint, mounts, and returns the connection with the absolute path.
pub(super) fn attach(
    mountpoint: &Path,
    options: &MountOptions,
) -> Result<(OwnedFd, PathBuf), MountError> {
    clear_dead_mount(mountpoint)?;
    let unusable = |source| MountError::Mountpoint { path: mountpoint.to_owned(), source };
    let path = absolute(mountpoint).map_err(unusable)?;
    let metadata = std::fs::metadata(&path).map_err(unusable)?;
    if !metadata.is_dir() {
        return Err(unusable(io::ErrorKind::NotADirectory.into()));
    }
    if let Some(entry) = mount_entry(&path).map_err(unusable)? {
        return Err(MountError::Occupied {
            path,
            fs_type: entry.fs_type,
            source_name: entry.source.display().to_string(),
        });
    }
    let connection = if rustix::process::geteuid().is_root() {
        attach_directly(&path, &metadata, options)?
    } else {
        attach_by_helper(&path, options)?
    };
    Ok((connection, path))
}

fn attach_directly(
    path: &Path,
    metadata: &Metadata,
    options: &MountOptions,
) -> Result<OwnedFd, MountError> {
    let device = File::options().read(true).write(true).open("/dev/fuse");
    let device = device.map_err(MountError::Device)?;
    let mut data = format!(
        "fd={},rootmode={:o},user_id={},group_id={},default_permissions",
        device.as_raw_fd(),
        metadata.mode(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    if options.allow_other {
        data.push_str(",allow_other");
    }
    let flags = [
        (options.read_only, MountFlags::RDONLY),
        (!options.dev, MountFlags::NODEV),
        (!options.suid, MountFlags::NOSUID),
        (!options.exec, MountFlags::NOEXEC),
        (options.dirsync, MountFlags::DIRSYNC),
        (options.sync, MountFlags::SYNCHRONOUS),
    ];
    let flags = flags.iter().filter(|(wanted, _)| *wanted).map(|(_, flag)| *flag).collect();
    let data = CString::new(data).expect("numbers and fixed words hold no NUL");
    match rustix::mount::mount(&options.fs_name, path, FS_TYPE, flags, data.as_c_str()) {
        Ok(()) => Ok(device.into()),
        // Root of a container without the capability to mount.
        Err(Errno::PERM) => attach_by_helper(path, options),
        Err(errno) => Err(MountError::io("mount", errno)),
    }
}

/// The helper, without what else is in this process's environment: it runs as root and needs none of
/// it, credentials of an object store least of all. Its messages are in English.
fn helper_command() -> Command {
    let mut command = Command::new(HELPER);
    command.env_clear().env("LC_ALL", "C");
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// Has `fusermount3` mount; it passes the connection back over its standard input.
fn attach_by_helper(path: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let helper = |error: io::Error| MountError::Helper(format!("{HELPER}: {error}"));
    let (theirs, ours) = UnixStream::pair().map_err(|e| MountError::io("socketpair", e))?;
    let child = helper_command()
        .args(["-o", &helper_options(options), "--"])
        .arg(path)
        .env("_FUSE_COMMFD", "0")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(helper)?;
    let connection = receive_connection(&ours);
    let output = child.wait_with_output().map_err(helper)?;
    match connection {
        Ok(Some(connection)) if output.status.success() => Ok(connection),
        Ok(_) => Err(MountError::Helper(said(&output.stderr))),
        Err(errno) => Err(MountError::io("receiving the connection from fusermount3", errno)),
    }
}

fn helper_options(options: &MountOptions) -> String {
    // A comma inside a value is escaped for fusermount3.
    let name = options.fs_name.replace('\\', "\\\\").replace(',', "\\,");
    let flags = [
        (options.allow_other, ",allow_other"),
        (options.read_only, ",ro"),
        (!options.exec, ",noexec"),
        (options.dirsync, ",dirsync"),
        (options.sync, ",sync"),
    ];
    let flags: String = flags.iter().filter(|(wanted, _)| *wanted).map(|(_, flag)| *flag).collect();
    format!("subtype=firn,default_permissions{flags},fsname={name}")
}

/// The descriptor that the helper sends, or nothing when it ended without.
fn receive_connection(socket: &UnixStream) -> rustix::io::Result<Option<OwnedFd>> {
    let mut byte = [0_u8];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [io::IoSliceMut::new(&mut byte)];
    rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(socket, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    Ok(control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    }))
}

/// Unmounts; `lazily` also while files are open.
pub(super) fn detach(path: &Path, lazily: bool) -> Result<(), MountError> {
    let flags = if lazily { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match rustix::mount::unmount(path, flags | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => detach_by_helper(path, lazily),
        Err(Errno::BUSY) => Err(MountError::Busy(path.to_owned())),
        Err(errno) => Err(MountError::io("umount", errno)),
    }
}

/// Whether the topmost mount at `path` is the one with this device.
pub(super) fn is_mounted(path: &Path, device: &str) -> bool {
    mount_entry(path).is_ok_and(|entry| entry.is_some_and(|entry| entry.device == device))
}

/// Mounts the kernel's directory of FUSE connections at its usual place.
pub(super) fn show_connections() -> rustix::io::Result<()> {
    let place = "/sys/fs/fuse/connections";
    rustix::mount::mount("fusectl", place, "fusectl", MountFlags::empty(), None)
}

/// Aborts the connection of the mount at `path`; the mount itself may stay while it is in use.
pub(super) fn abort(path: &Path) -> Result<(), MountError> {
    match rustix::mount::unmount(path, UnmountFlags::FORCE | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(errno) => Err(MountError::io("aborting the FUSE connection", errno)),
    }
}

fn detach_by_helper(path: &Path, lazily: bool) -> Result<(), MountError> {
    let output = helper_command()
        .arg(if lazily { "-uz" } else { "-u" })
        .arg("--")
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| MountError::Helper(format!("{HELPER}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = said(&output.stderr);
    if said.contains("busy") {
        Err(MountError::Busy(path.to_owned()))
    } else {
        Err(MountError::Helper(said))
    }
}

fn said(stderr: &[u8]) -> String {
    String::from_utf8_lossy(stderr).trim().replace('\n', ", ")
}
