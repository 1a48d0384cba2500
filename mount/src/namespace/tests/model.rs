//! Random metadata operations against a tree of plain maps, which is the definition of right.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::namespace::key::Node as Dot;
use crate::namespace::names::NameHash;
use crate::namespace::tree::View;
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
    Snapshot,
    Destroy { which: usize },
    Sweep { limit: usize },
    Rollback { which: usize },
    Clone { which: usize },
    Switch { which: usize },
    DestroyClone,
    Promote,
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
        2 => Just(Op::Snapshot),
        1 => (0..8_usize).prop_map(|which| Op::Destroy { which }),
        1 => (1..20_usize).prop_map(|limit| Op::Sweep { limit }),
        1 => (0..8_usize).prop_map(|which| Op::Rollback { which }),
        2 => (0..8_usize).prop_map(|which| Op::Clone { which }),
        3 => (0..8_usize).prop_map(|which| Op::Switch { which }),
        1 => Just(Op::DestroyClone),
        1 => Just(Op::Promote),
        1 => Just(Op::Purge),
        1 => Just(Op::Close),
        1 => Just(Op::Crash),
    ]
}

/// What changes how many bytes are whose, on few slots, so that they have many versions.
fn operation_on_content() -> impl Strategy<Value = Op> {
    let (file, which) = (0..4_usize, 0..4_usize);
    prop_oneof![
        8 => (file.clone(), 0..2_u64, 0..4_u64)
            .prop_map(|(file, slot, block)| Op::Write { file, slot, block }),
        1 => (file, 0..4_u64 * 500_000).prop_map(|(file, size)| Op::Truncate { file, size }),
        1 => (0..2_usize).prop_map(|name| Op::Unlink { dir: 0, name }),
        1 => (0..2_usize).prop_map(|name| Op::Create { dir: 0, name, kind: 0 }),
        4 => Just(Op::Snapshot),
        2 => which.clone().prop_map(|which| Op::Destroy { which }),
        2 => (1..4_usize).prop_map(|limit| Op::Sweep { limit }),
        1 => which.clone().prop_map(|which| Op::Rollback { which }),
        1 => which.clone().prop_map(|which| Op::Clone { which }),
        1 => which.prop_map(|which| Op::Switch { which }),
        1 => Just(Op::DestroyClone),
        1 => Just(Op::Promote),
        1 => Just(Op::Purge),
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
    /// In the live state it shows as the root of a dataset.
    is_junction: bool,
    /// Block and length of each slot.
    slots: BTreeMap<u64, (u64, u64)>,
}

/// The reference. Inodes are named by their objects.
#[derive(Clone, Debug)]
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

impl Tree {
    fn uses(&self, block: u64) -> bool {
        self.nodes.values().any(|node| node.slots.values().any(|used| used.0 == block))
    }

    fn path_of(&self, dir: Ino) -> Vec<u8> {
        let found = self.paths().into_iter().find(|(at, _)| *at == dir);
        found.map(|found| found.1).unwrap_or_else(|| b"/zoo".to_vec())
    }

    /// Paths of the directories that can be reached.
    fn paths(&self) -> Vec<(Ino, Vec<u8>)> {
        let mut paths = vec![(Ino::ROOT, b"/".to_vec())];
        let mut at = 0;
        while let Some((dir, path)) = paths.get(at).cloned() {
            at += 1;
            for (name, &ino) in &self.nodes[&dir].entries {
                if self.nodes[&ino].kind == FileKind::Directory && !self.nodes[&ino].is_junction {
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
            is_junction: false,
        }
    }
}

/// A dataset.
#[derive(Clone, Debug)]
struct Branch {
    dataset: Dataset,
    path: Vec<u8>,
    tree: Tree,
    /// What was there when each snapshot was taken.
    snapshots: Vec<(String, Tree)>,
    /// The snapshot that it is a clone of.
    origin: Option<String>,
}

impl Branch {
    fn uses(&self, block: u64) -> bool {
        self.tree.uses(block) || self.snapshots.iter().any(|(_, tree)| tree.uses(block))
    }
}

/// Both, side by side.
struct Pair {
    world: World,
    /// The dataset that is worked on.
    branch: Branch,
    /// The other datasets.
    others: Vec<Branch>,
    mask: u64,
    /// The dataset in which clones lie, and its junction.
    zoo: Option<(Ino, Ino)>,
    /// A clone may keep what only its origin's line still holds.
    is_exact: bool,
    taken: usize,
    /// Nothing is left of destroyed snapshots.
    is_swept: bool,
}

impl Pair {
    fn new(mask: u64, has_clones: bool) -> Self {
        let mut world = World::new();
        let now = world.ns.now();
        world.ns.names = NameHash::weak(SEED, mask);
        let mut tree = Tree::new(now);
        let zoo = has_clones.then(|| {
            let ns = &world.ns;
            let zoo = ns.create_dataset(&ROOT_CALLER, Ino::ROOT, b"zoo", 0o755, &[]).unwrap();
            let entry = ns.entry(Ino::ROOT, b"zoo").unwrap();
            tree.create(Ino::ROOT, b"zoo", entry.ino, FileKind::Directory, now);
            let node = tree.node(entry.ino);
            (node.perm, node.is_junction) = (0o755, true);
            (ns.live_view(zoo).unwrap().root(), entry.ino)
        });
        let dataset = Dataset::ROOT;
        let (path, snapshots, origin) = (Vec::new(), Vec::new(), None);
        let branch = Branch { dataset, path, tree, snapshots, origin };
        let (others, taken) = (Vec::new(), 0);
        Self { world, branch, others, mask, zoo, is_exact: true, taken, is_swept: true }
    }

    fn branches(&self) -> impl Iterator<Item = &Branch> {
        std::iter::once(&self.branch).chain(&self.others)
    }

    fn nth(&self, wanted: usize, keep: impl Fn(&Node) -> bool) -> Option<Ino> {
        let fit: Vec<_> = self
            .branch
            .tree
            .nodes
            .iter()
            .filter(|(_, node)| !node.is_junction && keep(node))
            .map(|(ino, _)| *ino)
            .collect();
        (!fit.is_empty()).then(|| fit[wanted % fit.len()])
    }

    fn dir(&self, wanted: usize) -> Ino {
        self.nth(wanted, |node| node.kind == FileKind::Directory).unwrap()
    }

    fn any(&self, wanted: usize) -> Ino {
        self.nth(wanted, |_| true).unwrap()
    }

    /// An object in the live state.
    fn live(&self, object: Ino) -> Ino {
        self.world.ns.live_view(self.branch.dataset).unwrap().lift(object)
    }

    fn reopen(&mut self, change: impl FnOnce(World) -> World) {
        let placeholder = World::new();
        let old = std::mem::replace(&mut self.world, placeholder);
        self.world = change(old);
        self.world.ns.names = NameHash::weak(SEED, self.mask);
    }

    fn apply(&mut self, op: &Op) {
        let now = self.world.clock.tick();
        let name = |index: usize| NAMES[index].as_bytes();
        match *op {
            Op::Create { dir, name: at, kind } => self.create(self.dir(dir), name(at), kind, now),
            Op::Unlink { dir, name: at } => {
                let dir = self.dir(dir);
                let real = self.world.ns.unlink(self.live(dir), name(at)).map(drop);
                let model = self.branch.tree.remove(dir, name(at), false, now);
                same(real, model);
            }
            Op::Rmdir { dir, name: at } => {
                let dir = self.dir(dir);
                let real = self.world.ns.rmdir(self.live(dir), name(at)).map(drop);
                let model = self.branch.tree.remove(dir, name(at), true, now);
                same(real, model);
            }
            Op::Link { file, dir, name: at } => {
                let (file, dir) = (self.any(file), self.dir(dir));
                let (real_file, real_dir) = (self.live(file), self.live(dir));
                let real = self.world.ns.link(real_file, real_dir, name(at)).map(drop);
                same(real, self.branch.tree.link(file, dir, name(at), now));
            }
            Op::Rename { dir, name: at, to, to_name, mode } => {
                let modes = [RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange];
                let (dir, to) = (self.dir(dir), self.dir(to));
                let (at, to_name) = (name(at), name(to_name));
                let (real_dir, real_to) = (self.live(dir), self.live(to));
                let real =
                    self.world.ns.rename(real_dir, at, real_to, to_name, modes[mode]).map(drop);
                same(real, self.branch.tree.rename((dir, at), (to, to_name), modes[mode], now));
            }
            Op::Chmod { .. } | Op::Utimes { .. } => self.setattr(op, now),
            Op::SetXattr { .. } | Op::RemoveXattr { .. } => self.xattr(op, now),
            Op::Write { file, slot, block } => self.write(file, slot, block),
            Op::Truncate { file, size } => self.truncate(file, size),
            Op::Snapshot => self.snapshot(),
            Op::Destroy { which } => self.destroy(which),
            Op::Sweep { limit } => self.sweep(limit),
            Op::Rollback { which } => self.rollback(which),
            Op::Clone { which } => self.clone_some(which),
            Op::Switch { which } => self.switch(which),
            Op::DestroyClone => drop(self.destroy_clone()),
            Op::Promote => self.promote(),
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
        let (object, dir) = (dir, self.live(dir));
        let (kind, real) = match kind {
            0 | 1 => (FileKind::File, ns.mknod(&ROOT_CALLER, dir, name, 0o100_666, 0o026, 0)),
            2 => (FileKind::Directory, ns.mkdir(&ROOT_CALLER, dir, name, 0o666, 0o026)),
            3 => (FileKind::Symlink, ns.symlink(&ROOT_CALLER, dir, name, b"target")),
            _ => (FileKind::Fifo, ns.mknod(&ROOT_CALLER, dir, name, 0o010_666, 0o026, 0)),
        };
        match (real, self.branch.tree.create_allowed(object, name)) {
            (Ok(inode), Ok(())) => {
                let ino = Ino(inode.ino.object());
                assert!(!self.branch.tree.nodes.contains_key(&ino), "a number was used again");
                self.branch.tree.create(object, name, ino, kind, now);
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
        self.world.ns.setattr(&ROOT_CALLER, self.live(ino), &changes).unwrap();
        let node = self.branch.tree.node(ino);
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
                let real =
                    self.world.ns.setxattr(&ROOT_CALLER, self.live(ino), &name, &value, mode);
                let node = self.branch.tree.node(ino);
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
                let real = self.world.ns.removexattr(&ROOT_CALLER, self.live(ino), &name);
                let node = self.branch.tree.node(ino);
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
        let freed = self.world.write(self.live(ino), slot, &[piece(0, SLOT_LEN, block)]);
        let node = self.branch.tree.node(ino);
        let old = node.slots.insert(slot, (block, u64::from(SLOT_LEN)));
        node.size = node.size.max((slot + 1) * u64::from(SLOT_LEN));
        let lost = old.into_iter().map(|old| old.0).filter(|&old| !self.uses(old)).collect();
        self.expect_freed(freed, lost);
    }

    fn truncate(&mut self, file: usize, size: u64) {
        let Some(ino) = self.nth(file, |node| node.kind == FileKind::File) else { return };
        let inode = {
            let live = self.live(ino);
            let _guard = self.world.ns.lock(&[live]);
            let mut inode = Inode::clone(&self.world.ns.inode(live).unwrap());
            inode.size = size;
            self.world.ns.truncate(inode, Durability::Buffered).unwrap()
        };
        let node = self.branch.tree.node(ino);
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
        let live: Vec<Ino> = self.world.ns.orphans(None, 1000).unwrap();
        let view = self.world.ns.live_view(self.branch.dataset).unwrap();
        let orphans: Vec<Ino> =
            live.into_iter().filter(|&ino| self.world.ns.view(ino).unwrap() == view).collect();
        let nodes = self.branch.tree.nodes.iter();
        let expected: Vec<_> =
            nodes.filter(|(_, node)| node.nlink == 0).map(|(ino, _)| self.live(*ino)).collect();
        assert_eq!(orphans, expected);
        let freed = self.world.ns.purge(&orphans).unwrap();
        let mut gone = BTreeSet::new();
        for ino in &orphans {
            let slots = self.branch.tree.nodes.remove(&Ino(ino.object())).unwrap().slots;
            gone.extend(slots.into_values().map(|slot| slot.0));
        }
        gone.retain(|&block| !self.uses(block));
        self.expect_freed(freed, gone);
        for ino in orphans {
            assert_eq!(fails(self.world.ns.getattr(ino)), "ESTALE");
        }
    }

    fn snapshot(&mut self) {
        if self.zoo.is_some() {
            // What a clone finds without a name it cannot clear away.
            self.purge();
        }
        let name = format!("s{}", self.taken);
        self.taken += 1;
        self.world.ns.snapshot(&[self.branch.dataset], &name, "").unwrap();
        self.branch.snapshots.push((name, self.branch.tree.clone()));
    }

    fn destroy(&mut self, which: usize) {
        if self.branch.snapshots.is_empty() {
            return;
        }
        let which = which % self.branch.snapshots.len();
        let name = self.branch.snapshots[which].0.clone();
        if self.is_origin(&name) {
            let refused = self.world.ns.destroy_snapshots(&[(self.branch.dataset, &name)], false);
            assert!(matches!(refused, Err(TreeError::Cloned(_))));
            return;
        }
        self.branch.snapshots.remove(which);
        let root = self.world.ns.snapshot_root(self.branch.dataset, &name).unwrap();
        self.world.ns.destroy_snapshots(&[(self.branch.dataset, &name)], false).unwrap();
        assert_eq!(fails(self.world.ns.getattr(root)), "ESTALE");
        self.is_swept = false;
    }

    fn rollback(&mut self, which: usize) {
        if self.branch.snapshots.is_empty() {
            return;
        }
        let which = which % self.branch.snapshots.len();
        let (name, tree) = self.branch.snapshots[which].clone();
        let newer: Vec<_> =
            self.branch.snapshots[which + 1..].iter().map(|(name, _)| name.clone()).collect();
        if newer.iter().any(|name| self.is_origin(name)) {
            let refused = self.world.ns.rollback(self.branch.dataset, &name, true);
            assert!(matches!(refused, Err(TreeError::Cloned(_))));
            return;
        }
        self.branch.snapshots.truncate(which + 1);
        let ns = &self.world.ns;
        if !newer.is_empty() {
            let refused = ns.rollback(self.branch.dataset, &name, false);
            assert!(matches!(refused, Err(TreeError::InTheWay(names)) if names == newer));
            self.is_swept = false;
        }
        let old = self.live(self.any(which));
        let before = self.referenced();
        let done = ns.rollback(self.branch.dataset, &name, true).unwrap();
        assert_eq!(done.root, self.live(Ino::ROOT));
        let freed: BTreeSet<_> = done.unreferenced.into_iter().collect();
        assert_eq!(freed, before.difference(&self.referenced()).copied().collect());
        if old != Ino::ROOT {
            assert_eq!(fails(ns.getattr(old)), "ESTALE");
        }
        self.branch.tree = tree;
    }

    fn is_origin(&self, name: &str) -> bool {
        self.branches().any(|branch| branch.origin.as_deref() == Some(name))
    }

    fn clone_some(&mut self, which: usize) {
        let Some((zoo, _)) = self.zoo.filter(|_| self.others.len() < 3) else { return };
        if self.branch.snapshots.is_empty() {
            return;
        }
        let (name, mut tree) = self.branch.snapshots[which % self.branch.snapshots.len()].clone();
        let place = format!("c{}", self.taken);
        self.taken += 1;
        let from = (self.branch.dataset, &name[..]);
        let made = self.world.ns.clone_snapshot(&ROOT_CALLER, from, zoo, place.as_bytes());
        tree.nodes.values_mut().for_each(|node| node.is_junction = false);
        self.others.push(Branch {
            dataset: made.unwrap(),
            path: format!("/zoo/{place}").into_bytes(),
            tree,
            snapshots: Vec::new(),
            origin: Some(name),
        });
    }

    fn switch(&mut self, which: usize) {
        if !self.others.is_empty() {
            let which = which % self.others.len();
            std::mem::swap(&mut self.branch, &mut self.others[which]);
        }
    }

    fn destroy_clone(&mut self) -> bool {
        if self.branch.dataset == Dataset::ROOT {
            return false;
        }
        let done = self.world.ns.destroy_dataset(self.branch.dataset, true);
        if self.branch.snapshots.iter().any(|(name, _)| self.is_origin(name)) {
            assert!(matches!(done, Err(TreeError::Cloned(_))));
            return false;
        }
        self.world.ns.purge(&[done.unwrap().inode.ino]).unwrap();
        self.branch = self.others.remove(0);
        self.is_swept = false;
        true
    }

    fn promote(&mut self) {
        let Some(origin) = self.branch.origin.clone() else {
            let refused = self.world.ns.promote(self.branch.dataset);
            assert!(matches!(refused, Err(TreeError::NotAClone)));
            return;
        };
        self.world.ns.promote(self.branch.dataset).unwrap();
        let has = |branch: &Branch| branch.snapshots.iter().position(|(name, _)| *name == origin);
        let owner = self.others.iter().position(|other| has(other).is_some()).unwrap();
        let owner = &mut self.others[owner];
        let mut moved: Vec<_> = owner.snapshots.drain(..=has(owner).unwrap()).collect();
        moved.append(&mut self.branch.snapshots);
        self.branch.snapshots = moved;
        self.branch.origin = owner.origin.replace(origin);
        self.is_exact = false;
    }

    fn end_all_but_the_root(&mut self) {
        while let Some(at) = self.others.iter().position(|other| other.dataset == Dataset::ROOT) {
            self.switch(at);
        }
        while self.branch.origin.is_some() {
            self.promote();
        }
        while !self.others.is_empty() {
            let before = self.others.len();
            for at in 0..before {
                self.switch(at);
                if self.destroy_clone() {
                    break;
                }
                self.switch(at);
            }
            assert!(self.others.len() < before, "one of them has no clones");
            while let Some(at) = self.others.iter().position(|o| o.dataset == Dataset::ROOT) {
                self.switch(at);
            }
        }
        while !self.branch.snapshots.is_empty() {
            self.destroy(0);
        }
        self.is_exact = true;
        self.sweep_all();
    }

    fn referenced(&self) -> BTreeSet<BlockId> {
        let ids = (0..4).map(|number| block(number).id);
        ids.filter(|&id| self.world.ns.is_referenced(id).unwrap()).collect()
    }

    /// Frees exactly what nobody sees.
    fn sweep(&mut self, limit: usize) {
        let before = self.referenced();
        let swept = self.world.ns.sweep_some(limit).unwrap();
        let after = self.referenced();
        let freed: BTreeSet<_> = swept.unreferenced.into_iter().collect();
        assert_eq!(freed, before.difference(&after).copied().collect());
        let used = (0..4).filter(|&number| self.uses(number));
        let used: BTreeSet<_> = used.map(|number| block(number).id).collect();
        assert!(used.is_subset(&after));
        if !swept.more {
            self.is_swept = true;
            assert!(!self.is_exact || used == after);
        }
    }

    fn sweep_all(&mut self) {
        while self.world.ns.sweep_some(7).unwrap().more {}
        self.sweep(1);
    }

    fn uses(&self, block: u64) -> bool {
        self.branches().any(|branch| branch.uses(block))
    }

    /// Until everything is swept, more is kept.
    fn expect_freed(&self, freed: Vec<BlockId>, lost: BTreeSet<u64>) {
        let freed: BTreeSet<_> = freed.into_iter().collect();
        let lost: BTreeSet<_> = lost.into_iter().map(|number| block(number).id).collect();
        if self.is_swept && self.is_exact {
            assert_eq!(freed, lost);
            assert_eq!(
                self.referenced(),
                (0..4).filter(|&n| self.uses(n)).map(|n| block(n).id).collect()
            );
        } else {
            assert!(freed.is_subset(&lost));
        }
    }

    /// Compares everything that can be seen.
    fn compare(&self) {
        self.world.assert_counted();
        for branch in self.branches() {
            let view = self.world.ns.live_view(branch.dataset).unwrap();
            self.compare_view(&branch.tree, view, &branch.path);
            for (name, tree) in &branch.snapshots {
                let root = self.world.ns.snapshot_root(branch.dataset, name).unwrap();
                self.compare_view(tree, self.world.ns.view(root).unwrap(), b"");
            }
        }
    }

    /// From each snapshot to the next, and from the last to the live state.
    fn compare_diffs(&self) {
        let ns = &self.world.ns;
        for branch in self.branches() {
            let root_of = |name: &str| ns.snapshot_root(branch.dataset, name).unwrap();
            let mut states: Vec<_> =
                branch.snapshots.iter().map(|(name, tree)| (root_of(name), tree)).collect();
            states.push((ns.live_view(branch.dataset).unwrap().root(), &branch.tree));
            for pair in states.windows(2) {
                self.compare_diff(pair[0], pair[1]);
            }
        }
    }

    fn compare_diff(&self, (older, old): (Ino, &Tree), (newer, new): (Ino, &Tree)) {
        let mut found: BTreeMap<Ino, Vec<Difference>> = BTreeMap::new();
        self.world
            .ns
            .diff(older, newer, &mut |difference| {
                let object = Ino(difference.ino.object());
                found.entry(object).or_default().push(difference.clone());
                true
            })
            .unwrap();
        let objects: BTreeSet<_> = old.nodes.keys().chain(new.nodes.keys()).copied().collect();
        for object in objects {
            let named = |tree: &Tree| tree.nodes.get(&object).filter(|n| n.nlink > 0).cloned();
            let found = found.remove(&object).unwrap_or_default();
            let has = |change| found.iter().any(|difference| difference.change == change);
            match (named(old), named(new)) {
                (None, None) => assert_eq!(found, []),
                (None, Some(_)) => assert!(has(ChangeKind::Added) && found.len() == 1),
                (Some(_), None) => assert!(has(ChangeKind::Removed) && found.len() == 1),
                (Some(before), Some(after)) => {
                    let differs = before.slots != after.slots
                        || before.xattrs != after.xattrs
                        || before.entries != after.entries
                        || (before.size, before.perm) != (after.size, after.perm);
                    assert!(!differs || has(ChangeKind::Modified));
                    if after.kind == FileKind::Directory {
                        let (from, to) = (old.path_of(object), new.path_of(object));
                        let moved = before.parent != after.parent
                            || from.rsplit(|b| *b == b'/').next()
                                != to.rsplit(|b| *b == b'/').next();
                        assert_eq!(moved, has(ChangeKind::Renamed));
                        for difference in &found {
                            assert_eq!(difference.before.as_ref(), Some(&from));
                            assert_eq!(difference.after.as_ref(), Some(&to));
                        }
                    }
                }
            }
        }
        assert!(found.is_empty());
    }

    fn compare_view(&self, tree: &Tree, view: View, above: &[u8]) {
        let ns = &self.world.ns;
        for (&object, node) in &tree.nodes {
            let ino = view.lift(object);
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
                self.compare_entries(view, ino, node);
            }
            for slot in 0..4 {
                let pieces = ns.slot(ino, slot).unwrap();
                let found = pieces.first().map(|piece| (piece.block().unwrap().id, piece.len));
                let expected = node.slots.get(&slot).filter(|slot| slot.1 > 0);
                assert_eq!(found, expected.map(|slot| (block(slot.0).id, slot.1 as u32)));
            }
            let (mut found, mut next) = (Vec::new(), Some(0));
            while let Some(from) = next {
                let page = ns.slots(ino, from, u64::MAX, 2).unwrap();
                found.extend(page.slots.iter().map(|slot| slot.0));
                next = page.next;
            }
            let expected = node.slots.iter().filter(|slot| slot.1.1 > 0).map(|slot| *slot.0);
            assert_eq!(found, expected.collect::<Vec<_>>());
        }
        for (object, path) in tree.paths() {
            let path = match &path[..] {
                b"/" if !above.is_empty() => above.to_vec(),
                path => [above, path].concat(),
            };
            assert_eq!(ns.path(view.lift(object)), path);
        }
    }

    fn compare_entries(&self, view: View, ino: Ino, node: &Node) {
        let ns = &self.world.ns;
        let mut listed = BTreeMap::new();
        ns.readdir(ino, 2, true, &mut |entry| {
            assert_eq!(entry.attr.unwrap(), ns.getattr(entry.ino).unwrap());
            assert_eq!(entry.kind, entry.attr.unwrap().kind);
            assert!(listed.insert(entry.name.clone(), entry.ino).is_none());
            true
        })
        .unwrap();
        let lift = |object: &Ino| match self.zoo {
            Some((root, zoo)) if zoo == *object && view.is_mount => root,
            _ => view.lift(*object),
        };
        let entries = node.entries.iter().map(|(name, object)| (name.clone(), lift(object)));
        assert_eq!(listed, entries.collect());
        for name in NAMES {
            let name = name.as_bytes();
            let found = ns.lookup(ino, name).map(|inode| inode.ino).map_err(|e| errno(&e));
            assert_eq!(found, node.entries.get(name).map(lift).ok_or("ENOENT"));
        }
        let above = match self.zoo {
            Some((root, _)) if ino == view.root() && view.is_live() && !view.is_mount => root,
            _ => view.lift(node.parent),
        };
        assert_eq!(ns.lookup(ino, b"..").unwrap().ino, above);
    }
}

/// A space; in the head, which node wrote a record does not count.
fn records(world: &World, space: Space) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let page = world.store.page(space, &[], None, usize::MAX).unwrap();
    assert!(!page.more);
    let plain = |value: Bytes| match space {
        Space::Head => {
            let (version, record) = Version::split(&value).unwrap();
            assert!(!version.whiteout && !version.shadows);
            record.to_vec()
        }
        _ => value.to_vec(),
    };
    page.items.into_iter().map(|(key, value)| (key.to_vec(), plain(value))).collect()
}

fn same(real: FsResult<()>, model: Outcome<()>) {
    assert_eq!(real.map_err(|error| errno(&error)), model);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn operations_do_what_the_reference_does(
        ops in proptest::collection::vec(operation(), 1..60),
        mask in prop_oneof![Just(u64::MAX), Just(0), Just(0x300)],
        has_clones in any::<bool>(),
    ) {
        let mut pair = Pair::new(mask, has_clones);
        for (at, op) in ops.iter().enumerate() {
            pair.apply(op);
            if at % 4 == 0 {
                pair.compare();
            }
        }
        pair.compare();
        pair.compare_diffs();
        pair.world.assert_sound();
        pair.reopen(World::crash);
        pair.compare();
        pair.reopen(World::without_counters);
        pair.world.assert_counted();
        pair.end_all_but_the_root();
        pair.compare();
        pair.world.assert_sound();
        for space in [Space::History, Space::Born] {
            prop_assert_eq!(records(&pair.world, space), BTreeMap::new());
        }
        let has_rollback = |op: &Op| matches!(op, Op::Rollback { .. });
        if has_clones || ops.iter().any(has_rollback) {
            return Ok(());
        }
        // The same without any snapshot.
        let mut plain = Pair::new(mask, false);
        let is_about_snapshots =
            |op: &Op| matches!(op, Op::Snapshot | Op::Destroy { .. } | Op::Sweep { .. } | Op::Promote);
        for op in ops.iter() {
            match is_about_snapshots(op) {
                true => drop(plain.world.clock.tick()),
                false => plain.apply(op),
            }
        }
        prop_assert_eq!(records(&pair.world, Space::Head), records(&plain.world, Space::Head));
        let backrefs = |world: &World| -> BTreeSet<_> {
            let keys = records(world, Space::Backrefs).into_keys();
            keys.map(|key| Backref { node: Dot::FIRST, ..Backref::decode(&key).unwrap() }.encode()).collect()
        };
        prop_assert_eq!(backrefs(&pair.world), backrefs(&plain.world));
    }

    #[test]
    fn counters_of_space_follow_whatever_happens(
        ops in proptest::collection::vec(operation_on_content(), 1..80),
        has_clones in any::<bool>(),
    ) {
        let mut pair = Pair::new(u64::MAX, has_clones);
        for name in 0..2 {
            pair.apply(&Op::Create { dir: 0, name, kind: 0 });
        }
        for op in &ops {
            pair.apply(op);
            pair.world.assert_counted();
        }
        pair.world.assert_sound();
        pair.end_all_but_the_root();
        pair.world.assert_counted();
        // Without snapshots, what is used is what is referred to, and what orphans hold.
        pair.purge();
        let space = pair.world.ns.dataset_space(Dataset::ROOT).unwrap();
        prop_assert_eq!(space.used, space.referenced.bytes);
    }
}
