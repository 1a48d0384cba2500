//! What `firn snapshot` says, apart from `diff`. The JSON objects are [`Listing`], [`Taken`],
//! [`Destroyed`], [`Holds`] and [`RolledBack`]; their fields are only ever added to.

use serde::{Deserialize, Serialize};

use super::escape::escaped;
use super::table;
use crate::units::rounded_bytes;
use crate::utc;

/// One snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotLine {
    /// `dataset@name`.
    pub snapshot: String,
    /// Path of the dataset's root directory.
    pub dataset: String,
    /// The name, without the dataset's.
    pub name: String,
    /// When it was taken: RFC 3339, UTC.
    pub created: String,
    /// What its maker said about it.
    pub message: String,
    /// Bytes of files that destroying only this one would free; absent when unknown.
    pub used_bytes: Option<u64>,
    /// Bytes of all its files; absent when unknown.
    pub referenced_bytes: Option<u64>,
    /// Bytes of files written since the snapshot before; absent when unknown.
    pub written_bytes: Option<u64>,
    /// What its holds are called.
    pub holds: Vec<String>,
    /// Datasets that are clones of it.
    pub clones: Vec<String>,
    /// It goes with its last hold and clone.
    pub deferred: bool,
    /// Stands for all that it shows, the same in every copy; absent until it was computed.
    pub root: Option<String>,
    /// Stands for it and all snapshots before it; absent until it was computed.
    pub digest: Option<String>,
}

/// Several snapshots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// By dataset, oldest first.
    pub snapshots: Vec<SnapshotLine>,
}

/// Bytes for a table.
pub(super) fn bytes(count: Option<u64>) -> String {
    count.map_or_else(|| "-".to_owned(), rounded_bytes)
}

impl Listing {
    /// For people.
    pub fn text(&self) -> String {
        let headings = ["name", "created", "used", "refer", "written", "message"];
        let mut rows = table::table(&headings);
        for line in &self.snapshots {
            rows.add_row([
                escaped(&line.snapshot),
                utc::for_table(&line.created),
                bytes(line.used_bytes),
                bytes(line.referenced_bytes),
                bytes(line.written_bytes),
                escaped(&line.message),
            ]);
        }
        table::right(&mut rows, &[2, 3, 4]);
        table::text(&rows)
    }
}

/// Snapshots that were taken, all of the same instant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Taken {
    /// `dataset@name`.
    pub snapshots: Vec<String>,
    /// How long it took to write out what programs had written before: milliseconds.
    pub drain_ms: f64,
    /// How long the snapshot itself took, in which writers waited: milliseconds.
    pub snapshot_ms: f64,
}

impl Taken {
    /// For people.
    pub fn text(&self) -> String {
        let times =
            format!("{:.1} ms, after {:.1} ms of draining", self.snapshot_ms, self.drain_ms);
        let names: Vec<String> = self.snapshots.iter().map(|name| escaped(name)).collect();
        format!("{}: taken in {times}", names.join(", "))
    }
}

/// What a destruction did or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destroyed {
    /// Nothing was done.
    pub dry_run: bool,
    /// Datasets that go.
    pub datasets: Vec<String>,
    /// Snapshots that go.
    pub snapshots: Vec<String>,
    /// Snapshots in use, which go with their last hold and clone.
    pub deferred: Vec<String>,
    /// Bytes of files, before compression, that become free at least: what several snapshots share
    /// is not counted. Absent when unknown.
    pub freed_bytes: Option<u64>,
}

impl Destroyed {
    /// For people.
    pub fn text(&self) -> String {
        let verb = |done: &str, would: &str| if self.dry_run { would } else { done }.to_owned();
        let mut lines = Vec::new();
        for name in self.snapshots.iter().chain(&self.datasets) {
            let name = escaped(name);
            lines.push(format!("{} {name}", verb("destroyed", "would destroy")));
        }
        for name in &self.deferred {
            let name = escaped(name);
            let when = "when its last hold and clone goes";
            lines.push(format!("{} {name} {when}", verb("to be destroyed:", "would destroy")));
        }
        if let Some(freed) = self.freed_bytes {
            let frees = verb("frees", "would free");
            let least = if self.snapshots.len() > 1 { "at least " } else { "" };
            let bytes = rounded_bytes(freed);
            lines.push(format!("{frees} {least}{bytes}, before compression"));
        }
        lines.join("\n")
    }
}

