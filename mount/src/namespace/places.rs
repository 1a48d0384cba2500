//! Where datasets and snapshots begin: their root directories, and the names that lead there.

use super::Namespace;
use super::key::Dataset;
use crate::error::FsResult;
use crate::types::Ino;

impl Namespace {
    /// The root directory of a live dataset.
    pub fn live_root(&self, dataset: Dataset) -> FsResult<Ino> {
        Ok(self.live_view(dataset)?.root())
    }

    /// The dataset whose live root directory `ino` is.
    pub fn live_root_of(&self, ino: Ino) -> Option<Dataset> {
        let view = self.view(ino).ok()?;
        (view.is_head && ino == view.root()).then_some(view.dataset)
    }

    /// The dataset of the snapshot whose root directory `ino` is.
    pub fn snapshot_root_of(&self, ino: Ino) -> Option<Dataset> {
        let view = self.view(ino).ok()?;
        (!view.is_head && ino == view.root()).then_some(view.dataset)
    }

    /// The snapshot that an inode is in: its dataset and its name.
    pub fn snapshot_with(&self, ino: Ino) -> Option<(Dataset, String)> {
        let view = self.view(ino).ok().filter(|view| !view.is_head)?;
        let tree = self.tree.read();
        let record = tree.snapshots.get(&view.limit)?;
        Some((view.dataset, record.name.clone()))
    }

    /// The number of an object in the live view of a dataset.
    pub fn in_live_view(&self, dataset: Dataset, object: u64) -> FsResult<Ino> {
        Ok(self.live_view(dataset)?.lift(Ino(object)))
    }

    /// Whether a number names something in the live state of a dataset, not in a snapshot.
    pub fn is_live(&self, ino: Ino) -> bool {
        self.tree.read().view(ino).is_some_and(|view| view.is_head)
    }

    /// Whether the state that a number names is gone for good: a snapshot or dataset that was
    /// destroyed, or what a rollback abandoned.
    pub fn is_gone(&self, ino: Ino) -> bool {
        ino != Ino::ROOT && self.tree.read().view(ino).is_none()
    }

    /// The directory and the name under which a dataset shows; `None` for the mount's root.
    pub fn dataset_entry(&self, dataset: Dataset) -> FsResult<Option<(Ino, Vec<u8>)>> {
        let place = self.tree.read().datasets.get(&dataset).and_then(|record| record.place);
        let Some(place) = place else { return Ok(None) };
        let junction = self.live_view(place.parent)?.lift(Ino(place.junction));
        let junction = self.inode(junction)?;
        let name = self.name_in_parent(&junction)?;
        Ok(name.map(|name| (junction.parent, name)))
    }
}
