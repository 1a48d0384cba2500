//! `firn verify`: a tree on a mount or in a snapshot against an ordinary directory, and a snapshot
//! against its digest.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use firn_mount::namespace::{
    Batch, Durability, LocalStore, NamespaceReader, NamespaceStore, Space, StoreOptions,
};
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

/// The line of a snapshot of the mount's root in a listing, once it has its digest.
fn sealed(scene: &Scene, name: &str) -> Value {
    for _ in 0..600 {
        let out = scene.firn(&["snapshot", "list", "-q", "--json", scene.mnt()]).done().out;
        let list: Value = serde_json::from_str(&out).unwrap();
        let lines = list["snapshots"].as_array().unwrap();
        let line = lines.iter().find(|line| line["name"] == name).unwrap();
        if !line["digest"].is_null() {
            return line.clone();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("no digest of {name}");
}

/// Gives a file another digest behind everybody's back, wherever the old one stands.
fn alter(volume: &Path, digest: &blake3::Hash) {
    let store = LocalStore::open(&volume.join("namespace"), StoreOptions::default()).unwrap();
    let mut batch = Batch::new();
    for space in [Space::Head, Space::History] {
        for (key, value) in store.page(space, &[], None, usize::MAX).unwrap().items {
            let at = value.windows(32).position(|bytes| bytes == digest.as_bytes());
            if let Some(at) = at {
                let mut value = value.to_vec();
                value[at] ^= 1;
                batch.put(space, &key, value);
            }
        }
    }
    assert!(!batch.is_empty());
    store.commit(batch, Durability::Durable).unwrap();
}

#[test]
fn a_snapshot_is_verified_by_its_digest() {
    let scene = Scene::soon_at_rest();
    fs::create_dir(scene.mountpoint.join("dir")).unwrap();
    fs::write(scene.mountpoint.join("dir/file"), "content").unwrap();
    symlink("file", scene.mountpoint.join("dir/link")).unwrap();
    let snapshots = ["a", "b", "c"].map(|name| format!("{}@{name}", scene.mnt()));
    for snapshot in &snapshots {
        scene.firn(&["snapshot", "create", snapshot]).done();
    }
    fs::write(scene.mountpoint.join("dir/file"), "changed").unwrap();
    let lines = ["a", "b", "c"].map(|name| sealed(&scene, name));
    assert!(lines[0]["root"] == lines[1]["root"] && lines[0]["digest"] != lines[1]["digest"]);
    scene.firn(&["snapshot", "destroy", &snapshots[1]]).done();
    let ran = scene.firn(&["verify", "--data", &snapshots[2]]).done();
    let digest = lines[2]["digest"].as_str().unwrap();
    let expected = format!(
        "{}: verified: 4 inodes, 1 files read, chain of 2 snapshots, 1 destroyed\n",
        snapshots[2]
    );
    assert!(ran.out.starts_with(&expected), "{}", ran.out);
    assert!(ran.out.ends_with(&format!("\ndigest {digest}\n")), "{}", ran.out);
    let found = report(&scene.firn(&["verify", "--json", &snapshots[0]]).done());
    assert_eq!((&found["verified"], &found["digest"]), (&true.into(), &lines[0]["digest"]));
    let ran = scene.firn(&["verify", scene.mnt()]);
    assert_eq!(ran.code, 2, "{}", ran.err);
    let ran = scene.firn(&["verify", &format!("{}@none", scene.mnt())]);
    assert!(ran.code == 1 && ran.err.contains("no such snapshot"), "{}", ran.err);
    scene.umount_done();
    let volume = scene.volume.to_str().unwrap();
    let offline = format!("{volume}:/@c");
    let ran = scene.firn(&["verify", "--data", &offline]).done();
    assert!(ran.out.ends_with(&format!("\ndigest {digest}\n")), "{}", ran.out);
    alter(&scene.volume, &blake3::hash(b"content"));
    let ran = scene.firn(&["verify", "--data", "--json", &offline]);
    assert_eq!((ran.code, ran.err.as_str()), (3, ""), "{}", ran.out);
    let found = report(&ran);
    let flaws = found["flaws"].as_array().unwrap();
    let text = |one: &Value, field: &str| one[field].as_str().unwrap().to_owned();
    let flaws: Vec<_> =
        flaws.iter().map(|one| text(one, "what") + ":" + &text(one, "path")).collect();
    assert_eq!(flaws, ["content:dir/file", "tree:"], "{found}");
    assert_eq!((&found["verified"], &found["found"]), (&false.into(), &2.into()));
    scene.firn(&["check", volume]).done();
}

#[test]
fn two_snapshots_are_verified_and_compared() {
    let scene = Scene::soon_at_rest();
    let file = scene.mountpoint.join("file");
    fs::write(&file, "content").unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| format!("{}@{name}", scene.mnt()));
    for (snapshot, content) in [(&a, "content"), (&b, "other"), (&c, "more")] {
        scene.firn(&["snapshot", "create", snapshot]).done();
        fs::write(&file, content).unwrap();
    }
    ["a", "b", "c"].iter().for_each(|name| drop(sealed(&scene, name)));
    let ran = scene.firn(&["verify", "--data", &a, &a]).done();
    assert!(ran.out.starts_with(&format!("{a}: verified: ")), "{}", ran.out);
    assert!(ran.out.ends_with(&format!("\n{a} and {a}: the same content\n")), "{}", ran.out);
    let ran = scene.firn(&["verify", &a, &c]);
    assert_eq!((ran.code, ran.err.as_str()), (3, ""), "{}", ran.out);
    let end = ran.out.lines().last().unwrap();
    assert!(
        end.starts_with(&format!("{a} and {c}: different content: `firn snapshot diff`")),
        "{end}"
    );
    let ran = scene.firn(&["verify", "--json", &c, &a]);
    let found = report(&ran);
    assert_eq!((ran.code, &found["equal"]), (3, &false.into()), "{found}");
    assert_eq!(
        (&found["snapshots"][0]["snapshot"], &found["snapshots"][1]["snapshot"]),
        (&c.into(), &a.clone().into())
    );
    assert_eq!(found["snapshots"][1]["verified"], true, "{found}");
    scene.firn(&["verify", &a, scene.mnt()]).refused(2, &["names no snapshot"]);
    scene.firn(&["verify", &a, &format!("{}@none", scene.mnt())]).refused(1, &["no such snapshot"]);
    assert_eq!(scene.firn(&["verify", "--against", scene.mnt(), &a, &b]).code, 2);
    scene.umount_done();
    // One that is not what it was is told as that, whatever the other is.
    let [a, b] = ["a", "b"].map(|name| format!("{}:/@{name}", scene.volume.display()));
    let ran = scene.firn(&["verify", "--json", &a, &a]).done();
    assert_eq!(report(&ran)["equal"], true, "{}", ran.out);
    alter(&scene.volume, &blake3::hash(b"content"));
    let ran = scene.firn(&["verify", &a, &b]);
    assert_eq!((ran.code, ran.err.as_str()), (3, ""), "{}", ran.out);
    assert!(ran.out.starts_with("tree: .: its root was "), "{}", ran.out);
}
