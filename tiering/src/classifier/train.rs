//! Training: what is learned is older than what calibrates it, and that is older than what it is
//! judged by, each by a whole horizon, so that no label reaches into the time after it.
//!
//! Few samples can be later than those learned from. Most of what calibrates are older samples with the
//! score that the model in use gave them when they were taken: that model knew nothing later either,
//! and the regime of several horizons says more about a promise than the latest alone.

use serde::{Deserialize, Serialize};

use super::band::{Band, Judged, sure_end};
use super::calibrate::Calibration;
use super::learn;
use super::metrics::{Metrics, Scored, auc};
use super::model::{KindRates, Model, Scores};
use super::samples::Sample;
use super::tree::Labelled;
use crate::heat::features::{Features, IDLE_AT, KIND_AT, KIND_BUCKETS};
use crate::mix::{Chance, mix};

/// Fewest samples to learn from, of both classes together and of the rarer one.
const FEWEST: usize = 200;
const FEWEST_OF_CLASS: usize = 15;

/// Fewest samples to grow trees from.
const FEWEST_FOR_TREES: usize = 600;

/// Fewest samples to calibrate or to judge with.
const FEWEST_LATER: usize = 100;

/// Share of the samples that calibrates a new model with its own scores, the latest; and that judges.
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
    /// The model: learned from all samples but the latest, which calibrated it with others.
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
    /// The threshold that is right most often on these samples, whose score is that logarithm.
    pub(super) fn tune(samples: &[Judged]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(|a, b| b.score.total_cmp(&a.score));
        // From the longest idle on: cold so far, reused after.
        let mut right = sorted.iter().filter(|one| one.reused).count() as i64;
        let (mut best, mut cold_from) = (right, f32::INFINITY);
        for ties in sorted.chunk_by(|a, b| a.score == b.score) {
            right += ties.iter().map(|one| if one.reused { -1 } else { 1 }).sum::<i64>();
            if right > best {
                (best, cold_from) = (right, ties[0].score);
            }
        }
        Self { cold_from, sure_from: sure_end(&sorted) }
    }

    /// Whether it says that an item idle for so long stays cold, and whether it is sure.
    pub(super) fn says(&self, idle: f32) -> (bool, bool) {
        (idle >= self.cold_from, self.sure_from.is_some_and(|sure| idle >= sure))
    }

    /// What it would have said, as a prediction: it knows no probabilities.
    pub(super) fn judge(&self, idle: f32, reused: bool) -> Scored {
        let (cold, sure) = self.says(idle);
        let p_reuse = if cold { 0.0 } else { 1.0 };
        Scored { p_reuse, reuse: !cold, cold: sure, reused }
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
    if let Ok(held) = learn_latest(past, horizon_ms, strictness, seed) {
        report.model = Some(judge(later, &held));
        report.age = Some(judge_age(past, later, horizon_ms));
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
    if older.len() < FEWEST || later.len() < FEWEST_LATER {
        return Err(Why::TooFew { have: older.len() });
    }
    let reused = older.iter().filter(|sample| sample.reused).count();
    let rarer = reused.min(older.len() - reused);
    if rarer < FEWEST_OF_CLASS {
        return Err(Why::OneClass { have: rarer });
    }
    let kinds = kind_rates(older);
    let scores = learn(older, later, &kinds, seed).ok_or(Why::OneClass { have: rarer })?;
    let judged = calibrating(samples, later, horizon_ms, &kinds, &scores);
    let calibration = Calibration::of(&judged).ok_or(Why::TooFew { have: 0 })?;
    let band = Band::of(&judged, later.len(), &calibration, strictness);
    let trained_ms = later.last().map_or(0, |last| last.at_ms);
    let samples = (older.len() + later.len()) as u32;
    Ok(Model { horizon_ms, trained_ms, samples, kinds, scores, calibration, band })
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

/// The scores that order the later samples better: the forest unless the regression is clearly ahead.
fn learn(older: &[&Sample], later: &[&Sample], kinds: &KindRates, seed: u64) -> Option<Scores> {
    let known = apply(kinds, older);
    let labelled: Vec<Labelled<'_>> =
        known.iter().zip(older).map(|(features, sample)| (features, sample.reused)).collect();
    let forest = (older.len() >= FEWEST_FOR_TREES)
        .then(|| learn::forest(&labelled, &mut Chance::new(seed)))
        .flatten()
        .map(Scores::Forest);
    let logistic = learn::logistic(&labelled).map(|fitted| Scores::Logistic(Box::new(fitted)));
    let described = apply(kinds, later);
    let order = |scores: &Scores| {
        let scored = described.iter().zip(later);
        auc(&scored.map(|(known, sample)| (scores.score(known), sample.reused)).collect::<Vec<_>>())
    };
    match (forest, logistic) {
        (Some(forest), Some(logistic)) if order(&logistic) > order(&forest) + AHEAD => {
            Some(logistic)
        }
        (forest, logistic) => forest.or(logistic),
    }
}

/// All that may calibrate, by time: older samples as they were scored in their time by a model of the
/// same make, and the later ones as they are now.
fn calibrating(
    samples: &[&Sample],
    later: &[&Sample],
    horizon_ms: u64,
    kinds: &KindRates,
    scores: &Scores,
) -> Vec<Judged> {
    let start = samples.len() - later.len();
    let then = samples[..start].iter().filter_map(|sample| {
        let (_, score) = sample.score.filter(|(scorer, _)| *scorer == scores.scorer())?;
        Some(Judged { score, ..by_age(sample, horizon_ms) })
    });
    let now = later.iter().map(|sample| {
        let score = scores.score(&kinds.apply(&sample.features));
        Judged { score, ..by_age(sample, horizon_ms) }
    });
    then.chain(now).collect()
}

fn apply(kinds: &KindRates, samples: &[&Sample]) -> Vec<Features> {
    samples.iter().map(|sample| kinds.apply(&sample.features)).collect()
}

/// A sample as an age rule scores it.
fn by_age(sample: &Sample, horizon_ms: u64) -> Judged {
    let source = source(sample.item, sample.at_ms, horizon_ms);
    Judged { score: sample.features[IDLE_AT], reused: sample.reused, source }
}

/// What samples of one item within one horizon have in common.
pub(super) fn source(item: u64, at_ms: u64, horizon_ms: u64) -> u64 {
    mix(item ^ mix(at_ms / horizon_ms.max(1)))
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
    let said = |sample: &&Sample| Scored::of(&model.predict(&sample.features), sample.reused);
    Metrics::of(&later.iter().map(said).collect::<Vec<_>>())
}

fn judge_age(past: &[&Sample], later: &[&Sample], horizon_ms: u64) -> Metrics {
    let past: Vec<_> = past.iter().map(|sample| by_age(sample, horizon_ms)).collect();
    let rule = AgeRule::tune(&past);
    let said = |sample: &&Sample| rule.judge(sample.features[IDLE_AT], sample.reused);
    Metrics::of(&later.iter().map(said).collect::<Vec<_>>())
}
