//! The real stack: fjall, and the block store with a cold tier, in a directory.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use firn_tiering::segment::{ParityPlace, SegmentId, VolumeId};
use firn_tiering::store::{ColdListing, Mended, Scrubbed};
use firn_tiering::tier::{Memory, Tier};
use firn_tiering::{
    BackupGate, BackupProof, BlockId, BlockStore, Blocks, Budget, ManualClock, StoreConfig,
};
use parking_lot::Mutex;
use tempfile::TempDir;

use super::super::super::{LateLiveness, ParityChoice, Volume};
use super::super::fake::{forever, open_parts, quiet};
use super::ops::Rot;
use super::run::Subject;
use crate::namespace::{Content, LocalStore, Namespace, NamespaceOptions, NewRoot, StoreOptions};
use crate::types::Ino;

/// Longer than anybody works on a segment of 1 MiB, by the clock of a machine that does other things, too.
const LONGEST_CLAIM: Duration = Duration::from_secs(300);

/// A volume in a temporary directory.
pub(super) struct DiskWorld {
    dir: TempDir,
    clock: Arc<ManualClock>,
    cold: Arc<Memory>,
    /// Copies with as much damage as parity bears for sure, until a scrub has been there.
    rotten: Mutex<BTreeSet<String>>,
    open: Option<Open>,
}

struct Open {
    volume: Arc<Volume>,
    blocks: Arc<BlockStore>,
}

/// Has the parity of every other file lie apart.
struct OddApart;

impl ParityChoice for OddApart {
    fn parity(&self, ino: Ino, _: u64) -> ParityPlace {
        if ino.0 % 2 == 1 { ParityPlace::Object } else { ParityPlace::Inside }
    }
}

/// Vouches for backups, as if there were one after every change.
struct AlwaysBackedUp;

impl BackupGate for AlwaysBackedUp {
    fn ensure_backed_up(&self, blocks: &[BlockId]) -> firn_tiering::Result<BackupProof> {
        Ok(BackupProof::of_blocks(blocks.iter().copied()))
    }

    fn may_delete_cold(&self, _: &[BlockId]) -> firn_tiering::Result<bool> {
        Ok(true)
    }

    fn deleted_cold(&self, _: &[BlockId]) {}
}

impl DiskWorld {
    pub(super) fn new() -> Self {
        Self::seeded(7)
    }

