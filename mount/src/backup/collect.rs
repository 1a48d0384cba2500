//! What lies in the tier, and what of it may go: manifests beyond the newest few, then pieces
//! that no manifest names. Pieces go only when every manifest that is there could be read.

use std::collections::{BTreeMap, BTreeSet};

use firn_tiering::tier::Tier;

use super::bucket::Bucket;
use super::manifest::{self, Manifest, Table};
use super::piece::{self, PieceRef};
use super::{BackupError, BackupResult};

/// Objects listed at a time.
const PAGE: usize = 1000;

/// What a backup found in the tier when it began.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Numbers of the manifests.
    pub(super) manifests: BTreeSet<u64>,
    /// Keys and lengths of the pieces.
    pub(super) pieces: BTreeMap<String, u64>,
}

/// What [`collect`] did.
#[derive(Debug)]
pub(super) struct Collected {
    pub(super) oldest_kept: u64,
    pub(super) deleted: u64,
}

impl View {
    pub(super) async fn of(tier: &dyn Tier) -> BackupResult<Self> {
        let manifests = list(tier, manifest::PREFIX).await?;
        let manifests = manifests.keys().filter_map(|key| manifest::sequence_of(key)).collect();
        Ok(Self { manifests, pieces: list(tier, piece::PREFIX).await? })
    }

    /// The number of the next backup.
    pub(super) fn next_sequence(&self) -> u64 {
        self.manifests.last().map_or(1, |last| last.saturating_add(1))
    }

    /// Whether the piece is there, as long as it should be.
    pub(super) fn holds(&self, piece: &PieceRef) -> bool {
        self.pieces.get(&piece.key()) == Some(&u64::from(piece.stored_len))
    }

    /// The buckets of a table that lack a piece.
    pub(super) fn incomplete(&self, table: &Table) -> Vec<Bucket> {
        let lacks = |pieces: &Vec<PieceRef>| pieces.iter().any(|piece| !self.holds(piece));
        table.iter().filter(|(_, pieces)| lacks(pieces)).map(|(bucket, _)| *bucket).collect()
    }
}

/// All objects below a prefix, with their lengths.
async fn list(tier: &dyn Tier, prefix: &str) -> BackupResult<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    let mut after: Option<String> = None;
    loop {
        let page = tier.list(prefix, after.as_deref(), PAGE).await?;
        let Some(last) = page.last() else { return Ok(found) };
        after = Some(last.key.clone());
        found.extend(page.into_iter().map(|meta| (meta.key, meta.len)));
    }
}

/// Fails when the newest readable manifest is another volume's.
pub(super) async fn refuse_foreign(
    tier: &dyn Tier,
    view: &View,
    volume: [u8; 16],
) -> BackupResult<()> {
    for &sequence in view.manifests.iter().rev() {
        match Manifest::fetch(tier, sequence).await {
            Ok((manifest, _)) if manifest.info.volume == volume => return Ok(()),
            Ok(_) => return Err(BackupError::OtherVolume),
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Keeps the newest `keep` manifests that can be read, `newest` among them, and what they name.
pub(super) async fn collect(
    tier: &dyn Tier,
    view: &View,
    newest: &Manifest,
    keep: usize,
) -> BackupResult<Collected> {
    let mut kept = vec![newest.info.sequence];
    let mut named: BTreeSet<String> = newest.pieces().map(PieceRef::key).collect();
    let mut all_readable = true;
    for &sequence in view.manifests.iter().rev() {
        if kept.len() >= keep {
            break;
        }
        match Manifest::fetch(tier, sequence).await {
            Ok((manifest, _)) => {
                named.extend(manifest.pieces().map(PieceRef::key));
                kept.push(sequence);
            }
            Err(error) if error.is_damage() => all_readable = false,
            Err(error) => return Err(error),
        }
    }
    let oldest_kept = kept.last().copied().unwrap_or(newest.info.sequence);
    let mut deleted = 0;
    if kept.len() >= keep {
        for &sequence in view.manifests.range(..oldest_kept) {
            tier.delete(&manifest::key(sequence)).await?;
            deleted += 1;
        }
    }
    if !all_readable {
        return Ok(Collected { oldest_kept, deleted });
    }
    for key in view.pieces.keys().filter(|key| !named.contains(*key)) {
        tier.delete(key).await?;
        deleted += 1;
    }
    Ok(Collected { oldest_kept, deleted })
}
