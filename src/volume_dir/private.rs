//! What users wrote is for nobody to read beside the mount, which asks for permissions: databases,
//! segments and the records of what was used are the owner's alone. The volume directory itself, its
//! configuration and its lock stay readable, so that everybody is told whose volume it is.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rustix::fs::Mode;

use super::VolumeDir;
use crate::config::Config;

/// What group and others may.
const OTHERS: u32 = 0o077;

/// Until it is dropped, what this process makes is its owner's alone.
#[derive(Debug)]
pub struct Umask(Mode);

impl Umask {
    /// From now on.
    pub fn private() -> Self {
        Self(rustix::process::umask(Mode::from_raw_mode(OTHERS)))
    }

    /// For good.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Umask {
    fn drop(&mut self) {
        rustix::process::umask(self.0);
    }
}

/// Closes to others what an older version left open to them.
pub fn close(volume: &VolumeDir, config: &Config) {
    let root = volume.root();
    let below = ["accesses", "model"].map(|name| root.join(name));
    let dirs = [config.hot_dir(root), volume.namespace_dir(), volume.catalog_dir()];
    let files = ["heat", "pins", "jobs.log", "backed-up", "key"].map(|name| root.join(name));
    for path in dirs.into_iter().chain(below).chain(files) {
        if let Err(error) = close_one(&path) {
            tracing::warn!(%error, "{} stays open to others", path.display());
        }
    }
}

fn close_one(path: &PathBuf) -> std::io::Result<()> {
    let mode = match fs::metadata(path) {
        Ok(found) => found.permissions().mode(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    match mode & OTHERS {
        0 => Ok(()),
        _ => fs::set_permissions(path, Permissions::from_mode(mode & !OTHERS & 0o7777)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn mode(path: &std::path::Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn what_is_made_meanwhile_and_what_was_open_is_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let [open, private, later] = ["open", "private", "later"].map(|name| dir.path().join(name));
        fs::write(&open, "").unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o754)).unwrap();
        let umask = Umask::private();
        fs::write(&private, "").unwrap();
        drop(umask);
        fs::create_dir(&later).unwrap();
        assert_eq!((mode(&open), mode(&private)), (0o754, 0o600));
        for path in [open.clone(), private, later, dir.path().join("absent")] {
            close_one(&path).unwrap();
        }
        assert_eq!((mode(&open), mode(&dir.path().join("later"))), (0o700, 0o700));
    }
    #[test]
    fn everything_with_content_in_it_is_closed_and_what_names_the_volume_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(uuid::Uuid::from_u128(5), crate::config::MIN_HOT_CAPACITY);
        let private =
            "hot namespace catalog accesses model heat pins jobs.log backed-up key".split(' ');
        let public = ["firn.toml", "lock"];
        for name in private.clone().chain(public) {
            let path = dir.path().join(name);
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        }
        let of_dir = mode(dir.path());
        close(&VolumeDir::open(dir.path()).unwrap(), &config);
        for name in private {
            assert_eq!(mode(&dir.path().join(name)), 0o600, "{name}");
        }
        for name in public {
            assert_eq!(mode(&dir.path().join(name)), 0o644, "{name}");
        }
        assert_eq!(mode(dir.path()), of_dir);
    }
}
