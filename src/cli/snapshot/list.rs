//! `firn snapshot list`: asks the daemon, or looks into a volume that is not mounted.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::cli::heard::Heard;
use crate::cli::names::{self, Place};
use crate::cli::offline::Offline;
use crate::control::client::Client;
use crate::control::protocol::Verb;
use crate::control::tree::SnapshotAct;
use crate::failure::EXIT_DONE;
use crate::report;
use crate::report::snapshots::{Listing, SnapshotLine};

/// List snapshots: when each was taken, and what it takes
///
/// Without a dataset, those of all mounted volumes. With --json, an object whose field snapshots
/// lists snapshot, dataset, name, created, message, used_bytes (what destroying only this one would
/// free), referenced_bytes, written_bytes (since the snapshot before), holds, clones, deferred, root
/// (stands for all that it shows, the same in every copy), digest (stands for it and all before
/// it), sent_root (the root that a received one had where it was sent) and as_sent (whether it still
/// has). Bytes are those of files, before compression; what is not known yet is null.
#[derive(Debug, Args)]
pub(super) struct List {
    /// The dataset: the path of its root directory, or <volume-dir>:/path
    dataset: Option<PathBuf>,
    /// Of all datasets below too
    #[arg(short, long)]
    recursive: bool,
    /// Leave out used: counting it takes long when much was written
    #[arg(short, long)]
    quick: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl List {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let listing = Listing { snapshots: self.lines().context("listing snapshots")? };
        if self.json {
            report::print_json(&listing)?;
        } else if !listing.snapshots.is_empty() {
            report::print(&listing.text())?;
        }
        Ok(EXIT_DONE)
    }

    fn lines(&self) -> anyhow::Result<Vec<SnapshotLine>> {
        let (recursive, quick) = (self.recursive, self.quick);
        let Some(path) = &self.dataset else { return everywhere(quick) };
        match names::place(path)? {
            Place::Mounted(_) => {
                let (client, of) = names::find_dataset(path)?;
                ask(client, SnapshotAct::List { of: Some(of), recursive, quick })
            }
            Place::Unmounted(volume, below) => Offline::open(&volume)?
                .look(|naming| naming.snapshot_lines(&below, recursive, quick)),
        }
    }
}

fn ask(client: Client, act: SnapshotAct) -> anyhow::Result<Vec<SnapshotLine>> {
    let mut heard = Heard::new();
    client.ask(Verb::Snapshot(act), &mut heard)?;
    Ok(heard.items)
}

fn everywhere(quick: bool) -> anyhow::Result<Vec<SnapshotLine>> {
    let mut lines = Vec::new();
    names::for_each_mounted(|client| {
        lines.extend(ask(client, SnapshotAct::List { of: None, recursive: true, quick })?);
        Ok(())
    })?;
    Ok(lines)
}
