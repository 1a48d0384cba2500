//! What people and scripts read: tables and JSON on standard output, notes on standard error.
//! Nothing else in the crate prints, so that a listing stays parseable and a closed pipe is an
//! ordinary error instead of a panic. One module per listing.

use std::io::{self, Write};

use anyhow::Context;
use serde::Serialize;

pub mod bench;
pub mod check;
pub mod datasets;
pub mod diff;
pub mod escape;
pub mod evaluation;
pub mod explain;
pub mod files;
pub mod model;
pub mod names;
pub mod placement;
pub mod policy;
pub mod progress;
pub mod properties;
pub mod scrub;
pub mod snapshots;
pub mod status;
pub mod table;
pub mod tier;
pub mod verify;

/// Writes a listing or a line to standard output.
pub fn print(text: &str) -> anyhow::Result<()> {
    let text = escape::readable(text);
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).context("writing to standard output")?;
    if !text.ends_with('\n') {
        out.write_all(b"\n").context("writing to standard output")?;
    }
    out.flush().context("writing to standard output")
}

/// Writes one JSON object to standard output.
pub fn print_json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value).context("writing JSON")?;
    print(&plain(text, serde_json::to_string_pretty)?)
}

/// Writes one JSON object to standard output, in one line.
pub fn print_json_line<T: Serialize>(value: &T) -> anyhow::Result<()> {
    let text = serde_json::to_string(value).context("writing JSON")?;
    print(&plain(text, serde_json::to_string)?)
}

/// JSON in which every name is text, with the bytes of those that are not UTF-8 beside it.
fn plain(
    json: String,
    write: impl FnOnce(&serde_json::Value) -> serde_json::Result<String>,
) -> anyhow::Result<String> {
    if names::are_plain(&json) {
        return Ok(json);
    }
    let mut report = serde_json::from_str(&json).context("reading JSON again")?;
    names::make_plain(&mut report);
    write(&report).context("writing JSON")
}

/// Writes a diagnostic of one line to standard error, whatever the names in it hold; that nobody
/// listens there is nobody's problem.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", escape::visible(text));
}
