//! Repair: each fault that a check knows is planted, named, repaired and gone, and whatever it did
//! not hit is as it was.

mod random;
mod views;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::namespace::names::cookie_of;
use crate::namespace::record::{Bucket, InodeFlags};
use crate::types::{SetAttr, XattrMode};

/// What a repair took away.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) records: Vec<(Space, Vec<u8>, Vec<u8>)>,
    /// What earlier repairs kept was removed.
    pub(super) is_gone: bool,
}

impl Keeper for Kept {
    fn keep(&mut self, space: Space, key: &[u8], value: &[u8]) -> FsResult<()> {
        self.records.push((space, key.to_vec(), value.to_vec()));
        Ok(())
    }

    fn sync(&mut self) -> FsResult<()> {
        Ok(())
    }

    fn has_kept(&self) -> bool {
        !self.is_gone
    }
}

pub(super) const OPTIONS: CheckOptions =
    CheckOptions { window: 64, max_findings: 200, snapshots: false };

/// Datasets, a snapshot, a clone, several names, content in blocks and without, and changes since.
pub(super) struct Sample {
    pub(super) world: World,
    pub(super) dir: Ino,
    pub(super) sub: Ino,
    pub(super) file: Ino,
    pub(super) young: Ino,
    pub(super) twice: Ino,
    pub(super) link: Ino,
}

pub(super) fn sample() -> Sample {
    let world = World::new();
    let ns = &world.ns;
    let dir = world.dir(Ino::ROOT, "d");
    let sub = world.dir(dir, "sub");
    let file = world.file(dir, "f");
    world.write(file, 0, &[piece(0, SLOT_LEN, 1)]);
    world.write(file, 2, &[piece(0, 1000, 2)]);
    ns.setxattr(&ROOT_CALLER, file, b"user.x", b"1", XattrMode::default()).unwrap();
    world.write(world.file(sub, "g"), 0, &[piece(0, 500, 3)]);
    let twice = world.file(dir, "one");
    ns.link(twice, sub, b"two").unwrap();
    let link = ns.symlink(&ROOT_CALLER, dir, b"l", b"target").unwrap().ino;
    ns.create_dataset(&ROOT_CALLER, dir, b"data", 0o755, &[]).unwrap();
    let data = ns.lookup(dir, b"data").unwrap().ino;
    world.write(world.file(data, "in"), 0, &[piece(0, 100, 4)]);
    ns.snapshot(&[Dataset::ROOT], "s", "").unwrap();
    ns.clone_snapshot(&ROOT_CALLER, (Dataset::ROOT, "s"), Ino::ROOT, b"clone").unwrap();
    world.write(file, 2, &[piece(0, 700, 5)]);
    let young = world.file(dir, "young");
    let bytes = Bytes::from_static(b"inline");
    world.write(young, 0, &[Piece { start: 0, len: 6, content: Content::Inline(bytes) }]);
    world.assert_sound();
    world.assert_counted();
    Sample { world, dir, sub, file, young, twice, link }
}

/// Everything that programs can see, by path.
pub(super) fn contents(world: &World) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    list(world, Ino::ROOT, "", &mut seen);
    for info in world.ns.datasets() {
        for snapshot in world.ns.snapshots(info.dataset).unwrap() {
            let at = format!("{}@{}", info.dataset.0, snapshot.name);
            list(world, snapshot.root, &at, &mut seen);
        }
    }
    seen
}

