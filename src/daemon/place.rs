//! Whether a mountpoint can be used, looked at before anything is opened. The kernel's own word
//! comes later and is final; this is for errors that say what to do.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

use crate::config::{ColdUrls, Config};
use crate::failure::Explain;
use crate::mounts::{self, MountEntry};
use crate::volume_dir::VolumeDir;

/// Checks `mountpoint`, an absolute path, for mounting `volume`.
pub(super) fn check(mountpoint: &Path, volume: &VolumeDir, config: &Config) -> anyhow::Result<()> {
    let name = || format!("mountpoint {}", mounts::shown(mountpoint));
    let mounts = mounts::all()?;
    if mounts::is_dead(mountpoint) {
        check_dead(mountpoint, volume, &mounts).with_context(name)?;
    } else {
        check_living(mountpoint, &mounts).with_context(name)?;
    }
    for (what, path) in own_places(volume, config) {
        if path.starts_with(mountpoint) {
            return Err(anyhow!("would hide the volume's own {what}, {}", mounts::shown(&path)))
                .with_context(name)
                .hint("name a directory outside the volume");
        }
        if mountpoint.starts_with(&path) {
            return Err(anyhow!("lies inside the volume's own {what}, {}", mounts::shown(&path)))
                .with_context(name)
                .hint("name a directory outside the volume");
        }
    }
    Ok(())
}

fn check_living(mountpoint: &Path, mounts: &[MountEntry]) -> anyhow::Result<()> {
    match mountpoint.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(anyhow!("does not exist"))
            .hint(format!("make it with `mkdir -p {}`", mounts::shown(mountpoint))),
        Err(error) => Err(error.into()),
        Ok(meta) if !meta.is_dir() => {
            Err(anyhow!("is no directory")).hint("name an existing directory")
        }
        Ok(_) => check_vacant(mountpoint, mounts),
    }
}

/// A mount whose daemon died is replaced, if it was this volume's.
fn check_dead(mountpoint: &Path, volume: &VolumeDir, mounts: &[MountEntry]) -> anyhow::Result<()> {
    match mounts::at(mounts, mountpoint) {
        Some(entry) if entry.is_firn() && entry.source == volume.root() => Ok(()),
        Some(entry) => Err(anyhow!(
            "is the dead mount of {} ({})",
            mounts::shown(&entry.source),
            entry.fs_type
        ))
        .hint(format!("take it away with `umount -l {}`", mounts::shown(mountpoint))),
        None => Err(anyhow!("lies below a mount whose server is gone"))
            .hint("take the dead mount away with `umount -l`"),
    }
}

fn check_vacant(mountpoint: &Path, mounts: &[MountEntry]) -> anyhow::Result<()> {
    match mounts::at(mounts, mountpoint) {
        Some(entry) if entry.is_firn() => {
            Err(anyhow!("volume {} is mounted there", mounts::shown(&entry.source)))
                .hint("name another directory, or end that mount with `firn umount`")
        }
        Some(entry) if mountpoint != Path::new("/") => {
            Err(anyhow!("{} ({}) is mounted there", mounts::shown(&entry.source), entry.fs_type))
                .hint("name another directory")
        }
        Some(_) => Err(anyhow!("is the root of this machine")).hint("name another directory"),
        None => Ok(()),
    }
}

/// Where the volume itself lies: mounting over or inside it would have the daemon wait for itself.
fn own_places(volume: &VolumeDir, config: &Config) -> Vec<(&'static str, PathBuf)> {
    let mut places = vec![
        ("directory", volume.root().to_owned()),
        ("hot directory", mounts::absolute(&config.hot_dir(volume.root())).unwrap_or_default()),
    ];
    for url in config.cold.iter().flat_map(ColdUrls::iter) {
        if url.url().scheme() == "file"
            && let Ok(path) = url.url().to_file_path()
        {
            places.push(("cold directory", mounts::absolute(&path).unwrap_or(path)));
        }
    }
    places.retain(|(_, path)| !path.as_os_str().is_empty());
    places
}
