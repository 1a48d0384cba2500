//! `firn status`: asks the daemon of a mounted volume, or looks at the directory of one that is
//! not mounted; without a volume, all that are mounted here.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use firn_tiering::{Clock, SystemClock};
use serde::Serialize;

use crate::control::client::Client;
use crate::control::protocol::Verb;
use crate::daemon::storage::disk_bytes;
use crate::failure::{self, EXIT_DONE};
use crate::key;
use crate::mounts;
use crate::report;
use crate::report::status::rates::Rates;
use crate::report::status::{ColdStatus, HotStatus, Status};
use crate::units::{Period, rounded_bytes};
use crate::volume_dir::{self, VolumeDir, lock};

/// Shortest time between two looks of `--watch`.
const SHORTEST: Duration = Duration::from_millis(100);

/// Show capacity, tiers, ratios, rates, jobs and health
///
/// Without a volume, all that are mounted. With --json, one object with the fields volume, uuid,
/// format, mount, hot, cold, data, memory, backup, snapshots, receives, counters, hit_ratio, jobs,
/// health and warnings; without a volume, an object whose field volumes lists them. With --watch
/// and --json one object a line and a look, which has rates as well from the second look on.
#[derive(Debug, Args)]
pub(super) struct StatusVerb {
    /// A volume directory, a mountpoint or any path below one
    volume: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Show it again and again, with rates, until interrupted: every two seconds, or as told
    ///
    /// On a terminal in place, elsewhere one line a look.
    #[arg(
        long,
        value_name = "INTERVAL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2s"
    )]
    watch: Option<Period>,
}

/// All mounted volumes.
#[derive(Serialize)]
struct All {
    volumes: Vec<Status>,
}

impl StatusVerb {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        match self.watch {
            None => self.show(&self.look()?)?,
            Some(Period(interval)) => self.watch(interval.max(SHORTEST))?,
        }
        Ok(EXIT_DONE)
    }

    /// Looks again and again until the process is interrupted, or nobody reads any more.
    fn watch(&self, interval: Duration) -> anyhow::Result<()> {
        let mut before: Option<(Instant, Vec<Status>)> = None;
        loop {
            let at = SystemClock.instant();
            let look = self.look()?;
            let now: Vec<Status> = look
                .iter()
                .map(|status| match &before {
                    Some((then, statuses)) => since(status, statuses, at - *then),
                    None => status.clone(),
                })
                .collect();
            if self.json {
                self.show_line(&now)?;
            } else if io::stdout().is_terminal() {
                report::print(&in_place(&text(&now), before.is_none()))?;
            } else {
                now.iter().try_for_each(|status| report::print(&line(status)))?;
            }
            before = Some((at, look));
            let spent = SystemClock.instant().saturating_duration_since(at);
            thread::sleep(interval.saturating_sub(spent));
        }
    }

    fn look(&self) -> anyhow::Result<Vec<Status>> {
        match &self.volume {
            Some(path) => {
                let target = volume_dir::resolve(path).context("status")?;
                Ok(vec![of(&target.volume)?])
            }
            None => {
                let mounts = mounts::all()?;
                let firn = mounts.iter().filter(|entry| entry.is_firn());
                Ok(firn.map(|entry| mounted(&entry.source, &entry.mountpoint)).collect())
            }
        }
    }

    fn show(&self, now: &[Status]) -> anyhow::Result<()> {
        match (self.json, now, &self.volume) {
            (true, [one], Some(_)) => report::print_json(one),
            (true, ..) => report::print_json(&All { volumes: now.to_vec() }),
            (false, ..) => report::print(&text(now)),
        }
    }

    fn show_line(&self, now: &[Status]) -> anyhow::Result<()> {
        match (now, &self.volume) {
            ([one], Some(_)) => report::print_json_line(one),
            _ => report::print_json_line(&All { volumes: now.to_vec() }),
        }
    }
}

/// With rates, where the volume was there before.
fn since(status: &Status, before: &[Status], time: Duration) -> Status {
    match before.iter().find(|before| before.volume == status.volume) {
        Some(before) => status.clone().since(before, time),
        None => status.clone(),
    }
}

