//! Snapshots that are on their way to or from another volume. The end of a mount ends them: it says
//! so, and waits a while for them to notice.

use std::time::Duration;

use anyhow::anyhow;
use parking_lot::{Condvar, Mutex};

use crate::failure::Explain;

/// The transfers of one volume.
#[derive(Debug, Default)]
pub struct Transfers {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ending: bool,
    running: usize,
}

/// A transfer that runs, as long as this lives.
#[derive(Debug)]
pub struct Transfer<'a>(&'a Transfers);

impl Transfers {
    /// Begins one, unless the volume is being closed.
    pub fn begin(&self) -> anyhow::Result<Transfer<'_>> {
        let mut state = self.state.lock();
        if state.ending {
            return Err(anyhow!("the volume is being unmounted")).hint("mount it again first");
        }
        state.running += 1;
        Ok(Transfer(self))
    }

    /// Tells all of them to end, and waits up to `patience`; how many are left.
    pub fn end(&self, patience: Duration) -> usize {
        let mut state = self.state.lock();
        state.ending = true;
        self.changed.wait_while_for(&mut state, |state| state.running > 0, patience);
        state.running
    }
}

impl Transfer<'_> {
    /// Whether it is to end.
    pub fn is_ending(&self) -> bool {
        self.0.state.lock().ending
    }
}

impl Drop for Transfer<'_> {
    fn drop(&mut self) {
        self.0.state.lock().running -= 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_end_is_heard_and_waited_for() {
        let transfers = Transfers::default();
        let one = transfers.begin().unwrap();
        assert!(!one.is_ending());
        assert_eq!(transfers.end(Duration::from_millis(1)), 1);
        assert!(one.is_ending());
        assert!(transfers.begin().is_err(), "nothing begins any more");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| transfers.end(Duration::from_secs(60)));
            drop(one);
            assert_eq!(waiting.join().unwrap(), 0);
        });
    }
}
