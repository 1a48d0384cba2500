//! Repair where snapshots and clones show what is damaged: each shows what it showed or an error,
//! and no block is given up that something may still need.

use super::*;

/// What a slot of a file reads as.
#[derive(Debug, PartialEq, Eq)]
enum Shows {
    Hole,
    Block(u64),
    Bytes(Vec<u8>),
    Error,
}

fn shows(world: &World, ino: Ino, slot: u64) -> Shows {
    let Ok(pieces) = world.ns.slot(ino, slot) else { return Shows::Error };
    match pieces.first().map(|piece| &piece.content) {
        None => Shows::Hole,
        Some(Content::Block { block, .. }) if block.id.epoch() == Epoch(0) => Shows::Error,
        Some(Content::Block { block, .. }) => Shows::Block(u64::from(block.digest.0[0])),
        Some(Content::Inline(bytes)) => Shows::Bytes(bytes.to_vec()),
        Some(Content::Unwritten) => Shows::Hole,
    }
}

/// A file, as the root dataset, its snapshots `a`, `b` and `c` and a clone of `b` show it.
struct Seen {
    world: World,
    file: Ino,
}

impl Seen {
    /// Writes under each node what `writes` says: slot and block.
    fn new(writes: [&[(u64, u64)]; 4]) -> Self {
        let world = World::new();
        let file = world.file(Ino::ROOT, "f");
        for (name, writes) in ["a", "b", "c", ""].into_iter().zip(writes) {
            for &(slot, number) in writes {
                world.write(file, slot, &[piece(0, SLOT_LEN, number)]);
            }
            if name.is_empty() {
                break;
            }
            world.ns.snapshot(&[Dataset::ROOT], name, "").unwrap();
            if name == "b" {
                let of = (Dataset::ROOT, "b");
                world.ns.clone_snapshot(&ROOT_CALLER, of, Ino::ROOT, b"clone").unwrap();
            }
        }
        world.assert_sound();
        Self { world, file }
    }

    fn key(&self, slot: u64) -> [u8; key::SUB_AT + 8] {
        key::head_numbered(Dataset::ROOT, self.file, Kind::Extent, slot)
    }

    /// The version of a slot that is the newest on the line.
    fn version(&self, slot: u64) -> Version {
        let value = self.world.store.get(Space::Head, &self.key(slot)).unwrap().unwrap();
        Version::split(&value).unwrap().0
    }

    /// Lets the newest version of a slot say something else.
    fn with_version(&self, slot: u64, change: impl FnOnce(&mut Version)) {
        let old = self.world.store.get(Space::Head, &self.key(slot)).unwrap().unwrap();
        let (mut version, record) = Version::split(&old).unwrap();
        change(&mut version);
        let mut value = Vec::new();
        version.put(&mut value);
        value.extend_from_slice(record);
        edit(&self.world, |batch| batch.put(Space::Head, &self.key(slot), value));
    }

    fn drop_newest(&self, slot: u64) {
        edit(&self.world, |batch| batch.delete(Space::Head, &self.key(slot)));
    }

    /// What `a`, `b`, `c`, the root dataset and the clone show in a slot.
    fn all(&self, slot: u64) -> [Shows; 5] {
        let ns = &self.world.ns;
        let in_snapshot = |name| {
            let root = ns.snapshot_root(Dataset::ROOT, name).unwrap();
            let found = ns.lookup(root, b"f").unwrap().ino;
            shows(&self.world, found, slot)
        };
        let clone = ns.lookup(Ino::ROOT, b"clone").unwrap().ino;
        let in_clone = ns.lookup(clone, b"f").unwrap().ino;
        [
            in_snapshot("a"),
            in_snapshot("b"),
            in_snapshot("c"),
            shows(&self.world, self.file, slot),
            shows(&self.world, in_clone, slot),
        ]
    }

    /// Repairs until a second time finds nothing; the blocks that were held are.
    fn repair(self) -> (Self, Repaired) {
        let before = blocks_held(&self.world);
        let world = reopened_to_repair(self.world).unwrap();
        let done = world.ns.repair(OPTIONS, &mut Kept::default()).unwrap();
        assert!(blocks_held(&world).is_superset(&before), "given up: {:?}", done.repairs);
        let again = world.ns.repair(OPTIONS, &mut Kept::default()).unwrap();
        assert_eq!(again.repairs, []);
        (Self { world: world.crash(), ..self }, done)
    }
}

