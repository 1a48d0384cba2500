//! Looking for dead blocks that no counter tells of: frames that a crash leaked, and everything
//! dead before the catalog was wiped.
//!
//! Once a day, and soon after an open that followed a crash, every segment is judged as `reclaim`
//! does; a few at a time and only while nobody waits, so that the mover stays with its work.
//! Nothing is kept of it: a round that a crash cuts short begins again at the next open.

use std::time::{Duration, Instant};

use crate::catalog::Found;
use crate::segment::SegmentId;

use super::Inner;

/// Pause between two rounds.
const EVERY: Duration = Duration::from_secs(24 * 3600);

/// Pause after an open behind which something may have leaked.
const AFTER_CRASH: Duration = Duration::from_secs(300);

/// Segments judged at once.
const STEP: usize = 8;

/// When the next round begins, or where the present one is.
pub(super) struct Sweep {
    at: Instant,
    behind: Option<SegmentId>,
}

impl Sweep {
    pub(super) fn new(now: Instant) -> Self {
        Self { at: now + EVERY, behind: None }
    }
}

impl Inner {
    /// Plans the first round. `found` says how the store was left.
    pub(super) fn plan_sweep(&self, found: &Found) {
        if *found != Found::Clean {
            self.sweeping.lock().at = self.config.clock.instant() + AFTER_CRASH;
        }
    }

    /// Goes on with a round that is due.
    pub(super) fn sweep_some(&self) {
        let mut sweep = self.sweeping.lock();
        let now = self.config.clock.instant();
        if now < sweep.at || self.config.liveness.is_none() || !self.may_sweep() {
            return;
        }
        let all = self.table.ids(|segment| segment.recorded && !segment.unreadable);
        let rest = all.into_iter().filter(|id| sweep.behind.is_none_or(|behind| *id > behind));
        let step: Vec<SegmentId> = rest.take(STEP).collect();
        sweep.behind = step.last().copied();
        if sweep.behind.is_none() {
            sweep.at = now + EVERY;
            drop(sweep);
            self.sweep_cold_sidecars();
            return;
        }
        drop(sweep);
        if self.reclaim_all(&step, self.thrift()) > 0 {
            self.capacity.progressed();
        }
    }

    /// Whether nobody waits for what a sweep would take.
    fn may_sweep(&self) -> bool {
        self.unrecorded().is_empty()
            && self.check_writable().is_ok()
            && self.capacity.waiters() == 0
            && self.config.budget.waiters() == 0
    }
}
