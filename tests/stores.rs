//! A cold tier that is five stores, of which any two may be lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::{Volume, noise, now, succeed};

const STORES: usize = 5;

fn store(volume: &Volume, at: usize) -> PathBuf {
    volume.scratch.path().join(format!("store{at}"))
}

fn urls(root: &Path) -> Vec<String> {
    (0..STORES).map(|at| format!("file://{}", root.join(format!("store{at}")).display())).collect()
}

/// A mounted volume over three stores for data and two for parity.
fn spread() -> Volume {
    let scratch = tempfile::tempdir().unwrap();
    let mut init: Vec<String> =
        urls(scratch.path()).into_iter().flat_map(|url| ["--cold".to_owned(), url]).collect();
    init.extend(["--cold-parity".to_owned(), "2".to_owned()]);
    let init: Vec<&str> = init.iter().map(String::as_str).collect();
    Volume::in_scratch(scratch, &init)
}

fn contents() -> Vec<(String, Vec<u8>)> {
    let lens = [0, 1, 4096, 70_000, 1_000_000, 9_000_000];
    lens.iter()
        .enumerate()
        .map(|(at, len)| (format!("f{at}"), noise(at as u64 + 1, *len)))
        .collect()
}

fn assert_same(volume: &Volume, when: &str) {
    for (name, content) in contents() {
        let read = fs::read(volume.path(&name)).unwrap();
        assert!(read == content, "{when}: {name}");
    }
}

fn evict(volume: &Volume) {
    let root = volume.mountpoint.to_str().unwrap();
    volume.run(&["tier", "archive", "-r", root]);
    volume.run(&["tier", "release", "-r", root]);
}

fn status(volume: &Volume) -> Value {
    let text = volume.run(&["status", "--json", volume.dir.to_str().unwrap()]);
    serde_json::from_str(&text).unwrap()
}

/// Has an unmount not wait long for stores that are gone.
fn hurry(dir: &Path) {
    let config = dir.join("firn.toml");
    let text = fs::read_to_string(&config).unwrap();
    let hurried = |line: &str| match line.starts_with("umount_deadline") {
        true => "umount_deadline = \"2s\"\n".to_owned(),
        false => format!("{line}\n"),
    };
    fs::write(&config, text.lines().map(hurried).collect::<String>()).unwrap();
}

fn shards(volume: &Volume, at: usize) -> usize {
    fs::read_dir(store(volume, at).join("segments")).map_or(0, Iterator::count)
}

#[test]
fn any_two_of_five_stores_may_be_lost_and_are_filled_again() {
    let mut volume = spread();
    for (name, content) in contents() {
        fs::write(volume.path(&name), content).unwrap();
    }
    evict(&volume);
    // What the kernel keeps of the writes goes with the mount.
    volume.umount();
    hurry(&volume.dir);
    volume.mount();
    assert_same(&volume, "whole");
    let before = status(&volume);
    let spread = &before["cold"]["spread"];
    assert_eq!((spread["data"].as_u64(), spread["parity"].as_u64()), (Some(3), Some(2)));
    assert!((spread["overhead"].as_f64().unwrap() - 0.6704).abs() < 0.001, "{spread}");
    let count = shards(&volume, 0);
    assert!(count > 0 && (1..STORES).all(|at| shards(&volume, at) == count));
    evict(&volume);
    volume.umount();
    volume.mount();

    // While it is mounted.
    for at in [0, 3] {
        fs::remove_dir_all(store(&volume, at)).unwrap();
    }
    assert_same(&volume, "with two stores gone under the mount");
    let seen = status(&volume);
    assert_eq!(seen["cold"]["spread"]["stores"][0]["state"], "failing", "{seen}");
    let warnings = seen["warnings"].to_string();
    assert!(warnings.contains("store 1 of the cold tier"), "{warnings}");
    volume.umount();
    volume.mount();
    assert_same(&volume, "mounted without two stores");
    volume.umount();

    let dir = volume.dir.to_str().unwrap().to_owned();
    let checked = volume.firn().args(["check", &dir]).output().unwrap();
    assert_eq!(checked.status.code(), Some(3), "{checked:?}");
    // Nothing is stored in a place that may be a directory whose filesystem is not mounted.
    fs::create_dir(store(&volume, 0)).unwrap();
    let checked = volume.firn().args(["check", "--repair", &dir]).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout);
    assert_eq!(checked.status.code(), Some(3), "{checked:?}");
    assert!(said.contains("--repair --refill 1"), "{said}");
    assert_eq!(fs::read_dir(store(&volume, 0)).unwrap().count(), 0);
    assert!(!store(&volume, 3).exists());
    volume.run(&["check", "--repair", "--refill", "1", "--refill", "4", "--data", &dir]);
    assert_eq!(shards(&volume, 0), count);
    volume.run(&["check", "--data", &dir]);

    // The others, now.
    for at in [1, 4] {
        fs::remove_dir_all(store(&volume, at)).unwrap();
    }
    volume.mount();
    assert_same(&volume, "with two other stores gone");
    volume.umount();
    let new = volume.scratch.path().join("recovered");
    let mut recover = volume.firn();
    recover.arg("recover").args(urls(volume.scratch.path())).arg(&new);
    succeed(recover.args(["--cold-parity", "2"]));
    hurry(&new);
    let mut recovered = Volume::existing(new);
    for (name, content) in contents() {
        assert!(fs::read(recovered.path(&name)).unwrap() == content, "recovered: {name}");
    }
    recovered.umount();
}

