//! What is asked about placement: plans, pins, jobs, and the classifier. Files are named as in
//! [`Files`]: by the inode number that the asker has found on the mount.

use serde::{Deserialize, Serialize};

use super::protocol::Files;

/// Most files of one request; longer lists are asked in several.
pub const MAX_FILES: usize = 1_000;

/// What is asked about placement as a whole, and about single files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "kebab-case")]
pub enum PolicyAct {
    /// What would move now: an item each, then a summary
    /// ([`PlanItem`](crate::report::policy::PlanItem)).
    Plan,
    /// Carry a plan out: progress, then the same items.
    Run {
        /// Only say what would be done.
        dry_run: bool,
    },
    /// What is to become of one file, and why: an item
    /// ([`Placement`](crate::report::placement::Placement)).
    Explain {
        /// Inode number.
        ino: u64,
        /// What the user called it.
        name: String,
    },
}

/// What is asked about moving files by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "kebab-case")]
pub enum TierAct {
    /// Files that fit: an item each ([`FileLine`](crate::report::files::FileLine)).
    Find(Finding),
    /// Bytes below a directory by tier: an item for each directory, the asked one last
    /// ([`DuLine`](crate::report::tier::DuLine)).
    Du {
        /// Which directory, or file; `recursive` does not matter.
        files: Files,
        /// Items only for directories so far below it at most; their sums hold everything.
        depth: u32,
    },
    /// What is pinned at and below a directory: an item each
    /// ([`PinLine`](crate::report::tier::PinLine)). Pins are set as `user.firn.pin` on the mount, so
    /// that the kernel checks who may.
    Pins(Files),
    /// Work that waits or is done: an item each ([`JobLine`](crate::report::tier::JobLine)).
    Jobs,
    /// Drop work that has not begun: an item for each job dropped.
    Cancel {
        /// Which; all without one.
        job: Option<u64>,
    },
    /// Bring many back: progress, then an item ([`Moved`](crate::report::files::Moved)).
    Stage(Staging),
    /// What of these is not in hot: an item ([`Absent`](crate::report::files::Absent)).
    Absent {
        /// At most [`MAX_FILES`].
        files: Vec<Files>,
    },
    /// What was accessed, into the stream that comes along.
    Trace,
}

/// Which files are looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Below which directory.
    pub files: Files,
    /// In one of these states, as `user.firn.state` calls them; in any when empty.
    #[serde(default)]
    pub states: Vec<String>,
    /// At least so many bytes.
    #[serde(default)]
    pub min_size_bytes: Option<u64>,
    /// At most so many.
    #[serde(default)]
    pub max_size_bytes: Option<u64>,
    /// Content not changed for so many seconds.
    #[serde(default)]
    pub older_s: Option<u64>,
    /// Content changed within so many seconds.
    #[serde(default)]
    pub newer_s: Option<u64>,
}

/// Which files are brought back, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staging {
    /// At most [`MAX_FILES`].
    pub files: Vec<Files>,
    /// Answer when they are there.
    pub wait: bool,
    /// Seconds for which they stay.
    pub pin_for_s: Option<u64>,
}

/// What is asked about the classifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "kebab-case")]
pub enum ModelAct {
    /// How it does: an item ([`ModelReport`](crate::report::model::ModelReport)).
    Status,
    /// Train one from what is known now: progress, then an item.
    Train,
    /// Go back to the one before: an item.
    Rollback,
    /// Let it decide, or the age alone: an item.
    Switch {
        /// It decides.
        on: bool,
    },
}
