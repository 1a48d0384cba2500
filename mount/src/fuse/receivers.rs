//! Who of the serving threads waits for the next request, and how.
//!
//! Waking a thread on an idle processor costs many times what a request does, and the kernel wakes
//! one for each request while any sleeps in its queue. So where it pays, one thread *looks* for the
//! next request for a moment before it sleeps, and the others *rest* outside the kernel's queue.
//!
//! *Nobody is left waiting*: a request may take long, or wait for another one. While threads rest,
//! one of them *watches*: when nobody has waited for requests for a [`TICK`], it waits itself.
//! *Idle*: after [`QUIET`] ticks without a request all threads sleep in the kernel's queue, as they
//! do in the beginning; nothing ticks or looks then. That is also how they learn of the end of
//! the connection: whoever rests is back at the device within that time.
//! *Busy*: where looks are in vain, or other threads of the machine run meanwhile, or requests queue
//! behind one thread, all of them sleep in the kernel's queue for a number of requests, which
//! doubles each time: a processor that is wanted is not taken from others, and wakes cheaply.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use firn_tiering::{Clock, SystemClock};
use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::event::{PollFd, PollFlags, Timespec};

/// How long a request may keep everybody from waiting for the next one.
const TICK: Duration = Duration::from_millis(1);

/// Ticks without a request after which the connection is idle.
const QUIET: u32 = 50;

/// How long to look for the next request: a program's pause between two calls is shorter, and
/// sleeping and waking takes about as long.
const PATIENCE: Duration = Duration::from_micros(100);

/// Somebody else had the processor when looking once took longer; without, it takes about 1 us.
const SHARED: Duration = Duration::from_micros(10);

/// Looks in a row that speak against looking before it ends, about.
const DOUBTS: u32 = 64;

/// For how many requests nobody looks or rests then, at first and at most.
const PAUSES: (u32, u32) = (64, 16384);

/// Looks in a row that pay after which the next pause is a short one again.
const PAID: u32 = 1024;

/// What there is to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pending {
    /// Nothing yet.
    Nothing,
    /// A request, or the end of the connection.
    Something,
}

/// Where requests come from.
pub(super) trait Source: Send + Sync + 'static {
    /// What there is to read now.
    fn pending(&self) -> Pending;
}

/// The connection to the kernel.
pub(super) struct Device(pub(super) OwnedFd);

impl Source for Device {
    fn pending(&self) -> Pending {
        let mut polled = [PollFd::new(&self.0, PollFlags::IN)];
        match rustix::event::poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(0) => Pending::Nothing,
            // An error shows when the device is read.
            Ok(_) | Err(_) => Pending::Something,
        }
    }
}

/// The serving threads of one mount. Clones share state.
#[derive(Clone)]
pub(super) struct Receivers(Arc<Shared>);

impl std::fmt::Debug for Receivers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Receivers")
    }
}

struct Shared {
    source: Box<dyn Source>,
    state: Mutex<State>,
    /// For those that rest.
    rested: Condvar,
    /// For the one that watches.
    watch: Condvar,
    /// Whether there is another processor for whoever looks.
    may_look: bool,
}

#[derive(Debug)]
struct State {
    /// Threads that wait for requests, sleeping or looking.
    waiting: usize,
    resting: usize,
    /// Resting threads that are told to wait for requests again.
    recalled: usize,
    watched: bool,
    /// Requests so far.
    served: u64,
    pace: Pace,
}

/// Whether looking pays.
#[derive(Debug, Default)]
struct Pace {
    /// Requests for which nobody looks.
    skip: u32,
    /// How many they were the last time.
    pause: u32,
    /// What speaks against looking.
    doubts: u32,
    /// Looks since the last pause.
    looks: u32,
}

/// How a look ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// A request was there before, as where several programs make them.
    AtOnce,
    /// One came.
    Waited,
    /// Others had the processor meanwhile.
    Shared,
    /// None came.
    InVain,
}

/// A request that is being served. When it ends, its thread waits for another one or rests.
pub(super) struct Serving<'a>(&'a Shared);

impl Receivers {
    /// For `threads` that begin by sleeping in the queue of `source`.
    pub(super) fn new(source: impl Source, threads: usize, processors: usize) -> Self {
        let state = State {
            waiting: threads,
            resting: 0,
            recalled: 0,
            watched: false,
            served: 0,
            pace: Pace::default(),
        };
        Self(Arc::new(Shared {
            source: Box::new(source),
            state: Mutex::new(state),
            rested: Condvar::new(),
            watch: Condvar::new(),
            may_look: processors > 1 && threads > 1,
        }))
    }

