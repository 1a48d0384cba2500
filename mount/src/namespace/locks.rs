//! The locks of the namespace: one for the version tree, and a fixed number of stripes for
//! inodes, always taken in the order of their numbers.
//!
//! A change holds the tree's lock shared before its stripes, so that whoever holds it alone sees
//! no change half done.

use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::types::Ino;

const STRIPES: usize = 1024;

#[derive(Debug)]
pub(super) struct Locks {
    tree: RwLock<()>,
    stripes: Box<[Mutex<()>]>,
}

/// Holds the locks of some inodes until it is dropped.
#[derive(Debug)]
pub struct InodeGuard<'a> {
    held: Vec<(usize, MutexGuard<'a, ()>)>,
    _tree: RwLockReadGuard<'a, ()>,
}

/// Keeps the version tree as it is and every change out until it is dropped.
#[derive(Debug)]
pub(super) struct TreeGuard<'a> {
    _alone: RwLockWriteGuard<'a, ()>,
}

fn stripe_of(ino: Ino) -> usize {
    // Fibonacci hashing spreads neighbours over all stripes. All views of an object share one.
    (ino.object().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - STRIPES.trailing_zeros())) as usize
}

impl Locks {
    pub(super) fn new() -> Self {
        Self { tree: RwLock::new(()), stripes: (0..STRIPES).map(|_| Mutex::new(())).collect() }
    }

    /// Waits for all changes and keeps new ones out.
    pub(super) fn alone(&self) -> TreeGuard<'_> {
        TreeGuard { _alone: self.tree.write() }
    }

    pub(super) fn lock(&self, inodes: &[Ino]) -> InodeGuard<'_> {
        let mut wanted: Vec<usize> = inodes.iter().map(|&ino| stripe_of(ino)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let tree = self.tree.read();
        let held = wanted.into_iter().map(|at| (at, self.stripes[at].lock())).collect();
        InodeGuard { held, _tree: tree }
    }

    /// Lets others have the stripes of a guard for a moment, and nobody the tree.
    pub(super) fn give_turn<'a>(&'a self, guard: &mut InodeGuard<'a>) {
        let mut wanted: Vec<usize> = guard.held.drain(..).map(|(at, _)| at).collect();
        wanted.sort_unstable();
        guard.held.extend(wanted.into_iter().map(|at| (at, self.stripes[at].lock())));
    }

    /// Adds another inode to a guard if that needs no wait, or only one in the right order;
    /// `false` when it could deadlock.
    pub(super) fn extend<'a>(&'a self, guard: &mut InodeGuard<'a>, ino: Ino) -> bool {
        let at = stripe_of(ino);
        if guard.held.iter().any(|(held, _)| *held == at) {
            return true;
        }
        let last = guard.held.iter().map(|(held, _)| *held).max();
        let lock = &self.stripes[at];
        let taken =
            if last.is_none_or(|last| last < at) { Some(lock.lock()) } else { lock.try_lock() };
        match taken {
            Some(taken) => {
                guard.held.push((at, taken));
                true
            }
            None => false,
        }
    }
}
