#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use firn_mount::core::Core;
use firn_mount::types::{Caller, OpenMode, XattrMode};
use firn_mount::volume::{Observer, Touch};
use firn_tiering::ManualClock;
use firn_tiering::tier::{Memory as InMemory, Tier};
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::foresight::Seen;
use super::*;
use crate::cold::ColdTier;
use crate::config::Config;
use crate::daemon::assemble::{self, Parts};
use crate::policy;
use crate::policy::settings;
use crate::units::Size;
use crate::volume_dir::{VolumeDir, create};

/// A volume that is opened and never mounted.
struct World {
    dir: tempfile::TempDir,
    config: Config,
    runtime: Runtime,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(Uuid::new_v4(), Size(1 << 30));
        let made = config.clone();
        create::build(&dir.path().join("volume"), Path::new("hot"), |aside| {
            assemble::create(aside)?;
            Ok(made)
        })
        .unwrap();
        Self { dir, config, runtime: Runtime::new().unwrap() }
    }

    fn root(&self) -> std::path::PathBuf {
        self.dir.path().join("volume")
    }

    fn open(&self) -> Parts {
        let cold = ColdTier::plain(Arc::new(InMemory::new()) as Arc<dyn Tier>);
        let thaw = firn_mount::thaw::ThawMode::Never;
        let dir = VolumeDir::open(&self.root()).unwrap();
        let handle = self.runtime.handle();
        assemble::open(&dir, self.config.clone(), Some(cold), false, thaw, handle).unwrap()
    }
}

impl Placement {
    /// Has another policy hold, whatever its file says.
    fn hold(&self, policy: policy::Policy) {
        let mut held = Held::load(Path::new("/nowhere"), false);
        held.policy = policy;
        *self.held.write() = Arc::new(held);
    }
}

#[test]
fn a_throttle_that_cannot_be_followed_is_told() {
    let world = World::new();
    let parts = world.open();
    let placement = &parts.placement;
    placement.apply(&parts);
    assert_eq!(placement.status().policy_failure, None);
    let mut policy = policy::Policy::default();
    policy.throttle.rate = settings::Rate(Some(10));
    placement.hold(policy);
    placement.apply(&parts);
    let told = placement.status().policy_failure.unwrap();
    assert!(told.contains("the throttle of the policy does not hold"), "{told}");
    assert!(told.contains("10 bytes per second"), "{told}");
    placement.hold(policy::Policy::default());
    placement.apply(&parts);
    assert_eq!(placement.status().policy_failure, None);
    parts.close().unwrap();
}

#[test]
fn after_a_mount_that_did_not_end_in_order_all_files_are_walked_over() {
    let world = World::new();
    let parts = Arc::new(world.open());
    assert!(!parts.placement.pins.is_lost());
    parts.placement.start(&parts);
    parts.placement.stop();
    parts.close().unwrap();
    drop(parts);
    let parts = Arc::new(world.open());
    assert!(!parts.placement.pins.is_lost());
    parts.placement.start(&parts);
    // It dies here. A command that opens and closes the volume knows of no pins.
    let left = (world.root(), Arc::clone(&parts.clock));
    parts.close().unwrap();
    let names = Arc::clone(&parts.namespace);
    let memory = Memory { use_bytes: 1 << 20, hot_capacity_bytes: 1 << 30, is_spread: false };
    for _ in 0..2 {
        let placement = Placement::open(&left.0, &names, &left.1, memory, true);
        assert!(placement.pins.is_lost());
        placement.stop();
    }
    parts.placement.stop();
    assert!(!Placement::open(&left.0, &names, &left.1, memory, true).pins.is_lost());
}

#[test]
fn a_policy_that_was_taken_once_keeps_its_rules_without_its_cap() {
    let world = World::new();
    let text = "[[rule]]\nname = \"kept\"\naction = \"pin-hot\"\n[throttle]\nrate = \"1KiB/s\"\n";
    std::fs::write(world.root().join(policy::FILE_NAME), text).unwrap();
    let held = Held::load(&world.root(), false);
    assert!(held.rules.keeps_some());
    assert!(held.failure.unwrap().contains("bytes per second"));
}

