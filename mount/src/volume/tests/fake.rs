//! Volumes over a namespace and blocks in memory, with power loss and failures on demand.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use firn_tiering::encode::{Compression, EncodeMemory};
use firn_tiering::segment::ParityPlace;
use firn_tiering::{
    BlockDigest, BlockId, BlockRef, Blocks, Budget, Clock, Epoch, Error, Intent, ManualClock,
    ReadAhead, Result, Served, Source, Wait,
};
use parking_lot::Mutex;

use super::super::{
    FileSettings, Observer, ParityChoice, Placement, Space, Storage, Volume, VolumeParts,
};
use crate::core::Core;
use crate::error::FsResult;
use crate::namespace::{CheckOptions, MemoryStore, Namespace, NamespaceOptions, NewRoot};
use crate::thaw::ThawSettings;
use crate::types::{Caller, Handle, Ino, OpenMode};

/// Blocks in memory.
#[derive(Debug, Default)]
pub(super) struct MemoryBlocks {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    blocks: HashMap<BlockId, (Bytes, bool)>,
    fail_appends: Option<fn() -> Error>,
    fail_sync: bool,
    cold: bool,
    /// What readers said they would read next.
    told: Vec<BlockId>,
    damaged: Vec<BlockId>,
    /// Reads of damaged blocks.
    damaged_reads: u64,
    syncs: u64,
    append_lens: Vec<usize>,
    asked: Vec<Compression>,
    parity: Vec<ParityPlace>,
}

impl MemoryBlocks {
    /// What power loss leaves.
    pub(super) fn lose_unsynced(&self) {
        self.state.lock().blocks.retain(|_, (_, synced)| *synced);
    }

    pub(super) fn fail_appends(&self, with: Option<fn() -> Error>) {
        self.state.lock().fail_appends = with;
    }

    pub(super) fn fail_sync(&self, fail: bool) {
        self.state.lock().fail_sync = fail;
    }

    /// Reads need a wait from now on.
    pub(super) fn set_cold(&self, cold: bool) {
        self.state.lock().cold = cold;
    }

    /// The blocks that readers have said they would read next, in the order in which they did.
    pub(super) fn told(&self) -> Vec<BlockId> {
        self.state.lock().told.clone()
    }

    /// Damages every block there is.
    pub(super) fn damage_all(&self) {
        let mut state = self.state.lock();
        state.damaged = state.blocks.keys().copied().collect();
    }

    /// Makes every damaged block what it was.
    pub(super) fn mend_all(&self) {
        self.state.lock().damaged.clear();
    }

    /// How often a damaged block was read.
    pub(super) fn damaged_reads(&self) -> u64 {
        self.state.lock().damaged_reads
    }

    pub(super) fn len(&self) -> usize {
        self.state.lock().blocks.len()
    }

    pub(super) fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }

    /// Plaintext lengths of all appends so far.
    pub(super) fn append_lens(&self) -> Vec<usize> {
        self.state.lock().append_lens.clone()
    }

    /// Where the parity of each append so far was to lie.
    pub(super) fn parity(&self) -> Vec<ParityPlace> {
        self.state.lock().parity.clone()
    }

    /// How each append so far was to be compressed.
    pub(super) fn asked(&self) -> Vec<Compression> {
        self.state.lock().asked.clone()
    }
}

impl Blocks for MemoryBlocks {
    fn append(&self, plain: &[u8], memory: &mut EncodeMemory, _: Wait) -> Result<BlockRef> {
        assert!((1..=firn_tiering::MAX_BLOCK_LEN).contains(&plain.len()), "{}", plain.len());
        let mut state = self.state.lock();
        if let Some(fail) = state.fail_appends {
            return Err(fail());
        }
        state.next += 1;
        let id = BlockId::new(Epoch(1), state.next).unwrap();
        state.append_lens.push(plain.len());
        state.asked.push(memory.compression());
        state.parity.push(memory.parity());
        state.blocks.insert(id, (Bytes::copy_from_slice(plain), false));
        Ok(BlockRef { id, digest: BlockDigest::of(plain), len: plain.len() as u32 })
    }

    fn sync(&self) -> Result<()> {
        let mut state = self.state.lock();
        if state.fail_sync {
            return Err(Error::ReadOnly("injected failure".into()));
        }
        state.syncs += 1;
        state.blocks.values_mut().for_each(|(_, synced)| *synced = true);
        Ok(())
    }

    fn read(&self, block: &BlockRef, range: Range<u32>, wait: Wait) -> Result<Bytes> {
        let mut state = self.state.lock();
        let lost = |reason: &str| Error::Lost { id: block.id, reason: reason.into() };
        if state.damaged.contains(&block.id) {
            state.damaged_reads += 1;
            return Err(lost("injected damage"));
        }
        if state.cold && matches!(wait, Wait::No) {
            return Err(Error::WouldWait);
        }
        let (bytes, _) = state.blocks.get(&block.id).ok_or_else(|| lost("never appended"))?;
        if BlockDigest::of(bytes) != block.digest || bytes.len() != block.len as usize {
            return Err(lost("another block"));
        }
        Ok(bytes.slice(range.start as usize..range.end as usize))
    }

