//! The block store: appends blocks to segments, finds them again, and moves them between tiers.
//!
//! [`BlockStore`] implements [`Blocks`] over a hot directory, an optional cold tier and the
//! catalog. Where things are decided: `append` (the way in, sync), `seal`, `read` and `cold` (the
//! way out), `open` (recovery, catching up), `upload` (copies to cold), `verdict` (what
//! lies there), `residence` (describe,
//! archive, release), `stage`, `capacity`, `marks`, `mover` and `victims` (the bound of the hot tier,
//! and who goes), `heat` (who is warm), `reclaim` (dead blocks), `waste` (how many are too many) and
//! `sweep`, `recode`, `encoder` and `idle` (encoding harder), `check`, `repair` (damaged copies),
//! `scrub` (looking for them), `sidecar` (parity that lies apart); `steps` is where tests stop it.
//!
//! *Consistency*: a block is found at every moment from the return of `append` on; each step that
//! moves it makes the new place known before the old one goes.
//! *Crash*: on disk are sealed segments (complete and durable), open ones (scanned and sealed at
//! the next open), index files and the catalog (both made again from segments). What a crash
//! leaks: frames nobody refers to, until [`Liveness`] says so; a copy in cold that was not
//! recorded, found and verified by the next upload; staged files, removed at open.
//! *Order of destruction*: a copy is dropped only after another was read back and verified, a
//! backup names it, and the table no longer points at it.

mod append;
mod archive;
mod background;
mod cache;
mod capacity;
mod check;
mod cold;
mod config;
mod encoder;
mod gates;
mod heat;
mod hotdir;
mod idle;
mod ids;
mod job;
mod marks;
mod mover;
mod object;
mod open;
mod pieces;
mod read;
mod reclaim;
mod recode;
mod repair;
mod residence;
mod scrub;
mod seal;
mod sidecar;
mod signals;
mod stage;
mod status;
mod steps;
mod sweep;
mod table;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod upload;
mod urgency;
mod verdict;
mod victims;
mod waste;
mod yielding;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};

use crate::block::{BlockId, BlockRef};
use crate::blocks::{Blocks, Intent, Served, Wait};
use crate::budget::Permit;
use crate::catalog::Catalog;
use crate::encode::EncodeMemory;
use crate::error::{Error, Result};
use crate::readahead::ReadAhead;
use crate::throttle::Priority;
use crate::tier::UPLOAD_MEMORY;

use append::{Active, SyncState, Unsealed};
use cache::CellCache;
use capacity::Capacity;
use cold::Cold;
use encoder::Encoder;
use hotdir::HotDir;
use idle::Idle;
use ids::Ids;
use recode::Recoding;
use repair::Repairs;
use seal::SealQueue;
use signals::{Counters, Faults, Signals};
use steps::Steps;
use sweep::Sweep;
use table::Table;
use upload::Wanted;
use urgency::acting_as;
use waste::Quiet;
use yielding::Yielding;

pub use capacity::NO_ROOM;
pub use check::{CheckOptions, CheckReport, Finding};
pub use config::{DiskProbe, DiskSpace, OtherBytes, StoreConfig};
pub use gates::{BackupGate, BackupProof, DamageLog, Liveness, Steward, Temper};
pub use job::{Cancel, Job, JobProgress};
pub use marks::Watermarks;
pub use pieces::{MendedObjects, PieceFinding};
pub use recode::Recompressed;
pub use repair::{DamageReport, Mended};
pub use residence::{Archived, BlockInfo, Moved, PINNED, Residence, Stored};
pub use scrub::{ColdListing, Scrubbed};
pub use status::{Health, ParityUsage, Usage};
pub use steps::Step;

/// How long a waiter sleeps before it looks at the injected clock again.
const CLOCK_SLICE: Duration = Duration::from_millis(20);

/// How often the background threads look around without being told to.
const TICK: Duration = Duration::from_millis(500);

/// Growth of the catalog's memory that is worth taking from the budget.
const COUNTED_STEP: u64 = 1 << 20;

/// Threads of the runtime on which the cold tier's calls run.
const COLD_THREADS: usize = 2;

