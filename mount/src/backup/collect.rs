//! What lies in the tier, and what of it may go: manifests beyond the newest few, then pieces
//! that no manifest names. Pieces go only when every manifest that is there could be read.
//!
//! *Size*: a backup that holds far less than one before is what a volume looks like of which
//! something was lost unnoticed, or that somebody emptied by mistake. Then the one before, which was
//! overtaken by it, stays for a week beyond the newest few. The week counts from when it was
//! overtaken, which is the time of the first newer backup with less than half of its records; that
//! one stays with it, since nothing else says when it was. Of all that were overtaken on one day the
//! fullest stays: eight at most, and none goes for the sake of one whose week ends much earlier.
//! *Crash*: what stays is worked out anew each time from the manifests that are there, so a
//! collection that was cut short is repeated by the next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use firn_tiering::tier::Tier;

use super::bucket::Bucket;
use super::manifest::{self, Manifest, Table};
use super::piece::{self, PieceRef};
use super::{BackupError, BackupResult};

/// Objects listed at a time.
const PAGE: usize = 1000;

/// How long a backup stays after it was overtaken by one with less than half of its records.
pub(super) const OVERTAKEN_STAYS: Duration = Duration::from_secs(7 * 24 * 3600);

/// Of the backups that were overtaken in one such span, the fullest stays.
pub(super) const OVERTAKEN_SPAN: Duration = Duration::from_secs(24 * 3600);

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

