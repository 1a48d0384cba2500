//! Programs that walk over origins, clones and snapshots at once, and users without privilege.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};

use super::{at, make_dataset, shown, take};
use crate::harness::{Volume, shell, succeed};

/// An origin with one true hard link, its clone, and its snapshot.
fn family() -> (Volume, [std::path::PathBuf; 3]) {
    let volume = Volume::mounted();
    make_dataset(&volume, "origin");
    for name in ["single", "double"] {
        fs::write(volume.path("origin").join(name), name).unwrap();
    }
    fs::hard_link(volume.path("origin/double"), volume.path("origin/second")).unwrap();
    take(&volume, "origin", "s");
    let clone = volume.path("clone");
    volume.run(&["snapshot", "clone", &at(&volume, "origin", "s"), clone.to_str().unwrap()]);
    let trees = [volume.path("origin"), clone, shown(&volume, "origin", "s", "")];
    (volume, trees)
}

#[test]
fn rsync_takes_nothing_across_states_for_a_hard_link() {
    let (volume, [origin, clone, snapshot]) = family();
    let copy = volume.scratch.path().join("copy");
    shell("rsync -aH \"$1\" \"$2\" \"$3/\" \"$4/\"", &[&origin, &clone, &snapshot, &copy]);
    for tree in ["origin", "clone", ""] {
        let links = |name: &str| fs::metadata(copy.join(tree).join(name)).unwrap().nlink();
        assert_eq!((links("single"), links("double"), links("second")), (1, 2, 2), "{tree}");
    }
}

#[test]
fn tar_takes_nothing_across_states_for_a_hard_link() {
    let (_volume, [origin, clone, snapshot]) = family();
    let script = "tar -cf - -P \"$1\" \"$2\" \"$3\" | tar -tvPf -";
    let list = shell(script, &[&origin, &clone, &snapshot]);
    let links: Vec<&str> = list.lines().filter(|line| line.contains(" link to ")).collect();
    assert_eq!(links.len(), 3, "one in each state:\n{list}");
    assert_eq!(list.matches("single").count(), 3, "{list}");
}

#[test]
fn each_state_has_its_own_inode_numbers_on_one_device() {
    let (_volume, trees) = family();
    let stats: Vec<(u64, u64)> = trees
        .iter()
        .map(|tree| fs::metadata(tree.join("single")).unwrap())
        .map(|meta| (meta.dev(), meta.ino()))
        .collect();
    assert!(stats.iter().all(|(dev, _)| *dev == stats[0].0), "{stats:?}");
    let mut numbers: Vec<u64> = stats.iter().map(|(_, ino)| *ino).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 3, "{stats:?}");
    for tree in &trees {
        let listed = shell("ls -A \"$1\"", &[tree]);
        assert_eq!(listed, "double\nsecond\nsingle\n", "{}", tree.display());
    }
}

fn as_nobody(program: &str, path: &Path) -> Output {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", program]).arg(path);
    command.output().unwrap()
}

#[test]
fn a_user_without_privilege_reads_what_permissions_allow() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOTE: not root: users without privilege are left out");
        return;
    }
    let volume = Volume::mounted();
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(volume.scratch.path(), open).unwrap();
    for (name, mode) in [("public", 0o644), ("secret", 0o600)] {
        fs::write(volume.path(name), name).unwrap();
        fs::set_permissions(volume.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::create_dir(volume.path("closed")).unwrap();
    fs::write(volume.path("closed/file"), "inside").unwrap();
    fs::set_permissions(volume.path("closed"), fs::Permissions::from_mode(0o700)).unwrap();
    take(&volume, "", "s");
    // What was allowed then is allowed there, whatever came later.
    fs::set_permissions(volume.path("public"), fs::Permissions::from_mode(0o600)).unwrap();
    let kept = |name: &str| shown(&volume, "", "s", name);
    let read = as_nobody("cat", &kept("public"));
    assert_eq!(read.stdout, b"public", "{read:?}");
    let listed = as_nobody("ls", &kept(""));
    assert_eq!(listed.stdout, b"closed\npublic\nsecret\n", "{listed:?}");
    for path in [kept("secret"), kept("closed/file"), volume.path("public")] {
        assert!(!as_nobody("cat", &path).status.success(), "{}", path.display());
    }
    let root = volume.mountpoint.to_str().unwrap();
    let refused = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", crate::harness::FIRN])
        .args(["snapshot", "create", &format!("{root}@theirs")])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    succeed(volume.firn().args(["snapshot", "list", root]));
}
