//! Content of files.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

use crate::harness::{Volume, shell, succeed};

fn new_file(volume: &Volume, name: &str) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).open(volume.path(name)).unwrap()
}

/// "Reading and writing"
#[test]
fn reading_and_writing() {
    let volume = Volume::mounted();
    let writer = new_file(&volume, "file");
    let reader = File::open(volume.path("file")).unwrap();
    for round in 0..50_u8 {
        let at = u64::from(round) * 70_001;
        writer.write_all_at(&[round; 100_000], at).unwrap();
        let mut seen = vec![0; 100_000];
        reader.read_exact_at(&mut seen, at).unwrap();
        assert!(seen.iter().all(|byte| *byte == round), "round {round}");
        let other =
            succeed(Command::new("sh").args(["-c", "wc -c < \"$0\""]).arg(volume.path("file")));
        assert_eq!(other.trim(), (at + 100_000).to_string());
    }
}

/// "Appending"
#[test]
fn appending() {
    let volume = Volume::mounted();
    let path = volume.path("log");
    let script = "for i in $(seq 200); do echo \"$1 $i\" >> \"$0\"; done";
    let mut children: Vec<_> = (0..4)
        .map(|i| Command::new("sh").args(["-c", script]).arg(&path).arg(i.to_string()).spawn())
        .map(Result::unwrap)
        .collect();
    assert!(children.iter_mut().all(|child| child.wait().unwrap().success()));
    let text = fs::read_to_string(&path).unwrap();
    for writer in 0..4 {
        let lines = text.lines().filter(|line| line.starts_with(&format!("{writer} ")));
        let expected = (1..=200).map(|i| format!("{writer} {i}"));
        assert!(lines.eq(expected), "writer {writer}");
    }
}

/// "Truncation"
#[test]
fn truncation() {
    let mut volume = Volume::mounted();
    let file = new_file(&volume, "file");
    file.write_all_at(&[1; 3_000_000], 0).unwrap();
    file.set_len(1_000_001).unwrap();
    file.set_len(2_000_000).unwrap();
    drop(file);
    fs::write(volume.path("other"), "long content").unwrap();
    fs::write(volume.path("other"), "short").unwrap();
    volume.umount();
    volume.mount();
    let content = fs::read(volume.path("file")).unwrap();
    assert_eq!(content.len(), 2_000_000);
    assert!(content[..1_000_001].iter().all(|byte| *byte == 1));
    assert!(content[1_000_001..].iter().all(|byte| *byte == 0));
    assert_eq!(fs::read(volume.path("other")).unwrap(), b"short");
}

/// "Sparse files"
#[test]
fn sparse_files() {
    let mut volume = Volume::mounted();
    let file = new_file(&volume, "file");
    file.set_len(1 << 40).unwrap();
    let at = 777 << 20;
    file.write_all_at(&[5; 8192], at).unwrap();
    let data = |file: &File, offset| rustix::fs::seek(file, SeekFrom::Data(offset));
    let hole = |file: &File, offset| rustix::fs::seek(file, SeekFrom::Hole(offset));
    assert_eq!((data(&file, 0), hole(&file, at)), (Ok(at), Ok(at + 8192)));
    assert_eq!((hole(&file, 0), data(&file, at + 8192)), (Ok(0), Err(Errno::NXIO)));
    file.sync_all().unwrap();
    assert!(file.metadata().unwrap().blocks() < 64);
    let most = (i64::MAX as u64) & !((1 << 20) - 1);
    file.write_all_at(b"end", most - 3).unwrap();
    drop(file);
    volume.umount();
    volume.mount();
    let file = File::open(volume.path("file")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), most);
    assert_eq!((data(&file, 0), hole(&file, at)), (Ok(at), Ok(at + 8192)));
    let mut end = [0; 3];
    file.read_exact_at(&mut end, most - 3).unwrap();
    assert_eq!(&end, b"end");
    let script = r#"cd "$1"; dd if=/dev/urandom of=a bs=64k count=3 seek=9 status=none
        cp --sparse=always a b; cmp a b; cp --reflink=auto a c; cmp a c"#;
    shell(script, &[&volume.mountpoint]);
}

