//! Finding a sealed segment's index without doing any reading: says which bytes it needs next, and
//! is fed them.
//!
//! The same steps serve a local file and ranged requests to a remote object. One request of
//! [`TAIL_LEN`] usually is enough; whatever is damaged, the copies at the other end are tried.

use std::collections::VecDeque;
use std::ops::Range;

use crate::error::{Error, Result};

use super::header::{DATA_START, HEAD_TRAILER, TRAILER_LEN, Trailer};
use super::index::{SegmentIndex, decode_index};
use super::{SegmentName, damaged};

/// First request: the trailer and, of ordinary segments, the index before it.
const TAIL_LEN: u64 = 32 << 10;

/// A search for an index.
#[derive(Debug)]
pub struct IndexFetch {
    name: SegmentName,
    len: u64,
    trailer: Option<Trailer>,
    /// Requests still to make, the first one being current.
    next: VecDeque<Step>,
    /// What was found wrong, to be reported if nothing is found right.
    failures: Vec<String>,
    too_new: Option<Error>,
}

#[derive(Clone, Debug)]
enum Step {
    Tail(Range<u64>),
    Head(Range<u64>),
    Index(Range<u64>),
}

impl Step {
    const fn range(&self) -> &Range<u64> {
        match self {
            Self::Tail(range) | Self::Head(range) | Self::Index(range) => range,
        }
    }
}

impl IndexFetch {
    /// For the segment `name`, whose file or object is `len` bytes long.
    pub fn new(name: SegmentName, len: u64) -> Self {
        let next = VecDeque::from([
            Step::Tail(len.saturating_sub(TAIL_LEN)..len),
            Step::Head(0..len.min(DATA_START)),
        ]);
        Self { name, len, trailer: None, next, failures: Vec::new(), too_new: None }
    }

    /// The bytes to give to [`IndexFetch::feed`] next.
    pub fn wanted(&self) -> Range<u64> {
        self.next.front().map_or(0..0, |step| step.range().clone())
    }

    /// Takes the bytes of [`IndexFetch::wanted`]. `None`: more are wanted. An error is final:
    /// no copy is undamaged, and only a scan or a repair can help.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Option<SegmentIndex>> {
        let Some(step) = self.next.pop_front() else { return Err(self.give_up()) };
        let range = step.range();
        if bytes.len() as u64 != range.end - range.start {
            return Err(damaged("segment index", "a read returned a wrong length"));
        }
        let found = match &step {
            Step::Tail(range) => self.feed_tail(range.start, bytes),
            Step::Head(_) => self.feed_head(bytes),
            Step::Index(_) => self.try_index(bytes),
        };
        if found.is_none() && self.next.is_empty() {
            return Err(self.give_up());
        }
        Ok(found)
    }

    fn feed_tail(&mut self, start: u64, bytes: &[u8]) -> Option<SegmentIndex> {
        let at = bytes.len().saturating_sub(TRAILER_LEN);
        self.take_trailer(&bytes[at..], "trailer at the end")?;
        let index = self.trailer.as_ref()?.index_b.clone();
        let within = index.start.checked_sub(start)? as usize;
        let within = within..within + (index.end - index.start) as usize;
        let part = (!within.is_empty()).then(|| bytes.get(within)).flatten()?;
        let found = self.try_index(part);
        if found.is_none() {
            // It was damaged: asking for the same bytes again is of no use.
            self.next.retain(|step| *step.range() != index);
        }
        found
    }

    fn feed_head(&mut self, bytes: &[u8]) -> Option<SegmentIndex> {
        let page = bytes.get(HEAD_TRAILER..).unwrap_or_default();
        self.take_trailer(page, "trailer at the start");
        None
    }

    /// Remembers a good trailer and asks for the indexes it names.
    fn take_trailer(&mut self, page: &[u8], which: &str) -> Option<()> {
        match Trailer::from_bytes(page, &self.name) {
            Ok(trailer) => {
                let indexes = [trailer.index_b.clone(), trailer.index_a.clone()];
                self.next = indexes
                    .into_iter()
                    .filter(|range| !range.is_empty() && range.end <= self.len)
                    .map(Step::Index)
                    .collect();
                self.trailer = Some(trailer);
                Some(())
            }
            Err(error) => {
                self.note(which, error);
                None
            }
        }
    }

    fn try_index(&mut self, bytes: &[u8]) -> Option<SegmentIndex> {
        let trailer = self.trailer.as_ref()?;
        match decode_index(bytes, trailer) {
            Ok(entries) => Some(SegmentIndex::new(trailer.clone(), entries)),
            Err(error) => {
                self.note("index", error);
                None
            }
        }
    }

    fn note(&mut self, which: &str, error: Error) {
        self.failures.push(format!("{which}: {error}"));
        if matches!(error, Error::TooNew { .. }) {
            self.too_new.get_or_insert(error);
        }
    }

    fn give_up(&mut self) -> Error {
        let reason = if self.failures.is_empty() {
            "it ends before its index".to_owned()
        } else {
            self.failures.join("; ")
        };
        self.too_new.take().unwrap_or_else(|| damaged("segment index", reason))
    }
}
