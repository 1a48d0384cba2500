#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::eval::{measured_from_ms, suitable_horizon_ms};
use super::train::split;
use super::*;
use crate::Error;
use crate::heat::features::{COUNT, Features, IDLE_AT};
use crate::mix::Chance;
use crate::replay::{Lru, Op, Request, replay};

mod bands;
mod golden;

const HORIZON_MS: u64 = 100_000;

/// Samples of which those idle for less than `edge` are mostly reused, one a second.
fn samples(count: u64, edge: f32, noise: u64, seed: u64) -> Vec<Sample> {
    let mut chance = Chance::new(seed);
    (0..count)
        .map(|n| {
            let mut features: Features = std::array::from_fn(|_| chance.below(100) as f32);
            features[IDLE_AT] = chance.below(3000) as f32 / 100.0;
            let reused = (features[IDLE_AT] < edge) != (chance.below(100) < noise);
            Sample { at_ms: n * 1000, item: n, features, reused, score: None }
        })
        .collect()
}

fn trained(samples: &[Sample], seed: u64) -> Result<Trained, Why> {
    train(&samples.iter().collect::<Vec<_>>(), HORIZON_MS, 0.0, seed)
}

#[test]
fn what_is_there_to_learn_is_learned_and_judged_on_later_time() {
    let Trained { model, report } = trained(&samples(6000, 20.0, 0, 1), 1).unwrap();
    let (model_is, age_is) = (report.model.unwrap(), report.age.unwrap());
    assert!(model_is.accuracy > model_is.majority_accuracy + 0.15);
    assert!(model_is.mcc > 0.7 && model_is.auc > 0.9 && model_is.brier < 0.12, "{model_is:?}");
    assert!(model_is.cold_coverage > 0.1 && model_is.cold_precision >= 0.95, "{model_is:?}");
    assert!(age_is.accuracy > 0.95, "the age alone tells here: {age_is:?}");
    assert_eq!(model.scorer(), Scorer::Forest);
    let mut features = [50.0; COUNT];
    features[IDLE_AT] = 29.0;
    let cold = model.predict(&features);
    assert_eq!((cold.decision, cold.reuse), (Decision::StaysCold, false));
    assert!(cold.p_reuse < 0.1);
    let reason = model.reasons(&features)[0];
    assert!(reason.feature == "idle" && reason.effect < 0.0, "{reason:?}");
    features[IDLE_AT] = 1.0;
    let warm = model.predict(&features);
    assert!(warm.reuse && warm.decision != Decision::StaysCold && warm.p_reuse > 0.7, "{warm:?}");
}

#[test]
fn few_samples_are_left_to_the_regression_and_fewer_to_the_age_rule() {
    let Trained { model, .. } = trained(&samples(600, 20.0, 2, 1), 1).unwrap();
    assert_eq!(model.scorer(), Scorer::Logistic);
    let mut features = [50.0; COUNT];
    features[IDLE_AT] = 29.0;
    let cold = model.predict(&features);
    features[IDLE_AT] = 1.0;
    assert!(cold.p_reuse < 0.3 && model.predict(&features).p_reuse > 0.7);
    assert!(matches!(trained(&samples(250, 20.0, 2, 1), 1), Err(Why::TooFew { .. })));
    assert!(matches!(trained(&samples(3000, 0.0, 0, 1), 1), Err(Why::OneClass { have: 0 })));
    assert!(matches!(trained(&[], 1), Err(Why::TooFew { have: 0 })));
}

#[test]
fn where_there_is_nothing_to_learn_it_does_not_decide() {
    let noise = samples(3000, 15.0, 50, 9);
    let Trained { report, .. } = trained(&noise, 1).unwrap();
    let model = report.model.unwrap();
    assert!(model.cold_coverage < 0.02, "{model:?}");
    assert!(model.accuracy > model.majority_accuracy - 0.05, "{model:?}");
}

#[test]
fn no_label_reaches_into_the_time_of_later_samples() {
    let all = samples(2000, 20.0, 5, 3);
    let all: Vec<_> = all.iter().collect();
    let (older, later) = split(&all, HORIZON_MS);
    let start_ms = later[0].at_ms;
    assert!(!older.is_empty() && later.len() >= 400);
    // The label of a sample tells what happened until a horizon after it.
    assert!(older.iter().all(|sample| sample.at_ms + HORIZON_MS < start_ms));
}

