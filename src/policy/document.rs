//! Reading a policy's text with all that is wrong in it: tables are walked key by key, and every
//! fault is kept with the place where it is, so that one look tells everything. What is faulty
//! counts as left out, so that it brings no further faults about.

use std::fmt::Display;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::amount::{Amount, Comparison};
use super::settings::{Owner, Rate};
use crate::units::{Period, Size};

/// A value, and where it is.
type Value<'d> = Spanned<DeValue<'d>>;

/// Faults that are kept; who has more begins with these.
const MAX_FAULTS: usize = 100;

/// Faults with their offsets in the text.
pub(super) type Found = Vec<(usize, String)>;

/// What is wrong, each with its offset in the text.
#[derive(Debug, Default)]
pub(super) struct Faults {
    found: Found,
    /// Those that cost a policy in use no more than the setting itself.
    minor: Found,
}

impl Faults {
    pub(super) fn at(&mut self, start: usize, message: impl Into<String>) {
        if self.found.len() < MAX_FAULTS {
            self.found.push((start, message.into()));
        }
    }

    /// Takes the faults of a part for minor ones.
    pub(super) fn add_minor(&mut self, part: Self) {
        self.minor.extend(part.found);
    }

    /// In the order of their places; the minor ones apart.
    pub(super) fn into_sorted(mut self) -> (Found, Found) {
        self.found.sort();
        self.minor.sort();
        (self.found, self.minor)
    }
}

/// A table of the text, or one that is left out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section<'d> {
    title: &'static str,
    start: usize,
    table: Option<&'d DeTable<'d>>,
    /// Every key is known.
    is_sound: bool,
}

impl<'d> Section<'d> {
    /// A table whose keys are all `allowed`; others are faults.
    pub(super) fn new(
        title: &'static str,
        start: usize,
        table: &'d DeTable<'d>,
        allowed: &[&str],
        faults: &mut Faults,
    ) -> Self {
        let mut is_sound = true;
        for (key, _) in table {
            let name = key.get_ref().as_ref();
            if !allowed.contains(&name) {
                is_sound = false;
                let meant = nearest(name, allowed).map(|near| format!(", did you mean `{near}`?"));
                faults.at(
                    key.span().start,
                    format!(
                        "unknown field `{name}`{} {title} takes {}",
                        meant.as_deref().unwrap_or(":"),
                        allowed.join(", ")
                    ),
                );
            }
        }
        Self { title, start, table: Some(table), is_sound }
    }

    fn value(&self, key: &str) -> Option<&'d Value<'d>> {
        self.table?.get(key)
    }

    /// Where the table is.
    pub(super) const fn start(&self) -> usize {
        self.start
    }

    /// Whether every key is known: otherwise what seems to be missing may only be misspelt.
    pub(super) const fn is_sound(&self) -> bool {
        self.is_sound
    }

    /// Whether a key is left out.
    pub(super) fn is_absent(&self, key: &str) -> bool {
        self.value(key).is_none()
    }

    /// Where a key's value is; without one, where the table is.
    pub(super) fn place(&self, key: &str) -> usize {
        self.value(key).map_or(self.start, |value| value.span().start)
    }

    /// A table in this one.
    pub(super) fn section(
        &self,
        key: &str,
        title: &'static str,
        allowed: &[&str],
        faults: &mut Faults,
    ) -> Self {
        let absent = Self { title, start: self.start, table: None, is_sound: true };
        let Some(value) = self.value(key) else { return absent };
        match value.get_ref() {
            DeValue::Table(table) => Self::new(title, value.span().start, table, allowed, faults),
            other => {
                faults.at(
                    value.span().start,
                    format!("`{key}` is a table, written {title}, not {}", shown(other)),
                );
                absent
            }
        }
    }

