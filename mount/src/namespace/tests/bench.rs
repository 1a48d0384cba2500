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
            ns.purged(&[ino]).unwrap();
        }
    });
    let start = Instant::now();
    ns.close().unwrap();
    drop(ns);
    let left: u64 = bytes_below(&path);
    eprintln!("close {:?}, {left} bytes at rest", start.elapsed());
}

/// Digests of snapshots of `FIRN_BENCH_SEALS` files in directories of 1,000: the first, one after
/// 100 files changed, and verifying that one.
#[test]
#[allow(clippy::print_stderr, reason = "a measurement is for people")]
#[allow(clippy::disallowed_methods, reason = "measures real time")]
fn sealing() {
    let Ok(count) = std::env::var("FIRN_BENCH_SEALS") else { return };
    let count: u64 = count.parse().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(&dir.path().join("ns"), StoreOptions::default()).unwrap();
    Namespace::create(&store, &SystemClock, NewRoot { uid: 0, gid: 0, perm: 0o755 }, SEED).unwrap();
    let options = NamespaceOptions::default();
    let ns = Namespace::open(Arc::new(store), Arc::new(SystemClock), options).unwrap();
    let change = |ino: Ino, number: u64| {
        let inode = Inode::clone(&ns.inode(ino).unwrap());
        let digest = Some(blake3::hash(&number.to_le_bytes()));
        let mut txn = ns.begin();
        let now = ns.now();
        txn.put_inode(Inode { size: 4096, mtime: now, digest: None, ..inode.clone() }).unwrap();
        txn.commit(Durability::Buffered).unwrap();
        let mut txn = ns.begin();
        txn.put_inode(Inode { digest, ..Inode::clone(&ns.inode(ino).unwrap()) }).unwrap();
        txn.commit(Durability::Buffered).unwrap();
    };
    let (mut at, mut inodes) = (Ino::ROOT, Vec::new());
    for number in 0..count {
        if number % 1000 == 0 {
            let name = format!("dir-{number}");
            at = ns.mkdir(&USER, Ino::ROOT, name.as_bytes(), 0o755, 0).unwrap().ino;
        }
        let name = format!("file-{number}");
        inodes.push(ns.mknod(&USER, at, name.as_bytes(), 0o100_644, 0o022, 0).unwrap().ino);
        change(*inodes.last().unwrap(), number);
    }
    let seal = |name: &str| {
        let node = ns.snapshot(&[Dataset::ROOT], name, "").unwrap()[0].node;
        let start = Instant::now();
        while ns.sum_some(node, &mut || true).unwrap() == Sealing::More {}
        assert_eq!(ns.seal(node).unwrap(), Sealing::Done);
        eprintln!("sealing {name}: {:?}", start.elapsed());
    };
    seal("first");
    for number in 0..100 {
        change(inodes[(number * count / 100) as usize], number + count);
    }
    seal("second");
    let start = Instant::now();
    let proof = ns.prove((Dataset::ROOT, "second"), None, &mut |_| true).unwrap();
    assert_eq!(proof.flaws, []);
    eprintln!("verifying second: {:?}", start.elapsed());
}
