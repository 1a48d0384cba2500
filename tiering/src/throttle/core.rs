//! The decisions, as a machine without time or threads of its own: whoever drives it says what time
//! it is. Requests are asked for, granted in order, and finished or given up.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::breaker::{Breaker, Passage};
use super::bucket::Bucket;
use super::foreground::{Foreground, Why};
use super::latency::Baselines;
use super::meter::Meter;
use super::queue::{Queue, Waiting};
use super::status::{Limit, Status};
use super::window::{REQUEST_COST, Sample, Window};
use super::{Kind, Outcome, Priority, ThrottleConfig};

/// What one request counts for in the window at most: longer ones go in parts, so many at a time.
const MOST_COST: u64 = 16 << 20;

/// What the latency of a read that somebody waits for weighs, against its bytes.
const READ_WEIGHT: u64 = 16;

/// Bytes that users' reads may have in flight however small the window: two long requests, so that
/// one travels while the other is being answered.
const LEAST_FOR_USERS: u64 = (8 << 20) + 2 * REQUEST_COST;

/// A request that was given up after so long had no answer.
const LONG_WAIT: Duration = Duration::from_secs(2);

/// An answer may take this many times what was expected before it counts as missing.
const OVERDUE: f64 = 8.0;

/// A request that runs.
#[derive(Clone, Copy, Debug)]
struct Flight {
    priority: Priority,
    kind: Kind,
    bytes: u64,
    cost: u64,
    since: Instant,
    /// What else was in flight then.
    beside: u64,
    /// The window was at least half full with it.
    fills: bool,
}

#[derive(Debug)]
pub(super) struct Core {
    config: ThrottleConfig,
    bucket: Bucket,
    window: Window,
    baselines: Baselines,
    breaker: Breaker,
    foreground: Foreground,
    queue: Queue,
    flights: HashMap<u64, Flight>,
    in_flight: u64,
    user_in_flight: u64,
    background_bytes: u64,
    meter: Meter,
    paused_until: Option<Instant>,
    /// Somebody waits for what the background does.
    is_hurried: bool,
    heard_at: Instant,
    /// When a request last had an answer.
    answered_at: Option<Instant>,
    /// When the first request was sent that somebody gave up after a while, with no answer to any
    /// since.
    unanswered_since: Option<Instant>,
    next_id: u64,
    /// What held the first back that waits, and until when at most.
    blocked: (Limit, Option<Instant>),
}

impl Core {
    pub(super) fn new(config: ThrottleConfig, now: Instant) -> Self {
        Self {
            bucket: Bucket::new(now),
            window: Window::new(&config),
            baselines: Baselines::new(),
            breaker: Breaker::new(),
            foreground: Foreground::new(),
            queue: Queue::default(),
            flights: HashMap::new(),
            in_flight: 0,
            user_in_flight: 0,
            background_bytes: 0,
            meter: Meter::new(now),
            paused_until: None,
            is_hurried: false,
            heard_at: now,
            answered_at: None,
            unanswered_since: None,
            next_id: 0,
            blocked: (Limit::Nothing, None),
            config,
        }
    }

    pub(super) fn config(&self) -> &ThrottleConfig {
        &self.config
    }

    pub(super) fn set_config(&mut self, config: ThrottleConfig) {
        self.config = config;
        self.window.reconfigure(&self.config);
    }

    /// Puts a request into the queue.
    pub(super) fn ask(&mut self, priority: Priority, kind: Kind, bytes: u64) -> u64 {
        self.next_id += 1;
        let cost = bytes.min(MOST_COST) + REQUEST_COST;
        self.queue.push(Waiting { id: self.next_id, priority, kind, bytes, cost });
        self.next_id
    }

    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_waiting(&self, id: u64) -> bool {
        self.queue.contains(id)
    }

    /// The store asks for silence until then; `None` ends it.
    pub(super) fn pause_until(&mut self, until: Option<Instant>) {
        self.paused_until = until;
    }

