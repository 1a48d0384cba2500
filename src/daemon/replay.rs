//! A policy on a trace of what happened before, without a volume.

use std::path::Path;

use anyhow::anyhow;

use crate::failure::Explain;
use crate::policy::Policy;
use crate::report::policy::ReplayReport;

/// What is replayed.
#[derive(Debug)]
pub struct Replaying<'a> {
    /// The trace.
    pub trace: &'a Path,
    /// The policy.
    pub policy: &'a Policy,
    /// Capacity of the simulated hot tier in bytes; without one a tenth of the bytes in the trace.
    pub capacity_bytes: Option<u64>,
}

/// Replays a trace, and says how the policy and others did.
pub fn replay(_replaying: &Replaying<'_>) -> anyhow::Result<ReplayReport> {
    Err(anyhow!("replaying traces is not available")).hint("use a version of firn that has it")
}
