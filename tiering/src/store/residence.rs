//! Where blocks are, and letting go of them by hand: describe, release.
//!
//! *Release* is the second half of a move. Per segment, in order: the copy in cold was read back
//! and verified and still has its length; a backup names the blocks; the table and the catalog
//! learn the holes; the file is punched. When nothing that lives is left in it, the index is
//! stored apart, durably, before the file goes. A reader that was under way meets zeros, fails
//! verification and goes to cold.
//! *Crash*: with the holes unknown (the catalog is not durable) the same happens to every reader.
//! With holes known and not punched, the next release of the segment punches them.
//! *No holes*: on a file system that cannot punch, what is released in part keeps its room until the
//! file goes.
//! *Gone*: a hot file that somebody removed holds up no release; it is repaired from its other copy.

use std::collections::{BTreeMap, HashMap};
use std::fs::OpenOptions;
use std::io::ErrorKind;

use rustix::fs::{FallocateFlags, fallocate};

use crate::block::{BlockDigest, BlockId};
use crate::blocks::Wait;
use crate::catalog::{BlockRecord, ColdCopy, Holes, SegmentRecord};
use crate::encode::{Codec, Filter};
use crate::error::{Error, Result};
use crate::segment::{DATA_START, FileKind, IndexEntry, SegmentId, SegmentIndex, SegmentName};

use super::append::full_disk;
use super::gates::{BackupProof, Temper};
use super::job::{Job, JobProgress};
use super::mover::ids_of;
use super::reclaim::ASIDE_DEADLINE;
use super::repair::Suspect;
use super::signals::add;
use super::steps::Step;
use super::upload::CALL_DEADLINE;
use super::victims::ask;
use super::{CLOCK_SLICE, Inner};

/// Where a block's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residence {
    /// In a segment that is not sealed yet, in hot only.
    Open,
    /// In hot only.
    Hot,
    /// In hot, and verified in cold.
    Dual,
    /// In cold only.
    Cold,
    /// Not recorded anywhere; a read searches further.
    Unknown,
}

/// One block, for `firn explain`.
#[derive(Clone, Debug)]
pub struct BlockInfo {
    /// The block.
    pub id: BlockId,
    /// First 16 bytes of its BLAKE3.
    pub digest: BlockDigest,
    /// Plaintext bytes.
    pub plain_bytes: u64,
    /// Bytes of its frame in the segment.
    pub stored_bytes: u64,
    /// Codec of its cells.
    pub codec: Codec,
    /// Filter of its cells.
    pub filter: Filter,
    /// Level given to the codec.
    pub level: u8,
    /// Why this codec and filter, in words.
    pub why: String,
    /// The segment that holds it.
    pub segment: SegmentId,
    /// Where its frame begins there.
    pub offset: u64,
    /// Where that is.
    pub residence: Residence,
}

/// How much one block takes, and where; for whoever plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Plaintext bytes.
    pub plain_bytes: u64,
    /// Bytes of its frame; 0 where nothing is known of it.
    pub stored_bytes: u64,
    /// Where that is.
    pub residence: Residence,
}

/// What an archive run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Archived {
    /// Segments that hold the blocks.
    pub segments: usize,
    /// Bytes of those segments.
    pub bytes: u64,
    /// Blocks that were left out because their segment still takes frames.
    pub open: usize,
}

/// What a release or a stage run did.
#[derive(Clone, Debug, Default)]
pub struct Moved {
    /// Blocks moved.
    pub blocks: usize,
    /// Bytes of their frames.
    pub bytes: u64,
    /// Blocks that were not moved, and why.
    pub refused: Vec<(BlockId, String)>,
}

/// Why a pinned block is not moved.
pub const PINNED: &str = "it is pinned";

impl Moved {
    pub(super) fn refuse(&mut self, entries: &[IndexEntry], reason: &str) {
        self.refused.extend(entries.iter().map(|entry| (entry.id, reason.to_owned())));
    }
}

