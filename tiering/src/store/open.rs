//! Opening: what is there, what a crash left, and catching the catalog up while serving.
//!
//! In order: the directories exist; staging is emptied; the catalog opens, or is wiped; the table
//! is filled from the catalog's segment records and corrected by what the directory really holds;
//! open segments are scanned, serve from the map of unsealed blocks at once, and go to the sealer.
//! Segments without a record are caught up by a background thread; until then a lookup that
//! misses reads their indexes itself. With a wiped catalog the cold tier is listed as well: this
//! is also how a volume is recovered from cold alone.
//!
//! A crash here leaves what was found; every step may be repeated.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use crate::block::{BlockId, BlockRef};
use crate::blocks::{Served, Wait};
use crate::catalog::{BlockRecord, Catalog, ColdCopy, Found, Holes, SegmentHeat, SegmentRecord};
use crate::error::{Error, Result};
use crate::segment::{
    DATA_START, FileKind, IndexEntry, IndexFetch, ParityPlace, ReadAt, ScannedFrame, SegmentHeader,
    SegmentId, SegmentIndex, SegmentName, SegmentWriter, scan_frames, verify_frame,
};

use super::read::{Tried, Want};
use super::repair::Suspect;
use super::sidecar::lacks_sidecar;
use super::signals::add;
use super::table::Segment;
use super::{CLOCK_SLICE, Inner};

/// How long the background may take for one answer of the cold tier.
const BACKGROUND_DEADLINE: Duration = Duration::from_secs(300);

/// Pause before a cold tier that did not give an index is asked again.
const INDEX_RETRY: Duration = Duration::from_secs(15);

/// Segments caught up by one reader that misses, before it looks at its deadline again.
const SEARCH_STEP: usize = 16;

impl Inner {
    /// Fills the table and adopts what a crash left. `found` says how far the catalog is good.
    pub(super) fn recover(&self, found: &Found) -> Result<()> {
        let listing = self.hot.list()?;
        let sealed: BTreeSet<_> = listing.sealed.iter().copied().collect();
        let indexes: BTreeSet<_> = listing.indexes.iter().copied().collect();
        let mut records = Vec::new();
        if self.with_catalog(|c| c.for_each_segment(|record| records.push(record))).is_err() {
            // What was read before the failure may be incomplete; the directory is not.
            records.clear();
        }
        for mut record in records {
            let id = record.id;
            if record.hot && !sealed.contains(&id) {
                if record.cold == ColdCopy::Absent {
                    tracing::error!(%id, "the only copy of a segment is gone from the hot tier");
                }
                record.hot = false;
                record.holes = Holes::default();
            } else if !record.hot && sealed.contains(&id) {
                // Staged or not yet removed: what was never written into it are holes.
                record.hot = true;
                record.holes = self.hot.holes(id);
            }
            let disk_bytes = self.segment_disk_bytes(id);
            self.capacity.add(disk_bytes);
            self.table.insert(Segment::new(record, true, disk_bytes));
        }
        for id in sealed.union(&indexes) {
            if !self.table.contains(*id) {
                let hot = sealed.contains(id);
                let cold = if hot { ColdCopy::Absent } else { ColdCopy::Listed };
                self.insert_unrecorded(*id, hot, cold, 0);
            }
        }
        // A rebuild that was cut short has recorded hot segments without their copies.
        let complete = !matches!(found, Found::Wiped(_))
            && self.catalog.read().as_ref().is_some_and(Catalog::is_complete);
        self.cold_unlisted.store(self.cold.is_some() && !complete, Ordering::Relaxed);
        self.plan_sweep(found);
        if !self.config.read_only {
            let (whole, strays): (Vec<_>, Vec<_>) =
                listing.sidecars.iter().partition(|id| sealed.contains(id));
            self.remove_stray_sidecars(&strays)?;
            let whole: BTreeSet<SegmentId> = whole.into_iter().collect();
            for id in self.table.ids(|s| lacks_sidecar(s, whole.contains(&s.record.id))) {
                self.suspect(id, Suspect::HOT);
            }
        }
        self.look_around();
        self.adopt_open_segments(&listing.open)
    }

