//! Random sequences of calls against a reference, over every stack of stores, with crashes.
//!
//! `reference` says what is right, `ops` what is tried, `run` does both and compares. How many
//! sequences run is set by `FIRN_MODEL_SEQUENCES`. A sequence that failed once, shrunk, becomes a
//! named test in `regressions`.

mod disk;
mod observe;
mod ops;
mod reference;
mod regressions;
mod run;

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::fake::World;
use disk::DiskWorld;
use ops::sequences;
use run::run;

/// Sequences over stores in memory where nothing else is said.
const SEQUENCES: u32 = 2000;

/// One sequence on disk for this many in memory.
const PER_DISK_SEQUENCE: u32 = 20;

fn config(share: u32) -> Config {
    let wanted = std::env::var("FIRN_MODEL_SEQUENCES").ok().and_then(|n| n.parse().ok());
    let cases = (wanted.unwrap_or(SEQUENCES) / share).max(1);
    Config { cases, failure_persistence: None, max_shrink_iters: 4000, ..Config::default() }
}

#[test]
fn a_volume_in_memory_equals_the_reference() {
    proptest!(config(1), |(ops in sequences())| {
        run(&mut World::new(), &ops);
    });
}

#[test]
fn a_volume_on_disk_equals_the_reference() {
    proptest!(config(PER_DISK_SEQUENCE), |(ops in sequences())| {
        run(&mut DiskWorld::new(), &ops);
    });
}