/// Blocks in segments, in tiers. See the module's page for what it promises.
pub struct BlockStore {
    inner: Arc<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    runtime: Option<tokio::runtime::Runtime>,
}

/// What all threads share.
struct Inner {
    config: StoreConfig,
    hot: HotDir,
    ids: Ids,
    /// Blocks with a lower id are of earlier sessions.
    first_of_session: BlockId,
    catalog: RwLock<Option<Catalog>>,
    table: Table,
    cache: CellCache,
    cold: Option<Cold>,
    capacity: Capacity,
    active: Mutex<Active>,
    unsealed: RwLock<Unsealed>,
    sealing: Mutex<SealQueue>,
    seal_changed: Condvar,
    syncing: Mutex<SyncState>,
    sync_changed: Condvar,
    wanted: Mutex<Wanted>,
    upload_changed: Condvar,
    /// Re-encoding that was interrupted.
    recoding: Mutex<Option<Recoding>>,
    /// Who encodes in the background, once somebody did.
    encoder: Mutex<Option<Encoder>>,
    idle: Idle,
    repairs: Repairs,
    /// Blocks that were freed and not counted yet.
    freed: Mutex<Vec<BlockId>>,
    /// When segments that only backups keep are judged again.
    leftovers_at: Mutex<Instant>,
    yielding: Mutex<Yielding>,
    /// Cold did not answer, and is not asked before then what can be asked later.
    cold_asleep_until: Mutex<Option<Instant>>,
    sweeping: Mutex<Sweep>,
    quiet: Quiet,
    searching: Mutex<()>,
    /// The cold tier must be listed before a block may be called lost.
    cold_unlisted: AtomicBool,
    /// It was said that parity cannot lie where it was wanted.
    warned_of_stores: AtomicBool,
    /// Why nothing may be written any more.
    poisoned: Mutex<Option<String>>,
    is_poisoned: AtomicBool,
    stopping: AtomicBool,
    signals: Signals,
    counters: Counters,
    load: Load,
    faults: Faults,
    steps: Steps,
    /// When changed warmth is saved again.
    heat_at: Mutex<Option<Instant>>,
    _reserved: Vec<Permit>,
    /// Memory of the catalog, which grows with it.
    catalog_memory: Mutex<Option<Permit>>,
}

/// Bytes in encoders now.
#[derive(Default)]
struct Load {
    encoding: AtomicU64,
}

struct Encoding<'a> {
    load: &'a Load,
    bytes: u64,
}

impl Load {
    fn enter(&self, bytes: u64) -> Encoding<'_> {
        self.encoding.fetch_add(bytes, Ordering::Relaxed);
        Encoding { load: self, bytes }
    }
}

