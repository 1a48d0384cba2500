//! Random metadata operations against a tree of plain maps, which is the definition of right.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::namespace::names::NameHash;
use crate::types::{RenameMode, SetAttr, SetTime, XattrMode};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Clone, Debug)]
enum Op {
    Create { dir: usize, name: usize, kind: usize },
    Unlink { dir: usize, name: usize },
    Rmdir { dir: usize, name: usize },
    Link { file: usize, dir: usize, name: usize },
    Rename { dir: usize, name: usize, to: usize, to_name: usize, mode: usize },
    Chmod { file: usize, perm: u16 },
    Utimes { file: usize },
    SetXattr { file: usize, name: usize, mode: usize },
    RemoveXattr { file: usize, name: usize },
    Write { file: usize, slot: u64, block: u64 },
    Truncate { file: usize, size: u64 },
    Purge,
    Close,
    Crash,
}

fn operation() -> impl Strategy<Value = Op> {
    let (dir, name, file) = (0..8_usize, 0..NAMES.len(), 0..16_usize);
    prop_oneof![
        6 => (dir.clone(), name.clone(), 0..5_usize)
            .prop_map(|(dir, name, kind)| Op::Create { dir, name, kind }),
        2 => (dir.clone(), name.clone()).prop_map(|(dir, name)| Op::Unlink { dir, name }),
        2 => (dir.clone(), name.clone()).prop_map(|(dir, name)| Op::Rmdir { dir, name }),
        2 => (file.clone(), dir.clone(), name.clone())
            .prop_map(|(file, dir, name)| Op::Link { file, dir, name }),
        5 => (dir.clone(), name.clone(), dir, name.clone(), 0..3_usize)
            .prop_map(|(dir, name, to, to_name, mode)| Op::Rename { dir, name, to, to_name, mode }),
        1 => (file.clone(), 0..0o10000_u16).prop_map(|(file, perm)| Op::Chmod { file, perm }),
        1 => file.clone().prop_map(|file| Op::Utimes { file }),
        2 => (file.clone(), name.clone(), 0..3_usize)
            .prop_map(|(file, name, mode)| Op::SetXattr { file, name, mode }),
        1 => (file.clone(), name).prop_map(|(file, name)| Op::RemoveXattr { file, name }),
        2 => (file.clone(), 0..3_u64, 0..4_u64)
            .prop_map(|(file, slot, block)| Op::Write { file, slot, block }),
        1 => (file, 0..4_u64 * 1_000_000).prop_map(|(file, size)| Op::Truncate { file, size }),
        1 => Just(Op::Purge),
        1 => Just(Op::Close),
        1 => Just(Op::Crash),
    ]
}

#[derive(Clone, Debug)]
struct Node {
    kind: FileKind,
    perm: u16,
    nlink: u32,
    size: u64,
    atime: Timestamp,
    mtime: Timestamp,
    ctime: Timestamp,
    crtime: Timestamp,
    parent: Ino,
    entries: BTreeMap<Vec<u8>, Ino>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Block and length of each slot.
    slots: BTreeMap<u64, (u64, u64)>,
}

/// The reference.
struct Tree {
    nodes: BTreeMap<Ino, Node>,
}

type Outcome<T> = Result<T, &'static str>;

impl Tree {
    fn new(now: Timestamp) -> Self {
        let root = Node::new(FileKind::Directory, 0o755, Ino::ROOT, now);
        Self { nodes: BTreeMap::from([(Ino::ROOT, root)]) }
    }

    fn node(&mut self, ino: Ino) -> &mut Node {
        self.nodes.get_mut(&ino).unwrap()
    }

    fn alive_dir(&self, ino: Ino) -> Outcome<&Node> {
        let node = &self.nodes[&ino];
        match (node.kind, node.nlink) {
            (FileKind::Directory, 0) => Err("ENOENT"),
            (FileKind::Directory, _) => Ok(node),
            _ => Err("ENOTDIR"),
        }
    }

