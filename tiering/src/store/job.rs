//! A piece of work on behalf of somebody who may lose interest: how long it may wait, whether it
//! is still wanted, and how far it is. Checked between segments: what was begun of one is
//! finished, so that cancelling leaves nothing half-done. Also the store's moves by hand, each of
//! which is such a job.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::block::BlockId;
use crate::blocks::Wait;
use crate::error::{Error, Result};

use crate::throttle::Priority;

use super::BlockStore;
use super::gates::BackupProof;
use super::marks::Watermarks;
use super::recode::Recompressed;
use super::residence::{Archived, Moved};
use super::urgency::acting_as;

/// Ends work that has not begun yet. Clones speak of the same work.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Says that the work is not wanted any more.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody said so.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// [`Error::Cancelled`] once somebody said so.
    pub(super) fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }
}

/// How far a job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobProgress {
    /// Segments that are done.
    pub done: usize,
    /// And in all.
    pub total: usize,
    /// Stored bytes of those that are done.
    pub done_bytes: u64,
    /// And in all.
    pub total_bytes: u64,
}

/// What a move is told beside its blocks. Jobs on the same blocks may run at once: each segment
/// is one job's at a time, and whoever comes second finds less to do.
pub struct Job<'a> {
    /// How long it may wait for segments, space and the cold tier.
    pub wait: Wait,
    /// Ends it between two segments with [`Error::Cancelled`].
    pub cancel: Cancel,
    /// Told after each segment, and while a large one is fetched.
    pub progress: &'a mut dyn FnMut(JobProgress),
}

impl std::fmt::Debug for Job<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("wait", &self.wait).finish_non_exhaustive()
    }
}

impl BlockStore {
    /// Copies the segments that hold `blocks` to cold, sealing them first, and verifies the
    /// copies. `progress` gets segments done and in all. Blocks must be recorded.
    pub fn archive(
        &self,
        blocks: &[BlockId],
        wait: Wait,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Archived> {
        self.archive_job(blocks, plain_job(wait, &mut |at| progress(at.done, at.total)))
    }

    /// [`BlockStore::archive`] as a job that may be cancelled. Copies that have begun are finished.
    pub fn archive_job(&self, blocks: &[BlockId], mut job: Job<'_>) -> Result<Archived> {
        let _acting = acting_as(Priority::WriteBack);
        self.inner.archive(blocks, true, &mut job)
    }

    /// Copies the sealed segments that hold `blocks` to cold and verifies the copies, so that
    /// dropping them is instant later; what is still open is left to fill up.
    pub fn copy_ahead(&self, blocks: &[BlockId], mut job: Job<'_>) -> Result<Archived> {
        let _acting = acting_as(Priority::WriteBack);
        self.inner.archive(blocks, false, &mut job)
    }

    /// Drops the hot copies of those of `blocks` that are verified in cold, that `proof` covers
    /// and that are not pinned; says of each other one why it stays.
    pub fn release(&self, blocks: &[BlockId], proof: &BackupProof, wait: Wait) -> Result<Moved> {
        self.release_job(blocks, proof, plain_job(wait, &mut |_| ()))
    }

    /// [`BlockStore::release`] as a job that may be cancelled; what was dropped by then stays so.
    pub fn release_job(
        &self,
        blocks: &[BlockId],
        proof: &BackupProof,
        mut job: Job<'_>,
    ) -> Result<Moved> {
        let _acting = acting_as(Priority::Demote);
        self.inner.check_writable()?;
        self.inner.release(blocks, proof, &mut job)
    }

    /// Brings blocks back to hot. `progress` gets stored bytes done and in all; what lies in hot
    /// already counts in neither. Room is made for them by dropping what is colder, down to the
    /// low mark; [`Error::NoSpace`] when there is no more.
    pub fn stage(
        &self,
        blocks: &[BlockId],
        wait: Wait,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Moved> {
        self.stage_job(blocks, plain_job(wait, &mut |at| progress(at.done_bytes, at.total_bytes)))
    }

    /// [`BlockStore::stage`] as a job that may be cancelled; what came back by then stays.
    pub fn stage_job(&self, blocks: &[BlockId], job: Job<'_>) -> Result<Moved> {
        let _acting = acting_as(Priority::Stage);
        self.inner.check_writable()?;
        self.inner.stage(blocks, job)
    }

    /// Encodes the segments that hold `blocks` again as hard as it can be, sealing them first; see
    /// the `recode` module. `progress` gets segments done and in all. Blocks must be recorded.
    pub fn recompress(
        &self,
        blocks: &[BlockId],
        wait: Wait,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Recompressed> {
        self.recompress_job(blocks, plain_job(wait, &mut |at| progress(at.done, at.total)))
    }

    /// [`BlockStore::recompress`] as a job that may be cancelled.
    pub fn recompress_job(&self, blocks: &[BlockId], mut job: Job<'_>) -> Result<Recompressed> {
        let _acting = acting_as(Priority::Reencode);
        self.inner.recompress(blocks, &mut job)
    }

    /// The marks of the hot tier; `None` when neither a capacity nor the disk bounds it.
    pub fn watermarks(&self) -> Option<Watermarks> {
        self.inner.capacity.marks()
    }

    /// Changes the marks of the hot tier from now on.
    pub fn set_watermarks(&self, marks: Watermarks) -> Result<()> {
        self.inner.capacity.set_marks(marks)?;
        self.inner.signals.kick_mover();
        self.inner.signals.kick_uploader();
        Ok(())
    }

    /// Bytes that may come back from cold now without anything being dropped for them; `None`
    /// without a bound.
    pub fn recall_room(&self) -> Option<u64> {
        self.inner.capacity.recall_room()
    }

    /// Says that the steward would answer differently now: something was pinned or unpinned.
    pub fn tempers_changed(&self) {
        self.inner.forget_verdicts();
    }
}

/// A job that nobody cancels.
fn plain_job(wait: Wait, progress: &mut dyn FnMut(JobProgress)) -> Job<'_> {
    Job { wait, cancel: Cancel::default(), progress }
}
