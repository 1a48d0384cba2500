//! From scores to decisions: the widest that keep what they promise beyond chance, on samples that
//! are later than those the scores were learned from.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::bytes::{Reader, damaged};
use super::calibrate::Calibration;
use super::model::Decision;
use crate::error::Result;
use crate::mix::ByMix;

/// What "will stay cold" promises.
pub(super) const COLD_PRECISION: f64 = 0.95;

/// What "will be used again" promises: it only delays a move that the age rule may make later.
const REUSED_PRECISION: f64 = 0.85;

/// Share of what a promise leaves open that is kept in hand for times that change.
const IN_HAND: f64 = 0.3;

/// Most that is ever asked for.
const STRICTEST: f64 = 0.99;

/// Deviations by which a share that was counted is trusted less: 95 % of one side.
const DOUBT: f64 = 1.645;

/// Fewest samples a decision may rest on, and the least share of all: of many thresholds one by the
/// edge keeps any promise by chance.
const FEWEST: usize = 60;
const LEAST_SHARE: f64 = 0.02;

/// A score with what came of it. What has the same source (an item within one horizon) was sampled
/// again and says nothing new.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Judged {
    pub(super) score: f32,
    pub(super) reused: bool,
    pub(super) source: u64,
}

/// Between its ends the classifier does not decide, and the age rule does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Band {
    /// Scores up to this say that the item stays cold; `None` when none did so reliably.
    pub cold_up_to: Option<f32>,
    /// Scores from this on say that it will be used again.
    pub reused_from: Option<f32>,
    /// Where the likelier answer changes, for who needs one in any case. The rarer one has to have
    /// earned it; 1 where reuse never did, 0 where staying cold never did.
    pub even_at: f32,
}

impl Band {
    /// The widest decisions that keep their promises on these samples, which are in the order of time.
    /// The last `latest` of them were scored by the model itself, the others by those before it: where
    /// the former suffice they decide, since no others are as like what comes next.
    /// `strictness` is added to what "will stay cold" promises, for a model that did not keep it lately.
    pub(super) fn of(
        judged: &[Judged],
        latest: usize,
        calibration: &Calibration,
        strictness: f64,
    ) -> Self {
        let alike = alike(judged, |score| calibration.apply(score));
        let latest = &judged[judged.len().saturating_sub(latest)..];
        let windows = [Window::of(latest, alike), Window::of(judged, alike)];
        let [own, all] = &windows;
        let promise = (COLD_PRECISION + strictness).min(STRICTEST);
        let cold_up_to = wider(own.cold_end(promise, latest), all.cold_end(promise, latest));
        let from = |window: &Window| window.reused_from(REUSED_PRECISION);
        let reused_from = from(own).or_else(|| from(all));
        let reused_from = reused_from.filter(|&from| cold_up_to.is_none_or(|end| from > end));
        let even_at = own.even_at().filter(|&at| pays(judged, at, !own.mostly_reused));
        let even_at = even_at.or_else(|| all.even_at()).unwrap_or(all.majority());
        Self { cold_up_to, reused_from, even_at: even_at.clamp(0.0, 1.0) }
    }

    /// What a score says: the decision, and whether the likelier answer is reuse.
    pub(super) fn says(&self, score: f32) -> (Decision, bool) {
        let decision = match self {
            Self { cold_up_to: Some(end), .. } if score <= *end => Decision::StaysCold,
            Self { reused_from: Some(start), .. } if score >= *start => Decision::Reused,
            _ => Decision::Unsure,
        };
        (decision, score >= self.even_at)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for end in [self.cold_up_to, self.reused_from] {
            out.push(u8::from(end.is_some()));
            out.extend_from_slice(&end.unwrap_or(0.0).to_le_bytes());
        }
        out.extend_from_slice(&self.even_at.to_le_bytes());
    }

