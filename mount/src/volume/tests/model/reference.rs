//! What is right: a tree of plain values, and what of it may be lost in which crash.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::SystemTime;

use crate::types::{FileKind, Ino, Seek};

/// What a run of bytes holds; a hole is no run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    /// This byte, over and over.
    Data(u8),
    /// Allocated zeros.
    Unwritten,
}

/// Content and times of a file at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileState {
    pub(super) size: u64,
    pub(super) mtime: SystemTime,
    runs: Vec<(Range<u64>, Cell)>,
}

impl FileState {
    pub(super) fn new(now: SystemTime) -> Self {
        Self { size: 0, mtime: now, runs: Vec::new() }
    }

    /// Makes `range` hold `cell`, or a hole.
    pub(super) fn paint(&mut self, range: Range<u64>, cell: Option<Cell>) {
        let mut runs = Vec::new();
        for (old, cell) in std::mem::take(&mut self.runs) {
            for part in [old.start..old.end.min(range.start), old.start.max(range.end)..old.end] {
                if part.start < part.end {
                    runs.push((part, cell));
                }
            }
        }
        runs.extend(cell.map(|cell| (range, cell)));
        runs.sort_by_key(|(range, _)| range.start);
        self.runs = runs;
    }

    pub(super) fn resize(&mut self, size: u64) {
        if size <= self.size {
            self.paint(size..u64::MAX, None);
        }
        self.size = size;
    }

    /// Runs within `range`, cut to it.
    pub(super) fn within(&self, range: Range<u64>) -> Vec<(Range<u64>, Cell)> {
        self.runs
            .iter()
            .map(|(run, cell)| (run.start.max(range.start)..run.end.min(range.end), *cell))
            .filter(|(run, _)| run.start < run.end)
            .collect()
    }

    /// Ranges of holes within `range`.
    pub(super) fn holes(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut holes = Vec::new();
        let mut pos = range.start;
        for (run, _) in self.within(range.clone()) {
            holes.push(pos..run.start);
            pos = run.end;
        }
        holes.push(pos..range.end);
        holes
    }

    pub(super) fn read(&self, offset: u64, len: u64) -> Vec<u8> {
        let end = (offset + len).min(self.size);
        if offset >= end {
            return Vec::new();
        }
        let mut bytes = vec![0; (end - offset) as usize];
        for (run, cell) in self.within(offset..end) {
            if let Cell::Data(byte) = cell {
                bytes[(run.start - offset) as usize..(run.end - offset) as usize].fill(byte);
            }
        }
        bytes
    }

    pub(super) fn seek(&self, offset: u64, what: Seek) -> Option<u64> {
        if offset >= self.size {
            return None;
        }
        let mut pos = offset;
        for (run, cell) in self.within(offset..self.size) {
            if cell == Cell::Unwritten {
                continue;
            }
            match what {
                Seek::Data => return Some(run.start),
                Seek::Hole if run.start > pos => break,
                Seek::Hole => pos = run.end,
            }
        }
        (what == Seek::Hole).then_some(pos)
    }

    pub(super) fn allocated(&self) -> u64 {
        self.runs.iter().map(|(run, _)| run.end - run.start).sum()
    }
}

/// Everything about an inode but its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) ino: Ino,
    pub(super) kind: FileKind,
    pub(super) perm: u16,
    pub(super) nlink: u32,
    pub(super) xattr: Option<u8>,
}

/// Names and inodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tree {
    pub(super) inodes: BTreeMap<Ino, Meta>,
    pub(super) entries: BTreeMap<(Ino, &'static str), Ino>,
}

impl Tree {
    pub(super) fn new() -> Self {
        let kind = FileKind::Directory;
        let root = Meta { ino: Ino::ROOT, kind, perm: 0o755, nlink: 2, xattr: None };
        Self { inodes: [(Ino::ROOT, root)].into(), entries: BTreeMap::new() }
    }

