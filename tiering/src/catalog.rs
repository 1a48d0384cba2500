//! The catalog: block id -> segment, offset and cell lengths; segment id -> state and residence.
//!
//! An index in sled that can always be made again from the segments; nothing depends on its
//! durability, and a record is a hint that the digest in the caller's hand confirms.
//!
//! Crash rules. A segment's blocks are written before the segment's own record, in one log, so a
//! segment that has a record has its blocks. After `kill -9` the log's prefix stands: segments
//! without a record are caught up. Power loss may damage anything (sled's `flush` does not sync),
//! so a marker file beside the database names the boot it was written under: another boot without
//! a clean end wipes the database. The marker also says whether every segment of every tier was
//! recorded once: until then the cold tier is listed at every open. A clean end syncs the files itself before it says so.
//! A database that does not open, or panics, is wiped. What a wipe loses is time, and what only
//! the catalog knew: which ranges of hot files are holes (until cold was listed reads fail verification
//! there and go to cold; then the disk tells) and which cold copies were verified (they are verified again before anything is dropped).

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod heat;
mod record;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::block::BlockId;
use crate::error::{Error, Result};
use crate::segment::{IndexEntry, SegmentId, VolumeId};

pub use heat::SegmentHeat;
pub use record::{BlockRecord, ColdCopy, Holes, SegmentRecord};
use record::{
    Bucket, bucket_of, decode_bucket, decode_segment, encode_bucket, encode_segment,
    find_in_bucket, slot_of,
};

/// Version of the catalog as a whole; another one is wiped.
const CATALOG_VERSION: u32 = 1;

/// Memory that sled takes beyond its cache, for each block and at most: 90 MiB once it was read and
/// written a lot, measured at 5 and at 10 million blocks alike.
const OVERHEAD_PER_BLOCK: u64 = 20;
const MOST_OVERHEAD: u64 = 104 << 20;

/// Bytes of memory that a catalog of so many blocks takes with a cache of `cache_bytes`.
pub fn memory_bytes(cache_bytes: u64, blocks: u64) -> u64 {
    cache_bytes + blocks.saturating_mul(OVERHEAD_PER_BLOCK).min(MOST_OVERHEAD)
}

/// Buckets written in one batch, which bounds the memory a huge segment takes.
const BUCKETS_PER_BATCH: usize = 128;

/// What stands beside the database.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    version: u32,
    volume: [u8; 16],
    boot_id: String,
    /// Closed, and everything synced since.
    clean: bool,
    /// Every segment of every tier was recorded when this was written.
    complete: bool,
}

/// How the catalog was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Closed properly.
    Clean,
    /// Left by a process that died; the machine did not. Unrecorded segments are to be caught up.
    Behind,
    /// Empty, for this reason. Every segment is to be recorded again.
    Wiped(String),
}

/// The open catalog.
pub struct Catalog {
    dir: PathBuf,
    volume: VolumeId,
    db: sled::Db,
    blocks: sled::Tree,
    segments: sled::Tree,
    /// Serialises read-modify-write of buckets.
    writing: Mutex<()>,
    broken: AtomicBool,
    complete: AtomicBool,
}

impl Catalog {
    /// Opens the catalog in `dir`, wiping it when it cannot be relied on.
    /// The database caches `cache_bytes`; [`memory_bytes`] says what it takes in all.
    pub fn open(dir: &Path, volume: VolumeId, cache_bytes: u64) -> Result<(Self, Found)> {
        fs::create_dir_all(dir).map_err(Error::io(format!("create {}", dir.display())))?;
        let (mut found, mut complete) = judge(dir, volume);
        if let Found::Wiped(reason) = &found {
            tracing::info!(reason, "the catalog is rebuilt from the segments");
            wipe(dir)?;
        }
        let opened = match open_database(dir, cache_bytes) {
            Ok(opened) => opened,
            Err(error) => {
                found = Found::Wiped(format!("the database does not open: {error}"));
                complete = false;
                tracing::warn!(%error, "the catalog does not open and is rebuilt");
                wipe(dir)?;
                open_database(dir, cache_bytes)?
            }
        };
        let (db, blocks, segments) = opened;
        write_marker(dir, volume, false, complete)?;
        let catalog = Self {
            dir: dir.to_owned(),
            volume,
            db,
            blocks,
            segments,
            writing: Mutex::new(()),
            broken: AtomicBool::new(false),
            complete: AtomicBool::new(complete),
        };
        Ok((catalog, found))
    }

