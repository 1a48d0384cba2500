//! `firn snapshot` and `firn dataset`: what they print, and what they refuse.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::mounted::Scene;
use crate::run::Ran;

impl Scene {
    /// A path on the mount, with what is behind it.
    fn on(&self, name: &str) -> String {
        if name.starts_with('@') {
            return format!("{}{name}", self.mnt());
        }
        format!("{}/{name}", self.mnt())
    }

    fn snapshot(&self, args: &[&str]) -> Ran {
        self.firn(&[&["snapshot"], args].concat())
    }

    fn dataset(&self, args: &[&str]) -> Ran {
        self.firn(&[&["dataset"], args].concat())
    }

    fn take(&self, name: &str) {
        assert_eq!(self.snapshot(&["create", &self.on(name)]).done().out, "");
    }

    /// The names that a listing has, without the mountpoint.
    fn names(&self, of: &str) -> Vec<String> {
        let out = self.snapshot(&["list", "-r", "--json", of]).done().out;
        let list: Value = serde_json::from_str(&out).unwrap();
        let lines = list["snapshots"].as_array().unwrap();
        let name = |line: &Value| line["snapshot"].as_str().unwrap().replace(self.mnt(), "");
        lines.iter().map(name).collect()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.mountpoint.join(name)
    }
}

fn json(ran: Ran) -> Value {
    serde_json::from_str(&ran.done().out).unwrap()
}

#[test]
fn a_listing_says_when_why_and_how_much() {
    let scene = Scene::mounted();
    assert_eq!(scene.snapshot(&["list", scene.mnt()]).done().out, "");
    fs::write(scene.file("file"), vec![7; 1 << 20]).unwrap();
    let taken = json(scene.snapshot(&["create", &scene.on("@mon"), "-m", "before", "--json"]));
    assert_eq!(taken["snapshots"], serde_json::json!([scene.on("@mon")]));
    assert!(taken["drain_ms"].as_f64().unwrap() >= 0.0);
    assert!(taken["snapshot_ms"].as_f64().unwrap() > 0.0);
    fs::write(scene.file("file"), vec![8; 1 << 20]).unwrap();
    let out = scene.snapshot(&["create", "-v", &scene.on("@tue")]).done().out;
    assert!(out.starts_with(&scene.on("@tue: taken in ")), "{out}");

    let list = json(scene.snapshot(&["list", "--json", scene.mnt()]));
    let [mon, tue] = &list["snapshots"].as_array().unwrap()[..] else { panic!("{list}") };
    assert_eq!((&mon["name"], &mon["message"]), (&"mon".into(), &"before".into()));
    assert_eq!(
        (&mon["dataset"], &mon["snapshot"]),
        (&scene.mnt().into(), &scene.on("@mon").into())
    );
    assert!(mon["created"].as_str().unwrap().ends_with('Z'));
    for (line, used) in [(mon, 1 << 20), (tue, 0)] {
        assert_eq!(line["used_bytes"], used, "{list}");
        assert_eq!(line["referenced_bytes"], 1 << 20, "{list}");
        assert_eq!(line["written_bytes"], 1 << 20, "{list}");
    }
    let table = scene.snapshot(&["list", scene.mnt()]).done().out;
    for part in ["NAME", "USED", "REFER", "WRITTEN", "MESSAGE", "@mon", "1.00 MiB", "before"] {
        assert!(table.contains(part), "{part} is missing in:\n{table}");
    }
    let quick = json(scene.snapshot(&["list", "-q", "--json", scene.mnt()]));
    let line = &quick["snapshots"][0];
    assert_eq!((&line["name"], &line["used_bytes"]), (&"mon".into(), &Value::Null), "{quick}");
}

#[test]
fn names_that_cannot_be_are_refused_before_anything_is_taken() {
    let scene = Scene::mounted();
    fs::create_dir(scene.file("plain")).unwrap();
    fs::write(scene.file("file"), "").unwrap();
    scene.take("@taken");
    let create = |name: &str| scene.snapshot(&["create", name]);
    create(scene.mnt()).refused(2, &["names no snapshot"]);
    create(&scene.on("@a/b")).refused(2, &["names no snapshot"]);
    create(&scene.on("@")).refused(2, &["invalid name"]);
    create(&scene.on("@a%b")).refused(2, &["invalid name"]);
    create(&scene.on("@..")).refused(2, &["invalid name"]);
    create(&scene.on(&format!("@{}", "n".repeat(256)))).refused(2, &["invalid name"]);
    create(&scene.on("@taken")).refused(1, &["@taken", "exists already"]);
    create(&scene.on("plain@x")).refused(1, &["plain", "not the root directory", scene.mnt()]);
    create(&scene.on("file@x")).refused(1, &["not the root directory"]);
    create(&scene.on("missing@x")).refused(1, &["missing"]);
    create("/proc@x").refused(1, &["no Firn volume"]);
    scene.snapshot(&["create", &scene.on("@m"), "-m", &"m".repeat(1 << 16)]).refused(2, &["long"]);
    assert_eq!(scene.names(scene.mnt()), ["@taken"]);
}

