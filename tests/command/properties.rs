//! `firn dataset get`, `set` and `inherit`, and what programs meet on a mount.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use serde_json::Value;

use crate::mounted::Scene;

impl Scene {
    /// Value and source of a property.
    fn property(&self, property: &str, dataset: &str) -> (String, String) {
        let line = self.firn(&["dataset", "get", "-H", property, dataset]).done().out;
        let fields: Vec<&str> = line.trim_end().split('\t').collect();
        assert_eq!(fields.len(), 4, "{line}");
        assert_eq!(fields[1], property);
        (fields[2].to_owned(), fields[3].to_owned())
    }

    fn set_property(&self, setting: &str, dataset: &str) {
        self.firn(&["dataset", "set", setting, dataset]).done();
    }
}

fn pair(value: &str, source: &str) -> (String, String) {
    (value.to_owned(), source.to_owned())
}

#[test]
fn properties_are_inherited_shown_with_their_source_and_kept() {
    let scene = Scene::mounted();
    let (a, b) = (format!("{}/a", scene.mnt()), format!("{}/a/b", scene.mnt()));
    let made = ["dataset", "create", "-o", "compression=zstd-9", "-o", "quota=1GiB", &a];
    scene.firn(&made).done();
    scene.firn(&["dataset", "create", &b]).done();
    assert_eq!(scene.property("compression", &a), pair("zstd-9", "local"));
    let inherited = format!("inherited from {a}");
    assert_eq!(scene.property("compression", &b), pair("zstd-9", &inherited));
    assert_eq!(scene.property("quota", &a), pair("1073741824", "local"));
    assert_eq!(scene.property("quota", &b), pair("none", "default"));
    assert_eq!(scene.property("type", &b), pair("filesystem", "-"));
    assert_eq!(scene.property("mountpoint", &b), pair(&b, "-"));
    assert_eq!(scene.property("receive_resume_token", &b), pair("-", "-"));
    fs::write(scene.mountpoint.join("a/b/file"), vec![1; 100_000]).unwrap();
    scene.firn(&["sync", scene.mnt()]).done();
    for property in ["used", "referenced", "written"] {
        assert_eq!(scene.property(property, &b), pair("100000", "-"), "{property}");
    }
    let (available, _) = scene.property("available", &a);
    assert!(available.parse::<u64>().unwrap() < 1 << 30, "{available}");
    scene.firn(&["dataset", "set", "tier=fast", "compression=lz4", &b]).done();
    assert_eq!(scene.property("compression", &b), pair("lz4", "local"));
    let out =
        scene.firn(&["dataset", "get", "-r", "--json", "--source", "local,inherited", "all", &a]);
    let list: Value = serde_json::from_str(&out.done().out).unwrap();
    let lines = list["properties"].as_array().unwrap();
    let short = |line: &Value| {
        let text = |key: &str| line[key].as_str().unwrap().to_owned();
        format!(
            "{} {} {}",
            text("dataset").replace(scene.mnt(), ""),
            text("property"),
            text("value")
        )
    };
    let expected =
        ["/a compression zstd-9", "/a quota 1GiB", "/a/b compression lz4", "/a/b tier fast"];
    assert_eq!(lines.iter().map(short).collect::<Vec<_>>(), expected);
    assert_eq!(lines[1]["bytes"], 1 << 30);
    scene.firn(&["dataset", "inherit", "-r", "compression", &a]).done();
    assert_eq!(scene.property("compression", &b), pair("auto", "default"));
    let table = scene.firn(&["dataset", "get", "tier,quota", &b]).done().out;
    assert!(table.contains("NAME") && table.contains("fast") && table.contains("none"), "{table}");
    assert_eq!(scene.umount().code, 0);
    let offline = format!("{}:/a/b", scene.vol());
    assert_eq!(scene.property("tier", &offline), pair("fast", "local"));
    assert_eq!(scene.property("mounted", &offline), pair("no", "-"));
    scene.set_property("tier=slow", &offline);
    scene.firn(&["dataset", "inherit", "quota", &format!("{}:/a", scene.vol())]).done();
    scene.mount().done();
    assert_eq!(scene.property("tier", &b), pair("slow", "local"));
    assert_eq!(scene.property("quota", &a), pair("none", "default"));
}

