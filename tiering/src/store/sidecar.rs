//! Parity that lies apart from its segment: a file beside the segment's in hot, and an object of its
//! own in cold.
//!
//! *Life*: a sidecar is durable before its segment has its name, is copied to cold before its segment
//! is, and goes after it, in either tier. So a segment has its sidecar as long as nothing is damaged.
//! *Crash*: sealing leaves a sidecar beside an open segment, which is sealed again and writes it
//! anew; a removal leaves one beside no segment: in hot the next open removes it, in cold the record
//! that outlives the object leads to it, or the sweep of strays. Where a disk made the segment's name
//! durable and not that of the sidecar, it is lost, and made anew like one that somebody deleted.
//! *Loss*: nothing but parity is in it. A segment without one is read, moved and copied as before; it
//! is made anew from the segment, verified shard by shard, before that is copied, and by scrubs.
//! *Replacement*: in cold one that differs from the verified local one is replaced, unless the segment
//! object beside it is another's. *Strays* are deleted only while everything in both tiers is known,
//! and the store was asked for the segment itself.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::segment::{
    FileKind, Joined, ParityPlace, Patched, ReadAt, Repair, SIDECARS, SegmentId, SegmentIndex,
    SegmentName, repair,
};

use super::Inner;
use super::append::full_disk;
use super::cold::Cold;
use super::hotdir::{HotDir, sync_dir};
use super::object::ColdObject;
use super::repair::Suspect;
use super::steps::Step;
use super::table::Segment;
use super::upload::CALL_DEADLINE;
use crate::tier::is_retriable;

/// The local file of a segment, with that of its sidecar if there is one. What checks it takes what
/// cannot be read for damage; here it is remembered that it could not be.
pub(super) struct HotCopy {
    file: Arc<File>,
    sidecar: Option<File>,
    failure: Mutex<Option<io::Error>>,
    #[cfg(test)]
    bad_sectors: super::testing::BadSectors,
}

impl HotCopy {
    /// Those of the files that lie there.
    pub(super) fn at(segment: &Path, sidecar: &Path) -> io::Result<Self> {
        Self::with(Arc::new(File::open(segment)?), sidecar)
    }

    fn with(file: Arc<File>, sidecar: &Path) -> io::Result<Self> {
        let (sidecar, failure) = match File::open(sidecar) {
            Ok(sidecar) => (Some(sidecar), None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (None, None),
            Err(error) => {
                // As if it were not there: it is made anew, and the segment is what counts.
                tracing::warn!(%error, "{} cannot be opened", sidecar.display());
                (None, Some(error))
            }
        };
        Ok(Self {
            file,
            sidecar,
            failure: Mutex::new(failure),
            #[cfg(test)]
            bad_sectors: super::testing::BadSectors::default(),
        })
    }

    /// Whether a part could not be read, of which nobody knows whether it is damaged.
    pub(super) fn has_failed(&self) -> bool {
        self.failure.lock().is_some()
    }

    /// Why a part could not be read.
    pub(super) fn failure(&self) -> Option<Error> {
        self.failure.lock().take().map(Error::io("read what is stored in hot"))
    }

    fn read(&self, file: &File, buf: &mut [u8], offset: u64) -> io::Result<()> {
        #[cfg(test)]
        let read = self.bad_sectors.check(offset, buf.len());
        #[cfg(not(test))]
        let read = Ok(());
        read.and_then(|()| FileExt::read_exact_at(file, buf, offset)).inspect_err(|error| {
            // A file that ends too early was read.
            if error.kind() != io::ErrorKind::UnexpectedEof {
                *self.failure.lock() = Some(io::Error::new(error.kind(), error.to_string()));
            }
        })
    }

    /// The segment's file.
    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }
}

impl ReadAt for HotCopy {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.read(&self.file, buf, offset)
    }

    fn sidecar_len(&self) -> io::Result<u64> {
        self.sidecar.as_ref().ok_or(io::ErrorKind::NotFound)?.len()
    }

    fn read_sidecar_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let sidecar = self.sidecar.as_ref().ok_or(io::ErrorKind::NotFound)?;
        self.read(sidecar, buf, offset)
    }
}

impl HotDir {
    /// The sealed segment's file and that of its sidecar, open for reading.
    pub(super) fn open_copy(&self, id: SegmentId) -> io::Result<HotCopy> {
        let copy = HotCopy::with(self.open_sealed(id)?, &self.path(id, FileKind::Sidecar))?;
        #[cfg(test)]
        let copy = HotCopy { bad_sectors: self.bad_sectors.clone(), ..copy };
        Ok(copy)
    }

