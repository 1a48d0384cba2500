//! Throttled: that it forwards everything, what it counts, and what servers ask for.

use std::time::{Duration, Instant, SystemTime};

use super::wire::{META, Script, answer};
use super::*;
use crate::clock::{Clock, SystemClock};
use crate::throttle::{Inputs, Limit, Priority, Throttle, ThrottleConfig, Timetable};

/// Tokio's time, which the tests pause.
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

fn throttle(config: ThrottleConfig, pauses: &Arc<Pauses>) -> Arc<Throttle> {
    let inputs = Inputs::of_clock(Arc::new(TokioClock));
    Arc::new(Throttle::new(config, inputs, Arc::clone(pauses)).unwrap())
}

fn throttled(inner: Arc<dyn Tier>, config: ThrottleConfig) -> Throttled {
    Throttled::new(inner, throttle(config, &Arc::default()))
}

#[tokio::test]
async fn throttled_conforms_under_every_priority() {
    let tier = throttled(Arc::new(Memory::new()), ThrottleConfig::default());
    conforms(&tier).await;
    for priority in Priority::ALL {
        conforms(&*tier.for_priority(priority)).await;
    }
    let status = tier.throttle().status();
    assert_eq!((status.in_flight, status.in_flight_bytes), (0, 0), "{status:?}");
    let dir = tempfile::tempdir().unwrap();
    let opened = open_once(&format!("file://{}", dir.path().display())).unwrap();
    conforms(&throttled(opened.tier, ThrottleConfig::default())).await;
}

#[tokio::test(start_paused = true)]
async fn throttled_conforms_over_a_bad_tier_below_patience() {
    let faults = [
        Fault::Error(FailureKind::Unavailable),
        Fault::Delay(Duration::from_secs(2)),
        Fault::TimeOutAfter,
    ];
    let inner = Faulty::seeded(Arc::new(Memory::new()), 5, 300, &faults);
    let throttled = throttled(Arc::new(inner), ThrottleConfig::default());
    let patience = Patience { attempts: 40, deadline: Duration::from_secs(36_000) };
    let tier = Retry::with_jitter(Arc::new(throttled), patience, Jitter::seeded(5));
    conforms(&tier).await;
}

#[tokio::test]
async fn a_long_file_is_admitted_part_by_part() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open_once(&format!("file://{}", dir.path().display())).unwrap();
    // 20 MiB: three parts, of which the last is not whole, and one that takes no time.
    let cap = Timetable::always(8 << 20).unwrap();
    let config = ThrottleConfig { timetable: cap, ..ThrottleConfig::default() };
    let tier = throttled(opened.tier, config).for_priority(Priority::WriteBack);
    let content = bytes(20 << 20, 1);
    let file = file_of(&content);
    let start = SystemClock.instant();
    tier.put_file("long", file.path()).await.unwrap();
    let took = SystemClock.instant() - start;
    assert!(took >= Duration::from_millis(1800), "two of the parts wait for the cap: {took:?}");
    tier.put("next", Bytes::from_static(b"x")).await.unwrap();
    let took = SystemClock.instant() - start;
    assert!(took >= Duration::from_millis(2300), "all of it was charged: {took:?}");
    assert!(tier.get("long").await.unwrap() == content);
}

