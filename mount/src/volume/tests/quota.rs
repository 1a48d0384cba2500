//! What a quota lets through, and what it does not.

use firn_tiering::Wait;

use super::fake::{READ_WRITE, ROOT, World};
use crate::core::Core;
use crate::error::{FsError, FsResult};
use crate::file::SLOT_LEN;
use crate::namespace::{Dataset, Setting};
use crate::types::{Fallocate, Handle, Ino, SetAttr};

const MIB: u64 = SLOT_LEN;

/// A volume with a dataset that may use 4 MiB.
struct Scene {
    world: World,
    dataset: Dataset,
    root: Ino,
}

impl Scene {
    fn new() -> Self {
        let world = World::new();
        let (dataset, _) =
            world.volume().create_dataset(&ROOT, Ino::ROOT, b"ds", 0o755, &[]).unwrap();
        let root = world.volume().lookup(Ino::ROOT, b"ds").unwrap().ino;
        set_quota(&world, dataset, 4 * MIB);
        Self { world, dataset, root }
    }

    fn create(&self, name: &str) -> FsResult<(Ino, Handle)> {
        let volume = self.world.volume();
        let made = volume.create(&ROOT, self.root, name.as_bytes(), 0o644, 0, READ_WRITE)?;
        Ok((made.0.ino, made.1))
    }

    fn write(&self, file: (Ino, Handle), offset: u64, len: u64) -> FsResult<u32> {
        self.write_as(file, offset, len, false, self.world.wait())
    }

    fn write_as(
        &self,
        file: (Ino, Handle),
        offset: u64,
        len: u64,
        from_cache: bool,
        wait: Wait,
    ) -> FsResult<u32> {
        let data = vec![7; len as usize];
        let volume = self.world.volume();
        volume.write(&ROOT, file.0, file.1, offset, &data, from_cache, false, wait)
    }

    fn free(&self) -> u64 {
        let stats = self.world.volume().statfs(self.root).unwrap();
        assert_eq!(stats.total_bytes, 4 * MIB);
        stats.free_bytes
    }

    fn remove(&self, name: &str, (ino, handle): (Ino, Handle)) {
        let volume = self.world.volume();
        volume.unlink(self.root, name.as_bytes()).unwrap();
        volume.release(ino, handle);
        volume.forget(ino, 1);
    }

    fn snapshot(&self, name: &str) {
        self.world.volume().snapshot(&[self.dataset], name, "").unwrap();
    }
}

fn set_quota(world: &World, dataset: Dataset, bytes: u64) {
    world.volume().names().set(dataset, &[Setting::Quota(Some(bytes))]).unwrap();
}

fn is_over<T>(outcome: &FsResult<T>) -> bool {
    matches!(outcome, Err(FsError::QuotaExceeded))
}

#[test]
fn what_exceeds_a_quota_is_refused_before_anything_changes() {
    let scene = Scene::new();
    let a = scene.create("a").unwrap();
    scene.write(a, 0, 3 * MIB).unwrap();
    assert_eq!(scene.free(), MIB, "what is not committed counts");
    let (none, wait) = (Wait::No, scene.world.wait());
    assert!(matches!(scene.write_as(a, 3 * MIB, 2 * MIB, false, none), Err(FsError::WouldWait)));
    assert!(is_over(&scene.write_as(a, 3 * MIB, 2 * MIB, false, wait)));
    assert_eq!(scene.world.volume().getattr(a.0).unwrap().size, 3 * MIB);
    scene.write(a, 3 * MIB, MIB).unwrap();
    assert!(is_over(&scene.write(a, 4 * MIB, 1)));
    scene.world.volume().sync().unwrap();
    assert_eq!(scene.free(), 0);
    assert!(is_over(&scene.create("b")));
    assert!(is_over(&scene.world.volume().mkdir(&ROOT, scene.root, b"d", 0o755, 0)));
    // Elsewhere there is room, and more to see.
    let other = scene.world.create("other");
    scene.world.write(other, 0, &vec![1; 5 << 20]);
    assert_eq!(scene.world.volume().statfs(Ino::ROOT).unwrap().total_bytes, 1 << 40);
}

#[test]
fn what_was_written_over_and_over_counts_once_it_is_committed() {
    let scene = Scene::new();
    let a = scene.create("a").unwrap();
    scene.write(a, 0, 3 * MIB).unwrap();
    // In place, as often as one likes, as long as no snapshot keeps what was there.
    for _ in 0..3 {
        scene.world.volume().sync().unwrap();
        scene.write(a, 0, 3 * MIB).unwrap();
    }
    scene.write(a, 3 * MIB, MIB).unwrap();
    scene.write(a, MIB, MIB).unwrap();
    scene.snapshot("s");
    assert!(is_over(&scene.write(a, MIB, MIB)));
}

