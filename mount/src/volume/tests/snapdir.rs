//! `.firn/snapshot/` as programs find it.

use super::fake::{READ_WRITE, ROOT, World};
use crate::core::Core;
use crate::error::{FsError, FsResult};
use crate::namespace::{Dataset, Setting};
use crate::types::{Caller, DirEntry, FileKind, Handle, Ino, RenameMode, SetAttr, XattrMode};

impl World {
    fn look(&self, path: &str) -> Ino {
        path.split('/')
            .filter(|name| !name.is_empty())
            .fold(Ino::ROOT, |dir, name| self.volume().lookup(dir, name.as_bytes()).unwrap().ino)
    }

    /// Entries of a directory, a few at a time.
    fn list(&self, dir: Ino, plus: bool) -> Vec<DirEntry> {
        let handle = self.volume().opendir(dir).unwrap();
        let mut found: Vec<DirEntry> = Vec::new();
        loop {
            let before = found.len();
            let cookie = found.last().map_or(0, |entry| entry.cookie);
            let mut sink = |entry: &DirEntry| {
                let fits = found.len() < before + 2;
                if fits {
                    found.push(entry.clone());
                }
                fits
            };
            self.volume().readdir(dir, handle, cookie, plus, &mut sink).unwrap();
            if found.len() == before {
                return found;
            }
        }
    }

    fn names(&self, dir: Ino) -> Vec<String> {
        let entries = self.list(dir, false).into_iter();
        entries.map(|entry| String::from_utf8(entry.name).unwrap()).collect()
    }
}

fn refused<T: std::fmt::Debug>(outcome: FsResult<T>) {
    let error = outcome.unwrap_err();
    assert!(matches!(error, FsError::InSnapshot), "{error:?}");
}

#[test]
fn snapshots_lie_below_the_root() {
    let world = World::new();
    let volume = world.volume();
    let file = world.create("a");
    world.write(file, 0, b"then");
    let one = world.snapshot("one");
    world.write(file, 0, b"now!");
    let two = world.snapshot("two");
    assert_eq!(world.look(".firn/snapshot/one"), one);
    assert_eq!(world.content_in(world.look(".firn/snapshot/one"), "a"), b"then");
    assert_eq!(world.content_in(world.look(".firn/snapshot/two"), "a"), b"now!");
    let (control, snapshots) = (world.look(".firn"), world.look(".firn/snapshot"));
    let all = [Ino::ROOT, control, snapshots, one, two, file.0, world.look(".firn/snapshot/one/a")];
    let unique: std::collections::BTreeSet<_> = all.into_iter().collect();
    assert_eq!(unique.len(), all.len());
    for missing in ["one ", ".", "a", ".firn"] {
        let found = volume.lookup(snapshots, missing.as_bytes());
        assert!(matches!(found, Err(FsError::NotFound)), "{missing}");
    }
    assert!(matches!(volume.lookup(one, b".firn"), Err(FsError::NotFound)));
    volume.mkdir(&ROOT, Ino::ROOT, b"d", 0o755, 0).unwrap();
    assert!(matches!(volume.lookup(world.look("d"), b".firn"), Err(FsError::NotFound)));
    let attr = volume.getattr(snapshots).unwrap();
    assert_eq!((attr.ino, attr.kind, attr.perm), (snapshots, FileKind::Directory, 0o755));
    assert_eq!((attr.nlink, attr.uid, attr.gid), (4, 0, 0));
    assert_eq!(volume.path(world.look(".firn/snapshot/one/a")), "/.firn/snapshot/one/a");
}

#[test]
fn listings_are_whole_and_lead_up_again() {
    let world = World::new();
    world.create("a");
    let roots: Vec<Ino> = (0..5).map(|n| world.snapshot(&format!("s{n}"))).collect();
    let (control, snapshots) = (world.look(".firn"), world.look(".firn/snapshot"));
    assert_eq!(world.names(Ino::ROOT), [".", "..", "a"]);
    assert_eq!(world.names(control), [".", "..", "snapshot"]);
    assert_eq!(world.names(snapshots), [".", "..", "s0", "s1", "s2", "s3", "s4"]);
    assert_eq!(world.names(roots[2]), [".", "..", "a"]);
    let above = |dir| world.list(dir, false)[1].ino;
    assert_eq!(above(control), Ino::ROOT);
    assert_eq!(above(snapshots), control);
    assert_eq!(above(roots[2]), snapshots);
    for entry in &world.list(snapshots, true)[2..] {
        assert_eq!(entry.kind, FileKind::Directory);
        assert_eq!(entry.attr.unwrap().ino, entry.ino);
        world.volume().forget(entry.ino, 1);
    }
    let forget = world.volume().set_properties(Dataset::ROOT, &[Setting::Snapdir(true)]);
    assert!(forget.unwrap().inodes.contains(&Ino::ROOT));
    assert_eq!(world.names(Ino::ROOT), [".", "..", ".firn", "a"]);
    world.volume().unlink(Ino::ROOT, b"a").unwrap();
    assert_eq!(world.names(Ino::ROOT), [".", "..", ".firn"]);
    let forget = world.volume().set_properties(Dataset::ROOT, &[Setting::Snapdir(false)]);
    assert!(forget.unwrap().inodes.contains(&Ino::ROOT));
    assert_eq!(world.names(Ino::ROOT), [".", ".."]);
}

