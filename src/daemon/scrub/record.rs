//! Where a scrub is, kept in the volume directory over mounts and crashes. A file that is lost or
//! damaged makes the next scrub begin at the first segment, and nothing worse.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use firn_tiering::segment::SegmentId;
use serde::{Deserialize, Serialize};

use crate::report::scrub::{BackupTest, ColdSample, ScrubPass};
use crate::utc;

/// Version of the file.
const VERSION: u32 = 1;

/// Longest file in bytes.
const MAX_LEN: u64 = 64 << 10;

/// What the file holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    /// From when on the next scheduled pass is counted, in seconds after 1970.
    pub(super) counted_from_s: i64,
    /// The pass under way is to go on.
    pub(super) is_running: bool,
    pub(super) pass: Option<Pass>,
    pub(super) last: Option<Pass>,
    pub(super) sample: Sample,
}

/// A pass over all segments.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Pass {
    pub(super) started_s: i64,
    pub(super) finished_s: Option<i64>,
    pub(super) cold_data: bool,
    /// The last segment that was looked at.
    pub(super) cursor: Option<u64>,
    pub(super) segments: u64,
    pub(super) skipped: u64,
    pub(super) hot_bytes: u64,
    pub(super) cold_bytes: u64,
    pub(super) repaired: u64,
    pub(super) lost: u64,
    pub(super) recorded_blocks: u64,
    #[serde(default)]
    pub(super) displaced: u64,
    #[serde(default)]
    pub(super) incomplete: u64,
    /// The newest backup was restored, or could not be.
    #[serde(default)]
    pub(super) backup: Option<BackupTest>,
}

/// Objects in cold that are read throughout, in an order that the seed makes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Sample {
    /// Makes the order.
    pub(super) seed: u64,
    pub(super) since_s: i64,
    /// How far the order was followed: the place of the last object.
    pub(super) position: Option<u64>,
    pub(super) checked: u64,
    pub(super) damaged: u64,
    /// Days after 1970, and objects read on that day.
    pub(super) day: i64,
    pub(super) today: u64,
}

/// Reads a record; what is wrong with it, or whose it is, where that fails.
pub(super) fn parse(text: &[u8]) -> Result<Record, String> {
    let record: Record = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    match record.version {
        VERSION => Ok(record),
        other => Err(format!("it has version {other}")),
    }
}

impl Pass {
    pub(super) fn cursor(&self) -> Option<SegmentId> {
        self.cursor.map(SegmentId::from_raw)
    }

    pub(super) fn report(&self, left: u64) -> ScrubPass {
        ScrubPass {
            started: utc::rfc3339(self.started_s),
            finished: self.finished_s.map(utc::rfc3339),
            cold_data: self.cold_data,
            segments: self.segments,
            left,
            skipped: self.skipped,
            hot_bytes: self.hot_bytes,
            cold_bytes: self.cold_bytes,
            repaired: self.repaired,
            lost: self.lost,
            recorded_blocks: self.recorded_blocks,
            displaced: self.displaced,
            incomplete: self.incomplete,
            backup: self.backup.clone(),
        }
    }
}

impl Sample {
    /// Begins anew: every object is read once more, in another order.
    pub(super) fn begin(&mut self, now_s: i64) {
        let seed = firn_tiering::mix(self.seed ^ now_s.unsigned_abs());
        *self = Self { seed, since_s: now_s, day: self.day, today: self.today, ..Self::default() };
    }

    /// The next object behind the position, and its place in the order.
    pub(super) fn next(&self, objects: &[SegmentId]) -> Option<(u64, SegmentId)> {
        objects
            .iter()
            .map(|id| (firn_tiering::mix(id.raw() ^ self.seed), *id))
            .filter(|(place, _)| self.position.is_none_or(|position| *place > position))
            .min()
    }

    pub(super) fn report(&self, objects: u64) -> ColdSample {
        ColdSample {
            objects,
            checked: self.checked,
            damaged: self.damaged,
            since: (self.since_s > 0).then(|| utc::rfc3339(self.since_s)),
            damaged_at_most: damaged_at_most(objects, self.checked, self.damaged),
        }
    }
}

