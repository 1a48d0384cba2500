//! The namespace's way out of the machine: an incremental, verified copy in the cold tier, from
//! which [`recover`] makes a namespace again.
//!
//! *What is copied.* All spaces of the store, cut into buckets of neighbouring keys, each bucket
//! into pieces named by their digest; a manifest lists the pieces of every bucket. Bytes are
//! specified in `tiering/FORMAT.md`, "Namespace backup". [`Tracked`] knows which buckets changed
//! since the last backup; only those are read again, and of a big bucket only the pieces around
//! the change are uploaded again.
//!
//! *Crash rules.* A backup exists when its manifest does. Order: pieces, each read back and
//! compared; the manifest, likewise; then the note in the store that makes it the base of the
//! next backup; then the marks are taken away; then old manifests and, last, the pieces that no
//! manifest names. A crash at any step leaves the last backup whole, at worst with pieces that
//! the next collection removes, or with marks whose buckets are read once more.
//!
//! *Failure.* Nothing here touches what the namespace holds; a failed backup is tried again from
//! where the marks say. Pieces are deleted only when every manifest in the tier could be read.

mod bucket;
mod calls;
mod collect;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod manifest;
mod missing;
mod partial;
mod piece;
mod recover;
mod rehearsal;
mod tracked;
mod upload;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use firn_tiering::Clock;
use firn_tiering::tier::Tier;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::namespace::key;
use crate::namespace::{Batch, Durability, NamespaceReader, Space};

use bucket::Bucket;
use calls::Calls;
use manifest::{Manifest, Table};
use piece::Cutter;
use rehearsal::Rehearsal;
use upload::Uploads;

pub use collect::Fuller;
pub use error::BackupError;
pub use manifest::ManifestInfo;
pub use missing::Missing;
pub use partial::Gap;
pub use piece::PieceLimits;
pub use recover::{RecoverOptions, Recovered, Skipped, recover, restore_into};
pub use rehearsal::Rehearsed;
pub use tracked::{Frozen, Mark, Tracked};
pub use verify::{DamagedObject, Verified, verify_newest};

/// Result of a backup or a recovery.
pub type BackupResult<T> = Result<T, BackupError>;

/// Note in the namespace that names the base of the next backup.
const BASE_NOTE: &str = "backup/base";

/// Settings of backups.
#[derive(Clone, Copy, Debug)]
pub struct BackupOptions {
    /// Manifests kept, at least 1. More gives older states to fall back to and holds more pieces
    /// and, through them, more segments.
    pub keep_manifests: usize,
    /// Pieces uploaded at a time. Each takes up to [`PieceLimits::max_len`] of memory.
    pub uploads: usize,
    /// How long pieces are.
    pub pieces: PieceLimits,
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self { keep_manifests: 8, uploads: 4, pieces: PieceLimits::default() }
    }
}

/// The last verified backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastBackup {
    /// Its number.
    pub sequence: u64,
    /// The state it holds is the one of this time.
    pub time: SystemTime,
    /// It holds every commit up to here. `None` after opening, when something had changed since.
    pub mark: Option<Mark>,
}

/// What is known of backups, for `status` and for whoever waits for one.
#[derive(Clone, Debug, Default)]
pub struct BackupStatus {
    /// The last one that was verified.
    pub last: Option<LastBackup>,
    /// Every retained backup holds all commits up to here: what no longer mattered then is
    /// named by none of them. `None` when an older one may.
    pub oldest_mark: Option<Mark>,
    /// Why the last attempt failed, if it did.
    pub failure: Option<String>,
    /// An old one that is kept since the last holds far less.
    pub fuller: Option<Fuller>,
}

impl BackupStatus {
    /// Whether a verified backup holds everything committed up to `mark`.
    pub fn covers(&self, mark: Mark) -> bool {
        self.last.as_ref().and_then(|last| last.mark).is_some_and(|held| held >= mark)
    }
}

/// What a backup did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupReport {
    /// Its number; the last one's when nothing had changed.
    pub sequence: u64,
    /// Whether every bucket was read, for want of a base.
    pub full: bool,
    /// Buckets read.
    pub buckets_read: u64,
    /// Records read.
    pub records_read: u64,
    /// Pieces uploaded.
    pub pieces_uploaded: u64,
    /// Bytes uploaded, the manifest included.
    pub uploaded_bytes: u64,
    /// Manifests and pieces deleted.
    pub deleted: u64,
}

