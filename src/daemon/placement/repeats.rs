//! Moves that were planned a moment ago and are planned again, unchanged: whatever kept them from
//! having an effect, such as blocks that a pinned file has as well, is still there. They rest.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use firn_tiering::mix::ByMix;

use crate::policy::planner::{Move, MoveAction};

/// How long a move rests that is planned as it was.
const REST: Duration = Duration::from_secs(600);

/// Moves that are remembered; beyond that all are forgotten.
const MOST: usize = 200_000;

/// What was planned lately.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    planned: HashMap<u64, (MoveAction, u64, Instant), ByMix>,
}

impl Repeats {
    /// Keeps those moves that are new or have rested.
    pub(super) fn drop_from(&mut self, moves: &mut Vec<Move>, now: Instant) {
        let rests = |at: Instant| now.saturating_duration_since(at) < REST;
        self.planned.retain(|_, (_, _, at)| rests(*at));
        moves.retain(|one| match self.planned.get(&one.ino) {
            Some((action, bytes, _)) => (*action, *bytes) != (one.action, one.bytes),
            None => true,
        });
    }

    /// Notes moves that are under way now. One for which there was no room among the jobs is none:
    /// nothing has kept it from having an effect.
    pub(super) fn note<'a>(&mut self, moves: impl IntoIterator<Item = &'a Move>, now: Instant) {
        for one in moves {
            if self.planned.len() >= MOST {
                self.planned.clear();
            }
            self.planned.insert(one.ino, (one.action, one.bytes, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use firn_tiering::{Clock, ManualClock};

    fn demote(ino: u64, bytes: u64) -> Move {
        Move {
            ino,
            path: Vec::new(),
            action: MoveAction::Demote,
            bytes,
            transfer_bytes: 0,
            requests: 0,
            cost: 0.0,
            rule: None,
            why: String::new(),
        }
    }

    #[test]
    fn a_move_that_came_to_nothing_rests_and_another_one_does_not() {
        let clock = ManualClock::new();
        let mut repeats = Repeats::default();
        let mut planned = |moves: &[Move], are_queued: bool| {
            let mut moves = moves.to_vec();
            repeats.drop_from(&mut moves, clock.instant());
            if are_queued {
                repeats.note(&moves, clock.instant());
            }
            moves.iter().map(|one| one.ino).collect::<Vec<_>>()
        };
        assert_eq!(planned(&[demote(1, 10)], false), [1]);
        let mut kept = |moves: &[Move]| planned(moves, true);
        assert_eq!(kept(&[demote(1, 10), demote(2, 10)]), [1, 2]);
        // Of the second, less is left.
        assert_eq!(kept(&[demote(1, 10), demote(2, 5)]), [2]);
        let promote = Move { action: MoveAction::Promote, ..demote(1, 10) };
        assert_eq!(kept(&[promote]), [1]);
        clock.advance(REST);
        assert_eq!(kept(&[demote(2, 5)]), [2]);
        assert_eq!(kept(&[demote(2, 5)]), Vec::<u64>::new());
    }
    #[test]
    fn what_is_remembered_is_bounded() {
        let now = ManualClock::new().instant();
        let mut repeats = Repeats::default();
        let moves: Vec<Move> = (0..MOST as u64).map(|ino| demote(ino, 10)).collect();
        repeats.note(&moves, now);
        assert_eq!(repeats.planned.len(), MOST);
        repeats.note([&demote(MOST as u64, 10)], now);
        assert_eq!(repeats.planned.len(), 1, "all are forgotten but the last");
    }
}