    /// The tables of a list of tables.
    pub(super) fn sections(
        &self,
        key: &str,
        title: &'static str,
        (allowed, most): (&[&str], usize),
        faults: &mut Faults,
    ) -> Vec<Self> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let DeValue::Array(array) = value.get_ref() else {
            let found = shown(value.get_ref());
            faults.at(
                value.span().start,
                format!("`{key}` is a list of tables, each written {title}, not {found}"),
            );
            return Vec::new();
        };
        if let Some(above) = array.get(most) {
            faults.at(above.span().start, format!("more than {most} of {title}"));
        }
        let mut sections = Vec::new();
        for entry in array.iter().take(most) {
            match entry.get_ref() {
                DeValue::Table(table) => {
                    let start = entry.span().start;
                    sections.push(Self::new(title, start, table, allowed, faults));
                }
                other => faults.at(
                    entry.span().start,
                    format!("`{key}` holds tables, each written {title}, not {}", shown(other)),
                ),
            }
        }
        sections
    }

    /// A value that may be left out.
    pub(super) fn read<T>(
        &self,
        key: &str,
        faults: &mut Faults,
        convert: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.value(key)?;
        convert(value.get_ref())
            .map_err(|why| {
                faults.at(value.span().start, format!("invalid value for `{key}`: {why}"));
            })
            .ok()
    }

    /// A value that must be there.
    pub(super) fn need<T>(
        &self,
        key: &str,
        what: &str,
        faults: &mut Faults,
        convert: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<T> {
        if self.value(key).is_none() && self.is_sound {
            let title = self.title;
            faults.at(self.start, format!("missing field `{key}`: {title} needs {what}"));
        }
        self.read(key, faults, convert)
    }

    /// A value that is one or a list of several, each with its place.
    pub(super) fn list<T>(
        &self,
        key: &str,
        most: usize,
        faults: &mut Faults,
        convert: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Vec<(usize, T)> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let entries: Vec<&Value<'_>> = match value.get_ref() {
            DeValue::Array(array) => array.iter().collect(),
            _ => vec![value],
        };
        let start = value.span().start;
        if entries.is_empty() {
            faults.at(
                start,
                format!("`{key}` is an empty list, which nothing would fit: leave it out"),
            );
        }
        if entries.len() > most {
            faults.at(start, format!("`{key}` lists {}, more than {most}", entries.len()));
        }
        let mut found = Vec::new();
        for entry in entries.into_iter().take(most) {
            match convert(entry.get_ref()) {
                Ok(item) => found.push((entry.span().start, item)),
                Err(why) => {
                    faults.at(entry.span().start, format!("invalid value for `{key}`: {why}"));
                }
            }
        }
        found
    }
}

/// What a value is called where another kind was expected.
fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("`{text}`"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(_) => "a time".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

fn expected(what: &str, value: &DeValue<'_>) -> String {
    format!("{what} is expected, found {}", shown(value))
}

/// Text that parses as a `T`.
fn parsed<T: FromStr<Err: Display>>(value: &DeValue<'_>, what: &str) -> Result<T, String> {
    let DeValue::String(text) = value else { return Err(expected(what, value)) };
    text.parse().map_err(|error| format!("{what} is expected: {error}"))
}

/// Any text but an empty one.
pub(super) fn text(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) if !text.is_empty() => Ok(text.to_string()),
        DeValue::String(_) => Err("it is empty".to_owned()),
        _ => Err(expected("text in quotes", value)),
    }
}

/// `true` or `false`.
pub(super) fn flag(value: &DeValue<'_>) -> Result<bool, String> {
    match value {
        DeValue::Boolean(flag) => Ok(*flag),
        _ => Err(expected("true or false", value)),
    }
}

/// A whole number in a range.
pub(super) fn whole(least: u64, most: u64) -> impl Fn(&DeValue<'_>) -> Result<u64, String> {
    move |value| {
        let DeValue::Integer(digits) = value else {
            return Err(expected(&format!("a whole number from {least} to {most}"), value));
        };
        let number = u64::from_str_radix(digits.as_str(), digits.radix()).ok();
        number
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| expected(&format!("a whole number from {least} to {most}"), value))
    }
}

/// As [`whole`], of 32 bits.
pub(super) fn count(least: u32, most: u32) -> impl Fn(&DeValue<'_>) -> Result<u32, String> {
    let whole = whole(u64::from(least), u64::from(most));
    move |value| whole(value).and_then(|number| u32::try_from(number).map_err(|e| e.to_string()))
}

/// A price: a finite number that is not negative.
pub(super) fn price(value: &DeValue<'_>) -> Result<f64, String> {
    number(value, 1e9, "a price such as 0.023")
}

/// A share from 0 to 1.
pub(super) fn share(value: &DeValue<'_>) -> Result<f64, String> {
    number(value, 1.0, "a share from 0 to 1, such as 0.01,")
}

/// A number from 0 to `most`.
fn number(value: &DeValue<'_>, most: f64, what: &str) -> Result<f64, String> {
    let number = match value {
        DeValue::Integer(digits) => digits.as_str().parse::<f64>().ok(),
        DeValue::Float(digits) => digits.as_str().parse::<f64>().ok(),
        _ => None,
    };
    number.filter(|number| (0.0..=most).contains(number)).ok_or_else(|| expected(what, value))
}

/// A size.
pub(super) fn size(value: &DeValue<'_>) -> Result<Size, String> {
    parsed(value, "a size such as \"64KiB\"")
}

/// A length of time in a range of seconds.
pub(super) fn period(least_s: u64, most_s: u64) -> impl Fn(&DeValue<'_>) -> Result<Period, String> {
    move |value| {
        let period: Period = parsed(value, "a duration such as \"15m\" or \"30d\"")?;
        let (least, most) = (Period::secs(least_s), Period::secs(most_s));
        if period < least || period > most {
            return Err(format!("{period} is not between {least} and {most}"));
        }
        Ok(period)
    }
}

