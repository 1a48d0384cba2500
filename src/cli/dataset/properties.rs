//! `firn dataset get`, `set` and `inherit`.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};

use super::{ask, command};
use crate::cli::names::{self, Place};
use crate::cli::offline::Offline;
use crate::control::tree::{Assignment, DatasetAct};
use crate::failure::{EXIT_DONE, Explain};
use crate::mounts;
use crate::report;
use crate::report::properties::{Listing, PropertyLine};

/// Show properties of datasets, and where each value comes from
///
/// The source is local (set on the dataset), inherited from <dataset>, default, or - for what is
/// shown and cannot be set. With --json, an object whose field properties lists dataset, property,
/// value, source and bytes (the value of a size, else null); what is not known is -.
#[derive(Debug, Args)]
pub(super) struct Get {
    /// Of all datasets below too
    #[arg(short, long)]
    recursive: bool,
    /// For scripts: no headings, fields separated by one tab, bytes as plain numbers
    #[arg(short = 'H', long)]
    script: bool,
    /// Only values from these sources, separated by commas
    #[arg(short, long, value_delimiter = ',')]
    source: Vec<SourceKind>,
    /// Print one JSON object
    #[arg(long, conflicts_with = "script")]
    json: bool,
    /// A property, several separated by commas, or all
    property: String,
    /// The dataset: the path of its root directory, or <volume-dir>:/path; without one, those of
    /// all mounted volumes
    dataset: Option<PathBuf>,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SourceKind {
    /// Set on the dataset itself
    Local,
    /// Set nowhere
    Default,
    /// Set on a dataset above
    Inherited,
    /// Cannot be set
    None,
}

impl SourceKind {
    fn is_of(self, line: &PropertyLine) -> bool {
        line.source_kind()
            == match self {
                Self::Local => "local",
                Self::Default => "default",
                Self::Inherited => "inherited",
                Self::None => "-",
            }
    }
}

impl Get {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let mut properties = self.lines().context("asking for properties")?;
        let is_wanted = |line: &PropertyLine| self.source.iter().any(|kind| kind.is_of(line));
        properties.retain(|line| self.source.is_empty() || is_wanted(line));
        let listing = Listing { properties };
        if self.json {
            report::print_json(&listing)?;
        } else if !listing.properties.is_empty() {
            report::print(&if self.script { listing.script() } else { listing.text() })?;
        }
        Ok(EXIT_DONE)
    }

    fn lines(&self) -> anyhow::Result<Vec<PropertyLine>> {
        let recursive = self.recursive;
        let properties: Vec<String> = self.property.split(',').map(str::to_owned).collect();
        let Some(path) = &self.dataset else {
            let mut lines = Vec::new();
            names::for_each_mounted(|client| {
                let properties = properties.clone();
                lines.extend(ask(client, DatasetAct::Get { of: None, recursive, properties })?);
                Ok(())
            })?;
            return Ok(lines);
        };
        match names::place(path)? {
            Place::Mounted(_) => {
                let (client, of) = names::find_dataset(path)?;
                ask(client, DatasetAct::Get { of: Some(of), recursive, properties })
            }
            Place::Unmounted(volume, below) => Offline::open(&volume)?
                .look(|naming| naming.properties_at(&below, recursive, &properties)),
        }
    }
}

/// Set properties of a dataset, all of them or none
///
/// Datasets below take over what they do not set themselves, but for the quota.
///
/// compression=auto|off|lz4|zstd|zstd-1..19: how blocks are compressed that are written from then
/// on; what is compressed again later, while nothing else happens, may still become smaller.
/// quota=<size>|none: how much the dataset and all below may take, not less than they do now.
/// readonly=on|off: every change fails with EROFS; snapshots can be taken and destroyed.
/// snapdir=hidden|visible: whether listings of the dataset's root show .firn.
/// atime=on|off: whether opening a file for reading changes its access time, at most once a day
/// after a change.
/// dedup=off: reserved.
/// tier=<class>|none: the class of the policy that says where blocks lie.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Set {
    /// <property>=<value>, one or several
    #[arg(required = true, value_name = "PROPERTY=VALUE")]
    settings: Vec<String>,
    /// The dataset: the path of its root directory, or <volume-dir>:/path
    dataset: PathBuf,
}

impl Set {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let set = || {
            let settings = assignments(&self.settings)?;
            let (client, dataset) = names::find_dataset(&self.dataset)?;
            command(client, DatasetAct::Set { dataset, settings })
        };
        set().with_context(|| format!("setting properties of {}", mounts::shown(&self.dataset)))?;
        Ok(EXIT_DONE)
    }
}

/// Have a dataset take over a property again from the one that it lies in
#[derive(Debug, Args)]
pub(super) struct Inherit {
    /// All datasets below too
    #[arg(short, long)]
    recursive: bool,
    /// The property
    property: String,
    /// The dataset: the path of its root directory, or <volume-dir>:/path
    dataset: PathBuf,
}

impl Inherit {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let inherit = || {
            let (client, dataset) = names::find_dataset(&self.dataset)?;
            let (property, recursive) = (self.property.clone(), self.recursive);
            command(client, DatasetAct::Inherit { dataset, property, recursive })
        };
        let what = || format!("inheriting {} for {}", self.property, mounts::shown(&self.dataset));
        inherit().with_context(what)?;
        Ok(EXIT_DONE)
    }
}

/// Takes `property=value` apart. What both may be is the daemon's to say.
pub(super) fn assignments(typed: &[String]) -> anyhow::Result<Vec<Assignment>> {
    let split = |text: &String| match text.split_once('=') {
        Some((property, value)) if !property.is_empty() => {
            Ok(Assignment { property: property.to_owned(), value: value.to_owned() })
        }
        _ => Err(anyhow!("{text} is no setting"))
            .hint("write <property>=<value>, as in readonly=on, before the dataset")
            .wrong_usage(),
    };
    typed.iter().map(split).collect()
}
