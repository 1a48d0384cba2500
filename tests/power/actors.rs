//! Those who make, move and remove names, take snapshots and move data between the tiers while the
//! power is cut, and what they were told was done.
//!
//! Each thing goes one way: it comes, it moves once, it goes. What had come before a cut and was not
//! yet about to go after it must be there; what had gone before it must not.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::harness::{FIRN, Volume, noise, succeed};

/// How many names are there at a time, and how many snapshots.
const NAMES: u64 = 8;
const SNAPSHOTS: u64 = 2;

/// Where a thing is, as far as somebody was told, in the order in which it gets there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    /// In its first place.
    Came,
    /// On its way to the second.
    Moves,
    /// In its second place.
    Moved,
    /// About to go, or gone but nobody was told.
    Goes,
    /// Gone.
    Gone,
}

/// What is acknowledged of names and snapshots.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    names: BTreeMap<u64, Fate>,
    snapshots: BTreeMap<u64, (Fate, u64)>,
    synced: Option<u64>,
}

impl Seen {
    /// What was so before a cut and still is after it.
    pub(super) fn still_so(&self, after: &Self) -> Self {
        let names = self.names.iter().filter(|(name, fate)| after.names.get(name) == Some(fate));
        let snapshots = self.snapshots.iter().filter(|(name, (fate, _))| {
            after.snapshots.get(name).is_some_and(|(now, _)| now == fate)
        });
        Self {
            names: names.map(|(name, fate)| (*name, *fate)).collect(),
            snapshots: snapshots.map(|(name, kept)| (*name, *kept)).collect(),
            synced: self.synced,
        }
    }

    /// Everything is where it was said to be.
    pub(super) fn verify(&self, volume: &Volume, cut: u64) {
        for (name, fate) in &self.names {
            let places = [first(&volume.mountpoint, *name), second(&volume.mountpoint, *name)];
            let found = places.clone().map(|place| fs::read(place).ok());
            let expected = Some(noise(*name, len(*name)));
            let is_right = match fate {
                Fate::Came => found == [expected, None],
                Fate::Moved => found == [None, expected],
                // One place or the other, as rename is atomic.
                Fate::Moves => found == [expected.clone(), None] || found == [None, expected],
                Fate::Goes => true,
                Fate::Gone => found == [None, None],
            };
            let lens = found.map(|bytes| bytes.map(|bytes| bytes.len()));
            assert!(is_right, "cut {cut}: {} is {fate:?}, found {lens:?}", places[0].display());
        }
        for (number, (fate, log)) in &self.snapshots {
            let kept = volume.path(".firn/snapshot").join(snapshot_name(*number));
            match fate {
                Fate::Came => {
                    let bytes = fs::read(kept.join("synced"))
                        .unwrap_or_else(|e| panic!("cut {cut}: snapshot {number}: {e}"));
                    assert_eq!(bytes, synced(*log), "cut {cut}: snapshot {number}");
                }
                Fate::Gone => assert!(!kept.exists(), "cut {cut}: snapshot {number} is back"),
                Fate::Goes | Fate::Moves | Fate::Moved => {}
            }
        }
        if let Some(least) = self.synced {
            let bytes = fs::read(volume.path("synced"))
                .unwrap_or_else(|e| panic!("cut {cut}: what `firn sync` wrote: {e}"));
            // A later write may be there as well, or a part of it.
            let found = bytes.first_chunk().map_or(0, |head| u64::from_le_bytes(*head));
            assert!(found >= least, "cut {cut}: {found} instead of {least}, {} bytes", bytes.len());
        }
    }
}

fn first(root: &Path, name: u64) -> PathBuf {
    root.join("names/first").join(format!("{name}"))
}

fn second(root: &Path, name: u64) -> PathBuf {
    root.join("names/second").join(format!("{name}"))
}

/// Inline, packed and long files.
fn len(name: u64) -> usize {
    [10, 3000, 70_000, 1_500_000][name as usize % 4] + name as usize % 5
}

fn snapshot_name(number: u64) -> String {
    format!("s{number}")
}

/// Content that is replaced in one write of constant length and followed by `firn sync`.
fn synced(generation: u64) -> Vec<u8> {
    generation.to_le_bytes().repeat(64)
}

/// The actors, who rest while a copy is verified.
pub(super) struct Actors {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    next: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Actors {
    pub(super) fn new(volume: &Volume) -> Self {
        for place in [first(&volume.mountpoint, 0), second(&volume.mountpoint, 0)] {
            fs::create_dir_all(place.parent().unwrap()).unwrap();
        }
        volume.run(&["sync", volume.mountpoint.to_str().unwrap()]);
        Self {
            seen: Arc::default(),
            stop: Arc::default(),
            next: Arc::new(AtomicU64::new(1)),
            threads: Vec::new(),
        }
    }

