//! `firn tier find`, `du` and lists for `stage`, on a mounted volume.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::Stdio;

use serde_json::Value;

use crate::mounted::Scene;
use crate::run::{Ran, command};

/// Bytes that do not compress.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

/// `a/old` and `a/two` lie in both tiers, `b/cold` in cold, `b/new` in hot.
fn laid_out() -> Scene {
    let scene = Scene::mounted();
    for dir in ["a", "b"] {
        fs::create_dir(scene.mountpoint.join(dir)).unwrap();
    }
    for (name, len) in [("a/old", 300_000), ("a/two", 100_000), ("b/cold", 200_000)] {
        fs::write(scene.mountpoint.join(name), noise(len, len as u64)).unwrap();
        // Each in blocks of its own.
        scene.firn(&["sync", scene.mnt()]).done();
    }
    let path = |name: &str| scene.mountpoint.join(name).to_str().unwrap().to_owned();
    scene.firn(&["tier", "archive", "-r", scene.mnt()]).done();
    scene.firn(&["tier", "release", &path("b/cold")]).done();
    fs::write(path("b/new"), noise(150_000, 4)).unwrap();
    fs::hard_link(path("b/new"), path("b/again")).unwrap();
    scene.firn(&["sync", scene.mnt()]).done();
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    fs::File::options().write(true).open(path("a/old")).unwrap().set_modified(old).unwrap();
    scene
}

impl Scene {
    fn found(&self, conditions: &[&str]) -> Vec<String> {
        let args = [&["tier", "find", "--json"], conditions, &[self.mnt()]].concat();
        let found: Value = serde_json::from_str(&self.firn(&args).done().out).unwrap();
        let mut paths: Vec<String> = found["files"]
            .as_array()
            .unwrap()
            .iter()
            .map(|file| file["path"].as_str().unwrap()[self.mnt().len() + 1..].to_owned())
            .collect();
        paths.sort();
        paths
    }
}

