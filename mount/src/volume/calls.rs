//! [`Core`] for a [`Volume`]: each call in a few lines.

use std::sync::Arc;

use bytes::Bytes;
use firn_tiering::Wait;

use super::data::Write;
use super::virtual_xattr::{PIN_NAME, is_virtual};
use super::{Volume, must_wait};
use crate::core::Core;
use crate::error::{FsError, FsResult};
use crate::thaw::Plain;
use crate::types::{
    Attr, Caller, DirEntry, Fallocate, FsStats, Handle, Ino, OpenMode, Pin, RenameMode, Seek,
    SetAttr, XattrMode,
};

/// Handle of every open directory: listings keep no state.
const DIRECTORY: Handle = Handle(0);

/// Inode numbers are never used up in practice; programs want a number.
const INODES: u64 = 1 << 40;

impl Core for Volume {
    fn lookup(&self, parent: Ino, name: &[u8]) -> FsResult<Attr> {
        if let Some(attr) = self.lookup_snapdir(parent, name)? {
            return Ok(attr);
        }
        let inode = self.logged(parent, self.names.lookup(parent, name))?;
        self.entry_attr(&inode)
    }

    fn forget(&self, ino: Ino, count: u64) {
        self.forget_inode(ino, count);
    }

    fn getattr(&self, ino: Ino) -> FsResult<Attr> {
        self.logged(ino, self.attr(ino))
    }

    fn setattr(&self, caller: &Caller, ino: Ino, changes: &SetAttr, wait: Wait) -> FsResult<Attr> {
        let _pass = self.change_as(ino, wait)?;
        self.change_attr(caller, ino, changes)
    }

    fn readlink(&self, ino: Ino) -> FsResult<Vec<u8>> {
        self.logged(ino, self.names.readlink(ino))
    }

    fn mknod(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        mode: u32,
        umask: u32,
        rdev: u32,
    ) -> FsResult<Attr> {
        let _pass = self.change_entry(parent, name)?;
        self.admit_entry(parent)?;
        let made = self.names.mknod(caller, parent, name, mode, umask, rdev);
        self.entry_attr(&*self.changed(made)?)
    }

    fn mkdir(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        mode: u32,
        umask: u32,
    ) -> FsResult<Attr> {
        let _pass = self.change_entry(parent, name)?;
        self.admit_entry(parent)?;
        let made = self.names.mkdir(caller, parent, name, mode, umask);
        self.entry_attr(&*self.changed(made)?)
    }

    fn unlink(&self, parent: Ino, name: &[u8]) -> FsResult<()> {
        let _pass = self.change_entry(parent, name)?;
        let removed = self.changed(self.names.unlink(parent, name))?;
        self.removed(&removed);
        Ok(())
    }

    fn rmdir(&self, parent: Ino, name: &[u8]) -> FsResult<()> {
        let _pass = self.change_entry(parent, name)?;
        let removed = self.changed(self.names.rmdir(parent, name))?;
        self.removed(&removed);
        Ok(())
    }

    fn symlink(&self, caller: &Caller, parent: Ino, name: &[u8], target: &[u8]) -> FsResult<Attr> {
        let _pass = self.change_entry(parent, name)?;
        self.admit_entry(parent)?;
        let made = self.names.symlink(caller, parent, name, target);
        self.entry_attr(&*self.changed(made)?)
    }

    fn rename(
        &self,
        parent: Ino,
        name: &[u8],
        new_parent: Ino,
        new_name: &[u8],
        mode: RenameMode,
        wait: Wait,
    ) -> FsResult<()> {
        self.rename_entry((parent, name), (new_parent, new_name), mode, wait)
    }

    fn link(&self, ino: Ino, new_parent: Ino, new_name: &[u8]) -> FsResult<Attr> {
        self.check_stored(ino)?;
        let _pass = self.change_entry(new_parent, new_name)?;
        let linked = self.names.link(ino, new_parent, new_name);
        self.entry_attr(&*self.changed(linked)?)
    }

    fn open(&self, caller: &Caller, ino: Ino, mode: OpenMode, wait: Wait) -> FsResult<Handle> {
        self.open_file(caller, ino, mode, wait)
    }

    fn create(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        mode: u32,
        umask: u32,
        open: OpenMode,
    ) -> FsResult<(Attr, Handle)> {
        let _pass = self.change_entry(parent, name)?;
        self.admit_entry(parent)?;
        let regular = mode & 0o7777;
        let made = self.names.mknod(caller, parent, name, regular, umask, 0);
        let inode = self.changed(made)?;
        let handle = self.open_new(caller, &inode, open)?;
        match self.entry_attr(&inode) {
            Ok(attr) => Ok((attr, handle)),
            Err(error) => {
                self.close_file(inode.ino, handle);
                Err(error)
            }
        }
    }

    fn plain(&self, ino: Ino, wait: Wait) -> FsResult<Option<Arc<Plain>>> {
        self.thawer.as_ref().map_or(Ok(None), |thawer| thawer.plain(ino, wait))
    }

