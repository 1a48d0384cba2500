//! The two ways to a sum: everything that a state shows, read in order; or what is different from an
//! older state of which the sum is known.
//!
//! The first knows nothing of the second: it is what a snapshot is verified with.

use crate::error::FsResult;
use crate::namespace::Namespace;
use crate::namespace::key::{self, HeadKey, Kind};
use crate::namespace::pair::{Both, Pair, bucket};
use crate::namespace::record::{Bucket, Inode, Lanes};
use crate::namespace::tree::{TreeResult, View};
use crate::types::{FileKind, Ino};

use super::items;

/// Records read at once.
const PAGE: usize = 1024;

/// Changed objects looked at before it is asked whether to go on.
const STOP_EVERY: usize = 64;

/// A sum in the making.
#[derive(Debug, Default)]
pub(in crate::namespace) struct Changes {
    pub(in crate::namespace) lanes: Lanes,
    /// Objects that are to join it once their content has a digest.
    pub(in crate::namespace) awaited: Vec<u64>,
    /// What the older state shows is not what is in its sum.
    pub(in crate::namespace) is_without_base: bool,
}

impl Changes {
    pub(in crate::namespace) fn new(lanes: Lanes) -> Self {
        Self { lanes, ..Self::default() }
    }

    fn shown(&mut self, shown: &Shown<'_>) {
        match shown {
            Shown::Item(item) => self.lanes.add(item),
            Shown::Inode(inode, target) => match items::inode(inode, *target) {
                Some(item) => self.lanes.add(&item),
                None => self.awaited.push(inode.ino.object()),
            },
        }
    }
}

/// Part of what a state shows.
pub(super) enum Shown<'a> {
    /// An inode, with the target if it is a symbolic link.
    Inode(&'a Inode, Option<&'a [u8]>),
    /// An entry or an attribute.
    Item(Vec<u8>),
}

/// How far a page went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::namespace) struct Walked {
    /// The object with which to go on.
    pub(in crate::namespace) next: Option<u64>,
    pub(in crate::namespace) is_stopped: bool,
}

impl Walked {
    const STOPPED: Self = Self { next: None, is_stopped: true };
}

/// Takes part of what a state shows.
pub(super) type Visit<'a> = dyn FnMut(Shown<'_>) -> FsResult<()> + 'a;

impl Namespace {
    /// Adds what a state shows, from an object on.
    pub(in crate::namespace) fn walk_all(
        &self,
        view: &View,
        from: u64,
        records: usize,
        goes_on: &mut dyn FnMut() -> bool,
        changes: &mut Changes,
    ) -> FsResult<Walked> {
        self.walk_shown(view, from, records, goes_on, &mut |shown| {
            changes.shown(&shown);
            Ok(())
        })
    }

    /// Passes what a state shows, from an object on; ends behind about so many records.
    pub(super) fn walk_shown(
        &self,
        view: &View,
        from: u64,
        records: usize,
        goes_on: &mut dyn FnMut() -> bool,
        visit: &mut Visit<'_>,
    ) -> FsResult<Walked> {
        let mut from = key::head(view.line, Ino(from), Kind::Inode).to_vec();
        let end = key::line_end(view.line);
        let mut at = Object::default();
        let mut seen = 0;
        loop {
            let page = self.scan(view, &from, &end, PAGE)?;
            for item in &page.items {
                let head = HeadKey::decode(&item.key)?;
                if head.kind == Kind::Inode {
                    at.pass(visit)?;
                    if seen >= records {
                        return Ok(Walked { next: Some(head.object.0), is_stopped: false });
                    }
                    let inode = Inode::decode(head.object, item.version, item.record()?)?;
                    at.inode = Some(inode).filter(|inode| inode.nlink > 0);
                } else {
                    at.record(&head, item.record()?, visit)?;
                }
                seen += 1;
            }
            let Some(mut next) = page.next else { break };
            if let Some(last) = page.items.last() {
                let head = HeadKey::decode(&last.key)?;
                if head.kind == Kind::Extent {
                    // Of those a file may have very many.
                    next = next.max(key::head_end(view.line, head.object, Kind::Extent).to_vec());
                }
            }
            from = next;
            if !goes_on() {
                return Ok(Walked::STOPPED);
            }
        }
        at.pass(visit)?;
        Ok(Walked::default())
    }

