//! What later snapshots rely on: nothing that an older node saw is lost.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::model::{Pair, operations};
use super::*;
use crate::namespace::key::HeadKey;
use crate::namespace::store::Page;

fn dump(world: &World, space: Space) -> BTreeMap<Vec<u8>, Bytes> {
    let Page { items, more } = world.store.page(space, &[], None, usize::MAX).unwrap();
    assert!(!more);
    items.into_iter().map(|(key, value)| (key.to_vec(), value)).collect()
}

/// What a reader at `node` sees: the head where it is not newer, else the history.
fn view_at(world: &World, node: Node) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let history = dump(world, Space::History);
    let mut view = BTreeMap::new();
    for (key, value) in dump(world, Space::Head) {
        let (version, record) = Version::split(&value).unwrap();
        if version.node > node {
            assert_eq!(version.shadows, history.contains_key(&key::history(&key, node)));
            let Some(older) = history.get(&key::history(&key, node)) else { continue };
            let (version, record) = Version::split(older).unwrap();
            assert_eq!(version.node, node);
            if !version.whiteout {
                view.insert(key, record.to_vec());
            }
        } else if !version.whiteout {
            view.insert(key, record.to_vec());
        }
    }
    view
}

/// Everything written under `node` is in the born index, by its kind or by its whole inode.
fn assert_born(world: &World, node: Node) {
    let born = dump(world, Space::Born);
    for (key, value) in dump(world, Space::Head) {
        let (version, _) = Version::split(&value).unwrap();
        if version.node == node {
            let head = HeadKey::decode(&key).unwrap();
            let by_kind = key::born(node, head.object, head.kind);
            let by_inode = key::born(node, head.object, Kind::Inode);
            let found = born.contains_key(by_kind.as_slice());
            let whole = born.contains_key(by_inode.as_slice());
            assert!(found || (whole && !version.shadows), "{head:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_older_node_sees_what_it_saw(
        before in operations(40),
        after in operations(40),
        mask in prop_oneof![Just(u64::MAX), Just(0)],
    ) {
        let mut pair = Pair::new(mask);
        for op in &before {
            pair.apply(op);
        }
        let expected = view_at(&pair.world, Node::FIRST);
        pair.world.ns.tree.write().advance(Node(2));
        pair.world.ns.cache.clear();
        for op in &after {
            pair.apply(op);
        }
        pair.compare();
        prop_assert_eq!(view_at(&pair.world, Node::FIRST), expected);
        assert_born(&pair.world, Node::FIRST);
        assert_born(&pair.world, Node(2));
        pair.world.assert_sound();
    }
}

#[test]
fn an_overwritten_extent_keeps_its_block_for_the_older_node() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    world.write(file, 0, &[piece(0, 10, 1)]);
    world.ns.tree.write().advance(Node(2));
    assert_eq!(world.write(file, 0, &[piece(0, 10, 2)]), []);
    assert!(world.ns.is_referenced(block(1).id).unwrap());
    assert_eq!(world.write(file, 0, &[piece(0, 10, 3)]), [block(2).id]);
    world.ns.unlink(Ino::ROOT, b"f").unwrap();
    assert_eq!(world.ns.purge(&[file]).unwrap(), [block(3).id]);
    assert!(world.ns.is_referenced(block(1).id).unwrap());
    assert_eq!(fails(world.ns.lookup(Ino::ROOT, b"f")), "ENOENT");
    assert_eq!(fails(world.ns.getattr(file)), "ESTALE");
    world.assert_sound();
}
