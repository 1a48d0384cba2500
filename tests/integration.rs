//! Ring 5 and 7: a real daemon, a real mount, real programs, and days that go wrong.
//!
//! One binary, so that it links once; each module is named after the behaviour it holds to.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::print_stderr, reason = "a failing test shows what the daemon said")]
#![allow(unreachable_pub, reason = "the harness is shared by modules of this one binary")]

mod cold_down;
mod cold_reads;
mod crash;
mod damage;
mod disk;
mod encryption;
mod fsync;
mod harness;
mod load;
mod memory;
mod parity;
mod placement;
mod power;
mod privileges;
mod programs;
mod requests;
mod roundtrip;
mod semantics;
mod slow_link;
mod snapshots;
mod steps;
mod stores;
mod thaw;
mod tiers;
