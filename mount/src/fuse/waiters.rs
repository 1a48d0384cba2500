//! Runs the calls that have to wait: a bounded number at a time, each kind apart.
//!
//! Kinds are kept apart so that none can starve the one it depends on: draining the kernel's pages
//! waits for writes, and writes must not queue behind reads from a slow cold tier. Tasks beyond
//! the bound wait without a thread; the kernel bounds them by its own limit on requests.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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

/// The bounded set of threads on which calls wait.
#[derive(Clone, Debug)]
pub(super) struct Waiters {
    runtime: Handle,
    slots: [Arc<Semaphore>; 4],
    unfinished: Arc<Unfinished>,
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
        let slots = std::array::from_fn(|_| Arc::new(Semaphore::new(WIDTH)));
        Self { runtime, slots, unfinished: Arc::default() }
    }

    /// Runs `job` on a thread that may block, now or when one is free.
    pub(super) fn run(&self, kind: Kind, job: impl FnOnce() + Send + 'static) {
        let ticket = Ticket::new(&self.unfinished);
        let slots = Arc::clone(&self.slots[kind as usize]);
        let work = move |permit: OwnedSemaphorePermit| {
            job();
            drop((permit, ticket));
        };
        // Usually there is room; going through a task as well would be one more hop.
        if let Ok(permit) = Arc::clone(&slots).try_acquire_owned() {
            self.runtime.spawn_blocking(move || work(permit));
            return;
        }
        let runtime = self.runtime.clone();
        self.runtime.spawn(async move {
            let permit = slots.acquire_owned().await.expect("the semaphore is never closed");
            runtime.spawn_blocking(move || work(permit));
        });
    }

    /// Blocks until every accepted job has ended; each has a deadline.
    pub(super) fn finish(&self) {
        let mut count = self.unfinished.count.lock();
        while *count > 0 {
            self.unfinished.none_left.wait(&mut count);
        }
    }
}
