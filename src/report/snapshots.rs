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
    /// What stood for all that it showed where it was received from, if the stream said so.
    #[serde(default)]
    pub sent_root: Option<String>,
    /// Whether it shows that; absent where nobody said what was sent, or it has no digest yet.
    #[serde(default)]
    pub as_sent: Option<bool>,
}

impl SnapshotLine {
    /// How it is to what was sent.
    fn sent(&self) -> &'static str {
        match (&self.sent_root, self.as_sent) {
            (None, _) => "-",
            (Some(_), None) => "pending",
            (Some(_), Some(true)) => "equal",
            (Some(_), Some(false)) => "DIFFERS",
        }
    }
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
        // Of no interest where nothing was received.
        let is_received = self.snapshots.iter().any(|line| line.sent_root.is_some());
        let mut headings = vec!["name", "created", "used", "refer", "written", "message"];
        headings.extend(is_received.then_some("sent"));
        let mut rows = table::table(&headings);
        for line in &self.snapshots {
            let mut row = vec![
                escaped(&line.snapshot),
                utc::for_table(&line.created),
                bytes(line.used_bytes),
                bytes(line.referenced_bytes),
                bytes(line.written_bytes),
                escaped(&line.message),
            ];
            row.extend(is_received.then(|| line.sent().to_owned()));
            rows.add_row(row);
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
    /// What stands for all that the snapshot shows, which the stream says too; absent when nothing was
    /// sent, or the snapshot has no digest yet.
    #[serde(default)]
    pub root: Option<String>,
}

impl Sent {
    /// That whoever receives it cannot tell whether it is what was sent.
    pub fn warning(&self) -> Option<String> {
        let sent = self.stream_bytes.is_some() && self.root.is_none();
        let what = self.snapshot.as_deref().map_or_else(|| "the snapshot".to_owned(), escaped);
        sent.then(|| {
            format!(
                "{what} has no digest yet, so that the stream does not say what it must be; `firn verify` \
                 says what it waits for"
            )
        })
    }

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
    /// What stands for all that the snapshot showed where it was sent from; absent where the stream does
    /// not say.
    #[serde(default)]
    pub sent_root: Option<String>,
    /// Everything was read, and is what was sent.
    #[serde(default)]
    pub equal: bool,
    /// So many files could not be compared yet, as they do not lie in hot.
    #[serde(default)]
    pub lacking: u64,
}

impl Received {
    /// That it was not compared although the stream says what was sent.
    pub fn warning(&self) -> Option<String> {
        let files = match self.lacking {
            0 => return None,
            1 => "1 file does not lie".to_owned(),
            lacking => format!("{lacking} files do not lie"),
        };
        let snapshot = escaped(&self.snapshot);
        Some(format!(
            "{snapshot}: not compared with what was sent yet: {files} in hot; `firn snapshot list` shows \
             how it is once it has its digest"
        ))
    }

    /// For people.
    pub fn text(&self) -> String {
        let (stream, plain) = (rounded_bytes(self.stream_bytes), rounded_bytes(self.plain_bytes));
        let snapshot = escaped(&self.snapshot);
        let outcome = match (self.equal, &self.sent_root) {
            (true, _) => "equal to what was sent",
            (false, Some(_)) => "not compared yet",
            (false, None) => "the stream does not say what was sent",
        };
        format!("{snapshot}: received {stream}, {plain} before compression: {outcome}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_says_which_snapshots_are_what_was_sent() {
        let line = |name: &str, sent_root: Option<&str>, as_sent| SnapshotLine {
            snapshot: format!("/m@{name}"),
            sent_root: sent_root.map(str::to_owned),
            as_sent,
            ..SnapshotLine::default()
        };
        let own = line("own", None, None);
        let listing = Listing {
            snapshots: vec![
                own.clone(),
                line("same", Some("ab"), Some(true)),
                line("other", Some("ab"), Some(false)),
                line("new", Some("ab"), None),
            ],
        };
        let text = listing.text();
        let last = text.lines().map(|line| line.split_whitespace().next_back().unwrap_or(""));
        assert_eq!(last.collect::<Vec<_>>(), ["SENT", "-", "equal", "DIFFERS", "pending"]);
        // Where nothing was received nothing is said of it.
        assert!(!Listing { snapshots: vec![own] }.text().contains("SENT"));
    }

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
