#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;

use super::super::tests::{op, read};
use super::super::{Lru, S3Fifo, replay};
use super::*;
use crate::mix::Chance;

/// The most hits (or bytes of hits) of all possible decisions: after each request any set of items
/// that fits may stay, a written one stays at least until the next.
fn brute_force(trace: &[Request], capacity: u64, goal: Goal) -> u64 {
    let sizes: HashMap<u64, u64> = trace.iter().map(|r| (r.item, r.charge())).collect();
    let bytes = |set: u32| -> u64 {
        (0..32).filter(|i| set >> i & 1 == 1).map(|i| sizes.get(&i).copied().unwrap_or(0)).sum()
    };
    let mut best: HashMap<u32, u64> = HashMap::from([(0, 0)]);
    for request in trace {
        let bit = 1_u32 << request.item;
        let mut after: HashMap<u32, u64> = HashMap::new();
        for (&set, &worth) in &best {
            let hit = request.op == Op::Read && set & bit != 0;
            let gain = match goal {
                Goal::Hits => 1,
                Goal::Bytes => request.bytes,
            };
            let worth = worth + if hit { gain } else { 0 };
            let may_stay = if request.op == Op::Delete { set & !bit } else { set | bit };
            let mut subset = may_stay;
            loop {
                let forced = request.op != Op::Write || subset & bit != 0 || bytes(bit) > capacity;
                if forced && bytes(subset) <= capacity {
                    let known = after.entry(subset).or_insert(0);
                    *known = worth.max(*known);
                }
                if subset == 0 {
                    break;
                }
                subset = (subset - 1) & may_stay;
            }
        }
        best = after;
    }
    best.values().copied().max().unwrap_or(0)
}

fn tiny_trace(chance: &mut Chance, sizes: &[u64]) -> Vec<Request> {
    let length = 4 + chance.below(12);
    (0..length)
        .map(|at| {
            let item = chance.below(sizes.len() as u64);
            let what = match chance.below(8) {
                0 => Op::Write,
                1 => Op::Delete,
                _ => Op::Read,
            };
            op(what, at, item, sizes[item as usize])
        })
        .collect()
}

#[test]
fn with_equal_sizes_it_is_the_optimum() {
    let mut chance = Chance::new(11);
    for _ in 0..400 {
        let trace = tiny_trace(&mut chance, &[1; 5]);
        let capacity = 1 + chance.below(4);
        let best = brute_force(&trace, capacity, Goal::Hits);
        for goal in [Goal::Hits, Goal::Bytes] {
            let score = replay(&trace, capacity, &mut Offline::new(&trace, capacity, goal), 0);
            assert_eq!(score.hits, best, "{capacity} {trace:?}");
        }
    }
}

#[test]
fn with_different_sizes_it_lies_between_the_baselines_and_the_bound() {
    let mut chance = Chance::new(5);
    let (mut offline, mut optimum, mut lru, mut s3) = (0, 0, 0, 0);
    for _ in 0..400 {
        let sizes: Vec<u64> = (0..5).map(|_| 1 + chance.below(6)).collect();
        let trace = tiny_trace(&mut chance, &sizes);
        let capacity = 2 + chance.below(10);
        let best = brute_force(&trace, capacity, Goal::Hits);
        let best_bytes = brute_force(&trace, capacity, Goal::Bytes);
        let bound = bound(&trace, capacity, 0);
        assert!(bound.hits >= best && bound.hit_bytes >= best_bytes, "{bound:?} {best} {trace:?}");
        for strategy in [
            &mut Offline::new(&trace, capacity, Goal::Hits) as &mut dyn Strategy,
            &mut Offline::new(&trace, capacity, Goal::Bytes),
            &mut Lru::new(),
            &mut S3Fifo::new(capacity),
        ] {
            let score = replay(&trace, capacity, strategy, 0);
            assert!(score.hits <= best && score.hit_bytes <= best_bytes, "{}", strategy.name());
            match strategy.name() {
                "optimum" => offline += score.hits,
                "lru" => lru += score.hits,
                "s3-fifo" => s3 += score.hits,
                _ => {}
            }
        }
        optimum += best;
    }
    assert!(offline * 100 >= optimum * 97, "{offline} of {optimum}");
    assert!(offline > lru && offline > s3, "{offline} {lru} {s3}");
}

#[test]
fn the_bound_of_a_loop_is_what_fits() {
    // Four items in turn, room for two: each interval costs 4 steps of 1, 2 x 40 are there.
    let trace: Vec<Request> = (0..40).map(|at| read(at, at % 4, 1)).collect();
    let all = bound(&trace, 2, 0);
    assert_eq!(all.hits, 20);
    assert_eq!(bound(&trace, 4, 0).hits, 36);
    assert_eq!(bound(&trace, 0, 0), Bound::default());
    assert_eq!(bound(&trace, 2, u64::MAX), Bound::default());
    // Half of it: intervals that began before cost less.
    assert!((10..=13).contains(&bound(&trace, 2, 20_000).hits));
    let score = replay(&trace, 2, &mut Offline::new(&trace, 2, Goal::Hits), 20_000);
    assert!(score.hits <= bound(&trace, 2, 20_000).hits && score.hits >= 6, "{score:?}");
}

#[test]
fn classes_are_an_eighth_wide_and_in_order() {
    let mut before = 0;
    for bytes in (1..5000).chain([1 << 40, u64::MAX]) {
        let class = class_of(bytes);
        assert!(class >= before);
        before = class;
    }
    assert_ne!(class_of(1024), class_of(1152));
    assert_eq!(class_of(1024), class_of(1151));
}
