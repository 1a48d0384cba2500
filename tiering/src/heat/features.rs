//! The numbers that the classifier reads: what a placement decision about an item may look at.
//!
//! Times are logarithms, so that one model serves horizons from minutes to months. Nothing tells
//! the absolute time: a model is always used later than it was trained, and a tree that had
//! learned the date would know nothing about today. All numbers are finite, whatever the past.

use super::history::{GAPS, History, log_ms};

/// How many features there are.
pub const COUNT: usize = 44;

/// One item at one time. Every number is finite.
pub type Features = [f32; COUNT];

/// Kinds are told apart modulo this.
pub const KIND_BUCKETS: usize = 256;

/// Stands for the logarithm of a time that never came: longer than any that did.
const NEVER: f32 = 48.0;

/// Bounds of every feature; a damaged or absurd past must not become an infinity.
const BOUND: f32 = 1e6;

/// Names of the features, for explanations; the model is bound to their order.
pub const FEATURES: [&str; COUNT] = [
    "idle",
    "age in store",
    "age",
    "last gap",
    "2nd last gap",
    "3rd last gap",
    "4th last gap",
    "5th last gap",
    "mean gap",
    "gap deviation",
    "gap trend",
    "shortest gap",
    "longest gap",
    "idle over last gap",
    "idle over mean gap",
    "idle over longest gap",
    "overdue",
    "visits per minute",
    "visits per 10 minutes",
    "visits per hour",
    "visits per day",
    "visits per week",
    "visits per month",
    "visits",
    "visit rate",
    "reads",
    "share of writes",
    "since last write",
    "bytes touched",
    "share touched",
    "size",
    "sequential",
    "usual time of day",
    "until usual time of day",
    "usual day of week",
    "until usual day of week",
    "directory: idle",
    "directory: visits per hour",
    "directory: visits per day",
    "directory: files used again",
    "owner: idle",
    "owner: visits per day",
    "owner: files used again",
    "type",
];

/// Where the type stands: a number without an order, which the model turns into a rate.
pub const KIND_AT: usize = COUNT - 1;

/// Where the time since the last access stands: all that an age rule looks at.
pub const IDLE_AT: usize = 0;

/// What is known of an item besides its own past.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Its length in bytes.
    pub size: u64,
    /// When it was made, in ms since 1970.
    pub created_ms: u64,
    /// A hash of its type, for example of the extension of its name.
    pub kind: u32,
    /// The common past of what lies beside it.
    pub group: Option<History>,
    /// The common past of what its owner owns.
    pub owner: Option<History>,
}

/// Describes an item as it is now, from nothing that comes later.
pub fn features(history: &History, facts: &Facts, now_ms: u64) -> Features {
    let mut out = [0.0; COUNT];
    let mut rest = out.as_mut_slice();
    put(&mut rest, times(history, facts, now_ms));
    put(&mut rest, gaps(history, now_ms));
    put(&mut rest, counts(history, now_ms));
    put(&mut rest, contents(history, facts, now_ms));
    put(&mut rest, usual(history, now_ms));
    put(&mut rest, directory(facts.group.as_ref(), now_ms));
    put(&mut rest, owner(facts.owner.as_ref(), now_ms));
    put(&mut rest, [(facts.kind as usize % KIND_BUCKETS) as f32]);
    debug_assert!(rest.is_empty());
    out.map(bounded)
}

/// The number itself, or the nearest one that arithmetic is safe with; 0 for what is no number.
pub(crate) fn bounded(value: f32) -> f32 {
    if value.is_nan() { 0.0 } else { value.clamp(-BOUND, BOUND) }
}

fn times(history: &History, facts: &Facts, now_ms: u64) -> [f32; 3] {
    [
        log_ms(history.idle_ms(now_ms)),
        log_ms(now_ms.saturating_sub(history.first_ms())),
        log_ms(now_ms.saturating_sub(facts.created_ms)),
    ]
}

fn gaps(history: &History, now_ms: u64) -> [f32; 14] {
    let idle = log_ms(history.idle_ms(now_ms));
    let gap = |n| history.gap(n).unwrap_or(NEVER);
    let Some((mean, var)) = history.gap_spread() else {
        let mut none = [NEVER; 14];
        none[6] = 0.0;
        none[7] = 0.0;
        none[10..].copy_from_slice(&[idle - NEVER; 4]);
        none[13] = -BOUND.log2();
        return none;
    };
    let known = || (0..GAPS).map_while(|n| history.gap(n));
    let shortest = known().fold(NEVER, f32::min);
    let longest = known().fold(0.0, f32::max);
    let deviation = var.max(0.0).sqrt();
    [
        gap(0),
        gap(1),
        gap(2),
        gap(3),
        gap(4),
        mean,
        deviation,
        gap(0) - mean,
        shortest,
        longest,
        idle - gap(0),
        idle - mean,
        idle - longest,
        // In deviations; half a doubling is the least that two visits can be told apart by.
        (idle - mean) / (deviation + 0.5),
    ]
}

