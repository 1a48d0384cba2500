//! What a volume shows of its whole tree.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;

use super::super::super::Volume;
use super::super::fake::ROOT;
use super::reference::{FileState, Meta};
use crate::core::Core;
use crate::error::FsError;
use crate::types::{FileKind, Ino, OpenMode, Seek};
use firn_tiering::Wait;

pub(super) const XATTR: &[u8] = b"user.x";
pub(super) const TARGET: &[u8] = b"somewhere/else";

/// Content and attributes of a regular file.
#[derive(Debug)]
pub(super) struct Seen {
    content: Bytes,
    size: u64,
    blocks: u64,
    mtime: SystemTime,
    data: Vec<(u64, u64)>,
}

impl Seen {
    /// Shows it what the reference says?
    pub(super) fn is(&self, state: &FileState) -> bool {
        let mut data = Vec::new();
        let mut pos = 0;
        while let Some(start) = state.seek(pos, Seek::Data) {
            pos = state.seek(start, Seek::Hole).unwrap();
            data.push((start, pos));
        }
        self.size == state.size
            && self.mtime == state.mtime
            && self.data == data
            && self.content == state.read(0, state.size)
    }

    /// Allocation as well, exact where nothing is uncommitted.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }
}

/// Everything below the root, by path.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) listing: BTreeMap<String, Meta>,
    pub(super) files: BTreeMap<Ino, Seen>,
}

pub(super) fn observe(volume: &Volume, wait: Wait) -> View {
    observe_below(volume, Ino::ROOT, wait)
}

/// Everything below a directory.
pub(super) fn observe_below(volume: &Volume, root: Ino, wait: Wait) -> View {
    let mut view = View::default();
    list(volume, root, "", wait, &mut view);
    view
}

fn list(volume: &Volume, dir: Ino, path: &str, wait: Wait, view: &mut View) {
    let handle = volume.opendir(dir).unwrap();
    let mut entries = Vec::new();
    let mut cookie = 0;
    loop {
        // A few at a time, so that cookies matter.
        let before = entries.len();
        volume
            .readdir(dir, handle, cookie, true, &mut |entry| {
                if entries.len() == before + 2 {
                    return false;
                }
                cookie = entry.cookie;
                entries.push(entry.clone());
                true
            })
            .unwrap();
        if entries.len() == before {
            break;
        }
    }
    volume.releasedir(dir, handle);
    for entry in entries {
        if entry.name == b"." || entry.name == b".." {
            continue;
        }
        let attr = entry.attr.expect("asked for");
        assert_eq!((attr.ino, attr.kind), (entry.ino, entry.kind));
        let path = format!("{path}/{}", String::from_utf8(entry.name).unwrap());
        let xattr = match volume.getxattr(attr.ino, XATTR) {
            Ok(value) => Some(value[0]),
            Err(FsError::NoAttribute) => None,
            Err(error) => panic!("{error:?}"),
        };
        let (ino, kind, perm, nlink) = (attr.ino, attr.kind, attr.perm, attr.nlink);
        view.listing.insert(path.clone(), Meta { ino, kind, perm, nlink, xattr });
        match kind {
            FileKind::Directory => list(volume, ino, &path, wait, view),
            FileKind::Symlink => assert_eq!(volume.readlink(ino).unwrap(), TARGET),
            FileKind::File => {
                view.files.insert(ino, look(volume, ino, wait));
            }
            _ => {}
        }
        volume.forget(ino, 1);
    }
}

/// A digest that is shown, or stored where all is committed, is that of the content.
fn check_digest(volume: &Volume, ino: Ino, content: &Bytes) {
    let expected = blake3::hash(content);
    let shown = volume.content_digest(ino).unwrap();
    assert!(shown.is_none_or(|shown| shown == expected), "{ino:?} has another digest");
    let stored = volume.names().inode(ino).unwrap().digest.filter(|_| !volume.is_dirty(ino));
    assert!(stored.is_none_or(|stored| stored == expected), "{ino:?} keeps another digest");
    match volume.getxattr(ino, b"user.firn.blake3") {
        Ok(value) => assert_eq!(value, shown.unwrap().to_hex().as_bytes()),
        Err(FsError::NoAttribute) => assert_eq!(shown, None),
        Err(error) => panic!("{error:?}"),
    }
}

fn look(volume: &Volume, ino: Ino, wait: Wait) -> Seen {
    let mode = OpenMode { read: true, ..OpenMode::default() };
    let handle = volume.open(&ROOT, ino, mode, wait).unwrap();
    let attr = volume.getattr(ino).unwrap();
    let content = volume.read(ino, handle, 0, u32::MAX, wait).unwrap();
    let mut data = Vec::new();
    let mut pos = 0;
    loop {
        match volume.lseek(ino, handle, pos, Seek::Data) {
            Ok(start) => {
                pos = volume.lseek(ino, handle, start, Seek::Hole).unwrap();
                data.push((start, pos));
            }
            Err(FsError::NoOffset) => break,
            Err(error) => panic!("{error:?}"),
        }
    }
    volume.release(ino, handle);
    check_digest(volume, ino, &content);
    Seen { content, size: attr.size, blocks: attr.blocks, mtime: attr.mtime, data }
}
