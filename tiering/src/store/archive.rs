//! Copying blocks to cold on demand: the segments that hold them are sealed, copied, and waited for.
//!
//! *Moved meanwhile*: what is written elsewhere while it is waited for, since its segment was
//! compacted, or was found to be damaged and what is sound of it saved, is looked up again and copied
//! from there. What is lost is told at the end, when the rest is in cold.
//! *Crash* and *retry*: nothing is kept of a request; what was copied is not copied again.

use std::collections::BTreeSet;

use crate::block::BlockId;
use crate::blocks::Wait;
use crate::catalog::ColdCopy;
use crate::error::{Error, Result};
use crate::segment::SegmentId;

use super::Inner;
use super::job::{Cancel, Job, JobProgress};
use super::read::chain;
use super::repair::Suspect;
use super::residence::Archived;
use super::table::Segment;

impl Inner {
    /// Copies the segments that hold `blocks` to cold, sealing them first or leaving out those
    /// that are open.
    pub(super) fn archive(
        &self,
        blocks: &[BlockId],
        seal: bool,
        job: &mut Job<'_>,
    ) -> Result<Archived> {
        self.cold_tier()?;
        let unsure = self.look_at_ruined(blocks, seal, job.wait)?;
        let mut unsound = None;
        let mut done = BTreeSet::new();
        let mut archived = Archived::default();
        loop {
            if seal {
                self.seal_holding(blocks, job.wait)?;
            }
            archived.open = blocks.iter().filter(|id| self.find_unsealed(**id).is_some()).count();
            let (mut left, lost) = self.left_to_copy(blocks, job.wait)?;
            left.retain(|id| !done.contains(id));
            for (id, error) in self.verify_cold_only(&left, &job.cancel)? {
                done.insert(id);
                left.retain(|other| *other != id);
                unsound.get_or_insert(error);
            }
            if left.is_empty() {
                let error = lost.map(|lost| unsure.unwrap_or(lost)).or(unsound);
                return error.map_or(Ok(archived), Err);
            }
            match self.copy_those(&left, job, archived) {
                Ok(bytes) => {
                    archived.segments += left.len();
                    archived.bytes += bytes;
                    done.extend(left);
                }
                // What of it was saved is copied in the next round, and the rest is told then.
                Err(Error::Lost { .. }) => self.check_wait(job.wait, "copying saved blocks")?,
                Err(error) => return Err(error),
            }
        }
    }

    /// The segments that hold `blocks` and can be copied or are; and what is wrong with one of the
    /// others.
    fn left_to_copy(
        &self,
        blocks: &[BlockId],
        wait: Wait,
    ) -> Result<(Vec<SegmentId>, Option<Error>)> {
        let mut lost = None;
        let mut left = Vec::new();
        for (id, entries) in self.group(blocks, wait)? {
            match self.table.with(id, Self::is_beyond_copying).flatten() {
                Some(reason) => lost = Some(Error::Lost { id: entries[0].id, reason }),
                None => left.push(id),
            }
        }
        Ok((left, lost))
    }

    /// Has segments that were found to be beyond repair looked at once more, since a copy may have
    /// come back; at once for somebody who asks by hand. Returns why one could not be.
    fn look_at_ruined(
        &self,
        blocks: &[BlockId],
        at_once: bool,
        wait: Wait,
    ) -> Result<Option<Error>> {
        let ruined = self.table.ids(|segment| segment.ruined);
        if ruined.is_empty() {
            return Ok(None);
        }
        let groups = self.group(blocks, wait)?;
        let mut unsure = None;
        for id in ruined.into_iter().filter(|id| groups.contains_key(id)) {
            if !at_once {
                self.look_again(id);
                continue;
            }
            let looked = self.claim_waiting(id, wait).and_then(|()| {
                let looked = self.mend(id, Suspect { hot: true, cold: true });
                self.table.unclaim(id);
                looked
            });
            unsure = looked.err().or(unsure);
        }
        Ok(unsure)
    }

    /// Has these segments copied and waits for that; returns their bytes.
    fn copy_those(
        &self,
        segments: &[SegmentId],
        job: &mut Job<'_>,
        before: Archived,
    ) -> Result<u64> {
        let len = |id: &SegmentId| self.table.with(*id, |s| s.record.len).unwrap_or(0);
        let bytes: u64 = segments.iter().map(len).sum();
        let missing = |id: &SegmentId| {
            self.table.with(*id, |s| s.record.cold != ColdCopy::Verified).unwrap_or(false)
        };
        let missing: Vec<SegmentId> = segments.iter().copied().filter(missing).collect();
        self.want_copies(&missing);
        let progress = &mut *job.progress;
        let copied = self.wait_copied(segments, job.wait, &job.cancel, |done, done_bytes| {
            progress(JobProgress {
                done: before.segments + done,
                total: before.segments + segments.len(),
                done_bytes: before.bytes + done_bytes,
                total_bytes: before.bytes + bytes,
            });
        });
        // What has not begun when somebody gives up is not begun.
        self.unwant_copies(&missing);
        copied.map(|()| bytes)
    }

    /// Verifies copies that were only listed and have no hot file to compare with; says of each that is
    /// not sound what is wrong with it.
    fn verify_cold_only(
        &self,
        segments: &[SegmentId],
        cancel: &Cancel,
    ) -> Result<Vec<(SegmentId, Error)>> {
        let mut unsound = Vec::new();
        for &id in segments {
            cancel.check()?;
            let is_listed = |s: &Segment| !s.record.hot && s.record.cold == ColdCopy::Listed;
            if self.table.with(id, is_listed) != Some(true) {
                continue;
            }
            match self.verify_cold(id) {
                Ok(_) => {
                    self.table.update(id, |s| s.record.cold = ColdCopy::Verified);
                    self.record_state(id);
                }
                Err(error @ (Error::Damaged { .. } | Error::NotFound(_))) => {
                    let first = self.table.with(id, |s| s.record.first_block);
                    let reason = format!("segment {id} lies in cold alone: {}", chain(&error));
                    unsound.extend(first.map(|first| (id, Error::Lost { id: first, reason })));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(unsound)
    }
}
