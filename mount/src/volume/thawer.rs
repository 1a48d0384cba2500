//! Thawing and putting back: which files of a volume get a plain copy, and the thread that makes it.
//! What holds for the copies is said in [`crate::thaw`].

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use firn_tiering::Wait;
use parking_lot::Mutex;

use super::digester::Reader;
use super::virtual_xattr::is_resident;
use crate::error::{FsError, FsResult};
use crate::file::chain;
use crate::file::flusher::Bell;
use crate::file::node::FileNode;
use crate::file::read::Manner;
use crate::thaw::{self, Plain, Proof, Scores, Shelf, Source, ThawMode, ThawSettings};
use crate::types::{Attr, FileKind, Ino};

/// Files smaller than this are read once and stay in the page cache.
const SMALLEST: u64 = 64 << 10;

/// Files that wait to be thawed; more are forgotten, and noticed again while they are read.
const MOST_WAITING: usize = 64;

/// How often it is looked whether copies have to go, while there are any.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// And while there are none.
const IDLE_WAIT: Duration = Duration::from_secs(3600);

/// Longest rest after each MiB; it takes as long as the MiB did.
const LONGEST_REST: Duration = Duration::from_millis(100);

/// How long a file that could not be thawed is not tried again, and how many of them are remembered.
const REFUSED_FOR: Duration = Duration::from_secs(3600);
const MOST_REFUSED: usize = 1024;

/// How long copies are compared when a volume is closed; the rest goes unseen.
const CLOSING_PATIENCE: Duration = Duration::from_secs(5);

/// The thread and what it shares with who opens and reads.
pub(super) struct Thawer {
    work: Arc<Work>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Work {
    reader: Reader,
    settings: ThawSettings,
    bell: Bell,
    waiting: Mutex<VecDeque<Ino>>,
    /// Files that could not be thawed, and when.
    refused: Mutex<HashMap<Ino, Instant>>,
    scores: Mutex<Scores>,
    shelf: Mutex<Shelf>,
    /// Held while a file is thawed: one at a time.
    thawing: Mutex<()>,
    /// Thawing is of no use for a reason that stays, such as a file system without nameless files.
    is_impossible: AtomicBool,
}

impl Thawer {
    pub(super) fn start(reader: Reader, settings: ThawSettings) -> std::io::Result<Self> {
        let work = Arc::new(Work {
            reader,
            settings,
            bell: Bell::default(),
            waiting: Mutex::default(),
            refused: Mutex::default(),
            scores: Mutex::default(),
            shelf: Mutex::default(),
            thawing: Mutex::default(),
            is_impossible: AtomicBool::new(false),
        });
        let worker = Arc::clone(&work);
        let thread = std::thread::Builder::new().name("firn-thaw".into()).spawn(move || {
            // Of this thread alone; the rests give way to others without it.
            let _ = rustix::process::setpriority_process(None, 19);
            while worker.bell.wait(worker.pause()) {
                if catch_unwind(AssertUnwindSafe(|| worker.round())).is_err() {
                    worker.is_impossible.store(true, Ordering::Relaxed);
                }
            }
        })?;
        Ok(Self { work, thread: Mutex::new(Some(thread)) })
    }

    /// Whether reads of a file are worth counting.
    pub(super) fn is_watched(&self, ino: Ino) -> bool {
        self.work.settings.mode == ThawMode::Auto && self.work.is_unchangeable(ino)
    }

    /// A read that did not go on where the last one ended.
    pub(super) fn note_random_read(&self, ino: Ino) {
        let enough = self.work.scores.lock().note(ino, self.work.now());
        if enough && !self.work.shelf.lock().has(ino) && !self.work.is_refused(ino) {
            let mut waiting = self.work.waiting.lock();
            if waiting.len() < MOST_WAITING && !waiting.contains(&ino) {
                waiting.push_back(ino);
                drop(waiting);
                self.work.bell.ring();
            }
        }
    }

