//! Planning, from time to time and under pressure, and making jobs of plans.
//!
//! A run looks at every file, which takes a while: it goes on beside everything else, gives way
//! between two files when the mount is to end, and is left out where nothing could come of it.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use firn_mount::types::Ino;
use firn_tiering::store::{Usage, Watermarks};

use super::candidates::Candidates;
use super::held::Held;
use super::repeats::Repeats;
use super::{Placement, TICK};
use crate::daemon::assemble::Parts;
use crate::daemon::jobs::JobError;
use crate::daemon::jobs::job::{Job, JobId, MAX_FILES, Part, Work};
use crate::daemon::jobs::queue::Refused;
use crate::failure;
use crate::policy::planner::{self, Move, MoveAction, Plan, TierUsage};
use crate::policy::settings::Marks;
use crate::report::escape::escaped;
use crate::report::names;

/// Shortest pause between two runs under pressure.
const PRESSED_PAUSE: Duration = Duration::from_secs(15);

/// A run that took so long is followed by so many times as long without one.
const BUSY_SHARE: u32 = 10;

/// How long the end of a mount waits for a move that is under way: it may hang with the cold tier.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// Between two times that uses are stored.
const STORE_EVERY: Duration = Duration::from_secs(300);

/// What is remembered between runs.
#[derive(Debug, Default)]
pub(super) struct State {
    last: Option<Instant>,
    stored: Option<Instant>,
    repeats: Repeats,
    /// What `status` says about the last run.
    pub(super) report: Option<LastRun>,
    /// What of the policy that holds could not be followed, and why.
    pub(super) unapplied: Vec<String>,
}

/// The last run, for `status`.
#[derive(Clone, Debug)]
pub(super) struct LastRun {
    /// Seconds after 1970.
    pub(super) at_s: u64,
    pub(super) moves: u64,
    pub(super) bytes: u64,
    pub(super) failure: Option<String>,
}

/// A plan with what it follows from.
pub(in crate::daemon) struct Planned {
    pub(in crate::daemon) plan: Plan,
    pub(super) held: Arc<Held>,
    pub(super) used_bytes: u64,
}

/// What of a plan waits to be done.
pub(in crate::daemon) struct Queued<'a> {
    /// The number of the last job.
    pub(in crate::daemon) last: Option<JobId>,
    moves: Vec<&'a Move>,
}

impl Placement {
    /// Begins to plan from time to time, and to work.
    pub(in crate::daemon) fn start(self: &Arc<Self>, parts: &Arc<Parts>) {
        self.mark.set();
        self.apply(parts);
        self.jobs.start(parts);
        let own = Arc::clone(self);
        // The thread must not keep the parts open.
        let parts = Arc::downgrade(parts);
        let thread = std::thread::Builder::new()
            .name("firn-placement".into())
            .spawn(move || own.run(&parts));
        match thread {
            Ok(thread) => *self.thread.lock() = Some(thread),
            Err(error) => tracing::error!(%error, "no thread for placement"),
        }
    }

