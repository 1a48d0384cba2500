//! The end of a mount: brings everything to safety in order, and says what it is at.
//!
//! After every step the volume is complete: what the next step would add is made up for by the
//! next mount. Only the first can lose data, and it fails the unmount; it comes before anything
//! that waits for the cold tier. Such a wait goes on as long as the cold tier answers, and ends once
//! it has not for `umount_deadline`; what was under way is left behind then, like a crash in the
//! middle of it.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use firn_tiering::Wait;

use super::assemble::Parts;
use super::phase::Phase;
use crate::failure;

/// How often the copying to cold is looked at.
const SLICE: Duration = Duration::from_millis(250);

/// Shortest time that the databases get to close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(15);

/// How long sends and receives get, which may hang with the cold tier.
const TRANSFER_PATIENCE: Duration = Duration::from_secs(3);

/// Closes the parts of a volume whose mount is gone.
pub(super) fn close(parts: &Arc<Parts>, phase: &Phase) {
    parts.end_schedule();
    phase.doing("ending sends and receives");
    let left = parts.transfers.end(TRANSFER_PATIENCE);
    if left > 0 {
        tracing::warn!("{left} sends or receives still wait for a tier; they will fail");
    }
    phase.doing("writing what is in memory to the hot tier");
    let mut failure = parts.volume.close().err().map(|error| chain(&error));
    if failure.is_none() && parts.has_writable_cold() {
        copy_to_cold(parts, phase);
    }
    // What they wait on goes away with this mount.
    parts.end_backups();
    phase.doing("closing the databases");
    // At least as long as sealing may take on a slow disk.
    let patience = parts.config.umount_deadline.0.max(CLOSE_PATIENCE);
    if let Err(error) = parts.close_databases(patience) {
        failure.get_or_insert(failure::line(&error));
    }
    if let Some(failure) = &failure {
        tracing::error!("the volume could not be closed in order: {failure}");
    }
    phase.finish(failure);
}

/// Copies what is not in cold yet, and backs the namespace up, as long as there is progress.
fn copy_to_cold(parts: &Arc<Parts>, phase: &Phase) {
    phase.doing("copying to the cold tier");
    let copied = drain(parts, phase);
    if let Err(reason) = copied {
        phase.warn(format!(
            "not everything is in the cold tier ({reason}); the data is safe in the hot tier and \
             the next mount goes on copying"
        ));
        return;
    }
    phase.doing("backing up the namespace to the cold tier");
    if let Err(error) = back_up(parts) {
        let why = failure::line(&error);
        phase.warn(format!(
            "the namespace was not backed up ({why}); the data is safe in the hot tier and the next \
             mount backs it up"
        ));
    }
}

/// Waits for a backup that runs and makes the last one, as long as the cold tier answers.
fn back_up(parts: &Arc<Parts>) -> anyhow::Result<()> {
    let (done, waiting) = mpsc::channel();
    let owned = Arc::clone(parts);
    let thread = std::thread::Builder::new().name("firn-last-backup".into()).spawn(move || {
        owned.stop_schedule();
        // Whoever waited may have given up.
        let _ = done.send(owned.back_up_finally());
    });
    thread.context("starting a thread")?;
    let mut vigil = Vigil::begin(parts);
    loop {
        match waiting.recv_timeout(SLICE) {
            Ok(result) => return result,
            Err(RecvTimeoutError::Disconnected) => return Err(anyhow!("its thread has died")),
            Err(RecvTimeoutError::Timeout) if vigil.is_over(parts) => {
                parts.end_backups();
                let secs = vigil.patience.as_secs();
                let silent = || format!("the cold tier has not answered for {secs} s");
                return waiting.recv().context("its thread has died")?.with_context(silent);
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Waits until everything is in cold. Gives up when for `umount_deadline` the cold tier has not
/// answered at all, or, once a copy has failed, none has succeeded: a segment may take a while on a
/// slow line, and is answered for part by part.
fn drain(parts: &Parts, phase: &Phase) -> Result<(), String> {
    let start = parts.store.health();
    let mut seen = start.clone();
    let mut vigil = Vigil::begin(parts);
    loop {
        let began = parts.clock.instant();
        let reason = match parts.store.drain_uploads(Wait::Until(began + SLICE)) {
            Ok(0) => return Ok(()),
            Ok(left) => format!("{left} segments are left"),
            Err(error) => chain(&error),
        };
        let health = parts.store.health();
        let now = parts.clock.instant();
        if health.uploaded_bytes > seen.uploaded_bytes {
            seen = health.clone();
            vigil.last = now;
        }
        vigil.hears_answers = health.upload_failures == seen.upload_failures;
        if vigil.is_over(parts) {
            return Err(health.last_error.unwrap_or(reason));
        }
        let done = health.uploaded_bytes - start.uploaded_bytes;
        let left = parts.store.usage();
        phase.progress(done, done + left.stored_bytes.saturating_sub(left.cold_bytes));
        // An error comes at once.
        parts.clock.sleep(SLICE.saturating_sub(now.saturating_duration_since(began)));
    }
}

/// Looks for signs of life of the cold tier.
struct Vigil {
    patience: Duration,
    /// The last one.
    last: Instant,
    /// Any answer is one.
    hears_answers: bool,
}

impl Vigil {
    fn begin(parts: &Parts) -> Self {
        let patience = parts.config.umount_deadline.0;
        Self { patience, last: parts.clock.instant(), hears_answers: true }
    }

    /// Whether there was none for too long.
    fn is_over(&mut self, parts: &Parts) -> bool {
        let answered = parts.cold.as_ref().and_then(|cold| cold.throttle().answered_at());
        if let Some(answered) = answered.filter(|_| self.hears_answers) {
            self.last = self.last.max(answered);
        }
        parts.clock.instant().saturating_duration_since(self.last) >= self.patience
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
