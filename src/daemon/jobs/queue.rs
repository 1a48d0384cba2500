//! Which job is next. Pure: the time is passed in, nothing is stored or run here.
//!
//! *Urgency*: by [`Work`], then by age. *Merging*: a part that waits already is not queued again for
//! the same work. *Failure*: a job that failed is parked for a pause that doubles up to
//! [`LONGEST_PAUSE`], is shown with its reason meanwhile, and given up after [`MOST_TRIES`]; a job of
//! the policy, which will be planned again, sooner. *Bounds*: [`MOST_JOBS`] wait, of [`MOST_PARTS`] in
//! all; more are refused.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::job::{Job, JobId, Part, Work};

/// Most jobs that wait.
pub const MOST_JOBS: usize = 4096;

/// Most files or parts of files of all jobs that wait: some 100 MB.
pub const MOST_PARTS: usize = 1 << 20;

/// How many of these may be there before what the policy wants is refused.
pub const MOST_PARTS_OF_POLICY: usize = MOST_PARTS / 4;

/// Ended jobs that are remembered to be shown.
const MOST_ENDED: usize = 64;

/// Pause after the first failure.
const FIRST_PAUSE: Duration = Duration::from_secs(10);

/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// Failures in a row after which a job is given up: a good day of trying, or for what the policy
/// plans again anyway about an hour.
const MOST_TRIES: u32 = 150;
const MOST_TRIES_OF_POLICY: u32 = 10;

/// Where a job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for its turn.
    Queued,
    /// It is being done.
    Running,
    /// It failed and waits to be tried again.
    Parked {
        /// Why.
        reason: String,
        /// When.
        until: Instant,
    },
    /// All of it is done.
    Done,
    /// Somebody dropped it.
    Cancelled,
    /// It failed too often.
    Failed {
        /// Why, the last time.
        reason: String,
    },
}

impl State {
    /// What people call it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Parked { .. } => "parked",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Failed { .. } => "failed",
        }
    }

    /// Why it waits or failed.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Parked { reason, .. } | Self::Failed { reason } => Some(reason),
            _ => None,
        }
    }
}

/// A job and where it stands.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The job; once it has ended without its files.
    pub job: Job,
    /// Where it stands.
    pub state: State,
    /// Bytes done and in all, as far as is known.
    pub bytes: (u64, u64),
    tries: u32,
}

impl Entry {
    /// As it is shown: without its files, which may be many.
    pub fn shown(&self) -> Self {
        let Job { id, work, name, why, created, .. } = &self.job;
        let job = Job { id: *id, ..Job::new(*work, Vec::new(), name, why, *created) };
        Self { job, state: self.state.clone(), bytes: self.bytes, tries: self.tries }
    }
}

/// Why a job was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// All that it asks for waits already.
    #[error("it waits already")]
    Merged,
    /// Too many wait.
    #[error("{MOST_JOBS} jobs, or jobs of some {MOST_PARTS} files, wait already")]
    Full,
}

/// All jobs.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: BTreeMap<(Work, JobId), Entry>,
    parts: HashSet<(Work, Part)>,
    /// Parts that wait to be brought back, by file.
    coming: HashMap<u64, u32>,
    ended: VecDeque<Entry>,
    last: JobId,
}

impl Queue {
    /// Takes a job in and gives it a number. Parts that wait already are left out.
    pub fn push(&mut self, mut job: Job) -> Result<Job, Refused> {
        let mut seen = HashSet::new();
        job.parts.retain(|part| !self.waits(job.work, *part) && seen.insert(*part));
        if job.parts.is_empty() {
            return Err(Refused::Merged);
        }
        let most = if job.work == Work::Stage { MOST_PARTS } else { MOST_PARTS_OF_POLICY };
        if self.waiting.len() >= MOST_JOBS || self.parts.len() + job.parts.len() > most {
            return Err(Refused::Full);
        }
        self.last += 1;
        job.id = self.last;
        self.restore(job.clone());
        Ok(job)
    }

    /// Whether a part waits for some work, as itself or with all of its file.
    fn waits(&self, work: Work, part: Part) -> bool {
        let alike = match work.recalls() {
            true => [Work::Stage, Work::Promote],
            false => [work, work],
        };
        // Who asks by hand goes before what the policy wants, so it is queued all the same.
        let alike = alike.into_iter().filter(|other| *other <= work);
        alike
            .flat_map(|work| [(work, part), (work, Part::whole(part.ino))])
            .any(|key| self.parts.contains(&key))
    }

    /// Takes back a job that had a number.
    pub fn restore(&mut self, job: Job) {
        self.last = self.last.max(job.id);
        for part in &job.parts {
            self.parts.insert((job.work, *part));
            if job.work.recalls() {
                *self.coming.entry(part.ino).or_insert(0) += 1;
            }
        }
        let key = (job.work, job.id);
        self.waiting.insert(key, Entry { job, state: State::Queued, bytes: (0, 0), tries: 0 });
    }

