#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

fn open(at_ms: u64) -> Access {
    Access { at_ms, kind: AccessKind::Open, bytes: 0, sequential: false }
}

fn read(at_ms: u64, sequential: bool) -> Access {
    Access { at_ms, kind: AccessKind::Read, bytes: 100, sequential }
}

#[test]
fn it_stays_small() {
    assert!(size_of::<History>() <= History::ENCODED_LEN);
}

#[test]
fn the_reads_of_one_pass_are_one_visit() {
    let mut history = History::new(0);
    history.note(&open(1000));
    for n in 0..50 {
        history.note(&read(1000 + n * 1000, n > 0));
    }
    assert_eq!((history.visits(), history.reads(), history.bytes()), (1, 50, 5000));
    assert!(history.sequential() > 0.9);
    assert_eq!(history.idle_ms(60_000), 10_000);
    history.note(&read(50_000 + VISIT_MS - 1, true));
    assert_eq!(history.visits(), 1);
    history.note(&read(50_000 + 3 * VISIT_MS, true));
    assert_eq!(history.visits(), 2, "a file held open is visited again after a pause");
}

#[test]
fn heat_fades_and_adds_up() {
    let mut history = History::new(0);
    assert_eq!(history.heat(0), 0.0);
    history.note(&open(0));
    assert!((history.heat(0) - 1.0).abs() < 1e-6);
    assert!((history.heat(12 * HOUR_MS) - 0.66).abs() < 0.02);
    assert!(history.heat(3 * WEEK_MS) < 0.25);
    history.note(&open(0));
    assert!((history.heat(0) - 2.0).abs() < 1e-6);
    let [minute, ..] = history.decayed(MINUTE_MS);
    assert!((minute - 1.0).abs() < 1e-6);
}

#[test]
fn gaps_are_kept_newest_first() {
    let mut history = History::new(0);
    let mut at_ms = 0;
    history.note(&open(0));
    assert_eq!((history.gap(0), history.gap_spread()), (None, None));
    for n in 1..=10 {
        at_ms += 1000 << n;
        history.note(&open(at_ms));
    }
    for n in 0..GAPS {
        let real = (1000_u64 << (10 - n)) as f32;
        assert!((history.gap(n).unwrap() - real.log2()).abs() <= 0.5 / GAP_STEPS + 0.01);
    }
    assert_eq!(history.gap(GAPS), None);
    let (mean, var) = history.gap_spread().unwrap();
    assert!(mean > 15.0 && mean < 20.0 && var > 1.0, "{mean} {var}");
}

#[test]
fn a_clock_that_goes_backwards_stands_still() {
    let mut history = History::new(500_000);
    history.note(&open(500_000));
    history.note(&open(1000));
    assert_eq!((history.last_ms(), history.idle_ms(0)), (500_000, 0));
    assert_eq!(history.gap(0), Some(0.0));
}

#[test]
fn a_clock_that_was_far_ahead_is_not_waited_for() {
    let mut history = History::new(0);
    history.note(&open(1000));
    history.note(&Access { kind: AccessKind::Write, ..open(30 * DAY_MS) });
    history.note(&open(DAY_MS));
    assert_eq!((history.last_ms(), history.visits()), (DAY_MS, 3));
    assert_eq!(history.unwritten_ms(DAY_MS + 7), Some(7));
    assert!(history.heat(8 * DAY_MS) < 0.7 * history.heat(DAY_MS));
    assert_eq!(History::decode(&history.encode()).unwrap(), history);
    // What is not used again heals as well.
    let mut other = History::new(30 * DAY_MS);
    other.settle(DAY_MS);
    assert_eq!((other.first_ms(), other.idle_ms(2 * DAY_MS)), (DAY_MS, DAY_MS));
}

#[test]
fn what_comes_every_day_at_six_has_a_usual_time() {
    let mut history = History::new(0);
    for day in 0..20 {
        history.note(&open(day * DAY_MS + 6 * HOUR_MS));
    }
    let [(day, until), (week, _)] = history.usual(20 * DAY_MS);
    assert!(day > 0.99 && (until - 0.25).abs() < 0.01, "{day} {until}");
    assert!(week < 0.4, "{week}");
}

#[test]
fn a_common_past_knows_how_much_of_it_was_reuse() {
    let mut group = History::new(0);
    for n in 0..200 {
        group.note_member(&open(n * 1000), n % 4 == 0);
    }
    assert!((group.again() - 0.25).abs() < 0.12, "{}", group.again());
}

#[test]
fn counters_saturate() {
    let mut history = History::new(0);
    history.note(&Access {
        at_ms: u64::MAX,
        kind: AccessKind::Write,
        bytes: u64::MAX,
        sequential: true,
    });
    history.visits = u32::MAX;
    history.writes = u32::MAX;
    history.note(&Access {
        at_ms: u64::MAX,
        kind: AccessKind::Write,
        bytes: u64::MAX,
        sequential: true,
    });
    history.note(&open(u64::MAX));
    assert_eq!(
        (history.visits(), history.writes(), history.bytes()),
        (u32::MAX, u32::MAX, u64::MAX)
    );
    assert_eq!(history.unwritten_ms(u64::MAX), Some(0));
}

#[test]
fn the_bytes_are_golden() {
    let mut history = History::new(0x0102);
    history.note(&Access { at_ms: 0x0304, kind: AccessKind::Write, bytes: 5, sequential: true });
    let bytes = history.encode();
    let mut expected = Vec::new();
    for field in [0x0102_u64, 0x0304, 0x0304, 0x0304, 5] {
        expected.extend_from_slice(&field.to_le_bytes());
    }
    for field in [0_u32, 1, 1] {
        expected.extend_from_slice(&field.to_le_bytes());
    }
    for field in [1.0_f32; 6].iter().chain(&[0.0; 2]) {
        expected.extend_from_slice(&field.to_le_bytes());
    }
    expected.extend_from_slice(&[0; GAPS]);
    assert_eq!(bytes[..expected.len()], expected);
    assert_eq!(bytes[100..], [0xff, 0x7f, 0, 0]);
}

#[test]
fn what_is_never_written_is_refused() {
    let mut history = History::new(1000);
    history.note(&open(2000));
    let good = history.encode();
    assert_eq!(History::decode(&good).unwrap(), history);
    let damage = |at: usize, field: &[u8]| {
        let mut bad = good;
        bad[at..at + field.len()].copy_from_slice(field);
        assert!(matches!(History::decode(&bad), Err(Error::Damaged { .. })), "byte {at}");
    };
    damage(0, &[0xff; 8]);
    damage(16, &[0xff; 8]);
    damage(52, &f32::NAN.to_le_bytes());
    damage(56, &(-1.0_f32).to_le_bytes());
    damage(76, &f32::INFINITY.to_le_bytes());
    damage(100, &[0xff; 2]);
}

proptest! {
    #[test]
    fn every_past_round_trips(
        start in any::<u64>(),
        accesses in prop::collection::vec((any::<u64>(), 0..3_u8, any::<u64>(), any::<bool>()), 0..60),
    ) {
        let mut history = History::new(start);
        for (at_ms, kind, bytes, sequential) in accesses {
            let kind = [AccessKind::Open, AccessKind::Read, AccessKind::Write][usize::from(kind)];
            history.note(&Access { at_ms, kind, bytes, sequential });
        }
        prop_assert_eq!(History::decode(&history.encode()).unwrap(), history);
    }
}
