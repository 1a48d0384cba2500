//! `firn snapshot`: states of a dataset that stay as they were. Every verb finds the dataset on the
//! mount itself, so that the kernel checks who may reach it, and has the daemon do the work.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;

use super::heard::Heard;
use super::names::{self, SnapshotPath};
use crate::control::client::{Client, Silent};
use crate::control::protocol::Verb;
use crate::control::tree::SnapshotAct;
use crate::failure::{EXIT_DONE, Explain};
use crate::report;
use crate::report::snapshots::{RolledBack, Taken};

mod destroy;
mod diff;
mod holds;
mod list;
pub(super) mod pump;
mod receive;
mod send;

/// Take, list, compare and destroy snapshots, clone them and roll back to them
///
/// A snapshot is written as the path of its dataset's root directory with a name behind an at sign:
/// /mnt/firn/projA@monday. Everybody finds its files, read-only, in .firn/snapshot/monday of that
/// directory.
#[derive(Debug, Args)]
pub(super) struct Snapshot {
    #[command(subcommand)]
    verb: SnapshotVerb,
}

#[derive(Debug, Subcommand)]
enum SnapshotVerb {
    Create(Create),
    List(list::List),
    Destroy(destroy::Destroy),
    Rename(Rename),
    Hold(holds::Hold),
    Release(holds::Release),
    Holds(holds::Holds),
    Rollback(Rollback),
    Clone(CloneVerb),
    Diff(diff::Diff),
    Send(send::Send),
    Receive(receive::Receive),
}

impl Snapshot {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        match self.verb {
            SnapshotVerb::Create(verb) => verb.run(),
            SnapshotVerb::List(verb) => verb.run(),
            SnapshotVerb::Destroy(verb) => verb.run(),
            SnapshotVerb::Rename(verb) => verb.run(),
            SnapshotVerb::Hold(verb) => verb.run(),
            SnapshotVerb::Release(verb) => verb.run(),
            SnapshotVerb::Holds(verb) => verb.run(),
            SnapshotVerb::Rollback(verb) => verb.run(),
            SnapshotVerb::Clone(verb) => verb.run(),
            SnapshotVerb::Diff(verb) => verb.run(),
            SnapshotVerb::Send(verb) => verb.run(),
            SnapshotVerb::Receive(verb) => verb.run(),
        }
    }
}

/// Has the daemon do something that has no answer.
fn command(client: Client, act: SnapshotAct) -> anyhow::Result<()> {
    client.ask(Verb::Snapshot(act), &mut Silent)
}

/// Asks for what is answered with one item, which may take long.
fn ask<T: DeserializeOwned>(client: Client, act: SnapshotAct) -> anyhow::Result<T> {
    let mut heard = Heard::new();
    client.ask(Verb::Snapshot(act), &mut heard)?;
    heard.items.pop().context("the daemon answered nothing")
}

/// Take a snapshot
///
/// It holds what any program had written before, also without fsync, and takes the same time
/// whatever the dataset holds. With --json, one object with the fields snapshots, drain_ms (until
/// the kernel had written out what programs wrote) and snapshot_ms (in which writers waited).
#[derive(Debug, Args)]
struct Create {
    /// The snapshot: <dataset>@<name>
    snapshot: PathBuf,
    /// Of all datasets below too, all of the same instant
    #[arg(short, long)]
    recursive: bool,
    /// What is to be known about it
    #[arg(short, long, default_value = "", hide_default_value = true)]
    message: String,
    /// Say how long it took
    #[arg(short, long)]
    verbose: bool,
    /// Print one JSON object
    #[arg(long, conflicts_with = "verbose")]
    json: bool,
}

impl Create {
    fn run(self) -> anyhow::Result<u8> {
        let path = SnapshotPath::parse(&self.snapshot)?;
        let take = || {
            let (client, of) = path.find()?;
            let (message, recursive) = (self.message.clone(), self.recursive);
            ask::<Taken>(client, SnapshotAct::Create { of, message, recursive })
        };
        let taken = take().with_context(|| format!("taking snapshot {}", path.shown))?;
        if self.json {
            report::print_json(&taken)?;
        } else if self.verbose {
            report::print(&taken.text())?;
        }
        Ok(EXIT_DONE)
    }
}

