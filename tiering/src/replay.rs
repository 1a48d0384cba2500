//! Replays a trace of accesses against a strategy of eviction: what would have been a hit, what would
//! have been recalled.
//!
//! Replaying is pure: no clock, no file, no chance. An item is a number here, whatever it names. The same
//! [`Cache`] runs whole traces ([`replay`]), the rows of a comparison and the shadow caches of the
//! guardrail, so that all of them mean the same by a hit. Beside that, [`trace`] is how traces are
//! stored, and [`log`] how a running volume keeps one; only these two touch files.

mod compare;
mod guardrail;
mod judge;
mod lists;
pub mod log;
mod lru;
mod offline;
mod s3fifo;
pub mod trace;

use std::collections::HashMap;

use serde::Serialize;

pub use compare::{Contender, Report, Row, baselines, compare, footprint, report};
pub use guardrail::{Fallback, Guarded, Guardrail, GuardrailConfig};
pub use judge::{Baseline, Figures, Hits, Judge, JudgeConfig, State};
pub use log::{AccessLog, LogConfig, LogRead, LogStatus};
pub use lru::Lru;
pub use offline::{Bound, Goal, Offline, bound};
pub use s3fifo::S3Fifo;
pub use trace::{Pseudonyms, TraceReader, TraceWriter, read_trace};

use crate::mix::ByMix;

/// Answers of a strategy that name nothing resident, in a row, before its cache stops asking.
const MOST_STRANGERS: u32 = 64;

/// The largest capacity, in bytes: sums of what fits and one more item never overflow.
const MOST_CAPACITY: u64 = 1 << 62;

/// What was done to an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Bytes of it were read: the only kind that can hit or miss.
    Read,
    /// Bytes of it were written. What is written is hot, whatever it was before.
    Write,
    /// It is gone.
    Delete,
}

/// One access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// When, in milliseconds since 1970. Order is that of the trace; times may step back.
    pub at_ms: u64,
    /// Which item.
    pub item: u64,
    /// What was done.
    pub op: Op,
    /// Bytes touched.
    pub bytes: u64,
    /// Bytes of the whole item, afterwards.
    pub size: u64,
    /// Who did it: a process, a host, a job.
    pub client: u64,
    /// What the item belongs to: its directory.
    pub group: u64,
    /// Whose it is.
    pub owner: u32,
    /// Hash of its type.
    pub kind: u32,
}

impl Request {
    /// Bytes of capacity the item takes: its size; an empty one takes 1, so that what is kept of
    /// items stays in proportion to capacity.
    pub fn charge(&self) -> u64 {
        self.size.max(1)
    }
}

/// Decides what leaves a full cache.
///
/// The cache tells it of every request, in order, and owns the truth about what is resident:
///
/// - A hit, or a miss that is admitted: `access(request, true)`. Room was made before, so `victim`
///   and `removed` came first; an item that the strategy does not hold yet comes in.
/// - A miss that is not admitted, and every deletion: `access(request, false)`.
/// - Each item that leaves, by eviction or deletion: `removed(item)`, once.
pub trait Strategy {
    /// For tables.
    fn name(&self) -> &str;

    /// Takes note of a request; `resident` says whether the item is resident from now on.
    fn access(&mut self, request: &Request, resident: bool);

    /// The next item to go, among resident ones; stays resident until [`Strategy::removed`]. `None`
    /// means that nothing should go: what needs the room then bypasses the cache.
    fn victim(&mut self, now_ms: u64) -> Option<u64>;

    /// The item is not resident any more.
    fn removed(&mut self, item: u64);

    /// Whether a read that missed should make its item resident. Asked before room is made.
    fn admits(&mut self, request: &Request) -> bool {
        let _ = request;
        true
    }

    /// The cache has another capacity from now on.
    fn resize(&mut self, capacity_bytes: u64) {
        let _ = capacity_bytes;
    }
}

impl<S: Strategy + ?Sized> Strategy for Box<S> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn access(&mut self, request: &Request, resident: bool) {
        (**self).access(request, resident);
    }

    fn victim(&mut self, now_ms: u64) -> Option<u64> {
        (**self).victim(now_ms)
    }

    fn removed(&mut self, item: u64) {
        (**self).removed(item);
    }

    fn admits(&mut self, request: &Request) -> bool {
        (**self).admits(request)
    }

    fn resize(&mut self, capacity_bytes: u64) {
        (**self).resize(capacity_bytes);
    }
}

