//! `policy.toml`: what a volume does of its own accord, as its owner wants it. A typo is found when
//! the file is read, with its line and column; the daemon goes on with the last good one.
//!
//! It holds which snapshots are taken automatically and how many are kept ([`plan`]), and where
//! files lie: [`settings`] are its values, [`rules`] decide about one file, [`planner`] about all,
//! and [`replay`] says what that would have come to.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use firn_tiering::segment::ParityPlace;
use serde::Serialize;

use crate::failure::Explain;
use crate::mounts;
use document::Found;

pub mod amount;
pub mod cycle;
mod document;
pub mod plan;
pub mod planner;
mod reading;
pub mod replay;
pub mod rules;
pub mod settings;
pub mod users;

use cycle::Cycle;
use settings::{Class, Defaults, Recall, Rule, Scrub, Throttle, Tiers};

/// Name of the file in the volume directory.
pub const FILE_NAME: &str = "policy.toml";

/// A file that says everything, with comments: the help of `firn policy`.
pub const EXAMPLE: &str = include_str!("policy/example.toml");

/// Longest file in bytes.
const MAX_LEN: u64 = 1 << 20;

/// A policy. Without a file, that of an empty one holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Policy {
    /// Room and prices.
    pub tier: Tiers,
    /// What holds where nothing else is said.
    pub defaults: Defaults,
    /// Classes of files.
    #[serde(rename = "class")]
    pub classes: Vec<Class>,
    /// What is done with which files.
    #[serde(rename = "rule")]
    pub rules: Vec<Rule>,
    /// How cold data comes back.
    pub recall: Recall,
    /// How much of the way to cold is taken.
    pub throttle: Throttle,
    /// How storage is looked over.
    pub scrub: Scrub,
    /// Snapshots to be taken.
    pub snapshots: Vec<SnapshotRule>,
}

/// Which snapshots of a dataset are taken, and how many are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SnapshotRule {
    /// Path of the dataset's root directory from the root of the volume: `/projA`.
    pub dataset: String,
    /// Of all datasets below too, but for those with a rule of their own, and what is below them.
    pub recursive: bool,
    /// How many are kept of each hour; see [`Keep`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hourly: Option<u32>,
    /// Of each day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daily: Option<u32>,
    /// Of each week.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weekly: Option<u32>,
    /// Of each month.
    #[serde(skip_serializing_if = "Option::is_none")]
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

/// What is wrong at one place of a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct PolicyError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong there, and what is expected.
    pub message: String,
}

/// Why a policy was refused: all that is wrong in it, at least one, in the order of the places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyErrors(pub Vec<PolicyError>);

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut errors = self.0.iter();
        if let Some(first) = errors.next() {
            first.fmt(f)?;
        }
        match errors.len() {
            0 => Ok(()),
            more => write!(f, " (and {more} more)"),
        }
    }
}

impl std::error::Error for PolicyErrors {}

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
    pub fn parse(text: &str) -> Result<Self, PolicyErrors> {
        match Self::parse_in_use(text)? {
            (policy, None) => Ok(policy),
            (_, Some(minor)) => Err(minor),
        }
    }

    /// Reads the text of a policy that a volume has: one that some settings of the throttle cannot be
    /// followed of holds without them, since the rules in it protect files.
    pub fn parse_in_use(text: &str) -> Result<(Self, Option<PolicyErrors>), PolicyErrors> {
        let errors = |faults: Found| {
            let at = |(start, message)| PolicyError::at(text, start, message);
            PolicyErrors(faults.into_iter().map(at).collect())
        };
        let (policy, minor) = reading::policy(text).map_err(errors)?;
        Ok((policy, (!minor.is_empty()).then(|| errors(minor))))
    }

    /// Datasets that have a rule and are not among these.
    pub fn missing(&self, paths: &[&[u8]]) -> Vec<String> {
        let is_missing = |rule: &&SnapshotRule| !paths.contains(&rule.dataset.as_bytes());
        self.snapshots.iter().filter(is_missing).map(|rule| rule.dataset.clone()).collect()
    }

    /// Why what the policy says of parity cannot be had of a volume, if that is so: parity across
    /// stores where the cold tier is not spread over several.
    pub fn refused_stores(&self, is_spread: bool) -> Option<String> {
        let asking = self.on_stores();
        (!is_spread && !asking.is_empty()).then(|| {
            let asking = asking.join(", ");
            format!(
                "`parity = \"stores\"` of {asking} needs a cold tier that is spread over several \
                 stores"
            )
        })
    }

    /// Who asks for parity across stores: names of classes, and `[defaults]`.
    fn on_stores(&self) -> Vec<String> {
        let asks = |class: &&Class| class.parity == Some(ParityPlace::Stores);
        let classes =
            self.classes.iter().filter(asks).map(|class| format!("class `{}`", class.name));
        let defaults = self.defaults.parity == ParityPlace::Stores;
        classes.chain(defaults.then(|| "[defaults]".to_owned())).collect()
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
        .hint("`firn policy --help` says what a policy holds")?;
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
