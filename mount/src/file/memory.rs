//! Memory of write buffers: a share of the volume's budget, so that buffers full of data cannot
//! take what encoding and reading need to empty them.

use firn_tiering::Wait;
use firn_tiering::budget::{Budget, Permit};

use crate::error::FsResult;

/// Write buffers get at most this part of the budget.
const SHARE: u64 = 2;

/// Hands out memory for write buffers.
#[derive(Clone, Debug)]
pub(crate) struct WriteMemory {
    share: Budget,
    all: Budget,
}

/// Memory that a file holds; given back when dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    share: Permit,
    all: Permit,
}

impl WriteMemory {
    /// Draws on `all`, within a share whose time is told by `clock`.
    pub(crate) fn new(all: Budget, clock: std::sync::Arc<dyn firn_tiering::Clock>) -> Self {
        Self { share: Budget::new(all.total_bytes() / SHARE, clock), all }
    }

    /// Bytes that write buffers hold.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.share.used_bytes()
    }

    /// More than half of what write buffers may hold is held.
    pub(crate) fn is_tight(&self) -> bool {
        self.share.used_bytes() > self.share.total_bytes() / 2
    }

    /// Takes `bytes`, or waits for them as `wait` allows.
    pub(crate) fn acquire(&self, bytes: u64, wait: Wait) -> FsResult<Charge> {
        const WHAT: &str = "waiting for memory for written data";
        let share = self.share.acquire(bytes, wait, WHAT)?;
        let all = self.all.acquire(bytes, wait, WHAT)?;
        Ok(Charge { share, all })
    }

    /// Takes `bytes` if they are free.
    pub(crate) fn try_acquire(&self, bytes: u64) -> Option<Charge> {
        let share = self.share.try_acquire(bytes)?;
        let all = self.all.try_acquire(bytes)?;
        Some(Charge { share, all })
    }
}

impl Charge {
    /// Bytes held.
    pub(crate) fn bytes(&self) -> u64 {
        self.share.bytes()
    }

    /// Adds what `other` holds.
    pub(crate) fn merge(&mut self, other: Self) {
        self.share.merge(other.share);
        self.all.merge(other.all);
    }

    /// Gives back what is held beyond `bytes`.
    pub(crate) fn shrink_to(&mut self, bytes: u64) {
        self.share.shrink_to(bytes);
        self.all.shrink_to(bytes);
    }
}
