//! The way out: cache, unsealed segment, hot file, cold object, and at last everything there is.
//!
//! Every byte leaves through [`CellRead::open`] or, as stored, through [`CellRead::export`]; both
//! verify it against the digest in the caller's hand; whatever the maps say is a hint. Damage or absence in one place leads to the
//! next place; only when all were tried is a block [`Error::Lost`]. Nothing here changes state,
//! so a crash or a cancelled read leaves nothing behind.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::block::{BlockRef, CELL_LEN, MAX_EXPORT_LEN};
use crate::blocks::{Intent, Served, Source, Wait};
use crate::buffers::Buffer;
use crate::catalog::{BlockRecord, ColdCopy};
use crate::error::{Error, Result};
use crate::readahead::ReadAhead;
use crate::segment::{CellRead, IndexEntry, SegmentId, Verified};

use super::Inner;
use super::cache::CellKey;
use super::cold::{Cold, Extent, Upcoming};
use super::repair::Suspect;
use super::signals::add;

/// What was tried for a block, for the error when nothing worked.
#[derive(Default)]
pub(super) struct Tried {
    notes: Vec<String>,
    /// The last failure that may pass: a cold tier that does not answer is not a lost block.
    passing: Option<Error>,
    /// Cold is asked even for what no record says it holds.
    pub(super) desperate: bool,
    /// Where the block stands damaged: parity may still help.
    pub(super) damaged: Vec<BlockRecord>,
}

impl Tried {
    pub(super) fn note(&mut self, place: &str, error: Error) {
        self.notes.push(format!("{place}: {}", chain(&error)));
        if matches!(error, Error::Cold { .. } | Error::TimedOut(_)) {
            self.passing = Some(error);
        }
    }

    fn is_damaged(&mut self, record: &BlockRecord) {
        if self.damaged.iter().all(|known| known.segment != record.segment) {
            self.damaged.push(record.clone());
        }
    }

    /// Notes an index that could not be read.
    pub(super) fn missed(&mut self, segment: SegmentId, error: Error) {
        self.note(&format!("index of segment {segment}"), error);
    }

    /// The error when there is no time for what was not tried: the block may well be somewhere.
    fn out_of_time(self) -> Error {
        self.passing.unwrap_or(Error::TimedOut("looking for a block"))
    }

    /// The error after everything was tried.
    pub(super) fn verdict(self, block: &BlockRef) -> Error {
        if let Some(error) = self.passing {
            return error;
        }
        let reason = if self.notes.is_empty() {
            "no segment in any tier holds it".to_owned()
        } else {
            self.notes.join("; ")
        };
        Error::Lost { id: block.id, reason }
    }
}

/// An error with its causes on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Whether a copy is there and cannot be used.
fn is_damage(error: &Error) -> bool {
    matches!(error, Error::Damaged { .. } | Error::Io { .. })
}

/// What of a block is wanted.
pub(super) enum Want {
    /// These bytes of its plaintext.
    Plain(Range<u32>, Intent),
    /// All of it, as it is stored.
    Stored,
}

impl Want {
    /// Whether it says that somebody needs the block here.
    fn is_use(&self) -> bool {
        // A block that travels to another volume says nothing about that.
        matches!(self, Self::Plain(_, Intent::Part | Intent::SmallFile | Intent::Block))
    }

    fn is_upkeep(&self) -> bool {
        matches!(self, Self::Plain(_, Intent::Upkeep))
    }

    pub(super) fn plan(&self, entry: &IndexEntry) -> Result<CellRead> {
        match self {
            Self::Plain(range, _) => entry.cell_range(range.clone()),
            Self::Stored => Ok(entry.whole()),
        }
    }
}

impl Inner {
    pub(super) fn read(
        &self,
        block: &BlockRef,
        range: Range<u32>,
        intent: Intent,
        wait: Wait,
    ) -> Result<Served> {
        if range.start > range.end || range.end > block.len {
            return Err(Error::Damaged {
                what: "block range",
                reason: format!("{range:?} of {} bytes", block.len),
            });
        }
        if range.is_empty() {
            return Ok(Served { bytes: Bytes::new(), source: Source::Memory });
        }
        if let Some(bytes) = self.read_cached(block, &range) {
            self.counters.read_cached(bytes.len());
            return Ok(Served { bytes, source: Source::Memory });
        }
        self.find(block, &Want::Plain(range, intent), wait)
    }

