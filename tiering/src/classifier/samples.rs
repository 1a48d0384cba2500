//! What candidates looked like, and what became of them.
//!
//! A sample is taken at a time when its item might have gone; its label is known a horizon later: it
//! was accessed meanwhile, or not. Until then it waits, whether or not the item was moved, whether
//! or not the answer is clear already: to let the clear ones out first would fill the memory with
//! the quick ones. Callers leave out scans. All bounded; times that step back count as the latest.
//!
//! The memory is saved as a whole now and then, not at each access. After a crash accesses since the
//! last save are lost, and labels would come out cold that are not: the caller then calls
//! [`Samples::forget_pending`].

use std::collections::{HashMap, VecDeque};

use super::bytes::{Reader, damaged};
use super::model::{Decision, Scorer, Verdict};
use crate::envelope::{self, Kind};
use crate::error::Result;
use crate::heat::AHEAD_MS;
use crate::heat::features::{COUNT, Features, IDLE_AT, bounded};
use crate::mix::ByMix;

const KIND: Kind = Kind { tag: *b"smpl", name: "samples", version: 2, max_plain_len: MAX_LEN };

/// Bytes of the longest memory: both parts full at the largest limits.
const MAX_LEN: usize = 64 << 20;

/// Most samples of either part.
const MOST: usize = 128 * 1024;

/// How many samples there may be, and how often they are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Labelled samples that are kept, the newest.
    pub matured: usize,
    /// Samples that wait for their label.
    pub pending: usize,
    /// Sampling times in one horizon.
    pub slots: u64,
    /// Samples at each.
    pub each: usize,
}

impl Default for Limits {
    /// 2,048 samples in a horizon, eight horizons of them: 4 MiB.
    fn default() -> Self {
        Self { matured: 16 * 1024, pending: 4096, slots: 64, each: 32 }
    }
}

/// A labelled sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// When it was taken, in ms since 1970.
    pub at_ms: u64,
    /// Of which item: samples of one say less than samples of many.
    pub item: u64,
    /// What the item looked like then.
    pub features: Features,
    /// Whether it was accessed within the horizon after.
    pub reused: bool,
    /// The score that the model in use gave it then: it had learned from older samples only, which makes
    /// this one fit to calibrate with.
    pub score: Option<(Scorer, f32)>,
}

/// What the model in use said when a sample was taken, and what came of it: the only evaluation
/// that cannot know the future.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// When the prediction was made, in ms since 1970.
    pub at_ms: u64,
    /// About which item.
    pub item: u64,
    /// What was said; `None` when there was no model.
    pub said: Option<Verdict>,
    /// Logarithm of the time since the last access then: what an age rule would have looked at.
    pub idle: f32,
    /// Whether it was accessed within the horizon.
    pub reused: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Pending {
    sample: Sample,
    said: Option<Verdict>,
    /// Its item was deleted: there is no answer.
    void: bool,
}

/// The samples of a volume.
#[derive(Clone, Debug)]
pub struct Samples {
    horizon_ms: u64,
    limits: Limits,
    now_ms: u64,
    next_ms: u64,
    /// By time, the oldest first; the number of the first is `first`.
    pending: VecDeque<Pending>,
    first: u64,
    /// The pending samples of an item that was not accessed since.
    waiting: HashMap<u64, Vec<u64>, ByMix>,
    matured: VecDeque<Sample>,
    taken: u64,
}

impl Samples {
    /// No samples yet.
    pub fn new(horizon_ms: u64, limits: Limits) -> Self {
        let limits = Limits {
            matured: limits.matured.clamp(1, MOST),
            pending: limits.pending.clamp(1, MOST),
            slots: limits.slots.max(1),
            each: limits.each,
        };
        Self {
            horizon_ms: horizon_ms.max(1),
            limits,
            now_ms: 0,
            next_ms: 0,
            pending: VecDeque::new(),
            first: 0,
            waiting: HashMap::default(),
            matured: VecDeque::new(),
            taken: 0,
        }
    }

