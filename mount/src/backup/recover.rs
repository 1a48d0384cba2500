//! From the cold tier back to a namespace.
//!
//! *Crash rules.* The namespace is built in a directory beside its place and renamed when it is
//! complete and durable; a crash leaves that directory, which the next recovery removes.
//! *Epoch.* The recovered namespace opens under an epoch higher than any that the backup or the
//! names of the segments in the tier show, so that nothing the lost machine wrote after its last
//! backup is ever taken for something new.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use firn_tiering::tier::Tier;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::bucket::Bucket;
use super::calls::Calls;
use super::collect::View;
use super::manifest::{self, Manifest, ManifestInfo};
use super::missing::Lost;
use super::partial::Gap;
use super::piece::{self, PieceRef};
use super::{BackupError, BackupResult, collect};
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
    /// Whether a newer backup of which parts are gone is better than an older one that is whole. What
    /// is recovered of it must be repaired before it is used, if there are [`Recovered::gaps`].
    pub partial: bool,
}

/// A backup that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its number.
    pub sequence: u64,
    /// The state it holds is the one of this time, if that can be read.
    pub time: Option<SystemTime>,
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
    /// Parts that are not of that backup.
    pub gaps: Vec<Gap>,
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
    let made = from_newest(tier, &calls, options, || {
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
    let options = RecoverOptions::default();
    from_newest(tier, &Calls::on(runtime.clone()), options, || Ok(Box::new(Arc::clone(store))))
}

/// Tries the backups from the newest, each in a new store.
pub(super) fn from_newest<S: AsStore>(
    tier: &Arc<dyn Tier>,
    calls: &Calls,
    options: RecoverOptions,
    mut new_store: impl FnMut() -> BackupResult<Box<S>>,
) -> BackupResult<Recovered> {
    let view = calls.wait(View::of(&**tier))?;
    let downloads = if options.downloads == 0 { DOWNLOADS } else { options.downloads };
    let mut skipped: Vec<Skipped> = Vec::new();
    for &sequence in view.manifests.iter().rev() {
        let mut info = None;
        let attempt = calls.wait(Manifest::fetch(&**tier, sequence)).and_then(|(manifest, _)| {
            info = Some(manifest.info);
            let store = new_store()?;
            let fill = Fill { tier, calls, downloads, store: store.as_store() };
            let filled = match options.partial {
                true => {
                    let older = view.manifests.range(..sequence).rev().copied();
                    fill.run_in_part(&manifest, older)
                }
                false => fill.run(&manifest, &|| true),
            };
            filled.map(|filled| filled.of(manifest.info))
        });
        match attempt {
            Ok(recovered) => return Ok(Recovered { skipped, ..recovered }),
            Err(error) if error.is_damage() => {
                tracing::warn!(sequence, %error, "a backup is not whole, trying an older one");
                let time = info.map(|info| info.time);
                skipped.push(Skipped { sequence, time, reason: error.to_string() });
            }
            Err(error) => return Err(error),
        }
    }
    match skipped.first() {
        None => Err(no_backup(tier, calls, &view)?),
        Some(newest) => Err(BackupError::NoWholeBackup {
            count: skipped.len(),
            readable: skipped.iter().filter(|skipped| skipped.time.is_some()).count(),
            reason: newest.reason.clone(),
        }),
    }
}

/// Says what is there in place of a backup.
fn no_backup(tier: &Arc<dyn Tier>, calls: &Calls, view: &View) -> BackupResult<BackupError> {
    let segments = calls.wait(collect::count(&**tier, SEGMENTS))?;
    Ok(BackupError::NoBackup { segments, pieces: view.pieces.len() as u64 })
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
    let Some(&sequence) = view.manifests.last() else { return Err(no_backup(tier, calls, &view)?) };
    let (manifest, _) = calls.wait(Manifest::fetch(&**tier, sequence))?;
    let fill = Fill { tier, calls, downloads: DOWNLOADS, store };
    Ok(fill.run(&manifest, goes_on)?.of(manifest.info))
}

/// Something that is a store.
pub(super) trait AsStore {
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

/// What was written of a backup.
pub(super) struct Filled {
    pub(super) records: u64,
    /// The highest epoch in use.
    pub(super) epoch: u16,
    pub(super) gaps: Vec<Gap>,
}

impl Filled {
    fn of(self, backup: ManifestInfo) -> Recovered {
        let Self { records, epoch, gaps } = self;
        Recovered { backup, skipped: Vec::new(), gaps, records, epoch }
    }
}

/// Writes backups into an empty store.
pub(super) struct Fill<'a> {
    pub(super) tier: &'a Arc<dyn Tier>,
    pub(super) calls: &'a Calls,
    pub(super) downloads: usize,
    pub(super) store: &'a dyn NamespaceStore,
}

impl Fill<'_> {
    /// Writes everything a manifest names and makes it durable, unless it is not to go on.
    fn run(&self, manifest: &Manifest, goes_on: &dyn Fn() -> bool) -> BackupResult<Filled> {
        let pieces = manifest.table.iter();
        let pieces: Vec<(Bucket, PieceRef)> = pieces
            .flat_map(|(bucket, pieces)| pieces.iter().map(|piece| (*bucket, *piece)))
            .collect();
        let records = self.all_of(&pieces, goes_on)?;
        let epoch = self.known_epoch(manifest.info.epoch)?;
        self.finish(epoch)?;
        Ok(Filled { records, epoch, gaps: Vec::new() })
    }

    /// Writes pieces and counts their records; when some are missing or damaged, the error tells
    /// which of all.
    pub(super) fn all_of(
        &self,
        pieces: &[(Bucket, PieceRef)],
        goes_on: &dyn Fn() -> bool,
    ) -> BackupResult<u64> {
        let mut lost = Lost::default();
        let records = self.pieces(pieces, goes_on, &mut lost)?;
        match lost.missing.count {
            0 => Ok(records),
            _ => Err(BackupError::incomplete(lost, pieces.len() as u64)),
        }
    }

    /// Writes those pieces that can be read, in the order of their keys, and notes the others as
    /// `lost`; returns the records that were written.
    pub(super) fn pieces(
        &self,
        pieces: &[(Bucket, PieceRef)],
        goes_on: &dyn Fn() -> bool,
        lost: &mut Lost,
    ) -> BackupResult<u64> {
        let mut records = 0;
        let mut last: Option<(Bucket, Vec<u8>)> = None;
        for some in pieces.chunks(self.downloads) {
            if !goes_on() {
                return Err(firn_tiering::Error::Cancelled.into());
            }
            let fetched = self.calls.wait(fetch(self.tier, some))?;
            for (&(bucket, piece), opened) in some.iter().zip(fetched) {
                let before = last.as_ref().filter(|(b, _)| *b == bucket).map(|(_, key)| key);
                let opened = opened.and_then(|opened| match before.zip(opened.first()) {
                    Some((before, (key, _))) if before >= key => {
                        Err(BackupError::damaged("backup", "its pieces are out of order"))
                    }
                    _ => Ok(opened),
                });
                match opened {
                    Ok(opened) => {
                        records += opened.len() as u64;
                        last = opened.last().map(|(key, _)| (bucket, key.to_vec()));
                        self.write(bucket, opened)?;
                    }
                    Err(error) if error.is_damage() => {
                        lost.note(bucket, piece.key(), error.to_string());
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(records)
    }

    /// Leaves the leases as a crash would and makes everything durable.
    pub(super) fn finish(&self, epoch: u16) -> BackupResult<()> {
        let mut leases = self.leases()?;
        leases.epoch = epoch;
        leases.clean = false;
        let mut batch = Batch::new();
        batch.put(Space::Meta, key::LEASES, leases.encode());
        self.store.commit(batch, Durability::Durable)?;
        self.store.sync()?;
        self.store.rest()?;
        Ok(())
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

    fn leases(&self) -> BackupResult<Leases> {
        let value = self.store.get(Space::Meta, key::LEASES)?;
        let value = value.ok_or_else(|| BackupError::damaged("backup", "it has no id leases"))?;
        Ok(Leases::decode(&value)?)
    }

    /// The highest epoch that is in use anywhere: the next open begins the one after it.
    pub(super) fn known_epoch(&self, of_manifest: u16) -> BackupResult<u16> {
        let known = self.leases()?.epoch.max(of_manifest);
        self.calls.wait(newest_epoch(&**self.tier, known))
    }
}

/// Fetches pieces at the same time and checks each.
async fn fetch(
    tier: &Arc<dyn Tier>,
    pieces: &[(Bucket, PieceRef)],
) -> BackupResult<Vec<BackupResult<Vec<piece::Record>>>> {
    let mut running = JoinSet::new();
    for (index, &(bucket, name)) in pieces.iter().enumerate() {
        let tier = Arc::clone(tier);
        running.spawn(async move {
            let check = |sealed: &[u8]| piece::open(sealed, &name, bucket);
            (index, manifest::fetch_checked(&*tier, &name.key(), check).await)
        });
    }
    let mut opened: Vec<_> = pieces.iter().map(|_| Ok(Vec::new())).collect();
    while let Some(done) = running.join_next().await {
        match done {
            Ok((index, got)) => opened[index] = got,
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
