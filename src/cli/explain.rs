//! `firn explain`: a file's blocks, how each is stored and why, and where it lies.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::target;
use crate::control::client::Listener;
use crate::control::protocol::Verb;
use crate::failure::EXIT_DONE;
use crate::report;
use crate::report::explain::{Explanation, FileFacts, Run};

/// Show a file's blocks: codec and why, stored size, checksum, where each lies
///
/// Once the BLAKE3 of the whole file was computed, it says that as well: what b3sum prints. With
/// --json, one object with the fields path, ino, kind, size_bytes, state, resident_pct, blake3 and
/// runs. A run has offset_bytes, len_bytes, kind (block, inline or unwritten) and for blocks the
/// block: id, digest, offset_bytes, plain_bytes, residence, and stored with stored_bytes, codec,
/// filter, level, why, segment and segment_offset_bytes. Holes are what no run covers.
#[derive(Debug, Args)]
pub(super) struct ExplainVerb {
    /// A file on a mounted volume
    path: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Default)]
struct Heard {
    file: Option<FileFacts>,
    runs: Vec<Run>,
}

impl Listener for Heard {
    fn item(&mut self, item: serde_json::Value) -> anyhow::Result<()> {
        match self.file {
            None => self.file = Some(serde_json::from_value(item).context("the daemon's answer")?),
            Some(_) => self.runs.push(serde_json::from_value(item).context("the daemon's answer")?),
        }
        Ok(())
    }
}

impl ExplainVerb {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let found = target::find(&self.path).context("explaining")?;
        let mut heard = Heard::default();
        found
            .client
            .ask(Verb::Explain { ino: found.ino }, &mut heard)
            .with_context(|| format!("explaining {}", found.name))?;
        let file = heard.file.context("the daemon answered nothing")?;
        let explanation = Explanation { path: found.name, file, runs: heard.runs };
        if self.json {
            report::print_json(&explanation)?;
        } else {
            report::print(&explanation.text())?;
        }
        Ok(EXIT_DONE)
    }
}
