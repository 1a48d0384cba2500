//! Moving files between tiers by hand. Files are gathered into batches of blocks, since files
//! share blocks and blocks share segments; each batch is complete before the next begins, so that
//! an interrupted move leaves nothing half-done.

use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use firn_mount::types::{FileKind, Ino};
use firn_tiering::store::{Moved as StoreMoved, Residence, Stored};
use firn_tiering::{BlockId, Wait};

use super::assemble::Parts;
use super::inspect;
use crate::control::protocol::{Files, Progress};
use crate::control::server::Outbox;
use crate::failure::Explain;
use crate::report::files::{Absent, Moved};

/// Blocks moved together: enough to fill several segments, few enough to hold in memory.
const BATCH: usize = 16 << 10;

/// How long one batch may take. The cold tier's own deadlines are shorter; this bounds the sum.
const BATCH_DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Archive,
    Recompress,
    Release,
    Stage,
}

impl Direction {
    fn doing(self) -> &'static str {
        match self {
            Self::Archive => "copying to the cold tier",
            Self::Recompress => "compressing again",
            Self::Release => "dropping hot copies",
            Self::Stage => "bringing back to the hot tier",
        }
    }
}

/// Moves what `files` names, and says how far it is.
pub(super) fn run(
    parts: &Parts,
    files: &Files,
    direction: Direction,
    out: &mut Outbox,
) -> anyhow::Result<Moved> {
    check(parts, direction)?;
    let mut mover = Mover::new(parts, direction, out);
    let mut batch = Vec::new();
    mover.gather(files, &mut batch)?;
    mover.batch(&mut batch)?;
    let moved = mover.moved;
    if direction == Direction::Archive {
        // A copy counts only once a backup names it.
        out.progress(doing("backing up the namespace to the cold tier", 0, 0))?;
        parts.back_up().context("backing up the namespace")?;
    }
    Ok(moved)
}

/// Brings back what several `files` name, and says how many bytes of all are there.
pub(super) fn stage(parts: &Parts, files: &[Files], out: &mut Outbox) -> anyhow::Result<Moved> {
    check(parts, Direction::Stage)?;
    let mut mover = Mover::new(parts, Direction::Stage, out);
    mover.total_bytes = absent(parts, files)?.stored_bytes;
    mover.tell()?;
    let mut batch = Vec::new();
    for files in files {
        mover.gather(files, &mut batch)?;
    }
    mover.batch(&mut batch)?;
    Ok(mover.moved)
}

/// Whether anything can be brought back; what is in memory is written first.
pub(super) fn check_stage(parts: &Parts) -> anyhow::Result<()> {
    check(parts, Direction::Stage)
}

/// Whether anything can move that way. What is still in memory has no blocks that could: it is
/// written first.
fn check(parts: &Parts, direction: Direction) -> anyhow::Result<()> {
    if parts.cold.is_none() && direction != Direction::Recompress {
        return Err(anyhow!("the volume has no cold tier"))
            .hint("name one as `cold` in firn.toml and mount again");
    }
    if parts.read_only {
        return Err(anyhow!("the volume is mounted read-only")).hint("mount it writable");
    }
    parts.volume.sync().context("writing what is in memory")
}

/// What of `files` is not in hot. A block that several files share may count more than once, and what
/// was removed meanwhile does not.
pub(super) fn absent(parts: &Parts, files: &[Files]) -> anyhow::Result<Absent> {
    let (mut sum, mut blocks) = (Absent::default(), Vec::new());
    for files in files {
        let (ino, name) = (Ino(files.ino), &files.name);
        let counted = inspect::walk(&parts.volume, ino, name, files.recursive, &mut |_, attr| {
            if attr.kind == FileKind::File {
                blocks.clear();
                inspect::blocks(&parts.namespace, attr.ino, &mut blocks)?;
                sum.add(absent_of(parts, &blocks));
            }
            Ok(())
        });
        match counted {
            Err(error) if inspect::is_gone(&error) => {}
            other => other?,
        }
    }
    Ok(sum)
}

/// What of a file with these blocks is not in hot, as far as that is known.
fn absent_of(parts: &Parts, blocks: &[BlockId]) -> Absent {
    let stored = parts.store.stored(blocks);
    let is_absent = |stored: &&Stored| stored.residence == Residence::Cold;
    let mut absent = stored.iter().filter(is_absent).peekable();
    Absent {
        files: absent.peek().is_some().into(),
        stored_bytes: absent.map(|stored| stored.stored_bytes).sum(),
    }
}

fn doing(what: &str, done_bytes: u64, total_bytes: u64) -> Progress {
    Progress { doing: what.to_owned(), done_bytes, total_bytes }
}

struct Mover<'a> {
    parts: &'a Parts,
    direction: Direction,
    out: &'a mut Outbox,
    /// Blocks of the batch before, which neighbouring files often share.
    seen: HashSet<BlockId>,
    moved: Moved,
    /// Bytes that are to be moved; 0 where that is not known.
    total_bytes: u64,
}

impl<'a> Mover<'a> {
    fn new(parts: &'a Parts, direction: Direction, out: &'a mut Outbox) -> Self {
        let (seen, moved) = (HashSet::new(), Moved::default());
        Self { parts, direction, out, seen, moved, total_bytes: 0 }
    }

