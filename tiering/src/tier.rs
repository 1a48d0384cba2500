//! Tiers: where immutable objects live. One trait with its contract, the stores that keep it
//! ([`Memory`], [`Directory`], every `object_store` URL through [`open_tier`], and several of them
//! as one, [`Spread`]), and the decorators that add patience ([`Retry`]), moderation
//! ([`Throttled`]), ownership ([`Owned`]), encryption ([`Encrypted`]) or trouble ([`Faulty`]). What
//! lies in a local directory
//! refuses to work while that directory is away ([`rooted`]).
//!
//! What may leak: a process that dies inside `put` leaves a temporary file or an unfinished
//! multipart upload, never an object; [`Tier::clean`] removes what dead processes left.

mod content;
mod directory;
mod encrypted;
mod failure;
mod faulty;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod late;
mod memory;
mod object;
pub mod owner;
mod pauses;
mod retry;
mod rooted;
pub mod spread;
#[cfg(test)]
pub(crate) mod tests;
mod throttled;

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{Error, Result};

pub use content::{Content, Presence, compare};
pub use directory::Directory;
pub use encrypted::Encrypted;
pub use failure::{FailureKind, TierFailure, is_retriable};
pub use faulty::{Fault, Faulty, Op};
pub use late::{Late, Opener};
pub use memory::Memory;
pub use object::{
    Access, ObjectReader, ObjectWriter, Opened, open_once, open_once_with, open_tier,
    open_tier_with, prepare_tier, probe_tier,
};
pub use owner::{Owned, Ownership};
pub use pauses::{LONGEST_PAUSE, Pauses};
pub use retry::{Jitter, Retry};
pub use spread::Spread;
pub use throttled::{Handles, Throttled};

/// Key of the object that says whose tier it is. A local tier also knows its directory again by it,
/// after the disk was away.
pub const IDENTITY_KEY: &str = "volume.json";

/// Bytes in the longest key. S3 and GCS allow 1024 for key and prefix together.
pub const MAX_KEY_LEN: usize = 512;

/// Bytes in the longest object that [`Tier::get`] returns whole: 1 GiB. Anything that claims to
/// be longer is damaged or not ours.
pub const MAX_WHOLE_OBJECT_LEN: u64 = 1 << 30;

/// Most bytes that one [`Tier::put_file`] holds in memory.
pub const UPLOAD_MEMORY: u64 = 16 << 20;

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Key below the tier's root, `/`-separated, of `[a-z0-9._-]`.
    pub key: String,
    /// Length in bytes.
    pub len: u64,
}

/// A store of immutable objects named by key.
///
/// *Atomicity*: an object is visible whole or not at all, and durable when `put` returned.
/// *Immutability*: a key is written once; writing it again with the same bytes succeeds,
/// with other bytes is [`crate::Error::Exists`]. Keys are unique by construction, so nothing
/// depends on two writers of one key being told apart at the same instant, which not every S3
/// server can do.
/// *Ambiguity*: after an error from `put` the object may exist; the caller reads it back.
/// *Errors*: a missing object is [`crate::Error::NotFound`], a key outside the alphabet
/// [`crate::Error::Config`], everything else [`crate::Error::Cold`] or
/// [`crate::Error::TimedOut`]. [`is_retriable`] tells which of them may pass.
/// *Lengths*: `get_range` returns exactly what was asked for or an error; whether the bytes are
/// the right ones is for the checksums of the layer above to say.
/// *Deletion*: deleting what is not there succeeds.
/// *Cancellation*: dropping a future is like a crash at that point, with the same guarantees.
#[async_trait]
pub trait Tier: Send + Sync + std::fmt::Debug + 'static {
    /// Stores an object.
    async fn put(&self, key: &str, bytes: Bytes) -> Result<()>;
    /// Stores a local file as an object, streaming, in up to [`UPLOAD_MEMORY`].
    async fn put_file(&self, key: &str, path: &Path) -> Result<()>;
    /// The whole object, up to [`MAX_WHOLE_OBJECT_LEN`].
    async fn get(&self, key: &str) -> Result<Bytes>;
    /// Exactly `range` of the object; a range past its end is an error, an empty one is no bytes.
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes>;
    /// Length of the object.
    async fn head(&self, key: &str) -> Result<ObjectMeta>;
    /// Up to `limit` objects whose key starts with `prefix` and sorts after `after`, in key order
    /// (bytewise). What is not a valid key is not listed.
    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>>;
    /// Removes the object.
    async fn delete(&self, key: &str) -> Result<()>;
    /// Removes what uploads of dead processes left behind, as far as the store lets one find it;
    /// returns how many. Objects are never touched.
    async fn clean(&self) -> Result<u64>;
    /// Looks whether all that an object is made of is there, and makes anew what is not when
    /// `care` says so. A tier that keeps an object in one piece has nothing to look at.
    async fn mend(&self, key: &str, care: Care) -> Result<Wholeness> {
        let (_, _) = (check_key(key)?, care);
        Ok(Wholeness::default())
    }
    /// Stores an object in place of whatever the key has, for who has found that damaged. In one step
    /// where the tier keeps an object in one piece: a reader and a crash find the old one or the new one.
    async fn replace(&self, key: &str, _: &Content) -> Result<()> {
        let message = "objects of this tier are not replaced";
        Err(TierFailure::error(FailureKind::Rejected, "replace", key, message))
    }
    /// Where this is, for people; never with a secret.
    fn describe(&self) -> String;
}

