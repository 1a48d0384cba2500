#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Cursor, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use anyhow::bail;

use super::client::{Client, Listener};
use super::protocol::{self, Answer, Files, Progress, Request, VERSION, Verb};
use super::server::{ControlSocket, Handler, Outbox, SocketFile};
use crate::failure::{Explain, Failure};
use crate::volume_dir::VolumeDir;

/// Answers `status` with items, and everything else with an error.
struct Echo;

impl Handler for Echo {
    fn handle(&self, verb: Verb, out: &mut Outbox) -> anyhow::Result<()> {
        let Verb::Status = verb else { bail!("no {verb:?} here") };
        out.progress(Progress { doing: "counting".into(), ..Progress::default() })?;
        out.warning("careful")?;
        out.item(&41)?;
        out.item(&42)?;
        Ok(())
    }
}

#[derive(Default)]
struct Heard(Vec<String>);

impl Listener for Heard {
    fn progress(&mut self, progress: &Progress) {
        self.0.push(progress.doing.clone());
    }
    fn warning(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }
    fn item(&mut self, item: serde_json::Value) -> anyhow::Result<()> {
        self.0.push(item.to_string());
        Ok(())
    }
}

fn served() -> (tempfile::TempDir, VolumeDir, SocketFile) {
    let dir = tempfile::tempdir().unwrap();
    // Deeper than a socket address is long.
    let deep = dir.path().join("d".repeat(100)).join("e".repeat(100));
    std::fs::create_dir_all(&deep).unwrap();
    let volume = VolumeDir::unchecked(deep);
    let socket = ControlSocket::bind(&volume.control_socket()).unwrap();
    let file = socket.serve(Arc::new(Echo)).unwrap();
    (dir, volume, file)
}

#[test]
fn a_request_is_answered_line_by_line() {
    let (_dir, volume, _socket) = served();
    let mut heard = Heard::default();
    Client::connect(&volume).unwrap().ask(Verb::Status, &mut heard).unwrap();
    assert_eq!(heard.0, ["counting", "careful", "41", "42"]);
    let last: u32 = Client::connect(&volume).unwrap().ask_one(Verb::Status).unwrap();
    assert_eq!(last, 42);
}

#[test]
fn an_error_arrives_with_its_text() {
    let (_dir, volume, _socket) = served();
    let mut heard = Heard::default();
    let error = Client::connect(&volume).unwrap().ask(Verb::Sync, &mut heard).unwrap_err();
    assert_eq!(error.to_string(), "no Sync here");
}

#[test]
fn the_socket_is_private_replaces_a_dead_one_and_goes_with_its_daemon() {
    let (_dir, volume, socket) = served();
    let path = volume.control_socket();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    drop(ControlSocket::bind(&path).unwrap());
    assert!(!path.exists(), "a socket that nobody serves goes too");
    drop(ControlSocket::bind(&path).unwrap().serve(Arc::new(Echo)).unwrap());
    assert!(!path.exists());
    drop(socket);
    let failure = Failure::new(&Client::connect(&volume).unwrap_err());
    assert!(failure.message.ends_with("is not mounted"), "{failure}");
    assert!(failure.hint.unwrap().contains("firn mount"));
}

fn raw(volume: &VolumeDir, bytes: &[u8]) -> Answer {
    let path = volume.control_socket();
    let mut stream = super::with_short_path(&path, |path| UnixStream::connect(path)).unwrap();
    // The daemon may refuse before it has read everything.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

#[test]
fn nonsense_and_other_versions_are_refused() {
    let (_dir, volume, _socket) = served();
    let cases: [&[u8]; 6] = [
        b"",
        b"\n",
        b"{\"version\":1}\n",
        b"{\"version\":2,\"verb\":\"status\"}\n",
        b"{\"version\":1,\"verb\":\"explode\"}\n",
        b"{\"version\":1,\"verb\":\"status\"",
    ];
    for bytes in cases {
        assert!(matches!(raw(&volume, bytes), Answer::Error(_)), "{bytes:?}");
    }
    let endless = vec![b'x'; protocol::MAX_REQUEST as usize + 10];
    assert!(matches!(raw(&volume, &endless), Answer::Error(_)));
}

#[test]
fn requests_read_back() {
    let files = Files { ino: 7, name: "/data/x".into(), recursive: true };
    for verb in [Verb::Status, Verb::Explain { ino: 9 }, Verb::Archive(files)] {
        let request = Request { version: VERSION, verb };
        let line = protocol::to_line(&request).unwrap();
        let back = protocol::read_line(&mut Cursor::new(line), 1 << 10).unwrap();
        assert_eq!(back, Some(request));
    }
}

#[test]
fn a_hint_crosses_the_socket() {
    let error = Err::<(), _>(anyhow::anyhow!("x")).hint("try y").unwrap_err();
    let line = protocol::to_line(&Answer::Error(Failure::new(&error))).unwrap();
    let back: Option<Answer> = protocol::read_line(&mut Cursor::new(line), 1 << 10).unwrap();
    let Some(Answer::Error(failure)) = back else { panic!("{back:?}") };
    assert_eq!(failure.hint.as_deref(), Some("try y"));
}

/// A user is a thread's own affair, so that this test may become somebody else.
fn as_user<T: Send>(user: u32, act: impl FnOnce() -> T + Send) -> T {
    let become_user = || {
        let user = rustix::process::Uid::from_raw(user);
        rustix::thread::set_thread_res_uid(None, Some(user), None).unwrap();
        act()
    };
    std::thread::scope(|scope| scope.spawn(become_user).join().unwrap())
}

#[test]
fn the_socket_is_its_owners_alone_and_asks_who_comes() {
    if !rustix::process::geteuid().is_root() {
        // Becoming another user needs root.
        return;
    }
    let (dir, volume, _socket) = served();
    let path = volume.control_socket();
    for at in path.ancestors().skip(1).take_while(|at| at.starts_with(dir.path())) {
        std::fs::set_permissions(at, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let connect = || super::with_short_path(&path, |path| UnixStream::connect(path));
    let refused = as_user(65_534, connect).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    // Whoever opens the socket to all has not opened the volume.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let mut stream = as_user(65_534, connect).unwrap();
    let _ = stream.write_all(b"{\"version\":1,\"verb\":\"status\"}\n");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    let Ok(Answer::Error(failure)) = serde_json::from_str(&line) else { panic!("{line}") };
    assert_eq!(failure.message, "user 65534 may not control this volume");
    assert_eq!(Client::connect(&volume).unwrap().ask_one::<u32>(Verb::Status).unwrap(), 42);
}
