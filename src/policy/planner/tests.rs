#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::policy::rules::{Pin, PinTier, Verdict};
use crate::policy::settings::State;
use crate::policy::users::Nobody;

const MIB: u64 = 1 << 20;
const DAY: Duration = Duration::from_secs(86_400);

fn file(ino: u64, stored: u64) -> Candidate {
    Candidate {
        ino,
        path: format!("/file{ino}").into_bytes(),
        size: stored,
        age: 100 * DAY,
        idle: 100 * DAY,
        stored_bytes: stored,
        hot_bytes: stored,
        ..Candidate::default()
    }
}

/// A hot tier of 1,000 MiB with its marks at 500, 800 and 900.
fn usage(used_mib: u64, only_mib: u64) -> TierUsage {
    TierUsage {
        hot_used_bytes: used_mib * MIB,
        hot_capacity_bytes: 1000 * MIB,
        hot_only_bytes: only_mib * MIB,
        cold_free_bytes: None,
    }
}

fn planned(text: &str, usage: &TierUsage, candidates: &[Candidate]) -> Plan {
    let policy = Policy::parse(text).unwrap();
    let rules = Rules::compile_with(&policy, &Nobody).unwrap();
    plan(candidates.iter().cloned(), usage, &policy, &rules)
}

fn done(plan: &Plan) -> Vec<(u64, &'static str)> {
    plan.moves.iter().map(|one| (one.ino, one.action.name())).collect()
}

#[test]
fn above_high_the_coldest_go_until_low_is_reached() {
    let files: Vec<Candidate> = (1..=4)
        .map(|ino| Candidate { p_reuse: Some(ino as f32 / 10.0), ..file(ino, 60 * MIB) })
        .collect();
    let plan_at = |used| planned("", &usage(used, 0), &files);
    assert_eq!(done(&plan_at(900)), []);
    assert_eq!(plan_at(900).skipped[&Skip::NotNeeded].files, 4);
    // To 800 from 910: two of 60 each.
    let plan = plan_at(910);
    assert_eq!(done(&plan), [(1, "demote"), (2, "demote")]);
    assert_eq!(plan.totals.freed_bytes, 120 * MIB);
    assert_eq!(plan.totals.requests, 2);
    assert_eq!(plan.skipped[&Skip::NotNeeded], Count { files: 2, bytes: 120 * MIB });
    // What may go comes first, then what would better stay, both only by itself.
    let mut files = files;
    files[0].verdict = Verdict::Reused;
    files[1].verdict = Verdict::Reused;
    assert_eq!(done(&planned("", &usage(910, 0), &files)), [(3, "demote"), (4, "demote")]);
    assert_eq!(done(&planned("", &usage(1000, 0), &files)).len(), 4);
    assert_eq!(done(&planned("defaults.mode = 'manual'", &usage(1000, 0), &files)), []);
    files[3].only_in_snapshots = true;
    assert_eq!(done(&planned("", &usage(910, 0), &files)), [(4, "demote"), (3, "demote")]);
}

#[test]
fn the_order_is_the_policys() {
    let one = Candidate { age: 40 * DAY, idle: 40 * DAY, heat: 0.1, ..file(1, 10 * MIB) };
    let two = Candidate { age: 50 * DAY, idle: 35 * DAY, heat: 0.2, ..file(2, 5 * MIB) };
    let three = Candidate { age: 31 * DAY, idle: 31 * DAY, heat: 0.3, ..file(3, 20 * MIB) };
    let files = [three, one, two];
    let order = |name: &str| {
        let text = format!("[defaults]\norder = '{name}'");
        done(&planned(&text, &usage(1000, 0), &files)).iter().map(|(ino, _)| *ino).collect()
    };
    let (coldest, largest, oldest): (Vec<u64>, Vec<u64>, Vec<u64>) =
        (order("coldest-first"), order("largest-first"), order("oldest-first"));
    assert_eq!((coldest, largest, oldest), (vec![1, 2, 3], vec![3, 1, 2], vec![2, 1, 3]));
}

