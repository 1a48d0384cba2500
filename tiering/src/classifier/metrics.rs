//! How good predictions were, always beside what knowing nothing would have been.

use serde::{Deserialize, Serialize};

use super::model::{Decision, Verdict};

/// Counts of what was predicted and what came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    /// Predicted reuse, reused.
    pub reused: u64,
    /// Predicted reuse, stayed cold.
    pub missed_cold: u64,
    /// Predicted cold, stayed cold.
    pub cold: u64,
    /// Predicted cold, reused.
    pub missed_reuse: u64,
}

impl Confusion {
    /// Takes in one prediction.
    pub fn add(&mut self, predicted_reuse: bool, reused: bool) {
        match (predicted_reuse, reused) {
            (true, true) => self.reused += 1,
            (true, false) => self.missed_cold += 1,
            (false, false) => self.cold += 1,
            (false, true) => self.missed_reuse += 1,
        }
    }

    /// All predictions.
    pub fn count(&self) -> u64 {
        self.reused + self.missed_cold + self.cold + self.missed_reuse
    }

    /// Share that was right.
    pub fn accuracy(&self) -> f64 {
        share(self.reused + self.cold, self.count())
    }

    /// Matthews' correlation coefficient (1975), -1 to 1; 0 where one class was never predicted or
    /// never came.
    pub fn mcc(&self) -> f64 {
        let [tp, fp, tn, fne] =
            [self.reused, self.missed_cold, self.cold, self.missed_reuse].map(|n| n as f64);
        let under = ((tp + fp) * (tp + fne) * (tn + fp) * (tn + fne)).sqrt();
        if under > 0.0 { (tp * tn - fp * fne) / under } else { 0.0 }
    }
}

/// How good the predictions over some time were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Predictions.
    pub count: u64,
    /// Share that was reused.
    pub base_rate: f64,
    /// Share in which the likelier answer was right.
    pub accuracy: f64,
    /// What always saying the more frequent of the two would have reached, had it been known.
    pub majority_accuracy: f64,
    /// Matthews' correlation coefficient.
    pub mcc: f64,
    /// Area under the receiver's curve: how often of two the reused one has the higher probability.
    pub auc: f64,
    /// Mean squared error of the probabilities.
    pub brier: f64,
    /// Share that "will stay cold" was said of.
    pub cold_coverage: f64,
    /// Share of those that did.
    pub cold_precision: f64,
}

/// One prediction with what came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scored {
    /// Probability of reuse.
    pub(super) p_reuse: f32,
    /// The likelier answer.
    pub(super) reuse: bool,
    /// Whether "will stay cold" was said.
    pub(super) cold: bool,
    /// What came.
    pub(super) reused: bool,
}

impl Scored {
    pub(super) fn of(said: &Verdict, reused: bool) -> Self {
        let cold = said.decision == Decision::StaysCold;
        Self { p_reuse: said.p_reuse, reuse: said.reuse, cold, reused }
    }
}

impl Metrics {
    pub(super) fn of(scored: &[Scored]) -> Self {
        let count = scored.len() as u64;
        let mut confusion = Confusion::default();
        scored.iter().for_each(|one| confusion.add(one.reuse, one.reused));
        let reused = scored.iter().filter(|one| one.reused).count() as u64;
        let cold = scored.iter().filter(|one| one.cold).count() as u64;
        let right = scored.iter().filter(|one| one.cold && !one.reused).count() as u64;
        let squares: f64 = scored
            .iter()
            .map(|one| (f64::from(one.p_reuse) - f64::from(u8::from(one.reused))).powi(2))
            .sum();
        let pairs: Vec<_> = scored.iter().map(|one| (one.p_reuse, one.reused)).collect();
        Self {
            count,
            base_rate: share(reused, count),
            accuracy: confusion.accuracy(),
            majority_accuracy: share(reused.max(count - reused), count),
            mcc: confusion.mcc(),
            auc: auc(&pairs),
            brier: if count == 0 { 0.0 } else { squares / count as f64 },
            cold_coverage: share(cold, count),
            cold_precision: share(right, cold),
        }
    }
}

/// By ranks (Mann and Whitney); ties count half. 0.5 where there is one class only.
pub(super) fn auc(scored: &[(f32, bool)]) -> f64 {
    let mut sorted = scored.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut wins) = (0.0, 0.0);
    let (mut reused_all, mut cold_all) = (0.0, 0.0);
    for ties in sorted.chunk_by(|a, b| a.0 == b.0) {
        let reused = ties.iter().filter(|(_, reused)| *reused).count() as f64;
        let cold = ties.len() as f64 - reused;
        wins += reused * (below + cold / 2.0);
        below += cold;
        reused_all += reused;
        cold_all += cold;
    }
    if reused_all * cold_all == 0.0 { 0.5 } else { wins / (reused_all * cold_all) }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
