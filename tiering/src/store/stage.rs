//! Bringing cold blocks back to hot, with several large requests under way at a time. They are
//! flights like those of readers: whoever reads meanwhile joins them, and what readers have under
//! way is not asked for again.
//!
//! Verified frames are written into the holes of the hot file and synced, and only then the holes
//! are forgotten; a file that is gone is made aside, synced and renamed. A sidecar does not come
//! along: once nothing is missing any more it is made anew here. *Crash*: before that
//! there is what there was; bytes half written into a hole fail verification like the hole did.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::block::BlockId;
use crate::blocks::Wait;
use crate::catalog::{ColdCopy, Holes};
use crate::error::{Error, Result};
use crate::segment::{DATA_START, FileKind, IndexEntry, SegmentId, SegmentIndex, verify_frame};

use super::Inner;
use super::append::full_disk;
use super::cold::{Cold, Cover};
use super::hotdir::sync_dir;
use super::job::{Cancel, Job, JobProgress};
use super::residence::{Moved, runs};
use super::signals::add;
use super::steps::Step;
use super::upload::CALL_DEADLINE;

/// Bytes of one request.
const REQUEST_BYTES: u64 = 4 << 20;

/// Requests under way for one stage, if there is memory for them.
const REQUESTS: usize = 8;

/// Counts for whoever waits.
pub(super) struct Progress<'a> {
    so_far: JobProgress,
    tell: &'a mut dyn FnMut(JobProgress),
    /// How long the job may wait.
    wait: Wait,
}

impl<'a> Progress<'a> {
    /// Of a job that nobody watches.
    pub(super) fn silent(tell: &'a mut dyn FnMut(JobProgress), wait: Wait) -> Self {
        Self { so_far: JobProgress::default(), tell, wait }
    }

    /// How long one call of the cold tier may take that begins now: never longer than the job.
    fn patience(&self, now: Instant) -> Duration {
        match self.wait {
            Wait::Until(end) => CALL_DEADLINE.min(end.saturating_duration_since(now)),
            Wait::No | Wait::Progress(_) => CALL_DEADLINE,
        }
    }

    fn add(&mut self, bytes: u64) {
        self.so_far.done_bytes += bytes;
        (self.tell)(self.so_far);
    }
}

impl Inner {
    /// Brings cold blocks back to hot. Progress counts stored bytes that are not in hot already.
    pub(super) fn stage(&self, blocks: &[BlockId], job: Job<'_>) -> Result<Moved> {
        let Job { wait, cancel, progress: tell } = job;
        let mut moved = Moved::default();
        let groups = self.group(blocks, wait)?;
        let total_bytes = groups.iter().map(|(id, entries)| self.missing_bytes(*id, entries)).sum();
        let so_far = JobProgress { total: groups.len(), total_bytes, ..JobProgress::default() };
        let mut progress = Progress { so_far, tell, wait };
        for (id, entries) in groups {
            cancel.check()?;
            self.claim_waiting(id, wait)?;
            let before = progress.so_far.done_bytes;
            let expected = self.missing_bytes(id, &entries);
            let result = self.stage_in(id, entries, (wait, &cancel), &mut moved, &mut progress);
            self.table.unclaim(id);
            result?;
            // What was refused, or brought by another meanwhile, is not waited for either.
            let brought = progress.so_far.done_bytes - before;
            progress.so_far.done += 1;
            progress.add(expected.saturating_sub(brought));
        }
        Ok(moved)
    }

    /// Bytes of those frames that are not in hot.
    fn missing_bytes(&self, id: SegmentId, entries: &[IndexEntry]) -> u64 {
        let missing = |entry: &&IndexEntry| {
            let frame = entry.frame_range();
            self.table
                .with(id, |s| !s.record.hot || s.record.holes.touches(frame.start, frame.end))
                .unwrap_or(false)
        };
        entries.iter().filter(missing).map(IndexEntry::frame_len).sum()
    }

