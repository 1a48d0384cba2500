#![allow(clippy::unwrap_used, reason = "tests")]

use uuid::Uuid;

use super::*;
use crate::failure::Failure;

fn config(hot: Option<&Path>) -> Config {
    let mut config = Config::new(Uuid::from_u128(5), config::MIN_HOT_CAPACITY);
    if let Some(hot) = hot {
        config.hot = hot.to_owned();
    }
    config
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_volume_appears_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = check_place(&dir.path().join("vol")).unwrap();
    let volume = build(&path, Path::new("hot"), |_| Ok(config(None))).unwrap();
    assert_eq!(names(dir.path()), ["vol"]);
    assert_eq!(volume.config().unwrap(), config(None));
    check_hot(&config(None), &volume, false).unwrap();
}

#[test]
fn an_empty_directory_will_do() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("vol")).unwrap();
    let path = check_place(&dir.path().join("vol")).unwrap();
    build(&path, Path::new("hot"), |_| Ok(config(None))).unwrap();
}

#[test]
fn nothing_is_left_of_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let hot = dir.path().join("nvme");
    let path = check_place(&dir.path().join("vol")).unwrap();
    let refused = build(&path, &hot, |_| bail!("no database today")).unwrap_err();
    assert_eq!(refused.to_string(), "no database today");
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn a_hot_directory_that_was_there_stays_and_is_empty_again() {
    let dir = tempfile::tempdir().unwrap();
    let hot = dir.path().join("nvme");
    fs::create_dir(&hot).unwrap();
    let path = check_place(&dir.path().join("vol")).unwrap();
    build(&path, &hot, |_| bail!("no")).unwrap_err();
    assert_eq!(names(&hot), [""; 0]);
}

#[test]
fn existing_data_is_never_touched() {
    let dir = tempfile::tempdir().unwrap();
    let vol = dir.path().join("vol");
    fs::create_dir(&vol).unwrap();
    fs::write(vol.join("thesis.tex"), "x").unwrap();
    assert!(check_place(&vol).unwrap_err().root_cause().to_string().ends_with("is not empty"));
    fs::write(vol.join("firn.toml"), "").unwrap();
    let twice = Failure::new(&check_place(&vol).unwrap_err());
    assert!(twice.message.ends_with("holds a volume already"), "{twice}");
    assert!(check_place(&vol.join("thesis.tex")).is_err());
}

#[test]
fn a_hot_directory_of_nobody_or_of_another_volume_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let hot = dir.path().join("nvme");
    let path = check_place(&dir.path().join("vol")).unwrap();
    let volume = build(&path, &hot, |_| Ok(config(Some(&hot)))).unwrap();
    fs::write(hot.join(HOT_MARKER), Uuid::nil().to_string()).unwrap();
    let other = check_hot(&config(Some(&hot)), &volume, true).unwrap_err();
    assert!(Failure::new(&other).message.contains("belongs to volume"));
    fs::remove_file(hot.join(HOT_MARKER)).unwrap();
    let unmounted = Failure::new(&check_hot(&config(Some(&hot)), &volume, true).unwrap_err());
    assert!(unmounted.hint.unwrap().contains("is its disk mounted?"));
}
