//! Comparing everything that can be seen, and what is stored.

use super::*;

impl Pair {
    /// Compares everything that can be seen.
    pub(super) fn compare(&self) {
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
    pub(super) fn compare_diffs(&self) {
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

    pub(super) fn compare_diff(&self, (older, old): (Ino, &Tree), (newer, new): (Ino, &Tree)) {
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

    pub(super) fn compare_view(&self, tree: &Tree, view: View, above: &[u8]) {
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

    pub(super) fn compare_entries(&self, view: View, ino: Ino, node: &Node) {
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
pub(super) fn records(world: &World, space: Space) -> BTreeMap<Vec<u8>, Vec<u8>> {
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