/// All of it, for people.
fn text(now: &[Status]) -> String {
    if now.is_empty() {
        return "no volume is mounted\n".to_owned();
    }
    now.iter().map(Status::text).collect::<Vec<_>>().join("\n")
}

/// Written over what a terminal shows, line by line, so that nothing flickers.
fn in_place(text: &str, first: bool) -> String {
    let clear = if first { "\x1b[2J" } else { "" };
    let lines: String = text.lines().map(|line| format!("{line}\x1b[K\n")).collect();
    format!("{clear}\x1b[H{lines}\x1b[J")
}

/// One look in one line.
fn line(status: &Status) -> String {
    let mut parts = vec![format!("{} {}", status.volume, status.health)];
    let hot = &status.hot;
    parts.push(format!(
        "hot {} of {}",
        rounded_bytes(hot.used_bytes),
        rounded_bytes(hot.capacity_bytes)
    ));
    if let Some(cold) = &status.cold {
        let waiting = cold.waiting_segments;
        parts.push(format!("cold {}, {waiting} to be copied", rounded_bytes(cold.used_bytes)));
    }
    parts.extend(status.rates.as_ref().map(Rates::line));
    parts.extend(status.warnings.iter().cloned());
    parts.join("; ")
}

/// The state of a volume, whoever has it.
fn of(volume: &VolumeDir) -> anyhow::Result<Status> {
    match lock::holder(volume)? {
        Some(owner) if owner.mountpoint.is_some() && !owner.finishing => {
            Client::connect(volume)?.ask_one(Verb::Status)
        }
        other => unmounted(volume, other.as_ref()),
    }
}

/// The state of something mounted, also when its daemon does not answer: one dead mount must not
/// hide the others.
fn mounted(source: &std::path::Path, mountpoint: &std::path::Path) -> Status {
    let asked = VolumeDir::open(source)
        .and_then(|volume| Client::connect(&volume)?.ask_one::<Status>(Verb::Status));
    asked.unwrap_or_else(|error| Status {
        volume: mounts::shown(source),
        health: "no answer".to_owned(),
        warnings: vec![format!(
            "mounted at {}: {}",
            mounts::shown(mountpoint),
            failure::line(&error)
        )],
        ..Status::default()
    })
}

/// What can be said by looking at the directory.
fn unmounted(volume: &VolumeDir, owner: Option<&lock::Owner>) -> anyhow::Result<Status> {
    let config = volume.config()?;
    let hot = config.hot_dir(volume.root());
    let databases = disk_bytes(&volume.namespace_dir()) + disk_bytes(&volume.catalog_dir());
    let health = match owner {
        None => "not mounted",
        Some(owner) if owner.finishing => "finishing",
        Some(_) => "in use",
    };
    Ok(Status {
        volume: mounts::shown(volume.root()),
        uuid: config.uuid.to_string(),
        format: config.format,
        hot: HotStatus {
            used_bytes: disk_bytes(&hot) + databases,
            place: mounts::shown(&hot),
            capacity_bytes: config.hot_capacity.0,
            segments: 0,
        },
        cold: config.cold.as_ref().map(|url| ColdStatus {
            place: url.to_string(),
            capacity_bytes: config.cold_capacity.map(|capacity| capacity.0),
            encryption: key::shown(volume, &config),
            ..ColdStatus::default()
        }),
        jobs: owner
            .map(|owner| format!("`firn {}`, process {}", owner.verb, owner.pid))
            .into_iter()
            .collect(),
        health: health.to_owned(),
        ..Status::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_written_over() {
        assert_eq!(in_place("a\nb\n", true), "\x1b[2J\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
        assert!(!in_place("a\n", false).contains("\x1b[2J"));
    }

    #[test]
    fn a_look_is_a_line() {
        let before = Status { uuid: "u".to_owned(), ..Status::default() };
        let mut status = Status { health: "ok".to_owned(), ..before.clone() };
        assert_eq!(line(&status), " ok; hot 0 B of 0 B");
        let counters = Some(crate::report::status::Counters::default());
        status.counters = counters.clone();
        let before = Status { counters, ..before };
        let status = since(&status, &[before], Duration::from_secs(1));
        assert!(line(&status).contains("written 0 B/s"), "{}", line(&status));
        assert!(!line(&status).contains('\n'));
    }
}
