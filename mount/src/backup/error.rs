//! Why a backup or a recovery failed.

use super::missing::Missing;
use crate::error::FsError;
use crate::namespace::record::RecordError;
use crate::namespace::store::StoreError;

/// Why a backup or a recovery failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The tier failed, or what it returned is damaged.
    #[error("{0}")]
    Tier(#[source] firn_tiering::Error),
    /// The namespace's store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// Checksummed bytes do not make sense.
    #[error("damaged {what}: {reason}")]
    Damaged {
        /// Which stored thing.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The tier returned other bytes than were stored.
    #[error("{0} was read back different")]
    NotVerified(String),
    /// The tier holds another volume's backups.
    #[error("the tier holds backups of another volume")]
    OtherVolume,
    /// There is nothing to recover.
    #[error("no backup of the namespace was found{}", what_is_there(*segments, *pieces))]
    NoBackup {
        /// Segments that are there nevertheless.
        segments: u64,
        /// Pieces of backups that are there nevertheless.
        pieces: u64,
    },
    /// A backup is not whole.
    #[error("{0}")]
    Incomplete(Missing),
    /// There are backups, and none can be used.
    #[error("none of {count} backups can be used; the newest: {reason}")]
    NoWholeBackup {
        /// How many were tried.
        count: usize,
        /// How many of them have a table of contents that can be read.
        readable: usize,
        /// What is wrong with the newest.
        reason: String,
    },
    /// The place for the recovered namespace is taken or cannot be written.
    #[error("{action}")]
    Io {
        /// What was being done, with the path.
        action: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// What a tier without a backup has, if anything.
fn what_is_there(segments: u64, pieces: u64) -> String {
    match (segments, pieces) {
        (0, 0) => String::new(),
        _ => format!(
            ": {segments} segments and {pieces} pieces of backups are there, and no manifest that \
             says what they are of"
        ),
    }
}

impl BackupError {
    pub(super) fn damaged(what: &'static str, reason: impl Into<String>) -> Self {
        Self::Damaged { what, reason: reason.into() }
    }

    /// Whether the stored bytes are at fault, so that another copy may help where waiting will
    /// not. A newer format is no damage: an older backup in its place would be a silent loss.
    pub fn is_damage(&self) -> bool {
        use firn_tiering::Error as Tiering;
        match self {
            Self::Damaged { .. } | Self::Incomplete(_) => true,
            Self::Tier(error) => {
                matches!(error, Tiering::Damaged { .. } | Tiering::NotFound(_))
            }
            _ => false,
        }
    }
}

impl From<firn_tiering::Error> for BackupError {
    fn from(error: firn_tiering::Error) -> Self {
        Self::Tier(error)
    }
}

impl From<RecordError> for BackupError {
    fn from(error: RecordError) -> Self {
        Self::damaged("namespace record", error.to_string())
    }
}

impl From<BackupError> for FsError {
    fn from(error: BackupError) -> Self {
        Self::io("namespace backup", error)
    }
}
