//! Bringing a dataset in use back to one of its snapshots.

use super::Volume;
use crate::namespace::{Dataset, TreeResult};
use crate::types::Forget;

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
        let done = self.tree_changed(self.names.rollback(dataset, name, destroy_newer))?;
        self.files.report_unreferenced(done.unreferenced);
        Ok(Forget::default())
    }
}
