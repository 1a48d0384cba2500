//! The one way to the store's `commit`: whatever fails there closes it for good.

use std::sync::{Arc, OnceLock};

use super::store::{Batch, Durability, NamespaceStore, StoreError};
use crate::error::{FsError, FsResult};

impl From<StoreError> for FsError {
    fn from(error: StoreError) -> Self {
        Self::io("namespace", error)
    }
}

/// A store that refuses changes after the first failure.
#[derive(Debug)]
pub(super) struct Gate {
    store: Arc<dyn NamespaceStore>,
    refused: OnceLock<String>,
}

impl Gate {
    pub(super) fn new(store: Arc<dyn NamespaceStore>) -> Self {
        Self { store, refused: OnceLock::new() }
    }

    pub(super) fn store(&self) -> &Arc<dyn NamespaceStore> {
        &self.store
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