fn list(world: &World, dir: Ino, path: &str, seen: &mut BTreeMap<String, String>) {
    let ns = &world.ns;
    let mut entries = Vec::new();
    let listed = ns.readdir(dir, 2, false, &mut |entry| {
        entries.push((String::from_utf8_lossy(&entry.name).into_owned(), entry.ino));
        true
    });
    if let Err(error) = listed {
        seen.insert(format!("{path}/"), errno(&error).to_owned());
    }
    for (name, ino) in entries {
        let path = format!("{path}/{name}");
        let Ok(inode) = ns.inode(ino) else {
            seen.insert(path, "no inode".to_owned());
            continue;
        };
        let mut attr = inode.attr();
        attr.mtime = UNIX_EPOCH;
        attr.ctime = UNIX_EPOCH;
        if inode.is_dir() {
            // Its entries say so, and the check that they do.
            (attr.size, attr.nlink) = (0, 0);
        }
        let names = ns.listxattr(ino);
        let slots: Vec<_> = (0..4).map(|slot| ns.slot(ino, slot).map_err(|e| errno(&e))).collect();
        let target = ns.readlink(ino).ok();
        seen.insert(path.clone(), format!("{attr:?} {names:?} {slots:?} {target:?}"));
        if inode.is_dir() {
            list(world, ino, &path, seen);
        }
    }
}

pub(super) fn edit(world: &World, edit: impl FnOnce(&mut Batch)) {
    let mut batch = Batch::new();
    edit(&mut batch);
    world.store.commit(batch, Durability::Buffered).unwrap();
    world.ns.cache.clear();
}

fn change(world: &World, ino: Ino, change: impl FnOnce(&mut Inode)) {
    let mut inode = world.ns.stored_inode(ino).unwrap().unwrap();
    change(&mut inode);
    let key = key::head(Dataset::ROOT, ino, Kind::Inode);
    edit(world, |batch| batch.put(Space::Head, &key, inode.encode()));
}

fn bucket_key(world: &World, dir: Ino, name: &str) -> Vec<u8> {
    let number = world.ns.names.bucket(name.as_bytes());
    key::head_numbered(Dataset::ROOT, dir, Kind::Dentry, number).to_vec()
}

fn with_bucket(world: &World, dir: Ino, name: &str, change: impl FnOnce(&mut Bucket)) {
    let key = bucket_key(world, dir, name);
    let value = world.store.get(Space::Head, &key).unwrap();
    let (version, mut bucket) = match &value {
        Some(value) => {
            let (version, record) = Version::split(value).unwrap();
            (version, Bucket::decode(record).unwrap())
        }
        None => (Version::first(world.ns.view(dir).unwrap().node), Bucket::default()),
    };
    change(&mut bucket);
    let mut value = Vec::new();
    version.put(&mut value);
    bucket.put(&mut value);
    edit(world, |batch| batch.put(Space::Head, &key, value));
}

/// Plants a fault, and expects that a check names it, that a repair leaves `left`, and that only
/// what `hit` names is different afterwards.
fn mended(
    name: &str,
    plant: impl FnOnce(&Sample),
    kinds: &[FindingKind],
    hit: &[&str],
    left: &[FindingKind],
) -> (Sample, BTreeMap<String, String>, Repaired) {
    let sample = sample();
    let before = contents(&sample.world);
    plant(&sample);
    let planted: Vec<_> = Space::ALL.map(|space| everything(&sample.world, space)).into();
    let report = sample.world.ns.check(OPTIONS).unwrap();
    let found: BTreeSet<_> = report.kinds.keys().copied().collect();
    for kind in kinds {
        assert!(found.contains(kind), "{name}: {kind:?} not in {:?}", report.findings);
    }
    let mut kept = Kept::default();
    let done = sample.world.ns.repair(OPTIONS, &mut kept).unwrap();
    let remaining: Vec<_> = done.remaining.kinds.keys().copied().collect();
    assert_eq!(remaining, left, "{name}: {:?}", done.remaining.findings);
    let again = sample.world.ns.repair(OPTIONS, &mut Kept::default()).unwrap();
    assert_eq!(again.repairs, [], "{name}: a second repair finds nothing more");
    if left.is_empty() {
        sample.world.assert_counted();
    }
    // Whatever went was kept.
    for (space, planted) in Space::ALL.into_iter().zip(planted) {
        let now = everything(&sample.world, space);
        for (key, value) in planted.iter().filter(|(key, value)| now.get(*key) != Some(*value)) {
            let is_kept = kept.records.iter().any(|k| (k.0, &k.1, &k.2) == (space, key, value));
            let is_count = space == Space::Meta && [key::USAGE, b'i'].contains(&key[0]);
            assert!(is_kept || is_count, "{name}: {space:?} {key:?} was not kept");
        }
    }
    let sample = Sample { world: sample.world.crash(), ..sample };
    let after = contents(&sample.world);
    let is_hit =
        |path: &str| path.starts_with("/lost+found") || hit.iter().any(|hit| path.starts_with(hit));
    let rest = |all: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        all.iter().filter(|(path, _)| !is_hit(path)).map(|(p, s)| (p.clone(), s.clone())).collect()
    };
    let (now, then) = (rest(&after), rest(&before));
    for path in now.keys().chain(then.keys()) {
        assert_eq!(now.get(path), then.get(path), "{name}: {path}");
    }
    (sample, after, done)
}

