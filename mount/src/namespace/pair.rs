//! Two states of a dataset side by side: an object in both, and the records of it that differ.

use std::collections::VecDeque;

use super::Namespace;
use super::diff::Kinds;
use super::key::{self, Kind, SUB_AT};
use super::record::{Bucket, Inode};
use super::tree::View;
use super::view::Item;
use crate::error::FsResult;
use crate::types::Ino;

/// Records read at once; attributes may be 64 KiB each.
const PAGE: usize = 64;

/// What is compared: a state, and an older one from which it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    /// `None`: everything is new.
    pub(super) older: Option<View>,
    pub(super) newer: View,
}

/// An object with its inode in both states, if it has a name there.
pub(super) struct Both {
    pub(super) object: Ino,
    pub(super) old: Option<Inode>,
    pub(super) new: Option<Inode>,
    pub(super) kinds: Kinds,
}

impl Both {
    /// Whether records of a kind may be different.
    pub(super) fn may_differ(&self, kind: Kind) -> bool {
        self.kinds.has(kind) || self.old.is_some() != self.new.is_some()
    }

    pub(super) fn is_dir(&self) -> bool {
        let inode = self.new.as_ref().or(self.old.as_ref());
        inode.is_some_and(Inode::is_dir)
    }
}

/// Gets a sub-key with the records that the two states have there.
pub(super) type Visit<'a> = dyn FnMut(&[u8], Option<&Item>, Option<&Item>) -> FsResult<bool> + 'a;

/// Records of one kind of an object, in order.
struct Records<'a> {
    namespace: &'a Namespace,
    view: View,
    end: Vec<u8>,
    next: Option<Vec<u8>>,
    page: VecDeque<Item>,
}

impl<'a> Records<'a> {
    fn new(namespace: &'a Namespace, view: &View, both: &Both, kind: Kind, from: &[u8]) -> Self {
        let mut next = key::head(view.line, both.object, kind).to_vec();
        next.extend_from_slice(from);
        let end = key::head_end(view.line, both.object, kind).to_vec();
        Self { namespace, view: *view, end, next: Some(next), page: VecDeque::new() }
    }

    fn fill(&mut self) -> FsResult<()> {
        while self.page.is_empty()
            && let Some(from) = self.next.take()
        {
            let scan = self.namespace.scan(&self.view, &from, &self.end, PAGE)?;
            self.page = scan.items.into();
            self.next = scan.next;
        }
        Ok(())
    }

    /// The sub-key of the next record.
    fn sub(&self) -> Option<&[u8]> {
        self.page.front().map(|item| &item.key[SUB_AT..])
    }
}

impl Namespace {
    /// An object in both states.
    pub(super) fn both(&self, pair: &Pair, object: Ino, kinds: Kinds) -> FsResult<Both> {
        let old = match &pair.older {
            Some(older) => self.named_in(older, object)?,
            None => None,
        };
        let new = self.named_in(&pair.newer, object)?;
        Ok(Both { object, old, new, kinds })
    }

    /// An inode that has a name in a state. Its parent is an object.
    fn named_in(&self, view: &View, object: Ino) -> FsResult<Option<Inode>> {
        Ok(self.stored_in(view, object)?.filter(|inode| inode.nlink > 0))
    }

    /// An inode as a state has it. Its parent is an object.
    pub(super) fn stored_in(&self, view: &View, object: Ino) -> FsResult<Option<Inode>> {
        match self.read(view, &key::head(view.line, object, Kind::Inode))? {
            Some((version, record)) if !version.whiteout => {
                Ok(Some(Inode::decode(object, version, &record)?))
            }
            _ => Ok(None),
        }
    }

    /// Passes every record of a kind that is not the same in both states, from a sub-key on;
    /// `false` when the visitor ended it.
    pub(super) fn differing(
        &self,
        pair: &Pair,
        both: &Both,
        (kind, from): (Kind, &[u8]),
        visit: &mut Visit<'_>,
    ) -> FsResult<bool> {
        let records = |view: &View| Records::new(self, view, both, kind, from);
        let mut old = pair.older.as_ref().filter(|_| both.old.is_some()).map(records);
        let mut new = both.new.as_ref().map(|_| records(&pair.newer));
        loop {
            for records in [&mut old, &mut new].into_iter().flatten() {
                records.fill()?;
            }
            let sub = |records: &Option<Records<'_>>| {
                records.as_ref().and_then(Records::sub).map(<[u8]>::to_vec)
            };
            let (before, after) = (sub(&old), sub(&new));
            let Some(least) = before.iter().chain(&after).min().cloned() else { return Ok(true) };
            let take = |records: &mut Option<Records<'_>>, sub: &Option<Vec<u8>>| match sub {
                Some(sub) if *sub == least => records.as_mut()?.page.pop_front(),
                _ => None,
            };
            let (before, after) = (take(&mut old, &before), take(&mut new, &after));
            let value = |item: &Option<Item>| item.as_ref().map(|item| item.value.clone());
            if value(&before) != value(&after) && !visit(&least, before.as_ref(), after.as_ref())? {
                return Ok(false);
            }
        }
    }
}

/// The entries of a bucket, which name objects.
pub(super) fn bucket(item: Option<&Item>) -> FsResult<Bucket> {
    match item {
        Some(item) => Ok(Bucket::decode(item.record()?)?),
        None => Ok(Bucket::default()),
    }
}