    /// Adds the blocks of what `files` names to `batch`, and moves whole batches.
    fn gather(&mut self, files: &Files, batch: &mut Vec<BlockId>) -> anyhow::Result<()> {
        let parts = self.parts;
        let (ino, name) = (Ino(files.ino), &files.name);
        inspect::walk(&parts.volume, ino, name, files.recursive, &mut |_, attr| {
            if attr.kind != FileKind::File {
                return Ok(());
            }
            self.moved.files += 1;
            inspect::blocks(&parts.namespace, attr.ino, batch)?;
            if batch.len() >= BATCH { self.batch(batch) } else { Ok(()) }
        })
    }

    fn batch(&mut self, blocks: &mut Vec<BlockId>) -> anyhow::Result<()> {
        blocks.sort_unstable();
        blocks.dedup();
        blocks.retain(|block| !self.seen.contains(block));
        if blocks.is_empty() {
            return Ok(());
        }
        let done = match self.direction {
            Direction::Archive => self.archive(blocks),
            Direction::Recompress => self.recompress(blocks),
            Direction::Release => self.release(blocks),
            Direction::Stage => self.stage(blocks),
        }?;
        self.moved.add(done);
        self.seen = blocks.drain(..).collect();
        self.tell()?;
        Ok(())
    }

    fn wait(&self) -> Wait {
        Wait::Until(self.parts.clock.instant() + BATCH_DEADLINE)
    }

    fn tell(&mut self) -> io::Result<()> {
        let (done, total) = (self.moved.stored_bytes, self.total_bytes);
        self.out.progress(doing(self.direction.doing(), done, total))
    }

    fn archive(&mut self, blocks: &[BlockId]) -> anyhow::Result<Moved> {
        let wait = self.wait();
        let mut teller = Teller::new(self.parts, self.direction);
        let out = &mut *self.out;
        let archived = self
            .parts
            .store
            .archive(blocks, wait, &mut |done, total| teller.tell(out, done, total))
            .context("copying to the cold tier")?;
        let blocks = blocks.len() as u64;
        Ok(Moved { blocks, stored_bytes: archived.bytes, ..Moved::default() })
    }

    fn recompress(&mut self, blocks: &[BlockId]) -> anyhow::Result<Moved> {
        let wait = self.wait();
        let mut teller = Teller::new(self.parts, self.direction);
        let out = &mut *self.out;
        let done = self
            .parts
            .store
            .recompress(blocks, wait, &mut |done, total| teller.tell(out, done, total))
            .context("compressing again")?;
        let saved_bytes = done.before_bytes - done.after_bytes;
        let mut moved = Moved { saved_bytes, ..Moved::default() };
        if done.absent > 0 {
            let count = done.absent;
            moved.keep_reason(format!(
                "{count} segments are not in the hot tier as a whole and were not compressed \
                 again: stage their files first"
            ));
        }
        Ok(moved)
    }

    fn release(&mut self, blocks: &[BlockId]) -> anyhow::Result<Moved> {
        let proof = self.parts.backup_proof(blocks).context("backing up the namespace")?;
        let moved =
            self.parts.store.release(blocks, &proof, self.wait()).context("dropping hot copies")?;
        Ok(summary(&moved))
    }

    fn stage(&mut self, blocks: &[BlockId]) -> anyhow::Result<Moved> {
        let wait = self.wait();
        let mut teller = Teller::new(self.parts, self.direction);
        if self.total_bytes > 0 {
            teller.share = Some(Share {
                before: self.moved.stored_bytes,
                bytes: absent_of(self.parts, blocks).stored_bytes,
                total: self.total_bytes,
            });
        }
        let out = &mut *self.out;
        let moved = self
            .parts
            .store
            .stage(blocks, wait, &mut |done, total| teller.tell_bytes(out, done, total))
            .map_err(|error| self.parts.placement.explain_recall(self.parts, error))
            .context("bringing back to the hot tier")?;
        Ok(summary(&moved))
    }
}

/// Passes progress on, not more often than a person can read.
struct Teller<'a> {
    parts: &'a Parts,
    what: &'static str,
    last: Option<Instant>,
    share: Option<Share>,
}

/// Bytes of a batch among all that are moved.
struct Share {
    /// Moved before.
    before: u64,
    /// Of this batch.
    bytes: u64,
    /// In all.
    total: u64,
}

impl<'a> Teller<'a> {
    fn new(parts: &'a Parts, direction: Direction) -> Self {
        Self { parts, what: direction.doing(), last: None, share: None }
    }

    fn tell(&mut self, out: &mut Outbox, done: usize, total: usize) {
        if self.is_due() {
            // Whoever asked may be gone; what was begun is finished all the same.
            let _ = out.progress(doing(&format!("{} ({done} of {total})", self.what), 0, 0));
        }
    }

    fn tell_bytes(&mut self, out: &mut Outbox, done: u64, total: u64) {
        if self.is_due() {
            let (done, total) = match &self.share {
                None => (done, total),
                Some(share) => (share.before + done.min(share.bytes), share.total),
            };
            let _ = out.progress(doing(self.what, done, total));
        }
    }

    fn is_due(&mut self) -> bool {
        const PAUSE: Duration = Duration::from_millis(500);
        let now = self.parts.clock.instant();
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < PAUSE) {
            return false;
        }
        self.last = Some(now);
        true
    }
}

fn summary(moved: &StoreMoved) -> Moved {
    let mut summary = Moved {
        blocks: moved.blocks as u64,
        stored_bytes: moved.bytes,
        refused: moved.refused.len() as u64,
        ..Moved::default()
    };
    for (block, reason) in &moved.refused {
        summary.keep_reason(format!("block {block}: {reason}"));
    }
    summary
}
