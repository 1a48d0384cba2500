//! Rates of single-threaded metadata operations on local disk. Set `FIRN_BENCH_NAMESPACE` to the
//! number of files and run in release mode with `--nocapture`.

use std::time::Instant;

use firn_tiering::SystemClock;

use super::*;

#[test]
#[allow(clippy::print_stderr, reason = "a measurement is for people")]
#[allow(clippy::disallowed_methods, reason = "measures real time")]
fn rates() {
    let Ok(count) = std::env::var("FIRN_BENCH_NAMESPACE") else { return };
    let count: u64 = count.parse().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ns");
    let store = LocalStore::open(&path, StoreOptions::default()).unwrap();
    Namespace::create(&store, &SystemClock, NewRoot { uid: 0, gid: 0, perm: 0o755 }, SEED).unwrap();
    let options = NamespaceOptions::default();
    let ns = Namespace::open(Arc::new(store), Arc::new(SystemClock), options).unwrap();
    let name = |number: u64| format!("file-{number:08}");
    let timed = |what: &str, run: &mut dyn FnMut()| {
        let start = Instant::now();
        run();
        let rate = count as f64 / start.elapsed().as_secs_f64();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let rss = status.lines().find(|line| line.starts_with("VmRSS")).unwrap().to_owned();
        eprintln!("{what:>20} {rate:>10.0}/s  {rss}");
    };
    let mut inodes = Vec::new();
    timed("create", &mut || {
        let mut at = Ino::ROOT;
        for number in 0..count {
            if number % 1000 == 0 {
                let dir = format!("dir-{number}");
                at = ns.mkdir(&USER, Ino::ROOT, dir.as_bytes(), 0o755, 0).unwrap().ino;
            }
            let name = name(number);
            assert!(ns.lookup(at, name.as_bytes()).is_err());
            let inode = ns.mknod(&USER, at, name.as_bytes(), 0o100_644, 0o022, 0).unwrap();
            inodes.push((at, inode.ino));
        }
    });
    timed("put slot", &mut || {
        for (number, &(_, ino)) in inodes.iter().enumerate() {
            let mut inode = Inode::clone(&ns.inode(ino).unwrap());
            let mut txn = ns.begin();
            txn.put_slot(&mut inode, 0, &[piece(0, 4096, number as u64 / 50)]).unwrap();
            inode.size = 4096;
            txn.put_inode(inode).unwrap();
            txn.commit(Durability::Buffered).unwrap();
        }
    });
    timed("lookup", &mut || {
        for (number, &(dir, _)) in inodes.iter().enumerate() {
            ns.lookup(dir, name(number as u64).as_bytes()).unwrap();
        }
    });
    timed("lookup of nothing", &mut || {
        for &(dir, _) in &inodes {
            ns.lookup(dir, b"nothing").unwrap_err();
        }
    });
    timed("readdir with plus", &mut || {
        let mut at = Ino::ROOT;
        for &(dir, _) in &inodes {
            if dir != at {
                ns.readdir(dir, 0, true, &mut |_| true).unwrap();
                at = dir;
            }
        }
    });
    eprintln!("stored {} bytes", ns.store().stored_bytes().unwrap());
    timed("unlink and purge", &mut || {
        for (number, &(dir, ino)) in inodes.iter().enumerate() {
            ns.unlink(dir, name(number as u64).as_bytes()).unwrap();
            ns.purge(&[ino]).unwrap();
        }
    });
    let start = Instant::now();
    ns.close().unwrap();
    drop(ns);
    let left: u64 = bytes_below(&path);
    eprintln!("close {:?}, {left} bytes at rest", start.elapsed());
}
