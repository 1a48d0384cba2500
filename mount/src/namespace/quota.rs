//! Which quotas hold where.

use super::Namespace;
use super::key::Dataset;
use super::tree::Tree;
use crate::error::{FsError, FsResult};
use crate::types::Ino;

/// A bound of what a dataset uses, and where it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Whose it is.
    pub dataset: Dataset,
    /// Most bytes that it and all datasets below may use.
    pub bytes: u64,
    /// The indexes of their live views.
    pub views: Vec<u16>,
}

impl Namespace {
    /// The quotas that hold where an inode is: of its dataset and of those above.
    pub fn quotas_of(&self, ino: Ino) -> FsResult<Vec<Quota>> {
        let tree = self.tree.read();
        if !tree.has_quotas() {
            return Ok(Vec::new());
        }
        let dataset = tree.view(ino).ok_or(FsError::Stale)?.dataset;
        let quota = |of: Dataset| {
            let bytes = tree.properties(of)?.quota?;
            Some(Quota { dataset: of, bytes, views: tree.views_below(of) })
        };
        Ok(tree.way_up(dataset).filter_map(quota).collect())
    }

    /// Most bytes that a dataset and all below it may use.
    pub fn quota_of(&self, dataset: Dataset) -> Option<u64> {
        self.tree.read().properties(dataset)?.quota
    }

    /// Whether what is replaced in the dataset of `ino` may be kept for others.
    pub fn keeps_versions(&self, ino: Ino) -> FsResult<bool> {
        Ok(self.view(ino)?.keeps_born())
    }
}

impl Tree {
    /// The indexes of the live views of a dataset and of all below it.
    fn views_below(&self, dataset: Dataset) -> Vec<u16> {
        let is_below = |of: Dataset| self.way_up(of).any(|of| of == dataset);
        let below = self.datasets.iter().filter(|(of, _)| is_below(**of));
        below.map(|(_, record)| record.view).collect()
    }
}
