//! Streams that were changed, that are from the future, or that nobody honest would send.

use bytes::Bytes;

use super::*;
use crate::core::Core;
use crate::namespace::{
    Content, Inode, Node, Position, SlotRange, Stage, Step, Timestamp, Version,
};
use crate::stream::{Forged, forge};
use crate::types::{FileKind, Guid, XattrMode};

const CUT: usize = 1 << 20;

#[test]
fn no_changed_bit_is_accepted() {
    let (from, to) = pair();
    let mut grower = Grower::new(Ino::ROOT, 13);
    grower.grow(&from, 40);
    from.take(Dataset::ROOT, "a");
    grower.grow(&from, 20);
    from.take(Dataset::ROOT, "b");
    let whole = from.stream(Dataset::ROOT, "a", None);
    let dataset = to.receive_new("kept", &whole);
    let before = to.state();
    let changes = from.stream(Dataset::ROOT, "b", Some("a"));
    for (target, stream) in [(new("x"), &whole), (ReceiveTarget::Existing(dataset), &changes)] {
        let heads = boundaries(stream);
        let mut places: Vec<usize> = (0..80).collect();
        places.extend(heads.iter().flat_map(|at| *at..*at + 5).step_by(7));
        places.extend((0..60).map(|_| grower.random(stream.len() as u64) as usize));
        places.retain(|at| *at < stream.len().min(CUT * 64));
        for at in places {
            let mut bad = stream.clone();
            bad[at] ^= 1 << grower.random(8);
            to.receive(&target, &PLAIN, &bad).map(drop).unwrap_err();
            assert_eq!(to.state(), before, "byte {at}");
        }
    }
    to.assert_sound();
}

#[test]
fn a_later_version_is_named() {
    let (from, to) = pair();
    from.take(Dataset::ROOT, "a");
    let mut stream = from.stream(Dataset::ROOT, "a", None);
    stream[8] = 2;
    let error = to.receive(&new("x"), &PLAIN, &stream).unwrap_err();
    assert_eq!(error.to_string(), "the stream has version 2, this program reads up to 1");
    let error = to.receive(&new("x"), &PLAIN, b"something else altogether").unwrap_err();
    assert!(matches!(error, ReceiveError::NotAStream), "{error}");
}

fn inode(object: u64, kind: FileKind) -> Inode {
    let time = Timestamp { secs: 9, nanos: 0 };
    Inode {
        ino: Ino(object),
        version: Version::first(Node(0)),
        kind,
        perm: 0o755,
        flags: Default::default(),
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 0,
        allocated: 0,
        xattr_names: 0,
        generation: 1,
        parent: Ino(0),
        cookie: 0,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        digest: None,
    }
}

pub(super) fn object(object: u64, kind: FileKind) -> Step {
    Step::Object(inode(object, kind))
}

fn link(dir: u64, name: &[u8], child: u64, kind: FileKind) -> Step {
    Step::Link { dir, name: Bytes::copy_from_slice(name), child, kind, is_home: true }
}

fn xattr(object: u64, name: &[u8], len: usize) -> Step {
    let value = Some(vec![1; len].into());
    Step::Xattr { object, name: Bytes::copy_from_slice(name), value }
}

fn slot(object: u64, slot: u64, ranges: &[(u32, u32, Option<Content>)]) -> Step {
    let range = |(start, len, content): &(u32, u32, Option<Content>)| SlotRange {
        start: *start,
        len: *len,
        content: content.clone(),
    };
    Step::Slot { object, slot, ranges: ranges.iter().map(range).collect() }
}

const DIR: FileKind = FileKind::Directory;
const FILE: FileKind = FileKind::File;

