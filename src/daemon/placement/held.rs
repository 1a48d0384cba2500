//! The policy that holds: the last good text of `policy.toml`, made ready, or that of no file.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use firn_tiering::recall::{Rate, RecallSettings};

use crate::failure;
use crate::mounts;
use crate::policy::rules::Rules;
use crate::policy::settings::Marks;
use crate::policy::{self, Policy};

/// A policy made ready for deciding.
#[derive(Debug)]
pub(super) struct Held {
    file: PathBuf,
    /// When the file was written, and its length: another one is read.
    stamp: Option<(SystemTime, u64)>,
    pub(super) policy: Policy,
    pub(super) rules: Rules,
    /// Why what the file says now does not hold, or not all of it.
    pub(super) failure: Option<String>,
    /// The cold tier is spread over several stores.
    is_spread: bool,
}

impl Held {
    /// What the file in `dir` says; the policy of no file where it cannot be read.
    pub(super) fn load(dir: &Path, is_spread: bool) -> Self {
        let file = dir.join(policy::FILE_NAME);
        let stamp = stamp_of(&file);
        match read(&file) {
            Ok((policy, rules, minor)) => {
                let failure = minor.or_else(|| on_one_store(&policy, is_spread));
                Self { file, stamp, policy, rules, failure, is_spread }
            }
            Err(failure) => {
                tracing::error!(failure, "the policy of no file holds");
                let policy = Policy::default();
                let rules = Rules::compile(&policy).expect("no glob is too much for nothing");
                Self { file, stamp, policy, rules, failure: Some(failure), is_spread }
            }
        }
    }

    /// What holds after the file was changed; `None` while it was not.
    pub(super) fn renewed(&self) -> Option<Self> {
        let stamp = stamp_of(&self.file);
        if stamp == self.stamp {
            return None;
        }
        let (file, is_spread) = (self.file.clone(), self.is_spread);
        Some(match read(&file) {
            Ok((policy, rules, minor)) => {
                tracing::info!("another policy holds from now on");
                let failure = minor.or_else(|| on_one_store(&policy, is_spread));
                Self { file, stamp, policy, rules, failure, is_spread }
            }
            Err(failure) => {
                tracing::error!(failure, "the policy before goes on holding");
                let (policy, rules) = (self.policy.clone(), self.rules.clone());
                Self { file, stamp, policy, rules, failure: Some(failure), is_spread }
            }
        })
    }

    /// The watermarks of a hot tier of so many bytes.
    pub(super) fn marks(&self, capacity: u64) -> Marks {
        self.policy.tier.hot.marks(capacity)
    }

    /// How reads of cold data are treated.
    pub(super) fn recall(&self) -> RecallSettings {
        let own = &self.policy.recall;
        let usual = RecallSettings::default();
        let per_user = own.budget_per_user.map(|hourly| Rate {
            bytes_per_s: (hourly.0 / 3600).max(1),
            burst_bytes: hourly.0.max(1),
        });
        RecallSettings {
            promote_after: own.promote_on,
            in_flight: own.max_in_flight.max(1) as usize,
            in_flight_per_user: own.max_in_flight_per_user.max(1) as usize,
            memory: self.horizon(),
            allowance_per_user: per_user.or(usual.allowance_per_user),
            ..usual
        }
    }

    fn horizon(&self) -> Duration {
        self.policy.defaults.horizon.0
    }

    /// How far ahead reuse is predicted, in milliseconds.
    pub(super) fn horizon_ms(&self) -> u64 {
        u64::try_from(self.horizon().as_millis()).unwrap_or(u64::MAX)
    }
}

/// What is told of a policy that wants parity across stores where there is only one. The rest of it
/// holds.
fn on_one_store(policy: &Policy, is_spread: bool) -> Option<String> {
    let why = policy.refused_stores(is_spread)?;
    let failure = format!("{why}: parity lies inside the segments instead");
    tracing::warn!("{failure}");
    Some(failure)
}

fn stamp_of(file: &Path) -> Option<(SystemTime, u64)> {
    let meta = std::fs::metadata(file).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

/// The policy, its rules, and what of it cannot be followed.
fn read(file: &Path) -> Result<(Policy, Rules, Option<String>), String> {
    let shown = || mounts::shown(file);
    let text = policy::read(file).map_err(|error| failure::line(&error))?;
    let policy = Policy::parse_in_use(&text.unwrap_or_default());
    let (policy, minor) = policy.map_err(|error| format!("{}: {error}", shown()))?;
    let minor = minor.map(|error| format!("{}: {error}", shown()));
    let rules = Rules::compile(&policy).map_err(|error| format!("{}: {error}", shown()))?;
    Ok((policy, rules, minor))
}
