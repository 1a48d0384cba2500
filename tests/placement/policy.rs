//! Plans, runs and room.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{BY_HAND, Scene, content, eventually};

const MIB: usize = 1 << 20;

#[test]
fn above_the_high_mark_what_nobody_needs_leaves_and_what_is_pinned_stays() {
    let scene = Scene::new();
    let len = 12 * MIB;
    // Whole segments of 64 MiB leave: those that are not needed fill one, with one that is pinned.
    let idle = ["idle0", "idle1", "idle2", "idle3", "idle4"];
    let all =
        ["idle0", "idle1", "pinned", "idle2", "idle3", "idle4", "warm", "away", "kept/inside"];
    for name in all {
        scene.write(name, len);
    }
    for _ in 0..20 {
        assert!(scene.read("warm") == content("warm", len));
    }
    let volume = &scene.volume;
    volume.run(&["tier", "pin", "hot", &scene.arg("pinned"), &scene.arg("kept")]);
    volume.run(&["tier", "pin", "cold", &scene.arg("away")]);
    scene.hold(80, 70, BY_HAND);
    volume.run(&["policy", "run", scene.root()]);
    eventually("there is room", || scene.hot_bytes() <= 80 * MIB as u64);
    eventually("what is pinned to cold is there", || scene.state("away") == "cold");
    for name in ["pinned", "kept/inside", "warm"] {
        assert!(scene.is_hot(name), "{name} is {}", scene.state(name));
    }
    let gone = idle.iter().filter(|name| !scene.is_hot(name)).count();
    assert!(gone >= 3, "{gone} of {idle:?} went");
    for name in all {
        assert!(scene.read(name) == content(name, len), "{name} reads differently");
    }
}

/// The block store itself makes room here, by its own order: a rule binds it as a pin does.
#[test]
fn what_a_rule_keeps_in_hot_stays_when_writers_need_room() {
    let scene = Scene::new();
    let rule = "[[class]]\nname = \"kept\"\npath = [\"/kept/**\"]\n\
                [[rule]]\nname = \"keep\"\nclass = \"kept\"\naction = \"pin-hot\"\n";
    scene.hold(200, 190, &format!("{BY_HAND}{rule}"));
    scene.write("kept/one", 8 * MIB);
    let names: Vec<_> = (0..40).map(|n| format!("much/{n}")).collect();
    for name in &names {
        scene.write(name, 10 * MIB);
    }
    assert!(names.iter().filter(|name| !scene.is_hot(name)).count() > 10);
    assert!(scene.is_hot("kept/one"), "{}", scene.state("kept/one"));
}

/// A job looks again whether it is still wanted, at the same file that was planned with.
#[test]
fn what_a_rule_about_cold_files_brings_back_comes_back() {
    let scene = Scene::new();
    scene.write("wanted", MIB);
    scene.send_away(scene.root());
    let rules = "[[rule]]\nname = \"back\"\nstate = [\"cold\"]\naction = \"promote\"\n\
                 [[rule]]\nname = \"all else\"\naction = \"none\"\n";
    scene.hold(200, 190, &format!("{BY_HAND}{rules}"));
    scene.volume.run(&["policy", "run", scene.root()]);
    eventually("it is back", || scene.is_hot("wanted"));
}

#[test]
fn pins_that_ask_for_more_than_hot_holds_cost_no_write() {
    let mut scene = Scene::new();
    let dir = scene.volume.path("pinned");
    std::fs::create_dir(&dir).unwrap();
    scene.volume.run(&["tier", "pin", "hot", &scene.arg("pinned")]);
    let names: Vec<_> = (0..40).map(|n| format!("pinned/{n}")).collect();
    for name in &names {
        // As `cp` does: nobody asks whether it is durable.
        std::fs::write(scene.volume.path(name), content(name, 10 * MIB)).unwrap();
    }
    scene.volume.run(&["sync", scene.root()]);
    let warnings = scene.status()["warnings"].to_string();
    assert!(warnings.contains("pins ask for more than the hot tier holds"), "{warnings}");
    scene.volume.umount();
    scene.volume.mount();
    for name in &names {
        assert!(scene.read(name) == content(name, 10 * MIB), "{name} reads differently");
    }
}