    pub(super) fn get(&self, dir: Ino, name: &'static str) -> Option<&Meta> {
        self.entries.get(&(dir, name)).map(|ino| &self.inodes[ino])
    }

    pub(super) fn is_empty(&self, dir: Ino) -> bool {
        !self.entries.keys().any(|(parent, _)| *parent == dir)
    }

    pub(super) fn add(&mut self, dir: Ino, name: &'static str, ino: Ino) {
        self.entries.insert((dir, name), ino);
        if self.inodes[&ino].kind == FileKind::Directory {
            self.link_of(dir, 1);
        }
    }

    fn link_of(&mut self, dir: Ino, by: i32) {
        let meta = self.inodes.get_mut(&dir).unwrap();
        meta.nlink = meta.nlink.checked_add_signed(by).unwrap();
    }

    /// Takes a name away, not the inode.
    pub(super) fn take(&mut self, dir: Ino, name: &'static str) -> Option<Ino> {
        let ino = self.entries.remove(&(dir, name))?;
        if self.inodes[&ino].kind == FileKind::Directory {
            self.link_of(dir, -1);
        }
        Some(ino)
    }

    /// An inode lost a name.
    pub(super) fn drop_link(&mut self, ino: Ino) {
        let meta = self.inodes.get_mut(&ino).unwrap();
        meta.nlink -= 1;
        if meta.kind == FileKind::Directory || meta.nlink == 0 {
            self.inodes.remove(&ino);
        }
    }

    /// Whether `dir` is `ancestor` or below it. Directories lie at most two deep.
    pub(super) fn is_within(&self, dir: Ino, ancestor: Ino) -> bool {
        dir == ancestor
            || self
                .entries
                .iter()
                .any(|((parent, _), child)| *child == dir && self.is_within(*parent, ancestor))
    }

    /// The same with other numbers.
    pub(super) fn renumbered(&self, number: impl Fn(Ino) -> Ino) -> Self {
        let inodes = self.inodes.values().map(|meta| {
            let ino = number(meta.ino);
            (ino, Meta { ino, ..meta.clone() })
        });
        let entries = self.entries.iter();
        Self {
            inodes: inodes.collect(),
            entries: entries
                .map(|((dir, name), ino)| ((number(*dir), *name), number(*ino)))
                .collect(),
        }
    }

    /// By path.
    pub(super) fn listing(&self) -> BTreeMap<String, Meta> {
        let mut listing = BTreeMap::new();
        self.list(Ino::ROOT, "", &mut listing);
        listing
    }

    fn list(&self, dir: Ino, path: &str, into: &mut BTreeMap<String, Meta>) {
        for ((parent, name), ino) in &self.entries {
            if *parent == dir {
                let path = format!("{path}/{name}");
                self.list(*ino, &path, into);
                into.insert(path, self.inodes[ino].clone());
            }
        }
    }
}

/// A file's states since the last that is certain to survive.
#[derive(Clone, Debug)]
pub(super) struct History {
    states: Vec<FileState>,
    /// Once the tree has come further than the first, no state before the second may be seen.
    floors: Vec<(usize, usize)>,
}

/// The reference.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    pub(super) tree: Tree,
    /// Trees since the last that is certain to survive, that one first.
    trees: Vec<Tree>,
    pub(super) files: BTreeMap<Ino, History>,
}

impl History {
    pub(super) fn now(&self) -> &FileState {
        self.states.last().unwrap()
    }

    fn forget_before(&mut self, state: usize) {
        self.states.drain(..state);
        self.floors.clear();
    }
}

impl Reference {
    pub(super) fn new() -> Self {
        let tree = Tree::new();
        Self { trees: vec![tree.clone()], tree, files: BTreeMap::new() }
    }

    /// The tree has changed in one step.
    pub(super) fn tree_changed(&mut self) {
        self.trees.push(self.tree.clone());
    }

    pub(super) fn add_file(&mut self, ino: Ino, now: SystemTime) {
        let states = vec![FileState::new(now)];
        self.files.insert(ino, History { states, floors: Vec::new() });
    }

