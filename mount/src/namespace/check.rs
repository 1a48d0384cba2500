//! Structure check: what every record says about every other, in bounded memory.
//!
//! One pass over the head space checks each object by itself, and entries and link records against
//! each other by point lookups; link counts are summed up for a window of inode numbers at a time,
//! one more pass for each further window. Back-references are followed both ways by point lookups.
//! Meant for a namespace that nobody changes meanwhile.

mod links;
mod report;
mod seals;
mod spaces;
mod tree;
mod walk;

use std::collections::BTreeSet;

use firn_tiering::BlockRef;

pub use report::{CheckOptions, Finding, FindingKind, Report};

pub(super) use report::{MAX_SUSPECTS, Suspects};
pub(super) use spaces::decodes;
pub(super) use walk::past_damage;

use walk::if_there;

use super::key::{self, Backref, HeadKey, Kind, Line};
use super::names::cookie_of;
use super::record::{
    Bucket, Entry, Inode, InodeFlags, Piece, Reader, SlotRecord, Version, allocated,
};
use super::store::Space;
use super::tree::View;
use super::{Namespace, acl};
use crate::error::FsResult;
use crate::types::{FileKind, Ino};

/// What is done with a key and its value.
type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> FsResult<()> + 'a;

/// Records read at once.
const PAGE: usize = 1024;

impl Namespace {
    /// Checks all records against each other. Errors are those of the store; damage is a finding.
    pub fn check(&self, options: CheckOptions) -> FsResult<Report> {
        let mut report = Report::default();
        let views = self.tree.read().live_views();
        let snapshots = if options.snapshots { self.tree.read().snapshot_views() } else { vec![] };
        for &view in views.iter().chain(&snapshots) {
            report = Check::new(self, options, view, report).view()?;
        }
        let Some(&view) = views.first() else { return Ok(report) };
        let mut check = Check::new(self, options, view, report);
        check.tree();
        check.notes()?;
        check.lines()?;
        check.history()?;
        check.born()?;
        check.backrefs()?;
        check.seals()?;
        check.usage()?;
        Ok(check.report)
    }

    /// Passes every block that a file refers to, now or in a snapshot, with the file and the slot:
    /// first what is current, then what is older, each in the order of inode numbers.
    pub fn for_each_block(
        &self,
        visit: &mut dyn FnMut(Ino, u64, &BlockRef) -> FsResult<()>,
    ) -> FsResult<()> {
        let mut each = |object: Ino, sub: &[u8], value: &[u8]| {
            let slot = Reader::new("slot", sub).u64_be()?;
            let record = SlotRecord::decode_value(value)?;
            let ino = self.shown(record.version.node, object);
            record.pieces.iter().filter_map(Piece::block).try_for_each(|b| visit(ino, slot, b))
        };
        self.for_each(Space::Head, &mut |key, value| match HeadKey::decode(key) {
            Ok(head) if head.kind == Kind::Extent => each(head.object, head.sub, value),
            _ => Ok(()),
        })?;
        self.for_each(Space::History, &mut |key, value| {
            let Ok((head, _)) = key::history_decode(Line::ROOT, key) else { return Ok(()) };
            match HeadKey::decode(&head) {
                Ok(head) if head.kind == Kind::Extent => each(head.object, head.sub, value),
                _ => Ok(()),
            }
        })
    }

    pub(super) fn for_each(&self, space: Space, visit: &mut Visit<'_>) -> FsResult<()> {
        self.for_each_in(space, (&[], None), visit)
    }
}

/// What the records of one object add up to.
#[derive(Debug)]
struct Object {
    ino: Ino,
    inode: Option<Inode>,
    damaged: bool,
    allocated: u64,
    xattr_names: u64,
    entries: u64,
    subdirectories: u64,
    links: u64,
    target_len: Option<u64>,
    /// The ACLs that are there.
    acl: InodeFlags,
}

/// The check of one view.
struct Check<'a> {
    namespace: &'a Namespace,
    options: CheckOptions,
    view: View,
    report: Report,
    object: Option<Object>,
    highest: u64,
}

impl<'a> Check<'a> {
    fn new(namespace: &'a Namespace, options: CheckOptions, view: View, report: Report) -> Self {
        Self { namespace, options, view, report, object: None, highest: 0 }
    }

    /// Everything that the view shows.
    fn view(mut self) -> FsResult<Report> {
        self.objects()?;
        let window = self.options.window.max(1);
        let mut next = Some(0);
        while let Some(base) = next {
            next = self.link_counts(base, window)?;
        }
        Ok(self.report)
    }

    fn finding(&mut self, kind: FindingKind, ino: Ino, detail: impl Into<String>) {
        let path = self.namespace.path(ino);
        self.finding_at(kind, ino, path, detail);
    }

    fn finding_at(
        &mut self,
        kind: FindingKind,
        ino: Ino,
        path: Vec<u8>,
        detail: impl Into<String>,
    ) {
        self.report.suspects.add(ino);
        self.report.found += 1;
        *self.report.kinds.entry(kind).or_default() += 1;
        if self.report.findings.len() < self.options.max_findings {
            self.report.findings.push(Finding { kind, path, ino, detail: detail.into() });
        }
    }