impl Inner {
    fn residence_in(&self, segment: SegmentId, entry: &IndexEntry) -> Residence {
        let frame = entry.frame_range();
        self.table
            .with(segment, |s| {
                let hot = s.record.hot && !s.record.holes.touches(frame.start, frame.end);
                match (hot, s.record.cold) {
                    (true, ColdCopy::Verified) => Residence::Dual,
                    (true, _) => Residence::Hot,
                    (false, ColdCopy::Absent) => Residence::Unknown,
                    (false, _) => Residence::Cold,
                }
            })
            .unwrap_or(Residence::Unknown)
    }

    pub(super) fn residence(&self, block: BlockId) -> Residence {
        if self.find_unsealed(block).is_some() {
            return Residence::Open;
        }
        match self.with_catalog(|catalog| catalog.lookup(block)) {
            Ok(Some(record)) => self.residence_in(record.segment, &record.entry),
            _ => Residence::Unknown,
        }
    }

    /// [`Stored`] for each of many blocks, one catalog lookup each; those that are not recorded take
    /// nothing.
    pub(super) fn stored(&self, blocks: &[BlockId]) -> Vec<Stored> {
        blocks.iter().map(|block| self.stored_of(*block)).collect()
    }

    fn stored_of(&self, block: BlockId) -> Stored {
        let of = |entry: &IndexEntry, residence| Stored {
            plain_bytes: u64::from(entry.plain_len),
            stored_bytes: entry.frame_len(),
            residence,
        };
        if let Some((_, _, entry)) = self.find_unsealed(block) {
            return of(&entry, Residence::Open);
        }
        match self.with_catalog(|catalog| catalog.lookup(block)) {
            Ok(Some(record)) => of(&record.entry, self.residence_in(record.segment, &record.entry)),
            _ => Stored { plain_bytes: 0, stored_bytes: 0, residence: Residence::Unknown },
        }
    }

    pub(super) fn describe(&self, block: BlockId) -> Result<BlockInfo> {
        let (record, residence) = match self.find_unsealed(block) {
            Some((_, segment, entry)) => (BlockRecord { segment, entry }, Residence::Open),
            None => {
                let patience = self.config.clock.instant() + self.config.cold_read_deadline;
                let record = self.record_of(block, Wait::Until(patience))?;
                let residence = self.residence_in(record.segment, &record.entry);
                (record, residence)
            }
        };
        let entry = &record.entry;
        Ok(BlockInfo {
            id: block,
            digest: entry.digest,
            plain_bytes: u64::from(entry.plain_len),
            stored_bytes: entry.frame_len(),
            codec: entry.codec,
            filter: entry.filter,
            level: entry.level,
            why: why(entry),
            segment: record.segment,
            offset: entry.offset,
            residence,
        })
    }

    fn record_of(&self, block: BlockId, wait: Wait) -> Result<BlockRecord> {
        let lost = || Error::Lost { id: block, reason: "no segment lists it".into() };
        self.locate(block, wait)?.ok_or_else(lost)
    }

    /// Seals the segments that hold `blocks`.
    pub(super) fn seal_holding(&self, blocks: &[BlockId], wait: Wait) -> Result<()> {
        let unsealed: Vec<_> =
            blocks.iter().filter_map(|id| Some(self.find_unsealed(*id)?.1)).collect();
        if unsealed.is_empty() {
            return Ok(());
        }
        self.rotate_those(&unsealed);
        self.wait_sealed(&unsealed, wait)
    }

    /// The entries of sealed blocks by segment.
    pub(super) fn group(
        &self,
        blocks: &[BlockId],
        wait: Wait,
    ) -> Result<BTreeMap<SegmentId, Vec<IndexEntry>>> {
        let mut groups: BTreeMap<SegmentId, Vec<IndexEntry>> = BTreeMap::new();
        for &block in blocks {
            if self.find_unsealed(block).is_some() {
                continue;
            }
            let record = self.record_of(block, wait)?;
            groups.entry(record.segment).or_default().push(record.entry);
        }
        for entries in groups.values_mut() {
            entries.sort_by_key(|entry| entry.offset);
            entries.dedup_by_key(|entry| entry.offset);
        }
        Ok(groups)
    }

