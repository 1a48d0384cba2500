//! What is told of files, of their use and of the classifier, and what outlives the mount.

use std::fs;

use firn_tiering::replay::{Op, TraceReader};
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use serde_json::Value;

use super::{BY_HAND, Scene, xattr};

fn heat(scene: &Scene, name: &str) -> f64 {
    xattr(&scene.volume.path(name), "user.firn.heat").unwrap().parse().unwrap()
}

#[test]
fn heat_outlives_the_mount_and_nobody_writes_it() {
    let mut scene = Scene::new();
    for name in ["warm", "cool"] {
        scene.write(name, 100_000);
    }
    for _ in 0..20 {
        scene.read("warm");
    }
    let before = heat(&scene, "warm");
    assert!(before > heat(&scene, "cool"), "{before}");
    scene.volume.umount();
    scene.volume.mount();
    let (after, cool) = (heat(&scene, "warm"), heat(&scene, "cool"));
    assert!(after > before / 2.0 && after > cool, "{before}, then {after} beside {cool}");
    let path = scene.volume.path("warm");
    let set = |name: &str, value: &str| {
        rustix::fs::setxattr(&path, name, value.as_bytes(), XattrFlags::empty())
    };
    for name in ["user.firn.heat", "user.firn.state", "user.firn.policy", "user.firn.p_reuse"] {
        assert_eq!(set(name, "3"), Err(Errno::OPNOTSUPP), "{name}");
    }
    assert_eq!(set("user.firn.pin", "warm"), Err(Errno::INVAL));
    assert_eq!(xattr(&path, "user.firn.pin"), Err(Errno::NODATA));
    set("user.firn.pin", "hot").unwrap();
    assert_eq!(xattr(&path, "user.firn.pin").unwrap(), "hot");
}

#[test]
fn what_is_to_become_of_a_file_is_explained() {
    let mut scene = Scene::new();
    for name in ["dir/inside", "own", "ruled.dat", "plain"] {
        scene.write(name, 100_000);
    }
    let rule = "[[rule]]\nname = \"data stays\"\next = [\"dat\"]\naction = \"pin-hot\"\n";
    scene.hold(200, 190, &format!("{BY_HAND}{rule}"));
    scene.volume.run(&["tier", "pin", "hot", &scene.arg("dir")]);
    scene.volume.run(&["tier", "pin", "cold", &scene.arg("own")]);
    scene.volume.umount();
    scene.volume.mount();
    let explain =
        |name: &str| -> Value { scene.json(&["policy", "explain", "--json", &scene.arg(name)]) };
    let told = explain("dir/inside");
    assert_eq!(
        (&told["pin"]["source"], &told["pin"]["from"]),
        (&"inherited".into(), &"/dir".into())
    );
    assert_eq!((&told["pin"]["tier"], &told["action"]), (&"hot".into(), &"pin-hot".into()));
    let told = explain("own");
    assert_eq!((&told["pin"]["source"], &told["pin"]["from"]), (&"explicit".into(), &Value::Null));
    assert_eq!((&told["pin"]["tier"], &told["action"]), (&"cold".into(), &"pin-cold".into()));
    let told = explain("ruled.dat");
    assert_eq!((&told["rule"], &told["action"]), (&1.into(), &"pin-hot".into()));
    assert!(told["why"].as_str().unwrap().contains("data stays"), "{told}");
    let shown = xattr(&scene.volume.path("ruled.dat"), "user.firn.policy").unwrap();
    assert!(shown.contains("data stays"), "{shown}");
    let told = explain("plain");
    assert_eq!((&told["rule"], &told["action"]), (&Value::Null, &"may-go".into()));
    let text = scene.volume.run(&["policy", "explain", &scene.arg("dir/inside")]);
    assert!(text.contains("inherited") && text.contains("/dir"), "{text}");
    let pins = scene.volume.run(&["tier", "pins", scene.root()]);
    assert_eq!(pins.lines().count(), 3, "{pins}");
    scene.volume.run(&["tier", "unpin", "-r", scene.root()]);
    assert_eq!(explain("dir/inside")["pin"], Value::Null);
    assert_eq!(scene.volume.run(&["tier", "pins", scene.root()]), "");
}

#[test]
fn a_trace_tells_uses_without_names() {
    let scene = Scene::new();
    for name in ["secret-name", "other"] {
        scene.write(name, 100_000);
    }
    for _ in 0..5 {
        scene.read("secret-name");
    }
    let file = scene.volume.scratch.path().join("trace");
    scene.volume.run(&["tier", "trace", scene.root(), "-o", file.to_str().unwrap()]);
    let text = fs::read_to_string(&file).unwrap();
    assert!(!text.contains("secret") && text.starts_with("firn-trace 1\n"), "{text}");
    let requests: Vec<_> = TraceReader::new(text.as_bytes()).unwrap().map(Result::unwrap).collect();
    let read = requests.iter().filter(|one| one.op == Op::Read && one.size == 100_000).count();
    assert!(read >= 5, "{text}");
    let shown = scene.volume.run(&["tier", "trace", scene.root()]);
    assert!(shown.starts_with(&text), "the same again, and what came since");
    let replayed = scene.json(&["policy", "replay", "--json", "--volume", scene.root()]);
    assert!(replayed["accesses"].as_u64().unwrap() >= requests.len() as u64, "{replayed}");
    let rows: Vec<_> = replayed["rows"].as_array().unwrap().iter().map(|r| &r["name"]).collect();
    assert_eq!(rows, ["policy", "lru", "s3-fifo", "optimum"]);
    let from_file = ["policy", "replay", "--json", "--trace", file.to_str().unwrap()];
    assert_eq!(scene.json(&from_file)["accesses"].as_u64().unwrap(), requests.len() as u64);
}

#[test]
fn the_classifier_says_that_it_learns_and_stays_off_when_told() {
    let mut scene = Scene::new();
    let ask = |scene: &Scene, verb: &str| scene.json(&["model", verb, "--json", scene.root()]);
    let told = ask(&scene, "status");
    assert_eq!((&told["state"], &told["version"]), (&"learning".into(), &Value::Null), "{told}");
    assert_eq!(scene.status()["model"]["state"], "learning");
    for verb in ["train", "rollback"] {
        let mut command = scene.volume.firn();
        let output = command.args(["model", verb, scene.root()]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{verb}");
    }
    assert_eq!(ask(&scene, "off")["state"], "off");
    scene.volume.umount();
    scene.volume.mount();
    assert_eq!(ask(&scene, "status")["state"], "off");
    assert_eq!(ask(&scene, "on")["state"], "learning");
}
