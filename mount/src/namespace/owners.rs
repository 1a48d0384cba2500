//! Who refers to a block, and what a file is called: for liveness, for error logs, for `check`.

use std::collections::BTreeSet;

use firn_tiering::BlockId;

use super::Namespace;
use super::key::{self, Backref, Kind, Node};
use super::names::{bucket_of_cookie, position_of_cookie};
use super::record::{Bucket, Inode, RecordError};
use super::store::{Space, prefix_end};
use super::tree::View;
use crate::error::FsResult;
use crate::types::Ino;

/// Deepest path that is resolved; a longer one is taken for a loop.
const MAX_DEPTH: usize = 4096;

/// One file that holds bytes of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// The file.
    pub ino: Ino,
    /// Which MiB of it.
    pub slot: u64,
}

impl Namespace {
    /// Whether any extent, of any version, refers to the block.
    pub fn is_referenced(&self, block: BlockId) -> FsResult<bool> {
        Ok(!self.backrefs(block, None, 1)?.is_empty())
    }

    /// Back-references of a block behind `after`, at most `limit` at a time.
    pub fn backrefs(
        &self,
        block: BlockId,
        after: Option<Backref>,
        limit: usize,
    ) -> FsResult<Vec<Backref>> {
        let prefix = key::backrefs_of(block);
        let from = match after {
            Some(after) => {
                let mut from = after.encode().to_vec();
                from.push(0);
                from
            }
            None => prefix.to_vec(),
        };
        let end = prefix_end(&prefix);
        let page = self.gate.store().page(Space::Backrefs, &from, end.as_deref(), limit)?;
        Ok(page.items.iter().map(|(key, _)| Backref::decode(key)).collect::<Result<_, _>>()?)
    }

    /// The blocks among `dropped` to which nothing refers.
    pub(super) fn without_references(&self, mut dropped: Vec<BlockId>) -> FsResult<Vec<BlockId>> {
        dropped.sort_unstable();
        dropped.dedup();
        let mut lost = Vec::new();
        for block in dropped {
            if !self.is_referenced(block)? {
                lost.push(block);
            }
        }
        Ok(lost)
    }

    /// The first `limit` files that hold bytes of a block.
    pub fn owners(&self, block: BlockId, limit: usize) -> FsResult<Vec<Owner>> {
        // A hold, which comes first, is nobody's.
        let found = self.backrefs(block, None, limit.saturating_add(1))?;
        let owners: BTreeSet<_> = found
            .into_iter()
            .filter(|found| !found.is_hold())
            .take(limit)
            .map(|found| Owner { ino: self.shown(found.node, found.ino), slot: found.slot })
            .collect();
        Ok(owners.into_iter().collect())
    }

    /// Passes the files that hold bytes of a block now, not only in a snapshot, to `visit` until it
    /// returns `false`. At most about `limit` references are looked at; whether those were all. What
    /// clones show of their origin is not among them; see [`Namespace::has_clones`].
    pub fn for_each_live_owner(
        &self,
        block: BlockId,
        limit: usize,
        visit: &mut dyn FnMut(Ino) -> bool,
    ) -> FsResult<bool> {
        const PAGE: usize = 64;
        let mut seen = BTreeSet::new();
        let (mut looked, mut after) = (0, None);
        loop {
            let page = self.backrefs(block, after, PAGE)?;
            for found in &page {
                let ino = self.shown(found.node, found.ino);
                if self.is_live(ino)
                    && !seen.contains(&ino)
                    && self.holds(ino, found.slot, block)?
                {
                    seen.insert(ino);
                    if !visit(ino) {
                        return Ok(true);
                    }
                }
            }
            looked += page.len();
            if page.len() < PAGE {
                return Ok(true);
            }
            if looked >= limit {
                return Ok(false);
            }
            after = page.last().copied();
        }
    }

    fn holds(&self, ino: Ino, slot: u64, block: BlockId) -> FsResult<bool> {
        let page = self.slots(ino, slot, slot + 1, 1)?;
        let mut pieces = page.slots.iter().flat_map(|(_, record)| &record.pieces);
        Ok(pieces.any(|piece| piece.block().is_some_and(|found| found.id == block)))
    }

