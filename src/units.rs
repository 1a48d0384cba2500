//! Sizes (`64KiB`, `2TiB`) and durations (`15m`, `7d`) as people type and read them. Both are
//! exact: what is printed parses to the same value. Used by the command line, `firn.toml` and
//! the tables.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why a size or duration was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// No number.
    #[error("not a number: `{0}`")]
    Number(String),
    /// A number, but an unknown unit.
    #[error("unknown unit `{unit}`, known are {known}")]
    Unit {
        /// What was typed.
        unit: String,
        /// What could have been.
        known: &'static str,
    },
    /// More than 64 bits hold.
    #[error("too large: `{0}`")]
    TooLarge(String),
}

const SIZE_UNITS: &str = "B, KiB, MiB, GiB, TiB, PiB (and KB, MB, GB, TB, PB for powers of 1000)";
const BINARY: [(&str, u64); 6] = [
    ("EiB", 1 << 60),
    ("PiB", 1 << 50),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(pub u64);

impl Size {
    /// `count` mebibytes.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let text = text.trim();
        let (number, unit) = split_number(text);
        let factor = size_factor(unit.trim())?;
        if let Some((whole, fraction)) = number.split_once('.') {
            return fractional(text, whole, fraction, factor).map(Self);
        }
        let count: u64 = number.parse().map_err(|_| not_a_number(text, number))?;
        count.checked_mul(factor).map(Self).ok_or_else(|| UnitError::TooLarge(text.to_owned()))
    }
}

/// Bytes per unit, whatever its case.
fn size_factor(unit: &str) -> Result<u64, UnitError> {
    let lower = unit.to_ascii_lowercase();
    let factor = match lower.as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "p" | "pib" => 1 << 50,
        "e" | "eib" => 1 << 60,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "pb" => 1_000_000_000_000_000,
        _ => return Err(UnitError::Unit { unit: unit.to_owned(), known: SIZE_UNITS }),
    };
    Ok(factor)
}

/// `1.5TiB` without floating point, rounded down to a byte.
fn fractional(text: &str, whole: &str, fraction: &str, factor: u64) -> Result<u64, UnitError> {
    let bad = || UnitError::Number(text.to_owned());
    if fraction.is_empty() || fraction.len() > 9 {
        return Err(bad());
    }
    let whole: u64 = whole.parse().map_err(|_| bad())?;
    let parts: u64 = fraction.parse().map_err(|_| bad())?;
    let scale = 10_u128.pow(fraction.len() as u32);
    let bytes =
        u128::from(whole) * u128::from(factor) + u128::from(parts) * u128::from(factor) / scale;
    u64::try_from(bytes).map_err(|_| UnitError::TooLarge(text.to_owned()))
}

fn split_number(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text.split_at(end)
}

/// Digits that do not parse are too many; everything else is no number.
fn not_a_number(text: &str, number: &str) -> UnitError {
    if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
        UnitError::TooLarge(text.to_owned())
    } else {
        UnitError::Number(text.to_owned())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match BINARY.iter().find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl TryFrom<String> for Size {
    type Error = UnitError;

    fn try_from(text: String) -> Result<Self, UnitError> {
        text.parse()
    }
}

impl From<Size> for String {
    fn from(size: Size) -> Self {
        size.to_string()
    }
}

/// `bytes` rounded to three digits, for tables: `1.46 GiB`.
pub fn rounded_bytes(bytes: u64) -> String {
    let Some((name, unit)) = BINARY.iter().find(|(_, unit)| bytes >= *unit) else {
        return format!("{bytes} B");
    };
    let value = bytes as f64 / *unit as f64;
    let digits = if value >= 99.95 { 0 } else { 2 - usize::from(value >= 9.995) };
    format!("{value:.digits$} {name}")
}

const PERIOD_UNITS: &str = "ms, s, m, h, d";
const PERIODS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A length of time, in whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Period(pub Duration);

impl Period {
    /// `count` seconds.
    pub const fn secs(count: u64) -> Self {
        Self(Duration::from_secs(count))
    }
}

impl FromStr for Period {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let mut rest = text.trim();
        let mut total_ms: u64 = 0;
        if rest.is_empty() {
            return Err(UnitError::Number(text.to_owned()));
        }
        while !rest.is_empty() {
            let (number, tail) = split_number(rest);
            let count: u64 = number.parse().map_err(|_| not_a_number(text, number))?;
            let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, next) = tail.split_at(end);
            let (_, factor) =
                PERIODS.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(|| {
                    UnitError::Unit { unit: unit.trim().to_owned(), known: PERIOD_UNITS }
                })?;
            total_ms = count
                .checked_mul(*factor)
                .and_then(|ms| total_ms.checked_add(ms))
                .ok_or_else(|| UnitError::TooLarge(text.to_owned()))?;
            rest = next;
        }
        Ok(Self(Duration::from_millis(total_ms)))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.0.as_millis() as u64;
        if left == 0 {
            return f.write_str("0s");
        }
        for (name, unit) in PERIODS {
            if left >= unit {
                write!(f, "{}{name}", left / unit)?;
                left %= unit;
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Period {
    type Error = UnitError;

    fn try_from(text: String) -> Result<Self, UnitError> {
        text.parse()
    }
}

impl From<Period> for String {
    fn from(period: Period) -> Self {
        period.to_string()
    }
}

/// A length of time to the two largest units, for tables: `3m12s`, `2d4h`.
pub fn rounded_duration(duration: Duration) -> String {
    let ms = duration.as_millis() as u64;
    let step = match ms {
        0..10_000 => 100,
        10_000..3_600_000 => 1_000,
        3_600_000..86_400_000 => 60_000,
        _ => 3_600_000,
    };
    if ms < 10_000 {
        return format!("{:.1}s", (ms / step * step) as f64 / 1000.0);
    }
    Period(Duration::from_millis(ms / step * step)).to_string()
}

#[cfg(test)]
mod tests;
