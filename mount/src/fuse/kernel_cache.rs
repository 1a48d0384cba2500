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

/// Who may write to an inode.
#[derive(Debug, Default)]
struct Writers {
    /// Descriptors.
    count: u32,
    /// Pages were dropped since their write was refused, and nobody was told yet.
    refused: Option<Errno>,
}

#[derive(Debug)]
struct Shared {
    mountpoint: PathBuf,
    notifier: OnceLock<Notifier>,
    writers: Mutex<HashMap<Ino, Writers, ByMix>>,
    requests: Requests,
    passthrough: Passthrough,
}

impl KernelCache {
    pub(super) fn new(mountpoint: PathBuf, mode: CacheMode) -> Self {
        let shared = Shared {
            mountpoint,
            notifier: OnceLock::new(),
            writers: Mutex::default(),
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
        self.shared.writers.lock().entry(ino).or_default().count += 1;
    }

    pub(super) fn writer_closed(&self, ino: Ino) {
        let mut writers = self.shared.writers.lock();
        if let Some(open) = writers.get_mut(&ino) {
            open.count -= 1;
            if open.count == 0 {
                writers.remove(&ino);
            }
        }
    }

    /// What the kernel wrote out was refused: it drops the pages, and tells whoever asks next whether the
    /// file is durable, or closes it.
    pub(super) fn write_refused(&self, ino: Ino, error: &FsError) {
        match error {
            // What is of no state, and what will be asked again where it may wait.
            FsError::ReadOnlyDataset
            | FsError::InSnapshot
            | FsError::Receiving
            | FsError::Stale
            | FsError::WouldWait => {}
            _ => {
                let errno = Errno::from_raw_os_error(super::reply::errno(error).code());
                if let Some(open) = self.shared.writers.lock().get_mut(&ino) {
                    open.refused = Some(errno);
                }
            }
        }
    }

    /// Its writer is told now of what was refused.
    pub(super) fn told(&self, ino: Ino) {
        if let Some(open) = self.shared.writers.lock().get_mut(&ino) {
            open.refused = None;
        }
    }

    /// What was refused of a file that is open, and told to nobody: told here once.
    fn untold(&self) -> Option<Errno> {
        let mut writers = self.shared.writers.lock();
        writers.values_mut().filter_map(|open| open.refused.take()).last()
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
                written_out(|| rustix::fs::syncfs(&root), || self.untold())?;
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

/// Has the kernel write out a whole mount; fails where something is lost of a file that is open.
///
/// The kernel tells once of what failed since it was asked last, however long ago: also of files that
/// were closed since, whose writers were told then, and of what a program was killed in the middle of.
/// So what it says is believed only when it says it again; `untold` knows what was refused.
fn written_out(
    mut write_out: impl FnMut() -> Result<(), Errno>,
    mut untold: impl FnMut() -> Option<Errno>,
) -> Result<(), Errno> {
    let mut outcome = Ok(());
    for _ in 0..TRIES {
        outcome = write_out();
        if let Some(error) = untold() {
            return Err(error);
        }
        match outcome {
            Ok(()) => break,
            // What was written to a read-only dataset or to an abandoned state is part of no state.
            Err(Errno::ROFS | Errno::STALE) => return Ok(()),
            Err(error) => {
                tracing::warn!(%error, "the kernel tells of a write that failed before; asking again");
            }
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a kernel that answers like this is taken to say, and how often it is asked; `untold` is what
    /// was refused meanwhile.
    fn told(
        answers: &[Result<(), Errno>],
        mut untold: Option<Errno>,
    ) -> (Result<(), Errno>, usize) {
        let mut asked = 0;
        let write_out = || {
            asked += 1;
            answers[(asked - 1).min(answers.len() - 1)]
        };
        let outcome = written_out(write_out, || untold.take());
        (outcome, asked)
    }

    #[test]
    fn a_kernel_that_tells_of_an_earlier_failure_is_asked_again() {
        let [interrupted, failed] = [Err(Errno::INTR), Err(Errno::IO)];
        assert_eq!(told(&[Ok(())], None), (Ok(()), 1));
        assert_eq!(told(&[interrupted, failed, Ok(())], None), (Ok(()), 3));
        // What is of no state any more is no failure.
        assert_eq!(told(&[failed, Err(Errno::ROFS), failed], None), (Ok(()), 2));
        // Nor is it asked for ever.
        assert_eq!(told(&[failed], None), (failed, TRIES as usize));
    }

    #[test]
    fn what_was_refused_is_told_once_and_only_of_files_that_are_open() {
        let cache = KernelCache::new(PathBuf::new(), CacheMode::Writeback);
        let (one, closed) = (Ino(7), Ino(8));
        cache.writer_opened(one);
        cache.writer_opened(closed);
        for error in [FsError::WouldWait, FsError::Stale, FsError::ReadOnlyDataset] {
            cache.write_refused(one, &error);
        }
        assert_eq!(cache.untold(), None);
        cache.write_refused(closed, &FsError::NoSpace);
        cache.writer_closed(closed);
        assert_eq!(cache.untold(), None);
        cache.write_refused(one, &FsError::NoSpace);
        assert_eq!((cache.untold(), cache.untold()), (Some(Errno::NOSPC), None));
        // Its writer has heard of it.
        cache.write_refused(one, &FsError::NoSpace);
        cache.told(one);
        assert_eq!(cache.untold(), None);
    }

    #[test]
    fn what_was_refused_is_told_whatever_the_kernel_says() {
        for answer in [Ok(()), Err(Errno::IO), Err(Errno::STALE)] {
            assert_eq!(told(&[answer, Ok(())], Some(Errno::NOSPC)), (Err(Errno::NOSPC), 1));
        }
    }
}
