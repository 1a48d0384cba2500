//! `firn mount`, `umount`, `sync`, `status`, `mount.firn`: the good days.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::mounted::Scene;
use crate::run::{Ran, command, firn};

#[test]
fn a_mount_is_silent_and_survives_its_parent() {
    let scene = Scene::new();
    let ran = scene.mount().done();
    assert_eq!(ran.out, "");
    fs::write(scene.mountpoint.join("file"), "snow").unwrap();
    assert!(scene.is_mounted());
    let ran = scene.umount();
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{}", ran.err);
    assert!(ran.err.contains("firn: copying to the cold tier"), "{}", ran.err);
    assert!(!scene.is_mounted());
    assert!(!scene.volume.join("control.sock").exists());
    scene.mount().done();
    assert_eq!(fs::read_to_string(scene.mountpoint.join("file")).unwrap(), "snow");
    scene.umount_done();
}

#[test]
fn a_stranger_who_unmounts_is_told_who_may() {
    let scene = Scene::mounted();
    fs::set_permissions(scene.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut stranger = command(&["umount", scene.mnt()]);
    let ran = Ran::from(&stranger.uid(65534).gid(65534).output().unwrap());
    let hint = format!("hint: run `sudo firn umount {}`", scene.mnt());
    let ran = ran.refused(1, &["only root may unmount it, and you are user 65534", &hint]);
    assert!(!ran.err.contains("warning") && !ran.err.contains("fusermount3"), "{}", ran.err);
    assert!(scene.is_mounted());
    scene.umount_done();
}

#[test]
fn a_volume_is_found_by_directory_mountpoint_and_any_path_below() {
    let scene = Scene::mounted();
    fs::create_dir_all(scene.mountpoint.join("a/b")).unwrap();
    let below = scene.mountpoint.join("a/b");
    for path in [scene.vol(), scene.mnt(), below.to_str().unwrap()] {
        let out = scene.firn(&["status", "--json", path]).done().out;
        let status: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(status["volume"], scene.vol(), "{path}");
        assert_eq!(status["mount"]["mountpoint"], scene.mnt());
        assert_eq!(status["health"], "ok", "{status}");
        scene.firn(&["sync", path]).done();
    }
    let all = scene.firn(&["status"]).done().out;
    assert!(all.contains(scene.vol()), "{all}");
    scene.umount_done();
    assert_eq!(scene.status()["health"], "not mounted");
}

#[test]
fn explain_and_tier_show_where_a_file_lies() {
    let scene = Scene::mounted();
    let file = scene.mountpoint.join("field");
    fs::write(&file, vec![7_u8; 3 << 20]).unwrap();
    let path = file.to_str().unwrap();
    scene.firn(&["sync", scene.mnt()]).done();
    let explained = |scene: &Scene| -> serde_json::Value {
        serde_json::from_str(&scene.firn(&["explain", "--json", path]).done().out).unwrap()
    };
    let fresh = explained(&scene);
    assert_eq!(fresh["size_bytes"], 3 << 20);
    assert_eq!(fresh["state"], "resident");
    let covered: u64 =
        fresh["runs"].as_array().unwrap().iter().map(|r| r["len_bytes"].as_u64().unwrap()).sum();
    assert_eq!(covered, 3 << 20, "{fresh}");
    assert!(fresh["runs"][0]["block"]["stored"]["why"].as_str().is_some_and(|w| !w.is_empty()));
    assert!(scene.firn(&["explain", path]).done().out.contains("resident"));

    scene.firn(&["tier", "archive", path]).done();
    assert_eq!(explained(&scene)["state"], "dual");
    scene.firn(&["tier", "release", path]).done();
    let released = explained(&scene);
    assert_eq!(released["state"], "cold", "{released}");
    assert_eq!(released["resident_pct"], 0);
    let list = scene.firn(&["tier", "ls", scene.mnt(), "--json"]).done().out;
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["files"][0]["state"], "cold", "{list}");
    assert_eq!(fs::read(&file).unwrap(), vec![7_u8; 3 << 20]);
    scene.firn(&["tier", "stage", "--wait", "-r", scene.mnt()]).done();
    assert_eq!(explained(&scene)["state"], "dual");
    assert!(scene.firn(&["tier", "where", path]).done().out.contains("dual"));
    let tiers = scene.firn(&["tier", "status", scene.mnt()]).done().out;
    assert!(tiers.contains("cold") && tiers.contains("hot"), "{tiers}");
    scene.umount_done();
}

