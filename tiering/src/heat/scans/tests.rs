#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::super::history::{Access, AccessKind};
use super::super::map::{Map, Place};
use super::*;

const NOW: u64 = 1_700_000_000_000;
const CLIENT: u64 = 4711;

fn scans() -> Scans {
    Scans::new(ScansConfig::default())
}

/// Opens and reads each item, and returns how many of the items counted as use.
fn pass(scans: &Scans, client: u64, items: impl Iterator<Item = u64>, at_ms: &mut u64) -> usize {
    let mut used = 0;
    for item in items {
        let mut class = scans.classify(client, item, || false, *at_ms);
        for _ in 0..3 {
            *at_ms += 1;
            class = scans.classify(client, item, || false, *at_ms);
        }
        used += usize::from(!class.is_scan());
    }
    used
}

#[test]
fn a_pass_over_ten_thousand_files_is_a_scan() {
    let scans = scans();
    let mut at = NOW;
    assert_eq!(pass(&scans, CLIENT, 0..10_000, &mut at), 256);
    let scanner = scans.scanners(at)[0];
    assert_eq!((scanner.client, scanner.declared), (CLIENT, false));
    assert!((9000..11_000).contains(&scanner.items), "{scanner:?}");
    // Somebody else beside it is not.
    assert_eq!(pass(&scans, CLIENT + 1, 0..200, &mut at), 200);
}

#[test]
fn what_a_scan_had_counted_is_handed_back_once() {
    let scans = scans();
    let map = Map::new(1 << 20, 1);
    let place = |item| Place { item, group: 1, owner: 1 };
    let access = |at_ms| Access { at_ms, kind: AccessKind::Open, bytes: 0, sequential: true };
    map.note(place(7), &access(NOW - 1));
    let mut begins = 0;
    for item in 0..1000 {
        let at_ms = NOW + item;
        match scans.classify(CLIENT, item, || false, at_ms) {
            Class::Use => {
                map.note(place(item), &access(at_ms));
            }
            Class::Scan => {}
            Class::ScanBegins { items, since_ms } => {
                begins += 1;
                assert_eq!((items.len(), since_ms), (257, NOW));
                assert_eq!(map.take_back(&items, since_ms), 255);
            }
        }
    }
    assert_eq!((begins, map.status().items), (1, 1));
    assert!(map.get(7).is_some());
}

#[test]
fn a_job_that_reads_the_same_files_again_stops_being_a_scan() {
    for files in [500, 5000, 20_000] {
        let scans = scans();
        let mut at = NOW;
        let mut used = Vec::new();
        for _ in 0..5 {
            used.push(pass(&scans, CLIENT, 0..files, &mut at) as u64);
        }
        assert_eq!(used[0], 256, "{files}");
        assert!(used[1] > files * 9 / 10, "{files}: {used:?}");
        assert_eq!(used[2..], [files; 3], "{files}");
        assert!(scans.scanners(at).is_empty());
        // When it turns to new files and never comes back, it becomes one again.
        let turned = pass(&scans, CLIENT, 1_000_000..1_020_000, &mut at);
        assert!(turned < 15_000, "{turned}");
        assert_eq!(scans.scanners(at).len(), 1);
    }
}

#[test]
fn many_files_side_by_side_are_a_scan_all_the_same() {
    let scans = scans();
    let mut used = 0;
    for batch in 0..200 {
        for turn in 0..50 {
            for lane in 0..16 {
                let item = batch * 16 + lane;
                let class = scans.classify(CLIENT, item, || false, NOW + batch * 100 + turn);
                used += usize::from(!class.is_scan() && turn == 49);
            }
        }
    }
    assert!((250..=272).contains(&used), "{used}");
}

