//! Renaming: moving an entry, replacing another, or exchanging two.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::create::{add_link, entry_added};
use super::directory::Place;
use super::key::LinkAt;
use super::links::{LinkChanges, remember};
use super::names::check_name;
use super::record::{Inode, Timestamp};
use super::remove::{Removed, entry_removed};
use super::store::Durability;
use super::{InodeGuard, Namespace, Txn};
use crate::error::{FsError, FsResult};
use crate::types::{Ino, RenameMode};

/// What a rename did.
#[derive(Clone, Debug)]
pub struct Renamed {
    /// What has the new name now.
    pub moved: Arc<Inode>,
    /// What lost that name to it.
    pub replaced: Option<Removed>,
    /// What has the old name now, after an exchange.
    pub exchanged: Option<Arc<Inode>>,
}

/// One side of a rename.
#[derive(Clone, Copy, Debug)]
struct Side<'n> {
    parent: Ino,
    name: &'n [u8],
}

impl Side<'_> {
    /// Where its name lies.
    fn at(&self, cookie: u64) -> LinkAt {
        LinkAt { dir: self.parent.object(), cookie }
    }
}

/// Everything that a rename touches, locked and loaded. Directories and buckets may be the same
/// on both sides; each is held once.
struct Scene<'a> {
    _guard: InodeGuard<'a>,
    dirs: BTreeMap<Ino, Inode>,
    places: BTreeMap<(Ino, u64), Place>,
    source: Inode,
    target: Option<Inode>,
}

impl Namespace {
    /// Renames `name` in `parent` to `new_name` in `new_parent`.
    pub fn rename(
        &self,
        parent: Ino,
        name: &[u8],
        new_parent: Ino,
        new_name: &[u8],
        mode: RenameMode,
    ) -> FsResult<Renamed> {
        self.rename_any((parent, name), (new_parent, new_name), mode, false)
    }

    /// Renames an entry; one that is a dataset only if `datasets`.
    pub(super) fn rename_any(
        &self,
        (parent, name): (Ino, &[u8]),
        (new_parent, new_name): (Ino, &[u8]),
        mode: RenameMode,
        datasets: bool,
    ) -> FsResult<Renamed> {
        check_name(name)?;
        check_name(new_name)?;
        self.gate.check()?;
        if self.writable(parent)?.index != self.writable(new_parent)?.index {
            return Err(FsError::CrossesDatasets);
        }
        let from = Side { parent, name };
        let to = Side { parent: new_parent, name: new_name };
        // Where directories change their parent, two moves must not cross.
        let _moving = (parent != new_parent).then(|| self.moving.lock());
        let scene = self.lock_scene(from, to)?;
        if !datasets {
            self.check_not_junction(scene.source.ino)?;
        }
        if let Some(target) = &scene.target {
            self.check_not_junction(target.ino)?;
        }
        if let Some(target) = &scene.target {
            if mode == RenameMode::NoReplace {
                return Err(FsError::Exists);
            }
            if target.ino == scene.source.ino {
                let moved = Arc::new(scene.source);
                return Ok(Renamed { moved, replaced: None, exchanged: None });
            }
        }
        self.check_tree(&scene, from, to, mode)?;
        match (mode, &scene.target) {
            (RenameMode::Exchange, None) => Err(FsError::NotFound),
            (RenameMode::Exchange, Some(_)) => self.exchange(scene, from, to),
            (_, Some(target)) if target.is_dir() => {
                self.check_awaits_no_entry(target.ino)?;
                self.replace(scene, from, to)
            }
            _ => self.replace(scene, from, to),
        }
    }

