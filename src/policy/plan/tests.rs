#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// 2026-11-21T15:47:06Z.
const NOW: i64 = 1_795_276_026;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

fn hourly(count: u32) -> Keep {
    Keep { hourly: Some(count), ..Keep::default() }
}

fn names(turns: &[Turn]) -> Vec<String> {
    turns.iter().map(|turn| turn.snapshot_name()).collect()
}

/// Automatic snapshots of the hours before `now`, the youngest first.
fn hours(now: i64, ages: &[i64]) -> Vec<Existing> {
    let name = |age: &i64| Cycle::Hourly.turn(now - age * HOUR).snapshot_name();
    ages.iter().map(|age| Existing { name: name(age), in_use: false }).collect()
}

#[test]
fn the_first_time_one_of_each_is_due() {
    let keep = Keep { hourly: Some(2), daily: Some(1), weekly: Some(1), monthly: Some(1) };
    let first = plan(NOW, &keep, &[]);
    assert_eq!(names(&first.take), Cycle::ALL.map(|cycle| cycle.turn(NOW).snapshot_name()));
    assert!(first.destroy.is_empty());
    let taken: Vec<_> =
        names(&first.take).into_iter().map(|name| Existing { name, in_use: false }).collect();
    let then = plan(NOW + 60, &keep, &taken);
    assert_eq!(then, Plan { next_due: Some(NOW - NOW % HOUR + HOUR), ..Plan::default() });
    assert_eq!(plan(NOW, &Keep::default(), &taken), Plan::default());
}

#[test]
fn after_downtime_one_is_taken_and_the_oldest_go() {
    let there = hours(NOW, &[30, 31, 32]);
    let due = plan(NOW, &hourly(3), &there);
    assert_eq!(names(&due.take), ["auto-hourly-2026-11-21T15:00Z"]);
    assert!(due.destroy.is_empty(), "what is to be taken is not there yet");
    let mut there = [hours(NOW, &[0]), there].concat();
    there.push(Existing { name: "monday".to_owned(), in_use: false });
    assert_eq!(plan(NOW, &hourly(3), &there).destroy, [there[3].name.clone()]);
    assert_eq!(plan(NOW, &hourly(0), &there).destroy.len(), 4);
    assert!(plan(NOW, &Keep::default(), &there).destroy.is_empty());
}

#[test]
fn what_is_in_use_stays_until_it_is_not() {
    let mut there = hours(NOW, &[0, 1, 2, 3]);
    there[2].in_use = true;
    assert_eq!(
        plan(NOW, &hourly(1), &there).destroy,
        [there[1].name.clone(), there[3].name.clone()]
    );
    there[2].in_use = false;
    assert!(plan(NOW, &hourly(1), &there).destroy.contains(&there[2].name));
}

#[test]
fn a_clock_that_went_back_takes_nothing_twice_and_one_that_was_wrong_stops_nothing() {
    let there = hours(NOW, &[0]);
    let back = plan(NOW - 5 * HOUR, &hourly(1), &there);
    assert_eq!((back.take, back.destroy), (vec![], vec![]));
    let far = hours(NOW + 400 * DAY, &[0]);
    let mut there = [far.clone(), hours(NOW, &[1])].concat();
    let due = plan(NOW, &hourly(1), &there);
    assert_eq!(names(&due.take), ["auto-hourly-2026-11-21T15:00Z"]);
    there.extend(hours(NOW, &[0]));
    let then = plan(NOW, &hourly(1), &there);
    // Of those that are not ahead one is kept: the one that was just taken.
    assert_eq!((then.take, then.destroy), (vec![], vec![there[1].name.clone()]));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Time goes on, stands still and goes back by less than a day; snapshots are held and let go.
    #[test]
    fn no_turn_is_taken_twice_and_so_many_are_kept(
        keep in proptest::array::uniform4(proptest::option::of(0..4_u32)),
        steps in proptest::collection::vec((-20..200_i64, any::<bool>()), 1..60),
    ) {
        let [hourly, daily, weekly, monthly] = keep;
        let keep = Keep { hourly, daily, weekly, monthly };
        let mut there: BTreeMap<String, bool> = BTreeMap::from([("mine".to_owned(), false)]);
        let mut ever = BTreeSet::new();
        let (mut now, mut latest) = (NOW, NOW);
        for (hours, hold) in steps {
            now = (now + hours * HOUR / 3).max(latest - 20 * HOUR);
            latest = latest.max(now);
            let list = |there: &BTreeMap<String, bool>| -> Vec<Existing> {
                let one = |(name, held): (&String, &bool)| Existing { name: name.clone(), in_use: *held };
                there.iter().map(one).collect()
            };
            for turn in plan(now, &keep, &list(&there)).take {
                prop_assert!(keep.of(turn.cycle()).unwrap() > 0);
                prop_assert!(turn.start() <= now && now < turn.next().start());
                prop_assert!(ever.insert(turn), "{} again", turn.snapshot_name());
                there.insert(turn.snapshot_name(), hold);
            }
            for name in plan(now, &keep, &list(&there)).destroy {
                prop_assert!(!there[&name], "{name} is held");
                prop_assert!(Turn::of_snapshot(&name).is_some());
                there.remove(&name);
            }
            let settled = plan(now, &keep, &list(&there));
            prop_assert!(settled.take.is_empty() && settled.destroy.is_empty());
            for cycle in Cycle::ALL {
                let Some(count) = keep.of(cycle) else { continue };
                let current = cycle.turn(now);
                let free = there.iter().filter(|(name, held)| {
                    let turn = Turn::of_snapshot(name);
                    !**held && turn.is_some_and(|t| t.cycle() == cycle && t <= current)
                });
                prop_assert!(free.count() <= count as usize);
                let newest = ever.iter().rfind(|turn| turn.cycle() == cycle);
                if let Some(newest) = newest {
                    prop_assert!(there.contains_key(&newest.snapshot_name()), "the newest went");
                }
            }
            if !hold {
                there.values_mut().for_each(|held| *held = false);
            }
        }
        prop_assert!(there.contains_key("mine"));
    }
}
