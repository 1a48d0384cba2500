//! What the store's tests share: ids, data, and a store in a temporary directory that can be
//! dropped like a crash and opened again.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use tempfile::TempDir;

use super::{
    BackupGate, BackupProof, BlockStore, DamageLog, DamageReport, Liveness, Steward, StoreConfig,
    Temper,
};
use crate::block::{BlockId, BlockRef, Epoch};
use crate::blocks::{Blocks, IdSource, Wait};
use crate::budget::Budget;
use crate::clock::{Clock, SystemClock};
use crate::encode::EncodeMemory;
use crate::error::Result;
use crate::segment::{FileKind, ParityPlace, SegmentId, VolumeId};
use crate::tier::Tier;

/// Ids from memory, shared by all openings of a store.
pub(crate) struct CountingIds {
    epoch: AtomicU16,
    blocks: AtomicU64,
    segments: AtomicU64,
}

impl CountingIds {
    pub(crate) fn new(epoch: u16) -> Self {
        Self {
            epoch: AtomicU16::new(epoch),
            blocks: AtomicU64::new(1),
            segments: AtomicU64::new(1),
        }
    }
}

impl IdSource for CountingIds {
    fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::SeqCst))
    }

    fn lease_blocks(&self, count: u64) -> Result<Range<u64>> {
        let start = self.blocks.fetch_add(count, Ordering::SeqCst);
        Ok(start..start + count)
    }

    fn lease_segments(&self, count: u64) -> Result<Range<u64>> {
        let start = self.segments.fetch_add(count, Ordering::SeqCst);
        Ok(start..start + count)
    }
}

/// A namespace as far as the store asks: who is referenced, and backed up when asked.
#[derive(Default)]
pub(crate) struct FakeNamespace {
    pub(crate) dead: Mutex<HashSet<BlockId>>,
    pub(crate) refuses_backup: AtomicBool,
    pub(crate) keeps_cold: AtomicBool,
    pub(crate) backups: AtomicU64,
    /// What blocks are for; those that are not named are warm without any access.
    pub(crate) tempers: Mutex<HashMap<BlockId, Temper>>,
    /// The dead blocks of each object that was deleted.
    pub(crate) deleted: Mutex<Vec<Vec<BlockId>>>,
}

impl BackupGate for FakeNamespace {
    fn ensure_backed_up(&self, blocks: &[BlockId]) -> Result<BackupProof> {
        self.backups.fetch_add(1, Ordering::SeqCst);
        if self.refuses_backup.load(Ordering::SeqCst) {
            return Ok(BackupProof::of_blocks([]));
        }
        Ok(BackupProof::of_blocks(blocks.iter().copied()))
    }

    fn may_delete_cold(&self, blocks: &[BlockId]) -> Result<bool> {
        let dead = self.dead.lock();
        Ok(!self.keeps_cold.load(Ordering::SeqCst) && blocks.iter().all(|id| dead.contains(id)))
    }

    fn deleted_cold(&self, blocks: &[BlockId]) {
        self.deleted.lock().push(blocks.to_vec());
    }
}

impl Liveness for FakeNamespace {
    fn is_referenced(&self, blocks: &[BlockId]) -> Result<Vec<bool>> {
        let dead = self.dead.lock();
        Ok(blocks.iter().map(|id| !dead.contains(id)).collect())
    }
}

impl Steward for FakeNamespace {
    fn tempers(&self, blocks: &[BlockId]) -> Result<Vec<Temper>> {
        let tempers = self.tempers.lock();
        Ok(blocks.iter().map(|id| tempers.get(id).copied().unwrap_or(Temper::Warm(0.0))).collect())
    }
}

/// The machine's clock, ahead by as much as a test likes: unlike with one that stands still,
/// threads that wait for each other really wait.
#[derive(Debug, Default)]
pub(crate) struct ShiftedClock {
    ahead: Mutex<Duration>,
}

impl ShiftedClock {
    pub(crate) fn advance(&self, duration: Duration) {
        *self.ahead.lock() += duration;
    }
}

impl Clock for ShiftedClock {
    fn now(&self) -> SystemTime {
        SystemClock.now() + *self.ahead.lock()
    }

    fn instant(&self) -> Instant {
        SystemClock.instant() + *self.ahead.lock()
    }

    fn sleep(&self, duration: Duration) {
        SystemClock.sleep(duration);
    }
}

/// A volume for tests.
pub(crate) struct Volume {
    _dir: TempDir,
    pub(crate) config: StoreConfig,
    pub(crate) namespace: Arc<FakeNamespace>,
    /// Where the parity of what is appended is to lie.
    pub(crate) place: ParityPlace,
    store: Option<BlockStore>,
}

pub(crate) const SEGMENT_BYTES: u64 = 256 << 10;

impl Volume {
    /// [`Volume::with`], and the namespace says what blocks are for.
    pub(crate) fn stewarded(change: impl FnOnce(&mut StoreConfig)) -> Self {
        let mut volume = Self::with(change);
        volume.store = None;
        volume.config.steward = Some(Arc::clone(&volume.namespace) as Arc<dyn Steward>);
        volume.open();
        volume
    }

