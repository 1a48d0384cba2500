//! Tasks that wait: order, cancellation, pauses, and failing at once. Time is tokio's, paused.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::clock::Clock;
use crate::throttle::{
    Inputs, Kind, Limit, Outcome, Permit, Priority, Throttle, ThrottleConfig, Timetable,
};
use crate::tier::{FailureKind, Pauses, TierFailure};

/// Tokio's time as a clock.
#[derive(Debug)]
struct TokioClock;

impl Clock for TokioClock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    fn instant(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn sleep(&self, _: Duration) {
        unreachable!("nothing here blocks");
    }
}

fn throttle(config: ThrottleConfig) -> Arc<Throttle> {
    let inputs = Inputs::of_clock(Arc::new(TokioClock));
    Arc::new(Throttle::new(config, inputs, Arc::new(Pauses::default())).unwrap())
}

async fn read(throttle: &Arc<Throttle>) -> Permit {
    throttle.admit(Priority::UserRead, Kind::Read, 4096).await.unwrap()
}

/// A throttle whose window is full with one long request.
async fn full() -> (Arc<Throttle>, Permit) {
    let throttle = throttle(ThrottleConfig::default());
    let first = throttle.admit(Priority::WriteBack, Kind::Write, 8 << 20).await.unwrap();
    (throttle, first)
}

#[tokio::test(start_paused = true)]
async fn who_is_urgent_goes_first_whoever_came_first() {
    let (throttle, first) = full().await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for priority in Priority::ALL[1..].iter().rev().copied() {
        let (throttle, order) = (Arc::clone(&throttle), Arc::clone(&order));
        tasks.push(tokio::spawn(async move {
            let permit = throttle.admit(priority, Kind::Write, 8 << 20).await.unwrap();
            order.lock().push(priority);
            tokio::time::sleep(Duration::from_millis(10)).await;
            permit.finish(Outcome::Answered);
        }));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(throttle.status().waiting, [0, 1, 1, 1, 1, 1]);
    first.finish(Outcome::Answered);
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*order.lock(), Priority::ALL[1..]);
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_up_leaves_nothing_behind() {
    let (throttle, first) = full().await;
    let second = throttle.admit(Priority::WriteBack, Kind::Write, 8 << 20);
    tokio::time::timeout(Duration::from_secs(3), second).await.unwrap_err();
    assert_eq!(throttle.status().waiting.iter().sum::<u64>(), 0);
    drop(first);
    assert_eq!((throttle.status().in_flight, throttle.status().in_flight_bytes), (0, 0));
    read(&throttle).await.finish(Outcome::Done);
    // Granted, but not looked at again before it is dropped.
    let (throttle, first) = full().await;
    let mut second = Box::pin(throttle.admit(Priority::WriteBack, Kind::Write, 8 << 20));
    assert!(futures::poll!(&mut second).is_pending());
    first.finish(Outcome::Answered);
    assert_eq!(throttle.status().in_flight, 1);
    drop(second);
    assert_eq!(throttle.status().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_the_store_asked_for_is_kept() {
    let throttle = throttle(ThrottleConfig::default());
    let start = tokio::time::Instant::now();
    throttle.pauses().ask(start.into_std(), Duration::from_secs(7));
    assert_eq!(throttle.status().limited_by, Limit::RetryAfter);
    read(&throttle).await.finish(Outcome::Done);
    let waited = start.elapsed();
    assert!((7.0..7.3).contains(&waited.as_secs_f64()), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_cap_paces_tasks_and_may_be_changed() {
    let timetable = Timetable::always(8 << 20).unwrap();
    let throttle = throttle(ThrottleConfig { timetable, ..ThrottleConfig::default() });
    let start = tokio::time::Instant::now();
    for _ in 0..20 {
        let permit = throttle.admit(Priority::WriteBack, Kind::Write, 1 << 20).await.unwrap();
        permit.finish(Outcome::Done);
    }
    let waited = start.elapsed().as_secs_f64();
    assert!((2.2..2.6).contains(&waited), "19 MiB at 8 MiB/s, less a burst: {waited}");
    throttle.set_config(ThrottleConfig::default()).unwrap();
    assert!(throttle.set_config(ThrottleConfig { min_window: 0, ..throttle.config() }).is_err());
    let start = tokio::time::Instant::now();
    for _ in 0..20 {
        let permit = throttle.admit(Priority::WriteBack, Kind::Write, 1 << 20).await.unwrap();
        permit.finish(Outcome::Done);
    }
    assert!(start.elapsed() < Duration::from_millis(50), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn users_are_told_at_once_where_they_want_to() {
    for fail_fast in [true, false] {
        let throttle = throttle(ThrottleConfig { fail_fast, ..ThrottleConfig::default() });
        for _ in 0..5 {
            read(&throttle).await.finish(Outcome::Failed);
        }
        assert!(throttle.is_down());
        // Somebody has to find out when it is back.
        let next = throttle.admit(Priority::UserRead, Kind::Read, 1);
        match (fail_fast, tokio::time::timeout(Duration::from_millis(500), next).await) {
            (true, Ok(Err(error))) => {
                assert_eq!(TierFailure::of(&error).unwrap().kind, FailureKind::Down);
            }
            (false, Err(_)) => {}
            (_, other) => panic!("{fail_fast}: {other:?}"),
        }
        let upload = throttle.admit(Priority::WriteBack, Kind::Write, 1);
        let upload = tokio::time::timeout(Duration::from_secs(2), upload).await.unwrap().unwrap();
        upload.finish(Outcome::Done);
        read(&throttle).await.finish(Outcome::Done);
    }
}

#[tokio::test(start_paused = true)]
async fn pressure_is_asked_for_once_a_second() {
    let asked = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&asked);
    let pressure = Arc::new(move || {
        *counter.lock() += 1;
        Some(90.0)
    });
    let inputs = Inputs { pressure, ..Inputs::of_clock(Arc::new(TokioClock)) };
    let pauses = Arc::new(Pauses::default());
    let throttle = Arc::new(Throttle::new(ThrottleConfig::default(), inputs, pauses).unwrap());
    for _ in 0..100 {
        read(&throttle).await.finish(Outcome::Done);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!((5..=6).contains(&*asked.lock()), "{}", asked.lock());
    assert!(throttle.status().background_share < 0.2);
    assert_eq!(throttle.status().io_pressure_percent, Some(90.0));
}
