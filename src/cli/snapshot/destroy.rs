//! `firn snapshot destroy`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::ask;
use crate::cli::names::{self, SnapshotPath};
use crate::control::tree::SnapshotAct;
use crate::failure::EXIT_DONE;
use crate::report;
use crate::report::snapshots::Destroyed;

/// Destroy snapshots, all of those named or none
///
/// What only they held becomes free in the background. A snapshot that is held or has clones is
/// refused. With --json, one object with the fields dry_run, datasets, snapshots, deferred and
/// freed_bytes.
#[derive(Debug, Args)]
pub(super) struct Destroy {
    /// <dataset>@<name>, or a range <dataset>@<first>%<last> whose ends may be left out; several
    /// names and ranges are separated by commas
    snapshots: PathBuf,
    /// Destroy nothing; say what would be destroyed and what that would free
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Say what was destroyed and what that frees
    #[arg(short, long)]
    verbose: bool,
    /// What is held or has clones is destroyed when the last of them goes
    #[arg(short = 'd', long)]
    defer: bool,
    /// Snapshots of the same names of all datasets below too
    #[arg(short, long)]
    recursive: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Destroy {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let path = SnapshotPath::parse(&self.snapshots)?;
        let destroy = || {
            let which = path.which()?;
            let (client, dataset) = names::find_dataset(&path.dataset)?;
            let (deferred, recursive, dry_run) = (self.defer, self.recursive, self.dry_run);
            let act = SnapshotAct::Destroy { dataset, which, deferred, recursive, dry_run };
            ask::<Destroyed>(client, act)
        };
        let destroyed = destroy().with_context(|| format!("destroying {}", path.shown))?;
        if self.json {
            report::print_json(&destroyed)?;
        } else if self.verbose || self.dry_run {
            report::print(&destroyed.text())?;
        }
        Ok(EXIT_DONE)
    }
}
