//! Damage, loss, and death at every step.

use firn_tiering::tier::Fault;

use super::*;

/// Two backups; returns the content of each.
fn two_backups(bench: &Bench) -> [Content; 2] {
    fill_directory(bench, 7, 50);
    bench.put(Space::Head, &head_key(9000, 1), b"untouched");
    bench.backup.run().unwrap();
    let first = bench.content();
    bench.put(Space::Head, &head_key(7, 3), b"second");
    bench.backup.run().unwrap();
    [first, bench.content()]
}

pub(super) fn flip(memory: &Memory, key: &str) {
    let mut bytes = memory.lose(key).unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    memory.overwrite(key, bytes);
}

fn truncate(memory: &Memory, key: &str) {
    let bytes = memory.lose(key).unwrap();
    memory.overwrite(key, bytes.slice(..bytes.len() / 2));
}

fn lose(memory: &Memory, key: &str) {
    memory.lose(key).unwrap();
}

/// Another whole object of the same sort under this name.
fn swap(memory: &Memory, key: &str) {
    let prefix = &key[..key.rfind('/').unwrap()];
    let other =
        memory.keys().into_iter().find(|k| k.starts_with(prefix) && k.as_str() != key).unwrap();
    let bytes = memory.lose(&other).unwrap();
    memory.overwrite(&other, bytes.clone());
    memory.overwrite(key, bytes);
}

type Harm = fn(&Memory, &str);
const HARMS: [(&str, Harm); 4] =
    [("flip", flip), ("truncate", truncate), ("lose", lose), ("swap", swap)];

#[test]
fn a_damaged_manifest_gives_way_to_the_one_before() {
    for (what, harm) in HARMS {
        let bench = Bench::new();
        let [first, _] = two_backups(&bench);
        harm(&bench.memory, &manifest::key(2));
        let (found, recovered) = bench.recovered().unwrap();
        assert_eq!(found, first, "{what}");
        assert_eq!(recovered.backup.sequence, 1);
        let lost: Vec<_> = recovered.skipped.iter().map(|skipped| skipped.sequence).collect();
        assert_eq!(lost, if what == "lose" { vec![] } else { vec![2] }, "{what}");
        // The next backup does not build on it.
        bench.put(Space::Head, &head_key(7, 4), b"third");
        let mut bench = bench;
        bench.reopen(bench.disk.reopened());
        assert!(bench.backup.run().unwrap().full, "{what}");
        assert_eq!(bench.recovered().unwrap().0, bench.content(), "{what}");
    }
}

#[test]
fn a_damaged_piece_gives_way_to_the_backup_before() {
    for (what, harm) in HARMS {
        let bench = Bench::new();
        let before = two_backups_keys(&bench);
        let fresh = bench.keys(piece::PREFIX).into_iter().find(|key| !before.1.contains(key));
        harm(&bench.memory, &fresh.unwrap());
        let (found, recovered) = bench.recovered().unwrap();
        assert_eq!(found, before.0, "{what}");
        assert_eq!((recovered.backup.sequence, recovered.skipped.len()), (1, 1), "{what}");
    }
}

/// The content and the pieces of the first of two backups.
fn two_backups_keys(bench: &Bench) -> (Content, Vec<String>) {
    fill_directory(bench, 7, 50);
    bench.backup.run().unwrap();
    let first = (bench.content(), bench.keys(piece::PREFIX));
    bench.put(Space::Head, &head_key(7, 3), b"second");
    bench.backup.run().unwrap();
    first
}

#[test]
fn a_piece_that_vanished_or_shrank_is_uploaded_again() {
    for harm in [lose, truncate] {
        let bench = Bench::new();
        let [_, second] = two_backups(&bench);
        for key in bench.keys(piece::PREFIX) {
            harm(&bench.memory, &key);
        }
        assert!(matches!(bench.recovered(), Err(BackupError::NoWholeBackup { count: 2, .. })));
        bench.backup.run().unwrap();
        assert_eq!(bench.recovered().unwrap().0, second);
    }
}

