//! Digests of snapshots, computed page by page while everything goes on, against those of the same
//! snapshots read as a whole.

use std::ops::Range;

use super::*;
use crate::namespace::tests::seals::Pattern;

/// What a snapshot's root stands for.
type Content = BTreeMap<Ino, Shown>;

#[derive(Clone, Debug, PartialEq)]
struct Shown {
    node: (FileKind, u16, u32, Timestamp),
    entries: BTreeMap<Vec<u8>, Ino>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    size: u64,
    slots: Vec<(u64, (u64, u64))>,
}

fn content(tree: &Tree) -> Content {
    let named = tree.nodes.iter().filter(|(_, node)| node.nlink > 0);
    let shown = |node: &Node| Shown {
        node: (node.kind, node.perm, node.nlink, node.mtime),
        entries: node.entries.clone(),
        xattrs: node.xattrs.clone(),
        size: if node.kind == FileKind::Directory { 0 } else { node.size },
        slots: node
            .slots
            .iter()
            .filter(|(_, slot)| slot.1 > 0)
            .map(|(at, slot)| (*at, *slot))
            .collect(),
    };
    named.map(|(ino, node)| (*ino, shown(node))).collect()
}

impl Pair {
    fn seal_all_and_compare(&self) {
        let ns = &self.world.ns;
        self.world.seal_all(3);
        let mut known: Vec<(Content, blake3::Hash)> = Vec::new();
        for branch in self.branches() {
            for (name, tree) in &branch.snapshots {
                let of = (branch.dataset, &name[..]);
                let proof = ns.prove(of, Some(&mut Pattern), &mut |_| true).unwrap();
                assert_eq!(proof.flaws, [], "{name}");
                let seal = ns.find_snapshot(branch.dataset, name).unwrap().seal.unwrap();
                assert_eq!((proof.root, proof.seal), (Some(seal.root), Some(seal)));
                let shown = content(tree);
                for (other, root) in &known {
                    assert_eq!(*other == shown, *root == seal.root, "{name}");
                }
                known.push((shown, seal.root));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn snapshots_keep_the_digest_of_what_they_show(
        ops in proptest::collection::vec((operation(), steps()), 1..60),
        has_clones in any::<bool>(),
    ) {
        let mut pair = Pair::new(u64::MAX, has_clones);
        for (op, steps) in &ops {
            pair.apply(op);
            for _ in 0..*steps {
                pair.world.seal_step(2);
            }
        }
        pair.compare();
        pair.seal_all_and_compare();
        pair.reopen(World::crash);
        pair.seal_all_and_compare();
        pair.world.assert_sound();
        pair.end_all_but_the_root();
        pair.world.ns.unsealed().unwrap();
        for start in [key::SEALS, key::SUMS, key::AWAITED] {
            let left = pair.world.store.page(Space::Meta, &[start], Some(&[start + 1]), 9).unwrap();
            prop_assert_eq!(left.items.len(), 0);
        }
    }
}

fn steps() -> impl Strategy<Value = usize> {
    let most: Range<usize> = 1..6;
    prop_oneof![3 => Just(0), 2 => most]
}
