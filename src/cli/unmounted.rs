//! A volume that nobody has mounted, opened by the command itself. What a daemon would answer is
//! answered by a thread of this process; nothing else is different but that no kernel remembers
//! anything of the volume.
//!
//! *Order*: lock, parts, answer, close, and only then is the answer complete, so that whatever a
//! verb did is durable when the command ends. *Crash*: as of a daemon; the next one to open the
//! volume needs no hand. Copies to the cold tier and backups are made by the next mount.

use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Context, anyhow};
use firn_mount::core::Core;
use firn_mount::thaw::ThawMode;
use firn_mount::types::{FileKind, Ino};
use firn_mount::{FsError, FsResult};
use parking_lot::Mutex;
use tokio::runtime::Runtime;

use crate::cold::{self, Terms};
use crate::control::protocol::Verb;
use crate::control::server::{Handler, Outbox};
use crate::daemon::assemble::{self, Parts};
use crate::daemon::tree::TreeAnswers;
use crate::daemon::tree::naming::Naming;
use crate::failure::{self, Explain};
use crate::mounts;
use crate::report::names;
use crate::volume_dir::lock::{Owner, VolumeLock};
use crate::volume_dir::{VolumeDir, create};

/// The volume that is open now. A command may name several things of one volume, which can be
/// opened only once.
static OPEN: Mutex<Weak<Unmounted>> = Mutex::new(Weak::new());

/// A volume that is not mounted.
pub(super) struct Unmounted {
    parts: Parts,
    prefix: String,
    closed: Mutex<bool>,
    runtime: Option<Runtime>,
    /// The last thing to go.
    _lock: VolumeLock,
}

impl Unmounted {
    /// Opens `volume`, unless this process has it open already.
    pub(super) fn open(volume: &VolumeDir) -> anyhow::Result<Arc<Self>> {
        let mut open = OPEN.lock();
        let there = open.upgrade().filter(|there| there.parts.dir == *volume);
        if let Some(there) = there.filter(|there| !*there.closed.lock()) {
            return Ok(there);
        }
        let name = || format!("volume {}", mounts::shown(volume.root()));
        let opened = Arc::new(Self::open_anew(volume).with_context(name)?);
        *open = Arc::downgrade(&opened);
        Ok(opened)
    }

    fn open_anew(volume: &VolumeDir) -> anyhow::Result<Self> {
        let config = volume.config()?;
        // What the user typed behind `firn`, for whoever is refused meanwhile.
        let verb = std::env::args().nth(1).unwrap_or_default();
        let owner = Owner::this(&verb, None);
        let lock = VolumeLock::acquire(volume, owner, Duration::ZERO)?;
        create::check_hot(&config, volume, false)?;
        let runtime = Runtime::new().context("starting threads")?;
        let terms = Terms::of(volume, &config, true)?;
        let cold = cold::open(&config, &terms, &runtime)?.map(Arc::new);
        let parts = assemble::open(volume, config, cold, false, ThawMode::Never, runtime.handle())?;
        let prefix = format!("{}:", mounts::shown(volume.root()));
        Ok(Self { parts, prefix, closed: Mutex::new(false), runtime: Some(runtime), _lock: lock })
    }

    /// The root directory of the dataset at `path`.
    pub(super) fn dataset(&self, path: &[u8]) -> anyhow::Result<Ino> {
        Naming::new(&self.parts.namespace, &self.prefix).root_at(path)
    }

    /// The directory at `path`.
    pub(super) fn directory(&self, path: &[u8]) -> anyhow::Result<Ino> {
        let shown = || format!("{}{}", self.prefix, names::text(path));
        let found = self.walk(path).map_err(anyhow::Error::new).and_then(|found| match found {
            (ino, FileKind::Directory) => Ok(ino),
            _ => Err(anyhow!("is no directory")),
        });
        found.with_context(shown).hint("name a path in a directory that exists")
    }

    /// Whether there is something at `path`.
    pub(super) fn exists(&self, path: &[u8]) -> anyhow::Result<bool> {
        match self.walk(path) {
            Ok(_) => Ok(true),
            Err(FsError::NotFound | FsError::NotDirectory) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn walk(&self, path: &[u8]) -> FsResult<(Ino, FileKind)> {
        let volume = &self.parts.volume;
        let mut found = (Ino::ROOT, FileKind::Directory);
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let attr = volume.lookup(found.0, name)?;
            volume.forget(attr.ino, 1);
            found = (attr.ino, attr.kind);
        }
        Ok(found)
    }

    fn close(&self) -> anyhow::Result<()> {
        let mut closed = self.closed.lock();
        if std::mem::replace(&mut *closed, true) {
            return Ok(());
        }
        self.parts.close().with_context(|| format!("closing {}", self.prefix))
    }
}

impl Handler for Unmounted {
    fn handle(&self, verb: Verb, out: &mut Outbox) -> anyhow::Result<()> {
        let tree = TreeAnswers::unmounted(&self.parts, &self.prefix);
        let answered = match verb {
            Verb::Dataset(act) => tree.dataset(act, out),
            Verb::Snapshot(act) => tree.snapshot(act, out),
            _ => Err(anyhow!("the volume is not mounted")),
        };
        let closed = self.close();
        answered.and(closed)
    }
}

impl Drop for Unmounted {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            crate::report::note(&format!("firn: warning: {}", failure::line(&error)));
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
