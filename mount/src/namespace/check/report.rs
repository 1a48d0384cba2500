//! What a structure check is told and what it tells.

use crate::types::Ino;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingKind {
    /// A stored record does not decode.
    Damaged,
    /// Records of an inode that does not exist.
    NoInode,
    /// An entry names an inode that does not exist, or of another type.
    DanglingEntry,
    /// An entry cannot be found by its name.
    MisplacedEntry,
    /// A directory's parent does not hold it, or directories form a loop.
    Unreachable,
    /// An inode's link count is not the number of its names.
    LinkCount,
    /// A name of a file with several has no link record, or a link record no name.
    LinkRecord,
    /// A directory's counts of entries or subdirectories are wrong.
    EntryCount,
    /// An inode without names that nothing will clear away, or one with names that something
    /// will.
    Orphan,
    /// Allocated bytes, attribute names or a link's target do not fit the inode.
    Content,
    /// An extent's block does not refer back to it.
    MissingBackref,
    /// A block refers back to an extent that does not use it.
    StaleBackref,
    /// An older version does not fit the newest one.
    Versions,
    /// The digest of a snapshot does not fit those before it, or its sum.
    SnapshotDigest,
    /// A counter of space is not what its records add up to.
    Usage,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub kind: FindingKind,
    /// Where, for people.
    pub path: Vec<u8>,
    /// The inode concerned.
    pub ino: Ino,
    /// More about it.
    pub detail: String,
}

/// How a check is done.
#[derive(Clone, Copy, Debug)]
pub struct CheckOptions {
    /// Inode numbers per pass, 12 bytes each. More memory makes fewer passes.
    pub window: usize,
    /// Findings after which the check stops collecting.
    pub max_findings: usize,
    /// Check also what each snapshot shows, as if it were the live state. Takes as long again for
    /// each.
    pub snapshots: bool,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self { window: 2 << 20, max_findings: 10_000, snapshots: false }
    }
}

/// What a check saw.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What is wrong, at most [`CheckOptions::max_findings`].
    pub findings: Vec<Finding>,
    /// Number of all findings, also those that were not collected.
    pub found: u64,
    /// Inodes seen.
    pub inodes: u64,
    /// Directory entries seen.
    pub entries: u64,
    /// Slots of files seen.
    pub slots: u64,
    /// References to blocks seen.
    pub block_references: u64,
}
