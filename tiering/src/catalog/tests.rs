#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::block::{BlockDigest, Epoch};
use crate::clock::{Clock, SystemClock};
use crate::encode::{Codec, Filter};
use crate::segment::{CellLens, Geometry, ParityPlace};

const VOLUME: VolumeId = VolumeId([3; 16]);
/// What its database may cache with the default budget.
const CACHE: u64 = 16 << 20;

fn open(dir: &Path) -> (Catalog, Found) {
    Catalog::open(dir, VOLUME, CACHE).unwrap()
}

fn segment(counter: u64) -> SegmentId {
    SegmentId::new(Epoch(1), counter).unwrap()
}

fn entry(counter: u64, at: u64) -> IndexEntry {
    let id = BlockId::new(Epoch(1), counter).unwrap();
    let mut digest = [0; 16];
    digest[..8].copy_from_slice(&counter.to_le_bytes());
    IndexEntry {
        id,
        digest: BlockDigest(digest),
        offset: 512 + at * 65_536,
        header_len: 128,
        plain_len: 16 * 65_536,
        stored_len: 16 * (4000 + 16),
        codec: Codec::Zstd,
        filter: Filter::DeltaShuffle { width: 4, big_endian: true },
        level: 3,
        flags: 0,
        cell_lens: CellLens::new([4000; 16]).unwrap(),
    }
}

fn record(id: SegmentId, entries: &[IndexEntry]) -> SegmentRecord {
    SegmentRecord {
        id,
        len: 1 << 26,
        blocks: entries.len() as u32,
        data_bytes: entries.iter().map(IndexEntry::frame_len).sum(),
        first_block: entries[0].id,
        hot: true,
        cold: ColdCopy::Absent,
        dead_bytes: 0,
        holes: Holes::default(),
        settled: false,
        heat: SegmentHeat::default(),
        offered: false,
        place: ParityPlace::Inside,
        parity_bytes: 0,
    }
}

fn fill(catalog: &Catalog, number: u64, blocks: u64) -> Vec<IndexEntry> {
    let entries: Vec<_> = (0..blocks).map(|at| entry(number * blocks + at, at)).collect();
    catalog.record_segment(&record(segment(number), &entries), &entries).unwrap();
    entries
}

#[test]
fn blocks_and_segments_come_back_as_they_were_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let (catalog, found) = open(dir.path());
    assert!(matches!(found, Found::Wiped(_)));
    let entries = fill(&catalog, 7, 1000);
    for entry in &entries {
        let found = catalog.lookup(entry.id).unwrap().unwrap();
        assert_eq!((found.segment, &found.entry), (segment(7), entry));
    }
    assert_eq!(catalog.lookup(BlockId::from_raw(1)).unwrap(), None);
    assert_eq!(catalog.count_blocks().unwrap(), 1000);
    let mut changed = record(segment(7), &entries);
    changed.cold = ColdCopy::Verified;
    changed.dead_bytes = 12;
    changed.holes.insert(512, 1024);
    changed.holes.insert(4096, 8192);
    changed.heat = SegmentHeat::new(2.5, 1_700_000_000);
    changed.offered = true;
    catalog.put_segment(&changed).unwrap();
    catalog.close().unwrap();
    let (catalog, found) = open(dir.path());
    assert_eq!(found, Found::Clean);
    let mut records = Vec::new();
    catalog.for_each_segment(|record| records.push(record)).unwrap();
    assert_eq!(records, [changed]);
    assert_eq!(catalog.count_blocks().unwrap(), 1000);
}

