//! Inodes in use: how often the kernel knows each, how often each is open, and the file state of
//! those with content in memory. Sharded by inode number; nothing here waits. An inode that the
//! kernel merely knows takes a byte in `known`; any other use of it makes an entry.

use std::collections::HashMap;
use std::sync::Arc;

use firn_tiering::mix::ByMix;
use parking_lot::Mutex;

use super::known::{CHUNK, Known};
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

    /// There is nothing to say of it but how often the kernel knows it.
    fn is_merely_known(&self) -> bool {
        self.opens == 0 && !self.orphan && self.file.is_none()
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

/// Some of the inodes in use; each is in one of the two.
#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<Ino, Entry, ByMix>,
    known: Known,
}

impl Shard {
    /// The entry of an inode, made when it has none.
    fn entry(&mut self, ino: Ino) -> &mut Entry {
        let Self { entries, known } = self;
        entries.entry(ino).or_insert_with(|| {
            let lookups = known.count(ino);
            known.set(ino, 0);
            Entry { lookups, ..Entry::default() }
        })
    }

    /// Keeps of an entry that says nothing else how often the kernel knows the inode.
    fn settle(&mut self, ino: Ino) {
        let Some(entry) = self.entries.get(&ino) else { return };
        if entry.is_merely_known() && self.known.set(ino, entry.lookups) {
            self.entries.remove(&ino);
        }
    }

    fn lookups(&self, ino: Ino) -> u64 {
        self.entries.get(&ino).map_or_else(|| self.known.count(ino), |entry| entry.lookups)
    }
}

/// All inodes in use.
#[derive(Debug)]
pub(super) struct Table {
    shards: Vec<Mutex<Shard>>,
}

impl Default for Table {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl Table {
    fn shard(&self, ino: Ino) -> &Mutex<Shard> {
        &self.shards[(ino.0 / CHUNK % SHARDS as u64) as usize]
    }

    /// The kernel knows the inode once more.
    pub(super) fn look_up(&self, ino: Ino) {
        let mut shard = self.shard(ino).lock();
        if let Some(entry) = shard.entries.get_mut(&ino) {
            entry.lookups += 1;
            return;
        }
        let count = shard.known.count(ino) + 1;
        if !shard.known.set(ino, count) {
            shard.entry(ino).lookups = count;
        }
    }

    /// The kernel forgets `count` times.
    pub(super) fn forget(&self, ino: Ino, count: u64) -> Last {
        let mut shard = self.shard(ino).lock();
        if !shard.entries.contains_key(&ino) {
            let left = shard.known.count(ino).saturating_sub(count);
            shard.known.set(ino, left);
            return Last::Nothing;
        }
        Self::leave(&mut shard, ino, |entry| entry.lookups = entry.lookups.saturating_sub(count))
    }

    /// Opens the inode; `load` gives its attributes when no file state is in memory.
    pub(super) fn open(
        &self,
        ino: Ino,
        load: impl FnOnce() -> FsResult<Attr>,
    ) -> FsResult<Arc<FileNode>> {
        let mut shard = self.shard(ino).lock();
        let file = Self::file_in(&mut shard, ino, load)?;
        shard.entry(ino).opens += 1;
        Ok(file)
    }

    /// One handle less.
    pub(super) fn close(&self, ino: Ino) -> Last {
        let mut shard = self.shard(ino).lock();
        Self::leave(&mut shard, ino, |entry| entry.opens = entry.opens.saturating_sub(1))
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
        shard: &mut Shard,
        ino: Ino,
        load: impl FnOnce() -> FsResult<Attr>,
    ) -> FsResult<Arc<FileNode>> {
        if let Some(file) = shard.entries.get(&ino).and_then(|entry| entry.file.as_ref()) {
            return Ok(Arc::clone(file));
        }
        let file = FileNode::new(&load()?);
        shard.entry(ino).file = Some(Arc::clone(&file));
        Ok(file)
    }

    /// The file state, if it is in memory.
    pub(super) fn loaded(&self, ino: Ino) -> Option<Arc<FileNode>> {
        self.shard(ino).lock().entries.get(&ino).and_then(|entry| entry.file.clone())
    }

    /// Whether the content of a file may be another one than the committed one.
    pub(super) fn is_changing(&self, ino: Ino) -> bool {
        self.loaded(ino).is_some_and(|file| file.is_changing())
    }