/// How many objects there are below a prefix.
pub(super) async fn count(tier: &dyn Tier, prefix: &str) -> BackupResult<u64> {
    let (mut count, mut after) = (0, None::<String>);
    loop {
        let page = tier.list(prefix, after.as_deref(), PAGE).await?;
        let Some(last) = page.last() else { return Ok(count) };
        count += page.len() as u64;
        after = Some(last.key.clone());
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

/// What a collection remembers of a manifest.
#[derive(Clone, Copy, Debug)]
struct Size {
    sequence: u64,
    time: SystemTime,
    records: u64,
}

impl Size {
    fn of(manifest: &Manifest) -> Self {
        let info = manifest.info;
        Self { sequence: info.sequence, time: info.time, records: manifest.records() }
    }

    /// Whether it holds far less than an older one did.
    fn overtakes(&self, old: &Self) -> bool {
        self.sequence > old.sequence && self.records < old.records / 2
    }
}

/// An old manifest that stays, and the one that shows since when it is overtaken.
#[derive(Clone, Copy, Debug)]
struct Overtaken {
    old: Size,
    by: Size,
}

/// Those of `old` that are kept for their size: each that was overtaken less than a week ago and
/// is so still, the fullest of each day. `all` holds every manifest, the oldest first, and the
/// newest at its end.
fn overtaken(old: &[Size], all: &[Size]) -> Vec<Overtaken> {
    let Some(newest) = all.last() else { return Vec::new() };
    let mut fullest: BTreeMap<u64, Overtaken> = BTreeMap::new();
    for &old in old.iter().filter(|old| old.records >= FEW_RECORDS && newest.overtakes(old)) {
        let Some(&by) = all.iter().find(|other| other.overtakes(&old)) else { continue };
        if newest.time.duration_since(by.time).unwrap_or_default() >= OVERTAKEN_STAYS {
            continue;
        }
        // A clock that was ahead makes no days of its own.
        let since = by.time.min(newest.time).duration_since(SystemTime::UNIX_EPOCH);
        let day = since.unwrap_or_default().as_secs() / OVERTAKEN_SPAN.as_secs();
        let stays = fullest.entry(day).or_insert(Overtaken { old, by });
        if old.records >= stays.old.records {
            *stays = Overtaken { old, by };
        }
    }
    fullest.into_values().collect()
}

/// The manifests that can be read, and what of them stays.
#[derive(Debug, Default)]
struct Kept {
    sequences: BTreeSet<u64>,
    /// Keys of the pieces that they name.
    pieces: BTreeSet<String>,
}

impl Kept {
    fn keep(&mut self, manifest: &Manifest) {
        self.sequences.insert(manifest.info.sequence);
        self.pieces.extend(manifest.pieces().map(PieceRef::key));
    }
}

/// Keeps the newest `keep` manifests that can be read, `newest` among them, those that were
/// overtaken, and what they name.
pub(super) async fn collect(
    tier: &dyn Tier,
    view: &View,
    newest: &Manifest,
    keep: usize,
) -> BackupResult<Collected> {
    let mut kept = Kept::default();
    kept.keep(newest);
    let mut all = vec![Size::of(newest)];
    let mut old = Vec::new();
    let mut all_readable = true;
    for &sequence in view.manifests.iter().rev() {
        match Manifest::fetch(tier, sequence).await {
            Ok((manifest, _)) => {
                all.push(Size::of(&manifest));
                if kept.sequences.len() < keep {
                    kept.keep(&manifest);
                } else {
                    old.push(Size::of(&manifest));
                }
            }
            Err(error) if error.is_damage() => all_readable &= kept.sequences.len() >= keep,
            Err(error) => return Err(error),
        }
    }
    let is_full = kept.sequences.len() >= keep;
    let first = |kept: &Kept| kept.sequences.first().copied().unwrap_or(newest.info.sequence);
    let first_of_newest = first(&kept);
    all.reverse();
    old.reverse();
    let overtaken = overtaken(&old, &all);
    for sequence in overtaken.iter().flat_map(|pair| [pair.old.sequence, pair.by.sequence]) {
        if !kept.sequences.contains(&sequence) {
            // Read again, so that no more than one of them is in memory.
            kept.keep(&Manifest::fetch(tier, sequence).await?.0);
        }
    }
    let fullest = overtaken.iter().map(|pair| pair.old).max_by_key(|old| old.records);
    let mut collected = Collected {
        oldest_kept: first(&kept),
        deleted: 0,
        fuller: fullest.map(|fullest| Fuller {
            sequence: fullest.sequence,
            records: fullest.records,
            newest_records: newest.records(),
        }),
    };
    let gone = view.manifests.range(..first_of_newest).filter(|_| is_full);
    for sequence in gone.filter(|sequence| !kept.sequences.contains(sequence)) {
        tier.delete(&manifest::key(*sequence)).await?;
        collected.deleted += 1;
    }
    if !all_readable {
        return Ok(collected);
    }
    for key in view.pieces.keys().filter(|key| !kept.pieces.contains(*key)) {
        tier.delete(key).await?;
        collected.deleted += 1;
    }
    Ok(collected)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = OVERTAKEN_SPAN.as_secs();

    /// Manifests in order, each of a day with so many records.
    fn sizes(all: &[(u64, u64)]) -> Vec<Size> {
        let sizes = all.iter().zip(1..).map(|(&(day, records), sequence)| {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(day * DAY);
            Size { sequence, time, records }
        });
        sizes.collect()
    }

    fn stays(all: &[(u64, u64)], old: usize) -> Vec<(u64, u64)> {
        let all = sizes(all);
        let found = overtaken(&all[..old], &all);
        found.iter().map(|pair| (pair.old.sequence, pair.by.sequence)).collect()
    }

    #[test]
    fn the_week_counts_from_when_a_backup_was_overtaken() {
        assert_eq!(stays(&[(0, 5000), (100, 9), (101, 9)], 1), [(1, 2)]);
        assert_eq!(stays(&[(0, 5000), (100, 9), (106, 9)], 1), [(1, 2)]);
        assert_eq!(stays(&[(0, 5000), (100, 9), (107, 9)], 1), []);
        assert_eq!(stays(&[(0, 5000), (100, 9), (101, 2500)], 1), [], "it is full again");
        assert_eq!(stays(&[(0, FEW_RECORDS - 1), (100, 9), (101, 9)], 1), [], "nobody's volume");
    }

    #[test]
    fn a_larger_one_whose_week_is_over_hides_none_that_is_to_stay() {
        let all = [(0, 9000), (1, 4000), (8, 100), (8, 100)];
        assert_eq!(stays(&all, 2), [(2, 3)]);
        // Nor does one whose week ends earlier: it would be too late then.
        let all = [(0, 9000), (1, 4000), (7, 100), (7, 100)];
        assert_eq!(stays(&all, 2), [(1, 2), (2, 3)]);
    }

    #[test]
    fn of_those_overtaken_on_one_day_the_fullest_stays() {
        let all = [(0, 5000), (1, 6000), (1, 5000), (2, 9), (2, 9)];
        assert_eq!(stays(&all, 3), [(2, 4)]);
        let many: Vec<_> = (0..50).flat_map(|day| [(day, 5000), (day, 9), (day, 9)]).collect();
        assert_eq!(stays(&many, many.len() - 2).len(), 7);
        // A clock that was a year ahead.
        let mut many: Vec<_> =
            (0..50).flat_map(|day| [(400 + day, 5000), (400 + day, 9)]).collect();
        many.push((10, 9));
        assert_eq!(stays(&many, many.len() - 2).len(), 1);
    }
}
