//! From scores to probabilities, and from probabilities to decisions: both learned on samples that
//! are later than those the scores were learned from.

use serde::{Deserialize, Serialize};

use super::bytes::{Reader, damaged};
use crate::error::Result;

/// What "will stay cold" promises.
pub(super) const COLD_PRECISION: f64 = 0.95;

/// What "will be used again" promises: it only delays a move that the age rule may make later.
pub(super) const REUSED_PRECISION: f64 = 0.85;

/// Deviations by which a share that was counted is trusted less: 95 % of one side.
pub(super) const DOUBT: f64 = 1.645;

/// Fewest samples a decision may rest on.
const FEWEST: usize = 60;

/// Samples that say as much as one that stands for itself: items are sampled again and again.
const ALIKE: f64 = 3.0;

/// What the rarer of both answers has to be right in to be given at all.
const EVEN: f64 = 0.5;

/// Samples by which a step of the calibration is drawn towards the mean of all.
const SMOOTHING: f64 = 2.0;

const MAX_KNOTS: usize = 64;

/// A monotone map from scores to probabilities: isotonic regression (pool adjacent violators,
/// Ayer et al. 1955), with lines between the middles of its steps, so that order within a step is
/// kept.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Calibration {
    knots: Vec<(f32, f32)>,
}

impl Calibration {
    /// Of scores with what came of them, in any order; `None` without any.
    pub(super) fn of(scored: &[(f32, bool)]) -> Option<Self> {
        let mut sorted = scored.to_vec();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mean = reused(&sorted) as f64 / sorted.len().max(1) as f64;
        // Bins first: single samples make steps of nothing.
        let bin = sorted.len().div_ceil(MAX_KNOTS).max(10);
        let mut steps: Vec<Step> = Vec::new();
        for bin in sorted.chunks(bin) {
            steps.push(Step::of(bin, mean));
            while let [.., a, b] = steps.as_slice() {
                if a.rate() <= b.rate() {
                    break;
                }
                let merged = a.merge(b);
                steps.truncate(steps.len() - 2);
                steps.push(merged);
            }
        }
        let knots: Vec<_> =
            steps.iter().map(|step| (step.middle() as f32, step.rate() as f32)).collect();
        (!knots.is_empty()).then_some(Self { knots })
    }

    /// The probability of a score.
    pub(super) fn apply(&self, score: f32) -> f32 {
        let above = self.knots.partition_point(|knot| knot.0 <= score);
        match (above.checked_sub(1).map(|at| self.knots[at]), self.knots.get(above)) {
            (Some((_, p)), None) => p,
            (None, Some(&(_, p))) => p,
            (Some((x, p)), Some(&(next_x, next_p))) => {
                p + (next_p - p) * ((score - x) / (next_x - x).max(f32::MIN_POSITIVE)).min(1.0)
            }
            (None, None) => 0.5,
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.knots.len() as u8);
        for (score, probability) in &self.knots {
            out.extend_from_slice(&score.to_le_bytes());
            out.extend_from_slice(&probability.to_le_bytes());
        }
    }

    pub(super) fn decode(input: &mut Reader<'_>) -> Result<Self> {
        let count = usize::from(input.u8()?);
        if count == 0 || count > MAX_KNOTS {
            return Err(damaged(format!("a calibration of {count} steps")));
        }
        let mut knots = Vec::with_capacity(count);
        for _ in 0..count {
            knots.push((input.share()?, input.share()?));
        }
        if knots.windows(2).any(|pair| pair[0].0 > pair[1].0 || pair[0].1 > pair[1].1) {
            return Err(damaged("a calibration that falls".to_owned()));
        }
        Ok(Self { knots })
    }
}

struct Step {
    count: f64,
    reused: f64,
    scores: f64,
}

impl Step {
    fn of(bin: &[(f32, bool)], mean: f64) -> Self {
        let scores: f64 = bin.iter().map(|(score, _)| f64::from(*score)).sum();
        let count = bin.len() as f64 + SMOOTHING;
        let reused = reused(bin) as f64 + SMOOTHING * mean;
        Self { count, reused, scores: scores * count / bin.len() as f64 }
    }

