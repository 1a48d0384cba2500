//! A volume that follows a policy, on files that exist as numbers only. The rules, the planner, the
//! classifier and its guardrail are those of a mount; a plan is carried out at once.
//!
//! What the trace reads before it writes it was in cold. A read of cold data is a miss, and its file
//! comes back at the access that the policy names. *Plans* are made as often as the policy says, but
//! at most [`MOST_PLANS`] times, and besides whenever room is short; a plan looks at [`LOOKS`] files
//! of each tier, others each time, as though hot were as much smaller as they are fewer. What does
//! not fit then is dropped as the block store would drop it: coldest first, whatever the policy says.

use std::time::Duration;

use firn_tiering::classifier::{Limits, ModelStrategy};
use firn_tiering::replay::{Guardrail, GuardrailConfig, Op, Request, Strategy};

use super::files::Files;
use super::tally::Tally;
use crate::policy::Policy;
use crate::policy::amount::Amount;
use crate::policy::planner::{self, Candidate, Move, MoveAction, TierUsage};
use crate::policy::rules::{Rules, Verdict};
use crate::policy::settings::{HotTier, Marks, Mode, RuleAction};

/// Files of one tier that a plan looks at.
const LOOKS: usize = 20_000;

/// Plans that are made by the clock.
const MOST_PLANS: u64 = 2_000;

/// Plans that are made in a row when room is short.
const MOST_IN_A_ROW: u32 = 16;

/// Seed of everything that is drawn.
const SEED: u64 = 1;

/// The volume.
pub(super) struct Simulation<'a> {
    policy: &'a Policy,
    rules: &'a Rules,
    marks: Marks,
    interval_ms: u64,
    next_ms: u64,
    files: Files,
    model: ModelStrategy,
    guardrail: Guardrail<ModelStrategy>,
    tally: Tally,
}

impl<'a> Simulation<'a> {
    /// An empty volume with a hot tier of so many bytes, for a trace of that duration.
    pub(super) fn new(policy: &'a Policy, rules: &'a Rules, capacity: u64, span_ms: u64) -> Self {
        let horizon_ms = millis(policy.defaults.horizon.0).max(1);
        let model = || ModelStrategy::new(horizon_ms, Limits::default(), SEED);
        Self {
            policy,
            rules,
            marks: policy.tier.hot.marks(capacity),
            interval_ms: millis(policy.defaults.interval.0).max(span_ms / MOST_PLANS).max(1),
            next_ms: 0,
            files: Files::default(),
            model: model(),
            guardrail: Guardrail::new(model(), capacity, GuardrailConfig::default()),
            tally: Tally::new(horizon_ms),
        }
    }

    #[cfg(test)]
    pub(super) fn hot_bytes(&self) -> u64 {
        self.files.hot_bytes()
    }

    /// Replays a trace.
    pub(super) fn run(mut self, trace: &[Request]) -> Tally {
        for request in trace {
            self.serve(request);
        }
        self.tally
    }

    pub(super) fn serve(&mut self, request: &Request) {
        let now_ms = request.at_ms;
        if now_ms >= self.next_ms {
            self.next_ms = now_ms.saturating_add(self.interval_ms);
            if self.files.hot_bytes() > self.marks.high || !self.policy.rules.is_empty() {
                self.plan(now_ms);
            }
        }
        match request.op {
            Op::Delete => self.delete(request),
            Op::Write => self.write(request),
            Op::Read => self.read(request),
        }
        if self.policy.defaults.mode == Mode::Ml {
            self.guardrail.see(request);
        }
    }

    fn delete(&mut self, request: &Request) {
        self.tally.is_made_anew(request.item);
        if self.files.take(request.item).is_some_and(|file| file.in_hot) {
            self.model.removed(request.item);
        }
        self.model.access(request, false);
    }

    fn write(&mut self, request: &Request) {
        self.tally.is_made_anew(request.item);
        self.files.change(request.item, |file| {
            (file.size, file.owner) = (request.charge(), request.owner);
            (file.in_hot, file.in_cold, file.written_ms) = (true, false, request.at_ms);
        });
        self.model.access(request, true);
        self.make_room(0, request.at_ms);
    }

    fn read(&mut self, request: &Request) {
        let (item, now_ms) = (request.item, request.at_ms);
        let known = self.files.get(item).copied();
        let in_hot = known.is_some_and(|file| file.in_hot);
        let horizon_ms = millis(self.policy.defaults.horizon.0);
        let mut reads = 0;
        self.files.change(item, |file| {
            if known.is_none() {
                (file.in_cold, file.written_ms) = (true, now_ms);
            }
            (file.size, file.owner) = (request.charge(), request.owner);
            if !in_hot {
                if now_ms.saturating_sub(file.counted_from_ms) > horizon_ms {
                    (file.cold_reads, file.counted_from_ms) = (0, now_ms);
                }
                file.cold_reads = file.cold_reads.saturating_add(1);
                reads = file.cold_reads;
            }
        });
        if in_hot {
            self.tally.hit(request);
            self.model.access(request, true);
            return self.make_room(0, now_ms);
        }
        let due = self.policy.recall.promote_on;
        let comes_back = due > 0 && reads >= due && self.may_come_back(request.charge(), now_ms);
        self.tally.miss(request, if comes_back { request.charge() } else { request.bytes });
        if comes_back {
            self.come_back(item);
        }
        self.model.access(request, comes_back);
    }

