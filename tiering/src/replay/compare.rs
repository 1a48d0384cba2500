//! Strategies side by side on one trace: what `firn policy replay` prints.

use std::collections::HashMap;

use serde::Serialize;

use super::offline::{Goal, Offline, bound};
use super::{Lru, Op, Request, S3Fifo, Score, Strategy, ratio, replay};
use crate::mix::ByMix;

/// Makes a strategy for a cache of so many bytes.
type Make<'a> = Box<dyn Fn(u64) -> Box<dyn Strategy + 'a> + 'a>;

/// One that takes part.
pub struct Contender<'a> {
    make: Make<'a>,
}

impl<'a> Contender<'a> {
    /// Calls `make` with each capacity in bytes; every replay starts with a new one.
    pub fn new<S: Strategy + 'a>(make: impl Fn(u64) -> S + 'a) -> Self {
        Self { make: Box::new(move |capacity| Box::new(make(capacity))) }
    }
}

impl std::fmt::Debug for Contender<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Contender")
    }
}

/// LRU, S3-FIFO and the two offline strategies.
pub fn baselines(trace: &[Request]) -> Vec<Contender<'_>> {
    vec![
        Contender::new(|_| Lru::new()),
        Contender::new(S3Fifo::new),
        Contender::new(|capacity| Offline::new(trace, capacity, Goal::Hits)),
        Contender::new(|capacity| Offline::new(trace, capacity, Goal::Bytes)),
    ]
}

/// One strategy at one capacity.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Its name; `bound` is not a strategy but what none exceeds.
    pub strategy: String,
    /// Capacity.
    pub capacity_bytes: u64,
    /// Capacity as a share of all items' bytes.
    pub capacity_share: f64,
    /// Hits by requests.
    pub hit_ratio: f64,
    /// Bytes hit by bytes read.
    pub byte_hit_ratio: f64,
    /// What the ratios are of.
    #[serde(flatten)]
    pub score: Score,
}

/// A comparison, as `--json` prints it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Version of this object: 1.
    pub format: u32,
    /// Lines of the trace.
    pub requests: u64,
    /// Different items in it.
    pub items: u64,
    /// Bytes of all items, each at its largest.
    pub footprint_bytes: u64,
    /// Time of the first request, in milliseconds since 1970.
    pub from_ms: u64,
    /// Time of the last one.
    pub to_ms: u64,
    /// Requests before this time only warmed the caches.
    pub measured_from_ms: u64,
    /// Every strategy at every capacity.
    pub rows: Vec<Row>,
}

/// Different items of a trace, and the bytes of all, each at its largest.
pub fn footprint(trace: &[Request]) -> (u64, u64) {
    let mut sizes: HashMap<u64, u64, ByMix> = HashMap::default();
    for request in trace.iter().filter(|request| request.op != Op::Delete) {
        let largest = sizes.entry(request.item).or_insert(0);
        *largest = request.charge().max(*largest);
    }
    (sizes.len() as u64, sizes.values().fold(0, |sum, &size| sum.saturating_add(size)))
}