    fn touch(&mut self, dir: Ino, now: Timestamp) {
        let entries = self.nodes[&dir].entries.len() as u64;
        let node = self.node(dir);
        (node.mtime, node.ctime, node.size) = (now, now, entries);
    }

    fn create_allowed(&self, dir: Ino, name: &[u8]) -> Outcome<()> {
        let dir = self.alive_dir(dir)?;
        if dir.entries.contains_key(name) { Err("EEXIST") } else { Ok(()) }
    }

    fn create(&mut self, dir: Ino, name: &[u8], ino: Ino, kind: FileKind, now: Timestamp) {
        let perm = match kind {
            FileKind::Symlink => 0o777,
            FileKind::Directory => 0o640 | self.nodes[&dir].perm & 0o2000,
            _ => 0o640,
        };
        let mut node = Node::new(kind, perm, dir, now);
        if kind == FileKind::Symlink {
            node.size = 6;
        }
        self.nodes.insert(ino, node);
        let parent = self.node(dir);
        parent.entries.insert(name.to_vec(), ino);
        parent.nlink += u32::from(kind == FileKind::Directory);
        self.touch(dir, now);
    }

    fn remove(&mut self, dir: Ino, name: &[u8], is_rmdir: bool, now: Timestamp) -> Outcome<()> {
        let ino = *self.alive_dir(dir)?.entries.get(name).ok_or("ENOENT")?;
        let node = self.node(ino);
        match (is_rmdir, node.kind == FileKind::Directory) {
            (true, false) => return Err("ENOTDIR"),
            (false, true) => return Err("EISDIR"),
            (true, true) if !node.entries.is_empty() => return Err("ENOTEMPTY"),
            _ => {}
        }
        self.lose(ino, now);
        let parent = self.node(dir);
        parent.entries.remove(name);
        parent.nlink -= u32::from(is_rmdir);
        self.touch(dir, now);
        Ok(())
    }

    fn lose(&mut self, ino: Ino, now: Timestamp) {
        let node = self.node(ino);
        node.nlink = if node.kind == FileKind::Directory { 0 } else { node.nlink - 1 };
        node.ctime = now;
    }

    fn link(&mut self, ino: Ino, dir: Ino, name: &[u8], now: Timestamp) -> Outcome<()> {
        self.alive_dir(dir)?;
        if self.nodes[&ino].kind == FileKind::Directory {
            return Err("EPERM");
        }
        self.create_allowed(dir, name)?;
        if self.nodes[&ino].nlink == 0 {
            return Err("ENOENT");
        }
        let node = self.node(ino);
        node.nlink += 1;
        node.ctime = now;
        self.node(dir).entries.insert(name.to_vec(), ino);
        self.touch(dir, now);
        Ok(())
    }

    fn is_within(&self, mut dir: Ino, ancestor: Ino) -> bool {
        loop {
            if dir == ancestor {
                return true;
            }
            if dir == Ino::ROOT {
                return false;
            }
            dir = self.nodes[&dir].parent;
        }
    }

