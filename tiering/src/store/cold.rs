//! Reading from the cold tier: ranged, single-flight, fetched ahead for sequential readers.
//!
//! A *flight* is one ranged GET, running or landed. Readers wait for the flights that cover their
//! range and start what is missing, so that nobody asks twice for what is under way; bringing
//! blocks back to hot goes through the same flights. Flights that were started ahead stay landed,
//! in stored form and bounded in bytes, until they are read or pushed out, until nobody came for
//! them for a while, or until somebody waits for memory; a few demand flights linger for readers
//! of the same moment. Bytes of a flight are unverified: the reader verifies, and calls
//! [`Cold::forget`] on damage. A reader that gives up takes its unfinished flight out, so that the
//! next one asks again; one that met another's failure asks once itself. Nothing survives a crash.
//!
//! What is fetched ahead is decided in `ahead`.

mod ahead;
mod flight;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::blocks::Wait;
use crate::budget::{Budget, Permit};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::segment::SegmentId;
use crate::tier::{Handles, ObjectMeta, Tier};

use super::{CLOCK_SLICE, urgency};
use ahead::Neighbours;
use flight::Purpose;

pub(super) use ahead::{Extent, Upcoming};
use flight::Flight;

/// Bytes of landed requests kept for readers that come at the same time.
const LINGER_BYTES: u64 = 2 << 20;

/// How old a request for what is brought back to hot may be before a reader of it makes one of its own.
const STAGE_PATIENCE: Duration = Duration::from_secs(1);

/// What was fetched ahead and nobody came for that long has no reader any more.
const STALE: Duration = Duration::from_secs(15);

/// The cold tier as readers use it.
pub(super) struct Cold {
    tiers: Handles,
    handle: Handle,
    clock: Arc<dyn Clock>,
    budget: Budget,
    prefetch_bytes: u64,
    state: Mutex<State>,
    requests: AtomicU64,
    is_closed: AtomicBool,
}

#[derive(Default)]
struct State {
    flights: Vec<Arc<Flight>>,
    neighbours: Neighbours,
}

/// Flights that cover a range together, in order, and whether this reader started each.
pub(super) struct Cover(Vec<(Arc<Flight>, bool)>);

impl Cover {
    /// Since when some of it is on its way to hot, which has less right of way than a reader.
    fn staged_since(&self) -> Option<Instant> {
        let stages = self.0.iter().filter(|(flight, own)| {
            !own && flight.purpose == Purpose::Stage && !flight.has_landed()
        });
        stages.map(|(flight, _)| flight.since).min()
    }

    /// Whether some of it is another's, which may end with that other.
    pub(super) fn is_shared(&self) -> bool {
        self.0.iter().any(|(_, own)| !own)
    }
}

impl Cold {
    pub(super) fn new(
        tiers: Handles,
        handle: Handle,
        clock: Arc<dyn Clock>,
        budget: Budget,
        prefetch_bytes: u64,
    ) -> Self {
        let state = Mutex::default();
        let requests = AtomicU64::new(0);
        let is_closed = AtomicBool::new(false);
        Self { tiers, handle, clock, budget, prefetch_bytes, state, requests, is_closed }
    }

    /// The tier for what this thread does.
    fn tier(&self) -> Arc<dyn Tier> {
        Arc::clone(self.tiers.at(urgency::current()))
    }

    /// Says whether writers wait for space.
    pub(super) fn hurry(&self, is_hurried: bool) {
        self.tiers.hurry(is_hurried);
    }

