//! Both sides, and the operations on files.

use super::*;

/// Both, side by side.
pub(super) struct Pair {
    pub(super) world: World,
    /// The dataset that is worked on.
    pub(super) branch: Branch,
    /// The other datasets.
    pub(super) others: Vec<Branch>,
    pub(super) mask: u64,
    /// The dataset in which clones lie, and its junction.
    pub(super) zoo: Option<(Ino, Ino)>,
    /// A clone may keep what only its origin's line still holds.
    pub(super) is_exact: bool,
    pub(super) taken: usize,
    /// Nothing is left of destroyed snapshots.
    pub(super) is_swept: bool,
}

impl Pair {
    pub(super) fn new(mask: u64, has_clones: bool) -> Self {
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

    pub(super) fn branches(&self) -> impl Iterator<Item = &Branch> {
        std::iter::once(&self.branch).chain(&self.others)
    }

    pub(super) fn nth(&self, wanted: usize, keep: impl Fn(&Node) -> bool) -> Option<Ino> {
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

    pub(super) fn dir(&self, wanted: usize) -> Ino {
        self.nth(wanted, |node| node.kind == FileKind::Directory).unwrap()
    }

    pub(super) fn any(&self, wanted: usize) -> Ino {
        self.nth(wanted, |_| true).unwrap()
    }

    /// An object in the live state.
    pub(super) fn live(&self, object: Ino) -> Ino {
        self.world.ns.live_view(self.branch.dataset).unwrap().lift(object)
    }

    pub(super) fn reopen(&mut self, change: impl FnOnce(World) -> World) {
        let placeholder = World::new();
        let old = std::mem::replace(&mut self.world, placeholder);
        self.world = change(old);
        self.world.ns.names = NameHash::weak(SEED, self.mask);
    }

    pub(super) fn apply(&mut self, op: &Op) {
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
            Op::Older => self.reopen(World::without_links),
        }
    }

    pub(super) fn create(&mut self, dir: Ino, name: &[u8], kind: usize, now: Timestamp) {
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

    pub(super) fn setattr(&mut self, op: &Op, now: Timestamp) {
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

    pub(super) fn xattr(&mut self, op: &Op, now: Timestamp) {
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
    pub(super) fn write(&mut self, file: usize, slot: u64, block: u64) {
        let Some(ino) = self.nth(file, |node| node.kind == FileKind::File) else { return };
        let freed = self.world.write(self.live(ino), slot, &[piece(0, SLOT_LEN, block)]);
        let node = self.branch.tree.node(ino);
        let old = node.slots.insert(slot, (block, u64::from(SLOT_LEN)));
        node.size = node.size.max((slot + 1) * u64::from(SLOT_LEN));
        let lost = old.into_iter().map(|old| old.0).filter(|&old| !self.uses(old)).collect();
        self.expect_freed(freed, lost);
    }

    pub(super) fn truncate(&mut self, file: usize, size: u64) {
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

    pub(super) fn purge(&mut self) {
        let live: Vec<Ino> = self.world.ns.orphans(None, 1000).unwrap();
        let view = self.world.ns.live_view(self.branch.dataset).unwrap();
        let orphans: Vec<Ino> =
            live.into_iter().filter(|&ino| self.world.ns.view(ino).unwrap() == view).collect();
        let nodes = self.branch.tree.nodes.iter();
        let expected: Vec<_> =
            nodes.filter(|(_, node)| node.nlink == 0).map(|(ino, _)| self.live(*ino)).collect();
        assert_eq!(orphans, expected);
        let freed = self.world.ns.purged(&orphans).unwrap();
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

    pub(super) fn referenced(&self) -> BTreeSet<BlockId> {
        let ids = (0..4).map(|number| block(number).id);
        ids.filter(|&id| self.world.ns.is_referenced(id).unwrap()).collect()
    }

    /// Frees exactly what nobody sees.
    pub(super) fn sweep(&mut self, limit: usize) {
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

    pub(super) fn sweep_all(&mut self) {
        while self.world.ns.sweep_some(7).unwrap().more {}
        self.sweep(1);
    }

    pub(super) fn uses(&self, block: u64) -> bool {
        self.branches().any(|branch| branch.uses(block))
    }

    /// Until everything is swept, more is kept.
    pub(super) fn expect_freed(&self, freed: Vec<BlockId>, lost: BTreeSet<u64>) {
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
}
