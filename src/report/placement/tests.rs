#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use super::*;
use crate::policy::rules::PinTier;
use crate::policy::users::Nobody;

#[test]
fn what_the_policy_says_of_a_file_is_told_as_it_decides() {
    let text = "[tier.cold]\nprice_get = 1\n[[class]]\nname = 'raw'\npath = '/raw/*'\n\
                [[rule]]\nname = 'out'\nclass = 'raw'\naction = 'demote'";
    let policy = Policy::parse(text).unwrap();
    let rules = Rules::compile_with(&policy, &Nobody).unwrap();
    let raw = Candidate {
        path: b"/raw/x".to_vec(),
        size: 9 << 20,
        stored_bytes: 9 << 20,
        hot_bytes: 9 << 20,
        age: Duration::from_secs(60),
        ..Candidate::default()
    };
    let of = |candidate: &Candidate| {
        let (path, state) = ("/m/raw/x".to_owned(), "resident".to_owned());
        Placement::of(path, state, candidate, &policy, &rules, Some(1e6))
    };
    let placement = of(&raw);
    assert_eq!((placement.action.as_str(), placement.rule), ("demote", Some(1)));
    assert_eq!(placement.why, "rule 1 (out)");
    assert_eq!(placement.class.as_deref(), Some("raw"));
    assert_eq!(placement.blocked.as_deref(), Some("unsettled"));
    assert_eq!((placement.recall.bytes, placement.recall.requests), (9 << 20, 2));
    assert_eq!(placement.recall.cost, Some(0.002));
    assert!(placement.recall.seconds.is_some_and(|secs| (9.4..9.5).contains(&secs)));
    let settled = Candidate { age: Duration::from_secs(3600), ..raw.clone() };
    assert_eq!(of(&settled).blocked, None);
    let pin = Pin { tier: PinTier::Hot, from: Some(Arc::from(&b"/raw"[..])) };
    let pinned = of(&Candidate { pin: Some(pin), ..raw });
    assert_eq!((pinned.action.as_str(), pinned.rule), ("pin-hot", None));
    let pin = pinned.pin.unwrap();
    assert_eq!((pin.source.as_str(), pin.from.as_deref()), ("inherited", Some("/raw")));
}

#[test]
fn an_explanation_names_the_rule_the_pin_and_the_cost() {
    let placement = Placement {
        path: "/m/a".into(),
        state: "dual".into(),
        // A frame is longer than the byte in it.
        size_bytes: 1,
        hot_bytes: 9,
        cold_bytes: 9,
        action: "pin-cold".into(),
        why: "pinned cold through /raw".into(),
        blocked: Some("unsettled".into()),
        class: Some("raw".into()),
        pin: Some(PinFacts {
            tier: "cold".into(),
            source: "inherited".into(),
            from: Some("/raw".into()),
            until: None,
        }),
        prediction: Some(Prediction {
            p_reuse: 0.125,
            verdict: "unsure".into(),
            horizon_s: 604_800,
            percentile: Some(40.0),
            features: vec![FeatureFacts { name: "idle".into(), value: 3.0, effect: -0.25 }],
        }),
        recall: RecallCost { bytes: 1 << 20, requests: 1, seconds: Some(2.0), cost: Some(0.1) },
        ..Placement::default()
    };
    let text = placement.text();
    for part in [
        "/m/a: dual, 1 B long; as stored, 9 B lie in hot and 9 B in cold\n",
        "pin-cold: pinned cold through /raw, class raw",
        "not now: unsettled",
        "pin: cold, inherited from /raw",
        "p_reuse 0.125 within 7d: unsure, more likely than 40 % of what is in hot",
        "  idle = 3.000: -0.250",
        "recall: 1.00 MiB in about 1 requests, 2.0s, 0.1000",
    ] {
        assert!(text.contains(part), "`{part}` is missing in: {text}");
    }
    // A rate that was measured wrongly is no reason to panic.
    let odd = RecallCost { seconds: Some(f64::INFINITY), ..RecallCost::default() };
    assert_eq!(odd.text(None), "recall: 0 B in about 0 requests\n");
}
