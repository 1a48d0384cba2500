//! What could have been reached by somebody who knows the future: one strategy that is near to it,
//! and one bound that nobody exceeds. With sizes the true optimum is NP-hard to find (Berger,
//! Beckmann, Harchol-Balter: "Practical Bounds on Optimal Caching with Variable Object Sizes", Proc.
//! ACM Meas. Anal. Comput. Syst. 2(2), 2018), so it is held between the two.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use super::{MOST_CAPACITY, Op, Request, Strategy};
use crate::mix::ByMix;

/// The position of a read that never comes. Finite, so that of two such items the larger goes first.
const NEVER: u64 = 1 << 60;

/// Sizes within an eighth of each other share a class.
const CLASS_BITS: u32 = 3;

/// What is to be many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Requests that hit: "Belady-Size" of Berger et al., the largest product of size and distance to
    /// the next read goes.
    Hits,
    /// Bytes that hit: Belady's rule (1966), the furthest next read goes, whatever the size.
    Bytes,
}

/// Evicts by the future of the very trace it was made of, and lets pass what would have to go first
/// itself. With equal sizes it is the optimum (a test compares it with all possible decisions). Among
/// different sizes it picks to within an eighth of the largest product.
#[derive(Clone, Debug)]
pub struct Offline {
    goal: Goal,
    capacity: u64,
    used: u64,
    /// For each request, the position of the next read of its item, unless a write comes before.
    next: Vec<u64>,
    at: usize,
    resident: HashMap<u64, Kept, ByMix>,
    /// For each class of sizes, what is resident by its next read.
    classes: BTreeMap<u32, BTreeSet<(u64, u64)>>,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    next: u64,
    bytes: u64,
}

impl Offline {
    /// For this trace, whose requests must then be replayed in order and from the start, in a cache of
    /// so many bytes.
    pub fn new(trace: &[Request], capacity_bytes: u64, goal: Goal) -> Self {
        Self {
            goal,
            capacity: capacity_bytes.min(MOST_CAPACITY),
            used: 0,
            next: next_reads(trace),
            at: 0,
            resident: HashMap::default(),
            classes: BTreeMap::new(),
        }
    }

    fn next_of(&self, at: usize) -> u64 {
        self.next.get(at).copied().unwrap_or(NEVER)
    }

    /// How much an item is in the way.
    fn burden(&self, kept: Kept) -> f64 {
        let distance = kept.next.saturating_sub(self.at as u64) as f64;
        match self.goal {
            Goal::Hits => kept.bytes as f64 * distance,
            Goal::Bytes => distance,
        }
    }

    fn worst(&self) -> Option<(u64, Kept)> {
        let mut worst = None;
        let mut most = -1.0;
        for class in self.classes.values() {
            let Some(&(_, item)) = class.last() else { continue };
            let Some(&kept) = self.resident.get(&item) else { continue };
            let burden = self.burden(kept);
            if burden > most {
                (most, worst) = (burden, Some((item, kept)));
            }
        }
        worst
    }

    fn insert(&mut self, item: u64, kept: Kept) {
        self.remove(item);
        self.used += kept.bytes;
        self.resident.insert(item, kept);
        self.classes.entry(class_of(kept.bytes)).or_default().insert((kept.next, item));
    }

    fn remove(&mut self, item: u64) {
        let Some(kept) = self.resident.remove(&item) else { return };
        self.used -= kept.bytes;
        let class = class_of(kept.bytes);
        if let Some(members) = self.classes.get_mut(&class) {
            members.remove(&(kept.next, item));
            if members.is_empty() {
                self.classes.remove(&class);
            }
        }
    }
}

impl Strategy for Offline {
    fn name(&self) -> &str {
        match self.goal {
            Goal::Hits => "optimum",
            Goal::Bytes => "optimum-bytes",
        }
    }

    fn access(&mut self, request: &Request, resident: bool) {
        let kept = Kept { next: self.next_of(self.at), bytes: request.charge() };
        self.at += 1;
        if resident {
            self.insert(request.item, kept);
        }
    }

    fn victim(&mut self, _now_ms: u64) -> Option<u64> {
        self.worst().map(|(item, _)| item)
    }

    fn removed(&mut self, item: u64) {
        self.remove(item);
    }