    fn rename(
        &mut self,
        (dir, name): (Ino, &[u8]),
        (to, to_name): (Ino, &[u8]),
        mode: RenameMode,
        now: Timestamp,
    ) -> Outcome<()> {
        self.alive_dir(dir)?;
        self.alive_dir(to)?;
        let source = *self.nodes[&dir].entries.get(name).ok_or("ENOENT")?;
        let target = self.nodes[&to].entries.get(to_name).copied();
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return Err("EEXIST"),
            (_, Some(target)) if target == source => return Ok(()),
            _ => {}
        }
        let is_dir = |tree: &Self, ino: Ino| tree.nodes[&ino].kind == FileKind::Directory;
        let source_dir = is_dir(self, source);
        if source_dir && self.is_within(to, source) {
            return Err("EINVAL");
        }
        if mode == RenameMode::Exchange {
            let target = target.ok_or("ENOENT")?;
            let target_dir = is_dir(self, target);
            if target_dir && self.is_within(dir, target) {
                return Err("EINVAL");
            }
            self.node(dir).entries.insert(name.to_vec(), target);
            self.node(to).entries.insert(to_name.to_vec(), source);
            self.node(dir).nlink += u32::from(target_dir);
            self.node(dir).nlink -= u32::from(source_dir);
            self.node(to).nlink += u32::from(source_dir);
            self.node(to).nlink -= u32::from(target_dir);
            self.node(target).parent = dir;
            self.node(target).ctime = now;
        } else {
            if let Some(target) = target {
                let target_dir = is_dir(self, target);
                match (source_dir, target_dir) {
                    (true, false) => return Err("ENOTDIR"),
                    (false, true) => return Err("EISDIR"),
                    (true, true) if !self.nodes[&target].entries.is_empty() => {
                        return Err("ENOTEMPTY");
                    }
                    _ => {}
                }
                self.lose(target, now);
                self.node(to).nlink -= u32::from(target_dir);
            }
            self.node(dir).entries.remove(name);
            self.node(to).entries.insert(to_name.to_vec(), source);
            self.node(dir).nlink -= u32::from(source_dir);
            self.node(to).nlink += u32::from(source_dir);
        }
        self.node(source).parent = to;
        self.node(source).ctime = now;
        self.touch(dir, now);
        self.touch(to, now);
        Ok(())
    }
}

impl Node {
    fn new(kind: FileKind, perm: u16, parent: Ino, now: Timestamp) -> Self {
        Self {
            kind,
            perm,
            nlink: if kind == FileKind::Directory { 2 } else { 1 },
            size: 0,
            atime: now,
            mtime: now,
            ctime: now,
            crtime: now,
            parent,
            entries: BTreeMap::new(),
            xattrs: BTreeMap::new(),
            slots: BTreeMap::new(),
        }
    }
}

/// Both, side by side.
pub(super) struct Pair {
    pub(super) world: World,
    tree: Tree,
    mask: u64,
}

impl Pair {
    pub(super) fn new(mask: u64) -> Self {
        let mut world = World::new();
        let now = world.ns.now();
        world.ns.names = NameHash::weak(SEED, mask);
        Self { world, tree: Tree::new(now), mask }
    }

    fn nth(&self, wanted: usize, keep: impl Fn(&Node) -> bool) -> Option<Ino> {
        let fit: Vec<_> =
            self.tree.nodes.iter().filter(|(_, node)| keep(node)).map(|(ino, _)| *ino).collect();
        (!fit.is_empty()).then(|| fit[wanted % fit.len()])
    }

    fn dir(&self, wanted: usize) -> Ino {
        self.nth(wanted, |node| node.kind == FileKind::Directory).unwrap()
    }

    fn any(&self, wanted: usize) -> Ino {
        self.nth(wanted, |_| true).unwrap()
    }

    fn reopen(&mut self, change: impl FnOnce(World) -> World) {
        let placeholder = World::new();
        let old = std::mem::replace(&mut self.world, placeholder);
        let node = old.ns.view(Ino::ROOT).unwrap().node;
        self.world = change(old);
        self.world.ns.names = NameHash::weak(SEED, self.mask);
        self.world.ns.tree.write().advance(node);
    }

    pub(super) fn apply(&mut self, op: &Op2) {
        self.run(&op.0);
    }

