//! What a job is: files, and what is to become of them.

use serde::{Deserialize, Serialize};

/// Most files of one job.
pub const MAX_FILES: usize = 512;

/// Longest name of a job in bytes; a longer one is cut.
const MAX_NAME: usize = 512;

/// Names a job as long as the volume lives.
pub type JobId = u64;

/// What is done. The order is that of urgency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Bring back because somebody asked for it.
    Stage,
    /// Bring back because it is used.
    Promote,
    /// Copy to cold; it stays in hot.
    CopyAhead,
    /// Copy to cold what is not there, and drop from hot.
    Demote,
}

impl Work {
    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stage => "stage",
            Self::Promote => "promote",
            Self::CopyAhead => "copy-ahead",
            Self::Demote => "demote",
        }
    }

    /// Whether it brings bytes to hot.
    pub const fn recalls(self) -> bool {
        matches!(self, Self::Stage | Self::Promote)
    }
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Part {
    /// Inode number.
    pub ino: u64,
    /// Where it begins and how long it is, in bytes; `None` is all of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<(u64, u64)>,
}

impl Part {
    /// All of a file.
    pub const fn whole(ino: u64) -> Self {
        Self { ino, range: None }
    }
}

/// Files, and what is to become of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its number.
    pub id: JobId,
    /// What is done.
    pub work: Work,
    /// To which files, at most [`MAX_FILES`].
    pub parts: Vec<Part>,
    /// What people know it by: a path, or how many files.
    pub name: String,
    /// Why it was asked for, in words.
    pub why: String,
    /// When, in seconds after 1970.
    pub created: u64,
}

impl Job {
    /// A job without a number yet. Names and reasons that are too long are cut.
    pub fn new(work: Work, parts: Vec<Part>, name: &str, why: &str, created: u64) -> Self {
        Self { id: 0, work, parts, name: cut(name), why: cut(why), created }
    }

    /// Whether a decoded job is one that could have been written.
    pub(super) fn is_sound(&self) -> bool {
        (1..=MAX_FILES).contains(&self.parts.len())
            && self.name.len() <= MAX_NAME
            && self.why.len() <= MAX_NAME
    }
}

fn cut(text: &str) -> String {
    let end = (0..=MAX_NAME.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or(0)].to_owned()
}
