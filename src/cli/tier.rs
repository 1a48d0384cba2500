//! `firn tier`: where files lie, and moving them by hand.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::heard::Heard;
use super::target;
use crate::control::client::Client;
use crate::control::protocol::{Files, Verb};
use crate::failure::EXIT_DONE;
use crate::report::files::{FileLine, Listing, Moved};
use crate::report::status::Status;
use crate::report::{self, table};
use crate::units::rounded_bytes;
use crate::volume_dir;

mod find;
mod jobs;
mod pins;
mod stage;

/// Look at the tiers and move files between them
#[derive(Debug, Args)]
pub(super) struct Tier {
    #[command(subcommand)]
    verb: TierVerb,
}

#[derive(Debug, Subcommand)]
enum TierVerb {
    /// Copy files to the cold tier, verify the copies and back the namespace up
    Archive(Archive),
    /// Drop the hot copies of files that are safe in the cold tier
    ///
    /// What is not yet in cold, verified and named by a backup stays where it is and is reported.
    Release(Move),
    Stage(stage::Stage),
    /// Show where files lie: each file with its state and its share in the hot tier
    ///
    /// States are dirty, resident (hot only), dual (hot and verified in cold), partial, cold,
    /// fetching and error. With --json, an object whose field files lists path, kind, size_bytes,
    /// state and resident_pct.
    Where(Look),
    /// List a directory with the state of each file
    ///
    /// With --json, an object whose field files lists path, kind, size_bytes, state and
    /// resident_pct.
    Ls(Look),
    Find(find::Find),
    Du(find::DuVerb),
    Pin(pins::Pin),
    Unpin(pins::Unpin),
    Pins(pins::PinsVerb),
    Jobs(jobs::JobsVerb),
    Cancel(jobs::Cancel),
    Trace(jobs::Trace),
    /// Show how much lies in each tier
    Status(TierStatus),
}

#[derive(Debug, Args)]
struct Move {
    /// Files, or directories with -r
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Everything below directories too
    #[arg(short, long)]
    recursive: bool,
    /// Print one JSON object: files, blocks, stored_bytes, saved_bytes, refused and reasons
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Archive {
    #[command(flatten)]
    what: Move,
    /// First compress the files' segments again as hard as possible (zstd-19 and every filter)
    ///
    /// Whole segments of the hot tier are written again, other files in them included. Takes about
    /// a second for each MiB and processor.
    #[arg(long)]
    recompress: bool,
}

#[derive(Debug, Args)]
struct Look {
    /// Files and directories
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Everything below directories too
    #[arg(short, long)]
    recursive: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct TierStatus {
    /// A mountpoint or any path below one
    volume: PathBuf,
    /// Print one JSON object, whose field tiers lists tier, place, used_bytes, capacity_bytes,
    /// segments and waiting_segments
    #[arg(long)]
    json: bool,
}

impl Tier {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        match self.verb {
            TierVerb::Archive(archive) => archive.run(),
            TierVerb::Release(what) => what.run("releasing", "dropped from hot", Verb::Release),
            TierVerb::Stage(what) => what.run(),
            TierVerb::Find(what) => what.run(),
            TierVerb::Du(what) => what.run(),
            TierVerb::Pin(what) => what.run(),
            TierVerb::Unpin(what) => what.run(),
            TierVerb::Pins(what) => what.run(),
            TierVerb::Jobs(what) => what.run(),
            TierVerb::Cancel(what) => what.run(),
            TierVerb::Trace(what) => what.run(),
            TierVerb::Where(what) | TierVerb::Ls(what) => what.run(),
            TierVerb::Status(what) => what.run(),
        }
    }
}

impl Archive {
    fn run(self) -> anyhow::Result<u8> {
        let mut before = Moved::default();
        if self.recompress {
            let done = self.what.ask("compressing again", Verb::Recompress)?;
            before = Moved { saved_bytes: done.saved_bytes, ..Moved::default() };
            done.reasons.into_iter().for_each(|reason| before.keep_reason(reason));
        }
        let mut sum = self.what.ask("archiving", Verb::Archive)?;
        sum.add(before);
        tell(&sum, self.what.json, "copied to cold")?;
        Ok(EXIT_DONE)
    }
}

impl Move {
    fn run(self, doing: &str, done: &str, verb: fn(Files) -> Verb) -> anyhow::Result<u8> {
        tell(&self.ask(doing, verb)?, self.json, done)?;
        Ok(EXIT_DONE)
    }

