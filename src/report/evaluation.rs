//! What `firn model eval` says. The JSON object is [`ModelEval`]; its fields are only ever added to.

use std::time::Duration;

use firn_tiering::classifier::Metrics;
use firn_tiering::classifier::eval::Evaluation;
use serde::Serialize;

use super::table;
use crate::units::{rounded_bytes, rounded_duration};

/// The trace that was replayed.
#[derive(Clone, Debug, Serialize)]
pub struct TraceFacts {
    /// Its name.
    pub name: String,
    /// Requests.
    pub requests: u64,
    /// Different items.
    pub items: u64,
    /// Bytes of all of them.
    pub footprint_bytes: u64,
    /// First request, in ms since 1970.
    pub from_ms: u64,
    /// Last request.
    pub to_ms: u64,
}

/// A trace, and what the classifier was worth on it.
#[derive(Clone, Debug, Serialize)]
pub struct ModelEval {
    /// The trace.
    pub trace: TraceFacts,
    /// For each capacity.
    pub evaluations: Vec<Evaluation>,
}

impl ModelEval {
    /// For people.
    pub fn text(&self) -> String {
        let facts = &self.trace;
        let span = Duration::from_millis(facts.to_ms.saturating_sub(facts.from_ms));
        let mut out = format!(
            "{}: {} requests of {} items, {} in all, over {}; the second half is measured\n\n",
            facts.name,
            facts.requests,
            facts.items,
            rounded_bytes(facts.footprint_bytes),
            rounded_duration(span)
        );
        out.push_str(&self.predictions());
        out.push('\n');
        out.push_str(&self.hits());
        out
    }

    fn predictions(&self) -> String {
        let mut rows = table::table(&[
            "capacity",
            "horizon",
            "predicts",
            "samples",
            "right",
            "majority",
            "mcc",
            "auc",
            "brier",
            "stays cold",
            "right",
        ]);
        for one in &self.evaluations {
            let horizon = rounded_duration(Duration::from_millis(one.horizon_ms));
            for (name, metrics) in [("model", &one.model), ("age", &one.age)] {
                let mut row = vec![self.capacity(one), horizon.clone(), name.to_owned()];
                row.extend(figures(metrics));
                rows.add_row(row);
            }
        }
        table::right(&mut rows, &[0, 1, 3, 4, 5, 6, 7, 8, 9, 10]);
        table::text(&rows)
    }

    fn hits(&self) -> String {
        let names = self.evaluations.first().map(|one| one.hits.as_slice()).unwrap_or_default();
        let mut headings = vec!["capacity", "hits of"];
        headings.extend(names.iter().map(|hits| hits.strategy.as_str()));
        headings.push("switches");
        let mut rows = table::table(&headings);
        for one in &self.evaluations {
            let ratios = |of: &str, ratio: fn(f64, f64) -> f64, switches: String| {
                let mut row = vec![self.capacity(one), of.to_owned()];
                row.extend(
                    one.hits.iter().map(|hits| percent(ratio(hits.hit_ratio, hits.byte_hit_ratio))),
                );
                row.push(switches);
                row
            };
            rows.add_row(ratios("requests", |hits, _| hits, one.switches.to_string()));
            rows.add_row(ratios("bytes", |_, bytes| bytes, String::new()));
        }
        let columns: Vec<usize> = (2..headings.len()).chain([0]).collect();
        table::right(&mut rows, &columns);
        table::text(&rows)
    }

    fn capacity(&self, one: &Evaluation) -> String {
        let footprint = self.trace.footprint_bytes.max(1) as f64;
        format!("{:.3} %", 100.0 * one.capacity_bytes as f64 / footprint)
    }
}

fn figures(metrics: &Metrics) -> [String; 8] {
    let cold =
        if metrics.cold_coverage > 0.0 { percent(metrics.cold_precision) } else { "-".to_owned() };
    [
        metrics.count.to_string(),
        percent(metrics.accuracy),
        percent(metrics.majority_accuracy),
        format!("{:.3}", metrics.mcc),
        format!("{:.3}", metrics.auc),
        format!("{:.3}", metrics.brier),
        percent(metrics.cold_coverage),
        cold,
    ]
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}