    fn adopt_open_segments(&self, open: &[SegmentId]) -> Result<()> {
        for &id in open {
            let name = SegmentName { volume: self.config.volume, id };
            self.check_owner(&name)?;
            if self.config.read_only {
                self.read_open_segment(name)?;
                continue;
            }
            let recovered = SegmentWriter::recover(&self.hot.segments(), name)?;
            report_damage(id, &recovered.damaged, &recovered.gaps, &recovered.unreadable);
            let mut writer = recovered.writer;
            writer.set_place(self.possible(writer.place()));
            tracing::info!(%id, blocks = writer.entries().len(), torn_bytes = recovered.torn_bytes,
                "took over a segment that was left open");
            if writer.is_empty() && !recovered.unreadable.is_empty() {
                let aside = writer.set_aside()?;
                tracing::error!(%id, path = %aside.display(), "a segment is unreadable");
            } else if writer.is_empty() {
                writer.discard()?;
            } else {
                self.adopt_open(writer);
            }
        }
        Ok(())
    }

    /// Recovery keeps what belongs to this volume and cuts off the rest: a whole segment of
    /// another volume would look like rest.
    fn check_owner(&self, name: &SegmentName) -> Result<()> {
        let path = self.hot.path(name.id, FileKind::Open);
        let failed = || Error::io(format!("read {}", path.display()));
        let file = File::open(&path).map_err(failed())?;
        let mut page = Vec::new();
        if let Err(error) = file.take(DATA_START).read_to_end(&mut page) {
            tracing::warn!(%error, "the header of {} cannot be read", path.display());
        }
        match SegmentHeader::from_bytes(&page) {
            Ok(header) if header.name != *name => Err(Error::Config(format!(
                "{} belongs to segment {} of volume {:?}",
                path.display(),
                header.name.id,
                header.name.volume
            ))),
            // Torn, damaged or unreadable: its frames still say whose they are.
            _ => Ok(()),
        }
    }

    /// Serves the frames of an open segment as they are.
    fn read_open_segment(&self, name: SegmentName) -> Result<()> {
        let path = self.hot.path(name.id, FileKind::Open);
        let failed = || Error::io(format!("read {}", path.display()));
        let file = File::open(&path).map_err(failed())?;
        let len = file.metadata().map_err(failed())?.len();
        let scan = scan_frames(&file, &name, DATA_START..len.max(DATA_START), true)?;
        let readable = scan.frames.into_iter().filter(|frame| frame.readable != 0);
        let entries = readable.map(|frame| frame.header.entry).collect();
        self.adopt_frames(name.id, Arc::new(file), entries, len);
        Ok(())
    }

    fn segment_disk_bytes(&self, id: SegmentId) -> u64 {
        let kinds = [FileKind::Sealed, FileKind::Sidecar, FileKind::Index];
        kinds.into_iter().map(|kind| self.hot.disk_bytes(id, kind)).sum()
    }

    /// Puts a segment of which nothing but its existence is known into the table.
    fn insert_unrecorded(&self, id: SegmentId, hot: bool, cold: ColdCopy, len: u64) {
        let len = len.max(
            std::fs::metadata(self.hot.path(id, FileKind::Sealed)).map_or(0, |meta| meta.len()),
        );
        let record = SegmentRecord {
            id,
            len,
            blocks: 0,
            data_bytes: 0,
            first_block: BlockId::from_raw(0),
            hot,
            cold,
            dead_bytes: 0,
            holes: Holes::default(),
            settled: false,
            heat: SegmentHeat::default(),
            offered: false,
            place: ParityPlace::Inside,
            parity_bytes: 0,
        };
        let disk_bytes = self.segment_disk_bytes(id);
        self.capacity.add(disk_bytes);
        self.table.insert(Segment::new(record, false, disk_bytes));
    }

