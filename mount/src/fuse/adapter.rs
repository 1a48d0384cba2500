//! The callbacks: each unpacks its arguments, asks the core and passes the answer on.
//!
//! A call with a [`Wait`] is tried under [`Wait::No`] on the thread that received it and, when it
//! would wait, asked again elsewhere under its own deadline. Requests that the kernel sends only
//! after a capability was negotiated, and none that fuser 0.18 cannot parse, are answered here.

mod ask;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use firn_tiering::Wait;
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, FopenFlags, INodeNo,
    InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier,
    RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use self::ask::EVERYBODY;
use super::convert::{self, caller, ino};
use super::kernel_cache::KernelCache;
use super::receivers::Receivers;
use super::reply::{FileReply, LookupReply, OpenReply, SizedReply, TTL, settle};
use super::requests::Opcode;
use super::waiters::{Kind, Waiters};
use crate::core::Core;
use crate::error::FsError;
use crate::types::{Handle, SetAttr};

/// Largest read or write request in bytes.
const MAX_REQUEST: u32 = 1 << 20;

/// Requests that the kernel may have in flight on behalf of nobody: read-ahead and write-back.
/// Times [`MAX_REQUEST`] this bounds what waiting writes hold in memory.
const MAX_BACKGROUND: u16 = 32;

/// What is asked of the kernel, each if it has it, beside what the way of caching needs.
///
/// Deliberately absent: lock capabilities (the kernel's own locks are right for a single mount),
/// `SETXATTR_EXT` (fuser 0.18 does not parse its longer request), `AUTO_INVAL_DATA` (nobody else
/// changes files), `ABORT_ERROR` (an ended connection is no error), and those of later sessions.
const WANTED: [InitFlags; 11] = [
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    // The core applies the umask, since it must not where a default ACL stands.
    InitFlags::FUSE_DONT_MASK,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_POSIX_ACL,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_EXPLICIT_INVAL_DATA,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_MAX_PAGES,
];

/// Serves one mount of a core.
#[derive(Debug)]
pub(super) struct Adapter<C> {
    core: Arc<C>,
    cache: KernelCache,
    waiters: Waiters,
    receivers: Receivers,
    writeback: bool,
    opens_directories: bool,
}

impl<C: Core> Adapter<C> {
    pub(super) fn new(
        core: Arc<C>,
        cache: KernelCache,
        waiters: Waiters,
        receivers: Receivers,
    ) -> Self {
        Self { core, cache, waiters, receivers, writeback: false, opens_directories: true }
    }
}

