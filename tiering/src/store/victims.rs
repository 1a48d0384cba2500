//! Whom the mover sends away first: what only snapshots hold, then the coldest; what is pinned only
//! when writers wait and nothing else can go (see `yielding`).
//!
//! A steward (see [`Steward`](super::Steward)) knows files, so it is asked, coldest segments first
//! and as many as are needed; what it says decides the order for [`VERDICT_AGE`]. Whether a block
//! may go is asked again just before it goes. Without a steward warmth alone decides. An error of
//! the steward drops nothing. Nothing of this is stored: after a crash it is asked anew.

use std::time::{Duration, Instant};

use crate::block::BlockId;
use crate::catalog::ColdCopy;
use crate::error::{Error, Result};
use crate::segment::{IndexEntry, SegmentId};

use super::Inner;
use super::gates::{Steward, Temper};
use super::heat::decayed;
use super::mover::ids_of;
use super::table::Segment;
use super::upload::CALL_DEADLINE;

/// How long the order stays as the steward wanted it.
const VERDICT_AGE: Duration = Duration::from_secs(60);

/// Segments the steward is asked about before it is looked whether they suffice.
const ASKED_AT_ONCE: usize = 32;

/// Blocks asked about at once.
const ASK: usize = 4096;

/// What only snapshots hold is worth a hole where it is one in so many bytes of a segment.
const WORTH_HOLES: u64 = 16;

/// What a steward said of a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    at: Instant,
    /// Living frame bytes in hot that are not pinned.
    droppable: u64,
    /// Those of them that only snapshots hold.
    snapshots: u64,
    /// Living frame bytes in hot that are pinned.
    pub(super) pinned: u64,
    /// Mean heat of the rest.
    warmth: f32,
}

/// What of a segment is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All that is not pinned.
    All,
    /// What only snapshots hold.
    Snapshots,
    /// All, pinned or not.
    Pinned,
}

/// A claimed segment that is to go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Victim {
    pub(super) id: SegmentId,
    pub(super) part: Part,
}

/// A segment that may be a victim, in the order in which they go.
struct Candidate {
    id: SegmentId,
    part: Part,
    warmth: f32,
    last_s: u32,
    bytes: u64,
    verdict: Option<Verdict>,
}

impl Candidate {
    /// Snapshots first, then the coldest, then what was read longest ago, then the oldest.
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        let class = |candidate: &Self| candidate.part == Part::All;
        class(self)
            .cmp(&class(other))
            .then(self.warmth.total_cmp(&other.warmth))
            .then(self.last_s.cmp(&other.last_s))
            .then(self.id.cmp(&other.id))
    }

    fn judged(mut self, verdict: Verdict, disk_bytes: u64) -> Self {
        self.verdict = Some(verdict);
        self.warmth += verdict.warmth;
        let mixed = verdict.snapshots < verdict.droppable || verdict.pinned > 0;
        let much = verdict.snapshots.saturating_mul(WORTH_HOLES)
            >= verdict.droppable.saturating_add(verdict.pinned);
        if verdict.snapshots > 0 && much {
            self.part = Part::Snapshots;
        }
        self.bytes = match self.part {
            Part::Snapshots if mixed => verdict.snapshots,
            _ if verdict.pinned > 0 => verdict.droppable,
            _ => disk_bytes,
        };
        self
    }
}

/// Pause before a segment that could not be judged is looked at again.
pub(super) const UNJUDGED_PAUSE: Duration = Duration::from_secs(60);

impl Inner {
    /// Claims segments whose going wins `excess` bytes, if there are so many.
    pub(super) fn victims(&self, excess: u64) -> Result<Vec<Victim>> {
        let (now, now_s) = (self.config.clock.instant(), self.now_s());
        let mut candidates = self.table.fold(Vec::new(), |mut list, segment| {
            let ready = segment.retry_at.is_none_or(|at| at <= now);
            if Self::may_drop(segment) && !segment.busy && ready && !self.is_spent(segment, now) {
                let heat = segment.heat.load();
                let candidate = Candidate {
                    id: segment.record.id,
                    part: Part::All,
                    warmth: decayed(heat, now_s),
                    last_s: heat.last_s(),
                    bytes: segment.disk_bytes,
                    verdict: None,
                };
                list.push(match segment.verdict.filter(|verdict| is_fresh(verdict, now)) {
                    Some(verdict) => candidate.judged(verdict, segment.disk_bytes),
                    None => candidate,
                });
            }
            list
        });
        candidates.sort_by(Candidate::order);
        if let Some(steward) = &self.config.steward {
            candidates = self.judge(candidates, &**steward, excess)?;
            candidates.sort_by(Candidate::order);
        }
        let goes = |one: Candidate| (Victim { id: one.id, part: one.part }, one.bytes);
        let mut victims = self.claim_until(excess, candidates.into_iter().map(goes));
        if victims.is_empty() && self.pins_give_way() {
            victims = self.pinned_victims(excess, now);
        }
        Ok(victims)
    }

