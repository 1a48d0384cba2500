//! Counters of space: what each line holds and what each live state refers to.
//!
//! A line's versions are counted in parts: one for each snapshot on it, of the versions written up
//! to it and after the one before, and one for what came behind the last. A part is charged the
//! bytes that its versions hold and the next older versions of the same slots do not, so that the
//! parts of a line add up to what it holds beyond the line where it began. A snapshot's part is
//! its dataset's, also after a promotion; the last part is that of the line's own dataset, or of
//! the first dataset that began at the line when its own is gone.
//!
//! *Crash*: whoever changes what is counted says so in [`Entries`], which go into the store as
//! absolute numbers in the same batch, in the order of the batches: a crash keeps neither without
//! the other. *Locking*: `turn` is held from the reading of counters until the store has the batch,
//! never during a sync; `state` for an instant at a time. A line that nobody reads has no counters,
//! and entries about it mean nothing.

use std::collections::{BTreeMap, HashMap};

use firn_tiering::mix::ByMix;
use parking_lot::{Mutex, MutexGuard, RwLock};

use super::key::{self, Dataset, Line, Node};
use super::record::{Piece, Referenced, SlotRecord, Usage, fresh, pieces_of};
use super::store::{Batch, Space};
use super::tree::Tree;

/// A part of a line: its versions up to a snapshot's node, or [`Node::MAX`] for the last part.
pub(super) type Part = (Line, Node);

/// What a batch changes.
#[derive(Debug, Default)]
pub(super) struct Entries {
    list: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
enum Entry {
    /// Versions of a node and what the live state refers to.
    Add { line: Line, node: Node, charged: i64, bytes: i64, files: i64 },
    /// A line begins.
    Begin { line: Line, referenced: Referenced },
    /// A snapshot closes a node.
    Split { line: Line, node: Node },
    /// A snapshot goes: what it held is the next part's.
    Merge { line: Line, node: Node },
    /// The live state is another one.
    Refer { line: Line, referenced: Referenced },
    /// Nobody reads the line any more.
    End { line: Line },
}

impl Entries {
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn append(&mut self, other: Self) {
        self.list.extend(other.list);
    }

    /// Versions that `node` wrote are charged more or less.
    pub(super) fn charge(&mut self, line: Line, node: Node, charged: i64) {
        self.add(line, node, charged, 0, 0);
    }

    /// A version of a slot goes, from between one with the pieces `below` and its
    /// successor. Damage counts for nothing.
    pub(super) fn discharge(
        &mut self,
        line: Line,
        below: &[Piece],
        gone: &[u8],
        successor: Option<&[u8]>,
    ) {
        let gone_pieces = pieces_of(gone);
        if let Ok(gone) = SlotRecord::decode_value(gone) {
            self.charge(line, gone.version.node, -(fresh(&gone.pieces, below) as i64));
        }
        if let Some(Ok(next)) = successor.map(SlotRecord::decode_value) {
            let change =
                fresh(&next.pieces, below) as i64 - fresh(&next.pieces, &gone_pieces) as i64;
            self.charge(line, next.version.node, change);
        }
    }

    /// An inode of the live state counts for something else.
    pub(super) fn refer(&mut self, line: Line, before: Referenced, after: Referenced) {
        let change = |after: u64, before: u64| after.wrapping_sub(before) as i64;
        let bytes = change(after.bytes, before.bytes);
        self.add(line, Node::MAX, 0, bytes, change(after.files, before.files));
    }

    fn add(&mut self, line: Line, node: Node, charged: i64, bytes: i64, files: i64) {
        if charged == 0 && bytes == 0 && files == 0 {
            return;
        }
        if let Some(Entry::Add { charged: c, bytes: b, files: f, .. }) =
            self.list.last_mut().filter(|last| last.is_about(line, node))
        {
            (*c, *b, *f) = (*c + charged, *b + bytes, *f + files);
            return;
        }
        self.list.push(Entry::Add { line, node, charged, bytes, files });
    }

