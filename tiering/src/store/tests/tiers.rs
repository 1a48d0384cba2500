//! Two tiers: archive, release, stage, cold reads with trouble, recovery from cold alone.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::block::{BlockId, BlockRef};
use crate::blocks::{Blocks, Wait};
use crate::clock::{Clock, SystemClock};
use crate::error::Error;
use crate::segment::FileKind;
use crate::store::testing::{Volume, damage, eventually, noise, soon, text};
use crate::store::{BackupProof, CheckOptions, Residence};
use crate::tier::{Fault, Faulty, Memory, Op, Patience, Tier, open_tier};

fn volume() -> (Volume, Arc<Faulty>, Arc<Memory>) {
    let memory = Arc::new(Memory::new());
    let faulty = Arc::new(Faulty::new(Arc::clone(&memory) as Arc<dyn Tier>));
    (Volume::with_cold(Arc::clone(&faulty) as Arc<dyn Tier>), faulty, memory)
}

fn fill(volume: &Volume, count: u64, len: usize) -> Vec<(BlockRef, Vec<u8>)> {
    (0..count)
        .map(|seed| {
            let plain = if seed % 3 == 0 { text(seed, len) } else { noise(seed, len) };
            (volume.append(&plain), plain)
        })
        .collect()
}

fn ids(blocks: &[(BlockRef, Vec<u8>)]) -> Vec<BlockId> {
    blocks.iter().map(|(block, _)| block.id).collect()
}

fn archive(volume: &Volume, blocks: &[BlockId]) {
    volume.store().archive(blocks, soon(), &mut |_, _| ()).unwrap();
}

fn proof(blocks: &[BlockId]) -> BackupProof {
    BackupProof::of_blocks(blocks.iter().copied())
}

fn release(volume: &Volume, blocks: &[BlockId]) {
    let moved = volume.store().release(blocks, &proof(blocks), soon()).unwrap();
    assert_eq!(moved.refused, []);
    assert_eq!(moved.blocks, blocks.len());
}

fn assert_all_read(volume: &Volume, blocks: &[(BlockRef, Vec<u8>)]) {
    for (block, plain) in blocks {
        assert_eq!(volume.read(block).unwrap(), plain, "block {}", block.id);
    }
}

fn forget_cells(volume: &mut Volume) {
    volume.close();
    volume.open();
}

#[test]
fn archive_release_read_stage_and_read_again() {
    let (mut volume, faulty, memory) = volume();
    let blocks = fill(&volume, 12, 70_000);
    let all = ids(&blocks);
    assert!(
        volume
            .store()
            .residence(&all)
            .iter()
            .all(|r| matches!(r, Residence::Open | Residence::Hot))
    );
    archive(&volume, &all);
    assert!(volume.store().residence(&all).iter().all(|r| *r == Residence::Dual));
    assert!(!memory.keys().is_empty());
    let before = volume.store().usage().hot_bytes;
    release(&volume, &all);
    assert!(volume.store().residence(&all).iter().all(|r| *r == Residence::Cold));
    assert!(volume.files(FileKind::Sealed).is_empty(), "nothing lives in the hot files");
    assert_eq!(volume.files(FileKind::Index).len(), memory.keys().len());
    assert!(volume.store().usage().hot_bytes < before / 10);
    let (block, _) = &blocks[0];
    assert!(matches!(volume.store().read(block, 0..block.len, Wait::No), Err(Error::WouldWait)));
    assert_all_read(&volume, &blocks);
    volume.store().stage(&all, soon(), &mut |_, _| ()).unwrap();
    assert!(volume.store().residence(&all).iter().all(|r| *r == Residence::Dual));
    forget_cells(&mut volume);
    faulty.cut_off();
    assert_all_read(&volume, &blocks);
    let unreachable = volume.store().check(CheckOptions::default(), &mut |_, _| ()).unwrap();
    assert!(!unreachable.is_clean());
    faulty.reconnect();
    let options = CheckOptions { data: true, cold_data: true };
    let report = volume.store().check(options, &mut |_, _| ()).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.blocks, 12);
}

