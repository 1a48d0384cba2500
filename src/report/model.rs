//! What `firn model status`, `train`, `rollback`, `on` and `off` say. The JSON object is
//! [`ModelReport`]; its fields are only ever added to.

use std::fmt::Write;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::rounded_duration;

/// How the classifier does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelReport {
    /// `on`, `off` (by hand), `learning` (not enough history), `guarded` (switched off since it did
    /// worse than what it is compared with).
    pub state: String,
    /// Why it is in this state, in words.
    pub reason: Option<String>,
    /// How many were trained so far; absent before the first.
    pub version: Option<u64>,
    /// `trees` or `logistic`.
    pub kind: Option<String>,
    /// When it was trained, in RFC 3339.
    pub trained: Option<String>,
    /// Whether there is one to go back to.
    pub has_previous: bool,
    /// How far ahead it predicts, in seconds.
    pub horizon_s: u64,
    /// Examples it was trained on.
    pub examples: u64,
    /// Examples whose outcome is not known yet.
    pub maturing: u64,
    /// How it did on later time than it was trained on; absent before that.
    pub evaluation: Option<Evaluation>,
    /// Hits since the mount beside what others would have had; absent before that.
    pub shadow: Option<Shadow>,
    /// Times that it was switched off for doing worse, or on again.
    pub switches: u64,
}

/// Figures on later time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Examples.
    pub examples: u64,
    /// Share of right answers.
    pub accuracy: f64,
    /// Share that the more frequent answer alone gets right.
    pub majority: f64,
    /// Matthews' correlation coefficient, from -1 to 1.
    pub mcc: f64,
    /// Of what it said stays cold, the share that did.
    pub stays_cold_precision: f64,
    /// Share of the examples about which it said that.
    pub stays_cold_coverage: f64,
}

/// Shares of reads that hot would have served, on a sample of the files.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Shadow {
    /// Accesses compared.
    pub accesses: u64,
    /// What the classifier chose.
    pub model_hit: f64,
    /// Least recently used first.
    pub lru_hit: f64,
    /// S3-FIFO.
    pub s3_fifo_hit: f64,
}

impl ModelReport {
    /// For people.
    pub fn text(&self) -> String {
        let reason = self.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        let mut text = format!("{}{reason}\n", self.state);
        if let Some(version) = self.version {
            let kind = self.kind.as_deref().unwrap_or("unknown");
            let trained = self.trained.as_deref().unwrap_or("unknown");
            let _ = writeln!(
                text,
                "version {version}: {kind}, trained {trained} on {} examples, {} more mature",
                self.examples, self.maturing
            );
        }
        let horizon = rounded_duration(Duration::from_secs(self.horizon_s));
        let _ = writeln!(text, "predicts access within {horizon}");
        if let Some(found) = &self.evaluation {
            let pct = |share: f64| share * 100.0;
            let _ = writeln!(
                text,
                "on {} later examples: accuracy {:.1} % (majority {:.1} %), MCC {:.3}",
                found.examples,
                pct(found.accuracy),
                pct(found.majority),
                found.mcc
            );
            let _ = writeln!(
                text,
                "stays cold: right {:.1} % of the time, said of {:.1} %",
                pct(found.stays_cold_precision),
                pct(found.stays_cold_coverage)
            );
        }
        if let Some(shadow) = &self.shadow {
            let _ = writeln!(
                text,
                "hits over {} sampled accesses: {:.2} %, LRU {:.2} %, S3-FIFO {:.2} %",
                shadow.accesses,
                shadow.model_hit * 100.0,
                shadow.lru_hit * 100.0,
                shadow.s3_fifo_hit * 100.0
            );
        }
        if self.switches > 0 {
            let _ = writeln!(text, "switched off or on again by the guardrail: {}", self.switches);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accuracy_stands_beside_the_majority() {
        let report = ModelReport {
            state: "guarded".into(),
            reason: Some("LRU does better".into()),
            version: Some(3),
            kind: Some("trees".into()),
            horizon_s: 7 * 86_400,
            switches: 3,
            evaluation: Some(Evaluation { accuracy: 0.9, majority: 0.85, ..Evaluation::default() }),
            ..ModelReport::default()
        };
        let text = report.text();
        assert!(text.starts_with("guarded: LRU does better\nversion 3: trees"), "{text}");
        assert!(text.contains("accuracy 90.0 % (majority 85.0 %)"), "{text}");
        assert!(text.contains("within 7d"), "{text}");
        assert!(text.contains("by the guardrail: 3\n"), "{text}");
    }
}
