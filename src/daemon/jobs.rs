//! Work on files that takes long and survives the daemon: bringing them to hot, copying them to
//! cold, dropping their hot copies. One queue, a few threads, a journal.
//!
//! *Order*: the most urgent first ([`Work`]); what brings files back has a thread of its own, so that
//! who waits for a file does not wait for what leaves. *Crash*: a job that was running is begun
//! again; each of its steps may be repeated. *Failure*: see [`queue`]; a destination that is full or
//! does not answer parks its jobs, visibly, and nothing loops. *Cancellation*: what has not begun is
//! dropped; what has begun ends.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use firn_tiering::Clock;
use firn_tiering::store::Cancel;
use parking_lot::{Condvar, Mutex};

use super::assemble::Parts;
use crate::failure;

#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
pub mod job;
mod journal;
pub mod queue;
#[cfg(test)]
mod tests;
mod work;

use job::{Job, JobId, Part, Work};
use journal::Journal;
use queue::{Entry, Queue, Refused};

/// How long a thread sleeps without being woken.
const TICK: Duration = Duration::from_millis(500);

/// Between two looks at threads that are to end.
const SLICE: Duration = Duration::from_millis(20);

/// Name of the journal in the volume directory.
pub const FILE_NAME: &str = "jobs.log";

/// The jobs of a volume.
#[derive(Debug)]
pub struct Jobs {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    changed: Condvar,
    stopping: AtomicBool,
    /// Ends what is under way between two of its steps.
    cancel: Cancel,
}

#[derive(Debug, Default)]
struct State {
    queue: Queue,
    /// `None` where the volume may not be written, and until it could be opened.
    journal: Option<Journal>,
    /// The journal that could not be opened yet.
    unopened: Option<PathBuf>,
    /// The cold tier did not answer at the last look.
    cold_was_away: bool,
}

/// Which works a thread takes.
#[derive(Clone, Copy, Debug)]
enum Lane {
    Back,
    Away,
}

impl Lane {
    fn takes(self, work: Work) -> bool {
        work.recalls() == matches!(self, Self::Back)
    }
}

/// Why a job was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The queue did not take it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It could not be remembered.
    #[error("writing {FILE_NAME}")]
    Journal(#[source] io::Error),
    /// The volume is mounted read-only, or is being closed.
    #[error("no work is taken in any more")]
    Closed,
}

impl Jobs {
    /// The jobs that the journal in `dir` holds. A journal that is damaged loses what cannot be
    /// read, which is logged; without one that can be written no jobs are taken in. One that cannot
    /// be opened now, on a full disk perhaps, is tried again with every job that comes.
    pub fn open(dir: &Path, clock: Arc<dyn Clock>, read_only: bool) -> Self {
        let unopened = (!read_only).then(|| dir.join(FILE_NAME));
        let mut state = State { unopened, ..State::default() };
        if let Err(error) = state.open_journal() {
            tracing::error!(%error, "{FILE_NAME}: no jobs are taken until it can be written");
        }
        let shared = Shared {
            clock,
            state: Mutex::new(state),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
            cancel: Cancel::default(),
        };
        Self { shared: Arc::new(shared), threads: Mutex::default() }
    }

    /// Begins to work.
    pub(super) fn start(&self, parts: &Arc<Parts>) {
        for (name, lane) in [("firn-recall", Lane::Back), ("firn-demote", Lane::Away)] {
            let shared = Arc::clone(&self.shared);
            // The thread must not keep the parts open.
            let parts = Arc::downgrade(parts);
            let thread = std::thread::Builder::new()
                .name(name.into())
                .spawn(move || shared.run(lane, &parts));
            match thread {
                Ok(thread) => self.threads.lock().push(thread),
                Err(error) => tracing::error!(%error, name, "no thread for jobs"),
            }
        }
    }

