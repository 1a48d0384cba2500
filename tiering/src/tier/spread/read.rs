//! Reading: the chunks that are wanted from their stores, and, where one is away, wrong or slow,
//! what it holds from any `k` chunks of its stripe.
//!
//! Nothing is used that was not verified under the object's generation, and what was computed is
//! verified too. *Bounds*: a window of stripes at a time; each store is asked for a range once.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;

use super::layout::{Layout, Record, Shape, Sum};
use super::store::{is_absence, words};
use super::stripe::data_of;
use super::{MAX_WHOLE_OBJECT_LEN, Spread, past_end};
use crate::error::{Error, Result};
use crate::segment::StripeCode;
use crate::tier::failure::{FailureKind, TierFailure};

/// Bytes of data in a window.
const WINDOW: u64 = 16 << 20;

/// A store that has not answered after this, and a second for [`SLOW_RATE`] bytes, is slow.
const SLOW: Duration = Duration::from_millis(700);
const SLOW_RATE: f64 = (4 << 20) as f64;

/// What a store answered.
struct Answer {
    at: usize,
    stripes: Range<u64>,
    bytes: Result<Bytes>,
}

/// A window that is being read.
struct Window<'a> {
    spread: &'a Spread,
    key: &'a str,
    shape: Shape,
    generation: Sum,
    stripes: Range<u64>,
    /// By stripe and data shard: what is wanted.
    wanted: BTreeMap<u64, Vec<usize>>,
    /// By stripe and shard: what was verified.
    have: BTreeMap<u64, Vec<Option<Record>>>,
    /// Shards that give nothing any more, and why.
    out: Vec<Option<String>>,
    /// By shard: stripes that were damaged in it.
    bad: Vec<Vec<u64>>,
    in_flight: Vec<Option<Range<u64>>>,
    /// By shard: its store may serve again.
    away: Vec<bool>,
    is_missing: usize,
    /// A store that serves did not give a range.
    is_refused: bool,
}

impl Spread {
    /// The whole object, or a range of it.
    pub(super) async fn read(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        let known = self.known.get(key);
        let layout = match known {
            Some(layout) => layout,
            None => self.find(key).await?,
        };
        match self.read_of(key, &layout, range.clone()).await {
            Err(error) if known.is_some() => {
                // Somebody else may have removed it, and stored it anew.
                self.known.forget(key);
                let now = self.find(key).await?;
                if now == layout { Err(error) } else { self.read_of(key, &now, range).await }
            }
            read => read,
        }
    }

    async fn read_of(
        &self,
        key: &str,
        layout: &Layout,
        range: Option<Range<u64>>,
    ) -> Result<Bytes> {
        let len = layout.shape.len;
        let Some(range) = range else {
            if len > MAX_WHOLE_OBJECT_LEN {
                let message = format!("{len} bytes are too many to be read at once");
                return Err(TierFailure::error(FailureKind::Rejected, "read", key, message));
            }
            let bytes = self.bytes(key, layout, 0..len).await?;
            if blake3::hash(&bytes).as_bytes() == &layout.digest {
                return Ok(bytes);
            }
            let reason = "its chunks verify, and the whole does not".to_owned();
            return Err(Error::Damaged { what: "object", reason });
        };
        if range.end > len {
            return Err(past_end("read", key, &range, len));
        }
        self.bytes(key, layout, range).await
    }

    /// A range that lies inside.
    pub(super) async fn bytes(
        &self,
        key: &str,
        layout: &Layout,
        range: Range<u64>,
    ) -> Result<Bytes> {
        let shape = layout.shape;
        let code = StripeCode::new(self.data(), self.parity());
        let mut all = BytesMut::new();
        let mut start = range.start;
        // Up to here stripes are read one by one.
        let mut singly_until = 0;
        while start < range.end {
            let stripe = start / shape.stripe_len();
            let is_single = start < singly_until;
            let most = if is_single { 1 } else { (WINDOW / shape.stripe_len()).max(1) };
            let end = range.end.min((stripe + most) * shape.stripe_len());
            let mut window = Window::new(self, key, layout, &(start..end));
            match window.fill().await {
                // What a store cannot read of a range takes the rest of it along.
                Err(_) if window.is_refused && !is_single => {
                    singly_until = end;
                    continue;
                }
                filled => filled?,
            }
            let pieces = window.take(&code, &(start..end))?;
            if pieces.len() == 1 && end - start == range.end - range.start {
                return Ok(pieces.into_iter().next().unwrap_or_default());
            }
            all.reserve((end - start) as usize);
            pieces.iter().for_each(|piece| all.extend_from_slice(piece));
            start = end;
        }
        Ok(all.freeze())
    }

