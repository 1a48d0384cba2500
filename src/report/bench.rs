//! What `firn bench` says. The JSON object is [`Report`]; its fields are only ever added to.

use serde::{Deserialize, Serialize};

use super::table;
use crate::units::rounded_bytes;

/// What a volume did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Directory of the volume.
    pub volume: String,
    /// Where it is mounted.
    pub mountpoint: String,
    /// Bytes of the large file, if the time was enough for it.
    pub bytes: u64,
    /// What was measured, in order.
    pub rows: Vec<Row>,
}

/// One measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was done.
    pub work: String,
    /// How fast, or how long.
    pub value: f64,
    /// `MiB/s` and `1/s`, of which more is better, or `ms`, of which less is.
    pub unit: String,
    /// How often it was done.
    pub count: u64,
}

impl Report {
    /// For people.
    pub fn text(&self) -> String {
        let mut rows = table::table(&["work", "result", "unit"]);
        for row in &self.rows {
            let digits = if row.value >= 100.0 { 0 } else { 2 };
            rows.add_row([row.work.clone(), format!("{:.digits$}", row.value), row.unit.clone()]);
        }
        table::right(&mut rows, &[1]);
        format!(
            "{}, a file of {}\n{}",
            self.mountpoint,
            rounded_bytes(self.bytes),
            table::text(&rows)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_for_people() {
        let row = |value| Row { work: "w".to_owned(), value, unit: "ms".to_owned(), count: 1 };
        let report = Report { rows: vec![row(0.125), row(1234.5)], ..Report::default() };
        let text = report.text();
        assert!(text.contains("0.12") && text.contains("1234  ms"), "{text}");
    }
}