/// `None` when the version tree cannot be loaded.
pub(super) fn reopened_to_repair(world: World) -> Option<World> {
    let store = Arc::new(world.store.reopened());
    let ns = Namespace::open_to_repair(
        Arc::clone(&store) as Arc<dyn NamespaceStore>,
        Arc::clone(&world.clock) as Arc<dyn Clock>,
        NamespaceOptions { cached_inodes: 64, read_only: false },
    );
    Some(World { clock: world.clock, store, ns: ns.ok()? })
}

/// Blocks that nobody may clear away.
pub(super) fn blocks_held(world: &World) -> BTreeSet<BlockId> {
    let keys = everything(world, Space::Backrefs).into_keys();
    keys.filter_map(|key| Backref::decode(&key).ok()).map(|found| found.block).collect()
}

/// Whether pieces are those of lost content.
pub(super) fn is_lost(pieces: &[Piece]) -> bool {
    pieces.len() == 1 && pieces[0].block().is_some_and(|block| block.id.epoch() == Epoch(0))
}

use Shows::{Block, Error, Hole};

#[test]
fn a_clone_shows_what_the_line_where_it_began_is_mended_to() {
    // The file is cut short after the snapshots; the record that says so is lost.
    let seen = Seen::new([&[(0, 1), (1, 2)], &[], &[], &[]]);
    {
        let _guard = seen.world.ns.lock(&[seen.file]);
        let mut inode = Inode::clone(&seen.world.ns.inode(seen.file).unwrap());
        inode.size = 5;
        seen.world.ns.truncate(inode, Durability::Buffered).unwrap();
    }
    let before = seen.all(1);
    assert_eq!(before, [Block(2), Block(2), Block(2), Hole, Block(2)]);
    assert!(seen.version(1).whiteout);
    seen.drop_newest(1);
    let (seen, done) = seen.repair();
    assert_eq!(seen.all(1), before, "{:?}", done.repairs);
    assert_eq!(done.remaining.found, 0, "{:?}", done.remaining.findings);
}

#[test]
fn the_versions_of_a_lost_node_stay() {
    // What was written between `a` and the destroyed `b` is seen by `c` alone.
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    for (name, number) in [("a", 1), ("b", 2), ("c", 0)] {
        if number > 0 {
            world.write(file, 0, &[piece(0, 10, number)]);
        }
        world.ns.snapshot(&[Dataset::ROOT], name, "").unwrap();
    }
    world.write(file, 0, &[piece(0, 10, 3)]);
    world
        .ns
        .setattr(&ROOT_CALLER, file, &SetAttr { perm: Some(0o600), ..SetAttr::default() })
        .unwrap();
    world.ns.destroy_snapshots(&[(Dataset::ROOT, "b")], false).unwrap();
    while world.ns.sweep_some(64).unwrap().more {}
    let before = contents(&world);
    assert!(before["1@c/f"].contains(&format!("{:?}", block(2))), "{before:?}");
    edit(&world, |batch| batch.delete(Space::Meta, &key::meta_number(key::NODES, 2)));
    let world = reopened_to_repair(world).unwrap();
    assert!(world.ns.check(OPTIONS).unwrap().found > 0);
    let done = world.ns.repair(OPTIONS, &mut Kept::default()).unwrap();
    assert_eq!(done.remaining.found, 0, "{:?}", done.remaining.findings);
    let world = world.crash();
    assert_eq!(contents(&world), before);
    assert!(world.ns.is_referenced(block(2).id).unwrap());
    world.assert_sound();
}

#[test]
fn nodes_that_other_records_name_are_made_anew() {
    let seen = Seen::new([&[(0, 1)], &[(0, 2)], &[(0, 3)], &[(0, 4)]]);
    let before = seen.all(0);
    edit(&seen.world, |batch| {
        for key in everything(&seen.world, Space::Meta).into_keys() {
            if key[0] == key::NODES {
                batch.delete(Space::Meta, &key);
            }
        }
    });
    let (seen, done) = seen.repair();
    assert_eq!((seen.all(0), done.remaining.found), (before, 0));
    seen.world.assert_sound();
}