impl Drop for Encoding<'_> {
    fn drop(&mut self) {
        self.load.encoding.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl BlockStore {
    /// Makes the directories of a new store.
    pub fn create(config: &StoreConfig) -> Result<()> {
        config.validate()?;
        HotDir::new(&config.hot_dir).create()
    }

    /// Opens a store and repairs what a crash left; see the `open` module. Returns while the
    /// catalog is still being caught up.
    pub fn open(config: StoreConfig) -> Result<Self> {
        config.validate()?;
        let hot = HotDir::new(&config.hot_dir);
        if !config.read_only {
            hot.create()?;
            hot.clean_staging()?;
        }
        let (catalog, found) =
            Catalog::open(&config.catalog_dir, config.volume, config.catalog_cache_bytes)?;
        let runtime = match &config.cold {
            Some(_) => Some(start_runtime()?),
            None => None,
        };
        let inner = Arc::new(Inner::new(config, hot, catalog, runtime.as_ref())?);
        inner.look_at_disk();
        inner.recover(&found)?;
        let mut store = Self { inner, threads: Mutex::default(), runtime };
        store.start_threads()?;
        Ok(store)
    }

    fn start_threads(&mut self) -> Result<()> {
        self.spawn("firn-helper", Inner::run_helper)?;
        if !self.inner.config.read_only {
            self.spawn("firn-sealer", Inner::run_sealer)?;
            self.spawn("firn-mover", Inner::run_mover)?;
            self.spawn("firn-mender", Inner::run_mender)?;
            if !self.inner.config.recompress_age.is_zero() {
                self.spawn("firn-recoder", Inner::run_recoder)?;
            }
            if self.inner.cold.is_some() {
                for _ in 0..self.inner.config.upload_streams {
                    self.spawn("firn-uploader", Inner::run_uploader)?;
                }
            }
        }
        Ok(())
    }

    fn spawn(&self, name: &str, run: fn(&Inner)) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || run(&inner))
            .map_err(Error::io(format!("start thread {name}")))?;
        self.threads.lock().push(thread);
        Ok(())
    }

    /// Seals what is open, makes everything durable and closes the catalog. Appends fail from
    /// now on. What is not in cold yet stays in hot; see [`BlockStore::drain_uploads`].
    pub fn close(&self) -> Result<()> {
        let sealed = if self.inner.config.read_only { Ok(()) } else { self.seal_all() };
        self.stop();
        if sealed.is_ok() && !self.inner.config.read_only {
            self.inner.count_freed();
            self.inner.save_dead_bytes();
            self.inner.save_heat(usize::MAX);
        }
        let catalog = self.inner.catalog.write().take();
        let closed = catalog.map_or(Ok(()), Catalog::close);
        self.inner.discard_empty();
        sealed.and(closed)
    }

    fn seal_all(&self) -> Result<()> {
        let inner = &self.inner;
        inner.check_writable()?;
        inner.end_appends();
        inner.sync()?;
        inner.discard_empty();
        let deadline = inner.config.clock.instant() + inner.config.write_deadline;
        inner.wait_sealed(&inner.unsealed_ids(), Wait::Until(deadline))
    }

    /// Ends the background threads; what they were doing is done or left for the next open.
    fn stop(&self) {
        self.inner.stopping.store(true, Ordering::SeqCst);
        if let Some(cold) = &self.inner.cold {
            cold.close();
        }
        self.inner.signals.kick_all();
        // A thread between its check and its wait would miss a notification sent without the lock.
        drop(self.inner.sealing.lock());
        self.inner.seal_changed.notify_all();
        let own = std::thread::current().id();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            // One that calls who was given to the store may be the last to let go of it there.
            if thread.thread().id() != own && thread.join().is_err() {
                tracing::error!("a background thread of the block store panicked");
            }
        }
    }

    /// Removes the catalog of a store that is closed; the next open makes it again.
    pub fn wipe_catalog(config: &StoreConfig) -> Result<()> {
        Catalog::wipe(&config.catalog_dir)
    }

    /// Whether the catalog holds every segment there is.
    pub fn is_caught_up(&self) -> bool {
        self.inner.is_caught_up()
    }

    /// Waits until [`BlockStore::is_caught_up`], but for segments whose index no copy has.
    pub fn wait_caught_up(&self, wait: Wait) -> Result<()> {
        while !self.inner.is_view_complete() {
            self.inner.check_wait(wait, "waiting for the catalog to be rebuilt")?;
            self.inner.signals.kick_helper();
            self.inner.signals.caught_up.wait(CLOCK_SLICE);
        }
        Ok(())
    }

    /// Where each block is.
    pub fn residence(&self, blocks: &[BlockId]) -> Vec<Residence> {
        self.inner.residences(blocks)
    }

    /// How much each block takes, and where.
    pub fn stored(&self, blocks: &[BlockId]) -> Vec<Stored> {
        self.inner.stored(blocks)
    }

    /// How and where a block is stored.
    pub fn describe(&self, block: BlockId) -> Result<BlockInfo> {
        self.inner.describe(block)
    }

    /// Seals what is open and copies everything to cold; returns how many segments were not
    /// copied when `wait` ended. Without a cold tier there is nothing to do.
    pub fn drain_uploads(&self, wait: Wait) -> Result<u64> {
        self.inner.drain_uploads(wait)
    }

    /// Asks about every segment whether it is still needed, and collects what is not; returns how
    /// many segments became free.
    pub fn sweep(&self) -> Result<usize> {
        let _acting = acting_as(Priority::Reencode);
        self.inner.count_freed();
        self.inner.sweep()
    }

    /// Looks at every segment in every tier; see [`CheckOptions`].
    pub fn check(
        &self,
        options: CheckOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<CheckReport> {
        let _acting = acting_as(Priority::Scrub);
        self.inner.check(options, progress)
    }

    /// Bytes used and bounds.
    pub fn usage(&self) -> Usage {
        self.inner.usage()
    }

    /// What goes on and what went wrong.
    pub fn health(&self) -> Health {
        self.inner.health()
    }

    /// A block id higher than those of all blocks appended before the call.
    pub fn next_block_id(&self) -> Result<BlockId> {
        self.inner.ids.next_block()
    }

    /// Why nothing may be written any more, if that is so.
    pub fn read_only_reason(&self) -> Option<String> {
        self.inner.poisoned.lock().clone()
    }
}