    pub(super) fn begin(&mut self, line: Line, referenced: Referenced) {
        self.list.push(Entry::Begin { line, referenced });
    }

    pub(super) fn split(&mut self, line: Line, node: Node) {
        self.list.push(Entry::Split { line, node });
    }

    pub(super) fn merge(&mut self, line: Line, node: Node) {
        self.list.push(Entry::Merge { line, node });
    }

    pub(super) fn set_referenced(&mut self, line: Line, referenced: Referenced) {
        self.list.push(Entry::Refer { line, referenced });
    }

    pub(super) fn end(&mut self, line: Line) {
        self.list.push(Entry::End { line });
    }
}

impl Entry {
    fn is_about(&self, of: Line, by: Node) -> bool {
        matches!(*self, Self::Add { line, node, .. } if (line, node) == (of, by))
    }
}

/// All counters.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    turn: Mutex<()>,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    parts: BTreeMap<Part, Usage>,
    /// Whose a part is.
    owners: HashMap<Part, Dataset, ByMix>,
    above: HashMap<Dataset, Dataset, ByMix>,
    /// Bytes of each dataset with all below it.
    used: HashMap<Dataset, u64, ByMix>,
}

/// New numbers that are on their way into the store.
#[derive(Debug, Default)]
pub(super) struct Posting {
    changed: BTreeMap<Part, Option<Usage>>,
}

impl Ledger {
    /// Keeps other counted batches out until the guard is dropped.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock()
    }

    /// Adds what entries change to their batch. The caller has the turn.
    pub(super) fn post(&self, entries: &Entries, batch: &mut Batch) -> Posting {
        let state = self.state.read();
        let mut draft = Draft { parts: &state.parts, posting: Posting::default() };
        entries.list.iter().for_each(|entry| draft.apply(*entry));
        for (&(line, node), usage) in &draft.posting.changed {
            let key = key::usage(line, node);
            match usage {
                Some(usage) => batch.put(Space::Meta, &key, usage.encode()),
                None => batch.delete(Space::Meta, &key),
            }
        }
        draft.posting
    }

    /// Goes on with numbers that the store has. The caller has had the turn since they were made.
    pub(super) fn settle(&self, posting: Posting) {
        let mut state = self.state.write();
        for (part, usage) in posting.changed {
            let before = match usage {
                Some(usage) => state.parts.insert(part, usage),
                None => state.parts.remove(&part),
            };
            let charged = |usage: Option<Usage>| usage.unwrap_or_default().charged;
            let change = charged(usage).wrapping_sub(charged(before)) as i64;
            if let Some(&owner) = state.owners.get(&part) {
                state.add_used(owner, change);
            }
        }
    }

    /// Begins with counted or stored numbers.
    pub(super) fn load(&self, parts: BTreeMap<Part, Usage>, tree: &Tree) {
        self.state.write().parts = parts;
        self.adopt(tree);
    }

    /// Takes over whose each part is and which dataset lies in which.
    pub(super) fn adopt(&self, tree: &Tree) {
        let mut state = self.state.write();
        let above = tree.datasets.iter().filter_map(|(of, r)| Some((*of, r.place?.parent)));
        // What is being received takes room where it will show.
        let awaited = tree.receives.iter();
        let awaited = awaited.filter_map(|(of, r)| Some((*of, r.place.as_ref()?.parent)));
        state.above = above.chain(awaited).collect();
        let heirs = tree.heirs();
        let owner = |&(line, node): &Part| match tree.snapshots.get(&node) {
            Some(snapshot) => Some(((line, node), snapshot.dataset)),
            None => heirs.get(&line).map(|&heir| ((line, node), heir)),
        };
        state.owners = state.parts.keys().filter_map(owner).collect();
        state.used = tree.datasets.keys().map(|&dataset| (dataset, 0)).collect();
        let charges: Vec<_> =
            state.owners.iter().map(|(part, &owner)| (owner, state.parts[part].charged)).collect();
        for (owner, charged) in charges {
            state.add_used(owner, charged as i64);
        }
    }

    /// The counters of a part.
    pub(super) fn part(&self, line: Line, node: Node) -> Option<Usage> {
        self.state.read().parts.get(&(line, node)).copied()
    }

    /// Bytes that a dataset and all below it hold.
    pub(super) fn used(&self, dataset: Dataset) -> u64 {
        self.state.read().used.get(&dataset).copied().unwrap_or(0)
    }

    /// All counters.
    pub(super) fn parts(&self) -> BTreeMap<Part, Usage> {
        self.state.read().parts.clone()
    }
}