/// "Allocated size"
#[test]
fn allocated_size() {
    let volume = Volume::mounted();
    fs::write(volume.path("zeros"), vec![0; 4 << 20]).unwrap();
    assert_eq!(fs::metadata(volume.path("zeros")).unwrap().blocks(), (4 << 20) / 512);
    let file = new_file(&volume, "sparse");
    file.set_len(4 << 20).unwrap();
    file.write_all_at(&[1; 1 << 20], 1 << 20).unwrap();
    drop(file);
    assert_eq!(fs::metadata(volume.path("sparse")).unwrap().blocks(), (1 << 20) / 512);
}

/// "Allocation"
#[test]
fn allocation() {
    let volume = Volume::mounted();
    let file = new_file(&volume, "file");
    let (keep, punch) = (FallocateFlags::KEEP_SIZE, FallocateFlags::PUNCH_HOLE);
    let fallocate = |flags, offset, len| rustix::fs::fallocate(&file, flags, offset, len);
    fallocate(FallocateFlags::empty(), 0, 1 << 20).unwrap();
    fallocate(keep, 0, 2 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 1 << 20);
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Data(0)), Err(Errno::NXIO));
    file.write_all_at(&[3; 100_000], 0).unwrap();
    fallocate(punch | keep, 10_000, 20_000).unwrap();
    fallocate(FallocateFlags::ZERO_RANGE, 50_000, 10_000).unwrap();
    for mode in [FallocateFlags::COLLAPSE_RANGE, FallocateFlags::INSERT_RANGE] {
        assert_eq!(fallocate(mode, 0, 4096), Err(Errno::OPNOTSUPP));
    }
    let mut expected = vec![3; 100_000];
    expected[10_000..30_000].fill(0);
    expected[50_000..60_000].fill(0);
    expected.resize(1 << 20, 0);
    drop(file);
    assert_eq!(fs::read(volume.path("file")).unwrap(), expected);
}

