//! Training: what is learned is older than what calibrates it, and that is older than what it is
//! judged by, each by a whole horizon, so that no label reaches into the time after it.

use serde::{Deserialize, Serialize};

use super::calibrate::{Band, COLD_PRECISION, Calibration, DOUBT, widest};
use super::learn;
use super::metrics::{Metrics, Scored, auc};
use super::model::{KindRates, Model, Scores};
use super::samples::Sample;
use super::tree::Labelled;
use crate::heat::features::{Features, IDLE_AT, KIND_AT, KIND_BUCKETS};
use crate::mix::Chance;

/// Fewest samples to learn from, of both classes together and of the rarer one.
const FEWEST: usize = 200;
const FEWEST_OF_CLASS: usize = 15;

/// Fewest samples to grow trees from.
const FEWEST_FOR_TREES: usize = 600;

/// Fewest samples to calibrate or to judge with.
const FEWEST_LATER: usize = 100;

/// Share of the samples that calibrates, the latest; and that judges.
const LATER: f64 = 0.2;

/// By how much the regression has to order later samples better than the forest to be taken.
const AHEAD: f64 = 0.01;

/// Samples by which a kind's rate is drawn towards that of all.
const KIND_SMOOTHING: f32 = 30.0;

/// Why there is no model yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// Too few samples are labelled, or they do not reach back far enough: apart from what is learned
    /// from, a horizon has to pass, and then some to calibrate with.
    #[error("{have} samples are old enough to learn from, {FEWEST} are needed")]
    TooFew {
        /// Samples that could be learned from.
        have: usize,
    },
    /// Nearly all had the same fate, so that there is nothing to tell apart.
    #[error("{have} samples of the rarer class, {FEWEST_OF_CLASS} are needed")]
    OneClass {
        /// Samples of the rarer class.
        have: usize,
    },
}

/// A model with how good it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// The model: learned from all samples but the latest, which calibrated it.
    pub model: Model,
    /// How good one was that was made in the same way, but judged on the latest samples.
    pub report: Report,
}

/// How good a model is on later time than it was learned from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Samples learned from.
    pub learned: u64,
    /// Samples calibrated with.
    pub calibrated: u64,
    /// The model, on samples later than both; `None` while there are too few to hold some back.
    pub model: Option<Metrics>,
    /// The age rule tuned on the same past, on the same samples.
    pub age: Option<Metrics>,
}

/// The best that the time since the last access alone can say.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgeRule {
    /// Logarithm to the base of 2 of the ms without access beyond which "not reused" is said.
    pub cold_from: f32,
    /// Beyond which it is right 95 times in 100, by the samples it was tuned on.
    pub sure_from: Option<f32>,
}

impl AgeRule {
    /// The threshold that is right most often on these samples.
    pub(super) fn tune(samples: &[(f32, bool)]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
        // From the longest idle on: cold so far, reused after.
        let mut right = sorted.iter().filter(|(_, reused)| *reused).count() as i64;
        let (mut best, mut cold_from) = (right, f32::INFINITY);
        for (at, &(idle, reused)) in sorted.iter().enumerate() {
            right += if reused { -1 } else { 1 };
            let ties = sorted.get(at + 1).is_some_and(|next| next.0 == idle);
            if !ties && right > best {
                (best, cold_from) = (right, idle);
            }
        }
        Self { cold_from, sure_from: widest(&sorted, false, COLD_PRECISION, DOUBT) }
    }

    /// Whether it says that an item idle for so long stays cold, and whether it is sure.
    pub(super) fn says(&self, idle: f32) -> (bool, bool) {
        (idle >= self.cold_from, self.sure_from.is_some_and(|sure| idle >= sure))
    }
}

/// Makes a model of labelled samples in the order of time. `strictness` is what is asked of "will
/// stay cold" beyond its promise, 0 for a model that keeps it. The same input gives the same model.
pub fn train(
    samples: &[&Sample],
    horizon_ms: u64,
    strictness: f64,
    seed: u64,
) -> Result<Trained, Why> {
    let model = learn_latest(samples, horizon_ms, strictness, seed)?;
    let (older, later) = split(samples, horizon_ms);
    let mut report = Report {
        learned: older.len() as u64,
        calibrated: later.len() as u64,
        model: None,
        age: None,
    };
    let past = known_before(samples, later.first().map_or(0, |first| first.at_ms), horizon_ms);
    let (oldest, between) = split(past, horizon_ms);
    if let Ok(held) = fit(oldest, between, horizon_ms, strictness, seed) {
        report.model = Some(judge(later, &held));
        report.age = Some(judge_age(past, later));
    }
    Ok(Trained { model, report })
}

/// Makes the model only, without judging it: half of the work.
pub(super) fn learn_latest(
    samples: &[&Sample],
    horizon_ms: u64,
    strictness: f64,
    seed: u64,
) -> Result<Model, Why> {
    let (older, later) = split(samples, horizon_ms);
    fit(older, later, horizon_ms, strictness, seed)
}

/// The samples whose label was known at a time.
fn known_before<'a, 'b>(
    samples: &'b [&'a Sample],
    at_ms: u64,
    horizon_ms: u64,
) -> &'b [&'a Sample] {
    let known = samples.partition_point(|sample| sample.at_ms.saturating_add(horizon_ms) < at_ms);
    &samples[..known]
}

