//! A cold tier that has lost objects of every sort at random: `firn recover --partial` makes a volume
//! of the rest, in which each file has the right bytes, or an error to read, or is named.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use super::read;
use crate::harness::{Volume, noise, shell};

/// Enough for three buckets of 1,024 inodes each.
const DIRS: u64 = 20;
const FILES: u64 = 120;

type Files = BTreeMap<String, Vec<u8>>;

/// A volume with two backups, what each holds, and the newest manifest of the first.
fn volume() -> (Volume, [Files; 2], u64) {
    let mut volume = Volume::mounted();
    let cold = volume.scratch.path().join("cold");
    let mut files = Files::new();
    for dir in 0..DIRS {
        fs::create_dir(volume.path(&format!("d{dir}"))).unwrap();
    }
    for dir in 0..DIRS {
        for n in 0..FILES {
            files.insert(format!("d{dir}/f{n}"), noise(dir * FILES + n, 700));
        }
    }
    for (name, content) in &files {
        fs::write(volume.path(name), content).unwrap();
    }
    volume.umount();
    let first = sequences(&cold).last().copied().unwrap();
    volume.mount();
    let before = files.clone();
    // In the first directory of ten, and in the last: the inodes between are of both backups.
    for (at, (name, content)) in files.iter_mut().enumerate() {
        if at % 7 == 0 && (name.starts_with("d0/") || name.starts_with("d9/")) {
            *content = noise(100_000 + at as u64, 900);
            fs::write(volume.path(name), content).unwrap();
        }
    }
    for n in 0..5 {
        let name = format!("d{n}/new");
        files.insert(name.clone(), noise(200_000 + n, 800));
        fs::write(volume.path(&name), &files[&name]).unwrap();
    }
    volume.umount();
    (volume, [before, files], first)
}

fn sequences(cold: &Path) -> Vec<u64> {
    let found = objects(&cold.join("namespace/manifests"));
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    found.iter().map(|path| u64::from_str_radix(&name(path), 16).unwrap()).collect()
}

fn objects(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

fn recover(volume: &Volume, cold: &Path, place: &Path, args: &[&str]) -> Output {
    let url = format!("file://{}", cold.display());
    volume.firn().args(["recover", &url]).arg(place).args(args).output().unwrap()
}

/// Whether a recovery went through, each file then being right or named.
fn is_right_or_named(output: &Output, place: PathBuf, states: &[Files; 2], first: u64) -> bool {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = output.status.code().unwrap();
    if code == 1 {
        assert!(error.contains("backup") && error.contains("hint:"), "{error}");
        return false;
    }
    let sequence = text.split("of backup ").nth(1).unwrap().split(',').next().unwrap();
    let right = if sequence.parse::<u64>().unwrap() <= first { &states[0] } else { &states[1] };
    let named: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("    /")).collect();
    let is_lost = text.contains("lost: no backup has it whole");
    let mut recovered = Volume::existing(place);
    let mut all_right = true;
    for (name, content) in right {
        let found = read(&recovered, name);
        let is_right = found.as_ref().is_ok_and(|found| found == content);
        all_right &= is_right;
        let dir = name.split('/').next().unwrap();
        let is_named = named.contains(name.as_str());
        match found {
            Ok(_) if is_right => {}
            Ok(found) => assert!(is_named && states[0].get(name) == Some(&found), "{name}: {text}"),
            Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                assert!(is_named, "{name}: {text}");
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{name}");
                assert!(is_named || named.contains(dir) || is_lost, "{name}: {text}");
            }
        }
    }
    recovered.umount();
    assert!(all_right || code == 3, "{code}: {text}");
    // What was put in its place is a sound volume.
    let kinds = recovered.firn().args(["check", "--json"]).arg(&recovered.dir).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&kinds.stdout).unwrap();
    let damage = report["damage"].as_array().unwrap();
    assert!(damage.iter().all(|damage| damage["part"] != "namespace"), "{report}");
    true
}

#[test]
fn whatever_objects_are_lost_a_recovery_in_part_names_what_is_not_right() {
    let (volume, states, first) = volume();
    let cold = volume.scratch.path().join("cold");
    let (mut whole, mut in_part) = (0, 0);
    for round in 0..4_u64 {
        let copy = volume.scratch.path().join(format!("copy{round}"));
        shell("cp -a \"$1\" \"$2\"", &[&cold, &copy]);
        let mut lost = objects(&copy.join("namespace/pieces"));
        if round % 2 == 1 {
            lost.extend(objects(&copy.join("segments")));
            lost.extend(objects(&copy.join("namespace/manifests")));
        }
        let random = noise(round, lost.len());
        for (path, _) in lost.iter().zip(random).filter(|(_, byte)| *byte < 64) {
            fs::remove_file(path).unwrap();
        }
        let place = volume.scratch.path().join(format!("place{round}"));
        let output = recover(&volume, &copy, &place, &["--partial"]);
        let code = output.status.code();
        if is_right_or_named(&output, place, &states, first) {
            whole += u32::from(code == Some(0));
            in_part += u32::from(code == Some(3));
        }
    }
    assert!(in_part >= 1, "{whole} whole, {in_part} in part");
}

#[test]
fn what_is_missing_of_the_newest_backup_is_told_and_no_file_is_older_unasked() {
    let (volume, states, first) = volume();
    let cold = volume.scratch.path().join("cold");
    // Everything that only the second backup names, but for its manifest.
    let copy = volume.scratch.path().join("copy");
    shell("cp -a \"$1\" \"$2\"", &[&cold, &copy]);
    let newest = |path: &PathBuf| path.metadata().unwrap().modified().unwrap();
    let pieces = objects(&copy.join("namespace/pieces"));
    fs::remove_file(pieces.iter().max_by_key(|path| newest(path)).unwrap()).unwrap();
    let place = volume.scratch.path().join("older");
    let output = recover(&volume, &copy, &place, &[]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{error}");
    assert!(error.contains("could not be used: 1 of its "), "{error}");
    assert!(error.contains("--partial"), "{error}");
    assert!(is_right_or_named(&output, place, &states, first));

    // None is whole: said, with what can be done.
    for path in objects(&copy.join("namespace/pieces")).iter().step_by(2) {
        fs::remove_file(path).unwrap();
    }
    let place = volume.scratch.path().join("none");
    let output = recover(&volume, &copy, &place, &[]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("pieces are missing or damaged: namespace/pieces/"), "{error}");
    assert!(error.contains("hint: --partial"), "{error}");
    assert!(!place.exists());

    // No manifest at all, and segments.
    fs::remove_dir_all(copy.join("namespace/manifests")).unwrap();
    let output = recover(&volume, &copy, &place, &["--partial"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(" segments and ") && error.contains("no manifest"), "{error}");
    assert!(error.contains("hint: blocks without a backup"), "{error}");
    assert!(!place.exists());
}
