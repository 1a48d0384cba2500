//! Answers: one trait over the kernel's reply types, one table from errors to errno.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fuser::{Errno, FileHandle, FopenFlags, Generation};

use super::convert;
use super::kernel_cache::KernelCache;
use super::passthrough::Way;
use crate::error::{FsError, FsResult};
use crate::thaw::Plain;
use crate::types::{Attr, FsStats, Handle, Ino};

/// How long the kernel may keep entries and attributes. Only this daemon changes the volume, and
/// it invalidates what it changes by itself.
pub(super) const TTL: Duration = Duration::from_secs(24 * 3600);

/// Block size shown by `statfs` and unit of its counts.
const STATFS_BLOCK: u64 = 4096;

/// Longest name in bytes.
const NAME_MAX: u32 = 255;

/// A reply that is answered once, with a value or an errno.
pub(super) trait Answer: Send + 'static {
    /// What success carries.
    type Value;
    /// Answers with success.
    fn succeed(self, value: Self::Value);
    /// Answers with an error.
    fn fail(self, errno: Errno);
}

/// Answers a request with the outcome of its call; damage is logged here.
pub(super) fn settle<R: Answer>(
    call: &'static str,
    ino: Ino,
    outcome: FsResult<R::Value>,
    reply: R,
) {
    match outcome {
        Ok(value) => reply.succeed(value),
        Err(error) => {
            report(call, ino, &error);
            reply.fail(errno(&error));
        }
    }
}

/// Logs an error that no program can cause by itself, with its chain of causes.
fn report(call: &'static str, ino: Ino, error: &FsError) {
    match error {
        FsError::Io { .. } | FsError::ReadOnly(_) | FsError::WouldWait => {
            let mut causes = String::new();
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                causes.push_str(": ");
                causes.push_str(&cause.to_string());
                source = cause.source();
            }
            tracing::error!(call, ino = ino.0, "{error}{causes}");
        }
        other => tracing::trace!(call, ino = ino.0, "{other}"),
    }
}

/// The errno that programs see.
pub(super) fn errno(error: &FsError) -> Errno {
    match error {
        FsError::NotFound => Errno::ENOENT,
        FsError::Exists => Errno::EEXIST,
        FsError::NotDirectory => Errno::ENOTDIR,
        FsError::IsDirectory => Errno::EISDIR,
        FsError::NotEmpty => Errno::ENOTEMPTY,
        FsError::Invalid(_) => Errno::EINVAL,
        FsError::NotPermitted => Errno::EPERM,
        FsError::AccessDenied => Errno::EACCES,
        FsError::NameTooLong => Errno::ENAMETOOLONG,
        FsError::TooLarge => Errno::EFBIG,
        FsError::TooManyLinks => Errno::EMLINK,
        FsError::NoSpace => Errno::ENOSPC,
        FsError::QuotaExceeded => Errno::from_i32(libc::EDQUOT),
        FsError::ReadOnly(_)
        | FsError::InSnapshot
        | FsError::Receiving
        | FsError::ReadOnlyDataset => Errno::EROFS,
        FsError::NoAttribute => Errno::NO_XATTR,
        FsError::Range => Errno::ERANGE,
        FsError::TooBig => Errno::E2BIG,
        FsError::NotSupported(_) => Errno::EOPNOTSUPP,
        FsError::CrossesDatasets => Errno::EXDEV,
        FsError::Stale => Errno::ESTALE,
        FsError::BadHandle => Errno::EBADF,
        FsError::NoOffset => Errno::ENXIO,
        FsError::Busy => Errno::EBUSY,
        // A call that must not wait and yet would is a fault of this daemon, not of the caller.
        FsError::Io { .. } | FsError::WouldWait => Errno::EIO,
    }
}

impl Answer for fuser::ReplyEmpty {
    type Value = ();

    fn succeed(self, (): ()) {
        self.ok();
    }

    fn fail(self, errno: Errno) {
        self.error(errno);
    }
}

impl Answer for fuser::ReplyDirectory {
    type Value = ();

    fn succeed(self, (): ()) {
        self.ok();
    }

    fn fail(self, errno: Errno) {
        self.error(errno);
    }
}

impl Answer for fuser::ReplyDirectoryPlus {
    type Value = ();

    fn succeed(self, (): ()) {
        self.ok();
    }

    fn fail(self, errno: Errno) {
        self.error(errno);
    }
}

impl Answer for fuser::ReplyEntry {
    type Value = Attr;

    fn succeed(self, attr: Attr) {
        self.entry(&TTL, &convert::attr(&attr), Generation(attr.generation));
    }

    fn fail(self, errno: Errno) {
        self.error(errno);
    }
}

