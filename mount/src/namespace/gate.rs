//! The one way to the store's `commit`: whatever fails there closes it for good.

use std::sync::{Arc, OnceLock};

use super::ledger::{Entries, Ledger};
use super::store::{Batch, Durability, NamespaceStore, StoreError};
use crate::error::{FsError, FsResult};

impl From<StoreError> for FsError {
    fn from(error: StoreError) -> Self {
        Self::io("namespace", error)
    }
}

impl FsError {
    /// Whether the store itself failed, of which a record or a block says nothing.
    pub(super) fn is_of_store(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.is::<StoreError>())
    }
}

/// A store that refuses changes after the first failure.
#[derive(Debug)]
pub(super) struct Gate {
    store: Arc<dyn NamespaceStore>,
    ledger: Ledger,
    refused: OnceLock<String>,
}

impl Gate {
    pub(super) fn new(store: Arc<dyn NamespaceStore>) -> Self {
        Self { store, ledger: Ledger::default(), refused: OnceLock::new() }
    }

    pub(super) fn store(&self) -> &Arc<dyn NamespaceStore> {
        &self.store
    }

    /// The counters of space.
    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub(super) fn refused(&self) -> Option<String> {
        self.refused.get().cloned()
    }

    pub(super) fn refuse(&self, reason: &str) {
        // The first reason stands.
        let _ = self.refused.set(reason.to_owned());
    }

    pub(super) fn check(&self) -> FsResult<()> {
        match self.refused.get() {
            Some(reason) => Err(FsError::ReadOnly(reason.clone())),
            None => Ok(()),
        }
    }

    pub(super) fn commit(&self, batch: Batch, durability: Durability) -> FsResult<()> {
        self.check()?;
        self.store.commit(batch, durability).map_err(|error| self.fail(error))
    }

    /// Commits a batch with what it changes in the counters.
    pub(super) fn commit_counted(
        &self,
        mut batch: Batch,
        entries: &Entries,
        durability: Durability,
    ) -> FsResult<()> {
        if entries.is_empty() {
            return self.commit(batch, durability);
        }
        self.check()?;
        {
            let _turn = self.ledger.turn();
            let posting = self.ledger.post(entries, &mut batch);
            let buffered = self.store.commit(batch, Durability::Buffered);
            buffered.map_err(|error| self.fail(error))?;
            self.ledger.settle(posting);
        }
        // Outside of the turn, so that syncs at the same time are one.
        match durability {
            Durability::Buffered => Ok(()),
            Durability::Durable => self.store.sync().map_err(|error| self.fail(error)),
        }
    }

    pub(super) fn sync(&self) -> FsResult<()> {
        match self.refused() {
            // Nothing was changed, so nothing can be lost.
            Some(reason) if reason == READ_ONLY || reason == CLOSED => Ok(()),
            Some(reason) => Err(FsError::ReadOnly(reason)),
            None => self.store.sync().map_err(|error| self.fail(error)),
        }
    }

    fn fail(&self, error: StoreError) -> FsError {
        tracing::error!(error = &error as &dyn std::error::Error, "namespace refuses changes");
        self.refuse(&format!("{error}: {}", error.source));
        error.into()
    }
}

/// Reason of a gate that was never open.
pub(super) const READ_ONLY: &str = "opened read-only";
/// Reason of a gate that was closed in order.
pub(super) const CLOSED: &str = "closed";
