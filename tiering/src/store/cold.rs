//! Reading from the cold tier: ranged, single-flight, fetched ahead for sequential readers.
//!
//! A *flight* is one ranged GET, running or landed. Readers wait for the flights that cover their
//! range and start what is missing, so that nobody asks twice for what is under way. Flights that
//! were started ahead stay landed, in stored form and bounded in bytes, until they are read or
//! pushed out, or until somebody waits for memory; a few demand flights linger for readers of the
//! same moment. Bytes of a flight are unverified: the reader verifies, and calls [`Cold::forget`] on damage. A reader that gives up takes its
//! unfinished flight out, so that the next one asks again. Nothing survives a crash.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::blocks::Wait;
use crate::budget::{Budget, Permit};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::segment::{DATA_START, SegmentId};
use crate::tier::{ObjectMeta, Tier};

use super::CLOCK_SLICE;

/// Bytes of one request made ahead.
const AHEAD_REQUEST: u64 = 4 << 20;

/// First window of a reader that turned out to be sequential.
const FIRST_WINDOW: u64 = 1 << 20;

/// A read this close behind the last one of a stream continues it: frame headers and frames of
/// other files lie between.
const STREAM_GAP: u64 = 256 << 10;

/// A continuing read may begin this far before the end of the last one: in the same cell.
const STREAM_OVERLAP: u64 = 66 << 10;

/// Bytes of landed requests kept for readers that come at the same time.
const LINGER_BYTES: u64 = 2 << 20;

/// Streams remembered.
const STREAMS: usize = 32;

/// The cold tier as readers use it.
pub(super) struct Cold {
    tier: Arc<dyn Tier>,
    handle: Handle,
    clock: Arc<dyn Clock>,
    budget: Budget,
    prefetch_bytes: u64,
    state: Mutex<State>,
    requests: AtomicU64,
}

#[derive(Default)]
struct State {
    flights: Vec<Arc<Flight>>,
    streams: VecDeque<Stream>,
}

struct Stream {
    segment: SegmentId,
    /// Where the last read ended.
    end: u64,
    /// Up to where flights were started.
    ahead: u64,
    window: u64,
}

struct Flight {
    segment: SegmentId,
    range: Range<u64>,
    is_ahead: bool,
    landed: Mutex<Option<std::result::Result<Bytes, Arc<Error>>>>,
    changed: Condvar,
    _permit: Option<Permit>,
}

impl Flight {
    fn covers(&self, segment: SegmentId, at: u64) -> bool {
        self.segment == segment && self.range.contains(&at)
    }
}

impl Cold {
    pub(super) fn new(
        tier: Arc<dyn Tier>,
        handle: Handle,
        clock: Arc<dyn Clock>,
        budget: Budget,
        prefetch_bytes: u64,
    ) -> Self {
        let state = Mutex::default();
        let requests = AtomicU64::new(0);
        Self { tier, handle, clock, budget, prefetch_bytes, state, requests }
    }

