//! The version tree in memory: datasets, their snapshots, the lines on which versions lie, and
//! the views that inode numbers name.
//!
//! A *line* is a chain of nodes. A dataset writes under the last node of its line; a snapshot
//! closes that node and opens the next. A clone begins a line of its own at a node of another.
//! Whoever sees a line up to some node is a *reader* of it: its snapshots, the lines that began
//! at it, and its live dataset, which sees all of it. A version is kept as long as a reader is
//! not younger than it and older than its successor.
//!
//! The tree is small, is kept in memory as a whole, and is replaced as a whole: a [`Change`] works
//! on a copy and collects the batch that stores what is different.

pub(super) mod chain;
mod change;
mod error;
mod load;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use firn_tiering::mix::ByMix;
use parking_lot::Mutex;

use super::key::{Dataset, Line, Node};
use super::properties::Properties;
use super::record::{
    Counters, DatasetRecord, LineRecord, Origin, ReceiveRecord, RollbackRecord, SealRecord,
    Settings, SnapshotRecord, SweepRecord, VolumeRecord,
};
use crate::types::{Guid, Ino};

pub(super) use change::{Change, node_record};
pub use error::{TreeError, TreeResult};
pub(super) use load::each;

/// A state of a dataset that inode numbers name: its head, or a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct View {
    /// The upper bits of its inode numbers.
    pub(super) index: u16,
    /// Whose state it is.
    pub(super) dataset: Dataset,
    /// Where its records lie.
    pub(super) line: Line,
    /// The last node that it sees; [`Node::MAX`] for a head.
    pub(super) limit: Node,
    /// Under which node changes are written.
    pub(super) node: Node,
    /// The first node of the line; older versions lie on others.
    pub(super) first: Node,
    /// The youngest reader of the line before its head: what is younger is superseded in place.
    pub(super) last_reader: Node,
    /// The line began at another.
    pub(super) has_origin: bool,
    /// The object of its root directory.
    pub(super) root: u64,
    /// It is what a dataset shows at its place; while a stream is being received into the
    /// dataset, that is the stream's base.
    pub(super) is_head: bool,
    /// Datasets lie in it.
    pub(super) has_junctions: bool,
    /// Its root directory shows as [`Ino::ROOT`].
    pub(super) is_mount: bool,
    /// Programs can change nothing.
    pub(super) is_read_only: bool,
}

impl View {
    /// A stored object as this view shows it.
    pub(super) fn lift(&self, object: Ino) -> Ino {
        match self.is_mount && object.0 == self.root {
            true => Ino::ROOT,
            false => Ino::in_view(self.index, object.0),
        }
    }

    /// Its root directory.
    pub(super) fn root(&self) -> Ino {
        self.lift(Ino(self.root))
    }

    /// Whether it sees all of a dataset's line, which makes it the one that may be changed.
    pub(super) fn is_live(&self) -> bool {
        self.limit == Node::MAX
    }

    /// Whether the born index is needed for what is written: only older readers ask it.
    pub(super) fn keeps_born(&self) -> bool {
        self.has_origin || self.last_reader.0 != 0
    }

    /// The line up to the last node that the view sees.
    pub(super) fn layer(&self) -> Origin {
        Origin { line: self.line, node: self.limit }
    }
}

/// All datasets, snapshots and views.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub(super) volume: VolumeRecord,
    mount: Dataset,
    pub(super) counters: Counters,
    pub(super) datasets: BTreeMap<Dataset, Arc<DatasetRecord>>,
    pub(super) lines: BTreeMap<Line, LineRecord>,
    pub(super) nodes: BTreeMap<Node, Line>,
    pub(super) snapshots: BTreeMap<Node, Arc<SnapshotRecord>>,
    pub(super) sweeps: BTreeMap<(Line, Node), SweepRecord>,
    pub(super) rollbacks: BTreeMap<Dataset, RollbackRecord>,
    pub(super) settings: BTreeMap<Dataset, Arc<Settings>>,
    pub(super) receives: BTreeMap<Dataset, Arc<ReceiveRecord>>,
    /// Digests of snapshots.
    pub(super) seals: BTreeMap<Node, Arc<SealRecord>>,
    /// Snapshots with one that does not decode, which stays as it is stored until a repair.
    pub(super) unreadable_seals: BTreeSet<Node>,
    /// Snapshots that are being sent, each with how often. Nobody else's copy of the tree has
    /// another, and nothing of it is stored.
    pub(super) sending: Arc<Mutex<HashMap<Node, usize>>>,
    // What follows from the rest.
    views: HashMap<u16, View, ByMix>,
    readers: HashMap<Line, Arc<[Node]>>,
    junctions: HashMap<(Line, u64), Dataset>,
    properties: HashMap<Dataset, Arc<Properties>, ByMix>,
    has_quotas: bool,
}

