//! From scores to probabilities: learned on samples that are later than those the scores were learned
//! from.

use super::band::Judged;
use super::bytes::{Reader, damaged};
use crate::error::Result;

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
    pub(super) fn of(judged: &[Judged]) -> Option<Self> {
        let mut sorted = judged.to_vec();
        sorted.sort_by(|a, b| a.score.total_cmp(&b.score));
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
    fn of(bin: &[Judged], mean: f64) -> Self {
        let scores: f64 = bin.iter().map(|one| f64::from(one.score)).sum();
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

fn reused(judged: &[Judged]) -> usize {
    judged.iter().filter(|one| one.reused).count()
}
