//! One object at a URL, written or read front to back by a program that waits for it, such as a
//! stream on its way to another volume. Apart from tiers: the object has the name that a person
//! gave it, and nothing is known of its length beforehand.
//!
//! *Writing*: parts of a multipart upload, a bounded number of them in memory. The object appears
//! whole when [`ObjectWriter::finish`] returns; dropped before, the upload is aborted. A killed
//! process leaves an unfinished upload, which no listing shows, or in a directory a file `name#1`.
//! *Reading*: ranges, one ahead. What is missing of one that is cut off is asked for again, of the same
//! version of the object where the store can tell, so a lost connection costs time only.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use object_store::path::Path as StorePath;
use object_store::{
    GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutPayload,
};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::super::failure::{FailureKind, TierFailure, is_retriable};
use super::open::locate;
use super::{Secrets, explain, is_conflict};
use crate::error::{Error, Result};

/// Bytes of the first parts. S3 wants at least 5 MiB.
const PART_LEN: usize = 8 << 20;
/// An upload has at most 10,000 parts: after this many they become twice as long, ...
const PARTS_OF_A_LENGTH: usize = 1000;
/// ... up to this many times: 256 MiB, and 1.5 TB in all.
const DOUBLINGS: usize = 5;
/// Parts under way, beside the one that is being filled.
const PARTS_IN_FLIGHT: usize = 2;
/// Bytes of one ranged request.
const RANGE_LEN: u64 = 8 << 20;
/// Attempts in a row that may bring nothing.
const ATTEMPTS: u32 = 12;
/// How long a store may send nothing.
const SILENCE: Duration = Duration::from_secs(60);
/// First and longest pause between attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long giving up may take ...
const ABORT_DEADLINE: Duration = Duration::from_secs(10);
/// ... of which a part that is under way has this long to arrive.
const LAST_PARTS: Duration = Duration::from_secs(2);

/// An object and the store that it is in.
pub(super) struct Located {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) path: StorePath,
    pub(super) described: String,
    pub(super) secrets: Secrets,
}

impl Located {
    fn fail(&self, action: &'static str, error: &object_store::Error) -> Error {
        explain(&self.secrets, action, &self.described, error)
    }
}

fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn start_runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("firn-object")
        .enable_all()
        .build()
        .map_err(Error::io("start threads for the object store"))
}

/// An object that is being written.
pub struct ObjectWriter {
    object: Arc<Located>,
    upload: Option<Box<dyn MultipartUpload>>,
    part: Vec<u8>,
    parts: usize,
    sending: VecDeque<JoinHandle<object_store::Result<()>>>,
    written: u64,
    /// `None` once it was shut down.
    runtime: Option<Runtime>,
}

impl std::fmt::Debug for ObjectWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ObjectWriter({}, {} bytes)", self.object.described, self.written)
    }
}

impl ObjectWriter {
    /// Begins an object at `url` (`file://`, `s3://`, `gs://`, `az://`), with credentials from the
    /// environment. [`Error::Exists`] when there is one. For threads outside of any runtime.
    pub fn create(url: &str) -> Result<Self> {
        Self::create_with(url, environment())
    }

