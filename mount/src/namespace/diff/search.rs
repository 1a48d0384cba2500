//! Finding a name of a changed file that lost the one it remembers, while others stayed as they
//! were: first where it lay last, and only then everywhere. Only a file of an older volume, which has
//! no link records, can have lost it.

use std::collections::{BTreeMap, BTreeSet};

use super::compare::{Comparison, Link};
use super::{ChangeKind, Difference};
use crate::error::FsResult;
use crate::namespace::Namespace;
use crate::namespace::key::{self, HeadKey, Kind};
use crate::namespace::pair::bucket;
use crate::namespace::tree::View;
use crate::types::{FileKind, Ino};

/// Records read at once.
const PAGE: usize = 256;

/// A changed file of which no name is known yet.
#[derive(Debug)]
pub(super) struct Unnamed {
    pub(super) kind: FileKind,
    /// The object of the directory in which it lay last.
    pub(super) near: Ino,
    pub(super) before: Option<Vec<u8>>,
}

impl Comparison<'_> {
    /// Passes on what changed under names that are still to be found; `false` when nobody wants
    /// more.
    pub(super) fn tell_unnamed(&mut self) -> FsResult<bool> {
        let unnamed = std::mem::take(&mut self.unnamed);
        if unnamed.is_empty() {
            return Ok(true);
        }
        let view = self.pair.newer;
        let mut wanted: BTreeSet<u64> = unnamed.keys().copied().collect();
        let mut found = BTreeMap::new();
        let near: BTreeSet<Ino> = unnamed.values().map(|unnamed| unnamed.near).collect();
        for dir in near {
            let from = key::head(view.line, dir, Kind::Dentry);
            let end = key::head_end(view.line, dir, Kind::Dentry);
            self.names.find_links(&view, (&from, &end), &mut wanted, &mut found)?;
        }
        let (from, end) = (key::line(view.line), key::line_end(view.line));
        self.names.find_links(&view, (&from, &end), &mut wanted, &mut found)?;
        for (object, Unnamed { kind, before, .. }) in unnamed {
            let after = match found.get(&object) {
                Some(link) => self.names.path_of_link(&view, link)?,
                None => None,
            };
            let ino = view.lift(Ino(object));
            let change = ChangeKind::Modified;
            if !self.pass(&Difference { change, kind, ino, before, after }) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Namespace {
    /// Looks for entries of wanted objects in a range of keys, until nothing is wanted.
    fn find_links(
        &self,
        view: &View,
        (from, end): (&[u8], &[u8]),
        wanted: &mut BTreeSet<u64>,
        found: &mut BTreeMap<u64, Link>,
    ) -> FsResult<()> {
        let mut next = Some(from.to_vec());
        while let Some(from) = next.filter(|_| !wanted.is_empty()) {
            let page = self.scan(view, &from, end, PAGE)?;
            for item in &page.items {
                let head = HeadKey::decode(&item.key)?;
                if head.kind != Kind::Dentry {
                    continue;
                }
                for entry in bucket(Some(item))?.entries() {
                    if wanted.remove(&entry.ino.0) {
                        let link = Link { dir: head.object, name: entry.name.clone() };
                        found.insert(entry.ino.0, link);
                    }
                }
            }
            next = page.next;
        }
        Ok(())
    }
}