    /// A range of what store `at` has under a key. A store that refuses whatever it is asked, such as
    /// for a token that has run out, is away; only one that answers otherwise has something damaged.
    pub(super) async fn part(&self, at: usize, key: &str, range: Range<u64>) -> Result<Bytes> {
        let tier = self.stores[at].tier();
        match self.ask(at, tier.get_range(key, range)).await {
            Err(error) if !is_absence(&error) && !matches!(error, Error::NotFound(_)) => {
                match self.ask(at, tier.head(key)).await {
                    Ok(_) | Err(Error::NotFound(_)) => Err(error),
                    Err(refused) => {
                        let (kind, why) = (FailureKind::Unavailable, words(&refused));
                        Err(TierFailure::error(kind, "read", key, why))
                    }
                }
            }
            read => read,
        }
    }

    /// Records of shard `at`, as they are stored.
    pub(super) async fn records(
        &self,
        at: usize,
        key: &str,
        shape: &Shape,
        stripes: &Range<u64>,
    ) -> Result<Bytes> {
        let range = shape.records(at, stripes);
        let wanted = range.end - range.start;
        let bytes = self.part(at, key, range).await?;
        if bytes.len() as u64 == wanted {
            return Ok(bytes);
        }
        let message = format!("{} bytes came instead of {wanted}", bytes.len());
        Err(TierFailure::error(FailureKind::BadBody, "read", key, message))
    }
}

impl<'a> Window<'a> {
    fn new(spread: &'a Spread, key: &'a str, layout: &Layout, range: &Range<u64>) -> Self {
        let shape = layout.shape;
        let chunk_len = u64::from(shape.chunk_len);
        let mut wanted: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for chunk in range.start / chunk_len..range.end.div_ceil(chunk_len) {
            let data = u64::from(shape.data);
            wanted.entry(chunk / data).or_default().push((chunk % data) as usize);
        }
        let first = wanted.keys().next().copied().unwrap_or(0);
        let end = wanted.keys().next_back().map_or(0, |last| last + 1);
        let have = (first..end).map(|stripe| (stripe, vec![None; shape.shards()])).collect();
        Self {
            spread,
            key,
            shape,
            generation: layout.generation(),
            stripes: first..end,
            wanted,
            have,
            out: vec![None; shape.shards()],
            bad: vec![Vec::new(); shape.shards()],
            in_flight: vec![None; shape.shards()],
            away: vec![false; shape.shards()],
            is_missing: 0,
            is_refused: false,
        }
    }