#[test]
fn a_program_that_starts_from_warm_files_is_none() {
    let scans = scans();
    for item in 0..5000 {
        // Two of three are libraries that everybody uses.
        let class = scans.classify(CLIENT, item, || item % 3 != 0, NOW + item);
        assert_eq!(class, Class::Use);
    }
    // Nor is one that reads slowly: 200 in ten minutes.
    for item in 0..5000 {
        assert_eq!(scans.classify(CLIENT + 1, item, || false, NOW + item * 3000), Class::Use);
    }
}

#[test]
fn a_scan_ends_when_it_rests() {
    let scans = scans();
    let mut at = NOW;
    pass(&scans, CLIENT, 0..1000, &mut at);
    assert!(scans.classify(CLIENT, 5000, || false, at).is_scan());
    at += 2 * 600_000;
    assert_eq!(scans.classify(CLIENT, 5001, || false, at), Class::Use);
    assert!(scans.scanners(at).is_empty());
    // It has its 256 again and no more.
    assert!(pass(&scans, CLIENT, 6000..7000, &mut at) <= 256);
}

#[test]
fn what_is_declared_or_exempt_holds() {
    let config = ScansConfig { exempt: HashSet::from([9]), ..ScansConfig::default() };
    let scans = Scans::new(config);
    let mut at = NOW;
    assert_eq!(pass(&scans, 9, 0..5000, &mut at), 5000);
    scans.declare(1, Some(Declared::Scan), at);
    assert_eq!(pass(&scans, 1, 0..10, &mut at), 0);
    assert!(scans.scanners(at)[0].declared);
    scans.declare(1, None, at);
    assert_eq!(pass(&scans, 1, 10..20, &mut at), 10);
    scans.declare(2, Some(Declared::Use), at);
    assert_eq!(pass(&scans, 2, 0..5000, &mut at), 5000);
    scans.ended(2);
    assert_eq!(pass(&scans, 2, 0..5000, &mut at), 256);
}

#[test]
fn clients_stay_bounded_and_keep_apart() {
    let scans = scans();
    let mut used = [0_usize; 100];
    for item in 0..600 {
        for client in 0..100 {
            // Every other one comes back to ten items for ever.
            let touched = if client % 2 == 0 { item } else { item % 40 + client * 1000 };
            let class = scans.classify(client, touched, || false, NOW + item);
            used[client as usize] += usize::from(!class.is_scan());
        }
    }
    assert!(
        used.iter()
            .enumerate()
            .all(|(client, &used)| { if client % 2 == 0 { used == 256 } else { used == 600 } })
    );
    for client in 0..100_000 {
        scans.classify(client, client, || false, NOW + 1000 + client);
        assert!(client % 1000 != 0 || scans.clients() <= 1024);
    }
    assert!(scans.clients() > 900);
    scans.classify(5, 5, || false, NOW + 100 * 3_600_000);
    let known = scans.clients();
    assert!(known < 1024, "the idle ones of a full shard went: {known}");
}

#[test]
fn a_client_takes_bounded_memory() {
    let scans = scans();
    let mut at = NOW;
    pass(&scans, CLIENT, 0..200_000, &mut at);
    let shard = scans.shard(CLIENT).lock();
    let state = &shard[&CLIENT];
    assert!(state.sample.capacity() <= SAMPLE, "{}", state.sample.capacity());
    assert!(size_of::<Client>() + SAMPLE * 8 <= 4608);
}

proptest! {
    #[test]
    fn nothing_panics_and_samples_stay_sorted(
        steps in prop::collection::vec((0_u64..5, 0_u64..3000, any::<bool>(), 0_u64..100_000), 1..500),
    ) {
        let config = ScansConfig { most_items: 20, most_clients: 32, ..ScansConfig::default() };
        let scans = Scans::new(config);
        for (client, item, warm, at_ms) in steps {
            let _ = scans.classify(client, item, || warm, at_ms);
        }
        for shard in &scans.shards {
            for state in shard.lock().values() {
                prop_assert!(state.sample.is_sorted());
                prop_assert!((0.0..=1.0).contains(&state.returns) && (0.0..=1.0).contains(&state.warm));
            }
        }
    }
}
