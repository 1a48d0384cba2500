//! Does each call on the volume and on the reference, and compares: names and the volume as a
//! whole here, content in `content`.

mod content;
mod mirror;
mod snapshots;

use std::sync::Arc;
use std::time::Duration;

use firn_tiering::{Clock, Error as TieringError, ManualClock, Wait};

use super::super::super::Volume;
use super::super::fake::{READ_WRITE, ROOT, World, forever, quiet};
use super::observe::{TARGET, XATTR, observe};
use super::ops::{At, OPEN, Op, Rot, Slot};
use super::reference::{Meta, Reference};
use crate::core::Core;
use crate::error::{FsError, FsResult};
use crate::types::{Attr, FileKind, Handle, Ino, RenameMode, SetAttr, XattrMode};
use mirror::Mirror;
use snapshots::Saved;

/// A stack of stores below a volume.
pub(super) trait Subject: Sized {
    /// Everything can be read at once.
    const IS_HOT: bool;
    /// Another of the same kind, with nothing in it.
    fn another() -> Self;
    fn volume(&self) -> &Volume;
    fn clock(&self) -> &Arc<ManualClock>;
    fn crash(&mut self);
    /// `false` when the stack cannot show what power loss leaves.
    fn lose_power(&mut self) -> bool;
    fn remount(&mut self);
    fn fail_appends(&self, _with: Option<fn() -> TieringError>) {}
    fn move_tiers(&self) {}
    /// Whether it was like a crash.
    fn rot(&mut self, _how: Rot) -> bool {
        false
    }
    fn scrub(&self) {}
}

impl Subject for World {
    const IS_HOT: bool = true;

    fn another() -> Self {
        Self::seeded(1 << 30, quiet(), 8)
    }

    fn volume(&self) -> &Volume {
        self.volume()
    }

    fn clock(&self) -> &Arc<ManualClock> {
        &self.clock
    }

    fn crash(&mut self) {
        self.crash();
    }

    fn lose_power(&mut self) -> bool {
        self.lose_power();
        true
    }

    fn remount(&mut self) {
        self.remount();
    }

    fn fail_appends(&self, with: Option<fn() -> TieringError>) {
        self.blocks.fail_appends(with);
    }
}

/// Runs one sequence.
pub(super) fn run(subject: &mut impl Subject, ops: &[Op]) {
    let mut runner = Runner {
        subject,
        reference: Reference::new(),
        open: [None; OPEN],
        byte: 0,
        saved: Vec::new(),
        taken: 0,
        mirror: None,
    };
    for op in ops {
        runner.subject.clock().advance(Duration::from_secs(1));
        runner.step(op);
    }
    runner.check(false);
    runner.subject.remount();
    runner.open = [None; OPEN];
    runner.check(true);
    runner.digest();
    runner.check(true);
}

struct Runner<'s, S> {
    subject: &'s mut S,
    reference: Reference,
    open: [Option<(Ino, Handle)>; OPEN],
    byte: u8,
    /// What each snapshot shows for ever.
    saved: Vec<Saved>,
    taken: usize,
    mirror: Option<Mirror<S>>,
}

/// Same outcome, errors by their kind?
fn agree<T: std::fmt::Debug>(got: &FsResult<T>, wanted: Option<FsError>) {
    match (got, wanted) {
        (Ok(_), None) => {}
        (Err(got), Some(wanted))
            if std::mem::discriminant(got) == std::mem::discriminant(&wanted) => {}
        (got, wanted) => panic!("got {got:?}, wanted {wanted:?}"),
    }
}

