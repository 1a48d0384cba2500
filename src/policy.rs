//! `policy.toml`: what a volume does of its own accord, as its owner wants it. A typo is found when
//! the file is read, with its line and column; the daemon goes on with the last good one.
//!
//! What it holds so far: which snapshots are taken automatically, and how many are kept.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};

use crate::failure::Explain;
use crate::mounts;

pub mod cycle;
pub mod plan;

use cycle::Cycle;

/// Name of the file in the volume directory.
pub const FILE_NAME: &str = "policy.toml";

/// Longest file in bytes.
const MAX_LEN: u64 = 1 << 20;

/// Most snapshots of a cycle that are kept.
const MAX_KEPT: u32 = 10_000;

/// A policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Snapshots to be taken.
    #[serde(default)]
    pub snapshots: Vec<SnapshotRule>,
}

/// Which snapshots of a dataset are taken, and how many are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRule {
    /// Path of the dataset's root directory from the root of the volume: `/projA`.
    pub dataset: String,
    /// Of all datasets below too, but for those with a rule of their own, and what is below them.
    #[serde(default)]
    pub recursive: bool,
    /// How many are kept of each hour; see [`Keep`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hourly: Option<u32>,
    /// Of each day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily: Option<u32>,
    /// Of each week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weekly: Option<u32>,
    /// Of each month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly: Option<u32>,
}

/// How many automatic snapshots are kept. Without a count those of a cycle are left alone, with 0
/// they go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Of each hour.
    pub hourly: Option<u32>,
    /// Of each day.
    pub daily: Option<u32>,
    /// Of each week.
    pub weekly: Option<u32>,
    /// Of each month.
    pub monthly: Option<u32>,
}

/// Why a policy was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct PolicyError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong there.
    pub message: String,
}

impl Keep {
    /// How many of a cycle.
    pub const fn of(&self, cycle: Cycle) -> Option<u32> {
        match cycle {
            Cycle::Hourly => self.hourly,
            Cycle::Daily => self.daily,
            Cycle::Weekly => self.weekly,
            Cycle::Monthly => self.monthly,
        }
    }
}

impl SnapshotRule {
    /// How many snapshots are kept.
    pub const fn keep(&self) -> Keep {
        let Self { hourly, daily, weekly, monthly, .. } = *self;
        Keep { hourly, daily, weekly, monthly }
    }

    /// Whether a dataset is meant, and by how long a name: the longest counts.
    fn covers(&self, path: &[u8]) -> Option<usize> {
        let own = self.dataset.as_bytes();
        let is_below = || {
            let below = path.strip_prefix(own)?;
            (own == b"/" || below.starts_with(b"/")).then_some(())
        };
        let covers = path == own || self.recursive && is_below().is_some();
        covers.then_some(own.len())
    }
}

impl Policy {
    /// Reads and checks the text of a policy.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Spanned {
            #[serde(default)]
            snapshots: Vec<toml::Spanned<SnapshotRule>>,
        }
        let found: Spanned = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            PolicyError::at(text, start, error.message().trim().replace('\n', ", "))
        })?;
        let mut policy = Self::default();
        for rule in found.snapshots {
            let start = rule.span().start;
            let rule = rule.into_inner();
            policy.check(&rule).map_err(|message| PolicyError::at(text, start, message))?;
            policy.snapshots.push(rule);
        }
        Ok(policy)
    }

    /// Checks a rule behind those that are there.
    fn check(&self, rule: &SnapshotRule) -> Result<(), String> {
        let dataset = &rule.dataset;
        let is_path = dataset == "/"
            || dataset
                .strip_prefix('/')
                .is_some_and(|names| names.split('/').all(|name| !matches!(name, "" | "." | "..")));
        if !is_path {
            return Err(format!(
                "dataset `{dataset}` is no path from the root of the volume, such as /projA"
            ));
        }
        if self.snapshots.iter().any(|other| other.dataset == *dataset) {
            return Err(format!("dataset `{dataset}` has a rule already"));
        }
        let keep = rule.keep();
        for cycle in Cycle::ALL {
            if keep.of(cycle).is_some_and(|count| count > MAX_KEPT) {
                return Err(format!("{} is more than {MAX_KEPT}", cycle.name()));
            }
        }
        if keep == Keep::default() {
            return Err("says neither hourly, daily, weekly nor monthly".to_owned());
        }
        Ok(())
    }

    /// Datasets that have a rule and are not among these.
    pub fn missing(&self, paths: &[&[u8]]) -> Vec<String> {
        let is_missing = |rule: &&SnapshotRule| !paths.contains(&rule.dataset.as_bytes());
        self.snapshots.iter().filter(is_missing).map(|rule| rule.dataset.clone()).collect()
    }

    /// What is kept of a dataset at a path from the root of the volume; `None` where no rule is.
    pub fn keep(&self, path: &[u8]) -> Option<Keep> {
        let covering = self.snapshots.iter().filter_map(|rule| Some((rule.covers(path)?, rule)));
        covering.max_by_key(|(len, _)| *len).map(|(_, rule)| rule.keep())
    }
}

impl PolicyError {
    fn at(text: &str, start: usize, message: String) -> Self {
        let before = text.get(..start.min(text.len())).unwrap_or(text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
        Self { line, column, message }
    }
}

/// The text of a policy file; `None` when there is none.
pub fn read(path: &Path) -> anyhow::Result<Option<String>> {
    use std::io::Read;
    let name = || mounts::shown(path);
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file.with_context(name)?,
    };
    let mut text = String::new();
    file.take(MAX_LEN + 1).read_to_string(&mut text).with_context(name)?;
    if text.len() as u64 > MAX_LEN {
        return Err(anyhow!("longer than {MAX_LEN} bytes")).with_context(name);
    }
    Ok(Some(text))
}

/// Reads and checks a policy file, which must be there.
pub fn load(path: &Path) -> anyhow::Result<(String, Policy)> {
    let name = || mounts::shown(path);
    let text = read(path)?.ok_or_else(|| anyhow!("no such file")).with_context(name)?;
    let policy = Policy::parse(&text)
        .with_context(name)
        .hint("`firn policy check --help` says what a policy holds")?;
    Ok((text, policy))
}

/// Puts a policy into a volume directory: whenever the machine stops, the old one or the new one is
/// there as a whole.
pub fn replace(dir: &Path, text: &str) -> anyhow::Result<PathBuf> {
    let path = dir.join(FILE_NAME);
    let beside = dir.join(format!("{FILE_NAME}.{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, &path)?;
        File::open(dir)?.sync_all()
    };
    let written = write();
    if written.is_err() {
        // What was begun is of no use; that it cannot be removed adds nothing to the failure.
        let _ = std::fs::remove_file(&beside);
    }
    written.with_context(|| format!("writing {}", mounts::shown(&path)))?;
    Ok(path)
}

#[cfg(test)]
mod tests;