    /// The plain copy of a file, if it has one or is to have one at once; that takes waiting.
    pub(super) fn plain(&self, ino: Ino, wait: Wait) -> FsResult<Option<Arc<Plain>>> {
        let work = &self.work;
        let now = work.now();
        let mut shelf = work.shelf.lock();
        if shelf.has(ino) {
            return Ok(shelf.take(ino, now));
        }
        drop(shelf);
        let at_once = work.settings.mode == ThawMode::Always
            && !work.is_impossible.load(Ordering::Relaxed)
            && work.is_unchangeable(ino);
        if !at_once {
            return Ok(None);
        }
        super::must_wait(wait)?;
        Ok(work.thaw(ino, false))
    }

    /// Thaws nothing more and puts copies back as they come free: the kernel does not let them be used.
    pub(super) fn give_up(&self) {
        if !self.work.is_impossible.swap(true, Ordering::Relaxed) {
            self.work.bell.ring();
        }
    }

    /// Has the thread end as soon as it can; does not wait for that.
    pub(super) fn stop(&self) {
        self.work.bell.stop();
    }

    /// Waits for the end of the thread and puts every copy back.
    pub(super) fn finish(&self) {
        self.stop();
        if let Some(thread) = self.thread.lock().take() {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
        let copies = self.work.shelf.lock().clear();
        let until = self.work.now() + CLOSING_PATIENCE;
        for (ino, plain) in copies {
            self.work.compare(ino, &plain, || self.work.now() < until);
        }
    }
}

impl Drop for Thawer {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Work {
    fn now(&self) -> Instant {
        self.reader.clock.instant()
    }

    fn pause(&self) -> Duration {
        if self.shelf.lock().is_empty() { IDLE_WAIT } else { LOOK_EVERY }
    }

    /// Whether nothing can ever change a file's content.
    fn is_unchangeable(&self, ino: Ino) -> bool {
        self.settings.is_read_only || self.reader.names.is_in_snapshot(ino)
    }

    fn is_refused(&self, ino: Ino) -> bool {
        let refused = self.refused.lock().get(&ino).copied();
        refused.is_some_and(|at| self.now().saturating_duration_since(at) < REFUSED_FOR)
    }

    fn refuse(&self, ino: Ino) {
        let mut refused = self.refused.lock();
        if refused.len() >= MOST_REFUSED {
            refused.clear();
        }
        refused.insert(ino, self.now());
    }

    /// Whether work on copies is to go on: nobody waits for their room, and it is not time to stop.
    fn goes_on(&self) -> bool {
        !self.bell.is_stopped() && !(self.settings.room)().is_awaited
    }

    /// Puts back what has to go, compares what was not compared for long, then thaws one file.
    fn round(&self) {
        let (names, mut room) = (&self.reader.names, (self.settings.room)());
        room.is_awaited |= self.is_impossible.load(Ordering::Relaxed);
        let yielding = self.shelf.lock().free_bytes();
        self.settings.counts.set_yielding(yielding);
        let out = self.shelf.lock().weed(&room, self.now(), |ino| names.is_gone(ino));
        for (ino, plain) in out {
            self.compare(ino, &plain, self.going_on());
        }
        let yielding = self.shelf.lock().free_bytes();
        self.settings.counts.set_yielding(yielding);
        let due = self.shelf.lock().unproven(self.now());
        if let Some((ino, plain)) = due
            && self.compare(ino, &plain, self.at_ease()) == Proof::Whole
        {
            self.shelf.lock().is_proven(ino, self.now());
        }
        let next = self.waiting.lock().pop_front();
        if let Some(ino) = next.filter(|_| !self.is_impossible.load(Ordering::Relaxed)) {
            self.thaw(ino, true);
            self.bell.ring();
        }
    }

    /// [`Work::goes_on`], which is found out now and then only.
    fn going_on(&self) -> impl FnMut() -> bool + '_ {
        let (mut looked, mut goes_on) = (None, true);
        move || {
            let now = self.now();
            let is_due = |at: Instant| now.saturating_duration_since(at) >= LOOK_EVERY;
            if looked.is_none_or(is_due) || self.bell.is_stopped() {
                (looked, goes_on) = (Some(now), self.goes_on());
            }
            goes_on
        }
    }

    /// [`Work::going_on`], with a rest as long as the work since the last one.
    fn at_ease(&self) -> impl FnMut() -> bool + '_ {
        let (mut going_on, mut since) = (self.going_on(), self.now());
        move || {
            let took = self.now().saturating_duration_since(since);
            let goes_on = self.bell.rest(took.min(LONGEST_REST)) && going_on();
            since = self.now();
            goes_on
        }
    }

