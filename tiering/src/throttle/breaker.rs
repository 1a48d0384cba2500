//! The success-rate gate: a store that only fails is left alone, and asked by one request at a time
//! until one succeeds. The pause between two such probes doubles. What happened to requests that
//! were sent before the last change of mind counts once.

use std::time::{Duration, Instant};

use super::Outcome;

/// Failures in a row, without a success in between, after which a store counts as failing.
const FAILURES: u32 = 5;
/// First and longest pause between two probes.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Breaker {
    failures: u32,
    /// When the next probe may go; `None` while all is well.
    open_until: Option<Instant>,
    pause: Duration,
    /// The request that probes.
    probe: Option<u64>,
}

/// What may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passage {
    Open,
    /// One request, to see.
    Probe,
    /// Nothing; until then, or until the probe has come back.
    Closed(Option<Instant>),
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self { failures: 0, open_until: None, pause: FIRST_PAUSE, probe: None }
    }

    pub(super) fn is_failing(&self) -> bool {
        self.open_until.is_some()
    }

    pub(super) fn passage(&self, now: Instant) -> Passage {
        match (self.open_until, self.probe) {
            (None, _) => Passage::Open,
            (Some(_), Some(_)) => Passage::Closed(None),
            (Some(until), None) if now >= until => Passage::Probe,
            (Some(until), None) => Passage::Closed(Some(until)),
        }
    }

    /// The request that went when [`Passage::Probe`] was the answer.
    pub(super) fn probes_with(&mut self, id: u64) {
        self.probe = Some(id);
    }

    /// Whether the store has begun to fail or to work with this.
    pub(super) fn note(&mut self, now: Instant, id: u64, outcome: Outcome) -> bool {
        let was_failing = self.is_failing();
        let probed = self.probe == Some(id);
        if outcome != Outcome::Failed {
            *self = Self::new();
            return was_failing;
        }
        self.failures = self.failures.saturating_add(1);
        if probed {
            self.probe = None;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            self.open_until = Some(now + self.pause);
        } else if !was_failing && self.failures >= FAILURES {
            self.open_until = Some(now + self.pause);
            return true;
        }
        false
    }

    /// A request was given up: nothing is known of the store.
    pub(super) fn forget(&mut self, now: Instant, id: u64) {
        if self.probe == Some(id) {
            self.probe = None;
            self.open_until = Some(now + self.pause);
        }
    }
}