#[test]
fn destroying_takes_ranges_and_says_first_what_goes() {
    let scene = Scene::mounted();
    for name in ["@a", "@b", "@c", "@d", "@e"] {
        fs::write(scene.file("file"), format!("{name}{}", "x".repeat(1 << 20))).unwrap();
        scene.take(name);
    }
    let destroy = |args: &[&str]| scene.snapshot(&[&["destroy"], args].concat());
    let out = destroy(&["-n", &scene.on("@b%d")]).done().out;
    assert_eq!(out.matches("would destroy ").count(), 3, "{out}");
    assert!(out.contains("would free at least 3.00 MiB"), "{out}");
    assert_eq!(scene.names(scene.mnt()).len(), 5, "nothing was destroyed");
    destroy(&[&scene.on("@d%b")]).refused(2, &["d is newer than b"]);
    destroy(&[&scene.on("@a,missing")]).refused(1, &["no such snapshot", "@missing"]);
    destroy(&[&scene.on("@a%b%c")]).refused(2, &["names no snapshots"]);
    assert_eq!(scene.names(scene.mnt()).len(), 5, "all or none");
    let out = destroy(&["-v", &scene.on("@b%c,e")]).done().out;
    assert_eq!(out.matches("destroyed ").count(), 3, "{out}");
    assert_eq!(scene.names(scene.mnt()), ["@a", "@d"]);
    let gone = json(destroy(&["--json", &scene.on("@%")]));
    assert_eq!(gone["snapshots"].as_array().unwrap().len(), 2, "{gone}");
    destroy(&[&scene.on("@%")]).refused(1, &["has no snapshots"]);
}

#[test]
fn holds_and_clones_keep_a_snapshot() {
    let scene = Scene::mounted();
    let snap = scene.on("@kept");
    scene.take("@kept");
    scene.snapshot(&["hold", "paper", &snap]).done();
    scene.snapshot(&["hold", "review", &snap]).done();
    scene.snapshot(&["hold", "paper", &snap]).refused(1, &["paper", "exists already"]);
    scene.snapshot(&["hold", "a/b", &snap]).refused(2, &["invalid name"]);
    let holds = json(scene.snapshot(&["holds", "--json", &snap]));
    let tags: Vec<_> = holds["holds"].as_array().unwrap().iter().map(|h| &h["tag"]).collect();
    assert_eq!(tags, ["paper", "review"]);
    assert!(scene.snapshot(&["holds", &snap]).done().out.contains("review"));
    scene.snapshot(&["destroy", &snap]).refused(1, &["@kept", "held: paper, review"]);
    scene.snapshot(&["release", "mine", &snap]).refused(1, &["no such hold: mine"]);
    scene.snapshot(&["release", "paper", &snap]).done();

    scene.snapshot(&["clone", &snap, &scene.on("clone")]).done();
    let out = scene.snapshot(&["destroy", "-d", "-v", &snap]).done().out;
    assert!(out.contains("when its last hold and clone goes"), "{out}");
    scene.snapshot(&["release", "review", &snap]).done();
    scene.snapshot(&["destroy", &snap]).refused(1, &["has clones", &scene.on("clone")]);
    scene.dataset(&["destroy", &scene.on("clone")]).done();
    assert!(scene.names(scene.mnt()).is_empty(), "the last clone took it along");
}

#[test]
fn renaming_stays_in_the_dataset() {
    let scene = Scene::mounted();
    scene.dataset(&["create", &scene.on("proj")]).done();
    scene.snapshot(&["create", "-r", &scene.on("@old")]).done();
    scene.take("@other");
    let rename = |args: &[&str]| scene.snapshot(&[&["rename"], args].concat());
    rename(&[&scene.on("@old"), "@other"]).refused(1, &["@other", "exists already"]);
    rename(&[&scene.on("@old"), &scene.on("proj@new")]).refused(2, &["another dataset"]);
    rename(&[&scene.on("@old"), "@a%b"]).refused(2, &["invalid name"]);
    rename(&[&scene.on("@missing"), "@new"]).refused(1, &["no such snapshot"]);
    rename(&["-r", &scene.on("@old"), "@new"]).done();
    rename(&[&scene.on("@other"), &scene.on("@last")]).done();
    assert_eq!(scene.names(scene.mnt()), ["@new", "@last", "/proj@new"]);
}