    /// Whether every segment is recorded and the cold tier was listed as far as needed.
    pub(super) fn is_caught_up(&self) -> bool {
        !self.cold_unlisted.load(Ordering::Relaxed)
            && self.table.fold(true, |all, segment| all && segment.recorded)
    }

    /// Records what is not recorded yet, oldest first, until done or stopped. Called by the
    /// helper thread.
    pub(super) fn catch_up(&self) {
        if self.catalog.read().as_ref().is_none_or(Catalog::is_broken) {
            return;
        }
        let unrecorded = self.unrecorded();
        let total = unrecorded.len();
        for id in unrecorded {
            if self.is_stopping() {
                return;
            }
            self.catch_up_segment(id, BACKGROUND_DEADLINE);
            self.look_around();
        }
        if total > 0 {
            tracing::info!(total, "segments were recorded in the catalog again");
        }
        if !self.cold_unlisted.load(Ordering::Relaxed) {
            self.note_complete();
        } else {
            match self.list_cold(BACKGROUND_DEADLINE) {
                Ok(_) => self.signals.kick_helper(),
                Err(error) => {
                    tracing::warn!(%error, "the cold tier could not be listed; trying again");
                }
            }
        }
    }

    /// Learns which segments the cold tier holds; returns how many were new.
    fn list_cold(&self, patience: Duration) -> Result<usize> {
        let Some(cold) = &self.cold else { return Ok(0) };
        let deadline = self.config.clock.instant() + patience;
        let mut new = 0;
        cold.list("segments/", deadline, |object| {
            let name = object.key.strip_prefix("segments/").unwrap_or_default();
            let Some((id, FileKind::Sealed)) = SegmentId::parse_file_name(name) else { return };
            let known = self.table.update(id, |segment| {
                if !segment.recorded {
                    segment.record.len = segment.record.len.max(object.len);
                }
            });
            if known.is_some() {
                self.found_in_cold(id);
            } else if !self.is_unsealed(id) {
                self.insert_unrecorded(id, false, ColdCopy::Listed, object.len);
                new += 1;
            }
        })?;
        self.cold_unlisted.store(false, Ordering::Relaxed);
        Ok(new)
    }

    /// Cold holds an object that no record told of.
    pub(super) fn found_in_cold(&self, id: SegmentId) {
        let changed = self.table.update(id, |segment| {
            let was_absent = segment.record.cold == ColdCopy::Absent;
            if was_absent {
                segment.record.cold = ColdCopy::Listed;
                // What the local copy could not tell, this one may.
                segment.unreadable = false;
                segment.retry_at = None;
            }
            was_absent
        });
        if changed == Some(true) {
            self.learn_holes(id);
            self.record_state(id);
        }
    }

    /// Which frames of a hot file are holes, as a catalog that is gone knew it: those that the disk
    /// has not, and that do not verify. Only where cold holds them: elsewhere that is damage.
    fn learn_holes(&self, id: SegmentId) {
        let is_whole = |s: &Segment| s.record.hot && s.record.holes.is_empty();
        let on_disk = match self.table.with(id, is_whole) {
            Some(true) => self.hot.holes(id),
            _ => return,
        };
        if on_disk.is_empty() {
            return;
        }
        let name = SegmentName { volume: self.config.volume, id };
        let (Ok(file), Ok(index)) = (self.hot.open_sealed(id), self.hot.read_index(&name)) else {
            return;
        };
        let mut holes = Holes::default();
        for entry in index.entries() {
            let frame = entry.frame_range();
            if on_disk.touches(frame.start, frame.end) && !is_sound(file.as_ref(), &name, entry) {
                holes.insert(frame.start, frame.end);
            }
        }
        self.table.update(id, |segment| {
            if is_whole(segment) {
                segment.record.holes = holes;
            }
        });
    }

