//! Digests of snapshots: what they stand for, what a crash leaves of them, and that nothing of a
//! snapshot can be changed without their telling.

use std::ops::Range;

use super::*;
use crate::namespace::record::{Lanes, SealRecord, SnapshotRecord, SumRecord};

/// Blocks that hold one byte each, over and over, which is not that of a hole.
pub(super) struct Pattern;

impl ContentSource for Pattern {
    fn bytes(&mut self, block: &BlockRef, range: Range<u32>) -> FsResult<Option<Bytes>> {
        Ok(Some(vec![block.id.raw() as u8 + 1; range.len()].into()))
    }

    fn goes_on(&mut self) -> bool {
        true
    }
}

/// Blocks that cannot be had.
struct Nothing;

impl ContentSource for Nothing {
    fn bytes(&mut self, _: &BlockRef, _: Range<u32>) -> FsResult<Option<Bytes>> {
        Ok(None)
    }

    fn goes_on(&mut self) -> bool {
        true
    }
}

impl World {
    /// One step of the work behind the scenes, in pages of about so many records; `false` when there
    /// is nothing to do.
    pub(super) fn seal_step(&self, records: usize) -> bool {
        let Some(&node) = self.ns.unsealed().unwrap().first() else { return false };
        match self.ns.sum_page(node, records, &mut || true).unwrap() {
            Sealing::More => {}
            Sealing::Summed => {
                for ino in self.ns.settle_awaited(node, Ino(0)).unwrap().inodes {
                    let inode = self.ns.inode(ino).unwrap();
                    let digest = self.ns.digest_content(&inode, &mut Pattern).unwrap().unwrap();
                    assert!(self.ns.give_digest(node, ino, digest).unwrap());
                }
                self.ns.settle_awaited(node, Ino(0)).unwrap();
                assert_eq!(self.ns.seal(node).unwrap(), Sealing::Done);
            }
            other => panic!("{other:?}"),
        }
        true
    }

    pub(super) fn seal_all(&self, records: usize) {
        while self.seal_step(records) {}
    }

    pub(super) fn take(&self, name: &str) -> Snapshot {
        self.clock.tick();
        self.ns.snapshot(&[Dataset::ROOT], name, "why").unwrap().remove(0)
    }

    pub(super) fn seal(&self, name: &str) -> Option<Seal> {
        self.ns.find_snapshot(Dataset::ROOT, name).unwrap().seal
    }

    pub(super) fn prove(&self, name: &str) -> Proof {
        self.ns.prove((Dataset::ROOT, name), Some(&mut Pattern), &mut |_| true).unwrap()
    }

    pub(super) fn flaws(&self, name: &str) -> Vec<FlawKind> {
        self.prove(name).flaws.iter().map(|flaw| flaw.kind).collect()
    }

    /// Changes what is stored behind everybody's back.
    pub(super) fn alter(self, change: impl FnOnce(&mut Batch, &MemoryStore)) -> Self {
        let store = self.store.reopened();
        let mut batch = Batch::new();
        change(&mut batch, &store);
        assert!(!batch.is_empty());
        store.commit(batch, Durability::Durable).unwrap();
        Self::open(Arc::new(store), self.clock)
    }
}

/// A tree with one of everything, twice taken and sealed.
fn planted() -> World {
    let world = taken();
    world.seal_all(2);
    world
}

fn taken() -> World {
    let world = World::new();
    let ns = &world.ns;
    let dir = world.dir(Ino::ROOT, "dir");
    let file = world.file(dir, "file");
    world.write(file, 0, &[piece(0, 100, 1)]);
    ns.symlink(&ROOT_CALLER, dir, b"link", b"target").unwrap();
    ns.setxattr(&ROOT_CALLER, file, b"user.x", b"value", Default::default()).unwrap();
    world.take("a");
    let other = world.file(dir, "other");
    world.write(other, 1, &[piece(5, 100, 2)]);
    world.take("b");
    world
}

