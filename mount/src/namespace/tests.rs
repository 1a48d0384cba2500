#![allow(clippy::unwrap_used, reason = "tests")]

mod bench;
mod counting;
mod damage;
mod datasets;
mod diff;
mod failing;
mod files;
mod links;
mod listing;
mod model;
mod operations;
mod properties;
mod repair;
mod rollback;
mod seals;
mod snapshots;
mod sweeps;
mod unreadable_seals;
mod usage;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use firn_tiering::{BlockDigest, BlockId, BlockRef, Clock, Epoch};
use parking_lot::Mutex;

use super::*;
use crate::types::{Attr, Caller};

impl Namespace {
    /// [`Namespace::purge`]; the blocks to which nothing refers any more.
    fn purged(&self, inodes: &[Ino]) -> FsResult<Vec<BlockId>> {
        let mut unreferenced = Vec::new();
        self.purge(inodes, &mut unreferenced).map(|()| unreferenced)
    }
}

pub(super) const ROOT_CALLER: Caller = Caller { uid: 0, gid: 0, pid: 0 };
pub(super) const USER: Caller = Caller { uid: 1000, gid: 100, pid: 0 };

/// Time that moves only when a test moves it.
#[derive(Debug)]
pub(super) struct TestClock(Mutex<SystemTime>);

impl TestClock {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(UNIX_EPOCH + Duration::from_secs(1_000_000_000))))
    }

    pub(super) fn tick(&self) -> Timestamp {
        let mut now = self.0.lock();
        *now += Duration::from_secs(1);
        (*now).into()
    }
}

impl Clock for TestClock {
    fn now(&self) -> SystemTime {
        *self.0.lock()
    }

    fn instant(&self) -> Instant {
        unreachable!("the namespace measures no time")
    }

    fn sleep(&self, _: Duration) {
        unreachable!("the namespace does not sleep")
    }
}

/// A namespace in memory whose store survives it.
pub(super) struct World {
    pub(super) clock: Arc<TestClock>,
    pub(super) store: Arc<MemoryStore>,
    pub(super) ns: Namespace,
}

pub(super) const SEED: [u8; 32] = [7; 32];

impl World {
    pub(super) fn new() -> Self {
        let clock = TestClock::new();
        let store = Arc::new(MemoryStore::new());
        let root = NewRoot { uid: 0, gid: 0, perm: 0o755 };
        Namespace::create(&*store, &*clock, root, SEED).unwrap();
        Self::open(store, clock)
    }

    pub(super) fn open(store: Arc<MemoryStore>, clock: Arc<TestClock>) -> Self {
        let ns = Namespace::open(
            Arc::clone(&store) as Arc<dyn NamespaceStore>,
            Arc::clone(&clock) as Arc<dyn Clock>,
            NamespaceOptions { cached_inodes: 64, read_only: false },
        )
        .unwrap();
        Self { clock, store, ns }
    }

    /// As after `kill -9`.
    pub(super) fn crash(self) -> Self {
        Self::open(Arc::new(self.store.reopened()), self.clock)
    }

    /// As if an older version had written the volume.
    pub(super) fn without_counters(self) -> Self {
        let store = self.store.reopened();
        let mut batch = Batch::new();
        for (line, node) in self.ns.gate.ledger().parts().into_keys() {
            batch.delete(Space::Meta, &key::usage(line, node));
        }
        let volume = store.get(Space::Meta, key::VOLUME).unwrap().unwrap();
        let volume = VolumeRecord::decode(&volume).unwrap();
        let volume = VolumeRecord { features: 0, ..volume };
        batch.put(Space::Meta, key::VOLUME, volume.encode());
        store.commit(batch, Durability::Durable).unwrap();
        Self::open(Arc::new(store), self.clock)
    }

    /// As if every name had been given by a version that knew no link records.
    pub(super) fn without_links(self) -> Self {
        let store = self.store.reopened();
        let mut batch = Batch::new();
        for space in [Space::Head, Space::History] {
            for (key, value) in store.page(space, &[], None, usize::MAX).unwrap().items {
                let head = match space {
                    Space::Head => key.to_vec(),
                    _ => key::history_decode(Dataset::ROOT, &key).unwrap().0,
                };
                let (version, record) = Version::split(&value).unwrap();
                let head = key::HeadKey::decode(&head).unwrap();
                match head.kind {
                    Kind::Link => batch.delete(space, &key),
                    Kind::Inode if !version.whiteout => {
                        let mut inode = Inode::decode(head.object, version, record).unwrap();
                        inode.flags.set(record::InodeFlags::LINKS, false);
                        batch.put(space, &key, inode.encode());
                    }
                    _ => {}
                }
            }
        }
        for (key, _) in store.page(Space::Born, &[], None, usize::MAX).unwrap().items {
            if key::born_decode(&key).unwrap().2 == Kind::Link {
                batch.delete(Space::Born, &key);
            }
        }
        store.commit(batch, Durability::Durable).unwrap();
        Self::open(Arc::new(store), self.clock)
    }

