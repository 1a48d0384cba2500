//! The daemon's side of the control socket: a thread that accepts, a thread per connection. Few
//! people type at once, so threads are simplest; their number is bounded, and so is the time a
//! silent or slow peer may keep one.

use std::fs;
use std::io::{self, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow};
use rustix::io::Errno;
use rustix::net::{RecvFlags, UCred};
use serde::Serialize;

use super::passing::Receiving;
use super::protocol::{self, Answer, MAX_REQUEST, Progress, Request, VERSION, Verb};
use crate::failure::{self, Explain, Failure};
use crate::mounts;

/// Connections at once.
const MAX_CONNECTIONS: usize = 32;

/// How long a peer may take to send its request, or to take a line of the answer.
const PEER_PATIENCE: Duration = Duration::from_secs(60);

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request into `out`; the closing line is written by the caller.
    fn handle(&self, verb: Verb, out: &mut Outbox) -> anyhow::Result<()>;
}

/// Where an answer goes, and what came along with the question. Writing fails when the asker is
/// gone.
#[derive(Debug)]
pub struct Outbox {
    stream: UnixStream,
    passed: Option<OwnedFd>,
    closed: bool,
}

impl Outbox {
    /// Sends one part of the answer.
    pub fn item<T: Serialize>(&mut self, item: &T) -> io::Result<()> {
        self.send(&Answer::Item(serde_json::to_value(item)?))
    }

    /// Says how far the work is.
    pub fn progress(&mut self, progress: Progress) -> io::Result<()> {
        self.send(&Answer::Progress(progress))
    }

    /// Says what went wrong without stopping the rest.
    pub fn warning(&mut self, text: impl Into<String>) -> io::Result<()> {
        self.send(&Answer::Warning(text.into()))
    }

    /// The stream that came along.
    pub fn take_passed(&mut self) -> anyhow::Result<UnixStream> {
        let passed = self.passed.take().context("no stream came with the request")?;
        Ok(UnixStream::from(passed))
    }

    /// Whether the asker is gone; it says nothing more after its request.
    pub fn is_gone(&self) -> bool {
        let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match rustix::net::recv(&self.stream, &mut [0_u8; 1], peek) {
            Ok((_, len)) => len == 0,
            Err(errno) => errno != Errno::AGAIN && errno != Errno::INTR,
        }
    }

    /// The process that asks.
    pub fn peer(&self) -> io::Result<UCred> {
        Ok(rustix::net::sockopt::socket_peercred(&self.stream)?)
    }

    /// Closes the answer before the handler returns, for one whose process ends right after.
    pub fn close(&mut self, result: &anyhow::Result<()>) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        self.closed = true;
        match result {
            Ok(()) => self.send(&Answer::Done),
            Err(error) => self.send(&Answer::Error(Failure::new(error))),
        }
    }

    fn send(&mut self, answer: &Answer) -> io::Result<()> {
        self.stream.write_all(&protocol::to_line(answer)?)
    }
}

/// A bound control socket that nobody answers yet.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    file: SocketFile,
}

impl ControlSocket {
    /// Binds `path`, replacing what a dead daemon left. The caller holds the volume's lock.
    pub fn bind(path: &Path) -> anyhow::Result<Self> {
        let name = || format!("control socket {}", mounts::shown(path));
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(name);
            }
            _ => {}
        }
        let listener =
            super::with_short_path(path, |path| UnixListener::bind(path)).with_context(name)?;
        let file = SocketFile(path.to_owned());
        // Until here the mode follows the umask; nobody gets further than the peer check anyway.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).with_context(name)?;
        Ok(Self { listener, file })
    }

    /// Answers requests until the process ends or the returned guard is dropped, which removes
    /// the socket; running answers go on.
    pub fn serve(self, handler: Arc<dyn Handler>) -> io::Result<SocketFile> {
        let running = Arc::new(AtomicUsize::new(0));
        let Self { listener, file } = self;
        std::thread::Builder::new().name("firn-control".into()).spawn(move || {
            for stream in listener.incoming() {
                match stream {
                    Ok(stream) => accept(stream, &handler, &running),
                    Err(error) => {
                        tracing::warn!(%error, "accepting a control connection");
                        std::thread::sleep(Duration::from_millis(100));
                    }
                }
            }
        })?;
        Ok(file)
    }
}

/// The socket's name; removed with this.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

/// Answers the one request that comes through the returned end, on a thread of this process.
pub fn answer_here(handler: Arc<dyn Handler>) -> io::Result<(UnixStream, JoinHandle<()>)> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut out = Outbox { stream: theirs, passed: None, closed: false };
    let thread = std::thread::Builder::new().name("firn-answer".into()).spawn(move || {
        if let Err(error) = converse(&mut out, handler.as_ref()) {
            tracing::debug!(error = failure::line(&error), "answering oneself");
        }
    })?;
    Ok((ours, thread))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Counts a connection as long as it lives.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn accept(stream: UnixStream, handler: &Arc<dyn Handler>, running: &Arc<AtomicUsize>) {
    let before = running.fetch_add(1, Ordering::Relaxed);
    let counted = Running(Arc::clone(running));
    let handler = Arc::clone(handler);
    let mut out = Outbox { stream, passed: None, closed: false };
    if before >= MAX_CONNECTIONS {
        let failure = Failure::new(&anyhow!("the daemon answers too many requests at once"));
        let _ = out.send(&Answer::Error(failure));
        return;
    }
    let spawned = std::thread::Builder::new().name("firn-answer".into()).spawn(move || {
        let _counted = counted;
        if let Err(error) = converse(&mut out, handler.as_ref()) {
            tracing::debug!(error = failure::line(&error), "control connection");
        }
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "starting a thread for a control connection");
    }
}

fn converse(out: &mut Outbox, handler: &dyn Handler) -> anyhow::Result<()> {
    out.stream.set_read_timeout(Some(PEER_PATIENCE))?;
    out.stream.set_write_timeout(Some(PEER_PATIENCE))?;
    let result = answer(out, handler);
    out.close(&result).context("closing the answer")
}

fn answer(out: &mut Outbox, handler: &dyn Handler) -> anyhow::Result<()> {
    check_peer(&out.stream)?;
    let mut reader = BufReader::new(Receiving::new(&out.stream));
    let value: serde_json::Value = protocol::read_line(&mut reader, MAX_REQUEST)
        .context("reading the request")?
        .ok_or_else(|| anyhow!("the request is empty"))?;
    let passed = reader.into_inner().passed();
    out.passed = passed;
    let version = value.get("version").and_then(serde_json::Value::as_u64);
    if version != Some(u64::from(VERSION)) {
        return Err(anyhow!("the daemon speaks control protocol {VERSION}, this command another"))
            .hint("use the version of firn that mounted the volume, or mount it again");
    }
    let request: Request = serde_json::from_value(value)
        .context("the daemon does not know this request")
        .hint("use the version of firn that mounted the volume, or mount it again")?;
    handler.handle(request.verb, out)
}

/// Only root and the daemon's own user are answered.
fn check_peer(stream: &UnixStream) -> anyhow::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(stream).context("asking who is there")?;
    let own = rustix::process::geteuid();
    if peer.uid.is_root() || peer.uid == own {
        return Ok(());
    }
    Err(anyhow!("user {} may not control this volume", peer.uid.as_raw()))
        .hint(format!("only root and user {} may", own.as_raw()))
}
