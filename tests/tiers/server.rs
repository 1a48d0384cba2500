//! The store in a process of its own, which can be killed and stopped: this test binary, started
//! again, so that nothing else need be built.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::now;

/// Tells the test below to serve, and with what arguments, one a line.
const TOLD: &str = "FIRN_TIERS_SERVE";

/// How long the store may take to start or to heed a plan.
const PATIENCE: Duration = Duration::from_secs(30);

/// Requests that went wrong of which a failed test tells.
const SHOWN: usize = 40;

/// The process that serves when it is told to; a test that passes otherwise.
#[test]
fn serves_when_told() {
    let Some(arguments) = std::env::var_os(TOLD) else { return };
    let arguments = arguments.into_string().unwrap();
    let mut arguments = arguments.lines().map(std::ffi::OsString::from);
    let told = PathBuf::from(arguments.next().unwrap());
    let mut out = File::create(told).unwrap();
    firn_tests::command::run(arguments, &mut out).unwrap();
}

/// A store on loopback.
pub struct Server {
    dir: tempfile::TempDir,
    address: SocketAddr,
    child: Option<Child>,
    plans: u32,
}

impl Server {
    pub fn start() -> Self {
        let base = std::env::var_os("FIRN_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let dir = tempfile::Builder::new().prefix("firn-store-").tempdir_in(base).unwrap();
        let address = ([127, 0, 0, 1], 0).into();
        let mut server = Self { dir, address, child: None, plans: 0 };
        server.address = server.spawn();
        server
    }

    /// Starts the process; returns where it listens.
    fn spawn(&mut self) -> SocketAddr {
        let told = self.path("variables");
        let _ = fs::remove_file(&told);
        let arguments = [
            told.display().to_string(),
            self.path("objects").display().to_string(),
            self.address.to_string(),
            "--faults".to_owned(),
            self.path("plan").display().to_string(),
            "--log".to_owned(),
            self.path("log").display().to_string(),
        ];
        let output = File::options().create(true).append(true).open(self.path("output")).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tiers::server::serves_when_told", "--nocapture"])
            .env(TOLD, arguments.join("\n"))
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let endpoint = wait_for(|| {
            let text = fs::read_to_string(&told).ok()?;
            text.contains("FIRN_TEST_BUCKET=").then_some(())?;
            Some(
                text.lines().find_map(|line| line.strip_prefix("AWS_ENDPOINT=http://"))?.to_owned(),
            )
        });
        endpoint.parse().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn variables(&self) -> Vec<(String, String)> {
        firn_tests::variables(self.address)
    }

    /// Kills it as a crash would.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts it again, on the same port and directory.
    pub fn restart(&mut self) {
        let address = self.spawn();
        assert_eq!(address, self.address);
    }

    /// Stops it: connections stay, nothing answers.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("runs");
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Has things go wrong from now on, as a plan in TOML says.
    pub fn plan(&mut self, plan: &str) {
        self.plans += 1;
        let text = format!("# {}\n{plan}\n", self.plans);
        let aside = self.path("plan.new");
        fs::write(&aside, &text).unwrap();
        fs::rename(&aside, self.path("plan")).unwrap();
        let applied = self.path("plan.applied");
        wait_for(|| fs::read_to_string(&applied).ok().filter(|applied| *applied == text));
    }

    /// Segments in the store.
    pub fn segments(&self) -> usize {
        count(&self.path("objects").join(firn_tests::BUCKET).join("v/segments"))
    }

    /// Requests that ended so far, and those among them that something befell.
    pub fn requests(&self) -> (usize, usize) {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        (log.lines().count(), log.lines().filter(|line| !line.ends_with(" None")).count())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.path("log")).unwrap_or_default();
            let wrong: Vec<&str> = log.lines().filter(|line| !line.ends_with(" None")).collect();
            let last = &wrong[wrong.len().saturating_sub(SHOWN)..];
            eprintln!("--- what went wrong at the store ---\n{}", last.join("\n"));
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn count(dir: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let entries = entries.flatten();
    entries.map(|entry| if entry.path().is_dir() { count(&entry.path()) } else { 1 }).sum()
}

fn wait_for<T>(look: impl Fn() -> Option<T>) -> T {
    let start = now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "the store does not answer");
        std::thread::sleep(Duration::from_millis(10));
    }
}
