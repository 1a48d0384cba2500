//! Least recently used: the baseline that every other strategy is compared with.

use super::lists::Lists;
use super::{Op, Request, Strategy};

/// The item that was accessed longest ago goes first.
#[derive(Clone, Debug)]
pub struct Lru {
    order: Lists<1>,
}

impl Lru {
    /// Nothing is resident.
    pub fn new() -> Self {
        Self { order: Lists::new() }
    }

    /// An item of so many bytes is the last to go.
    pub(crate) fn touch(&mut self, item: u64, bytes: u64) {
        self.order.push_front(0, item, bytes);
    }
}

impl Default for Lru {
    fn default() -> Self {
        Self::new()
    }
}

impl Strategy for Lru {
    fn name(&self) -> &str {
        "lru"
    }

    fn access(&mut self, request: &Request, resident: bool) {
        if resident && request.op != Op::Delete {
            self.touch(request.item, request.charge());
        }
    }

    fn victim(&mut self, _now_ms: u64) -> Option<u64> {
        self.order.back(0).map(|(item, _)| item)
    }

    fn removed(&mut self, item: u64) {
        self.order.remove(item);
    }
}
