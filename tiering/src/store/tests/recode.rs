//! Writing segments again in their smallest form: what it gains, what a crash leaves, when it
//! stops, and that it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::block::{BlockId, BlockRef};
use crate::blocks::{Blocks, Wait};
use crate::budget::Budget;
use crate::clock::{Clock, ManualClock};
use crate::encode::Codec;
use crate::segment::FileKind;
use crate::store::encoder::{Encoder, read_frame};
use crate::store::idle::lower_priority;
use crate::store::recode::{Outcome, Pace};
use crate::store::testing::{Volume, damage, eventually, noise, soon, text, wave};
use crate::store::{BackupProof, Recompressed, Residence};
use crate::tier::{Faulty, Memory, Tier};

const BLOCK: usize = 100_000;

fn with_cold() -> (Volume, Arc<Faulty>, Arc<Memory>) {
    let memory = Arc::new(Memory::new());
    let faulty = Arc::new(Faulty::new(Arc::clone(&memory) as Arc<dyn Tier>));
    (Volume::with_cold(Arc::clone(&faulty) as Arc<dyn Tier>), faulty, memory)
}

fn fill(volume: &Volume) -> Vec<(BlockRef, Vec<u8>)> {
    let plain = (0..4).flat_map(|seed| [wave(seed, BLOCK), text(seed, BLOCK), noise(seed, 8000)]);
    let blocks = plain.map(|plain| (volume.append(&plain), plain)).collect();
    volume.seal();
    blocks
}

fn ids(blocks: &[(BlockRef, Vec<u8>)]) -> Vec<BlockId> {
    blocks.iter().map(|(block, _)| block.id).collect()
}

fn recompress(volume: &Volume, blocks: &[BlockId]) -> Recompressed {
    volume.store().recompress(blocks, soon(), &mut |_, _| ()).unwrap()
}

/// Same ids, same digests, same bytes.
fn assert_all_read(volume: &Volume, blocks: &[(BlockRef, Vec<u8>)]) {
    for (block, plain) in blocks {
        assert_eq!(volume.read(block).unwrap(), plain, "block {}", block.id);
        assert_eq!(volume.store().describe(block.id).unwrap().digest, block.digest);
    }
}

fn assert_hardest(volume: &Volume, blocks: &[(BlockRef, Vec<u8>)]) {
    for (block, plain) in blocks {
        let info = volume.store().describe(block.id).unwrap();
        let expected = if plain.len() == BLOCK { (Codec::Zstd, 19) } else { (Codec::None, 0) };
        assert_eq!((info.codec, info.level), expected, "{info:?}");
        assert!(plain.len() < BLOCK || info.why.contains("zstd-19"), "{}", info.why);
    }
}

fn stored(volume: &Volume, blocks: &[(BlockRef, Vec<u8>)]) -> u64 {
    blocks.iter().map(|(b, _)| volume.store().describe(b.id).unwrap().stored_bytes).sum()
}

#[test]
fn numbers_shrink_and_are_the_same_blocks_also_after_every_kind_of_reopening() {
    let mut volume = Volume::new();
    let blocks = fill(&volume);
    let (before, segments) = (stored(&volume, &blocks), volume.files(FileKind::Sealed).len());
    let done = recompress(&volume, &ids(&blocks));
    assert_eq!((done.segments, done.unchanged, done.absent), (segments, 0, 0), "{done:?}");
    let after = stored(&volume, &blocks);
    assert!(after * 10 < before * 9, "{before} bytes before, {after} after");
    assert_eq!(done.before_bytes - done.after_bytes, before - after);
    assert_eq!(volume.files(FileKind::Sealed).len(), segments, "the old files are gone");
    assert_hardest(&volume, &blocks);
    assert_all_read(&volume, &blocks);
    volume.reopen_after_crash();
    assert_all_read(&volume, &blocks);
    volume.crash();
    volume.delete_catalog();
    volume.open();
    assert_all_read(&volume, &blocks);
    assert_hardest(&volume, &blocks);
    let again = recompress(&volume, &ids(&blocks));
    assert_eq!((again.segments, again.unchanged), (0, segments), "the levels tell");
}