#[test]
fn nothing_below_can_be_changed() {
    let world = World::new();
    let (volume, wait) = (world.volume(), world.wait());
    let live = world.create("a");
    world.write(live, 0, b"then");
    volume.setxattr(&ROOT, live.0, b"user.x", b"1", XattrMode::Set).unwrap();
    let root = world.snapshot("s");
    let (ino, read_only) = world.open_in(root, "a");
    let write = crate::types::OpenMode { write: true, ..READ_WRITE };
    refused(volume.open(&ROOT, ino, write, wait));
    let truncate = crate::types::OpenMode { truncate: true, ..Default::default() };
    refused(volume.open(&ROOT, ino, truncate, wait));
    let late = volume.write(&ROOT, ino, read_only, 0, b"x", false, false, wait);
    assert!(matches!(late, Err(FsError::BadHandle)));
    refused(volume.setattr(&ROOT, ino, &SetAttr { size: Some(0), ..SetAttr::default() }, wait));
    refused(volume.setattr(&ROOT, ino, &SetAttr { perm: Some(0), ..SetAttr::default() }, wait));
    refused(volume.setxattr(&ROOT, ino, b"user.x", b"2", XattrMode::Set));
    refused(volume.removexattr(&ROOT, ino, b"user.x"));
    assert_eq!(volume.getxattr(ino, b"user.x").unwrap(), b"1");
    assert_eq!(volume.listxattr(ino).unwrap(), [b"user.x".to_vec()]);
    let snapshots = world.look(".firn/snapshot");
    for dir in [root, snapshots, world.look(".firn")] {
        refused(volume.mkdir(&ROOT, dir, b"new", 0o755, 0));
        refused(volume.mknod(&ROOT, dir, b"new", 0o100_644, 0, 0));
        refused(volume.create(&ROOT, dir, b"new", 0o644, 0, READ_WRITE));
        refused(volume.symlink(&ROOT, dir, b"new", b"a"));
        refused(volume.unlink(dir, b"a"));
        refused(volume.rmdir(dir, b"s"));
        refused(volume.rename(dir, b"a", dir, b"b", RenameMode::Replace, wait));
        refused(volume.setattr(
            &ROOT,
            dir,
            &SetAttr { perm: Some(0o777), ..SetAttr::default() },
            wait,
        ));
        refused(volume.setxattr(&ROOT, dir, b"user.x", b"2", XattrMode::Set));
        let out = volume.rename(dir, b"a", Ino::ROOT, b"b", RenameMode::Replace, wait);
        assert!(matches!(out, Err(FsError::InSnapshot | FsError::CrossesDatasets)), "{out:?}");
        let into = volume.rename(Ino::ROOT, b"a", dir, b"b", RenameMode::Replace, wait);
        assert!(matches!(into, Err(FsError::InSnapshot | FsError::CrossesDatasets)), "{into:?}");
    }
    assert_eq!(volume.listxattr(snapshots).unwrap(), Vec::<Vec<u8>>::new());
    assert!(matches!(volume.getxattr(snapshots, b"user.x"), Err(FsError::NoAttribute)));
    assert!(matches!(volume.open(&ROOT, snapshots, READ_WRITE, wait), Err(FsError::IsDirectory)));
    assert!(volume.read_only_reason().is_none());
    assert_eq!(world.content_in(root, "a"), b"then");
}

#[test]
fn nobody_else_is_called_firn() {
    let world = World::new();
    let (volume, wait) = (world.volume(), world.wait());
    world.create("a");
    let refused = |outcome: FsResult<()>| {
        assert!(matches!(outcome, Err(FsError::NotPermitted)), "{outcome:?}");
    };
    let root = Ino::ROOT;
    refused(volume.mkdir(&ROOT, root, b".firn", 0o755, 0).map(drop));
    refused(volume.create(&ROOT, root, b".firn", 0o644, 0, READ_WRITE).map(drop));
    refused(volume.symlink(&ROOT, root, b".firn", b"a").map(drop));
    refused(volume.link(world.look("a"), root, b".firn").map(drop));
    refused(volume.rmdir(root, b".firn"));
    refused(volume.unlink(root, b".firn"));
    refused(volume.rename(root, b"a", root, b".firn", RenameMode::Replace, wait));
    refused(volume.rename(root, b".firn", root, b"b", RenameMode::Replace, wait));
    // Below, it is a name like any other.
    let dir = volume.mkdir(&ROOT, root, b"d", 0o755, 0).unwrap().ino;
    volume.mkdir(&ROOT, dir, b".firn", 0o755, 0).unwrap();
}

