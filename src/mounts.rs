//! Which mount a path lies on, and what paths are called. The source of a Firn mount is the volume
//! directory.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use firn_mount::fuse::mount_table;
pub use firn_mount::fuse::{MountEntry, mounted_at as at};

use crate::report::names;

/// Everything mounted in this mount namespace, in mount order.
pub fn all() -> anyhow::Result<Vec<MountEntry>> {
    mount_table().context("reading /proc/self/mountinfo")
}

/// The mount that a path lies on: the last one mounted on its longest prefix.
pub fn covering<'a>(mounts: &'a [MountEntry], path: &Path) -> Option<&'a MountEntry> {
    let mut best: Option<&MountEntry> = None;
    for entry in mounts.iter().filter(|entry| path.starts_with(&entry.mountpoint)) {
        let longer = best.is_none_or(|best| {
            entry.mountpoint.as_os_str().len() >= best.mountpoint.as_os_str().len()
        });
        if longer {
            best = Some(entry);
        }
    }
    best
}

/// Absolute form of `path` with symbolic links resolved as far as that is possible: also for a
/// mountpoint in `ENOTCONN`, whose parent still resolves.
pub fn absolute(path: &Path) -> io::Result<PathBuf> {
    if let Ok(resolved) = path.canonicalize() {
        return Ok(resolved);
    }
    let absolute = std::path::absolute(path)?;
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => match parent.canonicalize() {
            Ok(parent) => Ok(parent.join(name)),
            Err(_) => Ok(absolute),
        },
        _ => Ok(absolute),
    }
}

/// Whether the server behind the mount at `path` is gone. Not asked with `stat(2)`, which a dead
/// mount may still answer from what the kernel has cached.
pub fn is_dead(path: &Path) -> bool {
    let gone = [rustix::io::Errno::NOTCONN, rustix::io::Errno::CONNABORTED];
    rustix::fs::statvfs(path).is_err_and(|error| gone.contains(&error))
}

/// `path` relative to the mount it lies on; empty for the mountpoint itself.
pub fn below<'a>(entry: &MountEntry, path: &'a Path) -> &'a Path {
    path.strip_prefix(&entry.mountpoint).unwrap_or(Path::new(""))
}

/// The bytes of a path for messages and reports: as text where it is text.
pub fn shown(path: &Path) -> String {
    names::text(path.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests;
