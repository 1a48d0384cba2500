//! What was stored once is read for ever: a fixture of every version of samples, models and the
//! registry, what it decodes to, and the bytes that come back of it.

use std::path::PathBuf;

use super::super::band::Judged;
use super::super::calibrate::Calibration;
use super::super::logistic::{Logistic, Scale};
use super::super::model::{KindRates, Scores};
use super::super::tree::{Forest, Grown, Tree};
use super::*;
use crate::envelope::{self, Kind};
use crate::heat::features::KIND_BUCKETS;

const LIMITS: Limits = Limits { matured: 10, pending: 10, slots: 10, each: 4 };

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/classifier/tests/fixtures")
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(fixtures().join(name)).unwrap()
}

/// What an envelope holds: how it is compressed is not promised.
fn plain(sealed: &[u8], tag: [u8; 4]) -> (Vec<u8>, u16) {
    let kind = Kind { tag, name: "fixture", version: u16::MAX, max_plain_len: 1 << 20 };
    let (plain, version, _) = envelope::open(kind, sealed).unwrap();
    (plain, version)
}

fn ramp(from: f32) -> Features {
    std::array::from_fn(|at| from + at as f32 / 4.0)
}

/// Two samples with a label, and three without: one that is void, one that was accessed.
fn memory() -> Samples {
    let said = Verdict {
        p_reuse: 0.25,
        decision: Decision::StaysCold,
        reuse: false,
        score: 0.125,
        scorer: Scorer::Forest,
    };
    let warm = Verdict {
        p_reuse: 0.75,
        decision: Decision::Reused,
        reuse: true,
        score: 0.5,
        scorer: Scorer::Logistic,
    };
    let mut memory = Samples::new(1000, LIMITS);
    memory.offer(1, &ramp(0.5), None, 100);
    memory.offer(2, &ramp(-1.0), None, 110);
    memory.accessed(2, 600);
    memory.mature(1200, |_| {});
    memory.offer(3, &ramp(2.0), Some(said), 1300);
    memory.offer(4, &ramp(3.0), None, 1400);
    memory.offer(5, &ramp(4.0), Some(warm), 1500);
    memory.deleted(4);
    memory.accessed(5, 1600);
    memory
}

fn model(scores: Scores) -> Model {
    let scored: Vec<_> = (0..40)
        .map(|n| Judged { score: n as f32 / 64.0, reused: n % 40 >= 20, source: n })
        .collect();
    Model {
        horizon_ms: 86_400_000,
        trained_ms: 1_700_000_000_000,
        samples: 1234,
        kinds: KindRates((0..KIND_BUCKETS).map(|kind| kind as f32 / 256.0).collect()),
        scores,
        calibration: Calibration::of(&scored).unwrap(),
        band: Band { cold_up_to: Some(0.125), reused_from: None, even_at: 0.5 },
    }
}

fn forest() -> Model {
    let samples: Vec<(Features, bool)> = (0..8).map(|n| (ramp(n as f32), n < 3)).collect();
    let labelled: Vec<_> = samples.iter().map(|(features, reused)| (features, *reused)).collect();
    let split = |feature, threshold, below, above| Grown::Split {
        feature,
        threshold,
        below: Box::new(below),
        above: Box::new(above),
    };
    let deep = split(0, 2.5, Grown::Leaf, split(2, 5.0, Grown::Leaf, Grown::Leaf));
    let trees = [deep, split(1, 4.0, Grown::Leaf, Grown::Leaf), Grown::Leaf];
    let trees = trees.iter().map(|grown| Tree::lay(grown, &labelled, 0.375, 4.0)).collect();
    model(Scores::Forest(Forest::new(trees).unwrap()))
}

fn regression() -> Model {
    let samples: Vec<Features> = (0..8).map(|n| ramp(n as f32)).collect();
    let scale = Scale::of(samples.iter());
    let weights = ramp(-4.0).map(|weight| weight / 16.0);
    model(Scores::Logistic(Box::new(Logistic { scale, weights, intercept: -0.5 })))
}

/// Two versions, the older of which is in use; switched off.
fn registry() -> Registry {
    let metrics = Metrics { count: 100, accuracy: 0.75, mcc: 0.5, ..Metrics::default() };
    let report = Report { learned: 800, calibrated: 200, model: Some(metrics), age: None };
    let mut registry = Registry::default();
    registry.adopt(Trained { model: regression(), report });
    registry.adopt(Trained { model: forest(), report: Report { model: None, ..report } });
    registry.rollback();
    registry.off("switched off by hand", 77);
    registry
}

