//! Moves as jobs: how far they are, ending them, and several at once.

use std::sync::Arc;
use std::time::Duration;

use crate::block::{BlockId, BlockRef};
use crate::blocks::Blocks;
use crate::error::Error;
use crate::store::testing::{Volume, eventually, noise, soon};
use crate::store::{BackupProof, Cancel, Job, JobProgress, Residence};
use crate::tier::{Fault, Faulty, Memory, Op, Tier};

/// Four fill a segment.
const BLOCK: usize = 60_000;

fn volume() -> (Volume, Arc<Faulty>, Vec<BlockRef>) {
    let faulty = Arc::new(Faulty::new(Arc::new(Memory::new())));
    let volume = Volume::with_cold(Arc::clone(&faulty) as Arc<dyn Tier>);
    let blocks: Vec<_> = (0..16).map(|seed| volume.append(&noise(seed, BLOCK))).collect();
    (volume, faulty, blocks)
}

fn ids(blocks: &[BlockRef]) -> Vec<BlockId> {
    blocks.iter().map(|block| block.id).collect()
}

fn job<'a>(cancel: &Cancel, progress: &'a mut dyn FnMut(JobProgress)) -> Job<'a> {
    Job { wait: soon(), cancel: cancel.clone(), progress }
}

fn places(volume: &Volume, blocks: &[BlockRef], place: Residence) -> usize {
    volume.store().residence(&ids(blocks)).iter().filter(|p| **p == place).count()
}

#[test]
fn progress_ends_with_all_segments_and_all_bytes() {
    let (volume, _, blocks) = volume();
    let (all, never) = (ids(&blocks), Cancel::default());
    let proof = BackupProof::of_blocks(all.iter().copied());
    let mut seen = Vec::new();
    let store = volume.store();
    store.archive_job(&all, job(&never, &mut |at| seen.push(at))).unwrap();
    let archived = *seen.last().unwrap();
    assert_eq!((archived.done, archived.total), (4, 4));
    assert!(archived.done_bytes == archived.total_bytes && archived.total_bytes > 16 * 60_000);
    seen.clear();
    store.release_job(&all, &proof, job(&never, &mut |at| seen.push(at))).unwrap();
    assert_eq!(seen.iter().map(|at| at.done).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(seen.windows(2).all(|two| two[0].done_bytes < two[1].done_bytes));
    let released = *seen.last().unwrap();
    assert_eq!(released.done_bytes, released.total_bytes);
    seen.clear();
    store.stage_job(&all, job(&never, &mut |at| seen.push(at))).unwrap();
    assert_eq!(seen.last(), Some(&released), "as much comes back");
    assert_eq!(places(&volume, &blocks, Residence::Dual), 16);
}

#[test]
fn a_cancelled_job_ends_between_two_segments_and_may_be_run_again() {
    let (volume, _, blocks) = volume();
    let (all, never) = (ids(&blocks), Cancel::default());
    let proof = BackupProof::of_blocks(all.iter().copied());
    let store = volume.store();
    store.archive_job(&all, job(&never, &mut |_| ())).unwrap();
    let cancel = Cancel::default();
    let mut after_two = |at: JobProgress| {
        if at.done == 2 {
            cancel.cancel();
        }
    };
    let ended = store.release_job(&all, &proof, job(&cancel, &mut after_two));
    assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
    assert_eq!(places(&volume, &blocks, Residence::Cold), 8);
    store.release_job(&all, &proof, job(&never, &mut |_| ())).unwrap();
    assert_eq!(places(&volume, &blocks, Residence::Cold), 16);
    let ended = store.stage_job(&all, job(&cancel, &mut |_| ()));
    assert!(matches!(ended, Err(Error::Cancelled)), "cancelled before it began");
    assert_eq!(places(&volume, &blocks, Residence::Cold), 16);
}

#[test]
fn a_cancelled_archive_takes_back_what_has_not_begun_unless_others_want_it() {
    let (volume, faulty, blocks) = volume();
    volume.seal();
    let inner = &volume.store().inner;
    inner.rotate_now();
    inner.wait_sealed(&inner.unsealed_ids(), soon()).unwrap();
    faulty.cut_off();
    let (cancel, never) = (Cancel::default(), Cancel::default());
    let all = ids(&blocks);
    let segment = volume.store().describe(all[0]).unwrap().segment;
    std::thread::scope(|scope| {
        let (store, others) = (volume.store(), &all[..4]);
        let ends = scope.spawn(|| store.archive_job(&all, job(&cancel, &mut |_| ())));
        let stays = scope.spawn(|| {
            loop {
                // Told that the tier fails, it asks again.
                match store.archive_job(others, job(&never, &mut |_| ())) {
                    Err(Error::Cold { .. }) => {}
                    other => return other,
                }
            }
        });
        eventually("both wait", || inner.wanted.lock().segments.values().any(|by| *by == 2));
        cancel.cancel();
        let ended = ends.join().unwrap();
        assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
        assert_eq!(inner.wanted.lock().segments.len(), 1, "the others' segment");
        // One that had begun would be finished.
        let begun = || !inner.table.ids(|s| s.busy && s.record.id != segment).is_empty();
        eventually("none has begun", || !begun());
        faulty.reconnect();
        assert_eq!(stays.join().unwrap().unwrap().segments, 1);
    });
    assert_eq!(places(&volume, &blocks, Residence::Dual), 4);
    assert_eq!(inner.wanted.lock().segments.len(), 0);
}

#[test]
fn copying_ahead_leaves_open_segments_to_fill_up() {
    let (volume, _, blocks) = volume();
    let inner = &volume.store().inner;
    eventually("full ones are sealed", || !inner.is_sealing());
    let open = places(&volume, &blocks, Residence::Open);
    assert!(open > 0);
    let done = volume.store().copy_ahead(&ids(&blocks), job(&Cancel::default(), &mut |_| ()));
    assert_eq!(done.unwrap().open, open);
    assert_eq!(places(&volume, &blocks, Residence::Dual), 16 - open);
    assert_eq!(places(&volume, &blocks, Residence::Open), open);
}

#[test]
fn jobs_on_the_same_blocks_run_at_once() {
    let (volume, faulty, blocks) = volume();
    let all = ids(&blocks);
    let proof = BackupProof::of_blocks(all.iter().copied());
    let (store, never) = (volume.store(), Cancel::default());
    for _ in 0..3 {
        for _ in 0..4 {
            faulty.fail_next(Some(Op::GetRange), "", Fault::Delay(Duration::from_millis(20)));
        }
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| store.archive_job(&all, job(&never, &mut |_| ())).unwrap());
                scope.spawn(|| {
                    store.release_job(&all, &proof, job(&never, &mut |_| ())).unwrap();
                    store.stage_job(&all, job(&never, &mut |_| ())).unwrap();
                });
            }
            for (seed, block) in blocks.iter().enumerate() {
                assert_eq!(volume.read(block).unwrap(), noise(seed as u64, BLOCK));
            }
        });
    }
    store.stage_job(&all, job(&never, &mut |_| ())).unwrap();
    assert_eq!(places(&volume, &blocks, Residence::Dual), 16);
    for (seed, block) in blocks.iter().enumerate() {
        assert_eq!(
            volume.store().read(block, 0..block.len, soon()).unwrap(),
            noise(seed as u64, BLOCK)
        );
    }
}
