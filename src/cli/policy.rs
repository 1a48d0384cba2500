//! `firn policy`: what a volume does of its own accord.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};

use crate::failure::{EXIT_DONE, Explain};
use crate::policy::{self, Policy, PolicyErrors};
use crate::report;
use crate::volume_dir;
use crate::{config, mounts};

mod explain;
mod plan;
mod replay;

/// Say where files lie and which snapshots are taken, by themselves
///
/// The policy is the file policy.toml in the volume directory. It says when files go to the cold
/// tier and come back, how much of the network that may take, and for each dataset how many
/// automatic snapshots are kept. Without a file the defaults hold, and no snapshots are taken.
///
/// For each file, what a user has pinned decides first; then the first rule that fits; then the
/// mode. Files go while the hot tier is fuller than its high watermark, and whenever a rule says
/// so; they are copied to cold before, so that going is instant.
///
/// A mounted volume takes a snapshot in each hour, day, week and month (in UTC, called
/// auto-hourly-2026-11-21T15:00Z and so on), and destroys the oldest of these that are more than
/// are to be kept; 0 keeps none, and without a number those of that kind are left alone. Snapshots
/// with other names are never touched, nor any that is held or has clones. `firn status` says what
/// was taken last, what is due next, and what failed.
#[derive(Debug, Args)]
#[command(after_long_help = policy::EXAMPLE)]
pub(super) struct PolicyVerb {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Show(Show),
    Check(Check),
    Apply(Apply),
    Plan(plan::Plan),
    Run(plan::Run),
    Explain(explain::Explain),
    Replay(replay::Replay),
}

impl PolicyVerb {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        match self.verb {
            Verb::Show(verb) => verb.run(),
            Verb::Check(verb) => verb.run(),
            Verb::Apply(verb) => verb.run(),
            Verb::Plan(verb) => verb.run(),
            Verb::Run(verb) => verb.run(),
            Verb::Explain(verb) => verb.run(),
            Verb::Replay(verb) => verb.run(),
        }
    }
}

/// Print a volume's policy
#[derive(Debug, Args)]
struct Show {
    /// The volume: its directory, its mountpoint or any path below that
    #[arg(default_value = ".")]
    volume: PathBuf,
    /// Print one JSON object with the fields tier, defaults, class, rule, recall, throttle and
    /// snapshots, named as in the file, with every default filled in
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
///
/// Everything that is wrong is told, with its line and column and what is expected there.
#[derive(Debug, Args)]
struct Check {
    /// The file
    file: PathBuf,
}

impl Check {
    fn run(self) -> anyhow::Result<u8> {
        load(&self.file)?;
        Ok(EXIT_DONE)
    }
}

/// Reads and checks a policy file; of several faults each is told.
fn load(file: &Path) -> anyhow::Result<(String, Policy)> {
    let error = match policy::load(file) {
        Ok(loaded) => return Ok(loaded),
        Err(error) => error,
    };
    let name = mounts::shown(file);
    match error.downcast_ref::<PolicyErrors>() {
        Some(PolicyErrors(errors)) if errors.len() > 1 => {
            for error in errors {
                report::note(&format!("firn: {name}: {error}"));
            }
            Err(anyhow!("{} errors", errors.len()))
                .context(name)
                .hint("`firn policy --help` says what a policy holds")
        }
        _ => Err(error),
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
        let (text, policy) = load(&self.file)?;
        let volume = volume_dir::resolve(&self.volume)?.volume;
        let config = volume.config()?;
        if let Some(why) = policy.refused_stores(config.spread().is_some()) {
            return Err(anyhow!(why)).with_context(|| mounts::shown(&self.file)).hint(
                "use \"inside\" or \"object\", or make a volume with several stores in `cold`",
            );
        }
        policy::replace(volume.root(), &text)
            .hint(format!("only who may write to the directory of {} may", config::FILE_NAME))?;
        Ok(EXIT_DONE)
    }
}