#[test]
fn a_sealed_snapshot_verifies_and_its_digest_stands_for_those_before() {
    let world = planted();
    for (name, chain, files) in [("a", 1, 1), ("b", 2, 2)] {
        let proof = world.prove(name);
        assert_eq!(proof.flaws, []);
        assert_eq!((proof.root, proof.chain), (Some(proof.seal.unwrap().root), chain));
        assert_eq!((proof.files, proof.unread, proof.pending), (files, 0, None));
    }
    world.assert_sound();
    // Without a change in between the root is the same, and the digest is not.
    let (b, ns) = (world.seal("b").unwrap(), &world.ns);
    world.take("c");
    world.seal_all(9);
    let c = world.seal("c").unwrap();
    assert_eq!((b.root == c.root, b.digest == c.digest), (true, false));
    // Another name is no other history.
    ns.rename_snapshots(&[Dataset::ROOT], "a", "first").unwrap();
    assert_eq!(world.flaws("c"), []);
    let all = ns.prove((Dataset::ROOT, "c"), Some(&mut Nothing), &mut |_| true).unwrap();
    assert_eq!((all.files, all.unread, all.found), (0, 2, 0));
}

#[test]
fn an_old_state_that_comes_back_has_its_root_again() {
    let world = planted();
    let a = world.seal("a").unwrap();
    world.ns.rollback(Dataset::ROOT, "a", true).unwrap();
    world.take("again");
    world.seal_all(1);
    assert_eq!(world.seal("again").unwrap().root, a.root);
    assert_eq!(world.flaws("again"), []);
}

#[test]
fn a_crash_behind_any_page_leads_to_the_same_digest() {
    let finished = planted();
    let expected = [finished.seal("a"), finished.seal("b")];
    let mut ends_at = None;
    for steps in 0.. {
        // The same, page by page, and power is lost behind one of them, synced or not.
        for is_synced in [false, true] {
            let world = taken();
            let done = (0..steps).take_while(|_| world.seal_step(1)).count();
            ends_at = ends_at.or((done < steps).then_some(done));
            if is_synced {
                world.ns.sync().unwrap();
            }
            let world = world.power_loss();
            world.seal_all(1);
            assert_eq!([world.seal("a"), world.seal("b")], expected, "{steps} {is_synced}");
            assert_eq!(world.flaws("b"), []);
        }
        if ends_at.is_some() {
            break;
        }
    }
    assert!(ends_at.unwrap() >= 6, "too few pages to mean anything");
}

#[test]
fn a_destroyed_snapshot_leaves_its_link() {
    for gone in [&["a"][..], &["b"], &["a", "b"], &["b", "a"]] {
        let world = planted();
        world.take("c");
        world.seal_all(9);
        let c = world.seal("c").unwrap();
        for name in gone {
            world.ns.destroy_snapshots(&[(Dataset::ROOT, name)], false).unwrap();
        }
        let world = world.power_loss();
        let proof = world.prove("c");
        assert_eq!((&proof.flaws[..], proof.seal), (&[][..], Some(c)), "{gone:?}");
        assert_eq!((proof.destroyed, proof.is_cut), (gone.len() as u64, false));
        world.take("d");
        world.seal_all(9);
        assert_eq!(world.flaws("d"), []);
        world.assert_sound();
    }
}

#[test]
fn a_snapshot_that_goes_while_it_is_added_up_leaves_nothing() {
    let world = planted();
    for (gone, stays) in [("c", "d"), ("e", "f")] {
        let file = world.file(Ino::ROOT, gone);
        world.write(file, 0, &[piece(0, 7, 3)]);
        world.take(gone);
        assert!(world.seal_step(1));
        world.take(stays);
        world.ns.destroy_snapshots(&[(Dataset::ROOT, gone)], false).unwrap();
        world.seal_all(2);
        assert_eq!(world.flaws(stays), []);
    }
    let left = world.store.page(Space::Meta, &[key::AWAITED], Some(&[key::AWAITED + 1]), 9);
    assert_eq!(left.unwrap().items.len(), 0);
    assert_eq!(world.store.page(Space::Meta, b"j", Some(b"k"), 9).unwrap().items.len(), 4);
}