#[test]
fn the_younger_segment_wins_and_removal_spares_what_moved_on() {
    let dir = tempfile::tempdir().unwrap();
    let (catalog, _) = open(dir.path());
    let entries = fill(&catalog, 1, 100);
    let moved: Vec<_> =
        entries[..10].iter().map(|e| IndexEntry { offset: 512, ..e.clone() }).collect();
    catalog.record_segment(&record(segment(9), &moved), &moved).unwrap();
    // A rebuild may meet the old one again.
    catalog.record_segment(&record(segment(1), &entries), &entries).unwrap();
    assert_eq!(catalog.lookup(entries[3].id).unwrap().unwrap().segment, segment(9));
    let ids: Vec<_> = entries.iter().map(|entry| entry.id).collect();
    catalog.remove_segment(segment(1), &ids).unwrap();
    assert_eq!(catalog.count_blocks().unwrap(), 10);
    assert_eq!(catalog.lookup(entries[50].id).unwrap(), None);
}

#[test]
fn a_process_that_died_leaves_it_behind_and_a_machine_that_did_wipes_it() {
    let dir = tempfile::tempdir().unwrap();
    let (catalog, _) = open(dir.path());
    fill(&catalog, 1, 100);
    drop(catalog);
    let (catalog, found) = open(dir.path());
    assert_eq!(found, Found::Behind);
    assert_eq!(catalog.count_blocks().unwrap(), 100);
    drop(catalog);
    let marker = Marker {
        version: CATALOG_VERSION,
        volume: VOLUME.0,
        boot_id: "another boot".into(),
        clean: false,
        complete: true,
    };
    fs::write(dir.path().join(MARKER), serde_json::to_vec(&marker).unwrap()).unwrap();
    let (catalog, found) = open(dir.path());
    assert!(matches!(found, Found::Wiped(_)));
    assert_eq!(catalog.count_blocks().unwrap(), 0);
}

#[test]
fn another_volume_a_newer_version_and_a_torn_marker_are_wiped() {
    let dir = tempfile::tempdir().unwrap();
    let other = [0_u8; 16];
    let markers = [
        serde_json::json!({"version": 99, "volume": VOLUME.0, "boot_id": boot_id(), "clean": true}),
        serde_json::json!({"version": 1, "volume": other, "boot_id": boot_id(), "clean": true}),
        serde_json::json!("torn"),
    ];
    for marker in markers {
        let (catalog, _) = open(dir.path());
        fill(&catalog, 1, 10);
        drop(catalog);
        fs::write(dir.path().join(MARKER), marker.to_string()).unwrap();
        let (catalog, found) = open(dir.path());
        assert!(matches!(found, Found::Wiped(_)), "{marker}");
        assert_eq!(catalog.count_blocks().unwrap(), 0);
    }
}

#[test]
fn damage_anywhere_is_an_error_or_a_wipe_never_a_wrong_record_of_another_block() {
    for place in [0, 100, 5000, 20_000, 60_000] {
        let dir = tempfile::tempdir().unwrap();
        let (catalog, _) = open(dir.path());
        let entries = fill(&catalog, 1, 500);
        catalog.close().unwrap();
        let path = dir.path().join("db/db");
        let mut bytes = fs::read(&path).unwrap();
        let end = bytes.len().min(place + 64);
        bytes[place.min(end)..end].iter_mut().for_each(|byte| *byte ^= 0x5a);
        fs::write(&path, bytes).unwrap();
        let (catalog, _) = open(dir.path());
        for entry in &entries {
            if let Ok(Some(found)) = catalog.lookup(entry.id) {
                assert_eq!(found.entry, *entry);
            }
        }
    }
}

#[test]
fn damaged_record_bytes_never_panic() {
    let dir = tempfile::tempdir().unwrap();
    let (catalog, _) = open(dir.path());
    let entries = fill(&catalog, 1, 64);
    let number = bucket_of(entries[0].id);
    let bytes = catalog.blocks.get(number.to_be_bytes()).unwrap().unwrap().to_vec();
    let mut decoded = 0;
    for at in 0..bytes.len().min(600) {
        for flip in [1, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            decoded += usize::from(decode_bucket(number, &damaged).is_ok());
            decoded += usize::from(decode_bucket(number, &damaged[..at]).is_ok());
        }
    }
    assert!(decoded < 3 * 600, "nothing was found out");
    let segment_bytes = encode_segment(&record(segment(1), &entries));
    for at in 0..segment_bytes.len() {
        assert!(decode_segment(segment(1), &segment_bytes[..at]).is_err());
    }
}