    /// Drops hot copies of blocks that are safe in cold and not pinned.
    pub(super) fn release(
        &self,
        blocks: &[BlockId],
        proof: &BackupProof,
        job: &mut Job<'_>,
    ) -> Result<Moved> {
        let mut moved = Moved::default();
        for &block in blocks {
            if self.find_unsealed(block).is_some() {
                moved.refused.push((block, "its segment is still open: archive it first".into()));
            }
        }
        let groups = self.group(blocks, job.wait)?;
        let mut so_far = begin(&groups);
        for (id, entries) in groups {
            job.cancel.check()?;
            let done_bytes: u64 = entries.iter().map(IndexEntry::frame_len).sum();
            let entries = self.refuse_pinned(entries, &mut moved)?;
            let waits = !self.table.claim(id);
            if waits {
                self.claim_waiting(id, job.wait)?;
            }
            // What was pinned during the wait stays as well.
            let entries = match waits {
                true => self.refuse_pinned(entries, &mut moved),
                false => Ok(entries),
            };
            let released = |entries| self.release_in(id, entries, proof, &mut moved);
            let result = entries.and_then(released);
            self.table.unclaim(id);
            result?;
            so_far.done += 1;
            so_far.done_bytes += done_bytes;
            (job.progress)(so_far);
        }
        self.capacity.progressed();
        Ok(moved)
    }

    fn refuse_pinned(
        &self,
        entries: Vec<IndexEntry>,
        moved: &mut Moved,
    ) -> Result<Vec<IndexEntry>> {
        let Some(steward) = &self.config.steward else { return Ok(entries) };
        let tempers = ask(&**steward, &ids_of(&entries))?;
        let (pinned, free): (Vec<_>, Vec<_>) =
            entries.into_iter().zip(tempers).partition(|(_, temper)| *temper == Temper::Pinned);
        let only = |list: Vec<(IndexEntry, Temper)>| list.into_iter().map(|(entry, _)| entry);
        moved.refuse(&only(pinned).collect::<Vec<_>>(), PINNED);
        Ok(only(free).collect())
    }

    pub(super) fn claim_waiting(&self, id: SegmentId, wait: Wait) -> Result<()> {
        if self.table.claim(id) {
            return Ok(());
        }
        let _wanted = self.table.want(id);
        loop {
            if !self.table.contains(id) {
                return Err(Error::NotFound(format!("segment {id}")));
            }
            self.check_wait(wait, "waiting for a segment that is being moved")?;
            if self.table.claim_within(id, CLOCK_SLICE) {
                return Ok(());
            }
        }
    }

