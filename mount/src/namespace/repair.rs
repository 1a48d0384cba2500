//! Repair: what has one right answer is made right, and the rest is kept where people find it.
//!
//! Works on a namespace that nobody else uses, in rounds: a check collects the objects that its
//! findings are about; these are mended, records first, then names, then places, then counts; and
//! another check says what is left. A round that changes nothing is the last.
//!
//! | finding | what becomes of it |
//! |---|---|
//! | a record that does not decode | goes, but for content; see below |
//! | content (an extent) that does not decode, or is gone by what the inode and back-references say | its bytes become those of a block that no volume has: `EIO`, never zeros |
//! | records or names without an inode | one is made anew under its names, or in `lost+found`; content of which nothing is known is an error |
//! | a second name of a directory, names of a number that was never lent | go |
//! | a name with the wrong type, or in the wrong place of its directory | is put right |
//! | inodes without a name, directories on a loop | `lost+found/#<inode>` of their dataset, with all below |
//! | an orphan without a record, or with names | the record is written, or removed |
//! | link counts, counts of entries, sizes of content, attributes and ACLs, link records | counted anew; a name that only its link record has comes back |
//! | the access ACL is lost | the group loses its rights, which were the ACL's bound |
//! | a symbolic link without its target | goes with its names |
//! | back-references, the born index | made anew, or removed; the blocks of those that go are held |
//! | older versions without a newest | it is removed; a snapshot that may have seen it has an error there |
//! | a newest version that says to be older than others | it is the live one; they stay |
//! | a node without a record | is on the line of what it wrote; where that cannot be told, that stays as it is |
//! | keys that do not decode or name nothing that ever was | go |
//! | counters of space | counted anew |
//! | a digest of a snapshot that cannot be read | is restored if one behind it follows from it; else it goes, and so do those that follow from it |
//! | the sum that a digest was made from | is made anew, if it adds up to that |
//! | a digest of a snapshot that is another one | remains: it tells that something was changed |
//! | more allocated bytes than there are, and no slot that must have held them | counted anew, and told |
//! | what a snapshot shows does not decode, records of no dataset | remains |
//! | a version tree that lacks more than nodes | nothing at all is changed |
//!
//! *Snapshots* never change: a mended record is a new version, and what a snapshot shows of the old
//! one stays as it is, damage included. Where nobody can say what it showed, it gets a version that
//! cannot be read; where a block tells that its content is lost, it has an error in its place.
//! *Blocks*: a repair gives up none. Whoever removes what was kept aside lets the next repair do so.
//! *Crash*: each batch is atomic and leaves a namespace that opens; the next repair goes on. The
//! first removes the counters of space, which whoever opens the namespace then counts anew. Whatever
//! a batch overwrites or removes is kept and durable before it is committed; see [`Keeper`].
//! *Memory*: bounded by the suspects and findings of a check.

mod content;
mod counts;
mod edits;
mod entries;
mod nodes;
mod places;
mod records;
mod seals;
mod spaces;

use std::collections::{BTreeMap, BTreeSet};

use super::check::{CheckOptions, FindingKind, MAX_SUSPECTS, Report, Suspects, past_damage};
use super::tree::View;
use super::{Namespace, Space};
use crate::error::FsResult;
use crate::types::Ino;

pub(super) use nodes::restore_nodes;

use edits::Edits;

/// Rounds after which what is left is left.
const MAX_ROUNDS: usize = 32;

/// Repairs that are told one by one.
const MAX_REPAIRS: usize = 10_000;

/// Keeps what a repair takes away.
pub trait Keeper {
    /// A stored value that is about to be overwritten or removed.
    fn keep(&mut self, space: Space, key: &[u8], value: &[u8]) -> FsResult<()>;

    /// Makes durable what was kept.
    fn sync(&mut self) -> FsResult<()>;

    /// Whether anything that earlier repairs kept is still there: as long as it is, the blocks that
    /// it may need are held.
    fn has_kept(&self) -> bool;
}

/// What became of something damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It is as it was, or as it must have been.
    Mended,
    /// It is in `lost+found`.
    LostFound,
    /// It is gone; its record was kept aside.
    Dropped,
}

/// One thing that was repaired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// What was wrong.
    pub kind: FindingKind,
    /// Where, for people.
    pub path: Vec<u8>,
    /// The inode concerned.
    pub ino: Ino,
    /// What became of it.
    pub fate: Fate,
    /// More about it.
    pub detail: String,
}

/// What a repair did.
#[derive(Clone, Debug, Default)]
pub struct Repaired {
    /// What was repaired, at most 10,000.
    pub repairs: Vec<Repair>,
    /// Number of all repairs by kind and fate.
    pub counts: BTreeMap<(FindingKind, Fate), u64>,
    /// What the first check found, by kind.
    pub found: BTreeMap<FindingKind, u64>,
    /// What is left.
    pub remaining: Report,
}