impl Tree {
    /// The tree of a volume that never had a snapshot.
    fn new(volume: &VolumeRecord) -> Self {
        let root = DatasetRecord {
            node: volume.node,
            view: 0,
            root: Ino::ROOT.0,
            place: None,
            origin: None,
            created: Default::default(),
        };
        Self {
            volume: volume.clone(),
            mount: volume.dataset,
            counters: Counters { dataset: volume.dataset.0 + 1, node: volume.node.0 + 1, view: 1 },
            datasets: BTreeMap::from([(volume.dataset, Arc::new(root))]),
            lines: BTreeMap::new(),
            nodes: BTreeMap::from([(volume.node, volume.dataset)]),
            snapshots: BTreeMap::new(),
            sweeps: BTreeMap::new(),
            rollbacks: BTreeMap::new(),
            settings: BTreeMap::new(),
            receives: BTreeMap::new(),
            seals: BTreeMap::new(),
            unreadable_seals: BTreeSet::new(),
            sending: Arc::default(),
            views: HashMap::default(),
            readers: HashMap::new(),
            junctions: HashMap::new(),
            properties: HashMap::default(),
            has_quotas: false,
        }
    }

    /// Works out what follows from the records.
    fn derive(&mut self) {
        self.readers = self.all_readers();
        let properties = self.datasets.keys().map(|&of| (of, Arc::new(self.all_settings(of))));
        self.properties = properties.collect();
        self.has_quotas = self.properties.values().any(|own| own.quota.is_some());
        let places = self.datasets.iter().filter_map(|(of, record)| Some((*of, record.place?)));
        self.junctions = places.map(|(of, place)| ((place.parent, place.junction), of)).collect();
        let mut views = HashMap::default();
        for (&dataset, record) in &self.datasets {
            if self.rollbacks.contains_key(&dataset) {
                continue;
            }
            let receive = self.receives.get(&dataset);
            let all = Origin { line: dataset, node: Node::MAX };
            let shown = match receive.and_then(|receive| receive.base) {
                Some(base) => base.at,
                None => all,
            };
            views.insert(record.view, self.head_of(dataset, record, shown));
            if let Some(receive) = receive {
                views.insert(receive.view, self.view_of(dataset, record, receive.view, all));
            }
        }
        for (&node, snapshot) in &self.snapshots {
            if let Some(record) = self.datasets.get(&snapshot.dataset) {
                let layer = Origin { line: snapshot.line, node };
                let view = self.view_of(snapshot.dataset, record, snapshot.view, layer);
                views.insert(snapshot.view, view);
            }
        }
        self.views = views;
    }

    fn all_readers(&self) -> HashMap<Line, Arc<[Node]>> {
        let mut readers: HashMap<Line, Vec<Node>> = HashMap::new();
        for (&node, snapshot) in &self.snapshots {
            readers.entry(snapshot.line).or_default().push(node);
        }
        for origin in self.lines.values().filter_map(|line| line.origin) {
            readers.entry(origin.line).or_default().push(origin.node);
        }
        for &dataset in self.datasets.keys() {
            readers.entry(dataset).or_default().push(Node::MAX);
        }
        let sorted = |mut nodes: Vec<Node>| {
            nodes.sort_unstable();
            nodes.dedup();
            nodes.into()
        };
        readers.into_iter().map(|(line, nodes)| (line, sorted(nodes))).collect()
    }

