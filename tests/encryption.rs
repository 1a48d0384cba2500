//! A volume that was made with `--encrypt`: what the store sees of it, who can read it, and how its
//! key is changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::harness::{Volume, noise};

/// A name and a text that nothing else holds.
const NAME: &str = "embargoed-results-of-run-42";
const KEY: &str = "8f3b2c1d0e9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c3d2e1f0a9b8c7d6e5f4a3b";

/// Bytes that are stored as they are, since they do not shrink.
fn content() -> Vec<u8> {
    noise(42, 3 << 20)
}

struct Scene {
    volume: Volume,
    outside: tempfile::TempDir,
}

impl Scene {
    fn new(init: &[&str]) -> Self {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("key"), KEY).unwrap();
        std::fs::write(outside.path().join("phrase"), "nobody would guess that\n").unwrap();
        std::fs::create_dir(outside.path().join("cold")).unwrap();
        let url = format!("file://{}", outside.path().join("cold").display());
        let mut all = vec!["--cold", &url];
        all.extend(init);
        let key_file = outside.path().join("key").display().to_string();
        if init.contains(&"--encrypt") {
            all.extend(["--key-file", &key_file]);
        }
        let volume = Volume::with(&all, &[]);
        Self { volume, outside }
    }

    fn path(&self, name: &str) -> String {
        self.outside.path().join(name).display().to_string()
    }

    fn url(&self) -> String {
        format!("file://{}", self.path("cold"))
    }

    fn write(&self) {
        std::fs::write(self.volume.path(NAME), content()).unwrap();
        std::fs::write(self.volume.path("small"), NAME).unwrap();
    }

    fn read(&self) {
        assert!(std::fs::read(self.volume.path(NAME)).unwrap() == content());
        assert_eq!(std::fs::read_to_string(self.volume.path("small")).unwrap(), NAME);
    }

    fn evict(&self) {
        let root = self.volume.mountpoint.to_str().unwrap();
        self.volume.run(&["tier", "archive", "-r", root]);
        self.volume.run(&["tier", "release", "-r", root]);
    }

    /// Every object in the store.
    fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        let root = self.outside.path().join("cold");
        let mut objects = BTreeMap::new();
        let mut dirs = vec![root.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else {
                    let key = path.strip_prefix(&root).unwrap().display().to_string();
                    objects.insert(key, std::fs::read(&path).unwrap());
                }
            }
        }
        objects
    }

    /// How the command failed, on one line.
    fn refused(&self, args: &[&str]) -> String {
        let output = self.volume.firn().args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("hint: ") && !said.contains(KEY), "{said}");
        said
    }
}

/// Which objects hold `needle`.
fn holding(objects: &BTreeMap<String, Vec<u8>>, needle: &[u8]) -> Vec<String> {
    let holds = |bytes: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    objects.iter().filter(|(_, bytes)| holds(bytes)).map(|(key, _)| key.clone()).collect()
}

/// What is not encrypted: whose place it is, who owns it, and the wrapped key.
fn is_in_the_clear(key: &str) -> bool {
    key == "volume.json" || key.starts_with("owner/") || key.starts_with("keys/")
}

#[test]
fn the_store_sees_nothing_of_what_users_wrote() {
    let needle = &content()[1_000_000..1_000_032];
    let mut open = Scene::new(&[]);
    open.write();
    open.volume.umount();
    assert!(!holding(&open.objects(), needle).is_empty(), "it would be found");

    let mut scene = Scene::new(&["--encrypt"]);
    scene.write();
    scene.evict();
    scene.read();
    scene.volume.umount();
    let objects = scene.objects();
    for needle in [needle, NAME.as_bytes(), KEY.as_bytes(), b"FIRNSEG", b"nspc", b"nsmf"] {
        assert_eq!(holding(&objects, needle), Vec::<String>::new());
    }
    let sealed: Vec<_> = objects.iter().filter(|(key, _)| !is_in_the_clear(key)).collect();
    assert!(sealed.len() >= 3, "{sealed:?}");
    let id = &sealed[0].1[4..8];
    for (key, bytes) in &sealed {
        assert!(bytes[0] == 1 && &bytes[4..8] == id, "{key} is not encrypted");
        assert!(key.starts_with("segments/") || key.starts_with("namespace/"), "{key}");
    }
    assert!(!scene.volume.log().contains(KEY));
    for name in ["firn.toml", "key"] {
        let text = std::fs::read(scene.volume.dir.join(name)).unwrap();
        assert!(!text.windows(KEY.len()).any(|window| window == KEY.as_bytes()), "{name}");
    }
    scene.volume.mount();
    scene.read();
}

