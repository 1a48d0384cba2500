//! How often automatic snapshots are taken, and what each is called: after the hour, day, week or
//! month in which it was due, in UTC. The names alone tell what was taken already.

use crate::utc;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cycle {
    /// Every hour.
    Hourly,
    /// Every day.
    Daily,
    /// Every week, from Monday on.
    Weekly,
    /// Every month.
    Monthly,
}

/// One hour, day, week or month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn {
    cycle: Cycle,
    /// Seconds after 1970 at which it begins.
    start: i64,
}

impl Cycle {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Hourly, Self::Daily, Self::Weekly, Self::Monthly];

    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
        }
    }

    /// The turn that a time lies in, in seconds after 1970.
    pub fn turn(self, secs: i64) -> Turn {
        let day = secs.div_euclid(DAY);
        let start = match self {
            Self::Hourly => secs - secs.rem_euclid(HOUR),
            Self::Daily => day * DAY,
            // The first day of 1970 was a Thursday.
            Self::Weekly => (day - (day + 3).rem_euclid(7)) * DAY,
            Self::Monthly => {
                let (year, month, _) = utc::date(day);
                utc::days(year, month, 1) * DAY
            }
        };
        Turn { cycle: self, start }
    }

    /// By how much a clock may have gone back for what was taken before to count, in seconds. A
    /// snapshot that lies further ahead was taken while the clock was wrong.
    pub(super) const fn patience(self) -> i64 {
        match self {
            Self::Hourly | Self::Daily => DAY,
            Self::Weekly => 7 * DAY,
            Self::Monthly => 31 * DAY,
        }
    }
}

impl Turn {
    /// Its cycle.
    pub const fn cycle(self) -> Cycle {
        self.cycle
    }

    /// When it begins, in seconds after 1970.
    pub const fn start(self) -> i64 {
        self.start
    }

    /// The one after it.
    pub fn next(self) -> Self {
        // The longest month has 31 days, and the middle of the month after is behind them.
        let inside_next = match self.cycle {
            Cycle::Hourly => HOUR,
            Cycle::Daily => DAY,
            Cycle::Weekly => 7 * DAY,
            Cycle::Monthly => 45 * DAY,
        };
        self.cycle.turn(self.start + inside_next)
    }

    /// The name of its snapshot: `auto-hourly-2026-11-21T15:00Z`, `auto-daily-2026-11-21`,
    /// `auto-weekly-2026-11-16`, `auto-monthly-2026-11`.
    pub fn snapshot_name(self) -> String {
        let when = utc::rfc3339(self.start);
        let when = match self.cycle {
            Cycle::Hourly => format!("{}Z", &when[..16]),
            Cycle::Daily | Cycle::Weekly => when[..10].to_owned(),
            Cycle::Monthly => when[..7].to_owned(),
        };
        format!("auto-{}-{when}", self.cycle.name())
    }

    /// The turn of an automatic snapshot; `None` for every other name.
    pub fn of_snapshot(name: &str) -> Option<Self> {
        let rest = name.strip_prefix("auto-")?;
        let (cycle, when) = Cycle::ALL
            .into_iter()
            .find_map(|cycle| Some((cycle, rest.strip_prefix(cycle.name())?.strip_prefix('-')?)))?;
        let number = |range: std::ops::Range<usize>| {
            let digits = when.get(range)?;
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
        };
        let day = if cycle == Cycle::Monthly { 1 } else { number(8..10)? };
        let hour = if cycle == Cycle::Hourly { number(11..13)? } else { 0 };
        let days = utc::days(number(0..4)?, number(5..7)?, day);
        // What is written otherwise, or names no such day, comes out as another name.
        let turn = cycle.turn(days * DAY + hour * HOUR);
        (turn.snapshot_name() == name).then_some(turn)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// 2026-11-21T15:47:06Z, a Saturday.
    const NOW: i64 = 1_795_276_026;

    #[test]
    fn names_say_which_turn_it_was() {
        let names = Cycle::ALL.map(|cycle| cycle.turn(NOW).snapshot_name());
        assert_eq!(
            names,
            [
                "auto-hourly-2026-11-21T15:00Z",
                "auto-daily-2026-11-21",
                "auto-weekly-2026-11-16",
                "auto-monthly-2026-11"
            ]
        );
        for (cycle, name) in Cycle::ALL.into_iter().zip(&names) {
            assert_eq!(Turn::of_snapshot(name), Some(cycle.turn(NOW)));
        }
    }

    #[test]
    fn other_names_are_nobodys() {
        for name in [
            "monday",
            "auto-hourly",
            "auto-hourly-",
            "auto-hourly-2026-11-21T15:30Z",
            "auto-hourly-2026-11-21T25:00Z",
            "auto-hourly-2026-11-21T15:00Z.",
            "auto-daily-2026-11-31",
            "auto-daily-2026-1-21",
            "auto-daily-2026-11-21x",
            "auto-daily-+026-11-21",
            "auto-weekly-2026-11-17",
            "auto-monthly-2026-13",
            "auto-monthly-2026-11-01",
            "auto-yearly-2026",
            "auto-daily-2026-11-2\u{00e4}",
        ] {
            assert_eq!(Turn::of_snapshot(name), None, "{name}");
        }
    }

    #[test]
    fn turns_follow_each_other_without_a_gap() {
        for cycle in Cycle::ALL {
            let mut turn = cycle.turn(NOW);
            for _ in 0..500 {
                let next = turn.next();
                assert!(next.start > turn.start);
                assert_eq!(cycle.turn(next.start), next);
                assert_eq!(cycle.turn(next.start - 1), turn);
                assert_eq!(Turn::of_snapshot(&next.snapshot_name()), Some(next));
                turn = next;
            }
        }
    }
}
