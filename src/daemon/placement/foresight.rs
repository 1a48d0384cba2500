//! The classifier on a live volume: samples are taken of files that are in use, labelled a horizon
//! later, learned from, and what was learned is asked about candidates.
//!
//! The thread for placement does all of this; a request only notes that a file was used or removed
//! and, for the guardrail, what was opened. *Guardrail*: the same strategy, LRU and S3-FIFO run in shadow on a
//! sample of the files; while the strategy does worse, the age decides. *Crash*: samples, models and
//! the guardrail's state are stored every few minutes; what is lost is learned again. Samples without a
//! label are dropped then, and after a pause as long as a horizon: whether their files would have been
//! used nobody can tell. *Damage*: what
//! cannot be read is logged and begun anew. A switch by hand holds until it is undone.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use firn_mount::types::Ino;
use firn_tiering::classifier::{
    Decision, Learner, Limits, Model, ModelStrategy, Reason, Registry, Samples, State, Verdict,
    train,
};
use firn_tiering::heat::{Facts, Features, History, Known, features};
use firn_tiering::replay::{
    Figures, Guardrail, GuardrailConfig, Judge, JudgeConfig, Request, State as GuardState,
};
use parking_lot::{Mutex, RwLock};

use super::replace;

/// Directory in the volume directory.
const DIR: &str = "model";
const SAMPLES_FILE: &str = "samples";
const GUARD_FILE: &str = "guardrail";

/// Longest file that is read.
const MAX_LEN: u64 = 64 << 20;

/// Seed of everything that is drawn.
const SEED: u64 = 0x6669_726e_6d6f_6465;

/// Opens that wait for the guardrail; later ones are left out.
const MOST_SEEN: usize = 1 << 16;

/// The classifier of a volume.
pub(super) struct Foresight {
    dir: PathBuf,
    read_only: bool,
    /// The model that is asked now.
    model: RwLock<Option<Arc<Model>>>,
    seen: Mutex<Vec<Seen>>,
    inner: Mutex<Inner>,
}

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Seen {
    Opened(Request),
    /// It was held open, and used again after a while.
    Visited {
        item: u64,
        at_ms: u64,
    },
    Removed(u64),
}

/// How the mount before ended, and when it is now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    pub(super) now_ms: u64,
    pub(super) ended_in_order: bool,
}

struct Inner {
    learner: Learner,
    registry: Registry,
    guardrail: Guardrail<ModelStrategy>,
    /// Why the last training came to nothing.
    failure: Option<String>,
}

/// What is known of the classifier, for people.
pub(super) struct Standing {
    pub(super) registry: Registry,
    pub(super) guard: GuardState,
    pub(super) figures: Figures,
    pub(super) switches: u32,
    pub(super) samples: usize,
    pub(super) pending: usize,
    pub(super) horizon_ms: u64,
    pub(super) failure: Option<String>,
}

impl Foresight {
    /// What was stored in the volume directory `dir`, for a hot tier of so many bytes.
    pub(super) fn load(
        dir: &Path,
        horizon_ms: u64,
        capacity_bytes: u64,
        opening: Opening,
        read_only: bool,
    ) -> Self {
        let dir = dir.join(DIR);
        let registry = Registry::load(&dir).unwrap_or_else(|error| {
            tracing::warn!(%error, "the classifier begins anew");
            Registry::default()
        });
        let samples = samples_in(&dir.join(SAMPLES_FILE), horizon_ms, opening);
        let judge =
            stored(&dir.join(GUARD_FILE), |bytes| Judge::decode(JudgeConfig::default(), bytes));
        let usable = registry.usable().cloned();
        let learner = Learner::with(samples, usable, SEED);
        let guardrail = guardrail(horizon_ms, capacity_bytes, judge);
        let inner = Inner { learner, registry, guardrail, failure: None };
        let own = Self {
            dir,
            read_only,
            model: RwLock::default(),
            seen: Mutex::default(),
            inner: Mutex::new(inner),
        };
        own.inner.lock().publish(&own.model);
        own
    }

    /// A file was opened; `counts` when that was use and not part of a scan.
    pub(super) fn opened(&self, request: Request, counts: bool) {
        if counts {
            self.see(Seen::Opened(request));
        }
    }

    /// A file that was open all the time was used again.
    pub(super) fn visited(&self, ino: Ino, at_ms: u64) {
        self.see(Seen::Visited { item: ino.0, at_ms });
    }

    /// A file is gone.
    pub(super) fn removed(&self, ino: Ino) {
        self.see(Seen::Removed(ino.0));
    }

    fn see(&self, what: Seen) {
        let mut seen = self.seen.lock();
        if seen.len() < MOST_SEEN {
            seen.push(what);
        }
    }

