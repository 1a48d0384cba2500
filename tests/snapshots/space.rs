//! Destroying what nobody needs gives its space back, in the background.

use std::fs;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::{at, make_dataset, take};
use crate::harness::{Volume, now, shell};

/// How long the background may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Stored bytes that something refers to.
fn live_bytes(volume: &Volume) -> u64 {
    volume.run(&["sync", volume.mountpoint.to_str().unwrap()]);
    let status = volume.run(&["status", "--json", volume.dir.to_str().unwrap()]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let bytes = |name: &str| status["data"][name].as_u64().unwrap();
    bytes("stored_bytes") - bytes("dead_bytes")
}

/// Fills a file, and has its segment sealed: dead bytes are counted in sealed ones.
fn fill(volume: &mut Volume, name: &str) {
    shell("head -c 16M /dev/urandom >\"$1\"", &[&volume.path(name)]);
    volume.umount();
    volume.mount();
}

fn wait_for(volume: &Volume, expected: u64) {
    let start = now();
    loop {
        let found = live_bytes(volume);
        if found.abs_diff(expected) <= expected / 50 {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{found} bytes are live, not {expected}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn what_only_a_snapshot_held_is_freed_with_it() {
    let mut volume = Volume::with(&[], &[]);
    fill(&mut volume, "stays");
    let before = live_bytes(&volume);
    fill(&mut volume, "goes");
    take(&volume, "", "s");
    fs::remove_file(volume.path("goes")).unwrap();
    let held = live_bytes(&volume);
    assert!(held > before + (15 << 20), "the snapshot holds the file: {before} {held}");
    let used = || {
        let list = volume.run(&["snapshot", "list", "--json", volume.mountpoint.to_str().unwrap()]);
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        list["snapshots"][0]["used_bytes"].as_u64().unwrap()
    };
    // A removed file is cleared away a moment later.
    for _ in 0..100 {
        if used() == 16 << 20 {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(used(), 16 << 20);
    volume.run(&["snapshot", "destroy", &at(&volume, "", "s")]);
    wait_for(&volume, before);
}

#[test]
fn everything_comes_back_after_clones_rollbacks_and_destroys() {
    let mut volume = Volume::with(&[], &[]);
    fill(&mut volume, "stays");
    let before = live_bytes(&volume);
    make_dataset(&volume, "a");
    fill(&mut volume, "a/one");
    take(&volume, "a", "one");
    fill(&mut volume, "a/two");
    take(&volume, "a", "two");
    let clone = volume.path("c");
    volume.run(&["snapshot", "clone", &at(&volume, "a", "one"), clone.to_str().unwrap()]);
    fill(&mut volume, "c/one");
    volume.run(&["snapshot", "rollback", "-r", &at(&volume, "a", "one")]);
    fill(&mut volume, "a/three");
    volume.run(&["dataset", "promote", clone.to_str().unwrap()]);
    take(&volume, "c", "late");
    assert!(live_bytes(&volume) > before + (40 << 20));
    volume.run(&["dataset", "destroy", volume.path("a").to_str().unwrap()]);
    volume.run(&["dataset", "destroy", "-r", clone.to_str().unwrap()]);
    wait_for(&volume, before);
}

/// Random numbers that a seed repeats.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % end
    }

    fn one_of<'a>(&mut self, names: &'a [String]) -> &'a str {
        &names[self.below(names.len() as u64) as usize]
    }
}

/// What may be refused, because something is in the way.
fn attempt(volume: &Volume, args: &[&str]) -> bool {
    volume.firn().args(args).output().unwrap().status.success()
}

/// Writes up to 1 MiB somewhere in one of a dataset's files, in place.
fn write_somewhere(volume: &Volume, dataset: &str, dice: &mut Dice) {
    let path = volume.path(&format!("{dataset}/file-{}", dice.below(8)));
    let file = fs::File::options().write(true).create(true).truncate(false).open(path).unwrap();
    let noise: Vec<u8> = (0..1 + dice.below(1 << 20)).map(|_| dice.below(256) as u8).collect();
    file.write_all_at(&noise, dice.below(6 << 20)).unwrap();
}

/// One operation on the datasets that there are.
fn disturb(volume: &Volume, datasets: &mut Vec<String>, dice: &mut Dice, step: u64) {
    let dataset = dice.one_of(datasets).to_owned();
    let snapshot = at(volume, &dataset, &format!("s{}", dice.below(step + 1)));
    match dice.below(16) {
        0..9 => write_somewhere(volume, &dataset, dice),
        9 => {
            let path = volume.path(&format!("{dataset}/file-{}", dice.below(8)));
            // It need not be there.
            let _ = fs::remove_file(path);
        }
        10 | 11 => take(volume, &dataset, &format!("s{step}")),
        12 => {
            attempt(volume, &["snapshot", "destroy", &snapshot]);
        }
        13 => {
            attempt(volume, &["snapshot", "rollback", "-r", &snapshot]);
        }
        14 => {
            let clone = format!("clone-{step}");
            if attempt(volume, &["snapshot", "clone", &snapshot, path_of(volume, &clone).as_str()])
            {
                datasets.push(clone);
            }
        }
        _ => {
            attempt(volume, &["dataset", "promote", &path_of(volume, &dataset)]);
        }
    }
}

fn path_of(volume: &Volume, dataset: &str) -> String {
    volume.path(dataset).to_str().unwrap().to_owned()
}

fn stored_bytes(volume: &Volume) -> u64 {
    let status = volume.run(&["status", "--json", volume.dir.to_str().unwrap()]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    status["data"]["stored_bytes"].as_u64().unwrap()
}

#[test]
fn stored_bytes_return_after_everything_was_disturbed_and_destroyed() {
    let mut volume = Volume::with(&[], &[]);
    for file in 0..6 {
        fill(&mut volume, &format!("stays-{file}"));
    }
    let before = stored_bytes(&volume);
    let seed = std::env::var("FIRN_TEST_SEED").map_or(20_261_121, |seed| seed.parse().unwrap());
    let mut dice = Dice(seed);
    let mut datasets = vec!["a".to_owned(), "b".to_owned()];
    datasets.iter().for_each(|dataset| make_dataset(&volume, dataset));
    for step in 0..250 {
        disturb(&volume, &mut datasets, &mut dice, step);
    }
    let most = stored_bytes(&volume);
    assert!(most > before + (16 << 20), "{before} {most}");
    while !datasets.is_empty() {
        let count = datasets.len();
        datasets.retain(|dataset| {
            !attempt(&volume, &["dataset", "destroy", "-r", &path_of(&volume, dataset)])
        });
        assert!(datasets.len() < count, "{datasets:?} stay");
    }
    let start = now();
    loop {
        let found = stored_bytes(&volume);
        if found.abs_diff(before) <= before / 50 {
            break;
        }
        assert!(
            start.elapsed() < 2 * PATIENCE,
            "{found} bytes are stored, not {before}; FIRN_TEST_SEED={seed}"
        );
        std::thread::sleep(Duration::from_millis(500));
    }
}
