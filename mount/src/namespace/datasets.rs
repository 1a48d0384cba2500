//! Datasets below others: making, cloning, promoting, naming and destroying them.
//!
//! A dataset lies in another as an empty directory, its junction, which the live view shows as the
//! dataset's root and snapshots show as it is. Junction and dataset come and go in one batch, as
//! does everything else here: a crash leaves all or nothing. What a destroyed dataset held is left
//! to the sweep; as long as others still read its line, the line stays without it.

use std::sync::Arc;

use super::create::NewFile;
use super::key::{self, Dataset, Kind, Line, Node};
use super::locks::TreeGuard;
use super::record::{
    DatasetRecord, Inode, LineRecord, Origin, Place, Referenced, Setting, Settings, SweepRecord,
    Timestamp, Version,
};
use super::store::{Durability, Space};
use super::tree::{Change, TreeError, TreeResult, View};
use super::{Namespace, Removed, Txn};
use crate::error::{FsError, FsResult};
use crate::types::{Caller, FileKind, Ino, RenameMode};

/// A dataset, as people know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetInfo {
    /// Its number.
    pub dataset: Dataset,
    /// The dataset above.
    pub parent: Option<Dataset>,
    /// Its root directory from the root of the mount: `/a/b`.
    pub path: Vec<u8>,
    /// Its root directory; [`None`] while it is being rolled back.
    pub root: Option<Ino>,
    /// The dataset and the name of the snapshot that it is a clone of.
    pub origin: Option<(Dataset, String)>,
    /// When it was made.
    pub created: Timestamp,
}

/// What a dataset is made from.
#[derive(Clone, Debug, Default)]
struct Start {
    root: Option<u64>,
    origin: Option<Origin>,
    settings: Settings,
    referenced: Referenced,
}

impl Namespace {
    /// All datasets; each behind the one that it lies in.
    pub fn datasets(&self) -> Vec<DatasetInfo> {
        let tree = self.tree.read().clone();
        let mut found: Vec<_> = tree
            .datasets
            .iter()
            .filter(|(dataset, _)| !tree.is_hidden(**dataset))
            .map(|(&dataset, record)| {
                let view = tree.live_view(dataset);
                let snapshot = record.origin.and_then(|node| tree.snapshots.get(&node));
                DatasetInfo {
                    dataset,
                    parent: record.place.map(|place| place.parent),
                    path: view.map_or_else(Vec::new, |view| self.path(view.root())),
                    root: view.map(|view| view.root()),
                    origin: snapshot.map(|snapshot| (snapshot.dataset, snapshot.name.clone())),
                    created: record.created,
                }
            })
            .collect();
        found.sort_by(|one, other| one.path.cmp(&other.path));
        found
    }

    /// Makes a dataset that shows as the new directory `name` in `parent`, with properties.
    pub fn create_dataset(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        perm: u16,
        settings: &[Setting],
    ) -> TreeResult<Dataset> {
        // Its root directory.
        let referenced = Referenced { bytes: 0, files: 1 };
        let mut start = Start { referenced, ..Start::default() };
        start.settings.add(settings)?;
        let (alone, change) = self.change_tree()?;
        let made = self.add_dataset(&alone, change, (caller, parent, name, perm), start)?;
        drop(alone);
        self.gate.sync()?;
        Ok(made)
    }

    /// Makes a dataset that begins as a snapshot was, at the new directory `name` in `parent`.
    pub fn clone_snapshot(
        &self,
        caller: &Caller,
        (dataset, snapshot): (Dataset, &str),
        parent: Ino,
        name: &[u8],
    ) -> TreeResult<Dataset> {
        // Snapshots of older volumes are counted now, without keeping anybody out.
        self.referenced(dataset, snapshot)?;
        let (alone, change) = self.change_tree()?;
        let (node, record) = change.snapshot(dataset, snapshot)?;
        let origin = Origin { line: record.line, node };
        let root = change.dataset(dataset)?.root;
        // Only another one of the same name could not have been counted yet.
        let referenced = record.referenced.ok_or(TreeError::Busy)?;
        let (root, origin, settings) = (Some(root), Some(origin), Settings::default());
        let start = Start { root, origin, settings, referenced };
        let made = self.add_dataset(&alone, change, (caller, parent, name, 0o755), start)?;
        drop(alone);
        self.gate.sync()?;
        Ok(made)
    }

