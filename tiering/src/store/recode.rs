//! Writing blocks again in their smallest form: zstd-19 behind the best of all filters. Blocks
//! keep id, digest and flags; a frame that would not shrink by [`LEAST_GAIN_PERCENT`] stays as it
//! is.
//!
//! *Order*, per segment: every living frame is verified, encoded and appended to a segment of its
//! own in staging; that one is sealed, which makes it durable, read back, and each frame decoded
//! and compared with the block's digest; it gets its name, durably; table and catalog learn of it;
//! only then the old segment goes, by the rules of `reclaim`: its object in cold stays until each
//! living block is verified in cold elsewhere.
//! *Crash*: before the name there is a file in staging, removed at the next open; after it there
//! are two good copies, of which the catalog names the younger, and the next run finds that the
//! old segment holds nothing that is not elsewhere and lets go of it.
//! *Interruption*: work that has to stop, in the background also when somebody else wants the segment,
//! keeps its place in memory and goes on there, unless the old segment changed or space ran short; then
//! it is thrown away.
//! *No loops*: a segment that was written, or gained nothing, is settled; the catalog remembers it,
//! and where it does not, the levels in the index tell what was tried.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::sync::Arc;

use crate::block::{BlockId, BlockRef};
use crate::blocks::Wait;
use crate::catalog::{BlockRecord, ColdCopy, SegmentRecord};
use crate::encode::{Codec, Effort, EncodeMemory, encode_block};
use crate::error::{Error, Result};
use crate::segment::{
    DATA_START, Frame, IndexEntry, ParityPlace, SealedInfo, SegmentId, SegmentIndex, SegmentName,
    SegmentWriter, hash_block,
};

use super::Inner;
use super::append::{charge_of, discard, full_disk};
use super::encoder::{Block, Encoder, read_frame};
use super::job::{Job, JobProgress};
use super::mover::ids_of;
use super::repair::Suspect;
use super::signals::add;
use super::steps::Step;
use super::upload::CALL_DEADLINE;

/// A frame or a segment that shrinks by less is not worth being written again.
const LEAST_GAIN_PERCENT: u64 = 3;

/// The zstd level of [`Effort::Archive`].
const HARDEST_LEVEL: u8 = 19;

/// Memory of one run: a block as stored, plain, and encoded twice over, and the encoder's.
const RECODE_MEMORY: u64 = 16 << 20;

/// What re-encoding did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recompressed {
    /// Segments that were written again.
    pub segments: usize,
    /// Bytes of their frames before.
    pub before_bytes: u64,
    /// And after.
    pub after_bytes: u64,
    /// Segments that would have gained too little.
    pub unchanged: usize,
    /// Segments that are not in hot as a whole.
    pub absent: usize,
}

/// What became of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Written again; frame bytes before and after.
    Written(u64, u64),
    /// It gains too little.
    Unchanged,
    /// It is not in hot as a whole.
    Absent,
    /// It had to stop.
    Paused,
}

/// How encoding what is left of a segment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Finished,
    /// Before a block.
    Paused,
    /// Within a block.
    Left,
}

/// Who wants it.
#[derive(Clone, Copy)]
pub(super) enum Pace<'a> {
    /// Nobody: at the lowest priority, as long as this says so.
    Background(&'a dyn Fn() -> bool),
    /// A person, who waits.
    Asked(Wait),
}

/// A segment that is being written again.
pub(super) struct Recoding {
    old: SegmentId,
    writer: SegmentWriter,
    /// Entries of the old index that are done.
    pub(super) done: usize,
    /// Bytes counted against the hot capacity.
    charged: u64,
}

/// Whether a block is encoded as hard as it can be.
fn is_hardest(entry: &IndexEntry) -> bool {
    entry.codec == Codec::Zstd && entry.level >= HARDEST_LEVEL
}

fn is_worth_it(before: u64, after: u64) -> bool {
    after.saturating_mul(100) <= before.saturating_mul(100 - LEAST_GAIN_PERCENT)
}

/// The same block in its smallest form; the frame itself when that gains too little.
pub(super) fn harder(frame: Frame) -> Result<Frame> {
    if is_hardest(frame.entry()) {
        return Ok(frame);
    }
    let plain = frame.plain()?.into_bytes();
    let encoded = encode_block(&plain, &mut EncodeMemory::default(), Effort::Archive);
    let smaller = frame.recoded(&hash_block(&plain), &encoded)?;
    Ok(if is_worth_it(frame.len(), smaller.len()) { smaller } else { frame })
}

