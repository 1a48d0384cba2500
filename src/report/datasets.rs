//! What `firn dataset` says. The JSON objects are [`Listing`] and [`DatasetLine`]; their fields are
//! only ever added to.

use serde::{Deserialize, Serialize};

use super::escape::escaped;
use super::snapshots::bytes;
use super::table;
use crate::utc;

/// One dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetLine {
    /// Path of its root directory.
    pub dataset: String,
    /// When it was made: RFC 3339, UTC; absent for the root of a volume that never had another.
    pub created: Option<String>,
    /// The snapshot that it is a clone of.
    pub origin: Option<String>,
    /// How many snapshots it has.
    pub snapshots: u64,
    /// Bytes of files written since its newest snapshot; absent while it is rolled back.
    pub written_bytes: Option<u64>,
    /// Bytes that it, its snapshots and all datasets below hold; a clone begins with none.
    pub used_bytes: Option<u64>,
    /// Bytes of the files that it shows; absent while it is rolled back.
    pub referenced_bytes: Option<u64>,
    /// Bytes that can still be written; absent when unknown.
    pub available_bytes: Option<u64>,
    /// Most that it may use; absent without a bound.
    pub quota_bytes: Option<u64>,
}

/// Several datasets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// Each behind the one that it lies in.
    pub datasets: Vec<DatasetLine>,
}

impl Listing {
    /// For people.
    pub fn text(&self) -> String {
        let headings = [
            "name",
            "used",
            "avail",
            "refer",
            "written",
            "quota",
            "snapshots",
            "created",
            "origin",
        ];
        let mut rows = table::table(&headings);
        for line in &self.datasets {
            rows.add_row([
                escaped(&line.dataset),
                bytes(line.used_bytes),
                bytes(line.available_bytes),
                bytes(line.referenced_bytes),
                bytes(line.written_bytes),
                bytes(line.quota_bytes),
                line.snapshots.to_string(),
                line.created.as_deref().map_or_else(|| "-".to_owned(), utc::for_table),
                line.origin.as_deref().map_or_else(|| "-".to_owned(), escaped),
            ]);
        }
        table::right(&mut rows, &[1, 2, 3, 4, 5, 6]);
        table::text(&rows)
    }
}
