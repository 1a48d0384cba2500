//! `firn umount`, and the same under the name `umount.firn`: takes the mount away, then waits
//! until everything is durable and says what it waits for.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use anyhow::{Context, anyhow};
use clap::{Args, Parser};
use rustix::mount::UnmountFlags;

use crate::control::client::{Client, Listener};
use crate::control::protocol::{Progress, Verb};
use crate::failure::{EXIT_DONE, Explain};
use crate::mounts::{self, MountEntry};
use crate::report::{self, progress::Follower};
use crate::volume_dir::VolumeDir;

/// Unmount, and wait until everything is durable
///
/// Returns when all data is durable, copied to the cold tier and named by a backup there, and says
/// on standard error what it waits for. When the cold tier cannot be reached, it gives up after
/// `umount_deadline` of firn.toml with a warning: the data is then safe in the hot tier.
#[derive(Debug, Args)]
pub(super) struct Umount {
    /// The mountpoint
    mountpoint: PathBuf,
}

impl Umount {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        unmount(&self.mountpoint)
            .with_context(|| format!("unmounting {}", mounts::shown(&self.mountpoint)))?;
        Ok(EXIT_DONE)
    }
}

/// Unmount a Firn volume, called by umount(8)
///
/// Lets `umount` wait until everything is durable; install the program or a link to it as
/// /sbin/umount.firn and /sbin/umount.fuse.firn.
#[derive(Debug, Parser)]
#[command(name = "umount.firn", version)]
pub(super) struct UmountHelper {
    /// The mountpoint
    mountpoint: PathBuf,
    /// Ignored: a mount whose daemon is dead is taken away in any case
    #[arg(short = 'f')]
    force: bool,
    /// Take the mount out of the tree at once; it ends with its last open file
    #[arg(short = 'l')]
    lazy: bool,
    /// Ignored: the mount table is the kernel's
    #[arg(short = 'n')]
    no_mtab: bool,
    /// Ignored
    #[arg(short = 'r')]
    read_only: bool,
    /// Ignored: success is silent
    #[arg(short = 'v')]
    verbose: bool,
    /// Filesystem type, as given to umount(8)
    #[arg(short = 't', value_name = "TYPE")]
    fs_type: Option<String>,
    /// Ignored: the mount namespace was entered before
    #[arg(short = 'N', value_name = "NAMESPACE")]
    namespace: Option<OsString>,
}

impl UmountHelper {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let name = mounts::shown(&self.mountpoint);
        let done = if self.lazy {
            find(&self.mountpoint).and_then(|entry| take_away(&entry, true))
        } else {
            unmount(&self.mountpoint)
        };
        done.with_context(|| format!("unmounting {name}"))?;
        Ok(EXIT_DONE)
    }
}

/// The Firn mount at `mountpoint`.
fn find(mountpoint: &Path) -> anyhow::Result<MountEntry> {
    let path = mounts::absolute(mountpoint)?;
    let mounts = mounts::all()?;
    if let Some(entry) = mounts::at(&mounts, &path) {
        if entry.is_firn() {
            return Ok(entry.clone());
        }
        return Err(anyhow!("is a mount of type {}, not of Firn", entry.fs_type))
            .hint("use umount(8)");
    }
    let covering = mounts::covering(&mounts, &path).filter(|entry| entry.is_firn());
    let by_source = mounts.iter().find(|entry| entry.is_firn() && entry.source == path);
    let hint = match covering.or(by_source) {
        Some(entry) => format!("the mountpoint is {}", mounts::shown(&entry.mountpoint)),
        None => "`firn status` lists what is mounted".to_owned(),
    };
    Err(anyhow!("nothing is mounted there")).hint(hint)
}

fn unmount(mountpoint: &Path) -> anyhow::Result<()> {
    let entry = find(mountpoint)?;
    let volume = VolumeDir::open(&entry.source);
    let client = match volume.as_ref().map(Client::connect) {
        Ok(Ok(client)) => client,
        _ => return without_daemon(&entry, volume.as_ref()),
    };
    // Following begins before the mount goes, so that nothing of its end is missed.
    let (heard, first_word) = mpsc::channel();
    let followed = std::thread::Builder::new()
        .name("firn-follow".into())
        .spawn(move || {
            let mut watcher = Watcher { follower: Follower::new(), heard: Some(heard) };
            client.ask(Verb::WatchUmount, &mut watcher)
        })
        .context("starting a thread")?;
    // An error here is the end of the channel: the thread has given up and says why when joined.
    if first_word.recv().is_ok() {
        take_away(&entry, false)?;
    }
    followed.join().map_err(|_| anyhow!("following the unmount failed"))??;
    if let Ok(volume) = volume {
        wait_for_exit(&volume);
    }
    Ok(())
}

