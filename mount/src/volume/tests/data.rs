//! What programs see of content.

use super::fake::{READ_WRITE, ROOT, World};
use crate::core::Core;
use crate::error::FsError;
use crate::types::{
    Caller, Fallocate, Ino, OpenMode, RenameMode, Seek, SetAttr, SetTime, XattrMode,
};
use firn_tiering::Wait;

const MIB: u64 = 1 << 20;

#[test]
fn what_was_written_reads_back_before_and_after_a_flush_and_a_remount() {
    let mut world = World::new();
    let file = world.create("a");
    let data: Vec<u8> = (0..3 * MIB + 77).map(|n| ((n * 31) >> 3) as u8).collect();
    for (n, chunk) in data.chunks(100_000).enumerate() {
        world.write(file, n as u64 * 100_000, chunk);
    }
    assert!(world.content("a") == data);
    world.volume().sync().unwrap();
    assert!(world.content("a") == data);
    assert_eq!(world.volume().getattr(file.0).unwrap().size, data.len() as u64);
    world.remount();
    assert!(world.content("a") == data);
    let full = world.blocks.append_lens().iter().filter(|len| **len as u64 == MIB).count();
    assert_eq!(full, 3, "full slots become full blocks");
}

#[test]
fn small_files_share_blocks() {
    let world = World::new();
    for n in 0..100 {
        let file = world.create(&format!("f{n}"));
        world.write(file, 0, &[n as u8; 1000]);
        world.volume().release(file.0, file.1);
    }
    world.volume().sync().unwrap();
    assert_eq!(world.blocks.append_lens(), [100_000]);
    for n in 0..100 {
        assert_eq!(world.content(&format!("f{n}")), vec![n as u8; 1000]);
    }
}

#[test]
fn holes_and_data_are_found_to_the_byte() {
    let world = World::new();
    let file = world.create("a");
    let seek = |at, what| world.volume().lseek(file.0, file.1, at, what);
    world.write(file, 5000, b"abc");
    world.write(file, 3 * MIB, b"x");
    for _ in 0..2 {
        assert_eq!(seek(0, Seek::Data).unwrap(), 5000);
        assert_eq!(seek(5000, Seek::Hole).unwrap(), 5003);
        assert_eq!(seek(5003, Seek::Data).unwrap(), 3 * MIB);
        assert_eq!(seek(3 * MIB, Seek::Hole).unwrap(), 3 * MIB + 1);
        assert!(matches!(seek(3 * MIB + 1, Seek::Hole), Err(FsError::NoOffset)));
        world.volume().sync().unwrap();
    }
}

#[test]
fn blocks_that_nothing_refers_to_are_freed_and_shared_ones_are_not() {
    let world = World::new();
    let volume = world.volume();
    let a = world.create("a");
    let b = world.create("b");
    world.write(a, 0, &vec![1; MIB as usize]);
    volume.sync().unwrap();
    let copied = volume.copy_file_range(&ROOT, (a.0, a.1, 0), (b.0, b.1, 0), MIB, world.wait());
    assert_eq!(copied.unwrap(), MIB);
    volume.sync().unwrap();
    assert_eq!(world.blocks.len(), 1, "copied by reference");
    world.write(a, 0, &vec![2; MIB as usize]);
    volume.sync().unwrap();
    volume.files.free_unreferenced().unwrap();
    assert_eq!(world.blocks.len(), 2);
    volume.unlink(Ino::ROOT, b"b").unwrap();
    volume.release(b.0, b.1);
    volume.forget(b.0, 1);
    volume.purger.finish();
    volume.files.free_unreferenced().unwrap();
    assert_eq!(world.blocks.len(), 1);
    assert!(world.content("a") == vec![2; MIB as usize]);
}

#[test]
fn copying_within_a_file_must_not_overlap() {
    let world = World::new();
    let a = world.create("a");
    world.write(a, 0, &[1; 100]);
    let copy = |from, to, len| {
        world.volume().copy_file_range(&ROOT, (a.0, a.1, from), (a.0, a.1, to), len, world.wait())
    };
    assert!(matches!(copy(0, 50, 60), Err(FsError::Invalid(_))));
    assert_eq!(copy(0, 50, 50).unwrap(), 50);
    assert_eq!(copy(0, 1000, 500).unwrap(), 100, "ends with the source");
    assert_eq!(copy(5000, 0, 500).unwrap(), 0);
}