    /// How far labels look ahead, in ms.
    pub fn horizon_ms(&self) -> u64 {
        self.horizon_ms
    }

    /// What time it is. A clock that goes back a little stands still; one that goes back further was
    /// ahead before.
    fn advance(&mut self, now_ms: u64) {
        if self.now_ms > now_ms.saturating_add(AHEAD_MS) {
            self.settle(now_ms);
        }
        self.now_ms = self.now_ms.max(now_ms);
    }

    /// Drops samples that wait and were taken later than now, by a clock that was wrong: their label
    /// would be long in coming. Labelled ones count as taken now.
    pub fn settle(&mut self, now_ms: u64) {
        while self.pending.back().is_some_and(|newest| newest.sample.at_ms > now_ms) {
            self.drop_newest();
        }
        for sample in self.matured.iter_mut().rev().take_while(|sample| sample.at_ms > now_ms) {
            sample.at_ms = now_ms;
        }
        self.now_ms = self.now_ms.min(now_ms);
        self.next_ms = self.next_ms.min(now_ms.saturating_add(self.interval_ms()));
    }

    /// Between two sampling times.
    fn interval_ms(&self) -> u64 {
        (self.horizon_ms / self.limits.slots).max(1)
    }

    /// How many candidates should be looked at now; mostly none. Asking counts as a sampling time.
    pub fn due(&mut self, now_ms: u64) -> usize {
        self.advance(now_ms);
        if self.now_ms < self.next_ms {
            return 0;
        }
        self.next_ms = self.now_ms.saturating_add(self.interval_ms());
        self.limits.each.min(self.limits.pending - self.pending.len())
    }

    /// Takes a sample of a candidate. Refused (`false`) when as many wait as may.
    pub fn offer(
        &mut self,
        item: u64,
        features: &Features,
        said: Option<Verdict>,
        now_ms: u64,
    ) -> bool {
        self.now_ms = self.now_ms.max(now_ms);
        if self.pending.len() >= self.limits.pending {
            return false;
        }
        let number = self.first + self.pending.len() as u64;
        self.waiting.entry(item).or_default().push(number);
        let features = features.map(bounded);
        let score = said.map(|said| (said.scorer, said.score));
        let sample = Sample { at_ms: self.now_ms, item, features, reused: false, score };
        self.pending.push_back(Pending { sample, said, void: false });
        self.taken += 1;
        true
    }

    /// An item was accessed, by anything but a scan.
    pub fn accessed(&mut self, item: u64, at_ms: u64) {
        self.now_ms = self.now_ms.max(at_ms);
        let Some(numbers) = self.waiting.remove(&item) else { return };
        for number in numbers {
            if let Some(pending) = self.pending.get_mut((number - self.first) as usize) {
                let after_ms = self.now_ms - pending.sample.at_ms;
                pending.sample.reused = after_ms <= self.horizon_ms;
            }
        }
    }

    /// An item was deleted: what would have become of it, nobody can tell.
    pub fn deleted(&mut self, item: u64) {
        let Some(numbers) = self.waiting.remove(&item) else { return };
        for number in numbers {
            if let Some(pending) = self.pending.get_mut((number - self.first) as usize) {
                pending.void = true;
            }
        }
    }

    /// Lets samples whose horizon has passed join the labelled ones, and tells what came of them.
    pub fn mature(&mut self, now_ms: u64, mut tell: impl FnMut(Outcome)) {
        self.advance(now_ms);
        while let Some(oldest) = self.pending.front() {
            if self.now_ms - oldest.sample.at_ms <= self.horizon_ms {
                break;
            }
            let Some(oldest) = self.pending.pop_front() else { break };
            self.unlist(oldest.sample.item, self.first);
            self.first += 1;
            if oldest.void {
                continue;
            }
            let Sample { at_ms, item, features, reused, .. } = oldest.sample;
            tell(Outcome { at_ms, item, said: oldest.said, idle: features[IDLE_AT], reused });
            if self.matured.len() >= self.limits.matured {
                self.matured.pop_front();
            }
            self.matured.push_back(oldest.sample);
        }
    }