    pub(super) fn decode(input: &mut Reader<'_>) -> Result<Self> {
        let mut end = || {
            let flag = input.u8()?;
            let value = input.share()?;
            match flag {
                0 => Ok(None),
                1 => Ok(Some(value)),
                other => Err(damaged(format!("the flag {other}"))),
            }
        };
        Ok(Self { cold_up_to: end()?, reused_from: end()?, even_at: input.share()? })
    }
}

/// Samples of some time, from the lowest score and from the highest.
struct Window {
    rising: Vec<Judged>,
    falling: Vec<Judged>,
    /// Whether most of them were reused.
    mostly_reused: bool,
    alike: f64,
}

impl Window {
    fn of(judged: &[Judged], alike: f64) -> Self {
        let rising = rising(judged);
        let falling = rising.iter().rev().copied().collect();
        let reused = judged.iter().filter(|one| one.reused).count();
        Self { rising, falling, mostly_reused: 2 * reused > judged.len(), alike }
    }

    /// Where "stays cold" ends: the promise is kept beyond chance on all samples, and as counted on the
    /// earlier half of the latest as on their later half.
    fn cold_end(&self, promise: f64, latest: &[Judged]) -> Option<f32> {
        let (earlier, later) = latest.split_at(latest.len() / 2);
        let counted = |half: &[Judged]| {
            let enough = |run: &Run| run.count >= FEWEST / 2 && run.share() >= promise;
            widest(&rising(half), false, self.alike, enough)
        };
        let end = widest(&self.rising, false, self.alike, |run| run.keeps(promise))?;
        Some(end.min(counted(earlier)?).min(counted(later)?))
    }

    fn reused_from(&self, promise: f64) -> Option<f32> {
        widest(&self.falling, true, self.alike, |run| run.keeps(promise))
    }

    /// Where the likelier answer changes, if giving the rarer one at all gains anything.
    fn even_at(&self) -> Option<f32> {
        if self.mostly_reused {
            turning(&self.rising, false, self.alike).map(f32::next_up)
        } else {
            turning(&self.falling, true, self.alike)
        }
    }

    /// What stands for [`Self::even_at`] where the likelier answer is always the same. Scores are shares
    /// of trees' leaves, which are never quite 1.
    fn majority(&self) -> f32 {
        if self.mostly_reused { 0.0 } else { 1.0 }
    }
}

/// Whether saying `rarer` on its side of a score is right at least as often as wrong.
fn pays(judged: &[Judged], even_at: f32, rarer: bool) -> bool {
    let said = judged.iter().filter(|one| (one.score >= even_at) == rarer);
    said.map(|one| if one.reused == rarer { 1 } else { -1 }).sum::<i64>() >= 0
}

fn wider(one: Option<f32>, other: Option<f32>) -> Option<f32> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.max(other)),
        (one, other) => one.or(other),
    }
}

/// The score from whose end on an age rule may say "stays cold", by samples with the longest idle
/// times first.
pub(super) fn sure_end(sorted: &[Judged]) -> Option<f32> {
    let mean = sorted.iter().filter(|one| one.reused).count() as f32 / sorted.len().max(1) as f32;
    let alike = alike(sorted, |_| mean);
    widest(sorted, false, alike, |run| run.keeps(COLD_PRECISION))
}

/// How much what came of samples of one source has in common beyond what their scores say, 0 to 1: the
/// correlation of what is left of the answers when the probability is taken away.
fn alike(judged: &[Judged], probability: impl Fn(f32) -> f32) -> f64 {
    let mut sums: HashMap<u64, (f64, f64), ByMix> = HashMap::default();
    let (mut left, mut spread) = (0.0, 0.0);
    for one in judged {
        let p = f64::from(probability(one.score));
        let (off, variance) = (f64::from(u8::from(one.reused)) - p, p * (1.0 - p));
        let sum = sums.entry(one.source).or_default();
        *sum = (sum.0 + off, sum.1 + variance.sqrt());
        (left, spread) = (left - off * off, spread - variance);
    }
    // Added in a fixed order: the table's own would make the last digits depend on its history.
    let mut sums: Vec<_> = sums.into_values().collect();
    sums.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    for (off, deviation) in sums {
        (left, spread) = (left + off * off, spread + deviation * deviation);
    }
    if spread > 0.0 { (left / spread).clamp(0.0, 1.0) } else { 1.0 }
}

