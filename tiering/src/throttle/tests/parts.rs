//! Timetable, breaker, foreground, queue, and what a throttle says of itself.

use std::time::{Duration, Instant};

use crate::clock::{Clock, ManualClock};
use crate::throttle::core::Core;
use crate::throttle::{Kind, Limit, Outcome, Priority, ThrottleConfig, Timetable, TimetableError};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn start() -> Instant {
    ManualClock::new().instant()
}

/// Asks and grants at once.
fn go(core: &mut Core, now: Instant, priority: Priority) -> Option<u64> {
    let id = core.ask(priority, Kind::Read, 4096);
    core.grant(now, None).contains(&id).then_some(id)
}

#[test]
fn timetables_are_read_and_hold_around_midnight() {
    let table: Timetable = "20:00 off, 08:00 50MiB/s,12:30 1 GiB/s".parse().unwrap();
    let hour = |hour: u32| hour * 3600;
    assert_eq!(table.cap_at(hour(8)), Some(50 << 20));
    assert_eq!(table.cap_at(hour(8) - 1), None, "yesterday's last entry");
    assert_eq!(table.cap_at(hour(12) + 1800), Some(1 << 30));
    assert_eq!(table.cap_at(hour(23)), None);
    assert_eq!(table.next_change(hour(23)), Some(9 * 3600));
    assert_eq!(table.next_change(hour(8)), Some(4 * 3600 + 1800));
    assert_eq!(table.to_string(), "08:00 50MiB/s, 12:30 1024MiB/s, 20:00 off");
    assert_eq!(table.to_string().parse(), Ok(table));
    let always: Timetable = "50MiB/s".parse().unwrap();
    assert_eq!(always, Timetable::always(50 << 20).unwrap());
    assert_eq!("".parse(), Ok(Timetable::default()));
    assert_eq!(Timetable::default().cap_at(0), None);
    assert_eq!(Timetable::default().next_change(0), None);
}

#[test]
fn timetables_that_make_no_sense_are_refused() {
    for wrong in [
        "8 50MiB/s",
        "24:00 off",
        "08:60 off",
        "08:00",
        "08:00 fast",
        "08:00 50MiB",
        "-1:00 off",
        "08:00 50XiB/s",
        "08:00 99999999999999999999MiB/s",
        "08:00 99999999TiB/s",
        "+8:00 off",
    ] {
        let error = wrong.parse::<Timetable>().unwrap_err();
        assert!(matches!(error, TimetableError::Entry(_)), "{wrong}: {error:?}");
    }
    assert!(matches!("0 KiB/s".parse::<Timetable>(), Err(TimetableError::Entry(_))));
    assert_eq!("100KiB/s".parse::<Timetable>(), Err(TimetableError::TooLow(100 << 10)));
    assert_eq!("08:00 off, 8:00 off".parse::<Timetable>(), Err(TimetableError::Twice(8, 0)));
    let many = (0..100).map(|i| (i, None));
    assert_eq!(Timetable::new(many), Err(TimetableError::TooMany));
}

#[test]
fn a_store_that_only_fails_is_left_alone_and_probed() {
    let now = start();
    let mut core = Core::new(ThrottleConfig::default(), now);
    for _ in 0..5 {
        let id = go(&mut core, now, Priority::UserRead).unwrap();
        core.finish(now, id, Outcome::Failed);
    }
    assert!(core.is_down(now));
    let first = core.ask(Priority::UserRead, Kind::Read, 1);
    assert!(core.grant(now + 900 * MS, None).is_empty());
    assert_eq!(core.status(now).limited_by, Limit::Failing);
    assert_eq!(core.wake_at(), Some(now + SECOND));
    let second = core.ask(Priority::UserRead, Kind::Read, 1);
    assert_eq!(core.grant(now + SECOND, None), [first], "one probe at a time");
    core.finish(now + SECOND, first, Outcome::Failed);
    assert!(core.grant(now + 2 * SECOND, None).is_empty(), "the pause has doubled");
    assert_eq!(core.grant(now + 3 * SECOND, None), [second]);
    // A probe that is given up says nothing; the next one goes after the pause.
    core.abandon(now + 3 * SECOND, second);
    let third = core.ask(Priority::Scrub, Kind::Read, 1);
    let fourth = core.ask(Priority::Scrub, Kind::Read, 1);
    assert_eq!(core.grant(now + 5 * SECOND, None), [third]);
    core.finish(now + 5 * SECOND, third, Outcome::Answered);
    assert!(!core.is_down(now + 5 * SECOND));
    assert_eq!(core.grant(now + 5 * SECOND, None), [fourth], "all is well at once");
}

