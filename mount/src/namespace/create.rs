//! Making entries: files, directories, symbolic links, device nodes, hard links.

use std::sync::Arc;

use super::attr::{PERM_MASK, S_ISGID, S_IXGRP};
use super::groups::in_group_or_capable;
use super::key::LinkAt;
use super::links::{LinkChanges, remember};
use super::names::check_name;
use super::record::{Inode, InodeFlags, Timestamp, Version, kind_of_mode};
use super::store::Durability;
use super::{Namespace, Txn, acl};
use crate::error::{FsError, FsResult};
use crate::types::{Caller, FileKind, Ino};

/// Most names of a file, and most subdirectories of a directory.
pub(super) const MAX_LINKS: u32 = i32::MAX as u32;

/// Longest target of a symbolic link in bytes.
pub(super) const SYMLINK_MAX: usize = 4095;

/// What to create.
#[derive(Clone, Copy, Debug)]
pub struct NewFile<'a> {
    /// File type.
    pub kind: FileKind,
    /// Permission bits as asked for.
    pub perm: u16,
    /// Bits that are not given where the parent has no default ACL.
    pub umask: u32,
    /// Device number of a device node.
    pub rdev: u32,
    /// Target of a symbolic link.
    pub target: &'a [u8],
}

impl Inode {
    /// A file without content, times all `now`; to be completed.
    pub(super) fn new(ino: Ino, version: Version, now: Timestamp) -> Self {
        Self {
            ino,
            version,
            kind: FileKind::File,
            perm: 0,
            flags: InodeFlags::default(),
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            allocated: 0,
            xattr_names: 0,
            generation: 1,
            parent: Ino::ROOT,
            cookie: 0,
            atime: now,
            mtime: now,
            ctime: now,
            crtime: now,
            digest: None,
        }
    }
}

impl Namespace {
    /// Creates a file, fifo, socket or device; `mode` is `S_IFMT | permission bits`.
    pub fn mknod(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        mode: u32,
        umask: u32,
        rdev: u32,
    ) -> FsResult<Arc<Inode>> {
        let kind = match kind_of_mode(mode) {
            None if mode & !u32::from(PERM_MASK) == 0 => FileKind::File,
            None => return Err(FsError::Invalid("file type")),
            Some(FileKind::Directory | FileKind::Symlink) => return Err(FsError::NotPermitted),
            Some(kind) => kind,
        };
        let rdev = match kind {
            FileKind::CharDevice | FileKind::BlockDevice => rdev,
            _ => 0,
        };
        let perm = (mode & u32::from(PERM_MASK)) as u16;
        self.create_entry(caller, parent, name, &NewFile { kind, perm, umask, rdev, target: b"" })
    }

    /// Creates a directory.
    pub fn mkdir(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        mode: u32,
        umask: u32,
    ) -> FsResult<Arc<Inode>> {
        let perm = (mode & u32::from(PERM_MASK)) as u16;
        let new = NewFile { kind: FileKind::Directory, perm, umask, rdev: 0, target: b"" };
        self.create_entry(caller, parent, name, &new)
    }

    /// Creates a symbolic link.
    pub fn symlink(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        target: &[u8],
    ) -> FsResult<Arc<Inode>> {
        if target.is_empty() {
            return Err(FsError::NotFound);
        }
        if target.len() > SYMLINK_MAX {
            return Err(FsError::NameTooLong);
        }
        let new = NewFile { kind: FileKind::Symlink, perm: 0o777, umask: 0, rdev: 0, target };
        self.create_entry(caller, parent, name, &new)
    }

    /// Target of a symbolic link.
    pub fn readlink(&self, ino: Ino) -> FsResult<Vec<u8>> {
        let inode = self.inode(ino)?;
        if inode.kind != FileKind::Symlink {
            return Err(FsError::Invalid("not a symbolic link"));
        }
        let view = self.view(ino)?;
        let key = super::key::head(view.line, ino, super::key::Kind::Symlink);
        match self.read(&view, &key)? {
            Some((version, target)) if !version.whiteout => Ok(target.to_vec()),
            _ => Err(FsError::io("namespace", "a symbolic link has no target")),
        }
    }

    /// Creates any entry but a hard link, in one batch.
    pub fn create_entry(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        new: &NewFile<'_>,
    ) -> FsResult<Arc<Inode>> {
        let _guard = self.lock(&[parent]);
        let (txn, inode) = self.stage_entry(caller, parent, name, new)?;
        txn.commit(Durability::Buffered)?;
        Ok(inode)
    }

