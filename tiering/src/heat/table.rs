//! A bounded hash table of ids whose entries lie close together, so that one can be drawn by chance
//! and all can be walked while others come and go. Grows until its bound and allocates nothing after.

use crate::mix::mix;

/// A free place of the index; others hold a tag in the upper half and an entry's number plus one.
const FREE: u64 = 0;

/// Entries of the first allocation.
const FIRST: usize = 16;

/// Values by id.
#[derive(Debug)]
pub(super) struct Table<V> {
    /// Linear probing, at most half full. The tag decides where a probe begins, so that removal needs
    /// no look at the entries.
    index: Box<[u64]>,
    entries: Vec<(u64, V)>,
    most: usize,
}

impl<V> Table<V> {
    /// Bytes that an entry takes, index included, when the table is full: two to four places of the
    /// index for each.
    pub(super) const ENTRY_BYTES: usize = size_of::<(u64, V)>() + 4 * size_of::<u64>();

    /// For at most `most` entries, at least one.
    pub(super) fn new(most: usize) -> Self {
        Self { index: Box::default(), entries: Vec::new(), most: most.clamp(1, u32::MAX as usize) }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= self.most
    }

    /// Entries when it is full.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Bytes allocated.
    pub(super) fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<(u64, V)>() + self.index.len() * size_of::<u64>()
    }

    /// The number of an entry, which changes when others are removed.
    pub(super) fn find(&self, id: u64) -> Option<usize> {
        self.place(id).map(|(_, entry)| entry)
    }

    /// The entry of a number below [`Table::len`].
    pub(super) fn entry(&self, number: usize) -> Option<&(u64, V)> {
        self.entries.get(number)
    }

    pub(super) fn value_mut(&mut self, number: usize) -> Option<&mut V> {
        self.entries.get_mut(number).map(|(_, value)| value)
    }

    pub(super) fn get(&self, id: u64) -> Option<&V> {
        self.find(id).map(|number| &self.entries[number].1)
    }

    /// Adds an entry that is not there yet, and returns its number; nothing happens when it is full.
    pub(super) fn insert(&mut self, id: u64, value: V) -> Option<usize> {
        debug_assert!(self.find(id).is_none(), "inserted once");
        if self.is_full() {
            return None;
        }
        self.grow();
        let number = self.entries.len();
        self.entries.push((id, value));
        self.link(tag(id), number);
        Some(number)
    }

    /// Removes an entry; the last one takes its number.
    pub(super) fn remove(&mut self, id: u64) -> Option<V> {
        let (place, number) = self.place(id)?;
        self.free(place);
        let last = self.entries.len() - 1;
        if number != last
            && let Some((moved, _)) = self.place(self.entries[last].0)
        {
            self.index[moved] = word(tag(self.entries[last].0), number);
        }
        Some(self.entries.swap_remove(number).1)
    }

    fn mask(&self) -> usize {
        self.index.len() - 1
    }

    fn place(&self, id: u64) -> Option<(usize, usize)> {
        if self.index.is_empty() {
            return None;
        }
        let tag = tag(id);
        let mut at = tag as usize & self.mask();
        loop {
            let found = self.index[at];
            if found == FREE {
                return None;
            }
            if (found >> 32) as u32 == tag {
                let number = (found as u32 - 1) as usize;
                if self.entries[number].0 == id {
                    return Some((at, number));
                }
            }
            at = (at + 1) & self.mask();
        }
    }

    fn link(&mut self, tag: u32, number: usize) {
        let mut at = tag as usize & self.mask();
        while self.index[at] != FREE {
            at = (at + 1) & self.mask();
        }
        self.index[at] = word(tag, number);
    }

    /// Frees a place and moves up what was pushed behind it, so that probes may end at free places.
    fn free(&mut self, place: usize) {
        let mask = self.mask();
        let (mut hole, mut at) = (place, place);
        loop {
            at = (at + 1) & mask;
            let found = self.index[at];
            if found == FREE {
                break;
            }
            let home = (found >> 32) as usize & mask;
            // It may move to the hole unless its home lies behind that.
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.index[hole] = found;
                hole = at;
            }
        }
        self.index[hole] = FREE;
    }

    fn grow(&mut self) {
        if self.entries.len() == self.entries.capacity() {
            let more = self.entries.len().max(FIRST).min(self.most - self.entries.len());
            self.entries.reserve_exact(more);
        }
        if self.index.len() < 2 * (self.entries.len() + 1) {
            let places = (2 * self.entries.capacity()).next_power_of_two();
            self.index = vec![FREE; places].into_boxed_slice();
            for number in 0..self.entries.len() {
                self.link(tag(self.entries[number].0), number);
            }
        }
    }
}

fn tag(id: u64) -> u32 {
    (mix(id) >> 32) as u32
}

fn word(tag: u32, number: usize) -> u64 {
    u64::from(tag) << 32 | (number as u64 + 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::HashMap;

    use super::*;
    use crate::mix::Chance;

    #[test]
    fn it_behaves_like_a_map_of_bounded_size() {
        for seed in 0..20 {
            let mut chance = Chance::new(seed);
            let mut table = Table::new(100);
            let mut model = HashMap::new();
            for _ in 0..3000 {
                let id = chance.below(150 + seed * 50);
                match chance.below(3) {
                    0 => assert_eq!(table.remove(id), model.remove(&id)),
                    _ if model.contains_key(&id) => {
                        let number = table.find(id).unwrap();
                        *table.value_mut(number).unwrap() += 1;
                        *model.get_mut(&id).unwrap() += 1;
                    }
                    _ if model.len() < 100 => {
                        assert!(table.insert(id, id).is_some());
                        model.insert(id, id);
                    }
                    _ => assert!(table.is_full() && table.insert(id, id).is_none()),
                }
                assert_eq!(table.len(), model.len());
                assert_eq!(table.get(id), model.get(&id));
            }
            assert!(model.iter().all(|(&id, value)| table.get(id) == Some(value)));
            assert!(table.bytes() <= 100 * Table::<u64>::ENTRY_BYTES);
        }
    }

    #[test]
    fn a_full_table_allocates_nothing_more() {
        let mut table = Table::new(1000);
        assert!((0..1000).all(|id| table.insert(id, id).is_some()));
        let bytes = table.bytes();
        assert!(bytes <= 1000 * Table::<u64>::ENTRY_BYTES);
        for id in 1000..20_000 {
            table.remove(id - 1000).unwrap();
            table.insert(id, id).unwrap();
        }
        assert_eq!(table.bytes(), bytes);
        assert_eq!(Table::<u64>::new(0).most, 1);
    }
}
