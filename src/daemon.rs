//! The daemon: one process per mounted volume. It takes the volume's lock, opens its parts,
//! attaches them to the kernel, answers the control socket, and at the end brings everything to
//! safety.
//!
//! *Order of a mount*: lock, checks, parts, control socket, kernel; whoever waits is told only
//! when the mount answers, and a failure on the way undoes what came before. *Order of an end*:
//! the mount goes first, so that nothing new comes; then what is in memory, then copies to cold,
//! then the namespace's backup, then the databases close, then the lock goes. *Crash*: any step
//! may be the last one; the next mount needs no hand.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use firn_mount::fuse::{
    self, CacheMode, KernelCache, MountError, MountOptions, MountedSession, Unmounter,
};
use firn_mount::thaw::ThawMode;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::cold::{self, Terms};
use crate::control::server::ControlSocket;
use crate::failure::{self, Failure};
use crate::mounts;
use crate::volume_dir::lock::{Owner, VolumeLock};
use crate::volume_dir::{VolumeDir, create, private};

pub mod assemble;
mod automatic;
mod closing;
mod damage;
mod deaths;
pub mod detach;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod gate;
mod handler;
mod inspect;
pub mod jobs;
mod limits;
pub mod logging;
mod metrics;
mod moves;
mod notify;
mod panics;
pub mod phase;
mod place;
mod placement;
mod schedule;
mod scrub;
mod state;
pub mod storage;
mod thawing;
mod timed;
pub mod transfers;
pub mod tree;

use assemble::Parts;
use handler::Answers;
use metrics::{Bound, Metrics};
use phase::Phase;

/// How long a mount waits for the daemon of an unmount that is still finishing.
const FINISHING_PATIENCE: Duration = Duration::from_secs(30);

/// How long files may stay open after a signal before the connection is cut.
const DETACHED_PATIENCE: Duration = Duration::from_secs(10);

/// How long the last word of an unmount waits for those who follow it.
const WATCHER_PATIENCE: Duration = Duration::from_secs(5);

/// Threads for calls of the kernel that have to wait, beside one per core for everything else.
const WAITING_THREADS: usize = 64;

/// What to mount where.
#[derive(Debug)]
pub struct Job {
    /// The volume.
    pub volume: VolumeDir,
    /// Absolute path of the mountpoint.
    pub mountpoint: PathBuf,
    /// How.
    pub options: MountOptions,
    /// The cold tier becomes this mount's, whichever instance had it.
    pub takes_over: bool,
}

/// Mounts and serves until the mount is gone. `ready` is called when the mount answers; its
/// failure ends the mount.
pub fn run(job: &Job, ready: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    panics::watch();
    let what = || format!("mounting {}", mounts::shown(job.volume.root()));
    let (mut served, session) = begin(job).with_context(what)?;
    if let Err(unheard) = ready() {
        tracing::warn!("{}: unmounting again", Failure::new(&unheard).message);
        drop(session);
        served.end();
        served.leave();
        return Err(unheard);
    }
    notify::ready();
    tracing::info!(mountpoint = %job.mountpoint.display(), "mounted");
    served.serve(session);
    notify::stopping();
    served.end();
    let failure = served.phase.state().failure;
    served.leave();
    match failure {
        None => Ok(()),
        Some(failure) => Err(anyhow::Error::msg(failure))
            .with_context(|| format!("closing volume {}", mounts::shown(job.volume.root()))),
    }
}

/// A mounted volume without its kernel session.
struct Served {
    runtime: Runtime,
    parts: Arc<Parts>,
    phase: Phase,
    socket: Option<crate::control::server::SocketFile>,
    metrics: Option<Metrics>,
    lock: VolumeLock,
}