#[test]
fn what_gains_nothing_stays_and_is_not_tried_again() {
    let mut volume = Volume::new();
    let blocks: Vec<_> = (0..3).map(|n| (volume.append(&noise(n, 8000)), noise(n, 8000))).collect();
    volume.seal();
    let files = volume.files(FileKind::Sealed);
    let done = recompress(&volume, &ids(&blocks));
    assert_eq!((done.segments, done.unchanged), (0, 1));
    assert_eq!(volume.files(FileKind::Sealed), files);
    volume.close();
    volume.open();
    let settled = volume.store().inner.table.with(files[0].0, |s| s.record.settled);
    assert_eq!(settled, Some(true), "the catalog remembers");
    assert_all_read(&volume, &blocks);
}

#[test]
fn the_object_in_cold_is_replaced_and_the_old_one_goes_only_then() {
    let (mut volume, faulty, memory) = with_cold();
    let blocks = fill(&volume);
    let all = ids(&blocks);
    volume.store().archive(&all, soon(), &mut |_, _| ()).unwrap();
    let old = memory.keys();
    faulty.cut_off();
    recompress(&volume, &all);
    assert_all_read(&volume, &blocks);
    assert!(old.iter().all(|key| memory.keys().contains(key)), "nothing replaces them yet");
    faulty.reconnect();
    volume.store().archive(&all, soon(), &mut |_, _| ()).unwrap();
    volume.store().sweep().unwrap();
    let new = memory.keys();
    assert_eq!(new.len(), old.len());
    assert!(old.iter().all(|key| !new.contains(key)), "{old:?} {new:?}");
    let proof = BackupProof::of_blocks(all.iter().copied());
    volume.store().release(&all, &proof, soon()).unwrap();
    assert!(volume.store().residence(&all).iter().all(|r| *r == Residence::Cold));
    volume.close();
    volume.open();
    assert_all_read(&volume, &blocks);
    assert_hardest(&volume, &blocks);
    assert!(recompress(&volume, &all).absent > 0, "it is not in hot");
}

#[test]
fn a_crash_before_the_new_segment_has_its_name_leaves_nothing() {
    let mut volume = Volume::new();
    let blocks = fill(&volume);
    let files = volume.files(FileKind::Sealed);
    let inner = &volume.store().inner;
    let calls = AtomicUsize::new(0);
    let goes_on = || calls.fetch_add(1, Ordering::SeqCst) < 2;
    assert!(inner.table.claim(files[0].0));
    let outcome = inner.recode(files[0].0, Pace::Background(&goes_on)).unwrap();
    inner.table.unclaim(files[0].0);
    assert_eq!(outcome, Outcome::Paused);
    let staging = volume.config.hot_dir.join("tmp");
    assert_eq!(std::fs::read_dir(&staging).unwrap().count(), 1);
    assert_all_read(&volume, &blocks);
    volume.reopen_after_crash();
    assert_eq!(std::fs::read_dir(&staging).unwrap().count(), 0);
    assert_eq!(volume.files(FileKind::Sealed), files);
    assert_all_read(&volume, &blocks);
}

#[test]
fn interrupted_work_goes_on_where_it_was() {
    let volume = Volume::new();
    let blocks = fill(&volume);
    let id = volume.files(FileKind::Sealed)[0].0;
    let inner = &volume.store().inner;
    let used = inner.capacity.used_bytes();
    let mut done = 0;
    for most in [1, 1, usize::MAX] {
        let calls = AtomicUsize::new(0);
        let goes_on = || calls.fetch_add(1, Ordering::SeqCst) < most;
        assert!(inner.table.claim(id));
        let outcome = inner.recode(id, Pace::Background(&goes_on)).unwrap();
        inner.table.unclaim(id);
        assert_eq!(outcome == Outcome::Paused, most < usize::MAX, "{outcome:?}");
        if let Some(recoding) = &*inner.recoding.lock() {
            assert!(recoding.done > done, "it began again");
            done = recoding.done;
        }
    }
    assert!(done > 0);
    assert!(inner.recoding.lock().is_none());
    assert!(inner.capacity.used_bytes() < used, "what it took meanwhile is given back");
    assert_all_read(&volume, &blocks);
}

