//! What is to be done now: a pure function of the time, the counts and the snapshots there are.

use super::Keep;
use super::cycle::{Cycle, Turn};

/// A snapshot that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Existing {
    /// Its name, without the dataset's.
    pub name: String,
    /// It is held or has clones.
    pub in_use: bool,
}

/// What is to be done to one dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Snapshots to be taken.
    pub take: Vec<Turn>,
    /// Names of automatic snapshots that are not to be kept any more. Those that are to be taken
    /// are not counted yet: destroy when they are there.
    pub destroy: Vec<String>,
    /// When the next one is due, in seconds after 1970.
    pub next_due: Option<i64>,
}

/// Plans for one dataset at `now`, in seconds after 1970.
///
/// Of each cycle the snapshot of the current turn is due, unless it is there or one of a later turn
/// is, which a clock that went back has left. Turns that went by meanwhile are not made up for.
/// Of turns up to the current one the newest are kept, as many as `keep` says; later ones are left
/// alone. A snapshot in use stays until it is not.
pub fn plan(now: i64, keep: &Keep, existing: &[Existing]) -> Plan {
    let mut plan = Plan::default();
    for cycle in Cycle::ALL {
        let Some(count) = keep.of(cycle) else { continue };
        let current = cycle.turn(now);
        let mut taken: Vec<(Turn, &Existing)> = existing
            .iter()
            .filter_map(|snapshot| Some((Turn::of_snapshot(&snapshot.name)?, snapshot)))
            .filter(|(turn, _)| turn.cycle() == cycle)
            .collect();
        let late = current.start() + cycle.patience();
        let covers_now = |turn: &Turn| (current.start()..=late).contains(&turn.start());
        if count > 0 {
            let is_taken = taken.iter().any(|(turn, _)| covers_now(turn));
            let due = if is_taken { current.next() } else { current };
            plan.next_due = Some(plan.next_due.map_or(due.start(), |next| next.min(due.start())));
            if !is_taken {
                plan.take.push(current);
            }
        }
        taken.retain(|(turn, _)| turn.start() <= current.start());
        taken.sort_by_key(|(turn, _)| std::cmp::Reverse(turn.start()));
        let old = taken.into_iter().skip(count as usize);
        let unused = old.filter(|(_, snapshot)| !snapshot.in_use);
        plan.destroy.extend(unused.map(|(_, snapshot)| snapshot.name.clone()));
    }
    plan
}

#[cfg(test)]
mod tests;
