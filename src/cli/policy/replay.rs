//! `firn policy replay`: a policy on what happened before, beside other ways to choose.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::daemon::replay::{self, Replaying};
use crate::failure::EXIT_DONE;
use crate::mounts;
use crate::policy::Policy;
use crate::report;
use crate::units::Size;

/// Try a policy on a trace, beside LRU, S3-FIFO and an offline optimum
///
/// Nothing is moved. A trace comes from `firn tier trace`. With --json, one object: trace, accesses,
/// files, capacity_bytes, currency, and rows with name, hit_pct, byte_hit_pct, requests, cold_bytes,
/// regretted_bytes and cost.
#[derive(Debug, Args)]
pub(super) struct Replay {
    /// The trace, as `firn tier trace` writes it
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,
    /// The policy; without one the defaults
    #[arg(value_name = "POLICY")]
    policy: Option<PathBuf>,
    /// Capacity of the hot tier; without it a tenth of the bytes in the trace
    #[arg(long, value_name = "SIZE")]
    hot_capacity: Option<Size>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Replay {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let policy = match &self.policy {
            Some(file) => super::load(file)?.1,
            None => Policy::default(),
        };
        let replaying = Replaying {
            trace: &self.trace,
            policy: &policy,
            capacity_bytes: self.hot_capacity.map(|size| size.0),
        };
        let found = replay::replay(&replaying)
            .with_context(|| format!("replaying {}", mounts::shown(&self.trace)))?;
        if self.json {
            report::print_json(&found)?;
        } else {
            report::print(&found.text())?;
        }
        Ok(EXIT_DONE)
    }
}