    /// The highest number that was given.
    pub fn last(&self) -> JobId {
        self.last
    }

    /// No number up to `last` is given again.
    pub fn skip_to(&mut self, last: JobId) {
        self.last = self.last.max(last);
    }

    /// The next job among those that `wanted` picks, which is running from now on.
    pub fn next(&mut self, now: Instant, wanted: impl Fn(Work) -> bool) -> Option<Job> {
        let is_due = |entry: &Entry| match &entry.state {
            State::Queued => true,
            State::Parked { until, .. } => *until <= now,
            _ => false,
        };
        let next = self.waiting.values_mut().find(|e| wanted(e.job.work) && is_due(e))?;
        next.state = State::Running;
        next.bytes = (0, 0);
        Some(next.job.clone())
    }

    fn of(&mut self, id: JobId) -> Option<&mut Entry> {
        self.waiting.values_mut().find(|entry| entry.job.id == id)
    }

    /// Notes how far a running job is.
    pub fn progress(&mut self, id: JobId, done: u64, total: u64) {
        if let Some(entry) = self.of(id) {
            entry.bytes = (done, total);
        }
    }

    /// A running job is done.
    pub fn done(&mut self, id: JobId) {
        self.end(id, State::Done);
    }

    /// A running job failed; `false` when it is not tried again.
    pub fn failed(&mut self, id: JobId, reason: &str, now: Instant) -> bool {
        let Some(entry) = self.of(id) else { return false };
        entry.tries += 1;
        let most = match entry.job.work {
            Work::Stage => MOST_TRIES,
            Work::Promote | Work::CopyAhead | Work::Demote => MOST_TRIES_OF_POLICY,
        };
        if entry.tries >= most {
            self.end(id, State::Failed { reason: reason.to_owned() });
            return false;
        }
        let pause = FIRST_PAUSE * 2_u32.saturating_pow(entry.tries.min(16) - 1);
        let until = now + pause.min(LONGEST_PAUSE);
        entry.state = State::Parked { reason: reason.to_owned(), until };
        true
    }

    /// What made jobs fail may be over: parked ones need not wait for the end of their pauses.
    pub fn unpark(&mut self) {
        for entry in self.waiting.values_mut() {
            if let State::Parked { .. } = entry.state {
                entry.state = State::Queued;
            }
        }
    }

    /// A running job was interrupted through no fault of its own: it goes on later.
    pub fn interrupted(&mut self, id: JobId) {
        if let Some(entry) = self.of(id) {
            entry.state = State::Queued;
        }
    }

    /// Drops a job that is not running; returns it.
    pub fn cancel(&mut self, id: JobId) -> Option<Job> {
        let entry = self.of(id).filter(|entry| entry.state != State::Running)?;
        let job = entry.job.clone();
        self.end(id, State::Cancelled);
        Some(job)
    }

    fn end(&mut self, id: JobId, state: State) {
        let Some(key) = self.waiting.keys().find(|key| key.1 == id).copied() else { return };
        let Some(mut entry) = self.waiting.remove(&key) else { return };
        for part in &entry.job.parts {
            self.parts.remove(&(entry.job.work, *part));
            if entry.job.work.recalls() {
                self.came(part.ino);
            }
        }
        // What is shown of it needs no files.
        entry.job.parts = Vec::new();
        entry.state = state;
        self.ended.push_back(entry);
        if self.ended.len() > MOST_ENDED {
            self.ended.pop_front();
        }
    }

    fn came(&mut self, ino: u64) {
        if let Some(count) = self.coming.get_mut(&ino) {
            *count -= 1;
            if *count == 0 {
                self.coming.remove(&ino);
            }
        }
    }

    /// Whether a part of a file waits to be brought back, or is being brought.
    pub fn is_coming(&self, ino: u64) -> bool {
        self.coming.contains_key(&ino)
    }

    /// A job that waits, runs or has ended lately.
    pub fn get(&self, id: JobId) -> Option<&Entry> {
        let mut all = self.waiting.values().chain(&self.ended);
        all.find(|entry| entry.job.id == id)
    }

    /// All that wait or run, the most urgent first, and behind them those that ended, the last
    /// first.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.waiting.values().chain(self.ended.iter().rev())
    }

    /// Those that wait or run.
    pub fn waiting(&self) -> impl Iterator<Item = &Entry> {
        self.waiting.values()
    }

    /// When the next parked job is due.
    pub fn next_due(&self) -> Option<Instant> {
        let until = |entry: &Entry| match &entry.state {
            State::Parked { until, .. } => Some(*until),
            _ => None,
        };
        self.waiting.values().filter_map(until).min()
    }
}
