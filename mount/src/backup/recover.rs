//! From the cold tier back to a namespace.
//!
//! *Crash rules.* The namespace is built in a directory beside its place and renamed when it is
//! complete and durable; a crash leaves that directory, which the next recovery removes.
//! *Epoch.* The recovered namespace opens under an epoch higher than any that the backup or the
//! names of the segments in the tier show, so that nothing the lost machine wrote after its last
//! backup is ever taken for something new.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use firn_tiering::tier::Tier;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::bucket::Bucket;
use super::calls::Calls;
use super::collect::View;
use super::manifest::{self, Manifest, ManifestInfo};
use super::piece::{self, PieceRef};
use super::{BackupError, BackupResult};
use crate::namespace::record::Leases;
use crate::namespace::{
    Batch, Durability, LocalStore, NamespaceReader, NamespaceStore, Space, StoreOptions, key,
};

/// Where segments lie in the tier.
const SEGMENTS: &str = "segments/";

/// Pieces fetched at a time where nothing else is said.
const DOWNLOADS: usize = 8;

/// Records in one batch of a recovery.
const RECORDS_PER_BATCH: usize = 4096;

/// Settings of a recovery.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecoverOptions {
    /// Settings of the store that is made.
    pub store: StoreOptions,
    /// Pieces fetched at a time; 0 stands for 8.
    pub downloads: usize,
}

/// A backup that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its number.
    pub sequence: u64,
    /// Why.
    pub reason: String,
}

/// What was recovered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The backup that was used.
    pub backup: ManifestInfo,
    /// Newer ones that could not be: everything between is lost.
    pub skipped: Vec<Skipped>,
    /// Records restored.
    pub records: u64,
    /// The highest epoch in use; the namespace opens under a higher one.
    pub epoch: u16,
}

/// The epoch in the id leases.
pub(super) fn epoch_of(reader: &dyn NamespaceReader) -> BackupResult<u16> {
    match reader.get(Space::Meta, key::LEASES)? {
        Some(value) => Ok(Leases::decode(&value)?.epoch),
        None => Ok(0),
    }
}

/// Makes a namespace at `dir`, which must not exist, from the newest whole backup in `tier`.
/// Blocks: not for asynchronous threads.
pub fn recover(
    tier: &Arc<dyn Tier>,
    runtime: &Handle,
    dir: &Path,
    options: RecoverOptions,
) -> BackupResult<Recovered> {
    let io = |action: String| move |source| BackupError::Io { action, source };
    if std::fs::symlink_metadata(dir).is_ok() {
        let taken = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
        return Err(io(format!("create {}", dir.display()))(taken));
    }
    let aside = aside(dir);
    let clear = || match std::fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io(format!("remove {}", aside.display()))(error))
        }
        _ => Ok(()),
    };
    let calls = Calls::on(runtime.clone());
    let made = from_newest(tier, &calls, options.downloads, || {
        clear()?;
        Ok(Box::new(LocalStore::open(&aside, options.store)?))
    });
    let made = match made {
        Ok(made) => made,
        Err(error) => {
            let _ = clear();
            return Err(error);
        }
    };
    std::fs::rename(&aside, dir).map_err(io(format!("create {}", dir.display())))?;
    let parent = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(parent)
        .and_then(|parent| parent.sync_all())
        .map_err(io(format!("sync {}", parent.display())))?;
    Ok(made)
}

fn aside(dir: &Path) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(".recovering");
    dir.with_file_name(name)
}

/// As [`recover`], into a store of any kind, which must be empty. A failure leaves it unusable.
pub fn restore_into(
    tier: &Arc<dyn Tier>,
    runtime: &Handle,
    store: &Arc<dyn NamespaceStore>,
) -> BackupResult<Recovered> {
    from_newest(tier, &Calls::on(runtime.clone()), 0, || Ok(Box::new(Arc::clone(store))))
}

/// Tries the backups from the newest, each in a new store.
fn from_newest<S: AsStore>(
    tier: &Arc<dyn Tier>,
    calls: &Calls,
    downloads: usize,
    mut new_store: impl FnMut() -> BackupResult<Box<S>>,
) -> BackupResult<Recovered> {
    let view = calls.wait(View::of(&**tier))?;
    let mut skipped = Vec::new();
    for &sequence in view.manifests.iter().rev() {
        let attempt = calls.wait(Manifest::fetch(&**tier, sequence)).and_then(|(manifest, _)| {
            let store = new_store()?;
            let downloads = if downloads == 0 { DOWNLOADS } else { downloads };
            let fill = Fill { tier, calls, downloads, store: store.as_store() };
            fill.run(&manifest, &|| true).map(|done| (manifest, done))
        });
        match attempt {
            Ok((manifest, (records, epoch))) => {
                return Ok(Recovered { backup: manifest.info, skipped, records, epoch });
            }
            Err(error) if error.is_damage() => {
                tracing::warn!(sequence, %error, "a backup is not whole, trying an older one");
                skipped.push(Skipped { sequence, reason: error.to_string() });
            }
            Err(error) => return Err(error),
        }
    }
    match skipped.first() {
        None => Err(BackupError::NoBackup),
        Some(newest) => {
            Err(BackupError::NoWholeBackup { count: skipped.len(), reason: newest.reason.clone() })
        }
    }
}

