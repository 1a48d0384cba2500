//! Carrying a job out: file by file, a bounded number of blocks at a time. Every step may be
//! repeated, and leaves a volume that is sound.

use std::time::Duration;

use anyhow::Context;
use firn_mount::types::Ino;
use firn_tiering::store::{Cancel, Job as StoreJob, JobProgress, Moved, PINNED};
use firn_tiering::tier::is_retriable;
use firn_tiering::{BlockId, Error, Wait};

use super::job::{Job, Part, Work};
use crate::daemon::assemble::Parts;
use crate::daemon::inspect;

/// Blocks moved together: a few segments.
const BATCH: usize = 256;

/// How long one batch may take. The cold tier's own deadlines are shorter; this bounds the sum.
const BATCH_DEADLINE: Duration = Duration::from_secs(3600);

/// How a job that did not fail ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All of it is done, as far as it still made sense.
    Done,
    /// The volume is being closed.
    Interrupted,
}

/// Does what a job asks for. `tell` gets bytes done and in all.
pub(super) fn carry_out(
    parts: &Parts,
    job: &Job,
    tell: &dyn Fn(u64, u64),
    cancel: &Cancel,
    stops: &dyn Fn() -> bool,
) -> anyhow::Result<Outcome> {
    let total = job.parts.iter().map(|part| len_of(parts, part)).sum();
    let mut batch = Batch { total, ..Batch::default() };
    let mover = Mover { parts, work: job.work, cancel, stops };
    tell(0, total);
    for part in &job.parts {
        if stops() {
            return Ok(Outcome::Interrupted);
        }
        if !is_wanted(parts, job, part) {
            continue;
        }
        match blocks_of(parts, part, &mut batch.blocks) {
            Err(error) if inspect::is_gone(&error) => continue,
            other => other.with_context(|| parts.volume.path(Ino(part.ino)))?,
        }
        batch.bytes += len_of(parts, part);
        if batch.blocks.len() >= BATCH {
            batch.carry_out(&mover);
            tell(batch.done, total);
        }
        if batch.is_hopeless() {
            break;
        }
    }
    batch.carry_out(&mover);
    if stops() {
        return Ok(Outcome::Interrupted);
    }
    if !batch.is_hopeless() {
        tell(total, total);
    }
    batch.failure.map_or(Ok(Outcome::Done), Err)
}

/// Whether a part is still to be treated as was planned some time ago.
fn is_wanted(parts: &Parts, job: &Job, part: &Part) -> bool {
    match job.work {
        Work::Stage | Work::CopyAhead => true,
        Work::Promote => parts.placement.may_promote(parts, Ino(part.ino)),
        Work::Demote => parts.placement.may_demote(parts, Ino(part.ino), job.created),
    }
}

fn len_of(parts: &Parts, part: &Part) -> u64 {
    use firn_mount::core::Core;
    match part.range {
        Some((_, len)) => len,
        None => parts.volume.getattr(Ino(part.ino)).map_or(0, |attr| attr.size),
    }
}

fn blocks_of(parts: &Parts, part: &Part, found: &mut Vec<BlockId>) -> anyhow::Result<()> {
    let (start, len) = part.range.unwrap_or((0, u64::MAX));
    let end = start.saturating_add(len);
    inspect::for_each_piece_in(&parts.namespace, Ino(part.ino), start..end, &mut |_, piece| {
        if let Some(block) = piece.block()
            && found.last() != Some(&block.id)
        {
            found.push(block.id);
        }
        Ok(())
    })
}

/// What moves the blocks of a job.
struct Mover<'a> {
    parts: &'a Parts,
    work: Work,
    cancel: &'a Cancel,
    stops: &'a dyn Fn() -> bool,
}

/// Batches in a row that fail because of a tier before the rest is left for later: each may have waited
/// long, and one may have met the only object that does not come.
const MOST_FAILURES: u32 = 3;

#[derive(Default)]
struct Batch {
    blocks: Vec<BlockId>,
    bytes: u64,
    done: u64,
    total: u64,
    /// The first failure; what comes behind it is moved all the same, unless it is hopeless.
    failure: Option<anyhow::Error>,
    /// Batches that failed one after the other because of a tier.
    failures: u32,
}

/// Whether a failure is one of a tier and not of some blocks: it does not answer, or has no room. If every
/// batch waited for it, the job would seem to run.
fn concerns_tier(error: &anyhow::Error) -> bool {
    let of_tier = |error: &Error| is_retriable(error) || matches!(error, Error::NoSpace);
    error.chain().filter_map(|cause| cause.downcast_ref::<Error>()).any(of_tier)
}

