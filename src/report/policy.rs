//! What `firn policy plan`, `run` and `replay` say. The JSON objects are [`PlanReport`] and
//! [`ReplayReport`]; their fields are only ever added to.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::escape::escaped;
use super::names;
use super::table;
use crate::policy::Policy;
use crate::policy::planner::{Move, Plan};
use crate::policy::rules::Rules;
use crate::units::rounded_bytes;

/// Part of the answer to `plan` and `run`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlanItem {
    /// A move.
    Move(MoveLine),
    /// What all moves come to, at the end.
    Summary(PlanSummary),
}

/// A move.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MoveLine {
    /// Path from the root of the volume.
    pub path: String,
    /// Inode number.
    pub ino: u64,
    /// `copy-ahead`, `demote` or `promote`.
    pub action: String,
    /// Bytes that are copied, freed or brought back.
    pub bytes: u64,
    /// Of these, bytes that cross to or from cold.
    pub transfer_bytes: u64,
    /// Requests to cold, about.
    pub requests: u64,
    /// What it costs once; absent without prices.
    pub cost: Option<f64>,
    /// Why.
    pub why: String,
}

/// What does not move for one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedFiles {
    /// Files.
    pub files: u64,
    /// Stored bytes of them.
    pub bytes: u64,
}

/// What all moves come to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanSummary {
    /// Moves.
    pub count: u64,
    /// Bytes that are copied, freed or brought back.
    pub bytes: u64,
    /// Bytes that cross to or from cold.
    pub transfer_bytes: u64,
    /// Bytes that become free in hot.
    pub freed_bytes: u64,
    /// Requests to cold, about.
    pub requests: u64,
    /// What it costs once; absent without prices.
    pub cost: Option<f64>,
    /// What it costs each month from then on; absent without prices.
    pub cost_per_month: Option<f64>,
    /// What prices are in.
    pub currency: Option<String>,
    /// What does not move, by reason: `dirty`, `unsettled`, `too-small`, `pinned`, `left-alone`,
    /// `in-place`, `not-needed`, `no-room`, `limit` or `cold-full`.
    pub skipped: BTreeMap<String, SkippedFiles>,
    /// Bytes used in hot.
    pub hot_used_bytes: u64,
    /// Watermark above which files go.
    pub high_bytes: u64,
    /// Watermark down to which they go.
    pub low_bytes: u64,
    /// Watermark above which they are copied.
    pub copy_ahead_bytes: u64,
    /// Users and groups of the policy that are not known here.
    pub unknown: Vec<String>,
    /// The job that carries it out; absent where nothing is to be done or was only planned.
    pub job: Option<u64>,
}

/// A plan as the daemon tells it, part by part.
pub fn items<'a>(
    plan: &'a Plan,
    policy: &'a Policy,
    rules: &'a Rules,
    hot_used_bytes: u64,
) -> impl Iterator<Item = PlanItem> + 'a {
    let has_prices = policy.tier.cold.has_prices();
    let moves = plan.moves.iter().map(move |one| PlanItem::Move(line(one, has_prices)));
    moves.chain(std::iter::once_with(move || {
        PlanItem::Summary(summary(plan, policy, rules, hot_used_bytes))
    }))
}

fn line(one: &Move, has_prices: bool) -> MoveLine {
    MoveLine {
        path: names::text(&one.path),
        ino: one.ino,
        action: one.action.name().to_owned(),
        bytes: one.bytes,
        transfer_bytes: one.transfer_bytes,
        requests: one.requests,
        cost: has_prices.then_some(one.cost),
        why: one.why.clone(),
    }
}

fn summary(plan: &Plan, policy: &Policy, rules: &Rules, hot_used_bytes: u64) -> PlanSummary {
    let (totals, marks, cold) = (&plan.totals, &plan.marks, &policy.tier.cold);
    let skipped = plan.skipped.iter().map(|(why, count)| {
        (why.name().to_owned(), SkippedFiles { files: count.files, bytes: count.bytes })
    });
    PlanSummary {
        count: totals.moves,
        bytes: totals.bytes,
        transfer_bytes: totals.transfer_bytes,
        freed_bytes: totals.freed_bytes,
        requests: totals.requests,
        cost: cold.has_prices().then_some(totals.cost),
        cost_per_month: cold.has_prices().then_some(totals.cost_per_month),
        currency: cold.currency.clone(),
        skipped: skipped.collect(),
        hot_used_bytes,
        high_bytes: marks.high,
        low_bytes: marks.low,
        copy_ahead_bytes: marks.copy_ahead,
        unknown: rules.unknown().to_vec(),
        job: None,
    }
}

/// A whole plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PlanReport {
    /// The moves, in the order in which they are done.
    pub moves: Vec<MoveLine>,
    /// What they come to.
    #[serde(flatten)]
    pub summary: PlanSummary,
}

