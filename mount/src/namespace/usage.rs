//! How many bytes a snapshot refers to, how many only it holds, and how many were written before
//! it. Bytes are those of files, before compression.

use super::Namespace;
use super::key::{self, Backref, Dataset, HeadKey, Kind, Line, Node};
use super::record::{Content, Referenced, SlotRecord, Version};
use super::snapshots::Snapshot;
use super::store::{Space, prefix_end};
use super::tree::{TreeError, TreeResult, View};
use super::view::behind;
use crate::error::FsResult;
use crate::types::Ino;

/// Records looked at together.
const PAGE: usize = 512;

impl Namespace {
    /// What a snapshot refers to. The first time it is counted: from an older snapshot that was,
    /// by what changed in between, otherwise by all inodes.
    pub fn referenced(&self, dataset: Dataset, name: &str) -> TreeResult<Referenced> {
        let snapshot = self.find_snapshot(dataset, name)?;
        if let Some(known) = snapshot.referenced {
            return Ok(known);
        }
        let counted = self.count_referenced(&snapshot)?;
        self.edit_snapshot(dataset, name, |_, record| {
            record.referenced = Some(counted);
            Ok(())
        })?;
        Ok(counted)
    }

    fn count_referenced(&self, snapshot: &Snapshot) -> TreeResult<Referenced> {
        let view = self.view(snapshot.root)?;
        let older = self.snapshots(snapshot.dataset)?.into_iter().rev();
        let mut older = older.filter(|older| older.node < snapshot.node);
        let Some((base, mut sum)) = older.find_map(|older| Some((older.root, older.referenced?)))
        else {
            return Ok(self.count_all(&view)?);
        };
        let base = self.view(base)?;
        let count = |view: &View, object| -> FsResult<(u64, u64)> {
            let inode = self.find_inode(view.lift(object))?.filter(|inode| inode.nlink > 0);
            Ok(inode.map_or((0, 0), |inode| (inode.allocated, 1)))
        };
        self.changed_objects(&base, &view, &mut |object, _| {
            let (before, after) = (count(&base, object)?, count(&view, object)?);
            sum.bytes = (sum.bytes + after.0).saturating_sub(before.0);
            sum.files = (sum.files + after.1).saturating_sub(before.1);
            Ok(true)
        })?;
        Ok(sum)
    }

    fn count_all(&self, view: &View) -> FsResult<Referenced> {
        let mut sum = Referenced::default();
        let mut from = key::line(view.line).to_vec();
        let end = key::line_end(view.line);
        loop {
            let page = self.scan(view, &from, &end, PAGE)?;
            for item in &page.items {
                let head = HeadKey::decode(&item.key)?;
                if head.kind == Kind::Inode {
                    let inode = view.inode(head.object, item.version, item.record()?)?;
                    if inode.nlink > 0 {
                        sum.bytes += inode.allocated;
                        sum.files += 1;
                    }
                }
            }
            match page.next {
                Some(next) => from = next,
                None => return Ok(sum),
            }
        }
    }

    /// Bytes of files that were written between the snapshot before and the state of `ino`, and
    /// that are still there.
    pub fn written(&self, ino: Ino) -> TreeResult<u64> {
        let view = self.view(ino)?;
        let older = self.snapshots(view.dataset)?.into_iter().rev();
        let mut older = older.filter(|older| older.node < view.limit);
        let Some(older) = older.next() else { return Ok(self.count_all(&view)?.bytes) };
        let older = self.view(older.root)?;
        let mut sum = 0;
        self.changed_objects(&older, &view, &mut |object, kinds| {
            let before = self.find_inode(older.lift(object))?;
            if kinds.has(Kind::Extent) || before.is_none() {
                sum += self.written_in(&view, object, older.limit)?;
            }
            Ok(true)
        })?;
        Ok(sum)
    }

    fn written_in(&self, view: &View, object: Ino, after: Node) -> FsResult<u64> {
        let (mut sum, mut next) = (0, Some(0));
        while let Some(from) = next {
            let page = self.slots(view.lift(object), from, u64::MAX, PAGE)?;
            let new = page.slots.iter().filter(|(_, record)| record.version.node > after);
            sum += new.map(|(_, record)| super::record::allocated(&record.pieces)).sum::<u64>();
            next = page.next;
        }
        Ok(sum)
    }

