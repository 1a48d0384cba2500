//! Clearing away files without a name, off the threads that serve calls.
//!
//! The namespace keeps an orphan record from the moment the last name went, so that what a crash
//! interrupts is found again by the next open.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;

use crate::file::{Files, chain};
use crate::namespace::Namespace;
use crate::types::Ino;

/// Files cleared away together.
const GROUP: usize = 64;

/// What the thread is told.
#[derive(Debug)]
enum Task {
    /// To clear an orphan away.
    Purge(Ino),
    /// To say when everything before is done.
    Tell(Sender<()>),
}

/// Clears away orphans.
#[derive(Debug)]
pub(super) struct Purger {
    queue: Mutex<Option<Sender<Task>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Purger {
    /// Starts the thread.
    pub(super) fn start(names: Arc<Namespace>, files: Arc<Files>) -> std::io::Result<Self> {
        let (queue, orphans) = crossbeam_channel::unbounded();
        let thread = std::thread::Builder::new()
            .name("firn-purge".into())
            .spawn(move || work_off(&orphans, &names, &files))?;
        Ok(Self { queue: Mutex::new(Some(queue)), thread: Mutex::new(Some(thread)) })
    }

    /// Nobody uses the orphan `ino` any more.
    pub(super) fn purge(&self, ino: Ino) {
        if let Some(queue) = &*self.queue.lock() {
            // After the end of the thread the next open does it.
            let _ = queue.send(Task::Purge(ino));
        }
    }

    /// Waits until everything so far is done, or for `patience`.
    pub(super) fn settle(&self, patience: Duration) {
        let (sender, done) = crossbeam_channel::bounded(1);
        let sent = self.queue.lock().as_ref().map(|queue| queue.send(Task::Tell(sender)));
        if matches!(sent, Some(Ok(()))) {
            // After that time what is left to do just goes on.
            let _ = done.recv_timeout(patience);
        }
    }

    /// Waits until everything so far is done; nothing is purged afterwards.
    pub(super) fn finish(&self) {
        drop(self.queue.lock().take());
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

fn work_off(tasks: &Receiver<Task>, names: &Namespace, files: &Files) {
    while let Ok(first) = tasks.recv() {
        let (mut group, mut waiting) = (Vec::new(), Vec::new());
        for task in std::iter::once(first).chain(tasks.try_iter().take(GROUP - 1)) {
            match task {
                Task::Purge(ino) => group.push(ino),
                // Dropped at the end of the round, which tells.
                Task::Tell(sender) => waiting.push(sender),
            }
        }
        if group.is_empty() || files.health.check().is_err() {
            continue;
        }
        let cleared = AssertUnwindSafe(|| purge(&group, names, files));
        if catch_unwind(cleared).is_err() {
            files.health.fail("clearing away removed files panicked, which is a bug".into());
        }
    }
}

/// Clears away a group, or each file alone when one of them cannot be.
fn purge(group: &[Ino], names: &Namespace, files: &Files) {
    match names.purge(group) {
        Ok(lost) => files.report_unreferenced(lost),
        Err(error) => {
            tracing::error!(inodes = ?group, error = chain(&error), "clearing away removed files");
            if let Some(reason) = names.read_only() {
                files.health.fail(reason);
            } else if group.len() > 1 {
                group.chunks(1).for_each(|ino| purge(ino, names, files));
            }
        }
    }
}
