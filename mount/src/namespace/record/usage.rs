//! What a part of a line holds: a record of counters.

use super::{Inode, Reader, RecordError, Referenced, put_varint};

const VERSION: u8 = 1;

/// Counters of the versions between two snapshots of a line, or behind the last one. The key names
/// the line and the later snapshot, or its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that these versions hold and the next older versions of the same slots do not.
    pub charged: u64,
    /// What the live state refers to; nothing in front of a snapshot, which has it in its record.
    pub referenced: Referenced,
}

impl Usage {
    /// The stored value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        out.push(VERSION);
        for number in [self.charged, self.referenced.bytes, self.referenced.files] {
            put_varint(&mut out, number);
        }
        out
    }

    /// Decodes a stored value.
    pub fn decode(value: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new("usage", value);
        reader.version(VERSION)?;
        let charged = reader.varint()?;
        let referenced = Referenced { bytes: reader.varint()?, files: reader.varint()? };
        reader.end()?;
        Ok(Self { charged, referenced })
    }
}

impl Referenced {
    /// What an inode counts for: nothing without a name.
    pub fn of(inode: &Inode) -> Self {
        match inode.nlink {
            0 => Self::default(),
            _ => Self { bytes: inode.allocated, files: 1 },
        }
    }
}