#[test]
fn releasing_some_blocks_of_a_segment_keeps_the_others_hot() {
    let (mut volume, faulty, _) = volume();
    let blocks = fill(&volume, 8, 60_000);
    let all = ids(&blocks);
    archive(&volume, &all);
    let some: Vec<_> = all.iter().copied().step_by(2).collect();
    let before = volume.store().usage().hot_bytes;
    release(&volume, &some);
    assert!(volume.store().usage().hot_bytes < before);
    for (index, residence) in volume.store().residence(&all).into_iter().enumerate() {
        let expected = if index % 2 == 0 { Residence::Cold } else { Residence::Dual };
        assert_eq!(residence, expected);
    }
    assert_all_read(&volume, &blocks);
    // The holes are forgotten with the catalog; zeros fail verification and cold answers.
    volume.crash();
    volume.delete_catalog();
    volume.open();
    assert_all_read(&volume, &blocks);
    volume.store().wait_caught_up(soon()).unwrap();
    volume.store().stage(&some, soon(), &mut |_, _| ()).unwrap();
    forget_cells(&mut volume);
    faulty.cut_off();
    let odd: Vec<_> = blocks.iter().skip(1).step_by(2).cloned().collect();
    assert_all_read(&volume, &odd);
}

#[test]
fn on_a_file_system_without_holes_blocks_are_released_and_the_file_goes_with_the_last() {
    let (mut volume, _, _) = volume();
    let blocks = fill(&volume, 4, 50_000);
    archive(&volume, &ids(&blocks));
    let (_, path) = volume.files(FileKind::Sealed).remove(0);
    let whole = std::fs::read(&path).unwrap();
    let refuse = |volume: &Volume| {
        volume.store().inner.faults.refuse_punch.store(true, Ordering::Relaxed);
    };
    refuse(&volume);
    release(&volume, &ids(&blocks[..2]));
    let placed = volume.store().residence(&ids(&blocks[1..3]));
    assert_eq!(placed, [Residence::Cold, Residence::Dual]);
    assert!(std::fs::read(&path).unwrap() == whole, "nothing was punched");
    assert_all_read(&volume, &blocks);
    // What the disk says of holes is not what was recorded.
    volume.close();
    volume.delete_catalog();
    volume.open();
    refuse(&volume);
    assert_all_read(&volume, &blocks);
    volume.store().stage(&ids(&blocks[..1]), soon(), &mut |_, _| ()).unwrap();
    let report = volume.store().check(CheckOptions { data: true, cold_data: true }, &mut |_, _| ());
    assert!(report.as_ref().unwrap().is_clean(), "{report:?}");
    archive(&volume, &ids(&blocks));
    release(&volume, &ids(&blocks));
    assert!(!path.exists());
    assert_all_read(&volume, &blocks);
}

#[test]
fn staging_into_holes_makes_blocks_readable_without_cold() {
    let (mut volume, faulty, _) = volume();
    let blocks = fill(&volume, 8, 60_000);
    let all = ids(&blocks);
    archive(&volume, &all);
    let some: Vec<_> = all.iter().copied().step_by(2).collect();
    release(&volume, &some);
    let moved = volume.store().stage(&some, soon(), &mut |_, _| ()).unwrap();
    assert_eq!(moved.blocks, some.len());
    forget_cells(&mut volume);
    faulty.cut_off();
    assert_all_read(&volume, &blocks);
}

#[test]
fn nothing_is_released_without_a_verified_copy_and_a_backup() {
    let (volume, faulty, memory) = volume();
    let blocks = fill(&volume, 3, 10_000);
    let all = ids(&blocks);
    let refused = volume.store().release(&all, &proof(&all), soon()).unwrap();
    assert_eq!((refused.blocks, refused.refused.len()), (0, 3), "its segment is open");
    volume.seal();
    let refused = volume.store().release(&all, &proof(&all), soon()).unwrap();
    assert_eq!((refused.blocks, refused.refused.len()), (0, 3), "there is no copy");
    archive(&volume, &all);
    let refused = volume.store().release(&all, &proof(&all[..1]), soon()).unwrap();
    assert_eq!((refused.blocks, refused.refused.len()), (1, 2), "a backup names only one");
    // A copy that vanished behind our back is not a copy.
    let key = memory.keys()[0].clone();
    let object = memory.lose(&key).unwrap();
    let refused = volume.store().release(&all, &proof(&all), soon()).unwrap();
    assert_eq!(refused.blocks, 0);
    memory.overwrite(&key, object);
    faulty.cut_off();
    let refused = volume.store().release(&all, &proof(&all), soon()).unwrap();
    assert_eq!(refused.blocks, 0);
    faulty.reconnect();
    assert_all_read(&volume, &blocks[1..]);
}

