//! Quotas: what may still be written in a dataset, and what `df` shows there.
//!
//! A quota bounds what a dataset holds with its snapshots and all datasets below it. What was
//! written and is not committed counts as well, for as much as it can become; where that does not
//! fit, it is committed once, and removed files are cleared away, before anybody is refused.
//! Whoever is admitted keeps room reserved until what was written counts by itself; where that does
//! not fit beside what others have reserved, one at a time looks again while nobody has any.
//! Removing and shortening files is always allowed, and so is what moves a dataset as a whole.
//!
//! Data from the kernel's page cache comes when nobody waits for it, and an error would reach
//! programs as `EIO` from `close`. It is taken and not kept instead, and told as `EDQUOT` to each
//! open descriptor at `fsync` or `close`, as the kernel does with pages that it cannot write back.

use std::sync::Arc;
use std::time::Duration;

use firn_tiering::Wait;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::data::Write;
use super::handles::OpenFile;
use super::storage::Space;
use super::{Volume, must_wait};
use crate::error::{FsError, FsResult};
use crate::file::pending::Share;
use crate::namespace::Quota;
use crate::types::Ino;

/// How long removed files are waited for that are being cleared away.
const PURGE_PATIENCE: Duration = Duration::from_secs(5);

/// Lets writers to datasets with quotas in together, or one alone.
pub(super) type QuotaGate = RwLock<()>;

/// Held until what was admitted counts as written.
#[must_use]
pub(super) enum Admitted<'a> {
    /// No quota holds.
    Free,
    /// Beside others.
    Beside { _room: Share, _shared: RwLockReadGuard<'a, ()> },
    /// While nobody else is admitted.
    Alone { _alone: RwLockWriteGuard<'a, ()> },
}

impl Volume {
    /// Fails unless `bytes` more fit in the dataset of `ino` and those above. The caller has not
    /// passed the gate.
    pub(super) fn admit(&self, ino: Ino, bytes: u64, wait: Wait) -> FsResult<Admitted<'_>> {
        let quotas = self.names.quotas_of(ino)?;
        if quotas.is_empty() {
            return Ok(Admitted::Free);
        }
        if let Some(shared) = self.quota_gate.try_read() {
            let room = self.files.pending.reserve(ino.view_index(), bytes);
            if quotas.iter().all(|quota| self.fits(quota, 0)) {
                return Ok(Admitted::Beside { _room: room, _shared: shared });
            }
        }
        must_wait(wait)?;
        let alone = self.quota_gate.write();
        for quota in quotas.iter().filter(|quota| !self.fits(quota, bytes)) {
            self.files.flush_some(&|ino| quota.views.contains(&ino.view_index()))?;
            self.purger.settle(PURGE_PATIENCE);
            if !self.fits(quota, bytes) {
                return Err(FsError::QuotaExceeded);
            }
        }
        Ok(Admitted::Alone { _alone: alone })
    }

    fn fits(&self, quota: &Quota, bytes: u64) -> bool {
        let used = self.names.space_used(quota.dataset).saturating_add(bytes);
        used.saturating_add(self.files.pending.all()) <= quota.bytes
            || used.saturating_add(self.files.pending.of(&quota.views)) <= quota.bytes
    }

    /// Fails where a quota is used up: a name would bring more.
    pub(super) fn admit_entry(&self, parent: Ino) -> FsResult<()> {
        let is_full = |quota: &Quota| self.names.space_used(quota.dataset) >= quota.bytes;
        match self.names.quotas_of(parent)?.iter().any(is_full) {
            true => Err(FsError::QuotaExceeded),
            false => Ok(()),
        }
    }

    /// Lets a write go on; `None` for one from the kernel's cache whose bytes have no room, which
    /// is told later.
    pub(super) fn admit_write(
        &self,
        open: &Arc<OpenFile>,
        write: &Write<'_>,
        wait: Wait,
    ) -> FsResult<Option<Admitted<'_>>> {
        let (ino, len) = (open.node.ino, write.data.len() as u64);
        match self.admit(ino, len, wait) {
            Err(FsError::QuotaExceeded) => {}
            admitted => return admitted.map(Some),
        }
        // Nothing keeps what is replaced in place.
        let is_placed = write.from_cache || !open.mode.append;
        if is_placed
            && !self.names.keeps_versions(ino)?
            && self.files.unallocated(&open.node, write.offset, len)? == 0
        {
            return Ok(Some(Admitted::Free));
        }
        if !write.from_cache {
            return Err(FsError::QuotaExceeded);
        }
        let known = open.node.state.read().failures;
        open.node.note_failure(&FsError::QuotaExceeded);
        if known == 0 {
            tracing::warn!(path = self.path(ino), "written data exceeds the quota and is lost");
        }
        Ok(None)
    }

    /// Room as programs in the dataset of `ino` see it: that of the narrowest quota, or of the
    /// volume.
    pub(super) fn space_at(&self, ino: Ino) -> FsResult<Space> {
        let volume = self.storage.space()?;
        let at = match self.snapdir(ino)? {
            Some(_) => Ino::ROOT,
            None => ino,
        };
        let quotas = self.names.quotas_of(at).or_else(|error| match error {
            // What is asked about a file that is gone is asked about the mount.
            FsError::Stale => self.names.quotas_of(Ino::ROOT),
            error => Err(error),
        })?;
        let left = |quota: &Quota| {
            let pending = self.files.pending.of(&quota.views);
            let used = self.names.space_used(quota.dataset).saturating_add(pending);
            quota.bytes.saturating_sub(used)
        };
        let narrowest = quotas.iter().map(|quota| (left(quota), quota.bytes)).min();
        Ok(narrowest.map_or(volume, |(left, bytes)| Space {
            total_bytes: bytes,
            free_bytes: left.min(volume.free_bytes),
        }))
    }
}
