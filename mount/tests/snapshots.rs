//! Ring 4: a volume on a real mount while its snapshots come, go and are rolled back to. What is
//! tested is that the kernel remembers nothing that is not so any more.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::print_stderr, reason = "tests that cannot run say so")]

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use firn_mount::FsResult;
use firn_mount::fuse::{self, MountError, MountOptions, MountedSession};
use firn_mount::namespace::{Dataset, MemoryStore, Namespace, NamespaceOptions, NewRoot};
use firn_mount::types::{Caller, Forget, Ino};
use firn_mount::volume::{FileSettings, Placement, Space, Storage, Volume, VolumeParts};
use firn_tiering::encode::EncodeMemory;
use firn_tiering::{
    BlockDigest, BlockId, BlockRef, Blocks, Budget, Epoch, Error, Intent, ReadAhead, Result,
    Served, Source, SystemClock, Wait,
};
use rustix::io::Errno;
use tempfile::TempDir;

/// Blocks and room in memory.
#[derive(Debug, Default)]
struct Stored {
    blocks: Mutex<HashMap<BlockId, Bytes>>,
    next: std::sync::atomic::AtomicU64,
}

impl Blocks for Stored {
    fn append(&self, plain: &[u8], _: &mut EncodeMemory, _: Wait) -> Result<BlockRef> {
        let number = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        let id = BlockId::new(Epoch(1), number).unwrap();
        self.blocks.lock().unwrap().insert(id, Bytes::copy_from_slice(plain));
        Ok(BlockRef { id, digest: BlockDigest::of(plain), len: plain.len() as u32 })
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn read(&self, block: &BlockRef, range: Range<u32>, _: Wait) -> Result<Bytes> {
        let found = self.blocks.lock().unwrap().get(&block.id).cloned();
        let lost = || Error::Lost { id: block.id, reason: "freed".into() };
        Ok(found.ok_or_else(lost)?.slice(range.start as usize..range.end as usize))
    }

    fn read_for(
        &self,
        block: &BlockRef,
        range: Range<u32>,
        _: Intent,
        wait: Wait,
    ) -> Result<Served> {
        Ok(Served { bytes: self.read(block, range, wait)?, source: Source::Hot })
    }

    fn will_read(&self, _: &mut ReadAhead, _: u64, _: &mut dyn FnMut() -> Option<BlockRef>) {}

    fn export(&self, block: &BlockRef, wait: Wait) -> Result<Bytes> {
        self.read(block, 0..block.len, wait)
    }

    fn import(&self, stored: &[u8], wait: Wait) -> Result<BlockRef> {
        self.append(stored, &mut EncodeMemory::default(), wait)
    }

    fn free(&self, blocks: &[BlockId]) {
        let mut stored = self.blocks.lock().unwrap();
        blocks.iter().for_each(|id| drop(stored.remove(id)));
    }
}

impl Storage for Stored {
    fn space(&self) -> FsResult<Space> {
        Ok(Space { total_bytes: 1 << 40, free_bytes: 1 << 40 })
    }

