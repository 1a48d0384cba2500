//! `firn policy plan` and `run`: what would move now, and moving it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use crate::cli::heard::Heard;
use crate::control::client::Client;
use crate::control::placement::PolicyAct;
use crate::control::protocol::Verb;
use crate::failure::EXIT_DONE;
use crate::report;
use crate::report::policy::{PlanItem, PlanReport};
use crate::volume_dir;

/// Show what would move now, why, and what it costs; nothing is moved
///
/// With --json, one object: moves lists path, ino, action (demote, promote or copy-ahead), bytes,
/// transfer_bytes, requests, cost and why; beside it are count, bytes, transfer_bytes, freed_bytes,
/// requests, cost, cost_per_month, currency, hot_used_bytes, high_bytes, low_bytes,
/// copy_ahead_bytes, unknown, and skipped with files and bytes for each reason not to move.
#[derive(Debug, Args)]
pub(super) struct Plan {
    /// A mountpoint or any path below one
    #[arg(default_value = ".")]
    volume: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Plan {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        ask(&self.volume, PolicyAct::Plan, self.json).context("planning")
    }
}

/// Plan, and carry the plan out now
///
/// The moves are queued and done in the background, behind what users wait for. With --json, the
/// object of `firn policy plan`, in which job names the work.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// A mountpoint or any path below one
    #[arg(default_value = ".")]
    volume: PathBuf,
    /// Move nothing; say what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Run {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let act = PolicyAct::Run { dry_run: self.dry_run };
        ask(&self.volume, act, self.json).context("running the policy")
    }
}

fn ask(volume: &Path, act: PolicyAct, json: bool) -> anyhow::Result<u8> {
    let target = volume_dir::resolve(volume)?;
    let mut heard = Heard::<PlanItem>::new();
    Client::connect(&target.volume)?.ask(Verb::Policy(act), &mut heard)?;
    let mut plan = PlanReport::default();
    for item in std::mem::take(&mut heard.items) {
        match item {
            PlanItem::Move(line) => plan.moves.push(line),
            PlanItem::Summary(summary) => plan.summary = summary,
        }
    }
    drop(heard);
    if json {
        report::print_json(&plan)?;
    } else {
        report::print(&plan.text())?;
    }
    Ok(EXIT_DONE)
}