fn rising(judged: &[Judged]) -> Vec<Judged> {
    let mut rising = judged.to_vec();
    rising.sort_by(|a, b| a.score.total_cmp(&b.score));
    rising
}

/// The last score of the longest run from the front that `suffices`; equal scores stay together.
fn widest(
    sorted: &[Judged],
    wanted: bool,
    alike: f64,
    suffices: impl Fn(&Run) -> bool,
) -> Option<f32> {
    let mut end = None;
    runs(sorted, wanted, alike, |score, run| {
        if suffices(run) {
            end = Some(score);
        }
    });
    end
}

/// The last score of the run from the front by which saying `wanted` gains most answers over never
/// saying it, with doubt; `None` where that gains nothing.
fn turning(sorted: &[Judged], wanted: bool, alike: f64) -> Option<f32> {
    let (mut best, mut end) = (0.0, None);
    runs(sorted, wanted, alike, |score, run| {
        let gain = run.count as f64 * (2.0 * run.low(DOUBT) - 1.0);
        if gain > best {
            (best, end) = (gain, Some(score));
        }
    });
    end
}

/// Calls `visit` with every run from the front that ends between different scores.
fn runs(sorted: &[Judged], wanted: bool, alike: f64, mut visit: impl FnMut(f32, &Run)) {
    let mut run = Run { alike, of: sorted.len(), ..Run::default() };
    for ties in sorted.chunk_by(|a, b| a.score == b.score) {
        ties.iter().for_each(|one| run.add(one, wanted));
        visit(ties[0].score, &run);
    }
}

/// A run of samples, and how many it is worth.
#[derive(Default)]
struct Run {
    alike: f64,
    /// Samples in all.
    of: usize,
    count: usize,
    right: usize,
    by_source: HashMap<u64, u32, ByMix>,
    /// Sum of the squares of the counts by source.
    squares: u64,
}

impl Run {
    fn add(&mut self, one: &Judged, wanted: bool) {
        self.count += 1;
        self.right += usize::from(one.reused == wanted);
        let times = self.by_source.entry(one.source).or_insert(0);
        self.squares += 2 * u64::from(*times) + 1;
        *times += 1;
    }

    fn share(&self) -> f64 {
        self.right as f64 / self.count.max(1) as f64
    }

    /// The lower end of what the share may be, for so many deviations. Samples of one source count for
    /// less, the more they are alike (the design effect of Kish, 1965).
    fn low(&self, doubt: f64) -> f64 {
        let count = self.count as f64;
        let again = self.squares as f64 / count.max(1.0) - 1.0;
        let effective = count / (1.0 + again * self.alike);
        wilson_low(self.share() * effective, effective, doubt)
    }

    /// Whether it keeps a promise beyond chance, with something in hand.
    fn keeps(&self, promise: f64) -> bool {
        let aim = promise + IN_HAND * (1.0 - promise);
        let enough = self.count >= FEWEST && self.count as f64 >= LEAST_SHARE * self.of as f64;
        enough && self.share() >= aim && self.low(DOUBT) >= promise
    }
}

/// The lower end of Wilson's score interval (1927) of a share of which `right` of `count` were seen.
fn wilson_low(right: f64, count: f64, doubt: f64) -> f64 {
    if count <= 0.0 {
        return 0.0;
    }
    let share = right / count;
    let z2 = doubt * doubt;
    let middle = share + z2 / (2.0 * count);
    let reach = doubt * (share * (1.0 - share) / count + z2 / (4.0 * count * count)).sqrt();
    (middle - reach) / (1.0 + z2 / count)
}