/// A hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldLine {
    /// `dataset@name`.
    pub snapshot: String,
    /// What the hold is called.
    pub tag: String,
    /// Since when: RFC 3339, UTC.
    pub created: String,
}

/// Several holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Holds {
    /// By snapshot, oldest first.
    pub holds: Vec<HoldLine>,
}

impl Holds {
    /// For people.
    pub fn text(&self) -> String {
        let mut rows = table::table(&["name", "tag", "created"]);
        for hold in &self.holds {
            rows.add_row([
                escaped(&hold.snapshot),
                escaped(&hold.tag),
                utc::for_table(&hold.created),
            ]);
        }
        table::text(&rows)
    }
}

/// What a rollback did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBack {
    /// The snapshot that the dataset is at again.
    pub snapshot: String,
    /// Newer ones that were destroyed.
    pub destroyed: Vec<String>,
}

impl RolledBack {
    /// For people.
    pub fn text(&self) -> String {
        let destroyed = self.destroyed.iter().map(|name| format!("destroyed {}\n", escaped(name)));
        format!("{}rolled back to {}", destroyed.collect::<String>(), escaped(&self.snapshot))
    }
}

/// What was sent, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Nothing was sent.
    pub dry_run: bool,
    /// `dataset@name`; absent for the rest of a stream that was cut.
    pub snapshot: Option<String>,
    /// The snapshot that the receiver must have.
    pub from: Option<String>,
    /// Bytes of files, before compression, that the snapshot refers to or that were written since
    /// the other one; absent when unknown.
    pub estimated_bytes: Option<u64>,
    /// Length of the stream; absent when nothing was sent.
    pub stream_bytes: Option<u64>,
}

impl Sent {
    /// For people.
    pub fn text(&self) -> String {
        let what = match (&self.snapshot, &self.from) {
            (Some(snapshot), Some(from)) => {
                format!("{} from {}", escaped(snapshot), escaped(from))
            }
            (Some(snapshot), None) => escaped(snapshot),
            (None, _) => "the rest of an interrupted receive".to_owned(),
        };
        let estimate = match self.estimated_bytes {
            Some(bytes) => format!("about {} before compression", rounded_bytes(bytes)),
            None => "an unknown number of bytes".to_owned(),
        };
        match self.stream_bytes {
            Some(bytes) => format!("{what}: sent {}, {estimate}", rounded_bytes(bytes)),
            None => format!("{what}: would send {estimate}"),
        }
    }
}

/// What was received.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// `dataset@name`.
    pub snapshot: String,
    /// Length of the stream.
    pub stream_bytes: u64,
    /// Bytes of files in it, before compression.
    pub plain_bytes: u64,
}

impl Received {
    /// For people.
    pub fn text(&self) -> String {
        let (stream, plain) = (rounded_bytes(self.stream_bytes), rounded_bytes(self.plain_bytes));
        let snapshot = escaped(&self.snapshot);
        format!("{snapshot}: received {stream}, {plain} before compression")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destruction_says_what_it_frees() {
        let mut destroyed = Destroyed {
            dry_run: true,
            snapshots: vec!["/m/a@x".to_owned()],
            deferred: vec!["/m/a@y".to_owned()],
            freed_bytes: Some(2048),
            ..Destroyed::default()
        };
        let would = "would destroy /m/a@x\n\
            would destroy /m/a@y when its last hold and clone goes\n\
            would free 2.00 KiB, before compression";
        assert_eq!(destroyed.text(), would);
        destroyed.dry_run = false;
        assert!(destroyed.text().starts_with("destroyed /m/a@x\nto be destroyed: /m/a@y "));
    }
}
