//! The datasets and snapshots of a mounted volume.

use anyhow::Context;
use firn_mount::fuse::KernelCache;
use firn_mount::namespace::Dataset;

use super::keeper::Tree;
use crate::daemon::assemble::Parts;
use crate::policy::plan::Existing;

/// A mounted volume.
pub(super) struct LiveTree<'a> {
    pub(super) parts: &'a Parts,
    pub(super) kernel: &'a KernelCache,
}

impl Tree for LiveTree<'_> {
    fn datasets(&self) -> Vec<(Dataset, Vec<u8>)> {
        // One that is being rolled back has no root; it comes again.
        let all = self.parts.namespace.datasets().into_iter().filter(|info| info.root.is_some());
        all.map(|info| (info.dataset, info.path)).collect()
    }

    fn snapshots(&self, dataset: Dataset) -> anyhow::Result<Vec<Existing>> {
        let snapshots = self.parts.namespace.snapshots(dataset)?;
        let existing = snapshots.into_iter().map(|snapshot| Existing {
            in_use: !snapshot.holds.is_empty() || !snapshot.clones.is_empty(),
            name: snapshot.name,
        });
        Ok(existing.collect())
    }

    fn take(&self, datasets: &[Dataset], name: &str) -> anyhow::Result<()> {
        self.kernel.drain_all().context("writing back what the kernel holds")?;
        let taken = self.parts.volume.snapshot(datasets, name, "")?;
        self.forget(&taken.forget)
    }

    fn destroy(&self, dataset: Dataset, names: &[String]) -> anyhow::Result<()> {
        let snapshots: Vec<_> = names.iter().map(|name| (dataset, name.as_str())).collect();
        let forget = self.parts.volume.destroy_snapshots(&snapshots, false)?;
        self.forget(&forget)
    }
}

impl LiveTree<'_> {
    fn forget(&self, forget: &firn_mount::types::Forget) -> anyhow::Result<()> {
        let volume = self.parts.volume.as_ref();
        self.kernel.forget(volume, forget).context("the kernel may still show the state before")
    }
}
