//! Watches how much disk a volume really uses.
//!
//! A look at a tree is no snapshot of it: what goes and what comes while it is walked counts twice.
//! A file that has two names for a moment counts once, and too much only counts when three looks in
//! a row say so. Files that were removed and are still open take space as well.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const EVERY: Duration = Duration::from_millis(100);

/// Disk space by its user.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    hot: u64,
    databases: u64,
    removed: u64,
}

impl Usage {
    fn bytes(&self) -> u64 {
        self.hot + self.databases + self.removed
    }

    fn look(volume: &Path, pid: u32) -> Self {
        let mut seen = HashSet::new();
        Self {
            hot: below(&volume.join("hot"), &mut seen),
            databases: below(&volume.join("namespace"), &mut seen)
                + below(&volume.join("catalog"), &mut seen),
            removed: removed(volume, pid, &mut seen),
        }
    }
}

fn below(dir: &Path, seen: &mut HashSet<u64>) -> u64 {
    let mut sum = 0;
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    for entry in entries.flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() {
            sum += below(&entry.path(), seen);
        } else if seen.insert(meta.ino()) {
            sum += meta.blocks() * 512;
        }
    }
    sum
}

/// Bytes of files below `volume` that are open and have no name any more.
fn removed(volume: &Path, pid: u32, seen: &mut HashSet<u64>) -> u64 {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return 0 };
    let mut sum = 0;
    for entry in entries.flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        if !target.starts_with(volume) || !target.to_string_lossy().ends_with(" (deleted)") {
            continue;
        }
        let Ok(meta) = fs::metadata(entry.path()) else { continue };
        if meta.is_file() && seen.insert(meta.ino()) {
            sum += meta.blocks() * 512;
        }
    }
    sum
}

/// Looks ten times a second until it is told to finish.
pub struct Sampler {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<(Usage, usize)>>,
}

impl Sampler {
    pub fn start(volume: &Path, pid: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (volume, stopped) = (PathBuf::from(volume), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut most = Usage::default();
            let mut looks = 0;
            while !stopped.load(Ordering::Relaxed) {
                let mut usage = Usage::look(&volume, pid);
                for _ in 0..2 {
                    if usage.bytes() > most.bytes() {
                        let again = Usage::look(&volume, pid);
                        usage = if again.bytes() < usage.bytes() { again } else { usage };
                    }
                }
                if usage.bytes() > most.bytes() {
                    most = usage;
                }
                looks += 1;
                std::thread::sleep(EVERY);
            }
            (most, looks)
        });
        Self { stop, thread: Some(thread) }
    }

    /// Ends it; no look may have found more than `capacity`.
    pub fn finish(&mut self, what: &str, capacity: u64) {
        self.stop.store(true, Ordering::Relaxed);
        let (most, looks) = self.thread.take().expect("was started").join().unwrap();
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        eprintln!(
            "{what}: at most {:.1} MiB of {:.1} MiB in {looks} looks: {:.1} hot, {:.1} databases, \
             {:.1} removed and open",
            mib(most.bytes()),
            mib(capacity),
            mib(most.hot),
            mib(most.databases),
            mib(most.removed)
        );
        assert!(looks > 10, "only {looks} looks");
        assert!(most.bytes() <= capacity, "{what}: {most:?} is more than {capacity}");
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
