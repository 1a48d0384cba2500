//! Power loss under load: the volume lies on a disk of its own, whose image is copied at one
//! instant, again and again; each copy holds what had reached the disk by then and nothing of any
//! page cache above it. Mounted afresh, it has all that `fsync` had acknowledged.
//!
//! The image lies on an XFS that can copy by reference, which makes a copy one instant.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::{Volume, shell, succeed};
use crate::load::{Acknowledged, Load, verify};

const CUTS: u32 = 10;

/// A filesystem in a file, mounted while this lives.
struct Disk {
    mountpoint: PathBuf,
}

impl Disk {
    fn mount(image: &Path, mountpoint: PathBuf) -> Self {
        std::fs::create_dir(&mountpoint).unwrap();
        // XFS refuses a second filesystem with the same name, ext4 does not.
        shell("mount -o loop \"$1\" \"$2\"", &[image, &mountpoint]);
        Self { mountpoint }
    }

    fn make(image: &Path, size: &str, format: &str, mountpoint: PathBuf) -> Self {
        shell(&format!("truncate -s {size} \"$1\" && {format} \"$1\" >/dev/null"), &[image]);
        Self::mount(image, mountpoint)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.mountpoint.join(name)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A daemon that has just left may hold it a moment longer.
        for _ in 0..50 {
            let mut umount = std::process::Command::new("umount");
            if umount.arg(&self.mountpoint).output().is_ok_and(|done| done.status.success()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.mountpoint).status();
    }
}

/// Lets a volume's catalog believe that the machine was started again since.
fn forget_boot(volume: &Path) {
    let catalog = volume.join("catalog");
    let script = "f=\"$1/marker.json\"; \
                  sed -i 's/\"boot_id\":\"[^\"]*\"/\"boot_id\":\"an earlier one\"/' \"$f\"";
    shell(script, &[&catalog]);
}

/// Brings one copy of the disk up and compares; the copy is gone afterwards.
fn restart_and_verify(pool: &Disk, image: &Path, acknowledged: &Acknowledged, round: u32) {
    let disk = Disk::mount(image, pool.path(&format!("restarted-{round}")));
    let dir = disk.path("volume");
    forget_boot(&dir);
    let mut volume = Volume::existing(dir.clone());
    verify(&volume.mountpoint, acknowledged, round);
    volume.umount();
    let checked = succeed(volume.firn().args(["check", "--data"]).arg(&dir));
    drop((volume, disk));
    std::fs::remove_file(image).unwrap();
    assert!(!checked.is_empty());
}

#[test]
fn acknowledged_writes_survive_power_loss() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOTE: making disks needs root: nothing is tested");
        return;
    }
    let scratch: TempDir = tempfile::Builder::new().prefix("firn-power-").tempdir().unwrap();
    let image = scratch.path().join("pool.img");
    let pool = Disk::make(&image, "6G", "mkfs.xfs -q -m reflink=1", scratch.path().join("pool"));
    let platter = pool.path("disk.img");
    let disk = Disk::make(&platter, "2G", "mkfs.ext4 -q", scratch.path().join("disk"));
    let dir = disk.path("volume");
    succeed(std::process::Command::new(crate::harness::FIRN).arg("init").arg(&dir));
    let mut volume = Volume::existing(dir);
    let load = Load::start(&volume.mountpoint, &Acknowledged::default());
    let mut cuts_with_unflushed_work = 0;
    for round in 0..CUTS {
        std::thread::sleep(Duration::from_millis(150 + 97 * u64::from(round % 7)));
        cuts_with_unflushed_work += u32::from(volume.dirty_files() > 0);
        let acknowledged = load.acknowledged();
        let copy = pool.path(&format!("cut-{round}.img"));
        shell("cp --reflink=always \"$1\" \"$2\"", &[&platter, &copy]);
        restart_and_verify(&pool, &copy, &acknowledged, round);
    }
    let acknowledged = load.stop();
    verify(&volume.mountpoint, &acknowledged, CUTS);
    volume.umount();
    drop((volume, disk, pool));
    assert!(!acknowledged.is_empty(), "nothing was ever acknowledged");
    assert!(
        cuts_with_unflushed_work >= CUTS / 2,
        "only {cuts_with_unflushed_work} cuts met unflushed work"
    );
}
