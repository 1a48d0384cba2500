//! How much garbage is worth collecting, and when.
//!
//! Compacting writes again what lives, so it pays only where enough is dead: half of a segment while
//! the store is in use, less when space is short, and a little once nobody has written for a while
//! and the garbage of the whole store adds up to something, so that space comes back to who
//! deletes. What lies in cold only is fetched for it, which costs requests: there it stays at half.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::catalog::SegmentRecord;

use super::Inner;
use super::signals::get;

/// The share of all bytes that may be dead for good, as a divisor.
const TOLERATED: u64 = 64;

/// How long nothing must have been appended before that counts.
const QUIET_AFTER: Duration = Duration::from_secs(5);

/// A hot segment is worth compacting when one in so many of its bytes is dead.
const IN_USE: u64 = 2;
const SHORT: u64 = 8;
const QUIET: u64 = 16;

/// How little garbage is too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Thrift {
    divisor: u64,
    /// Nobody would notice.
    pub(super) quiet: bool,
}

impl Default for Thrift {
    fn default() -> Self {
        Self { divisor: IN_USE, quiet: false }
    }
}

impl Thrift {
    /// Whether a segment with so many dead bytes should not stay as it is.
    pub(super) fn is_much(self, dead: u64, record: &SegmentRecord) -> bool {
        let divisor = if record.hot { self.divisor } else { IN_USE };
        dead > 0 && dead.saturating_mul(divisor) >= record.data_bytes
    }

    /// Whether something may be worth it that was not when it was judged with `earlier`.
    pub(super) fn exceeds(self, earlier: Self) -> bool {
        self.divisor > earlier.divisor || self.quiet && !earlier.quiet
    }
}

/// Since when nothing is appended, and how many blocks had been.
#[derive(Default)]
pub(super) struct Quiet(Mutex<(u64, Option<Instant>)>);

impl Inner {
    /// How thrifty to be now.
    pub(super) fn thrift(&self) -> Thrift {
        let quiet = self.is_quiet();
        let divisor = if self.capacity.is_short() {
            SHORT
        } else if quiet && self.is_wasteful() {
            QUIET
        } else {
            IN_USE
        };
        Thrift { divisor, quiet }
    }

    /// Whether nobody has appended for a while, nor waits to.
    fn is_quiet(&self) -> bool {
        let now = self.config.clock.instant();
        let appended = get(&self.counters.appended_blocks);
        let mut state = self.quiet.0.lock();
        if state.0 != appended || self.is_busy() {
            *state = (appended, Some(now));
        }
        let since = *state.1.get_or_insert(now);
        now.saturating_duration_since(since) >= QUIET_AFTER
    }

    fn is_wasteful(&self) -> bool {
        let (dead, all) = self.table.fold(self.open_waste(), |(dead, all), segment| {
            let record = &segment.record;
            // What is left of compacted objects in cold goes by itself, what is dead in files with
            // holes is punched out of them, and what nothing makes whole stays.
            let counts = record.hot && record.holes.is_empty() && !segment.ruined;
            let hot = if counts { record.dead_bytes } else { 0 };
            (dead + hot, all + record.data_bytes)
        });
        dead.saturating_mul(TOLERATED) > all
    }

    /// Ends the segment that takes frames when so much of it is dead that it is worth compacting.
    pub(super) fn end_wasteful(&self) {
        if self.open_is_wasteful() {
            self.rotate_now();
        }
    }

    /// Whether the segment that takes frames should not go on. Where space is short, that is when
    /// somebody waits for it or there is much to win: a small segment costs as much as a large one.
    pub(super) fn open_is_wasteful(&self) -> bool {
        let (dead, all) = self.open_waste();
        if dead == 0 || self.config.liveness.is_none() {
            return false;
        }
        let divisor = self.thrift().divisor;
        let is_due = match divisor {
            IN_USE => false,
            SHORT => {
                self.capacity.waiters() > 0
                    || dead.saturating_mul(SHORT) >= self.config.segment_bytes
            }
            _ => true,
        };
        is_due && dead.saturating_mul(divisor) >= all
    }
}