    fn add_dataset(
        &self,
        alone: &TreeGuard<'_>,
        mut change: Change,
        (caller, parent, name, perm): (&Caller, Ino, &[u8], u16),
        start: Start,
    ) -> TreeResult<Dataset> {
        let above = self.writable(parent)?.dataset;
        let kind = FileKind::Directory;
        let new = NewFile { kind, perm, umask: 0, rdev: 0, target: b"" };
        let (txn, junction) = self.stage_entry(caller, parent, name, &new)?;
        let dataset = change.add_number()?;
        let node = change.add_node(dataset)?;
        let root = match start.root {
            Some(root) => root,
            None => {
                let root = self.ids.inode()?;
                let inode = Inode {
                    nlink: 2,
                    size: 0,
                    parent: Ino(root),
                    cookie: 0,
                    ino: Ino(root),
                    version: Version::first(node),
                    xattr_names: 0,
                    flags: Default::default(),
                    ..Inode::clone(&junction)
                };
                let key = key::head(dataset, Ino(root), Kind::Inode);
                change.batch.put(Space::Head, &key, inode.encode());
                root
            }
        };
        let record = DatasetRecord {
            node,
            view: change.add_view()?,
            root,
            place: Some(Place { parent: above, junction: junction.ino.object() }),
            origin: start.origin.map(|origin| origin.node),
            created: self.now(),
        };
        change.put_line(dataset, LineRecord { first: node, origin: start.origin });
        change.entries.begin(dataset, start.referenced);
        change.put_dataset(dataset, record);
        change.put_settings(dataset, start.settings);
        self.commit_tree_with(txn, alone, change)?;
        Ok(dataset)
    }

    /// Destroys a dataset below another, and its snapshots if `with_snapshots`. What it held is
    /// left to [`Namespace::sweep_some`]. Returns its junction, an orphan to be purged.
    pub fn destroy_dataset(&self, dataset: Dataset, with_snapshots: bool) -> TreeResult<Removed> {
        self.destroy_datasets(&[dataset], with_snapshots)
    }

    /// Destroys a dataset, which comes last, with some that lie below it, all or none. Each comes
    /// behind those that lie in it, and those that are clones of its snapshots.
    pub fn destroy_datasets(
        &self,
        datasets: &[Dataset],
        with_snapshots: bool,
    ) -> TreeResult<Removed> {
        let (alone, mut change) = self.change_tree()?;
        let mut places = Vec::with_capacity(datasets.len());
        for &dataset in datasets {
            places.push(change.destroy_dataset(dataset, with_snapshots)?);
        }
        // What lay in a dataset that goes as well goes with it.
        places.retain(|place| change.tree.datasets.contains_key(&place.parent));
        let [place] = places[..] else {
            return Err(FsError::Invalid("datasets that do not lie in one of them").into());
        };
        let (txn, inode) = self.stage_junction_removal(place)?;
        self.commit_tree_with(txn, &alone, change)?;
        drop(alone);
        self.gate.sync()?;
        Ok(Removed { inode })
    }

    fn stage_junction_removal(&self, place: Place) -> FsResult<(Txn<'_>, Arc<Inode>)> {
        let junction = self.live_view(place.parent)?.lift(Ino(place.junction));
        let child = self.inode(junction)?;
        let name = self.name_of_junction(&child)?;
        self.stage_removal(child.parent, &name, &child)
    }

    fn name_of_junction(&self, junction: &Inode) -> FsResult<Vec<u8>> {
        let name = self.name_in_parent(junction)?;
        name.ok_or_else(|| FsError::io("namespace", "a dataset's directory has no name"))
    }

    /// Moves a dataset to the free name `new_name` in `new_parent`, a directory of the dataset
    /// that it lies in already.
    pub fn rename_dataset(
        &self,
        dataset: Dataset,
        new_parent: Ino,
        new_name: &[u8],
    ) -> TreeResult<()> {
        let record = Change::new(self.tree.read().clone()).dataset(dataset)?;
        let place = record.place.ok_or(FsError::Busy)?;
        let junction = self.inode(self.live_view(place.parent)?.lift(Ino(place.junction)))?;
        let name = self.name_of_junction(&junction)?;
        let from = (junction.parent, &name[..]);
        self.rename_any(from, (new_parent, new_name), RenameMode::NoReplace, true)?;
        Ok(self.gate.sync()?)
    }

