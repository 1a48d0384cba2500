//! A volume with a small hot tier and an S3 cold tier, under more data than the hot tier holds, on
//! good days and on bad ones: the bound is kept, no write fails, everything comes back.
//!
//! `FIRN_TIERS_BYTES` is the size of the large tree (2 GiB without it); those of bad days have 512 MiB,
//! or as much as that.

mod bad_days;
mod intake;
mod sampler;
mod server;
mod tree;

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::{Volume, now};
use sampler::Sampler;
pub use server::Server;
use tree::Tree;

/// What the hot tier may use.
const CAPACITY_BYTES: u64 = 256 << 20;

/// Longest time of anything here before it counts as hung; a writer without any progress hears of
/// it after 5 minutes.
const PATIENCE: Duration = Duration::from_secs(540);

/// How long `firn status` may take, whatever the store does.
const STATUS_PATIENCE: Duration = Duration::from_secs(2);

/// Bytes of the large tree.
fn large_bytes() -> u64 {
    let wanted = std::env::var("FIRN_TIERS_BYTES").ok();
    wanted.map_or(2 << 30, |bytes| bytes.parse().expect("FIRN_TIERS_BYTES is a number"))
}

/// Bytes of a tree that still is more than the hot tier holds.
fn small_bytes() -> u64 {
    large_bytes().min(512 << 20)
}

/// A mounted volume over a store in a process of its own, and a tree to go in.
struct Scene {
    server: Server,
    volume: Volume,
    source: Tree,
    sampler: Sampler,
}

impl Scene {
    fn new(bytes: u64) -> Self {
        let server = Server::start();
        let variables = server.variables();
        let variables: Vec<(&str, &str)> =
            variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let volume = Volume::with(
            &["--hot-capacity", "256MiB", "--cold", &format!("s3://{}/v", firn_tests::BUCKET)],
            &variables,
        );
        let source = Tree::generate(&volume.scratch.path().join("source"), bytes);
        let sampler = Sampler::start(&volume.dir, volume.pid());
        Self { server, volume, source, sampler }
    }

    /// Where the tree goes.
    fn target(&self) -> PathBuf {
        self.volume.path("tree")
    }

    /// Begins to copy the tree in.
    fn begin(&self) -> Intake {
        let mut command = Command::new("rsync");
        command.arg("-a").arg(format!("{}/", self.source.dir.display())).arg(self.target());
        Intake { child: command.spawn().unwrap() }
    }

    /// Waits until at least so many segments lie in the store.
    fn wait_for_segments(&self, count: usize) {
        self.wait_until("nothing is copied", || self.server.segments() >= count);
    }

    /// Waits until the store has answered so many more requests.
    fn wait_for_requests(&self, count: usize) {
        let before = self.server.requests().0;
        self.wait_until("nothing is asked", || self.server.requests().0 >= before + count);
    }

    fn wait_until(&self, otherwise: &str, is_so: impl Fn() -> bool) {
        let start = now();
        while !is_so() {
            assert!(start.elapsed() < PATIENCE, "{otherwise}: {}", self.volume.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Brings everything to cold and drops all that lies in hot, so that reading needs the store.
    fn empty_hot(&self) {
        let root = self.volume.mountpoint.to_str().unwrap();
        self.volume.run(&["tier", "archive", "-r", root]);
        self.volume.run(&["tier", "release", "-r", root]);
    }

    /// Begins to read everything back, with nothing in the kernel's cache.
    fn begin_to_compare(&self) -> Comparison {
        self.volume.run(&["sync", self.volume.mountpoint.to_str().unwrap()]);
        for file in &self.source.files {
            let file = File::open(self.target().join(file)).unwrap();
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        }
        let mut command = Command::new("rsync");
        command.args(["-anci", "--delete"]);
        command.arg(format!("{}/", self.source.dir.display())).arg(self.target());
        Comparison { child: command.stdout(Stdio::piped()).spawn().unwrap() }
    }

    /// Reads everything back and compares content and attributes.
    fn assert_same(&self, when: &str) {
        self.begin_to_compare().assert_same(&self.volume, when);
    }

    /// What the daemon says of itself, which it must say soon.
    fn status(&self) -> serde_json::Value {
        let start = now();
        let text = self.volume.run(&["status", "--json", self.volume.mountpoint.to_str().unwrap()]);
        assert!(start.elapsed() < STATUS_PATIENCE, "status took {:?}", start.elapsed());
        serde_json::from_str(&text).unwrap()
    }

    /// Ends the mount in order; the bound was kept, and every byte in every tier is sound.
    fn end(mut self, what: &str) {
        self.volume.umount();
        self.sampler.finish(what, CAPACITY_BYTES);
        self.server.plan("");
        let check = self.volume.run(&["check", "--data", self.volume.dir.to_str().unwrap()]);
        eprintln!("{what}: {}", check.lines().last().unwrap_or_default());
        assert!(!self.volume.log().contains(firn_tests::SECRET_KEY), "the log holds a secret");
    }
}

/// A copy on its way in.
struct Intake {
    child: Child,
}

impl Intake {
    fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// No write may have failed.
    fn succeed(mut self, volume: &Volume) {
        let start = now();
        while self.is_running() {
            assert!(start.elapsed() < PATIENCE, "rsync hangs: {}", volume.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        let status = self.child.wait().unwrap();
        assert!(status.success(), "rsync ended with {status}");
    }
}

/// A comparison under way.
struct Comparison {
    child: Child,
}

impl Comparison {
    fn assert_same(mut self, volume: &Volume, when: &str) {
        let start = now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < PATIENCE, "{when}: reading hangs: {}", volume.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        let status = self.child.wait().unwrap();
        let mut difference = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut difference).unwrap();
        assert!(status.success() && difference.is_empty(), "{when}: {status}\n{difference}");
    }
}

impl Drop for Comparison {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