    /// Releases blocks of one claimed segment.
    pub(super) fn release_in(
        &self,
        id: SegmentId,
        entries: Vec<IndexEntry>,
        proof: &BackupProof,
        moved: &mut Moved,
    ) -> Result<()> {
        let Some(record) = self.table.record(id) else { return Ok(()) };
        if !record.hot {
            return Ok(());
        }
        if let Err(reason) = self.is_safe_in_cold(&record) {
            moved.refuse(&entries, &reason);
            return Ok(());
        }
        let (named, unnamed): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|entry| proof.covers(entry.id));
        moved.refuse(&unnamed, "no verified backup names it yet");
        if named.is_empty() {
            return Ok(());
        }
        let present = named.iter().filter(|entry| {
            let frame = entry.frame_range();
            !record.holes.touches(frame.start, frame.end)
        });
        let (blocks, bytes) =
            present.fold((0, 0), |(blocks, bytes), e| (blocks + 1, bytes + e.frame_len()));
        moved.blocks += blocks;
        moved.bytes += bytes;
        self.reached(Step::ReleaseBeforeRecord)?;
        self.table.update(id, |segment| {
            segment.verdict = None;
            for entry in &named {
                let frame = entry.frame_range();
                segment.record.holes.insert(frame.start, frame.end);
            }
        });
        let index = self.load_index(id, CALL_DEADLINE)?;
        if self.nothing_lives(id, &index)? {
            return self.drop_hot(&index);
        }
        self.punch_out(id, &named)?;
        add(&self.counters.dropped_bytes, bytes);
        Ok(())
    }

    /// Makes holes of entries of a claimed segment, known before they are punched. Also of what was
    /// one already: whoever recorded it may not have come to punch it.
    pub(super) fn punch_out(&self, id: SegmentId, entries: &[IndexEntry]) -> Result<()> {
        self.table.update(id, |segment| {
            segment.verdict = None;
            for entry in entries {
                let frame = entry.frame_range();
                segment.record.holes.insert(frame.start, frame.end);
            }
        });
        self.record_state(id);
        self.reached(Step::ReleaseAfterRecordBeforePunch)?;
        self.punch(id, &runs(entries, u64::MAX))?;
        self.reached(Step::ReleaseAfterPunch)?;
        self.recount(id);
        Ok(())
    }

    pub(super) fn name(&self, id: SegmentId) -> SegmentName {
        SegmentName { volume: self.config.volume, id }
    }

    /// Whether the copy in cold was verified and still stands.
    pub(super) fn is_safe_in_cold(&self, record: &SegmentRecord) -> Result<(), String> {
        let id = record.id;
        if record.cold == ColdCopy::Absent {
            return Err("it is not in cold yet: archive it first".into());
        }
        if record.cold == ColdCopy::Listed {
            self.verify_cold(id).map(drop).map_err(|error| super::read::chain(&error))?;
            self.table.update(id, |segment| segment.record.cold = ColdCopy::Verified);
            self.record_state(id);
        }
        let cold = self.cold_tier().map_err(|error| error.to_string())?;
        let deadline = self.config.clock.instant() + ASIDE_DEADLINE;
        self.judge_len(record, self.cold_len_by(cold, id, deadline))
    }

    /// What the length of a copy that was verified says of it.
    pub(super) fn judge_len(&self, record: &SegmentRecord, len: Result<u64>) -> Result<(), String> {
        let id = record.id;
        match len {
            Ok(len) if len == record.len => Ok(()),
            Ok(len) => Err(format!("its object has {len} bytes instead of {}", record.len)),
            Err(error) => {
                if matches!(error, Error::NotFound(_)) {
                    tracing::error!(%id, "a verified object is gone from the cold tier");
                    self.table.update(id, |segment| segment.record.cold = ColdCopy::Absent);
                    self.record_state(id);
                }
                Err(super::read::chain(&error))
            }
        }
    }

    /// Whether every block that is still in the hot file is dead.
    fn nothing_lives(&self, id: SegmentId, index: &SegmentIndex) -> Result<bool> {
        let Some(record) = self.table.record(id) else { return Ok(false) };
        let present = index.entries().iter().filter(|entry| {
            let frame = entry.frame_range();
            !record.holes.touches(frame.start, frame.end)
        });
        let present: Vec<BlockId> = present.map(|entry| entry.id).collect();
        if present.is_empty() {
            return Ok(true);
        }
        Ok(self.live_among(id, &present)?.is_empty())
    }

    /// Removes a hot file whose content cold holds; the index stays.
    pub(super) fn drop_hot(&self, index: &SegmentIndex) -> Result<()> {
        let id = index.name().id;
        self.reached(Step::DropBeforeIndex)?;
        self.set_index_apart(index)?;
        self.reached(Step::DropAfterIndexBeforeRecord)?;
        let before = self.table.update(id, |segment| {
            segment.record.hot = false;
            segment.record.holes = Holes::default();
            segment.disk_bytes
        });
        self.record_state(id);
        self.reached(Step::DropAfterRecordBeforeUnlink)?;
        self.hot.remove(id, FileKind::Sealed)?;
        self.reached(Step::DropAfterUnlink)?;
        self.recount(id);
        let after = self.table.with(id, |segment| segment.disk_bytes).unwrap_or(0);
        add(&self.counters.dropped_bytes, before.unwrap_or(0).saturating_sub(after));
        Ok(())
    }

    /// Punches again what is recorded as a hole and still takes space: whoever recorded it, or
    /// filled it, did not live to finish.
    pub(super) fn punch_leftovers(&self, record: &SegmentRecord) -> Result<()> {
        /// Unaligned ends of holes and the disk's own bookkeeping.
        const BLOCK: u64 = 4096;
        let whole = |range: &std::ops::Range<u64>| {
            (range.end / BLOCK * BLOCK).saturating_sub(range.start.next_multiple_of(BLOCK))
        };
        let holes: Vec<_> = record.holes.ranges().collect();
        let expected = record.len.saturating_sub(holes.iter().map(whole).sum());
        let allowed = expected + record.len / 64 + 16 * BLOCK;
        if holes.is_empty() || self.hot.disk_bytes(record.id, FileKind::Sealed) <= allowed {
            return Ok(());
        }
        self.punch(record.id, &holes)?;
        self.recount(record.id);
        Ok(())
    }

    /// Stores the index beside the file that is about to go. On a disk without room even for that
    /// the frames go first; until the file follows, the index in it still stands.
    fn set_index_apart(&self, index: &SegmentIndex) -> Result<()> {
        match self.hot.write_idx(index).map_err(full_disk) {
            Err(Error::NoSpace) => {}
            other => return other,
        }
        let id = index.name().id;
        self.table.update(id, |segment| {
            segment.record.holes.insert(DATA_START, index.trailer().frames_end);
        });
        self.record_state(id);
        self.punch(id, &runs(index.entries(), u64::MAX))?;
        self.recount(id);
        self.hot.write_idx(index)
    }

    /// A file that is gone has nothing to give back: what it should hold still is for the mender.
    fn punch(&self, id: SegmentId, ranges: &[std::ops::Range<u64>]) -> Result<()> {
        let path = self.hot.path(id, FileKind::Sealed);
        let failed = || Error::io(format!("punch holes into {}", path.display()));
        let file = match OpenOptions::new().write(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                tracing::warn!(%id, path = %path.display(), "a hot file to punch holes into is gone");
                self.suspect(id, Suspect::HOT);
                return Ok(());
            }
            opened => opened.map_err(failed())?,
        };
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        for run in ranges {
            let punch = || Ok(fallocate(&file, flags, run.start, run.end - run.start)?);
            match self.faults.before_punch().and_then(|()| punch()) {
                // It costs room until the whole file goes; nobody reads there any more.
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    tracing::debug!(%id, %error, "what was dropped of a hot file keeps its room");
                    return Ok(());
                }
                done => done.map_err(failed())?,
            }
        }
        Ok(())
    }

    /// Residence of many blocks, one catalog lookup each.
    pub(super) fn residences(&self, blocks: &[BlockId]) -> Vec<Residence> {
        let mut known: HashMap<BlockId, Residence> = HashMap::new();
        blocks.iter().map(|id| *known.entry(*id).or_insert_with(|| self.residence(*id))).collect()
    }
}

