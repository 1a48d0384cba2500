//! Receiving a snapshot from the stream that came with the request. The kernel forgets what the
//! receive made untrue at the moment at which it became so, as for a rollback.

use anyhow::anyhow;
use firn_mount::stream::{
    self, Agreement, Interrupted, ReceiveError, ReceiveOptions, ReceiveTarget, ReceiveWatch,
};
use firn_mount::types::{Forget, Ino};
use firn_mount::{FsError, FsResult};

use super::TreeAnswers;
use super::naming::{Naming, check_dataset_name};
use super::wire::{Asker, Wire};
use crate::control::server::Outbox;
use crate::control::tree::Receiving;
use crate::failure::{self, Explain};
use crate::report::snapshots::Received;

/// What the user asked for beside the place.
pub(super) struct How {
    pub(super) snapshot: Option<String>,
    pub(super) resumable: bool,
    pub(super) force: bool,
}

/// Follows a receive for the asker and the kernel.
struct Watch<'a> {
    asker: &'a Asker<'a>,
    answers: &'a TreeAnswers<'a>,
    /// The kernel could not be told.
    failure: Option<anyhow::Error>,
}

impl ReceiveWatch for Watch<'_> {
    fn progress(&mut self, progress: &stream::Progress) -> bool {
        let total = progress.estimated_bytes.unwrap_or(0);
        self.asker.follow(progress.plain_bytes, total)
    }

    fn drain(&mut self) -> FsResult<()> {
        let drained = self.asker.while_waiting(|out| self.answers.drain(out));
        drained.map(drop).map_err(|error| FsError::io("receive", error))
    }

    fn forget(&mut self, forget: Forget) {
        if let Err(error) = self.answers.forget(&forget) {
            tracing::error!("after a receive: {}", failure::line(&error));
            self.failure.get_or_insert(error);
        }
    }
}

impl TreeAnswers<'_> {
    pub(super) fn receive(
        &self,
        into: &Receiving,
        how: How,
        out: &mut Outbox,
    ) -> anyhow::Result<()> {
        let naming = self.naming();
        let target = naming.target(into)?;
        let options = ReceiveOptions {
            resumable: how.resumable,
            force_rollback: how.force,
            snapshot_name: how.snapshot,
        };
        let caller = Self::caller(out)?;
        let transfer = self.parts.transfers.begin()?;
        let (received, untold) = {
            let wire = Wire::take(out, &transfer, &self.parts.clock, "receiving")?;
            let (mut bytes, asker) = wire.split();
            let mut watch = Watch { asker, answers: self, failure: None };
            let received =
                self.parts.volume.receive(&caller, &target, &options, &mut bytes, &mut watch);
            (received, watch.failure)
        };
        let received = received.map_err(|error| naming.explain_receive(error, into))?;
        out.item(&Received {
            // The dataset may be new.
            snapshot: self.naming().snapshot(received.dataset, &received.snapshot),
            stream_bytes: received.progress.bytes,
            plain_bytes: received.progress.plain_bytes,
            sent_root: received.sent_root.map(|root| root.to_string()),
            equal: received.agreement == Agreement::Equal,
            lacking: match received.agreement {
                Agreement::Lacks(files) => files,
                Agreement::Equal | Agreement::NotSaid => 0,
            },
        })?;
        untold.map_or(Ok(()), Err)
    }

    pub(super) fn abandon(&self, into: &Receiving) -> anyhow::Result<()> {
        let naming = self.naming();
        let target = naming.target(into)?;
        let waiting = self.parts.volume.interrupted_receives();
        let waiting = waiting.map_err(|error| naming.explain(error))?;
        let Some(found) = waiting.iter().find(|found| goes_into(found, &target)) else {
            return Err(anyhow!("no interrupted receive waits there"))
                .hint("`firn snapshot receive -s` keeps what was received when a stream is cut");
        };
        let forget = self.parts.volume.abandon_receive(found.dataset);
        self.forget(&forget.map_err(|error| naming.explain(error))?)
    }
}

fn goes_into(found: &Interrupted, target: &ReceiveTarget) -> bool {
    match target {
        ReceiveTarget::Existing(dataset) => found.dataset == *dataset,
        ReceiveTarget::New { parent, name } => {
            found.place.as_ref() == Some(&(*parent, name.clone()))
        }
    }
}

impl Naming<'_> {
    fn target(&self, into: &Receiving) -> anyhow::Result<ReceiveTarget> {
        Ok(match into {
            Receiving::Existing(dataset) => ReceiveTarget::Existing(self.find(dataset)?),
            Receiving::New(at) => {
                check_dataset_name(at)?;
                let name = at.file.as_bytes().to_vec();
                ReceiveTarget::New { parent: Ino(at.dir), name }
            }
        })
    }

    /// Why a stream was not received, and what to type next.
    fn explain_receive(&self, error: ReceiveError, into: &Receiving) -> anyhow::Error {
        let place = match into {
            Receiving::Existing(dataset) => &dataset.name,
            Receiving::New(at) => &at.name,
        };
        let token = match &error {
            ReceiveError::Tree(_) => {
                let ReceiveError::Tree(error) = error else { return error.into() };
                return self.explain(error);
            }
            ReceiveError::Interrupted { token, .. } | ReceiveError::Pending(token) => token,
            ReceiveError::Torn { .. } => {
                let hint = "nothing of it is left; with -s what was received is kept, and the \
                            stream can be continued";
                return failure::hinted(error, hint);
            }
            ReceiveError::NotAStream => {
                let hint = "receive what `firn snapshot send` wrote";
                return failure::hinted(error, hint);
            }
            _ => {
                let hint = error.hint();
                let error = anyhow::Error::new(error);
                return match hint {
                    Some(hint) => failure::hinted(error, hint),
                    None => error,
                };
            }
        };
        let hint = format!(
            "go on with `firn snapshot send -t {token} <dataset of the sender> | firn snapshot \
             receive -s {place}`, or give it up with `firn snapshot receive -A {place}`"
        );
        failure::hinted(error, hint)
    }
}
