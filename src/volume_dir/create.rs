//! Makes a volume directory, whole or not at all. Everything is built in a directory beside the
//! final one and appears by a single rename; a hot directory elsewhere is prepared first and
//! undone on failure. A crash leaves at most a directory named `.<name>.firn-new-<pid>`, which
//! nothing ever reads, and a hot directory marked with a uuid that no volume has.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};

use super::VolumeDir;
use super::private::Umask;
use crate::config::{self, Config};
use crate::failure::Explain;
use crate::mounts;
use crate::units::Size;

/// File in the hot directory that says whose it is, so that an empty directory under a disk that
/// is not mounted is never taken for a hot tier.
pub const HOT_MARKER: &str = "volume-id";

/// Checks that a volume can be made at `path`, without touching anything, and returns the
/// absolute path.
pub fn check_place(path: &Path) -> anyhow::Result<PathBuf> {
    let path = std::path::absolute(path).with_context(|| mounts::shown(path))?;
    let name = mounts::shown(&path);
    let parent = path.parent().ok_or_else(|| anyhow!("{name} cannot hold a volume"))?;
    let parent = parent
        .canonicalize()
        .with_context(|| format!("parent directory {}", mounts::shown(parent)))
        .hint("make the parent directory first")?;
    let file_name = path.file_name().ok_or_else(|| anyhow!("{name} cannot hold a volume"))?;
    let path = parent.join(file_name);
    let mounts = mounts::all()?;
    if mounts::covering(&mounts, &path).is_some_and(|entry| entry.is_firn()) {
        return Err(anyhow!("{name} lies on a mounted Firn volume"))
            .hint("choose a directory on a local disk");
    }
    if mounts::at(&mounts, &path).is_some() {
        return Err(anyhow!("{name} is a mountpoint")).hint("name a new directory below it");
    }
    must_be_vacant(&path, "choose another directory; `firn init` never touches existing data")?;
    Ok(path)
}

/// Refuses whatever is not missing or an empty directory.
fn must_be_vacant(path: &Path, hint: &str) -> anyhow::Result<()> {
    let name = mounts::shown(path);
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).context(name),
        Ok(meta) if !meta.is_dir() => Err(anyhow!("{name} exists and is no directory")).hint(hint),
        Ok(_) => match fs::read_dir(path).with_context(|| name.clone())?.next() {
            None => Ok(()),
            Some(_) if path.join(config::FILE_NAME).exists() => {
                Err(anyhow!("{name} holds a volume already"))
                    .hint(format!("mount it with `firn mount {name} <mountpoint>`"))
            }
            Some(_) => Err(anyhow!("{name} is not empty")).hint(hint),
        },
    }
}

/// Bytes on the filesystem that would hold `dir`: whole size and available.
pub fn disk_space(dir: &Path) -> anyhow::Result<(Size, Size)> {
    let existing = dir.ancestors().find(|at| at.exists()).unwrap_or(Path::new("/"));
    let stat = rustix::fs::statvfs(existing)
        .with_context(|| format!("asking for the space of {}", mounts::shown(existing)))?;
    let bytes = |blocks: u64| Size(blocks.saturating_mul(stat.f_frsize));
    Ok((bytes(stat.f_blocks), bytes(stat.f_bavail)))
}

/// The hot capacity when none is given: nine tenths of what is free, in whole mebibytes.
pub fn default_hot_capacity(hot: &Path) -> anyhow::Result<Size> {
    let (_, free) = disk_space(hot)?;
    let capacity = Size((free.0 / 10 * 9) & !((1 << 20) - 1));
    if capacity < config::MIN_HOT_CAPACITY {
        return Err(anyhow!(
            "the filesystem of hot directory {} has {} free",
            mounts::shown(hot),
            crate::units::rounded_bytes(free.0)
        ))
        .hint(format!(
            "a volume needs {} at least: free space, or name another disk with --hot",
            config::MIN_HOT_CAPACITY
        ));
    }
    Ok(capacity)
}

/// Refuses a capacity that the disk cannot hold.
pub fn check_capacity(hot: &Path, capacity: Size) -> anyhow::Result<()> {
    let (total, _) = disk_space(hot)?;
    if capacity > total {
        bail!(
            "hot capacity {capacity} is more than the filesystem of {} holds ({})",
            mounts::shown(hot),
            crate::units::rounded_bytes(total.0)
        );
    }
    Ok(())
}

