//! `firn snapshot hold`, `release` and `holds`, with the arguments of zfs(8).

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::command;
use crate::cli::heard::Heard;
use crate::cli::names::SnapshotPath;
use crate::control::protocol::Verb;
use crate::control::tree::SnapshotAct;
use crate::failure::EXIT_DONE;
use crate::report;
use crate::report::snapshots::{HoldLine, Holds as Listing};

/// Keep snapshots from being destroyed
///
/// Each hold has a name, so that several can keep the same snapshot.
#[derive(Debug, Args)]
pub(super) struct Hold {
    /// What the hold is called
    tag: String,
    /// The snapshots: <dataset>@<name>
    #[arg(required = true)]
    snapshots: Vec<PathBuf>,
}

impl Hold {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        for snapshot in &self.snapshots {
            let path = SnapshotPath::parse(snapshot)?;
            let hold = || {
                let (client, of) = path.find()?;
                command(client, SnapshotAct::Hold { of, tag: self.tag.clone() })
            };
            hold().with_context(|| format!("holding {}", path.shown))?;
        }
        Ok(EXIT_DONE)
    }
}

/// Take holds back
///
/// The last one of a snapshot whose destruction was deferred destroys it.
#[derive(Debug, Args)]
pub(super) struct Release {
    /// What the hold is called
    tag: String,
    /// The snapshots: <dataset>@<name>
    #[arg(required = true)]
    snapshots: Vec<PathBuf>,
}

impl Release {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        for snapshot in &self.snapshots {
            let path = SnapshotPath::parse(snapshot)?;
            let release = || {
                let (client, of) = path.find()?;
                command(client, SnapshotAct::Release { of, tag: self.tag.clone() })
            };
            release().with_context(|| format!("releasing {}", path.shown))?;
        }
        Ok(EXIT_DONE)
    }
}

/// List the holds of snapshots
///
/// With --json, an object whose field holds lists snapshot, tag and created.
#[derive(Debug, Args)]
pub(super) struct Holds {
    /// The snapshots: <dataset>@<name>
    #[arg(required = true)]
    snapshots: Vec<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Holds {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let mut listing = Listing::default();
        for snapshot in &self.snapshots {
            let path = SnapshotPath::parse(snapshot)?;
            let mut heard = Heard::<HoldLine>::new();
            let list = |heard: &mut Heard<HoldLine>| {
                let (client, of) = path.find()?;
                client.ask(Verb::Snapshot(SnapshotAct::Holds { of }), heard)
            };
            list(&mut heard).with_context(|| format!("listing holds of {}", path.shown))?;
            listing.holds.extend(heard.items);
        }
        if self.json {
            report::print_json(&listing)?;
        } else if !listing.holds.is_empty() {
            report::print(&listing.text())?;
        }
        Ok(EXIT_DONE)
    }
}
