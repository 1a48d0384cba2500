//! Writers that run until their mount dies, and what `fsync` acknowledged to them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

const WRITERS: u64 = 3;

/// What `fsync` acknowledged, by name: the newest generation of a file that is replaced, the
/// length of a log that grows.
pub type Acknowledged = HashMap<String, u64>;

/// Content that names its own generation, so that a torn or mixed file is recognised.
fn content(generation: u64, len: usize) -> Vec<u8> {
    let mut state = generation.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = generation.to_le_bytes().to_vec();
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// 8 bytes to 3 MiB, so that inline, packed and whole blocks all occur.
fn length(generation: u64) -> usize {
    [8, 500, 4096, 70_000, 300_000, 3 << 20][generation as usize % 6] + (generation % 7) as usize
}

/// Byte of a log, so that each has a place of its own.
fn log_byte(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

fn is_log(name: &str) -> bool {
    name.starts_with("log")
}

/// Writers at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Acknowledged>>,
    writers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts writers in `dir`; generations go on from those in `before`.
    pub fn start(dir: &Path, before: &Acknowledged) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(Mutex::new(before.clone()));
        let writers = (0..WRITERS)
            .map(|writer| {
                let (dir, stop, acknowledged) =
                    (dir.to_owned(), Arc::clone(&stop), Arc::clone(&acknowledged));
                std::thread::spawn(move || write_until_death(&dir, writer, &stop, &acknowledged))
            })
            .collect();
        Self { stop, acknowledged, writers }
    }

    /// What was acknowledged so far.
    pub fn acknowledged(&self) -> Acknowledged {
        self.acknowledged.lock().unwrap().clone()
    }

    /// Ends the writers and returns all that was acknowledged to them.
    pub fn stop(self) -> Acknowledged {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.join().unwrap();
        }
        self.acknowledged.lock().unwrap().clone()
    }
}

/// Replaces a few files again and again, by temp and rename, lets a log grow, and writes other files
/// that nobody syncs, until the mount dies.
fn write_until_death(
    dir: &Path,
    writer: u64,
    stop: &AtomicBool,
    acknowledged: &Mutex<Acknowledged>,
) {
    let mut generation = 1 + writer * 1_000_000;
    let newest = |found: &Acknowledged| {
        found.iter().filter(|(name, _)| !is_log(name)).map(|(_, last)| *last).max()
    };
    generation += newest(&acknowledged.lock().unwrap()).unwrap_or(0);
    let log = format!("log{writer}");
    while !stop.load(Ordering::Relaxed) {
        generation += 1;
        let name = format!("w{writer}-{}", generation % 5);
        if replace(&dir.join(&name), generation).is_err() {
            return;
        }
        acknowledged.lock().unwrap().insert(name, generation);
        let Ok(len) = append(&dir.join(&log), generation % 9 * 9000 + 1) else { return };
        acknowledged.lock().unwrap().insert(log.clone(), len);
        let loose = dir.join(format!("loose-{writer}-{}", generation % 50));
        if fs::write(loose, content(generation, 200_000)).is_err() {
            return;
        }
    }
}

fn replace(target: &Path, generation: u64) -> std::io::Result<()> {
    let temp: PathBuf = target.with_extension("tmp");
    let mut file = File::create(&temp)?;
    file.write_all(&content(generation, length(generation)))?;
    file.sync_all()?;
    fs::rename(&temp, target)?;
    File::open(target.parent().expect("below the mount"))?.sync_all()
}

/// Makes a log longer and durable; returns its length.
fn append(log: &Path, bytes: u64) -> std::io::Result<u64> {
    let mut file = File::options().create(true).append(true).open(log)?;
    let at = file.metadata()?.len();
    file.write_all(&(at..at + bytes).map(log_byte).collect::<Vec<_>>())?;
    file.sync_data()?;
    // A new name is durable with its directory only.
    if at == 0 {
        File::open(log.parent().expect("below the mount"))?.sync_all()?;
    }
    Ok(at + bytes)
}

/// Each acknowledged file in `dir` holds that generation or a newer one, whole, and each log what it held.
pub fn verify(dir: &Path, acknowledged: &Acknowledged, round: u32) {
    for (name, generation) in acknowledged {
        let mut bytes = Vec::new();
        File::open(dir.join(name))
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .unwrap_or_else(|e| panic!("round {round}: {name}: {e}"));
        if is_log(name) {
            assert!(bytes.len() as u64 >= *generation, "round {round}: {name} is too short");
            let torn = (0..).zip(&bytes).find(|(at, byte)| **byte != log_byte(*at));
            assert_eq!(torn, None, "round {round}: {name} is torn");
            continue;
        }
        let found = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        assert!(found >= *generation, "round {round}: {name} went back");
        assert_eq!(bytes, content(found, length(found)), "round {round}: {name} is torn");
    }
}
