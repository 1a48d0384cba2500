//! On a good day.

use super::{Scene, large_bytes};
use crate::harness::now;

#[test]
fn more_than_the_hot_tier_holds_goes_in_and_comes_back() {
    let scene = Scene::new(large_bytes());
    let start = now();
    scene.begin().succeed(&scene.volume);
    let took = start.elapsed();
    let status = scene.status();
    eprintln!("taken in {} MiB in {took:?}", large_bytes() >> 20);
    assert_eq!(status["counters"]["damaged_reads"], 0, "{status}");
    assert!(status["counters"]["dropped_bytes"].as_u64() > Some(0), "{status}");
    let start = now();
    scene.assert_same("read back");
    eprintln!("read back and compared in {:?}", start.elapsed());
    scene.empty_hot();
    let start = now();
    scene.assert_same("read from the store");
    eprintln!("read from the store and compared in {:?}", start.elapsed());
    let status = scene.status();
    assert!(status["counters"]["cold_reads"].as_u64() > Some(0), "{status}");
    assert_eq!(status["mount"]["read_only"], false, "{status}");
    scene.end("a good day");
}
