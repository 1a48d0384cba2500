#![allow(clippy::unwrap_used, reason = "tests")]

use firn_tiering::mix::Chance;
use firn_tiering::replay::{Op, Request};

use super::*;

const HOUR: u64 = 3_600_000;
const MIB: u64 = 1 << 20;

fn request(at_ms: u64, item: u64, op: Op) -> Request {
    let (bytes, size) = (MIB, MIB);
    Request { at_ms, item, op, bytes, size, client: 1, group: item / 10, owner: 7, kind: 1 }
}

fn run(trace: &[Request], policy: &str, capacity: u64) -> ReplayReport {
    replay("t", trace, &Policy::parse(policy).unwrap(), Some(capacity)).unwrap()
}

fn of<'a>(report: &'a ReplayReport, name: &str) -> &'a ReplayRow {
    report.rows.iter().find(|row| row.name == name).unwrap()
}

/// Ten files are written, and read an hour later, and ten days later.
fn two_uses() -> Vec<Request> {
    let mut trace: Vec<_> = (0..10).map(|item| request(item, item, Op::Write)).collect();
    trace.extend((0..10).map(|item| request(HOUR + item, item, Op::Read)));
    trace.extend((0..10).map(|item| request(240 * HOUR + item, item, Op::Read)));
    trace
}

#[test]
fn with_room_for_all_everything_is_a_hit() {
    let report = run(&two_uses(), "", 1 << 30);
    assert_eq!((report.accesses, report.files), (30, 10));
    let names: Vec<_> = report.rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["policy", "lru", "s3-fifo", "optimum"]);
    for row in &report.rows {
        assert_eq!((row.hit_pct, row.cold_bytes, row.requests), (100.0, 0, 0), "{row:?}");
        assert_eq!(row.cost, None);
    }
}

#[test]
fn a_rule_that_sends_away_costs_what_comes_back() {
    let policy = "
        [tier.cold]
        price_get = 1.0
        [defaults]
        settle = '0s'
        horizon = '30d'
        [[rule]]
        idle = '>1d'
        action = 'demote'
    ";
    // Something else goes on every hour, so that there is a clock.
    let mut trace = two_uses();
    trace.extend((1..250).map(|hour| request(hour * HOUR, 99, Op::Write)));
    trace.sort_by_key(|request| request.at_ms);
    let report = run(&trace, policy, 1 << 30);
    let row = of(&report, "policy");
    assert_eq!((row.hit_pct, row.requests), (50.0, 10));
    assert_eq!((row.cold_bytes, row.regretted_bytes), (10 * MIB, 10 * MIB));
    assert!((row.cost.unwrap() - 0.01).abs() < 1e-9);
    assert_eq!(of(&report, "lru").hit_pct, 100.0);
    // A horizon that ends before they are read again: nothing to regret.
    let report = run(&trace, &policy.replace("30d", "1d"), 1 << 30);
    assert_eq!((of(&report, "policy").requests, of(&report, "policy").regretted_bytes), (10, 0));
}

#[test]
fn what_is_pinned_by_a_rule_stays_while_others_go() {
    let policy = "
        [defaults]
        settle = '0s'
        mode = 'age'
        [[rule]]
        owner = [8]
        action = 'pin-hot'
    ";
    let mut trace = Vec::new();
    for item in 0..200 {
        let owner = if item < 20 { 8 } else { 7 };
        trace.push(Request { owner, ..request(item * 60_000, item, Op::Write) });
    }
    trace.extend((0..20).map(|item| Request { owner: 8, ..request(300 * 60_000, item, Op::Read) }));
    let report = run(&trace, policy, 50 * MIB);
    assert_eq!(of(&report, "policy").hit_pct, 100.0);
    assert_eq!(of(&report, "lru").hit_pct, 0.0);
}

#[test]
fn cold_data_comes_back_at_the_access_that_the_policy_names() {
    let trace: Vec<_> = (0..5).map(|at| request(at * HOUR, 1, Op::Read)).collect();
    let hits = |policy: &str| of(&run(&trace, policy, 1 << 30), "policy").hit_pct;
    assert_eq!(hits("[recall]\npromote_on = 1"), 80.0);
    assert_eq!(hits(""), 60.0);
    assert_eq!(hits("[recall]\npromote_on = 4"), 20.0);
    assert_eq!(hits("[recall]\npromote_on = 0"), 0.0);
}

#[test]
fn hot_never_holds_more_than_it_may_and_results_repeat() {
    let mut chance = Chance::new(3);
    let trace: Vec<_> = (0..20_000)
        .map(|at| {
            let op = match chance.below(10) {
                0 => Op::Delete,
                1..4 => Op::Write,
                _ => Op::Read,
            };
            let size = 1 + chance.below(4 * MIB);
            Request { size, bytes: size, ..request(at * 1000, chance.below(500), op) }
        })
        .collect();
    for mode in ["ml", "age", "manual"] {
        let policy = format!("[defaults]\nmode = '{mode}'\nmin_size = '0'\nhorizon = '1h'");
        let policy = Policy::parse(&policy).unwrap();
        let rules = Rules::compile(&policy).unwrap();
        let capacity = 100 * MIB;
        let mut simulation = Simulation::new(&policy, &rules, capacity, 20_000_000);
        for request in &trace {
            simulation.serve(request);
            assert!(simulation.hot_bytes() <= capacity, "{mode}");
        }
        let [one, two] = [(); 2].map(|()| replay("t", &trace, &policy, Some(capacity)).unwrap());
        assert_eq!(one, two, "{mode}");
        assert!((of(&one, "policy").hit_pct - of(&one, "lru").hit_pct).abs() < 15.0, "{one:?}");
        assert!(of(&one, "policy").hit_pct < of(&one, "optimum").hit_pct);
    }
}

#[test]
fn a_part_of_the_files_stands_for_all_when_there_are_very_many() {
    let policy = "[defaults]\nmode = 'age'\nsettle = '0s'\nmin_size = '0'";
    let mut trace: Vec<_> = (0..60_000).map(|item| request(item * 10, item, Op::Write)).collect();
    // The last half is read again, once the first had to go.
    trace.extend((30_000..60_000).map(|item| request(700_000 + item, item, Op::Read)));
    let report = run(&trace, policy, 50_000 * MIB);
    assert!(of(&report, "policy").hit_pct > 95.0, "{report:?}");
}

#[test]
fn conditions_on_names_are_told_and_nothing_is_made_of_nothing() {
    let policy = "
        [[class]]
        name = 'raw'
        ext = ['fits']
        [[class]]
        name = 'big'
        size = '>1GiB'
        [[rule]]
        path = ['/a/**']
        action = 'demote'
    ";
    let report = run(&[], policy, 1);
    assert_eq!(report.unmatched, ["class raw", "rule 1"]);
    assert!(report.rows.iter().all(|row| row.hit_pct == 0.0));
    assert!(report.text().contains("class raw, rule 1"), "{}", report.text());
    let of_defaults = replay("t", &two_uses(), &Policy::default(), None).unwrap();
    assert_eq!(of_defaults.capacity_bytes, MIB);
}
