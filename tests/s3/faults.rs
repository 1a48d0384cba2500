//! What goes wrong between a client and the store, on demand, and what was seen of the requests.
//!
//! A [`Plan`] holds for every request that begins after it was set; bodies that are on their way
//! heed a new `stalled` and `bytes_per_second` at once. Chance is a function of the plan's seed and
//! the number of the request, so that a run with one client can be repeated.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::Instant;

/// Requests that the log keeps; older ones are only counted.
const LOGGED: usize = 10_000;

/// What goes wrong, and how often. Shares are of requests, from 0 to 1.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// Seed of chance.
    pub seed: u64,
    /// Share that is answered with `503 Slow Down`.
    pub slow_down: f64,
    /// Seconds in the `Retry-After` of those; without it they have no such header.
    pub retry_after_s: Option<u64>,
    /// Share whose connection is reset instead of an answer: half of them before the store has
    /// heard of the request, half after it has done what was asked.
    pub reset: f64,
    /// Share whose body ends before its `Content-Length`.
    pub truncate: f64,
    /// Share of reads in which one byte of the body is wrong.
    pub corrupt: f64,
    /// Milliseconds before each answer.
    pub latency_ms: u64,
    /// Nothing is answered, and no body goes on, until this is lifted.
    pub stalled: bool,
    /// Bytes a second of all bodies together, in both directions; absent is unlimited.
    pub bytes_per_second: Option<u64>,
}

impl Plan {
    /// Reads a plan in TOML, `slow_down = 0.2` and so on; an unknown key is refused.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// What befalls a request.
    pub(crate) fn fate(&self, number: u64, is_read: bool) -> Fate {
        let mut chance = Chance(self.seed ^ number.wrapping_mul(0xd134_2543_de82_ef95));
        let slow_down = chance.share() < self.slow_down;
        let reset = chance.share() < self.reset;
        let after = chance.share() < 0.5;
        let truncate = chance.share() < self.truncate;
        let corrupt = chance.share() < self.corrupt;
        let at = chance.share();
        match () {
            () if slow_down => Fate::SlowDown,
            () if reset && after => Fate::ResetAfter,
            () if reset => Fate::ResetBefore,
            () if truncate => Fate::Truncate(at),
            () if corrupt && is_read => Fate::Corrupt(at),
            () => Fate::None,
        }
    }
}

/// What befalls one request. Places in a body are shares of its length.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Fate {
    /// Nothing.
    #[default]
    None,
    /// `503 Slow Down`.
    SlowDown,
    /// A reset before the store has heard of it.
    ResetBefore,
    /// A reset after the store has done it.
    ResetAfter,
    /// The body ends here.
    Truncate(f64),
    /// One byte is wrong, here.
    Corrupt(f64),
}

/// A seeded sequence (splitmix64, Steele et al. 2014).
struct Chance(u64);

impl Chance {
    /// The next number below 1.
    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// One request, after its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Its number, from 0.
    pub number: u64,
    /// Its method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Its `Range` header.
    pub range: Option<String>,
    /// The status of the answer; 0 when there was none.
    pub status: u16,
    /// Bytes of body that came.
    pub received_bytes: u64,
    /// Bytes of body that went.
    pub sent_bytes: u64,
    /// What befell it.
    pub fate: Fate,
}

impl Request {
    /// One line of a log.
    pub fn line(&self) -> String {
        let Self { number, method, target, range, status, received_bytes, sent_bytes, fate } = self;
        let range = range.as_deref().unwrap_or("-");
        format!(
            "{number} {method} {target} {range} {status} in {received_bytes} out {sent_bytes} \
             {fate:?}"
        )
    }
}

/// Sums over all requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Requests that began, by method.
    pub methods: BTreeMap<String, u64>,
    /// Requests under way now.
    pub concurrent: u64,
    /// Most requests that were under way at once.
    pub concurrent_max: u64,
    /// Bytes of bodies that came, of requests that ended.
    pub received_bytes: u64,
    /// Bytes of bodies that went, of requests that ended.
    pub sent_bytes: u64,
    /// Requests with a fate other than [`Fate::None`].
    pub faults: u64,
}

impl Seen {
    /// Requests that began.
    pub fn requests(&self) -> u64 {
        self.methods.values().sum()
    }
}

