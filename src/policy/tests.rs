#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

const SAMPLE: &str = r#"
[[snapshots]]
dataset = "/"
recursive = true
daily = 7

[[snapshots]]
dataset = "/projA"
hourly = 24
monthly = 0

[[snapshots]]
dataset = "/projA/raw"
recursive = true
weekly = 4
"#;

#[test]
fn the_nearest_rule_holds() {
    let policy = Policy::parse(SAMPLE).unwrap();
    let daily = Keep { daily: Some(7), ..Keep::default() };
    let weekly = Keep { weekly: Some(4), ..Keep::default() };
    assert_eq!(policy.keep(b"/"), Some(daily));
    assert_eq!(policy.keep(b"/projA"), Some(policy.snapshots[1].keep()));
    assert_eq!(policy.snapshots[1].keep().of(Cycle::Monthly), Some(0));
    // Its own rule does not reach further down, so that the one above it does.
    assert_eq!(policy.keep(b"/projA/x"), Some(daily));
    assert_eq!(policy.keep(b"/projA/raw/x/y"), Some(weekly));
    assert_eq!(policy.keep(b"/projA/rawer"), Some(daily));
    let alone = "[[snapshots]]\ndataset = \"/a\"\nrecursive = true\ndaily = 1";
    let alone = Policy::parse(alone).unwrap();
    assert_eq!((alone.keep(b"/"), alone.keep(b"/ab")), (None, None));
    assert!(alone.keep(b"/a/b").is_some());
    assert_eq!(Policy::parse("").unwrap(), Policy::default());
    assert_eq!(policy.missing(&[b"/", b"/projA", b"/x"]), ["/projA/raw"]);
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let rule = "[[snapshots]]\ndataset = ";
    for (text, line, column, message) in [
        ("snapshot = 1", 1, 1, "unknown field `snapshot`"),
        ("[[snapshots]]\ndataset = \"/a\"\ndaly = 7", 3, 1, "unknown field `daly`"),
        ("[[snapshots]]\ndataset = \"/a\"\n  daily = -1", 3, 11, "invalid value"),
        ("[[snapshots]]\ndaily = 1", 1, 1, "missing field `dataset`"),
        ("[[snapshots]]\ndataset = \"/a\"\ndaily = ", 3, 9, ""),
        (&format!("{rule}\"a\"\ndaily = 1"), 1, 1, "is no path"),
        (&format!("{rule}\"/a/\"\ndaily = 1"), 1, 1, "is no path"),
        (&format!("{rule}\"/a/../b\"\ndaily = 1"), 1, 1, "is no path"),
        (&format!("{rule}\"/a\""), 1, 1, "says neither hourly"),
        (&format!("{rule}\"/a\"\nhourly = 10001"), 1, 1, "more than 10000"),
        (&format!("{rule}\"/a\"\ndaily = 1\n{rule}\"/a\"\ndaily = 1"), 4, 1, "already"),
    ] {
        let error = Policy::parse(text).unwrap_err();
        assert_eq!((error.line, error.column), (line, column), "{text}: {error}");
        assert!(error.message.contains(message), "{text}: {error}");
    }
}

#[test]
fn a_policy_is_replaced_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    assert_eq!(read(&path).unwrap(), None);
    assert!(load(&path).is_err());
    replace(dir.path(), "").unwrap();
    replace(dir.path(), SAMPLE).unwrap();
    assert_eq!(load(&path).unwrap().0, SAMPLE);
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 1);
    assert!(replace(&dir.path().join("missing"), SAMPLE).is_err());
    std::fs::write(&path, vec![b'#'; MAX_LEN as usize + 1]).unwrap();
    assert!(format!("{:#}", load(&path).unwrap_err()).contains("longer than"));
}