    fn unlist(&mut self, item: u64, number: u64) {
        if let Some(numbers) = self.waiting.get_mut(&item) {
            numbers.retain(|&other| other != number);
            if numbers.is_empty() {
                self.waiting.remove(&item);
            }
        }
    }

    /// The labelled samples, by time.
    pub fn matured(&self) -> Vec<&Sample> {
        self.matured.iter().collect()
    }

    /// Labelled samples.
    pub fn len(&self) -> usize {
        self.matured.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.matured.is_empty()
    }

    /// Samples that wait for their label.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Samples taken since this memory was made or read.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Drops what waits for its label: accesses may have been missed.
    pub fn forget_pending(&mut self) {
        self.first += self.pending.len() as u64;
        self.pending.clear();
        self.waiting.clear();
    }

    /// Its bytes, as `tiering/FORMAT.md` says under "Samples".
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.horizon_ms.to_le_bytes());
        out.extend_from_slice(&(COUNT as u16).to_le_bytes());
        out.extend_from_slice(&(self.matured.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.pending.len() as u32).to_le_bytes());
        self.matured.iter().for_each(|sample| put_sample(&mut out, sample));
        for pending in &self.pending {
            put_sample(&mut out, &pending.sample);
            out.push(u8::from(pending.void));
            put_verdict(&mut out, pending.said);
        }
        Ok(envelope::seal(KIND, &out)?.0.to_vec())
    }

    /// The memory of some bytes, within `limits`. Samples of another horizon are useless: then, and
    /// only then, the memory comes back empty. `Error::Damaged` or `Error::TooNew` otherwise.
    pub fn decode(sealed: &[u8], horizon_ms: u64, limits: Limits) -> Result<Self> {
        let (plain, version, _) = envelope::open(KIND, sealed)?;
        let mut input = Reader::new(&plain);
        let stored_ms = input.u64()?;
        let features = input.u16()?;
        let (matured, pending) = (input.u32()? as usize, input.u32()? as usize);
        if usize::from(features) != COUNT || matured > MOST || pending > MOST {
            return Err(damaged(format!("{matured} and {pending} samples of {features} features")));
        }
        type Take<T> = fn(&mut Reader<'_>) -> Result<T>;
        let (take, take_pending): (Take<Sample>, Take<Pending>) = match version {
            1 => (first::take_sample, first::take_pending),
            2 => (take_sample, take_pending),
            other => return Err(damaged(format!("version {other}"))),
        };
        let mut samples = Self::new(horizon_ms, limits);
        let mut last_ms = 0;
        for _ in 0..matured {
            samples.matured.push_back(in_order(take(&mut input)?, &mut last_ms)?);
        }
        last_ms = 0;
        for _ in 0..pending {
            let pending = take_pending(&mut input)?;
            let sample = in_order(pending.sample, &mut last_ms)?;
            if !sample.reused && !pending.void {
                let number = samples.pending.len() as u64;
                samples.waiting.entry(sample.item).or_default().push(number);
            }
            samples.pending.push_back(Pending { sample, ..pending });
        }
        input.end()?;
        samples.now_ms = last_ms;
        samples.fit();
        if stored_ms == samples.horizon_ms {
            Ok(samples)
        } else {
            Ok(Self::new(horizon_ms, limits))
        }
    }

    /// Drops what exceeds the limits: the oldest of the labelled, the newest of the waiting.
    fn fit(&mut self) {
        let excess = self.matured.len().saturating_sub(self.limits.matured);
        self.matured.drain(..excess);
        while self.pending.len() > self.limits.pending {
            self.drop_newest();
        }
    }

    fn drop_newest(&mut self) {
        if let Some(newest) = self.pending.pop_back() {
            self.unlist(newest.sample.item, self.first + self.pending.len() as u64);
        }
    }
}

