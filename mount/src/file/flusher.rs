//! When files are written back: after some seconds, after some megabytes, when memory is tight.
//!
//! One thread walks the list of files with uncommitted data and commits them in groups of bounded
//! size. A file whose commit fails goes back to the list and is tried again at the next round; it
//! is never dropped from the list with data left. Blocks that lost their last reference are freed
//! between rounds.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::Files;
use super::commit::Mode;
use super::node::{FileNode, WriteFailure};
use crate::error::{FsError, FsResult};
use crate::types::Ino;

/// Most files in one group.
const GROUP_FILES: usize = 4096;

/// Most bytes of memory whose files are in one group.
const GROUP_BYTES: u64 = 64 << 20;

/// Blocks looked up at once.
const FREE_BATCH: usize = 4096;

/// Rest after a failed round, however loudly the bell rings.
const REST: Duration = Duration::from_secs(1);

/// Wakes the flusher, or another thread that works in rounds.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    state: Mutex<BellState>,
    rung: Condvar,
}

#[derive(Debug, Default)]
struct BellState {
    rung: bool,
    stopped: bool,
}

impl Bell {
    /// There is something to do before the interval is over.
    pub(crate) fn ring(&self) {
        let mut state = self.state.lock();
        if !state.rung {
            state.rung = true;
            self.rung.notify_one();
        }
    }

    /// Ends every wait, now and later.
    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.rung.notify_all();
    }

    /// Whether it is time to stop.
    pub(crate) fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    /// Waits for the bell or the end of the interval; `false` when it is time to stop.
    pub(crate) fn wait(&self, interval: Duration) -> bool {
        let mut state = self.state.lock();
        if !state.rung && !state.stopped {
            self.rung.wait_for(&mut state, interval);
        }
        state.rung = false;
        !state.stopped
    }

    /// Waits without minding the bell; `false` when it is time to stop.
    pub(crate) fn rest(&self, time: Duration) -> bool {
        let mut state = self.state.lock();
        // A ring wakes once at most, since nobody takes it back meanwhile.
        while !state.stopped && !self.rung.wait_for(&mut state, time).timed_out() {}
        !state.stopped
    }
}

/// The flusher's thread; stops when dropped, without a last round.
#[derive(Debug)]
pub(crate) struct Flusher {
    files: Arc<Files>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    /// Starts the thread. `after_round` runs when a round is over.
    pub(crate) fn start(
        files: Arc<Files>,
        after_round: impl Fn() + Send + 'static,
    ) -> std::io::Result<Self> {
        let worker = Arc::clone(&files);
        let thread = std::thread::Builder::new().name("firn-flush".into()).spawn(move || {
            let mut seen = 0;
            while worker.bell.wait(worker.settings.flush_interval) {
                let round = AssertUnwindSafe(|| {
                    let good = worker.round(&mut seen);
                    after_round();
                    good
                });
                let good = catch_unwind(round).unwrap_or_else(|_| {
                    worker.health.fail("writing back panicked, which is a bug".into());
                    false
                });
                if !good && !worker.bell.rest(REST) {
                    return;
                }
            }
        })?;
        Ok(Self { files, thread: Some(thread) })
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.files.bell.stop();
        if let Some(thread) = self.thread.take() {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files").field("dirty", &self.dirty.lock().len()).finish_non_exhaustive()
    }
}

impl Files {
    /// One round of the flusher; `false` when something failed.
    fn round(&self, seen: &mut u64) -> bool {
        let activity = self.activity.load(Ordering::Relaxed);
        let idle = activity == std::mem::replace(seen, activity);
        let mut good = self.flush_all().is_ok();
        if idle && self.health.check().is_ok() {
            good &= self.settle_some().is_ok();
        }
        if let Err(error) = self.free_unreferenced() {
            tracing::warn!(error = super::chain(&error), "freeing blocks");
            good = false;
        }
        good
    }