#[test]
fn a_sum_begins_anew_when_what_it_began_with_goes() {
    let world = planted();
    let ns = &world.ns;
    let file = world.file(Ino::ROOT, "f");
    world.write(file, 0, &[piece(0, 7, 3)]);
    world.dir(Ino::ROOT, "last");
    let c = world.take("c");
    // The directory, and the file, which waits; one more to come.
    for _ in 0..2 {
        assert_eq!(ns.sum_page(c.node, 1, &mut || true).unwrap(), Sealing::More);
    }
    let notes = || world.store.page(Space::Meta, &[key::AWAITED], Some(&[key::AWAITED + 1]), 9);
    assert_eq!(notes().unwrap().items.len(), 1);
    ns.begin_digest(file).unwrap().unwrap();
    assert!(ns.end_digest(file, blake3::hash(&[4; 7])).unwrap());
    ns.destroy_snapshots(&[(Dataset::ROOT, "b")], false).unwrap();
    world.seal_all(1);
    assert_eq!(world.flaws("c"), []);
    world.assert_sound();
}

#[test]
fn a_page_that_did_not_see_all_of_its_snapshots_is_not_kept() {
    for gone in ["b", "c"] {
        let world = planted();
        let ns = &world.ns;
        for number in 0..100 {
            world.dir(Ino::ROOT, &format!("d{number}"));
        }
        let c = world.take("c");
        let mut is_destroyed = false;
        let page = ns.sum_page(c.node, 1000, &mut || {
            if !std::mem::replace(&mut is_destroyed, true) {
                ns.destroy_snapshots(&[(Dataset::ROOT, gone)], false).unwrap();
            }
            true
        });
        assert!(is_destroyed);
        assert_eq!(page.unwrap(), Sealing::Done, "{gone}");
        let sum = ns.sum_of(c.node).unwrap();
        assert!(sum.is_none_or(|sum| sum.next == Some(0)), "{gone}");
        assert_eq!(ns.sum_of(c.node).unwrap().is_some(), gone == "b");
        world.seal_all(1);
        world.assert_sound();
        if gone == "b" {
            assert_eq!(world.flaws("c"), []);
        }
    }
}

#[test]
fn files_without_a_digest_keep_a_snapshot_and_those_behind_it_pending() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    world.write(file, 0, &[piece(0, 10, 1)]);
    let a = world.take("a");
    world.take("b");
    let ns = &world.ns;
    assert_eq!(world.prove("a").pending, Some(Pending::Computing));
    assert_eq!(ns.sum_some(a.node, &mut || true).unwrap(), Sealing::Summed);
    assert_eq!(ns.seal(a.node).unwrap(), Sealing::Summed);
    let shown = ns.lookup(a.root, b"f").unwrap().ino;
    let proof = world.prove("a");
    assert_eq!((proof.pending, proof.root), (Some(Pending::Files(1, vec![shown])), None));
    let behind = Pending::Behind(Dataset::ROOT, "a".to_owned());
    assert_eq!(world.prove("b").pending, Some(behind));
    // What the live file gets, the snapshot's has as well: they are one version.
    let inode = ns.begin_digest(file).unwrap().unwrap();
    let digest = ns.digest_content(&inode, &mut Pattern).unwrap().unwrap();
    assert!(ns.end_digest(file, digest).unwrap());
    assert_eq!(ns.inode(shown).unwrap().digest, Some(digest));
    assert_eq!(ns.undigested(None, 9).unwrap().inodes, []);
    assert_eq!(ns.settle_awaited(a.node, Ino(0)).unwrap().settled, 1);
    assert_eq!(ns.seal(a.node).unwrap(), Sealing::Done);
    world.seal_all(9);
    assert_eq!(world.flaws("b"), []);
}

#[test]
fn the_digest_of_a_later_version_serves_as_long_as_the_content_is_the_same() {
    let world = World::new();
    let ns = &world.ns;
    let file = world.file(Ino::ROOT, "f");
    world.write(file, 0, &[piece(0, 10, 1)]);
    let a = world.take("a");
    let shown = ns.lookup(a.root, b"f").unwrap().ino;
    let digest_live = || {
        let inode = ns.begin_digest(file).unwrap().unwrap();
        let digest = ns.digest_content(&inode, &mut Pattern).unwrap().unwrap();
        assert!(ns.end_digest(file, digest).unwrap());
        digest
    };
    let perm = crate::types::SetAttr { perm: Some(0o600), ..Default::default() };
    ns.setattr(&ROOT_CALLER, file, &perm).unwrap();
    let digest = digest_live();
    assert_eq!(ns.inode(shown).unwrap().digest, None);
    assert_eq!(ns.digest_of_later(shown).unwrap(), Some(digest));
    world.write(file, 0, &[piece(0, 10, 2)]);
    assert_eq!(ns.digest_of_later(shown).unwrap(), None);
    digest_live();
    assert_eq!(ns.digest_of_later(shown).unwrap(), None);
}

