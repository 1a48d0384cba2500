//! Where inodes lie: every one that has a name below the root, and the rest in `lost+found`.

use std::collections::{HashMap, HashSet};

use super::{Fate, Mender};
use crate::error::FsResult;
use crate::namespace::NewFile;
use crate::namespace::check::FindingKind;
use crate::namespace::key::{HeadKey, Kind, LinkAt};
use crate::namespace::names::cookie_of;
use crate::namespace::record::{Bucket, Entry, Inode, Version};
use crate::namespace::tree::View;
use crate::types::{Caller, FileKind, Ino};

/// Where what has no name is put, in the root of its dataset.
const LOST_FOUND: &[u8] = b"lost+found";

/// Names of that kind that are tried where programs use the others for something else.
const ATTEMPTS: u32 = 100;

/// Most names of suspects in memory.
const MAX_NAMES: usize = 1 << 20;

/// The names of some objects of a view.
pub(super) struct Names {
    of: HashMap<u64, Vec<(LinkAt, Vec<u8>)>>,
    /// Objects with more names than there was room for.
    incomplete: HashSet<u64>,
}

impl Names {
    /// The names of an object; `None` if they are not all known.
    pub(super) fn of(&self, ino: Ino) -> Option<&[(LinkAt, Vec<u8>)]> {
        let object = ino.object();
        let known = self.of.get(&object).map_or(&[][..], |names| names);
        (!self.incomplete.contains(&object)).then_some(known)
    }
}