    /// Asks stores until everything wanted is there or can be computed.
    async fn fill(&mut self) -> Result<()> {
        let (spread, key, shape) = (self.spread, self.key, self.shape);
        let mut asked: FuturesUnordered<BoxFuture<'a, Answer>> = FuturesUnordered::new();
        let ask = move |at: usize, stripes: Range<u64>| -> BoxFuture<'a, Answer> {
            async move {
                let bytes = spread.records(at, key, &shape, &stripes).await;
                Answer { at, stripes, bytes }
            }
            .boxed()
        };
        for (at, stripes) in self.first_requests() {
            self.in_flight[at] = Some(stripes.clone());
            asked.push(ask(at, stripes));
        }
        let longest = self.in_flight.iter().flatten().map(|s| s.end - s.start).max().unwrap_or(1);
        let slow_after = SLOW
            + Duration::from_secs_f64((longest * u64::from(shape.chunk_len)) as f64 / SLOW_RATE);
        let mut slow_at = Instant::now() + slow_after;
        // How many stores are not waited for.
        let mut slow = 0;
        loop {
            let lacking = self.lacking(slow > 0);
            if lacking.is_empty() && self.is_complete() {
                self.blame_the_slow();
                return Ok(());
            }
            let mut short = self.shortfall(&lacking);
            short = (short + slow).saturating_sub(asked.len());
            for (at, stripes) in self.candidates(&lacking).into_iter().take(short) {
                self.in_flight[at] = Some(stripes.clone());
                asked.push(ask(at, stripes));
            }
            if asked.is_empty() {
                return Err(self.failure());
            }
            match tokio::time::timeout_at(slow_at, asked.next()).await {
                Ok(Some(answer)) => self.add(answer),
                Ok(None) => {}
                Err(_) => {
                    slow = asked.len();
                    slow_at = Instant::now() + slow_after;
                }
            }
        }
    }

    /// Each wanted chunk from its own store, where that seems well.
    fn first_requests(&self) -> Vec<(usize, Range<u64>)> {
        let mut requests: BTreeMap<usize, Range<u64>> = BTreeMap::new();
        for (stripe, shards) in &self.wanted {
            for at in shards {
                let range = requests.entry(*at).or_insert(*stripe..*stripe + 1);
                range.end = stripe + 1;
            }
        }
        let is_well = |at: &usize| self.out[*at].is_none() && !self.spread.stores[*at].is_suspect();
        requests.into_iter().filter(|(at, _)| is_well(at)).collect()
    }

    fn verified(&self, stripe: u64) -> usize {
        self.have.get(&stripe).map_or(0, |have| have.iter().flatten().count())
    }

    fn is_served(&self, stripe: u64, at: usize) -> bool {
        self.have.get(&stripe).is_some_and(|have| have[at].is_some())
    }

    fn is_awaited(&self, stripe: u64, at: usize) -> bool {
        self.in_flight[at].as_ref().is_some_and(|stripes| stripes.contains(&stripe))
    }

    /// Whether a stripe gives what is wanted of it.
    fn is_done(&self, stripe: u64, shards: &[usize]) -> bool {
        self.verified(stripe) >= usize::from(self.shape.data)
            || shards.iter().all(|at| self.is_served(stripe, *at))
    }

    fn is_complete(&self) -> bool {
        self.wanted.iter().all(|(stripe, shards)| self.is_done(*stripe, shards))
    }

    /// Stripes of which something wanted is missing that nobody is expected to bring; with
    /// `is_late`, nobody is expected to bring anything.
    fn lacking(&self, is_late: bool) -> Vec<u64> {
        let is_lacking = |stripe: u64, shards: &[usize]| {
            !self.is_done(stripe, shards)
                && shards.iter().any(|at| {
                    !self.is_served(stripe, *at) && (is_late || !self.is_awaited(stripe, *at))
                })
        };
        let stripes = self.wanted.iter().filter(|(stripe, shards)| is_lacking(**stripe, shards));
        stripes.map(|(stripe, _)| *stripe).collect()
    }

    /// Verified chunks that the worst of these stripes lacks.
    fn shortfall(&self, lacking: &[u64]) -> usize {
        let short =
            |stripe: &u64| usize::from(self.shape.data).saturating_sub(self.verified(*stripe));
        lacking.iter().map(short).max().unwrap_or(0)
    }

    /// Who can give something of these stripes and is not asked now: those that seem well first.
    fn candidates(&self, lacking: &[u64]) -> Vec<(usize, Range<u64>)> {
        let mut found = Vec::new();
        for at in 0..self.shape.shards() {
            if self.out[at].is_some() || self.in_flight[at].is_some() {
                continue;
            }
            let gives =
                |stripe: &&u64| !self.is_served(**stripe, at) && !self.bad[at].contains(*stripe);
            let mut stripes = lacking.iter().filter(gives);
            let Some(first) = stripes.next() else { continue };
            let last = stripes.next_back().unwrap_or(first);
            found.push((at, *first..last + 1));
        }
        found.sort_by_key(|(at, _)| self.spread.stores[*at].is_suspect());
        found
    }

    fn add(&mut self, answer: Answer) {
        let Answer { at, stripes, bytes } = answer;
        self.in_flight[at] = None;
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => {
                self.away[at] = is_absence(&error);
                let is_missing = matches!(error, Error::NotFound(_));
                self.is_missing += usize::from(is_missing);
                self.is_refused |= !is_missing && !self.away[at];
                self.out[at] = Some(words(&error));
                return;
            }
        };
        let mut rest = bytes;
        for stripe in stripes {
            let len = self.shape.chunk(at, stripe) + self.shape.trailer_len();
            let bytes = rest.split_to(len.min(rest.len()));
            match Record::verify(&self.shape, &self.generation, at, stripe, &bytes) {
                Some(record) => {
                    if let Some(have) = self.have.get_mut(&stripe) {
                        have[at] = Some(record);
                    }
                }
                None => self.bad[at].push(stripe),
            }
        }
    }

    /// Whoever was not waited for is asked last for a while.
    fn blame_the_slow(&self) {
        for (at, _) in self.in_flight.iter().enumerate().filter(|(_, flight)| flight.is_some()) {
            self.spread.stores[at].suspect();
        }
    }

    fn failure(&self) -> Error {
        if self.is_missing > usize::from(self.shape.parity) {
            return Error::NotFound(self.key.to_owned());
        }
        let needed = self.shape.data;
        let mut why = vec![format!("fewer than the {needed} chunks that are needed are sound")];
        for at in 0..self.shape.shards() {
            if let Some(reason) = &self.out[at] {
                why.push(format!("{}: {reason}", self.spread.name(at)));
            } else if !self.bad[at].is_empty() {
                let count = self.bad[at].len();
                why.push(format!("{}: {count} chunks are damaged", self.spread.name(at)));
            }
        }
        match self.may_pass() {
            true => self.spread.too_few("read", self.key, true, &why),
            false => Error::Damaged { what: "object", reason: why.join("; ") },
        }
    }

    /// Whether every stripe could be had if the stores that are away served again.
    fn may_pass(&self) -> bool {
        let data = usize::from(self.shape.data);
        self.wanted.iter().all(|(stripe, shards)| {
            let may_serve = |at: &usize| self.away[*at] && !self.is_served(*stripe, *at);
            let hoped_for = (0..self.shape.shards()).filter(may_serve).count();
            self.is_done(*stripe, shards) || self.verified(*stripe) + hoped_for >= data
        })
    }

    /// The bytes of `range`, in pieces.
    fn take(&self, code: &StripeCode, range: &Range<u64>) -> Result<Vec<Bytes>> {
        let chunk_len = u64::from(self.shape.chunk_len);
        let mut pieces = Vec::new();
        for stripe in self.stripes.clone() {
            let (Some(shards), Some(have)) = (self.wanted.get(&stripe), self.have.get(&stripe))
            else {
                continue;
            };
            let made = match shards.iter().all(|at| have[*at].is_some()) {
                true => None,
                false => match data_of(code, &self.shape, stripe, have) {
                    None => {
                        let reason = "its sound chunks contradict each other".to_owned();
                        return Err(Error::Damaged { what: "object", reason });
                    }
                    made => made,
                },
            };
            for at in shards {
                let chunk = match (&made, &have[*at]) {
                    (Some(made), _) => made[*at].clone(),
                    (None, Some(record)) => record.chunk.clone(),
                    (None, None) => return Err(self.failure()),
                };
                let begins = stripe * self.shape.stripe_len() + *at as u64 * chunk_len;
                let from = range.start.saturating_sub(begins).min(chunk.len() as u64);
                let to = range.end.saturating_sub(begins).min(chunk.len() as u64);
                pieces.push(chunk.slice(from as usize..to as usize));
            }
        }
        Ok(pieces)
    }
}