    fn merge(&self, other: &Self) -> Self {
        Self {
            count: self.count + other.count,
            reused: self.reused + other.reused,
            scores: self.scores + other.scores,
        }
    }

    fn rate(&self) -> f64 {
        self.reused / self.count
    }

    fn middle(&self) -> f64 {
        self.scores / self.count
    }
}

fn reused(scored: &[(f32, bool)]) -> usize {
    scored.iter().filter(|(_, reused)| *reused).count()
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
    /// The widest decisions that keep their promises on these samples, which are in the order of time,
    /// with a margin for chance: the lower end of Wilson's interval has to reach the promised share,
    /// and the share itself in the earlier half as in the later. `strictness` is added to what is
    /// promised, for a model that did not keep it lately.
    pub(super) fn of(scored: &[(f32, bool)], strictness: f64) -> Self {
        let (earlier, later) = scored.split_at(scored.len() / 2);
        let target = (COLD_PRECISION + strictness).min(0.99);
        let plain = |half: &[(f32, bool)]| widest(&rising(half), false, target, 0.0);
        let rising = rising(scored);
        let cold_up_to = widest(&rising, false, target, DOUBT)
            .and_then(|end| Some(end.min(plain(earlier)?).min(plain(later)?)));
        let falling: Vec<_> = rising.iter().rev().copied().collect();
        let mut reused_from = widest(&falling, true, REUSED_PRECISION, DOUBT);
        if let (Some(cold), Some(reused)) = (cold_up_to, reused_from)
            && reused <= cold
        {
            reused_from = None;
        }
        let even_at = if 2 * reused(scored) <= scored.len() {
            turning(&falling, true).unwrap_or(1.0)
        } else {
            turning(&rising, false).map_or(0.0, f32::next_up)
        };
        Self { cold_up_to, reused_from, even_at: even_at.clamp(0.0, 1.0) }
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

fn rising(scored: &[(f32, bool)]) -> Vec<(f32, bool)> {
    let mut rising = scored.to_vec();
    rising.sort_by(|a, b| a.0.total_cmp(&b.0));
    rising
}

/// The last score of the longest run from the front in which the share of `wanted` is at least
/// `target`, with so many deviations of doubt.
pub(super) fn widest(sorted: &[(f32, bool)], wanted: bool, target: f64, doubt: f64) -> Option<f32> {
    let mut right = 0;
    let mut end = None;
    for (at, &(score, reused)) in sorted.iter().enumerate() {
        right += usize::from(reused == wanted);
        let count = at + 1;
        let ties = sorted.get(count).is_some_and(|next| next.0 == score);
        if !ties && count >= FEWEST.min(sorted.len()) {
            let alike = if doubt > 0.0 { ALIKE } else { 1.0 };
            if wilson_low(right as f64 / alike, count as f64 / alike, doubt) >= target {
                end = Some(score);
            }
        }
    }
    end
}

/// The last score up to which each stretch of the samples was mostly `wanted`, beyond doubt: where
/// more answers turn from right to wrong than the other way.
fn turning(sorted: &[(f32, bool)], wanted: bool) -> Option<f32> {
    let stretch = (sorted.len() / 20).max(FEWEST / 2);
    let mut end = None;
    for stretch in sorted.chunks(stretch) {
        let right = stretch.iter().filter(|(_, reused)| *reused == wanted).count() as f64;
        if wilson_low(right / ALIKE, stretch.len() as f64 / ALIKE, DOUBT) < EVEN {
            break;
        }
        end = stretch.last().map(|last| last.0);
    }
    end
}

/// The lower end of Wilson's score interval (1927) of a share of which `right` of `count` were seen.
pub(super) fn wilson_low(right: f64, count: f64, doubt: f64) -> f64 {
    if count <= 0.0 {
        return 0.0;
    }
    let share = right / count;
    let z2 = doubt * doubt;
    let middle = share + z2 / (2.0 * count);
    let reach = doubt * (share * (1.0 - share) / count + z2 / (4.0 * count * count)).sqrt();
    (middle - reach) / (1.0 + z2 / count)
}
