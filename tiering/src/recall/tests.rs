//! The rules on sequences of reads, and all of recall together on a clock that stands still.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::clock::ManualClock;

const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;

fn promotion(change: impl FnOnce(&mut RecallSettings)) -> Promotion {
    let mut settings = RecallSettings::default();
    change(&mut settings);
    settings.validate().unwrap();
    Promotion::new(&settings)
}

/// Reads a file from end to end as the kernel does; what is promoted, and after how many bytes.
fn read_through(
    promotion: &mut Promotion,
    item: u64,
    size: u64,
    now_ms: u64,
) -> Option<(u64, Promote)> {
    let mut at = 0;
    while at < size {
        let end = (at + MIB).min(size);
        if let Some(promote) = promotion.note(item, at..end, size, now_ms, false) {
            return Some((end, promote));
        }
        at = end;
    }
    None
}

#[test]
fn a_file_read_through_twice_is_brought_back_whole() {
    let mut promotion = promotion(|_| ());
    let size = 100 * MIB;
    assert_eq!(read_through(&mut promotion, 1, size, 0), None);
    let (after, promote) = read_through(&mut promotion, 1, size, 1000).unwrap();
    // The first block is met for the second time before the rest shows what it is.
    assert_eq!((after, promote), (MIB, Promote::Range(0..MIB)));
    let mut rest = Vec::new();
    for at in (MIB..size).step_by(MIB as usize) {
        rest.extend(promotion.note(1, at..at + MIB, size, 1000, false).map(|p| (at, p)));
    }
    assert_eq!(rest, [(7 * MIB, Promote::Whole)], "once");
    assert_eq!(read_through(&mut promotion, 1, size, 2000), None, "it is on its way");
    let later = 2000 + 3_600_000;
    assert_eq!(read_through(&mut promotion, 1, size, later), Some((8 * MIB, Promote::Whole)));
}

#[test]
fn a_look_at_the_start_of_a_file_that_was_read_through_does_not_bring_it_back() {
    let mut promotion = promotion(|_| ());
    let size = 100 * MIB;
    assert_eq!(read_through(&mut promotion, 1, size, 0), None);
    let look = promotion.note(1, 0..4 * KIB, size, 1000, false);
    assert_eq!(look, Some(Promote::Range(0..MIB)));
    assert_eq!(promotion.note(1, 4 * KIB..8 * KIB, size, 60_000, false), None);
}

#[test]
fn reads_of_the_kernel_that_come_out_of_order_are_one_access() {
    let mut promotion = promotion(|_| ());
    let order = [0, 2, 1, 3, 5, 4, 7, 6, 8, 9, 11, 10, 12];
    for at in order {
        assert_eq!(promotion.note(1, at * MIB..(at + 1) * MIB, 13 * MIB, 0, false), None, "{at}");
    }
}

#[test]
fn a_small_file_is_brought_back_whole_at_its_second_read() {
    let mut promotion = promotion(|_| ());
    assert_eq!(promotion.note(1, 0..100, 10_000, 0, false), None);
    assert_eq!(promotion.note(1, 100..200, 10_000, 0, false), None, "the same access");
    assert_eq!(promotion.note(1, 0..100, 10_000, 0, false), Some(Promote::Whole));
    assert_eq!(promotion.note(2, 0..100, 10_000, 0, false), None, "another file");
    assert_eq!(promotion.note(2, 100..200, 10_000, 60_000, false), Some(Promote::Whole), "a pause");
}

#[test]
fn random_reads_bring_back_the_blocks_that_are_met_again() {
    let mut promotion = promotion(|_| ());
    let size = 1 << 30;
    let read =
        |promotion: &mut Promotion, at: u64| promotion.note(1, at..at + 4 * KIB, size, 0, false);
    for block in [7, 900, 3, 512, 44] {
        assert_eq!(read(&mut promotion, block * MIB + 12 * KIB), None);
    }
    assert_eq!(read(&mut promotion, 3 * MIB + 900 * KIB), Some(Promote::Range(3 * MIB..4 * MIB)));
    assert_eq!(read(&mut promotion, 3 * MIB), None, "counted from the start again");
    let across = promotion.note(1, 8 * MIB - 2 * KIB..8 * MIB + 2 * KIB, size, 0, false);
    assert_eq!(across, Some(Promote::Range(7 * MIB..8 * MIB)), "of two blocks one is met again");
}

#[test]
fn the_last_block_ends_with_the_file() {
    let mut promotion = promotion(|settings| settings.whole_file_bytes = 0);
    let size = 100 * MIB + 5000;
    assert_eq!(promotion.note(1, 100 * MIB..size, size, 0, false), None);
    let again = promotion.note(1, 100 * MIB..size + 77, size, 0, false);
    assert_eq!(again, Some(Promote::Range(100 * MIB..size)));
}

