//! POSIX ACLs: their stored form (that of Linux's `system.posix_acl_*`), what is valid, and how
//! they and the mode follow each other. The rules are those of POSIX 1003.1e draft 17 as Linux
//! has them.

use super::Namespace;
use super::Txn;
use super::attr::S_ISGID;
use super::groups::in_group_or_capable;
use super::record::{Inode, InodeFlags, Reader, RecordError};
use crate::error::{FsError, FsResult};
use crate::types::{Caller, FileKind};

/// Name of the ACL that governs access.
pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
/// Name of the ACL that new entries of a directory inherit.
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const ENTRY_LEN: usize = 8;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

const RWX: u16 = 0o7;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AclEntry {
    tag: u16,
    perm: u16,
    id: u32,
}

/// A valid ACL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acl(Vec<AclEntry>);

impl Acl {
    /// Reads and validates; `None` for the empty ACL, which means none at all.
    pub(super) fn parse(bytes: &[u8]) -> FsResult<Option<Self>> {
        let entries = Self::entries(bytes).map_err(|_| FsError::Invalid("malformed ACL"))?;
        if entries.is_empty() {
            return Ok(None);
        }
        let acl = Self(entries);
        if !acl.is_valid() {
            return Err(FsError::Invalid("invalid ACL"));
        }
        Ok(Some(acl))
    }

    fn entries(bytes: &[u8]) -> Result<Vec<AclEntry>, RecordError> {
        let mut reader = Reader::new("acl", bytes);
        if reader.u32_le()? != VERSION {
            return Err(reader.error("unknown version"));
        }
        let mut entries = Vec::with_capacity(reader.len() / ENTRY_LEN);
        while !reader.is_empty() {
            let head = reader.u32_le()?;
            let id = reader.u32_le()?;
            entries.push(AclEntry { tag: head as u16, perm: (head >> 16) as u16, id });
        }
        Ok(entries)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + self.0.len() * ENTRY_LEN);
        out.extend_from_slice(&VERSION.to_le_bytes());
        for entry in &self.0 {
            out.extend_from_slice(&entry.tag.to_le_bytes());
            out.extend_from_slice(&entry.perm.to_le_bytes());
            out.extend_from_slice(&entry.id.to_le_bytes());
        }
        out
    }

    /// Owner, named users, group, named groups, mask (needed with named ones), others.
    fn is_valid(&self) -> bool {
        let mut expected = USER_OBJ;
        let mut needs_mask = false;
        for entry in &self.0 {
            if entry.perm & !RWX != 0 {
                return false;
            }
            expected = match (entry.tag, expected) {
                (USER_OBJ, USER_OBJ) => USER,
                (USER, USER) | (GROUP, GROUP) if entry.id != u32::MAX => {
                    needs_mask = true;
                    expected
                }
                (GROUP_OBJ, USER) => GROUP,
                (MASK, GROUP) => OTHER,
                (OTHER, OTHER) => 0,
                (OTHER, GROUP) if !needs_mask => 0,
                _ => return false,
            };
        }
        expected == 0
    }

    fn entry(&mut self, tag: u16) -> Option<&mut AclEntry> {
        self.0.iter_mut().find(|entry| entry.tag == tag)
    }

    /// Who gets the group bits of the mode: the mask, where there is one.
    fn group_class(&mut self) -> Option<&mut AclEntry> {
        let tag = if self.is_extended() { MASK } else { GROUP_OBJ };
        // Without named entries there may be a mask or not.
        if self.0.iter().any(|entry| entry.tag == MASK) {
            return self.entry(MASK);
        }
        self.entry(tag)
    }

    /// Whether it says more than the nine permission bits.
    pub(super) fn is_extended(&self) -> bool {
        self.0.iter().any(|entry| matches!(entry.tag, USER | GROUP | MASK))
    }

    /// The permission bits that show it.
    pub(super) fn permission_bits(&mut self) -> u16 {
        let mut bits = 0;
        for (tag, shift) in [(USER_OBJ, 6), (OTHER, 0)] {
            bits |= self.entry(tag).map_or(0, |entry| entry.perm << shift);
        }
        bits | self.group_class().map_or(0, |entry| entry.perm << 3)
    }

    /// Follows a `chmod`.
    pub(super) fn chmod(&mut self, perm: u16) {
        if let Some(entry) = self.entry(USER_OBJ) {
            entry.perm = perm >> 6 & RWX;
        }
        if let Some(entry) = self.entry(OTHER) {
            entry.perm = perm & RWX;
        }
        if let Some(entry) = self.group_class() {
            entry.perm = perm >> 3 & RWX;
        }
    }

    /// Turns a default ACL into the access ACL of a new file made with permission bits `perm`;
    /// returns the bits that the file gets.
    pub(super) fn inherit(&mut self, perm: u16) -> u16 {
        for (tag, shift) in [(USER_OBJ, 6), (OTHER, 0)] {
            if let Some(entry) = self.entry(tag) {
                entry.perm &= perm >> shift & RWX;
            }
        }
        if let Some(entry) = self.group_class() {
            entry.perm &= perm >> 3 & RWX;
        }
        perm & !0o777 | self.permission_bits()
    }
}

