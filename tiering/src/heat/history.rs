//! One item's past: how often, how recently, how regularly and how it was used.
//!
//! The unit is the *visit*: an open, or reads and writes after a minute without any. The many
//! reads of one pass through a large file are one visit, or its length would pass for heat.
//! Everything is updated in place in constant time, saturates instead of overflowing, and takes a
//! clock that goes back by less than an hour for one that stands still; one that goes back further
//! was ahead before, and what it said then counts as now ([`History::settle`]). A lost update costs precision only, so
//! nobody needs to make this durable at once. Bytes are specified in `tiering/FORMAT.md`, "Access
//! history".

use std::f32::consts::TAU;

use crate::error::{Error, Result};

/// Half-lives of the decayed visit counts, in ms: a minute, ten minutes, an hour, a day, a week,
/// thirty days. Wide apart, because the horizon of a volume is its owner's choice.
pub const HALF_LIVES_MS: [u64; DECAYS] =
    [MINUTE_MS, 10 * MINUTE_MS, HOUR_MS, DAY_MS, WEEK_MS, 30 * DAY_MS];

/// How many decayed counts there are.
pub const DECAYS: usize = 6;

/// How many gaps between visits are remembered.
pub const GAPS: usize = 8;

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
/// A day.
pub(super) const DAY_MS: u64 = 24 * HOUR_MS;
/// A week.
pub(super) const WEEK_MS: u64 = 7 * DAY_MS;

/// A time that is further ahead of now was noted by a clock that was wrong, in ms.
pub const AHEAD_MS: u64 = HOUR_MS;

/// Reads and writes this long after the last access begin a visit of their own.
const VISIT_MS: u64 = MINUTE_MS;

/// The decayed counts whose mean is [`History::heat`]: an hour to thirty days.
const HEAT_FROM: usize = 2;

/// Steps of a stored gap for each doubling: 42 doublings of a millisecond, 139 years, fit a byte.
const GAP_STEPS: f32 = 6.0;

/// Weight of the newest gap in the running mean and variance of their logarithms.
const GAP_WEIGHT: f32 = 0.3;

/// Least weight of the newest visit in shares and usual times; the first ones weigh more.
const SHARE_WEIGHT: f32 = 0.1;

/// Full scale of the shares and phases that are kept in 16 bits.
const FULL: f32 = 32_767.0;

/// What was done with an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessKind {
    /// It was opened, or used as a whole: always a visit.
    Open,
    /// Bytes were read.
    Read,
    /// Bytes were written.
    Write,
}

/// One access to an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// When, in ms since 1970.
    pub at_ms: u64,
    /// What was done.
    pub kind: AccessKind,
    /// Bytes touched.
    pub bytes: u64,
    /// Whether it went on where the last one ended.
    pub sequential: bool,
}

/// One item's past, or that of all items with something in common (a directory, an owner).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct History {
    first_ms: u64,
    last_ms: u64,
    /// 0 while nothing was written.
    last_write_ms: u64,
    bytes: u64,
    reads: u32,
    writes: u32,
    visits: u32,
    /// Visits, each halved every [`HALF_LIVES_MS`], as of the last visit.
    decayed: [f32; DECAYS],
    visit_ms: u64,
    gap_mean: f32,
    gap_var: f32,
    /// Logarithms of the gaps between visits, the newest first; 0 is none.
    gaps: [u8; GAPS],
    /// Mean direction of the visits on the circle of the day, then of the week.
    phases: [i16; 4],
    sequential: u16,
    again: u16,
}

impl History {
    /// Bytes of [`Self::encode`].
    pub const ENCODED_LEN: usize = 104;

    /// The past of something that appeared now and was not used yet.
    pub fn new(now_ms: u64) -> Self {
        Self {
            first_ms: now_ms,
            last_ms: now_ms,
            last_write_ms: 0,
            bytes: 0,
            reads: 0,
            writes: 0,
            visits: 0,
            decayed: [0.0; DECAYS],
            visit_ms: now_ms,
            gap_mean: 0.0,
            gap_var: 0.0,
            gaps: [0; GAPS],
            phases: [0; 4],
            sequential: 0,
            again: 0,
        }
    }

    /// Takes in an access to this item.
    pub fn note(&mut self, access: &Access) {
        self.note_member(access, self.visits > 0);
    }

    /// Takes in an access to one of the items that this is the common past of; `again` says
    /// whether that item had been visited before.
    pub fn note_member(&mut self, access: &Access, again: bool) {
        if self.last_ms > access.at_ms.saturating_add(AHEAD_MS) {
            self.settle(access.at_ms);
        }
        let at_ms = access.at_ms.max(self.last_ms);
        let idle_ms = at_ms - self.last_ms;
        self.last_ms = at_ms;
        self.bytes = self.bytes.saturating_add(access.bytes);
        match access.kind {
            AccessKind::Open => {}
            AccessKind::Read => self.reads = self.reads.saturating_add(1),
            AccessKind::Write => {
                self.writes = self.writes.saturating_add(1);
                self.last_write_ms = at_ms;
            }
        }
        if access.kind == AccessKind::Open || self.visits == 0 || idle_ms >= VISIT_MS {
            self.visit(at_ms, again);
        }
        if access.bytes > 0 {
            let weight = self.share_weight();
            blend(&mut self.sequential, f32::from(u8::from(access.sequential)), weight);
        }
    }

