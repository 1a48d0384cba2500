//! The hot tier's directory: names, listing, removal, and the bytes really used. Every change of
//! a name that something relies on is followed by an `fsync` of its directory.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::SeekFrom;

use crate::catalog::Holes;
use crate::error::{Error, Result};
use crate::segment::{DATA_START, FileKind, SegmentId, SegmentIndex, SegmentName};

/// Segment files kept open for reading.
const OPEN_FILES: usize = 128;

/// Longest index file that is read: larger ones were never written.
const MAX_IDX_LEN: u64 = 64 << 20;

/// What the directory held when it was listed.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) open: Vec<SegmentId>,
    pub(super) sealed: Vec<SegmentId>,
    pub(super) indexes: Vec<SegmentId>,
    pub(super) sidecars: Vec<SegmentId>,
}

/// Paths below the hot directory, and the files held open.
pub(super) struct HotDir {
    root: PathBuf,
    files: Mutex<OpenFiles>,
    /// What a test makes unreadable of each file.
    #[cfg(test)]
    pub(super) bad_sectors: super::testing::BadSectors,
}

#[derive(Default)]
struct OpenFiles {
    by_id: HashMap<SegmentId, Arc<File>>,
    order: VecDeque<SegmentId>,
    /// Counts what was forgotten: a file that was opened before is not kept any more, since a
    /// descriptor would keep the space of a removed file, and the bytes of a replaced one.
    forgotten: u64,
}

