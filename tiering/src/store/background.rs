//! The helper thread: work that nobody waits for and that belongs to no other thread. Leases and
//! the next segment's file, catching up, counting what others and the catalog use. A crash of it
//! leaves what it found; all of it is done again.

use crate::budget::Permit;
use crate::throttle::Priority;

use super::urgency::acting_as;
use super::{COUNTED_STEP, Inner, TICK};

impl Inner {
    /// Leases, the next segment's file, catching up: work that nobody waits for.
    pub(super) fn run_helper(&self) {
        let _acting = acting_as(Priority::WriteBack);
        if !self.config.read_only {
            self.clean_cold();
        }
        while !self.is_stopping() {
            if !self.config.read_only {
                self.prepare_ahead();
            }
            self.catch_up();
            self.signals.caught_up.ring();
            self.look_around();
            if !self.is_stopping() {
                self.signals.helper.wait(TICK);
            }
        }
    }

    /// Notes what others use of the hot tier, and gives back memory that can do without.
    pub(super) fn look_around(&self) {
        if self.capacity.others_are_due(self.config.clock.instant()) {
            self.count_others();
            self.count_catalog();
        }
        if let Some(cold) = &self.cold {
            if self.config.budget.waiters() > 0 {
                cold.drop_landed();
            }
            cold.drop_stale();
        }
    }

    pub(super) fn count_others(&self) {
        if let Some(other) = &self.config.other_bytes {
            self.capacity.set_other(other());
        }
    }

    /// Takes from the budget what the catalog has grown by; at most a quarter of it, so that
    /// there is something left to work with.
    fn count_catalog(&self) {
        let blocks = self.table.fold(0, |sum, segment| sum + u64::from(segment.record.blocks));
        let budget = &self.config.budget;
        let wanted = crate::catalog::memory_bytes(self.config.catalog_cache_bytes, blocks)
            .min(budget.total_bytes() / 4);
        let mut held = self.catalog_memory.lock();
        let more = wanted.saturating_sub(held.as_ref().map_or(0, Permit::bytes));
        // Little by little is enough, and none when others wait for it.
        if more >= COUNTED_STEP
            && let Some(permit) = budget.try_acquire(more)
        {
            match &mut *held {
                Some(held) => held.merge(permit),
                None => *held = Some(permit),
            }
        }
    }

    /// Removes what uploads of dead processes left in the cold tier, and has it see which of its
    /// stores lack nothing any more.
    pub(super) fn clean_cold(&self) {
        let Some(cold) = &self.cold else { return };
        let deadline = self.config.clock.instant() + self.config.cold_read_deadline;
        let cleaned = cold.call(deadline, "cleaning the cold tier", |tier| {
            Box::pin(async move { tier.clean().await })
        });
        match cleaned {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "removed unfinished uploads from the cold tier"),
            Err(error) => tracing::warn!(%error, "unfinished uploads were not looked for"),
        }
    }
}