#[test]
fn a_newest_version_with_too_low_a_node_hides_nothing() {
    let seen = Seen::new([&[(0, 1)], &[(0, 2)], &[], &[(0, 4)]]);
    let before = seen.all(0);
    assert_eq!(before, [Block(1), Block(2), Block(2), Block(4), Block(2)]);
    seen.with_version(0, |version| version.node = Node::FIRST);
    let (seen, done) = seen.repair();
    assert_eq!(seen.all(0), before, "{:?}", done.repairs);
    assert_eq!(done.remaining.found, 0, "{:?}", done.remaining.findings);
    seen.world.assert_sound();
    // An inode has no back-references; its history tells.
    let seen = Seen::new([&[(0, 1)], &[(0, 2)], &[], &[(0, 4), (1, 5)]]);
    let before = contents(&seen.world);
    let key = key::head(Dataset::ROOT, seen.file, Kind::Inode);
    let old = seen.world.store.get(Space::Head, &key).unwrap().unwrap();
    let (version, record) = Version::split(&old).unwrap();
    let mut value = Vec::new();
    Version { node: Node::FIRST, ..version }.put(&mut value);
    value.extend_from_slice(record);
    edit(&seen.world, |batch| batch.put(Space::Head, &key, value));
    let (seen, _) = seen.repair();
    assert_eq!(contents(&seen.world), before);
    seen.world.assert_sound();
}

#[test]
fn a_version_is_under_the_node_that_its_blocks_tell() {
    // Too low: the snapshots would show what was written since.
    let seen = Seen::new([&[(1, 1)], &[], &[], &[(0, 4)]]);
    let before = seen.all(0);
    assert_eq!(before, [Hole, Hole, Hole, Block(4), Hole]);
    seen.with_version(0, |version| version.node = Node::FIRST);
    let (seen, done) = seen.repair();
    assert_eq!((seen.all(0), done.remaining.found), (before, 0), "{:?}", done.repairs);
    // Too high: they would show a hole.
    let seen = Seen::new([&[(0, 1)], &[], &[], &[(1, 2)]]);
    let before = seen.all(0);
    let newest = seen.version(1).node;
    seen.with_version(0, |version| version.node = newest);
    let (seen, done) = seen.repair();
    assert_eq!((seen.all(0), done.remaining.found), (before, 0), "{:?}", done.repairs);
    seen.world.assert_sound();
}

#[test]
fn lost_content_is_an_error_wherever_it_showed_and_nowhere_else() {
    // The newest version, which all show; there is a hole beside it.
    let seen = Seen::new([&[(0, 1), (2, 2)], &[], &[], &[]]);
    seen.drop_newest(0);
    let (seen, _) = seen.repair();
    assert_eq!(seen.all(0), [Error, Error, Error, Error, Error]);
    assert_eq!(seen.all(1), [Hole, Hole, Hole, Hole, Hole]);
    assert_eq!(seen.all(2), [Block(2), Block(2), Block(2), Block(2), Block(2)]);
    // The newest version, which only the live state shows.
    let seen = Seen::new([&[(0, 1)], &[], &[], &[(0, 4)]]);
    seen.drop_newest(0);
    let (seen, _) = seen.repair();
    assert_eq!(seen.all(0), [Block(1), Block(1), Block(1), Error, Block(1)]);
    // An older version, which some snapshots show.
    let seen = Seen::new([&[(0, 1)], &[(0, 2)], &[], &[(0, 4)]]);
    let (node, _) = seen.world.ns.tree.read().snapshots.iter().nth(1).map(|s| (*s.0, ())).unwrap();
    edit(&seen.world, |batch| batch.delete(Space::History, &key::history(&seen.key(0), node)));
    let (seen, _) = seen.repair();
    assert_eq!(seen.all(0), [Block(1), Error, Error, Block(4), Error]);
    // The version of a clone, below which its origin has another.
    let seen = Seen::new([&[(0, 1)], &[], &[], &[]]);
    let clone = seen.world.ns.lookup(Ino::ROOT, b"clone").unwrap().ino;
    let (file, line) = {
        let file = seen.world.ns.lookup(clone, b"f").unwrap().ino;
        (file, seen.world.ns.view(file).unwrap().line)
    };
    seen.world.write(file, 0, &[piece(0, SLOT_LEN, 7)]);
    let key = key::head_numbered(line, file, Kind::Extent, 0);
    edit(&seen.world, |batch| batch.delete(Space::Head, &key));
    let (seen, _) = seen.repair();
    assert_eq!(seen.all(0), [Block(1), Block(1), Block(1), Block(1), Error]);
}

