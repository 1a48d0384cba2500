//! What is to move now: a pure function of the files, the room and the policy. Nothing is read,
//! written or kept, so that a plan can be printed as well as carried out.
//!
//! *Order*: what a pin or a rule sends to cold goes whatever room there is. Above the high watermark
//! files go, coldest first, until the low one is reached: what only snapshots show, then what may
//! go, then what would better stay. Below the low one pinned and promoted files come back, hottest
//! first, into what is free. Above the copy-ahead mark the coldest are copied, so that they can go
//! at once when room is needed.
//!
//! *Bounds*: candidates pass by one at a time, and of each kind no more are kept than one run may
//! move. *Result*: it depends on the candidates alone, not on their sequence.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Policy;
use super::rules::{Action, Decision, Reason, Rules};
use super::settings::{Defaults, Marks, Mode, Order, Rule};

mod best;
mod types;

use best::{Best, Kept, Key};
pub use types::{Candidate, Count, Move, MoveAction, Plan, Skip, TierUsage, Totals};

/// Bytes that one request writes to cold: a segment.
const PUT_BYTES: u64 = 64 << 20;

/// Bytes that one request reads when whole files come back.
const GET_BYTES: u64 = 8 << 20;

/// Most moves of a plan, whatever the policy allows: each is held in memory until the end.
const MAX_PLANNED: usize = 100_000;

/// Plans one run.
pub fn plan(
    candidates: impl IntoIterator<Item = Candidate>,
    usage: &TierUsage,
    policy: &Policy,
    rules: &Rules,
) -> Plan {
    let mut planning = Planning::new(usage, policy, rules);
    for candidate in candidates {
        planning.look(candidate);
    }
    planning.finish()
}

/// What a candidate is wanted for.
enum Want {
    /// To cold, whatever room there is.
    Demote,
    /// To hot; pinned ones, of rank 0, first.
    Promote(u8),
    /// To cold when room is needed, lower ranks first.
    Spare(u8),
}

/// A plan that is being made.
struct Planning<'a> {
    policy: &'a Policy,
    rules: &'a Rules,
    usage: TierUsage,
    marks: Marks,
    /// What pins and rules without limits send to cold.
    explicit: Best,
    /// What each rule with limits sends to cold.
    limited: BTreeMap<usize, Best>,
    /// What goes above the high watermark.
    pressed: Best,
    promoted: Best,
    copied: Best,
    skipped: BTreeMap<Skip, Count>,
    /// Bytes to go when looking at candidates began.
    pressed_need: u64,
    /// Of those that were kept, which were not taken.
    passed_over: HashMap<u64, Skip>,
}

impl<'a> Planning<'a> {
    fn new(usage: &TierUsage, policy: &'a Policy, rules: &'a Rules) -> Self {
        let marks = policy.tier.hot.marks(usage.hot_capacity_bytes);
        let most = most_moves(policy.defaults.max_moves_per_run);
        let used = usage.hot_used_bytes;
        let over = if used > marks.high { used - marks.low } else { 0 };
        Self {
            policy,
            rules,
            usage: *usage,
            marks,
            explicit: Best::new(u64::MAX, most),
            limited: BTreeMap::new(),
            pressed: Best::new(over, most),
            promoted: Best::new(marks.low.saturating_sub(used), most),
            copied: Best::new(usage.hot_only_bytes.saturating_sub(marks.copy_ahead), most),
            skipped: BTreeMap::new(),
            pressed_need: over,
            passed_over: HashMap::new(),
        }
    }

    fn skip(&mut self, why: Skip, count: Count) {
        if count.files > 0 {
            let sum = self.skipped.entry(why).or_default();
            sum.files += count.files;
            sum.bytes = sum.bytes.saturating_add(count.bytes);
        }
    }