pub(super) fn everything(world: &World, space: Space) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let found = world.store.page(space, &[], None, usize::MAX).unwrap();
    assert!(!found.more);
    found.items.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

#[test]
fn counts_are_made_anew() {
    use FindingKind::{Content, EntryCount, LinkCount, LinkRecord, Orphan};
    type Case = (&'static str, fn(&mut Inode), &'static [FindingKind]);
    let files: [Case; 6] = [
        ("links", |inode| inode.nlink = 7, &[LinkCount]),
        ("no links", |inode| inode.nlink = 0, &[LinkCount, Orphan]),
        ("allocated too much", |inode| inode.allocated += 9, &[Content]),
        ("allocated too little", |inode| inode.allocated -= 6, &[Content]),
        ("attribute names", |inode| inode.xattr_names = 99, &[Content]),
        ("a flag", |inode| inode.flags.set(InodeFlags::LINKS, true), &[LinkRecord]),
    ];
    for (name, by, kinds) in files {
        let plant = |sample: &Sample| change(&sample.world, sample.young, by);
        mended(name, plant, kinds, &[], &[]);
    }
    mended("entries", |s| change(&s.world, s.dir, |i| i.size = 99), &[EntryCount], &[], &[]);
    mended("directories", |s| change(&s.world, s.dir, |i| i.nlink = 9), &[EntryCount], &[], &[]);
    let hit = ["1@s/d/l"];
    mended("a target", |s| change(&s.world, s.link, |i| i.size = 9), &[Content], &hit, &[]);
    let plant = |s: &Sample| {
        change(&s.world, s.twice, |inode| inode.flags.set(InodeFlags::LINKS, false));
    };
    mended("no flag", plant, &[LinkRecord], &[], &[]);
    mended("home", |s| change(&s.world, s.twice, |i| i.cookie += 1), &[LinkRecord], &[], &[]);
}

#[test]
fn a_lost_acl_takes_the_rights_of_the_group_along() {
    let plant = |s: &Sample| {
        change(&s.world, s.young, |inode| inode.flags.set(InodeFlags::ACCESS_ACL, true));
    };
    let (s, ..) = mended("an ACL", plant, &[FindingKind::Content], &["/d/young"], &[]);
    assert_eq!(s.world.attr(s.young).perm, 0o604);
}

