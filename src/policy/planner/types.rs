//! What goes into a plan, and what comes out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::rules::{Pin, Subject, Verdict};
use crate::policy::settings::Marks;

/// A file with bytes that have a place, and how it is used.
#[derive(Clone, Debug, Default)]
pub struct Candidate {
    /// Inode number.
    pub ino: u64,
    /// See [`Subject::path`].
    pub path: Vec<u8>,
    /// See [`Subject::size`].
    pub size: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// See [`Subject::age`].
    pub age: Duration,
    /// See [`Subject::idle`].
    pub idle: Duration,
    /// See [`Subject::heat`].
    pub heat: f32,
    /// See [`Subject::p_reuse`].
    pub p_reuse: Option<f32>,
    /// See [`Subject::verdict`].
    pub verdict: Verdict,
    /// See [`Subject::dataset_class`].
    pub dataset_class: Option<Arc<str>>,
    /// See [`Subject::pin`].
    pub pin: Option<Pin>,
    /// See [`Subject::stored_bytes`].
    pub stored_bytes: u64,
    /// See [`Subject::hot_bytes`].
    pub hot_bytes: u64,
    /// See [`Subject::cold_bytes`].
    pub cold_bytes: u64,
    /// See [`Subject::dirty`].
    pub dirty: bool,
    /// Only snapshots show it: nobody misses it in hot.
    pub only_in_snapshots: bool,
}

impl Candidate {
    /// As rules look at it.
    pub fn subject(&self) -> Subject<'_> {
        Subject {
            path: &self.path,
            size: self.size,
            uid: self.uid,
            gid: self.gid,
            age: self.age,
            idle: self.idle,
            heat: self.heat,
            p_reuse: self.p_reuse,
            verdict: self.verdict,
            dataset_class: self.dataset_class.as_deref(),
            pin: self.pin.as_ref(),
            stored_bytes: self.stored_bytes,
            hot_bytes: self.hot_bytes,
            cold_bytes: self.cold_bytes,
            dirty: self.dirty,
        }
    }
}

/// Room in the tiers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierUsage {
    /// Bytes used in hot, databases and indexes included.
    pub hot_used_bytes: u64,
    /// Bytes that hot may use.
    pub hot_capacity_bytes: u64,
    /// Bytes of data whose only copy is in hot.
    pub hot_only_bytes: u64,
    /// Bytes that still fit into cold; `None` without a limit, 0 without a cold tier.
    pub cold_free_bytes: Option<u64>,
}

/// What is done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MoveAction {
    /// Copy to cold; it stays in hot.
    CopyAhead,
    /// Copy to cold what is not there, and drop from hot.
    Demote,
    /// Bring back.
    Promote,
}

impl MoveAction {
    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CopyAhead => "copy-ahead",
            Self::Demote => "demote",
            Self::Promote => "promote",
        }
    }
}

/// A move.
#[derive(Clone, Debug, PartialEq)]
pub struct Move {
    /// Inode number.
    pub ino: u64,
    /// Path from the root of the volume.
    pub path: Vec<u8>,
    /// What is done.
    pub action: MoveAction,
    /// Bytes that are copied, freed or brought back.
    pub bytes: u64,
    /// Of these, bytes that cross to or from cold.
    pub transfer_bytes: u64,
    /// Requests to cold, about.
    pub requests: u64,
    /// What the move costs once; 0 without prices.
    pub cost: f64,
    /// The rule that asked for it.
    pub rule: Option<usize>,
    /// Why, in words.
    pub why: String,
}

/// Why a file does not move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Skip {
    /// It has bytes that are not durable yet.
    Dirty,
    /// It was written too recently.
    Unsettled,
    /// It is smaller than `min_size`.
    TooSmall,
    /// It is pinned to where it is.
    Pinned,
    /// A rule, or the mode, leaves it alone.
    LeftAlone,
    /// It lies where it is to be.
    InPlace,
    /// There is room enough.
    NotNeeded,
    /// There is no room to bring it back.
    NoRoom,
    /// A limit of one run is reached, or the file alone is above it.
    Limit,
    /// The cold tier is full.
    ColdFull,
}

impl Skip {
    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dirty => "dirty",
            Self::Unsettled => "unsettled",
            Self::TooSmall => "too-small",
            Self::Pinned => "pinned",
            Self::LeftAlone => "left-alone",
            Self::InPlace => "in-place",
            Self::NotNeeded => "not-needed",
            Self::NoRoom => "no-room",
            Self::Limit => "limit",
            Self::ColdFull => "cold-full",
        }
    }
}

/// How many, and how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Files.
    pub files: u64,
    /// Stored bytes of them.
    pub bytes: u64,
}

impl Count {
    pub(super) const fn one(candidate: &Candidate) -> Self {
        Self { files: 1, bytes: candidate.stored_bytes }
    }
}

/// All moves together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Moves.
    pub moves: u64,
    /// Bytes that are copied, freed or brought back.
    pub bytes: u64,
    /// Bytes that cross to or from cold.
    pub transfer_bytes: u64,
    /// Bytes that become free in hot.
    pub freed_bytes: u64,
    /// Requests to cold, about.
    pub requests: u64,
    /// What it costs once; 0 without prices.
    pub cost: f64,
    /// What it costs every month from then on.
    pub cost_per_month: f64,
}

/// A plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// In the order in which they are to be done.
    pub moves: Vec<Move>,
    /// Their sum.
    pub totals: Totals,
    /// What does not move.
    pub skipped: BTreeMap<Skip, Count>,
    /// The watermarks that hold.
    pub marks: Marks,
}
