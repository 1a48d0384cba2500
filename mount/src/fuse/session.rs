//! A mounted volume from attaching it until its last request has ended.
//!
//! Unmounting is the kernel's decision: it refuses while files are open, writes its dirty pages
//! out first, and then closes the connection, upon which the serving threads end. Whoever takes
//! the mount away, [`MountedSession::join`] returns; only then may the core be closed.

use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use fuser::{Session, SessionACL};
use tokio::runtime::Handle;

use super::MountError;
use super::adapter::Adapter;
use super::kernel_cache::KernelCache;
use super::mountpoint;
use super::options::MountOptions;
use super::receivers::{Device, Receivers};
use super::waiters::Waiters;
use crate::core::Core;

/// A volume that is mounted and served in the background. Dropping it detaches the mount.
#[derive(Debug)]
pub struct MountedSession {
    unmounter: Unmounter,
    cache: KernelCache,
    waiters: Waiters,
    serving: Option<JoinHandle<io::Result<()>>>,
}

/// Takes a mount away; usable from any thread that serves no requests.
#[derive(Clone, Debug)]
pub struct Unmounter {
    mountpoint: PathBuf,
    /// `major:minor` of the mount, where the kernel keeps what can be set about it.
    device: String,
}

/// Mounts `core` at `mountpoint` and serves it; returns when the mount answers.
///
/// Calls that must wait run on blocking threads of `runtime`, which has to outlive the session.
/// What a dead daemon of Firn left at the mountpoint is replaced.
pub fn mount<C: Core>(
    core: Arc<C>,
    mountpoint: &Path,
    options: &MountOptions,
    runtime: Handle,
) -> Result<MountedSession, MountError> {
    let (connection, path) = mountpoint::attach(mountpoint, options)?;
    let guard = DetachOnError(Some(path.clone()));
    let device = mountpoint::mount_entry(&path).ok().flatten().map(|entry| entry.device);
    let device = device.unwrap_or_default();
    let cache = KernelCache::new(path.clone(), options.cache);
    let waiters = Waiters::new(runtime);
    let threads = options.threads.max(1);
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let watched = connection.try_clone().map_err(|e| MountError::io("the FUSE connection", e))?;
    let receivers = Receivers::new(Device(watched), threads, processors);
    let adapter = Adapter::new(core, cache.clone(), waiters.clone(), receivers);
    let mut config = fuser::Config::default();
    config.n_threads = Some(threads);
    // Own queues of answers for each thread, where /dev/fuse may be opened again.
    config.clone_fd = std::fs::File::options().read(true).write(true).open("/dev/fuse").is_ok();
    // Who may use the mount is checked by the kernel. The library's own check would refuse the
    // times that the kernel writes back in root's name.
    config.acl = SessionACL::All;
    let session = Session::from_fd(adapter, connection, SessionACL::All, config)
        .map_err(|error| MountError::io("the FUSE handshake", error))?;
    cache.connect(session.notifier());
    let serving = std::thread::Builder::new()
        .name("firn-fuse".to_owned())
        .spawn(move || session.run())
        .map_err(|error| MountError::io("starting a thread", error))?;
    guard.disarm();
    let unmounter = Unmounter { mountpoint: path, device };
    unmounter.raise_readahead(options.readahead_kib);
    Ok(MountedSession { unmounter, cache, waiters, serving: Some(serving) })
}

/// Whether a thread of this name serves requests, as the library names them.
pub fn is_serving_thread(name: &str) -> bool {
    name.starts_with("fuser-")
}

impl MountedSession {
    /// Where it is mounted, as an absolute path.
    pub fn mountpoint(&self) -> &Path {
        &self.unmounter.mountpoint
    }

    /// What the kernel caches of this mount.
    pub fn kernel_cache(&self) -> KernelCache {
        self.cache.clone()
    }

    /// Takes the mount away from another thread.
    pub fn unmounter(&self) -> Unmounter {
        self.unmounter.clone()
    }

    /// Whether the mount is gone already.
    pub fn is_finished(&self) -> bool {
        self.serving.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Blocks until the mount is gone and every request has ended.
    pub fn join(mut self) -> io::Result<()> {
        self.wait()
    }

    /// Unmounts and blocks until every request has ended.
    pub fn unmount(mut self) -> Result<(), MountError> {
        self.unmounter.unmount()?;
        self.wait().map_err(|error| MountError::io("serving requests", error))
    }

    fn wait(&mut self) -> io::Result<()> {
        let Some(serving) = self.serving.take() else { return Ok(()) };
        let ended = serving.join();
        self.waiters.finish();
        ended.unwrap_or_else(|_| Err(io::Error::other("a thread that serves requests panicked")))
    }
}

impl Drop for MountedSession {
    fn drop(&mut self) {
        // Not waited for: it goes on for as long as somebody holds a file open.
        if self.serving.is_some()
            && let Err(error) = self.unmounter.unmount_lazily()
        {
            tracing::debug!(%error, "unmounting");
        }
    }
}

impl Unmounter {
    /// Unmounts; fails with [`MountError::Busy`] while files are open or directories in use.
    ///
    /// Dirty pages are written out first, so this waits for answers to requests.
    pub fn unmount(&self) -> Result<(), MountError> {
        mountpoint::detach(&self.mountpoint, false)
    }

    /// Takes the mount out of the tree now; it ends when its last file is closed.
    pub fn unmount_lazily(&self) -> Result<(), MountError> {
        mountpoint::detach(&self.mountpoint, true)
    }

    /// Ends the connection at once: callers that wait get an error, dirty pages are lost.
    ///
    /// The last resort when the kernel itself waits for an answer that cannot come.
    pub fn abort(&self) -> Result<(), MountError> {
        // The kernel names a connection by the minor number of its anonymous device.
        let (_, minor) = self.device.split_once(':').unwrap_or_default();
        let switch = format!("/sys/fs/fuse/connections/{minor}/abort");
        let mut switched = std::fs::write(&switch, "1");
        if is_missing(&switched) && mountpoint::is_mounted(&self.mountpoint, &self.device) {
            // The directory of switches need not be there; a forced unmount aborts, too.
            return mountpoint::abort(&self.mountpoint);
        }
        if is_missing(&switched) && mountpoint::show_connections().is_ok() {
            switched = std::fs::write(&switch, "1");
        }
        switched.map_err(|error| MountError::io("aborting the FUSE connection", error))
    }

    /// The protocol can only lower the kernel's 128 KiB, which is less than one request.
    fn raise_readahead(&self, kib: u32) {
        if kib == 0 || !rustix::process::geteuid().is_root() {
            return;
        }
        let setting = format!("/sys/class/bdi/{}/read_ahead_kb", self.device);
        if let Err(error) = std::fs::write(setting, kib.to_string()) {
            tracing::debug!(%error, "read-ahead stays at the kernel's default");
        }
    }
}

fn is_missing(outcome: &io::Result<()>) -> bool {
    outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Takes a fresh mount away again when a later step of mounting fails.
struct DetachOnError(Option<PathBuf>);

impl DetachOnError {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for DetachOnError {
    fn drop(&mut self) {
        if let Some(path) = self.0.take()
            && let Err(error) = mountpoint::detach(&path, true)
        {
            tracing::warn!(%error, "detaching a mount that failed");
        }
    }
}