#[test]
fn a_mount_that_ends_before_files_were_walked_over_leaves_that_to_the_next() {
    let world = World::new();
    let parts = world.open();
    // It dies.
    parts.placement.mark.set();
    parts.close().unwrap();
    drop(parts);
    for _ in 0..2 {
        let parts = Arc::new(world.open());
        assert!(parts.placement.pins.is_lost());
        parts.placement.start(&parts);
        parts.placement.stop();
        parts.close().unwrap();
    }
}

#[test]
fn who_goes_by_pins_hears_of_a_change_within_a_tick() {
    let world = World::new();
    let parts = world.open();
    let placement = &parts.placement;
    placement.tick(&parts);
    let caller = Caller::default();
    parts.volume.setxattr(&caller, Ino::ROOT, pins::NAME, b"hot", XattrMode::Set).unwrap();
    assert_eq!(placement.pins.len(), 1);
    placement.tick(&parts);
    placement.pins.tell_news(|| panic!("nobody was told"));
    parts.volume.removexattr(&caller, Ino::ROOT, pins::NAME).unwrap();
    assert!(placement.pins.is_empty());
    placement.pins.tell_news(|| ());
    parts.close().unwrap();
}

#[test]
fn the_classifier_hears_of_files_that_stay_open_and_of_those_that_go() {
    let world = World::new();
    let parts = world.open();
    let clock = Arc::new(ManualClock::new());
    let memory = Memory { use_bytes: 1 << 20, hot_capacity_bytes: 1 << 30, is_spread: false };
    let shared = Arc::clone(&clock) as Arc<dyn Clock>;
    let placement = Placement::open(&world.root(), &parts.namespace, &shared, memory, true);
    let watcher = Watcher(Arc::new(placement));
    let (ino, caller) = (Ino::ROOT, Caller::default());
    let mode = OpenMode { read: true, ..OpenMode::default() };
    watcher.opened(ino, &caller, mode, 9);
    let touch = Touch { ino, caller, offset: 0, len: 9, sequential: true };
    watcher.read(&touch, false);
    let seen = || watcher.0.foresight.seen();
    assert!(matches!(seen()[..], [Seen::Opened(_)]), "the read goes with it: {:?}", seen());
    clock.advance(Duration::from_secs(120));
    watcher.read(&touch, false);
    watcher.read(&touch, false);
    clock.advance(Duration::from_secs(120));
    watcher.written(&touch);
    watcher.removed(ino);
    let item = ino.0;
    assert!(matches!(
        seen()[1..],
        [Seen::Visited { item: read, .. }, Seen::Visited { item: written, .. }, Seen::Removed(gone)]
            if [read, written, gone] == [item; 3]
    ));
    parts.close().unwrap();
}

#[test]
fn where_an_open_file_belongs_is_looked_up_once_it_was_forgotten() {
    let world = World::new();
    let parts = world.open();
    let placement = &parts.placement;
    let caller = Caller::default();
    let mode = OpenMode { read: true, ..OpenMode::default() };
    let (attr, handle) = parts.volume.create(&caller, Ino::ROOT, b"held", 0o644, 0, mode).unwrap();
    let touch = Touch { ino: attr.ino, caller, offset: 0, len: 9, sequential: true };
    let reads = || placement.uses.history(attr.ino).map_or(0, |history| history.reads());
    placement.uses.forget_places();
    placement.uses.read(&parts.namespace, &touch);
    assert_eq!(reads(), 1);
    // Of what is removed nothing is kept, however long it stays open.
    parts.volume.unlink(Ino::ROOT, b"held").unwrap();
    placement.uses.read(&parts.namespace, &touch);
    assert!(placement.uses.history(attr.ino).is_none());
    parts.volume.release(attr.ino, handle);
    parts.close().unwrap();
}
