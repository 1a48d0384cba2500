//! `firn verify`: a tree on a mount or in a snapshot against an ordinary directory.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::digests::forge;
use crate::mounted::Scene;
use crate::run::Ran;

/// A tree with what trees have.
fn plant(root: &Path) {
    fs::create_dir_all(root.join("dir/deep")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::write(root.join("dir/deep/long"), vec![5_u8; 9_000_000]).unwrap();
    fs::write(root.join("dir/small"), "content").unwrap();
    fs::write(root.join("nothing"), "").unwrap();
    symlink("dir/small", root.join("link")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    let made = Command::new("mkfifo").arg(root.join("pipe")).status().unwrap();
    assert!(made.success());
}

/// A mounted volume with a tree in `data`, and the same tree in an ordinary directory.
fn planted() -> (Scene, PathBuf) {
    let scene = Scene::mounted();
    let other = scene.dir.path().join("other");
    for root in [&scene.mountpoint.join("data"), &other] {
        plant(root);
    }
    (scene, other)
}

fn verify(scene: &Scene, path: &str, against: &Path, json: bool) -> Ran {
    let mut args = vec!["verify", "--against", against.to_str().unwrap()];
    if json {
        args.push("--json");
    }
    args.push(path);
    scene.firn(&args)
}

fn report(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{}{}", ran.out, ran.err))
}

#[test]
fn equal_trees_are_equal_and_so_is_a_snapshot_that_outlives_changes() {
    let (scene, other) = planted();
    let root = scene.mountpoint.join("data");
    let data = root.to_str().unwrap();
    let ran = verify(&scene, data, &other, false).done();
    assert!(ran.out.ends_with(" 4 directories: equal\n"), "{}", ran.out);
    scene.firn(&["snapshot", "create", &format!("{}@s", scene.mnt())]).done();
    fs::write(root.join("dir/small"), "changed").unwrap();
    assert_eq!(verify(&scene, data, &other, false).code, 3);
    let snapshot = scene.mountpoint.join(".firn/snapshot/s/data");
    let ran = verify(&scene, snapshot.to_str().unwrap(), &other, true).done();
    let found = report(&ran);
    assert_eq!((&found["equal"], &found["files"]), (&true.into(), &3.into()), "{found}");
    assert_eq!((&found["bytes"], &found["found"]), (&9_000_007.into(), &0.into()), "{found}");
    fs::create_dir(scene.dir.path().join("whole")).unwrap();
    fs::rename(&other, scene.dir.path().join("whole/data")).unwrap();
    let whole = scene.dir.path().join("whole");
    verify(&scene, &format!("{}@s", scene.mnt()), &whole, false).done();
    let file = root.join("dir/deep/long");
    let same = whole.join("data/dir/deep/long");
    verify(&scene, file.to_str().unwrap(), &same, false).done();
    scene.umount_done();
}

#[test]
fn each_difference_is_told_once_in_the_order_of_names() {
    let (scene, other) = planted();
    let root = scene.mountpoint.join("data");
    fs::write(root.join("dir/deep/long"), vec![6_u8; 9_000_000]).unwrap();
    fs::write(root.join("dir/small"), "longer content").unwrap();
    fs::create_dir(root.join("extra\ndir")).unwrap();
    fs::write(root.join("extra\ndir/below"), "not told").unwrap();
    fs::write(other.join("gone"), "").unwrap();
    fs::remove_file(root.join("link")).unwrap();
    symlink("elsewhere", root.join("link")).unwrap();
    fs::remove_file(root.join("nothing")).unwrap();
    fs::create_dir(root.join("nothing")).unwrap();
    let ran = verify(&scene, root.to_str().unwrap(), &other, false);
    assert_eq!((ran.code, ran.err.as_str()), (3, ""), "{}", ran.out);
    let lines: Vec<_> = ran.out.lines().map(|line| line.split(": ").collect::<Vec<_>>()).collect();
    let told: Vec<_> = lines.iter().map(|line| (line[0], line[1])).collect();
    let expected = [
        ("content", "dir/deep/long"),
        ("size", "dir/small"),
        ("extra", "extra\\0012dir"),
        ("missing", "gone"),
        ("target", "link"),
        ("kind", "nothing"),
    ];
    assert_eq!(told[..6], expected, "{}", ran.out);
    assert!(ran.out.ends_with(": 6 differences\n"), "{}", ran.out);
    let ran = verify(&scene, root.to_str().unwrap(), &other, true);
    let found = report(&ran);
    assert_eq!((ran.code, &found["found"], &found["equal"]), (3, &6.into(), &false.into()));
    let differences = found["differences"].as_array().unwrap();
    let whats: Vec<_> = differences.iter().map(|one| one["what"].as_str().unwrap()).collect();
    assert_eq!(whats, ["content", "size", "extra", "missing", "target", "kind"]);
    assert_eq!(differences[2]["path"], "extra\ndir");
    assert_eq!(differences[5]["detail"], "directory, there file");
    scene.umount_done();
}

#[test]
fn a_digest_that_is_not_that_of_the_bytes_is_told() {
    let scene = Scene::mounted();
    let other = scene.dir.path().join("other");
    fs::create_dir(&other).unwrap();
    for root in [&scene.mountpoint, &other] {
        fs::write(root.join("file"), "content").unwrap();
    }
    scene.umount_done();
    forge(&scene.volume, b"file");
    scene.mount().done();
    let ran = verify(&scene, scene.mnt(), &other, false);
    assert_eq!(ran.code, 3, "{}{}", ran.out, ran.err);
    assert!(ran.out.starts_with("digest: file: user.firn.blake3 is "), "{}", ran.out);
    scene.umount_done();
}

#[test]
fn what_does_not_exist_is_an_error_with_a_way_out() {
    let (scene, other) = planted();
    let gone = scene.dir.path().join("gone");
    verify(&scene, scene.mnt(), &gone, false).refused(1, &["gone", "No such file"]);
    verify(&scene, gone.to_str().unwrap(), &other, false).refused(1, &["gone", "No such file"]);
    let snapshot = format!("{}@gone", scene.mnt());
    verify(&scene, &snapshot, &other, false).refused(1, &["there is no snapshot", &snapshot]);
    assert_eq!(scene.firn(&["verify", scene.mnt()]).code, 2, "against what?");
    scene.umount_done();
}