/// A lookup: that a name does not exist may be remembered, too.
pub(super) struct LookupReply(pub(super) fuser::ReplyEntry);

impl Answer for LookupReply {
    type Value = Attr;

    fn succeed(self, attr: Attr) {
        self.0.succeed(attr);
    }

    fn fail(self, errno: Errno) {
        if errno == Errno::ENOENT {
            self.0.entry(&TTL, &convert::NOBODY, Generation(0));
        } else {
            self.0.error(errno);
        }
    }
}

impl Answer for fuser::ReplyAttr {
    type Value = Attr;

    fn succeed(self, attr: Attr) {
        self.attr(&TTL, &convert::attr(&attr));
    }

    fn fail(self, errno: Errno) {
        self.error(errno);
    }
}

impl Answer for fuser::ReplyData {
    type Value = Bytes;

    fn succeed(self, data: Bytes) {
        self.data(&data);
    }

    fn fail(self, errno: Errno) {
        self.error(errno);
    }
}

impl Answer for fuser::ReplyWrite {
    type Value = u32;

    fn succeed(self, written: u32) {
        self.written(written);
    }

    fn fail(self, errno: Errno) {
        self.error(errno);
    }
}

impl Answer for fuser::ReplyLseek {
    type Value = u64;

    fn succeed(self, offset: u64) {
        match i64::try_from(offset) {
            Ok(offset) => self.offset(offset),
            Err(_) => self.error(Errno::EOVERFLOW),
        }
    }

    fn fail(self, errno: Errno) {
        self.error(errno);
    }
}

impl Answer for fuser::ReplyStatfs {
    type Value = FsStats;

    fn succeed(self, stats: FsStats) {
        let free = stats.free_bytes / STATFS_BLOCK;
        let total = stats.total_bytes / STATFS_BLOCK;
        let block = STATFS_BLOCK as u32;
        self.statfs(
            total,
            free,
            free,
            stats.inodes_total,
            stats.inodes_free,
            block,
            NAME_MAX,
            block,
        );
    }

    fn fail(self, errno: Errno) {
        self.error(errno);
    }
}

/// An opened directory: the kernel keeps what it has cached, since nobody else changes it.
pub(super) struct OpenReply(pub(super) fuser::ReplyOpen, pub(super) FopenFlags);

impl Answer for OpenReply {
    type Value = Handle;

    fn succeed(self, handle: Handle) {
        self.0.opened(FileHandle(handle.0), self.1);
    }

    fn fail(self, errno: Errno) {
        self.0.error(errno);
    }
}

/// An opened file: the kernel keeps what it has cached, since nobody else changes files, or reads the
/// plain copy by itself.
pub(super) struct FileReply {
    pub(super) reply: fuser::ReplyOpen,
    pub(super) cache: KernelCache,
    pub(super) ino: Ino,
    /// Opened with `O_DIRECT`.
    pub(super) direct: bool,
}

impl Answer for FileReply {
    type Value = (Handle, Option<Arc<Plain>>);

    fn succeed(self, (handle, plain): Self::Value) {
        let Self { reply, cache, ino, direct } = self;
        let handle = FileHandle(handle.0);
        let way = cache.passthrough().opened(ino, plain, direct, |file| reply.open_backing(file));
        match way {
            Way::Cached => reply.opened(handle, FopenFlags::FOPEN_KEEP_CACHE),
            Way::Passing(id) => reply.opened_passthrough(handle, FopenFlags::empty(), &id),
            Way::Beside(id) => reply.opened_passthrough(handle, FopenFlags::FOPEN_DIRECT_IO, &id),
        }
    }

    fn fail(self, errno: Errno) {
        self.reply.error(errno);
    }
}

impl Answer for fuser::ReplyCreate {
    type Value = (Attr, Handle);

    fn succeed(self, (attr, handle): (Attr, Handle)) {
        let flags = FopenFlags::FOPEN_KEEP_CACHE;
        let generation = Generation(attr.generation);
        self.created(&TTL, &convert::attr(&attr), generation, FileHandle(handle.0), flags);
    }

    fn fail(self, errno: Errno) {
        self.error(errno);
    }
}

/// Attribute values and lists: `size` bytes at most, or only how many there are when it is 0.
pub(super) struct SizedReply(pub(super) fuser::ReplyXattr, pub(super) u32);

impl Answer for SizedReply {
    type Value = Vec<u8>;

    fn succeed(self, value: Vec<u8>) {
        let Self(reply, size) = self;
        match u32::try_from(value.len()) {
            Ok(len) if size == 0 => reply.size(len),
            Ok(len) if len <= size => reply.data(&value),
            _ => reply.error(Errno::ERANGE),
        }
    }

    fn fail(self, errno: Errno) {
        self.0.error(errno);
    }
}
