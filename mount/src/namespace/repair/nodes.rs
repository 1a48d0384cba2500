//! Nodes whose record is gone: on which line they are, other records say.

use std::collections::{BTreeMap, BTreeSet};

use super::{Fate, Mender};
use crate::error::FsResult;
use crate::namespace::check::FindingKind;
use crate::namespace::key::{self, Dataset, HeadKey, Line, Node};
use crate::namespace::record::{DatasetRecord, LineRecord, SnapshotRecord, Version};
use crate::namespace::store::{Batch, Durability, NamespaceStore, Space};
use crate::namespace::tree::{each, node_record};
use crate::types::Ino;

/// Most nodes that are looked for at once.
const MAX_NODES: usize = 64 << 10;

/// Makes the records of nodes anew that datasets, snapshots and clones name, without which no tree
/// is loaded. Nothing that is there is changed.
pub(in crate::namespace) fn restore_nodes(store: &dyn NamespaceStore) -> FsResult<()> {
    let mut named: BTreeMap<Node, Line> = BTreeMap::new();
    // What does not decode names none; loading the tree tells of it.
    each(store, key::DATASETS, &mut |key, value| {
        if let (Ok(number), Ok(record)) =
            (key::meta_number_decode(key), DatasetRecord::decode(value))
        {
            named.insert(record.node, Dataset(number));
        }
        Ok(())
    })?;
    each(store, key::SNAPSHOTS, &mut |key, value| {
        if let (Ok(number), Ok(record)) =
            (key::meta_number_decode(key), SnapshotRecord::decode(value))
        {
            named.insert(Node(number), record.line);
        }
        Ok(())
    })?;
    each(store, key::LINES, &mut |_, value| {
        if let Some(origin) = LineRecord::decode(value).ok().and_then(|record| record.origin) {
            named.insert(origin.node, origin.line);
        }
        Ok(())
    })?;
    let mut batch = Batch::new();
    for (node, line) in named {
        let key = key::meta_number(key::NODES, node.0);
        if store.get(Space::Meta, &key)?.is_none() {
            batch.put(Space::Meta, &key, node_record(line));
        }
    }
    match batch.is_empty() {
        true => Ok(()),
        false => Ok(store.commit(batch, Durability::Durable)?),
    }
}

/// What is known of nodes without a record.
#[derive(Default)]
struct Unknown {
    /// Lines on which they wrote what is the newest version.
    written: BTreeMap<Node, BTreeSet<Line>>,
    /// Lines on which all that they wrote can be an older version.
    possible: BTreeMap<Node, BTreeSet<Line>>,
}

impl Unknown {
    /// The only line that a node can be on.
    fn line(&self, node: Node) -> Option<Line> {
        let lines = self.written.get(&node).or_else(|| self.possible.get(&node))?;
        let mut lines = lines.iter().copied();
        lines.next().filter(|_| lines.next().is_none())
    }
}

impl Mender<'_> {
    /// Nodes that are on a line by the records that they wrote there. One of which that cannot be
    /// told keeps what it wrote.
    pub(super) fn mend_nodes(&mut self) -> FsResult<()> {
        let ns = self.ns;
        let mut unknown = Unknown::default();
        ns.for_each(Space::Head, &mut |key, value| {
            let (Ok(head), Ok((version, _))) = (HeadKey::decode(key), Version::split(value)) else {
                return Ok(());
            };
            if self.can_be_on(version.node, head.line) && unknown.written.len() < MAX_NODES {
                unknown.written.entry(version.node).or_default().insert(head.line);
            }
            Ok(())
        })?;
        ns.for_each(Space::History, &mut |key, _| {
            let node = key.last_chunk().map(|node| Node(u32::from_be_bytes(*node)));
            let Some(node) = node.filter(|&node| ns.is_lost_node(node)) else { return Ok(()) };
            if unknown.possible.len() >= MAX_NODES && !unknown.possible.contains_key(&node) {
                return Ok(());
            }
            let lines = self.lines_of_older(key, node)?;
            match unknown.possible.get_mut(&node) {
                Some(known) => known.retain(|line| lines.contains(line)),
                None => drop(unknown.possible.insert(node, lines)),
            }
            Ok(())
        })?;
        let nodes: BTreeSet<Node> =
            unknown.written.keys().chain(unknown.possible.keys()).copied().collect();
        for node in nodes {
            let Some(line) = unknown.line(node) else { continue };
            let key = key::meta_number(key::NODES, node.0);
            self.edits.put(Space::Meta, &key, node_record(line));
            self.commit()?;
            ns.tree.write().nodes.insert(node, line);
            let detail = format!("node {} is on line {}", node.0, line.0);
            self.note_at(FindingKind::Damaged, Ino(0), Vec::new(), Fate::Mended, detail);
        }
        Ok(())
    }

    /// Whether a node is on no line, and can be on this one.
    fn can_be_on(&self, node: Node, line: Line) -> bool {
        let tree = self.ns.tree.read();
        let last = match tree.writable_view(line) {
            Some(view) => view.node,
            None => tree.nodes_of(line, Node(0), Node::MAX).last().copied().unwrap_or(Node(0)),
        };
        tree.is_lost(node) && tree.first(line) <= node && node < last
    }

    /// The lines that have a newer version of what lies at a key of the history.
    fn lines_of_older(&self, key: &[u8], node: Node) -> FsResult<BTreeSet<Line>> {
        let mut lines = BTreeSet::new();
        let all: BTreeSet<Line> = {
            let tree = self.ns.tree.read();
            tree.nodes.values().copied().collect()
        };
        for line in all.into_iter().filter(|&line| self.can_be_on(node, line)) {
            let Ok((head_key, _)) = key::history_decode(line, key) else { continue };
            let newest = self.ns.gate.store().get(Space::Head, &head_key)?;
            let is_newer = |value: &[u8]| {
                Version::split(value).map_or(true, |(version, _)| version.node > node)
            };
            if newest.is_some_and(|value| is_newer(&value)) {
                lines.insert(line);
            }
        }
        Ok(lines)
    }
}
