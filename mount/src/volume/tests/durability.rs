//! What survives which crash.

use super::fake::World;
use crate::core::Core;
use crate::types::{Ino, RenameMode, SetAttr};
use firn_tiering::{BlockId, Wait};

#[test]
fn a_small_fsync_needs_no_segment_and_survives_power_loss() {
    let mut world = World::new();
    let a = world.create("a");
    world.write(a, 10, b"hello");
    world.fsync(a).unwrap();
    assert_eq!((world.blocks.syncs(), world.blocks.len()), (0, 0));
    world.lose_power();
    assert_eq!(world.content("a"), [&[0; 10][..], b"hello"].concat());
}

#[test]
fn many_small_fsyncs_do_not_pile_up_in_the_log() {
    let mut world = World::new();
    let a = world.create("a");
    for n in 0..100_u64 {
        world.write(a, n * 4096, &[n as u8 + 1; 4096]);
        world.fsync(a).unwrap();
    }
    let lens = world.blocks.append_lens();
    assert!(!lens.is_empty() && lens.len() < 20, "{lens:?}");
    world.lose_power();
    let content = world.content("a");
    assert!((0..100).all(|n| content[n * 4096..(n + 1) * 4096] == [n as u8 + 1; 4096]));
}

#[test]
fn a_large_fsync_survives_power_loss() {
    let mut world = World::new();
    let a = world.create("a");
    let data = vec![7; 5 << 20];
    world.write(a, 0, &data);
    world.fsync(a).unwrap();
    world.write(a, 0, &[8; 100]);
    world.lose_power();
    assert!(world.content("a") == data);
}

#[test]
fn without_fsync_a_crash_shows_an_earlier_state() {
    let mut world = World::new();
    let a = world.create("a");
    world.write(a, 0, b"first");
    world.volume().sync().unwrap();
    world.write(a, 0, b"second");
    let changes = SetAttr { size: Some(3), ..SetAttr::default() };
    world.volume().setattr(&super::fake::ROOT, a.0, &changes, world.wait()).unwrap();
    world.crash();
    assert_eq!(world.content("a"), b"first");
}

#[test]
fn a_file_that_replaces_another_is_whole_after_any_crash() {
    for big in [false, true] {
        for power in [false, true] {
            let mut world = World::new();
            let data = if big { vec![3; 700_000] } else { vec![3; 700] };
            let old = world.create("target");
            world.write(old, 0, b"old");
            world.volume().sync().unwrap();
            let new = world.create("temp");
            world.write(new, 0, &data);
            let wait = if big { world.wait() } else { Wait::No };
            let mode = RenameMode::Replace;
            world.volume().rename(Ino::ROOT, b"temp", Ino::ROOT, b"target", mode, wait).unwrap();
            if power {
                world.lose_power()
            } else {
                world.crash()
            }
            let content = world.content("target");
            assert!(content == data || (power && content == b"old"), "{} bytes", content.len());
        }
    }
}

#[test]
fn settling_turns_log_bytes_and_fragments_into_blocks() {
    let mut world = World::new();
    let a = world.create("a");
    world.write(a, 0, b"logged");
    world.fsync(a).unwrap();
    for n in 0..100 {
        world.write(a, 100_000 + n * 4000, &[n as u8; 2000]);
        world.volume().sync().unwrap();
    }
    let before = world.volume().names.slot(a.0, 0).unwrap();
    assert!(before.len() > 100);
    let content = world.content("a");
    world.volume().files.settle_all();
    let after = world.volume().names.slot(a.0, 0).unwrap();
    let blocks: std::collections::HashSet<_> =
        after.iter().map(|piece| piece.block().unwrap().id).collect();
    assert!(blocks.len() <= 2, "{blocks:?}");
    assert!(world.content("a") == content);
    world.lose_power();
    assert!(world.content("a") == content);
    world.volume().files.free_unreferenced().unwrap();
}

#[test]
fn a_block_called_dead_stays_dead_after_power_loss() {
    let mut world = World::new();
    let a = world.create("a");
    world.write(a, 0, &[5; 300_000]);
    world.volume().sync().unwrap();
    let block = world.volume().names.slot(a.0, 0).unwrap()[0].block().unwrap().id;
    let ask = |world: &World| {
        world.volume().files.references.among(&[block], BlockId::from_raw(0)).unwrap()
    };
    assert_eq!(ask(&world), [true]);
    world.write(a, 0, &[6; 300_000]);
    world.volume().files.flush_all().unwrap();
    // The change is in the namespace, but no sync has covered it; whoever hears that the block
    // is dead may destroy it.
    assert_eq!(ask(&world), [false]);
    world.lose_power();
    assert!(world.content("a") == [6; 300_000]);
}