    fn look(&mut self, candidate: Candidate) {
        let subject = candidate.subject();
        let decision = self.rules.decide(&subject);
        let one = Count::one(&candidate);
        let defaults = &self.policy.defaults;
        match want(&candidate, decision, defaults) {
            Err(why) => self.skip(why, one),
            Ok(Want::Promote(rank)) => {
                let bytes = subject.cold_only_bytes();
                let key = Key::hottest(rank, &candidate, defaults);
                if bytes > self.promoted.need() {
                    self.skip(Skip::NoRoom, one);
                } else if bytes > limit(defaults) {
                    self.skip(Skip::Limit, one);
                } else {
                    self.promoted.offer(Kept { key, bytes, candidate, decision });
                }
            }
            Ok(_) if subject.hot_bytes > limit(defaults) => self.skip(Skip::Limit, one),
            Ok(Want::Demote) => self.look_at_explicit(candidate, decision),
            Ok(Want::Spare(rank)) => self.look_at_spare(rank, candidate, decision),
        }
    }

    fn look_at_explicit(&mut self, candidate: Candidate, decision: Decision) {
        let key = Key::coldest(0, &candidate, &self.policy.defaults);
        let bytes = candidate.hot_bytes;
        let rule = decision.rule().and_then(|index| Some((index, self.policy.rules.get(index)?)));
        let is_limited =
            |rule: &Rule| rule.max_moves_per_run.is_some() || rule.max_bytes_per_run.is_some();
        let best = match rule.filter(|(_, rule)| is_limited(rule)) {
            None => &mut self.explicit,
            Some((_, rule)) if rule.max_bytes_per_run.is_some_and(|limit| bytes > limit.0) => {
                return self.skip(Skip::Limit, Count::one(&candidate));
            }
            Some((index, rule)) => {
                let own = rule.max_moves_per_run.unwrap_or(u64::MAX);
                let most = most_moves(own.min(self.policy.defaults.max_moves_per_run));
                self.limited.entry(index).or_insert_with(|| Best::new(u64::MAX, most))
            }
        };
        best.offer(Kept { key, bytes, candidate, decision });
        self.bound();
    }

    /// Rules with limits may be many: what all of them keep is bounded as well.
    fn bound(&mut self) {
        let kept = self.limited.values().map(Best::len).sum::<usize>();
        if kept > MAX_PLANNED
            && let Some(longest) = self.limited.values_mut().max_by_key(|best| best.len())
        {
            longest.drop_worst();
        }
    }

    fn look_at_spare(&mut self, rank: u8, candidate: Candidate, decision: Decision) {
        let key = Key::coldest(rank, &candidate, &self.policy.defaults);
        let hot_only = candidate.subject().hot_only_bytes();
        let is_copied = self.copied.need() > 0 && hot_only > 0;
        let is_pressed = self.pressed.need() > 0;
        match (is_pressed, is_copied) {
            (false, false) => self.skip(Skip::NotNeeded, Count::one(&candidate)),
            (false, true) => self.copied.offer(Kept { key, bytes: hot_only, candidate, decision }),
            (true, _) => {
                let bytes = candidate.hot_bytes;
                if is_copied && self.copied.takes(&key) {
                    let candidate = candidate.clone();
                    self.copied.offer(Kept { key, bytes: hot_only, candidate, decision });
                }
                self.pressed.offer(Kept { key, bytes, candidate, decision });
            }
        }
    }

    fn finish(mut self) -> Plan {
        let mut taking = Taking {
            policy: self.policy,
            rules: self.rules,
            moves: Vec::new(),
            totals: Totals::default(),
            moves_left: self.policy.defaults.max_moves_per_run.min(MAX_PLANNED as u64),
            bytes_left: limit(&self.policy.defaults),
            cold_left: self.usage.cold_free_bytes.unwrap_or(u64::MAX),
            copied_bytes: 0,
        };
        self.take_explicit(&mut taking);
        self.take_pressed(&mut taking);
        let promoted = std::mem::take(&mut self.promoted);
        let bound = Bound::AtMost(promoted.need());
        self.take(&mut taking, promoted, MoveAction::Promote, (bound, Skip::NoRoom));
        self.take_copied(&mut taking);
        let Taking { moves, totals, .. } = taking;
        Plan { moves, totals, skipped: self.skipped, marks: self.marks }
    }

