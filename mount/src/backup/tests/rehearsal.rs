//! A backup is tested by restoring it, and one that is no good is made anew.

use std::path::PathBuf;

use firn_tiering::tier::Fault;

use super::piece::PieceRef;
use super::*;

/// A real namespace with its backups.
struct Real {
    bench: Bench,
    dir: tempfile::TempDir,
    namespace: Namespace,
    backup: Backup,
}

impl Real {
    fn new() -> Self {
        let bench = Bench::new();
        let dir = tempfile::tempdir().unwrap();
        let inner = LocalStore::open(&dir.path().join("namespace"), StoreOptions::default());
        let inner: Arc<dyn NamespaceStore> = Arc::new(inner.unwrap());
        let root = NewRoot { uid: 1, gid: 2, perm: 0o751 };
        Namespace::create(&*inner, &*bench.clock, root, [9; 32]).unwrap();
        let tracked = Arc::new(Tracked::open(inner).unwrap());
        let clock = Arc::clone(&bench.clock) as Arc<dyn Clock>;
        let namespace = Namespace::open(
            Arc::clone(&tracked) as Arc<dyn NamespaceStore>,
            Arc::clone(&clock),
            NamespaceOptions::default(),
        );
        let tier = Arc::clone(&bench.tier) as Arc<dyn Tier>;
        let handle = bench.runtime.handle().clone();
        let backup = Backup::new(tracked, tier, handle, clock, VOLUME, SMALL).unwrap();
        backup.run().unwrap();
        Self { bench, dir, namespace: namespace.unwrap(), backup }
    }

    fn place(&self) -> PathBuf {
        self.dir.path().join("restore-test")
    }

    fn rehearse(&self) -> BackupResult<Rehearsed> {
        let tier = Arc::clone(&self.bench.tier) as Arc<dyn Tier>;
        self.backup.rehearse(&tier, &self.place(), &|| true)
    }
}

#[test]
fn a_whole_backup_is_restored_and_leaves_nothing_behind() {
    let real = Real::new();
    // Of one that did not live to remove it.
    std::fs::create_dir(real.place()).unwrap();
    std::fs::write(real.place().join("left"), "over").unwrap();
    let rehearsed = real.rehearse().unwrap();
    assert_eq!(rehearsed.faults, [""; 0]);
    assert_eq!((rehearsed.backup.sequence, rehearsed.inodes), (1, 1));
    assert!(!real.place().exists());
}

#[test]
fn a_damaged_piece_of_the_right_length_is_found_and_replaced() {
    let real = Real::new();
    let change = |colour: &str| {
        let note = real.namespace.set_note("colour", colour.as_bytes(), Durability::Buffered);
        note.unwrap();
        real.backup.run().unwrap()
    };
    let first = real.bench.keys(piece::PREFIX);
    change("blue");
    let (newest, _) = real.bench.runtime.block_on(Manifest::fetch(&*real.bench.memory, 2)).unwrap();
    let kept = newest.pieces().map(PieceRef::key).find(|key| first.contains(key)).unwrap();
    super::damage::flip(&real.bench.memory, &kept);
    let error = real.rehearse().unwrap_err();
    assert!(error.is_damage(), "{error}");
    assert!(!real.place().exists());
    // What a backup believes about the tier is what it once verified.
    assert!(!change("green").full);
    assert!(real.rehearse().is_err());
    real.backup.distrust();
    let report = real.backup.run().unwrap();
    assert!(report.full);
    assert_eq!(real.rehearse().unwrap().faults, [""; 0]);
    // Only once.
    assert!(!change("red").full);
}

#[test]
fn a_backup_that_restores_to_nonsense_is_told() {
    let real = Real::new();
    let mut batch = Batch::new();
    batch.put(Space::Head, &head_key(77, 5), b"no entry".to_vec());
    real.namespace.store().commit(batch, Durability::Buffered).unwrap();
    real.backup.run().unwrap();
    let rehearsed = real.rehearse().unwrap();
    assert!(rehearsed.faults.iter().any(|fault| fault.contains("77")), "{rehearsed:?}");
}

#[test]
fn a_rehearsal_stops_when_it_is_told_and_does_not_call_that_damage() {
    let real = Real::new();
    let tier = Arc::clone(&real.bench.tier) as Arc<dyn Tier>;
    let error = real.backup.rehearse(&tier, &real.place(), &|| false).unwrap_err();
    assert!(!error.is_damage(), "{error}");
    assert!(!real.place().exists());
    real.backup.end();
    assert!(!real.rehearse().unwrap_err().is_damage());
}

/// A reader that lags behind meets pieces that newer backups have removed.
#[test]
fn a_backup_that_was_replaced_meanwhile_is_not_called_damaged() {
    let real = Real::new();
    let piece = real.bench.keys(piece::PREFIX).remove(0);
    for _ in 0..manifest::FETCHES {
        real.bench.tier.fail_next(Some(Op::Get), &piece, Fault::Corrupt);
    }
    let newer = std::sync::atomic::AtomicBool::new(false);
    let tier = Arc::clone(&real.bench.tier) as Arc<dyn Tier>;
    let rehearsed = real.backup.rehearse(&tier, &real.place(), &|| {
        if !newer.swap(true, Ordering::Relaxed) {
            real.namespace.set_note("colour", b"blue", Durability::Buffered).unwrap();
            real.backup.run().unwrap();
        }
        true
    });
    assert_eq!(rehearsed.unwrap().backup.sequence, 2);
}