#[test]
fn files_are_found_by_where_they_lie_and_brought_back_from_a_list() {
    let scene = laid_out();
    assert_eq!(scene.found(&["--state", "cold"]), ["b/cold"]);
    assert_eq!(scene.found(&["--state", "dual,cold"]), ["a/old", "a/two", "b/cold"]);
    assert_eq!(scene.found(&["--state", "dual", "--min-size", "200KiB"]), ["a/old"]);
    assert_eq!(scene.found(&["--max-size", "100000B"]), ["a/two"]);
    assert_eq!(scene.found(&["--older", "365d"]), ["a/old"]);
    assert_eq!(scene.found(&["--newer", "1d", "--state", "dual"]), ["a/two"]);
    assert_eq!(scene.firn(&["tier", "find", "--state", "warm", scene.mnt()]).code, 2);
    let table = scene.firn(&["tier", "find", "--state", "cold", scene.mnt()]).done().out;
    assert!(table.contains("cold") && table.contains("/b/cold"), "{table}");
    // What is found goes on to be staged, also where a name holds a line break.
    let odd = scene.mountpoint.join("b/odd\nname");
    fs::write(&odd, noise(100, 9)).unwrap();
    let list = scene.firn(&["tier", "find", "-0", "--state", "cold", scene.mnt()]).done().out;
    let list = format!("{list}{}\0{}/b/gone\0/etc/passwd\0", odd.display(), scene.mnt());
    let mut child = command(&["tier", "stage", "--wait", "-0", "--from-list", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(list.as_bytes()).unwrap();
    let ran = Ran::from(&child.wait_with_output().unwrap());
    assert_eq!(ran.code, 1, "two paths of the list are not there: {}", ran.err);
    assert!(ran.err.contains("/b/gone"), "{}", ran.err);
    assert!(ran.err.contains("staging: /etc/passwd is on no mounted Firn volume"), "{}", ran.err);
    assert!(ran.out.starts_with("2 files: "), "{}", ran.out);
    assert_eq!(scene.found(&["--state", "cold"]), Vec::<String>::new());
    scene.umount_done();
}

#[test]
fn a_staging_that_fails_takes_its_pins_along() {
    let scene = laid_out();
    let path = |name: &str| scene.mountpoint.join(name).to_str().unwrap().to_owned();
    scene.firn(&["tier", "pin", "cold", &path("b")]).done();
    // What is to come back is not there.
    let away = scene.dir.path().join("away");
    fs::rename(scene.cold.join("segments"), &away).unwrap();
    let ran = scene.firn(&[
        "tier",
        "stage",
        "--wait",
        "-r",
        "--pin-for",
        "7d",
        &path("b"),
        &path("a/old"),
        &path("b"),
    ]);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    let pins = scene.firn(&["tier", "pins", "--json", scene.mnt()]).done().out;
    let pins: Value = serde_json::from_str(&pins).unwrap();
    let pins: Vec<_> =
        pins["pins"].as_array().unwrap().iter().map(|p| (&p["path"], &p["tier"])).collect();
    assert_eq!(pins, [(&Value::from(path("b")), &Value::from("cold"))]);
    fs::rename(&away, scene.cold.join("segments")).unwrap();
    scene.umount_done();
}

#[test]
fn what_has_left_again_when_a_staging_ends_is_not_called_brought_back() {
    let (scene, other) = (laid_out(), laid_out());
    let path = |scene: &Scene| scene.mountpoint.join("b/cold").to_str().unwrap().to_owned();
    let mut child = command(&["tier", "stage", "--wait", "--from-list", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut list = child.stdin.take().unwrap();
    // Another volume is asked apart, so that what is on the first is brought back before it.
    list.write_all(format!("{}\n{}\n", path(&scene), path(&other)).as_bytes()).unwrap();
    while !scene.found(&["--state", "cold"]).is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    scene.firn(&["tier", "release", &path(&scene)]).done();
    drop(list);
    let ran = Ran::from(&child.wait_with_output().unwrap());
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("of 1 files are not there any more"), "{}", ran.out);
    assert!(ran.err.contains("1 of 2 files are not wholly in hot in the end"), "{}", ran.err);
    assert!(ran.err.contains("hint: "), "{}", ran.err);
    scene.umount_done();
    other.umount_done();
}

#[test]
fn a_staging_without_room_says_what_is_in_the_way() {
    let scene = laid_out();
    let path = |name: &str| scene.mountpoint.join(name).to_str().unwrap().to_owned();
    fs::write(path("big"), noise(30 << 20, 5)).unwrap();
    scene.firn(&["tier", "pin", "hot", &path("a")]).done();
    scene.firn(&["tier", "archive", &path("big")]).done();
    scene.firn(&["tier", "release", &path("big")]).done();
    scene.umount_done();
    let marks = "[tier.hot]\nhigh = \"20MiB\"\nlow = \"10MiB\"\ncopy_ahead = \"5MiB\"\n";
    fs::write(scene.volume.join("policy.toml"), marks).unwrap();
    scene.mount().done();
    let ran = scene
        .firn(&["tier", "stage", "--wait", &path("big")])
        .refused(1, &["no room", "high mark", "20.0 MiB of 2.00 GiB", "firn tier pins"]);
    let pinned = ran.err.split(" are used, ").nth(1).unwrap();
    // Noise of 400,000 bytes, and a little for frames.
    assert!(pinned.starts_with("39") && pinned.contains(" KiB of them pinned"), "{pinned}");
    scene.umount_done();
}

#[test]
fn a_directory_says_how_much_of_it_lies_where() {
    let scene = laid_out();
    let du = |args: &[&str]| {
        let args = [&["tier", "du", "--json"], args, &[scene.mnt()]].concat();
        let du: Value = serde_json::from_str(&scene.firn(&args).done().out).unwrap();
        du["directories"].as_array().unwrap().clone()
    };
    let of = |line: &Value| {
        ["files", "size_bytes", "hot_bytes", "dual_bytes", "cold_bytes", "lost_bytes"]
            .map(|field| line[field].as_u64().unwrap())
    };
    let lines = du(&[]);
    assert_eq!(lines.len(), 3, "{lines:?}");
    let by_name = |name: &str| {
        let path = format!("{}{name}", scene.mnt());
        lines.iter().find(|line| line["path"] == path.as_str()).unwrap()
    };
    assert_eq!(of(by_name("/a")), [2, 400_000, 0, 400_000, 0, 0]);
    // A file with two names counts once.
    assert_eq!(of(by_name("/b")), [2, 350_000, 150_000, 0, 200_000, 0]);
    assert_eq!(of(by_name("")), [4, 750_000, 150_000, 400_000, 200_000, 0]);
    assert_eq!(lines[2]["path"], scene.mnt(), "sums come behind what they are of");
    assert_eq!(du(&["-s"]).len(), 1);
    let text = scene.firn(&["tier", "du", scene.mnt()]).done().out;
    assert!(text.contains("COLD ONLY") && text.contains("/b"), "{text}");
    let file = scene.mountpoint.join("b/cold");
    let one = scene.firn(&["tier", "du", "--json", file.to_str().unwrap()]).done().out;
    let one: Value = serde_json::from_str(&one).unwrap();
    assert_eq!(of(&one["directories"][0]), [1, 200_000, 0, 0, 200_000, 0]);
    scene.umount_done();
}

#[test]
fn what_makes_no_sense_is_wrong_usage() {
    let scene = Scene::new();
    for args in [
        &["tier", "stage"][..],
        &["tier", "stage", "--from-list", "x", "y"],
        &["tier", "stage", "-0", "y"],
        &["tier", "cancel"],
        &["tier", "cancel", "1", "--all"],
        &["tier", "pin", "warm", "x"],
        &["tier", "pin", "hot"],
        &["tier", "pin", "cold", "--for", "7d", "x"],
        &["tier", "du", "-s", "-d", "2", "x"],
        &["policy", "replay", "--trace", "x", "--volume", "y"],
    ] {
        assert_eq!(scene.firn(args).code, 2, "{args:?}");
    }
    for args in
        [&["tier", "jobs"][..], &["policy", "plan"], &["model", "status"], &["tier", "trace"]]
            .into_iter()
            .chain([&["policy", "replay", "--volume"][..]])
    {
        let args = [args, &[scene.vol()]].concat();
        scene.firn(&args).refused(1, &["is not mounted"]);
    }
    scene.firn(&["tier", "pin", "hot", scene.vol()]).refused(1, &["is on no mounted Firn volume"]);
    let odd = scene.firn(&["tier", "ls", "/no/such\n\u{1b}[2Jfile"]);
    assert_eq!(odd.code, 1);
    assert!(odd.err.contains("/no/such\\0012\\0033[2Jfile"), "{}", odd.err);
}

#[test]
fn a_name_that_is_not_utf_8_comes_back_whole_from_json_and_from_find() {
    let scene = Scene::mounted();
    let [plain, odd] = [&b"plain"[..], b"odd\xff\n\xc3"].map(|name| {
        let path = scene.mountpoint.join(OsStr::from_bytes(name));
        fs::write(&path, "x").unwrap();
        path.into_os_string().into_vec()
    });
    let listed = scene.firn(&["tier", "ls", "--json", scene.mnt()]).done().out;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let files = listed["files"].as_array().unwrap();
    let line = |is: &dyn Fn(&Value) -> bool| files.iter().find(|file| is(&file["path"])).unwrap();
    let hex: String = odd.iter().map(|byte| format!("{byte:02x}")).collect();
    let lossy = String::from_utf8_lossy(&odd);
    assert_eq!(line(&|path| *path == *lossy)["path_bytes"], hex, "{listed}");
    let known = String::from_utf8(plain).unwrap();
    assert!(line(&|path| *path == *known).get("path_bytes").is_none(), "{listed}");
    let text = scene.firn(&["tier", "ls", scene.mnt()]).done().out;
    assert!(text.contains("odd\\0377\\0012\\0303"), "{text}");
    let found = command(&["tier", "find", "-0", scene.mnt()]).output().unwrap();
    assert!(found.stdout.split(|byte| *byte == 0).any(|path| path == odd), "{found:?}");
    let mut ask = command(&["tier", "stage", "--json"]);
    let refused = ask.arg(scene.mountpoint.join(OsStr::from_bytes(b"no\xff"))).output().unwrap();
    let refused = crate::run::Ran::from(&refused);
    assert!(refused.code == 1 && refused.err.contains("no\\0377"), "{}", refused.err);
    scene.umount_done();
}