    /// What the model says, if there is one that may be asked.
    pub(super) fn verdict(&self, history: &History, facts: &Facts, now_ms: u64) -> Option<Verdict> {
        let model = self.model.read().clone()?;
        Some(model.predict(&features(history, facts, now_ms)))
    }

    /// What mattered most to what it says.
    pub(super) fn reasons(&self, described: &Features) -> Vec<Reason> {
        self.model.read().as_ref().map_or_else(Vec::new, |model| model.reasons(described))
    }

    /// Takes in what was opened, takes samples out of `known` when they are due, labels, and learns
    /// when there is enough that is new. `facts` describes a file besides its past.
    pub(super) fn tick(
        &self,
        now_ms: u64,
        known: &mut dyn FnMut(usize) -> Vec<Known>,
        facts: &dyn Fn(&Known) -> Option<Facts>,
    ) {
        self.take_in();
        let lesson = {
            let mut inner = self.inner.lock();
            let due = inner.learner.samples.due(now_ms);
            for candidate in known(due) {
                if let Some(facts) = facts(&candidate) {
                    let described = features(&candidate.history, &facts, now_ms);
                    inner.learner.offer(candidate.place.item, &described, now_ms);
                }
            }
            inner.learner.mature(now_ms, |_| {});
            let lesson = inner.learner.training_is_due().then(|| inner.learner.lesson());
            inner.publish(&self.model);
            lesson.map(|lesson| (lesson, inner.learner.samples.horizon_ms()))
        };
        if let Some(((samples, strictness, seed), horizon_ms)) = lesson {
            self.learn(&samples.iter().collect::<Vec<_>>(), horizon_ms, strictness, seed);
        }
    }

    /// Takes in what happened since.
    fn take_in(&self) {
        let mut inner = self.inner.lock();
        let seen = std::mem::take(&mut *self.seen.lock());
        for what in &seen {
            match what {
                Seen::Opened(request) => {
                    inner.learner.samples.accessed(request.item, request.at_ms);
                    if inner.guardrail.see(request) {
                        inner.tell_guard();
                    }
                }
                Seen::Visited { item, at_ms } => inner.learner.samples.accessed(*item, *at_ms),
                Seen::Removed(item) => inner.learner.samples.deleted(*item),
            }
        }
    }

    /// Learns now from all there is; says why nothing came of it.
    pub(super) fn train(&self) -> Result<(), String> {
        let (samples, strictness, seed, horizon_ms) = {
            let mut inner = self.inner.lock();
            let (samples, strictness, seed) = inner.learner.lesson();
            (samples, strictness, seed, inner.learner.samples.horizon_ms())
        };
        self.learn(&samples.iter().collect::<Vec<_>>(), horizon_ms, strictness, seed);
        self.inner.lock().failure.clone().map_or(Ok(()), Err)
    }

    /// Training takes a while: nothing is locked meanwhile.
    fn learn(
        &self,
        samples: &[&firn_tiering::classifier::Sample],
        horizon_ms: u64,
        strictness: f64,
        seed: u64,
    ) {
        let outcome = train(samples, horizon_ms, strictness, seed);
        let mut inner = self.inner.lock();
        match outcome {
            Ok(trained) => {
                inner.learner.adopt(Some(trained.model.clone()));
                let number = inner.registry.adopt(trained);
                tracing::info!(number, samples = samples.len(), "the classifier has learned");
                inner.failure = None;
            }
            Err(why) => {
                tracing::info!(%why, samples = samples.len(), "nothing was learned");
                inner.failure = Some(why.to_string());
            }
        }
        inner.publish(&self.model);
        drop(inner);
        self.store();
    }

    /// Goes back to the model before; `false` when there is none.
    pub(super) fn rollback(&self) -> bool {
        let mut inner = self.inner.lock();
        let is_back = inner.registry.rollback();
        let usable = inner.registry.usable().cloned();
        inner.learner.adopt(usable);
        inner.publish(&self.model);
        drop(inner);
        self.store();
        is_back
    }

    /// Has the model decide, or the age alone.
    pub(super) fn switch(&self, on: bool, now_ms: u64) {
        let mut inner = self.inner.lock();
        match on {
            true => {
                inner.registry.on();
                inner.guardrail.restart(now_ms);
            }
            false => inner.registry.off("switched off by hand", now_ms),
        }
        inner.publish(&self.model);
        drop(inner);
        self.store();
    }

    /// Another horizon holds: what was learned for the old one says nothing about it.
    pub(super) fn set_horizon(&self, horizon_ms: u64, capacity_bytes: u64) {
        let mut inner = self.inner.lock();
        if inner.learner.samples.horizon_ms() == horizon_ms {
            return;
        }
        tracing::info!(horizon_ms, "the classifier begins anew for another horizon");
        inner.learner = Learner::new(horizon_ms, Limits::default(), SEED);
        inner.guardrail = guardrail(horizon_ms, capacity_bytes, None);
        inner.publish(&self.model);
    }