#[test]
fn a_file_of_which_most_was_read_is_brought_back_whole() {
    let mut promotion = promotion(|_| ());
    let size = 20 * MIB;
    for block in (0..20).step_by(2).chain([1, 3]) {
        let at = block * MIB + 100 * KIB;
        assert_eq!(promotion.note(1, at..at + 4 * KIB, size, 0, false), None);
    }
    assert_eq!(promotion.note(1, 0..4 * KIB, size, 0, false), Some(Promote::Whole));
}

#[test]
fn a_huge_file_is_not_brought_back_for_a_few_small_reads_all_over_it() {
    let mut promotion = promotion(|_| ());
    let size = 1 << 40;
    let step = size / 512;
    for round in 0..3_u64 {
        for at in (0..512).map(|n| n * step) {
            let got = promotion.note(1, at..at + 4 * KIB, size, round * 60_000, false);
            assert_ne!(got, Some(Promote::Whole));
        }
    }
}

#[test]
fn scans_are_neither_accesses_nor_reasons() {
    let mut promotion = promotion(|_| ());
    for _ in 0..5 {
        assert_eq!(promotion.note(1, 0..100, 1000, 0, true), None);
    }
    assert_eq!(promotion.note(1, 0..100, 1000, 0, false), None, "the first access");
    assert_eq!(promotion.note(1, 0..100, 1000, 0, true), None);
    assert_eq!(promotion.note(1, 0..100, 1000, 0, false), Some(Promote::Whole));
}

#[test]
fn the_number_of_accesses_is_what_is_set() {
    for after in [1, 2, 3, 5] {
        let mut promotion = promotion(|settings| settings.promote_after = after);
        for access in 1..after {
            assert_eq!(promotion.note(1, 0..100, 1000, 0, false), None, "{access} of {after}");
        }
        assert_eq!(promotion.note(1, 0..100, 1000, 0, false), Some(Promote::Whole), "{after}");
    }
    let mut never = promotion(|settings| settings.promote_after = 0);
    assert!((0..10).all(|_| never.note(1, 0..100, 1000, 0, false).is_none()));
}

#[test]
fn an_access_long_ago_is_forgotten() {
    let mut promotion = promotion(|settings| settings.memory = Duration::from_secs(3600));
    assert_eq!(promotion.note(1, 0..100, 1000, 0, false), None);
    assert_eq!(promotion.note(1, 0..100, 1000, 3_600_001, false), None);
    assert_eq!(promotion.note(1, 0..100, 1000, 3_700_000, false), Some(Promote::Whole));
}

#[test]
fn files_are_bounded_and_those_met_again_stay() {
    let mut promotion = promotion(|settings| {
        settings.items = 100;
        settings.promote_after = 1000;
    });
    for item in 0..10_000 {
        promotion.note(item, 0..100, 1000, item, false);
        promotion.note(0, 0..100, 1000, item, false);
        assert!(promotion.len() <= 100);
    }
    assert!(promotion.knows(0));
    assert!(!promotion.knows(5000));
    promotion.set(&RecallSettings { items: 10, ..RecallSettings::default() });
    assert_eq!(promotion.len(), 10);
    for item in 0..10_000 {
        promotion.note(item, 0..100, 1000, 0, false);
        promotion.forget(item);
    }
    assert!(promotion.len() <= 10, "what was forgotten leaves nothing behind");
}

#[test]
fn a_file_that_changes_its_length_is_still_known() {
    let mut promotion = promotion(|_| ());
    assert_eq!(promotion.note(1, 0..100, 1000, 0, false), None);
    let far = 2 << 40;
    assert_eq!(promotion.note(1, far - 4096..far, far, 0, false), None);
    assert_eq!(promotion.note(1, 0..100, 100, 20_000, false), Some(Promote::Whole));
    assert_eq!(promotion.note(1, 500..600, 100, 0, false), None, "past its end");
}

fn recall(change: impl FnOnce(&mut RecallSettings)) -> (Recall, Arc<ManualClock>) {
    let mut settings = RecallSettings::default();
    change(&mut settings);
    settings.validate().unwrap();
    let clock = Arc::new(ManualClock::new());
    (Recall::new(&settings, Arc::clone(&clock) as Arc<dyn Clock>), clock)
}

fn small_read(user: u32, item: u64) -> ColdRead {
    ColdRead { user, item, range: 0..1000, file_size: 1000, is_scan: false }
}

#[test]
fn beyond_the_allowance_nothing_is_brought_back_or_read_ahead() {
    let rate = Rate { bytes_per_s: 1000, burst_bytes: 5000 };
    let (recall, clock) = recall(|settings| settings.allowance_per_user = Some(rate));
    assert_eq!(recall.served(&small_read(1, 1), || true), None);
    assert_eq!(
        recall.served(&small_read(1, 1), || true),
        Some(Promote::Whole),
        "3000 of 5000 are spent"
    );
    assert_eq!(recall.served(&small_read(1, 2), || true), None);
    assert!(recall.may_read_ahead(1));
    assert_eq!(recall.served(&small_read(1, 2), || true), None, "all is spent");
    assert!(!recall.may_read_ahead(1));
    assert!(recall.may_read_ahead(2), "another user's own");
    clock.advance(Duration::from_secs(4));
    assert!(recall.may_read_ahead(1));
}