/// The old files and the new ones: what a crash leaves between the name of the new segment and
/// the end of the old.
#[test]
fn a_crash_before_the_old_segment_goes_leaves_two_copies_and_the_next_run_one() {
    for forget_catalog in [false, true] {
        let mut volume = Volume::new();
        let blocks = fill(&volume);
        volume.close();
        let files = volume.files(FileKind::Sealed);
        let old: Vec<_> =
            files.iter().map(|(_, path)| (path.clone(), std::fs::read(path).unwrap())).collect();
        volume.open();
        recompress(&volume, &ids(&blocks));
        volume.crash();
        for (path, bytes) in old {
            std::fs::write(path, bytes).unwrap();
        }
        if forget_catalog {
            volume.delete_catalog();
        }
        volume.open();
        volume.store().wait_caught_up(soon()).unwrap();
        assert_all_read(&volume, &blocks);
        assert_hardest(&volume, &blocks);
        assert_eq!(volume.files(FileKind::Sealed).len(), 2 * files.len());
        let inner = &volume.store().inner;
        for (id, _) in &files {
            assert!(inner.table.claim(*id));
            inner.recode(*id, Pace::Asked(soon())).unwrap();
            inner.table.unclaim(*id);
        }
        let left = volume.files(FileKind::Sealed);
        assert!(left.len() == files.len() && left.iter().all(|file| !files.contains(file)));
        assert_all_read(&volume, &blocks);
        assert_hardest(&volume, &blocks);
    }
}

#[test]
fn an_old_segment_stays_as_long_as_the_new_copy_cannot_be_read() {
    let mut volume = Volume::new();
    let blocks = fill(&volume);
    volume.close();
    let (id, path) = volume.files(FileKind::Sealed).remove(0);
    let old = std::fs::read(&path).unwrap();
    volume.open();
    recompress(&volume, &ids(&blocks));
    volume.crash();
    std::fs::write(&path, old).unwrap();
    for (_, path) in volume.files(FileKind::Sealed).iter().skip(1) {
        damage(path, 600, 3000);
    }
    volume.open();
    volume.store().wait_caught_up(soon()).unwrap();
    let inner = &volume.store().inner;
    assert!(inner.table.claim(id));
    inner.recode(id, Pace::Asked(soon())).unwrap();
    inner.table.unclaim(id);
    let (first, plain) = &blocks[0];
    assert_eq!(volume.read(first).unwrap(), plain);
}

#[test]
fn an_idle_store_does_it_by_itself_and_appends_come_first() {
    let volume = Volume::with(|config| {
        config.recompress_age = Duration::from_millis(50);
        config.recompress_idle = Duration::from_millis(50);
    });
    let blocks = fill(&volume);
    let segments = volume.files(FileKind::Sealed).len() as u64;
    eventually("all of it is encoded again", || {
        volume.store().health().recoded_segments >= segments
    });
    assert_hardest(&volume, &blocks);
    assert_all_read(&volume, &blocks);
    assert!(volume.store().health().recoded_saved_bytes > 0);
    let later = volume.append(&wave(9, BLOCK));
    assert!(volume.store().describe(later.id).unwrap().level < 19, "a writer does not wait for it");
}

#[test]
fn an_idle_store_compacts_into_the_smallest_form() {
    let volume = Volume::with(|config| {
        config.recompress_age = Duration::from_secs(3600);
        config.recompress_idle = Duration::from_millis(1);
    });
    let blocks = fill(&volume);
    eventually("idle", || volume.store().inner.is_idle());
    let (kept, dead): (Vec<_>, Vec<_>) =
        blocks.into_iter().enumerate().partition(|(index, _)| index % 3 == 1);
    let dead: Vec<_> = dead.into_iter().map(|(_, (block, _))| block.id).collect();
    let kept: Vec<_> = kept.into_iter().map(|(_, block)| block).collect();
    volume.namespace.dead.lock().extend(dead.iter().copied());
    volume.store().free(&dead);
    volume.store().sweep().unwrap();
    eventually("compacted", || volume.store().health().compacted_segments > 0);
    assert_hardest(&volume, &kept);
    assert_all_read(&volume, &kept);
}

