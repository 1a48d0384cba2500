//! A volume and its mount, made and taken away by the command as a user would.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::run::{Ran, command};

/// A fresh volume with a `file://` cold tier, not mounted yet.
pub struct Scene {
    pub dir: TempDir,
    pub volume: PathBuf,
    pub mountpoint: PathBuf,
    pub cold: PathBuf,
}

impl Scene {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let scene = Self {
            volume: dir.path().join("vol"),
            mountpoint: dir.path().join("mnt"),
            cold: dir.path().join("cold"),
            dir,
        };
        fs::create_dir(&scene.mountpoint).unwrap();
        let url = format!("file://{}", scene.cold.display());
        scene.firn(&["init", scene.vol(), "--hot-capacity", "2GiB", "--cold", &url]).done();
        scene
    }

    pub fn mounted() -> Self {
        let scene = Self::new();
        scene.mount().done();
        scene
    }

    pub fn vol(&self) -> &str {
        self.volume.to_str().unwrap()
    }

    pub fn mnt(&self) -> &str {
        self.mountpoint.to_str().unwrap()
    }

    pub fn firn(&self, args: &[&str]) -> Ran {
        Ran::from(&command(args).current_dir(self.dir.path()).output().unwrap())
    }

    pub fn mount(&self) -> Ran {
        self.firn(&["mount", self.vol(), self.mnt()])
    }

    pub fn umount(&self) -> Ran {
        self.firn(&["umount", self.mnt()])
    }

    #[track_caller]
    pub fn umount_done(&self) {
        let ran = self.umount();
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(!self.is_mounted());
    }

    pub fn is_mounted(&self) -> bool {
        let line = format!(" {} ", self.mnt());
        fs::read_to_string("/proc/self/mountinfo").unwrap().lines().any(|l| l.contains(&line))
    }

    pub fn status(&self) -> serde_json::Value {
        let out = self.firn(&["status", "--json", self.vol()]).done().out;
        serde_json::from_str(&out).unwrap()
    }

    /// The daemon's process id.
    pub fn pid(&self) -> u32 {
        u32::try_from(self.status()["mount"]["pid"].as_u64().unwrap()).unwrap()
    }

    /// Sends a signal to the daemon and waits until it is gone.
    pub fn signal(&self, signal: &str) {
        let pid = self.pid();
        let sent = Command::new("kill").arg(signal).arg(pid.to_string()).status().unwrap();
        assert!(sent.success());
        let process = PathBuf::from(format!("/proc/{pid}"));
        for _ in 0..3000 {
            if !process.exists() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("the daemon stays after {signal}: {}", self.log());
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.volume.join("firn.log")).unwrap_or_default()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if self.is_mounted() {
            let holder = fs::read_to_string(self.volume.join("lock")).unwrap_or_default();
            let _ = Command::new("fusermount3").arg("-uzq").arg(&self.mountpoint).status();
            let owner: serde_json::Value = serde_json::from_str(&holder).unwrap_or_default();
            if let Some(pid) = owner["pid"].as_u64() {
                let _ = Command::new("kill").arg("-9").arg(pid.to_string()).status();
            }
        }
        if std::thread::panicking() {
            eprintln!("--- firn.log ---\n{}", self.log());
        }
    }
}