#[test]
fn the_same_seed_gives_the_same_model_and_its_bytes_come_back() {
    for count in [600, 2000] {
        let all = samples(count, 20.0, 5, 3);
        let one = trained(&all, 5).unwrap().model;
        assert_eq!(one.encode().unwrap(), trained(&all, 5).unwrap().model.encode().unwrap());
        assert_eq!(Model::decode(&one.encode().unwrap()).unwrap(), one);
    }
}

#[test]
fn features_that_are_no_numbers_do_no_harm() {
    let model = trained(&samples(2000, 20.0, 5, 3), 5).unwrap().model;
    for absurd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
        let said = model.predict(&[absurd; COUNT]);
        assert!((0.0..=1.0).contains(&said.p_reuse) && said.score.is_finite(), "{said:?}");
        assert!(model.reasons(&[absurd; COUNT]).iter().all(|reason| reason.effect.is_finite()));
    }
}

/// The figures of a report may differ in the last digit: they are stored as decimals.
fn same(one: &Registry, other: &Registry) {
    assert_eq!(one.state(), other.state());
    for (one, other) in [(one.current(), other.current()), (one.previous(), other.previous())] {
        let parts = |version: &Version| (version.number, version.model.clone());
        assert!(one.map(parts) == other.map(parts));
    }
}

