//! What a policy would have done with a trace of what happened, beside LRU, S3-FIFO and an optimum
//! that knows the future. Pure: no clock, no file, no chance.
//!
//! The policy's row is the planner and the classifier themselves, on files that exist as numbers
//! only ([`simulation`]); the others are whole-file caches of the same capacity that keep whatever is
//! touched. A trace has no names: conditions on paths, extensions and groups fit nothing in it, and
//! the report names who asks for them.

mod files;
mod simulation;
mod tally;

use firn_tiering::replay::{
    self, Cache, Goal, Lru, Offline, Op, Outcome, Request, S3Fifo, Strategy,
};

use super::Policy;
use super::rules::{Rules, RulesError};
use super::settings::Files;
use crate::report::policy::{ReplayReport, ReplayRow};

use simulation::Simulation;
use tally::Tally;

/// Replays a trace, which is in the order of time, through a hot tier of so many bytes; without a
/// capacity of a tenth of the bytes in the trace.
pub fn replay(
    name: &str,
    trace: &[Request],
    policy: &Policy,
    capacity_bytes: Option<u64>,
) -> Result<ReplayReport, RulesError> {
    let rules = Rules::compile(policy)?;
    let (files, footprint_bytes) = replay::footprint(trace);
    let capacity_bytes = capacity_bytes.unwrap_or(footprint_bytes / 10).max(1);
    let horizon_ms = u64::try_from(policy.defaults.horizon.0.as_millis()).unwrap_or(u64::MAX);
    let by_policy = Simulation::new(policy, &rules, capacity_bytes, span_ms(trace)).run(trace);
    let mut rows = vec![row("policy", &by_policy, policy)];
    let others: [Box<dyn Strategy>; 3] = [
        Box::new(Lru::new()),
        Box::new(S3Fifo::new(capacity_bytes)),
        Box::new(Offline::new(trace, capacity_bytes, Goal::Hits)),
    ];
    for strategy in others {
        let name = strategy.name().to_owned();
        let tally = by_strategy(trace, capacity_bytes, horizon_ms, strategy);
        rows.push(row(&name, &tally, policy));
    }
    Ok(ReplayReport {
        trace: name.to_owned(),
        accesses: trace.len() as u64,
        files,
        capacity_bytes,
        rows,
        currency: policy.tier.cold.currency.clone(),
        unmatched: unmatched(policy),
    })
}

fn span_ms(trace: &[Request]) -> u64 {
    let time = |request: Option<&Request>| request.map_or(0, |request| request.at_ms);
    time(trace.last()).saturating_sub(time(trace.first()))
}

/// A cache that tells what left it.
struct Watched {
    strategy: Box<dyn Strategy>,
    left: Vec<u64>,
}

impl Strategy for Watched {
    fn name(&self) -> &str {
        self.strategy.name()
    }

    fn access(&mut self, request: &Request, resident: bool) {
        self.strategy.access(request, resident);
    }

    fn victim(&mut self, now_ms: u64) -> Option<u64> {
        self.strategy.victim(now_ms)
    }

    fn removed(&mut self, item: u64) {
        self.left.push(item);
        self.strategy.removed(item);
    }

    fn admits(&mut self, request: &Request) -> bool {
        self.strategy.admits(request)
    }
}

fn by_strategy(
    trace: &[Request],
    capacity_bytes: u64,
    horizon_ms: u64,
    strategy: Box<dyn Strategy>,
) -> Tally {
    let mut cache = Cache::new(capacity_bytes);
    let mut watched = Watched { strategy, left: Vec::new() };
    let mut tally = Tally::new(horizon_ms);
    for request in trace {
        let served = cache.serve(request, &mut watched);
        match (request.op, served.outcome) {
            (Op::Read, Outcome::Hit) => tally.hit(request),
            (Op::Read, Outcome::Admitted) => tally.miss(request, request.charge()),
            (Op::Read, Outcome::Bypassed) => tally.miss(request, request.bytes),
            (Op::Write | Op::Delete, _) => tally.is_made_anew(request.item),
        }
        for item in watched.left.drain(..) {
            if item != request.item {
                tally.left(item, request.at_ms);
            }
        }
    }
    tally
}

fn row(name: &str, tally: &Tally, policy: &Policy) -> ReplayRow {
    let prices = &policy.tier.cold;
    ReplayRow {
        name: name.to_owned(),
        hit_pct: percent(tally.hits, tally.reads),
        byte_hit_pct: percent(tally.hit_bytes, tally.bytes),
        requests: tally.requests,
        cold_bytes: tally.cold_bytes,
        regretted_bytes: tally.regretted_bytes,
        cost: prices.has_prices().then(|| prices.get_cost(tally.requests, tally.cold_bytes)),
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

/// Classes and rules with conditions that no trace can meet.
fn unmatched(policy: &Policy) -> Vec<String> {
    let needs_names =
        |files: &Files| !(files.path.is_empty() && files.ext.is_empty() && files.group.is_empty());
    let classes = policy.classes.iter().filter(|class| needs_names(&class.files));
    let rules = policy.rules.iter().enumerate().filter(|(_, rule)| needs_names(&rule.files));
    let class = |name: &str| format!("class {name}");
    let mut all: Vec<String> = classes.map(|found| class(&found.name)).collect();
    all.extend(rules.map(|(index, rule)| super::rules::name_of(index, rule)));
    all
}

#[cfg(test)]
mod tests;
