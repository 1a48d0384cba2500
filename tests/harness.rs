//! A volume with its daemon, mounted in a directory of its own and cleaned up whatever happens.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a daemon may take to mount or to leave before a test calls it hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// Mount options of every volume that says nothing of its own in its environment.
pub const MOUNT_OPTIONS: &str = "FIRN_TEST_MOUNT_OPTIONS";

/// The program under test.
pub const FIRN: &str = env!("CARGO_BIN_EXE_firn");

/// Where volumes are made: a directory on a real disk.
fn scratch() -> TempDir {
    let base = std::env::var_os("FIRN_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    tempfile::Builder::new().prefix("firn-test-").tempdir_in(base).unwrap()
}

/// The sample files of real instruments, when this machine has them.
pub fn scidata() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/scidata");
    let dir = std::env::var_os("FIRN_SCIDATA").map_or(beside, PathBuf::from);
    if dir.is_dir() {
        return Some(dir);
    }
    eprintln!("NOTE: no sample data at {}: that part is left out", dir.display());
    None
}

/// A volume, and its daemon while it is mounted.
pub struct Volume {
    daemon: Option<Child>,
    pub dir: PathBuf,
    pub mountpoint: PathBuf,
    pub scratch: TempDir,
    envs: Vec<(String, String)>,
}

impl Volume {
    /// A fresh mounted volume with a `file://` cold tier.
    pub fn mounted() -> Self {
        let scratch = scratch();
        let cold = scratch.path().join("cold");
        std::fs::create_dir(&cold).unwrap();
        let url = format!("file://{}", cold.display());
        Self::mounted_with(scratch, &["--cold", &url], &[])
    }

    /// A fresh mounted volume made with these arguments to `firn init`.
    pub fn with(init: &[&str], envs: &[(&str, &str)]) -> Self {
        Self::mounted_with(scratch(), init, envs)
    }

    /// [`Volume::with`], in a directory that the arguments may name.
    pub fn in_scratch(scratch: TempDir, init: &[&str]) -> Self {
        Self::mounted_with(scratch, init, &[])
    }

    fn mounted_with(scratch: TempDir, init: &[&str], envs: &[(&str, &str)]) -> Self {
        let mut volume = Self {
            daemon: None,
            dir: scratch.path().join("volume"),
            mountpoint: scratch.path().join("mountpoint"),
            scratch,
            envs: envs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        };
        std::fs::create_dir(&volume.mountpoint).unwrap();
        let mut command = volume.firn();
        command.arg("init").arg(&volume.dir).args(init);
        succeed(&mut command);
        volume.mount();
        volume
    }

    /// Mounts a volume that exists already, at a mountpoint of its own.
    pub fn existing(dir: PathBuf) -> Self {
        let scratch = scratch();
        let mountpoint = scratch.path().join("mountpoint");
        std::fs::create_dir(&mountpoint).unwrap();
        let mut volume = Self { daemon: None, dir, mountpoint, scratch, envs: Vec::new() };
        volume.mount();
        volume
    }

    /// The command with this volume's environment.
    pub fn firn(&self) -> Command {
        let mut command = Command::new(FIRN);
        command.envs(self.envs.iter().map(|(k, v)| (k, v)));
        command
    }

    /// Runs `firn` with these arguments; the test fails when it does.
    pub fn run(&self, args: &[&str]) -> String {
        let mut command = self.firn();
        command.args(args);
        succeed(&mut command)
    }

    /// Starts the daemon and waits until the mount answers.
    pub fn mount(&mut self) {
        if let Err(status) = self.try_mount(&[]) {
            panic!("the daemon left with {status}: {}", self.log());
        }
    }