    /// The block as stored, in the form in which it travels to another volume.
    pub(super) fn export(&self, block: &BlockRef, wait: Wait) -> Result<Bytes> {
        self.find(block, &Want::Stored, wait).map(|served| served.bytes)
    }

    /// Has the cold tier asked for what a reader wants next; see [`crate::Blocks::will_read`].
    pub(super) fn will_read(
        &self,
        reader: &mut ReadAhead,
        ahead: u64,
        next: &mut dyn FnMut() -> Option<BlockRef>,
    ) {
        if let Some(cold) = &self.cold {
            cold.look_ahead(reader, ahead, &mut || next().map(|block| self.upcoming(&block)));
        }
    }

    /// Where the block lies, if that is in cold only.
    fn upcoming(&self, block: &BlockRef) -> Option<Upcoming> {
        let record = self.with_catalog(|catalog| catalog.lookup(block.id)).ok()??;
        let frame = record.entry.frame_range();
        let in_cold = self.table.with(record.segment, |segment| {
            let record = &segment.record;
            (!record.hot || record.holes.touches(frame.start, frame.end))
                && record.cold != ColdCopy::Absent
        })?;
        let wanted = in_cold && record.entry.digest == block.digest;
        (wanted && bounded_len(&frame).is_ok()).then(|| Upcoming {
            segment: record.segment,
            frame,
            stored_len: u64::from(record.entry.stored_len),
            plain_len: u64::from(block.len),
        })
    }

    /// Reads from wherever the block is.
    fn find(&self, block: &BlockRef, want: &Want, wait: Wait) -> Result<Served> {
        let mut tried = Tried::default();
        if let Some(served) = self.read_unsealed(block, want, &mut tried) {
            return Ok(served);
        }
        // One deadline for all that is tried.
        let wait = match wait {
            Wait::No => Wait::No,
            _ if want.is_upkeep() => Wait::No,
            wait => Wait::Until(self.cold_deadline(wait)?),
        };
        match self.with_catalog(|catalog| catalog.lookup(block.id)) {
            Ok(Some(record)) => {
                if let Some(served) = self.read_record(&record, block, want, wait, &mut tried)? {
                    return Ok(served);
                }
            }
            Ok(None) => {}
            Err(error) => tried.note("catalog", error),
        }
        match wait {
            Wait::No => Err(Error::WouldWait),
            // What took all the time there was is the answer, not what a last look might bring.
            Wait::Until(deadline) if self.config.clock.instant() >= deadline => {
                Err(tried.out_of_time())
            }
            _ => self.search(block, want, wait, tried),
        }
    }

    /// Reads from a segment that is not sealed yet, if one holds the block.
    pub(super) fn read_unsealed(
        &self,
        block: &BlockRef,
        want: &Want,
        tried: &mut Tried,
    ) -> Option<Served> {
        let (file, segment, entry) = self.find_unsealed(block.id)?;
        let result = self.read_file(&file, &entry, block, want);
        result
            .map(|bytes| Served { bytes, source: Source::Hot })
            .map_err(|error| self.note_damage(tried, &format!("unsealed segment {segment}"), error))
            .ok()
    }