/// Writes the fixtures of the versions that are written now. Run once for each version, then never
/// again: `cargo test -p firn-tiering write_classifier_fixtures -- --ignored`.
#[test]
#[ignore = "writes the fixtures of a new version"]
fn write_classifier_fixtures() {
    let all = [
        ("samples", *b"smpl", memory().encode().unwrap()),
        ("forest", *b"clsf", forest().encode().unwrap()),
        ("regression", *b"clsf", regression().encode().unwrap()),
        ("models", *b"clrg", registry().encode().unwrap()),
    ];
    for (name, tag, sealed) in all {
        let (_, version) = plain(&sealed, tag);
        let path = fixtures().join(format!("{name}-{version}"));
        if !path.exists() {
            std::fs::write(path, sealed).unwrap();
        }
    }
}

/// What [`memory`] holds, but for what the first version did not tell.
fn check_memory(memory: &mut Samples, said: [Option<(Decision, Scorer)>; 2]) {
    let labelled: Vec<_> = memory
        .matured()
        .into_iter()
        .map(|sample| (sample.at_ms, sample.features, sample.reused))
        .collect();
    assert_eq!(labelled, [(100, ramp(0.5), false), (110, ramp(-1.0), true)]);
    let mut told = Vec::new();
    memory.accessed(3, 1700);
    memory.mature(10_000, |outcome| {
        let said = outcome.said.map(|said| (said.decision, said.scorer));
        told.push((outcome.at_ms, outcome.item, said));
        assert!(outcome.reused);
    });
    assert_eq!(told, [(1300, 3, said[0]), (1500, 5, said[1])]);
}

#[test]
fn samples_of_the_first_version_are_read() {
    let stored = fixture("samples-1");
    let mut memory = Samples::decode(&stored, 1000, LIMITS).unwrap();
    let (one, other) = (memory.matured()[0].item, memory.matured()[1].item);
    assert!(one != other, "each is taken for one of an item of its own");
    let mut again = Samples::decode(&memory.encode().unwrap(), 1000, LIMITS).unwrap();
    check_memory(&mut memory, [None, None]);
    check_memory(&mut again, [None, None]);
}

#[test]
fn samples_of_the_second_version_are_read() {
    let stored = fixture("samples-2");
    let mut memory = Samples::decode(&stored, 1000, LIMITS).unwrap();
    assert_eq!(plain(&memory.encode().unwrap(), *b"smpl"), plain(&stored, *b"smpl"));
    let said = [(Decision::StaysCold, Scorer::Forest), (Decision::Reused, Scorer::Logistic)];
    check_memory(&mut memory, said.map(Some));
    let scores: Vec<_> = memory.matured().into_iter().map(|sample| sample.score).collect();
    let [forest, regression] = [(Scorer::Forest, 0.125), (Scorer::Logistic, 0.5)].map(Some);
    assert_eq!(scores, [None, None, forest, regression]);
}

#[test]
fn models_of_the_first_version_say_what_they_said() {
    for (name, made, score) in
        [("forest-1", forest(), 0.349_537_04), ("regression-1", regression(), 0.051_145_76)]
    {
        let stored = fixture(name);
        let model = Model::decode(&stored).unwrap();
        assert_eq!(plain(&model.encode().unwrap(), *b"clsf"), plain(&stored, *b"clsf"));
        assert_eq!(model, made, "{name}");
        let said = model.predict(&ramp(3.0));
        assert!((said.score - score).abs() < 1e-6, "{name}: {said:?}");
    }
}

#[test]
fn a_registry_of_the_first_version_is_read() {
    let stored = fixture("models-1");
    let registry = Registry::decode(&stored).unwrap();
    assert_eq!(plain(&registry.encode().unwrap(), *b"clrg"), plain(&stored, *b"clrg"));
    let off = State::Off { reason: "switched off by hand".to_owned(), since_ms: 77 };
    assert_eq!(registry.state(), &off);
    let (current, previous) = (registry.current().unwrap(), registry.previous().unwrap());
    assert_eq!((current.number, previous.number), (1, 2));
    assert_eq!((&current.model, &previous.model), (&regression(), &forest()));
    assert_eq!(current.report.model.unwrap().accuracy, 0.75);
    assert_eq!((previous.report.learned, previous.report.model), (800, None));
}

#[test]
fn there_is_a_fixture_of_every_version_that_is_written() {
    for (name, tag, sealed) in [
        ("samples", *b"smpl", memory().encode().unwrap()),
        ("forest", *b"clsf", forest().encode().unwrap()),
        ("regression", *b"clsf", regression().encode().unwrap()),
        ("models", *b"clrg", registry().encode().unwrap()),
    ] {
        let (bytes, version) = plain(&sealed, tag);
        let (stored, _) = plain(&fixture(&format!("{name}-{version}")), tag);
        assert!(bytes == stored, "{name} of version {version} has other bytes");
    }
}