#[test]
fn a_damaged_hot_segment_is_read_from_cold() {
    let (mut volume, _, _) = volume();
    let blocks = fill(&volume, 12, 50_000);
    archive(&volume, &ids(&blocks));
    forget_cells(&mut volume);
    for (_, path) in volume.files(FileKind::Sealed) {
        let len = path.metadata().unwrap().len();
        damage(&path, 512, (len - 2048) as usize / 2);
    }
    assert_all_read(&volume, &blocks);
    assert!(volume.store().health().damaged_reads > 0);
    for (_, path) in volume.files(FileKind::Sealed) {
        std::fs::remove_file(path).unwrap();
    }
    volume.crash();
    volume.open();
    assert_all_read(&volume, &blocks);
}

#[test]
fn a_damaged_cold_object_is_not_a_copy_and_is_not_served() {
    let (mut volume, _, memory) = volume();
    let blocks = fill(&volume, 4, 50_000);
    let all = ids(&blocks);
    archive(&volume, &all);
    release(&volume, &all);
    forget_cells(&mut volume);
    for key in memory.keys() {
        let mut bytes = memory.lose(&key).unwrap().to_vec();
        bytes[600..20_000].iter_mut().for_each(|byte| *byte ^= 1);
        memory.overwrite(&key, bytes);
    }
    let options = CheckOptions { data: false, cold_data: true };
    let report = volume.store().check(options, &mut |_, _| ()).unwrap();
    let mut lost = 0;
    for (block, plain) in &blocks {
        match volume.read(block) {
            Ok(bytes) => assert_eq!(bytes, plain),
            Err(Error::Lost { id, .. }) => {
                assert_eq!(id, block.id);
                lost += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(lost > 0);
    assert!(!report.is_clean());
}

#[test]
fn trouble_in_the_cold_tier_is_met_with_another_try() {
    let (mut volume, faulty, _) = volume();
    let blocks = fill(&volume, 4, 50_000);
    let all = ids(&blocks);
    archive(&volume, &all);
    release(&volume, &all);
    for fault in [Fault::Corrupt, Fault::Truncate] {
        forget_cells(&mut volume);
        faulty.fail_next(Some(Op::GetRange), "segments/", fault);
        let (block, plain) = &blocks[1];
        match volume.read(block) {
            Ok(bytes) => assert_eq!(bytes, plain),
            // A body cut short is an error of the tier, whose own decorator retries.
            Err(error) => assert!(matches!(error, Error::Cold { .. } | Error::Lost { .. })),
        }
        assert_eq!(volume.read(block).unwrap(), plain, "{fault:?}");
    }
}

#[test]
fn a_cold_tier_that_does_not_answer_is_a_passing_error_with_a_deadline() {
    let (mut volume, faulty, _) = volume();
    let blocks = fill(&volume, 2, 50_000);
    let all = ids(&blocks);
    archive(&volume, &all);
    release(&volume, &all);
    forget_cells(&mut volume);
    faulty.cut_off();
    let (block, plain) = &blocks[0];
    assert!(matches!(volume.read(block), Err(Error::Cold { .. } | Error::TimedOut(_))));
    faulty.reconnect();
    // The search that follows a failure asks again, and again in vain.
    for _ in 0..10 {
        faulty.fail_next(Some(Op::GetRange), "segments/", Fault::Hang);
    }
    let short = Wait::Until(SystemClock.instant() + Duration::from_millis(200));
    let result = volume.store().read(block, 0..block.len, short);
    assert!(matches!(result, Err(Error::TimedOut(_))));
    faulty.reconnect();
    assert_eq!(volume.read(block).unwrap(), plain, "the next reader asks again");
}

#[test]
fn a_small_cold_read_is_one_request_and_the_same_read_at_once_too() {
    let (mut volume, _, _) = volume();
    let plain = noise(9, 1 << 20);
    volume.config.segment_bytes = 4 << 20;
    volume.close();
    volume.open();
    let block = volume.append(&plain);
    archive(&volume, &[block.id]);
    release(&volume, &[block.id]);
    forget_cells(&mut volume);
    let before = volume.store().health().cold_requests;
    let part = volume.store().read(&block, 500_000..504_096, soon()).unwrap();
    assert_eq!(part, &plain[500_000..504_096]);
    assert_eq!(volume.store().health().cold_requests - before, 1);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let part = volume.store().read(&block, 900_000..900_100, soon()).unwrap();
                assert_eq!(part, &plain[900_000..900_100]);
            });
        }
    });
    assert_eq!(volume.store().health().cold_requests - before, 2, "single flight, then the cache");
}

