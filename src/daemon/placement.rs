//! Where files are to lie: who looks at how they are used, plans, and has the plans carried out.
//!
//! Here things meet that know nothing of each other: the policy ([`crate::policy`]), the use of
//! files ([`uses`]), pins, what reads of cold data bring back ([`firn_tiering::recall`]), and the
//! jobs that move. *Flow*: uses and pins are noted as they happen; one thread plans from time to time
//! and under pressure; plans become jobs; jobs look again before they act. The block store's own
//! order under pressure asks [`steward`]. *Crash*: uses are stored every few minutes, jobs and pins
//! at once; what is lost costs precision. *Failure*: a policy that cannot be read leaves the last
//! good one; whatever fails here is told in `status` and never stops a read or a write.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use firn_mount::namespace::Namespace;
use firn_mount::types::Ino;
use firn_tiering::Clock;
use firn_tiering::recall::{Promote, Recall};
use firn_tiering::replay::AccessLog;
use parking_lot::{Mutex, RwLock};

use super::assemble::Parts;
use super::jobs::job::{Job, JobId, Part, Work};
use super::jobs::{JobError, Jobs};
use super::schedule::Stop;
use crate::policy::rules::{Action, Reason};
use crate::report::names;

mod answers;
mod candidates;
mod du;
mod find;
mod foresight;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod held;
mod mark;
mod observer;
mod parity;
mod pins;
mod processes;
mod repeats;
mod room;
mod run;
mod standing;
mod steward;
mod tell;
#[cfg(test)]
mod tests;
mod uses;

pub(super) use answers::PlacementAnswers;
use foresight::{Foresight, Opening};
use held::Held;
use mark::Mark;
pub(super) use observer::Watcher;
use pins::Pins;
use run::State;
pub(super) use steward::Answering;
use uses::Uses;

/// Most files that reads want back and that are not queued yet.
const MOST_WANTED: usize = 4096;

/// What decides where the files of one volume lie.
pub(super) struct Placement {
    clock: Arc<dyn Clock>,
    names: Arc<Namespace>,
    mark: Mark,
    /// Work on files.
    pub(super) jobs: Jobs,
    pins: Pins,
    uses: Uses,
    foresight: Foresight,
    recall: Recall,
    held: RwLock<Arc<Held>>,
    /// What reads want back, until the thread comes by.
    wanted: Mutex<Vec<Part>>,
    state: Mutex<State>,
    stop: Stop,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// How large things are, and how they are laid out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    /// Bytes for what is remembered of uses.
    pub(super) use_bytes: u64,
    /// Bytes of the hot tier, which the guardrail simulates.
    pub(super) hot_capacity_bytes: u64,
    /// The cold tier is spread over several stores.
    pub(super) is_spread: bool,
}

impl std::fmt::Debug for Placement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Placement").field("jobs", &self.jobs).finish_non_exhaustive()
    }
}

impl Placement {
    /// What the files in the volume directory `dir` say.
    pub(super) fn open(
        dir: &Path,
        names: &Arc<Namespace>,
        clock: &Arc<dyn Clock>,
        memory: Memory,
        read_only: bool,
    ) -> Self {
        let mark = Mark::of(dir);
        let jobs = Jobs::open(dir, Arc::clone(clock), read_only);
        let held = Held::load(dir, memory.is_spread);
        let recall = Recall::new(&held.recall(), Arc::clone(clock));
        let uses = Uses::load(dir, clock, memory.use_bytes, read_only, &held.policy.recall);
        let opening =
            Opening { now_ms: uses::now_ms(&**clock), ended_in_order: mark.ended_in_order() };
        let capacity_bytes = memory.hot_capacity_bytes;
        let foresight = Foresight::load(dir, held.horizon_ms(), capacity_bytes, opening, read_only);
        Self {
            clock: Arc::clone(clock),
            names: Arc::clone(names),
            pins: Pins::load(dir, opening.ended_in_order),
            mark,
            jobs,
            uses,
            foresight,
            recall,
            held: RwLock::new(Arc::new(held)),
            wanted: Mutex::default(),
            state: Mutex::default(),
            stop: Stop::default(),
            thread: Mutex::default(),
        }
    }

    /// Seconds after 1970; a clock before that counts as 1970.
    fn now_s(&self) -> u64 {
        self.now_ms() / 1000
    }

    /// Milliseconds after 1970.
    fn now_ms(&self) -> u64 {
        uses::now_ms(&*self.clock)
    }

