//! Looking for damage that no reader has met.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::block::BlockRef;
use crate::blocks::{Blocks, Wait};
use crate::catalog::ColdCopy;
use crate::error::{Error, Result};
use crate::segment::{FileKind, SegmentId};
use crate::store::testing::{Volume, damage, eventually, noise, soon};
use crate::store::{BackupProof, CheckOptions, Mended, Residence, Scrubbed};
use crate::tier::{
    Care, Content, FailureKind, Fault, Faulty, Memory, ObjectMeta, Op, Tier, Wholeness,
};

struct World {
    volume: Volume,
    memory: Arc<Memory>,
    faulty: Arc<Faulty>,
    blocks: Vec<(BlockRef, Vec<u8>)>,
    id: SegmentId,
    bytes: Vec<u8>,
}

impl World {
    /// One segment in both tiers.
    fn new() -> Self {
        let memory = Arc::new(Memory::new());
        let faulty = Arc::new(Faulty::new(Arc::clone(&memory) as Arc<dyn Tier>));
        let volume = Volume::with_cold(Arc::clone(&faulty) as Arc<dyn Tier>);
        let blocks: Vec<_> =
            (0..4).map(|n| noise(n, 50_000)).map(|plain| (volume.append(&plain), plain)).collect();
        volume.store().sync().unwrap();
        volume.seal();
        let ids: Vec<_> = blocks.iter().map(|(block, _)| block.id).collect();
        volume.store().archive(&ids, soon(), &mut |_, _| ()).unwrap();
        let (id, path) = volume.files(FileKind::Sealed).remove(0);
        let bytes = std::fs::read(path).unwrap();
        Self { volume, memory, faulty, blocks, id, bytes }
    }

    fn scrub(&self, cold_content: bool) -> Scrubbed {
        let listing = self.volume.store().cold_listing().unwrap();
        let found = self.volume.store().scrub_segment(self.id, listing.as_ref(), cold_content);
        found.unwrap().expect("nobody moves it")
    }

    fn expect_object(&self) {
        let key = self.id.object_key();
        eventually("the object is whole", || {
            self.memory.peek(&key).is_some_and(|object| object == self.bytes)
        });
        // Only then whoever wrote it is done.
        eventually("it is verified", || {
            self.volume.store().residence(&[self.blocks[0].0.id]) == [Residence::Dual]
        });
    }
}

#[test]
fn what_is_sound_is_left_alone() {
    let world = World::new();
    for cold_content in [false, true] {
        let found = world.scrub(cold_content);
        assert!(found.damage.is_empty() && found.recorded_blocks == 0, "{found:?}");
        assert_eq!(found.hot_bytes, world.bytes.len() as u64);
        assert_eq!(found.cold_bytes, if cold_content { found.hot_bytes } else { 0 });
    }
    assert_eq!(world.volume.store().health().repaired_segments, 0);
}

#[test]
fn damage_in_every_part_of_a_file_is_found_and_repaired() {
    let world = World::new();
    let path = world.volume.files(FileKind::Sealed).remove(0).1;
    for part in 0..24 {
        damage(&path, (world.bytes.len() - 8) as u64 * part / 23, 7);
        let found = world.scrub(false);
        assert_eq!(found.damage.len(), 1, "part {part}: {found:?}");
        assert_eq!(found.damage[0].mended, Mended::Whole);
        assert!(std::fs::read(&path).unwrap() == world.bytes, "part {part}");
    }
}

#[test]
fn an_object_that_the_listing_misses_or_that_has_another_length_is_copied_again() {
    let world = World::new();
    let key = world.id.object_key();
    world.memory.lose(&key);
    let found = world.scrub(false);
    assert_eq!(found.damage.len(), 1, "{found:?}");
    world.expect_object();
    world.memory.overwrite(&key, world.bytes[..9000].to_vec());
    assert_eq!(world.scrub(false).damage.len(), 1);
    world.expect_object();
}

#[test]
fn content_in_cold_is_read_only_when_asked() {
    let world = World::new();
    let key = world.id.object_key();
    let mut flipped = world.bytes.clone();
    flipped[7000] ^= 1;
    world.memory.overwrite(&key, flipped);
    assert!(world.scrub(false).damage.is_empty());
    let found = world.scrub(true);
    assert!(found.cold_read && found.damage.len() == 1 && found.damage[0].in_cold, "{found:?}");
    world.expect_object();
}

