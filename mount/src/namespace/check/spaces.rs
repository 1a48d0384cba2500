//! What lies beside the head space: older versions, the born index, back-references, notes,
//! counters.

use firn_tiering::BlockId;

use super::{Check, FindingKind};
use crate::error::FsResult;
use crate::namespace::Namespace;
use crate::namespace::key::{self, Backref, Dataset, HeadKey, Kind, Line, LinkAt, Node};
use crate::namespace::record::{Bucket, Inode, RecordError, SlotRecord, Version, link_name};
use crate::namespace::store::{Space, prefix_end};
use crate::namespace::tree::Tree;
use crate::namespace::view::behind;
use crate::types::Ino;

impl Check<'_> {
    /// Notes about inodes: whether they can be read, and whether orphans are orphans.
    pub(super) fn notes(&mut self) -> FsResult<()> {
        let namespace = self.namespace;
        for start in [key::AWAITED, key::SEALS, key::SUMS] {
            let range = (&[start][..], Some(&[start + 1][..]));
            namespace.for_each_in(Space::Meta, range, &mut |key, _| {
                if key::note_names_something(key) == Some(false) {
                    self.finding(FindingKind::Damaged, Ino(0), "a note about nothing");
                }
                Ok(())
            })?;
        }
        for start in [key::ORPHANS, key::DIGESTS, key::TRUNCATIONS] {
            let range = (&[start][..], Some(&[start + 1][..]));
            namespace.for_each_in(Space::Meta, range, &mut |key, _| {
                let (line, object) = match key::meta_inode_decode(key) {
                    Ok(found) => found,
                    Err(error) => {
                        self.finding(FindingKind::Damaged, Ino(0), error.to_string());
                        return Ok(());
                    }
                };
                // What a destroyed dataset left goes with the rest of its line.
                let Ok(view) = namespace.live_view(line) else { return Ok(()) };
                let ino = view.lift(object);
                if start == key::ORPHANS
                    && namespace.stored_inode(ino)?.is_some_and(|inode| inode.nlink > 0)
                {
                    self.finding(FindingKind::Orphan, ino, "an orphan record, but names too");
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Records on lines that no dataset, no snapshot and no sweep knows.
    pub(super) fn lines(&mut self) -> FsResult<()> {
        let mut from = Some(Vec::new());
        while let Some(at) = from.take() {
            let page = self.namespace.gate.store().page(Space::Head, &at, None, 1)?;
            let Some((key, _)) = page.items.first() else { return Ok(()) };
            let Some(line) = key.first_chunk().map(|line| Dataset(u32::from_be_bytes(*line)))
            else {
                self.finding(FindingKind::Damaged, Ino(0), "a head key that is too short");
                from = Some(behind(key));
                continue;
            };
            if !self.namespace.tree.read().knows(line) {
                let detail = format!("records on line {}, which no dataset has", line.0);
                self.finding(FindingKind::NoDataset, Ino(0), detail);
            }
            from = prefix_end(&key::line(line));
        }
        Ok(())
    }

    /// Every older version against its line and its head.
    pub(super) fn history(&mut self) -> FsResult<()> {
        let namespace = self.namespace;
        namespace.for_each(Space::History, &mut |key, value| {
            let node = key.last_chunk().map(|node| Node(u32::from_be_bytes(*node)));
            let line = node.and_then(|node| namespace.tree.read().line_of(node));
            let Some(line) = line else {
                let is_lost = node.is_some_and(|node| namespace.is_lost_node(node))
                    && key::history_decode(Dataset::ROOT, key).is_ok();
                let kind = if is_lost { FindingKind::NoDataset } else { FindingKind::Damaged };
                self.finding(kind, Ino(0), "an older version of no line");
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
        let damaged = |reason: &str| format!("{:?}, in a snapshot: {reason}", head.kind);
        let newest = self.namespace.gate.store().get(Space::Head, head_key)?;
        let newest = newest.and_then(|value| Version::split(&value).ok().map(|split| split.0));
        if newest.is_none_or(|newest| !newest.shadows || newest.node <= node) {
            let detail = format!("{:?} of node {} without a newer one", head.kind, node.0);
            self.finding(FindingKind::Versions, object, detail);
        }
        self.born_entry(&head, node)?;
        let (version, record) = match Version::split(value) {
            Ok(split) if split.0.node == node => split,
            Ok(_) => {
                let detail = damaged("the version of another node");
                self.finding(FindingKind::DamagedOlder, object, detail);
                return Ok(());
            }
            Err(error) => {
                self.finding(FindingKind::DamagedOlder, object, damaged(error.reason));
                return Ok(());
            }
        };
        if version.whiteout {
            return Ok(());
        }
        if let Err(error) = decodes(&head, version, record) {
            self.finding(FindingKind::DamagedOlder, object, damaged(error.reason));
        } else if head.kind == Kind::Extent {
            self.extent(&HeadKey { object, ..head }, value)?;
        }
        Ok(())
    }

    /// The entry that the born index must have for a version.
    pub(super) fn born_entry(&mut self, head: &HeadKey<'_>, node: Node) -> FsResult<()> {
        if self.namespace.is_born(head.line, head.object, head.kind, node)? {
            return Ok(());
        }
        let object = self.namespace.shown(node, head.object);
        let detail = format!("{:?} of node {}", head.kind, node.0);
        self.finding(FindingKind::MissingBorn, object, detail);
        Ok(())
    }

    /// Keys of the born index that cannot be read.
    pub(super) fn born(&mut self) -> FsResult<()> {
        let namespace = self.namespace;
        namespace.for_each(Space::Born, &mut |key, _| {
            if let Err(error) = key::born_decode(key) {
                self.finding(FindingKind::Damaged, Ino(0), error.to_string());
            }
            Ok(())
        })
    }

    /// Every back-reference against its extent.
    pub(super) fn backrefs(&mut self) -> FsResult<()> {
        let namespace = self.namespace;
        namespace.for_each(Space::Backrefs, &mut |key, _| {
            let backref = match Backref::decode(key) {
                Ok(backref) => backref,
                Err(error) => {
                    self.finding(FindingKind::Damaged, Ino(0), error.to_string());
                    return Ok(());
                }
            };
            if !backref.is_hold() && !namespace.uses(&backref)? {
                let detail = format!("block {} in slot {}", backref.block, backref.slot);
                let ino = namespace.shown(backref.node, backref.ino);
                self.finding(FindingKind::StaleBackref, ino, detail);
            }
            Ok(())
        })
    }

    /// The counters of space against what they count, where all of that is sound.
    pub(super) fn usage(&mut self) -> FsResult<()> {
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

impl Namespace {
    /// Whether the extent that a back-reference names refers to the block, now or in the history.
    pub(in crate::namespace) fn uses(&self, backref: &Backref) -> FsResult<bool> {
        let Backref { block, ino, slot, node } = *backref;
        let store = self.gate.store();
        let line = self.tree.read().line_of(node);
        // The key of an older version has no line in it.
        let key = key::head_numbered(line.unwrap_or(Line::ROOT), ino, Kind::Extent, slot);
        let refers =
            |value: &[u8], node: Node, block: BlockId| match SlotRecord::decode_value(value) {
                Ok(record) if record.version.node == node => {
                    Some(record.pieces.iter().any(|p| p.block().is_some_and(|b| b.id == block)))
                }
                Ok(_) => None,
                // Damage is reported where it stands.
                Err(_) => Some(true),
            };
        if line.is_some()
            && let Some(value) = store.get(Space::Head, &key)?
            && let Some(answer) = refers(&value, node, block)
        {
            return Ok(answer);
        }
        let older = store.get(Space::History, &key::history(&key, node))?;
        Ok(older.and_then(|value| refers(&value, node, block)).unwrap_or(false))
    }

    /// Whether a node was given away once and is on no line now.
    pub(in crate::namespace) fn is_lost_node(&self, node: Node) -> bool {
        self.tree.read().is_lost(node)
    }

    /// Whether the born index has what it must have for a version that `node` wrote on a line; an
    /// inode's own entry stands for all its kinds.
    pub(in crate::namespace) fn is_born(
        &self,
        line: Line,
        object: Ino,
        kind: Kind,
        node: Node,
    ) -> FsResult<bool> {
        {
            let tree = self.tree.read();
            let has_older = tree.readers(line).first().is_some_and(|&reader| reader < node);
            if tree.line_of(node) != Some(line) || !has_older && tree.origin(line).is_none() {
                return Ok(true);
            }
        }
        let store = self.gate.store();
        let has = |kind| store.get(Space::Born, &key::born(node, object, kind));
        Ok(has(kind)?.is_some() || kind != Kind::Inode && has(Kind::Inode)?.is_some())
    }
}

/// Whether the record of a version decodes.
pub(in crate::namespace) fn decodes(
    head: &HeadKey<'_>,
    version: Version,
    record: &[u8],
) -> Result<(), RecordError> {
    match head.kind {
        Kind::Inode => Inode::decode(head.object, version, record).map(drop),
        Kind::Dentry => Bucket::decode(record).map(drop),
        Kind::Extent => SlotRecord::decode(version, record).map(drop),
        Kind::Link => LinkAt::decode(head.sub).and(link_name(record)).map(drop),
        Kind::Symlink | Kind::Xattr => Ok(()),
    }
}

impl Tree {
    /// [`Namespace::is_lost_node`].
    pub(in crate::namespace) fn is_lost(&self, node: Node) -> bool {
        (1..self.counters.node).contains(&node.0) && self.line_of(node).is_none()
    }

    /// Whether anything knows of a line.
    fn knows(&self, line: Line) -> bool {
        self.datasets.contains_key(&line)
            || self.lines.contains_key(&line)
            || self.sweeps.keys().any(|(of, _)| *of == line)
            || self.is_read(line)
    }
}