impl Drop for BlockStore {
    /// Without [`BlockStore::close`] this is like a crash of the process: the next open recovers.
    fn drop(&mut self) {
        self.stop();
        if let Some(runtime) = self.runtime.take() {
            // Dropping a runtime from a thread of another one would panic.
            runtime.shutdown_background();
        }
    }
}

impl std::fmt::Debug for BlockStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockStore").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl Blocks for BlockStore {
    fn append(&self, plain: &[u8], memory: &mut EncodeMemory, wait: Wait) -> Result<BlockRef> {
        self.inner.append(plain, memory, wait)
    }

    fn sync(&self) -> Result<()> {
        self.inner.sync()
    }

    fn read(&self, block: &BlockRef, range: Range<u32>, wait: Wait) -> Result<Bytes> {
        let intent = if range.len() == block.len as usize { Intent::Block } else { Intent::Part };
        self.inner.read(block, range, intent, wait).map(|served| served.bytes)
    }

    fn read_for(
        &self,
        block: &BlockRef,
        range: Range<u32>,
        intent: Intent,
        wait: Wait,
    ) -> Result<Served> {
        self.inner.read(block, range, intent, wait)
    }

    fn will_read(
        &self,
        reader: &mut ReadAhead,
        ahead: u64,
        next: &mut dyn FnMut() -> Option<BlockRef>,
    ) {
        self.inner.will_read(reader, ahead, next);
    }

    fn export(&self, block: &BlockRef, wait: Wait) -> Result<Bytes> {
        self.inner.export(block, wait)
    }

    fn import(&self, stored: &[u8], wait: Wait) -> Result<BlockRef> {
        self.inner.import(stored, wait)
    }

    fn free(&self, blocks: &[BlockId]) {
        self.inner.freed.lock().extend_from_slice(blocks);
        self.inner.signals.kick_mover();
    }
}

fn start_runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(COLD_THREADS)
        .thread_name("firn-cold")
        .enable_all()
        .build()
        .map_err(Error::io("start the cold tier's threads"))
}

