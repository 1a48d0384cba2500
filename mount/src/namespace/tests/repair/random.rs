//! Random damage: no panic, nothing left that can be repaired, and what was not hit is as it was. What
//! was hit has the bytes that it had or an error, wherever it shows, or is told of; and no block is
//! given up.

use proptest::prelude::*;

use super::views::{blocks_held, is_lost, reopened_to_repair};
use super::*;
use crate::types::FileKind;

#[derive(Clone, Copy, Debug)]
enum Harm {
    Drop,
    /// Flips bits of a byte.
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    /// Repeats the value under a key in which bits are flipped.
    Repeat(prop::sample::Index, u8),
}

fn harm() -> impl Strategy<Value = Harm> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        Just(Harm::Drop),
        (index(), 1..=u8::MAX).prop_map(|(at, by)| Harm::Flip(at, by)),
        index().prop_map(Harm::Cut),
        (index(), 1..=u8::MAX).prop_map(|(at, by)| Harm::Repeat(at, by)),
    ]
}

/// Objects that a record is about, by number.
fn about(space: Space, key: &[u8], value: &[u8], hit: &mut BTreeSet<u64>) {
    let head = match space {
        Space::Head => key.to_vec(),
        Space::History => match key::history_decode(Dataset::ROOT, key) {
            Ok((head, _)) => head,
            Err(_) => return,
        },
        Space::Born => return,
        Space::Backrefs => {
            hit.extend(Backref::decode(key).ok().map(|backref| backref.ino.0));
            return;
        }
        Space::Meta => {
            hit.extend(key::meta_inode_decode(key).ok().map(|(_, ino)| ino.0));
            return;
        }
    };
    let Ok(head) = key::HeadKey::decode(&head) else { return };
    hit.insert(head.object.0);
    let record = Version::split(value).map_or(&[][..], |(_, record)| record);
    match head.kind {
        Kind::Dentry => {
            let bucket = Bucket::decode(record).unwrap_or_default();
            hit.extend(bucket.entries().iter().map(|entry| entry.ino.0));
        }
        Kind::Link => hit.extend(key::LinkAt::decode(head.sub).ok().map(|at| at.dir)),
        _ => {}
    }
}

/// Records of the version tree, which are not made anew but for nodes.
const TREE: [u8; 5] = [key::DATASETS, key::LINES, key::NODES, key::SNAPSHOTS, b'c'];

/// Other meta records that damage may hit: all but the volume's own and the leases.
const NOTES: [u8; 5] = [key::ORPHANS, key::DIGESTS, key::USAGE, key::SEALS, key::SUMS];

fn is_of_tree(space: Space, key: &[u8]) -> bool {
    space == Space::Meta && TREE.contains(&key[0])
}

/// Records that damage may hit.
fn records(world: &World) -> Vec<(Space, Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    for space in Space::ALL {
        for (key, value) in everything(world, space) {
            if space != Space::Meta || TREE.contains(&key[0]) || NOTES.contains(&key[0]) {
                found.push((space, key, value));
            }
        }
    }
    found
}

/// [`sample`], with content of the clone's own, two more snapshots, one of them destroyed, digests
/// of snapshots, and changes between all of them.
fn rich() -> Sample {
    let sample = sample();
    let world = &sample.world;
    let clone = world.ns.lookup(Ino::ROOT, b"clone").unwrap().ino;
    let in_clone = |name: &str| {
        let dir = world.ns.lookup(clone, b"d").unwrap().ino;
        world.ns.lookup(dir, name.as_bytes()).unwrap().ino
    };
    world.write(in_clone("f"), 2, &[piece(0, 900, 6)]);
    world.write(world.file(clone, "own"), 0, &[piece(0, SLOT_LEN, 7)]);
    for (name, slot, number) in [("t", 0, 8), ("u", 1, 9)] {
        world.write(sample.file, slot, &[piece(0, SLOT_LEN, number)]);
        world.write(sample.twice, slot, &[piece(0, 300, number + 10)]);
        world.ns.snapshot(&[Dataset::ROOT], name, "").unwrap();
    }
    world.write(sample.file, 0, &[piece(0, SLOT_LEN, 30)]);
    let bytes = Bytes::from_static(b"longer inline");
    world.write(sample.young, 0, &[Piece { start: 0, len: 13, content: Content::Inline(bytes) }]);
    world.ns.destroy_snapshots(&[(Dataset::ROOT, "t")], false).unwrap();
    while world.ns.sweep_some(64).unwrap().more {}
    world.seal_all(100);
    world.assert_sound();
    sample
}

