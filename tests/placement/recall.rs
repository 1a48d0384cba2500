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

#[test]
fn what_a_pin_or_a_rule_leaves_in_cold_is_read_there_however_often() {
    let scene = Scene::new();
    let rule = "[[class]]\nname = \"raw\"\next = [\"raw\"]\n\
                [[rule]]\nname = \"alone\"\nclass = \"raw\"\naction = \"none\"\n";
    scene.hold(200, 190, &format!("{BY_HAND}{rule}"));
    let kept = ["away/pinned", "alone.raw"];
    for name in kept.iter().chain(&["other"]) {
        scene.write(name, LEN);
    }
    scene.volume.run(&["tier", "pin", "cold", &scene.arg("away")]);
    scene.send_away(scene.root());
    // Another's return shows that reads bring back what they may.
    eventually("the other is back", || {
        for name in kept.iter().chain(&["other"]) {
            assert!(scene.read(name) == content(name, LEN));
        }
        scene.is_hot("other")
    });
    for name in kept {
        assert!(scene.read(name) == content(name, LEN));
        assert_eq!(scene.state(name), "cold", "{name}");
    }
    for job in scene.jobs() {
        assert!(job["what"].as_str().unwrap().ends_with("/other"), "{job}");
    }
}

#[test]
fn what_would_push_all_else_out_of_hot_is_read_in_cold() {
    let scene = Scene::new();
    let large = 48 << 20;
    scene.write("large", large);
    scene.write("other", LEN);
    scene.send_away(scene.root());
    // Beside what fills hot to its mark.
    scene.write("filling", 60 << 20);
    scene.hold(80, 70, BY_HAND);
    eventually("the other is back", || {
        for (name, len) in [("large", large), ("other", LEN)] {
            assert!(scene.read(name) == content(name, len));
        }
        scene.is_hot("other")
    });
    // The part that was read twice before it was clear that all of it is read may be back.
    assert!(!scene.is_hot("large"), "{}", scene.state("large"));
}
