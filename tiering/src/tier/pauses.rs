//! When a store wants to be left alone: what `Retry-After` said, noted by whoever reads the answers
//! and heeded by all who ask. One cell for each opened tier; it dies with the process.

use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

/// Longest pause that is believed, whatever a store says.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The pause of a store.
#[derive(Debug, Default)]
pub struct Pauses {
    until: Mutex<Option<Instant>>,
}

impl Pauses {
    /// The store asked at `now` for a pause of `pause`, at most [`LONGEST_PAUSE`]. A longer one
    /// that it asked for before stays.
    pub fn ask(&self, now: Instant, pause: Duration) {
        let until = now + pause.min(LONGEST_PAUSE);
        let mut cell = self.until.lock();
        if cell.is_none_or(|before| before < until) {
            *cell = Some(until);
        }
    }

    /// When the pause ends; `None` when there is none.
    pub fn until(&self, now: Instant) -> Option<Instant> {
        let mut cell = self.until.lock();
        if cell.is_some_and(|until| until <= now) {
            *cell = None;
        }
        *cell
    }

    /// What is left of the pause.
    pub fn left(&self, now: Instant) -> Duration {
        self.until(now).map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

/// The value of a `Retry-After` header (RFC 9110, 10.2.3): seconds, or an HTTP date in its preferred
/// form. `None` for what is neither; a date that has passed is no pause.
pub(super) fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit are a long time too.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(parse_http_date(value)?))?;
    Some(at.duration_since(now).unwrap_or_default())
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`. Days from date after Howard Hinnant's
/// `days_from_civil`.
fn parse_http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, date) = text.split_once(", ")?;
    let mut words = date.split(' ');
    let number = |word: Option<&str>, range: std::ops::RangeInclusive<u64>| {
        let word = word.filter(|w| w.len() <= 4 && w.bytes().all(|b| b.is_ascii_digit()))?;
        word.parse::<u64>().ok().filter(|number| range.contains(number))
    };
    let day = number(words.next(), 1..=31)?;
    let name = words.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? as u64 + 1;
    let year = number(words.next(), 1970..=9999)?;
    let mut clock = words.next()?.split(':');
    let (hour, minute) = (number(clock.next(), 0..=23)?, number(clock.next(), 0..=59)?);
    let second = number(clock.next(), 0..=60)?;
    if clock.next().is_some() || words.next() != Some("GMT") || words.next().is_some() {
        return None;
    }
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (shifted_year / 400, shifted_year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn both_forms_are_understood_and_nonsense_is_not() {
        let parse = |text| parse_retry_after(text, at(784_111_777 - 30));
        assert_eq!(parse(" 120 "), Some(Duration::from_secs(120)));
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:00 GMT"), Some(Duration::ZERO));
        assert_eq!(parse("99999999999999999999999"), Some(Duration::from_secs(u64::MAX)));
        for wrong in [
            "",
            "-1",
            "1.5",
            "soon",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 32 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sun, 06 Now 1994 08:49:37 GMT",
            "06 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn leap_days_and_epochs_are_counted() {
        assert_eq!(parse_http_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(parse_http_date("Tue, 29 Feb 2000 12:34:56 GMT"), Some(951_827_696));
        assert_eq!(parse_http_date("Fri, 20 Nov 2026 16:00:00 GMT"), Some(1_795_190_400));
    }

    #[test]
    fn the_longest_pause_counts_and_is_bounded() {
        let pauses = Pauses::default();
        let clock = crate::clock::ManualClock::new();
        let now = crate::clock::Clock::instant(&clock);
        assert_eq!(pauses.until(now), None);
        pauses.ask(now, Duration::from_secs(20));
        pauses.ask(now, Duration::from_secs(5));
        assert_eq!(pauses.left(now), Duration::from_secs(20));
        assert_eq!(pauses.left(now + Duration::from_secs(20)), Duration::ZERO);
        pauses.ask(now, Duration::from_secs(u64::MAX / 2));
        assert_eq!(pauses.left(now), LONGEST_PAUSE);
    }
}