impl Inner {
    /// Writes the segments that hold `blocks` again in their smallest form, sealing them first.
    pub(super) fn recompress(&self, blocks: &[BlockId], job: &mut Job<'_>) -> Result<Recompressed> {
        let wait = job.wait;
        self.seal_holding(blocks, wait)?;
        let segments: Vec<_> = self.group(blocks, wait)?.into_keys().collect();
        let len = |id: &SegmentId| self.table.with(*id, |s| s.record.len).unwrap_or(0);
        let lens: Vec<u64> = segments.iter().map(len).collect();
        let (total, total_bytes) = (segments.len(), lens.iter().sum());
        let mut so_far = JobProgress { total, total_bytes, ..JobProgress::default() };
        let mut sum = Recompressed::default();
        for (&id, len) in segments.iter().zip(lens) {
            (job.progress)(so_far);
            job.cancel.check()?;
            so_far.done += 1;
            so_far.done_bytes += len;
            match self.claim_waiting(id, wait) {
                // Collected meanwhile.
                Err(Error::NotFound(_)) => continue,
                other => other?,
            }
            let outcome = self.recode(id, Pace::Asked(wait));
            self.table.unclaim(id);
            match outcome? {
                Outcome::Written(before, after) => {
                    sum.segments += 1;
                    sum.before_bytes += before;
                    sum.after_bytes += after;
                }
                Outcome::Unchanged => sum.unchanged += 1,
                Outcome::Absent => sum.absent += 1,
                Outcome::Paused => return Err(Error::ReadOnly("it is being closed".into())),
            }
        }
        (job.progress)(so_far);
        Ok(sum)
    }

    /// Writes one claimed segment again.
    pub(super) fn recode(&self, id: SegmentId, pace: Pace<'_>) -> Result<Outcome> {
        self.check_writable()?;
        let Some(record) = self.table.record(id) else { return Ok(Outcome::Absent) };
        let ruined = self.table.with(id, |segment| segment.ruined) == Some(true);
        if !record.hot || !record.holes.is_empty() || ruined {
            return Ok(Outcome::Absent);
        }
        let memory = match pace {
            Pace::Background(_) => self.config.budget.try_acquire(RECODE_MEMORY),
            Pace::Asked(wait) => {
                Some(self.config.budget.acquire(RECODE_MEMORY, wait, "waiting for memory")?)
            }
        };
        let Some(memory) = memory else { return Ok(Outcome::Paused) };
        let index = self.load_index(id, CALL_DEADLINE)?;
        let live = self.live_among(id, &ids_of(index.entries()))?;
        let living = index.entries().iter().filter(|entry| live.contains(&entry.id));
        let here: HashMap<BlockId, BlockRef> = living
            .filter(|entry| self.lies_here(id, entry))
            .map(|entry| (entry.id, entry.block_ref()))
            .collect();
        let staying = || index.entries().iter().filter(|entry| here.contains_key(&entry.id));
        if here.is_empty() && !live.is_empty() {
            // A run that a crash cut short has written all of it.
            self.replace(&record, &index, &live)?;
            return Ok(Outcome::Written(0, 0));
        }
        if staying().all(is_hardest) {
            self.settle(id);
            return Ok(Outcome::Unchanged);
        }
        let is_background = matches!(pace, Pace::Background(_));
        let Some(mut encoder) = self.encoder(is_background)? else { return Ok(Outcome::Paused) };
        let mut recoding = self.take_recoding(id, index.trailer().place)?;
        let written = self.write_again(&mut recoding, &encoder, &index, &here, pace);
        let end = match written {
            Ok(end) => end,
            Err(error) => {
                self.give_up(recoding);
                return Err(error);
            }
        };
        if end == End::Left {
            encoder.leave(memory);
        }
        if is_background {
            *self.encoder.lock() = Some(encoder);
        }
        if end != End::Finished {
            *self.recoding.lock() = Some(recoding);
            return Ok(Outcome::Paused);
        }
        let before = staying().map(IndexEntry::frame_len).sum();
        let after = recoding.writer.len() - DATA_START;
        if !is_worth_it(before, after) {
            self.give_up(recoding);
            self.settle(id);
            return Ok(Outcome::Unchanged);
        }
        self.adopt_recoded(recoding, &here)?;
        self.replace(&record, &index, &live)?;
        add(&self.counters.recoded_segments, 1);
        add(&self.counters.recoded_saved_bytes, before - after);
        Ok(Outcome::Written(before, after))
    }

    /// The work on this segment that was interrupted, or a fresh beginning.
    fn take_recoding(&self, id: SegmentId, place: ParityPlace) -> Result<Recoding> {
        if let Some(begun) = self.recoding.lock().take() {
            if begun.old == id {
                return Ok(begun);
            }
            self.give_up(begun);
        }
        let name = self.name(self.ids.segment()?);
        let writer = SegmentWriter::create(&self.hot.staging(), name, self.possible(place));
        let writer = writer.map_err(full_disk)?;
        Ok(Recoding { old: id, writer, done: 0, charged: 0 })
    }