    /// Ranged requests made so far.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Runs a call of the tier on the store's runtime and waits for it.
    pub(super) fn call<T: Send + 'static>(
        &self,
        deadline: Instant,
        what: &'static str,
        make: impl FnOnce(Arc<dyn Tier>) -> futures::future::BoxFuture<'static, Result<T>>,
    ) -> Result<T> {
        let (send, mut receive) = oneshot::channel();
        let future = make(Arc::clone(&self.tier));
        let done = Arc::new((Mutex::new(false), Condvar::new()));
        let ring = Arc::clone(&done);
        let task = self.handle.spawn(async move {
            let result = future.await;
            // The caller may have given up; its result has no other use.
            drop(send.send(result));
            *ring.0.lock() = true;
            ring.1.notify_all();
        });
        let mut finished = done.0.lock();
        loop {
            if let Ok(result) = receive.try_recv() {
                return result;
            }
            if task.is_finished() && !*finished {
                return Err(Error::Cold {
                    action: "run",
                    object: what.into(),
                    source: "the task ended without an answer".into(),
                });
            }
            if self.clock.instant() >= deadline {
                task.abort();
                return Err(Error::TimedOut(what));
            }
            done.1.wait_for(&mut finished, CLOCK_SLICE);
        }
    }

    /// A range of an object, by one request of its own.
    pub(super) fn get_range(
        &self,
        key: String,
        range: Range<u64>,
        deadline: Instant,
    ) -> Result<Bytes> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let expected = range.end - range.start;
        let bytes = self.call(deadline, "reading from the cold tier", move |tier| {
            Box::pin(async move { tier.get_range(&key, range).await })
        })?;
        if bytes.len() as u64 != expected {
            return Err(Error::Damaged {
                what: "cold object",
                reason: format!("{} bytes came instead of {expected}", bytes.len()),
            });
        }
        Ok(bytes)
    }

    /// Every object below `prefix`, passed to `visit` page by page.
    pub(super) fn list(
        &self,
        prefix: &'static str,
        deadline: Instant,
        mut visit: impl FnMut(&ObjectMeta),
    ) -> Result<()> {
        const PAGE: usize = 1000;
        let mut after: Option<String> = None;
        loop {
            let from = after.clone();
            let page = self.call(deadline, "listing the cold tier", move |tier| {
                Box::pin(async move { tier.list(prefix, from.as_deref(), PAGE).await })
            })?;
            page.iter().for_each(&mut visit);
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some(last.key.clone()),
                _ => return Ok(()),
            }
        }
    }

    /// The stored bytes `range` of a segment of `len` bytes. `may_look_ahead` lets a sequential
    /// reader have what follows fetched as well.
    pub(super) fn fetch(
        &self,
        segment: SegmentId,
        range: Range<u64>,
        len: u64,
        may_look_ahead: bool,
        deadline: Instant,
    ) -> Result<Bytes> {
        let mut flights = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let flight = self.flight_at(segment, at, range.end, deadline)?;
            at = flight.range.end;
            flights.push(flight);
        }
        if may_look_ahead {
            self.look_ahead(segment, &range, len);
        }
        let mut out = BytesMut::new();
        let result = flights.iter().try_for_each(|flight| {
            let bytes = self.await_flight(flight, deadline)?;
            let start = range.start.max(flight.range.start) - flight.range.start;
            let end = range.end.min(flight.range.end) - flight.range.start;
            if flights.len() > 1 {
                out.extend_from_slice(&bytes[start as usize..end as usize]);
            } else {
                // Kept as it came; `out` stays empty.
                out = BytesMut::from(&bytes[start as usize..end as usize]);
            }
            Ok(())
        });
        self.land(&flights, &range, result.is_err());
        result.map(|()| out.freeze())
    }

    /// The flight that covers `at`, started now if there is none.
    fn flight_at(
        &self,
        segment: SegmentId,
        at: u64,
        end: u64,
        deadline: Instant,
    ) -> Result<Arc<Flight>> {
        let existing = {
            let state = self.state.lock();
            state.flights.iter().find(|flight| flight.covers(segment, at)).cloned()
        };
        if let Some(flight) = existing {
            return Ok(flight);
        }
        let permit = match self.budget.try_acquire(end - at) {
            Some(permit) => permit,
            None => {
                self.drop_landed();
                let wait = Wait::Until(deadline);
                self.budget.acquire(end - at, wait, "waiting for memory to read cold blocks")?
            }
        };
        let mut state = self.state.lock();
        if let Some(flight) = state.flights.iter().find(|flight| flight.covers(segment, at)) {
            return Ok(Arc::clone(flight));
        }
        let next = state.flights.iter().filter(|f| f.segment == segment && f.range.start > at);
        let end = next.map(|flight| flight.range.start).min().map_or(end, |start| start.min(end));
        Ok(self.start(&mut state, segment, at..end, false, Some(permit)))
    }

    fn start(
        &self,
        state: &mut State,
        segment: SegmentId,
        range: Range<u64>,
        is_ahead: bool,
        permit: Option<Permit>,
    ) -> Arc<Flight> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let flight = Arc::new(Flight {
            segment,
            range: range.clone(),
            is_ahead,
            landed: Mutex::new(None),
            changed: Condvar::new(),
            _permit: permit,
        });
        state.flights.push(Arc::clone(&flight));
        let (tier, landing) = (Arc::clone(&self.tier), Arc::clone(&flight));
        self.handle.spawn(async move {
            let expected = range.end - range.start;
            let result = match tier.get_range(&segment.object_key(), range).await {
                Ok(bytes) if bytes.len() as u64 == expected => Ok(bytes),
                Ok(bytes) => Err(Error::Damaged {
                    what: "cold object",
                    reason: format!("{} bytes came instead of {expected}", bytes.len()),
                }),
                Err(error) => Err(error),
            };
            *landing.landed.lock() = Some(result.map_err(Arc::new));
            landing.changed.notify_all();
        });
        flight
    }

    fn await_flight(&self, flight: &Flight, deadline: Instant) -> Result<Bytes> {
        let mut landed = flight.landed.lock();
        loop {
            match &*landed {
                Some(Ok(bytes)) => return Ok(bytes.clone()),
                Some(Err(error)) => return Err(again(error)),
                None => {}
            }
            if self.clock.instant() >= deadline {
                return Err(Error::TimedOut("reading from the cold tier"));
            }
            flight.changed.wait_for(&mut landed, CLOCK_SLICE);
        }
    }

    /// Takes out what this read is done with: all of it after a failure; otherwise what was
    /// fetched ahead and read to its end. What was asked for stays a little, for readers of the
    /// same bytes that looked into the cache just before this one filled it.
    fn land(&self, flights: &[Arc<Flight>], range: &Range<u64>, failed: bool) {
        let done = |flight: &Arc<Flight>| {
            flights.iter().any(|used| Arc::ptr_eq(used, flight))
                && (failed || (flight.is_ahead && flight.range.end <= range.end))
        };
        let mut state = self.state.lock();
        state.flights.retain(|flight| !done(flight));
        let lingering = |flight: &Arc<Flight>| !flight.is_ahead && flight.landed.lock().is_some();
        let mut bytes = 0;
        let mut keep = Vec::with_capacity(state.flights.len());
        for flight in state.flights.drain(..).rev() {
            if lingering(&flight) {
                bytes += flight.range.end - flight.range.start;
                if bytes > LINGER_BYTES {
                    continue;
                }
            }
            keep.push(flight);
        }
        keep.reverse();
        state.flights = keep;
    }

    /// Gives back the memory of what landed: somebody waits for memory, and a reader that comes
    /// for it can ask again.
    pub(super) fn drop_landed(&self) {
        self.state.lock().flights.retain(|flight| flight.landed.lock().is_none());
    }

    /// Takes out everything that overlaps `range`: it was damaged.
    pub(super) fn forget(&self, segment: SegmentId, range: &Range<u64>) {
        self.state.lock().flights.retain(|flight| {
            flight.segment != segment
                || flight.range.end <= range.start
                || flight.range.start >= range.end
        });
    }

    /// Recognises sequential readers and fetches what they will ask for.
    fn look_ahead(&self, segment: SegmentId, range: &Range<u64>, len: u64) {
        if self.prefetch_bytes == 0 {
            return;
        }
        let mut state = self.state.lock();
        let continues = |stream: &Stream| {
            stream.segment == segment
                && range.end > stream.end
                && range.start + STREAM_OVERLAP >= stream.end
                && range.start <= stream.end + STREAM_GAP
        };
        let Some(index) = state.streams.iter().position(continues) else {
            // A reader that begins a segment comes from the one before.
            let window = if range.start < DATA_START + STREAM_GAP { FIRST_WINDOW } else { 0 };
            let stream = Stream { segment, end: range.end, ahead: range.end, window };
            state.streams.push_back(stream);
            if state.streams.len() > STREAMS {
                state.streams.pop_front();
            }
            return;
        };
        let Some(mut stream) = state.streams.remove(index) else { return };
        stream.end = stream.end.max(range.end);
        stream.window = (stream.window * 2).clamp(FIRST_WINDOW, self.prefetch_bytes);
        let target = (stream.end + stream.window).min(len);
        stream.ahead = stream.ahead.max(stream.end);
        while stream.ahead < target {
            let end = (stream.ahead + AHEAD_REQUEST).min(target);
            // Many small requests would cost more than they save.
            if end - stream.ahead < stream.window.min(AHEAD_REQUEST) / 2 && end < len {
                break;
            }
            if !self.fly_ahead(&mut state, segment, stream.ahead..end) {
                break;
            }
            stream.ahead = end;
        }
        state.streams.push_back(stream);
    }

    /// Starts a request ahead, pushing out what landed longest ago; `false` without memory.
    fn fly_ahead(&self, state: &mut State, segment: SegmentId, range: Range<u64>) -> bool {
        let bytes = range.end - range.start;
        let held = |state: &State| {
            let ahead = state.flights.iter().filter(|flight| flight.is_ahead);
            ahead.map(|flight| flight.range.end - flight.range.start).sum::<u64>()
        };
        while held(state) + bytes > 2 * self.prefetch_bytes {
            let oldest = state.flights.iter().position(|f| f.is_ahead && f.landed.lock().is_some());
            match oldest {
                Some(index) => drop(state.flights.remove(index)),
                None => return false,
            }
        }
        let Some(permit) = self.budget.try_acquire(bytes) else { return false };
        self.start(state, segment, range, true, Some(permit));
        true
    }
}

/// An error that several readers get.
fn again(error: &Arc<Error>) -> Error {
    match &**error {
        Error::NotFound(key) => Error::NotFound(key.clone()),
        Error::TimedOut(what) => Error::TimedOut(what),
        Error::Damaged { what, reason } => Error::Damaged { what, reason: reason.clone() },
        Error::Cold { action, object, .. } => Error::Cold {
            action,
            object: object.clone(),
            source: Box::new(Shared(Arc::clone(error))),
        },
        _ => Error::Cold {
            action: "read",
            object: "a segment".into(),
            source: Box::new(Shared(Arc::clone(error))),
        },
    }
}

/// The source of a shared error.
#[derive(Debug)]
struct Shared(Arc<Error>);

impl std::fmt::Display for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match std::error::Error::source(&*self.0) {
            Some(source) => write!(f, "{source}"),
            None => write!(f, "{}", self.0),
        }
    }
}

impl std::error::Error for Shared {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source().and_then(std::error::Error::source)
    }
}
