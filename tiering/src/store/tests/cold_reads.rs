//! Reads from the cold tier, counted in requests: one for a small read, few for a sequential
//! reader, none twice, and right bytes or a named error in time whatever the store does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::block::{BlockId, BlockRef};
use crate::blocks::{Blocks, Intent, Served, Source, Wait};
use crate::clock::{Clock, SystemClock};
use crate::error::Error;
use crate::readahead::ReadAhead;
use crate::store::testing::{Volume, eventually, noise, soon, text};
use crate::store::{BackupProof, Residence};
use crate::tier::{FailureKind, Fault, Faulty, Jitter, Memory, Op, Patience, Retry, Tier};

const MIB: usize = 1 << 20;

/// A volume of segments of 4 MiB, and what happens to its cold tier.
fn volume() -> (Volume, Arc<Faulty>) {
    volume_over(|faulty| faulty)
}

fn volume_over(wrap: impl FnOnce(Arc<dyn Tier>) -> Arc<dyn Tier>) -> (Volume, Arc<Faulty>) {
    let faulty = Arc::new(Faulty::new(Arc::new(Memory::new())));
    let tier = wrap(Arc::clone(&faulty) as Arc<dyn Tier>);
    let volume = Volume::with(|config| {
        config.cold = Some(tier);
        config.copy_ahead = false;
        config.segment_bytes = 4 << 20;
    });
    (volume, faulty)
}

/// Blocks that lie in cold only, opened again so that nothing is in memory.
fn frozen(volume: &mut Volume, count: u64, len: usize) -> Vec<(BlockRef, Vec<u8>)> {
    let plain = |seed| if seed % 4 == 3 { text(seed, len) } else { noise(seed, len) };
    freeze(volume, (0..count).map(plain).collect())
}

fn freeze(volume: &mut Volume, plains: Vec<Vec<u8>>) -> Vec<(BlockRef, Vec<u8>)> {
    let blocks: Vec<_> = plains.into_iter().map(|plain| (volume.append(&plain), plain)).collect();
    let ids = ids(&blocks);
    volume.store().archive(&ids, soon(), &mut |_, _| ()).unwrap();
    let proof = BackupProof::of_blocks(ids.iter().copied());
    assert_eq!(volume.store().release(&ids, &proof, soon()).unwrap().refused, []);
    volume.close();
    volume.open();
    blocks
}

fn ids(blocks: &[(BlockRef, Vec<u8>)]) -> Vec<BlockId> {
    blocks.iter().map(|(block, _)| block.id).collect()
}

fn requests(volume: &Volume) -> u64 {
    volume.store().health().cold_requests
}

fn read_part(volume: &Volume, block: &BlockRef, at: u32, len: u32) -> Served {
    volume.store().read_for(block, at..at + len, Intent::Part, soon()).unwrap()
}

/// Reads blocks as a file's reader does, saying each time what comes next.
fn read_on(volume: &Volume, blocks: &[(BlockRef, Vec<u8>)], reader: &mut ReadAhead) {
    let mut told = 1;
    for (index, (block, plain)) in blocks.iter().enumerate() {
        told = told.max(index + 1);
        let ahead: u64 = blocks[index + 1..told].iter().map(|(b, _)| u64::from(b.len)).sum();
        volume.store().will_read(reader, ahead, &mut || {
            let (block, _) = blocks.get(told)?;
            told += 1;
            Some(*block)
        });
        let served = volume.store().read_for(block, 0..block.len, Intent::Part, soon()).unwrap();
        assert_eq!(served.bytes, plain, "block {index}");
        assert_eq!(served.source, Source::Cold);
        reader.waited();
    }
}

#[test]
fn each_small_read_here_and_there_is_one_request() {
    let (mut volume, _) = volume();
    let blocks = frozen(&mut volume, 12, MIB);
    for round in 0..2 {
        let before = requests(&volume);
        let mut chance = Jitter::seeded(7);
        let mut cells = std::collections::HashSet::new();
        while cells.len() < 100 {
            let (index, page) = (chance.next_u64() as usize % 12, chance.next_u64() as usize % 256);
            if !cells.insert((index, page / 16)) {
                continue;
            }
            let (block, plain) = &blocks[index];
            let served = read_part(&volume, block, page as u32 * 4096, 4096);
            assert_eq!(served.bytes, plain[page * 4096..(page + 1) * 4096]);
            assert_eq!(served.source, Source::Cold);
        }
        assert_eq!(requests(&volume) - before, 100, "round {round}");
        // Directly after the volume was opened, too: what is needed to find a block is local.
        volume.close();
        volume.open();
    }
}