/// A size or a share.
pub(super) fn amount(value: &DeValue<'_>) -> Result<Amount, String> {
    parsed(value, "a share of the capacity such as \"90%\", or a size such as \"64GiB\",")
}

/// Bytes per second, or `off`.
pub(super) fn rate(value: &DeValue<'_>) -> Result<Rate, String> {
    let DeValue::String(text) = value else {
        return Err(expected("a rate such as \"50MiB/s\", or \"off\" for no cap,", value));
    };
    rate_of(text)
}

/// A rate as text.
pub(super) fn rate_of(text: &str) -> Result<Rate, String> {
    let what = "a rate such as \"50MiB/s\", or \"off\" for no cap,";
    if text.trim() == "off" {
        return Ok(Rate(None));
    }
    let bytes = text.trim().strip_suffix("/s").map(str::parse::<Size>);
    match bytes {
        Some(Ok(Size(0))) => Err("0 would stop everything: write \"off\" for no cap".to_owned()),
        Some(Ok(Size(bytes))) => Ok(Rate(Some(bytes))),
        Some(Err(error)) => Err(format!("{what} is expected: {error}")),
        None => Err(format!("{what} is expected, found `{text}`")),
    }
}

/// One of these words.
pub(super) fn choice<T: Copy>(choices: &[(&str, T)]) -> impl Fn(&DeValue<'_>) -> Result<T, String> {
    move |value| {
        let found = match value {
            DeValue::String(text) => choices.iter().find(|(name, _)| *name == text.as_ref()),
            _ => None,
        };
        found.map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<String> =
                choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            let near = match value {
                DeValue::String(text) => {
                    nearest(text, &choices.iter().map(|(name, _)| *name).collect::<Vec<_>>())
                }
                _ => None,
            };
            let meant = near.map(|near| format!(", did you mean \"{near}\"?"));
            let what = format!("one of {}", names.join(", "));
            format!("{}{}", expected(&what, value), meant.unwrap_or_default())
        })
    }
}

/// A comparison with a value of text, such as a size.
pub(super) fn comparison<T: FromStr<Err: Display>>(
    example: &str,
) -> impl Fn(&DeValue<'_>) -> Result<Comparison<T>, String> {
    let what = format!("a comparison with <, <=, >= or > such as \"{example}\"");
    move |value| {
        let DeValue::String(text) = value else { return Err(expected(&what, value)) };
        Comparison::parse(text, str::parse::<T>)
            .ok_or_else(|| expected(&what, value))?
            .map_err(|error| format!("{what} is expected: {error}"))
    }
}

/// A comparison with a number in a range.
pub(super) fn numeric(
    example: &str,
    most: f32,
) -> impl Fn(&DeValue<'_>) -> Result<Comparison<f32>, String> {
    let comparison = comparison::<f32>(example);
    move |value| {
        let found = comparison(value)?;
        if !(0.0..=most).contains(&found.value) {
            return Err(format!("{} is not between 0 and {most}", found.value));
        }
        Ok(found)
    }
}

/// A user or a group, by name or number.
pub(super) fn owner(value: &DeValue<'_>) -> Result<Owner, String> {
    match value {
        DeValue::Integer(_) => count(0, u32::MAX - 1)(value).map(Owner::Id),
        _ => {
            let name = text(value).map_err(|_| expected("a name or a number", value))?;
            Ok(name.parse().map_or(Owner::Name(name), Owner::Id))
        }
    }
}

/// The word that was probably meant: one slip away for short words, two for others.
fn nearest<'w>(word: &str, words: &[&'w str]) -> Option<&'w str> {
    let slips = if word.len() < 5 { 1 } else { 2 };
    let near = words.iter().map(|other| (distance(word, other), *other));
    near.filter(|(slipped, _)| *slipped <= slips).min().map(|(_, other)| other)
}

/// Letters to be changed, added, left out or exchanged with their neighbour.
fn distance(one: &str, two: &str) -> usize {
    let (one, two): (Vec<char>, Vec<char>) = (one.chars().collect(), two.chars().collect());
    if one.len().abs_diff(two.len()) > 2 || one.len() > 64 {
        return usize::MAX;
    }
    let mut rows: Vec<Vec<usize>> = vec![(0..=two.len()).collect()];
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in two.iter().enumerate() {
            let change = rows[i][j] + usize::from(a != b);
            let mut best = change.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && one[i - 1] == *b && *a == two[j - 1] {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[one.len()][two.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        let words = ["hourly", "daily", "high", "low", "path"];
        assert_eq!(nearest("hurly", &words), Some("hourly"));
        assert_eq!(nearest("dialy", &words), Some("daily"));
        assert_eq!(nearest("hihg", &words), Some("high"));
        assert_eq!(nearest("lo", &words), Some("low"));
        assert_eq!(nearest("paint", &words), None);
        assert_eq!(nearest("", &words), None);
    }
}
