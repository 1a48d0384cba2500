//! Why a filesystem call failed: one variant for each errno that Firn answers.

use firn_tiering::Error as TieringError;

/// Result of a filesystem call.
pub type FsResult<T> = std::result::Result<T, FsError>;

/// Why a filesystem call failed.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// Answering would need a wait that the caller forbade; ask again off the FUSE thread.
    #[error("the call would wait")]
    WouldWait,
    /// `ENOENT`
    #[error("no such file or directory")]
    NotFound,
    /// `EEXIST`
    #[error("exists already")]
    Exists,
    /// `ENOTDIR`
    #[error("not a directory")]
    NotDirectory,
    /// `EISDIR`
    #[error("is a directory")]
    IsDirectory,
    /// `ENOTEMPTY`
    #[error("directory not empty")]
    NotEmpty,
    /// `EINVAL`
    #[error("invalid argument: {0}")]
    Invalid(&'static str),
    /// `EPERM`
    #[error("operation not permitted")]
    NotPermitted,
    /// `EACCES`
    #[error("permission denied")]
    AccessDenied,
    /// `ENAMETOOLONG`
    #[error("name too long")]
    NameTooLong,
    /// `EFBIG`
    #[error("file too large")]
    TooLarge,
    /// `EMLINK`
    #[error("too many links")]
    TooManyLinks,
    /// `ENOSPC`
    #[error("no space left in any tier")]
    NoSpace,
    /// `EDQUOT`
    #[error("quota exceeded")]
    QuotaExceeded,
    /// `EROFS`
    #[error("read-only: {0}")]
    ReadOnly(String),
    /// `EROFS`
    #[error("a snapshot never changes")]
    InSnapshot,
    /// `EROFS`
    #[error("a stream is being received into the dataset")]
    Receiving,
    /// `EROFS`
    #[error("the dataset is read-only")]
    ReadOnlyDataset,
    /// `ENODATA`
    #[error("no such attribute")]
    NoAttribute,
    /// `ERANGE`
    #[error("buffer too small")]
    Range,
    /// `E2BIG`
    #[error("attribute too large")]
    TooBig,
    /// `EOPNOTSUPP`
    #[error("not supported: {0}")]
    NotSupported(&'static str),
    /// `EXDEV`
    #[error("crosses datasets")]
    CrossesDatasets,
    /// `ESTALE`
    #[error("stale handle")]
    Stale,
    /// `EBADF`
    #[error("bad file handle")]
    BadHandle,
    /// `ENXIO`
    #[error("no such offset")]
    NoOffset,
    /// `EBUSY`
    #[error("busy")]
    Busy,
    /// `EIO`: stored bytes are damaged or unreachable. Logged with the path where it is handled.
    #[error("{what}")]
    Io {
        /// What was being read or written.
        what: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl FsError {
    /// An `EIO` with its cause.
    pub fn io(
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Io { what: what.into(), source: source.into() }
    }
}

impl From<TieringError> for FsError {
    fn from(error: TieringError) -> Self {
        match error {
            TieringError::WouldWait => Self::WouldWait,
            TieringError::NoSpace => Self::NoSpace,
            TieringError::ReadOnly(reason) => Self::ReadOnly(reason),
            other => Self::io("block store", other),
        }
    }
}