#[test]
fn appended_bytes_go_to_the_end() {
    let world = World::new();
    let a = world.create("a");
    let mode = OpenMode { append: true, ..READ_WRITE };
    let appender = world.volume().open(&ROOT, a.0, mode, world.wait()).unwrap();
    world.write(a, 0, b"one");
    world.write((a.0, appender), 0, b"two");
    assert_eq!(world.content("a"), b"onetwo");
}

#[test]
fn lengths_beyond_the_limit_are_refused() {
    let world = World::new();
    let a = world.create("a");
    let max = crate::file::MAX_FILE_LEN;
    let write = |at| world.volume().write(&ROOT, a.0, a.1, at, b"xy", false, false, world.wait());
    assert!(matches!(write(max - 1), Err(FsError::TooLarge)));
    assert!(matches!(write(u64::MAX), Err(FsError::TooLarge)));
    assert_eq!(write(max - 2).unwrap(), 2);
    let grow = |size| {
        let changes = SetAttr { size: Some(size), ..SetAttr::default() };
        world.volume().setattr(&ROOT, a.0, &changes, world.wait())
    };
    assert!(matches!(grow(max + 1), Err(FsError::TooLarge)));
    assert_eq!(grow(max).unwrap().size, max);
    world.volume().sync().unwrap();
    assert_eq!(world.volume().lseek(a.0, a.1, 0, Seek::Data).unwrap(), max - 2);
    assert_eq!(grow(0).unwrap().blocks, 0);
    world.volume().sync().unwrap();
    assert_eq!(world.volume().getattr(a.0).unwrap().blocks, 0);
}

#[test]
fn a_terabyte_is_preallocated_and_dropped_in_bounded_batches() {
    let world = World::new();
    let a = world.create("a");
    let allocate = |len| {
        let what = Fallocate::Allocate { keep_size: false };
        world.volume().fallocate(&ROOT, a.0, a.1, 0, len, what, world.wait())
    };
    assert!(matches!(allocate(1 << 41), Err(FsError::NoSpace)));
    allocate(5 << 30).unwrap();
    world.volume().sync().unwrap();
    let attr = world.volume().getattr(a.0).unwrap();
    assert_eq!((attr.size, attr.blocks * 512), (5 << 30, 5 << 30));
    let changes = SetAttr { size: Some(10), ..SetAttr::default() };
    world.volume().setattr(&ROOT, a.0, &changes, world.wait()).unwrap();
    world.volume().sync().unwrap();
    assert_eq!(world.volume().getattr(a.0).unwrap().blocks, 1);
}

#[test]
fn writes_by_others_clear_setuid_and_capabilities() {
    let world = World::new();
    let a = world.create("a");
    let volume = world.volume();
    let set_mode = || {
        let changes = SetAttr { perm: Some(0o6755), ..SetAttr::default() };
        volume.setattr(&ROOT, a.0, &changes, world.wait()).unwrap();
        let name = b"security.capability";
        volume.setxattr(&ROOT, a.0, name, b"cap", XattrMode::Set).unwrap();
    };
    let perm = || volume.getattr(a.0).unwrap().perm;
    let capable = || volume.getxattr(a.0, b"security.capability").is_ok();
    set_mode();
    world.write(a, 0, b"x");
    assert_eq!((perm(), capable()), (0o6755, false), "root keeps the bits");
    let someone = Caller { uid: 7, gid: 7, pid: 0 };
    set_mode();
    volume.write(&someone, a.0, a.1, 0, b"y", false, true, world.wait()).unwrap();
    assert_eq!((perm(), capable()), (0o755, false));
    set_mode();
    let changes = SetAttr { size: Some(0), ..SetAttr::default() };
    volume.setattr(&someone, a.0, &changes, world.wait()).unwrap();
    assert_eq!((perm(), capable()), (0o755, false));
}