/// Sets what goes wrong, and tells what was seen. Clones share one state.
#[derive(Clone, Debug)]
pub struct Faults {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    plan: watch::Sender<Plan>,
    book: Mutex<Book>,
    /// When the bytes that were admitted so far have passed.
    pace: Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Book {
    begun: u64,
    seen: Seen,
    log: VecDeque<Request>,
    sink: Option<std::fs::File>,
}

impl Default for Faults {
    fn default() -> Self {
        let (plan, _) = watch::channel(Plan::default());
        Self { shared: Arc::new(Shared { plan, book: Mutex::default(), pace: Mutex::default() }) }
    }
}

impl Faults {
    /// Has this happen from now on.
    pub fn set(&self, plan: Plan) {
        self.shared.plan.send_replace(plan);
    }

    /// Has nothing happen any more.
    pub fn clear(&self) {
        self.set(Plan::default());
    }

    /// What holds now.
    pub fn plan(&self) -> Plan {
        self.shared.plan.borrow().clone()
    }

    /// Sums over all requests since the start or [`Faults::forget`].
    pub fn seen(&self) -> Seen {
        self.book().seen.clone()
    }

    /// The newest requests that ended, oldest first, 10,000 at most.
    pub fn log(&self) -> Vec<Request> {
        self.book().log.iter().cloned().collect()
    }

    /// Counts from zero again, and empties the log.
    pub fn forget(&self) {
        let mut book = self.book();
        let concurrent = book.seen.concurrent;
        book.seen = Seen { concurrent, concurrent_max: concurrent, ..Seen::default() };
        book.log.clear();
    }

    /// Writes a line for each request that ends to this file as well.
    pub(crate) fn log_to(&self, file: std::fs::File) {
        self.book().sink = Some(file);
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.shared.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request that begins.
    pub(crate) fn begin(&self, method: &str, target: String, range: Option<String>) -> Visit {
        let mut book = self.book();
        let number = book.begun;
        book.begun += 1;
        *book.seen.methods.entry(method.to_owned()).or_default() += 1;
        book.seen.concurrent += 1;
        book.seen.concurrent_max = book.seen.concurrent_max.max(book.seen.concurrent);
        drop(book);
        let fate = self.plan().fate(number, method == "GET");
        let request = Request {
            number,
            method: method.to_owned(),
            target,
            range,
            status: 0,
            received_bytes: 0,
            sent_bytes: 0,
            fate,
        };
        Visit { faults: self.clone(), request: Mutex::new(request) }
    }

    /// Returns as soon as nothing is held up.
    pub(crate) async fn unstalled(&self) {
        let mut plan = self.shared.plan.subscribe();
        // The sender lives in `self`.
        let _ = plan.wait_for(|plan| !plan.stalled).await;
    }

    /// Returns when so many bytes may pass.
    pub(crate) async fn pace(&self, bytes: usize) {
        self.unstalled().await;
        let Some(rate) = self.shared.plan.borrow().bytes_per_second else { return };
        let time = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        let until = {
            let mut pace = self.shared.pace.lock().unwrap_or_else(PoisonError::into_inner);
            let until = now().max(pace.unwrap_or_else(now)) + time;
            *pace = Some(until);
            until
        };
        tokio::time::sleep_until(until).await;
    }
}

fn now() -> Instant {
    Instant::now()
}

/// A request under way; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Visit {
    faults: Faults,
    request: Mutex<Request>,
}

impl Visit {
    /// What befalls it.
    pub(crate) fn fate(&self) -> Fate {
        self.request().fate
    }

    pub(crate) fn faults(&self) -> &Faults {
        &self.faults
    }

    pub(crate) fn answered(&self, status: u16) {
        self.request().status = status;
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.request().received_bytes += bytes as u64;
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.request().sent_bytes += bytes as u64;
    }

    fn request(&self) -> MutexGuard<'_, Request> {
        self.request.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        use std::io::Write;
        let request = self.request().clone();
        let mut book = self.faults.book();
        book.seen.concurrent = book.seen.concurrent.saturating_sub(1);
        book.seen.received_bytes += request.received_bytes;
        book.seen.sent_bytes += request.sent_bytes;
        book.seen.faults += u64::from(request.fate != Fate::None);
        if let Some(sink) = &mut book.sink {
            // A log on a full disk ends; what it tells of goes on.
            let _ = writeln!(sink, "{}", request.line());
        }
        if book.log.len() == LOGGED {
            book.log.pop_front();
        }
        book.log.push_back(request);
    }
}
