//! What was done to a file and is not yet in the namespace: an ordered map of byte ranges.
//!
//! Reads look here first and in the committed extents for what is missing here; a write never
//! needs to know what it replaces. Every change carries a sequence number, so that a commit, which
//! works on a snapshot, afterwards drops exactly what it committed and nothing that came later.
//!
//! *Crash*: nothing here survives one. A commit takes all spans of a file at one instant, so that
//! the committed state of a file is always a state that it once had.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use firn_tiering::Buffer;

use super::job::EncodeJob;
use super::pins::StoredBlock;
use super::{MAX_FILE_LEN, SLOT_LEN};

/// Memory charged for a span beside its bytes.
const SPAN_OVERHEAD: u64 = 128;

/// Two writes to a slot in a row and this many bytes make the next growth reserve the whole slot.
const LARGE_BUFFER: usize = 256 << 10;

/// What a range of a file holds now.
#[derive(Clone, Debug)]
pub(crate) enum Fill {
    /// Bytes in the slot's growing buffer, from this offset in it.
    Active {
        /// Where in the buffer.
        at: u32,
    },
    /// Bytes that nothing appends to any more.
    Buffered(Bytes),
    /// Bytes on their way through an encoder.
    Encoding {
        /// Who encodes, and the plaintext.
        job: Arc<EncodeJob>,
        /// Where in the job's plaintext.
        at: u32,
    },
    /// Bytes of a block that was appended, or that another file's extent names already.
    Stored {
        /// The block, kept from being freed.
        block: Arc<StoredBlock>,
        /// Where in the block's plaintext.
        at: u32,
    },
    /// Nothing: reads as zeros, replaces what was committed.
    Hole,
    /// Allocated, reads as zeros.
    Unwritten,
}

impl Fill {
    /// The fill from `by` bytes on.
    fn skip(&self, by: u64) -> Self {
        match self {
            Self::Active { at } => Self::Active { at: at + by as u32 },
            Self::Buffered(bytes) => Self::Buffered(bytes.slice(by as usize..)),
            Self::Encoding { job, at } => {
                Self::Encoding { job: Arc::clone(job), at: at + by as u32 }
            }
            Self::Stored { block, at } => {
                Self::Stored { block: Arc::clone(block), at: at + by as u32 }
            }
            Self::Hole => Self::Hole,
            Self::Unwritten => Self::Unwritten,
        }
    }

    /// Both parts, cut after `len` bytes.
    pub(crate) fn split_at(mut self, len: u64) -> (Self, Self) {
        let tail = self.skip(len);
        self.shorten(len);
        (self, tail)
    }

    fn shorten(&mut self, len: u64) {
        if let Self::Buffered(bytes) = self {
            bytes.truncate(len as usize);
        }
    }

    /// Reads see bytes here, not zeros.
    pub(crate) fn is_data(&self) -> bool {
        !matches!(self, Self::Hole | Self::Unwritten)
    }

    /// Counts in `st_blocks`.
    pub(crate) fn is_allocated(&self) -> bool {
        !matches!(self, Self::Hole)
    }

    /// Memory charged for `len` bytes of this.
    fn weight(&self, len: u64) -> u64 {
        match self {
            Self::Buffered(_) | Self::Encoding { .. } => len + SPAN_OVERHEAD,
            // The buffer behind active spans is charged as a whole.
            Self::Active { .. } | Self::Stored { .. } | Self::Hole | Self::Unwritten => {
                SPAN_OVERHEAD
            }
        }
    }
}

/// A run of bytes of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    /// Bytes.
    pub(crate) len: u64,
    /// When it was put here.
    pub(crate) seq: u64,
    /// What it is.
    pub(crate) fill: Fill,
}

/// A range of a lookup: what the overlay knows, or nothing.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Bytes of the file.
    pub(crate) range: Range<u64>,
    /// What they are; `None` where the committed extents decide.
    pub(crate) fill: Option<Fill>,
}

/// The overlay of one file.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    spans: BTreeMap<u64, Span>,
    active: BTreeMap<u64, Buffer>,
    seq: u64,
    weight: u64,
    allocated: u64,
}

