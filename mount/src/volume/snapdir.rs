//! `.firn/snapshot/<name>/` at the root of each dataset: the way to its snapshots.
//!
//! Two directories that nobody stores, with reserved numbers in the dataset's live view. Looking
//! them up always works; a listing of the root shows `.firn` only where that was asked for. They
//! hold nothing but snapshots' roots, below which everything is the namespace's again. Nothing
//! here can be changed, and nothing else can have the name `.firn`.

use std::time::SystemTime;

use super::Volume;
use crate::error::{FsError, FsResult};
use crate::namespace::{Dataset, TreeError};
use crate::types::{Attr, DirEntry, FileKind, Forget, Ino};

/// The directory at the root of each dataset.
pub(super) const CONTROL_NAME: &[u8] = b".firn";
/// The directory in it.
const SNAPSHOTS_NAME: &[u8] = b"snapshot";

const CONTROL: u64 = Ino::RESERVED;
const SNAPSHOTS: u64 = Ino::RESERVED + 1;

/// Position of `..` in a listing.
const DOT_DOT: u64 = 2;
/// Position of what a reserved directory holds first, and of [`CONTROL_NAME`] in a root: before all
/// that is stored there.
const FIRST: u64 = 3;

/// A directory that is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// `.firn` of a dataset.
    Control(Dataset),
    /// `.firn/snapshot` of a dataset.
    Snapshots(Dataset),
}

/// An entry without attributes.
fn listed(name: &[u8], ino: Ino, cookie: u64) -> DirEntry {
    DirEntry { ino, kind: FileKind::Directory, name: name.to_vec(), cookie, attr: None }
}

impl Volume {
    fn lists_snapdir(&self, dataset: Dataset) -> bool {
        self.names.properties(dataset).is_ok_and(|own| own.lists_snapdir)
    }

    /// What a number stands for that is not stored.
    pub(super) fn snapdir(&self, ino: Ino) -> FsResult<Option<Place>> {
        if ino.object() < Ino::RESERVED {
            return Ok(None);
        }
        let dataset = self.names.dataset_of(ino).map_err(fs_error)?;
        let place = match ino.object() {
            CONTROL => Place::Control(dataset),
            SNAPSHOTS => Place::Snapshots(dataset),
            _ => return Err(FsError::Stale),
        };
        let is_live = self.names.in_live_view(dataset, ino.object())? == ino;
        if is_live { Ok(Some(place)) } else { Err(FsError::Stale) }
    }

    /// Refuses to change what is not stored.
    pub(super) fn check_stored(&self, ino: Ino) -> FsResult<()> {
        if ino.object() < Ino::RESERVED { Ok(()) } else { Err(FsError::InSnapshot) }
    }

    /// Refuses to change an entry that is not stored.
    pub(super) fn check_entry(&self, parent: Ino, name: &[u8]) -> FsResult<()> {
        self.check_stored(parent)?;
        match name == CONTROL_NAME && self.names.live_root_of(parent).is_some() {
            true => Err(FsError::NotPermitted),
            false => Ok(()),
        }
    }

    /// The entry `name` of `parent` if that is a reserved directory, or if it is one itself.
    /// Counts a reference.
    pub(super) fn lookup_snapdir(&self, parent: Ino, name: &[u8]) -> FsResult<Option<Attr>> {
        let found = match self.snapdir(parent)? {
            Some(Place::Control(dataset)) if name == SNAPSHOTS_NAME => {
                self.names.in_live_view(dataset, SNAPSHOTS)?
            }
            Some(Place::Control(_)) => return Err(FsError::NotFound),
            Some(Place::Snapshots(dataset)) => {
                let name = std::str::from_utf8(name).map_err(|_| FsError::NotFound)?;
                self.names.snapshot_root(dataset, name).map_err(fs_error)?
            }
            None if name != CONTROL_NAME => return Ok(None),
            None => match self.names.live_root_of(parent) {
                Some(dataset) => self.names.in_live_view(dataset, CONTROL)?,
                None => return Ok(None),
            },
        };
        self.table.look_up(found);
        let attr = self.attr(found);
        if attr.is_err() {
            self.forget_inode(found, 1);
        }
        attr.map(Some)
    }

    /// Attributes of a reserved directory.
    pub(super) fn snapdir_attr(&self, ino: Ino, place: Place) -> FsResult<Attr> {
        let (nlink, time) = match place {
            Place::Control(dataset) => (3, self.born(dataset)?),
            Place::Snapshots(dataset) => {
                let snapshots = self.names.snapshots(dataset).map_err(fs_error)?;
                let last = snapshots.last().map(|snapshot| SystemTime::from(snapshot.created));
                let time = last.map_or_else(|| self.born(dataset), Ok)?;
                (2 + snapshots.len() as u32, time)
            }
        };
        Ok(Attr {
            ino,
            generation: 0,
            kind: FileKind::Directory,
            perm: 0o755,
            nlink,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
        })
    }

