//! Snapshots, rollback and clones on a real mount, with real programs over all of them.

mod keeping;
mod programs;
mod quota;
mod rollback;
mod space;
pub mod streams;

use std::path::PathBuf;

use crate::harness::Volume;

/// `dataset@name` as the command takes it; the dataset of the mount's root is `""`.
pub fn at(volume: &Volume, dataset: &str, name: &str) -> String {
    format!("{}@{name}", volume.path(dataset).to_str().unwrap().trim_end_matches('/'))
}

pub fn take(volume: &Volume, dataset: &str, name: &str) {
    volume.run(&["snapshot", "create", &at(volume, dataset, name)]);
}

pub fn make_dataset(volume: &Volume, dataset: &str) {
    volume.run(&["dataset", "create", volume.path(dataset).to_str().unwrap()]);
}

/// A path in a snapshot, as programs reach it.
pub fn shown(volume: &Volume, dataset: &str, name: &str, path: &str) -> PathBuf {
    volume.path(dataset).join(".firn/snapshot").join(name).join(path)
}
