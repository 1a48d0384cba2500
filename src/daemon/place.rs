//! Whether a mountpoint can be used, looked at before anything is opened. The kernel's own word
//! comes later and is final; this is for errors that say what to do.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use firn_tiering::{Clock, SystemClock};

use crate::config::{ColdUrl, ColdUrls, Config};
use crate::failure::Explain;
use crate::mounts::{self, MountEntry};
use crate::volume_dir::VolumeDir;

/// How long the paths of stores are waited for.
const RESOLVES_WITHIN: Duration = Duration::from_secs(5);

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

/// These paths without links. One whose filesystem does not answer in time is taken as it is written:
/// a store that hangs must not keep a mount from beginning.
fn resolved(paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let until = SystemClock.instant() + RESOLVES_WITHIN;
    let asked: Vec<_> = paths.into_iter().map(|path| (resolve_aside(path.clone()), path)).collect();
    let answers = asked.into_iter().map(|(answer, path)| {
        let left = until.saturating_duration_since(SystemClock.instant());
        answer.recv_timeout(left).unwrap_or(path)
    });
    answers.collect()
}

/// Resolves the links in a path on a thread of its own.
fn resolve_aside(path: PathBuf) -> mpsc::Receiver<PathBuf> {
    let (told, answer) = mpsc::sync_channel(1);
    let resolve = move || {
        if let Ok(resolved) = mounts::absolute(&path) {
            // Nobody may listen any more.
            let _ = told.send(resolved);
        }
    };
    let thread = std::thread::Builder::new().name("firn-place".to_owned()).spawn(resolve);
    if let Err(error) = thread {
        tracing::warn!("links in the path of a store are not followed: {error}");
    }
    answer
}

/// Where the volume itself lies: mounting over or inside it would have the daemon wait for itself.
fn own_places(volume: &VolumeDir, config: &Config) -> Vec<(&'static str, PathBuf)> {
    let mut places = vec![
        ("directory", volume.root().to_owned()),
        ("hot directory", mounts::absolute(&config.hot_dir(volume.root())).unwrap_or_default()),
    ];
    let urls = config.cold.iter().flat_map(ColdUrls::iter).map(ColdUrl::url);
    let files = urls.filter(|url| url.scheme() == "file");
    let cold = resolved(files.filter_map(|url| url.to_file_path().ok()).collect());
    places.extend(cold.into_iter().map(|path| ("cold directory", path)));
    places.retain(|(_, path)| !path.as_os_str().is_empty());
    places
}