    /// As [`ObjectWriter::create`], with these variables for an environment.
    pub fn create_with(
        url: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self> {
        let object = Arc::new(locate(url, variables)?);
        let runtime = start_runtime()?;
        match runtime.block_on(object.store.head(&object.path)) {
            Ok(_) => return Err(Error::Exists(object.described.clone())),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(object.fail("look for", &error)),
        }
        Ok(Self {
            object,
            upload: None,
            part: Vec::new(),
            parts: 0,
            sending: VecDeque::new(),
            written: 0,
            runtime: Some(runtime),
        })
    }

    /// Makes the object appear, durable; returns its length in bytes.
    pub fn finish(mut self) -> Result<u64> {
        if self.upload.is_none() {
            self.put_whole()?;
            return Ok(self.written);
        }
        if !self.part.is_empty() {
            self.send_part()?;
        }
        while !self.sending.is_empty() {
            self.await_part()?;
        }
        if let Some(mut upload) = self.upload.take() {
            let completed = runtime(&self.runtime)?.block_on(upload.complete());
            if let Err(error) = completed {
                self.upload = Some(upload);
                return Err(self.object.fail("complete", &error));
            }
        }
        Ok(self.written)
    }

    /// What fits one part is one request.
    fn put_whole(&mut self) -> Result<()> {
        let object = &self.object;
        let body = PutPayload::from(std::mem::take(&mut self.part));
        let runtime = runtime(&self.runtime)?;
        let create = object.store.put_opts(&object.path, body.clone(), PutMode::Create.into());
        let put = match runtime.block_on(create) {
            Err(object_store::Error::NotImplemented { .. }) => {
                runtime.block_on(object.store.put(&object.path, body))
            }
            other => other,
        };
        match put {
            Ok(_) => Ok(()),
            Err(error) if is_conflict(&error) => Err(Error::Exists(object.described.clone())),
            Err(error) => Err(object.fail("store", &error)),
        }
    }

    fn part_len(&self) -> usize {
        PART_LEN << (self.parts / PARTS_OF_A_LENGTH).min(DOUBLINGS)
    }

    fn send_part(&mut self) -> Result<()> {
        while self.sending.len() >= PARTS_IN_FLIGHT {
            self.await_part()?;
        }
        let runtime = runtime(&self.runtime)?;
        let upload = match &mut self.upload {
            Some(upload) => upload,
            none => {
                let begun = runtime.block_on(self.object.store.put_multipart(&self.object.path));
                none.insert(begun.map_err(|error| self.object.fail("begin", &error))?)
            }
        };
        let part = PutPayload::from(std::mem::take(&mut self.part));
        let sending = upload.put_part(part);
        self.sending.push_back(runtime.spawn(sending));
        self.parts += 1;
        Ok(())
    }

    fn await_part(&mut self) -> Result<()> {
        let Some(part) = self.sending.pop_front() else { return Ok(()) };
        match runtime(&self.runtime)?.block_on(part) {
            Ok(sent) => sent.map_err(|error| self.object.fail("upload a part of", &error)),
            Err(_) => Err(died(&self.object)),
        }
    }
}

impl Write for ObjectWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.part.len() >= self.part_len() {
            self.send_part().map_err(io::Error::other)?;
        }
        let room = self.part_len() - self.part.len();
        let taken = &bytes[..bytes.len().min(room)];
        self.part.extend_from_slice(taken);
        self.written += taken.len() as u64;
        Ok(taken.len())
    }

    /// Nothing: what was written appears with [`ObjectWriter::finish`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for ObjectWriter {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        if let Some(mut upload) = self.upload.take() {
            let sending = std::mem::take(&mut self.sending);
            let give_up = async {
                // A part that arrives behind the end of its upload would stay, and one whose
                // request is cut off may arrive at any time: wait for it first.
                let cut_off = tokio::time::Instant::now() + LAST_PARTS;
                for mut part in sending {
                    if tokio::time::timeout_at(cut_off, &mut part).await.is_err() {
                        part.abort();
                        let _ = part.await;
                    }
                }
                upload.abort().await
            };
            let aborted =
                runtime.block_on(async { tokio::time::timeout(ABORT_DEADLINE, give_up).await });
            if !matches!(aborted, Ok(Ok(()))) {
                tracing::warn!(object = self.object.described, "an upload stays unfinished");
            }
        }
        runtime.shutdown_background();
    }
}

/// An object that is being read.
pub struct ObjectReader {
    object: Arc<Located>,
    len: u64,
    version: Option<String>,
    /// Where the range after `range` begins.
    next_at: u64,
    next: Option<JoinHandle<Result<Bytes>>>,
    range: Bytes,
    runtime: Option<Runtime>,
}

impl std::fmt::Debug for ObjectReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ObjectReader({}, {} bytes)", self.object.described, self.len)
    }
}

impl ObjectReader {
    /// Opens the object at `url`, with credentials from the environment. [`Error::NotFound`] when
    /// there is none. For threads outside of any runtime.
    pub fn open(url: &str) -> Result<Self> {
        Self::open_with(url, environment())
    }