#[test]
fn a_sequential_reader_finds_its_blocks_fetched_ahead() {
    let (mut volume, faulty, _) = volume();
    volume.config.segment_bytes = 8 << 20;
    volume.close();
    volume.open();
    let blocks: Vec<_> = (0..24)
        .map(|seed| (volume.append(&noise(seed, 256 << 10)), noise(seed, 256 << 10)))
        .collect();
    archive(&volume, &ids(&blocks));
    release(&volume, &ids(&blocks));
    forget_cells(&mut volume);
    let before = faulty.calls(Op::GetRange);
    assert_all_read(&volume, &blocks);
    let requests = faulty.calls(Op::GetRange) - before;
    assert!(requests < 14, "{requests} requests for 24 blocks");
}

#[test]
fn a_volume_opens_from_its_cold_tier_alone() {
    let (mut volume, _, memory) = volume();
    let blocks = fill(&volume, 20, 40_000);
    assert_eq!(volume.store().drain_uploads(soon()).unwrap(), 0);
    volume.close();
    let mut elsewhere = Volume::with_cold(Arc::clone(&memory) as Arc<dyn Tier>);
    assert_all_read(&elsewhere, &blocks);
    elsewhere.store().wait_caught_up(soon()).unwrap();
    assert_all_read(&elsewhere, &blocks);
    forget_cells(&mut elsewhere);
    assert_all_read(&elsewhere, &blocks);
    assert_eq!(elsewhere.files(FileKind::Index).len(), memory.keys().len());
}

#[test]
fn copies_are_made_ahead_and_survive_errors_and_ambiguity() {
    let memory = Arc::new(Memory::new());
    let faulty = Arc::new(Faulty::new(Arc::clone(&memory) as Arc<dyn Tier>));
    faulty.fail_next(Some(Op::PutFile), "", Fault::TimeOutAfter);
    faulty.fail_next(Some(Op::PutFile), "", Fault::TimeOutBefore);
    faulty.fail_next(Some(Op::GetRange), "", Fault::Corrupt);
    let tier = Arc::clone(&faulty) as Arc<dyn Tier>;
    let volume = Volume::with(|config| config.cold = Some(tier));
    let blocks = fill(&volume, 12, 60_000);
    volume.seal();
    eventually("sealed segments are copied", || {
        let usage = volume.store().usage();
        usage.segments > 1 && usage.cold_segments == usage.segments
    });
    assert!(volume.store().health().upload_failures >= 2);
    assert_eq!(volume.store().drain_uploads(soon()).unwrap(), 0);
    release(&volume, &ids(&blocks));
    assert_all_read(&volume, &blocks);
}

#[test]
fn a_cold_directory_that_goes_away_gets_nothing_and_is_caught_up_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let (root, away) = (dir.path().join("cold"), dir.path().join("away"));
    std::fs::create_dir(&root).unwrap();
    let patience = Patience { attempts: 2, deadline: Duration::from_secs(10) };
    let tier = open_tier(&format!("file://{}", root.display()), patience).unwrap();
    let mut volume = Volume::with(|config| config.cold = Some(tier));
    let early = fill(&volume, 2, 60_000);
    archive(&volume, &ids(&early));
    release(&volume, &ids(&early));
    forget_cells(&mut volume);
    std::fs::rename(&root, &away).unwrap();
    std::fs::create_dir(&root).unwrap();
    let late = fill(&volume, 4, 60_000);
    volume.seal();
    eventually("the failure is told", || {
        let said = volume.store().health().last_error.unwrap_or_default();
        said.contains("mount its filesystem again")
    });
    let (lost, _) = &early[0];
    assert!(matches!(volume.read(lost), Err(Error::Cold { .. })), "it is not lost for good");
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0, "nothing lies below the mountpoint");
    assert_all_read(&volume, &late);
    std::fs::remove_dir(&root).unwrap();
    std::fs::rename(&away, &root).unwrap();
    eventually("the copies are made", || {
        let usage = volume.store().usage();
        usage.segments > 1 && usage.cold_segments == usage.segments
    });
    assert_all_read(&volume, &early);
}