/// A root (1), two directories (2 in the root, 3 in 2), a file (4 in the root), a symbolic link
/// (5 in 3).
pub(super) fn sound() -> Vec<Step> {
    let target = Bytes::from_static(b"t");
    vec![
        object(1, DIR),
        object(2, DIR),
        object(3, DIR),
        object(4, FILE),
        xattr(4, b"user.a", 3),
        slot(4, 0, &[(0, 5, Some(Content::Unwritten)), (9, 1, Some(inline()))]),
        slot(4, 7, &[(0, 1 << 20, Some(Content::Unwritten))]),
        Step::Object(Inode { size: 1, ..inode(5, FileKind::Symlink) }),
        Step::Target { object: 5, target },
        link(1, b"two", 2, DIR),
        link(1, b"four", 4, FILE),
        link(2, b"three", 3, DIR),
        link(3, b"five", 5, FileKind::Symlink),
    ]
}

fn inline() -> Content {
    Content::Inline(Bytes::from_static(b"x"))
}

type Change = (&'static str, fn(&mut Vec<Step>));

/// Each makes no sense.
const SENSELESS: &[Change] = &[
    ("no root", |steps| drop(steps.remove(0))),
    ("a root that is a file", |steps| steps[0] = object(1, FILE)),
    ("an object twice", |steps| steps.insert(1, object(1, DIR))),
    ("objects backwards", |steps| steps.swap(1, 2)),
    ("object 0", |steps| steps.insert(0, object(0, FILE))),
    ("a number beyond the end", |steps| steps.insert(9, object(1000, FILE))),
    ("a file without a name", |steps| drop(steps.remove(10))),
    ("a directory without a name", |steps| drop(steps.remove(11))),
    ("an entry without an inode", |steps| steps.push(link(3, b"six", 6, FILE))),
    ("an entry of another kind", |steps| steps[10] = link(1, b"four", 4, FileKind::Fifo)),
    ("entries of a file", |steps| steps.push(link(4, b"five", 5, FileKind::Symlink))),
    ("entries of nothing", |steps| steps.push(link(77, b"five", 4, FILE))),
    ("a directory with two names", |steps| steps.push(link(3, b"again", 2, DIR))),
    ("the root in a directory", |steps| steps.push(link(3, b"root", 1, DIR))),
    ("a loop", |steps| {
        steps.remove(9);
        steps.push(link(3, b"two", 2, DIR));
    }),
    ("a name twice", |steps| steps.insert(11, link(1, b"two", 4, FILE))),
    ("a name with a slash", |steps| steps[10] = link(1, b"fo/ur", 4, FILE)),
    ("a name with a zero", |steps| steps[10] = link(1, b"fo\0ur", 4, FILE)),
    ("the name ..", |steps| steps[10] = link(1, b"..", 4, FILE)),
    ("no name", |steps| steps[10] = link(1, b"", 4, FILE)),
    ("a long name", |steps| steps[10] = link(1, &[b'x'; 256], 4, FILE)),
    ("an attribute of nobody", |steps| steps[4] = xattr(4, b"nobody.x", 1)),
    ("an attribute without a name", |steps| steps[4] = xattr(4, b"", 1)),
    ("a long attribute", |steps| steps[4] = xattr(4, b"user.a", 65_537)),
    ("a broken ACL", |steps| steps[4] = xattr(4, b"system.posix_acl_access", 12)),
    ("an attribute of another inode", |steps| steps[4] = xattr(3, b"user.a", 1)),
    ("an attribute twice", |steps| steps.insert(4, xattr(4, b"user.a", 1))),
    ("a slot twice", |steps| steps[6] = slot(4, 0, &[])),
    ("a slot behind the end of everything", |steps| {
        steps[6] = slot(4, u64::MAX - 1, &[(0, 1, Some(inline()))]);
    }),
    ("bytes of a directory", |steps| steps.insert(1, slot(1, 0, &[(0, 1, Some(inline()))]))),
    ("bytes that the base has, without a base", |steps| steps[6] = slot(4, 7, &[(0, 9, None)])),
    ("a target that is too long", |steps| {
        steps[8] = Step::Target { object: 5, target: Bytes::from_static(b"tt") };
    }),
    ("a symbolic link without a target", |steps| drop(steps.remove(8))),
    ("a target of a file", |steps| {
        steps[4] = Step::Target { object: 4, target: Bytes::from_static(b"t") };
    }),
    ("the removal of what is used", |steps| steps.push(Step::Remove { object: 4 })),
    ("the removal of the root", |steps| steps.push(Step::Remove { object: 1 })),
    ("stages backwards", |steps| steps.push(object(6, FILE))),
    ("a file that is too long", |steps| {
        steps[3] = Step::Object(Inode { size: u64::MAX, ..inode(4, FILE) });
    }),
];

pub(super) fn forged(steps: &[Step]) -> Forged<'_> {
    Forged {
        to: Guid([9; 16]),
        from: None,
        root: 1,
        objects_end: 900,
        steps,
        resumed: None,
        base_root: None,
        sent_root: None,
    }
}