    /// Whether everything that would have to go is more in the way than the item itself.
    fn admits(&mut self, request: &Request) -> bool {
        let new = Kept { next: self.next_of(self.at), bytes: request.charge() };
        if new.next == NEVER {
            return false;
        }
        let mut gone = Vec::new();
        let mut worth_it = true;
        while worth_it && self.used + new.bytes > self.capacity {
            let Some((item, kept)) = self.worst() else { break };
            worth_it = self.burden(kept) > self.burden(new);
            self.remove(item);
            gone.push((item, kept));
        }
        gone.into_iter().for_each(|(item, kept)| self.insert(item, kept));
        worth_it
    }

    fn resize(&mut self, capacity_bytes: u64) {
        self.capacity = capacity_bytes.min(MOST_CAPACITY);
    }
}

/// The power of two and the three bits behind it.
fn class_of(bytes: u64) -> u32 {
    let bytes = bytes.max(1);
    let log = bytes.ilog2();
    let below =
        if log >= CLASS_BITS { bytes >> (log - CLASS_BITS) } else { bytes << CLASS_BITS >> log };
    (log << CLASS_BITS) | (below as u32 & ((1 << CLASS_BITS) - 1))
}

/// For each request, the position of the next access to its item if that is a read.
fn next_reads(trace: &[Request]) -> Vec<u64> {
    let mut coming: HashMap<u64, u64, ByMix> = HashMap::default();
    let mut next = vec![NEVER; trace.len()];
    for (at, request) in trace.iter().enumerate().rev() {
        next[at] = coming.get(&request.item).copied().unwrap_or(NEVER);
        let use_of_it = if request.op == Op::Read { at as u64 } else { NEVER };
        coming.insert(request.item, use_of_it);
    }
    next
}

/// What no strategy exceeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bound {
    /// Requests that hit, at most.
    pub hits: u64,
    /// Bytes that hit, at most.
    pub hit_bytes: u64,
}

/// The upper bound "PFOO-L" of Berger et al.: to hit, an item must have taken its bytes from its last
/// access to the hit; all that together cannot exceed capacity times length, so nobody does better
/// than taking the cheapest of these intervals until that is used up. Counted over the requests since
/// `measured_from_ms`; an interval that began before costs only what lies behind.
pub fn bound(trace: &[Request], capacity_bytes: u64, measured_from_ms: u64) -> Bound {
    let Some(from) = trace.iter().position(|request| request.at_ms >= measured_from_ms) else {
        return Bound::default();
    };
    let mut last: HashMap<u64, (usize, u64), ByMix> = HashMap::default();
    let mut intervals = Vec::new();
    for (at, request) in trace.iter().enumerate() {
        let before = match request.op {
            Op::Delete => last.remove(&request.item),
            _ => last.insert(request.item, (at, request.charge())),
        };
        let Some((begin, bytes)) = before else { continue };
        let counts = request.op == Op::Read && request.at_ms >= measured_from_ms;
        if counts && bytes <= capacity_bytes {
            // A hit on the first measured request costs nothing that is measured.
            let steps = at.saturating_sub(begin.max(from)) as u128;
            intervals.push((steps * u128::from(bytes), request.bytes));
        }
    }
    let volume = u128::from(capacity_bytes) * (trace.len() - from) as u128;
    Bound {
        hits: fill(&mut intervals, volume, |_| 1),
        hit_bytes: fill(&mut intervals, volume, |bytes| bytes),
    }
}

/// The most worth that fits into `volume`, when the last one may be taken in part.
fn fill(intervals: &mut [(u128, u64)], volume: u128, worth: impl Fn(u64) -> u64) -> u64 {
    let price = |&(cost, bytes): &(u128, u64)| cost as f64 / worth(bytes).max(1) as f64;
    intervals.sort_unstable_by(|a, b| price(a).total_cmp(&price(b)));
    let (mut left, mut sum) = (volume, 0_u64);
    for &(cost, bytes) in intervals.iter() {
        if cost > left {
            let part = left as f64 / cost as f64 * worth(bytes) as f64;
            return sum.saturating_add(part.ceil() as u64);
        }
        left -= cost;
        sum = sum.saturating_add(worth(bytes));
    }
    sum
}

#[cfg(test)]
mod tests;