    /// Once everything is recorded the catalog may say so; a later open need not list cold again.
    fn note_complete(&self) {
        if self.is_caught_up()
            && let Err(error) = self.with_catalog(Catalog::mark_complete)
        {
            tracing::warn!(%error, "the catalog could not be marked complete");
        }
    }

    /// Reads one segment's index and records it. Failing leaves it unrecorded and says so once.
    fn catch_up_segment(&self, id: SegmentId, patience: Duration) {
        let cold_before = self.table.with(id, |segment| segment.record.cold);
        let index = match self.load_index(id, patience) {
            Ok(index) => index,
            Err(error) => {
                let passing = may_pass(&error);
                let retry_at = self.config.clock.instant() + INDEX_RETRY;
                self.table.update(id, |segment| {
                    // A copy that cold was found to hold meanwhile has not been tried yet.
                    if Some(segment.record.cold) == cold_before {
                        segment.unreadable = !passing;
                        segment.retry_at = Some(retry_at);
                    }
                });
                tracing::warn!(%id, %error, "the index of a segment could not be read");
                return;
            }
        };
        let entries = index.entries();
        let record = self.table.update(id, |segment| {
            segment.record.len = index.trailer().file_len;
            segment.record.place = index.trailer().place;
            segment.record.parity_bytes = index.trailer().parity_bytes();
            segment.record.first_block = first_block(entries);
            segment.record.blocks = entries.len() as u32;
            segment.record.data_bytes = entries.iter().map(IndexEntry::frame_len).sum();
            segment.record.clone()
        });
        let Some(record) = record else { return };
        let has_sidecar = self.hot.path(id, FileKind::Sidecar).exists();
        if self.table.with(id, |segment| lacks_sidecar(segment, has_sidecar)) == Some(true) {
            self.suspect(id, Suspect::HOT);
        }
        if self.with_catalog(|catalog| catalog.record_segment(&record, entries)).is_ok() {
            // A reader and the background may have met here; it counts once.
            let twice = self.table.update(id, |s| std::mem::replace(&mut s.recorded, true));
            if twice == Some(false) {
                add(&self.counters.caught_up_segments, 1);
            }
        }
    }

    /// The index of a sealed segment, from hot or, once, from cold; then it stays here.
    pub(super) fn load_index(&self, id: SegmentId, patience: Duration) -> Result<SegmentIndex> {
        let name = SegmentName { volume: self.config.volume, id };
        let error = match self.hot.read_index(&name) {
            Ok(index) => return Ok(index),
            Err(error) => error,
        };
        let record = self.table.record(id);
        let Some(cold) = &self.cold else { return Err(error) };
        if record.as_ref().is_none_or(|record| record.cold == ColdCopy::Absent) {
            return Err(error);
        }
        let deadline = self.config.clock.instant() + patience;
        let key = id.object_key();
        // A damaged local file may have another length than the object.
        let head = {
            let key = key.clone();
            cold.call(deadline, "reading from the cold tier", move |tier| {
                Box::pin(async move { tier.head(&key).await })
            })?
        };
        let mut fetch = IndexFetch::new(name, head.len);
        let index = loop {
            let want = fetch.wanted();
            let bytes = cold.get_range(key.clone(), want, deadline)?;
            if let Some(index) = fetch.feed(&bytes)? {
                break index;
            }
        };
        if !self.config.read_only {
            self.keep_index(&index);
        }
        Ok(index)
    }

    /// Keeps an index beside the data it outlives; without room it is fetched again next time.
    pub(super) fn keep_index(&self, index: &SegmentIndex) {
        let id = index.name().id;
        if let Err(error) = self.hot.write_idx(index) {
            tracing::warn!(%id, %error, "an index could not be kept in the hot tier");
        }
        self.recount(id);
    }

    /// Counts a segment's files again, as the disk does.
    pub(super) fn recount(&self, id: SegmentId) {
        let now = self.segment_disk_bytes(id);
        let before = self.table.update(id, |s| std::mem::replace(&mut s.disk_bytes, now));
        if let Some(before) = before {
            self.capacity.exchange(before, now);
        }
    }

