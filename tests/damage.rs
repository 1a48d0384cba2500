//! Storage that rots under a mounted volume: every read ends in the right bytes or in an error that
//! names the file, and what can be repaired is, by readers and by scrubs.

mod part;
mod places;
mod table;

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::{Volume, noise, now};

const PATIENCE: Duration = Duration::from_secs(60);

/// What files hold: a large one, and small ones that share blocks.
fn files() -> Vec<(String, Vec<u8>)> {
    let small = (0..20).map(|n| (format!("d/small{n:02}"), noise(n, 3000)));
    std::iter::once(("d/large".to_owned(), noise(99, 24 << 20))).chain(small).collect()
}

/// A mounted volume whose files lie in sealed segments, in hot only or in both tiers.
fn sealed(cold: bool) -> (Volume, Vec<(String, Vec<u8>)>) {
    let mut volume = if cold { Volume::mounted() } else { Volume::with(&[], &[]) };
    let files = files();
    fs::create_dir(volume.path("d")).unwrap();
    for (name, content) in &files {
        fs::write(volume.path(name), content).unwrap();
    }
    // Unmounting seals, and copies to cold; afterwards no content is in any memory.
    volume.umount();
    volume.mount();
    (volume, files)
}

fn read(volume: &Volume, name: &str) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    fs::File::open(volume.path(name))?.read_to_end(&mut content)?;
    Ok(content)
}

fn status(volume: &Volume) -> serde_json::Value {
    let text = volume.run(&["status", "--json", volume.mountpoint.to_str().unwrap()]);
    serde_json::from_str(&text).unwrap()
}

/// The largest file with that ending below a directory: the segment with the large file.
fn segment(dir: &Path) -> PathBuf {
    let found = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    found.max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

fn hot_segment(volume: &Volume) -> PathBuf {
    segment(&volume.dir.join("hot/segments"))
}

fn overwrite(path: &Path, at: u64, len: usize) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, at).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
    file.write_all_at(&bytes, at).unwrap();
}

fn eventually(what: &str, volume: &Volume, mut done: impl FnMut() -> bool) {
    let start = now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "never happened: {what}: {}", status(volume));
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn scrub(volume: &Volume, args: &[&str]) -> (i32, serde_json::Value) {
    let mountpoint = volume.mountpoint.to_str().unwrap();
    let output =
        volume.firn().arg("scrub").args(args).args(["--json", mountpoint]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{error}"));
    (output.status.code().unwrap(), report)
}

#[test]
fn a_run_of_one_percent_is_repaired_for_the_reader_and_on_the_disk() {
    let (volume, files) = sealed(false);
    let path = hot_segment(&volume);
    let sealed = fs::read(&path).unwrap();
    overwrite(&path, 6 << 20, sealed.len() / 100);
    assert!(read(&volume, "d/large").unwrap() == files[0].1);
    eventually("the file is whole", &volume, || fs::read(&path).unwrap() == sealed);
    eventually("it is told", &volume, || {
        let status = status(&volume);
        status["counters"]["repaired_segments"] == 1
            && status["damage"][0]["paths"].as_array().unwrap().contains(&"/d/large".into())
            && status["damage"][0]["is_lost"] == false
    });
    for (name, content) in &files {
        assert!(read(&volume, name).unwrap() == *content, "{name}");
    }
}

#[test]
fn a_scrub_finds_and_repairs_what_nobody_has_read() {
    let (mut volume, files) = sealed(true);
    let path = hot_segment(&volume);
    let object = volume.scratch.path().join("cold/segments").join(path.file_name().unwrap());
    let sealed = fs::read(&path).unwrap();
    assert!(fs::read(&object).unwrap() == sealed);
    overwrite(&path, 9 << 20, 100);
    overwrite(&path, 1 << 20, 1);
    overwrite(&object, 3 << 20, 10);
    let (code, report) = scrub(&volume, &["start", "--wait", "--cold-data"]);
    assert_eq!(code, 0, "{report}");
    assert_eq!((&report["state"], &report["last"]["repaired"]), (&"idle".into(), &2.into()));
    assert_eq!((&report["last"]["lost"], &report["last"]["skipped"]), (&0.into(), &0.into()));
    assert!(fs::read(&path).unwrap() == sealed);
    eventually("the object is whole", &volume, || fs::read(&object).is_ok_and(|o| o == sealed));
    for (name, content) in &files {
        assert!(read(&volume, name).unwrap() == *content, "{name}");
    }
    // The last pass is remembered.
    volume.umount();
    volume.mount();
    let (code, report) = scrub(&volume, &["status"]);
    assert_eq!((code, &report["last"]["repaired"]), (0, &2.into()), "{report}");
    volume.umount();
    volume.run(&["check", "--data", volume.dir.to_str().unwrap()]);
}

#[test]
fn what_parity_cannot_bear_is_an_error_and_the_paths_are_named() {
    let (mut volume, files) = sealed(false);
    let path = hot_segment(&volume);
    overwrite(&path, 2 << 20, 4 << 20);
    let error = read(&volume, "d/large").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
    let (code, report) = scrub(&volume, &["start", "--wait"]);
    assert_eq!((code, &report["last"]["lost"]), (3, &1.into()), "{report}");
    let status = status(&volume);
    let lost = status["damage"].as_array().unwrap().iter().find(|event| event["is_lost"] == true);
    let paths = lost.expect("it is told")["paths"].as_array().unwrap();
    assert_eq!(paths, &[serde_json::Value::from("/d/large")], "{status}");
    assert!(volume.log().contains("/d/large"), "{}", volume.log());
    for (name, content) in files.iter().skip(1) {
        assert!(read(&volume, name).unwrap() == *content, "{name}");
    }
    // Bytes of the file that are not hit are read.
    let file = fs::File::open(volume.path("d/large")).unwrap();
    let mut end = vec![0; 1 << 20];
    file.read_exact_at(&mut end, 20 << 20).unwrap();
    assert!(end == files[0].1[20 << 20..21 << 20]);
    drop(file);
    volume.umount();
    let output = volume.firn().arg("check").arg("--data").arg(&volume.dir).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stdout).contains("/d/large"));
}