#[test]
fn what_may_not_come_back_costs_what_was_read_and_no_more() {
    let rate = Rate { bytes_per_s: 1000, burst_bytes: 5000 };
    let (recall, _) = recall(|settings| settings.allowance_per_user = Some(rate));
    let refused = |item| recall.served(&small_read(1, item), || false);
    assert_eq!([refused(1), refused(1), refused(1)], [None, None, None]);
    assert_eq!(recall.served(&small_read(1, 2), || panic!("nothing is wanted yet")), None);
    assert!(recall.may_read_ahead(1), "4000 of 5000 are spent");
}

#[test]
fn who_has_used_up_his_allowance_comes_last() {
    let rate = Rate { bytes_per_s: 1, burst_bytes: 1000 };
    let (recall, _) = recall(|settings| {
        settings.allowance_per_user = Some(rate);
        settings.in_flight = 1;
    });
    let recall = &recall;
    recall.served(&small_read(1, 1), || true);
    let first = recall.admit(9, Wait::No).unwrap();
    assert!(matches!(recall.admit(2, Wait::No), Err(Error::WouldWait)));
    let order = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for (user, waiting) in [(1, 1), (2, 2)] {
            let order = &order;
            scope.spawn(move || {
                let _admitted = recall.admit(user, soon(recall)).unwrap();
                order.lock().push(user);
            });
            while recall.in_flight().1 < waiting {
                std::thread::yield_now();
            }
        }
        drop(first);
    });
    assert_eq!(*order.lock(), [2, 1]);
    assert_eq!(recall.in_flight(), (0, 0));
}

fn soon(recall: &Recall) -> Wait {
    Wait::Until(recall.clock.instant() + Duration::from_secs(60))
}

#[test]
fn one_user_leaves_room_for_another() {
    let (recall, _) = recall(|settings| {
        settings.in_flight = 4;
        settings.in_flight_per_user = 3;
    });
    let held: Vec<_> = (0..3).map(|_| recall.admit(1, Wait::No).unwrap()).collect();
    assert!(matches!(recall.admit(1, Wait::No), Err(Error::WouldWait)));
    let other = recall.admit(2, Wait::No).unwrap();
    assert!(matches!(recall.admit(3, Wait::No), Err(Error::WouldWait)), "all four are in flight");
    drop((held, other));
    assert_eq!(recall.in_flight(), (0, 0));
}

#[test]
fn waiting_ends_with_its_deadline_and_the_queue_with_its_bound() {
    let (recall, clock) = recall(|settings| {
        settings.in_flight = 1;
        settings.queue = 1;
    });
    let recall = &recall;
    let _held = recall.admit(1, Wait::No).unwrap();
    let deadline = Wait::Until(clock.instant() + Duration::from_secs(5));
    std::thread::scope(|scope| {
        let waiter = scope.spawn(move || recall.admit(1, deadline));
        while recall.in_flight().1 < 1 {
            std::thread::yield_now();
        }
        let refused = recall.admit(2, deadline).unwrap_err();
        assert!(refused.to_string().contains("too many"), "{refused}");
        clock.advance(Duration::from_secs(6));
        let late = waiter.join().unwrap().unwrap_err();
        assert!(late.to_string().contains("turn"), "{late}");
    });
    assert_eq!(recall.in_flight(), (1, 0));
}

#[test]
fn other_settings_hold_at_once() {
    let (recall, _) = recall(|settings| settings.in_flight = 1);
    let _first = recall.admit(1, Wait::No).unwrap();
    assert!(recall.admit(1, Wait::No).is_err());
    recall.set(&RecallSettings { promote_after: 1, ..RecallSettings::default() });
    let _second = recall.admit(1, Wait::No).unwrap();
    assert_eq!(recall.served(&small_read(1, 1), || true), Some(Promote::Whole));
    recall.forget(1);
    assert_eq!(recall.served(&small_read(1, 1), || true), Some(Promote::Whole), "it was forgotten");
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let refused = |change: fn(&mut RecallSettings)| {
        let mut settings = RecallSettings::default();
        change(&mut settings);
        settings.validate().is_err()
    };
    assert!(refused(|s| s.whole_file_percent = 0));
    assert!(refused(|s| s.whole_file_percent = 101));
    assert!(refused(|s| s.items = 0));
    assert!(refused(|s| s.items = MAX_ITEMS + 1));
    assert!(refused(|s| s.in_flight = 0));
    assert!(refused(|s| s.in_flight_per_user = 0));
    assert!(refused(|s| s.allowance = Some(Rate { bytes_per_s: 0, burst_bytes: 1 })));
    assert!(!refused(|s| s.promote_after = 0));
}
