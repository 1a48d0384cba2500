//! Retry and Faulty: that they forward everything, and what they add.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::*;

fn faulty() -> (Arc<Memory>, Arc<Faulty>) {
    let memory = Arc::new(Memory::new());
    let faulty = Arc::new(Faulty::new(Arc::clone(&memory) as Arc<dyn Tier>));
    (memory, faulty)
}

fn retry(inner: &Arc<Faulty>, attempts: u32, seconds: u64) -> Retry {
    let patience = Patience { attempts, deadline: Duration::from_secs(seconds) };
    Retry::with_jitter(Arc::clone(inner) as Arc<dyn Tier>, patience, Jitter::seeded(1))
}

#[tokio::test]
async fn decorators_conform_when_nothing_fails() {
    conforms(&Faulty::new(Arc::new(Memory::new()))).await;
    conforms(&Retry::new(Arc::new(Memory::new()), Patience::READ)).await;
}

/// Whatever passes does not change what a patient caller sees. Wrong bytes are left out: they
/// are for checksums to find.
#[tokio::test(start_paused = true)]
async fn a_patient_tier_conforms_over_a_bad_one() {
    let faults = [
        Fault::Error(FailureKind::Unavailable),
        Fault::Delay(Duration::from_secs(2)),
        Fault::TimeOutBefore,
        Fault::TimeOutAfter,
    ];
    for seed in 0..4 {
        let inner = Faulty::seeded(Arc::new(Memory::new()), seed, 300, &faults);
        let patience = Patience { attempts: 40, deadline: Duration::from_secs(3600) };
        let tier = Retry::with_jitter(Arc::new(inner), patience, Jitter::seeded(seed));
        conforms(&tier).await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_fault_does_what_it_says() {
    let (memory, tier) = faulty();
    let body = bytes(1000, 1);
    memory.put("k", body.clone()).await.unwrap();

    tier.fail_next(Some(Op::Get), "k", Fault::Truncate);
    assert_eq!(tier.get("k").await.unwrap(), body.slice(..500));
    tier.fail_next(Some(Op::GetRange), "", Fault::Corrupt);
    let wrong = tier.get_range("k", 0..1000).await.unwrap();
    assert_eq!(wrong.iter().zip(&body).filter(|(a, b)| a != b).count(), 1);
    assert_eq!(tier.get("k").await.unwrap(), body, "faults are used up");

    tier.fail_next(Some(Op::Put), "", Fault::TimeOutBefore);
    assert!(matches!(tier.put("n", body.clone()).await, Err(Error::TimedOut(_))));
    assert!(memory.get("n").await.is_err());
    tier.fail_next(None, "n", Fault::TimeOutAfter);
    assert!(matches!(tier.put("n", body.clone()).await, Err(Error::TimedOut(_))));
    assert_eq!(memory.get("n").await.unwrap(), body);

    tier.fail_next(None, "", Fault::Hang);
    let head = tokio::time::timeout(Duration::from_secs(3600), tier.head("k"));
    assert!(head.await.is_err(), "it never answers");

    tier.cut_off_after(1);
    tier.put("last", body.clone()).await.unwrap();
    assert!(tier.put("late", body.clone()).await.is_err());
    assert!(tier.get("last").await.is_err(), "nothing answers any more");
    tier.reconnect();
    assert_eq!(tier.get("last").await.unwrap(), body);
    assert!(tier.get("late").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_fails_at_the_same_calls() {
    let run = async |seed| {
        let faults = [Fault::Error(FailureKind::Unavailable)];
        let tier = Faulty::seeded(Arc::new(Memory::new()), seed, 500, &faults);
        let mut pattern = Vec::new();
        for _ in 0..64 {
            pattern.push(tier.list("", None, 1).await.is_ok());
        }
        pattern
    };
    assert_eq!(run(7).await, run(7).await);
    assert_ne!(run(7).await, run(8).await);
}

#[tokio::test(start_paused = true)]
async fn only_what_may_pass_is_tried_again() {
    for (kind, calls) in [
        (FailureKind::Unavailable, 2),
        (FailureKind::BadBody, 2),
        (FailureKind::Refused, 1),
        (FailureKind::NoRoot, 1),
        (FailureKind::Full, 1),
        (FailureKind::Rejected, 1),
    ] {
        let (memory, inner) = faulty();
        memory.put("k", bytes(10, 1)).await.unwrap();
        inner.fail_next(None, "", Fault::Error(kind));
        let answer = retry(&inner, 5, 60).get("k").await;
        assert_eq!(answer.is_ok(), calls == 2, "{kind:?}");
        assert_eq!(inner.calls(Op::Get), calls, "{kind:?}");
    }
    let (_, inner) = faulty();
    assert!(matches!(retry(&inner, 5, 60).get("k").await, Err(Error::NotFound(_))));
    assert_eq!(inner.calls(Op::Get), 1);
}

#[tokio::test(start_paused = true)]
async fn attempts_and_deadline_are_kept() {
    let (_, inner) = faulty();
    inner.cut_off();
    assert!(retry(&inner, 4, 3600).head("k").await.is_err());
    assert_eq!(inner.calls(Op::Head), 4);

    let start = tokio::time::Instant::now();
    assert!(retry(&inner, 1_000_000, 30).head("k").await.is_err());
    assert!(start.elapsed() <= Duration::from_secs(30), "{:?}", start.elapsed());
    assert!(start.elapsed() >= Duration::from_secs(15), "{:?}", start.elapsed());

    inner.reconnect();
    let start = tokio::time::Instant::now();
    inner.fail_next(None, "", Fault::Hang);
    assert!(matches!(retry(&inner, 9, 30).get("k").await, Err(Error::TimedOut(_))));
    assert_eq!(start.elapsed(), Duration::from_secs(30));

    let start = tokio::time::Instant::now();
    inner.fail_next(Some(Op::Put), "", Fault::Hang);
    inner.fail_next(Some(Op::Head), "", Fault::Hang);
    assert!(matches!(retry(&inner, 9, 40).put("k", Bytes::new()).await, Err(Error::TimedOut(_))));
    assert_eq!(start.elapsed(), Duration::from_secs(40), "looking is inside the deadline too");
}

#[tokio::test(start_paused = true)]
async fn an_ambiguous_put_is_settled_by_looking() {
    let (memory, inner) = faulty();
    let body = bytes(1000, 1);

    // One attempt only: what is there now is what decides.
    inner.fail_next(Some(Op::Put), "", Fault::TimeOutAfter);
    retry(&inner, 1, 60).put("happened", body.clone()).await.unwrap();
    assert_eq!(memory.get("happened").await.unwrap(), body);

    inner.fail_next(Some(Op::Put), "", Fault::TimeOutBefore);
    let failed = retry(&inner, 1, 60).put("did-not", body.clone()).await;
    assert!(matches!(failed, Err(Error::TimedOut(_))));

    memory.put("other", bytes(1000, 2)).await.unwrap();
    inner.fail_next(Some(Op::Put), "", Fault::TimeOutBefore);
    let failed = retry(&inner, 1, 60).put("other", body.clone()).await;
    assert!(matches!(failed, Err(Error::Exists(_))));

    let file = file_of(&body);
    inner.fail_next(Some(Op::PutFile), "", Fault::TimeOutAfter);
    retry(&inner, 1, 60).put_file("file", file.path()).await.unwrap();
    assert_eq!(memory.get("file").await.unwrap(), body);
}

#[tokio::test(start_paused = true)]
async fn a_short_body_is_asked_for_again() {
    let (memory, inner) = faulty();
    let body = bytes(1000, 1);
    memory.put("k", body.clone()).await.unwrap();
    inner.fail_next(Some(Op::GetRange), "", Fault::Truncate);
    assert_eq!(retry(&inner, 3, 60).get_range("k", 10..900).await.unwrap(), body.slice(10..900));
    assert_eq!(inner.calls(Op::GetRange), 2);
}

#[tokio::test]
async fn a_store_that_hangs_while_it_is_opened_keeps_one_thread() {
    let (opens, asked) = (Arc::new(AtomicU32::new(0)), Arc::new(Barrier::new(2)));
    let (counted, released) = (Arc::clone(&opens), Arc::clone(&asked));
    let late = Late::new(
        "elsewhere",
        Arc::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            released.wait();
            Ok(Arc::new(Memory::new()) as Arc<dyn Tier>)
        }),
    );
    let hung = tokio::time::timeout(Duration::from_millis(50), late.head("a")).await;
    assert!(hung.is_err(), "nobody waits for ever");
    for _ in 0..3 {
        let error = late.head("a").await.unwrap_err();
        assert!(is_retriable(&error), "{error:?}");
    }
    assert_eq!(opens.load(Ordering::SeqCst), 1);
    asked.wait();
    while late.put("a", bytes(10, 1)).await.is_err() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(late.get("a").await.unwrap(), bytes(10, 1), "what came of it is used");
    assert_eq!(opens.load(Ordering::SeqCst), 1);
}
