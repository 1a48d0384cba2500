//! Firn's blocks: cut, encode, checksum, pack into segments, place, recall, verify, repair.
//!
//! This crate knows bytes, blocks, segments and tiers. It never names a file, an inode, a
//! kernel interface or a command line; `firn-mount` builds the filesystem on [`Blocks`].

pub mod block;
pub mod blocks;
pub mod budget;
mod buffers;
pub mod catalog;
pub mod classifier;
pub mod clock;
pub mod crypt;
pub mod encode;
pub mod envelope;
pub mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod heat;
pub mod mix;
pub mod readahead;
pub mod recall;
pub mod replay;
pub mod segment;
pub mod store;
pub mod throttle;
pub mod tier;

pub use block::{BlockDigest, BlockId, BlockRef, Epoch, MAX_BLOCK_LEN, MAX_EXPORT_LEN};
pub use blocks::{Blocks, IdSource, Intent, Served, Source, Wait};
pub use budget::{Budget, Permit};
pub use buffers::Buffer;
pub use clock::{Clock, ManualClock, SystemClock};
pub use error::{Error, Result};
pub use mix::mix;
pub use readahead::ReadAhead;
pub use store::{BackupGate, BackupProof, BlockStore, Liveness, Steward, StoreConfig};
