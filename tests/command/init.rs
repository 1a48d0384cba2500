//! `firn init`: what it makes, and that bad input is one clear error with nothing half-made.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::run::firn;

fn at(dir: &Path, name: &str) -> String {
    dir.join(name).to_str().unwrap().to_owned()
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().next().is_none()
}

#[test]
fn makes_a_volume_that_explains_itself() {
    let dir = tempfile::tempdir().unwrap();
    let vol = at(dir.path(), "vol");
    let ran = firn(&["init", &vol, "--hot-capacity", "1GiB"]).done();
    assert_eq!(ran.out, "");
    let text = fs::read_to_string(dir.path().join("vol/firn.toml")).unwrap();
    assert!(text.contains("hot_capacity = \"1GiB\""), "{text}");
    assert!(text.contains("backup_interval = \"15m\""), "{text}");
    assert!(text.contains("#cold = "), "{text}");
}

#[test]
fn only_the_owner_may_look_into_what_holds_content() {
    let dir = tempfile::tempdir().unwrap();
    let vol = at(dir.path(), "vol");
    firn(&["init", &vol, "--hot-capacity", "1GiB"]).done();
    let mode = |name: &str| {
        fs::metadata(dir.path().join("vol").join(name)).unwrap().permissions().mode() & 0o777
    };
    for inside in ["hot", "namespace"] {
        assert_eq!(mode(inside), 0o700, "{inside}");
    }
    // Whose volume it is everybody may be told.
    assert_eq!((mode("."), mode("firn.toml"), mode("lock")), (0o755, 0o644, 0o644));
}

#[test]
fn a_second_init_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let vol = at(dir.path(), "vol");
    firn(&["init", &vol, "--hot-capacity", "1GiB"]).done();
    let before = fs::read(dir.path().join("vol/firn.toml")).unwrap();
    firn(&["init", &vol, "--hot-capacity", "1GiB"]).refused(1, &["holds a volume already"]);
    assert_eq!(fs::read(dir.path().join("vol/firn.toml")).unwrap(), before);
}

#[test]
fn bad_cold_urls_are_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    let vol = at(dir.path(), "vol");
    let cases = [
        ("nonsense", "not a URL"),
        ("ftp://host/dir", "unknown scheme `ftp`"),
        ("file://srv/cold", "three slashes"),
        ("s3://", "the bucket or container is missing"),
    ];
    for (url, says) in cases {
        firn(&["init", &vol, "--hot-capacity", "1GiB", "--cold", url])
            .refused(2, &["cold URL", says]);
    }
    assert!(is_empty(dir.path()));
}

#[test]
fn a_secret_in_the_url_is_refused_and_not_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let vol = at(dir.path(), "vol");
    let ran = firn(&["init", &vol, "--cold", "s3://id:hunter2@bucket/p"])
        .refused(2, &["holds credentials"]);
    assert!(!ran.err.contains("hunter2"), "{}", ran.err);
    assert!(is_empty(dir.path()));
}

#[test]
fn bad_sizes_and_unknown_options_are_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    let vol = at(dir.path(), "vol");
    for args in [
        ["init", &vol, "--hot-capacity", "lots"],
        ["init", &vol, "--hot-capacity", "1XiB"],
        ["init", &vol, "--hot-capacty", "1GiB"],
        ["init", &vol, "--cold-capacity", "1GiB"],
    ] {
        let ran = firn(&args);
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.err);
    }
    assert_eq!(firn(&["init", &vol, "--hot-capacity", "1MiB"]).code, 2);
    assert!(is_empty(dir.path()));
}

#[test]
fn places_that_cannot_hold_a_volume() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "x").unwrap();
    for (name, says) in [
        ("missing/vol", "parent directory"),
        ("file", "exists and is no directory"),
        ("file/vol", "parent directory"),
    ] {
        let vol = at(dir.path(), name);
        if name == "file/vol" {
            assert_eq!(firn(&["init", &vol, "--hot-capacity", "1GiB"]).code, 1);
            continue;
        }
        firn(&["init", &vol, "--hot-capacity", "1GiB"]).refused(1, &["making a volume", says]);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_hot_directory_that_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let vol = at(dir.path(), "vol");
    let used = dir.path().join("used");
    fs::create_dir(&used).unwrap();
    fs::write(used.join("data"), "x").unwrap();
    let used = used.to_str().unwrap();
    firn(&["init", &vol, "--hot-capacity", "1GiB", "--hot", used])
        .refused(1, &["hot directory", "is not empty"]);
    firn(&["init", &vol, "--hot-capacity", "1GiB", "--hot", "/proc/firn-hot"])
        .refused(1, &["/proc/firn-hot"]);
    firn(&["init", &vol, "--hot-capacity", "900PiB"]).refused(1, &["hot capacity 900PiB"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}
