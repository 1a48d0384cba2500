//! What may be had from cold before its comforts end: a bucket of bytes for all users together and
//! one for each, refilled with time. Pure: time comes as a number.

use std::collections::HashMap;

use super::RecallSettings;

/// Users remembered. Whoever's bucket is full again need not be.
const USERS: usize = 4096;

/// How fast a bucket fills and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Bytes that come in a second.
    pub bytes_per_s: u64,
    /// Bytes that may be had at once after a rest.
    pub burst_bytes: u64,
}

/// Thousandths of bytes, so that a millisecond of any rate is a whole number.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    milli_bytes: u128,
    at_ms: u64,
}

impl Bucket {
    fn full(rate: Rate, now_ms: u64) -> Self {
        Self { milli_bytes: u128::from(rate.burst_bytes) * 1000, at_ms: now_ms }
    }

    fn refill(&mut self, rate: Rate, now_ms: u64) {
        let passed_ms = now_ms.saturating_sub(self.at_ms);
        self.at_ms = self.at_ms.max(now_ms);
        let more = u128::from(rate.bytes_per_s) * u128::from(passed_ms);
        self.milli_bytes = (self.milli_bytes + more).min(u128::from(rate.burst_bytes) * 1000);
    }

    fn has(&self, bytes: u64) -> bool {
        self.milli_bytes >= u128::from(bytes) * 1000
    }

    fn spend(&mut self, bytes: u64) {
        self.milli_bytes = self.milli_bytes.saturating_sub(u128::from(bytes) * 1000);
    }
}

/// The buckets.
#[derive(Debug)]
pub struct Allowance {
    overall: Option<Rate>,
    per_user: Option<Rate>,
    all: Option<Bucket>,
    users: HashMap<u32, Bucket>,
}

impl Allowance {
    /// All buckets are full.
    pub fn new(settings: &RecallSettings) -> Self {
        let (overall, per_user) = (settings.allowance, settings.allowance_per_user);
        Self { overall, per_user, all: None, users: HashMap::new() }
    }

    /// Other rates from now on; what was spent stays spent.
    pub fn set(&mut self, settings: &RecallSettings) {
        (self.overall, self.per_user) = (settings.allowance, settings.allowance_per_user);
    }

    /// Whether `user` has anything left.
    pub fn is_left(&mut self, user: u32, now_ms: u64) -> bool {
        self.all_have(user, 1, now_ms)
    }

    /// Takes `bytes`, or nothing where that is more than is left. Returns whether they were taken.
    pub fn take(&mut self, user: u32, bytes: u64, now_ms: u64) -> bool {
        let enough = self.all_have(user, bytes, now_ms);
        if enough {
            self.each(user, now_ms, |bucket| bucket.spend(bytes));
        }
        enough
    }

    /// Takes `bytes` that were had already, down to nothing. Returns whether anything is left.
    pub fn spend(&mut self, user: u32, bytes: u64, now_ms: u64) -> bool {
        self.each(user, now_ms, |bucket| bucket.spend(bytes));
        self.is_left(user, now_ms)
    }

    fn all_have(&mut self, user: u32, bytes: u64, now_ms: u64) -> bool {
        let mut enough = true;
        self.each(user, now_ms, |bucket| enough &= bucket.has(bytes));
        enough
    }

    fn each(&mut self, user: u32, now_ms: u64, mut act: impl FnMut(&mut Bucket)) {
        if let Some(rate) = self.overall {
            let bucket = self.all.get_or_insert_with(|| Bucket::full(rate, now_ms));
            bucket.refill(rate, now_ms);
            act(bucket);
        }
        if let Some(rate) = self.per_user {
            self.make_room(user, rate, now_ms);
            let bucket = self.users.entry(user).or_insert_with(|| Bucket::full(rate, now_ms));
            bucket.refill(rate, now_ms);
            act(bucket);
        }
    }

    /// Forgets users with full buckets when there are too many, or else the one with the most.
    fn make_room(&mut self, user: u32, rate: Rate, now_ms: u64) {
        if self.users.len() < USERS || self.users.contains_key(&user) {
            return;
        }
        self.users.retain(|_, bucket| {
            bucket.refill(rate, now_ms);
            !bucket.has(rate.burst_bytes)
        });
        if self.users.len() >= USERS {
            let richest = self.users.iter().max_by_key(|(_, bucket)| bucket.milli_bytes);
            if let Some(user) = richest.map(|(user, _)| *user) {
                self.users.remove(&user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowance(overall: Option<Rate>, per_user: Option<Rate>) -> Allowance {
        Allowance::new(&RecallSettings {
            allowance: overall,
            allowance_per_user: per_user,
            ..RecallSettings::default()
        })
    }

    const SLOW: Rate = Rate { bytes_per_s: 100, burst_bytes: 1000 };

    #[test]
    fn a_burst_is_had_at_once_and_the_rate_after_it() {
        let mut allowance = allowance(None, Some(SLOW));
        assert!(allowance.take(1, 1000, 0));
        assert!(!allowance.take(1, 1, 0));
        assert!(!allowance.is_left(1, 9));
        assert!(allowance.take(1, 1, 10), "a byte every ten milliseconds");
        assert!(!allowance.take(1, 51, 510));
        assert!(allowance.take(1, 50, 510));
        assert!(allowance.take(1, 1000, 60_000));
        assert!(!allowance.take(1, 1, 60_000), "no more than the burst is saved up");
    }

    #[test]
    fn users_have_their_own_and_all_share_one() {
        let shared = Rate { bytes_per_s: 100, burst_bytes: 1500 };
        let mut allowance = allowance(Some(shared), Some(SLOW));
        assert!(allowance.take(1, 1000, 0));
        assert!(!allowance.take(1, 100, 0), "the user's");
        assert!(!allowance.take(2, 600, 0), "everybody's");
        assert!(allowance.take(2, 500, 0), "what was refused was not taken");
        assert!(!allowance.is_left(3, 0));
    }

    #[test]
    fn what_was_read_is_spent_down_to_nothing() {
        let mut allowance = allowance(None, Some(SLOW));
        assert!(allowance.spend(1, 999, 0));
        assert!(!allowance.spend(1, 5000, 0));
        assert!(allowance.is_left(1, 10), "nothing is owed");
    }

    #[test]
    fn without_rates_there_is_always_more() {
        let mut allowance = allowance(None, None);
        assert!(allowance.take(1, u64::MAX, 0));
        assert!(allowance.is_left(1, 0));
    }

    #[test]
    fn time_that_goes_back_gives_nothing() {
        let mut allowance = allowance(None, Some(SLOW));
        assert!(allowance.take(1, 1000, 5000));
        assert!(!allowance.is_left(1, 0));
        assert!(!allowance.is_left(1, 5000));
    }

    #[test]
    fn users_are_bounded_and_who_spent_is_remembered() {
        let mut allowance = allowance(None, Some(SLOW));
        assert!(allowance.take(0, 1000, 0));
        for user in 1..3 * USERS as u32 {
            assert!(allowance.take(user, 1, 0));
            assert!(allowance.users.len() <= USERS);
        }
        assert!(!allowance.is_left(0, 0));
    }
}
