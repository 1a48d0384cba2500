//! The volume against expectations: single behaviours here, random sequences in `model`.
#![allow(clippy::unwrap_used, reason = "tests")]

mod ahead;
mod data;
mod digests;
mod durability;
mod fake;
mod faults;
mod liveness;
mod model;
mod observer;
mod properties;
mod quota;
mod snapdir;
mod snapshots;
mod stream;
mod thaw;
mod threads;
