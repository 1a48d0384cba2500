//! Ring 5, the command: what a user types, what comes back, and that bad input is one clear error
//! with a hint, the right exit code and nothing half-made.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::print_stderr, reason = "what a failed daemon logged")]
#![allow(unreachable_pub, reason = "helpers are shared by modules of this one binary")]

#[path = "command/bad_days.rs"]
mod bad_days;
#[path = "command/digests.rs"]
mod digests;
#[path = "command/init.rs"]
mod init;
#[path = "command/mount.rs"]
mod mount;
#[path = "command/mounted.rs"]
mod mounted;
#[path = "command/one_definition.rs"]
mod one_definition;
#[path = "command/policy.rs"]
mod policy;
#[path = "command/properties.rs"]
mod properties;
#[path = "command/repair.rs"]
mod repair;
#[path = "command/run.rs"]
mod run;
#[path = "command/snapshots.rs"]
mod snapshots;
#[path = "command/streams.rs"]
mod streams;
#[path = "command/systemd.rs"]
mod systemd;
#[path = "command/tiers.rs"]
mod tiers;
#[path = "command/verify.rs"]
mod verify;
#[path = "command/watching.rs"]
mod watching;