    /// Takes times that lie ahead for now: the clock that noted them was wrong.
    pub fn settle(&mut self, now_ms: u64) {
        let Self { first_ms, last_ms, last_write_ms, visit_ms, .. } = self;
        for time in [first_ms, last_ms, last_write_ms, visit_ms] {
            *time = (*time).min(now_ms);
        }
    }

    fn visit(&mut self, at_ms: u64, again: bool) {
        let gap_ms = at_ms.saturating_sub(self.visit_ms);
        for (count, half_life) in self.decayed.iter_mut().zip(HALF_LIVES_MS) {
            *count = *count * faded(gap_ms, half_life) + 1.0;
        }
        if self.visits > 0 {
            let log = log_ms(gap_ms);
            let off = log - self.gap_mean;
            if self.visits == 1 {
                self.gap_mean = log;
            } else {
                self.gap_mean += GAP_WEIGHT * off;
                self.gap_var = (1.0 - GAP_WEIGHT) * (self.gap_var + GAP_WEIGHT * off * off);
            }
            self.gaps.copy_within(..GAPS - 1, 1);
            self.gaps[0] = 1 + (log * GAP_STEPS).round().min(254.0) as u8;
        }
        self.visits = self.visits.saturating_add(1);
        self.visit_ms = at_ms;
        let weight = self.share_weight();
        blend(&mut self.again, f32::from(u8::from(again)), weight);
        for (at, period) in [(0, DAY_MS), (2, WEEK_MS)] {
            let (sin, cos) = angle(at_ms, period).sin_cos();
            blend_phase(&mut self.phases[at], cos, weight);
            blend_phase(&mut self.phases[at + 1], sin, weight);
        }
    }

    fn share_weight(&self) -> f32 {
        SHARE_WEIGHT.max(1.0 / self.visits.max(1) as f32)
    }

    /// How warm: 1 for something visited once, just now; it falls by a quarter each over hours,
    /// days, a week and months, and adds up over visits.
    pub fn heat(&self, now_ms: u64) -> f32 {
        let counts = self.decayed(now_ms);
        counts[HEAT_FROM..].iter().sum::<f32>() / (DECAYS - HEAT_FROM) as f32
    }

    /// Visits as they count now, halved every [`HALF_LIVES_MS`].
    pub fn decayed(&self, now_ms: u64) -> [f32; DECAYS] {
        let gone_ms = now_ms.saturating_sub(self.visit_ms);
        std::array::from_fn(|i| self.decayed[i] * faded(gone_ms, HALF_LIVES_MS[i]))
    }