    /// Writers wait for space that only the background can make, or no longer do.
    pub(super) fn hurry(&mut self, is_hurried: bool) {
        self.is_hurried = is_hurried;
    }

    /// Whether it is time for [`Core::judge`].
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.foreground.is_due(now)
    }

    /// Looks at the mount's own reads and the disks' pressure.
    pub(super) fn judge(&mut self, now: Instant, pressure: Option<f64>) {
        let is_quiet = std::mem::take(&mut self.background_bytes) < self.config.min_window;
        self.foreground.judge(&self.config, now, pressure, is_quiet);
    }

    pub(super) fn note_foreground(&mut self, latency: Duration) {
        self.foreground.note(latency);
    }

    /// Grants what may go now, in order; `cap` is the rate cap of this moment.
    pub(super) fn grant(&mut self, now: Instant, cap: Option<u64>) -> Vec<u64> {
        self.bucket.advance(now, cap);
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        self.blocked = (Limit::Nothing, None);
        let mut granted = Vec::new();
        while let Some(id) = self.grant_one(now) {
            granted.push(id);
        }
        granted
    }

    fn grant_one(&mut self, now: Instant) -> Option<u64> {
        if let Some(waiting) = self.queue.first(Priority::UserRead) {
            match self.obstacle(now, &waiting) {
                None => return self.start(now, waiting),
                Some(obstacle) => self.blocked = obstacle,
            }
        }
        let waiting = self.queue.next_background()?;
        match self.obstacle(now, &waiting) {
            None => self.start(now, waiting),
            Some(obstacle) => {
                if self.blocked.0 == Limit::Nothing {
                    self.blocked = obstacle;
                }
                None
            }
        }
    }

    /// What holds a request back, and until when at most if time alone may change it.
    fn obstacle(&self, now: Instant, waiting: &Waiting) -> Option<(Limit, Option<Instant>)> {
        if let Some(until) = self.paused_until {
            return Some((Limit::RetryAfter, Some(until)));
        }
        match self.breaker.passage(now) {
            Passage::Open => {}
            Passage::Probe => return None,
            Passage::Closed(until) => return Some((Limit::Failing, until)),
        }
        let borrows = waiting.priority == Priority::UserRead;
        if let Some(limit) = self.window_obstacle(waiting) {
            return Some((limit, self.foreground.judged_again_at()));
        }
        if !self.bucket.is_open(borrows) {
            return Some((Limit::Cap, Some(now + self.bucket.opens_in(borrows))));
        }
        None
    }

    fn window_obstacle(&self, waiting: &Waiting) -> Option<Limit> {
        let window = self.window.bytes();
        if waiting.priority == Priority::UserRead {
            // Whatever the background has in flight: it gives way by not being added to.
            let window = window.max(LEAST_FOR_USERS);
            let fits = self.user_in_flight + waiting.cost <= window || self.user_in_flight == 0;
            return (!fits).then_some(Limit::Window);
        }
        let background = self.in_flight - self.user_in_flight;
        if self.in_flight == 0 || (background == 0 && self.queue.has_credit(waiting)) {
            return None;
        }
        // One may run beside those who read, also when it is longer than the window.
        let most = if background == 0 { window / 2 } else { u64::MAX };
        let all = self.in_flight + waiting.cost.min(most);
        if all > window {
            return Some(Limit::Window);
        }
        let share = (window as f64 * self.share()) as u64;
        if background > 0 && background + waiting.cost > share {
            return Some(match self.foreground.why() {
                Why::Slow => Limit::Foreground,
                Why::Pressure => Limit::Pressure,
                Why::Nothing => Limit::Window,
            });
        }
        None
    }

    /// The share of the window that background work may have.
    fn share(&self) -> f64 {
        if self.is_hurried || !self.config.back_off { 1.0 } else { self.foreground.share() }
    }

    fn start(&mut self, now: Instant, waiting: Waiting) -> Option<u64> {
        if self.breaker.passage(now) == Passage::Probe {
            self.breaker.probes_with(waiting.id);
        }
        self.queue.take(waiting.priority)?;
        self.bucket.charge(waiting.bytes as f64);
        let beside = self.in_flight;
        if beside == 0 {
            self.heard_at = now;
        }
        self.count_in(waiting.priority, waiting.cost);
        let fills = self.in_flight.saturating_mul(2) >= self.window.bytes();
        let Waiting { id, priority, kind, bytes, cost } = waiting;
        self.flights.insert(id, Flight { priority, kind, bytes, cost, since: now, beside, fills });
        Some(id)
    }

    fn count_in(&mut self, priority: Priority, cost: u64) {
        self.in_flight += cost;
        if priority == Priority::UserRead {
            self.user_in_flight += cost;
        }
    }

    fn count_out(&mut self, flight: &Flight) {
        self.in_flight -= flight.cost;
        if flight.priority == Priority::UserRead {
            self.user_in_flight -= flight.cost;
        }
    }

    /// Charges what a request turned out to be longer, or gives back what it was shorter.
    pub(super) fn resize(&mut self, id: u64, bytes: u64) {
        if let Some(flight) = self.flights.get_mut(&id) {
            self.bucket.charge(bytes as f64 - flight.bytes as f64);
            flight.bytes = bytes;
        }
    }

    /// A request ended.
    pub(super) fn finish(&mut self, now: Instant, id: u64, outcome: Outcome) {
        let Some(flight) = self.flights.remove(&id) else { return };
        self.count_out(&flight);
        let has_changed = self.breaker.note(now, id, outcome);
        if outcome == Outcome::Failed {
            self.window.failed(&self.config, now, flight.since);
            return;
        }
        (self.heard_at, self.answered_at) = (now, Some(now));
        self.unanswered_since = None;
        if has_changed {
            self.window.restart(&self.config);
        }
        self.meter.add(now, flight.bytes);
        if flight.priority != Priority::UserRead {
            self.background_bytes += flight.bytes;
        }
        if outcome == Outcome::Done && flight.kind != Kind::Untimed {
            self.learn(now, &flight);
        }
    }

    fn learn(&mut self, now: Instant, flight: &Flight) {
        let latency = now.saturating_duration_since(flight.since);
        // What may always be in flight is no load.
        let is_unloaded = flight.beside <= self.config.min_window
            && self.in_flight <= self.config.min_window.max(flight.beside);
        let quotient = self.baselines.note(flight.kind, flight.bytes, latency, is_unloaded);
        let quotient = match self.config.latency_target {
            // Up to the target it is as good as up to the tolerance.
            Some(target) => quotient.min(
                latency.as_secs_f64() / target.as_secs_f64().max(1e-6) * self.config.tolerance,
            ),
            None => quotient,
        };
        let urgency = if flight.priority == Priority::UserRead { READ_WEIGHT } else { 1 };
        let (kind, weight) = (flight.kind, flight.cost.saturating_mul(urgency));
        let sample = Sample { kind, quotient, cost: flight.cost, weight, was_used: flight.fills };
        self.window.note(&self.config, sample);
    }

    /// A request was given up before its end, or before its turn.
    pub(super) fn abandon(&mut self, now: Instant, id: u64) {
        if let Some(flight) = self.flights.remove(&id) {
            self.count_out(&flight);
            self.breaker.forget(now, id);
            let waited = now.saturating_duration_since(flight.since);
            if waited >= LONG_WAIT && self.heard_at <= flight.since {
                self.unanswered_since.get_or_insert(flight.since);
            }
        } else {
            self.queue.remove(id);
        }
    }

    /// Whether the store has not answered for longer than it ever should.
    fn is_silent(&self, now: Instant) -> bool {
        let Some(oldest) = self.flights.values().min_by_key(|flight| flight.since) else {
            return false;
        };
        let expected = self.baselines.expected(oldest.kind, oldest.bytes).unwrap_or(0.0);
        let overdue = Duration::from_secs_f64((expected * OVERDUE).clamp(0.0, 3600.0));
        let patience = self.config.silence.max(overdue);
        let since = |at: Instant| now.saturating_duration_since(at);
        since(oldest.since) > patience && since(self.heard_at) > patience
    }

    /// Whether whoever asked lately got no answer, although nobody asks now. Says nothing about the
    /// next request, which must be let through to find out.
    fn seems_silent(&self, now: Instant) -> bool {
        let silent_for = self.unanswered_since.map(|at| now.saturating_duration_since(at));
        silent_for.is_some_and(|time| time > self.config.silence) || self.is_silent(now)
    }

    pub(super) fn answered_at(&self) -> Option<Instant> {
        self.answered_at
    }

    /// Whether the store is known not to answer.
    pub(super) fn is_down(&self, now: Instant) -> bool {
        self.breaker.is_failing() || self.is_silent(now)
    }

    /// When time alone may let something go that waits now.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.blocked.1
    }

    pub(super) fn status(&mut self, now: Instant) -> Status {
        let limited_by = match self.blocked.0 {
            Limit::Window if self.seems_silent(now) => Limit::Silent,
            _ if self.queue.len() > 0 => self.blocked.0,
            _ if self.paused_until.is_some_and(|until| until > now) => Limit::RetryAfter,
            _ if self.breaker.is_failing() => Limit::Failing,
            _ if self.seems_silent(now) => Limit::Silent,
            _ => Limit::Nothing,
        };
        let micros = |seconds: f64| (seconds * 1e6) as u64;
        let mut status = Status {
            window_bytes: self.window.bytes(),
            in_flight_bytes: self.flights.values().map(|flight| flight.bytes).sum(),
            in_flight: self.flights.len() as u64,
            waiting: Priority::ALL.map(|priority| self.queue.waiting(priority) as u64),
            rate_cap: self.bucket.rate(),
            achieved_bytes_per_s: self.meter.per_second(now),
            stretch: self.window.stretch(),
            background_share: self.share(),
            limited_by,
            reason: String::new(),
            paused_ms: self
                .paused_until
                .and_then(|until| until.checked_duration_since(now))
                .map(|left| left.as_millis() as u64),
            foreground_p95_us: self.foreground.p95().map(|(p95, _)| micros(p95)),
            foreground_baseline_us: self.foreground.p95().map(|(_, baseline)| micros(baseline)),
            io_pressure_percent: self.foreground.pressure(),
            is_down: self.is_down(now) || self.seems_silent(now),
        };
        status.reason = reason(&status);
        status
    }

    /// Bytes that may be in flight.
    #[cfg(test)]
    pub(super) fn window_bytes(&self) -> u64 {
        self.window.bytes()
    }
}

/// What limits, in words.
fn reason(status: &Status) -> String {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    match status.limited_by {
        Limit::Nothing => String::new(),
        Limit::Cap => match status.rate_cap {
            Some(rate) => format!("the rate cap of {:.1} MiB/s", mib(rate)),
            None => "the rate cap".to_owned(),
        },
        Limit::Window => format!(
            "the store is busy: {:.1} MiB in flight, answers take {:.1} times as long as alone",
            mib(status.in_flight_bytes),
            status.stretch
        ),
        Limit::Foreground => format!(
            "reads of the mount take {} us at the 95th percentile, usually {} us",
            status.foreground_p95_us.unwrap_or(0),
            status.foreground_baseline_us.unwrap_or(0)
        ),
        Limit::Pressure => format!(
            "the disks are under pressure: {:.0} % of the time somebody waits",
            status.io_pressure_percent.unwrap_or(0.0)
        ),
        Limit::RetryAfter => format!(
            "the store asked for a pause, {:.0} s of it are left",
            status.paused_ms.unwrap_or(0) as f64 / 1000.0
        ),
        Limit::Failing => "the store fails every request; it is tried from time to time".to_owned(),
        Limit::Silent => "the store does not answer".to_owned(),
    }
}
