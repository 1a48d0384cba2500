#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use super::super::tests::read;
use super::super::{Score, replay};
use super::*;
use crate::mix::Chance;

const HOT: u64 = 60;

/// Knows that ids below [`HOT`] are read again, and lets the others go first; during its bad times it
/// does the reverse.
#[derive(Clone, Debug, Default)]
struct Moody {
    resident: BTreeSet<u64>,
    bad_ms: std::ops::Range<u64>,
}

impl Strategy for Moody {
    fn name(&self) -> &str {
        "moody"
    }
    fn access(&mut self, request: &Request, resident: bool) {
        if resident {
            self.resident.insert(request.item);
        }
    }
    fn victim(&mut self, now_ms: u64) -> Option<u64> {
        if self.bad_ms.contains(&now_ms) {
            self.resident.first().copied()
        } else {
            self.resident.last().copied()
        }
    }
    fn removed(&mut self, item: u64) {
        self.resident.remove(&item);
    }
}

fn moody(bad_ms: std::ops::Range<u64>) -> Moody {
    Moody { resident: BTreeSet::new(), bad_ms }
}

/// Half of the reads to hot items, the others to items that never come again.
fn trace(reads: u64) -> Vec<Request> {
    let mut chance = Chance::new(4);
    (0..reads)
        .map(|at| {
            let item = if chance.below(2) == 0 { chance.below(HOT) } else { 1000 + at };
            read(at, item, 1)
        })
        .collect()
}

fn config() -> GuardrailConfig {
    let judge = JudgeConfig { window_reads: 500, window_ms: u64::MAX, ..JudgeConfig::default() };
    GuardrailConfig { judge, ..GuardrailConfig::default() }
}

const CAPACITY: u64 = 70;

fn guarded(trace: &[Request], bad_ms: std::ops::Range<u64>) -> (Score, Guarded<Moody>) {
    let model = moody(bad_ms);
    let mut guarded = Guarded::new(model.clone(), model, CAPACITY, config());
    (replay(trace, CAPACITY, &mut guarded, 0), guarded)
}

#[test]
fn a_good_model_stays_on_and_costs_nothing() {
    let trace = trace(20_000);
    let (score, guarded) = guarded(&trace, 0..0);
    assert_eq!((guarded.switches(), guarded.name()), (0, "moody guarded"));
    assert_eq!(score, replay(&trace, CAPACITY, &mut moody(0..0), 0));
    assert!(score.hits > replay(&trace, CAPACITY, &mut Lru::new(), 0).hits);
    let figures = guarded.guardrail().judge().figures();
    assert!(figures.model > figures.lru && figures.model > figures.s3fifo, "{figures}");
}

#[test]
fn a_bad_model_goes_off_and_little_is_lost() {
    let trace = trace(20_000);
    let (score, guarded) = guarded(&trace, 0..u64::MAX);
    let lru = replay(&trace, CAPACITY, &mut Lru::new(), 0);
    let bare = replay(&trace, CAPACITY, &mut moody(0..u64::MAX), 0);
    assert_eq!(guarded.switches(), 1);
    assert!(bare.hits * 2 < lru.hits, "{} {}", bare.hits, lru.hits);
    assert!(score.hits * 100 > lru.hits * 93, "{} {}", score.hits, lru.hits);
    assert!(matches!(guarded.guardrail().state(), State::Off { since_ms: 1..2_000_000, .. }));
}

#[test]
fn a_model_that_recovers_comes_back() {
    let trace = trace(40_000);
    let (score, guarded) = guarded(&trace, 10_000_000..20_000_000);
    assert_eq!(guarded.switches(), 2);
    let State::On { since_ms } = guarded.guardrail().state() else { panic!("off") };
    assert!((20_000_000..26_000_000).contains(&since_ms), "{since_ms}");
    let lru = replay(&trace, CAPACITY, &mut Lru::new(), 0);
    assert!(score.hits > lru.hits, "{} {}", score.hits, lru.hits);
}

#[test]
fn a_model_as_good_as_lru_is_never_switched() {
    // Where LRU and S3-FIFO are alike: skewed, without one-time items.
    let mut chance = Chance::new(9);
    let trace: Vec<Request> = (0..30_000)
        .map(|at| {
            let among = 1 + chance.below(300);
            read(at, chance.below(among), 1)
        })
        .collect();
    let lru = replay(&trace, CAPACITY, &mut Lru::new(), 0).hits;
    let s3fifo = replay(&trace, CAPACITY, &mut S3Fifo::new(CAPACITY), 0).hits;
    let mut guarded = Guarded::new(Lru::new(), Lru::new(), CAPACITY, config());
    let hits = replay(&trace, CAPACITY, &mut guarded, 0).hits;
    assert_eq!(hits, lru);
    assert!(s3fifo > lru || guarded.switches() == 0, "{lru} {s3fifo}");
}

#[test]
fn the_better_fallback_follows_s3_fifo_where_that_is_better() {
    let trace = trace(40_000);
    let run = |fallback| {
        let config = GuardrailConfig { fallback, ..config() };
        let model = moody(0..u64::MAX);
        replay(&trace, CAPACITY, &mut Guarded::new(model.clone(), model, CAPACITY, config), 0).hits
    };
    let (lru, better) = (run(Fallback::Lru), run(Fallback::Better));
    assert!(better > lru, "{better} {lru}");
}

#[test]
fn the_sample_stays_bounded_and_judges_alike() {
    // A thousand times as many items as are tracked; the real capacity holds a third of the hot ones.
    let config = GuardrailConfig { most_items: 500, ..config() };
    let mut guardrail = Guardrail::new(moody(0..u64::MAX), 10_000, config);
    let mut chance = Chance::new(1);
    let mut off_at = None;
    for at in 0..400_000 {
        let item = if chance.below(2) == 0 { chance.below(30_000) } else { 1_000_000 + at };
        if guardrail.see(&read(at, item, 1)) {
            off_at.get_or_insert(at);
        }
        assert!(guardrail.tracked() <= 500);
    }
    assert!(guardrail.one_in() >= 16, "{}", guardrail.one_in());
    assert!(!guardrail.state().is_on(), "{:?}", guardrail.judge().figures());
    // The shrunken caches hit about as often as the whole ones.
    let figures = guardrail.judge().figures();
    assert!((0.05..0.20).contains(&figures.lru), "{figures}");
    guardrail.resize(1_000, 0);
    assert!(guardrail.tracked() <= 1_000 / guardrail.one_in() as usize + 1);
    guardrail.restart(5);
    assert!(guardrail.state().is_on());
}

#[test]
fn a_stored_judgement_holds_after_a_restart() {
    let trace = trace(20_000);
    let (_, guarded) = guarded(&trace, 0..u64::MAX);
    let stored = guarded.guardrail().judge().encode().unwrap();
    let judge = Judge::decode(config().judge, &stored).unwrap();
    let resumed = Guardrail::resume(moody(0..0), CAPACITY, config(), judge);
    assert_eq!(resumed.state(), guarded.guardrail().state());
}
