//! Days on which the store is killed, stops, refuses, or does not tell the truth.

use std::fs;
use std::time::Duration;

use super::{Scene, small_bytes};
use crate::harness::now;

/// Segments in the store from which on a day is bad.
const IN_THE_MIDDLE: usize = 2;

/// How long the store is away.
const KILLED: Duration = Duration::from_secs(3);

/// How long the store is stopped; `FIRN_TIERS_STOPPED_S` is the time in seconds.
fn stopped() -> Duration {
    let wanted = std::env::var("FIRN_TIERS_STOPPED_S").ok();
    Duration::from_secs(wanted.map_or(10, |seconds| seconds.parse().expect("a number of seconds")))
}

/// Requests of a reader after which a day is bad.
const READS_IN_THE_MIDDLE: usize = 30;

#[test]
fn a_store_that_is_killed_and_comes_back_costs_time_only() {
    let mut scene = Scene::new(small_bytes());
    let intake = scene.begin();
    scene.wait_for_segments(IN_THE_MIDDLE);
    away(&mut scene);
    intake.succeed(&scene.volume);
    scene.empty_hot();
    let comparison = scene.begin_to_compare();
    scene.wait_for_requests(READS_IN_THE_MIDDLE);
    away(&mut scene);
    comparison.assert_same(&scene.volume, "while the store was killed");
    scene.end("killed and restarted");
}

/// The store is gone for a while.
fn away(scene: &mut Scene) {
    scene.server.kill();
    std::thread::sleep(KILLED);
    assert_healthy(scene);
    scene.server.restart();
}

/// The store is stopped for a while.
fn held_up(scene: &Scene, time: Duration) {
    scene.server.stop();
    let start = now();
    while start.elapsed() < time {
        assert_healthy(scene);
        std::thread::sleep(Duration::from_millis(500));
    }
    scene.server.go_on();
}

fn assert_healthy(scene: &Scene) {
    let status = scene.status();
    assert_eq!(status["mount"]["read_only"], false, "{status}");
}

#[test]
fn a_store_that_stops_for_a_while_costs_time_only() {
    let scene = Scene::new(small_bytes());
    let intake = scene.begin();
    scene.wait_for_segments(IN_THE_MIDDLE);
    held_up(&scene, stopped());
    intake.succeed(&scene.volume);
    scene.empty_hot();
    let comparison = scene.begin_to_compare();
    scene.wait_for_requests(READS_IN_THE_MIDDLE);
    held_up(&scene, stopped() / 2);
    comparison.assert_same(&scene.volume, "while the store was stopped");
    scene.end("stopped for a while");
}

#[test]
fn a_stopped_store_holds_up_neither_hot_files_nor_an_unmount() {
    let mut scene = Scene::new(64 << 20);
    let toml = scene.volume.dir.join("firn.toml");
    let text = fs::read_to_string(&toml).unwrap();
    let quick = text.replace("umount_deadline = \"1m\"", "umount_deadline = \"2s\"");
    assert_ne!(quick, text);
    scene.volume.umount();
    fs::write(&toml, quick).unwrap();
    scene.volume.mount();
    scene.begin().succeed(&scene.volume);
    scene.server.stop();
    let fresh = scene.volume.path("fresh");
    fs::write(&fresh, b"written while the store was away").unwrap();
    fs::File::open(&fresh).unwrap().sync_all().unwrap();
    assert_eq!(fs::read(&fresh).unwrap(), b"written while the store was away");
    scene.assert_same("with a stopped store");
    assert_healthy(&scene);
    let start = now();
    scene.volume.umount();
    assert!(start.elapsed() < Duration::from_secs(50), "unmounting took {:?}", start.elapsed());
    scene.server.go_on();
    scene.volume.mount();
    scene.assert_same("after an unmount without a store");
    assert_eq!(fs::read(&fresh).unwrap(), b"written while the store was away");
    scene.end("unmounted while stopped");
}

/// Takes a tree in and reads it back while that goes wrong all of the time.
fn comes_back_under(plan: &str, what: &str) {
    let mut scene = Scene::new(small_bytes());
    scene.server.plan(plan);
    let start = now();
    scene.begin().succeed(&scene.volume);
    let took = start.elapsed();
    scene.assert_same(what);
    scene.empty_hot();
    let start = now();
    scene.assert_same(what);
    let (requests, befallen) = scene.server.requests();
    eprintln!(
        "{what}: in after {took:?}, read from the store in {:?}, {befallen} of {requests} requests went \
         wrong",
        start.elapsed()
    );
    assert!(befallen > 0, "nothing went wrong");
    assert_healthy(&scene);
    scene.end(what);
}

#[test]
fn a_store_that_says_slow_down() {
    comes_back_under("seed = 1\nslow_down = 0.2\nretry_after_s = 0", "503 at 20 %");
}

#[test]
fn a_store_that_cuts_bodies_short() {
    comes_back_under("seed = 2\ntruncate = 0.1", "short bodies at 10 %");
}

#[test]
fn a_store_that_answers_wrong_bytes() {
    comes_back_under("seed = 3\ncorrupt = 0.02", "wrong bytes at 2 %");
}

#[test]
fn a_store_that_resets_connections() {
    comes_back_under("seed = 4\nreset = 0.05", "resets at 5 %");
}
