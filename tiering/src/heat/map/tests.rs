#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;
use std::fs;

use proptest::prelude::*;

use super::super::history::AccessKind;
use super::*;
use crate::error::Error;

const NOW: u64 = 1_700_000_000_000;
const MIB: u64 = 1 << 20;

fn place(item: u64) -> Place {
    Place { item, group: item / 10, owner: (item % 3) as u32 }
}

fn access(at_ms: u64, kind: AccessKind) -> Access {
    Access { at_ms, kind, bytes: 100, sequential: true }
}

fn open(map: &Map, item: u64, at_ms: u64) {
    map.note(place(item), &access(at_ms, AccessKind::Open));
}

fn known(map: &Map) -> HashSet<u64> {
    let mut items = HashSet::new();
    map.for_each(|known| {
        assert!(items.insert(known.place.item), "seen twice while nothing moves");
        assert_eq!(known.place, place(known.place.item));
    });
    items
}

#[test]
fn items_groups_and_owners_are_remembered() {
    let map = Map::new(MIB, 1);
    open(&map, 11, NOW);
    for at in 1..100 {
        map.note(place(11), &access(NOW + at, AccessKind::Read));
    }
    open(&map, 12, NOW + 200);
    open(&map, 11, NOW + 300);
    let item = map.get(11).unwrap();
    assert_eq!((item.visits(), item.reads(), item.bytes()), (2, 99, 101 * 100));
    // A visit each, not a read each.
    let group = map.group(1).unwrap();
    assert_eq!((group.visits(), group.reads()), (3, 0));
    assert!(group.again() > 0.3 && group.again() < 0.4, "{}", group.again());
    assert_eq!(map.owner(2).unwrap().visits(), 2);
    assert!(map.get(13).is_none() && map.group(5).is_none() && map.owner(1).is_none());
    assert!(map.heat(11, NOW + 300) > 1.9 && map.heat(13, NOW) == 0.0);
    assert!(map.forget(11) && !map.forget(11));
    assert!(map.get(11).is_none() && map.group(1).is_some());
}

#[test]
fn memory_is_bounded_and_what_is_warm_stays() {
    let map = Map::new(MIB, 1);
    let most = map.status().most_items;
    assert!((5000..MIB / 128).contains(&most), "{most}");
    let warm = most / 4;
    for item in 0..warm {
        (0..5).for_each(|visit| open(&map, item, NOW + visit));
    }
    // Ten times what fits, an hour later, each once.
    for item in warm..warm + 10 * most {
        open(&map, item, NOW + 3_600_000);
    }
    let status = map.status();
    assert!(status.items <= most && status.bytes <= MIB, "{status:?}");
    assert!(status.evicted >= 9 * most);
    let stayed = (0..warm).filter(|&item| map.get(item).is_some()).count() as u64;
    assert!(stayed * 100 >= warm * 95, "{stayed} of {warm}");
    assert_eq!(known(&map).len() as u64, status.items);
}

#[test]
fn a_scan_is_taken_back_and_others_stay() {
    let map = Map::new(MIB, 1);
    open(&map, 1, NOW - 10);
    map.note(place(3), &access(NOW + 5, AccessKind::Write));
    for item in 1..=5 {
        open(&map, item, NOW + 10);
    }
    open(&map, 5, NOW + 20);
    // 1 was known, 3 is written, 5 was visited again.
    assert_eq!(map.take_back(&[1, 2, 3, 4, 5, 99], NOW), 2);
    assert_eq!(known(&map), HashSet::from([1, 3, 5]));
}

#[test]
fn a_walk_sees_what_stays_while_others_come_and_go() {
    let map = Map::new(16 * MIB, 1);
    (0..20_000).for_each(|item| open(&map, item, NOW));
    let mut seen = HashSet::new();
    let mut next = 100_000;
    map.for_each(|known| {
        seen.insert(known.place.item);
        // Every other one goes, before or after it was seen, and new ones come.
        map.forget(known.place.item | 1);
        open(&map, next, NOW);
        next += 1;
        assert!(next < 200_000, "ends");
    });
    assert!((0..20_000).step_by(2).all(|item| seen.contains(&item)));
}

#[test]
fn it_is_saved_when_it_changed_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("heat");
    let (map, error) = Map::open(&path, 16 * MIB, 1, NOW);
    assert!(error.is_none() && map.save(&path).unwrap().is_none() && !path.exists());
    for item in 0..10_000 {
        open(&map, item, NOW + item);
    }
    open(&map, 5, NOW + 50_000);
    assert!(map.is_changed());
    let bytes = map.save(&path).unwrap().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), bytes);
    assert!(!map.is_changed() && map.save(&path).unwrap().is_none());

    let (back, error) = Map::open(&path, 16 * MIB, 2, NOW + 50_000);
    assert!(error.is_none() && !back.is_changed());
    assert_eq!(known(&back), known(&map));
    for item in 0..10_000 {
        assert_eq!(back.get(item), map.get(item));
        assert_eq!(back.group(item / 10), map.group(item / 10));
    }
    assert_eq!((0..3).map(|owner| back.owner(owner)).collect::<Vec<_>>().len(), 3);
    assert_eq!(back.owner(2), map.owner(2));
    // Into a smaller table as much as fits.
    let (small, error) = Map::open(&path, MIB / 4, 2, NOW);
    assert!(error.is_none());
    let status = small.status();
    assert!(status.items > status.most_items * 9 / 10 && status.bytes <= MIB / 4, "{status:?}");
    // Forgetting is a change too.
    back.forget(5);
    assert!(back.save(&path).unwrap().is_some());
    assert!(Map::open(&path, MIB, 1, NOW).0.get(5).is_none());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn times_that_lie_ahead_count_as_now_once_that_is_said() {
    const YEAR: u64 = 365 * 86_400_000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("heat");
    let (map, _) = Map::open(&path, MIB, 1, NOW);
    open(&map, 11, NOW + YEAR);
    map.save(&path).unwrap();
    let (loaded, error) = Map::open(&path, MIB, 1, NOW);
    assert!(error.is_none());
    assert_eq!(loaded.get(11).unwrap().last_ms(), NOW + YEAR, "it may be the clock that is wrong");
    for map in [map, loaded] {
        map.settle(NOW);
        assert!(map.is_changed());
        let pasts = [map.get(11), map.group(1), map.owner(2)];
        assert!(pasts.iter().all(|past| past.unwrap().idle_ms(NOW + 7) == 7), "{pasts:?}");
    }
}

