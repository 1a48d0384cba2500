//! Firn: the command, the daemon and its configuration.
//!
//! The binary is one line; everything lives here, so that integration tests and other programs
//! can call it. This is the top layer: it may name `firn-mount` and `firn-tiering`, never the
//! other way round.

pub mod cli;
pub mod cold;
pub mod config;
pub mod control;
pub mod daemon;
pub mod failure;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod key;
pub mod mounts;
pub mod policy;
pub mod report;
pub mod units;
pub mod utc;
pub mod volume_dir;
