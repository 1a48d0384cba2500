//! What `firn explain` says: a file and where each of its bytes lies. The JSON object is
//! [`Explanation`]; its fields are only ever added to.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::escape::escaped;
use super::table;
use crate::units::rounded_bytes;

/// A file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// Inode number.
    pub ino: u64,
    /// `file`, `directory`, `symlink`, ...
    pub kind: String,
    /// Length in bytes.
    pub size_bytes: u64,
    /// `dirty`, `resident`, `dual`, `partial`, `cold`, `fetching` or `error`; absent for what has
    /// no content.
    pub state: Option<String>,
    /// Share of the content that is in the hot tier.
    pub resident_pct: Option<u8>,
    /// BLAKE3 of the whole content, 64 hexadecimal digits; absent until it was computed.
    #[serde(default)]
    pub blake3: Option<String>,
}

/// A run of bytes of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Offset in the file.
    pub offset_bytes: u64,
    /// Length of the run.
    pub len_bytes: u64,
    /// `block`, `inline` (in the namespace itself) or `unwritten` (allocated, reads as zeros).
    /// Holes are what no run covers.
    pub kind: RunKind,
    /// The block, for `block`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<BlockFacts>,
}

/// Where the bytes of a run are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunKind {
    /// In a block.
    Block,
    /// In the namespace itself.
    Inline,
    /// Allocated, reads as zeros.
    Unwritten,
}

/// A block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockFacts {
    /// Its id.
    pub id: String,
    /// First 16 bytes of its BLAKE3.
    pub digest: String,
    /// Where the run begins in the block's plaintext; blocks may hold several files.
    pub offset_bytes: u32,
    /// Length of its plaintext.
    pub plain_bytes: u64,
    /// What is known of how it is stored; absent when the catalog does not list it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<StoredFacts>,
    /// `open` (not sealed yet), `hot`, `dual`, `cold` or `unknown`.
    pub residence: String,
    /// Why nothing more is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// How a block is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFacts {
    /// Bytes of its frame.
    pub stored_bytes: u64,
    /// Codec.
    pub codec: String,
    /// Filter before the codec.
    pub filter: String,
    /// Level given to the codec.
    pub level: u8,
    /// Why this codec and filter.
    pub why: String,
    /// The segment that holds it.
    pub segment: String,
    /// Where its frame begins in the segment.
    pub segment_offset_bytes: u64,
}

/// Everything about one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The path that was asked about.
    pub path: String,
    /// The file.
    #[serde(flatten)]
    pub file: FileFacts,
    /// Its runs, in order.
    pub runs: Vec<Run>,
}

impl Explanation {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = self.head();
        if self.runs.is_empty() {
            return text;
        }
        text.push('\n');
        let mut rows =
            table::table(&["offset", "length", "place", "codec", "stored", "block", "digest"]);
        for run in &self.runs {
            rows.add_row(row(run));
        }
        table::right(&mut rows, &[0, 1, 4]);
        text.push_str(&table::text(&rows));
        for (why, count) in self.reasons() {
            let blocks = if count == 1 { "block" } else { "blocks" };
            text.push_str(&format!("{count} {blocks}: {why}\n"));
        }
        text
    }

    fn head(&self) -> String {
        let file = &self.file;
        let mut text =
            format!("{}: {}, {}", escaped(&self.path), file.kind, rounded_bytes(file.size_bytes));
        if let Some(state) = &file.state {
            text.push_str(&format!(", {state}"));
        }
        if let Some(pct) = file.resident_pct {
            text.push_str(&format!(", {pct} % in hot"));
        }
        if let Some((plain, stored)) = self.blocks_bytes() {
            let ratio = plain as f64 / stored.max(1) as f64;
            text.push_str(&format!(
                ", blocks of {} stored in {} (ratio {ratio:.2})",
                rounded_bytes(plain),
                rounded_bytes(stored)
            ));
        }
        text.push('\n');
        if let Some(digest) = &file.blake3 {
            text.push_str(&format!("blake3 {digest}\n"));
        }
        text
    }

    /// Plain and stored bytes of the file's blocks, each counted once.
    fn blocks_bytes(&self) -> Option<(u64, u64)> {
        let mut seen = HashSet::new();
        let blocks = self.runs.iter().filter_map(|run| run.block.as_ref());
        let stored = blocks
            .filter(|block| seen.insert(&block.id))
            .filter_map(|block| Some((block.plain_bytes, block.stored.as_ref()?.stored_bytes)));
        stored.reduce(|sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    fn reasons(&self) -> BTreeMap<&str, usize> {
        let mut reasons = BTreeMap::new();
        let mut seen = HashSet::new();
        for block in self.runs.iter().filter_map(|run| run.block.as_ref()) {
            let why = match (&block.stored, &block.trouble) {
                (Some(stored), _) => stored.why.as_str(),
                (None, Some(trouble)) => trouble.as_str(),
                (None, None) => continue,
            };
            if seen.insert(&block.id) {
                *reasons.entry(why).or_insert(0) += 1;
            }
        }
        reasons
    }
}

fn row(run: &Run) -> [String; 7] {
    let (place, codec, stored, id, digest) = match &run.block {
        Some(block) => {
            let (codec, bytes) = block.stored.as_ref().map_or_else(Default::default, codec_of);
            (block.residence.clone(), codec, bytes, block.id.clone(), block.digest.clone())
        }
        None => {
            let place = match run.kind {
                RunKind::Inline => "namespace",
                RunKind::Unwritten => "allocated",
                RunKind::Block => "unknown",
            };
            (place.to_owned(), String::new(), String::new(), String::new(), String::new())
        }
    };
    [run.offset_bytes.to_string(), run.len_bytes.to_string(), place, codec, stored, id, digest]
}

fn codec_of(stored: &StoredFacts) -> (String, String) {
    let filter =
        if stored.filter == "none" { String::new() } else { format!("{}+", stored.filter) };
    let level = if stored.level == 0 { String::new() } else { format!("-{}", stored.level) };
    (format!("{filter}{}{level}", stored.codec), stored.stored_bytes.to_string())
}

#[cfg(test)]
mod tests;