    /// Commits every file that is on the list now. All are tried; the first error is returned.
    pub(crate) fn flush_all(&self) -> FsResult<()> {
        let _round = self.flushing.lock();
        self.written.store(0, Ordering::Relaxed);
        let listed = std::mem::take(&mut *self.dirty.lock());
        let deadline = self.clock.instant() + self.settings.write_deadline;
        let mut outcome = Ok(());
        let mut group: Vec<Arc<FileNode>> = Vec::new();
        let mut bytes = 0;
        let mut listed = listed.into_iter().peekable();
        while let Some(node) = listed.next() {
            // Before its state is taken: a later write lists it again.
            node.listed.store(false, Ordering::Release);
            bytes += node.state.read().overlay.weight();
            group.push(node);
            if group.len() >= GROUP_FILES || bytes >= GROUP_BYTES || listed.peek().is_none() {
                let done = self.flush_group(std::mem::take(&mut group));
                outcome = outcome.and(done);
                bytes = 0;
            }
            // What one group waited for in vain the others need not try.
            if outcome.is_err() && self.clock.instant() >= deadline {
                break;
            }
        }
        self.dirty.lock().extend(listed);
        *self.last_failure.lock() = outcome.as_ref().err().map(WriteFailure::of);
        outcome
    }

    /// Commits the files that `which` names and that are on the list, after the round that is
    /// under way.
    pub(crate) fn flush_some(&self, which: &dyn Fn(Ino) -> bool) -> FsResult<()> {
        let _round = self.flushing.lock();
        let listed: Vec<_> = self.dirty.lock().iter().filter(|n| which(n.ino)).cloned().collect();
        for group in listed.chunks(GROUP_FILES) {
            self.commit(group, Mode::Group)?;
        }
        Ok(())
    }

    /// [`Files::flush_all`], but not waited for longer than `patience`; it goes on then.
    pub(crate) fn flush_within(self: &Arc<Self>, patience: Duration) -> FsResult<()> {
        let is_clean = self.flushing.try_lock().is_some_and(|_round| self.dirty.lock().is_empty());
        if is_clean {
            return Ok(());
        }
        let (sender, outcome) = crossbeam_channel::bounded(1);
        let files = Arc::clone(self);
        std::thread::Builder::new()
            .name("firn-freeze".into())
            .spawn(move || {
                // Nobody listens any more after a timeout; the next round tells of a failure.
                let _ = sender.send(files.flush_all());
            })
            .map_err(|error| FsError::io("starting a thread", error))?;
        outcome.recv_timeout(patience).unwrap_or_else(|_| {
            let reason = format!("it took longer than {} s", patience.as_secs());
            Err(FsError::io("writing back while changes are held", reason))
        })
    }

    /// Bytes written since the last time everything was written back.
    pub(crate) fn unflushed_bytes(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    fn flush_group(&self, group: Vec<Arc<FileNode>>) -> FsResult<()> {
        let done = self.commit(&group, Mode::Group);
        if let Err(error) = &done {
            tracing::warn!(error = super::chain(error), files = group.len(), "writing back");
            // Whoever waits for memory need not wait for the end of the round.
            *self.last_failure.lock() = Some(WriteFailure::of(error));
        }
        for node in group {
            if node.state.read().is_dirty() && node.must_list() {
                self.dirty.lock().push(node);
            }
        }
        done
    }

    /// Whether the latest round failed for lack of space.
    pub(crate) fn flush_found_no_space(&self) -> bool {
        matches!(*self.last_failure.lock(), Some(WriteFailure::NoSpace))
    }

    /// Frees blocks that nothing refers to any more.
    pub(crate) fn free_unreferenced(&self) -> FsResult<()> {
        loop {
            let candidates = self.pins.take_candidates(FREE_BATCH);
            if candidates.is_empty() {
                return Ok(());
            }
            let mut dead = Vec::new();
            let mut unstable = Vec::new();
            for &block in &candidates {
                match self.references.of(block, None) {
                    Ok(Some(true)) => {}
                    Ok(Some(false)) => dead.push(block),
                    Ok(None) => unstable.push(block),
                    Err(error) => {
                        self.pins.report(candidates);
                        return Err(error);
                    }
                }
            }
            if !dead.is_empty() {
                // That the last references are gone must not be lost by a crash.
                self.names.sync()?;
                self.blocks.free(&dead);
            }
            if !unstable.is_empty() {
                self.pins.report(unstable);
                return Ok(());
            }
        }
    }

    /// Notes blocks that lost a committed reference elsewhere.
    pub(crate) fn report_unreferenced(&self, blocks: Vec<firn_tiering::BlockId>) {
        self.pins.report(blocks);
    }

    /// Bytes that write buffers hold.
    pub(crate) fn buffered_bytes(&self) -> u64 {
        self.memory.used_bytes()
    }

    /// Files with data that is not committed.
    pub(crate) fn dirty_files(&self) -> usize {
        self.dirty.lock().len()
    }
}
