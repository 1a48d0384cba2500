#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::{ProptestConfig, any, prop, prop_assert, proptest};

use super::trace::tests::any_request;
use super::*;

/// A read of the whole of an item, `at` seconds after the start.
pub(super) fn read(at: u64, item: u64, size: u64) -> Request {
    Request {
        at_ms: at * 1000,
        item,
        op: Op::Read,
        bytes: size,
        size,
        client: 1,
        group: item / 100,
        owner: 1,
        kind: 0,
    }
}

pub(super) fn op(op: Op, at: u64, item: u64, size: u64) -> Request {
    Request { op, ..read(at, item, size) }
}

fn reads(items: &[u64]) -> Vec<Request> {
    items.iter().enumerate().map(|(at, &item)| read(at as u64, item, 1)).collect()
}

#[test]
fn lru_keeps_what_was_used_last() {
    let score = replay(&reads(&[1, 2, 1, 3, 2, 1, 3]), 2, &mut Lru::new(), 0);
    // 1m 2m 1h 3m(2 goes) 2m(1 goes) 1m(3 goes) 3m(2 goes)
    assert_eq!((score.requests, score.hits, score.evicted), (7, 1, 4));
    assert_eq!((score.bytes, score.hit_bytes, score.recalled_bytes), (7, 1, 6));
}

#[test]
fn only_reads_after_the_start_of_measuring_count() {
    let trace = reads(&[1, 1, 2, 1, 2]);
    let score = replay(&trace, 2, &mut Lru::new(), 3000);
    assert_eq!((score.requests, score.hits), (2, 2));
    let trace = [op(Op::Write, 0, 1, 5), read(1, 1, 5), op(Op::Delete, 2, 1, 0), read(3, 1, 5)];
    let score = replay(&trace, 10, &mut Lru::new(), 0);
    assert_eq!((score.requests, score.hits, score.recalled_bytes), (2, 1, 5));
}

#[test]
fn what_is_larger_than_the_cache_bypasses_and_drives_nothing_out() {
    let trace = [read(0, 1, 4), read(1, 2, 11), read(2, 1, 4), read(3, 2, 11)];
    let score = replay(&trace, 10, &mut Lru::new(), 0);
    assert_eq!((score.hits, score.evicted, score.bypassed), (1, 0, 2));
    // One that grows beyond the cache leaves it.
    let mut cache = Cache::new(10);
    let mut lru = Lru::new();
    cache.serve(&read(0, 1, 4), &mut lru);
    assert_eq!(cache.serve(&op(Op::Write, 1, 1, 11), &mut lru).outcome, Outcome::Hit);
    assert!(cache.is_empty() && cache.used_bytes() == 0 && lru.victim(0).is_none());
}

#[test]
fn growing_items_drive_others_out() {
    let mut cache = Cache::new(10);
    let mut lru = Lru::new();
    for item in 1..=3 {
        cache.serve(&read(0, item, 3), &mut lru);
    }
    let served = cache.serve(&op(Op::Write, 1, 3, 6), &mut lru);
    assert_eq!((served.evicted, served.evicted_bytes), (1, 3));
    assert!(!cache.contains(1) && cache.contains(2) && cache.contains(3));
    assert_eq!(cache.used_bytes(), 9);
    cache.resize(6, 0, &mut lru);
    assert!(!cache.contains(2) && cache.used_bytes() == 6);
}

#[test]
fn admission_at_the_second_read_spares_a_scan_and_not_a_write() {
    let mut cache = Cache::new(10).admitting_on(2, 100);
    let mut lru = Lru::new();
    assert_eq!(cache.serve(&read(0, 1, 3), &mut lru).outcome, Outcome::Bypassed);
    assert_eq!(cache.serve(&read(1, 1, 3), &mut lru).outcome, Outcome::Admitted);
    assert_eq!(cache.serve(&read(2, 1, 3), &mut lru).outcome, Outcome::Hit);
    assert_eq!(cache.serve(&op(Op::Write, 3, 2, 3), &mut lru).outcome, Outcome::Admitted);
    for item in 10..300 {
        assert_eq!(cache.serve(&read(4, item, 3), &mut lru).outcome, Outcome::Bypassed);
        assert!(cache.reads.len() <= 100);
    }
    assert!(cache.contains(1) && cache.contains(2));
}