/// Give a snapshot another name
#[derive(Debug, Args)]
struct Rename {
    /// The snapshot: <dataset>@<name>
    snapshot: PathBuf,
    /// The new name: @<name>, or with the dataset before it
    new: PathBuf,
    /// Those of the same name of all datasets below too
    #[arg(short, long)]
    recursive: bool,
}

impl Rename {
    fn run(self) -> anyhow::Result<u8> {
        let path = SnapshotPath::parse(&self.snapshot)?;
        let rename = || {
            let (client, of) = path.find()?;
            let to = self.new_name(of.dataset.ino)?;
            command(client, SnapshotAct::Rename { of, to, recursive: self.recursive })
        };
        rename().with_context(|| format!("renaming snapshot {}", path.shown))?;
        Ok(EXIT_DONE)
    }

    /// The new name alone; a dataset before it must be the same one.
    fn new_name(&self, dataset: u64) -> anyhow::Result<String> {
        let text = self.new.to_str().context("the new name is no text").wrong_usage()?;
        match text.strip_prefix('@') {
            Some(name) => return Ok(name.to_owned()),
            None if !text.contains(['@', '/']) => return Ok(text.to_owned()),
            None => {}
        }
        let new = SnapshotPath::parse(&self.new)?;
        let (_, found) = names::find_dataset(&new.dataset)?;
        if found.ino != dataset {
            return Err(anyhow!("{text} is in another dataset"))
                .hint("a snapshot stays with its dataset: write the new name as @<name>")
                .wrong_usage();
        }
        Ok(new.snapshot)
    }
}

/// Bring a dataset back to a snapshot
///
/// What was written since is gone. Files that are open fail with "stale file handle" (ESTALE) from
/// then on, and every new open sees the snapshot's state. Newer snapshots are in the way unless -r
/// destroys them. With --json, one object with the fields snapshot and destroyed.
#[derive(Debug, Args)]
struct Rollback {
    /// The snapshot: <dataset>@<name>
    snapshot: PathBuf,
    /// Destroy newer snapshots
    #[arg(short = 'r', long)]
    destroy_newer: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Rollback {
    fn run(self) -> anyhow::Result<u8> {
        let path = SnapshotPath::parse(&self.snapshot)?;
        let roll_back = || {
            let (client, to) = path.find()?;
            let destroy_newer = self.destroy_newer;
            ask::<RolledBack>(client, SnapshotAct::Rollback { to, destroy_newer })
        };
        let done = roll_back().with_context(|| format!("rolling back to {}", path.shown))?;
        if self.json {
            report::print_json(&done)?;
        } else if !done.destroyed.is_empty() {
            report::print(&done.text())?;
        }
        Ok(EXIT_DONE)
    }
}

/// Make a dataset that begins as a snapshot
///
/// It shares all blocks with the snapshot until one of them is written. The snapshot cannot be
/// destroyed while it has clones; `firn dataset promote` turns that round.
#[derive(Debug, Args)]
#[command(name = "clone")]
struct CloneVerb {
    /// The snapshot: <dataset>@<name>
    snapshot: PathBuf,
    /// The new dataset: a path that does not exist yet, on the same mount
    dataset: PathBuf,
}

impl CloneVerb {
    fn run(self) -> anyhow::Result<u8> {
        let path = SnapshotPath::parse(&self.snapshot)?;
        let clone = || {
            let (client, of) = path.find()?;
            let (other, at) = names::find_new(&self.dataset)?;
            if !client.is_same(&other) {
                return Err(anyhow!("{} is on another volume", at.name))
                    .hint("a clone shares blocks with its snapshot: name a path on the same mount")
                    .wrong_usage();
            }
            command(client, SnapshotAct::Clone { of, at })
        };
        clone().with_context(|| format!("cloning snapshot {}", path.shown))?;
        Ok(EXIT_DONE)
    }
}
