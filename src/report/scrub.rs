//! What `firn scrub` says. The JSON object is [`ScrubReport`]; its fields are only ever added to.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::units::rounded_bytes;

/// How looking over storage goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScrubReport {
    /// `running`, `stopped` (it goes on where it was when it is started again) or `idle`.
    pub state: String,
    /// The pass that is running or stopped.
    pub pass: Option<ScrubPass>,
    /// The last one that came to its end.
    pub last: Option<ScrubPass>,
    /// When the next begins by itself: RFC 3339, UTC; absent when none does.
    pub next: Option<String>,
    /// What is known of the content of the cold tier; absent without one.
    pub cold: Option<ColdSample>,
    /// Why it does not come forward.
    pub failure: Option<String>,
}

/// One pass over all segments.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScrubPass {
    /// When it began: RFC 3339, UTC.
    pub started: String,
    /// When it ended.
    pub finished: Option<String>,
    /// Whether every byte in cold is read, too.
    pub cold_data: bool,
    /// Segments that were looked at.
    pub segments: u64,
    /// Segments that are still to be looked at.
    pub left: u64,
    /// Segments that were being moved, and are left for the next pass.
    pub skipped: u64,
    /// Bytes read in the hot tier.
    pub hot_bytes: u64,
    /// Bytes read in the cold tier.
    pub cold_bytes: u64,
    /// Damaged copies that were repaired.
    pub repaired: u64,
    /// Segments with content that is lost.
    pub lost: u64,
    /// Blocks that the catalog did not know, and knows now.
    pub recorded_blocks: u64,
    /// Segments in hot whose object in cold is another's: they are copied there once it is gone.
    pub displaced: u64,
    /// Objects in cold with pieces on stores that are away, or that took none made anew.
    #[serde(default)]
    pub incomplete: u64,
    /// What came of restoring the newest backup of the namespace at the end of the pass.
    pub backup: Option<BackupTest>,
}

/// What came of restoring a backup to see that it can be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupTest {
    /// Its number; absent when it is not known.
    pub sequence: Option<u64>,
    /// Records in it.
    pub records: u64,
    /// Inodes that the restored namespace had.
    pub inodes: u64,
    /// It was restored, opened and checked; otherwise, for want of room, only read and verified.
    pub restored: bool,
    /// What is wrong with it. A whole new backup is made then.
    pub failure: Option<String>,
}

/// Objects in cold of which every byte was read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ColdSample {
    /// Segments in cold.
    pub objects: u64,
    /// Of these, read since the sample was begun; each once before any is read again.
    pub checked: u64,
    /// Of these, damaged.
    pub damaged: u64,
    /// Since when: RFC 3339, UTC.
    pub since: Option<String>,
    /// With 95 % confidence no larger share of the objects is damaged.
    pub damaged_at_most: f64,
}

impl ScrubPass {
    /// Whether it found content that nothing brings back, or something that it left as it is.
    pub fn has_lost(&self) -> bool {
        self.lost > 0 || self.displaced > 0
    }

    fn text(&self) -> String {
        let Self { segments, left, skipped, hot_bytes, cold_bytes, .. } = self;
        let mut text = format!("{segments} segments, {} in hot", rounded_bytes(*hot_bytes));
        if *cold_bytes > 0 {
            let _ = write!(text, ", {} in cold", rounded_bytes(*cold_bytes));
        }
        let _ = write!(text, ", {} repaired, {} with lost content", self.repaired, self.lost);
        if let Some(backup) = &self.backup {
            let _ = write!(text, ", {}", backup.text());
        }
        for (count, what) in [
            (*skipped, "left for the next pass"),
            (self.displaced, "with another's object in cold"),
            (self.incomplete, "objects in cold with shards out of reach or not to be made anew"),
            (self.recorded_blocks, "blocks recorded anew"),
            (*left, "to go"),
        ] {
            if count > 0 {
                let _ = write!(text, ", {count} {what}");
            }
        }
        text
    }
}

impl BackupTest {
    fn text(&self) -> String {
        let number =
            self.sequence.map_or_else(|| "the backup".to_owned(), |n| format!("backup {n}"));
        match (&self.failure, self.restored) {
            (Some(why), _) => format!("{number} is no good: {why}"),
            (None, true) => format!("{number} restored and checked, {} inodes", self.inodes),
            (None, false) => format!("{number} read and verified, {} records", self.records),
        }
    }
}

impl ScrubReport {
    /// For people.
    pub fn text(&self) -> String {
        let failure = self.failure.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        let mut text = format!("{}{failure}\n", self.state);
        if let Some(pass) = &self.pass {
            let _ = writeln!(text, "since {}: {}", pass.started, pass.text());
        }
        if let Some(last) = &self.last {
            let finished = last.finished.as_deref().unwrap_or("unknown");
            let _ = writeln!(text, "last, ended {finished}: {}", last.text());
        }
        if let Some(cold) = &self.cold {
            let ColdSample { objects, checked, damaged, damaged_at_most, .. } = cold;
            let _ = writeln!(
                text,
                "cold content: {checked} of {objects} objects read throughout, {damaged} damaged; \
                 with 95 % confidence at most {:.2} % are",
                100.0 * damaged_at_most
            );
        }
        if let Some(next) = &self.next {
            let _ = writeln!(text, "next by itself: {next}");
        }
        text
    }
}