/// Everything up to a mount that answers.
fn begin(job: &Job) -> anyhow::Result<(Served, MountedSession)> {
    limits::apply();
    let config = job.volume.config()?;
    let owner = Owner::this("mount", Some(&job.mountpoint));
    let lock = VolumeLock::acquire(&job.volume, owner, FINISHING_PATIENCE)?;
    place::check(&job.mountpoint, &job.volume, &config)?;
    create::check_hot(&config, &job.volume, job.options.read_only)?;
    if !job.options.read_only {
        private::close(&job.volume, &config);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(WAITING_THREADS)
        .thread_name("firn-wait")
        .enable_all()
        .build()
        .context("starting threads")?;
    let writes = !job.options.read_only;
    let terms = Terms::for_mount(&job.volume, &config, writes, job.takes_over)?;
    let cold = cold::open(&config, &terms, &runtime)?.map(Arc::new);
    let parts = Arc::new(assemble::open(
        &job.volume,
        config,
        cold,
        job.options.read_only,
        thaw_mode(&job.options),
        runtime.handle(),
    )?);
    let phase = Phase::default();
    let socket = ControlSocket::bind(&job.volume.control_socket())?;
    let mounted = fuse::mount(
        Arc::clone(&parts.volume),
        &job.mountpoint,
        &job.options,
        runtime.handle().clone(),
    );
    let session = match mounted {
        Ok(session) => session,
        Err(error) => {
            parts.close_quietly();
            return Err(explain(error));
        }
    };
    let bound = bind_metrics(&parts);
    let answers = Arc::new(Answers::new(job, &parts, &session, phase.clone(), &bound));
    let metrics = serve_metrics(bound, &answers, &runtime);
    let socket = socket.serve(answers).context("control socket")?;
    parts.keep_contact(&terms);
    parts.start_schedule();
    parts.start_snapshots(session.kernel_cache());
    parts.start_placement();
    parts.start_scrub();
    Ok((Served { runtime, parts, phase, socket: Some(socket), metrics, lock }, session))
}

/// When files are thawed, if they are at all.
fn thaw_mode(options: &MountOptions) -> ThawMode {
    match options.cache {
        CacheMode::Passthrough => options.thaw,
        CacheMode::Writeback => ThawMode::Never,
    }
}

/// The address of the metrics, where one is configured. Without it the volume is as good.
fn bind_metrics(parts: &Parts) -> Result<Option<Bound>, String> {
    let bound = parts.config.metrics.as_ref().map(Bound::bind).transpose();
    bound.map_err(|error| {
        let failure = format!("metrics are not served: {}", failure::line(&error));
        tracing::warn!("{failure}");
        failure
    })
}

fn serve_metrics(
    bound: Result<Option<Bound>, String>,
    answers: &Arc<Answers>,
    runtime: &Runtime,
) -> Option<Metrics> {
    let answers = Arc::clone(answers);
    let metrics = bound.ok()??.serve(Arc::new(move || answers.status()), runtime.handle());
    metrics.inspect_err(|error| tracing::warn!(%error, "metrics are not served")).ok()
}

/// A refused mount, with what to do about it.
fn explain(error: MountError) -> anyhow::Error {
    let hint = match &error {
        MountError::Mountpoint { .. } => "name an existing directory that you may use",
        MountError::Occupied { .. } => "name another directory, or unmount what is there",
        MountError::Device(_) => "load the kernel module: `modprobe fuse`",
        MountError::Helper(_) => {
            "install the package fuse3; allow_other needs user_allow_other in /etc/fuse.conf"
        }
        MountError::UnknownOption(_) | MountError::BadOption { .. } => {
            "`firn mount --help` lists the options"
        }
        MountError::Busy(_) => "end the programs that use it",
        MountError::Io { .. } => "see firn.log in the volume directory",
    };
    failure::hinted(error, hint)
}

impl Served {
    /// Returns when the mount is gone and its last request has ended.
    fn serve(&mut self, session: MountedSession) {
        let (unmounter, kernel) = (session.unmounter(), session.kernel_cache());
        let (say_ended, ended) = oneshot::channel();
        let joined = std::thread::Builder::new().name("firn-session".into()).spawn(move || {
            let _ = say_ended.send(session.join());
        });
        if let Err(error) = joined {
            tracing::error!(%error, "starting a thread");
            return;
        }
        let leaving = Leaving { unmounter, kernel, parts: Arc::clone(&self.parts) };
        match self.runtime.block_on(until_ended(ended, leaving)) {
            Ok(()) => tracing::info!("the mount is gone"),
            Err(error) => tracing::warn!("serving the mount ended: {}", failure::line(&error)),
        }
    }

    /// Brings everything to safety, tells who watches, and gives the volume free.
    fn end(&mut self) {
        drop(self.metrics.take());
        if let Err(error) = self.lock.finishing() {
            tracing::warn!(%error, "writing the lock file");
        }
        closing::close(&self.parts, &self.phase);
        self.phase.wait_unwatched(WATCHER_PATIENCE);
        drop(self.socket.take());
    }

    /// Leaves without waiting for what may hang, such as a cold tier that does not answer: all
    /// that matters is closed, and the process ends.
    fn leave(self) {
        let Self { runtime, parts, lock, .. } = self;
        std::mem::forget(parts);
        runtime.shutdown_background();
        drop(lock);
    }
}

/// Waits for the session's end, and brings it about at SIGTERM or SIGINT.
async fn until_ended(
    mut ended: oneshot::Receiver<std::io::Result<()>>,
    leaving: Leaving,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("signals")?;
    let mut hangup = signal(SignalKind::hangup()).context("signals")?;
    loop {
        tokio::select! {
            result = &mut ended => return Ok(result??),
            () = panics::of_serving_thread() => return give_up(ended, &leaving).await,
            () = first(&mut terminate, &mut interrupt) => break,
            _ = hangup.recv() => tracing::debug!("a terminal was closed"),
        }
    }
    tracing::info!("asked to end: unmounting");
    leaving.on_thread(Leaving::take_away);
    tokio::select! {
        result = &mut ended => return Ok(result??),
        () = tokio::time::sleep(DETACHED_PATIENCE) => {
            tracing::warn!("files are still open: their programs will see errors");
        }
        () = first(&mut terminate, &mut interrupt) => {}
    }
    give_up(ended, &leaving).await
}

/// Ends a mount that programs still use: they see errors from now on.
async fn give_up(
    mut ended: oneshot::Receiver<std::io::Result<()>>,
    leaving: &Leaving,
) -> anyhow::Result<()> {
    leaving.on_thread(Leaving::cut_off);
    if let Ok(result) = tokio::time::timeout(DETACHED_PATIENCE, &mut ended).await {
        return Ok(result??);
    }
    // Writing back may wait for an answer that cannot come, and a thread that waits in the kernel
    // keeps the connection alive even beyond the end of this process: whoever waits on the other
    // side would wait for ever.
    leaving.on_thread(Leaving::abort);
    match tokio::time::timeout(DETACHED_PATIENCE, ended).await {
        Ok(result) => Ok(result??),
        Err(_) => Ok(()),
    }
}

async fn first(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

/// Taking the mount away from inside. Each step needs answers to requests, which other threads
/// give; a step that hangs holds nobody up.
#[derive(Clone)]
struct Leaving {
    unmounter: Unmounter,
    kernel: KernelCache,
    parts: Arc<Parts>,
}

impl Leaving {
    fn on_thread(&self, step: fn(&Self) -> anyhow::Result<()>) {
        let leaving = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = step(&leaving) {
                tracing::warn!("unmounting: {}", failure::line(&error));
            }
        });
    }

    /// What programs have written and the kernel still holds.
    fn write_back(&self) {
        if let Err(error) = self.kernel.drain_all() {
            tracing::error!(%error, "writing back what the kernel holds");
        }
        self.parts.write_back();
    }

    /// Unmounts; a mount in use is taken out of the tree after its dirty pages were written.
    fn take_away(&self) -> anyhow::Result<()> {
        match self.unmounter.unmount() {
            Err(MountError::Busy(_)) => {
                tracing::warn!("files are open: the mount is detached and ends with them");
                self.write_back();
                Ok(self.unmounter.unmount_lazily()?)
            }
            other => Ok(other?),
        }
    }

    /// Ends the connection although files are open.
    fn cut_off(&self) -> anyhow::Result<()> {
        self.write_back();
        self.abort()
    }

    /// Ends the connection at once; what the kernel still holds is lost.
    fn abort(&self) -> anyhow::Result<()> {
        Ok(self.unmounter.abort()?)
    }
}