impl Namespace {
    /// Checks and repairs until nothing is left that can be repaired. Nobody else uses the
    /// namespace meanwhile.
    pub fn repair(&self, options: CheckOptions, keeper: &mut dyn Keeper) -> FsResult<Repaired> {
        if !keeper.has_kept() {
            self.release_holds()?;
        }
        let mut mender = Mender::new(self, keeper);
        let mut report = self.check(options)?;
        mender.done.found = report.kinds.clone();
        if report.kinds.contains_key(&FindingKind::VersionTree) {
            // What views show is not what they showed, so nothing can be judged by it.
            return Ok(Repaired { remaining: report, ..mender.done });
        }
        for _ in 0..MAX_ROUNDS {
            if report.found == 0 || !mender.round(std::mem::take(&mut report.suspects))? {
                break;
            }
            report = self.check(options)?;
        }
        if mender.done.found.contains_key(&FindingKind::SnapshotDigest) && mender.mend_seals()? {
            report = self.check(options)?;
        }
        if mender.count_space()? {
            report = self.check(options)?;
        }
        self.finish_truncations_past_damage()?;
        self.sync()?;
        Ok(Repaired { remaining: report, ..mender.done })
    }

    /// Truncations that could not be finished before; one that still cannot be is tried again by
    /// the next open, which says why.
    fn finish_truncations_past_damage(&self) -> FsResult<()> {
        past_damage(self.finish_truncations()).map(|_| ())
    }
}

/// A repair on its way.
struct Mender<'a> {
    ns: &'a Namespace,
    edits: Edits<'a>,
    done: Repaired,
    /// Objects that a round changed.
    touched: BTreeSet<Ino>,
    /// Files of which every missing byte is accounted for.
    accounted: BTreeSet<Ino>,
    /// Where the content ends of files without an inode, by what back-references tell.
    told_ends: BTreeMap<Ino, u64>,
    /// The round does not see all that is damaged.
    is_partial: bool,
    changed: bool,
}

impl<'a> Mender<'a> {
    fn new(ns: &'a Namespace, keeper: &'a mut dyn Keeper) -> Self {
        Self {
            ns,
            edits: Edits::new(ns, keeper),
            done: Repaired::default(),
            touched: BTreeSet::new(),
            accounted: BTreeSet::new(),
            told_ends: BTreeMap::new(),
            is_partial: false,
            changed: false,
        }
    }

    /// Mends what a check suspects; whether anything changed.
    fn round(&mut self, suspects: Suspects) -> FsResult<bool> {
        self.changed = false;
        self.touched.clear();
        self.accounted.clear();
        self.told_ends.clear();
        self.is_partial = suspects.inodes.len() >= MAX_SUSPECTS;
        self.mend_nodes()?;
        self.mend_keys()?;
        // What is missing is judged by what older versions and the lines below show.
        self.mend_told()?;
        self.mend_older_versions()?;
        let mut inodes = suspects.inodes;
        inodes.extend(self.touched.iter().copied());
        self.each(&inodes, Self::mend_records)?;
        self.each(&inodes, Self::restore_names)?;
        self.each(&inodes, Self::mend_entries)?;
        self.each(&inodes, Self::drop_without_inode)?;
        inodes.append(&mut self.touched);
        for (view, inodes) in self.by_view(&inodes) {
            let mut names = self.names(&view, &inodes)?;
            for &ino in &inodes {
                self.step(|mender| mender.find_place(&view, ino, &mut names))?;
            }
        }
        inodes.append(&mut self.touched);
        for (view, inodes) in self.by_view(&inodes) {
            let names = self.names(&view, &inodes)?;
            for &ino in &inodes {
                self.step(|mender| mender.count(&view, ino, &names))?;
            }
        }
        self.mend_born_index()?;
        self.mend_backrefs()?;
        Ok(self.changed)
    }

    /// Suspects in live states, which are the only ones that change; a line comes before those that
    /// began at it, and shows them what it was mended to.
    fn by_view(&self, inodes: &BTreeSet<Ino>) -> Vec<(View, Vec<Ino>)> {
        let mut views: BTreeMap<u32, (View, Vec<Ino>)> = BTreeMap::new();
        for &ino in inodes {
            if let Ok(view) = self.ns.writable(ino) {
                views.entry(view.line.0).or_insert((view, Vec::new())).1.push(ino);
            }
        }
        views.into_values().collect()
    }

    fn each(
        &mut self,
        inodes: &BTreeSet<Ino>,
        mend: impl Fn(&mut Self, &View, Ino) -> FsResult<()>,
    ) -> FsResult<()> {
        for (view, inodes) in self.by_view(inodes) {
            for ino in inodes {
                self.step(|mender| mend(mender, &view, ino))?;
            }
        }
        Ok(())
    }

    /// One step of a repair and its batch. Damage in its way is for a later round.
    fn step(&mut self, step: impl FnOnce(&mut Self) -> FsResult<()>) -> FsResult<()> {
        match past_damage(step(self))? {
            Some(()) => self.commit(),
            None => {
                self.edits.forget();
                Ok(())
            }
        }
    }

    fn commit(&mut self) -> FsResult<()> {
        self.changed |= self.edits.commit()?;
        Ok(())
    }

    /// Commits what is a batch full.
    fn commit_some(&mut self) -> FsResult<()> {
        if self.edits.len() >= edits::CHANGES_PER_BATCH { self.commit() } else { Ok(()) }
    }

    fn note(&mut self, kind: FindingKind, ino: Ino, fate: Fate, detail: impl Into<String>) {
        let path = self.ns.path(ino);
        self.note_at(kind, ino, path, fate, detail);
    }

    fn note_at(
        &mut self,
        kind: FindingKind,
        ino: Ino,
        path: Vec<u8>,
        fate: Fate,
        detail: impl Into<String>,
    ) {
        *self.done.counts.entry((kind, fate)).or_default() += 1;
        if self.done.repairs.len() < MAX_REPAIRS {
            self.done.repairs.push(Repair { kind, path, ino, fate, detail: detail.into() });
        }
    }
}