/// What a replay came to. Only reads count as requests; bytes of requests are those touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Score {
    /// Reads.
    pub requests: u64,
    /// Reads of resident items.
    pub hits: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Bytes read of resident items.
    pub hit_bytes: u64,
    /// Bytes fetched: whole items that were admitted, the bytes touched of those that were not.
    pub recalled_bytes: u64,
    /// Items that left to make room.
    pub evicted: u64,
    /// Their bytes.
    pub evicted_bytes: u64,
    /// Reads that missed and were not admitted.
    pub bypassed: u64,
}

impl Score {
    /// Hits by requests; 0 without requests.
    pub fn hit_ratio(&self) -> f64 {
        ratio(self.hits, self.requests)
    }

    /// Bytes hit by bytes read; 0 without requests.
    pub fn byte_hit_ratio(&self) -> f64 {
        ratio(self.hit_bytes, self.bytes)
    }

    fn add(&mut self, request: &Request, served: Served) {
        self.evicted += served.evicted;
        self.evicted_bytes = self.evicted_bytes.saturating_add(served.evicted_bytes);
        if request.op != Op::Read {
            return;
        }
        self.requests += 1;
        self.bytes = self.bytes.saturating_add(request.bytes);
        match served.outcome {
            Outcome::Hit => {
                self.hits += 1;
                self.hit_bytes = self.hit_bytes.saturating_add(request.bytes);
            }
            Outcome::Admitted => {
                self.recalled_bytes = self.recalled_bytes.saturating_add(request.charge());
            }
            Outcome::Bypassed => {
                self.recalled_bytes = self.recalled_bytes.saturating_add(request.bytes);
                self.bypassed += 1;
            }
        }
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// How a request was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The item was resident.
    Hit,
    /// It was not, and is now.
    Admitted,
    /// It is not resident now: too large, not wanted, or deleted.
    Bypassed,
}

/// How a request was served, and what it drove out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Whether it was a hit.
    pub outcome: Outcome,
    /// Items that left to make room.
    pub evicted: u64,
    /// Their bytes.
    pub evicted_bytes: u64,
}

/// Which items are resident in a cache of bounded bytes. What leaves, a [`Strategy`] says.
#[derive(Clone, Debug)]
pub struct Cache {
    capacity: u64,
    used: u64,
    sizes: HashMap<u64, u64, ByMix>,
    /// The read on which an item is admitted.
    admit_on: u32,
    /// Reads of items that are not admitted yet; empty with `admit_on` 1.
    reads: HashMap<u64, u32, ByMix>,
    most_reads: usize,
}

impl Cache {
    /// An empty cache that admits at the first read. No capacity exceeds 2^62 bytes.
    pub fn new(capacity_bytes: u64) -> Self {
        Self {
            capacity: capacity_bytes.min(MOST_CAPACITY),
            used: 0,
            sizes: HashMap::default(),
            admit_on: 1,
            reads: HashMap::default(),
            most_reads: 0,
        }
    }

    /// Admits an item at its `nth` read, 1 being the first. Reads of at most `most_items` items
    /// beside the resident ones are counted; beyond that counting starts again.
    pub fn admitting_on(mut self, nth: u32, most_items: usize) -> Self {
        self.admit_on = nth.max(1);
        self.most_reads = most_items;
        self
    }

    /// Bytes of the resident items.
    pub fn used_bytes(&self) -> u64 {
        self.used
    }

