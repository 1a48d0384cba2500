//! What to fetch ahead, for two kinds of sequential readers.
//!
//! A reader of a file says which blocks it will want ([`Cold::look_ahead`]); they are asked for in
//! the order of the file, neighbours in a segment by one request. A reader of small files that
//! share blocks, or of whole blocks one by one, says nothing: it is recognised by where it reads
//! ([`Cold::note_neighbours`]), and what lies behind in the segment is fetched. Nothing is ever
//! fetched ahead for a reader of parts that jumps about: each of its reads is one request.

use std::collections::VecDeque;
use std::ops::Range;

use crate::readahead::ReadAhead;
use crate::segment::{DATA_START, SegmentId};

use super::flight::Purpose;
use super::{Cold, State, first_start};

/// Frames this close in a segment are fetched by one request: small frames of other files lie
/// between them.
const JOIN_GAP: u64 = 64 << 10;

/// A read this close behind the last one of a stream continues it: frame headers and frames of
/// other files lie between.
const STREAM_GAP: u64 = 256 << 10;

/// The same where it is about files that share a block.
const PACKED_GAP: u64 = 16 << 10;

/// A continuing read may begin this far before the end of the last one: in the same cell.
const STREAM_OVERLAP: u64 = 66 << 10;

/// Reads of small files, each behind the one before, that make a stream.
const PACKED_READS: u32 = 3;

/// Bytes of one request made ahead.
const AHEAD_REQUEST: u64 = 4 << 20;

/// First window of a reader that turned out to be sequential.
const FIRST_WINDOW: u64 = 1 << 20;

/// Blocks looked at in one go.
const MOST_BLOCKS: usize = 1024;

/// Streams remembered.
const STREAMS: usize = 32;

/// A block that will be wanted: where it lies.
#[derive(Clone, Debug)]
pub(in crate::store) struct Upcoming {
    pub(in crate::store) segment: SegmentId,
    /// Its frame in the segment.
    pub(in crate::store) frame: Range<u64>,
    /// Bytes of its cells, which are what is read of it.
    pub(in crate::store) stored_len: u64,
    pub(in crate::store) plain_len: u64,
}

/// What a read tells of its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Extent {
    /// It wanted a whole block.
    Block,
    /// It wanted a whole small file, which shares its block.
    PackedFile,
}

/// Streams recognised by where they read.
#[derive(Default)]
pub(super) struct Neighbours {
    streams: VecDeque<Stream>,
}

struct Stream {
    segment: SegmentId,
    /// Where the last read ended.
    end: u64,
    /// Up to where flights were started.
    ahead: u64,
    window: u64,
    reads: u32,
}

/// A request in the making.
struct Run {
    /// The place of its first block among those that are wanted.
    first: usize,
    segment: SegmentId,
    range: Range<u64>,
    wanted: u64,
    plain: u64,
}

impl Run {
    fn of(first: usize, next: &Upcoming) -> Self {
        let (segment, range) = (next.segment, next.frame.clone());
        Self { first, segment, range, wanted: next.stored_len, plain: next.plain_len }
    }

    /// Takes up `next` where it lies right behind.
    fn join(&mut self, place: usize, next: &Upcoming, longest: u64) -> bool {
        let fits = self.segment == next.segment
            && next.frame.start >= self.range.end
            && next.frame.start - self.range.end <= JOIN_GAP
            && next.frame.end - self.range.start <= longest;
        if fits {
            self.range.end = next.frame.end;
            self.first = self.first.min(place);
            self.wanted += next.stored_len;
            self.plain += next.plain_len;
        }
        fits
    }
}

/// The requests for these blocks, what is wanted first by the first. A file's blocks lie in its
/// segments nearly in its order: several threads encoded them.
fn runs(blocks: &[Upcoming], longest: u64) -> Vec<Run> {
    let mut placed: Vec<_> = blocks.iter().enumerate().collect();
    placed.sort_by_key(|(_, block)| (block.segment, block.frame.start));
    let mut runs: Vec<Run> = Vec::new();
    for (place, block) in placed {
        if !runs.last_mut().is_some_and(|run| run.join(place, block, longest)) {
            runs.push(Run::of(place, block));
        }
    }
    runs.sort_by_key(|run| run.first);
    runs
}

impl Cold {
    /// Asks for what a reader of a file wants next, as far as its window goes. `ahead` is the
    /// plaintext that was asked for and not read yet. `next` gives the blocks behind that, `None`
    /// inside for those that need no fetching.
    pub(in crate::store) fn look_ahead(
        &self,
        reader: &mut ReadAhead,
        ahead: u64,
        next: &mut dyn FnMut() -> Option<Option<Upcoming>>,
    ) {
        let mut room = reader.room(ahead, self.prefetch_bytes, self.clock.instant());
        let mut blocks = Vec::new();
        while room > 0 && blocks.len() < MOST_BLOCKS {
            let Some(block) = next() else { break };
            let Some(block) = block else { continue };
            room = room.saturating_sub(block.stored_len);
            blocks.push(block);
        }
        // Frames are a little longer than what a request of round size would hold.
        for run in runs(&blocks, reader.request_bytes() + JOIN_GAP) {
            if !self.fly_run(reader, run) {
                return;
            }
        }
    }

