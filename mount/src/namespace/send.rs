//! Reading a snapshot to send it: what it shows, or what is different from an older state, in an
//! order that is the same every time, so that a cut stream can go on.
//!
//! First come inodes with their attributes and contents; then, directory by directory, names that
//! go, and then names that come, so that whoever applies them never has one name or one directory
//! twice; and last inodes that go. *Consistency*: a snapshot never changes, and while it is sent
//! neither it nor its base can be destroyed, which a process keeps in memory only. *Cost*: what
//! changed, or for a whole snapshot what exists; a changed file is looked at slot by slot.

mod ranges;
mod source;

use bytes::Bytes;

use super::Namespace;
use super::diff::Kinds;
use super::key::{self, HeadKey, Kind};
use super::names::cookie_of;
use super::pair::{Both, Pair, bucket};
use super::position::{Position, Stage};
use super::record::{Content, Inode, Reader, SlotRecord, Version};
use super::tree::TreeResult;
use crate::error::FsResult;
use crate::types::{FileKind, Ino};

pub(crate) use source::SendSource;

/// Inodes read at once.
const PAGE: usize = 256;

/// One thing that a state has, or no longer has. Inodes are named by their objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// An inode's attributes; what follows from others (names, entries, contents) is 0.
    Object(Inode),
    /// The target of a symbolic link that is new.
    Target { object: u64, target: Bytes },
    /// An extended attribute, or that it is gone.
    Xattr { object: u64, name: Bytes, value: Option<Bytes> },
    /// All of one MiB of a file.
    Slot { object: u64, slot: u64, ranges: Vec<SlotRange> },
    /// A name that goes.
    Unlink { dir: u64, name: Bytes, child: u64 },
    /// A name that comes.
    Link { dir: u64, name: Bytes, child: u64, kind: FileKind, is_home: bool },
    /// An inode that goes; no name is left of it.
    Remove { object: u64 },
}

/// A run of bytes within a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlotRange {
    /// Offset within the slot.
    pub(crate) start: u32,
    /// Bytes, at least 1.
    pub(crate) len: u32,
    /// The bytes; `None` for those that the base has at the same place.
    pub(crate) content: Option<Content>,
}

/// Most ranges that a slot travels in; one that lies in more pieces travels as its bytes.
pub(crate) const SLOT_RANGES_MAX: usize = 1 << 14;

/// Takes a step; `false` ends the walk.
pub(crate) type Sink<'a> = dyn FnMut(Step) -> FsResult<bool> + 'a;

