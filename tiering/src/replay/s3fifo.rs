//! S3-FIFO (Yang, Zhang, Qiu, Yue, Vinayak: "FIFO queues are all you need for cache eviction", SOSP
//! 2023), with sizes: queues are bounded in bytes, not in items.

use super::lists::Lists;
use super::{MOST_CAPACITY, Op, Request, Strategy};

const SMALL: usize = 0;
const MAIN: usize = 1;
const GHOST: usize = 2;

/// The small queue's share of the capacity, as a divisor.
const SMALL_SHARE: u64 = 10;

/// Uses are counted up to this: two bits.
const MOST_USES: u8 = 3;

/// An item moves from the small to the main queue when it was used more often than this since it
/// came in.
const FEW_USES: u8 = 1;

/// New items enter a small queue (10 % of the bytes); those used again there move to the main queue,
/// which is FIFO with a second chance for each use; the others go, and a ghost queue remembers as
/// many bytes of them as the main queue holds: who comes back from there enters main at once.
#[derive(Clone, Debug)]
pub struct S3Fifo {
    queues: Lists<3>,
    capacity: u64,
    /// The last answer of [`Strategy::victim`]: its removal is an eviction, any other a deletion.
    doomed: Option<u64>,
}

impl S3Fifo {
    /// For a cache of so many bytes.
    pub fn new(capacity_bytes: u64) -> Self {
        Self { queues: Lists::new(), capacity: capacity_bytes.min(MOST_CAPACITY), doomed: None }
    }

    /// Items that are remembered without being resident.
    pub fn ghosts(&self) -> usize {
        self.queues.len(GHOST)
    }

    /// Bytes in the small and the main queue.
    #[cfg(test)]
    pub(super) fn resident_bytes(&self) -> u64 {
        self.queues.bytes(SMALL) + self.queues.bytes(MAIN)
    }

    /// Whether anything is kept of an item.
    #[cfg(test)]
    pub(super) fn knows(&self, item: u64) -> bool {
        self.queues.list_of(item).is_some()
    }

    fn small_bytes(&self) -> u64 {
        self.capacity / SMALL_SHARE
    }

    fn main_bytes(&self) -> u64 {
        self.capacity - self.small_bytes()
    }

    fn insert(&mut self, item: u64, bytes: u64) {
        let list = match self.queues.list_of(item) {
            Some(GHOST) => MAIN,
            _ => SMALL,
        };
        self.queues.push_front(list, item, bytes);
        self.queues.set_uses(item, |_| 0);
    }

    /// The first at the back of the small queue that was not used enough; the others move on. None
    /// when main overflows meanwhile or nothing is left.
    fn small_victim(&mut self) -> Option<u64> {
        while let Some((item, uses)) = self.queues.back(SMALL) {
            if uses <= FEW_USES {
                return Some(item);
            }
            self.queues.move_front(MAIN, item);
            self.queues.set_uses(item, |_| 0);
            if self.queues.bytes(MAIN) > self.main_bytes() {
                return None;
            }
        }
        None
    }

    fn main_victim(&mut self) -> Option<u64> {
        // Ends: each round takes one of at most three uses away.
        while let Some((item, uses)) = self.queues.back(MAIN) {
            if uses == 0 {
                return Some(item);
            }
            self.queues.move_front(MAIN, item);
            self.queues.set_uses(item, |uses| uses - 1);
        }
        None
    }

    fn trim_ghosts(&mut self) {
        while self.queues.bytes(GHOST) > self.main_bytes() {
            let Some((item, _)) = self.queues.back(GHOST) else { break };
            self.queues.remove(item);
        }
    }
}

impl Strategy for S3Fifo {
    fn name(&self) -> &str {
        "s3-fifo"
    }

    fn access(&mut self, request: &Request, resident: bool) {
        let (item, bytes) = (request.item, request.charge());
        if request.op == Op::Delete {
            self.queues.remove(item);
        } else if resident {
            match self.queues.list_of(item) {
                Some(SMALL | MAIN) => {
                    self.queues.set_uses(item, |uses| (uses + 1).min(MOST_USES));
                    self.queues.resize(item, bytes);
                }
                _ => self.insert(item, bytes),
            }
        }
    }

    fn victim(&mut self, _now_ms: u64) -> Option<u64> {
        let mut victim = None;
        if self.queues.bytes(SMALL) >= self.small_bytes() {
            victim = self.small_victim();
        }
        // Before the small queue has its share, or when all of it moved on.
        victim = victim.or_else(|| self.main_victim());
        self.doomed = victim.or_else(|| self.small_victim());
        self.doomed
    }

    fn removed(&mut self, item: u64) {
        let evicted = self.doomed.take_if(|doomed| *doomed == item).is_some();
        if evicted && self.queues.list_of(item) == Some(SMALL) {
            self.queues.move_front(GHOST, item);
            self.trim_ghosts();
        } else if self.queues.list_of(item) != Some(GHOST) {
            self.queues.remove(item);
        }
    }

    fn resize(&mut self, capacity_bytes: u64) {
        self.capacity = capacity_bytes.min(MOST_CAPACITY);
        self.trim_ghosts();
    }
}
