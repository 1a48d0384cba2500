//! Backups of which parts are gone: whatever goes, each file is as it was, or is named.

use std::collections::{BTreeMap, BTreeSet};

use firn_tiering::{BlockDigest, BlockId, BlockRef, Epoch};

use super::piece::PieceRef;
use super::*;
use crate::FsResult;
use crate::namespace::{
    CheckOptions, Content as FileContent, Dataset, Fate, Keeper, Piece, Repaired, SLOT_LEN,
};
use crate::types::{Caller, Ino};

const ROOT: Caller = Caller { uid: 0, gid: 0, pid: 0 };

/// Inode numbers that share a bucket.
const IN_A_BUCKET: u64 = 1024;

/// Files in each directory, and directories: three buckets of inodes.
const FILES: u64 = 110;
const DIRS: u64 = 20;

/// What each path shows.
type Shown = BTreeMap<String, String>;

/// Keeps nothing.
struct Nowhere;

impl Keeper for Nowhere {
    fn keep(&mut self, _: Space, _: &[u8], _: &[u8]) -> FsResult<()> {
        Ok(())
    }

    fn sync(&mut self) -> FsResult<()> {
        Ok(())
    }

    fn has_kept(&self) -> bool {
        false
    }
}

/// A tree with two backups, of which every piece can be lost.
struct History {
    bench: Bench,
    states: [Shown; 2],
    manifests: [Manifest; 2],
}

fn write(namespace: &Namespace, ino: Ino, number: u64) {
    let id = BlockId::new(Epoch(1), number).unwrap();
    let block = BlockRef { id, digest: BlockDigest([number as u8; 16]), len: SLOT_LEN };
    let piece = Piece { start: 0, len: 500, content: FileContent::Block { block, offset: 0 } };
    let _guard = namespace.lock(&[ino]);
    let mut inode = namespace.inode(ino).unwrap().as_ref().clone();
    let mut txn = namespace.begin();
    txn.put_slot(&mut inode, number % 3, &[piece]).unwrap();
    inode.size = inode.size.max(2 * u64::from(SLOT_LEN) + 500);
    txn.put_inode(inode).unwrap();
    txn.commit(Durability::Buffered).unwrap();
}

fn file(namespace: &Namespace, dir: Ino, name: &str) -> Ino {
    namespace.mknod(&ROOT, dir, name.as_bytes(), 0o100_644, 0, 0).unwrap().ino
}

fn shown(namespace: &Namespace, dir: Ino, path: &str, all: &mut Shown) {
    let mut entries = Vec::new();
    let listed = namespace.readdir(dir, 2, false, &mut |entry| {
        entries.push((String::from_utf8_lossy(&entry.name).into_owned(), entry.ino));
        true
    });
    listed.unwrap();
    for (name, ino) in entries {
        let path = format!("{path}/{name}");
        let inode = namespace.inode(ino).unwrap();
        let slots = namespace.slots(ino, 0, u64::MAX, 16).unwrap().slots;
        let slots: Vec<_> = slots.iter().map(|(slot, record)| (slot, &record.pieces)).collect();
        let is_dir = inode.is_dir();
        let size = if is_dir { 0 } else { inode.size };
        all.insert(path.clone(), format!("{:?} {size} {slots:?}", inode.kind));
        if is_dir {
            shown(namespace, ino, &path, all);
        }
    }
}

fn state(namespace: &Namespace) -> Shown {
    let mut all = Shown::new();
    shown(namespace, Ino::ROOT, "", &mut all);
    all
}

impl History {
    fn new(with_snapshot: bool) -> Self {
        Self::with_pieces(with_snapshot, PieceLimits::default())
    }

