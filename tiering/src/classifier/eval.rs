//! What the classifier would have been worth on a trace, beside what is simpler.
//!
//! The trace is replayed once from its start. A model is trained now and then on what lies in the
//! past of that moment, labels included, and stands still in between: so each prediction is about
//! later time than it was learned from, by a horizon. Only the part from `measured_from_ms` on
//! counts.

use serde::Serialize;

use super::band::Judged;
use super::metrics::{Metrics, Scored};
use super::samples::{Limits, Outcome};
use super::strategy::ModelStrategy;
use super::train::{AgeRule, source};
use crate::replay::{
    Fallback, Goal, Guarded, GuardrailConfig, Lru, Offline, Request, S3Fifo, Score, Strategy,
    replay,
};

/// The horizon without one given, in turnovers of the tier: how long LRU takes to replace all of it.
const TURNOVERS: u64 = 2;

/// Longest horizon without one given, as a part of the trace: labels have to mature in it.
const MOST_OF_TRACE: u64 = 12;

/// Part of the trace that is learned from before anything counts.
const UNMEASURED: u64 = 2;

/// Hits of one strategy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hits {
    /// Which: `lru`, `s3-fifo`, `model`, `model guarded`, `offline hits`, `offline bytes`.
    pub strategy: String,
    /// Hits by requests.
    pub hit_ratio: f64,
    /// Bytes hit by bytes read.
    pub byte_hit_ratio: f64,
}

/// What came of one trace at one capacity.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Capacity of the tier in bytes.
    pub capacity_bytes: u64,
    /// How far predictions look ahead, in ms.
    pub horizon_ms: u64,
    /// What came before only taught; in ms since 1970.
    pub measured_from_ms: u64,
    /// Models made on the way.
    pub trainings: u32,
    /// Times the guardrail switched the model off or on.
    pub switches: u32,
    /// The predictions.
    pub model: Metrics,
    /// Those of the age rule tuned on the part that is not measured.
    pub age: Metrics,
    /// Every strategy. An age rule is not among them: whatever its threshold, it evicts in the order
    /// of LRU, and has at most its hits.
    pub hits: Vec<Hits>,
}

/// When measuring begins: in the middle of the trace.
pub fn measured_from_ms(trace: &[Request]) -> u64 {
    let (first, last) = ends(trace);
    first + (last - first) / UNMEASURED
}

/// The horizon that suits a tier of this capacity: twice its turnover under LRU in the part of the
/// trace that is not measured, and no more than a twelfth of the trace.
pub fn suitable_horizon_ms(trace: &[Request], capacity_bytes: u64) -> u64 {
    let (first, last) = ends(trace);
    let from_ms = measured_from_ms(trace);
    let known = &trace[..trace.partition_point(|request| request.at_ms < from_ms)];
    let evicted = replay(known, capacity_bytes, &mut Lru::new(), 0).evicted_bytes;
    let most = (last - first) / MOST_OF_TRACE;
    let turnover =
        u128::from(from_ms - first) * u128::from(capacity_bytes) / u128::from(evicted.max(1));
    let wanted = turnover.saturating_mul(u128::from(TURNOVERS));
    u64::try_from(wanted).unwrap_or(u64::MAX).min(most).max(1)
}

/// Replays a trace with all strategies. The same trace and seed give the same figures.
pub fn evaluate(trace: &[Request], capacity_bytes: u64, horizon_ms: u64, seed: u64) -> Evaluation {
    let from_ms = measured_from_ms(trace);
    let mut hits = Vec::new();
    let mut run = |strategy: &mut dyn Strategy| {
        let score = replay(trace, capacity_bytes, strategy, from_ms);
        hits.push(row(strategy.name(), score));
    };
    run(&mut Lru::new());
    run(&mut S3Fifo::new(capacity_bytes));
    let fresh = || ModelStrategy::new(horizon_ms, Limits::default(), seed);
    let mut model = fresh();
    run(&mut model);
    let config = GuardrailConfig { fallback: Fallback::Better, ..GuardrailConfig::default() };
    let mut guarded = Guarded::new(fresh(), fresh(), capacity_bytes, config);
    run(&mut guarded);
    run(&mut Offline::new(trace, capacity_bytes, Goal::Hits));
    run(&mut Offline::new(trace, capacity_bytes, Goal::Bytes));
    let (judged, age) = judge(model.outcomes(), from_ms, horizon_ms);
    Evaluation {
        capacity_bytes,
        horizon_ms,
        measured_from_ms: from_ms,
        trainings: model.trainings(),
        switches: guarded.switches(),
        model: judged,
        age,
        hits,
    }
}

/// The predictions made in the measured part, and those of an age rule tuned on what was known when
/// it began.
fn judge(outcomes: &[Outcome], from_ms: u64, horizon_ms: u64) -> (Metrics, Metrics) {
    let known: Vec<_> = outcomes
        .iter()
        .filter(|outcome| outcome.at_ms.saturating_add(horizon_ms) < from_ms)
        .map(|outcome| Judged {
            score: outcome.idle,
            reused: outcome.reused,
            source: source(outcome.item, outcome.at_ms, horizon_ms),
        })
        .collect();
    let rule = AgeRule::tune(&known);
    let mut model = Vec::new();
    let mut age = Vec::new();
    for outcome in outcomes.iter().filter(|outcome| outcome.at_ms >= from_ms) {
        let Some(said) = outcome.said else { continue };
        model.push(Scored::of(&said, outcome.reused));
        age.push(rule.judge(outcome.idle, outcome.reused));
    }
    (Metrics::of(&model), Metrics::of(&age))
}

fn ends(trace: &[Request]) -> (u64, u64) {
    let first = trace.first().map_or(0, |request| request.at_ms);
    (first, trace.last().map_or(0, |request| request.at_ms).max(first))
}

fn row(strategy: &str, score: Score) -> Hits {
    Hits {
        strategy: strategy.to_owned(),
        hit_ratio: score.hit_ratio(),
        byte_hit_ratio: score.byte_hit_ratio(),
    }
}
