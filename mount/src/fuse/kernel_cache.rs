//! What the kernel caches of a mount, and how to have it write out or forget.
//!
//! With write-back caching the kernel holds dirty pages that the core has not seen. It writes a
//! file's pages out by itself when a descriptor is closed and when the last writing one is
//! released, so only inodes that are open for writing can have any: those are counted here.
//! Draining makes the kernel send its writes and wait for their answers, hence it must run
//! neither on a thread that serves requests nor under a lock that a request may need.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use firn_tiering::mix::ByMix;
use fuser::{INodeNo, Notifier};
use parking_lot::Mutex;
use rustix::io::Errno;

use super::options::CacheMode;
use super::passthrough::Passthrough;
use super::requests::{Opcode, Requests};
use crate::core::Core;
use crate::error::{FsError, FsResult};
use crate::types::{Forget, Handle, Ino};

/// How often writing out a mount is asked for at most, while the kernel tells of what was before.
const TRIES: u32 = 8;

/// Handle on the kernel's cache of one mount. Clones share state.
#[derive(Clone, Debug)]
pub struct KernelCache {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    mountpoint: PathBuf,
    notifier: OnceLock<Notifier>,
    writers: Mutex<HashMap<Ino, u32, ByMix>>,
    refused_writes: AtomicU64,
    requests: Requests,
    passthrough: Passthrough,
}