impl Inner {
    fn new(
        config: StoreConfig,
        hot: HotDir,
        catalog: Catalog,
        runtime: Option<&tokio::runtime::Runtime>,
    ) -> Result<Self> {
        let ids = Ids::new(Arc::clone(&config.ids));
        let first_of_session =
            if config.read_only { BlockId::from_raw(u64::MAX) } else { ids.next_block()? };
        let cold = config.cold.as_ref().zip(runtime).map(|(tier, runtime)| {
            let handle = runtime.handle().clone();
            let tiers = config.cold_handles.clone().unwrap_or_else(|| Arc::clone(tier).into());
            let clock = Arc::clone(&config.clock);
            Cold::new(tiers, handle, clock, config.budget.clone(), config.prefetch_bytes)
        });
        let catalog_memory = config.budget.try_acquire(config.catalog_cache_bytes);
        // Taken for good: a budget too small for them still works, with less cached.
        let mut reserved = Vec::new();
        let mut reserve = |bytes| match config.budget.try_acquire(bytes) {
            Some(permit) => {
                reserved.push(permit);
                bytes
            }
            None => 0,
        };
        if cold.is_some() {
            // A piece that is read back, beside its original, is less.
            reserve(config.upload_streams as u64 * UPLOAD_MEMORY);
        }
        let cache = CellCache::new(reserve(config.cache_bytes));
        let poisoned = config.read_only.then(|| "it was opened read-only".to_owned());
        Ok(Self {
            hot,
            ids,
            first_of_session,
            catalog: RwLock::new(Some(catalog)),
            table: Table::default(),
            cache,
            cold,
            capacity: Capacity::new(config.hot_capacity, config.watermarks, config.segment_bytes),
            active: Mutex::default(),
            unsealed: RwLock::default(),
            sealing: Mutex::default(),
            seal_changed: Condvar::new(),
            syncing: Mutex::default(),
            sync_changed: Condvar::new(),
            wanted: Mutex::default(),
            upload_changed: Condvar::new(),
            recoding: Mutex::default(),
            encoder: Mutex::default(),
            idle: Idle::default(),
            repairs: Repairs::default(),
            freed: Mutex::default(),
            leftovers_at: Mutex::new(config.clock.instant()),
            yielding: Mutex::default(),
            cold_asleep_until: Mutex::default(),
            sweeping: Mutex::new(Sweep::new(config.clock.instant())),
            quiet: Quiet::default(),
            searching: Mutex::default(),
            cold_unlisted: AtomicBool::new(false),
            is_poisoned: AtomicBool::new(poisoned.is_some()),
            warned_of_stores: AtomicBool::new(false),
            poisoned: Mutex::new(poisoned),
            stopping: AtomicBool::new(false),
            signals: Signals::default(),
            counters: Counters::default(),
            load: Load::default(),
            faults: Faults::default(),
            steps: Steps::from_env()?,
            heat_at: Mutex::default(),
            _reserved: reserved,
            catalog_memory: Mutex::new(catalog_memory),
            config,
        })
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Refuses writing after a failure, when read-only, and once closing began.
    fn check_writable(&self) -> Result<()> {
        if self.is_poisoned.load(Ordering::SeqCst) {
            let reason = self.poisoned.lock().clone();
            return Err(Error::ReadOnly(reason.unwrap_or_else(|| "a write failed".into())));
        }
        self.steps.check()?;
        if self.is_stopping() {
            return Err(Error::ReadOnly("it is being closed".into()));
        }
        Ok(())
    }

    /// Nothing is written any more until the store is opened again.
    fn poison(&self, reason: String) {
        tracing::error!(reason, "the block store is read-only from now on");
        self.poisoned.lock().get_or_insert(reason);
        self.is_poisoned.store(true, Ordering::SeqCst);
        self.seal_changed.notify_all();
    }

    /// `Ok` while the caller may go on waiting.
    fn check_wait(&self, wait: Wait, what: &'static str) -> Result<()> {
        match wait {
            Wait::No => Err(Error::WouldWait),
            Wait::Until(deadline) if self.config.clock.instant() >= deadline => {
                Err(Error::TimedOut(what))
            }
            // Who waits for more than one moment says so by a deadline, or sees progress itself.
            Wait::Until(_) | Wait::Progress(_) => Ok(()),
        }
    }

    /// When a cold read that begins now must have ended.
    fn cold_deadline(&self, wait: Wait) -> Result<Instant> {
        let own = self.config.clock.instant() + self.config.cold_read_deadline;
        match wait {
            Wait::No => Err(Error::WouldWait),
            Wait::Until(deadline) => Ok(deadline.min(own)),
            Wait::Progress(_) => Ok(own),
        }
    }

    fn with_catalog<T>(&self, operation: impl FnOnce(&Catalog) -> Result<T>) -> Result<T> {
        self.steps.check()?;
        match &*self.catalog.read() {
            Some(catalog) if !catalog.is_broken() => operation(catalog),
            Some(_) => Err(Error::Catalog("it failed earlier".into())),
            None => Err(Error::Catalog("it is closed".into())),
        }
    }
}