/// Money, with as many digits as tell something.
pub(super) fn money(cost: f64, currency: Option<&str>) -> String {
    let digits = if cost == 0.0 || cost >= 1.0 { 2 } else { 4 };
    let unit = currency.map_or_else(String::new, |currency| format!(" {currency}"));
    format!("{cost:.digits$}{unit}")
}

impl PlanReport {
    /// For people.
    pub fn text(&self) -> String {
        let Self { moves, summary } = self;
        let mut text = String::new();
        if !moves.is_empty() {
            let mut rows = table::table(&["action", "bytes", "requests", "path", "why"]);
            for one in moves {
                rows.add_row([
                    one.action.clone(),
                    rounded_bytes(one.bytes),
                    one.requests.to_string(),
                    escaped(&one.path),
                    escaped(&one.why),
                ]);
            }
            table::right(&mut rows, &[1, 2]);
            text.push_str(&table::text(&rows));
        }
        text.push_str(&summary.text());
        text
    }
}

impl PlanSummary {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} moves: {}, of which {} to or from cold in about {} requests; {} become free\n",
            self.count,
            rounded_bytes(self.bytes),
            rounded_bytes(self.transfer_bytes),
            self.requests,
            rounded_bytes(self.freed_bytes),
        );
        let currency = self.currency.as_deref();
        if let (Some(once), Some(monthly)) = (self.cost, self.cost_per_month) {
            let (once, monthly) = (money(once, currency), money(monthly, currency));
            let _ = writeln!(text, "cost: {once} once, {monthly} more each month");
        }
        let _ = writeln!(
            text,
            "hot: {} used; files go above {} until {}, and are copied above {}",
            rounded_bytes(self.hot_used_bytes),
            rounded_bytes(self.high_bytes),
            rounded_bytes(self.low_bytes),
            rounded_bytes(self.copy_ahead_bytes),
        );
        for (why, SkippedFiles { files, bytes }) in &self.skipped {
            let _ = writeln!(text, "{why}: {files} files, {}", rounded_bytes(*bytes));
        }
        for unknown in &self.unknown {
            let _ = writeln!(text, "unknown here: {unknown}");
        }
        if let Some(job) = self.job {
            let _ = writeln!(text, "job {job} carries it out: `firn tier jobs` shows it");
        }
        text
    }
}

/// How one way to choose did on a trace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReplayRow {
    /// `policy`, `lru`, `s3-fifo` or `optimum`.
    pub name: String,
    /// Share of the accesses that hot served, in percent.
    pub hit_pct: f64,
    /// Share of the bytes that hot served, in percent.
    pub byte_hit_pct: f64,
    /// Requests to cold for what hot did not serve.
    pub requests: u64,
    /// Bytes that came from cold.
    pub cold_bytes: u64,
    /// Bytes that went to cold and came back within the horizon.
    pub regretted_bytes: u64,
    /// What the requests and bytes cost; absent without prices.
    pub cost: Option<f64>,
}

/// A policy beside others on one trace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReplayReport {
    /// The trace.
    pub trace: String,
    /// Accesses in it.
    pub accesses: u64,
    /// Files in it.
    pub files: u64,
    /// Capacity of the simulated hot tier.
    pub capacity_bytes: u64,
    /// The results.
    pub rows: Vec<ReplayRow>,
    /// What prices are in.
    pub currency: Option<String>,
    /// Classes and rules that ask for what a trace does not have: paths, extensions, groups.
    #[serde(default)]
    pub unmatched: Vec<String>,
}

impl ReplayReport {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{}: {} accesses to {} files, hot tier of {}\n",
            self.trace,
            self.accesses,
            self.files,
            rounded_bytes(self.capacity_bytes)
        );
        let headings =
            ["policy", "hits", "byte hits", "requests", "from cold", "regretted", "cost"];
        let mut rows = table::table(&headings);
        for row in &self.rows {
            rows.add_row([
                row.name.clone(),
                format!("{:.2} %", row.hit_pct),
                format!("{:.2} %", row.byte_hit_pct),
                row.requests.to_string(),
                rounded_bytes(row.cold_bytes),
                rounded_bytes(row.regretted_bytes),
                row.cost.map_or_else(|| "-".to_owned(), |c| money(c, self.currency.as_deref())),
            ]);
        }
        table::right(&mut rows, &[1, 2, 3, 4, 5, 6]);
        text.push_str(&table::text(&rows));
        if !self.unmatched.is_empty() {
            let all = self.unmatched.join(", ");
            let _ = writeln!(text, "fits nothing, since a trace has no names and groups: {all}");
        }
        text
    }
}

#[cfg(test)]
mod tests;
