//! `firn tier jobs`, `cancel` and `trace`: work that moves files, and what they were used for.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use crate::cli::heard::Heard;
use crate::cli::snapshot::pump::Sink;
use crate::cli::trace;
use crate::control::client::Client;
use crate::control::placement::TierAct;
use crate::control::protocol::Verb;
use crate::failure::EXIT_DONE;
use crate::report;
use crate::report::tier::{JobLine, Jobs};
use crate::volume_dir;

/// Show work that moves files: what waits, what is done, and why something is parked
///
/// With --json, an object whose field jobs lists job, kind, state (waiting, running, parked, done,
/// cancelled or failed), what, by, done_bytes, total_bytes, age_s and reason.
#[derive(Debug, Args)]
pub(super) struct JobsVerb {
    /// A mountpoint or any path below one
    #[arg(default_value = ".")]
    volume: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl JobsVerb {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        ask(&self.volume, TierAct::Jobs, self.json).context("listing jobs")
    }
}

/// Drop work that has not begun
///
/// What has begun is finished: it is never left half-done. With --json, the object of `firn tier
/// jobs` with what was dropped.
#[derive(Debug, Args)]
pub(super) struct Cancel {
    /// A job, as `firn tier jobs` numbers it
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    job: Option<u64>,
    /// All of them
    #[arg(long)]
    all: bool,
    /// A mountpoint or any path below one
    #[arg(long, value_name = "VOLUME", default_value = ".")]
    volume: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Cancel {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        ask(&self.volume, TierAct::Cancel { job: self.job }, self.json).context("cancelling")
    }
}

fn ask(volume: &Path, act: TierAct, json: bool) -> anyhow::Result<u8> {
    let target = volume_dir::resolve(volume)?;
    let mut heard = Heard::<JobLine>::new();
    Client::connect(&target.volume)?.ask(Verb::Tier(act), &mut heard)?;
    let jobs = Jobs { jobs: std::mem::take(&mut heard.items) };
    drop(heard);
    if json {
        report::print_json(&jobs)?;
    } else if !jobs.jobs.is_empty() {
        report::print(&jobs.text())?;
    }
    Ok(EXIT_DONE)
}

/// Write what is remembered of how files were used, for `firn policy replay` and `firn model eval`
#[derive(Debug, Args)]
pub(super) struct Trace {
    /// A mountpoint or any path below one
    volume: PathBuf,
    /// The file to write, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Trace {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let sink = match &self.output {
            Some(path) => Sink::file(path)?,
            None => Sink::output()?,
        };
        trace::write(&self.volume, sink).context("writing the trace")?;
        Ok(EXIT_DONE)
    }
}