#[tokio::test(start_paused = true)]
async fn what_runs_and_what_waits_shows_and_a_dropped_call_is_gone() {
    let faulty = Arc::new(Faulty::new(Arc::new(Memory::new())));
    let tier = throttled(Arc::clone(&faulty) as Arc<dyn Tier>, ThrottleConfig::default());
    faulty.fail_next(None, "", Fault::Hang);
    let mut call = Box::pin(tier.get_range("k", 0..1000));
    assert!(futures::poll!(&mut call).is_pending());
    let status = tier.throttle().status();
    assert_eq!((status.in_flight, status.in_flight_bytes), (1, 1000));
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(tier.throttle().status().limited_by, Limit::Silent);
    drop(call);
    assert_eq!(tier.throttle().status().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_tier_that_is_down_is_not_asked_and_comes_back_by_itself() {
    let memory = Arc::new(Memory::new());
    let faulty = Arc::new(Faulty::new(Arc::clone(&memory) as Arc<dyn Tier>));
    memory.put("k", bytes(100, 1)).await.unwrap();
    let config = ThrottleConfig { fail_fast: true, ..ThrottleConfig::default() };
    let throttled = throttled(Arc::clone(&faulty) as Arc<dyn Tier>, config);
    let patience = Patience { attempts: 1000, deadline: Duration::from_secs(600) };
    let patient = |priority| Retry::new(throttled.for_priority(priority), patience);
    faulty.cut_off();
    let (reads, uploads) = (patient(Priority::UserRead), patient(Priority::WriteBack));
    let start = tokio::time::Instant::now();
    let error = reads.get("k").await.unwrap_err();
    assert_eq!(TierFailure::of(&error).unwrap().kind, FailureKind::Down);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let before = faulty.calls(Op::Put);
    let upload = tokio::spawn(async move { uploads.put("new", Bytes::new()).await });
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(faulty.calls(Op::Put) - before < 12, "{}", faulty.calls(Op::Put));
    assert!(matches!(reads.get("k").await, Err(Error::Cold { .. })));
    faulty.reconnect();
    upload.await.unwrap().unwrap();
    assert_eq!(reads.get("k").await.unwrap(), bytes(100, 1));
}

/// The server says 503 and for how long; nobody asks before that.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_a_server_asks_for_is_kept() {
    let busy =
        |headers: &str| answer("503 Slow Down", headers, "<Error><Code>SlowDown</Code></Error>");
    let good = answer("200 OK", META, "0123456789");
    for with_date in [false, true] {
        let seconds = || "Retry-After: 2\r\n".to_owned();
        let headers = if with_date { date_after(Duration::from_secs(3)) } else { seconds() };
        let script = Script::of(vec![busy(&headers), good.clone(), good.clone()]);
        let variables = firn_tests::variables(script.address);
        let Opened { tier, pauses } = open_once_with("s3://ice/v", variables).unwrap();
        let inputs = Inputs::of_clock(Arc::new(SystemClock));
        let throttle = Throttle::new(ThrottleConfig::default(), inputs, Arc::clone(&pauses));
        let throttled = Throttled::new(tier, Arc::new(throttle.unwrap()));
        let throttle = Arc::clone(throttled.throttle());
        let tier = Retry::new(Arc::new(throttled), Patience::READ).heeding(Arc::clone(&pauses));
        let start = SystemClock.instant();
        let reading = tokio::spawn(async move {
            let got = tier.get("k").await.unwrap();
            assert_eq!(got, Bytes::from_static(b"0123456789"));
            tier
        });
        while pauses.until(SystemClock.instant()).is_none() {
            assert!(start.elapsed() < Duration::from_secs(20), "the pause was not noticed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let status = throttle.status();
        assert_eq!(status.limited_by, Limit::RetryAfter);
        assert!(status.paused_ms.unwrap() <= 3000, "{status:?}");
        let tier = reading.await.unwrap();
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(1800), "{took:?}");
        tier.get("k").await.unwrap();
        assert_eq!(script.seen().len(), 3, "nobody asked meanwhile");
    }
}

/// A `Retry-After` that names a moment so far from now.
fn date_after(pause: Duration) -> String {
    let at = (SystemClock.now() + pause).duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let date = std::process::Command::new("date")
        .args(["-u", "-d", &format!("@{at}"), "+%a, %d %b %Y %H:%M:%S GMT"])
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    format!("Retry-After: {}\r\n", String::from_utf8(date.stdout).unwrap().trim())
}

#[tokio::test(start_paused = true)]
async fn patience_keeps_a_pause_and_gives_up_where_it_is_too_long() {
    let memory = Arc::new(Memory::new());
    memory.put("k", bytes(100, 1)).await.unwrap();
    let faulty = Arc::new(Faulty::new(memory));
    let pauses = Arc::new(Pauses::default());
    let patience = Patience { attempts: 5, deadline: Duration::from_secs(60) };
    let tier =
        Retry::new(Arc::clone(&faulty) as Arc<dyn Tier>, patience).heeding(Arc::clone(&pauses));
    for (pause, works) in [(20, true), (90, false)] {
        let start = tokio::time::Instant::now();
        faulty.fail_next(None, "", Fault::Error(FailureKind::Unavailable));
        pauses.ask(start.into_std(), Duration::from_secs(pause));
        assert_eq!(tier.get("k").await.is_ok(), works);
        let waited = start.elapsed().as_secs();
        assert_eq!(waited, if works { pause } else { 0 });
        tokio::time::sleep(Duration::from_secs(100)).await;
    }
}