    fn stage_in(
        &self,
        id: SegmentId,
        mut entries: Vec<IndexEntry>,
        (wait, cancel): (Wait, &Cancel),
        moved: &mut Moved,
        progress: &mut Progress<'_>,
    ) -> Result<()> {
        let Some(record) = self.table.record(id) else { return Ok(()) };
        if record.hot {
            entries.retain(|entry| {
                let frame = entry.frame_range();
                record.holes.touches(frame.start, frame.end)
            });
        }
        if entries.is_empty() {
            return Ok(());
        }
        if record.cold == ColdCopy::Absent {
            moved.refuse(&entries, "no copy in cold is known");
            return Ok(());
        }
        let bytes: u64 = entries.iter().map(IndexEntry::frame_len).sum();
        let charge = self.capacity.charge_recall(self, bytes, wait, cancel)?;
        self.reached(Step::StageBeforeFill)?;
        let staged = self.bring(id, record.hot, &entries, progress).map_err(full_disk);
        self.hot.forget(id);
        self.reached(Step::StageAfterTableBeforeRecord)?;
        if staged.is_ok() {
            // Somebody is about to need it: it should not be the first to go again.
            let now_s = self.now_s();
            self.table.update(id, |segment| {
                segment.heat.touch(now_s);
                segment.verdict = None;
            });
        }
        self.record_state(id);
        drop(charge);
        // Also after a failure: what was written until then lies there.
        self.recount(id);
        self.complete_sidecar(id);
        staged?;
        add(&self.counters.recalled_bytes, bytes);
        moved.blocks += entries.len();
        moved.bytes += bytes;
        Ok(())
    }

    /// Brings frames of a claimed segment back to where they belong.
    pub(super) fn bring(
        &self,
        id: SegmentId,
        hot: bool,
        entries: &[IndexEntry],
        progress: &mut Progress<'_>,
    ) -> Result<()> {
        if !hot {
            return self.rebuild_file(id, entries, progress);
        }
        self.fill(id, &self.hot.path(id, FileKind::Sealed), entries, progress)?;
        self.reached(Step::StageAfterFillBeforeTable)?;
        self.table.update(id, |segment| {
            for entry in entries {
                let frame = entry.frame_range();
                segment.record.holes.remove(frame.start, frame.end);
            }
        });
        Ok(())
    }

    /// Fetches frames, verifies them and writes them to their places, durably.
    fn fill(
        &self,
        id: SegmentId,
        path: &Path,
        entries: &[IndexEntry],
        progress: &mut Progress<'_>,
    ) -> Result<()> {
        let cold = self.cold_tier()?;
        let failed = || Error::io(format!("stage into {}", path.display()));
        let file = OpenOptions::new().write(true).open(path).map_err(failed())?;
        let mut waiting: VecDeque<Range<u64>> = runs(entries, REQUEST_BYTES).into();
        let mut flying: VecDeque<(Range<u64>, Cover)> = VecDeque::new();
        let filled = loop {
            let now = self.config.clock.instant();
            let deadline = now + progress.patience(now);
            if let Err(error) = take_off(cold, id, &mut waiting, &mut flying, deadline) {
                break Err(error);
            }
            let Some((run, cover)) = flying.pop_front() else { break Ok(()) };
            let inside: Vec<_> =
                entries.iter().filter(|entry| run.contains(&entry.offset)).collect();
            let wrote = self
                .verified_run(cold, id, (&run, &cover), &inside, progress)
                .and_then(|bytes| file.write_all_at(&bytes, run.start).map_err(failed()));
            if let Err(error) = wrote {
                break Err(error);
            }
            progress.add(run.end - run.start);
        };
        flying.iter().for_each(|(_, cover)| cold.abandon(cover));
        filled?;
        file.sync_all().map_err(failed())
    }

