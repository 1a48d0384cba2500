//! Waiting for calls of the tier, until backups are ended: whoever takes the runtime away ends them
//! first, since a call that is under way then would panic.

use std::future::Future;

use firn_tiering::Error as TieringError;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::BackupResult;

/// Where calls run, and whether any may.
#[derive(Debug)]
pub(super) struct Calls {
    pub(super) runtime: Handle,
    ended: watch::Sender<bool>,
}

impl Calls {
    pub(super) fn on(runtime: Handle) -> Self {
        Self { runtime, ended: watch::Sender::new(false) }
    }

    /// Lets everybody who waits give up, now and later.
    pub(super) fn end(&self) {
        self.ended.send_replace(true);
    }

    /// Waits for a call.
    pub(super) fn wait<T>(&self, call: impl Future<Output = BackupResult<T>>) -> BackupResult<T> {
        let mut ended = self.ended.subscribe();
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                _ = ended.wait_for(|ended| *ended) => Err(TieringError::Cancelled.into()),
                result = call => result,
            }
        })
    }
}