/// "Copying ranges"
#[test]
fn copying_ranges() {
    let mut volume = Volume::mounted();
    let content: Vec<u8> = (0..3_000_000_u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
    let from = new_file(&volume, "from");
    from.write_all_at(&content, 0).unwrap();
    let to = new_file(&volume, "to");
    let (mut at, mut target) = (1000, 5);
    while at < 2_000_000 {
        let len = 2_000_000 - at as usize;
        let copied = rustix::fs::copy_file_range(&from, Some(&mut at), &to, Some(&mut target), len);
        assert!(copied.unwrap() > 0);
    }
    let (mut at, mut target) = (0, 2_500_000);
    rustix::fs::copy_file_range(&from, Some(&mut at), &from, Some(&mut target), 1000).unwrap();
    assert_eq!(rustix::fs::ioctl_ficlone(&to, &from), Err(Errno::OPNOTSUPP));
    // Changing one leaves the other alone.
    from.write_all_at(&[0; 100_000], 1000).unwrap();
    drop((from, to));
    volume.umount();
    volume.mount();
    let copy = fs::read(volume.path("to")).unwrap();
    assert!(copy[..5] == [0; 5] && copy[5..] == content[1000..2_000_000]);
    let origin = fs::read(volume.path("from")).unwrap();
    assert!(origin[2_500_000..2_501_000] == content[..1000]);
    let incompressible = r#"cd "$1"; dd if=/dev/urandom of=big bs=1M count=24 status=none; sync big
        before=$(du -sk "$2" | cut -f1); cp --reflink=auto big copy; sync copy; cmp big copy
        after=$(du -sk "$2" | cut -f1); test $((after - before)) -lt 8192"#;
    shell(incompressible, &[&volume.mountpoint, &volume.dir]);
}

/// "Memory maps"
#[test]
fn memory_maps() {
    let mut volume = Volume::mounted();
    let path = volume.path("file");
    fs::write(&path, vec![b'.'; 300_000]).unwrap();
    let script = r#"
import mmap, os, sys
f = open(sys.argv[1], 'r+b')
private = mmap.mmap(f.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ|mmap.PROT_WRITE)
private[5:8] = b'no!'
shared = mmap.mmap(f.fileno(), 0)
shared[100000:100003] = b'yes'
assert os.pread(f.fileno(), 3, 100000) == b'yes'
os.pwrite(f.fileno(), b'too', 200000)
assert shared[200000:200003] == b'too'
shared.flush()
os._exit(0)
"#;
    succeed(Command::new("python3").args(["-c", script]).arg(&path));
    volume.kill();
    volume.mount();
    let content = fs::read(&path).unwrap();
    assert_eq!(&content[100_000..100_003], b"yes");
    assert_eq!(&content[200_000..200_003], b"too");
    assert_eq!(&content[..10], b"..........");
}

/// "Direct input and output"
#[test]
fn direct_input_and_output() {
    let volume = Volume::mounted();
    let script = r#"cd "$1"; dd if=/dev/urandom of=a bs=1M count=5 oflag=direct status=none
        cp a b; dd if=b of=c bs=128k iflag=direct oflag=direct status=none; cmp a c
        printf cached | dd of=c bs=1 seek=65536 conv=notrunc status=none
        test "$(dd if=c bs=4096 skip=16 count=1 iflag=direct status=none | head -c 6)" = cached"#;
    shell(script, &[&volume.mountpoint]);
}

/// What is shown of a file's digest.
fn digest(path: &Path) -> Option<String> {
    let mut value = [0; 100];
    match rustix::fs::getxattr(path, "user.firn.blake3", &mut value[..]) {
        Ok(len) => Some(String::from_utf8(value[..len].to_vec()).unwrap()),
        Err(Errno::NODATA) => None,
        Err(error) => panic!("{error}"),
    }
}

/// The digest, once there is one.
fn digest_later(path: &Path) -> String {
    let mut looks = (0..450).map(|_| {
        std::thread::sleep(Duration::from_millis(200));
        digest(path)
    });
    looks.find_map(|found| found).unwrap_or_else(|| panic!("no digest of {}", path.display()))
}

/// "Digests"
#[test]
fn digests() {
    let volume = Volume::mounted();
    let path = volume.path("file");
    let content: Vec<u8> =
        (0..3_000_000_u32).flat_map(|n| n.wrapping_mul(7).to_le_bytes()).collect();
    fs::write(&path, &content).unwrap();
    assert_eq!(digest(&path), None, "it changed a moment ago");
    let of = |content: &[u8]| blake3::hash(content).to_hex().to_string();
    let before = fs::metadata(&path).unwrap();
    assert_eq!(digest_later(&path), of(&content));
    let after = fs::metadata(&path).unwrap();
    let times = |of: &fs::Metadata| (of.mtime_nsec(), of.ctime(), of.ctime_nsec(), of.atime_nsec());
    assert_eq!(times(&before), times(&after));
    let mut names = [0; 1000];
    assert_eq!(rustix::fs::listxattr(&path, &mut names[..]), Ok(0), "copies do not take it along");
    let root = volume.mountpoint.to_str().unwrap();
    volume.run(&["snapshot", "create", &format!("{root}@s")]);
    {
        // In the kernel's cache only.
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(b"new", 0).unwrap();
        assert_eq!(digest(&path), None, "somebody has it open for writing");
    }
    let now = digest(&path);
    assert!(now.is_none(), "{now:?}");
    let changed = [b"new", &content[3..]].concat();
    assert_eq!(digest_later(&path), of(&changed));
    assert_eq!(digest(&volume.path(".firn/snapshot/s/file")), Some(of(&content)));
    fs::write(volume.path("empty"), b"").unwrap();
    assert_eq!(digest_later(&volume.path("empty")), of(b""));
    assert_eq!(digest(&volume.mountpoint), None);
}

/// "Locks"
#[test]
fn locks() {
    let volume = Volume::mounted();
    let script = r#"cd "$1"; touch f; exec 9< f; flock -x 9; ! flock -nx f true; flock -u 9; flock -nx f true
        python3 -c "
import fcntl, subprocess, sys
f = open('f', 'r+'); fcntl.lockf(f, fcntl.LOCK_EX, 10, 5)
other = 'import fcntl,sys; f = open(\"f\", \"r+\"); fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, int(sys.argv[1]))'
assert subprocess.call([sys.executable, '-c', other, '20']) == 0
assert subprocess.call([sys.executable, '-c', other, '0'], stderr=subprocess.DEVNULL) != 0
""#;
    shell(script, &[&volume.mountpoint]);
    let mut nothing = String::new();
    File::open(volume.path("f")).unwrap().read_to_string(&mut nothing).unwrap();
    File::options().append(true).open(volume.path("f")).unwrap().write_all(b"x").unwrap();
}
