//! Who may ask a destination for how much, and when. One [`Throttle`] stands before one store; a
//! request is admitted, runs, and tells how it went, from which the next ones learn.
//!
//! Four bounds, the narrowest of which counts and is named in [`Status`]:
//! - a *rate cap* with a timetable ([`Timetable`], `bucket`);
//! - a *window* of bytes in flight that follows latency against its own baseline (`latency`,
//!   `window`), widened only by who fills it, cut by failures;
//! - a *breaker* for a store that only fails (`breaker`), and the pause that a store asks for
//!   (`Retry-After`, [`crate::tier::Pauses`]);
//! - the share of the window that background work may have while the mount's own reads are slower
//!   than usual or the disks are under pressure (`foreground`), unless writers wait for it.
//!
//! *Order*: [`Priority`], strictly, except for a small share that each class is sure of
//! (`queue`). Reads that a person waits for count against cap and window like everything else, but
//! wait for other reads only.
//! *Time* is injected and every decision is made in [`core`](self), which knows no thread and no
//! timer, so that tests run links in simulated time. *Cancellation*: a permit that is dropped gives
//! its place back and teaches nothing. *Memory*: waiting requests are bounded ([`MAX_WAITING`]).
//! Nothing is stored; a new process begins with [`ThrottleConfig::first_window`].

mod breaker;
mod bucket;
mod config;
mod core;
mod foreground;
mod latency;
mod meter;
mod queue;
mod shared;
mod status;
#[cfg(test)]
mod tests;
mod timetable;
mod window;

pub use config::ThrottleConfig;
pub use shared::{Inputs, Permit, Throttle};
pub use status::{Limit, Status};
pub use timetable::{Timetable, TimetableError};

/// Most requests that wait at a time; callers are few, and more than that are a mistake.
pub const MAX_WAITING: usize = 10_000;

/// What a request is for; who comes first goes first.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// Somebody reads.
    #[default]
    UserRead,
    /// Somebody asked for it to be brought back.
    Stage,
    /// New data on its way to its second copy, and the backups of its names.
    WriteBack,
    /// Space that is needed soon.
    Demote,
    /// Encoding again, and collecting what is dead.
    Reencode,
    /// Checking what lies there.
    Scrub,
}

impl Priority {
    /// All, the most urgent first.
    pub const ALL: [Self; 6] =
        [Self::UserRead, Self::Stage, Self::WriteBack, Self::Demote, Self::Reencode, Self::Scrub];

    fn index(self) -> usize {
        self as usize
    }
}

/// Which way the bytes of a request go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// To here.
    Read,
    /// To the store.
    Write,
    /// Neither: it asks for little and moves little.
    Small,
    /// As `Small`, and it may take any time, which says nothing.
    Untimed,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should; its latency counts.
    Done,
    /// The store answered, with an error that says nothing about its load.
    Answered,
    /// No answer, a broken one, or one that says that it is too much.
    Failed,
}
