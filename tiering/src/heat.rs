//! What is remembered of how items are used, and what a placement decision may know of it. An
//! item is a number: the layers above say whether that is a file or a segment.
//!
//! [`history`] is one item's past in 104 bytes, [`features`] turns it into the numbers that the
//! classifier reads. Both are pure: time comes with each call, nothing here waits or stores.
//! [`map`] holds the pasts of all items in use and stores them, [`scans`] tells which accesses do
//! not count, and [`decayed`] is the one number that is kept of a segment.

pub mod decayed;
pub mod features;
pub mod history;
pub mod map;
pub mod scans;
mod table;

pub use decayed::Decayed;
pub use features::{FEATURES, Facts, Features, features};
pub use history::{AHEAD_MS, Access, AccessKind, History};
pub use map::{Cursor, Known, Map, MapStatus, Place};
pub use scans::{Class, Declared, Scanner, Scans, ScansConfig};
