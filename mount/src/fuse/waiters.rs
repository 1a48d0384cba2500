//! Runs the calls that have to wait: a bounded number at a time, each kind apart.
//!
//! Kinds are kept apart so that none can starve the one it depends on: draining the kernel's pages
//! waits for writes, and writes must not queue behind reads from a slow cold tier. Tasks beyond
//! the bound wait without a thread; the kernel bounds them by its own limit on requests. Within a
//! kind users take turns, and none has all threads: whoever reads very much from a slow cold tier
//! delays nobody else for longer than one of his reads takes.

use std::sync::Arc;

use firn_tiering::recall::{Lane, Turns};
use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;

/// What a waiting call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The cold tier.
    Read,
    /// Memory or space.
    Write,
    /// The disk.
    Sync,
    /// The kernel, which writes its dirty pages.
    Drain,
}

/// Threads that waiting calls of one kind may occupy.
const WIDTH: usize = 48;

/// How many of them the reads of one user may occupy.
const READS_PER_USER: usize = 40;

/// The bounded set of threads on which calls wait.
#[derive(Clone, Debug)]
pub(super) struct Waiters {
    runtime: Handle,
    kinds: [Arc<Mutex<Turns<Work>>>; 4],
    unfinished: Arc<Unfinished>,
}

/// A call that waits for a thread.
struct Work(Box<dyn FnOnce() + Send>, Ticket);

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Work")
    }
}

#[derive(Debug, Default)]
struct Unfinished {
    count: Mutex<usize>,
    none_left: Condvar,
}

/// Counts a job from when it is accepted until it is dropped, finished or not.
struct Ticket(Arc<Unfinished>);

impl Ticket {
    fn new(unfinished: &Arc<Unfinished>) -> Self {
        *unfinished.count.lock() += 1;
        Self(Arc::clone(unfinished))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut count = self.0.count.lock();
        *count -= 1;
        if *count == 0 {
            self.0.none_left.notify_all();
        }
    }
}

impl Waiters {
    pub(super) fn new(runtime: Handle) -> Self {
        let turns = |per_user| Arc::new(Mutex::new(Turns::new(WIDTH, per_user)));
        let mut kinds = std::array::from_fn(|_| turns(WIDTH));
        kinds[Kind::Read as usize] = turns(READS_PER_USER);
        Self { runtime, kinds, unfinished: Arc::default() }
    }

    /// Runs `job` of `user` on a thread that may block, now or when it is his turn.
    pub(super) fn run(&self, kind: Kind, user: u32, job: impl FnOnce() + Send + 'static) {
        let work = Work(Box::new(job), Ticket::new(&self.unfinished));
        let turns = &self.kinds[kind as usize];
        turns.lock().push(user, Lane::First, work);
        start(&self.runtime, turns);
    }

    /// Blocks until every accepted job has ended; each has a deadline.
    pub(super) fn finish(&self) {
        let mut count = self.unfinished.count.lock();
        while *count > 0 {
            self.unfinished.none_left.wait(&mut count);
        }
    }
}

/// Starts what may run now; each that ends starts what comes after it.
fn start(runtime: &Handle, turns: &Arc<Mutex<Turns<Work>>>) {
    loop {
        let Some((user, Work(job, ticket))) = turns.lock().take_turn() else { return };
        let (runtime_of_job, turns_of_job) = (runtime.clone(), Arc::clone(turns));
        runtime.spawn_blocking(move || {
            let place = Place { turns: turns_of_job, runtime: runtime_of_job, user };
            job();
            drop(place);
            drop(ticket);
        });
    }
}

/// A thread taken; given to the next when dropped, also by a job that panics.
struct Place {
    turns: Arc<Mutex<Turns<Work>>>,
    runtime: Handle,
    user: u32,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.turns.lock().leave(self.user);
        start(&self.runtime, &self.turns);
    }
}
