//! Placement on a real mount: what the policy says happens, what is pinned stays, jobs outlive the
//! daemon, and what is told of a file is so.

mod jobs;
mod policy;
mod recall;
mod telling;

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Volume, now};

/// Longest time of anything here before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(120);

/// No run of the daemon's own, unless space is short.
const BY_HAND: &str = "[defaults]\nmode = \"age\"\nsettle = \"0s\"\nfallback_age = \"0s\"\ninterval = \"31d\"\nmin_size = \"0B\"\n";

/// A mounted volume with 256 MiB of hot tier, over a directory.
struct Scene {
    volume: Volume,
    _cold: TempDir,
}

impl Scene {
    fn new() -> Self {
        let cold = tempfile::tempdir().unwrap();
        let url = format!("file://{}", cold.path().display());
        let volume = Volume::with(&["--hot-capacity", "256MiB", "--cold", &url], &[]);
        Self { volume, _cold: cold }
    }

    /// Has a policy hold. Its high watermark in MiB tells it from the one before.
    fn hold(&self, high_mib: u64, low_mib: u64, more: &str) {
        let file = self.volume.scratch.path().join("policy.toml");
        let tier = format!("[tier.hot]\nhigh = \"{high_mib}MiB\"\nlow = \"{low_mib}MiB\"\n");
        fs::write(&file, tier + more).unwrap();
        self.volume.run(&["policy", "apply", file.to_str().unwrap(), self.root()]);
        eventually("the policy holds", || self.plan()["high_bytes"] == high_mib << 20);
    }

    fn root(&self) -> &str {
        self.volume.mountpoint.to_str().unwrap()
    }

    /// A path on the mount as an argument.
    fn arg(&self, name: &str) -> String {
        self.volume.path(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, len: usize) {
        let path = self.volume.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content(name, len)).unwrap();
        File::open(&path).unwrap().sync_all().unwrap();
    }

    /// Reads a file as if the kernel had never seen it.
    fn read(&self, name: &str) -> Vec<u8> {
        self.forget(name);
        fs::read(self.volume.path(name)).unwrap()
    }

    /// Has the kernel forget a file.
    fn forget(&self, name: &str) {
        let file = File::open(self.volume.path(name)).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }

    /// Has files lie in cold only.
    fn send_away(&self, path: &str) {
        self.volume.run(&["tier", "archive", "-r", path]);
        self.volume.run(&["tier", "release", "-r", path]);
    }

    fn state(&self, name: &str) -> String {
        xattr(&self.volume.path(name), "user.firn.state").unwrap()
    }

    fn is_hot(&self, name: &str) -> bool {
        matches!(self.state(name).as_str(), "resident" | "dual")
    }

    fn hot_bytes(&self) -> u64 {
        self.status()["hot"]["used_bytes"].as_u64().unwrap()
    }

    fn plan(&self) -> Value {
        self.json(&["policy", "plan", "--json", self.root()])
    }

    fn status(&self) -> Value {
        self.json(&["status", "--json", self.root()])
    }

    /// The jobs that are known.
    fn jobs(&self) -> Vec<Value> {
        jobs_of(&self.volume)
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.volume.run(args)).unwrap()
    }
}

fn jobs_of(volume: &Volume) -> Vec<Value> {
    let text = volume.run(&["tier", "jobs", "--json", volume.mountpoint.to_str().unwrap()]);
    let jobs: Value = serde_json::from_str(&text).unwrap();
    jobs["jobs"].as_array().unwrap().clone()
}

/// Bytes that do not compress and that no other file has.
fn content(name: &str, len: usize) -> Vec<u8> {
    let mut state = name.bytes().fold(0x9e37_79b9_7f4a_7c15_u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // xorshift64, Marsaglia 2003.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// The value of an attribute; how it was refused otherwise.
fn xattr(path: &Path, name: &str) -> Result<String, rustix::io::Errno> {
    let mut value = [0; 512];
    let len = rustix::fs::getxattr(path, name, &mut value[..])?;
    Ok(String::from_utf8(value[..len].to_vec()).unwrap())
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