#[test]
fn the_cold_tier_and_the_key_are_enough_and_neither_alone_is() {
    let mut scene = Scene::new(&["--encrypt"]);
    scene.write();
    scene.volume.umount();
    std::fs::write(scene.path("wrong"), "0".repeat(64)).unwrap();
    let (url, to) = (scene.url(), scene.path("recovered"));
    let (key, wrong) = (scene.path("key"), scene.path("wrong"));
    assert!(scene.refused(&["recover", &url, &to]).contains("it is encrypted"));
    let said = scene.refused(&["recover", &url, &to, "--key-file", &wrong]);
    assert!(said.contains("the key does not open this volume"), "{said}");
    assert!(!Path::new(&to).exists());
    scene.volume.run(&["recover", &url, &to, "--key-file", &key]);
    let mut recovered = Volume::existing(PathBuf::from(&to));
    assert!(std::fs::read(recovered.path(NAME)).unwrap() == content());
    std::fs::write(recovered.path("more"), "more").unwrap();
    recovered.umount();
    let check = recovered.run(&["check", "--data", &to]);
    assert!(!check.contains("damage"), "{check}");
    assert_eq!(holding(&scene.objects(), b"more"), Vec::<String>::new());
}

#[test]
fn a_wrong_key_is_refused_before_anything_is_touched() {
    let mut scene = Scene::new(&["--encrypt"]);
    scene.write();
    scene.volume.umount();
    let before = scene.objects();
    std::fs::write(scene.path("key"), "0".repeat(64)).unwrap();
    let volume = scene.volume.dir.display().to_string();
    let mountpoint = scene.volume.mountpoint.display().to_string();
    for args in [&["mount", &volume, &mountpoint][..], &["check", &volume]] {
        let said = scene.refused(args);
        assert!(said.contains("the key does not open this volume"), "{said}");
    }
    assert!(scene.objects() == before);
    // Whoever takes the key out of the configuration has no plaintext stored.
    let config = scene.volume.dir.join("firn.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let without: String =
        text.lines().filter(|line| !line.starts_with("key =")).collect::<Vec<_>>().join("\n");
    std::fs::write(&config, &without).unwrap();
    let said = scene.refused(&["mount", &volume, &mountpoint]);
    assert!(said.contains("key: is missing, and the volume is encrypted"), "{said}");
    std::fs::write(&config, without.replace("format = 2", "format = 1")).unwrap();
    let said = scene.refused(&["mount", &volume, &mountpoint]);
    assert!(said.contains("is encrypted, and the volume is not encrypted"), "{said}");
    assert!(scene.objects() == before);
}

#[test]
fn the_status_says_with_which_key_and_never_the_key() {
    let status = |scene: &Scene, place: &Path| -> serde_json::Value {
        let place = place.to_str().unwrap();
        let text = scene.volume.run(&["status", place]);
        let json = scene.volume.run(&["status", "--json", place]);
        assert!(!text.contains(KEY) && !json.contains(KEY), "{text}{json}");
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(text.contains("encrypted"), json["cold"]["encryption"].is_object(), "{text}");
        json["cold"]["encryption"].clone()
    };
    let open = Scene::new(&[]);
    assert!(status(&open, &open.volume.mountpoint).is_null());

    let mut scene = Scene::new(&["--encrypt"]);
    let mounted = status(&scene, &scene.volume.mountpoint);
    scene.volume.umount();
    // Whoever sees the store can tell it from another, and no more.
    let stored = &scene.objects()["keys/0000000000000001"];
    let fingerprint = blake3::hash(stored).to_hex()[..16].to_owned();
    let expected = serde_json::json!({"generation": 1, "fingerprint": fingerprint});
    assert_eq!(mounted, expected);
    assert_eq!(status(&scene, &scene.volume.dir), expected, "nor is the key needed for it");
    let volume = scene.volume.dir.display().to_string();
    let new = scene.path("new");
    std::fs::write(&new, KEY.replace('8', "9")).unwrap();
    scene.volume.run(&["key", "rotate", &volume, "--new-key-file", &new]);
    let rotated = status(&scene, &scene.volume.dir);
    assert_eq!(rotated["generation"], 2, "{rotated}");
    assert_ne!(rotated["fingerprint"], expected["fingerprint"]);
    std::fs::remove_file(scene.volume.dir.join("key")).unwrap();
    let lost = serde_json::json!({"generation": null, "fingerprint": null});
    assert_eq!(status(&scene, &scene.volume.dir), lost);
}

#[test]
fn a_rotated_key_opens_and_the_old_one_does_not_and_no_data_is_written() {
    let mut scene = Scene::new(&["--encrypt"]);
    scene.write();
    scene.volume.umount();
    let volume = scene.volume.dir.display().to_string();
    let data = |scene: &Scene| {
        let mut objects = scene.objects();
        objects.retain(|key, _| !is_in_the_clear(key));
        objects
    };
    let before = data(&scene);
    let command = format!("cat {}", scene.path("phrase"));
    scene.volume.run(&["key", "rotate", &volume, "--new-key-command", &command, "--passphrase"]);
    assert!(data(&scene) == before);
    let keys: Vec<_> = scene.objects().into_keys().filter(|key| key.starts_with("keys/")).collect();
    assert_eq!(keys, ["keys/0000000000000002"]);
    scene.volume.mount();
    scene.read();
    scene.volume.umount();
    let (url, to, old) = (scene.url(), scene.path("recovered"), scene.path("key"));
    let said = scene.refused(&["recover", &url, &to, "--key-file", &old]);
    assert!(said.contains("neither 32 bytes") || said.contains("does not open"), "{said}");
    scene.volume.run(&["recover", &url, &to, "--key-file", &scene.path("phrase")]);
}

#[test]
fn damage_to_ciphertext_is_repaired_like_other_damage() {
    let mut scene = Scene::new(&["--encrypt"]);
    scene.write();
    scene.volume.umount();
    let (key, mut bytes) =
        scene.objects().into_iter().find(|(key, _)| key.starts_with("segments/")).unwrap();
    bytes[700_000] ^= 1;
    let object = scene.outside.path().join("cold").join(&key);
    std::fs::write(&object, &bytes).unwrap();
    // The object is the only copy: its parity helps.
    scene.volume.mount();
    scene.evict();
    scene.read();
    scene.volume.umount();
    std::fs::write(&object, &bytes).unwrap();
    let to = scene.path("recovered");
    scene.volume.run(&["recover", &scene.url(), &to, "--key-file", &scene.path("key")]);
    let mut recovered = Volume::existing(PathBuf::from(&to));
    assert!(std::fs::read(recovered.path(NAME)).unwrap() == content(), "{}", recovered.log());
    recovered.umount();
    let report = recovered.run(&["check", "--data", "--repair", "--json", &to]);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["clean"], true, "{report}");
    assert_ne!(scene.objects()[&key], bytes, "the object was written anew");
}

