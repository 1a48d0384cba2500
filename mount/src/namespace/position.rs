//! Where in the order of a send something is: what both ends agree on when a stream goes on.

use super::record::{Reader, RecordError, put_varint};

/// What a part of a stream is about, in the order in which they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Stage {
    /// Inodes with their attributes and contents.
    Objects = 0,
    /// Names that go.
    Unlinks = 1,
    /// Names that come.
    Links = 2,
    /// Inodes that go.
    Removals = 3,
}

/// A place in a stream. Within a stage, inodes come in growing order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The stage.
    pub stage: Stage,
    /// The inode, without a view; of names, the directory.
    pub object: u64,
    /// Among [`Stage::Objects`] the next slot of the inode; otherwise 0.
    pub sub: u64,
}

impl Position {
    /// Where a stream begins.
    pub const START: Self = Self { stage: Stage::Objects, object: 0, sub: 0 };

    /// The beginning of a stage.
    pub const fn of(stage: Stage) -> Self {
        Self { stage, object: 0, sub: 0 }
    }

    /// Appends the stored form.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.push(self.stage as u8);
        put_varint(out, self.object);
        put_varint(out, self.sub);
    }

    /// Reads the stored form.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        let stage = match reader.u8()? {
            0 => Stage::Objects,
            1 => Stage::Unlinks,
            2 => Stage::Links,
            3 => Stage::Removals,
            _ => return Err(reader.error("unknown stage")),
        };
        Ok(Self { stage, object: reader.object()?.0, sub: reader.varint()? })
    }
}
