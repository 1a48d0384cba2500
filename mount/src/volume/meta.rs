//! Calls on inodes and names.

use std::sync::Arc;

use firn_tiering::Wait;

use super::Volume;
use super::table::Last;
use crate::error::{FsError, FsResult};
use crate::file::node::FileState;
use crate::namespace::{Inode, Removed};
use crate::types::{Attr, Caller, DirEntry, FileKind, Ino, RenameMode, SetAttr, SetTime};

impl Volume {
    /// Attributes as programs see them: what is committed, with what is not over it.
    pub(super) fn attr(&self, ino: Ino) -> FsResult<Attr> {
        if let Some(place) = self.snapdir(ino)? {
            return self.snapdir_attr(ino, place);
        }
        match self.table.loaded(ino) {
            None => self.names.getattr(ino),
            Some(node) => {
                // The state first: a commit that ends in between has then updated both.
                let state = node.state.read();
                let mut attr = self.names.getattr(ino)?;
                state.overlay_attr(&mut attr);
                Ok(attr)
            }
        }
    }

    /// Attributes of an inode that a call is about to hand to the kernel.
    pub(super) fn entry_attr(&self, inode: &Inode) -> FsResult<Attr> {
        self.table.look_up(inode.ino);
        match self.attr(inode.ino) {
            Err(FsError::Stale) => Ok(inode.attr()),
            Err(error) => {
                self.forget_inode(inode.ino, 1);
                Err(error)
            }
            found => found,
        }
    }

    pub(super) fn forget_inode(&self, ino: Ino, count: u64) {
        if self.table.forget(ino, count) == Last::Purge {
            self.purger.purge(ino);
        }
    }

    /// The caller has passed the gate.
    pub(super) fn change_attr(
        &self,
        caller: &Caller,
        ino: Ino,
        changes: &SetAttr,
    ) -> FsResult<Attr> {
        let mut changes = *changes;
        if let Some(size) = changes.size.take() {
            let node = self.file(ino)?;
            self.resize(caller, &node, size)?;
        }
        if let Some(node) = self.table.loaded(ino) {
            let mut state = node.state.write();
            if state.is_dirty() {
                self.hold_times(&mut state, &mut changes);
            }
        }
        let nothing = changes.perm.is_none()
            && changes.uid.is_none()
            && changes.gid.is_none()
            && changes.atime.is_none()
            && changes.mtime.is_none()
            && changes.ctime.is_none();
        if !nothing {
            self.changed(self.names.setattr(caller, ino, &changes))?;
        }
        self.attr(ino)
    }

    /// Times of a file with uncommitted data are committed with it, so that no crash leaves new
    /// times on old content.
    fn hold_times(&self, state: &mut FileState, changes: &mut SetAttr) {
        let now = self.now();
        let time = |set| match set {
            SetTime::Now => now,
            SetTime::At(at) => at,
        };
        let (atime, mtime) = (changes.atime.take().map(time), changes.mtime.take().map(time));
        let ctime = changes.ctime.take();
        if atime.is_none() && mtime.is_none() && ctime.is_none() {
            return;
        }
        state.times.atime = atime.or(state.times.atime);
        state.times.mtime = mtime.or(state.times.mtime);
        state.times.ctime = Some(ctime.unwrap_or(now));
        state.touch();
    }

    pub(super) fn removed(&self, removed: &Removed) {
        if removed.is_orphan()
            && let Some(observer) = &self.observer
        {
            observer.removed(removed.inode.ino);
        }
        if removed.is_orphan() && self.table.orphaned(removed.inode.ino) == Last::Purge {
            self.purger.purge(removed.inode.ino);
        }
    }

    /// What a name refers to; `None` when there is nothing that a rename could replace, for which
    /// the rename itself has the right error.
    fn existing(&self, (parent, name): (Ino, &[u8])) -> FsResult<Option<Arc<Inode>>> {
        match self.names.lookup(parent, name) {
            Ok(inode) => Ok(Some(inode)),
            Err(error @ FsError::Io { .. }) => Err(error),
            Err(_) => Ok(None),
        }
    }

    pub(super) fn rename_entry(
        &self,
        from: (Ino, &[u8]),
        to: (Ino, &[u8]),
        mode: RenameMode,
        wait: Wait,
    ) -> FsResult<()> {
        self.check_entry(from.0, from.1)?;
        self.check_entry(to.0, to.1)?;
        self.check_writable()?;
        if mode == RenameMode::Replace
            && let Some(source) = self.existing(from)?
            && source.kind == FileKind::File
            && self.is_dirty(source.ino)
            && self.existing(to)?.is_some_and(|target| target.ino != source.ino)
        {
            self.commit_before_rename(source.ino, wait)?;
        }
        let _pass = self.change_as(from.0, wait)?;
        self.names.check_changeable(to.0)?;
        let renamed = self.changed(self.names.rename(from.0, from.1, to.0, to.1, mode))?;
        if let Some(replaced) = &renamed.replaced {
            self.removed(replaced);
        }
        Ok(())
    }

    pub(super) fn list(
        &self,
        ino: Ino,
        cookie: u64,
        plus: bool,
        sink: &mut dyn FnMut(&DirEntry) -> bool,
    ) -> FsResult<()> {
        if !plus {
            return self.entries(ino, cookie, false, sink);
        }
        let mut any = false;
        let listed = self.entries(ino, cookie, true, &mut |entry| {
            if entry.name == b"." || entry.name == b".." {
                return sink(entry);
            }
            let Some(stored) = entry.attr.or_else(|| self.attr(entry.ino).ok()) else {
                return sink(entry);
            };
            // Counted before it is handed out, so that it cannot be purged in between.
            self.table.look_up(entry.ino);
            let mut entry = entry.clone();
            entry.attr = Some(self.attr(entry.ino).unwrap_or(stored));
            let accepted = sink(&entry);
            if accepted {
                any = true;
            } else {
                self.forget_inode(entry.ino, 1);
            }
            accepted
        });
        // What was handed out is counted, so it must arrive; the error comes with the next page.
        if any { Ok(()) } else { listed }
    }
}
