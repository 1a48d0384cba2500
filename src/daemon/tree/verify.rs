//! Comparing a snapshot with its digest, with what it shows read anew.

use std::cell::RefCell;
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use firn_mount::namespace::{ContentSource, FlawKind, Pending, Proof};
use firn_mount::{FsError, FsResult};
use firn_tiering::blocks::{Intent, Served, Source};
use firn_tiering::{BlockRef, BlockStore, Blocks, Clock, Error, Wait};

use super::TreeAnswers;
use super::naming::Naming;
use crate::control::protocol::Progress;
use crate::control::server::Outbox;
use crate::control::tree::SnapshotName;
use crate::report::names;
use crate::report::verify::{Flaw, Snapshot, Unread};

/// How long a block may take to come from the cold tier.
const READ_DEADLINE: Duration = Duration::from_secs(60);

/// Times in a row that the cold tier may not answer before it is asked no more.
const MOST_MISSED: u32 = 5;

/// How often who waits hears how far it is.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Says how far the work is, and notices when nobody waits any more.
struct Teller<'a> {
    out: &'a mut Outbox,
    clock: &'a dyn Clock,
    told: Instant,
    inodes: u64,
    read_bytes: u64,
}

impl Teller<'_> {
    fn goes_on(&mut self) -> bool {
        let now = self.clock.instant();
        if now - self.told < TELL_EVERY {
            return true;
        }
        self.told = now;
        let doing = format!("verifying ({} inodes)", self.inodes);
        let progress = Progress { doing, done_bytes: self.read_bytes, total_bytes: 0 };
        self.out.progress(progress).is_ok() && !self.out.is_gone()
    }
}

/// How long the cold tier is waited for: so that one which does not answer costs some minutes, and
/// not some for each file.
#[derive(Debug, Default)]
struct Patience {
    /// Times in a row that it did not answer.
    missed: u32,
}

impl Patience {
    fn is_over(&self) -> bool {
        self.missed >= MOST_MISSED
    }

    fn wait(&self, now: Instant) -> Wait {
        if self.is_over() { Wait::No } else { Wait::Until(now + READ_DEADLINE) }
    }

    /// What a read says of a file: its bytes, that they are lost, or why they could not be had.
    fn judge(&mut self, read: firn_tiering::Result<Served>) -> FsResult<Option<Bytes>> {
        let error = match read {
            Ok(served) => {
                if served.source == Source::Cold {
                    self.missed = 0;
                }
                return Ok(Some(served.bytes));
            }
            Err(Error::Lost { .. } | Error::Damaged { .. }) => return Ok(None),
            Err(error) => error,
        };
        if self.is_over() && matches!(error, Error::WouldWait) {
            let reason = format!("not asked any more: it did not answer {MOST_MISSED} times");
            return Err(FsError::io("cold tier", reason));
        }
        if matches!(error, Error::TimedOut(_) | Error::Cold { .. } | Error::Unusable { .. }) {
            self.missed += 1;
        }
        Err(error.into())
    }
}

/// Reads files of the snapshot.
struct Content<'a, 'b> {
    store: &'a BlockStore,
    teller: &'a RefCell<Teller<'b>>,
    patience: Patience,
}

impl ContentSource for Content<'_, '_> {
    fn bytes(&mut self, block: &BlockRef, range: Range<u32>) -> FsResult<Option<Bytes>> {
        let wait = self.patience.wait(self.teller.borrow().clock.instant());
        let bytes = self.patience.judge(self.store.read_for(block, range, Intent::Part, wait))?;
        self.teller.borrow_mut().read_bytes += bytes.as_ref().map_or(0, Bytes::len) as u64;
        Ok(bytes)
    }

    fn goes_on(&mut self) -> bool {
        self.teller.borrow_mut().goes_on()
    }
}