    /// Takes nothing in any more, and ends the threads; a step that is under way is waited for, but
    /// not longer than `patience`: it may hang with the cold tier, and its job is begun again.
    pub(super) fn stop(&self, patience: Duration) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.cancel.cancel();
        self.shared.changed.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock());
        let end = self.shared.clock.instant() + patience;
        while threads.iter().any(|thread| !thread.is_finished()) {
            if self.shared.clock.instant() >= end {
                tracing::warn!("a move still waits for the cold tier; it is begun again next time");
                return;
            }
            self.shared.clock.sleep(SLICE);
        }
        if threads.into_iter().any(|thread| thread.join().is_err()) {
            tracing::error!("a thread for jobs panicked");
        }
    }

    /// Takes a job in; returns its number.
    pub fn push(&self, job: Job) -> Result<JobId, JobError> {
        if self.shared.is_stopping() {
            return Err(JobError::Closed);
        }
        let mut state = self.shared.state.lock();
        state.open_journal().map_err(JobError::Journal)?;
        let State { queue, journal: Some(journal), .. } = &mut *state else {
            return Err(JobError::Closed);
        };
        let job = queue.push(job)?;
        if let Err(error) = journal.add(&job) {
            queue.cancel(job.id);
            return Err(JobError::Journal(error));
        }
        tracing::info!(
            job = job.id,
            work = job.work.name(),
            name = job.name,
            why = job.why,
            "queued"
        );
        drop(state);
        self.shared.changed.notify_all();
        Ok(job.id)
    }

    /// Drops a job that has not begun, or all of them; returns what was dropped.
    pub fn cancel(&self, id: Option<JobId>) -> Vec<Entry> {
        let mut state = self.shared.state.lock();
        let ids = match id {
            Some(id) => vec![id],
            None => state.queue.waiting().map(|entry| entry.job.id).collect(),
        };
        let dropped: Vec<JobId> =
            ids.into_iter().filter(|id| state.queue.cancel(*id).is_some()).collect();
        for id in &dropped {
            state.forget(*id);
        }
        let entries = dropped.iter().filter_map(|id| state.queue.get(*id).cloned()).collect();
        drop(state);
        self.shared.changed.notify_all();
        entries
    }

    /// Hears whether the cold tier is away. When it is back, parked jobs are tried again now.
    pub(super) fn look_at_cold(&self, is_away: bool) {
        let mut state = self.shared.state.lock();
        let was_away = std::mem::replace(&mut state.cold_was_away, is_away);
        if was_away && !is_away {
            state.queue.unpark();
            drop(state);
            self.shared.changed.notify_all();
        }
    }

    /// All jobs that wait, run or ended lately, without their files.
    pub fn list(&self) -> Vec<Entry> {
        self.shared.state.lock().queue.entries().map(Entry::shown).collect()
    }

    /// Whether a part of a file waits to be brought back, or is being brought.
    pub fn is_coming(&self, ino: u64) -> bool {
        self.shared.state.lock().queue.is_coming(ino)
    }

    /// Where a job stands after it changed, or after a moment.
    pub fn wait(&self, id: JobId, patience: Duration) -> Option<Entry> {
        let mut state = self.shared.state.lock();
        self.shared.changed.wait_for(&mut state, patience);
        state.queue.get(id).cloned()
    }
}

impl State {
    /// Opens the journal where that is still to be done, and takes in the jobs that it holds.
    fn open_journal(&mut self) -> io::Result<()> {
        let Some(path) = &self.unopened else { return Ok(()) };
        let (journal, found) = Journal::open(path)?;
        if let Some(damage) = &found.damage {
            tracing::error!(damage, "{FILE_NAME} is damaged: later jobs are lost");
        }
        self.queue.skip_to(found.last);
        found.jobs.into_values().for_each(|job| self.queue.restore(job));
        self.journal = Some(journal);
        self.unopened = None;
        Ok(())
    }

    fn forget(&mut self, id: JobId) {
        let Self { queue, journal, .. } = self;
        let Some(journal) = journal else { return };
        let last = queue.last();
        if let Err(error) = journal.end(id, last, queue.waiting().map(|entry| &entry.job)) {
            // It will be done once more after the next mount.
            tracing::warn!(%error, job = id, "writing {FILE_NAME}");
        }
    }
}

impl Shared {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn run(&self, lane: Lane, parts: &Weak<Parts>) {
        while let Some(job) = self.next(lane) {
            let Some(parts) = parts.upgrade() else { return };
            self.carry_out(&job, &parts);
        }
    }

    /// The next job of a lane; `None` when it is time to stop.
    fn next(&self, lane: Lane) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if self.is_stopping() {
                return None;
            }
            let now = self.clock.instant();
            if let Some(job) = state.queue.next(now, |work| lane.takes(work)) {
                return Some(job);
            }
            self.changed.wait_for(&mut state, TICK);
        }
    }

    fn carry_out(&self, job: &Job, parts: &Parts) {
        let tell = |done, total| {
            self.state.lock().queue.progress(job.id, done, total);
            self.changed.notify_all();
        };
        let outcome = work::carry_out(parts, job, &tell, &self.cancel, &|| self.is_stopping());
        let mut state = self.state.lock();
        match outcome {
            Ok(work::Outcome::Interrupted) => state.queue.interrupted(job.id),
            Ok(work::Outcome::Done) => {
                tracing::info!(job = job.id, work = job.work.name(), name = job.name, "done");
                state.queue.done(job.id);
                state.forget(job.id);
            }
            Err(error) => {
                let reason = failure::line(&error);
                let again = state.queue.failed(job.id, &reason, self.clock.instant());
                let (id, work, name) = (job.id, job.work.name(), &job.name);
                tracing::warn!(job = id, work, name, reason, again, "a job failed");
                if !again {
                    state.forget(job.id);
                }
            }
        }
        drop(state);
        self.changed.notify_all();
    }
}

/// Parts in jobs of up to [`job::MAX_FILES`] each.
pub fn split(parts: Vec<Part>) -> impl Iterator<Item = Vec<Part>> {
    let mut parts = parts.into_iter().peekable();
    std::iter::from_fn(move || {
        parts.peek()?;
        Some(parts.by_ref().take(job::MAX_FILES).collect())
    })
}