#[test]
fn names_are_put_right() {
    use FindingKind::{DanglingEntry, LinkCount, MisplacedEntry, Unreachable};
    let plant = |s: &Sample| {
        with_bucket(&s.world, s.dir, "gone", |bucket| {
            bucket.insert(b"gone", Ino(1 << 40), FileKind::File).unwrap();
        });
    };
    mended("a name of nothing", plant, &[DanglingEntry], &[], &[]);
    let plant = |s: &Sample| {
        with_bucket(&s.world, s.dir, "young", |bucket| {
            bucket.replace(b"young", s.young, FileKind::Fifo).unwrap();
        });
    };
    mended("another type", plant, &[DanglingEntry], &[], &[]);
    let plant = |s: &Sample| {
        let (from, number) = (bucket_key(&s.world, s.dir, "young"), s.world.ns.names.bucket(b"q"));
        let to = key::head_numbered(Dataset::ROOT, s.dir, Kind::Dentry, number);
        let value = s.world.store.get(Space::Head, &from).unwrap().unwrap();
        edit(&s.world, |batch| {
            batch.delete(Space::Head, &from);
            batch.put(Space::Head, &to, value);
        });
    };
    mended("another place", plant, &[MisplacedEntry], &[], &[]);
    let plant = |s: &Sample| {
        with_bucket(&s.world, Ino::ROOT, "again", |bucket| {
            bucket.insert(b"again", s.sub, FileKind::Directory).unwrap();
        });
    };
    mended("two parents", plant, &[Unreachable, LinkCount], &[], &[]);
    let plant = |s: &Sample| change(&s.world, s.sub, |inode| inode.cookie ^= 0x100);
    mended("a directory that lies elsewhere", plant, &[Unreachable], &[], &[]);
    let plant = |s: &Sample| {
        with_bucket(&s.world, s.dir, "young", |bucket| {
            let mut entries = Vec::new();
            Version::first(Node(2)).put(&mut entries);
            bucket.insert(b"young", s.young, FileKind::File).unwrap();
        });
    };
    mended("one name twice", plant, &[MisplacedEntry], &[], &[]);
}

#[test]
fn what_has_no_name_is_in_lost_found() {
    let plant = |s: &Sample| {
        let key = bucket_key(&s.world, s.dir, "young");
        edit(&s.world, |batch| batch.delete(Space::Head, &key));
    };
    let (s, after, done) = mended("no name", plant, &[FindingKind::LinkCount], &["/d/young"], &[]);
    let path = format!("/lost+found/#{}", s.young.object());
    assert!(after[&path].contains("inline"), "{after:?}");
    assert_eq!(done.counts[&(FindingKind::Unreachable, Fate::LostFound)], 1);
    let plant = |s: &Sample| {
        let key = bucket_key(&s.world, s.dir, "sub");
        edit(&s.world, |batch| batch.put(Space::Head, &key, &b"\x04\xee"[..]));
    };
    let (hit, left) = (["/d/sub", "/clone", "1@s"], [FindingKind::DamagedOlder]);
    let (s, after, _) = mended("a damaged name", plant, &[FindingKind::Damaged], &hit, &left);
    let path = format!("/lost+found/#{}", s.sub.object());
    assert!(after.contains_key(&format!("{path}/g")) && after.contains_key(&format!("{path}/two")));
}

#[test]
fn directories_that_hold_each_other_are_cut_out() {
    let plant = |s: &Sample| {
        // `d` lies in `d/sub`, and no longer in the root.
        let key = bucket_key(&s.world, Ino::ROOT, "d");
        edit(&s.world, |batch| batch.delete(Space::Head, &key));
        with_bucket(&s.world, s.sub, "d", |bucket| {
            bucket.insert(b"d", s.dir, FileKind::Directory).unwrap();
        });
        let cookie = cookie_of(s.world.ns.names.bucket(b"d"), 0);
        change(&s.world, s.dir, |inode| (inode.parent, inode.cookie) = (s.sub, cookie));
        change(&s.world, s.sub, |inode| inode.nlink += 1);
    };
    let hit = ["/d", "/clone", "1@s"];
    let (s, after, _) = mended("a loop", plant, &[FindingKind::Unreachable], &hit, &[]);
    let path = format!("/lost+found/#{}", s.dir.object());
    assert!(after.contains_key(&format!("{path}/sub/g")), "{after:?}");
    assert!(after.contains_key(&format!("{path}/data/in")), "the dataset there shows");
}

