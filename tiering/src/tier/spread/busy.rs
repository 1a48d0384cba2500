//! Keys that somebody of this process changes: one at a time, so that nobody takes the first shards
//! of a put for those of a dead one.

use std::collections::HashSet;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The keys.
#[derive(Debug, Default)]
pub(super) struct Busy {
    keys: Mutex<HashSet<String>>,
    freed: Notify,
}

/// The right to change one.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    busy: &'a Busy,
    key: &'a str,
}

impl Busy {
    /// Waits until nobody else changes `key`.
    pub(super) async fn turn<'a>(&'a self, key: &'a str) -> Turn<'a> {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // Registered before the look, so that no end is missed.
            freed.as_mut().enable();
            if let Some(turn) = self.try_turn(key) {
                return turn;
            }
            freed.await;
        }
    }

    /// `None` when somebody else changes it.
    pub(super) fn try_turn<'a>(&'a self, key: &'a str) -> Option<Turn<'a>> {
        let is_free = self.keys.lock().insert(key.to_owned());
        // Made only then: the end of one frees the key.
        is_free.then(|| Turn { busy: self, key })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.busy.keys.lock().remove(self.key);
        self.busy.freed.notify_waiters();
    }
}