/// The stored inode of a name in the root's directory `dir`.
fn head_key(world: &World, name: &str, kind: Kind, sub: &[u8]) -> Vec<u8> {
    let dir = world.ns.lookup(Ino::ROOT, b"dir").unwrap().ino;
    let ino =
        if name.is_empty() { dir } else { world.ns.lookup(dir, name.as_bytes()).unwrap().ino };
    let mut key = key::head(Dataset::ROOT, ino, kind).to_vec();
    key.extend_from_slice(sub);
    key
}

/// Another byte at the end of a stored value, which still decodes.
fn flip(batch: &mut Batch, store: &MemoryStore, space: Space, key: &[u8]) {
    let mut value = store.get(space, key).unwrap().unwrap().to_vec();
    *value.last_mut().unwrap() ^= 1;
    batch.put(space, key, value);
}

fn after(name: &str, kind: Kind, sub: &[u8]) -> Vec<FlawKind> {
    let world = planted();
    let key = head_key(&world, name, kind, sub);
    world.alter(|batch, store| flip(batch, store, Space::Head, &key)).flaws("b")
}

#[test]
fn another_digest_of_a_file_is_told() {
    // That of the content is not that of the inode either.
    assert_eq!(after("file", Kind::Inode, b""), [FlawKind::Content, FlawKind::Tree]);
}

#[test]
fn another_target_is_told() {
    assert_eq!(after("link", Kind::Symlink, b""), [FlawKind::Tree]);
}

#[test]
fn another_attribute_is_told() {
    assert_eq!(after("file", Kind::Xattr, b"user.x"), [FlawKind::Tree]);
}

#[test]
fn another_name_is_told() {
    let world = planted();
    let bucket = world.ns.names.bucket(b"file");
    let key = head_key(&world, "", Kind::Dentry, &bucket.to_be_bytes());
    let world = world.alter(|batch, store| flip(batch, store, Space::Head, &key));
    assert_eq!(world.flaws("b"), [FlawKind::Tree]);
}

#[test]
fn other_attributes_of_an_inode_are_told() {
    type Edit = fn(&mut Inode);
    let edits: [Edit; 7] = [
        |inode| inode.perm ^= 1,
        |inode| inode.uid += 1,
        |inode| inode.gid += 1,
        |inode| inode.rdev += 1,
        |inode| inode.nlink += 1,
        |inode| inode.mtime.nanos += 1,
        |inode| inode.digest = None,
    ];
    for (at, edit) in edits.into_iter().enumerate() {
        let world = planted();
        let key = head_key(&world, "file", Kind::Inode, b"");
        let world = world.alter(|batch, store| {
            let value = store.get(Space::Head, &key).unwrap().unwrap();
            let (version, record) = Version::split(&value).unwrap();
            let object = key::HeadKey::decode(&key).unwrap().object;
            let mut inode = Inode::decode(object, version, record).unwrap();
            edit(&mut inode);
            batch.put(Space::Head, &key, inode.encode());
        });
        assert_eq!(world.flaws("b"), [FlawKind::Tree], "edit {at}");
    }
}

#[test]
fn a_record_that_is_gone_is_told() {
    for (name, kind) in [("file", Kind::Inode), ("other", Kind::Inode), ("link", Kind::Symlink)] {
        let world = planted();
        let key = head_key(&world, name, kind, b"");
        let world = world.alter(|batch, _| batch.delete(Space::Head, &key));
        assert_eq!(world.flaws("b"), [FlawKind::Tree], "{name}");
    }
}

#[test]
fn other_bytes_of_a_file_are_told() {
    let world = planted();
    let key = head_key(&world, "other", Kind::Extent, &1_u64.to_be_bytes());
    let world = world.alter(|batch, store| {
        let stored = SlotRecord::decode_value(&store.get(Space::Head, &key).unwrap().unwrap());
        let value = SlotRecord::encode(stored.unwrap().version, &[piece(5, 100, 3)]);
        batch.put(Space::Head, &key, value.unwrap());
    });
    let proof = world.prove("b");
    assert_eq!(proof.flaws.len(), 1);
    assert_eq!(
        (proof.flaws[0].kind, proof.root),
        (FlawKind::Content, Some(proof.seal.unwrap().root))
    );
    let path = world.ns.path(proof.flaws[0].ino.unwrap());
    assert_eq!(path, b"/dir/other");
    assert_eq!(world.flaws("a"), []);
    let quick = world.ns.prove((Dataset::ROOT, "b"), None, &mut |_| true).unwrap();
    assert_eq!(quick.found, 0, "nobody asked for the bytes");
}