#[test]
fn what_is_pinned_to_cold_goes_although_there_is_room_and_comes_back_when_pinned_to_hot() {
    let scene = Scene::new();
    for name in ["away/one", "away/kept", "other"] {
        scene.write(name, MIB);
    }
    let volume = &scene.volume;
    volume.run(&["tier", "pin", "cold", &scene.arg("away")]);
    volume.run(&["tier", "pin", "hot", &scene.arg("away/kept")]);
    let every_second = BY_HAND.replace("31d", "1s");
    scene.hold(200, 190, &every_second);
    eventually("it is in cold", || scene.state("away/one") == "cold");
    assert!(scene.is_hot("away/kept") && scene.is_hot("other"));
    volume.run(&["tier", "pin", "hot", &scene.arg("away")]);
    eventually("it is back", || scene.is_hot("away/one"));
    assert!(scene.read("away/one") == content("away/one", MIB));
}

/// What a plan is about: paths with what is done to them.
fn moves(plan: &Value) -> BTreeMap<String, String> {
    let moves = plan["moves"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    moves.iter().map(|one| (text(&one["path"]), text(&one["action"]))).collect()
}

#[test]
fn planning_changes_nothing_and_running_does_what_was_planned() {
    let scene = Scene::new();
    let names = ["go/one", "go/two", "go/small", "stay/one", "stay/two"];
    for name in names {
        scene.write(name, if name == "go/small" { 600_000 } else { MIB });
    }
    let rule = "[[rule]]\nname = \"done with\"\npath = [\"/go/**\"]\naction = \"demote\"\n";
    let policy = BY_HAND.replace("min_size = \"0B\"", "min_size = \"900KiB\"");
    scene.hold(200, 190, &format!("{policy}{rule}"));
    let states = || names.map(|name| scene.state(name));
    let (before, used) = (states(), scene.hot_bytes());
    let plan = scene.plan();
    let expected = ["/go/one", "/go/two"].map(|path| (path.to_owned(), "demote".to_owned()));
    assert_eq!(moves(&plan), BTreeMap::from(expected), "{plan}");
    assert!(plan["moves"][0]["why"].as_str().unwrap().contains("done with"), "{plan}");
    assert_eq!(plan["skipped"]["too-small"]["files"], 1, "{plan}");
    let dry = scene.json(&["policy", "run", "--dry-run", "--json", scene.root()]);
    assert_eq!((moves(&dry), &dry["job"]), (moves(&plan), &Value::Null));
    assert_eq!((states(), scene.hot_bytes()), (before.clone(), used));
    assert!(scene.jobs().is_empty(), "{:?}", scene.jobs());
    let run = scene.json(&["policy", "run", "--json", scene.root()]);
    assert_eq!(moves(&run), moves(&plan));
    let job = run["job"].as_u64().expect("a job carries it out");
    eventually("the job is done", || {
        scene.jobs().iter().any(|line| line["job"] == job && line["state"] == "done")
    });
    let expected: Vec<String> = names
        .iter()
        .zip(before)
        .map(|(name, before)| match moves(&plan).contains_key(&format!("/{name}")) {
            true => "cold".to_owned(),
            false => before,
        })
        .collect();
    assert_eq!(states().to_vec(), expected);
    assert!(moves(&scene.plan()).is_empty(), "nothing is left to do");
    assert!(scene.read("go/one") == content("go/one", MIB));
}

#[test]
fn a_policy_with_an_error_leaves_the_one_before_and_is_told() {
    let scene = Scene::new();
    scene.hold(123, 111, BY_HAND);
    let file = scene.volume.dir.join("policy.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{good}\nno_such_key = 1\n")).unwrap();
    let warns = || scene.status()["warnings"].to_string().contains("no_such_key");
    eventually("status warns", warns);
    eventually("placement says so", || scene.status()["placement"]["policy_failure"].is_string());
    assert_eq!(scene.plan()["high_bytes"], 123 << 20);
    std::fs::write(&file, good).unwrap();
    eventually("and warns no more", || !warns());
}
