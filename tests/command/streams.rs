//! `firn snapshot send` and `receive`: what travels, and what is refused with nothing half-done.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::mounted::Scene;
use crate::run::{Ran, command};

/// What a run wrote to standard output, byte by byte.
fn stream(args: &[&str]) -> Vec<u8> {
    let output = command(args).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && err.is_empty(), "{args:?}: {err}");
    output.stdout
}

/// Runs `firn` with this as its standard input, which it need not read to the end.
fn fed(args: &[&str], input: &[u8]) -> Ran {
    let mut child = command(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || drop(stdin.write_all(input)));
        Ran::from(&child.wait_with_output().unwrap())
    })
}

impl Scene {
    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.mnt())
    }

    fn take_snapshot(&self, name: &str) {
        self.firn(&["snapshot", "create", &self.at(name)]).done();
    }

    fn write(&self, path: &str, content: &[u8]) {
        fs::write(self.mountpoint.join(path), content).unwrap();
    }

    fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.mountpoint.join(path)).unwrap()
    }

    fn full(&self, name: &str) -> Vec<u8> {
        stream(&["snapshot", "send", &self.at(name)])
    }

    fn incremental(&self, from: &str, to: &str) -> Vec<u8> {
        stream(&["snapshot", "send", "-i", from, &self.at(to)])
    }

    fn receive(&self, args: &[&str], input: &[u8]) -> Ran {
        fed(&[&["snapshot", "receive"], args].concat(), input)
    }

    /// Every dataset and snapshot, without the mountpoint.
    fn everything(&self) -> Vec<String> {
        let listed = |what: &str, field: &str| -> Vec<String> {
            let out = self.firn(&[what, "list", "-r", "--json", self.mnt()]).done().out;
            let list: Value = serde_json::from_str(&out).unwrap();
            let lines = list[format!("{what}s")].as_array().unwrap().clone();
            let name = |line: &Value| line[field].as_str().unwrap().replace(self.mnt(), "");
            lines.iter().map(name).collect()
        };
        [listed("dataset", "dataset"), listed("snapshot", "snapshot")].concat()
    }
}

#[test]
fn a_stream_brings_a_snapshot_and_what_came_after_it() {
    let (one, two) = (Scene::mounted(), Scene::mounted());
    let noise: Vec<u8> = (0..300_000_u32).flat_map(|i| i.wrapping_mul(i).to_le_bytes()).collect();
    one.write("file", &noise);
    one.take_snapshot("@a");
    one.write("file", b"short");
    one.write("new", b"new");
    one.take_snapshot("@b");
    let full = one.full("@a");
    let ran = two.receive(&["-v", &two.at("/copy")], &full).done();
    assert!(ran.out.starts_with(&two.at("/copy@a: received ")), "{}", ran.out);
    assert!(two.read("copy/file") == noise);
    let ran = two.receive(&["--json", &two.at("/copy")], &one.incremental("@a", "@b")).done();
    let received: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(received["snapshot"], two.at("/copy@b"), "{received}");
    assert_eq!((two.read("copy/file"), two.read("copy/new")), (b"short".into(), b"new".into()));
    assert!(two.read("copy/.firn/snapshot/a/file") == noise);
    let named = two.at("/named@other");
    two.receive(&[&named], &full).done();
    assert_eq!(two.everything(), ["", "/copy", "/named", "/copy@a", "/copy@b", "/named@other"]);
}