    /// Locks both directories and reads their entries once, under the locks of what these name.
    fn lock_scene<'a>(&'a self, from: Side<'_>, to: Side<'_>) -> FsResult<Scene<'a>> {
        let mut guard = self.lock(&[from.parent, to.parent]);
        loop {
            let mut dirs = BTreeMap::new();
            let mut places = BTreeMap::new();
            for side in [from, to] {
                dirs.insert(side.parent, Inode::clone(&*self.directory(side.parent)?));
                let place = self.place(side.parent, side.name)?;
                places.insert((side.parent, place.number), place);
            }
            let named = |side: Side<'_>| {
                let place = &places[&(side.parent, self.names.bucket(side.name))];
                place.bucket.find(side.name).map(|entry| entry.ino)
            };
            let source = named(from).ok_or(FsError::NotFound)?;
            let target = named(to);
            let mut wanted = [Some(source), target].into_iter().flatten();
            if wanted.all(|ino| self.locks.extend(&mut guard, ino)) {
                let source = Inode::clone(&*self.named_inode(source)?);
                let target = match target {
                    Some(ino) => Some(Inode::clone(&*self.named_inode(ino)?)),
                    None => None,
                };
                return Ok(Scene { _guard: guard, dirs, places, source, target });
            }
            // Taken in the right order instead; the entries may be others by then.
            drop(guard);
            let wanted = [Some(from.parent), Some(to.parent), Some(source), target];
            guard = self.lock(&wanted.into_iter().flatten().collect::<Vec<_>>());
        }
    }

    /// Refuses what would not leave a tree of the right types.
    fn check_tree(
        &self,
        scene: &Scene<'_>,
        from: Side<'_>,
        to: Side<'_>,
        mode: RenameMode,
    ) -> FsResult<()> {
        let Scene { source, target, .. } = scene;
        if from.parent != to.parent {
            if source.is_dir() && self.is_within(to.parent, source.ino)? {
                return Err(FsError::Invalid("a directory cannot move below itself"));
            }
            if let (RenameMode::Exchange, Some(target)) = (mode, target)
                && target.is_dir()
                && self.is_within(from.parent, target.ino)?
            {
                return Err(FsError::Invalid("a directory cannot move below itself"));
            }
        }
        match target {
            Some(target) if mode == RenameMode::Replace => {
                match (source.is_dir(), target.is_dir()) {
                    (true, false) => Err(FsError::NotDirectory),
                    (false, true) => Err(FsError::IsDirectory),
                    (true, true) if target.size != 0 => Err(FsError::NotEmpty),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn replace(&self, mut scene: Scene<'_>, from: Side<'_>, to: Side<'_>) -> FsResult<Renamed> {
        let now = self.now();
        let mut txn = self.begin();
        let is_dir = scene.source.is_dir();
        let (ino, kind) = (scene.source.ino, scene.source.kind);
        let place = self.place_of(&mut scene, from);
        let left = place.bucket.remove(from.name).ok_or(FsError::NotFound)?;
        let left = from.at(place.cookie(left.position));
        let replaced = scene.target.take();
        let place = self.place_of(&mut scene, to);
        let cookie = match place.bucket.replace(to.name, ino, kind) {
            Some(position) => place.cookie(position),
            None => place.insert(to.name, ino, kind)?,
        };
        entry_removed(dir_of(&mut scene, from), now)?;
        entry_added(dir_of(&mut scene, to), now);
        if replaced.is_some() {
            let dir = dir_of(&mut scene, to);
            dir.size = dir.size.saturating_sub(1);
        }
        if is_dir {
            lose_link(dir_of(&mut scene, from));
            add_link(dir_of(&mut scene, to))?;
        }
        if replaced.as_ref().is_some_and(Inode::is_dir) {
            lose_link(dir_of(&mut scene, to));
        }
        let replaced = match replaced {
            Some(inode) => {
                Some(Removed { inode: self.lose_name(&mut txn, inode, to.at(cookie), now)? })
            }
            None => None,
        };
        let source = scene.source.clone();
        stage_dirs(&scene, &mut txn)?;
        let moved = settle(&mut txn, source, left, (to, cookie), now)?;
        txn.commit(Durability::Buffered)?;
        Ok(Renamed { moved, replaced, exchanged: None })
    }

    fn exchange(&self, mut scene: Scene<'_>, from: Side<'_>, to: Side<'_>) -> FsResult<Renamed> {
        let now = self.now();
        let mut txn = self.begin();
        let source = scene.source.clone();
        let target = scene.target.take().ok_or(FsError::NotFound)?;
        let mut cookies = [0; 2];
        for (at, (side, inode)) in [(from, &target), (to, &source)].into_iter().enumerate() {
            let place = self.place_of(&mut scene, side);
            let position = place.bucket.replace(side.name, inode.ino, inode.kind);
            cookies[at] = place.cookie(position.ok_or(FsError::NotFound)?);
            let dir = dir_of(&mut scene, side);
            dir.mtime = now;
            dir.ctime = now;
        }
        match (source.is_dir(), target.is_dir()) {
            (true, false) => {
                lose_link(dir_of(&mut scene, from));
                add_link(dir_of(&mut scene, to))?;
            }
            (false, true) => {
                lose_link(dir_of(&mut scene, to));
                add_link(dir_of(&mut scene, from))?;
            }
            _ => {}
        }
        stage_dirs(&scene, &mut txn)?;
        let [here, there] = cookies;
        let exchanged = settle(&mut txn, target, to.at(there), (from, here), now)?;
        let moved = settle(&mut txn, source, from.at(here), (to, there), now)?;
        txn.commit(Durability::Buffered)?;
        Ok(Renamed { moved, replaced: None, exchanged: Some(exchanged) })
    }

    fn place_of<'s>(&self, scene: &'s mut Scene<'_>, side: Side<'_>) -> &'s mut Place {
        let number = self.names.bucket(side.name);
        scene.places.get_mut(&(side.parent, number)).expect("both places were loaded")
    }
}

fn dir_of<'s>(scene: &'s mut Scene<'_>, side: Side<'_>) -> &'s mut Inode {
    scene.dirs.get_mut(&side.parent).expect("both directories were loaded")
}

fn stage_dirs(scene: &Scene<'_>, txn: &mut Txn<'_>) -> FsResult<()> {
    for ((dir, _), place) in &scene.places {
        place.stage(txn, &scene.dirs[dir])?;
    }
    for dir in scene.dirs.values() {
        txn.put_inode(dir.clone())?;
    }
    Ok(())
}

/// The inode has another name now than the one that lay at `left`.
fn settle(
    txn: &mut Txn<'_>,
    mut inode: Inode,
    left: LinkAt,
    (side, cookie): (Side<'_>, u64),
    now: Timestamp,
) -> FsResult<Arc<Inode>> {
    let mut links = LinkChanges::default();
    links.change(&inode, left, (side.at(cookie), side.name));
    links.stage(txn, &inode)?;
    if inode.home() == left {
        (inode.parent, inode.cookie) = (side.parent, cookie);
    } else {
        remember(&mut inode, side.parent, cookie);
    }
    inode.ctime = now;
    txn.put_inode(inode)
}

/// A directory has one subdirectory less.
fn lose_link(dir: &mut Inode) {
    dir.nlink = dir.nlink.saturating_sub(1);
}
