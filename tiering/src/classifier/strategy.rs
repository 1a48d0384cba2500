//! The classifier as a strategy of a replay: what a volume would have done, learned from nothing but
//! the past of the trace.

use std::collections::{HashMap, VecDeque};

use super::learner::Learner;
use super::model::Verdict;
use super::samples::{Limits, Outcome};
use crate::heat::features::{Facts, Features, features};
use crate::heat::history::{Access, AccessKind, History};
use crate::mix::{ByMix, Chance};
use crate::replay::{Lru, Op, Request, Strategy};

/// Residents looked at for each eviction, beside the best of earlier looks.
const LOOKS: usize = 16;

/// Candidates that are kept from one eviction to the next.
const POOL: usize = 24;

/// Items remembered beyond the resident ones.
const GHOSTS: usize = 200_000;

/// Groups and owners remembered.
const COMMON: usize = 100_000;

/// Scores below this are all the same.
const LEAST_SCORE: f32 = 1e-4;

/// How much less an item is worth for each size: a miss costs a request, whatever it brings, and
/// bytes. 0 looks at bytes only, 1 at requests only; a little goes a long way with sizes that differ
/// by many orders of magnitude.
const SIZE_WEIGHT: f32 = 0.1;

/// Where an item stands that is not resident.
const ABSENT: u32 = u32::MAX;

#[derive(Clone, Debug)]
struct Item {
    history: History,
    created_ms: u64,
    size: u64,
    group: u64,
    owner: u32,
    kind: u32,
    /// Where it stands among the residents.
    slot: u32,
}

/// Evicts what will least likely be used again, the larger of two alike; LRU until there is a model.
/// What stays cold has the lowest scores and goes first, what will be used again last.
#[derive(Debug)]
pub struct ModelStrategy {
    learner: Learner,
    items: HashMap<u64, Item, ByMix>,
    ghosts: VecDeque<u64>,
    residents: Vec<u64>,
    groups: HashMap<u64, History, ByMix>,
    owners: HashMap<u64, History, ByMix>,
    lru: Lru,
    pool: Vec<Candidate>,
    chance: Chance,
    outcomes: Vec<Outcome>,
    trainings: u32,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    item: u64,
    seen_ms: u64,
    rank: f32,
}

impl ModelStrategy {
    /// With a horizon; the same seed gives the same decisions.
    pub fn new(horizon_ms: u64, limits: Limits, seed: u64) -> Self {
        Self {
            learner: Learner::new(horizon_ms, limits, seed),
            items: HashMap::default(),
            ghosts: VecDeque::new(),
            residents: Vec::new(),
            groups: HashMap::default(),
            owners: HashMap::default(),
            lru: Lru::new(),
            pool: Vec::new(),
            chance: Chance::new(seed),
            outcomes: Vec::new(),
            trainings: 0,
        }
    }

    /// Every sample whose label is known, with what was said about it in its time.
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// The loop inside.
    pub fn learner(&self) -> &Learner {
        &self.learner
    }

    /// Models made so far.
    pub fn trainings(&self) -> u32 {
        self.trainings
    }

    /// What is known of an item's use.
    pub fn history(&self, id: u64) -> Option<&History> {
        self.items.get(&id).map(|item| &item.history)
    }

    /// What the model says about an item now.
    pub fn said(&self, id: u64, now_ms: u64) -> Option<Verdict> {
        let features = self.describe(self.items.get(&id)?, now_ms);
        Some(self.learner.model()?.predict(&features))
    }

    /// An item became resident without being accessed.
    pub fn admitted(&mut self, id: u64) {
        let Some(item) = self.items.get_mut(&id).filter(|item| item.slot == ABSENT) else { return };
        item.slot = self.residents.len() as u32;
        self.residents.push(id);
        self.lru.touch(id, item.size.max(1));
    }

    fn describe(&self, item: &Item, now_ms: u64) -> Features {
        let facts = Facts {
            size: item.size,
            created_ms: item.created_ms,
            kind: item.kind,
            group: self.groups.get(&item.group).copied(),
            owner: self.owners.get(&u64::from(item.owner)).copied(),
        };
        features(&item.history, &facts, now_ms)
    }

