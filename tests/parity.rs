//! Where the parity of data lies: inside segments, as objects, and across stores, by a policy that
//! has all three.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Volume, noise, now};

const PATIENCE: Duration = Duration::from_secs(60);
const LEN: usize = 3_000_000;
const STORES: usize = 5;

const ALL_THREE: &str = r#"
[[class]]
name = "apart"
path = ["/apart/**"]
parity = "object"

[[class]]
name = "stores"
path = ["/stores/**"]
parity = "stores"
"#;

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn json(volume: &Volume, args: &[&str]) -> Value {
    serde_json::from_str(&volume.run(args)).unwrap()
}

fn root(volume: &Volume) -> &str {
    volume.mountpoint.to_str().unwrap()
}

/// Three stores for data and two for parity.
fn spread() -> Volume {
    let scratch = tempfile::tempdir().unwrap();
    let url = |at| format!("file://{}", scratch.path().join(format!("store{at}")).display());
    let urls = (0..STORES).flat_map(|at| ["--cold".to_owned(), url(at)]);
    let init: Vec<String> = urls.chain(["--cold-parity".to_owned(), "2".to_owned()]).collect();
    let init: Vec<&str> = init.iter().map(String::as_str).collect();
    Volume::in_scratch(scratch, &init)
}

/// Has the volume follow a policy, and waits until it does.
fn follow(volume: &Volume, policy: &str, probe: &str, parity: &str) {
    let file = volume.scratch.path().join("new-policy.toml");
    fs::write(&file, policy).unwrap();
    volume.run(&["policy", "apply", file.to_str().unwrap(), root(volume)]);
    fs::create_dir_all(volume.path(probe)).unwrap();
    let path = volume.path(probe).join("probe");
    fs::write(&path, b"probe").unwrap();
    let explain = ["policy", "explain", "--json", path.to_str().unwrap()];
    eventually("the policy holds", || json(volume, &explain)["parity"] == parity);
}

fn write(volume: &Volume, dirs: [&str; 3]) {
    for (seed, dir) in dirs.into_iter().enumerate() {
        fs::create_dir_all(volume.path(dir)).unwrap();
        fs::write(volume.path(dir).join("data"), noise(seed as u64 + 1, LEN)).unwrap();
    }
    volume.run(&["sync", root(volume)]);
}

fn assert_same(volume: &Volume, dirs: [&str; 3]) {
    for (seed, dir) in dirs.into_iter().enumerate() {
        let read = fs::read(volume.path(dir).join("data")).unwrap();
        assert!(read == noise(seed as u64 + 1, LEN), "{dir}");
    }
}

fn files(dir: &Path, end: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|own| own == end)).collect()
}

const DIRS: [&str; 3] = ["plain", "apart", "stores"];