/// What each file of each state reads as, by its number: its slots.
fn slots(world: &World) -> BTreeMap<u64, Vec<Option<Vec<Piece>>>> {
    let mut found = BTreeMap::new();
    for (ino, _) in files(world) {
        let slots = (0..4).map(|slot| world.ns.slot(Ino(ino), slot).ok()).collect();
        found.insert(ino, slots);
    }
    found
}

/// Whether a slot shows what it showed, or an error as far as that reached.
fn is_right(before: &[Piece], after: Option<&[Piece]>) -> bool {
    let Some(after) = after else { return true };
    let end = before.last().map_or(0, Piece::end);
    before == after || is_lost(after) && after.last().map_or(0, Piece::end) >= end
}

/// Each file of each state, by its number: attributes, names of attributes, content.
fn files(world: &World) -> BTreeMap<u64, (u64, String)> {
    let ns = &world.ns;
    let tree = ns.tree.read().clone();
    let mut found = BTreeMap::new();
    for view in tree.live_views().into_iter().chain(tree.snapshot_views()) {
        let mut inos = Vec::new();
        ns.for_each_shown(&view, &mut |key, _| {
            let head = key::HeadKey::decode(key);
            inos.extend(head.ok().filter(|h| h.kind == Kind::Inode).map(|h| view.lift(h.object)));
            Ok(())
        })
        .unwrap();
        for ino in inos {
            let Ok(Some(inode)) = ns.stored_inode(ino) else { continue };
            if inode.kind == FileKind::Directory {
                continue;
            }
            let mut attr = inode.attr();
            attr.ctime = UNIX_EPOCH;
            let slots: Vec<_> =
                (0..4).map(|slot| ns.slot(ino, slot).map_err(|e| errno(&e))).collect();
            let names = ns.listxattr(ino).map_err(|e| errno(&e));
            let target = ns.readlink(ino).map_err(|e| errno(&e));
            let text = format!("{attr:?} {names:?} {slots:?} {target:?}");
            found.insert(ino.0, (ino.object(), text));
        }
    }
    found
}

/// What damage hit.
#[derive(Default)]
struct Hit {
    /// Objects that it may be about.
    objects: BTreeSet<u64>,
    /// Slots of which a record says something else, which nobody can tell.
    forged: BTreeSet<(u64, u64)>,
    /// Slots of which a record was hit, and those of which a back-reference was.
    extents: BTreeSet<(u64, u64)>,
    told: BTreeSet<(u64, u64)>,
    /// Records of the version tree are gone, or there is one too many.
    tree: bool,
}

impl Hit {
    fn note(&mut self, space: Space, key: &[u8]) {
        let told = Backref::decode(key).ok().filter(|_| space == Space::Backrefs);
        self.told.extend(told.map(|told| (told.ino.0, told.slot)));
        self.extents.extend(extent_of(space, key));
    }

    /// Whether nothing is left that could tell what a slot was.
    fn is_beyond_telling(&self, slot: (u64, u64)) -> bool {
        self.forged.contains(&slot) || self.extents.contains(&slot) && self.told.contains(&slot)
    }
}

/// The slot of a file that a record is about.
fn extent_of(space: Space, key: &[u8]) -> Option<(u64, u64)> {
    let head = match space {
        Space::Head => key.to_vec(),
        Space::History => key::history_decode(Dataset::ROOT, key).ok()?.0,
        _ => return None,
    };
    let head = key::HeadKey::decode(&head).ok().filter(|head| head.kind == Kind::Extent)?;
    Some((head.object.0, head.number().unwrap()))
}

fn damage(world: &World, harms: &[(prop::sample::Index, Harm)]) -> Hit {
    let mut hit = Hit::default();
    for (which, harm) in harms {
        let records = records(world);
        let (space, key, value) = which.get(&records);
        about(*space, key, value, &mut hit.objects);
        hit.note(*space, key);
        let mut batch = Batch::new();
        let mut new_key = key.clone();
        let mut new = value.clone();
        match harm {
            // Whose fields are others is another tree.
            _ if is_of_tree(*space, key) => {
                hit.tree = true;
                batch.delete(*space, key);
            }
            Harm::Drop => batch.delete(*space, key),
            Harm::Flip(at, by) if !value.is_empty() => new[at.index(value.len())] ^= by,
            Harm::Cut(at) if !value.is_empty() => new.truncate(at.index(value.len())),
            Harm::Repeat(at, by) => new_key[at.index(key.len())] ^= by,
            Harm::Flip(..) | Harm::Cut(_) => batch.delete(*space, key),
        }
        if batch.is_empty() {
            let old = world.store.get(*space, &new_key).unwrap().unwrap_or_default();
            about(*space, &new_key, &old, &mut hit.objects);
            about(*space, &new_key, &new, &mut hit.objects);
            hit.note(*space, &new_key);
            hit.tree |= *space == Space::Meta && !NOTES.contains(&new_key[0]);
            hit.forged.extend(extent_of(*space, &new_key));
            batch.put(*space, &new_key, new);
        }
        world.store.commit(batch, Durability::Buffered).unwrap();
    }
    hit
}

