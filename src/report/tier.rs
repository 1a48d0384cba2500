//! What `firn tier du`, `pin`, `pins`, `jobs` and `cancel` say. The JSON objects are [`Du`],
//! [`Pins`] and [`Jobs`]; their fields are only ever added to.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::escape::escaped;
use super::table;
use crate::units::{rounded_bytes, rounded_duration};

/// What is below a directory, all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DuLine {
    /// Its path, as reached from what was asked about.
    pub path: String,
    /// Files; one with several names counts once.
    pub files: u64,
    /// Their lengths together.
    pub size_bytes: u64,
    /// Bytes of content that are in hot only.
    pub hot_bytes: u64,
    /// In hot, and verified in cold.
    pub dual_bytes: u64,
    /// In cold only.
    pub cold_bytes: u64,
    /// Without a known place.
    pub lost_bytes: u64,
}

impl DuLine {
    /// Adds what another part of the tree holds.
    pub fn add(&mut self, other: &Self) {
        self.files += other.files;
        for (sum, part) in [
            (&mut self.size_bytes, other.size_bytes),
            (&mut self.hot_bytes, other.hot_bytes),
            (&mut self.dual_bytes, other.dual_bytes),
            (&mut self.cold_bytes, other.cold_bytes),
            (&mut self.lost_bytes, other.lost_bytes),
        ] {
            *sum = sum.saturating_add(part);
        }
    }
}

/// Several directories.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Du {
    /// Each behind those below it.
    pub directories: Vec<DuLine>,
}

impl Du {
    /// For people.
    pub fn text(&self) -> String {
        let mut rows = table::table(&["hot only", "both", "cold only", "size", "files", "path"]);
        for line in &self.directories {
            rows.add_row([
                rounded_bytes(line.hot_bytes),
                rounded_bytes(line.dual_bytes),
                rounded_bytes(line.cold_bytes),
                rounded_bytes(line.size_bytes),
                line.files.to_string(),
                escaped(&line.path),
            ]);
        }
        table::right(&mut rows, &[0, 1, 2, 3, 4]);
        let mut text = table::text(&rows);
        for line in self.directories.iter().filter(|line| line.lost_bytes > 0) {
            let lost = rounded_bytes(line.lost_bytes);
            text.push_str(&format!("{}: {lost} have no known place\n", escaped(&line.path)));
        }
        text
    }
}

/// A pin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinLine {
    /// The path it is at.
    pub path: String,
    /// `hot` or `cold`.
    pub tier: String,
    /// `explicit`, or `inherited` from a directory above.
    pub source: String,
    /// That directory.
    pub from: Option<String>,
    /// When it goes by itself, in RFC 3339.
    pub until: Option<String>,
}

/// Several pins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pins {
    /// In the order of their paths.
    pub pins: Vec<PinLine>,
}

impl Pins {
    /// For people.
    pub fn text(&self) -> String {
        let mut rows = table::table(&["tier", "source", "until", "path"]);
        for pin in &self.pins {
            let source = match &pin.from {
                Some(from) => format!("{} from {}", pin.source, escaped(from)),
                None => pin.source.clone(),
            };
            let until = pin.until.clone().unwrap_or_else(|| "-".to_owned());
            rows.add_row([pin.tier.clone(), source, until, escaped(&pin.path)]);
        }
        table::text(&rows)
    }
}

/// Work that waits or is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobLine {
    /// Its number, for `firn tier cancel`.
    pub job: u64,
    /// `stage`, `write-back`, `demote`, `re-encode`, `scrub`, ...
    pub kind: String,
    /// `waiting`, `running`, `parked`, `done`, `cancelled` or `failed`.
    pub state: String,
    /// What it is about: a path, or how many.
    pub what: String,
    /// Who asked for it: `policy`, or a user.
    pub by: Option<String>,
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Seconds since it was asked for.
    pub age_s: u64,
    /// Why it waits, is parked or failed.
    pub reason: Option<String>,
}

/// Several jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Jobs {
    /// In the order in which they are done.
    pub jobs: Vec<JobLine>,
}

impl Jobs {
    /// For people.
    pub fn text(&self) -> String {
        let mut rows = table::table(&["job", "kind", "state", "done", "of", "age", "what", "why"]);
        for job in &self.jobs {
            rows.add_row([
                job.job.to_string(),
                job.kind.clone(),
                job.state.clone(),
                rounded_bytes(job.done_bytes),
                rounded_bytes(job.total_bytes),
                rounded_duration(Duration::from_secs(job.age_s)),
                escaped(&job.what),
                escaped(job.reason.as_deref().unwrap_or_default()),
            ]);
        }
        table::right(&mut rows, &[0, 3, 4, 5]);
        table::text(&rows)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn sums_are_of_every_part() {
        let one = DuLine {
            path: "/a".into(),
            files: 1,
            size_bytes: 10,
            hot_bytes: 4,
            dual_bytes: 3,
            cold_bytes: 2,
            lost_bytes: 1,
        };
        let mut sum = DuLine { path: "/".into(), ..one.clone() };
        sum.add(&one);
        let text = Du { directories: vec![one, sum.clone()] }.text();
        assert_eq!((sum.files, sum.size_bytes, sum.lost_bytes), (2, 20, 2));
        assert!(text.contains("HOT ONLY") && text.contains("/: 2 B have no known place"), "{text}");
    }

    #[test]
    fn pins_and_jobs_show_why() {
        let pin = PinLine {
            path: "/m/a".into(),
            tier: "hot".into(),
            source: "inherited".into(),
            from: Some("/m".into()),
            until: None,
        };
        let json = serde_json::to_value(Pins { pins: vec![pin.clone()] }).unwrap();
        assert_eq!(json["pins"][0]["from"], "/m");
        assert!(Pins { pins: vec![pin] }.text().contains("inherited from /m"));
        let job = JobLine {
            job: 7,
            kind: "demote".into(),
            state: "parked".into(),
            reason: Some("cold is full".into()),
            age_s: 90,
            ..JobLine::default()
        };
        let text = Jobs { jobs: vec![job] }.text();
        assert!(text.contains("parked") && text.contains("1m30s") && text.contains("cold is full"));
    }
}
