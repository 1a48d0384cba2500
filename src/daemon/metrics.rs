//! The numbers of `firn status` for Prometheus, over HTTP on an address that `firn.toml` names.
//!
//! Only `GET /metrics` is answered. All is bounded: connections at once, the time each may last, and
//! one look at the volume at a time, so that no client can keep the daemon busy or its descriptors.
//! An address that cannot be had is told of, and the mount goes on without it.

use std::fs;
use std::future::pending;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use axum::{Router, serve};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::config::MetricsAddress;
use crate::failure::Explain;
use crate::mounts;
use crate::report::status::Status;

mod bounded;
mod numbers;

use bounded::Bounded;

/// Connections at once; more wait.
const CONNECTIONS: usize = 8;

/// Longest life of a connection. Those who come again connect again.
const CONNECTION_LIFE: Duration = Duration::from_secs(60);

/// What OpenMetrics text is called.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Who says how the volume is.
pub(super) type Look = Arc<dyn Fn() -> Status + Send + Sync>;

/// An address that was bound and that nobody answers at yet.
pub(super) struct Bound {
    socket: Socket,
    address: String,
    file: Option<SocketFile>,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The name of a Unix socket; removed with this.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody else may have taken it away, which is as good.
        let _ = fs::remove_file(&self.0);
    }
}

/// Metrics that are served until this is dropped.
#[derive(Debug)]
pub(super) struct Metrics {
    task: JoinHandle<()>,
    _file: Option<SocketFile>,
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Bound {
    /// Binds `address`. A Unix socket that nobody listens at is replaced.
    pub(super) fn bind(address: &MetricsAddress) -> anyhow::Result<Self> {
        let what = || format!("metrics at {address}");
        match address {
            MetricsAddress::Tcp(address) => {
                let socket = TcpListener::bind(address).with_context(what).hint(
                    "name another port as `metrics` in firn.toml, or end who listens there",
                )?;
                socket.set_nonblocking(true).with_context(what)?;
                let address = socket.local_addr().with_context(what)?.to_string();
                Ok(Self { socket: Socket::Tcp(socket), address, file: None })
            }
            MetricsAddress::Unix(path) => {
                let (socket, file) = bind_unix(path).with_context(what)?;
                let address = mounts::shown(path);
                Ok(Self { socket: Socket::Unix(socket), address, file: Some(file) })
            }
        }
    }

    /// Where it is, with the port that was given.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Answers on `runtime`.
    pub(super) fn serve(self, look: Look, runtime: &Handle) -> io::Result<Metrics> {
        let _inside = runtime.enter();
        let scrapes = Scrapes { look, turn: Arc::new(Semaphore::new(1)) };
        let router = Router::new().route("/metrics", get(scrape)).with_state(scrapes);
        let task = match self.socket {
            Socket::Tcp(socket) => {
                runtime.spawn(run(tokio::net::TcpListener::from_std(socket)?, router))
            }
            Socket::Unix(socket) => {
                runtime.spawn(run(tokio::net::UnixListener::from_std(socket)?, router))
            }
        };
        Ok(Metrics { task, _file: self.file })
    }
}

fn bind_unix(path: &Path) -> anyhow::Result<(UnixListener, SocketFile)> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if is_socket && UnixStream::connect(path).is_ok() {
        return Err(anyhow!("somebody else answers there"))
            .hint("name another path as `metrics` in firn.toml");
    }
    if is_socket {
        fs::remove_file(path).context("removing what a dead daemon left")?;
    }
    let socket = UnixListener::bind(path)?;
    let file = SocketFile(path.to_owned());
    // Until here the mode follows the umask; nobody is answered yet.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    socket.set_nonblocking(true)?;
    Ok((socket, file))
}

async fn run<L>(listener: L, router: Router)
where
    L: Listener,
    L::Addr: std::fmt::Debug,
{
    let listener = Bounded::new(listener, CONNECTIONS, CONNECTION_LIFE);
    if let Err(error) = serve(listener, router).await {
        tracing::warn!(%error, "metrics are no longer served");
    }
    pending::<()>().await;
}

/// One look at a time.
#[derive(Clone)]
struct Scrapes {
    look: Look,
    turn: Arc<Semaphore>,
}

async fn scrape(State(scrapes): State<Scrapes>) -> Response {
    let unavailable = |what: &str| (StatusCode::SERVICE_UNAVAILABLE, what.to_owned());
    let Ok(_turn) = scrapes.turn.acquire().await else {
        return unavailable("the volume is being closed\n").into_response();
    };
    // Counting reads directories and waits for locks.
    let look = Arc::clone(&scrapes.look);
    let text = tokio::task::spawn_blocking(move || numbers::text(look())).await;
    match text {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Ok(Err(_)) | Err(_) => unavailable("the volume could not be looked at\n").into_response(),
    }
}

#[cfg(test)]
mod tests;