#[test]
fn damaged_models_are_refused() {
    let mut registry = Registry::default();
    registry.adopt(trained(&samples(700, 20.0, 5, 3), 5).unwrap());
    let good = registry.encode().unwrap();
    same(&Registry::decode(&good).unwrap(), &registry);
    for at in (0..good.len()).step_by(good.len() / 200) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert!(Registry::decode(&bad).is_err(), "byte {at}");
        assert!(Registry::decode(&good[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn the_registry_rolls_back_switches_off_and_survives_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Registry::load(dir.path()).unwrap(), Registry::default());
    let mut registry = Registry::default();
    assert!(!registry.rollback() && registry.usable().is_none());
    let all = samples(700, 20.0, 5, 3);
    assert_eq!(registry.adopt(trained(&all, 1).unwrap()), 1);
    assert!(!registry.rollback());
    assert_eq!(registry.adopt(trained(&all, 2).unwrap()), 2);
    assert!(registry.rollback());
    assert_eq!(registry.current().unwrap().number, 1);
    registry.off("it did worse than LRU", 77);
    registry.save(dir.path()).unwrap();
    let mut loaded = Registry::load(dir.path()).unwrap();
    same(&loaded, &registry);
    assert!(loaded.usable().is_none() && loaded.current().is_some());
    loaded.on();
    assert!(loaded.usable().is_some());
    std::fs::write(dir.path().join(MODEL_FILE), b"nonsense").unwrap();
    assert!(matches!(Registry::load(dir.path()), Err(Error::Damaged { .. })));
}

#[test]
fn labels_mature_a_horizon_later_and_not_before() {
    let limits = Limits { matured: 10, pending: 10, slots: 10, each: 4 };
    let mut samples = Samples::new(1000, limits);
    assert_eq!((samples.due(0), samples.due(50), samples.due(100)), (4, 0, 4));
    let features = [1.0; COUNT];
    for item in 1..=4 {
        assert!(samples.offer(item, &features, None, 100));
    }
    samples.accessed(1, 600);
    samples.accessed(2, 1100);
    samples.deleted(4);
    let mut told = Vec::new();
    samples.mature(1100, |outcome| told.push(outcome.reused));
    assert!(told.is_empty(), "the answer for 1 is known, but waits with the others");
    samples.accessed(3, 1101);
    samples.mature(1101, |outcome| told.push(outcome.reused));
    assert_eq!(told, [true, true, false]);
    assert_eq!((samples.len(), samples.pending()), (3, 0));
}

#[test]
fn samples_of_a_clock_that_was_ahead_are_dropped_and_not_waited_for() {
    const DAY: u64 = 86_400_000;
    let limits = Limits { matured: 10, pending: 10, slots: 10, each: 4 };
    let mut samples = Samples::new(DAY, limits);
    assert_eq!(samples.due(DAY), 4);
    samples.offer(1, &[1.0; COUNT], None, DAY);
    assert_eq!(samples.due(100 * DAY), 4);
    samples.offer(2, &[1.0; COUNT], None, 100 * DAY);
    let bytes = samples.encode().unwrap();
    let mut stored = Samples::decode(&bytes, DAY, limits).unwrap();
    stored.settle(DAY + 5);
    for mut samples in [samples, stored] {
        // Back at the right time, one is left, and the next are taken soon.
        samples.mature(DAY + 5, |_| {});
        assert_eq!((samples.pending(), samples.due(DAY + DAY / 5)), (1, 4));
        let mut told = Vec::new();
        samples.accessed(1, DAY + DAY / 2);
        samples.mature(2 * DAY + 6, |outcome| told.push((outcome.item, outcome.reused)));
        assert_eq!(told, [(1, true)]);
        // Labelled ones stay, and are no news of the future either.
        samples.settle(DAY / 2);
        assert_eq!(samples.matured()[0].at_ms, DAY / 2);
    }
}

#[test]
fn a_clock_that_goes_back_a_little_drops_no_sample() {
    let mut samples = Samples::new(1000, Limits::default());
    samples.offer(1, &[1.0; COUNT], None, 9000);
    samples.mature(8000, |_| {});
    assert_eq!((samples.due(8000), samples.pending()), (32, 1));
}

#[test]
fn samples_are_bounded_and_come_back_from_their_bytes() {
    let limits = Limits { matured: 8, pending: 6, slots: 10, each: 4 };
    let mut memory = Samples::new(1000, limits);
    for round in 0..20 {
        memory.mature(round * 500, |_| {});
        for item in 0..4 {
            memory.offer(item, &[round as f32; COUNT], None, round * 500);
        }
        memory.accessed(round % 4, round * 500 + 1);
        assert!(memory.len() <= 8 && memory.pending() <= 6);
    }
    let bytes = memory.encode().unwrap();
    let mut again = Samples::decode(&bytes, 1000, limits).unwrap();
    assert_eq!(again.encode().unwrap(), bytes);
    let (mut one, mut other) = (Vec::new(), Vec::new());
    memory.accessed(2, 9700);
    again.accessed(2, 9700);
    memory.mature(u64::MAX, |outcome| one.push(outcome));
    again.mature(u64::MAX, |outcome| other.push(outcome));
    assert_eq!(one, other);
    assert!(Samples::decode(&bytes, 2000, limits).unwrap().is_empty(), "of another horizon");
    assert!(Samples::decode(&bytes[..bytes.len() - 1], 1000, limits).is_err());
}

fn read(at_ms: u64, item: u64) -> Request {
    let (bytes, size) = (100, 100);
    let op = Op::Read;
    Request { at_ms, item, op, bytes, size, client: 0, group: 0, owner: 0, kind: 0 }
}

/// A working set that is read again and again while a scan passes that never comes back.
fn scanned() -> Vec<Request> {
    let mut chance = Chance::new(4);
    (0..4000)
        .map(|n| read(n * 1000, if n % 2 == 0 { chance.below(60) } else { 1000 + n }))
        .collect()
}

#[test]
fn on_a_trace_it_beats_lru_and_does_the_same_again() {
    let trace = scanned();
    let horizon_ms = suitable_horizon_ms(&trace, 8000);
    let limits = Limits { matured: 2000, pending: 1000, slots: 32, each: 8 };
    let run = || {
        let mut model = ModelStrategy::new(horizon_ms, limits, 1);
        let score = replay(&trace, 8000, &mut model, measured_from_ms(&trace));
        assert!(model.trainings() > 0);
        (score, model.outcomes().to_vec())
    };
    let (score, outcomes) = run();
    let lru = replay(&trace, 8000, &mut Lru::new(), measured_from_ms(&trace));
    assert!(score.hits > lru.hits, "{score:?} {lru:?}");
    assert_eq!(run(), (score, outcomes));
}

proptest! {
    #[test]
    fn nothing_that_is_no_model_is_taken_for_one(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Model::decode(&bytes).is_err());
        prop_assert!(Registry::decode(&bytes).is_err());
        prop_assert!(Samples::decode(&bytes, 1, Limits::default()).is_err());
    }
}
