//! A filesystem in a file, mounted while its value lives.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::shell;

pub(super) struct Disk {
    mountpoint: PathBuf,
}

impl Disk {
    pub(super) fn mount(image: &Path, mountpoint: PathBuf) -> Self {
        std::fs::create_dir(&mountpoint).unwrap();
        // XFS refuses a second filesystem with the same name, ext4 does not.
        shell("mount -o loop \"$1\" \"$2\"", &[image, &mountpoint]);
        Self { mountpoint }
    }

    pub(super) fn make(image: &Path, size: &str, format: &str, mountpoint: PathBuf) -> Self {
        shell(&format!("truncate -s {size} \"$1\" && {format} \"$1\" >/dev/null"), &[image]);
        Self::mount(image, mountpoint)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
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
