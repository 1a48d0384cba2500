#![allow(clippy::unwrap_used, reason = "tests")]

use firn_tiering::heat::Place;
use firn_tiering::{Clock, SystemClock};

use super::*;

const HORIZON_MS: u64 = 86_400_000;

impl Foresight {
    /// What waits to be taken in.
    pub(in crate::daemon::placement) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }
}

fn now_ms() -> u64 {
    super::super::uses::now_ms(&SystemClock as &dyn Clock)
}

fn open(dir: &Path, now_ms: u64, ended_in_order: bool) -> Foresight {
    Foresight::load(dir, HORIZON_MS, 1 << 30, Opening { now_ms, ended_in_order }, false)
}

/// A sample of the file 7, and none of others.
fn tick(foresight: &Foresight, now_ms: u64) {
    let place = Place { item: 7, group: 1, owner: 0 };
    let history = History::new(now_ms);
    let mut known = |count: usize| vec![Known { place, history }; count.min(1)];
    foresight.tick(now_ms, &mut known, &|_| {
        Some(Facts { size: 1, created_ms: 0, kind: 0, group: None, owner: None })
    });
}

fn labels(foresight: &Foresight) -> Vec<bool> {
    let inner = foresight.inner.lock();
    inner.learner.samples.matured().iter().map(|sample| sample.reused).collect()
}

#[test]
fn a_file_that_stays_open_counts_and_one_that_is_removed_tells_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let now = now_ms();
    for (happens, expected) in [
        (None, vec![false]),
        (Some(Seen::Visited { item: 7, at_ms: now + 1000 }), vec![true]),
        (Some(Seen::Visited { item: 8, at_ms: now + 1000 }), vec![false]),
        (Some(Seen::Removed(7)), vec![]),
        (Some(Seen::Removed(8)), vec![false]),
    ] {
        let foresight = open(dir.path(), now, true);
        tick(&foresight, now);
        match happens {
            Some(Seen::Visited { item, at_ms }) => foresight.visited(Ino(item), at_ms),
            Some(Seen::Removed(item)) => foresight.removed(Ino(item)),
            _ => {}
        }
        tick(&foresight, now + HORIZON_MS + 1);
        assert_eq!(labels(&foresight), expected, "{happens:?}");
    }
}

#[test]
fn samples_that_nobody_can_label_any_more_are_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let now = now_ms();
    let foresight = open(dir.path(), now, true);
    tick(&foresight, now);
    foresight.visited(Ino(7), now + 1);
    foresight.store();
    let pending = |now, in_order| open(dir.path(), now, in_order).standing().pending;
    assert_eq!(pending(now + 2, true), 1);
    assert_eq!(pending(now + HORIZON_MS / 2, true), 1);
    assert_eq!(pending(now + HORIZON_MS + 60_000, true), 0, "a pause");
    assert_eq!(pending(now + 2, false), 0, "a crash");
    // What happened last was taken in before it was stored.
    let again = open(dir.path(), now + 2, true);
    tick(&again, now + HORIZON_MS + 1);
    assert_eq!(labels(&again), [true]);
}