    /// Bytes it can hold.
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity
    }

    /// Resident items.
    pub fn len(&self) -> usize {
        self.sizes.len()
    }

    /// Whether nothing is resident.
    pub fn is_empty(&self) -> bool {
        self.sizes.is_empty()
    }

    /// Whether an item is resident.
    pub fn contains(&self, item: u64) -> bool {
        self.sizes.contains_key(&item)
    }

    /// Serves one request.
    pub fn serve(&mut self, request: &Request, strategy: &mut dyn Strategy) -> Served {
        let mut served = Served { outcome: Outcome::Bypassed, evicted: 0, evicted_bytes: 0 };
        if request.op == Op::Delete {
            self.drop_item(request.item, strategy);
            self.reads.remove(&request.item);
            strategy.access(request, false);
        } else if self.sizes.contains_key(&request.item) {
            served.outcome = Outcome::Hit;
            self.hit(request, strategy, &mut served);
        } else if self.admit(request, strategy, &mut served) {
            served.outcome = Outcome::Admitted;
        }
        served
    }

    /// Changes the capacity; what does not fit any more leaves.
    pub fn resize(&mut self, capacity_bytes: u64, now_ms: u64, strategy: &mut dyn Strategy) {
        self.capacity = capacity_bytes.min(MOST_CAPACITY);
        strategy.resize(self.capacity);
        let mut served = Served { outcome: Outcome::Bypassed, evicted: 0, evicted_bytes: 0 };
        if !self.make_room(0, now_ms, strategy, &mut served) {
            self.retain(|_| false, strategy);
        }
    }

    /// Forgets resident items that are not wanted.
    pub fn retain(&mut self, mut wanted: impl FnMut(u64) -> bool, strategy: &mut dyn Strategy) {
        let gone: Vec<u64> = self.sizes.keys().copied().filter(|&item| !wanted(item)).collect();
        for item in gone {
            self.drop_item(item, strategy);
        }
        self.reads.retain(|&item, _| wanted(item));
    }

    fn hit(&mut self, request: &Request, strategy: &mut dyn Strategy, served: &mut Served) {
        let charge = request.charge();
        if charge > self.capacity {
            self.drop_item(request.item, strategy);
            return strategy.access(request, false);
        }
        if let Some(old) = self.sizes.insert(request.item, charge) {
            self.used = self.used - old + charge;
        }
        strategy.access(request, true);
        if !self.make_room(0, request.at_ms, strategy, served) {
            self.drop_item(request.item, strategy);
        }
    }

    fn admit(
        &mut self,
        request: &Request,
        strategy: &mut dyn Strategy,
        served: &mut Served,
    ) -> bool {
        let charge = request.charge();
        let admitted = charge <= self.capacity
            && (request.op == Op::Write || self.is_due(request.item) && strategy.admits(request))
            && self.make_room(charge, request.at_ms, strategy, served);
        if admitted {
            self.sizes.insert(request.item, charge);
            self.used += charge;
            self.reads.remove(&request.item);
        }
        strategy.access(request, admitted);
        admitted
    }

    /// Counts a read of an item that is not resident.
    fn is_due(&mut self, item: u64) -> bool {
        if self.admit_on == 1 {
            return true;
        }
        if self.reads.len() >= self.most_reads && !self.reads.contains_key(&item) {
            self.reads.clear();
        }
        let reads = self.reads.entry(item).or_insert(0);
        *reads = reads.saturating_add(1);
        *reads >= self.admit_on
    }

    fn make_room(
        &mut self,
        bytes: u64,
        now_ms: u64,
        strategy: &mut dyn Strategy,
        served: &mut Served,
    ) -> bool {
        let mut strangers = 0;
        while self.used.saturating_add(bytes) > self.capacity {
            let Some(victim) = strategy.victim(now_ms) else { return false };
            match self.drop_item(victim, strategy) {
                Some(size) => {
                    served.evicted += 1;
                    served.evicted_bytes = served.evicted_bytes.saturating_add(size);
                }
                None => {
                    strategy.removed(victim);
                    strangers += 1;
                    if strangers == MOST_STRANGERS {
                        return false;
                    }
                }
            }
        }
        true
    }

    fn drop_item(&mut self, item: u64, strategy: &mut dyn Strategy) -> Option<u64> {
        let size = self.sizes.remove(&item)?;
        self.used -= size;
        strategy.removed(item);
        Some(size)
    }
}

/// Replays a trace: every item is admitted at its first access, as everything written is hot; an item
/// larger than the capacity misses and bypasses. Requests before `measured_from_ms` warm the cache
/// and do not count.
pub fn replay(
    trace: &[Request],
    capacity_bytes: u64,
    strategy: &mut dyn Strategy,
    measured_from_ms: u64,
) -> Score {
    replay_into(trace, &mut Cache::new(capacity_bytes), strategy, measured_from_ms)
}

/// As [`replay`], in a cache that may hold something already or admit later.
pub fn replay_into(
    trace: &[Request],
    cache: &mut Cache,
    strategy: &mut dyn Strategy,
    measured_from_ms: u64,
) -> Score {
    let mut score = Score::default();
    for request in trace {
        let served = cache.serve(request, strategy);
        if request.at_ms >= measured_from_ms {
            score.add(request, served);
        }
    }
    score
}

#[cfg(test)]
mod tests;