#[test]
fn failures_among_successes_cut_the_window_once_a_round_trip() {
    let now = start();
    let config = ThrottleConfig { first_window: 64 << 20, ..ThrottleConfig::default() };
    let mut core = Core::new(config, now);
    let ids: Vec<u64> = (0..10).map(|_| go(&mut core, now, Priority::Stage).unwrap()).collect();
    for id in &ids[..4] {
        core.finish(now + SECOND, *id, Outcome::Failed);
    }
    let cut = core.window_bytes();
    assert_eq!(cut >> 20, 44, "four that were sent together count once");
    core.finish(now + SECOND, ids[4], Outcome::Done);
    let later = go(&mut core, now + 2 * SECOND, Priority::Stage).unwrap();
    core.finish(now + 3 * SECOND, later, Outcome::Failed);
    assert!(core.window_bytes() < cut * 3 / 4);
    assert!(!core.is_down(now + 3 * SECOND));
}

#[test]
fn a_window_that_nobody_fills_does_not_grow() {
    let mut now = start();
    let mut core = Core::new(ThrottleConfig::default(), now);
    let before = core.window_bytes();
    for _ in 0..1000 {
        let id = go(&mut core, now, Priority::UserRead).unwrap();
        now += 10 * MS;
        core.finish(now, id, Outcome::Done);
    }
    assert_eq!(core.window_bytes(), before);
}

#[test]
fn silence_is_noticed_and_named() {
    let now = start();
    let mut core = Core::new(ThrottleConfig::default(), now);
    let id = go(&mut core, now, Priority::UserRead).unwrap();
    assert!(!core.is_down(now + 9 * SECOND));
    assert!(core.is_down(now + 11 * SECOND));
    let status = core.status(now + 11 * SECOND);
    assert_eq!(status.limited_by, Limit::Silent);
    assert!(status.reason.contains("does not answer"), "{}", status.reason);
    core.finish(now + 12 * SECOND, id, Outcome::Done);
    assert!(!core.is_down(now + 12 * SECOND));
    // An idle throttle is not silent.
    assert!(!core.is_down(now + 3600 * SECOND));
    // What is known to take long may take long.
    let id = core.ask(Priority::WriteBack, Kind::Write, 8 << 20);
    assert_eq!(core.grant(now + 4000 * SECOND, None), [id]);
    core.finish(now + 4008 * SECOND, id, Outcome::Done);
    let id = core.ask(Priority::WriteBack, Kind::Write, 8 << 20);
    assert_eq!(core.grant(now + 5000 * SECOND, None), [id]);
    assert!(!core.is_down(now + 5060 * SECOND));
    assert!(core.is_down(now + 5065 * SECOND));
}

#[test]
fn requests_that_are_given_up_tell_of_silence_and_bar_nobody() {
    let now = start();
    let mut core = Core::new(ThrottleConfig::default(), now);
    let quick = go(&mut core, now, Priority::UserRead).unwrap();
    core.abandon(now + SECOND, quick);
    assert!(!core.status(now + 60 * SECOND).is_down, "somebody changed their mind");
    for second in [60, 64, 68] {
        let id = go(&mut core, now + SECOND * second, Priority::UserRead).unwrap();
        core.abandon(now + SECOND * (second + 3), id);
    }
    let later = now + 72 * SECOND;
    assert!(core.status(later).is_down && core.status(later).limited_by == Limit::Silent);
    assert!(!core.is_down(later), "the next one may go");
    let id = go(&mut core, later, Priority::UserRead).unwrap();
    core.finish(later + MS, id, Outcome::Done);
    assert!(!core.status(later + MS).is_down);
}

#[test]
fn users_do_not_wait_for_what_the_background_has_in_flight() {
    let now = start();
    let mut core = Core::new(ThrottleConfig::default(), now);
    let uploads: Vec<u64> =
        (0..4).map(|_| core.ask(Priority::WriteBack, Kind::Write, 8 << 20)).collect();
    let scrub = core.ask(Priority::Scrub, Kind::Read, 8 << 20);
    assert_eq!(core.grant(now, None), [uploads[0]], "the first window has room for one");
    assert!(go(&mut core, now, Priority::UserRead).is_some());
    assert_eq!(core.status(now).limited_by, Limit::Window);
    assert_eq!(core.status(now).waiting, [0, 0, 3, 0, 0, 1]);
    core.abandon(now, uploads[1]);
    core.abandon(now, scrub);
    assert_eq!(core.status(now).waiting, [0, 0, 2, 0, 0, 0]);
    // A cap that is used up by uploads is not the readers' either.
    let cap = Some(1 << 20);
    let read = core.ask(Priority::UserRead, Kind::Read, 4096);
    core.finish(now + SECOND, uploads[0], Outcome::Done);
    let granted = core.grant(now + SECOND, cap);
    assert!(granted.contains(&read), "{granted:?}");
}

