//! Why a block operation failed.

use std::io;

use crate::block::BlockId;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a block operation failed. Messages are lower case, values last, and never repeat their
/// source: whoever prints them walks the chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Answering would need a wait that the caller forbade with [`crate::Wait::No`].
    #[error("the operation would wait")]
    WouldWait,
    /// The deadline given with [`crate::Wait::Until`] passed.
    #[error("deadline passed while {0}")]
    TimedOut(&'static str),
    /// No tier holds the block, or none holds it undamaged.
    #[error("block {id} is lost: {reason}")]
    Lost {
        /// The block.
        id: BlockId,
        /// What was tried.
        reason: String,
    },
    /// Stored bytes contradict their checksum or their format.
    #[error("damaged {what}: {reason}")]
    Damaged {
        /// Which stored thing: `frame`, `segment index`, `catalog record`, ...
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The bytes were written by a newer version.
    #[error("{what} has format version {found}, this program reads up to {known}")]
    TooNew {
        /// Which stored thing.
        what: &'static str,
        /// Its version.
        found: u32,
        /// The newest this program knows.
        known: u32,
    },
    /// Whoever wanted it cancelled it.
    #[error("cancelled")]
    Cancelled,
    /// Both tiers are full.
    #[error("no space left in any tier")]
    NoSpace,
    /// The volume refuses writes after a failure that it must not paper over.
    #[error("the volume is read-only since: {0}")]
    ReadOnly(String),
    /// The cold tier's object does not exist.
    #[error("object not found: {0}")]
    NotFound(String),
    /// The object exists already; objects are immutable.
    #[error("object exists already: {0}")]
    Exists(String),
    /// The cold tier refused or failed.
    #[error("cold tier: {action} {object}")]
    Cold {
        /// What was asked of it.
        action: &'static str,
        /// The object.
        object: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The cold tier cannot be used as it is configured. [`Error::hint`] says what to do.
    #[error("cold tier {tier}: {reason}")]
    Unusable {
        /// The tier as its owner wrote it, without anything secret.
        tier: String,
        /// What is wrong.
        reason: String,
        /// What the owner can do about it.
        hint: String,
    },
    /// A configured value makes no sense.
    #[error("{0}")]
    Config(String),
    /// The local file system failed.
    #[error("{action}")]
    Io {
        /// What was being done, with the path.
        action: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The catalog's database failed. The catalog is rebuilt from the segments at the next open.
    #[error("catalog: {0}")]
    Catalog(String),
}

impl Error {
    /// What a person can do about it, where that is known; for a `hint:` line.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Unusable { hint, .. } => Some(hint),
            _ => None,
        }
    }

    /// For `map_err` on local file operations.
    pub fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}
