//! Why a tier failed: the kind decides whether another attempt makes sense, the message is for
//! people and was cleaned of secrets before it came here. It is the source of
//! [`Error::Cold`].

use std::io;

use crate::error::Error;

/// What sort of failure, as far as the caller's next step depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Connection, time-out, throttling, server error: may pass.
    Unavailable,
    /// The answer was shorter or longer than it should be: may pass.
    BadBody,
    /// Credentials or permissions: will not pass by itself.
    Refused,
    /// The bucket, container or root directory does not exist.
    NoRoot,
    /// The store has no room.
    Full,
    /// The store is known not to answer, and was not asked.
    Down,
    /// The place belongs to another mount, or it is not known yet that it is ours.
    NotOurs,
    /// Anything else that another attempt will not change.
    Rejected,
}

/// Why a tier failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct TierFailure {
    /// What sort.
    pub kind: FailureKind,
    /// For people; contains no secret.
    pub message: String,
}

impl TierFailure {
    /// The error of a call that failed like this.
    pub fn error(
        kind: FailureKind,
        action: &'static str,
        object: &str,
        message: impl Into<String>,
    ) -> Error {
        let source = Box::new(Self { kind, message: message.into() });
        Error::Cold { action, object: object.to_owned(), source }
    }

    /// The failure inside an error of a tier.
    pub fn of(error: &Error) -> Option<&Self> {
        match error {
            Error::Cold { source, .. } => source.downcast_ref(),
            _ => None,
        }
    }

    /// An I/O error of a local tier.
    pub(super) fn from_io(action: &'static str, object: &str, error: &io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::NotFound => Error::NotFound(object.to_owned()),
            kind => Self::error(kind_of_io(kind), action, object, error.to_string()),
        }
    }
}

/// Sorts local I/O errors. A medium error is not retried: the layer above has a second copy to
/// try, and asking a failing disk again costs seconds.
pub(super) fn kind_of_io(kind: io::ErrorKind) -> FailureKind {
    use io::ErrorKind as Kind;
    match kind {
        Kind::PermissionDenied | Kind::ReadOnlyFilesystem => FailureKind::Refused,
        Kind::StorageFull | Kind::QuotaExceeded => FailureKind::Full,
        Kind::Interrupted
        | Kind::TimedOut
        | Kind::WouldBlock
        | Kind::ConnectionRefused
        | Kind::ConnectionReset
        | Kind::ConnectionAborted
        | Kind::BrokenPipe
        | Kind::NotConnected
        | Kind::HostUnreachable
        | Kind::NetworkUnreachable
        | Kind::StaleNetworkFileHandle => FailureKind::Unavailable,
        Kind::UnexpectedEof => FailureKind::BadBody,
        _ => FailureKind::Rejected,
    }
}

/// Whether the same call may succeed when it is made again.
pub fn is_retriable(error: &Error) -> bool {
    match error {
        Error::TimedOut(_) => true,
        Error::Cold { .. } => TierFailure::of(error).is_some_and(|failure| {
            matches!(failure.kind, FailureKind::Unavailable | FailureKind::BadBody)
        }),
        _ => false,
    }
}
