//! One sync for many who wait: callers that arrive while a sync runs share the next one.
//!
//! A caller is covered only by a sync that began after it called, since an earlier one may have
//! missed what the caller wants durable. A failed sync is remembered for ever: what it should
//! have covered may be lost, and a later success would hide that.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use firn_tiering::Blocks;
use parking_lot::{Condvar, Mutex};

use crate::error::{FsError, FsResult};

/// Makes many durable at the price of one.
#[derive(Debug, Default)]
pub(crate) struct GroupSync {
    state: Mutex<State>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    started: u64,
    finished: u64,
    running: bool,
    failed: Option<String>,
}

impl GroupSync {
    /// Returns once a run of `sync` that began after this call has succeeded.
    pub(crate) fn run(&self, sync: impl FnOnce() -> FsResult<()>) -> FsResult<()> {
        let mut state = self.state.lock();
        let ticket = state.started + 1;
        loop {
            if let Some(reason) = &state.failed {
                return Err(FsError::ReadOnly(reason.clone()));
            }
            if state.finished >= ticket {
                return Ok(());
            }
            if !state.running {
                break;
            }
            self.done.wait(&mut state);
        }
        state.running = true;
        state.started += 1;
        let mine = state.started;
        drop(state);
        let result = catch_unwind(AssertUnwindSafe(sync))
            .unwrap_or_else(|_| Err(FsError::io("sync", "it panicked, which is a bug")));
        let mut state = self.state.lock();
        state.running = false;
        match &result {
            Ok(()) => state.finished = mine,
            Err(error) => state.failed = Some(format!("a sync failed: {error}")),
        }
        self.done.notify_all();
        result
    }
}

/// Knows which appended blocks a sync has covered.
///
/// An append is counted after it returned; a sync covers what was counted before it began.
#[derive(Debug, Default)]
pub(crate) struct Durability {
    appended: AtomicU64,
    synced: AtomicU64,
    group: GroupSync,
}

impl Durability {
    /// Counts a finished append and returns its ticket.
    pub(crate) fn appended(&self) -> u64 {
        self.appended.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The append with this ticket survives a crash.
    pub(crate) fn is_durable(&self, ticket: u64) -> bool {
        ticket <= self.synced.load(Ordering::SeqCst)
    }

    /// Makes the append with this ticket, and all before it, durable.
    pub(crate) fn ensure(&self, ticket: u64, blocks: &dyn Blocks) -> FsResult<()> {
        if self.is_durable(ticket) {
            return Ok(());
        }
        self.group.run(|| {
            let covered = self.appended.load(Ordering::SeqCst);
            blocks.sync()?;
            self.synced.fetch_max(covered, Ordering::SeqCst);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Barrier};

    use super::*;

    #[test]
    fn callers_that_wait_share_one_sync_that_began_after_them() {
        let group = Arc::new(GroupSync::default());
        let runs = Arc::new(AtomicU64::new(0));
        let entered = Arc::new(Barrier::new(2));
        let leave = Arc::new(Barrier::new(2));
        let first = {
            let (group, entered, leave, runs) =
                (group.clone(), entered.clone(), leave.clone(), runs.clone());
            std::thread::spawn(move || {
                group.run(|| {
                    runs.fetch_add(1, Ordering::SeqCst);
                    entered.wait();
                    leave.wait();
                    Ok(())
                })
            })
        };
        entered.wait();
        let others: Vec<_> = (0..8)
            .map(|_| {
                let (group, runs) = (group.clone(), runs.clone());
                std::thread::spawn(move || {
                    group.run(|| {
                        runs.fetch_add(1, Ordering::SeqCst);
                        Ok(())
                    })
                })
            })
            .collect();
        leave.wait();
        first.join().unwrap().unwrap();
        others.into_iter().for_each(|t| t.join().unwrap().unwrap());
        let runs = runs.load(Ordering::SeqCst);
        assert!((2..=9).contains(&runs), "{runs} runs");
    }

    #[test]
    fn a_failure_is_final() {
        let group = GroupSync::default();
        group.run(|| Err(FsError::NoSpace)).unwrap_err();
        assert!(matches!(group.run(|| Ok(())), Err(FsError::ReadOnly(_))));
    }
}