    fn seeded(seed: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new());
        let store = LocalStore::open(&dir.path().join("namespace"), options()).unwrap();
        let root = NewRoot { uid: 0, gid: 0, perm: 0o755 };
        Namespace::create(&store, &*clock, root, [seed; 32]).unwrap();
        drop(store);
        let mut world =
            Self { dir, clock, cold: Arc::default(), rotten: Mutex::default(), open: None };
        world.open();
        world
    }

    fn open(&mut self) {
        let path = self.dir.path();
        // Whoever was there before has let go of everything when it is dropped.
        let store = Arc::new(LocalStore::open(&path.join("namespace"), options()).unwrap());
        let clock = self.clock.clone();
        let budget = Budget::new(256 << 20, clock.clone());
        let names = Namespace::open(store, clock.clone(), NamespaceOptions::default()).unwrap();
        let names = Arc::new(names);
        let liveness = Arc::new(LateLiveness::default());
        let (hot, catalog) = (path.join("hot"), path.join("catalog"));
        let (id, ids) = (VolumeId([1; 16]), names.ids().clone());
        let mut config = StoreConfig::new(id, hot, catalog, budget.clone(), clock.clone(), ids);
        config.cold = Some(Arc::clone(&self.cold) as Arc<dyn Tier>);
        // Small, so that sequences seal and reclaim some.
        config.segment_bytes = 1 << 20;
        config.liveness = Some(liveness.clone());
        config.backup = Some(Arc::new(AlwaysBackedUp));
        let blocks = Arc::new(BlockStore::open(config).unwrap());
        let first = blocks.next_block_id().unwrap();
        let on_blocks = blocks.clone() as Arc<dyn Blocks>;
        let parity = Some(Arc::new(OddApart) as Arc<dyn ParityChoice>);
        let volume = Arc::new(open_parts(names, on_blocks, clock, budget, quiet(), parity));
        liveness.bind(&volume, first);
        self.open = Some(Open { volume, blocks });
    }

    /// All blocks that committed extents name.
    fn referenced(&self) -> Vec<BlockId> {
        let volume = &self.open.as_ref().unwrap().volume;
        let mut blocks = BTreeSet::new();
        let view = super::observe::observe(volume, forever(&self.clock));
        for ino in view.files.keys() {
            let page = volume.names().slots(*ino, 0, u64::MAX, usize::MAX).unwrap();
            for piece in page.slots.into_iter().flat_map(|(_, record)| record.pieces) {
                if let Content::Block { block, .. } = piece.content {
                    blocks.insert(block.id);
                }
            }
        }
        blocks.into_iter().collect()
    }

    /// Sealed segments and sidecars in hot, and the keys of those that cold holds.
    fn segments(&self) -> (Vec<PathBuf>, Vec<String>) {
        let dir = std::fs::read_dir(self.dir.path().join("hot/segments")).unwrap();
        let paths = dir.map(|entry| entry.unwrap().path());
        let mut hot: Vec<_> =
            paths.filter(|path| path.extension() != Some("open".as_ref())).collect();
        hot.sort();
        let mut cold = self.cold.keys();
        cold.retain(|key| key.starts_with("segments/") || key.starts_with("parity/"));
        (hot, cold)
    }

    /// Archives and releases everything, and collects what is dead.
    fn move_all(&self) {
        let blocks = &self.open.as_ref().unwrap().blocks;
        let wait = forever(&self.clock);
        let referenced = self.referenced();
        let archive = || blocks.archive(&referenced, wait, &mut |_, _| ());
        if archive().is_err() {
            self.expect_rotten();
            if let Err(error) = archive() {
                panic!("{error:?}: {:?} {:?}", blocks.health(), self.segments());
            }
        }
        let proof = BackupProof::of_blocks(referenced.iter().copied());
        blocks.release(&referenced, &proof, wait).unwrap();
        if blocks.sweep().is_err() {
            self.expect_rotten();
            blocks.sweep().unwrap();
        }
    }

    /// Afterwards nothing is damaged.
    fn scrub_all(&self) {
        let blocks = &self.open.as_ref().unwrap().blocks;
        blocks.wait_caught_up(forever(&self.clock)).unwrap();
        let listing = blocks.cold_listing().unwrap();
        let mut replaced = Vec::new();
        for id in blocks.segments_after(None) {
            let found = self.scrub_one(id, listing.as_ref());
            for damage in found.into_iter().flat_map(|found| found.damage) {
                let there = (self.rotten.lock(), self.segments());
                let nothing_lost = matches!(damage.mended, Mended::Whole | Mended::Unneeded);
                assert!(nothing_lost, "{damage:?}, damaged before: {there:?}");
                replaced.extend(damage.in_cold.then_some(id));
            }
        }
        blocks.wait_copied(&replaced, forever(&self.clock)).unwrap();
        self.rotten.lock().clear();
    }

    /// What was found in a segment, once whoever moves it lets go; nothing when it goes meanwhile.
    #[allow(clippy::disallowed_methods, reason = "other threads take real time")]
    fn scrub_one(&self, id: SegmentId, listing: Option<&ColdListing>) -> Option<Scrubbed> {
        let blocks = &self.open.as_ref().unwrap().blocks;
        let end = Instant::now() + LONGEST_CLAIM;
        while blocks.segments_after(None).contains(&id) {
            if let Some(found) = blocks.scrub_segment(id, listing, true).unwrap() {
                return Some(found);
            }
            assert!(Instant::now() < end, "nobody lets go of {id}");
        }
        None
    }

    /// Lets time pass meanwhile: what failed is tried again after a pause.
    fn while_time_passes(&self, work: impl FnOnce()) {
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let (over, clock) = (AtomicBool::new(false), &self.clock);
        std::thread::scope(|scope| {
            let _over = Over(&over);
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(10));
                    clock.advance(Duration::from_secs(1));
                }
            });
            work();
        });
    }

    /// Only damage may stand in the way, and only until it is repaired.
    fn expect_rotten(&self) {
        assert!(!self.rotten.lock().is_empty(), "nothing stands in the way");
        self.scrub_all();
    }

    /// Whether this copy may be damaged now.
    fn may_rot(&self, copy: &str) -> bool {
        self.rotten.lock().insert(copy.to_owned())
    }

    fn rot_hot(&self, path: &Path, at: u64) {
        let Ok(len) = path.metadata().map(|meta| meta.len()) else { return };
        let run = len / 100;
        let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
        let (mut bytes, at) = (vec![0; run as usize], at % (len - run));
        file.read_exact_at(&mut bytes, at).unwrap();
        bytes.iter_mut().for_each(|byte| *byte ^= 0x3c);
        file.write_all_at(&bytes, at).unwrap();
    }

    fn rot_cold(&self, key: &str, at: u64) {
        let Some(object) = self.cold.peek(key) else { return };
        let mut bytes = object.to_vec();
        let run = bytes.len() / 100;
        let at = at as usize % (bytes.len() - run);
        bytes[at..at + run].iter_mut().for_each(|byte| *byte ^= 0xc3);
        self.cold.overwrite(key, bytes);
    }
}