#[test]
fn what_makes_no_sense_is_refused_and_leaves_no_trace() {
    let to = World::seeded(1 << 30, quiet(), 2);
    let before = to.state();
    let dataset = to.receive_new("sound", &forge(&forged(&sound())));
    to.assert_sound();
    drop(to.volume().destroy_datasets(&[dataset], true).unwrap());
    for (what, change) in SENSELESS {
        let mut steps = sound();
        change(&mut steps);
        for options in [&PLAIN, &RESUMABLE] {
            let received = to.receive(&new("x"), options, &forge(&forged(&steps)));
            match received.map(drop).expect_err(what) {
                ReceiveError::Invalid { .. } => {}
                other => panic!("{what}: {other}"),
            }
        }
        assert_eq!(to.state().0.len(), before.0.len(), "{what}");
        assert!(to.volume().interrupted_receives().unwrap().is_empty(), "{what}");
        to.assert_sound();
    }
    to.assert_blocks(0);
}

#[test]
fn a_slot_has_so_many_ranges_and_no_more() {
    let to = World::seeded(1 << 30, quiet(), 2);
    let received = |count: u32| {
        let single = |at: u32| (at * 2, 1, Some(inline()));
        let mut steps = sound();
        steps[6] = slot(4, 7, &(0..count).map(single).collect::<Vec<_>>());
        to.receive(&new(&format!("x{count}")), &PLAIN, &forge(&forged(&steps)))
    };
    received(1 << 14).unwrap();
    let error = received((1 << 14) + 1).unwrap_err();
    assert!(matches!(error, ReceiveError::Invalid { .. }), "{error}");
    to.assert_sound();
}

/// The longest list of attribute names that there may be; `first` tells one list from another.
fn full_list(first: char) -> impl Iterator<Item = Vec<u8>> {
    (0..256).map(move |at| format!("user.{first}{at:0249}").into_bytes())
}

#[test]
fn all_attributes_may_become_others_at_once_but_not_more() {
    let (from, to) = pair();
    let file = from.volume().mkdir(&ROOT, Ino::ROOT, b"dir", 0o755, 0).unwrap().ino;
    for name in full_list('m') {
        from.volume().setxattr(&ROOT, file, &name, b"x", XattrMode::Set).unwrap();
    }
    from.take(Dataset::ROOT, "a");
    full_list('m').for_each(|name| from.volume().removexattr(&ROOT, file, &name).unwrap());
    for name in full_list('b') {
        from.volume().setxattr(&ROOT, file, &name, b"y", XattrMode::Set).unwrap();
    }
    from.take(Dataset::ROOT, "b");
    let dataset = to.receive_new("copy", &from.stream(Dataset::ROOT, "a", None));
    let target = ReceiveTarget::Existing(dataset);
    to.receive(&target, &PLAIN, &from.stream(Dataset::ROOT, "b", Some("a"))).unwrap();
    let (sent, here) = (from.snapshot_tree(Dataset::ROOT, "b"), to.snapshot_tree(dataset, "b"));
    shown::assert_same(&sent, &here, "");
    to.assert_sound();
    for more in [1, 512] {
        let mut steps = sound();
        let names = full_list('b').chain(full_list('c')).chain(full_list('d'));
        steps.splice(4..5, names.take(256 + more).map(|name| xattr(4, &name, 1)));
        let error = to.receive(&new("x"), &PLAIN, &forge(&forged(&steps))).unwrap_err();
        assert!(matches!(error, ReceiveError::Invalid { .. }), "{error}");
    }
}

