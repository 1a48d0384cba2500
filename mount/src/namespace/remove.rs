//! Removing entries.

use std::sync::Arc;

use super::directory::Place;
use super::key::LinkAt;
use super::links::LinkChanges;
use super::names::check_name;
use super::record::{Inode, Timestamp};
use super::store::Durability;
use super::{InodeGuard, Namespace, Txn};
use crate::error::{FsError, FsResult};
use crate::types::Ino;

/// What lost a name.
#[derive(Clone, Debug)]
pub struct Removed {
    /// The inode as it is now. With `nlink == 0` it is an orphan: [`Namespace::purge`] it once
    /// nobody uses it.
    pub inode: Arc<Inode>,
}

impl Removed {
    /// Whether that was the last name.
    pub fn is_orphan(&self) -> bool {
        self.inode.nlink == 0
    }
}

/// An entry, its directory and what it names.
struct Found {
    dir: Inode,
    place: Place,
    child: Inode,
}

impl Namespace {
    /// Removes an entry that is not a directory.
    pub fn unlink(&self, parent: Ino, name: &[u8]) -> FsResult<Removed> {
        let (_guard, found) = self.lock_entry(parent, name)?;
        if found.child.is_dir() {
            return Err(FsError::IsDirectory);
        }
        self.remove_entry(found, name)
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, parent: Ino, name: &[u8]) -> FsResult<Removed> {
        let (_guard, found) = self.lock_entry(parent, name)?;
        if !found.child.is_dir() {
            return Err(FsError::NotDirectory);
        }
        if found.child.size != 0 {
            return Err(FsError::NotEmpty);
        }
        self.check_awaits_no_entry(found.child.ino)?;
        self.remove_entry(found, name)
    }

    fn remove_entry(&self, found: Found, name: &[u8]) -> FsResult<Removed> {
        let (txn, inode) = self.stage_found(found, name)?;
        txn.commit(Durability::Buffered)?;
        Ok(Removed { inode })
    }

    /// Stages the removal of the entry `name` of a directory, which names `child`. The caller
    /// keeps changes of both out.
    pub(super) fn stage_removal(
        &self,
        parent: Ino,
        name: &[u8],
        child: &Inode,
    ) -> FsResult<(Txn<'_>, Arc<Inode>)> {
        let dir = Inode::clone(&*self.directory(parent)?);
        let place = self.place(parent, name)?;
        self.stage_found(Found { dir, place, child: child.clone() }, name)
    }

    fn stage_found(&self, found: Found, name: &[u8]) -> FsResult<(Txn<'_>, Arc<Inode>)> {
        let Found { mut dir, mut place, child } = found;
        let now = self.now();
        let gone = place.bucket.remove(name).ok_or(FsError::NotFound)?;
        let at = LinkAt { dir: dir.ino.object(), cookie: place.cookie(gone.position) };
        entry_removed(&mut dir, now)?;
        if child.is_dir() {
            dir.nlink = dir.nlink.saturating_sub(1);
        }
        let mut txn = self.begin();
        place.stage(&mut txn, &dir)?;
        txn.put_inode(dir)?;
        let inode = self.lose_name(&mut txn, child, at, now)?;
        Ok((txn, inode))
    }

    fn lock_entry(&self, parent: Ino, name: &[u8]) -> FsResult<(InodeGuard<'_>, Found)> {
        check_name(name)?;
        self.gate.check()?;
        let mut guard = self.lock(&[parent]);
        loop {
            self.writable(parent)?;
            let dir = self.directory(parent)?;
            let place = self.place(parent, name)?;
            let ino = place.bucket.find(name).ok_or(FsError::NotFound)?.ino;
            self.check_not_junction(ino)?;
            if self.locks.extend(&mut guard, ino) {
                let child = Inode::clone(&*self.named_inode(ino)?);
                return Ok((guard, Found { dir: Inode::clone(&dir), place, child }));
            }
            // Taken in the right order instead; the entry may be another one by then.
            drop(guard);
            guard = self.lock(&[parent, ino]);
        }
    }

    /// An inode loses the name that lies at `at`; a directory its only one.
    pub(super) fn lose_name(
        &self,
        txn: &mut Txn<'_>,
        mut inode: Inode,
        at: LinkAt,
        now: Timestamp,
    ) -> FsResult<Arc<Inode>> {
        if inode.is_dir() {
            inode.nlink = 0;
        } else {
            let mut links = LinkChanges::default();
            links.lose(self, &mut inode, at)?;
            links.stage(txn, &inode)?;
        }
        inode.ctime = now;
        if inode.nlink == 0 {
            txn.add_orphan(inode.ino)?;
        }
        txn.put_inode(inode)
    }

    /// An inode that a locked entry names.
    pub(super) fn named_inode(&self, ino: Ino) -> FsResult<Arc<Inode>> {
        self.find_inode(ino)?
            .ok_or_else(|| FsError::io("namespace", format!("entry without an inode: {}", ino.0)))
    }
}

/// A directory has one entry less.
pub(super) fn entry_removed(dir: &mut Inode, now: Timestamp) -> FsResult<()> {
    dir.size = dir
        .size
        .checked_sub(1)
        .ok_or_else(|| FsError::io("namespace", "damaged directory: more entries than counted"))?;
    dir.mtime = now;
    dir.ctime = now;
    Ok(())
}
