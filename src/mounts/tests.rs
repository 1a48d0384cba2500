#![allow(clippy::unwrap_used, reason = "tests")]

use firn_mount::fuse::FS_TYPE;

use super::*;

#[test]
fn the_longest_and_latest_mount_covers_a_path() {
    let mount = |mountpoint: &str, fs_type: &str| MountEntry {
        mountpoint: mountpoint.into(),
        fs_type: fs_type.into(),
        source: PathBuf::new(),
        device: String::new(),
        read_only: false,
        owner: None,
    };
    let mounts = [
        mount("/", "ext4"),
        mount("/data", FS_TYPE),
        mount("/data/a b", FS_TYPE),
        mount("/data", "tmpfs"),
    ];
    let covering = |path: &str| covering(&mounts, Path::new(path)).unwrap();
    assert_eq!(covering("/data/a b/c").mountpoint, Path::new("/data/a b"));
    assert_eq!(covering("/data/x").fs_type, "tmpfs");
    assert_eq!(covering("/database").fs_type, "ext4");
}

#[test]
fn this_machine_has_a_root_mount() {
    assert!(covering(&all().unwrap(), Path::new("/")).is_some());
}