    /// Removes the catalog in `dir`; the next open rebuilds it. No store may have it open.
    pub fn wipe(dir: &Path) -> Result<()> {
        wipe(dir)
    }

    /// Whether an operation failed since it was opened; it is wiped at the next open.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Whether every segment of every tier was recorded once.
    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Relaxed)
    }

    /// Says that every segment of every tier is recorded.
    pub fn mark_complete(&self) -> Result<()> {
        if self.complete.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        self.guarded(|| {
            // The marker must not outrun the records it speaks of when the process dies.
            self.db.flush()?;
            write_marker(&self.dir, self.volume, false, true)
        })
    }

    /// Records a segment: its blocks first, itself last. Where a block has a record already, the
    /// younger segment wins.
    pub fn record_segment(&self, record: &SegmentRecord, entries: &[IndexEntry]) -> Result<()> {
        self.guarded(|| {
            let _writing = self.writing.lock();
            self.update_buckets(
                entries.iter(),
                |entry| entry.id,
                |bucket, entry| {
                    let newer = |old: &BlockRecord| old.segment > record.id;
                    if !bucket.get(&slot_of(entry.id)).is_some_and(newer) {
                        let record = BlockRecord { segment: record.id, entry: entry.clone() };
                        bucket.insert(slot_of(entry.id), record);
                    }
                },
            )?;
            self.segments.insert(record.id.raw().to_be_bytes(), encode_segment(record))?;
            Ok(())
        })
    }

    /// Changes a segment's record.
    pub fn put_segment(&self, record: &SegmentRecord) -> Result<()> {
        self.guarded(|| {
            self.segments.insert(record.id.raw().to_be_bytes(), encode_segment(record))?;
            Ok(())
        })
    }

    /// Makes what was recorded before the call survive the death of this process.
    pub fn flush(&self) -> Result<()> {
        self.guarded(|| {
            self.db.flush()?;
            Ok(())
        })
    }

    /// Forgets a segment, and those of `blocks` that are recorded as lying in it.
    pub fn remove_segment(&self, id: SegmentId, blocks: &[BlockId]) -> Result<()> {
        self.guarded(|| {
            let _writing = self.writing.lock();
            self.update_buckets(
                blocks.iter(),
                |block| *block,
                |bucket, block| {
                    let slot = slot_of(*block);
                    if bucket.get(&slot).is_some_and(|record| record.segment == id) {
                        bucket.remove(&slot);
                    }
                },
            )?;
            self.segments.remove(id.raw().to_be_bytes())?;
            Ok(())
        })
    }

    /// Where a block lies.
    pub fn lookup(&self, id: BlockId) -> Result<Option<BlockRecord>> {
        self.guarded(|| match self.blocks.get(bucket_of(id).to_be_bytes())? {
            Some(bytes) => find_in_bucket(id, &bytes),
            None => Ok(None),
        })
    }

    /// Up to `limit` blocks behind `id` that are recorded, in id order.
    pub fn following(&self, id: BlockId, limit: usize) -> Result<Vec<BlockRecord>> {
        self.guarded(|| {
            let mut records = Vec::new();
            let first = bucket_of(id).to_be_bytes();
            for item in self.blocks.range::<_, std::ops::RangeFrom<[u8; 8]>>(first..) {
                let (key, bytes) = item?;
                let bucket = decode_bucket(key_number(&key)?, &bytes)?;
                let behind = bucket.into_values().filter(|record| record.entry.id > id);
                records.extend(behind.take(limit - records.len()));
                if records.len() >= limit {
                    break;
                }
            }
            Ok(records)
        })
    }

    /// Every recorded segment, in id order, passed to `visit` one by one.
    pub fn for_each_segment(&self, mut visit: impl FnMut(SegmentRecord)) -> Result<()> {
        self.guarded(|| {
            for item in self.segments.iter() {
                let (key, bytes) = item?;
                visit(decode_segment(SegmentId::from_raw(key_number(&key)?), &bytes)?);
            }
            Ok(())
        })
    }

    /// Recorded blocks, counted one by one: for checks and tests.
    pub fn count_blocks(&self) -> Result<u64> {
        self.guarded(|| {
            let mut count = 0;
            for item in self.blocks.iter() {
                let (key, bytes) = item?;
                count += decode_bucket(key_number(&key)?, &bytes)?.len() as u64;
            }
            Ok(count)
        })
    }

    /// Closes it so that the next open may rely on it even after power loss.
    pub fn close(self) -> Result<()> {
        if self.is_broken() {
            return Ok(());
        }
        let complete = self.is_complete();
        let Self { dir, volume, db, blocks, segments, .. } = self;
        let flushed = guard(|| db.flush().map_err(Error::from));
        drop((blocks, segments, db));
        flushed?;
        sync_tree(&dir)?;
        write_marker(&dir, volume, true, complete)
    }

    /// Applies `change` to the bucket of each item, reading and writing each bucket once.
    fn update_buckets<'a, T: 'a>(
        &self,
        items: impl Iterator<Item = &'a T>,
        id_of: impl Fn(&T) -> BlockId,
        change: impl Fn(&mut Bucket, &T),
    ) -> Result<()> {
        let mut items: Vec<&T> = items.collect();
        items.sort_by_key(|item| id_of(item));
        let mut batch = sled::Batch::default();
        let mut batched = 0;
        for group in items.chunk_by(|a, b| bucket_of(id_of(a)) == bucket_of(id_of(b))) {
            let number = bucket_of(id_of(group[0]));
            let key = number.to_be_bytes();
            let mut bucket = match self.blocks.get(key)? {
                Some(bytes) => decode_bucket(number, &bytes)?,
                None => Bucket::new(),
            };
            for item in group {
                change(&mut bucket, item);
            }
            if bucket.is_empty() {
                batch.remove(&key);
            } else {
                batch.insert(&key, encode_bucket(&bucket)?);
            }
            batched += 1;
            if batched == BUCKETS_PER_BATCH {
                self.blocks.apply_batch(std::mem::take(&mut batch))?;
                batched = 0;
            }
        }
        self.blocks.apply_batch(batch)?;
        Ok(())
    }

    /// Runs a database operation; failing once makes the catalog broken for good.
    fn guarded<T>(&self, operation: impl FnOnce() -> Result<T>) -> Result<T> {
        let result = guard(operation);
        if let Err(error) = &result
            && !self.broken.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%error, "the catalog failed; segments are searched instead");
            // The next open must not rely on it, whatever becomes of this process.
            if let Err(error) = fs::remove_file(self.dir.join(MARKER)) {
                tracing::warn!(%error, "the catalog's marker could not be removed");
            }
        }
        result
    }
}

