//! A snapshot against its digest, or two and then with one another, as the daemon finds it; or this
//! process, where nobody has the volume mounted.

use std::path::Path;

use anyhow::{Context, anyhow};

use crate::cli::heard::Heard;
use crate::cli::names::SnapshotPath;
use crate::control::protocol::Verb;
use crate::control::tree::SnapshotAct;
use crate::failure::{EXIT_DAMAGE, EXIT_DONE, Explain};
use crate::report;
use crate::report::verify::{Pair, Snapshot};

pub(super) fn verify(path: &Path, data: bool, json: bool) -> anyhow::Result<u8> {
    let named = parse(path)?;
    let what = || format!("verifying {}", named.shown);
    let found = ask(&named, data).with_context(what)?;
    if json {
        report::print_json(&found)?;
    } else {
        report::print(&found.text())?;
    }
    judge(&found).with_context(what)
}

/// Two snapshots, each against its digest, and then with one another.
pub(super) fn verify_both([one, other]: [&Path; 2], data: bool, json: bool) -> anyhow::Result<u8> {
    let named = [parse(one)?, parse(other)?];
    let what = |named: &SnapshotPath| format!("verifying {}", named.shown);
    let found = |named| ask(named, data).with_context(|| what(named));
    let pair = Pair::new([found(&named[0])?, found(&named[1])?]);
    if json {
        report::print_json(&pair)?;
    } else {
        report::print(&pair.text())?;
    }
    if pair.snapshots.iter().any(|found| found.found > 0) {
        return Ok(EXIT_DAMAGE);
    }
    for (found, named) in pair.snapshots.iter().zip(&named) {
        judge(found).with_context(|| what(named))?;
    }
    Ok(if pair.equal == Some(true) { EXIT_DONE } else { EXIT_DAMAGE })
}

fn parse(path: &Path) -> anyhow::Result<SnapshotPath> {
    SnapshotPath::parse(path)
        .hint("name a snapshot as <dataset>@<name>, or a directory to compare with: --against")
}

/// What a snapshot's proof means for whoever asked.
fn judge(found: &Snapshot) -> anyhow::Result<u8> {
    match (&found.pending, found.found, found.unread) {
        (_, 1.., _) => Ok(EXIT_DAMAGE),
        (_, 0, unread @ 1..) => {
            let files = if unread == 1 { "1 file" } else { &format!("{unread} files") };
            Err(anyhow!("not proven: {files} could not be read"))
                .hint("nothing was found to be altered; verify again when all tiers answer")
        }
        (Some(why), ..) => Err(anyhow!("it has no digest yet: {why}"))
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