    fn born(&self, dataset: Dataset) -> FsResult<SystemTime> {
        Ok(self.names.getattr(self.names.live_root(dataset)?)?.crtime)
    }

    /// Passes entries of any directory behind `cookie` to `sink`, without attributes where they are
    /// not stored.
    pub(super) fn entries(
        &self,
        ino: Ino,
        cookie: u64,
        plus: bool,
        sink: &mut dyn FnMut(&DirEntry) -> bool,
    ) -> FsResult<()> {
        if let Some(place) = self.snapdir(ino)? {
            for entry in self.reserved_entries(ino, place)? {
                if entry.cookie > cookie && !sink(&entry) {
                    break;
                }
            }
            return Ok(());
        }
        if cookie < DOT_DOT
            && let Some(dataset) = self.names.snapshot_root_of(ino)
        {
            let above = self.names.in_live_view(dataset, SNAPSHOTS)?;
            return self.names.readdir(ino, cookie, plus, &mut |entry| match &entry.name[..] {
                b".." => sink(&DirEntry { ino: above, ..entry.clone() }),
                _ => sink(entry),
            });
        }
        let shown = self.names.live_root_of(ino).filter(|&dataset| self.lists_snapdir(dataset));
        match shown.filter(|_| cookie < FIRST) {
            Some(dataset) => self.root_entries(ino, dataset, cookie, plus, sink),
            None => self.names.readdir(ino, cookie, plus, sink),
        }
    }

    /// Entries of a root that shows `.firn`: behind `..`, in front of all that is stored.
    fn root_entries(
        &self,
        root: Ino,
        dataset: Dataset,
        cookie: u64,
        plus: bool,
        sink: &mut dyn FnMut(&DirEntry) -> bool,
    ) -> FsResult<()> {
        let control = listed(CONTROL_NAME, self.names.in_live_view(dataset, CONTROL)?, FIRST);
        let (mut is_due, mut goes_on) = (true, true);
        self.names.readdir(root, cookie, plus, &mut |entry| {
            if is_due && entry.cookie > FIRST {
                is_due = false;
                goes_on = sink(&control);
            }
            goes_on = goes_on && sink(entry);
            goes_on
        })?;
        if is_due && goes_on {
            sink(&control);
        }
        Ok(())
    }

    fn reserved_entries(&self, ino: Ino, place: Place) -> FsResult<Vec<DirEntry>> {
        let above = match place {
            Place::Control(dataset) => self.names.live_root(dataset)?,
            Place::Snapshots(dataset) => self.names.in_live_view(dataset, CONTROL)?,
        };
        let mut entries = vec![listed(b".", ino, 1), listed(b"..", above, DOT_DOT)];
        match place {
            Place::Control(dataset) => {
                let snapshots = self.names.in_live_view(dataset, SNAPSHOTS)?;
                entries.push(listed(SNAPSHOTS_NAME, snapshots, FIRST));
            }
            Place::Snapshots(dataset) => {
                let snapshots = self.names.snapshots(dataset).map_err(fs_error)?;
                // Younger ones come later, so that a listing goes on where it was.
                entries.extend(snapshots.into_iter().map(|snapshot| {
                    let cookie = FIRST + u64::from(snapshot.node.0);
                    listed(snapshot.name.as_bytes(), snapshot.root, cookie)
                }));
            }
        }
        Ok(entries)
    }

    /// Where a dataset's snapshots are, as far as the kernel may remember a name or a listing.
    pub(super) fn snapdir_changed(&self, dataset: Dataset, names: &[&str]) -> Forget {
        // A dataset that went meanwhile took its directories along.
        let Ok(snapshots) = self.names.in_live_view(dataset, SNAPSHOTS) else {
            return Forget::default();
        };
        let entries = names.iter().map(|name| (snapshots, name.as_bytes().to_vec()));
        Forget { entries: entries.collect(), listings: Vec::new(), inodes: vec![snapshots] }
    }

    /// The path that leads to the root of the snapshot in which an inode is.
    pub(super) fn snapdir_path(&self, ino: Ino) -> Option<Vec<u8>> {
        let (dataset, name) = self.names.snapshot_with(ino)?;
        let mut path = self.names.path(self.names.live_root(dataset).ok()?);
        if path == b"/" {
            path.clear();
        }
        for name in [CONTROL_NAME, SNAPSHOTS_NAME, name.as_bytes()] {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        Some(path)
    }
}

/// What programs see of a failure to find a dataset or snapshot.
fn fs_error(error: TreeError) -> FsError {
    match error {
        TreeError::Fs(error) => error,
        TreeError::NoSnapshot(_) => FsError::NotFound,
        TreeError::NoDataset => FsError::Stale,
        other => FsError::io("namespace", other),
    }
}
