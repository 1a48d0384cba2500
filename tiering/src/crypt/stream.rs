//! A stream of unknown length, sealed on its way to somewhere else: with a data key of its own, which
//! travels at its head, wrapped. Bytes: `FORMAT.md`, "Encrypted stream".
//!
//! Whoever reads gets verified bytes only, in order from the first; a stream that was cut is an error
//! at its end.

use std::io::{self, Read, Write};

use super::wrap::{Derivation, Generation, MAX_WRAPPED_LEN, WrappedKey};
use super::{CHUNK_LEN, DataKey, SEALED_CHUNK_LEN, Sealer, Secret, open};
use crate::error::{Error, Result};

/// What an encrypted stream begins with.
pub const STREAM_MAGIC: [u8; 8] = *b"\xF1Seald\r\n";

const VERSION: u16 = 1;

/// Behind the magic: version, reserved, length of the wrapped key.
const HEAD_LEN: usize = 2 + 2 + 4;

/// What a stream's chunks are bound to in place of an object's name.
const NAME: &str = "stream";

/// Chunks that are sealed or opened at once.
const CHUNKS_AT_ONCE: usize = 16;
const PIECE: usize = CHUNKS_AT_ONCE * CHUNK_LEN as usize;
const SEALED_PIECE: usize = CHUNKS_AT_ONCE * SEALED_CHUNK_LEN as usize;

fn damaged(reason: &str) -> Error {
    Error::Damaged { what: "encrypted stream", reason: reason.to_owned() }
}

/// Seals what is written to it.
pub struct SealedWriter<W> {
    inner: W,
    sealer: Sealer,
    plain: Vec<u8>,
}

impl<W> std::fmt::Debug for SealedWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealedWriter({:?})", self.sealer)
    }
}

impl<W: Write> SealedWriter<W> {
    /// Begins a stream that `secret` opens.
    pub fn begin(mut inner: W, secret: &Secret, derivation: Derivation) -> Result<Self> {
        let key = DataKey::random()?;
        let wrapped = WrappedKey::wrap(&key, secret, Generation(1), [0; 16], derivation)?;
        let wrapped = wrapped.to_bytes()?;
        let mut head = STREAM_MAGIC.to_vec();
        head.extend_from_slice(&VERSION.to_le_bytes());
        head.extend_from_slice(&[0; 2]);
        head.extend_from_slice(&(wrapped.len() as u32).to_le_bytes());
        head.extend_from_slice(&wrapped);
        inner.write_all(&head).map_err(Error::io("write an encrypted stream"))?;
        Ok(Self { inner, sealer: Sealer::new(&key, NAME)?, plain: Vec::with_capacity(PIECE) })
    }

    /// What it writes to.
    pub fn inner(&self) -> &W {
        &self.inner
    }

    /// Seals the end; without it, the stream counts as cut.
    pub fn finish(mut self) -> io::Result<W> {
        self.pass_on(true)?;
        Ok(self.inner)
    }

    fn pass_on(&mut self, is_end: bool) -> io::Result<()> {
        let mut sealed = Vec::with_capacity(SEALED_PIECE);
        let mut rest = self.plain.as_slice();
        loop {
            let (chunk, behind) = rest.split_at(rest.len().min(CHUNK_LEN as usize));
            let is_last = is_end && behind.is_empty();
            self.sealer.push(chunk, is_last, &mut sealed).map_err(io::Error::other)?;
            if behind.is_empty() {
                break;
            }
            rest = behind;
        }
        self.plain.clear();
        self.inner.write_all(&sealed)
    }
}

impl<W: Write> Write for SealedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.plain.len() == PIECE && !bytes.is_empty() {
            self.pass_on(false)?;
        }
        let taken = &bytes[..bytes.len().min(PIECE - self.plain.len())];
        self.plain.extend_from_slice(taken);
        Ok(taken.len())
    }

    /// Nothing: a chunk is sealed when it is full.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens what it reads.
pub struct OpenedReader<R> {
    inner: R,
    key: DataKey,
    index: u64,
    /// Read, and not opened yet.
    next: Vec<u8>,
    plain: Vec<u8>,
    at: usize,
    is_done: bool,
}

impl<R> std::fmt::Debug for OpenedReader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenedReader({} chunks)", self.index)
    }
}

impl<R: Read> OpenedReader<R> {
    /// Reads the head of a stream; `None` when `secret` is not the one.
    pub fn begin(mut inner: R, secret: &Secret) -> Result<Option<Self>> {
        let failed = || Error::io("read an encrypted stream");
        let mut head = [0; STREAM_MAGIC.len() + HEAD_LEN];
        inner.read_exact(&mut head).map_err(failed())?;
        if !head.starts_with(&STREAM_MAGIC) {
            return Err(damaged("it is something else"));
        }
        let version = u16::from_le_bytes([head[8], head[9]]);
        if version != VERSION {
            let (found, known) = (u32::from(version), u32::from(VERSION));
            return Err(Error::TooNew { what: "encrypted stream", found, known });
        }
        let len = u32::from_le_bytes([head[12], head[13], head[14], head[15]]);
        if u64::from(len) > MAX_WRAPPED_LEN {
            return Err(damaged("its key is too long"));
        }
        let mut wrapped = vec![0; len as usize];
        inner.read_exact(&mut wrapped).map_err(failed())?;
        let Some(key) = WrappedKey::from_bytes(&wrapped)?.unwrap(secret)? else {
            return Ok(None);
        };
        let next = piece(&mut inner).map_err(failed())?;
        let (plain, at, is_done) = (Vec::new(), 0, false);
        Ok(Some(Self { inner, key, index: 0, next, plain, at, is_done }))
    }

    fn open_next(&mut self) -> io::Result<()> {
        let behind = piece(&mut self.inner)?;
        let sealed = std::mem::replace(&mut self.next, behind);
        self.is_done = self.next.is_empty();
        let opened = open(&self.key, NAME, self.index, sealed, self.is_done);
        self.plain = opened.map_err(io::Error::other)?;
        self.index += CHUNKS_AT_ONCE as u64;
        self.at = 0;
        Ok(())
    }
}

/// The next bytes, fewer only at the end.
fn piece(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut piece = Vec::with_capacity(SEALED_PIECE);
    from.take(SEALED_PIECE as u64).read_to_end(&mut piece)?;
    Ok(piece)
}

impl<R: Read> Read for OpenedReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at == self.plain.len() && !self.is_done {
            self.open_next()?;
        }
        let left = &self.plain[self.at..];
        let len = left.len().min(buf.len());
        buf[..len].copy_from_slice(&left[..len]);
        self.at += len;
        Ok(len)
    }
}