    /// What a dataset shows at its place.
    fn head_of(&self, dataset: Dataset, record: &DatasetRecord, layer: Origin) -> View {
        View {
            is_head: true,
            has_junctions: !self.children_of(dataset).is_empty(),
            is_mount: dataset == self.mount,
            ..self.view_of(dataset, record, record.view, layer)
        }
    }

    fn view_of(&self, dataset: Dataset, record: &DatasetRecord, index: u16, layer: Origin) -> View {
        let readers = self.readers(layer.line);
        let last_reader = readers.iter().rev().find(|&&reader| reader != Node::MAX);
        View {
            index,
            dataset,
            line: layer.line,
            limit: layer.node,
            node: record.node,
            first: self.first(layer.line),
            last_reader: last_reader.copied().unwrap_or(Node(0)),
            has_origin: self.origin(layer.line).is_some(),
            root: record.root,
            is_head: false,
            has_junctions: false,
            is_mount: false,
            is_read_only: self.properties.get(&dataset).is_some_and(|own| own.read_only),
        }
    }

    /// A state of a dataset that no number names.
    pub(super) fn view_at(&self, dataset: Dataset, layer: Origin) -> Option<View> {
        let record = self.datasets.get(&dataset)?;
        Some(self.view_of(dataset, record, u16::MAX, layer))
    }

    /// The view that a number belongs to; `None` when there is none any more.
    pub(super) fn view(&self, ino: Ino) -> Option<View> {
        if ino == Ino::ROOT {
            return self.live_view(self.mount);
        }
        let view = *self.views.get(&ino.view_index())?;
        // The root of the mount has one number only.
        (!view.is_mount || ino.object() != view.root).then_some(view)
    }

    /// Whether there is a view here that is not the same dataset's there.
    pub(super) fn has_view_outside(&self, other: &Self) -> bool {
        let is_same = |index: &u16, view: &View| {
            other.views.get(index).is_some_and(|other| other.layer() == view.layer())
        };
        self.views.iter().any(|(index, view)| !is_same(index, view))
    }

    /// The live views of all datasets that show.
    pub(super) fn live_views(&self) -> Vec<View> {
        let shown = self.datasets.keys().filter(|&&dataset| !self.is_hidden(dataset));
        shown.filter_map(|&dataset| self.live_view(dataset)).collect()
    }

    /// Whether a dataset is still being made from a stream.
    pub(super) fn is_hidden(&self, dataset: Dataset) -> bool {
        self.receives.get(&dataset).is_some_and(|receive| receive.place.is_some())
    }

    /// The view that sees all of a line and may be changed.
    pub(super) fn writable_view(&self, line: Line) -> Option<View> {
        match self.receives.get(&line) {
            Some(receive) => self.views.get(&receive.view).copied(),
            None => self.live_view(line),
        }
    }

    /// A snapshot's name in all volumes: its own, or one that follows from this volume's secret.
    pub(super) fn guid(&self, node: Node, record: &SnapshotRecord) -> Guid {
        record.guid.unwrap_or_else(|| {
            let mut hasher = blake3::Hasher::new_keyed(&self.volume.name_seed);
            hasher.update(b"guid of a snapshot");
            hasher.update(&node.0.to_be_bytes());
            hasher.update(&record.created.secs.to_be_bytes());
            hasher.update(&record.created.nanos.to_be_bytes());
            let mut guid = [0; 16];
            guid.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
            Guid(guid)
        })
    }

    /// The live view of a dataset, which is that of its line.
    pub(super) fn live_view(&self, dataset: Dataset) -> Option<View> {
        let index = self.datasets.get(&dataset)?.view;
        self.views.get(&index).copied()
    }

    /// The views of all snapshots.
    pub(super) fn snapshot_views(&self) -> Vec<View> {
        self.snapshots.keys().filter_map(|&node| self.snapshot_view(node)).collect()
    }

    /// The view of a snapshot.
    pub(super) fn snapshot_view(&self, node: Node) -> Option<View> {
        self.views.get(&self.snapshots.get(&node)?.view).copied()
    }

    /// Where a line began.
    pub(super) fn origin(&self, line: Line) -> Option<Origin> {
        self.lines.get(&line)?.origin
    }

    /// The first node of a line.
    pub(super) fn first(&self, line: Line) -> Node {
        self.lines.get(&line).map_or(Node::FIRST, |line| line.first)
    }

