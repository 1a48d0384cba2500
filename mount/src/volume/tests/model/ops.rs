//! What is tried: all calls, with so few names, offsets and lengths that they meet often.

use proptest::prelude::*;
use proptest::sample::select;

use crate::file::SLOT_LEN;
use crate::types::{Fallocate, RenameMode, Seek};

/// A name in the root, or in the directory `d` if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub(super) deep: bool,
    pub(super) name: &'static str,
}

/// Which of the open files.
pub(super) type Slot = usize;

/// Files open at once.
pub(super) const OPEN: usize = 3;

/// Snapshots at once.
pub(super) const SNAPSHOTS: usize = 4;

/// Damage to what is stored, which must not show.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rot {
    /// A run of 1 % of a segment's hot file, picked by the first number, at a place made of the second.
    Hot(usize, u64),
    /// The same of an object in cold.
    Cold(usize, u64),
    /// A hot file vanishes that is in cold as well.
    Vanish(usize),
    /// The catalog vanishes, with a crash.
    Catalog,
}

#[derive(Clone, Debug)]
pub(super) enum Op {
    Create(At, Slot),
    Mkdir(At),
    Symlink(At),
    Fifo(At),
    Link(At, At),
    Unlink(At),
    Rmdir(At),
    Rename(At, At, RenameMode),
    Chmod(At, u16),
    SetXattr(At, u8),
    RemoveXattr(At),
    Open(At, Slot),
    Close(Slot),
    Write(Slot, u64, u64),
    Append(Slot, u64),
    Truncate(Slot, u64),
    Fallocate(Slot, u64, u64, Fallocate),
    Copy(Slot, u64, Slot, u64, u64),
    SetMtime(Slot),
    Read(Slot, u64, u64),
    Seek(Slot, u64, Seek),
    Fsync(Slot),
    Flush,
    FlushFails,
    Sync,
    Settle,
    Digest,
    Free,
    Check,
    Crash,
    PowerLoss,
    Remount,
    MoveTiers,
    Rot(Rot),
    Scrub,
    Snapshot,
    Destroy(usize),
    Rollback(usize),
    Mirror(usize, u8),
}

fn at() -> impl Strategy<Value = At> {
    (prop::bool::weighted(0.3), select(vec!["a", "b", "c", "d"]))
        .prop_map(|(deep, name)| At { deep, name })
}

fn slot() -> impl Strategy<Value = Slot> {
    // Mostly the same one, so that calls add up.
    prop_oneof![4 => Just(0_usize), 1 => 1..OPEN]
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => select(vec![0, 1, 100, 4096, 8192, 65_536]),
        2 => select(vec![SLOT_LEN - 4096, SLOT_LEN - 1, SLOT_LEN, SLOT_LEN + 1]),
        1 => select(vec![2 * SLOT_LEN - 5, 2 * SLOT_LEN, 5 * SLOT_LEN]),
    ]
}

fn len() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => select(vec![1, 99, 4096, 5000]),
        2 => select(vec![70_000, 300_000]),
        1 => select(vec![SLOT_LEN, SLOT_LEN + 4096]),
    ]
}

fn fallocate() -> impl Strategy<Value = Fallocate> {
    let keep = any::<bool>();
    prop_oneof![
        keep.prop_map(|keep_size| Fallocate::Allocate { keep_size }),
        Just(Fallocate::PunchHole),
        keep.prop_map(|keep_size| Fallocate::ZeroRange { keep_size }),
    ]
}