    /// The policy that holds.
    fn held(&self) -> Arc<Held> {
        Arc::clone(&self.held.read())
    }

    /// How storage is looked over, by the policy that holds.
    pub(super) fn scrub_settings(&self) -> crate::policy::settings::Scrub {
        self.held().policy.scrub.clone()
    }

    /// Whether a file may still leave hot, for a reason of `planned` seconds after 1970: no pin and no
    /// rule keeps it there, and nobody has used it since.
    pub(super) fn may_demote(&self, parts: &Parts, ino: Ino, planned: u64) -> bool {
        let is_kept = matches!(self.told(Some(parts), ino), Some(Action::PinHot | Action::Leave));
        let is_used = self.uses.last_ms(ino).is_some_and(|last| last / 1000 > planned);
        !is_kept && !is_used
    }

    /// Whether a rule keeps a file in hot that nobody has pinned, some of which lies there.
    fn is_kept_by_rule(&self, ino: Ino) -> bool {
        self.told(None, ino) == Some(Action::PinHot)
    }

    /// Whether a file may come back because it is read: no pin and no rule says otherwise.
    pub(super) fn may_promote(&self, parts: &Parts, ino: Ino) -> bool {
        let told = self.told(Some(parts), ino);
        !matches!(told, Some(Action::PinCold | Action::Demote | Action::Leave))
    }

    /// Whether it is clear, wherever the file lies, that a pin or a rule leaves it where it is.
    fn stays_in_cold(&self, ino: Ino) -> bool {
        !self.held().rules.asks_for_state()
            && matches!(self.told(None, ino), Some(Action::PinCold | Action::Leave))
    }

    /// What a pin or a rule says of a file; `None` where neither does. Without `parts` it is taken for
    /// one that lies in hot. What vanishes meanwhile is told nothing.
    fn told(&self, parts: Option<&Parts>, ino: Ino) -> Option<Action> {
        let held = self.held();
        if self.pins.is_empty() && !held.rules.has_rules() {
            return None;
        }
        let file = match parts.filter(|_| held.rules.asks_for_state()) {
            Some(parts) => self.candidate_at(parts, ino).ok()?,
            None => self.bare(&self.names.inode(ino).ok()?.attr()).ok()?,
        };
        let decision = held.rules.decide(&file.subject());
        matches!(decision.reason, Reason::Pin | Reason::Rule(_)).then_some(decision.action)
    }

    /// The log of accesses, where there is one.
    fn accesses(&self) -> Option<&AccessLog> {
        self.uses.accesses()
    }

    /// Notes what a read of cold data wants back.
    fn want_back(&self, ino: Ino, what: Promote) {
        let range = match what {
            Promote::Whole => None,
            Promote::Range(range) => Some((range.start, range.end.saturating_sub(range.start))),
        };
        let mut wanted = self.wanted.lock();
        if wanted.len() < MOST_WANTED {
            wanted.push(Part { ino: ino.0, range });
        }
    }

    /// Makes jobs of what reads want back and hot can hold.
    fn queue_wanted(&self, parts: &Parts) {
        let mut wanted = std::mem::take(&mut *self.wanted.lock());
        wanted.retain(|part| self.may_promote(parts, Ino(part.ino)) && self.can_hold(parts, part));
        for parts in super::jobs::split(wanted) {
            let name = self.name_of(&parts);
            let job = Job::new(Work::Promote, parts, &name, "read from cold again", self.now_s());
            // What finds no room is read from cold once more before it is wanted again.
            let _ = self.queue(job);
        }
    }

    /// Queues what nobody waits for.
    fn queue(&self, job: Job) -> Result<JobId, JobError> {
        self.jobs.push(job).inspect_err(|error| {
            if let JobError::Journal(_) = error {
                tracing::warn!(error = error as &dyn std::error::Error, "queueing a job");
            }
        })
    }

    /// What people know some parts by.
    fn name_of(&self, parts: &[Part]) -> String {
        let first = parts.first().map(|part| self.names.path(Ino(part.ino))).unwrap_or_default();
        let first = names::text(&first);
        match parts.len() {
            0 | 1 => first,
            many => format!("{first} and {} more", many - 1),
        }
    }
}

/// Between two looks around.
const TICK: Duration = Duration::from_secs(1);

/// Puts bytes in the place of a file: whenever the machine stops, the old ones or the new ones are
/// there.
fn replace(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let aside = file.with_extension("new");
    let mut new = std::fs::File::create(&aside)?;
    new.write_all(bytes)?;
    new.sync_all()?;
    std::fs::rename(aside, file)
}
