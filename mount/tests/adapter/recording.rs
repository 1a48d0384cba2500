//! A core that remembers what it was asked and answers from a few files in memory.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::ops::Range;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use firn_mount::core::Core;
use firn_mount::types::{
    Attr, Caller, DirEntry, Fallocate, FileKind, FsStats, Handle, Ino, OpenMode, RenameMode, Seek,
    SetAttr, SetTime, XattrMode,
};
use firn_mount::{FsError, FsResult};
use firn_tiering::Wait;
use parking_lot::{Condvar, Mutex};

/// What begins a write that finds no space.
pub const REFUSED: &[u8] = b"refused";

/// Reading or writing a file whose name begins so would wait.
pub const SLOW: &str = "slow";
/// Reading or writing a file whose name begins so waits until [`Recording::release_stuck`].
pub const STUCK: &str = "stuck";

struct Node {
    attr: Attr,
    data: Vec<u8>,
    written: Vec<Range<u64>>,
    children: BTreeMap<Vec<u8>, Ino>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    target: Vec<u8>,
    slow: bool,
    stuck: bool,
}

struct Nodes {
    nodes: HashMap<Ino, Node>,
    next: u64,
}

/// The recording core.
pub struct Recording {
    nodes: Mutex<Nodes>,
    calls: Mutex<Vec<String>>,
    stuck: Mutex<bool>,
    unstuck: Condvar,
}

impl Recording {
    pub fn new() -> Self {
        let mut nodes = Nodes { nodes: HashMap::new(), next: 2 };
        let mut root = node(Ino::ROOT, FileKind::Directory, 0o755);
        root.attr.uid = rustix::process::geteuid().as_raw();
        nodes.nodes.insert(Ino::ROOT, root);
        let (calls, stuck, unstuck) = (Mutex::default(), Mutex::new(true), Condvar::new());
        Self { nodes: Mutex::new(nodes), calls, stuck, unstuck }
    }

