//! How often the kernel knows each inode, in a byte for most: one mount may know tens of millions,
//! nearly all of them once, and their numbers lie close together.

use std::collections::HashMap;

use firn_tiering::mix::ByMix;

use crate::types::Ino;

/// Inodes whose counts lie side by side.
pub(super) const CHUNK: u64 = 64;

/// Counts of inodes that follow each other.
#[derive(Debug)]
struct Chunk {
    counts: [u8; CHUNK as usize],
    /// How many of them are not 0.
    used: u8,
}

impl Default for Chunk {
    fn default() -> Self {
        Self { counts: [0; CHUNK as usize], used: 0 }
    }
}

/// Small counts of inodes.
#[derive(Debug, Default)]
pub(super) struct Known(HashMap<u64, Chunk, ByMix>);

impl Known {
    pub(super) fn count(&self, ino: Ino) -> u64 {
        let chunk = self.0.get(&(ino.0 / CHUNK));
        chunk.map_or(0, |chunk| u64::from(chunk.counts[(ino.0 % CHUNK) as usize]))
    }

    /// Takes in a count, or says that it is too large.
    pub(super) fn set(&mut self, ino: Ino, count: u64) -> bool {
        let Ok(count) = u8::try_from(count) else { return false };
        let (key, at) = (ino.0 / CHUNK, (ino.0 % CHUNK) as usize);
        if count == 0 && !self.0.contains_key(&key) {
            return true;
        }
        let chunk = self.0.entry(key).or_default();
        let before = std::mem::replace(&mut chunk.counts[at], count);
        chunk.used = chunk.used + u8::from(count > 0) - u8::from(before > 0);
        if chunk.used == 0 {
            self.0.remove(&key);
            self.shrink();
        }
        true
    }

    /// Gives memory back once most of it is empty: the kernel forgets by the million.
    fn shrink(&mut self) {
        if self.0.capacity() > 64 && self.0.len() * 4 < self.0.capacity() {
            self.0.shrink_to(self.0.len() * 2);
        }
    }

    /// Every inode that is known.
    pub(super) fn iter(&self) -> impl Iterator<Item = Ino> {
        self.0.iter().flat_map(|(key, chunk)| {
            let known = (0..CHUNK).filter(|at| chunk.counts[*at as usize] > 0);
            known.map(move |at| Ino(key * CHUNK + at))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_come_and_go_and_take_no_room_afterwards() {
        let mut known = Known::default();
        let inodes = [Ino(0), Ino(1), Ino(63), Ino(64), Ino(u64::MAX)];
        for (ino, count) in inodes.into_iter().zip([1, 2, 255, 7, 1]) {
            assert!(known.set(ino, count));
            assert_eq!(known.count(ino), count);
        }
        assert!(!known.set(Ino(63), 256), "it does not fit");
        assert_eq!(known.count(Ino(63)), 255);
        let mut all: Vec<Ino> = known.iter().collect();
        all.sort_unstable();
        assert_eq!(all, inodes);
        for ino in inodes {
            assert!(known.set(ino, 0));
            assert_eq!(known.count(ino), 0);
        }
        assert!(known.set(Ino(5), 0));
        assert_eq!(known.iter().count() + known.0.len(), 0);
    }

    #[test]
    fn memory_comes_back_when_the_kernel_forgets() {
        let mut known = Known::default();
        (0..100_000).for_each(|ino| assert!(known.set(Ino(ino), 1)));
        let full = known.0.capacity();
        (0..100_000).for_each(|ino| assert!(known.set(Ino(ino), 0)));
        assert!(known.0.capacity() * 8 < full, "{} of {full}", known.0.capacity());
    }
}
