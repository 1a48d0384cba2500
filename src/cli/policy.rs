//! `firn policy`: what a volume does of its own accord.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};

use crate::failure::{EXIT_DONE, Explain};
use crate::policy::{self, Policy};
use crate::report;
use crate::volume_dir;
use crate::{config, mounts};

/// Say which snapshots a volume takes by itself
///
/// The policy is the file policy.toml in the volume directory. For each dataset it says how many
/// automatic snapshots are kept:
///
///   [[snapshots]]
///   dataset = "/projA"
///   recursive = true
///   hourly = 24
///   daily = 7
///   weekly = 4
///   monthly = 12
///
/// The dataset is a path from the root of the volume, the root itself is "/". With recursive it
/// holds for all datasets below too, as far as they have no rule of their own. A mounted volume
/// takes a snapshot in each hour, day, week and month (in UTC, called auto-hourly-2026-11-21T15:00Z
/// and so on), and destroys the oldest of these that are more than so many; 0 keeps none, and
/// without a number those of that kind are left alone. Snapshots with other names are never
/// touched, nor any that is held or has clones. `firn status` says what was taken last, what is due
/// next, and what failed.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct PolicyVerb {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Show(Show),
    Check(Check),
    Apply(Apply),
}

impl PolicyVerb {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        match self.verb {
            Verb::Show(verb) => verb.run(),
            Verb::Check(verb) => verb.run(),
            Verb::Apply(verb) => verb.run(),
        }
    }
}

/// Print a volume's policy
#[derive(Debug, Args)]
struct Show {
    /// The volume: its directory, its mountpoint or any path below that
    #[arg(default_value = ".")]
    volume: PathBuf,
    /// Print one JSON object: its field snapshots lists the rules
    #[arg(long)]
    json: bool,
}

impl Show {
    fn run(self) -> anyhow::Result<u8> {
        let volume = volume_dir::resolve(&self.volume)?.volume;
        let path = volume.root().join(policy::FILE_NAME);
        let text = policy::read(&path)?;
        if self.json {
            let policy = Policy::parse(text.as_deref().unwrap_or_default())
                .with_context(|| mounts::shown(&path));
            report::print_json(&policy?)?;
        } else if let Some(text) = text {
            report::print(&text)?;
        } else {
            report::note(&format!("{} has no policy", mounts::shown(volume.root())));
        }
        Ok(EXIT_DONE)
    }
}

/// Check a policy file without using it
#[derive(Debug, Args)]
struct Check {
    /// The file
    file: PathBuf,
}

impl Check {
    fn run(self) -> anyhow::Result<u8> {
        policy::load(&self.file)?;
        Ok(EXIT_DONE)
    }
}

/// Check a policy file and have a volume follow it from now on
///
/// The file is copied, as a whole or not at all. A mounted volume notices within seconds.
#[derive(Debug, Args)]
struct Apply {
    /// The file
    file: PathBuf,
    /// The volume: its directory, its mountpoint or any path below that
    #[arg(default_value = ".")]
    volume: PathBuf,
}

impl Apply {
    fn run(self) -> anyhow::Result<u8> {
        let (text, _) = policy::load(&self.file)?;
        let volume = volume_dir::resolve(&self.volume)?.volume;
        policy::replace(volume.root(), &text)
            .hint(format!("only who may write to the directory of {} may", config::FILE_NAME))?;
        Ok(EXIT_DONE)
    }
}
