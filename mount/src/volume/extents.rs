//! The namespace as open files see it: slots, and commits of many files in one batch.

use std::ops::Range;
use std::sync::Arc;

use firn_tiering::BlockId;

use crate::error::{FsError, FsResult};
use crate::file::extents::{Extents, FileCommit};
use crate::namespace::{Durability, Inode, Namespace, Piece, Timestamp, Txn};
use crate::types::{Attr, Ino};

/// Slots looked at together.
const PAGE: usize = 512;

/// Changes after which the clearing of very many slots goes on in another batch.
const MAX_CHANGES: usize = 1 << 16;

/// Committed extents in a [`Namespace`].
#[derive(Debug)]
pub(super) struct NamespaceExtents {
    names: Arc<Namespace>,
}

impl NamespaceExtents {
    pub(super) fn new(names: Arc<Namespace>) -> Self {
        Self { names }
    }

    fn stage<'a>(
        &'a self,
        mut txn: Txn<'a>,
        file: FileCommit,
        lost: &mut Vec<BlockId>,
    ) -> FsResult<Txn<'a>> {
        let mut inode = match self.names.inode(file.ino) {
            Ok(inode) => Inode::clone(&inode),
            Err(FsError::Stale) => return Ok(txn),
            Err(error) => return Err(error),
        };
        for range in file.cleared {
            txn = self.clear(txn, &mut inode, range, lost)?;
        }
        for (slot, pieces) in &file.slots {
            txn.put_slot(&mut inode, *slot, pieces)?;
        }
        inode.size = file.size;
        if let Some(atime) = file.atime {
            inode.atime = atime.into();
        }
        if let Some(mtime) = file.mtime {
            inode.mtime = mtime.into();
        }
        if let Some(ctime) = file.ctime {
            // A change of mode meanwhile may have set a later one.
            inode.ctime = inode.ctime.max(Timestamp::from(ctime));
        }
        txn.put_inode(inode)?;
        Ok(txn)
    }

    /// Empties slots. Beyond a bound the batch is committed on the way: a crash then leaves the
    /// range cleared in part.
    fn clear<'a>(
        &'a self,
        mut txn: Txn<'a>,
        inode: &mut Inode,
        range: Range<u64>,
        lost: &mut Vec<BlockId>,
    ) -> FsResult<Txn<'a>> {
        let mut next = Some(range.start).filter(|_| inode.allocated > 0);
        while let Some(from) = next {
            let page = self.names.slots(inode.ino, from, range.end, PAGE)?;
            for (slot, _) in page.slots {
                txn.put_slot(inode, slot, &[])?;
            }
            next = page.next;
            if txn.len() > MAX_CHANGES {
                *inode = Inode::clone(&*txn.put_inode(inode.clone())?);
                lost.extend(txn.commit(Durability::Buffered)?.unreferenced);
                txn = self.names.begin();
            }
        }
        Ok(txn)
    }
}

impl Extents for NamespaceExtents {
    fn attr(&self, ino: Ino) -> FsResult<Attr> {
        self.names.getattr(ino)
    }

    fn slot(&self, ino: Ino, slot: u64) -> FsResult<Vec<Piece>> {
        self.names.slot(ino, slot)
    }

    fn next_slot(&self, ino: Ino, from: u64) -> FsResult<Option<u64>> {
        let mut next = Some(from);
        while let Some(from) = next {
            let page = self.names.slots(ino, from, u64::MAX, 1)?;
            if let Some((slot, _)) = page.slots.iter().find(|(_, record)| !record.pieces.is_empty())
            {
                return Ok(Some(*slot));
            }
            next = page.next;
        }
        Ok(None)
    }

    fn commit(&self, files: Vec<FileCommit>) -> FsResult<Vec<BlockId>> {
        let inodes: Vec<Ino> = files.iter().map(|file| file.ino).collect();
        let _guard = self.names.lock(&inodes);
        let mut lost = Vec::new();
        let mut txn = self.names.begin();
        for file in files {
            txn = self.stage(txn, file, &mut lost)?;
        }
        lost.extend(txn.commit(Durability::Buffered)?.unreferenced);
        Ok(lost)
    }

    fn is_referenced(&self, block: BlockId) -> FsResult<bool> {
        self.names.is_referenced(block)
    }

    fn sync(&self) -> FsResult<()> {
        self.names.sync()
    }
}
