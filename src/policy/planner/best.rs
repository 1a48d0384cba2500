//! The best of many: a heap that holds no more than is needed, and forgets the rest.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use super::{Candidate, Count, Decision, Defaults, Mode, Order};

/// What comes first: compared field by field, the least first. The inode number makes it total.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    rank: u8,
    order: u64,
    p_reuse: u32,
    heat: u32,
    idle_ms: u64,
    bytes: u64,
    ino: u64,
}

impl Key {
    /// The one that is missed least first: unlikely to be read again, little heat, long idle, large.
    pub(super) fn coldest(rank: u8, candidate: &Candidate, defaults: &Defaults) -> Self {
        let (p_reuse, heat) = temperature(candidate, defaults);
        Self {
            rank,
            order: match defaults.order {
                Order::ColdestFirst => 0,
                Order::LargestFirst => !candidate.hot_bytes,
                Order::OldestFirst => !millis(candidate.age),
            },
            p_reuse,
            heat,
            idle_ms: !millis(candidate.idle),
            bytes: !candidate.hot_bytes,
            ino: candidate.ino,
        }
    }

    /// The one that is missed most first; small ones before large ones.
    pub(super) fn hottest(rank: u8, candidate: &Candidate, defaults: &Defaults) -> Self {
        let (p_reuse, heat) = temperature(candidate, defaults);
        Self {
            rank,
            order: 0,
            p_reuse: !p_reuse,
            heat: !heat,
            idle_ms: millis(candidate.idle),
            bytes: candidate.stored_bytes,
            ino: candidate.ino,
        }
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Probability and heat as numbers in the same order. An unknown probability lies in the middle.
fn temperature(candidate: &Candidate, defaults: &Defaults) -> (u32, u32) {
    let known = candidate.p_reuse.filter(|_| defaults.mode == Mode::Ml);
    let p_reuse = known.filter(|p| (0.0..=1.0).contains(p)).unwrap_or(0.5);
    let heat = if candidate.heat > 0.0 { candidate.heat } else { 0.0 };
    // The bits of floating-point numbers that are not negative are ordered as they are; adding
    // zero makes -0 positive.
    ((p_reuse + 0.0).to_bits(), heat.to_bits())
}

/// A candidate that may be taken.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) key: Key,
    /// What it counts towards the need.
    pub(super) bytes: u64,
    pub(super) candidate: Candidate,
    pub(super) decision: Decision,
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Kept {}

impl PartialOrd for Kept {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Kept {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}

/// The shortest head of the sorted sequence of all offered whose bytes meet the need, or the first
/// `most` of it. Which is the same in whatever sequence they are offered.
#[derive(Debug, Default)]
pub(super) struct Best {
    need: u64,
    most: usize,
    bytes: u128,
    heap: BinaryHeap<Kept>,
    offered: Count,
}

impl Best {
    pub(super) fn new(need: u64, most: usize) -> Self {
        Self { need, most, ..Self::default() }
    }

    /// Bytes that are needed.
    pub(super) const fn need(&self) -> u64 {
        self.need
    }

    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    /// Everything that was offered.
    pub(super) const fn offered(&self) -> Count {
        self.offered
    }

    /// Whether one with this key would be kept.
    pub(super) fn takes(&self, key: &Key) -> bool {
        let is_full = self.heap.len() >= self.most || self.bytes >= u128::from(self.need);
        !is_full || self.heap.peek().is_some_and(|worst| *key < worst.key)
    }

    pub(super) fn offer(&mut self, kept: Kept) {
        self.offered.files += 1;
        self.offered.bytes = self.offered.bytes.saturating_add(kept.candidate.stored_bytes);
        if !self.takes(&kept.key) {
            return;
        }
        self.bytes += u128::from(kept.bytes);
        self.heap.push(kept);
        while let Some(worst) = self.heap.peek() {
            let rest = self.bytes - u128::from(worst.bytes);
            if self.heap.len() <= self.most && rest < u128::from(self.need) {
                break;
            }
            self.heap.pop();
            self.bytes = rest;
        }
    }

    /// Forgets the last, and keeps no more than are left then.
    pub(super) fn drop_worst(&mut self) {
        if let Some(worst) = self.heap.pop() {
            self.bytes -= u128::from(worst.bytes);
            self.most = self.heap.len();
        }
    }

    /// Stored bytes of those that are kept, by inode number.
    pub(super) fn stored_bytes(&self) -> HashMap<u64, u64> {
        let kept = self.heap.iter().map(|kept| &kept.candidate);
        kept.map(|candidate| (candidate.ino, candidate.stored_bytes)).collect()
    }

    /// Forgets some, as if they had not been offered.
    pub(super) fn forget(&mut self, is_forgotten: impl Fn(&Kept) -> bool) {
        let (mut files, mut bytes) = (0, 0);
        self.heap.retain(|kept| {
            let forgotten = is_forgotten(kept);
            if forgotten {
                files += 1;
                bytes += kept.candidate.stored_bytes;
            }
            !forgotten
        });
        self.offered.files -= files;
        self.offered.bytes = self.offered.bytes.saturating_sub(bytes);
    }

    /// Those that are left, the first one first.
    pub(super) fn into_sorted(self) -> Vec<Kept> {
        self.heap.into_sorted_vec()
    }
}