    fn run(&mut self, op: &Op) {
        let now = self.world.clock.tick();
        let name = |index: usize| NAMES[index].as_bytes();
        match *op {
            Op::Create { dir, name: at, kind } => self.create(self.dir(dir), name(at), kind, now),
            Op::Unlink { dir, name: at } => {
                let dir = self.dir(dir);
                let real = self.world.ns.unlink(dir, name(at)).map(drop);
                let model = self.tree.remove(dir, name(at), false, now);
                same(real, model);
            }
            Op::Rmdir { dir, name: at } => {
                let dir = self.dir(dir);
                let real = self.world.ns.rmdir(dir, name(at)).map(drop);
                let model = self.tree.remove(dir, name(at), true, now);
                same(real, model);
            }
            Op::Link { file, dir, name: at } => {
                let (file, dir) = (self.any(file), self.dir(dir));
                let real = self.world.ns.link(file, dir, name(at)).map(drop);
                same(real, self.tree.link(file, dir, name(at), now));
            }
            Op::Rename { dir, name: at, to, to_name, mode } => {
                let modes = [RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange];
                let (dir, to) = (self.dir(dir), self.dir(to));
                let (at, to_name) = (name(at), name(to_name));
                let real = self.world.ns.rename(dir, at, to, to_name, modes[mode]).map(drop);
                same(real, self.tree.rename((dir, at), (to, to_name), modes[mode], now));
            }
            Op::Chmod { .. } | Op::Utimes { .. } => self.setattr(op, now),
            Op::SetXattr { .. } | Op::RemoveXattr { .. } => self.xattr(op, now),
            Op::Write { file, slot, block } => self.write(file, slot, block),
            Op::Truncate { file, size } => self.truncate(file, size),
            Op::Purge => self.purge(),
            Op::Close => self.reopen(|world| {
                world.ns.close().unwrap();
                World::open(Arc::new(world.store.reopened()), world.clock)
            }),
            Op::Crash => self.reopen(World::crash),
        }
    }

    fn create(&mut self, dir: Ino, name: &[u8], kind: usize, now: Timestamp) {
        let ns = &self.world.ns;
        let (kind, real) = match kind {
            0 | 1 => (FileKind::File, ns.mknod(&ROOT_CALLER, dir, name, 0o100_666, 0o026, 0)),
            2 => (FileKind::Directory, ns.mkdir(&ROOT_CALLER, dir, name, 0o666, 0o026)),
            3 => (FileKind::Symlink, ns.symlink(&ROOT_CALLER, dir, name, b"target")),
            _ => (FileKind::Fifo, ns.mknod(&ROOT_CALLER, dir, name, 0o010_666, 0o026, 0)),
        };
        match (real, self.tree.create_allowed(dir, name)) {
            (Ok(inode), Ok(())) => {
                assert!(!self.tree.nodes.contains_key(&inode.ino), "a number was used again");
                self.tree.create(dir, name, inode.ino, kind, now);
            }
            (real, model) => same(real.map(drop), model),
        }
    }

    fn setattr(&mut self, op: &Op, now: Timestamp) {
        let early = Timestamp { secs: -1, nanos: 999_999_999 };
        let (file, changes) = match *op {
            Op::Chmod { file, perm } => (file, SetAttr { perm: Some(perm), ..SetAttr::default() }),
            Op::Utimes { file } => {
                let (atime, mtime) = (Some(SetTime::At(early.into())), Some(SetTime::Now));
                (file, SetAttr { atime, mtime, ..SetAttr::default() })
            }
            _ => unreachable!(),
        };
        let ino = self.any(file);
        self.world.ns.setattr(&ROOT_CALLER, ino, &changes).unwrap();
        let node = self.tree.node(ino);
        node.perm = changes.perm.unwrap_or(node.perm);
        node.ctime = now;
        if changes.atime.is_some() {
            (node.atime, node.mtime) = (early, now);
        }
    }