    /// Whether any dataset began as a clone, and may show what another wrote.
    pub fn has_clones(&self) -> bool {
        self.tree.read().lines.values().any(|line| line.origin.is_some())
    }

    /// The directories that an inode lies in, the nearest first, across datasets up to the root of
    /// the mount; of a file with several names those of one.
    pub fn directories_above(&self, ino: Ino) -> FsResult<Vec<Ino>> {
        let mut above = Vec::new();
        let mut at = ino;
        while above.len() < MAX_DEPTH {
            if at == self.view(at)?.root() {
                let Some(junction) = self.junction_above(at)? else { break };
                at = junction;
            }
            let Some(inode) = self.find_inode(at)? else { break };
            at = inode.parent;
            above.push(at);
        }
        Ok(above)
    }

    /// An object of a version that `node` wrote, in a view that may show it.
    pub(super) fn shown(&self, node: Node, object: Ino) -> Ino {
        let tree = self.tree.read();
        let Some(line) = tree.line_of(node) else { return object };
        let seen = tree.snapshots.range(node..).find(|(_, record)| record.line == line);
        let view = tree.live_view(line).or_else(|| tree.snapshot_view(*seen?.0));
        view.map_or(object, |view| view.lift(object))
    }

    /// A path of an inode from the root of the mount, for people: `/a/b`; of a file with several
    /// names one of them if it is known, otherwise `<inode N>`.
    pub fn path(&self, ino: Ino) -> Vec<u8> {
        self.known_path(ino)
            .ok()
            .flatten()
            .unwrap_or_else(|| format!("<inode {}>", ino.0).into_bytes())
    }

    fn known_path(&self, ino: Ino) -> FsResult<Option<Vec<u8>>> {
        self.path_up(ino, true)
    }

    /// The path of an inode below the root of its own dataset or snapshot, if it is known.
    pub(super) fn path_within(&self, ino: Ino) -> FsResult<Option<Vec<u8>>> {
        self.path_up(ino, false)
    }

    fn path_up(&self, ino: Ino, across: bool) -> FsResult<Option<Vec<u8>>> {
        let mut names = Vec::new();
        let mut at = ino;
        loop {
            if at == self.view(at)?.root() {
                // On in the dataset above; a snapshot's paths begin at its own root.
                match self.junction_above(at)? {
                    Some(junction) if across => at = junction,
                    _ => break,
                }
            }
            if names.len() >= MAX_DEPTH {
                return Ok(None);
            }
            let Some(inode) = self.find_inode(at)? else { return Ok(None) };
            let Some(name) = self.name_in_parent(&inode)? else { return Ok(None) };
            names.push(name);
            at = inode.parent;
        }
        if names.is_empty() {
            return Ok(Some(b"/".to_vec()));
        }
        let mut path = Vec::new();
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        Ok(Some(path))
    }

    /// The name under which the inode's own record says that it lies in its parent.
    pub(super) fn name_in_parent(&self, inode: &Inode) -> FsResult<Option<Vec<u8>>> {
        self.name_in(&self.view(inode.parent)?, inode)
    }

    /// [`Namespace::name_in_parent`] in a view, whose number the inode need not have.
    pub(super) fn name_in(&self, view: &View, inode: &Inode) -> FsResult<Option<Vec<u8>>> {
        let number = bucket_of_cookie(inode.cookie);
        let key = key::head_numbered(view.line, inode.parent, Kind::Dentry, number);
        let Some((version, record)) = self.read(view, &key)? else { return Ok(None) };
        if version.whiteout {
            return Ok(None);
        }
        let bucket = Bucket::decode(&record)?;
        let entry = bucket.at(position_of_cookie(inode.cookie), inode.ino.object());
        Ok(entry.map(|entry| entry.name.clone()))
    }

    /// Whether `dir` is `ancestor` or lies below it.
    pub(super) fn is_within(&self, dir: Ino, ancestor: Ino) -> FsResult<bool> {
        let mut at = dir;
        let root = self.view(dir)?.root();
        for _ in 0..MAX_DEPTH * 16 {
            if at == ancestor {
                return Ok(true);
            }
            if at == root {
                return Ok(false);
            }
            at = self.inode(at)?.parent;
        }
        Err(RecordError::new("inodes", "directories form a loop").into())
    }
}