#[test]
fn holes_join_split_and_count() {
    let mut holes = Holes::default();
    holes.insert(10, 20);
    holes.insert(30, 40);
    holes.insert(20, 30);
    assert_eq!(holes.bytes(), 30);
    assert!(holes.touches(0, 11) && !holes.touches(0, 10) && !holes.touches(40, 50));
    holes.remove(15, 35);
    assert_eq!(holes.bytes(), 10);
    assert!(holes.touches(14, 16) && !holes.touches(15, 35) && holes.touches(34, 36));
    holes.insert(0, 100);
    assert_eq!(holes.bytes(), 100);
    holes.remove(0, 100);
    assert!(holes.is_empty());
}

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn scale() -> u64 {
    // FIRN_CATALOG_SEGMENTS=100000 is the full size: 10 million blocks.
    std::env::var("FIRN_CATALOG_SEGMENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(2000)
}

#[test]
fn many_segments_are_rebuilt_in_bounded_memory_and_open_quickly() {
    const BLOCKS: u64 = 100;
    let segments = scale();
    let dir = tempfile::tempdir().unwrap();
    let before = resident();
    let (catalog, _) = open(dir.path());
    let mut grown = 0;
    let mut measure = || {
        grown = resident().saturating_sub(before).max(grown);
        grown
    };
    for number in 0..segments {
        fill(&catalog, number, BLOCKS);
        if number % 64 == 0 {
            measure();
        }
    }
    let filled = measure();
    for number in (0..segments * BLOCKS).step_by(97) {
        let id = BlockId::new(Epoch(1), number).unwrap();
        assert_eq!(catalog.lookup(id).unwrap().unwrap().segment, segment(number / BLOCKS));
        if number % 65_536 < 97 {
            measure();
        }
    }
    let grown = measure();
    tell(&format!("filling grew by {} MiB, reading by {} MiB", filled >> 20, grown >> 20));
    // What the store takes from the budget for it; of a small one, what waits for a flusher that
    // gets little processor time is more.
    let counted = memory_bytes(CACHE, segments * BLOCKS).max(128 << 20);
    assert!(grown < counted, "{} MiB for {segments} segments", grown >> 20);
    catalog.close().unwrap();
    let (catalog, found) = open(dir.path());
    assert_eq!(found, Found::Clean);
    let mut count = 0;
    catalog.for_each_segment(|_| count += 1).unwrap();
    assert_eq!(count, segments);
}

/// What a measurement found, for whoever runs it with `--no-capture`.
fn tell(text: &str) {
    use std::io::Write;
    writeln!(std::io::stderr(), "{text}").unwrap();
}

/// The child fills the catalog and is killed in the middle of the work; the parent opens what it
/// left and records what is missing, as the store does from index files.
#[test]
fn what_a_killed_process_left_is_caught_up_in_time() {
    const BLOCKS: u64 = 100;
    const CHILD: &str = "FIRN_CATALOG_CHILD_DIR";
    let segments = scale();
    if let Some(dir) = std::env::var_os(CHILD) {
        let (catalog, _) = open(Path::new(&dir));
        catalog.mark_complete().unwrap();
        for number in 0..segments {
            fill(&catalog, number, BLOCKS);
        }
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
            .unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "catalog::tests::what_a_killed_process_left_is_caught_up_in_time"])
        .env(CHILD, dir.path())
        .output()
        .unwrap();
    assert!(!child.status.success(), "it was killed");
    let clock = SystemClock;
    let start = clock.instant();
    let (catalog, found) = open(dir.path());
    assert_eq!(found, Found::Behind);
    let mut known = std::collections::HashSet::new();
    catalog.for_each_segment(|record| assert!(known.insert(record.id))).unwrap();
    let opened = clock.instant() - start;
    let missing: Vec<_> = (0..segments).filter(|n| !known.contains(&segment(*n))).collect();
    for number in &missing {
        fill(&catalog, *number, BLOCKS);
    }
    let took = clock.instant() - start;
    let missing = missing.len();
    tell(&format!("opened in {opened:?}, {missing} of {segments} caught up in {took:?}"));
    assert!(took < Duration::from_secs(15), "{took:?} for {missing} of {segments}");
    for number in (0..segments * BLOCKS).step_by(997) {
        let id = BlockId::new(Epoch(1), number).unwrap();
        assert_eq!(catalog.lookup(id).unwrap().unwrap().segment, segment(number / BLOCKS));
    }
}

