//! The filesystem as plain methods on plain types: what the FUSE adapter, tests, benchmarks and
//! bulk migration call.

use std::sync::Arc;

use bytes::Bytes;
use firn_tiering::Wait;

use crate::error::FsResult;
use crate::thaw::Plain;
use crate::types::{
    Attr, Caller, DirEntry, Fallocate, FsStats, Handle, Ino, OpenMode, RenameMode, Seek, SetAttr,
    XattrMode,
};

/// A filesystem. Every method may be called from any number of threads at once.
///
/// Methods with a [`Wait`] answer [`crate::FsError::WouldWait`] under [`Wait::No`] when they would
/// have to wait for the cold tier, for memory, for space, for a snapshot that is being taken or for
/// more than one sync of the local log, *without having changed anything*; the caller asks again
/// from a thread that may block. All others finish from memory and local disk, or wait for a moment
/// while a snapshot is taken.
pub trait Core: Send + Sync + 'static {
    /// The entry `name` of directory `parent`. Counts one reference on the inode, as do all
    /// methods that return an [`Attr`] of a new or looked-up entry (`mknod`, `mkdir`, `symlink`,
    /// `link`, `create`, and each entry of `readdir` that carries an attribute).
    fn lookup(&self, parent: Ino, name: &[u8]) -> FsResult<Attr>;
    /// Drops `count` references.
    fn forget(&self, ino: Ino, count: u64);
    /// Attributes.
    fn getattr(&self, ino: Ino) -> FsResult<Attr>;
    /// Changes attributes; `setuid`/`setgid` are cleared as POSIX says.
    fn setattr(&self, caller: &Caller, ino: Ino, changes: &SetAttr, wait: Wait) -> FsResult<Attr>;
    /// Target of a symbolic link.
    fn readlink(&self, ino: Ino) -> FsResult<Vec<u8>>;
    /// Creates a file, fifo, socket or device. `mode` is `S_IFMT | permission bits`; `umask`
    /// applies where the parent has no default ACL.
    fn mknod(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        mode: u32,
        umask: u32,
        rdev: u32,
    ) -> FsResult<Attr>;
    /// Creates a directory.
    fn mkdir(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        mode: u32,
        umask: u32,
    ) -> FsResult<Attr>;
    /// Removes an entry that is not a directory.
    fn unlink(&self, parent: Ino, name: &[u8]) -> FsResult<()>;
    /// Removes an empty directory.
    fn rmdir(&self, parent: Ino, name: &[u8]) -> FsResult<()>;
    /// Creates a symbolic link.
    fn symlink(&self, caller: &Caller, parent: Ino, name: &[u8], target: &[u8]) -> FsResult<Attr>;
    /// Renames. Data of a file that replaces another is committed first.
    fn rename(
        &self,
        parent: Ino,
        name: &[u8],
        new_parent: Ino,
        new_name: &[u8],
        mode: RenameMode,
        wait: Wait,
    ) -> FsResult<()>;
    /// Creates a hard link.
    fn link(&self, ino: Ino, new_parent: Ino, new_name: &[u8]) -> FsResult<Attr>;

    /// Opens a file.
    fn open(&self, caller: &Caller, ino: Ino, mode: OpenMode, wait: Wait) -> FsResult<Handle>;
    /// Creates and opens a regular file; `FsError::Exists` when the name is taken.
    fn create(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        mode: u32,
        umask: u32,
        open: OpenMode,
    ) -> FsResult<(Attr, Handle)>;
    /// The plain copy of a file that nothing can change, where it has one: whoever opens the file for
    /// reading only may read that instead. Held, it stays.
    fn plain(&self, _ino: Ino, _wait: Wait) -> FsResult<Option<Arc<Plain>>> {
        Ok(None)
    }
    /// Nobody will ask for plain copies any more, since they could not be used.
    fn end_plain(&self) {}
    /// Up to `len` bytes from `offset`; fewer only at the end of the file.
    fn read(&self, ino: Ino, handle: Handle, offset: u64, len: u32, wait: Wait) -> FsResult<Bytes>;
    /// Writes all of `data`. `from_cache` says that the kernel's page cache sends it, so that
    /// `caller` is not the one who wrote; `kill_privileges` asks to clear setuid and setgid.
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
    ) -> FsResult<u32>;
    /// A descriptor of the handle was closed: reports write errors.
    fn flush(&self, ino: Ino, handle: Handle, wait: Wait) -> FsResult<()>;
    /// The handle is gone.
    fn release(&self, ino: Ino, handle: Handle);
    /// Makes content (and, unless `data_only`, all attributes) durable.
    fn fsync(&self, ino: Ino, handle: Handle, data_only: bool, wait: Wait) -> FsResult<()>;
    /// Allocates, punches or zeroes.
    fn fallocate(
        &self,
        caller: &Caller,
        ino: Ino,
        handle: Handle,
        offset: u64,
        len: u64,
        what: Fallocate,
        wait: Wait,
    ) -> FsResult<()>;
    /// The next data or hole at or after `offset`; `FsError::NoOffset` behind the end.
    fn lseek(&self, ino: Ino, handle: Handle, offset: u64, what: Seek) -> FsResult<u64>;
    /// Copies by sharing blocks; returns the bytes copied, fewer at the end of the source.
    fn copy_file_range(
        &self,
        caller: &Caller,
        from: (Ino, Handle, u64),
        to: (Ino, Handle, u64),
        len: u64,
        wait: Wait,
    ) -> FsResult<u64>;

    /// Opens a directory.
    fn opendir(&self, ino: Ino) -> FsResult<Handle>;
    /// Passes entries behind `cookie` (0: from the start, with `.` and `..`) to `sink` until it
    /// returns `false`; an entry that was refused comes first next time. With `plus`, entries
    /// carry attributes and count a reference each once accepted.
    fn readdir(
        &self,
        ino: Ino,
        handle: Handle,
        cookie: u64,
        plus: bool,
        sink: &mut dyn FnMut(&DirEntry) -> bool,
    ) -> FsResult<()>;
    /// The directory handle is gone.
    fn releasedir(&self, ino: Ino, handle: Handle);
    /// Makes the directory's entries durable.
    fn fsyncdir(&self, ino: Ino, wait: Wait) -> FsResult<()>;
    /// Everything acknowledged before the call is durable when it returns.
    fn sync_all(&self, wait: Wait) -> FsResult<()>;
    /// Capacity, as programs in the dataset of `ino` see it.
    fn statfs(&self, ino: Ino) -> FsResult<FsStats>;

    /// Sets an extended attribute; ACLs (`system.posix_acl_access`, `_default`) are validated and
    /// change the mode, and clear setgid where POSIX says.
    fn setxattr(
        &self,
        caller: &Caller,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> FsResult<()>;
    /// Value of an extended attribute.
    fn getxattr(&self, ino: Ino, name: &[u8]) -> FsResult<Vec<u8>>;
    /// Names of all extended attributes that a listing shows.
    fn listxattr(&self, ino: Ino) -> FsResult<Vec<Vec<u8>>>;
    /// Removes an extended attribute.
    fn removexattr(&self, caller: &Caller, ino: Ino, name: &[u8]) -> FsResult<()>;
}