#[test]
fn lost_content_without_blocks_is_an_error_where_it_showed() {
    let seen = Seen::new([&[], &[], &[], &[]]);
    let world = &seen.world;
    let old = world.file(Ino::ROOT, "old");
    let inline = || Piece { start: 0, len: 6, content: Content::Inline("inline".into()) };
    world.write(old, 0, &[inline()]);
    world.ns.snapshot(&[Dataset::ROOT], "d", "").unwrap();
    let young = world.file(Ino::ROOT, "young");
    world.write(young, 0, &[inline()]);
    for ino in [old, young] {
        let key = key::head_numbered(Dataset::ROOT, ino, Kind::Extent, 0);
        edit(world, |batch| batch.delete(Space::Head, &key));
    }
    let (seen, _) = seen.repair();
    let root = seen.world.ns.snapshot_root(Dataset::ROOT, "d").unwrap();
    let in_snapshot = seen.world.ns.lookup(root, b"old").unwrap().ino;
    for ino in [old, young, in_snapshot] {
        assert_eq!(shows(&seen.world, ino, 0), Error);
    }
}

#[test]
fn many_lost_slots_are_all_errors() {
    let seen = Seen::new([&[], &[], &[], &[(0, 1)]]);
    let node = seen.version(0).node;
    let count = 70_000_u64;
    change(&seen.world, seen.file, |inode| {
        inode.size = count * u64::from(SLOT_LEN);
        inode.allocated = inode.size;
    });
    edit(&seen.world, |batch| {
        for slot in 1..count {
            let block = BlockId::new(Epoch(1), slot + 100).unwrap();
            let backref = Backref { block, ino: seen.file, slot, node };
            batch.put(Space::Backrefs, &backref.encode(), Bytes::new());
        }
    });
    let world = seen.world;
    world.ns.repair(OPTIONS, &mut Kept::default()).unwrap();
    assert_eq!(shows(&world, seen.file, 0), Block(1));
    for slot in 1..count {
        assert_eq!(shows(&world, seen.file, slot), Error, "slot {slot}");
    }
}

#[test]
fn too_high_a_count_of_allocated_bytes_turns_no_hole_into_an_error() {
    for by in [9, 1000, u64::from(SLOT_LEN), 1 << 40] {
        let seen = Seen::new([&[(0, 1), (2, 2)], &[], &[], &[]]);
        change(&seen.world, seen.file, |inode| inode.allocated += by);
        let (seen, done) = seen.repair();
        assert_eq!(seen.all(1), [Hole, Hole, Hole, Hole, Hole]);
        assert_eq!(done.remaining.found, 0, "{:?}", done.remaining.findings);
        assert_eq!(seen.world.attr(seen.file).blocks, 2 * u64::from(SLOT_LEN) / 512);
        assert!(done.counts.contains_key(&(FindingKind::Content, Fate::Dropped)), "it is told");
    }
}

#[test]
fn a_name_stays_when_its_inode_is_lost() {
    let world = World::new();
    let dir = world.dir(Ino::ROOT, "d");
    let file = world.file(dir, "f");
    world.write(file, 0, &[piece(0, SLOT_LEN, 1)]);
    world.write(file, 1, &[piece(0, SLOT_LEN, 2)]);
    let empty = world.file(dir, "empty");
    let twice = world.file(dir, "one");
    world.write(twice, 0, &[piece(0, 10, 3)]);
    world.ns.link(twice, Ino::ROOT, b"two").unwrap();
    let fifo = world.ns.mknod(&ROOT_CALLER, dir, b"fifo", 0o010_644, 0, 0).unwrap().ino;
    let bare = world.dir(dir, "bare");
    let all = [file, empty, twice, fifo, bare];
    edit(&world, |batch| {
        for ino in all {
            batch.delete(Space::Head, &key::head(Dataset::ROOT, ino, Kind::Inode));
        }
        // And a part of the content, which only its block tells.
        let slot = key::head_numbered(Dataset::ROOT, file, Kind::Extent, 1);
        batch.delete(Space::Head, &slot);
    });
    let world = reopened_to_repair(world).unwrap();
    let done = world.ns.repair(OPTIONS, &mut Kept::default()).unwrap();
    assert_eq!(done.remaining.found, 0, "{:?}", done.remaining.findings);
    let world = world.crash();
    assert_eq!(world.names(dir), ["bare", "empty", "f", "fifo", "one"]);
    assert_eq!(world.names(Ino::ROOT), ["d", "two"]);
    for (name, ino) in [(&b"f"[..], file), (b"empty", empty), (b"one", twice), (b"bare", bare)] {
        assert_eq!(world.ns.lookup(dir, name).unwrap().ino, ino);
    }
    assert_eq!((shows(&world, file, 0), shows(&world, file, 1)), (Block(1), Error));
    assert_eq!(world.attr(file).size, 2 * u64::from(SLOT_LEN));
    assert_eq!(shows(&world, empty, 0), Error, "nobody knows that it was empty");
    assert!(world.attr(empty).size > 0);
    assert_eq!((shows(&world, twice, 0), world.attr(twice).nlink), (Block(3), 2));
    assert_eq!(world.attr(fifo).kind, FileKind::Fifo);
    assert_eq!(world.attr(bare).kind, FileKind::Directory);
    world.assert_sound();
}