/// A segment record of version 1, as an earlier release wrote it.
const SEGMENT_V1: &str = "010000000400000000e803000040e201000000000007000000000001000102\
                          0c000000000000000100000000020000000000000004000000000000";

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn segment_records_of_every_version_open_and_the_newest_is_written() {
    let id = segment(7);
    let mut expected = SegmentRecord {
        id,
        len: 1 << 26,
        blocks: 1000,
        data_bytes: 123_456,
        first_block: BlockId::new(Epoch(1), 7).unwrap(),
        hot: true,
        cold: ColdCopy::Verified,
        dead_bytes: 12,
        holes: Holes::default(),
        settled: false,
        heat: SegmentHeat::default(),
        offered: false,
        place: ParityPlace::Inside,
        parity_bytes: Geometry::estimate(123_456),
    };
    expected.holes.insert(512, 1024);
    assert_eq!(decode_segment(id, &bytes_of(SEGMENT_V1)).unwrap(), expected);
    expected.heat = SegmentHeat::new(1.5, 0x0102_0304);
    expected.offered = true;
    let golden = format!("02{}040302010000c03f01", &SEGMENT_V1[2..]);
    assert_eq!(decode_segment(id, &bytes_of(&golden)).unwrap(), expected);
    (expected.place, expected.parity_bytes) = (ParityPlace::Object, 0x0102_0304);
    let golden = format!("03{}010403020100000000", &golden[2..]);
    assert_eq!(encode_segment(&expected), bytes_of(&golden));
    assert_eq!(decode_segment(id, &bytes_of(&golden)).unwrap(), expected);
    assert_eq!(expected.stored_bytes(), expected.len + 0x0102_0304);
    let nowhere = golden.replace("010403020100000000", "030403020100000000");
    assert!(matches!(decode_segment(id, &bytes_of(&nowhere)), Err(Error::Damaged { .. })));
    // Warmth that is no number, and a record cut short.
    let nan = format!("02{}040302010000c07f01", &SEGMENT_V1[2..]);
    assert!(matches!(decode_segment(id, &bytes_of(&nan)), Err(Error::Damaged { .. })));
    assert!(decode_segment(id, &bytes_of(&golden[..golden.len() - 2])).is_err());
    assert!(decode_segment(id, &bytes_of(&format!("04{}", &golden[2..]))).is_err());
}

#[test]
fn records_out_of_order_are_damage_since_a_search_would_miss_them() {
    let number = bucket_of(entry(64, 0).id);
    let mut bucket = Bucket::new();
    for counter in [64, 65] {
        bucket.insert(
            slot_of(entry(counter, 0).id),
            BlockRecord { segment: segment(1), entry: entry(counter, counter) },
        );
    }
    let stored = encode_bucket(&bucket).unwrap();
    assert_eq!(decode_bucket(number, &stored).unwrap(), bucket);
    let (head, records) = stored.split_at(2);
    let (one, two) = records.split_at(records.len() / 2);
    for wrong in [[head, two, one], [head, one, one]] {
        assert!(decode_bucket(number, &wrong.concat()).is_err());
    }
}
