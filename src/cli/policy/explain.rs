//! `firn policy explain`: what is to become of a file, and why.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::cli::target;
use crate::control::placement::PolicyAct;
use crate::control::protocol::Verb;
use crate::failure::EXIT_DONE;
use crate::report;
use crate::report::placement::Placement;

/// Say what is to become of a file, by which rule, and what it takes to have it back
///
/// With --json, one object: path, state, size_bytes, hot_bytes, cold_bytes, age_s, idle_s, heat,
/// class, parity, action, rule, why, blocked, pin (tier, source, from, until), prediction (p_reuse, verdict,
/// horizon_s, percentile, features with name, value and effect), recall (bytes, requests, seconds,
/// cost) and currency.
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// A file on a mounted volume
    path: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let found = target::find(&self.path).context("explaining")?;
        let what = format!("explaining {}", found.name);
        let act = PolicyAct::Explain { ino: found.ino, name: found.name };
        let placement: Placement = found.client.ask_one(Verb::Policy(act)).with_context(|| what)?;
        if self.json {
            report::print_json(&placement)?;
        } else {
            report::print(&placement.text())?;
        }
        Ok(EXIT_DONE)
    }
}
