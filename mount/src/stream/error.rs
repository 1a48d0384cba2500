//! Why a snapshot could not be sent or received.

use blake3::Hash;

use super::{Guid, ResumeToken};
use crate::error::FsError;
use crate::namespace::TreeError;

/// Why a snapshot could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The base is not an earlier state of the snapshot.
    #[error("the base is not an earlier state of the snapshot")]
    NotABase,
    /// A token names a snapshot that is not here (any more).
    #[error("no snapshot with guid {}", .0.to)]
    NoSnapshot(ResumeToken),
    /// Whoever followed it wanted it to end.
    #[error("stopped")]
    Stopped,
    /// Numbers of its files are too large to be sent.
    #[error("inode numbers above {0} cannot be sent")]
    NumbersTooLarge(u64),
    /// The stream could not be written.
    #[error("writing the stream")]
    Write(#[source] std::io::Error),
    /// The snapshot could not be found or read.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// Why a stream could not be received. Unless it says otherwise nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The bytes are not a stream at all.
    #[error("not a send stream")]
    NotAStream,
    /// A later version made the stream.
    #[error("the stream has {what} {found}, this program reads up to {known}")]
    TooNew {
        /// What of it: `version`, `flags`, `record type`.
        what: &'static str,
        /// Its number.
        found: u32,
        /// The largest that this program knows.
        known: u32,
    },
    /// The stream ends in the middle.
    #[error("the stream ends after {at} bytes, before it is complete")]
    Torn {
        /// Where.
        at: u64,
    },
    /// The stream was changed on its way.
    #[error("the stream is damaged at byte {at}: its checksum differs")]
    Damaged {
        /// Where the record begins that does not match.
        at: u64,
    },
    /// The stream is whole and says what cannot be.
    #[error("the stream makes no sense at byte {at}: {reason}")]
    Invalid {
        /// Where.
        at: u64,
        /// What is wrong.
        reason: String,
    },
    /// The stream is complete, and is not all that came: a second one would be lost.
    #[error("more follows behind the end of the stream, at byte {at}")]
    MoreFollows {
        /// Where.
        at: u64,
    },
    /// The stream could not be read.
    #[error("reading the stream")]
    Read(#[source] std::io::Error),
    /// The stream holds the changes since a snapshot that the target does not have as its newest.
    #[error("the stream needs the snapshot {name} (guid {guid}) as its base")]
    BaseMissing {
        /// The snapshot.
        guid: Guid,
        /// Its name where it was sent.
        name: String,
    },
    /// The base is there, and does not show what it shows where it was sent from.
    #[error("the base @{name} is not what the sender has: its root is {here}, the sender's {sent}")]
    BaseDiffers {
        /// Its name here.
        name: String,
        /// What stands for all that it shows here.
        here: Hash,
        /// The same where it was sent from.
        sent: Hash,
    },
    /// Everything came, and is not what was sent.
    #[error("what was received is not what was sent: its root is {here}, the sender's {sent}")]
    ContentDiffers {
        /// What stands for all that was received.
        here: Hash,
        /// The same where it was sent from.
        sent: Hash,
    },
    /// The base is there, and later snapshots are, too.
    #[error("snapshots are newer than the base: {}", .0.join(", "))]
    NewerSnapshots(Vec<String>),
    /// The dataset changed since the base; [`super::ReceiveOptions::force_rollback`] gives that up.
    #[error("the dataset was modified since its snapshot {base}")]
    BaseModified {
        /// The base's name.
        base: String,
    },
    /// A full stream makes a dataset, and there is something of that name.
    #[error("the target exists already")]
    TargetExists,
    /// An interrupted receive waits there: it is to be continued or abandoned first.
    #[error("an interrupted receive is there already")]
    Pending(Box<ResumeToken>),
    /// The stream is the rest of another that was interrupted, and nothing waits for it here.
    #[error("the stream goes on where nothing was interrupted, or elsewhere")]
    NotPending,
    /// It was cut short, and what was received is kept.
    #[error("interrupted, what was received is kept")]
    Interrupted {
        /// How to go on.
        token: Box<ResumeToken>,
        /// Why it was cut short.
        #[source]
        source: Box<ReceiveError>,
    },
    /// Whoever followed it wanted it to end.
    #[error("stopped")]
    Stopped,
    /// The target cannot take it.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

impl From<FsError> for ReceiveError {
    fn from(error: FsError) -> Self {
        Self::Tree(error.into())
    }
}

impl From<FsError> for SendError {
    fn from(error: FsError) -> Self {
        Self::Tree(error.into())
    }
}

impl ReceiveError {
    /// What a person can do about it, where that is known; for a `hint:` line.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::TooNew { .. } => {
                "receive it with the version of firn that sent it, or a later one"
            }
            Self::BaseMissing { .. } => {
                "send a full stream first, or an incremental from a snapshot that both have"
            }
            Self::BaseDiffers { .. } => {
                "`firn verify` that snapshot on both volumes; where it is not sound, receive a full \
                 stream from the other into a new dataset; abandon with -A what was begun here"
            }
            Self::ContentDiffers { .. } => {
                "nothing of it is left: `firn verify --data` the sender's snapshot, which is not what \
                 its digest says, or send it again"
            }
            Self::NewerSnapshots(_) => "destroy them, or roll the dataset back to the base",
            Self::BaseModified { .. } => "receive with -F to give up what changed since then",
            Self::TargetExists => "receive a full stream into a name that is free",
            Self::Pending(_) => {
                "continue it with a stream made from its token, or abandon it with -A"
            }
            Self::MoreFollows { .. } => {
                "give each stream to a receive of its own, the full one first; nothing of it is left"
            }
            Self::NotPending => "the token must be the one that the target shows now",
            Self::Interrupted { .. } => "send the rest with the token, or abandon it with -A",
            _ => return None,
        })
    }
}
