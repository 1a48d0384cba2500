//! What open files need of the namespace: the contract, apart from who keeps it.

use std::ops::Range;
use std::time::SystemTime;

use firn_tiering::BlockId;
use firn_tiering::encode::Compression;
use firn_tiering::segment::ParityPlace;

use super::piece::Piece;
use crate::error::FsResult;
use crate::types::{Attr, Ino};

/// A file's new state, put into the namespace at once.
#[derive(Clone, Debug)]
pub(crate) struct FileCommit {
    /// Which file.
    pub(crate) ino: Ino,
    /// Its length.
    pub(crate) size: u64,
    /// Times that change.
    pub(crate) atime: Option<SystemTime>,
    /// Times that change.
    pub(crate) mtime: Option<SystemTime>,
    /// Times that change.
    pub(crate) ctime: Option<SystemTime>,
    /// Slots that lose all pieces, before `slots` is applied. May reach to the end of all files.
    pub(crate) cleared: Vec<Range<u64>>,
    /// Slots with their whole new list of pieces, each slot once.
    pub(crate) slots: Vec<(u64, Vec<Piece>)>,
}

/// How blocks are stored. What is stored differently does not share a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Form {
    /// How they are compressed.
    pub(crate) compression: Compression,
    /// Where their parity lies.
    pub(crate) parity: ParityPlace,
}

/// Committed extents.
pub(crate) trait Extents: Send + Sync + 'static {
    /// Fails where nothing may be changed.
    fn check_changeable(&self, ino: Ino) -> FsResult<()>;
    /// How the file's blocks are to be stored from now on; `size` is its length, committed or not.
    fn form(&self, ino: Ino, size: u64) -> Form;
    /// Attributes as committed.
    fn attr(&self, ino: Ino) -> FsResult<Attr>;
    /// All pieces of a slot.
    fn slot(&self, ino: Ino, slot: u64) -> FsResult<Vec<Piece>>;
    /// The first slot from `from` on that has pieces.
    fn next_slot(&self, ino: Ino, from: u64) -> FsResult<Option<u64>>;
    /// Applies all of `files` in one atomic batch; a file that no longer exists is passed over.
    /// Returns blocks that lost a reference and may have no other.
    fn commit(&self, files: Vec<FileCommit>) -> FsResult<Vec<BlockId>>;
    /// Whether any extent names the block.
    fn is_referenced(&self, block: BlockId) -> FsResult<bool>;
    /// Why changes are refused, if they are: after a failed commit or sync.
    fn refused(&self) -> Option<String>;
    /// Everything committed before the call survives power loss when it returns.
    fn sync(&self) -> FsResult<()>;
}
