//! One process at a time has a volume open: the daemon, or a command that works offline. The lock
//! is an `flock` on `<volume>/lock`, so it ends with its holder however that ends; the file's text
//! says who holds it. Text without a lock is left over from a crash and means nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
use firn_tiering::{Clock, SystemClock};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::VolumeDir;
use crate::failure::Explain;
use crate::mounts;

/// How long a lock is asked for again before its holder is believed: [`holder`] takes it for an
/// instant too.
const PROBE_GRACE: Duration = Duration::from_millis(200);

/// Longest owner text that is believed.
const MAX_OWNER_LEN: u64 = 4096;

/// Who has a volume open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Process id on `host`.
    pub pid: u32,
    /// The machine, since a volume directory may lie on a shared filesystem.
    pub host: String,
    /// What it does: `mount`, `check`, `recover`.
    pub verb: String,
    /// Where it is mounted, for `mount`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mountpoint: Option<PathBuf>,
    /// The mount is gone and its data is being brought to safety.
    #[serde(default)]
    pub finishing: bool,
}

impl Owner {
    /// This process.
    pub fn this(verb: &str, mountpoint: Option<&Path>) -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self {
            pid: std::process::id(),
            host,
            verb: verb.to_owned(),
            mountpoint: mountpoint.map(Path::to_owned),
            finishing: false,
        }
    }

    fn describe(&self) -> String {
        let who = format!("process {} on {}", self.pid, self.host);
        match (&self.mountpoint, self.finishing) {
            (Some(at), false) => format!("already mounted at {} by {who}", at.display()),
            (Some(at), true) => {
                format!("still being unmounted from {} by {who}", at.display())
            }
            (None, _) => format!("in use by `firn {}`, {who}", self.verb),
        }
    }
}

/// The held lock; dropping it lets the next one in.
#[derive(Debug)]
pub struct VolumeLock {
    file: File,
    owner: Owner,
}

impl VolumeLock {
    /// Takes the volume for `owner`. Waits up to `patience` for a holder that is finishing an
    /// unmount; any other holder is an error that names it.
    pub fn acquire(volume: &VolumeDir, owner: Owner, patience: Duration) -> anyhow::Result<Self> {
        let path = volume.lock_file();
        let file = open(&path)?;
        let start = SystemClock.instant();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(error) => {
                    return Err(error).context(format!("locking {}", mounts::shown(&path)));
                }
            }
            let holder = read_owner(&file);
            let finishing = holder.as_ref().is_some_and(|holder| holder.finishing);
            let waited = SystemClock.instant().saturating_duration_since(start);
            let limit = if finishing { patience.max(PROBE_GRACE) } else { PROBE_GRACE };
            if waited >= limit {
                return Err(refusal(volume, holder.as_ref()));
            }
            thread::sleep(Duration::from_millis(20));
        }
        let mut lock = Self { file, owner };
        lock.write_owner().with_context(|| format!("writing {}", mounts::shown(&path)))?;
        Ok(lock)
    }

    /// Says in the lock file that only the end of an unmount is still to come.
    pub fn finishing(&mut self) -> io::Result<()> {
        self.owner.finishing = true;
        self.write_owner()
    }

    fn write_owner(&mut self) -> io::Result<()> {
        let mut text = serde_json::to_string(&self.owner).map_err(io::Error::other)?;
        text.push('\n');
        self.file.seek(SeekFrom::Start(0))?;
        self.file.set_len(0)?;
        self.file.write_all(text.as_bytes())
    }
}

impl Drop for VolumeLock {
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
    }
}

/// Who holds the volume now, if anybody does. Takes no lock that could be in anyone's way for
/// longer than this call.
pub fn holder(volume: &VolumeDir) -> anyhow::Result<Option<Owner>> {
    let path = volume.lock_file();
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context(format!("opening {}", mounts::shown(&path))),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(None),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let unknown = Owner {
                pid: 0,
                host: "unknown".into(),
                verb: "unknown".into(),
                mountpoint: None,
                finishing: false,
            };
            Ok(Some(read_owner(&file).unwrap_or(unknown)))
        }
        Err(error) => Err(error).context(format!("locking {}", mounts::shown(&path))),
    }
}

fn open(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(path)
        .with_context(|| format!("opening {}", mounts::shown(path)))
        .hint("the volume directory must be writable by the user who mounts it")
}

fn read_owner(mut file: &File) -> Option<Owner> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(MAX_OWNER_LEN).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn refusal(volume: &VolumeDir, holder: Option<&Owner>) -> anyhow::Error {
    let name = mounts::shown(volume.root());
    let Some(owner) = holder else {
        return anyhow!("volume {name} is in use by another process");
    };
    let hint = match &owner.mountpoint {
        Some(at) if owner.finishing => {
            format!("wait for it, or see {}/firn.log; it was mounted at {}", name, at.display())
        }
        Some(at) => format!("use that mount, or end it with `firn umount {}`", at.display()),
        None => "wait until it has ended".to_owned(),
    };
    let refused = Err::<(), _>(anyhow!("volume {name} is {}", owner.describe())).hint(hint);
    match refused {
        Err(error) => error,
        Ok(()) => anyhow!("volume {name} is in use"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::failure::Failure;

    fn volume() -> (tempfile::TempDir, VolumeDir) {
        let dir = tempfile::tempdir().unwrap();
        let volume = VolumeDir::unchecked(dir.path().to_owned());
        (dir, volume)
    }

    #[test]
    fn a_second_holder_is_told_who_is_first() {
        let (_dir, volume) = volume();
        let owner = Owner::this("mount", Some(Path::new("/data")));
        let held = VolumeLock::acquire(&volume, owner.clone(), Duration::ZERO).unwrap();
        assert_eq!(holder(&volume).unwrap(), Some(owner.clone()));
        let refused =
            VolumeLock::acquire(&volume, Owner::this("check", None), Duration::ZERO).unwrap_err();
        let failure = Failure::new(&refused);
        assert!(failure.message.contains("already mounted at /data by process"), "{failure}");
        assert!(failure.hint.unwrap().contains("firn umount /data"));
        drop(held);
        assert_eq!(holder(&volume).unwrap(), None);
        VolumeLock::acquire(&volume, owner, Duration::ZERO).unwrap();
    }

    #[test]
    fn text_without_a_lock_means_nothing() {
        let (_dir, volume) = volume();
        std::fs::write(volume.lock_file(), "{\"pid\":1,\"host\":\"h\",\"verb\":\"mount\"}")
            .unwrap();
        assert_eq!(holder(&volume).unwrap(), None);
        VolumeLock::acquire(&volume, Owner::this("mount", None), Duration::ZERO).unwrap();
    }

    #[test]
    fn a_holder_that_is_finishing_is_waited_for() {
        let (_dir, volume) = volume();
        let owner = Owner::this("mount", Some(Path::new("/data")));
        let mut held = VolumeLock::acquire(&volume, owner.clone(), Duration::ZERO).unwrap();
        held.finishing().unwrap();
        let second = volume.clone();
        let waiting = thread::spawn(move || {
            VolumeLock::acquire(&second, owner, Duration::from_secs(60)).map(|_| ())
        });
        thread::sleep(Duration::from_millis(120));
        assert!(!waiting.is_finished());
        drop(held);
        waiting.join().unwrap().unwrap();
    }
}
