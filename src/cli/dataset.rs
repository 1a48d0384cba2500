//! `firn dataset`: directories with snapshots of their own.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;

use super::heard::Heard;
use super::names::{self, Place};
use super::offline::Offline;
use crate::control::client::{Client, Silent};
use crate::control::protocol::Verb;
use crate::control::tree::DatasetAct;
use crate::failure::{EXIT_DONE, Explain};
use crate::mounts;
use crate::report;
use crate::report::datasets::{DatasetLine, Listing};
use crate::report::snapshots::Destroyed;

mod properties;

/// Make, list, rename, promote and destroy datasets, and set their properties
///
/// A dataset is a directory that has snapshots of its own, and is written as the path of that
/// directory. Files cannot be moved or linked from one dataset to another (EXDEV); mv copies them.
#[derive(Debug, Args)]
pub(super) struct Dataset {
    #[command(subcommand)]
    verb: DatasetVerb,
}

#[derive(Debug, Subcommand)]
enum DatasetVerb {
    Create(Create),
    List(List),
    Get(properties::Get),
    Set(properties::Set),
    Inherit(properties::Inherit),
    Destroy(Destroy),
    Rename(Rename),
    Promote(Promote),
}

impl Dataset {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        match self.verb {
            DatasetVerb::Create(verb) => verb.run(),
            DatasetVerb::List(verb) => verb.run(),
            DatasetVerb::Get(verb) => verb.run(),
            DatasetVerb::Set(verb) => verb.run(),
            DatasetVerb::Inherit(verb) => verb.run(),
            DatasetVerb::Destroy(verb) => verb.run(),
            DatasetVerb::Rename(verb) => verb.run(),
            DatasetVerb::Promote(verb) => verb.run(),
        }
    }
}

fn command(client: Client, act: DatasetAct) -> anyhow::Result<()> {
    client.ask(Verb::Dataset(act), &mut Silent)
}

fn ask<T: DeserializeOwned>(client: Client, act: DatasetAct) -> anyhow::Result<Vec<T>> {
    let mut heard = Heard::new();
    client.ask(Verb::Dataset(act), &mut heard)?;
    Ok(heard.items)
}

/// Make a dataset: a new directory
#[derive(Debug, Args)]
struct Create {
    /// A property to set from the start: <property>=<value>
    #[arg(short = 'o', value_name = "PROPERTY=VALUE")]
    options: Vec<String>,
    /// A path that does not exist yet, in a directory of a mounted volume
    dataset: PathBuf,
}

impl Create {
    fn run(self) -> anyhow::Result<u8> {
        let create = || {
            let settings = properties::assignments(&self.options)?;
            let (client, at) = names::find_new(&self.dataset)?;
            command(client, DatasetAct::Create { at, settings })
        };
        create().with_context(|| format!("making dataset {}", mounts::shown(&self.dataset)))?;
        Ok(EXIT_DONE)
    }
}

/// List datasets
///
/// Without a dataset, those of all mounted volumes. USED is what the dataset, its snapshots and all
/// datasets below hold, AVAIL what can still be written, REFER what its files add up to, WRITTEN
/// what was written since its newest snapshot, QUOTA the most that it may use: bytes of files,
/// before compression. With --json, an object whose field datasets lists dataset, created, origin
/// (the snapshot that it is a clone of), snapshots (how many it has), used_bytes, available_bytes,
/// referenced_bytes, written_bytes and quota_bytes; what is not known is null.
#[derive(Debug, Args)]
struct List {
    /// The dataset: the path of its root directory, or <volume-dir>:/path
    dataset: Option<PathBuf>,
    /// All datasets below too
    #[arg(short, long)]
    recursive: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl List {
    fn run(self) -> anyhow::Result<u8> {
        let listing = Listing { datasets: self.lines().context("listing datasets")? };
        if self.json {
            report::print_json(&listing)?;
        } else if !listing.datasets.is_empty() {
            report::print(&listing.text())?;
        }
        Ok(EXIT_DONE)
    }

    fn lines(&self) -> anyhow::Result<Vec<DatasetLine>> {
        let recursive = self.recursive;
        let Some(path) = &self.dataset else { return everywhere() };
        match names::place(path)? {
            Place::Mounted(_) => {
                let (client, of) = names::find_dataset(path)?;
                ask(client, DatasetAct::List { of: Some(of), recursive })
            }
            Place::Unmounted(volume, below) => {
                Offline::open(&volume)?.look(|naming| naming.dataset_lines(&below, recursive))
            }
        }
    }
}

fn everywhere() -> anyhow::Result<Vec<DatasetLine>> {
    let mut lines = Vec::new();
    names::for_each_mounted(|client| {
        lines.extend(ask(client, DatasetAct::List { of: None, recursive: true })?);
        Ok(())
    })?;
    Ok(lines)
}

/// Destroy a dataset
///
/// What it held becomes free in the background. Its snapshots and the datasets below are in the way
/// unless -r destroys them, too. With --json, one object with the fields dry_run, datasets,
/// snapshots, deferred and freed_bytes.
#[derive(Debug, Args)]
struct Destroy {
    /// The dataset: the path of its root directory
    dataset: PathBuf,
    /// With its snapshots and all datasets below
    #[arg(short, long)]
    recursive: bool,
    /// Destroy nothing; say what would be destroyed
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Say what was destroyed
    #[arg(short, long)]
    verbose: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Destroy {
    fn run(self) -> anyhow::Result<u8> {
        let destroy = || {
            let (client, dataset) = names::find_dataset(&self.dataset)?;
            let (recursive, dry_run) = (self.recursive, self.dry_run);
            let act = DatasetAct::Destroy { dataset, recursive, dry_run };
            ask::<Destroyed>(client, act)?.pop().context("the daemon answered nothing")
        };
        let what = || format!("destroying dataset {}", mounts::shown(&self.dataset));
        let destroyed = destroy().with_context(what)?;
        if self.json {
            report::print_json(&destroyed)?;
        } else if self.verbose || self.dry_run {
            report::print(&destroyed.text())?;
        }
        Ok(EXIT_DONE)
    }
}

/// Move a dataset to another name
///
/// The new name is in the dataset that it lies in already.
#[derive(Debug, Args)]
struct Rename {
    /// The dataset: the path of its root directory
    dataset: PathBuf,
    /// A path that does not exist yet
    new: PathBuf,
}

impl Rename {
    fn run(self) -> anyhow::Result<u8> {
        let rename = || {
            let (client, dataset) = names::find_dataset(&self.dataset)?;
            let (other, to) = names::find_new(&self.new)?;
            if !client.is_same(&other) {
                return Err(anyhow!("{} is on another volume", to.name))
                    .hint("name a path on the same mount")
                    .wrong_usage();
            }
            command(client, DatasetAct::Rename { dataset, to })
        };
        rename().with_context(|| format!("renaming dataset {}", mounts::shown(&self.dataset)))?;
        Ok(EXIT_DONE)
    }
}

/// Let a clone take over the snapshots that it came from
///
/// Afterwards the dataset that they belonged to is a clone of this one, and can be destroyed.
#[derive(Debug, Args)]
struct Promote {
    /// The clone: the path of its root directory
    dataset: PathBuf,
}

impl Promote {
    fn run(self) -> anyhow::Result<u8> {
        let promote = || {
            let (client, dataset) = names::find_dataset(&self.dataset)?;
            command(client, DatasetAct::Promote { dataset })
        };
        promote().with_context(|| format!("promoting dataset {}", mounts::shown(&self.dataset)))?;
        Ok(EXIT_DONE)
    }
}