impl From<sled::Error> for Error {
    fn from(error: sled::Error) -> Self {
        Self::Catalog(error.to_string())
    }
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("dir", &self.dir).finish_non_exhaustive()
    }
}

const MARKER: &str = "marker.json";
const DATABASE: &str = "db";

/// How often, and how long apart, a locked database is tried again.
const LOCK_ATTEMPTS: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// sled asserts where it finds damage; that is an error like any other here.
fn guard<T>(operation: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(operation))
        .unwrap_or_else(|_| Err(Error::Catalog("the database panicked".into())))
}

fn open_database(dir: &Path, cache_bytes: u64) -> Result<(sled::Db, sled::Tree, sled::Tree)> {
    guard(|| {
        let config = sled::Config::new()
            .path(dir.join(DATABASE))
            .cache_capacity(cache_bytes)
            .flush_every_ms(Some(1000))
            .mode(sled::Mode::LowSpace);
        let db = open_patiently(&config)?;
        let blocks = db.open_tree("blocks")?;
        let segments = db.open_tree("segments")?;
        // A first look at both ends finds most damage now instead of later.
        blocks.first()?;
        blocks.last()?;
        Ok((db, blocks, segments))
    })
}

/// Opens a database whose lock the threads of one that was dropped just now may still hold.
fn open_patiently(config: &sled::Config) -> sled::Result<sled::Db> {
    let is_locked = |error: &std::io::Error| error.to_string().contains("could not acquire lock");
    for _ in 0..LOCK_ATTEMPTS {
        match config.open() {
            Err(sled::Error::Io(error)) if is_locked(&error) => std::thread::sleep(LOCK_PAUSE),
            outcome => return outcome,
        }
    }
    config.open()
}