/// Backs a namespace up into a tier.
#[derive(Debug)]
pub struct Backup {
    store: Arc<Tracked>,
    tier: Arc<dyn Tier>,
    calls: Calls,
    clock: Arc<dyn Clock>,
    volume: [u8; 16],
    options: BackupOptions,
    running: Mutex<Session>,
    status: Mutex<BackupStatus>,
    distrusted: AtomicBool,
}

/// What one session of a mounted volume remembers between backups.
#[derive(Debug, Default)]
struct Session {
    /// The base, already verified in this session.
    base: Option<Manifest>,
    /// Marks of the manifests written in this session.
    marks: BTreeMap<u64, Mark>,
}

impl Backup {
    /// Prepares backups of `store` into `tier`; reads only the store. `volume` is the volume's
    /// UUID, so that two volumes cannot share a tier by mistake.
    pub fn new(
        store: Arc<Tracked>,
        tier: Arc<dyn Tier>,
        runtime: Handle,
        clock: Arc<dyn Clock>,
        volume: [u8; 16],
        options: BackupOptions,
    ) -> BackupResult<Self> {
        let base = Base::load(&*store)?;
        let last = match base {
            Some(base) => {
                let is_current = !store.has_marks()?;
                let mark = is_current.then_some(Mark::OPENED);
                Some(LastBackup { sequence: base.sequence, time: base.time, mark })
            }
            None => None,
        };
        let status = Mutex::new(BackupStatus { last, ..BackupStatus::default() });
        let running = Mutex::default();
        let calls = Calls::on(runtime);
        let distrusted = AtomicBool::new(false);
        Ok(Self { store, tier, calls, clock, volume, options, running, status, distrusted })
    }

    /// What is known now.
    pub fn status(&self) -> BackupStatus {
        self.status.lock().clone()
    }

    /// Whether the newest backup in `tier` can be restored: does so in `dir`, checks what is there
    /// then, and removes it. An error that [`BackupError::is_damage`] says that it cannot be.
    /// Blocks for long: not for asynchronous threads. `goes_on` is asked again and again.
    pub fn rehearse(
        &self,
        tier: &Arc<dyn Tier>,
        dir: &Path,
        goes_on: &dyn Fn() -> bool,
    ) -> BackupResult<Rehearsed> {
        Rehearsal { tier, calls: &self.calls, clock: &self.clock, dir, goes_on }.run()
    }

    /// As [`Backup::rehearse`] without a place to restore to: reads the newest backup throughout.
    pub fn verify(&self, tier: &Arc<dyn Tier>) -> BackupResult<Option<Verified>> {
        self.calls.wait(verify::verify(&**tier))
    }

    /// Has the next backup copy everything, and look at each object that is there already: what is
    /// believed about the tier turned out to be wrong.
    pub fn distrust(&self) {
        self.distrusted.store(true, Ordering::Relaxed);
    }

    /// Cuts short what runs, and lets every later backup fail: nothing waits for the tier any more.
    pub fn end(&self) {
        self.calls.end();
    }

    /// Makes a backup of this moment and verifies it; returns at once when nothing changed since
    /// the last. Blocks: not for asynchronous threads. One runs at a time, others wait.
    pub fn run(&self) -> BackupResult<BackupReport> {
        let mut session = self.running.lock();
        let distrusted = self.distrusted.swap(false, Ordering::Relaxed);
        let result = self.run_once(&mut session, distrusted);
        if result.is_err() && distrusted {
            self.distrust();
        }
        let mut status = self.status.lock();
        match &result {
            Ok(_) => status.failure = None,
            Err(error) => {
                // Whatever was believed about the tier is looked up again next time.
                session.base = None;
                status.failure = Some(error.to_string());
            }
        }
        result
    }

