//! The items that a snapshot's sum is made of, as bytes. Nothing in them differs between a snapshot
//! and its copy on another volume: inodes are named by the numbers that streams keep, and neither
//! places in directories nor versions nor blocks count.

use crate::namespace::record::{Entry, Inode, mode_of_kind};
use crate::types::FileKind;

const INODE: u8 = 1;
const ENTRY: u8 = 2;
const ATTRIBUTE: u8 = 3;

/// No content that an item names.
const NONE: u8 = 0;
/// The BLAKE3 of a file's content follows.
const DIGEST: u8 = 1;
/// The target of a symbolic link follows.
const TARGET: u8 = 2;

/// An inode that has a name, with the target if it is a symbolic link. `None` while the digest of its
/// content is not known.
pub(in crate::namespace) fn inode(inode: &Inode, target: Option<&[u8]>) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(96);
    out.push(INODE);
    out.extend_from_slice(&inode.ino.object().to_le_bytes());
    let mode = mode_of_kind(inode.kind) | u32::from(inode.perm);
    for number in [mode, inode.nlink, inode.uid, inode.gid, inode.rdev] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    let size = if inode.is_dir() { 0 } else { inode.size };
    out.extend_from_slice(&size.to_le_bytes());
    out.extend_from_slice(&inode.mtime.secs.to_le_bytes());
    out.extend_from_slice(&inode.mtime.nanos.to_le_bytes());
    match (inode.kind, target) {
        (FileKind::File, _) => {
            out.push(DIGEST);
            out.extend_from_slice(inode.content_digest()?.as_bytes());
        }
        (FileKind::Symlink, Some(target)) => {
            out.push(TARGET);
            out.extend_from_slice(target);
        }
        _ => out.push(NONE),
    }
    Some(out)
}

/// An entry of a directory.
pub(super) fn entry(dir: u64, entry: &Entry) -> Vec<u8> {
    let mut out = Vec::with_capacity(24 + entry.name.len());
    out.push(ENTRY);
    out.extend_from_slice(&dir.to_le_bytes());
    out.extend_from_slice(&entry.ino.object().to_le_bytes());
    out.push((mode_of_kind(entry.kind) >> 12) as u8);
    out.extend_from_slice(&entry.name);
    out
}

/// An extended attribute.
pub(super) fn attribute(object: u64, name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + name.len() + value.len());
    out.push(ATTRIBUTE);
    out.extend_from_slice(&object.to_le_bytes());
    // Names are 255 bytes at most.
    out.push(name.len() as u8);
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out
}
