//! Which opens the kernel serves from a plain copy by itself.
//!
//! The kernel's rule, which it enforces by failing an open with `EIO`: while a file has an open that
//! goes through its page cache none may pass through, and while one passes through every other must say
//! that it does as well and name the same copy; it may be sent to the daemon nevertheless. The mode ends
//! with the last open of its kind, before the kernel asks to release that. So it is enough to count
//! opens here when they are answered, and to take them off when they are released: an open whose answer
//! nobody waited for any more is never released, and leaves its file in the mode it was in, which is
//! always allowed.
//!
//! Only a file that nothing can change has a copy (see [`crate::thaw`]), so a writer and a passing
//! reader never meet.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fuser::{BackingId, InitFlags, KernelConfig};
use parking_lot::Mutex;

use crate::error::{FsError, FsResult};
use crate::thaw::Plain;
use crate::types::Ino;

/// File systems below this one, at most: copies lie on one that has none below itself. More would keep
/// others from being stacked on a mount of Firn.
const STACK_DEPTH: u32 = 1;

/// How an open is served.
#[derive(Debug)]
pub(super) enum Way<I> {
    /// By the page cache over the daemon.
    Cached,
    /// From the copy.
    Passing(Arc<I>),
    /// By the daemon, while others pass through: reads that may be unaligned, as they may without a copy.
    Beside(Arc<I>),
}

/// The opens of one file, all of one kind.
#[derive(Debug)]
enum Opens<I> {
    Cached(u64),
    Passing { count: u64, id: Arc<I>, plain: Arc<Plain> },
}

/// The opens of a mount.
#[derive(Debug)]
pub(super) struct Passthrough<I = BackingId> {
    is_wanted: bool,
    is_permitted: AtomicBool,
    passed: AtomicU64,
    files: Mutex<HashMap<Ino, Opens<I>>>,
}

impl<I> Passthrough<I> {
    pub(super) fn new(is_wanted: bool) -> Self {
        Self {
            is_wanted,
            is_permitted: AtomicBool::new(false),
            passed: AtomicU64::new(0),
            files: Mutex::default(),
        }
    }

    /// What the kernel is asked for: it refuses both together.
    pub(super) fn wanted_capability(&self) -> InitFlags {
        match self.is_wanted {
            true => InitFlags::FUSE_PASSTHROUGH,
            false => InitFlags::FUSE_WRITEBACK_CACHE,
        }
    }

    /// Takes in what the kernel grants.
    pub(super) fn negotiated(&self, config: &mut KernelConfig) {
        let granted = self.is_wanted
            && config.capabilities().contains(InitFlags::FUSE_PASSTHROUGH)
            && config.set_max_stack_depth(STACK_DEPTH).is_ok();
        self.is_permitted.store(granted, Ordering::Relaxed);
    }

    /// Whether files may pass through, as far as is known; `None` where that was not asked for.
    pub(super) fn is_permitted(&self) -> Option<bool> {
        self.is_wanted.then(|| self.is_permitted.load(Ordering::Relaxed))
    }

    /// Opens that passed through; `None` where none may.
    pub(super) fn opens(&self) -> Option<u64> {
        let passed = || self.passed.load(Ordering::Relaxed);
        self.is_permitted().is_some_and(|permitted| permitted).then(passed)
    }

    /// Refuses an open beside readers of a copy that was seen damaged, which the kernel would let it map;
    /// and one that `changes` the file, which nothing that has a copy allows.
    pub(super) fn check_open(&self, ino: Ino, changes: bool) -> FsResult<()> {
        if !self.is_wanted {
            return Ok(());
        }
        let why = match self.files.lock().get(&ino) {
            Some(Opens::Passing { plain, .. }) if plain.is_damaged() => {
                "others still read a thawed copy of it that is damaged"
            }
            Some(Opens::Passing { .. }) if changes => "others read a thawed copy of it",
            _ => return Ok(()),
        };
        Err(FsError::io("opening a file", why))
    }

