#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::super::tests::read;
use super::super::trace::tests::any_request;
use super::*;
use crate::mix::mix;

fn request(at: u64) -> Request {
    Request { client: mix(at), item: mix(at + 1), ..read(at, 0, 4096) }
}

fn config(max_bytes: u64, batch: usize) -> LogConfig {
    LogConfig { max_bytes, batch }
}

fn contents(log: &AccessLog, from_ms: u64) -> (Vec<u64>, LogRead) {
    let mut seconds = Vec::new();
    let read = log
        .read(from_ms, |found| {
            assert_eq!(*found, request(found.at_ms / 1000));
            seconds.push(found.at_ms / 1000);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(read.requests, seconds.len() as u64);
    (seconds, read)
}

fn fill(log: &AccessLog, seconds: std::ops::Range<u64>) {
    for at in seconds {
        if log.note(&request(at)) {
            log.flush().unwrap();
        }
    }
}

#[test]
fn nothing_is_written_before_a_flush_and_all_is_read_after() {
    let dir = tempfile::tempdir().unwrap();
    let log = AccessLog::open(dir.path(), config(1 << 20, 100)).unwrap();
    (0..99).for_each(|at| assert!(!log.note(&request(at))));
    assert!(log.note(&request(99)));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    assert_eq!(log.status().buffered, 100);
    log.flush().unwrap();
    fill(&log, 100..250);
    let (seconds, _) = contents(&log, 0);
    assert_eq!(seconds, (0..200).collect::<Vec<_>>());
    log.flush().unwrap();
    log.flush().unwrap();
    assert_eq!(contents(&log, 240_000).0, (240..250).collect::<Vec<_>>());
    let mut first = None;
    log.read(0, |found| {
        first = Some(*found);
        ControlFlow::Break(())
    })
    .unwrap();
    assert_eq!(first, Some(request(0)));
    // Another process goes on in another file.
    drop(log);
    let log = AccessLog::open(dir.path(), config(1 << 20, 100)).unwrap();
    fill(&log, 250..400);
    log.flush().unwrap();
    assert_eq!(contents(&log, 0).0, (0..400).collect::<Vec<_>>());
    assert_eq!((log.status().files, log.status().dropped), (2, 0));
}

#[test]
fn the_ring_stays_bounded_and_keeps_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let max_bytes = 256 << 10;
    let log = AccessLog::open(dir.path(), config(max_bytes, 100)).unwrap();
    for begin in (0..40_000).step_by(1000) {
        fill(&log, begin..begin + 1000);
        let on_disk: u64 =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(on_disk <= max_bytes && on_disk == log.status().bytes, "{on_disk}");
    }
    assert!(log.status().bytes > max_bytes * 3 / 4 && log.status().files <= FILES + 1);
    let (seconds, _) = contents(&log, 0);
    assert!(seconds.len() > 2000, "{}", seconds.len());
    assert_eq!(seconds, (40_000 - seconds.len() as u64..40_000).collect::<Vec<_>>());
    // Small files of processes that start often are bounded in number.
    drop(log);
    for at in 0..300 {
        let log = AccessLog::open(dir.path(), config(max_bytes, 100)).unwrap();
        log.note(&request(50_000 + at));
        log.flush().unwrap();
        assert!(log.status().files <= MOST_FILES as u64);
    }
}

#[test]
fn a_full_buffer_drops_and_counts() {
    let dir = tempfile::tempdir().unwrap();
    let log = AccessLog::open(dir.path(), config(1 << 20, 10)).unwrap();
    assert_eq!((0..100).filter(|&at| log.note(&request(at))).count(), 91);
    assert_eq!((log.status().buffered, log.status().dropped), (40, 60));
    log.flush().unwrap();
    assert_eq!(contents(&log, 0).0, (0..40).collect::<Vec<_>>());
}

#[test]
fn a_torn_tail_costs_the_last_batch_only() {
    let dir = tempfile::tempdir().unwrap();
    let log = AccessLog::open(dir.path(), config(1 << 20, 100)).unwrap();
    fill(&log, 0..300);
    let path = log.path(0);
    drop(log);
    let whole = fs::read(&path).unwrap();
    let frame = |at: usize| 4 + u32::from_le_bytes(whole[at..at + 4].try_into().unwrap()) as usize;
    let last = frame(frame(0) + frame(frame(0)));
    for cut in [1, 3, 4, 5, 100, last - 5, last - 4, last - 1] {
        fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        let log = AccessLog::open(dir.path(), config(1 << 20, 100)).unwrap();
        let (seconds, read) = contents(&log, 0);
        assert!(seconds.len() == 200 && read.damaged.len() == 1, "{cut} {read:?}");
    }
    // Zeros instead of the last batch, and a flipped bit in the first; what comes after is kept.
    let mut zeros = whole.clone();
    zeros[whole.len() - 200..].fill(0);
    fs::write(&path, &zeros).unwrap();
    let log = AccessLog::open(dir.path(), config(1 << 20, 100)).unwrap();
    fill(&log, 300..400);
    let (seconds, read) = contents(&log, 0);
    assert_eq!(seconds, (0..200).chain(300..400).collect::<Vec<_>>());
    assert_eq!(read.damaged.len(), 1);
    zeros[50] ^= 1;
    fs::write(&path, &zeros).unwrap();
    assert_eq!(contents(&log, 0).0, (300..400).collect::<Vec<_>>());
    // A file that is gone is no error.
    fs::remove_file(&path).unwrap();
    assert_eq!(contents(&log, 0).1.damaged.len(), 0);
}

#[test]
fn a_flush_that_fails_drops_its_batch_and_the_next_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = AccessLog::open(dir.path(), config(1 << 20, 100)).unwrap();
    fill(&log, 0..100);
    log.files.lock().open = None;
    fs::create_dir(log.path(1)).unwrap();
    assert!((100..200).any(|at| log.note(&request(at))));
    assert!(log.flush().is_err());
    assert_eq!((log.status().buffered, log.status().dropped), (0, 100));
    fs::remove_dir(log.path(1)).unwrap();
    fill(&log, 200..300);
    assert_eq!(contents(&log, 0).0, (0..100).chain(200..300).collect::<Vec<_>>());
    let tiny = AccessLog::open(&dir.path().join("tiny"), config(10, 100)).unwrap();
    tiny.note(&request(0));
    assert!(tiny.flush().unwrap_err().to_string().contains("no room"));
}