    /// Since the last access, in ms.
    pub fn idle_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.last_ms)
    }

    /// Since the last write, in ms; `None` where nothing was written.
    pub fn unwritten_ms(&self, now_ms: u64) -> Option<u64> {
        (self.last_write_ms > 0).then(|| now_ms.saturating_sub(self.last_write_ms))
    }

    /// When it was first seen, in ms since 1970.
    pub fn first_ms(&self) -> u64 {
        self.first_ms
    }

    /// When it was last accessed, in ms since 1970.
    pub fn last_ms(&self) -> u64 {
        self.last_ms
    }

    /// Visits so far.
    pub fn visits(&self) -> u32 {
        self.visits
    }

    /// Reads so far.
    pub fn reads(&self) -> u32 {
        self.reads
    }

    /// Writes so far.
    pub fn writes(&self) -> u32 {
        self.writes
    }

    /// Bytes touched so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Share of the recent accesses that went on where the one before ended.
    pub fn sequential(&self) -> f32 {
        f32::from(self.sequential) / FULL
    }

    /// Share of the recent visits that were not the first one to their item.
    pub fn again(&self) -> f32 {
        f32::from(self.again) / FULL
    }

    /// Logarithm (base 2, of ms + 1) of the `n`th gap between visits, the newest being 0.
    pub fn gap(&self, n: usize) -> Option<f32> {
        let gap = *self.gaps.get(n)?;
        (gap > 0).then(|| f32::from(gap - 1) / GAP_STEPS)
    }

    /// Running mean and variance of the logarithms of the gaps; `None` before the second visit.
    pub fn gap_spread(&self) -> Option<(f32, f32)> {
        (self.gaps[0] > 0).then_some((self.gap_mean, self.gap_var))
    }

    /// How much the visits keep to a time of the day and of the week (0 to 1 each), and how long
    /// it is from now until then, as a share of the period.
    pub fn usual(&self, now_ms: u64) -> [(f32, f32); 2] {
        [(0, DAY_MS), (2, WEEK_MS)].map(|(at, period)| {
            let (cos, sin) =
                (f32::from(self.phases[at]) / FULL, f32::from(self.phases[at + 1]) / FULL);
            let until = (sin.atan2(cos) - angle(now_ms, period)).rem_euclid(TAU) / TAU;
            (cos.hypot(sin).min(1.0), until.min(1.0))
        })
    }

    /// The bytes of this past.
    pub fn encode(&self) -> [u8; Self::ENCODED_LEN] {
        let mut out = [0; Self::ENCODED_LEN];
        let mut rest = out.as_mut_slice();
        for field in [self.first_ms, self.last_ms, self.last_write_ms, self.visit_ms, self.bytes] {
            put(&mut rest, &field.to_le_bytes());
        }
        for field in [self.reads, self.writes, self.visits] {
            put(&mut rest, &field.to_le_bytes());
        }
        for field in self.decayed.iter().chain([&self.gap_mean, &self.gap_var]) {
            put(&mut rest, &field.to_le_bytes());
        }
        put(&mut rest, &self.gaps);
        for field in self.phases {
            put(&mut rest, &field.to_le_bytes());
        }
        for field in [self.sequential, self.again] {
            put(&mut rest, &field.to_le_bytes());
        }
        debug_assert!(rest.is_empty());
        out
    }

    /// The past that [`Self::encode`] wrote. [`Error::Damaged`] for what it never writes.
    pub fn decode(bytes: &[u8; Self::ENCODED_LEN]) -> Result<Self> {
        let mut rest = bytes.as_slice();
        let mut u64s = [0; 5];
        u64s.iter_mut().for_each(|field| *field = u64::from_le_bytes(take(&mut rest)));
        let [first_ms, last_ms, last_write_ms, visit_ms, bytes] = u64s;
        let mut u32s = [0; 3];
        u32s.iter_mut().for_each(|field| *field = u32::from_le_bytes(take(&mut rest)));
        let [reads, writes, visits] = u32s;
        let mut decayed = [0.0; DECAYS];
        decayed.iter_mut().for_each(|field| *field = f32::from_le_bytes(take(&mut rest)));
        let gap_mean = f32::from_le_bytes(take(&mut rest));
        let gap_var = f32::from_le_bytes(take(&mut rest));
        let gaps = take(&mut rest);
        let mut phases = [0; 4];
        phases.iter_mut().for_each(|field| *field = i16::from_le_bytes(take(&mut rest)));
        let sequential = u16::from_le_bytes(take(&mut rest));
        let again = u16::from_le_bytes(take(&mut rest));
        let history = Self {
            first_ms,
            last_ms,
            last_write_ms,
            bytes,
            reads,
            writes,
            visits,
            decayed,
            visit_ms,
            gap_mean,
            gap_var,
            gaps,
            phases,
            sequential,
            again,
        };
        history.check()?;
        Ok(history)
    }

    fn check(&self) -> Result<()> {
        let damaged = |reason: &str| Error::Damaged { what: "history", reason: reason.to_owned() };
        let in_order = self.first_ms <= self.visit_ms && self.visit_ms <= self.last_ms;
        if !in_order || self.last_write_ms > self.last_ms {
            return Err(damaged("its times are out of order"));
        }
        let counts = self.decayed.iter().chain([&self.gap_mean, &self.gap_var]);
        if !counts.clone().all(|value| value.is_finite() && *value >= 0.0) {
            return Err(damaged("a count is negative or not a number"));
        }
        if f32::from(self.sequential.max(self.again)) > FULL {
            return Err(damaged("a share exceeds the whole"));
        }
        Ok(())
    }
}

/// Logarithm to the base of 2 of a time in ms, 0 for 0: the scale on which times are compared.
pub(super) fn log_ms(ms: u64) -> f32 {
    (ms as f32 + 1.0).log2()
}

/// What is left of 1 after `gone_ms`.
fn faded(gone_ms: u64, half_life_ms: u64) -> f32 {
    (-(gone_ms as f32) / half_life_ms as f32).exp2()
}

fn angle(at_ms: u64, period_ms: u64) -> f32 {
    (at_ms % period_ms) as f32 / period_ms as f32 * TAU
}

fn blend(share: &mut u16, new: f32, weight: f32) {
    let old = f32::from(*share) / FULL;
    *share = ((old + weight * (new - old)) * FULL).round().clamp(0.0, FULL) as u16;
}

fn blend_phase(share: &mut i16, new: f32, weight: f32) {
    let old = f32::from(*share) / FULL;
    *share = ((old + weight * (new - old)) * FULL).round().clamp(-FULL, FULL) as i16;
}

fn put(out: &mut &mut [u8], field: &[u8]) {
    let (head, rest) = std::mem::take(out).split_at_mut(field.len());
    head.copy_from_slice(field);
    *out = rest;
}

fn take<const N: usize>(input: &mut &[u8]) -> [u8; N] {
    let (head, rest) = input.split_at(N);
    *input = rest;
    let mut array = [0; N];
    array.copy_from_slice(head);
    array
}

#[cfg(test)]
mod tests;
