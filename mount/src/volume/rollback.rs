//! Bringing a dataset in use back to one of its snapshots.
//!
//! While no change is under way the namespace ends the live state, and whatever of it was only in
//! memory is dropped: from then on handles of its files are stale. The restoring after that may
//! take long; other datasets are in use, and this one is busy or stale.
//!
//! *Kernel*: it may remember names, attributes and pages of the abandoned state, and names as
//! missing that are there again. All inodes that it knows are named to it. *Crash*: the namespace
//! finishes the rollback when it is opened.

use super::Volume;
use super::snapdir::CONTROL_NAME;
use crate::file::chain;
use crate::namespace::{Dataset, TreeResult};
use crate::types::{Forget, Ino};

impl Volume {
    /// Brings a dataset back to a snapshot. Newer ones are destroyed if `destroy_newer`, and
    /// otherwise, or when one is held or has clones, in the way. Open handles of the dataset's
    /// files are stale afterwards, and so is what is written through them.
    pub fn rollback(
        &self,
        dataset: Dataset,
        name: &str,
        destroy_newer: bool,
    ) -> TreeResult<Forget> {
        self.check_writable()?;
        let shut = self.shut()?;
        let mut forget = self.names_of_root(dataset)?;
        let still = self.sweeper.still();
        let begun = self.names.begin_rollback(dataset, name, destroy_newer);
        self.tree_changed(begun)?;
        forget.inodes.extend(self.drop_gone());
        drop((shut, still));
        self.end_rollback(dataset, forget)
    }

    /// The part of a rollback during which everything else goes on.
    pub(super) fn end_rollback(&self, dataset: Dataset, mut forget: Forget) -> TreeResult<Forget> {
        let done = self.tree_changed(self.names.finish_rollback(dataset))?;
        self.files.report_unreferenced(done.unreferenced);
        self.sweeper.wake();
        self.clear_orphans();
        self.root_changed(dataset, &mut forget);
        Ok(forget)
    }

    /// Clears away what has no name in the state that a dataset shows now.
    pub(super) fn clear_orphans(&self) {
        if let Err(error) = self.purge_orphans() {
            // The dataset is as it was all the same; the next open clears them away.
            tracing::error!(error = chain(&error), "clearing away removed files");
        }
    }

    /// The root of the mount keeps its number whatever state it shows.
    pub(super) fn root_changed(&self, dataset: Dataset, forget: &mut Forget) {
        if self.names.live_root(dataset).is_ok_and(|root| root == Ino::ROOT) {
            forget.listings.push(Ino::ROOT);
            forget.inodes.push(Ino::ROOT);
        }
    }

    /// The names by which the kernel may reach a dataset's live state.
    pub(super) fn names_of_root(&self, dataset: Dataset) -> TreeResult<Forget> {
        let mut forget = Forget::default();
        if let Some(entry) = self.names.dataset_entry(dataset)? {
            forget.entries.push(entry);
        }
        // Without one the namespace has the right error.
        let Ok(root) = self.names.live_root(dataset) else { return Ok(forget) };
        if root == Ino::ROOT {
            // Its number stays; what is in it gets others.
            forget.entries.push((root, CONTROL_NAME.to_vec()));
            self.names.readdir(root, 0, false, &mut |entry| {
                if entry.ino != root && self.table.is_known(entry.ino) {
                    forget.entries.push((root, entry.name.clone()));
                }
                true
            })?;
        }
        Ok(forget)
    }

    /// Gives up what is in memory of states that are gone; returns the inodes that the kernel
    /// knows of them.
    pub(super) fn drop_gone(&self) -> Vec<Ino> {
        self.table.drop_gone(|ino| self.names.is_gone(ino))
    }
}
