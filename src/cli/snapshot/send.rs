//! `firn snapshot send`: the daemon writes the stream into one end of a socket pair, and this
//! process pumps it from the other to standard output or into an object. So the user's own
//! descriptors keep their flags, and the daemon never waits for a reader that nobody asked for.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;

use super::pump::{self, Sink};
use crate::cli::heard::Heard;
use crate::cli::key::KeyArgs;
use crate::cli::names::{self, SnapshotPath};
use crate::control::client::Client;
use crate::control::protocol::Verb;
use crate::control::tree::{DatasetName, Sending, SnapshotAct, SnapshotName};
use crate::failure::{EXIT_DONE, Explain};
use crate::key;
use crate::mounts;
use crate::report;
use crate::report::snapshots::Sent;

/// Write a snapshot as a stream, for `firn snapshot receive`
///
/// The stream goes to standard output, or with --to straight into an object store. It holds blocks as
/// they are stored, without compressing them again, and is checked throughout when it is received. In
/// the end it says what root the snapshot's content has, with which the receiver compares its own; a
/// snapshot that was just taken is given 10 s to get its digest for that, and without one a note says
/// that the stream does without. With -i it holds only what is different from an older snapshot,
/// which the receiver must have. With a key it is encrypted under that, and whoever receives it needs
/// the same key. Without one it is not, wherever it goes; to an object, an encrypted volume is then
/// sent with --plaintext only.
#[derive(Debug, Args)]
pub(super) struct Send {
    /// The snapshot: <dataset>@<name>; with -t, the dataset or any snapshot of it
    snapshot: PathBuf,
    /// Only what is different from this older snapshot: @<name>, or <dataset>@<name> of the one
    /// that the dataset was cloned from
    #[arg(short = 'i', long, value_name = "SNAPSHOT", conflicts_with = "token")]
    from: Option<PathBuf>,
    /// Go on where an interrupted `firn snapshot receive -s` stopped: the token that it printed
    #[arg(short, long)]
    token: Option<String>,
    /// Write an object instead of standard output: file:///path, s3://bucket/name, gs://..., az://...
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    #[command(flatten)]
    key: KeyArgs,
    /// The key is a passphrase: it is made expensive to guess
    #[arg(long, requires = "key")]
    passphrase: bool,
    /// Write an object that is not encrypted, though the volume is
    #[arg(long, requires = "to", conflicts_with = "key")]
    plaintext: bool,
    /// Send nothing; say how much it would be
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Say how much was sent
    #[arg(short, long)]
    verbose: bool,
    /// With -n, print one JSON object with the fields dry_run, snapshot, from, estimated_bytes,
    /// stream_bytes and root
    #[arg(long, requires = "dry_run")]
    json: bool,
}

impl Send {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let shown = mounts::shown(&self.snapshot);
        let sent = self.send().with_context(|| format!("sending {shown}"))?;
        if let Some(warning) = sent.warning() {
            report::note(&warning);
        }
        if self.json {
            report::print_json(&sent)?;
        } else if self.dry_run {
            report::print(&sent.text())?;
        } else if self.verbose {
            report::note(&sent.text());
        }
        Ok(EXIT_DONE)
    }

    fn send(&self) -> anyhow::Result<Sent> {
        if !self.dry_run && self.to.is_none() && io::stdout().is_terminal() {
            return Err(anyhow!("the stream would go to a terminal"))
                .hint("redirect it (> file), pipe it to `firn snapshot receive`, or use --to <url>")
                .wrong_usage();
        }
        self.check_encryption()?;
        let (client, dataset, what) = self.what()?;
        let dry_run = self.dry_run;
        let verb = Verb::Snapshot(SnapshotAct::Send { dataset, what, dry_run });
        let mut heard = Heard::<Sent>::new();
        if dry_run {
            client.ask(verb, &mut heard)?;
        } else {
            // Asked for first: a key that is not to be had leaves nothing behind.
            let secret = self.key.source()?.map(|source| key::secret(&source)).transpose()?;
            let sink = match &self.to {
                Some(url) => Sink::object(url)?,
                None => Sink::output()?,
            };
            let sink = match &secret {
                Some(secret) => sink.sealed(secret, key::derivation(self.passphrase))?,
                None => sink,
            };
            pump::out(sink, |along| client.ask_along(verb, Some(along), &mut heard))?;
        }
        heard.items.pop().context("nothing was answered")
    }

    /// Refuses to let an encrypted volume go to a store as it is.
    fn check_encryption(&self) -> anyhow::Result<()> {
        if self.to.is_none() || self.dry_run || self.plaintext || self.key.source()?.is_some() {
            return Ok(());
        }
        let parsed = SnapshotPath::parse(&self.snapshot).map(|path| path.dataset);
        let dataset = parsed.unwrap_or_else(|_| self.snapshot.clone());
        if !names::volume(&dataset)?.config()?.is_encrypted() {
            return Ok(());
        }
        Err(anyhow!("the volume is encrypted, and the stream would not be")).hint(
            "give a key for the stream with --key-file, --key-env or --key-command, or say --plaintext",
        )
    }

    fn what(&self) -> anyhow::Result<(Client, DatasetName, Sending)> {
        if let Some(token) = &self.token {
            let dataset = match SnapshotPath::parse(&self.snapshot) {
                Ok(path) => path.dataset,
                Err(_) => self.snapshot.clone(),
            };
            let (client, dataset) = names::find_dataset(&dataset)?;
            return Ok((client, dataset, Sending::Rest(token.clone())));
        }
        let path = SnapshotPath::parse(&self.snapshot)?;
        let (client, of) = path.find()?;
        let from = self.from.as_deref().map(|from| base(from, &client, &of.dataset)).transpose()?;
        Ok((client, of.dataset, Sending::Snapshot { snapshot: of.snapshot, from }))
    }
}

/// The older snapshot: `@name` and `name` are of the same dataset.
fn base(from: &Path, client: &Client, dataset: &DatasetName) -> anyhow::Result<SnapshotName> {
    let text = mounts::shown(from);
    let same = match text.strip_prefix('@') {
        Some(name) => Some(name),
        None => (!text.contains(['@', '/'])).then_some(text.as_str()),
    };
    if let Some(name) = same {
        return Ok(SnapshotName { dataset: dataset.clone(), snapshot: name.to_owned() });
    }
    let (other, found) = SnapshotPath::parse(from)?.find()?;
    if client.is_same(&other) {
        return Ok(found);
    }
    Err(anyhow!("{text} is on another volume"))
        .hint("name an older snapshot of the same dataset: -i @<name>")
        .wrong_usage()
}
