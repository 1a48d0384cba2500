//! What the block store is told of what readers of cold files want next.

use std::sync::Arc;

use firn_tiering::{BlockId, Wait};

use super::fake::{READ_WRITE, ROOT, World};
use crate::core::Core;
use crate::error::{FsError, FsResult};
use crate::types::{Caller, Handle, Ino, OpenMode};
use crate::volume::{Admission, Observer, Told, Touch};

const MIB: u64 = 1 << 20;

/// Blocks of the file.
const BLOCKS: u64 = 24;

/// A world with a file of which all blocks are in cold, opened to be read.
fn frozen(world: &World) -> (Ino, Handle) {
    let (ino, handle) = world.create("a");
    for block in 0..BLOCKS {
        world.write((ino, handle), block * MIB, &vec![block as u8 + 1; MIB as usize]);
    }
    world.fsync((ino, handle)).unwrap();
    world.volume().release(ino, handle);
    world.blocks.set_cold(true);
    (ino, world.volume().open(&ROOT, ino, READ_WRITE, world.wait()).unwrap())
}

/// Reads as the kernel's requests are answered: without a wait, and then with one.
fn read(world: &World, (ino, handle): (Ino, Handle), offset: u64, len: u32) {
    let volume = world.volume();
    let refused = volume.read(ino, handle, offset, len, Wait::No).unwrap_err();
    assert!(matches!(refused, FsError::WouldWait), "{refused:?}");
    let bytes = volume.read(ino, handle, offset, len, world.wait()).unwrap();
    assert!(bytes.iter().zip(offset..).all(|(byte, at)| *byte == (at / MIB) as u8 + 1));
}

#[test]
fn a_sequential_reader_tells_each_block_once_and_in_order() {
    let world = World::new();
    let file = frozen(&world);
    for offset in (0..BLOCKS * MIB).step_by(256 << 10) {
        read(&world, file, offset, 256 << 10);
    }
    let told = world.blocks.told();
    // The fake numbers blocks as they come, and one thread encodes them in the file's order.
    let mut sorted: Vec<BlockId> = told.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(told, sorted);
    assert!(told.len() as u64 >= BLOCKS - 1, "{} of {BLOCKS} blocks", told.len());
}

#[test]
fn a_reader_here_and_there_tells_nothing() {
    let world = World::new();
    let file = frozen(&world);
    for step in 0..200 {
        read(&world, file, step * 7 % BLOCKS * MIB + step % 16 * 65_536, 4096);
    }
    assert_eq!(world.blocks.told(), []);
}

#[test]
fn a_reader_of_hot_data_tells_nothing() {
    let world = World::new();
    let (ino, handle) = frozen(&world);
    world.blocks.set_cold(false);
    for offset in (0..BLOCKS * MIB).step_by(MIB as usize) {
        world.volume().read(ino, handle, offset, MIB as u32, Wait::No).unwrap();
    }
    assert_eq!(world.blocks.told(), []);
}

/// Lets nobody read ahead.
struct Strict;

impl Observer for Strict {
    fn opened(&self, _: Ino, _: &Caller, _: OpenMode, _: u64) {}
    fn read(&self, _: &Touch, _: bool) {}
    fn may_look_ahead(&self, _: &Caller) -> bool {
        false
    }
    fn written(&self, _: &Touch) {}
    fn admit(&self, _: &Touch, _: Wait) -> FsResult<Admission> {
        Ok(None)
    }
    fn removed(&self, _: Ino) {}
    fn pin_changed(&self, _: Ino) {}
    fn tell(&self, _: Ino, _: Told) -> Option<String> {
        None
    }
}

#[test]
fn who_may_not_look_ahead_is_served_and_tells_nothing() {
    let mut world = World::new();
    world.observe(Arc::new(Strict));
    let file = frozen(&world);
    for offset in (0..BLOCKS * MIB).step_by(MIB as usize) {
        read(&world, file, offset, MIB as u32);
    }
    assert_eq!(world.blocks.told(), []);
}