#[test]
fn a_scrub_makes_damaged_and_missing_shards_anew() {
    let volume = spread();
    for (name, content) in contents() {
        fs::write(volume.path(&name), content).unwrap();
    }
    evict(&volume);
    let of = |at: usize| {
        let dir = fs::read_dir(store(&volume, at).join("segments")).unwrap();
        let mut files: Vec<PathBuf> = dir.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    };
    let whole: Vec<Vec<Vec<u8>>> =
        (0..STORES).map(|at| of(at).iter().map(|path| fs::read(path).unwrap()).collect()).collect();
    fs::remove_file(&of(2)[0]).unwrap();
    let mut wrong = whole[4][0].clone();
    let middle = wrong.len() / 2;
    wrong[middle] ^= 1;
    fs::write(&of(4)[0], wrong).unwrap();
    let backup = store(&volume, 1).join("volume.json");
    let identity = fs::read(&backup).unwrap();
    fs::remove_file(&backup).unwrap();
    let root = volume.mountpoint.to_str().unwrap();
    volume.run(&["scrub", "start", "--wait", "--cold-data", root]);
    for (at, whole) in whole.iter().enumerate() {
        let now: Vec<_> = of(at).iter().map(|path| fs::read(path).unwrap()).collect();
        assert!(now == *whole, "store {at}");
    }
    assert_eq!(fs::read(&backup).unwrap(), identity);
    let damage = status(&volume)["damage"].to_string();
    assert!(damage.contains("2 of 5 shards are missing or damaged"), "{damage}");
    assert_same(&volume, "mended");
}

fn threads(volume: &Volume, name: &str) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", volume.pid())).unwrap().flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|found| found.trim() == name).count()
}

