//! When pins give way: writers wait, and for a while nothing was copied, dropped or collected. What was
//! written is in memory only, and a pin is a wish. Nothing is stored; after a crash it begins anew.

use std::time::{Duration, Instant};

use super::Inner;

/// How long writers wait before pinned data goes.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long pins give way without being asked again: each drop is progress, and more follow.
const LASTS: Duration = Duration::from_secs(60);

/// What the mover remembers of it.
#[derive(Debug, Default)]
pub(super) struct Yielding {
    /// Since when there was no progress, and how much there was until then.
    still: Option<(Instant, u64)>,
    until: Option<Instant>,
}

impl Yielding {
    /// Whether pins give way now.
    fn look(&mut self, writers_wait: bool, progress: u64, now: Instant) -> bool {
        if !writers_wait {
            self.still = None;
            return false;
        }
        if self.until.is_some_and(|until| now < until) {
            return true;
        }
        match self.still {
            Some((since, seen)) if seen == progress => {
                if now.saturating_duration_since(since) < PATIENCE {
                    return false;
                }
                *self = Self { still: None, until: Some(now + LASTS) };
                true
            }
            _ => {
                self.still = Some((now, progress));
                false
            }
        }
    }
}

impl Inner {
    /// Whether what is pinned may leave hot for those who write.
    pub(super) fn pins_give_way(&self) -> bool {
        let (wait, progress) = (self.capacity.writers_wait(), self.capacity.progress());
        self.yielding.lock().look(wait, progress, self.config.clock.instant())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};

    #[test]
    fn pins_give_way_after_a_time_without_progress_and_then_for_a_while() {
        let clock = ManualClock::new();
        let mut yielding = Yielding::default();
        let mut look = |wait, progress| yielding.look(wait, progress, clock.instant());
        assert!(!look(true, 1));
        clock.advance(PATIENCE / 2);
        // There was some.
        assert!(!look(true, 2));
        clock.advance(PATIENCE / 2);
        assert!(!look(true, 2));
        clock.advance(PATIENCE / 2);
        assert!(look(true, 2));
        assert!(look(true, 3), "each drop is progress");
        assert!(!look(false, 3), "nobody waits");
        clock.advance(LASTS - Duration::from_secs(1));
        assert!(look(true, 9));
        clock.advance(Duration::from_secs(1));
        assert!(!look(true, 9));
    }
}