    fn read_for(
        &self,
        block: &BlockRef,
        range: Range<u32>,
        _: Intent,
        wait: Wait,
    ) -> Result<Served> {
        let bytes = self.read(block, range, wait)?;
        let source = if self.state.lock().cold { Source::Cold } else { Source::Hot };
        Ok(Served { bytes, source })
    }

    /// Takes note of up to 8 MiB.
    fn will_read(
        &self,
        _: &mut ReadAhead,
        mut ahead: u64,
        next: &mut dyn FnMut() -> Option<BlockRef>,
    ) {
        while ahead < 8 << 20 {
            let Some(block) = next() else { break };
            ahead += u64::from(block.len);
            self.state.lock().told.push(block.id);
        }
    }

    fn export(&self, block: &BlockRef, wait: Wait) -> Result<Bytes> {
        let plain = self.read(block, 0..block.len, wait)?;
        Ok([&block.digest.0[..], &plain].concat().into())
    }

    fn import(&self, stored: &[u8], wait: Wait) -> Result<BlockRef> {
        let damaged = |reason: &str| Error::Damaged { what: "block", reason: reason.into() };
        let (digest, plain) = stored.split_first_chunk().ok_or_else(|| damaged("too short"))?;
        if BlockDigest::of(plain) != BlockDigest(*digest) {
            return Err(damaged("digest differs"));
        }
        self.append(plain, &mut EncodeMemory::default(), wait)
    }

    fn free(&self, blocks: &[BlockId]) {
        let mut state = self.state.lock();
        for id in blocks {
            let youngest = BlockId::new(Epoch(1), state.next).unwrap();
            assert!(*id <= youngest, "{id} was never appended");
            // Two who each took away a reference may both find that it was the last.
            state.blocks.remove(id);
        }
    }
}

/// Room without end.
#[derive(Debug)]
pub(super) struct Roomy;

impl Storage for Roomy {
    fn space(&self) -> FsResult<Space> {
        Ok(Space { total_bytes: 1 << 40, free_bytes: 1 << 40 })
    }

    fn placements(&self, blocks: &[BlockId]) -> FsResult<Vec<Placement>> {
        Ok(vec![Placement { hot: true, cold: false }; blocks.len()])
    }
}

/// A volume with what it stands on.
pub(super) struct World {
    pub(super) clock: Arc<ManualClock>,
    pub(super) store: Arc<MemoryStore>,
    pub(super) blocks: Arc<MemoryBlocks>,
    pub(super) budget: Budget,
    settings: FileSettings,
    observer: Option<Arc<dyn Observer>>,
    parity: Option<Arc<dyn ParityChoice>>,
    thaw: Option<ThawSettings>,
    volume: Option<Volume>,
}

/// Nothing is written back unless a test says so.
pub(super) fn quiet() -> FileSettings {
    FileSettings {
        flush_interval: Duration::from_secs(1 << 30),
        flush_bytes: u64::MAX,
        write_deadline: Duration::from_secs(1 << 20),
        encoders: 1,
    }
}

