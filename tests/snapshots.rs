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

/// The root and the digest of a snapshot, once it has them.
pub fn sealed(volume: &Volume, dataset: &str, name: &str) -> (String, String) {
    let path = volume.path(dataset);
    for _ in 0..600 {
        let list = volume.run(&["snapshot", "list", "-q", "--json", path.to_str().unwrap()]);
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        let lines = list["snapshots"].as_array().unwrap();
        let line = lines.iter().find(|line| line["name"] == name).unwrap();
        let text = |field: &str| line[field].as_str().map(str::to_owned);
        if let (Some(root), Some(digest)) = (text("root"), text("digest")) {
            return (root, digest);
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("{name} has no digest");
}

/// A path in a snapshot, as programs reach it.
pub fn shown(volume: &Volume, dataset: &str, name: &str, path: &str) -> PathBuf {
    volume.path(dataset).join(".firn/snapshot").join(name).join(path)
}
