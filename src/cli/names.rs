//! Datasets and snapshots as the user named them: `/mnt/firn/projA`, `/mnt/firn/projA@monday`, and
//! `<volume-dir>:/projA@monday` where the volume need not be mounted.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use rustix::fs::{Access, AtFlags, CWD};

use super::target;
use super::unmounted::Unmounted;
use crate::config;
use crate::control::client::Client;
use crate::control::tree::{DatasetName, NewName, SnapshotName, Which};
use crate::failure::{self, Explain};
use crate::mounts;
use crate::report;
use crate::volume_dir::{self, VolumeDir};

/// A snapshot, or several, as typed: the dataset, and what is behind the `@`.
#[derive(Clone, Debug)]
pub(super) struct SnapshotPath {
    /// The dataset.
    pub(super) dataset: PathBuf,
    /// The name of the snapshot.
    pub(super) snapshot: String,
    /// As typed.
    pub(super) shown: String,
}

impl SnapshotPath {
    /// Takes `dataset@name` apart. What the name may be is the daemon's to say.
    pub(super) fn parse(text: &Path) -> anyhow::Result<Self> {
        let shown = mounts::shown(text);
        let bytes = text.as_os_str().as_bytes();
        let at = bytes.iter().rposition(|byte| *byte == b'@');
        let parts = at.map(|at| (&bytes[..at], &bytes[at + 1..]));
        match parts {
            Some((dataset, name)) if !name.contains(&b'/') && !dataset.is_empty() => Ok(Self {
                dataset: PathBuf::from(OsStr::from_bytes(dataset)),
                snapshot: String::from_utf8_lossy(name).into_owned(),
                shown,
            }),
            _ => Err(anyhow!("{shown} names no snapshot"))
                .hint("a snapshot is written <dataset>@<name>, as in /mnt/firn/projA@monday")
                .wrong_usage(),
        }
    }

    /// The snapshot, and who has its volume open.
    pub(super) fn find(&self) -> anyhow::Result<(Client, SnapshotName)> {
        let (client, dataset) = find_dataset(&self.dataset)?;
        Ok((client, SnapshotName { dataset, snapshot: self.snapshot.clone() }))
    }

    /// Which snapshots are meant: names and ranges `a%b`, separated by commas.
    pub(super) fn which(&self) -> anyhow::Result<Vec<Which>> {
        self.snapshot.split(',').map(|part| self.one_of(part)).collect()
    }

    fn one_of(&self, part: &str) -> anyhow::Result<Which> {
        let end = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        match part.split_once('%') {
            None if !part.is_empty() => Ok(Which::One(part.to_owned())),
            Some((first, last)) if !last.contains('%') => Ok(Which::Range(end(first), end(last))),
            _ => Err(anyhow!("{} names no snapshots", self.shown))
                .hint("write <dataset>@<name>, <dataset>@<first>%<last>, or several of these separated by commas")
                .wrong_usage(),
        }
    }
}

/// Where a dataset is.
#[derive(Debug)]
pub(super) enum Place {
    /// On a mount, at this path.
    Mounted(PathBuf),
    /// In a volume that is not mounted, at this path from its root.
    Unmounted(VolumeDir, Vec<u8>),
}

/// The volume that `path` is on.
pub(super) fn volume(path: &Path) -> anyhow::Result<VolumeDir> {
    match place(path)? {
        Place::Mounted(path) => Ok(volume_dir::resolve(&path)?.volume),
        Place::Unmounted(volume, _) => Ok(volume),
    }
}

/// Finds out where `path` is.
pub(super) fn place(path: &Path) -> anyhow::Result<Place> {
    if let Some((volume, below)) = split_volume(path) {
        return inside(VolumeDir::open(volume)?, below);
    }
    let target = volume_dir::resolve(path)?;
    match &target.mount {
        Some(mount) if target.path.starts_with(&mount.mountpoint) => {
            Ok(Place::Mounted(target.path))
        }
        _ => inside(target.volume, Path::new("/")),
    }
}

/// A path from the root of a volume, on its mount if it has one.
fn inside(volume: VolumeDir, below: &Path) -> anyhow::Result<Place> {
    let mounts = mounts::all()?;
    let relative = below.strip_prefix("/").unwrap_or(below);
    Ok(match volume_dir::mount_of(&mounts, &volume) {
        Some(mount) => Place::Mounted(mount.mountpoint.join(relative)),
        None => Place::Unmounted(volume, below.as_os_str().as_bytes().to_vec()),
    })
}

/// Splits `<volume-dir>:/path`. A colon is only what separates when a volume is before it.
fn split_volume(path: &Path) -> Option<(&Path, &Path)> {
    let bytes = path.as_os_str().as_bytes();
    let colons = bytes.windows(2).enumerate().filter(|(_, pair)| *pair == b":/");
    let mut splits = colons.map(|(at, _)| {
        let (volume, below) = (&bytes[..at], &bytes[at + 1..]);
        (Path::new(OsStr::from_bytes(volume)), Path::new(OsStr::from_bytes(below)))
    });
    splits.find(|(volume, _)| volume.join(config::FILE_NAME).symlink_metadata().is_ok())
}