    /// How it stands.
    pub(super) fn standing(&self) -> Standing {
        let inner = self.inner.lock();
        Standing {
            registry: inner.registry.clone(),
            guard: inner.guardrail.state(),
            figures: inner.guardrail.judge().figures(),
            switches: inner.guardrail.judge().switches(),
            samples: inner.learner.samples.len(),
            pending: inner.learner.samples.pending(),
            horizon_ms: inner.learner.samples.horizon_ms(),
            failure: inner.failure.clone(),
        }
    }

    /// Stores samples, models and the guardrail's state.
    pub(super) fn store(&self) {
        if self.read_only {
            return;
        }
        self.take_in();
        let (registry, samples, judge) = {
            let inner = self.inner.lock();
            let judge = inner.guardrail.judge().encode();
            (inner.registry.clone(), inner.learner.samples.encode(), judge)
        };
        let write = || -> firn_tiering::Result<()> {
            let failed = || firn_tiering::Error::io(format!("write {}", self.dir.display()));
            std::fs::create_dir_all(&self.dir).map_err(failed())?;
            registry.save(&self.dir)?;
            replace(&self.dir.join(SAMPLES_FILE), &samples?).map_err(failed())?;
            replace(&self.dir.join(GUARD_FILE), &judge?).map_err(failed())
        };
        if let Err(error) = write() {
            tracing::warn!(%error, "storing the classifier");
        }
    }
}

impl Inner {
    /// Has readers ask the model that may be asked now.
    fn publish(&self, model: &RwLock<Option<Arc<Model>>>) {
        let horizon_ms = self.learner.samples.horizon_ms();
        let usable = self.registry.usable().filter(|model| model.horizon_ms() == horizon_ms);
        let usable = usable.filter(|_| self.guardrail.state().is_on());
        let mut held = model.write();
        if held.as_deref() != usable {
            *held = usable.cloned().map(Arc::new);
        }
    }

    fn tell_guard(&self) {
        match self.guardrail.state() {
            GuardState::On { .. } => {
                tracing::info!("the classifier does as well as others again, and decides");
            }
            GuardState::Off { figures, .. } => tracing::warn!(
                model = figures.model,
                lru = figures.lru,
                s3fifo = figures.s3fifo,
                "the classifier does worse than others: the age decides"
            ),
        }
    }
}

fn guardrail(
    horizon_ms: u64,
    capacity_bytes: u64,
    judge: Option<Judge>,
) -> Guardrail<ModelStrategy> {
    // The shadow learns from a sample of the files, so it needs fewer samples.
    let limits = Limits { matured: 4096, pending: 1024, ..Limits::default() };
    let strategy = ModelStrategy::new(horizon_ms, limits, SEED);
    let config = GuardrailConfig::default();
    match judge {
        Some(judge) => Guardrail::resume(strategy, capacity_bytes, config, judge),
        None => Guardrail::new(strategy, capacity_bytes, config),
    }
}

/// The samples in a file, without those whose label nobody can tell any more.
fn samples_in(file: &Path, horizon_ms: u64, opening: Opening) -> Samples {
    let limits = Limits::default();
    // It is stored all the time, and when a mount ends.
    let stored_ms = std::fs::metadata(file).and_then(|meta| meta.modified()).ok().and_then(|at| {
        u64::try_from(at.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_millis()).ok()
    });
    let samples = stored(file, |bytes| Samples::decode(bytes, horizon_ms, limits));
    let mut samples = samples.unwrap_or_else(|| Samples::new(horizon_ms, limits));
    samples.settle(opening.now_ms);
    let paused_ms = stored_ms.map_or(0, |stored| opening.now_ms.saturating_sub(stored));
    if !opening.ended_in_order || paused_ms >= horizon_ms {
        samples.forget_pending();
    }
    samples
}

/// What a file says; `None` when there is none, or one that makes no sense.
fn stored<T>(file: &Path, decode: impl Fn(&[u8]) -> firn_tiering::Result<T>) -> Option<T> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let read =
        std::fs::File::open(file).and_then(|file| file.take(MAX_LEN).read_to_end(&mut bytes));
    match read {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(%error, "{} is begun anew", file.display());
            return None;
        }
        Ok(_) => {}
    }
    decode(&bytes)
        .inspect_err(|error| tracing::warn!(%error, "{} is begun anew", file.display()))
        .ok()
}

/// Whether a registry was switched off by hand, and why.
pub(super) fn switched_off(registry: &Registry) -> Option<&str> {
    match registry.state() {
        State::On => None,
        State::Off { reason, .. } => Some(reason),
    }
}

/// What a decision is called.
pub(super) const fn name_of(decision: Decision) -> &'static str {
    match decision {
        Decision::StaysCold => "stays-cold",
        Decision::Reused => "reused",
        Decision::Unsure => "unsure",
    }
}

#[cfg(test)]
mod tests;
