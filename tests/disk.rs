//! A filesystem in a file, mounted while its value lives.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::shell;

pub struct Disk {
    mountpoint: PathBuf,
}

impl Disk {
    pub fn mount(image: &Path, mountpoint: PathBuf) -> Self {
        std::fs::create_dir(&mountpoint).unwrap();
        // XFS refuses a second filesystem with the same name, ext4 does not.
        shell("mount -o loop \"$1\" \"$2\"", &[image, &mountpoint]);
        Self { mountpoint }
    }

    pub fn make(image: &Path, size: &str, format: &str, mountpoint: PathBuf) -> Self {
        shell(&format!("truncate -s {size} \"$1\" && {format} \"$1\" >/dev/null"), &[image]);
        Self::mount(image, mountpoint)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.mountpoint.join(name)
    }

    /// Flushes of the device's cache since it was made, as the kernel counts them.
    pub fn flushes(&self) -> u64 {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let here = self.mountpoint.to_str().unwrap();
        let mount = mounts.lines().find(|line| line.split(' ').nth(4) == Some(here)).unwrap();
        let device = mount.rsplit(' ').nth(1).unwrap().strip_prefix("/dev/").unwrap();
        let stat = std::fs::read_to_string(format!("/sys/block/{device}/stat")).unwrap();
        stat.split_whitespace().nth(15).expect("Linux 5.5 and newer count flushes").parse().unwrap()
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
