//! What a stream says of itself before anything else.

use blake3::Hash;

use super::{Guid, ReceiveError};
use crate::namespace::{OBJECTS_END, Position, Reader, RecordError, Timestamp, put_varint};

const INCREMENTAL: u16 = 1;
const CLONE: u16 = 1 << 1;
const RESUMED: u16 = 1 << 2;
const BASE_ROOT: u16 = 1 << 3;
const ENDS_WITH_ROOT: u16 = 1 << 4;

/// Most blocks that both ends remember.
pub(super) const WINDOW_MAX: u64 = 1 << 18;

/// Longest text: a message.
const TEXT_MAX: usize = 4096;

/// The snapshot that a stream builds on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct From {
    /// Its name in all volumes.
    pub(crate) guid: Guid,
    /// Its name where it was sent.
    pub(crate) name: String,
    /// It belongs to the dataset that the sent one is a clone of.
    pub(crate) is_origin: bool,
    /// What stands for all that it shows where it was sent.
    pub(crate) root: Option<Hash>,
}

/// What a stream says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The snapshot.
    pub(crate) to: Guid,
    /// Its base.
    pub(crate) from: Option<From>,
    /// When it was taken.
    pub(crate) created: Timestamp,
    /// Its name.
    pub(crate) name: String,
    /// What its maker said about it.
    pub(crate) message: String,
    /// The object of its root directory.
    pub(crate) root: u64,
    /// No object is that large.
    pub(crate) objects_end: u64,
    /// Blocks that both ends remember.
    pub(crate) window: u64,
    /// Bytes of files, 0 where that is not known.
    pub(crate) estimated_bytes: u64,
    /// Where it goes on.
    pub(crate) resumed: Option<Position>,
    /// The last record may say what stands for all that the snapshot shows.
    pub(crate) ends_with_root: bool,
}

impl Header {
    /// Flags and body.
    pub(super) fn encode(&self) -> (u16, Vec<u8>) {
        let mut flags = 0;
        let mut out = self.to.0.to_vec();
        if let Some(from) = &self.from {
            flags |= INCREMENTAL | if from.is_origin { CLONE } else { 0 };
            out.extend_from_slice(&from.guid.0);
            put_text(&mut out, &from.name);
        }
        self.created.put(&mut out);
        put_text(&mut out, &self.name);
        put_text(&mut out, &self.message);
        for number in [self.root, self.objects_end, self.window, self.estimated_bytes] {
            put_varint(&mut out, number);
        }
        if let Some(position) = self.resumed {
            flags |= RESUMED;
            position.put(&mut out);
        }
        if let Some(root) = self.from.as_ref().and_then(|from| from.root) {
            flags |= BASE_ROOT;
            out.extend_from_slice(root.as_bytes());
        }
        flags |= if self.ends_with_root { ENDS_WITH_ROOT } else { 0 };
        (flags, out)
    }

    /// Reads flags and body.
    pub(super) fn decode(flags: u16, body: &[u8]) -> Result<Self, ReceiveError> {
        let invalid =
            |error: RecordError| ReceiveError::Invalid { at: 0, reason: error.reason.to_owned() };
        Self::read(flags, body).map_err(invalid)
    }

    fn read(flags: u16, body: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new("stream header", body);
        let to = guid(&mut reader)?;
        let is_origin = flags & CLONE != 0;
        let mut from = match flags & INCREMENTAL != 0 {
            true => Some(From {
                guid: guid(&mut reader)?,
                name: text(&mut reader)?,
                is_origin,
                root: None,
            }),
            false if is_origin => return Err(reader.error("a clone of nothing")),
            false => None,
        };
        let created = Timestamp::read(&mut reader)?;
        let (name, message) = (text(&mut reader)?, text(&mut reader)?);
        let root = reader.object()?.0;
        let objects_end = reader.varint()?;
        let window = reader.varint()?;
        let estimated_bytes = reader.varint()?;
        let resumed = match flags & RESUMED != 0 {
            true => Some(Position::read(&mut reader)?),
            false => None,
        };
        if flags & BASE_ROOT != 0 {
            let root = Hash::from_bytes(reader.array()?);
            match &mut from {
                Some(from) => from.root = Some(root),
                None => return Err(reader.error("the root of no base")),
            }
        }
        reader.end()?;
        if objects_end > OBJECTS_END || root == 0 || root >= objects_end {
            return Err(reader.error("inode numbers too large"));
        }
        if window == 0 || window > WINDOW_MAX {
            return Err(reader.error("impossible window"));
        }
        Ok(Self {
            to,
            from,
            created,
            name,
            message,
            root,
            objects_end,
            window,
            estimated_bytes,
            resumed,
            ends_with_root: flags & ENDS_WITH_ROOT != 0,
        })
    }
}

fn guid(reader: &mut Reader<'_>) -> Result<Guid, RecordError> {
    let mut guid = [0; 16];
    guid.copy_from_slice(reader.bytes(16)?);
    Ok(Guid(guid))
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn text(reader: &mut Reader<'_>) -> Result<String, RecordError> {
    let len = reader.varint()? as usize;
    if len > TEXT_MAX {
        return Err(reader.error("text too long"));
    }
    let bytes = reader.bytes(len)?.to_vec();
    String::from_utf8(bytes).map_err(|_| reader.error("text is not UTF-8"))
}
