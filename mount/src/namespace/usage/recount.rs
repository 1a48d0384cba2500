//! Counting anew what the counters of space say: for volumes that have none yet, and to check them.

use std::collections::BTreeMap;

use crate::error::{FsError, FsResult};
use crate::namespace::Namespace;
use crate::namespace::key::{self, HeadKey, Kind, Line, Node};
use crate::namespace::ledger::Part;
use crate::namespace::record::{
    Inode, Piece, RecordError, Referenced, SlotRecord, Usage, Version, VolumeRecord, fresh,
};
use crate::namespace::store::{Batch, Durability, NamespaceReader, Space};
use crate::namespace::tree::{Tree, View};
use crate::namespace::view::behind;

use super::PAGE;

/// Counters on the way.
type Parts = BTreeMap<Part, Usage>;

/// The counters that a volume has; none if they do not fit its version tree.
pub(in crate::namespace) fn stored(
    store: &dyn NamespaceReader,
    tree: &Tree,
) -> FsResult<Option<Parts>> {
    let mut parts = Parts::new();
    let loaded = crate::namespace::tree::each(store, key::USAGE, &mut |key, value| {
        parts.insert(key::meta_layer_decode(key)?, Usage::decode(value)?);
        Ok(())
    });
    let is_fit = parts.keys().copied().collect::<std::collections::BTreeSet<_>>() == tree.parts();
    match loaded {
        Ok(()) => Ok(is_fit.then_some(parts)),
        Err(FsError::Io { source, .. }) if source.is::<RecordError>() => Ok(None),
        Err(error) => Err(error),
    }
}

impl Namespace {
    /// Reads the counters or, where there are none that fit, counts; what was counted becomes
    /// durable if `keep`.
    pub(in crate::namespace) fn open_ledger(
        &self,
        volume: &VolumeRecord,
        keep: bool,
    ) -> FsResult<()> {
        let tree = self.tree.read().clone();
        let has_usage = volume.features & VolumeRecord::USAGE != 0;
        let found = match has_usage {
            true => stored(&**self.gate.store(), &tree)?,
            false => None,
        };
        if let Some(parts) = found {
            self.gate.ledger().load(parts, &tree);
            return Ok(());
        }
        let why = match has_usage {
            true => "the counters of space do not fit",
            false => "a volume of an older format",
        };
        tracing::info!(why, "counting what datasets hold, once");
        let parts = self.recount()?;
        if keep {
            self.keep_counters(volume, &parts)?;
        }
        self.gate.ledger().load(parts, &tree);
        Ok(())
    }

    /// Counts anew and keeps that.
    pub(in crate::namespace) fn count_again(&self) -> FsResult<()> {
        let tree = self.tree.read().clone();
        let parts = self.recount()?;
        self.keep_counters(&tree.volume, &parts)?;
        self.gate.ledger().load(parts, &tree);
        Ok(())
    }

    fn keep_counters(&self, volume: &VolumeRecord, parts: &Parts) -> FsResult<()> {
        let mut batch = Batch::new();
        let mut from = vec![key::USAGE];
        // What does not fit goes in the batch that puts what does.
        loop {
            let page = self.gate.store().page(Space::Meta, &from, Some(&[key::USAGE + 1]), PAGE)?;
            page.items.iter().for_each(|(key, _)| batch.delete(Space::Meta, key));
            match page.items.last().filter(|_| page.more) {
                Some((last, _)) => from = behind(last),
                None => break,
            }
        }
        for (&(line, node), usage) in parts {
            batch.put(Space::Meta, &key::usage(line, node), usage.encode());
        }
        let volume = VolumeRecord {
            has_tree: true,
            features: volume.features | VolumeRecord::USAGE,
            ..volume.clone()
        };
        batch.put(Space::Meta, key::VOLUME, volume.encode());
        self.gate.commit(batch, Durability::Durable)?;
        self.tree.write().volume = volume;
        Ok(())
    }

    /// What the counters should be. A damaged record counts for nothing.
    pub(in crate::namespace) fn recount(&self) -> FsResult<Parts> {
        let (wanted, views) = {
            let tree = self.tree.read();
            let lines = tree.datasets.keys();
            let views: Vec<View> = lines.filter_map(|&line| tree.writable_view(line)).collect();
            (tree.parts(), views)
        };
        let mut parts: Parts = wanted.into_iter().map(|part| (part, Usage::default())).collect();
        let lines: Vec<Line> =
            parts.keys().filter(|(_, node)| *node == Node::MAX).map(|part| part.0).collect();
        for line in lines {
            self.recount_line(line, &mut parts)?;
        }
        for view in views {
            if let Some(usage) = parts.get_mut(&(view.line, Node::MAX)) {
                usage.referenced = self.recount_view(&view)?;
            }
        }
        Ok(parts)
    }

    fn recount_view(&self, view: &View) -> FsResult<Referenced> {
        let mut sum = Referenced::default();
        self.for_each_shown(view, &mut |key, value| {
            let (Ok(head), Ok((version, record))) = (HeadKey::decode(key), Version::split(value))
            else {
                return Ok(());
            };
            if head.kind == Kind::Inode
                && !version.whiteout
                && let Ok(inode) = Inode::decode(head.object, version, record)
            {
                let counted = Referenced::of(&inode);
                sum.bytes = sum.bytes.saturating_add(counted.bytes);
                sum.files += counted.files;
            }
            Ok(())
        })?;
        Ok(sum)
    }

    fn recount_line(&self, line: Line, parts: &mut Parts) -> FsResult<()> {
        let mut from = key::line(line).to_vec();
        let end = key::line_end(line);
        loop {
            let page = self.gate.store().page(Space::Head, &from, Some(&end), PAGE)?;
            for (key, value) in &page.items {
                if HeadKey::decode(key).is_ok_and(|head| head.kind == Kind::Extent) {
                    self.recount_slot(line, key, value, parts)?;
                }
            }
            match page.items.last().filter(|_| page.more) {
                Some((last, _)) => from = behind(last),
                None => return Ok(()),
            }
        }
    }

    /// All versions of a slot, from the oldest on.
    fn recount_slot(
        &self,
        line: Line,
        head_key: &[u8],
        head: &[u8],
        parts: &mut Parts,
    ) -> FsResult<()> {
        let Ok((version, _)) = Version::split(head) else { return Ok(()) };
        let mut below = Vec::new();
        if version.shadows {
            below = self.pieces_inherited(line, head_key)?;
            let mut from = key::history(head_key, Node(0));
            let end = behind(&key::history(head_key, Node::MAX));
            loop {
                let page = self.gate.store().page(Space::History, &from, Some(&end), PAGE)?;
                for (key, value) in &page.items {
                    let Ok((_, node)) = key::history_decode(line, key) else { continue };
                    if self.tree.read().line_of(node) == Some(line) {
                        below = count(line, node, value, &below, parts);
                    }
                }
                match page.items.last().filter(|_| page.more) {
                    Some((last, _)) => from = behind(last),
                    None => break,
                }
            }
        }
        count(line, version.node, head, &below, parts);
        Ok(())
    }
}

/// Counts a version; returns its pieces.
fn count(line: Line, node: Node, value: &[u8], below: &[Piece], parts: &mut Parts) -> Vec<Piece> {
    let record = SlotRecord::decode_value(value);
    let pieces = record.map_or_else(|_| Vec::new(), |record| record.pieces);
    if let Some((_, usage)) = parts.range_mut((line, node)..=(line, Node::MAX)).next() {
        usage.charged += fresh(&pieces, below);
    }
    pieces
}