    fn end_plain(&self) {
        if let Some(thawer) = &self.thawer {
            thawer.give_up();
        }
    }

    fn read(&self, ino: Ino, handle: Handle, offset: u64, len: u32, wait: Wait) -> FsResult<Bytes> {
        self.read_file(ino, handle, offset, len, wait)
    }

    fn write(
        &self,
        caller: &Caller,
        ino: Ino,
        handle: Handle,
        offset: u64,
        data: &[u8],
        from_cache: bool,
        kill_privileges: bool,
        wait: Wait,
    ) -> FsResult<u32> {
        let write = Write { offset, data, from_cache, kill_privileges };
        self.write_file(caller, ino, handle, write, wait)
    }

    fn flush(&self, ino: Ino, handle: Handle, wait: Wait) -> FsResult<()> {
        self.flush_file(ino, handle, wait)
    }

    fn release(&self, ino: Ino, handle: Handle) {
        self.close_file(ino, handle);
    }

    fn fsync(&self, ino: Ino, handle: Handle, _data_only: bool, wait: Wait) -> FsResult<()> {
        self.fsync_file(ino, handle, wait)
    }

    fn fallocate(
        &self,
        caller: &Caller,
        ino: Ino,
        handle: Handle,
        offset: u64,
        len: u64,
        what: Fallocate,
        wait: Wait,
    ) -> FsResult<()> {
        self.allocate_file(caller, ino, handle, (offset, len), what, wait)
    }

    fn lseek(&self, ino: Ino, handle: Handle, offset: u64, what: Seek) -> FsResult<u64> {
        self.seek_file(ino, handle, offset, what)
    }

    fn copy_file_range(
        &self,
        caller: &Caller,
        from: (Ino, Handle, u64),
        to: (Ino, Handle, u64),
        len: u64,
        wait: Wait,
    ) -> FsResult<u64> {
        self.copy_file(caller, from, to, len, wait)
    }

    fn opendir(&self, ino: Ino) -> FsResult<Handle> {
        if self.snapdir(ino)?.is_some() {
            return Ok(DIRECTORY);
        }
        match self.names.inode(ino)?.is_dir() {
            true => Ok(DIRECTORY),
            false => Err(FsError::NotDirectory),
        }
    }

    fn readdir(
        &self,
        ino: Ino,
        _: Handle,
        cookie: u64,
        plus: bool,
        sink: &mut dyn FnMut(&DirEntry) -> bool,
    ) -> FsResult<()> {
        self.logged(ino, self.list(ino, cookie, plus, sink))
    }

    fn releasedir(&self, _: Ino, _: Handle) {}

    fn fsyncdir(&self, _: Ino, wait: Wait) -> FsResult<()> {
        must_wait(wait)?;
        self.changed(self.names.sync())
    }

    fn sync_all(&self, wait: Wait) -> FsResult<()> {
        must_wait(wait)?;
        self.changed(self.sync())
    }

    fn statfs(&self, ino: Ino) -> FsResult<FsStats> {
        let space = self.space_at(ino)?;
        Ok(FsStats {
            total_bytes: space.total_bytes,
            free_bytes: space.free_bytes,
            inodes_total: INODES,
            inodes_free: INODES,
        })
    }

    fn setxattr(
        &self,
        caller: &Caller,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> FsResult<()> {
        let _pass = self.change(ino)?;
        if is_virtual(name) {
            return Err(FsError::NotSupported("user.firn.* is read-only"));
        }
        if name == PIN_NAME {
            Pin::parse(value).ok_or(FsError::Invalid("a pin is hot or cold"))?;
        }
        self.changed(self.names.setxattr(caller, ino, name, value, mode))?;
        self.pin_changed(ino, name);
        if name.starts_with(b"security.")
            && let Some(node) = self.table.loaded(ino)
        {
            node.state.write().no_capability = false;
        }
        Ok(())
    }

    fn getxattr(&self, ino: Ino, name: &[u8]) -> FsResult<Vec<u8>> {
        if self.snapdir(ino)?.is_some() {
            return Err(FsError::NoAttribute);
        }
        match is_virtual(name) {
            true => self.virtual_xattr(ino, name),
            false => self.names.getxattr(ino, name),
        }
    }

    fn listxattr(&self, ino: Ino) -> FsResult<Vec<Vec<u8>>> {
        match self.snapdir(ino)? {
            Some(_) => Ok(Vec::new()),
            None => self.names.listxattr(ino),
        }
    }

    fn removexattr(&self, caller: &Caller, ino: Ino, name: &[u8]) -> FsResult<()> {
        let _pass = self.change(ino)?;
        if is_virtual(name) {
            return Err(FsError::NotSupported("user.firn.* is read-only"));
        }
        self.changed(self.names.removexattr(caller, ino, name))?;
        self.pin_changed(ino, name);
        Ok(())
    }
}
