#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use super::*;
use crate::policy::planner::{Candidate, TierUsage, plan};
use crate::policy::users::Nobody;

#[test]
fn a_plan_is_told_part_by_part_and_as_one_object() {
    let text = "[tier.cold]\nprice_put = 5\ncurrency = 'EUR'\n[[rule]]\nowner = 'eve'\n\
                action = 'none'\n[[rule]]\naction = 'demote'";
    let policy = Policy::parse(text).unwrap();
    let rules = Rules::compile_with(&policy, &Nobody).unwrap();
    let candidate = Candidate {
        ino: 7,
        path: b"/a".to_vec(),
        size: 1 << 20,
        age: Duration::from_secs(3600),
        stored_bytes: 1 << 20,
        hot_bytes: 1 << 20,
        ..Candidate::default()
    };
    let small = Candidate { ino: 8, size: 1, ..candidate.clone() };
    let usage =
        TierUsage { hot_used_bytes: 2 << 20, hot_capacity_bytes: 1 << 30, ..TierUsage::default() };
    let plan = plan([candidate, small], &usage, &policy, &rules);
    let mut report = PlanReport::default();
    for item in items(&plan, &policy, &rules, usage.hot_used_bytes) {
        // As it crosses the socket.
        match serde_json::from_str(&serde_json::to_string(&item).unwrap()).unwrap() {
            PlanItem::Move(line) => report.moves.push(line),
            PlanItem::Summary(summary) => report.summary = summary,
        }
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["moves"][0]["path"], "/a");
    assert_eq!(json["moves"][0]["action"], "demote");
    assert_eq!((&json["count"], &json["cost"]), (&1.into(), &0.005.into()));
    assert_eq!(json["skipped"]["too-small"]["files"], 1);
    assert_eq!(json["unknown"][0], "user `eve`");
    let text = report.text();
    assert!(text.contains("1 moves: 1.00 MiB, of which 1.00 MiB to or from cold"), "{text}");
    assert!(text.contains("cost: 0.0050 EUR once, 0.00 EUR more each month"), "{text}");
    assert!(text.contains("rule 2") && text.contains("too-small: 1 files"), "{text}");
}

#[test]
fn a_replay_shows_each_way_to_choose() {
    let row = |name: &str| ReplayRow { name: name.into(), hit_pct: 12.5, ..ReplayRow::default() };
    let report = ReplayReport { rows: vec![row("policy"), row("lru")], ..ReplayReport::default() };
    let text = report.text();
    assert!(text.contains("policy") && text.contains("12.50 %"), "{text}");
}