#[test]
fn a_diff_has_the_lines_of_zfs() {
    let scene = Scene::mounted();
    fs::create_dir(scene.file("dir")).unwrap();
    for name in ["changed", "gone", "dir/before"] {
        fs::write(scene.file(name), name).unwrap();
    }
    scene.take("@one");
    fs::write(scene.file("changed"), "otherwise").unwrap();
    fs::remove_file(scene.file("gone")).unwrap();
    fs::rename(scene.file("dir/before"), scene.file("dir/after")).unwrap();
    fs::write(scene.file("tab\tand\\"), "").unwrap();
    let sorted = |args: &[&str]| {
        let out = scene.snapshot(&[&["diff"], args].concat()).done().out;
        let mut lines: Vec<String> =
            out.replace(scene.mnt(), "").lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let one = scene.on("@one");
    let plain = ["+\t/tab\\0011and\\0134", "-\t/gone", "M\t/", "M\t/changed", "M\t/dir"];
    assert_eq!(sorted(&[&one]), [&plain[..], &["R\t/dir/before -> /dir/after"]].concat());
    let typed = sorted(&["-FH", &one, scene.mnt()]);
    assert_eq!(
        typed[2..],
        ["M\t/\t/", "M\t/\t/dir", "M\tF\t/changed", "R\tF\t/dir/before\t/dir/after"]
    );
    scene.take("@two");
    fs::write(scene.file("later"), "").unwrap();
    assert_eq!(sorted(&[&one, "@two"]).len(), 6);
    assert_eq!(sorted(&[&scene.on("@two")]), ["+\t/later", "M\t/"]);
    fs::hard_link(scene.file("later"), scene.file("dir/linked")).unwrap();
    let expected = ["+\t/dir/linked", "+\t/later", "M\t/", "M\t/dir"];
    assert_eq!(sorted(&[&scene.on("@two")]), expected);
    let changes = json(scene.snapshot(&["diff", "--json", &one, &scene.on("@two")]));
    let renamed: Vec<&Value> =
        changes["changes"].as_array().unwrap().iter().filter(|c| c["change"] == "R").collect();
    assert_eq!(renamed[0]["new_path"], scene.on("dir/after"), "{changes}");
    scene.snapshot(&["diff", &scene.on("@two"), "@one"]).refused(1, &["earlier state"]);
    scene.snapshot(&["diff", &one, "@missing"]).refused(1, &["no such snapshot"]);
    scene.snapshot(&["diff", &one, &scene.on("dir")]).refused(2, &["not of the dataset"]);
}

#[test]
fn rolling_back_names_what_is_in_the_way() {
    let scene = Scene::mounted();
    for name in ["@a", "@b", "@c"] {
        scene.take(name);
    }
    let back = |args: &[&str]| scene.snapshot(&[&["rollback"], args].concat());
    let ran = back(&[&scene.on("@a")]).refused(1, &[&scene.on("@b"), &scene.on("@c"), "add -r"]);
    assert!(!ran.err.contains("@a,"), "{}", ran.err);
    back(&[&scene.on("@missing")]).refused(1, &["no such snapshot"]);
    scene.snapshot(&["hold", "mine", &scene.on("@b")]).done();
    back(&["-r", &scene.on("@a")]).refused(1, &["@b", "held: mine"]);
    assert_eq!(scene.names(scene.mnt()), ["@a", "@b", "@c"], "nothing is half-done");
    scene.snapshot(&["release", "mine", &scene.on("@b")]).done();
    let done = json(back(&["-r", "--json", &scene.on("@a")]));
    assert_eq!(done["destroyed"], serde_json::json!([scene.on("@b"), scene.on("@c")]));
    assert_eq!(scene.names(scene.mnt()), ["@a"]);
}

#[test]
fn datasets_are_made_moved_promoted_and_destroyed() {
    let scene = Scene::mounted();
    let datasets = || {
        let list = json(scene.dataset(&["list", "-r", "--json", scene.mnt()]));
        let lines = list["datasets"].as_array().unwrap().clone();
        let name = |line: &Value| line["dataset"].as_str().unwrap().replace(scene.mnt(), "");
        lines.iter().map(name).collect::<Vec<_>>()
    };
    scene.dataset(&["create", &scene.on("a")]).done();
    scene.dataset(&["create", &scene.on("a/b")]).done();
    fs::create_dir(scene.file("plain")).unwrap();
    scene.dataset(&["create", &scene.on("plain")]).refused(1, &["plain", "exists already"]);
    scene.dataset(&["create", &scene.on("no/such")]).refused(1, &["no"]);
    scene.dataset(&["create", "/tmp/firn-is-not-here"]).refused(1, &["no Firn volume"]);
    scene.take("@s");
    let create = |name: &str| scene.dataset(&["create", &scene.on(name)]);
    create(".firn").refused(2, &[".firn is the way to the snapshots"]);
    create("a/.firn").refused(2, &[".firn is the way to the snapshots"]);
    create(".firn/snapshot/s/new").refused(1, &["snapshot never changes"]);
    create(".firn/new").refused(1, &["a snapshot never changes"]);
    let clone = |to: &str| scene.snapshot(&["clone", &scene.on("@s"), &scene.on(to)]);
    clone(".firn").refused(2, &[".firn is the way to the snapshots"]);
    scene.snapshot(&["destroy", &scene.on("@s")]).done();
    assert_eq!(datasets(), ["", "/a", "/a/b"]);
    assert!(scene.dataset(&["list"]).out.contains(&scene.on("a/b")));

    scene.dataset(&["rename", &scene.on("a"), &scene.on("plain")]).refused(1, &["exists"]);
    scene.dataset(&["rename", &scene.on("plain"), &scene.on("x")]).refused(1, &["not the root"]);
    scene.dataset(&["rename", &scene.on("a"), &scene.on("plain/moved")]).done();
    assert_eq!(datasets(), ["", "/plain/moved", "/plain/moved/b"]);
    assert!(scene.file("plain/moved/b").is_dir() && !scene.file("a").exists());

    fs::write(scene.file("plain/moved/file"), "shared").unwrap();
    scene.take("plain/moved@base");
    scene.snapshot(&["clone", &scene.on("plain/moved@base"), &scene.on("c")]).done();
    assert_eq!(fs::read_to_string(scene.file("c/file")).unwrap(), "shared");
    let clone = json(scene.dataset(&["list", "--json", &scene.on("c")]));
    assert_eq!(clone["datasets"][0]["origin"], scene.on("plain/moved@base"));
    scene.dataset(&["promote", &scene.on("plain/moved")]).refused(1, &["not a clone"]);
    scene.dataset(&["promote", &scene.on("c")]).done();
    assert_eq!(scene.names(scene.mnt()), ["/c@base"]);
}

#[test]
fn destroying_a_dataset_names_what_is_in_the_way() {
    let scene = Scene::mounted();
    scene.dataset(&["create", &scene.on("a")]).done();
    scene.dataset(&["create", &scene.on("a/b")]).done();
    scene.take("a/b@s");
    let destroy = |args: &[&str]| scene.dataset(&[&["destroy"], args].concat());
    destroy(&[scene.mnt()]).refused(1, &["root of the volume"]);
    destroy(&[&scene.on("a")]).refused(1, &["datasets below", &scene.on("a/b"), "-r"]);
    destroy(&[&scene.on("a/b")]).refused(1, &["has snapshots", &scene.on("a/b@s"), "-r"]);
    scene.snapshot(&["hold", "h", &scene.on("a/b@s")]).done();
    destroy(&["-r", &scene.on("a")]).refused(1, &["a/b@s", "held: h"]);
    scene.snapshot(&["release", "h", &scene.on("a/b@s")]).done();
    scene.snapshot(&["clone", &scene.on("a/b@s"), &scene.on("c")]).done();
    destroy(&["-r", &scene.on("a")]).refused(1, &["a/b@s", "has clones", &scene.on("c")]);
    destroy(&[&scene.on("c")]).done();
    let out = destroy(&["-rn", &scene.on("a")]).done().out;
    assert_eq!(out.matches("would destroy ").count(), 3, "{out}");
    assert!(scene.file("a/b").is_dir());
    destroy(&["-r", &scene.on("a")]).done();
    assert!(!scene.file("a").exists());
    assert!(scene.names(scene.mnt()).is_empty());
}

#[test]
fn an_unmounted_volume_is_looked_into_but_not_changed() {
    let scene = Scene::mounted();
    scene.dataset(&["create", &scene.on("proj")]).done();
    fs::write(scene.file("proj/file"), "content").unwrap();
    scene.snapshot(&["create", "-r", &scene.on("@s")]).done();
    let at = |path: &str| format!("{}:{path}", scene.vol());
    assert_eq!(scene.names(&at("/proj")), ["/proj@s"], "a mounted volume is asked");
    scene.umount_done();
    let names = |of: &str| -> Vec<String> {
        scene.names(of).iter().map(|name| name.replace(scene.vol(), "")).collect()
    };
    assert_eq!(names(&at("/")), [":/@s", ":/proj@s"]);
    assert_eq!(names(scene.vol()), [":/@s", ":/proj@s"]);
    assert_eq!(names(&at("/proj")), [":/proj@s"]);
    let list = json(scene.dataset(&["list", "--json", &at("/proj")]));
    assert_eq!(list["datasets"][0]["snapshots"], 1, "{list}");
    scene.snapshot(&["list", &at("/nothing")]).refused(1, &["no dataset"]);
    scene.mount().done();
    assert_eq!(scene.names(scene.mnt()), ["@s", "/proj@s"]);
}

#[test]
fn a_volume_that_is_not_mounted_does_what_its_daemon_would() {
    let scene = Scene::mounted();
    fs::write(scene.file("file"), "first").unwrap();
    scene.take("@s");
    fs::write(scene.file("file"), "second").unwrap();
    scene.umount_done();
    let at = |path: &str| format!("{}:{path}", scene.vol());
    scene.dataset(&["create", &at("/proj")]).done();
    scene.dataset(&["create", &at("/proj/sub")]).done();
    scene.dataset(&["create", &at("/proj")]).refused(1, &["/proj", "exists already"]);
    scene.dataset(&["create", &at("/no/such")]).refused(1, &["/no", "no such file"]);
    scene.dataset(&["create", &at("/file/new")]).refused(1, &["/file", "no directory"]);
    scene.snapshot(&["create", "-r", &at("/@t"), "-m", "later"]).done();
    scene.snapshot(&["create", &at("/@t")]).refused(1, &[":/@t", "exists already"]);
    scene.snapshot(&["create", &at("/nothing@t")]).refused(1, &["no dataset"]);
    let changes = json(scene.snapshot(&["diff", "--json", &at("/@s"), "@t"]));
    let changed: Vec<&Value> =
        changes["changes"].as_array().unwrap().iter().map(|change| &change["path"]).collect();
    assert_eq!(changed, [&at("/"), &at("/file"), &at("/proj")]);
    scene.snapshot(&["hold", "mine", &at("/@s"), &at("/proj@t")]).done();
    scene.snapshot(&["destroy", &at("/@s")]).refused(1, &["held: mine"]);
    scene.snapshot(&["release", "mine", &at("/@s"), &at("/proj@t")]).done();
    scene.snapshot(&["rename", &at("/proj@t"), &at("/proj@u")]).done();
    scene.snapshot(&["rename", &at("/proj@u"), &at("/@v")]).refused(2, &["another dataset"]);
    scene.dataset(&["rename", &at("/proj"), &at("/moved")]).done();
    scene.snapshot(&["clone", &at("/@s"), &at("/moved/copy")]).done();
    scene.snapshot(&["create", &at("/moved/sub@w")]).done();
    let back = at("/moved/sub@t");
    scene.snapshot(&["rollback", &back]).refused(1, &[":/moved/sub@w", "add -r"]);
    scene.snapshot(&["rollback", "-r", &back]).done();
    scene.dataset(&["promote", &at("/moved/copy")]).done();
    scene.dataset(&["destroy", &at("/moved/sub")]).refused(1, &["has snapshots", "/sub@t"]);
    scene.dataset(&["destroy", "-r", &at("/moved/sub")]).done();
    let names: Vec<String> =
        scene.names(&at("/")).iter().map(|name| name.replace(scene.vol(), "")).collect();
    assert_eq!(names, [":/@t", ":/moved@u", ":/moved/copy@s"]);
    scene.mount().done();
    assert_eq!(fs::read(scene.file("file")).unwrap(), b"second");
    assert_eq!(fs::read(scene.file("moved/copy/file")).unwrap(), b"first");
    assert!(!scene.file("moved/sub").exists());
    assert_eq!(scene.names(scene.mnt()), ["@t", "/moved@u", "/moved/copy@s"]);
}