pub(super) fn open_parts(
    names: Arc<Namespace>,
    blocks: Arc<dyn Blocks>,
    clock: Arc<ManualClock>,
    budget: Budget,
    settings: FileSettings,
    parity: Option<Arc<dyn ParityChoice>>,
) -> Volume {
    let (storage, observer, thaw) = (Arc::new(Roomy), None, None);
    let parts =
        VolumeParts { names, blocks, storage, clock, budget, settings, observer, parity, thaw };
    Volume::open(parts).unwrap()
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(1 << 30, quiet())
    }

    pub(super) fn with_budget(bytes: u64) -> Self {
        Self::with(bytes, quiet())
    }

    pub(super) fn with(bytes: u64, settings: FileSettings) -> Self {
        Self::seeded(bytes, settings, 7)
    }

    /// Another volume than those with other seeds.
    pub(super) fn seeded(bytes: u64, settings: FileSettings, seed: u8) -> Self {
        let clock = Arc::new(ManualClock::new());
        let store = Arc::new(MemoryStore::new());
        let root = NewRoot { uid: 0, gid: 0, perm: 0o755 };
        Namespace::create(&*store, &*clock, root, [seed; 32]).unwrap();
        let budget = Budget::new(bytes, clock.clone());
        let blocks = Arc::default();
        let (observer, parity, thaw, volume) = (None, None, None, None);
        let mut world =
            Self { clock, store, blocks, budget, settings, observer, parity, thaw, volume };
        world.open();
        world
    }

    fn open(&mut self) {
        let (store, blocks) = (self.store.clone(), self.blocks.clone());
        let options = NamespaceOptions::default();
        let names = Arc::new(Namespace::open(store, self.clock.clone(), options).unwrap());
        let (clock, budget) = (self.clock.clone(), self.budget.clone());
        let (settings, observer) = (self.settings, self.observer.clone());
        let storage = Arc::new(Roomy);
        let (parity, thaw) = (self.parity.clone(), self.thaw.clone());
        let parts =
            VolumeParts { names, blocks, storage, clock, budget, settings, observer, parity, thaw };
        self.volume = Some(Volume::open(parts).unwrap());
    }

    /// Has somebody observe, from another mount on.
    pub(super) fn observe(&mut self, observer: Arc<dyn Observer>) {
        self.observer = Some(observer);
        self.crash();
    }

    /// Has somebody say where parity lies, from another mount on.
    pub(super) fn choose_parity(&mut self, choice: Arc<dyn ParityChoice>) {
        self.parity = Some(choice);
        self.crash();
    }

    /// Has files thawed, from another mount on.
    pub(super) fn thaw(&mut self, settings: ThawSettings) {
        self.thaw = Some(settings);
        self.crash();
    }

    /// Lets go of the volume, as it is.
    pub(super) fn drop_volume(&mut self) {
        self.volume = None;
    }

    /// As after `kill -9` and another mount.
    pub(super) fn crash(&mut self) {
        self.volume = None;
        self.store = Arc::new(self.store.reopened());
        self.open();
    }

    /// As after another mount of what a store held at some moment.
    pub(super) fn reopen(&mut self, store: MemoryStore) {
        self.volume = None;
        self.store = Arc::new(store);
        self.open();
    }

    /// As after power loss and another mount: only what was synced is there.
    pub(super) fn lose_power(&mut self) {
        // Before threads end, which may still append.
        let store = self.store.reopened_after_power_loss();
        self.volume = None;
        self.blocks.lose_unsynced();
        self.store = Arc::new(store);
        self.open();
    }

    /// As after an orderly unmount and another mount.
    pub(super) fn remount(&mut self) {
        let volume = self.volume.take().unwrap();
        volume.close().unwrap();
        volume.names().close().unwrap();
        drop(volume);
        self.store = Arc::new(self.store.reopened());
        self.open();
    }

    pub(super) fn volume(&self) -> &Volume {
        self.volume.as_ref().unwrap()
    }
}

pub(super) const ROOT: Caller = Caller { uid: 0, gid: 0, pid: 0 };
pub(super) const READ_WRITE: OpenMode = OpenMode {
    read: true,
    write: true,
    truncate: false,
    sync: false,
    append: false,
    stamps_cached: false,
};

/// Until the end of time.
pub(super) fn forever(clock: &ManualClock) -> Wait {
    Wait::Until(clock.instant() + Duration::from_secs(1 << 20))
}

/// Nothing is wrong with the namespace. A check wants one that nobody changes, and threads of the
/// volume clear away behind what a test did.
#[track_caller]
pub(super) fn assert_sound(volume: &Volume) {
    volume.sweeper.rest();
    volume.purger.settle(Duration::from_secs(60));
    let options = CheckOptions { snapshots: true, ..CheckOptions::default() };
    assert_eq!(volume.names().check(options).unwrap().findings, []);
}

impl World {
    pub(super) fn wait(&self) -> Wait {
        forever(&self.clock)
    }

    pub(super) fn create(&self, name: &str) -> (Ino, Handle) {
        let volume = self.volume();
        let made = volume.create(&ROOT, Ino::ROOT, name.as_bytes(), 0o644, 0, READ_WRITE);
        let (attr, handle) = made.unwrap();
        (attr.ino, handle)
    }

    pub(super) fn open_file(&self, name: &str) -> (Ino, Handle) {
        let volume = self.volume();
        let ino = volume.lookup(Ino::ROOT, name.as_bytes()).unwrap().ino;
        (ino, volume.open(&ROOT, ino, READ_WRITE, self.wait()).unwrap())
    }

    pub(super) fn write(&self, file: (Ino, Handle), offset: u64, data: &[u8]) {
        let wait = self.wait();
        let (ino, handle) = file;
        let written =
            self.volume().write(&ROOT, ino, handle, offset, data, false, false, wait).unwrap();
        assert_eq!(written as usize, data.len());
    }

    pub(super) fn read(&self, file: (Ino, Handle), offset: u64, len: u32) -> Bytes {
        self.volume().read(file.0, file.1, offset, len, self.wait()).unwrap()
    }

    /// All of a file by name.
    pub(super) fn content(&self, name: &str) -> Vec<u8> {
        let volume = self.volume();
        let ino = volume.lookup(Ino::ROOT, name.as_bytes()).unwrap().ino;
        let mode = OpenMode { read: true, ..OpenMode::default() };
        let handle = volume.open(&ROOT, ino, mode, self.wait()).unwrap();
        let bytes = self.read((ino, handle), 0, u32::MAX).to_vec();
        self.volume().release(ino, handle);
        bytes
    }

    pub(super) fn fsync(&self, file: (Ino, Handle)) -> FsResult<()> {
        self.volume().fsync(file.0, file.1, false, self.wait())
    }
}
