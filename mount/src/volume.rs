//! A volume in use: the implementation of [`Core`] over the namespace, open files and a block
//! store.
//!
//! Metadata goes to the [`Namespace`] at once, one batch each; data goes to overlays and from
//! there to blocks and the namespace, as the module `file` says. Here are the table of inodes in use,
//! the open handles, and the clearing away of files that were removed while in use.
//!
//! *Crash*: handles and counts die with the process; what they kept alive (orphans) is cleared
//! away after the next open. *Failure*: after a failed sync or namespace commit every change is
//! `EROFS` until the volume is opened again; reads go on.

mod access;
mod calls;
mod data;
mod datasets;
mod digester;
mod extents;
mod freeze;
mod handles;
mod known;
mod liveness;
mod meta;
mod observer;
mod properties;
mod purge;
mod quota;
mod rollback;
mod snapdir;
mod snapshots;
mod storage;
mod stream;
mod sweeper;
mod table;
mod thawer;
mod virtual_xattr;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use firn_tiering::{Blocks, Budget, Clock, Wait};
use parking_lot::Mutex;

use crate::error::{FsError, FsResult};
use crate::file::flusher::Flusher;
use crate::file::gate::Pass;
use crate::file::{Files, chain};
use crate::namespace::Namespace;
use crate::thaw::ThawSettings;
use crate::types::Ino;

pub use crate::core::Core;
pub use crate::file::FileSettings;
pub use extents::ParityChoice;
pub use liveness::LateLiveness;
pub use observer::{Admission, Observer, Told, Touch};
pub use snapshots::Taken;
pub use storage::{Placement, Space, Storage};

use digester::{Digester, Reader};
use extents::NamespaceExtents;
use handles::Handles;
use purge::Purger;
use quota::QuotaGate;
use sweeper::Sweeper;
use table::{Last, Table};
use thawer::Thawer;

/// What a volume is put together from.
pub struct VolumeParts {
    /// Inodes, directories, extents.
    pub names: Arc<Namespace>,
    /// Where data goes.
    pub blocks: Arc<dyn Blocks>,
    /// What else the block store knows.
    pub storage: Arc<dyn Storage>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Memory shared with the rest of the volume; write buffers take at most half.
    pub budget: Budget,
    /// How files behave.
    pub settings: FileSettings,
    /// Who is told how files are used.
    pub observer: Option<Arc<dyn Observer>>,
    /// Who says where parity lies; without anybody, inside the segments.
    pub parity: Option<Arc<dyn ParityChoice>>,
    /// How files are thawed, if they are.
    pub thaw: Option<ThawSettings>,
}

/// A volume in use.
pub struct Volume {
    names: Arc<Namespace>,
    files: Arc<Files>,
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    table: Arc<Table>,
    handles: Handles,
    flusher: Mutex<Option<Flusher>>,
    purger: Purger,
    /// Held by the one sync that runs on a thread that serves calls.
    small_sync: Mutex<()>,
    /// Free bytes, and when they were asked for.
    known_free: Mutex<Option<(Instant, u64)>>,
    sweeper: Sweeper,
    digester: Digester,
    receiving: stream::Busy,
    quota_gate: QuotaGate,
    observer: Option<Arc<dyn Observer>>,
    thawer: Option<Thawer>,
}

