//! Open files: what programs wrote and the namespace does not hold yet, and how both together
//! read.
//!
//! Sits between [`crate::namespace`] and the block store; [`crate::volume`] drives it. A file in
//! use has a [`node::FileNode`] with an [`overlay::Overlay`] of uncommitted spans; [`commit`]
//! brings overlays of many files into blocks and the namespace, [`flusher`] decides when.
//!
//! *Order*: bytes are appended to a segment, then covered by a sync, then named by an extent. A
//! commit takes all spans of a file, its size and its times at one instant and puts them into the
//! namespace in one batch, so that a crash shows each file as it was at some earlier instant.
//! *Leaks*: blocks appended but not committed when the process dies; the sweeper finds them.

pub(crate) mod allocate;
pub(crate) mod commit;
pub(crate) mod exchange;
pub(crate) mod extents;
pub(crate) mod flusher;
pub(crate) mod gate;
pub(crate) mod group_sync;
pub(crate) mod health;
pub(crate) mod job;
pub(crate) mod memory;
pub(crate) mod node;
pub(crate) mod overlay;
pub(crate) mod pending;
pub(crate) mod piece;
pub(crate) mod pins;
pub(crate) mod read;
pub(crate) mod references;
pub(crate) mod seek;
pub(crate) mod settle;
pub(crate) mod share;
pub(crate) mod stream;
pub(crate) mod write;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use firn_tiering::encode::EncodeMemory;
use firn_tiering::{Blocks, Budget, Clock, Error as TieringError};
use parking_lot::Mutex;

use crate::error::{FsError, FsResult};
use extents::{Extents, Form};
use flusher::Bell;
use gate::Gate;
use group_sync::Durability;
use health::Health;
use job::{EncoderContext, Encoders};
use memory::WriteMemory;
use node::{FileNode, FileState, WriteFailure};
use pending::Pending;
use pins::Pins;
use references::References;
use settle::SettleQueue;

/// Bytes in a slot, the piece of a file whose extents form one record.
pub(crate) const SLOT_LEN: u64 = firn_tiering::MAX_BLOCK_LEN as u64;

/// Longest file: all offsets fit a signed 64-bit `off_t`, in whole slots.
pub(crate) const MAX_FILE_LEN: u64 = (i64::MAX as u64) & !(SLOT_LEN - 1);

/// Bytes written between two looks at how much memory is left.
const MEMORY_CHECK_BYTES: u64 = 1 << 20;

/// How open files behave.
#[derive(Clone, Copy, Debug)]
pub struct FileSettings {
    /// Uncommitted data is written back at least this often.
    pub flush_interval: Duration,
    /// Uncommitted data is written back when there are this many bytes of it.
    pub flush_bytes: u64,
    /// A writer without any progress fails after this.
    pub write_deadline: Duration,
    /// Threads that encode.
    pub encoders: usize,
}

impl Default for FileSettings {
    fn default() -> Self {
        Self {
            flush_interval: Duration::from_secs(5),
            flush_bytes: 64 << 20,
            write_deadline: Duration::from_secs(300),
            encoders: std::thread::available_parallelism().map_or(2, usize::from),
        }
    }
}

/// What all open files share.
pub(crate) struct Files {
    names: Arc<dyn Extents>,
    blocks: Arc<dyn Blocks>,
    clock: Arc<dyn Clock>,
    settings: FileSettings,
    memory: WriteMemory,
    /// What is not in the namespace yet.
    pub(crate) pending: Pending,
    pins: Arc<Pins>,
    pub(crate) references: Arc<References>,
    durability: Arc<Durability>,
    encoders: Encoders,
    /// What encoders know about packs of small files, which share how they are compressed.
    pack_memory: Mutex<BTreeMap<Form, Arc<Mutex<EncodeMemory>>>>,
    pub(crate) health: Arc<Health>,
    /// What changes files or names passes here.
    pub(crate) gate: Gate,
    dirty: Mutex<Vec<Arc<FileNode>>>,
    written: AtomicU64,
    activity: AtomicU64,
    settle: SettleQueue,
    /// Held by a round that empties the list of dirty files, so that others wait for its end.
    flushing: Mutex<()>,
    last_failure: Mutex<Option<WriteFailure>>,
    bell: Bell,
}

impl Files {
    /// No file is open yet.
    pub(crate) fn new(
        names: Arc<dyn Extents>,
        blocks: Arc<dyn Blocks>,
        clock: Arc<dyn Clock>,
        budget: Budget,
        settings: FileSettings,
    ) -> std::io::Result<Self> {
        let pins = Arc::new(Pins::default());
        let health = Arc::<Health>::default();
        let (held, told) = (Arc::clone(&pins), Arc::clone(&health));
        let references = Arc::new(References::new(Arc::clone(&names), held, told));
        let durability = Arc::new(Durability::default());
        let context = EncoderContext {
            blocks: Arc::clone(&blocks),
            pins: Arc::clone(&pins),
            durability: Arc::clone(&durability),
        };
        Ok(Self {
            names,
            blocks,
            settings,
            memory: WriteMemory::new(budget, Arc::clone(&clock)),
            clock,
            pending: Pending::default(),
            pins,
            references,
            durability,
            encoders: Encoders::start(settings.encoders.max(1), context)?,
            pack_memory: Mutex::default(),
            health,
            gate: Gate::default(),
            dirty: Mutex::default(),
            written: AtomicU64::new(0),
            activity: AtomicU64::new(0),
            settle: SettleQueue::default(),
            flushing: Mutex::default(),
            last_failure: Mutex::default(),
            bell: Bell::default(),
        })
    }

    /// Committed pieces of a slot. Called with the file's state locked, or its commits.
    fn slot(&self, node: &FileNode, slot: u64) -> FsResult<Arc<[piece::Piece]>> {
        node.slot(slot, || self.names.slot(node.ino, slot))
    }

    /// Makes memory and bytes that are held for a file what its overlay holds now.
    fn settle_held(&self, node: &FileNode, state: &mut FileState) {
        state.settle_charge(&self.memory);
        let allocated = state.overlay.allocated();
        self.pending.set(&mut state.pending, node.ino.view_index(), allocated);
    }

    /// Tells the flusher about `bytes` more in `node`.
    pub(crate) fn note_dirty(&self, node: &Arc<FileNode>, bytes: u64) {
        if node.must_list() {
            self.dirty.lock().push(Arc::clone(node));
        }
        self.activity.fetch_add(1, Ordering::Relaxed);
        let before = self.written.fetch_add(bytes, Ordering::Relaxed);
        let written = before + bytes;
        // Not at every write: asking costs a lock that all writers share.
        let ask = before / MEMORY_CHECK_BYTES != written / MEMORY_CHECK_BYTES;
        if written >= self.settings.flush_bytes || (ask && self.memory.is_tight()) {
            self.bell.ring();
        }
    }
}

/// The failure of an append, which several files may share.
fn append_error(error: &TieringError) -> FsError {
    match error {
        TieringError::NoSpace => FsError::NoSpace,
        TieringError::ReadOnly(reason) => FsError::ReadOnly(reason.clone()),
        other => FsError::io("appending a block", chain(other)),
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
