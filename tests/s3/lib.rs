//! An S3 server on loopback: real HTTP, real signatures, objects as files below a directory.
//! Tests start one inside their process ([`Server::start`]); scripts run `firn-s3-server`. What goes
//! wrong on demand, and what was asked of it, is in [`Server::faults`].

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::thread::JoinHandle;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub mod command;
mod faults;
mod layer;
mod socket;
#[cfg(test)]
mod tests;

pub use faults::{Fate, Faults, Plan, Request, Seen};

use layer::Layer;
use socket::{Cut, Socket};

/// The one user of every server here.
pub const ACCESS_KEY: &str = "firn-test-user";
/// Its secret, which must not appear in any message.
pub const SECRET_KEY: &str = "firn-test-secret-4f1d";
/// The bucket that exists from the start.
pub const BUCKET: &str = "ice";

/// A failure to start.
pub type StartError = Box<dyn std::error::Error + Send + Sync>;

/// A running server. Stops when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    faults: Faults,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves the buckets below `root` on a free port of the loopback interface, on a thread of
    /// its own, so that a paused or busy test runtime does not slow it.
    pub fn start(root: &Path) -> Result<Self, StartError> {
        Self::start_on(root, (Ipv4Addr::LOCALHOST, 0).into())
    }

    /// As [`Server::start`], on this address.
    pub fn start_on(root: &Path, address: SocketAddr) -> Result<Self, StartError> {
        Self::serve(root, address, Access::Signed)
    }

    fn serve(root: &Path, address: SocketAddr, access: Access) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // Bound here, not on the new runtime, since the caller may be inside another.
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let service = service(root, access)?;
        let faults = Faults::default();
        let layered = faults.clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("s3-server".to_owned()).spawn(move || {
            runtime.block_on(async {
                let Ok(listener) = TcpListener::from_std(listener) else { return };
                tokio::select! {
                    () = serve(listener, service, layered) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { address, faults, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What goes wrong, and what was seen.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The variables of the environment that a client needs.
    pub fn variables(&self) -> Vec<(String, String)> {
        variables(self.address)
    }

    /// Waits for ever.
    pub fn join(mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The variables of the environment that a client of the server at `address` needs.
pub fn variables(address: SocketAddr) -> Vec<(String, String)> {
    let pairs = [
        ("AWS_ENDPOINT", format!("http://{address}")),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Who is answered.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Access {
    /// Requests with the signature of [`ACCESS_KEY`].
    Signed,
    /// Everybody.
    #[cfg(test)]
    Open,
}

fn service(root: &Path, access: Access) -> Result<S3Service, StartError> {
    std::fs::create_dir_all(root.join(BUCKET))?;
    let store = s3s_fs::FileSystem::new(root).map_err(|error| format!("{error:?}"))?;
    let mut builder = S3ServiceBuilder::new(store);
    if access == Access::Signed {
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
    }
    Ok(builder.build())
}

async fn serve(listener: TcpListener, service: S3Service, faults: Faults) {
    let http = Builder::new(TokioExecutor::new());
    while let Ok((stream, _)) = listener.accept().await {
        // Otherwise the end of a body waits 40 ms for the acknowledgement of what came before it.
        if stream.set_nodelay(true).is_err() {
            continue;
        }
        let cut = Cut::default();
        let socket = TokioIo::new(Socket::new(stream, cut.clone()));
        let layer = Layer { service: service.clone(), faults: faults.clone(), cut };
        let connection = http.serve_connection(socket, layer).into_owned();
        tokio::spawn(async move {
            // A client that hangs up is the client's affair.
            let _ = connection.await;
        });
    }
}
