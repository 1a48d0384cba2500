//! The loop around the classifier, the same for a volume and for the replay of a trace: take samples,
//! wait for their labels, train now and then, watch whether what was promised is kept.

use std::collections::VecDeque;

use super::band::COLD_PRECISION;
use super::metrics::{Metrics, Scored};
use super::model::{Decision, Model};
use super::samples::{Limits, Outcome, Sample, Samples};
use super::train::{Why, learn_latest};
use crate::heat::features::Features;

/// Outcomes that are watched.
const WATCHED: usize = 2048;

/// Fewest "will stay cold" among them to judge the promise by.
const FEWEST_COLD: usize = 60;

/// Most that is asked beyond the promise.
const STRICTEST: f64 = 0.03;

/// Labelled samples that came since the last training and are worth another one, at least.
const NEWS: usize = 256;

/// Samples, the model in use, and its record.
#[derive(Clone, Debug)]
pub struct Learner {
    /// The samples.
    pub samples: Samples,
    model: Option<Model>,
    record: VecDeque<Outcome>,
    /// Labelled since the last training.
    fresh: usize,
    seed: u64,
}

impl Learner {
    /// Knows nothing yet.
    pub fn new(horizon_ms: u64, limits: Limits, seed: u64) -> Self {
        Self::with(Samples::new(horizon_ms, limits), None, seed)
    }

    /// Goes on with samples and a model that were stored.
    pub fn with(samples: Samples, model: Option<Model>, seed: u64) -> Self {
        let fresh = samples.len();
        let record = VecDeque::new();
        Self { samples, model, record, fresh, seed }
    }

    /// The model in use.
    pub fn model(&self) -> Option<&Model> {
        self.model.as_ref()
    }

    /// Takes a sample of a candidate, with what the model says about it now.
    pub fn offer(&mut self, item: u64, features: &Features, now_ms: u64) -> bool {
        let said = self.model.as_ref().map(|model| model.predict(features));
        self.samples.offer(item, features, said, now_ms)
    }

    /// Labels what can be labelled by now, and keeps the record.
    pub fn mature(&mut self, now_ms: u64, mut tell: impl FnMut(&Outcome)) {
        let (record, fresh) = (&mut self.record, &mut self.fresh);
        self.samples.mature(now_ms, |outcome| {
            tell(&outcome);
            *fresh += 1;
            if record.len() >= WATCHED {
                record.pop_front();
            }
            record.push_back(outcome);
        });
    }

    /// Whether enough is new since the last training.
    pub fn training_is_due(&self) -> bool {
        self.fresh >= NEWS.max(self.samples.len() / 8)
    }

    /// What to train with, for a thread of its own: samples, strictness and seed of [`train`].
    pub fn lesson(&mut self) -> (Vec<Sample>, f64, u64) {
        self.fresh = 0;
        self.seed = crate::mix::mix(self.seed);
        let samples = self.samples.matured().into_iter().cloned().collect();
        (samples, self.strictness(), self.seed)
    }

    /// Trains at once, and uses the result.
    pub fn train(&mut self) -> Result<(), Why> {
        self.fresh = 0;
        self.seed = crate::mix::mix(self.seed);
        let samples = self.samples.matured();
        let horizon_ms = self.samples.horizon_ms();
        self.model = Some(learn_latest(&samples, horizon_ms, self.strictness(), self.seed)?);
        Ok(())
    }

    /// Uses another model, or none, from now on.
    pub fn adopt(&mut self, model: Option<Model>) {
        self.model = model;
    }

    /// How the predictions that were made in earnest turned out lately; `None` before there are any.
    pub fn record(&self) -> Option<Metrics> {
        let scored: Vec<_> = self
            .record
            .iter()
            .filter_map(|outcome| Some(Scored::of(&outcome.said?, outcome.reused)))
            .collect();
        (!scored.is_empty()).then(|| Metrics::of(&scored))
    }

    /// Asks for as much more as the promise fell short lately. It does not add up from one training to
    /// the next, since they look at the same predictions again.
    fn strictness(&self) -> f64 {
        let mut count = 0;
        let mut right = 0;
        for outcome in &self.record {
            if outcome.said.is_some_and(|said| said.decision == Decision::StaysCold) {
                count += 1;
                right += usize::from(!outcome.reused);
            }
        }
        if count < FEWEST_COLD {
            return 0.0;
        }
        (COLD_PRECISION - right as f64 / count as f64).clamp(0.0, STRICTEST)
    }
}