#[test]
fn an_empty_tier_says_so() {
    let bench = Bench::new();
    assert!(matches!(bench.recovered(), Err(BackupError::NoBackup { segments: 0, pieces: 0 })));
}

#[test]
fn a_newer_format_is_refused_rather_than_skipped() {
    let bench = Bench::new();
    two_backups(&bench);
    let kind = firn_tiering::envelope::Kind {
        tag: *b"nsmf",
        name: "future",
        version: 99,
        max_plain_len: 100,
    };
    let (future, _) = firn_tiering::envelope::seal(kind, b"?").unwrap();
    bench.memory.overwrite(&manifest::key(3), future);
    let error = bench.recovered().unwrap_err();
    assert!(error.to_string().contains("99"), "{error}");
}

#[test]
fn another_volumes_tier_is_refused() {
    let bench = Bench::new();
    two_backups(&bench);
    let other = Bench::new();
    let backup = Backup::new(
        Arc::clone(&other.store),
        Arc::clone(&bench.memory) as Arc<dyn Tier>,
        bench.runtime.handle().clone(),
        Arc::clone(&bench.clock) as Arc<dyn Clock>,
        [1; 16],
        SMALL,
    );
    assert!(matches!(backup.unwrap().run(), Err(BackupError::OtherVolume)));
}

/// The tier stops answering after each number of writes, as for a process that is killed there;
/// then either the same session goes on or a new one begins.
#[test]
fn death_at_any_step_leaves_a_whole_backup_and_the_next_one_completes() {
    let mut completed = false;
    for writes in 0..40 {
        for crashes in [false, true] {
            let mut bench = Bench::new();
            for round in 0..SMALL.keep_manifests as u8 {
                bench.put(Space::Head, &head_key(7, 1), &[round; 50]);
                bench.put(Space::Head, &head_key(u64::from(round) << 12, 1), &[round; 50]);
                bench.backup.run().unwrap();
            }
            let before = bench.content();
            fill_directory(&bench, 7, 40);
            bench.tier.cut_off_after(writes);
            let done = bench.backup.run();
            completed |= done.is_ok();
            let (found, _) = bench.recovered().unwrap();
            assert!(found == before || found == bench.content(), "after {writes} writes");
            assert!(done.is_err() || found == bench.content(), "after {writes} writes");
            if crashes {
                bench.reopen(bench.disk.reopened());
            }
            bench.tier.reconnect();
            bench.put(Space::Head, &head_key(70_000, 1), b"later");
            bench.backup.run().unwrap();
            assert_eq!(bench.recovered().unwrap().0, bench.content(), "after {writes} writes");
        }
    }
    assert!(completed, "the last steps were reached");
}

/// The namespace's own store fails while the base is noted and marks are removed.
#[test]
fn death_while_marks_are_removed_loses_no_change() {
    for commits in 0..4 {
        let mut bench = Bench::new();
        two_backups(&bench);
        fill_directory(&bench, 7, 60);
        bench.disk.fail_after(commits);
        let _ = bench.backup.run();
        bench.reopen(bench.disk.reopened());
        bench.put(Space::Head, &head_key(7, 61), b"later");
        bench.backup.run().unwrap();
        assert_eq!(bench.recovered().unwrap().0, bench.content(), "after {commits} commits");
    }
}