impl Batch {
    fn note(&mut self, moved: anyhow::Result<()>) {
        match moved {
            Ok(()) => self.failures = 0,
            Err(error) => {
                self.failures += u32::from(concerns_tier(&error));
                self.failure.get_or_insert(error);
            }
        }
    }

    fn is_hopeless(&self) -> bool {
        self.failures >= MOST_FAILURES
    }

    fn carry_out(&mut self, mover: &Mover<'_>) {
        self.blocks.sort_unstable();
        self.blocks.dedup();
        // Blocks of this size are gathered; a large file alone may have many more.
        let all = std::mem::take(&mut self.blocks);
        for blocks in all.chunks(BATCH) {
            if (mover.stops)() || self.is_hopeless() {
                return;
            }
            self.note(mover.step(blocks));
        }
        self.done = self.done.saturating_add(std::mem::take(&mut self.bytes)).min(self.total);
    }
}

impl Mover<'_> {
    fn step(&self, blocks: &[BlockId]) -> anyhow::Result<()> {
        let store = &self.parts.store;
        match self.work {
            Work::Stage => {
                let moved = self.with_job(|job| store.stage_job(blocks, job));
                let explain = |error| self.parts.placement.explain_recall(self.parts, error);
                refuse(&moved.map_err(explain)?)
            }
            Work::Promote => match self.with_job(|job| store.stage_job(blocks, job)) {
                // It was a wish: what writers need goes first.
                Err(Error::NoSpace) => Ok(()),
                moved => refuse(&moved?),
            },
            Work::CopyAhead => self.copy(blocks),
            Work::Demote => {
                self.copy(blocks)?;
                if (self.stops)() {
                    return Ok(());
                }
                let proof = self.parts.backup_proof(blocks).context("backing up the namespace")?;
                let moved = self.with_job(|job| store.release_job(blocks, &proof, job));
                refuse(&moved.context("dropping hot copies")?)
            }
        }
    }

    fn copy(&self, blocks: &[BlockId]) -> anyhow::Result<()> {
        let copied = self.with_job(|job| self.parts.store.archive_job(blocks, job));
        copied.map(drop).context("copying to the cold tier")
    }

    /// Has the store move blocks, as a job of its own that ends with this one. While nothing comes of
    /// it, it waits no longer than a reader would, so that a tier that does not answer parks the job;
    /// a slow one gets more and more time.
    fn with_job<T>(
        &self,
        mut act: impl FnMut(StoreJob<'_>) -> firn_tiering::Result<T>,
    ) -> firn_tiering::Result<T> {
        let mut patience = self.parts.config.read_deadline.0.min(BATCH_DEADLINE);
        loop {
            let mut came = false;
            let progress = &mut |at: JobProgress| came |= at.done_bytes > 0;
            let wait = Wait::Until(self.parts.clock.instant() + patience);
            match act(StoreJob { wait, cancel: self.cancel.clone(), progress }) {
                Err(Error::TimedOut(_)) if came && patience < BATCH_DEADLINE && !(self.stops)() => {
                    patience = patience.saturating_mul(2).min(BATCH_DEADLINE);
                }
                other => return other,
            }
        }
    }
}

/// What was not moved although it should have been. What others have pinned stays, as they want.
fn refuse(moved: &Moved) -> anyhow::Result<()> {
    let mut refused = moved.refused.iter().filter(|(_, reason)| reason != PINNED);
    match refused.next() {
        None => Ok(()),
        Some((block, reason)) => {
            let count = 1 + refused.count();
            Err(anyhow::anyhow!("{count} blocks were not moved, block {block}: {reason}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tier_does_not_answer_is_told_from_what_is_wrong_with_a_block() {
        let of = |error: Error| concerns_tier(&anyhow::Error::from(error).context("copying"));
        assert!(of(Error::TimedOut("reading from the cold tier")));
        assert!(of(Error::NoSpace));
        let damaged = Error::Damaged { what: "frame", reason: "its checksum".to_owned() };
        assert!(!of(damaged));
        assert!(!concerns_tier(&anyhow::anyhow!("3 blocks were not moved")));
    }

    #[test]
    fn a_job_ends_after_some_batches_in_a_row_that_a_tier_fails() {
        let silent = || Err(Error::TimedOut("reading from the cold tier").into());
        let mut batch = Batch::default();
        // One object that does not come stops nothing.
        for _ in 0..10 {
            batch.note(silent());
            batch.note(Err(anyhow::anyhow!("a block is damaged")));
            batch.note(Ok(()));
        }
        assert!(!batch.is_hopeless());
        for failures in 1..=MOST_FAILURES {
            batch.note(silent());
            assert_eq!(batch.is_hopeless(), failures == MOST_FAILURES);
        }
        assert!(batch.failure.is_some());
    }
}
