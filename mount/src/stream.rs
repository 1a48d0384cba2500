//! Snapshots on their way to another volume and from one: what is asked for, what comes of it, and
//! why it fails. `Volume::send` and `Volume::receive` are the two ends; FORMAT.md, "Send stream",
//! says what travels in between.

mod chain;
mod error;
mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod header;
mod order;
mod receiver;
mod sender;
mod token;
mod window;

use blake3::Hash;

use crate::error::FsResult;
use crate::namespace::Dataset;
use crate::types::{Forget, Ino};

pub use crate::types::Guid;

pub use error::{ReceiveError, SendError};
pub use token::{ResumeToken, TokenError};

pub(crate) use header::Header;
pub(crate) use receiver::{Receiver, apply_error, begin};
pub(crate) use sender::Sender;
#[cfg(test)]
pub(crate) use sender::{Forged, forge};

/// What to send.
#[derive(Clone, Debug)]
pub enum SendPlan {
    /// A snapshot, or what is different from an older one.
    Snapshot {
        /// Whose snapshot.
        dataset: Dataset,
        /// Its name.
        name: String,
        /// The older one, from which it came: of the same dataset, or of the one that this is a
        /// clone of.
        from: Option<(Dataset, String)>,
    },
    /// What a cut stream did not bring; the token is the receiver's.
    Rest(ResumeToken),
}

/// How far a stream has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the stream so far.
    pub bytes: u64,
    /// Of these, stored bytes of blocks.
    pub block_bytes: u64,
    /// Plaintext bytes of these blocks.
    pub plain_bytes: u64,
    /// Bytes of files that the snapshot refers to, where they were counted and all are sent.
    pub estimated_bytes: Option<u64>,
}

/// What was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The snapshot.
    pub guid: Guid,
    /// What stands for all that it shows; `None` where it had no digest, and the stream does not say.
    pub root: Option<Hash>,
    /// Bytes.
    pub progress: Progress,
}

/// Where a stream goes.
#[derive(Clone, Debug)]
pub enum ReceiveTarget {
    /// A dataset that is made: the new directory `name` in `parent`.
    New {
        /// The directory above.
        parent: Ino,
        /// Its name there.
        name: Vec<u8>,
    },
    /// A dataset that has the base already.
    Existing(Dataset),
}

/// How a stream is received.
#[derive(Clone, Debug, Default)]
pub struct ReceiveOptions {
    /// What was received stays when the stream is cut, to be continued or abandoned (`-s`).
    pub resumable: bool,
    /// What changed since the base is given up (`-F`).
    pub force_rollback: bool,
    /// The snapshot's name here; as it was sent if there is none.
    pub snapshot_name: Option<String>,
}

/// What was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The dataset.
    pub dataset: Dataset,
    /// The snapshot's name.
    pub snapshot: String,
    /// The snapshot.
    pub guid: Guid,
    /// What stood for all that it showed where it was sent from, if the stream says so.
    pub sent_root: Option<Hash>,
    /// Whether its content is that, all of it read.
    pub agreement: Agreement,
    /// Bytes.
    pub progress: Progress,
}

/// Whether what was received is what was sent, in which nothing is known to differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// It is.
    Equal,
    /// The content of so many files does not lie in hot: it is compared once their digests are known.
    Lacks(u64),
    /// The stream does not say what was sent.
    NotSaid,
}

/// Who follows a receive. Called on the receiving thread.
pub trait ReceiveWatch {
    /// Told every now and then; the receive is cut short when it returns `false`.
    fn progress(&mut self, progress: &Progress) -> bool;

    /// Has the kernel write out its dirty pages, so that what changed since a base is seen. Called
    /// without locks, whenever an existing dataset is about to be looked at.
    fn drain(&mut self) -> FsResult<()>;

    /// What the kernel must forget from now on.
    fn forget(&mut self, forget: Forget);
}

/// A receive that was interrupted and waits to be continued or abandoned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interrupted {
    /// The dataset that the stream goes into; of a full one it does not show yet.
    pub dataset: Dataset,
    /// Where a full stream is to show.
    pub place: Option<(Ino, Vec<u8>)>,
    /// The snapshot's name.
    pub snapshot: String,
    /// What [`SendPlan::Rest`] needs.
    pub token: ResumeToken,
}
