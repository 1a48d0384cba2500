//! A real server that stops, dies and comes back, and the mount beside it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::{Volume, now};

/// Set in the process that is the server: its directory and address.
const SERVES: &str = "FIRN_TEST_SERVES";

/// The server itself, when this program was started as one.
#[test]
fn serves() {
    let Ok(what) = std::env::var(SERVES) else { return };
    let (address, root) = what.split_once(' ').unwrap();
    let server = firn_tests::Server::start_on(Path::new(root), address.parse().unwrap()).unwrap();
    eprintln!("listening on {}", server.address());
    server.join();
}

/// A server in a process of its own, so that it can be stopped and killed.
pub struct Store {
    process: Option<Child>,
    address: SocketAddr,
    root: PathBuf,
    /// What starts it.
    before: Vec<String>,
}

impl Store {
    pub fn start(root: &Path) -> Self {
        Self::start_with(&["env"], root, ([127, 0, 0, 1], 0).into())
    }

    /// Started by these words, on this address.
    pub fn start_with(before: &[&str], root: &Path, address: SocketAddr) -> Self {
        let before = before.iter().map(|word| (*word).to_owned()).collect();
        let mut store = Self { process: None, address, root: root.to_owned(), before };
        store.restart();
        store
    }

    pub fn restart(&mut self) {
        let mut process = Command::new(&self.before[0])
            .args(&self.before[1..])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "cold_down::serves", "--nocapture"])
            .env(SERVES, format!("{} {}", self.address, self.root.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(process.stderr.take().unwrap());
        let mut lines = stderr.lines().map(Result::unwrap);
        let said = lines.find_map(|line| Some(line.split_once("listening on ")?.1.to_owned()));
        self.address = said.expect("the server says where it listens").parse().unwrap();
        // Whatever else it says must not block it.
        std::thread::spawn(move || lines.for_each(drop));
        self.process = Some(process);
    }

    fn signal(&self, signal: &str) {
        let pid = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    pub fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    fn url(&self) -> String {
        format!("s3://{}/volume", firn_tests::BUCKET)
    }

    /// A volume of 256 MiB that has this store, with these lines changed in its configuration.
    pub fn volume(&self, changes: &[(&str, &str)]) -> Volume {
        let variables = firn_tests::variables(self.address);
        let variables: Vec<(&str, &str)> =
            variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let args = ["--cold", &self.url(), "--hot-capacity", "256MiB"];
        let mut volume = Volume::with(&args, &variables);
        volume.umount();
        let path = volume.dir.join("firn.toml");
        let mut text = fs::read_to_string(&path).unwrap();
        for (old, new) in changes {
            assert!(text.contains(old), "{old}");
            text = text.replace(old, new);
        }
        fs::write(&path, text).unwrap();
        volume.mount();
        volume
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.signal("-CONT");
            self.kill();
        }
    }
}

/// Files that lie in cold only, and in no cache of the kernel.
fn cold_files(volume: &mut Volume, names: &[&str]) {
    for name in names {
        let path = volume.path(name);
        fs::write(&path, content(name)).unwrap();
        let path = path.to_str().unwrap();
        volume.run(&["tier", "archive", path]);
        volume.run(&["tier", "release", path]);
    }
    volume.umount();
    volume.mount();
}

fn content(name: &str) -> Vec<u8> {
    name.bytes().cycle().take(300_000).enumerate().map(|(i, b)| b ^ (i / 251) as u8).collect()
}

fn reads(volume: &Volume, name: &str) -> bool {
    let read = fs::read(volume.path(name));
    match read {
        Ok(bytes) => {
            assert!(bytes == content(name), "{name} reads differently");
            true
        }
        Err(error) => {
            assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
            false
        }
    }
}

fn write_and_read(volume: &Volume, name: &str) {
    let start = now();
    fs::write(volume.path(name), content(name)).unwrap();
    fs::File::open(volume.path(name)).unwrap().sync_all().unwrap();
    assert!(reads(volume, name));
    assert!(start.elapsed() < Duration::from_secs(10), "hot takes {:?}", start.elapsed());
}

