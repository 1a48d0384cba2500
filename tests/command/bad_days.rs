//! Bad input and bad days: one clear error with a hint, a non-zero exit, nothing half-made.

use std::fs;
use std::fs::File;
use std::os::unix::fs::symlink;
use std::process::Command;

use firn_tiering::{Clock, SystemClock};

use crate::mounted::Scene;
use crate::run::{Ran, command};
use crate::tiers::noise;

fn append_to_config(scene: &Scene, line: &str) {
    let path = scene.volume.join("firn.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(path, format!("{text}{line}\n")).unwrap();
}

pub fn replace_in_config(scene: &Scene, old: &str, new: &str) {
    let path = scene.volume.join("firn.toml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(old), "{text}");
    fs::write(path, text.replace(old, new)).unwrap();
}

#[test]
fn missing_credentials_and_unreachable_stores_leave_no_volume() {
    let dir = tempfile::tempdir().unwrap();
    let vol = dir.path().join("vol");
    let init = |env: &[(&str, &str)]| {
        let args =
            ["init", vol.to_str().unwrap(), "--hot-capacity", "1GiB", "--cold", "s3://bucket/p"];
        let mut command = command(&args);
        command.envs(env.iter().copied());
        Ran::from(&command.output().unwrap())
    };
    init(&[]).refused(1, &["cold tier"]);
    let dead = [
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2"),
        ("AWS_ENDPOINT", "http://127.0.0.1:9"),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
    ];
    let ran = init(&dead).refused(1, &["cold tier", "s3://bucket/p"]);
    assert!(!ran.err.contains("hunter2"), "{}", ran.err);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_cold_tier_belongs_to_one_volume() {
    let scene = Scene::new();
    let url = format!("file://{}", scene.cold.display());
    let other = scene.dir.path().join("other");
    scene
        .firn(&["init", other.to_str().unwrap(), "--hot-capacity", "1GiB", "--cold", &url])
        .refused(1, &["belongs to volume", "already"]);
    assert!(!other.exists());
    replace_in_config(&scene, "uuid = \"", "uuid = \"00000000-0000-4000-8000-000000000000\" #");
    let ran = scene.mount();
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("belongs to volume"), "{}", ran.err);
}

#[test]
fn a_cold_tier_that_is_gone_is_said_at_the_mount() {
    let scene = Scene::new();
    fs::rename(&scene.cold, scene.dir.path().join("elsewhere")).unwrap();
    scene.mount().refused(1, &["mounting", "cold tier"]);
    assert!(!scene.is_mounted());
    assert!(!scene.volume.join("control.sock").exists());
    fs::rename(scene.dir.path().join("elsewhere"), &scene.cold).unwrap();
    scene.mount().done();
    scene.umount_done();
    // Only the mountpoint of its disk is there.
    fs::rename(&scene.cold, scene.dir.path().join("elsewhere")).unwrap();
    fs::create_dir(&scene.cold).unwrap();
    scene.mount().refused(1, &["cold tier", "volume.json", "mount the filesystem"]);
    fs::remove_dir(&scene.cold).unwrap();
    fs::rename(scene.dir.path().join("elsewhere"), &scene.cold).unwrap();
    scene.mount().done();
    scene.umount_done();
}

#[test]
fn a_second_mount_is_told_who_has_the_volume() {
    let scene = Scene::mounted();
    let second = scene.dir.path().join("second");
    fs::create_dir(&second).unwrap();
    let pid = scene.pid().to_string();
    let ran = scene
        .firn(&["mount", scene.vol(), second.to_str().unwrap()])
        .refused(1, &["already mounted at", scene.mnt(), &format!("by process {pid} on ")]);
    assert!(ran.err.contains(&format!("firn umount {}", scene.mnt())), "{}", ran.err);
    scene.firn(&["check", scene.vol()]).refused(1, &["already mounted at"]);
    let other = Scene::new();
    other
        .firn(&["mount", other.vol(), scene.mnt()])
        .refused(1, &["mountpoint", "is mounted there"]);
    scene.umount_done();
}

#[test]
fn mountpoints_that_cannot_be_used() {
    let scene = Scene::new();
    let at = |name: &str| scene.dir.path().join(name).to_str().unwrap().to_owned();
    File::create(scene.dir.path().join("file")).unwrap();
    let refused = |mountpoint: &str, says: &str| {
        scene.firn(&["mount", scene.vol(), mountpoint]).refused(1, &["mountpoint", says]);
    };
    refused(&at("missing"), "does not exist");
    refused(&at("file"), "is no directory");
    refused(scene.vol(), "the volume's own directory");
    refused(&at("vol/hot"), "the volume's own");
    refused(scene.dir.path().to_str().unwrap(), "would hide the volume's own");
    refused(scene.cold.to_str().unwrap(), "cold directory");
    refused("/proc", "is mounted there");
    assert_eq!(fs::read_to_string(scene.volume.join("lock")).unwrap(), "");
}

#[test]
fn what_is_no_volume() {
    let scene = Scene::new();
    let dir = scene.dir.path().to_str().unwrap();
    for verb in ["mount", "check", "status", "sync"] {
        let mut args = vec![verb, dir];
        if verb == "mount" {
            args.push(scene.mnt());
        }
        scene.firn(&args).refused(1, &["is no Firn volume"]);
    }
    scene.firn(&["sync", scene.vol()]).refused(1, &["is not mounted"]);
    scene.firn(&["explain", scene.vol()]).refused(1, &["on no mounted Firn volume"]);
    scene.firn(&["umount", scene.mnt()]).refused(1, &["unmounting", "nothing is mounted there"]);
    scene.firn(&["umount", "/proc"]).refused(1, &["is a mount of type proc"]);
}

#[test]
fn a_typo_in_the_configuration_is_named_with_its_line() {
    let scene = Scene::new();
    append_to_config(&scene, "hot_capcity = \"1GiB\"");
    let lines = fs::read_to_string(scene.volume.join("firn.toml")).unwrap().lines().count();
    let says = format!("firn.toml line {lines}: unknown field `hot_capcity`");
    scene.mount().refused(1, &["mounting", &says]);
    scene.firn(&["status", scene.vol()]).refused(1, &[&says]);
    assert!(!scene.is_mounted());
}

#[test]
fn a_volume_of_a_newer_format_is_refused() {
    let scene = Scene::new();
    replace_in_config(&scene, "format = 1", "format = 3");
    scene.mount().refused(1, &["format version 3, this program knows up to 2"]);
    scene.firn(&["check", scene.vol()]).refused(1, &["format version 3"]);
}

#[test]
fn a_hot_directory_of_nobody_is_taken_for_a_disk_that_is_not_mounted() {
    let scene = Scene::new();
    fs::rename(scene.volume.join("hot"), scene.dir.path().join("away")).unwrap();
    fs::create_dir(scene.volume.join("hot")).unwrap();
    scene.mount().refused(1, &["hot directory", "does not hold this volume's data"]);
}

#[test]
fn bad_mount_options_are_wrong_usage() {
    let scene = Scene::new();
    for options in ["cache=sideways", "frobnicate", "threads=zero"] {
        scene
            .firn(&["mount", scene.vol(), scene.mnt(), "-o", options])
            .refused(2, &["mount options"]);
    }
    assert!(!scene.is_mounted());
}

#[test]
fn a_mount_in_use_is_not_taken_away() {
    let scene = Scene::mounted();
    let held = File::create(scene.mountpoint.join("held")).unwrap();
    let ran = scene.umount().refused(1, &["unmounting", scene.mnt(), "are open"]);
    assert!(ran.err.contains("fuser -vm"), "{}", ran.err);
    assert!(scene.is_mounted());
    drop(held);
    scene.umount_done();
}

#[test]
fn a_dead_mount_of_its_own_is_replaced() {
    let scene = Scene::mounted();
    fs::write(scene.mountpoint.join("file"), "x").unwrap();
    scene.firn(&["sync", scene.mnt()]).done();
    // What the kernel has cached of the root answers stat(2) for a while after the daemon's death.
    fs::metadata(&scene.mountpoint).unwrap();
    scene.signal("-KILL");
    assert!(scene.is_mounted());
    fs::read_dir(&scene.mountpoint).unwrap_err();
    let status = scene.firn(&["status"]).done().out;
    assert!(status.contains("no answer"), "{status}");
    scene.mount().done();
    assert_eq!(fs::read_to_string(scene.mountpoint.join("file")).unwrap(), "x");
    scene.umount_done();
}

#[test]
fn a_dead_mount_of_another_volume_is_left_alone() {
    let scene = Scene::mounted();
    scene.signal("-KILL");
    let other = Scene::new();
    other
        .firn(&["mount", other.vol(), scene.mnt()])
        .refused(1, &["is the dead mount of", scene.vol()]);
    let ran = scene.umount();
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("the daemon had died"), "{}", ran.err);
    assert!(!scene.is_mounted());
}

#[test]
fn an_unmount_without_its_cold_tier_ends_with_a_warning() {
    let scene = Scene::new();
    replace_in_config(&scene, "umount_deadline = \"1m\"", "umount_deadline = \"1s\"");
    scene.mount().done();
    fs::rename(&scene.cold, scene.dir.path().join("elsewhere")).unwrap();
    // Something that no directory can be made over.
    fs::write(&scene.cold, "gone").unwrap();
    fs::write(scene.mountpoint.join("file"), vec![9_u8; 100_000]).unwrap();
    let ran = scene.umount();
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("safe in the hot tier"), "{}", ran.err);
    fs::remove_file(&scene.cold).unwrap();
    fs::rename(scene.dir.path().join("elsewhere"), &scene.cold).unwrap();
    scene.mount().done();
    assert_eq!(fs::read(scene.mountpoint.join("file")).unwrap(), vec![9_u8; 100_000]);
    scene.umount_done();
}

