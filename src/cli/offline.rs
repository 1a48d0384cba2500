//! Looking into a volume that is not mounted.

use std::sync::Arc;
use std::time::Duration;

use firn_tiering::{Budget, Clock, SystemClock};

use crate::daemon::assemble::{self, OpenNamespace};
use crate::daemon::tree::naming::Naming;
use crate::mounts;
use crate::volume_dir::VolumeDir;
use crate::volume_dir::lock::{Owner, VolumeLock};

/// The namespace of a volume, as long as nobody mounts it.
pub(super) struct Offline {
    open: OpenNamespace,
    prefix: String,
    _lock: VolumeLock,
}

impl Offline {
    pub(super) fn open(volume: &VolumeDir) -> anyhow::Result<Self> {
        let config = volume.config()?;
        let lock = VolumeLock::acquire(volume, Owner::this("list", None), Duration::ZERO)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let budget = Budget::new(config.memory.0, Arc::clone(&clock));
        let open = assemble::open_namespace(volume, &budget, &clock, true)?;
        let prefix = format!("{}:", mounts::shown(volume.root()));
        Ok(Self { open, prefix, _lock: lock })
    }

    /// Looks, and closes what was opened.
    pub(super) fn look<T>(
        self,
        what: impl FnOnce(&Naming<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let namespace = self.open.namespace;
        let found = what(&Naming::new(&namespace, &self.prefix));
        let closed = namespace.close();
        let found = found?;
        closed?;
        Ok(found)
    }
}
