//! Answers about placement: what lies where, plans, jobs and the classifier.

use anyhow::{Context, anyhow};
use firn_mount::fuse::KernelCache;

use super::{du, find};
use crate::daemon::assemble::Parts;
use crate::daemon::moves;
use crate::control::placement::{MAX_FILES, ModelAct, PolicyAct, Staging, TierAct};
use crate::control::server::Outbox;
use crate::failure::Explain;
use crate::report::files::Moved;

/// Answers for one mounted volume.
pub(in crate::daemon) struct PlacementAnswers<'a> {
    pub(in crate::daemon) parts: &'a Parts,
    pub(in crate::daemon) kernel: &'a KernelCache,
}

impl PlacementAnswers<'_> {
    /// About plans.
    pub(in crate::daemon) fn policy(&self, act: &PolicyAct, _out: &mut Outbox) -> anyhow::Result<()> {
        match act {
            PolicyAct::Plan | PolicyAct::Run { .. } | PolicyAct::Explain { .. } => {
                not_available("placement by policy")
            }
        }
    }

    /// About tiers.
    pub(in crate::daemon) fn tier(&self, act: TierAct, out: &mut Outbox) -> anyhow::Result<()> {
        match act {
            TierAct::Find(finding) => find::find(self.parts, &finding, out),
            TierAct::Du { files, depth } => du::du(self.parts, &files, depth, out),
            TierAct::Pins(files) => find::pins(self.parts, &files, out),
            TierAct::Stage(staging) => self.stage(&staging, out),
            TierAct::Jobs | TierAct::Cancel { .. } => not_available("the queue of jobs"),
            TierAct::Trace => not_available("the trace of accesses"),
        }
    }

    /// About the classifier.
    pub(in crate::daemon) fn model(&self, act: ModelAct, _out: &mut Outbox) -> anyhow::Result<()> {
        match act {
            ModelAct::Status | ModelAct::Train | ModelAct::Rollback | ModelAct::Switch { .. } => {
                not_available("the classifier")
            }
        }
    }

    fn stage(&self, staging: &Staging, out: &mut Outbox) -> anyhow::Result<()> {
        if staging.files.len() > MAX_FILES {
            return Err(anyhow!("more than {MAX_FILES} files in one request"));
        }
        if staging.pin_for_s.is_some() {
            return not_available("pinning what is staged");
        }
        self.kernel.drain_all().context("writing back what the kernel holds")?;
        let moved: Moved = moves::stage(self.parts, &staging.files, out)?;
        Ok(out.item(&moved)?)
    }
}

fn not_available(what: &str) -> anyhow::Result<()> {
    Err(anyhow!("{what} is not available on this volume"))
        .hint("mount the volume with a version of firn that has it")
}