    /// Reads from wherever the segment of `record` is; `None` when that did not work.
    pub(super) fn read_record(
        &self,
        record: &BlockRecord,
        block: &BlockRef,
        want: &Want,
        wait: Wait,
        tried: &mut Tried,
    ) -> Result<Option<Served>> {
        let (segment, entry) = (record.segment, &record.entry);
        if entry.digest != block.digest || entry.plain_len != block.len {
            tried.notes.push(format!("segment {segment}: holds another block of this id"));
            return Ok(None);
        }
        let frame = entry.frame_range();
        let read_s = want.is_use().then(|| self.now_s());
        let Some(places) = self.table.places(segment, frame.start, frame.end, read_s) else {
            return Ok(None);
        };
        if places.hot {
            match self.read_hot(segment, entry, block, want) {
                Ok(bytes) => return Ok(Some(Served { bytes, source: Source::Hot })),
                Err(error) => {
                    if is_damage(&error) {
                        tried.is_damaged(record);
                        self.suspect(segment, Suspect::HOT);
                    }
                    self.note_damage(tried, &format!("hot segment {segment}"), error);
                }
            }
        }
        if want.is_upkeep() {
            return Err(Error::WouldWait);
        }
        if !places.cold && (self.cold.is_none() || !tried.desperate) {
            return Ok(None);
        }
        match self.read_cold(segment, entry, block, want, wait) {
            Ok(bytes) => {
                if !places.cold {
                    self.found_in_cold(segment);
                }
                Ok(Some(Served { bytes, source: Source::Cold }))
            }
            Err(Error::WouldWait) => Err(Error::WouldWait),
            Err(error) => {
                let is_gone = places.cold && matches!(error, Error::NotFound(_));
                if is_gone || matches!(error, Error::Damaged { .. }) {
                    tried.is_damaged(record);
                    self.suspect(segment, Suspect::COLD);
                }
                self.note_damage(tried, &format!("cold segment {segment}"), error);
                Ok(None)
            }
        }
    }

    fn note_damage(&self, tried: &mut Tried, place: &str, error: Error) {
        if is_damage(&error) {
            add(&self.counters.damaged_reads, 1);
            tracing::warn!(place, error = %chain(&error), "a stored copy could not be read");
        }
        tried.note(place, error);
    }

    fn read_hot(
        &self,
        segment: SegmentId,
        entry: &IndexEntry,
        block: &BlockRef,
        want: &Want,
    ) -> Result<Bytes> {
        let file =
            self.hot.open_sealed(segment).map_err(Error::io(format!("open segment {segment}")))?;
        self.read_file(&file, entry, block, want)
    }

    fn read_file(
        &self,
        file: &Arc<File>,
        entry: &IndexEntry,
        block: &BlockRef,
        want: &Want,
    ) -> Result<Bytes> {
        let read = want.plan(entry)?;
        let stored = read.stored();
        let len = bounded_len(&stored)?;
        let mut bytes = Buffer::with_capacity(len);
        bytes
            .read_at(file, len, stored.start)
            .map_err(Error::io(format!("read block {}", block.id)))?;
        let taken = self.take(block, &read, want, &bytes)?;
        self.counters.read_hot(taken.len());
        Ok(taken)
    }