#[test]
fn draining_ends_with_its_deadline_when_cold_is_unreachable() {
    let (volume, faulty, _) = volume();
    fill(&volume, 3, 60_000);
    faulty.cut_off();
    let short = Wait::Until(SystemClock.instant() + Duration::from_millis(300));
    assert!(volume.store().drain_uploads(short).unwrap() >= 1);
    assert!(volume.store().health().last_error.is_some());
}

#[test]
fn a_foreign_object_under_our_key_is_replaced_by_the_intact_segment() {
    let (volume, _, memory) = volume();
    let blocks = fill(&volume, 2, 30_000);
    volume.seal();
    let inner = &volume.store().inner;
    inner.rotate_now();
    inner.wait_sealed(&inner.unsealed_full(), soon()).unwrap();
    let (id, path) = volume.files(FileKind::Sealed).remove(0);
    let mut torn = std::fs::read(&path).unwrap();
    let half = torn.len() / 2;
    torn[half] ^= 1;
    memory.overwrite(&id.object_key(), torn);
    archive(&volume, &ids(&blocks));
    assert_eq!(memory.lose(&id.object_key()).unwrap(), std::fs::read(&path).unwrap());
}

#[test]
fn a_hot_segment_with_light_damage_is_repaired_before_it_is_copied() {
    let (mut volume, _, memory) = volume();
    let blocks = fill(&volume, 4, 50_000);
    volume.close();
    let files = volume.files(FileKind::Sealed);
    let original = std::fs::read(&files[0].1).unwrap();
    damage(&files[0].1, 2000, 10);
    volume.open();
    archive(&volume, &ids(&blocks));
    assert_eq!(std::fs::read(&files[0].1).unwrap(), original);
    assert_eq!(memory.lose(&files[0].0.object_key()).unwrap(), original);
}

#[test]
fn describe_says_how_and_where() {
    let (volume, _, _) = volume();
    let plain = text(1, 100_000);
    let block = volume.append(&plain);
    let info = volume.store().describe(block.id).unwrap();
    assert_eq!((info.residence, info.plain_bytes), (Residence::Open, 100_000));
    assert!(info.stored_bytes < 50_000 && info.why.contains("ratio"), "{info:?}");
    archive(&volume, &[block.id]);
    let info = volume.store().describe(block.id).unwrap();
    assert_eq!((info.residence, info.digest), (Residence::Dual, block.digest));
    assert!(volume.store().describe(BlockId::from_raw(12345)).is_err());
}

#[test]
fn freed_segments_go_and_mostly_dead_ones_are_compacted() {
    let (mut volume, _, memory) = volume();
    let blocks: Vec<_> =
        (0..40).map(|seed| (volume.append(&noise(seed, 60_000)), noise(seed, 60_000))).collect();
    volume.seal();
    assert!(volume.files(FileKind::Sealed).len() >= 9);
    let before = volume.store().usage();
    let (kept, dead): (Vec<_>, Vec<_>) =
        blocks.into_iter().enumerate().partition(|(index, _)| index % 5 == 0);
    let dead: Vec<_> = dead.into_iter().map(|(_, (block, _))| block.id).collect();
    let kept: Vec<_> = kept.into_iter().map(|(_, block)| block).collect();
    volume.namespace.dead.lock().extend(dead.iter().copied());
    volume.store().free(&dead);
    eventually("compacted", || volume.store().health().compacted_segments > 3);
    eventually("space came back", || volume.store().usage().hot_bytes * 2 < before.hot_bytes);
    assert_all_read(&volume, &kept);
    volume.reopen_after_crash();
    assert_all_read(&volume, &kept);
    volume.crash();
    volume.delete_catalog();
    volume.open();
    assert_all_read(&volume, &kept);
    assert!(memory.keys().is_empty());
}

#[test]
fn blocks_on_their_way_into_the_namespace_are_not_collected() {
    let (mut volume, _, _) = volume();
    let blocks = fill(&volume, 8, 60_000);
    volume.seal();
    // Nobody refers to any of them yet, and one was freed.
    volume.namespace.dead.lock().extend(ids(&blocks));
    volume.store().free(&ids(&blocks)[..1]);
    volume.store().sweep().unwrap();
    assert_all_read(&volume, &blocks[1..]);
    // Opened again they are leaks of a crash.
    volume.close();
    volume.open();
    volume.store().sweep().unwrap();
    assert!(volume.files(FileKind::Sealed).is_empty());
}

