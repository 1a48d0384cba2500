//! What the daemon asks of the kernel for itself: many files, no core dumps, one small heap, files
//! for nobody else.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, setrlimit};

use crate::volume_dir::private::Umask;

/// Open files asked for where the hard limit allows it.
const WANTED_FILES: u64 = 1 << 20;

/// Heaps of glibc's allocator. One per core and thread is its default, and each keeps what it
/// once needed: with eight threads that write, several hundred megabytes.
const ALLOCATOR_ARENAS: i32 = 2;

/// Blocks at least this large are given back to the kernel when they are freed: a write buffer
/// that was full once must not stay in the heap for good.
const DIRECT_MAP_BYTES: i32 = 256 << 10;

/// Adjusts this process to be a daemon; called before it opens anything and starts threads.
pub(super) fn apply() {
    forbid_core_dumps();
    raise_open_files();
    bound_allocator();
    Umask::private().keep();
}

fn raise_open_files() {
    let now = getrlimit(Resource::Nofile);
    let hard = now.maximum.unwrap_or(WANTED_FILES);
    let wanted = Rlimit { current: Some(hard.min(WANTED_FILES)), maximum: now.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// Memory and environment hold the object store's credentials and other people's data: no core dump,
/// and nobody but root traces the process or reads its `/proc/<pid>/environ` and `mem`. A user's own
/// daemon may not look into its `/proc/self/fd` either. The limit alone would not do, as the kernel
/// does not heed it where core dumps go to a program.
fn forbid_core_dumps() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let limited = setrlimit(Resource::Core, none);
    let unseen = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    if let Err(error) = limited.and(unseen) {
        tracing::warn!(%error, "core dumps could not be switched off");
    }
}

#[cfg(target_env = "gnu")]
fn bound_allocator() {
    // SAFETY: mallopt takes two integers and changes parameters of the allocator only; it is
    // called before the daemon starts its threads.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ALLOCATOR_ARENAS);
        libc::mallopt(libc::M_MMAP_THRESHOLD, DIRECT_MAP_BYTES);
    }
}

#[cfg(not(target_env = "gnu"))]
fn bound_allocator() {}