#[test]
fn single_bits_at_many_places_never_make_wrong_bytes() {
    let (volume, files) = sealed(false);
    let path = hot_segment(&volume);
    let sealed = fs::read(&path).unwrap();
    let mut state = 12345_u64;
    for round in 0..10 {
        // No more than parity bears wherever they lie.
        for _ in 0..5 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (state >> 16) % sealed.len() as u64;
            let file = fs::File::options().read(true).write(true).open(&path).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            byte[0] ^= 1 << (state % 8);
            file.write_all_at(&byte, at).unwrap();
        }
        fs::write("/proc/sys/vm/drop_caches", "3").unwrap_or_default();
        for (name, content) in &files {
            assert!(read(&volume, name).unwrap() == *content, "round {round}: {name}");
        }
        let (code, report) = scrub(&volume, &["start", "--wait"]);
        assert_eq!((code, &report["state"]), (0, &"idle".into()), "{report}");
        assert!(fs::read(&path).unwrap() == sealed, "round {round}");
    }
}

#[test]
fn a_scrub_stops_and_goes_on_where_it_was() {
    let (mut volume, _) = sealed(false);
    let mountpoint = volume.mountpoint.to_str().unwrap().to_owned();
    for n in 0..4 {
        fs::write(volume.path(&format!("more{n}")), noise(200 + n, 70 << 20)).unwrap();
    }
    volume.run(&["sync", &mountpoint]);
    // So slow that it is stopped in the middle.
    let policy = volume.scratch.path().join("policy.toml");
    fs::write(&policy, "[scrub]\nrate = \"40MiB/s\"\n").unwrap();
    volume.run(&["policy", "apply", policy.to_str().unwrap(), &mountpoint]);
    eventually("the policy holds", &volume, || {
        let (_, report) = scrub(&volume, &["start", "--afresh"]);
        report["state"] == "running"
    });
    eventually("it has begun", &volume, || scrub(&volume, &["status"]).1["pass"]["segments"] != 0);
    let (_, report) = scrub(&volume, &["stop"]);
    assert_eq!(report["state"], "stopped", "{report}");
    assert_ne!(report["pass"]["left"], 0, "{report}");
    volume.umount();
    volume.mount();
    let (_, stopped) = scrub(&volume, &["status"]);
    assert_eq!(stopped["state"], "stopped", "{stopped}");
    fs::write(&policy, "[scrub]\nrate = \"off\"\n").unwrap();
    volume.run(&["policy", "apply", policy.to_str().unwrap(), &mountpoint]);
    let (code, report) = scrub(&volume, &["start", "--wait"]);
    assert_eq!((code, &report["state"]), (0, &"idle".into()), "{report}");
    let last = &report["last"];
    assert_eq!(last["started"], stopped["pass"]["started"], "it went on: {report}");
    assert!(last["segments"].as_u64() >= stopped["pass"]["segments"].as_u64());
}