#[test]
fn a_tier_that_does_not_answer_is_no_damage() {
    let world = World::new();
    for _ in 0..8 {
        let gone = Fault::Error(FailureKind::Unavailable);
        world.faulty.fail_next(Some(Op::GetRange), "segments/", gone);
    }
    let store = world.volume.store();
    let failed = store.scrub_segment(world.id, None, true);
    assert!(failed.is_err(), "{failed:?}");
    assert_eq!(store.health().repaired_segments, 0);
    assert!(world.memory.peek(&world.id.object_key()).unwrap() == world.bytes);
}

#[test]
fn the_catalog_learns_what_it_does_not_know() {
    let world = World::new();
    let inner = &world.volume.store().inner;
    let ids: Vec<_> = world.blocks.iter().take(2).map(|(block, _)| block.id).collect();
    let record = inner.table.record(world.id).unwrap();
    inner.with_catalog(|catalog| catalog.remove_segment(world.id, &ids)).unwrap();
    inner.with_catalog(|catalog| catalog.put_segment(&record)).unwrap();
    assert_eq!(world.scrub(false).recorded_blocks, 2);
    assert_eq!(world.scrub(false).recorded_blocks, 0);
    for (block, plain) in &world.blocks {
        assert!(world.volume.read(block).unwrap() == plain);
    }
}

#[test]
fn a_segment_that_is_being_moved_is_left_for_the_next_time() {
    let world = World::new();
    let inner = &world.volume.store().inner;
    assert!(inner.table.claim(world.id));
    assert!(world.volume.store().scrub_segment(world.id, None, false).unwrap().is_none());
    inner.table.unclaim(world.id);
    assert!(
        world.volume.store().scrub_segment(SegmentId::from_raw(99), None, false).unwrap().is_none()
    );
}

#[test]
fn single_bits_anywhere_are_repaired_in_either_copy() {
    let world = World::new();
    let path = world.volume.files(FileKind::Sealed).remove(0).1;
    let key = world.id.object_key();
    let mut state = 1_u64;
    for flip in 0..500 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (at, bit) = ((state >> 20) as usize % world.bytes.len(), 1 << (state >> 17 & 7));
        let mut flipped = world.bytes.clone();
        flipped[at] ^= bit;
        let in_cold = flip % 10 == 0;
        if in_cold {
            world.memory.overwrite(&key, flipped);
        } else {
            std::fs::write(&path, flipped).unwrap();
        }
        for (block, plain) in &world.blocks {
            assert!(world.volume.read(block).unwrap() == plain, "flip {flip} at {at}");
        }
        // Whether a reader's thread or this comes first.
        eventually("it was looked at", || {
            let store = world.volume.store();
            store.scrub_segment(world.id, None, in_cold).unwrap().is_some()
        });
        assert!(std::fs::read(&path).unwrap() == world.bytes, "flip {flip} at {at}");
        world.expect_object();
    }
}

#[test]
fn an_object_that_is_another_segments_is_told_and_left_alone() {
    let memory = Arc::new(Memory::new());
    let volume = Volume::with(|config| config.cold = Some(Arc::clone(&memory) as Arc<dyn Tier>));
    let mut blocks = Vec::new();
    for n in 0..2 {
        blocks.push(volume.append(&noise(n, 100_000)));
        volume.seal();
    }
    let ids: Vec<_> = blocks.iter().map(|block| block.id).collect();
    volume.store().archive(&ids, soon(), &mut |_, _| ()).unwrap();
    let keys: Vec<_> =
        memory.keys().into_iter().filter(|key| key.starts_with("segments/")).collect();
    let objects = [0, 1].map(|at| memory.peek(&keys[at]).unwrap());
    memory.overwrite(&keys[0], objects[1].clone());
    memory.overwrite(&keys[1], objects[0].clone());
    let scrub = || {
        let segments = volume.store().segments_after(None);
        let found = segments
            .into_iter()
            .filter_map(|id| volume.store().scrub_segment(id, None, true).unwrap());
        found.flat_map(|found| found.damage).map(|damage| damage.mended).collect::<Vec<_>>()
    };
    // One in hot as a whole, the other with nothing left there.
    let proof = BackupProof::of_blocks([blocks[1].id]);
    volume.store().release(&[blocks[1].id], &proof, soon()).unwrap();
    assert_eq!(scrub(), [Mended::Displaced, Mended::Lost(vec![blocks[1].id])]);
    assert_eq!(volume.store().residence(&ids), [Residence::Hot, Residence::Cold]);
    assert!(memory.peek(&keys[0]).unwrap() == objects[1]);
    assert!(memory.peek(&keys[1]).unwrap() == objects[0]);
}

