//! What can be saved of a hot segment that nothing makes whole: its sound living blocks are written
//! to the segment that takes frames, and get to cold from there.
//!
//! *Order*: each frame is verified as it lies in the damaged file and appended under its own id, as
//! `reclaim` compacts; all of it is synced; only then the table learns that what still lives in the
//! damaged file is lost, and it is not copied, compacted or encoded again. The file itself stays,
//! whole as it is, as long as a block lives in it: parity and a copy that comes back may still save
//! that. When the last such block is freed, or none was lost, it goes by the rules of `reclaim`.
//! *Crash*: before the sync the damaged file counts, in which nothing was changed; after it the
//! sound blocks stand twice, and whichever the catalog names is verified on reading. What the table
//! learns is not stored: the first look after the next open finds that nothing is left to be saved,
//! or saves what a crash has kept from it.
//! *Retry*: what stands elsewhere already is left out, so that a second run finds nothing to do. What
//! could not be read is left for that run, and is not lost before patience with the disk ends.

use crate::error::{Error, Result};
use crate::segment::{IndexEntry, ParityPlace, SegmentId};

use super::super::Inner;
use super::super::append::{Lane, charge_of};
use super::super::encoder::read_frame;
use super::super::mover::ids_of;
use super::super::steps::Step;
use super::super::table::Segment;
use super::super::upload::CALL_DEADLINE;
use super::{DamageReport, Mended};

/// What of a segment was not saved.
#[derive(Default)]
pub(super) struct Left {
    lost: Vec<IndexEntry>,
    /// What could not be read, and may be later, and why.
    unread: Vec<IndexEntry>,
    failure: Option<Error>,
}

impl Left {
    /// A report of what is lost without what is only unread; why that could not be read where
    /// nothing else is lost.
    pub(super) fn judge(self, mut report: DamageReport) -> Result<DamageReport> {
        let Some(failure) = self.failure else { return Ok(report) };
        if let Mended::Lost(lost) = &mut report.mended {
            lost.retain(|block| self.unread.iter().all(|entry| entry.id != *block));
            if !lost.is_empty() {
                return Ok(report);
            }
        }
        Err(failure)
    }
}

impl Inner {
    /// Saves what is sound in a claimed hot segment. Of one that is not in hot as a whole nothing
    /// is: its sound blocks are in cold.
    pub(super) fn salvage(&self, id: SegmentId) -> Result<Left> {
        let is_whole = |s: &Segment| s.record.hot && s.record.holes.is_empty();
        if self.table.with(id, is_whole) != Some(true) || !self.hot.has(id) {
            return Ok(Left::default());
        }
        let index = self.load_index(id, CALL_DEADLINE)?;
        let counted = self.table.with(id, |segment| segment.record.dead_bytes).unwrap_or(0);
        let live = self.live_among(id, &ids_of(index.entries()))?;
        let here = self.living_in_hot(&index, &live);
        let place = self.possible(index.trailer().place);
        let left = self.move_sound(id, &here, place)?;
        let (lost, unread) = (&left.lost, &left.unread);
        let saved = here.len() - lost.len() - unread.len();
        if saved > 0 {
            tracing::warn!(%id, saved, "sound blocks of a damaged segment were written elsewhere");
        }
        self.table.update(id, |segment| {
            let kept: u64 = lost.iter().chain(unread).map(IndexEntry::frame_len).sum();
            segment.ruined = !lost.is_empty();
            let since = segment.record.dead_bytes.saturating_sub(counted);
            let dead = segment.record.data_bytes.saturating_sub(kept);
            segment.record.dead_bytes = dead.saturating_add(since).min(segment.record.data_bytes);
            // Without a living block it is to be judged, and when one was freed meanwhile.
            segment.judged_dead = if kept == 0 { 0 } else { dead };
            segment.unsaved = true;
        });
        Ok(left)
    }

    /// Writes the sound ones of these blocks elsewhere, durably; returns the others.
    fn move_sound(&self, id: SegmentId, here: &[IndexEntry], place: ParityPlace) -> Result<Left> {
        let needed = here.iter().map(|entry| charge_of(entry.frame_len())).sum();
        let mut charge = self.capacity.charge_reserve(needed)?;
        let opened = self.hot.open_copy(id);
        let copy = opened.map_err(Error::io(format!("open segment {id} to save its blocks")))?;
        let name = self.name(id);
        let (mut saved, mut left) = (Vec::new(), Left::default());
        self.reached(Step::SalvageBeforeAppend)?;
        for (entry, cold) in here.iter().zip(self.are_cold(id, here)) {
            if self.is_stopping() {
                return Err(Error::ReadOnly("it is being closed".into()));
            }
            // Not by `frame_of`, which has a segment looked at again of which this is known.
            match read_frame(&name, &copy, entry) {
                Ok(mut frame) => {
                    let lane = if cold { Lane::cold(place) } else { Lane::fresh(place) };
                    self.append_frame(&mut frame, lane, Some(id))?;
                    charge.keep_some(charge_of(frame.len()));
                    saved.push(entry.clone());
                }
                Err(Error::Damaged { .. }) => left.lost.push(entry.clone()),
                Err(Error::Io { .. }) => match copy.failure() {
                    Some(error) if self.is_to_be_read_later(id) => {
                        left.unread.push(entry.clone());
                        left.failure = Some(error);
                    }
                    _ => left.lost.push(entry.clone()),
                },
                Err(error) => return Err(error),
            }
        }
        drop(charge);
        self.reached(Step::SalvageAfterAppendBeforeSync)?;
        self.sync()?;
        self.hand_over(id, &saved);
        self.reached(Step::SalvageAfterSync)?;
        Ok(left)
    }
}
