//! `firn mount`, and the same under the name `mount.firn`: checks the words, then has the daemon
//! mount, in the background or here.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{ArgAction, Args, Parser};
use firn_mount::fuse::MountOptions;

use super::mount_options;
use crate::daemon::{self, Job, detach};
use crate::failure::{EXIT_DONE, Explain, Failure};
use crate::mounts;
use crate::volume_dir::{self, VolumeDir};

/// The option that makes this mount the owner of the cold tier, whoever was.
const TAKEOVER: &str = "takeover";

/// Mount a volume
///
/// Returns when the volume is mounted; a daemon serves it from then on and logs to `firn.log` in
/// the volume directory (what it logs is chosen with RUST_LOG). Mount options are those of
/// mount.fuse(8): ro, rw, allow_other, dev, nodev, suid, nosuid, exec, noexec, sync, dirsync, and
/// cache=writeback (the default) or cache=passthrough, with which files in snapshots that are read at
/// random often are read by the kernel alone (thaw=auto, always or never). A cold tier belongs to one instance of its volume; `takeover` makes
/// it this one's, once you have made sure that the other is gone for good: use it once, never in
/// /etc/fstab. As root, allow_other, dev and suid are the
/// default; permissions are always checked by the kernel.
#[derive(Debug, Args)]
pub(super) struct Mount {
    /// Directory of the volume
    volume_dir: PathBuf,
    /// Where to mount it: an existing directory
    mountpoint: PathBuf,
    /// Mount options, separated by commas
    #[arg(short = 'o', long = "options", value_name = "OPTS", action = ArgAction::Append)]
    options: Vec<String>,
    /// Stay in the foreground and log to standard error; ends with the mount
    #[arg(long)]
    foreground: bool,
    /// Refuse every change
    #[arg(long)]
    read_only: bool,
    /// Answer on standard output, for the process that started this one
    #[arg(long = "answer-when-ready", hide = true, requires = "foreground")]
    answers: bool,
}

impl Mount {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let mut options = mount_options::own_options(&self.options);
        if self.read_only {
            options = format!("{options},ro");
        }
        if self.answers {
            return Ok(serve_detached(&self.volume_dir, &self.mountpoint, &options));
        }
        let job = job(&self.volume_dir, &self.mountpoint, &options)?;
        if self.foreground {
            crate::daemon::logging::to_stderr();
            daemon::run(&job, || Ok(()))?;
        } else {
            detach::start(&job.volume, &job.mountpoint, &options)?;
        }
        Ok(EXIT_DONE)
    }
}

/// Puts a mount together from the words of its user.
fn job(volume: &Path, mountpoint: &Path, options: &str) -> anyhow::Result<Job> {
    let volume = open_volume(volume)?;
    let mountpoint = mounts::absolute(mountpoint)
        .with_context(|| format!("mountpoint {}", mounts::shown(mountpoint)))?;
    let mut mount_options = MountOptions::new(volume.root().to_string_lossy());
    let (takes_over, options) = mount_options::without(options, TAKEOVER);
    mount_options
        .apply(&options)
        .context("mount options")
        .hint("`firn mount --help` lists the options")
        .wrong_usage()?;
    // The mount table is how a path is led back to its volume.
    mount_options.fs_name = volume.root().to_string_lossy().into_owned();
    Ok(Job { volume, mountpoint, options: mount_options, takes_over })
}

/// The volume at `path`; a path on a mount of it names it too, so that the error can say so.
fn open_volume(path: &Path) -> anyhow::Result<VolumeDir> {
    Ok(volume_dir::resolve(path)?.volume)
}

/// The daemon in the background: every failure is answered to who waits, and logged.
fn serve_detached(volume: &Path, mountpoint: &Path, options: &str) -> u8 {
    detach::leave_session();
    let served = job(volume, mountpoint, options).and_then(|job| {
        if let Err(error) = daemon::logging::to_file(&job.volume.log_file()) {
            // A read-only volume directory: what is logged goes nowhere, the mount goes on.
            tracing::debug!(%error, "no log");
        }
        daemon::run(&job, detach::answer_mounted)
    });
    match served {
        Ok(()) => EXIT_DONE,
        Err(error) => {
            tracing::error!("{}", Failure::new(&error).message);
            detach::answer_failed(&error);
            crate::failure::EXIT_FAILED
        }
    }
}

/// Mount a Firn volume, called by mount(8)
///
/// Lets `/etc/fstab` and `mount -t firn` mount volumes; install the program or a link to it as
/// /sbin/mount.firn. A line of /etc/fstab:
/// `/srv/volume /data firn _netdev,nofail 0 0`.
#[derive(Debug, Parser)]
#[command(name = "mount.firn", version)]
pub(super) struct MountHelper {
    /// Directory of the volume
    volume_dir: PathBuf,
    /// Where to mount it
    mountpoint: PathBuf,
    /// Mount options, separated by commas; those of mount(8) and systemd are left to them
    #[arg(short = 'o', value_name = "OPTS", action = ArgAction::Append)]
    options: Vec<String>,
    /// Check the options only, mount nothing
    #[arg(short = 'f')]
    fake: bool,
    /// Tolerate unknown mount options
    #[arg(short = 's')]
    sloppy: bool,
    /// Ignored: the mount table is the kernel's
    #[arg(short = 'n')]
    no_mtab: bool,
    /// Ignored: success is silent
    #[arg(short = 'v')]
    verbose: bool,
    /// Mount read-only
    #[arg(short = 'r')]
    read_only: bool,
    /// Mount writable
    #[arg(short = 'w')]
    read_write: bool,
    /// Filesystem type, as given to mount(8)
    #[arg(short = 't', value_name = "TYPE")]
    fs_type: Option<String>,
    /// Ignored: the mount namespace was entered before
    #[arg(short = 'N', value_name = "NAMESPACE")]
    namespace: Option<OsString>,
}

impl MountHelper {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let mut options = mount_options::own_options(&self.options);
        if self.sloppy {
            options = known_only(&options);
        }
        if self.read_only {
            options = format!("{options},ro");
        } else if self.read_write {
            options = format!("{options},rw");
        }
        let job = job(&self.volume_dir, &self.mountpoint, &options)?;
        if !self.fake {
            detach::start(&job.volume, &job.mountpoint, &options)?;
        }
        Ok(EXIT_DONE)
    }
}

/// Drops options that the filesystem refuses.
fn known_only(options: &str) -> String {
    let known = |word: &&str| *word == TAKEOVER || MountOptions::new("").apply(word).is_ok();
    options.split(',').filter(known).collect::<Vec<_>>().join(",")
}