/// Whether it is a sidecar that belongs to no segment yet.
fn is_being_written(path: &Path, hot: &[PathBuf]) -> bool {
    path.extension() == Some("par".as_ref()) && !hot.contains(&path.with_extension("seg"))
}

fn options() -> StoreOptions {
    StoreOptions { cache_bytes: 4 << 20, write_buffer_bytes: 1 << 20, ..StoreOptions::default() }
}

impl Subject for DiskWorld {
    const IS_HOT: bool = false;

    fn another() -> Self {
        Self::seeded(8)
    }

    fn volume(&self) -> &Volume {
        &self.open.as_ref().unwrap().volume
    }

    fn clock(&self) -> &Arc<ManualClock> {
        &self.clock
    }

    fn crash(&mut self) {
        self.open = None;
        self.open();
    }

    fn lose_power(&mut self) -> bool {
        false
    }

    fn remount(&mut self) {
        let Open { volume, blocks } = self.open.take().unwrap();
        volume.close().unwrap();
        blocks.close().unwrap();
        volume.names().close().unwrap();
        drop((volume, blocks));
        self.open();
    }

    fn move_tiers(&self) {
        self.while_time_passes(|| self.move_all());
    }

    fn scrub(&self) {
        self.while_time_passes(|| self.scrub_all());
    }

    fn rot(&mut self, how: Rot) -> bool {
        let (hot, cold) = self.segments();
        match how {
            Rot::Hot(pick, at) if !hot.is_empty() => {
                let path = &hot[pick % hot.len()];
                if !is_being_written(path, &hot) && self.may_rot(&path.display().to_string()) {
                    self.rot_hot(path, at);
                }
            }
            Rot::Cold(pick, at) if !cold.is_empty() => {
                let key = &cold[pick % cold.len()];
                if self.may_rot(key) {
                    self.rot_cold(key, at);
                }
            }
            Rot::Vanish(pick) if !hot.is_empty() => {
                let path = &hot[pick % hot.len()];
                if is_being_written(path, &hot) {
                    return false;
                }
                if path.extension() == Some("par".as_ref()) {
                    // Until it is made anew its segment bears no damage.
                    if self.may_rot(&path.with_extension("seg").display().to_string()) {
                        std::fs::remove_file(path).unwrap();
                    }
                    return false;
                }
                let key = format!("segments/{}", path.file_name().unwrap().display());
                if cold.contains(&key) && self.may_rot(&path.display().to_string()) {
                    std::fs::remove_file(path).unwrap();
                }
            }
            Rot::Catalog => {
                self.open = None;
                std::fs::remove_dir_all(self.dir.path().join("catalog")).unwrap();
                self.open();
                return true;
            }
            _ => {}
        }
        false
    }
}