impl State {
    fn add_used(&mut self, dataset: Dataset, change: i64) {
        let mut at = Some(dataset);
        // A dataset never lies in itself; a bound costs nothing.
        for _ in 0..=self.above.len() {
            let Some(of) = at else { return };
            if let Some(used) = self.used.get_mut(&of) {
                *used = used.saturating_add_signed(change);
            }
            at = self.above.get(&of).copied();
        }
    }
}

/// Counters with changes over them.
struct Draft<'a> {
    parts: &'a BTreeMap<Part, Usage>,
    posting: Posting,
}

impl Draft<'_> {
    fn get(&self, part: Part) -> Option<Usage> {
        let changed = self.posting.changed.get(&part).copied();
        changed.unwrap_or_else(|| self.parts.get(&part).copied())
    }

    fn set(&mut self, part: Part, usage: Option<Usage>) {
        self.posting.changed.insert(part, usage);
    }

    /// The part that versions of a node are in.
    fn part_of(&self, line: Line, node: Node) -> Option<Part> {
        let range = (line, node)..=(line, Node::MAX);
        let is_there = |part: &Part| self.get(*part).is_some();
        let stored = self.parts.range(range.clone()).map(|(part, _)| *part).find(is_there);
        let changed = self.posting.changed.range(range).map(|(part, _)| *part).find(is_there);
        stored.into_iter().chain(changed).min()
    }

    fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Add { line, node, charged, bytes, files } => {
                let Some(part) = self.part_of(line, node) else { return };
                let mut usage = self.get(part).unwrap_or_default();
                let refers = &mut usage.referenced;
                add(&mut usage.charged, charged, part);
                add(&mut refers.bytes, bytes, part);
                add(&mut refers.files, files, part);
                self.set(part, Some(usage));
            }
            Entry::Begin { line, referenced } => {
                self.set((line, Node::MAX), Some(Usage { charged: 0, referenced }));
            }
            Entry::Split { line, node } => {
                let Some(last) = self.get((line, Node::MAX)) else { return };
                let referenced = Referenced::default();
                self.set((line, node), Some(Usage { referenced, ..last }));
                self.set((line, Node::MAX), Some(Usage { charged: 0, ..last }));
            }
            Entry::Merge { line, node } => {
                let Some(gone) = self.get((line, node)) else { return };
                self.set((line, node), None);
                let Some(next) = self.part_of(line, node) else { return };
                let mut usage = self.get(next).unwrap_or_default();
                usage.charged = usage.charged.saturating_add(gone.charged);
                self.set(next, Some(usage));
            }
            Entry::Refer { line, referenced } => {
                let Some(last) = self.get((line, Node::MAX)) else { return };
                self.set((line, Node::MAX), Some(Usage { referenced, ..last }));
            }
            Entry::End { line } => {
                let range = (line, Node(0))..=(line, Node::MAX);
                let stored = self.parts.range(range.clone()).map(|(part, _)| *part);
                let changed = self.posting.changed.range(range).map(|(part, _)| *part);
                let going: Vec<Part> = stored.chain(changed).collect();
                going.into_iter().for_each(|part| self.set(part, None));
            }
        }
    }
}

/// Changes a counter. One that would fall below zero was wrong before, which a check finds.
fn add(counter: &mut u64, change: i64, (line, node): Part) {
    match counter.checked_add_signed(change) {
        Some(sum) => *counter = sum,
        None => {
            tracing::error!(line = line.0, node = node.0, counter, change, "space miscounted");
            *counter = counter.saturating_add_signed(change);
        }
    }
}
