//! `firn snapshot receive`: this process pumps standard input, or an object, into one end of a
//! socket pair, and the daemon reads the other.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::Args;

use super::command;
use super::pump::{self, Source};
use crate::cli::heard::Heard;
use crate::cli::key::KeyArgs;
use crate::cli::names::{self, SnapshotPath};
use crate::control::client::Client;
use crate::control::protocol::Verb;
use crate::control::tree::{Receiving, SnapshotAct};
use crate::failure::{EXIT_DONE, Explain};
use crate::key;
use crate::mounts;
use crate::report;
use crate::report::snapshots::Received;

/// Make a snapshot from a stream that `firn snapshot send` wrote
///
/// A full stream makes a new dataset; a stream that was sent with -i adds a snapshot to a dataset
/// that has the older one. Everything is checked, and the snapshot appears when all of it is there: a
/// stream that ends early leaves nothing, or with -s what can be continued. What was received is read
/// again before that, and its root compared with that of the sender's snapshot: where they differ,
/// nothing is left. A base that is not what the sender's is gets refused at the beginning. What went
/// to the cold tier in the meantime is compared when the snapshot gets its digest; `firn snapshot
/// list` shows what came of it. A second stream behind the first is an error; each needs a receive of
/// its own.
#[derive(Debug, Args)]
pub(super) struct Receive {
    /// The dataset: a path that does not exist yet, or for an incremental stream the root directory
    /// of the one that has the base; @<name> behind it gives the snapshot another name
    dataset: PathBuf,
    /// Keep what was received when the stream is cut, and print a token with which
    /// `firn snapshot send -t` goes on
    #[arg(short = 's', long, conflicts_with = "abandon")]
    resumable: bool,
    /// Give up what changed in the dataset since the base
    #[arg(short = 'F', long, conflicts_with = "abandon")]
    force: bool,
    /// Receive nothing; throw away what was received of a stream that was cut
    #[arg(short = 'A', long, conflicts_with_all = ["from", "verbose"])]
    abandon: bool,
    /// Read an object instead of standard input: file:///path, s3://bucket/name, gs://..., az://...
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    #[command(flatten)]
    key: KeyArgs,
    /// Say what was received
    #[arg(short, long)]
    verbose: bool,
    /// Print one JSON object with the fields snapshot, stream_bytes, plain_bytes, sent_root (absent where
    /// the stream has none), equal (to what was sent) and lacking (files that do not lie in hot)
    #[arg(long, conflicts_with_all = ["abandon", "verbose"])]
    json: bool,
}

impl Receive {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let shown = mounts::shown(&self.dataset);
        if self.abandon {
            let abandon = || {
                let (client, into, _) = self.target()?;
                command(client, SnapshotAct::Abandon { into })
            };
            abandon().with_context(|| format!("abandoning what was received into {shown}"))?;
            return Ok(EXIT_DONE);
        }
        let received = self.receive().with_context(|| format!("receiving into {shown}"))?;
        if let Some(warning) = received.warning() {
            report::note(&warning);
        }
        if self.json {
            report::print_json(&received)?;
        } else if self.verbose {
            report::print(&received.text())?;
        }
        Ok(EXIT_DONE)
    }

    fn receive(&self) -> anyhow::Result<Received> {
        if self.from.is_none() && io::stdin().is_terminal() {
            return Err(anyhow!("standard input is a terminal"))
                .hint("pipe a stream in (< file, `firn snapshot send ... |`), or use --from <url>")
                .wrong_usage();
        }
        let (client, into, snapshot) = self.target()?;
        let source = match &self.from {
            Some(url) => Source::object(url)?,
            None => Source::input()?,
        };
        let source = source.opened(self.key.source()?.map(|named| move || key::secret(&named)))?;
        let (resumable, force) = (self.resumable, self.force);
        let verb = Verb::Snapshot(SnapshotAct::Receive { into, snapshot, resumable, force });
        let mut heard = Heard::<Received>::new();
        pump::into(source, |along| client.ask_along(verb, Some(along), &mut heard))?;
        heard.items.pop().context("nothing was answered")
    }

    /// The dataset that is there, or the place where it is to be made; and the snapshot's name.
    fn target(&self) -> anyhow::Result<(Client, Receiving, Option<String>)> {
        let (path, snapshot) = match SnapshotPath::parse(&self.dataset) {
            Ok(path) => (path.dataset, Some(path.snapshot)),
            Err(_) => (self.dataset.clone(), None),
        };
        if names::exists(&path)? {
            let (client, dataset) = names::find_dataset(&path)?;
            return Ok((client, Receiving::Existing(dataset), snapshot));
        }
        let (client, at) = names::find_new(&path)?;
        Ok((client, Receiving::New(at), snapshot))
    }
}
