//! The entries of a directory: each names something that is there, by its type, where its name
//! hashes to, and a directory only once.

use std::collections::BTreeSet;

use super::{Fate, Mender};
use crate::error::FsResult;
use crate::namespace::check::{FindingKind, past_damage};
use crate::namespace::key::{self, HeadKey, Kind, LinkAt};
use crate::namespace::names::{bucket_of_cookie, cookie_of, position_of_cookie};
use crate::namespace::record::{Bucket, Entry, Inode, Version, link_name};
use crate::namespace::tree::View;
use crate::types::{FileKind, Ino};

/// What becomes of an entry.
enum Verdict {
    Stays,
    Goes,
    /// It belongs into another bucket.
    Moves,
    IsOf(FileKind),
}

impl Mender<'_> {
    pub(super) fn mend_entries(&mut self, view: &View, dir: Ino) -> FsResult<()> {
        let ns = self.ns;
        let is_dir = ns.stored_inode(dir)?.is_some_and(|inode| inode.is_dir());
        ns.for_each_of(view, dir, Some(Kind::Dentry), &mut |key, value| {
            let Ok((version, record)) = Version::split(value) else { return Ok(()) };
            let (false, Ok(bucket)) = (version.whiteout, view.bucket(record)) else {
                return Ok(());
            };
            let number = HeadKey::decode(key)?.number()?;
            if !is_dir {
                self.touched.extend(bucket.entries().iter().map(|entry| entry.ino));
                self.note(FindingKind::Content, dir, Fate::Dropped, "entries of no directory");
                return self.edits.write(view, key, None);
            }
            self.mend_bucket(view, (dir, number), &bucket)?;
            self.commit()
        })
    }

    fn mend_bucket(&mut self, view: &View, at: (Ino, u64), bucket: &Bucket) -> FsResult<()> {
        let mut mended = bucket.clone();
        let mut names = BTreeSet::new();
        let mut moving = Vec::new();
        for entry in bucket.entries() {
            let verdict = match names.insert(&entry.name) {
                true => self.judge(view, at, entry)?,
                false => Verdict::Goes,
            };
            match verdict {
                Verdict::Stays => continue,
                Verdict::IsOf(kind) => mended.retain(|own| {
                    if own.position == entry.position {
                        own.kind = kind;
                    }
                    true
                }),
                Verdict::Goes => mended.retain(|own| own.position != entry.position),
                Verdict::Moves => {
                    mended.retain(|own| own.position != entry.position);
                    moving.push(entry);
                }
            }
            self.touched.extend([at.0, entry.ino]);
        }
        if mended == *bucket {
            return Ok(());
        }
        self.edits.write_bucket(view, at, &mended)?;
        for entry in moving {
            self.insert_entry(view, at.0, entry)?;
        }
        Ok(())
    }

    fn judge(
        &mut self,
        view: &View,
        (dir, number): (Ino, u64),
        entry: &Entry,
    ) -> FsResult<Verdict> {
        let ns = self.ns;
        let path = self.entry_path(dir, &entry.name);
        let at = LinkAt { dir: dir.object(), cookie: cookie_of(number, entry.position) };
        let known = match ns.stored_inode(entry.ino)? {
            Some(inode) => Some(inode),
            None => self.remake(view, at, entry)?,
        };
        let Some(inode) = known else {
            let detail = format!("the name of inode {}, which is gone", entry.ino.0);
            self.note_at(FindingKind::DanglingEntry, entry.ino, path, Fate::Dropped, detail);
            return Ok(Verdict::Goes);
        };
        if ns.names.bucket(&entry.name) != number {
            let detail = "a name in the wrong place of its directory";
            self.note_at(FindingKind::MisplacedEntry, entry.ino, path, Fate::Mended, detail);
            return Ok(Verdict::Moves);
        }
        if inode.is_dir() && !self.is_place_of(view, &inode, at, dir)? {
            let detail = "a second name of a directory";
            self.note_at(FindingKind::Unreachable, entry.ino, path, Fate::Mended, detail);
            return Ok(Verdict::Goes);
        }
        if inode.kind != entry.kind {
            let detail = format!("a name of {:?}, which is {:?}", entry.kind, inode.kind);
            self.note_at(FindingKind::DanglingEntry, entry.ino, path, Fate::Mended, detail);
            return Ok(Verdict::IsOf(inode.kind));
        }
        Ok(Verdict::Stays)
    }

    /// Whether a directory lies where an entry says; one that lies nowhere does from now on.
    fn is_place_of(&mut self, view: &View, inode: &Inode, at: LinkAt, dir: Ino) -> FsResult<bool> {
        if inode.ino == view.root() || inode.ino == dir {
            return Ok(false);
        }
        if inode.home() == at {
            return Ok(true);
        }
        if past_damage(self.ns.name_in(view, inode))?.flatten().is_some() {
            return Ok(false);
        }
        self.adopt(view, inode, at)?;
        Ok(true)
    }

    /// Lets an inode remember where it lies.
    pub(super) fn adopt(&mut self, view: &View, inode: &Inode, at: LinkAt) -> FsResult<()> {
        let parent = view.lift(Ino(at.dir));
        self.touched.extend([inode.ino, parent]);
        self.edits.write_inode(view, &Inode { parent, cookie: at.cookie, ..inode.clone() })
    }

    /// Puts a name where it belongs, if that is free. Without a name, its inode finds a place later.
    fn insert_entry(&mut self, view: &View, dir: Ino, entry: &Entry) -> FsResult<()> {
        let ns = self.ns;
        let number = ns.names.bucket(&entry.name);
        let key = key::head_numbered(view.line, dir, Kind::Dentry, number);
        let found = ns.sound(view, &key)?;
        let decoded = found.as_ref().map(|record| view.bucket(record)).transpose()?;
        let mut bucket = decoded.unwrap_or_default();
        if bucket.find(&entry.name).is_none()
            && bucket.insert(&entry.name, entry.ino, entry.kind).is_some()
        {
            self.edits.write_bucket(view, (dir, number), &bucket)?;
        }
        Ok(())
    }

    /// Gives a file back the names that only its link records have.
    pub(super) fn restore_names(&mut self, view: &View, ino: Ino) -> FsResult<()> {
        let ns = self.ns;
        let inode = ns.stored_inode(ino)?.filter(|inode| !inode.is_dir());
        let Some(inode) = inode else { return Ok(()) };
        ns.for_each_of(view, ino, Some(Kind::Link), &mut |key, value| {
            let Ok((version, record)) = Version::split(value) else { return Ok(()) };
            let at = LinkAt::decode(HeadKey::decode(key)?.sub);
            let (false, Ok(at), Ok(name)) = (version.whiteout, at, link_name(record)) else {
                return Ok(());
            };
            let dir = view.lift(Ino(at.dir));
            let holds = ns.stored_inode(dir)?.is_some_and(|dir| dir.is_dir() && dir.nlink > 0);
            if !holds || ns.names.bucket(name) != bucket_of_cookie(at.cookie) {
                return Ok(());
            }
            let key = key::head_numbered(view.line, dir, Kind::Dentry, bucket_of_cookie(at.cookie));
            let bucket = ns.sound(view, &key)?.and_then(|record| view.bucket(&record).ok());
            if bucket.as_ref().is_some_and(|bucket| bucket.find(name).is_some()) {
                return Ok(());
            }
            let position = position_of_cookie(at.cookie);
            let entry = Entry { position, ino, kind: inode.kind, name: name.to_vec() };
            self.insert_entry(view, dir, &entry)?;
            self.touched.insert(dir);
            let path = self.entry_path(dir, name);
            let detail = "a name that only its link record had";
            self.note_at(FindingKind::LinkRecord, ino, path, Fate::Mended, detail);
            self.commit()
        })
    }

    /// Takes a name away, by its place.
    pub(super) fn remove_entry(&mut self, view: &View, at: LinkAt, object: u64) -> FsResult<()> {
        let (dir, number) = (view.lift(Ino(at.dir)), bucket_of_cookie(at.cookie));
        let key = key::head_numbered(view.line, dir, Kind::Dentry, number);
        let Some(record) = self.ns.sound(view, &key)? else { return Ok(()) };
        let mut bucket = view.bucket(&record)?;
        let position = position_of_cookie(at.cookie);
        bucket.retain(|entry| entry.position != position || entry.ino.object() != object);
        self.touched.insert(dir);
        self.edits.write_bucket(view, (dir, number), &bucket)
    }

    fn entry_path(&self, dir: Ino, name: &[u8]) -> Vec<u8> {
        let mut path = self.ns.path(dir);
        if path.last() != Some(&b'/') {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }
}