/// All of it still to do.
pub(super) fn begin(groups: &BTreeMap<SegmentId, Vec<IndexEntry>>) -> JobProgress {
    let total_bytes = groups.values().flatten().map(IndexEntry::frame_len).sum();
    JobProgress { total: groups.len(), total_bytes, ..JobProgress::default() }
}

/// Neighbouring frames joined into runs of up to `most` bytes; one frame is never cut.
pub(super) fn runs(entries: &[IndexEntry], most: u64) -> Vec<std::ops::Range<u64>> {
    let mut runs: Vec<std::ops::Range<u64>> = Vec::new();
    for entry in entries {
        let frame = entry.frame_range();
        match runs.last_mut() {
            Some(run) if run.end == frame.start && frame.end - run.start <= most => {
                run.end = frame.end;
            }
            _ => runs.push(frame),
        }
    }
    runs
}

/// The choice in words, as far as the record tells.
fn why(entry: &IndexEntry) -> String {
    let ratio = f64::from(entry.plain_len) / f64::from(entry.stored_len.max(1));
    match (entry.codec, entry.filter) {
        (Codec::None, _) => "stored raw: nothing that was tried shrank it".to_owned(),
        (codec, Filter::None) => {
            format!(
                "{codec}-{} without a filter did best on the sample: ratio {ratio:.2}",
                entry.level
            )
        }
        (codec, filter) => {
            format!(
                "{filter} before {codec}-{} did best on the sample: ratio {ratio:.2}",
                entry.level
            )
        }
    }
}