    /// Ends whatever is asked of the tier, and lets nothing begin: a tier that does not answer must
    /// not hold up who closes the store. To it, that is like a crash.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        let flights = std::mem::take(&mut self.state.lock().flights);
        flights.iter().for_each(|flight| flight.cancel());
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
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
        let future = make(self.tier());
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
            let is_late = self.clock.instant() >= deadline;
            if is_late || self.is_closed() {
                task.abort();
                return Err(if is_late { Error::TimedOut(what) } else { Error::Cancelled });
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

    /// The stored bytes `range` of a segment, in as many requests as are missing.
    pub(super) fn fetch(
        &self,
        segment: SegmentId,
        range: &Range<u64>,
        deadline: Instant,
    ) -> Result<Bytes> {
        let cover = self.cover(segment, range, Purpose::Demand, deadline)?;
        if let Some(since) = cover.staged_since() {
            return match self.collect(&cover, range, deadline.min(since + STAGE_PATIENCE)) {
                // It may wait for its turn; a reader's own request does not.
                Err(_) => self.fetch_alone(segment, range, deadline),
                collected => collected,
            };
        }
        match self.collect(&cover, range, deadline) {
            // Another's request failed, or its reader gave it up.
            Err(_)
                if self.clock.instant() < deadline
                    && cover.0.iter().any(|(flight, own)| !own && flight.has_failed()) =>
            {
                let cover = self.cover(segment, range, Purpose::Demand, deadline)?;
                self.collect(&cover, range, deadline)
            }
            result => result,
        }
    }

    /// [`Cold::fetch`] by a request of its own, whatever is under way.
    fn fetch_alone(
        &self,
        segment: SegmentId,
        range: &Range<u64>,
        deadline: Instant,
    ) -> Result<Bytes> {
        let _memory = self.reserve(range.end - range.start, deadline)?;
        self.get_range(segment.object_key(), range.clone(), deadline)
    }

    /// Memory for a request that somebody waits for.
    fn reserve(&self, bytes: u64, deadline: Instant) -> Result<Permit> {
        match self.budget.try_acquire(bytes) {
            Some(permit) => Ok(permit),
            None => {
                self.drop_landed();
                let wait = Wait::Until(deadline);
                self.budget.acquire(bytes, wait, "waiting for memory to read cold blocks")
            }
        }
    }

    /// [`Cold::fetch`] without waiting, if all of it was fetched already.
    pub(super) fn fetched(&self, segment: SegmentId, range: &Range<u64>) -> Option<Bytes> {
        let cover = Self::under_way(&self.state.lock(), segment, range)?;
        let parts: Option<Vec<Bytes>> = cover
            .0
            .iter()
            .map(|(flight, _)| flight.bytes().map(|bytes| part_of(flight, &bytes, range)))
            .collect();
        let parts = parts?;
        self.land(cover.0.iter().map(|(flight, own)| (flight, *own)), range, false);
        Some(join(parts))
    }

    /// Starts a request for `range`, unless all of it is under way already; [`Cold::collect`]
    /// waits for it. `None` without memory, where `must` does not say to wait for that until then.
    pub(super) fn begin_stage(
        &self,
        segment: SegmentId,
        range: &Range<u64>,
        must: Option<Instant>,
    ) -> Result<Option<Cover>> {
        let bytes = range.end - range.start;
        if let Some(cover) = Self::under_way(&self.state.lock(), segment, range) {
            return Ok(Some(cover));
        }
        let permit = match (self.budget.try_acquire(bytes), must) {
            (Some(permit), _) => permit,
            (None, None) => return Ok(None),
            (None, Some(deadline)) => {
                self.drop_landed();
                let wait = Wait::Until(deadline);
                self.budget.acquire(bytes, wait, "waiting for memory to bring blocks back")?
            }
        };
        let mut state = self.state.lock();
        if let Some(cover) = Self::under_way(&state, segment, range) {
            return Ok(Some(cover));
        }
        let flight = self.start(&mut state, segment, range.clone(), Purpose::Stage, Some(permit));
        Ok(Some(Cover(vec![(flight, true)])))
    }

    /// The flights that cover all of `range`, if they are there. Parts would not spare a request.
    fn under_way(state: &State, segment: SegmentId, range: &Range<u64>) -> Option<Cover> {
        let mut cover = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let flight = state.flights.iter().find(|flight| flight.covers(segment, at))?;
            at = flight.range.end;
            cover.push((Arc::clone(flight), false));
        }
        Some(Cover(cover))
    }

    /// Takes out what was begun and is not wanted any more.
    pub(super) fn abandon(&self, cover: &Cover) {
        let own: Vec<_> = cover.0.iter().filter(|(_, own)| *own).collect();
        let is_own = |flight: &Arc<Flight>| own.iter().any(|(own, _)| Arc::ptr_eq(own, flight));
        self.state.lock().flights.retain(|flight| !is_own(flight));
        own.iter().for_each(|(flight, _)| flight.abandon());
    }

