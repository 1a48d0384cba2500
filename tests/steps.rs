//! The daemon killed at every step of a move, as `kill -9` would at that very moment: the volume
//! mounts again without a hand, everything acknowledged reads back, and a check of every byte in
//! both tiers finds nothing wrong.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use firn_tiering::store::Step;

use crate::harness::{Volume, now};

/// Steps that come with damage, with backups that have expired, or with hours: tests within one process reach
/// them.
const NOT_IN_MINUTES: [Step; 12] = [
    Step::MendBeforeRename,
    Step::MendAfterRenameBeforeTable,
    Step::SalvageBeforeAppend,
    Step::SalvageAfterAppendBeforeSync,
    Step::SalvageAfterSync,
    Step::FetchAfterSyncBeforeRemove,
    Step::ForgetBeforeRecord,
    Step::ForgetAfterRecordBeforeUnlink,
    Step::ForgetAfterUnlink,
    Step::ColdDeleteBefore,
    Step::ColdDeleteAfter,
    Step::ColdDeleteAfterSidecar,
];

/// A policy without which no step of a sidecar is reached.
const PARITY_APART: &str = "[defaults]\nparity = \"object\"\n";

/// How long work in the background may take to come to the step.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes that do not shrink, and text that does, by their number.
fn content(number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    if !number.is_multiple_of(3) {
        let words = |n: u64| format!("line {n} of {} words\n", n * number % 97);
        return (0..20_000).flat_map(|n| words(n).into_bytes()).collect();
    }
    (0..10_000).flat_map(|_| next().to_le_bytes()).collect()
}

/// What files hold, and whether they must be there: some were being removed when the daemon died.
type Expected = BTreeMap<String, (u64, bool)>;

/// Writes files and makes them durable; `None` when the daemon dies meanwhile, since what it was
/// writing then is nobody's.
fn write(volume: &Volume, dir: &str) -> Option<Expected> {
    fs::create_dir(volume.path(dir)).ok()?;
    let mut expected = Expected::new();
    for number in 1..=12 {
        let name = format!("{dir}/{number:02}");
        fs::write(volume.path(&name), content(number)).ok()?;
        expected.insert(name, (number, true));
    }
    let synced = volume.firn().arg("sync").arg(&volume.mountpoint).output().unwrap();
    synced.status.success().then_some(expected)
}

/// Runs `firn` on the directory; it fails when the daemon dies meanwhile.
fn firn(volume: &Volume, args: &[&str], dir: &Path) {
    let _ = volume.firn().args(args).arg(dir).output().unwrap();
}

/// Every kind of move; ends early when the daemon does.
fn moves(volume: &mut Volume, dir: &str, expected: &mut Expected) {
    let path = volume.path(dir);
    for verb in ["archive", "release"] {
        firn(volume, &["tier", verb, "-r"], &path);
    }
    firn(volume, &["tier", "stage", "--wait", "-r"], &path);
    // A part of a segment leaves holes, and they are filled again.
    firn(volume, &["tier", "release"], &path.join("02"));
    firn(volume, &["tier", "stage", "--wait"], &path.join("02"));
    firn(volume, &["tier", "archive", "-r", "--recompress"], &path);
    if volume.has_ended() {
        return;
    }
    for (name, (number, stays)) in expected.iter_mut() {
        if *number % 4 != 0 {
            *stays = false;
            let _ = fs::remove_file(volume.path(name));
        }
    }
    firn(volume, &["sync"], &volume.mountpoint.clone());
    let start = now();
    while !volume.has_ended() && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn compare(volume: &Volume, expected: &Expected, step: Step) {
    for (name, (number, stays)) in expected {
        match fs::read(volume.path(name)) {
            Ok(bytes) => assert!(bytes == content(*number), "{}: {name}", step.name()),
            Err(error) => assert!(!stays, "{}: {name}: {error}", step.name()),
        }
    }
}

/// Kills a daemon at each of these steps, one volume through all of them.
fn kill_at(steps: impl Iterator<Item = Step>) {
    if !cfg!(debug_assertions) {
        eprintln!("NOTE: this build has no failpoints: nothing is killed");
        return;
    }
    let mut volume = Volume::mounted();
    volume.umount();
    for step in steps {
        let dir = step.name();
        let policy = volume.dir.join("policy.toml");
        if step == Step::UploadAfterSidecar {
            fs::write(&policy, PARITY_APART).unwrap();
        }
        let mut expected = Expected::new();
        // What an earlier step left may already lead there.
        if volume.try_mount(&[("FIRN_FAILPOINT", step.name())]).is_ok()
            && let Some(written) = write(&volume, dir)
        {
            expected = written;
            moves(&mut volume, dir, &mut expected);
        }
        assert!(volume.has_ended(), "{} was not reached: {}", step.name(), volume.log());
        volume.kill();
        volume.mount();
        compare(&volume, &expected, step);
        // The move is made again.
        if !expected.is_empty() {
            for verb in ["archive", "release"] {
                volume.run(&["tier", verb, "-r", volume.path(dir).to_str().unwrap()]);
            }
            compare(&volume, &expected, step);
        }
        volume.umount();
        if step == Step::UploadAfterSidecar {
            fs::remove_file(&policy).unwrap();
        }
        let report = volume.run(&["check", "--data", volume.dir.to_str().unwrap()]);
        assert!(!report.is_empty());
    }
}

#[test]
fn a_daemon_killed_at_even_steps_of_a_move_loses_nothing() {
    kill_at(Step::ALL.iter().copied().filter(|s| !NOT_IN_MINUTES.contains(s)).step_by(2));
}

#[test]
fn a_daemon_killed_at_odd_steps_of_a_move_loses_nothing() {
    kill_at(Step::ALL.iter().copied().filter(|s| !NOT_IN_MINUTES.contains(s)).skip(1).step_by(2));
}
