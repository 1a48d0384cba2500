//! The files of a simulated volume: each whole in hot, in cold, or in both.

use std::collections::HashMap;

use firn_tiering::mix::ByMix;

/// A file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct File {
    /// Bytes that it takes.
    pub(super) size: u64,
    pub(super) owner: u32,
    pub(super) in_hot: bool,
    pub(super) in_cold: bool,
    /// When its content was changed, as far as the trace tells.
    pub(super) written_ms: u64,
    /// Reads of it in cold since `counted_from_ms`.
    pub(super) cold_reads: u32,
    pub(super) counted_from_ms: u64,
    /// Its place in the deck of its tier.
    slot: usize,
}

/// Items of one tier, in no order, passed by in turns.
#[derive(Debug, Default)]
struct Deck {
    items: Vec<u64>,
    hand: usize,
}

impl Deck {
    /// At most so many, going on where the last call ended.
    fn next(&mut self, most: usize) -> Vec<u64> {
        let count = most.min(self.items.len());
        let start = if self.hand < self.items.len() { self.hand } else { 0 };
        self.hand = start + count;
        self.items.iter().cycle().skip(start).take(count).copied().collect()
    }
}

/// All files, and what they take together.
#[derive(Debug, Default)]
pub(super) struct Files {
    all: HashMap<u64, File, ByMix>,
    hot: Deck,
    away: Deck,
    hot_bytes: u64,
    hot_only_bytes: u64,
}

impl Files {
    pub(super) fn get(&self, item: u64) -> Option<&File> {
        self.all.get(&item)
    }

    /// Bytes in hot.
    pub(super) fn hot_bytes(&self) -> u64 {
        self.hot_bytes
    }

    /// Bytes in hot and nowhere else.
    pub(super) fn hot_only_bytes(&self) -> u64 {
        self.hot_only_bytes
    }

    /// Files in hot.
    pub(super) fn hot_count(&self) -> usize {
        self.hot.items.len()
    }

    /// At most so many files in hot, others each time.
    pub(super) fn some_hot(&mut self, most: usize) -> Vec<u64> {
        self.hot.next(most)
    }

    /// As [`Files::some_hot`], of those that are in cold only.
    pub(super) fn some_away(&mut self, most: usize) -> Vec<u64> {
        self.away.next(most)
    }

    /// Changes a file, or makes one.
    pub(super) fn change(&mut self, item: u64, change: impl FnOnce(&mut File)) {
        let mut file = self.take(item).unwrap_or_default();
        change(&mut file);
        let (deck, bytes) = self.deck_of(&file);
        file.slot = deck.items.len();
        deck.items.push(item);
        *bytes += if file.in_hot { file.size } else { 0 };
        self.hot_only_bytes += file.only_in_hot();
        self.all.insert(item, file);
    }

    /// Takes a file out.
    pub(super) fn take(&mut self, item: u64) -> Option<File> {
        let file = self.all.remove(&item)?;
        let (deck, bytes) = self.deck_of(&file);
        *bytes -= if file.in_hot { file.size } else { 0 };
        deck.items.swap_remove(file.slot);
        let moved = deck.items.get(file.slot).copied();
        if let Some(moved) = moved.and_then(|moved| self.all.get_mut(&moved)) {
            moved.slot = file.slot;
        }
        self.hot_only_bytes -= file.only_in_hot();
        Some(file)
    }

    fn deck_of(&mut self, file: &File) -> (&mut Deck, &mut u64) {
        let deck = if file.in_hot { &mut self.hot } else { &mut self.away };
        (deck, &mut self.hot_bytes)
    }
}

impl File {
    fn only_in_hot(&self) -> u64 {
        if self.in_hot && !self.in_cold { self.size } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_turns_follow_what_changes() {
        let mut files = Files::default();
        for item in 0..10 {
            files.change(item, |file| *file = File { size: item, in_hot: true, ..*file });
        }
        assert_eq!((files.hot_bytes(), files.hot_only_bytes(), files.hot_count()), (45, 45, 10));
        let mut seen = [files.some_hot(4), files.some_hot(6)].concat();
        seen.sort_unstable();
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
        for item in 0..5 {
            files.change(item, |file| file.in_cold = true);
        }
        assert_eq!((files.hot_bytes(), files.hot_only_bytes()), (45, 35));
        for item in 0..5 {
            files.change(item, |file| file.in_hot = false);
        }
        assert_eq!((files.hot_bytes(), files.hot_count()), (35, 5));
        assert_eq!(files.some_away(100).len(), 5);
        files.take(9);
        files.take(0);
        assert_eq!(files.take(9), None);
        assert_eq!(
            (files.hot_bytes(), files.hot_only_bytes(), files.some_away(9).len()),
            (26, 26, 4)
        );
        for item in 1..9 {
            files.take(item);
        }
        assert_eq!((files.hot_bytes(), files.hot_only_bytes(), files.some_hot(1).len()), (0, 0, 0));
    }
}