/// What `firn status` says, within the two seconds that it has.
fn status(volume: &Volume) -> serde_json::Value {
    let start = now();
    let text = volume.run(&["status", "--json", volume.mountpoint.to_str().unwrap()]);
    assert!(start.elapsed() < Duration::from_secs(2), "status takes {:?}", start.elapsed());
    serde_json::from_str(&text).unwrap()
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(90), "never happened: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

pub const READ_DEADLINE: (&str, &str) = ("read_deadline = \"1m\"", "read_deadline = \"3s\"");
pub const UMOUNT_DEADLINE: (&str, &str) = ("umount_deadline = \"1m\"", "umount_deadline = \"1s\"");

#[test]
fn a_store_that_stops_and_goes_on_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path());
    let mut volume = store.volume(&[READ_DEADLINE]);
    cold_files(&mut volume, &["cold", "colder"]);
    store.signal("-STOP");
    write_and_read(&volume, "hot");
    let start = now();
    assert!(!reads(&volume, "cold"));
    assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
    eventually("status says so", || status(&volume)["cold"]["throttle"]["is_down"] == true);
    let said = status(&volume)["warnings"].to_string();
    assert!(said.contains("does not answer"), "{said}");
    write_and_read(&volume, "hot too");
    store.signal("-CONT");
    eventually("cold reads go on", || reads(&volume, "cold"));
    assert!(reads(&volume, "colder"));
    eventually("and nobody warns", || {
        !status(&volume)["warnings"].to_string().contains("does not answer")
    });
    volume.umount();
}

#[test]
fn a_store_that_died_is_mounted_without_and_taken_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::start(dir.path());
    let mut volume = store.volume(&[READ_DEADLINE, UMOUNT_DEADLINE]);
    cold_files(&mut volume, &["cold"]);
    store.kill();
    write_and_read(&volume, "hot");
    assert!(!reads(&volume, "cold"));
    volume.umount();
    volume.mount();
    assert!(reads(&volume, "hot"));
    write_and_read(&volume, "later");
    assert!(!reads(&volume, "cold"));
    let said = status(&volume)["warnings"].to_string();
    assert!(said.contains("has not answered since the mount"), "{said}");
    let claims =
        || fs::read_dir(dir.path().join(firn_tests::BUCKET).join("volume/owner")).unwrap().count();
    assert_eq!(claims(), 1);
    store.restart();
    eventually("the store is ours again", || {
        !status(&volume)["warnings"].to_string().contains("since the mount")
    });
    eventually("cold reads go on", || reads(&volume, "cold"));
    let path = volume.path("later");
    volume.run(&["tier", "archive", path.to_str().unwrap()]);
    volume.umount();
    assert_eq!(claims(), 1, "one claim is left");
    volume.mount();
    assert!(reads(&volume, "hot") && reads(&volume, "later") && reads(&volume, "cold"));
    volume.umount();
}

#[test]
fn where_it_is_wanted_cold_reads_fail_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::start(dir.path());
    let mut volume =
        store.volume(&[("cold_down = \"wait\"", "cold_down = \"fail\""), UMOUNT_DEADLINE]);
    cold_files(&mut volume, &["cold"]);
    store.kill();
    // The first ones find out.
    eventually("the store counts as away", || {
        assert!(!reads(&volume, "cold"));
        status(&volume)["cold"]["throttle"]["is_down"] == true
    });
    for _ in 0..3 {
        let start = now();
        assert!(!reads(&volume, "cold"));
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    }
    write_and_read(&volume, "hot");
    store.restart();
    eventually("cold reads go on", || reads(&volume, "cold"));
    volume.umount();
}

#[test]
fn a_copy_of_a_volume_is_refused_until_it_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path());
    let mut volume = store.volume(&[]);
    cold_files(&mut volume, &["cold"]);
    volume.umount();
    let copy = volume.scratch.path().join("copy");
    let copied = Command::new("cp").arg("-a").args([&volume.dir, &copy]).status().unwrap();
    assert!(copied.success());
    let mount = |dir: &Path, options: &[&str]| {
        let mut command = volume.firn();
        command.arg("mount").arg(dir).arg(&volume.mountpoint).args(options);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let umount = || volume.run(&["umount", volume.mountpoint.to_str().unwrap()]);
    let (code, said) = mount(&copy, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("another instance of this volume uses it"), "{said}");
    assert!(said.contains("hint: ") && said.contains("-o takeover"), "{said}");
    assert_eq!(mount(&copy, &["--read-only"]), (Some(0), String::new()));
    assert!(reads(&volume, "cold"));
    umount();
    assert_eq!(mount(&copy, &["-o", "takeover"]), (Some(0), String::new()));
    assert!(reads(&volume, "cold"));
    umount();
    assert_eq!(mount(&copy, &[]), (Some(0), String::new()), "once is enough");
    umount();
    let (code, said) = mount(&volume.dir, &[]);
    assert_eq!(code, Some(1), "the original is the other one now: {said}");
}
