//! Answers about placement: what lies where, plans, jobs and the classifier.

use std::io::BufWriter;
use std::ops::ControlFlow;

use anyhow::{Context, anyhow};
use firn_mount::core::Core;
use firn_mount::fuse::KernelCache;
use firn_mount::types::{Caller, FileKind, Ino, Pin, PinTier, XattrMode};
use firn_tiering::replay::{Pseudonyms, TraceWriter};

use super::{du, find, pins, standing};
use crate::control::placement::{MAX_FILES, ModelAct, PolicyAct, Staging, TierAct};
use crate::control::protocol::Files;
use crate::control::server::Outbox;
use crate::daemon::assemble::Parts;
use crate::daemon::jobs::job::{Job, Part, Work};
use crate::daemon::jobs::queue::{Entry, State};
use crate::daemon::jobs::{self, JobError};
use crate::daemon::{inspect, moves};
use crate::failure::Explain;
use crate::report::files::Moved;
use crate::report::policy::{self as report, PlanItem};
use crate::report::tier::JobLine;

/// A file that was pinned for a staging.
struct Pinned {
    ino: Ino,
    /// Its pin now, and before.
    value: Vec<u8>,
    before: Option<Vec<u8>>,
}

/// Answers for one mounted volume.
pub(in crate::daemon) struct PlacementAnswers<'a> {
    pub(in crate::daemon) parts: &'a Parts,
    pub(in crate::daemon) kernel: &'a KernelCache,
}