/// How [`Tier::mend`] goes about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Care {
    /// Reads every byte of every piece; otherwise only whether the pieces are there.
    pub content: bool,
    /// Makes anew what is lacking.
    pub repair: bool,
}

impl Care {
    /// Has missing pieces made anew, without reading those that are there.
    pub const COMPLETE: Self = Self { content: false, repair: true };
}

/// Whether all pieces of an object are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wholeness {
    /// Pieces that it consists of; 0 where it is not in pieces.
    pub pieces: usize,
    /// Where pieces were missing or damaged, for people.
    pub lacking: Vec<String>,
    /// Where nobody could tell, for people.
    pub away: Vec<String>,
    /// What was lacking was made anew, all of it.
    pub renewed: bool,
    /// Where what was made anew was not taken, and why, in words.
    pub failed: Vec<String>,
    /// As many pieces are there now as a put must have stored.
    pub is_enough: bool,
}

impl Wholeness {
    /// Whether the object is as durable as one that was just put.
    pub fn counts_as_stored(&self) -> bool {
        self.pieces == 0 || self.is_enough
    }
}

/// How patient a tier is.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Attempts in all, at least 1.
    pub attempts: u32,
    /// Longest time for one call with all its attempts.
    pub deadline: Duration,
}

impl Patience {
    /// For work that a user waits for: the deadline of a cold read.
    pub const READ: Self = Self { attempts: 8, deadline: Duration::from_secs(60) };
    /// For uploads in the background.
    pub const BACKGROUND: Self = Self { attempts: 12, deadline: Duration::from_secs(300) };
    /// For a check at the command line: is it there at all?
    pub const PROBE: Self = Self { attempts: 3, deadline: Duration::from_secs(15) };
}

/// Refuses keys that a store might take for something else: only `[a-z0-9._-]` between single
/// slashes, no part that begins with a dot, at most [`MAX_KEY_LEN`] bytes.
pub fn check_key(key: &str) -> Result<()> {
    let part_is_safe = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
    };
    if key.len() <= MAX_KEY_LEN && key.split('/').all(part_is_safe) {
        Ok(())
    } else {
        Err(Error::Config(format!("not an object key: {key:?}")))
    }
}

/// As [`check_key`], for a prefix: may be empty or end anywhere.
fn check_prefix(prefix: &str) -> Result<()> {
    if prefix.is_empty() {
        return Ok(());
    }
    check_key(prefix.strip_suffix('/').unwrap_or(prefix))
}

/// Refuses ranges that are inside out.
fn check_range(key: &str, range: &Range<u64>) -> Result<()> {
    if range.start <= range.end && range.end - range.start <= MAX_WHOLE_OBJECT_LEN {
        Ok(())
    } else {
        Err(Error::Config(format!("not a range of {key}: {range:?}")))
    }
}