    /// Throws unfinished work away.
    fn give_up(&self, recoding: Recoding) {
        self.capacity.sub(recoding.charged);
        discard(Some(recoding.writer));
    }

    /// As [`Inner::give_up`], for work that waits to be continued.
    pub(super) fn give_up_recoding(&self) {
        if let Some(recoding) = self.recoding.lock().take() {
            self.give_up(recoding);
        }
    }

    /// Who encodes; `None` while the one in the background has not done what it was asked last.
    fn encoder(&self, is_background: bool) -> Result<Option<Encoder>> {
        let kept = if is_background { self.encoder.lock().take() } else { None };
        let mut encoder = match kept {
            Some(encoder) => encoder,
            None => Encoder::start(is_background)?,
        };
        if encoder.is_free() {
            return Ok(Some(encoder));
        }
        *self.encoder.lock() = Some(encoder);
        Ok(None)
    }

    /// Encodes what is left and appends it. In the background nobody who wants the segment waits for
    /// more than one block to be appended.
    fn write_again(
        &self,
        recoding: &mut Recoding,
        encoder: &Encoder,
        index: &SegmentIndex,
        here: &HashMap<BlockId, BlockRef>,
        pace: Pace<'_>,
    ) -> Result<End> {
        let file = self
            .hot
            .open_sealed(recoding.old)
            .map_err(Error::io(format!("open segment {} to encode it again", recoding.old)))?;
        let entries = index.entries();
        let written: HashSet<BlockId> =
            recoding.writer.entries().iter().map(|entry| entry.id).collect();
        let left: Vec<usize> = (recoding.done..entries.len())
            .filter(|at| here.contains_key(&entries[*at].id) && !written.contains(&entries[*at].id))
            .collect();
        let name = index.name();
        let is_wanted =
            || matches!(pace, Pace::Background(_)) && self.table.is_wanted(recoding.old);
        let may_go_on = || !self.is_stopping() && !is_wanted();
        for at in left {
            if !may_go_on() || !pace.goes_on() {
                return Ok(End::Paused);
            }
            let block = Block { name, file: Arc::clone(&file), entry: entries[at].clone() };
            let Some(frame) = encoder.encode(block, may_go_on) else { return Ok(End::Left) };
            let mut frame = frame.inspect_err(|_| self.suspect(name.id, Suspect::HOT))?;
            self.check_writable()?;
            let charge = self.capacity.charge_reserve(charge_of(frame.len()))?;
            recoding.writer.append(&mut frame).map_err(full_disk)?;
            recoding.charged += charge_of(frame.len());
            charge.keep();
            recoding.done = at + 1;
        }
        Ok(End::Finished)
    }

    /// The verified frame of a block, ready to be appended elsewhere.
    pub(super) fn frame_of(
        &self,
        name: &SegmentName,
        file: &File,
        entry: &IndexEntry,
    ) -> Result<Frame> {
        read_frame(name, file, entry).inspect_err(|_| self.suspect(name.id, Suspect::HOT))
    }

    /// Seals what was written, reads it back, and makes it known.
    fn adopt_recoded(
        &self,
        mut recoding: Recoding,
        here: &HashMap<BlockId, BlockRef>,
    ) -> Result<()> {
        let sealed = recoding.writer.seal().map_err(full_disk).and_then(|info| {
            self.verify_recoded(&recoding, &info, here)?;
            self.check_writable()?;
            self.reached(Step::RecodeBeforeName)?;
            Ok(info)
        });
        let info = match sealed {
            Ok(info) => info,
            Err(error) => {
                self.give_up(recoding);
                return Err(error);
            }
        };
        let (old, new) = (recoding.old, recoding.writer.name().id);
        self.hot.name_staged(new)?;
        self.reached(Step::RecodeAfterNameBeforeRecord)?;
        self.publish(new, &info, recoding.charged);
        let (freed, was_copied, heat) = self
            .table
            .with(old, |s| (s.freed.clone(), s.record.cold != ColdCopy::Absent, s.heat.load()))
            .unwrap_or_default();
        self.table.update(new, |segment| {
            segment.record.settled = true;
            segment.heat.set(heat);
            for entry in info.index.entries().iter().filter(|entry| freed.contains(&entry.id)) {
                segment.freed.insert(entry.id);
                segment.record.dead_bytes += entry.frame_len();
            }
        });
        self.record_state(new);
        if was_copied {
            // Wanted for good: it replaces a copy that is there.
            self.want_copies(&[new]);
        }
        self.reached(Step::RecodeAfterRecordBeforeReplace)
    }