    fn xattr(&mut self, op: &Op, now: Timestamp) {
        match *op {
            Op::SetXattr { file, name, mode } => {
                let modes = [XattrMode::Set, XattrMode::Create, XattrMode::Replace];
                let ino = self.any(file);
                let name = format!("trusted.{}", NAMES[name]).into_bytes();
                let value = now.secs.to_le_bytes().to_vec();
                let mode = modes[mode];
                let real = self.world.ns.setxattr(&ROOT_CALLER, ino, &name, &value, mode);
                let node = self.tree.node(ino);
                let model = match (mode, node.xattrs.contains_key(&name)) {
                    (XattrMode::Create, true) => Err("EEXIST"),
                    (XattrMode::Replace, false) => Err("ENODATA"),
                    _ => {
                        node.xattrs.insert(name, value);
                        node.ctime = now;
                        Ok(())
                    }
                };
                same(real, model);
            }
            Op::RemoveXattr { file, name } => {
                let ino = self.any(file);
                let name = format!("trusted.{}", NAMES[name]).into_bytes();
                let real = self.world.ns.removexattr(&ROOT_CALLER, ino, &name);
                let node = self.tree.node(ino);
                let model = node.xattrs.remove(&name).map(drop).ok_or("ENODATA");
                if model.is_ok() {
                    node.ctime = now;
                }
                same(real, model);
            }
            _ => unreachable!(),
        }
    }

    /// Every slot that a file has is one block from start to end.
    fn write(&mut self, file: usize, slot: u64, block: u64) {
        let Some(ino) = self.nth(file, |node| node.kind == FileKind::File) else { return };
        let freed = self.world.write(ino, slot, &[piece(0, SLOT_LEN, block)]);
        let node = self.tree.node(ino);
        let old = node.slots.insert(slot, (block, u64::from(SLOT_LEN)));
        node.size = node.size.max((slot + 1) * u64::from(SLOT_LEN));
        let lost = old.into_iter().map(|old| old.0).filter(|&old| !self.uses(old)).collect();
        self.expect_freed(freed, lost);
    }

    fn truncate(&mut self, file: usize, size: u64) {
        let Some(ino) = self.nth(file, |node| node.kind == FileKind::File) else { return };
        let inode = {
            let _guard = self.world.ns.lock(&[ino]);
            let mut inode = Inode::clone(&self.world.ns.inode(ino).unwrap());
            inode.size = size;
            self.world.ns.truncate(inode, Durability::Buffered).unwrap()
        };
        let node = self.tree.node(ino);
        node.size = size;
        let kept = size.div_ceil(u64::from(SLOT_LEN));
        let gone = node.slots.split_off(&kept);
        if let Some(last) = node.slots.get_mut(&(size / u64::from(SLOT_LEN))) {
            last.1 = last.1.min(size % u64::from(SLOT_LEN));
        }
        let lost =
            gone.into_values().map(|gone| gone.0).filter(|&block| !self.uses(block)).collect();
        self.expect_freed(inode.1, lost);
    }

    fn purge(&mut self) {
        let orphans = self.world.ns.orphans(None, 1000).unwrap();
        let expected: Vec<_> = self
            .tree
            .nodes
            .iter()
            .filter(|(_, node)| node.nlink == 0)
            .map(|(ino, _)| *ino)
            .collect();
        assert_eq!(orphans, expected);
        let freed = self.world.ns.purge(&orphans).unwrap();
        let mut gone = BTreeSet::new();
        for ino in &orphans {
            let slots = self.tree.nodes.remove(ino).unwrap().slots;
            gone.extend(slots.into_values().map(|slot| slot.0));
        }
        gone.retain(|&block| !self.uses(block));
        self.expect_freed(freed, gone);
        for ino in orphans {
            assert_eq!(fails(self.world.ns.getattr(ino)), "ESTALE");
        }
    }

    fn uses(&self, block: u64) -> bool {
        self.tree.nodes.values().any(|node| node.slots.values().any(|used| used.0 == block))
    }

    /// Under a later node, what an earlier one refers to is kept.
    fn expect_freed(&self, freed: Vec<BlockId>, lost: BTreeSet<u64>) {
        let freed: BTreeSet<_> = freed.into_iter().collect();
        if self.world.ns.view(Ino::ROOT).unwrap().node == super::Node::FIRST {
            let lost: BTreeSet<_> = lost.into_iter().map(|number| block(number).id).collect();
            assert_eq!(freed, lost);
        }
        for block in freed {
            assert!(!self.world.ns.is_referenced(block).unwrap());
        }
    }

