#![allow(clippy::unwrap_used, reason = "tests")]

use std::cell::RefCell;
use std::time::Duration;

use anyhow::anyhow;
use firn_tiering::{Clock, ManualClock};
use tempfile::TempDir;

use super::*;

/// Datasets and snapshots in memory.
#[derive(Default)]
struct Fake {
    datasets: RefCell<BTreeMap<u32, (&'static str, Vec<Existing>)>>,
    broken: RefCell<Vec<u32>>,
    taken: RefCell<usize>,
}

impl Tree for Fake {
    fn datasets(&self) -> Vec<(Dataset, Vec<u8>)> {
        let datasets = self.datasets.borrow();
        datasets.iter().map(|(of, (path, _))| (Dataset(*of), path.as_bytes().to_vec())).collect()
    }

    fn snapshots(&self, dataset: Dataset) -> anyhow::Result<Vec<Existing>> {
        Ok(self.datasets.borrow()[&dataset.0].1.clone())
    }

    fn take(&self, datasets: &[Dataset], name: &str) -> anyhow::Result<()> {
        if datasets.iter().any(|dataset| self.broken.borrow().contains(&dataset.0)) {
            return Err(anyhow!("out of order"));
        }
        *self.taken.borrow_mut() += 1;
        for dataset in datasets {
            let snapshot = Existing { name: name.to_owned(), in_use: false };
            self.datasets.borrow_mut().get_mut(&dataset.0).unwrap().1.push(snapshot);
        }
        Ok(())
    }

    fn destroy(&self, dataset: Dataset, names: &[String]) -> anyhow::Result<()> {
        let mut datasets = self.datasets.borrow_mut();
        let snapshots = &mut datasets.get_mut(&dataset.0).unwrap().1;
        assert!(snapshots.iter().all(|found| !(found.in_use && names.contains(&found.name))));
        snapshots.retain(|found| !names.contains(&found.name));
        Ok(())
    }
}

struct World {
    dir: TempDir,
    clock: ManualClock,
    tree: Fake,
    keeper: Keeper,
}

const RULE: &str = "[[snapshots]]\ndataset = \"/a\"\nrecursive = true\nhourly = 2\n";

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tree = Fake::default();
        for (number, path) in [(1, "/"), (2, "/a"), (3, "/a/b")] {
            tree.datasets.borrow_mut().insert(number, (path, Vec::new()));
        }
        let keeper = Keeper::new(dir.path().join(policy::FILE_NAME));
        Self { dir, clock: ManualClock::new(), tree, keeper }
    }

    fn policy(&self, text: &str) {
        policy::replace(self.dir.path(), text).unwrap();
    }

    fn tick(&mut self) -> bool {
        self.keeper.tick(super::super::secs(self.clock.now()), &self.tree, &|| false)
    }

    fn pass(&mut self, time: Duration) {
        self.clock.advance(time);
        self.tick();
    }

    fn names(&self, dataset: u32) -> Vec<String> {
        let datasets = self.tree.datasets.borrow();
        datasets[&dataset].1.iter().map(|found| found.name.clone()).collect()
    }

    fn state(&self, dataset: u32) -> DatasetState {
        self.keeper.states[&Dataset(dataset)].clone()
    }
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn snapshots_come_and_go_as_the_policy_says() {
    let mut world = World::new();
    assert!(world.tick());
    assert!(world.keeper.state().datasets.is_empty());
    world.policy(RULE);
    assert!(world.tick() && !world.tick());
    assert_eq!(*world.tree.taken.borrow(), 1, "both of the same instant");
    assert!(world.keeper.state().missing.is_empty());
    let first = world.names(2);
    assert_eq!((first.len(), world.names(3), world.names(1)), (1, first.clone(), vec![]));
    let state = world.state(2);
    assert_eq!((state.last, state.failure), (Some(first[0].clone()), None));
    let turn = Turn::of_snapshot(&first[0]).unwrap();
    assert_eq!(state.next_due, Some(turn.next().start()));
    for _ in 0..3 {
        world.pass(HOUR);
    }
    assert_eq!(world.names(2).len(), 2);
    assert!(!world.names(2).contains(&first[0]));
    // As after a restart.
    let before = world.names(2);
    world.keeper = Keeper::new(world.dir.path().join(policy::FILE_NAME));
    world.tick();
    assert_eq!(world.names(2), before);
    // Long downtime is made up for once.
    world.pass(100 * HOUR);
    assert_eq!(world.names(2).len(), 2);
    assert_eq!(world.names(2)[0], before[1]);
}

#[test]
fn a_hold_that_is_released_lets_an_old_snapshot_go() {
    let mut world = World::new();
    world.policy(RULE);
    world.tick();
    let held = |world: &World, in_use: bool| {
        world.tree.datasets.borrow_mut().get_mut(&2).unwrap().1[0].in_use = in_use;
    };
    held(&world, true);
    let first = world.names(2)[0].clone();
    for _ in 0..4 {
        world.pass(HOUR);
    }
    assert_eq!((world.names(2).len(), world.names(3).len()), (3, 2));
    held(&world, false);
    world.pass(Duration::from_secs(AGAIN as u64));
    assert!(!world.names(2).contains(&first));
}

#[test]
fn a_policy_that_is_wrong_leaves_the_last_good_one_and_says_so() {
    let mut world = World::new();
    world.policy(RULE);
    world.tick();
    world.policy("[[snapshots]]\ndataset = \"/a\"\nhorly = 1");
    assert!(world.tick());
    let failure = world.keeper.state().policy_failure.unwrap();
    assert!(failure.starts_with("policy.toml: line 3, column 1: unknown field"), "{failure}");
    let before = world.names(2).len();
    world.pass(HOUR);
    assert_eq!(world.names(2).len(), before + 1, "the old policy holds");
    world.policy("[[snapshots]]\ndataset = \"/no\"\ndaily = 1");
    world.tick();
    assert_eq!(world.keeper.state().missing, ["/no"]);
    world.policy("");
    world.tick();
    assert!(world.keeper.state().policy_failure.is_none());
    assert!(world.keeper.state().datasets.is_empty());
    world.pass(5 * HOUR);
    assert_eq!(world.names(2).len(), before + 1);
}

#[test]
fn one_that_fails_holds_up_no_other_and_is_tried_again() {
    let mut world = World::new();
    world.policy(RULE);
    world.tree.broken.borrow_mut().push(3);
    world.tick();
    assert_eq!((world.names(2).len(), world.names(3).len()), (1, 0));
    let failure = world.state(3).failure.unwrap();
    assert!(failure.starts_with("taking auto-hourly-") && failure.ends_with(": out of order"));
    assert_eq!(world.state(2).failure, None);
    world.clock.advance(Duration::from_secs(2));
    assert!(!world.tick(), "not at once");
    world.tree.broken.borrow_mut().clear();
    world.pass(Duration::from_secs(AGAIN as u64));
    assert_eq!((world.names(3).len(), world.state(3).failure), (1, None));
}

#[test]
fn nothing_begins_any_more_once_it_is_to_stop() {
    let mut world = World::new();
    world.policy(RULE);
    world.keeper.tick(super::super::secs(world.clock.now()), &world.tree, &|| true);
    assert!(world.names(2).is_empty());
}