#[test]
fn blocks_are_held_as_long_as_what_was_kept_aside_is() {
    let seen = Seen::new([&[(0, 1), (1, 2)], &[], &[], &[]]);
    seen.drop_newest(0);
    let (seen, _) = seen.repair();
    let ns = &seen.world.ns;
    assert!(ns.is_referenced(block(1).id).unwrap());
    assert_eq!(ns.owners(block(1).id, 9).unwrap(), [], "nobody has it");
    seen.world.assert_sound();
    ns.repair(OPTIONS, &mut Kept { is_gone: true, ..Kept::default() }).unwrap();
    assert!(!ns.is_referenced(block(1).id).unwrap() && ns.is_referenced(block(2).id).unwrap());
    seen.world.assert_sound();
}

#[test]
fn a_version_under_the_key_of_another_is_an_error() {
    let seen = Seen::new([&[(0, 1)], &[(0, 2)], &[], &[(0, 4)]]);
    let tree = seen.world.ns.tree.read().clone();
    let nodes: Vec<Node> = tree.snapshots.keys().copied().collect();
    let of = |node| key::history(&seen.key(0), node);
    let older = seen.world.store.get(Space::History, &of(nodes[0])).unwrap().unwrap();
    edit(&seen.world, |batch| batch.put(Space::History, &of(nodes[1]), older));
    assert_eq!(seen.all(0), [Block(1), Error, Error, Block(4), Error]);
}

#[test]
fn a_version_tree_that_lacks_more_than_nodes_is_left_alone() {
    let clone = |seen: &Seen| seen.world.ns.datasets().into_iter().find(|d| d.origin.is_some());
    type Lost = fn(Dataset, Node) -> [u8; 5];
    let lost: [Lost; 3] = [
        |clone, _| key::meta_number(key::LINES, clone.0),
        |_, origin| key::meta_number(key::SNAPSHOTS, origin.0),
        |_, _| key::meta_number(key::DATASETS, Dataset::ROOT.0),
    ];
    for lost in lost {
        let seen = Seen::new([&[(0, 1)], &[(0, 2)], &[(0, 3)], &[(0, 4)]]);
        let clone = clone(&seen).unwrap().dataset;
        let origin = seen.world.ns.tree.read().datasets[&clone].origin.unwrap();
        edit(&seen.world, |batch| batch.delete(Space::Meta, &lost(clone, origin)));
        let before: Vec<_> = Space::ALL.map(|space| everything(&seen.world, space)).into();
        let world = reopened_to_repair(seen.world).unwrap();
        let mut kept = Kept::default();
        let done = world.ns.repair(OPTIONS, &mut kept).unwrap();
        assert!(done.remaining.kinds.contains_key(&FindingKind::VersionTree));
        assert!(done.repairs.is_empty() && kept.records.is_empty());
        for (space, before) in Space::ALL.into_iter().zip(before).take(4) {
            assert_eq!(everything(&world, space), before, "{space:?}");
        }
    }
}

#[test]
fn a_snapshot_whose_record_is_lost_is_told_of_and_keeps_its_blocks() {
    let seen = Seen::new([&[(0, 1)], &[(0, 2)], &[(0, 3)], &[(0, 4)]]);
    seen.world.seal_all(100);
    let node = seen.world.ns.find_snapshot(Dataset::ROOT, "c").unwrap().node;
    edit(&seen.world, |batch| {
        batch.delete(Space::Meta, &key::meta_number(key::SNAPSHOTS, node.0));
        // And something to be repaired beside.
        batch.delete(Space::Head, &seen.key(0));
    });
    let held = blocks_held(&seen.world);
    let world = reopened_to_repair(seen.world).unwrap();
    let done = world.ns.repair(OPTIONS, &mut Kept::default()).unwrap();
    // Its digest is the last that tells of it, and is kept aside.
    assert_eq!(done.counts[&(FindingKind::SnapshotDigest, Fate::Dropped)], 1, "{:?}", done.repairs);
    assert_eq!(done.remaining.found, 0, "{:?}", done.remaining.findings);
    assert!(blocks_held(&world).is_superset(&held));
}
