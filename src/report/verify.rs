//! What `firn verify` says: a line for each difference as it is found, and what was compared. The
//! JSON objects are [`Report`], of a snapshot with its digest [`Snapshot`], and of two [`Pair`];
//! their fields are only ever added to.

use serde::{Deserialize, Serialize};

use super::escape::escaped;
use crate::units::rounded_bytes;

/// In what two entries of the same name differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// It is on the volume only.
    Extra,
    /// It is in the other directory only.
    Missing,
    /// One is a file, the other a directory, for example.
    Kind,
    /// Files of different lengths.
    Size,
    /// Symbolic links to different places.
    Target,
    /// Device nodes of different devices.
    Device,
    /// Files of the same length with different bytes.
    Content,
    /// The volume says another BLAKE3 of the file than its bytes have.
    Digest,
}

impl What {
    fn word(self) -> &'static str {
        match self {
            Self::Extra => "extra",
            Self::Missing => "missing",
            Self::Kind => "kind",
            Self::Size => "size",
            Self::Target => "target",
            Self::Device => "device",
            Self::Content => "content",
            Self::Digest => "digest",
        }
    }
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// In what.
    pub what: What,
    /// Where, below both directories; empty for these themselves.
    pub path: String,
    /// What is on the volume, and what is there instead.
    pub detail: String,
}

impl Difference {
    /// One line, without its end.
    pub fn text(&self) -> String {
        let path = if self.path.is_empty() { "." } else { &self.path };
        format!("{}: {}: {}", self.what.word(), escaped(path), escaped(&self.detail))
    }
}

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was compared, on the volume.
    pub path: String,
    /// With what.
    pub against: String,
    /// Everything was read, and nothing differs.
    pub equal: bool,
    /// Pairs of files whose content was compared.
    pub files: u64,
    /// Pairs of directories whose entries were compared.
    pub directories: u64,
    /// Bytes that were read of each side.
    pub bytes: u64,
    /// Entries that could not be read, of either side.
    pub unreadable: u64,
    /// How many differences there are; `differences` names at most 10,000.
    pub found: u64,
    /// The differences, in the order of names.
    pub differences: Vec<Difference>,
}

impl Report {
    /// The last line for people.
    pub fn text(&self) -> String {
        let outcome = match (self.found, self.unreadable) {
            (0, 0) => "equal".to_owned(),
            (0, _) => "no difference in what could be read".to_owned(),
            (1, _) => "1 difference".to_owned(),
            (found, _) => format!("{found} differences"),
        };
        format!(
            "{} and {}: {} files with {}, {} directories: {outcome}\n",
            escaped(&self.path),
            escaped(&self.against),
            self.files,
            rounded_bytes(self.bytes),
            self.directories
        )
    }
}

/// Something of a snapshot that is not what was sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flaw {
    /// `tree`, `content`, `chain` or `sent`.
    pub what: String,
    /// The file, below the snapshot; empty where it is about none.
    pub path: String,
    /// What is wrong.
    pub detail: String,
}

/// A file of a snapshot whose bytes could not be had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    /// Below the snapshot.
    pub path: String,
    /// Why not.
    pub detail: String,
}

/// What comparing a snapshot with its digest found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// `dataset@name`.
    pub snapshot: String,
    /// It has a digest, everything was looked at, and nothing is wrong.
    pub verified: bool,
    /// Why it has no digest yet.
    pub pending: Option<String>,
    /// Stands for all that it shows, as found now; absent where not all of it could be added up.
    pub root: Option<String>,
    /// The same as it was sealed.
    pub sealed_root: Option<String>,
    /// The same as it was where a received one was sent from, if the stream said so.
    #[serde(default)]
    pub sent_root: Option<String>,
    /// Stands for it and all snapshots before it.
    pub digest: Option<String>,
    /// Inodes that were added up.
    pub inodes: u64,
    /// Files whose bytes were compared with their BLAKE3.
    pub files: u64,
    /// Files whose bytes could not be had; `unreadable` names at most 1,000.
    pub unread: u64,
    /// Which these are.
    #[serde(default)]
    pub unreadable: Vec<Unread>,
    /// Snapshots of the chain, it included.
    pub chain: u64,
    /// Destroyed snapshots between them that the chain leads through.
    pub destroyed: u64,
    /// So many were destroyed before those, or a repair found one of which nothing was left, that
    /// only the last one's digest is known.
    pub chain_is_cut: bool,
    /// How many flaws there are; `flaws` names at most 1,000.
    pub found: u64,
    /// What is wrong.
    pub flaws: Vec<Flaw>,
}