#[test]
fn copies_are_made_ahead_of_need() {
    let files: Vec<Candidate> =
        (1..=4).map(|ino| Candidate { heat: ino as f32, ..file(ino, 60 * MIB) }).collect();
    let text = "[tier.hot]\ncopy_ahead = '50%'";
    let plan = planned(text, &usage(700, 600), &files);
    assert_eq!(done(&plan), [(1, "copy-ahead"), (2, "copy-ahead")]);
    assert_eq!((plan.totals.freed_bytes, plan.totals.transfer_bytes), (0, 120 * MIB));
    // What goes is copied as well, and needs no second copy.
    let plan = planned(text, &usage(910, 650), &files);
    assert_eq!(done(&plan), [(1, "demote"), (2, "demote"), (3, "copy-ahead")]);
    assert_eq!(
        plan.skipped,
        BTreeMap::from([(Skip::NotNeeded, Count { files: 1, bytes: 60 * MIB })])
    );
    // A copy that is there costs nothing to go.
    let dual: Vec<Candidate> =
        files.iter().map(|one| Candidate { cold_bytes: 60 * MIB, ..one.clone() }).collect();
    let plan = planned(text, &usage(910, 0), &dual);
    assert_eq!((plan.totals.freed_bytes, plan.totals.transfer_bytes), (120 * MIB, 0));
    assert_eq!((plan.totals.requests, plan.moves[0].transfer_bytes), (0, 0));
}

#[test]
fn rules_and_pins_move_whatever_room_there_is() {
    let text = "[[rule]]\nname = 'out'\nsize = '>50MiB'\naction = 'demote'\nmax_moves_per_run = 2\n\
                [[rule]]\nstate = 'cold'\naction = 'promote'\n[[rule]]\naction = 'none'";
    let mut files: Vec<Candidate> = (1..=3).map(|ino| file(ino, 60 * MIB)).collect();
    let cold =
        |ino, mib: u64| Candidate { hot_bytes: 0, cold_bytes: mib * MIB, ..file(ino, mib * MIB) };
    let pin = |tier| Some(Pin { tier, from: None });
    files.push(Candidate { heat: 1.0, ..cold(4, 40) });
    files.push(Candidate { heat: 2.0, ..cold(5, 30) });
    files.push(Candidate { pin: pin(PinTier::Hot), ..cold(6, 20) });
    files.push(Candidate { pin: pin(PinTier::Cold), size: 1, ..file(7, 10) });
    files.push(file(8, 10 * MIB));
    let plan = planned(text, &usage(100, 0), &files);
    let ups = [(6, "promote"), (5, "promote"), (4, "promote")];
    assert_eq!(done(&plan), [&[(1, "demote"), (2, "demote"), (7, "demote")], &ups[..]].concat());
    assert_eq!((plan.moves[0].rule, plan.moves[0].why.as_str()), (Some(0), "rule 1 (out)"));
    assert_eq!(plan.moves[2].why, "pinned cold");
    assert_eq!(plan.skipped[&Skip::Limit].files, 1);
    assert_eq!(plan.skipped[&Skip::LeftAlone].files, 1);
    // Only into room below low, and what has room.
    let plan = planned(text, &usage(755, 0), &files);
    assert_eq!(done(&plan)[3..], [(6, "promote")]);
    assert_eq!(plan.skipped[&Skip::NoRoom].files, 2);
    assert_eq!(done(&planned(text, &usage(800, 0), &files)).len(), 3);
}

#[test]
fn what_cannot_go_now_says_why() {
    let base = || file(1, 60 * MIB);
    let pin = |tier| Some(Pin { tier, from: None });
    for (candidate, why) in [
        (Candidate { dirty: true, ..base() }, Skip::Dirty),
        (Candidate { age: Duration::from_secs(599), ..base() }, Skip::Unsettled),
        (Candidate { size: 65_535, ..base() }, Skip::TooSmall),
        (Candidate { pin: pin(PinTier::Hot), ..base() }, Skip::Pinned),
        (Candidate { hot_bytes: 0, cold_bytes: 60 * MIB, ..base() }, Skip::InPlace),
        (Candidate { hot_bytes: 200 * MIB, stored_bytes: 200 * MIB, ..base() }, Skip::Limit),
    ] {
        let plan =
            planned("defaults.max_bytes_per_run = '100MiB'", &usage(1000, 1000), &[candidate]);
        assert_eq!(done(&plan), [], "{why:?}");
        assert_eq!(plan.skipped.keys().copied().collect::<Vec<_>>(), [why]);
    }
    let full = TierUsage { cold_free_bytes: Some(50 * MIB), ..usage(1000, 0) };
    let plan =
        planned("", &full, &[base(), Candidate { cold_bytes: 20 * MIB, ..file(2, 60 * MIB) }]);
    assert_eq!(done(&plan), [(2, "demote")]);
    assert_eq!(plan.skipped[&Skip::ColdFull].files, 1);
}

