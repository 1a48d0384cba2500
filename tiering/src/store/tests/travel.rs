//! Blocks between stores: from wherever they lie, into whatever room there is.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::block::{BlockDigest, BlockRef, CELL_LEN, MAX_BLOCK_LEN};
use crate::blocks::{Blocks, Wait};
use crate::error::Error;
use crate::segment::FileKind;
use crate::store::BackupProof;
use crate::store::testing::{Volume, damage, eventually, noise, soon, text, wave};
use crate::tier::{Faulty, Memory, Tier};

fn fill(volume: &Volume) -> Vec<(BlockRef, Vec<u8>)> {
    let plains = (0..12).map(|seed| {
        let len = [1, 700, CELL_LEN, CELL_LEN + 1, 3 * CELL_LEN + 7][seed as usize % 5];
        match seed % 3 {
            0 => noise(seed, len),
            1 => text(seed, len),
            _ => wave(seed, len.next_multiple_of(4)),
        }
    });
    plains.map(|plain| (volume.append(&plain), plain)).collect()
}

fn export_all(volume: &Volume, blocks: &[(BlockRef, Vec<u8>)]) -> Vec<Vec<u8>> {
    let export = |(block, _): &(BlockRef, _)| volume.store().export(block, soon()).unwrap();
    blocks.iter().map(export).map(Vec::from).collect()
}

#[test]
fn blocks_travel_from_every_place_alike_and_arrive() {
    let memory = Arc::new(Memory::new());
    let faulty = Arc::new(Faulty::new(Arc::clone(&memory) as Arc<dyn Tier>));
    let volume = Volume::with_cold(Arc::clone(&faulty) as Arc<dyn Tier>);
    let blocks = fill(&volume);
    let sent = export_all(&volume, &blocks);
    volume.seal();
    assert_eq!(export_all(&volume, &blocks), sent, "from sealed segments");
    let ids: Vec<_> = blocks.iter().map(|(block, _)| block.id).collect();
    volume.store().archive(&ids, soon(), &mut |_, _| ()).unwrap();
    let proof = BackupProof::of_blocks(ids.iter().copied());
    assert_eq!(volume.store().release(&ids, &proof, soon()).unwrap().blocks, ids.len());
    let (cold, _) = &blocks[3];
    assert!(matches!(volume.store().export(cold, Wait::No), Err(Error::WouldWait)));
    assert_eq!(export_all(&volume, &blocks), sent, "from cold objects");

    let mut other = Volume::new();
    let arrived: Vec<_> = sent
        .iter()
        .map(|stored| other.store().import(stored, soon()).unwrap())
        .zip(blocks)
        .map(|(arrived, (block, plain))| {
            assert_eq!((arrived.digest, arrived.len), (block.digest, block.len));
            (arrived, plain)
        })
        .collect();
    other.store().sync().unwrap();
    other.reopen_after_crash();
    for (block, plain) in &arrived {
        assert_eq!(other.read(block).unwrap(), plain);
    }
    // What was compressed there was not compressed again: it goes on as it came.
    assert_eq!(export_all(&other, &arrived), sent);
}

#[test]
fn a_block_is_imported_under_a_new_id_each_time() {
    let volume = Volume::new();
    let block = volume.append(&text(1, 5000));
    let sent = volume.store().export(&block, soon()).unwrap();
    let first = volume.store().import(&sent, soon()).unwrap();
    let second = volume.store().import(&sent, soon()).unwrap();
    assert!(block.id < first.id && first.id < second.id);
    assert_eq!(volume.read(&second).unwrap(), text(1, 5000));
}

#[test]
fn damage_is_never_exported_and_another_copy_stands_in() {
    let memory = Arc::new(Memory::new());
    let mut volume = Volume::with_cold(Arc::clone(&memory) as Arc<dyn Tier>);
    let blocks = fill(&volume);
    let sent = export_all(&volume, &blocks);
    volume.seal();
    let ids: Vec<_> = blocks.iter().map(|(block, _)| block.id).collect();
    volume.store().archive(&ids, soon(), &mut |_, _| ()).unwrap();
    let damage_all = |volume: &Volume| {
        for (_, path) in volume.files(FileKind::Sealed) {
            let len = path.metadata().unwrap().len();
            damage(&path, 512, (len - 512) as usize);
        }
    };
    damage_all(&volume);
    assert_eq!(export_all(&volume, &blocks), sent, "the cold copies are whole");
    eventually("the files are made anew", || volume.store().health().suspect_segments == 0);
    damage_all(&volume);
    for key in memory.keys() {
        memory.lose(&key);
    }
    // What was fetched just now would do as well.
    volume.reopen_after_crash();
    for (block, _) in &blocks {
        let error = volume.store().export(block, soon()).unwrap_err();
        assert!(matches!(error, Error::Lost { .. } | Error::NotFound(_)), "{error:?}");
    }
    assert!(volume.store().inner.counters.damaged_reads.load(Ordering::Relaxed) > 0);
}

#[test]
fn another_block_of_the_id_is_not_exported() {
    let volume = Volume::new();
    let block = volume.append(&noise(1, 1000));
    let others =
        [BlockRef { digest: BlockDigest([9; 16]), ..block }, BlockRef { len: 999, ..block }];
    for sealed in [false, true] {
        if sealed {
            volume.seal();
        }
        for other in &others {
            let error = volume.store().export(other, soon()).unwrap_err();
            assert!(matches!(error, Error::Lost { .. }), "{error:?}");
        }
    }
}

#[test]
fn nonsense_is_refused_and_costs_nothing() {
    let volume = Volume::new();
    let sent = volume.store().export(&volume.append(&noise(1, 70_000)), soon()).unwrap();
    let before = volume.store().usage();
    for at in (0..sent.len()).step_by(997) {
        let mut wrong = sent.to_vec();
        wrong[at] ^= 0x10;
        let error = volume.store().import(&wrong, soon()).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. } | Error::TooNew { .. }), "{error:?}");
    }
    assert_eq!(volume.store().usage().hot_bytes, before.hot_bytes);
}

#[test]
fn a_full_store_says_so_and_takes_the_block_once_there_is_room() {
    let source = Volume::new();
    let volume = Volume::with(|config| config.hot_capacity = Some(6 << 20));
    let mut taken = Vec::new();
    let (refused, error) = loop {
        let plain = noise(taken.len() as u64, MAX_BLOCK_LEN / 2);
        let sent = source.store().export(&source.append(&plain), soon()).unwrap();
        match volume.store().import(&sent, soon()) {
            Ok(block) => taken.push((block, plain)),
            Err(error) => break (sent, error),
        }
        assert!(taken.len() < 100);
    };
    assert!(matches!(error, Error::NoSpace), "{error:?}");
    for (block, plain) in &taken {
        assert_eq!(volume.read(block).unwrap(), plain);
    }
    let dead: Vec<_> = taken[..6].iter().map(|(block, _)| block.id).collect();
    volume.namespace.dead.lock().extend(dead.iter().copied());
    volume.store().sync().unwrap();
    volume.store().free(&dead);
    crate::store::testing::eventually("there is room again", || {
        volume.store().import(&refused, soon()).is_ok()
    });
}
