//! Directories: looking names up, listing, and staging changes of their buckets.

use std::sync::Arc;

use super::key::{self, HeadKey, Kind};
use super::names::{DOT_COOKIE, DOT_DOT_COOKIE, bucket_of_cookie, check_name, cookie_of};
use super::record::{Bucket, Entry, Inode, Version};
use super::tree::View;
use super::view::Item;
use super::{Namespace, Txn};
use crate::error::{FsError, FsResult};
use crate::types::{DirEntry, FileKind, Ino};

/// Buckets read at once while listing.
const BUCKETS_PER_PAGE: usize = 256;

/// One bucket of a directory, loaded to be read or changed.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) number: u64,
    pub(super) version: Option<Version>,
    pub(super) bucket: Bucket,
}

impl Place {
    pub(super) fn cookie(&self, position: u8) -> u64 {
        cookie_of(self.number, position)
    }

    pub(super) fn stage(&self, txn: &mut Txn<'_>, dir: &Inode) -> FsResult<()> {
        txn.put_bucket(dir, self.number, self.version, &self.bucket)
    }

    /// Adds an entry; the directory cannot hold more names with this hash when it fails.
    pub(super) fn insert(&mut self, name: &[u8], ino: Ino, kind: FileKind) -> FsResult<u64> {
        let position = self.bucket.insert(name, ino, kind).ok_or(FsError::NoSpace)?;
        Ok(self.cookie(position))
    }
}

impl Namespace {
    /// The bucket in which `name` is or would be.
    pub(super) fn place(&self, dir: Ino, name: &[u8]) -> FsResult<Place> {
        let number = self.names.bucket(name);
        let view = self.view(dir)?;
        let key = key::head_numbered(view.line, dir, Kind::Dentry, number);
        let (version, bucket) = match self.read(&view, &key)? {
            None => (None, Bucket::default()),
            Some((version, _)) if version.whiteout => (Some(version), Bucket::default()),
            Some((version, record)) => (Some(version), view.bucket(&record)?),
        };
        Ok(Place { number, version, bucket })
    }

    /// The entry `name` of a directory; takes no lock.
    pub(super) fn entry(&self, dir: Ino, name: &[u8]) -> FsResult<Entry> {
        let place = self.place(dir, name)?;
        place.bucket.find(name).cloned().ok_or(FsError::NotFound)
    }

    /// What `name` in directory `parent` names.
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> FsResult<Arc<Inode>> {
        let dir = self.inode(parent)?;
        if !dir.is_dir() {
            return Err(FsError::NotDirectory);
        }
        match name {
            b"." => return Ok(dir),
            b".." => return self.inode(self.above(&dir)?),
            _ => check_name(name)?,
        }
        let view = self.view(parent)?;
        // The entry may be moved or removed between the two reads.
        for _ in 0..64 {
            let entry = self.entry(parent, name)?;
            if let Some(inode) = self.find_inode(self.through(&view, entry.ino)?)? {
                return Ok(inode);
            }
        }
        Err(FsError::io("namespace", format!("entry without an inode in directory {}", parent.0)))
    }

    /// The directory above one; of a dataset's root, the one that holds its junction.
    fn above(&self, dir: &Inode) -> FsResult<Ino> {
        match self.junction_above(dir.ino)? {
            Some(junction) => Ok(self.inode(junction)?.parent),
            None => Ok(dir.parent),
        }
    }

    /// Passes entries behind `cookie` (0: from the start, with `.` and `..`) to `sink` until it
    /// returns `false`. Entries that exist all the while are passed exactly once, whatever is
    /// added or removed in between. With `plus`, entries carry their inodes' stored attributes.
    pub fn readdir(
        &self,
        ino: Ino,
        cookie: u64,
        plus: bool,
        sink: &mut dyn FnMut(&DirEntry) -> bool,
    ) -> FsResult<()> {
        let dir = self.inode(ino)?;
        if !dir.is_dir() {
            return Err(FsError::NotDirectory);
        }
        let above = if cookie < DOT_DOT_COOKIE { self.above(&dir)? } else { dir.parent };
        for (own, name, target) in
            [(DOT_COOKIE, b".".as_slice(), ino), (DOT_DOT_COOKIE, b"..".as_slice(), above)]
        {
            if cookie < own {
                let entry = DirEntry {
                    ino: target,
                    kind: FileKind::Directory,
                    name: name.to_vec(),
                    cookie: own,
                    attr: None,
                };
                if !sink(&entry) {
                    return Ok(());
                }
            }
        }
        self.list_entries(ino, cookie, plus, sink)
    }

    fn list_entries(
        &self,
        dir: Ino,
        cookie: u64,
        plus: bool,
        sink: &mut dyn FnMut(&DirEntry) -> bool,
    ) -> FsResult<()> {
        let view = self.view(dir)?;
        let end = key::head_end(view.line, dir, Kind::Dentry);
        let mut from =
            key::head_numbered(view.line, dir, Kind::Dentry, bucket_of_cookie(cookie)).to_vec();
        // The kernel asks for about this many at first.
        let mut limit = BUCKETS_PER_PAGE / 4;
        loop {
            let page = self.scan(&view, &from, &end, limit)?;
            for item in &page.items {
                if !self.list_bucket(&view, item, cookie, plus, sink)? {
                    return Ok(());
                }
            }
            let Some(next) = page.next else { return Ok(()) };
            from = next;
            limit = BUCKETS_PER_PAGE;
        }
    }

    fn list_bucket(
        &self,
        view: &View,
        item: &Item,
        cookie: u64,
        plus: bool,
        sink: &mut dyn FnMut(&DirEntry) -> bool,
    ) -> FsResult<bool> {
        let number = HeadKey::decode(&item.key)?.number()?;
        for entry in view.bucket(item.record()?)?.entries() {
            let own = cookie_of(number, entry.position);
            if own <= cookie {
                continue;
            }
            let ino = match self.through(view, entry.ino) {
                // Until it is rolled back, a dataset shows as its directory.
                Err(FsError::Busy) => entry.ino,
                found => found?,
            };
            // An entry whose inode vanished was removed a moment ago.
            let attr = match plus {
                true => self.find_inode(ino)?.map(|inode| inode.attr()),
                false => None,
            };
            let entry =
                DirEntry { ino, kind: entry.kind, name: entry.name.clone(), cookie: own, attr };
            if !sink(&entry) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
