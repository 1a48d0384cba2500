//! The namespace as open files see it: slots, and commits of many files in one batch.

use std::ops::Range;
use std::sync::Arc;

use firn_tiering::BlockId;
use firn_tiering::encode::Compression;
use firn_tiering::segment::ParityPlace;

use crate::error::{FsError, FsResult};
use crate::file::SLOT_LEN;
use crate::file::extents::{Extents, FileCommit, Form};
use crate::namespace::{Durability, Inode, InodeGuard, Namespace, Piece, Timestamp, Txn};
use crate::types::{Attr, Ino};

/// Slots looked at together.
const PAGE: usize = 512;

/// Changes after which the clearing of very many slots goes on in another batch.
const MAX_CHANGES: usize = 1 << 16;

/// Committed extents in a [`Namespace`].
pub(super) struct NamespaceExtents {
    names: Arc<Namespace>,
    parity: Option<Arc<dyn ParityChoice>>,
}

/// Who says where the parity of a file's blocks is to lie. Asked whenever some of it is written
/// back, by threads that hold the file: it answers from memory and the namespace.
pub trait ParityChoice: Send + Sync + 'static {
    /// The place for what is written to the file from now on. `size` is its length, committed or
    /// not.
    fn parity(&self, ino: Ino, size: u64) -> ParityPlace;
}

impl std::fmt::Debug for NamespaceExtents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NamespaceExtents").field("names", &self.names).finish_non_exhaustive()
    }
}

impl NamespaceExtents {
    pub(super) fn new(names: Arc<Namespace>, parity: Option<Arc<dyn ParityChoice>>) -> Self {
        Self { names, parity }
    }

    /// Stages one file. Only what lies behind its end may need batches of its own, and those
    /// come after the one that shortens it: a note makes the next open finish what a crash
    /// interrupts, and until then nobody sees what is left there.
    fn stage<'a>(&'a self, mut staged: Staged<'a>, file: FileCommit) -> FsResult<Staged<'a>> {
        let mut inode = match self.names.inode(file.ino) {
            Ok(inode) => Inode::clone(&inode),
            Err(FsError::Stale) => return Ok(staged),
            Err(error) => return Err(error),
        };
        let end = file.size.div_ceil(SLOT_LEN);
        let (tails, inner): (Vec<_>, Vec<_>) =
            file.cleared.into_iter().partition(|range| range.start >= end);
        for range in inner {
            (staged, inode) = self.clear(staged, inode, range, false)?;
        }
        for (slot, pieces) in &file.slots {
            staged.txn.put_slot(&mut inode, *slot, pieces)?;
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
        for range in tails {
            (staged, inode) = self.clear(staged, inode, range, true)?;
        }
        if staged.cutting {
            staged.txn.remove_truncation(inode.ino)?;
            staged.cutting = false;
        }
        staged.txn.put_inode(inode)?;
        Ok(staged)
    }

    /// Empties slots. Beyond a bound the batch is committed on the way and others get their turn
    /// at the locks; in front of a file's end, a crash then leaves the range cleared in part.
    fn clear<'a>(
        &'a self,
        mut staged: Staged<'a>,
        mut inode: Inode,
        range: Range<u64>,
        behind_end: bool,
    ) -> FsResult<(Staged<'a>, Inode)> {
        let mut next = Some(range.start).filter(|_| inode.allocated > 0);
        while let Some(from) = next {
            let page = self.names.slots(inode.ino, from, range.end, PAGE)?;
            for (slot, _) in page.slots {
                staged.txn.put_slot(&mut inode, slot, &[])?;
            }
            next = page.next;
            if staged.txn.len() > MAX_CHANGES {
                if behind_end && !staged.cutting {
                    staged.txn.add_truncation(inode.ino)?;
                    staged.cutting = true;
                }
                let ino = inode.ino;
                staged.txn.put_inode(inode)?;
                staged = staged.go_on(&self.names)?;
                inode = Inode::clone(&*self.names.inode(ino)?);
            }
        }
        Ok((staged, inode))
    }
}

/// A batch of commits in the making, under the locks of its files.
struct Staged<'a> {
    guard: InodeGuard<'a>,
    txn: Txn<'a>,
    lost: Vec<BlockId>,
    /// The file that is being staged has a truncation record.
    cutting: bool,
}

impl<'a> Staged<'a> {
    fn begin(names: &'a Namespace, inodes: &[Ino]) -> Self {
        let guard = names.lock(inodes);
        Self { guard, txn: names.begin(), lost: Vec::new(), cutting: false }
    }

    fn commit(self) -> FsResult<Vec<BlockId>> {
        let Self { guard, txn, mut lost, .. } = self;
        lost.extend(txn.commit(Durability::Buffered)?.unreferenced);
        drop(guard);
        Ok(lost)
    }

    /// Commits what there is so far, and lets go of the locks for a moment.
    fn go_on(self, names: &'a Namespace) -> FsResult<Self> {
        let Self { mut guard, txn, mut lost, cutting } = self;
        lost.extend(txn.commit(Durability::Buffered)?.unreferenced);
        names.give_turn(&mut guard);
        Ok(Self { guard, txn: names.begin(), lost, cutting })
    }
}

impl Extents for NamespaceExtents {
    fn check_changeable(&self, ino: Ino) -> FsResult<()> {
        self.names.check_changeable(ino)
    }

    fn form(&self, ino: Ino, size: u64) -> Form {
        // Without a dataset there is nothing left to be written.
        let own = self.names.properties_of(ino);
        let compression = own.map_or_else(|_| Compression::AUTO, |own| own.compression);
        let parity = self.parity.as_ref().map(|choice| choice.parity(ino, size));
        Form { compression, parity: parity.unwrap_or_default() }
    }

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
        let mut staged = Staged::begin(&self.names, &inodes);
        for file in files {
            staged = self.stage(staged, file)?;
        }
        staged.commit()
    }

    fn is_referenced(&self, block: BlockId) -> FsResult<bool> {
        self.names.is_referenced(block)
    }

    fn refused(&self) -> Option<String> {
        self.names.read_only()
    }

    fn sync(&self) -> FsResult<()> {
        self.names.sync()
    }
}
