//! Decoded inodes in memory, at most so many, thrown out second-chance.
//!
//! A reader that missed may only insert what it read when no writer published to the same shard
//! in between; otherwise it could bring back an older state for good.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use firn_tiering::mix::ByMix;
use parking_lot::Mutex;

use super::record::Inode;
use crate::types::Ino;

const SHARDS: usize = 16;

#[derive(Debug)]
pub(super) struct InodeCache {
    shards: Box<[Mutex<Shard>]>,
    shard_capacity: usize,
}

#[derive(Debug, Default)]
struct Shard {
    inodes: HashMap<u64, Cached, ByMix>,
    queue: VecDeque<u64>,
    published: u64,
}

#[derive(Debug)]
struct Cached {
    inode: Arc<Inode>,
    used: bool,
}

/// The state of a shard when a lookup missed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Missed(u64);

impl InodeCache {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            shard_capacity: capacity.div_ceil(SHARDS).max(1),
        }
    }

    fn shard(&self, ino: Ino) -> &Mutex<Shard> {
        &self.shards[(ino.0 % SHARDS as u64) as usize]
    }

    pub(super) fn get(&self, ino: Ino) -> Result<Arc<Inode>, Missed> {
        let mut shard = self.shard(ino).lock();
        let missed = Missed(shard.published);
        let cached = shard.inodes.get_mut(&ino.0).ok_or(missed)?;
        cached.used = true;
        Ok(Arc::clone(&cached.inode))
    }

    /// Keeps what a reader found in the store after it missed.
    pub(super) fn insert(&self, inode: Arc<Inode>, missed: Missed) {
        let mut shard = self.shard(inode.ino).lock();
        if shard.published == missed.0 {
            shard.put(inode, self.shard_capacity);
        }
    }

    /// Keeps what a writer committed.
    pub(super) fn publish(&self, inode: Arc<Inode>) {
        let mut shard = self.shard(inode.ino).lock();
        shard.published += 1;
        shard.put(inode, self.shard_capacity);
    }

    /// Forgets an inode that a writer removed.
    pub(super) fn remove(&self, ino: Ino) {
        let mut shard = self.shard(ino).lock();
        shard.published += 1;
        // Its place in the queue is dropped when it comes up.
        shard.inodes.remove(&ino.0);
    }

    /// Forgets all inodes of views that are gone.
    pub(super) fn retain(&self, keep: impl Fn(Ino) -> bool) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.published += 1;
            shard.inodes.retain(|&ino, _| keep(Ino(ino)));
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.published += 1;
            shard.inodes.clear();
            shard.queue.clear();
        }
    }
}

impl Shard {
    fn put(&mut self, inode: Arc<Inode>, capacity: usize) {
        let ino = inode.ino.0;
        if let Some(cached) = self.inodes.get_mut(&ino) {
            cached.inode = inode;
            cached.used = true;
            return;
        }
        // Removed inodes leave their places behind; the queue is bounded all the same.
        while self.inodes.len() >= capacity || self.queue.len() >= capacity * 2 {
            let Some(oldest) = self.queue.pop_front() else { break };
            match self.inodes.get_mut(&oldest) {
                Some(cached) if cached.used => {
                    cached.used = false;
                    self.queue.push_back(oldest);
                }
                Some(_) => {
                    self.inodes.remove(&oldest);
                }
                None => {}
            }
        }
        self.inodes.insert(ino, Cached { inode, used: false });
        self.queue.push_back(ino);
    }
}