#[test]
fn archiving_compresses_again_when_asked_and_explain_says_so() {
    let scene = Scene::mounted();
    let file = scene.mountpoint.join("waves");
    let plain: Vec<u8> = (0..1 << 18)
        .flat_map(|i| (((i as f32) / 300.0).sin() * 40.0 + 280.0).to_be_bytes())
        .collect();
    fs::write(&file, &plain).unwrap();
    let path = file.to_str().unwrap();
    scene.firn(&["sync", scene.mnt()]).done();
    let before = scene.firn(&["explain", path]).done().out;
    assert!(!before.contains("zstd-19"), "{before}");
    let moved = scene.firn(&["tier", "archive", "--recompress", "--json", path]).done().out;
    let moved: serde_json::Value = serde_json::from_str(&moved).unwrap();
    assert_eq!(moved["files"], 1, "{moved}");
    assert!(moved["saved_bytes"].as_u64().unwrap() > 10_000, "{moved}");
    let after = scene.firn(&["explain", path]).done().out;
    assert!(after.contains("zstd-19") && after.contains("dual"), "{after}");
    scene.firn(&["tier", "release", path]).done();
    let again = scene.firn(&["tier", "archive", "--recompress", path]);
    assert_eq!(again.code, 0);
    assert!(again.err.contains("stage their files first"), "{}", again.err);
    assert!(fs::read(&file).unwrap() == plain);
    scene.umount_done();
}

#[test]
fn the_helper_of_mount_8_takes_what_mount_8_gives() {
    let scene = Scene::new();
    let helper = scene.dir.path().join("mount.firn");
    symlink(env!("CARGO_BIN_EXE_firn"), &helper).unwrap();
    let mount = |options: &str| {
        let mut command = Command::new(&helper);
        command.args([scene.vol(), scene.mnt(), "-n", "-v", "-o", options]);
        Ran::from(&command.output().unwrap())
    };
    mount("rw,auto,user,_netdev,nofail,x-systemd.automount,cache=writeback").done();
    fs::write(scene.mountpoint.join("file"), "x").unwrap();
    let unhelper = scene.dir.path().join("umount.fuse.firn");
    symlink(env!("CARGO_BIN_EXE_firn"), &unhelper).unwrap();
    let ran = Ran::from(&Command::new(&unhelper).arg(scene.mnt()).output().unwrap());
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(!scene.is_mounted());
    mount("rw,cahce=writeback").refused(2, &["mount options", "cahce"]);
    mount("ro,_netdev").done();
    fs::write(scene.mountpoint.join("file"), "y").unwrap_err();
    assert_eq!(fs::read_to_string(scene.mountpoint.join("file")).unwrap(), "x");
    assert_eq!(scene.status()["mount"]["read_only"], true);
    scene.umount_done();
}

#[test]
fn sigterm_is_an_orderly_unmount() {
    let scene = Scene::mounted();
    fs::write(scene.mountpoint.join("file"), "never fsynced").unwrap();
    scene.signal("-TERM");
    assert!(!scene.is_mounted());
    scene.mount().done();
    assert_eq!(fs::read_to_string(scene.mountpoint.join("file")).unwrap(), "never fsynced");
    scene.umount_done();
}

#[test]
fn sigterm_ends_a_mount_in_use_and_keeps_what_was_written() {
    use std::io::Write;
    let scene = Scene::mounted();
    let mut held = fs::File::create(scene.mountpoint.join("file")).unwrap();
    held.write_all(b"held open").unwrap();
    scene.signal("-TERM");
    assert!(!scene.is_mounted());
    drop(held);
    scene.mount().done();
    assert_eq!(fs::read_to_string(scene.mountpoint.join("file")).unwrap(), "held open");
    scene.umount_done();
}

#[test]
fn a_volume_is_private_to_its_owner() {
    let scene = Scene::mounted();
    let mode =
        |name: &str| scene.volume.join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("control.sock"), 0o600);
    assert_eq!(mode("firn.log"), 0o600);
    scene.umount_done();
}