#[test]
fn another_record_of_a_snapshot_is_told_by_it_and_by_all_behind_it() {
    type Edit = fn(&mut SnapshotRecord);
    let edits: [Edit; 3] = [
        |record| record.created.nanos += 1,
        |record| record.message.push('!'),
        |record| record.guid = Some(crate::types::Guid([1; 16])),
    ];
    for edit in edits {
        let world = planted();
        let node = world.ns.find_snapshot(Dataset::ROOT, "a").unwrap().node;
        let key = key::meta_number(key::SNAPSHOTS, node.0);
        let world = world.alter(|batch, store| {
            let stored = store.get(Space::Meta, &key).unwrap().unwrap();
            let mut record = SnapshotRecord::decode(&stored).unwrap();
            edit(&mut record);
            batch.put(Space::Meta, &key, record.encode());
        });
        assert_eq!(world.flaws("a"), [FlawKind::Chain]);
        assert_eq!(world.flaws("b"), [FlawKind::Chain]);
        let found = world.ns.check(CheckOptions::default()).unwrap().findings;
        assert!(found.iter().all(|f| f.kind == FindingKind::SnapshotDigest) && found.len() == 1);
    }
}

#[test]
fn another_digest_of_a_snapshot_is_told() {
    let hash = |byte: u8| blake3::Hash::from_bytes([byte; 32]);
    type Edit = fn(&mut SealRecord, blake3::Hash);
    let edits: [(Edit, &[FlawKind]); 4] = [
        (
            |record, other| record.seal.as_mut().unwrap().root = other,
            &[FlawKind::Tree, FlawKind::Chain],
        ),
        (|record, other| record.seal.as_mut().unwrap().digest = other, &[FlawKind::Chain]),
        (|record, other| record.link.bodies.push(other), &[FlawKind::Chain]),
        (|record, other| record.link.start = Some(other), &[FlawKind::Chain]),
    ];
    for (edit, expected) in edits {
        let world = planted();
        let node = world.ns.find_snapshot(Dataset::ROOT, "b").unwrap().node;
        let key = key::meta_number(key::SEALS, node.0);
        let world = world.alter(|batch, store| {
            let stored = store.get(Space::Meta, &key).unwrap().unwrap();
            let mut record = SealRecord::decode(&stored).unwrap();
            edit(&mut record, hash(9));
            batch.put(Space::Meta, &key, record.encode());
        });
        assert_eq!((world.flaws("b"), world.flaws("a")), (expected.to_vec(), vec![]));
        assert_ne!(world.ns.check(CheckOptions::default()).unwrap().found, 0);
        // It does not get another one by itself.
        let before = world.seal("b");
        world.seal_all(9);
        assert_eq!(world.seal("b"), before);
    }
}

#[test]
fn a_digest_that_does_not_decode_is_told_and_not_computed_again() {
    let world = planted();
    let node = world.ns.find_snapshot(Dataset::ROOT, "b").unwrap().node;
    let key = key::meta_number(key::SEALS, node.0);
    let world = world.alter(|batch, _| batch.put(Space::Meta, &key, vec![1, 2, 3]));
    world.seal_all(9);
    assert_eq!(world.flaws("b"), [FlawKind::Chain]);
    assert_eq!(world.flaws("a"), []);
}

#[test]
fn another_sum_is_found_by_the_check_and_nothing_is_built_on_it() {
    let world = planted();
    let node = world.ns.find_snapshot(Dataset::ROOT, "b").unwrap().node;
    let key = key::meta_number(key::SUMS, node.0);
    let world = world.alter(|batch, store| {
        let stored = store.get(Space::Meta, &key).unwrap().unwrap();
        let mut sum = SumRecord::decode(&stored).unwrap();
        sum.lanes.add(b"more");
        assert_ne!(sum.lanes, Lanes::default());
        batch.put(Space::Meta, &key, sum.encode());
    });
    assert_eq!(world.ns.check(CheckOptions::default()).unwrap().found, 1);
    assert_eq!(world.flaws("b"), []);
    world.take("c");
    world.seal_all(9);
    assert_eq!(world.flaws("c"), []);
}

