//! Which rate cap holds at which time of the day: `08:00 50MiB/s, 20:00 off`. An entry holds from
//! its time until the next one's, the last of a day until the first of the next.

use std::fmt;
use std::str::FromStr;

/// Seconds of a day.
const DAY: u32 = 86_400;

/// Lowest cap in bytes per second: a segment of 64 MiB must pass within its deadline.
const MIN_RATE: u64 = 512 << 10;

/// Rate caps by time of the day; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timetable {
    /// Second of the day and cap in bytes per second, in order of time.
    entries: Vec<(u32, Option<u64>)>,
}

/// Why a timetable was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimetableError {
    /// Not a time followed by a rate.
    #[error("{0:?} is not a time and a rate, as in `08:00 50MiB/s` or `20:00 off`")]
    Entry(String),
    /// Two entries for one time.
    #[error("{0:02}:{1:02} stands twice")]
    Twice(u32, u32),
    /// A rate that is too low.
    #[error("{0} bytes per second are less than {MIN_RATE}: write `off` for no cap")]
    TooLow(u64),
    /// Too many entries.
    #[error("more than {} entries", Timetable::MAX_ENTRIES)]
    TooMany,
}

impl Timetable {
    /// Most entries; more than one for each quarter of an hour is a mistake.
    pub const MAX_ENTRIES: usize = 96;

    /// The same cap, in bytes per second, at all times.
    pub fn always(rate: u64) -> Result<Self, TimetableError> {
        Self::new([(0, Some(rate))])
    }

    /// From pairs of second of the day and cap in bytes per second.
    pub fn new(
        entries: impl IntoIterator<Item = (u32, Option<u64>)>,
    ) -> Result<Self, TimetableError> {
        let mut entries: Vec<_> = entries.into_iter().take(Self::MAX_ENTRIES + 1).collect();
        if entries.len() > Self::MAX_ENTRIES {
            return Err(TimetableError::TooMany);
        }
        entries.sort_unstable();
        for (at, rate) in &entries {
            if *at >= DAY {
                return Err(TimetableError::Entry(format!("second {at} of the day")));
            }
            if let Some(rate) = rate.filter(|rate| *rate < MIN_RATE) {
                return Err(TimetableError::TooLow(rate));
            }
        }
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(TimetableError::Twice(pair[0].0 / 3600, pair[0].0 / 60 % 60));
        }
        Ok(Self { entries })
    }

    /// The cap at a second of the day; `None` is no cap.
    pub fn cap_at(&self, second_of_day: u32) -> Option<u64> {
        let before = self.entries.iter().rev().find(|(at, _)| *at <= second_of_day % DAY);
        before.or(self.entries.last()).and_then(|(_, rate)| *rate)
    }

    /// Seconds from a second of the day until the next entry begins; `None` without entries.
    pub fn next_change(&self, second_of_day: u32) -> Option<u32> {
        let now = second_of_day % DAY;
        let next = self.entries.iter().map(|(at, _)| *at).find(|at| *at > now);
        match (next, self.entries.first()) {
            (Some(at), _) => Some(at - now),
            (None, Some((first, _))) => Some(DAY - now + first),
            (None, None) => None,
        }
    }
}

impl FromStr for Timetable {
    type Err = TimetableError;

    /// Entries are separated by commas; a rate without a time holds always; nothing is no cap.
    fn from_str(text: &str) -> Result<Self, TimetableError> {
        let wrong = |entry: &str| TimetableError::Entry(entry.chars().take(40).collect());
        let mut entries = Vec::new();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let (at, rate) = match entry.split_once(char::is_whitespace) {
                Some((at, rate)) => (parse_time(at), rate.trim()),
                None => (Some(0), entry),
            };
            let at = at.ok_or_else(|| wrong(entry))?;
            entries.push((at, parse_rate(rate).ok_or_else(|| wrong(entry))?));
            if entries.len() > Self::MAX_ENTRIES {
                return Err(TimetableError::TooMany);
            }
        }
        Self::new(entries)
    }
}

/// `08:00`.
fn parse_time(text: &str) -> Option<u32> {
    let (hour, minute) = text.split_once(':')?;
    let number = |digits: &str, below: u32| {
        let fits = (1..=2).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse::<u32>().ok().filter(|number| fits && *number < below)
    };
    Some(number(hour, 24)? * 3600 + number(minute, 60)? * 60)
}

/// `50MiB/s` or `off`.
fn parse_rate(text: &str) -> Option<Option<u64>> {
    if text.eq_ignore_ascii_case("off") {
        return Some(None);
    }
    let size = text.strip_suffix("/s")?.trim_end();
    let digits = size.find(|c: char| !c.is_ascii_digit()).unwrap_or(size.len());
    let (number, unit) = size.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor).map(Some)
}

impl fmt::Display for Timetable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.entries.is_empty() {
            return f.write_str("off");
        }
        for (index, (at, rate)) in self.entries.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{:02}:{:02} ", at / 3600, at / 60 % 60)?;
            match rate {
                None => f.write_str("off")?,
                Some(rate) if rate % (1 << 20) == 0 => write!(f, "{}MiB/s", rate >> 20)?,
                Some(rate) if rate % (1 << 10) == 0 => write!(f, "{}KiB/s", rate >> 10)?,
                Some(rate) => write!(f, "{rate}B/s")?,
            }
        }
        Ok(())
    }
}