#[test]
fn the_daemon_may_open_many_files_and_dumps_no_core() {
    let scene = Scene::mounted();
    let limits = fs::read_to_string(format!("/proc/{}/limits", scene.pid())).unwrap();
    let of = |name: &str| -> Vec<String> {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().take(2).map(ToOwned::to_owned).collect()
    };
    assert_eq!(of("Max core file size"), ["0", "0"]);
    let files = of("Max open files");
    let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
    assert!(number(&files[0]) >= number(&files[1]).min(1 << 20), "{files:?}");
    scene.umount_done();
}

#[test]
fn a_file_is_dual_only_when_a_backup_names_it() {
    let scene = Scene::mounted();
    let file = scene.mountpoint.join("file");
    fs::write(&file, vec![1_u8; 200_000]).unwrap();
    let state = || -> String {
        let out = scene.firn(&["explain", "--json", file.to_str().unwrap()]).done().out;
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        value["state"].as_str().unwrap().to_owned()
    };
    scene.firn(&["sync", scene.mnt()]).done();
    assert_eq!(state(), "resident");
    scene.firn(&["tier", "archive", file.to_str().unwrap()]).done();
    assert_eq!(state(), "dual");
    assert!(scene.status()["backup"]["sequence"].as_u64().is_some());
    scene.umount_done();
    scene.mount().done();
    assert_eq!(state(), "dual");
    scene.umount_done();
}

#[test]
fn a_check_after_a_crash_finds_nothing_wrong() {
    let scene = Scene::mounted();
    fs::write(scene.mountpoint.join("file"), vec![2_u8; 500_000]).unwrap();
    fs::write(scene.mountpoint.join("small"), "x").unwrap();
    scene.firn(&["sync", scene.mnt()]).done();
    fs::write(scene.mountpoint.join("unsynced"), vec![4_u8; 500_000]).unwrap();
    scene.signal("-KILL");
    scene.umount_done();
    let ran = scene.firn(&["check", "--data", scene.vol()]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    scene.mount().done();
    assert_eq!(fs::read(scene.mountpoint.join("file")).unwrap(), vec![2_u8; 500_000]);
    scene.umount_done();
}

#[test]
fn a_check_finds_nothing_wrong_and_rebuilds_a_lost_catalog() {
    let scene = Scene::mounted();
    fs::write(scene.mountpoint.join("file"), vec![3_u8; 200_000]).unwrap();
    scene.umount_done();
    let check = |args: &[&str]| -> serde_json::Value {
        let mut all = vec!["check", "--json", scene.vol()];
        all.extend(args);
        serde_json::from_str(&scene.firn(&all).done().out).unwrap()
    };
    let report = check(&["--data"]);
    assert_eq!(report["clean"], true, "{report}");
    assert!(report["blocks"].as_u64().unwrap() > 0, "{report}");
    fs::remove_dir_all(scene.volume.join("catalog")).unwrap();
    assert_eq!(check(&["--rebuild-catalog"])["catalog_rebuilt"], true);
    scene.mount().done();
    assert_eq!(fs::read(scene.mountpoint.join("file")).unwrap(), vec![3_u8; 200_000]);
    scene.umount_done();
}

#[test]
fn a_volume_is_recovered_from_its_cold_tier() {
    let scene = Scene::mounted();
    fs::write(scene.mountpoint.join("file"), vec![5_u8; 300_000]).unwrap();
    scene.umount_done();
    let other = scene.dir.path().join("other");
    let url = format!("file://{}", scene.cold.display());
    let ran =
        scene.firn(&["recover", &url, other.to_str().unwrap(), "--hot-capacity", "1GiB"]).done();
    assert!(ran.out.contains("recovered"), "{}", ran.out);
    fs::remove_dir_all(&scene.volume).unwrap();
    fs::rename(&other, &scene.volume).unwrap();
    scene.mount().done();
    assert_eq!(fs::read(scene.mountpoint.join("file")).unwrap(), vec![5_u8; 300_000]);
    scene.umount_done();
}

#[test]
fn status_without_any_mount_of_ours_is_no_error() {
    firn(&["status"]).done();
}
