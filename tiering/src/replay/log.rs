//! A rolling log of recent accesses on disk, from which traces are exported and the classifier is
//! trained. Specified in `tiering/FORMAT.md`, "Access log".
//!
//! *Cost*: an access is put into a buffer in memory; nothing is written before [`AccessLog::flush`],
//! which a background thread calls when [`AccessLog::note`] says that a batch is full, and every few
//! minutes.
//! *Bounds*: the buffer holds four batches; what comes while it is full is counted and dropped. Files
//! are a ring: the oldest goes when the sum would exceed the bound.
//! *Crash*: what was not flushed is lost. Batches are synced one by one, so at most the last one of a
//! file is torn; its checksum tells, and the rest of that file is ignored. A new process begins a new
//! file and never appends to one that may be torn. A failed flush loses its batch and cuts the file
//! back to where it was, or leaves it for a new one.
//! *Concurrency*: notes wait for a flush only while it takes the buffer; readers see whole batches,
//! and skip files that the ring drops meanwhile.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::Request;
use super::trace::{TraceReader, TraceWriter};
use crate::envelope::{self, Kind};
use crate::error::{Error, Result};

const KIND: Kind = Kind { tag: *b"alog", name: "access log", version: 1, max_plain_len: 8 << 20 };

/// The longest envelope of such a plaintext.
const MAX_FRAME: usize = KIND.max_plain_len + 4096;

/// Requests of the largest batch: as text they stay below the longest plaintext.
const MOST_BATCH: usize = 32_768;

/// Batches held in memory while the disk is slow.
const BUFFERED: usize = 4;

/// Files that the ring consists of when they are full.
const FILES: u64 = 16;

/// Files at most; a process that starts often leaves small ones.
const MOST_FILES: usize = 256;

/// Damaged files named in a [`LogRead`].
const MOST_NAMED: usize = 16;

const EXTENSION: &str = "log";

/// Size of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Bytes on disk, at most.
    pub max_bytes: u64,
    /// Requests in a batch.
    pub batch: usize,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { max_bytes: 64 << 20, batch: 8192 }
    }
}

/// Numbers for status and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStatus {
    /// Files on disk.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Requests that wait to be written.
    pub buffered: u64,
    /// Requests dropped because the buffer was full or a write failed, since the start.
    pub dropped: u64,
}

/// What reading the log came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogRead {
    /// Requests read.
    pub requests: u64,
    /// Files of which a part was ignored, and why; the first 16.
    pub damaged: Vec<String>,
}

#[derive(Debug)]
struct Buffer {
    requests: Vec<Request>,
    dropped: u64,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    number: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Files {
    /// From the oldest on; the last one may be open.
    pieces: VecDeque<Piece>,
    open: Option<File>,
    next_number: u64,
    /// Swapped with the buffer, so that neither is allocated again.
    spare: Vec<Request>,
}

/// The log in one directory, which belongs to it.
#[derive(Debug)]
pub struct AccessLog {
    dir: PathBuf,
    config: LogConfig,
    buffer: Mutex<Buffer>,
    files: Mutex<Files>,
}

impl AccessLog {
    /// Opens the log in a directory, which is made if need be. Files in it that are not of the log are
    /// left alone.
    pub fn open(dir: &Path, config: LogConfig) -> Result<Self> {
        let config = LogConfig { batch: config.batch.clamp(1, MOST_BATCH), ..config };
        fs::create_dir_all(dir).map_err(Error::io(format!("create {}", dir.display())))?;
        let pieces = list(dir)?;
        let next_number = pieces.back().map_or(0, |piece| piece.number.saturating_add(1));
        let requests = Vec::with_capacity(config.batch);
        Ok(Self {
            dir: dir.to_owned(),
            config,
            buffer: Mutex::new(Buffer { requests, dropped: 0 }),
            files: Mutex::new(Files { pieces, open: None, next_number, spare: Vec::new() }),
        })
    }

    /// Takes note of a request in memory; true when a batch is full and a flush is due.
    pub fn note(&self, request: &Request) -> bool {
        let mut buffer = self.buffer.lock();
        if buffer.requests.len() >= self.config.batch * BUFFERED {
            buffer.dropped += 1;
            return true;
        }
        buffer.requests.push(*request);
        buffer.requests.len() >= self.config.batch
    }

    /// Writes what is in memory, durably. After an error what could not be written is dropped.
    pub fn flush(&self) -> Result<()> {
        let mut files = self.files.lock();
        let mut batch = std::mem::take(&mut files.spare);
        std::mem::swap(&mut batch, &mut self.buffer.lock().requests);
        let mut written = 0;
        let mut result = Ok(());
        for requests in batch.chunks(self.config.batch) {
            result = self.append(&mut files, requests);
            if result.is_err() {
                self.buffer.lock().dropped += (batch.len() - written) as u64;
                break;
            }
            written += requests.len();
        }
        batch.clear();
        files.spare = batch;
        result
    }