#[test]
fn a_snapshot_is_not_destroyed_while_it_is_verified() {
    let world = planted();
    let mut outcome = Ok(());
    let proof = world.ns.prove((Dataset::ROOT, "b"), None, &mut |_| {
        outcome = world.ns.destroy_snapshots(&[(Dataset::ROOT, "b")], false);
        true
    });
    assert!(matches!(outcome, Err(TreeError::Sending(_))));
    assert!(!proof.unwrap().is_stopped);
    let proof = world.ns.prove((Dataset::ROOT, "b"), None, &mut |_| false).unwrap();
    assert!(proof.is_stopped && proof.root.is_none());
}

/// A tier that does not answer for one block.
struct Silent(BlockId);

impl ContentSource for Silent {
    fn bytes(&mut self, block: &BlockRef, range: Range<u32>) -> FsResult<Option<Bytes>> {
        match block.id == self.0 {
            true => Err(firn_tiering::Error::TimedOut("reading from the cold tier").into()),
            false => Pattern.bytes(block, range),
        }
    }

    fn goes_on(&mut self) -> bool {
        true
    }
}

#[test]
fn what_cannot_be_read_now_is_neither_proven_nor_altered() {
    let world = planted();
    let mut silent = Silent(block(1).id);
    let proof = world.ns.prove((Dataset::ROOT, "b"), Some(&mut silent), &mut |_| true).unwrap();
    assert_eq!((&proof.flaws[..], proof.found), (&[][..], 0));
    assert_eq!((proof.files, proof.unread, proof.unreadable.len()), (1, 1, 1));
    assert_eq!(world.ns.path(proof.unreadable[0].ino), b"/dir/file");
    assert!(proof.unreadable[0].reason.contains("deadline"), "{:?}", proof.unreadable);
    assert_eq!(proof.root, proof.seal.map(|seal| seal.root), "everything else was looked at");
}

#[test]
fn a_disk_that_does_not_read_ends_the_verification() {
    let world = planted();
    world.file(Ino::ROOT, "later");
    let snapshot = world.take("c");
    world.seal_all(9);
    assert_eq!(world.flaws("c"), []);
    let dir = world.ns.lookup(snapshot.root, b"dir").unwrap().ino;
    let dir = Ino(dir.object());
    world.ns.setattr(&ROOT_CALLER, dir, &crate::types::SetAttr::default()).unwrap();
    world.file(dir, "last");
    let key = key::head(Dataset::ROOT, dir, Kind::Inode);
    let ns = failing::Failing::open(&world, move |space, of| space == Space::Head && of == key);
    let error = ns.prove((Dataset::ROOT, "c"), None, &mut |_| true).unwrap_err();
    assert!(matches!(&error, TreeError::Fs(error) if error.is_of_store()), "{error:?}");
}

#[test]
fn no_other_snapshot_gets_a_digest_by_a_number_that_came_round() {
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    world.write(file, 0, &[piece(0, 10, 1)]);
    let a = world.take("a");
    let shown = world.ns.lookup(a.root, b"f").unwrap().ino;
    let inode = world.ns.inode(shown).unwrap();
    let digest = world.ns.digest_content(&inode, &mut Pattern).unwrap().unwrap();
    world.write(file, 0, &[piece(0, 10, 2)]);
    world.ns.destroy_snapshots(&[(Dataset::ROOT, "a")], false).unwrap();
    // As after 65,534 others.
    let world = world.alter(|batch, store| {
        let stored = store.get(Space::Meta, key::COUNTERS).unwrap().unwrap();
        let counters = record::Counters::decode(&stored).unwrap();
        let counters = record::Counters { view: u32::from(shown.view_index()), ..counters };
        batch.put(Space::Meta, key::COUNTERS, counters.encode());
    });
    let b = world.take("b");
    assert_eq!(world.ns.lookup(b.root, b"f").unwrap().ino, shown, "the number came round");
    assert!(!world.ns.give_digest(a.node, shown, digest).unwrap());
    assert_eq!(world.ns.inode(shown).unwrap().digest, None);
    world.seal_all(9);
    assert_eq!(world.flaws("b"), []);
}