    /// An open store with small segments and these changes to its settings.
    pub(crate) fn with(change: impl FnOnce(&mut StoreConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let namespace = Arc::new(FakeNamespace::default());
        let mut config = StoreConfig::new(
            VolumeId([7; 16]),
            dir.path().join("hot"),
            dir.path().join("catalog"),
            Budget::new(256 << 20, Arc::clone(&clock)),
            clock,
            Arc::new(CountingIds::new(1)),
        );
        config.segment_bytes = SEGMENT_BYTES;
        config.backup = Some(Arc::clone(&namespace) as Arc<dyn BackupGate>);
        config.liveness = Some(Arc::clone(&namespace) as Arc<dyn Liveness>);
        config.cold_read_deadline = Duration::from_secs(20);
        config.recompress_age = Duration::ZERO;
        change(&mut config);
        BlockStore::create(&config).unwrap();
        let mut volume =
            Self { _dir: dir, config, namespace, place: ParityPlace::Inside, store: None };
        volume.open();
        volume
    }

    pub(crate) fn new() -> Self {
        Self::with(|_| ())
    }

    pub(crate) fn with_cold(tier: Arc<dyn Tier>) -> Self {
        Self::with(|config| {
            config.cold = Some(tier);
            config.copy_ahead = false;
        })
    }

    pub(crate) fn open(&mut self) {
        self.store = None;
        // The memory of the store that went is given back before the next one asks for it.
        self.store = Some(BlockStore::open(self.config.clone()).unwrap());
    }

    pub(crate) fn store(&self) -> &BlockStore {
        self.store.as_ref().unwrap()
    }

    /// Drops the store without closing it, as far as that resembles a crash.
    pub(crate) fn crash(&mut self) {
        self.store = None;
    }

    pub(crate) fn close(&mut self) {
        self.store().close().unwrap();
        self.store = None;
    }

    pub(crate) fn reopen_after_crash(&mut self) {
        self.crash();
        self.open();
    }

    pub(crate) fn delete_catalog(&self) {
        std::fs::remove_dir_all(&self.config.catalog_dir).unwrap();
    }

    pub(crate) fn segments_dir(&self) -> PathBuf {
        self.config.hot_dir.join("segments")
    }

    /// Segment files of a kind, in id order.
    pub(crate) fn files(&self, kind: FileKind) -> Vec<(SegmentId, PathBuf)> {
        let mut dir = self.segments_dir();
        if kind == FileKind::Index {
            dir = self.config.hot_dir.join("index");
        }
        let mut files: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .filter_map(|entry| {
                let path = entry.unwrap().path();
                let name = path.file_name()?.to_str()?;
                let (id, found) = SegmentId::parse_file_name(name)?;
                (found == kind).then_some((id, path.clone()))
            })
            .collect();
        files.sort();
        files
    }

    pub(crate) fn append(&self, plain: &[u8]) -> BlockRef {
        self.append_to(self.place, plain)
    }

    pub(crate) fn append_to(&self, place: ParityPlace, plain: &[u8]) -> BlockRef {
        let mut memory = EncodeMemory::default();
        memory.set_parity(place);
        self.store().append(plain, &mut memory, soon()).unwrap()
    }

    pub(crate) fn read(&self, block: &BlockRef) -> Result<Bytes> {
        self.store().read(block, 0..block.len, soon())
    }

    /// Seals everything appended so far.
    pub(crate) fn seal(&self) {
        let inner = &self.store().inner;
        inner.rotate_now();
        inner.wait_sealed(&inner.unsealed_full(), soon()).unwrap();
    }
}

/// A deadline that no test reaches.
pub(crate) fn soon() -> Wait {
    Wait::Until(SystemClock.instant() + Duration::from_secs(60))
}

/// [`soon`], for a test that lets days pass.
pub(crate) fn later() -> Wait {
    Wait::Until(SystemClock.instant() + Duration::from_secs(30 * 86_400))
}

/// Bytes that hardly shrink, the same for the same seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Text-like bytes that shrink well.
pub(crate) fn text(seed: u64, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 64);
    let mut line = 0_u64;
    while out.len() < len {
        out.extend_from_slice(format!("seed {seed} line {line} of some text\n").as_bytes());
        line += 1;
    }
    out.truncate(len);
    out
}

/// Waits until `done`, which another thread brings about; panics when it never does.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let end = SystemClock.instant() + Duration::from_secs(60);
    while !done() {
        assert!(SystemClock.instant() < end, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Big-endian floats of a slow wave: numbers that a filter and patience make much smaller.
pub(crate) fn wave(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64 / 4)
        .flat_map(|i| ((((i + seed * 1000) as f32) / 300.0).sin() * 40.0 + 280.0).to_be_bytes())
        .collect()
}

/// Changes bytes of a file in place.
pub(crate) fn damage(path: &Path, offset: u64, len: usize) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 0xa5);
    file.write_all_at(&bytes, offset).unwrap();
}

type IsBad = Box<dyn Fn(u64, usize) -> bool + Send>;

/// Parts of hot files, by offset and length of a read, that the disk does not give.
#[derive(Clone, Default)]
pub(crate) struct BadSectors(Arc<Mutex<Option<IsBad>>>);

impl BadSectors {
    pub(crate) fn set(&self, is_bad: impl Fn(u64, usize) -> bool + Send + 'static) {
        *self.0.lock() = Some(Box::new(is_bad));
    }

    pub(crate) fn clear(&self) {
        *self.0.lock() = None;
    }

    pub(crate) fn check(&self, offset: u64, len: usize) -> std::io::Result<()> {
        match &*self.0.lock() {
            Some(is_bad) if is_bad(offset, len) => {
                Err(std::io::Error::other("injected failure of a read"))
            }
            _ => Ok(()),
        }
    }
}

/// Every damage that was reported.
#[derive(Default)]
pub(crate) struct Log(pub(crate) Mutex<Vec<DamageReport>>);

impl DamageLog for Log {
    fn report(&self, damage: &DamageReport) {
        self.0.lock().push(damage.clone());
    }
}
