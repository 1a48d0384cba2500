//! Object by object: which names went and came, and whether anything else changed.

use std::collections::BTreeMap;

use super::links::{Links, Side};
use super::search::Unnamed;
use super::{ChangeKind, Difference, Kinds, Limits};
use crate::error::FsResult;
use crate::namespace::Namespace;
use crate::namespace::key::{Kind, Node};
use crate::namespace::pair::{Both, Pair};
use crate::namespace::record::{Inode, InodeFlags};
use crate::namespace::tree::View;
use crate::types::Ino;

/// A name: the object of its directory, and what it is called there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Link {
    pub(super) dir: Ino,
    pub(super) name: Vec<u8>,
}

/// The names of an object that went, and those that came.
#[derive(Clone, Debug, Default)]
pub(super) struct Moves {
    pub(super) gone: Vec<Link>,
    pub(super) come: Vec<Link>,
}

/// What the inodes of an object themselves say about its names.
pub(super) struct Homes {
    pub(super) old: Option<Link>,
    pub(super) new: Option<Link>,
    /// It has no other names, in neither state.
    is_all: bool,
    /// If it has, there are link records of all.
    is_recorded: bool,
}

/// A comparison under way.
pub(super) struct Comparison<'a> {
    pub(super) names: &'a Namespace,
    pub(super) older: View,
    pub(super) pair: Pair,
    /// What was written under these is what may be different.
    pub(super) nodes: &'a [Node],
    pub(super) limits: Limits,
    links: Links,
    pub(super) unnamed: BTreeMap<u64, Unnamed>,
    sink: &'a mut dyn FnMut(&Difference) -> bool,
}

impl<'a> Comparison<'a> {
    pub(super) fn new(
        names: &'a Namespace,
        (older, pair): (View, Pair),
        nodes: &'a [Node],
        limits: Limits,
        sink: &'a mut dyn FnMut(&Difference) -> bool,
    ) -> Self {
        let links = Links::none(limits.link_bytes);
        Self { names, older, pair, nodes, limits, links, unnamed: BTreeMap::new(), sink }
    }

    /// Passes what is different about an object on; `false` when nobody wants more.
    pub(super) fn look_at(&mut self, object: Ino, kinds: Kinds) -> FsResult<bool> {
        let both = self.names.both(&self.pair, object, kinds)?;
        if both.old.is_none() && both.new.is_none() {
            return Ok(true);
        }
        let homes = self.names.homes(&self.older, &self.pair, &both)?;
        let moves = match (homes.is_all, homes.is_recorded) {
            (true, _) => Some(homes.moves()),
            (false, true) => self.recorded_moves(&both, &homes)?,
            (false, false) => self.moves_of(&both, &homes)?,
        };
        let goes_on = match &moves {
            Some(moves) => self.tell_moves(&both, moves)?,
            None if homes.is_recorded => self.tell_recorded(&both, &homes)?,
            None => self.tell_crowd(&both)?,
        };
        Ok(goes_on && self.tell_change(&both, &homes, moves.as_ref())?)
    }

    /// Passes on what was put off.
    pub(super) fn finish(&mut self) -> FsResult<()> {
        self.tell_unnamed().map(drop)
    }

    /// The names of an object with several that went and came, by the directories that changed;
    /// `None` when they have no room.
    fn moves_of(&mut self, both: &Both, homes: &Homes) -> FsResult<Option<Moves>> {
        let object = both.object.0;
        if !self.links.covers(object) {
            self.gather(object, self.links.is_whole)?;
        }
        loop {
            if !self.links.covers(object) {
                return Ok(None);
            }
            let mut found = self.links.take(object);
            if let Some(home) = &homes.new
                && !self.names.has_link(&self.older, home, both.object)?
            {
                found.come.insert(home.clone());
            }
            let count = |inode: &Option<Inode>| inode.as_ref().map_or(0, |i| u64::from(i.nlink));
            let missing = count(&both.new) + found.gone.len() as u64
                > count(&both.old) + found.come.len() as u64;
            if !missing || self.links.is_whole {
                let (gone, come) = (found.gone, found.come);
                let moves =
                    Moves { gone: gone.into_iter().collect(), come: come.into_iter().collect() };
                return Ok(Some(moves));
            }
            // A name came of which only its directory knows.
            self.gather(object, true)?;
        }
    }