impl<S: Subject> Runner<'_, S> {
    fn volume(&self) -> &Volume {
        self.subject.volume()
    }

    fn wait(&self) -> Wait {
        forever(self.subject.clock())
    }

    fn dir(&self, at: At) -> Ino {
        match self.reference.tree.get(Ino::ROOT, "d") {
            Some(dir) if at.deep && dir.kind == FileKind::Directory => dir.ino,
            _ => Ino::ROOT,
        }
    }

    fn place(&self, at: At) -> (Ino, &'static [u8]) {
        (self.dir(at), at.name.as_bytes())
    }

    fn find(&self, at: At) -> Option<&Meta> {
        self.reference.tree.get(self.dir(at), at.name)
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Create(..) | Op::Mkdir(_) | Op::Symlink(_) | Op::Fifo(_) => self.make(op),
            Op::Link(from, to) => self.link(from, to),
            Op::Unlink(at) => self.remove(at, false),
            Op::Rmdir(at) => self.remove(at, true),
            Op::Rename(from, to, mode) => self.rename(from, to, mode),
            Op::Chmod(..) | Op::SetXattr(..) | Op::RemoveXattr(_) => self.change_meta(op),
            Op::Open(at, slot) => self.open_slot(at, slot),
            Op::Close(slot) => self.close(slot),
            Op::Write(..)
            | Op::Append(..)
            | Op::Truncate(..)
            | Op::Fallocate(..)
            | Op::SetMtime(_) => self.change_data(op),
            Op::Copy(from, at, to, start, len) => self.copy((from, at), (to, start), len),
            Op::Read(slot, at, len) => {
                let Some((ino, handle)) = self.open[slot] else { return };
                let read = self.volume().read(ino, handle, at, len as u32, self.wait()).unwrap();
                assert!(read == self.reference.file(ino).read(at, len), "reads differ");
            }
            Op::Seek(slot, at, what) => {
                let Some((ino, handle)) = self.open[slot] else { return };
                let found = self.volume().lseek(ino, handle, at, what).ok();
                assert_eq!(found, self.reference.file(ino).seek(at, what));
            }
            _ => self.whole_volume(op),
        }
    }

    fn whole_volume(&mut self, op: &Op) {
        match *op {
            Op::Fsync(slot) => self.fsync(slot),
            Op::Flush => {
                self.volume().files.flush_all().unwrap();
                self.reference.all_committed();
            }
            Op::FlushFails => {
                // Whatever it commits all the same is one of the states that may be seen.
                self.subject.fail_appends(Some(|| TieringError::NoSpace));
                let failed = self.volume().files.flush_all();
                self.subject.fail_appends(None);
                assert!(matches!(failed, Ok(()) | Err(FsError::NoSpace)), "{failed:?}");
                // Under a fault, a file without new bytes is committed; make it certain.
                self.volume().files.flush_all().unwrap();
                self.reference.all_committed();
            }
            Op::Sync => {
                self.volume().sync_all(self.wait()).unwrap();
                self.reference.all_committed();
                self.reference.namespace_synced();
            }
            Op::Settle => {
                self.volume().files.settle_some().unwrap();
                // It flushes only when there is something to settle.
            }
            Op::Digest => self.digest(),
            Op::Free => {
                self.volume().files.free_unreferenced().unwrap();
            }
            Op::Check => self.check(false),
            Op::Crash => {
                self.subject.crash();
                self.recover(false);
            }
            Op::PowerLoss => {
                if self.subject.lose_power() {
                    self.recover(true);
                }
            }
            Op::Remount => {
                self.subject.remount();
                self.open = [None; OPEN];
                self.reference.all_committed();
                self.reference.namespace_synced();
                self.check(true);
            }
            Op::MoveTiers => self.subject.move_tiers(),
            Op::Scrub => self.subject.scrub(),
            Op::Rot(how) => {
                if self.subject.rot(how) {
                    self.recover(false);
                }
            }
            Op::Snapshot => self.snapshot(),
            Op::Destroy(which) => self.destroy(which),
            Op::Rollback(which) => self.rollback(which),
            Op::Mirror(which, cut) => self.mirror(which, cut),
            ref other => panic!("{other:?} is no such call"),
        }
    }

    /// Computes digests, more eagerly than a volume does, so that there are some to be wrong; of what
    /// lies hot all have one afterwards.
    fn digest(&self) {
        let volume = self.volume();
        volume.digester.compute_all().unwrap();
        if S::IS_HOT {
            let files = self.reference.tree.listing().into_values();
            for Meta { ino, .. } in files.filter(|meta| meta.kind == FileKind::File) {
                let inode = volume.names().inode(ino).unwrap();
                assert!(inode.content_digest().is_some(), "{ino:?} has no digest");
            }
        }
        self.seal();
    }

    fn fsync(&mut self, slot: Slot) {
        let Some((ino, handle)) = self.open[slot] else { return };
        let mut done = self.volume().fsync(ino, handle, false, self.wait());
        if matches!(done, Err(FsError::NoSpace)) {
            // An injected failure, told once.
            done = self.volume().fsync(ino, handle, false, self.wait());
        }
        done.unwrap();
        self.reference.committed(ino);
        self.reference.namespace_synced();
    }

    fn recover(&mut self, lost_power: bool) {
        self.open = [None; OPEN];
        let view = observe(self.volume(), self.wait());
        let recovered = self
            .reference
            .recovered(&view.listing, lost_power, |ino, state| view.files[&ino].is(state));
        if let Err(why) = recovered {
            panic!("after {}: {why}", if lost_power { "power loss" } else { "a crash" });
        }
        self.check_snapshots();
    }

    /// Compares everything; `at_rest` when nothing is uncommitted.
    fn check(&self, at_rest: bool) {
        let view = observe(self.volume(), self.wait());
        assert_eq!(view.listing, self.reference.tree.listing());
        for (ino, seen) in &view.files {
            let state = self.reference.file(*ino);
            assert!(seen.is(state), "{ino:?} shows not {state:#?}");
            if at_rest {
                assert_eq!(seen.blocks(), state.allocated().div_ceil(512), "{ino:?}: {state:#?}");
            }
        }
        self.check_snapshots();
    }

    fn made(&mut self, at: At, attr: &Attr, perm: u16) {
        let dir = self.dir(at);
        let nlink = if attr.kind == FileKind::Directory { 2 } else { 1 };
        let (ino, kind) = (attr.ino, attr.kind);
        let meta = Meta { ino, kind, perm, nlink, xattr: None };
        self.reference.tree.inodes.insert(ino, meta);
        self.reference.tree.add(dir, at.name, ino);
        self.reference.tree_changed();
        self.volume().forget(ino, 1);
    }

    fn make(&mut self, op: &Op) {
        let (at, perm) = match *op {
            Op::Create(at, _) => (at, 0o644),
            Op::Mkdir(at) => (at, 0o755),
            Op::Symlink(at) => (at, 0o777),
            Op::Fifo(at) => (at, 0o600),
            _ => unreachable!("the caller passes these only"),
        };
        let (dir, name) = self.place(at);
        let exists = self.find(at).is_some().then_some(FsError::Exists);
        let volume = self.subject.volume();
        let mut opened = None;
        let made = match *op {
            Op::Create(..) => {
                volume.create(&ROOT, dir, name, perm, 0, READ_WRITE).map(|(attr, handle)| {
                    opened = Some(handle);
                    attr
                })
            }
            Op::Mkdir(_) => volume.mkdir(&ROOT, dir, name, perm, 0),
            Op::Symlink(_) => volume.symlink(&ROOT, dir, name, TARGET),
            _ => volume.mknod(&ROOT, dir, name, 0o010_000 | perm, 0, 0),
        };
        agree(&made, exists);
        let Ok(attr) = made else { return };
        if let (Op::Create(_, slot), Some(handle)) = (op, opened) {
            self.close(*slot);
            self.open[*slot] = Some((attr.ino, handle));
            self.reference.add_file(attr.ino, self.subject.clock().now());
        }
        self.made(at, &attr, perm as u16);
    }

    fn link(&mut self, from: At, to: At) {
        let Some(source) = self.find(from).cloned() else { return };
        let (dir, name) = self.place(to);
        let wanted = match self.find(to) {
            _ if source.kind == FileKind::Directory => Some(FsError::NotPermitted),
            Some(_) => Some(FsError::Exists),
            None => None,
        };
        let linked = self.volume().link(source.ino, dir, name);
        agree(&linked, wanted);
        if linked.is_ok() {
            self.volume().forget(source.ino, 1);
            self.reference.tree.inodes.get_mut(&source.ino).unwrap().nlink += 1;
            self.reference.tree.add(dir, to.name, source.ino);
            self.reference.tree_changed();
        }
    }

    fn remove(&mut self, at: At, as_dir: bool) {
        let (dir, name) = self.place(at);
        let is_dir = |meta: &Meta| meta.kind == FileKind::Directory;
        let wanted = match self.find(at) {
            None => Some(FsError::NotFound),
            Some(meta) if as_dir && !is_dir(meta) => Some(FsError::NotDirectory),
            Some(meta) if !as_dir && is_dir(meta) => Some(FsError::IsDirectory),
            Some(meta) if as_dir && !self.reference.tree.is_empty(meta.ino) => {
                Some(FsError::NotEmpty)
            }
            Some(_) => None,
        };
        let removed = match as_dir {
            true => self.volume().rmdir(dir, name),
            false => self.volume().unlink(dir, name),
        };
        agree(&removed, wanted);
        if removed.is_ok() {
            let ino = self.reference.tree.take(dir, at.name).unwrap();
            self.reference.tree.drop_link(ino);
            self.reference.tree_changed();
        }
    }

    fn rename(&mut self, from: At, to: At, mode: RenameMode) {
        let (from_dir, from_name) = self.place(from);
        let (to_dir, to_name) = self.place(to);
        let wait = self.wait();
        let wanted = self.rename_outcome(from, to, mode);
        let volume = self.subject.volume();
        let renamed = volume.rename(from_dir, from_name, to_dir, to_name, mode, wait);
        let (source, target) = (self.find(from).cloned(), self.find(to).cloned());
        agree(&renamed, wanted);
        let (Ok(()), Some(source)) = (renamed, source) else { return };
        let tree = &mut self.reference.tree;
        if target.as_ref().is_some_and(|target| target.ino == source.ino) {
            return;
        }
        tree.take(from_dir, from.name);
        tree.take(to_dir, to.name);
        match (&target, mode) {
            (Some(target), RenameMode::Exchange) => tree.add(from_dir, from.name, target.ino),
            (Some(target), _) => {
                if source.kind == FileKind::File {
                    // Its data goes first.
                    self.reference.committed(source.ino);
                }
                self.reference.tree.drop_link(target.ino);
            }
            (None, _) => {}
        }
        self.reference.tree.add(to_dir, to.name, source.ino);
        self.reference.tree_changed();
    }

    fn rename_outcome(&self, from: At, to: At, mode: RenameMode) -> Option<FsError> {
        let tree = &self.reference.tree;
        let (from_dir, to_dir) = (self.dir(from), self.dir(to));
        let Some(source) = self.find(from) else { return Some(FsError::NotFound) };
        let is_dir = |meta: &Meta| meta.kind == FileKind::Directory;
        let target = self.find(to);
        if target.is_some() && mode == RenameMode::NoReplace {
            return Some(FsError::Exists);
        }
        if target.is_some_and(|target| target.ino == source.ino) {
            return None;
        }
        if is_dir(source) && tree.is_within(to_dir, source.ino) {
            return Some(FsError::Invalid("below itself"));
        }
        let Some(target) = target else {
            return (mode == RenameMode::Exchange).then_some(FsError::NotFound);
        };
        if mode == RenameMode::Exchange {
            let below = is_dir(target) && tree.is_within(from_dir, target.ino);
            return below.then_some(FsError::Invalid("below itself"));
        }
        match (is_dir(source), is_dir(target)) {
            (true, false) => Some(FsError::NotDirectory),
            (false, true) => Some(FsError::IsDirectory),
            (true, true) if !tree.is_empty(target.ino) => Some(FsError::NotEmpty),
            _ => None,
        }
    }

    fn change_meta(&mut self, op: &Op) {
        let (Op::Chmod(at, _) | Op::SetXattr(at, _) | Op::RemoveXattr(at)) = *op else { return };
        let Some(meta) = self.find(at).cloned() else { return };
        let volume = self.subject.volume();
        let plain = matches!(meta.kind, FileKind::File | FileKind::Directory);
        let no_xattr = (!plain).then_some(FsError::NotPermitted);
        let wait = self.wait();
        let mut new = meta.clone();
        match *op {
            Op::Chmod(_, perm) => {
                new.perm = perm;
                let changes = SetAttr { perm: Some(perm), ..SetAttr::default() };
                let attr = volume.setattr(&ROOT, meta.ino, &changes, wait).unwrap();
                assert_eq!(attr.perm, perm);
            }
            Op::SetXattr(_, value) => {
                let set = volume.setxattr(&ROOT, meta.ino, XATTR, &[value], XattrMode::Set);
                new.xattr = if set.is_ok() { Some(value) } else { None };
                agree(&set, no_xattr);
            }
            _ => {
                let missing = meta.xattr.is_none().then_some(FsError::NoAttribute);
                let removed = volume.removexattr(&ROOT, meta.ino, XATTR);
                new.xattr = None;
                agree(&removed, no_xattr.or(missing));
            }
        }
        if new != meta {
            self.reference.tree.inodes.insert(meta.ino, new);
            self.reference.tree_changed();
        }
    }

    fn open_slot(&mut self, at: At, slot: Slot) {
        let Some(meta) = self.find(at).cloned() else { return };
        let wanted = match meta.kind {
            FileKind::File => None,
            FileKind::Directory => Some(FsError::IsDirectory),
            _ => Some(FsError::Invalid("")),
        };
        let opened = self.volume().open(&ROOT, meta.ino, READ_WRITE, self.wait());
        agree(&opened, wanted);
        if let Ok(handle) = opened {
            self.close(slot);
            self.open[slot] = Some((meta.ino, handle));
        }
    }

    fn close(&mut self, slot: Slot) {
        if let Some((ino, handle)) = self.open[slot].take() {
            self.volume().release(ino, handle);
        }
    }
}