    /// Ends planning and working; what is under way is waited for. Uses are stored.
    pub(in crate::daemon) fn stop(&self) {
        self.stop.stop();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the thread for placement panicked");
        }
        let knows_pins = self.pins.store();
        self.jobs.stop(STOP_PATIENCE);
        self.uses.store();
        self.foresight.store();
        if knows_pins && !self.pins.is_lost() {
            self.mark.clear();
        }
    }

    fn run(&self, parts: &Weak<Parts>) {
        while self.stop.sleep(TICK) {
            let Some(parts) = parts.upgrade() else { return };
            self.tick(&parts);
        }
    }

    pub(super) fn tick(&self, parts: &Parts) {
        if let Some(held) = self.held().renewed() {
            *self.held.write() = Arc::new(held);
            self.apply(parts);
        }
        self.uses.heed_clock();
        self.queue_wanted(parts);
        self.pins.tell_news(|| parts.store.tempers_changed());
        self.pins.store();
        self.uses.flush();
        self.foresee();
        let is_away = parts.cold.as_ref().is_some_and(|cold| cold.throttle().is_down());
        self.jobs.look_at_cold(is_away);
        let now = self.clock.instant();
        let mut state = self.state.lock();
        let elapsed =
            |since: Option<Instant>| since.map(|since| now.saturating_duration_since(since));
        if elapsed(state.stored).is_none_or(|passed| passed >= STORE_EVERY) {
            state.stored = Some(now);
            self.uses.store();
            self.foresight.store();
        }
        let held = self.held();
        let is_pressed = is_above_high(&held, &parts.store.usage());
        let pause = if is_pressed { PRESSED_PAUSE } else { held.policy.defaults.interval.0 };
        // The first run waits as well: whoever mounts wants something else first.
        let last = *state.last.get_or_insert(now);
        if now.saturating_duration_since(last) < pause {
            return;
        }
        state.last = Some(now);
        drop(state);
        if parts.store.usage().has_cold
            && (is_pressed
                || !held.policy.rules.is_empty()
                || !self.pins.is_empty()
                || self.pins.is_lost())
        {
            self.run_once(parts);
            let took = self.clock.instant().saturating_duration_since(now);
            // A volume of very many files is not walked over all the time.
            self.state.lock().last = Some(now + took * BUSY_SHARE);
        }
    }

    /// Lets the classifier learn from what goes on.
    fn foresee(&self) {
        let mut known = |count| self.uses.some(count);
        self.foresight.tick(self.now_ms(), &mut known, &|known| {
            let ino = Ino(known.place.item);
            let inode = self.names.inode(ino).ok()?;
            Some(self.uses.facts(&inode, &self.names.path(ino)))
        });
    }

    /// Has everything that follows a policy follow the one that holds now.
    pub(in crate::daemon) fn apply(&self, parts: &Parts) {
        let held = self.held();
        self.recall.set(&held.recall());
        self.uses.set(&held.policy.recall);
        self.foresight.set_horizon(held.horizon_ms(), parts.config.hot_capacity.0);
        let marks = backstop(&held.marks(parts.config.hot_capacity.0));
        let mut failures = Vec::new();
        if let Err(error) = parts.store.set_watermarks(marks) {
            failures.push(format!("the watermarks of the policy do not hold: {error}"));
        }
        if let Some(cold) = &parts.cold
            && let Err(error) = cold.moderate(&held.policy)
        {
            let why = failure::line(&error);
            failures.push(format!("the throttle of the policy does not hold: {why}"));
        }
        failures.iter().for_each(|failure| tracing::error!("{failure}"));
        self.state.lock().unapplied = failures;
    }

    fn run_once(&self, parts: &Parts) {
        let stops = || self.stop.is_stopping();
        let outcome = self.plan(parts, &stops).map(|mut planned| {
            let now = self.clock.instant();
            self.state.lock().repeats.drop_from(&mut planned.plan.moves, now);
            let queued = self.carry_out(&planned.plan).moves;
            let bytes = queued.iter().map(|one| one.bytes).sum();
            let moves = queued.len() as u64;
            self.state.lock().repeats.note(queued, now);
            (moves, bytes)
        });
        if stops() {
            return;
        }
        let failure = outcome.as_ref().err().map(failure::line);
        if let Some(failure) = &failure {
            tracing::warn!(failure, "planning failed");
        }
        let (moves, bytes) = outcome.unwrap_or_default();
        let report = LastRun { at_s: self.now_s(), moves, bytes, failure };
        self.state.lock().report = Some(report);
    }

    /// What would move now. Nothing is changed.
    pub(in crate::daemon) fn plan(
        &self,
        parts: &Parts,
        stops: &dyn Fn() -> bool,
    ) -> anyhow::Result<Planned> {
        let held = self.held();
        let usage = parts.store.usage();
        let tiers = tier_usage(parts, &usage);
        let candidates = Candidates::new(parts, self, stops);
        let plan = planner::plan(candidates, &tiers, &held.policy, &held.rules);
        if stops() {
            return Err(anyhow!("the volume is being closed"));
        }
        self.pins.found_again();
        Ok(Planned { plan, held, used_bytes: tiers.hot_used_bytes })
    }

    /// Makes jobs of a plan, in its order, as far as there is room for them.
    pub(in crate::daemon) fn carry_out<'a>(&self, plan: &'a Plan) -> Queued<'a> {
        let mut queued = Queued { last: None, moves: Vec::new() };
        for works in [MoveAction::Demote, MoveAction::Promote, MoveAction::CopyAhead] {
            let moves: Vec<&Move> = plan.moves.iter().filter(|one| one.action == works).collect();
            for one in &moves {
                let path = escaped(&names::text(&one.path));
                tracing::info!(%path, action = one.action.name(), bytes = one.bytes, why = one.why, "planned");
            }
            let why = moves.first().map_or_else(String::new, |one| one.why.clone());
            for moves in moves.chunks(MAX_FILES) {
                let parts: Vec<Part> = moves.iter().map(|one| Part::whole(one.ino)).collect();
                let name = self.name_of(&parts);
                let job = Job::new(work_of(works), parts, &name, &why, self.now_s());
                match self.queue(job) {
                    Ok(id) => queued.last = Some(id),
                    Err(JobError::Refused(Refused::Merged)) => {}
                    Err(_) => continue,
                }
                queued.moves.extend(moves);
            }
        }
        queued
    }
}