#[test]
fn a_stream_to_an_object_is_encrypted_or_said_not_to_be() {
    let scene = Scene::new(&["--encrypt"]);
    let root = scene.volume.mountpoint.display().to_string();
    let (data, copy) = (format!("{root}/data"), format!("{root}/copy"));
    scene.volume.run(&["dataset", "create", &data]);
    std::fs::write(format!("{data}/{NAME}"), content()).unwrap();
    let snapshot = format!("{data}@a");
    scene.volume.run(&["snapshot", "create", &snapshot]);
    let needle = &content()[1_000_000..1_000_032];
    let holds = |name: &str| {
        std::fs::read(scene.path(name)).unwrap().windows(32).any(|window| window == needle)
    };
    let url = |name: &str| format!("file://{}", scene.path(name));
    let (open, sealed) = (url("open"), url("sealed"));
    let said = scene.refused(&["snapshot", "send", "--to", &open, &snapshot]);
    assert!(said.contains("the volume is encrypted, and the stream would not be"), "{said}");
    assert!(!Path::new(&scene.path("open")).exists());
    scene.volume.run(&["snapshot", "send", "--plaintext", "--to", &open, &snapshot]);
    assert!(holds("open"), "it would be found");
    let phrase = scene.path("phrase");
    let send = ["snapshot", "send", "--to", &sealed, "--key-file", &phrase, "--passphrase"];
    scene.volume.run(&[&send[..], &[&snapshot]].concat());
    assert!(!holds("sealed"));
    let receive = ["snapshot", "receive", "--from", &sealed, &copy];
    assert!(scene.refused(&receive).contains("the stream is encrypted"));
    let wrong = scene.path("key");
    let said = scene.refused(&[&receive[..], &["--key-file", &wrong]].concat());
    assert!(said.contains("the key does not open this stream"), "{said}");
    assert!(!Path::new(&copy).exists());
    let mut cut = std::fs::read(scene.path("sealed")).unwrap();
    cut.truncate(cut.len() - 1000);
    std::fs::write(scene.path("cut"), cut).unwrap();
    let cut = ["snapshot", "receive", "--from", &url("cut"), &copy, "--key-file", &phrase];
    scene.refused(&cut);
    scene.volume.run(&[&receive[..], &["--key-file", &phrase]].concat());
    assert!(std::fs::read(format!("{copy}/{NAME}")).unwrap() == content());
}