    /// Where the catalog says a block lies, once everything that may hold it is recorded; `None`
    /// when no segment in any tier lists it.
    pub(super) fn locate(&self, block: BlockId, wait: Wait) -> Result<Option<BlockRecord>> {
        let deadline = self.cold_deadline(wait);
        loop {
            match self.with_catalog(|catalog| catalog.lookup(block)) {
                Ok(None) => {}
                Ok(found) => return Ok(found),
                Err(_) => return self.locate_in_indexes(block, wait),
            }
            let deadline = *deadline.as_ref().map_err(|_| Error::WouldWait)?;
            // One search at a time: they all read the same indexes.
            let _one = self.search_turn(deadline)?;
            let unrecorded = self.unrecorded();
            if unrecorded.is_empty() {
                if !self.cold_unlisted.load(Ordering::Relaxed) {
                    // What another search recorded while this one waited for its turn counts.
                    return self.with_catalog(|catalog| catalog.lookup(block));
                }
                self.list_cold(self.remaining(deadline)?)?;
                continue;
            }
            for id in self.probes(&unrecorded, block) {
                self.catch_up_segment(id, self.remaining(deadline)?);
            }
        }
    }

    /// The right to search, once nobody else has it.
    fn search_turn(&self, deadline: Instant) -> Result<MutexGuard<'_, ()>> {
        loop {
            if let Some(turn) = self.searching.try_lock_for(CLOCK_SLICE) {
                return Ok(turn);
            }
            self.remaining(deadline)?;
        }
    }

    /// The time that a search has left.
    fn remaining(&self, deadline: Instant) -> Result<Duration> {
        let left = deadline.saturating_duration_since(self.config.clock.instant());
        if left.is_zero() {
            return Err(Error::TimedOut("searching the segments for a block"));
        }
        Ok(left)
    }

    /// As [`Inner::locate`], without a catalog.
    fn locate_in_indexes(&self, block: BlockId, wait: Wait) -> Result<Option<BlockRecord>> {
        let deadline = self.cold_deadline(wait)?;
        for id in nearest_first(&self.table.ids(|_| true), block) {
            let Ok(index) = self.load_index(id, self.remaining(deadline)?) else { continue };
            if let Some(entry) = index.find(block).first() {
                return Ok(Some(BlockRecord { segment: id, entry: entry.clone() }));
            }
        }
        Ok(None)
    }

    /// Looks for a block in everything there is. The catalog missed it, named something else, or
    /// what it named is damaged.
    pub(super) fn search(
        &self,
        block: &BlockRef,
        want: &Want,
        wait: Wait,
        mut tried: Tried,
    ) -> Result<Served> {
        let deadline = self.cold_deadline(wait)?;
        let wait = Wait::Until(deadline);
        if let Some(record) = self.locate(block.id, wait)?
            && let Some(served) = self.read_record(&record, block, want, wait, &mut tried)?
        {
            return Ok(served);
        }
        if self.cold_unlisted.load(Ordering::Relaxed) {
            self.list_cold(self.remaining(deadline)?)?;
        }
        self.search_indexes(block, want, deadline, tried)
    }

    /// Segments whose index is still to be recorded and can be read as far as is known.
    pub(super) fn unrecorded(&self) -> Vec<SegmentId> {
        let now = self.config.clock.instant();
        self.table.ids(|segment| {
            !segment.recorded
                && !segment.unreadable
                && segment.retry_at.is_none_or(|retry_at| retry_at <= now)
        })
    }

    /// The unrecorded segments to look into next: where the block's id belongs between the ids
    /// that recorded segments begin with, and a few around it.
    fn probes(&self, unrecorded: &[SegmentId], block: BlockId) -> Vec<SegmentId> {
        let bounds = self.table.fold((None, None), |(below, above), segment| {
            let id = segment.record.id;
            if !segment.recorded || segment.record.blocks == 0 {
                (below, above)
            } else if segment.record.first_block <= block {
                (below.max(Some(id)), above)
            } else {
                (below, Some(above.map_or(id, |above: SegmentId| above.min(id))))
            }
        });
        let between: Vec<_> = unrecorded
            .iter()
            .copied()
            .filter(|id| bounds.0.is_none_or(|b| *id > b) && bounds.1.is_none_or(|a| *id < a))
            .collect();
        match between.len() {
            0 => nearest_first(unrecorded, block).into_iter().take(SEARCH_STEP).collect(),
            count if count <= 2 => between,
            count => vec![between[count / 2]],
        }
    }

    /// Reads every index, for blocks that stand in several segments or a catalog that failed.
    fn search_indexes(
        &self,
        block: &BlockRef,
        want: &Want,
        deadline: Instant,
        mut tried: Tried,
    ) -> Result<Served> {
        let wait = Wait::Until(deadline);
        tried.desperate = true;
        for id in nearest_first(&self.table.ids(|_| true), block.id) {
            let index = match self.load_index(id, self.remaining(deadline)?) {
                Ok(index) => index,
                Err(error) => {
                    tried.missed(id, error);
                    continue;
                }
            };
            for entry in index.find(block.id) {
                let record = BlockRecord { segment: id, entry: entry.clone() };
                if let Some(served) = self.read_record(&record, block, want, wait, &mut tried)? {
                    return Ok(served);
                }
            }
        }
        // It may have been appended or moved while the indexes were read, and sealed since: then
        // the catalog knows it before it leaves the unsealed ones.
        if let Some(served) = self.read_unsealed(block, want, &mut tried) {
            return Ok(served);
        }
        if let Ok(Some(record)) = self.with_catalog(|catalog| catalog.lookup(block.id))
            && let Some(served) = self.read_record(&record, block, want, wait, &mut tried)?
        {
            return Ok(served);
        }
        if let Some(served) = self.rescue(block, want, deadline, &mut tried) {
            return Ok(served);
        }
        let error = tried.verdict(block);
        tracing::error!(block = %block.id, %error, "a block could not be read from any tier");
        Err(error)
    }
}

