//! Sending a snapshot into the stream that came with the request. A snapshot never changes, so
//! nothing is drained, and writers go on.

use std::time::Duration;

use anyhow::{Context, anyhow};
use firn_mount::namespace::{Dataset, Snapshot};
use firn_mount::stream::{self, ResumeToken, SendError, SendPlan};

use super::naming::Naming;
use super::wire::Wire;
use super::{TreeAnswers, while_saying};
use crate::control::server::Outbox;
use crate::control::tree::{DatasetName, Sending, SnapshotName};
use crate::failure::{self, Explain};
use crate::report::snapshots::Sent;

/// How long a send waits for the digests of what it sends.
const DIGEST_WAIT: Duration = Duration::from_secs(10);
const DIGEST_LOOK: Duration = Duration::from_millis(20);

/// Looks after which the digester is asked for them once more.
const DIGEST_ASK: u32 = 50;

impl TreeAnswers<'_> {
    pub(super) fn send(
        &self,
        of: &DatasetName,
        what: &Sending,
        dry_run: bool,
        out: &mut Outbox,
    ) -> anyhow::Result<()> {
        let naming = self.naming();
        let dataset = naming.find(of)?;
        let mut sent = Sent { dry_run, ..Sent::default() };
        let plan = match what {
            Sending::Snapshot { snapshot, from } => {
                let from = from.as_ref().map(|from| naming.base(from)).transpose()?;
                sent.snapshot = Some(naming.snapshot(dataset, snapshot));
                sent.from = from.as_ref().map(|(of, name)| naming.snapshot(*of, name));
                let estimate = naming.estimate(dataset, snapshot, from.as_ref())?;
                sent.estimated_bytes = Some(estimate);
                SendPlan::Snapshot { dataset, name: snapshot.clone(), from }
            }
            Sending::Rest(token) => SendPlan::Rest(parse_token(token)?),
        };
        if !dry_run {
            let done = self.send_into(&plan, sent.estimated_bytes.unwrap_or(0), &naming, out)?;
            sent.stream_bytes = Some(done.progress.bytes);
            sent.root = done.root.map(|root| root.to_string());
        }
        Ok(out.item(&sent)?)
    }

    fn send_into(
        &self,
        plan: &SendPlan,
        total_bytes: u64,
        naming: &Naming<'_>,
        out: &mut Outbox,
    ) -> anyhow::Result<stream::Sent> {
        self.await_digests(&naming.ends(plan), out)?;
        let transfer = self.parts.transfers.begin()?;
        let wire = Wire::take(out, &transfer, &self.parts.clock, "sending")?;
        let (mut bytes, asker) = wire.split();
        let sent = self.parts.volume.send(plan, &mut bytes, &mut |progress| {
            asker.follow(progress.plain_bytes, total_bytes.max(progress.plain_bytes))
        });
        sent.map_err(|error| naming.explain_send(error))
    }

    /// Waits a moment for the digests of snapshots, which come by themselves: a snapshot that was just
    /// taken has one soon, and one with files that lie in cold only has none for long.
    fn await_digests(&self, snapshots: &[Snapshot], out: &mut Outbox) -> anyhow::Result<()> {
        let names = &self.parts.namespace;
        let is_sealed = || snapshots.iter().all(|snapshot| names.seal_of(snapshot.node).is_some());
        if is_sealed() || self.parts.volume.read_only_reason().is_some() {
            return Ok(());
        }
        let end = self.now() + DIGEST_WAIT;
        while_saying(out, "waiting for the digest of the snapshot", || {
            for look in 0_u32.. {
                if is_sealed() || self.now() >= end {
                    break;
                }
                // Not each time: it works on everything that waits, and rests for a share of that.
                if look.is_multiple_of(DIGEST_ASK) {
                    self.parts.volume.digest_soon();
                }
                std::thread::sleep(DIGEST_LOOK);
            }
        })
    }
}

/// The token of an interrupted receive.
fn parse_token(text: &str) -> anyhow::Result<ResumeToken> {
    let token = text.parse::<ResumeToken>().map_err(anyhow::Error::new);
    token
        .hint("copy the whole token that the interrupted `firn snapshot receive -s` printed")
        .wrong_usage()
}

impl Naming<'_> {
    /// What is sent and its base, as far as they are here.
    fn ends(&self, plan: &SendPlan) -> Vec<Snapshot> {
        let found = |(dataset, name): (Dataset, &str)| self.names.find_snapshot(dataset, name).ok();
        match plan {
            SendPlan::Snapshot { dataset, name, from } => {
                let from = from.as_ref().map(|(of, base)| (*of, &base[..]));
                [Some((*dataset, &name[..])), from]
                    .into_iter()
                    .flatten()
                    .filter_map(found)
                    .collect()
            }
            SendPlan::Rest(token) => {
                let guids = [Some(token.to), token.from].into_iter().flatten();
                guids
                    .filter_map(|guid| self.names.snapshot_with_guid(guid).ok().flatten())
                    .collect()
            }
        }
    }

    /// The snapshot that the receiver has already.
    fn base(&self, from: &SnapshotName) -> anyhow::Result<(Dataset, String)> {
        let dataset = self.find(&from.dataset)?;
        let found = self.names.find_snapshot(dataset, &from.snapshot);
        let found = found.map_err(|error| self.explain(error));
        let name = || self.snapshot(dataset, &from.snapshot);
        Ok((dataset, found.with_context(name)?.name))
    }

    /// Bytes of files, before compression, that are about to be sent: all that the snapshot refers
    /// to, or what was written since the base.
    fn estimate(
        &self,
        dataset: Dataset,
        name: &str,
        from: Option<&(Dataset, String)>,
    ) -> anyhow::Result<u64> {
        let explain = |error| self.explain(error);
        let to = self.names.find_snapshot(dataset, name).map_err(explain)?;
        let Some((of, base)) = from else {
            return match self.names.read_only() {
                None => Ok(self.names.referenced(dataset, name).map_err(explain)?.bytes),
                Some(_) => Ok(to.referenced.map_or(0, |referenced| referenced.bytes)),
            };
        };
        let base = self.names.find_snapshot(*of, base).map_err(explain)?;
        if base.node >= to.node {
            return Err(self.explain_send(SendError::NotABase));
        }
        let between = self.names.snapshots(dataset).map_err(explain)?;
        let between =
            between.iter().filter(|found| found.node > base.node && found.node <= to.node);
        let mut sum = 0_u64;
        for snapshot in between {
            sum = sum.saturating_add(self.names.written(snapshot.root).map_err(explain)?);
        }
        Ok(sum)
    }

    fn explain_send(&self, error: SendError) -> anyhow::Error {
        let hint = match error {
            SendError::Tree(error) => return self.explain(error),
            SendError::NotABase => {
                "name an older snapshot of the same dataset, or the one that it is a clone of"
            }
            SendError::NoSnapshot(_) => {
                "the token belongs to a snapshot that is not on this volume (any more); abandon the \
                 receive with `firn snapshot receive -A <dataset>` and send again"
            }
            SendError::Write(source) => {
                return anyhow!(source).context("writing the stream");
            }
            other => return anyhow::Error::new(other),
        };
        failure::hinted(error, hint)
    }
}
