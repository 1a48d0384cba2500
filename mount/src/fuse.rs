//! The FUSE adapter: translates kernel requests to [`crate::core::Core`] and does nothing else.
//!
//! [`mount`] attaches a core to a directory and serves it from a few threads until it is
//! unmounted. Calls run on the thread that received them, because handing one to another CPU
//! costs more than most of them; only a call that answers [`crate::FsError::WouldWait`] is copied
//! and asked again from a bounded set of threads that may block, its reply moved along.
//!
//! State kept here: which inodes are open for writing (their dirty pages may be unknown to the
//! core) and which requests are waiting. Both die with the daemon and nothing depends on them
//! afterwards. A request that is in flight when the session ends gets no answer; the kernel has
//! already told the caller `ENOTCONN`.

mod adapter;
mod convert;
mod kernel_cache;
mod mount_table;
mod mountpoint;
mod options;
mod passthrough;
mod receivers;
mod reply;
mod requests;
mod session;
mod waiters;

pub use kernel_cache::KernelCache;
pub use mount_table::{MountEntry, mount_table, mounted_at};
pub use mountpoint::{clear_dead_mount, mount_entry};
pub use options::{CacheMode, MountOptions};
pub use session::{MountedSession, Unmounter, is_serving_thread, mount};

use std::path::PathBuf;

/// The file system type in the mount table.
pub const FS_TYPE: &str = "fuse.firn";

/// Why a mount, or taking it away, failed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The mountpoint cannot be used.
    #[error("mountpoint {path} cannot be used")]
    Mountpoint {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Something is mounted there.
    #[error("{path} is a mountpoint already: {fs_type} of {source_name}")]
    Occupied {
        /// Where.
        path: PathBuf,
        /// Its file system type.
        fs_type: String,
        /// Its source as the mount table shows it.
        source_name: String,
    },
    /// `/dev/fuse` is not there or not ours to open.
    #[error("/dev/fuse cannot be opened")]
    Device(#[source] std::io::Error),
    /// `fusermount3`, which mounts for users other than root, failed or is missing.
    #[error("fusermount3 failed: {0}")]
    Helper(String),
    /// A mount option that does not exist.
    #[error("unknown mount option {0:?}")]
    UnknownOption(String),
    /// A mount option whose value cannot be used.
    #[error("mount option {option} cannot be used: {reason}")]
    BadOption {
        /// The option.
        option: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Files below the mountpoint are open.
    #[error("{0} is in use")]
    Busy(PathBuf),
    /// Anything else that the kernel refused.
    #[error("{what} failed")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

impl MountError {
    fn io(what: &'static str, source: impl Into<std::io::Error>) -> Self {
        Self::Io { what, source: source.into() }
    }
}
