//! What is mounted where, read from `/proc/self/mountinfo`. Never touches the mounts themselves,
//! since a mountpoint whose daemon died answers every call with `ENOTCONN`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::FS_TYPE;

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
    /// User who mounted it, as a FUSE filesystem says.
    pub owner: Option<u32>,
}

impl MountEntry {
    /// Whether this is a mounted Firn volume.
    pub fn is_firn(&self) -> bool {
        self.fs_type == FS_TYPE
    }
}

/// Everything mounted in this mount namespace, in mount order.
pub fn mount_table() -> io::Result<Vec<MountEntry>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?))
}

/// The top mount exactly at `path`.
pub fn mounted_at<'a>(mounts: &'a [MountEntry], path: &Path) -> Option<&'a MountEntry> {
    mounts.iter().rev().find(|entry| entry.mountpoint == path)
}

/// Parses mountinfo as described in `proc_pid_mountinfo(5)`; lines it does not understand are
/// left out.
fn parse(text: &[u8]) -> Vec<MountEntry> {
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
        owner: owner(super_options),
    })
}

fn owner(super_options: &[u8]) -> Option<u32> {
    let mut words = super_options.split(|byte| *byte == b',');
    let id = words.find_map(|word| word.strip_prefix(b"user_id="))?;
    std::str::from_utf8(id).ok()?.parse().ok()
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

#[cfg(test)]
mod tests;
