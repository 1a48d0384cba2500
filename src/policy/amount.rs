//! Amounts and comparisons as a policy writes them: `"90%"` or `"64GiB"`, `">30d"`, `"<0.05"`. What
//! is printed parses to the same value.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::units::{Size, UnitError};

/// Hundredths of a percent in the whole.
const WHOLE: u32 = 10_000;

/// A size, or a share of the hot tier's capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// In hundredths of a percent, at most 10,000.
    Share(u32),
    /// In bytes.
    Bytes(u64),
}

impl Amount {
    /// So many percent.
    pub const fn percent(percent: u32) -> Self {
        Self::Share(percent * (WHOLE / 100))
    }

    /// In bytes, of a capacity in bytes; never more than that.
    pub fn of(self, capacity: u64) -> u64 {
        match self {
            Self::Share(share) => {
                let bytes = u128::from(capacity) * u128::from(share.min(WHOLE)) / u128::from(WHOLE);
                // A share of 64 bits fits into 64 bits.
                bytes as u64
            }
            Self::Bytes(bytes) => bytes.min(capacity),
        }
    }

    /// Whether it is more than another of the same kind; `None` where that depends on a capacity.
    pub const fn exceeds(self, other: Self) -> Option<bool> {
        match (self, other) {
            (Self::Share(one), Self::Share(two)) => Some(one > two),
            (Self::Bytes(one), Self::Bytes(two)) => Some(one > two),
            _ => None,
        }
    }
}

/// Why an amount was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// No number of percent.
    #[error("`{0}` is no share from 0% to 100% with at most two digits behind the point")]
    Share(String),
    /// No size.
    #[error(transparent)]
    Size(#[from] UnitError),
}

impl FromStr for Amount {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let Some(number) = text.trim().strip_suffix('%') else {
            return Ok(Self::Bytes(text.parse::<Size>()?.0));
        };
        let bad = || AmountError::Share(text.to_owned());
        let (whole, fraction) = number.trim().split_once('.').unwrap_or((number.trim(), "0"));
        let is_digits = |text: &str| {
            !text.is_empty() && text.len() <= 3 && text.bytes().all(|b| b.is_ascii_digit())
        };
        if !is_digits(whole) || !is_digits(fraction) || fraction.len() > 2 {
            return Err(bad());
        }
        let whole: u32 = whole.parse().map_err(|_| bad())?;
        let parts: u32 = format!("{fraction:0<2}").parse().map_err(|_| bad())?;
        let share = whole * 100 + parts;
        if share > WHOLE { Err(bad()) } else { Ok(Self::Share(share)) }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Share(share) if share.is_multiple_of(100) => write!(f, "{}%", share / 100),
            Self::Share(share) => write!(f, "{}.{:02}%", share / 100, share % 100),
            Self::Bytes(bytes) => Size(bytes).fmt(f),
        }
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How what is found must relate to what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>=`
    AtLeast,
    /// `>`
    More,
}

/// A comparison: `>30d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparison<T> {
    /// How.
    pub relation: Relation,
    /// With what.
    pub value: T,
}

impl<T: PartialOrd> Comparison<T> {
    /// Whether what was found relates to the value as it must. What cannot be compared does not.
    pub fn holds(&self, found: &T) -> bool {
        match self.relation {
            Relation::Less => *found < self.value,
            Relation::AtMost => *found <= self.value,
            Relation::AtLeast => *found >= self.value,
            Relation::More => *found > self.value,
        }
    }
}

impl<T> Comparison<T> {
    /// Reads one, its value with `parse`; `None` without one of `<`, `<=`, `>=` and `>` in front.
    pub fn parse<E>(
        text: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<Result<Self, E>> {
        const SIGNS: [(&str, Relation); 4] = [
            ("<=", Relation::AtMost),
            (">=", Relation::AtLeast),
            ("<", Relation::Less),
            (">", Relation::More),
        ];
        let text = text.trim();
        let (relation, rest) = SIGNS
            .into_iter()
            .find_map(|(sign, relation)| Some((relation, text.strip_prefix(sign)?)))?;
        Some(parse(rest.trim()).map(|value| Self { relation, value }))
    }
}

impl<T: fmt::Display> fmt::Display for Comparison<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.relation {
            Relation::Less => "<",
            Relation::AtMost => "<=",
            Relation::AtLeast => ">=",
            Relation::More => ">",
        };
        write!(f, "{sign}{}", self.value)
    }
}

impl<T: fmt::Display> Serialize for Comparison<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn shares_and_sizes_parse_to_what_is_printed() {
        for text in ["0%", "90%", "92.50%", "100%", "64GiB", "1B"] {
            assert_eq!(text.parse::<Amount>().unwrap().to_string(), text);
        }
        assert_eq!("92.5 %".parse(), Ok(Amount::Share(9250)));
        for text in ["101%", "100.01%", "-1%", "%", "1.234%", ".5%", "9e1%", "", "12XB"] {
            assert!(text.parse::<Amount>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_of_everything_is_exact() {
        assert_eq!(Amount::percent(100).of(u64::MAX), u64::MAX);
        assert_eq!(Amount::percent(90).of(1000), 900);
        assert_eq!(Amount::Share(1).of(10_000), 1);
        assert_eq!(Amount::Bytes(2000).of(1000), 1000);
        assert_eq!(Amount::percent(90).exceeds(Amount::percent(80)), Some(true));
        assert_eq!(Amount::percent(90).exceeds(Amount::Bytes(1)), None);
    }

    #[test]
    fn comparisons_hold_where_they_say() {
        let parse = |text: &str| Comparison::parse(text, str::parse::<f32>);
        let found: Vec<bool> = ["<2", "<=2", ">=2", ">2"]
            .into_iter()
            .flat_map(|text| {
                let comparison = parse(text).unwrap().unwrap();
                assert_eq!(comparison.to_string(), text);
                [1.0, 2.0, 3.0].map(|value| comparison.holds(&value))
            })
            .collect();
        let (yes, no) = (true, false);
        assert_eq!(found, [yes, no, no, yes, yes, no, no, yes, yes, no, no, yes]);
        assert!(!parse("<2").unwrap().unwrap().holds(&f32::NAN));
        assert!(parse("2").is_none());
        assert!(parse("> x").unwrap().is_err());
    }
}