    fn take_explicit(&mut self, taking: &mut Taking<'_>) {
        for (index, best) in std::mem::take(&mut self.limited) {
            let own = self.policy.rules.get(index).and_then(|rule| rule.max_bytes_per_run);
            let bound = Bound::AtMost(own.map_or(u64::MAX, |size| size.0));
            self.take(taking, best, MoveAction::Demote, (bound, Skip::Limit));
        }
        let explicit = std::mem::take(&mut self.explicit);
        let bound = Bound::AtMost(u64::MAX);
        self.take(taking, explicit, MoveAction::Demote, (bound, Skip::Limit));
    }

    fn take_pressed(&mut self, taking: &mut Taking<'_>) {
        // What goes anyway makes room, too.
        let used = self.usage.hot_used_bytes.saturating_sub(taking.totals.freed_bytes);
        let over = if used > self.marks.high { used - self.marks.low } else { 0 };
        let pressed = std::mem::take(&mut self.pressed);
        let bound = Bound::UntilReached(over);
        self.take(taking, pressed, MoveAction::Demote, (bound, Skip::NotNeeded));
    }

    fn take_copied(&mut self, taking: &mut Taking<'_>) {
        let going: HashSet<u64> = taking.moves.iter().map(|going| going.ino).collect();
        let mut copied = std::mem::take(&mut self.copied);
        copied.forget(|kept| going.contains(&kept.candidate.ino));
        let bound = Bound::UntilReached(copied.need().saturating_sub(taking.copied_bytes));
        if self.pressed_need == 0 {
            return self.take(taking, copied, MoveAction::CopyAhead, (bound, Skip::NotNeeded));
        }
        // These were counted already as what does not go; those that are copied count no more.
        let counted = self.skipped.clone();
        let stored: HashMap<u64, u64> = copied.stored_bytes();
        let before = taking.moves.len();
        self.take(taking, copied, MoveAction::CopyAhead, (bound, Skip::NotNeeded));
        self.skipped = counted;
        for copy in &taking.moves[before..] {
            let why = self.passed_over.get(&copy.ino).copied().unwrap_or(Skip::NotNeeded);
            let count = self.skipped.entry(why).or_default();
            count.files = count.files.saturating_sub(1);
            let bytes = stored.get(&copy.ino).copied().unwrap_or_default();
            count.bytes = count.bytes.saturating_sub(bytes);
        }
        self.skipped.retain(|_, count| count.files > 0);
    }

    /// Takes the best of a kind as far as its bound and the limits of the run allow.
    fn take(
        &mut self,
        taking: &mut Taking<'_>,
        best: Best,
        action: MoveAction,
        (bound, otherwise): (Bound, Skip),
    ) {
        let offered = best.offered();
        let mut seen = Count::default();
        let mut sum: u64 = 0;
        for kept in best.into_sorted() {
            let one = Count::one(&kept.candidate);
            let (ino, after) = (kept.candidate.ino, sum.saturating_add(kept.bytes));
            let fits = match bound {
                Bound::AtMost(bytes) => after <= bytes,
                Bound::UntilReached(bytes) => sum < bytes,
            };
            seen.files += 1;
            seen.bytes = seen.bytes.saturating_add(one.bytes);
            let taken = if fits { taking.take(kept, action) } else { Err(otherwise) };
            match taken {
                Ok(()) => sum = after,
                Err(why) => {
                    self.skip(why, one);
                    self.passed_over.insert(ino, why);
                }
            }
        }
        let files = offered.files.saturating_sub(seen.files);
        let bytes = offered.bytes.saturating_sub(seen.bytes);
        self.skip(otherwise, Count { files, bytes });
    }
}

/// How much of a kind is taken.
#[derive(Clone, Copy)]
enum Bound {
    /// No more than this.
    AtMost(u64),
    /// No more once this is reached.
    UntilReached(u64),
}

