//! `firn snapshot diff`: changes are printed as they come; only JSON waits for all of them.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;

use crate::cli::names::{self, SnapshotPath};
use crate::control::client::Listener;
use crate::control::protocol::{Progress, Verb};
use crate::control::tree::SnapshotAct;
use crate::failure::{EXIT_DONE, Explain};
use crate::mounts;
use crate::report;
use crate::report::diff::{Change, Form, Listing};
use crate::report::progress::Follower;

/// Show what changed between two snapshots, or since a snapshot
///
/// A line for each file: + it is new, - it is gone, M it or its attributes changed, R it has
/// another name. Of a file with several names (hard links) each that came or went has a line, R if
/// it is one of each; M has one of its names. Lines come in the order of inode numbers, the same
/// each time. In names, control characters and backslashes are written \0ooo, in octal. With
/// --json, an object whose field changes lists change, kind, path and, for R, new_path.
#[derive(Debug, Args)]
pub(super) struct Diff {
    /// The older snapshot: <dataset>@<name>
    from: PathBuf,
    /// The newer one: <dataset>@<name> or @<name>; otherwise, or when it is the dataset, its state
    /// now
    to: Option<PathBuf>,
    /// Show the type of each file: F file, / directory, @ symlink, | fifo, = socket, B and C devices
    #[arg(short = 'F', long)]
    types: bool,
    /// For scripts: fields are separated by single tabs, also the two names of a rename
    #[arg(short = 'H', long)]
    script: bool,
    /// Print one JSON object
    #[arg(long, conflicts_with_all = ["types", "script"])]
    json: bool,
}

/// Prints changes, or keeps them.
struct Printer {
    form: Option<Form>,
    follower: Follower,
    listing: Listing,
}

impl Listener for Printer {
    fn progress(&mut self, progress: &Progress) {
        self.follower.show_quietly(progress);
    }

    fn warning(&mut self, text: &str) {
        self.follower.note(&format!("firn: warning: {text}"));
    }

    fn item(&mut self, item: serde_json::Value) -> anyhow::Result<()> {
        let change: Change = serde_json::from_value(item).context("the daemon's answer")?;
        match self.form {
            Some(form) => report::print(&change.text(form))?,
            None => self.listing.changes.push(change),
        }
        Ok(())
    }
}

impl Diff {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let from = SnapshotPath::parse(&self.from)?;
        let form = Form { types: self.types, script: self.script };
        let mut printer = Printer {
            form: (!self.json).then_some(form),
            follower: Follower::new(),
            listing: Listing::default(),
        };
        let compare = |printer: &mut Printer| {
            let (client, snapshot) = from.find()?;
            let to = self.to.as_deref().map(|to| until(to, &from, snapshot.dataset.ino));
            let to = to.transpose()?.flatten();
            client.ask(Verb::Snapshot(SnapshotAct::Diff { from: snapshot, to }), printer)
        };
        compare(&mut printer).with_context(|| format!("comparing with {}", from.shown))?;
        if self.json {
            report::print_json(&printer.listing)?;
        }
        Ok(EXIT_DONE)
    }
}

/// The snapshot of the same dataset that `to` names; [`None`] for the dataset itself.
fn until(to: &Path, from: &SnapshotPath, dataset: u64) -> anyhow::Result<Option<String>> {
    let text = mounts::shown(to);
    if let Some(name) = text.strip_prefix('@') {
        return Ok(Some(name.to_owned()));
    }
    let (path, name) = match SnapshotPath::parse(to) {
        Ok(path) => (path.dataset, Some(path.snapshot)),
        Err(_) => (to.to_owned(), None),
    };
    let (_, found) = names::find_dataset(&path)?;
    if found.ino == dataset {
        return Ok(name);
    }
    Err(anyhow!("{text} is not of the dataset of {}", from.shown))
        .hint("name two snapshots of one dataset, or a snapshot and its dataset")
        .wrong_usage()
}
