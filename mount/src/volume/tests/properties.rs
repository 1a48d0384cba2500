//! Properties of datasets in use: what each has programs meet.

use std::sync::Arc;
use std::time::Duration;

use firn_tiering::Clock;
use firn_tiering::encode::Compression;
use firn_tiering::segment::ParityPlace;

use super::super::ParityChoice;
use super::fake::{READ_WRITE, ROOT, World};
use crate::core::Core;
use crate::error::{FsError, FsResult};
use crate::namespace::{Dataset, Property, Setting};
use crate::types::{Fallocate, Handle, Ino, OpenMode, RenameMode, SetAttr, SetTime, XattrMode};

impl World {
    fn set(&self, dataset: Dataset, setting: Setting) {
        let _ = self.volume().set_properties(dataset, &[setting]).unwrap();
    }

    fn make_dataset(&self, name: &str) -> (Dataset, Ino) {
        let name = name.as_bytes();
        let made = self.volume().create_dataset(&ROOT, Ino::ROOT, name, 0o755, &[]);
        (made.unwrap().0, self.volume().lookup(Ino::ROOT, name).unwrap().ino)
    }

    fn create_in(&self, dir: Ino, name: &str) -> (Ino, Handle) {
        let made = self.volume().create(&ROOT, dir, name.as_bytes(), 0o644, 0, READ_WRITE);
        let (attr, handle) = made.unwrap();
        (attr.ino, handle)
    }

    fn write_some(&self, (ino, handle): (Ino, Handle), data: &[u8]) -> FsResult<u32> {
        self.volume().write(&ROOT, ino, handle, 0, data, true, false, self.wait())
    }
}

