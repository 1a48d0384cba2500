//! What a structure check is told and what it tells.

use std::collections::{BTreeMap, BTreeSet};

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
    /// What a snapshot shows does not decode.
    DamagedOlder,
    /// The born index does not name a version.
    MissingBorn,
    /// Records that belong to no dataset.
    NoDataset,
    /// A counter of space is not what its records add up to.
    Usage,
    /// The version tree lacks a record, so that views may show what they never did.
    VersionTree,
}

impl FindingKind {
    /// Its name in reports, which stays.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::NoInode => "no_inode",
            Self::DanglingEntry => "dangling_entry",
            Self::MisplacedEntry => "misplaced_entry",
            Self::Unreachable => "unreachable",
            Self::LinkCount => "link_count",
            Self::LinkRecord => "link_record",
            Self::EntryCount => "entry_count",
            Self::Orphan => "orphan",
            Self::Content => "content",
            Self::MissingBackref => "missing_backref",
            Self::StaleBackref => "stale_backref",
            Self::Versions => "versions",
            Self::DamagedOlder => "damaged_older",
            Self::MissingBorn => "missing_born",
            Self::NoDataset => "no_dataset",
            Self::SnapshotDigest => "snapshot_digest",
            Self::Usage => "usage",
            Self::VersionTree => "version_tree",
        }
    }
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
    /// The same by kind.
    pub kinds: BTreeMap<FindingKind, u64>,
    /// Inodes seen.
    pub inodes: u64,
    /// Directory entries seen.
    pub entries: u64,
    /// Slots of files seen.
    pub slots: u64,
    /// References to blocks seen.
    pub block_references: u64,
    /// What a repair looks at.
    pub(in crate::namespace) suspects: Suspects,
}

/// Inodes that findings are about, as many as memory allows; a repair finds the rest when it checks
/// again.
#[derive(Clone, Debug, Default)]
pub(in crate::namespace) struct Suspects {
    pub(in crate::namespace) inodes: BTreeSet<Ino>,
}

/// Most suspects of one check.
pub(in crate::namespace) const MAX_SUSPECTS: usize = 64 << 10;

impl Suspects {
    pub(in crate::namespace) fn add(&mut self, ino: Ino) {
        if self.inodes.len() < MAX_SUSPECTS {
            self.inodes.insert(ino);
        }
    }
}
