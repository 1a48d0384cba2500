//! The inode record.

use blake3::Hash;

use super::{Reader, RecordError, Timestamp, Version, put_varint};
use crate::namespace::key::LinkAt;
use crate::types::{Attr, FileKind, Ino};

const WHAT: &str = "inode";
const VERSION: u8 = 1;

const S_IFMT: u32 = 0o170_000;
const PERM_MASK: u32 = 0o7777;

/// Facts about an inode that save a lookup elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InodeFlags(u32);

impl InodeFlags {
    /// There is an access ACL beyond the mode.
    pub const ACCESS_ACL: u32 = 1;
    /// There is a default ACL.
    pub const DEFAULT_ACL: u32 = 1 << 1;
    /// It has several names, and a link record for each.
    pub const LINKS: u32 = 1 << 2;
    const KNOWN: u32 = Self::ACCESS_ACL | Self::DEFAULT_ACL | Self::LINKS;

    /// Of the stored flags only: a digest follows. In memory, [`Inode::digest`] says so.
    const DIGEST: u32 = 1 << 3;

    /// Whether `flag` is set.
    pub fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }

    /// Sets or clears `flag`.
    pub fn set(&mut self, flag: u32, on: bool) {
        if on { self.0 |= flag } else { self.0 &= !flag }
    }
}

/// An inode with the version of its stored record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Its number.
    pub ino: Ino,
    /// Under which node the stored record was written.
    pub version: Version,
    /// File type.
    pub kind: FileKind,
    /// Permission bits, setuid, setgid, sticky.
    pub perm: u16,
    /// See [`InodeFlags`].
    pub flags: InodeFlags,
    /// Names; of a directory, 2 and one for each subdirectory; 0 when it was removed.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number.
    pub rdev: u32,
    /// Bytes of content; of a directory, its number of entries.
    pub size: u64,
    /// Bytes of content that are not in holes: the sum of all pieces of all slots.
    pub allocated: u64,
    /// Sum of the lengths of all attribute names, each with a terminator.
    pub xattr_names: u32,
    /// Changes when the number is used again.
    pub generation: u64,
    /// The directory that holds it; of a file with several names, one of those that do. A file that
    /// had several without link records may remember a name that it has lost.
    pub parent: Ino,
    /// Where in that directory.
    pub cookie: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Creation.
    pub crtime: Timestamp,
    /// BLAKE3 of a file's whole content, where it was computed since that changed last.
    pub digest: Option<Hash>,
}

/// The `S_IFMT` bits of a file type.
pub const fn mode_of_kind(kind: FileKind) -> u32 {
    match kind {
        FileKind::Fifo => 0o010_000,
        FileKind::CharDevice => 0o020_000,
        FileKind::Directory => 0o040_000,
        FileKind::BlockDevice => 0o060_000,
        FileKind::File => 0o100_000,
        FileKind::Symlink => 0o120_000,
        FileKind::Socket => 0o140_000,
    }
}

/// The file type in a mode; `None` when there is no such type.
pub const fn kind_of_mode(mode: u32) -> Option<FileKind> {
    Some(match mode & S_IFMT {
        0o010_000 => FileKind::Fifo,
        0o020_000 => FileKind::CharDevice,
        0o040_000 => FileKind::Directory,
        0o060_000 => FileKind::BlockDevice,
        0o100_000 => FileKind::File,
        0o120_000 => FileKind::Symlink,
        0o140_000 => FileKind::Socket,
        _ => return None,
    })
}

/// The file type of a byte that stands for one: the type's bits of a mode, shifted down.
pub const fn kind_of_byte(byte: u8) -> Option<FileKind> {
    match byte >> 4 {
        0 => kind_of_mode((byte as u32) << 12),
        _ => None,
    }
}

// Each later time is stored only when it differs from the one before.
const CTIME_SAME: u8 = 1;
const MTIME_SAME: u8 = 1 << 1;
const ATIME_SAME: u8 = 1 << 2;

