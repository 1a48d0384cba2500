//! What crosses the control socket. Additions keep the version; a changed meaning raises it, and
//! then an older command says so instead of guessing.

use std::io::{self, BufRead, Read};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::placement::{ModelAct, PolicyAct, TierAct};
use super::tree::{DatasetAct, SnapshotAct};
use crate::failure::Failure;

/// Version of the protocol.
pub const VERSION: u32 = 1;

/// Longest request line in bytes.
pub const MAX_REQUEST: u64 = 1 << 20;

/// Longest answer line in bytes.
pub const MAX_ANSWER: u64 = 16 << 20;

/// What the command asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`] of the asker.
    pub version: u32,
    /// What for.
    #[serde(flatten)]
    pub verb: Verb,
}

/// What can be asked of a daemon. Files are named by inode number: the asker's own `lstat` on the
/// mount has found it, so that the kernel has checked who may reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum Verb {
    /// The state of the volume: one item.
    Status,
    /// Make everything acknowledged durable.
    Sync,
    /// Follow the end of the mount: progress until the volume is closed. The asker takes the
    /// mount itself away.
    WatchUmount,
    /// The blocks of a file: a file item, then block items.
    Explain {
        /// Inode number.
        ino: u64,
    },
    /// Copy to the cold tier, and verify.
    Archive(Files),
    /// Compress again as hard as possible, in hot.
    Recompress(Files),
    /// Drop hot copies that are safe in cold.
    Release(Files),
    /// Bring back to the hot tier.
    Stage(Files),
    /// State of each file: file items.
    List(Files),
    /// Plans.
    Policy(PolicyAct),
    /// Where files lie, and work on that.
    Tier(TierAct),
    /// The classifier.
    Model(ModelAct),
    /// Looking for damage: one item ([`ScrubReport`](crate::report::scrub::ScrubReport)).
    Scrub(ScrubAct),
    /// Datasets.
    Dataset(DatasetAct),
    /// Snapshots.
    Snapshot(SnapshotAct),
}

/// What is done about looking for damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "kebab-case")]
pub enum ScrubAct {
    /// Begin, or go on.
    Start {
        /// Read every byte in cold, too.
        cold_data: bool,
        /// Begin at the first segment.
        afresh: bool,
    },
    /// Stop where it is.
    Stop,
    /// Say how far it is.
    Status,
}

/// Which files a tier verb means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// Inode number of a file or directory.
    pub ino: u64,
    /// What the user called it; names below it are appended.
    pub name: String,
    /// Everything below a directory, not only its own entries.
    pub recursive: bool,
}

/// One line of an answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// What is being done, for people.
    Progress(Progress),
    /// One part of the answer; its shape depends on the verb.
    Item(serde_json::Value),
    /// Something went wrong that did not stop the rest.
    Warning(String),
    /// The answer is complete.
    Done,
    /// There is no answer.
    Error(Failure),
}

/// How far long work is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done: `copying segments to the cold tier`.
    pub doing: String,
    /// Bytes done.
    #[serde(default)]
    pub done_bytes: u64,
    /// Bytes in all, when known.
    #[serde(default)]
    pub total_bytes: u64,
}

/// Reads one line of at most `limit` bytes; `None` at the end of the stream.
pub fn read_line<T: DeserializeOwned>(
    reader: &mut impl BufRead,
    limit: u64,
) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    reader.by_ref().take(limit).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        let kind = if line.len() as u64 == limit {
            io::ErrorKind::InvalidData
        } else {
            io::ErrorKind::UnexpectedEof
        };
        return Err(kind.into());
    }
    serde_json::from_slice(&line).map(Some).map_err(io::Error::from)
}

/// `value` as one line.
pub fn to_line<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}
