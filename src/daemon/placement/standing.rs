//! How placement stands, for `status` and `firn model`.

use firn_tiering::classifier::{Metrics, Scorer};
use firn_tiering::heat::Scanner;
use firn_tiering::replay::State as GuardState;

use super::Placement;
use super::foresight::{Standing, switched_off};
use crate::daemon::jobs::queue::State;
use crate::report::model::{Evaluation, ModelReport, Shadow};
use crate::report::status::{PlacementStatus, ScanStatus};
use crate::utc::rfc3339;

/// Scans that are told.
const TOLD_SCANS: usize = 8;

impl Placement {
    /// What `status` says.
    pub(in crate::daemon) fn status(&self) -> PlacementStatus {
        let held = self.held();
        let (last, unapplied) = {
            let state = self.state.lock();
            (state.report.clone(), state.unapplied.clone())
        };
        let failures: Vec<String> = held.failure.iter().cloned().chain(unapplied).collect();
        let entries = self.jobs.list();
        let count = |wanted: fn(&State) -> bool| {
            entries.iter().filter(|entry| wanted(&entry.state)).count() as u64
        };
        let parked = entries.iter().find(|entry| matches!(entry.state, State::Parked { .. }));
        let (heat, scanners) = self.uses.status();
        let (in_flight, in_line) = self.recall.in_flight();
        PlacementStatus {
            mode: held.policy.defaults.mode.name().to_owned(),
            policy_failure: (!failures.is_empty()).then(|| failures.join("; ")),
            last_run: last.as_ref().map(|last| rfc3339(last.at_s as i64)),
            last_moves: last.as_ref().map_or(0, |last| last.moves),
            last_bytes: last.as_ref().map_or(0, |last| last.bytes),
            last_failure: last.and_then(|last| last.failure),
            waiting_jobs: count(|state| matches!(state, State::Queued)),
            running_jobs: count(|state| matches!(state, State::Running)),
            parked_jobs: count(|state| matches!(state, State::Parked { .. })),
            parked_reason: parked.and_then(|entry| entry.state.reason()).map(ToOwned::to_owned),
            pins: self.pins.len() as u64,
            known_files: heat.items,
            forgotten_files: heat.evicted,
            recalls_in_flight: in_flight as u64,
            recalls_waiting: in_line as u64,
            scans: scanners.iter().take(TOLD_SCANS).map(scan_status).collect(),
        }
    }

    /// What `status` says of the classifier.
    pub(in crate::daemon) fn model_status(&self) -> ModelReport {
        model_report(&self.foresight.standing())
    }
}

fn scan_status(scanner: &Scanner) -> ScanStatus {
    let since = i64::try_from(scanner.since_ms / 1000).unwrap_or(i64::MAX);
    ScanStatus { process: scanner.client, files: u64::from(scanner.items), since: rfc3339(since) }
}

/// How the classifier does, for people.
pub(super) fn model_report(standing: &Standing) -> ModelReport {
    let registry = &standing.registry;
    let current = registry.current();
    let guarded = match standing.guard {
        GuardState::On { .. } => None,
        GuardState::Off { .. } => Some("it does worse than what it is compared with".to_owned()),
    };
    let (state, reason) = match (switched_off(registry), guarded, current) {
        (Some(reason), _, _) => ("off", Some(reason.to_owned())),
        (None, _, None) => ("learning", standing.failure.clone()),
        (None, Some(reason), Some(_)) => ("guarded", Some(reason)),
        (None, None, Some(_)) => ("on", None),
    };
    let trained = current.map(|version| version.model.trained_ms() / 1000);
    let kind = current.map(|version| match version.model.scorer() {
        Scorer::Logistic => "logistic",
        Scorer::Forest => "trees",
    });
    let report = current.and_then(|version| version.report.model.as_ref());
    ModelReport {
        state: state.to_owned(),
        reason,
        version: current.map(|version| u64::from(version.number)),
        kind: kind.map(ToOwned::to_owned),
        trained: trained.map(|secs| rfc3339(i64::try_from(secs).unwrap_or(i64::MAX))),
        has_previous: registry.previous().is_some(),
        horizon_s: standing.horizon_ms / 1000,
        examples: standing.samples as u64,
        maturing: standing.pending as u64,
        evaluation: report.map(evaluation),
        shadow: shadow(standing),
        switches: u64::from(standing.switches),
    }
}

fn evaluation(metrics: &Metrics) -> Evaluation {
    Evaluation {
        examples: metrics.count,
        accuracy: metrics.accuracy,
        majority: metrics.majority_accuracy,
        mcc: metrics.mcc,
        stays_cold_precision: metrics.cold_precision,
        stays_cold_coverage: metrics.cold_coverage,
    }
}

fn shadow(standing: &Standing) -> Option<Shadow> {
    let figures = standing.figures;
    (figures.reads >= 1.0).then_some(Shadow {
        accesses: figures.reads as u64,
        model_hit: figures.model,
        lru_hit: figures.lru,
        s3_fifo_hit: figures.s3fifo,
    })
}
