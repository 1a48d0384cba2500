//! Reading at a view: single records and ranges.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Namespace;
use super::key::{self, Line, Node};
use super::record::{Bucket, Inode, Origin, RecordError, Version};
use super::store::Space;
use super::tree::View;
use crate::error::{FsError, FsResult};
use crate::types::Ino;

/// How often a record may move while it is read.
const ATTEMPTS: usize = 64;

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

/// Keys with the values that are known to show.
pub(super) type ShownKeys = BTreeMap<Vec<u8>, Option<Bytes>>;

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
        let view = self.tree.read().view(ino);
        // Only a rollback leaves the mount without a root.
        view.ok_or(if ino == Ino::ROOT { FsError::Busy } else { FsError::Stale })
    }

    /// The view in which `ino` may be changed; [`FsError::InSnapshot`] in a snapshot,
    /// [`FsError::Receiving`] in a dataset that shows the base of what it is to become.
    pub(super) fn writable(&self, ino: Ino) -> FsResult<View> {
        let view = self.view(ino)?;
        match view.is_live() {
            true => Ok(view),
            false if view.is_head => Err(FsError::Receiving),
            false => Err(FsError::InSnapshot),
        }
    }

    /// The live view of a line; [`FsError::Stale`] when its dataset is gone.
    pub(super) fn live_view(&self, line: Line) -> FsResult<View> {
        self.tree.read().live_view(line).ok_or(FsError::Stale)
    }

    /// The version of a record that a view shows, by its head key on the view's line. A whiteout
    /// of the line itself may be returned, since a change must know it.
    pub(super) fn read(&self, view: &View, key: &[u8]) -> FsResult<Option<(Version, Bytes)>> {
        match self.gate.store().get(Space::Head, key)? {
            Some(value) => {
                let (version, record) = Version::split(&value)?;
                if version.node <= view.limit {
                    return Ok(Some((version, value.slice_ref(record))));
                }
            }
            None if !view.has_origin => return Ok(None),
            None => {}
        }
        let found = self.visible(view.layer(), key)?;
        found
            .map(|(version, value)| Ok((version, value.slice_ref(Version::split(&value)?.1))))
            .transpose()
    }

    /// The version and value that a reader of a line sees: the line's own, or that of the lines
    /// where it began. `None` for what was removed.
    pub(super) fn visible(
        &self,
        mut layer: Origin,
        key: &[u8],
    ) -> FsResult<Option<(Version, Bytes)>> {
        let mut key = key::on_line(layer.line, key);
        loop {
            if let Some((version, value)) = self.on_line(layer, &key)? {
                return Ok((!version.whiteout).then_some((version, value)));
            }
            let Some(below) = self.tree.read().origin(layer.line) else { return Ok(None) };
            layer = below;
            key = key::on_line(layer.line, &key);
        }
    }

    /// The version of one line, whiteouts included.
    pub(super) fn on_line(&self, layer: Origin, key: &[u8]) -> FsResult<Option<(Version, Bytes)>> {
        let store = self.gate.store();
        // A rollback moves a version from the history to the head; then there is another head.
        for _ in 0..ATTEMPTS {
            let Some(head) = store.get(Space::Head, key)? else { return Ok(None) };
            let (version, _) = Version::split(&head)?;
            if version.node <= layer.node {
                return Ok(Some((version, head)));
            }
            if let Some(older) = self.older(layer, key)? {
                return Ok(Some(older));
            }
            if store.get(Space::Head, key)?.as_ref() == Some(&head) {
                return Ok(None);
            }
        }
        Err(FsError::io("namespace", "a record changed all the time while it was read"))
    }

    /// The newest version in the history that is on the line and not younger than its reader.
    pub(super) fn older(&self, layer: Origin, key: &[u8]) -> FsResult<Option<(Version, Bytes)>> {
        let Some((node, value)) = self.older_stored(layer, key)? else { return Ok(None) };
        let (version, _) = Version::split(&value)?;
        match version.node == node {
            true => Ok(Some((version, value))),
            false => Err(RecordError::new("version", "of another node than its key says").into()),
        }
    }

    /// [`Namespace::older`] by its node, whether it decodes or not.
    pub(super) fn older_stored(
        &self,
        layer: Origin,
        key: &[u8],
    ) -> FsResult<Option<(Node, Bytes)>> {
        let from = key::history(key, Node(0));
        let mut to = behind(&key::history(key, layer.node));
        while let Some((found, value)) = self.gate.store().last(Space::History, &from, &to)? {
            let (head, node) = key::history_decode(layer.line, &found)?;
            // Among the versions of an attribute there may be those of one with a longer name.
            if head == key && self.tree.read().line_of(node) == Some(layer.line) {
                return Ok(Some((node, value)));
            }
            to = found.to_vec();
        }
        Ok(None)
    }

    /// Records that a view shows, from `from` (inclusive) up to `to` (exclusive), which are head
    /// keys on its line; at most about `limit` at a time. Without whiteouts.
    pub(super) fn scan(&self, view: &View, from: &[u8], to: &[u8], limit: usize) -> FsResult<Scan> {
        if !view.is_live() || view.has_origin {
            return self.scan_layers(view, from, to, limit);
        }
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

    /// [`Namespace::scan`] where versions may lie in the history or on other lines. The head keys
    /// of a line include those of its history.
    fn scan_layers(&self, view: &View, from: &[u8], to: &[u8], limit: usize) -> FsResult<Scan> {
        let (keys, horizon) = self.shown_keys(view, from, to, limit)?;
        let mut items = Vec::new();
        for (key, known) in keys {
            if horizon.as_ref().is_some_and(|horizon| key > *horizon) {
                break;
            }
            let found = match known {
                Some(value) => Some((Version::split(&value)?.0, value)),
                None => self.visible(view.layer(), &key)?,
            };
            if let Some((version, value)) = found.filter(|(version, _)| !version.whiteout) {
                items.push(Item { key: key.into(), version, value });
            }
        }
        Ok(Scan { items, next: horizon.map(|horizon| behind(&horizon)) })
    }

    /// All keys in a range that the lines of a view have, by their head keys on its own, each with
    /// the value that it shows if that is known already; and the last key, inclusive, up to which
    /// these are all.
    pub(super) fn shown_keys(
        &self,
        view: &View,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> FsResult<(ShownKeys, Option<Vec<u8>>)> {
        // With what is known already: the version of the view's own line, unless it is too young.
        let mut keys = ShownKeys::new();
        let mut horizon: Option<Vec<u8>> = None;
        let mut layer = Some(view.layer());
        while let Some(Origin { line, .. }) = layer {
            let (from, to) = (key::on_line(line, from), key::on_line(line, to));
            let page = self.gate.store().page(Space::Head, &from, Some(&to), limit)?;
            if let Some((last, _)) = page.items.last().filter(|_| page.more) {
                // Behind the end of the shortest page, not all keys are known.
                let last = key::on_line(view.line, last);
                horizon = Some(horizon.map_or(last.clone(), |horizon| horizon.min(last)));
            }
            for (key, value) in page.items {
                let is_young = |version: Version| version.node > view.limit;
                // What is damaged is looked at again, and reported, where it is read.
                let fits = line == view.line
                    && Version::split(&value).is_ok_and(|(version, _)| !is_young(version));
                let key = key::on_line(view.line, &key);
                keys.entry(key).or_insert_with(|| fits.then_some(value));
            }
            layer = self.tree.read().origin(line);
        }
        Ok((keys, horizon))
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