    /// Bytes that destroying only this snapshot would free: of blocks to which nothing else
    /// refers, and of inline pieces.
    pub fn used(&self, dataset: Dataset, name: &str) -> TreeResult<u64> {
        let node = self.find_snapshot(dataset, name)?.node;
        let (line, nodes) = {
            let tree = self.tree.read();
            let line = tree.line_of(node).ok_or_else(|| TreeError::NoSnapshot(name.to_owned()))?;
            let readers = tree.readers(line);
            let next = readers.iter().copied().find(|&reader| reader > node);
            (line, tree.nodes_of(line, node, next.unwrap_or(Node::MAX)))
        };
        let mut sum = 0;
        for later in nodes {
            let mut from = key::born(later, Ino(0), Kind::Inode).to_vec();
            let end = key::meta_number(0, later.0 + 1)[1..].to_vec();
            loop {
                let page = self.gate.store().page(Space::Born, &from, Some(&end), PAGE)?;
                for (key, _) in &page.items {
                    let (_, object, kind) = key::born_decode(key)?;
                    if kind == Kind::Extent {
                        sum += self.used_in(line, node, later, object)?;
                    }
                }
                match page.items.last().filter(|_| page.more) {
                    Some((last, _)) => from = behind(last),
                    None => break,
                }
            }
        }
        Ok(sum)
    }

    /// Bytes of a file that only the snapshot sees and that `later` replaced.
    fn used_in(&self, line: Line, snapshot: Node, later: Node, object: Ino) -> FsResult<u64> {
        let mut sum = 0;
        let mut from = key::history_of(object, Kind::Extent).to_vec();
        let end = prefix_end(&from);
        loop {
            let page = self.gate.store().page(Space::History, &from, end.as_deref(), PAGE)?;
            for (found, value) in &page.items {
                let (head_key, node) = key::history_decode(line, found)?;
                let is_only =
                    self.sees_alone(line, snapshot, &head_key, node)? == Some(Some(later));
                if is_only {
                    let slot = HeadKey::decode(&head_key)?.number()?;
                    sum += self.freed_with(line, snapshot, (object, slot), value)?;
                }
            }
            match page.items.last().filter(|_| page.more) {
                Some((last, _)) => from = behind(last),
                None => return Ok(sum),
            }
        }
    }

    /// What replaced a version of a line, if the snapshot is the only reader that sees it.
    fn sees_alone(
        &self,
        line: Line,
        snapshot: Node,
        head_key: &[u8],
        node: Node,
    ) -> FsResult<Option<Option<Node>>> {
        if self.tree.read().line_of(node) != Some(line) {
            return Ok(None);
        }
        let successor = self.successor(line, head_key, node)?;
        let tree = self.tree.read();
        let readers = tree.readers(line);
        let mut seeing = readers
            .iter()
            .filter(|&&reader| reader >= node && successor.is_none_or(|next| reader < next));
        let is_alone = seeing.next() == Some(&snapshot) && seeing.next().is_none();
        Ok(is_alone.then_some(successor))
    }

    /// The node of the next version of a record on its line.
    fn successor(&self, line: Line, head_key: &[u8], node: Node) -> FsResult<Option<Node>> {
        let mut from = behind(&key::history(head_key, node));
        let end = behind(&key::history(head_key, Node::MAX));
        loop {
            let page = self.gate.store().page(Space::History, &from, Some(&end), 1)?;
            let Some((found, _)) = page.items.first() else { break };
            let (key, next) = key::history_decode(line, found)?;
            if key == head_key && self.tree.read().line_of(next) == Some(line) {
                return Ok(Some(next));
            }
            from = behind(found);
        }
        let Some(head) = self.gate.store().get(Space::Head, head_key)? else { return Ok(None) };
        let head = Version::split(&head)?.0.node;
        Ok((head > node).then_some(head))
    }

    /// Bytes that go with a version: inline ones, and those of blocks whose references all go
    /// with the snapshot. A block is counted at the first of its references.
    fn freed_with(
        &self,
        line: Line,
        snapshot: Node,
        (object, slot): (Ino, u64),
        value: &[u8],
    ) -> FsResult<u64> {
        let record = SlotRecord::decode_value(value)?;
        let mut sum = 0;
        let mut seen = Vec::new();
        for piece in &record.pieces {
            match &piece.content {
                Content::Inline(bytes) => sum += bytes.len() as u64,
                Content::Unwritten => {}
                Content::Block { block, .. } => {
                    let this =
                        Backref { block: block.id, ino: object, slot, node: record.version.node };
                    if !seen.contains(&block.id) && self.goes_with(line, snapshot, &this)? {
                        sum += u64::from(block.len);
                    }
                    seen.push(block.id);
                }
            }
        }
        Ok(sum)
    }

    /// Whether all references to a block go with the snapshot, and `this` is the first of them.
    fn goes_with(&self, line: Line, snapshot: Node, this: &Backref) -> FsResult<bool> {
        if self.backrefs(this.block, None, 1)?.first() != Some(this) {
            return Ok(false);
        }
        let mut after = None;
        loop {
            let found = self.backrefs(this.block, after, PAGE)?;
            for backref in &found {
                let key = key::head_numbered(line, backref.ino, Kind::Extent, backref.slot);
                if self.sees_alone(line, snapshot, &key, backref.node)?.is_none() {
                    return Ok(false);
                }
            }
            match found.last() {
                Some(&last) if found.len() == PAGE => after = Some(last),
                _ => return Ok(true),
            }
        }
    }
}
