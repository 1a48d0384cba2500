//! Traces of accesses that a command is given.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, ensure};
use firn_tiering::replay::{Request, read_trace};

use super::snapshot::pump::{self, Sink};
use crate::control::client::{Client, Silent};
use crate::control::placement::TierAct;
use crate::control::protocol::Verb;
use crate::mounts;
use crate::volume_dir;

/// Most requests of a trace: 4 GiB of memory.
const MOST_REQUESTS: usize = 50_000_000;

/// Writes what a mounted volume remembers of how its files were used.
pub(super) fn write(volume: &Path, sink: Sink) -> anyhow::Result<()> {
    let client = Client::connect(&volume_dir::resolve(volume)?.volume)?;
    let verb = Verb::Tier(TierAct::Trace);
    pump::out(sink, |along| client.ask_along(verb, Some(along), &mut Silent))
}

/// Reads a whole trace; `-` is standard input. One that is not in the order of time is refused.
pub(super) fn load(path: &Path) -> anyhow::Result<Vec<Request>> {
    let what = || format!("reading {}", mounts::shown(path));
    let input: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(std::io::stdin().lock()),
        false => Box::new(File::open(path).with_context(what)?),
    };
    let trace = read_trace(BufReader::new(input), MOST_REQUESTS).with_context(what)?;
    ensure!(
        trace.windows(2).all(|pair| pair[0].at_ms <= pair[1].at_ms),
        "{} is not in the order of time",
        mounts::shown(path)
    );
    Ok(trace)
}