    /// Looks for names that came and went of objects from `from` on.
    fn gather(&mut self, from: u64, whole: bool) -> FsResult<()> {
        let Self { names, older, pair, nodes, links, limits, .. } = self;
        *links = Links::new(from, whole, limits.link_bytes);
        names.written_under(nodes, 0, &mut |dir, kinds| {
            let dir = names.both(pair, dir, kinds)?;
            names.changed_entries(pair, &dir, whole, &mut |side, entry| {
                if !links.wants(entry) {
                    return Ok(true);
                }
                let child = names.both(pair, entry.ino, Kinds::default())?;
                if !names.homes(older, pair, &child)?.is_recorded {
                    let link = Link { dir: dir.object, name: entry.name.clone() };
                    links.add(side, entry.ino.0, link);
                }
                Ok(!links.is_full())
            })
        })
    }

    fn tell_moves(&mut self, both: &Both, moves: &Moves) -> FsResult<bool> {
        if let ([from], [to]) = (&moves.gone[..], &moves.come[..]) {
            let before = self.names.path_of_link(&self.older, from)?;
            let after = self.names.path_of_link(&self.pair.newer, to)?;
            return Ok(self.tell(ChangeKind::Renamed, both, before, after));
        }
        for link in &moves.gone {
            if !self.tell_move(both, Side::Gone, link)? {
                return Ok(false);
            }
        }
        for link in &moves.come {
            if !self.tell_move(both, Side::Come, link)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Passes names on as they are found; of so many, none is the only one.
    fn tell_crowd(&mut self, both: &Both) -> FsResult<bool> {
        let (names, pair, nodes) = (self.names, self.pair, self.nodes);
        let mut goes_on = true;
        for wanted in [Side::Gone, Side::Come] {
            names.written_under(nodes, 0, &mut |dir, kinds| {
                let dir = names.both(&pair, dir, kinds)?;
                goes_on = names.changed_entries(&pair, &dir, true, &mut |side, entry| {
                    if side != wanted || entry.ino != both.object {
                        return Ok(true);
                    }
                    let link = Link { dir: dir.object, name: entry.name.clone() };
                    self.tell_move(both, side, &link)
                })?;
                Ok(goes_on)
            })?;
            if !goes_on {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn tell_move(&mut self, both: &Both, side: Side, link: &Link) -> FsResult<bool> {
        Ok(match side {
            Side::Gone => {
                let before = self.names.path_of_link(&self.older, link)?;
                self.tell(ChangeKind::Removed, both, before, None)
            }
            Side::Come => {
                let after = self.names.path_of_link(&self.pair.newer, link)?;
                self.tell(ChangeKind::Added, both, None, after)
            }
        })
    }

    fn tell_change(&mut self, both: &Both, homes: &Homes, moves: Option<&Moves>) -> FsResult<bool> {
        let (Some(old), Some(new)) = (&both.old, &both.new) else { return Ok(true) };
        if !is_modified(old, new, both.kinds) {
            return Ok(true);
        }
        let newer = self.pair.newer;
        if new.is_dir() {
            let before = self.names.path_within(self.older.lift(both.object))?;
            let after = self.names.path_within(newer.lift(both.object))?;
            return Ok(self.tell(ChangeKind::Modified, both, before, after));
        }
        let before = match &homes.old {
            Some(home) => self.names.path_of_link(&self.older, home)?,
            None => None,
        };
        let mut known = homes.new.iter().chain(moves.iter().flat_map(|moves| &moves.come));
        let known = match (known.next(), &homes.old) {
            (Some(link), _) => Some(link),
            (None, Some(home)) if self.names.has_link(&newer, home, both.object)? => Some(home),
            _ => None,
        };
        if let Some(link) = known {
            let after = self.names.path_of_link(&newer, link)?;
            return Ok(self.tell(ChangeKind::Modified, both, before, after));
        }
        self.unnamed.insert(both.object.0, Unnamed { kind: new.kind, near: new.parent, before });
        Ok(self.unnamed.len() < self.limits.unnamed || self.tell_unnamed()?)
    }

    fn tell(
        &mut self,
        change: ChangeKind,
        both: &Both,
        before: Option<Vec<u8>>,
        after: Option<Vec<u8>>,
    ) -> bool {
        let view = match (change, &both.new) {
            (ChangeKind::Removed, _) | (_, None) => self.older,
            _ => self.pair.newer,
        };
        let kind = both.new.as_ref().or(both.old.as_ref()).map(|inode| inode.kind);
        let Some(kind) = kind else { return true };
        let ino = view.lift(both.object);
        self.pass(&Difference { change, kind, ino, before, after })
    }

    pub(super) fn pass(&mut self, difference: &Difference) -> bool {
        (self.sink)(difference)
    }
}

impl Homes {
    /// What moved, where these are all names.
    fn moves(&self) -> Moves {
        if self.old == self.new {
            return Moves::default();
        }
        Moves { gone: self.old.iter().cloned().collect(), come: self.new.iter().cloned().collect() }
    }
}

impl Namespace {
    /// What the inodes of an object say about its names.
    pub(super) fn homes(&self, older: &View, pair: &Pair, both: &Both) -> FsResult<Homes> {
        let (old, is_old_all) = self.home(older, both.old.as_ref())?;
        let (new, is_new_all) = self.home(&pair.newer, both.new.as_ref())?;
        let has_links = |inode: &Option<Inode>| {
            inode.as_ref().is_some_and(|inode| inode.flags.has(InodeFlags::LINKS))
        };
        let is_recorded =
            (is_old_all || has_links(&both.old)) && (is_new_all || has_links(&both.new));
        Ok(Homes { old, new, is_all: is_old_all && is_new_all, is_recorded })
    }

    /// The name that an inode remembers, if it still has it, and whether it has no other.
    fn home(&self, view: &View, inode: Option<&Inode>) -> FsResult<(Option<Link>, bool)> {
        let Some(inode) = inode else { return Ok((None, true)) };
        let name = self.name_in(view, inode)?;
        let is_all = inode.is_dir() || inode.nlink == 1 && name.is_some();
        Ok((name.map(|name| Link { dir: inode.parent, name }), is_all))
    }

    /// Whether an object has that name in a state.
    pub(super) fn has_link(&self, view: &View, link: &Link, object: Ino) -> FsResult<bool> {
        let place = self.place(view.lift(link.dir), &link.name)?;
        Ok(place.bucket.find(&link.name).is_some_and(|entry| entry.ino == view.lift(object)))
    }

    /// The path of a name below the root of its state; `None` when it is too deep.
    pub(super) fn path_of_link(&self, view: &View, link: &Link) -> FsResult<Option<Vec<u8>>> {
        let Some(mut path) = self.path_within(view.lift(link.dir))? else { return Ok(None) };
        if path.last() != Some(&b'/') {
            path.push(b'/');
        }
        path.extend_from_slice(&link.name);
        Ok(Some(path))
    }
}

/// Whether more changed than names.
fn is_modified(old: &Inode, new: &Inode, kinds: Kinds) -> bool {
    let content = [Kind::Extent, Kind::Xattr, Kind::Dentry].into_iter().any(|kind| kinds.has(kind));
    content
        || (old.size, old.mtime, old.perm) != (new.size, new.mtime, new.perm)
        || (old.uid, old.gid) != (new.uid, new.gid)
}