#[test]
fn a_dry_run_says_how_much_and_sends_nothing() {
    let scene = Scene::mounted();
    scene.write("file", &[7; 3 << 20]);
    scene.take_snapshot("@a");
    scene.write("file", &[8; 1 << 20]);
    scene.take_snapshot("@b");
    let out = scene.firn(&["snapshot", "send", "-n", &scene.at("@a")]).done().out;
    assert!(out.contains("would send about 3.00 MiB before compression"), "{out}");
    let json = ["snapshot", "send", "-n", "--json", "-i", "@a", &scene.at("@b")];
    let sent: Value = serde_json::from_str(&scene.firn(&json).done().out).unwrap();
    assert_eq!((&sent["from"], &sent["dry_run"]), (&scene.at("@a").into(), &true.into()));
    assert_eq!(
        (&sent["estimated_bytes"], &sent["stream_bytes"]),
        (&(1 << 20).into(), &Value::Null)
    );
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_sent() {
    let scene = Scene::mounted();
    for name in ["@a", "@b"] {
        scene.take_snapshot(name);
    }
    let send = |args: &[&str]| scene.firn(&[&["snapshot", "send"], args].concat());
    send(&[scene.mnt()]).refused(2, &["names no snapshot"]);
    send(&[&scene.at("@missing")]).refused(1, &["no such snapshot", "missing"]);
    send(&["-i", "@missing", &scene.at("@b")]).refused(1, &["@missing", "no such snapshot"]);
    send(&["-i", "@b", &scene.at("@a")]).refused(1, &["not an earlier state"]);
    send(&["-i", "@a", &scene.at("@a")]).refused(1, &["not an earlier state"]);
    send(&["-t", "nonsense", &scene.at("@a")]).refused(2, &["not a resume token"]);
    send(&["--to", "ftp://x/y", &scene.at("@a")]).refused(2, &["unknown scheme"]);
    send(&["--to", "s3://user:pw@x/y", &scene.at("@a")]).refused(2, &["credentials"]);
    send(&["--to", "file:///no/such/dir/x", &scene.at("@a")]).refused(1, &["/no/such/dir/x"]);
    let terminal = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)";
    for verb in [["send", &scene.at("@a")], ["receive", &scene.at("/x")]] {
        let args = [&["-c", terminal, env!("CARGO_BIN_EXE_firn"), "snapshot"][..], &verb].concat();
        let output = Command::new("python3").args(args).stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("terminal") && said.contains("hint: "), "{said}");
    }
    assert_eq!(scene.everything(), ["", "@a", "@b"]);
}

#[test]
fn a_stream_that_does_not_fit_changes_nothing() {
    let (one, two) = (Scene::mounted(), Scene::mounted());
    one.write("file", b"one");
    one.take_snapshot("@a");
    one.write("file", b"two");
    one.take_snapshot("@b");
    let (full, later) = (one.full("@a"), one.incremental("@a", "@b"));
    let copy = two.at("/copy");
    two.receive(&[&copy], &later).refused(1, &["the snapshot", "as its base", "full stream"]);
    two.receive(&[&copy], b"").refused(1, &["stream"]);
    two.receive(&[&copy], &[7; 100_000]).refused(1, &["not a send stream"]);
    two.receive(&[&two.at("/no/such")], &full).refused(1, &["/no"]);
    assert_eq!(two.everything(), [""], "nothing is half-done");
    two.receive(&[&copy], &full).done();
    two.receive(&[&copy], &full).refused(1, &["exists already"]);
    fs::create_dir(two.mountpoint.join("plain")).unwrap();
    two.receive(&[&two.at("/plain")], &full).refused(1, &["plain", "not the root directory"]);
    two.write("copy/file", b"changed");
    two.receive(&[&copy], &later).refused(1, &["modified since", "-F"]);
    assert_eq!(two.read("copy/file"), b"changed");
    two.receive(&["-F", &copy], &later).done();
    assert_eq!(two.read("copy/file"), b"two");
    assert_eq!(two.everything(), ["", "/copy", "/copy@a", "/copy@b"]);
    two.receive(&["-A", &copy], b"").refused(1, &["no interrupted receive"]);
}

