//! How warm each segment is: a decayed count of accesses and the time of the last one, in one
//! word, so that a reader pays a load and now and then an exchange, and never a lock or a write to
//! the database.
//!
//! Reads count; checks, copies, compaction, re-encoding and streams to other volumes do not. The
//! accesses of one second are one: a sequential reader touches a segment hundreds of times.
//! *Crash*: warmth is saved with the segment's record, some minutes behind, and with everything
//! else when the store is closed. What a crash or a lost catalog forgets makes segments look
//! colder than they are, which costs reads of the cold tier and nothing else.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::catalog::SegmentHeat;
use crate::segment::SegmentId;

use super::Inner;

/// Time in which an access comes to count half: a day, so that what is read every working day
/// stays above what was read often last week.
const HALF_LIFE_S: f32 = 86_400.0;

/// Warmth below which blocks are packed with other cold ones: one access, two half-lives ago.
pub(super) const COLD: f32 = 0.25;

/// A time that is further ahead of now was noted by a clock that was wrong, and counts as now.
const AHEAD_S: u32 = 3600;

/// How often changed warmth is saved.
const SAVE_EVERY: Duration = Duration::from_secs(300);

/// Segments saved in one round of the mover.
const SAVED_AT_ONCE: usize = 1024;

/// A segment's warmth, shared by readers.
#[derive(Debug, Default)]
pub(super) struct Heat(AtomicU64);

impl Heat {
    pub(super) fn new(heat: SegmentHeat) -> Self {
        Self(AtomicU64::new(heat.bits()))
    }

    /// Warmth as it is stored.
    pub(super) fn load(&self) -> SegmentHeat {
        SegmentHeat::from_bits(self.0.load(Ordering::Relaxed)).unwrap_or_default()
    }

    pub(super) fn set(&self, heat: SegmentHeat) {
        self.0.store(heat.bits(), Ordering::Relaxed);
    }

    /// Counts an access in the second `now_s` of the epoch.
    pub(super) fn touch(&self, now_s: u32) {
        if self.load().last_s() == now_s {
            return;
        }
        // A lost race means that somebody else counted the same second.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| {
            let old = believed(SegmentHeat::from_bits(bits).unwrap_or_default(), now_s);
            let now_s = now_s.max(old.last_s());
            let new = match old.last_s() < now_s {
                true => SegmentHeat::new(decayed(old, now_s) + 1.0, now_s),
                false => old,
            };
            (new.bits() != bits).then(|| new.bits())
        });
    }

    /// Takes an access that lies far ahead of the second `now_s` for one of now, so that it does not
    /// count as the last one until then.
    fn settle(&self, now_s: u32) {
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| {
            let new = believed(SegmentHeat::from_bits(bits)?, now_s);
            (new.bits() != bits).then(|| new.bits())
        });
    }

    /// Whether nobody has accessed it for `age` before the second `now_s`.
    pub(super) fn is_unread(&self, now_s: u32, age: Duration) -> bool {
        let last_s = self.load().last_s();
        last_s == 0 || u64::from(now_s.saturating_sub(last_s)) >= age.as_secs()
    }
}

fn believed(heat: SegmentHeat, now_s: u32) -> SegmentHeat {
    if heat.last_s() > now_s.saturating_add(AHEAD_S) {
        return SegmentHeat::new(heat.count(), now_s);
    }
    heat
}

/// What the accesses up to now count in the second `now_s`.
pub(super) fn decayed(heat: SegmentHeat, now_s: u32) -> f32 {
    let age_s = now_s.saturating_sub(heat.last_s());
    heat.count() * (-(age_s as f32) / HALF_LIFE_S).exp2()
}

/// Written just now, which counts as one access.
pub(super) fn fresh(now_s: u32) -> SegmentHeat {
    SegmentHeat::new(1.0, now_s)
}

impl Inner {
    /// Seconds since the epoch, as warmth counts them: good until 2106.
    pub(super) fn now_s(&self) -> u32 {
        let since = self.config.clock.now().duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| u32::try_from(since.as_secs()).unwrap_or(u32::MAX))
    }

    /// Saves some of the warmth that changed, when it is time to; at first right after the open.
    pub(super) fn save_some_heat(&self) {
        let now = self.config.clock.instant();
        let due = self.heat_at.lock().is_none_or(|at: Instant| at <= now);
        if due {
            let now_s = self.now_s();
            self.table.fold((), |(), segment| segment.heat.settle(now_s));
        }
        if due && self.save_heat(SAVED_AT_ONCE) < SAVED_AT_ONCE {
            *self.heat_at.lock() = Some(now + SAVE_EVERY);
        }
    }

    /// Saves changed warmth of at most so many segments; returns of how many.
    pub(super) fn save_heat(&self, most: usize) -> usize {
        let mut changed: Vec<SegmentId> = self
            .table
            .ids(|segment| segment.recorded && segment.heat.load() != segment.record.heat);
        changed.truncate(most);
        changed.iter().for_each(|id| self.record_state(*id));
        changed.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_decay_by_half_each_day_and_those_of_one_second_are_one() {
        let heat = Heat::default();
        assert!(heat.is_unread(10, Duration::from_secs(1_000_000)), "never read");
        for _ in 0..1000 {
            heat.touch(1000);
        }
        assert_eq!((heat.load().count(), heat.load().last_s()), (1.0, 1000));
        heat.touch(1000 + 86_400);
        assert_eq!(heat.load().count(), 1.5);
        assert_eq!(decayed(heat.load(), 1000 + 3 * 86_400), 0.375);
        assert!(!heat.is_unread(1010 + 86_400, Duration::from_secs(11)));
        assert!(heat.is_unread(1011 + 86_400, Duration::from_secs(11)));
    }

    #[test]
    fn a_clock_that_goes_back_neither_counts_nor_takes_away() {
        let heat = Heat::new(fresh(5000));
        heat.touch(4000);
        assert_eq!(heat.load(), fresh(5000));
        assert_eq!(decayed(heat.load(), 4000), 1.0);
    }

    #[test]
    fn a_clock_that_was_far_ahead_is_not_waited_for() {
        let ahead = 1_000_000;
        for settles in [false, true] {
            let heat = Heat::new(fresh(ahead));
            match settles {
                true => heat.settle(4000),
                false => heat.touch(4000),
            }
            assert_eq!(heat.load(), fresh(4000));
            heat.touch(4000 + 86_400);
            assert_eq!((heat.load().count(), heat.load().last_s()), (1.5, 4000 + 86_400));
            assert!(heat.is_unread(4010 + 86_400, Duration::from_secs(10)));
        }
    }

    #[test]
    fn readers_at_the_same_time_lose_no_second() {
        let heat = Heat::default();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let heat = &heat;
                scope.spawn(move || (1..=1000).for_each(|second| heat.touch(second * 4 + thread)));
            }
        });
        let count = heat.load().count();
        // Threads overtake each other; what is late is not counted, what is counted is a second.
        assert!((1.0..=4000.0).contains(&count) && heat.load().last_s() == 4003, "{count}");
    }
}