/// What may be learned from, and the latest samples; a horizon lies between.
pub(super) fn split<'a, 'b>(
    samples: &'b [&'a Sample],
    horizon_ms: u64,
) -> (&'b [&'a Sample], &'b [&'a Sample]) {
    let later = ((samples.len() as f64 * LATER) as usize).max(FEWEST_LATER).min(samples.len());
    let mut from = samples.len() - later;
    // Samples of one time stay together.
    while from > 0 && samples[from - 1].at_ms == samples[from].at_ms {
        from -= 1;
    }
    let start_ms = samples.get(from).map_or(0, |first| first.at_ms);
    (known_before(samples, start_ms, horizon_ms), &samples[from..])
}

fn fit(
    older: &[&Sample],
    later: &[&Sample],
    horizon_ms: u64,
    strictness: f64,
    seed: u64,
) -> Result<Model, Why> {
    if older.len() < FEWEST || later.len() < FEWEST_LATER {
        return Err(Why::TooFew { have: older.len() });
    }
    let reused = older.iter().filter(|sample| sample.reused).count();
    let rarer = reused.min(older.len() - reused);
    if rarer < FEWEST_OF_CLASS {
        return Err(Why::OneClass { have: rarer });
    }
    let kinds = kind_rates(older);
    let (known, learned) = (apply(&kinds, older), apply(&kinds, later));
    let older = labelled(&known, older);
    let later_labelled = labelled(&learned, later);
    let mut chance = Chance::new(seed);
    let forest = (older.len() >= FEWEST_FOR_TREES)
        .then(|| learn::forest(&older, &mut chance))
        .flatten()
        .map(Scores::Forest);
    let logistic = learn::logistic(&older).map(|fitted| Scores::Logistic(Box::new(fitted)));
    let scores = better(forest, logistic, &later_labelled).ok_or(Why::OneClass { have: rarer })?;
    let scored = score_all(&scores, &later_labelled);
    let calibration = Calibration::of(&scored).ok_or(Why::TooFew { have: 0 })?;
    let trained_ms = later.last().map_or(0, |last| last.at_ms);
    let band = Band::of(&scored, strictness);
    let samples = (older.len() + later.len()) as u32;
    Ok(Model { horizon_ms, trained_ms, samples, kinds, scores, calibration, band })
}

fn better(
    forest: Option<Scores>,
    logistic: Option<Scores>,
    later: &[Labelled<'_>],
) -> Option<Scores> {
    let order = |scores: &Scores| auc(&score_all(scores, later));
    match (forest, logistic) {
        (Some(forest), Some(logistic)) if order(&logistic) > order(&forest) + AHEAD => {
            Some(logistic)
        }
        (forest, logistic) => forest.or(logistic),
    }
}

fn score_all(scores: &Scores, samples: &[Labelled<'_>]) -> Vec<(f32, bool)> {
    samples.iter().map(|(features, reused)| (scores.score(features), *reused)).collect()
}

fn apply(kinds: &KindRates, samples: &[&Sample]) -> Vec<Features> {
    samples.iter().map(|sample| kinds.apply(&sample.features)).collect()
}

fn labelled<'a>(features: &'a [Features], samples: &[&Sample]) -> Vec<Labelled<'a>> {
    features.iter().zip(samples).map(|(features, sample)| (features, sample.reused)).collect()
}

fn kind_rates(samples: &[&Sample]) -> KindRates {
    let reused = samples.iter().filter(|sample| sample.reused).count() as f32;
    let mean = reused / samples.len().max(1) as f32;
    let mut counts = vec![(0.0_f32, 0.0_f32); KIND_BUCKETS];
    for sample in samples {
        let bucket = sample.features[KIND_AT].clamp(0.0, (KIND_BUCKETS - 1) as f32) as usize;
        counts[bucket].0 += f32::from(u8::from(sample.reused));
        counts[bucket].1 += 1.0;
    }
    let rate = |(reused, count)| (reused + KIND_SMOOTHING * mean) / (count + KIND_SMOOTHING);
    KindRates(counts.into_iter().map(rate).collect())
}

fn judge(later: &[&Sample], model: &Model) -> Metrics {
    let scored: Vec<_> = later
        .iter()
        .map(|sample| {
            let said = model.predict(&sample.features);
            Scored::of(&said, sample.reused)
        })
        .collect();
    Metrics::of(&scored)
}

fn judge_age(past: &[&Sample], later: &[&Sample]) -> Metrics {
    let idle = |sample: &&Sample| (sample.features[IDLE_AT], sample.reused);
    let rule = AgeRule::tune(&past.iter().map(idle).collect::<Vec<_>>());
    let scored: Vec<_> =
        later.iter().map(|sample| rule.judge(sample.features[IDLE_AT], sample.reused)).collect();
    Metrics::of(&scored)
}

impl AgeRule {
    /// What it would have said, as a prediction: it knows no probabilities.
    pub(super) fn judge(&self, idle: f32, reused: bool) -> Scored {
        let (cold, sure) = self.says(idle);
        let p_reuse = if cold { 0.0 } else { 1.0 };
        Scored { p_reuse, reuse: !cold, cold: sure, reused }
    }
}
