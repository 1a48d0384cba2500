//! The block store against a map: whatever is done to it, every block that was acknowledged reads
//! back, and every other one reads back or is lost, never wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use crate::block::{BlockId, BlockRef};
use crate::blocks::Blocks;
use crate::catalog::{ColdCopy, SegmentRecord};
use crate::error::Error;
use crate::segment::{FileKind, ParityPlace, SegmentId};
use crate::store::table::Segment;
use crate::store::testing::{Volume, damage, noise, soon, text};
use crate::store::{BackupProof, Mended};
use crate::tier::{Fault, Faulty, Memory, Op, Tier};

#[derive(Clone, Debug)]
enum Step {
    Append { len: usize, shrinks: bool, place: usize },
    Sync,
    Seal,
    Read { pick: usize, from: u32, len: u32 },
    Crash { torn: u64 },
    Close,
    Archive { pick: usize, count: usize },
    Release { pick: usize, count: usize },
    Stage { pick: usize, count: usize },
    Free { pick: usize, count: usize },
    Sweep,
    FailNext { op: usize, fault: usize },
    DeleteCatalog,
    DamageHot { pick: usize },
    Rot { pick: usize, at: u32, in_cold: bool },
    LoseSidecar { pick: usize, in_cold: bool },
    Scrub,
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    let pick = || 0..1000_usize;
    let count = || 1..8_usize;
    prop_oneof![
        8 => (1..90_000_usize, any::<bool>(), 0..5_usize)
            .prop_map(|(len, shrinks, place)| Step::Append { len, shrinks, place }),
        3 => Just(Step::Sync),
        2 => Just(Step::Seal),
        4 => (pick(), any::<u32>(), 1..200_000_u32)
            .prop_map(|(pick, from, len)| Step::Read { pick, from, len }),
        2 => prop_oneof![Just(0), 1..5000_u64].prop_map(|torn| Step::Crash { torn }),
        1 => Just(Step::Close),
        3 => (pick(), count()).prop_map(|(pick, count)| Step::Archive { pick, count }),
        3 => (pick(), count()).prop_map(|(pick, count)| Step::Release { pick, count }),
        2 => (pick(), count()).prop_map(|(pick, count)| Step::Stage { pick, count }),
        3 => (pick(), count()).prop_map(|(pick, count)| Step::Free { pick, count }),
        1 => Just(Step::Sweep),
        2 => (0..4_usize, 0..5_usize).prop_map(|(op, fault)| Step::FailNext { op, fault }),
        1 => Just(Step::DeleteCatalog),
        1 => pick().prop_map(|pick| Step::DamageHot { pick }),
        2 => (pick(), any::<u32>(), any::<bool>())
            .prop_map(|(pick, at, in_cold)| Step::Rot { pick, at, in_cold }),
        1 => (pick(), any::<bool>())
            .prop_map(|(pick, in_cold)| Step::LoseSidecar { pick, in_cold }),
        1 => Just(Step::Scrub),
        1 => Just(Step::Drain),
    ]
}

struct Model {
    volume: Volume,
    memory: Arc<Memory>,
    faulty: Arc<Faulty>,
    /// Copies that have as much damage as parity bears for sure, until a scrub has been there.
    rotten: BTreeSet<(SegmentId, bool)>,
    blocks: BTreeMap<BlockId, (BlockRef, Vec<u8>)>,
    /// Covered by a sync, not freed.
    acknowledged: BTreeSet<BlockId>,
    /// May be gone: not synced before a crash.
    doubtful: BTreeSet<BlockId>,
    seed: u64,
    /// Nothing was planned to fail since the last reconnect.
    is_calm: bool,
}

