//! The plain copies there are, by file, and which of them go first.
//!
//! A copy that somebody outside holds (the kernel may read it, or is about to) stays; whoever takes one
//! gets it under the same lock that finds out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{HotRoom, Plain};
use crate::types::Ino;

/// A copy that nobody opened for so long goes.
const IDLE: Duration = Duration::from_secs(3600);

/// A copy whose bytes were compared so long ago is compared again, also while it is read: what the
/// kernel reads by itself nobody else looks at.
pub(super) const PROVEN_FOR: Duration = Duration::from_secs(3600);

/// Copies at most: each is an open file.
const MOST: usize = 256;

/// All copies.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    copies: HashMap<Ino, Kept>,
}

#[derive(Debug)]
struct Kept {
    plain: Arc<Plain>,
    used: Instant,
    proven: Instant,
}

impl Kept {
    fn is_free(&self) -> bool {
        Arc::strong_count(&self.plain) == 1
    }
}

impl Shelf {
    /// The copy of a file, if there is one that can be trusted.
    pub(crate) fn take(&mut self, ino: Ino, now: Instant) -> Option<Arc<Plain>> {
        let kept = self.copies.get_mut(&ino)?;
        kept.used = now;
        // Twice the time: the thread that compares may be behind.
        let is_proven = now.saturating_duration_since(kept.proven) < PROVEN_FOR * 2;
        (is_proven && kept.plain.is_untouched()).then(|| Arc::clone(&kept.plain))
    }

    /// Whether a file has a copy, trusted or not.
    pub(crate) fn has(&self, ino: Ino) -> bool {
        self.copies.contains_key(&ino)
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.copies.is_empty()
    }

    /// Keeps a new copy, and gives it out.
    pub(crate) fn put(&mut self, ino: Ino, plain: Plain, now: Instant) -> Arc<Plain> {
        let plain = Arc::new(plain);
        self.copies.insert(ino, Kept { plain: Arc::clone(&plain), used: now, proven: now });
        plain
    }

    /// The copy that was compared longest ago, if that is too long.
    pub(crate) fn unproven(&self, now: Instant) -> Option<(Ino, Arc<Plain>)> {
        let is_due = |kept: &Kept| {
            now.saturating_duration_since(kept.proven) >= PROVEN_FOR && !kept.plain.is_damaged()
        };
        let due = self.copies.iter().filter(|(_, kept)| is_due(kept));
        let oldest = due.min_by_key(|(_, kept)| kept.proven)?;
        Some((*oldest.0, Arc::clone(&oldest.1.plain)))
    }

    /// A copy was compared and is whole.
    pub(crate) fn is_proven(&mut self, ino: Ino, now: Instant) {
        if let Some(kept) = self.copies.get_mut(&ino) {
            kept.proven = now;
        }
    }

