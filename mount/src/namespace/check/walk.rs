//! Reading past damage: all records that a view shows, whatever they hold.

use std::ops::RangeInclusive;

use bytes::Bytes;

use super::{PAGE, Visit};
use crate::error::{FsError, FsResult};
use crate::namespace::Namespace;
use crate::namespace::key::{self, HeadKey, Kind, Line, Node};
use crate::namespace::record::{Inode, Version};
use crate::namespace::store::{Page, Space, prefix_end};
use crate::namespace::tree::View;
use crate::namespace::view::behind;
use crate::types::Ino;

/// Stands for a version that cannot be read: no value is that short.
const UNREADABLE: Bytes = Bytes::new();

impl Namespace {
    /// Passes all records that a view shows by their head keys on its line, whiteouts of the line
    /// included; one that cannot be read has a value that does not decode.
    pub(in crate::namespace) fn for_each_shown(
        &self,
        view: &View,
        visit: &mut Visit<'_>,
    ) -> FsResult<()> {
        let from = key::line(view.line);
        self.for_each_shown_in(view, &from, prefix_end(&from).as_deref(), visit)
    }

    /// [`Namespace::for_each_shown`] over the records of one object, or of one kind of them.
    pub(in crate::namespace) fn for_each_of(
        &self,
        view: &View,
        object: Ino,
        kind: Option<Kind>,
        visit: &mut Visit<'_>,
    ) -> FsResult<()> {
        let first = key::head(view.line, object, kind.unwrap_or(Kind::Inode));
        let from = match kind {
            Some(_) => &first[..],
            None => &first[..key::SUB_AT - 1],
        };
        self.for_each_shown_in(view, from, prefix_end(from).as_deref(), visit)
    }

    /// Passes the inodes that have one of these objects, as far as they can be read: as datasets show
    /// them now that may show what `line` holds, or, without one, everywhere, snapshots included.
    pub fn for_each_object(
        &self,
        line: Option<u32>,
        objects: RangeInclusive<u64>,
        visit: &mut dyn FnMut(Ino) -> FsResult<()>,
    ) -> FsResult<()> {
        let (live, snapshots) = {
            let tree = self.tree.read();
            (tree.live_views(), tree.snapshot_views())
        };
        let shows = |view: &&View| line.is_none_or(|line| view.line.0 == line || view.has_origin);
        let snapshots = snapshots.iter().filter(|_| line.is_none());
        for view in live.iter().filter(shows).chain(snapshots) {
            let from = [&key::line(view.line)[..], &objects.start().to_be_bytes()].concat();
            let to = match objects.end().checked_add(1) {
                Some(next) => [&key::line(view.line)[..], &next.to_be_bytes()].concat(),
                None => key::line_end(view.line).to_vec(),
            };
            self.for_each_shown_in(view, &from, Some(&to), &mut |key, value| {
                let Ok(head) = HeadKey::decode(key) else { return Ok(()) };
                let is_there = Version::split(value).is_ok_and(|(version, _)| !version.whiteout);
                match head.kind == Kind::Inode && is_there {
                    true => visit(view.lift(head.object)),
                    false => Ok(()),
                }
            })?;
        }
        Ok(())
    }

    fn for_each_shown_in(
        &self,
        view: &View,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> FsResult<()> {
        if view.is_live() && !view.has_origin {
            return self.for_each_in(Space::Head, (from, to), visit);
        }
        // Where keys are put on other lines, the end must be one of the line.
        let line_end = key::line_end(view.line);
        let to = to.filter(|to| to.len() > key::line(view.line).len()).unwrap_or(&line_end);
        let mut from = from.to_vec();
        loop {
            let (keys, horizon) = self.shown_keys(view, &from, to, PAGE)?;
            for (key, known) in keys {
                if horizon.as_ref().is_some_and(|horizon| key > *horizon) {
                    break;
                }
                let value = match known {
                    Some(value) => Some(value),
                    None => past_damage(self.visible(view.layer(), &key))?
                        .map_or(Some(UNREADABLE), |found| found.map(|(_, value)| value)),
                };
                if let Some(value) = value {
                    visit(&key, &value)?;
                }
            }
            match horizon {
                Some(horizon) => from = behind(&horizon),
                None => return Ok(()),
            }
        }
    }

    /// Passes all keys of a space in a range.
    pub(in crate::namespace) fn for_each_in(
        &self,
        space: Space,
        (from, to): (&[u8], Option<&[u8]>),
        visit: &mut Visit<'_>,
    ) -> FsResult<()> {
        let mut from = from.to_vec();
        loop {
            let Page { items, more } = self.gate.store().page(space, &from, to, PAGE)?;
            for (key, value) in &items {
                visit(key, value)?;
            }
            let Some((last, _)) = items.last().filter(|_| more) else { return Ok(()) };
            from = behind(last);
        }
    }

    /// The record that a view shows; `None` for one that was removed or does not decode, which is
    /// reported where it stands.
    pub(in crate::namespace) fn sound(&self, view: &View, key: &[u8]) -> FsResult<Option<Bytes>> {
        let found = past_damage(self.read(view, key))?.flatten();
        Ok(found.filter(|(version, _)| !version.whiteout).map(|(_, record)| record))
    }

    /// An inode as stored, whatever is remembered of it; a damaged one counts as absent.
    pub(in crate::namespace) fn stored_inode(&self, ino: Ino) -> FsResult<Option<Inode>> {
        let Ok(view) = self.view(ino) else { return Ok(None) };
        let key = key::head(view.line, ino, Kind::Inode);
        let found = past_damage(self.read(&view, &key))?.flatten();
        let found =
            found.filter(|(version, _)| !version.whiteout && self.could_write(view.line, version));
        Ok(found.and_then(|(version, record)| view.inode(ino, version, &record).ok()))
    }

    /// Whether a version can be on a line, or on those where it began.
    pub(in crate::namespace) fn could_write(&self, line: Line, version: &Version) -> bool {
        let tree = self.tree.read();
        let Some(of) = tree.line_of(version.node) else { return false };
        let (mut at, mut limit) = (line, Node::MAX);
        loop {
            if of == at {
                return version.node <= limit;
            }
            // An origin's line is older, so chains end.
            let Some(origin) = tree.origin(at) else { return false };
            (at, limit) = (origin.line, origin.node);
        }
    }
}

/// `None` for stored bytes that make no sense; errors of the store remain errors.
pub(in crate::namespace) fn past_damage<T>(result: FsResult<T>) -> FsResult<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_damage() => Ok(None),
        Err(error) => Err(error),
    }
}

/// [`past_damage`], where what is not there is no error of the store either.
pub(super) fn if_there<T>(result: FsResult<T>) -> FsResult<Option<T>> {
    match result {
        Err(FsError::Stale | FsError::NotFound) => Ok(None),
        other => past_damage(other),
    }
}
