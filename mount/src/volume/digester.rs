//! Computing the digests of files that came to rest, and of snapshots, off the threads that serve
//! calls.
//!
//! A pass looks at every file that waits for a digest, page by page, and reads those that nobody
//! writes to, that last changed some time ago, and of which all blocks are hot: nothing is ever
//! fetched from the cold tier for this, it keeps nothing warm, nobody who observes is told of it,
//! and no time of the file changes. Content is read through the verified path, one MiB at a time,
//! with a rest after each as long as it took, by a thread of the lowest priority.
//!
//! *Truth*: content is taken from committed extents only, and the namespace stores a digest only
//! of what nobody changed meanwhile; see [`crate::namespace`]'s `digests`. *Crash*: the namespace
//! knows which files wait; a file that was being read is read again from its beginning.

mod seals;
mod unreadable;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use firn_tiering::{BlockRef, Clock};
use parking_lot::Mutex;

use super::storage::Storage;
use super::table::Table;
use super::virtual_xattr::is_resident;
use crate::error::{FsError, FsResult};
use crate::file::flusher::Bell;
use crate::file::{Files, chain};
use crate::namespace::{ContentSource, Inode, MOST_HOLES, Namespace, Node};
use crate::types::Ino;

use unreadable::Unreadable;

/// Files looked up together.
const PAGE: usize = 256;

/// Flush intervals without a change before a file is read.
const QUIET_INTERVALS: u32 = 2;

/// A file waits once more for each of these, so that one that grows now and then is not read most
/// of the time.
const SIZE_PER_WAIT: u64 = 1 << 30;

/// No file waits longer than it takes until files are copied to the cold tier by default.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// A pass in vain is followed by a pause this many times as long.
const PAUSE_SHARE: u32 = 20;

/// Longest pause between two passes, and longest rest after a MiB.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
const LONGEST_REST: Duration = Duration::from_millis(100);

/// What a pass needs of a volume.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) names: Arc<Namespace>,
    pub(super) files: Arc<Files>,
    pub(super) table: Arc<Table>,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) clock: Arc<dyn Clock>,
}

/// The thread; passes of a test run beside it.
pub(super) struct Digester {
    work: Arc<Work>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Work {
    reader: Reader,
    bell: Bell,
    unreadable: Mutex<Unreadable<Ino>>,
    /// Snapshots with a record that cannot be read.
    unsealable: Mutex<Unreadable<Node>>,
}

impl Digester {
    /// Starts the thread, which goes on with what an earlier use left.
    pub(super) fn start(reader: Reader, interval: Duration) -> std::io::Result<Self> {
        let work = Arc::new(Work {
            reader,
            bell: Bell::default(),
            unreadable: Mutex::default(),
            unsealable: Mutex::default(),
        });
        let worker = Arc::clone(&work);
        let thread = std::thread::Builder::new().name("firn-digest".into()).spawn(move || {
            // Of this thread alone; without it the rests are what gives way to others.
            let _ = rustix::process::setpriority_process(None, 19);
            let mut pause = interval;
            while worker.bell.wait(pause) {
                pause = worker.round(interval);
            }
        })?;
        Ok(Self { work, thread: Mutex::new(Some(thread)) })
    }

    /// Looks before the pause is over whether there is something to do.
    pub(super) fn wake(&self) {
        self.work.bell.ring();
    }

    /// Ends after the MiB under way; the next open goes on.
    pub(super) fn stop(&self) {
        self.work.bell.stop();
        if let Some(thread) = self.thread.lock().take() {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }

    /// Computes the digest of every file that has been quiet for that long.
    #[cfg(test)]
    pub(super) fn pass(&self, quiet: Duration) -> FsResult<usize> {
        self.work.pass(quiet)
    }

    /// Brings every snapshot nearer to its digest.
    #[cfg(test)]
    pub(super) fn seal_snapshots(&self) -> FsResult<usize> {
        self.work.seal_snapshots()
    }

    /// Computes the digest of what is committed of every file, whoever writes to it.
    #[cfg(test)]
    pub(super) fn compute_all(&self) -> FsResult<()> {
        let waiting = self.work.reader.names.undigested(None, usize::MAX)?.inodes;
        waiting.into_iter().try_for_each(|ino| self.work.compute(ino).map(drop))
    }
}

impl Drop for Digester {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Work {
    /// A pass, and how long to pause after it.
    fn round(&self, interval: Duration) -> Duration {
        let Reader { names, files, clock, .. } = &self.reader;
        if files.health.check().is_err() {
            return interval;
        }
        let begun = clock.instant();
        let work = || -> FsResult<usize> {
            Ok(self.pass(interval * QUIET_INTERVALS)? + self.seal_snapshots()?)
        };
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(0)) => {
                let pause = (clock.instant() - begun) * PAUSE_SHARE;
                return interval.max(pause.min(LONGEST_PAUSE));
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = chain(&error), "computing digests of files");
                if let Some(reason) = names.read_only() {
                    files.health.fail(reason);
                }
            }
            Err(_) => {
                files.health.fail("computing digests of files panicked, which is a bug".into());
            }
        }
        interval
    }