    fn with_pieces(with_snapshot: bool, pieces: PieceLimits) -> Self {
        let bench = Bench::new();
        let inner: Arc<dyn NamespaceStore> = Arc::new(MemoryStore::new());
        let root = NewRoot { uid: 0, gid: 0, perm: 0o755 };
        Namespace::create(&*inner, &*bench.clock, root, [9; 32]).unwrap();
        let tracked = Arc::new(Tracked::open(inner).unwrap());
        let clock = Arc::clone(&bench.clock) as Arc<dyn Clock>;
        let store = Arc::clone(&tracked) as Arc<dyn NamespaceStore>;
        let options = NamespaceOptions::default();
        let namespace = Namespace::open(store, Arc::clone(&clock), options).unwrap();
        let tier = Arc::clone(&bench.memory) as Arc<dyn Tier>;
        let handle = bench.runtime.handle().clone();
        let options = BackupOptions { pieces, ..BackupOptions::default() };
        let backup = Backup::new(tracked, tier, handle, clock, VOLUME, options).unwrap();
        let mut number = 0;
        let mut next = || {
            number += 1;
            number
        };
        let dirs: Vec<Ino> = (0..DIRS)
            .map(|n| {
                let name = format!("dir{n}");
                namespace.mkdir(&ROOT, Ino::ROOT, name.as_bytes(), 0o755, 0).unwrap().ino
            })
            .collect();
        let mut files = Vec::new();
        for &dir in &dirs {
            for n in 0..FILES {
                let ino = file(&namespace, dir, &format!("file{n}"));
                write(&namespace, ino, next());
                files.push((dir, n, ino));
            }
        }
        namespace.link(files[0].2, dirs[1], b"second name").unwrap();
        if with_snapshot {
            namespace.snapshot(&[Dataset::ROOT], "s", "").unwrap();
        }
        backup.run().unwrap();
        let first = state(&namespace);
        bench.clock.advance(Duration::from_secs(900));
        // In the first bucket of inodes and in the last, and not in the one between.
        for &(dir, n, ino) in &files {
            if ino.object() / IN_A_BUCKET == 1 {
                continue;
            }
            match n % 10 {
                0 => drop(namespace.unlink(dir, format!("file{n}").as_bytes()).unwrap()),
                1 => write(&namespace, ino, next()),
                2 => write(&namespace, file(&namespace, dir, &format!("new{n}")), next()),
                _ => {}
            }
        }
        backup.run().unwrap();
        let states = [first, state(&namespace)];
        let manifest = |sequence| {
            let fetched = Manifest::fetch(&*bench.memory, sequence);
            bench.runtime.block_on(fetched).unwrap().0
        };
        let manifests = [manifest(1), manifest(2)];
        Self { bench, states, manifests }
    }

    /// Every object of the backups.
    fn objects(&self) -> BTreeSet<String> {
        let pieces = self.manifests.iter().flat_map(Manifest::pieces).map(PieceRef::key);
        pieces.chain([1, 2].map(manifest::key)).collect()
    }

    fn without(&self, lost: &[&String], when: impl FnOnce()) {
        let all: Vec<_> = lost.iter().map(|key| (key, self.bench.memory.lose(key))).collect();
        when();
        for (key, bytes) in all {
            self.bench.memory.overwrite(key, bytes.unwrap());
        }
    }

    /// Recovers in part, without a repair.
    fn restore(&self) -> BackupResult<(Arc<dyn NamespaceStore>, Recovered)> {
        let store: Arc<dyn NamespaceStore> = Arc::new(MemoryStore::new());
        let tier = Arc::clone(&self.bench.memory) as Arc<dyn Tier>;
        let options = RecoverOptions { partial: true, ..RecoverOptions::default() };
        let calls = Calls::on(self.bench.runtime.handle().clone());
        let new_store = || Ok(Box::new(Arc::clone(&store)));
        let recovered = recover::from_newest(&tier, &calls, options, new_store)?;
        Ok((store, recovered))
    }

    /// Recovers in part and repairs.
    fn recover(&self) -> BackupResult<Mended> {
        let (store, recovered) = self.restore()?;
        let clock = Arc::clone(&self.bench.clock) as Arc<dyn Clock>;
        let options = NamespaceOptions::default();
        let open = Namespace::open_to_repair(Arc::clone(&store), Arc::clone(&clock), options);
        let namespace = open.unwrap();
        let repaired = namespace.repair(CheckOptions::default(), &mut Nowhere).unwrap();
        namespace.close().unwrap();
        let namespace = Namespace::open(store, clock, options).unwrap();
        Ok(Mended { recovered, repaired, namespace })
    }
}

struct Mended {
    recovered: Recovered,
    repaired: Repaired,
    namespace: Namespace,
}