    /// Adds what a state shows and an older one does not, and takes out what only the older one
    /// shows, from an object on; ends behind about so many objects.
    pub(in crate::namespace) fn walk_changes(
        &self,
        pair: &Pair,
        from: u64,
        objects: usize,
        goes_on: &mut dyn FnMut() -> bool,
        changes: &mut Changes,
    ) -> TreeResult<Walked> {
        let Some(older) = &pair.older else { return Ok(Walked::default()) };
        let (mut walked, mut seen) = (Walked::default(), 0);
        self.changed_objects_from(older, &pair.newer, from, &mut |object, kinds| {
            if seen >= objects {
                walked.next = Some(object.0);
                return Ok(false);
            }
            seen += 1;
            if seen % STOP_EVERY == 0 && !goes_on() {
                walked = Walked::STOPPED;
                return Ok(false);
            }
            let both = self.both(pair, object, kinds)?;
            self.change_object(pair, &both, changes)?;
            Ok(!changes.is_without_base)
        })?;
        Ok(walked)
    }

    fn change_object(&self, pair: &Pair, both: &Both, changes: &mut Changes) -> FsResult<()> {
        let object = both.object.0;
        if let (Some(inode), Some(view)) = (&both.old, &pair.older) {
            match items::inode(inode, self.target_in(view, inode)?.as_deref()) {
                Some(item) => changes.lanes.remove(&item),
                None => changes.is_without_base = true,
            }
        }
        if let Some(inode) = &both.new {
            let target = self.target_in(&pair.newer, inode)?;
            changes.shown(&Shown::Inode(inode, target.as_deref()));
        }
        let lanes = &mut changes.lanes;
        if both.may_differ(Kind::Xattr) {
            self.differing(pair, both, (Kind::Xattr, &[]), &mut |name, old, new| {
                if let Some(old) = old {
                    lanes.remove(&items::attribute(object, name, old.record()?));
                }
                if let Some(new) = new {
                    lanes.add(&items::attribute(object, name, new.record()?));
                }
                Ok(true)
            })?;
        }
        if both.is_dir() && both.may_differ(Kind::Dentry) {
            self.differing(pair, both, (Kind::Dentry, &[]), &mut |_, old, new| {
                for entry in bucket(old)?.entries() {
                    lanes.remove(&items::entry(object, entry));
                }
                for entry in bucket(new)?.entries() {
                    lanes.add(&items::entry(object, entry));
                }
                Ok(true)
            })?;
        }
        Ok(())
    }

    /// The target of what may be a symbolic link.
    fn target_in(&self, view: &View, inode: &Inode) -> FsResult<Option<Vec<u8>>> {
        if inode.kind != FileKind::Symlink {
            return Ok(None);
        }
        let found = self.read(view, &key::head(view.line, inode.ino, Kind::Symlink))?;
        Ok(found.filter(|(version, _)| !version.whiteout).map(|(_, target)| target.to_vec()))
    }
}

/// What was read of an object.
#[derive(Default)]
struct Object {
    /// With a name.
    inode: Option<Inode>,
    target: Option<Vec<u8>>,
}

impl Object {
    /// Takes another record of it; one of an object without an inode or a name shows nowhere.
    fn record(&mut self, head: &HeadKey<'_>, record: &[u8], visit: &mut Visit<'_>) -> FsResult<()> {
        if self.inode.as_ref().is_none_or(|inode| inode.ino != head.object) {
            return Ok(());
        }
        let object = head.object.0;
        match head.kind {
            Kind::Symlink => self.target = Some(record.to_vec()),
            Kind::Xattr => visit(Shown::Item(items::attribute(object, head.sub, record)))?,
            Kind::Dentry => {
                for entry in Bucket::decode(record)?.entries() {
                    visit(Shown::Item(items::entry(object, entry)))?;
                }
            }
            Kind::Inode | Kind::Extent | Kind::Link => {}
        }
        Ok(())
    }

    /// Everything of it was read.
    fn pass(&mut self, visit: &mut Visit<'_>) -> FsResult<()> {
        let target = self.target.take();
        match self.inode.take() {
            Some(inode) => visit(Shown::Inode(&inode, target.as_deref())),
            None => Ok(()),
        }
    }
}