/// Passes bytes on until it is told to hang.
struct Line {
    address: std::net::SocketAddr,
    hangs: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl Line {
    fn to(server: std::net::SocketAddr) -> Self {
        use std::io::{Read, Write};
        use std::sync::atomic::{AtomicBool, Ordering};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let hangs = std::sync::Arc::new(AtomicBool::new(false));
        let silent = std::sync::Arc::clone(&hangs);
        let pass = move |mut from: std::net::TcpStream, mut to: std::net::TcpStream| {
            let silent = std::sync::Arc::clone(&silent);
            std::thread::spawn(move || {
                let mut buffer = [0; 16 << 10];
                while let Ok(len @ 1..) = from.read(&mut buffer) {
                    while silent.load(Ordering::Relaxed) {
                        std::thread::sleep(std::time::Duration::from_millis(50));
                    }
                    if to.write_all(&buffer[..len]).is_err() {
                        break;
                    }
                }
                let _ = to.shutdown(std::net::Shutdown::Write);
            });
        };
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = std::net::TcpStream::connect(server) else { continue };
                pass(client.try_clone().unwrap(), server.try_clone().unwrap());
                pass(server, client);
            }
        });
        Self { address, hangs }
    }
}

#[test]
fn an_unmount_ends_when_the_store_stops_answering() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("s3/bucket")).unwrap();
    let server = firn_tests::Server::start(&dir.path().join("s3")).unwrap();
    let line = Line::to(server.address());
    let (vol, mnt) = (dir.path().join("vol"), dir.path().join("mnt"));
    let (vol, mnt) = (vol.to_str().unwrap(), mnt.to_str().unwrap());
    fs::create_dir(mnt).unwrap();
    let firn = |args: &[&str]| {
        let mut command = command(args);
        command.envs(firn_tests::variables(line.address));
        Ran::from(&command.output().unwrap())
    };
    firn(&["init", vol, "--hot-capacity", "1GiB", "--cold", "s3://bucket/p"]).done();
    let toml = dir.path().join("vol/firn.toml");
    let text = fs::read_to_string(&toml).unwrap();
    let quick = text.replace("umount_deadline = \"1m\"", "umount_deadline = \"1s\"");
    fs::write(&toml, quick).unwrap();
    firn(&["mount", vol, mnt]).done();
    fs::write(dir.path().join("mnt/file"), vec![9_u8; 100_000]).unwrap();
    line.hangs.store(true, std::sync::atomic::Ordering::Relaxed);
    let began = SystemClock.instant();
    let ran = firn(&["umount", mnt]);
    let took = SystemClock.instant() - began;
    line.hangs.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("safe in the hot tier"), "{}", ran.err);
    assert!(took < std::time::Duration::from_secs(8), "a second and a little: {took:?}");
    firn(&["mount", vol, mnt]).done();
    assert_eq!(fs::read(dir.path().join("mnt/file")).unwrap(), vec![9_u8; 100_000]);
    assert_eq!(firn(&["umount", mnt]).code, 0);
}

