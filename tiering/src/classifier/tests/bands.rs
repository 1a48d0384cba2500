//! What scores are taken to say, where the truth is known.

use super::super::band::{Band, Judged};
use super::super::calibrate::Calibration;

const COUNT: u64 = 1000;

/// Scores from 0 to 1 in no order of time, with what came of each and its source.
fn judged(reused: impl Fn(u64) -> bool, source: impl Fn(u64) -> u64) -> Vec<Judged> {
    let rank = |n: u64| n * 617 % COUNT;
    let judge = |n| Judged {
        score: rank(n) as f32 / COUNT as f32,
        reused: reused(rank(n)),
        source: source(rank(n)),
    };
    (0..COUNT).map(judge).collect()
}

fn band(judged: &[Judged], latest: usize) -> Band {
    Band::of(judged, latest, &Calibration::of(judged).unwrap(), 0.0)
}

#[test]
fn an_answer_that_is_rare_is_given_where_it_pays() {
    // One in fifty is reused, and nearly all of those have the highest scores.
    let rare = judged(|rank| rank >= 982 || rank % 500 == 7, |rank| rank);
    let found = band(&rare, rare.len());
    assert!((0.975..0.99).contains(&found.even_at), "{found:?}");
    assert!(found.cold_up_to.is_some_and(|end| end > 0.9), "{found:?}");
    let common = judged(|rank| rank >= 18, |rank| rank);
    let found = band(&common, common.len());
    assert!((0.01..0.03).contains(&found.even_at), "{found:?}");
    // Without any order in it the frequent answer is the only one.
    let none = judged(|rank| rank % 50 == 7, |rank| rank);
    assert_eq!(band(&none, none.len()).even_at, 1.0);
}

#[test]
fn an_item_that_is_sampled_again_and_again_proves_little() {
    // All of the lower half stay cold; above, half of the items are reused, whatever their score.
    let reused = |rank: u64| rank >= COUNT / 2 && (rank / 20).is_multiple_of(2);
    let many = judged(reused, |rank| rank);
    assert!(band(&many, many.len()).cold_up_to.is_some_and(|end| end > 0.45));
    let few = judged(reused, |rank| rank / 20);
    assert_eq!(band(&few, few.len()).cold_up_to, None);
}

#[test]
fn a_promise_is_not_kept_by_a_few_at_the_edge() {
    // 15 of 1,000 stay cold for sure, half of the others.
    let edge = judged(|rank| rank >= 15 && rank.is_multiple_of(2), |rank| rank);
    assert_eq!(band(&edge, edge.len()).cold_up_to, None);
}

#[test]
fn what_was_scored_in_its_time_helps_where_the_latest_is_too_little() {
    // Reused are the uppermost 3 of 100, and the latest samples are too few to tell.
    let all = judged(|rank| rank >= 970, |rank| rank);
    let alone = &all[all.len() - 60..];
    assert_eq!(band(alone, alone.len()).cold_up_to, None);
    let together = band(&all, alone.len());
    assert!(together.cold_up_to.is_some_and(|end| end > 0.9), "{together:?}");
    assert!(together.even_at < 1.0, "{together:?}");
    // Where the latest contradict it, it does not.
    let mut turned = all.clone();
    for one in &mut turned[900..] {
        one.reused = true;
    }
    assert_eq!(band(&turned, 100).cold_up_to, None);
}