    /// Everything asked so far.
    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().clone()
    }

    /// Forgets what was asked.
    pub fn clear(&self) {
        self.calls.lock().clear();
    }

    /// The calls that begin with this.
    pub fn calls_of(&self, prefix: &str) -> Vec<String> {
        self.calls().into_iter().filter(|call| call.starts_with(prefix)).collect()
    }

    /// Lets reads of stuck files go on.
    pub fn release_stuck(&self) {
        *self.stuck.lock() = false;
        self.unstuck.notify_all();
    }

    /// Changes a file behind the kernel's back.
    pub fn replace_data(&self, ino: u64, data: &[u8]) {
        let mut nodes = self.nodes.lock();
        let node = nodes.nodes.get_mut(&Ino(ino)).unwrap();
        node.data = data.to_vec();
        node.attr.size = data.len() as u64;
    }

    /// Removes an entry behind the kernel's back.
    pub fn remove_entry(&self, name: &str) {
        let mut nodes = self.nodes.lock();
        nodes.nodes.get_mut(&Ino::ROOT).unwrap().children.remove(name.as_bytes());
    }

    fn saw(&self, call: String) {
        self.calls.lock().push(call);
    }

    fn with<T>(&self, ino: Ino, f: impl FnOnce(&mut Node) -> FsResult<T>) -> FsResult<T> {
        f(self.nodes.lock().nodes.get_mut(&ino).ok_or(FsError::Stale)?)
    }

    /// Slow files are only touched by who may wait; stuck ones by nobody before their release.
    fn wait_for_release(&self, ino: Ino, wait: Wait) -> FsResult<()> {
        let (slow, stuck) = self.with(ino, |node| Ok((node.slow, node.stuck)))?;
        match wait {
            Wait::No if slow || stuck => Err(FsError::WouldWait),
            Wait::Until(_) if stuck => {
                let mut held = self.stuck.lock();
                while *held {
                    self.unstuck.wait(&mut held);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn add(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        kind: FileKind,
        perm: u32,
    ) -> FsResult<Attr> {
        let mut nodes = self.nodes.lock();
        let ino = Ino(nodes.next);
        let mut new = node(ino, kind, perm as u16 & 0o7777);
        new.attr.uid = caller.uid;
        new.attr.gid = caller.gid;
        new.slow = name.starts_with(SLOW.as_bytes());
        new.stuck = name.starts_with(STUCK.as_bytes());
        let attr = new.attr;
        let children = &mut nodes.nodes.get_mut(&parent).ok_or(FsError::Stale)?.children;
        if children.contains_key(name) {
            return Err(FsError::Exists);
        }
        children.insert(name.to_vec(), ino);
        nodes.next += 1;
        nodes.nodes.insert(ino, new);
        Ok(attr)
    }

    fn remove(&self, parent: Ino, name: &[u8]) -> FsResult<Ino> {
        self.with(parent, |node| node.children.remove(name).ok_or(FsError::NotFound))
    }
}

fn node(ino: Ino, kind: FileKind, perm: u16) -> Node {
    let attr = Attr {
        ino,
        generation: 0,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
    };
    Node {
        attr,
        data: Vec::new(),
        written: Vec::new(),
        children: BTreeMap::new(),
        xattrs: BTreeMap::new(),
        target: Vec::new(),
        slow: false,
        stuck: false,
    }
}

/// `No`, or how far away the deadline is, rounded up to ten seconds.
#[allow(clippy::disallowed_methods, reason = "deadlines are the system's")]
fn patience(wait: Wait) -> String {
    match wait {
        Wait::No => "No".to_owned(),
        Wait::Until(deadline) => {
            let left = deadline.saturating_duration_since(Instant::now());
            format!("{}s", left.as_secs_f64().div_euclid(10.0) * 10.0 + 10.0)
        }
        Wait::Progress(patience) => format!("{patience:?} without progress"),
    }
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// Nanoseconds since 1970, negative before.
fn nanos(time: SystemTime) -> i128 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_nanos() as i128,
        Err(before) => -(before.duration().as_nanos() as i128),
    }
}

/// Every error there is, with the errno that must leave.
pub fn errors() -> Vec<(FsError, i32)> {
    vec![
        (FsError::WouldWait, libc::EIO),
        (FsError::NotFound, libc::ENOENT),
        (FsError::Exists, libc::EEXIST),
        (FsError::NotDirectory, libc::ENOTDIR),
        (FsError::IsDirectory, libc::EISDIR),
        (FsError::NotEmpty, libc::ENOTEMPTY),
        (FsError::Invalid("test"), libc::EINVAL),
        (FsError::NotPermitted, libc::EPERM),
        (FsError::AccessDenied, libc::EACCES),
        (FsError::NameTooLong, libc::ENAMETOOLONG),
        (FsError::TooLarge, libc::EFBIG),
        (FsError::TooManyLinks, libc::EMLINK),
        (FsError::NoSpace, libc::ENOSPC),
        (FsError::QuotaExceeded, libc::EDQUOT),
        (FsError::ReadOnly("test".to_owned()), libc::EROFS),
        (FsError::InSnapshot, libc::EROFS),
        (FsError::Receiving, libc::EROFS),
        (FsError::ReadOnlyDataset, libc::EROFS),
        (FsError::NoAttribute, libc::ENODATA),
        (FsError::Range, libc::ERANGE),
        (FsError::TooBig, libc::E2BIG),
        (FsError::NotSupported("test"), libc::EOPNOTSUPP),
        (FsError::CrossesDatasets, libc::EXDEV),
        (FsError::Stale, libc::ESTALE),
        (FsError::BadHandle, libc::EBADF),
        (FsError::NoOffset, libc::ENXIO),
        (FsError::Busy, libc::EBUSY),
        (FsError::io("test", std::io::Error::other("cause")), libc::EIO),
    ]
}

impl Core for Recording {
    fn lookup(&self, parent: Ino, name: &[u8]) -> FsResult<Attr> {
        self.saw(format!("lookup {} {}", parent.0, text(name)));
        let nodes = self.nodes.lock();
        let child = nodes.nodes[&parent].children.get(name).ok_or(FsError::NotFound)?;
        Ok(nodes.nodes[child].attr)
    }

    fn forget(&self, ino: Ino, count: u64) {
        self.saw(format!("forget {} {count}", ino.0));
    }

    fn getattr(&self, ino: Ino) -> FsResult<Attr> {
        self.saw(format!("getattr {}", ino.0));
        self.with(ino, |node| Ok(node.attr))
    }

    fn setattr(&self, caller: &Caller, ino: Ino, changes: &SetAttr, wait: Wait) -> FsResult<Attr> {
        let mut what = String::new();
        let SetAttr { perm, uid, gid, size, atime, mtime, ctime } = changes;
        let time = |time: SetTime| match time {
            SetTime::Now => "now".to_owned(),
            SetTime::At(time) => nanos(time).to_string(),
        };
        let fields = [
            ("perm", perm.map(|perm| format!("{perm:o}"))),
            ("uid", uid.map(|uid| uid.to_string())),
            ("gid", gid.map(|gid| gid.to_string())),
            ("size", size.map(|size| size.to_string())),
            ("atime", atime.map(time)),
            ("mtime", mtime.map(time)),
            ("ctime", ctime.map(|_| "set".to_owned())),
        ];
        for (field, value) in fields {
            if let Some(value) = value {
                write!(what, " {field}={value}").unwrap();
            }
        }
        self.saw(format!("setattr {} by={}{what} {}", ino.0, caller.uid, patience(wait)));
        self.with(ino, |node| {
            node.attr.perm = perm.unwrap_or(node.attr.perm);
            if let Some(size) = size {
                node.attr.size = *size;
                node.data.resize(*size as usize, 0);
                node.written.retain_mut(|range| {
                    range.end = range.end.min(*size);
                    range.start < range.end
                });
            }
            for (to, from) in [(&mut node.attr.atime, atime), (&mut node.attr.mtime, mtime)] {
                if let Some(SetTime::At(time)) = from {
                    *to = *time;
                }
            }
            Ok(node.attr)
        })
    }

    fn readlink(&self, ino: Ino) -> FsResult<Vec<u8>> {
        self.saw(format!("readlink {}", ino.0));
        self.with(ino, |node| Ok(node.target.clone()))
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
        self.saw(format!("mknod {} {mode:o} umask={umask:o} rdev={rdev:x}", text(name)));
        let kind = match mode & libc::S_IFMT {
            libc::S_IFCHR => FileKind::CharDevice,
            libc::S_IFIFO => FileKind::Fifo,
            libc::S_IFSOCK => FileKind::Socket,
            libc::S_IFBLK => FileKind::BlockDevice,
            _ => FileKind::File,
        };
        self.add(caller, parent, name, kind, mode)
    }

    fn mkdir(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        mode: u32,
        umask: u32,
    ) -> FsResult<Attr> {
        self.saw(format!("mkdir {} {mode:o} umask={umask:o} by={}", text(name), caller.uid));
        self.add(caller, parent, name, FileKind::Directory, mode)
    }

    fn unlink(&self, parent: Ino, name: &[u8]) -> FsResult<()> {
        self.saw(format!("unlink {}", text(name)));
        self.remove(parent, name).map(drop)
    }

    fn rmdir(&self, parent: Ino, name: &[u8]) -> FsResult<()> {
        self.saw(format!("rmdir {}", text(name)));
        self.remove(parent, name).map(drop)
    }

    fn symlink(&self, caller: &Caller, parent: Ino, name: &[u8], target: &[u8]) -> FsResult<Attr> {
        self.saw(format!("symlink {} -> {}", text(name), text(target)));
        let attr = self.add(caller, parent, name, FileKind::Symlink, 0o777)?;
        self.with(attr.ino, |node| {
            node.target = target.to_vec();
            node.attr.size = target.len() as u64;
            Ok(node.attr)
        })
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
        let (from, to) = (text(name), text(new_name));
        self.saw(format!("rename {from} {to} {mode:?} {}", patience(wait)));
        let ino = self.remove(parent, name)?;
        self.with(new_parent, |node| {
            node.children.insert(new_name.to_vec(), ino);
            Ok(())
        })
    }

    fn link(&self, ino: Ino, new_parent: Ino, new_name: &[u8]) -> FsResult<Attr> {
        self.saw(format!("link {} {}", ino.0, text(new_name)));
        self.with(new_parent, |node| {
            node.children.insert(new_name.to_vec(), ino);
            Ok(())
        })?;
        self.with(ino, |node| {
            node.attr.nlink += 1;
            Ok(node.attr)
        })
    }

    fn open(&self, caller: &Caller, ino: Ino, mode: OpenMode, wait: Wait) -> FsResult<Handle> {
        let OpenMode { read, write, truncate, sync, append, .. } = mode;
        let flags: String =
            [(read, 'r'), (write, 'w'), (truncate, 't'), (sync, 's'), (append, 'a')]
                .iter()
                .filter_map(|(set, flag)| set.then_some(*flag))
                .collect();
        self.saw(format!("open {} {flags} by={} {}", ino.0, caller.uid, patience(wait)));
        self.with(ino, |node| {
            if truncate {
                node.data.clear();
                node.written.clear();
                node.attr.size = 0;
            }
            Ok(Handle(ino.0 + 1000))
        })
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
        let name_text = text(name);
        let OpenMode { write, append, .. } = open;
        self.saw(format!("create {name_text} {mode:o} umask={umask:o} w={write} a={append}"));
        let attr = self.add(caller, parent, name, FileKind::File, mode)?;
        Ok((attr, Handle(attr.ino.0 + 1000)))
    }

    fn read(&self, ino: Ino, handle: Handle, offset: u64, len: u32, wait: Wait) -> FsResult<Bytes> {
        let asked = format!("read {} h={} {offset}+{len} {}", ino.0, handle.0, patience(wait));
        self.saw(asked);
        self.wait_for_release(ino, wait)?;
        self.with(ino, |node| {
            let start = node.data.len().min(offset as usize);
            let end = node.data.len().min(start + len as usize);
            Ok(Bytes::copy_from_slice(&node.data[start..end]))
        })
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
        self.saw(format!(
            "write {} h={} {offset}+{} cache={from_cache} kill={kill_privileges} by={} {}",
            ino.0,
            handle.0,
            data.len(),
            caller.uid,
            patience(wait)
        ));
        self.wait_for_release(ino, wait)?;
        if data.starts_with(REFUSED) {
            return Err(FsError::NoSpace);
        }
        self.with(ino, |node| {
            let (start, end) = (offset as usize, offset as usize + data.len());
            if node.data.len() < end {
                node.data.resize(end, 0);
            }
            node.data[start..end].copy_from_slice(data);
            node.written.push(start as u64..end as u64);
            node.attr.size = node.data.len() as u64;
            Ok(data.len() as u32)
        })
    }

    fn flush(&self, ino: Ino, _: Handle, wait: Wait) -> FsResult<()> {
        self.saw(format!("flush {} {}", ino.0, patience(wait)));
        Ok(())
    }

    fn release(&self, ino: Ino, handle: Handle) {
        self.saw(format!("release {} h={}", ino.0, handle.0));
    }

    fn fsync(&self, ino: Ino, _: Handle, data_only: bool, wait: Wait) -> FsResult<()> {
        self.saw(format!("fsync {} data_only={data_only} {}", ino.0, patience(wait)));
        if matches!(wait, Wait::No) { Err(FsError::WouldWait) } else { Ok(()) }
    }

    fn fallocate(
        &self,
        _: &Caller,
        ino: Ino,
        _: Handle,
        offset: u64,
        len: u64,
        what: Fallocate,
        wait: Wait,
    ) -> FsResult<()> {
        self.saw(format!("fallocate {} {offset}+{len} {what:?} {}", ino.0, patience(wait)));
        Ok(())
    }

    fn lseek(&self, ino: Ino, _: Handle, offset: u64, what: Seek) -> FsResult<u64> {
        self.saw(format!("lseek {} {offset} {what:?}", ino.0));
        self.with(ino, |node| {
            if offset >= node.attr.size {
                return Err(FsError::NoOffset);
            }
            let is_data = |at: &u64| node.written.iter().any(|range| range.contains(at));
            let mut places = offset..node.attr.size;
            match what {
                Seek::Data => places.find(is_data).ok_or(FsError::NoOffset),
                Seek::Hole => Ok(places.find(|at| !is_data(at)).unwrap_or(node.attr.size)),
            }
        })
    }

    fn copy_file_range(
        &self,
        caller: &Caller,
        from: (Ino, Handle, u64),
        to: (Ino, Handle, u64),
        len: u64,
        wait: Wait,
    ) -> FsResult<u64> {
        self.saw(format!(
            "copy {}@{} {}@{} {len} {}",
            from.0.0,
            from.2,
            to.0.0,
            to.2,
            patience(wait)
        ));
        let data = self.read(from.0, from.1, from.2, len as u32, wait)?;
        self.write(caller, to.0, to.1, to.2, &data, false, false, wait).map(u64::from)
    }

    fn opendir(&self, ino: Ino) -> FsResult<Handle> {
        self.saw(format!("opendir {}", ino.0));
        Ok(Handle(0))
    }

    fn readdir(
        &self,
        ino: Ino,
        _: Handle,
        cookie: u64,
        plus: bool,
        sink: &mut dyn FnMut(&DirEntry) -> bool,
    ) -> FsResult<()> {
        self.saw(format!("readdir {} {cookie} plus={plus}", ino.0));
        let nodes = self.nodes.lock();
        let dots = [(b".".to_vec(), ino), (b"..".to_vec(), ino)];
        let children = nodes.nodes[&ino].children.iter().map(|(name, ino)| (name.clone(), *ino));
        let entries = dots.into_iter().chain(children).zip(1..).skip(cookie as usize);
        for ((name, ino), cookie) in entries {
            let attr = nodes.nodes[&ino].attr;
            let known = (plus && cookie > 2).then_some(attr);
            if !sink(&DirEntry { ino, kind: attr.kind, name, cookie, attr: known }) {
                break;
            }
        }
        Ok(())
    }

    fn releasedir(&self, ino: Ino, _: Handle) {
        self.saw(format!("releasedir {}", ino.0));
    }

    fn fsyncdir(&self, ino: Ino, wait: Wait) -> FsResult<()> {
        self.saw(format!("fsyncdir {} {}", ino.0, patience(wait)));
        Ok(())
    }

    fn sync_all(&self, _: Wait) -> FsResult<()> {
        self.saw("sync_all".to_owned());
        Ok(())
    }

    fn statfs(&self, ino: Ino) -> FsResult<FsStats> {
        self.saw(format!("statfs {}", ino.0));
        Ok(FsStats {
            total_bytes: 1 << 50,
            free_bytes: 1 << 49,
            inodes_total: 1000,
            inodes_free: 900,
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
        let (name_text, len) = (text(name), value.len());
        self.saw(format!("setxattr {} {name_text} {len} {mode:?} by={}", ino.0, caller.uid));
        self.with(ino, |node| {
            node.xattrs.insert(name.to_vec(), value.to_vec());
            Ok(())
        })
    }

    fn getxattr(&self, ino: Ino, name: &[u8]) -> FsResult<Vec<u8>> {
        self.saw(format!("getxattr {} {}", ino.0, text(name)));
        if let Some(number) = text(name).strip_prefix("user.error.") {
            return Err(errors().swap_remove(number.parse().unwrap()).0);
        }
        self.with(ino, |node| node.xattrs.get(name).cloned().ok_or(FsError::NoAttribute))
    }

    fn listxattr(&self, ino: Ino) -> FsResult<Vec<Vec<u8>>> {
        self.saw(format!("listxattr {}", ino.0));
        self.with(ino, |node| Ok(node.xattrs.keys().cloned().collect()))
    }

    fn removexattr(&self, _: &Caller, ino: Ino, name: &[u8]) -> FsResult<()> {
        self.saw(format!("removexattr {} {}", ino.0, text(name)));
        self.with(ino, |node| node.xattrs.remove(name).map(drop).ok_or(FsError::NoAttribute))
    }
}

/// A moment before 1970 with a fraction.
pub fn before_1970() -> SystemTime {
    UNIX_EPOCH - Duration::from_millis(1500)
}