impl Overlay {
    /// Nothing is uncommitted.
    pub(crate) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Spans held.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    /// Sequence number of the latest change.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// Bytes of memory held.
    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    /// Bytes that are not holes: most that a commit adds to the file.
    pub(crate) fn allocated(&self) -> u64 {
        self.allocated
    }

    /// All spans in file order.
    pub(crate) fn spans(&self) -> impl Iterator<Item = (u64, &Span)> {
        self.spans.iter().map(|(start, span)| (*start, span))
    }

    /// Puts `data` at `offset`. Returns the slots whose growing buffer is now full.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> Vec<u64> {
        let mut full = Vec::new();
        let mut offset = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let slot = offset / SLOT_LEN;
            let room = ((slot + 1) * SLOT_LEN - offset) as usize;
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.write_slot(slot, offset, now);
            if self.active.get(&slot).is_some_and(|buffer| buffer.len() as u64 >= SLOT_LEN) {
                full.push(slot);
            }
            offset += now.len() as u64;
            rest = later;
        }
        full
    }

    fn write_slot(&mut self, slot: u64, offset: u64, data: &[u8]) {
        self.seq += 1;
        if self.overwrite_active(slot, offset, data) {
            return;
        }
        let end = offset + data.len() as u64;
        self.cut(offset..end);
        if let Some(buffer) = self.active.get(&slot)
            && buffer.len() + data.len() > SLOT_LEN as usize
        {
            self.freeze(slot);
        }
        let buffer = self.active.entry(slot).or_default();
        let before = buffer.capacity();
        let at = buffer.len();
        if buffer.capacity() - at < data.len() {
            let want = match at {
                0 => data.len(),
                _ if at + data.len() >= LARGE_BUFFER => SLOT_LEN as usize - at,
                _ => data.len().max(at),
            };
            buffer.reserve(want.max(data.len()));
        }
        buffer.extend_from_slice(data);
        self.weight += (buffer.capacity() - before) as u64;
        self.insert_active(offset, data.len() as u64, at as u32);
    }

    /// Overwrites in place where the whole range lies in one span that still grows.
    fn overwrite_active(&mut self, slot: u64, offset: u64, data: &[u8]) -> bool {
        let Some((start, span)) = self.spans.range_mut(..=offset).next_back() else { return false };
        let Fill::Active { at } = span.fill else { return false };
        let Some(buffer) = self.active.get_mut(&slot) else { return false };
        if start / SLOT_LEN != slot || offset + data.len() as u64 > start + span.len {
            return false;
        }
        let from = at as usize + (offset - start) as usize;
        buffer[from..from + data.len()].copy_from_slice(data);
        span.seq = self.seq;
        true
    }

    /// Adds an active span, or lengthens the one before it where both file and buffer continue.
    fn insert_active(&mut self, offset: u64, len: u64, at: u32) {
        self.allocated += len;
        if let Some((start, span)) = self.spans.range_mut(..offset).next_back()
            && let Fill::Active { at: before } = span.fill
            && start + span.len == offset
            && start / SLOT_LEN == offset / SLOT_LEN
            && u64::from(before) + span.len == u64::from(at)
        {
            span.len += len;
            span.seq = self.seq;
            return;
        }
        self.weight += SPAN_OVERHEAD;
        self.spans.insert(offset, Span { len, seq: self.seq, fill: Fill::Active { at } });
    }

    /// Makes `range` what `fill` says. Data must not cross a slot.
    pub(crate) fn put(&mut self, range: Range<u64>, fill: Fill) {
        debug_assert!(!fill.is_data() || range.start / SLOT_LEN == (range.end - 1) / SLOT_LEN);
        if range.is_empty() {
            return;
        }
        self.seq += 1;
        self.cut(range.clone());
        let span = Span { len: range.end - range.start, seq: self.seq, fill };
        self.add(range.start, span);
    }

    /// Puts `bytes`, which lie within one slot from `start` on, where nothing else is.
    pub(crate) fn fill_gaps(&mut self, start: u64, bytes: &Bytes) {
        for found in self.lookup(start..start + bytes.len() as u64) {
            if found.fill.is_none() {
                let from = (found.range.start - start) as usize;
                let to = (found.range.end - start) as usize;
                self.put(found.range, Fill::Buffered(bytes.slice(from..to)));
            }
        }
    }

    /// What lies at `pos`, and how far before `limit` it reaches.
    pub(crate) fn at(&self, pos: u64, limit: u64) -> (u64, Option<&Fill>) {
        if let Some((start, span)) = self.spans.range(..=pos).next_back()
            && start + span.len > pos
        {
            return ((start + span.len).min(limit), Some(&span.fill));
        }
        let next = self.spans.range(pos..limit).next().map_or(limit, |(start, _)| *start);
        (next, None)
    }

    /// Drops everything from `size` on and covers what is committed there.
    pub(crate) fn truncate(&mut self, size: u64) {
        self.put(size..MAX_FILE_LEN, Fill::Hole);
    }

    fn add(&mut self, start: u64, span: Span) {
        self.weight += span.fill.weight(span.len);
        self.allocated += if span.fill.is_allocated() { span.len } else { 0 };
        self.spans.insert(start, span);
    }

    fn remove(&mut self, start: u64) -> Option<Span> {
        let span = self.spans.remove(&start)?;
        self.weight -= span.fill.weight(span.len);
        self.allocated -= if span.fill.is_allocated() { span.len } else { 0 };
        Some(span)
    }

    /// Makes `at` a boundary between spans.
    fn split(&mut self, at: u64) {
        let Some((&start, span)) = self.spans.range(..at).next_back() else { return };
        if start + span.len <= at {
            return;
        }
        let Some(mut head) = self.remove(start) else { return };
        let tail =
            Span { len: start + head.len - at, seq: head.seq, fill: head.fill.skip(at - start) };
        head.len = at - start;
        head.fill.shorten(head.len);
        self.add(start, head);
        self.add(at, tail);
    }

    /// Forgets `range`.
    fn cut(&mut self, range: Range<u64>) {
        self.split(range.start);
        self.split(range.end);
        while let Some((&start, _)) = self.spans.range(range.clone()).next() {
            self.remove(start);
        }
    }

    /// Ends a slot's growing buffer: its spans share the bytes from now on.
    pub(crate) fn freeze(&mut self, slot: u64) {
        let Some(buffer) = self.active.remove(&slot) else { return };
        self.weight -= buffer.capacity() as u64;
        let bytes = buffer.share();
        let range = slot * SLOT_LEN..(slot + 1) * SLOT_LEN;
        let mut added = 0;
        for span in self.spans.range_mut(range).map(|(_, span)| span) {
            if let Fill::Active { at } = span.fill {
                let at = at as usize;
                span.fill = Fill::Buffered(bytes.slice(at..at + span.len as usize));
                added += span.len;
            }
        }
        self.weight += added;
    }

    /// Ends all growing buffers.
    pub(crate) fn freeze_all(&mut self) {
        while let Some((&slot, _)) = self.active.first_key_value() {
            self.freeze(slot);
        }
    }

    /// The bytes of an active span, copied.
    fn active_bytes(&self, start: u64, at: u32, len: u64) -> Bytes {
        self.active.get(&(start / SLOT_LEN)).map_or_else(Bytes::new, |buffer| {
            Bytes::copy_from_slice(&buffer[at as usize..at as usize + len as usize])
        })
    }

    /// Everything in `range`, gaps included, in order. Active bytes come out as copies.
    pub(crate) fn lookup(&self, range: Range<u64>) -> Vec<Found> {
        let mut found = Vec::new();
        let mut pos = range.start;
        let first = self.spans.range(..=range.start).next_back().map_or(range.start, |(s, _)| *s);
        for (&start, span) in self.spans.range(first..range.end) {
            let from = start.max(range.start);
            let to = (start + span.len).min(range.end);
            if from >= to {
                continue;
            }
            if pos < from {
                found.push(Found { range: pos..from, fill: None });
            }
            let mut fill = span.fill.skip(from - start);
            fill.shorten(to - from);
            if let Fill::Active { at } = fill {
                fill = Fill::Buffered(self.active_bytes(from, at, to - from));
            }
            found.push(Found { range: from..to, fill: Some(fill) });
            pos = to;
        }
        if pos < range.end {
            found.push(Found { range: pos..range.end, fill: None });
        }
        found
    }

    /// Ends all growing buffers and gives back a copy of all spans, without their bytes copied.
    pub(crate) fn snapshot(&mut self) -> Vec<(u64, Span)> {
        self.freeze_all();
        self.spans.iter().map(|(start, span)| (*start, span.clone())).collect()
    }

    /// Drops what a commit up to `seq` has put into the namespace.
    pub(crate) fn drop_committed(&mut self, seq: u64) {
        if self.seq <= seq {
            *self = Self { seq: self.seq, ..Self::default() };
            return;
        }
        let done: Vec<u64> =
            self.spans.iter().filter(|(_, s)| s.seq <= seq).map(|(start, _)| *start).collect();
        for start in done {
            self.remove(start);
        }
    }

    /// Forgets everything, for a file that is gone.
    pub(crate) fn clear(&mut self) {
        *self = Self { seq: self.seq, ..Self::default() };
    }

    /// Replaces the fill of the span that starts at `start` and has these `len` and `seq`, which
    /// keeps both; `false` when it has changed since.
    pub(crate) fn replace(&mut self, start: u64, len: u64, seq: u64, fill: Fill) -> bool {
        match self.spans.entry(start) {
            Entry::Occupied(mut entry) => {
                let span = entry.get_mut();
                if span.len != len || span.seq != seq {
                    return false;
                }
                let before = span.fill.weight(len);
                self.weight = self.weight - before + fill.weight(len);
                span.fill = fill;
                true
            }
            Entry::Vacant(_) => false,
        }
    }

    /// Turns every span of `job` within `range` into `with(at)`.
    pub(crate) fn resolve(
        &mut self,
        range: Range<u64>,
        job: &Arc<EncodeJob>,
        with: impl Fn(u32, u64) -> Fill,
    ) {
        let mut weight = self.weight;
        for span in self.spans.range_mut(range).map(|(_, span)| span) {
            if let Fill::Encoding { job: of, at } = &span.fill
                && Arc::ptr_eq(of, job)
            {
                let fill = with(*at, span.len);
                weight = weight - span.fill.weight(span.len) + fill.weight(span.len);
                span.fill = fill;
            }
        }
        self.weight = weight;
    }

    /// The spans of a slot as one run of bytes that nothing appends to any more, when data that
    /// is still unencoded covers all of it.
    pub(crate) fn full_slot(&mut self, slot: u64) -> Option<Vec<(u64, Span)>> {
        let range = slot * SLOT_LEN..(slot + 1) * SLOT_LEN;
        let mut pos = range.start;
        for (&start, span) in self.spans.range(range.clone()) {
            let plain = matches!(span.fill, Fill::Active { .. } | Fill::Buffered(_));
            if start != pos || !plain {
                return None;
            }
            pos = start + span.len;
        }
        if pos != range.end {
            return None;
        }
        self.freeze(slot);
        Some(self.spans.range(range).map(|(start, span)| (*start, span.clone())).collect())
    }

    /// What `allocated` must be, counted anew.
    #[cfg(test)]
    pub(crate) fn recount_allocated(&self) -> u64 {
        self.spans.values().filter(|span| span.fill.is_allocated()).map(|span| span.len).sum()
    }

    /// What `weight` must be, counted anew.
    #[cfg(test)]
    pub(crate) fn recount(&self) -> u64 {
        let buffers: u64 = self.active.values().map(|b| b.capacity() as u64).sum();
        let spans: u64 = self.spans.values().map(|s| s.fill.weight(s.len)).sum();
        buffers + spans
    }
}

#[cfg(test)]
mod tests;