    fn ask(&self, doing: &str, verb: fn(Files) -> Verb) -> anyhow::Result<Moved> {
        let mut sum = Moved::default();
        for path in &self.paths {
            let found = target::find(path).with_context(|| doing.to_owned())?;
            let what = format!("{doing} {}", found.name);
            let files = Files { ino: found.ino, name: found.name, recursive: self.recursive };
            let mut heard = Heard::<Moved>::new();
            found.client.ask(verb(files), &mut heard).with_context(|| what)?;
            heard.items.into_iter().for_each(|moved| sum.add(moved));
        }
        Ok(sum)
    }
}

/// Says what was moved, and what stays as it was for a reason worth knowing.
fn tell(sum: &Moved, json: bool, done: &str) -> anyhow::Result<()> {
    for reason in &sum.reasons {
        report::note(&format!("firn: warning: {reason}"));
    }
    if json { report::print_json(sum) } else { report::print(&summary(sum, done)) }
}

fn summary(moved: &Moved, done: &str) -> String {
    let bytes = rounded_bytes(moved.stored_bytes);
    let mut text = format!("{} files: {} blocks, {bytes} {done}", moved.files, moved.blocks);
    if moved.saved_bytes > 0 {
        text.push_str(&format!(", {} saved", rounded_bytes(moved.saved_bytes)));
    }
    if moved.refused > 0 {
        text.push_str(&format!("; {} blocks stay as they were", moved.refused));
    }
    if moved.absent.files > 0 {
        let (files, bytes) = (moved.absent.files, rounded_bytes(moved.absent.stored_bytes));
        text.push_str(&format!("; {bytes} of {files} files are not there any more"));
    }
    text
}

impl Look {
    fn run(self) -> anyhow::Result<u8> {
        let mut listing = Listing::default();
        for path in &self.paths {
            let found = target::find(path).context("listing")?;
            let what = format!("listing {}", found.name);
            let files = Files { ino: found.ino, name: found.name, recursive: self.recursive };
            let mut heard = Heard::<FileLine>::new();
            found.client.ask(Verb::List(files), &mut heard).with_context(|| what)?;
            listing.files.extend(heard.items);
        }
        if self.json {
            report::print_json(&listing)?;
        } else if !listing.files.is_empty() {
            report::print(&listing.text())?;
        }
        Ok(EXIT_DONE)
    }
}

/// One tier.
#[derive(Serialize)]
struct TierLine {
    tier: &'static str,
    place: String,
    used_bytes: u64,
    capacity_bytes: Option<u64>,
    segments: u64,
    waiting_segments: u64,
}

#[derive(Serialize)]
struct Tiers {
    tiers: Vec<TierLine>,
}

impl TierStatus {
    fn run(self) -> anyhow::Result<u8> {
        let target = volume_dir::resolve(&self.volume).context("tier status")?;
        let status: Status = Client::connect(&target.volume)?.ask_one(Verb::Status)?;
        let tiers = Tiers { tiers: lines(status) };
        if self.json {
            report::print_json(&tiers)?;
        } else {
            report::print(&tiers.text())?;
        }
        Ok(EXIT_DONE)
    }
}

fn lines(status: Status) -> Vec<TierLine> {
    let hot = TierLine {
        tier: "hot",
        place: status.hot.place,
        used_bytes: status.hot.used_bytes,
        capacity_bytes: Some(status.hot.capacity_bytes),
        segments: status.hot.segments,
        waiting_segments: 0,
    };
    let cold = status.cold.map(|cold| TierLine {
        tier: "cold",
        place: cold.place,
        used_bytes: cold.used_bytes,
        capacity_bytes: cold.capacity_bytes,
        segments: cold.segments,
        waiting_segments: cold.waiting_segments,
    });
    std::iter::once(hot).chain(cold).collect()
}

impl Tiers {
    fn text(&self) -> String {
        let mut rows = table::table(&["tier", "used", "capacity", "segments", "waiting", "place"]);
        for tier in &self.tiers {
            rows.add_row([
                tier.tier.to_owned(),
                rounded_bytes(tier.used_bytes),
                tier.capacity_bytes.map_or_else(|| "unlimited".to_owned(), rounded_bytes),
                tier.segments.to_string(),
                tier.waiting_segments.to_string(),
                tier.place.clone(),
            ]);
        }
        table::right(&mut rows, &[1, 2, 3, 4]);
        table::text(&rows)
    }
}
