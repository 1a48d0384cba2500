//! Using the time when nobody needs the store: who is active, and re-encoding old segments
//! meanwhile, one after the other, oldest first.
//!
//! The store is idle when nothing was appended or read for
//! [`crate::store::StoreConfig::recompress_idle`] and nobody waits for space or memory. Work stops
//! before the next block when something is appended. Nothing here costs an appender or a reader
//! anything: counters that exist are looked at twice a second. When a segment was read last is
//! remembered with its warmth, and forgotten with it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::Error;
use crate::segment::{FileKind, SegmentId};
use crate::throttle::Priority;

use super::recode::{Outcome, Pace};
use super::signals::get;
use super::urgency::acting_as;
use super::{Inner, TICK};

/// Old segments that are looked at when the oldest is not ready.
const LOOKED_AT: usize = 8;

/// Pause after a segment that could not be written again.
const FAILED_PAUSE: Duration = Duration::from_secs(300);

/// Since when nothing happens.
#[derive(Default)]
pub(super) struct Idle {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    appended: u64,
    read: u64,
    since: Option<Instant>,
    pause_until: Option<Instant>,
}

impl Inner {
    /// The loop of the thread that re-encodes.
    pub(super) fn run_recoder(&self) {
        let _acting = acting_as(Priority::Reencode);
        while !self.is_stopping() {
            self.note_activity();
            if self.capacity.is_short() {
                self.give_up_recoding();
            } else if self.is_idle() {
                self.recode_next();
            }
            if !self.is_stopping() {
                self.signals.recoder.wait(TICK);
            }
        }
        self.give_up_recoding();
        *self.encoder.lock() = None;
    }

    fn reads(&self) -> u64 {
        let counters = &self.counters;
        get(&counters.hot_reads) + get(&counters.cold_reads) + get(&counters.cache_hits)
    }

    fn note_activity(&self) {
        let now = self.config.clock.instant();
        let (appended, read) = (get(&self.counters.appended_blocks), self.reads());
        let mut state = self.idle.state.lock();
        if state.since.is_none() || (appended, read) != (state.appended, state.read) {
            (state.appended, state.read, state.since) = (appended, read, Some(now));
        }
    }

    /// Whether somebody waits, encodes, or needs space.
    pub(super) fn is_busy(&self) -> bool {
        self.capacity.waiters() > 0
            || self.config.budget.waiters() > 0
            || self.load.encoding.load(Ordering::Relaxed) > 0
            || self.capacity.is_short()
    }

    /// Whether the encoders have nothing better to do.
    pub(super) fn is_idle(&self) -> bool {
        if self.config.recompress_age.is_zero() || self.is_busy() {
            return false;
        }
        let now = self.config.clock.instant();
        let state = self.idle.state.lock();
        state.appended == get(&self.counters.appended_blocks)
            && state.since.is_some_and(|since| {
                now.saturating_duration_since(since) >= self.config.recompress_idle
            })
            && state.pause_until.is_none_or(|until| until <= now)
    }

    fn recode_next(&self) {
        let Some(id) = self.next_to_recode() else { return };
        let appended = get(&self.counters.appended_blocks);
        let goes_on = || appended == get(&self.counters.appended_blocks) && !self.is_busy();
        let outcome = self.recode(id, Pace::Background(&goes_on));
        self.table.unclaim(id);
        match outcome {
            Ok(Outcome::Written(before, after)) => {
                tracing::info!(%id, before, after, "a segment was encoded again");
                self.signals.recoder.ring();
            }
            Ok(Outcome::Unchanged | Outcome::Absent) => self.signals.recoder.ring(),
            Ok(Outcome::Paused) => {}
            Err(error) => self.recoding_failed(id, &error),
        }
    }

    fn recoding_failed(&self, id: SegmentId, error: &Error) {
        if self.is_stopping() {
            return;
        }
        let error_text = super::read::chain(error);
        tracing::warn!(%id, error = error_text, "a segment could not be encoded again");
        if matches!(error, Error::Damaged { .. }) {
            // Repair comes first; trying again would only find the damage again.
            self.table.update(id, |segment| segment.record.settled = true);
        }
        self.idle.state.lock().pause_until = Some(self.config.clock.instant() + FAILED_PAUSE);
    }

    /// Claims the oldest segment that is old enough, was not read lately and was not tried.
    fn next_to_recode(&self) -> Option<SegmentId> {
        let (now_s, age) = (self.now_s(), self.config.recompress_age);
        let ready = self.table.ids(|segment| {
            let record = &segment.record;
            segment.recorded
                && !segment.busy
                && !segment.unreadable
                && !segment.ruined
                && record.hot
                && record.holes.is_empty()
                && !record.settled
                && segment.heat.is_unread(now_s, age)
        });
        let is_free = |id: &SegmentId| !self.table.is_wanted(*id) && self.table.claim(*id);
        ready.into_iter().take(LOOKED_AT).find(|id| self.is_old(*id) && is_free(id))
    }

    /// Whether a segment was sealed long enough ago.
    fn is_old(&self, id: SegmentId) -> bool {
        let sealed = std::fs::metadata(self.hot.path(id, FileKind::Sealed));
        let sealed = sealed.and_then(|meta| meta.modified());
        sealed.is_ok_and(|sealed| {
            let age = self.config.clock.now().duration_since(sealed);
            age.is_ok_and(|age| age >= self.config.recompress_age)
        })
    }
}

/// Makes the calling thread give way to every other one. A kernel that refuses leaves it as it is.
pub(super) fn lower_priority() {
    let nice = rustix::process::setpriority_process(None, 19);
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: the call reads one plain struct that lives until it returns; 0 is the calling thread.
    let idle = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &param) };
    if nice.is_err() || idle != 0 {
        tracing::debug!("the encoder's priority stays as it is");
    }
}
