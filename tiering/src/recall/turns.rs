//! Whose turn it is: a queue that is fair between users, whoever has how much in it.
//!
//! Users with something waiting take turns, one each; within a user it is first come, first
//! served. The last lane moves only when nothing in the first can. Pure bookkeeping: whoever owns
//! it brings the lock and does the waiting.

use std::collections::{HashMap, VecDeque};

/// Who comes before whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Everybody.
    First,
    /// Who has to stand back.
    Last,
}

/// What waits and what runs.
#[derive(Debug)]
pub struct Turns<T> {
    width: usize,
    per_user: usize,
    running: HashMap<u32, usize>,
    total: usize,
    lanes: [Waiting<T>; 2],
}

#[derive(Debug)]
struct Waiting<T> {
    /// Users with something waiting, whoever had his turn longest ago first.
    order: VecDeque<u32>,
    queues: HashMap<u32, VecDeque<T>>,
    count: usize,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { order: VecDeque::new(), queues: HashMap::new(), count: 0 }
    }
}

impl<T> Waiting<T> {
    fn push(&mut self, user: u32, item: T) {
        let queue = self.queues.entry(user).or_default();
        if queue.is_empty() {
            self.order.push_back(user);
        }
        queue.push_back(item);
        self.count += 1;
    }

    fn pop(&mut self, may: impl Fn(u32) -> bool) -> Option<(u32, T)> {
        let index = self.order.iter().position(|user| may(*user))?;
        let user = self.order.remove(index)?;
        let queue = self.queues.get_mut(&user)?;
        let item = queue.pop_front()?;
        self.count -= 1;
        if queue.is_empty() {
            self.queues.remove(&user);
        } else {
            self.order.push_back(user);
        }
        Some((user, item))
    }

    fn remove(&mut self, user: u32, is_it: impl Fn(&T) -> bool) -> Option<T> {
        let queue = self.queues.get_mut(&user)?;
        let item = queue.remove(queue.iter().position(is_it)?);
        if queue.is_empty() {
            self.queues.remove(&user);
            self.order.retain(|other| *other != user);
        }
        self.count -= usize::from(item.is_some());
        item
    }
}

impl<T> Turns<T> {
    /// Nothing waits; up to `width` may run, of one user up to `per_user`.
    pub fn new(width: usize, per_user: usize) -> Self {
        Self {
            width,
            per_user,
            running: HashMap::new(),
            total: 0,
            lanes: [Waiting::default(), Waiting::default()],
        }
    }

    /// Other bounds from now on; what runs beyond them runs on.
    pub fn set(&mut self, width: usize, per_user: usize) {
        (self.width, self.per_user) = (width, per_user);
    }

    /// Puts `item` at the end of its user's queue.
    pub fn push(&mut self, user: u32, lane: Lane, item: T) {
        self.lanes[lane as usize].push(user, item);
    }

    /// What may run now, if anything may; it counts as running until [`Turns::leave`].
    pub fn take_turn(&mut self) -> Option<(u32, T)> {
        if self.total >= self.width {
            return None;
        }
        let (running, per_user) = (&self.running, self.per_user);
        let may = |user: u32| running.get(&user).copied().unwrap_or(0) < per_user;
        let (user, item) = self.lanes.iter_mut().find_map(|lane| lane.pop(may))?;
        *self.running.entry(user).or_default() += 1;
        self.total += 1;
        Some((user, item))
    }

    /// Something of `user` has ended.
    pub fn leave(&mut self, user: u32) {
        if let Some(count) = self.running.get_mut(&user) {
            *count -= 1;
            self.total -= 1;
            if *count == 0 {
                self.running.remove(&user);
            }
        }
    }

    /// Takes out something of `user` that waits.
    pub fn remove(&mut self, user: u32, lane: Lane, is_it: impl Fn(&T) -> bool) -> Option<T> {
        self.lanes[lane as usize].remove(user, is_it)
    }

    /// How many run.
    pub fn running(&self) -> usize {
        self.total
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.lanes.iter().map(|lane| lane.count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(turns: &mut Turns<u32>) -> Vec<u32> {
        std::iter::from_fn(|| turns.take_turn().map(|(_, item)| item)).collect()
    }

    #[test]
    fn users_take_turns_whoever_came_first() {
        let mut turns = Turns::new(usize::MAX, usize::MAX);
        (0..4).for_each(|n| turns.push(1, Lane::First, 100 + n));
        (0..2).for_each(|n| turns.push(2, Lane::First, 200 + n));
        turns.push(3, Lane::First, 300);
        assert_eq!(drain(&mut turns), [100, 200, 300, 101, 201, 102, 103]);
        assert_eq!((turns.running(), turns.waiting()), (7, 0));
    }

    #[test]
    fn bounds_hold_for_all_and_for_each() {
        let mut turns = Turns::new(3, 2);
        (0..4).for_each(|n| turns.push(1, Lane::First, 100 + n));
        assert_eq!(drain(&mut turns), [100, 101], "one user");
        (0..4).for_each(|n| turns.push(2, Lane::First, 200 + n));
        assert_eq!(drain(&mut turns), [200], "all users");
        turns.leave(2);
        assert_eq!(drain(&mut turns), [201], "the first user still runs two");
        turns.leave(1);
        assert_eq!(drain(&mut turns), [102], "whoever had no turn for longest");
        turns.set(5, 5);
        assert_eq!(drain(&mut turns), [202, 103]);
        turns.leave(7);
        assert_eq!(turns.running(), 5, "nobody of that user runs");
    }

    #[test]
    fn the_last_lane_moves_when_the_first_cannot() {
        let mut turns = Turns::new(10, 2);
        turns.push(1, Lane::Last, 1);
        (0..3).for_each(|n| turns.push(2, Lane::First, 20 + n));
        assert_eq!(drain(&mut turns), [20, 21, 1], "the first lane's user is at his bound");
    }

    #[test]
    fn what_was_taken_out_leaves_no_trace() {
        let mut turns = Turns::new(10, 10);
        turns.push(1, Lane::First, 10);
        turns.push(1, Lane::First, 11);
        assert_eq!(turns.remove(1, Lane::First, |n| *n == 10), Some(10));
        assert_eq!(turns.remove(1, Lane::First, |n| *n == 10), None);
        assert_eq!(turns.remove(1, Lane::First, |n| *n == 11), Some(11));
        assert_eq!((turns.waiting(), turns.take_turn()), (0, None));
        turns.push(1, Lane::First, 12);
        assert_eq!(drain(&mut turns), [12]);
    }
}