    /// Bytes of copies that nobody uses.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.copies.values().filter(|kept| kept.is_free()).map(|kept| kept.plain.len()).sum()
    }

    /// Bytes that may be thawed now.
    pub(crate) fn left(&self, room: &HotRoom) -> u64 {
        if self.copies.len() < MOST { room.left(self.bytes()) } else { 0 }
    }

    fn bytes(&self) -> u64 {
        self.copies.values().map(|kept| kept.plain.len()).sum()
    }

    /// Takes out the copies that have to go and that nobody uses: damaged ones, those of files that are
    /// gone, those that nobody opened for long, and for want of room the ones opened longest ago.
    pub(crate) fn weed(
        &mut self,
        room: &HotRoom,
        now: Instant,
        is_gone: impl Fn(Ino) -> bool,
    ) -> Vec<(Ino, Arc<Plain>)> {
        let mut excess = room.excess(self.bytes());
        let mut free: Vec<(Instant, Ino)> = self
            .copies
            .iter()
            .filter(|(_, kept)| kept.is_free())
            .map(|(&ino, kept)| (kept.used, ino))
            .collect();
        free.sort_unstable();
        let mut out = Vec::new();
        for (used, ino) in free {
            let Some(kept) = self.copies.get(&ino) else { continue };
            let is_idle = now.saturating_duration_since(used) >= IDLE;
            if excess > 0 || is_idle || is_gone(ino) || !kept.plain.is_untouched() {
                excess = excess.saturating_sub(kept.plain.len());
                out.extend(self.copies.remove(&ino).map(|kept| (ino, kept.plain)));
            }
        }
        out
    }

    /// Takes out all of them.
    pub(crate) fn clear(&mut self) -> Vec<(Ino, Arc<Plain>)> {
        self.copies.drain().map(|(ino, kept)| (ino, kept.plain)).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    #![allow(clippy::disallowed_methods, reason = "any instant will do to count from")]

    use std::os::unix::fs::FileExt;

    use super::super::ThawCounts;
    use super::super::testing::copy;
    use super::*;

    const ROOM: HotRoom =
        HotRoom { capacity: 800, used: 0, low: 600, high: 700, is_awaited: false };

    fn inos(taken: &[(Ino, Arc<Plain>)]) -> Vec<u64> {
        taken.iter().map(|(ino, _)| ino.0).collect()
    }

    #[test]
    fn the_longest_unopened_goes_first_and_what_is_open_stays() {
        let (mut shelf, counts) = (Shelf::default(), Arc::new(ThawCounts::default()));
        let begin = Instant::now();
        let at = |second| begin + Duration::from_secs(second);
        for ino in 1..=3 {
            drop(shelf.put(Ino(ino), copy(&[7; 10], &counts), at(ino)));
        }
        let open = shelf.take(Ino(1), at(4)).unwrap();
        drop(shelf.take(Ino(2), at(5)).unwrap());
        let none = |_| false;
        assert!(shelf.weed(&ROOM, at(6), none).is_empty());
        let tight = HotRoom { used: 655, ..ROOM };
        assert_eq!(inos(&shelf.weed(&tight, at(6), none)), [3]);
        assert_eq!(counts.now().files, 2);
        let full = HotRoom { is_awaited: true, ..ROOM };
        assert_eq!(inos(&shelf.weed(&full, at(6), none)), [2], "1 is open");
        assert_eq!(shelf.left(&full), 0);
        drop(open);
        assert_eq!(inos(&shelf.weed(&ROOM, at(6), |ino| ino == Ino(1))), [1], "its file is gone");
        assert!(shelf.is_empty());
        assert_eq!(counts.bytes(), 0);
    }

    #[test]
    fn a_damaged_copy_is_never_given_out_again() {
        let (mut shelf, counts) = (Shelf::default(), Arc::new(ThawCounts::default()));
        let now = Instant::now();
        let plain = shelf.put(Ino(1), copy(b"snow", &counts), now);
        plain.file().write_all_at(b"S", 0).unwrap();
        assert!(shelf.take(Ino(1), now).is_none());
        assert!(shelf.weed(&ROOM, now, |_| false).is_empty(), "still open");
        drop(plain);
        let out = shelf.weed(&ROOM, now, |_| false);
        assert_eq!(inos(&out), [1]);
        assert!(out[0].1.is_damaged());
    }

    #[test]
    fn a_copy_in_use_is_compared_again_and_not_given_out_for_long_without() {
        let (mut shelf, counts) = (Shelf::default(), Arc::new(ThawCounts::default()));
        let now = Instant::now();
        let held = shelf.put(Ino(1), copy(b"snow", &counts), now);
        assert_eq!(shelf.free_bytes(), 0);
        assert!(shelf.unproven(now + PROVEN_FOR / 2).is_none());
        let due = now + PROVEN_FOR;
        assert!(shelf.unproven(due).is_some_and(|(ino, _)| ino == Ino(1)));
        assert!(shelf.take(Ino(1), due).is_some());
        assert!(shelf.take(Ino(1), due + PROVEN_FOR).is_none(), "nobody has compared it");
        shelf.is_proven(Ino(1), due);
        assert!(shelf.unproven(due).is_none());
        assert!(shelf.take(Ino(1), due + PROVEN_FOR).is_some());
        drop(held);
        assert_eq!(shelf.free_bytes(), 4);
    }

    #[test]
    fn a_copy_that_nobody_opened_for_an_hour_goes() {
        let (mut shelf, counts) = (Shelf::default(), Arc::new(ThawCounts::default()));
        let now = Instant::now();
        drop(shelf.put(Ino(1), copy(b"snow", &counts), now));
        assert!(shelf.weed(&ROOM, now + IDLE - Duration::from_secs(1), |_| false).is_empty());
        assert_eq!(inos(&shelf.weed(&ROOM, now + IDLE, |_| false)), [1]);
    }
}