    fn run_once(&self, session: &mut Session, distrusted: bool) -> BackupResult<BackupReport> {
        let time = self.clock.now();
        let frozen = self.store.freeze()?;
        let view = self.calls.wait(collect::View::of(&*self.tier))?;
        let base = match self.base(session, &view, &*frozen.reader)? {
            Some(_) if distrusted => None,
            base => base,
        };
        let mut report = BackupReport { full: base.is_none(), ..BackupReport::default() };
        let marked = frozen.marked()?;
        let table = match &base {
            Some(base) => {
                let mut buckets: BTreeSet<Bucket> = marked.iter().map(|(b, _)| *b).collect();
                buckets.extend(view.incomplete(&base.table));
                // A newer manifest, of an attempt that was cut short or a state that power loss
                // took back, must not stay the newest.
                if buckets.is_empty() && view.manifests.last() == Some(&base.info.sequence) {
                    report.sequence = base.info.sequence;
                    self.note_success(base.info.sequence, time, frozen.mark);
                    session.base = Some(base.clone());
                    return Ok(report);
                }
                self.copy_buckets(&*frozen.reader, base, &view, buckets, &mut report)?
            }
            None => self.copy_all(&*frozen.reader, &mut report)?,
        };
        let epoch = recover::epoch_of(&*frozen.reader)?;
        let info =
            ManifestInfo { sequence: view.next_sequence(), epoch, volume: self.volume, time };
        let manifest = Manifest { info, table };
        let (sealed, digest) = manifest.encode()?;
        report.sequence = info.sequence;
        report.uploaded_bytes += sealed.len() as u64;
        let key = manifest::key(info.sequence);
        self.calls.wait(upload::put_verified(&*self.tier, &key, sealed))?;
        let base = Base { sequence: info.sequence, time, digest: digest.0 };
        self.store.rebase(&base.encode(), &marked)?;
        session.marks.insert(info.sequence, frozen.mark);
        self.note_success(info.sequence, time, frozen.mark);
        report.deleted = self.collect(session, &view, &manifest);
        session.base = Some(manifest);
        Ok(report)
    }