#[test]
fn link_records_and_names_agree_again() {
    let links = |s: &Sample| {
        let from = key::head(Dataset::ROOT, s.twice, Kind::Link);
        let to = key::head_end(Dataset::ROOT, s.twice, Kind::Link);
        s.world.store.page(Space::Head, &from, Some(&to), 9).unwrap().items
    };
    let plant = |s: &Sample| {
        let (key, _) = links(s).remove(0);
        edit(&s.world, |batch| batch.delete(Space::Head, &key));
    };
    mended("no record", plant, &[FindingKind::LinkRecord], &["1@s", "/clone"], &[]);
    let plant = |s: &Sample| {
        let key = bucket_key(&s.world, s.sub, "two");
        edit(&s.world, |batch| batch.delete(Space::Head, &key));
    };
    let kinds = [FindingKind::LinkRecord, FindingKind::LinkCount];
    let hit = ["1@s", "/clone"];
    let (_, after, _) = mended("a name that only its record has", plant, &kinds, &hit, &[]);
    assert!(after.contains_key("/d/sub/two"));
    let plant = |s: &Sample| {
        let (_, value) = links(s).remove(0);
        let at = key::LinkAt { dir: 1, cookie: 7 };
        let nowhere = key::head_link(Dataset::ROOT, s.twice, at);
        edit(&s.world, |batch| batch.put(Space::Head, &nowhere, value));
    };
    mended("one too many", plant, &[FindingKind::LinkRecord], &[], &[]);
}

#[test]
fn orphans_have_their_records_and_others_none() {
    let plant = |s: &Sample| {
        let key = key::meta_inode(key::ORPHANS, Dataset::ROOT, s.file);
        edit(&s.world, |batch| batch.put(Space::Meta, &key, Bytes::new()));
    };
    mended("not one", plant, &[FindingKind::Orphan], &[], &[]);
    let plant = |s: &Sample| {
        s.world.ns.unlink(s.dir, b"young").unwrap();
        let key = key::meta_inode(key::ORPHANS, Dataset::ROOT, s.young);
        edit(&s.world, |batch| batch.delete(Space::Meta, &key));
    };
    let (s, ..) = mended("one", plant, &[FindingKind::Orphan], &["/d/young"], &[]);
    assert_eq!(s.world.ns.orphans(None, 9).unwrap(), [s.young]);
}

#[test]
fn back_references_and_the_born_index_are_made_anew() {
    use FindingKind::{Damaged, MissingBackref, MissingBorn, StaleBackref};
    let plant = |s: &Sample| {
        let right = Backref { block: block(1).id, ino: s.file, slot: 0, node: Node::FIRST };
        edit(&s.world, |batch| {
            batch.delete(Space::Backrefs, &right.encode());
            batch.put(Space::Backrefs, &Backref { slot: 3, ..right }.encode(), Bytes::new());
            batch.put(Space::Backrefs, b"short", Bytes::new());
            batch.put(Space::Born, b"short", Bytes::new());
            batch.put(Space::Meta, b"oshort", Bytes::new());
            batch.put(Space::History, b"short", Bytes::new());
            let born: Vec<_> = everything(&s.world, Space::Born).into_keys().collect();
            born.iter().for_each(|key| batch.delete(Space::Born, key));
        });
    };
    let kinds = [MissingBackref, StaleBackref, MissingBorn, Damaged];
    mended("indexes", plant, &kinds, &[], &[]);
}