    /// Looks at every file that waits, and returns how many need not wait any more.
    fn pass(&self, quiet: Duration) -> FsResult<usize> {
        let (mut from, mut done) = (None, 0);
        loop {
            let page = self.reader.names.undigested(from, PAGE)?;
            for ino in page.inodes {
                if !self.bell.rest(Duration::ZERO) {
                    return Ok(done);
                }
                done += usize::from(self.look_at(ino, quiet)?);
            }
            match page.next {
                Some(next) => from = Some(next),
                None => return Ok(done),
            }
        }
    }

    /// Computes the digest of a file if it is time to; says whether it has one now.
    fn look_at(&self, ino: Ino, quiet: Duration) -> FsResult<bool> {
        self.reader.files.health.check()?;
        match self.is_due(ino, quiet) {
            Ok(true) => self.compute(ino),
            Ok(false) => Ok(false),
            Err(error) => {
                self.give_up(ino, Some(&error));
                Ok(false)
            }
        }
    }

    /// Computes the digest of a file; `false` when that is not possible, or not needed.
    fn compute(&self, ino: Ino) -> FsResult<bool> {
        let names = &self.reader.names;
        let Some(inode) = names.begin_digest(ino)? else { return Ok(false) };
        let since = self.reader.clock.instant();
        let mut content = Content { work: self, since, is_live: true, is_missing: false };
        match names.digest_content(&inode, &mut content) {
            Ok(Some(digest)) => names.end_digest(ino, digest),
            // Whatever else ended it is over by the next pass.
            Ok(None) if !names.is_digest_wanted() => Ok(false),
            Ok(None) | Err(FsError::Stale) => {
                self.give_up(ino, None);
                Ok(false)
            }
            Err(error) => {
                self.give_up(ino, Some(&error));
                Ok(false)
            }
        }
    }

    /// Whether a file is worth a closer look; one that needs no digest any more is.
    fn is_due(&self, ino: Ino, quiet: Duration) -> FsResult<bool> {
        let Reader { names, table, storage, .. } = &self.reader;
        if self.is_given_up(ino) {
            return Ok(false);
        }
        let inode = match names.inode(ino) {
            Err(FsError::Stale) => return Ok(true),
            found => found?,
        };
        if !inode.awaits_digest() {
            return Ok(true);
        }
        Ok(!table.is_changing(ino)
            && inode.size.saturating_sub(inode.allocated) <= MOST_HOLES
            && self.is_quiet(&inode, quiet)
            && is_resident(names, &**storage, ino)?)
    }

    fn is_quiet(&self, inode: &Inode, quiet: Duration) -> bool {
        let times = u32::try_from(inode.size / SIZE_PER_WAIT).unwrap_or(u32::MAX);
        let longer = quiet.saturating_mul(times.saturating_add(1)).min(LONGEST_WAIT);
        let changed = SystemTime::from(inode.ctime);
        // One from the future says nothing.
        let age = self.reader.clock.now().duration_since(changed).unwrap_or(Duration::MAX);
        age >= longer.max(quiet)
    }

    /// Not read again soon: whoever wants the content is told what is wrong with it.
    fn give_up(&self, ino: Ino, error: Option<&FsError>) {
        if let Some(error) = error {
            tracing::warn!(inode = ino.0, error = chain(error), "computing the digest of a file");
        }
        self.unreadable.lock().add(ino, self.reader.clock.instant());
    }

    fn is_given_up(&self, ino: Ino) -> bool {
        self.unreadable.lock().holds(ino, self.reader.clock.instant())
    }
}

/// What is at hand of a file's content.
struct Content<'a> {
    work: &'a Work,
    /// When the last rest ended.
    since: Instant,
    /// The content may change meanwhile.
    is_live: bool,
    /// Some of it was not at hand.
    is_missing: bool,
}

impl ContentSource for Content<'_> {
    fn bytes(&mut self, block: &BlockRef, range: Range<u32>) -> FsResult<Option<Bytes>> {
        let bytes = self.work.reader.files.bytes_at_hand(block, range);
        self.is_missing |= bytes.is_none();
        Ok(bytes)
    }

    fn goes_on(&mut self) -> bool {
        let Reader { names, files, clock, .. } = &self.work.reader;
        let took = clock.instant() - self.since;
        let goes_on = self.work.bell.rest(took.min(LONGEST_REST))
            && (!self.is_live || names.is_digest_wanted())
            && files.health.check().is_ok();
        self.since = clock.instant();
        goes_on
    }
}
