//! The volume directory: where each part of a volume lies, who holds it, and which volume a path
//! means. Paths only; the parts themselves are opened by the daemon.
//!
//! Layout: `firn.toml` (configuration), `lock` (who has it open), `control.sock`, `firn.log`,
//! `policy.toml` (what it does of its own accord), `backed-up` (how far backups reach),
//! `key` (the wrapped key of an encrypted volume), `instance` and `cold-used` (which directory this is, and with which place it was used), `namespace/` and `catalog/` (databases), `hot/` unless
//! configured elsewhere. A volume directory
//! comes into being by one rename ([`create`]) and is held by one process at a time ([`lock`]).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

use crate::config::{self, Config, ConfigError};
use crate::failure::Explain;
use crate::mounts::{self, MountEntry};

pub mod create;
pub mod instance;
pub mod lock;
pub mod private;

/// A directory that holds a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeDir {
    root: PathBuf,
}

impl VolumeDir {
    /// The volume at `path`, which must hold a `firn.toml`.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let root = path
            .canonicalize()
            .with_context(|| format!("volume {}", mounts::shown(path)))
            .hint("make a volume with `firn init <volume-dir>`")?;
        if !root.join(config::FILE_NAME).is_file() {
            let error = anyhow!("{} holds no {}", mounts::shown(&root), config::FILE_NAME);
            return Err(error).hint("make a volume with `firn init <volume-dir>`");
        }
        Ok(Self { root })
    }

    /// A volume directory that is being built.
    pub(crate) fn unchecked(root: PathBuf) -> Self {
        Self { root }
    }

    /// Absolute path of the directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Reads and checks the configuration.
    pub fn config(&self) -> anyhow::Result<Config> {
        let path = self.root.join(config::FILE_NAME);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("reading {}", mounts::shown(&path)))?;
        let hint = |error: &ConfigError| match error {
            ConfigError::TooNew { .. } => "use a newer firn; this one would damage the volume",
            _ => "`firn init` writes every key with its explanation; compare with a fresh volume",
        };
        let name = || format!("volume {}", mounts::shown(&self.root));
        match Config::parse(&text) {
            Ok(config) => Ok(config),
            Err(error) => {
                let hint = hint(&error);
                Err(error).with_context(name).hint(hint)
            }
        }
    }

    /// Where the namespace's database lies.
    pub fn namespace_dir(&self) -> PathBuf {
        self.root.join("namespace")
    }

    /// Where the catalog's database lies.
    pub fn catalog_dir(&self) -> PathBuf {
        self.root.join("catalog")
    }

    /// The file whose lock says who has the volume open.
    pub fn lock_file(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Up to which block the namespace's backups are known to reach.
    pub fn backup_frontier(&self) -> PathBuf {
        self.root.join("backed-up")
    }

    /// The daemon's control socket.
    pub fn control_socket(&self) -> PathBuf {
        self.root.join("control.sock")
    }

    /// The daemon's log.
    pub fn log_file(&self) -> PathBuf {
        self.root.join("firn.log")
    }
}

/// What a user meant by a path: a volume, and the mount through which it was named, if any.
#[derive(Clone, Debug)]
pub struct Target {
    /// The volume.
    pub volume: VolumeDir,
    /// Where it is mounted, when it is.
    pub mount: Option<MountEntry>,
    /// The path that was given, absolute.
    pub path: PathBuf,
}

/// Finds the volume that `path` means: a volume directory, a mountpoint or any path below one.
pub fn resolve(path: &Path) -> anyhow::Result<Target> {
    let path = mounts::absolute(path).with_context(|| mounts::shown(path))?;
    let mounts = mounts::all()?;
    if let Some(entry) = mounts::covering(&mounts, &path).filter(|entry| entry.is_firn()) {
        let volume = VolumeDir::open(&entry.source)
            .with_context(|| format!("mounted at {}", mounts::shown(&entry.mountpoint)))?;
        return Ok(Target { volume, mount: Some(entry.clone()), path });
    }
    match path.join(config::FILE_NAME).symlink_metadata() {
        Ok(_) => {
            let volume = VolumeDir::open(&path)?;
            let mount = mount_of(&mounts, &volume).cloned();
            Ok(Target { volume, mount, path })
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(error).with_context(|| format!("volume {}", mounts::shown(&path)))
        }
        Err(_) => {
            let missing = path.symlink_metadata().is_err();
            let what = if missing { "does not exist" } else { "is no Firn volume and on none" };
            Err(anyhow!("{} {what}", mounts::shown(&path)))
                .hint("name a volume directory, a mountpoint or a path below one; `firn status` lists what is mounted")
        }
    }
}

/// Where `volume` is mounted.
pub fn mount_of<'a>(mounts: &'a [MountEntry], volume: &VolumeDir) -> Option<&'a MountEntry> {
    mounts.iter().rev().find(|entry| entry.is_firn() && entry.source == volume.root)
}