/// Whether an index that could not be read may be readable later: a tier or a disk that failed is
/// not damage, a file that is gone or cut off is.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::Cold { .. } | Error::TimedOut(_) => true,
        Error::Io { source, .. } => {
            !matches!(source.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof)
        }
        _ => false,
    }
}

/// Segments in the order in which they are likely to hold the block: ids of both grow with time.
fn nearest_first(segments: &[SegmentId], block: BlockId) -> Vec<SegmentId> {
    let mut ordered = segments.to_vec();
    ordered.sort_by_key(|id| (id.epoch().0.abs_diff(block.epoch().0), std::cmp::Reverse(*id)));
    ordered
}

/// Whether the frame is there as it was written.
fn is_sound(file: &File, name: &SegmentName, entry: &IndexEntry) -> bool {
    let mut frame = vec![0; entry.frame_len() as usize];
    ReadAt::read_exact_at(file, &mut frame, entry.offset).is_ok()
        && verify_frame(name, entry.offset, &frame).is_ok()
}

fn report_damage(
    id: SegmentId,
    damaged: &[ScannedFrame],
    gaps: &[Range<u64>],
    unreadable: &[Range<u64>],
) {
    for frame in damaged {
        tracing::warn!(%id, block = %frame.header.entry.id, "a frame is damaged in part");
    }
    if !unreadable.is_empty() {
        tracing::error!(%id, ?unreadable, "the disk does not read parts of a segment");
    }
    if !gaps.is_empty() {
        tracing::warn!(%id, ?gaps, "no frames in parts of a segment");
    }
}

/// The lowest block id of a segment, which is sorted by id.
pub(super) fn first_block(entries: &[IndexEntry]) -> BlockId {
    entries.first().map_or(BlockId::from_raw(0), |entry| entry.id)
}
