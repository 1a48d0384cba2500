//! Inodes in use: how often the kernel knows each, how often each is open, and the file state of
//! those with content in memory. Sharded by inode number; nothing here waits.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::FsResult;
use crate::file::node::FileNode;
use crate::types::{Attr, Ino};

const SHARDS: usize = 64;

/// One inode in use.
#[derive(Debug, Default)]
struct Entry {
    lookups: u64,
    opens: u64,
    orphan: bool,
    file: Option<Arc<FileNode>>,
}

impl Entry {
    fn is_unused(&self) -> bool {
        self.lookups == 0 && self.opens == 0
    }

    /// Nobody else holds the file, and nothing of it is only in memory.
    fn drop_clean_file(&mut self) {
        let clean = self.file.as_ref().is_some_and(|file| {
            Arc::strong_count(file) == 1 && {
                let state = file.state.read();
                state.gone || !state.is_dirty()
            }
        });
        if clean && self.opens == 0 {
            self.file = None;
        }
    }
}

/// What the last user of an inode must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Last {
    /// Nothing.
    Nothing,
    /// The inode has no name either: purge it.
    Purge,
}

/// All inodes in use.
#[derive(Debug)]
pub(super) struct Table {
    shards: Vec<Mutex<HashMap<Ino, Entry>>>,
}

impl Default for Table {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl Table {
    fn shard(&self, ino: Ino) -> &Mutex<HashMap<Ino, Entry>> {
        &self.shards[(ino.0 % SHARDS as u64) as usize]
    }

    /// The kernel knows the inode once more.
    pub(super) fn look_up(&self, ino: Ino) {
        self.shard(ino).lock().entry(ino).or_default().lookups += 1;
    }

    /// The kernel forgets `count` times.
    pub(super) fn forget(&self, ino: Ino, count: u64) -> Last {
        self.leave(ino, |entry| entry.lookups = entry.lookups.saturating_sub(count))
    }

    /// Opens the inode; `load` gives its attributes when no file state is in memory.
    pub(super) fn open(
        &self,
        ino: Ino,
        load: impl FnOnce() -> FsResult<Attr>,
    ) -> FsResult<Arc<FileNode>> {
        let mut shard = self.shard(ino).lock();
        let file = Self::file_in(&mut shard, ino, load)?;
        shard.entry(ino).or_default().opens += 1;
        Ok(file)
    }

    /// One handle less.
    pub(super) fn close(&self, ino: Ino) -> Last {
        self.leave(ino, |entry| entry.opens = entry.opens.saturating_sub(1))
    }

    /// The file state of an inode that need not be open.
    pub(super) fn file(
        &self,
        ino: Ino,
        load: impl FnOnce() -> FsResult<Attr>,
    ) -> FsResult<Arc<FileNode>> {
        Self::file_in(&mut self.shard(ino).lock(), ino, load)
    }

    fn file_in(
        shard: &mut HashMap<Ino, Entry>,
        ino: Ino,
        load: impl FnOnce() -> FsResult<Attr>,
    ) -> FsResult<Arc<FileNode>> {
        if let Some(file) = shard.get(&ino).and_then(|entry| entry.file.as_ref()) {
            return Ok(Arc::clone(file));
        }
        let file = FileNode::new(&load()?);
        shard.entry(ino).or_default().file = Some(Arc::clone(&file));
        Ok(file)
    }

    /// The file state, if it is in memory.
    pub(super) fn loaded(&self, ino: Ino) -> Option<Arc<FileNode>> {
        self.shard(ino).lock().get(&ino).and_then(|entry| entry.file.clone())
    }

    /// Whether the content of a file may be another one than the committed one.
    pub(super) fn is_changing(&self, ino: Ino) -> bool {
        self.loaded(ino).is_some_and(|file| file.is_changing())
    }

    /// The inode lost its last name.
    pub(super) fn orphaned(&self, ino: Ino) -> Last {
        let mut shard = self.shard(ino).lock();
        match shard.get_mut(&ino) {
            Some(entry) if !entry.is_unused() => {
                entry.orphan = true;
                Last::Nothing
            }
            Some(entry) => {
                if let Some(file) = &entry.file {
                    file.drop_content();
                }
                shard.remove(&ino);
                Last::Purge
            }
            None => Last::Purge,
        }
    }

    fn leave(&self, ino: Ino, change: impl FnOnce(&mut Entry)) -> Last {
        let mut shard = self.shard(ino).lock();
        let Some(entry) = shard.get_mut(&ino) else { return Last::Nothing };
        change(entry);
        let last = if entry.is_unused() && entry.orphan {
            if let Some(file) = entry.file.take() {
                file.drop_content();
            }
            Last::Purge
        } else {
            entry.drop_clean_file();
            Last::Nothing
        };
        if entry.is_unused() && entry.file.is_none() {
            shard.remove(&ino);
        }
        last
    }

    /// Drops file state that nobody uses and that holds nothing of its own.
    pub(super) fn evict_clean(&self) {
        for shard in &self.shards {
            shard.lock().retain(|_, entry| {
                entry.drop_clean_file();
                !(entry.is_unused() && entry.file.is_none())
            });
        }
    }

    /// Gives up file state of inodes that are gone with their dataset or snapshot; returns those
    /// that the kernel knows.
    pub(super) fn drop_gone(&self, is_gone: impl Fn(Ino) -> bool) -> Vec<Ino> {
        let mut known = Vec::new();
        for shard in &self.shards {
            for (&ino, entry) in shard.lock().iter_mut().filter(|(ino, _)| is_gone(**ino)) {
                if let Some(file) = entry.file.take() {
                    file.drop_content();
                }
                if entry.lookups > 0 {
                    known.push(ino);
                }
            }
        }
        known
    }

    /// Whether the kernel knows an inode.
    pub(super) fn is_known(&self, ino: Ino) -> bool {
        self.shard(ino).lock().get(&ino).is_some_and(|entry| entry.lookups > 0)
    }

    /// Inodes in use, for tests.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}