impl std::fmt::Debug for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volume").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Volume {
    /// Starts the background threads and clears away what the last use left behind.
    pub fn open(parts: VolumeParts) -> FsResult<Self> {
        let VolumeParts { names, blocks, storage, clock, budget, settings, observer, parity, thaw } =
            parts;
        let start_error = |error| FsError::io("starting threads", error);
        let extents = Arc::new(NamespaceExtents::new(Arc::clone(&names), parity));
        let files = Files::new(extents, blocks, Arc::clone(&clock), budget, settings);
        let files = Arc::new(files.map_err(start_error)?);
        if let Some(reason) = names.read_only() {
            files.health.set_read_only(reason);
        }
        let table = Arc::new(Table::default());
        let purger = Purger::start(Arc::clone(&names), Arc::clone(&files)).map_err(start_error)?;
        let sweeper =
            Sweeper::start(Arc::clone(&names), Arc::clone(&files)).map_err(start_error)?;
        let reader = Reader {
            names: Arc::clone(&names),
            files: Arc::clone(&files),
            table: Arc::clone(&table),
            storage: Arc::clone(&storage),
            clock: Arc::clone(&clock),
        };
        let thawer = thaw.map(|thaw| Thawer::start(reader.clone(), thaw)).transpose();
        let thawer = thawer.map_err(start_error)?;
        let digester = Digester::start(reader, settings.flush_interval).map_err(start_error)?;
        let sweep = Arc::clone(&table);
        let flusher =
            Flusher::start(Arc::clone(&files), move || sweep.evict_clean()).map_err(start_error)?;
        let volume = Self {
            names,
            files,
            storage,
            clock,
            table,
            handles: Handles::default(),
            flusher: Mutex::new(Some(flusher)),
            purger,
            small_sync: Mutex::default(),
            known_free: Mutex::default(),
            sweeper,
            digester,
            receiving: stream::Busy::default(),
            quota_gate: QuotaGate::default(),
            observer,
            thawer,
        };
        volume.purge_orphans()?;
        Ok(volume)
    }

    /// Clears away files without a name that nobody uses: all of them when the volume is opened.
    fn purge_orphans(&self) -> FsResult<()> {
        if self.files.health.check().is_err() {
            return Ok(());
        }
        const PAGE: usize = 1024;
        let mut after = None;
        loop {
            let orphans = self.names.orphans(after, PAGE)?;
            after = orphans.last().copied();
            let more = orphans.len() == PAGE;
            for ino in orphans {
                if self.table.orphaned(ino) == Last::Purge {
                    self.purger.purge(ino);
                }
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// The namespace below.
    pub fn names(&self) -> &Arc<Namespace> {
        &self.names
    }

    /// Why changes are refused, if they are.
    pub fn read_only_reason(&self) -> Option<String> {
        self.files.health.reason()
    }

    /// Files with data that is not committed.
    pub fn dirty_files(&self) -> usize {
        self.files.dirty_files()
    }

    /// Whether a file has content that is not committed.
    pub fn is_dirty(&self, ino: Ino) -> bool {
        self.table.loaded(ino).is_some_and(|node| node.state.read().is_dirty())
    }

    /// Has digests that can be computed now computed soon.
    pub fn digest_soon(&self) {
        self.digester.wake();
    }

    /// Bytes that write buffers hold.
    pub fn buffered_bytes(&self) -> u64 {
        self.files.buffered_bytes()
    }

    /// The file of an inode as people know it: `/a/b`, also where a snapshot shows it.
    pub fn path(&self, ino: Ino) -> String {
        let mut path = self.snapdir_path(ino).unwrap_or_default();
        path.extend(self.names.path(ino));
        String::from_utf8_lossy(&path).into_owned()
    }

    /// Makes everything durable that was acknowledged before the call.
    pub fn sync(&self) -> FsResult<()> {
        let flushed = self.files.flush_all();
        flushed.and(self.names.sync())
    }

    /// Stops the background threads and makes everything durable. Afterwards only reads are
    /// useful; the namespace and the block store are the caller's to close, in this order.
    pub fn close(&self) -> FsResult<()> {
        self.sweeper.stop();
        self.digester.stop();
        if let Some(thawer) = &self.thawer {
            thawer.stop();
        }
        drop(self.flusher.lock().take());
        if self.files.health.check().is_ok() {
            self.files.settle_all();
        }
        let synced = self.sync();
        if let Some(thawer) = &self.thawer {
            // Behind what is to be made durable: comparing copies may take a while.
            thawer.finish();
        }
        self.purger.finish();
        self.table.evict_clean();
        if synced.is_ok() && self.files.health.check().is_ok() {
            self.files.free_unreferenced()?;
        }
        synced
    }

    /// Refuses changes after a failure, before anything is attempted.
    fn check_writable(&self) -> FsResult<()> {
        self.files.health.check()
    }

    /// Begins a change of a directory's entry. Waits for a moment while a snapshot is taken.
    fn change_entry(&self, parent: Ino, name: &[u8]) -> FsResult<Pass<'_>> {
        self.check_entry(parent, name)?;
        self.change(parent)
    }

    /// Begins a change of an inode. Waits for a moment while a snapshot is taken.
    fn change(&self, ino: Ino) -> FsResult<Pass<'_>> {
        self.change_as(ino, Wait::Progress(Duration::ZERO))
    }

    /// Begins a change of an inode for who may be forbidden to wait.
    fn change_as(&self, ino: Ino, wait: Wait) -> FsResult<Pass<'_>> {
        self.check_stored(ino)?;
        self.check_writable()?;
        let pass = self.files.gate.pass_as(wait)?;
        // Behind the gate: a dataset becomes read-only while it is shut.
        self.names.check_changeable(ino)?;
        Ok(pass)
    }

    /// Passes the outcome of a namespace change on; a failed commit ends all changes.
    fn changed<T>(&self, outcome: FsResult<T>) -> FsResult<T> {
        if let Err(error) = &outcome
            && let FsError::Io { .. } = error
            && let Some(reason) = self.names.read_only()
        {
            self.files.health.fail(reason);
        }
        outcome
    }

    /// Logs damage with the path, where somebody can act on it.
    fn logged<T>(&self, ino: Ino, outcome: FsResult<T>) -> FsResult<T> {
        if let Err(error @ FsError::Io { .. }) = &outcome {
            tracing::error!(path = self.path(ino), error = chain(error), "input or output failed");
        }
        outcome
    }
}

/// `WouldWait` where the caller forbade what is certain to be necessary.
fn must_wait(wait: Wait) -> FsResult<()> {
    match wait {
        Wait::No => Err(FsError::WouldWait),
        Wait::Until(_) | Wait::Progress(_) => Ok(()),
    }
}
