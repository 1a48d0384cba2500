//! Structure check: what every record says about every other, in bounded memory.
//!
//! One pass over the head space checks each object by itself, and entries and link records against
//! each other by point lookups; link counts are summed up for a window of inode numbers at a time,
//! one more pass for each further window. Back-references are followed both ways by point lookups.
//! Meant for a namespace that nobody changes meanwhile.

mod links;
mod report;
mod seals;

use firn_tiering::{BlockId, BlockRef};

pub use report::{CheckOptions, Finding, FindingKind, Report};

use super::Namespace;
use super::key::{self, Backref, HeadKey, Kind, Line, Node};
use super::names::cookie_of;
use super::record::{
    Bucket, Entry, Inode, Piece, Reader, RecordError, SlotRecord, Version, allocated,
};
use super::store::{Page, Space, prefix_end};
use super::tree::View;
use crate::error::{FsError, FsResult};
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
        let mut check = Check::new(self, options, views[0], report);
        check.orphans()?;
        check.history()?;
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

    fn for_each(&self, space: Space, visit: &mut Visit<'_>) -> FsResult<()> {
        self.for_each_in(space, (&[], None), visit)
    }

    fn for_each_in(
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
            from.clear();
            from.extend_from_slice(last);
            from.push(0);
        }
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

    /// All records that the view shows, by their head keys on its line.
    fn for_each(namespace: &Namespace, view: &View, visit: &mut Visit<'_>) -> FsResult<()> {
        let mut from = key::line(view.line).to_vec();
        let to = prefix_end(&from);
        if view.is_live() && !view.has_origin {
            // Damage in between is a finding, not an error.
            return namespace.for_each_in(Space::Head, (&from, to.as_deref()), visit);
        }
        let to = key::line_end(view.line);
        loop {
            let page = namespace.scan(view, &from, &to, PAGE)?;
            for item in &page.items {
                visit(&item.key, &item.value)?;
            }
            match page.next {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
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
        self.report.found += 1;
        if self.report.findings.len() < self.options.max_findings {
            self.report.findings.push(Finding { kind, path, ino, detail: detail.into() });
        }
    }

    /// Every object by itself.
    fn objects(&mut self) -> FsResult<()> {
        let (namespace, view) = (self.namespace, self.view);
        Self::for_each(namespace, &view, &mut |key, value| self.record(key, value))?;
        self.finish_object()
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> FsResult<()> {
        let head = match HeadKey::decode(key) {
            Ok(head) => HeadKey { object: self.view.lift(head.object), ..head },
            Err(error) => {
                self.finding(FindingKind::Damaged, Ino(0), error.to_string());
                return Ok(());
            }
        };
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
            });
        }
        let (version, record) = match Version::split(value) {
            Ok(split) => split,
            Err(error) => {
                self.damaged(&head, &error.to_string());
                return Ok(());
            }
        };
        if version.whiteout {
            return Ok(());
        }
        match head.kind {
            Kind::Inode => self.inode(&head, version, record),
            Kind::Symlink => self.object(|object| object.target_len = Some(record.len() as u64)),
            Kind::Xattr => {
                self.object(|object| object.xattr_names += head.sub.len() as u64 + 1);
            }
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
        for entry in bucket.entries() {
            self.report.entries += 1;
            self.object(|object| {
                object.entries += 1;
                object.subdirectories += u64::from(entry.kind == FileKind::Directory);
            });
            if self.namespace.names.bucket(&entry.name) != number {
                self.entry_finding(FindingKind::MisplacedEntry, head.object, entry, "hash differs");
            }
            match self.stored_inode(entry.ino)? {
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
        self.finding_at(kind, entry.ino, path, detail);
    }

    /// An inode as stored; a damaged one is reported where it stands and counts as absent.
    fn stored_inode(&self, ino: Ino) -> FsResult<Option<Inode>> {
        let Ok(view) = self.namespace.view(ino) else { return Ok(None) };
        let key = key::head(view.line, ino, Kind::Inode);
        match self.namespace.read(&view, &key) {
            Ok(found) => Ok(found
                .filter(|(version, _)| !version.whiteout)
                .and_then(|(version, record)| view.inode(ino, version, &record).ok())),
            Err(FsError::Io { source, .. }) if source.is::<RecordError>() => Ok(None),
            Err(error) => Err(error),
        }
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
        self.finish_links(&object, inode);
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
            let named = self.namespace.name_in_parent(inode);
            if !matches!(named, Ok(Some(_))) {
                self.finding(FindingKind::Unreachable, ino, "its parent does not hold it");
            } else if !matches!(self.namespace.is_within(ino, self.view.root()), Ok(true)) {
                self.finding(FindingKind::Unreachable, ino, "not below the root");
            }
        }
        Ok(())
    }

    /// Orphan records against their inodes.
    fn orphans(&mut self) -> FsResult<()> {
        let mut after = None;
        loop {
            let found = self.namespace.orphans(after, PAGE)?;
            for &ino in &found {
                match self.stored_inode(ino)? {
                    Some(inode) if inode.nlink > 0 => {
                        self.finding(FindingKind::Orphan, ino, "an orphan record, but names too");
                    }
                    _ => {}
                }
            }
            match found.last() {
                Some(&last) if found.len() == PAGE => after = Some(last),
                _ => return Ok(()),
            }
        }
    }

    /// Every older version against its line and its head.
    fn history(&mut self) -> FsResult<()> {
        let namespace = self.namespace;
        namespace.for_each(Space::History, &mut |key, value| {
            let line = key
                .last_chunk()
                .and_then(|node| namespace.tree.read().line_of(Node(u32::from_be_bytes(*node))));
            let Some(line) = line else {
                self.finding(FindingKind::Damaged, Ino(0), "an older version of no line");
                return Ok(());
            };
            match key::history_decode(line, key) {
                Ok((head, node)) => self.older(&head, node, value),
                Err(error) => {
                    self.finding(FindingKind::Damaged, Ino(0), error.to_string());
                    Ok(())
                }
            }
        })
    }

    fn older(&mut self, head_key: &[u8], node: Node, value: &[u8]) -> FsResult<()> {
        let head = HeadKey::decode(head_key)?;
        let object = self.namespace.shown(node, head.object);
        let version = match Version::split(value) {
            Ok((version, _)) => version,
            Err(error) => {
                self.finding(FindingKind::Damaged, object, error.to_string());
                return Ok(());
            }
        };
        let newest = self.namespace.gate.store().get(Space::Head, head_key)?;
        let newest = newest.and_then(|value| Version::split(&value).ok().map(|split| split.0));
        let fits = newest.is_some_and(|newest| newest.shadows && newest.node > node);
        if version.node != node || !fits {
            let detail = format!("{:?} of node {} without a newer one", head.kind, node.0);
            self.finding(FindingKind::Versions, object, detail);
        }
        if head.kind == Kind::Extent {
            self.extent(&HeadKey { object, ..head }, value)?;
        }
        Ok(())
    }

    /// Every back-reference against its extent.
    fn backrefs(&mut self) -> FsResult<()> {
        let namespace = self.namespace;
        namespace.for_each(Space::Backrefs, &mut |key, _| {
            let backref = match Backref::decode(key) {
                Ok(backref) => backref,
                Err(error) => {
                    self.finding(FindingKind::Damaged, Ino(0), error.to_string());
                    return Ok(());
                }
            };
            if !self.uses(&backref)? {
                let detail = format!("block {} in slot {}", backref.block, backref.slot);
                let ino = self.namespace.shown(backref.node, backref.ino);
                self.finding(FindingKind::StaleBackref, ino, detail);
            }
            Ok(())
        })
    }

    /// Whether the extent that a back-reference names refers to the block, now or in the history.
    fn uses(&self, backref: &Backref) -> FsResult<bool> {
        let Backref { block, ino, slot, node } = *backref;
        let store = self.namespace.gate.store();
        let Some(line) = self.namespace.tree.read().line_of(node) else { return Ok(false) };
        let key = key::head_numbered(line, ino, Kind::Extent, slot);
        let refers =
            |value: &[u8], node: Node, block: BlockId| match SlotRecord::decode_value(value) {
                Ok(record) if record.version.node == node => {
                    Some(record.pieces.iter().any(|p| p.block().is_some_and(|b| b.id == block)))
                }
                Ok(_) => None,
                // Damage is reported where it stands.
                Err(_) => Some(true),
            };
        if let Some(value) = store.get(Space::Head, &key)?
            && let Some(answer) = refers(&value, node, block)
        {
            return Ok(answer);
        }
        let older = store.get(Space::History, &key::history(&key, node))?;
        Ok(older.and_then(|value| refers(&value, node, block)).unwrap_or(false))
    }

    /// The counters of space against what they count, where all of that is sound.
    fn usage(&mut self) -> FsResult<()> {
        if self.report.found > 0 {
            return Ok(());
        }
        let stored = self.namespace.gate.ledger().parts();
        let counted = self.namespace.recount()?;
        for ((line, node), found) in counted {
            let usage = stored.get(&(line, node)).copied().unwrap_or_default();
            if usage != found {
                let detail =
                    format!("line {} up to {}: {usage:?}, found {found:?}", line.0, node.0);
                let root = self.namespace.live_view(line).map_or(Ino(0), |view| view.root());
                self.finding(FindingKind::Usage, root, detail);
            }
        }
        Ok(())
    }
}
