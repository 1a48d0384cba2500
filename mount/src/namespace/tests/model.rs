//! Random metadata operations against a tree of plain maps, which is the definition of right.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::namespace::key::Node as Dot;
use crate::namespace::names::NameHash;
use crate::namespace::tree::View;
use crate::types::{RenameMode, SetAttr, SetTime, XattrMode};

mod compare;
mod ops;
mod pair;
mod reference;
mod seals;
mod versions;

use compare::records;
use ops::{Op, operation, operation_on_content};
use pair::Pair;
use reference::{Branch, Links, Node, Outcome, Tree};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn same(real: FsResult<()>, model: Outcome<()>) {
    assert_eq!(real.map_err(|error| errno(&error)), model);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn operations_do_what_the_reference_does(
        ops in proptest::collection::vec(operation(), 1..60),
        mask in prop_oneof![Just(u64::MAX), Just(0), Just(0x300)],
        has_clones in any::<bool>(),
    ) {
        let mut pair = Pair::new(mask, has_clones);
        for (at, op) in ops.iter().enumerate() {
            pair.apply(op);
            if at % 4 == 0 {
                pair.compare();
            }
        }
        pair.compare();
        pair.compare_diffs();
        pair.world.assert_sound();
        pair.reopen(World::crash);
        pair.compare();
        pair.reopen(World::without_counters);
        pair.world.assert_counted();
        pair.end_all_but_the_root();
        pair.compare();
        pair.world.assert_sound();
        for space in [Space::History, Space::Born] {
            prop_assert_eq!(records(&pair.world, space), BTreeMap::new());
        }
        let has_rollback = |op: &Op| matches!(op, Op::Rollback { .. });
        if has_clones || ops.iter().any(has_rollback) {
            return Ok(());
        }
        // The same without any snapshot.
        let mut plain = Pair::new(mask, false);
        let is_about_snapshots =
            |op: &Op| matches!(op, Op::Snapshot | Op::Destroy { .. } | Op::Sweep { .. } | Op::Promote);
        for op in ops.iter() {
            match is_about_snapshots(op) {
                true => drop(plain.world.clock.tick()),
                false => plain.apply(op),
            }
        }
        prop_assert_eq!(records(&pair.world, Space::Head), records(&plain.world, Space::Head));
        let backrefs = |world: &World| -> BTreeSet<_> {
            let keys = records(world, Space::Backrefs).into_keys();
            keys.map(|key| Backref { node: Dot::FIRST, ..Backref::decode(&key).unwrap() }.encode()).collect()
        };
        prop_assert_eq!(backrefs(&pair.world), backrefs(&plain.world));
    }

    #[test]
    fn counters_of_space_follow_whatever_happens(
        ops in proptest::collection::vec(operation_on_content(), 1..80),
        has_clones in any::<bool>(),
    ) {
        let mut pair = Pair::new(u64::MAX, has_clones);
        for name in 0..2 {
            pair.apply(&Op::Create { dir: 0, name, kind: 0 });
        }
        for op in &ops {
            pair.apply(op);
            pair.world.assert_counted();
        }
        pair.world.assert_sound();
        pair.end_all_but_the_root();
        pair.world.assert_counted();
        // Without snapshots, what is used is what is referred to, and what orphans hold.
        pair.purge();
        let space = pair.world.ns.dataset_space(Dataset::ROOT).unwrap();
        prop_assert_eq!(space.used, space.referenced.bytes);
    }
}
