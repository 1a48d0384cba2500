//! Puts pieces into the tier, several at a time, and reads each back before it counts.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use firn_tiering::Error as TieringError;
use firn_tiering::envelope::EnvelopeDigest;
use firn_tiering::tier::Tier;
use tokio::task::JoinSet;

use super::calls::Calls;
use super::manifest::FETCHES;
use super::piece::{Piece, PieceRef};
use super::{BackupError, BackupReport, BackupResult};

/// Stores an object and reads it back. What an earlier attempt left under the key with other
/// bytes (a piece's key is its checksum: they are damaged) is replaced.
pub(super) async fn put_verified(tier: &dyn Tier, key: &str, bytes: Bytes) -> BackupResult<()> {
    match tier.put(key, bytes.clone()).await {
        Err(TieringError::Exists(_)) => {
            tracing::warn!(key, "replacing a damaged object");
            tier.delete(key).await?;
            tier.put(key, bytes.clone()).await?;
        }
        other => other?,
    }
    // A damaged answer is not a damaged object: asked again before it is judged.
    for _ in 0..FETCHES {
        if tier.get(key).await? == bytes {
            return Ok(());
        }
        tracing::warn!(key, "read back different");
    }
    // Damaged on its way there: the next attempt must not find it and call it done.
    let _ = tier.delete(key).await;
    Err(BackupError::NotVerified(key.to_owned()))
}

/// Uploads under way.
pub(super) struct Uploads<'a> {
    tier: &'a Arc<dyn Tier>,
    calls: &'a Calls,
    limit: usize,
    /// Pieces that are there and verified.
    known: BTreeSet<EnvelopeDigest>,
    running: JoinSet<BackupResult<()>>,
}

impl<'a> Uploads<'a> {
    pub(super) fn new(
        tier: &'a Arc<dyn Tier>,
        calls: &'a Calls,
        limit: usize,
        known: BTreeSet<EnvelopeDigest>,
    ) -> Self {
        Self { tier, calls, limit: limit.max(1), known, running: JoinSet::new() }
    }

    /// Begins an upload, unless the piece is there; waits for one when too many run.
    pub(super) fn add(
        &mut self,
        piece: Piece,
        report: &mut BackupReport,
    ) -> BackupResult<PieceRef> {
        if !self.known.insert(piece.name.digest) {
            return Ok(piece.name);
        }
        while self.running.len() >= self.limit {
            self.wait_for_one()?;
        }
        report.pieces_uploaded += 1;
        report.uploaded_bytes += piece.sealed.len() as u64;
        let tier = Arc::clone(self.tier);
        let upload = async move { put_verified(&*tier, &piece.name.key(), piece.sealed).await };
        self.running.spawn_on(upload, &self.calls.runtime);
        Ok(piece.name)
    }

    /// Waits until all are done.
    pub(super) fn finish(mut self) -> BackupResult<()> {
        while !self.running.is_empty() {
            self.wait_for_one()?;
        }
        Ok(())
    }

    fn wait_for_one(&mut self) -> BackupResult<()> {
        let Self { calls, running, .. } = self;
        calls.wait(async {
            match running.join_next().await {
                Some(Ok(done)) => done,
                Some(Err(join)) if join.is_panic() => std::panic::resume_unwind(join.into_panic()),
                Some(Err(_)) => Err(TieringError::TimedOut("shutting down").into()),
                None => Ok(()),
            }
        })
    }
}
