//! Carrying a job out: file by file, a bounded number of blocks at a time. Every step may be
//! repeated, and leaves a volume that is sound.

use std::time::Duration;

use anyhow::Context;
use firn_mount::FsError;
use firn_mount::types::Ino;
use firn_tiering::store::Moved;
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
    stops: &dyn Fn() -> bool,
) -> anyhow::Result<Outcome> {
    let wanted: Vec<&Part> = job.parts.iter().filter(|part| is_wanted(parts, job, part)).collect();
    let total = wanted.iter().map(|part| len_of(parts, part)).sum();
    let mut batch = Batch { blocks: Vec::new(), bytes: 0, done: 0, total };
    tell(0, total);
    for part in wanted {
        if stops() {
            return Ok(Outcome::Interrupted);
        }
        match blocks_of(parts, part, &mut batch.blocks) {
            Err(error) if is_gone(&error) => continue,
            other => other.with_context(|| parts.volume.path(Ino(part.ino)))?,
        }
        batch.bytes += len_of(parts, part);
        if batch.blocks.len() >= BATCH {
            batch.carry_out(parts, job.work, stops)?;
            tell(batch.done, total);
        }
    }
    batch.carry_out(parts, job.work, stops)?;
    tell(total, total);
    Ok(if stops() { Outcome::Interrupted } else { Outcome::Done })
}

/// Whether a part is still to be treated as was planned some time ago.
fn is_wanted(parts: &Parts, job: &Job, part: &Part) -> bool {
    match job.work {
        Work::Stage | Work::Promote | Work::CopyAhead => true,
        Work::Demote => parts.placement.may_demote(Ino(part.ino), job.created),
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

/// A file that was removed since, or that a rollback took away, has nothing left to move.
fn is_gone(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        matches!(cause.downcast_ref::<FsError>(), Some(FsError::Stale | FsError::NotFound))
    })
}

struct Batch {
    blocks: Vec<BlockId>,
    bytes: u64,
    done: u64,
    total: u64,
}

impl Batch {
    fn carry_out(
        &mut self,
        parts: &Parts,
        work: Work,
        stops: &dyn Fn() -> bool,
    ) -> anyhow::Result<()> {
        self.blocks.sort_unstable();
        self.blocks.dedup();
        // Blocks of this size are gathered; a large file alone may have many more.
        for blocks in self.blocks.chunks(BATCH) {
            if stops() {
                return Ok(());
            }
            step(parts, work, blocks)?;
        }
        self.blocks.clear();
        self.done = self.done.saturating_add(std::mem::take(&mut self.bytes)).min(self.total);
        Ok(())
    }
}

fn step(parts: &Parts, work: Work, blocks: &[BlockId]) -> anyhow::Result<()> {
    let wait = Wait::Until(parts.clock.instant() + BATCH_DEADLINE);
    let store = &parts.store;
    match work {
        Work::Stage => refuse(&store.stage(blocks, wait, &mut |_, _| {})?),
        Work::Promote => match store.stage(blocks, wait, &mut |_, _| {}) {
            // It was a wish: what writers need goes first.
            Err(Error::NoSpace) => Ok(()),
            moved => refuse(&moved?),
        },
        Work::CopyAhead => {
            store.archive(blocks, wait, &mut |_, _| {}).context("copying to the cold tier")?;
            Ok(())
        }
        Work::Demote => {
            store.archive(blocks, wait, &mut |_, _| {}).context("copying to the cold tier")?;
            let proof = parts.backup_proof(blocks).context("backing up the namespace")?;
            refuse(&store.release(blocks, &proof, wait).context("dropping hot copies")?)
        }
    }
}

/// What was not moved although it should have been.
fn refuse(moved: &Moved) -> anyhow::Result<()> {
    match moved.refused.first() {
        None => Ok(()),
        Some((block, reason)) => {
            let count = moved.refused.len();
            Err(anyhow::anyhow!("{count} blocks were not moved, block {block}: {reason}"))
        }
    }
}