fn is_refused<T: std::fmt::Debug>(outcome: FsResult<T>) {
    match outcome {
        Err(FsError::ReadOnlyDataset) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_changes_in_a_read_only_dataset_whatever_is_open() {
    let mut world = World::new();
    let (dataset, dir) = world.make_dataset("d");
    let file = world.create_in(dir, "f");
    world.volume().mkdir(&ROOT, dir, b"sub", 0o755, 0).unwrap();
    let other = world.create("other");
    let orphan = world.create_in(dir, "orphan");
    world.write(file, 0, b"written before");
    world.write(orphan, 0, &vec![7; 300 << 10]);
    world.volume().unlink(dir, b"orphan").unwrap();
    world.set(dataset, Setting::ReadOnly(true));
    assert_eq!(world.volume().dirty_files(), 0, "what was written before is in");
    let (volume, wait) = (world.volume(), world.wait());
    let ((ino, handle), replace) = (file, RenameMode::Replace);
    is_refused(world.write_some(file, b"late"));
    is_refused(world.write_some(file, b""));
    is_refused(volume.mknod(&ROOT, dir, b"x", libc_file(), 0, 0));
    is_refused(volume.create(&ROOT, dir, b"x", 0o644, 0, READ_WRITE));
    is_refused(volume.mkdir(&ROOT, dir, b"x", 0o755, 0));
    is_refused(volume.symlink(&ROOT, dir, b"x", b"y"));
    is_refused(volume.unlink(dir, b"f"));
    is_refused(volume.rmdir(dir, b"sub"));
    is_refused(volume.rename(dir, b"f", dir, b"g", replace, wait));
    is_refused(volume.rename(dir, b"f", Ino::ROOT, b"g", replace, wait));
    is_refused(volume.rename(Ino::ROOT, b"other", dir, b"g", replace, wait));
    is_refused(volume.link(ino, dir, b"g"));
    is_refused(volume.open(&ROOT, ino, READ_WRITE, wait));
    let cut = OpenMode { truncate: true, ..OpenMode::default() };
    is_refused(volume.open(&ROOT, ino, cut, wait));
    for changes in [
        SetAttr { perm: Some(0o600), ..SetAttr::default() },
        SetAttr { size: Some(1), ..SetAttr::default() },
        SetAttr { mtime: Some(SetTime::Now), ..SetAttr::default() },
    ] {
        is_refused(volume.setattr(&ROOT, ino, &changes, wait));
    }
    is_refused(volume.setxattr(&ROOT, ino, b"user.x", b"1", XattrMode::Set));
    is_refused(volume.removexattr(&ROOT, ino, b"user.x"));
    is_refused(volume.fallocate(&ROOT, ino, handle, 0, 5, Fallocate::PunchHole, wait));
    let from = (other.0, other.1, 0);
    world.write(other, 0, b"elsewhere");
    is_refused(volume.copy_file_range(&ROOT, from, (ino, handle, 0), 9, wait));
    is_refused(volume.copy_file_range(&ROOT, from, (ino, handle, 0), 0, wait));
    world.fsync(file).unwrap();
    assert_eq!(&world.read(file, 0, 99)[..], b"written before");
    // A snapshot changes no file; nor does clearing away what has no name any more.
    let _ = volume.snapshot(&[dataset], "s", "").unwrap();
    let _ = volume.destroy_snapshots(&[(dataset, "s")], false).unwrap();
    volume.release(orphan.0, orphan.1);
    volume.forget(orphan.0, 1);
    world.remount();
    assert!(world.volume().names().orphans(None, 9).unwrap().is_empty());
    let dir = world.volume().lookup(Ino::ROOT, b"d").unwrap().ino;
    is_refused(world.volume().mkdir(&ROOT, dir, b"x", 0o755, 0));
    let _ = world.volume().inherit_property(&[dataset], Property::ReadOnly).unwrap();
    world.volume().mkdir(&ROOT, dir, b"x", 0o755, 0).unwrap();
    assert_eq!(world.content("other"), b"elsewhere");
}

/// `S_IFREG` with permissions.
fn libc_file() -> u32 {
    0o100_644
}

#[test]
fn a_dataset_in_a_read_only_one_is_neither_made_nor_moved_nor_destroyed() {
    let world = World::new();
    let (dataset, _) = world.make_dataset("d");
    world.set(Dataset::ROOT, Setting::ReadOnly(true));
    world.set(dataset, Setting::ReadOnly(false));
    let volume = world.volume();
    assert!(volume.create_dataset(&ROOT, Ino::ROOT, b"x", 0o755, &[]).is_err());
    assert!(volume.rename_dataset(dataset, Ino::ROOT, b"x").is_err());
    assert!(volume.destroy_datasets(&[dataset], false).is_err());
    world.set(Dataset::ROOT, Setting::ReadOnly(false));
    let _ = volume.rename_dataset(dataset, Ino::ROOT, b"x").unwrap();
    let _ = volume.destroy_datasets(&[dataset], false).unwrap();
}

#[test]
fn opening_for_reading_changes_the_access_time_where_it_is_kept_and_worth_it() {
    let mut world = World::new();
    let file = world.create("f");
    world.write(file, 0, b"content");
    world.fsync(file).unwrap();
    let atime = |world: &World| world.volume().getattr(file.0).unwrap().atime;
    let made = atime(&world);
    let read = |world: &World| {
        world.clock.advance(Duration::from_secs(60));
        world.content("f");
        atime(world)
    };
    assert_eq!(read(&world), made);
    world.set(Dataset::ROOT, Setting::AccessTime(true));
    let first = read(&world);
    assert_eq!(first, world.clock.now());
    assert_eq!(read(&world), first, "once is enough");
    world.clock.advance(Duration::from_secs(24 * 3600));
    let later = read(&world);
    assert_eq!(later, world.clock.now());
    // Reading is no change of the file, and does not last longer than it has to.
    let attr = world.volume().getattr(file.0).unwrap();
    assert!(attr.mtime < later && attr.ctime < later);
    world.volume().sync().unwrap();
    world.lose_power();
    assert_eq!(world.volume().getattr(file.0).unwrap().atime, later);
    world.clock.advance(Duration::from_secs(48 * 3600));
    world.set(Dataset::ROOT, Setting::ReadOnly(true));
    assert_eq!(read(&world), later);
    assert_eq!(world.volume().dirty_files(), 0);
}

#[test]
fn each_dataset_compresses_as_was_asked_from_then_on_and_shares_no_block() {
    let world = World::new();
    let (lz4, plain) = (world.make_dataset("lz4"), world.make_dataset("off"));
    world.set(lz4.0, Setting::Compression(Compression::LZ4));
    world.set(plain.0, Setting::Compression(Compression::OFF));
    let small = [world.create_in(lz4.1, "a"), world.create_in(plain.1, "a"), world.create("a")];
    for file in small {
        world.write(file, 0, &[1; 100_000]);
    }
    world.volume().sync().unwrap();
    let mut asked = world.blocks.asked();
    asked.sort();
    assert_eq!(asked, [Compression::AUTO, Compression::OFF, Compression::LZ4]);
    assert_eq!(world.blocks.append_lens(), [100_000; 3]);
    // What was written before a change is compressed as before, what comes later as after.
    let large = world.create_in(lz4.1, "large");
    world.write(large, 0, &vec![2; 300_000]);
    let nine = Compression::zstd(9).unwrap();
    world.set(lz4.0, Setting::Compression(nine));
    world.write(large, 0, &vec![3; 300_000]);
    world.volume().sync().unwrap();
    assert_eq!(world.blocks.asked()[3..], [Compression::LZ4, nine]);
}

/// Says of each file what it was told.
#[derive(Default)]
struct Chosen(parking_lot::Mutex<std::collections::HashMap<Ino, ParityPlace>>);

impl ParityChoice for Chosen {
    fn parity(&self, ino: Ino, size: u64) -> ParityPlace {
        assert!(size >= 100_000, "the length is the one that programs see");
        self.0.lock().get(&ino).copied().unwrap_or_default()
    }
}

#[test]
fn parity_lies_where_it_is_chosen_at_that_moment_and_files_with_other_places_share_no_block() {
    let mut world = World::new();
    let chosen = Arc::new(Chosen::default());
    world.choose_parity(Arc::clone(&chosen) as Arc<dyn ParityChoice>);
    let files = ["a", "b", "c", "d"].map(|name| world.create(name));
    chosen.0.lock().insert(files[1].0, ParityPlace::Object);
    chosen.0.lock().insert(files[3].0, ParityPlace::Stores);
    for file in files {
        world.write(file, 0, &[1; 100_000]);
    }
    world.volume().sync().unwrap();
    let mut parity = world.blocks.parity();
    parity.sort();
    // The two whose parity lies inside share one.
    assert_eq!(parity, [ParityPlace::Inside, ParityPlace::Object, ParityPlace::Stores]);
    chosen.0.lock().insert(files[0].0, ParityPlace::Object);
    world.write(files[0], 0, &vec![2; 3 << 20]);
    world.volume().sync().unwrap();
    assert_eq!(world.blocks.parity()[3..], [ParityPlace::Object; 3]);
}