    fn placements(&self, blocks: &[BlockId]) -> FsResult<Vec<Placement>> {
        Ok(vec![Placement { hot: true, cold: false }; blocks.len()])
    }
}

/// A volume that is mounted until dropped.
struct Mounted {
    volume: Arc<Volume>,
    session: Option<MountedSession>,
    dir: TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Mounted {
    /// Nothing, and a loud word about it, where the kernel has no FUSE.
    fn new() -> Option<Self> {
        if !Path::new("/dev/fuse").exists() {
            eprintln!(
                "SKIPPED: /dev/fuse is absent, so NOTHING of snapshots on a mount was tested"
            );
            return None;
        }
        let clock = Arc::new(SystemClock);
        let store = Arc::new(MemoryStore::new());
        let root = NewRoot { uid: 0, gid: 0, perm: 0o755 };
        Namespace::create(&*store, &*clock, root, [7; 32]).unwrap();
        let options = NamespaceOptions::default();
        let names = Arc::new(Namespace::open(store, clock.clone(), options).unwrap());
        let stored = Arc::new(Stored::default());
        let volume = Volume::open(VolumeParts {
            names,
            blocks: Arc::clone(&stored) as Arc<dyn Blocks>,
            storage: stored,
            clock: clock.clone(),
            budget: Budget::new(256 << 20, clock),
            settings: FileSettings::default(),
            observer: None,
            parity: None,
            thaw: None,
        });
        let volume = Arc::new(volume.unwrap());
        let dir = tempfile::tempdir().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let options = MountOptions::new("snapshots");
        let handle = runtime.handle().clone();
        let session = fuse::mount(Arc::clone(&volume), dir.path(), &options, handle).unwrap();
        Some(Self { volume, session: Some(session), dir, _runtime: runtime })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What the daemon does around each of these calls.
    fn around(&self, call: impl FnOnce(&Volume) -> Forget) {
        let kernel = self.session.as_ref().unwrap().kernel_cache();
        kernel.drain_all().unwrap();
        let forget = call(&self.volume);
        kernel.forget(&*self.volume, &forget).unwrap();
    }

    fn snapshot(&self, dataset: Dataset, name: &str) {
        self.around(|volume| volume.snapshot(&[dataset], name, "").unwrap().forget);
    }

    fn destroy(&self, dataset: Dataset, name: &str) {
        self.around(|volume| volume.destroy_snapshots(&[(dataset, name)], false).unwrap());
    }

    fn rollback(&self, dataset: Dataset, name: &str) {
        self.around(|volume| volume.rollback(dataset, name, true).unwrap());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        if std::thread::panicking() {
            return;
        }
        let unmounter = session.unmounter();
        for _ in 0..1000 {
            if !matches!(unmounter.unmount(), Err(MountError::Busy(_))) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        session.join().unwrap();
        self.volume.close().unwrap();
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn errno<T>(outcome: std::io::Result<T>) -> Option<Errno> {
    outcome.err().and_then(|error| Errno::from_io_error(&error))
}

#[test]
fn a_snapshot_has_what_the_kernel_had_not_written_yet() {
    let Some(mounted) = Mounted::new() else { return };
    let path = mounted.path("a");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"in the page cache").unwrap();
    let seen = mounted.path(".firn/snapshot/s/a");
    // Remembered as missing.
    assert_eq!(errno(fs::read(&seen)), Some(Errno::NOENT));
    assert!(names(&mounted.path(".firn/snapshot")).is_empty());
    mounted.snapshot(Dataset::ROOT, "s");
    file.write_all(b", and more").unwrap();
    assert_eq!(fs::read(&seen).unwrap(), b"in the page cache");
    assert_eq!(fs::read(&path).unwrap(), b"in the page cache, and more");
    assert_eq!(names(&mounted.path(".firn/snapshot")), ["s"]);
    assert_eq!(names(&mounted.path(".firn")), ["snapshot"]);
    assert_eq!(names(mounted.dir.path()), ["a"]);
    let inode = |path: &str| fs::metadata(mounted.path(path)).unwrap().ino();
    let paths = ["", "a", ".firn", ".firn/snapshot", ".firn/snapshot/s", ".firn/snapshot/s/a"];
    let unique: std::collections::BTreeSet<u64> = paths.into_iter().map(inode).collect();
    assert_eq!(unique.len(), paths.len());
    let above = fs::metadata(mounted.path(".firn/snapshot/s/..")).unwrap().ino();
    assert_eq!(above, inode(".firn/snapshot"));
    for change in [
        errno(OpenOptions::new().write(true).open(&seen)),
        errno(File::create(mounted.path(".firn/snapshot/s/new"))),
        errno(fs::create_dir(mounted.path(".firn/snapshot/new"))),
        errno(fs::remove_file(&seen)),
        errno(fs::remove_dir(mounted.path(".firn/snapshot/s"))),
        errno(fs::rename(&seen, mounted.path(".firn/snapshot/s/b"))),
    ] {
        assert_eq!(change, Some(Errno::ROFS));
    }
    assert_eq!(errno(fs::remove_dir(mounted.path(".firn"))), Some(Errno::PERM));
    let held = File::open(&seen).unwrap();
    let mut bytes = Vec::new();
    (&held).read_to_end(&mut bytes).unwrap();
    mounted.destroy(Dataset::ROOT, "s");
    assert_eq!(errno(fs::read(&seen)), Some(Errno::NOENT));
    assert!(names(&mounted.path(".firn/snapshot")).is_empty());
    assert_eq!(errno(held.read_at(&mut [0; 4], 0)), Some(Errno::STALE));
}

/// Everything that the kernel may keep of what is about to be abandoned, asked for before and
/// after.
fn roll_back_in_use(mounted: &Mounted, dataset: Dataset, top: &Path) {
    let path = |name: &str| top.join(name);
    fs::write(path("a"), b"then").unwrap();
    fs::write(path("gone"), b"comes back").unwrap();
    std::os::unix::fs::symlink("then", path("link")).unwrap();
    fs::create_dir(path("d")).unwrap();
    fs::write(path("d/deep"), b"deep then").unwrap();
    mounted.snapshot(dataset, "s");
    fs::write(path("a"), b"the future, which is longer").unwrap();
    fs::remove_file(path("gone")).unwrap();
    assert!(!path("gone").exists());
    fs::remove_file(path("link")).unwrap();
    std::os::unix::fs::symlink("future", path("link")).unwrap();
    fs::write(path("d/deep"), b"deep in the future").unwrap();
    fs::write(path("new"), b"new").unwrap();
    // Pages, attributes, entries and listings are remembered.
    assert_eq!(fs::read(path("a")).unwrap(), b"the future, which is longer");
    assert_eq!(fs::read_link(path("link")).unwrap(), Path::new("future"));
    names(top);
    names(&path("d"));
    let old = OpenOptions::new().read(true).write(true).open(path("a")).unwrap();
    let deep = File::open(path("d/deep")).unwrap();
    let old_dir = File::open(path("d")).unwrap();
    old.write_at(b"THE", 0).unwrap();
    mounted.rollback(dataset, "s");
    assert_eq!(fs::read(path("a")).unwrap(), b"then");
    assert_eq!(fs::metadata(path("a")).unwrap().len(), 4);
    assert_eq!(fs::read(path("gone")).unwrap(), b"comes back");
    assert_eq!(fs::read_link(path("link")).unwrap(), Path::new("then"));
    assert_eq!(fs::read(path("d/deep")).unwrap(), b"deep then");
    assert_eq!(errno(fs::metadata(path("new"))), Some(Errno::NOENT));
    assert_eq!(names(top), ["a", "d", "gone", "link"]);
    assert_eq!(names(&path("d")), ["deep"]);
    // No page of the future is left, and nothing late arrives.
    assert_eq!(errno(old.read_at(&mut [0; 4], 0)), Some(Errno::STALE));
    assert_eq!(errno(deep.read_at(&mut [0; 4], 0)), Some(Errno::STALE));
    assert_eq!(errno(old.metadata()), Some(Errno::STALE));
    let below =
        rustix::fs::openat(&old_dir, "deep", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty());
    assert_eq!(below.err(), Some(Errno::STALE));
    let late = old.write_at(b"late", 0).and_then(|_| old.sync_all());
    assert!(late.is_err());
    drop((old, deep, old_dir));
    assert_eq!(fs::read(path("a")).unwrap(), b"then");
    fs::write(path("a"), b"a new future").unwrap();
    assert_eq!(fs::read(path("a")).unwrap(), b"a new future");
}

#[test]
fn nothing_of_the_future_stays_after_a_rollback_of_the_root() {
    let Some(mounted) = Mounted::new() else { return };
    roll_back_in_use(&mounted, Dataset::ROOT, &mounted.path(""));
    assert_eq!(names(&mounted.path(".firn/snapshot")), ["s"]);
}

#[test]
fn nothing_of_the_future_stays_after_a_rollback_below() {
    let Some(mounted) = Mounted::new() else { return };
    let path = mounted.path("data");
    assert!(!path.exists());
    let mut made = None;
    mounted.around(|volume| {
        let (dataset, forget) =
            volume.create_dataset(&Caller::default(), Ino::ROOT, b"data", 0o755, &[]).unwrap();
        made = Some(dataset);
        forget
    });
    let dataset = made.unwrap();
    fs::write(mounted.path("other"), b"stays").unwrap();
    let other = File::open(mounted.path("other")).unwrap();
    roll_back_in_use(&mounted, dataset, &path);
    assert_eq!(names(&path.join(".firn/snapshot")), ["s"]);
    let mut bytes = [0; 5];
    other.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"stays");
    assert_eq!(errno(fs::rename(path.join("a"), mounted.path("a"))), Some(Errno::XDEV));
    assert_eq!(errno(fs::hard_link(path.join("a"), mounted.path("a"))), Some(Errno::XDEV));
    assert_eq!(errno(fs::remove_dir(&path)), Some(Errno::BUSY));
    let above = fs::metadata(path.join("..")).unwrap().ino();
    assert_eq!(above, fs::metadata(mounted.dir.path()).unwrap().ino());
    let held = File::open(path.join("a")).unwrap();
    mounted.around(|volume| volume.destroy_datasets(&[dataset], true).unwrap());
    assert!(!path.exists());
    assert_eq!(names(mounted.dir.path()), ["other"]);
    assert_eq!(errno(held.read_at(&mut [0; 4], 0)), Some(Errno::STALE));
}