impl Mender<'_> {
    /// All names of some inodes.
    pub(super) fn names(&self, view: &View, inodes: &[Ino]) -> FsResult<Names> {
        let mut of: HashMap<u64, Vec<_>> = HashMap::new();
        of.extend(inodes.iter().map(|ino| (ino.object(), Vec::new())));
        let (mut count, mut incomplete) = (0, HashSet::new());
        self.ns.for_each_shown(view, &mut |key, value| {
            let (Ok(head), Ok((version, record))) = (HeadKey::decode(key), Version::split(value))
            else {
                return Ok(());
            };
            if head.kind != Kind::Dentry || version.whiteout {
                return Ok(());
            }
            let number = head.number()?;
            for entry in Bucket::decode(record).unwrap_or_default().entries() {
                let Some(names) = of.get_mut(&entry.ino.object()) else { continue };
                if count == MAX_NAMES {
                    incomplete.insert(entry.ino.object());
                    continue;
                }
                count += 1;
                let cookie = cookie_of(number, entry.position);
                names.push((LinkAt { dir: head.object.object(), cookie }, entry.name.clone()));
            }
            Ok(())
        })?;
        Ok(Names { of, incomplete })
    }

    /// Sees to it that an inode has a place below the root.
    pub(super) fn find_place(&mut self, view: &View, ino: Ino, names: &mut Names) -> FsResult<()> {
        let Some(inode) = self.ns.stored_inode(ino)? else { return Ok(()) };
        let Some(known) = names.of(ino).filter(|_| ino != view.root()) else { return Ok(()) };
        let Some((first, _)) = known.first() else {
            // What was removed is to go, unless something still lies in it.
            let is_removed = inode.nlink == 0 && !(inode.is_dir() && self.holds(view, ino)?);
            return if is_removed { Ok(()) } else { self.attach(view, &inode, "it has no name") };
        };
        if !inode.is_dir() {
            return Ok(());
        }
        let home = known.iter().map(|(at, _)| *at).find(|&at| at == inode.home());
        if home.is_none() {
            self.adopt(view, &inode, *first)?;
            self.commit()?;
            let detail = "a directory that did not know where it lies";
            self.note(FindingKind::Unreachable, ino, Fate::Mended, detail);
        }
        let at = home.unwrap_or(*first);
        for (other, _) in known.iter().filter(|(other, _)| *other != at) {
            self.remove_entry(view, *other, ino.object())?;
            self.commit()?;
        }
        if self.is_on_loop(view, ino)? {
            self.remove_entry(view, at, ino.object())?;
            return self.attach(view, &inode, "it lies in itself");
        }
        Ok(())
    }

    fn holds(&self, view: &View, dir: Ino) -> FsResult<bool> {
        let mut holds = false;
        self.ns.for_each_of(view, dir, Some(Kind::Dentry), &mut |_, value| {
            holds |= Version::split(value).is_ok_and(|(version, _)| !version.whiteout);
            Ok(())
        })?;
        Ok(holds)
    }

    /// Whether the way up from a directory comes back to it. Where it comes back to another, that
    /// one is on a loop and this one only below.
    fn is_on_loop(&self, view: &View, dir: Ino) -> FsResult<bool> {
        let mut seen = HashSet::new();
        let mut at = dir;
        while at != view.root() && seen.insert(at) {
            match self.ns.stored_inode(at)? {
                Some(inode) => at = inode.parent,
                None => return Ok(false),
            }
        }
        Ok(at == dir)
    }

    /// Puts an inode without a name into `lost+found`.
    fn attach(&mut self, view: &View, inode: &Inode, why: &str) -> FsResult<()> {
        let was = self.ns.path(inode.ino);
        let dir = self.lost_found(view)?;
        let Some(parent) = self.ns.stored_inode(dir)? else { return Ok(()) };
        for attempt in 0..ATTEMPTS {
            let mut name = format!("#{}", inode.ino.object());
            if attempt > 0 {
                name.push_str(&format!(".{attempt}"));
            }
            let mut place = self.ns.place(dir, name.as_bytes())?;
            if place.bucket.find(name.as_bytes()).is_some() {
                continue;
            }
            let cookie = place.insert(name.as_bytes(), inode.ino, inode.kind)?;
            self.edits.write_bucket(view, (dir, place.number), &place.bucket)?;
            let is_dir = inode.is_dir();
            let subdirectories = parent.nlink + u32::from(is_dir);
            let grown = Inode { size: parent.size + 1, nlink: subdirectories, ..parent };
            self.edits.write_inode(view, &grown)?;
            let nlink = if is_dir { inode.nlink.max(2) } else { 1 };
            let ino = inode.ino;
            self.edits.write_inode(view, &Inode { parent: dir, cookie, nlink, ..inode.clone() })?;
            self.commit()?;
            self.touched.extend([dir, ino]);
            let detail = format!("{}: {why}", String::from_utf8_lossy(&was));
            self.note(FindingKind::Unreachable, ino, Fate::LostFound, detail);
            return Ok(());
        }
        Ok(())
    }

    /// The directory for what has no name, made where there is none.
    fn lost_found(&mut self, view: &View) -> FsResult<Ino> {
        let ns = self.ns;
        let root = view.root();
        let mut name = LOST_FOUND.to_vec();
        for attempt in 1..ATTEMPTS {
            match ns.place(root, &name)?.bucket.find(&name) {
                Some(entry) if self.is_usable(view, entry)? => return Ok(entry.ino),
                Some(_) => {
                    name = LOST_FOUND.to_vec();
                    name.extend_from_slice(format!(".{attempt}").as_bytes());
                }
                None => break,
            }
        }
        let owner = ns.inode(root)?;
        let caller = Caller { uid: owner.uid, gid: owner.gid, pid: 0 };
        let new =
            NewFile { kind: FileKind::Directory, perm: 0o700, umask: 0, rdev: 0, target: b"" };
        let (txn, inode) = ns.stage_entry(&caller, root, &name, &new)?;
        self.edits.append(txn.into_batch());
        self.commit()?;
        self.touched.insert(inode.ino);
        Ok(inode.ino)
    }

    fn is_usable(&self, view: &View, entry: &Entry) -> FsResult<bool> {
        let inode = self.ns.stored_inode(entry.ino)?;
        let is_junction = self.ns.tree.read().junction(view, entry.ino.object()).is_some();
        Ok(inode.is_some_and(|inode| inode.is_dir() && inode.nlink > 0) && !is_junction)
    }
}
