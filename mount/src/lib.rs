//! Firn's filesystem: the namespace, open files and write buffers, and the FUSE adapter.
//!
//! [`core::Core`] is the filesystem as plain methods on plain types, callable without a kernel;
//! [`fuse`] translates kernel requests to it and does nothing else.

pub mod backup;
pub mod core;
pub mod error;
pub mod file;
pub mod fuse;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod namespace;
pub mod stream;
pub mod thaw;
pub mod types;
pub mod volume;

pub use error::{FsError, FsResult};
