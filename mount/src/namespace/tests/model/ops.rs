//! What may happen, and how often.

use proptest::prelude::*;

use super::NAMES;

#[derive(Clone, Debug)]
pub(super) enum Op {
    Create { dir: usize, name: usize, kind: usize },
    Unlink { dir: usize, name: usize },
    Rmdir { dir: usize, name: usize },
    Link { file: usize, dir: usize, name: usize },
    Rename { dir: usize, name: usize, to: usize, to_name: usize, mode: usize },
    Chmod { file: usize, perm: u16 },
    Utimes { file: usize },
    SetXattr { file: usize, name: usize, mode: usize },
    RemoveXattr { file: usize, name: usize },
    Write { file: usize, slot: u64, block: u64 },
    Truncate { file: usize, size: u64 },
    Snapshot,
    Destroy { which: usize },
    Sweep { limit: usize },
    Rollback { which: usize },
    Clone { which: usize },
    Switch { which: usize },
    DestroyClone,
    Promote,
    Purge,
    Close,
    Crash,
    Older,
}

pub(super) fn operation() -> impl Strategy<Value = Op> {
    let (dir, name, file) = (0..8_usize, 0..NAMES.len(), 0..16_usize);
    prop_oneof![
        6 => (dir.clone(), name.clone(), 0..5_usize)
            .prop_map(|(dir, name, kind)| Op::Create { dir, name, kind }),
        2 => (dir.clone(), name.clone()).prop_map(|(dir, name)| Op::Unlink { dir, name }),
        2 => (dir.clone(), name.clone()).prop_map(|(dir, name)| Op::Rmdir { dir, name }),
        2 => (file.clone(), dir.clone(), name.clone())
            .prop_map(|(file, dir, name)| Op::Link { file, dir, name }),
        5 => (dir.clone(), name.clone(), dir, name.clone(), 0..3_usize)
            .prop_map(|(dir, name, to, to_name, mode)| Op::Rename { dir, name, to, to_name, mode }),
        1 => (file.clone(), 0..0o10000_u16).prop_map(|(file, perm)| Op::Chmod { file, perm }),
        1 => file.clone().prop_map(|file| Op::Utimes { file }),
        2 => (file.clone(), name.clone(), 0..3_usize)
            .prop_map(|(file, name, mode)| Op::SetXattr { file, name, mode }),
        1 => (file.clone(), name).prop_map(|(file, name)| Op::RemoveXattr { file, name }),
        2 => (file.clone(), 0..3_u64, 0..4_u64)
            .prop_map(|(file, slot, block)| Op::Write { file, slot, block }),
        1 => (file, 0..4_u64 * 1_000_000).prop_map(|(file, size)| Op::Truncate { file, size }),
        2 => Just(Op::Snapshot),
        1 => (0..8_usize).prop_map(|which| Op::Destroy { which }),
        1 => (1..20_usize).prop_map(|limit| Op::Sweep { limit }),
        1 => (0..8_usize).prop_map(|which| Op::Rollback { which }),
        2 => (0..8_usize).prop_map(|which| Op::Clone { which }),
        3 => (0..8_usize).prop_map(|which| Op::Switch { which }),
        1 => Just(Op::DestroyClone),
        1 => Just(Op::Promote),
        1 => Just(Op::Purge),
        1 => Just(Op::Close),
        1 => Just(Op::Crash),
        1 => Just(Op::Older),
    ]
}

/// What changes how many bytes are whose, on few slots, so that they have many versions.
pub(super) fn operation_on_content() -> impl Strategy<Value = Op> {
    let (file, which) = (0..4_usize, 0..4_usize);
    prop_oneof![
        8 => (file.clone(), 0..2_u64, 0..4_u64)
            .prop_map(|(file, slot, block)| Op::Write { file, slot, block }),
        1 => (file, 0..4_u64 * 500_000).prop_map(|(file, size)| Op::Truncate { file, size }),
        1 => (0..2_usize).prop_map(|name| Op::Unlink { dir: 0, name }),
        1 => (0..2_usize).prop_map(|name| Op::Create { dir: 0, name, kind: 0 }),
        4 => Just(Op::Snapshot),
        2 => which.clone().prop_map(|which| Op::Destroy { which }),
        2 => (1..4_usize).prop_map(|limit| Op::Sweep { limit }),
        1 => which.clone().prop_map(|which| Op::Rollback { which }),
        1 => which.clone().prop_map(|which| Op::Clone { which }),
        1 => which.prop_map(|which| Op::Switch { which }),
        1 => Just(Op::DestroyClone),
        1 => Just(Op::Promote),
        1 => Just(Op::Purge),
        1 => Just(Op::Crash),
    ]
}
