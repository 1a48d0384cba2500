//! How many names inodes have, and link records against the entries that they stand for.

use super::walk::if_there;
use super::{Check, FindingKind, Object};
use crate::error::FsResult;
use crate::namespace::key::{self, HeadKey, Kind, LinkAt};
use crate::namespace::names::{bucket_of_cookie, cookie_of, position_of_cookie};
use crate::namespace::record::{Bucket, Entry, Inode, InodeFlags, Version, link_name};
use crate::types::{FileKind, Ino};

impl Check<'_> {
    /// A link record against its entry.
    pub(super) fn link(&mut self, head: &HeadKey<'_>, record: &[u8]) -> FsResult<()> {
        self.object(|object| object.links += 1);
        let (at, name) = match (LinkAt::decode(head.sub), link_name(record)) {
            (Ok(at), Ok(name)) => (at, name),
            (Err(error), _) | (_, Err(error)) => {
                self.damaged(head, error.reason);
                return Ok(());
            }
        };
        let number = bucket_of_cookie(at.cookie);
        let key = key::head_numbered(self.view.line, Ino(at.dir), Kind::Dentry, number);
        let bucket =
            self.namespace.sound(&self.view, &key)?.and_then(|record| Bucket::decode(&record).ok());
        let position = position_of_cookie(at.cookie);
        let entry = bucket.as_ref().and_then(|b| b.at(position, head.object.object()));
        if entry.is_none_or(|entry| entry.name != name) {
            let (name, dir) = (String::from_utf8_lossy(name), at.dir);
            let detail = format!("a link record without its name: {name:?} in directory {dir}");
            self.report.suspects.add(self.view.lift(Ino(dir)));
            self.finding(FindingKind::LinkRecord, head.object, detail);
        }
        Ok(())
    }

    /// An entry against the link record that its file must have for it.
    pub(super) fn linked_entry(
        &mut self,
        (dir, number): (Ino, u64),
        entry: &Entry,
        inode: &Inode,
    ) -> FsResult<()> {
        if !inode.flags.has(InodeFlags::LINKS) {
            return Ok(());
        }
        let at = LinkAt { dir: dir.object(), cookie: cookie_of(number, entry.position) };
        let record =
            self.namespace.sound(&self.view, &key::head_link(self.view.line, inode.ino, at))?;
        let name = record.as_ref().and_then(|record| link_name(record).ok());
        if name != Some(&entry.name[..]) {
            let detail = "a name without its link record";
            self.entry_finding(FindingKind::LinkRecord, dir, entry, detail);
        }
        Ok(())
    }

    /// The link records of an object against its inode.
    pub(super) fn finish_links(&mut self, object: &Object, inode: &Inode) -> FsResult<()> {
        let ino = object.ino;
        let has_links = inode.flags.has(InodeFlags::LINKS);
        let expected = if has_links { u64::from(inode.nlink) } else { 0 };
        if !object.damaged && object.links != expected {
            let detail = format!("{expected} link records expected, found {}", object.links);
            self.finding(FindingKind::LinkRecord, ino, detail);
        }
        if !has_links {
            return Ok(());
        }
        if inode.is_dir() || inode.nlink < 2 {
            let detail = format!("link records where the inode says {} names", inode.nlink);
            self.finding(FindingKind::LinkRecord, ino, detail);
        } else if if_there(self.namespace.name_in_parent(inode))?.flatten().is_none() {
            let detail = "it has link records, but remembers a name that it has not";
            self.finding(FindingKind::LinkRecord, ino, detail);
        }
        Ok(())
    }

    /// Names of the inodes from number `base` on; returns the first number behind the window.
    pub(super) fn link_counts(&mut self, base: u64, window: usize) -> FsResult<Option<u64>> {
        let window = window.min((self.highest - base + 1) as usize);
        let mut next: Option<u64> = None;
        let mut names = vec![0_u32; window];
        let mut expected = vec![None; window];
        self.namespace.for_each_shown(&self.view, &mut |key, value| {
            let (Ok(head), Ok((version, record))) = (HeadKey::decode(key), Version::split(value))
            else {
                return Ok(());
            };
            if version.whiteout {
                return Ok(());
            }
            let at = |ino: Ino| {
                ino.object().checked_sub(base).map(|at| at as usize).filter(|&at| at < window)
            };
            match head.kind {
                Kind::Inode => {
                    let object = head.object.object();
                    if (base + window as u64..=self.highest).contains(&object) {
                        // Numbers that were received may be far apart.
                        next = Some(next.map_or(object, |next| next.min(object)));
                    }
                    if let (Some(at), Ok(inode)) =
                        (at(head.object), Inode::decode(head.object, version, record))
                    {
                        expected[at] = Some(names_of(&inode, self.view.root()));
                    }
                }
                Kind::Dentry => {
                    let bucket = Bucket::decode(record).unwrap_or_default();
                    for at in bucket.entries().iter().filter_map(|entry| at(entry.ino)) {
                        names[at] = names[at].saturating_add(1);
                    }
                }
                Kind::Symlink | Kind::Xattr | Kind::Extent | Kind::Link => {}
            }
            Ok(())
        })?;
        for (at, (found, expected)) in names.into_iter().zip(expected).enumerate() {
            if let Some(expected) = expected.filter(|&expected| expected != found) {
                let detail = format!("the inode says {expected} names, found {found}");
                let ino = self.view.lift(Ino(base + at as u64));
                self.finding(FindingKind::LinkCount, ino, detail);
            }
        }
        Ok(next)
    }
}

/// How many entries name an inode.
fn names_of(inode: &Inode, root: Ino) -> u32 {
    match inode.kind {
        FileKind::Directory => u32::from(inode.nlink != 0 && inode.ino.object() != root.object()),
        _ => inode.nlink,
    }
}
