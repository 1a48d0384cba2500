//! Works the plan off: what is due is found out when something may have changed, and done.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use firn_mount::namespace::Dataset;

use super::{DatasetState, State};
use crate::failure::Failure;
use crate::policy::cycle::Turn;
use crate::policy::plan::{Existing, Plan, plan};
use crate::policy::{self, Keep, Policy};

/// Seconds after which everything is looked at again, also when nothing is due: a hold may have
/// been released, a dataset made, or what failed may work now.
const AGAIN: i64 = 60;

/// Datasets and snapshots of a volume.
pub(super) trait Tree {
    /// All datasets, by their paths from the root of the volume.
    fn datasets(&self) -> Vec<(Dataset, Vec<u8>)>;
    /// The snapshots of one.
    fn snapshots(&self, dataset: Dataset) -> anyhow::Result<Vec<Existing>>;
    /// Takes one of each dataset, all of the same instant.
    fn take(&self, datasets: &[Dataset], name: &str) -> anyhow::Result<()>;
    /// Destroys some of a dataset, all or none.
    fn destroy(&self, dataset: Dataset, names: &[String]) -> anyhow::Result<()>;
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    ino: u64,
    len: u64,
    changed: (i64, i64),
}

/// Keeps the snapshots of a volume as its policy says.
#[derive(Debug)]
pub(super) struct Keeper {
    file: PathBuf,
    /// Of the file that was read last; `None` for a file that is not there.
    stamp: Option<Option<Stamp>>,
    policy: Policy,
    policy_failure: Option<String>,
    missing: Vec<String>,
    states: BTreeMap<Dataset, DatasetState>,
    /// When there is something to be done next, and when that was found out.
    next: Option<(i64, i64)>,
}

impl Keeper {
    pub(super) fn new(file: PathBuf) -> Self {
        Self {
            file,
            stamp: None,
            policy: Policy::default(),
            policy_failure: None,
            missing: Vec::new(),
            states: BTreeMap::new(),
            next: None,
        }
    }

    /// Does what is due at `now`, in seconds after 1970; whether anything may have changed.
    pub(super) fn tick(
        &mut self,
        now: i64,
        tree: &dyn Tree,
        is_stopping: &dyn Fn() -> bool,
    ) -> bool {
        let changed = self.read_policy();
        let is_due = |(due, since): (i64, i64)| now >= due || now < since;
        if !changed && !self.next.is_none_or(is_due) {
            return false;
        }
        self.keep(now, tree, is_stopping);
        // What is still due failed, and is not to be tried at every tick.
        let later =
            self.states.values().filter_map(|state| state.next_due.filter(|due| *due > now));
        let due = later.min();
        self.next = Some((due.map_or(now + AGAIN, |due| due.clamp(now + 1, now + AGAIN)), now));
        true
    }

    pub(super) fn state(&self) -> State {
        let datasets = self.states.values().cloned().collect();
        let (policy_failure, missing) = (self.policy_failure.clone(), self.missing.clone());
        State { policy_failure, missing, datasets }
    }

    /// Reads the policy again when its file is another one; whether it was.
    fn read_policy(&mut self) -> bool {
        let stamp = std::fs::metadata(&self.file).ok().map(|meta| Stamp {
            ino: meta.ino(),
            len: meta.len(),
            changed: (meta.ctime(), meta.ctime_nsec()),
        });
        if self.stamp == Some(stamp) {
            return false;
        }
        self.stamp = Some(stamp);
        let read = policy::read(&self.file)
            .and_then(|text| Ok(Policy::parse_in_use(text.as_deref().unwrap_or_default())?.0));
        match read {
            Ok(policy) => {
                if policy != self.policy {
                    tracing::info!(rules = policy.snapshots.len(), "there is another policy");
                }
                self.policy = policy;
                self.policy_failure = None;
            }
            Err(error) => {
                let failure = format!("{}: {}", policy::FILE_NAME, Failure::new(&error).message);
                tracing::warn!("the policy stays as it was: {failure}");
                self.policy_failure = Some(failure);
            }
        }
        true
    }

    fn keep(&mut self, now: i64, tree: &dyn Tree, is_stopping: &dyn Fn() -> bool) {
        self.states.clear();
        let mut kept: Vec<(Dataset, Keep)> = Vec::new();
        let mut due: BTreeMap<Turn, Vec<Dataset>> = BTreeMap::new();
        let datasets = tree.datasets();
        let paths: Vec<&[u8]> = datasets.iter().map(|(_, path)| path.as_slice()).collect();
        self.missing = self.policy.missing(&paths);
        for (dataset, path) in datasets {
            let Some(keep) = self.policy.keep(&path) else { continue };
            kept.push((dataset, keep));
            let state = DatasetState { path, last: None, next_due: None, failure: None };
            self.states.insert(dataset, state);
            for turn in self.look(now, tree, (dataset, keep)).take {
                due.entry(turn).or_default().push(dataset);
            }
        }
        for (turn, datasets) in due {
            if is_stopping() {
                return;
            }
            self.take(tree, turn, &datasets);
        }
        for (dataset, keep) in kept {
            if is_stopping() {
                return;
            }
            let Plan { destroy, .. } = self.look(now, tree, (dataset, keep));
            if destroy.is_empty() {
                continue;
            }
            match tree.destroy(dataset, &destroy) {
                Ok(()) => tracing::info!(count = destroy.len(), "old automatic snapshots went"),
                Err(error) => {
                    self.failed(dataset, &format!("destroying {}", destroy.join(", ")), &error)
                }
            }
        }
    }

    /// Takes one snapshot of several datasets; if that fails, of each alone.
    fn take(&mut self, tree: &dyn Tree, turn: Turn, datasets: &[Dataset]) {
        let name = turn.snapshot_name();
        let Err(error) = tree.take(datasets, &name) else {
            tracing::info!(name, datasets = datasets.len(), "an automatic snapshot was taken");
            return;
        };
        match datasets {
            [only] => self.failed(*only, &format!("taking {name}"), &error),
            several => several.iter().for_each(|one| self.take(tree, turn, &[*one])),
        }
    }

    /// Plans for a dataset as it is now.
    fn look(&mut self, now: i64, tree: &dyn Tree, (dataset, keep): (Dataset, Keep)) -> Plan {
        let existing = match tree.snapshots(dataset) {
            Ok(existing) => existing,
            Err(error) => {
                self.failed(dataset, "looking at its snapshots", &error);
                return Plan::default();
            }
        };
        let plan = plan(now, &keep, &existing);
        if let Some(state) = self.states.get_mut(&dataset) {
            let newest = existing.iter().filter_map(|snapshot| Turn::of_snapshot(&snapshot.name));
            // Of turns that begin together, the shortest is the last word.
            let newest = newest.max_by_key(|turn| (turn.start(), std::cmp::Reverse(turn.cycle())));
            state.last = newest.map(Turn::snapshot_name);
            state.next_due = plan.next_due;
        }
        plan
    }

    fn failed(&mut self, dataset: Dataset, doing: &str, error: &anyhow::Error) {
        let failure = format!("{doing}: {}", Failure::new(error).message);
        tracing::warn!("automatic snapshots: {failure}");
        if let Some(state) = self.states.get_mut(&dataset) {
            // The first one is what the others follow from.
            state.failure.get_or_insert(failure);
        }
    }
}

#[cfg(test)]
mod tests;
