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

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::fake::World;
use disk::DiskWorld;
use ops::{rough_sequences, sequences};
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

/// Says how long [`a_volume_on_disk_equals_the_reference_for_as_long_as_it_is_told`] goes on.
const SECONDS: &str = "FIRN_ZTEST_SECONDS";

/// Names the one seed to be run.
const SEED: &str = "FIRN_ZTEST_SEED";

fn number_in(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number is expected"))
}

/// One long rough sequence, made of a seed.
fn run_seed(seed: u64) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let ops = rough_sequences().new_tree(&mut runner).expect("it rejects nothing").current();
    run(&mut DiskWorld::new(), &ops);
    wait_for_threads();
}

/// Every thread of a volume ends soon after it. Only for a test that has its process to itself.
#[allow(clippy::disallowed_methods, reason = "real threads take real time")]
fn wait_for_threads() {
    let is_ours = |name: &String| name.starts_with("firn-") || name.starts_with("fjall:");
    let mut left = Vec::new();
    for _ in 0..3000 {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).ok();
        left = tasks.flatten().filter_map(name).filter(is_ours).collect();
        if left.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("threads stay when their volume is gone: {left:?}");
}

#[test]
#[ignore = "goes on for as long as it is told: `scripts/test.sh soak`"]
#[allow(clippy::print_stderr, reason = "the seed that fails is needed to run it again")]
#[allow(clippy::disallowed_methods, reason = "real threads take real time")]
fn a_volume_on_disk_equals_the_reference_for_as_long_as_it_is_told() {
    if let Some(seed) = number_in(SEED) {
        return run_seed(seed);
    }
    let end = Instant::now() + Duration::from_secs(number_in(SECONDS).unwrap_or(60));
    for seed in 1.. {
        eprintln!("{SEED}={seed}");
        run_seed(seed);
        if Instant::now() >= end {
            return;
        }
    }
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
