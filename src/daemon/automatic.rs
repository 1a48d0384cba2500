//! Automatic snapshots: one thread that looks at the policy and at the time, takes what is due and
//! destroys what is not to be kept any more.
//!
//! What was taken is known by the names of the snapshots alone, so that nothing is taken twice
//! after a restart. *Order*: snapshots are taken before old ones are destroyed, and what could not
//! be taken keeps an older one alive. *Failure*: a dataset that fails holds up no other; it is
//! shown in `status` and tried again. A policy that cannot be read leaves the last good one.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use firn_mount::fuse::KernelCache;
use parking_lot::Mutex;

use super::assemble::Parts;
use super::schedule::Stop;
use crate::policy;
use crate::report::status::{AutomaticSnapshots, AutomaticState};

mod keeper;
mod tree;

use keeper::Keeper;
use tree::LiveTree;

/// How often the time and the policy file are looked at.
const TICK: Duration = Duration::from_secs(2);

/// Takes snapshots until it is stopped.
#[derive(Debug, Default)]
pub(super) struct Automatic {
    stop: Arc<Stop>,
    thread: Mutex<Option<JoinHandle<()>>>,
    state: Arc<Mutex<State>>,
}

/// What `status` says about it.
#[derive(Clone, Debug, Default)]
struct State {
    /// Why the policy file is not the one that holds.
    policy_failure: Option<String>,
    /// Datasets that have a rule and do not exist.
    missing: Vec<String>,
    datasets: Vec<DatasetState>,
}

/// What `status` says of one dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
struct DatasetState {
    /// Its path from the root of the volume.
    path: Vec<u8>,
    /// Its newest automatic snapshot.
    last: Option<String>,
    /// When the next is due, in seconds after 1970.
    next_due: Option<i64>,
    /// Why what is due could not be done.
    failure: Option<String>,
}

impl Automatic {
    pub(super) fn start(&self, parts: &Arc<Parts>, kernel: KernelCache) {
        let (stop, state) = (Arc::clone(&self.stop), Arc::clone(&self.state));
        let file = parts.dir.root().join(policy::FILE_NAME);
        // The thread must not keep the parts open.
        let parts = Arc::downgrade(parts);
        let thread = std::thread::Builder::new()
            .name("firn-snapshots".into())
            .spawn(move || run(&stop, file, &parts, &kernel, &state));
        match thread {
            Ok(thread) => *self.thread.lock() = Some(thread),
            Err(error) => {
                tracing::error!(%error, "no thread for automatic snapshots");
                let failure = format!("no thread for automatic snapshots: {error}");
                self.state.lock().policy_failure = Some(failure);
            }
        }
    }

    /// Ends the thread; what it is at is waited for.
    pub(super) fn stop(&self) {
        self.stop.stop();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the thread for automatic snapshots panicked");
        }
    }

    /// What `status` says; `None` without a policy for snapshots.
    pub(super) fn status(&self, shown: impl Fn(&[u8]) -> String) -> Option<AutomaticSnapshots> {
        let State { policy_failure, missing, datasets } = self.state.lock().clone();
        let datasets: Vec<AutomaticState> = datasets
            .into_iter()
            .map(|dataset| AutomaticState {
                dataset: shown(&dataset.path),
                last: dataset.last,
                next_due: dataset.next_due.map(crate::utc::rfc3339),
                failure: dataset.failure,
            })
            .collect();
        let is_nothing = policy_failure.is_none() && missing.is_empty() && datasets.is_empty();
        (!is_nothing).then_some(AutomaticSnapshots { policy_failure, missing, datasets })
    }
}

fn run(
    stop: &Stop,
    file: PathBuf,
    parts: &Weak<Parts>,
    kernel: &KernelCache,
    state: &Mutex<State>,
) {
    let mut keeper = Keeper::new(file);
    loop {
        let Some(parts) = parts.upgrade() else { return };
        let tree = LiveTree { parts: &parts, kernel };
        if keeper.tick(secs(parts.clock.now()), &tree, &|| stop.is_stopping()) {
            *state.lock() = keeper.state();
        }
        drop(parts);
        if !stop.sleep(TICK) {
            return;
        }
    }
}

/// Seconds after 1970; a clock before that counts as 1970.
pub(super) fn secs(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