#[test]
fn a_torn_stream_leaves_nothing_or_goes_on_from_its_token() {
    let (one, two) = (Scene::mounted(), Scene::mounted());
    let noise: Vec<u8> = (0..1_500_000_u32).flat_map(|i| i.wrapping_mul(i).to_le_bytes()).collect();
    for name in ["f1", "f2", "f3"] {
        one.write(name, &noise);
    }
    one.take_snapshot("@a");
    let full = one.full("@a");
    let copy = two.at("/copy");
    for at in [1, 100, full.len() / 2, full.len() - 1] {
        two.receive(&[&copy], &full[..at]).refused(1, &["ends after", "-s"]);
        assert_eq!(two.everything(), [""], "cut at {at}");
    }
    let cut = two.receive(&["-s", &copy], &full[..full.len() / 2]);
    let cut = cut.refused(1, &["ends after", "send -t ", "receive -A "]);
    assert_eq!(two.everything(), [""], "it does not show yet");
    two.receive(&[&copy], &full).refused(1, &["interrupted receive", "send -t "]);
    let token = cut.err.split("send -t ").nth(1).unwrap().split(' ').next().unwrap();
    let status: Value =
        serde_json::from_str(&two.firn(&["status", "--json", two.mnt()]).done().out).unwrap();
    let waiting = serde_json::json!([{ "dataset": &copy, "snapshot": "a", "token": token }]);
    assert_eq!(status["receives"], waiting);
    assert!(two.firn(&["status", two.mnt()]).done().out.contains(token));
    let rest = stream(&["snapshot", "send", "-t", token, one.mnt()]);
    assert!(rest.len() < full.len() * 3 / 4, "{} of {}", rest.len(), full.len());
    two.receive(&["-s", &copy], &rest).done();
    assert!(two.read("copy/f1") == noise && two.read("copy/f3") == noise);
    let other = two.at("/other");
    two.receive(&["-s", &other], &full[..full.len() / 2]).refused(1, &["send -t "]);
    two.receive(&["-A", &other], b"").done();
    two.receive(&[&other], &rest).refused(1, &["nothing was interrupted"]);
    two.receive(&[&other], &full).done();
    assert_eq!(two.everything(), ["", "/copy", "/other", "/copy@a", "/other@a"]);
}

#[test]
fn volumes_that_are_not_mounted_send_and_receive() {
    let (one, two) = (Scene::mounted(), Scene::new());
    one.write("file", b"content");
    one.take_snapshot("@a");
    one.umount_done();
    let full = stream(&["snapshot", "send", &format!("{}:/@a", one.vol())]);
    let into = format!("{}:/copy", two.vol());
    assert_eq!(two.receive(&["-v", &into], &full).done().out.split(':').next(), Some(two.vol()));
    two.receive(&[&into], &full).refused(1, &["exists already"]);
    two.mount().done();
    assert_eq!(two.read("copy/file"), b"content");
}

#[test]
fn a_stream_goes_straight_into_an_object_and_back() {
    let (one, two) = (Scene::mounted(), Scene::mounted());
    let noise: Vec<u8> = (0..6_000_000_u32).flat_map(|i| i.wrapping_mul(i).to_le_bytes()).collect();
    one.write("file", &noise);
    one.take_snapshot("@a");
    let objects = tempfile::tempdir().unwrap();
    let server = firn_tests::Server::start(objects.path()).unwrap();
    let urls = [
        format!("s3://{}/Backups/a.firn", firn_tests::BUCKET),
        format!("file://{}/a.firn", objects.path().display()),
    ];
    let firn = |args: &[&str]| {
        let mut command = command(args);
        command.envs(server.variables()).stdin(Stdio::null());
        Ran::from(&command.output().unwrap())
    };
    for (number, url) in urls.iter().enumerate() {
        let into = two.at(&format!("/copy{number}"));
        firn(&["snapshot", "receive", "--from", url, &into]).refused(1, &["not found"]);
        firn(&["snapshot", "send", "--to", url, &one.at("@a")]).done();
        firn(&["snapshot", "send", "--to", url, &one.at("@a")]).refused(1, &["exists already"]);
        firn(&["snapshot", "receive", "--from", url, &into]).done();
        assert!(two.read(&format!("copy{number}/file")) == noise);
    }
    drop(server);
    assert!(!one.log().contains(firn_tests::SECRET_KEY) && !two.log().contains("firn-test"));
}