#[test]
fn cached_writes_beyond_a_quota_are_told_at_fsync_and_close() {
    let scene = Scene::new();
    let a = scene.create("a").unwrap();
    let (volume, wait) = (scene.world.volume(), scene.world.wait());
    assert_eq!(scene.write_as(a, 0, 4 * MIB, true, wait).unwrap() as u64, 4 * MIB);
    volume.flush(a.0, a.1, wait).unwrap();
    let other = volume.open(&ROOT, a.0, READ_WRITE, wait).unwrap();
    assert_eq!(scene.write_as(a, 4 * MIB, MIB, true, wait).unwrap() as u64, MIB);
    assert!(is_over(&volume.fsync(a.0, a.1, false, wait)));
    assert!(is_over(&volume.flush(a.0, other, wait)), "each descriptor is told");
    volume.fsync(a.0, a.1, false, wait).unwrap();
    assert_eq!(volume.getattr(a.0).unwrap().size, 4 * MIB);
    scene.write_as(a, MIB, MIB, true, wait).unwrap();
    volume.fsync(a.0, a.1, false, wait).unwrap();
}

#[test]
fn removing_always_works_and_makes_room_unless_a_snapshot_keeps_it() {
    let scene = Scene::new();
    let volume = scene.world.volume();
    let (a, b) = (scene.create("a").unwrap(), scene.create("b").unwrap());
    scene.write(a, 0, 2 * MIB).unwrap();
    scene.write(b, 0, 2 * MIB).unwrap();
    volume.sync().unwrap();
    assert!(is_over(&scene.create("c")));
    scene.remove("a", a);
    // What is cleared away in the background is waited for.
    scene.write(b, 2 * MIB, 2 * MIB).unwrap();
    let shorter = SetAttr { size: Some(MIB), ..SetAttr::default() };
    volume.setattr(&ROOT, b.0, &shorter, scene.world.wait()).unwrap();
    scene.write(b, MIB, MIB).unwrap();
    scene.snapshot("s");
    scene.remove("b", b);
    let c = scene.create("c").unwrap();
    scene.write(c, 0, 2 * MIB).unwrap();
    assert!(is_over(&scene.write(c, 2 * MIB, 1)), "the snapshot holds the other half");
    let _ = volume.destroy_snapshots(&[(scene.dataset, "s")], false).unwrap();
    volume.sweeper.rest();
    scene.write(c, 2 * MIB, 2 * MIB).unwrap();
    assert!(is_over(&scene.write(c, 4 * MIB, 1)));
}

#[test]
fn allocating_and_sharing_count_and_datasets_below_do() {
    let scene = Scene::new();
    let (volume, wait) = (scene.world.volume(), scene.world.wait());
    let (below, _) = volume.create_dataset(&ROOT, scene.root, b"below", 0o755, &[]).unwrap();
    let a = scene.create("a").unwrap();
    let allocate = |offset, len| {
        let what = Fallocate::Allocate { keep_size: false };
        volume.fallocate(&ROOT, a.0, a.1, offset, len, what, wait)
    };
    allocate(0, 2 * MIB).unwrap();
    assert!(is_over(&allocate(0, 5 * MIB)));
    allocate(0, 2 * MIB).unwrap();
    volume.fallocate(&ROOT, a.0, a.1, 0, 2 * MIB, Fallocate::PunchHole, wait).unwrap();
    scene.write(a, 0, MIB).unwrap();
    let root = volume.lookup(scene.root, b"below").unwrap().ino;
    assert_eq!(volume.statfs(root).unwrap().total_bytes, 4 * MIB);
    let made = volume.create(&ROOT, root, b"b", 0o644, 0, READ_WRITE).unwrap();
    let b = (made.0.ino, made.1);
    scene.write(b, 0, 2 * MIB).unwrap();
    assert!(is_over(&scene.write(a, MIB, 2 * MIB)));
    let copy = |len| volume.copy_file_range(&ROOT, (b.0, b.1, 0), (a.0, a.1, MIB), len, wait);
    assert!(is_over(&copy(2 * MIB)));
    assert_eq!(copy(MIB).unwrap(), MIB);
    // The narrowest quota holds.
    set_quota(&scene.world, below, 3 * MIB);
    set_quota(&scene.world, scene.dataset, 100 * MIB);
    let stats = volume.statfs(root).unwrap();
    assert_eq!((stats.total_bytes, stats.free_bytes), (3 * MIB, MIB));
    assert!(is_over(&scene.write(b, 2 * MIB, 2 * MIB)));
}