    pub(super) fn power_loss(self) -> Self {
        Self::open(Arc::new(self.store.reopened_after_power_loss()), self.clock)
    }

    pub(super) fn file(&self, parent: Ino, name: &str) -> Ino {
        self.ns.mknod(&ROOT_CALLER, parent, name.as_bytes(), 0o100_644, 0, 0).unwrap().ino
    }

    pub(super) fn dir(&self, parent: Ino, name: &str) -> Ino {
        self.ns.mkdir(&ROOT_CALLER, parent, name.as_bytes(), 0o755, 0).unwrap().ino
    }

    pub(super) fn attr(&self, ino: Ino) -> Attr {
        self.ns.getattr(ino).unwrap()
    }

    /// Gives a file pieces, as a flush does.
    pub(super) fn write(&self, ino: Ino, slot: u64, pieces: &[Piece]) -> Vec<BlockId> {
        let _guard = self.ns.lock(&[ino]);
        let mut inode = Inode::clone(&self.ns.inode(ino).unwrap());
        let mut txn = self.ns.begin();
        txn.put_slot(&mut inode, slot, pieces).unwrap();
        let end = pieces.last().map_or(0, Piece::end);
        inode.size = inode.size.max(slot * u64::from(SLOT_LEN) + u64::from(end));
        txn.put_inode(inode).unwrap();
        txn.commit(Durability::Buffered).unwrap().unreferenced
    }

    pub(super) fn names(&self, dir: Ino) -> Vec<String> {
        let mut names = Vec::new();
        self.ns
            .readdir(dir, 0, false, &mut |entry| {
                names.push(String::from_utf8(entry.name.clone()).unwrap());
                true
            })
            .unwrap();
        names.sort();
        names.retain(|name| name != "." && name != "..");
        names
    }

    /// Fails the test when a counter of space is not what its records add up to, or what a dataset
    /// uses not the sum of its parts.
    pub(super) fn assert_counted(&self) {
        assert_eq!(self.ns.gate.ledger().parts(), self.ns.recount().unwrap());
        let datasets = self.ns.datasets();
        let top = datasets.iter().find(|info| info.parent.is_none()).unwrap().dataset;
        let parts = self.ns.gate.ledger().parts();
        let all: u64 = parts.values().map(|usage| usage.charged).sum();
        assert_eq!(self.ns.space_used(top), all);
    }

    /// Fails the test when the structure check finds anything.
    pub(super) fn assert_sound(&self) {
        for window in [5000, 1 << 20] {
            let options = CheckOptions { window, max_findings: 100, snapshots: true };
            let report = self.ns.check(options).unwrap();
            assert_eq!(report.findings, []);
            assert_eq!(report.found, 0);
        }
    }
}

pub(super) fn block(number: u64) -> BlockRef {
    BlockRef {
        id: BlockId::new(Epoch(1), number).unwrap(),
        digest: BlockDigest([number as u8; 16]),
        len: SLOT_LEN,
    }
}

pub(super) fn piece(start: u32, len: u32, number: u64) -> Piece {
    Piece { start, len, content: Content::Block { block: block(number), offset: 0 } }
}

/// Bytes of all files below a directory.
pub(super) fn bytes_below(path: &std::path::Path) -> u64 {
    let mut sum = 0;
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        sum += if meta.is_dir() { bytes_below(&entry.path()) } else { meta.len() };
    }
    sum
}

/// The errno that an error stands for.
pub(super) fn errno(error: &FsError) -> &'static str {
    match error {
        FsError::NotFound => "ENOENT",
        FsError::Exists => "EEXIST",
        FsError::NotDirectory => "ENOTDIR",
        FsError::IsDirectory => "EISDIR",
        FsError::NotEmpty => "ENOTEMPTY",
        FsError::Invalid(_) => "EINVAL",
        FsError::NotPermitted => "EPERM",
        FsError::AccessDenied => "EACCES",
        FsError::NameTooLong => "ENAMETOOLONG",
        FsError::TooManyLinks => "EMLINK",
        FsError::NoSpace => "ENOSPC",
        FsError::ReadOnly(_)
        | FsError::InSnapshot
        | FsError::Receiving
        | FsError::ReadOnlyDataset => "EROFS",
        FsError::NoAttribute => "ENODATA",
        FsError::Range => "ERANGE",
        FsError::TooBig => "E2BIG",
        FsError::NotSupported(_) => "EOPNOTSUPP",
        FsError::Stale => "ESTALE",
        FsError::CrossesDatasets => "EXDEV",
        FsError::Busy => "EBUSY",
        FsError::Io { .. } => "EIO",
        _ => "other",
    }
}

pub(super) fn fails<T: std::fmt::Debug>(result: FsResult<T>) -> &'static str {
    errno(&result.unwrap_err())
}