impl PlacementAnswers<'_> {
    /// About plans.
    pub(in crate::daemon) fn policy(
        &self,
        act: &PolicyAct,
        out: &mut Outbox,
    ) -> anyhow::Result<()> {
        match act {
            PolicyAct::Plan | PolicyAct::Run { dry_run: true } => self.plan(false, out),
            PolicyAct::Run { dry_run: false } => self.plan(true, out),
            PolicyAct::Explain { ino, name } => {
                let told = self.parts.placement.explain(self.parts, Ino(*ino), name)?;
                Ok(out.item(&told)?)
            }
        }
    }

    /// Sends a plan, and has it carried out when that is wanted.
    fn plan(&self, carries_out: bool, out: &mut Outbox) -> anyhow::Result<()> {
        let placement = &self.parts.placement;
        if self.parts.read_only && carries_out {
            return Err(anyhow!("the volume is mounted read-only")).hint("mount it writable");
        }
        let planned = placement.plan(self.parts, &|| out.is_gone())?;
        let job = if carries_out { placement.carry_out(&planned.plan).last } else { None };
        let held = &planned.held;
        for item in report::items(&planned.plan, &held.policy, &held.rules, planned.used_bytes) {
            match item {
                PlanItem::Summary(summary) => {
                    out.item(&PlanItem::Summary(report::PlanSummary { job, ..summary }))?;
                }
                item @ PlanItem::Move(_) => out.item(&item)?,
            }
        }
        Ok(())
    }

    /// About tiers.
    pub(in crate::daemon) fn tier(&self, act: TierAct, out: &mut Outbox) -> anyhow::Result<()> {
        match act {
            TierAct::Find(finding) => find::find(self.parts, &finding, out),
            TierAct::Du { files, depth } => du::du(self.parts, &files, depth, out),
            TierAct::Pins(files) => find::pins(self.parts, &files, out),
            TierAct::Stage(staging) => self.stage(&staging, out),
            TierAct::Absent { files } => Ok(out.item(&moves::absent(self.parts, &files)?)?),
            TierAct::Jobs => self.send_jobs(&self.parts.placement.jobs.list(), out),
            TierAct::Cancel { job } => {
                let dropped = self.parts.placement.jobs.cancel(job);
                if dropped.is_empty()
                    && let Some(job) = job
                {
                    return Err(anyhow!("job {job} does not wait"))
                        .hint("what runs is finished; `firn tier jobs` lists what waits");
                }
                self.send_jobs(&dropped, out)
            }
            TierAct::Trace => self.trace(out),
        }
    }

    fn send_jobs(&self, entries: &[Entry], out: &mut Outbox) -> anyhow::Result<()> {
        let now_s = self.parts.placement.now_s();
        entries.iter().try_for_each(|entry| Ok(out.item(&job_line(entry, now_s))?))
    }

    fn stage(&self, staging: &Staging, out: &mut Outbox) -> anyhow::Result<()> {
        if staging.files.len() > MAX_FILES {
            return Err(anyhow!("more than {MAX_FILES} files in one request"));
        }
        self.kernel.drain_all().context("writing back what the kernel holds")?;
        let mut pinned = Vec::new();
        let moved = self.pin_and_stage(staging, &mut pinned, out);
        if moved.is_err() {
            self.undo(&pinned);
        }
        Ok(out.item(&moved?)?)
    }

    fn pin_and_stage(
        &self,
        staging: &Staging,
        pinned: &mut Vec<Pinned>,
        out: &mut Outbox,
    ) -> anyhow::Result<Moved> {
        if let Some(secs) = staging.pin_for_s {
            let until = Some(self.parts.placement.now_s().saturating_add(secs));
            self.pin(&staging.files, Pin { tier: PinTier::Hot, until }, pinned)?;
        }
        match staging.wait {
            true => moves::stage(self.parts, &staging.files, out),
            false => self.queue(&staging.files),
        }
    }

    /// Pins files as their owner would by hand, and notes each in `pinned`.
    fn pin(&self, files: &[Files], pin: Pin, pinned: &mut Vec<Pinned>) -> anyhow::Result<()> {
        let volume = &self.parts.volume;
        files.iter().try_for_each(|files| {
            let (ino, value) = (Ino(files.ino), pin.to_string().into_bytes());
            let before = volume.getxattr(ino, pins::NAME).ok();
            volume
                .setxattr(&Caller::default(), ino, pins::NAME, &value, XattrMode::Set)
                .with_context(|| format!("pinning {}", files.name))?;
            pinned.push(Pinned { ino, value, before });
            Ok(())
        })
    }

    /// Puts back what was there before files were pinned for a staging that came to nothing, unless
    /// somebody has pinned them differently meanwhile. The last goes first: one may be named twice.
    fn undo(&self, pinned: &[Pinned]) {
        let (volume, caller) = (&self.parts.volume, Caller::default());
        for Pinned { ino, value, before } in pinned.iter().rev() {
            if volume.getxattr(*ino, pins::NAME).ok().as_ref() != Some(value) {
                continue;
            }
            let undone = match before {
                Some(before) => volume.setxattr(&caller, *ino, pins::NAME, before, XattrMode::Set),
                None => volume.removexattr(&caller, *ino, pins::NAME),
            };
            if let Err(error) = undone {
                tracing::warn!(%error, "{}: its pin stays", volume.path(*ino));
            }
        }
    }

    /// Queues what `files` name to be brought back; says how many files wait now.
    fn queue(&self, files: &[Files]) -> anyhow::Result<Moved> {
        moves::check_stage(self.parts)?;
        let placement = &self.parts.placement;
        let mut moved = Moved::default();
        let mut waiting: Vec<Part> = Vec::new();
        let push = |parts: Vec<Part>| -> anyhow::Result<()> {
            let name = placement.name_of(&parts);
            let job = Job::new(Work::Stage, parts, &name, "asked for", placement.now_s());
            match placement.jobs.push(job) {
                Ok(_) | Err(JobError::Refused(jobs::queue::Refused::Merged)) => Ok(()),
                Err(error) => Err(error).context("queueing"),
            }
        };
        for files in files {
            let (ino, name) = (Ino(files.ino), &files.name);
            inspect::walk(&self.parts.volume, ino, name, files.recursive, &mut |_, attr| {
                if attr.kind != FileKind::File {
                    return Ok(());
                }
                moved.files += 1;
                waiting.push(Part::whole(attr.ino.0));
                match waiting.len() >= jobs::job::MAX_FILES {
                    true => push(std::mem::take(&mut waiting)),
                    false => Ok(()),
                }
            })?;
        }
        if !waiting.is_empty() {
            push(waiting)?;
        }
        Ok(moved)
    }

    /// Writes what is logged of accesses into the stream that came along, without names.
    fn trace(&self, out: &mut Outbox) -> anyhow::Result<()> {
        let accesses = self.parts.placement.accesses().context("accesses are not logged")?;
        accesses.flush().context("writing the log of accesses")?;
        // The volume's own name as the key: its traces can be joined, and tell no numbers.
        let names = Pseudonyms::new(key_of(self.parts.config.uuid.as_bytes()));
        let mut writer = TraceWriter::new(BufWriter::new(out.take_passed()?))?;
        let mut failure = None;
        let read = accesses.read(0, |request| match writer.write(&names.hide(request)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        });
        let read = read.context("reading the log of accesses")?;
        if let Some(error) = failure {
            return Err(error).context("writing the trace");
        }
        writer.finish().context("writing the trace")?;
        for damaged in &read.damaged {
            out.warning(format!("left out of the trace: {damaged}"))?;
        }
        Ok(())
    }

    /// About the classifier.
    pub(in crate::daemon) fn model(&self, act: ModelAct, out: &mut Outbox) -> anyhow::Result<()> {
        let placement = &self.parts.placement;
        match act {
            ModelAct::Status => {}
            ModelAct::Train => placement.foresight.train().map_err(|why| anyhow!(why)).hint(
                "samples are labelled a horizon after they were taken; `firn model status` says how \
                 many there are",
            )?,
            ModelAct::Rollback if placement.foresight.rollback() => {}
            ModelAct::Rollback => return Err(anyhow!("there is no model to go back to")),
            ModelAct::Switch { on } => placement.foresight.switch(on, placement.now_ms()),
        }
        Ok(out.item(&standing::model_report(&placement.foresight.standing()))?)
    }
}

fn job_line(entry: &Entry, now_s: u64) -> JobLine {
    let Entry { job, state, bytes, .. } = entry;
    let name = match state {
        State::Queued => "waiting",
        other => other.name(),
    };
    let by = match job.work {
        Work::Stage => None,
        Work::Promote | Work::CopyAhead | Work::Demote => Some("policy".to_owned()),
    };
    JobLine {
        job: job.id,
        kind: job.work.name().to_owned(),
        state: name.to_owned(),
        what: job.name.clone(),
        by,
        done_bytes: bytes.0,
        total_bytes: bytes.1,
        age_s: now_s.saturating_sub(job.created),
        reason: Some(state.reason().unwrap_or(&job.why).to_owned()),
    }
}

/// A key that follows from a volume's name.
fn key_of(uuid: &[u8; 16]) -> [u8; 32] {
    let mut key = [0; 32];
    key[..16].copy_from_slice(uuid);
    key[16..].copy_from_slice(uuid);
    key
}
