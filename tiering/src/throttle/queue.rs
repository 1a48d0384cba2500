//! Who waits, in order of priority. Each class that waits is sure of a small share: of every byte
//! that another one is admitted with, it is credited a thirty-second, and with enough of that for
//! its first request it goes before its turn.

use std::collections::VecDeque;

use super::{Kind, Priority};

/// The share of other classes' bytes that a waiting class is credited, as a divisor.
const SHARE: u64 = 32;

/// Requests worth of credit that a class may save up.
const MOST_CREDIT: u64 = 8;

/// A request that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) id: u64,
    pub(super) priority: Priority,
    pub(super) kind: Kind,
    pub(super) bytes: u64,
    pub(super) cost: u64,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    classes: [VecDeque<Waiting>; Priority::ALL.len()],
    credit: [u64; Priority::ALL.len()],
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.classes.iter().map(VecDeque::len).sum()
    }

    pub(super) fn waiting(&self, priority: Priority) -> usize {
        self.classes[priority.index()].len()
    }

    pub(super) fn push(&mut self, waiting: Waiting) {
        self.classes[waiting.priority.index()].push_back(waiting);
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, id: u64) -> bool {
        let mut found = false;
        for class in &mut self.classes {
            let before = class.len();
            class.retain(|waiting| waiting.id != id);
            found |= class.len() < before;
        }
        found
    }

    pub(super) fn contains(&self, id: u64) -> bool {
        self.classes.iter().flatten().any(|waiting| waiting.id == id)
    }

    /// The first of a class.
    pub(super) fn first(&self, priority: Priority) -> Option<Waiting> {
        self.classes[priority.index()].front().copied()
    }

    /// Whether a class may go before its turn.
    pub(super) fn has_credit(&self, waiting: &Waiting) -> bool {
        self.credit[waiting.priority.index()] >= waiting.cost
    }

    /// Whose turn it is among the background classes.
    pub(super) fn next_background(&self) -> Option<Waiting> {
        let firsts = || Priority::ALL[1..].iter().filter_map(|priority| self.first(*priority));
        // Of those that may go before their turn the one that was passed over longest.
        let credit = |waiting: &Waiting| self.credit[waiting.priority.index()];
        let passed_over =
            firsts().rev().filter(|waiting| self.has_credit(waiting)).max_by_key(credit);
        passed_over.or_else(|| firsts().next())
    }

    /// Takes out the first of a class, which goes; the other classes are credited.
    pub(super) fn take(&mut self, priority: Priority) -> Option<Waiting> {
        let taken = self.classes[priority.index()].pop_front()?;
        for (index, class) in self.classes.iter().enumerate() {
            match class.front() {
                _ if index == priority.index() => {
                    self.credit[index] = self.credit[index].saturating_sub(taken.cost);
                }
                Some(first) => {
                    let more = self.credit[index] + taken.cost / SHARE;
                    self.credit[index] = more.min(first.cost.saturating_mul(MOST_CREDIT));
                }
                None => self.credit[index] = 0,
            }
        }
        Some(taken)
    }
}