impl Namespace {
    fn stored_acl(&self, inode: &Inode, name: &[u8]) -> FsResult<Option<Acl>> {
        match self.attribute(inode, name)? {
            Some((_, bytes)) => Acl::parse(&bytes),
            None => Ok(None),
        }
    }

    /// The ACL that entries of `dir` inherit.
    pub(super) fn default_acl(&self, dir: &Inode) -> FsResult<Option<Acl>> {
        if dir.flags.has(InodeFlags::DEFAULT_ACL) {
            self.stored_acl(dir, DEFAULT)
        } else {
            Ok(None)
        }
    }

    /// Lets the access ACL follow new permission bits.
    pub(super) fn chmod_acl(
        &self,
        txn: &mut Txn<'_>,
        inode: &mut Inode,
        perm: u16,
    ) -> FsResult<()> {
        if let Some(mut acl) = self.stored_acl(inode, ACCESS)? {
            acl.chmod(perm);
            self.set_attribute(txn, inode, ACCESS, &acl.encode())?;
        }
        Ok(())
    }

    /// Sets or (when empty) removes an ACL; the mode follows.
    pub(super) fn set_acl(
        &self,
        txn: &mut Txn<'_>,
        inode: &mut Inode,
        caller: &Caller,
        name: &[u8],
        value: &[u8],
    ) -> FsResult<()> {
        if inode.kind == FileKind::Symlink {
            return Err(FsError::NotSupported("ACL of a symbolic link"));
        }
        let acl = Acl::parse(value)?;
        if name == DEFAULT {
            return match acl {
                Some(_) if !inode.is_dir() => Err(FsError::AccessDenied),
                Some(acl) => self.put_acl(txn, inode, name, &acl),
                None => self.remove_acl(txn, inode, name),
            };
        }
        let Some(mut acl) = acl else { return self.remove_acl(txn, inode, name) };
        inode.perm = inode.perm & !0o777 | acl.permission_bits();
        if !in_group_or_capable(caller, inode.gid) {
            inode.perm &= !S_ISGID;
        }
        match acl.is_extended() {
            true => self.put_acl(txn, inode, name, &acl),
            false => self.remove_acl(txn, inode, name),
        }
    }

    pub(super) fn put_acl(
        &self,
        txn: &mut Txn<'_>,
        inode: &mut Inode,
        name: &[u8],
        acl: &Acl,
    ) -> FsResult<()> {
        self.set_attribute(txn, inode, name, &acl.encode())?;
        inode.flags.set(flag_of(name), true);
        Ok(())
    }

    pub(super) fn remove_acl(
        &self,
        txn: &mut Txn<'_>,
        inode: &mut Inode,
        name: &[u8],
    ) -> FsResult<()> {
        if inode.flags.has(flag_of(name)) {
            self.remove_attribute(txn, inode, name)?;
            inode.flags.set(flag_of(name), false);
        }
        Ok(())
    }
}

fn flag_of(name: &[u8]) -> u32 {
    if name == ACCESS { InodeFlags::ACCESS_ACL } else { InodeFlags::DEFAULT_ACL }
}

/// Says with an inode's flags that it has an attribute, if that is an ACL.
pub(super) fn flag(flags: &mut InodeFlags, attribute: &[u8]) {
    if attribute == ACCESS || attribute == DEFAULT {
        flags.set(flag_of(attribute), true);
    }
}

#[cfg(test)]
mod tests;
