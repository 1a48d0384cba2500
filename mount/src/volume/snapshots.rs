//! Snapshots of a volume in use.
//!
//! The namespace keeps them; here everything that programs have written is brought there first,
//! and who asked learns what the kernel must forget.

use std::time::Duration;

use parking_lot::MutexGuard;

use super::Volume;
use crate::error::FsError;
use crate::namespace::{Dataset, Snapshot, TreeError, TreeResult};
use crate::types::Forget;

/// Snapshots that were just taken.
#[derive(Debug)]
pub struct Taken {
    /// One for each dataset, in the order asked for.
    pub snapshots: Vec<Snapshot>,
    /// How long changes were held.
    pub held: Duration,
    /// What the kernel must forget.
    pub forget: Forget,
}

impl Volume {
    /// Takes a snapshot of each dataset, all of one instant, and makes them durable. Everything
    /// that the volume was told before the call is in, also what was not synced; the caller has
    /// had the kernel write out its dirty pages.
    pub fn snapshot(&self, datasets: &[Dataset], name: &str, message: &str) -> TreeResult<Taken> {
        self.check_writable()?;
        let take = || self.tree_changed(self.names.snapshot(datasets, name, message));
        let (snapshots, held) = self.frozen(take)?;
        let mut forget = Forget::default();
        for &dataset in datasets {
            forget.add(self.snapdir_changed(dataset, &[name]));
        }
        Ok(Taken { snapshots, held, forget })
    }

    /// Destroys snapshots, each named by its dataset and its name, all or none; what only they held
    /// is freed in the background. One that is held or has clones is refused or, if `deferred`,
    /// destroyed with the last of them.
    pub fn destroy_snapshots(
        &self,
        snapshots: &[(Dataset, &str)],
        deferred: bool,
    ) -> TreeResult<Forget> {
        self.check_writable()?;
        let still = self.sweeper.still();
        self.tree_changed(self.names.destroy_snapshots(snapshots, deferred))?;
        Ok(self.snapshots_went(snapshots, still))
    }

    /// Gives the snapshot of this name of each dataset another one, all or none.
    pub fn rename_snapshots(
        &self,
        datasets: &[Dataset],
        name: &str,
        new: &str,
    ) -> TreeResult<Forget> {
        self.check_writable()?;
        self.tree_changed(self.names.rename_snapshots(datasets, name, new))?;
        let mut forget = Forget::default();
        for &dataset in datasets {
            forget.add(self.snapdir_changed(dataset, &[name, new]));
        }
        Ok(forget)
    }

    /// Keeps a snapshot from being destroyed.
    pub fn hold_snapshot(&self, dataset: Dataset, name: &str, tag: &str) -> TreeResult<()> {
        self.check_writable()?;
        self.tree_changed(self.names.hold(dataset, name, tag))
    }

    /// Takes a hold back. The last one of a snapshot whose end was deferred ends it.
    pub fn release_snapshot(&self, dataset: Dataset, name: &str, tag: &str) -> TreeResult<Forget> {
        self.check_writable()?;
        let still = self.sweeper.still();
        self.tree_changed(self.names.release(dataset, name, tag))?;
        Ok(self.snapshots_went(&[(dataset, name)], still))
    }

    /// Gives up what is in memory of snapshots that are gone, and clears away the rest.
    fn snapshots_went(&self, snapshots: &[(Dataset, &str)], still: MutexGuard<'_, ()>) -> Forget {
        let mut forget = Forget::default();
        for &(dataset, name) in snapshots {
            forget.add(self.snapdir_changed(dataset, &[name]));
        }
        forget.inodes.extend(self.drop_gone());
        drop(still);
        self.sweeper.wake();
        forget
    }

    /// Passes the outcome of a change of the tree on; a failed commit ends all changes.
    pub(super) fn tree_changed<T>(&self, outcome: TreeResult<T>) -> TreeResult<T> {
        if let Err(TreeError::Fs(FsError::Io { .. })) = &outcome
            && let Some(reason) = self.names.read_only()
        {
            self.files.health.fail(reason);
        }
        outcome
    }
}