    /// Compares a copy with what it was.
    fn compare(&self, ino: Ino, plain: &Plain, goes_on: impl FnMut() -> bool) -> Proof {
        let proof = plain.prove(goes_on);
        if proof == Proof::Damaged && plain.is_news() {
            self.settings.counts.note_damage();
            tracing::error!(
                inode = ino.0,
                "a thawed file was not any more what had been written: look after the disk of the \
                 hot tier; its content in the volume is not touched by that"
            );
        }
        proof
    }

    /// Makes a copy, resting between its parts where nobody waits for it.
    fn thaw(&self, ino: Ino, rests: bool) -> Option<Arc<Plain>> {
        let _one = self.thawing.lock();
        if self.shelf.lock().has(ino) {
            return self.shelf.lock().take(ino, self.now());
        }
        match self.copy(ino, rests) {
            Ok(plain) => {
                let kept = self.shelf.lock().put(ino, plain?, self.now());
                // From now on it is looked whether it has to go.
                self.bell.ring();
                Some(kept)
            }
            Err(FsError::Stale | FsError::WouldWait) => None,
            Err(error) => {
                self.refuse(ino);
                let error = chain(&error);
                if !self.has_nameless_files() {
                    self.is_impossible.store(true, Ordering::Relaxed);
                    tracing::info!(error, "the hot tier's file system cannot hold thawed files");
                } else {
                    tracing::warn!(inode = ino.0, error, "thawing a file");
                }
                None
            }
        }
    }

    fn has_nameless_files(&self) -> bool {
        use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate, open};
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let made = open(&self.settings.dir, flags, Mode::RUSR | Mode::WUSR);
        made.is_ok_and(|file| {
            let reserved = fallocate(&file, FallocateFlags::empty(), 0, 1);
            reserved != Err(rustix::io::Errno::OPNOTSUPP)
        })
    }

    fn copy(&self, ino: Ino, rests: bool) -> FsResult<Option<Plain>> {
        let Reader { names, table, storage, .. } = &self.reader;
        let attr = names.getattr(ino)?;
        let room = (self.settings.room)();
        let is_wanted = self.is_wanted(&attr) && attr.size <= self.shelf.lock().left(&room);
        if !is_wanted || !is_resident(names, &**storage, ino)? {
            return Ok(None);
        }
        let charge = self.settings.counts.charge(attr.size);
        let node = table.file(ino, || Ok(attr))?;
        let going_on = Box::new(self.going_on());
        let mut source = Content { work: self, node: &node, rests, since: self.now(), going_on };
        thaw::write(&self.settings.dir, attr.size, charge, &mut source)
    }

    /// Whether a copy would be of use: not of what is small, nor mostly holes.
    fn is_wanted(&self, attr: &Attr) -> bool {
        let smallest = if self.settings.mode == ThawMode::Always { 1 } else { SMALLEST };
        attr.kind == FileKind::File && attr.size >= smallest && attr.blocks * 512 >= attr.size / 2
    }
}

/// Content of a file in use, as long as it lies in hot.
struct Content<'a> {
    work: &'a Work,
    node: &'a FileNode,
    rests: bool,
    /// When the last rest ended.
    since: Instant,
    /// Whether it is worth going on.
    going_on: Box<dyn FnMut() -> bool + 'a>,
}

impl Source for Content<'_> {
    fn read(&mut self, offset: u64, len: u32) -> FsResult<Option<Bytes>> {
        if !self.goes_on() {
            return Ok(None);
        }
        let manner = Manner { stream: None, is_upkeep: true, may_look_ahead: &|| false };
        let read = self.work.reader.files.read(self.node, manner, offset, len, Wait::No)?;
        let took = self.work.now() - self.since;
        if self.rests && !self.work.bell.rest(took.min(LONGEST_REST)) {
            return Ok(None);
        }
        self.since = self.work.now();
        Ok(Some(read.bytes))
    }

    fn goes_on(&mut self) -> bool {
        (self.going_on)()
    }
}