impl HotDir {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            files: Mutex::default(),
            #[cfg(test)]
            bad_sectors: super::testing::BadSectors::default(),
        }
    }

    /// Makes the directories and their names durable.
    pub(super) fn create(&self) -> Result<()> {
        for dir in [self.root.clone(), self.segments(), self.indexes(), self.staging()] {
            fs::create_dir_all(&dir).map_err(Error::io(format!("create {}", dir.display())))?;
        }
        sync_dir(&self.root)
    }

    pub(super) fn segments(&self) -> PathBuf {
        self.root.join("segments")
    }

    fn indexes(&self) -> PathBuf {
        self.root.join("index")
    }

    pub(super) fn staging(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(super) fn path(&self, id: SegmentId, kind: FileKind) -> PathBuf {
        let dir = if kind == FileKind::Index { self.indexes() } else { self.segments() };
        dir.join(id.file_name(kind))
    }

    pub(super) fn staged_path(&self, id: SegmentId, kind: FileKind) -> PathBuf {
        self.staging().join(id.file_name(kind))
    }

    /// Removes what an interrupted staging left behind.
    pub(super) fn clean_staging(&self) -> Result<()> {
        let dir = self.staging();
        let failed = || Error::io(format!("clean {}", dir.display()));
        for entry in fs::read_dir(&dir).map_err(failed())? {
            let path = entry.map_err(failed())?.path();
            if path.is_file() {
                fs::remove_file(path).map_err(failed())?;
            }
        }
        Ok(())
    }

    /// Every segment and index file, each list in id order.
    pub(super) fn list(&self) -> Result<Listing> {
        let mut listing = Listing::default();
        for dir in [self.segments(), self.indexes()] {
            let failed = || Error::io(format!("list {}", dir.display()));
            for entry in fs::read_dir(&dir).map_err(failed())? {
                let name = entry.map_err(failed())?.file_name();
                match name.to_str().and_then(SegmentId::parse_file_name) {
                    Some((id, FileKind::Open)) => listing.open.push(id),
                    Some((id, FileKind::Sealed)) => listing.sealed.push(id),
                    Some((id, FileKind::Index)) => listing.indexes.push(id),
                    Some((id, FileKind::Sidecar)) => listing.sidecars.push(id),
                    None => tracing::warn!(?name, "a file that is not ours lies in the hot tier"),
                }
            }
        }
        let Listing { open, sealed, indexes, sidecars } = &mut listing;
        for list in [open, sealed, indexes, sidecars] {
            list.sort_unstable();
        }
        Ok(listing)
    }

    /// Whether a sealed segment's file has its name still: one that is open outlives it.
    pub(super) fn has(&self, id: SegmentId) -> bool {
        self.path(id, FileKind::Sealed).exists()
    }

    /// The sealed segment's file, open for reading.
    pub(super) fn open_sealed(&self, id: SegmentId) -> io::Result<Arc<File>> {
        let forgotten = {
            let files = self.files.lock();
            if let Some(file) = files.by_id.get(&id) {
                return Ok(Arc::clone(file));
            }
            files.forgotten
        };
        let file = Arc::new(File::open(self.path(id, FileKind::Sealed))?);
        self.keep_open(id, &file, forgotten);
        Ok(file)
    }

    /// Keeps a file open that was opened when `forgotten` files had been forgotten.
    fn keep_open(&self, id: SegmentId, file: &Arc<File>, forgotten: u64) {
        let mut files = self.files.lock();
        if files.forgotten != forgotten {
            return;
        }
        if files.by_id.insert(id, Arc::clone(file)).is_none() {
            files.order.push_back(id);
        }
        while files.order.len() > OPEN_FILES {
            if let Some(oldest) = files.order.pop_front() {
                files.by_id.remove(&oldest);
            }
        }
    }

    /// Forgets the open file of a segment whose file was replaced or removed. Called after that:
    /// what is opened later is the new one.
    pub(super) fn forget(&self, id: SegmentId) {
        let mut files = self.files.lock();
        files.forgotten += 1;
        if files.by_id.remove(&id).is_some() {
            files.order.retain(|other| *other != id);
        }
    }

    /// Bytes the file really takes on the disk; 0 when there is none.
    pub(super) fn disk_bytes(&self, id: SegmentId, kind: FileKind) -> u64 {
        disk_bytes(&self.path(id, kind))
    }

    /// The parts of a sealed segment's frames that were never written or were punched out, as the
    /// disk says. One that does not say has none, and reading there fails verification.
    pub(super) fn holes(&self, id: SegmentId) -> Holes {
        let mut holes = Holes::default();
        let Ok(file) = File::open(self.path(id, FileKind::Sealed)) else { return holes };
        let len = file.metadata().map_or(0, |meta| meta.len());
        let mut at = DATA_START;
        while at < len {
            let Ok(start) = rustix::fs::seek(&file, SeekFrom::Hole(at)) else { break };
            if start >= len {
                break;
            }
            let end = rustix::fs::seek(&file, SeekFrom::Data(start)).unwrap_or(len);
            holes.insert(start.max(DATA_START), end);
            at = end;
        }
        holes
    }

    /// The index of a segment: from its hot file, or from the index file that outlives it.
    pub(super) fn read_index(&self, name: &SegmentName) -> Result<SegmentIndex> {
        let from_file = match self.open_sealed(name.id) {
            Ok(file) => SegmentIndex::from_file(file.as_ref(), name),
            Err(error) => Err(Error::io(format!("open segment {}", name.id))(error)),
        };
        from_file.or_else(|error| self.read_idx(name).map_err(|_| error))
    }

    fn read_idx(&self, name: &SegmentName) -> Result<SegmentIndex> {
        let path = self.path(name.id, FileKind::Index);
        let failed = || Error::io(format!("read {}", path.display()));
        let len = fs::metadata(&path).map_err(failed())?.len();
        if len > MAX_IDX_LEN {
            return Err(Error::Damaged { what: "index file", reason: format!("{len} bytes") });
        }
        SegmentIndex::from_idx_bytes(&fs::read(&path).map_err(failed())?, name)
    }

    /// Stores the index apart from the data, durably.
    pub(super) fn write_idx(&self, index: &SegmentIndex) -> Result<()> {
        let id = index.name().id;
        let aside = self.staged_path(id, FileKind::Index);
        let path = self.path(id, FileKind::Index);
        let failed = || Error::io(format!("write {}", path.display()));
        fs::write(&aside, index.to_idx_bytes()).map_err(failed())?;
        File::open(&aside).and_then(|file| file.sync_all()).map_err(failed())?;
        fs::rename(&aside, &path).map_err(failed())?;
        sync_dir(&self.indexes())
    }

    /// Gives a sealed segment in staging its place, durably, and its sidecar before it.
    pub(super) fn name_staged(&self, id: SegmentId) -> Result<()> {
        let sidecar = self.path(id, FileKind::Sidecar);
        match fs::rename(self.staged_path(id, FileKind::Sidecar), &sidecar) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io(format!("rename to {}", sidecar.display()))(error));
            }
            _ => {}
        }
        let (aside, path) =
            (self.staged_path(id, FileKind::Sealed), self.path(id, FileKind::Sealed));
        fs::rename(&aside, &path).map_err(Error::io(format!("rename to {}", path.display())))?;
        sync_dir(&self.segments())
    }

    /// Removes a file of a segment, durably; nothing to remove is success. With the sealed file its
    /// sidecar goes, after it.
    pub(super) fn remove(&self, id: SegmentId, kind: FileKind) -> Result<()> {
        let path = self.path(id, kind);
        let removed = fs::remove_file(&path);
        if kind == FileKind::Sealed {
            self.forget(id);
            self.remove(id, FileKind::Sidecar)?;
        }
        match removed {
            Ok(()) => sync_dir(path.parent().unwrap_or(&self.root)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io(format!("remove {}", path.display()))(error)),
        }
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(Error::io(format!("sync {}", dir.display())))
}

/// Bytes a file really takes; 0 when there is none.
pub(super) fn disk_bytes(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.blocks() * 512)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_file_that_a_reader_opened_just_before_its_removal_is_not_kept_open() {
        let root = tempfile::tempdir().unwrap();
        let hot = HotDir::new(root.path());
        hot.create().unwrap();
        let id = SegmentId::from_raw(1);
        let path = hot.path(id, FileKind::Sealed);
        fs::write(&path, b"ice").unwrap();
        let forgotten = hot.files.lock().forgotten;
        let opened = Arc::new(File::open(&path).unwrap());
        hot.remove(id, FileKind::Sealed).unwrap();
        hot.keep_open(id, &opened, forgotten);
        assert!(hot.open_sealed(id).is_err());
        fs::write(&path, b"snow").unwrap();
        let kept = hot.open_sealed(id).unwrap();
        assert!(Arc::ptr_eq(&kept, &hot.open_sealed(id).unwrap()));
    }
}