impl<C: Core> fuser::Filesystem for Adapter<C> {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let mode = self.cache.passthrough().wanted_capability();
        for capability in WANTED.into_iter().chain([mode]) {
            if config.add_capabilities(capability).is_err() {
                tracing::debug!(?capability, "not offered by this kernel");
            }
        }
        self.cache.passthrough().negotiated(config);
        self.writeback =
            mode == InitFlags::FUSE_WRITEBACK_CACHE && config.capabilities().contains(mode);
        self.opens_directories =
            !config.capabilities().contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT);
        // Out of range only if the library's own limits change; its defaults work, too.
        let limited = config.set_max_write(MAX_REQUEST).is_ok()
            && config.set_max_background(MAX_BACKGROUND).is_ok();
        if !limited {
            tracing::warn!("request limits stay at their defaults");
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _serving = self.serving(Opcode::Lookup);
        let outcome = self.core.lookup(ino(parent), name.as_bytes());
        settle("lookup", ino(parent), outcome, LookupReply(reply));
    }

    fn forget(&self, _: &Request, node: INodeNo, count: u64) {
        self.cache.asked(Opcode::Forget);
        self.core.forget(ino(node), count);
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let _serving = self.serving(Opcode::Getattr);
        settle("getattr", ino(node), self.core.getattr(ino(node)), reply);
    }

    fn setattr(
        &self,
        request: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let _serving = self.serving(Opcode::Setattr);
        let (caller, node) = (caller(request), ino(node));
        let changes = SetAttr {
            perm: mode.map(|mode| (mode & 0o7777) as u16),
            uid,
            gid,
            size,
            atime: atime.map(convert::set_time),
            mtime: mtime.map(convert::set_time),
            ctime: ctime.map(convert::repaired),
        };
        self.ask(Kind::Write, "setattr", node, reply, move |core, wait| {
            core.setattr(&caller, node, &changes, wait)
        });
    }

    fn readlink(&self, _: &Request, node: INodeNo, reply: ReplyData) {
        let _serving = self.serving(Opcode::Readlink);
        settle("readlink", ino(node), self.core.readlink(ino(node)).map(Bytes::from), reply);
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let _serving = self.serving(Opcode::Mknod);
        let (caller, parent) = (caller(request), ino(parent));
        let outcome = self.core.mknod(&caller, parent, name.as_bytes(), mode, umask, rdev);
        settle("mknod", parent, outcome, reply);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let _serving = self.serving(Opcode::Mkdir);
        let (caller, parent) = (caller(request), ino(parent));
        let outcome = self.core.mkdir(&caller, parent, name.as_bytes(), mode, umask);
        settle("mkdir", parent, outcome, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _serving = self.serving(Opcode::Unlink);
        settle("unlink", ino(parent), self.core.unlink(ino(parent), name.as_bytes()), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _serving = self.serving(Opcode::Rmdir);
        settle("rmdir", ino(parent), self.core.rmdir(ino(parent), name.as_bytes()), reply);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let _serving = self.serving(Opcode::Symlink);
        let target = target.as_os_str().as_bytes();
        let outcome = self.core.symlink(&caller(request), ino(parent), name.as_bytes(), target);
        settle("symlink", ino(parent), outcome, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let _serving = self.serving(Opcode::Rename);
        let (parent, new_parent) = (ino(parent), ino(new_parent));
        let mode = match convert::rename_mode(flags) {
            Ok(mode) => mode,
            Err(error) => return settle("rename", parent, Err(error), reply),
        };
        let (name, new_name) = (name.as_bytes().to_vec(), new_name.as_bytes().to_vec());
        self.ask(Kind::Sync, "rename", parent, reply, move |core, wait| {
            core.rename(parent, &name, new_parent, &new_name, mode, wait)
        });
    }

    fn link(
        &self,
        _: &Request,
        node: INodeNo,
        new_parent: INodeNo,
        new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        let _serving = self.serving(Opcode::Link);
        let outcome = self.core.link(ino(node), ino(new_parent), new_name.as_bytes());
        settle("link", ino(node), outcome, reply);
    }

    fn open(&self, request: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let _serving = self.serving(Opcode::Open);
        let (caller, node, cache) = (caller(request), ino(node), self.cache.clone());
        let mode = convert::open_mode(flags, self.writeback);
        let direct = flags.0 & libc::O_DIRECT != 0;
        let reply = FileReply { reply, cache: cache.clone(), ino: node, direct };
        self.ask(Kind::Write, "open", node, reply, move |core, wait| {
            let changes = mode.write || mode.truncate;
            let plain = match cache.passthrough().is_permitted() {
                Some(true) if !changes => core.plain(node, wait)?,
                Some(false) => {
                    core.end_plain();
                    None
                }
                _ => None,
            };
            if !changes {
                cache.passthrough().check_open(node, changes)?;
            }
            let handle = core.open(&caller, node, mode, wait)?;
            if changes && let Err(error) = cache.passthrough().check_open(node, changes) {
                core.release(node, handle);
                return Err(error);
            }
            if mode.write {
                cache.writer_opened(node);
            }
            Ok((handle, plain))
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let _serving = self.serving(Opcode::Create);
        let (caller, parent) = (caller(request), ino(parent));
        let open = convert::open_mode(OpenFlags(flags), self.writeback);
        let outcome = self.core.create(&caller, parent, name.as_bytes(), mode, umask, open);
        if let (Ok((attr, _)), true) = (&outcome, open.write) {
            self.cache.writer_opened(attr.ino);
        }
        if let Ok((attr, _)) = &outcome {
            self.cache.passthrough().created(attr.ino);
        }
        settle("create", parent, outcome, reply);
    }

    fn read(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        len: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let _serving = self.moving(Opcode::Read, len as usize);
        let (node, handle) = (ino(node), Handle(handle.0));
        self.ask_for(request.uid(), Kind::Read, "read", node, reply, move |core, wait| {
            core.read(node, handle, offset, len, wait)
        });
    }

    fn write(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let _serving = self.moving(Opcode::Write, data.len());
        let (caller, node, handle) = (caller(request), ino(node), Handle(handle.0));
        let from_cache = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let kill = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let cache = self.cache.clone();
        let write = move |core: &C, data: &[u8], wait| {
            let done = core.write(&caller, node, handle, offset, data, from_cache, kill, wait);
            done.inspect_err(|error| {
                // Otherwise the writer has the answer.
                if from_cache {
                    cache.write_refused(node, error);
                }
            })
        };
        match write(&self.core, data, Wait::No) {
            Err(FsError::WouldWait) => {
                let data = Bytes::copy_from_slice(data);
                self.ask_elsewhere(
                    EVERYBODY,
                    Kind::Write,
                    "write",
                    node,
                    reply,
                    move |core, wait| write(core, &data, wait),
                );
            }
            outcome => settle("write", node, outcome, reply),
        }
    }

    fn flush(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        _: LockOwner,
        reply: ReplyEmpty,
    ) {
        let _serving = self.serving(Opcode::Flush);
        let (node, handle) = (ino(node), Handle(handle.0));
        // The kernel asks only when it has no failure to tell itself.
        self.cache.told(node);
        self.ask(Kind::Sync, "flush", node, reply, move |core, wait| {
            core.flush(node, handle, wait)
        });
    }

    fn release(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        flags: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let _serving = self.serving(Opcode::Release);
        if convert::writes(flags) {
            self.cache.writer_closed(ino(node));
        }
        self.cache.passthrough().released(ino(node));
        self.core.release(ino(node), Handle(handle.0));
        reply.ok();
    }

    fn fsync(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        let _serving = self.serving(Opcode::Fsync);
        let (node, handle) = (ino(node), Handle(handle.0));
        self.cache.told(node);
        self.ask(Kind::Sync, "fsync", node, reply, move |core, wait| {
            core.fsync(node, handle, data_only, wait)
        });
    }

    /// Listings need no state: told so once, the kernel neither opens nor releases directories any
    /// more, and keeps what it has read of them as with these flags.
    fn opendir(&self, _: &Request, node: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let _serving = self.serving(Opcode::Opendir);
        if !self.opens_directories {
            return reply.error(Errno::ENOSYS);
        }
        let flags = FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE;
        settle("opendir", ino(node), self.core.opendir(ino(node)), OpenReply(reply, flags));
    }

    fn readdir(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        cookie: u64,
        mut reply: ReplyDirectory,
    ) {
        let _serving = self.serving(Opcode::Readdir);
        let (node, handle) = (ino(node), Handle(handle.0));
        let outcome = self.core.readdir(node, handle, cookie, false, &mut |entry| {
            let (ino, kind) = (INodeNo(entry.ino.0), convert::kind(entry.kind));
            !reply.add(ino, entry.cookie, kind, OsStr::from_bytes(&entry.name))
        });
        settle("readdir", node, outcome, reply);
    }

    fn readdirplus(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        cookie: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let _serving = self.serving(Opcode::Readdirplus);
        let (node, handle) = (ino(node), Handle(handle.0));
        let outcome = self.core.readdir(node, handle, cookie, true, &mut |entry| {
            let (node, attr, generation) = convert::entry_plus(entry);
            let name = OsStr::from_bytes(&entry.name);
            !reply.add(node, entry.cookie, name, &TTL, &attr, generation)
        });
        settle("readdirplus", node, outcome, reply);
    }

    fn releasedir(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let _serving = self.serving(Opcode::Releasedir);
        self.core.releasedir(ino(node), Handle(handle.0));
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, node: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let _serving = self.serving(Opcode::Fsyncdir);
        let node = ino(node);
        self.ask(Kind::Sync, "fsyncdir", node, reply, move |core, wait| core.fsyncdir(node, wait));
    }

    fn statfs(&self, _: &Request, node: INodeNo, reply: ReplyStatfs) {
        let _serving = self.serving(Opcode::Statfs);
        let ino = ino(node);
        settle("statfs", ino, self.core.statfs(ino), reply);
    }

    fn setxattr(
        &self,
        request: &Request,
        node: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let _serving = self.serving(Opcode::Setxattr);
        let (caller, node) = (caller(request), ino(node));
        let outcome = convert::xattr_mode(flags)
            .and_then(|mode| self.core.setxattr(&caller, node, name.as_bytes(), value, mode));
        settle("setxattr", node, outcome, reply);
    }

    fn getxattr(&self, _: &Request, node: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let _serving = self.serving(Opcode::Getxattr);
        let outcome = self.core.getxattr(ino(node), name.as_bytes());
        settle("getxattr", ino(node), outcome, SizedReply(reply, size));
    }

    fn listxattr(&self, _: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        let _serving = self.serving(Opcode::Listxattr);
        let outcome = self.core.listxattr(ino(node)).map(|names| convert::name_list(&names));
        settle("listxattr", ino(node), outcome, SizedReply(reply, size));
    }

    fn removexattr(&self, request: &Request, node: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _serving = self.serving(Opcode::Removexattr);
        let outcome = self.core.removexattr(&caller(request), ino(node), name.as_bytes());
        settle("removexattr", ino(node), outcome, reply);
    }

    fn fallocate(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let _serving = self.serving(Opcode::Fallocate);
        let (caller, node, handle) = (caller(request), ino(node), Handle(handle.0));
        self.ask(Kind::Write, "fallocate", node, reply, move |core, wait| {
            let what = convert::fallocate(mode)?;
            core.fallocate(&caller, node, handle, offset, len, what, wait)
        });
    }

    fn lseek(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let _serving = self.serving(Opcode::Lseek);
        let (node, handle) = (ino(node), Handle(handle.0));
        let call = move |core: &C| {
            let (what, offset) = convert::seek(offset, whence)?;
            core.lseek(node, handle, offset, what)
        };
        if !self.cache.may_be_dirty(node) {
            return settle("lseek", node, call(&self.core), reply);
        }
        // The kernel asks without writing its dirty pages first; to the core they are holes.
        let cache = self.cache.clone();
        self.ask_elsewhere(EVERYBODY, Kind::Drain, "lseek", node, reply, move |core, _| {
            cache.drain(node).map_err(|error| FsError::io("draining dirty pages", error))?;
            call(core)
        });
    }

    /// Needs no draining: the kernel writes both ranges out before it asks.
    fn copy_file_range(
        &self,
        request: &Request,
        from: INodeNo,
        from_handle: FileHandle,
        from_offset: u64,
        to: INodeNo,
        to_handle: FileHandle,
        to_offset: u64,
        len: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let _serving = self.serving(Opcode::CopyFileRange);
        let caller = caller(request);
        let from = (ino(from), Handle(from_handle.0), from_offset);
        let to = (ino(to), Handle(to_handle.0), to_offset);
        // The answer has room for 32 bits; a caller goes on where a short copy ended.
        let len = len.min(u64::from(u32::MAX));
        self.ask(Kind::Write, "copy_file_range", to.0, reply, move |core, wait| {
            core.copy_file_range(&caller, from, to, len, wait).map(|copied| copied as u32)
        });
    }

    // Sent only for what was not negotiated, or once to find out; the kernel then does without.

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        let _serving = self.serving(Opcode::Other);
        reply.error(Errno::ENOSYS);
    }

    fn bmap(&self, _: &Request, _: INodeNo, _: u32, _: u64, reply: ReplyBmap) {
        let _serving = self.serving(Opcode::Other);
        reply.error(Errno::ENOSYS);
    }

    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: PollNotifier,
        _: PollEvents,
        _: PollFlags,
        reply: ReplyPoll,
    ) {
        let _serving = self.serving(Opcode::Other);
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        let _serving = self.serving(Opcode::Other);
        reply.error(Errno::ENOTTY);
    }
}
