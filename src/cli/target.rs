//! A file as the user named it, found on the mount it lies on. The kernel has then checked that
//! the user may reach it, and its inode number says to the daemon which file is meant.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, anyhow};

use crate::control::client::Client;
use crate::failure::Explain;
use crate::mounts;
use crate::volume_dir::{self, VolumeDir};

/// A file on a mounted volume.
pub(super) struct FileTarget {
    /// The daemon of its volume.
    pub(super) client: Client,
    /// Its inode number.
    pub(super) ino: u64,
    /// What the user called it.
    pub(super) name: String,
}

/// A file on a mounted volume, whose daemon was not asked yet.
pub(super) struct Located {
    /// Its volume.
    pub(super) volume: VolumeDir,
    /// Its inode number.
    pub(super) ino: u64,
    /// What the user called it.
    pub(super) name: String,
}

/// Finds `path`, as [`locate`] does, and the daemon of its volume.
pub(super) fn find(path: &Path) -> anyhow::Result<FileTarget> {
    let Located { volume, ino, name } = locate(path)?;
    Ok(FileTarget { client: Client::connect(&volume)?, ino, name })
}

/// Finds `path`, which must lie on a mounted volume. Symbolic links are meant themselves.
pub(super) fn locate(path: &Path) -> anyhow::Result<Located> {
    let name = mounts::shown(path);
    let absolute = std::path::absolute(path).with_context(|| name.clone())?;
    let meta = absolute.symlink_metadata().with_context(|| name.clone())?;
    // The link itself lies where its directory does.
    let place = match (meta.is_symlink(), absolute.parent(), absolute.file_name()) {
        (true, Some(parent), Some(file)) => {
            parent.canonicalize().with_context(|| name.clone())?.join(file)
        }
        _ => absolute.canonicalize().with_context(|| name.clone())?,
    };
    let mounts = mounts::all()?;
    let on_firn = mounts::covering(&mounts, &place).filter(|entry| entry.is_firn());
    if on_firn.is_none() {
        return Err(anyhow!("{name} is on no mounted Firn volume"))
            .hint("name a file below a mountpoint; `firn status` lists what is mounted");
    }
    let target = if meta.is_symlink() {
        volume_dir::resolve(place.parent().unwrap_or(&place))
    } else {
        volume_dir::resolve(&place)
    }?;
    Ok(Located { volume: target.volume, ino: meta.ino(), name })
}