/// The share of `objects` that is damaged at most, with 95 % confidence, after a random sample
/// without repetition in which `damaged` of `checked` were: the largest number of damaged objects
/// with which so few in the sample have a chance of 5 % still (hypergeometric distribution).
fn damaged_at_most(objects: u64, checked: u64, damaged: u64) -> f64 {
    let checked = checked.min(objects);
    // A record that was damaged may say anything, and the sum below has as many terms.
    let damaged = damaged.min(checked);
    if objects == 0 {
        return 0.0;
    }
    let unchecked = objects - checked;
    let (mut low, mut high) = (damaged, damaged + unchecked);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if chance_of_at_most(objects, middle, checked, damaged) >= 0.05 {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low as f64 / objects as f64
}

/// The chance that of `checked` objects out of `objects`, `bad` of which are damaged, `seen` or
/// fewer are.
fn chance_of_at_most(objects: u64, bad: u64, checked: u64, seen: u64) -> f64 {
    let chance = |count: u64| {
        if count > bad || count > checked || checked - count > objects - bad {
            return 0.0;
        }
        let logarithm = choose(bad, count) + choose(objects - bad, checked - count);
        (logarithm - choose(objects, checked)).exp()
    };
    (0..=seen).map(chance).sum()
}

/// The natural logarithm of the number of ways to choose `k` of `n`.
fn choose(n: u64, k: u64) -> f64 {
    log_factorial(n) - log_factorial(k) - log_factorial(n - k)
}

/// By Stirling's series, whose error is below 1e-9 from 16 on.
fn log_factorial(n: u64) -> f64 {
    if n < 16 {
        return (2..=n).map(|factor| (factor as f64).ln()).sum();
    }
    let x = n as f64;
    let series = 1.0 / (12.0 * x) - 1.0 / (360.0 * x.powi(3)) + 1.0 / (1260.0 * x.powi(5));
    x * x.ln() - x + 0.5 * (std::f64::consts::TAU * x).ln() + series
}

/// The record of one volume.
#[derive(Debug)]
pub(super) struct RecordFile(PathBuf);

impl RecordFile {
    pub(super) fn new(dir: &Path) -> Self {
        Self(dir.join("scrub.json"))
    }

    /// What was kept; the beginning of everything where there is nothing to be read.
    pub(super) fn load(&self, now_s: i64) -> Record {
        let fresh = Record { version: VERSION, counted_from_s: now_s, ..Record::default() };
        let read = fs::metadata(&self.0).and_then(|meta| match meta.len() {
            0..=MAX_LEN => fs::read(&self.0),
            len => Err(std::io::Error::other(format!("{len} bytes"))),
        });
        let text = match read {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return fresh,
            Err(error) => {
                tracing::warn!(%error, "where the scrub was is not known: it begins anew");
                return fresh;
            }
        };
        parse(&text).unwrap_or_else(|error| {
            tracing::warn!(error, "where the scrub was is not known: it begins anew");
            fresh
        })
    }

    /// Keeps it: whenever the machine stops, the old one or the new one is there.
    pub(super) fn store(&self, record: &Record) {
        let aside = self.0.with_extension("new");
        let write = || {
            let mut file = fs::File::create(&aside)?;
            file.write_all(&serde_json::to_vec(record)?)?;
            file.sync_all()?;
            fs::rename(&aside, &self.0)
        };
        if let Err(error) = write() {
            tracing::warn!(%error, "where the scrub is could not be kept");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_damage_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let file = RecordFile::new(dir.path());
        let mut record = file.load(5);
        assert_eq!((record.counted_from_s, record.is_running), (5, false));
        record.pass = Some(Pass { started_s: 7, cursor: Some(9), ..Pass::default() });
        record.is_running = true;
        file.store(&record);
        assert_eq!(file.load(100), record);
        let path = dir.path().join("scrub.json");
        for damaged in ["", "{", "{\"version\":1}", "[]"] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(file.load(3).pass, None, "{damaged}");
        }
        fs::write(&path, vec![b' '; MAX_LEN as usize + 1]).unwrap();
        assert_eq!(file.load(3).counted_from_s, 3);
    }

    #[test]
    fn the_sample_takes_each_object_once_in_an_order_of_its_own() {
        let objects: Vec<_> = (1..=100).map(SegmentId::from_raw).collect();
        let mut sample = Sample::default();
        let mut orders = BTreeSet::new();
        for round in 1..=3 {
            sample.begin(round);
            let mut order = Vec::new();
            while let Some((place, id)) = sample.next(&objects) {
                sample.position = Some(place);
                order.push(id);
            }
            assert_eq!(order.iter().copied().collect::<BTreeSet<_>>().len(), 100);
            assert!(orders.insert(order));
        }
    }

    #[test]
    fn the_confidence_is_that_of_a_sample_without_repetition() {
        // Known of the hypergeometric distribution; for large populations it is the rule of three.
        assert_eq!(damaged_at_most(0, 0, 0), 0.0);
        assert_eq!(damaged_at_most(100, 100, 0), 0.0);
        assert_eq!(damaged_at_most(100, 100, 7), 0.07);
        assert_eq!(damaged_at_most(100, 0, 0), 1.0);
        let large = damaged_at_most(10_000_000, 300, 0);
        assert!((large - 3.0 / 300.0).abs() < 2e-4, "{large}");
        let half = damaged_at_most(20, 10, 0);
        assert_eq!(
            half, 0.15,
            "three of twenty are all among the other ten in 10.5 % of cases, \
            four in 4.3 %"
        );
        // What only a damaged record says costs no more time than what is true.
        assert_eq!(damaged_at_most(1000, 1000, u64::MAX), 1.0);
        assert!(damaged_at_most(1000, 100, 2) > damaged_at_most(1000, 100, 0));
    }
}