#[test]
fn what_waits_to_go_on_is_named_to_those_in_whose_way_it_is() {
    let (one, two) = (Scene::mounted(), Scene::mounted());
    one.write("file", b"one");
    one.take_snapshot("@a");
    let noise: Vec<u8> = (0..1_500_000_u32).flat_map(|i| i.wrapping_mul(i).to_le_bytes()).collect();
    one.write("file", &noise);
    one.take_snapshot("@b");
    let (full, later) = (one.full("@a"), one.incremental("@a", "@b"));
    let copy = two.at("/copy");
    two.receive(&[&copy], &full).done();
    let get = || two.firn(&["dataset", "get", "receive_resume_token", &copy, "--json"]).done().out;
    let before = get();
    let cut = two.receive(&["-s", &copy], &later[..later.len() - 9]).refused(1, &["send -t "]);
    let token = cut.err.split("send -t ").nth(1).unwrap().split(' ').next().unwrap();
    assert!(!before.contains(token) && get().contains(token), "{}", get());
    let into = format!("received into {copy}");
    let every = two.firn(&["snapshot", "create", "-r", &two.at("@all")]);
    every.refused(1, &[&into, "firn snapshot receive -A"]);
    let made = fs::create_dir(two.mountpoint.join("copy/new")).unwrap_err();
    assert_eq!(made.raw_os_error(), Some(libc::EROFS));
    two.firn(&["dataset", "set", "compression=off", &copy]).done();
    two.firn(&["snapshot", "hold", "kept", &two.at("/copy@a")]).done();
    let rest = stream(&["snapshot", "send", "-t", token, one.mnt()]);
    two.receive(&[&copy], &rest).done();
    assert!(two.read("copy/file") == noise);
    assert!(!get().contains(token));
}

#[test]
fn a_send_whose_reader_goes_has_failed() {
    let scene = Scene::mounted();
    let noise: Vec<u8> =
        (0..4_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    scene.write("large", &noise);
    scene.take_snapshot("@s");
    let name = scene.at("@s");
    let mut child = command(&["snapshot", "send", &name])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("standard output"), "{err}");
}

#[test]
fn what_arrives_is_compared_with_what_was_sent() {
    let (one, two) = (Scene::mounted(), Scene::mounted());
    let key = one.dir.path().join("key");
    fs::write(&key, "07".repeat(32)).unwrap();
    let key = key.to_str().unwrap();
    one.write("file", &[7; 1 << 20]);
    one.take_snapshot("@a");
    one.write("file", b"other");
    one.take_snapshot("@b");
    let root = |scene: &Scene, snapshot: &str| -> Value {
        let out = scene.firn(&["verify", "--json", &scene.at(snapshot)]).done().out;
        serde_json::from_str::<Value>(&out).unwrap()["root"].clone()
    };
    let sealed =
        |args: &[&str]| stream(&[&["snapshot", "send", "--key-file", key][..], args].concat());
    let full = sealed(&[&one.at("@a")]);
    let receive = ["--json", "--key-file", key, &two.at("/copy")];
    let received: Value = serde_json::from_str(&two.receive(&receive, &full).done().out).unwrap();
    assert_eq!((&received["equal"], &received["lacking"]), (&true.into(), &0.into()), "{received}");
    assert_eq!(received["sent_root"], root(&one, "@a"), "{received}");
    let changes = sealed(&["-i", "@a", &one.at("@b")]);
    let received: Value =
        serde_json::from_str(&two.receive(&receive, &changes).done().out).unwrap();
    assert_eq!(received["equal"], true, "{received}");
    // It has its digest without any wait.
    assert_eq!(root(&two, "/copy@b"), root(&one, "@b"));
    let pair = [one.at("@b"), two.at("/copy@b")];
    let ran = two.firn(&["verify", &pair[0], &pair[1]]).done();
    assert!(
        ran.out.ends_with(&format!("{} and {}: the same content\n", pair[0], pair[1])),
        "{}",
        ran.out
    );
    let out = two.firn(&["snapshot", "list", "-q", "--json", &two.at("/copy")]).done().out;
    let list: Value = serde_json::from_str(&out).unwrap();
    for line in list["snapshots"].as_array().unwrap() {
        assert!(line["as_sent"] == true && line["sent_root"] == line["root"], "{line}");
    }
    let out = two.firn(&["snapshot", "list", "-q", &two.at("/copy")]).done().out;
    let columns = |line: &str| line.split_whitespace().last().unwrap().to_owned();
    let last: Vec<String> = out.lines().map(columns).collect();
    assert_eq!(last, ["SENT", "equal", "equal"], "{out}");
    let out = one.firn(&["snapshot", "list", "-q", one.mnt()]).done().out;
    assert!(!out.to_lowercase().contains("sent"), "nothing was received: {out}");
    assert_eq!(two.status()["not_as_sent"], Value::Array(Vec::new()));
}