#[test]
fn small_files_of_one_block_are_one_request_each_in_any_order_and_fewer_in_order() {
    let (mut volume, _) = volume();
    let blocks = freeze(&mut volume, (0..8).map(|seed| noise(seed, MIB)).collect());
    let files = |index: usize| {
        let (block, plain) = &blocks[index / 16];
        let at = (index % 16) * 65_536 + 100;
        (block, at, &plain[at..at + 3000])
    };
    let read = |volume: &Volume, index: usize| {
        let (block, at, plain) = files(index);
        let range = at as u32..at as u32 + 3000;
        let served = volume.store().read_for(block, range, Intent::SmallFile, soon()).unwrap();
        assert_eq!(served.bytes, plain);
    };
    let before = requests(&volume);
    // A walk that visits each once and never goes on where it was.
    (0..128).for_each(|step| read(&volume, step * 37 % 128));
    assert_eq!(requests(&volume) - before, 128);
    volume.close();
    volume.open();
    let before = requests(&volume);
    (0..128).for_each(|index| read(&volume, index));
    let count = requests(&volume) - before;
    assert!(count < 24, "{count} requests for 128 files side by side");
}

#[test]
fn who_says_what_comes_finds_it_fetched_across_segments() {
    let (mut volume, faulty) = volume();
    let blocks = frozen(&mut volume, 24, MIB);
    let before = faulty.calls(Op::GetRange);
    read_on(&volume, &blocks, &mut ReadAhead::default());
    let count = faulty.calls(Op::GetRange) - before;
    // The first ones are small; and a segment's end ends a request.
    assert!(count <= 20, "{count} requests for 24 blocks");
}

#[test]
fn a_reader_who_was_told_of_needs_no_wait() {
    let (mut volume, _) = volume();
    let blocks = frozen(&mut volume, 8, MIB);
    let mut next: VecDeque<BlockRef> = blocks.iter().map(|(block, _)| *block).collect();
    let mut reader = ReadAhead::default();
    while !next.is_empty() {
        volume.store().will_read(&mut reader, 0, &mut || next.pop_front());
    }
    let before = requests(&volume);
    for (block, plain) in &blocks {
        eventually("it was fetched ahead", || {
            match volume.store().read_for(block, 0..block.len, Intent::Part, Wait::No) {
                Ok(served) => served.bytes == *plain && served.source == Source::Cold,
                Err(error) => {
                    assert!(matches!(error, Error::WouldWait), "{error}");
                    false
                }
            }
        });
    }
    assert_eq!(requests(&volume), before);
}

#[test]
fn what_lies_in_hot_is_not_fetched_ahead() {
    let (mut volume, faulty) = volume();
    let blocks = frozen(&mut volume, 4, MIB);
    volume.store().stage(&ids(&blocks), soon(), &mut |_, _| ()).unwrap();
    let before = faulty.calls(Op::GetRange);
    let mut next: VecDeque<BlockRef> = blocks.iter().map(|(block, _)| *block).collect();
    volume.store().will_read(&mut ReadAhead::default(), 0, &mut || next.pop_front());
    assert_eq!(faulty.calls(Op::GetRange), before);
    assert!(next.is_empty(), "all were looked at");
}

#[test]
fn readers_of_one_block_share_its_request() {
    let (mut volume, faulty) = volume();
    let blocks = frozen(&mut volume, 2, MIB);
    let (block, plain) = &blocks[1];
    faulty.fail_next(Some(Op::GetRange), "segments/", Fault::Delay(Duration::from_millis(300)));
    let before = faulty.calls(Op::GetRange);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let served = read_part(&volume, block, 0, block.len);
                assert_eq!(served.bytes, plain);
            });
        }
    });
    assert_eq!(faulty.calls(Op::GetRange) - before, 1);
}

/// A segment whose first block is in cold only, while the others keep its hot file.
fn with_a_hole(volume: &mut Volume) -> (BlockRef, Vec<u8>) {
    let blocks: Vec<_> =
        (0..3).map(|seed| (volume.append(&noise(seed, MIB)), noise(seed, MIB))).collect();
    volume.store().archive(&ids(&blocks), soon(), &mut |_, _| ()).unwrap();
    let (block, plain) = blocks[0].clone();
    let proof = BackupProof::of_blocks([block.id]);
    assert_eq!(volume.store().release(&[block.id], &proof, soon()).unwrap().refused, []);
    assert_eq!(volume.store().residence(&[block.id]), [Residence::Cold]);
    (block, plain)
}

