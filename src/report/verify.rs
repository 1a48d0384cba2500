//! What `firn verify` says: a line for each difference as it is found, and what was compared. The
//! JSON object is [`Report`]; its fields are only ever added to.

use serde::Serialize;

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

#[cfg(test)]
mod tests {
    use super::*;

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