#[test]
fn the_kernel_learns_which_names_changed() {
    let world = World::new();
    let snapshots = world.look(".firn/snapshot");
    let entry = |name: &str| (snapshots, name.as_bytes().to_vec());
    let taken = world.volume().snapshot(&[Dataset::ROOT], "s", "").unwrap();
    assert_eq!(taken.forget.entries, [entry("s")]);
    assert!(taken.forget.inodes.contains(&snapshots));
    let root = world.look(".firn/snapshot/s");
    let renamed = world.volume().rename_snapshots(&[Dataset::ROOT], "s", "t").unwrap();
    assert_eq!(renamed.entries, [entry("s"), entry("t")]);
    let destroyed = world.destroy("t");
    assert_eq!(destroyed.entries, [entry("t")]);
    assert!(destroyed.inodes.contains(&root), "{destroyed:?}");
}

#[test]
fn each_dataset_has_its_own() {
    let world = World::new();
    let volume = world.volume();
    let caller = Caller::default();
    let (child, forget) = volume.create_dataset(&caller, Ino::ROOT, b"c", 0o755, &[]).unwrap();
    assert_eq!(forget.entries, [(Ino::ROOT, b"c".to_vec())]);
    let dir = world.look("c");
    let made = volume.create(&ROOT, dir, b"f", 0o644, 0, READ_WRITE).unwrap();
    world.write((made.0.ino, made.1), 0, b"child");
    volume.snapshot(&[Dataset::ROOT, child], "both", "").unwrap();
    assert_eq!(world.content_in(world.look("c/.firn/snapshot/both"), "f"), b"child");
    // In the snapshot of the dataset above it is an empty directory.
    assert_eq!(world.names(world.look(".firn/snapshot/both/c")), [".", ".."]);
    assert_eq!(volume.path(world.look("c/.firn/snapshot/both/f")), "/c/.firn/snapshot/both/f");
    assert_eq!(world.list(dir, false)[1].ino, Ino::ROOT);
    let made_there = volume.mkdir(&ROOT, dir, b".firn", 0o755, 0);
    assert!(matches!(made_there, Err(FsError::NotPermitted)));
    let across = volume.rename(dir, b"f", Ino::ROOT, b"f", RenameMode::Replace, world.wait());
    assert!(matches!(across, Err(FsError::CrossesDatasets)));
    let across = volume.link(made.0.ino, Ino::ROOT, b"f");
    assert!(matches!(across, Err(FsError::CrossesDatasets)));
    assert!(matches!(volume.rmdir(Ino::ROOT, b"c"), Err(FsError::Busy)));
    let moved = volume.rename(Ino::ROOT, b"c", Ino::ROOT, b"e", RenameMode::Replace, world.wait());
    assert!(matches!(moved, Err(FsError::Busy)));
}

#[test]
fn a_destroyed_dataset_in_use_is_stale() {
    let world = World::new();
    let volume = world.volume();
    let (child, _) = volume.create_dataset(&ROOT, Ino::ROOT, b"c", 0o755, &[]).unwrap();
    let dir = world.look("c");
    let (attr, handle) = volume.create(&ROOT, dir, b"f", 0o644, 0, READ_WRITE).unwrap();
    let file: (Ino, Handle) = (attr.ino, handle);
    world.write(file, 0, &vec![1; 1 << 20]);
    volume.snapshot(&[child], "s", "").unwrap();
    world.write(file, 0, &vec![2; 1 << 20]);
    let (clone, _) = volume.clone_snapshot(&ROOT, (child, "s"), Ino::ROOT, b"k").unwrap();
    assert_eq!(world.content_in(world.look("k"), "f"), vec![1; 1 << 20]);
    assert!(volume.destroy_datasets(&[child], true).is_err());
    drop(volume.destroy_datasets(&[clone], false).unwrap());
    let forget = volume.destroy_datasets(&[child], true).unwrap();
    assert!(forget.inodes.contains(&file.0) && forget.inodes.contains(&dir), "{forget:?}");
    assert!(forget.entries.contains(&(Ino::ROOT, b"c".to_vec())));
    let late = volume.write(&ROOT, file.0, file.1, 0, b"late", true, false, world.wait());
    assert!(matches!(late, Err(FsError::Stale)));
    assert!(matches!(volume.lookup(dir, b"f"), Err(FsError::Stale)));
    assert!(matches!(volume.lookup(Ino::ROOT, b"c"), Err(FsError::NotFound)));
    volume.release(file.0, file.1);
    volume.sync().unwrap();
    world.assert_blocks(0);
}
