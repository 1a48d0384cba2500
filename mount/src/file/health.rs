//! Whether the volume still takes writes. After a failed sync or a failed namespace commit nobody
//! knows what is durable, so nothing more is written until the volume is opened again.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::error::{FsError, FsResult};

/// The first failure, kept.
#[derive(Debug, Default)]
pub(crate) struct Health {
    failed: AtomicBool,
    reason: Mutex<Option<String>>,
}

impl Health {
    /// `EROFS` after a failure.
    pub(crate) fn check(&self) -> FsResult<()> {
        if !self.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(FsError::ReadOnly(self.reason().unwrap_or_default()))
    }

    /// Why writes are refused, if they are.
    pub(crate) fn reason(&self) -> Option<String> {
        self.reason.lock().clone()
    }

    /// Refuses writes because that was asked for.
    pub(crate) fn set_read_only(&self, reason: String) {
        self.reason.lock().get_or_insert(reason);
        self.failed.store(true, Ordering::Release);
    }

    /// Refuses writes from now on.
    pub(crate) fn fail(&self, reason: String) {
        let mut first = self.reason.lock();
        if first.is_none() {
            tracing::error!(reason, "the volume is read-only until it is opened again");
            *first = Some(reason);
            self.failed.store(true, Ordering::Release);
        }
    }
}
