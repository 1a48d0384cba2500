//! What a snapshot showed once it always shows.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::io::Errno;

use super::{at, make_dataset, shown, take};
use crate::harness::{FIRN, Volume, shell, succeed};

/// Writes through a mapping and a descriptor, takes a snapshot, and writes on.
const UNSYNCED: &str = r#"
import mmap, subprocess, sys
firn, root = sys.argv[1:]
file = open(root + '/mapped', 'w+b')
file.truncate(1 << 20)
pages = mmap.mmap(file.fileno(), 0)
pages[:5] = b'pages'
written = open(root + '/written', 'wb', buffering=0)
written.write(b'unsynced')
subprocess.check_call([firn, 'snapshot', 'create', root + '@now'])
pages[:5] = b'later'
written.write(b' and more')
"#;

#[test]
fn what_was_written_before_is_in_without_fsync() {
    let volume = Volume::mounted();
    succeed(Command::new("python3").args(["-c", UNSYNCED, FIRN]).arg(&volume.mountpoint));
    let kept = |name: &str| fs::read(shown(&volume, "", "now", name)).unwrap();
    let mapped = kept("mapped");
    assert_eq!((&mapped[..5], mapped.len()), (&b"pages"[..], 1 << 20));
    assert_eq!(kept("written"), b"unsynced");
    assert_eq!(fs::read(volume.path("written")).unwrap(), b"unsynced and more");
    assert_eq!(&fs::read(volume.path("mapped")).unwrap()[..5], b"later");
}

#[test]
fn nothing_in_a_snapshot_can_be_changed() {
    let volume = Volume::mounted();
    fs::create_dir(volume.path("dir")).unwrap();
    fs::copy("/bin/true", volume.path("dir/true")).unwrap();
    take(&volume, "", "s");
    let inside = shown(&volume, "", "s", "dir");
    let refused = [
        fs::write(inside.join("true"), "").unwrap_err(),
        fs::write(inside.join("new"), "").unwrap_err(),
        fs::remove_file(inside.join("true")).unwrap_err(),
        fs::rename(inside.join("true"), inside.join("other")).unwrap_err(),
        fs::create_dir(inside.join("new")).unwrap_err(),
    ];
    for error in refused {
        assert_eq!(error.raw_os_error(), Some(Errno::ROFS.raw_os_error()), "{error}");
    }
    succeed(&mut Command::new(inside.join("true")));
    assert_eq!(inside.join("..").canonicalize().unwrap(), shown(&volume, "", "s", ""));
}

#[test]
fn a_clone_goes_its_own_way() {
    let volume = Volume::mounted();
    make_dataset(&volume, "origin");
    let content: Vec<u8> = (0..3_u32 << 18).flat_map(u32::to_le_bytes).collect();
    fs::write(volume.path("origin/file"), &content).unwrap();
    take(&volume, "origin", "s");
    let clone = volume.path("clone");
    volume.run(&["snapshot", "clone", &at(&volume, "origin", "s"), clone.to_str().unwrap()]);
    assert_eq!(fs::read(clone.join("file")).unwrap(), content);
    let change = |path: PathBuf, text: &str| {
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(text.as_bytes(), 1 << 20).unwrap();
    };
    change(volume.path("origin/file"), "origin");
    change(clone.join("file"), "clone!");
    fs::write(clone.join("only here"), "").unwrap();
    for (path, text) in [(volume.path("origin/file"), "origin"), (clone.join("file"), "clone!")] {
        let mut expected = content.clone();
        expected[1 << 20..][..6].copy_from_slice(text.as_bytes());
        assert!(fs::read(&path).unwrap() == expected, "{}", path.display());
    }
    assert!(fs::read(shown(&volume, "origin", "s", "file")).unwrap() == content);
    assert!(!volume.path("origin/only here").exists());
    let moved = fs::rename(clone.join("only here"), volume.path("origin/moved")).unwrap_err();
    assert_eq!(moved.raw_os_error(), Some(Errno::XDEV.raw_os_error()));
    let linked = fs::hard_link(clone.join("file"), volume.path("origin/linked")).unwrap_err();
    assert_eq!(linked.raw_os_error(), Some(Errno::XDEV.raw_os_error()));
}