    /// Whether there is room for a file that was read, made where that is possible.
    fn may_come_back(&mut self, bytes: u64, now_ms: u64) -> bool {
        bytes <= self.marks.low && {
            self.make_room(bytes, now_ms);
            self.files.hot_bytes() + bytes <= self.marks.capacity
        }
    }

    /// Sees to it that so many bytes more fit.
    fn make_room(&mut self, bytes: u64, now_ms: u64) {
        let most = self.marks.capacity - self.marks.reserve;
        for _ in 0..MOST_IN_A_ROW {
            let before = self.files.hot_bytes();
            if before.saturating_add(bytes) <= most {
                return;
            }
            self.plan(now_ms);
            if self.files.hot_bytes() >= before {
                break;
            }
        }
        while self.files.hot_bytes().saturating_add(bytes) > self.marks.capacity
            && let Some(item) = self.model.victim(now_ms)
        {
            self.go(item, now_ms);
        }
    }

    fn plan(&mut self, now_ms: u64) {
        let hot = self.files.some_hot(LOOKS);
        let away = if self.brings_back() { self.files.some_away(LOOKS) } else { Vec::new() };
        let is_all = hot.len() == self.files.hot_count();
        let asks = self.policy.defaults.mode == Mode::Ml && self.guardrail.state().is_on();
        let items = hot.into_iter().chain(away);
        let candidates: Vec<_> =
            items.filter_map(|item| self.candidate(item, now_ms, asks)).collect();
        let (policy, usage) = self.shrunk(is_all, &candidates);
        let policy = policy.as_ref().unwrap_or(self.policy);
        for to_do in planner::plan(candidates, &usage, policy, self.rules).moves {
            self.carry_out(&to_do, now_ms);
        }
    }

    /// The policy and the room for a plan that looks at some files of hot only.
    fn shrunk(&self, is_all: bool, looked_at: &[Candidate]) -> (Option<Policy>, TierUsage) {
        let used: u64 = looked_at.iter().map(|candidate| candidate.hot_bytes).sum();
        let share = if is_all { 1.0 } else { used as f64 / self.files.hot_bytes().max(1) as f64 };
        let of = |bytes: u64| if is_all { bytes } else { (bytes as f64 * share) as u64 };
        let usage = TierUsage {
            hot_used_bytes: of(self.files.hot_bytes()),
            hot_capacity_bytes: of(self.marks.capacity),
            hot_only_bytes: of(self.files.hot_only_bytes()),
            cold_free_bytes: None,
        };
        let mark = |bytes| Amount::Bytes(of(bytes));
        let policy = (!is_all).then(|| {
            let mut policy = self.policy.clone();
            policy.tier.hot = HotTier {
                capacity: None,
                high: mark(self.marks.high),
                low: mark(self.marks.low),
                copy_ahead: mark(self.marks.copy_ahead),
                write_reserve: mark(self.marks.reserve),
            };
            policy
        });
        (policy, usage)
    }

    /// Whether files may come back without being read.
    fn brings_back(&self) -> bool {
        let up = [RuleAction::PinHot, RuleAction::Promote];
        self.policy.rules.iter().any(|rule| up.contains(&rule.action))
    }

    fn candidate(&self, item: u64, now_ms: u64, asks: bool) -> Option<Candidate> {
        let file = self.files.get(item)?;
        let history = self.model.history(item);
        let said = asks.then(|| self.model.said(item, now_ms)).flatten();
        let since = |then_ms| Duration::from_millis(now_ms.saturating_sub(then_ms));
        Some(Candidate {
            ino: item,
            size: file.size,
            uid: file.owner,
            age: since(file.written_ms),
            idle: history
                .map_or(since(file.written_ms), |h| Duration::from_millis(h.idle_ms(now_ms))),
            heat: history.map_or(0.0, |history| history.heat(now_ms)),
            p_reuse: said.map(|said| said.p_reuse),
            verdict: said.map_or(Verdict::Unknown, |said| said.decision.into()),
            stored_bytes: file.size,
            hot_bytes: if file.in_hot { file.size } else { 0 },
            cold_bytes: if file.in_cold { file.size } else { 0 },
            ..Candidate::default()
        })
    }

    fn carry_out(&mut self, to_do: &Move, now_ms: u64) {
        match to_do.action {
            MoveAction::CopyAhead => self.files.change(to_do.ino, |file| file.in_cold = true),
            MoveAction::Demote => self.go(to_do.ino, now_ms),
            MoveAction::Promote => {
                self.tally.fetch(to_do.ino, to_do.bytes, now_ms);
                self.come_back(to_do.ino);
                self.model.admitted(to_do.ino);
            }
        }
    }

    fn go(&mut self, item: u64, now_ms: u64) {
        self.model.removed(item);
        if self.files.get(item).is_some_and(|file| file.in_hot) {
            self.tally.left(item, now_ms);
            self.files.change(item, |file| (file.in_hot, file.in_cold) = (false, true));
        }
    }

    fn come_back(&mut self, item: u64) {
        self.files.change(item, |file| (file.in_hot, file.cold_reads) = (true, 0));
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
