//! Which files are read at random, and how often: one number for each of a bounded set of files, half of
//! it gone every ten minutes. Reads that the kernel answers from its cache are not seen, so what counts
//! here is what thawing would save.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::types::Ino;

/// Random reads, decayed, that make a file worth a plain copy.
const ENOUGH: u32 = 256;

/// How long it takes until half of them are forgotten.
const HALF_LIFE: Duration = Duration::from_secs(600);

/// Files remembered.
const MOST: usize = 1024;

/// Counts random reads of files.
#[derive(Debug, Default)]
pub(crate) struct Scores {
    files: HashMap<Ino, Score>,
}

#[derive(Clone, Copy, Debug)]
struct Score {
    reads: u32,
    /// Since when nothing was taken off.
    since: Instant,
}

impl Score {
    fn at(self, now: Instant) -> Self {
        let halvings = now.saturating_duration_since(self.since).as_secs() / HALF_LIFE.as_secs();
        let halvings = u32::try_from(halvings).unwrap_or(u32::MAX);
        Self {
            reads: self.reads.checked_shr(halvings).unwrap_or(0),
            since: self.since + HALF_LIFE.saturating_mul(halvings),
        }
    }
}

impl Scores {
    /// A random read of the file. Says `true` once it has had enough of them, and begins anew.
    pub(crate) fn note(&mut self, ino: Ino, now: Instant) -> bool {
        if !self.files.contains_key(&ino) && self.files.len() >= MOST {
            self.make_room(now);
        }
        let score = self.files.entry(ino).or_insert(Score { reads: 0, since: now });
        *score = score.at(now);
        score.reads += 1;
        let enough = score.reads >= ENOUGH;
        if enough {
            self.files.remove(&ino);
        }
        enough
    }

    /// Forgets the half that is read least.
    fn make_room(&mut self, now: Instant) {
        let mut reads: Vec<u32> = self.files.values().map(|score| score.at(now).reads).collect();
        let middle = reads.len() / 2;
        let (_, &mut median, _) = reads.select_nth_unstable(middle);
        self.files.retain(|_, score| score.at(now).reads > median);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "any instant will do to count from")]

    use super::*;

    #[test]
    fn a_file_is_worth_it_after_enough_reads_within_a_while() {
        let (mut scores, begin) = (Scores::default(), Instant::now());
        let hot = Ino(7);
        assert!((1..ENOUGH).all(|_| !scores.note(hot, begin)));
        assert!(scores.note(hot, begin));
        assert!(!scores.note(hot, begin), "counted anew");

        let slow = Ino(8);
        let mut now = begin;
        for _ in 0..10 * ENOUGH {
            now += Duration::from_secs(60);
            assert!(!scores.note(slow, now), "one a minute never is");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_keeps_what_is_read_most() {
        let (mut scores, now) = (Scores::default(), Instant::now());
        for _ in 0..ENOUGH - 1 {
            scores.note(Ino(1), now);
        }
        for ino in 2..10 * MOST as u64 {
            scores.note(Ino(ino), now);
        }
        assert!(scores.files.len() <= MOST);
        assert!(scores.note(Ino(1), now), "the one that is read most is still known");
    }
}