fn name_op() -> impl Strategy<Value = Op> {
    let mode = select(vec![RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange]);
    prop_oneof![
        6 => (at(), slot()).prop_map(|(at, slot)| Op::Create(at, slot)),
        3 => at().prop_map(Op::Mkdir),
        1 => at().prop_map(Op::Symlink),
        1 => at().prop_map(Op::Fifo),
        2 => (at(), at()).prop_map(|(from, to)| Op::Link(from, to)),
        3 => at().prop_map(Op::Unlink),
        1 => at().prop_map(Op::Rmdir),
        5 => (at(), at(), mode).prop_map(|(from, to, mode)| Op::Rename(from, to, mode)),
        1 => (at(), select(vec![0o600, 0o755])).prop_map(|(at, perm)| Op::Chmod(at, perm)),
        1 => (at(), 0_u8..3).prop_map(|(at, value)| Op::SetXattr(at, value)),
        1 => at().prop_map(Op::RemoveXattr),
        4 => (at(), slot()).prop_map(|(at, slot)| Op::Open(at, slot)),
        2 => slot().prop_map(Op::Close),
    ]
}

fn data_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => (slot(), offset(), len()).prop_map(|(slot, at, len)| Op::Write(slot, at, len)),
        2 => (slot(), len()).prop_map(|(slot, len)| Op::Append(slot, len)),
        3 => (slot(), offset()).prop_map(|(slot, at)| Op::Truncate(slot, at)),
        3 => (slot(), offset(), len(), fallocate())
            .prop_map(|(slot, at, len, what)| Op::Fallocate(slot, at, len, what)),
        3 => (slot(), offset(), slot(), offset(), len())
            .prop_map(|(from, at, to, start, len)| Op::Copy(from, at, to, start, len)),
        1 => slot().prop_map(Op::SetMtime),
        3 => (slot(), offset(), len()).prop_map(|(slot, at, len)| Op::Read(slot, at, len)),
        2 => (slot(), offset(), select(vec![Seek::Data, Seek::Hole]))
            .prop_map(|(slot, at, what)| Op::Seek(slot, at, what)),
    ]
}

fn rot() -> impl Strategy<Value = Rot> {
    prop_oneof![
        4 => (0..64_usize, any::<u64>()).prop_map(|(pick, at)| Rot::Hot(pick, at)),
        4 => (0..64_usize, any::<u64>()).prop_map(|(pick, at)| Rot::Cold(pick, at)),
        2 => (0..64_usize).prop_map(Rot::Vanish),
        1 => Just(Rot::Catalog),
    ]
}

fn volume_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => slot().prop_map(Op::Fsync),
        4 => Just(Op::Flush),
        1 => Just(Op::FlushFails),
        2 => Just(Op::Sync),
        2 => Just(Op::Settle),
        2 => Just(Op::Free),
        1 => Just(Op::Check),
        2 => Just(Op::Crash),
        2 => Just(Op::PowerLoss),
        1 => Just(Op::Remount),
        1 => Just(Op::MoveTiers),
        2 => rot().prop_map(Op::Rot),
        1 => Just(Op::Scrub),
        6 => Just(Op::Snapshot),
        3 => (0..SNAPSHOTS).prop_map(Op::Destroy),
        12 => Just(Op::Digest),
        3 => (0..SNAPSHOTS).prop_map(Op::Rollback),
        3 => (0..SNAPSHOTS, 0_u8..24).prop_map(|(which, cut)| Op::Mirror(which, cut)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![4 => name_op(), 6 => data_op(), 2 => volume_op()]
}

/// A sequence that begins with an open file.
pub(super) fn sequences() -> impl Strategy<Value = Vec<Op>> {
    sequences_of(1..50, op().boxed())
}

/// Long ones that move, rot, crash and scrub a lot.
pub(super) fn rough_sequences() -> impl Strategy<Value = Vec<Op>> {
    let rough = prop_oneof![
        3 => Just(Op::MoveTiers),
        6 => rot().prop_map(Op::Rot),
        2 => Just(Op::Scrub),
        2 => Just(Op::Crash),
        2 => Just(Op::Sync),
        1 => Just(Op::Check),
    ];
    sequences_of(100..300, prop_oneof![5 => op(), 1 => rough].boxed())
}

fn sequences_of(
    len: std::ops::Range<usize>,
    op: BoxedStrategy<Op>,
) -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op, len).prop_map(|mut ops| {
        ops.insert(0, Op::Create(At { deep: false, name: "a" }, 0));
        ops
    })
}
