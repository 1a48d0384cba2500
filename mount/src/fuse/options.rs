//! What can be chosen for a mount, and its spelling behind `-o`.
//!
//! Defaults follow from who mounts: root serves every user with device nodes and setuid honoured,
//! another user serves nobody else. Unknown options are refused, so that a typo is found at once;
//! the ones that only `mount(8)` and systemd read are ignored.

use super::MountError;
use crate::thaw::ThawMode;

/// How the kernel caches file content. Linux allows one of the two for a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// Writes are collected in the page cache.
    #[default]
    Writeback,
    /// Every write reaches the daemon at once, and reads of thawed files bypass it.
    Passthrough,
}

/// How a volume is mounted.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// Source shown in the mount table: the volume.
    pub fs_name: String,
    /// Refuse every change.
    pub read_only: bool,
    /// Other users than the one who mounts may use it.
    pub allow_other: bool,
    /// Device nodes work. Root only.
    pub dev: bool,
    /// Setuid and setgid bits work. Root only.
    pub suid: bool,
    /// Programs can be run from it.
    pub exec: bool,
    /// Every change of a directory is made durable at once.
    pub dirsync: bool,
    /// Every write is made durable at once.
    pub sync: bool,
    /// Kernel caching of content.
    pub cache: CacheMode,
    /// When files are thawed; without passthrough none is.
    pub thaw: ThawMode,
    /// Threads that read requests; each holds one request of up to 1 MiB.
    pub threads: usize,
    /// How far the kernel reads ahead, in KiB; raised only by root, 0 leaves the kernel's default.
    /// Several requests of 1 MiB at a time are decoded beside each other, and hide how long each
    /// takes to be handed about; more than that only fills the page cache.
    pub readahead_kib: u32,
}

impl MountOptions {
    /// Defaults for the calling user; `fs_name` appears in the mount table.
    pub fn new(fs_name: impl Into<String>) -> Self {
        let root = rustix::process::geteuid().is_root();
        Self {
            fs_name: fs_name.into(),
            read_only: false,
            allow_other: root,
            dev: root,
            suid: root,
            exec: true,
            dirsync: false,
            sync: false,
            cache: CacheMode::Writeback,
            thaw: ThawMode::Auto,
            threads: 4,
            readahead_kib: 4096,
        }
    }

    /// Applies a comma-separated list as given behind `-o`.
    pub fn apply(&mut self, list: &str) -> Result<(), MountError> {
        list.split(',').filter(|option| !option.is_empty()).try_for_each(|o| self.apply_one(o))
    }

    fn apply_one(&mut self, option: &str) -> Result<(), MountError> {
        match option {
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "allow_other" => self.allow_other = true,
            "dev" => self.dev = true,
            "nodev" => self.dev = false,
            "suid" => self.suid = true,
            "nosuid" => self.suid = false,
            "exec" => self.exec = true,
            "noexec" => self.exec = false,
            "dirsync" => self.dirsync = true,
            "sync" => self.sync = true,
            "async" => self.sync = false,
            // Always so: permissions are the kernel's work, and reads never touch access times.
            "default_permissions" | "noatime" | "nodiratime" | "relatime" => {}
            // Read by mount(8) and systemd before this program is started.
            "defaults" | "auto" | "noauto" | "nofail" | "_netdev" | "user" | "nouser" | "users" => {
            }
            _ if option.starts_with("x-") || option.starts_with("comment=") => {}
            _ => return self.apply_value(option),
        }
        Ok(())
    }

    fn apply_value(&mut self, option: &str) -> Result<(), MountError> {
        let unknown = || MountError::UnknownOption(option.to_owned());
        let bad = |reason| MountError::BadOption { option: option.to_owned(), reason };
        let (name, value) = option.split_once('=').ok_or_else(unknown)?;
        match (name, value) {
            ("cache", "writeback") => self.cache = CacheMode::Writeback,
            ("cache", "passthrough") => self.cache = CacheMode::Passthrough,
            ("cache", _) => return Err(bad("it is writeback or passthrough")),
            ("thaw", "auto") => self.thaw = ThawMode::Auto,
            ("thaw", "always") => self.thaw = ThawMode::Always,
            ("thaw", "never") => self.thaw = ThawMode::Never,
            ("thaw", _) => return Err(bad("it is auto, always or never")),
            ("fsname", _) => value.clone_into(&mut self.fs_name),
            ("subtype", "firn") => {}
            ("subtype", _) => return Err(bad("it is always firn")),
            ("threads", _) => match value.parse() {
                Ok(threads @ 1..=64) => self.threads = threads,
                _ => return Err(bad("it is a number from 1 to 64")),
            },
            ("readahead_kib", _) => {
                self.readahead_kib = value.parse().map_err(|_| bad("it is a number of KiB"))?;
            }
            _ => return Err(unknown()),
        }
        Ok(())
    }
}
