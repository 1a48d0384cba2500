//! What an inode says about its other records, counted anew.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::places::Names;
use super::{Fate, Mender};
use crate::error::FsResult;
use crate::namespace::acl;
use crate::namespace::check::FindingKind;
use crate::namespace::key::{self, HeadKey, Kind, LinkAt};
use crate::namespace::record::{
    Bucket, Inode, InodeFlags, SlotRecord, Version, allocated, link_name, put_link_name,
};
use crate::namespace::store::Space;
use crate::namespace::tree::View;
use crate::types::{FileKind, Ino};

/// What the records of an inode add up to.
#[derive(Default)]
struct Sum {
    allocated: u64,
    xattr_names: u64,
    entries: u64,
    subdirectories: u64,
    target_len: Option<u64>,
    acl: InodeFlags,
}

impl Sum {
    fn add(&mut self, head: &HeadKey<'_>, version: Version, record: &[u8]) -> FsResult<()> {
        match head.kind {
            Kind::Inode | Kind::Link => {}
            Kind::Symlink => self.target_len = Some(record.len() as u64),
            Kind::Xattr => {
                self.xattr_names += head.sub.len() as u64 + 1;
                acl::flag(&mut self.acl, head.sub);
            }
            Kind::Dentry => {
                let is_dir = |kind| u64::from(kind == FileKind::Directory);
                for entry in Bucket::decode(record)?.entries() {
                    self.entries += 1;
                    self.subdirectories += is_dir(entry.kind);
                }
            }
            Kind::Extent => {
                self.allocated += allocated(&SlotRecord::decode(version, record)?.pieces);
            }
        }
        Ok(())
    }
}