#[test]
fn a_reader_joins_what_is_being_staged() {
    let (mut volume, faulty) = volume();
    let (block, plain) = with_a_hole(&mut volume);
    let before = faulty.calls(Op::GetRange);
    faulty.fail_next(Some(Op::GetRange), "segments/", Fault::Delay(Duration::from_millis(100)));
    let volume = &volume;
    std::thread::scope(|scope| {
        let staging =
            scope.spawn(|| volume.store().stage(&[block.id], soon(), &mut |_, _| ()).unwrap());
        eventually("the request is under way", || faulty.calls(Op::GetRange) > before);
        assert_eq!(read_part(volume, &block, 500_000, 5000).bytes, plain[500_000..505_000]);
        assert_eq!(staging.join().unwrap().blocks, 1);
    });
    assert_eq!(faulty.calls(Op::GetRange) - before, 1);
    assert_eq!(volume.store().residence(&[block.id]), [Residence::Dual]);
}

/// What is brought back may have to wait for its turn, which a reader need not.
#[test]
fn a_reader_that_waits_long_for_what_is_being_staged_asks_itself() {
    let (mut volume, faulty) = volume();
    let (block, plain) = with_a_hole(&mut volume);
    let before = faulty.calls(Op::GetRange);
    faulty.fail_next(Some(Op::GetRange), "segments/", Fault::Delay(Duration::from_secs(5)));
    let volume = &volume;
    std::thread::scope(|scope| {
        let staging = scope.spawn(|| volume.store().stage(&[block.id], soon(), &mut |_, _| ()));
        eventually("the request is under way", || faulty.calls(Op::GetRange) > before);
        assert_eq!(read_part(volume, &block, 500_000, 5000).bytes, plain[500_000..505_000]);
        assert!(!staging.is_finished());
        staging.join().unwrap().unwrap();
    });
    assert_eq!(faulty.calls(Op::GetRange) - before, 2);
}

#[test]
fn staging_joins_what_is_being_read() {
    let (mut volume, faulty) = volume();
    let (block, plain) = with_a_hole(&mut volume);
    let before = faulty.calls(Op::GetRange);
    faulty.fail_next(Some(Op::GetRange), "segments/", Fault::Delay(Duration::from_millis(300)));
    let volume = &volume;
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| read_part(volume, &block, 0, block.len).bytes);
        eventually("the request is under way", || faulty.calls(Op::GetRange) > before);
        volume.store().stage(&[block.id], soon(), &mut |_, _| ()).unwrap();
        assert_eq!(reading.join().unwrap(), plain);
    });
    assert_eq!(faulty.calls(Op::GetRange) - before, 1, "it stays a little for such as come late");
}

#[test]
fn staging_tells_its_bytes_and_takes_few_requests() {
    let (mut volume, faulty) = volume();
    let blocks = frozen(&mut volume, 24, MIB);
    let before = faulty.calls(Op::GetRange);
    let mut told = Vec::new();
    let moved = volume
        .store()
        .stage(&ids(&blocks), soon(), &mut |done, all| told.push((done, all)))
        .unwrap();
    assert_eq!(moved.blocks, 24);
    let (_, total) = told[0];
    assert_eq!(total, moved.bytes);
    assert!(told.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[1].1 == total));
    assert_eq!(told.last(), Some(&(total, total)));
    let segments = volume.store().usage().segments;
    let count = faulty.calls(Op::GetRange) - before;
    assert!(count <= 5 * segments, "{count} requests for {segments} segments");
    // There is nothing left to do, and that is said, too.
    let again = volume.store().stage(&ids(&blocks), soon(), &mut |_, all| assert_eq!(all, 0));
    assert_eq!(again.unwrap().blocks, 0);
}

const TROUBLE: [Fault; 6] = [
    Fault::Error(FailureKind::Unavailable),
    Fault::Error(FailureKind::BadBody),
    Fault::Truncate,
    Fault::TimeOutBefore,
    Fault::TimeOutAfter,
    Fault::Delay(Duration::from_millis(20)),
];

#[test]
fn reading_on_through_trouble_gives_right_bytes() {
    for seed in 0..3 {
        let patience = Patience { attempts: 12, deadline: Duration::from_secs(60) };
        let mut inner = None;
        let (mut volume, _) = volume_over(|tier| {
            let faulty = Arc::new(Faulty::seeded(tier, seed, 0, &[]));
            inner = Some(Arc::clone(&faulty));
            Arc::new(Retry::with_jitter(faulty, patience, Jitter::seeded(seed)))
        });
        let blocks = frozen(&mut volume, 12, MIB);
        inner.unwrap().reseed(seed, 300, &TROUBLE);
        read_on(&volume, &blocks, &mut ReadAhead::default());
        volume.store().stage(&ids(&blocks), soon(), &mut |_, _| ()).unwrap();
        for (block, plain) in &blocks {
            assert_eq!(volume.read(block).unwrap(), plain);
        }
    }
}

