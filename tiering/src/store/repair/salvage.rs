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
//! *Retry*: what stands elsewhere already is left out, so that a second run finds nothing to do.

use crate::error::{Error, Result};
use crate::segment::{IndexEntry, ParityPlace, SegmentId};

use super::super::Inner;
use super::super::append::{Lane, charge_of};
use super::super::encoder::read_frame;
use super::super::mover::ids_of;
use super::super::steps::Step;
use super::super::table::Segment;
use super::super::upload::CALL_DEADLINE;

impl Inner {
    /// Saves what is sound in a claimed hot segment. Of one that is not in hot as a whole nothing
    /// is: its sound blocks are in cold.
    pub(super) fn salvage(&self, id: SegmentId) -> Result<()> {
        let is_whole = |s: &Segment| s.record.hot && s.record.holes.is_empty();
        if self.table.with(id, is_whole) != Some(true) || !self.hot.has(id) {
            return Ok(());
        }
        let index = self.load_index(id, CALL_DEADLINE)?;
        let counted = self.table.with(id, |segment| segment.record.dead_bytes).unwrap_or(0);
        let live = self.live_among(id, &ids_of(index.entries()))?;
        let here = self.living_in_hot(&index, &live);
        let lost = self.move_sound(id, &here, self.possible(index.trailer().place))?;
        if lost.len() < here.len() {
            let saved = here.len() - lost.len();
            tracing::warn!(%id, saved, "sound blocks of a damaged segment were written elsewhere");
        }
        self.table.update(id, |segment| {
            let kept: u64 = lost.iter().map(IndexEntry::frame_len).sum();
            segment.ruined = !lost.is_empty();
            let since = segment.record.dead_bytes.saturating_sub(counted);
            let dead = segment.record.data_bytes.saturating_sub(kept);
            segment.record.dead_bytes = dead.saturating_add(since).min(segment.record.data_bytes);
            // Without a living block it is to be judged, and when one was freed meanwhile.
            segment.judged_dead = if lost.is_empty() { 0 } else { dead };
            segment.unsaved = true;
        });
        Ok(())
    }

    /// Writes the sound ones of these blocks elsewhere, durably; returns the others.
    fn move_sound(
        &self,
        id: SegmentId,
        here: &[IndexEntry],
        place: ParityPlace,
    ) -> Result<Vec<IndexEntry>> {
        let needed = here.iter().map(|entry| charge_of(entry.frame_len())).sum();
        let mut charge = self.capacity.charge_reserve(needed)?;
        let opened = self.hot.open_sealed(id);
        let file = opened.map_err(Error::io(format!("open segment {id} to save its blocks")))?;
        let name = self.name(id);
        let (mut saved, mut lost) = (Vec::new(), Vec::new());
        self.reached(Step::SalvageBeforeAppend)?;
        for (entry, cold) in here.iter().zip(self.are_cold(id, here)) {
            if self.is_stopping() {
                return Err(Error::ReadOnly("it is being closed".into()));
            }
            // Not by `frame_of`, which has a segment looked at again of which this is known.
            match read_frame(&name, &file, entry) {
                Ok(mut frame) => {
                    let lane = if cold { Lane::cold(place) } else { Lane::fresh(place) };
                    self.append_frame(&mut frame, lane, Some(id))?;
                    charge.keep_some(charge_of(frame.len()));
                    saved.push(entry.clone());
                }
                Err(Error::Damaged { .. } | Error::Io { .. }) => lost.push(entry.clone()),
                Err(error) => return Err(error),
            }
        }
        drop(charge);
        self.reached(Step::SalvageAfterAppendBeforeSync)?;
        self.sync()?;
        self.hand_over(id, &saved);
        self.reached(Step::SalvageAfterSync)?;
        Ok(lost)
    }
}
