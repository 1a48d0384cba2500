//! How far to fetch ahead of one sequential reader. Pure numbers: who reads keeps one of these for
//! each open file, the store asks it and does the fetching.
//!
//! The window counts stored bytes, since those are what a slow store delivers. It doubles with
//! every step up to [`SLOW_START`]; beyond, it doubles only when the reader still had to wait and
//! has read half a window since it grew last: so it ends at what the store's bandwidth and latency
//! need together, and no higher than its bound.

/// First window.
const FIRST_WINDOW: u64 = 1 << 20;

/// Up to here the window grows whether the reader waits or not.
const SLOW_START: u64 = 8 << 20;

/// Longest request made ahead.
const LONGEST_REQUEST: u64 = 4 << 20;

/// Requests that a window is made of; more of them once they have reached [`LONGEST_REQUEST`].
const REQUESTS: u64 = 4;

/// What is remembered of one sequential reader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadAhead {
    /// Stored bytes to have under way or at hand.
    window: u64,
    /// Plaintext and stored bytes asked for so far: what one is worth in the other.
    plain: u64,
    stored: u64,
    /// Stored bytes asked for since the window grew last.
    since_growth: u64,
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
    pub(crate) fn room(&mut self, ahead: u64, most: u64) -> u64 {
        let outstanding = match self.plain {
            0 => ahead,
            plain => (u128::from(ahead) * u128::from(self.stored) / u128::from(plain)) as u64,
        };
        self.grow(most);
        let room = self.window.saturating_sub(outstanding);
        if room < self.request_bytes() && outstanding > 0 { 0 } else { room }
    }

    fn grow(&mut self, most: u64) {
        let is_slow = self.waited && self.since_growth >= self.window / 2;
        if self.window == 0 {
            self.window = FIRST_WINDOW.min(most);
        } else if self.window < SLOW_START || is_slow {
            self.window = (self.window * 2).min(most);
        } else {
            self.window = self.window.min(most);
            return;
        }
        self.waited = false;
        self.since_growth = 0;
    }

    /// Bytes of one request.
    pub(crate) fn request_bytes(&self) -> u64 {
        (self.window / REQUESTS).clamp(FIRST_WINDOW, LONGEST_REQUEST).min(self.window.max(1))
    }

    /// Notes what was asked for, in both measures.
    pub(crate) fn asked(&mut self, plain: u64, stored: u64) {
        self.plain = self.plain.saturating_add(plain);
        self.stored = self.stored.saturating_add(stored);
        self.since_growth = self.since_growth.saturating_add(stored);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u64 = 64 << 20;

    /// Reads on and on in steps of 1 MiB with everything kept asked for; the window in the end.
    fn run(steps: usize, waits: bool, most: u64) -> ReadAhead {
        let mut reader = ReadAhead::default();
        let mut ahead = 0_u64;
        for _ in 0..steps {
            let room = reader.room(ahead, most);
            reader.asked(room, room);
            ahead = (ahead + room).saturating_sub(1 << 20);
            if waits {
                reader.waited();
            }
        }
        reader
    }

    #[test]
    fn the_window_stays_where_nobody_waits() {
        assert_eq!(run(1, false, MOST).window, FIRST_WINDOW);
        assert_eq!(run(200, false, MOST).window, SLOW_START);
    }

    #[test]
    fn the_window_grows_to_its_bound_while_the_reader_waits() {
        assert_eq!(run(200, true, MOST).window, MOST);
        assert_eq!(run(200, true, 3 << 20).window, 3 << 20);
        assert_eq!(run(200, true, 0).window, 0, "switched off");
    }

    #[test]
    fn requests_are_large_and_several() {
        let reader = run(200, true, MOST);
        assert_eq!(reader.request_bytes(), LONGEST_REQUEST);
        let reader = run(200, false, MOST);
        assert_eq!(reader.request_bytes(), SLOW_START / REQUESTS);
    }

    #[test]
    fn nothing_is_asked_for_before_it_fills_a_request() {
        let mut reader = run(200, false, MOST);
        assert_eq!(reader.room(SLOW_START - (1 << 20), MOST), 0);
        assert_eq!(reader.room(SLOW_START - (2 << 20), MOST), 2 << 20);
        assert_eq!(reader.room(0, MOST), SLOW_START);
    }

    #[test]
    fn what_shrinks_well_is_fetched_further_ahead() {
        let mut reader = run(200, false, MOST);
        reader.plain = 4 * reader.stored;
        assert_eq!(reader.room(SLOW_START * 2, MOST), SLOW_START / 2);
    }

    #[test]
    fn a_restart_begins_small_again() {
        let mut reader = run(200, true, MOST);
        reader.restart();
        assert_eq!(reader.room(0, MOST), FIRST_WINDOW);
    }
}