    /// Up to where a line is read, in growing order; [`Node::MAX`] is its live dataset.
    pub(super) fn readers(&self, line: Line) -> Arc<[Node]> {
        self.readers.get(&line).cloned().unwrap_or_default()
    }

    /// The next reader of a line behind a node, as the records stand now.
    pub(super) fn next_reader(&self, line: Line, node: Node) -> Option<Node> {
        let readers = self.all_readers();
        readers.get(&line)?.iter().copied().find(|&reader| reader > node)
    }

    /// Whether anybody reads a line at exactly that node.
    pub(super) fn is_reader(&self, line: Line, node: Node) -> bool {
        self.all_readers().get(&line).is_some_and(|readers| readers.contains(&node))
    }

    /// The line of a node.
    pub(super) fn line_of(&self, node: Node) -> Option<Line> {
        self.nodes.get(&node).copied()
    }

    /// The nodes of a line behind `after`, up to `to`.
    pub(super) fn nodes_of(&self, line: Line, after: Node, to: Node) -> Vec<Node> {
        if after >= to {
            return Vec::new();
        }
        let range = (std::ops::Bound::Excluded(after), std::ops::Bound::Included(to));
        let nodes = self.nodes.range(range).filter(|(_, of)| **of == line);
        nodes.map(|(&node, _)| node).collect()
    }

    /// The dataset that an empty directory of a live view shows.
    pub(super) fn junction(&self, view: &View, object: u64) -> Option<Dataset> {
        match view.is_head {
            true => self.junctions.get(&(view.dataset, object)).copied(),
            false => None,
        }
    }

    /// Snapshots of a dataset, oldest first.
    pub(super) fn snapshots_of(
        &self,
        dataset: Dataset,
    ) -> impl Iterator<Item = (Node, &Arc<SnapshotRecord>)> {
        self.snapshots
            .iter()
            .filter(move |(_, record)| record.dataset == dataset)
            .map(|(&node, record)| (node, record))
    }

    /// Datasets that lie in another.
    pub(super) fn children_of(&self, dataset: Dataset) -> Vec<Dataset> {
        let is_child = |record: &DatasetRecord| record.place.is_some_and(|p| p.parent == dataset);
        let children = self.datasets.iter().filter(|(_, record)| is_child(record));
        children.map(|(&child, _)| child).collect()
    }

    /// Whether anybody reads a line, as the records stand now.
    pub(super) fn is_read(&self, line: Line) -> bool {
        self.all_readers().contains_key(&line)
    }

    /// Whether any dataset has a quota.
    pub(super) fn has_quotas(&self) -> bool {
        self.has_quotas
    }

    /// What holds for a dataset.
    pub(super) fn properties(&self, dataset: Dataset) -> Option<Arc<Properties>> {
        self.properties.get(&dataset).cloned()
    }

    /// To whom what lies behind the last snapshot of a line belongs: to its own dataset, or to the
    /// first one that began there when it is gone.
    pub(super) fn heirs(&self) -> BTreeMap<Line, Dataset> {
        let mut heirs = BTreeMap::new();
        for &dataset in self.datasets.keys() {
            heirs.insert(dataset, dataset);
        }
        for &dataset in self.datasets.keys() {
            let mut at = dataset;
            // An origin's line is older, so chains end.
            while let Some(origin) = self.origin(at) {
                at = origin.line;
                heirs.entry(at).or_insert(dataset);
            }
        }
        heirs
    }

    /// The parts in which the versions of lines are counted.
    pub(super) fn parts(&self) -> BTreeSet<(Line, Node)> {
        let snapshots = self.snapshots.iter().map(|(&node, record)| (record.line, node));
        let lasts = self.all_readers().into_keys().map(|line| (line, Node::MAX));
        snapshots.chain(lasts).collect()
    }

    /// Datasets that are clones of a snapshot.
    pub(super) fn clones_of(&self, node: Node) -> Vec<Dataset> {
        let clones = self.datasets.iter().filter(|(_, record)| record.origin == Some(node));
        clones.map(|(&dataset, _)| dataset).collect()
    }
}