    fn note(&mut self, request: &Request) {
        let access = Access {
            at_ms: request.at_ms,
            kind: if request.op == Op::Write { AccessKind::Write } else { AccessKind::Open },
            bytes: request.bytes,
            sequential: request.bytes >= request.size,
        };
        let mut again = true;
        let item = self.items.entry(request.item).or_insert_with(|| {
            again = false;
            Item {
                history: History::new(request.at_ms),
                created_ms: request.at_ms,
                size: request.size,
                group: request.group,
                owner: request.owner,
                kind: request.kind,
                slot: ABSENT,
            }
        });
        item.size = request.size;
        item.history.note(&access);
        for (table, key) in
            [(&mut self.groups, request.group), (&mut self.owners, u64::from(request.owner))]
        {
            if table.len() < COMMON || table.contains_key(&key) {
                let common = table.entry(key).or_insert_with(|| History::new(request.at_ms));
                common.note_member(&Access { kind: AccessKind::Open, ..access }, again);
            }
        }
    }

    fn learn(&mut self, now_ms: u64) {
        let due = self.learner.samples.due(now_ms);
        if due == 0 {
            return;
        }
        let outcomes = &mut self.outcomes;
        self.learner.mature(now_ms, |outcome| outcomes.push(*outcome));
        if self.learner.training_is_due() && self.learner.train().is_ok() {
            self.trainings += 1;
            self.pool.clear();
        }
        for _ in 0..due.min(self.residents.len()) {
            let at = self.chance.below(self.residents.len() as u64) as usize;
            let id = self.residents[at];
            let Some(item) = self.items.get(&id) else { continue };
            if item.history.idle_ms(now_ms) == 0 {
                continue;
            }
            let features = self.describe(item, now_ms);
            self.learner.offer(id, &features, now_ms);
        }
    }

    /// What goes first has the least rank.
    fn rank(&self, id: u64, now_ms: u64) -> Option<Candidate> {
        let item = self.items.get(&id).filter(|item| item.slot != ABSENT)?;
        let features = self.describe(item, now_ms);
        let said = self.learner.model()?.predict(&features);
        let rank = said.score.max(LEAST_SCORE) * (item.size.max(1) as f32).powf(-SIZE_WEIGHT);
        Some(Candidate { item: id, seen_ms: item.history.last_ms(), rank })
    }

    fn refill(&mut self, now_ms: u64) {
        let items = &self.items;
        self.pool.retain(|candidate| {
            items.get(&candidate.item).is_some_and(|item| {
                item.slot != ABSENT && item.history.last_ms() == candidate.seen_ms
            })
        });
        for _ in 0..LOOKS {
            let at = self.chance.below(self.residents.len() as u64) as usize;
            let id = self.residents[at];
            if let Some(candidate) = self.rank(id, now_ms)
                && self.pool.iter().all(|known| known.item != id)
            {
                self.pool.push(candidate);
            }
        }
        self.pool.sort_by(|a, b| b.rank.total_cmp(&a.rank));
        let excess = self.pool.len().saturating_sub(POOL);
        self.pool.drain(..excess);
    }

    fn forget(&mut self, id: u64) {
        self.ghosts.push_back(id);
        while self.ghosts.len() > GHOSTS {
            let Some(oldest) = self.ghosts.pop_front() else { break };
            if self.items.get(&oldest).is_some_and(|item| item.slot == ABSENT) {
                self.items.remove(&oldest);
            }
        }
    }
}

impl Strategy for ModelStrategy {
    fn name(&self) -> &str {
        "model"
    }

    fn access(&mut self, request: &Request, resident: bool) {
        self.lru.access(request, resident);
        if request.op == Op::Delete {
            self.learner.samples.deleted(request.item);
            return;
        }
        self.learn(request.at_ms);
        self.learner.samples.accessed(request.item, request.at_ms);
        self.note(request);
        let Some(item) = self.items.get_mut(&request.item) else { return };
        if resident && item.slot == ABSENT {
            item.slot = self.residents.len() as u32;
            self.residents.push(request.item);
        } else if !resident && item.slot == ABSENT {
            self.forget(request.item);
        }
    }

    fn victim(&mut self, now_ms: u64) -> Option<u64> {
        if self.learner.model().is_none() || self.residents.is_empty() {
            return self.lru.victim(now_ms);
        }
        self.refill(now_ms);
        self.pool.pop().map(|candidate| candidate.item).or_else(|| self.lru.victim(now_ms))
    }

    fn removed(&mut self, id: u64) {
        self.lru.removed(id);
        let Some(item) = self.items.get_mut(&id) else { return };
        let slot = std::mem::replace(&mut item.slot, ABSENT);
        if slot == ABSENT {
            return;
        }
        self.residents.swap_remove(slot as usize);
        if let Some(&moved) = self.residents.get(slot as usize)
            && let Some(item) = self.items.get_mut(&moved)
        {
            item.slot = slot;
        }
        self.forget(id);
    }
}
