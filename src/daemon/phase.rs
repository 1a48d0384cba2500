//! Where an unmount is: what is being waited for and how far it is. The daemon writes it, whoever
//! watches the unmount reads it over the control socket.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::control::protocol::Progress;

/// What is known of the end of a mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// What is being done; empty while the volume is simply mounted.
    pub progress: Progress,
    /// What went wrong without stopping the unmount.
    pub warnings: Vec<String>,
    /// Everything is done that will be.
    pub finished: bool,
    /// Why the volume could not be closed in order.
    pub failure: Option<String>,
}

/// Shared between the daemon and its watchers.
#[derive(Clone, Debug, Default)]
pub struct Phase {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    watchers: Mutex<usize>,
    unwatched: Condvar,
}

/// Someone who follows the unmount and must hear its last word; dropped when they have.
#[derive(Debug)]
pub struct Watching(Phase);

impl Drop for Watching {
    fn drop(&mut self) {
        *self.0.shared.watchers.lock() -= 1;
        self.0.shared.unwatched.notify_all();
    }
}

impl Phase {
    /// Says what is being done now.
    pub fn doing(&self, doing: &str) {
        tracing::info!("unmounting: {doing}");
        self.change(|state| {
            state.progress = Progress { doing: doing.to_owned(), ..Progress::default() };
        });
    }

    /// Says how far it is, in bytes.
    pub fn progress(&self, done_bytes: u64, total_bytes: u64) {
        self.change(|state| {
            state.progress.done_bytes = done_bytes;
            state.progress.total_bytes = total_bytes;
        });
    }

    /// Says what went wrong without stopping the unmount.
    pub fn warn(&self, warning: impl Into<String>) {
        let warning = warning.into();
        tracing::warn!("{warning}");
        self.change(|state| state.warnings.push(warning));
    }

    /// Says that it is over.
    pub fn finish(&self, failure: Option<String>) {
        self.change(|state| {
            state.finished = true;
            state.failure = failure;
        });
    }

    /// The state now.
    pub fn state(&self) -> State {
        self.shared.state.lock().clone()
    }

    /// Someone begins to watch.
    pub fn watch(&self) -> Watching {
        *self.shared.watchers.lock() += 1;
        Watching(self.clone())
    }

    /// Waits until nobody watches any more, up to `patience`.
    pub fn wait_unwatched(&self, patience: Duration) {
        let mut watchers = self.shared.watchers.lock();
        if *watchers > 0 {
            self.shared.unwatched.wait_while_for(&mut watchers, |count| *count > 0, patience);
        }
    }

    /// Waits up to `patience` until the state is another than `seen`; the state then.
    pub fn wait(&self, seen: &State, patience: Duration) -> State {
        let mut state = self.shared.state.lock();
        if *state == *seen {
            self.shared.changed.wait_for(&mut state, patience);
        }
        state.clone()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state.lock());
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_sees_a_change_that_came_before_it_waited() {
        let phase = Phase::default();
        let seen = phase.state();
        phase.doing("writing");
        phase.progress(1, 2);
        let state = phase.wait(&seen, Duration::from_secs(600));
        assert_eq!((state.progress.done_bytes, state.progress.total_bytes), (1, 2));
        phase.warn("slow");
        phase.finish(None);
        let state = phase.wait(&state, Duration::from_secs(600));
        assert!(state.finished);
        assert_eq!(state.warnings, ["slow"]);
    }
}
