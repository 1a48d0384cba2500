//! Runs the model, LRU and S3-FIFO in shadow on a sample of the items, and has [`Judge`] decide
//! whether the model may decide. [`Guarded`] is a strategy under its guard.
//!
//! The sample is spatial (SHARDS: Waldspurger, Park, Garthwaite, Ahmad: "Efficient MRC Construction
//! with SHARDS", FAST 2015): an item is in it when its mixed id is small, with all its requests, and
//! the caches are as much smaller as the sample. All items are in until there are too many; then half
//! of them leave, as often as it takes. Items larger than the shrunken caches miss in all three alike.
//! *Cost*: a request outside of the sample costs a multiplication. *Bounds*: so many items in each of
//! three caches, and as many ghosts; what the model keeps of items that are not resident is its own.

use super::judge::{Baseline, Hits, Judge, JudgeConfig, State};
use super::{Cache, Lru, Op, Outcome, Request, S3Fifo, Strategy};
use crate::mix::mix;

/// Shrinking caches further is of no use.
const THINNEST: u32 = 30;

/// How the model is guarded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GuardrailConfig {
    /// Items in each of the shadow caches, at most.
    pub most_items: usize,
    /// The read on which the shadow caches admit an item; as in the real one.
    pub admit_on: u32,
    /// What decides while the model is off, in [`Guarded`].
    pub fallback: Fallback,
    /// When it goes off and on.
    pub judge: JudgeConfig,
}

impl Default for GuardrailConfig {
    fn default() -> Self {
        Self {
            most_items: 16_384,
            admit_on: 1,
            fallback: Fallback::Lru,
            judge: JudgeConfig::default(),
        }
    }
}

/// What decides while the model is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// LRU.
    Lru,
    /// Whichever of LRU and S3-FIFO does better at the time.
    Better,
}

#[derive(Debug)]
struct Shadow<S> {
    cache: Cache,
    strategy: S,
}

impl<S: Strategy> Shadow<S> {
    fn new(strategy: S, capacity_bytes: u64, config: &GuardrailConfig) -> Self {
        let cache = Cache::new(capacity_bytes).admitting_on(config.admit_on, config.most_items);
        Self { cache, strategy }
    }

    fn hits(&mut self, request: &Request) -> bool {
        self.cache.serve(request, &mut self.strategy).outcome == Outcome::Hit
    }

    fn shrink(&mut self, limit: u64, capacity_bytes: u64, now_ms: u64) {
        self.cache.retain(|item| mix(item) <= limit, &mut self.strategy);
        self.cache.resize(capacity_bytes, now_ms, &mut self.strategy);
    }
}

/// The shadow caches and the judge.
#[derive(Debug)]
pub struct Guardrail<S> {
    config: GuardrailConfig,
    capacity: u64,
    /// The sample is one item in two to this.
    halvings: u32,
    model: Shadow<S>,
    lru: Shadow<Lru>,
    s3fifo: Shadow<S3Fifo>,
    judge: Judge,
}

impl<S: Strategy> Guardrail<S> {
    /// Guards a model; `model` is an instance of it for the shadow alone, `capacity_bytes` that of
    /// the real cache.
    pub fn new(model: S, capacity_bytes: u64, config: GuardrailConfig) -> Self {
        Self::resume(model, capacity_bytes, config, Judge::new(config.judge))
    }

    /// Goes on with a judge that was stored. The caches start empty, all three alike.
    pub fn resume(model: S, capacity_bytes: u64, config: GuardrailConfig, judge: Judge) -> Self {
        Self {
            config,
            capacity: capacity_bytes,
            halvings: 0,
            model: Shadow::new(model, capacity_bytes, &config),
            lru: Shadow::new(Lru::new(), capacity_bytes, &config),
            s3fifo: Shadow::new(S3Fifo::new(capacity_bytes), capacity_bytes, &config),
            judge,
        }
    }

    /// Whether the model may decide.
    pub fn state(&self) -> State {
        self.judge.state()
    }

    /// The judge, for what it counted and to be stored.
    pub fn judge(&self) -> &Judge {
        &self.judge
    }

    /// The shadow's model, to be given what it learns.
    pub fn model_mut(&mut self) -> &mut S {
        &mut self.model.strategy
    }

    /// The model is a new one: it is on until it does worse.
    pub fn restart(&mut self, now_ms: u64) {
        self.judge.restart(now_ms);
    }