    fn append(&self, files: &mut Files, requests: &[Request]) -> Result<()> {
        let mut text = TraceWriter::new(Vec::with_capacity(requests.len() * 80))?;
        requests.iter().try_for_each(|request| text.write(request))?;
        let (sealed, _) = envelope::seal(KIND, &text.finish()?)?;
        let mut frame = Vec::with_capacity(4 + sealed.len());
        frame.extend_from_slice(&(sealed.len() as u32).to_le_bytes());
        frame.extend_from_slice(&sealed);
        let len = frame.len() as u64;
        if len > self.config.max_bytes {
            return Err(Error::Config(format!(
                "an access log of {} bytes has no room for a batch of {len}",
                self.config.max_bytes
            )));
        }
        let full = |piece: &Piece| piece.bytes + len > (self.config.max_bytes / FILES).max(len);
        if files.open.is_some() && files.pieces.back().is_some_and(full) {
            files.open = None;
        }
        self.make_room(files, len)?;
        if files.open.is_none() {
            let number = files.next_number;
            let path = self.path(number);
            let file =
                File::create_new(&path).map_err(Error::io(format!("create {}", path.display())))?;
            files.next_number = number.saturating_add(1);
            files.open = Some(file);
            files.pieces.push_back(Piece { number, bytes: 0 });
        }
        let (Some(file), Some(piece)) = (&mut files.open, files.pieces.back_mut()) else {
            return Ok(());
        };
        let written = file.write_all(&frame).and_then(|()| file.sync_data());
        match written {
            Ok(()) => {
                piece.bytes += len;
                Ok(())
            }
            Err(error) => {
                // What the disk holds now is unknown: cut off what can be, and go on in a new file.
                let cut = file.set_len(piece.bytes);
                files.open = None;
                let path = self.path(piece.number);
                if cut.is_err() {
                    piece.bytes = fs::metadata(&path).map_or(piece.bytes, |found| found.len());
                }
                Err(Error::io(format!("write {}", path.display()))(error))
            }
        }
    }

    /// Removes the oldest files until so many bytes fit.
    fn make_room(&self, files: &mut Files, bytes: u64) -> Result<()> {
        loop {
            let sum: u64 = files.pieces.iter().map(|piece| piece.bytes).sum();
            if sum + bytes <= self.config.max_bytes && files.pieces.len() < MOST_FILES {
                return Ok(());
            }
            let Some(oldest) = files.pieces.front().copied() else { return Ok(()) };
            if files.pieces.len() == 1 {
                files.open = None;
            }
            let path = self.path(oldest.number);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io(format!("remove {}", path.display()))(error));
                }
                _ => files.pieces.pop_front(),
            };
        }
    }

    /// Calls `visit` for every request on disk since `from_ms`, from the oldest on, until it says
    /// `Break`. What is damaged is left out and named. One batch is in memory at a time.
    pub fn read(
        &self,
        from_ms: u64,
        mut visit: impl FnMut(&Request) -> ControlFlow<()>,
    ) -> Result<LogRead> {
        let pieces = self.files.lock().pieces.clone();
        let mut read = LogRead::default();
        for piece in pieces {
            let path = self.path(piece.number);
            let file = match File::open(&path) {
                Ok(file) => file.take(piece.bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::io(format!("open {}", path.display()))(error)),
            };
            match read_piece(file, from_ms, &mut read.requests, &mut visit) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return Ok(read),
                Err(error @ Error::Io { .. }) => return Err(error),
                Err(error) if read.damaged.len() < MOST_NAMED => {
                    read.damaged.push(format!("{}: {error}", path.display()));
                }
                Err(_) => {}
            }
        }
        Ok(read)
    }

    /// Numbers for status and metrics.
    pub fn status(&self) -> LogStatus {
        let (files, bytes) = {
            let files = self.files.lock();
            (files.pieces.len(), files.pieces.iter().map(|piece| piece.bytes).sum())
        };
        let buffer = self.buffer.lock();
        let buffered = buffer.requests.len() as u64;
        LogStatus { files: files as u64, bytes, buffered, dropped: buffer.dropped }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:016x}.{EXTENSION}"))
    }
}

/// The files of a log, from the oldest on.
fn list(dir: &Path) -> Result<VecDeque<Piece>> {
    let failed = || Error::io(format!("list {}", dir.display()));
    let mut pieces = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_suffix(EXTENSION)?.strip_suffix('.'))
            .filter(|digits| digits.len() == 16)
            .and_then(|digits| u64::from_str_radix(digits, 16).ok());
        if let Some(number) = number {
            let bytes = entry.metadata().map_err(failed())?.len();
            pieces.push(Piece { number, bytes });
        }
    }
    pieces.sort_unstable_by_key(|piece| piece.number);
    Ok(pieces.into())
}

fn read_piece(
    mut file: impl Read,
    from_ms: u64,
    count: &mut u64,
    visit: &mut impl FnMut(&Request) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    while let Some(sealed) = read_frame(&mut file)? {
        let (text, ..) = envelope::open(KIND, &sealed)?;
        for request in TraceReader::new(&text[..])? {
            let request = request?;
            if request.at_ms < from_ms {
                continue;
            }
            *count += 1;
            if visit(&request).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn read_frame(file: &mut impl Read) -> Result<Option<Vec<u8>>> {
    let damaged = |reason: &str| Error::Damaged { what: KIND.name, reason: reason.to_owned() };
    let mut len = Vec::with_capacity(4);
    file.by_ref().take(4).read_to_end(&mut len).map_err(Error::io("read access log"))?;
    if len.is_empty() {
        return Ok(None);
    }
    let len = len.first_chunk().ok_or_else(|| damaged("it ends early"))?;
    let len = u32::from_le_bytes(*len) as usize;
    if len > MAX_FRAME {
        return Err(damaged("a batch is too long"));
    }
    let mut sealed = Vec::with_capacity(len);
    file.by_ref()
        .take(len as u64)
        .read_to_end(&mut sealed)
        .map_err(Error::io("read access log"))?;
    if sealed.len() < len {
        return Err(damaged("it ends early"));
    }
    Ok(Some(sealed))
}

#[cfg(test)]
mod tests;
