//! The backups that come with time: one thread that sleeps until the next is due. A failed backup
//! is tried again sooner, and `status` shows its age and why it failed.

use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::assemble::Parts;
use crate::failure;

/// Shortest pause after a failure.
const RETRY: Duration = Duration::from_secs(30);

/// Runs backups until it is stopped.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    shared: Arc<Stop>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Ends the sleep of a thread that works from time to time.
#[derive(Debug, Default)]
pub(super) struct Stop {
    state: Mutex<StopState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct StopState {
    is_stopping: bool,
    is_woken: bool,
}

impl Stop {
    /// Has whoever sleeps wake up and stop.
    pub(super) fn stop(&self) {
        self.state.lock().is_stopping = true;
        self.changed.notify_all();
    }

    /// Has the one who sleeps, or is about to, go on at once.
    pub(super) fn wake(&self) {
        self.state.lock().is_woken = true;
        self.changed.notify_all();
    }

    /// Whether it is time to stop.
    pub(super) fn is_stopping(&self) -> bool {
        self.state.lock().is_stopping
    }

    /// Sleeps; `false` when it is time to stop.
    pub(super) fn sleep(&self, pause: Duration) -> bool {
        let mut state = self.state.lock();
        let goes_on = |state: &mut StopState| !state.is_stopping && !state.is_woken;
        self.changed.wait_while_for(&mut state, goes_on, pause);
        state.is_woken = false;
        !state.is_stopping
    }
}

impl Schedule {
    pub(super) fn start(&self, parts: &Arc<Parts>) {
        let shared = Arc::clone(&self.shared);
        let interval = parts.config.backup_interval.0;
        // The thread must not keep the parts open.
        let parts = Arc::downgrade(parts);
        let thread = std::thread::Builder::new()
            .name("firn-backup".into())
            .spawn(move || run(&shared, interval, &parts));
        match thread {
            Ok(thread) => *self.thread.lock() = Some(thread),
            Err(error) => tracing::error!(%error, "no thread for backups"),
        }
    }

    /// Lets no backup begin any more.
    pub(super) fn end(&self) {
        self.shared.stop();
    }

    /// Ends the thread; a backup that runs is waited for.
    pub(super) fn stop(&self) {
        self.end();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the thread for backups panicked");
        }
    }
}

fn run(shared: &Stop, interval: Duration, parts: &Weak<Parts>) {
    let mut pause = interval;
    while shared.sleep(pause) {
        let Some(parts) = parts.upgrade() else { return };
        pause = match parts.back_up() {
            Ok(()) => interval,
            Err(error) => {
                tracing::warn!("backing up the namespace: {}", failure::line(&error));
                RETRY.min(interval)
            }
        };
    }
}
