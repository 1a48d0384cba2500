//! Whether the newest backup of the namespace can be restored. Where the disk has no room to try,
//! all of it is read and verified instead. One that is no good is followed by a whole new one.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use firn_mount::backup::{Backup, BackupError, Rehearsed, Verified};
use firn_tiering::throttle::Priority;
use firn_tiering::tier::Tier;

use super::super::assemble::Parts;
use super::super::storage::disk_bytes;
use super::Worker;
use crate::report::scrub::BackupTest;

/// Room that is left to others.
const SPARE_BYTES: u64 = 1 << 30;

/// Where a backup is restored to.
fn place(parts: &Parts) -> PathBuf {
    parts.dir.root().join("restore-test")
}

/// Removes what a test left that did not live to do it.
pub(super) fn clear_leftovers(parts: &Parts) {
    let place = place(parts);
    match std::fs::remove_dir_all(&place) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(place = %place.display(), %error, "what a test of a backup left stays");
        }
        _ => {}
    }
}

impl Worker<'_> {
    /// Tests the newest backup, and sees to a new one if that is no good. Nothing was read that
    /// counts against the rate.
    pub(super) fn look_at_backup(&self, parts: &Parts) -> anyhow::Result<u64> {
        self.give_way(parts);
        // Every object was seen to by now.
        parts.store.clean_cold();
        let (Some(backup), Some(cold)) = (&parts.backup, &parts.cold) else { return Ok(0) };
        let test = self.test(parts, backup, cold.at(Priority::Scrub))?;
        if let Some(failure) = &test.failure {
            tracing::error!(test.sequence, failure, "the newest backup is no good");
            backup.distrust();
            parts.back_up().context("making a new backup, since the newest is no good")?;
        }
        if let Some(pass) = &mut self.scrub.shared.lock().record.pass {
            pass.backup = Some(test);
        }
        Ok(0)
    }

    fn test(
        &self,
        parts: &Parts,
        backup: &Backup,
        tier: &Arc<dyn Tier>,
    ) -> anyhow::Result<BackupTest> {
        let has_room = has_room(parts)?;
        let goes_on = || !self.scrub.stop.is_stopping();
        let tested = match has_room {
            true => backup.rehearse(tier, &place(parts), &goes_on).map(BackupTest::from),
            false => backup
                .verify(tier)
                .and_then(|verified| {
                    verified.ok_or(BackupError::NoBackup { segments: 0, pieces: 0 })
                })
                .map(BackupTest::from),
        };
        match tested {
            Ok(test) => Ok(test),
            Err(error @ BackupError::NoBackup { .. }) => Ok(failed(None, &error)),
            Err(error) if error.is_damage() => {
                let sequence = backup.status().last.map(|last| last.sequence);
                Ok(failed(sequence, &error))
            }
            Err(error) => Err(anyhow!(error)).context("testing the newest backup"),
        }
    }
}

fn failed(sequence: Option<u64>, error: &BackupError) -> BackupTest {
    BackupTest { sequence, failure: Some(error.to_string()), ..BackupTest::default() }
}

/// Whether the disk of the volume has room for the namespace once more.
fn has_room(parts: &Parts) -> anyhow::Result<bool> {
    let root = parts.dir.root();
    let disk = rustix::fs::statvfs(root).with_context(|| format!("asking {}", root.display()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let namespace = disk_bytes(&parts.dir.namespace_dir());
    Ok(free >= namespace.saturating_mul(2).saturating_add(SPARE_BYTES))
}

impl From<Rehearsed> for BackupTest {
    fn from(rehearsed: Rehearsed) -> Self {
        let Rehearsed { backup, records, inodes, faults } = rehearsed;
        let failure = (!faults.is_empty()).then(|| faults.join("; "));
        Self { sequence: Some(backup.sequence), records, inodes, restored: true, failure }
    }
}

impl From<Verified> for BackupTest {
    fn from(verified: Verified) -> Self {
        let Verified { backup, records, damaged } = verified;
        let failure = damaged.first().map(|object| format!("{}: {}", object.key, object.reason));
        Self { sequence: Some(backup.sequence), records, failure, ..Self::default() }
    }
}