#[test]
fn a_check_repairs_offline_and_finds_nothing_the_second_time() {
    let (mut volume, _) = sealed(true);
    let path = hot_segment(&volume);
    let object = volume.scratch.path().join("cold/segments").join(path.file_name().unwrap());
    let whole = fs::read(&path).unwrap();
    volume.umount();
    overwrite(&path, 9 << 20, 1000);
    overwrite(&object, 5 << 20, 1000);
    let check = |args: &[&str]| {
        let output = volume.firn().arg("check").args(args).arg("--json").arg(&volume.dir).output();
        let output = output.unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        (output.status.code().unwrap(), report)
    };
    let (code, report) = check(&["--data"]);
    let damage = report["damage"].as_array().unwrap();
    assert_eq!(code, 3, "{report}");
    for part in ["hot segment", "cold segment"] {
        assert!(damage.iter().any(|found| found["part"] == part), "{report}");
    }
    let (code, report) = check(&["--data", "--repair"]);
    assert_eq!((code, report["repaired"].as_array().unwrap().len()), (0, 2), "{report}");
    assert!(report["repaired"][0]["paths"].as_array().unwrap().contains(&"/d/large".into()));
    assert!(fs::read(&path).unwrap() == whole && fs::read(&object).unwrap() == whole);
    let (code, report) = check(&["--data", "--repair"]);
    assert_eq!((code, report["repaired"].as_array().unwrap().len()), (0, 0), "{report}");
}

/// Damages every piece of the newest backup in its middle.
fn damage_backups(cold: &Path) {
    for entry in fs::read_dir(cold.join("namespace/pieces")).unwrap() {
        let path = entry.unwrap().path();
        overwrite(&path, path.metadata().unwrap().len() / 2, 1);
    }
}

#[test]
fn a_scrub_restores_the_newest_backup_and_makes_a_new_one_when_it_is_no_good() {
    let (mut volume, _) = sealed(true);
    let (code, report) = scrub(&volume, &["start", "--wait"]);
    let test = &report["last"]["backup"];
    assert_eq!((code, &test["restored"]), (0, &true.into()), "{report}");
    assert!(test["failure"].is_null(), "{report}");
    assert!(test["inodes"].as_u64().unwrap() >= 22, "{report}");
    damage_backups(&volume.scratch.path().join("cold"));
    let (_, report) = scrub(&volume, &["start", "--wait"]);
    assert!(report["last"]["backup"]["failure"].is_string(), "{report}");
    let (_, report) = scrub(&volume, &["start", "--wait"]);
    assert!(report["last"]["backup"]["failure"].is_null(), "{report}");
    assert!(!volume.dir.join("restore-test").exists());
    volume.umount();
    volume.run(&["check", "--data", volume.dir.to_str().unwrap()]);
}

#[test]
fn a_check_with_data_reads_the_newest_backup() {
    let (mut volume, _) = sealed(true);
    volume.umount();
    damage_backups(&volume.scratch.path().join("cold"));
    let dir = volume.dir.to_str().unwrap();
    volume.run(&["check", dir]);
    let output = volume.firn().args(["check", "--data", "--json", dir]).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["damage"][0]["part"]), (Some(3), &"backup".into()));
}

#[test]
fn a_recovery_names_the_files_that_the_cold_tier_has_lost() {
    let (mut volume, files) = sealed(true);
    volume.umount();
    let cold = volume.scratch.path().join("cold");
    fs::remove_dir_all(&volume.dir).unwrap();
    fs::remove_file(segment(&cold.join("segments"))).unwrap();
    let recover = |place: &Path, more: &[&str]| {
        let url = format!("file://{}", cold.display());
        volume.firn().args(["recover", &url]).arg(place).args(more).output().unwrap()
    };
    // The last one owns the tier.
    assert!(recover(&volume.scratch.path().join("quick"), &["--no-check"]).status.success());
    let again = volume.scratch.path().join("again");
    let output = recover(&again, &[]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("\n    /d/large\n"), "{text}");
    // Everything that is not named is there.
    let mut recovered = Volume::existing(again);
    let mut lost = 0;
    for (name, content) in &files {
        match read(&recovered, name) {
            Ok(found) => assert!(found == *content, "{name}"),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EIO), "{name}");
                assert!(text.contains(&format!("\n    /{name}\n")), "{name}: {text}");
                lost += 1;
            }
        }
    }
    assert!(lost >= 1);
    recovered.umount();
}