#[test]
fn the_background_gives_way_to_reads_that_have_become_slow() {
    let mut now = start();
    let config = ThrottleConfig { first_window: 64 << 20, ..ThrottleConfig::default() };
    let mut core = Core::new(config, now);
    let mut second = |core: &mut Core, latency: Duration, works: bool, pressure: Option<f64>| {
        (0..50).for_each(|_| core.note_foreground(latency));
        if works {
            let id = core.ask(Priority::WriteBack, Kind::Write, 1 << 20);
            core.grant(now, None);
            core.finish(now + MS, id, Outcome::Done);
        }
        now += SECOND;
        assert!(core.is_due(now));
        core.judge(now, pressure);
        core.status(now).background_share
    };
    for _ in 0..5 {
        assert_eq!(second(&mut core, MS, true, Some(3.0)), 1.0);
    }
    let slowed: Vec<f64> = (0..8).map(|_| second(&mut core, 5 * MS, true, None)).collect();
    assert!(slowed[0] < 0.7 && slowed[7] <= 1.0 / 16.0, "{slowed:?}");
    let held: Vec<u64> = (0..9).map(|_| core.ask(Priority::Demote, Kind::Write, 1 << 20)).collect();
    let at = start() + 100 * SECOND;
    assert!(core.grant(at, None).len() < 5, "a share of the window");
    let status = core.status(at);
    assert_eq!(status.limited_by, Limit::Foreground);
    assert!(
        status.reason.contains("5000 us") && status.reason.contains("usually"),
        "{}",
        status.reason
    );
    // Writers that wait for space are more urgent than readers who wait a little longer.
    core.hurry(true);
    assert_eq!(core.status(at).background_share, 1.0);
    assert!(!core.grant(at, None).is_empty());
    core.hurry(false);
    held.into_iter().for_each(|id| core.abandon(at, id));
    // Quick again: all of it comes back, little by little.
    let share = (0..30).map(|_| second(&mut core, MS, true, None)).last();
    assert_eq!(share, Some(1.0));
    // Pressure alone does the same.
    assert!(second(&mut core, MS, true, Some(80.0)) < 0.7);
}

#[test]
fn slowness_that_stays_without_the_background_becomes_usual() {
    let mut now = start();
    let mut core = Core::new(ThrottleConfig::default(), now);
    let mut shares = Vec::new();
    for second in 0..120 {
        let latency = if second < 10 { MS } else { 5 * MS };
        (0..50).for_each(|_| core.note_foreground(latency));
        now += SECOND;
        core.judge(now, None);
        shares.push(core.status(now).background_share);
    }
    assert!(shares[20] < 0.5, "{shares:?}");
    assert_eq!(shares[119], 1.0);
}

#[test]
fn statuses_are_written_as_json() {
    let now = start();
    let mut core = Core::new(ThrottleConfig::default(), now);
    core.pause_until(Some(now + 4 * SECOND));
    core.ask(Priority::Scrub, Kind::Read, 1);
    core.grant(now, Some(1 << 20));
    let status = core.status(now);
    assert_eq!((status.limited_by, status.paused_ms), (Limit::RetryAfter, Some(4000)));
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["limited_by"], "retry-after");
    assert_eq!(json["reason"], "the store asked for a pause, 4 s of it are left");
    assert_eq!(json["rate_cap"], 1 << 20);
    assert_eq!(core.grant(now + 4 * SECOND, None).len(), 1);
}

#[test]
fn settings_without_sense_are_refused() {
    let good = ThrottleConfig::default();
    good.validate().unwrap();
    for wrong in [
        ThrottleConfig { min_window: 0, ..good.clone() },
        ThrottleConfig { max_window: 1, ..good.clone() },
        ThrottleConfig { tolerance: 1.0, ..good.clone() },
        ThrottleConfig { tolerance: f64::NAN, ..good.clone() },
        ThrottleConfig { smoothing: 0.0, ..good.clone() },
        ThrottleConfig { foreground_tolerance: 0.5, ..good.clone() },
        ThrottleConfig { pressure_percent: 101.0, ..good.clone() },
    ] {
        wrong.validate().unwrap_err();
    }
}
