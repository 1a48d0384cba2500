//! Translates between the kernel's types and the core's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    FileAttr, FileType, Generation, INodeNo, OpenAccMode, OpenFlags, RenameFlags, TimeOrNow,
};

use crate::error::{FsError, FsResult};
use crate::types::{
    Attr, Caller, DirEntry, Fallocate, FileKind, Ino, OpenMode, RenameMode, Seek, SetTime,
    XattrMode,
};

/// Unit of `st_blksize`; larger values would change how the kernel tracks partly written pages.
const BLOCK: u32 = 4096;

/// Attributes of nothing: inode 0 tells the kernel that a name does not exist.
pub(super) const NOBODY: FileAttr = FileAttr {
    ino: INodeNo(0),
    size: 0,
    blocks: 0,
    atime: UNIX_EPOCH,
    mtime: UNIX_EPOCH,
    ctime: UNIX_EPOCH,
    crtime: UNIX_EPOCH,
    kind: FileType::RegularFile,
    perm: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    rdev: 0,
    blksize: BLOCK,
    flags: 0,
};

pub(super) fn ino(ino: INodeNo) -> Ino {
    Ino(ino.0)
}

pub(super) fn caller(request: &fuser::Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid() }
}

pub(super) fn kind(kind: FileKind) -> FileType {
    match kind {
        FileKind::File => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

pub(super) fn attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.blocks,
        atime: attr.atime,
        mtime: attr.mtime,
        ctime: attr.ctime,
        crtime: attr.crtime,
        kind: kind(attr.kind),
        perm: attr.perm,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: BLOCK,
        flags: 0,
    }
}

/// Node, attributes and generation of a listed entry. Node 0 says that the entry comes without
/// attributes, as `.` and `..` do; only its number and type are used then.
pub(super) fn entry_plus(entry: &DirEntry) -> (INodeNo, FileAttr, Generation) {
    match &entry.attr {
        Some(known) => (INodeNo(known.ino.0), attr(known), Generation(known.generation)),
        None => {
            let bare = FileAttr { ino: INodeNo(entry.ino.0), kind: kind(entry.kind), ..NOBODY };
            (INodeNo(0), bare, Generation(0))
        }
    }
}

/// Attribute names as `listxattr` returns them, each ended by a NUL.
pub(super) fn name_list(names: &[Vec<u8>]) -> Vec<u8> {
    names.iter().flat_map(|name| name.iter().copied().chain([0])).collect()
}

/// How a file is opened. Under write-back caching the kernel reads pages that are written in part
/// through whichever descriptor it has, and places appended bytes itself.
pub(super) fn open_mode(flags: OpenFlags, writeback: bool) -> OpenMode {
    let (read, write) = match flags.acc_mode() {
        OpenAccMode::O_RDONLY => (true, false),
        OpenAccMode::O_WRONLY => (false, true),
        OpenAccMode::O_RDWR => (true, true),
    };
    OpenMode {
        read: read || writeback,
        write,
        truncate: flags.0 & libc::O_TRUNC != 0,
        // O_SYNC contains the bit of O_DSYNC.
        sync: flags.0 & libc::O_DSYNC != 0,
        append: flags.0 & libc::O_APPEND != 0 && !writeback,
        stamps_cached: !writeback,
    }
}

/// Whether a descriptor opened with these flags can dirty pages.
pub(super) fn writes(flags: OpenFlags) -> bool {
    flags.acc_mode() != OpenAccMode::O_RDONLY
}

pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(repaired(time)),
    }
}

/// The time that was meant: fuser 0.18 subtracts the nanoseconds of a time before 1970 where they
/// must be added, since the kernel counts them forward from the whole second below.
pub(super) fn repaired(time: SystemTime) -> SystemTime {
    match UNIX_EPOCH.duration_since(time) {
        Ok(before) if before.subsec_nanos() > 0 => {
            let nanos = Duration::from_nanos(u64::from(before.subsec_nanos()));
            UNIX_EPOCH - Duration::from_secs(before.as_secs()) + nanos
        }
        _ => time,
    }
}

pub(super) fn rename_mode(flags: RenameFlags) -> FsResult<RenameMode> {
    if flags.is_empty() {
        Ok(RenameMode::Replace)
    } else if flags == RenameFlags::RENAME_NOREPLACE {
        Ok(RenameMode::NoReplace)
    } else if flags == RenameFlags::RENAME_EXCHANGE {
        Ok(RenameMode::Exchange)
    } else {
        Err(FsError::Invalid("rename flags"))
    }
}

pub(super) fn xattr_mode(flags: i32) -> FsResult<XattrMode> {
    match flags {
        0 => Ok(XattrMode::Set),
        libc::XATTR_CREATE => Ok(XattrMode::Create),
        libc::XATTR_REPLACE => Ok(XattrMode::Replace),
        _ => Err(FsError::Invalid("setxattr flags")),
    }
}

pub(super) fn fallocate(mode: i32) -> FsResult<Fallocate> {
    let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
    match mode & !libc::FALLOC_FL_KEEP_SIZE {
        0 => Ok(Fallocate::Allocate { keep_size }),
        libc::FALLOC_FL_PUNCH_HOLE if keep_size => Ok(Fallocate::PunchHole),
        libc::FALLOC_FL_ZERO_RANGE => Ok(Fallocate::ZeroRange { keep_size }),
        _ => Err(FsError::NotSupported("this mode of fallocate")),
    }
}

/// What to look for and from where.
pub(super) fn seek(offset: i64, whence: i32) -> FsResult<(Seek, u64)> {
    let what = match whence {
        libc::SEEK_DATA => Seek::Data,
        libc::SEEK_HOLE => Seek::Hole,
        _ => return Err(FsError::Invalid("whence")),
    };
    let offset = u64::try_from(offset).map_err(|_| FsError::NoOffset)?;
    Ok((what, offset))
}
