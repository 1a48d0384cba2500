//! Logistic regression over standardised features: what is used while samples are few.

use super::bytes::{Reader, damaged};
use crate::error::Result;
use crate::heat::features::{COUNT, Features};

/// Standardised features are cut here: one absurd number must not outweigh all others.
const REACH: f32 = 4.0;

/// How features are brought to mean 0 and deviation 1.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scale {
    mean: Features,
    deviation: Features,
}

impl Scale {
    /// That of some samples.
    pub(super) fn of<'a>(samples: impl Iterator<Item = &'a Features> + Clone) -> Self {
        let count = samples.clone().count().max(1) as f64;
        let mut sums = [0.0_f64; COUNT];
        let mut squares = [0.0_f64; COUNT];
        for features in samples {
            for (at, &value) in features.iter().enumerate() {
                sums[at] += f64::from(value);
                squares[at] += f64::from(value) * f64::from(value);
            }
        }
        let mean = sums.map(|sum| sum / count);
        let deviation = std::array::from_fn(|at| {
            let variance = squares[at] / count - mean[at] * mean[at];
            // A feature that never changes says nothing, now and later.
            if variance > 1e-9 { variance.sqrt() as f32 } else { f32::MAX }
        });
        Self { mean: mean.map(|mean| mean as f32), deviation }
    }

    /// One sample on this scale.
    pub(super) fn apply(&self, features: &Features) -> Features {
        std::array::from_fn(|at| {
            ((features[at] - self.mean[at]) / self.deviation[at]).clamp(-REACH, REACH)
        })
    }
}

/// The weights.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Logistic {
    pub(super) scale: Scale,
    pub(super) weights: Features,
    pub(super) intercept: f32,
}

impl Logistic {
    /// Probability of reuse, 0 to 1.
    pub(super) fn score(&self, features: &Features) -> f32 {
        let scaled = self.scale.apply(features);
        let sum: f32 = scaled.iter().zip(&self.weights).map(|(value, weight)| value * weight).sum();
        let score = 1.0 / (1.0 + (-(sum + self.intercept)).exp());
        if score.is_finite() { score } else { 0.5 }
    }

    /// What each feature adds to the logarithm of the odds.
    pub(super) fn contributions(&self, features: &Features) -> Features {
        let scaled = self.scale.apply(features);
        std::array::from_fn(|at| scaled[at] * self.weights[at])
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let all = self.scale.mean.iter().chain(&self.scale.deviation).chain(&self.weights);
        for value in all.chain([&self.intercept]) {
            out.extend_from_slice(&value.to_le_bytes());
        }
    }

    pub(super) fn decode(input: &mut Reader<'_>) -> Result<Self> {
        let mean = numbers(input)?;
        let deviation = numbers(input)?;
        if deviation.iter().any(|&deviation| deviation <= 0.0) {
            return Err(damaged("a deviation that is not positive".to_owned()));
        }
        let weights = numbers(input)?;
        Ok(Self { scale: Scale { mean, deviation }, weights, intercept: input.finite()? })
    }
}

fn numbers(input: &mut Reader<'_>) -> Result<Features> {
    let mut out = [0.0; COUNT];
    for value in &mut out {
        *value = input.finite()?;
    }
    Ok(out)
}
