//! Queues of items in one arena: an item is in at most one of them, and is found, moved and removed
//! in constant time. What LRU and S3-FIFO are made of.

use std::collections::HashMap;

use crate::mix::ByMix;

/// No slot.
const NONE: u32 = u32::MAX;

/// What is kept of an item in a queue.
#[derive(Clone, Copy, Debug)]
struct Node {
    item: u64,
    bytes: u64,
    /// Towards the front.
    before: u32,
    /// Towards the back.
    behind: u32,
    list: u8,
    /// For the strategy; 0 when the item is first put in.
    uses: u8,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    front: u32,
    back: u32,
    bytes: u64,
    len: usize,
}

/// `N` queues, each from a front to a back.
#[derive(Clone, Debug)]
pub(super) struct Lists<const N: usize> {
    slots: HashMap<u64, u32, ByMix>,
    nodes: Vec<Node>,
    free: Vec<u32>,
    ends: [Ends; N],
}

impl<const N: usize> Lists<N> {
    pub(super) fn new() -> Self {
        Self {
            slots: HashMap::default(),
            nodes: Vec::new(),
            free: Vec::new(),
            ends: [Ends { front: NONE, back: NONE, bytes: 0, len: 0 }; N],
        }
    }

    /// In which queue the item is.
    pub(super) fn list_of(&self, item: u64) -> Option<usize> {
        self.slots.get(&item).map(|&slot| usize::from(self.nodes[slot as usize].list))
    }

    /// Sum of the sizes in a queue.
    pub(super) fn bytes(&self, list: usize) -> u64 {
        self.ends[list].bytes
    }

    /// Items in a queue.
    pub(super) fn len(&self, list: usize) -> usize {
        self.ends[list].len
    }

    /// The item at the back of a queue, with its number of uses.
    pub(super) fn back(&self, list: usize) -> Option<(u64, u8)> {
        let slot = self.ends[list].back;
        self.nodes.get(slot as usize).map(|node| (node.item, node.uses))
    }

    /// Puts an item at the front of a queue, out of whichever it was in; uses begin at 0 for an item
    /// that was in none. Without effect beyond 2^32 items.
    pub(super) fn push_front(&mut self, list: usize, item: u64, bytes: u64) {
        let slot = match self.slots.get(&item) {
            Some(&slot) => {
                self.unlink(slot);
                slot
            }
            None => match self.new_slot(item) {
                Some(slot) => slot,
                None => return,
            },
        };
        self.nodes[slot as usize].bytes = bytes;
        self.link_front(list, slot);
    }

    /// Moves an item that is in some queue to the front of `list`.
    pub(super) fn move_front(&mut self, list: usize, item: u64) {
        if let Some(&slot) = self.slots.get(&item) {
            self.unlink(slot);
            self.link_front(list, slot);
        }
    }

    /// Changes the size of an item where it stands.
    pub(super) fn resize(&mut self, item: u64, bytes: u64) {
        if let Some(&slot) = self.slots.get(&item) {
            let node = &mut self.nodes[slot as usize];
            let ends = &mut self.ends[usize::from(node.list)];
            ends.bytes = ends.bytes - node.bytes + bytes;
            node.bytes = bytes;
        }
    }

    /// Changes the number of uses of an item.
    pub(super) fn set_uses(&mut self, item: u64, change: impl FnOnce(u8) -> u8) {
        if let Some(&slot) = self.slots.get(&item) {
            let node = &mut self.nodes[slot as usize];
            node.uses = change(node.uses);
        }
    }

    /// Takes an item out.
    pub(super) fn remove(&mut self, item: u64) {
        if let Some(slot) = self.slots.remove(&item) {
            self.unlink(slot);
            self.free.push(slot);
        }
    }

    fn new_slot(&mut self, item: u64) -> Option<u32> {
        let node = Node { item, bytes: 0, before: NONE, behind: NONE, list: 0, uses: 0 };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.nodes[slot as usize] = node;
                slot
            }
            None => {
                let slot = u32::try_from(self.nodes.len()).ok().filter(|&slot| slot != NONE)?;
                self.nodes.push(node);
                slot
            }
        };
        self.slots.insert(item, slot);
        Some(slot)
    }

    fn link_front(&mut self, list: usize, slot: u32) {
        let front = self.ends[list].front;
        let node = &mut self.nodes[slot as usize];
        (node.before, node.behind, node.list) = (NONE, front, list as u8);
        let ends = &mut self.ends[list];
        ends.bytes += node.bytes;
        ends.len += 1;
        ends.front = slot;
        match front {
            NONE => ends.back = slot,
            front => self.nodes[front as usize].before = slot,
        }
    }

    fn unlink(&mut self, slot: u32) {
        let Node { before, behind, list, bytes, .. } = self.nodes[slot as usize];
        let ends = &mut self.ends[usize::from(list)];
        ends.bytes -= bytes;
        ends.len -= 1;
        match before {
            NONE => ends.front = behind,
            before => self.nodes[before as usize].behind = behind,
        }
        match behind {
            NONE => self.ends[usize::from(list)].back = before,
            behind => self.nodes[behind as usize].before = before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(lists: &mut Lists<2>, list: usize) -> Vec<u64> {
        std::iter::from_fn(|| {
            let (item, _) = lists.back(list)?;
            lists.remove(item);
            Some(item)
        })
        .collect()
    }

    #[test]
    fn items_leave_in_order_and_bytes_follow() {
        let mut lists = Lists::<2>::new();
        for item in 1..=5 {
            lists.push_front(0, item, item * 10);
        }
        lists.move_front(1, 3);
        lists.push_front(0, 2, 25);
        lists.resize(5, 1);
        lists.set_uses(1, |uses| uses + 1);
        assert_eq!((lists.bytes(0), lists.len(0)), (10 + 40 + 25 + 1, 4));
        assert_eq!((lists.bytes(1), lists.len(1)), (30, 1));
        assert_eq!(lists.back(0), Some((1, 1)));
        assert_eq!((lists.list_of(3), lists.list_of(9)), (Some(1), None));
        lists.remove(4);
        assert_eq!(drain(&mut lists, 0), [1, 5, 2]);
        assert_eq!(drain(&mut lists, 1), [3]);
        assert_eq!((lists.bytes(0), lists.bytes(1)), (0, 0));
        lists.push_front(1, 7, 1);
        assert_eq!((lists.back(1), lists.nodes.len()), (Some((7, 0)), 5));
    }
}