/// Moves that are taken, and what is left for others.
struct Taking<'a> {
    policy: &'a Policy,
    rules: &'a Rules,
    moves: Vec<Move>,
    totals: Totals,
    moves_left: u64,
    bytes_left: u64,
    cold_left: u64,
    /// Bytes that get their first copy in cold.
    copied_bytes: u64,
}

impl Taking<'_> {
    fn take(&mut self, kept: Kept, action: MoveAction) -> Result<(), Skip> {
        let Kept { bytes, candidate, decision, .. } = kept;
        let subject = candidate.subject();
        let is_up = action == MoveAction::Promote;
        let transfer = if is_up { bytes } else { subject.hot_only_bytes() };
        if self.moves_left == 0 || bytes > self.bytes_left {
            return Err(Skip::Limit);
        }
        if !is_up && transfer > self.cold_left {
            return Err(Skip::ColdFull);
        }
        let prices = &self.policy.tier.cold;
        let (requests, cost) = if is_up {
            let requests = get_requests(transfer);
            (requests, prices.get_cost(requests, transfer))
        } else {
            let requests = transfer.div_ceil(PUT_BYTES);
            self.cold_left -= transfer;
            self.copied_bytes += transfer;
            self.totals.cost_per_month += prices.month_cost(transfer);
            (requests, prices.put_cost(requests))
        };
        self.moves_left -= 1;
        self.bytes_left -= bytes;
        let totals = &mut self.totals;
        totals.moves += 1;
        totals.bytes = totals.bytes.saturating_add(bytes);
        totals.transfer_bytes = totals.transfer_bytes.saturating_add(transfer);
        totals.requests += requests;
        totals.cost += cost;
        if action == MoveAction::Demote {
            totals.freed_bytes = totals.freed_bytes.saturating_add(bytes);
        }
        self.moves.push(Move {
            ino: candidate.ino,
            action,
            bytes,
            transfer_bytes: transfer,
            requests,
            cost,
            rule: decision.rule(),
            why: self.rules.why(&subject, &decision),
            path: candidate.path,
        });
        Ok(())
    }
}

/// What stands against a move of a file now, other than room and limits.
pub fn obstacle(candidate: &Candidate, decision: Decision, defaults: &Defaults) -> Option<Skip> {
    want(candidate, decision, defaults).err()
}

/// Requests to cold that bring so many bytes back, about.
pub const fn get_requests(bytes: u64) -> u64 {
    bytes.div_ceil(GET_BYTES)
}

/// Whether a file can move now, and what for.
fn want(candidate: &Candidate, decision: Decision, defaults: &Defaults) -> Result<Want, Skip> {
    let subject = candidate.subject();
    let up = |rank, otherwise| match (subject.cold_only_bytes(), candidate.dirty) {
        (0, _) => Err(otherwise),
        (_, true) => Err(Skip::Dirty),
        _ => Ok(Want::Promote(rank)),
    };
    let wanted = match decision.action {
        Action::PinHot => return up(0, Skip::Pinned),
        Action::Promote => return up(1, Skip::InPlace),
        Action::Leave => return Err(Skip::LeftAlone),
        Action::PinCold | Action::Demote => Want::Demote,
        Action::MayGo | Action::Keep if candidate.only_in_snapshots => Want::Spare(0),
        Action::MayGo => Want::Spare(1),
        Action::Keep => Want::Spare(2),
    };
    if candidate.hot_bytes == 0 {
        let pinned = decision.action == Action::PinCold;
        Err(if pinned { Skip::Pinned } else { Skip::InPlace })
    } else if candidate.dirty {
        Err(Skip::Dirty)
    } else if candidate.age < defaults.settle.0 {
        Err(Skip::Unsettled)
    } else if candidate.size < defaults.min_size.0 && decision.reason != Reason::Pin {
        Err(Skip::TooSmall)
    } else {
        Ok(wanted)
    }
}

fn limit(defaults: &Defaults) -> u64 {
    defaults.max_bytes_per_run.map_or(u64::MAX, |size| size.0)
}

fn most_moves(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(MAX_PLANNED).min(MAX_PLANNED)
}

#[cfg(test)]
mod tests;
