//! How many requests the kernel sends for a system call: no more than the table in `README.md` says.
//!
//! `scripts/requests.py` does the work and counts; this compares. A row that is in one of the two
//! only is as wrong as one that needs more.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::harness::{FIRN, succeed};

/// The heading of the table.
const HEADING: &str = "| system call, program | before | now | of these |";

/// Rounding, and what happens once in a hundred times.
const SLACK: f64 = 0.11;

/// A file that was made and written within one tick of the clock has no times to write back; on a
/// busy machine some are not.
const TIMES_SLACK: f64 = 0.5;

/// Requests by kind.
type Asked = BTreeMap<String, f64>;

/// `lookup, 2 getxattr` as numbers; a kind without a number is there once.
fn parsed(kinds: &str) -> Asked {
    let kinds = kinds.split(", ").filter(|kind| !kind.is_empty());
    kinds
        .map(|kind| match kind.split_once(' ') {
            Some((number, kind)) => (kind.to_owned(), number.parse().unwrap()),
            None => (kind.to_owned(), 1.0),
        })
        .collect()
}

/// The rows of the table: sum and kinds by name.
fn promised() -> BTreeMap<String, (f64, Asked)> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let rows = readme.lines().skip_while(|line| *line != HEADING).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, _, sum, kinds] = cells[..] else { panic!("{row}") };
        (name.to_owned(), (sum.parse().unwrap(), parsed(kinds)))
    })
    .collect()
}

#[test]
fn no_system_call_needs_more_requests_than_the_readme_says() {
    let promised = promised();
    for (name, (sum, kinds)) in &promised {
        let waited: f64 = kinds.iter().filter(|(kind, _)| *kind != "forget").map(|(_, n)| n).sum();
        assert!((waited - sum).abs() < 0.01, "{name}: {kinds:?} are not {sum}");
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/requests.py");
    let mut command = Command::new("python3");
    let found = succeed(command.arg(script).args(["--json", "--firn", FIRN]));
    let found: BTreeMap<String, Asked> = serde_json::from_str(&found).unwrap();
    assert!(found.keys().eq(promised.keys()), "rows differ: {:?}", found.keys());
    let mut wrong = Vec::new();
    for (name, asked) in &found {
        for (kind, count) in asked {
            let slack = if kind == "setattr" { TIMES_SLACK } else { SLACK };
            let most = promised[name].1.get(kind).copied().unwrap_or_default();
            // Forgetting is a matter of the kernel's memory.
            if kind != "forget" && *count > most + slack {
                wrong.push(format!("{name}: {count} {kind}, not {most}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
