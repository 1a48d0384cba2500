//! Inodes without a name: kept while they are in use, then cleared away in bounded batches.

use firn_tiering::BlockId;

use super::key::{self, Kind};
use super::record::Inode;
use super::store::{Durability, Space};
use super::view::behind;
use super::{Namespace, Txn};
use crate::error::FsResult;
use crate::types::{FileKind, Ino};

/// Changes after which a batch is committed.
const CHANGES_PER_BATCH: usize = 1024;

/// Attributes removed in one batch; each may be 64 KiB.
const XATTRS_PER_PAGE: usize = 64;

impl Namespace {
    /// Inodes without a name in live datasets, those behind `after`, at most `limit` at a time.
    pub fn orphans(&self, after: Option<Ino>, limit: usize) -> FsResult<Vec<Ino>> {
        let mut from = match after {
            Some(after) => behind(&key::meta_inode(key::ORPHANS, self.view(after)?.line, after)),
            None => vec![key::ORPHANS],
        };
        let mut found = Vec::new();
        loop {
            let end = [key::ORPHANS + 1];
            let page = self.gate.store().page(Space::Meta, &from, Some(&end), limit)?;
            for (key, _) in &page.items {
                let (line, object) = key::meta_inode_decode(key)?;
                // What a destroyed dataset left goes with the rest of its line.
                if let Ok(view) = self.live_view(line) {
                    found.push(view.lift(object));
                    if found.len() == limit {
                        return Ok(found);
                    }
                }
            }
            match page.items.last().filter(|_| page.more) {
                Some((last, _)) => from = behind(last),
                None => return Ok(found),
            }
        }
    }

    /// Removes orphans with all they hold; the caller knows that nobody uses them any more.
    /// Takes locks itself. What is not an orphan is left alone. Adds the blocks to which nothing
    /// refers any more to `unreferenced`, as [`super::Committed`] does; also with an error, which
    /// takes nothing back of what was committed before it.
    pub fn purge(&self, inodes: &[Ino], unreferenced: &mut Vec<BlockId>) -> FsResult<()> {
        // A batch covers many small files under one set of locks.
        for group in inodes.chunks(64) {
            let mut large = Vec::new();
            let guard = self.lock(group);
            let mut txn = self.begin();
            for &ino in group {
                txn = self.purge_one(txn, ino, &mut large, unreferenced)?;
            }
            unreferenced.extend(txn.commit(Durability::Buffered)?.unreferenced);
            drop(guard);
            large.into_iter().try_for_each(|ino| self.purge_slots(ino, unreferenced))?;
        }
        Ok(())
    }

    /// Removes a large orphan. Nobody can reach it, so that the locks, which others share, need
    /// not be held from one batch to the next.
    fn purge_slots(&self, ino: Ino, unreferenced: &mut Vec<BlockId>) -> FsResult<()> {
        let mut from = Some(0);
        while let Some(slot) = from {
            let _guard = self.lock(&[ino]);
            let found = match self.view(ino) {
                Ok(_) => self.find_inode(ino)?.filter(|found| found.nlink == 0),
                Err(_) => None,
            };
            let Some(found) = found else { return Ok(()) };
            let mut inode = Inode::clone(&found);
            let mut txn = self.begin();
            from = self.remove_slots(&mut txn, &mut inode, slot)?;
            let txn = match from {
                Some(_) => txn.put_inode(inode).map(|_| txn)?,
                None => {
                    // Only of many extents is a part removed and the rest noted.
                    txn.remove_truncation(ino)?;
                    self.purge_rest(txn, &inode, unreferenced)?
                }
            };
            unreferenced.extend(txn.commit(Durability::Buffered)?.unreferenced);
        }
        Ok(())
    }

    fn purge_one<'a>(
        &'a self,
        mut txn: Txn<'a>,
        ino: Ino,
        large: &mut Vec<Ino>,
        unreferenced: &mut Vec<BlockId>,
    ) -> FsResult<Txn<'a>> {
        // A view that is gone took its orphans along.
        if self.view(ino).is_err() {
            return Ok(txn);
        }
        let Some(found) = self.find_inode(ino)? else {
            txn.remove_orphan(ino)?;
            return Ok(txn);
        };
        if found.nlink != 0 {
            return Ok(txn);
        }
        let mut inode = Inode::clone(&found);
        if self.remove_first_slot(&mut txn, &mut inode)?.is_some() {
            txn.put_inode(inode)?;
            large.push(ino);
            return Ok(txn);
        }
        self.purge_rest(txn, &inode, unreferenced)
    }

    /// Removes what an orphan has beside content, and the orphan.
    fn purge_rest<'a>(
        &'a self,
        mut txn: Txn<'a>,
        inode: &Inode,
        unreferenced: &mut Vec<BlockId>,
    ) -> FsResult<Txn<'a>> {
        let ino = inode.ino;
        while inode.xattr_names > 0 && self.remove_xattrs(&mut txn, inode)? {
            unreferenced.extend(txn.commit(Durability::Buffered)?.unreferenced);
            txn = self.begin();
        }
        if inode.kind == FileKind::Symlink {
            let view = self.view(ino)?;
            let key = key::head(view.line, ino, Kind::Symlink);
            if let Some((version, _)) = self.read(&view, &key)? {
                txn.remove_record(ino, Kind::Symlink, &key, version)?;
            }
        }
        txn.remove_inode(inode)?;
        txn.remove_orphan(ino)?;
        if inode.kind == FileKind::File && inode.digest.is_none() {
            txn.remove_digest_note(ino)?;
        }
        if txn.len() >= CHANGES_PER_BATCH {
            unreferenced.extend(txn.commit(Durability::Buffered)?.unreferenced);
            txn = self.begin();
        }
        Ok(txn)
    }

    /// Removes up to a batch full of attributes; `true` when some are left.
    fn remove_xattrs(&self, txn: &mut Txn<'_>, inode: &Inode) -> FsResult<bool> {
        let view = self.view(inode.ino)?;
        let end = key::head_end(view.line, inode.ino, Kind::Xattr);
        // Whiteouts stay, so that a batch must go on behind the last key of the one before.
        let mut from = key::head(view.line, inode.ino, Kind::Xattr).to_vec();
        loop {
            let page = self.scan(&view, &from, &end, XATTRS_PER_PAGE)?;
            for item in &page.items {
                txn.remove_record(inode.ino, Kind::Xattr, &item.key, item.version)?;
            }
            let Some(next) = page.next else { return Ok(false) };
            from = next;
            if txn.len() >= CHANGES_PER_BATCH {
                return Ok(true);
            }
        }
    }
}