/// Builds a volume at `path`, which came from [`check_place`], with its hot tier in `hot` (below
/// the volume directory unless absolute). `fill` puts the databases in place and says what the
/// volume is; only the rename comes after it.
pub fn build(
    path: &Path,
    hot: &Path,
    fill: impl FnOnce(&VolumeDir) -> anyhow::Result<Config>,
) -> anyhow::Result<VolumeDir> {
    let aside = aside_of(path)?;
    fs::create_dir(&aside).with_context(|| format!("making {}", mounts::shown(&aside)))?;
    let mut undo = Undo { paths: vec![aside.clone()] };
    let hot = aside.join(hot);
    write_durably(&aside.join("lock"), b"")?;
    let private = Umask::private();
    prepare_hot(&hot, &mut undo)?;
    let config = fill(&VolumeDir::unchecked(aside.clone()))?;
    write_durably(&hot.join(HOT_MARKER), format!("{}\n", config.uuid).as_bytes())?;
    sync_dir(&hot)?;
    drop(private);
    write_durably(&aside.join(config::FILE_NAME), config.render().as_bytes())?;
    sync_dir(&aside)?;
    fs::rename(&aside, path)
        .with_context(|| format!("putting the volume in place at {}", mounts::shown(path)))?;
    undo.paths.clear();
    sync_dir(path.parent().unwrap_or(Path::new("/")))?;
    VolumeDir::open(path)
}

fn aside_of(path: &Path) -> anyhow::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| anyhow!("{} has no name", mounts::shown(path)))?;
    let aside = format!(".{}.firn-new-{}", name.to_string_lossy(), std::process::id());
    Ok(path.with_file_name(aside))
}

/// Makes the hot directory, or takes an empty one, and tries to write there.
fn prepare_hot(hot: &Path, undo: &mut Undo) -> anyhow::Result<()> {
    let name = || format!("hot directory {}", mounts::shown(hot));
    must_be_vacant(hot, "a hot directory belongs to one volume alone: name a new one")
        .with_context(name)?;
    if !hot.exists() {
        fs::create_dir(hot)
            .with_context(name)
            .hint("its parent must exist and be writable; name another place with --hot")?;
        undo.paths.push(hot.to_owned());
    }
    let marker = hot.join(HOT_MARKER);
    undo.paths.push(marker.clone());
    write_durably(&marker, b"")
        .with_context(name)
        .hint("the hot directory must be on a writable disk with free space")
}

/// Checks that the hot directory is there, is this volume's, and takes writes unless the mount is
/// to be read-only.
pub fn check_hot(config: &Config, volume: &VolumeDir, read_only: bool) -> anyhow::Result<()> {
    let hot = config.hot_dir(volume.root());
    let name = || format!("hot directory {}", mounts::shown(&hot));
    let marker = match fs::read_to_string(hot.join(HOT_MARKER)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(anyhow!("does not hold this volume's data"))
                .with_context(name)
                .hint("is its disk mounted? `hot` in firn.toml says where the data lies");
        }
        Err(error) => return Err(error).with_context(name),
    };
    if marker.trim() != config.uuid.to_string() {
        return Err(anyhow!("belongs to volume {}, not to {}", marker.trim(), config.uuid))
            .with_context(name)
            .hint("`hot` in firn.toml names another volume's directory");
    }
    if read_only {
        return Ok(());
    }
    let probe = hot.join(".probe");
    let tried = write_durably(&probe, &[0_u8; 4096]);
    let _ = fs::remove_file(&probe);
    tried
        .with_context(name)
        .hint("the disk must be writable and have free space; `firn mount --read-only` reads without writing")
}

/// Removes what was built when the building fails.
struct Undo {
    paths: Vec<PathBuf>,
}

impl Drop for Undo {
    fn drop(&mut self) {
        for path in self.paths.drain(..).rev() {
            let is_dir = path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
            let _ = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
    }
}

fn write_durably(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().with_context(|| format!("writing {}", mounts::shown(path)))
}

fn sync_dir(path: &Path) -> anyhow::Result<()> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .with_context(|| format!("syncing {}", mounts::shown(path)))
}

#[cfg(test)]
mod tests;
