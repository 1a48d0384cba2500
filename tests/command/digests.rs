//! Digests of whole files: where they are shown, and who compares them with content.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use firn_mount::namespace::{
    Durability, Inode, LocalStore, Namespace, NamespaceOptions, StoreOptions,
};
use firn_mount::types::Ino;
use firn_tiering::SystemClock;
use serde_json::Value;

use crate::bad_days::replace_in_config;
use crate::mounted::Scene;

impl Scene {
    /// A mounted volume that is soon at rest.
    pub fn soon_at_rest() -> Self {
        let scene = Self::new();
        replace_in_config(&scene, "flush_interval = \"5s\"", "flush_interval = \"1s\"");
        scene.mount().done();
        scene
    }

    fn explained(&self, name: &str) -> Value {
        let path = self.mountpoint.join(name);
        let out = self.firn(&["explain", "--json", path.to_str().unwrap()]).done().out;
        serde_json::from_str(&out).unwrap()
    }

    fn wait_for_digest(&self, name: &str, content: &[u8]) {
        let has = || !self.explained(name)["blake3"].is_null();
        let came = (0..600).any(|_| {
            std::thread::sleep(Duration::from_millis(100));
            has()
        });
        assert!(came, "no digest of {name}");
        let hex = blake3::hash(content).to_hex().to_string();
        assert_eq!(self.explained(name)["blake3"], *hex);
        let path = self.mountpoint.join(name);
        let text = self.firn(&["explain", path.to_str().unwrap()]).done().out;
        assert!(text.contains(&format!("\nblake3 {hex}\n")), "{text}");
    }
}

/// Gives a file a digest that is not that of its content, as no program can.
pub fn forge(volume: &Path, name: &[u8]) {
    let store = LocalStore::open(&volume.join("namespace"), StoreOptions::default()).unwrap();
    let options = NamespaceOptions::default();
    let names = Namespace::open(Arc::new(store), Arc::new(SystemClock), options).unwrap();
    let inode = names.lookup(Ino::ROOT, name).unwrap();
    let guard = names.lock(&[inode.ino]);
    let mut txn = names.begin();
    let digest = Some(blake3::hash(b"forged"));
    txn.put_inode(Inode { digest, ..Inode::clone(&inode) }).unwrap();
    txn.commit(Durability::Durable).unwrap();
    drop(guard);
    names.close().unwrap();
}

#[test]
fn a_check_compares_digests_with_content_and_names_the_file() {
    let scene = Scene::soon_at_rest();
    let content = vec![8_u8; 1_500_000];
    fs::write(scene.mountpoint.join("file"), &content).unwrap();
    fs::write(scene.mountpoint.join("other"), "content").unwrap();
    scene.wait_for_digest("file", &content);
    scene.wait_for_digest("other", b"content");
    scene.firn(&["snapshot", "create", &format!("{}@s", scene.mnt())]).done();
    scene.umount_done();
    let check = |args: &[&str]| {
        let mut all = vec!["check", "--json", scene.vol()];
        all.extend(args);
        let ran = scene.firn(&all);
        (ran.code, serde_json::from_str::<Value>(&ran.out).unwrap())
    };
    let (code, report) = check(&["--data"]);
    assert_eq!((code, &report["digests"]), (0, &2.into()), "{report}");
    assert_eq!(check(&[]).1["digests"], 0);
    forge(&scene.volume, b"file");
    let (code, report) = check(&["--data"]);
    assert_eq!((code, &report["digests"], &report["found"]), (3, &3.into(), &1.into()), "{report}");
    let damage = &report["damage"][0];
    assert_eq!(damage["paths"][0], "/file");
    let what = damage["what"].as_str().unwrap();
    assert!(what.contains(&blake3::hash(b"forged").to_hex().to_string()), "{what}");
    assert_eq!(check(&[]).0, 0, "without --data no content is read");
}

#[test]
fn a_restart_goes_on_with_files_that_wait() {
    let scene = Scene::mounted();
    fs::write(scene.mountpoint.join("file"), "content").unwrap();
    scene.firn(&["sync", scene.mnt()]).done();
    scene.signal("-KILL");
    scene.umount_done();
    replace_in_config(&scene, "flush_interval = \"5s\"", "flush_interval = \"1s\"");
    scene.mount().done();
    scene.wait_for_digest("file", b"content");
    scene.umount_done();
}