    /// Lets a clone take over the snapshots that it came from: afterwards the dataset that they
    /// belonged to is a clone of it.
    pub fn promote(&self, dataset: Dataset) -> TreeResult<()> {
        let (alone, mut change) = self.change_tree()?;
        let mut clone = change.dataset(dataset)?;
        let node = clone.origin.ok_or(TreeError::NotAClone)?;
        let owner = change.tree.snapshots.get(&node).map(|record| record.dataset);
        let owner = owner.ok_or(TreeError::NotAClone)?;
        let mut original = change.dataset(owner)?;
        let moved: Vec<_> = change
            .tree
            .snapshots_of(owner)
            .filter(|(other, _)| *other <= node)
            .map(|(other, record)| (other, Arc::clone(record)))
            .collect();
        for (_, record) in &moved {
            if change.tree.snapshots_of(dataset).any(|(_, own)| own.name == record.name) {
                return Err(TreeError::Exists(record.name.clone()));
            }
        }
        for (other, record) in moved {
            let mut record = Arc::unwrap_or_clone(record);
            record.dataset = dataset;
            change.put_snapshot(other, record);
        }
        clone.origin = original.origin;
        original.origin = Some(node);
        change.put_dataset(dataset, clone);
        change.put_dataset(owner, original);
        self.commit_tree(&alone, change)?;
        drop(alone);
        Ok(self.gate.sync()?)
    }

    /// What an entry of a view names: the root of a dataset instead of its junction;
    /// [`FsError::Busy`] while it is being rolled back.
    pub(super) fn through(&self, view: &View, ino: Ino) -> FsResult<Ino> {
        if !view.has_junctions {
            return Ok(ino);
        }
        let tree = self.tree.read();
        match tree.junction(view, ino.object()) {
            Some(dataset) => Ok(tree.live_view(dataset).ok_or(FsError::Busy)?.root()),
            None => Ok(ino),
        }
    }

    /// Refuses to change an entry that is a dataset.
    pub(super) fn check_not_junction(&self, ino: Ino) -> FsResult<()> {
        let view = self.view(ino)?;
        match view.has_junctions && self.tree.read().junction(&view, ino.object()).is_some() {
            true => Err(FsError::Busy),
            false => Ok(()),
        }
    }

    /// The junction of the dataset whose root directory `ino` is.
    pub(super) fn junction_above(&self, ino: Ino) -> FsResult<Option<Ino>> {
        let view = self.view(ino)?;
        if !view.is_head || ino != view.root() {
            return Ok(None);
        }
        let tree = self.tree.read();
        let place = tree.datasets.get(&view.dataset).and_then(|record| record.place);
        let Some(place) = place else { return Ok(None) };
        let above = tree.live_view(place.parent).ok_or(FsError::Busy)?;
        Ok(Some(above.lift(Ino(place.junction))))
    }

    /// Fails when a dataset lies where a snapshot has no directory for it.
    pub(super) fn check_junctions(
        &self,
        change: &Change,
        dataset: Dataset,
        to: Origin,
    ) -> TreeResult<()> {
        let view = change.tree.view_at(dataset, to).ok_or(TreeError::NoDataset)?;
        let mut lost = Vec::new();
        for child in change.tree.children_of(dataset) {
            let place = change.tree.datasets.get(&child).and_then(|record| record.place);
            let Some(place) = place else { continue };
            let key = key::head(to.line, Ino(place.junction), Kind::Inode);
            let found = match self.visible(to, &key)? {
                Some((version, value)) => {
                    let ino = view.lift(Ino(place.junction));
                    view.inode(ino, version, Version::split(&value).map_err(FsError::from)?.1)?
                        .nlink
                        > 0
                }
                None => false,
            };
            if !found {
                lost.push(child);
            }
        }
        if lost.is_empty() { Ok(()) } else { Err(TreeError::Children(lost)) }
    }

