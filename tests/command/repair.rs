//! A namespace whose records are damaged: what a check says, what a repair makes of it, and that
//! what is there afterwards can be mounted.

use std::fs;
use std::os::unix::fs::MetadataExt;

use firn_mount::namespace::key::{HeadKey, Kind};
use firn_mount::namespace::{
    Batch, Durability, LocalStore, NamespaceReader, NamespaceStore, Space, StoreOptions,
};
use firn_mount::types::Ino;
use serde_json::Value;

use crate::mounted::Scene;

impl Scene {
    fn report(&self, args: &[&str]) -> (i32, Value) {
        let mut all = vec!["check", "--json", self.vol()];
        all.extend(args);
        let ran = self.firn(&all);
        let report = serde_json::from_str(&ran.out);
        (ran.code, report.unwrap_or_else(|_| panic!("{}", ran.err)))
    }

    /// Removes head records.
    fn lose_records(&self, is_lost: impl Fn(&HeadKey<'_>, &[u8]) -> bool) -> usize {
        let path = self.volume.join("namespace");
        let store = LocalStore::open(&path, StoreOptions::default()).unwrap();
        let mut batch = Batch::new();
        for (key, value) in store.page(Space::Head, &[], None, usize::MAX).unwrap().items {
            if is_lost(&HeadKey::decode(&key).unwrap(), &value) {
                batch.delete(Space::Head, &key);
            }
        }
        let lost = batch.len();
        store.commit(batch, Durability::Durable).unwrap();
        store.rest().unwrap();
        lost
    }
}

#[test]
fn a_damaged_namespace_is_repaired_and_mounted() {
    let scene = Scene::mounted();
    let dir = scene.mountpoint.join("dir");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("nameless"), "content").unwrap();
    fs::write(dir.join("lost"), [b'c'; 24]).unwrap();
    fs::write(dir.join("other"), "unharmed").unwrap();
    let lost = fs::metadata(dir.join("lost")).unwrap().ino();
    scene.umount_done();
    assert_eq!(scene.report(&[]).0, 0);
    let is_name = |value: &[u8]| value.windows(8).any(|window| window == b"nameless");
    assert_eq!(scene.lose_records(|head, value| head.kind == Kind::Dentry && is_name(value)), 1);
    let lost = (Ino(lost), Kind::Extent);
    assert_eq!(scene.lose_records(|head, _| (head.object, head.kind) == lost), 1);
    let (code, found) = scene.report(&[]);
    assert_eq!((code, &found["kinds"]["link_count"]["remaining"]), (3, &1.into()), "{found}");
    // Content that is gone remains gone; all else is repaired.
    let (code, report) = scene.report(&["--repair"]);
    assert_eq!((code, &report["found"]), (3, &1.into()), "{report}");
    let damage = &report["damage"][0];
    assert_eq!(damage["paths"][0], "/dir/lost", "{report}");
    assert!(damage["what"].as_str().unwrap().contains("bytes 0-23"), "{report}");
    assert_eq!(report["lost_found"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(report["kinds"]["link_count"]["remaining"], 0, "{report}");
    let kept = std::path::Path::new(report["kept"].as_str().unwrap()).to_owned();
    assert!(fs::read_to_string(kept.join("records.jsonl")).unwrap().lines().count() > 0);
    assert!(kept.join("report.json").is_file());
    // A second one finds nothing to do.
    let (code, again) = scene.report(&["--repair"]);
    assert_eq!((code, &again["kept"]), (3, &Value::Null), "{again}");
    assert_eq!(again["repaired"].as_array().unwrap().len(), 0, "{again}");
    scene.mount().done();
    let lost_found = scene.mountpoint.join("lost+found");
    let names: Vec<_> = fs::read_dir(&lost_found).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    assert_eq!(fs::read_to_string(&names[0]).unwrap(), "content");
    assert_eq!(fs::read_to_string(dir.join("other")).unwrap(), "unharmed");
    let error = fs::read(dir.join("lost")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO), "never zeros");
    fs::remove_file(dir.join("lost")).unwrap();
    scene.umount_done();
    assert_eq!(scene.report(&[]).0, 0, "with the file the damage is gone");
}

#[test]
fn blocks_of_lost_content_are_held_until_what_was_kept_is_removed() {
    let scene = Scene::mounted();
    let file = scene.mountpoint.join("large");
    fs::write(&file, [b'c'; 300 << 10]).unwrap();
    let ino = Ino(fs::metadata(&file).unwrap().ino());
    scene.umount_done();
    assert_eq!(scene.lose_records(|head, _| (head.object, head.kind) == (ino, Kind::Extent)), 1);
    let has_hold = || {
        let path = scene.volume.join("namespace");
        let store = LocalStore::open(&path, StoreOptions::default()).unwrap();
        let found = store.page(Space::Backrefs, &[], None, usize::MAX).unwrap().items;
        store.rest().unwrap();
        found.iter().any(|(key, _)| key[8..].iter().all(|byte| *byte == 0))
    };
    let (_, report) = scene.report(&["--repair"]);
    let kept = std::path::Path::new(report["kept"].as_str().unwrap()).to_owned();
    assert!(has_hold(), "{report}");
    scene.report(&["--repair"]);
    assert!(has_hold(), "what was kept is still there");
    fs::remove_dir_all(kept).unwrap();
    scene.report(&[]);
    assert!(has_hold(), "a check gives nothing up");
    let (code, report) = scene.report(&["--repair"]);
    assert_eq!((code, has_hold()), (3, false), "{report}");
    assert_eq!(report["kept"], Value::Null);
}

#[test]
fn a_namespace_without_its_database_is_named_with_what_to_do() {
    let scene = Scene::mounted();
    fs::write(scene.mountpoint.join("file"), "content").unwrap();
    scene.umount_done();
    let path = scene.volume.join("namespace");
    let aside = scene.dir.path().join("aside");
    let check = || {
        for args in [&["check", scene.vol()][..], &["check", "--repair", scene.vol()]] {
            let ran = scene.firn(args).refused(1, &["namespace"]);
            assert!(ran.err.contains("firn recover"), "{}", ran.err);
        }
        let mount = scene.mount();
        assert_eq!(mount.code, 1, "{}", mount.err);
        assert!(mount.err.contains("firn recover"), "{}", mount.err);
        assert!(!scene.is_mounted());
    };
    fs::rename(&path, &aside).unwrap();
    check();
    // Emptied, and emptied still after three refusals.
    fs::create_dir(&path).unwrap();
    check();
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "nothing is made anew");
    fs::remove_dir(&path).unwrap();
    fs::rename(&aside, &path).unwrap();
    fs::rename(path.join("version"), &aside).unwrap();
    check();
    fs::rename(&aside, path.join("version")).unwrap();
    scene.mount().done();
    assert_eq!(fs::read_to_string(scene.mountpoint.join("file")).unwrap(), "content");
    scene.umount_done();
}

#[test]
fn status_says_that_damage_keeps_space_from_coming_back() {
    let scene = Scene::mounted();
    let file = scene.mountpoint.join("file");
    fs::write(&file, vec![b'a'; 100_000]).unwrap();
    let snapshot = format!("{}@s", scene.mountpoint.display());
    scene.firn(&["snapshot", "create", &snapshot]).done();
    fs::write(&file, vec![b'b'; 100_000]).unwrap();
    let changed = (Ino(fs::metadata(&file).unwrap().ino()), Kind::Extent);
    scene.umount_done();
    assert_eq!(scene.lose_records(|head, _| (head.object, head.kind) == changed), 1);
    scene.mount().done();
    let is_said = || {
        let warnings = scene.status()["warnings"].as_array().unwrap().clone();
        let mut texts = warnings.iter().filter_map(Value::as_str);
        texts.any(|text| text.contains("keeps 1 branches") && text.contains("check --repair"))
    };
    assert!(!is_said(), "nothing is to be cleared away yet");
    scene.firn(&["snapshot", "destroy", &snapshot]).done();
    let mut looks = 0..300;
    while !is_said() {
        assert!(looks.next().is_some(), "nothing is said");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    scene.umount_done();
}
