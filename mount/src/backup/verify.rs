//! Reads the newest backup in a tier from end to end, for `firn check`: everything a recovery
//! would read, checked as a recovery would, and nothing written.

use std::sync::Arc;

use firn_tiering::tier::Tier;
use tokio::runtime::Handle;

use super::BackupResult;
use super::collect::View;
use super::manifest::{self, Manifest, ManifestInfo};
use super::piece;

/// Something of a backup that is missing or damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedObject {
    /// Its key in the tier.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What a check of the newest backup found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The newest backup whose manifest can be read.
    pub backup: ManifestInfo,
    /// Records in its whole pieces.
    pub records: u64,
    /// Newer manifests and its own pieces that are missing or damaged.
    pub damaged: Vec<DamagedObject>,
}

/// Reads the newest backup; `None` when there is none at all. Blocks: not for asynchronous
/// threads.
pub fn verify_newest(tier: &Arc<dyn Tier>, runtime: &Handle) -> BackupResult<Option<Verified>> {
    runtime.block_on(verify(&**tier))
}

pub(super) async fn verify(tier: &dyn Tier) -> BackupResult<Option<Verified>> {
    let view = View::of(tier).await?;
    let mut damaged = Vec::new();
    for &sequence in view.manifests.iter().rev() {
        match Manifest::fetch(tier, sequence).await {
            Ok((manifest, _)) => return verify_pieces(tier, &manifest, damaged).await.map(Some),
            Err(error) if error.is_damage() => {
                let key = manifest::key(sequence);
                damaged.push(DamagedObject { key, reason: error.to_string() });
            }
            Err(error) => return Err(error),
        }
    }
    match damaged.pop() {
        None => Ok(None),
        Some(oldest) => Err(super::BackupError::NoWholeBackup {
            count: damaged.len() + 1,
            readable: 0,
            reason: damaged.first().unwrap_or(&oldest).reason.clone(),
        }),
    }
}

async fn verify_pieces(
    tier: &dyn Tier,
    manifest: &Manifest,
    mut damaged: Vec<DamagedObject>,
) -> BackupResult<Verified> {
    let mut records = 0;
    for (&bucket, pieces) in &manifest.table {
        for name in pieces {
            let key = name.key();
            let check = |sealed: &[u8]| piece::open(sealed, name, bucket);
            match manifest::fetch_checked(tier, &key, check).await {
                Ok(opened) => records += opened.len() as u64,
                Err(error) if error.is_damage() => {
                    damaged.push(DamagedObject { key, reason: error.to_string() });
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(Verified { backup: manifest.info, records, damaged })
}