#[test]
fn times_follow_writes_unless_the_kernel_keeps_them() {
    let world = World::new();
    let volume = world.volume();
    let a = world.create("a");
    let made = volume.getattr(a.0).unwrap();
    world.clock.advance(std::time::Duration::from_secs(5));
    volume.write(&ROOT, a.0, a.1, 0, b"x", true, false, world.wait()).unwrap();
    assert_eq!(volume.getattr(a.0).unwrap().mtime, made.mtime, "the kernel sends its own");
    world.write(a, 0, b"x");
    let written = volume.getattr(a.0).unwrap();
    assert!(written.mtime > made.mtime && written.ctime == written.mtime);
    let old = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    let changes = SetAttr {
        mtime: Some(SetTime::At(old)),
        atime: Some(SetTime::At(old)),
        ..SetAttr::default()
    };
    volume.setattr(&ROOT, a.0, &changes, world.wait()).unwrap();
    for _ in 0..2 {
        let attr = volume.getattr(a.0).unwrap();
        assert_eq!((attr.mtime, attr.atime), (old, old));
        volume.sync().unwrap();
    }
}

#[test]
fn a_removed_file_lives_until_its_last_user_goes() {
    let mut world = World::new();
    let a = world.create("a");
    world.write(a, 0, b"still here");
    world.volume().unlink(Ino::ROOT, b"a").unwrap();
    assert_eq!(world.read(a, 0, 100), b"still here"[..]);
    assert_eq!(world.volume().getattr(a.0).unwrap().nlink, 0);
    world.volume().sync().unwrap();
    world.volume().release(a.0, a.1);
    assert_eq!(world.volume().getattr(a.0).unwrap().size, 10, "the kernel still knows it");
    world.volume().forget(a.0, 1);
    world.volume().purger.finish();
    assert!(matches!(world.volume().getattr(a.0), Err(FsError::Stale)));
    assert_eq!(world.volume().table.len(), 0);

    world.remount();
    let b = world.create("b");
    world.write(b, 0, b"x");
    world.volume().unlink(Ino::ROOT, b"b").unwrap();
    world.crash();
    world.volume().purger.finish();
    assert!(matches!(world.volume().getattr(b.0), Err(FsError::Stale)), "purged by the next open");
}

#[test]
fn a_file_that_nobody_uses_leaves_memory_when_it_is_clean() {
    let world = World::new();
    let a = world.create("a");
    world.write(a, 0, &[1; 1000]);
    world.volume().release(a.0, a.1);
    world.volume().forget(a.0, 1);
    assert_eq!(world.volume().table.len(), 1, "dirty");
    world.volume().sync().unwrap();
    world.volume().table.evict_clean();
    assert_eq!(world.volume().table.len(), 0);
    assert_eq!(world.budget.used_bytes(), 0);
    assert_eq!(world.content("a"), [1; 1000]);
}

#[test]
fn calls_that_would_wait_say_so_and_change_nothing() {
    let world = World::new();
    let volume = world.volume();
    let a = world.create("a");
    let b = world.create("b");
    world.write(a, 0, &vec![1; 300_000]);
    let fsync = volume.fsync(a.0, a.1, false, Wait::No);
    assert!(matches!(fsync, Err(FsError::WouldWait)));
    let rename = volume.rename(Ino::ROOT, b"a", Ino::ROOT, b"b", RenameMode::Replace, Wait::No);
    assert!(matches!(rename, Err(FsError::WouldWait)));
    assert_eq!(volume.lookup(Ino::ROOT, b"a").unwrap().ino, a.0);
    let copy = volume.copy_file_range(&ROOT, (a.0, a.1, 0), (b.0, b.1, 0), 300_000, Wait::No);
    assert!(matches!(copy, Err(FsError::WouldWait)));
    assert_eq!(volume.getattr(b.0).unwrap().size, 0);
    volume.sync().unwrap();
    world.blocks.set_cold(true);
    assert!(matches!(volume.read(a.0, a.1, 0, 10, Wait::No), Err(FsError::WouldWait)));
    assert_eq!(world.read(a, 0, 10), [1; 10][..]);
}

#[test]
fn virtual_attributes_are_shown_but_not_listed() {
    let world = World::new();
    let volume = world.volume();
    let a = world.create("a");
    world.write(a, 0, b"x");
    assert_eq!(volume.getxattr(a.0, b"user.firn.state").unwrap(), b"dirty");
    volume.sync().unwrap();
    assert_eq!(volume.getxattr(a.0, b"user.firn.state").unwrap(), b"resident");
    assert_eq!(volume.getxattr(a.0, b"user.firn.resident_pct").unwrap(), b"100");
    assert!(volume.listxattr(a.0).unwrap().is_empty());
    let set = volume.setxattr(&ROOT, a.0, b"user.firn.state", b"cold", XattrMode::Set);
    assert!(matches!(set, Err(FsError::NotSupported(_))));
}