#[test]
fn content_that_is_gone_is_an_error_and_no_hole() {
    let slot = |ino, slot| key::head_numbered(Dataset::ROOT, ino, Kind::Extent, slot);
    let is_lost = |world: &World, ino, slot| {
        let pieces = world.ns.slot(ino, slot).unwrap();
        pieces.len() == 1 && pieces[0].block().is_some_and(|block| block.id.epoch() == Epoch(0))
    };
    let plant = |s: &Sample| {
        edit(&s.world, |batch| batch.put(Space::Head, &slot(s.file, 2), &b"\x0a\xee"[..]));
    };
    let (s, ..) = mended("damaged", plant, &[FindingKind::Damaged], &["/d/f"], &[]);
    assert!(is_lost(&s.world, s.file, 2) && !is_lost(&s.world, s.file, 0));
    assert_eq!(s.world.ns.slot(s.file, 1).unwrap(), [], "a hole is one");
    assert_eq!(s.world.attr(s.file).size, 2 * u64::from(SLOT_LEN) + 1000);
    let root = s.world.ns.snapshot_root(Dataset::ROOT, "s").unwrap();
    let dir = s.world.ns.lookup(root, b"d").unwrap().ino;
    let old = s.world.ns.lookup(dir, b"f").unwrap().ino;
    assert_eq!(s.world.ns.slot(old, 2).unwrap(), [piece(0, 1000, 2)]);
    // Gone, with only the back-reference and the sum to tell of it.
    let plant = |s: &Sample| edit(&s.world, |batch| batch.delete(Space::Head, &slot(s.file, 0)));
    let kinds = [FindingKind::Content, FindingKind::StaleBackref];
    let (s, ..) = mended("gone", plant, &kinds, &["/d/f", "1@s/d/f", "/clone"], &[]);
    assert!(is_lost(&s.world, s.file, 0));
    assert_eq!(s.world.ns.slot(s.file, 1).unwrap(), [], "a hole is one");
    // Gone, and inline.
    let plant = |s: &Sample| edit(&s.world, |batch| batch.delete(Space::Head, &slot(s.young, 0)));
    let (s, ..) = mended("inline", plant, &[FindingKind::Content], &["/d/young"], &[]);
    assert!(is_lost(&s.world, s.young, 0));
    s.world.ns.unlink(s.dir, b"young").unwrap();
    s.world.ns.purged(&[s.young]).unwrap();
    s.world.assert_sound();
}

#[test]
fn bytes_that_may_be_missing_among_many_holes_are_counted_anew() {
    let plant = |s: &Sample| {
        change(&s.world, s.young, |inode| (inode.size, inode.allocated) = (1 << 50, 50));
    };
    let (s, ..) = mended("many holes", plant, &[FindingKind::Content], &["/d/young"], &[]);
    assert_eq!(s.world.ns.inode(s.young).unwrap().allocated, 6);
    assert_eq!(s.world.ns.slot(s.young, 1).unwrap(), []);
}

#[test]
fn records_without_an_inode_get_one() {
    let lose = |s: &Sample, ino| {
        let key = key::head(Dataset::ROOT, ino, Kind::Inode);
        edit(&s.world, |batch| batch.delete(Space::Head, &key));
    };
    let kinds = [FindingKind::NoInode, FindingKind::DanglingEntry];
    let (_, after, _) = mended("a file", |s| lose(s, s.young), &kinds, &["/d/young"], &[]);
    assert!(after["/d/young"].contains("inline"), "it stays: {after:?}");
    let hit = ["/d", "/clone/d", "1@s/d"];
    let plant = |s: &Sample| {
        let key = key::head(Dataset::ROOT, s.sub, Kind::Inode);
        let bad = Bytes::from_static(b"\x04\xee");
        edit(&s.world, |batch| batch.put(Space::Head, &key, bad));
    };
    let left = [FindingKind::DamagedOlder];
    let (_, after, _) = mended("a directory", plant, &[FindingKind::Damaged], &hit, &left);
    assert!(after.contains_key("/d/sub/g") && after.contains_key("/d/f"), "it stays: {after:?}");
    let (_, after, _) = mended("the root", |s| lose(s, Ino::ROOT), &[], &[], &[]);
    assert!(after.contains_key("/d/sub/g"));
    let plant = |s: &Sample| {
        let key = key::head(Dataset::ROOT, s.link, Kind::Symlink);
        edit(&s.world, |batch| batch.delete(Space::Head, &key));
    };
    let hit = ["/d/l", "/clone/d/l", "1@s/d/l"];
    mended("a target", plant, &[FindingKind::Content], &hit, &[]);
}

