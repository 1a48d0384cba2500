//! Open handles. A handle keeps its file's state in memory and remembers which write failures its
//! owner has been told.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use firn_tiering::mix::ByMix;
use parking_lot::Mutex;

use crate::error::{FsError, FsResult};
use crate::file::node::FileNode;
use crate::file::stream::ReadStream;
use crate::types::{Caller, Handle, Ino, OpenMode};
use crate::volume::observer::Touch;

const SHARDS: u64 = 64;

/// Reads from so many bytes on are no small ones, wherever they begin.
const LONG_READ: u64 = 128 << 10;

/// An open file.
#[derive(Debug)]
pub(super) struct OpenFile {
    /// Its state.
    pub(super) node: Arc<FileNode>,
    /// How it was opened.
    pub(super) mode: OpenMode,
    /// Who opened it.
    caller: Caller,
    /// How it is used is of interest.
    observed: bool,
    /// Its random reads are counted, since it may be thawed.
    pub(super) is_watched: bool,
    /// How it is read.
    pub(super) stream: ReadStream,
    told: AtomicU64,
    /// Where the last read or write ended.
    end: AtomicU64,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if self.mode.write {
            self.node.writers.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl OpenFile {
    /// A use of these bytes, for who observes; `None` where nobody wants to know.
    pub(super) fn touch(&self, offset: u64, len: u64) -> Option<Touch> {
        self.observed.then(|| {
            let sequential = offset == self.end.load(Ordering::Relaxed);
            Touch { ino: self.node.ino, caller: self.caller, offset, len, sequential }
        })
    }

    /// The touched bytes were read or written.
    pub(super) fn touched(&self, touch: &Touch) {
        self.end.store(touch.offset.saturating_add(touch.len), Ordering::Relaxed);
    }

    /// Whether a read of these bytes neither began the file nor went on where the last one ended. Called
    /// before [`OpenFile::touched`].
    pub(super) fn jumps(&self, offset: u64, len: u64) -> bool {
        let end = self.end.swap(offset.saturating_add(len), Ordering::Relaxed);
        len < LONG_READ && offset != end && offset != 0
    }

    /// The failure of background writing that this handle was not told yet, once.
    pub(super) fn untold_failure(&self) -> FsResult<()> {
        let state = self.node.state.read();
        if self.told.swap(state.failures, Ordering::AcqRel) == state.failures {
            return Ok(());
        }
        match &state.failure {
            Some(failure) => Err(failure.to_error()),
            None => Ok(()),
        }
    }

    /// What has failed so far was told in another way.
    pub(super) fn told(&self) {
        self.told.store(self.node.state.read().failures, Ordering::Release);
    }
}

/// All open handles.
#[derive(Debug)]
pub(super) struct Handles {
    next: AtomicU64,
    shards: Vec<Mutex<HashMap<u64, Arc<OpenFile>, ByMix>>>,
}

impl Default for Handles {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { next: AtomicU64::new(1), shards }
    }
}

impl Handles {
    fn shard(&self, handle: u64) -> &Mutex<HashMap<u64, Arc<OpenFile>, ByMix>> {
        &self.shards[(handle % SHARDS) as usize]
    }

    /// A new handle.
    pub(super) fn add(
        &self,
        node: Arc<FileNode>,
        mode: OpenMode,
        caller: Caller,
        observed: bool,
        is_watched: bool,
    ) -> Handle {
        let told = AtomicU64::new(node.state.read().failures);
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        let end = AtomicU64::new(0);
        let stream = ReadStream::default();
        if mode.write {
            node.writers.fetch_add(1, Ordering::AcqRel);
        }
        let open = OpenFile { node, mode, caller, observed, is_watched, stream, told, end };
        self.shard(handle).lock().insert(handle, Arc::new(open));
        Handle(handle)
    }

    /// The open file behind a handle of `ino`.
    pub(super) fn get(&self, ino: Ino, handle: Handle) -> FsResult<Arc<OpenFile>> {
        let found = self.shard(handle.0).lock().get(&handle.0).cloned();
        found.filter(|open| open.node.ino == ino).ok_or(FsError::BadHandle)
    }

    /// The handle is gone.
    pub(super) fn remove(&self, handle: Handle) -> Option<Arc<OpenFile>> {
        self.shard(handle.0).lock().remove(&handle.0)
    }
}