#[test]
fn the_encoder_gives_way_to_everybody() {
    let policy = std::thread::spawn(|| {
        lower_priority();
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        (fields[16].to_owned(), fields[38].to_owned())
    });
    // Nice 19, SCHED_IDLE.
    assert_eq!(policy.join().unwrap(), ("19".to_owned(), "5".to_owned()));
}

/// On a machine that is busy otherwise a thread of the lowest priority may stand still for minutes.
#[test]
fn whoever_wants_a_segment_does_not_wait_for_the_block_that_is_encoded_in_the_background() {
    let volume = Volume::new();
    let blocks = fill(&volume);
    let id = volume.files(FileKind::Sealed)[0].0;
    let inner = &volume.store().inner;
    let (blocks_to, asked) = crossbeam_channel::bounded(1);
    let (told, frames) = crossbeam_channel::bounded(1);
    *inner.encoder.lock() = Some(Encoder::by_hand(blocks_to, frames));
    assert!(inner.table.claim(id));
    let used = inner.config.budget.used_bytes();
    std::thread::scope(|scope| {
        let recoder = scope.spawn(|| {
            let outcome = inner.recode(id, Pace::Background(&|| true));
            inner.table.unclaim(id);
            outcome.unwrap()
        });
        let block = asked.recv_timeout(Duration::from_secs(60)).unwrap();
        let wait = Wait::Until(inner.config.clock.instant() + Duration::from_secs(60));
        inner.claim_waiting(id, wait).unwrap();
        assert_eq!(recoder.join().unwrap(), Outcome::Paused);
        // Nothing else is begun meanwhile, and what it takes stays counted.
        assert_eq!(inner.recode(id, Pace::Background(&|| true)).unwrap(), Outcome::Paused);
        assert!(asked.try_recv().is_err());
        assert!(inner.config.budget.used_bytes() > used);
        told.send(read_frame(&block.name, &*block.file, &block.entry)).unwrap();
        assert_eq!(inner.recode(id, Pace::Background(&|| false)).unwrap(), Outcome::Paused);
        assert_eq!(inner.config.budget.used_bytes(), used);
        inner.table.unclaim(id);
    });
    assert_all_read(&volume, &blocks);
}

#[test]
fn an_encoder_whose_thread_is_gone_is_free_again() {
    let (blocks_to, _asked) = crossbeam_channel::bounded(1);
    let (told, frames) = crossbeam_channel::bounded(1);
    let mut encoder = Encoder::by_hand(blocks_to, frames);
    let budget = Budget::new(1000, Arc::new(ManualClock::new()));
    encoder.leave(budget.acquire(1000, Wait::No, "a block").unwrap());
    assert!(!encoder.is_free());
    drop(told);
    assert!(encoder.is_free());
    assert_eq!(budget.used_bytes(), 0);
}

/// Not by looking again and again while a clock that does not wait runs away.
#[test]
fn a_claim_is_waited_for_without_time_passing() {
    let clock = Arc::new(ManualClock::new());
    let volume = Volume::with(|config| config.clock = Arc::clone(&clock) as Arc<dyn Clock>);
    fill(&volume);
    let id = volume.files(FileKind::Sealed)[0].0;
    let inner = &volume.store().inner;
    assert!(inner.table.claim(id));
    let before = clock.instant();
    std::thread::scope(|scope| {
        let wait = Wait::Until(before + Duration::from_secs(3600));
        let waiting = scope.spawn(move || inner.claim_waiting(id, wait));
        eventually("somebody waits", || inner.table.is_wanted(id));
        inner.table.unclaim(id);
        waiting.join().unwrap().unwrap();
    });
    assert_eq!(clock.instant(), before);
    assert!(!inner.table.claim(id), "the other has it");
    assert!(!inner.table.is_wanted(id), "and waits no more");
}
