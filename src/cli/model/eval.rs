//! `firn model eval`: what the classifier would have been worth on a trace.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, ensure};
use clap::Args;
use firn_tiering::classifier::eval::{evaluate, suitable_horizon_ms};
use firn_tiering::replay;

use crate::cli::trace;
use crate::failure::{EXIT_DONE, Explain};
use crate::report;
use crate::report::evaluation::{ModelEval, TraceFacts};
use crate::units::{Period, Size};

/// Fewest that say anything.
const FEWEST_REQUESTS: usize = 1000;

/// Say what the classifier would have been worth on a trace
///
/// The trace is replayed once. A model is trained now and then on its past alone, and predicts what
/// comes at least a horizon after what it learned from; its second half is measured. Beside it stand
/// what always giving the more frequent answer would have reached, an age rule tuned on the first
/// half, and the hits of LRU, S3-FIFO and an optimum that knows the future.
///
/// With --json, one object with the fields trace (name, requests, items, footprint_bytes, from_ms,
/// to_ms) and evaluations, one for each capacity: capacity_bytes, horizon_ms, measured_from_ms,
/// trainings, switches, model and age (each with count, base_rate, accuracy, majority_accuracy, mcc,
/// auc, brier, cold_coverage, cold_precision), and hits (strategy, hit_ratio, byte_hit_ratio).
#[derive(Debug, Args)]
pub(super) struct Eval {
    /// The trace, as `firn tier trace` writes it; - for standard input
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,
    /// How far predictions look ahead (default: twice the time in which LRU replaces the whole tier,
    /// and at most a twelfth of the trace)
    #[arg(long)]
    horizon: Option<Period>,
    /// Capacities of the tier, in bytes or as a share of what all items take
    #[arg(long, value_delimiter = ',', default_values = ["1%", "5%", "20%"])]
    capacity: Vec<Capacity>,
    /// Another seed, another sample
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Eval {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let name = self.trace.display().to_string();
        let trace = trace::load(&self.trace)?;
        ensure!(
            trace.len() >= FEWEST_REQUESTS,
            "{name} has {} requests, {FEWEST_REQUESTS} are needed",
            trace.len()
        );
        let (items, footprint_bytes) = replay::footprint(&trace);
        let mut evaluations = Vec::new();
        for capacity in &self.capacity {
            let bytes = capacity.of(footprint_bytes);
            let horizon_ms = match self.horizon {
                Some(horizon) => u64::try_from(horizon.0.as_millis()).unwrap_or(u64::MAX).max(1),
                None => suitable_horizon_ms(&trace, bytes),
            };
            evaluations.push(evaluate(&trace, bytes, horizon_ms, self.seed));
        }
        let facts = TraceFacts {
            name,
            requests: trace.len() as u64,
            items,
            footprint_bytes,
            from_ms: trace.first().map_or(0, |request| request.at_ms),
            to_ms: trace.last().map_or(0, |request| request.at_ms),
        };
        let evaluated = ModelEval { trace: facts, evaluations };
        if self.json {
            report::print_json(&evaluated)?;
        } else {
            report::print(&evaluated.text())?;
        }
        Ok(EXIT_DONE)
    }
}

/// Bytes, or a share of what all items take.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Capacity {
    Bytes(u64),
    Share(f64),
}

impl Capacity {
    fn of(self, footprint_bytes: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Share(share) => ((footprint_bytes as f64 * share) as u64).max(1),
        }
    }
}

impl FromStr for Capacity {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let Some(percent) = text.strip_suffix('%') else {
            let size: Size = text.parse().map_err(|error| anyhow::anyhow!("{error}"))?;
            return Ok(Self::Bytes(size.0));
        };
        let percent: f64 = percent
            .trim()
            .parse()
            .with_context(|| format!("{text} is not a share"))
            .wrong_usage()?;
        ensure!(percent > 0.0 && percent <= 100.0, "{text} is not between 0 and 100 %");
        Ok(Self::Share(percent / 100.0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_capacity_is_bytes_or_a_share() {
        assert_eq!("1%".parse::<Capacity>().unwrap().of(1000), 10);
        assert_eq!("0.5 %".parse::<Capacity>().unwrap().of(1000), 5);
        assert_eq!("64KiB".parse::<Capacity>().unwrap().of(1000), 65_536);
        for wrong in ["", "%", "0%", "101%", "-1%", "x"] {
            assert!(wrong.parse::<Capacity>().is_err(), "{wrong}");
        }
    }
}
