//! Clearing away what only destroyed snapshots and datasets held, off the threads that serve
//! calls, in steps so small that nobody waits for one.
//!
//! *Crash*: the namespace knows what is left to sweep; the next open goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::error::FsResult;
use crate::file::{Files, chain};
use crate::namespace::{Namespace, TreeError};

/// Changed objects looked at in one step.
const STEP: usize = 512;

/// Sweeps when it is woken.
#[derive(Debug)]
pub(super) struct Sweeper {
    bell: Arc<Bell>,
    /// Held by each step.
    stepping: Arc<Mutex<()>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Bell {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    woken: bool,
    stopped: bool,
    idle: bool,
}

impl Bell {
    /// Waits for work; `false` when it is time to stop.
    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while !state.woken && !state.stopped {
            state.idle = true;
            self.changed.notify_all();
            self.changed.wait(&mut state);
        }
        state.woken = false;
        state.idle = false;
        !state.stopped
    }
}

impl Sweeper {
    /// Starts the thread, which goes on with what an earlier use left.
    pub(super) fn start(names: Arc<Namespace>, files: Arc<Files>) -> std::io::Result<Self> {
        let bell = Arc::new(Bell::default());
        bell.state.lock().woken = true;
        let stepping = Arc::default();
        let (worker, turn) = (Arc::clone(&bell), Arc::clone(&stepping));
        let thread = std::thread::Builder::new().name("firn-sweep".into()).spawn(move || {
            while worker.wait() {
                let round = AssertUnwindSafe(|| sweep(&worker, &turn, &names, &files));
                if catch_unwind(round).is_err() {
                    let what = "clearing away destroyed snapshots panicked, which is a bug";
                    files.health.fail(what.to_owned());
                }
            }
        })?;
        Ok(Self { bell, stepping, thread: Mutex::new(Some(thread)) })
    }

    /// Nothing is swept until this is dropped: what goes must be out of memory before its blocks
    /// are freed, or a copy could still refer to them.
    pub(super) fn still(&self) -> MutexGuard<'_, ()> {
        self.stepping.lock()
    }

    /// There may be something to sweep.
    pub(super) fn wake(&self) {
        self.bell.state.lock().woken = true;
        self.bell.changed.notify_all();
    }

    /// Ends after the step under way; the next open goes on.
    pub(super) fn stop(&self) {
        self.bell.state.lock().stopped = true;
        self.bell.changed.notify_all();
        if let Some(thread) = self.thread.lock().take() {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }

    /// Waits until nothing is left to sweep, for tests.
    #[cfg(test)]
    pub(super) fn rest(&self) {
        let mut state = self.bell.state.lock();
        while !state.idle || state.woken {
            self.bell.changed.wait(&mut state);
        }
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Sweeps until nothing is left, a step fails, or it is time to stop.
fn sweep(bell: &Bell, turn: &Mutex<()>, names: &Namespace, files: &Files) {
    while !bell.state.lock().stopped && files.health.check().is_ok() {
        let mut guard = turn.lock();
        let stepped = step(names, files);
        // Whoever waits to destroy something comes first.
        MutexGuard::bump(&mut guard);
        drop(guard);
        match stepped {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::error!(error = chain(&error), "clearing away destroyed snapshots");
                if let Some(reason) = names.read_only() {
                    files.health.fail(reason);
                }
                return;
            }
        }
    }
}

/// Sweeps a little and frees what it found; `true` when there is more.
fn step(names: &Namespace, files: &Files) -> FsResult<bool> {
    let swept = names.sweep_some(STEP).map_err(|error| match error {
        TreeError::Fs(error) => error,
        other => crate::FsError::io("sweep", other),
    })?;
    if !swept.unreferenced.is_empty() {
        files.report_unreferenced(swept.unreferenced);
        // Now, so that what is to be freed never piles up.
        files.free_unreferenced()?;
    }
    Ok(swept.more)
}
