//! Everything that a directory shows, and trees that grow at random.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use firn_tiering::BlockDigest;

use super::super::fake::{self, READ_WRITE, ROOT, World};
use crate::core::Core;
use crate::namespace::Dataset;
use crate::types::{
    Attr, Caller, Fallocate, FileKind, Ino, OpenMode, RenameMode, SetAttr, SetTime, XattrMode,
};

/// One file or directory: its attributes with the object instead of the number, its extended
/// attributes, and its target or content.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shown {
    attr: Attr,
    xattrs: BTreeMap<String, BlockDigest>,
    content: BlockDigest,
}

/// By path.
pub(super) type Tree = BTreeMap<String, Shown>;

/// Fails with the first difference.
#[track_caller]
pub(super) fn assert_same(one: &Tree, other: &Tree, what: &str) {
    for path in one.keys().chain(other.keys()) {
        assert_eq!(one.get(path), other.get(path), "{what}: {path:?}");
    }
}

impl World {
    /// Everything below a directory.
    pub(super) fn shown(&self, root: Ino) -> Tree {
        let mut tree = Tree::new();
        self.show(root, "", &mut tree);
        tree
    }

    fn show(&self, ino: Ino, path: &str, tree: &mut Tree) {
        let volume = self.volume();
        let mut attr = volume.getattr(ino).unwrap();
        let names = volume.listxattr(ino).unwrap();
        let stored = names.into_iter().filter(|name| !name.starts_with(b"user.firn."));
        let text = |name: &[u8]| String::from_utf8(name.to_vec()).unwrap();
        let xattrs = stored
            .map(|name| (text(&name), BlockDigest::of(&volume.getxattr(ino, &name).unwrap())));
        let xattrs = xattrs.collect();
        let content = match attr.kind {
            FileKind::Symlink => volume.readlink(ino).unwrap(),
            FileKind::File => {
                let mode = OpenMode { read: true, ..OpenMode::default() };
                let handle = volume.open(&ROOT, ino, mode, self.wait()).unwrap();
                let bytes = self.read((ino, handle), 0, u32::MAX).to_vec();
                volume.release(ino, handle);
                bytes
            }
            _ => Vec::new(),
        };
        if attr.kind == FileKind::Directory {
            let mut entries = Vec::new();
            let mut list = |entry: &crate::types::DirEntry| {
                if entry.name != b"." && entry.name != b".." && entry.name != b".firn" {
                    entries.push((entry.ino, entry.name.clone()));
                }
                true
            };
            volume.names().readdir(ino, 0, false, &mut list).unwrap();
            for (child, name) in entries {
                self.show(child, &format!("{path}/{}", text(&name)), tree);
            }
        }
        // The root of the mount has a number of its own.
        attr.ino = Ino(if path.is_empty() { 0 } else { ino.object() });
        tree.insert(path.to_owned(), Shown { attr, xattrs, content: BlockDigest::of(&content) });
    }

    /// Nothing is wrong with the namespace.
    pub(super) fn assert_sound(&self) {
        fake::assert_sound(self.volume());
    }

    /// What a snapshot shows.
    pub(super) fn snapshot_tree(&self, dataset: Dataset, name: &str) -> Tree {
        self.shown(self.volume().names().snapshot_root(dataset, name).unwrap())
    }
}

/// Makes, changes and removes at random below one directory.
pub(super) struct Grower {
    state: u64,
    dirs: Vec<Ino>,
    files: Vec<Ino>,
}

impl Grower {
    pub(super) fn new(root: Ino, seed: u64) -> Self {
        Self { state: seed.wrapping_mul(2) + 1, dirs: vec![root], files: Vec::new() }
    }

    pub(super) fn random(&mut self, below: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % below.max(1)
    }

    fn dir(&mut self) -> Ino {
        let at = self.random(self.dirs.len() as u64) as usize;
        self.dirs[at]
    }

    fn file(&mut self) -> Option<Ino> {
        let at = self.random(self.files.len() as u64) as usize;
        self.files.get(at).copied()
    }

    fn name(&mut self) -> Vec<u8> {
        format!("n{}", self.random(12)).into_bytes()
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = match self.random(8) {
            0 => self.random(2 << 20),
            1..4 => self.random(70_000),
            _ => self.random(900),
        } + 1;
        let seed = self.random(250);
        (0..len).map(|at| (at / 7 * (seed + 3) + at) as u8).collect()
    }

    /// So many random changes; those that fail change nothing.
    pub(super) fn grow(&mut self, world: &World, steps: usize) {
        for _ in 0..steps {
            world.clock.advance(Duration::from_millis(1 + self.random(5000)));
            self.step(world);
        }
        world.volume().sync().unwrap();
    }