    /// A file is opened; `register` makes its copy known to the kernel. A `direct` open goes to the
    /// daemon: a local file would demand aligned reads.
    pub(super) fn opened(
        &self,
        ino: Ino,
        plain: Option<Arc<Plain>>,
        direct: bool,
        register: impl FnOnce(&File) -> io::Result<I>,
    ) -> Way<I> {
        if !self.is_wanted {
            return Way::Cached;
        }
        let mut files = self.files.lock();
        let entry = match files.entry(ino) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let copy = plain.filter(|plain| !direct && !plain.is_damaged());
                let passing = copy.and_then(|plain| {
                    let id = Arc::new(self.permitted(register(plain.file()))?);
                    Some(Opens::Passing { count: 0, id, plain })
                });
                entry.insert(passing.unwrap_or(Opens::Cached(0)))
            }
        };
        match entry {
            Opens::Cached(count) => {
                *count += 1;
                Way::Cached
            }
            Opens::Passing { count, id, plain } => {
                *count += 1;
                if direct || plain.is_damaged() {
                    return Way::Beside(Arc::clone(id));
                }
                self.passed.fetch_add(1, Ordering::Relaxed);
                Way::Passing(Arc::clone(id))
            }
        }
    }

    /// A file is made and opened, which never passes through.
    pub(super) fn created(&self, ino: Ino) {
        if self.is_wanted {
            let mut files = self.files.lock();
            let opens = files.entry(ino).or_insert(Opens::Cached(0));
            let (Opens::Cached(count) | Opens::Passing { count, .. }) = opens;
            *count += 1;
        }
    }

    /// An open has ended.
    pub(super) fn released(&self, ino: Ino) {
        if !self.is_wanted {
            return;
        }
        let mut files = self.files.lock();
        let Entry::Occupied(mut entry) = files.entry(ino) else { return };
        let (Opens::Cached(count) | Opens::Passing { count, .. }) = entry.get_mut();
        *count -= 1;
        if *count == 0 {
            let ended = entry.remove();
            drop(files);
            // Outside the lock: the kernel is told that the copy is not needed any more.
            drop(ended);
        }
    }

    /// What became of registering a copy; once refused it is not tried again.
    fn permitted(&self, registered: io::Result<I>) -> Option<I> {
        registered
            .inspect_err(|error| {
                self.is_permitted.store(false, Ordering::Relaxed);
                tracing::info!(
                    %error,
                    "no file passes through: for that the daemon must be root, and the hot tier must not \
                     lie on a file system that is stacked on another"
                );
            })
            .ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::thaw::{ThawCounts, testing};

    const FILE: Ino = Ino(7);

    fn permitted() -> Passthrough<u32> {
        let passthrough = Passthrough::new(true);
        passthrough.is_permitted.store(true, Ordering::Relaxed);
        passthrough
    }

    fn copy() -> Arc<Plain> {
        Arc::new(testing::copy(b"snow", &Arc::new(ThawCounts::default())))
    }

    fn never(_: &File) -> io::Result<u32> {
        panic!("registered in vain")
    }

    #[test]
    fn opens_of_one_kind_until_the_last_of_them_has_ended() {
        let (passthrough, plain) = (permitted(), copy());
        let first = passthrough.opened(FILE, None, false, never);
        assert!(matches!(first, Way::Cached));
        let second = passthrough.opened(FILE, Some(Arc::clone(&plain)), false, never);
        assert!(matches!(second, Way::Cached), "another is open through the page cache");
        passthrough.released(FILE);
        passthrough.released(FILE);

        let third = passthrough.opened(FILE, Some(Arc::clone(&plain)), false, |_| Ok(5));
        assert!(matches!(third, Way::Passing(id) if *id == 5));
        let fourth = passthrough.opened(FILE, None, false, never);
        assert!(matches!(fourth, Way::Passing(id) if *id == 5), "the same copy, asked for or not");
        assert_eq!(passthrough.opens(), Some(2));
        assert_eq!(Arc::strong_count(&plain), 2, "held while it is read");
        passthrough.released(FILE);
        passthrough.released(FILE);
        assert_eq!(Arc::strong_count(&plain), 1);
        assert!(passthrough.files.lock().is_empty());
        assert!(matches!(passthrough.opened(FILE, None, false, never), Way::Cached));
    }

    #[test]
    fn beside_readers_of_a_copy_that_was_seen_damaged_the_daemon_serves() {
        let (passthrough, plain) = (permitted(), copy());
        passthrough.opened(FILE, Some(Arc::clone(&plain)), false, |_| Ok(5));
        plain.file().write_all_at(b"S", 0).unwrap();
        assert!(!plain.is_untouched());
        let beside = passthrough.opened(FILE, Some(Arc::clone(&plain)), false, never);
        assert!(matches!(beside, Way::Beside(id) if *id == 5));
        passthrough.check_open(FILE, false).unwrap_err();
        passthrough.released(FILE);
        passthrough.released(FILE);
        passthrough.check_open(FILE, false).unwrap();
        passthrough.check_open(FILE, true).unwrap();
        let again = passthrough.opened(FILE, Some(plain), false, never);
        assert!(matches!(again, Way::Cached));
    }

    #[test]
    fn direct_opens_go_to_the_daemon_and_writers_are_refused_beside_a_copy() {
        let (passthrough, plain) = (permitted(), copy());
        let alone = passthrough.opened(FILE, Some(Arc::clone(&plain)), true, never);
        assert!(matches!(alone, Way::Cached));
        passthrough.released(FILE);
        let passing = passthrough.opened(FILE, Some(Arc::clone(&plain)), false, |_| Ok(5));
        assert!(matches!(passing, Way::Passing(_)));
        let direct = passthrough.opened(FILE, Some(plain), true, never);
        assert!(matches!(direct, Way::Beside(id) if *id == 5));
        passthrough.check_open(FILE, true).unwrap_err();
        passthrough.check_open(FILE, false).unwrap();
    }

    #[test]
    fn where_the_kernel_refuses_files_are_served_as_without_copies() {
        let passthrough = permitted();
        let refused = passthrough
            .opened(FILE, Some(copy()), false, |_| Err(io::Error::from_raw_os_error(libc::EPERM)));
        assert!(matches!(refused, Way::Cached));
        assert_eq!(passthrough.is_permitted(), Some(false));
        assert_eq!(passthrough.opens(), None);
        let other = passthrough.opened(Ino(8), None, false, never);
        assert!(matches!(other, Way::Cached), "and copies are not asked for any more");

        let writeback: Passthrough<u32> = Passthrough::new(false);
        assert_eq!(writeback.wanted_capability(), InitFlags::FUSE_WRITEBACK_CACHE);
        assert_eq!(writeback.is_permitted(), None);
        writeback.created(FILE);
        assert!(matches!(writeback.opened(FILE, None, false, never), Way::Cached));
        assert!(writeback.files.lock().is_empty(), "nothing to count");
    }
}
