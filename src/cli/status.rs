//! `firn status`: asks the daemon of a mounted volume, or looks at the directory of one that is
//! not mounted; without a volume, all that are mounted here.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use firn_tiering::{Clock, SystemClock};
use serde::Serialize;

use crate::control::client::Client;
use crate::control::protocol::Verb;
use crate::daemon::storage::disk_bytes;
use crate::failure::EXIT_DONE;
use crate::mounts;
use crate::report;
use crate::report::status::{ColdStatus, HotStatus, Status};
use crate::volume_dir::{self, VolumeDir, lock};

/// How often `--watch` looks again.
const PERIOD: Duration = Duration::from_secs(2);

/// Show capacity, tiers, ratios, rates, jobs and health
///
/// Without a volume, all that are mounted. With --json, one object with the fields volume, uuid,
/// format, mount, hot, cold, data, memory, backup, counters, jobs, health and warnings; without a
/// volume, an object whose field volumes lists them.
#[derive(Debug, Args)]
pub(super) struct StatusVerb {
    /// A volume directory, a mountpoint or any path below one
    volume: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Show it again every two seconds, with rates, until interrupted
    #[arg(long)]
    watch: bool,
}

/// All mounted volumes.
#[derive(Serialize)]
struct All {
    volumes: Vec<Status>,
}

impl StatusVerb {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let mut before: Option<Vec<Status>> = None;
        loop {
            let began = SystemClock.instant();
            let now = self.look()?;
            self.show(&now, before.as_deref())?;
            if !self.watch {
                return Ok(EXIT_DONE);
            }
            before = Some(now);
            let spent = SystemClock.instant().saturating_duration_since(began);
            thread::sleep(PERIOD.saturating_sub(spent));
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

    fn show(&self, now: &[Status], before: Option<&[Status]>) -> anyhow::Result<()> {
        if self.json {
            return match (now, &self.volume) {
                ([one], Some(_)) => report::print_json(one),
                _ => report::print_json(&All { volumes: now.to_vec() }),
            };
        }
        if now.is_empty() {
            return report::print("no volume is mounted");
        }
        let earlier = |status: &Status| {
            let before = before?.iter().find(|before| before.volume == status.volume)?;
            Some((before, PERIOD))
        };
        let texts: Vec<String> = now.iter().map(|status| status.text(earlier(status))).collect();
        let clear = if self.watch { "\x1b[H\x1b[2J" } else { "" };
        report::print(&format!("{clear}{}", texts.join("\n")))
    }
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
        warnings: vec![format!("mounted at {}: {error:#}", mounts::shown(mountpoint))],
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