/// The daemon has said that all is done; its last act is to give the volume free.
fn wait_for_exit(volume: &VolumeDir) {
    for _ in 0..500 {
        match crate::volume_dir::lock::holder(volume) {
            Ok(Some(_)) => std::thread::sleep(std::time::Duration::from_millis(10)),
            _ => return,
        }
    }
}

/// What to do about a mount whose daemon does not answer: a dead one is cleared away.
fn without_daemon(
    entry: &MountEntry,
    volume: Result<&VolumeDir, &anyhow::Error>,
) -> anyhow::Result<()> {
    // Its lock goes with the daemon; asking the mount itself could wait for one that hangs.
    let dead = match volume {
        Ok(volume) => matches!(crate::volume_dir::lock::holder(volume), Ok(None)),
        Err(_) => mounts::is_dead(&entry.mountpoint),
    };
    if dead {
        take_away(entry, true)?;
        report::note(
            "firn: warning: the daemon had died; whatever was fsynced is recovered by the next mount",
        );
        return Ok(());
    }
    take_away(entry, false)?;
    if volume.is_err() {
        report::note("firn: warning: the volume directory cannot be read");
    }
    report::note("firn: warning: the daemon cannot be asked; it finishes in the background");
    Ok(())
}

/// Unmounts; the kernel hands what it has not written yet to the daemon first.
fn take_away(entry: &MountEntry, lazily: bool) -> anyhow::Result<()> {
    let flags = if lazily { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match rustix::mount::unmount(&entry.mountpoint, flags | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::BUSY) => busy(entry),
        Err(rustix::io::Errno::PERM) => match entry.owner {
            Some(owner) if owner != rustix::process::getuid().as_raw() => {
                not_by_strangers(entry, owner)
            }
            _ => by_helper(entry, lazily),
        },
        Err(error) => Err(error.into()),
    }
}

fn busy(entry: &MountEntry) -> anyhow::Result<()> {
    let name = mounts::shown(&entry.mountpoint);
    Err(anyhow!("files on it are open, or it is somebody's working directory"))
        .hint(format!("`fuser -vm {name}` lists who; end them and try again"))
}

/// The setuid helper would refuse as well, with whatever it makes of the mount table.
fn not_by_strangers(entry: &MountEntry, owner: u32) -> anyhow::Result<()> {
    let name = mounts::shown(&entry.mountpoint);
    let may = if owner == 0 {
        "root".to_owned()
    } else {
        format!("user {owner}, who mounted it, or root")
    };
    Err(anyhow!(
        "only {may} may unmount it, and you are user {}",
        rustix::process::getuid().as_raw()
    ))
    .hint(format!("run `sudo firn umount {name}`, or ask who may"))
}

/// Users other than root unmount what they mounted by the setuid helper.
fn by_helper(entry: &MountEntry, lazily: bool) -> anyhow::Result<()> {
    let output = std::process::Command::new("fusermount3")
        .arg(if lazily { "-uz" } else { "-u" })
        .arg("--")
        .arg(&entry.mountpoint)
        .env("LC_ALL", "C")
        .output()
        .context("fusermount3")
        .hint("install the package fuse3")?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if said.contains("busy") {
        return busy(entry);
    }
    Err(anyhow!("{said}")).hint("only root and the user who mounted it may unmount")
}

/// Shows the end of a mount while it lasts.
struct Watcher {
    follower: Follower,
    /// Told when the daemon has said its first word.
    heard: Option<mpsc::Sender<()>>,
}

impl Listener for Watcher {
    fn progress(&mut self, progress: &Progress) {
        if let Some(heard) = self.heard.take() {
            let _ = heard.send(());
        }
        self.follower.show(progress);
    }

    fn warning(&mut self, text: &str) {
        self.follower.note(&format!("firn: warning: {text}"));
    }

    fn item(&mut self, _item: serde_json::Value) -> anyhow::Result<()> {
        Ok(())
    }
}
