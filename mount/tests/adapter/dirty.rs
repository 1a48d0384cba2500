//! What the kernel holds and has not written out: before who needs it is answered, and when it fails.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt;

use rustix::io::Errno;

use super::recording::REFUSED;
use super::{Mounted, errno, ino, wait_until, written};

#[test]
fn holes_are_looked_for_after_dirty_pages_were_written() {
    let Some(mounted) = Mounted::new() else { return };
    let file = File::create_new(mounted.path("f")).unwrap();
    file.set_len(1 << 20).unwrap();
    file.write_all_at(&[1; 4096], 512 << 10).unwrap();
    let found = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)).unwrap();
    assert_eq!(found, 512 << 10);
    let found = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(512 << 10)).unwrap();
    assert_eq!(found, (512 << 10) + 4096);
    let seek = |offset| rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(offset));
    assert_eq!(seek(2 << 20), Err(Errno::NXIO));
    // Nothing is drained once nobody has the file open for writing.
    drop(file);
    let file = File::open(mounted.path("f")).unwrap();
    assert!(!mounted.session().kernel_cache().may_be_dirty(ino(&mounted.path("f"))));
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)).unwrap(), 512 << 10);
}

#[test]
fn ranges_are_copied_after_both_files_were_written() {
    let Some(mounted) = Mounted::new() else { return };
    let from = File::create_new(mounted.path("from")).unwrap();
    let mut to = OpenOptions::new();
    let to = to.read(true).write(true).create_new(true).open(mounted.path("to")).unwrap();
    from.write_all_at(&[1; 8192], 0).unwrap();
    to.write_all_at(&[2; 16384], 0).unwrap();
    let from = File::open(mounted.path("from")).unwrap();
    let (mut at, mut target) = (0, 4096);
    let copied = rustix::fs::copy_file_range(&from, Some(&mut at), &to, Some(&mut target), 8192);
    assert_eq!(copied.unwrap(), 8192);
    let calls = mounted.core.calls();
    let copy = calls.iter().position(|call| call.starts_with("copy ")).unwrap();
    assert!(calls[..copy].iter().any(|call| call.contains(" 0+8192 cache=true")), "{calls:#?}");
    let mut content = Vec::new();
    { &to }.read_to_end(&mut content).unwrap();
    assert_eq!(content, [[2; 4096], [1; 4096], [1; 4096], [2; 4096]].concat());
}

#[test]
fn draining_everything_writes_out_all_open_files() {
    let Some(mounted) = Mounted::new() else { return };
    let files: Vec<_> =
        (0..5).map(|i| File::create(mounted.path(&format!("f{i}"))).unwrap()).collect();
    files.iter().for_each(|mut file| file.write_all(&[9; 100_000]).unwrap());
    let cache = mounted.session().kernel_cache();
    cache.drain_all().unwrap();
    let total: u64 = mounted.core.calls_of("write").iter().map(|call| written(call)).sum();
    assert!(total >= 500_000, "{:#?}", mounted.core.calls());
}

#[test]
fn draining_fails_for_what_was_refused_of_an_open_file_and_not_of_a_closed_one() {
    let Some(mounted) = Mounted::new() else { return };
    let cache = mounted.session().kernel_cache();
    let mut closed = File::create(mounted.path("closed")).unwrap();
    closed.write_all(REFUSED).unwrap();
    assert_eq!(errno(closed.sync_all()), Some(libc::ENOSPC));
    drop(closed);
    // The kernel tells of it once more to whoever writes out the whole mount.
    let mut open = File::create(mounted.path("open")).unwrap();
    open.write_all(b"content").unwrap();
    cache.drain_all().unwrap();

    let mut another = File::create(mounted.path("another")).unwrap();
    another.write_all(REFUSED).unwrap();
    assert_eq!(errno(cache.drain_all()), Some(libc::ENOSPC));
    cache.drain_all().unwrap();

    // Also when the kernel wrote it out by itself, and nobody has asked.
    let before = mounted.core.calls_of("write").len();
    another.seek(SeekFrom::Start(0)).unwrap();
    another.write_all(REFUSED).unwrap();
    // SAFETY: the descriptor is open, and nothing but it is passed.
    let started =
        unsafe { libc::sync_file_range(another.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
    assert_eq!(started, 0);
    wait_until(|| mounted.core.calls_of("write").len() > before);
    assert_eq!(errno(cache.drain_all()), Some(libc::ENOSPC));
    cache.drain_all().unwrap();
}