    pub(super) fn file(&self, ino: Ino) -> &FileState {
        self.files[&ino].now()
    }

    /// A file's content or times change in one step.
    pub(super) fn change(&mut self, ino: Ino, change: impl FnOnce(&mut FileState)) {
        let history = self.files.get_mut(&ino).unwrap();
        let mut next = history.now().clone();
        change(&mut next);
        if next != *history.now() {
            history.states.push(next);
        }
    }

    /// What the file is now is in the namespace.
    pub(super) fn committed(&mut self, ino: Ino) {
        let tree = self.trees.len() - 1;
        let history = self.files.get_mut(&ino).unwrap();
        history.floors.push((tree, history.states.len() - 1));
    }

    pub(super) fn all_committed(&mut self) {
        let inodes: Vec<Ino> = self.files.keys().copied().collect();
        inodes.into_iter().for_each(|ino| self.committed(ino));
    }

    /// The file has nothing that is not in the namespace.
    pub(super) fn is_clean(&self, ino: Ino) -> bool {
        let history = &self.files[&ino];
        let last = history.floors.last().map_or(0, |(_, state)| *state);
        last + 1 == history.states.len()
    }

    /// Everything is as it was in a snapshot, and survives everything.
    pub(super) fn rolled_back(&mut self, tree: Tree, files: BTreeMap<Ino, FileState>) {
        self.trees = vec![tree.clone()];
        self.tree = tree;
        let histories = files
            .into_iter()
            .map(|(ino, state)| (ino, History { states: vec![state], floors: Vec::new() }));
        self.files = histories.collect();
    }

    /// Whatever is in the namespace survives everything.
    pub(super) fn namespace_synced(&mut self) {
        self.trees = vec![self.tree.clone()];
        for history in self.files.values_mut() {
            let floor = history.floors.iter().map(|(_, state)| *state).max().unwrap_or(0);
            history.forget_before(floor);
        }
    }

    /// Adopts what was found after a crash, if that may be. `matches` says whether the file that
    /// was found is in a state.
    pub(super) fn recovered(
        &mut self,
        found: &BTreeMap<String, Meta>,
        lost_power: bool,
        matches: impl Fn(Ino, &FileState) -> bool,
    ) -> Result<(), String> {
        let last = self.trees.len() - 1;
        let first = if lost_power { 0 } else { last };
        let mut why = format!("no tree matches {found:#?}");
        for at in (first..=last).rev() {
            if self.trees[at].listing() != *found {
                continue;
            }
            match self.files_at(at, lost_power, &matches) {
                Ok(files) => {
                    self.tree = self.trees[at].clone();
                    self.tree.inodes.retain(|ino, _| {
                        *ino == Ino::ROOT || self.tree.entries.values().any(|other| other == ino)
                    });
                    self.trees = vec![self.tree.clone()];
                    self.files = files;
                    return Ok(());
                }
                Err(reason) => why = reason,
            }
        }
        Err(why)
    }

    fn files_at(
        &self,
        at: usize,
        lost_power: bool,
        matches: &impl Fn(Ino, &FileState) -> bool,
    ) -> Result<BTreeMap<Ino, History>, String> {
        let mut files = BTreeMap::new();
        for meta in self.trees[at].listing().into_values() {
            if meta.kind != FileKind::File {
                continue;
            }
            let history = &self.files[&meta.ino];
            let holds = |tree: usize| !lost_power || at > tree;
            let floors = history.floors.iter().filter(|(tree, _)| holds(*tree));
            let floor = floors.map(|(_, state)| *state).max().unwrap_or(0);
            let found = history.states[floor..].iter().rev().find(|state| matches(meta.ino, state));
            let Some(state) = found else {
                return Err(format!(
                    "{:?} is in none of {:#?}",
                    meta.ino,
                    &history.states[floor..]
                ));
            };
            files.insert(meta.ino, History { states: vec![state.clone()], floors: Vec::new() });
        }
        Ok(files)
    }
}
