//! Datasets of a volume in use: making, cloning, moving and destroying them.

use super::Volume;
use crate::namespace::{Dataset, Setting, TreeResult};
use crate::types::{Caller, Forget, Ino};

impl Volume {
    /// Makes a dataset that shows as the new directory `name` in `parent`, with properties.
    pub fn create_dataset(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        perm: u16,
        settings: &[Setting],
    ) -> TreeResult<(Dataset, Forget)> {
        self.check_writable()?;
        self.check_entry(parent, name)?;
        self.names.check_changeable(parent)?;
        let made = self.names.create_dataset(caller, parent, name, perm, settings);
        let made = self.tree_changed(made)?;
        Ok((made, entry_changed(parent, name)))
    }

    /// Makes a dataset that begins as a snapshot was, at the new directory `name` in `parent`.
    pub fn clone_snapshot(
        &self,
        caller: &Caller,
        snapshot: (Dataset, &str),
        parent: Ino,
        name: &[u8],
    ) -> TreeResult<(Dataset, Forget)> {
        self.check_writable()?;
        self.check_entry(parent, name)?;
        self.names.check_changeable(parent)?;
        let made = self.names.clone_snapshot(caller, snapshot, parent, name);
        Ok((self.tree_changed(made)?, entry_changed(parent, name)))
    }

    /// Destroys a dataset, which comes last, with some that lie below it, all or none, and their
    /// snapshots if `with_snapshots`; what only they held is freed in the background. Each comes
    /// behind those that lie in it, and those that are clones of its snapshots. Handles of their
    /// files are stale.
    pub fn destroy_datasets(
        &self,
        datasets: &[Dataset],
        with_snapshots: bool,
    ) -> TreeResult<Forget> {
        self.check_writable()?;
        let Some(&top) = datasets.last() else { return Ok(Forget::default()) };
        let entry = self.names.dataset_entry(top)?;
        if let Some((parent, _)) = &entry {
            self.names.check_changeable(*parent)?;
        }
        let origins: Vec<_> = datasets.iter().filter_map(|of| self.origin(*of)).collect();
        // Nothing is opened meanwhile that would outlive a dataset.
        let shut = self.shut()?;
        let still = self.sweeper.still();
        let removed = self.tree_changed(self.names.destroy_datasets(datasets, with_snapshots))?;
        let inodes = self.drop_gone();
        drop((shut, still));
        self.removed(&removed);
        self.sweeper.wake();
        let mut forget = Forget { inodes, ..Forget::default() };
        if let Some((parent, name)) = entry {
            forget.add(entry_changed(parent, &name));
        }
        for (origin, snapshot) in origins {
            // Its end may have been deferred until now.
            forget.add(self.snapdir_changed(origin, &[&snapshot]));
        }
        Ok(forget)
    }

    /// Moves a dataset to the free name `new_name` in `new_parent`, a directory of the dataset
    /// that it lies in already.
    pub fn rename_dataset(
        &self,
        dataset: Dataset,
        new_parent: Ino,
        new_name: &[u8],
    ) -> TreeResult<Forget> {
        self.check_writable()?;
        self.check_entry(new_parent, new_name)?;
        self.names.check_changeable(new_parent)?;
        let entry = self.names.dataset_entry(dataset)?;
        self.tree_changed(self.names.rename_dataset(dataset, new_parent, new_name))?;
        let mut forget = entry_changed(new_parent, new_name);
        if let Some((parent, name)) = entry {
            forget.add(entry_changed(parent, &name));
        }
        Ok(forget)
    }

    /// Lets a clone take over the snapshots that it came from: afterwards the dataset that they
    /// belonged to is a clone of it.
    pub fn promote(&self, dataset: Dataset) -> TreeResult<Forget> {
        self.check_writable()?;
        let mut forget = Forget::default();
        if let Some((origin, _)) = self.origin(dataset) {
            let snapshots = self.names.snapshots(origin)?;
            let names: Vec<&str> = snapshots.iter().map(|snapshot| &snapshot.name[..]).collect();
            forget.add(self.snapdir_changed(origin, &names));
            forget.add(self.snapdir_changed(dataset, &names));
        }
        self.tree_changed(self.names.promote(dataset))?;
        Ok(forget)
    }

    /// The snapshot that a dataset is a clone of, and whose it is.
    fn origin(&self, dataset: Dataset) -> Option<(Dataset, String)> {
        self.names.datasets().into_iter().find(|info| info.dataset == dataset)?.origin
    }
}

/// A directory got or lost an entry, which changed its attributes, too.
pub(super) fn entry_changed(parent: Ino, name: &[u8]) -> Forget {
    Forget { entries: vec![(parent, name.to_vec())], listings: Vec::new(), inodes: vec![parent] }
}
