//! Extended attributes, with the limits of Linux.

use bytes::Bytes;

use super::key::{self, HeadKey, Kind};
use super::record::{Inode, Version};
use super::store::Durability;
use super::{Namespace, Txn, acl};
use crate::error::{FsError, FsResult};
use crate::types::{Caller, FileKind, Ino, XattrMode};

/// Longest attribute name in bytes.
const XATTR_NAME_MAX: usize = 255;
/// Longest attribute value in bytes.
pub(super) const XATTR_SIZE_MAX: usize = 65_536;
/// Longest list of names, each with a terminator, in bytes.
pub(super) const XATTR_LIST_MAX: u32 = 65_536;

const NAMES_PER_PAGE: usize = 64;

pub(super) fn check_name(name: &[u8]) -> FsResult<()> {
    if name.is_empty() || name.len() > XATTR_NAME_MAX {
        return Err(FsError::Range);
    }
    if is_acl(name) {
        return Ok(());
    }
    for prefix in [b"user.".as_slice(), b"trusted.", b"security."] {
        if let Some(rest) = name.strip_prefix(prefix) {
            return match rest.is_empty() || name.contains(&0) {
                true => Err(FsError::Invalid("attribute name")),
                false => Ok(()),
            };
        }
    }
    Err(FsError::NotSupported("attribute namespace"))
}

pub(super) fn is_acl(name: &[u8]) -> bool {
    name == acl::ACCESS || name == acl::DEFAULT
}

pub(super) fn check_owner(name: &[u8], kind: FileKind) -> FsResult<()> {
    let fits = matches!(kind, FileKind::File | FileKind::Directory);
    if name.starts_with(b"user.") && !fits { Err(FsError::NotPermitted) } else { Ok(()) }
}

impl Namespace {
    /// Sets an extended attribute; an ACL is validated and the mode follows it.
    pub fn setxattr(
        &self,
        caller: &Caller,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> FsResult<()> {
        check_name(name)?;
        if value.len() > XATTR_SIZE_MAX {
            return Err(FsError::TooBig);
        }
        let _guard = self.lock(&[ino]);
        self.writable(ino)?;
        let mut inode = Inode::clone(&*self.inode(ino)?);
        check_owner(name, inode.kind)?;
        let mut txn = self.begin();
        if is_acl(name) {
            self.set_acl(&mut txn, &mut inode, caller, name, value)?;
        } else {
            let exists = self.attribute(&inode, name)?.is_some();
            match mode {
                XattrMode::Create if exists => return Err(FsError::Exists),
                XattrMode::Replace if !exists => return Err(FsError::NoAttribute),
                _ => self.set_attribute(&mut txn, &mut inode, name, value)?,
            }
        }
        inode.ctime = self.now();
        txn.put_inode(inode)?;
        txn.commit(Durability::Buffered)?;
        Ok(())
    }

    /// Value of an extended attribute.
    pub fn getxattr(&self, ino: Ino, name: &[u8]) -> FsResult<Vec<u8>> {
        let inode = self.inode(ino)?;
        match self.attribute(&inode, name)? {
            Some((_, value)) => Ok(value.to_vec()),
            None => {
                check_name(name)?;
                Err(FsError::NoAttribute)
            }
        }
    }

    /// Names of all extended attributes.
    pub fn listxattr(&self, ino: Ino) -> FsResult<Vec<Vec<u8>>> {
        let inode = self.inode(ino)?;
        let mut names = Vec::new();
        if inode.xattr_names == 0 {
            return Ok(names);
        }
        let view = self.view(ino)?;
        let end = key::head_end(view.line, ino, Kind::Xattr);
        let mut from = key::head(view.line, ino, Kind::Xattr).to_vec();
        loop {
            let page = self.scan(&view, &from, &end, NAMES_PER_PAGE)?;
            for item in &page.items {
                names.push(HeadKey::decode(&item.key)?.sub.to_vec());
            }
            let Some(next) = page.next else { return Ok(names) };
            from = next;
        }
    }

    /// Removes an extended attribute.
    pub fn removexattr(&self, _caller: &Caller, ino: Ino, name: &[u8]) -> FsResult<()> {
        check_name(name)?;
        let _guard = self.lock(&[ino]);
        self.writable(ino)?;
        let mut inode = Inode::clone(&*self.inode(ino)?);
        check_owner(name, inode.kind)?;
        let mut txn = self.begin();
        if is_acl(name) {
            self.remove_acl(&mut txn, &mut inode, name)?;
        } else if !self.remove_attribute(&mut txn, &mut inode, name)? {
            return Err(FsError::NoAttribute);
        }
        inode.ctime = self.now();
        txn.put_inode(inode)?;
        txn.commit(Durability::Buffered)?;
        Ok(())
    }

    /// The stored value; asks the store only when the inode has attributes at all.
    pub(super) fn attribute(
        &self,
        inode: &Inode,
        name: &[u8],
    ) -> FsResult<Option<(Version, Bytes)>> {
        if inode.xattr_names == 0 || name.is_empty() || name.len() > XATTR_NAME_MAX {
            return Ok(None);
        }
        let view = self.view(inode.ino)?;
        let found = self.read(&view, &key::head_named(view.line, inode.ino, Kind::Xattr, name))?;
        Ok(found.filter(|(version, _)| !version.whiteout))
    }

    /// Stages a value and accounts for a new name in `inode`, which the caller stores.
    pub(super) fn set_attribute(
        &self,
        txn: &mut Txn<'_>,
        inode: &mut Inode,
        name: &[u8],
        value: &[u8],
    ) -> FsResult<()> {
        self.set_attribute_within(txn, inode, (name, value), XATTR_LIST_MAX)
    }

    /// [`Namespace::set_attribute`] with another bound for the list of names.
    pub(super) fn set_attribute_within(
        &self,
        txn: &mut Txn<'_>,
        inode: &mut Inode,
        (name, value): (&[u8], &[u8]),
        list_max: u32,
    ) -> FsResult<()> {
        let view = self.view(inode.ino)?;
        let found = self.read(&view, &key::head_named(view.line, inode.ino, Kind::Xattr, name))?;
        let version = found.as_ref().map(|(version, _)| *version);
        if version.is_none_or(|version| version.whiteout) {
            let names = inode.xattr_names + name.len() as u32 + 1;
            if names > list_max {
                return Err(FsError::NoSpace);
            }
            inode.xattr_names = names;
        }
        txn.put_xattr(inode, name, version, value)
    }

    /// Stages a removal and accounts for it in `inode`, which the caller stores; `false` when
    /// there is no such attribute.
    pub(super) fn remove_attribute(
        &self,
        txn: &mut Txn<'_>,
        inode: &mut Inode,
        name: &[u8],
    ) -> FsResult<bool> {
        let Some((version, _)) = self.attribute(inode, name)? else { return Ok(false) };
        let key = key::head_named(self.view(inode.ino)?.line, inode.ino, Kind::Xattr, name);
        txn.remove_record(inode.ino, Kind::Xattr, &key, version)?;
        inode.xattr_names = inode.xattr_names.saturating_sub(name.len() as u32 + 1);
        Ok(true)
    }
}
