//! Random damage: no panic, nothing left that can be repaired, and what was not hit is as it was.

use proptest::prelude::*;

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

/// Records that a repair may be asked to repair: not the version tree and not the leases.
fn records(world: &World) -> Vec<(Space, Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    for space in Space::ALL {
        for (key, value) in everything(world, space) {
            if space != Space::Meta || [key::ORPHANS, key::DIGESTS, key::USAGE].contains(&key[0]) {
                found.push((space, key, value));
            }
        }
    }
    found
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

/// Does harm; returns the objects that it may have hit, and files of which a slot went.
fn damage(
    world: &World,
    harms: &[(prop::sample::Index, Harm)],
) -> (BTreeSet<u64>, Vec<(u64, u64)>) {
    let mut hit = BTreeSet::new();
    let mut lost = Vec::new();
    for (which, harm) in harms {
        let records = records(world);
        let (space, key, value) = which.get(&records);
        about(*space, key, value, &mut hit);
        let mut batch = Batch::new();
        let mut new_key = key.clone();
        let mut new = value.clone();
        match harm {
            Harm::Drop => {
                batch.delete(*space, key);
                if let (Space::Head, Ok(head)) = (space, key::HeadKey::decode(key))
                    && (head.kind, head.line) == (Kind::Extent, Dataset::ROOT)
                {
                    lost.push((head.object.0, head.number().unwrap()));
                }
            }
            Harm::Flip(at, by) if !value.is_empty() => new[at.index(value.len())] ^= by,
            Harm::Cut(at) if !value.is_empty() => new.truncate(at.index(value.len())),
            Harm::Repeat(at, by) => new_key[at.index(key.len())] ^= by,
            Harm::Flip(..) | Harm::Cut(_) => batch.delete(*space, key),
        }
        if batch.is_empty() {
            let old = world.store.get(*space, &new_key).unwrap().unwrap_or_default();
            about(*space, &new_key, &old, &mut hit);
            about(*space, &new_key, &new, &mut hit);
            batch.put(*space, &new_key, new);
        }
        world.store.commit(batch, Durability::Buffered).unwrap();
    }
    (hit, lost)
}

fn reopened_to_repair(world: World) -> World {
    let store = Arc::new(world.store.reopened());
    let ns = Namespace::open_to_repair(
        Arc::clone(&store) as Arc<dyn NamespaceStore>,
        Arc::clone(&world.clock) as Arc<dyn Clock>,
        NamespaceOptions { cached_inodes: 64, read_only: false },
    )
    .unwrap();
    World { clock: world.clock, store, ns }
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
        let sample = sample();
        let before = files(&sample.world);
        let (hit, lost) = damage(&sample.world, &harms);
        let world = reopened_to_repair(sample.world);
        let done = world.ns.repair(OPTIONS, &mut Kept::default()).unwrap();
        let left: Vec<_> = done.remaining.kinds.keys().copied().collect();
        // What no repair can mend: content that may be missing, what only snapshots show.
        let hopeless = [FindingKind::DamagedOlder, FindingKind::Content, FindingKind::NoDataset];
        prop_assert!(
            left.iter().all(|kind| hopeless.contains(kind)),
            "{:?}\n{:?}", done.remaining.findings, done.repairs
        );
        let again = world.ns.repair(OPTIONS, &mut Kept::default()).unwrap();
        prop_assert_eq!(&again.repairs, &[]);
        let world = world.crash();
        let after = files(&world);
        for (ino, (object, text)) in &before {
            if !hit.contains(object) {
                let now = after.get(ino).map(|(_, text)| text);
                prop_assert_eq!(now, Some(text), "inode {} of {:?}", object, done.repairs);
            }
        }
        for (object, slot) in lost {
            let Ok(view) = world.ns.live_view(Dataset::ROOT) else { continue };
            let ino = view.lift(Ino(object));
            let is_alive = world.ns.stored_inode(ino).unwrap().is_some_and(|inode| {
                inode.nlink > 0 && inode.size > slot * u64::from(SLOT_LEN)
            });
            let is_told = left.contains(&FindingKind::Content);
            if is_alive && !is_told {
                prop_assert_ne!(world.ns.slot(ino, slot).ok(), Some(vec![]), "zeros in {}", object);
            }
        }
        // It is a filesystem: names come, and names go.
        let file = world.file(Ino::ROOT, "new");
        world.write(file, 0, &[piece(0, 10, 9)]);
        world.ns.unlink(Ino::ROOT, b"new").unwrap();
    }
}