    /// Every object by itself.
    fn objects(&mut self) -> FsResult<()> {
        let (namespace, view) = (self.namespace, self.view);
        namespace.for_each_shown(&view, &mut |key, value| self.record(key, value))?;
        self.finish_object()?;
        if self.namespace.stored_inode(view.root())?.is_none() {
            self.finding(FindingKind::NoInode, view.root(), "there is no root directory");
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> FsResult<()> {
        let head = match HeadKey::decode(key) {
            Ok(head) => HeadKey { object: self.view.lift(head.object), ..head },
            Err(error) => {
                self.finding(FindingKind::Damaged, Ino(0), error.to_string());
                return Ok(());
            }
        };
        let split = Version::split(value);
        if let Ok((version, _)) = &split
            && version.whiteout
        {
            return self.born_entry(&head, version.node);
        }
        if self.object.as_ref().is_none_or(|object| object.ino != head.object) {
            self.finish_object()?;
            self.note_number(head.object);
            self.object = Some(Object {
                ino: head.object,
                inode: None,
                damaged: false,
                allocated: 0,
                xattr_names: 0,
                entries: 0,
                subdirectories: 0,
                links: 0,
                target_len: None,
                acl: InodeFlags::default(),
            });
        }
        let (version, record) = match split {
            Ok(split) if self.namespace.could_write(self.view.line, &split.0) => split,
            Ok(_) => {
                self.damaged(&head, "a version that nobody can have written");
                return Ok(());
            }
            Err(error) => {
                self.damaged(&head, &error.to_string());
                return Ok(());
            }
        };
        self.born_entry(&head, version.node)?;
        match head.kind {
            Kind::Inode => self.inode(&head, version, record),
            Kind::Symlink => self.object(|object| object.target_len = Some(record.len() as u64)),
            Kind::Xattr => self.object(|object| {
                object.xattr_names += head.sub.len() as u64 + 1;
                acl::flag(&mut object.acl, head.sub);
            }),
            Kind::Dentry => return self.bucket(&head, record),
            Kind::Extent => return self.extent(&head, value),
            Kind::Link => return self.link(&head, record),
        }
        Ok(())
    }

    /// Damage must not make the passes over link counts endless.
    fn note_number(&mut self, ino: Ino) {
        if ino.object() < self.namespace.ids.inodes_end() {
            self.highest = self.highest.max(ino.object());
        } else {
            self.finding(FindingKind::Damaged, ino, "a number that was never handed out");
        }
    }

    fn object(&mut self, change: impl FnOnce(&mut Object)) {
        if let Some(object) = &mut self.object {
            change(object);
        }
    }

    fn damaged(&mut self, head: &HeadKey<'_>, reason: &str) {
        self.object(|object| object.damaged = true);
        let detail = match head.kind {
            Kind::Extent | Kind::Dentry => {
                format!("{:?} {:x}: {reason}", head.kind, head.number().unwrap_or(0))
            }
            kind => format!("{kind:?}: {reason}"),
        };
        self.finding(FindingKind::Damaged, head.object, detail);
    }

    fn inode(&mut self, head: &HeadKey<'_>, version: Version, record: &[u8]) {
        self.report.inodes += 1;
        let view = self.view;
        match Inode::decode(head.object, version, record) {
            Ok(inode) => {
                let parent = view.lift(inode.parent);
                self.object(|object| object.inode = Some(Inode { parent, ..inode }));
            }
            Err(error) => self.damaged(head, error.reason),
        }
    }

    fn bucket(&mut self, head: &HeadKey<'_>, record: &[u8]) -> FsResult<()> {
        let bucket = match Bucket::decode(record) {
            Ok(bucket) => bucket.lift(|object| self.view.lift(object)),
            Err(error) => {
                self.damaged(head, error.reason);
                return Ok(());
            }
        };
        let number = head.number()?;
        let mut names = BTreeSet::new();
        for entry in bucket.entries() {
            self.report.entries += 1;
            self.object(|object| {
                object.entries += 1;
                object.subdirectories += u64::from(entry.kind == FileKind::Directory);
            });
            if self.namespace.names.bucket(&entry.name) != number {
                self.entry_finding(FindingKind::MisplacedEntry, head.object, entry, "hash differs");
            }
            if !names.insert(&entry.name) {
                let detail = "the directory has another of that name";
                self.entry_finding(FindingKind::MisplacedEntry, head.object, entry, detail);
            }
            match self.namespace.stored_inode(entry.ino)? {
                None => {
                    let detail = format!("inode {} does not exist", entry.ino.0);
                    self.entry_finding(FindingKind::DanglingEntry, head.object, entry, &detail);
                }
                Some(inode) if inode.kind != entry.kind => {
                    let detail = format!("{:?}, but the inode is {:?}", entry.kind, inode.kind);
                    self.entry_finding(FindingKind::DanglingEntry, head.object, entry, &detail);
                }
                Some(inode) if inode.is_dir() => {
                    let cookie = cookie_of(number, entry.position);
                    if inode.parent != head.object || inode.cookie != cookie {
                        let detail = "the directory says that it lies elsewhere";
                        self.entry_finding(FindingKind::Unreachable, head.object, entry, detail);
                    }
                }
                Some(inode) => self.linked_entry((head.object, number), entry, &inode)?,
            }
        }
        Ok(())
    }

    fn entry_finding(&mut self, kind: FindingKind, dir: Ino, entry: &Entry, detail: &str) {
        let mut path = self.namespace.path(dir);
        if path.last() != Some(&b'/') {
            path.push(b'/');
        }
        path.extend_from_slice(&entry.name);
        self.report.suspects.add(dir);
        self.finding_at(kind, entry.ino, path, detail);
    }

    fn extent(&mut self, head: &HeadKey<'_>, value: &[u8]) -> FsResult<()> {
        let record = match SlotRecord::decode_value(value) {
            Ok(record) => record,
            Err(error) => {
                self.damaged(head, error.reason);
                return Ok(());
            }
        };
        self.report.slots += 1;
        self.object(|object| object.allocated += allocated(&record.pieces));
        let slot = head.number()?;
        for block in record.pieces.iter().filter_map(|piece| piece.block()) {
            self.report.block_references += 1;
            let backref =
                Backref { block: block.id, ino: head.object, slot, node: record.version.node };
            let found = self.namespace.gate.store().get(Space::Backrefs, &backref.encode())?;
            if found.is_none() {
                let detail = format!("block {} in slot {slot}", block.id);
                self.finding(FindingKind::MissingBackref, head.object, detail);
            }
        }
        Ok(())
    }

    fn finish_object(&mut self) -> FsResult<()> {
        let Some(object) = self.object.take() else { return Ok(()) };
        let ino = object.ino;
        let Some(inode) = &object.inode else {
            if !object.damaged && self.has_records(&object) {
                self.finding(FindingKind::NoInode, ino, "records without an inode");
            }
            return Ok(());
        };
        self.finish_content(&object, inode);
        self.finish_links(&object, inode)?;
        if inode.is_dir() {
            self.finish_directory(&object, inode)?;
        } else if object.entries > 0 {
            self.finding(FindingKind::Content, ino, "entries in what is not a directory");
        }
        // Only what a live line holds itself is cleared away.
        let is_own = self.view.is_live() && inode.version.node >= self.view.first;
        if inode.nlink == 0 && is_own {
            let key = key::meta_inode(key::ORPHANS, self.view.line, ino);
            if self.namespace.gate.store().get(Space::Meta, &key)?.is_none() {
                self.finding(FindingKind::Orphan, ino, "no name, and no orphan record");
            }
        }
        Ok(())
    }

    fn has_records(&self, object: &Object) -> bool {
        object.allocated > 0
            || object.xattr_names > 0
            || object.entries > 0
            || object.links > 0
            || object.target_len.is_some()
    }

    fn finish_content(&mut self, object: &Object, inode: &Inode) {
        if object.damaged {
            return;
        }
        let mut differ = |what: &str, stored: u64, found: u64| {
            if stored != found {
                let detail = format!("{what}: the inode says {stored}, found {found}");
                self.finding(FindingKind::Content, object.ino, detail);
            }
        };
        differ("allocated bytes", inode.allocated, object.allocated);
        differ("bytes of attribute names", u64::from(inode.xattr_names), object.xattr_names);
        if inode.kind == FileKind::Symlink {
            differ("length of the target", inode.size, object.target_len.unwrap_or(0));
        }
        for (flag, what) in
            [(InodeFlags::ACCESS_ACL, "an ACL"), (InodeFlags::DEFAULT_ACL, "a default ACL")]
        {
            if inode.flags.has(flag) != object.acl.has(flag) {
                let detail = format!("{what} that only the inode or only its attributes have");
                self.finding(FindingKind::Content, object.ino, detail);
            }
        }
    }

    fn finish_directory(&mut self, object: &Object, inode: &Inode) -> FsResult<()> {
        let ino = object.ino;
        let links = if inode.nlink == 0 { 0 } else { 2 + object.subdirectories };
        if !object.damaged && (inode.size != object.entries || u64::from(inode.nlink) != links) {
            let detail = format!(
                "the inode says {} entries and {} links, found {} and {links}",
                inode.size, inode.nlink, object.entries
            );
            self.finding(FindingKind::EntryCount, ino, detail);
        }
        if ino != self.view.root() && inode.nlink != 0 {
            let named = if_there(self.namespace.name_in_parent(inode))?.flatten();
            if named.is_none() {
                self.finding(FindingKind::Unreachable, ino, "its parent does not hold it");
            } else if if_there(self.namespace.is_within(ino, self.view.root()))? != Some(true) {
                self.finding(FindingKind::Unreachable, ino, "not below the root");
            }
        }
        Ok(())
    }
}