#[test]
fn a_policy_with_all_three_places_is_followed_survives_losses_and_tells_what_it_costs() {
    let mut volume = spread();
    follow(&volume, ALL_THREE, "stores", "stores");
    write(&volume, DIRS);
    volume.run(&["tier", "archive", "-r", root(&volume)]);
    let segments = volume.dir.join("hot/segments");
    let sidecars = files(&segments, "par");
    assert_eq!(sidecars.len(), 1, "{sidecars:?}");
    for at in 0..STORES {
        let store = volume.scratch.path().join(format!("store{at}"));
        assert_eq!(files(&store.join("parity"), "par").len(), 1);
        assert_eq!(files(&store.join("segments"), "seg").len(), 3);
    }
    let status = json(&volume, &["status", "--json", root(&volume)]);
    let parity = &status["data"]["parity"];
    let bytes = |place: &str, what: &str| parity[place][what].as_u64().unwrap();
    for place in ["inside", "object", "stores"] {
        assert!(bytes(place, "data_bytes") > LEN as u64, "{parity}");
    }
    let own = fs::metadata(&sidecars[0]).unwrap().len();
    assert_eq!(bytes("object", "parity_bytes"), own);
    assert!(bytes("inside", "parity_bytes") > LEN as u64 / 60, "{parity}");
    let cold = status["cold"]["used_bytes"].as_u64().unwrap();
    assert_eq!(bytes("stores", "parity_bytes"), cold * 2 / 3);
    let text = volume.run(&["status", root(&volume)]);
    assert!(text.contains("as objects") && text.contains("across stores"), "{text}");

    // A sidecar is lost while nobody looks: a check says so, and the next mount makes it anew.
    volume.umount();
    let whole = fs::read(&sidecars[0]).unwrap();
    fs::remove_file(&sidecars[0]).unwrap();
    let check = volume.firn().arg("check").arg(&volume.dir).output().unwrap();
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(!check.status.success() && said.contains("sidecar"), "{said}");
    volume.mount();
    eventually("it is made anew", || fs::read(&sidecars[0]).is_ok_and(|now| now == whole));
    volume.run(&["scrub", "start", "--cold-data", "--wait", root(&volume)]);

    // Everything is in cold only, and two stores are gone.
    volume.run(&["tier", "release", "-r", root(&volume)]);
    volume.umount();
    for at in [1, 3] {
        fs::remove_dir_all(volume.scratch.path().join(format!("store{at}"))).unwrap();
    }
    volume.mount();
    assert_same(&volume, DIRS);
}

#[test]
fn parity_across_stores_is_refused_where_there_is_one_and_lies_inside_until_then() {
    let mut volume = Volume::mounted();
    let file = volume.scratch.path().join("new-policy.toml");
    fs::write(&file, ALL_THREE).unwrap();
    let apply = ["policy", "apply", file.to_str().unwrap(), root(&volume)];
    let refused = volume.firn().args(apply).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "{said}");
    assert!(said.contains("class `stores`") && said.contains("several stores"), "{said}");
    assert!(!volume.dir.join("policy.toml").exists());
    // Somebody puts it there all the same.
    fs::write(volume.dir.join("policy.toml"), ALL_THREE).unwrap();
    let warns = || {
        let status = json(&volume, &["status", "--json", root(&volume)]);
        status["warnings"].to_string().contains("spread over several stores")
    };
    eventually("status warns", warns);
    write(&volume, DIRS);
    volume.run(&["tier", "archive", "-r", root(&volume)]);
    let status = json(&volume, &["status", "--json", root(&volume)]);
    let parity = &status["data"]["parity"];
    assert_eq!(parity["stores"]["data_bytes"], 0);
    assert!(parity["inside"]["data_bytes"].as_u64().unwrap() > 2 * LEN as u64);
    // A rename moves nothing that was written; what is written later follows the new place.
    fs::rename(volume.path("apart/data"), volume.path("plain/moved")).unwrap();
    assert_eq!(json(&volume, &["status", "--json", root(&volume)])["data"]["parity"], *parity);
    fs::rename(volume.path("plain/moved"), volume.path("apart/data")).unwrap();
    let (cold, hot) = (volume.scratch.path().join("cold"), volume.dir.join("hot/segments"));
    assert_eq!((files(&cold.join("parity"), "par").len(), files(&hot, "par").len()), (1, 1));

    // From the cold tier alone, with damage to the segment whose parity lies apart.
    volume.umount();
    let sidecar = files(&cold.join("parity"), "par").remove(0);
    let segment = cold.join("segments").join(sidecar.file_stem().unwrap()).with_extension("seg");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[1_000_000..1_010_000].fill(0x77);
    fs::write(&segment, bytes).unwrap();
    let again = volume.scratch.path().join("again");
    let url = format!("file://{}", cold.display());
    volume.run(&["recover", &url, again.to_str().unwrap()]);
    fs::remove_dir_all(&volume.dir).unwrap();
    let mut recovered = Volume::existing(again);
    assert_same(&recovered, DIRS);
    recovered.umount();
}
