//! How far to fetch ahead of one sequential reader. Pure: who reads keeps one of these for each open
//! file, the store asks it and does the fetching, and time comes from outside.
//!
//! The window counts stored bytes, since those are what a slow store delivers. It doubles with
//! every step up to [`SLOW_START`]; beyond, it doubles when the reader still had to wait, has gone
//! through a window since, and the doubling before brought him more bytes in a second. So it ends
//! at what the store's bandwidth and latency need together: a store that is far away gets more
//! requests at a time, one that is merely busy does not.

use std::time::{Duration, Instant};

/// First window.
const FIRST_WINDOW: u64 = 1 << 20;

/// Up to here the window grows whether the reader waits or not.
const SLOW_START: u64 = 16 << 20;

/// Shortest and longest request made ahead.
const SHORTEST_REQUEST: u64 = 1 << 20;
const LONGEST_REQUEST: u64 = 4 << 20;

/// Requests that a window is made of, between those bounds.
const REQUESTS: u64 = 8;

/// What is remembered of one sequential reader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadAhead {
    /// Stored bytes to have under way or at hand.
    window: u64,
    /// Plaintext and stored bytes asked for so far: what one is worth in the other.
    plain: u64,
    stored: u64,
    /// Stored bytes asked for since the window was judged last, and when that was.
    since: u64,
    judged_at: Option<Instant>,
    /// Stored bytes in a second with the window before; 0 before the first measurement.
    rate: u64,
    waited: bool,
}

impl ReadAhead {
    /// Notes that the reader had to wait for bytes.
    pub fn waited(&mut self) {
        self.waited = true;
    }

    /// The reader went elsewhere: what was learnt of the store's speed no longer counts.
    pub fn restart(&mut self) {
        *self = Self::default();
    }

    /// Stored bytes to ask for now, when `ahead` bytes of plaintext were asked for and not read
    /// yet; 0 while that is not worth a request. `most` bounds the window.
    pub(crate) fn room(&mut self, ahead: u64, most: u64, now: Instant) -> u64 {
        let outstanding = match self.plain {
            0 => ahead,
            plain => (u128::from(ahead) * u128::from(self.stored) / u128::from(plain)) as u64,
        };
        self.judge(now);
        self.window = self.window.min(most);
        let room = self.window.saturating_sub(outstanding);
        if room < self.request_bytes() && outstanding > 0 { 0 } else { room }
    }

    fn judge(&mut self, now: Instant) {
        if self.window < SLOW_START {
            self.window = (self.window * 2).max(FIRST_WINDOW);
        } else if self.waited && self.since >= self.window {
            let took =
                self.judged_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
            let millis = took.as_millis().max(1);
            let rate = (u128::from(self.since) * 1000 / millis) as u64;
            // An eighth more is more than chance.
            if rate > self.rate + self.rate / 8 {
                self.window *= 2;
                self.rate = rate;
            } else {
                // Not for ever: a store that was busy has time again.
                self.rate -= self.rate / 32;
            }
        } else {
            return;
        }
        self.judged_at = Some(now);
        self.waited = false;
        self.since = 0;
    }

    /// Bytes of one request.
    pub(crate) fn request_bytes(&self) -> u64 {
        let bytes = (self.window / REQUESTS).clamp(SHORTEST_REQUEST, LONGEST_REQUEST);
        bytes.min(self.window.max(1))
    }

    /// Notes what was asked for, in both measures.
    pub(crate) fn asked(&mut self, plain: u64, stored: u64) {
        self.plain = self.plain.saturating_add(plain);
        self.stored = self.stored.saturating_add(stored);
        self.since = self.since.saturating_add(stored);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};

    const MOST: u64 = 64 << 20;
    const STEP: u64 = 1 << 20;

    /// Reads on and on in steps of 1 MiB from a store that has `bytes_per_ms` and answers after
    /// `latency_ms`: in that time it delivers no more than what is asked for.
    fn run(steps: usize, bytes_per_ms: u64, latency_ms: u64, most: u64) -> ReadAhead {
        let clock = ManualClock::new();
        let mut reader = ReadAhead::default();
        let mut ahead = 0_u64;
        for _ in 0..steps {
            let room = reader.room(ahead, most, clock.instant());
            reader.asked(room, room);
            ahead = (ahead + room).saturating_sub(STEP);
            let most_under_way = reader.window.checked_div(latency_ms).unwrap_or(u64::MAX);
            let speed = bytes_per_ms.min(most_under_way).max(1);
            let took = Duration::from_micros(1000 * STEP / speed);
            if !took.is_zero() {
                clock.advance(took);
                reader.waited();
            }
        }
        reader
    }

    /// More than any reader can take.
    const FAST: u64 = 1 << 50;

    #[test]
    fn the_window_stays_where_nobody_waits() {
        assert_eq!(run(1, FAST, 0, MOST).window, FIRST_WINDOW);
        assert_eq!(run(200, FAST, 0, MOST).window, SLOW_START);
    }

    #[test]
    fn a_store_far_away_gets_a_window_that_fills_its_line() {
        // A gigabyte a second at 40 ms is 40 MB under way.
        assert_eq!(run(2000, 1 << 20, 40, MOST).window, MOST);
        assert_eq!(run(2000, 1 << 20, 40, 32 << 20).window, 32 << 20, "within the bound");
        assert_eq!(run(2000, 1 << 20, 40, 3 << 20).window, 3 << 20);
        assert_eq!(run(2000, 1 << 20, 40, 0).window, 0, "switched off");
    }

    #[test]
    fn a_store_that_is_merely_busy_does_not_get_more_requests() {
        let reader = run(300, 100 << 10, 1, MOST);
        assert_eq!(reader.window, 2 * SLOW_START, "one attempt brought nothing");
        assert_eq!(reader.request_bytes(), LONGEST_REQUEST);
    }

    #[test]
    fn nothing_is_asked_for_before_it_fills_a_request() {
        let mut reader = run(200, FAST, 0, MOST);
        let now = ManualClock::new().instant();
        let request = reader.request_bytes();
        assert_eq!(request, SLOW_START / REQUESTS);
        assert_eq!(reader.room(SLOW_START - request / 2, MOST, now), 0);
        assert_eq!(reader.room(SLOW_START - request, MOST, now), request);
        assert_eq!(reader.room(0, MOST, now), SLOW_START);
    }

    #[test]
    fn what_shrinks_well_is_fetched_further_ahead() {
        let mut reader = run(200, FAST, 0, MOST);
        reader.plain = 4 * reader.stored;
        assert_eq!(reader.room(SLOW_START * 2, MOST, ManualClock::new().instant()), SLOW_START / 2);
    }

    #[test]
    fn a_restart_begins_small_again() {
        let mut reader = run(2000, 1 << 20, 40, MOST);
        reader.restart();
        assert_eq!(reader.room(0, MOST, ManualClock::new().instant()), FIRST_WINDOW);
    }
}
