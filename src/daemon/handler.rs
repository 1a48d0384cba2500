//! Answers the control socket of a mounted volume.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use firn_mount::fuse::{CacheMode, KernelCache, MountedSession};
use firn_mount::types::Ino;

use super::assemble::Parts;
use super::metrics::Bound;
use super::moves::{self, Direction};
use super::phase::{Phase, State};
use super::placement::PlacementAnswers;
use super::state::{self, Fixed};
use super::tree::TreeAnswers;
use super::{Job, inspect};
use crate::control::protocol::{Files, Progress, ScrubAct, Verb};
use crate::control::server::{Handler, Outbox};
use crate::failure::Explain;
use crate::mounts;
use crate::report::status::Status;

/// How often someone who follows an unmount hears that it still goes on.
const REPEAT: Duration = Duration::from_secs(5);

/// Answers for one mounted volume.
#[derive(Debug)]
pub(super) struct Answers {
    parts: Arc<Parts>,
    kernel: KernelCache,
    phase: Phase,
    fixed: Fixed,
}

impl Answers {
    pub(super) fn new(
        job: &Job,
        parts: &Arc<Parts>,
        session: &MountedSession,
        phase: Phase,
        metrics: &Result<Option<Bound>, String>,
    ) -> Self {
        let cache = match job.options.cache {
            CacheMode::Writeback => "writeback",
            CacheMode::Passthrough => "passthrough",
        };
        let fixed = Fixed {
            mountpoint: mounts::shown(session.mountpoint()),
            cache: cache.to_owned(),
            since: parts.clock.instant(),
            metrics: metrics.iter().flatten().next().map(|bound| bound.address().to_owned()),
            metrics_failure: metrics.as_ref().err().cloned(),
        };
        Self { parts: Arc::clone(parts), kernel: session.kernel_cache(), phase, fixed }
    }

    /// The state of the volume.
    pub(super) fn status(&self) -> Status {
        state::status(&self.parts, &self.kernel, &self.fixed)
    }

    /// Everything acknowledged so far reaches the disk: the kernel's dirty pages first.
    fn sync(&self) -> anyhow::Result<()> {
        self.kernel.drain_all().context("writing back what the kernel holds")?;
        self.parts.volume.sync().context("writing back")
    }

    fn tree(&self) -> TreeAnswers<'_> {
        let Self { parts, kernel, fixed, .. } = self;
        TreeAnswers::mounted(parts, kernel, &fixed.mountpoint)
    }

    fn placement(&self) -> PlacementAnswers<'_> {
        PlacementAnswers { parts: &self.parts, kernel: &self.kernel }
    }

    fn scrub(&self, act: ScrubAct, out: &mut Outbox) -> anyhow::Result<()> {
        let parts = &self.parts;
        if parts.read_only && !matches!(act, ScrubAct::Status) {
            return Err(anyhow!(
                "the volume is mounted read-only, and what is damaged is repaired"
            ))
            .hint("mount it for writing, or unmount it and use `firn check --data`");
        }
        match act {
            ScrubAct::Start { cold_data, afresh } => {
                let now_s = super::automatic::secs(parts.clock.now());
                if parts.scrub.begin(cold_data, afresh, now_s) {
                    out.warning("it is running already; --afresh begins anew".to_owned())?;
                }
            }
            ScrubAct::Stop => parts.scrub.halt(),
            ScrubAct::Status => {}
        }
        Ok(out.item(&parts.scrub.report(&parts.store))?)
    }

    fn explain(&self, ino: Ino, out: &mut Outbox) -> anyhow::Result<()> {
        out.item(&inspect::facts(&self.parts.volume, ino)?)?;
        let parts = &self.parts;
        inspect::for_each_piece(&parts.namespace, ino, &mut |offset, piece| {
            Ok(out.item(&inspect::run(&parts.store, offset, piece))?)
        })
    }

    fn list(&self, files: &Files, out: &mut Outbox) -> anyhow::Result<()> {
        let volume = &self.parts.volume;
        inspect::walk(volume, Ino(files.ino), &files.name, files.recursive, &mut |path, attr| {
            Ok(out.item(&inspect::line(volume, path, attr))?)
        })
    }

    fn move_files(
        &self,
        files: &Files,
        direction: Direction,
        out: &mut Outbox,
    ) -> anyhow::Result<()> {
        self.kernel.drain_all().context("writing back what the kernel holds")?;
        let moved = moves::run(&self.parts, files, direction, out)?;
        Ok(out.item(&moved)?)
    }

    /// Tells how the end of the mount goes until it is over.
    fn follow_unmount(&self, out: &mut Outbox) -> anyhow::Result<()> {
        let _watching = self.phase.watch();
        let mut seen = State::default();
        let mut warned = 0;
        let mut state = self.phase.state();
        loop {
            for warning in &state.warnings[warned..] {
                out.warning(warning.clone())?;
            }
            warned = state.warnings.len();
            if state.finished {
                let result = state.failure.map_or(Ok(()), |why| Err(anyhow::Error::msg(why)));
                // The process may end as soon as nobody watches any more.
                out.close(&result)?;
                return result;
            }
            // Also the first word, before anything has begun, and a sign of life later.
            out.progress(Progress { ..state.progress.clone() })?;
            seen.clone_from(&state);
            state = self.phase.wait(&seen, REPEAT);
        }
    }
}

impl Handler for Answers {
    fn handle(&self, verb: Verb, out: &mut Outbox) -> anyhow::Result<()> {
        match verb {
            Verb::Status => Ok(out.item(&self.status())?),
            Verb::Sync => self.sync(),
            Verb::WatchUmount => self.follow_unmount(out),
            Verb::Explain { ino } => self.explain(Ino(ino), out),
            Verb::List(files) => self.list(&files, out),
            Verb::Archive(files) => self.move_files(&files, Direction::Archive, out),
            Verb::Recompress(files) => self.move_files(&files, Direction::Recompress, out),
            Verb::Release(files) => self.move_files(&files, Direction::Release, out),
            Verb::Stage(files) => self.move_files(&files, Direction::Stage, out),
            Verb::Policy(act) => self.placement().policy(&act, out),
            Verb::Tier(act) => self.placement().tier(act, out),
            Verb::Model(act) => self.placement().model(act, out),
            Verb::Scrub(act) => self.scrub(act, out),
            Verb::Dataset(act) => self.tree().dataset(act, out),
            Verb::Snapshot(act) => self.tree().snapshot(act, out),
        }
    }
}
