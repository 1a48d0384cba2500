//! Digests of whole files: the BLAKE3 of a file's content, kept in its inode from when it was
//! computed until the content changes.
//!
//! *Truth*: whatever replaces a slot takes the digest out of the inode that is stored with it, and
//! whatever stores an inode of another size stores it without one (both in [`super::Txn`], through
//! which every change of content goes), so that a digest that is there is that of the content. Who
//! computes one reads without locks; [`Namespace::end_digest`] stores it only if the inode is the
//! one with which the reading began, and nothing has stored it without a digest in between.
//! *Crash*: a file without a digest has a note, written in the batch that changed the content; the
//! digest and the end of the note are one batch as well. So a crash leaves the old content with
//! its digest, or the new content and the note; what was read and not stored is read again.
//! *Leaks*: a note whose file is gone or empty, until somebody looks at it. What a clone shows of
//! its origin has no notes of its own, nor has a file of an older volume; both get a note when they
//! are changed.

use std::ops::Range;
use std::sync::Arc;

use blake3::{Hash, Hasher};
use bytes::Bytes;
use firn_tiering::BlockRef;
use parking_lot::Mutex;

use super::Namespace;
use super::key::{self, HeadKey, Kind, Node};
use super::record::{Content, Inode, Piece, SLOT_LEN, Version};
use super::store::{Batch, Durability, Space};
use super::tree::View;
use super::view::behind;
use crate::error::FsResult;
use crate::types::{FileKind, Ino};

/// Slots looked up together.
const PAGE: usize = 64;

/// Files with more than this in holes have no digest: hashing their zeros takes for ever.
pub(crate) const MOST_HOLES: u64 = 1 << 40;

/// Records looked at together.
const RECORDS: usize = 1024;

static ZEROS: [u8; SLOT_LEN as usize] = [0; SLOT_LEN as usize];

/// The file that is being read for its digest; one at a time.
#[derive(Debug, Default)]
pub(super) struct Digests {
    reading: Mutex<Option<Reading>>,
}

#[derive(Debug)]
struct Reading {
    ino: Ino,
    /// Under which its record was written.
    node: Node,
    changed: bool,
}

impl Digests {
    /// An inode is about to be stored. Without a digest it may have other content than before.
    pub(super) fn put(&self, inode: &Inode) {
        if inode.kind == FileKind::File
            && inode.digest.is_none()
            && let Some(reading) = &mut *self.reading.lock()
            && reading.ino == inode.ino
        {
            reading.changed = true;
        }
    }
}

/// Some files that wait for a digest.
#[derive(Clone, Debug, Default)]
pub struct Undigested {
    /// Files of live datasets.
    pub inodes: Vec<Ino>,
    /// Where to continue; `None` at the end.
    pub next: Option<Vec<u8>>,
}

/// Where the bytes of a file come from when its digest is computed.
pub trait ContentSource {
    /// Bytes of a block, verified; `None` when they cannot be had now, which ends the reading.
    fn bytes(&mut self, block: &BlockRef, range: Range<u32>) -> FsResult<Option<Bytes>>;

    /// Asked about once for each MiB; `false` ends the reading.
    fn goes_on(&mut self) -> bool;
}

impl Namespace {
    /// Files that wait for a digest, from where an earlier page says on; about `limit` at a time.
    pub fn undigested(&self, from: Option<Vec<u8>>, limit: usize) -> FsResult<Undigested> {
        let from = from.unwrap_or_else(|| vec![key::DIGESTS]);
        let end = [key::DIGESTS + 1];
        let page = self.gate.store().page(Space::Meta, &from, Some(&end), limit)?;
        let mut found = Undigested::default();
        for (key, _) in &page.items {
            let (line, object) = key::meta_inode_decode(key)?;
            // What a destroyed dataset left goes with the rest of its line.
            if let Ok(view) = self.live_view(line) {
                found.inodes.push(view.lift(object));
            }
        }
        found.next = page.items.last().filter(|_| page.more).map(|(key, _)| behind(key));
        Ok(found)
    }