#[test]
fn a_stranger_in_the_directory_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["readme", "12.log", "000000000000000g.log", "00000000000000001.log"] {
        fs::write(dir.path().join(name), name).unwrap();
    }
    let log = AccessLog::open(dir.path(), config(1 << 16, 10)).unwrap();
    assert_eq!(log.status(), LogStatus::default());
    fill(&log, 0..5000);
    assert!(dir.path().join("readme").exists() && dir.path().join("12.log").exists());
}

#[test]
fn the_bytes_are_golden() {
    let dir = tempfile::tempdir().unwrap();
    let log = AccessLog::open(dir.path(), config(1 << 20, 10)).unwrap();
    log.note(&read(1, 2, 3));
    log.flush().unwrap();
    let file = fs::read(dir.path().join("0000000000000000.log")).unwrap();
    let len = u32::from_le_bytes(file[..4].try_into().unwrap()) as usize;
    assert_eq!((file.len(), &file[4..14]), (4 + len, &b"FIRNalog\x01\0"[..]));
    let (text, ..) = envelope::open(KIND, &file[4..]).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(
        text.starts_with("firn-trace 1\n#") && text.ends_with("\n1000\tR\t2\t3\t3\t1\t0\t1\t0\n")
    );
}

proptest! {
    #[test]
    fn any_requests_come_back(requests in prop::collection::vec(any_request(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let log = AccessLog::open(dir.path(), config(1 << 20, 7)).unwrap();
        for request in &requests {
            if log.note(request) {
                log.flush().unwrap();
            }
        }
        log.flush().unwrap();
        let mut found = Vec::new();
        log.read(0, |request| {
            found.push(*request);
            ControlFlow::Continue(())
        }).unwrap();
        prop_assert_eq!(found, requests);
    }

    #[test]
    fn no_file_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), sealed in any::<bool>()) {
        let mut file = bytes.clone();
        if sealed {
            let (sealed, _) = envelope::seal(KIND, &bytes).unwrap();
            file = [&(sealed.len() as u32).to_le_bytes()[..], &sealed].concat();
        }
        let mut count = 0;
        let end = read_piece(&file[..], 0, &mut count, &mut |_| ControlFlow::Continue(()));
        prop_assert!(end.is_err() || file.is_empty());
    }
}
