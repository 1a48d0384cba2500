//! `firn scrub`: looking for damage while the volume is in use.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};

use crate::control::client::Client;
use crate::control::protocol::{ScrubAct, Verb};
use crate::failure::{EXIT_DAMAGE, EXIT_DONE};
use crate::mounts;
use crate::report;
use crate::report::scrub::ScrubReport;
use crate::volume_dir;

/// How soon the command looks at how far it is, and how often at least: later looks are rarer.
const FIRST_LOOK: Duration = Duration::from_millis(10);
const LOOK: Duration = Duration::from_millis(500);

/// Look for damage in both tiers, and repair it, while the volume is in use
///
/// Reads every segment in the hot tier and verifies its checksums, indexes and parity, compares the
/// catalog with it, and compares what the cold tier lists with what it should hold. What is damaged
/// is made whole from another copy or by parity. The policy says when it begins by itself, how fast
/// it reads, and which share of the cold tier is read throughout each day.
#[derive(Debug, Args)]
pub(super) struct Scrub {
    #[command(subcommand)]
    verb: ScrubVerb,
}

#[derive(Debug, Subcommand)]
enum ScrubVerb {
    /// Begin, or go on where it was stopped
    Start {
        #[command(flatten)]
        on: OnVolume,
        /// Read every byte in the cold tier, too, which costs requests and traffic
        #[arg(long)]
        cold_data: bool,
        /// Begin at the first segment, also when one was stopped or is running
        #[arg(long)]
        afresh: bool,
        /// Return when it has ended; exit status 3 when content is lost
        #[arg(long)]
        wait: bool,
    },
    /// Stop; `start` goes on where it was
    Stop(OnVolume),
    /// Show how far it is and what was found; exit status 3 when content is lost
    Status(OnVolume),
}

#[derive(Debug, Args)]
struct OnVolume {
    /// A mountpoint or any path below one
    #[arg(default_value = ".")]
    volume: PathBuf,
    /// Print one JSON object: state, pass, last, next, cold and failure
    #[arg(long)]
    json: bool,
}

impl Scrub {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let (on, act, waits) = match self.verb {
            ScrubVerb::Start { on, cold_data, afresh, wait } => {
                (on, ScrubAct::Start { cold_data, afresh }, wait)
            }
            ScrubVerb::Stop(on) => (on, ScrubAct::Stop, false),
            ScrubVerb::Status(on) => (on, ScrubAct::Status, false),
        };
        let what = || format!("scrubbing {}", mounts::shown(&on.volume));
        let mut found = ask(&on.volume, act).with_context(what)?;
        let mut pause = FIRST_LOOK;
        while waits && found.state == "running" {
            std::thread::sleep(pause);
            pause = (pause * 2).min(LOOK);
            found = ask(&on.volume, ScrubAct::Status).with_context(what)?;
        }
        if on.json {
            report::print_json(&found)?;
        } else {
            report::print(&found.text())?;
        }
        let tells = waits || matches!(act, ScrubAct::Status);
        let latest = found.pass.as_ref().or(found.last.as_ref());
        let has_lost = tells && latest.is_some_and(|pass| pass.has_lost());
        Ok(if has_lost { EXIT_DAMAGE } else { EXIT_DONE })
    }
}

fn ask(volume: &Path, act: ScrubAct) -> anyhow::Result<ScrubReport> {
    let target = volume_dir::resolve(volume)?;
    Client::connect(&target.volume)?.ask_one(Verb::Scrub(act))
}