#[test]
fn damage_is_found_named_and_exit_three() {
    let scene = Scene::new();
    replace_in_config(&scene, "copy_ahead = true", "copy_ahead = false");
    scene.mount().done();
    fs::write(scene.mountpoint.join("victim"), vec![11_u8; 400_000]).unwrap();
    scene.umount_done();
    for dir in [scene.volume.join("hot/segments"), scene.cold.join("segments")] {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            let len = bytes.len();
            bytes[64..len * 3 / 4].fill(0);
            fs::write(&path, bytes).unwrap();
        }
    }
    let ran = scene.firn(&["check", "--data", "--json", scene.vol()]);
    assert_eq!(ran.code, 3, "{}{}", ran.out, ran.err);
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["clean"], false);
    assert!(ran.out.contains("/victim"), "{}", ran.out);
}

#[test]
fn a_torn_block_that_nothing_refers_to_is_no_damage() {
    let scene = Scene::new();
    replace_in_config(&scene, "copy_ahead = true", "copy_ahead = false");
    scene.mount().done();
    let written = |name: &str, len: usize| {
        let bytes: Vec<u8> = noise(len, len as u64);
        fs::write(scene.mountpoint.join(name), &bytes).unwrap();
        scene.firn(&["sync", scene.mnt()]).done();
        bytes
    };
    written("needed", 3 << 20);
    let bytes = written("unneeded", 100_000);
    written("behind", 200_000);
    fs::remove_file(scene.mountpoint.join("unneeded")).unwrap();
    scene.firn(&["sync", scene.mnt()]).done();
    // Before the segment is sealed, and has parity that would tell of the damage by itself.
    scene.signal("-KILL");
    scene.umount_done();
    let mut torn = 0;
    for entry in fs::read_dir(scene.volume.join("hot/segments")).unwrap() {
        let path = entry.unwrap().path();
        let mut stored = fs::read(&path).unwrap();
        if let Some(at) = stored.windows(64).position(|found| found == &bytes[..64]) {
            stored[at..at + 64].fill(0);
            fs::write(&path, stored).unwrap();
            torn += 1;
        }
    }
    assert_eq!(torn, 1, "the block lies in one segment");
    scene.mount().done();
    scene.umount_done();
    let ran = scene.firn(&["check", "--data", "--json", scene.vol()]).done();
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&report["clean"], &report["unneeded"]), (&true.into(), &torn.into()), "{report}");
}

#[test]
fn a_read_only_hot_disk_is_said_with_a_way_out() {
    let scene = Scene::new();
    // A read-only bind mount of the volume's own hot directory; root ignores permission bits.
    let hot = scene.volume.join("hot");
    let bind = |args: &[&str]| Command::new("mount").args(args).arg(&hot).status().unwrap();
    if !bind(&["--bind", hot.to_str().unwrap()]).success() {
        eprintln!("NOTE: no bind mounts here: a read-only hot directory is not tested");
        return;
    }
    assert!(bind(&["-o", "remount,bind,ro"]).success());
    let ran = scene.mount();
    let undone = Command::new("umount").arg(&hot).status().unwrap();
    assert!(undone.success());
    ran.refused(1, &["hot directory", "ead-only"]);
    assert!(!scene.is_mounted());
}

#[test]
fn a_symlink_to_the_mountpoint_will_do() {
    let scene = Scene::new();
    let link = scene.dir.path().join("link");
    symlink(&scene.mountpoint, &link).unwrap();
    scene.firn(&["mount", scene.vol(), link.to_str().unwrap()]).done();
    assert!(scene.is_mounted());
    let ran = scene.firn(&["umount", link.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(!scene.is_mounted());
}