#[test]
fn a_failed_save_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("heat");
    let map = Map::new(MIB, 1);
    open(&map, 1, NOW);
    map.save(&path).unwrap();
    let old = fs::read(&path).unwrap();
    open(&map, 2, NOW);
    fs::create_dir(dir.path().join("heat.tmp")).unwrap();
    assert!(map.save(&path).is_err() && map.is_changed());
    assert_eq!(fs::read(&path).unwrap(), old);
    fs::remove_dir(dir.path().join("heat.tmp")).unwrap();
    assert!(map.save(&path).unwrap().is_some());
}

fn saved() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("heat");
    let map = Map::new(MIB, 1);
    (0..20).for_each(|item| open(&map, item, NOW));
    map.save(&path).unwrap();
    fs::read(&path).unwrap()
}

#[test]
fn a_damaged_file_is_an_error_and_an_empty_table() {
    let whole = saved();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("heat");
    let refused = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let (map, error) = Map::open(&path, MIB, 1, NOW);
        assert_eq!(map.status().items, 0);
        error.unwrap()
    };
    for at in 0..whole.len() {
        let mut wrong = whole.clone();
        wrong[at] ^= 1 << (at % 8);
        let error = refused(&wrong);
        assert!(matches!(error, Error::Damaged { .. }), "{at}: {error}");
        assert!(matches!(refused(&whole[..at]), Error::Damaged { .. }), "{at}");
    }
    refused(&[&whole[..], &[0]].concat());
    // A frame twice, or the second before the first.
    let first = 4 + u32::from_le_bytes(whole[..4].try_into().unwrap()) as usize;
    refused(&[&whole[..first], &whole].concat());
    refused(&whole[first..]);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(Map::open(&path, MIB, 1, NOW).1.is_some());
}

#[test]
fn the_file_is_golden() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("heat");
    let map = Map::new(MIB, 1);
    let place = Place { item: 0x0102, group: 0x0304, owner: 0x0506 };
    map.note(place, &access(NOW, AccessKind::Open));
    map.save(&path).unwrap();
    let mut file = &fs::read(&path).unwrap()[..];
    let mut frames = Vec::new();
    while !file.is_empty() {
        let (len, rest) = file.split_at(4);
        let (sealed, rest) = rest.split_at(u32::from_le_bytes(len.try_into().unwrap()) as usize);
        let kind = crate::envelope::Kind {
            tag: *b"heat",
            name: "heat",
            version: 1,
            max_plain_len: 1 << 20,
        };
        frames.push(crate::envelope::open(kind, sealed).unwrap().0);
        file = rest;
    }
    let past = map.get(0x0102).unwrap().encode();
    let item =
        [&b"\0\0\0\0\0\x01\0\0\0\x02\x01\0\0\0\0\0\0\x04\x03\0\0\0\0\0\0\x06\x05\0\0"[..], &past];
    assert_eq!(frames[0], item.concat());
    let past = map.group(0x0304).unwrap().encode();
    assert_eq!(frames[1], [&b"\x01\x01\0\0\0\x01\0\0\0\x04\x03\0\0\0\0\0\0"[..], &past].concat());
    assert_eq!(frames[2], [&b"\x02\x02\0\0\0\x01\0\0\0\x06\x05\0\0\0\0\0\0"[..], &past].concat());
    assert_eq!(frames[3], b"\xff\x03\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0");
    assert_eq!(frames.len(), 4);
}

proptest! {
    #[test]
    fn no_input_makes_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        plain in prop::collection::vec(any::<u8>(), 0..300),
        count in 0_u32..4,
    ) {
        let map = Map::new(MIB / 8, 1);
        let _ = map.load(&bytes[..], NOW);
        // Sealed nonsense gets past the checksum.
        let kind = crate::envelope::Kind {
            tag: *b"heat",
            name: "heat",
            version: 1,
            max_plain_len: 1 << 20,
        };
        let mut head = vec![plain.first().copied().unwrap_or(0) % 4, 0, 0, 0, 0];
        head.extend_from_slice(&count.to_le_bytes());
        head.extend_from_slice(&plain);
        for plain in [&plain, &head] {
            let (sealed, _) = crate::envelope::seal(kind, plain).unwrap();
            let framed = [&(sealed.len() as u32).to_le_bytes()[..], &sealed].concat();
            prop_assert!(map.load(&framed[..], NOW).is_err());
        }
    }
}
