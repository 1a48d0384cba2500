//! Records on the wire: each with a checksum of itself and of everything before it, so that
//! nothing can be changed, dropped, repeated or moved.

use std::io::{BufWriter, ErrorKind, Read, Write};

use super::ReceiveError;

/// Begins every stream. Not text, and damaged by newline conversion.
const MAGIC: [u8; 8] = *b"\xf1Snaps\r\n";
/// The version written, and the newest one read.
const VERSION: u16 = 1;

/// Flags that this program knows; a reader must know all.
pub(super) const KNOWN_FLAGS: u16 = 0b1_1111;

/// Most bytes of a header's body.
const HEADER_MAX: usize = 16 << 10;
/// Most bytes of a record's body: a block as stored, or a slot of inline bytes, and room to spare.
pub(super) const BODY_MAX: usize = 4 << 20;

const CHECK_LEN: usize = 16;

/// Bytes collected before they are written.
const BUFFER: usize = 256 << 10;

/// Writes a stream.
pub(super) struct ChainWriter<'a> {
    out: BufWriter<&'a mut dyn Write>,
    state: [u8; 32],
    written: u64,
}

impl<'a> ChainWriter<'a> {
    /// Begins with a header.
    pub(super) fn begin(out: &'a mut dyn Write, flags: u16, body: &[u8]) -> std::io::Result<Self> {
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&flags.to_le_bytes());
        header.extend_from_slice(&(body.len() as u32).to_le_bytes());
        header.extend_from_slice(body);
        let state = *blake3::hash(&header).as_bytes();
        let mut chain = Self { out: BufWriter::with_capacity(BUFFER, out), state, written: 0 };
        chain.write(&header)?;
        chain.write(&state[..CHECK_LEN])?;
        Ok(chain)
    }

    /// Adds a record, whose body is in two parts.
    pub(super) fn record(&mut self, kind: u8, body: [&[u8]; 2]) -> std::io::Result<()> {
        let len = body[0].len() + body[1].len();
        let mut head = [0; 5];
        head[0] = kind;
        head[1..].copy_from_slice(&(len as u32).to_le_bytes());
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.state);
        for part in [&head[..], body[0], body[1]] {
            hasher.update(part);
            self.write(part)?;
        }
        self.state = *hasher.finalize().as_bytes();
        let check = self.state;
        self.write(&check[..CHECK_LEN])
    }

    /// Bytes so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Everything is passed on when this returns.
    pub(super) fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// A record that was read and whose checksum is right.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) kind: u8,
    pub(super) body: Vec<u8>,
    /// Where it began.
    pub(super) at: u64,
}

/// Reads a stream.
pub(crate) struct ChainReader<'a> {
    input: &'a mut dyn Read,
    state: [u8; 32],
    read: u64,
}

impl<'a> ChainReader<'a> {
    /// Reads the header: its flags and its body.
    pub(super) fn begin(input: &'a mut dyn Read) -> Result<(Self, u16, Vec<u8>), ReceiveError> {
        let mut reader = Self { input, state: [0; 32], read: 0 };
        let mut bytes = reader.take(16)?;
        if bytes[..8] != MAGIC {
            return Err(ReceiveError::NotAStream);
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version != VERSION {
            let (found, known) = (u32::from(version), u32::from(VERSION));
            return Err(ReceiveError::TooNew { what: "version", found, known });
        }
        let flags = u16::from_le_bytes([bytes[10], bytes[11]]);
        let len = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]) as usize;
        if len > HEADER_MAX {
            return Err(ReceiveError::Damaged { at: 0 });
        }
        let body = reader.take(len)?;
        bytes.extend_from_slice(&body);
        reader.state = *blake3::hash(&bytes).as_bytes();
        reader.check(0)?;
        if flags & !KNOWN_FLAGS != 0 {
            let (found, known) = (u32::from(flags), u32::from(KNOWN_FLAGS));
            return Err(ReceiveError::TooNew { what: "flags", found, known });
        }
        Ok((reader, flags, body))
    }

    /// Reads the next record.
    pub(super) fn record(&mut self) -> Result<Record, ReceiveError> {
        let at = self.read;
        let head = self.take(5)?;
        let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if len > BODY_MAX {
            return Err(ReceiveError::Damaged { at });
        }
        let body = self.take(len)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.state).update(&head).update(&body);
        self.state = *hasher.finalize().as_bytes();
        self.check(at)?;
        Ok(Record { kind: head[0], body, at })
    }

    /// Waits for the end of the input behind the last record, and fails when more follows.
    pub(super) fn end(&mut self) -> Result<(), ReceiveError> {
        let at = self.read;
        match self.take(1) {
            Ok(_) => Err(ReceiveError::MoreFollows { at }),
            Err(ReceiveError::Torn { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Bytes so far.
    pub(super) fn read(&self) -> u64 {
        self.read
    }

    fn check(&mut self, at: u64) -> Result<(), ReceiveError> {
        let check = self.take(CHECK_LEN)?;
        if self.state[..CHECK_LEN] == check[..] {
            Ok(())
        } else {
            Err(ReceiveError::Damaged { at })
        }
    }

    fn take(&mut self, len: usize) -> Result<Vec<u8>, ReceiveError> {
        let mut bytes = vec![0; len];
        let mut filled = 0;
        while filled < len {
            match self.input.read(&mut bytes[filled..]) {
                Ok(0) => return Err(ReceiveError::Torn { at: self.read }),
                Ok(more) => {
                    filled += more;
                    self.read += more as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(ReceiveError::Read(error)),
            }
        }
        Ok(bytes)
    }
}
