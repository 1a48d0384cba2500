//! What could not be read, so that damage is not read again and again.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Most that is remembered; of more, the oldest is tried again.
const MOST: usize = 64 << 10;

/// What is remembered for that long is tried again: it may have been mended, or written anew.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(6 * 3600);

/// Remembers for some hours, and not beyond an unmount.
#[derive(Debug)]
pub(super) struct Unreadable<T> {
    known: HashSet<T>,
    /// The same in the order in which it was met.
    order: VecDeque<(T, Instant)>,
}

impl<T> Default for Unreadable<T> {
    fn default() -> Self {
        Self { known: HashSet::new(), order: VecDeque::new() }
    }
}

impl<T: Copy + Eq + Hash> Unreadable<T> {
    pub(super) fn add(&mut self, what: T, now: Instant) {
        if self.known.insert(what) {
            self.order.push_back((what, now));
        }
        if self.order.len() > MOST {
            self.forget_oldest();
        }
    }

    pub(super) fn holds(&mut self, what: T, now: Instant) -> bool {
        let is_over = |at: &Instant| now.saturating_duration_since(*at) >= RETRY_AFTER;
        while self.order.front().is_some_and(|(_, at)| is_over(at)) {
            self.forget_oldest();
        }
        self.known.contains(&what)
    }

    fn forget_oldest(&mut self) {
        if let Some((oldest, _)) = self.order.pop_front() {
            self.known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_in_number_and_in_time() {
        let start = firn_tiering::Clock::instant(&firn_tiering::SystemClock);
        let mut unreadable = Unreadable::default();
        (0..=MOST).for_each(|number| unreadable.add(number, start));
        unreadable.add(MOST, start);
        assert_eq!((unreadable.known.len(), unreadable.order.len()), (MOST, MOST));
        assert!(!unreadable.holds(0, start) && unreadable.holds(1, start));
        let later = start + RETRY_AFTER / 2;
        unreadable.add(0, later);
        assert!(!unreadable.holds(1, start + RETRY_AFTER));
        assert!(unreadable.holds(0, start + RETRY_AFTER));
        assert!(!unreadable.holds(0, later + RETRY_AFTER));
        assert!(unreadable.known.is_empty() && unreadable.order.is_empty());
    }
}
