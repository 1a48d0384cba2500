//! `kill -9` under load, twenty times: what `fsync` acknowledged is there, what rename replaced is
//! whole, and the volume mounts again without a hand.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::Volume;

const ROUNDS: u32 = 20;
const WRITERS: u64 = 3;

/// The newest generation of each file that `fsync` acknowledged.
type Acknowledged = Arc<Mutex<HashMap<PathBuf, u64>>>;

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

struct Load {
    stop: AtomicBool,
    unsynced_bytes: AtomicU64,
}

/// Replaces a few files again and again, by temp and rename or in place, until the mount dies.
fn write_until_death(dir: &Path, writer: u64, load: &Load, acknowledged: &Acknowledged) {
    let mut generation = 1 + writer * 1_000_000;
    generation += acknowledged.lock().unwrap().values().copied().max().unwrap_or(0);
    while !load.stop.load(Ordering::Relaxed) {
        generation += 1;
        let target = dir.join(format!("w{writer}-{}", generation % 5));
        if replace(&target, generation).is_err() {
            return;
        }
        acknowledged.lock().unwrap().insert(target, generation);
        let loose = dir.join(format!("loose-{writer}-{}", generation % 50));
        let bytes = content(generation, 200_000);
        if fs::write(loose, &bytes).is_err() {
            return;
        }
        load.unsynced_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }
}

fn replace(target: &Path, generation: u64) -> std::io::Result<()> {
    let temp = target.with_extension("tmp");
    let mut file = File::create(&temp)?;
    file.write_all(&content(generation, length(generation)))?;
    file.sync_all()?;
    fs::rename(&temp, target)?;
    File::open(target.parent().expect("below the mount"))?.sync_all()
}

/// Each acknowledged file holds that generation or a newer one, whole.
fn verify(acknowledged: &Acknowledged, round: u32) {
    for (path, generation) in acknowledged.lock().unwrap().iter() {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .unwrap_or_else(|e| panic!("round {round}: {}: {e}", path.display()));
        let found = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        assert!(found >= *generation, "round {round}: {} went back", path.display());
        assert_eq!(
            bytes,
            content(found, length(found)),
            "round {round}: {} is torn",
            path.display()
        );
    }
}

#[test]
fn acknowledged_writes_survive_twenty_kills() {
    let mut volume = Volume::mounted();
    let acknowledged = Acknowledged::default();
    let mut rounds_with_unflushed_work = 0;
    for round in 0..ROUNDS {
        let load =
            Arc::new(Load { stop: AtomicBool::new(false), unsynced_bytes: AtomicU64::new(0) });
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (dir, load, acknowledged) =
                    (volume.mountpoint.clone(), Arc::clone(&load), Arc::clone(&acknowledged));
                std::thread::spawn(move || write_until_death(&dir, writer, &load, &acknowledged))
            })
            .collect();
        std::thread::sleep(Duration::from_millis(300 + 97 * u64::from(round % 7)));
        rounds_with_unflushed_work += u32::from(load.unsynced_bytes.load(Ordering::Relaxed) > 0);
        volume.kill();
        load.stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().unwrap();
        }
        volume.mount();
        verify(&acknowledged, round);
    }
    assert!(!acknowledged.lock().unwrap().is_empty(), "nothing was ever acknowledged");
    assert!(
        rounds_with_unflushed_work >= ROUNDS / 2,
        "only {rounds_with_unflushed_work} kills met unflushed work"
    );
}