impl Namespace {
    /// Passes everything from `from` on to `sink`, in order.
    fn walk(&self, pair: &Pair, from: Position, sink: &mut Sink<'_>) -> TreeResult<()> {
        for stage in [Stage::Objects, Stage::Unlinks, Stage::Links, Stage::Removals] {
            let first = match from.stage.cmp(&stage) {
                std::cmp::Ordering::Less => 0,
                std::cmp::Ordering::Equal => from.object,
                std::cmp::Ordering::Greater => continue,
            };
            let mut goes_on = true;
            self.each_object(pair, first, &mut |both| {
                goes_on = match stage {
                    Stage::Objects => {
                        let is_first = from.stage == stage && both.object.0 == from.object;
                        let slot = if is_first { from.sub } else { 0 };
                        self.walk_object(pair, &both, slot, sink)?
                    }
                    Stage::Unlinks => self.walk_unlinks(pair, &both, sink)?,
                    Stage::Links => self.walk_links(pair, &both, sink)?,
                    Stage::Removals => match (&both.old, &both.new) {
                        (Some(_), None) => sink(Step::Remove { object: both.object.0 })?,
                        _ => true,
                    },
                };
                Ok(goes_on)
            })?;
            if !goes_on {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Passes every object that may be different, in growing order.
    fn each_object(
        &self,
        pair: &Pair,
        first: u64,
        visit: &mut dyn FnMut(Both) -> FsResult<bool>,
    ) -> TreeResult<()> {
        if let Some(older) = &pair.older {
            return self.changed_objects_from(older, &pair.newer, first, &mut |object, kinds| {
                visit(self.both(pair, object, kinds)?)
            });
        }
        let line = pair.newer.line;
        let mut from = key::head(line, Ino(first), Kind::Inode).to_vec();
        let end = key::line_end(line);
        loop {
            let page = self.scan(&pair.newer, &from, &end, PAGE)?;
            for item in &page.items {
                let head = HeadKey::decode(&item.key)?;
                if head.kind != Kind::Inode {
                    continue;
                }
                let object = head.object;
                let new = Inode::decode(object, item.version, item.record()?)?;
                let new = Some(new).filter(|inode| inode.nlink > 0);
                if !visit(Both { object, old: None, new, kinds: Kinds::ALL })? {
                    return Ok(());
                }
            }
            match page.next {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }

    fn walk_object(
        &self,
        pair: &Pair,
        both: &Both,
        slot: u64,
        sink: &mut Sink<'_>,
    ) -> FsResult<bool> {
        let (Some(new), object) = (&both.new, both.object.0) else { return Ok(true) };
        if !sink(Step::Object(bare(new)))? {
            return Ok(false);
        }
        if new.kind == FileKind::Symlink && both.old.is_none() {
            let key = key::head(pair.newer.line, both.object, Kind::Symlink);
            if let Some((_, target)) = self.read(&pair.newer, &key)?
                && !sink(Step::Target { object, target })?
            {
                return Ok(false);
            }
        }
        let names = |inode: &Option<Inode>| inode.as_ref().map_or(0, |inode| inode.xattr_names);
        if both.may_differ(Kind::Xattr) && names(&both.old) + names(&both.new) > 0 {
            let differ = self.differing(pair, both, (Kind::Xattr, &[]), &mut |name, _, new| {
                let value = match new {
                    Some(item) => Some(item.value.slice_ref(item.record()?)),
                    None => None,
                };
                sink(Step::Xattr { object, name: Bytes::copy_from_slice(name), value })
            });
            if !differ? {
                return Ok(false);
            }
        }
        let bytes = |inode: &Option<Inode>| inode.as_ref().map_or(0, |inode| inode.allocated);
        if !both.may_differ(Kind::Extent) || bytes(&both.old) == 0 && bytes(&both.new) == 0 {
            return Ok(true);
        }
        self.differing(pair, both, (Kind::Extent, &slot.to_be_bytes()), &mut |slot, old, new| {
            let slot = Reader::new("slot", slot).u64_be()?;
            let pieces = |item: Option<&super::view::Item>| match item {
                Some(item) => Ok(SlotRecord::decode_value(&item.value)?.pieces),
                None => FsResult::Ok(Vec::new()),
            };
            let (old, new) = (pieces(old)?, pieces(new)?);
            if old == new {
                return Ok(true);
            }
            let mut ranges = ranges::ranges(&old, &new);
            if ranges.len() > SLOT_RANGES_MAX {
                // What travels as bytes needs all of them.
                ranges = ranges::ranges(&[], &new);
            }
            sink(Step::Slot { object, slot, ranges })
        })
    }

    fn walk_unlinks(&self, pair: &Pair, both: &Both, sink: &mut Sink<'_>) -> FsResult<bool> {
        if both.old.is_none() || !both.is_dir() || !both.may_differ(Kind::Dentry) {
            return Ok(true);
        }
        let dir = both.object.0;
        self.differing(pair, both, (Kind::Dentry, &[]), &mut |_, old, new| {
            let (old, new) = (bucket(old)?, bucket(new)?);
            for entry in old.without(&new) {
                let name = Bytes::copy_from_slice(&entry.name);
                if !sink(Step::Unlink { dir, name, child: entry.ino.0 })? {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    fn walk_links(&self, pair: &Pair, both: &Both, sink: &mut Sink<'_>) -> FsResult<bool> {
        if both.new.is_none() || !both.is_dir() || !both.may_differ(Kind::Dentry) {
            return Ok(true);
        }
        let dir = both.object.0;
        self.differing(pair, both, (Kind::Dentry, &[]), &mut |number, old, new| {
            let number = Reader::new("bucket", number).u64_be()?;
            let (old, new) = (bucket(old)?, bucket(new)?);
            for entry in new.without(&old) {
                let cookie = cookie_of(number, entry.position);
                let is_home = entry.kind == FileKind::Directory
                    || self
                        .stored_in(&pair.newer, entry.ino)?
                        .is_some_and(|inode| inode.parent == both.object && inode.cookie == cookie);
                let (name, child) = (Bytes::copy_from_slice(&entry.name), entry.ino.0);
                if !sink(Step::Link { dir, name, child, kind: entry.kind, is_home })? {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }
}

/// An inode without what follows from other records.
fn bare(inode: &Inode) -> Inode {
    Inode {
        version: Version::first(key::Node(0)),
        flags: Default::default(),
        nlink: 0,
        size: if inode.is_dir() { 0 } else { inode.size },
        allocated: 0,
        xattr_names: 0,
        parent: Ino(0),
        cookie: 0,
        digest: None,
        ..inode.clone()
    }
}

impl Step {
    /// Whether an inode is as [`Step::Object`] has it.
    pub(crate) fn is_bare(inode: &Inode) -> bool {
        bare(inode) == *inode
    }

    /// Where in the order of a stream it is.
    pub(crate) fn position(&self) -> Position {
        let at = |stage, object, sub| Position { stage, object, sub };
        match *self {
            Self::Object(ref inode) => at(Stage::Objects, inode.ino.0, 0),
            Self::Target { object, .. } | Self::Xattr { object, .. } => {
                at(Stage::Objects, object, 0)
            }
            Self::Slot { object, slot, .. } => at(Stage::Objects, object, slot),
            Self::Unlink { dir, .. } => at(Stage::Unlinks, dir, 0),
            Self::Link { dir, .. } => at(Stage::Links, dir, 0),
            Self::Remove { object } => at(Stage::Removals, object, 0),
        }
    }
}