#[test]
fn numbers_do_not_run_out() {
    let to = World::seeded(1 << 30, quiet(), 2);
    let steps = sound();
    let greedy = Forged { objects_end: u64::MAX >> 16, ..forged(&steps) };
    let error = to.receive(&new("x"), &PLAIN, &forge(&greedy)).unwrap_err();
    assert!(matches!(error, ReceiveError::Invalid { .. }), "{error}");
    let free = || to.volume().names().ids().inodes_end();
    let before = free();
    let most = Forged { objects_end: 1 << 47, ..forged(&steps) };
    let most = forge(&most);
    to.receive_new("x", &most);
    to.receive(&new("x"), &PLAIN, &most).unwrap_err();
    assert!(free() < before + (1 << 20), "only what came is taken");
    Grower::new(Ino::ROOT, 1).grow(&to, 30);
    to.assert_sound();
}

/// One file more, of a number above the others.
fn with(number: u64) -> Vec<Step> {
    let mut steps = sound();
    steps.insert(9, object(number, FILE));
    steps.insert(12, link(1, b"last", number, FILE));
    steps
}

#[test]
fn a_number_that_was_received_is_not_handed_out_again() {
    for is_kept in [false, true] {
        let mut to = World::seeded(1 << 30, quiet(), 2);
        let far = 1 << 20;
        let steps = with(far);
        let stream = forge(&Forged { objects_end: far + 1, ..forged(&steps) });
        if is_kept {
            let ends = boundaries(&stream);
            token(to.receive(&new("x"), &RESUMABLE, &stream[..ends[ends.len() - 3]]).unwrap_err());
            to.lose_power();
        } else {
            to.receive_new("x", &stream);
        }
        let made = to.volume().mkdir(&ROOT, Ino::ROOT, b"mine", 0o755, 0).unwrap();
        assert!(made.ino.object() > far, "{}", made.ino.object());
    }
}

#[test]
fn large_numbers_leave_what_has_small_ones_to_be_sent() {
    let to = World::seeded(1 << 30, quiet(), 2);
    Grower::new(Ino::ROOT, 1).grow(&to, 30);
    to.take(Dataset::ROOT, "small");
    let steps = with((1 << 47) - 1);
    to.receive_new("x", &forge(&Forged { objects_end: 1 << 47, ..forged(&steps) }));
    to.assert_sound();
    let other = World::seeded(1 << 30, quiet(), 3);
    let copy = other.receive_new("copy", &to.stream(Dataset::ROOT, "small", None));
    let sent = to.snapshot_tree(Dataset::ROOT, "small");
    shown::assert_same(&sent, &other.snapshot_tree(copy, "small"), "");
    // What was made since then has larger ones than any stream may.
    to.volume().mkdir(&ROOT, Ino::ROOT, b"mine", 0o755, 0).unwrap();
    to.take(Dataset::ROOT, "large");
    let plan = SendPlan::Snapshot { dataset: Dataset::ROOT, name: "large".to_owned(), from: None };
    let error = to.volume().send(&plan, &mut std::io::sink(), &mut |_| true).unwrap_err();
    assert!(matches!(error, crate::stream::SendError::NumbersTooLarge(_)), "{error}");
}

#[test]
fn a_stream_that_goes_on_where_nothing_waits_is_refused() {
    let to = World::seeded(1 << 30, quiet(), 2);
    let steps = sound();
    let resumed = Some(Position { stage: Stage::Objects, object: 3, sub: 0 });
    let error = to
        .receive(&new("x"), &PLAIN, &forge(&Forged { resumed, ..forged(&steps[2..]) }))
        .unwrap_err();
    assert!(matches!(error, ReceiveError::NotPending), "{error}");
}