    /// Replaces the sidecar of a segment, durably.
    fn write_sidecar(&self, id: SegmentId, bytes: &[u8]) -> Result<()> {
        let aside = self.staged_path(id, FileKind::Sidecar);
        let path = self.path(id, FileKind::Sidecar);
        let failed = || Error::io(format!("write {}", path.display()));
        fs::write(&aside, bytes)
            .and_then(|()| File::open(&aside)?.sync_all())
            .and_then(|()| fs::rename(&aside, &path))
            .inspect_err(|_| discard(&aside))
            .map_err(failed())
            .map_err(full_disk)?;
        sync_dir(&self.segments())
    }
}

/// Removes what a full disk took of a file: nobody counts it before the next open.
fn discard(aside: &Path) {
    if let Err(error) = fs::remove_file(aside)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "{} stays until the next open", aside.display());
    }
}

/// The sidecar that belongs to a segment, as the repair found it; `None` where something of it is
/// lost.
fn sidecar_of<R: ReadAt + ?Sized>(bytes: &R, found: &Repair) -> Result<Option<Vec<u8>>> {
    if !found.is_segment_intact() || !found.lost.is_empty() {
        return Ok(None);
    }
    let end = found.file_len + found.sidecar_len;
    let joined = Joined::new(bytes, found.file_len, found.sidecar_len);
    let mut sidecar = vec![0; found.sidecar_len as usize];
    Patched::new(&joined, &found.patches, end)
        .read_exact_at(&mut sidecar, found.file_len)
        .map_err(Error::io("put a sidecar together"))?;
    Ok(Some(sidecar))
}

/// Whether a segment should have a sidecar in hot and, as far as `is_there` says, has none.
pub(super) fn lacks_sidecar(segment: &Segment, is_there: bool) -> bool {
    let record = &segment.record;
    record.hot && record.holes.is_empty() && record.place == ParityPlace::Object && !is_there
}

impl Inner {
    /// Makes the sidecar of a claimed hot segment anew where only that is damaged. Whether it was.
    pub(super) fn renew_hot_sidecar(
        &self,
        id: SegmentId,
        copy: &HotCopy,
        found: &Repair,
    ) -> Result<bool> {
        if found.is_sidecar_intact() {
            return Ok(false);
        }
        let Some(bytes) = sidecar_of(copy, found)? else { return Ok(false) };
        self.hot.write_sidecar(id, &bytes)?;
        self.recount(id);
        Ok(true)
    }

    /// The same in cold, without the segment having to come here.
    pub(super) fn renew_cold_sidecar(
        &self,
        cold: &Cold,
        object: &ColdObject<'_>,
        found: &Repair,
        name: &SegmentName,
    ) -> Result<bool> {
        if found.is_sidecar_intact() {
            return Ok(false);
        }
        let bytes = object.verdict(sidecar_of(object, found))?;
        let Some(bytes) = bytes else { return Ok(false) };
        let key = name.id.sidecar_key();
        let deadline = self.config.clock.instant() + CALL_DEADLINE;
        let (content, put_key) = (bytes::Bytes::from(bytes), key.clone());
        let put = content.clone();
        cold.call(deadline, "replacing a sidecar in cold", move |tier| {
            Box::pin(async move {
                tier.delete(&put_key).await?;
                match tier.put(&put_key, put.clone()).await {
                    // What was there is gone, so that one failure must not be the end of it.
                    Err(error) if is_retriable(&error) => tier.put(&put_key, put).await,
                    done => done,
                }
            })
        })?;
        let back = cold.get_range(key.clone(), 0..content.len() as u64, deadline)?;
        if back == content {
            return Ok(true);
        }
        Err(Error::Damaged { what: "cold object", reason: format!("{key} reads back differently") })
    }

    /// Copies the sidecar of a claimed segment whose local file was verified, if it has one, and
    /// compares. One that is not there is made in memory.
    pub(super) fn copy_sidecar(
        &self,
        cold: &Cold,
        copy: &HotCopy,
        found: &Repair,
        id: SegmentId,
    ) -> Result<()> {
        if found.sidecar_len == 0 {
            return Ok(());
        }
        let Some(local) = sidecar_of(copy, found)?.map(bytes::Bytes::from) else {
            tracing::warn!(%id, "a segment goes to cold without its sidecar, which cannot be made");
            return Ok(());
        };
        let key = id.sidecar_key();
        for _ in 0..2 {
            let deadline = self.config.clock.instant() + CALL_DEADLINE;
            let (put_key, put) = (key.clone(), local.clone());
            let put = cold.call(deadline, "copying a sidecar to cold", move |tier| {
                Box::pin(async move { tier.put(&put_key, put).await })
            });
            match put {
                Ok(()) | Err(Error::Exists(_)) => {}
                Err(error) => return Err(error),
            }
            if self.is_sidecar_there(cold, &key, &local, deadline)? {
                return self.reached(Step::UploadAfterSidecar);
            }
            // It is the copy of this one that is damaged, or another segment's of that name.
            self.check_owned(cold, id)?;
            let delete_key = key.clone();
            cold.call(deadline, "replacing a sidecar in cold", move |tier| {
                Box::pin(async move { tier.delete(&delete_key).await })
            })?;
        }
        Err(Error::Damaged { what: "cold object", reason: format!("{key} reads back differently") })
    }

