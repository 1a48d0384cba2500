//! What happens when the block store or the namespace fails.

use std::time::Duration;

use super::fake::{READ_WRITE, ROOT, World};
use crate::core::Core;
use crate::error::FsError;
use crate::namespace::{Batch, Dataset, Durability, NamespaceStore, Space, key};
use crate::types::{Fallocate, Ino};
use firn_tiering::{Clock, Error, Wait};

const MIB: usize = 1 << 20;

#[test]
fn data_that_could_not_be_written_back_is_kept_told_and_tried_again() {
    let world = World::new();
    let volume = world.volume();
    let a = world.create("a");
    let other = volume.open(&ROOT, a.0, READ_WRITE, world.wait()).unwrap();
    let data = vec![5; MIB + 100_000];
    world.blocks.fail_appends(Some(|| Error::NoSpace));
    world.write(a, 0, &data);
    assert!(matches!(volume.sync(), Err(FsError::NoSpace)));
    assert!(world.content("a") == data);
    assert!(matches!(volume.flush(a.0, a.1, world.wait()), Err(FsError::NoSpace)));
    // While there is no room every close tries again, also that of a file not yet tried.
    assert!(matches!(volume.flush(a.0, a.1, world.wait()), Err(FsError::NoSpace)));
    let late = world.create("late");
    world.write(late, 0, &data);
    assert!(matches!(volume.flush(late.0, late.1, Wait::No), Err(FsError::WouldWait)));
    assert!(matches!(volume.flush(late.0, late.1, world.wait()), Err(FsError::NoSpace)));
    assert!(matches!(volume.fsync(a.0, other, false, world.wait()), Err(FsError::NoSpace)));
    world.blocks.fail_appends(None);
    world.fsync(a).unwrap();
    volume.flush(late.0, late.1, world.wait()).unwrap();
    assert!(world.content("a") == data && world.content("late") == data);
    assert_eq!(volume.dirty_files(), 2, "still listed, though clean by now");
    volume.sync().unwrap();
    assert_eq!(volume.dirty_files(), 0);
}

#[test]
fn a_failed_sync_ends_all_writing_and_reading_goes_on() {
    let mut world = World::new();
    let a = world.create("a");
    world.write(a, 0, &vec![1; 200_000]);
    world.fsync(a).unwrap();
    world.write(a, 0, &vec![2; 200_000]);
    world.blocks.fail_sync(true);
    assert!(world.fsync(a).is_err());
    world.blocks.fail_sync(false);
    let volume = world.volume();
    let write = volume.write(&ROOT, a.0, a.1, 0, b"x", false, false, world.wait());
    assert!(matches!(write, Err(FsError::ReadOnly(_))));
    assert!(matches!(volume.mkdir(&ROOT, Ino::ROOT, b"d", 0o755, 0), Err(FsError::ReadOnly(_))));
    assert!(matches!(world.fsync(a), Err(FsError::ReadOnly(_))));
    assert!(volume.read_only_reason().is_some());
    assert!(world.content("a") == vec![2; 200_000]);
    world.lose_power();
    assert!(world.content("a") == vec![1; 200_000]);
    let a = world.open_file("a");
    world.write(a, 0, b"writes again");
}

#[test]
fn a_failed_namespace_commit_ends_all_writing() {
    let world = World::new();
    let a = world.create("a");
    world.write(a, 0, b"x");
    world.store.fail_after(0);
    assert!(world.fsync(a).is_err());
    let volume = world.volume();
    let write = volume.write(&ROOT, a.0, a.1, 0, b"x", false, false, world.wait());
    assert!(matches!(write, Err(FsError::ReadOnly(_))));
}

#[test]
fn damage_is_an_error_for_the_affected_bytes_only() {
    let world = World::new();
    let a = world.create("a");
    world.write(a, 0, &vec![1; MIB]);
    world.volume().sync().unwrap();
    world.blocks.damage_all();
    world.write(a, MIB as u64, &vec![2; MIB]);
    world.volume().sync().unwrap();
    let read = |at, len| world.volume().read(a.0, a.1, at, len, world.wait());
    assert!(matches!(read(0, 4096), Err(FsError::Io { .. })));
    assert!(matches!(read(MIB as u64 - 1, 2), Err(FsError::Io { .. })));
    assert_eq!(read(MIB as u64, 4096).unwrap(), vec![2; 4096]);
}

