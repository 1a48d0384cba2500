//! What is remembered of how items are used, and what a placement decision may know of it. An
//! item is a number: the layers above say whether that is a file or a segment.
//!
//! [`history`] is one item's past in 104 bytes, [`features`] turns it into the numbers that the
//! classifier reads. Both are pure: time comes with each call, nothing here waits or stores.

pub mod features;
pub mod history;

pub use features::{FEATURES, Facts, Features, features};
pub use history::{Access, AccessKind, History};
