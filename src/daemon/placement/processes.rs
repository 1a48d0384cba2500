//! To which process a thread belongs: the kernel says which thread asks, and a program may read with
//! many. Looked up once for each thread now and then, since numbers of threads are used again.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;

use firn_tiering::mix::{ByMix, mix};
use parking_lot::Mutex;

const SHARDS: usize = 16;

/// Threads of one shard that are remembered; when it is full all of it is forgotten.
const MOST: usize = 256;

/// How long an answer holds, in milliseconds.
const HOLDS_MS: u64 = 10_000;

/// Longest part of a thread's status that is read; what is looked for stands in its first lines.
const STATUS_BYTES: u64 = 4096;

/// A process, and when that was found out.
type Found = (u32, u64);

/// Processes of threads.
#[derive(Debug, Default)]
pub(super) struct Processes {
    shards: [Mutex<HashMap<u32, Found, ByMix>>; SHARDS],
}

impl Processes {
    /// The process of a thread; the thread itself when it is gone or cannot be seen.
    pub(super) fn of(&self, thread: u32, now_ms: u64) -> u32 {
        let mut shard = self.shards[mix(thread.into()) as usize % SHARDS].lock();
        if let Some((process, found_ms)) = shard.get(&thread)
            && now_ms.wrapping_sub(*found_ms) < HOLDS_MS
        {
            return *process;
        }
        if shard.len() >= MOST {
            shard.clear();
        }
        let process = look_up(thread).unwrap_or(thread);
        shard.insert(thread, (process, now_ms));
        process
    }
}

fn look_up(thread: u32) -> Option<u32> {
    let mut status = String::new();
    let file = File::open(format!("/proc/{thread}/status")).ok()?;
    file.take(STATUS_BYTES).read_to_string(&mut status).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn threads_are_their_process_and_strangers_are_themselves() {
        let processes = Processes::default();
        let own = std::process::id();
        assert_eq!(processes.of(own, 0), own);
        let thread = std::thread::scope(|scope| {
            scope.spawn(|| rustix::thread::gettid().as_raw_nonzero().get()).join().unwrap()
        });
        let alive = std::thread::spawn(|| {
            let thread = rustix::thread::gettid().as_raw_nonzero().get();
            (thread, Processes::default().of(thread.cast_unsigned(), 0))
        });
        let (other, found) = alive.join().unwrap();
        assert_ne!(other.cast_unsigned(), own);
        assert_eq!(found, own);
        // It ended: nobody knows whose it was.
        assert_eq!(processes.of(thread.cast_unsigned(), 0), thread.cast_unsigned());
        assert_eq!(processes.of(u32::MAX, 0), u32::MAX);
    }

    #[test]
    fn answers_hold_for_a_while_and_are_not_many() {
        let processes = Processes::default();
        let own = std::process::id();
        let shard = || processes.shards[mix(own.into()) as usize % SHARDS].lock();
        shard().insert(own, (7, 1000));
        assert_eq!(processes.of(own, 1000 + HOLDS_MS - 1), 7);
        assert_eq!(processes.of(own, 1000 + HOLDS_MS), own);
        // The clock was set back.
        shard().insert(own, (7, 1000));
        assert_eq!(processes.of(own, 999), own);
        for thread in 0..100_000 {
            processes.of(u32::MAX - thread, 0);
        }
        assert!(processes.shards.iter().all(|shard| shard.lock().len() <= MOST));
    }
}