    /// What they were told so far.
    pub(super) fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn start(&mut self, volume: &Volume, round: u64) {
        self.stop.store(false, Ordering::Relaxed);
        let acts: [fn(&Actor, u64); 3] = [Actor::names, Actor::snapshots, Actor::tiers];
        self.threads = acts
            .into_iter()
            .map(|act| {
                let actor = Actor {
                    root: volume.mountpoint.clone(),
                    seen: Arc::clone(&self.seen),
                    next: Arc::clone(&self.next),
                };
                let stop = Arc::clone(&self.stop);
                std::thread::spawn(move || {
                    let mut turn = round;
                    while !stop.load(Ordering::Relaxed) {
                        act(&actor, turn);
                        turn += 1;
                    }
                })
            })
            .collect();
    }

    /// Ends them; what they are at, they finish.
    pub(super) fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }

    /// Every kind of act was acknowledged at least once: of what went further, too.
    pub(super) fn assert_all_acted(&self) {
        let seen = self.seen();
        for fate in [Fate::Came, Fate::Moved, Fate::Gone] {
            assert!(seen.names.values().any(|found| *found >= fate), "no name {fate:?}");
        }
        for fate in [Fate::Came, Fate::Gone] {
            let any = seen.snapshots.values().any(|(found, _)| *found >= fate);
            assert!(any, "no snapshot {fate:?}");
        }
        assert!(seen.synced.is_some(), "`firn sync` never returned");
    }
}

struct Actor {
    root: PathBuf,
    seen: Arc<Mutex<Seen>>,
    next: Arc<AtomicU64>,
}

impl Actor {
    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn firn(&self, args: &[&str]) {
        succeed(Command::new(FIRN).args(args));
    }

    fn told(&self, name: u64, fate: Fate) {
        self.seen.lock().unwrap().names.insert(name, fate);
    }

    /// One name comes, an older one moves, and one that moved goes.
    fn names(&self, _turn: u64) {
        let name = self.number();
        let (from, to) = (first(&self.root, name), second(&self.root, name));
        fs::write(&from, noise(name, len(name))).unwrap();
        File::open(&from).unwrap().sync_all().unwrap();
        sync_dir(&from);
        self.told(name, Fate::Came);
        if !name.is_multiple_of(3) {
            self.told(name, Fate::Moves);
            fs::rename(&from, &to).unwrap();
            sync_dir(&to);
            sync_dir(&from);
            self.told(name, Fate::Moved);
        }
        let oldest = {
            let seen = self.seen.lock().unwrap();
            let there = seen.names.iter().filter(|(_, fate)| **fate != Fate::Gone);
            (there.clone().count() as u64 > NAMES)
                .then(|| there.map(|(name, fate)| (*name, *fate)).next().unwrap())
        };
        if let Some((name, fate)) = oldest {
            let place = match fate {
                Fate::Moved => second(&self.root, name),
                _ => first(&self.root, name),
            };
            self.told(name, Fate::Goes);
            fs::remove_file(&place).unwrap();
            sync_dir(&place);
            self.told(name, Fate::Gone);
        }
    }

    /// `firn sync` keeps what was written before; a snapshot shows it; the oldest one goes.
    fn snapshots(&self, _turn: u64) {
        let number = self.number();
        // In place, so that no cut meets a file that is cut off.
        let mut open = File::options();
        let mut file =
            open.write(true).create(true).truncate(false).open(self.root.join("synced")).unwrap();
        file.write_all(&synced(number)).unwrap();
        drop(file);
        self.firn(&["sync", self.root.to_str().unwrap()]);
        self.seen.lock().unwrap().synced = Some(number);
        let at = |number| format!("{}@{}", self.root.display(), snapshot_name(number));
        self.firn(&["snapshot", "create", &at(number)]);
        self.seen.lock().unwrap().snapshots.insert(number, (Fate::Came, number));
        let oldest = {
            let seen = self.seen.lock().unwrap();
            let there = seen.snapshots.iter().filter(|(_, (fate, _))| *fate == Fate::Came);
            (there.clone().count() as u64 > SNAPSHOTS)
                .then(|| there.map(|(number, kept)| (*number, kept.1)).next().unwrap())
        };
        if let Some((number, log)) = oldest {
            let tell = |fate| self.seen.lock().unwrap().snapshots.insert(number, (fate, log));
            tell(Fate::Goes);
            self.firn(&["snapshot", "destroy", &at(number)]);
            tell(Fate::Gone);
        }
    }

    /// Copies to cold, drops from hot, and brings some back.
    fn tiers(&self, turn: u64) {
        let act = ["archive", "release", "stage"][turn as usize % 3];
        let below = self.root.join("names/second");
        let mut command = Command::new(FIRN);
        command.args(["tier", act, "-r"]).arg(&below);
        // Files that go meanwhile are told of, which is an error of the command.
        let output = command.output().unwrap();
        assert!(output.status.code().is_some(), "{act}: {output:?}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

fn sync_dir(path: &Path) {
    File::open(path.parent().unwrap()).unwrap().sync_all().unwrap();
}