    /// [`Volume::mount`] with more in the daemon's environment; says how the daemon left when it
    /// did so instead.
    pub fn try_mount(&mut self, envs: &[(&str, &str)]) -> Result<(), ExitStatus> {
        assert!(self.daemon.is_none(), "mounted already");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.scratch.path().join("daemon.log"))
            .unwrap();
        let mut command = self.firn();
        command.envs(envs.iter().copied()).args(["mount", "--foreground"]);
        // For all tests, as in `cache=passthrough,thaw=always`; or for those of one volume.
        let asked = std::env::var(MOUNT_OPTIONS).ok();
        let this = envs.iter().find(|(name, _)| *name == MOUNT_OPTIONS).map(|(_, o)| *o);
        let own = self.envs.iter().find(|(name, _)| name == MOUNT_OPTIONS).map(|(_, o)| &**o);
        if let Some(options) = this.or(own).or(asked.as_deref()) {
            command.args(["-o", options]);
        }
        let child = command
            .arg(&self.dir)
            .arg(&self.mountpoint)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.daemon = Some(child);
        let start = now();
        while !self.is_mounted() {
            let child = self.daemon.as_mut().expect("was just started");
            if let Some(status) = child.try_wait().unwrap() {
                return Err(status);
            }
            assert!(start.elapsed() < PATIENCE, "not mounted in time: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Whether the daemon has ended.
    pub fn has_ended(&mut self) -> bool {
        self.daemon.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some())
    }

    /// Whether a live Firn mount answers at the mountpoint. One whose daemon was killed stays in
    /// the table, and the kernel answers much for it from its caches, but never `statfs`.
    pub fn is_mounted(&self) -> bool {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let here = self.mountpoint.to_str().unwrap();
        mounts
            .lines()
            .any(|line| line.split(' ').nth(4) == Some(here) && line.contains(" fuse.firn "))
            && rustix::fs::statfs(&self.mountpoint).is_ok()
    }

    /// Unmounts in order; everything is durable afterwards.
    pub fn umount(&mut self) {
        let mut command = self.firn();
        command.arg("umount").arg(&self.mountpoint);
        succeed_unless(&mut command, "files on it are open");
        self.wait_ended();
        assert!(!self.is_mounted());
    }

    /// Kills the daemon as a crash would; the mountpoint stays behind in `ENOTCONN`.
    pub fn kill(&mut self) {
        let mut child = self.daemon.take().expect("kill without mount");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Waits until the daemon has ended by itself.
    pub fn wait_ended(&mut self) {
        let mut child = self.daemon.take().expect("waiting without mount");
        let start = now();
        while child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < PATIENCE, "the daemon stays: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Files with data that is not durable, as the daemon counts them.
    pub fn dirty_files(&self) -> u64 {
        let status = self.run(&["status", "--json", self.mountpoint.to_str().unwrap()]);
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        status["data"]["dirty_files"].as_u64().expect("status counts dirty files")
    }

    /// Process id of the daemon.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("mounted").id()
    }

    /// A path on the mount.
    pub fn path(&self, name: &str) -> PathBuf {
        self.mountpoint.join(name)
    }

    /// What the daemon said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("daemon.log")).unwrap_or_default()
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- daemon log ---\n{}", self.log());
        }
        let _ = Command::new("fusermount3").arg("-uzq").arg(&self.mountpoint).status();
        if let Some(mut child) = self.daemon.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs a command to its end; the test fails when it does.
pub fn succeed(command: &mut Command) -> String {
    let output = output(command);
    assert!(output.status.success(), "{command:?} {}", told(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// [`succeed`], tried again for a moment while it fails for this reason. A process that another thread
/// is just starting has all files open that this one has, until it is a program of its own.
fn succeed_unless(command: &mut Command, reason: &str) {
    let start = now();
    loop {
        let output = output(command);
        if output.status.success() {
            return;
        }
        let passing = String::from_utf8_lossy(&output.stderr).contains(reason);
        let waited = start.elapsed() > Duration::from_secs(2);
        assert!(passing && !waited, "{command:?} {}", told(&output));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

fn told(Output { status, stdout, stderr }: &Output) -> String {
    let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8_lossy(text));
    format!("ended with {status}\n{stdout}\n{stderr}")
}

/// Runs a shell script with `set -e`; `$1`... are the arguments.
pub fn shell(script: &str, args: &[&Path]) -> String {
    let mut command = Command::new("bash");
    command.args(["-ec", script, "test"]).args(args);
    succeed(&mut command)
}

/// Bytes that do not shrink, different for each seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

#[allow(clippy::disallowed_methods, reason = "real programs take real time")]
pub fn now() -> Instant {
    Instant::now()
}