#[test]
fn a_snapshot_shows_what_it_showed_or_an_error() {
    // Nobody can say what the snapshot showed: its version may have been the lost one.
    let plant = |s: &Sample| {
        let key = key::head(Dataset::ROOT, s.link, Kind::Symlink);
        edit(&s.world, |batch| batch.put(Space::Head, &key, Bytes::new()));
    };
    let left = [FindingKind::DamagedOlder];
    let hit = ["/d/l", "/clone/d/l", "1@s/d/l"];
    let (s, after, _) = mended("unreadable", plant, &[FindingKind::Damaged], &hit, &left);
    assert!(after["1@s/d/l"].ends_with("None") && !after.contains_key("/d/l"));
    // With the snapshot the damage goes.
    let clone = s.world.ns.datasets().into_iter().find(|info| info.origin.is_some()).unwrap();
    s.world.ns.destroy_dataset(clone.dataset, false).unwrap();
    s.world.ns.destroy_snapshots(&[(Dataset::ROOT, "s")], false).unwrap();
    while s.world.ns.sweep_some(64).unwrap().more {}
    s.world.assert_sound();
    // A rollback to it restores the damage, which then is the live state's to be repaired.
    let (s, ..) = mended("unreadable", plant, &[FindingKind::Damaged], &hit, &left);
    let clone = s.world.ns.datasets().into_iter().find(|info| info.origin.is_some()).unwrap();
    s.world.ns.destroy_dataset(clone.dataset, false).unwrap();
    s.world.ns.rollback(Dataset::ROOT, "s", false).unwrap();
    assert!(s.world.ns.check(OPTIONS).unwrap().kinds.contains_key(&FindingKind::Damaged));
    s.world.ns.repair(OPTIONS, &mut Kept::default()).unwrap();
    let sound = s.world.crash();
    let left = sound.ns.check(OPTIONS).unwrap().kinds.into_keys().collect::<Vec<_>>();
    assert_eq!(left, [FindingKind::DamagedOlder]);
    // An older version whose newest one is gone: the snapshot has it back.
    let plant = |s: &Sample| {
        let key = key::head_numbered(Dataset::ROOT, s.file, Kind::Extent, 2);
        edit(&s.world, |batch| batch.delete(Space::Head, &key));
    };
    let kinds = [FindingKind::Versions, FindingKind::Content];
    mended("no newest", plant, &kinds, &["/d/f"], &[]);
}

#[test]
fn nodes_and_counters_are_found_again() {
    let plant = |s: &Sample| {
        let key = key::usage(Dataset::ROOT, Node::MAX);
        let usage = record::Usage { charged: 7, ..Default::default() };
        edit(&s.world, |batch| batch.put(Space::Meta, &key, usage.encode()));
        let parts = s.world.ns.gate.ledger().parts();
        let wrong = parts.into_keys().map(|part| (part, usage)).collect();
        s.world.ns.gate.ledger().load(wrong, &s.world.ns.tree.read().clone());
    };
    mended("counters", plant, &[FindingKind::Usage], &[], &[]);
    let world = World::new();
    let file = world.file(Ino::ROOT, "f");
    for (name, number) in [("a", 1), ("b", 2)] {
        world.write(file, number, &[piece(0, 10, number)]);
        world.ns.snapshot(&[Dataset::ROOT], name, "").unwrap();
    }
    world.ns.destroy_snapshots(&[(Dataset::ROOT, "b")], false).unwrap();
    while world.ns.sweep_some(64).unwrap().more {}
    let before = contents(&world);
    let node = key::meta_number(key::NODES, 2);
    edit(&world, |batch| batch.delete(Space::Meta, &node));
    let world = world.crash();
    assert!(world.ns.check(OPTIONS).unwrap().found > 0);
    let done = world.ns.repair(OPTIONS, &mut Kept::default()).unwrap();
    assert_eq!((done.remaining.found, contents(&world)), (0, before));
}
