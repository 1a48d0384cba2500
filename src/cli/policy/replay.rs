//! `firn policy replay`: a policy on what happened before, beside other ways to choose.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use firn_tiering::replay::Request;

use crate::cli::snapshot::pump::Sink;
use crate::cli::trace;
use crate::failure::EXIT_DONE;
use crate::mounts;
use crate::policy::{self, Policy, replay};
use crate::report;
use crate::units::Size;
use crate::volume_dir;

/// Try a policy on what happened before, beside LRU, S3-FIFO and an optimum that knows the future
///
/// Nothing is moved: files are numbers of a simulated volume that plans as a mounted one does. What
/// happened is what a mounted volume remembers, or a trace from `firn tier trace`, or from elsewhere.
/// A trace has no names, so that conditions on paths, extensions and groups fit nothing.
///
/// With --json, one object: trace, accesses, files, capacity_bytes, currency, unmatched (classes and
/// rules that ask for names), and rows with name, hit_pct, byte_hit_pct, requests, cold_bytes,
/// regretted_bytes (came back within the horizon) and cost.
#[derive(Debug, Args)]
pub(super) struct Replay {
    /// The trace, as `firn tier trace` writes it; - for standard input
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// The policy; without one that of the volume, or the defaults where there is a trace
    #[arg(value_name = "POLICY")]
    policy: Option<PathBuf>,
    /// The volume whose past is taken without a trace: its mountpoint or any path below that
    #[arg(long, value_name = "PATH", default_value = ".", conflicts_with = "trace")]
    volume: PathBuf,
    /// Capacity of the hot tier; without it a tenth of the bytes in the trace
    #[arg(long, value_name = "SIZE")]
    hot_capacity: Option<Size>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Replay {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let policy = match (&self.policy, &self.trace) {
            (Some(file), _) => super::load(file)?.1,
            (None, Some(_)) => Policy::default(),
            (None, None) => self.own_policy()?,
        };
        let (name, trace) = match &self.trace {
            Some(file) => (mounts::shown(file), trace::load(file)?),
            None => (mounts::shown(&self.volume), self.own_trace()?),
        };
        let capacity = self.hot_capacity.map(|size| size.0);
        let found = replay::replay(&name, &trace, &policy, capacity)?;
        if self.json {
            report::print_json(&found)?;
        } else {
            report::print(&found.text())?;
        }
        Ok(EXIT_DONE)
    }

    fn own_policy(&self) -> anyhow::Result<Policy> {
        let path = volume_dir::resolve(&self.volume)?.volume.root().join(policy::FILE_NAME);
        Ok(if path.exists() { super::load(&path)?.1 } else { Policy::default() })
    }

    fn own_trace(&self) -> anyhow::Result<Vec<Request>> {
        let file = tempfile::NamedTempFile::new().context("a temporary file")?;
        trace::write(&self.volume, Sink::file(file.path())?)?;
        trace::load(file.path())
    }
}
