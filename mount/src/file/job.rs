//! Encoding off the writer's thread: a small pool turns runs of plaintext into blocks.
//!
//! A job owns its plaintext; overlays that name a job can be read while it runs. When it is done
//! every span that still names it is pointed at the block, or back at the plaintext after a
//! failure: data is given up only when it lies in a block.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use firn_tiering::encode::EncodeMemory;
use firn_tiering::{Blocks, Error as TieringError, Wait};
use parking_lot::{Condvar, Mutex};

use super::extents::Form;
use super::group_sync::Durability;
use super::node::FileNode;
use super::pins::{Pins, StoredBlock};

/// What a finished job has become.
pub(crate) type JobResult = Result<Arc<StoredBlock>, Arc<TieringError>>;

/// A run of plaintext that becomes one block.
#[derive(Debug)]
pub(crate) struct EncodeJob {
    /// The bytes.
    pub(crate) plain: Bytes,
    result: Mutex<Option<JobResult>>,
    done: Condvar,
}

impl EncodeJob {
    /// A job that nobody works on yet.
    pub(crate) fn new(plain: Bytes) -> Arc<Self> {
        Arc::new(Self { plain, result: Mutex::new(None), done: Condvar::new() })
    }

    /// Waits until somebody has finished it.
    pub(crate) fn wait(&self) -> JobResult {
        let mut result = self.result.lock();
        loop {
            if let Some(result) = &*result {
                return result.clone();
            }
            self.done.wait(&mut result);
        }
    }

    fn finish(&self, result: JobResult) {
        *self.result.lock() = Some(result);
        self.done.notify_all();
    }
}

/// A job with all that an encoder needs to know.
#[derive(Debug)]
pub(crate) struct Work {
    /// What to encode.
    pub(crate) job: Arc<EncodeJob>,
    /// Files, and the range of each, whose overlays may name the job.
    pub(crate) targets: Vec<(Weak<FileNode>, Range<u64>)>,
    /// What the encoder knows about the stream.
    pub(crate) memory: Arc<Mutex<EncodeMemory>>,
    /// What was asked of the encoder and the store.
    pub(crate) form: Form,
    /// Give up when nothing makes room for that long.
    pub(crate) patience: Duration,
    /// Another job of the same commit found no room: this one does not wait for it.
    pub(crate) given_up: Arc<AtomicBool>,
}

/// What encoders work with.
pub(crate) struct EncoderContext {
    /// Where blocks go.
    pub(crate) blocks: Arc<dyn Blocks>,
    /// Keeps them until they are committed.
    pub(crate) pins: Arc<Pins>,
    /// Knows which appends a sync has covered.
    pub(crate) durability: Arc<Durability>,
}

impl EncoderContext {
    fn run(&self, work: &Work) {
        let mut memory = work.memory.lock().clone();
        memory.set_compression(work.form.compression);
        memory.set_parity(work.form.parity);
        let in_vain = work.given_up.load(Ordering::Relaxed);
        let wait = Wait::Progress(if in_vain { Duration::ZERO } else { work.patience });
        let _appending = self.pins.begin_append();
        // An encoder that died with a job unfinished would leave a commit waiting for ever.
        let append = || self.blocks.append(&work.job.plain, &mut memory, wait);
        let result = catch_unwind(AssertUnwindSafe(append)).unwrap_or_else(|_| {
            Err(TieringError::ReadOnly("an encoder panicked, which is a bug".into()))
        });
        *work.memory.lock() = memory;
        if matches!(result, Err(TieringError::NoSpace | TieringError::TimedOut(_))) {
            work.given_up.store(true, Ordering::Relaxed);
        }
        let result = match result {
            Ok(block) => Ok(self.pins.hold(block, self.durability.appended())),
            Err(error) => Err(Arc::new(error)),
        };
        for (node, range) in &work.targets {
            if let Some(node) = node.upgrade() {
                node.job_done(range.clone(), &work.job, &result);
            }
        }
        // Last: whoever waited and failed may try again at once, and must not meet this job.
        work.job.finish(result);
    }
}

/// Early jobs that may wait; their bytes are charged to their files, not to the queue.
const EARLY_QUEUE: usize = 256;

/// The pool. Dropping it lets queued jobs finish.
#[derive(Debug)]
pub(crate) struct Encoders {
    urgent: Option<Sender<Work>>,
    early: Option<Sender<Work>>,
    threads: Vec<JoinHandle<()>>,
}

impl Encoders {
    /// Starts `threads` encoders.
    pub(crate) fn start(threads: usize, context: EncoderContext) -> std::io::Result<Self> {
        let (urgent, urgent_jobs) = crossbeam_channel::bounded::<Work>(threads * 2);
        let (early, early_jobs) = crossbeam_channel::bounded::<Work>(EARLY_QUEUE);
        let context = Arc::new(context);
        let threads = (0..threads)
            .map(|n| {
                let (urgent, early) = (urgent_jobs.clone(), early_jobs.clone());
                let context = Arc::clone(&context);
                std::thread::Builder::new()
                    .name(format!("firn-encode-{n}"))
                    .spawn(move || work_off(&urgent, &early, &context))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { urgent: Some(urgent), early: Some(early), threads })
    }

    /// Hands over a job that nobody waits for yet; a full queue refuses.
    pub(crate) fn offer(&self, work: Work) -> bool {
        self.early.as_ref().is_some_and(|queue| queue.try_send(work).is_ok())
    }

    /// Hands over a job that somebody waits for; waits for a place in the queue.
    pub(crate) fn submit(&self, work: Work) {
        let refused = match &self.urgent {
            Some(queue) => queue.send(work).err().map(|refused| refused.0),
            None => Some(work),
        };
        if let Some(work) = refused {
            let closed = TieringError::ReadOnly("the volume is closing".into());
            work.job.finish(Err(Arc::new(closed)));
        }
    }
}

/// Urgent jobs first, until both queues are closed and empty.
fn work_off(urgent: &Receiver<Work>, early: &Receiver<Work>, context: &EncoderContext) {
    let mut open = [true, true];
    while open[0] || open[1] {
        if let Ok(work) = urgent.try_recv() {
            context.run(&work);
            continue;
        }
        let mut select = crossbeam_channel::Select::new();
        let queues = [urgent, early];
        let watched: Vec<usize> = (0..2).filter(|n| open[*n]).collect();
        for n in &watched {
            select.recv(queues[*n]);
        }
        let ready = select.select();
        let n = watched[ready.index()];
        match ready.recv(queues[n]) {
            Ok(work) => context.run(&work),
            Err(_) => open[n] = false,
        }
    }
}

impl Drop for Encoders {
    fn drop(&mut self) {
        self.urgent = None;
        self.early = None;
        for thread in self.threads.drain(..) {
            // A panicked encoder has already said so; the others' jobs are finished by now.
            let _ = thread.join();
        }
    }
}
