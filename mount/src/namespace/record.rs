//! The stored values: compact, versioned, and decoded with every length checked, as specified in
//! `tiering/FORMAT.md`, "Namespace". Integers are LEB128 unless said otherwise.

mod dentry;
mod inode;
mod lanes;
mod link;
mod meta;
mod properties;
mod receive;
mod seal;
mod slot;
mod time;
mod usage;
mod version_tree;

use super::key::Node;
use crate::error::FsError;
use crate::types::Ino;

pub use dentry::{BUCKET_BITS, Bucket, Entry, NAME_MAX};
pub use inode::{Inode, InodeFlags, kind_of_byte, kind_of_mode, mode_of_kind};
pub use lanes::Lanes;
pub use link::{link_name, put_link_name};
pub use meta::{Leases, VolumeRecord};
pub use properties::{CLASS_MAX, Property, Setting, Settings, is_class_name};
pub use receive::{Base, NewPlace, ReceiveProgress, ReceiveRecord};
pub use seal::{BODIES_MAX, Link, Seal, SealRecord, SumRecord};
pub use slot::{Content, Piece, SLOT_LEN, SlotRecord, allocated, check_pieces, fresh, pieces_of};
pub use time::Timestamp;
pub use usage::Usage;
pub use version_tree::{
    Counters, DatasetRecord, HOLDS_MAX, Hold, LineRecord, MESSAGE_MAX, Origin, Place, Referenced,
    RollbackRecord, SnapshotRecord, SweepRecord, TAG_MAX,
};

/// Stored bytes that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damaged {what}: {reason}")]
pub struct RecordError {
    /// Which record.
    pub what: &'static str,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl RecordError {
    /// Damage of `what`.
    pub fn new(what: &'static str, reason: &'static str) -> Self {
        Self { what, reason }
    }
}

impl From<RecordError> for FsError {
    fn from(error: RecordError) -> Self {
        Self::io("namespace", error)
    }
}

impl FsError {
    /// Whether stored bytes make no sense, rather than that they could not be read now.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.is::<RecordError>())
    }
}

/// Takes stored bytes apart; never reads past their end.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    what: &'static str,
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes`, which hold a `what`.
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, left: bytes }
    }

    /// An error about what is being read.
    pub fn error(&self, reason: &'static str) -> RecordError {
        RecordError::new(self.what, reason)
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let (taken, left) =
            self.left.split_at_checked(len).ok_or_else(|| self.error("too short"))?;
        self.left = left;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let bytes = self.bytes(N)?;
        Ok(bytes.try_into().expect("took exactly N bytes"))
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, RecordError> {
        Ok(self.array::<1>()?[0])
    }

    /// Four bytes, big-endian.
    pub fn u32_be(&mut self) -> Result<u32, RecordError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes, big-endian.
    pub fn u64_be(&mut self) -> Result<u64, RecordError> {
        self.array().map(u64::from_be_bytes)
    }

    /// Four bytes, little-endian.
    pub fn u32_le(&mut self) -> Result<u32, RecordError> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes, little-endian.
    pub fn u64_le(&mut self) -> Result<u64, RecordError> {
        self.array().map(u64::from_le_bytes)
    }

    /// LEB128 of up to 64 bits, in its shortest form.
    pub fn varint(&mut self) -> Result<u64, RecordError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(self.error("number too large"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift != 0 {
                    return Err(self.error("number not in its shortest form"));
                }
                return Ok(value);
            }
        }
        Err(self.error("number too long"))
    }

    /// LEB128 of up to 32 bits.
    pub fn varint32(&mut self) -> Result<u32, RecordError> {
        let value = self.varint()?;
        u32::try_from(value).map_err(|_| self.error("number too large"))
    }

    /// An inode number as stored: LEB128 of up to 48 bits.
    pub fn object(&mut self) -> Result<Ino, RecordError> {
        let object = self.varint()?;
        match object >> Ino::OBJECT_BITS {
            0 => Ok(Ino(object)),
            _ => Err(self.error("inode number too large")),
        }
    }

    /// Zigzag LEB128.
    pub fn signed(&mut self) -> Result<i64, RecordError> {
        let raw = self.varint()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.left)
    }

    /// Number of bytes left.
    pub fn len(&self) -> usize {
        self.left.len()
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// Fails when bytes are left.
    pub fn end(&self) -> Result<(), RecordError> {
        if self.left.is_empty() { Ok(()) } else { Err(self.error("too long")) }
    }

    /// Reads the format version; newer than `known` is an error.
    pub fn version(&mut self, known: u8) -> Result<u8, RecordError> {
        let found = self.u8()?;
        if found == 0 || found > known {
            return Err(self.error("unknown format version"));
        }
        Ok(found)
    }
}

/// Appends LEB128.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends zigzag LEB128.
pub fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// What every value of the head and history spaces starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// The node under which the record was written.
    pub node: Node,
    /// The history holds older versions of the record.
    pub shadows: bool,
    /// The record was removed; an older version remains.
    pub whiteout: bool,
}

const WHITEOUT: u64 = 1;
const SHADOWS: u64 = 1 << 1;
const NODE_SHIFT: u32 = 2;

impl Version {
    /// The first version of a record, written under `node`.
    pub fn first(node: Node) -> Self {
        Self { node, shadows: false, whiteout: false }
    }

    /// Starts a value.
    pub fn put(&self, out: &mut Vec<u8>) {
        let mut raw = u64::from(self.node.0) << NODE_SHIFT;
        if self.shadows {
            raw |= SHADOWS;
        }
        if self.whiteout {
            raw |= WHITEOUT;
        }
        put_varint(out, raw);
    }

    /// Splits a value into version and record.
    pub fn split(value: &[u8]) -> Result<(Self, &[u8]), RecordError> {
        let mut reader = Reader::new("version", value);
        let raw = reader.varint()?;
        let node = u32::try_from(raw >> NODE_SHIFT).map_err(|_| reader.error("node too large"))?;
        let version =
            Self { node: Node(node), shadows: raw & SHADOWS != 0, whiteout: raw & WHITEOUT != 0 };
        if version.whiteout && !reader.is_empty() {
            return Err(reader.error("whiteout with content"));
        }
        Ok((version, reader.rest()))
    }
}

#[cfg(test)]
mod tests;
