//! The blocks that both ends remember: the last so many that were sent, in the order in which they
//! were.

use std::collections::{HashMap, VecDeque};

use firn_tiering::BlockId;

/// What the sender remembers: which blocks the receiver has.
#[derive(Debug)]
pub(super) struct SentBlocks {
    window: u64,
    next: u64,
    numbers: HashMap<BlockId, u64>,
    order: VecDeque<BlockId>,
}

impl SentBlocks {
    pub(super) fn new(window: u64) -> Self {
        Self { window, next: 0, numbers: HashMap::new(), order: VecDeque::new() }
    }

    /// The number of a block that the receiver still has.
    pub(super) fn number(&self, block: BlockId) -> Option<u64> {
        self.numbers.get(&block).copied()
    }

    /// A block is sent.
    pub(super) fn push(&mut self, block: BlockId) {
        self.numbers.insert(block, self.next);
        self.order.push_back(block);
        self.next += 1;
        if self.order.len() as u64 > self.window
            && let Some(oldest) = self.order.pop_front()
        {
            self.numbers.remove(&oldest);
        }
    }

    /// How many are remembered.
    pub(super) fn window(&self) -> u64 {
        self.window
    }
}

/// What the receiver remembers.
#[derive(Debug)]
pub(super) struct ReceivedBlocks<T> {
    window: u64,
    next: u64,
    blocks: VecDeque<T>,
}

impl<T> ReceivedBlocks<T> {
    pub(super) fn new(window: u64) -> Self {
        Self { window, next: 0, blocks: VecDeque::new() }
    }

    /// A block has come.
    pub(super) fn push(&mut self, block: T) {
        self.blocks.push_back(block);
        self.next += 1;
        if self.blocks.len() as u64 > self.window {
            self.blocks.pop_front();
        }
    }

    /// The block of a number.
    pub(super) fn get(&self, number: u64) -> Option<&T> {
        let first = self.next - self.blocks.len() as u64;
        self.blocks.get(usize::try_from(number.checked_sub(first)?).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_remember_the_same() {
        let (mut sent, mut received) = (SentBlocks::new(3), ReceivedBlocks::new(3));
        for at in 0..10_u64 {
            sent.push(BlockId::from_raw(at));
            received.push(at);
            for block in 0..=at {
                let number = sent.number(BlockId::from_raw(block));
                assert_eq!(number.is_some(), block + 3 > at);
                assert_eq!(received.get(block).copied(), number);
            }
            assert_eq!(received.get(at + 1), None);
        }
    }
}