    /// Clears away what belongs to a line and is not in its head; `true` when nothing is left to
    /// do within `left` records.
    pub(super) fn clear_line(&self, line: Line, left: &mut usize) -> FsResult<bool> {
        let (is_read, nodes) = {
            let tree = self.tree.read();
            (!tree.readers(line).is_empty(), tree.nodes_of(line, Node(0), Node::MAX))
        };
        let mut ranges = Vec::new();
        if !is_read {
            for start in [key::ORPHANS, key::TRUNCATIONS, key::DIGESTS] {
                ranges.push((Space::Meta, key::meta_number(start, line.0).to_vec()));
            }
            let born = nodes.iter().map(|node| (Space::Born, node.0.to_be_bytes().to_vec()));
            ranges.extend(born);
        }
        for (space, from) in ranges {
            let end = super::store::prefix_end(&from);
            loop {
                if *left == 0 {
                    return Ok(false);
                }
                let page = self.gate.store().page(space, &from, end.as_deref(), 1024)?;
                if page.items.is_empty() {
                    break;
                }
                let mut batch = super::Batch::new();
                page.items.iter().for_each(|(key, _)| batch.delete(space, key));
                *left = left.saturating_sub(page.items.len());
                self.gate.commit(batch, Durability::Buffered)?;
            }
        }
        Ok(true)
    }
}

impl Change {
    pub(super) fn add_number(&mut self) -> TreeResult<Dataset> {
        let number = self.tree.counters.dataset;
        self.tree.counters.dataset = number.checked_add(1).ok_or(TreeError::TooMany)?;
        Ok(Dataset(number))
    }

    /// Removes a dataset without any below; returns where it lay.
    fn destroy_dataset(&mut self, dataset: Dataset, with_snapshots: bool) -> TreeResult<Place> {
        let record = self.dataset(dataset)?;
        self.check_awaits_none(dataset)?;
        let children = self.tree.children_of(dataset);
        if !children.is_empty() {
            return Err(TreeError::Children(children));
        }
        let nodes = self.remove_snapshots_of(dataset, with_snapshots)?;
        self.remove_dataset(dataset);
        for node in nodes {
            self.remove_snapshot(node);
        }
        self.reader_gone(dataset, Node::MAX);
        if let Some(origin) = record.origin {
            self.end_deferred(origin);
        }
        Ok(record.place.ok_or(FsError::Busy)?)
    }

    fn remove_snapshots_of(&self, dataset: Dataset, destroy: bool) -> TreeResult<Vec<Node>> {
        let found: Vec<_> = self.tree.snapshots_of(dataset).collect();
        if !found.is_empty() && !destroy {
            let names = found.into_iter().map(|(_, record)| record.name.clone());
            return Err(TreeError::InTheWay(names.collect()));
        }
        let going: Vec<_> = found.into_iter().map(|(node, _)| node).collect();
        going.iter().try_for_each(|&node| self.check_unused(node, &going))?;
        Ok(going)
    }

    pub(super) fn put_line(&mut self, line: Line, record: LineRecord) {
        self.batch.put(Space::Meta, &key::meta_number(key::LINES, line.0), record.encode());
        self.tree.lines.insert(line, record);
    }

    pub(super) fn remove_dataset(&mut self, dataset: Dataset) {
        self.batch.delete(Space::Meta, &key::meta_number(key::DATASETS, dataset.0));
        self.tree.datasets.remove(&dataset);
        self.put_settings(dataset, Settings::default());
        // Its line may stay for others.
        self.entries.set_referenced(dataset, Referenced::default());
    }

    /// Lets a line be swept that somebody no longer reads up to a node. A line that nobody reads
    /// at all does not read the one where it began either.
    pub(super) fn reader_gone(&mut self, line: Line, node: Node) {
        // A snapshot from which a clone went still reads there; its own end is another sweep.
        if self.tree.is_reader(line, node) {
            return;
        }
        let next = self.tree.next_reader(line, node);
        let sweep = SweepRecord { next: next.unwrap_or(Node::MAX), whole: next.is_none() };
        self.put_sweep((line, node), sweep);
        if self.tree.is_read(line) {
            return;
        }
        self.entries.end(line);
        let Some(record) = self.tree.lines.get(&line).copied() else { return };
        if let Some(origin) = record.origin {
            self.put_line(line, LineRecord { origin: None, ..record });
            self.reader_gone(origin.line, origin.node);
        }
    }

    /// Forgets a line that nobody reads and that is empty.
    pub(super) fn remove_line(&mut self, line: Line) {
        if self.tree.is_read(line) {
            return;
        }
        for node in self.tree.nodes_of(line, Node(0), Node::MAX) {
            self.remove_node(node);
        }
        self.batch.delete(Space::Meta, &key::meta_number(key::LINES, line.0));
        self.tree.lines.remove(&line);
    }
}
