//! How many cold reads run at a time, for all users and for each. Who waits is served in turns
//! between users; nobody waits past his deadline, and the queue is bounded.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::blocks::Wait;
use crate::clock::Clock;
use crate::error::{Error, Result};

use super::RecallSettings;
use super::turns::{Lane, Turns};

/// How long a waiter sleeps before it looks at the injected clock again.
const CLOCK_SLICE: Duration = Duration::from_millis(20);

/// The bound on cold reads in flight.
#[derive(Debug)]
pub struct Limits {
    shared: Arc<Shared>,
    start: Instant,
}

#[derive(Debug)]
struct Shared {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    turns: Turns<u64>,
    queue: usize,
    next_ticket: u64,
    /// Whose turn has come and who has not noticed yet.
    called: HashSet<u64>,
}

impl State {
    fn call(&mut self) -> bool {
        let before = self.called.len();
        while let Some((_, ticket)) = self.turns.take_turn() {
            self.called.insert(ticket);
        }
        self.called.len() > before
    }
}

/// A cold read in flight; it has ended when this is dropped.
#[derive(Debug)]
pub struct Admitted {
    shared: Arc<Shared>,
    user: u32,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.shared.leave(self.user);
    }
}

impl Shared {
    fn leave(&self, user: u32) {
        let mut state = self.state.lock();
        state.turns.leave(user);
        if state.call() {
            self.changed.notify_all();
        }
    }
}

impl Limits {
    /// Nothing is in flight.
    pub fn new(settings: &RecallSettings, clock: Arc<dyn Clock>) -> Self {
        let start = clock.instant();
        let state = State {
            turns: Turns::new(settings.in_flight, settings.in_flight_per_user),
            queue: settings.queue,
            next_ticket: 0,
            called: HashSet::new(),
        };
        let shared = Shared { clock, state: Mutex::new(state), changed: Condvar::new() };
        Self { shared: Arc::new(shared), start }
    }

    /// Other bounds from now on.
    pub fn set(&self, settings: &RecallSettings) {
        let mut state = self.shared.state.lock();
        state.turns.set(settings.in_flight, settings.in_flight_per_user);
        state.queue = settings.queue;
        if state.call() {
            self.shared.changed.notify_all();
        }
    }

    /// Waits for a turn. [`Error::WouldWait`] under [`Wait::No`] when there is none now,
    /// [`Error::TimedOut`] when `wait` ends first or when too many wait already.
    pub fn admit(&self, user: u32, lane: Lane, wait: Wait) -> Result<Admitted> {
        let clock = &self.shared.clock;
        let deadline = match wait {
            Wait::No => None,
            Wait::Until(deadline) => Some(deadline),
            Wait::Progress(patience) => Some(clock.instant() + patience),
        };
        let mut state = self.shared.state.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.turns.push(user, lane, ticket);
        state.call();
        loop {
            if state.called.remove(&ticket) {
                return Ok(Admitted { shared: Arc::clone(&self.shared), user });
            }
            let give_up = match deadline {
                None => Some(Error::WouldWait),
                Some(_) if state.turns.waiting() > state.queue => {
                    Some(Error::TimedOut("waiting behind too many reads of cold data"))
                }
                Some(deadline) if clock.instant() >= deadline => {
                    Some(Error::TimedOut("waiting for a turn to read cold data"))
                }
                Some(_) => None,
            };
            if let Some(error) = give_up {
                state.turns.remove(user, lane, |other| *other == ticket);
                return Err(error);
            }
            self.shared.changed.wait_for(&mut state, CLOCK_SLICE);
        }
    }

    /// Reads in flight, and waiting.
    pub fn in_flight(&self) -> (usize, usize) {
        let state = self.shared.state.lock();
        (state.turns.running(), state.turns.waiting())
    }

    /// Milliseconds since these limits were made.
    pub(super) fn elapsed_ms(&self, clock: &dyn Clock) -> u64 {
        clock.instant().saturating_duration_since(self.start).as_millis() as u64
    }
}