/// A strategy that answers nonsense.
struct Liar;

impl Strategy for Liar {
    fn name(&self) -> &str {
        "liar"
    }
    fn access(&mut self, _: &Request, _: bool) {}
    fn victim(&mut self, _: u64) -> Option<u64> {
        Some(999)
    }
    fn removed(&mut self, _: u64) {}
}

#[test]
fn a_strategy_that_names_strangers_ends_in_a_bypass() {
    let score = replay(&reads(&[1, 2, 3, 1]), 2, &mut Liar, 0);
    assert_eq!((score.hits, score.bypassed, score.evicted), (1, 1, 0));
}

#[test]
fn s3_fifo_lets_a_scan_pass_through_its_small_queue() {
    // Ten items used three times each, then a scan of 1,000 once, then the ten again.
    let mut items: Vec<u64> = (0..3).flat_map(|_| 1..=10).collect();
    items.extend(1000..2000);
    items.extend(1..=10);
    let trace = reads(&items);
    let hits = |strategy: &mut dyn Strategy| replay(&trace, 20, strategy, 0).hits;
    assert_eq!(hits(&mut Lru::new()), 20);
    assert_eq!(hits(&mut S3Fifo::new(20)), 30);
}

#[test]
fn s3_fifo_lets_ghosts_return_into_main() {
    let mut cache = Cache::new(10);
    let mut s3 = S3Fifo::new(10);
    for item in 1..=12 {
        cache.serve(&read(item, item, 1), &mut s3);
    }
    assert!(!cache.contains(1) && s3.ghosts() == 2);
    cache.serve(&read(20, 1, 1), &mut s3);
    assert_eq!(s3.ghosts(), 2, "1 came back, 3 went");
    // 1 is in main: a pass of new items does not drive it out.
    for item in 100..150 {
        cache.serve(&read(item, item, 1), &mut s3);
        assert!(s3.ghosts() <= 9);
    }
    assert!(cache.contains(1));
    cache.serve(&op(Op::Delete, 200, 1, 0), &mut s3);
    assert!(!cache.contains(1) && !s3.knows(1));
}

#[test]
fn strategies_and_the_cache_agree_on_what_is_resident() {
    let mut chance = crate::mix::Chance::new(3);
    for seed in 0..20 {
        let mut s3 = S3Fifo::new(50);
        let mut lru = Lru::new();
        let (mut a, mut b) = (Cache::new(50), Cache::new(50));
        for at in 0..2000 {
            let item = chance.below(40);
            let what = match chance.below(10) {
                0 => Op::Delete,
                1 | 2 => Op::Write,
                _ => Op::Read,
            };
            let request = op(what, at, item, chance.below(12) + seed % 3);
            a.serve(&request, &mut s3);
            b.serve(&request, &mut lru);
            assert!(a.used_bytes() <= 50 && b.used_bytes() <= 50);
            assert_eq!(s3.resident_bytes(), a.used_bytes());
            assert_eq!(a.sizes.values().sum::<u64>(), a.used_bytes());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_trace_makes_a_replay_panic(
        mut trace in prop::collection::vec(any_request(), 1..80),
        capacity in any::<u64>(),
        small in any::<bool>(),
    ) {
        // Few items, or none would come again.
        trace.iter_mut().for_each(|request| request.item %= 8);
        let capacity = if small { capacity % 1000 } else { capacity };
        let mut strategies = baselines(&trace);
        strategies.push(Contender::new(|capacity| {
            let config = GuardrailConfig { most_items: 3, ..GuardrailConfig::default() };
            Guarded::new(Lru::new(), Lru::new(), capacity, config)
        }));
        for row in report(&trace, &[capacity], &strategies, 0).rows {
            prop_assert!((0.0..=1.0).contains(&row.hit_ratio), "{row:?}");
            prop_assert!(row.score.hits <= row.score.requests);
        }
    }
}
