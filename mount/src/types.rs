//! The plain types of the core: what a caller passes in and gets back.

use std::time::SystemTime;

/// An inode number as programs see it: `index of a view (16 bits) | object (48 bits)`. A view is
/// the live state of a dataset, or a snapshot; the object is what is stored, and the same in all
/// views that show it. The root of a mount is [`Ino::ROOT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(pub u64);

impl Ino {
    /// The root directory of the mounted volume, whatever view shows it.
    pub const ROOT: Self = Self(1);

    /// Bits of an object; those above are the index of a view.
    pub const OBJECT_BITS: u32 = 48;

    /// Objects from here on are never stored: a view shows them beside its own.
    pub const RESERVED: u64 = Self::OBJECT_MASK - 255;

    /// The number of `object` in a view.
    pub const fn in_view(index: u16, object: u64) -> Self {
        Self((index as u64) << Self::OBJECT_BITS | object & Self::OBJECT_MASK)
    }

    /// The object, without its view.
    pub const fn object(self) -> u64 {
        self.0 & Self::OBJECT_MASK
    }

    /// The index of the view.
    pub const fn view_index(self) -> u16 {
        (self.0 >> Self::OBJECT_BITS) as u16
    }

    const OBJECT_MASK: u64 = (1 << Self::OBJECT_BITS) - 1;
}

/// Names one snapshot in all volumes that have it: it travels with the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(pub [u8; 16]);

impl std::fmt::Display for Guid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// An open file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle(pub u64);

/// Who asks. Permission checks are the kernel's (`default_permissions`); the core needs the
/// caller for ownership of new files and for the setuid and setgid rules.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caller {
    /// Effective user id (file-system uid).
    pub uid: u32,
    /// Effective group id (file-system gid).
    pub gid: u32,
    /// Thread id, to look up supplementary groups where a rule needs them; 0 when unknown.
    pub pid: u32,
}

/// File type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Unix-domain socket.
    Socket,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
}

/// What `stat` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub ino: Ino,
    /// Changes when an inode number is used again.
    pub generation: u64,
    /// File type.
    pub kind: FileKind,
    /// Permission bits with setuid, setgid and sticky (`mode & 0o7777`).
    pub perm: u16,
    /// Hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of device nodes, as `dev_t`'s 32-bit kernel encoding.
    pub rdev: u32,
    /// Bytes.
    pub size: u64,
    /// 512-byte units of plaintext allocated (holes do not count).
    pub blocks: u64,
    /// Last access.
    pub atime: SystemTime,
    /// Last change of content.
    pub mtime: SystemTime,
    /// Last change of the inode.
    pub ctime: SystemTime,
    /// Creation.
    pub crtime: SystemTime,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The time of the call.
    Now,
    /// This time.
    At(SystemTime),
}

/// Which attributes to change; `None` leaves one alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// Permission bits.
    pub perm: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length; shorter drops bytes, longer adds a hole.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of content.
    pub mtime: Option<SetTime>,
    /// Last change of the inode, sent by the kernel under write-back caching.
    pub ctime: Option<SystemTime>,
}

/// One entry of a directory listing.
#[derive(Clone, Debug)]
pub struct DirEntry {
    /// What the entry names.
    pub ino: Ino,
    /// Its type.
    pub kind: FileKind,
    /// Name, 1 to 255 bytes.
    pub name: Vec<u8>,
    /// Continue behind this entry by passing this cookie. Never 0.
    pub cookie: u64,
    /// Attributes, when the listing was asked for them (`readdirplus`); never for `.` and `..`.
    pub attr: Option<Attr>,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenMode {
    /// Reads are allowed.
    pub read: bool,
    /// Writes are allowed.
    pub write: bool,
    /// Cut to nothing first.
    pub truncate: bool,
    /// Every write is durable when it returns (`O_SYNC`, `O_DSYNC`).
    pub sync: bool,
    /// Every write goes to the end. With write-back caching the kernel does this itself.
    pub append: bool,
    /// What the page cache sends sets the file's times, as any write does: only with write-back caching
    /// does the kernel keep them.
    pub stamps_cached: bool,
}

/// How `rename` treats an existing target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RenameMode {
    /// Replace it.
    #[default]
    Replace,
    /// Fail with `EEXIST`.
    NoReplace,
    /// Swap both.
    Exchange,
}

/// How `setxattr` treats an existing or missing attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum XattrMode {
    /// Create or replace.
    #[default]
    Set,
    /// Fail with `EEXIST` when there is one.
    Create,
    /// Fail with `ENODATA` when there is none.
    Replace,
}

/// What `fallocate` is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallocate {
    /// Make sure that writes into the range will find space; extend the file unless told not to.
    Allocate {
        /// Leave the size alone.
        keep_size: bool,
    },
    /// Turn the range into a hole; the size stays.
    PunchHole,
    /// Make the range read as zeros.
    ZeroRange {
        /// Leave the size alone.
        keep_size: bool,
    },
}

/// Which kind of place `lseek` looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// The next byte that is not in a hole.
    Data,
    /// The next byte that is in a hole; the end of the file counts as one.
    Hole,
}

/// What `statfs` shows, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FsStats {
    /// Hot plus configured cold capacity; an unlimited cold tier counts as 1 PiB free.
    pub total_bytes: u64,
    /// Not yet used.
    pub free_bytes: u64,
    /// Inodes there can be.
    pub inodes_total: u64,
    /// Inodes there can still be.
    pub inodes_free: u64,
}

/// A tier to which a file is bound, and all below a directory that is not bound otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PinTier {
    /// It stays in the hot tier.
    Hot,
    /// It goes to the cold tier, and is not brought back by itself.
    Cold,
}

/// A pin: the value of `user.firn.pin`, `hot` or `cold`, or `hot until SECONDS` after 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pin {
    /// Where to.
    pub tier: PinTier,
    /// When it ends, in seconds after 1970; `None` is never.
    pub until: Option<u64>,
}

impl Pin {
    /// The pin that a value says; `None` when it says none.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?.trim_end_matches('\n');
        let (tier, until) = match text.split_once(" until ") {
            Some((tier, until)) => (tier, Some(until.parse().ok()?)),
            None => (text, None),
        };
        let tier = match tier {
            "hot" => PinTier::Hot,
            "cold" => PinTier::Cold,
            _ => return None,
        };
        Some(Self { tier, until })
    }

    /// Whether it still holds, `now` being seconds after 1970.
    pub fn holds(&self, now: u64) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

impl std::fmt::Display for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.tier {
            PinTier::Hot => "hot",
            PinTier::Cold => "cold",
        })?;
        self.until.map_or(Ok(()), |until| write!(f, " until {until}"))
    }
}

/// What the kernel may remember and must forget, after a change of datasets or snapshots. Having
/// it forget must happen on a thread that serves no requests and holds no lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "the kernel would go on showing what is gone"]
pub struct Forget {
    /// Names that mean something else now, or nothing, or something for the first time.
    pub entries: Vec<(Ino, Vec<u8>)>,
    /// Directories whose every name may be remembered as missing.
    pub listings: Vec<Ino>,
    /// Inodes whose content and attributes are to be asked for again.
    pub inodes: Vec<Ino>,
}

impl Forget {
    /// Adds what `other` says.
    pub fn add(&mut self, other: Self) {
        self.entries.extend(other.entries);
        self.listings.extend(other.listings);
        self.inodes.extend(other.inodes);
    }
}
