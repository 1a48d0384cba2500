//! Attributes: reading them, changing them, and when setuid and setgid go away.

use std::sync::Arc;

use super::groups::in_group_or_capable;
use super::record::{Inode, InodeFlags};
use super::store::Durability;
use super::{Namespace, Txn};
use crate::error::FsResult;
use crate::types::{Attr, Caller, Ino, SetAttr, SetTime};

pub(super) const S_ISUID: u16 = 0o4000;
pub(super) const S_ISGID: u16 = 0o2000;
pub(super) const S_IXGRP: u16 = 0o010;
pub(super) const PERM_MASK: u16 = 0o7777;

/// The attribute that gives a program capabilities; lost like setuid.
const CAPABILITY: &[u8] = b"security.capability";

/// Whether the caller belongs to group `gid`, or is root.
pub fn in_group(caller: &Caller, gid: u32) -> bool {
    in_group_or_capable(caller, gid)
}

/// Permission bits after a change of owner, or a write or size change by someone without
/// privilege: setuid goes; setgid goes where the group may execute, and otherwise (a mark of
/// mandatory locking) unless the caller belongs to the group.
pub fn cleared_privileges(perm: u16, in_group: impl FnOnce() -> bool) -> u16 {
    let mut perm = perm & !S_ISUID;
    if perm & S_ISGID != 0 && (perm & S_IXGRP != 0 || !in_group()) {
        perm &= !S_ISGID;
    }
    perm
}

/// Whether a change is of times alone that the kernel keeps itself (it tells the change time of such
/// files only), of a file without a name: nobody asks for them once the kernel has forgotten it.
fn outlived_by_kernel(inode: &Inode, changes: &SetAttr) -> bool {
    let SetAttr { perm, uid, gid, size, atime, mtime: _, ctime } = changes;
    let others =
        perm.is_some() || uid.is_some() || gid.is_some() || size.is_some() || atime.is_some();
    inode.nlink == 0 && ctime.is_some() && !others
}

impl Namespace {
    /// Attributes as stored; a file with unflushed writes has newer ones.
    pub fn getattr(&self, ino: Ino) -> FsResult<Attr> {
        Ok(self.inode(ino)?.attr())
    }

    /// Changes all attributes but the size. What changes nothing is not stored: behind each removal,
    /// renaming, link and attribute the kernel sends the change time once more.
    pub fn setattr(&self, caller: &Caller, ino: Ino, changes: &SetAttr) -> FsResult<Arc<Inode>> {
        let _guard = self.lock(&[ino]);
        self.writable(ino)?;
        let old = self.inode(ino)?;
        let mut inode = Inode::clone(&old);
        let mut txn = self.begin();
        self.change_attributes(&mut txn, &mut inode, caller, changes)?;
        if txn.is_empty() && (inode == *old || outlived_by_kernel(&old, changes)) {
            self.gate.check()?;
            return Ok(old);
        }
        let stored = txn.put_inode(inode)?;
        txn.commit(Durability::Buffered)?;
        Ok(stored)
    }

    /// Applies all changes but the size to `inode`, staging what they mean for its ACL and
    /// capabilities. The caller holds its lock and stores it in the same change.
    pub fn change_attributes(
        &self,
        txn: &mut Txn<'_>,
        inode: &mut Inode,
        caller: &Caller,
        changes: &SetAttr,
    ) -> FsResult<()> {
        let now = self.now();
        if changes.uid.is_some() || changes.gid.is_some() {
            if !inode.is_dir() {
                inode.perm =
                    cleared_privileges(inode.perm, || in_group_or_capable(caller, inode.gid));
                self.drop_capability(txn, inode)?;
            }
            inode.uid = changes.uid.unwrap_or(inode.uid);
            inode.gid = changes.gid.unwrap_or(inode.gid);
        }
        if let Some(perm) = changes.perm {
            let mut perm = perm & PERM_MASK;
            if perm & S_ISGID != 0 && !in_group_or_capable(caller, inode.gid) {
                perm &= !S_ISGID;
            }
            if inode.flags.has(InodeFlags::ACCESS_ACL) {
                self.chmod_acl(txn, inode, perm)?;
            }
            inode.perm = perm;
        }
        let time = |set| match set {
            SetTime::Now => now,
            SetTime::At(at) => at.into(),
        };
        inode.atime = changes.atime.map_or(inode.atime, time);
        inode.mtime = changes.mtime.map_or(inode.mtime, time);
        inode.ctime = changes.ctime.map_or(now, Into::into);
        Ok(())
    }

    /// Removes the file capabilities, as every write and change of owner must. The caller holds
    /// the inode's lock and stores it in the same change.
    pub fn drop_capability(&self, txn: &mut Txn<'_>, inode: &mut Inode) -> FsResult<()> {
        if inode.xattr_names > 0 {
            self.remove_attribute(txn, inode, CAPABILITY)?;
        }
        Ok(())
    }
}