#[test]
fn bytes_that_are_damaged_on_their_way_are_noticed() {
    let bench = Bench::new();
    let [_, second] = two_backups(&bench);
    bench.put(Space::Head, &head_key(7, 5), b"third");
    for part in [piece::PREFIX, manifest::PREFIX] {
        // Read back wrong: the backup does not count.
        bench.put(Space::Head, &head_key(7, 6), part.as_bytes());
        bench.tier.fail_next(Some(Op::Put), part, Fault::Delay(Duration::ZERO));
        let key_part = part;
        bench.tier.fail_next(Some(Op::Get), key_part, Fault::Corrupt);
        bench.tier.fail_next(Some(Op::Get), key_part, Fault::Corrupt);
        bench.tier.fail_next(Some(Op::Get), key_part, Fault::Corrupt);
        let _ = bench.backup.run();
        bench.tier.reconnect();
        let found = bench.recovered().unwrap().0;
        assert!(found == second || found == bench.content());
    }
    bench.backup.run().unwrap();
    assert_eq!(bench.recovered().unwrap().0, bench.content());

    // Read wrong during recovery: read again.
    let store: Arc<dyn NamespaceStore> = Arc::new(MemoryStore::new());
    let tier = Arc::clone(&bench.tier) as Arc<dyn Tier>;
    bench.tier.fail_next(Some(Op::Get), piece::PREFIX, Fault::Corrupt);
    bench.tier.fail_next(Some(Op::Get), manifest::PREFIX, Fault::Truncate);
    let recovered = restore_into(&tier, bench.runtime.handle(), &store).unwrap();
    assert_eq!(recovered.skipped, []);
    assert_eq!(content(&*store), bench.content());
}

#[test]
fn a_piece_read_back_wrong_is_no_backup() {
    let bench = Bench::new();
    bench.put(Space::Head, &head_key(7, 1), b"x");
    for _ in 0..manifest::FETCHES {
        bench.tier.fail_next(Some(Op::Get), piece::PREFIX, Fault::Corrupt);
    }
    assert!(matches!(bench.backup.run(), Err(BackupError::NotVerified(_))));
    assert_eq!(bench.keys(manifest::PREFIX), [""; 0]);
    assert_eq!(bench.backup.status().last, None);
    assert!(bench.backup.status().failure.is_some());
    bench.backup.run().unwrap();
    assert_eq!(bench.backup.status().failure, None);
}

#[test]
fn a_wrong_answer_is_not_a_wrong_piece() {
    let bench = Bench::new();
    bench.put(Space::Head, &head_key(7, 1), b"x");
    bench.tier.fail_next(Some(Op::Get), piece::PREFIX, Fault::Corrupt);
    bench.tier.fail_next(Some(Op::Get), manifest::PREFIX, Fault::Truncate);
    bench.backup.run().unwrap();
    assert_eq!(bench.backup.status().failure, None);
    assert_eq!(bench.recovered().unwrap().0, bench.content());
}

#[test]
fn pieces_stay_while_a_manifest_cannot_be_read() {
    let bench = Bench::new();
    for round in 0..6_u8 {
        bench.put(Space::Head, &head_key(7, 1), &[round; 100]);
        bench.backup.run().unwrap();
    }
    let pieces = bench.keys(piece::PREFIX);
    flip(&bench.memory, &manifest::key(5));
    bench.put(Space::Head, &head_key(7, 1), b"next");
    bench.backup.run().unwrap();
    let left = bench.keys(piece::PREFIX);
    assert!(pieces.iter().all(|key| left.contains(key)), "nothing goes on an incomplete view");
    // It ages out, and collection goes on.
    for round in 10..20_u8 {
        bench.put(Space::Head, &head_key(7, 1), &[round; 100]);
        bench.backup.run().unwrap();
    }
    assert_eq!(bench.keys(manifest::PREFIX).len(), SMALL.keep_manifests);
    assert_eq!(bench.keys(piece::PREFIX).len(), SMALL.keep_manifests + 1);
}

