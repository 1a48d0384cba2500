//! Clearing away files without a name, off the threads that serve calls.
//!
//! The namespace keeps an orphan record from the moment the last name went, so that what a crash
//! interrupts is found again by the next open. *Cost*: files are cleared away in groups, each in one
//! batch of the namespace. The thread lets a group gather for a moment, so that who removes many
//! files wakes it once for a group and not for each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Sender;
use parking_lot::{Condvar, Mutex};

use crate::file::{Files, chain};
use crate::namespace::Namespace;
use crate::types::Ino;

/// Files cleared away together.
const GROUP: usize = 64;

/// How long a group gathers.
const GATHERS_FOR: Duration = Duration::from_millis(20);

/// What the thread is told.
#[derive(Debug, Default)]
struct Tasks {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Orphans that nobody uses, oldest first.
    orphans: Vec<Ino>,
    /// Dropped, which tells, when all orphans are cleared away that came before.
    waiting: Vec<Sender<()>>,
    ends: bool,
}

/// Clears away orphans.
#[derive(Debug)]
pub(super) struct Purger {
    tasks: Arc<Tasks>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Purger {
    /// Starts the thread.
    pub(super) fn start(names: Arc<Namespace>, files: Arc<Files>) -> std::io::Result<Self> {
        let tasks = Arc::new(Tasks::default());
        let given = Arc::clone(&tasks);
        let thread = std::thread::Builder::new()
            .name("firn-purge".into())
            .spawn(move || work_off(&given, &names, &files))?;
        Ok(Self { tasks, thread: Mutex::new(Some(thread)) })
    }

    /// Nobody uses the orphan `ino` any more.
    pub(super) fn purge(&self, ino: Ino) {
        let mut state = self.tasks.state.lock();
        // After the end of the thread the next open does it.
        if state.ends {
            return;
        }
        state.orphans.push(ino);
        let waits_for_this = matches!(state.orphans.len(), 1 | GROUP);
        drop(state);
        if waits_for_this {
            self.tasks.changed.notify_one();
        }
    }

    /// Waits until everything so far is done, or for `patience`.
    pub(super) fn settle(&self, patience: Duration) {
        let (sender, done) = crossbeam_channel::bounded(1);
        let mut state = self.tasks.state.lock();
        if state.ends {
            return;
        }
        state.waiting.push(sender);
        drop(state);
        self.tasks.changed.notify_one();
        // After that time what is left to do just goes on.
        let _ = done.recv_timeout(patience);
    }

    /// Waits until everything so far is done; nothing is purged afterwards.
    pub(super) fn finish(&self) {
        self.tasks.state.lock().ends = true;
        self.tasks.changed.notify_one();
        if let Some(thread) = self.thread.lock().take() {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Purger {
    fn drop(&mut self) {
        self.finish();
    }
}

impl State {
    fn has_work(&self) -> bool {
        !self.orphans.is_empty() || !self.waiting.is_empty()
    }

    /// Whether somebody waits, or a group is full.
    fn is_urgent(&self) -> bool {
        self.ends || !self.waiting.is_empty() || self.orphans.len() >= GROUP
    }
}

impl Tasks {
    /// Waits for orphans; `None` when there will be none any more.
    fn next(&self) -> Option<(Vec<Ino>, Vec<Sender<()>>)> {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |state| !state.has_work() && !state.ends);
        self.changed.wait_while_for(&mut state, |state| !state.is_urgent(), GATHERS_FOR);
        let work = (std::mem::take(&mut state.orphans), std::mem::take(&mut state.waiting));
        (!work.0.is_empty() || !work.1.is_empty()).then_some(work)
    }
}

fn work_off(tasks: &Tasks, names: &Namespace, files: &Files) {
    while let Some((orphans, waiting)) = tasks.next() {
        for group in orphans.chunks(GROUP) {
            if files.health.check().is_err() {
                break;
            }
            let cleared = AssertUnwindSafe(|| purge(group, names, files));
            if catch_unwind(cleared).is_err() {
                files.health.fail("clearing away removed files panicked, which is a bug".into());
            }
        }
        // Tells those who wait.
        drop(waiting);
    }
}

/// Clears away a group, or each file alone when one of them cannot be.
fn purge(group: &[Ino], names: &Namespace, files: &Files) {
    let mut unreferenced = Vec::new();
    let purged = names.purge(group, &mut unreferenced);
    // Also what an error came after: nothing would name these blocks again before the next open.
    files.report_unreferenced(unreferenced);
    if let Err(error) = purged {
        tracing::error!(inodes = ?group, error = chain(&error), "clearing away removed files");
        if let Some(reason) = names.read_only() {
            files.health.fail(reason);
        } else if group.len() > 1 {
            group.chunks(1).for_each(|ino| purge(ino, names, files));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without_thread() -> Purger {
        Purger { tasks: Arc::default(), thread: Mutex::default() }
    }

    fn orphans(purger: &Purger) -> Option<Vec<Ino>> {
        purger.tasks.next().map(|(orphans, _)| orphans)
    }

    #[test]
    fn what_gathered_is_cleared_away_together() {
        let purger = without_thread();
        (1..=3).for_each(|ino| purger.purge(Ino(ino)));
        assert_eq!(orphans(&purger), Some(vec![Ino(1), Ino(2), Ino(3)]));
        assert!(!purger.tasks.state.lock().has_work());
    }

    #[test]
    fn a_full_group_and_whoever_waits_are_not_kept() {
        let purger = without_thread();
        let is_urgent = || purger.tasks.state.lock().is_urgent();
        (1..GROUP as u64).for_each(|ino| purger.purge(Ino(ino)));
        assert!(!is_urgent());
        purger.purge(Ino(GROUP as u64));
        assert!(is_urgent());
        assert_eq!(orphans(&purger).map(|orphans| orphans.len()), Some(GROUP));
        assert!(!is_urgent());
        purger.settle(Duration::ZERO);
        assert!(is_urgent());
    }

    #[test]
    fn nothing_that_came_before_the_end_is_left_and_nothing_comes_after() {
        let purger = without_thread();
        purger.purge(Ino(1));
        purger.finish();
        purger.purge(Ino(2));
        purger.settle(Duration::MAX);
        assert_eq!(orphans(&purger), Some(vec![Ino(1)]));
        assert_eq!(orphans(&purger), None);
    }
}