    /// One item in so many is looked at.
    pub fn one_in(&self) -> u64 {
        1 << self.halvings
    }

    /// Most items in one of the caches, with those that S3-FIFO remembers.
    pub fn tracked(&self) -> usize {
        let s3fifo = self.s3fifo.cache.len().max(self.s3fifo.strategy.ghosts());
        self.model.cache.len().max(self.lru.cache.len()).max(s3fifo)
    }

    /// Takes in a request, scans left out by the caller as in the real cache; true when that switched
    /// the model off or on.
    pub fn see(&mut self, request: &Request) -> bool {
        if mix(request.item) > self.limit() {
            return false;
        }
        let hits = Hits {
            model: self.model.hits(request),
            lru: self.lru.hits(request),
            s3fifo: self.s3fifo.hits(request),
        };
        while self.tracked() > self.config.most_items && self.halvings < THINNEST {
            self.halvings += 1;
            self.shrink(request.at_ms);
        }
        request.op == Op::Read && self.judge.note(request.at_ms, hits)
    }

    /// The real cache has another capacity.
    pub fn resize(&mut self, capacity_bytes: u64, now_ms: u64) {
        self.capacity = capacity_bytes;
        self.shrink(now_ms);
    }

    fn limit(&self) -> u64 {
        u64::MAX >> self.halvings
    }

    fn shrink(&mut self, now_ms: u64) {
        let (limit, capacity) = (self.limit(), self.capacity >> self.halvings);
        self.model.shrink(limit, capacity, now_ms);
        self.lru.shrink(limit, capacity, now_ms);
        self.s3fifo.shrink(limit, capacity, now_ms);
    }
}

/// A strategy that decides while it does well, and the fallback otherwise.
#[derive(Debug)]
pub struct Guarded<S> {
    name: String,
    inner: S,
    lru: Lru,
    s3fifo: S3Fifo,
    guardrail: Guardrail<S>,
    switches: u32,
    now_ms: u64,
}

impl<S: Strategy> Guarded<S> {
    /// `inner` decides, `shadow` is another instance of the same strategy for the guardrail.
    pub fn new(inner: S, shadow: S, capacity_bytes: u64, config: GuardrailConfig) -> Self {
        Self {
            name: format!("{} guarded", inner.name()),
            inner,
            lru: Lru::new(),
            s3fifo: S3Fifo::new(capacity_bytes),
            guardrail: Guardrail::new(shadow, capacity_bytes, config),
            switches: 0,
            now_ms: 0,
        }
    }

    /// The guardrail.
    pub fn guardrail(&self) -> &Guardrail<S> {
        &self.guardrail
    }

    /// How often the model was switched off or on.
    pub fn switches(&self) -> u32 {
        self.switches
    }

    fn fallback(&mut self) -> &mut dyn Strategy {
        let better = self.guardrail.judge().better_baseline() == Baseline::S3Fifo;
        match self.guardrail.config.fallback {
            Fallback::Better if better => &mut self.s3fifo,
            Fallback::Better | Fallback::Lru => &mut self.lru,
        }
    }
}

impl<S: Strategy> Strategy for Guarded<S> {
    fn name(&self) -> &str {
        &self.name
    }

    fn access(&mut self, request: &Request, resident: bool) {
        self.now_ms = request.at_ms;
        self.switches += u32::from(self.guardrail.see(request));
        self.inner.access(request, resident);
        self.lru.access(request, resident);
        self.s3fifo.access(request, resident);
    }

    fn victim(&mut self, now_ms: u64) -> Option<u64> {
        if self.guardrail.state().is_on() {
            let chosen = self.inner.victim(now_ms);
            return chosen.or_else(|| self.lru.victim(now_ms));
        }
        self.fallback().victim(now_ms)
    }

    fn removed(&mut self, item: u64) {
        self.inner.removed(item);
        self.lru.removed(item);
        self.s3fifo.removed(item);
    }

    fn admits(&mut self, request: &Request) -> bool {
        !self.guardrail.state().is_on() || self.inner.admits(request)
    }

    fn resize(&mut self, capacity_bytes: u64) {
        self.inner.resize(capacity_bytes);
        self.s3fifo.resize(capacity_bytes);
        self.guardrail.resize(capacity_bytes, self.now_ms);
    }
}

#[cfg(test)]
mod tests;