impl Inode {
    /// The stored value, version included.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(104);
        self.version.put(&mut out);
        out.push(VERSION);
        put_varint(&mut out, u64::from(mode_of_kind(self.kind) | u32::from(self.perm)));
        let digest_flag = if self.digest.is_some() { InodeFlags::DIGEST } else { 0 };
        put_varint(&mut out, u64::from(self.flags.0 | digest_flag));
        for number in [self.nlink, self.uid, self.gid, self.rdev] {
            put_varint(&mut out, u64::from(number));
        }
        put_varint(&mut out, self.size);
        put_varint(&mut out, self.allocated);
        put_varint(&mut out, u64::from(self.xattr_names));
        put_varint(&mut out, self.generation);
        put_varint(&mut out, self.parent.object());
        out.extend_from_slice(&self.cookie.to_le_bytes());
        self.put_times(&mut out);
        if let Some(digest) = &self.digest {
            out.extend_from_slice(digest.as_bytes());
        }
        out
    }

    fn put_times(&self, out: &mut Vec<u8>) {
        let times = [self.crtime, self.ctime, self.mtime, self.atime];
        let same = |index: usize, bit: u8| if times[index] == times[index - 1] { bit } else { 0 };
        let flags = same(1, CTIME_SAME) | same(2, MTIME_SAME) | same(3, ATIME_SAME);
        out.push(flags);
        times[0].put(out);
        for (index, bit) in [(1, CTIME_SAME), (2, MTIME_SAME), (3, ATIME_SAME)] {
            if flags & bit == 0 {
                times[index].put(out);
            }
        }
    }

    /// Decodes the record behind the version; see [`Version::split`]. The parent is the stored
    /// object, still without a view.
    pub fn decode(ino: Ino, version: Version, record: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(WHAT, record);
        reader.version(VERSION)?;
        let mode = reader.varint32()?;
        let kind = kind_of_mode(mode).ok_or_else(|| reader.error("unknown file type"))?;
        if mode & !(S_IFMT | PERM_MASK) != 0 {
            return Err(reader.error("unknown mode bits"));
        }
        let stored_flags = reader.varint32()?;
        let has_digest = stored_flags & InodeFlags::DIGEST != 0;
        let flags = stored_flags & !InodeFlags::DIGEST;
        if flags & !InodeFlags::KNOWN != 0 || has_digest && kind != FileKind::File {
            return Err(reader.error("unknown flags"));
        }
        let [nlink, uid, gid, rdev] = [(); 4].map(|()| reader.varint32());
        let mut inode = Self {
            ino,
            version,
            kind,
            perm: (mode & PERM_MASK) as u16,
            flags: InodeFlags(flags),
            nlink: nlink?,
            uid: uid?,
            gid: gid?,
            rdev: rdev?,
            size: reader.varint()?,
            allocated: reader.varint()?,
            xattr_names: reader.varint32()?,
            generation: reader.varint()?,
            parent: reader.object()?,
            cookie: reader.u64_le()?,
            atime: Timestamp::default(),
            mtime: Timestamp::default(),
            ctime: Timestamp::default(),
            crtime: Timestamp::default(),
            digest: None,
        };
        inode.read_times(&mut reader)?;
        if has_digest {
            inode.digest = Some(Hash::from_bytes(reader.array()?));
        }
        reader.end()?;
        Ok(inode)
    }

    fn read_times(&mut self, reader: &mut Reader<'_>) -> Result<(), RecordError> {
        let flags = reader.u8()?;
        if flags & !(CTIME_SAME | MTIME_SAME | ATIME_SAME) != 0 {
            return Err(reader.error("unknown time flags"));
        }
        let mut last = Timestamp::read(reader)?;
        self.crtime = last;
        for (field, bit) in [
            (&mut self.ctime, CTIME_SAME),
            (&mut self.mtime, MTIME_SAME),
            (&mut self.atime, ATIME_SAME),
        ] {
            if flags & bit == 0 {
                last = Timestamp::read(reader)?;
            }
            *field = last;
        }
        Ok(())
    }

    /// What `stat` shows.
    pub fn attr(&self) -> Attr {
        Attr {
            ino: self.ino,
            generation: self.generation,
            kind: self.kind,
            perm: self.perm,
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            rdev: self.rdev,
            size: self.size,
            blocks: self.allocated.div_ceil(512),
            atime: self.atime.into(),
            mtime: self.mtime.into(),
            ctime: self.ctime.into(),
            crtime: self.crtime.into(),
        }
    }

    /// Where the name lies that it remembers.
    pub fn home(&self) -> LinkAt {
        LinkAt { dir: self.parent.object(), cookie: self.cookie }
    }

    /// BLAKE3 of the content as it is stored, if that is known.
    pub fn content_digest(&self) -> Option<Hash> {
        match (self.kind, self.size) {
            (FileKind::File, 0) => Some(blake3::hash(b"")),
            _ => self.digest,
        }
    }

    /// Whether it is a file whose digest is still to be computed.
    pub fn awaits_digest(&self) -> bool {
        self.kind == FileKind::File && self.size > 0 && self.nlink > 0 && self.digest.is_none()
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }
}