    fn is_sidecar_there(
        &self,
        cold: &Cold,
        key: &str,
        local: &[u8],
        deadline: Instant,
    ) -> Result<bool> {
        if self.object_len(cold, key, deadline)? != local.len() as u64 {
            return Ok(false);
        }
        match cold.get_range(key.to_owned(), 0..local.len() as u64, deadline) {
            Ok(bytes) => Ok(*bytes == *local),
            Err(Error::Damaged { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes the sidecar of a claimed segment that was brought back whole, which comes without. Where
    /// that fails the segment is as good as before, and is looked at again.
    pub(super) fn complete_sidecar(&self, id: SegmentId) {
        let lacks = self.table.with(id, |segment| lacks_sidecar(segment, false)) == Some(true);
        if !lacks || self.hot.path(id, FileKind::Sidecar).exists() {
            return;
        }
        let made = self
            .hot
            .open_copy(id)
            .map_err(Error::io(format!("open segment {id}")))
            .and_then(|copy| Ok((repair(&copy, &self.name(id))?, copy)))
            .and_then(|(found, copy)| self.renew_hot_sidecar(id, &copy, &found));
        if !matches!(made, Ok(true)) {
            tracing::warn!(%id, ?made, "the sidecar of a segment could not be made yet");
            self.suspect(id, Suspect::HOT);
        }
    }

    /// Deletes the sidecar of a segment whose object was deleted.
    pub(super) fn delete_cold_sidecar(
        &self,
        cold: &Cold,
        index: &SegmentIndex,
        deadline: Instant,
    ) -> Result<()> {
        if index.trailer().place != ParityPlace::Object {
            return Ok(());
        }
        let key = index.name().id.sidecar_key();
        cold.call(deadline, "deleting from the cold tier", move |tier| {
            Box::pin(async move { tier.delete(&key).await })
        })?;
        self.reached(Step::ColdDeleteAfterSidecar)
    }

    /// Removes hot sidecars beside which no sealed segment lies. What an open one has of it is
    /// written anew when that is sealed.
    pub(super) fn remove_stray_sidecars(&self, strays: &[SegmentId]) -> Result<()> {
        for id in strays {
            tracing::info!(%id, "the sidecar of a segment that is gone is removed");
            self.hot.remove(*id, FileKind::Sidecar)?;
        }
        Ok(())
    }

    /// Deletes sidecars in cold whose segments are in neither tier. They take room and do no harm, so
    /// that what cannot be done now waits for the next sweep.
    pub(super) fn sweep_cold_sidecars(&self) {
        let Some(cold) = &self.cold else { return };
        if self.config.backup.is_none() || !self.is_view_complete() {
            return;
        }
        if let Err(error) = self.delete_stray_sidecars(cold) {
            let error = super::read::chain(&error);
            tracing::warn!(error, "cold was not looked through for sidecars without a segment");
        }
    }

    fn delete_stray_sidecars(&self, cold: &Cold) -> Result<()> {
        self.check_writable()?;
        let mut strays = Vec::new();
        self.ask_aside(|deadline| {
            cold.list(SIDECARS, deadline, |object| {
                let id = SegmentId::of_sidecar_key(&object.key);
                strays.extend(id.filter(|id| !self.table.contains(*id) && !self.is_unsealed(*id)));
            })
        })?;
        for id in strays {
            match self.ask_aside(|deadline| self.cold_len_by(cold, id, deadline)) {
                Err(Error::NotFound(_)) if self.is_view_complete() => {}
                Ok(_) | Err(Error::NotFound(_)) => continue,
                Err(error) => return Err(error),
            }
            let key = id.sidecar_key();
            self.ask_aside(|deadline| {
                cold.call(deadline, "deleting from the cold tier", move |tier| {
                    Box::pin(async move { tier.delete(&key).await })
                })
            })?;
            tracing::info!(%id, "the sidecar in cold of a segment that is gone was deleted");
        }
        Ok(())
    }
}