/// How far the database can be relied on, and whether it was complete.
fn judge(dir: &Path, volume: VolumeId) -> (Found, bool) {
    let wiped = |reason: String| (Found::Wiped(reason), false);
    let bytes = match fs::read(dir.join(MARKER)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return wiped("there is none".into());
        }
        Err(error) => return wiped(format!("its marker is unreadable: {error}")),
    };
    match serde_json::from_slice::<Marker>(&bytes) {
        Err(error) => wiped(format!("its marker is damaged: {error}")),
        Ok(marker) if marker.version != CATALOG_VERSION => {
            wiped(format!("it has version {}", marker.version))
        }
        Ok(marker) if marker.volume != volume.0 => wiped("it belongs to another volume".into()),
        Ok(marker) if marker.clean => (Found::Clean, marker.complete),
        Ok(marker) if marker.boot_id == boot_id() => (Found::Behind, marker.complete),
        Ok(_) => wiped("the machine went down while it was in use".into()),
    }
}

/// Names this boot of the machine; unreadable, it equals no other.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| format!("unknown {}", std::process::id()), |id| id.trim().to_owned())
}

fn write_marker(dir: &Path, volume: VolumeId, clean: bool, complete: bool) -> Result<()> {
    let (version, boot_id) = (CATALOG_VERSION, boot_id());
    let marker = Marker { version, volume: volume.0, boot_id, clean, complete };
    let bytes = serde_json::to_vec(&marker).expect("a marker has only plain fields");
    let (path, aside) = (dir.join(MARKER), dir.join("marker.tmp"));
    let failed = || Error::io(format!("write {}", path.display()));
    fs::write(&aside, bytes).map_err(failed())?;
    fs::File::open(&aside).and_then(|file| file.sync_all()).map_err(failed())?;
    fs::rename(&aside, &path).map_err(failed())?;
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed())
}

/// The marker goes first: a wipe that is cut short is a wipe at the next open.
fn wipe(dir: &Path) -> Result<()> {
    let failed = || Error::io(format!("wipe {}", dir.display()));
    for result in [fs::remove_file(dir.join(MARKER)), fs::remove_dir_all(dir.join(DATABASE))] {
        match result {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed()(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Syncs every file and directory below `dir`.
fn sync_tree(dir: &Path) -> Result<()> {
    let failed = || Error::io(format!("sync {}", dir.display()));
    for entry in fs::read_dir(dir).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        if entry.file_type().map_err(failed())?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            fs::File::open(entry.path()).and_then(|file| file.sync_all()).map_err(failed())?;
        }
    }
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed())
}

fn key_number(key: &[u8]) -> Result<u64> {
    let key = key.try_into().map_err(|_| Error::Damaged {
        what: "catalog record",
        reason: format!("a key of {} bytes", key.len()),
    })?;
    Ok(u64::from_be_bytes(key))
}

#[cfg(test)]
mod tests;