    /// Stages a new entry. The caller keeps changes of the parent out.
    pub(super) fn stage_entry(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        new: &NewFile<'_>,
    ) -> FsResult<(Txn<'_>, Arc<Inode>)> {
        check_name(name)?;
        self.gate.check()?;
        let view = self.writable(parent)?;
        let mut dir = Inode::clone(&*self.directory(parent)?);
        let mut place = self.place(parent, name)?;
        if place.bucket.find(name).is_some() {
            return Err(FsError::Exists);
        }
        let now = self.now();
        let ino = view.lift(Ino(self.ids.inode()?));
        let mut inode = Inode {
            kind: new.kind,
            perm: new.perm & PERM_MASK,
            uid: caller.uid,
            gid: caller.gid,
            rdev: new.rdev,
            size: new.target.len() as u64,
            parent,
            cookie: place.insert(name, ino, new.kind)?,
            ..Inode::new(ino, Version::first(view.node), now)
        };
        if new.kind == FileKind::Directory {
            inode.nlink = 2;
            add_link(&mut dir)?;
        }
        inherit_group(&mut inode, &dir, caller);
        let mut txn = self.begin();
        self.inherit_acl(&mut txn, &mut inode, &dir, new)?;
        if new.kind == FileKind::Symlink {
            txn.put_symlink(&inode, new.target)?;
        }
        entry_added(&mut dir, now);
        place.stage(&mut txn, &dir)?;
        txn.put_inode(dir)?;
        let inode = txn.add_inode(inode)?;
        Ok((txn, inode))
    }

    /// Default ACL of the parent, or the umask.
    fn inherit_acl(
        &self,
        txn: &mut Txn<'_>,
        inode: &mut Inode,
        dir: &Inode,
        new: &NewFile<'_>,
    ) -> FsResult<()> {
        if inode.kind == FileKind::Symlink {
            return Ok(());
        }
        let Some(inherited) = self.default_acl(dir)? else {
            inode.perm &= !(new.umask as u16 & 0o777);
            return Ok(());
        };
        let mut access = inherited.clone();
        inode.perm = access.inherit(inode.perm);
        if access.is_extended() {
            self.put_acl(txn, inode, acl::ACCESS, &access)?;
        }
        if inode.is_dir() {
            self.put_acl(txn, inode, acl::DEFAULT, &inherited)?;
        }
        Ok(())
    }

    /// Creates a hard link.
    pub fn link(&self, ino: Ino, new_parent: Ino, new_name: &[u8]) -> FsResult<Arc<Inode>> {
        check_name(new_name)?;
        let _guard = self.lock(&[ino, new_parent]);
        if self.writable(ino)?.index != self.writable(new_parent)?.index {
            return Err(FsError::CrossesDatasets);
        }
        let mut dir = Inode::clone(&*self.directory(new_parent)?);
        let mut inode = Inode::clone(&*self.inode(ino)?);
        if inode.is_dir() {
            return Err(FsError::NotPermitted);
        }
        let mut place = self.place(new_parent, new_name)?;
        if place.bucket.find(new_name).is_some() {
            return Err(FsError::Exists);
        }
        if inode.nlink == 0 {
            return Err(FsError::NotFound);
        }
        let home = match inode.nlink {
            1 => self.name_in_parent(&inode)?,
            _ => None,
        };
        let cookie = place.insert(new_name, ino, inode.kind)?;
        let at = LinkAt { dir: new_parent.object(), cookie };
        let mut links = LinkChanges::default();
        links.gain(&mut inode, (at, new_name), home.as_deref())?;
        let now = self.now();
        inode.ctime = now;
        remember(&mut inode, new_parent, cookie);
        entry_added(&mut dir, now);
        let mut txn = self.begin();
        links.stage(&mut txn, &inode)?;
        place.stage(&mut txn, &dir)?;
        txn.put_inode(dir)?;
        let inode = txn.put_inode(inode)?;
        txn.commit(Durability::Buffered)?;
        Ok(inode)
    }
}

/// One more name or subdirectory.
pub(super) fn add_link(inode: &mut Inode) -> FsResult<()> {
    if inode.nlink >= MAX_LINKS {
        return Err(FsError::TooManyLinks);
    }
    inode.nlink += 1;
    Ok(())
}

/// A directory has one more entry.
pub(super) fn entry_added(dir: &mut Inode, now: Timestamp) {
    dir.size += 1;
    dir.mtime = now;
    dir.ctime = now;
}

/// A directory with setgid passes its group on, and to subdirectories the bit too.
fn inherit_group(inode: &mut Inode, dir: &Inode, caller: &Caller) {
    if dir.perm & S_ISGID == 0 {
        return;
    }
    inode.gid = dir.gid;
    if inode.is_dir() {
        inode.perm |= S_ISGID;
    } else if inode.perm & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP
        && !in_group_or_capable(caller, dir.gid)
    {
        inode.perm &= !S_ISGID;
    }
}