    fn cover(
        &self,
        segment: SegmentId,
        range: &Range<u64>,
        purpose: Purpose,
        deadline: Instant,
    ) -> Result<Cover> {
        let mut flights = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let (flight, own) = self.flight_at(segment, at, range.end, purpose, deadline)?;
            at = flight.range.end;
            flights.push((flight, own));
        }
        Ok(Cover(flights))
    }

    /// Waits for the bytes `range` out of the flights that cover it.
    pub(super) fn collect(
        &self,
        cover: &Cover,
        range: &Range<u64>,
        deadline: Instant,
    ) -> Result<Bytes> {
        let parts: Result<Vec<Bytes>> = cover
            .0
            .iter()
            .map(|(flight, _)| {
                let bytes = flight.wait(&*self.clock, deadline)?;
                Ok(part_of(flight, &bytes, range))
            })
            .collect();
        self.land(cover.0.iter().map(|(flight, own)| (flight, *own)), range, parts.is_err());
        parts.map(join)
    }

    /// The flight that covers `at`, and whether it was started now since there was none.
    fn flight_at(
        &self,
        segment: SegmentId,
        at: u64,
        end: u64,
        purpose: Purpose,
        deadline: Instant,
    ) -> Result<(Arc<Flight>, bool)> {
        let existing = {
            let state = self.state.lock();
            state.flights.iter().find(|flight| flight.covers(segment, at)).cloned()
        };
        if let Some(flight) = existing {
            return Ok((flight, false));
        }
        let permit = self.reserve(end - at, deadline)?;
        let mut state = self.state.lock();
        if let Some(flight) = state.flights.iter().find(|flight| flight.covers(segment, at)) {
            return Ok((Arc::clone(flight), false));
        }
        let end = first_start(&state, segment, at, end);
        Ok((self.start(&mut state, segment, at..end, purpose, Some(permit)), true))
    }

    fn start(
        &self,
        state: &mut State,
        segment: SegmentId,
        range: Range<u64>,
        purpose: Purpose,
        permit: Option<Permit>,
    ) -> Arc<Flight> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let since = self.clock.instant();
        let flight = Arc::new(Flight::new(segment, range.clone(), purpose, since, permit));
        if self.is_closed() {
            flight.cancel();
            return flight;
        }
        state.flights.push(Arc::clone(&flight));
        let (tier, landing) = (self.tier(), Arc::clone(&flight));
        let task = self.handle.spawn(async move {
            let expected = range.end - range.start;
            landing.land(match tier.get_range(&segment.object_key(), range).await {
                Ok(bytes) if bytes.len() as u64 == expected => Ok(bytes),
                Ok(bytes) => Err(Error::Damaged {
                    what: "cold object",
                    reason: format!("{} bytes came instead of {expected}", bytes.len()),
                }),
                Err(error) => Err(error),
            });
        });
        flight.flown_by(task.abort_handle());
        flight
    }

    /// Takes out what this read is done with: all of it after a failure, but for what is on its way
    /// to hot; otherwise what was fetched ahead and read to its end, and what was brought back by
    /// who asked for it. What was asked for stays a little, for readers of the same bytes that
    /// looked into the cache just before this one filled it.
    fn land<'a>(
        &self,
        used: impl Iterator<Item = (&'a Arc<Flight>, bool)>,
        range: &Range<u64>,
        failed: bool,
    ) {
        let used: Vec<_> = used.collect();
        let mut state = self.state.lock();
        used.iter().for_each(|(flight, _)| flight.take(range));
        let is_done = |flight: &Arc<Flight>| {
            let Some((_, own)) = used.iter().find(|(used, _)| Arc::ptr_eq(used, flight)) else {
                return false;
            };
            match flight.purpose {
                Purpose::Stage => *own || flight.has_failed(),
                Purpose::Demand | Purpose::Ahead { .. } => failed || flight.is_used_up(range),
            }
        };
        let mut lingering = 0;
        let mut keep = Vec::with_capacity(state.flights.len());
        let mut gone = Vec::new();
        for flight in state.flights.drain(..).rev() {
            if is_done(&flight) {
                gone.push(flight);
                continue;
            }
            if flight.purpose == Purpose::Demand && flight.has_landed() {
                lingering += flight.len();
                if lingering > LINGER_BYTES {
                    continue;
                }
            }
            keep.push(flight);
        }
        keep.reverse();
        state.flights = keep;
        drop(state);
        gone.iter().for_each(|flight| flight.abandon());
    }

    /// Gives back the memory of what landed: somebody waits for memory, and a reader that comes
    /// for it can ask again.
    pub(super) fn drop_landed(&self) {
        self.state.lock().flights.retain(|flight| !flight.has_landed());
    }

    /// Gives back the memory of what landed long ago and nobody came for.
    pub(super) fn drop_stale(&self) {
        let now = self.clock.instant();
        self.state.lock().flights.retain(|flight| {
            now.saturating_duration_since(flight.since) < STALE || !flight.has_landed()
        });
    }

    /// Takes out everything that overlaps `range`: it was damaged.
    pub(super) fn forget(&self, segment: SegmentId, range: &Range<u64>) {
        self.state.lock().flights.retain(|flight| {
            flight.segment != segment
                || flight.range.end <= range.start
                || flight.range.start >= range.end
        });
    }
}

/// Where the first flight behind `at` begins, at most `end`.
fn first_start(state: &State, segment: SegmentId, at: u64, end: u64) -> u64 {
    let behind = state.flights.iter().filter(|f| f.segment == segment && f.range.start > at);
    behind.map(|flight| flight.range.start).min().map_or(end, |start| start.min(end))
}

/// What of `range` a flight has brought.
fn part_of(flight: &Flight, bytes: &Bytes, range: &Range<u64>) -> Bytes {
    let start = range.start.max(flight.range.start) - flight.range.start;
    let end = range.end.min(flight.range.end) - flight.range.start;
    bytes.slice(start as usize..end as usize)
}

/// The parts as one; a single part is not copied.
fn join(parts: Vec<Bytes>) -> Bytes {
    match <[Bytes; 1]>::try_from(parts) {
        Ok([part]) => part,
        Err(parts) => {
            let mut all = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
            parts.iter().for_each(|part| all.extend_from_slice(part));
            all.freeze()
        }
    }
}