fn work_of(action: MoveAction) -> Work {
    match action {
        MoveAction::CopyAhead => Work::CopyAhead,
        MoveAction::Demote => Work::Demote,
        MoveAction::Promote => Work::Promote,
    }
}

/// Marks of the block store, which drops whole segments by their heat alone. It begins halfway from the
/// high mark of the policy to what is kept for writers, and ends at the high mark, so that the planner,
/// who looks at files, has its turn first wherever the tier does not fill up faster than that.
fn backstop(marks: &Marks) -> Watermarks {
    let Marks { capacity, high, low, copy_ahead, reserve } = *marks;
    let late = high + (capacity - reserve).saturating_sub(high) / 2;
    let until = if late > high { high } else { low };
    Watermarks { high: late, low: until, copy_ahead, write_reserve: reserve }
}

fn is_above_high(held: &Held, usage: &Usage) -> bool {
    let capacity = usage.hot_capacity.unwrap_or(u64::MAX);
    usage.has_cold && usage.hot_bytes.saturating_add(usage.other_bytes) > held.marks(capacity).high
}

fn tier_usage(parts: &Parts, usage: &Usage) -> TierUsage {
    let cold_free = match (usage.has_cold, usage.cold_capacity) {
        (false, _) => Some(0),
        (true, capacity) => capacity.map(|capacity| capacity.saturating_sub(usage.cold_bytes)),
    };
    TierUsage {
        hot_used_bytes: usage.hot_bytes.saturating_add(usage.other_bytes),
        hot_capacity_bytes: usage.hot_capacity.unwrap_or(parts.config.hot_capacity.0),
        // The block store copies by itself, unless it was told not to.
        hot_only_bytes: if parts.config.copy_ahead { 0 } else { usage.hot_only_bytes },
        cold_free_bytes: cold_free,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::settings::HotTier;

    #[test]
    fn the_planner_has_its_turn_before_the_block_store() {
        let marks = HotTier::default().marks(1000);
        let late = backstop(&marks);
        assert_eq!((late.high, late.low, late.write_reserve), (925, 900, 50));
        assert!(late.validate(1000).is_ok());
        // No room in between: both at once, as the policy says.
        let tight = Marks { high: 950, ..marks };
        assert_eq!((backstop(&tight).high, backstop(&tight).low), (950, 800));
        let nothing = HotTier::default().marks(0);
        assert!(backstop(&nothing).validate(0).is_ok());
    }
}