    /// The inode lost its last name.
    pub(super) fn orphaned(&self, ino: Ino) -> Last {
        let mut shard = self.shard(ino).lock();
        let entry = shard.entry(ino);
        if !entry.is_unused() {
            entry.orphan = true;
            return Last::Nothing;
        }
        if let Some(file) = &entry.file {
            file.drop_content();
        }
        shard.entries.remove(&ino);
        Last::Purge
    }

    fn leave(shard: &mut Shard, ino: Ino, change: impl FnOnce(&mut Entry)) -> Last {
        let Some(entry) = shard.entries.get_mut(&ino) else { return Last::Nothing };
        change(entry);
        let last = if entry.is_unused() && entry.orphan {
            if let Some(file) = entry.file.take() {
                file.drop_content();
            }
            shard.entries.remove(&ino);
            Last::Purge
        } else {
            entry.drop_clean_file();
            Last::Nothing
        };
        shard.settle(ino);
        last
    }

    /// Drops file state that nobody uses and that holds nothing of its own.
    pub(super) fn evict_clean(&self) {
        for shard in &self.shards {
            let Shard { entries, known } = &mut *shard.lock();
            entries.retain(|ino, entry| {
                entry.drop_clean_file();
                !(entry.is_merely_known() && known.set(*ino, entry.lookups))
            });
        }
    }

    /// Gives up file state of inodes that are gone with their dataset or snapshot; returns those
    /// that the kernel knows.
    pub(super) fn drop_gone(&self, is_gone: impl Fn(Ino) -> bool) -> Vec<Ino> {
        let mut gone = Vec::new();
        for shard in &self.shards {
            let Shard { entries, known } = &mut *shard.lock();
            for (&ino, entry) in entries.iter_mut().filter(|(ino, _)| is_gone(**ino)) {
                if let Some(file) = entry.file.take() {
                    file.drop_content();
                }
                if entry.lookups > 0 {
                    gone.push(ino);
                }
            }
            gone.extend(known.iter().filter(|ino| is_gone(*ino)));
        }
        gone
    }

    /// Whether the kernel knows an inode.
    pub(super) fn is_known(&self, ino: Ino) -> bool {
        self.shard(ino).lock().lookups(ino) > 0
    }

    /// Inodes in use, for tests.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let len = |shard: &Mutex<Shard>| {
            let shard = shard.lock();
            shard.entries.len() + shard.known.iter().count()
        };
        self.shards.iter().map(len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INO: Ino = Ino(77);

    /// One inode that the kernel looked up so often.
    fn known(lookups: u64) -> Table {
        let table = Table::default();
        (0..lookups).for_each(|_| table.look_up(INO));
        table
    }

    #[test]
    fn the_kernel_forgets_what_it_looked_up_however_often_that_was() {
        for lookups in [1, 2, 255, 256, 1000] {
            let table = known(lookups);
            assert_eq!((table.len(), table.is_known(INO)), (1, true));
            assert_eq!(table.forget(INO, lookups - 1), Last::Nothing);
            assert!(table.is_known(INO), "{lookups}");
            assert_eq!(table.forget(INO, 1), Last::Nothing);
            assert_eq!((table.len(), table.is_known(INO)), (0, false));
        }
    }

    #[test]
    fn what_lost_its_name_goes_when_the_kernel_forgets_it() {
        for lookups in [1, 3, 300] {
            let table = known(lookups);
            assert_eq!(table.orphaned(INO), Last::Nothing);
            table.look_up(INO);
            assert_eq!(table.forget(INO, lookups), Last::Nothing);
            assert_eq!(table.forget(INO, 1), Last::Purge);
            assert_eq!(table.len(), 0);
        }
        assert_eq!(known(0).orphaned(INO), Last::Purge);
    }

    #[test]
    fn an_open_file_that_is_closed_takes_no_more_than_before() {
        let table = known(2);
        table.shard(INO).lock().entry(INO).opens += 1;
        assert_eq!(table.forget(INO, 1), Last::Nothing);
        assert_eq!(table.shard(INO).lock().entries.len(), 1);
        assert_eq!(table.close(INO), Last::Nothing);
        assert_eq!(table.shard(INO).lock().entries.len(), 0);
        assert_eq!((table.len(), table.is_known(INO)), (1, true));
        assert_eq!(table.drop_gone(|ino| ino == INO), [INO]);
    }
}