/// One lies on a filesystem whose daemon stands still, as where a server cannot be reached.
#[test]
fn a_store_that_hangs_holds_up_neither_mounts_nor_reads_and_keeps_one_thread() {
    let below = Volume::mounted();
    let scratch = tempfile::tempdir().unwrap();
    let mut urls = urls(scratch.path());
    urls[1] = format!("file://{}", below.path("store").display());
    let mut init: Vec<&str> = urls.iter().flat_map(|url| ["--cold", url.as_str()]).collect();
    init.extend(["--cold-parity", "2"]);
    let mut volume = Volume::in_scratch(scratch, &init);
    hurry(&volume.dir);
    for (name, content) in contents() {
        fs::write(volume.path(&name), content).unwrap();
    }
    evict(&volume);
    volume.umount();
    let daemon = Pid::from_raw(below.pid() as i32).unwrap();
    kill_process(daemon, Signal::STOP).unwrap();
    // Nothing of the store is answered from memory.
    let _ = fs::write("/proc/sys/vm/drop_caches", "2");
    for mount in 0..2 {
        volume.mount();
        assert_same(&volume, "while a store hangs");
        for name in ["firn-open", "firn-place"] {
            assert!(threads(&volume, name) <= 1, "mount {mount}: {name}");
        }
        let seen = status(&volume);
        let stat = fs::read_to_string(format!("/proc/{}/stat", below.pid())).unwrap();
        let stores = &seen["cold"]["spread"]["stores"];
        // Whoever controls the jobs of this session may have had it go on.
        if stat.contains(") T ") {
            assert_eq!(stores[1]["state"], "failing", "mount {mount}: {stores}; {}", volume.log());
        }
        volume.umount();
    }
    volume.mount();
    kill_process(daemon, Signal::CONT).unwrap();
    // Which needs every store.
    fs::write(volume.path("more"), noise(99, 1_000_000)).unwrap();
    let start = now();
    let archive = || volume.firn().args(["tier", "archive"]).arg(volume.path("more")).output();
    while !archive().unwrap().status.success() {
        assert!(start.elapsed() < Duration::from_secs(60), "{}", status(&volume));
        std::thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(status(&volume)["cold"]["spread"]["stores"][1]["state"], "ok");
    volume.umount();
}

#[test]
fn stores_in_another_order_are_refused() {
    let mut volume = spread();
    volume.umount();
    let config = volume.dir.join("firn.toml");
    let text = fs::read_to_string(&config).unwrap();
    let swapped = text.replace("/store1\"", "/storeX\"").replace("/store2\"", "/store1\"");
    fs::write(&config, swapped.replace("/storeX\"", "/store2\"")).unwrap();
    let refused = volume.firn().arg("mount").arg(&volume.dir).arg(&volume.mountpoint).output();
    let refused = refused.unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success());
    assert!(said.contains("it is store 3 of 3+2, and stands as store 2 of 3+2"), "{said}");
    assert!(said.contains("hint: name all stores in the order"), "{said}");
}

#[test]
fn an_encrypted_volume_is_spread_as_any_other() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().to_owned();
    let key = root.join("key").display().to_string();
    fs::write(&key, "5a".repeat(32)).unwrap();
    let mut init: Vec<String> =
        urls(&root).into_iter().flat_map(|url| ["--cold".to_owned(), url]).collect();
    init.extend(["--cold-parity", "2", "--encrypt", "--key-file", &key].map(str::to_owned));
    let init: Vec<&str> = init.iter().map(String::as_str).collect();
    let mut volume = Volume::in_scratch(scratch, &init);
    for (name, content) in contents() {
        fs::write(volume.path(&name), content).unwrap();
    }
    evict(&volume);
    volume.umount();
    fs::remove_dir_all(store(&volume, 1)).unwrap();
    let shard = fs::read_dir(store(&volume, 2).join("segments")).unwrap().next().unwrap();
    let shard = shard.unwrap().path();
    let mut bytes = fs::read(&shard).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&shard, bytes).unwrap();
    // The store that is gone is made again and filled, and the shard is made whole.
    let dir = volume.dir.to_str().unwrap();
    volume.run(&["check", "--repair", "--refill", "2", "--data", dir]);
    for lost in [0, 4] {
        fs::remove_dir_all(store(&volume, lost)).unwrap();
    }
    let new = volume.scratch.path().join("recovered");
    let mut recover = volume.firn();
    recover.arg("recover").args(urls(volume.scratch.path())).arg(&new);
    succeed(recover.args(["--cold-parity", "2", "--key-file", &key]));
    hurry(&new);
    let recovered = Volume::existing(new);
    for (name, content) in contents() {
        assert!(fs::read(recovered.path(&name)).unwrap() == content, "recovered: {name}");
    }
}
