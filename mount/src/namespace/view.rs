//! Reading at a view: single records and ranges.

use bytes::Bytes;

use super::Namespace;
use super::key::Line;
use super::record::{Bucket, Inode, Version};
use super::store::Space;
use super::tree::View;
use crate::error::{FsError, FsResult};
use crate::types::Ino;

/// A record with its key and its version.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Its head key on the line of the view.
    pub(super) key: Bytes,
    /// Which version the view shows.
    pub(super) version: Version,
    /// The stored value, version included.
    pub(super) value: Bytes,
}

impl Item {
    /// The record behind the version.
    pub(super) fn record(&self) -> FsResult<&[u8]> {
        Ok(Version::split(&self.value)?.1)
    }
}

/// Part of a range, in key order.
#[derive(Clone, Debug, Default)]
pub(super) struct Scan {
    /// What the view shows.
    pub(super) items: Vec<Item>,
    /// Where to continue; `None` at the end of the range. There may be more even if `items` is
    /// empty.
    pub(super) next: Option<Vec<u8>>,
}

impl Namespace {
    /// The view that a number belongs to; [`FsError::Stale`] when it is gone.
    pub(super) fn view(&self, ino: Ino) -> FsResult<View> {
        self.tree.read().view(ino).ok_or(FsError::Stale)
    }

    /// The live view of a line; [`FsError::Stale`] when its dataset is gone.
    pub(super) fn live_view(&self, line: Line) -> FsResult<View> {
        self.tree.read().live_view(line).ok_or(FsError::Stale)
    }

    /// The version of a record that a view shows, by its head key on the view's line. A whiteout
    /// of the line itself is returned, since a change must know it.
    pub(super) fn read(&self, _: &View, key: &[u8]) -> FsResult<Option<(Version, Bytes)>> {
        let Some(value) = self.gate.store().get(Space::Head, key)? else { return Ok(None) };
        let (version, record) = Version::split(&value)?;
        Ok(Some((version, value.slice_ref(record))))
    }

    /// Records that a view shows, from `from` (inclusive) up to `to` (exclusive), which are head
    /// keys on its line; at most about `limit` at a time. Without whiteouts.
    pub(super) fn scan(&self, _: &View, from: &[u8], to: &[u8], limit: usize) -> FsResult<Scan> {
        let page = self.gate.store().page(Space::Head, from, Some(to), limit)?;
        let last = page.items.last().filter(|_| page.more);
        let next = last.map(|(key, _)| behind(key));
        let mut items = Vec::with_capacity(page.items.len());
        for (key, value) in page.items {
            let (version, _) = Version::split(&value)?;
            if !version.whiteout {
                items.push(Item { key, version, value });
            }
        }
        Ok(Scan { items, next })
    }
}

impl View {
    /// Decodes an inode as the view shows it.
    pub(super) fn inode(&self, ino: Ino, version: Version, record: &[u8]) -> FsResult<Inode> {
        let mut inode = Inode::decode(ino, version, record)?;
        inode.parent = self.lift(inode.parent);
        Ok(inode)
    }

    /// Decodes directory entries as the view shows them.
    pub(super) fn bucket(&self, record: &[u8]) -> FsResult<Bucket> {
        Ok(Bucket::decode(record)?.lift(|object| self.lift(object)))
    }
}

/// The first key behind `key`.
pub(super) fn behind(key: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}