fn in_order(sample: Sample, last_ms: &mut u64) -> Result<Sample> {
    if sample.at_ms < *last_ms {
        return Err(damaged("samples are out of order".to_owned()));
    }
    *last_ms = sample.at_ms;
    Ok(sample)
}

fn put_sample(out: &mut Vec<u8>, sample: &Sample) {
    out.extend_from_slice(&sample.at_ms.to_le_bytes());
    out.extend_from_slice(&sample.item.to_le_bytes());
    out.push(u8::from(sample.reused));
    let (scorer, score) = match sample.score {
        None => (0, 0.0),
        Some((Scorer::Forest, score)) => (1, score),
        Some((Scorer::Logistic, score)) => (2, score),
    };
    out.push(scorer);
    out.extend_from_slice(&score.to_le_bytes());
    sample.features.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
}

fn take_sample(input: &mut Reader<'_>) -> Result<Sample> {
    let (at_ms, item) = (input.u64()?, input.u64()?);
    let reused = input.u8()? != 0;
    let (scorer, score) = (input.u8()?, input.share()?);
    let score = match scorer {
        0 => None,
        1 => Some((Scorer::Forest, score)),
        2 => Some((Scorer::Logistic, score)),
        other => return Err(damaged(format!("a scorer of type {other}"))),
    };
    Ok(Sample { at_ms, item, features: take_features(input)?, reused, score })
}

fn take_features(input: &mut Reader<'_>) -> Result<Features> {
    let mut features = [0.0; COUNT];
    for value in &mut features {
        *value = bounded(input.finite()?);
    }
    Ok(features)
}

fn take_pending(input: &mut Reader<'_>) -> Result<Pending> {
    let sample = take_sample(input)?;
    let void = input.u8()? != 0;
    let (code, p_reuse) = (input.u8()?, input.share()?);
    let said = match (decision(code)?, sample.score) {
        (None, _) => None,
        (Some(_), None) => return Err(damaged("a verdict without a score".to_owned())),
        (Some((decision, reuse)), Some((scorer, score))) => {
            Some(Verdict { p_reuse, decision, reuse, score, scorer })
        }
    };
    Ok(Pending { sample, said, void })
}

fn put_verdict(out: &mut Vec<u8>, said: Option<Verdict>) {
    let code = match said.map(|said| said.decision) {
        None => 0,
        Some(Decision::StaysCold) => 1,
        Some(Decision::Reused) => 2,
        Some(Decision::Unsure) => 3,
    };
    out.push(code | u8::from(said.is_some_and(|said| said.reuse)) << 7);
    out.extend_from_slice(&said.map_or(0.0, |said| said.p_reuse).to_le_bytes());
}

/// The decision, and whether the likelier answer was reuse; `None` when nothing was said.
fn decision(byte: u8) -> Result<Option<(Decision, bool)>> {
    let decision = match byte & 0x7f {
        0 => return Ok(None),
        1 => Decision::StaysCold,
        2 => Decision::Reused,
        3 => Decision::Unsure,
        other => return Err(damaged(format!("the decision {other}"))),
    };
    Ok(Some((decision, byte >> 7 == 1)))
}

/// Samples of the first version.
mod first {
    use super::{Pending, Reader, Result, Sample, decision, take_features};

    /// It told neither the item nor the score: each sample is taken for one of an item of its own.
    pub(super) fn take_sample(input: &mut Reader<'_>) -> Result<Sample> {
        let item = input.left() as u64;
        let at_ms = input.u64()?;
        let reused = input.u8()? != 0;
        Ok(Sample { at_ms, item, features: take_features(input)?, reused, score: None })
    }

    /// What had been said is left out, since what scored it is not known.
    pub(super) fn take_pending(input: &mut Reader<'_>) -> Result<Pending> {
        let sample = take_sample(input)?;
        let (item, void) = (input.u64()?, input.u8()? != 0);
        decision(input.u8()?)?;
        input.share()?;
        input.share()?;
        Ok(Pending { sample: Sample { item, ..sample }, said: None, void })
    }
}