impl TreeAnswers<'_> {
    pub(super) fn verify(
        &self,
        of: &SnapshotName,
        data: bool,
        out: &mut Outbox,
    ) -> anyhow::Result<Snapshot> {
        let naming = self.naming();
        let dataset = naming.find(&of.dataset)?;
        let (clock, told) = (self.parts.clock.as_ref(), self.now());
        let teller = RefCell::new(Teller { out, clock, told, inodes: 0, read_bytes: 0 });
        let patience = Patience::default();
        let mut content = Content { store: &self.parts.store, teller: &teller, patience };
        let content = data.then_some(&mut content as &mut dyn ContentSource);
        let proof = naming.names.prove((dataset, &of.snapshot), content, &mut |inodes| {
            let mut teller = teller.borrow_mut();
            teller.inodes = inodes;
            teller.goes_on()
        });
        let proof = proof.map_err(|error| naming.explain(error))?;
        if proof.is_stopped {
            anyhow::bail!("nobody waits for it any more");
        }
        let name = naming.snapshot(dataset, &of.snapshot);
        Ok(naming.proof(name, &proof))
    }
}

impl Naming<'_> {
    fn proof(&self, snapshot: String, proof: &Proof) -> Snapshot {
        let path = |ino| {
            let path = names::text(&self.names.path(ino));
            path.trim_start_matches('/').to_owned()
        };
        let flaws = proof.flaws.iter().map(|flaw| Flaw {
            what: match flaw.kind {
                FlawKind::Tree => "tree",
                FlawKind::Content => "content",
                FlawKind::Chain => "chain",
                FlawKind::Sent => "sent",
            }
            .to_owned(),
            path: flaw.ino.map(path).unwrap_or_default(),
            detail: flaw.detail.clone(),
        });
        let unreadable = proof
            .unreadable
            .iter()
            .map(|unread| Unread { path: path(unread.ino), detail: unread.reason.clone() });
        Snapshot {
            snapshot,
            verified: proof.seal.is_some() && proof.found == 0 && proof.unread == 0,
            pending: proof.pending.as_ref().map(|pending| match pending {
                Pending::Computing => "it is being computed".to_owned(),
                Pending::Files(count, some) => {
                    let some: Vec<String> = some.iter().map(|ino| path(*ino)).collect();
                    let waits =
                        if *count == 1 { "1 file waits" } else { &format!("{count} files wait") };
                    format!("{waits} for the digest of the content, such as {}", some.join(", "))
                }
                Pending::Behind(dataset, name) => {
                    format!("{} before it has none", self.snapshot(*dataset, name))
                }
            }),
            root: proof.root.map(|root| root.to_string()),
            sealed_root: proof.seal.map(|seal| seal.root.to_string()),
            sent_root: proof.sent_root.map(|root| root.to_string()),
            digest: proof.seal.map(|seal| seal.digest.to_string()),
            inodes: proof.inodes,
            files: proof.files,
            unread: proof.unread,
            unreadable: unreadable.collect(),
            chain: proof.chain,
            destroyed: proof.destroyed,
            chain_is_cut: proof.is_cut,
            found: proof.found,
            flaws: flaws.collect(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_cold_tier_that_does_not_answer_is_waited_for_some_times_and_hot_is_read_on() {
        let now = firn_tiering::SystemClock.instant();
        let read = |source| Ok(Served { bytes: Bytes::from_static(b"bytes"), source });
        let silent = || Err(Error::TimedOut("reading"));
        let mut patience = Patience::default();
        for _ in 0..3 {
            for _ in 1..MOST_MISSED {
                assert!(patience.judge(silent()).is_err());
            }
            // What lies in hot says nothing of cold.
            assert!(patience.judge(read(Source::Hot)).unwrap().is_some());
            assert!(matches!(patience.wait(now), Wait::Until(_)));
            assert!(patience.judge(read(Source::Cold)).unwrap().is_some());
        }
        for _ in 0..MOST_MISSED {
            assert!(matches!(patience.wait(now), Wait::Until(_)));
            assert!(patience.judge(silent()).is_err());
        }
        assert!(matches!(patience.wait(now), Wait::No));
        assert!(patience.judge(read(Source::Hot)).unwrap().is_some());
        let error = patience.judge(Err(Error::WouldWait)).unwrap_err();
        let FsError::Io { what, source } = error else { panic!("{error:?}") };
        assert_eq!(what, "cold tier");
        assert!(source.to_string().starts_with("not asked any more"), "{source}");
        let lost = Error::Damaged { what: "frame", reason: "digest".to_owned() };
        assert!(patience.judge(Err(lost)).unwrap().is_none());
    }
}