    /// Begins to compute the digest of a file; the reading that was begun before ends. `None` when
    /// it needs none any more, or cannot be changed now.
    pub fn begin_digest(&self, ino: Ino) -> FsResult<Option<Arc<Inode>>> {
        let _guard = self.lock(&[ino]);
        if self.writable(ino).is_err() {
            return Ok(None);
        }
        match self.find_inode(ino)?.filter(|inode| inode.awaits_digest()) {
            Some(inode) => {
                let reading = Reading { ino, node: inode.version.node, changed: false };
                *self.digests.reading.lock() = Some(reading);
                Ok(Some(inode))
            }
            None => {
                let mut txn = self.begin();
                txn.remove_digest_note(ino)?;
                txn.commit(Durability::Buffered)?;
                Ok(None)
            }
        }
    }

    /// Whether what is being read is still worth it.
    pub fn is_digest_wanted(&self) -> bool {
        self.digests.reading.lock().as_ref().is_some_and(|reading| !reading.changed)
    }

    /// Stores the digest of the content that the file had all the time since
    /// [`Namespace::begin_digest`]; `false` when it had not.
    pub fn end_digest(&self, ino: Ino, digest: Hash) -> FsResult<bool> {
        let _guard = self.lock(&[ino]);
        let Some(reading) = self.digests.reading.lock().take() else { return Ok(false) };
        if reading.changed || reading.ino != ino || self.writable(ino).is_err() {
            return Ok(false);
        }
        // The number may be that of another state by now, whose record was not stored just so.
        let is_same =
            |inode: &Arc<Inode>| inode.awaits_digest() && inode.version.node == reading.node;
        let Some(inode) = self.find_inode(ino)?.filter(is_same) else { return Ok(false) };
        self.store_digest(&self.view(ino)?, &inode, digest)
    }

    /// Stores the digest of a file's content in the very version of the inode that a state shows,
    /// whoever else sees that one: all of them see the same content with it. The caller holds the
    /// lock of the inode. `false` when that version has one, or is not there any more.
    pub(super) fn store_digest(&self, view: &View, inode: &Inode, digest: Hash) -> FsResult<bool> {
        let object = Ino(inode.ino.object());
        let Some((space, key, value)) = self.stored_version(view, object)? else {
            return Ok(false);
        };
        let (version, record) = Version::split(&value)?;
        let stored = Inode::decode(object, version, record)?;
        if version.node != inode.version.node || !stored.awaits_digest() {
            return Ok(false);
        }
        let mut batch = Batch::new();
        batch.put(space, &key, Inode { digest: Some(digest), ..stored }.encode());
        if view.is_live() {
            batch.delete(Space::Meta, &key::meta_inode(key::DIGESTS, view.line, object));
        }
        let line = self.tree.read().line_of(version.node);
        let shown = match (space, line) {
            // What is newest on a line is what its dataset shows.
            (Space::Head, Some(line)) => {
                batch.delete(Space::Meta, &key::meta_inode(key::DIGESTS, line, object));
                self.tree.read().writable_view(line)
            }
            _ => None,
        };
        self.gate.commit(batch, Durability::Buffered)?;
        for view in [Some(*view), shown].into_iter().flatten() {
            self.cache.remove(view.lift(object));
        }
        Ok(true)
    }

    /// Where the version of an inode lies that a state shows: its space, key and value.
    fn stored_version(
        &self,
        view: &View,
        object: Ino,
    ) -> FsResult<Option<(Space, Vec<u8>, Bytes)>> {
        let mut layer = view.layer();
        loop {
            let key = key::head(layer.line, object, Kind::Inode);
            let head = self.gate.store().get(Space::Head, &key)?;
            if let Some(value) = head {
                let version = Version::split(&value)?.0;
                if version.node <= layer.node {
                    let found = (Space::Head, key.to_vec(), value);
                    return Ok(Some(found).filter(|_| !version.whiteout));
                }
                if let Some((version, value)) = self.older(layer, &key)? {
                    let found = (Space::History, key::history(&key, version.node), value);
                    return Ok(Some(found).filter(|_| !version.whiteout));
                }
            }
            let Some(below) = self.tree.read().origin(layer.line) else { return Ok(None) };
            layer = below;
        }
    }