/// Everything but the notes about counters, leases and the volume.
fn stored(world: &World) -> Vec<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut all: Vec<_> = Space::ALL.map(|space| everything(world, space)).into();
    let is_own = |key: &[u8]| [b'i', b'v', key::USAGE].contains(&key[0]);
    all.iter_mut().for_each(|records| records.retain(|key, _| !is_own(key)));
    all
}

/// Objects of which content is told to be lost, by the repair or by a check of all states.
fn told(world: &World, done: &Repaired) -> BTreeSet<u64> {
    let options = CheckOptions { snapshots: true, max_findings: 10_000, ..OPTIONS };
    let found = world.ns.check(options).unwrap().findings;
    let found = found.into_iter().map(|finding| (finding.kind, finding.ino));
    let repairs = done.repairs.iter().map(|repair| (repair.kind, repair.ino));
    let about = found.chain(repairs).filter(|(kind, _)| *kind == FindingKind::Content);
    about.map(|(_, ino)| ino.object()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        rng_seed: prop::test_runner::RngSeed::Fixed(20),
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_damage_is_repaired_or_told(
        harms in prop::collection::vec((any::<prop::sample::Index>(), harm()), 1..6),
    ) {
        let sample = rich();
        let (before, shown) = (files(&sample.world), slots(&sample.world));
        let hit = damage(&sample.world, &harms);
        let (damaged, held) = (stored(&sample.world), blocks_held(&sample.world));
        let Some(world) = reopened_to_repair(sample.world) else {
            prop_assert!(hit.tree, "nothing else keeps a namespace from being opened");
            return Ok(());
        };
        let done = world.ns.repair(OPTIONS, &mut Kept::default()).unwrap();
        let left: Vec<_> = done.remaining.kinds.keys().copied().collect();
        if left.contains(&FindingKind::VersionTree) {
            prop_assert!(hit.tree);
            let nodes = |key: &Vec<u8>| key[0] == key::NODES;
            for (damaged, now) in damaged.iter().zip(stored(&world)) {
                let now = now.into_iter().filter(|(key, _)| damaged.contains_key(key) || !nodes(key));
                prop_assert!(now.collect::<BTreeMap<_, _>>() == *damaged, "nothing is touched");
            }
            return Ok(());
        }
        // What no repair can mend: what only snapshots show or say, and what may be of a lost dataset.
        let hopeless =
            [FindingKind::DamagedOlder, FindingKind::NoDataset, FindingKind::SnapshotDigest];
        prop_assert!(
            left.iter().all(|kind| hopeless.contains(kind)),
            "{:?}\n{:?}", done.remaining.findings, done.repairs
        );
        prop_assert!(blocks_held(&world).is_superset(&held), "given up: {:?}", done.repairs);
        let again = world.ns.repair(OPTIONS, &mut Kept::default()).unwrap();
        prop_assert_eq!(&again.repairs, &[]);
        let told = told(&world, &done);
        let world = world.crash();
        let (after, shows) = (files(&world), slots(&world));
        // States whose dataset or snapshot went with its record show nothing, which is told.
        let is_state = |ino: u64| !hit.tree || world.ns.view(Ino(ino)).is_ok();
        for (ino, (object, text)) in before.iter().filter(|(ino, _)| is_state(**ino)) {
            if !hit.objects.contains(object) {
                let now = after.get(ino).map(|(_, text)| text);
                prop_assert_eq!(now, Some(text), "inode {} of {:?}", object, done.repairs);
            }
        }
        for (ino, then) in shown.iter().filter(|(ino, _)| is_state(**ino)) {
            let object = Ino(*ino).object();
            // One that is not there has no bytes.
            let Some(now) = shows.get(ino).filter(|_| !told.contains(&object)) else { continue };
            for (slot, (then, now)) in (0..).zip(then.iter().zip(now)) {
                let is_untold = hit.is_beyond_telling((object, slot));
                let is_right = is_right(then.as_deref().unwrap(), now.as_deref());
                prop_assert!(
                    is_untold || is_right,
                    "MiB {} of inode {}: {:?}, not {:?}\n{:?}", slot, ino, now, then, done.repairs
                );
            }
        }
        // It is a filesystem: names come, and names go.
        let file = world.file(Ino::ROOT, "new");
        world.write(file, 0, &[piece(0, 10, 9)]);
        world.ns.unlink(Ino::ROOT, b"new").unwrap();
    }
}
