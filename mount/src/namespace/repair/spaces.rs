//! What follows from the head space and what lies beside it: older versions, the born index,
//! back-references, notes, counters.

use bytes::Bytes;
use firn_tiering::BlockId;

use super::{Fate, Mender};
use crate::error::FsResult;
use crate::namespace::check::FindingKind;
use crate::namespace::key::{self, Backref, Dataset, HeadKey, Kind, Node};
use crate::namespace::record::{SlotRecord, Version};
use crate::namespace::store::Space;
use crate::namespace::tree::View;
use crate::namespace::txn::block_ids;
use crate::types::Ino;

impl Mender<'_> {
    /// Keys that cannot be read, or that nobody ever read.
    pub(super) fn mend_keys(&mut self) -> FsResult<()> {
        let ns = self.ns;
        let of_no_line = |key: &[u8]| {
            let node = key.last_chunk().map(|node| Node(u32::from_be_bytes(*node)));
            let tree = ns.tree.read();
            // What a lost node wrote may be what a snapshot shows.
            node.is_none_or(|node| tree.line_of(node).is_none() && !tree.is_lost(node))
        };
        for space in Space::ALL {
            ns.for_each(space, &mut |key, _| {
                let is_lost = match space {
                    Space::Head => HeadKey::decode(key).is_err(),
                    Space::History => {
                        of_no_line(key) || key::history_decode(Dataset::ROOT, key).is_err()
                    }
                    Space::Born => key::born_decode(key).is_err(),
                    Space::Backrefs => Backref::decode(key).is_err(),
                    Space::Meta => key::note_names_something(key) == Some(false),
                };
                if is_lost {
                    self.edits.delete(space, key);
                    if let (Space::Backrefs, Some(block)) = (space, key.first_chunk()) {
                        self.hold(BlockId::from_raw(u64::from_be_bytes(*block)));
                    }
                    let detail = format!("a {} key that means nothing", space.name());
                    self.note_at(FindingKind::Damaged, Ino(0), Vec::new(), Fate::Dropped, detail);
                }
                self.commit_some()
            })?;
        }
        self.commit()
    }

    /// Every older version with a newest one.
    pub(super) fn mend_older_versions(&mut self) -> FsResult<()> {
        let ns = self.ns;
        ns.for_each(Space::History, &mut |key, value| {
            let node = key.last_chunk().map(|node| Node(u32::from_be_bytes(*node)));
            let line = node.and_then(|node| ns.tree.read().line_of(node));
            let Some(line) = line else { return Ok(()) };
            let Ok((head_key, node)) = key::history_decode(line, key) else { return Ok(()) };
            let head = HeadKey::decode(&head_key)?;
            self.step(|mender| mender.mend_older(&head_key, &head, (key, value), node))
        })
    }

    /// Every version in the born index.
    pub(super) fn mend_born_index(&mut self) -> FsResult<()> {
        let ns = self.ns;
        ns.for_each(Space::Head, &mut |key, value| {
            if let (Ok(head), Ok((version, _))) = (HeadKey::decode(key), Version::split(value)) {
                self.mend_born(&head, version.node)?;
            }
            self.commit_some()
        })?;
        ns.for_each(Space::History, &mut |key, _| {
            let node = key.last_chunk().map(|node| Node(u32::from_be_bytes(*node)));
            let line = node.and_then(|node| ns.tree.read().line_of(node));
            let Some(line) = line else { return Ok(()) };
            let Ok((head_key, node)) = key::history_decode(line, key) else { return Ok(()) };
            let head = HeadKey::decode(&head_key)?;
            self.mend_born(&head, node)?;
            self.commit_some()
        })?;
        self.commit()
    }

    fn mend_born(&mut self, head: &HeadKey<'_>, node: Node) -> FsResult<()> {
        if !self.ns.is_born(head.line, head.object, head.kind, node)? {
            let key = key::born(node, head.object, head.kind);
            self.edits.put(Space::Born, &key, Bytes::new());
            let ino = self.ns.shown(node, head.object);
            let detail = format!("{:?} of node {}", head.kind, node.0);
            self.note(FindingKind::MissingBorn, ino, Fate::Mended, detail);
        }
        Ok(())
    }

    fn mend_older(
        &mut self,
        head_key: &[u8],
        head: &HeadKey<'_>,
        (key, value): (&[u8], &[u8]),
        node: Node,
    ) -> FsResult<()> {
        let stored = self.ns.gate.store().get(Space::Head, head_key)?;
        let newest = stored.as_ref().and_then(|value| Version::split(value).ok());
        let view = self.ns.tree.read().writable_view(head.line);
        let detail = match (newest, view) {
            (Some((newest, _)), _) if newest.shadows && newest.node > node => return Ok(()),
            (Some((newest, record)), _) if newest.node > node => {
                let mut value = Vec::with_capacity(record.len() + 5);
                Version { shadows: true, ..newest }.put(&mut value);
                value.extend_from_slice(record);
                self.edits.put(Space::Head, head_key, value);
                "a newest version that knew nothing of older ones"
            }
            // It says what it is, so the newest one does not: that is what the live state shows.
            (Some((newest, record)), Some(view))
                if Version::split(value).is_ok_and(|(older, _)| older.node == node) =>
            {
                self.renew(&view, head_key, newest, record)?;
                "a newest version that said to be older than others"
            }
            (Some(_), None) => return Ok(()),
            // Whoever is not older sees the newest one before it.
            (Some(_), Some(_)) => {
                self.edits.delete(Space::History, key);
                "an older version that nobody sees"
            }
            (None, Some(view)) => {
                self.edits.write(&view, head_key, None)?;
                "an older version whose newest one is gone"
            }
            (None, None) => return Ok(()),
        };
        self.commit()?;
        let ino = self.ns.shown(node, head.object);
        self.touched.insert(ino);
        self.note(FindingKind::Versions, ino, Fate::Mended, detail);
        Ok(())
    }

    /// Writes what is the newest version as one of now.
    fn renew(
        &mut self,
        view: &View,
        head_key: &[u8],
        newest: Version,
        record: &[u8],
    ) -> FsResult<()> {
        if newest.whiteout {
            return self.edits.write(view, head_key, None);
        }
        let make = |version: Version| {
            let mut value = Vec::with_capacity(record.len() + 5);
            version.put(&mut value);
            value.extend_from_slice(record);
            Ok(value)
        };
        self.edits.write(view, head_key, Some(&make))
    }

    /// Back-references of all extents, and no others.
    pub(super) fn mend_backrefs(&mut self) -> FsResult<()> {
        let ns = self.ns;
        // A version that says to be another than it can be is nobody's.
        ns.for_each(Space::Head, &mut |key, value| match HeadKey::decode(key) {
            Ok(head) if head.kind == Kind::Extent => {
                let line_of = |node| ns.tree.read().line_of(node);
                self.mend_references(&head, value, |node| line_of(node) == Some(head.line))
            }
            _ => Ok(()),
        })?;
        ns.for_each(Space::History, &mut |key, value| {
            let Ok((head, of)) = key::history_decode(Dataset::ROOT, key) else { return Ok(()) };
            match HeadKey::decode(&head) {
                Ok(head) if head.kind == Kind::Extent => {
                    self.mend_references(&head, value, |node| node == of)
                }
                _ => Ok(()),
            }
        })?;
        self.commit()?;
        self.mend_stale_backrefs()
    }

    fn mend_references(
        &mut self,
        head: &HeadKey<'_>,
        value: &[u8],
        can_be_of: impl Fn(Node) -> bool,
    ) -> FsResult<()> {
        let Ok(record) = SlotRecord::decode_value(value) else { return Ok(()) };
        let (slot, node) = (head.number()?, record.version.node);
        if !can_be_of(node) {
            return Ok(());
        }
        for block in block_ids(&record.pieces) {
            let key = Backref { block, ino: head.object, slot, node }.encode();
            if self.ns.gate.store().get(Space::Backrefs, &key)?.is_none() {
                self.edits.put(Space::Backrefs, &key, Bytes::new());
                let ino = self.ns.shown(node, head.object);
                let detail = format!("block {block} in slot {slot}");
                self.note(FindingKind::MissingBackref, ino, Fate::Mended, detail);
            }
        }
        self.commit_some()
    }

    /// Counts space anew where records changed or the counters are wrong; whether they were.
    pub(super) fn count_space(&mut self) -> FsResult<bool> {
        let stored = self.ns.gate.ledger().parts();
        let is_right = stored == self.ns.recount()?;
        if is_right && self.edits.is_counted() {
            return Ok(false);
        }
        self.ns.count_again()?;
        if !is_right {
            let detail = "what datasets hold";
            self.note_at(FindingKind::Usage, Ino(0), Vec::new(), Fate::Mended, detail);
        }
        Ok(true)
    }
}