/// Writes the newest backup into an empty store, as a recovery would that cannot fall back to an
/// older one.
pub(super) fn restore_newest(
    tier: &Arc<dyn Tier>,
    calls: &Calls,
    store: &dyn NamespaceStore,
    goes_on: &dyn Fn() -> bool,
) -> BackupResult<Recovered> {
    let view = calls.wait(View::of(&**tier))?;
    let sequence = *view.manifests.last().ok_or(BackupError::NoBackup)?;
    let (manifest, _) = calls.wait(Manifest::fetch(&**tier, sequence))?;
    let fill = Fill { tier, calls, downloads: DOWNLOADS, store };
    let (records, epoch) = fill.run(&manifest, goes_on)?;
    Ok(Recovered { backup: manifest.info, skipped: Vec::new(), records, epoch })
}

/// Something that is a store.
trait AsStore {
    fn as_store(&self) -> &dyn NamespaceStore;
}

impl AsStore for LocalStore {
    fn as_store(&self) -> &dyn NamespaceStore {
        self
    }
}

impl AsStore for Arc<dyn NamespaceStore> {
    fn as_store(&self) -> &dyn NamespaceStore {
        &**self
    }
}

struct Fill<'a> {
    tier: &'a Arc<dyn Tier>,
    calls: &'a Calls,
    downloads: usize,
    store: &'a dyn NamespaceStore,
}

impl Fill<'_> {
    /// Writes everything a manifest names and makes it durable, unless it is not to go on; returns
    /// the records and the highest epoch in use.
    fn run(&self, manifest: &Manifest, goes_on: &dyn Fn() -> bool) -> BackupResult<(u64, u16)> {
        let all: Vec<(Bucket, PieceRef)> = manifest
            .table
            .iter()
            .flat_map(|(bucket, pieces)| pieces.iter().map(|piece| (*bucket, *piece)))
            .collect();
        let mut records = 0;
        let mut last: Option<(Bucket, Vec<u8>)> = None;
        for some in all.chunks(self.downloads) {
            if !goes_on() {
                return Err(firn_tiering::Error::Cancelled.into());
            }
            let fetched = self.calls.wait(fetch(self.tier, some))?;
            for ((bucket, _), opened) in some.iter().zip(fetched) {
                let before = last.as_ref().filter(|(b, _)| b == bucket).map(|(_, key)| key);
                if before.zip(opened.first()).is_some_and(|(before, (key, _))| before >= key) {
                    return Err(BackupError::damaged("backup", "its pieces are out of order"));
                }
                records += opened.len() as u64;
                last = opened.last().map(|(key, _)| (*bucket, key.to_vec()));
                self.write(*bucket, opened)?;
            }
        }
        let epoch = self.take_epoch(manifest.info.epoch)?;
        self.store.sync()?;
        self.store.rest()?;
        Ok((records, epoch))
    }

    fn write(&self, bucket: Bucket, records: Vec<piece::Record>) -> BackupResult<()> {
        let mut batch = Batch::new();
        for (key, value) in records {
            batch.put(bucket.space(), &key, value);
            if batch.len() >= RECORDS_PER_BATCH {
                self.store.commit(std::mem::take(&mut batch), Durability::Buffered)?;
            }
        }
        if !batch.is_empty() {
            self.store.commit(batch, Durability::Buffered)?;
        }
        Ok(())
    }

    /// Leaves the leases as a crash would, with the highest epoch that is in use anywhere: the
    /// next open begins the one after it.
    fn take_epoch(&self, of_manifest: u16) -> BackupResult<u16> {
        let value = self.store.get(Space::Meta, key::LEASES)?;
        let value = value.ok_or_else(|| BackupError::damaged("backup", "it has no id leases"))?;
        let mut leases = Leases::decode(&value)?;
        let known = leases.epoch.max(of_manifest);
        leases.epoch = self.calls.wait(newest_epoch(&**self.tier, known))?;
        leases.clean = false;
        let mut batch = Batch::new();
        batch.put(Space::Meta, key::LEASES, leases.encode());
        self.store.commit(batch, Durability::Durable)?;
        Ok(leases.epoch)
    }
}

/// Fetches pieces at the same time and checks each.
async fn fetch(
    tier: &Arc<dyn Tier>,
    pieces: &[(Bucket, PieceRef)],
) -> BackupResult<Vec<Vec<piece::Record>>> {
    let mut running = JoinSet::new();
    for (index, &(bucket, name)) in pieces.iter().enumerate() {
        let tier = Arc::clone(tier);
        running.spawn(async move {
            let check = |sealed: &[u8]| piece::open(sealed, &name, bucket);
            (index, manifest::fetch_checked(&*tier, &name.key(), check).await)
        });
    }
    let mut opened = vec![Vec::new(); pieces.len()];
    while let Some(done) = running.join_next().await {
        match done {
            Ok((index, got)) => opened[index] = got?,
            Err(join) if join.is_panic() => std::panic::resume_unwind(join.into_panic()),
            Err(_) => return Err(firn_tiering::Error::TimedOut("shutting down").into()),
        }
    }
    Ok(opened)
}

/// The highest epoch among `known` and those in the names of segments: one question an epoch.
async fn newest_epoch(tier: &dyn Tier, known: u16) -> BackupResult<u16> {
    let mut newest = known;
    loop {
        let after = format!("{SEGMENTS}{newest:04x}ffffffffffff.seg");
        let page = tier.list(SEGMENTS, Some(&after), 1).await?;
        let Some(next) = page.first() else { return Ok(newest) };
        let epoch = next.key.get(SEGMENTS.len()..SEGMENTS.len() + 4);
        let epoch = epoch.and_then(|hex| u16::from_str_radix(hex, 16).ok());
        match epoch.filter(|&epoch| epoch > newest) {
            Some(epoch) => newest = epoch,
            // Not a segment's name: nothing behind it is one either, as hex sorts.
            None => return Ok(newest),
        }
    }
}