#[test]
fn prices_make_costs() {
    let text = "[tier.cold]\nprice_put = 5\nprice_get = 1\nprice_gb_month = 0.02\n\
                price_egress_gb = 0.1\n[[rule]]\nstate = 'cold'\naction = 'promote'\n\
                [[rule]]\naction = 'demote'";
    let down = file(1, 65 << 20);
    let up = Candidate { hot_bytes: 0, cold_bytes: 1_000_000_000, ..file(2, 1_000_000_000) };
    let roomy = TierUsage { hot_capacity_bytes: 1 << 40, ..usage(100, 0) };
    let plan = planned(text, &roomy, &[down, up]);
    let [down, up] = &plan.moves[..] else { panic!("{plan:?}") };
    assert_eq!((down.requests, up.requests), (2, 120));
    assert!((down.cost - 0.01).abs() < 1e-9, "{}", down.cost);
    assert!((up.cost - 0.22).abs() < 1e-9, "{}", up.cost);
    assert!((plan.totals.cost - 0.23).abs() < 1e-9);
    let month = 0.02 * (65 << 20) as f64 / 1e9;
    assert!((plan.totals.cost_per_month - month).abs() < 1e-9);
}

prop_compose! {
    fn any_candidate()(
        ino in 1_u64..10_000,
        size in 0_u64..200_000,
        (hot, cold) in (0_u64..100, 0_u64..100),
        ages in (0_u64..2_000, 0_u64..200),
        temperature in (prop_oneof![Just(f32::NAN), 0.0_f32..9.0], proptest::option::of(0.0_f32..=1.0)),
        verdict in prop_oneof![
            Just(Verdict::StaysCold), Just(Verdict::Reused), Just(Verdict::Unsure),
            Just(Verdict::Unknown)
        ],
        pin in prop_oneof![
            6 => Just(None), 1 => Just(Some(PinTier::Hot)), 1 => Just(Some(PinTier::Cold))
        ],
        flags in (proptest::bool::weighted(0.1), proptest::bool::weighted(0.1)),
    ) -> Candidate {
        Candidate {
            ino,
            path: format!("/{}/{ino}", ino % 3).into_bytes(),
            size,
            age: Duration::from_secs(ages.0),
            idle: ages.1 as u32 * DAY,
            heat: temperature.0,
            p_reuse: temperature.1,
            verdict,
            pin: pin.map(|tier| Pin { tier, from: None }),
            stored_bytes: hot.max(cold),
            hot_bytes: hot,
            cold_bytes: cold,
            dirty: flags.0,
            only_in_snapshots: flags.1,
            ..Candidate::default()
        }
    }
}

fn any_policy() -> impl Strategy<Value = String> {
    let mode = prop_oneof![Just("ml"), Just("age"), Just("manual")];
    let order = prop_oneof![Just("coldest-first"), Just("largest-first"), Just("oldest-first")];
    let rules = prop_oneof![
        Just(""),
        Just("[[rule]]\npath = '/0/*'\naction = 'demote'\nmax_bytes_per_run = '150B'\n"),
        Just(
            "[[rule]]\npath = '/1/*'\naction = 'promote'\n[[rule]]\npath = '/2/*'\naction = 'none'\n"
        ),
        Just("[[rule]]\nidle = '>100d'\naction = 'pin-cold'\nmax_moves_per_run = 3\n"),
    ];
    (mode, order, 1_u64..40, 1_u64..2_000, rules).prop_map(|(mode, order, moves, bytes, rules)| {
        format!(
            "[defaults]\nmode = '{mode}'\norder = '{order}'\nmax_moves_per_run = {moves}\n\
             max_bytes_per_run = '{bytes}B'\n{rules}"
        )
    })
}

fn unique(mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    candidates.sort_by_key(|one| one.ino);
    candidates.dedup_by_key(|one| one.ino);
    candidates
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_keeps_within_its_bounds(
        candidates in proptest::collection::vec(any_candidate(), 0..80),
        text in any_policy(),
        (used, only) in (0_u64..3_000, 0_u64..2_000),
        cold_free in proptest::option::of(0_u64..2_000),
        turn in 0_usize..80,
    ) {
        let mut candidates = unique(candidates);
        let usage = TierUsage {
            hot_used_bytes: used,
            hot_capacity_bytes: 2_000,
            hot_only_bytes: only,
            cold_free_bytes: cold_free,
        };
        let policy = Policy::parse(&text).unwrap();
        let rules = Rules::compile_with(&policy, &Nobody).unwrap();
        let made = plan(candidates.iter().cloned(), &usage, &policy, &rules);
        check(&made, &candidates, &usage, &policy, &rules)?;
        // In whatever sequence they come.
        let len = candidates.len().max(1);
        candidates.rotate_left(turn % len);
        candidates[..].reverse();
        prop_assert_eq!(plan(candidates, &usage, &policy, &rules), made);
    }
}