impl Snapshot {
    /// For people.
    pub fn text(&self) -> String {
        let mut lines: Vec<String> = Vec::new();
        for flaw in &self.flaws {
            let path = if flaw.path.is_empty() { "." } else { &flaw.path };
            lines.push(format!("{}: {}: {}", flaw.what, escaped(path), escaped(&flaw.detail)));
        }
        for unread in &self.unreadable {
            let (path, detail) = (escaped(&unread.path), escaped(&unread.detail));
            lines.push(format!("not read: {path}: {detail}"));
        }
        let mut outcome = match (self.verified, self.found) {
            (true, _) => "verified".to_owned(),
            (false, 0) if self.pending.is_some() => "has no digest yet".to_owned(),
            (false, 0) => "not proven".to_owned(),
            (false, 1) => "1 flaw".to_owned(),
            (false, found) => format!("{found} flaws"),
        };
        if self.unread > 0 {
            let files = if self.unread == 1 { "1 file" } else { &format!("{} files", self.unread) };
            outcome += &format!(", {files} could not be read");
        }
        let (chain, destroyed) = (self.chain, self.destroyed);
        let through =
            if destroyed > 0 { format!(", {destroyed} destroyed") } else { String::new() };
        let read =
            if self.files > 0 { format!(", {} files read", self.files) } else { String::new() };
        let (snapshot, inodes) = (escaped(&self.snapshot), self.inodes);
        lines.push(format!(
            "{snapshot}: {outcome}: {inodes} inodes{read}, chain of {chain} snapshots{through}"
        ));
        for (what, hash) in [("root", &self.root), ("digest", &self.digest)] {
            lines.extend(hash.as_ref().map(|hash| format!("{what:6} {hash}")));
        }
        lines.join("\n") + "\n"
    }
}

/// What verifying two snapshots found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// Both, in the order in which they were named.
    pub snapshots: [Snapshot; 2],
    /// Whether they show the same; absent where one of the roots is not known.
    pub equal: Option<bool>,
}

impl Pair {
    /// Compares what was found of two snapshots.
    pub fn new(snapshots: [Snapshot; 2]) -> Self {
        let [one, other] = &snapshots;
        let equal = one.root.as_ref().zip(other.root.as_ref()).map(|(one, other)| one == other);
        Self { snapshots, equal }
    }

    /// For people.
    pub fn text(&self) -> String {
        let [one, other] = self.snapshots.each_ref().map(|found| escaped(&found.snapshot));
        let outcome = match self.equal {
            Some(true) => "the same content",
            Some(false) => {
                "different content: `firn snapshot diff` (the older one first) shows what differs in \
                 one dataset, `firn verify --against` what differs elsewhere"
            }
            None => "not compared",
        };
        let [first, second] = self.snapshots.each_ref().map(Snapshot::text);
        format!("{first}{second}{one} and {other}: {outcome}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_verifies_pends_or_has_flaws() {
        let hash = || Some("ab".to_owned());
        let sound = Snapshot {
            snapshot: "/m@s".to_owned(),
            verified: true,
            root: hash(),
            digest: hash(),
            inodes: 3,
            chain: 2,
            destroyed: 1,
            ..Snapshot::default()
        };
        let text =
            "/m@s: verified: 3 inodes, chain of 2 snapshots, 1 destroyed\nroot   ab\ndigest ab\n";
        assert_eq!(sound.text(), text);
        let flaw =
            Flaw { what: "content".to_owned(), path: "a\nb".to_owned(), detail: "x".to_owned() };
        let wrong = Snapshot { verified: false, found: 1, flaws: vec![flaw], ..sound.clone() };
        assert!(
            wrong.text().starts_with("content: a\\0012b: x\n/m@s: 1 flaw: "),
            "{}",
            wrong.text()
        );
        let pending = Some("it is being computed".to_owned());
        let unread = Unread { path: "c\nd".to_owned(), detail: "no answer".to_owned() };
        let silent =
            Snapshot { verified: false, unread: 1, unreadable: vec![unread], ..sound.clone() };
        let expected =
            "not read: c\\0012d: no answer\n/m@s: not proven, 1 file could not be read: ";
        assert!(silent.text().starts_with(expected), "{}", silent.text());
        let waits = Snapshot { verified: false, pending, digest: None, ..sound };
        assert!(waits.text().starts_with("/m@s: has no digest yet: "), "{}", waits.text());
    }

    #[test]
    fn no_name_ends_a_line() {
        let difference = Difference {
            what: What::Target,
            path: "a\nb".to_owned(),
            detail: "c\nd, there e".to_owned(),
        };
        assert_eq!(difference.text(), "target: a\\0012b: c\\0012d, there e");
        let root = Difference { what: What::Kind, path: String::new(), ..difference };
        assert!(root.text().starts_with("kind: .: "), "{}", root.text());
        let report = Report { path: "/a\nb".to_owned(), found: 2, ..Report::default() };
        assert_eq!(report.text().lines().count(), 1);
        assert!(report.text().ends_with(": 2 differences\n"), "{}", report.text());
    }
}
