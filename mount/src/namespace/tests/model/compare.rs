//! Comparing everything that can be seen, and what is stored.

use super::*;
use crate::namespace::diff::Limits;
use crate::namespace::record::InodeFlags;

/// What was told of a name: what happened, and its paths in both states.
type Told = (ChangeKind, Option<Vec<u8>>, Option<Vec<u8>>);

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

    /// From each state of a dataset to each later one, and from the origin of a clone to its states.
    pub(super) fn compare_diffs(&self) {
        let ns = &self.world.ns;
        for branch in self.branches() {
            let snapshots = |branch: &Branch| -> Vec<(Ino, Tree)> {
                let root_of = |name: &str| ns.snapshot_root(branch.dataset, name).unwrap();
                let all = branch.snapshots.iter();
                all.map(|(name, tree)| (root_of(name), tree.clone())).collect()
            };
            let mut states = Vec::new();
            for other in self.branches() {
                let named = |name: &String| branch.origin.as_ref() == Some(name);
                let at = other.snapshots.iter().position(|(name, _)| named(name));
                states.extend(at.map(|at| snapshots(other).swap_remove(at)));
            }
            states.extend(snapshots(branch));
            states.push((ns.live_view(branch.dataset).unwrap().root(), branch.tree.clone()));
            for (at, (older, old)) in states.iter().enumerate() {
                for (newer, new) in &states[at + 1..] {
                    // Also with room for little, so that names are looked for in several passes.
                    let little = Limits { link_bytes: 300, unnamed: 1 };
                    for limits in [Limits::default(), little] {
                        self.compare_diff((*older, old), (*newer, new), limits);
                    }
                }
            }
        }
    }

    fn compare_diff(&self, (older, old): (Ino, &Tree), (newer, new): (Ino, &Tree), limits: Limits) {
        let mut found: BTreeMap<Ino, Vec<Difference>> = BTreeMap::new();
        self.world
            .ns
            .diff_within(older, newer, limits, &mut |difference| {
                let object = Ino(difference.ino.object());
                found.entry(object).or_default().push(difference.clone());
                true
            })
            .unwrap();
        let (old_links, new_links) = (old.links(), new.links());
        let objects: BTreeSet<_> = old.nodes.keys().chain(new.nodes.keys()).copied().collect();
        for object in objects {
            let named = |tree: &Tree| tree.nodes.get(&object).filter(|n| n.nlink > 0).cloned();
            let none = BTreeMap::new();
            let before = old_links.get(&object).unwrap_or(&none);
            let after = new_links.get(&object).unwrap_or(&none);
            let mut told = found.remove(&object).unwrap_or_default();
            let is_change = |difference: &Difference| difference.change == ChangeKind::Modified;
            let changed: Vec<_> = told.extract_if(.., |d| is_change(d)).collect();
            let mut told: Vec<_> =
                told.into_iter().map(|found| (found.change, found.before, found.after)).collect();
            told.sort();
            assert_eq!(told, expected_moves(before, after));
            let (Some(was), Some(is)) = (named(old), named(new)) else {
                assert_eq!(changed, []);
                continue;
            };
            let differs = was.slots != is.slots
                || was.xattrs != is.xattrs
                || was.entries != is.entries
                || (was.size, was.perm) != (is.size, is.perm);
            assert!(changed.len() <= 1 && (!differs || changed.len() == 1));
            for difference in changed {
                let path = difference.after.unwrap();
                if is.kind == FileKind::Directory {
                    assert_eq!(path, new.path_of(object));
                    assert_eq!(difference.before, Some(old.path_of(object)));
                } else {
                    assert!(after.values().any(|after| *after == path));
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
        self.compare_homes(tree, view, above);
        for (object, path) in tree.paths() {
            let path = match &path[..] {
                b"/" if !above.is_empty() => above.to_vec(),
                path => [above, path].concat(),
            };
            assert_eq!(ns.path(view.lift(object)), path);
        }
    }

    /// A file with link records remembers a name that it has.
    fn compare_homes(&self, tree: &Tree, view: View, above: &[u8]) {
        let ns = &self.world.ns;
        for (object, links) in tree.links() {
            let inode = ns.inode(view.lift(object)).unwrap();
            if inode.flags.has(InodeFlags::LINKS) {
                assert_eq!(inode.nlink as usize, links.len());
                let path = ns.path(inode.ino);
                assert!(links.values().any(|name| [above, name].concat() == path));
            }
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

/// What is to be told of an object's names, which are the paths by directory and name.
fn expected_moves(before: &Links, after: &Links) -> Vec<Told> {
    let gone = before.iter().filter(|(link, _)| !after.contains_key(*link));
    let come = after.iter().filter(|(link, _)| !before.contains_key(*link));
    let gone: Vec<_> = gone.map(|(_, path)| path.clone()).collect();
    let come: Vec<_> = come.map(|(_, path)| path.clone()).collect();
    if let ([from], [to]) = (&gone[..], &come[..]) {
        return vec![(ChangeKind::Renamed, Some(from.clone()), Some(to.clone()))];
    }
    let gone = gone.into_iter().map(|path| (ChangeKind::Removed, Some(path), None));
    let come = come.into_iter().map(|path| (ChangeKind::Added, None, Some(path)));
    let mut all: Vec<_> = gone.chain(come).collect();
    all.sort();
    all
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