    /// The manifest that the marks are relative to; `None` when it is lost, damaged or was never
    /// made.
    fn base(
        &self,
        session: &Session,
        view: &collect::View,
        reader: &dyn NamespaceReader,
    ) -> BackupResult<Option<Manifest>> {
        self.calls.wait(collect::refuse_foreign(&*self.tier, view, self.volume))?;
        let Some(base) = Base::load(reader)? else { return Ok(None) };
        if !view.manifests.contains(&base.sequence) {
            tracing::warn!(base.sequence, "the last backup is gone, making a full one");
            return Ok(None);
        }
        if let Some(known) = session.base.as_ref().filter(|m| m.info.sequence == base.sequence) {
            return Ok(Some(known.clone()));
        }
        match self.calls.wait(Manifest::fetch(&*self.tier, base.sequence)) {
            Ok((manifest, digest)) if digest.0 == base.digest => Ok(Some(manifest)),
            Ok(_) => {
                tracing::warn!(base.sequence, "the last backup is not ours, making a full one");
                Ok(None)
            }
            Err(error) if error.is_damage() => {
                tracing::warn!(base.sequence, %error, "the last backup is damaged, making a full one");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn copy_buckets(
        &self,
        reader: &dyn NamespaceReader,
        base: &Manifest,
        view: &collect::View,
        buckets: BTreeSet<Bucket>,
        report: &mut BackupReport,
    ) -> BackupResult<Table> {
        let mut table = base.table.clone();
        // Named by the base and there in full length: verified when it was uploaded.
        let known = base.pieces().filter(|piece| view.holds(piece)).map(|p| p.digest).collect();
        let mut uploads = Uploads::new(&self.tier, &self.calls, self.options.uploads, known);
        for bucket in buckets {
            let pieces = self.copy_bucket(reader, bucket, &mut uploads, report)?;
            if pieces.is_empty() {
                table.remove(&bucket);
            } else {
                table.insert(bucket, pieces);
            }
        }
        uploads.finish()?;
        Ok(table)
    }

    fn copy_all(
        &self,
        reader: &dyn NamespaceReader,
        report: &mut BackupReport,
    ) -> BackupResult<Table> {
        let mut table = Table::new();
        let known = BTreeSet::new();
        let mut uploads = Uploads::new(&self.tier, &self.calls, self.options.uploads, known);
        for space in Space::ALL {
            let mut from = Some(Vec::new());
            while let Some(start) = from {
                let page = reader.page(space, &start, None, 1)?;
                let Some((key, _)) = page.items.first() else { break };
                let bucket = Bucket::of(space, key);
                let pieces = self.copy_bucket(reader, bucket, &mut uploads, report)?;
                if !pieces.is_empty() {
                    table.insert(bucket, pieces);
                }
                from = bucket.range().1;
            }
        }
        uploads.finish()?;
        Ok(table)
    }

    /// Reads one bucket and hands its pieces to `uploads`.
    fn copy_bucket(
        &self,
        reader: &dyn NamespaceReader,
        bucket: Bucket,
        uploads: &mut Uploads<'_>,
        report: &mut BackupReport,
    ) -> BackupResult<Vec<piece::PieceRef>> {
        report.buckets_read += 1;
        let mut cutter = Cutter::new(self.options.pieces);
        let mut pieces = Vec::new();
        let (mut from, to) = bucket.range();
        loop {
            let page = reader.page(bucket.space(), &from, to.as_deref(), usize::MAX)?;
            for (key, value) in &page.items {
                if tracked::is_private(bucket.space(), key) {
                    continue;
                }
                report.records_read += 1;
                if let Some(piece) = cutter.push(key, value)? {
                    pieces.push(uploads.add(piece, report)?);
                }
            }
            match page.items.last() {
                Some((last, _)) if page.more => {
                    from = last.to_vec();
                    from.push(0);
                }
                _ => break,
            }
        }
        if let Some(piece) = cutter.finish()? {
            pieces.push(uploads.add(piece, report)?);
        }
        Ok(pieces)
    }

    fn note_success(&self, sequence: u64, time: SystemTime, mark: Mark) {
        self.status.lock().last = Some(LastBackup { sequence, time, mark: Some(mark) });
    }

    /// Removes what is no longer needed. What cannot be removed now is removed next time.
    fn collect(&self, session: &mut Session, view: &collect::View, newest: &Manifest) -> u64 {
        let keep = self.options.keep_manifests.max(1);
        let collected = collect::collect(&*self.tier, view, newest, keep);
        match self.calls.wait(collected) {
            Ok(collected) => {
                session.marks.retain(|sequence, _| *sequence >= collected.oldest_kept);
                // A manifest of an older session holds a state that this one knows nothing about.
                let oldest = session.marks.get(&collected.oldest_kept);
                let mut status = self.status.lock();
                status.oldest_mark = oldest.copied();
                status.fuller = collected.fuller;
                collected.deleted
            }
            Err(error) => {
                tracing::warn!(%error, "old backups were not cleared away");
                0
            }
        }
    }
}

/// The note that names the base of the next backup: version, sequence, time, digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Base {
    sequence: u64,
    time: SystemTime,
    digest: [u8; 32],
}

impl Base {
    const VERSION: u8 = 1;
    const LEN: usize = 1 + 8 + 8 + 32;

    fn load(reader: &dyn NamespaceReader) -> BackupResult<Option<Self>> {
        let value = reader.get(Space::Meta, &key::note(BASE_NOTE))?;
        // Without a base that makes sense the next backup is a full one: nothing is lost.
        Ok(value.and_then(|value| Self::decode(&value)))
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![Self::VERSION];
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&manifest::nanos(self.time).to_le_bytes());
        out.extend_from_slice(&self.digest);
        out
    }

    fn decode(value: &[u8]) -> Option<Self> {
        if value.len() != Self::LEN || value[0] != Self::VERSION {
            return None;
        }
        let sequence = u64::from_le_bytes(value[1..9].try_into().ok()?);
        let time = manifest::time_of(u64::from_le_bytes(value[9..17].try_into().ok()?));
        Some(Self { sequence, time, digest: value[17..].try_into().ok()? })
    }
}

/// A batch with one note.
fn note_batch(name: &str, value: &[u8]) -> Batch {
    let mut batch = Batch::new();
    batch.put(Space::Meta, &key::note(name), value.to_vec());
    batch
}

const NOTE_DURABILITY: Durability = Durability::Buffered;

#[cfg(test)]
mod tests;
