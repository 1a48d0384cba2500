//! Quotas through the kernel: what is refused, when it is told, and what makes room again.

use std::fs;
use std::io::{self, Write as _};
use std::time::Duration;

use super::{at, make_dataset, take};
use crate::harness::{Volume, now, shell};

const MIB: u64 = 1 << 20;

/// How long the background may take.
const PATIENCE: Duration = Duration::from_secs(30);

fn set_quota(volume: &Volume, dataset: &str, quota: &str) {
    let quota = format!("quota={quota}");
    volume.run(&["dataset", "set", &quota, volume.path(dataset).to_str().unwrap()]);
}

/// Writes noise through the kernel's cache, and says how that ended at the latest.
fn fill(volume: &Volume, name: &str, bytes: u64) -> io::Result<()> {
    let mut file = fs::File::create(volume.path(name))?;
    let noise: Vec<u8> = (0..MIB).map(|n| ((n * n) >> 7) as u8).collect();
    for number in 0..bytes / MIB {
        file.write_all(&number.to_le_bytes())?;
        file.write_all(&noise[8..])?;
    }
    file.sync_all()
}

fn is_over(outcome: &io::Result<()>) -> bool {
    outcome.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EDQUOT))
}

/// Total and free bytes as `df` shows them.
fn room(volume: &Volume, path: &str) -> (u64, u64) {
    let stats = rustix::fs::statvfs(volume.path(path)).unwrap();
    (stats.f_blocks * stats.f_frsize, stats.f_bavail * stats.f_frsize)
}

fn wait_for_room(volume: &Volume, path: &str, free: u64) {
    let start = now();
    while room(volume, path).1 < free {
        assert!(start.elapsed() < PATIENCE, "{:?}", room(volume, path));
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn listed(volume: &Volume, dataset: &str) -> serde_json::Value {
    let path = volume.path(dataset);
    let list = volume.run(&["dataset", "list", "--json", path.to_str().unwrap()]);
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    list["datasets"][0].clone()
}

#[test]
fn a_quota_is_told_to_programs_and_space_comes_back() {
    let mut volume = Volume::mounted();
    make_dataset(&volume, "d");
    set_quota(&volume, "d", "16MiB");
    assert_eq!(room(&volume, "d"), (16 * MIB, 16 * MIB));
    assert!(room(&volume, "").0 > 1 << 30);
    fill(&volume, "d/fits", 8 * MIB).unwrap();
    assert_eq!(room(&volume, "d/fits"), (16 * MIB, 8 * MIB));
    assert!(is_over(&fill(&volume, "d/large", 64 * MIB)));
    fs::remove_file(volume.path("d/large")).unwrap();
    wait_for_room(&volume, "d", 8 * MIB);
    // Nobody syncs: it is told when the file is closed.
    let dd = "dd if=/dev/zero of=\"$1\" bs=1M count=64 status=none 2>&1 || true";
    let told = shell(dd, &[&volume.path("d/large")]);
    assert!(told.contains("Disk quota exceeded"), "{told}");
    fs::remove_file(volume.path("d/large")).unwrap();
    wait_for_room(&volume, "d", 8 * MIB);

    take(&volume, "d", "s");
    fs::remove_file(volume.path("d/fits")).unwrap();
    fill(&volume, "d/more", 8 * MIB).unwrap();
    assert_eq!(room(&volume, "d").1, 0, "the snapshot keeps what was removed");
    let line = listed(&volume, "d");
    assert_eq!(line["used_bytes"], 16 * MIB, "{line}");
    assert_eq!(line["referenced_bytes"], 8 * MIB, "{line}");
    assert_eq!((&line["available_bytes"], &line["quota_bytes"]), (&0.into(), &(16 * MIB).into()));
    let table = volume.run(&["dataset", "list", volume.path("d").to_str().unwrap()]);
    for part in ["USED", "AVAIL", "REFER", "QUOTA", "16.0 MiB"] {
        assert!(table.contains(part), "{part} is missing in:\n{table}");
    }

    volume.kill();
    volume.mount();
    assert_eq!(room(&volume, "d"), (16 * MIB, 0));
    assert!(is_over(&fill(&volume, "d/late", MIB)));
    volume.run(&["snapshot", "destroy", &at(&volume, "d", "s")]);
    wait_for_room(&volume, "d", 8 * MIB);
    fill(&volume, "d/late", 8 * MIB).unwrap();
    assert!(is_over(&fill(&volume, "d/last", MIB)));
    set_quota(&volume, "d", "none");
    fill(&volume, "d/last", 4 * MIB).unwrap();
    volume.umount();
    volume.run(&["check", volume.dir.to_str().unwrap()]);
}
