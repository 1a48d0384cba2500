#![allow(clippy::unwrap_used, reason = "tests")]

use std::thread;
use std::time::Duration;

use super::*;
use crate::clock::ManualClock;

fn budget(total: u64) -> (Budget, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new());
    (Budget::new(total, Arc::clone(&clock) as Arc<dyn Clock>), clock)
}

#[test]
fn a_permit_gives_back_what_it_took() {
    let (budget, _) = budget(100);
    let mut permit = budget.try_acquire(80).unwrap();
    assert!(budget.try_acquire(21).is_none());
    permit.shrink_to(50);
    let other = budget.try_acquire(50).unwrap();
    assert_eq!(budget.used_bytes(), 100);
    permit.merge(other);
    let part = permit.split(30);
    drop(permit);
    assert_eq!(budget.used_bytes(), 30);
    drop(part);
    assert_eq!((budget.used_bytes(), budget.peak_bytes()), (0, 100));
}

#[test]
fn an_oversize_request_is_granted_alone() {
    let (budget, _) = budget(10);
    let small = budget.try_acquire(1).unwrap();
    assert!(budget.try_acquire(50).is_none());
    drop(small);
    assert_eq!(budget.try_acquire(50).unwrap().bytes(), 50);
}

#[test]
fn no_wait_says_so_and_a_deadline_is_kept_by_the_injected_clock() {
    let (budget, clock) = budget(10);
    let _held = budget.try_acquire(10).unwrap();
    assert!(matches!(budget.acquire(1, Wait::No, "testing"), Err(Error::WouldWait)));
    let deadline = clock.instant() + Duration::from_secs(300);
    let waiter = {
        let budget = budget.clone();
        thread::spawn(move || budget.acquire(1, Wait::Until(deadline), "testing").map(drop))
    };
    while budget.waiters() == 0 {
        thread::yield_now();
    }
    clock.advance(Duration::from_secs(300));
    assert!(matches!(waiter.join().unwrap(), Err(Error::TimedOut("testing"))));
    assert_eq!(budget.waiters(), 0);
}

#[test]
fn waiters_are_served_in_order_and_nobody_overtakes() {
    let (budget, clock) = budget(10);
    let held = budget.try_acquire(10).unwrap();
    let far = clock.instant() + Duration::from_secs(3600);
    let large = {
        let budget = budget.clone();
        thread::spawn(move || budget.acquire(8, Wait::Until(far), "testing"))
    };
    while budget.waiters() == 0 {
        thread::yield_now();
    }
    let mut held = held;
    held.shrink_to(5);
    // Five bytes are free, but the large request came first.
    assert!(budget.try_acquire(5).is_none());
    drop(held);
    let large = large.join().unwrap().unwrap();
    assert_eq!(large.bytes(), 8);
    assert!(budget.try_acquire(2).is_some());
}

#[test]
fn many_threads_never_hold_more_than_the_whole() {
    let (budget, clock) = budget(64);
    let far = clock.instant() + Duration::from_secs(3600);
    thread::scope(|scope| {
        for worker in 1..=8 {
            let budget = &budget;
            scope.spawn(move || {
                for round in 0..200 {
                    let bytes = (worker * 7 + round) % 40 + 1;
                    drop(budget.acquire(bytes, Wait::Until(far), "testing").unwrap());
                }
            });
        }
    });
    assert_eq!(budget.used_bytes(), 0);
    assert!(budget.peak_bytes() <= 64);
}