    /// Starts a request for what of `run` is not under way; `false` without memory.
    fn fly_run(&self, reader: &mut ReadAhead, run: Run) -> bool {
        let mut state = self.state.lock();
        let Run { segment, mut range, mut wanted, plain, .. } = run;
        reader.asked(plain, wanted);
        while let Some(under_way) = state.flights.iter().find(|f| f.covers(segment, range.start)) {
            wanted = wanted.saturating_sub(under_way.range.end - range.start);
            range.start = under_way.range.end;
            if range.start >= range.end {
                return true;
            }
        }
        range.end = first_start(&state, segment, range.start, range.end);
        wanted = wanted.min(range.end - range.start).max(1);
        self.fly_ahead(&mut state, segment, range, Purpose::Ahead { wanted })
    }

    /// Recognises readers of what lies side by side in a segment of `len` bytes, and fetches what
    /// they will ask for.
    pub(in crate::store) fn note_neighbours(
        &self,
        segment: SegmentId,
        range: &Range<u64>,
        len: u64,
        extent: Extent,
    ) {
        if self.prefetch_bytes == 0 {
            return;
        }
        let (gap, reads) = match extent {
            Extent::Block => (STREAM_GAP, 1),
            Extent::PackedFile => (PACKED_GAP, PACKED_READS),
        };
        let mut state = self.state.lock();
        let continues = |stream: &Stream| {
            stream.segment == segment
                && range.end > stream.end
                && range.start + STREAM_OVERLAP >= stream.end
                && range.start <= stream.end + gap
        };
        let streams = &mut state.neighbours.streams;
        // A read that had to wait comes again.
        if streams.iter().any(|known| known.segment == segment && known.end == range.end) {
            return;
        }
        let Some(mut stream) =
            streams.iter().position(continues).and_then(|index| streams.remove(index))
        else {
            // A reader of blocks that begins a segment comes from the one before.
            let begins = extent == Extent::Block && range.start < DATA_START + gap;
            let window = if begins { FIRST_WINDOW } else { 0 };
            let end = range.end;
            streams.push_back(Stream { segment, end, ahead: end, window, reads: 0 });
            if streams.len() > STREAMS {
                streams.pop_front();
            }
            return;
        };
        stream.end = stream.end.max(range.end);
        stream.reads = stream.reads.saturating_add(1);
        if stream.reads >= reads {
            self.advance(&mut state, &mut stream, len);
        }
        state.neighbours.streams.push_back(stream);
    }

    fn advance(&self, state: &mut State, stream: &mut Stream, len: u64) {
        stream.window =
            (stream.window * 2).clamp(FIRST_WINDOW.min(self.prefetch_bytes), self.prefetch_bytes);
        let target = (stream.end + stream.window).min(len);
        stream.ahead = stream.ahead.max(stream.end);
        while stream.ahead < target {
            let end = (stream.ahead + AHEAD_REQUEST).min(target);
            // Many small requests would cost more than they save.
            if end - stream.ahead < stream.window.min(AHEAD_REQUEST) / 2 && end < len {
                break;
            }
            let range = stream.ahead..first_start(state, stream.segment, stream.ahead, end);
            let is_under_way =
                state.flights.iter().any(|flight| flight.covers(stream.segment, range.start));
            stream.ahead = range.end;
            if !is_under_way
                && !self.fly_ahead(state, stream.segment, range, Purpose::Ahead { wanted: 0 })
            {
                break;
            }
        }
    }

    /// Starts a request ahead, pushing out what landed longest ago; `false` without memory.
    fn fly_ahead(
        &self,
        state: &mut State,
        segment: SegmentId,
        range: Range<u64>,
        purpose: Purpose,
    ) -> bool {
        let bytes = range.end - range.start;
        let held = |state: &State| {
            state.flights.iter().filter(|f| f.is_ahead()).map(|flight| flight.len()).sum::<u64>()
        };
        while held(state) + bytes > 2 * self.prefetch_bytes {
            match state.flights.iter().position(|f| f.is_ahead() && f.has_landed()) {
                Some(oldest) => drop(state.flights.remove(oldest)),
                None => return false,
            }
        }
        let Some(permit) = self.budget.try_acquire(bytes) else { return false };
        self.start(state, segment, range, purpose, Some(permit));
        true
    }
}
