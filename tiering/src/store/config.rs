//! What a block store is told when it is opened: where it lives, how much it may use, how
//! patient it is. Plain values, validated once; nothing here acts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::block::MAX_BLOCK_LEN;
use crate::blocks::IdSource;
use crate::budget::Budget;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::segment::{SEGMENT_TARGET, VolumeId};
use crate::tier::{Handles, Tier};

use super::gates::{BackupGate, DamageLog, Liveness, Steward};
use super::marks::Watermarks;

/// Bytes counted elsewhere on the hot tier, such as the databases'.
pub type OtherBytes = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Room on the disk below a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes of the whole disk.
    pub total_bytes: u64,
    /// Bytes that this process may still write.
    pub free_bytes: u64,
}

impl DiskSpace {
    /// What the filesystem that holds `dir` says of itself.
    pub fn below(dir: &Path) -> std::io::Result<Self> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(Self {
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }
}

/// Who says how much room a directory's disk has; asked about twice a second.
pub type DiskProbe = Arc<dyn Fn(&Path) -> std::io::Result<DiskSpace> + Send + Sync>;

/// Settings of a [`crate::BlockStore`].
#[derive(Clone)]
pub struct StoreConfig {
    /// The volume whose segments these are; segments of another volume are refused.
    pub volume: VolumeId,
    /// Directory of the hot tier: segments, indexes and staging.
    pub hot_dir: PathBuf,
    /// Directory of the catalog's database. May be deleted whenever the store is closed.
    pub catalog_dir: PathBuf,
    /// Bytes the hot tier may really use, `other_bytes` included. `None`: what the disk has, which
    /// is a bound in any case.
    pub hot_capacity: Option<u64>,
    /// Marks of that capacity. `None`: [`Watermarks::of_capacity`]. They may be changed later.
    pub watermarks: Option<Watermarks>,
    /// Who says how much room the hot tier's disk has.
    pub disk_space: DiskProbe,
    /// Bytes used on the hot tier by others (the databases); asked about once a second.
    pub other_bytes: Option<OtherBytes>,
    /// Says whether some of that will go by itself while somebody waits for room.
    pub others_yield: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
    /// The cold tier, if there is one.
    pub cold: Option<Arc<dyn Tier>>,
    /// The same tier under each priority; without them all calls go to [`StoreConfig::cold`].
    pub cold_handles: Option<Handles>,
    /// Stores over which the cold tier spreads each object: how many hold data, and how many may be
    /// lost. `None`: it is one store, which protects nothing by itself.
    pub cold_spread: Option<(u32, u32)>,
    /// Bytes the cold tier may hold. `None`: unlimited.
    pub cold_capacity: Option<u64>,
    /// Bytes at which a segment is sealed. Larger: fewer objects, later uploads.
    pub segment_bytes: u64,
    /// Memory shared with the rest of the volume.
    pub budget: Budget,
    /// Bytes of decoded cells kept for reads; taken out of `budget` for good.
    pub cache_bytes: u64,
    /// Bytes the catalog's database may cache; taken out of `budget` for good, and what it takes
    /// beyond as it grows.
    pub catalog_cache_bytes: u64,
    /// Copy sealed segments to cold before the space is needed.
    pub copy_ahead: bool,
    /// Uploads that run at once.
    pub upload_streams: usize,
    /// Longest time of a cold read without an answer.
    pub cold_read_deadline: Duration,
    /// Longest time an appender waits for space while nothing makes progress.
    pub write_deadline: Duration,
    /// Most stored bytes fetched ahead of one sequential cold reader, and half of what is held for
    /// all of them. More reaches the bandwidth of a store that is further away. 0 switches it off.
    pub prefetch_bytes: u64,
    /// Age at which a sealed segment that was not read meanwhile is encoded again as hard as it can
    /// be, when the store is idle. Zero switches it off.
    pub recompress_age: Duration,
    /// How long nothing must have been appended or read before that begins.
    pub recompress_idle: Duration,
    /// Nothing is written: appends fail, open segments are read as they are.
    pub read_only: bool,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where ids come from.
    pub ids: Arc<dyn IdSource>,
    /// Who knows what verified backups name. Without one nothing is dropped by itself.
    pub backup: Option<Arc<dyn BackupGate>>,
    /// Who knows which blocks are referenced. Without one nothing is reclaimed.
    pub liveness: Option<Arc<dyn Liveness>>,
    /// Who knows what is pinned, warm, or held by snapshots only. Without one nothing is pinned,
    /// and how often segments are read decides.
    pub steward: Option<Arc<dyn Steward>>,
    /// Who is told of damage and knows the files that it concerns.
    pub damage: Option<Arc<dyn DamageLog>>,
}

impl StoreConfig {
    /// Settings with their defaults: no bounds, no cold tier.
    pub fn new(
        volume: VolumeId,
        hot_dir: PathBuf,
        catalog_dir: PathBuf,
        budget: Budget,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
    ) -> Self {
        let total = budget.total_bytes();
        Self {
            volume,
            hot_dir,
            catalog_dir,
            hot_capacity: None,
            watermarks: None,
            disk_space: Arc::new(DiskSpace::below),
            other_bytes: None,
            others_yield: None,
            cold: None,
            cold_handles: None,
            cold_spread: None,
            cold_capacity: None,
            segment_bytes: SEGMENT_TARGET,
            budget,
            cache_bytes: (total / 8).min(64 << 20),
            catalog_cache_bytes: (total / 32).clamp(4 << 20, 16 << 20),
            copy_ahead: true,
            upload_streams: 2,
            cold_read_deadline: Duration::from_secs(60),
            write_deadline: Duration::from_secs(300),
            prefetch_bytes: (total / 8).clamp(2 << 20, 64 << 20),
            recompress_age: Duration::from_secs(24 * 3600),
            recompress_idle: Duration::from_secs(60),
            read_only: false,
            clock,
            ids,
            backup: None,
            liveness: None,
            steward: None,
            damage: None,
        }
    }

    /// Refuses values that cannot work.
    pub fn validate(&self) -> Result<()> {
        if !(64 << 10..=SEGMENT_TARGET).contains(&self.segment_bytes) {
            return Err(Error::Config(format!(
                "a segment must have 64 KiB to {SEGMENT_TARGET} bytes, not {}",
                self.segment_bytes
            )));
        }
        let least = 2 * self.segment_bytes + 4 * MAX_BLOCK_LEN as u64;
        if let Some(capacity) = self.hot_capacity
            && capacity < least
        {
            return Err(Error::Config(format!(
                "a hot tier of {capacity} bytes cannot hold two segments: at least {least} bytes"
            )));
        }
        match (self.watermarks, self.hot_capacity) {
            (None, _) => {}
            (Some(marks), Some(capacity)) => marks.validate(capacity)?,
            (Some(_), None) => {
                return Err(Error::Config("watermarks need a capacity to refer to".into()));
            }
        }
        if self.upload_streams == 0 {
            return Err(Error::Config("at least one upload stream is needed".into()));
        }
        Ok(())
    }
}

impl std::fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreConfig")
            .field("volume", &self.volume)
            .field("hot_dir", &self.hot_dir)
            .field("hot_capacity", &self.hot_capacity)
            .field("cold", &self.cold)
            .field("cold_capacity", &self.cold_capacity)
            .field("segment_bytes", &self.segment_bytes)
            .field("read_only", &self.read_only)
            .finish_non_exhaustive()
    }
}
