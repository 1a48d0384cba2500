//! `firn policy`: what it refuses, and that a mounted volume follows it.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::mounted::Scene;

const RULE: &str =
    "[[snapshots]]\ndataset = \"/projA\"\nrecursive = true\nhourly = 2\nmonthly = 1\n";

/// How often a test looks whether the daemon has noticed.
const LOOKS: usize = 150;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

impl Scene {
    fn write_policy(&self, text: &str) -> String {
        let path = self.dir.path().join("new-policy.toml");
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn status_json(&self) -> Value {
        let out = self.firn(&["status", "--json", self.mnt()]).done().out;
        serde_json::from_str(&out).unwrap()
    }

    /// Waits until `status` is as expected.
    #[track_caller]
    fn wait_for(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..LOOKS {
            let status = self.status_json();
            if is_so(&status) {
                return status;
            }
            std::thread::sleep(PAUSE);
        }
        panic!("{what}: {:#}", self.status_json());
    }
}

#[test]
fn a_wrong_policy_is_refused_with_its_place_and_changes_nothing() {
    let scene = Scene::new();
    let good = scene.write_policy(RULE);
    scene.firn(&["policy", "check", &good]).done();
    let nothing = scene.firn(&["policy", "show", scene.vol()]);
    assert_eq!((nothing.code, nothing.out.as_str()), (0, ""));
    assert!(nothing.err.contains("has no policy"), "{}", nothing.err);
    scene.firn(&["policy", "apply", &good, scene.vol()]).done();
    assert_eq!(scene.firn(&["policy", "show", scene.vol()]).done().out, RULE);
    let bad = scene.write_policy("[[snapshots]]\ndataset = \"/projA\"\n  hurly = 2\n");
    for args in [vec!["policy", "check", &bad], vec!["policy", "apply", &bad, scene.vol()]] {
        let ran = scene.firn(&args);
        assert_eq!(ran.code, 1);
        assert!(ran.err.contains("line 3, column 3: unknown field `hurly`"), "{}", ran.err);
    }
    let shown = scene.firn(&["policy", "show", "--json", scene.vol()]).done().out;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["snapshots"][0]["hourly"], 2);
    assert_eq!(scene.firn(&["policy", "check", "/no/such/file"]).code, 1);
}

#[test]
fn everything_that_is_wrong_in_a_policy_is_told() {
    let scene = Scene::new();
    let bad = scene.write_policy("[defaults]\nmode = \"hot\"\n\n[[rule]]\nidel = \">30d\"\n");
    let ran = scene.firn(&["policy", "check", &bad]).refused(1, &["new-policy.toml: 2 errors"]);
    let lines: Vec<&str> = ran.err.lines().collect();
    assert_eq!(lines.len(), 4, "{}", ran.err);
    assert!(lines[0].contains("line 2, column 8: invalid value for `mode`: one of \"ml\""));
    assert!(lines[1].contains("line 5, column 1: unknown field `idel`, did you mean `idle`?"));
    assert_eq!(scene.firn(&["policy", "apply", &bad, scene.vol()]).code, 1);
    assert!(!scene.volume.join("policy.toml").exists());
}

#[test]
fn the_help_holds_a_policy() {
    let help = crate::run::firn(&["policy", "--help"]).done().out;
    let start = help.find("# policy.toml").unwrap();
    let policy = ::firn::policy::Policy::parse(&help[start..]).unwrap();
    assert_eq!((policy.rules.len(), policy.snapshots.len()), (2, 1));
    let scene = Scene::new();
    let file = scene.write_policy(&help[start..]);
    scene.firn(&["policy", "check", &file]).done();
    scene.firn(&["policy", "apply", &file, scene.vol()]).done();
    let shown = scene.firn(&["policy", "show", "--json", scene.vol()]).done().out;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["tier"]["hot"]["high"], "90%");
    assert_eq!(shown["rule"][0]["action"], "demote");
    assert_eq!(shown["recall"]["promote_on"], 2);
}

