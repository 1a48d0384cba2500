//! Entries of directories that came and went, and in memory those of files that have several names
//! and, since they are of an older volume, no link records.
//!
//! An entry that was there and is not, or is another one, has its older version in the history of
//! its directory, so that a large directory need not be read for it. An entry in a bucket that was
//! empty has not: it is known by the inode that remembers it, and only where an inode has more
//! new names than it remembers are the directories that changed read as a whole.

use std::collections::{BTreeMap, BTreeSet};

use super::compare::Link;
use crate::error::FsResult;
use crate::namespace::Namespace;
use crate::namespace::key::{self, Kind};
use crate::namespace::pair::{Both, Pair, bucket};
use crate::namespace::record::{Bucket, Entry};
use crate::namespace::store::{Space, prefix_end};
use crate::namespace::tree::View;
use crate::namespace::view::behind;
use crate::types::FileKind;

/// Versions of the history read at once.
const PAGE: usize = 256;

/// What a name takes in memory beside its bytes.
pub(super) const LINK_BYTES: usize = 96;

/// In which of two states an entry is, and in the other is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Gone,
    Come,
}

/// Names of one object.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) gone: BTreeSet<Link>,
    pub(super) come: BTreeSet<Link>,
    bytes: usize,
}

/// Names that came and went of objects with several, as many as there is room for.
#[derive(Debug)]
pub(super) struct Links {
    /// From this object on, up to `until`, all are known.
    from: u64,
    until: u64,
    /// Also those that only their directories know.
    pub(super) is_whole: bool,
    found: BTreeMap<u64, Found>,
    bytes: usize,
    limit: usize,
}

/// Gets an entry that one of two states has; `false` ends it.
pub(super) type Visit<'a> = dyn FnMut(Side, &Entry) -> FsResult<bool> + 'a;

impl Links {
    /// About no object.
    pub(super) fn none(limit: usize) -> Self {
        Self { until: 0, ..Self::new(0, false, limit) }
    }

    /// About all objects from one on, to be filled.
    pub(super) fn new(from: u64, is_whole: bool, limit: usize) -> Self {
        Self { from, until: u64::MAX, is_whole, found: BTreeMap::new(), bytes: 0, limit }
    }

    /// Whether all that is to be known of an object is.
    pub(super) fn covers(&self, object: u64) -> bool {
        (self.from..self.until).contains(&object)
    }

    /// Whether an entry may be of use.
    pub(super) fn wants(&self, entry: &Entry) -> bool {
        entry.kind != FileKind::Directory && self.covers(entry.ino.0)
    }

    /// Whether not even the first object has room.
    pub(super) fn is_full(&self) -> bool {
        self.until == self.from
    }

    /// Adds a name; the last objects make room for it.
    pub(super) fn add(&mut self, side: Side, object: u64, link: Link) {
        let bytes = LINK_BYTES + link.name.len();
        let found = self.found.entry(object).or_default();
        let is_new = match side {
            Side::Gone => found.gone.insert(link),
            Side::Come => found.come.insert(link),
        };
        if is_new {
            found.bytes += bytes;
            self.bytes += bytes;
        }
        while self.bytes > self.limit
            && let Some((object, found)) = self.found.pop_last()
        {
            self.bytes -= found.bytes;
            self.until = object;
        }
    }

    /// What is known of an object, which is not asked for again.
    pub(super) fn take(&mut self, object: u64) -> Found {
        let found = self.found.remove(&object).unwrap_or_default();
        self.bytes -= found.bytes;
        found
    }
}

impl Namespace {
    /// Passes the entries of a directory that came or went; those in buckets that were empty only
    /// if `whole`, or where the history does not tell. `false` when the visitor ended it.
    pub(super) fn changed_entries(
        &self,
        pair: &Pair,
        dir: &Both,
        whole: bool,
        visit: &mut Visit<'_>,
    ) -> FsResult<bool> {
        if !dir.is_dir() || !dir.may_differ(Kind::Dentry) {
            return Ok(true);
        }
        let is_in_both = dir.old.is_some() && dir.new.is_some();
        match pair.older.filter(|older| is_in_both && !whole && self.tells(older, &pair.newer)) {
            Some(older) => self.replaced_entries(&older, &pair.newer, dir, visit),
            None => self.differing(pair, dir, (Kind::Dentry, &[]), &mut |_, old, new| {
                visit_both(&bucket(old)?, &bucket(new)?, visit)
            }),
        }
    }

    /// Whether what was replaced between two states is in the history: no version of theirs lies
    /// on another line.
    fn tells(&self, older: &View, newer: &View) -> bool {
        older.line == newer.line && self.tree.read().origin(newer.line).is_none()
    }

    /// Passes the entries that differ in buckets whose older version was replaced.
    fn replaced_entries(
        &self,
        older: &View,
        newer: &View,
        dir: &Both,
        visit: &mut Visit<'_>,
    ) -> FsResult<bool> {
        let mut from = key::history_of(dir.object, Kind::Dentry).to_vec();
        let end = prefix_end(&from);
        let mut last = Vec::new();
        loop {
            let page = self.gate.store().page(Space::History, &from, end.as_deref(), PAGE)?;
            for (found, _) in &page.items {
                let (head, node) = key::history_decode(newer.line, found)?;
                let is_ours = self.tree.read().line_of(node) == Some(newer.line);
                // What is younger than the older state replaced nothing that it shows.
                if !is_ours || node > older.limit || head == last {
                    continue;
                }
                let (old, new) = (self.entries_at(older, &head)?, self.entries_at(newer, &head)?);
                if !visit_both(&old, &new, visit)? {
                    return Ok(false);
                }
                last = head;
            }
            match page.items.last().filter(|_| page.more) {
                Some((key, _)) => from = behind(key),
                None => return Ok(true),
            }
        }
    }

    fn entries_at(&self, view: &View, key: &[u8]) -> FsResult<Bucket> {
        match self.read(view, key)? {
            Some((version, record)) if !version.whiteout => Ok(Bucket::decode(&record)?),
            _ => Ok(Bucket::default()),
        }
    }
}

fn visit_both(old: &Bucket, new: &Bucket, visit: &mut Visit<'_>) -> FsResult<bool> {
    for (side, one, other) in [(Side::Gone, old, new), (Side::Come, new, old)] {
        for entry in one.without(other) {
            if !visit(side, entry)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