#[test]
fn wrong_bytes_never_come_out() {
    let (mut volume, faulty) = volume();
    let blocks = frozen(&mut volume, 12, MIB);
    faulty.reseed(3, 300, &[Fault::Corrupt, Fault::Truncate]);
    let mut right = 0;
    let mut reader = ReadAhead::default();
    for (index, (block, plain)) in blocks.iter().enumerate() {
        let mut next = blocks[index + 1..].iter().map(|(block, _)| *block);
        volume.store().will_read(&mut reader, 0, &mut || next.next());
        match volume.store().read_for(block, 0..block.len, Intent::Part, soon()) {
            Ok(served) => {
                assert_eq!(served.bytes, plain);
                right += 1;
            }
            Err(error) => assert!(
                matches!(error, Error::Lost { .. } | Error::Cold { .. } | Error::Damaged { .. }),
                "{error}"
            ),
        }
    }
    assert!(right >= 6, "{right} of 12: what arrived damaged is asked for again");
    faulty.reconnect();
    for (block, plain) in &blocks {
        assert_eq!(volume.read(block).unwrap(), plain);
    }
}

#[test]
fn a_request_ahead_that_never_ends_costs_its_reader_the_deadline_and_nobody_else() {
    let (mut volume, faulty) = volume();
    let blocks = frozen(&mut volume, 4, MIB);
    faulty.fail_next(Some(Op::GetRange), "segments/", Fault::Hang);
    let mut next = blocks.iter().map(|(block, _)| *block).take(1);
    volume.store().will_read(&mut ReadAhead::default(), 0, &mut || next.next());
    let (block, plain) = &blocks[0];
    let short = Wait::Until(SystemClock.instant() + Duration::from_millis(100));
    let late = volume.store().read_for(block, 0..block.len, Intent::Part, short).unwrap_err();
    assert!(matches!(late, Error::TimedOut(_)), "{late}");
    assert_eq!(read_part(&volume, block, 0, block.len).bytes, plain, "the next reader asks again");
}

#[test]
fn a_failure_of_what_was_fetched_ahead_is_not_its_readers() {
    let (mut volume, faulty) = volume();
    let blocks = frozen(&mut volume, 1, MIB);
    let (block, plain) = &blocks[0];
    let unavailable = Fault::Error(FailureKind::Unavailable);
    faulty.fail_next(Some(Op::GetRange), "segments/", unavailable);
    let before = faulty.calls(Op::GetRange);
    volume.store().will_read(&mut ReadAhead::default(), 0, &mut {
        let mut next = Some(*block);
        move || next.take()
    });
    assert_eq!(read_part(&volume, block, 0, block.len).bytes, plain);
    assert_eq!(faulty.calls(Op::GetRange) - before, 2);
}

#[test]
fn what_is_fetched_ahead_stays_within_its_bound_and_gives_way() {
    let (mut volume, _) = volume();
    volume.config.prefetch_bytes = 4 << 20;
    let blocks = frozen(&mut volume, 24, MIB);
    let used = volume.config.budget.used_bytes();
    let mut next = blocks.iter().map(|(block, _)| *block);
    let mut reader = ReadAhead::default();
    for _ in 0..24 {
        volume.store().will_read(&mut reader, 0, &mut || next.next());
        let ahead = volume.config.budget.used_bytes() - used;
        assert!(ahead <= 8 << 20, "{ahead} bytes are held");
    }
    let free = volume.config.budget.total_bytes() - used;
    let all = volume.config.budget.acquire(free, soon(), "waiting in a test");
    drop(all.unwrap());
    for (block, plain) in &blocks {
        assert_eq!(volume.read(block).unwrap(), plain);
    }
}

#[test]
fn upkeep_asks_the_cold_tier_for_nothing_however_long_it_may_wait() {
    let (mut volume, _) = volume();
    let blocks = frozen(&mut volume, 4, MIB);
    let before = requests(&volume);
    for (block, _) in &blocks {
        for wait in [Wait::No, soon()] {
            let read = volume.store().read_for(block, 0..block.len, Intent::Upkeep, wait);
            assert!(matches!(read, Err(Error::WouldWait)), "{read:?}");
        }
    }
    assert_eq!(requests(&volume), before);
}
