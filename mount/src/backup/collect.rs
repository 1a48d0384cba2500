//! What lies in the tier, and what of it may go: manifests beyond the newest few, then pieces
//! that no manifest names. Pieces go only when every manifest that is there could be read.
//!
//! *Size*: a backup that holds far less than one before is what a volume looks like of which
//! something was lost unnoticed, or that somebody emptied by mistake. Then the fullest one stays
//! for a while beyond the newest few.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use firn_tiering::tier::Tier;

use super::bucket::Bucket;
use super::manifest::{self, Manifest, Table};
use super::piece::{self, PieceRef};
use super::{BackupError, BackupResult};

/// Objects listed at a time.
const PAGE: usize = 1000;

/// How long the fullest backup stays when the newest holds less than half of its records.
pub(super) const FULLEST_STAYS: Duration = Duration::from_secs(7 * 24 * 3600);

/// Fewer records than this are nobody's volume yet.
pub(super) const FEW_RECORDS: u64 = 1024;

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
    pub(super) fuller: Option<Fuller>,
}

/// An old backup that stays since the newest holds far less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fuller {
    /// Its number.
    pub sequence: u64,
    /// Records in it.
    pub records: u64,
    /// Records in the newest.
    pub newest_records: u64,
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

/// Keeps the newest `keep` manifests that can be read, `newest` among them, the fullest of the
/// others when the newest holds far less, and what they name.
pub(super) async fn collect(
    tier: &dyn Tier,
    view: &View,
    newest: &Manifest,
    keep: usize,
) -> BackupResult<Collected> {
    let mut kept = vec![newest.info.sequence];
    let mut named: BTreeSet<String> = newest.pieces().map(PieceRef::key).collect();
    let (mut all_readable, mut fullest) = (true, None::<Manifest>);
    for &sequence in view.manifests.iter().rev() {
        let manifest = match Manifest::fetch(tier, sequence).await {
            Ok((manifest, _)) => manifest,
            Err(error) if error.is_damage() => {
                all_readable &= kept.len() >= keep;
                continue;
            }
            Err(error) => return Err(error),
        };
        if kept.len() < keep {
            named.extend(manifest.pieces().map(PieceRef::key));
            kept.push(sequence);
        } else if fullest.as_ref().is_none_or(|other| other.records() < manifest.records()) {
            fullest = Some(manifest);
        }
    }
    let fullest = fullest.filter(|fullest| stays(fullest, newest));
    let oldest_kept = kept.last().copied().unwrap_or(newest.info.sequence);
    let fuller = fullest.as_ref().map(|fullest| Fuller {
        sequence: fullest.info.sequence,
        records: fullest.records(),
        newest_records: newest.records(),
    });
    if let Some(fullest) = &fullest {
        named.extend(fullest.pieces().map(PieceRef::key));
    }
    let spared = fuller.map(|fuller| fuller.sequence);
    let mut deleted = 0;
    if kept.len() >= keep {
        for &sequence in view.manifests.range(..oldest_kept) {
            if spared != Some(sequence) {
                tier.delete(&manifest::key(sequence)).await?;
                deleted += 1;
            }
        }
    }
    let collected =
        |deleted| Collected { oldest_kept: spared.unwrap_or(oldest_kept), deleted, fuller };
    if !all_readable {
        return Ok(collected(deleted));
    }
    for key in view.pieces.keys().filter(|key| !named.contains(*key)) {
        tier.delete(key).await?;
        deleted += 1;
    }
    Ok(collected(deleted))
}

/// Whether an old backup is kept for its size.
fn stays(old: &Manifest, newest: &Manifest) -> bool {
    let age = newest.info.time.duration_since(old.info.time).unwrap_or_default();
    old.records() >= FEW_RECORDS && newest.records() < old.records() / 2 && age < FULLEST_STAYS
}