impl KernelCache {
    pub(super) fn new(mountpoint: PathBuf, mode: CacheMode) -> Self {
        let shared = Shared {
            mountpoint,
            notifier: OnceLock::new(),
            writers: Mutex::default(),
            refused_writes: AtomicU64::new(0),
            requests: Requests::default(),
            passthrough: Passthrough::new(mode == CacheMode::Passthrough),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Requests may be answered before the session hands out its notifier.
    pub(super) fn connect(&self, notifier: Notifier) {
        self.shared.notifier.get_or_init(|| notifier);
    }

    /// The kernel had no answer of its own.
    pub(super) fn asked(&self, opcode: Opcode) {
        self.shared.requests.add(opcode);
    }

    /// Requests since the mount by kind: what the kernel could not answer from its cache.
    pub fn requests(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.shared.requests.counts()
    }

    /// Which files the kernel reads by itself.
    pub(super) fn passthrough(&self) -> &Passthrough {
        &self.shared.passthrough
    }

    /// Opens that the kernel serves by itself since the mount; `None` where it may not, or was not asked
    /// to.
    pub fn passed_opens(&self) -> Option<u64> {
        self.shared.passthrough.opens()
    }

    pub(super) fn writer_opened(&self, ino: Ino) {
        *self.shared.writers.lock().entry(ino).or_insert(0) += 1;
    }

    pub(super) fn writer_closed(&self, ino: Ino) {
        let mut writers = self.shared.writers.lock();
        if let Some(count) = writers.get_mut(&ino) {
            *count -= 1;
            if *count == 0 {
                writers.remove(&ino);
            }
        }
    }

    /// A write was answered with an error: the kernel drops the pages that it came from.
    pub(super) fn write_refused(&self, error: &FsError) {
        match error {
            // What is of no state, and what will be asked again where it may wait.
            FsError::ReadOnlyDataset
            | FsError::InSnapshot
            | FsError::Receiving
            | FsError::Stale
            | FsError::WouldWait => {}
            _ => {
                self.shared.refused_writes.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Whether the kernel may hold pages of this inode that the core has not seen.
    pub fn may_be_dirty(&self, ino: Ino) -> bool {
        self.shared.writers.lock().contains_key(&ino)
    }

    /// Has the kernel write out all dirty pages of an inode, waits for that, and drops them.
    pub fn drain(&self, ino: Ino) -> io::Result<()> {
        if self.may_be_dirty(ino) { self.invalidate(ino, 0) } else { Ok(()) }
    }

    /// Drains every inode that may be dirty.
    ///
    /// Writing is started for the whole mount first, in large requests: draining an inode by
    /// itself writes page by page.
    pub fn drain_all(&self) -> io::Result<()> {
        let dirty: Vec<Ino> = self.shared.writers.lock().keys().copied().collect();
        if dirty.is_empty() {
            return Ok(());
        }
        match File::open(&self.shared.mountpoint) {
            Ok(root) => {
                let refused = || self.shared.refused_writes.load(Ordering::Relaxed);
                let before = refused();
                written_out(|| rustix::fs::syncfs(&root), || refused() != before)?;
            }
            // The mountpoint may be out of reach, as after a lazy unmount; only slower then.
            Err(error) => tracing::debug!(%error, "draining page by page"),
        }
        dirty.into_iter().try_for_each(|ino| self.drain(ino))
    }

    /// Forgets content and attributes of an inode; dirty pages are written out first.
    pub fn invalidate_inode(&self, ino: Ino) -> io::Result<()> {
        self.invalidate(ino, 0)
    }

    /// Forgets the attributes of an inode and leaves its content alone.
    pub fn invalidate_attributes(&self, ino: Ino) -> io::Result<()> {
        self.invalidate(ino, -1)
    }

    /// Forgets what a name in a directory refers to.
    pub fn invalidate_entry(&self, parent: Ino, name: &[u8]) -> io::Result<()> {
        let name = std::ffi::OsStr::from_bytes(name);
        self.shared.notifier.get().map_or(Ok(()), |n| n.inval_entry(INodeNo(parent.0), name))
    }

    /// Forgets what a change of datasets or snapshots has made untrue; `core` lists directories.
    ///
    /// Names go first, so that whoever asks again for an inode comes by the new ones. What was
    /// already written to an abandoned inode goes nowhere: the core answers that it is stale.
    pub fn forget(&self, core: &dyn Core, forget: &Forget) -> FsResult<()> {
        let failed = |error| FsError::io("having the kernel forget", error);
        for (parent, name) in &forget.entries {
            self.invalidate_entry(*parent, name).map_err(failed)?;
        }
        for &directory in &forget.listings {
            self.forget_names(core, directory)?;
        }
        forget.inodes.iter().try_for_each(|&ino| self.invalidate_inode(ino)).map_err(failed)
    }

    /// Forgets all names that a directory has now: some may be remembered as missing.
    fn forget_names(&self, core: &dyn Core, directory: Ino) -> FsResult<()> {
        let mut outcome = Ok(());
        core.readdir(directory, Handle(0), 0, false, &mut |entry| {
            outcome = self.invalidate_entry(directory, &entry.name);
            outcome.is_ok()
        })?;
        outcome.map_err(|error| FsError::io("having the kernel forget", error))
    }

    /// A negative `offset` touches attributes only, as the kernel's interface has it.
    fn invalidate(&self, ino: Ino, offset: i64) -> io::Result<()> {
        self.shared.notifier.get().map_or(Ok(()), |n| n.inval_inode(INodeNo(ino.0), offset, 0))
    }
}

/// Has the kernel write out a whole mount.
///
/// The kernel tells once of what failed since it was asked last, however long ago: also of files that
/// were closed since, whose writers were told then, and of what a program was killed in the middle of.
/// So an error is of now only when a write was refused meanwhile; behind any other it is asked again.
fn written_out(
    mut write_out: impl FnMut() -> Result<(), Errno>,
    refused_meanwhile: impl Fn() -> bool,
) -> Result<(), Errno> {
    let mut outcome = Ok(());
    for _ in 0..TRIES {
        outcome = match write_out() {
            Err(Errno::ROFS | Errno::STALE) => Ok(()),
            outcome => outcome,
        };
        match outcome {
            Err(error) if !refused_meanwhile() => {
                tracing::warn!(%error, "the kernel tells of a write that failed before; asking again");
            }
            _ => break,
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a kernel that answers like this is taken to say, and how often it is asked; `refused` tells
    /// whether this daemon has refused a write meanwhile.
    fn told(answers: &[Result<(), Errno>], refused: bool) -> (Result<(), Errno>, usize) {
        let mut asked = 0;
        let write_out = || {
            asked += 1;
            answers[(asked - 1).min(answers.len() - 1)]
        };
        let outcome = written_out(write_out, || refused);
        (outcome, asked)
    }

    #[test]
    fn a_kernel_that_tells_of_an_earlier_failure_is_asked_again() {
        let [interrupted, failed] = [Err(Errno::INTR), Err(Errno::IO)];
        assert_eq!(told(&[Ok(())], false), (Ok(()), 1));
        assert_eq!(told(&[interrupted, failed, Ok(())], false), (Ok(()), 3));
        // What is of no state any more is no failure.
        assert_eq!(told(&[failed, Err(Errno::ROFS), failed], false), (Ok(()), 2));
        assert_eq!(told(&[Err(Errno::STALE)], true), (Ok(()), 1));
        // Nor is it asked for ever.
        assert_eq!(told(&[failed], false), (failed, TRIES as usize));
    }

    #[test]
    fn a_write_that_was_refused_meanwhile_is_told_at_once() {
        assert_eq!(told(&[Err(Errno::NOSPC), Ok(())], true), (Err(Errno::NOSPC), 1));
        assert_eq!(told(&[Ok(())], true), (Ok(()), 1));
    }
}