impl Mended {
    /// Fails unless everything is as in the backup that was recovered, or named.
    fn assert_right_or_named(&self, states: &[Shown; 2], what: &str) {
        let right = &states[self.recovered.backup.sequence as usize - 1];
        let checked = self.namespace.check(CheckOptions::default()).unwrap();
        assert_eq!(checked.findings, [], "{what}");
        let mut named: BTreeSet<String> = BTreeSet::new();
        for gap in &self.recovered.gaps {
            let (paths, more) = gap.paths(&self.namespace, usize::MAX).unwrap();
            assert_eq!(more, 0);
            named.extend(paths.iter().map(|path| String::from_utf8_lossy(path).into_owned()));
        }
        let repairs = self.repaired.repairs.iter();
        let told = repairs.filter(|repair| repair.fate != Fate::Mended);
        named.extend(told.map(|repair| String::from_utf8_lossy(&repair.path).into_owned()));
        let is_inode_lost = self.recovered.gaps.iter().any(|gap| gap.older().is_none());
        let found = state(&self.namespace);
        for (path, content) in &found {
            let is_right = right.get(path) == Some(content);
            let is_told = named.contains(path) || path.starts_with("/lost+found");
            // An older directory has older names, of files too that were still being cleared away.
            let is_older = !right.contains_key(path)
                && named.contains(&path[..path.rfind('/').unwrap()])
                && states[0].get(path) == Some(content);
            assert!(is_right || is_told || is_older, "{what}: {path} is not told: {content}");
        }
        // A name that is gone is told where its directory had it; one that went with its directory,
        // or that an older directory does not have yet, is in lost+found or in a gap.
        for path in right.keys().filter(|path| !found.contains_key(*path)) {
            let dir = &path[..path.rfind('/').unwrap()];
            let is_told = named.contains(path) || named.contains(dir) || is_inode_lost;
            assert!(is_told, "{what}: {path} is gone");
        }
    }
}

#[test]
fn whichever_piece_is_lost_each_file_is_right_or_named() {
    for with_snapshot in [false, true] {
        let history = History::new(with_snapshot);
        let [_, newest] = &history.manifests;
        let newest_pieces: BTreeSet<String> = newest.pieces().map(PieceRef::key).collect();
        let (mut older, mut lost, mut back) = (0, 0, 0);
        for key in &history.objects() {
            history.without(&[key], || {
                let mended = history.recover().unwrap();
                let Recovered { backup, gaps, .. } = &mended.recovered;
                back += u32::from(backup.sequence == 1);
                let right = &history.states[backup.sequence as usize - 1];
                if newest_pieces.contains(key) && backup.sequence == 2 {
                    assert_eq!(gaps.len(), 1, "{key}");
                } else {
                    assert_eq!(gaps, &[], "{key}");
                    assert_eq!(&state(&mended.namespace), right, "{key}");
                }
                let (derived, own): (Vec<_>, Vec<_>) =
                    gaps.iter().partition(|gap| gap.is_derived());
                assert!(derived.iter().all(|gap| gap.older().is_none()), "{key}: it is made anew");
                for gap in own {
                    older += u32::from(gap.older().is_some());
                    lost += u32::from(gap.older().is_none());
                }
                mended.assert_right_or_named(&history.states, &format!("{key} {gaps:?}"));
            });
        }
        assert!(older >= 2 && lost >= 1, "each way was taken: {older} {lost}");
        assert_eq!(back, 2, "the newest manifest and its meta piece");
    }
}

#[test]
fn whatever_is_lost_each_file_is_right_or_named() {
    let history = History::new(false);
    let objects: Vec<String> = history.objects().into_iter().collect();
    let mut recovered = 0;
    for round in 0..16_u64 {
        let random = blake3::hash(&round.to_le_bytes());
        let lost = objects.iter().zip(random.as_bytes().iter().cycle());
        let lost: Vec<_> = lost.filter(|(_, byte)| **byte < 70).map(|(key, _)| key).collect();
        history.without(&lost, || match history.recover() {
            Ok(mended) => {
                recovered += 1;
                mended.assert_right_or_named(&history.states, &format!("{lost:?}"));
            }
            Err(error) => assert!(
                matches!(error, BackupError::NoWholeBackup { .. } | BackupError::NoBackup { .. }),
                "{error}"
            ),
        });
    }
    assert!(recovered > 4, "{recovered}");
}