    /// The BLAKE3 of a file's committed content; `None` when the source ended the reading. Meant
    /// for content that does not change, or that somebody watches.
    pub fn digest_content(
        &self,
        inode: &Inode,
        source: &mut dyn ContentSource,
    ) -> FsResult<Option<Hash>> {
        let slot_len = u64::from(SLOT_LEN);
        let mut reader = Reader { hasher: Hasher::new(), at: 0, source };
        let mut next = Some(0);
        while let Some(from) = next {
            let page = self.slots(inode.ino, from, inode.size.div_ceil(slot_len), PAGE)?;
            for (slot, record) in page.slots {
                for piece in &record.pieces {
                    let start = slot * slot_len + u64::from(piece.start);
                    // What lies behind the end was allocated ahead.
                    let len = inode.size.saturating_sub(start).min(u64::from(piece.len)) as u32;
                    if !reader.zeros(start.min(inode.size))? || !reader.piece(piece, len)? {
                        return Ok(None);
                    }
                }
                if !reader.source.goes_on() {
                    return Ok(None);
                }
            }
            next = page.next;
        }
        Ok(reader.zeros(inode.size)?.then(|| reader.hasher.finalize()))
    }

    /// Passes every inode that has a stored digest, in the live datasets and in snapshots; one that
    /// several of them show unchanged only once, as the oldest of them shows it.
    pub fn for_each_digest(&self, visit: &mut dyn FnMut(&Inode) -> FsResult<()>) -> FsResult<()> {
        let mut views = {
            let tree = self.tree.read();
            [tree.live_views(), tree.snapshot_views()].concat()
        };
        views.sort_by_key(|view| (view.line, view.limit));
        let mut before = None;
        for view in views {
            let (line, first) = (view.line, view.first);
            // What an older reader sees as well was passed for that one; what lies on another line,
            // for the snapshot at which this one began.
            let seen = before.filter(|(of, _)| *of == line).map_or(Node(0), |(_, limit)| limit);
            self.digests_in(&view, &mut |inode| match inode.version.node {
                node if node > seen && node >= first => visit(inode),
                _ => Ok(()),
            })?;
            before = Some((line, view.limit));
        }
        Ok(())
    }

    /// Passes the inodes with a stored digest that a view shows.
    fn digests_in(
        &self,
        view: &View,
        visit: &mut dyn FnMut(&Inode) -> FsResult<()>,
    ) -> FsResult<()> {
        let (mut from, to) = (key::line(view.line).to_vec(), key::line_end(view.line));
        loop {
            let page = self.scan(view, &from, &to, RECORDS)?;
            for item in &page.items {
                let head = HeadKey::decode(&item.key)?;
                if head.kind != Kind::Inode {
                    continue;
                }
                // A damaged record is for the check of the structure to report.
                let inode = view.inode(view.lift(head.object), item.version, item.record()?);
                if let Some(inode) = inode.ok().filter(|inode| inode.digest.is_some()) {
                    visit(&inode)?;
                }
            }
            match page.next {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }
}

/// Content on its way into a digest.
struct Reader<'a> {
    hasher: Hasher,
    at: u64,
    source: &'a mut dyn ContentSource,
}

impl Reader<'_> {
    /// A hole up to `end`; `false` ends it.
    fn zeros(&mut self, end: u64) -> FsResult<bool> {
        while self.at < end {
            let len = (end - self.at).min(u64::from(SLOT_LEN));
            self.hasher.update(&ZEROS[..len as usize]);
            self.at += len;
            if self.at < end && !self.source.goes_on() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The first bytes of a piece; `false` ends it.
    fn piece(&mut self, piece: &Piece, len: u32) -> FsResult<bool> {
        match &piece.content {
            _ if len == 0 => {}
            Content::Inline(bytes) => drop(self.hasher.update(&bytes[..len as usize])),
            Content::Unwritten => return self.zeros(self.at + u64::from(len)),
            Content::Block { block, offset } => {
                match self.source.bytes(block, *offset..*offset + len)? {
                    Some(bytes) => drop(self.hasher.update(&bytes)),
                    None => return Ok(false),
                }
            }
        }
        self.at += u64::from(len);
        Ok(true)
    }
}
