//! Decoded, verified cells kept in memory for reads that touch part of a cell, and for what was
//! fetched ahead from cold. Bounded in bytes; second chance (a cell that was used since it was
//! last looked at survives once more), so that one scan does not flush what is used again.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::block::{BlockDigest, BlockId};

/// Bytes counted for a cell beside its content: the map's and the queue's share.
const CELL_OVERHEAD: u64 = 128;

/// One cell of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct CellKey {
    pub(super) block: BlockId,
    pub(super) cell: u32,
}

struct Cached {
    digest: BlockDigest,
    plain: Bytes,
    used: bool,
}

#[derive(Default)]
struct State {
    cells: HashMap<CellKey, Cached>,
    queue: VecDeque<CellKey>,
    bytes: u64,
}

/// Verified cells by block and number.
pub(super) struct CellCache {
    capacity: u64,
    state: Mutex<State>,
}

impl CellCache {
    pub(super) fn new(capacity_bytes: u64) -> Self {
        Self { capacity: capacity_bytes, state: Mutex::default() }
    }

    #[cfg(test)]
    pub(super) fn capacity_bytes(&self) -> u64 {
        self.capacity
    }

    /// The cell, if it is held and belongs to a block of this digest.
    pub(super) fn get(&self, key: CellKey, digest: &BlockDigest) -> Option<Bytes> {
        let mut state = self.state.lock();
        let cached = state.cells.get_mut(&key)?;
        if cached.digest != *digest {
            return None;
        }
        cached.used = true;
        Some(cached.plain.clone())
    }

    /// Whether [`CellCache::get`] would find it; does not count as use.
    pub(super) fn contains(&self, key: CellKey, digest: &BlockDigest) -> bool {
        self.state.lock().cells.get(&key).is_some_and(|cached| cached.digest == *digest)
    }

    /// Keeps a cell that was verified against `digest`.
    pub(super) fn put(&self, key: CellKey, digest: BlockDigest, plain: Bytes) {
        let cost = plain.len() as u64 + CELL_OVERHEAD;
        if cost > self.capacity {
            return;
        }
        let mut state = self.state.lock();
        if let Some(old) = state.cells.insert(key, Cached { digest, plain, used: false }) {
            state.bytes -= old.plain.len() as u64 + CELL_OVERHEAD;
        } else {
            state.queue.push_back(key);
        }
        state.bytes += cost;
        while state.bytes > self.capacity {
            let Some(oldest) = state.queue.pop_front() else { break };
            match state.cells.get_mut(&oldest) {
                Some(cached) if cached.used => {
                    cached.used = false;
                    state.queue.push_back(oldest);
                }
                Some(_) => {
                    let gone = state.cells.remove(&oldest).map_or(0, |c| c.plain.len() as u64);
                    state.bytes -= gone + CELL_OVERHEAD;
                }
                None => {}
            }
        }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn key(block: u64) -> CellKey {
        CellKey { block: BlockId::from_raw(block), cell: 0 }
    }

    #[test]
    fn bytes_stay_bounded_and_used_cells_survive_a_scan() {
        let cache = CellCache::new(10 * (1000 + CELL_OVERHEAD));
        let digest = BlockDigest([1; 16]);
        cache.put(key(0), digest, Bytes::from(vec![0; 1000]));
        for block in 1..1000 {
            assert!(cache.get(key(0), &digest).is_some(), "used cell gone at {block}");
            cache.put(key(block), digest, Bytes::from(vec![0; 1000]));
            assert!(cache.bytes() <= cache.capacity_bytes());
        }
        assert!(!cache.contains(key(1), &digest));
        assert!(cache.contains(key(999), &digest));
    }

    #[test]
    fn another_digest_is_a_miss_and_replacing_counts_once() {
        let cache = CellCache::new(10_000);
        cache.put(key(1), BlockDigest([1; 16]), Bytes::from_static(b"old"));
        assert!(cache.get(key(1), &BlockDigest([2; 16])).is_none());
        cache.put(key(1), BlockDigest([2; 16]), Bytes::from_static(b"newer"));
        assert_eq!(cache.get(key(1), &BlockDigest([2; 16])).unwrap(), "newer");
        assert_eq!(cache.bytes(), 5 + CELL_OVERHEAD);
        cache.put(key(2), BlockDigest([2; 16]), Bytes::from(vec![0; 20_000]));
        assert!(!cache.contains(key(2), &BlockDigest([2; 16])));
    }
}