#[test]
fn wrong_settings_are_wrong_usage_and_change_nothing() {
    let scene = Scene::mounted();
    for settings in [
        vec!["readonly=maybe"],
        vec!["colour=red"],
        vec!["used=5"],
        vec!["dedup=on"],
        vec!["readonly"],
        vec!["readonly=on", "compression=gzip"],
        vec!["readonly=on", "readonly=off"],
    ] {
        let ran = scene.firn(&[&["dataset", "set"], &settings[..], &[scene.mnt()]].concat());
        assert_eq!(ran.code, 2, "{settings:?}: {}", ran.err);
        assert!(ran.err.contains("hint: ") || settings.len() == 2, "{}", ran.err);
    }
    assert_eq!(scene.property("readonly", scene.mnt()), pair("off", "default"));
    let ran = scene.firn(&["dataset", "create", "-o", "snapdir=on", &format!("{}/x", scene.mnt())]);
    assert_eq!(ran.code, 2);
    assert!(!scene.mountpoint.join("x").exists());
}

#[test]
fn a_read_only_dataset_keeps_what_was_written_and_takes_no_more() {
    let scene = Scene::mounted();
    let path = scene.mountpoint.join("file");
    let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
    file.write_all(b"before").unwrap();
    scene.set_property("readonly=on", scene.mnt());
    // The kernel takes a write from who had the file open; it is told no later than at a sync.
    let late = file.write_all(b"late").and_then(|()| file.sync_all());
    assert_eq!(late.unwrap_err().raw_os_error(), Some(rofs()));
    drop(file);
    assert_eq!(fs::write(&path, "x").unwrap_err().raw_os_error(), Some(rofs()));
    assert_eq!(fs::remove_file(&path).unwrap_err().raw_os_error(), Some(rofs()));
    assert_eq!(
        fs::create_dir(scene.mountpoint.join("d")).unwrap_err().raw_os_error(),
        Some(rofs())
    );
    scene.firn(&["snapshot", "create", &format!("{}@s", scene.mnt())]).done();
    assert_eq!(scene.umount().code, 0);
    scene.mount().done();
    assert_eq!(fs::read(&path).unwrap(), b"before");
    assert!(fs::write(&path, "x").is_err());
    scene.set_property("readonly=off", scene.mnt());
    fs::write(&path, "x").unwrap();
}

/// `EROFS`.
fn rofs() -> i32 {
    30
}

#[test]
fn snapdir_shows_the_way_to_snapshots_in_listings() {
    let scene = Scene::mounted();
    let names = || -> Vec<String> {
        let entries = fs::read_dir(&scene.mountpoint).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    assert!(names().is_empty());
    scene.set_property("snapdir=visible", scene.mnt());
    assert_eq!(names(), [".firn"]);
    assert_eq!(scene.umount().code, 0);
    scene.mount().done();
    assert_eq!(names(), [".firn"]);
    scene.firn(&["dataset", "inherit", "snapdir", scene.mnt()]).done();
    assert!(names().is_empty());
}

#[test]
fn compression_is_what_was_asked_for() {
    let scene = Scene::mounted();
    let text = "all work and no play makes jack a dull boy\n".repeat(40_000);
    let codec = |name: &str| {
        let path = scene.mountpoint.join(name);
        fs::write(&path, &text).unwrap();
        OpenOptions::new().write(true).open(&path).unwrap().sync_all().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().size(), text.len() as u64);
        let out = scene.firn(&["explain", "--json", path.to_str().unwrap()]).done().out;
        let explained: Value = serde_json::from_str(&out).unwrap();
        explained["runs"][0]["block"]["stored"]["codec"].as_str().unwrap_or_default().to_owned()
    };
    for (setting, expected) in
        [("off", "none"), ("lz4", "lz4"), ("zstd-5", "zstd"), ("off", "none")]
    {
        scene.set_property(&format!("compression={setting}"), scene.mnt());
        assert_eq!(codec(&format!("file-{setting}")), expected, "{setting}");
    }
}