    /// Claims segments with pinned blocks, the coldest first, for writers who have no other room.
    fn pinned_victims(&self, excess: u64, now: Instant) -> Vec<Victim> {
        let now_s = self.now_s();
        let mut pinned = self.table.fold(Vec::new(), |mut list, segment| {
            let ready = segment.retry_at.is_none_or(|at| at <= now);
            let holds = segment.verdict.is_some_and(|verdict| verdict.pinned > 0);
            if Self::may_drop(segment) && !segment.busy && ready && holds {
                let warmth = decayed(segment.heat.load(), now_s);
                list.push((warmth, segment.record.id, segment.disk_bytes));
            }
            list
        });
        pinned.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let goes = |(_, id, bytes)| (Victim { id, part: Part::Pinned }, bytes);
        self.claim_until(excess, pinned.into_iter().map(goes))
    }

    /// Claims victims in their order, each with the bytes that it wins, until they suffice.
    fn claim_until(&self, excess: u64, order: impl Iterator<Item = (Victim, u64)>) -> Vec<Victim> {
        let (mut victims, mut bytes) = (Vec::new(), 0);
        for (victim, wins) in order {
            if bytes >= excess {
                break;
            }
            if self.table.claim(victim.id) {
                bytes += wins;
                victims.push(victim);
            }
        }
        victims
    }

    /// Asks about candidates, in their order, until those with something to give suffice; returns
    /// these.
    fn judge(
        &self,
        candidates: Vec<Candidate>,
        steward: &dyn Steward,
        excess: u64,
    ) -> Result<Vec<Candidate>> {
        let mut judged = Vec::new();
        let mut bytes = 0;
        let mut asked = 0;
        let mut failure = None;
        for candidate in candidates {
            let candidate = match candidate.verdict {
                Some(_) => candidate,
                None => {
                    if asked >= ASKED_AT_ONCE && bytes >= excess {
                        break;
                    }
                    asked += 1;
                    let id = candidate.id;
                    let verdict = match self.verdict_on(id, steward) {
                        Ok(verdict) => verdict,
                        Err(error) => {
                            // One that cannot be judged must not keep all others in hot.
                            self.pause_verdict(id);
                            failure.get_or_insert(error);
                            continue;
                        }
                    };
                    self.table.update(id, |segment| segment.verdict = Some(verdict));
                    let disk_bytes = candidate.bytes;
                    candidate.judged(verdict, disk_bytes)
                }
            };
            if candidate.verdict.is_some_and(|verdict| verdict.droppable > 0 || verdict.pinned == 0)
            {
                bytes += candidate.bytes;
                judged.push(candidate);
            }
        }
        match failure {
            Some(error) if judged.is_empty() => Err(error),
            _ => Ok(judged),
        }
    }

    /// Leaves a segment alone for a while.
    fn pause_verdict(&self, id: SegmentId) {
        let retry_at = self.config.clock.instant() + UNJUDGED_PAUSE;
        self.table.update(id, |segment| segment.retry_at = Some(retry_at));
    }

    fn verdict_on(&self, id: SegmentId, steward: &dyn Steward) -> Result<Verdict> {
        let index = self.load_index(id, CALL_DEADLINE)?;
        let live = self.live_among(id, &ids_of(index.entries()))?;
        let holes = self.table.record(id).map(|record| record.holes).unwrap_or_default();
        let present = index.entries().iter().filter(|entry| {
            let frame = entry.frame_range();
            live.contains(&entry.id) && !holes.touches(frame.start, frame.end)
        });
        let present: Vec<IndexEntry> = present.cloned().collect();
        let tempers = ask(steward, &ids_of(&present))?;
        let at = self.config.clock.instant();
        let mut verdict = Verdict { at, droppable: 0, snapshots: 0, pinned: 0, warmth: 0.0 };
        let mut weighted = 0.0;
        for (entry, temper) in present.iter().zip(tempers) {
            let bytes = entry.frame_len();
            match temper {
                Temper::Pinned => verdict.pinned += bytes,
                Temper::SnapshotOnly => {
                    verdict.snapshots += bytes;
                    verdict.droppable += bytes;
                }
                Temper::Warm(heat) => {
                    weighted += sane(heat) * bytes as f32;
                    verdict.droppable += bytes;
                }
            }
        }
        let warm = verdict.droppable - verdict.snapshots;
        if warm > 0 {
            verdict.warmth = weighted / warm as f32;
        }
        Ok(verdict)
    }

