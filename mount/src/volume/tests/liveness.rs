//! Threads of the block store that ask which blocks are referenced while the volume goes.

use std::sync::Arc;
use std::time::Duration;

use firn_tiering::{BlockId, Liveness};

use super::super::LateLiveness;
use super::fake::World;

#[test]
#[allow(clippy::disallowed_methods, reason = "real threads take real time")]
fn whoever_asks_for_references_holds_neither_the_volume_nor_its_blocks() {
    let mut world = World::new();
    let liveness = LateLiveness::default();
    let (first, block) = (BlockId::from_raw(2), BlockId::from_raw(1));
    liveness.bind(world.volume(), first);
    let references = Arc::downgrade(&world.volume().files.references);
    let held = references.strong_count();
    let (store, blocks) = (Arc::clone(&world.store), Arc::clone(&world.blocks));
    std::thread::scope(|scope| {
        let still = store.still();
        let asking = scope.spawn(|| liveness.is_referenced(&[block]));
        while references.strong_count() == held {
            std::thread::sleep(Duration::from_millis(1));
        }
        world.drop_volume();
        // This one's and the world's: a thread that asks and is the last to let go of a block store
        // would have to end itself.
        let holders = Arc::strong_count(&blocks);
        let is_asking = references.strong_count() == 1;
        drop(still);
        assert_eq!(asking.join().unwrap().unwrap(), [false]);
        assert_eq!((holders, is_asking), (2, true));
    });
    assert_eq!(liveness.is_referenced(&[block]).unwrap(), [true], "nobody knows any more");
}
