//! What the daemon may do, and what nobody learns from it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::Duration;

use crate::harness::{FIRN, Volume, shell, succeed};
use crate::tiers::Server;

fn of_process(pid: u32, what: &str) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/{what}")).unwrap()
}

/// The files below a directory that hold these bytes.
fn holding(dir: &Path, secret: &str) -> String {
    let mut grep = Command::new("grep");
    let output = grep.args(["-rlaF", secret]).arg(dir).output().unwrap();
    assert!(output.status.code().is_some_and(|code| code < 2), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A store, and a daemon that logs all that it and its libraries have to say.
#[test]
fn credentials_are_nowhere_to_be_found() {
    let mut server = Server::start();
    let variables = server.variables();
    let mut envs: Vec<_> = variables.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    envs.push(("RUST_LOG", "trace"));
    let url = format!("s3://{}/v", firn_tests::BUCKET);
    let volume = Volume::with(&["--cold", &url], &envs);
    let root = volume.mountpoint.to_str().unwrap();
    fs::write(volume.path("file"), vec![7; 300_000]).unwrap();
    volume.run(&["tier", "archive", "-r", root]);
    volume.run(&["tier", "release", "-r", root]);
    server.kill();
    let mut explain = volume.firn();
    let told = explain.args(["explain", "--json"]).arg(volume.path("file")).output().unwrap();
    let mut said = volume.run(&["status", root]) + &volume.run(&["status", "--json", root]);
    said += &String::from_utf8_lossy(&[told.stdout, told.stderr].concat());
    said += &volume.log();
    assert!(said.len() > 10_000, "the log is on");
    for secret in [firn_tests::SECRET_KEY, firn_tests::ACCESS_KEY] {
        let arguments = String::from_utf8(of_process(volume.pid(), "cmdline")).unwrap();
        assert!(!arguments.contains(secret), "an argument: {arguments}");
        assert_eq!(holding(&volume.dir, secret), "", "in the volume directory");
    }
    assert!(!said.contains(firn_tests::SECRET_KEY), "in what is told");
    server.restart();
}

/// The limit and the flag, of which the kernel shows the flag by whose files `/proc/<pid>` has; those
/// of a process of root tell nothing, so an ordinary user's is looked at below.
#[test]
fn no_core_is_dumped() {
    let volume = Volume::mounted();
    let limits = String::from_utf8(of_process(volume.pid(), "limits")).unwrap();
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let numbers: Vec<_> = cores.split_whitespace().filter(|word| *word == "0").collect();
    assert_eq!(numbers.len(), 2, "{cores}");
}

/// A mount namespace in which everybody may open the device, as on most machines; here it may be
/// root's alone, for example in a container.
struct Room(Child);

impl Room {
    fn enter(scratch: &Path) -> Self {
        let mut command = Command::new("unshare");
        let room = Self(command.args(["--mount", "sleep", "600"]).spawn().unwrap());
        let own = fs::read_link("/proc/self/ns/mnt").unwrap();
        let there = format!("/proc/{}/ns/mnt", room.0.id());
        while fs::read_link(&there).unwrap() == own {
            std::thread::sleep(Duration::from_millis(5));
        }
        let script = "mknod \"$1/fuse\" c 10 229; chmod 666 \"$1/fuse\"; \
                      mount --bind \"$1/fuse\" /dev/fuse";
        succeed(room.command("sh").args(["-ec", script, "test"]).arg(scratch));
        room
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("-t").arg(self.0.id().to_string()).args(["--mount", program]);
        command.current_dir("/");
        command
    }

    /// Runs it without any privilege.
    fn as_nobody(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = self.command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", program]);
        command.args(arguments).output().unwrap()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A user without any privilege makes, mounts, uses and unmounts a volume, however deep it lies.
#[test]
fn an_ordinary_user_needs_no_privileges() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOTE: becoming another user needs root: nothing is tested");
        return;
    }
    let scratch = tempfile::Builder::new().prefix("firn-user-").tempdir().unwrap();
    let home = scratch.path();
    // The program may lie where others do not get.
    fs::copy(FIRN, home.join("firn")).unwrap();
    let deep = home.join("d".repeat(60)).join("e".repeat(60));
    let mountpoint = home.join("mountpoint");
    fs::create_dir_all(&deep).unwrap();
    fs::create_dir(&mountpoint).unwrap();
    fs::set_permissions(home, fs::Permissions::from_mode(0o755)).unwrap();
    shell("chown -R 65534:65534 \"$1\" && chmod 755 \"$1/firn\"", &[home]);
    let volume = deep.join("volume");
    let (dir, at) = (volume.to_str().unwrap(), mountpoint.to_str().unwrap());
    let room = Room::enter(home);
    let program = home.join("firn");
    let firn = |arguments: &[&str]| {
        let done = room.as_nobody(program.to_str().unwrap(), arguments);
        assert!(done.status.success(), "{arguments:?}: {done:?}");
    };
    firn(&["init", dir]);
    firn(&["mount", dir, at]);
    let used = std::panic::catch_unwind(AssertUnwindSafe(|| {
        firn(&["status", "--json", at]);
        use_as_nobody(&room, &volume, at);
    }));
    firn(&["umount", at]);
    if let Err(panic) = used {
        std::panic::resume_unwind(panic);
    }
    firn(&["check", "--data", dir]);
}

fn use_as_nobody(room: &Room, volume: &Path, at: &str) {
    let owner = fs::read_to_string(volume.join("lock")).unwrap();
    let owner: serde_json::Value = serde_json::from_str(&owner).unwrap();
    let process = PathBuf::from(format!("/proc/{}", owner["pid"]));
    // Of what may not be dumped, all belongs to root: no other process of the user gets at it.
    let status = fs::read_to_string(process.join("status")).unwrap();
    let users = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
    assert_eq!(users.split_whitespace().nth(2), Some("65534"), "{users}");
    for name in ["CapPrm", "CapEff"] {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line.ends_with("0000000000000000"), "{line}");
    }
    let environment = process.join("environ");
    assert_eq!(fs::metadata(&environment).unwrap().uid(), 0, "it may be dumped");
    let peeked = room.as_nobody("cat", &[environment.to_str().unwrap()]);
    assert!(!peeked.status.success() && peeked.stdout.is_empty(), "the environment is open");
    let script = format!("echo content > {at}/file && sync {at}/file && cat {at}/file");
    let used = room.as_nobody("sh", &["-ec", &script]);
    assert!(used.status.success() && used.stdout == b"content\n", "{used:?}");
}