    /// Whether every block can be read from the new segment as it lies on the disk.
    fn verify_recoded(
        &self,
        recoding: &Recoding,
        info: &SealedInfo,
        here: &HashMap<BlockId, BlockRef>,
    ) -> Result<()> {
        let name = recoding.writer.name();
        let mut found = 0;
        for entry in info.index.entries() {
            let frame = self.frame_of(&name, recoding.writer.file(), entry)?;
            found += usize::from(here.get(&entry.id) == Some(&frame.entry().block_ref()));
        }
        if found == here.len() {
            return Ok(());
        }
        let reason = format!("{found} of {} blocks were written", here.len());
        Err(Error::Damaged { what: "segment", reason })
    }

    /// Remembers that trying again is of no use.
    fn settle(&self, id: SegmentId) {
        self.table.update(id, |segment| segment.record.settled = true);
        self.record_state(id);
    }

    /// Whether a block of this segment is found in another one.
    pub(super) fn is_superseded(&self, id: SegmentId, entry: &IndexEntry) -> bool {
        if let Some((_, other, found)) = self.find_unsealed(entry.id) {
            return other != id && found.digest == entry.digest;
        }
        matches!(self.with_catalog(|catalog| catalog.lookup(entry.id)),
            Ok(Some(other)) if other.segment != id && other.entry.digest == entry.digest)
    }

    /// Whether a block of this segment was appended again to one that is not sealed yet, and can
    /// be read there.
    pub(super) fn stands_open(&self, id: SegmentId, entry: &IndexEntry) -> bool {
        self.find_unsealed(entry.id).is_some_and(|(file, other, found)| {
            other != id
                && found.block_ref() == entry.block_ref()
                && self.frame_of(&self.name(other), &file, &found).is_ok()
        })
    }

    /// Whether a block of this segment can be read elsewhere.
    pub(super) fn stands_elsewhere(&self, id: SegmentId, entry: &IndexEntry) -> bool {
        !self.lies_here(id, entry) || self.stands_open(id, entry)
    }

    /// Whether this segment is where a block has to be read. What the catalog says of another
    /// place counts only when the block was read there just now, or is verified in cold.
    pub(super) fn lies_here(&self, id: SegmentId, entry: &IndexEntry) -> bool {
        match self.with_catalog(|catalog| catalog.lookup(entry.id)) {
            Ok(Some(other)) if other.segment != id => !self.holds(&other, &entry.block_ref()),
            _ => true,
        }
    }

    fn holds(&self, place: &BlockRecord, block: &BlockRef) -> bool {
        if place.entry.block_ref() != *block {
            return false;
        }
        let frame = place.entry.frame_range();
        let Some(record) = self.table.record(place.segment) else { return false };
        if !record.hot || record.holes.touches(frame.start, frame.end) {
            return record.cold == ColdCopy::Verified;
        }
        let file = self.hot.open_sealed(place.segment);
        file.is_ok_and(|file| self.frame_of(&self.name(place.segment), &file, &place.entry).is_ok())
    }

    /// Lets go of a hot segment whose living blocks stand elsewhere, durably.
    pub(super) fn replace(
        &self,
        record: &SegmentRecord,
        index: &SegmentIndex,
        live: &HashSet<BlockId>,
    ) -> Result<()> {
        match self.settle_offer(record) {
            Ok(ColdCopy::Absent) => return self.forget_segment(index),
            Ok(ColdCopy::Listed | ColdCopy::Verified) => {}
            Err(error) => return self.drop_unsettled(index, &error),
        }
        self.table.update(record.id, |segment| segment.nothing_is_needed());
        // Backups name blocks, not segments, but until the new copies are in cold this object is
        // the only one there.
        self.drop_hot(index)?;
        self.remove_segment(index, live).map(|_| ())
    }
}

/// The frame of a block out of a segment's stored bytes, which may go on behind it. Verifies every
/// byte: a damaged frame stays where parity or another copy can still help.
pub(super) fn verified(name: &SegmentName, stored: &[u8], entry: &IndexEntry) -> Result<Frame> {
    let frame = Frame::from_stored(name, stored)?;
    if frame.entry().block_ref() == entry.block_ref() {
        return Ok(frame);
    }
    let reason = format!("block {} contradicts the index", entry.id);
    Err(Error::Damaged { what: "frame", reason })
}

impl Pace<'_> {
    fn goes_on(self) -> bool {
        match self {
            Self::Background(goes_on) => goes_on(),
            Self::Asked(_) => true,
        }
    }
}