fn counts(history: &History, now_ms: u64) -> [f32; 8] {
    let decayed = history.decayed(now_ms).map(f32::ln_1p);
    let visits = history.visits() as f32;
    let [minute, ten, hour, day, week, month] = decayed;
    let age = log_ms(now_ms.saturating_sub(history.first_ms()));
    [minute, ten, hour, day, week, month, visits.ln_1p(), (visits + 1.0).log2() - age]
}

fn contents(history: &History, facts: &Facts, now_ms: u64) -> [f32; 7] {
    let (reads, writes) = (history.reads() as f32, history.writes() as f32);
    let (bytes, size) = (history.bytes() as f32, facts.size as f32);
    let per_visit = bytes / history.visits().max(1) as f32;
    [
        reads.ln_1p(),
        writes / (reads + writes).max(1.0),
        history.unwritten_ms(now_ms).map_or(NEVER, log_ms),
        bytes.ln_1p(),
        (per_visit / size.max(1.0)).min(16.0),
        size.ln_1p(),
        history.sequential(),
    ]
}

fn usual(history: &History, now_ms: u64) -> [f32; 4] {
    let [(day, until_day), (week, until_week)] = history.usual(now_ms);
    [day, until_day, week, until_week]
}

fn directory(group: Option<&History>, now_ms: u64) -> [f32; 4] {
    let Some(group) = group else { return [NEVER, 0.0, 0.0, 0.5] };
    let [_, _, hour, day, ..] = group.decayed(now_ms).map(f32::ln_1p);
    [log_ms(group.idle_ms(now_ms)), hour, day, group.again()]
}

fn owner(owner: Option<&History>, now_ms: u64) -> [f32; 3] {
    let Some(owner) = owner else { return [NEVER, 0.0, 0.5] };
    [log_ms(owner.idle_ms(now_ms)), owner.decayed(now_ms)[3].ln_1p(), owner.again()]
}

fn put<const N: usize>(out: &mut &mut [f32], values: [f32; N]) {
    let (head, rest) = std::mem::take(out).split_at_mut(N);
    head.copy_from_slice(&values);
    *out = rest;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::super::history::{Access, AccessKind};
    use super::*;

    fn facts() -> Facts {
        Facts { size: 4096, created_ms: 0, kind: 7, group: None, owner: None }
    }

    fn named(features: &Features, name: &str) -> f32 {
        features[FEATURES.iter().position(|known| *known == name).unwrap()]
    }

    fn open(at_ms: u64) -> Access {
        Access { at_ms, kind: AccessKind::Open, bytes: 4096, sequential: true }
    }

    #[test]
    fn each_name_stands_where_its_number_is() {
        let mut history = History::new(1000);
        for at_ms in [1000, 5000, 13_000] {
            history.note(&open(at_ms));
        }
        let group = Some(history);
        let found = features(&history, &Facts { group, owner: group, ..facts() }, 14_023);
        let near = |name: &str, value: f32| {
            let is = named(&found, name);
            assert!((is - value).abs() < 0.1, "{name} is {is}, not {value}");
        };
        near("idle", 10.0);
        near("age", 14_024_f32.log2());
        near("last gap", 8001_f32.log2());
        near("2nd last gap", 4001_f32.log2());
        near("3rd last gap", NEVER);
        near("shortest gap", 4001_f32.log2());
        near("idle over longest gap", 10.0 - 8001_f32.log2());
        near("visits", 4_f32.ln());
        near("since last write", NEVER);
        near("share touched", 1.0);
        near("size", 4097_f32.ln());
        near("sequential", 1.0);
        near("until usual day of week", 1.0);
        near("directory: idle", 10.0);
        near("directory: files used again", 2.0 / 3.0);
        near("owner: files used again", 2.0 / 3.0);
        near("type", 7.0);
        assert_eq!(FEATURES[IDLE_AT], "idle");
        assert_eq!(FEATURES[KIND_AT], "type");
    }

    #[test]
    fn nothing_known_is_finite_too() {
        let found = features(&History::new(0), &facts(), u64::MAX);
        assert!(found.iter().all(|value| value.is_finite()), "{found:?}");
        assert_eq!(bounded(f32::NAN), 0.0);
        assert_eq!(bounded(f32::INFINITY), BOUND);
    }

    proptest! {
        #[test]
        fn every_past_gives_finite_features(
            start in any::<u64>(),
            accesses in prop::collection::vec((any::<u64>(), 0..3_u8, any::<u64>(), any::<bool>()), 0..40),
            size in any::<u64>(),
            now in any::<u64>(),
        ) {
            let mut history = History::new(start);
            for (at_ms, kind, bytes, sequential) in accesses {
                let kind = [AccessKind::Open, AccessKind::Read, AccessKind::Write][usize::from(kind)];
                history.note(&Access { at_ms, kind, bytes, sequential });
            }
            let group = Some(history);
            let all = Facts { size, created_ms: now / 2, kind: 9, group, owner: group };
            for value in features(&history, &all, now) {
                prop_assert!(value.is_finite());
            }
        }
    }
}
