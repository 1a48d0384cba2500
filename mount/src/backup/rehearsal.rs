//! Whether a volume could be recovered from the tier as it is now: the newest backup is restored
//! into a place of its own, opened, checked like any namespace, and removed again.
//!
//! *Crash*: leaves the place, which the next rehearsal clears.
//! *Beside backups*: one that is made meanwhile may remove what is being read. That shows as
//! damage, so it counts only while the backup is still the newest.

use std::path::Path;
use std::sync::Arc;

use firn_tiering::Clock;
use firn_tiering::tier::Tier;

use super::calls::Calls;
use super::collect::View;
use super::manifest::ManifestInfo;
use super::recover::restore_newest;
use super::{BackupError, BackupResult};
use crate::namespace::{
    CheckOptions, LocalStore, Namespace, NamespaceOptions, NamespaceStore, Report, StoreOptions,
};

/// Times that a rehearsal begins again with a newer backup.
const TRIES: usize = 3;

/// Faults that are told; a whole backup has none.
const MOST_FAULTS: usize = 16;

/// Memory of the restored store: nobody waits for it.
const STORE_BYTES: u64 = 4 << 20;

/// What came of a rehearsal that went through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehearsed {
    /// The backup that was restored.
    pub backup: ManifestInfo,
    /// Records in it.
    pub records: u64,
    /// Inodes that the restored namespace has.
    pub inodes: u64,
    /// What a check of it found, in words, some of it when it is much; empty when it is whole.
    pub faults: Vec<String>,
}

/// A rehearsal in `dir`.
pub(super) struct Rehearsal<'a> {
    pub(super) tier: &'a Arc<dyn Tier>,
    pub(super) calls: &'a Calls,
    pub(super) clock: &'a Arc<dyn Clock>,
    pub(super) dir: &'a Path,
    pub(super) goes_on: &'a dyn Fn() -> bool,
}

impl Rehearsal<'_> {
    /// Restores the newest backup, opens and checks it, and removes it in any case.
    pub(super) fn run(&self) -> BackupResult<Rehearsed> {
        for _ in 1..TRIES {
            let before = self.newest()?;
            match self.once() {
                Err(error) if error.is_damage() && self.newest()? != before => {
                    tracing::debug!(%error, "a newer backup took the place of the one that was read");
                }
                other => return other,
            }
        }
        self.once()
    }

    fn newest(&self) -> BackupResult<Option<u64>> {
        Ok(self.calls.wait(View::of(&**self.tier))?.manifests.last().copied())
    }

    fn once(&self) -> BackupResult<Rehearsed> {
        clear(self.dir)?;
        let rehearsed = self.restore_and_check();
        clear(self.dir)?;
        rehearsed
    }

    fn restore_and_check(&self) -> BackupResult<Rehearsed> {
        let options = StoreOptions {
            cache_bytes: STORE_BYTES,
            write_buffer_bytes: STORE_BYTES,
            ..StoreOptions::default()
        };
        let store: Arc<dyn NamespaceStore> = Arc::new(LocalStore::open(self.dir, options)?);
        let restored = restore_newest(self.tier, self.calls, &*store, self.goes_on)?;
        let found = check(store, self.clock)?;
        let told = found.findings.iter().map(|finding| {
            format!("inode {}: {:?}: {}", finding.ino.0, finding.kind, finding.detail)
        });
        Ok(Rehearsed {
            backup: restored.backup,
            records: restored.records,
            inodes: found.inodes,
            faults: told.collect(),
        })
    }
}

/// Checks a restored namespace. One that does not even open is damaged.
fn check(store: Arc<dyn NamespaceStore>, clock: &Arc<dyn Clock>) -> BackupResult<Report> {
    let options = NamespaceOptions { read_only: true, ..NamespaceOptions::default() };
    let look = CheckOptions { max_findings: MOST_FAULTS, ..CheckOptions::default() };
    let checked = Namespace::open(store, Arc::clone(clock), options)
        .and_then(|namespace| namespace.check(look));
    checked.map_err(|error| BackupError::damaged("backup", format!("restored, it says: {error}")))
}

/// Removes what a rehearsal left that did not live to do it.
fn clear(dir: &Path) -> BackupResult<()> {
    match std::fs::remove_dir_all(dir) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(BackupError::Io { action: format!("remove {}", dir.display()), source })
        }
        _ => Ok(()),
    }
}
