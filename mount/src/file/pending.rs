//! How many bytes files hold that nobody is charged for yet: an upper bound of what their commits
//! add, by the view that they are in, for quotas.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// What the files of each view hold.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    all: Arc<AtomicU64>,
    views: Mutex<HashMap<u16, Arc<AtomicU64>>>,
}

/// What one file holds; taken back when dropped.
#[derive(Debug, Default)]
pub(crate) struct Share {
    counters: Option<[Arc<AtomicU64>; 2]>,
    bytes: u64,
}

impl Pending {
    /// Bytes of all files.
    pub(crate) fn all(&self) -> u64 {
        self.all.load(Ordering::Relaxed)
    }

    /// Bytes of the files of some views.
    pub(crate) fn of(&self, views: &[u16]) -> u64 {
        let counters = self.views.lock();
        let found = views.iter().filter_map(|view| counters.get(view));
        found.map(|counter| counter.load(Ordering::Relaxed)).sum()
    }

    /// Counts `bytes` for a view until the share is dropped.
    pub(crate) fn reserve(&self, view: u16, bytes: u64) -> Share {
        let mut share = Share::default();
        self.set(&mut share, view, bytes);
        share
    }

    /// Counts `bytes` for a file of a view from now on.
    pub(crate) fn set(&self, share: &mut Share, view: u16, bytes: u64) {
        if share.counters.is_none() && bytes > 0 {
            let mut views = self.views.lock();
            // Those of views that are gone.
            views.retain(|_, counter| Arc::strong_count(counter) > 1);
            let counter = Arc::clone(views.entry(view).or_default());
            share.counters = Some([Arc::clone(&self.all), counter]);
        }
        share.set(bytes);
    }
}

impl Share {
    /// Counts `bytes` from now on, where anything was counted before.
    pub(crate) fn set(&mut self, bytes: u64) {
        let Some(counters) = &self.counters else { return };
        for counter in counters {
            counter.fetch_add(bytes, Ordering::Relaxed);
            counter.fetch_sub(self.bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
        if bytes == 0 {
            self.counters = None;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_by_view_and_go_with_their_files() {
        let pending = Pending::default();
        let (mut one, mut other) = (Share::default(), Share::default());
        pending.set(&mut one, 1, 10);
        pending.set(&mut other, 2, 5);
        assert_eq!((pending.all(), pending.of(&[1]), pending.of(&[1, 2, 3])), (15, 10, 15));
        pending.set(&mut one, 1, 3);
        assert_eq!((pending.all(), pending.of(&[1])), (8, 3));
        one.set(0);
        one.set(7);
        assert_eq!(pending.all(), 5, "what is not listed is not counted");
        drop(other);
        assert_eq!((pending.all(), pending.of(&[1, 2])), (0, 0));
    }
}
