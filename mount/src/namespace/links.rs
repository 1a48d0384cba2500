//! Link records: where the names of a file with several lie.
//!
//! An inode remembers where one of its names lies. When a file gets its second name, each has a
//! record from then on, by directory and cookie, and the inode says so with
//! [`InodeFlags::LINKS`]. Whoever takes the remembered name away finds another one at once, so that
//! an inode always remembers a name that it has; and which names came and went between two states
//! is told by the file's own records. When one name is left, the inode remembers it and the
//! records go.
//!
//! *Cost*: a name that comes or goes changes two records at most, however many names the file has.
//! One that the inode remembers and that goes costs a look at the next record, past what removed
//! names left where a snapshot has them; it is past these for good, until it comes round again.
//! *Crash*: entry, inode and records change in one batch.
//! *Older volumes*: a file that had several names before there were records has neither records nor
//! the flag, and may remember a name that it has lost; it is as any other once it has one name and
//! remembers that.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};

use super::create::add_link;
use super::key::{self, HeadKey, Kind, LinkAt};
use super::record::{Inode, InodeFlags};
use super::tree::View;
use super::view::behind;
use super::{Namespace, Txn};
use crate::error::FsResult;
use crate::types::Ino;

/// Records looked at together; whiteouts are skipped.
const PAGE: usize = 4;

/// What becomes of the link records of one file in a change.
#[derive(Debug, Default)]
pub(super) struct LinkChanges {
    /// The name that a record gets; `None` for one that goes.
    changed: BTreeMap<LinkAt, Option<Vec<u8>>>,
}

impl LinkChanges {
    /// A file has one more name. `home` is the one that it remembers, where that is its only one.
    pub(super) fn gain(
        &mut self,
        inode: &mut Inode,
        (at, name): (LinkAt, &[u8]),
        home: Option<&[u8]>,
    ) -> FsResult<()> {
        add_link(inode)?;
        if let Some(home) = home.filter(|_| inode.nlink == 2) {
            self.put(inode.home(), home);
            inode.flags.set(InodeFlags::LINKS, true);
        }
        if inode.flags.has(InodeFlags::LINKS) {
            self.put(at, name);
        }
        Ok(())
    }

    /// A file has one name less, and remembers another if it was that one.
    pub(super) fn lose(
        &mut self,
        names: &Namespace,
        inode: &mut Inode,
        at: LinkAt,
    ) -> FsResult<()> {
        inode.nlink = inode.nlink.saturating_sub(1);
        if !inode.flags.has(InodeFlags::LINKS) {
            return Ok(());
        }
        self.changed.insert(at, None);
        if inode.home() == at {
            let Some(next) = names.next_link(inode, at, self)? else {
                // Without any record it is as a file of an older volume; a check finds it before.
                tracing::error!(
                    inode = inode.ino.0,
                    "a file with several names has no link record"
                );
                inode.flags.set(InodeFlags::LINKS, false);
                return Ok(());
            };
            inode.parent = names.view(inode.ino)?.lift(Ino(next.dir));
            inode.cookie = next.cookie;
        }
        if inode.nlink <= 1 {
            self.changed.insert(inode.home(), None);
            inode.flags.set(InodeFlags::LINKS, false);
        }
        Ok(())
    }

    /// A name of a file lies elsewhere, or is another one.
    pub(super) fn change(&mut self, inode: &Inode, from: LinkAt, (to, name): (LinkAt, &[u8])) {
        if inode.flags.has(InodeFlags::LINKS) {
            self.changed.insert(from, None);
            self.put(to, name);
        }
    }

    fn put(&mut self, at: LinkAt, name: &[u8]) {
        self.changed.insert(at, Some(name.to_vec()));
    }

    /// Adds it all to a change that stores the inode as well; once for each inode.
    pub(super) fn stage(self, txn: &mut Txn<'_>, inode: &Inode) -> FsResult<()> {
        let mut changed = self.changed.into_iter();
        changed.try_for_each(|(at, name)| txn.put_link(inode, at, name.as_deref()))
    }

    fn is_gone(&self, at: LinkAt) -> bool {
        matches!(self.changed.get(&at), Some(None))
    }

    fn first_put(&self, range: impl RangeBounds<LinkAt>) -> Option<LinkAt> {
        let mut puts = self.changed.range(range).filter(|(_, name)| name.is_some());
        puts.next().map(|(at, _)| *at)
    }
}

/// A file that has no link records remembers the name that it was given last: of the others nothing
/// is known. One that has them goes on with the one that it remembers, so that one name which comes
/// and goes costs no search.
pub(super) fn remember(inode: &mut Inode, dir: Ino, cookie: u64) {
    if !inode.flags.has(InodeFlags::LINKS) {
        (inode.parent, inode.cookie) = (dir, cookie);
    }
}

impl Namespace {
    /// Another name of a file with link records: the next one behind `at`, or else the first. Names
    /// are often removed in the order of their records; what is left of those that went lies before.
    fn next_link(
        &self,
        inode: &Inode,
        at: LinkAt,
        changes: &LinkChanges,
    ) -> FsResult<Option<LinkAt>> {
        let view = self.view(inode.ino)?;
        let start = key::head(view.line, inode.ino, Kind::Link);
        let middle = key::head_link(view.line, inode.ino, at);
        let end = key::head_end(view.line, inode.ino, Kind::Link);
        let stored = self.first_link(&view, behind(&middle), &end, changes)?;
        let put = changes.first_put((Bound::Excluded(at), Bound::Unbounded));
        if let Some(next) = stored.into_iter().chain(put).min() {
            return Ok(Some(next));
        }
        let stored = self.first_link(&view, start.to_vec(), &middle, changes)?;
        Ok(stored.into_iter().chain(changes.first_put(..at)).min())
    }

    /// The first record in a range of keys that does not go.
    fn first_link(
        &self,
        view: &View,
        from: Vec<u8>,
        end: &[u8],
        changes: &LinkChanges,
    ) -> FsResult<Option<LinkAt>> {
        let mut next = Some(from);
        while let Some(from) = next {
            let page = self.scan(view, &from, end, PAGE)?;
            for item in &page.items {
                let at = LinkAt::decode(HeadKey::decode(&item.key)?.sub)?;
                if !changes.is_gone(at) {
                    return Ok(Some(at));
                }
            }
            next = page.next;
        }
        Ok(None)
    }
}