fn check(
    made: &Plan,
    candidates: &[Candidate],
    usage: &TierUsage,
    policy: &Policy,
    rules: &Rules,
) -> Result<(), TestCaseError> {
    let (mut pressed, mut promoted, mut last) = (0, 0, 0);
    let mut explicit = 0;
    for one in &made.moves {
        let candidate = candidates.iter().find(|other| other.ino == one.ino).unwrap();
        let decision = rules.decide(&candidate.subject());
        prop_assert!(!candidate.dirty);
        if one.action == MoveAction::Promote {
            prop_assert!(matches!(decision.action, Action::PinHot | Action::Promote));
            prop_assert_eq!(one.bytes, candidate.subject().cold_only_bytes());
            promoted += one.bytes;
            continue;
        }
        prop_assert!(candidate.age >= policy.defaults.settle.0);
        prop_assert!(
            candidate.size >= policy.defaults.min_size.0 || decision.reason == Reason::Pin
        );
        prop_assert!(!matches!(decision.action, Action::PinHot | Action::Promote | Action::Leave));
        if one.action == MoveAction::CopyAhead {
            prop_assert!(candidate.subject().state() != State::Dual);
        } else if matches!(decision.action, Action::MayGo | Action::Keep) {
            (pressed, last) = (pressed + one.bytes, one.bytes);
        } else {
            explicit += one.bytes;
        }
    }
    if pressed > 0 {
        let left = usage.hot_used_bytes - explicit.min(usage.hot_used_bytes);
        prop_assert!(left > made.marks.high, "nothing is pressed below high");
        prop_assert!(left - (pressed - last).min(left) > made.marks.low, "nor beyond low");
    }
    prop_assert!(usage.hot_used_bytes + promoted <= made.marks.low || promoted == 0);
    let bytes: u64 = made.moves.iter().map(|one| one.bytes).sum();
    prop_assert!(bytes <= policy.defaults.max_bytes_per_run.unwrap().0);
    prop_assert!(made.moves.len() as u64 <= policy.defaults.max_moves_per_run);
    let down = made.moves.iter().filter(|one| one.action != MoveAction::Promote);
    let sent: u64 = down.map(|one| one.transfer_bytes).sum();
    prop_assert!(sent <= usage.cold_free_bytes.unwrap_or(u64::MAX));
    for (index, rule) in policy.rules.iter().enumerate() {
        let own: Vec<u64> = made
            .moves
            .iter()
            .filter(|one| one.rule == Some(index) && one.action == MoveAction::Demote)
            .map(|one| one.bytes)
            .collect();
        prop_assert!(own.len() as u64 <= rule.max_moves_per_run.unwrap_or(u64::MAX));
        prop_assert!(own.iter().sum::<u64>() <= rule.max_bytes_per_run.map_or(u64::MAX, |s| s.0));
    }
    // Each file is told of once.
    let skipped: u64 = made.skipped.values().map(|count| count.files).sum();
    prop_assert_eq!(skipped + made.moves.len() as u64, candidates.len() as u64);
    let bytes: u64 = made.skipped.values().map(|count| count.bytes).sum();
    let moved = candidates.iter().filter(|one| made.moves.iter().any(|m| m.ino == one.ino));
    let all: u64 = candidates.iter().map(|one| one.stored_bytes).sum();
    prop_assert_eq!(bytes + moved.map(|one| one.stored_bytes).sum::<u64>(), all);
    Ok(())
}

#[test]
fn a_million_files_are_planned_in_bounded_memory() {
    let files = (1..=1_000_000_u64)
        .map(|ino| Candidate { heat: ((ino * 7919) % 1_000_003) as f32, ..file(ino, MIB) });
    let policy = Policy::parse("defaults.max_moves_per_run = 50").unwrap();
    let rules = Rules::compile_with(&policy, &Nobody).unwrap();
    let plan = plan(files, &usage(1000, 0), &policy, &rules);
    assert_eq!(plan.moves.len(), 50);
    let mut coldest: Vec<u64> = (1..=1_000_000).collect();
    coldest.sort_by_key(|ino| (ino * 7919) % 1_000_003);
    assert_eq!(plan.moves.iter().map(|one| one.ino).collect::<Vec<_>>(), coldest[..50]);
    assert_eq!(plan.skipped[&Skip::NotNeeded].files, 999_950);
}
