//! Recovery in part: the newest backup that can be used at all, and where buckets of it are gone,
//! those of older ones.
//!
//! *What is taken from where.* The meta space says which datasets and snapshots there are and which
//! numbers were lent, so it is never older than the rest: a backup without it gives way to the one
//! before. A bucket of the head or history space is taken whole from the newest older backup that has
//! it whole, so that the records of one object are of one time; what no backup has is left out.
//! Back-references and the born index follow from the rest and are left out too: a repair makes them
//! anew, and would take older ones for news of content that is gone.
//! *Afterwards* the namespace does not fit together: it is to be repaired before it is used.
//! *Memory*: two manifests at a time, and a few pieces.
//! *Crash*: as any recovery.

use std::fmt;
use std::ops::RangeInclusive;

use super::bucket::Bucket;
use super::manifest::{Manifest, ManifestInfo};
use super::missing::{Lost, Missing};
use super::piece::PieceRef;
use super::recover::{Fill, Filled};
use super::{BackupError, BackupResult};
use crate::error::FsResult;
use crate::namespace::{Batch, Durability, Namespace, Space};

/// Records removed at a time.
const REMOVED_AT_ONCE: usize = 4096;

/// A part of a volume that the backup which was recovered did not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    bucket: Bucket,
    older: Option<ManifestInfo>,
}

impl Gap {
    /// The backup that it was taken from instead; `None` when it is lost.
    pub fn older(&self) -> Option<ManifestInfo> {
        self.older
    }

    /// Whether a repair makes all of it anew.
    pub fn is_derived(&self) -> bool {
        matches!(self.bucket.space(), Space::Backrefs | Space::Born)
    }

    /// Paths of what lies in it now, at most `limit`, and how many more there are.
    pub fn paths(&self, namespace: &Namespace, limit: usize) -> FsResult<(Vec<Vec<u8>>, u64)> {
        let (mut paths, mut more) = (Vec::new(), 0);
        let (line, objects) = match self.bucket.space() {
            Space::Head => (Some(self.bucket.group()), self.bucket.objects()),
            Space::History => (None, self.bucket.objects()),
            Space::Born | Space::Backrefs | Space::Meta => return Ok((paths, more)),
        };
        namespace.for_each_object(line, objects, &mut |ino| {
            match paths.len() < limit {
                true => paths.push(namespace.path(ino)),
                false => more += 1,
            }
            Ok(())
        })?;
        paths.sort_unstable();
        paths.dedup();
        Ok((paths, more))
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = self.bucket.group();
        let objects: RangeInclusive<u64> = self.bucket.objects();
        let (first, last) = (objects.start(), objects.end());
        match self.bucket.space() {
            Space::Head => write!(f, "inodes {first} to {last} of dataset {group}"),
            Space::History => write!(f, "older versions of inodes {first} to {last}"),
            Space::Born => write!(f, "index of inodes {first} to {last} by node {group}"),
            Space::Backrefs => write!(f, "back-references of blocks {first:016x} to {last:016x}"),
            Space::Meta => f.write_str("datasets and snapshots"),
        }
    }
}

/// A manifest's pieces with their buckets.
fn pieces_of(manifest: &Manifest, is_meta: bool) -> Vec<(Bucket, PieceRef)> {
    let buckets = manifest.table.iter();
    let buckets = buckets.filter(|(bucket, _)| (bucket.space() == Space::Meta) == is_meta);
    buckets.flat_map(|(bucket, pieces)| pieces.iter().map(|piece| (*bucket, *piece))).collect()
}

impl Fill<'_> {
    /// Writes what of a manifest can be read into an empty store, and of `older` ones, the newest
    /// first, what cannot.
    pub(super) fn run_in_part(
        &self,
        manifest: &Manifest,
        older: impl Iterator<Item = u64>,
    ) -> BackupResult<Filled> {
        // First, since nothing is of use without it.
        let all = manifest.pieces().count() as u64;
        let meta = self.all_of(&pieces_of(manifest, true), &|| true);
        let mut records = meta.map_err(|error| match error {
            BackupError::Incomplete(missing) => {
                BackupError::Incomplete(Missing { pieces: all, ..missing })
            }
            other => other,
        })?;
        let epoch = self.known_epoch(manifest.info.epoch)?;
        let mut lost = Lost::default();
        records += self.pieces(&pieces_of(manifest, false), &|| true, &mut lost)?;
        for &bucket in &lost.buckets {
            records -= self.clear(bucket)?;
        }
        lost.missing.pieces = all;
        if lost.missing.count > 0 {
            let missing = &lost.missing;
            tracing::warn!(manifest.info.sequence, %missing, "a backup is recovered in part");
        }
        let mut gaps = Vec::new();
        let mut open = lost.buckets;
        for sequence in older {
            let wanted = |bucket: &Bucket| matches!(bucket.space(), Space::Head | Space::History);
            if !open.iter().any(wanted) {
                break;
            }
            let Some(older) = self.older(manifest, sequence)? else { continue };
            for bucket in open.iter().copied().filter(wanted).collect::<Vec<_>>() {
                if let Some(found) = self.older_bucket(manifest, &older, bucket)? {
                    records += found;
                    open.remove(&bucket);
                    gaps.push(Gap { bucket, older: Some(older.info) });
                }
            }
        }
        gaps.extend(open.into_iter().map(|bucket| Gap { bucket, older: None }));
        self.finish(epoch)?;
        Ok(Filled { records, epoch, gaps })
    }

    /// An older manifest of the same volume, if it can be read.
    fn older(&self, newer: &Manifest, sequence: u64) -> BackupResult<Option<Manifest>> {
        match self.calls.wait(Manifest::fetch(&**self.tier, sequence)) {
            Ok((older, _)) => Ok(Some(older).filter(|o| o.info.volume == newer.info.volume)),
            Err(error) if error.is_damage() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a bucket as an older backup has it; the records in it, or `None` when it is not whole
    /// there.
    fn older_bucket(
        &self,
        newer: &Manifest,
        older: &Manifest,
        bucket: Bucket,
    ) -> BackupResult<Option<u64>> {
        let Some(pieces) = older.table.get(&bucket) else { return Ok(None) };
        if newer.table.get(&bucket) == Some(pieces) {
            return Ok(None);
        }
        let pieces: Vec<_> = pieces.iter().map(|piece| (bucket, *piece)).collect();
        match self.all_of(&pieces, &|| true) {
            Ok(records) => Ok(Some(records)),
            Err(error) if error.is_damage() => self.clear(bucket).map(|_| None),
            Err(error) => Err(error),
        }
    }

    /// Removes what was written of a bucket; how many records.
    fn clear(&self, bucket: Bucket) -> BackupResult<u64> {
        let (from, to) = bucket.range();
        let mut removed = 0;
        loop {
            let space = bucket.space();
            let page = self.store.page(space, &from, to.as_deref(), REMOVED_AT_ONCE)?;
            if page.items.is_empty() {
                return Ok(removed);
            }
            let mut batch = Batch::new();
            page.items.iter().for_each(|(key, _)| batch.delete(space, key));
            removed += page.items.len() as u64;
            self.store.commit(batch, Durability::Buffered)?;
        }
    }
}

impl BackupError {
    /// What is missing of a backup that is not whole.
    pub(super) fn incomplete(lost: Lost, pieces: u64) -> Self {
        Self::Incomplete(Missing { pieces, ..lost.missing })
    }
}