#[test]
fn nobody_waits_for_the_copy_of_a_segment_that_died_meanwhile() {
    let mut volume = Volume::with_cold(Arc::new(Memory::new()));
    let block = volume.append(&noise(1, 30_000));
    volume.store().archive(&[block.id], soon(), &mut |_, _| ()).unwrap();
    // Without its catalog it takes the word of the cold tier for the copy.
    volume.crash();
    volume.delete_catalog();
    volume.open();
    let id = volume.store().segments_after(None)[0];
    let record = || volume.store().inner.table.record(id).unwrap();
    eventually("the cold tier was listed", || record().cold == ColdCopy::Listed);
    volume.store().wait_caught_up(soon()).unwrap();
    // Nobody reads it any more, and a backup keeps the object.
    volume.namespace.keeps_cold.store(true, Ordering::SeqCst);
    volume.namespace.dead.lock().insert(block.id);
    volume.store().sweep().unwrap();
    assert_eq!((record().hot, record().cold), (false, ColdCopy::Listed));
    let at_once = Wait::Until(volume.config.clock.instant() + Duration::from_secs(3));
    volume.store().wait_copied(&[id], at_once).unwrap();
}

/// Its index may be sound where it lies.
#[test]
fn a_check_takes_nothing_for_lost_whose_index_is_in_a_tier_that_does_not_answer() {
    let mut world = World::new();
    let ids: Vec<_> = world.blocks.iter().map(|(block, _)| block.id).collect();
    let proof = BackupProof::of_blocks(ids.iter().copied());
    world.volume.store().release(&ids, &proof, soon()).unwrap();
    world.volume.close();
    for (_, index) in world.volume.files(FileKind::Index) {
        std::fs::remove_file(index).unwrap();
    }
    world.volume.open();
    world.volume.store().wait_caught_up(soon()).unwrap();
    let check = || world.volume.store().check(CheckOptions::default(), &mut |_, _| ()).unwrap();
    world.faulty.reseed(1, 1000, &[Fault::TimeOutBefore]);
    let found = check();
    assert!(found.lost.is_empty(), "{found:?}");
    assert!(found.findings[0].what.contains("its index cannot be read"), "{found:?}");
    assert_eq!(found.findings[0].blocks, ids, "what may be out of reach is told");
    // One that is not there is lost.
    world.faulty.reconnect();
    world.memory.lose(&world.id.object_key());
    assert_eq!(check().lost.into_iter().collect::<Vec<_>>(), ids);
}

/// Objects in pieces, of which nobody can say anything.
#[derive(Debug, Default)]
struct Deaf {
    memory: Memory,
    answers: Mutex<VecDeque<bool>>,
    asked: AtomicU64,
}

#[async_trait::async_trait]
impl Tier for Deaf {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        self.memory.put(key, bytes).await
    }

    async fn put_file(&self, key: &str, path: &Path) -> Result<()> {
        self.memory.put_file(key, path).await
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        self.memory.get(key).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        self.memory.get_range(key, range).await
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        self.memory.head(key).await
    }

    async fn list(&self, under: &str, after: Option<&str>, most: usize) -> Result<Vec<ObjectMeta>> {
        self.memory.list(under, after, most).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.memory.delete(key).await
    }

    async fn clean(&self) -> Result<u64> {
        self.memory.clean().await
    }

    async fn mend(&self, _: &str, _: Care) -> Result<Wholeness> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match self.answers.lock().pop_front() {
            Some(true) => Ok(Wholeness { pieces: 3, ..Wholeness::default() }),
            _ => Err(Error::TimedOut("asking the stores")),
        }
    }

    async fn replace(&self, key: &str, content: &Content) -> Result<()> {
        self.memory.replace(key, content).await
    }

    fn describe(&self) -> String {
        "deaf".to_owned()
    }
}

/// Each would take as long as one call may.
#[test]
fn a_scrub_does_not_wait_for_one_object_after_the_other_when_nobody_answers() {
    let deaf = Arc::new(Deaf::default());
    for at in 0..20 {
        deaf.memory.overwrite(&format!("backup/{at:02}"), "x");
    }
    let volume = Volume::with_cold(Arc::clone(&deaf) as Arc<dyn Tier>);
    let look = || volume.store().mend_objects(Care { content: false, repair: true });
    let failed = look().unwrap_err();
    assert!(crate::tier::is_retriable(&failed), "{failed:?}");
    assert_eq!(deaf.asked.swap(0, Ordering::Relaxed), 4);
    // Misses in a row: between others that answer they hold up nothing.
    deaf.answers.lock().extend([false, false, false, true].repeat(5));
    let seen = look().unwrap();
    assert_eq!(deaf.asked.load(Ordering::Relaxed), 20);
    assert_eq!(seen.found.len(), 15);
}