    /// Those of a segment's living entries that may go now.
    pub(super) fn not_kept(&self, entries: Vec<IndexEntry>, part: Part) -> Result<Vec<IndexEntry>> {
        let Some(steward) = &self.config.steward else { return Ok(entries) };
        let tempers = ask(&**steward, &ids_of(&entries))?;
        let goes = |temper| match temper {
            Temper::Pinned => part == Part::Pinned,
            Temper::SnapshotOnly => true,
            Temper::Warm(_) => part != Part::Snapshots,
        };
        Ok(entries.into_iter().zip(tempers).filter(|(_, t)| goes(*t)).map(|(e, _)| e).collect())
    }

    /// For each of these blocks of a segment whether it is cold, as its steward or the warmth of
    /// the segment says. A steward that fails is no reason to stop: it is about order, not safety.
    pub(super) fn are_cold(&self, id: SegmentId, entries: &[IndexEntry]) -> Vec<bool> {
        let warmth = self.table.with(id, |segment| decayed(segment.heat.load(), self.now_s()));
        let cold = warmth.unwrap_or(0.0) < super::heat::COLD;
        let tempers = self.config.steward.as_ref().map(|s| ask(&**s, &ids_of(entries)));
        match tempers {
            None => vec![cold; entries.len()],
            Some(Err(error)) => {
                tracing::warn!(%id, %error, "the steward does not say how warm blocks are");
                vec![cold; entries.len()]
            }
            Some(Ok(tempers)) => tempers
                .into_iter()
                .map(|temper| match temper {
                    Temper::Pinned => false,
                    Temper::SnapshotOnly => true,
                    Temper::Warm(heat) => sane(heat) < super::heat::COLD,
                })
                .collect(),
        }
    }

    pub(super) fn may_drop(segment: &Segment) -> bool {
        segment.record.hot && segment.record.cold == ColdCopy::Verified
    }

    /// Whether all that could go of a segment has gone, as was found a short while ago.
    pub(super) fn is_spent(&self, segment: &Segment, now: Instant) -> bool {
        let spent = |verdict: Verdict| verdict.droppable == 0 && verdict.pinned > 0;
        segment.verdict.is_some_and(|verdict| is_fresh(&verdict, now) && spent(verdict))
    }

    /// Whether pins are why nothing more can be dropped.
    pub(super) fn pins_fill_hot(&self) -> bool {
        let now = self.config.clock.instant();
        self.table.fold(false, |found, segment| found || self.is_spent(segment, now))
    }

    /// Forgets what the steward said: pins or snapshots have changed.
    pub(super) fn forget_verdicts(&self) {
        for id in self.table.ids(|segment| segment.verdict.is_some()) {
            self.table.update(id, |segment| segment.verdict = None);
        }
        self.signals.kick_mover();
    }
}

fn is_fresh(verdict: &Verdict, now: Instant) -> bool {
    now.saturating_duration_since(verdict.at) < VERDICT_AGE
}

/// A heat that can be compared.
fn sane(heat: f32) -> f32 {
    if heat.is_finite() { heat.max(0.0) } else { 0.0 }
}

/// What the steward says of blocks, one answer for each.
pub(super) fn ask(steward: &dyn Steward, blocks: &[BlockId]) -> Result<Vec<Temper>> {
    let mut all = Vec::with_capacity(blocks.len());
    for part in blocks.chunks(ASK) {
        let tempers = steward.tempers(part)?;
        if tempers.len() != part.len() {
            let reason = format!("{} answers for {} blocks", tempers.len(), part.len());
            return Err(Error::Damaged { what: "temper", reason });
        }
        all.extend(tempers);
    }
    Ok(all)
}
