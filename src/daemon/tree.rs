//! Answers the dataset and snapshot verbs. What is asked is looked up and judged as a whole before
//! anything is changed, so that a refusal leaves nothing half-done; what the kernel remembers is
//! mended before the answer.
//!
//! The kernel's dirty pages are written out on the thread of the request, before any lock of the
//! volume is taken, since the pages come back as requests to it.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::Context;
use firn_mount::fuse::KernelCache;
use firn_mount::types::{Caller, Forget};

use super::assemble::Parts;
use crate::control::protocol::Progress;
use crate::control::server::Outbox;

mod datasets;
mod destroy;
mod diff;
pub mod naming;
mod properties;
mod receive;
mod send;
mod snapshots;
mod verify;
mod wire;

use naming::Naming;

/// How often someone who waits hears that the work still goes on.
const REPEAT: Duration = Duration::from_secs(5);

/// Answers about datasets and snapshots of one volume.
pub struct TreeAnswers<'a> {
    parts: &'a Parts,
    kernel: Option<&'a KernelCache>,
    prefix: &'a str,
}

impl<'a> TreeAnswers<'a> {
    /// Of a volume that is mounted at `mountpoint`.
    pub(super) fn mounted(parts: &'a Parts, kernel: &'a KernelCache, mountpoint: &'a str) -> Self {
        Self { parts, kernel: Some(kernel), prefix: mountpoint }
    }

    /// Of a volume that is not mounted: no kernel remembers anything of it. `prefix` is what stands
    /// before the paths in it: `<volume-dir>:`.
    pub fn unmounted(parts: &'a Parts, prefix: &'a str) -> Self {
        Self { parts, kernel: None, prefix }
    }

    fn naming(&self) -> Naming<'_> {
        Naming::new(&self.parts.namespace, self.prefix).in_use(&self.parts.volume)
    }

    /// Has the kernel write out what programs wrote; returns how long that took.
    fn drain(&self, out: &mut Outbox) -> anyhow::Result<Duration> {
        let Some(kernel) = self.kernel else { return Ok(Duration::ZERO) };
        let since = self.now();
        while_saying(out, "writing back what the kernel holds", || kernel.drain_all())?
            .context("writing back what the kernel holds")?;
        Ok(self.now() - since)
    }

    fn now(&self) -> Instant {
        self.parts.clock.instant()
    }

    /// Has the kernel forget what is not true any more.
    fn forget(&self, forget: &Forget) -> anyhow::Result<()> {
        let Some(kernel) = self.kernel else { return Ok(()) };
        kernel
            .forget(self.parts.volume.as_ref(), forget)
            .context("it is done, but the kernel may still show the state before")
    }

    /// Who asks, as the owner of what is made.
    fn caller(out: &Outbox) -> anyhow::Result<Caller> {
        let peer = out.peer().context("asking who is there")?;
        let pid = u32::try_from(peer.pid.as_raw_nonzero().get()).unwrap_or(0);
        Ok(Caller { uid: peer.uid.as_raw(), gid: peer.gid.as_raw(), pid })
    }
}

/// Does what may take long, and says so to who waits. The work goes on when the asker is gone.
fn while_saying<T: Send>(
    out: &mut Outbox,
    doing: &str,
    work: impl FnOnce() -> T + Send,
) -> anyhow::Result<T> {
    let (done, waiting) = mpsc::channel();
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("firn-tree".into())
            .spawn_scoped(scope, move || {
                // Who waits is in this scope, and outlives it.
                let _ = done.send(work());
            })
            .context("starting a thread")?;
        loop {
            match waiting.recv_timeout(REPEAT) {
                Ok(result) => return Ok(result),
                Err(RecvTimeoutError::Disconnected) => anyhow::bail!("{doing}: the thread died"),
                Err(RecvTimeoutError::Timeout) => {
                    let doing = doing.to_owned();
                    let _ = out.progress(Progress { doing, done_bytes: 0, total_bytes: 0 });
                }
            }
        }
    })
}