/// The next version of a tree: some files change in the middle, some come, go and move, and so do
/// their attributes.
const NEXT_VERSION: &str = r#"
mkdir -p "$1/dir/sub" && cd "$1"
version=$2
for i in $(seq 0 9); do
    [ -e "file$i" ] || head -c 300000 /dev/urandom >"file$i"
done
for i in 1 4 $version; do
    head -c 5000 /dev/urandom | dd of="file$((i % 10))" bs=1 seek=$((version * 20000)) conv=notrunc status=none
done
echo "$version" >"dir/new$version"
rm -f "dir/new$((version - 2))"
mv -T dir/sub "dir/moved$version" && mkdir dir/sub
ln -f file1 "dir/link"
ln -sfn "file$((version % 10))" symlink
chmod $((600 + version % 8)) file2
touch -d "2001-02-0$((version % 9 + 1)) 03:04:05.678901234" file3
setfattr -n user.version -v "$version" file5
truncate -s $((version * 12345)) file6
"#;

const VERSIONS: usize = 10;

struct Versions {
    dir: PathBuf,
}

impl Versions {
    fn version(&self, number: usize) -> PathBuf {
        self.dir.join(number.to_string())
    }

    /// Each snapshot against the version of which it was taken: content, times, owners, modes,
    /// extended attributes and hard links.
    fn assert_kept(&self, volume: &Volume, dataset: &str, when: &str) {
        for number in 1..=VERSIONS {
            let kept = shown(volume, dataset, &format!("v{number}"), "tree");
            let compare = "rsync -aHAXnci --delete \"$1/\" \"$2/\"";
            let difference = shell(compare, &[&self.version(number), &kept]);
            assert!(difference.is_empty(), "{when}, version {number}:\n{difference}");
        }
    }
}

#[test]
fn ten_versions_stay_through_crash_remount_and_release_to_cold() {
    let mut volume = Volume::mounted();
    let versions = Versions { dir: volume.scratch.path().join("versions") };
    let source = volume.scratch.path().join("source");
    fs::create_dir(&versions.dir).unwrap();
    for number in 1..=VERSIONS {
        shell(NEXT_VERSION, &[&source, Path::new(&number.to_string())]);
        shell("cp -a \"$1\" \"$2\"", &[&source, &versions.version(number)]);
        let update =
            "rsync -aHAX --ignore-times --inplace --no-whole-file --delete \"$1/\" \"$2/\"";
        shell(update, &[&source, &volume.path("tree")]);
        take(&volume, "", &format!("v{number}"));
    }
    versions.assert_kept(&volume, "", "live");
    volume.kill();
    volume.mount();
    versions.assert_kept(&volume, "", "after kill -9");
    let mut other = Volume::mounted();
    for number in 1..=VERSIONS {
        send(&volume, number, &other);
    }
    versions.assert_kept(&other, "received", "received");
    let root = volume.mountpoint.to_str().unwrap().to_owned();
    // What only snapshots hold is moved by way of them.
    let kept = format!("{root}/.firn/snapshot");
    volume.run(&["tier", "archive", "-r", &root, &kept]);
    volume.run(&["tier", "release", "-r", &root, &kept]);
    volume.umount();
    volume.mount();
    versions.assert_kept(&volume, "", "after release and remount");
    other.kill();
    other.mount();
    versions.assert_kept(&other, "received", "received, after kill -9");
    for volume in [&mut volume, &mut other] {
        volume.umount();
        volume.run(&["check", volume.dir.to_str().unwrap()]);
    }
}

/// Sends a version to another volume through a pipe, from the one before it.
fn send(from: &Volume, number: usize, to: &Volume) {
    let (firn, source, received) = (Path::new(FIRN), &from.mountpoint, to.path("received"));
    let version = format!("v{number}");
    let base = format!("@v{}", number - 1);
    let script = r#"
        set -o pipefail
        "$1" snapshot send ${5:+-i "$5"} "$2@$4" | "$1" snapshot receive "$3""#;
    let (version, base) = (Path::new(&version), Path::new(&base));
    match number {
        1 => shell(script, &[firn, source, &received, version]),
        _ => shell(script, &[firn, source, &received, version, base]),
    };
}
