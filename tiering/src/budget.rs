//! The one memory budget of a volume: write buffers, caches, uploads and background work take
//! their bytes from it before they allocate. Filling it makes takers wait, in the order in which
//! they came. Below everything else in the crate; knows nothing but numbers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::blocks::Wait;
use crate::clock::Clock;
use crate::error::{Error, Result};

/// How long a waiter sleeps before it looks at the injected clock again.
const CLOCK_SLICE: Duration = Duration::from_millis(20);

/// A number of bytes shared by whoever holds a clone.
///
/// *Fairness*: waiters are served in order; [`Budget::try_acquire`] never overtakes one.
/// *Oversize*: a request larger than the whole budget is granted when nothing else is held, so
/// that it can finish; the excess is visible in [`Budget::used_bytes`].
#[derive(Clone, Debug)]
pub struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    total: u64,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    used: u64,
    peak: u64,
    next_ticket: u64,
    waiting: VecDeque<u64>,
}

impl State {
    fn fits(&self, bytes: u64, total: u64) -> bool {
        self.used == 0 || self.used.saturating_add(bytes) <= total
    }

    fn take(&mut self, bytes: u64) {
        self.used = self.used.saturating_add(bytes);
        self.peak = self.peak.max(self.used);
    }
}

impl Budget {
    /// A budget of `total_bytes`, all free.
    pub fn new(total_bytes: u64, clock: Arc<dyn Clock>) -> Self {
        Self {
            shared: Arc::new(Shared {
                total: total_bytes,
                clock,
                state: Mutex::default(),
                freed: Condvar::new(),
            }),
        }
    }

    /// Size of the budget.
    pub fn total_bytes(&self) -> u64 {
        self.shared.total
    }

    /// Bytes taken now.
    pub fn used_bytes(&self) -> u64 {
        self.shared.state.lock().used
    }

    /// Most bytes ever taken at once.
    pub fn peak_bytes(&self) -> u64 {
        self.shared.state.lock().peak
    }

    /// Takers that wait now.
    pub fn waiters(&self) -> usize {
        self.shared.state.lock().waiting.len()
    }

    /// Takes `bytes` if that needs no wait.
    pub fn try_acquire(&self, bytes: u64) -> Option<Permit> {
        let mut state = self.shared.state.lock();
        if !state.waiting.is_empty() || !state.fits(bytes, self.shared.total) {
            return None;
        }
        state.take(bytes);
        Some(self.permit(bytes))
    }

    /// Takes `bytes`, waiting as `wait` allows. `what` completes the sentence "deadline passed
    /// while ...".
    pub fn acquire(&self, bytes: u64, wait: Wait, what: &'static str) -> Result<Permit> {
        if let Some(permit) = self.try_acquire(bytes) {
            return Ok(permit);
        }
        let deadline = match wait {
            Wait::No => return Err(Error::WouldWait),
            Wait::Until(deadline) => deadline,
            Wait::Progress(patience) => self.shared.clock.instant() + patience,
        };
        let mut state = self.shared.state.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.waiting.push_back(ticket);
        loop {
            if state.waiting.front() == Some(&ticket) && state.fits(bytes, self.shared.total) {
                state.waiting.pop_front();
                state.take(bytes);
                // Whoever is next may fit as well.
                self.shared.freed.notify_all();
                return Ok(self.permit(bytes));
            }
            if self.shared.clock.instant() >= deadline {
                state.waiting.retain(|&other| other != ticket);
                self.shared.freed.notify_all();
                return Err(Error::TimedOut(what));
            }
            self.shared.freed.wait_for(&mut state, CLOCK_SLICE);
        }
    }

    fn permit(&self, bytes: u64) -> Permit {
        Permit { shared: Arc::clone(&self.shared), bytes }
    }
}

/// Bytes taken from a [`Budget`]; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Permit {
    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives back what is held beyond `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let excess = self.bytes.saturating_sub(bytes);
        self.give_back(excess);
    }

    /// Moves up to `bytes` of this permit into a new one.
    pub fn split(&mut self, bytes: u64) -> Permit {
        let moved = bytes.min(self.bytes);
        self.bytes -= moved;
        Permit { shared: Arc::clone(&self.shared), bytes: moved }
    }

    /// Adds the bytes of `other`, which must come from the same budget.
    pub fn merge(&mut self, mut other: Permit) {
        debug_assert!(Arc::ptr_eq(&self.shared, &other.shared), "permits of one budget");
        self.bytes += std::mem::take(&mut other.bytes);
    }

    fn give_back(&mut self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.bytes -= bytes;
        let mut state = self.shared.state.lock();
        state.used = state.used.saturating_sub(bytes);
        self.shared.freed.notify_all();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests;
