//! Garbage that is too little to be worth anything while the store is in use.

use std::sync::Arc;
use std::time::Duration;

use crate::block::{BlockId, BlockRef};
use crate::blocks::{Blocks, Wait};
use crate::budget::Budget;
use crate::clock::{Clock, ManualClock};
use crate::store::testing::{Volume, eventually, noise};
use crate::store::{BackupProof, Residence};
use crate::tier::{Memory, Tier};

const BLOCK: usize = 30_000;

/// A volume with a cold tier, whose clock stands still.
fn volume() -> (Volume, Arc<ManualClock>, Arc<Memory>) {
    let memory = Arc::new(Memory::new());
    let tier = Arc::clone(&memory) as Arc<dyn Tier>;
    let clock = Arc::new(ManualClock::new());
    let volume = Volume::with(|config| {
        config.cold = Some(tier);
        config.copy_ahead = false;
        config.clock = Arc::clone(&clock) as Arc<dyn Clock>;
        config.budget = Budget::new(256 << 20, Arc::clone(&config.clock));
    });
    (volume, clock, memory)
}

fn fill(volume: &Volume, count: u64) -> Vec<BlockRef> {
    (0..count).map(|seed| volume.append(&noise(seed, BLOCK))).collect()
}

fn assert_read(volume: &Volume, blocks: &[BlockRef], lives: impl Fn(usize) -> bool) {
    for (index, block) in blocks.iter().enumerate().filter(|(index, _)| lives(*index)) {
        let found = volume.store().read(block, 0..block.len, patience(volume)).unwrap();
        assert_eq!(found, noise(index as u64, BLOCK));
    }
}

/// A deadline that no test reaches, on the volume's clock.
fn patience(volume: &Volume) -> Wait {
    Wait::Until(volume.config.clock.instant() + Duration::from_secs(60))
}

/// Says of these blocks that nobody refers to them.
fn free(volume: &Volume, dead: &[BlockId]) {
    volume.namespace.dead.lock().extend(dead);
    volume.store().free(dead);
}

fn chosen(blocks: &[BlockRef], which: impl Fn(usize) -> bool) -> Vec<BlockId> {
    let chosen = blocks.iter().enumerate().filter(|(index, _)| which(*index));
    chosen.map(|(_, block)| block.id).collect()
}

/// Several rounds of the mover.
fn a_while() {
    std::thread::sleep(Duration::from_millis(1200));
}

#[test]
fn little_garbage_is_collected_when_nobody_writes() {
    let (mut volume, clock, _) = volume();
    let blocks = fill(&volume, 80);
    // One in each segment of eight, also in the one that takes frames.
    let dies = |index: usize| index % 8 == 4 || index == 79;
    free(&volume, &chosen(&blocks, dies));
    a_while();
    let before = volume.store().usage().stored_bytes;
    assert_eq!(volume.store().health().compacted_segments, 0, "somebody might still write");
    clock.advance(Duration::from_secs(6));
    eventually("the space came back", || {
        let usage = volume.store().usage();
        let open = volume.store().inner.open_waste().0;
        (usage.dead_bytes, open) == (0, 0) && usage.stored_bytes * 10 < before * 9
    });
    assert_read(&volume, &blocks, |index| !dies(index));
    volume.reopen_after_crash();
    assert_read(&volume, &blocks, |index| !dies(index));
    let compacted = volume.store().health().compacted_segments;
    clock.advance(Duration::from_secs(3600));
    a_while();
    assert_eq!(volume.store().health().compacted_segments, compacted, "and that was all");
}

#[test]
fn what_lives_in_a_mostly_dead_cold_object_moves_to_another() {
    let (mut volume, clock, memory) = volume();
    let blocks = fill(&volume, 32);
    let all = chosen(&blocks, |_| true);
    volume.store().archive(&all, patience(&volume), &mut |_, _| ()).unwrap();
    let proof = BackupProof::of_blocks(all.iter().copied());
    assert_eq!(volume.store().release(&all, &proof, patience(&volume)).unwrap().blocks, 32);
    let old = memory.keys();
    assert!(old.len() >= 4);
    let lives = |index: usize| index.is_multiple_of(4);
    free(&volume, &chosen(&blocks, |index| !lives(index)));
    a_while();
    assert_eq!(memory.keys(), old);
    assert_eq!(volume.store().health().compacted_segments, 0, "requests cost");
    clock.advance(Duration::from_secs(6));
    let living = chosen(&blocks, lives);
    eventually("fetched", || {
        let cold = volume.store().residence(&living);
        !cold.contains(&Residence::Cold)
    });
    let compacted = old.len() as u64;
    eventually("counted", || volume.store().health().compacted_segments == compacted);
    assert_read(&volume, &blocks, lives);
    // Judged again before the new copies are even sealed, it is not fetched again.
    clock.advance(Duration::from_secs(700));
    a_while();
    assert_eq!(volume.store().health().compacted_segments, compacted);
    assert_eq!(memory.keys(), old, "the only copies in cold");
    volume.reopen_after_crash();
    assert_read(&volume, &blocks, lives);
    volume.store().archive(&living, patience(&volume), &mut |_, _| ()).unwrap();
    eventually("the old objects are gone", || {
        clock.advance(Duration::from_secs(700));
        !memory.keys().iter().any(|key| old.contains(key))
    });
    volume.crash();
    volume.delete_catalog();
    volume.open();
    assert_read(&volume, &blocks, lives);
}