impl Model {
    fn new() -> Self {
        let memory = Arc::new(Memory::new());
        let faulty = Arc::new(Faulty::new(Arc::clone(&memory) as Arc<dyn Tier>));
        let volume = Volume::with_cold(Arc::clone(&faulty) as Arc<dyn Tier>);
        Self {
            volume,
            memory,
            faulty,
            rotten: BTreeSet::new(),
            blocks: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            doubtful: BTreeSet::new(),
            seed: 0,
            is_calm: true,
        }
    }

    /// Some acknowledged blocks, the same for the same numbers.
    fn choose(&self, pick: usize, count: usize) -> Vec<BlockId> {
        let len = self.acknowledged.len();
        if len == 0 {
            return Vec::new();
        }
        self.acknowledged.iter().copied().cycle().skip(pick % len).take(count.min(len)).collect()
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Append { len, shrinks, place } => self.append(len, shrinks, place),
            Step::Sync => self.sync(),
            Step::Seal => {
                self.sync();
                self.volume.seal();
            }
            Step::Read { pick, from, len } => self.read(pick, from, len),
            Step::Crash { torn } => self.crash(torn),
            Step::Close => {
                self.sync();
                self.volume.close();
                self.volume.open();
            }
            Step::Archive { pick, count } => {
                let result =
                    self.volume.store().archive(&self.choose(pick, count), soon(), &mut |_, _| ());
                self.allow_only_trouble(&result);
            }
            Step::Release { pick, count } => {
                let blocks = self.choose(pick, count);
                let proof = BackupProof::of_blocks(blocks.iter().copied());
                let result = self.volume.store().release(&blocks, &proof, soon());
                self.allow_only_trouble(&result);
            }
            Step::Stage { pick, count } => {
                let blocks = self.choose(pick, count);
                let result = self.volume.store().stage(&blocks, soon(), &mut |_, _| ());
                self.allow_only_trouble(&result);
            }
            Step::Free { pick, count } => self.free(pick, count),
            Step::Sweep => {
                let result = self.volume.store().sweep();
                self.allow_only_trouble(&result);
            }
            Step::FailNext { op, fault } => self.fail_next(op, fault),
            Step::DeleteCatalog => {
                self.sync();
                self.volume.crash();
                self.volume.delete_catalog();
                self.volume.open();
            }
            Step::DamageHot { pick } => self.damage_hot(pick),
            Step::Rot { pick, at, in_cold } => self.rot(pick, at, in_cold),
            Step::LoseSidecar { pick, in_cold } => self.lose_sidecar(pick, in_cold),
            Step::Scrub => self.scrub(),
            Step::Drain => {
                self.sync();
                let left = self.volume.store().drain_uploads(soon()).unwrap();
                assert_eq!(left, 0, "retries outlast every planned fault");
            }
        }
    }

    /// Failing is allowed while faults are planned; losing something never is.
    fn allow_only_trouble<T>(&self, result: &crate::Result<T>) {
        if let Err(error) = result {
            assert!(!self.is_calm, "{}", crate::store::read::chain(error));
        }
    }

    fn append(&mut self, len: usize, shrinks: bool, place: usize) {
        self.seed += 1;
        let plain = if shrinks { text(self.seed, len) } else { noise(self.seed, len) };
        let place = ParityPlace::ALL.get(place).copied().unwrap_or_default();
        let block = self.volume.append_to(place, &plain);
        assert!(!self.blocks.contains_key(&block.id), "an id was used twice");
        self.blocks.insert(block.id, (block, plain));
    }

    fn sync(&mut self) {
        self.volume.store().sync().unwrap();
        let dead = self.volume.namespace.dead.lock();
        let live =
            self.blocks.keys().filter(|id| !dead.contains(id) && !self.doubtful.contains(id));
        self.acknowledged.extend(live.copied());
    }

    fn crash(&mut self, torn: u64) {
        self.volume.crash();
        if torn > 0 && self.blocks.len() > self.acknowledged.len() {
            self.tear(torn);
        }
        let doubtful = self.blocks.keys().filter(|id| !self.acknowledged.contains(id));
        self.doubtful.extend(doubtful.copied().collect::<Vec<_>>());
        self.volume.open();
    }

    /// Cuts bytes off an open segment, but none that a sync covered: the acknowledged frames are
    /// found by their order in the file.
    fn tear(&self, torn: u64) {
        use crate::segment::{DATA_START, SegmentName, scan_frames};
        for (id, path) in self.volume.files(FileKind::Open) {
            let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
            let len = file.metadata().unwrap().len();
            let name = SegmentName { volume: self.volume.config.volume, id };
            let scan = scan_frames(&file, &name, DATA_START..len.max(DATA_START), false).unwrap();
            let durable = scan
                .frames
                .iter()
                .filter(|frame| self.acknowledged.contains(&frame.header.entry.id))
                .map(|frame| frame.header.entry.frame_range().end)
                .max();
            file.set_len(len.saturating_sub(torn).max(durable.unwrap_or(0))).unwrap();
        }
    }

    fn free(&mut self, pick: usize, count: usize) {
        let blocks = self.choose(pick, count);
        for id in &blocks {
            self.acknowledged.remove(id);
        }
        self.volume.namespace.dead.lock().extend(blocks.iter().copied());
        self.volume.store().free(&blocks);
    }

    fn fail_next(&mut self, op: usize, fault: usize) {
        self.is_calm = false;
        let op = [Op::PutFile, Op::GetRange, Op::Head, Op::Delete][op % 4];
        let fault = [
            Fault::Truncate,
            Fault::Corrupt,
            Fault::TimeOutBefore,
            Fault::TimeOutAfter,
            Fault::Error(crate::tier::FailureKind::Unavailable),
        ][fault % 5];
        self.faulty.fail_next(Some(op), "segments/", fault);
    }

    /// Damages a hot file whose copy in cold is verified.
    fn damage_hot(&self, pick: usize) {
        let files = self.volume.files(FileKind::Sealed);
        if files.is_empty() {
            return;
        }
        let (id, path) = &files[pick % files.len()];
        let inner = &self.volume.store().inner;
        let is_rotten = self.rotten.contains(&(*id, true)) || self.rotten.contains(&(*id, false));
        let safe = !is_rotten
            && inner.table.record(*id).is_some_and(|record| {
                // Compaction may be about to delete that copy, for good reason.
                record.dead_bytes == 0 && inner.is_safe_in_cold(&record).is_ok()
            });
        if safe && path.exists() {
            let len = path.metadata().unwrap().len();
            damage(path, 520, ((len - 600) as usize).min(1 + pick * 50));
        }
    }

    /// Damages a run of 1 % of one copy of a segment, be it the only one.
    fn rot(&mut self, pick: usize, at: u32, in_cold: bool) {
        let inner = &self.volume.store().inner;
        // Nothing but its other copy helps one that relies on stores.
        let ids = inner.table.ids(|segment| {
            segment.record.place != ParityPlace::Stores
                && match in_cold {
                    true => segment.record.cold == ColdCopy::Verified,
                    false => segment.record.hot && segment.record.holes.is_empty(),
                }
        });
        if ids.is_empty() {
            return;
        }
        let id = ids[pick % ids.len()];
        let (path, key) = (inner.hot.path(id, FileKind::Sealed), id.object_key());
        if !self.rotten.insert((id, in_cold)) {
            return;
        }
        // What has to read it, to move it, may fail until it is repaired.
        self.is_calm = false;
        let change = |bytes: &mut [u8]| {
            let run = bytes.len() / 100;
            let start = at as usize % (bytes.len() - run);
            bytes[start..start + run].iter_mut().for_each(|byte| *byte ^= 0x3c);
        };
        if in_cold {
            let Some(object) = self.memory.peek(&key) else { return };
            let mut bytes = object.to_vec();
            change(&mut bytes);
            self.memory.overwrite(&key, bytes);
        } else {
            let Ok(len) = path.metadata().map(|meta| meta.len()) else { return };
            let run = len / 100;
            damage(&path, u64::from(at) % (len - run), run as usize);
        }
    }

    /// Removes a sidecar of a segment that nothing else is wrong with; what is left of that must
    /// serve, and is not damaged before a scrub made it anew.
    fn lose_sidecar(&mut self, pick: usize, in_cold: bool) {
        let inner = &self.volume.store().inner;
        let is_apart = |s: &Segment| s.record.place == ParityPlace::Object;
        let ids = inner.table.ids(is_apart);
        let Some(&id) = ids.get(pick % ids.len().max(1)) else { return };
        if self.rotten.insert((id, in_cold)) {
            if in_cold {
                self.memory.lose(&id.sidecar_key());
            } else {
                let _ = std::fs::remove_file(inner.hot.path(id, FileKind::Sidecar));
            }
        }
    }

    /// What it met is repaired afterwards, or it says why not.
    fn scrub(&mut self) {
        self.calm_down();
        let store = self.volume.store();
        let listing = store.cold_listing().unwrap();
        for id in store.segments_after(None) {
            let Some(found) = store.scrub_segment(id, listing.as_ref(), true).unwrap() else {
                continue;
            };
            for damage in &found.damage {
                let dead = self.volume.namespace.dead.lock();
                // An object that was deleted, though the tier said it was not.
                let is_unneeded = damage.mended == Mended::Unneeded
                    && damage.blocks.iter().all(|block| dead.contains(block));
                assert!(is_unneeded || damage.mended == Mended::Whole, "{damage:?}");
            }
            self.rotten.remove(&(id, false));
            // The object is replaced by an upload, which may not have come to it yet.
            let is_verified = |record: SegmentRecord| record.cold == ColdCopy::Verified;
            if store.inner.table.record(id).is_some_and(is_verified) {
                self.rotten.remove(&(id, true));
            }
        }
    }

    fn read(&mut self, pick: usize, from: u32, len: u32) {
        if let Some(id) = self.choose(pick, 1).first() {
            let (block, plain) = self.blocks[id].clone();
            let start = from % block.len;
            let end = (start.saturating_add(len)).min(block.len);
            let expected = &plain[start as usize..end as usize];
            match self.volume.store().read(&block, start..end, soon()) {
                Ok(bytes) => assert_eq!(bytes, expected),
                // A fault of the cold tier that was planned; the block must still be there.
                Err(Error::Cold { .. } | Error::TimedOut(_) | Error::Lost { .. }) => {
                    self.calm_down();
                    let bytes = self.volume.store().read(&block, start..end, soon()).unwrap();
                    assert_eq!(bytes, expected);
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    fn calm_down(&mut self) {
        self.faulty.reconnect();
        self.is_calm = true;
    }

    fn check_all(&mut self) {
        self.calm_down();
        for round in 0..2 {
            for id in &self.acknowledged {
                let (block, plain) = &self.blocks[id];
                match self.volume.read(block) {
                    Ok(bytes) => assert_eq!(bytes, plain, "block {id} in round {round}"),
                    Err(error) => panic!("acknowledged block {id} in round {round}: {error:?}"),
                }
            }
            for id in &self.doubtful {
                let (block, plain) = &self.blocks[id];
                match self.volume.read(block) {
                    Ok(bytes) => assert_eq!(bytes, plain),
                    Err(error) => assert!(matches!(error, Error::Lost { .. }), "{error:?}"),
                }
            }
            self.sync();
            self.volume.close();
            self.volume.open();
        }
    }
}

fn cases() -> u32 {
    std::env::var("FIRN_MODEL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(40)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        max_shrink_iters: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_store_behaves_like_a_map(steps in prop::collection::vec(step(), 1..60)) {
        let mut model = Model::new();
        for step in &steps {
            model.apply(step);
        }
        model.check_all();
    }
}
