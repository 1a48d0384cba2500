//! The reference: a tree of plain maps for each dataset.

use std::collections::BTreeMap;

use super::*;

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: FileKind,
    pub(super) perm: u16,
    pub(super) nlink: u32,
    pub(super) size: u64,
    pub(super) atime: Timestamp,
    pub(super) mtime: Timestamp,
    pub(super) ctime: Timestamp,
    pub(super) crtime: Timestamp,
    pub(super) parent: Ino,
    pub(super) entries: BTreeMap<Vec<u8>, Ino>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// In the live state it shows as the root of a dataset.
    pub(super) is_junction: bool,
    /// Block and length of each slot.
    pub(super) slots: BTreeMap<u64, (u64, u64)>,
}

/// The reference. Inodes are named by their objects.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub(super) nodes: BTreeMap<Ino, Node>,
}

/// Names of an inode, with their paths.
pub(super) type Links = BTreeMap<(Ino, Vec<u8>), Vec<u8>>;

pub(super) type Outcome<T> = Result<T, &'static str>;

impl Tree {
    pub(super) fn new(now: Timestamp) -> Self {
        let root = Node::new(FileKind::Directory, 0o755, Ino::ROOT, now);
        Self { nodes: BTreeMap::from([(Ino::ROOT, root)]) }
    }

    pub(super) fn node(&mut self, ino: Ino) -> &mut Node {
        self.nodes.get_mut(&ino).unwrap()
    }

    pub(super) fn alive_dir(&self, ino: Ino) -> Outcome<&Node> {
        let node = &self.nodes[&ino];
        match (node.kind, node.nlink) {
            (FileKind::Directory, 0) => Err("ENOENT"),
            (FileKind::Directory, _) => Ok(node),
            _ => Err("ENOTDIR"),
        }
    }

    pub(super) fn touch(&mut self, dir: Ino, now: Timestamp) {
        let entries = self.nodes[&dir].entries.len() as u64;
        let node = self.node(dir);
        (node.mtime, node.ctime, node.size) = (now, now, entries);
    }

    pub(super) fn create_allowed(&self, dir: Ino, name: &[u8]) -> Outcome<()> {
        let dir = self.alive_dir(dir)?;
        if dir.entries.contains_key(name) { Err("EEXIST") } else { Ok(()) }
    }

    pub(super) fn create(
        &mut self,
        dir: Ino,
        name: &[u8],
        ino: Ino,
        kind: FileKind,
        now: Timestamp,
    ) {
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

    pub(super) fn remove(
        &mut self,
        dir: Ino,
        name: &[u8],
        is_rmdir: bool,
        now: Timestamp,
    ) -> Outcome<()> {
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

    pub(super) fn lose(&mut self, ino: Ino, now: Timestamp) {
        let node = self.node(ino);
        node.nlink = if node.kind == FileKind::Directory { 0 } else { node.nlink - 1 };
        node.ctime = now;
    }

    pub(super) fn link(&mut self, ino: Ino, dir: Ino, name: &[u8], now: Timestamp) -> Outcome<()> {
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

    pub(super) fn is_within(&self, mut dir: Ino, ancestor: Ino) -> bool {
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

    pub(super) fn rename(
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
    pub(super) fn uses(&self, block: u64) -> bool {
        self.nodes.values().any(|node| node.slots.values().any(|used| used.0 == block))
    }

    pub(super) fn path_of(&self, dir: Ino) -> Vec<u8> {
        let found = self.paths().into_iter().find(|(at, _)| *at == dir);
        found.map(|found| found.1).unwrap_or_else(|| b"/zoo".to_vec())
    }

    /// Every name of every inode, by its directory and what it is called there, with its path.
    pub(super) fn links(&self) -> BTreeMap<Ino, Links> {
        let mut links: BTreeMap<Ino, Links> = BTreeMap::new();
        for (&dir, node) in self.nodes.iter().filter(|(_, node)| !node.entries.is_empty()) {
            let path = self.path_of(dir);
            let above = if path == b"/" { Vec::new() } else { path };
            for (name, &ino) in &node.entries {
                let path = [&above[..], b"/", name].concat();
                links.entry(ino).or_default().insert((dir, name.clone()), path);
            }
        }
        links
    }

    /// Paths of the directories that can be reached.
    pub(super) fn paths(&self) -> Vec<(Ino, Vec<u8>)> {
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
    pub(super) fn new(kind: FileKind, perm: u16, parent: Ino, now: Timestamp) -> Self {
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
pub(super) struct Branch {
    pub(super) dataset: Dataset,
    pub(super) path: Vec<u8>,
    pub(super) tree: Tree,
    /// What was there when each snapshot was taken.
    pub(super) snapshots: Vec<(String, Tree)>,
    /// The snapshot that it is a clone of.
    pub(super) origin: Option<String>,
}

impl Branch {
    pub(super) fn uses(&self, block: u64) -> bool {
        self.tree.uses(block) || self.snapshots.iter().any(|(_, tree)| tree.uses(block))
    }
}