    fn step(&mut self, world: &World) {
        let volume = world.volume();
        let (dir, name) = (self.dir(), self.name());
        let caller = Caller { uid: self.random(3) as u32, gid: 5, pid: 1 };
        match self.random(14) {
            0 | 1 => {
                if let Ok(made) = volume.mkdir(&caller, dir, &name, 0o750, 0) {
                    self.dirs.push(made.ino);
                }
            }
            2 | 3 => {
                let made = volume.create(&caller, dir, &name, 0o640, 0, READ_WRITE);
                if let Ok((attr, handle)) = made {
                    volume.release(attr.ino, handle);
                    self.files.push(attr.ino);
                    self.write(world, attr.ino);
                }
            }
            4 | 5 => {
                if let Some(file) = self.file() {
                    self.write(world, file);
                }
            }
            6 => drop(volume.symlink(&caller, dir, &name, b"somewhere/else")),
            7 => {
                let (mode, rdev) = [(0o010_644, 0), (0o020_600, 0x105)][self.random(2) as usize];
                drop(volume.mknod(&caller, dir, &name, mode, 0, rdev));
            }
            8 => {
                if let Some(file) = self.file() {
                    drop(volume.link(file, dir, &name));
                }
            }
            9 | 10 => {
                let (to, other) = (self.dir(), self.name());
                let mode = [RenameMode::Replace, RenameMode::Exchange][self.random(2) as usize];
                drop(volume.rename(dir, &name, to, &other, mode, world.wait()));
            }
            11 => {
                if volume.unlink(dir, &name).is_err() {
                    drop(volume.rmdir(dir, &name));
                }
            }
            12 => self.set_attributes(world, dir),
            _ => self.set_xattr(world, dir),
        }
        self.dirs.retain(|dir| volume.getattr(*dir).is_ok_and(|attr| attr.nlink > 0));
        self.files.retain(|file| volume.getattr(*file).is_ok_and(|attr| attr.nlink > 0));
    }

    fn write(&mut self, world: &World, file: Ino) {
        let volume = world.volume();
        let handle = volume.open(&ROOT, file, READ_WRITE, world.wait()).unwrap();
        let offset = [0, 3000, 1 << 20, 5_000_000][self.random(4) as usize] + self.random(999);
        match self.random(6) {
            0 => {
                let what = if self.random(2) == 0 {
                    Fallocate::PunchHole
                } else {
                    Fallocate::Allocate { keep_size: true }
                };
                let (caller, len) = (&ROOT, 1 + self.random(200_000));
                let wait = world.wait();
                volume.fallocate(caller, file, handle, offset, len, what, wait).unwrap();
            }
            1 => {
                let size = Some(self.random(3_000_000));
                let changes = SetAttr { size, ..SetAttr::default() };
                volume.setattr(&ROOT, file, &changes, world.wait()).unwrap();
            }
            _ => {
                let bytes = self.bytes();
                world.write((file, handle), offset, &bytes);
            }
        }
        if self.random(4) == 0 {
            world.fsync((file, handle)).unwrap();
        }
        volume.release(file, handle);
    }

    fn any(&mut self, dir: Ino) -> Ino {
        if self.random(3) == 0 { dir } else { self.file().unwrap_or(dir) }
    }

    fn set_attributes(&mut self, world: &World, dir: Ino) {
        let ino = self.any(dir);
        let time = SystemTime::UNIX_EPOCH + Duration::new(self.random(1 << 33), 17);
        let changes = SetAttr {
            perm: Some(self.random(0o7777) as u16),
            uid: Some(self.random(70_000) as u32),
            mtime: Some(SetTime::At(time)),
            ..SetAttr::default()
        };
        world.volume().setattr(&ROOT, ino, &changes, world.wait()).unwrap();
    }

    fn set_xattr(&mut self, world: &World, dir: Ino) {
        let ino = self.any(dir);
        let name = format!("user.x{}", self.random(4)).into_bytes();
        let volume = world.volume();
        match self.random(5) {
            0 => drop(volume.removexattr(&ROOT, ino, &name)),
            1 => {
                // user, one named user, group, mask, others
                let entries: [(u16, u16, u32); 5] =
                    [(1, 7, !0), (2, 5, 1000), (4, 4, !0), (16, 7, !0), (32, 1, !0)];
                let mut acl = 2_u32.to_le_bytes().to_vec();
                for (tag, perm, id) in entries {
                    acl.extend_from_slice(&tag.to_le_bytes());
                    acl.extend_from_slice(&perm.to_le_bytes());
                    acl.extend_from_slice(&id.to_le_bytes());
                }
                let name = [&b"system.posix_acl_access"[..], b"system.posix_acl_default"];
                let name = name[self.random(2) as usize];
                drop(volume.setxattr(&ROOT, ino, name, &acl, XattrMode::Set));
            }
            _ => {
                let mut value = self.bytes();
                value.truncate(9000);
                volume.setxattr(&ROOT, ino, &name, &value, XattrMode::Set).unwrap();
            }
        }
    }
}