    /// The bytes of a run whose frames verify.
    fn verified_run(
        &self,
        cold: &Cold,
        id: SegmentId,
        (run, cover): (&Range<u64>, &Cover),
        inside: &[&IndexEntry],
        progress: &Progress<'_>,
    ) -> Result<Bytes> {
        let name = self.name(id);
        let verify = |bytes: &[u8]| {
            inside.iter().try_for_each(|entry| {
                let frame = &bytes[(entry.offset - run.start) as usize..];
                let header = verify_frame(&name, entry.offset, frame)?;
                if header.entry.block_ref() == entry.block_ref() {
                    return Ok(());
                }
                Err(Error::Damaged { what: "frame", reason: "it contradicts the index".into() })
            })
        };
        let deadline = || {
            let now = self.config.clock.instant();
            now + progress.patience(now)
        };
        match cold.collect(cover, run, deadline()) {
            Ok(bytes) if verify(&bytes).is_ok() => return Ok(bytes),
            Err(error) if !cover.is_shared() => return Err(error),
            Ok(_) | Err(_) => {}
        }
        // What arrived damaged once may be sound where it is stored; a reader's request that was
        // joined may have ended with its reader.
        cold.forget(id, run);
        let bytes = cold.get_range(id.object_key(), run.clone(), deadline())?;
        verify(&bytes)?;
        Ok(bytes)
    }

    /// Makes the hot file of a segment that has none, with these frames and the footer.
    fn rebuild_file(
        &self,
        id: SegmentId,
        entries: &[IndexEntry],
        progress: &mut Progress<'_>,
    ) -> Result<()> {
        let index = self.load_index(id, progress.patience(self.config.clock.instant()))?;
        let aside = self.hot.staged_path(id, FileKind::Sealed);
        let failed = || Error::io(format!("stage into {}", aside.display()));
        let made = self.build_aside(id, &aside, &index, entries, progress).and_then(|()| {
            self.reached(Step::StageBeforeRename)?;
            std::fs::rename(&aside, self.hot.path(id, FileKind::Sealed)).map_err(failed())
        });
        if let Err(error) = made {
            // Nobody counts it there.
            if let Err(error) = std::fs::remove_file(&aside) {
                tracing::warn!(%error, "{} stays until the next open", aside.display());
            }
            return Err(error);
        }
        sync_dir(&self.hot.segments())?;
        self.reached(Step::StageAfterRenameBeforeTable)?;
        self.table.update(id, |segment| {
            let mut holes = Holes::default();
            holes.insert(DATA_START, index.trailer().frames_end);
            for entry in entries {
                let frame = entry.frame_range();
                holes.remove(frame.start, frame.end);
            }
            segment.record.hot = true;
            segment.record.holes = holes;
        });
        Ok(())
    }

    /// Makes that file at `aside`, durably.
    fn build_aside(
        &self,
        id: SegmentId,
        aside: &Path,
        index: &SegmentIndex,
        entries: &[IndexEntry],
        progress: &mut Progress<'_>,
    ) -> Result<()> {
        let cold = self.cold_tier()?;
        let trailer = index.trailer();
        let failed = || Error::io(format!("stage into {}", aside.display()));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(aside)
            .map_err(failed())?;
        file.set_len(trailer.file_len).map_err(failed())?;
        for part in [0..DATA_START, trailer.frames_end..trailer.file_len] {
            let mut at = part.start;
            while at < part.end {
                let end = part.end.min(at + REQUEST_BYTES);
                let now = self.config.clock.instant();
                let deadline = now + progress.patience(now);
                let bytes = cold.get_range(id.object_key(), at..end, deadline)?;
                file.write_all_at(&bytes, at).map_err(failed())?;
                at = end;
            }
        }
        // Its head and footer came unverified: they must at least lead to the same index.
        if SegmentIndex::from_file(&file, &self.name(id))?.entries() != index.entries() {
            let reason = "its footer leads to another index".to_owned();
            return Err(Error::Damaged { what: "cold object", reason });
        }
        self.fill(id, aside, entries, progress)
    }
}

/// Starts requests for the next runs: one in any case, more where there is memory.
fn take_off(
    cold: &Cold,
    id: SegmentId,
    waiting: &mut VecDeque<Range<u64>>,
    flying: &mut VecDeque<(Range<u64>, Cover)>,
    deadline: Instant,
) -> Result<()> {
    while flying.len() < REQUESTS {
        let Some(run) = waiting.front() else { break };
        let must = flying.is_empty().then_some(deadline);
        let Some(cover) = cold.begin_stage(id, run, must)? else { break };
        flying.extend(waiting.pop_front().map(|run| (run, cover)));
    }
    Ok(())
}
