//! What `firn tier ls`, `where`, `archive`, `release` and `stage` say about files. The JSON
//! objects are [`Listing`] and [`Moved`]; their fields are only ever added to.

use serde::{Deserialize, Serialize};

use super::escape::escaped;
use super::table;
use crate::units::rounded_bytes;

/// One file of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileLine {
    /// Its path, as reached from what was asked about.
    pub path: String,
    /// `file`, `directory`, `symlink`, ...
    pub kind: String,
    /// Length in bytes.
    pub size_bytes: u64,
    /// `dirty`, `resident`, `dual`, `partial`, `cold`, `fetching` or `error`; absent for what has
    /// no content.
    pub state: Option<String>,
    /// Share of the content that is in the hot tier.
    pub resident_pct: Option<u8>,
}

/// Several files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// The files, in the order in which directories hold them.
    pub files: Vec<FileLine>,
}

impl Listing {
    /// For people.
    pub fn text(&self) -> String {
        let mut rows = table::table(&["state", "hot", "size", "path"]);
        for file in &self.files {
            rows.add_row([
                file.state.clone().unwrap_or_else(|| "-".to_owned()),
                file.resident_pct.map_or_else(|| "-".to_owned(), |pct| format!("{pct} %")),
                rounded_bytes(file.size_bytes),
                escaped(&file.path) + if file.kind == "directory" { "/" } else { "" },
            ]);
        }
        table::right(&mut rows, &[1, 2]);
        table::text(&rows)
    }
}

/// What a move did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Files looked at.
    pub files: u64,
    /// Blocks that the move concerned: copied, dropped or brought back now.
    pub blocks: u64,
    /// Bytes of them as stored; whole segments for a copy to cold.
    pub stored_bytes: u64,
    /// Bytes saved in the hot tier by compressing again.
    #[serde(default)]
    pub saved_bytes: u64,
    /// Blocks that stayed as they were for a reason worth knowing.
    pub refused: u64,
    /// The first of the reasons.
    pub reasons: Vec<String>,
    /// What of it all was not in hot in the end, where somebody waited for that.
    #[serde(default)]
    pub absent: Absent,
}

/// What is not in hot, or not any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absent {
    /// Files of which something is not there.
    pub files: u64,
    /// How much of them, as stored.
    pub stored_bytes: u64,
}

impl Absent {
    /// Adds what is missing of other files.
    pub fn add(&mut self, other: Self) {
        self.files += other.files;
        self.stored_bytes += other.stored_bytes;
    }
}

/// Reasons that are kept.
const MAX_REASONS: usize = 10;

impl Moved {
    /// Adds what another part of the work did.
    pub fn add(&mut self, other: Self) {
        self.files += other.files;
        self.blocks += other.blocks;
        self.stored_bytes += other.stored_bytes;
        self.saved_bytes += other.saved_bytes;
        self.refused += other.refused;
        self.absent.add(other.absent);
        other.reasons.into_iter().for_each(|reason| self.keep_reason(reason));
    }

    /// Keeps a reason if it is new and there is room.
    pub fn keep_reason(&mut self, reason: String) {
        if self.reasons.len() < MAX_REASONS && !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }
}
