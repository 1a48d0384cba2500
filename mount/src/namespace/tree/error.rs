//! Why something cannot be done to the version tree.

use crate::error::FsError;
use crate::namespace::key::Dataset;
use crate::namespace::record::{Property, RecordError};
use crate::namespace::store::StoreError;

/// Result of an operation on datasets and snapshots.
pub type TreeResult<T> = std::result::Result<T, TreeError>;

/// Why something cannot be done to the version tree.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// There is no such dataset, or not any more.
    #[error("no such dataset")]
    NoDataset,
    /// There is no such snapshot.
    #[error("no such snapshot: {0}")]
    NoSnapshot(String),
    /// There is no such hold.
    #[error("no such hold: {0}")]
    NoHold(String),
    /// The name is taken.
    #[error("exists already: {0}")]
    Exists(String),
    /// Nothing can have this name.
    #[error("invalid name: {0}")]
    InvalidName(&'static str),
    /// A property cannot have this value.
    #[error("invalid value of {}", .0.name())]
    InvalidSetting(Property),
    /// A quota is below what is used already.
    #[error("the quota is less than the {used} bytes that are used")]
    QuotaBelowUse {
        /// By the dataset, its snapshots and all datasets below, in bytes.
        used: u64,
    },
    /// Holds forbid it.
    #[error("held: {}", .0.join(", "))]
    Held(Vec<String>),
    /// Clones depend on it.
    #[error("has clones")]
    Cloned(Vec<Dataset>),
    /// Snapshots are in the way: those of a dataset that is to go, or newer ones.
    #[error("snapshots are in the way: {}", .0.join(", "))]
    InTheWay(Vec<String>),
    /// Datasets below are in the way.
    #[error("datasets below are in the way")]
    Children(Vec<Dataset>),
    /// What only a clone has, asked of another dataset.
    #[error("not a clone")]
    NotAClone,
    /// Two states of which neither came from the other.
    #[error("one is not an earlier state of the other")]
    Unrelated,
    /// A rollback of the dataset is under way.
    #[error("the dataset is being rolled back")]
    Busy,
    /// A stream is being received into this dataset, which may be one that is still being made, or
    /// was interrupted and may go on.
    #[error("a stream is being received into the dataset")]
    Receiving(Dataset),
    /// The snapshot is being sent or verified, or is the base of what is.
    #[error("being sent or verified: {0}")]
    Sending(String),
    /// The digest of this snapshot cannot be read, and a link to what is destroyed would have to be
    /// written there, or taken from there.
    #[error(
        "the digest of {0} cannot be read, and nothing beside it is destroyed before it is mended"
    )]
    UnreadableDigest(String),
    /// No number is left for another dataset, snapshot or node.
    #[error("too many datasets and snapshots")]
    TooMany,
    /// The namespace failed.
    #[error(transparent)]
    Fs(#[from] FsError),
}

impl From<StoreError> for TreeError {
    fn from(error: StoreError) -> Self {
        Self::Fs(error.into())
    }
}

impl From<RecordError> for TreeError {
    fn from(error: RecordError) -> Self {
        Self::Fs(error.into())
    }
}