#[test]
fn an_object_that_a_backup_references_is_not_deleted() {
    let (mut volume, _, memory) = volume();
    let blocks = fill(&volume, 4, 60_000);
    archive(&volume, &ids(&blocks));
    volume.namespace.keeps_cold.store(true, Ordering::SeqCst);
    volume.namespace.dead.lock().extend(ids(&blocks));
    volume.store().free(&ids(&blocks));
    eventually("hot copies go", || volume.files(FileKind::Sealed).is_empty());
    assert!(!memory.keys().is_empty());
    forget_cells(&mut volume);
    assert_all_read(&volume, &blocks);
    volume.namespace.keeps_cold.store(false, Ordering::SeqCst);
    volume.store().sweep().unwrap();
    assert!(memory.keys().is_empty());
    let mut deleted = volume.namespace.deleted.lock().concat();
    deleted.sort_unstable();
    assert_eq!(deleted, ids(&blocks), "the gate heard of each");
    assert!(volume.files(FileKind::Index).is_empty());
}

#[test]
fn archiving_what_is_gone_says_so_at_once() {
    let (mut volume, _, _) = volume();
    let blocks = fill(&volume, 2, 10_000);
    volume.close();
    for (_, path) in volume.files(FileKind::Sealed) {
        std::fs::remove_file(path).unwrap();
    }
    volume.open();
    let began = SystemClock.instant();
    let result = volume.store().archive(&ids(&blocks), soon(), &mut |_, _| ());
    assert!(matches!(result, Err(Error::Lost { .. })), "{result:?}");
    assert!(SystemClock.instant() - began < Duration::from_secs(10));
}

#[test]
fn a_search_ends_with_its_deadline_also_behind_another() {
    let (volume, _, _) = volume();
    let inner = &volume.store().inner;
    let _other = inner.searching.lock();
    let short = Wait::Until(SystemClock.instant() + Duration::from_millis(100));
    let result = inner.locate(BlockId::from_raw(12345), short);
    assert!(matches!(result, Err(Error::TimedOut(_))), "{result:?}");
}

#[test]
fn an_object_is_kept_while_the_other_copy_of_a_living_block_is_gone_from_cold() {
    let (volume, _, memory) = volume();
    let blocks = fill(&volume, 4, 50_000);
    archive(&volume, &ids(&blocks));
    let old = memory.keys();
    let dead = ids(&blocks[1..]);
    volume.namespace.dead.lock().extend(dead.iter().copied());
    volume.store().free(&dead);
    eventually("compacted", || volume.store().health().compacted_segments == 1);
    archive(&volume, &ids(&blocks[..1]));
    let new: Vec<_> = memory.keys().into_iter().filter(|key| !old.contains(key)).collect();
    assert_eq!((old.len(), new.len()), (1, 1));
    memory.lose(&new[0]).unwrap();
    volume.store().sweep().unwrap();
    assert_eq!(memory.keys(), old);
}

#[test]
fn what_was_fetched_ahead_makes_way_for_those_who_wait_for_memory() {
    let (mut volume, faulty, _) = volume();
    volume.config.segment_bytes = 8 << 20;
    volume.close();
    volume.open();
    let blocks: Vec<_> = (0..24)
        .map(|seed| (volume.append(&noise(seed, 256 << 10)), noise(seed, 256 << 10)))
        .collect();
    archive(&volume, &ids(&blocks));
    release(&volume, &ids(&blocks));
    forget_cells(&mut volume);
    let budget = volume.config.budget.clone();
    let before = budget.used_bytes();
    let requests = faulty.calls(Op::GetRange);
    assert_all_read(&volume, &blocks[..4]);
    assert!(faulty.calls(Op::GetRange) > requests);
    let ahead = budget.used_bytes() - before;
    assert!(ahead > 1 << 20, "{ahead} bytes were fetched ahead");
    let rest = budget.total_bytes() - before;
    let wait = Wait::Until(SystemClock.instant() + Duration::from_secs(20));
    let all = budget.acquire(rest, wait, "testing").unwrap();
    drop(all);
    assert_all_read(&volume, &blocks);
}
