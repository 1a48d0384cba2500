//! Many threads at once while the flusher runs all the time: whatever a thread wrote to a file of
//! its own it reads back, and shared directories and the budget stay whole.

use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::super::FileSettings;
use super::fake::{READ_WRITE, ROOT, World};
use crate::core::Core;
use crate::types::{Fallocate, Handle, Ino, RenameMode, Seek, SetAttr};

const THREADS: usize = 6;
const STEPS: usize = 400;
const MAX_LEN: u64 = 3 << 20;

/// A file and what it must hold.
struct Mirror {
    file: (Ino, Handle),
    bytes: Vec<u8>,
}

impl Mirror {
    fn step(&mut self, world: &World, op: u8, at: u64, len: u64, byte: u8) {
        let (ino, handle) = self.file;
        let (volume, wait) = (world.volume(), world.wait());
        let end = (at + len).min(MAX_LEN);
        let len = end - at;
        match op {
            0..=9 => {
                world.write(self.file, at, &vec![byte; len as usize]);
                self.grow(end);
                self.bytes[at as usize..end as usize].fill(byte);
            }
            10 => {
                let changes = SetAttr { size: Some(at), ..SetAttr::default() };
                volume.setattr(&ROOT, ino, &changes, wait).unwrap();
                self.bytes.resize(at as usize, 0);
            }
            11 => {
                let what = Fallocate::PunchHole;
                volume.fallocate(&ROOT, ino, handle, at, len, what, wait).unwrap();
                let size = self.bytes.len();
                self.bytes[(at as usize).min(size)..(end as usize).min(size)].fill(0);
            }
            12 => volume.fsync(ino, handle, false, wait).unwrap(),
            13 => {
                let target = at + MAX_LEN / 2;
                let args = ((ino, handle, at), (ino, handle, target));
                let len = len.min(MAX_LEN / 2);
                let copied = volume.copy_file_range(&ROOT, args.0, args.1, len, wait).unwrap();
                if copied > 0 {
                    self.grow(target + copied);
                    let from = at as usize..(at + copied) as usize;
                    self.bytes.copy_within(from, target as usize);
                }
            }
            14 => {
                let found = volume.lseek(ino, handle, at, Seek::Data).ok();
                let nonzero = (at as usize..self.bytes.len()).find(|n| self.bytes[*n] != 0);
                assert!(found.is_none_or(|found| nonzero.is_none_or(|n| found <= n as u64)));
                assert!(nonzero.is_none() || found.is_some(), "data was not found");
            }
            _ => {
                let read = world.read(self.file, at, len as u32);
                let size = self.bytes.len();
                assert!(read == self.bytes[(at as usize).min(size)..(end as usize).min(size)]);
            }
        }
    }

    fn grow(&mut self, end: u64) {
        if self.bytes.len() < end as usize {
            self.bytes.resize(end as usize, 0);
        }
    }
}

fn work(world: &World, thread: usize) {
    let mut runner = TestRunner::deterministic();
    let name = format!("file{thread}");
    let file = world.create(&name);
    let mut mirror = Mirror { file, bytes: Vec::new() };
    let steps = (0_u8..20, 0..MAX_LEN, prop_oneof![4 => 1_u64..9000, 1 => 1_u64..1_500_000]);
    for step in 0..STEPS {
        // Different in each thread, the same in each run.
        let (op, at, len) =
            (0..=thread).map(|_| steps.new_tree(&mut runner).unwrap().current()).last().unwrap();
        mirror.step(world, op, at, len, step as u8 | 1);
        if step % 16 == 0 {
            churn(world, thread);
        }
    }
    assert!(world.read(file, 0, u32::MAX) == mirror.bytes, "{name} differs at the end");
    world.volume().release(file.0, file.1);
    let found = world.content(&name);
    assert!(found == mirror.bytes, "{name} differs after it was closed");
}

/// Files that come, replace others and go.
fn churn(world: &World, thread: usize) {
    let volume = world.volume();
    let temp = format!("temp{thread}");
    let made = volume.create(&ROOT, Ino::ROOT, temp.as_bytes(), 0o644, 0, READ_WRITE);
    let (attr, handle) = made.unwrap();
    world.write((attr.ino, handle), 0, &[thread as u8 + 1; 5000]);
    let (from, mode) = (temp.as_bytes(), RenameMode::Replace);
    volume.rename(Ino::ROOT, from, Ino::ROOT, b"shared", mode, world.wait()).unwrap();
    assert_eq!(world.read((attr.ino, handle), 0, 9999), vec![thread as u8 + 1; 5000]);
    volume.release(attr.ino, handle);
    volume.forget(attr.ino, 1);
}

#[test]
fn threads_see_their_own_writes_while_everything_is_flushed_all_the_time() {
    let settings = FileSettings {
        flush_interval: Duration::from_millis(1),
        flush_bytes: 1 << 20,
        write_deadline: Duration::from_secs(1 << 20),
        encoders: 2,
    };
    let mut world = World::with(32 << 20, settings);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let world = &world;
            scope.spawn(move || work(world, thread));
        }
    });
    world.volume().sync().unwrap();
    let before: Vec<_> = (0..THREADS).map(|n| world.content(&format!("file{n}"))).collect();
    assert!(world.budget.peak_bytes() <= 32 << 20);
    world.lose_power();
    for (n, content) in before.iter().enumerate() {
        assert!(world.content(&format!("file{n}")) == *content, "file{n} after power loss");
    }
    let shared = world.content("shared");
    assert!(shared.len() == 5000 && shared.iter().all(|byte| *byte == shared[0]));
}