    fn read_cold(
        &self,
        segment: SegmentId,
        entry: &IndexEntry,
        block: &BlockRef,
        want: &Want,
        wait: Wait,
    ) -> Result<Bytes> {
        let Some(cold) = &self.cold else {
            return Err(Error::NotFound(segment.object_key()));
        };
        let read = want.plan(entry)?;
        let stored = read.stored();
        bounded_len(&stored)?;
        self.note_neighbours(cold, segment, &stored, want);
        if let Some(bytes) = cold.fetched(segment, &stored) {
            match self.take(block, &read, want, &bytes) {
                Ok(taken) => {
                    self.counters.read_cold(taken.len());
                    return Ok(taken);
                }
                Err(_) => cold.forget(segment, &stored),
            }
        }
        let deadline = self.cold_deadline(wait)?;
        // With its header a whole block can be joined by who brings it back to hot.
        let frame =
            if stored == entry.payload_range() { entry.frame_range() } else { stored.clone() };
        bounded_len(&frame)?;
        let wanted = (stored.start - frame.start) as usize..(stored.end - frame.start) as usize;
        let mut last = None;
        // A body that arrived damaged says little about what is stored: ask once more.
        for _ in 0..2 {
            let bytes = cold.fetch(segment, &frame, deadline)?;
            match self.take(block, &read, want, &bytes[wanted.clone()]) {
                Ok(taken) => {
                    self.counters.read_cold(taken.len());
                    return Ok(taken);
                }
                Err(error) => {
                    cold.forget(segment, &stored);
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or(Error::TimedOut("reading from the cold tier")))
    }

    /// Lets the cold tier recognise who reads what lies side by side.
    fn note_neighbours(&self, cold: &Cold, segment: SegmentId, stored: &Range<u64>, want: &Want) {
        let extent = match want {
            Want::Plain(_, Intent::Part | Intent::Upkeep) => return,
            Want::Plain(_, Intent::SmallFile) => Extent::PackedFile,
            Want::Plain(_, Intent::Block) | Want::Stored => Extent::Block,
        };
        let len = self.table.with(segment, |s| s.record.len).unwrap_or(stored.end);
        cold.note_neighbours(segment, stored, len, extent);
    }

    /// The range out of cached cells, if all are there.
    fn read_cached(&self, block: &BlockRef, range: &Range<u32>) -> Option<Bytes> {
        let cell_len = CELL_LEN as u32;
        let (first, last) = (range.start / cell_len, (range.end - 1) / cell_len);
        let key = |cell| CellKey { block: block.id, cell };
        if first == last {
            let cell = self.cache.get(key(first), &block.digest)?;
            let start = (range.start - first * cell_len) as usize;
            let end = (range.end - first * cell_len) as usize;
            return (end <= cell.len()).then(|| cell.slice(start..end));
        }
        if !(first..=last).all(|cell| self.cache.contains(key(cell), &block.digest)) {
            return None;
        }
        let mut out = BytesMut::with_capacity(range.len());
        for number in first..=last {
            let cell = self.cache.get(key(number), &block.digest)?;
            let base = number * cell_len;
            let start = range.start.saturating_sub(base) as usize;
            let end = ((range.end - base) as usize).min(cell.len());
            out.extend_from_slice(cell.get(start..end)?);
        }
        (out.len() == range.len()).then(|| out.freeze())
    }

    /// Verifies stored bytes and takes out of them what is wanted. Of the cells that were wanted
    /// in part the rest is likely to be wanted next and is kept; whole ones go to the kernel's
    /// cache.
    pub(super) fn take(
        &self,
        block: &BlockRef,
        read: &CellRead,
        want: &Want,
        stored: &[u8],
    ) -> Result<Bytes> {
        let Want::Plain(wanted, _) = want else { return read.export(block, stored) };
        let verified = read.open(block, stored)?;
        for (cell, range) in cells_of(read, block) {
            let partial = range.start < wanted.start || range.end > wanted.end;
            if partial && want.is_use() {
                self.keep_cell(block, cell, &verified, range);
            }
        }
        slice(&verified, wanted)
    }

    fn keep_cell(&self, block: &BlockRef, cell: u32, verified: &Verified, range: Range<u32>) {
        let whole = verified.range();
        if let Some(part) = verified.slice(range) {
            // A slice would keep the whole read alive beyond what the cache counts.
            let own = if whole.len() == part.len() { part } else { Bytes::copy_from_slice(&part) };
            self.cache.put(CellKey { block: block.id, cell }, block.digest, own);
        }
    }
}

/// The cells of a read: number and plaintext range.
fn cells_of(read: &CellRead, block: &BlockRef) -> impl Iterator<Item = (u32, Range<u32>)> {
    let (len, cell_len) = (block.len, CELL_LEN as u32);
    read.cells().map(move |cell| {
        let start = cell as u32 * cell_len;
        (cell as u32, start..len.min(start.saturating_add(cell_len)))
    })
}

fn slice(verified: &Verified, range: &Range<u32>) -> Result<Bytes> {
    verified.slice(range.clone()).ok_or_else(|| Error::Damaged {
        what: "frame",
        reason: format!("its cells do not cover {range:?}"),
    })
}

/// Longest run of stored bytes one block can have, with room for headers.
const MAX_STORED: u64 = MAX_EXPORT_LEN as u64;

/// Entries are hints: a length that no block has is damage, not an allocation.
pub(super) fn bounded_len(stored: &Range<u64>) -> Result<usize> {
    let len = stored.end.saturating_sub(stored.start);
    if len == 0 || len > MAX_STORED {
        return Err(Error::Damaged { what: "block entry", reason: format!("{len} stored bytes") });
    }
    Ok(len as usize)
}