#[test]
fn writers_wait_for_memory_and_fail_at_the_deadline() {
    let world = World::with_budget(4 * MIB as u64);
    let volume = world.volume();
    let a = world.create("a");
    world.blocks.fail_appends(Some(|| Error::TimedOut("injected")));
    let chunk = vec![1; MIB / 2];
    let mut offset = 0;
    let refused = loop {
        match volume.write(&ROOT, a.0, a.1, offset, &chunk, false, false, Wait::No) {
            Ok(written) => offset += u64::from(written),
            Err(error) => break error,
        }
        assert!(offset <= 2 * MIB as u64);
    };
    assert!(matches!(refused, FsError::WouldWait));
    assert_eq!(volume.getattr(a.0).unwrap().size, offset, "nothing was changed");
    let now = Wait::Until(world.clock.instant());
    let late = volume.write(&ROOT, a.0, a.1, offset, &chunk, false, false, now);
    assert!(matches!(late, Err(FsError::Io { .. })), "{late:?}");
    world.blocks.fail_appends(None);
    world.clock.advance(Duration::from_secs(1));
    for _ in 0..20 {
        volume.write(&ROOT, a.0, a.1, offset, &chunk, false, false, world.wait()).unwrap();
        offset += chunk.len() as u64;
    }
    assert!(world.budget.peak_bytes() <= 4 * MIB as u64);
    assert!(world.content("a") == vec![1; offset as usize]);
}

#[test]
fn a_damaged_record_fails_its_own_file_and_no_other() {
    let world = World::new();
    let volume = world.volume();
    let (a, b) = (world.create("a"), world.create("b"));
    for file in [a, b] {
        world.write(file, 0, &[1; 300_000]);
    }
    volume.sync().unwrap();
    let mut damage = Batch::new();
    let slot = key::head_numbered(Dataset::ROOT, a.0, key::Kind::Extent, 0);
    damage.put(Space::Head, &slot, b"damaged".to_vec());
    world.store.commit(damage, Durability::Buffered).unwrap();
    for file in [a, b] {
        world.write(file, 100, &[2; 300_000]);
    }
    assert!(matches!(volume.sync(), Err(FsError::Io { .. })));
    assert_eq!(volume.read_only_reason(), None);
    assert!(matches!(volume.flush(a.0, a.1, world.wait()), Err(FsError::Io { .. })));
    volume.flush(b.0, b.1, world.wait()).unwrap();
    assert!(!volume.file(b.0).unwrap().state.read().is_dirty());
    assert!(world.content("b")[100..] == [2; 300_000]);
}

#[test]
fn what_was_cleared_away_of_a_file_before_a_damaged_record_is_freed_at_once() {
    let mut world = World::new();
    let file = world.create("large");
    // More than one batch clears away.
    for slot in 0..700 {
        world.write(file, slot * MIB as u64, &[slot as u8; 9000]);
    }
    // Afterwards nothing but the namespace knows the blocks.
    world.remount();
    let volume = world.volume();
    let before = world.blocks.len();
    let mut damage = Batch::new();
    let slot = key::head_numbered(Dataset::ROOT, file.0, key::Kind::Extent, 650);
    damage.put(Space::Head, &slot, b"damaged".to_vec());
    world.store.commit(damage, Durability::Buffered).unwrap();
    volume.unlink(Ino::ROOT, b"large").unwrap();
    volume.purger.finish();
    volume.files.free_unreferenced().unwrap();
    assert_eq!(volume.read_only_reason(), None);
    let after = world.blocks.len();
    assert!(0 < after && after <= before / 2, "{after} of {before} blocks are left");
}

#[test]
fn preallocating_all_there_is_stays_cheap() {
    let world = World::new();
    let a = world.create("a");
    let whole = i64::MAX as u64 / MIB as u64 / 2 * MIB as u64;
    let zero = Fallocate::ZeroRange { keep_size: true };
    world.volume().fallocate(&ROOT, a.0, a.1, 0, whole, zero, world.wait()).unwrap();
    world.volume().sync().unwrap();
    let attr = world.volume().getattr(a.0).unwrap();
    assert_eq!((attr.size, attr.blocks * 512), (0, 64 << 30));
    let too_much = Fallocate::Allocate { keep_size: true };
    let refused = world.volume().fallocate(&ROOT, a.0, a.1, 0, whole, too_much, world.wait());
    assert!(matches!(refused, Err(FsError::NoSpace)));
    // What is allocated already takes no more.
    world.volume().fallocate(&ROOT, a.0, a.1, 0, 64 << 30, too_much, world.wait()).unwrap();
}
