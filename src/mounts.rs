//! What is mounted where, read from `/proc/self/mountinfo`: which Firn volume a path lies on, and
//! whether a directory is a mountpoint. Never touches the mounts themselves, since a mountpoint
//! whose daemon died answers every call with `ENOTCONN`. A Firn mount is one of type `fuse.firn`;
//! its source is the volume directory.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::Context;

/// The type that the kernel shows for a Firn mount.
pub const FS_TYPE: &str = "fuse.firn";

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// Filesystem type, `fuse.firn` for ours.
    pub fs_type: String,
    /// Source; for ours the volume directory.
    pub source: PathBuf,
    /// `major:minor` of the mount's device.
    pub device: String,
    /// Mounted read-only.
    pub read_only: bool,
}

impl MountEntry {
    /// Whether this is a mounted Firn volume.
    pub fn is_firn(&self) -> bool {
        self.fs_type == FS_TYPE
    }
}

/// Everything mounted in this mount namespace, in mount order.
pub fn all() -> anyhow::Result<Vec<MountEntry>> {
    let text = fs::read("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    Ok(parse(&text))
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

/// The top mount exactly at `path`.
pub fn at<'a>(mounts: &'a [MountEntry], path: &Path) -> Option<&'a MountEntry> {
    mounts.iter().rev().find(|entry| entry.mountpoint == path)
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

/// Parses mountinfo as described in `proc_pid_mountinfo(5)`; lines it does not understand are
/// left out.
pub fn parse(text: &[u8]) -> Vec<MountEntry> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = fields.nth(2)?;
    let mountpoint = fields.nth(1)?;
    let options = fields.next()?;
    fields.by_ref().find(|field| *field == b"-")?;
    let fs_type = fields.next()?;
    let source = fields.next()?;
    let super_options = fields.next().unwrap_or_default();
    let says_ro = |options: &[u8]| options.split(|byte| *byte == b',').any(|word| word == b"ro");
    Some(MountEntry {
        mountpoint: PathBuf::from(unescape(mountpoint)),
        fs_type: String::from_utf8_lossy(fs_type).into_owned(),
        source: PathBuf::from(unescape(source)),
        device: String::from_utf8_lossy(device).into_owned(),
        read_only: says_ro(options) || says_ro(super_options),
    })
}

/// Undoes the kernel's `\ooo` escapes of space, tab, newline, `#` and backslash.
fn unescape(field: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        match octal(rest) {
            Some(escaped) => {
                plain.push(escaped);
                rest = &rest[4..];
            }
            None => {
                plain.push(byte);
                rest = tail;
            }
        }
    }
    OsString::from_vec(plain)
}

fn octal(text: &[u8]) -> Option<u8> {
    let [b'\\', high @ b'0'..=b'3', middle @ b'0'..=b'7', low @ b'0'..=b'7', ..] = text else {
        return None;
    };
    Some((high - b'0') << 6 | (middle - b'0') << 3 | (low - b'0'))
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

/// The bytes of a path for messages: as text where it is text.
pub fn shown(path: &Path) -> String {
    String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned()
}

#[cfg(test)]
mod tests;
