//! What reads of cold data bring back.

use std::fs;
use std::process::Command;

use super::{BY_HAND, Scene, content, eventually};
use crate::harness::succeed;

const LEN: usize = 1 << 20;

#[test]
fn the_second_access_brings_a_file_back() {
    let scene = Scene::new();
    scene.hold(200, 190, BY_HAND);
    for name in ["twice", "once"] {
        scene.write(name, LEN);
    }
    scene.send_away(scene.root());
    for name in ["twice", "once"] {
        assert_eq!(scene.state(name), "cold");
        assert!(scene.read(name) == content(name, LEN));
    }
    // Whoever comes back to what he has read makes another access, without a pause.
    eventually("the second access brings it back", || {
        assert!(scene.read("twice") == content("twice", LEN));
        scene.is_hot("twice")
    });
    assert_eq!(scene.state("once"), "cold");
    assert!(scene.jobs().iter().all(|job| job["kind"] == "promote"), "{:?}", scene.jobs());
}

#[test]
fn who_passes_over_very_many_files_is_served_and_brings_nothing_back() {
    let mut scene = Scene::new();
    let recall = "[recall]\npromote_on = 1\nscan_files = 16\n";
    scene.hold(200, 190, &format!("{BY_HAND}{recall}"));
    let names: Vec<String> = (0..120).map(|number| format!("many/{number:03}")).collect();
    // Each is used once: who reads files that are in use is no scan.
    fs::create_dir(scene.volume.path("many")).unwrap();
    for name in &names {
        fs::write(scene.volume.path(name), content(name, 64 << 10)).unwrap();
    }
    scene.write("single", LEN);
    scene.send_away(scene.root());
    // The kernel remembers nothing then.
    scene.volume.umount();
    scene.volume.mount();
    let mut command = Command::new("md5sum");
    command.args(names.iter().map(|name| scene.volume.path(name)));
    let sums = succeed(&mut command);
    assert_eq!(sums.lines().count(), names.len());
    eventually("what is read by itself comes back", || {
        assert!(scene.read("single") == content("single", LEN));
        scene.is_hot("single")
    });
    eventually("no job waits", || scene.jobs().iter().all(|job| job["state"] == "done"));
    // The first ones were read before it was clear what goes on, and share blocks with others.
    for name in &names[64..] {
        assert_eq!(scene.state(name), "cold", "{name}");
    }
    assert!(scene.read("many/119") == content("many/119", 64 << 10));
}
