//! `firn tier find` and `du`: files by where they lie, and how much lies where.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::cli::heard::Heard;
use crate::cli::target;
use crate::control::client::Listener;
use crate::control::placement::{Finding, TierAct};
use crate::control::protocol::{Files, Verb};
use crate::failure::EXIT_DONE;
use crate::mounts;
use crate::report;
use crate::report::files::{FileLine, Listing};
use crate::report::names;
use crate::report::tier::{Du, DuLine};
use crate::units::{Period, Size};

/// Find files by where they lie, how large they are and when they were written
///
/// Everything below the paths is looked at, and all conditions must hold. With --json, an object
/// whose field files lists path, kind, size_bytes, state and resident_pct.
#[derive(Debug, Args)]
pub(super) struct Find {
    /// Files and directories
    #[arg(default_value = ".")]
    paths: Vec<PathBuf>,
    /// In one of these states
    #[arg(long, value_delimiter = ',', value_parser = STATES)]
    state: Vec<String>,
    /// At least so large
    #[arg(long, value_name = "SIZE")]
    min_size: Option<Size>,
    /// At most so large
    #[arg(long, value_name = "SIZE")]
    max_size: Option<Size>,
    /// Not written for so long
    #[arg(long, value_name = "DURATION")]
    older: Option<Period>,
    /// Written within this time
    #[arg(long, value_name = "DURATION")]
    newer: Option<Period>,
    /// Print paths alone, one a line, as `firn tier stage --from-list -` takes them
    #[arg(long, conflicts_with = "json")]
    paths_only: bool,
    /// Print paths alone, each ended by a null byte
    #[arg(short = '0', long, conflicts_with = "json")]
    null: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const STATES: [&str; 7] = ["dirty", "resident", "dual", "partial", "cold", "fetching", "error"];

/// Prints each path as it is heard.
struct Printer {
    end: u8,
}

impl Listener for Printer {
    fn item(&mut self, item: serde_json::Value) -> anyhow::Result<()> {
        let line: FileLine = serde_json::from_value(item).context("the daemon's answer")?;
        let mut bytes = names::bytes(&line.path);
        bytes.push(self.end);
        io::stdout().lock().write_all(&bytes).context("writing to standard output")
    }
}

impl Find {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let mut listing = Listing::default();
        for path in &self.paths {
            let found = target::find(path).context("looking for files")?;
            let what = || format!("looking for files below {}", mounts::shown(path));
            let verb = Verb::Tier(TierAct::Find(self.finding(found.ino, found.name)));
            if self.null || self.paths_only {
                let mut printer = Printer { end: if self.null { 0 } else { b'\n' } };
                found.client.ask(verb, &mut printer).with_context(what)?;
            } else {
                let mut heard = Heard::<FileLine>::new();
                found.client.ask(verb, &mut heard).with_context(what)?;
                listing.files.append(&mut heard.items);
            }
        }
        if self.json {
            report::print_json(&listing)?;
        } else if !listing.files.is_empty() {
            report::print(&listing.text())?;
        }
        Ok(EXIT_DONE)
    }

    fn finding(&self, ino: u64, name: String) -> Finding {
        Finding {
            files: Files { ino, name, recursive: true },
            states: self.state.clone(),
            min_size_bytes: self.min_size.map(|size| size.0),
            max_size_bytes: self.max_size.map(|size| size.0),
            older_s: self.older.map(|period| period.0.as_secs()),
            newer_s: self.newer.map(|period| period.0.as_secs()),
        }
    }
}

/// Show how much of a directory lies in which tier
///
/// Bytes are those of the files' content, before compression; what was not written to blocks yet, or
/// lies in the namespace itself, is part of the size alone. With --json, an object whose field
/// directories lists path, files, size_bytes, hot_bytes (hot only), dual_bytes (in both), cold_bytes
/// (cold only) and lost_bytes.
#[derive(Debug, Args)]
pub(super) struct DuVerb {
    /// Directories and files
    #[arg(default_value = ".")]
    paths: Vec<PathBuf>,
    /// List directories so far below, too
    #[arg(short = 'd', long, value_name = "DEPTH", default_value_t = 1)]
    max_depth: u32,
    /// Only the sum: as --max-depth 0
    #[arg(short, long, conflicts_with = "max_depth")]
    summarize: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl DuVerb {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let mut du = Du::default();
        for path in &self.paths {
            let found = target::find(path).context("counting")?;
            let what = format!("counting {}", found.name);
            let files = Files { ino: found.ino, name: found.name, recursive: true };
            let depth = if self.summarize { 0 } else { self.max_depth };
            let mut heard = Heard::<DuLine>::new();
            let verb = Verb::Tier(TierAct::Du { files, depth });
            found.client.ask(verb, &mut heard).with_context(|| what)?;
            du.directories.append(&mut heard.items);
        }
        if self.json {
            report::print_json(&du)?;
        } else {
            report::print(&du.text())?;
        }
        Ok(EXIT_DONE)
    }
}