/// Where a bucket has many pieces, those before the lost one were written when it is missed.
#[test]
fn a_bucket_is_all_of_one_backup_or_not_there() {
    let pieces = PieceLimits { min_len: 4 << 10, max_len: 16 << 10, keys_per_cut: 8 };
    let history = History::with_pieces(false, pieces);
    let records = |manifest: &Manifest, bucket: &Bucket| {
        let pieces = manifest.table.get(bucket);
        pieces.map_or(0, |pieces| pieces.iter().map(|piece| u64::from(piece.records)).sum())
    };
    let [older, newest] = &history.manifests;
    let (mut changed, mut same) = (0, 0);
    for (bucket, pieces) in newest.table.iter().filter(|(bucket, _)| bucket.space() == Space::Head)
    {
        assert!(pieces.len() > 1, "{bucket:?}");
        let at = pieces.iter().rposition(|piece| {
            let is_old = older.pieces().any(|other| other == piece);
            !is_old || older.table.get(bucket) == Some(pieces)
        });
        let lost = pieces[at.unwrap()].key();
        history.without(&[&lost], || {
            let (store, recovered) = history.restore().unwrap();
            let is_same = older.table.get(bucket) == Some(pieces);
            let from_older = Some(older.info).filter(|_| !is_same);
            assert_eq!(recovered.gaps.len(), 1);
            assert_eq!(recovered.gaps[0].older(), from_older, "{bucket:?}");
            (changed, same) = (changed + u32::from(!is_same), same + u32::from(is_same));
            let (from, to) = bucket.range();
            let page = store.page(bucket.space(), &from, to.as_deref(), usize::MAX).unwrap();
            assert!(!page.more);
            let expected = if is_same { 0 } else { records(older, bucket) };
            assert_eq!(page.items.len() as u64, expected, "{bucket:?}");
            let others: u64 = newest.table.keys().map(|b| records(newest, b)).sum();
            assert_eq!(recovered.records, others - records(newest, bucket) + expected);
        });
    }
    assert!(changed >= 2 && same >= 1, "{changed} {same}");
}

#[test]
fn a_damaged_piece_counts_as_a_lost_one() {
    let history = History::new(false);
    let [before, newest] = &history.manifests;
    let (bucket, pieces) = newest.table.iter().next().unwrap();
    let key = pieces[0].key();
    assert_ne!(before.table.get(bucket), Some(pieces));
    super::damage::flip(&history.bench.memory, &key);
    let mended = history.recover().unwrap();
    assert_eq!(mended.recovered.gaps.len(), 1);
    assert_eq!(mended.recovered.gaps[0].older(), Some(before.info));
    assert!(mended.recovered.gaps[0].to_string().contains("inodes 0 to 1023 of dataset 1"));
    mended.assert_right_or_named(&history.states, "flipped");
    // Without being asked, a whole older one is better, and what the newer one lacks is said.
    let (_, recovered) = history.bench.recovered().unwrap();
    assert_eq!((recovered.backup.sequence, recovered.gaps.len()), (1, 0));
    let skipped = &recovered.skipped[0];
    assert_eq!((skipped.sequence, skipped.time), (2, Some(newest.info.time)));
    assert!(skipped.reason.contains(&key), "{}", skipped.reason);
    let all = newest.pieces().count();
    assert!(skipped.reason.contains(&format!("1 of its {all} pieces")), "{}", skipped.reason);
}

#[test]
fn without_the_meta_space_of_any_nothing_is_recovered_and_the_error_says_so() {
    let history = History::new(false);
    let meta = Bucket::of(Space::Meta, &[]);
    let keys: Vec<String> = history.manifests.iter().map(|m| m.table[&meta][0].key()).collect();
    history.without(&keys.iter().collect::<Vec<_>>(), || {
        let error = history.recover().err().unwrap();
        assert!(matches!(error, BackupError::NoWholeBackup { count: 2, readable: 2, .. }));
        let all = history.manifests[1].pieces().count();
        let expected = format!("1 of its {all} pieces are missing or damaged: {}", keys[1]);
        assert!(error.to_string().contains(&expected), "{error}");
    });
}

#[test]
fn segments_without_a_backup_are_told() {
    let bench = Bench::new();
    for key in ["segments/0003000000000001.seg", "segments/0002000000000009.seg"] {
        bench.memory.overwrite(key, "segment");
    }
    bench.memory.overwrite(&format!("{}00", piece::PREFIX), "piece");
    let error = bench.recovered().unwrap_err();
    assert!(matches!(error, BackupError::NoBackup { segments: 2, pieces: 1 }), "{error}");
    assert!(error.to_string().contains("2 segments and 1 pieces"), "{error}");
}