    /// Called by a serving thread at the beginning of each request that soon ends.
    pub(super) fn serving(&self) -> Serving<'_> {
        drop(self.0.begin());
        Serving(&self.0)
    }

    /// As [`Receivers::serving`], for one that reads or writes much, or waits for the disk: another
    /// thread waits for requests meanwhile.
    pub(super) fn serving_long(&self) -> Serving<'_> {
        let mut state = self.0.begin();
        if state.waiting == 0 {
            self.0.recall(&mut state);
        }
        drop(state);
        Serving(&self.0)
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        self.0.next();
    }
}

impl Shared {
    fn begin(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        state.waiting = state.waiting.saturating_sub(1);
        state.served += 1;
        state
    }

    /// Has one more thread wait for requests, if one rests.
    fn recall(&self, state: &mut State) {
        if state.recalled < state.resting {
            state.recalled += 1;
            self.rested.notify_one();
            // Whoever watches may be the only one.
            self.watch.notify_one();
        }
    }

    /// Returns when this thread is to read the next request.
    fn next(&self) {
        let mut state = self.state.lock();
        let looks = self.may_look && state.pace.looks();
        if looks && state.waiting > 0 {
            self.rest(&mut state);
        }
        state.waiting += 1;
        // Whoever is back from a rest has not served anything lately, and sleeps.
        let looks = looks && state.waiting == 1;
        drop(state);
        if looks {
            let outcome = self.look();
            self.note(outcome);
        }
    }

    fn rest(&self, state: &mut MutexGuard<'_, State>) {
        state.resting += 1;
        loop {
            if state.recalled > 0 {
                state.recalled -= 1;
                break;
            }
            if state.watched {
                self.rested.wait(state);
                continue;
            }
            state.watched = true;
            let needed = self.watch(state);
            state.watched = false;
            if needed {
                break;
            }
        }
        state.resting -= 1;
        state.recalled = state.recalled.min(state.resting);
        // Another one watches, or follows.
        self.rested.notify_one();
    }

    /// Whether this thread, which rests, is needed; the other reason to return is that it was
    /// recalled.
    fn watch(&self, state: &mut MutexGuard<'_, State>) -> bool {
        let (mut seen, mut quiet) = (state.served, 0);
        while state.recalled == 0 {
            self.watch.wait_for(state, TICK);
            if state.served != seen {
                (seen, quiet) = (state.served, 0);
                continue;
            }
            if state.waiting == 0 {
                return true;
            }
            quiet += 1;
            if quiet == QUIET {
                state.recalled = state.resting;
            }
        }
        false
    }

    /// Looks for a request for a moment.
    fn look(&self) -> Look {
        if self.source.pending() == Pending::Something {
            return Look::AtOnce;
        }
        let start = SystemClock.instant();
        let mut last = start;
        loop {
            rustix::thread::sched_yield();
            let pending = self.source.pending();
            let now = SystemClock.instant();
            if let Some(end) = look_ends(pending, now - start, now - last) {
                return end;
            }
            last = now;
        }
    }

    /// Learns from a look.
    fn note(&self, outcome: Look) {
        let mut state = self.state.lock();
        if state.pace.note(outcome) {
            state.recalled = state.resting;
            self.rested.notify_one();
            self.watch.notify_one();
        }
    }
}

/// How a look ends that began so long ago, and of which the last step took so long; `None` when it
/// goes on.
fn look_ends(pending: Pending, so_far: Duration, step: Duration) -> Option<Look> {
    match pending {
        _ if step >= SHARED => Some(Look::Shared),
        Pending::Something => Some(Look::Waited),
        Pending::Nothing if so_far >= PATIENCE => Some(Look::InVain),
        Pending::Nothing => None,
    }
}

impl Pace {
    /// Whether to look after this request.
    fn looks(&mut self) -> bool {
        let looks = self.skip == 0;
        self.skip = self.skip.saturating_sub(1);
        looks
    }

    /// Learns from a look; says whether to stop looking for now.
    fn note(&mut self, outcome: Look) -> bool {
        self.looks += 1;
        self.doubts = match outcome {
            Look::Waited => self.doubts.saturating_sub(1),
            Look::AtOnce => self.doubts + 1,
            Look::Shared | Look::InVain => self.doubts + 2,
        };
        if self.doubts < DOUBTS {
            return false;
        }
        let before = if self.looks > PAID { 0 } else { self.pause };
        self.pause = (before * 2).clamp(PAUSES.0, PAUSES.1);
        (self.skip, self.doubts, self.looks) = (self.pause, 0, 0);
        true
    }
}

#[cfg(test)]
mod tests;
