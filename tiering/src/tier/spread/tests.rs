//! One tier of several stores: that it is a tier, with any `m` of them dead, wrong or slow.
#![allow(clippy::unwrap_used, reason = "tests")]

mod crash;
mod format;
mod losses;
mod places;
mod sectors;
mod staging;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::tier::tests::{bytes, conforms};
use crate::tier::{Fault, Faulty, Memory};

/// Stores in memory, each behind trouble, and the tier over them.
pub(super) struct Set {
    pub(super) memories: Vec<Arc<Memory>>,
    pub(super) faulties: Vec<Arc<Faulty>>,
    pub(super) spread: Spread,
}

impl Set {
    /// With every shard required.
    pub(super) async fn new(data: usize, parity: usize) -> Self {
        let memories: Vec<_> = (0..data + parity).map(|_| Arc::new(Memory::new())).collect();
        let set = Self::over(memories, parity);
        assert_eq!(set.spread.found().await.unwrap(), data + parity);
        set
    }

    /// Over stores that are there.
    pub(super) fn over(memories: Vec<Arc<Memory>>, parity: usize) -> Self {
        let faulty = |memory: &Arc<Memory>| Arc::new(Faulty::new(Arc::clone(memory) as _));
        let faulties: Vec<Arc<Faulty>> = memories.iter().map(faulty).collect();
        let stores = faulties.iter().map(|faulty| Arc::clone(faulty) as Arc<dyn Tier>);
        let spread = Spread::new(stores.collect(), parity, Some("volume".to_owned())).unwrap();
        Self { memories, faulties, spread }
    }

    /// Satisfied with as few shards as may be.
    pub(super) fn frugal(mut self) -> Self {
        let least = self.spread.quorum();
        self.spread = self.spread.with_least(least).unwrap();
        self
    }

    /// The same stores, as another process finds them.
    pub(super) fn reopened(&self) -> Self {
        Self::over(self.memories.clone(), self.spread.parity())
    }

    /// These stores, as another process finds them.
    pub(super) fn reopened_with(&self, faulties: &[Arc<Faulty>]) -> Spread {
        let stores = faulties.iter().map(|faulty| Arc::clone(faulty) as Arc<dyn Tier>).collect();
        Spread::new(stores, self.spread.parity(), Some("volume".to_owned())).unwrap()
    }

    /// What the stores hold of an object.
    pub(super) fn shards(&self, key: &str) -> usize {
        self.memories.iter().filter(|memory| memory.peek(key).is_some()).count()
    }
}

const KINDS: [(usize, usize); 5] = [(3, 2), (1, 1), (4, 1), (2, 2), (1, 3)];

#[tokio::test]
async fn spreads_conform() {
    for (data, parity) in KINDS {
        let set = Set::new(data, parity).await;
        conforms(&set.spread).await;
        for memory in &set.memories {
            assert_eq!(memory.keys(), [PLACE_KEY], "nothing stays behind");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn spreads_conform_with_as_many_stores_dead_as_there_is_parity() {
    for (data, parity) in [(3, 2), (4, 1)] {
        for first in [0, data] {
            let set = Set::new(data, parity).await.frugal();
            set.faulties[first..first + parity].iter().for_each(|faulty| faulty.cut_off());
            conforms(&set.spread).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn spreads_conform_with_as_many_stores_wrong_as_there_is_parity() {
    for (fault, first) in [
        (Fault::Corrupt, 0),
        (Fault::Corrupt, 3),
        (Fault::Truncate, 2),
        (Fault::Hang, 0),
        (Fault::TimeOutAfter, 1),
    ] {
        let set = Set::new(3, 2).await.frugal();
        // Known as members, so that it is their content that is wrong.
        set.spread.put("x", bytes(10, 1)).await.unwrap();
        set.spread.delete("x").await.unwrap();
        for faulty in &set.faulties[first..first + 2] {
            faulty.reseed(1, 1000, &[fault]);
        }
        conforms(&set.spread).await;
    }
}

#[tokio::test]
async fn directories_conform() {
    let dirs: Vec<_> = (0..5).map(|_| tempfile::tempdir().unwrap()).collect();
    let open = |dir: &tempfile::TempDir| {
        let url = format!("file://{}", dir.path().display());
        crate::tier::open_once(&url).unwrap().tier
    };
    let spread = Spread::new(dirs.iter().map(open).collect(), 2, Some("v".to_owned())).unwrap();
    spread.found().await.unwrap();
    conforms(&spread).await;
}

#[tokio::test]
async fn a_small_read_is_one_request_of_one_store() {
    let set = Set::new(4, 2).await;
    let content = bytes(3 << 20, 1);
    set.spread.put("k", content.clone()).await.unwrap();
    let calls = |op| set.faulties.iter().map(|faulty| faulty.calls(op)).sum::<u64>();
    let (before, gets) = (calls(crate::tier::Op::GetRange), calls(crate::tier::Op::Get));
    let part = set.spread.get_range("k", 700_000..703_000).await.unwrap();
    assert_eq!(part, content.slice(700_000..703_000));
    assert_eq!(calls(crate::tier::Op::GetRange) - before, 1);
    assert_eq!(calls(crate::tier::Op::Get), gets);
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_is_not_waited_for() {
    let set = Set::new(3, 2).await;
    let content = bytes(1 << 20, 1);
    set.spread.put("k", content.clone()).await.unwrap();
    set.faulties[1].reseed(1, 1000, &[Fault::Hang]);
    let start = tokio::time::Instant::now();
    assert_eq!(set.spread.get("k").await.unwrap(), content);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let start = tokio::time::Instant::now();
    assert_eq!(set.spread.get("k").await.unwrap(), content);
    assert!(start.elapsed() < Duration::from_millis(10), "it is known to be slow");
}

/// Bytes on the stores over bytes of data: what `README.md` says.
#[tokio::test]
async fn the_overhead_is_what_is_said() {
    let len = 64_u64 << 20;
    for (data, parity, percent) in [(3, 1, 33.56), (4, 2, 50.26), (8, 3, 37.90), (3, 2, 67.04)] {
        let set = Set::new(data, parity).await;
        let file = crate::tier::tests::file_of(&bytes(len as usize, 1));
        set.spread.put_file("k", file.path()).await.unwrap();
        let stored: usize = set.memories.iter().filter_map(|m| m.peek("k")).map(|b| b.len()).sum();
        assert_eq!(stored as u64, set.spread.stored_len(len));
        let measured = (stored as f64 / len as f64 - 1.0) * 100.0;
        assert!((measured - percent).abs() < 0.01, "{data}+{parity}: {measured:.3} %");
    }
}
