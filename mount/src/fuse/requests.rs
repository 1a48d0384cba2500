//! How often the kernel asked for what: one counter for each kind of request.
//!
//! Every request costs its caller two switches of context, so a system call is as fast as it needs
//! few of them. What the kernel answers from its own caches is not counted, since it asks nobody.

use std::sync::atomic::{AtomicU64, Ordering};

/// Kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Lookup,
    Forget,
    Getattr,
    Setattr,
    Readlink,
    Mknod,
    Mkdir,
    Unlink,
    Rmdir,
    Symlink,
    Rename,
    Link,
    Open,
    Create,
    Read,
    Write,
    Flush,
    Release,
    Fsync,
    Opendir,
    Readdir,
    Readdirplus,
    Releasedir,
    Fsyncdir,
    Statfs,
    Setxattr,
    Getxattr,
    Listxattr,
    Removexattr,
    Fallocate,
    Lseek,
    CopyFileRange,
    Other,
}

/// The names of [`Opcode`]s as people see them, in the same order.
const NAMES: [&str; Opcode::Other as usize + 1] = [
    "lookup",
    "forget",
    "getattr",
    "setattr",
    "readlink",
    "mknod",
    "mkdir",
    "unlink",
    "rmdir",
    "symlink",
    "rename",
    "link",
    "open",
    "create",
    "read",
    "write",
    "flush",
    "release",
    "fsync",
    "opendir",
    "readdir",
    "readdirplus",
    "releasedir",
    "fsyncdir",
    "statfs",
    "setxattr",
    "getxattr",
    "listxattr",
    "removexattr",
    "fallocate",
    "lseek",
    "copy_file_range",
    "other",
];

/// Requests since the mount.
#[derive(Debug)]
pub(super) struct Requests([AtomicU64; NAMES.len()]);

impl Default for Requests {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; NAMES.len()])
    }
}

impl Requests {
    pub(super) fn add(&self, opcode: Opcode) {
        self.0[opcode as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were of each kind, those without any included.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        NAMES.into_iter().zip(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_counts_under_its_own_name() {
        let requests = Requests::default();
        for opcode in [Opcode::Lookup, Opcode::CopyFileRange, Opcode::CopyFileRange, Opcode::Other]
        {
            requests.add(opcode);
        }
        let counted: Vec<_> = requests.counts().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("lookup", 1), ("copy_file_range", 2), ("other", 1)]);
    }
}
