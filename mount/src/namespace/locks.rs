//! Locks of inodes: a fixed number of stripes, always taken in the order of their numbers.

use parking_lot::{Mutex, MutexGuard};

use crate::types::Ino;

const STRIPES: usize = 1024;

#[derive(Debug)]
pub(super) struct Stripes(Box<[Mutex<()>]>);

/// Holds the locks of some inodes until it is dropped.
#[derive(Debug)]
pub struct InodeGuard<'a> {
    held: Vec<(usize, MutexGuard<'a, ()>)>,
}

fn stripe_of(ino: Ino) -> usize {
    // Fibonacci hashing spreads neighbours over all stripes.
    (ino.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - STRIPES.trailing_zeros())) as usize
}

impl Stripes {
    pub(super) fn new() -> Self {
        Self((0..STRIPES).map(|_| Mutex::new(())).collect())
    }

    pub(super) fn lock(&self, inodes: &[Ino]) -> InodeGuard<'_> {
        let mut wanted: Vec<usize> = inodes.iter().map(|&ino| stripe_of(ino)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        InodeGuard { held: wanted.into_iter().map(|at| (at, self.0[at].lock())).collect() }
    }

    /// Adds another inode to a guard if that needs no wait, or only one in the right order;
    /// `false` when it could deadlock.
    pub(super) fn extend<'a>(&'a self, guard: &mut InodeGuard<'a>, ino: Ino) -> bool {
        let at = stripe_of(ino);
        if guard.held.iter().any(|(held, _)| *held == at) {
            return true;
        }
        let last = guard.held.iter().map(|(held, _)| *held).max();
        let lock = &self.0[at];
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