/// The dataset at `path`, and who has its volume open.
pub(super) fn find_dataset(path: &Path) -> anyhow::Result<(Client, DatasetName)> {
    let name = mounts::shown(path);
    match place(path)? {
        Place::Mounted(on_mount) => {
            let found = target::find(&on_mount).hint("`firn dataset list` lists all datasets")?;
            Ok((found.client, DatasetName { ino: found.ino, name }))
        }
        Place::Unmounted(volume, below) => {
            let open = Unmounted::open(&volume)?;
            let ino = open.dataset(&below)?.0;
            Ok((Client::here(&volume, open), DatasetName { ino, name }))
        }
    }
}

/// Passes the daemon of every mounted volume to `ask`. One that does not answer must not hide the
/// others.
pub(super) fn for_each_mounted(
    mut ask: impl FnMut(Client) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for mount in mounts::all()?.iter().filter(|entry| entry.is_firn()) {
        let asked = VolumeDir::open(&mount.source)
            .and_then(|volume| Client::connect_briefly(&volume))
            .and_then(&mut ask);
        if let Err(error) = asked {
            let place = mounts::shown(&mount.mountpoint);
            report::note(&format!("firn: warning: mounted at {place}: {}", failure::line(&error)));
        }
    }
    Ok(())
}

/// Whether a path of a volume is there, mounted or not.
pub(super) fn exists(path: &Path) -> anyhow::Result<bool> {
    match split_volume(path) {
        None => Ok(path.symlink_metadata().is_ok()),
        Some((volume, below)) => match inside(VolumeDir::open(volume)?, below)? {
            Place::Mounted(on_mount) => Ok(on_mount.symlink_metadata().is_ok()),
            Place::Unmounted(volume, below) => Unmounted::open(&volume)?.exists(&below),
        },
    }
}

/// A path that is to be made: its directory is there, and the user may write to it.
pub(super) fn find_new(path: &Path) -> anyhow::Result<(Client, NewName)> {
    let name = mounts::shown(path);
    let file = path
        .file_name()
        .and_then(OsStr::to_str)
        .ok_or_else(|| anyhow!("{name} is no name for a dataset"))
        .hint("write the path of a directory that does not exist yet")
        .wrong_usage()?;
    let parent = match split_volume(path) {
        Some((volume, below)) => inside(VolumeDir::open(volume)?, parent(below))?,
        None => {
            let absolute = std::path::absolute(path).with_context(|| name.clone())?;
            place(parent(&absolute))?
        }
    };
    let file = file.to_owned();
    let on_mount = match parent {
        Place::Mounted(on_mount) => on_mount,
        Place::Unmounted(volume, below) => {
            let open = Unmounted::open(&volume)?;
            let dir = open.directory(&below)?.0;
            return Ok((Client::here(&volume, open), NewName { dir, file, name }));
        }
    };
    rustix::fs::accessat(CWD, &on_mount, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
        .with_context(|| mounts::shown(&on_mount))
        .hint("name a path in a directory that exists and that you may write to")?;
    let dir = target::find(&on_mount)?;
    Ok((dir.client, NewName { dir: dir.ino, file, name }))
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn parsed(text: &str) -> Option<(String, String)> {
        let path = SnapshotPath::parse(Path::new(text)).ok()?;
        Some((mounts::shown(&path.dataset), path.snapshot))
    }

    #[test]
    fn the_last_at_sign_begins_the_name() {
        let both = |dataset: &str, name: &str| Some((dataset.to_owned(), name.to_owned()));
        assert_eq!(parsed("/m/a@x"), both("/m/a", "x"));
        assert_eq!(parsed("/m/user@host@x"), both("/m/user@host", "x"));
        assert_eq!(parsed("/m/user@host/a"), None);
        assert_eq!(parsed("/m/a"), None);
        assert_eq!(parsed("@x"), None);
    }

    #[test]
    fn ranges_may_be_open() {
        let which = |text: &str| SnapshotPath::parse(Path::new(text)).unwrap().which();
        let name = |text: &str| Some(text.to_owned());
        assert_eq!(which("/m@a").unwrap(), [Which::One("a".to_owned())]);
        assert_eq!(which("/m@a%b").unwrap(), [Which::Range(name("a"), name("b"))]);
        let several = which("/m@%b,c,d%").unwrap();
        let expected =
            [Which::Range(None, name("b")), Which::One("c".into()), Which::Range(name("d"), None)];
        assert_eq!(several, expected);
        assert_eq!(which("/m@%").unwrap(), [Which::Range(None, None)]);
        assert!(which("/m@a%b%c").is_err());
        assert!(which("/m@a,").is_err());
        assert!(which("/m@").is_err());
    }

    #[test]
    fn a_colon_separates_behind_a_volume_only() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v:1");
        std::fs::create_dir(&volume).unwrap();
        std::fs::write(volume.join(config::FILE_NAME), "").unwrap();
        let text = format!("{}:/a:/b", volume.display());
        let (found, below) = split_volume(Path::new(&text)).unwrap();
        assert_eq!((found, below), (volume.as_path(), Path::new("/a:/b")));
        assert!(split_volume(Path::new("/m/a:/b")).is_none());
    }
}