#[test]
fn a_mounted_volume_takes_and_destroys_what_its_policy_says() {
    let scene = Scene::mounted();
    let project = format!("{}/projA", scene.mnt());
    scene.firn(&["dataset", "create", &project]).done();
    scene.firn(&["dataset", "create", &format!("{project}/raw")]).done();
    // An old one of its own goes, one with another name and one that is held stay.
    for name in ["auto-hourly-2001-01-01T01:00Z", "auto-hourly-2001-01-01T02:00Z", "mine"] {
        scene.firn(&["snapshot", "create", &format!("{project}@{name}")]).done();
    }
    let held = format!("{project}@auto-hourly-2001-01-01T01:00Z");
    scene.firn(&["snapshot", "hold", "keep", &held]).done();
    fs::write(scene.mountpoint.join("projA/raw/file"), "content").unwrap();
    assert_eq!(scene.status_json()["snapshots"], Value::Null);
    let file = scene.write_policy(&RULE.replace("hourly = 2", "hourly = 1"));
    scene.firn(&["policy", "apply", &file, scene.mnt()]).done();
    let status = scene.wait_for("snapshots of both", |status| {
        let datasets = status["snapshots"]["datasets"].as_array();
        datasets.is_some_and(|all| all.len() == 2 && all.iter().all(|one| one["last"].is_string()))
    });
    let first = &status["snapshots"]["datasets"][0];
    assert_eq!(first["dataset"], project);
    assert_eq!(first["failure"], Value::Null);
    let last = first["last"].as_str().unwrap();
    assert!(last.starts_with("auto-hourly-20") && last.ends_with(":00Z"), "{last}");
    assert!(first["next_due"].as_str().unwrap().ends_with(":00:00Z"));
    let shown =
        fs::read_to_string(scene.mountpoint.join(format!("projA/raw/.firn/snapshot/{last}/file")));
    assert_eq!(shown.unwrap(), "content", "also what only the kernel held");
    let names = || {
        let out = scene.firn(&["snapshot", "list", "--quick", "--json", &project]).done().out;
        let list: Value = serde_json::from_str(&out).unwrap();
        let lines = list["snapshots"].as_array().unwrap().clone();
        lines.iter().map(|line| line["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let old = "auto-hourly-2001-01-01T02:00Z".to_owned();
    for _ in 0..LOOKS {
        if !names().contains(&old) {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    assert!(!names().contains(&old), "{:?}", names());
    assert_eq!(names()[..2], ["auto-hourly-2001-01-01T01:00Z", "mine"]);
    assert_eq!(names().len(), 4, "{:?}", names());
    let text = scene.firn(&["status", scene.mnt()]).done().out;
    assert!(text.contains("automatic for 2 datasets, last auto-hourly-20"), "{text}");
    // A file that somebody broke by hand: the last good policy holds, and `status` says so.
    fs::write(scene.volume.join("policy.toml"), "[[snapshots]]\ndatset = 1").unwrap();
    let status = scene.wait_for("a warning", |status| status["health"] == "warning");
    let warning = status["warnings"][0].as_str().unwrap();
    assert!(warning.contains("policy.toml: line 2, column 1: unknown field"), "{warning}");
    assert_eq!(status["snapshots"]["datasets"].as_array().unwrap().len(), 2);
    // Nothing is taken twice by another mount.
    fs::remove_file(scene.volume.join("policy.toml")).unwrap();
    scene.wait_for("no policy", |status| status["snapshots"] == Value::Null);
    let before = names();
    assert_eq!(scene.umount().code, 0);
    scene.firn(&["policy", "apply", &file, scene.vol()]).done();
    scene.mount().done();
    scene.wait_for("the policy", |status| status["snapshots"].is_object());
    std::thread::sleep(Duration::from_secs(1));
    // Unless an hour ended meanwhile.
    if names().last() == before.last() {
        assert_eq!(names(), before);
    }
}