    /// Compares everything that can be seen.
    pub(super) fn compare(&self) {
        let ns = &self.world.ns;
        for (&ino, node) in &self.tree.nodes {
            let expected = Attr {
                ino,
                generation: 1,
                kind: node.kind,
                perm: node.perm,
                nlink: node.nlink,
                uid: 0,
                gid: 0,
                rdev: 0,
                size: node.size,
                blocks: node.slots.values().map(|slot| slot.1).sum::<u64>().div_ceil(512),
                atime: node.atime.into(),
                mtime: node.mtime.into(),
                ctime: node.ctime.into(),
                crtime: node.crtime.into(),
            };
            assert_eq!(ns.getattr(ino).unwrap(), expected);
            let mut xattrs = BTreeMap::new();
            for name in ns.listxattr(ino).unwrap() {
                let value = ns.getxattr(ino, &name).unwrap();
                xattrs.insert(name, value);
            }
            assert_eq!(xattrs, node.xattrs);
            if node.kind == FileKind::Directory {
                self.compare_entries(ino, node);
            }
        }
        for (ino, path) in self.paths() {
            assert_eq!(ns.path(ino), path);
        }
    }

    fn compare_entries(&self, ino: Ino, node: &Node) {
        let ns = &self.world.ns;
        let mut listed = BTreeMap::new();
        ns.readdir(ino, 2, true, &mut |entry| {
            assert_eq!(entry.attr.unwrap(), ns.getattr(entry.ino).unwrap());
            assert_eq!(entry.kind, entry.attr.unwrap().kind);
            assert!(listed.insert(entry.name.clone(), entry.ino).is_none());
            true
        })
        .unwrap();
        assert_eq!(listed, node.entries);
        for name in NAMES {
            let name = name.as_bytes();
            let found = ns.lookup(ino, name).map(|inode| inode.ino).map_err(|e| errno(&e));
            assert_eq!(found, node.entries.get(name).copied().ok_or("ENOENT"));
        }
        assert_eq!(ns.lookup(ino, b"..").unwrap().ino, node.parent);
    }

    /// Paths of the directories that can be reached.
    fn paths(&self) -> Vec<(Ino, Vec<u8>)> {
        let mut paths = vec![(Ino::ROOT, b"/".to_vec())];
        let mut at = 0;
        while let Some((dir, path)) = paths.get(at).cloned() {
            at += 1;
            for (name, &ino) in &self.tree.nodes[&dir].entries {
                if self.tree.nodes[&ino].kind == FileKind::Directory {
                    let mut below = if path == b"/" { Vec::new() } else { path.clone() };
                    below.push(b'/');
                    below.extend_from_slice(name);
                    paths.push((ino, below));
                }
            }
        }
        paths
    }
}

/// An operation, for other tests.
#[derive(Clone, Debug)]
pub(super) struct Op2(Op);

pub(super) fn operations(len: usize) -> impl Strategy<Value = Vec<Op2>> {
    proptest::collection::vec(operation().prop_map(Op2), 1..len)
}

fn same(real: FsResult<()>, model: Outcome<()>) {
    assert_eq!(real.map_err(|error| errno(&error)), model);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn operations_do_what_the_reference_does(
        ops in operations(60),
        mask in prop_oneof![Just(u64::MAX), Just(0), Just(0x300)],
    ) {
        let mut pair = Pair::new(mask);
        for (at, op) in ops.iter().enumerate() {
            pair.apply(op);
            if at % 4 == 0 {
                pair.compare();
            }
        }
        pair.compare();
        pair.world.assert_sound();
        pair.reopen(World::crash);
        pair.compare();
    }
}