/// Every strategy at every capacity, in that order; see [`replay`].
pub fn compare(
    trace: &[Request],
    capacities_bytes: &[u64],
    strategies: &[Contender<'_>],
    measured_from_ms: u64,
) -> Vec<Row> {
    let (_, footprint_bytes) = footprint(trace);
    let mut rows = Vec::with_capacity(capacities_bytes.len() * strategies.len());
    for &capacity_bytes in capacities_bytes {
        for contender in strategies {
            let mut strategy = (contender.make)(capacity_bytes);
            let score = replay(trace, capacity_bytes, &mut strategy, measured_from_ms);
            rows.push(row(strategy.name(), capacity_bytes, footprint_bytes, score));
        }
    }
    rows
}

/// [`compare`] with all that a table or `--json` shows: the bound of each capacity is its last row.
pub fn report(
    trace: &[Request],
    capacities_bytes: &[u64],
    strategies: &[Contender<'_>],
    measured_from_ms: u64,
) -> Report {
    let (items, footprint_bytes) = footprint(trace);
    let mut rows = Vec::new();
    for &capacity_bytes in capacities_bytes {
        rows.extend(compare(trace, &[capacity_bytes], strategies, measured_from_ms));
        rows.push(bound_row(trace, capacity_bytes, footprint_bytes, measured_from_ms));
    }
    Report {
        format: 1,
        requests: trace.len() as u64,
        items,
        footprint_bytes,
        from_ms: trace.first().map_or(0, |request| request.at_ms),
        to_ms: trace.last().map_or(0, |request| request.at_ms),
        measured_from_ms,
        rows,
    }
}

fn bound_row(trace: &[Request], capacity: u64, footprint: u64, measured_from_ms: u64) -> Row {
    let most = bound(trace, capacity, measured_from_ms);
    let measured = |request: &&Request| request.op == Op::Read && request.at_ms >= measured_from_ms;
    let mut score = Score { hits: most.hits, hit_bytes: most.hit_bytes, ..Score::default() };
    for request in trace.iter().filter(measured) {
        score.requests += 1;
        score.bytes = score.bytes.saturating_add(request.bytes);
    }
    score.recalled_bytes = score.bytes.saturating_sub(score.hit_bytes);
    row("bound", capacity, footprint, score)
}

fn row(strategy: &str, capacity_bytes: u64, footprint_bytes: u64, score: Score) -> Row {
    Row {
        strategy: strategy.to_owned(),
        capacity_bytes,
        capacity_share: ratio(capacity_bytes, footprint_bytes),
        hit_ratio: score.hit_ratio(),
        byte_hit_ratio: score.byte_hit_ratio(),
        score,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::super::tests::{op, read};
    use super::*;
    use crate::mix::Chance;

    #[test]
    fn rows_stand_in_order_between_nothing_and_the_bound() {
        let mut chance = Chance::new(2);
        // A third of the reads to ten items, the others to a thousand.
        let trace: Vec<Request> = (0..5000)
            .map(|at| {
                let item = if at % 3 == 0 { chance.below(10) } else { 10 + chance.below(1000) };
                read(at, item, 1 + item % 7)
            })
            .collect();
        let report = report(&trace, &[50, 500], &baselines(&trace), 1_000_000);
        let names: Vec<&str> = report.rows.iter().map(|row| row.strategy.as_str()).collect();
        let all = ["lru", "s3-fifo", "optimum", "optimum-bytes", "bound"];
        assert_eq!(names, [all, all].concat());
        for rows in report.rows.chunks(5) {
            let [lru, s3, optimum, optimum_bytes, bound] = rows else { panic!("five rows") };
            assert!(lru.hit_ratio < optimum.hit_ratio && s3.hit_ratio < optimum.hit_ratio);
            assert!(lru.byte_hit_ratio < optimum_bytes.byte_hit_ratio);
            assert!(optimum.hit_ratio <= bound.hit_ratio && bound.hit_ratio < 1.0);
            assert!(optimum_bytes.byte_hit_ratio <= bound.byte_hit_ratio);
            assert!(rows.iter().all(|row| row.score.requests == 4000));
        }
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["format"], 1);
        assert_eq!(json["rows"][9]["capacity_bytes"], 500);
        assert!(json["rows"][0]["hits"].is_u64() && json["rows"][0]["hit_ratio"].is_f64());
    }

    #[test]
    fn a_footprint_counts_each_item_once_at_its_largest() {
        let trace = [
            op(Op::Write, 0, 1, 5),
            op(Op::Write, 1, 1, 9),
            read(2, 2, 0),
            op(Op::Delete, 3, 1, 0),
        ];
        assert_eq!(footprint(&trace), (2, 10));
        assert_eq!(footprint(&[]), (0, 0));
        let empty = report(&[], &[10], &baselines(&[]), 0);
        assert_eq!((empty.rows.len(), empty.rows[0].hit_ratio), (5, 0.0));
    }
}