#[test]
fn a_check_names_what_is_damaged_in_the_newest_backup() {
    for (what, harm) in HARMS {
        let bench = Bench::new();
        two_backups(&bench);
        let tier = Arc::clone(&bench.memory) as Arc<dyn Tier>;
        let verify = || verify_newest(&tier, bench.runtime.handle()).unwrap().unwrap();
        let whole = verify();
        assert_eq!((whole.backup.sequence, whole.records), (2, 52));
        assert_eq!(whole.damaged, []);
        let (newest, _) = bench.runtime.block_on(Manifest::fetch(&*bench.memory, 2)).unwrap();
        let key = newest.pieces().next().unwrap().key();
        harm(&bench.memory, &key);
        let damaged: Vec<_> = verify().damaged.into_iter().map(|damage| damage.key).collect();
        assert_eq!(damaged, [key], "{what}");
    }
    let empty = Bench::new();
    let tier = Arc::clone(&empty.memory) as Arc<dyn Tier>;
    assert_eq!(verify_newest(&tier, empty.runtime.handle()).unwrap(), None);
}

/// A directory of `entries`, backed up; then all but `left` of them are gone.
fn mostly_emptied(bench: &Bench, entries: u64, left: u64) -> BackupReport {
    fill_directory(bench, 7, entries);
    let full = bench.backup.run().unwrap();
    let mut batch = Batch::new();
    for sub in left..entries {
        batch.delete(Space::Head, &head_key(7, sub));
    }
    bench.store.commit(batch, Durability::Buffered).unwrap();
    full
}

/// A small change, backed up.
fn change(bench: &Bench, round: u8) {
    bench.put(Space::Head, &head_key(9000, 1), &[round; 100]);
    bench.backup.run().unwrap();
}

#[test]
fn an_overtaken_backup_stays_for_a_week_however_long_the_volume_was_idle_before() {
    use super::super::collect::{FEW_RECORDS, OVERTAKEN_STAYS};
    let bench = Bench::new();
    let entries = 2 * FEW_RECORDS;
    let full = mostly_emptied(&bench, entries, 0);
    bench.clock.advance(10 * OVERTAKEN_STAYS);
    for round in 0..6 {
        change(&bench, round);
        bench.clock.advance(OVERTAKEN_STAYS / 7);
    }
    // The newest few, that one, and the one that overtook it; all that they name is there.
    let manifests = bench.keys(manifest::PREFIX);
    assert_eq!(manifests.len(), SMALL.keep_manifests + 2);
    let first = [full.sequence, full.sequence + 1].map(manifest::key);
    assert_eq!(manifests[..2], first);
    let status = bench.backup.status();
    let fuller = status.fuller.unwrap();
    assert_eq!((fuller.sequence, fuller.records), (full.sequence, entries + 1));
    // It counts as retained: what it names may not leave the cold tier.
    assert!(status.oldest_mark.unwrap() < bench.store.mark());
    let all: Vec<_> = manifests.iter().map(|key| (key, bench.memory.lose(key).unwrap())).collect();
    bench.memory.overwrite(all[0].0, all[0].1.clone());
    let (found, recovered) = bench.recovered().unwrap();
    assert_eq!((recovered.backup.sequence, found.len() as u64), (full.sequence, entries));
    for (key, bytes) in all {
        bench.memory.overwrite(key, bytes);
    }
    // After the week both go, and their pieces with them.
    bench.clock.advance(OVERTAKEN_STAYS / 7);
    change(&bench, 99);
    assert_eq!(bench.keys(manifest::PREFIX).len(), SMALL.keep_manifests);
    assert_eq!(bench.keys(piece::PREFIX).len(), SMALL.keep_manifests + 1);
    assert_eq!(bench.backup.status().fuller, None);
}

#[test]
fn a_little_less_is_no_reason_to_keep_a_backup() {
    use super::super::collect::FEW_RECORDS;
    let bench = Bench::new();
    mostly_emptied(&bench, 2 * FEW_RECORDS - 1, FEW_RECORDS);
    for round in 0..SMALL.keep_manifests as u8 {
        change(&bench, round);
    }
    assert_eq!(bench.keys(manifest::PREFIX).len(), SMALL.keep_manifests);
    assert_eq!(bench.backup.status().fuller, None);
}
