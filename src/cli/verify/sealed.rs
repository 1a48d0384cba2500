//! A snapshot against its digest, as the daemon finds it; or this process, where nobody has the volume
//! mounted.

use std::path::Path;

use anyhow::{Context, anyhow};

use crate::cli::heard::Heard;
use crate::cli::names::SnapshotPath;
use crate::control::protocol::Verb;
use crate::control::tree::SnapshotAct;
use crate::failure::{EXIT_DAMAGE, EXIT_DONE, Explain};
use crate::report;
use crate::report::verify::Snapshot;

pub(super) fn verify(path: &Path, data: bool, json: bool) -> anyhow::Result<u8> {
    let named = SnapshotPath::parse(path)
        .hint("name a snapshot as <dataset>@<name>, or a directory to compare with: --against")?;
    let what = || format!("verifying {}", named.shown);
    let found = ask(&named, data).with_context(what)?;
    if json {
        report::print_json(&found)?;
    } else {
        report::print(&found.text())?;
    }
    match (&found.pending, found.found, found.unread) {
        (_, 1.., _) => Ok(EXIT_DAMAGE),
        (_, 0, unread @ 1..) => {
            let files = if unread == 1 { "1 file" } else { &format!("{unread} files") };
            Err(anyhow!("not proven: {files} could not be read"))
                .with_context(what)
                .hint("nothing was found to be altered; verify again when all tiers answer")
        }
        (Some(why), ..) => Err(anyhow!("it has no digest yet: {why}"))
            .with_context(what)
            .hint("digests are computed in the background while the volume is mounted, of files that lie in hot: `firn tier stage` brings others back"),
        (None, ..) => Ok(EXIT_DONE),
    }
}

fn ask(named: &SnapshotPath, data: bool) -> anyhow::Result<Snapshot> {
    let (client, of) = named.find()?;
    let mut heard = Heard::new();
    client.ask(Verb::Snapshot(SnapshotAct::Verify { of, data }), &mut heard)?;
    heard.items.pop().context("the daemon's answer is empty")
}