impl Mender<'_> {
    pub(super) fn count(&mut self, view: &View, ino: Ino, names: &Names) -> FsResult<()> {
        let ns = self.ns;
        let Some(before) = ns.stored_inode(ino)? else { return Ok(()) };
        let Some(names) = names.of(ino) else { return Ok(()) };
        let mut sum = Sum::default();
        ns.for_each_of(view, ino, None, &mut |key, value| {
            let (version, record) = Version::split(value)?;
            match version.whiteout {
                true => Ok(()),
                false => sum.add(&HeadKey::decode(key)?, version, record),
            }
        })?;
        if before.kind == FileKind::Symlink && sum.target_len.is_none() {
            return self.drop_symlink(view, &before, names);
        }
        let mut inode = before.clone();
        self.count_records(&mut inode, &sum);
        self.count_names(view, &mut inode, &sum, names);
        let links: &[_] = if inode.flags.has(InodeFlags::LINKS) { names } else { &[] };
        self.mend_links(view, &inode, links)?;
        self.mend_orphan(view, &inode)?;
        if inode != before {
            self.edits.write_inode(view, &inode)?;
            self.tell(&before, &inode);
        }
        Ok(())
    }

    fn count_records(&self, inode: &mut Inode, sum: &Sum) {
        inode.xattr_names = u32::try_from(sum.xattr_names).unwrap_or(u32::MAX);
        Self::mend_acls(inode, sum.acl);
        // What is missing and not accounted for must not be forgotten.
        let is_missing = inode.kind == FileKind::File && inode.allocated > sum.allocated;
        if !is_missing || self.accounted.contains(&inode.ino) {
            inode.allocated = sum.allocated;
        }
        match inode.kind {
            FileKind::Symlink => inode.size = sum.target_len.unwrap_or(0),
            FileKind::Directory => inode.size = sum.entries,
            _ => {}
        }
    }

    fn count_names(&self, view: &View, inode: &mut Inode, sum: &Sum, names: &[(LinkAt, Vec<u8>)]) {
        let count = u32::try_from(names.len()).unwrap_or(u32::MAX);
        let is_root = inode.ino == view.root();
        if count == 0 && inode.nlink > 0 && !is_root {
            // It found no place, which does not make it something to be cleared away.
            return;
        }
        if inode.is_dir() {
            let is_there = count > 0 || is_root;
            let links = u32::try_from(2 + sum.subdirectories).unwrap_or(u32::MAX);
            inode.nlink = if is_there { links } else { 0 };
            inode.flags.set(InodeFlags::LINKS, false);
            return;
        }
        inode.nlink = count;
        inode.flags.set(InodeFlags::LINKS, count > 1);
        if let Some((first, _)) = names.first()
            && !names.iter().any(|(at, _)| *at == inode.home())
        {
            (inode.parent, inode.cookie) = (view.lift(Ino(first.dir)), first.cookie);
        }
    }

    /// Link records for exactly these names.
    fn mend_links(
        &mut self,
        view: &View,
        inode: &Inode,
        names: &[(LinkAt, Vec<u8>)],
    ) -> FsResult<()> {
        let ns = self.ns;
        let mut wanted: BTreeMap<LinkAt, &[u8]> =
            names.iter().map(|(at, name)| (*at, &name[..])).collect();
        let mut changes = 0;
        ns.for_each_of(view, inode.ino, Some(Kind::Link), &mut |key, value| {
            let (version, record) = Version::split(value)?;
            let at = LinkAt::decode(HeadKey::decode(key)?.sub)?;
            if version.whiteout
                || wanted.get(&at).is_some_and(|&name| link_name(record) == Ok(name))
            {
                if !version.whiteout {
                    wanted.remove(&at);
                }
                return Ok(());
            }
            changes += 1;
            self.edits.write(view, key, None)
        })?;
        for (at, name) in wanted {
            changes += 1;
            let make = |version: Version| {
                let mut value = Vec::new();
                version.put(&mut value);
                put_link_name(&mut value, name);
                Ok(value)
            };
            self.edits.write(view, &key::head_link(view.line, inode.ino, at), Some(&make))?;
        }
        if changes > 0 {
            let detail = format!("{changes} link records, of {} names", inode.nlink);
            self.note(FindingKind::LinkRecord, inode.ino, Fate::Mended, detail);
        }
        Ok(())
    }

    /// The note that an inode without a name is to be cleared away, and no other.
    fn mend_orphan(&mut self, view: &View, inode: &Inode) -> FsResult<()> {
        let key = key::meta_inode(key::ORPHANS, view.line, inode.ino);
        let is_noted = self.ns.gate.store().get(Space::Meta, &key)?.is_some();
        let is_own = inode.version.node >= view.first;
        match inode.nlink == 0 {
            true if is_own && !is_noted => self.edits.put(Space::Meta, &key, Bytes::new()),
            false if is_noted => self.edits.delete(Space::Meta, &key),
            _ => return Ok(()),
        }
        let detail = format!("{} names, and whether to clear it away", inode.nlink);
        self.note(FindingKind::Orphan, inode.ino, Fate::Mended, detail);
        Ok(())
    }

    /// Nobody can say where a link without a target led.
    fn drop_symlink(
        &mut self,
        view: &View,
        inode: &Inode,
        names: &[(LinkAt, Vec<u8>)],
    ) -> FsResult<()> {
        let detail = "a symbolic link without its target";
        self.note(FindingKind::Content, inode.ino, Fate::Dropped, detail);
        for (at, _) in names {
            self.remove_entry(view, *at, inode.ino.object())?;
            self.commit()?;
        }
        self.drop_inode(view, inode)
    }

    fn tell(&mut self, before: &Inode, after: &Inode) {
        let ino = after.ino;
        if before.nlink != after.nlink || after.is_dir() && before.size != after.size {
            let kind =
                if after.is_dir() { FindingKind::EntryCount } else { FindingKind::LinkCount };
            let detail = format!(
                "{} links and {} entries or bytes, now {} and {}",
                before.nlink, before.size, after.nlink, after.size
            );
            self.note(kind, ino, Fate::Mended, detail);
        }
        let content = |inode: &Inode| (inode.allocated, inode.xattr_names, inode.perm);
        if content(before) != content(after) {
            let detail = format!("{:?} by its records, not {:?}", content(after), content(before));
            self.note(FindingKind::Content, ino, Fate::Mended, detail);
        }
    }
}