    /// As [`ObjectReader::open`], with these variables for an environment.
    pub fn open_with(
        url: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self> {
        let object = Arc::new(locate(url, variables)?);
        let runtime = start_runtime()?;
        let meta = runtime
            .block_on(object.store.head(&object.path))
            .map_err(|error| object.fail("look for", &error))?;
        Ok(Self {
            object,
            len: meta.size,
            version: meta.e_tag,
            next_at: 0,
            next: None,
            range: Bytes::new(),
            runtime: Some(runtime),
        })
    }

    /// Length of the object in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Asks for the range behind all that were asked for.
    fn ask_ahead(&mut self) -> Result<()> {
        if self.next.is_some() || self.next_at >= self.len {
            return Ok(());
        }
        let range = self.next_at..self.len.min(self.next_at + RANGE_LEN);
        self.next_at = range.end;
        let (object, version) = (Arc::clone(&self.object), self.version.clone());
        let fetching = async move { fetch_patiently(&object, range, version).await };
        self.next = Some(runtime(&self.runtime)?.spawn(fetching));
        Ok(())
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.range.is_empty() {
            self.ask_ahead().map_err(io::Error::other)?;
            let Some(next) = self.next.take() else { return Ok(0) };
            let runtime = runtime(&self.runtime).map_err(io::Error::other)?;
            let fetched = runtime.block_on(next).unwrap_or_else(|_| Err(died(&self.object)));
            self.range = fetched.map_err(io::Error::other)?;
            self.ask_ahead().map_err(io::Error::other)?;
        }
        let taken = buf.len().min(self.range.len());
        buf[..taken].copy_from_slice(&self.range.split_to(taken));
        Ok(taken)
    }
}

impl Drop for ObjectReader {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Asks for what is missing of a range until all of it is there, or several attempts in a row have
/// brought nothing.
async fn fetch_patiently(
    object: &Located,
    range: Range<u64>,
    version: Option<String>,
) -> Result<Bytes> {
    let mut found = BytesMut::with_capacity((range.end - range.start) as usize);
    let mut pause = FIRST_PAUSE;
    let mut attempt = 1;
    loop {
        let before = found.len();
        let rest = range.start + before as u64..range.end;
        match fetch(object, rest, version.clone(), &mut found).await {
            Ok(()) => return Ok(found.freeze()),
            Err(error) if !is_retriable(&error) => return Err(error),
            Err(_) if found.len() > before => {
                attempt = 1;
                pause = FIRST_PAUSE;
            }
            Err(error) if attempt == ATTEMPTS => return Err(error),
            Err(error) => {
                tracing::debug!(attempt, %error, "reading an object failed, may pass");
                attempt += 1;
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Adds what arrives of a range to `found`, also when not all of it does.
async fn fetch(
    object: &Located,
    range: Range<u64>,
    version: Option<String>,
    found: &mut BytesMut,
) -> Result<()> {
    let bad = |kind, message: &str| {
        TierFailure::error(kind, "read", &object.described, message.to_owned())
    };
    let wanted = found.len() as u64 + (range.end - range.start);
    let mut options = GetOptions::new().with_range(Some(GetRange::Bounded(range)));
    options.if_match = version;
    let answer = match object.store.get_opts(&object.path, options).await {
        Ok(answer) => answer,
        Err(object_store::Error::Precondition { .. }) => {
            let message = "the object was replaced while it was being read";
            return Err(bad(FailureKind::Rejected, message));
        }
        Err(error) => return Err(object.fail("read", &error)),
    };
    let mut body = answer.into_stream();
    while (found.len() as u64) < wanted {
        match tokio::time::timeout(SILENCE, body.next()).await {
            Err(_) => return Err(Error::TimedOut("reading an object")),
            Ok(None) => {
                return Err(bad(FailureKind::BadBody, "fewer bytes came than were asked for"));
            }
            Ok(Some(Err(error))) => return Err(object.fail("read", &error)),
            Ok(Some(Ok(bytes))) if found.len() as u64 + bytes.len() as u64 > wanted => {
                return Err(bad(FailureKind::Rejected, "more bytes came than were asked for"));
            }
            Ok(Some(Ok(bytes))) => found.extend_from_slice(&bytes),
        }
    }
    Ok(())
}

fn runtime(runtime: &Option<Runtime>) -> Result<&Runtime> {
    runtime.as_ref().ok_or_else(|| Error::ReadOnly("it was closed".into()))
}

fn died(object: &Located) -> Error {
    let message = "the task ended without an answer";
    TierFailure::error(FailureKind::Rejected, "transfer", &object.described, message)
}
